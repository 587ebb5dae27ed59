//! The crew's page: one call on a phone, opened by a signed link (see [`crate::crew_link`]), in Chinese and English.
//!
//! No script and no sign-in: each button is a form of its own. Whoever holds the link may say where this one call stands, in
//! the member's name, and see where to go and who of that building asks for help; nothing else of the site. A link that is forged, expired or for a call that is over
//! says so and leaves one line in the log, of each kind once in a while.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anmin_rules::alarm::{Action, Command, Refusal};
use anmin_rules::order::{Call, CallState, CallStep};
use anmin_rules::rule::{Level, Text};
use anmin_sensors::time::{Mono, Wall};
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde_json::json;

use super::api::{Desk, send, words};
use super::authority::{Right, Routes, get, post};
use super::guard::Visitor;
use super::meanwhile::Against;
use super::problem::Problem;
use crate::crew_link::{Link, Unfit};
use crate::main_loop::query::AlarmView;
use crate::main_loop::{Input, Query};
use crate::register::{Kind, NEEDS, Row, Shown, need_text};
use crate::store::audit::{Deed, Through, Way};
use crate::telemetry::Repeats;

/// Requests of one link in a minute: more than a person in a hurry taps.
const A_MINUTE: u32 = 40;
/// Links whose requests are counted at once; beyond it the oldest minutes are forgotten first.
const MOST_LINKS: usize = 1_000;
/// Bytes of a form.
const MOST_FORM: usize = 4 << 10;
/// Calls for help that are shown.
const MOST_NEEDS: usize = 20;
/// Longest reason that is kept.
const MOST_WHY: usize = 300;

const STYLE: &str = include_str!("crew.css");

/// No script, no picture, no frame; forms go home.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// How often each link was used lately, and what was turned away.
#[derive(Clone, Debug, Default)]
pub(super) struct Counted(Arc<Mutex<(Uses, Repeats)>>);

/// By link, since when and how often.
type Uses = HashMap<String, (Mono, u32)>;

impl Counted {
    /// Whether this link may be used once more.
    fn takes(&self, token: &str, now: Mono) -> bool {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let links = &mut counted.0;
        if links.len() >= MOST_LINKS && !links.contains_key(token) {
            links.retain(|_, (since, _)| now.since(*since) < Duration::from_secs(60));
            if links.len() >= MOST_LINKS {
                links.clear();
            }
        }
        let (since, count) = links.entry(token.to_owned()).or_insert((now, 0));
        if now.since(*since) >= Duration::from_secs(60) {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count <= A_MINUTE
    }

    /// Who shows what opens nothing leaves one line, of each kind once in a while.
    pub fn say(&self, what: &'static str, why: &'static str, from: Way, now: Mono) {
        let peer = from.address.map_or_else(|| "unknown".to_owned(), |address| address.to_string());
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(more) = counted.1.say(&format!("{peer} {what} {why}"), now) {
            tracing::warn!(more, "web: {what} from {peer} opens nothing: {why}");
        }
    }
}

/// The link itself says who may come in.
pub(super) fn routes() -> Routes<Desk> {
    let style = || async { ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], STYLE).into_response() };
    Routes::new()
        .route("/crew.css", get(Right::Anybody, style))
        .route("/crew/{token}", get(Right::Anybody, show))
        .route("/crew/{token}", post(Right::Anybody, Against::Repeats, act))
}

