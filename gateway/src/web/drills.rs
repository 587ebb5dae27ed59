//! Drills over HTTP: start, raise, end, and the score sheet with its report that prints.

use std::sync::Arc;
use std::time::Duration;

use anmin_rules::alarm::Refusal;
use anmin_rules::drill::{
    self, Drill, DrillAction, DrillAlarm, DrillChange, DrillCommand, DrillId, Scenario, Scope, Target, unmarked,
};
use anmin_rules::order::CallState;
use anmin_rules::rule::{Level, Text};
use anmin_sensors::point::{Kind, PointId};
use anmin_sensors::time::Wall;
use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::api::{Answer, Asked, Desk, PlainBody, Told, USUAL_ROWS, body, moment, rows, send, short, words};
use super::guard::Caller;
use super::paging;
use super::problem::Problem;
use super::wire::{PlaceWire, TextWire, Writer};
use crate::main_loop::{Input, Query};
use crate::report::{self, Cell, Language, Page, cause};
use crate::store::people::Places;
use crate::store::state::{Entry, Journaled};
use crate::store::{StateReader, StoreError};

/// Longest name of a drill.
pub(super) const MOST_NAME: usize = 64;

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DrillWire {
    pub id: String,
    pub seq: u32,
    pub name: String,
    /// What of the site it is about; empty is not asked for.
    pub area: String,
    pub grid: String,
    pub building: String,
    pub scope: TextWire,
    pub announced: bool,
    pub by: String,
    pub started_at: String,
    pub ends_at: String,
    /// Alarms that were raised in it.
    pub alarms: u32,
    pub on: bool,
    pub ended_at: Option<String>,
    pub ended_by: Option<String>,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct DrillChangeWire {
    pub at: String,
    pub cause: &'static str,
    pub drill: DrillWire,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DrillsWire {
    pub drills: Vec<DrillWire>,
    /// `before` of the next page; `null` on the last.
    pub next: Option<String>,
    pub scenarios: Vec<ScenarioWire>,
    /// Which areas are to be drilled how often.
    #[serde(default)]
    pub calendar: Vec<PlannedWire>,
}

/// An area that is to be drilled every so often.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PlannedWire {
    pub id: String,
    pub scope: TextWire,
    pub every_days: u64,
    /// The last drill of it; without one, since when it is counted.
    pub last: String,
    pub due: String,
    pub overdue: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ScenarioWire {
    pub name: String,
    pub title: TextWire,
    pub kinds: Vec<String>,
}

/// A drill with its score sheet.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DrillViewWire {
    pub drill: DrillWire,
    pub score: ScoreWire,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ScoreWire {
    /// Clocks that were kept, of those that ran.
    pub kept: usize,
    pub of: usize,
    pub alarms: Vec<ScoredAlarmWire>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ScoredAlarmWire {
    pub alarm: String,
    pub title: TextWire,
    pub place: PlaceWire,
    pub level: String,
    pub raised_at: String,
    pub clocks: Vec<ClockWire>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ClockWire {
    /// `notified`, `acknowledged`, `accepted`, `on_scene` or `under_control`.
    pub what: String,
    /// Who had to: a station, else nobody in particular.
    pub station: Option<TextWire>,
    pub within_seconds: u64,
    /// `null`: it did not come to it.
    pub took_seconds: Option<f64>,
    pub kept: bool,
    pub at: Option<String>,
    /// Who did it, or the way out by which somebody was notified.
    pub by: String,
}

impl Writer<'_> {
    pub fn drill(self, drill: &Drill) -> DrillWire {
        let Scope { area, grid, building } = drill.scope.clone();
        DrillWire {
            id: drill.id.to_string(),
            seq: drill.seq,
            name: drill.name.clone(),
            area,
            grid,
            building,
            scope: drill.scope.text().into(),
            announced: drill.announced,
            by: drill.by.clone(),
            started_at: self.at(drill.started_at),
            ends_at: self.at(drill.ends_at),
            alarms: drill.alarms,
            on: drill.is_on(),
            ended_at: drill.end.as_ref().map(|end| self.at(end.at)),
            ended_by: drill.end.as_ref().map(|end| end.by.clone()),
        }
    }

    pub fn drill_change(self, change: &DrillChange) -> DrillChangeWire {
        DrillChangeWire { at: self.at(change.at), cause: change.cause.as_str(), drill: self.drill(&change.drill) }
    }

    fn score(self, sheet: &ScoreSheet) -> ScoreWire {
        let clock = |clock: &Clock| ClockWire {
            what: clock.what.as_str().to_owned(),
            station: clock.station.as_ref().map(Into::into),
            within_seconds: clock.within.as_secs(),
            took_seconds: clock.took().map(|took| took.as_secs_f64()),
            kept: clock.is_kept(),
            at: clock.at.map(|at| self.at(at)),
            by: clock.by.clone(),
        };
        let (kept, of) = sheet.kept();
        ScoreWire {
            kept,
            of,
            alarms: sheet
                .alarms
                .iter()
                .map(|scored| ScoredAlarmWire {
                    alarm: scored.id.clone(),
                    title: (&scored.title).into(),
                    place: (&*scored.place).into(),
                    level: scored.level.as_str().to_owned(),
                    raised_at: self.at(scored.raised_at),
                    clocks: scored.clocks.iter().map(clock).collect(),
                })
                .collect(),
        }
    }
}

/// A drill with all that the journal holds of it.
#[derive(Clone, Debug)]
pub struct Drilled {
    pub drill: Drill,
    /// The oldest first.
    pub rows: Vec<Journaled>,
    pub sheet: ScoreSheet,
}

impl Drilled {
    pub fn read(journal: &StateReader, id: DrillId) -> Result<Option<Self>, StoreError> {
        let Some(drill) = journal.drill(id)? else { return Ok(None) };
        let rows = journal.of_drill(id)?;
        let sheet = ScoreSheet::of(&rows, |alarm| journal.delivered(alarm))?;
        Ok(Some(Self { drill, rows, sheet }))
    }
}

/// How fast people were, alarm by alarm.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScoreSheet {
    pub alarms: Vec<Scored>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    pub id: String,
    pub title: Text,
    pub place: Arc<anmin_sensors::point::Place>,
    pub level: Level,
    pub raised_at: Wall,
    pub clocks: Vec<Clock>,
}

/// One thing that was to be done within a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Clock {
    pub what: Stage,
    pub station: Option<Text>,
    pub from: Wall,
    pub within: Duration,
    pub at: Option<Wall>,
    pub by: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The first message about it has arrived.
    Notified,
    Acknowledged,
    Accepted,
    OnScene,
    /// The crew has stood down, or says that it has the matter in hand.
    UnderControl,
}

impl Stage {
    pub const ALL: [Self; 5] = [Self::Notified, Self::Acknowledged, Self::Accepted, Self::OnScene, Self::UnderControl];

    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.as_str() == word)
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Notified => "notified",
            Self::Acknowledged => "acknowledged",
            Self::Accepted => "accepted",
            Self::OnScene => "on_scene",
            Self::UnderControl => "under_control",
        }
    }

    pub const fn text(self, language: Language) -> &'static str {
        match (self, language) {
            (Self::Notified, Language::Zh) => "通知送达",
            (Self::Acknowledged, Language::Zh) => "值班确认",
            (Self::Accepted, Language::Zh) => "消防站应答",
            (Self::OnScene, Language::Zh) => "到场",
            (Self::UnderControl, Language::Zh) => "处置完毕",
            (Self::Notified, Language::En) => "Notified",
            (Self::Acknowledged, Language::En) => "Acknowledged at the desk",
            (Self::Accepted, Language::En) => "Station accepts",
            (Self::OnScene, Language::En) => "On the scene",
            (Self::UnderControl, Language::En) => "Under control",
        }
    }
}

impl Clock {
    pub fn took(&self) -> Option<Duration> {
        self.at.map(|at| at.since(self.from))
    }

    pub fn is_kept(&self) -> bool {
        self.took().is_some_and(|took| took <= self.within)
    }
}

/// One minute to be told and to acknowledge; the practice of micro stations, 1-3-5, for the rest.
const MINUTE: Duration = Duration::from_secs(60);

impl ScoreSheet {
    /// `rows` about one drill, the oldest first; `delivered` says when the first message of each way out about an alarm arrived.
    pub fn of<E>(
        rows: &[Journaled],
        mut delivered: impl FnMut(anmin_rules::alarm::AlarmId) -> Result<Vec<(Arc<str>, Wall)>, E>,
    ) -> Result<Self, E> {
        use anmin_rules::alarm::{Cause, Class};
        let mut sheet = Self::default();
        for row in rows {
            match &row.entry {
                Entry::Transition(transition) if matches!(transition.alarm.class, Class::Hazard(_)) => {
                    let alarm = &transition.alarm;
                    match &transition.cause {
                        Cause::Raised => {
                            let first = delivered(alarm.id)?.into_iter().min_by_key(|(_, at)| *at);
                            let (by, at) = first.map_or((String::new(), None), |(by, at)| (by.to_string(), Some(at)));
                            let clock = |what, at, by| Clock {
                                what,
                                station: None,
                                from: alarm.raised_at,
                                within: MINUTE,
                                at,
                                by,
                            };
                            sheet.alarms.push(Scored {
                                id: alarm.id.to_string(),
                                title: alarm.title.clone(),
                                place: Arc::clone(&alarm.place),
                                level: alarm.level,
                                raised_at: alarm.raised_at,
                                clocks: vec![
                                    clock(Stage::Notified, at, by),
                                    clock(Stage::Acknowledged, None, String::new()),
                                ],
                            });
                        }
                        Cause::Acknowledged { by } if by != "anmin" => {
                            let of = sheet.alarms.iter_mut().find(|scored| scored.id == alarm.id.to_string());
                            if let Some(clock) =
                                of.and_then(|of| of.clocks.get_mut(1)).filter(|clock| clock.at.is_none())
                            {
                                (clock.at, clock.by) = (Some(transition.at.wall), by.clone());
                            }
                        }
                        _ => {}
                    }
                }
                Entry::Call(change) => {
                    let call = &change.call;
                    let Some(of) = sheet.alarms.iter_mut().find(|scored| scored.id == call.alarm.to_string()) else {
                        continue;
                    };
                    let Some(called) = call.stamps.iter().rev().find(|stamp| stamp.state == CallState::Called) else {
                        continue;
                    };
                    // The call as it stands now takes the place of what was said of it before.
                    of.clocks
                        .retain(|clock| clock.station.as_ref() != Some(&call.station_name) || clock.from != called.at);
                    let since = call.stamps.iter().skip_while(|stamp| stamp.at < called.at);
                    let first = |wanted: &dyn Fn(CallState) -> bool| {
                        since.clone().find(|stamp| wanted(stamp.state) && stamp.by != "anmin")
                    };
                    let there = |state: CallState| matches!(state, CallState::OnScene | CallState::UnderControl);
                    let accepted =
                        |state: CallState| there(state) || matches!(state, CallState::Accepted | CallState::OnTheWay);
                    let over = |state: CallState| matches!(state, CallState::UnderControl | CallState::StoodDown);
                    for (what, stamp, within) in [
                        (Stage::Accepted, first(&accepted), call.respond_by.since(called.at)),
                        (Stage::OnScene, first(&there), call.arrive_by.since(called.at)),
                        (Stage::UnderControl, first(&over), call.control_by.since(called.at)),
                    ] {
                        of.clocks.push(Clock {
                            what,
                            station: Some(call.station_name.clone()),
                            from: called.at,
                            within,
                            at: stamp.map(|stamp| stamp.at),
                            by: stamp.map(|stamp| stamp.by.clone()).unwrap_or_default(),
                        });
                    }
                }
                _ => {}
            }
        }
        Ok(sheet)
    }