/// Why nothing is shown.
struct Closed(StatusCode, &'static str, Text);

impl Closed {
    fn new(status: StatusCode, why: &'static str, zh: &str, en: &str) -> Self {
        Self(status, why, Text { zh: zh.to_owned(), en: en.to_owned() })
    }
}

/// The link, and the call that it opens.
async fn opened(desk: &Desk, token: &str) -> Result<(Link, AlarmView, Call), Closed> {
    let now = desk.link.clock.now();
    let link = desk.link.crew.key.open(token, now.wall).map_err(|unfit| match unfit {
        Unfit::Forged => Closed::new(
            StatusCode::FORBIDDEN,
            "forged or cut",
            "链接无效或不完整。请从通知中重新打开，或电话联系值班员。",
            "This link is not valid or not whole. Open it from the notice again, or phone the duty desk.",
        ),
        Unfit::Expired => Closed::new(
            StatusCode::GONE,
            "expired",
            "链接已过期。请电话联系值班员。",
            "This link has expired. Phone the duty desk.",
        ),
    })?;
    if !desk.counted.takes(token, now.mono) {
        return Err(Closed::new(
            StatusCode::TOO_MANY_REQUESTS,
            "used too often",
            "操作过于频繁，请一分钟后再试。",
            "Too many requests: try again in a minute.",
        ));
    }
    let over = || {
        Closed::new(
            StatusCode::GONE,
            "for a call that is over",
            "本次呼叫已结束，无需再操作。",
            "This call is over: nothing is left to do.",
        )
    };
    let id = link.alarm;
    let view = desk.ask(|reply| Query::Alarm { id, reply }).await.map_err(unanswered)?.ok_or_else(over)?;
    let call = view.calls.iter().find(|call| *call.station == *link.station).cloned().ok_or_else(over)?;
    Ok((link, view, call))
}

fn unanswered(problem: Problem) -> Closed {
    Closed(problem.status, "not answered", problem.error)
}

/// Who speaks, as the audit will name them.
fn name_of(link: &Link, call: &Call) -> String {
    let member = call.crew.iter().find(|member| *member.id == *link.member);
    match member {
        Some(member) => member.name.clone(),
        None if link.member.is_empty() => call.station_name.zh.clone(),
        None => link.member.clone(),
    }
}

async fn show(State(desk): State<Desk>, Visitor(from): Visitor, Path(token): Path<String>) -> Response {
    match opened(&desk, &token).await {
        Ok((link, view, call)) => {
            let mut advice = Vec::new();
            if let Some(incident) = view.alarm.incident
                && let Ok(Some(whole)) = desk.ask(|reply| Query::Incident { id: incident, reply }).await
            {
                advice = whole.situation.advice;
            }
            if advice.is_empty() {
                advice.push(view.alarm.advice.clone());
            }
            let needs = needs(&desk, &link, &view, &call, from).await;
            answer(StatusCode::OK, &page(&desk, &link, &view, &call, &advice, &needs))
        }
        Err(closed) => turned_away(&desk, from, closed),
    }
}

/// Who needs help where the crew goes.
#[derive(Debug, Default, PartialEq)]
struct Needs {
    /// Calls for help of the building that nobody has done with, the gravest first; as a crew may see them.
    asked: Vec<Row>,
    /// Calls besides.
    more: usize,
    /// Households of the building that are known to need help. Which, the desk says.
    households: usize,
    /// They cannot be read.
    unknown: bool,
}

impl Needs {
    fn of(building: &str, help: Vec<Row>, households: &[Row]) -> Self {
        let here = |row: &Row| !building.is_empty() && row.cell("building") == building;
        let asks = |row: &Row| here(row) && row.cell("state") != "done" && row.cell("need") != "safe";
        let rank = |row: &Row| NEEDS.iter().position(|(word, _)| *word == row.cell("need"));
        let mut asked: Vec<Row> = help.into_iter().filter(asks).collect();
        asked.sort_by_cached_key(|row| (rank(row), row.cell("at").to_owned(), row.id().to_owned()));
        let rest = asked.split_off(asked.len().min(MOST_NEEDS));
        let asked = asked.into_iter().map(|row| row.masked(Shown::Crews)).collect();
        Self { asked, more: rest.len(), households: households.iter().filter(|row| here(row)).count(), unknown: false }
    }
}

/// A drill sends nobody to who is really in need, and a crew that need not come need not know.
async fn needs(desk: &Desk, link: &Link, view: &AlarmView, call: &Call, from: Way) -> Needs {
    if view.alarm.drill.is_some() || call.state == CallState::StoodDown {
        return Needs::default();
    }
    let read = desk.archive(|archive| Ok((archive.register(Kind::Help)?, archive.register(Kind::Households)?))).await;
    let Ok((help, households)) = read else { return Needs { unknown: true, ..Needs::default() } };
    let needs = Needs::of(&view.alarm.place.building, help, &households);
    if needs.asked.is_empty() {
        return needs;
    }
    let deed = Deed {
        who: name_of(link, call),
        from: Way { through: Through::CrewLink, ..from },
        about: Kind::Help.as_str().to_owned(),
        ..Deed::of_anmin(desk.link.clock.now().wall, "register.read", json!({ "rows": needs.asked.len() }))
    };
    // Nobody is shown what nobody would know of.
    match desk.note(deed).await {
        Ok(()) => needs,
        Err(_) => Needs { unknown: true, ..Needs::default() },
    }
}

async fn act(
    State(desk): State<Desk>,
    Visitor(from): Visitor,
    Path(token): Path<String>,
    request: Request,
) -> Response {
    let (link, _, call) = match opened(&desk, &token).await {
        Ok(found) => found,
        Err(closed) => return turned_away(&desk, from, closed),
    };
    let read = axum::body::to_bytes(request.into_body(), MOST_FORM);
    let form = tokio::time::timeout(Duration::from_secs(10), read).await;
    let Ok(Ok(form)) = form else {
        return said(StatusCode::BAD_REQUEST, "提交的内容不完整", "What was sent is not whole");
    };
    let (mut step, mut why, mut reason) = (String::new(), String::new(), String::new());
    for (key, value) in url::form_urlencoded::parse(&form) {
        match &*key {
            "step" => step = value.into_owned(),
            "why" => why = value.into_owned(),
            "reason" => reason = value.into_owned(),
            _ => {}
        }
    }
    let step = match step.as_str() {
        "reinforce" => {
            return match reinforce(&desk, &link, &call, from, &why).await {
                Ok(()) => back_to(&token),
                Err(problem) => said(problem.status, &problem.error.zh, &problem.error.en),
            };
        }
        "accept" => CallStep::Accept,
        "on-the-way" => CallStep::OnTheWay,
        "on-scene" => CallStep::OnScene,
        "under-control" => CallStep::UnderControl,
        "stand-down" => CallStep::StandDown,
        "decline" => {
            let why = if why.trim().is_empty() { reason } else { why };
            match words("why", &why, MOST_WHY) {
                Ok(why) => CallStep::Decline { why },
                Err(_) => {
                    return said(
                        StatusCode::BAD_REQUEST,
                        "请选择或填写不能出动的原因（300 字以内）",
                        "Choose or write why you cannot come, 300 characters at most",
                    );
                }
            }
        }
        _ => return said(StatusCode::BAD_REQUEST, "没有这个操作", "There is no such step"),
    };
    let what = Action::Call { alarm: link.alarm, station: link.station.clone(), step };
    let command = Command { who: name_of(&link, &call), what };
    let from = Way { through: Through::CrewLink, ..from };
    match send(&desk.link.inputs, |reply| Input::Command { command, from, seen: None, reply }).await {
        Ok(Ok(())) => back_to(&token),
        Ok(Err(refusal)) => {
            let text = refusal.text();
            said(StatusCode::CONFLICT, &text.zh, &text.en)
        }
        Err(problem) => said(problem.status, &problem.error.zh, &problem.error.en),
    }
}

/// A crew that comes, or is there, asks for one more station: the next that can respond. While one that was called has not
/// answered yet none is called besides, so that a second tap calls nobody.
async fn reinforce(desk: &Desk, link: &Link, call: &Call, from: Way, why: &str) -> Result<(), Problem> {
    let conflict = |zh: &str, en: &str| Problem::new(StatusCode::CONFLICT, "not_allowed", zh, en);
    if !call.is_answered() {
        return Err(conflict("请先应答，再请求增援", "say first that you come, then ask for another station"));
    }
    let id = link.alarm;
    let gone = || Problem::refused(&Refusal::NoSuchAlarm(id));
    let stations = desk.ask(|reply| Query::Next { id, reply }).await?.ok_or_else(gone)?.stations;
    if stations.iter().any(|station| station.called == Some(CallState::Called)) {
        return Ok(());
    }
    let able = stations.into_iter().filter(|station| station.called.is_none() && station.unready.is_none());
    let Some(next) = able.min_by_key(|station| station.elsewhere) else {
        return Err(conflict(
            "没有其他能出动的消防站，请电话联系值班台",
            "no other station can respond: phone the duty desk",
        ));
    };
    let said = if why.trim().is_empty() { String::new() } else { format!("：{}", words("why", why, MOST_WHY)?) };
    let why = format!("{}请求增援{said}", call.station_name.zh);
    let what = Action::CallStation { alarm: id, station: next.station.to_string(), insist: false, why };
    let command = Command { who: name_of(link, call), what };
    let from = Way { through: Through::CrewLink, ..from };
    match send(&desk.link.inputs, |reply| Input::Command { command, from, seen: None, reply }).await? {
        Ok(()) => Ok(()),
        Err(refusal) => Err(Problem::refused(&refusal)),
    }
}

/// The page anew, behind its own address.
fn back_to(token: &str) -> Response {
    let back = HeaderValue::from_str(&format!("/crew/{token}"));
    let back = back.expect("a token that opens is letters, digits, dashes and a dot");
    let mut response = answer(StatusCode::SEE_OTHER, "");
    response.headers_mut().insert(header::LOCATION, back);
    response
}

fn turned_away(desk: &Desk, from: Way, Closed(status, why, text): Closed) -> Response {
    desk.counted.say("a crew's link", why, from, desk.link.clock.now().mono);
    said(status, &text.zh, &text.en)
}

/// A page that says one thing.
fn said(status: StatusCode, zh: &str, en: &str) -> Response {
    let body = format!("<main><p class=\"said\">{}<br><span lang=\"en\">{}</span></p></main>", safe(zh), safe(en));
    answer(status, &whole("安民 anmin", &body))
}

fn answer(status: StatusCode, html: &str) -> Response {
    let mut response = (status, Body::from(html.to_owned())).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    // A browser names the page that sends a form only where it may name it to its own site.
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}

fn whole(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"zh-CN\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><meta name=\"robots\" content=\"noindex\">\
         <title>{}</title><link rel=\"stylesheet\" href=\"/crew.css\"></head><body>{body}</body></html>\n",
        safe(title)
    )
}

/// Text of devices and people is text here.
pub(super) fn safe(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // Turns the writing of what stands around it.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}

/// One text in both languages.
fn both(tag: &str, class: &str, text: &Text) -> String {
    if text.zh == text.en {
        return format!("<{tag} class=\"{class}\">{}</{tag}>", safe(&text.zh));
    }
    format!("<{tag} class=\"{class}\">{} <span lang=\"en\">{}</span></{tag}>", safe(&text.zh), safe(&text.en))
}

/// What may be said next, the likeliest first: the word of the form, Chinese, English.
fn steps(state: CallState) -> &'static [(&'static str, &'static str, &'static str)] {
    const ACCEPT: (&str, &str, &str) = ("accept", "接警，马上到", "Accept, we come");
    const GO: (&str, &str, &str) = ("on-the-way", "已出动", "On the way");
    const THERE: (&str, &str, &str) = ("on-scene", "已到场", "On the scene");
    const DONE: (&str, &str, &str) = ("under-control", "险情已控制", "Under control");
    const BACK: (&str, &str, &str) = ("stand-down", "撤回", "Stand down");
    match state {
        CallState::Called | CallState::Unanswered | CallState::Declined => &[ACCEPT, GO],
        CallState::Accepted => &[GO, THERE],
        CallState::OnTheWay => &[THERE],
        CallState::OnScene => &[DONE, BACK],
        CallState::UnderControl => &[BACK],
        CallState::StoodDown => &[],
    }
}