    /// Clocks that were kept, of all.
    pub fn kept(&self) -> (usize, usize) {
        let clocks = || self.alarms.iter().flat_map(|scored| &scored.clocks);
        (clocks().filter(|clock| clock.is_kept()).count(), clocks().count())
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListParameters {
    limit: Option<usize>,
    after: Option<String>,
    /// The same, by its earlier name.
    before: Option<String>,
}

pub(super) async fn list(
    State(desk): State<Desk>,
    Asked(ListParameters { limit, after, before }): Asked<ListParameters>,
) -> Answer<DrillsWire> {
    let limit = rows(limit, USUAL_ROWS)?;
    let before: Option<String> = paging::after(after.as_deref(), before.as_deref())?;
    let before = before.as_deref().map(|text| moment("after", text)).transpose()?;
    let mut found = desk.archive(move |archive| archive.drills(limit + 1, before)).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let planned = desk.ask(|reply| Query::DrillCalendar { reply }).await?;
    let now = desk.link.clock.now().wall;
    let writer = desk.writer();
    let planned = planned.into_iter().map(|(plan, last)| PlannedWire {
        id: plan.id.to_string(),
        scope: plan.scope.text().into(),
        every_days: plan.every.as_secs() / 86_400,
        last: writer.at(last),
        due: writer.at(last.plus(plan.every)),
        overdue: now > last.plus(plan.every),
    });
    let next = found.last().filter(|_| more).map(|last| last.started_at.millis().to_string());
    let scenario = |Scenario { name, zh, en, alarms }: Scenario| ScenarioWire {
        name: name.to_owned(),
        title: TextWire { zh: zh.to_owned(), en: en.to_owned() },
        kinds: alarms.iter().map(|(kind, _)| (*kind).to_owned()).collect(),
    };
    Ok(Json(DrillsWire {
        drills: found.iter().map(|drill| writer.drill(drill)).collect(),
        next,
        scenarios: Scenario::ALL.map(scenario).into(),
        calendar: planned.collect(),
    }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AlarmBody {
    point: Option<String>,
    kind: Option<String>,
    #[serde(default)]
    floor: String,
    #[serde(default)]
    room: String,
    level: Option<String>,
}

impl AlarmBody {
    fn read(self) -> Result<DrillAlarm, Problem> {
        let level = match self.level.as_deref() {
            None => None,
            Some(word) => Some(Level::named(word).ok_or_else(|| {
                Problem::bad_request(format_args!("{:?} is not one of blue, yellow, orange, red", short(word)))
            })?),
        };
        let target = match (self.point, self.kind) {
            (Some(point), None) => Target::Point(PointId::new(point)),
            (None, Some(word)) => {
                let kind = Kind::named(&word)
                    .ok_or_else(|| Problem::bad_request(format_args!("{:?} is not a kind of point", short(&word))))?;
                Target::Kind { kind, floor: self.floor, room: self.room }
            }
            _ => return Err(Problem::bad_request("an alarm needs either its `point` or its `kind`")),
        };
        Ok(DrillAlarm { target, level })
    }
}

/// Alarms of a scenario, or one by one.
fn alarms_of(
    scenario: Option<&str>,
    floor: &str,
    room: &str,
    alarms: Vec<AlarmBody>,
) -> Result<Vec<DrillAlarm>, Problem> {
    let mut found = alarms.into_iter().map(AlarmBody::read).collect::<Result<Vec<_>, _>>()?;
    if let Some(name) = scenario {
        let scenario = Scenario::named(name).ok_or_else(|| {
            let known = Scenario::ALL.map(|scenario| scenario.name).join(", ");
            Problem::bad_request(format_args!("{:?} is not one of {known}", short(name)))
        })?;
        for (kind, level) in scenario.alarms {
            let kind = Kind::named(kind).expect("scenarios name kinds of the table, which a test walks");
            let target = Target::Kind { kind, floor: floor.to_owned(), room: room.to_owned() };
            found.push(DrillAlarm { target, level: Some(*level) });
        }
    }
    Ok(found)
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StartBody {
    who: Option<String>,
    #[serde(default)]
    area: String,
    #[serde(default)]
    grid: String,
    #[serde(default)]
    building: String,
    minutes: Option<u32>,
    #[serde(default)]
    name: String,
    #[serde(default)]
    announced: bool,
    scenario: Option<String>,
    #[serde(default)]
    floor: String,
    #[serde(default)]
    room: String,
    #[serde(default)]
    alarms: Vec<AlarmBody>,
}

pub(super) async fn start(State(desk): State<Desk>, caller: Caller, Told(start): Told<StartBody>) -> Answer<DrillWire> {
    let alarms = alarms_of(start.scenario.as_deref(), &start.floor, &start.room, start.alarms)?;
    let lasts = start.minutes.map_or(drill::USUAL, |minutes| Duration::from_secs(u64::from(minutes) * 60));
    let name = if start.name.trim().is_empty() { String::new() } else { words("name", &start.name, MOST_NAME)? };
    let scope = Scope { area: start.area, grid: start.grid, building: start.building };
    let what = DrillAction::Start { scope, lasts, name, announced: start.announced, alarms };
    let drill = DrillId(Uuid::now_v7());
    command(&desk, DrillCommand { who: caller.name(start.who)?, drill, what }, caller).await
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RaiseBody {
    who: Option<String>,
    scenario: Option<String>,
    #[serde(default)]
    floor: String,
    #[serde(default)]
    room: String,
    #[serde(default)]
    alarms: Vec<AlarmBody>,
}

pub(super) async fn act(
    State(desk): State<Desk>,
    caller: Caller,
    Path((id, action)): Path<(String, String)>,
    request: Request,
) -> Answer<DrillWire> {
    let drill = drill_id(&id)?;
    let (who, what) = match action.as_str() {
        "raise" => {
            let raise: RaiseBody = body(request).await?;
            let alarms = alarms_of(raise.scenario.as_deref(), &raise.floor, &raise.room, raise.alarms)?;
            if alarms.is_empty() {
                return Err(Problem::bad_request("name a `scenario` or `alarms`"));
            }
            (raise.who, DrillAction::Raise { alarms })
        }
        "end" => (body::<PlainBody>(request).await?.who, DrillAction::End),
        _ => {
            return Err(Problem::not_found("没有这个操作", "there is no such command")
                .hint("可用：raise、end", "there are raise and end"));
        }
    };
    command(&desk, DrillCommand { who: caller.name(who)?, drill, what }, caller).await
}

async fn command(desk: &Desk, command: DrillCommand, caller: Caller) -> Answer<DrillWire> {
    let id = command.drill;
    let Caller { way: from, seen, .. } = caller;
    match send(&desk.link.inputs, |reply| Input::Drill { command, from, seen, reply }).await? {
        Ok(()) => Ok(Json(desk.writer().drill(&find(desk, id).await?))),
        Err(Refusal::ChangedMeanwhile) => {
            Err(desk.changed_by(|deed| deed.about == id.to_string(), None).await.precondition())
        }
        Err(refusal) => Err(Problem::refused(&refusal)),
    }
}

/// One that is on by the main loop, else as it ended.
async fn find(desk: &Desk, id: DrillId) -> Result<Drill, Problem> {
    let status = desk.ask(|reply| Query::Status { within: Places::EVERYWHERE, reply }).await?;
    if let Some(on) = status.drills.iter().find(|drill| drill.id == id) {
        return Ok(Drill::clone(on));
    }
    Ok(drilled(desk, id).await?.drill)
}

fn drill_id(text: &str) -> Result<DrillId, Problem> {
    text.parse().map(DrillId).map_err(|_| {
        Problem::bad_request(format_args!("{:?} is not a drill's id", short(text)))
            .hint("演练编号见 GET /api/v1/drills", "ids stand in GET /api/v1/drills")
    })
}

async fn drilled(desk: &Desk, id: DrillId) -> Result<Drilled, Problem> {
    let found = desk.archive(move |archive| archive.drill(id)).await?;
    found.ok_or_else(|| Problem::not_found(format!("没有演练 {id}"), format!("there is no drill {id}")))
}

pub(super) async fn one(State(desk): State<Desk>, Path(id): Path<String>) -> Answer<DrillViewWire> {
    let found = drilled(&desk, drill_id(&id)?).await?;
    let writer = desk.writer();
    Ok(Json(DrillViewWire { drill: writer.drill(&found.drill), score: writer.score(&found.sheet) }))
}

pub(super) async fn report(State(desk): State<Desk>, Path(id): Path<String>) -> Result<Response, Problem> {
    let found = drilled(&desk, drill_id(&id)?).await?;
    let html = written(&desk.link.site.name, &found, &desk.link.site.time_zone);
    let headers =
        [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, report::POLICY)];
    Ok((headers, html).into_response())
}

/// The report of a drill, in both languages.
pub fn written(site: &Text, found: &Drilled, zone: &TimeZone) -> String {
    let scope = found.drill.scope.text();
    let title = Text { zh: format!("演练报告：{}", scope.zh), en: format!("Drill report: {}", scope.en) };
    report::document(&title, |language, page| write(language, page, site, &title, found, zone))
}

fn write(language: Language, page: &mut Page, site: &Text, title: &Text, found: &Drilled, zone: &TimeZone) {
    let Drilled { drill, rows, sheet } = found;
    let pick = |zh, en| language.pick(zh, en);
    let at = |moment| report::moment(moment, zone);
    page.mark(pick("演练，没有真实险情", "DRILL, nobody was in danger"));
    page.title(language.of(title));
    let end = drill.end.as_ref().map_or_else(
        || pick("正在进行", "still on").to_owned(),
        |end| match end.by.as_str() {
            "anmin" => format!("{}（{}）", at(end.at), pick("到时自动结束", "by itself, its time was over")),
            by => format!("{}（{by}）", at(end.at)),
        },
    );
    let (kept, of) = sheet.kept();
    page.facts([
        (pick("社区", "Community"), language.of(site).to_owned()),
        (pick("名称", "Name"), drill.name.clone()),
        (pick("范围", "Area"), language.of(&drill.scope.text()).to_owned()),
        (pick("开始", "Started"), format!("{}（{}）", at(drill.started_at), drill.by)),
        (pick("结束", "Ended"), end),
        (pick("事先通知", "Announced"), if drill.announced { pick("是", "yes") } else { pick("否", "no") }.to_owned()),
        (pick("演练报警", "Alarms raised"), drill.alarms.to_string()),
        (pick("达标时限", "Clocks kept"), format!("{kept} / {of}")),
        (pick("编号", "Id"), drill.id.to_string()),
    ]);
    page.heading(pick("成绩单", "Score sheet"));
    for scored in &sheet.alarms {
        let place = language.pick(&scored.place.zh(), &scored.place.en()).to_owned();
        let level = pick(scored.level.zh(), scored.level.as_str());
        page.line(&format!(
            "{} · {} · {} · {}",
            unmarked(language.of(&scored.title)),
            place,
            level,
            at(scored.raised_at)
        ));
        let heads = [
            pick("环节", "Stage"),
            pick("责任方", "Who"),
            pick("时限（秒）", "Within (s)"),
            pick("用时（秒）", "Took (s)"),
            pick("时刻", "At"),
            pick("达标", "Kept"),
        ];
        let rows = scored.clocks.iter().map(|clock| {
            let who = match (&clock.station, clock.by.is_empty()) {
                (Some(station), true) => language.of(station).to_owned(),
                (Some(station), false) => format!("{}（{}）", language.of(station), clock.by),
                (None, _) => clock.by.clone(),
            };
            [
                Cell::from(clock.what.text(language)),
                Cell::Words(who),
                Cell::Number(clock.within.as_secs().to_string()),
                Cell::Number(clock.took().map_or_else(|| "–".to_owned(), |took| format!("{:.1}", took.as_secs_f64()))),
                Cell::Words(clock.at.map_or_else(String::new, |at| report::time(at, zone))),
                match (clock.is_kept(), clock.at) {
                    (true, _) => Cell::Verdict(true, pick("达标", "yes").to_owned()),
                    (false, Some(_)) => Cell::Verdict(false, pick("超时", "late").to_owned()),
                    (false, None) => Cell::Verdict(false, pick("未完成", "not done").to_owned()),
                },
            ]
        });
        page.table(&heads, rows);
    }
    if sheet.alarms.is_empty() {
        page.line(pick("演练中没有触发报警。", "No alarm was raised in it."));
    }
    page.heading(pick("经过", "What happened"));
    let heads = [pick("时刻", "At"), pick("事项", "What"), pick("内容", "Words"), pick("人员", "By")];
    let rows = rows.iter().filter_map(|row| match &row.entry {
        Entry::Transition(transition) => {
            let by = match &transition.cause {
                anmin_rules::alarm::Cause::Acknowledged { by } | anmin_rules::alarm::Cause::Reset { by } => by.clone(),
                _ => String::new(),
            };
            let what = cause(transition.cause.as_str(), language);
            Some((transition.at.wall, what, unmarked(language.of(&transition.alarm.message)).to_owned(), by))
        }
        Entry::Call(change) => {
            let state = language.pick(change.call.state.zh(), change.call.state.as_str()).replace('_', " ");
            let by = change.call.stamps.last().map(|stamp| stamp.by.clone()).unwrap_or_default();
            Some((change.at, state, unmarked(language.of(&change.message)).to_owned(), by))
        }
        Entry::Incident(_) | Entry::Damaged(_) => None,
    });
    page.table(
        &heads,
        rows.map(|(moment, what, words, by)| [report::time(moment, zone), what, words, by].map(Cell::Words)),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_name_kinds_that_there_are() {
        for scenario in Scenario::ALL {
            assert!(
                alarms_of(Some(scenario.name), "", "", Vec::new()).is_ok_and(|alarms| !alarms.is_empty()),
                "{}",
                scenario.name
            );
        }
        assert!(alarms_of(Some("x"), "", "", Vec::new()).is_err());
    }
}