/// Why a crew cannot come, to be tapped.
const REASONS: [(&str, &str); 4] = [
    ("人员不足", "not enough people"),
    ("正在处置另一起警情", "out for another call"),
    ("器材或车辆故障", "equipment or vehicle out of order"),
    ("道路受阻", "the road is blocked"),
];

/// Where those are who ask for help, and what they need.
fn told(needs: &Needs) -> String {
    let mut html = String::new();
    if needs.unknown {
        html.push_str(
            "<p class=\"soft\">暂时读不到居民求助，请询问值班台 \
             <span lang=\"en\">Calls for help cannot be read: ask the duty desk</span></p>",
        );
    }
    if !needs.asked.is_empty() {
        html.push_str(
            "<h2>本楼居民求助 <span lang=\"en\">Residents here who ask for help</span></h2><ul class=\"needs\">",
        );
        for row in &needs.asked {
            let need = need_text(row.cell("need"));
            let room = Text::both(row.cell("room"));
            html.push_str("<li>");
            html.push_str(&both("b", "", &need));
            html.push_str(&both("span", "room", &room));
            let at = row.cell("at").split(' ').next_back().unwrap_or_default();
            html.push_str(&format!("<span class=\"soft\">{}</span></li>", safe(at)));
        }
        html.push_str("</ul>");
        if needs.more > 0 {
            html.push_str(&format!(
                "<p>另有 {0} 条，请询问值班台 <span lang=\"en\">{0} more: ask the duty desk</span></p>",
                needs.more
            ));
        }
    }
    if needs.households > 0 {
        html.push_str(&format!(
            "<p>本楼登记重点关照住户 {0} 户，房号请询问值班台 \
             <span lang=\"en\">{0} households of this building are known to need help: the duty desk says which</span></p>",
            needs.households
        ));
    }
    html
}

fn page(desk: &Desk, link: &Link, view: &AlarmView, call: &Call, advice: &[Text], needs: &Needs) -> String {
    let alarm = &view.alarm;
    let zone = &desk.link.site.time_zone;
    let clock = |at: Wall| {
        let at = zone.to_datetime(Timestamp::from_microsecond(at.micros()).unwrap_or_default());
        at.strftime("%H:%M:%S").to_string()
    };
    let level = match alarm.level {
        Level::Red => "red",
        Level::Orange => "orange",
        Level::Yellow => "yellow",
        Level::Blue => "blue",
    };
    let mut html = String::new();
    let mut put = |text: String| html.push_str(&text);
    if desk.link.site.exercise {
        put("<p class=\"exercise\">演练 <span lang=\"en\">Exercise</span></p>".to_owned());
    }
    let of_level = Text { zh: alarm.level.zh().to_owned(), en: level.to_owned() };
    put(format!("<header class=\"{level}\">{}{}", both("p", "level", &of_level), both("h1", "", &alarm.title)));
    put(both("p", "where", &Text { zh: alarm.place.zh(), en: alarm.place.en() }));
    put("</header><main>".to_owned());
    put(both("p", "what", &alarm.message));
    put(format!(
        "<p class=\"soft\">{} · {} · {}</p>",
        safe(&call.station_name.zh),
        safe(&name_of(link, call)),
        clock(alarm.raised_at)
    ));
    let state = Text { zh: call.state.zh().to_owned(), en: call.state.as_str().replace('_', " ") };
    put(both("p", "state", &state));
    match call.state {
        CallState::Called => put(format!(
            "<p class=\"soft\">请在 {0} 前应答 <span lang=\"en\">answer by {0}</span></p>",
            clock(call.respond_by)
        )),
        CallState::Accepted | CallState::OnTheWay => put(format!(
            "<p class=\"soft\">请在 {0} 前到场 <span lang=\"en\">be there by {0}</span></p>",
            clock(call.arrive_by)
        )),
        _ => {}
    }
    for (n, (word, zh, en)) in steps(call.state).iter().enumerate() {
        let class = if n == 0 { "first" } else { "" };
        put(format!(
            "<form method=\"post\"><button class=\"{class}\" name=\"step\" value=\"{word}\">{zh} <span lang=\"en\">{en}</span></button></form>"
        ));
    }
    if call.is_answered() {
        put("<details><summary>请求增援 <span lang=\"en\">We need another station</span></summary><form method=\"post\">\
             <label>情况 <span lang=\"en\">Why</span><input type=\"text\" name=\"why\" maxlength=\"200\"></label>\
             <button name=\"step\" value=\"reinforce\">呼叫下一个消防站 <span lang=\"en\">Call the next station</span></button></form></details>"
            .to_owned());
    }
    put(told(needs));
    put("<h2>处置要点 <span lang=\"en\">What to do</span></h2><ol>".to_owned());
    for text in advice {
        put(both("li", "", text));
    }
    put("</ol>".to_owned());
    if matches!(call.state, CallState::Called | CallState::Accepted | CallState::OnTheWay) {
        put("<details><summary>不能出动 <span lang=\"en\">We cannot come</span></summary><form method=\"post\">"
            .to_owned());
        for (zh, en) in REASONS {
            put(format!(
                "<label><input type=\"radio\" name=\"reason\" value=\"{zh}\"> {zh} <span lang=\"en\">{en}</span></label>"
            ));
        }
        put("<label>其他原因 <span lang=\"en\">Another reason</span><input type=\"text\" name=\"why\" maxlength=\"300\"></label>\
             <button name=\"step\" value=\"decline\">不能出动，转联防站 <span lang=\"en\">Decline: the next station is called</span></button>\
             </form></details>"
            .to_owned());
    }
    put("<form method=\"get\"><button class=\"quiet\">刷新 <span lang=\"en\">Refresh</span></button></form></main>"
        .to_owned());
    whole(&alarm.title.zh, &html)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_counted_by_the_minute_and_others_are_not_held_up() {
        let counted = Counted::default();
        let at = |seconds: u64| Mono::from_nanos(seconds * 1_000_000_000);
        for _ in 0..A_MINUTE {
            assert!(counted.takes("one", at(1)));
        }
        assert!(!counted.takes("one", at(60)));
        assert!(counted.takes("other", at(60)));
        assert!(counted.takes("one", at(61)));
        for n in 0..3 * MOST_LINKS {
            assert!(counted.takes(&n.to_string(), at(62)), "and memory is bounded");
        }
    }

    #[test]
    fn a_crew_sees_who_asks_for_help_in_its_building_and_nobodys_telephone() {
        let row = |id: &str, building: &str, need: &str, state: &str| {
            let cells = [
                ("id", id),
                ("building", building),
                ("need", need),
                ("state", state),
                ("room", "2单元 501"),
                ("said", "门<打>不开"),
                ("phone", "13800000000"),
                ("at", "2026-11-28 04:05:06"),
            ];
            let cells = cells.into_iter().map(|(name, cell)| (name.to_owned(), cell.to_owned())).collect();
            Row::read(Kind::Help, &cells).expect("it is sound")
        };
        let help = vec![
            row("a", "3", "move", "new"),
            row("b", "3", "trapped", "taken"),
            row("c", "5", "trapped", "new"),
            row("d", "3", "safe", "done"),
            row("e", "3", "hurt", "done"),
        ];
        let needs = Needs::of("3", help.clone(), &[]);
        assert_eq!(needs.asked.iter().map(Row::id).collect::<Vec<_>>(), ["b", "a"]);
        let html = told(&needs);
        assert!(html.contains("被困") && html.contains("2单元 501") && html.contains("04:05:06"), "{html}");
        assert!(!html.contains("138") && !html.contains("门"), "{html}");
        assert_eq!(Needs::of("", help, &[]), Needs::default(), "nobody knows where");
        let many = (0..30).map(|n| row(&n.to_string(), "3", "other", "new")).collect();
        let needs = Needs::of("3", many, &[]);
        assert_eq!((needs.asked.len(), needs.more), (MOST_NEEDS, 10));
    }

    #[test]
    fn every_state_offers_what_comes_next_and_text_stays_text() {
        for state in CallState::ALL {
            assert_eq!(steps(state).is_empty(), state == CallState::StoodDown, "{state:?}");
        }
        assert_eq!(safe("<a href='x'>\"&"), "&lt;a href=&#39;x&#39;&gt;&quot;&amp;");
    }
}
