//! What the residents' page says, in one language at a time. Everything that somebody else has written is escaped. Writing into a
//! text does not fail, so what `write!` gives is dropped.

use std::fmt::Write as _;
use std::time::Duration;

use anmin_rules::rule::{Level, Text};
use anmin_sensors::time::Wall;
use jiff::Timestamp;

use super::super::api::Desk;
use super::super::crew::safe;
use super::{End, Form, Known, Lang, Notice, Over};
use crate::register::{NEEDS, Row};

/// How often the page is read anew.
pub const EVERY: Duration = Duration::from_secs(60);
/// Longest description of a warning that is shown.
const MOST_TEXT: usize = 2_000;
/// Shelters that are shown.
const MOST_SHELTERS: usize = 30;

/// Fire, ambulance, police.
const PHONES: [(&str, &str, &str); 3] =
    [("119", "火警", "fire"), ("120", "急救", "ambulance"), ("110", "公安", "police")];

pub struct Writer<'d> {
    desk: &'d Desk,
    lang: Lang,
    /// What the reader has said of where they are.
    pub at: String,
    now: Wall,
}

impl<'d> Writer<'d> {
    pub fn new(desk: &'d Desk, lang: Lang, at: String) -> Self {
        Self { desk, lang, at, now: desk.link.clock.now().wall }
    }

    fn say<'t>(&self, zh: &'t str, en: &'t str) -> &'t str {
        self.lang.say(zh, en)
    }

    /// With language and place, for a header.
    pub fn address(&self, path: &str) -> String {
        self.address_in(self.lang, path, "")
    }

    fn address_in(&self, lang: Lang, path: &str, more: &str) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("lang", lang.as_str());
        if !self.at.is_empty() {
            query.append_pair("at", &self.at);
        }
        format!("{path}?{}{more}", query.finish())
    }

    /// For an attribute.
    fn link(&self, path: &str, more: &str) -> String {
        safe(&self.address_in(self.lang, path, more))
    }

    fn clock(&self, at: Wall, format: &str) -> String {
        let zone = &self.desk.link.site.time_zone;
        let at = zone.to_datetime(Timestamp::from_microsecond(at.micros()).unwrap_or_default());
        at.strftime(format).to_string()
    }

    fn moment(&self, at: Wall) -> String {
        self.clock(at, "%Y-%m-%d %H:%M")
    }

    fn title(&self) -> &str {
        let site = &self.desk.link.site;
        self.lang.text(self.desk.residents.settings().title.as_ref().unwrap_or(&site.name))
    }

    /// `here`: path and more of this page, for the link to the other language.
    fn whole(&self, heading: &str, here: (&str, &str), body: &str) -> String {
        let (other, name, tag) = match self.lang {
            Lang::Zh => (Lang::En, "English", "en"),
            Lang::En => (Lang::Zh, "中文", "zh-CN"),
        };
        let exercise = match self.desk.link.site.exercise {
            true => format!(
                "<p class=\"exercise\">{}</p>",
                self.say(
                    "演练状态：本社区自己发出的通知不是真的",
                    "Exercise: what this community itself announces is not real"
                )
            ),
            false => String::new(),
        };
        format!(
            "<!doctype html>\n<html lang=\"{}\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><meta name=\"robots\" content=\"noindex\">\
             <title>{} · {}</title><link rel=\"stylesheet\" href=\"/residents.css\"></head><body>\
             <header><p class=\"site\">{}</p><a class=\"other\" lang=\"{tag}\" hreflang=\"{tag}\" href=\"{}\">{name}</a></header>\
             <main>{exercise}<h1>{}</h1>{body}</main>{}</body></html>\n",
            self.say("zh-CN", "en"),
            safe(heading),
            safe(self.title()),
            safe(self.title()),
            safe(&self.address_in(other, here.0, here.1)),
            safe(heading),
            self.phones(),
        )
    }

    /// Whom to phone; at the foot of each page.
    fn phones(&self) -> String {
        let mut html =
            format!("<footer><h2>{}</h2><ul class=\"phones\">", self.say("有危险，打电话", "In danger? Phone"));
        for (number, zh, en) in PHONES {
            let _ = write!(html, "<li><a href=\"tel:{number}\"><b>{number}</b> {}</a></li>", self.say(zh, en));
        }
        if let Some(phone) = &self.desk.residents.settings().phone {
            let digits: String = phone.chars().filter(|c| c.is_ascii_digit() || "+*#".contains(*c)).collect();
            let _ = write!(
                html,
                "<li><a href=\"tel:{}\"><b>{}</b> {}</a></li>",
                safe(&digits.replace('#', "%23")),
                safe(phone),
                self.say("社区值班台", "the duty desk")
            );
        }
        html.push_str("</ul></footer>");
        html
    }

    /// `known`: `None` where it could not be found out.
    pub fn notices(&self, known: Option<&Known>, still: bool) -> String {
        let heading = self.say("当前通知", "Notices now");
        let mut html = String::new();
        match known.map(|known| &known.notices[..]) {
            None => {
                let _ = write!(
                    html,
                    "<p class=\"unknown\" role=\"alert\">{}</p>",
                    self.say(
                        "暂时读不到通知。这不表示平安无事：请留意周围情况和广播，有危险请打电话。",
                        "The notices cannot be read just now. That does not mean that all is well: look around you, listen to \
                         broadcasts, and phone if you are in danger."
                    )
                );
            }
            Some([]) => {
                let _ =
                    write!(html, "<p class=\"calm\">{}</p>", self.say("目前没有通知。", "There are no notices now."));
            }
            Some(notices) => notices.iter().for_each(|notice| html.push_str(&self.notice(notice))),
        }
        known.iter().flat_map(|known| &known.over).for_each(|over| html.push_str(&self.over(over)));
        let made = self.clock(self.now, "%Y-%m-%d %H:%M:%S");
        let seconds = EVERY.as_secs();
        let (told, link, words) = if still {
            (
                self.say("已停止自动更新。", "It does not renew itself.").to_owned(),
                self.link("/residents", ""),
                self.say("恢复自动更新", "Let it renew itself"),
            )
        } else {
            let zh = format!("每 {seconds} 秒自动更新；时间没有变化，说明本页已停住。");
            let en = format!("It renews itself every {seconds} seconds; if this time stands still, so does the page.");
            let told = if self.lang == Lang::Zh { zh } else { en };
            (told, self.link("/residents", "&still"), self.say("停止自动更新", "Stop that"))
        };
        let _ = write!(
            html,
            "<p class=\"made\">{} <b>{made}</b>{}{told} <a href=\"{link}\">{words}</a></p>",
            self.say("本页时间：", "This page is of"),
            self.say("。", ". "),
        );
        if self.desk.residents.settings().help {
            let _ = write!(
                html,
                "<p class=\"say\"><a class=\"button need\" href=\"{}\">{}</a><a class=\"button safe\" href=\"{}\">{}</a></p>",
                self.link("/residents/say", ""),
                self.say("我需要帮助", "I need help"),
                self.link("/residents/say", "&safe"),
                self.say("我平安", "I am safe"),
            );
        }
        if let Some(known) = known {
            self.shelters(known, &mut html);
        }
        self.whole(heading, ("/residents", if still { "&still" } else { "" }), &html)
    }

    fn notice(&self, notice: &Notice) -> String {
        let (class, en) = match notice.level {
            Level::Red => ("red", "Red"),
            Level::Orange => ("orange", "Orange"),
            Level::Yellow => ("yellow", "Yellow"),
            Level::Blue => ("blue", "Blue"),
        };
        let mut html = format!("<article class=\"{class}\"><div class=\"head\">");
        if notice.exercise {
            let _ =
                write!(html, "<p class=\"exercise\">{}</p>", self.say("演练，不是真的", "Exercise: this is not real"));
        }
        let _ = write!(
            html,
            "<p class=\"level\">{}</p><h2>{}</h2>",
            self.say(notice.level.zh(), en),
            safe(self.lang.text(&notice.headline))
        );
        let place = self.lang.text(&notice.place);
        if !place.is_empty() {
            let _ = write!(html, "<p class=\"where\">{}</p>", safe(place));
        }
        html.push_str("</div>");
        let since = self.moment(notice.since);
        let _ = write!(html, "<p class=\"since\">{}", self.say("发布时间 ", "Since "));
        let _ = write!(html, "{since}");
        if let Some(until) = notice.until {
            let _ = write!(html, "{}{}", self.say("，有效至 ", ", until "), self.moment(until));
        }
        let _ = write!(html, " · {}</p>", safe(self.lang.text(&notice.by)));
        let short = |text: &str| text.chars().take(MOST_TEXT).collect::<String>();
        let (said, to_do) = (self.lang.text(&notice.said), self.lang.text(&notice.to_do));
        if !to_do.is_empty() {
            let _ = write!(
                html,
                "<h3>{}</h3><p class=\"do\">{}</p>",
                self.say("怎么做", "What to do"),
                safe(&short(to_do))
            );
        }
        if !said.is_empty() {
            let _ = write!(html, "<p>{}</p>", safe(&short(said)));
        }
        html.push_str("</article>");
        html
    }

    /// What was here a while ago, and holds no more.
    fn over(&self, Over { exercise, how, headline, place, at }: &Over) -> String {
        let mut html = "<article class=\"over\"><div class=\"head\">".to_owned();
        if *exercise {
            let _ =
                write!(html, "<p class=\"exercise\">{}</p>", self.say("演练，不是真的", "Exercise: this is not real"));
        }
        let told = match how {
            End::Clear => self.say("警情已解除", "All clear"),
            End::Withdrawn => self.say("本通知已撤回", "This notice was taken back"),
            End::Lapsed => self.say("该预警已不再有效", "This warning is no longer in force"),
        };
        let _ = write!(html, "<h2>{told}</h2><p class=\"where\">{}", safe(self.lang.text(headline)));
        let place = self.lang.text(place);
        if !place.is_empty() {
            let _ = write!(html, " · {}", safe(place));
        }
        let _ = write!(
            html,
            "</p></div><p class=\"since\">{}{}</p><p>{}</p></article>",
            self.say("时间 ", "At "),
            self.moment(*at),
            self.say(
                "如仍发现异常，请立即远离并打电话。",
                "If anything still seems wrong, keep away from it and phone at once."
            ),
        );
        html
    }

    fn building(&self, building: &str) -> String {
        let place = anmin_sensors::point::Place { building: building.to_owned(), ..Default::default() };
        self.say(&place.zh(), &place.en()).to_owned()
    }

    /// The site's buildings to choose from; grids where `grids`.
    fn choice(&self, known: &Known, chosen: &str, grids: bool) -> String {
        let mut html = format!("<option value=\"\">{}</option>", self.say("请选择", "Choose"));
        let mut option = |value: &str, words: &str| {
            let selected = if value == chosen { " selected" } else { "" };
            let _ = write!(html, "<option value=\"{}\"{selected}>{}</option>", safe(value), safe(words));
        };
        for building in known.buildings.keys() {
            option(building, &self.building(building));
        }
        if grids {
            let all: std::collections::BTreeSet<&String> = known.buildings.values().flatten().collect();
            for grid in all.into_iter().filter(|grid| !known.buildings.contains_key(*grid)) {
                option(grid, &format!("{} {grid}", self.say("网格", "Grid")));
            }
        }
        html
    }

    fn shelters(&self, known: &Known, html: &mut String) {
        let spot = known.spot(&self.at);
        let heading = match &spot {
            Some(_) => self.say("离您最近的避难场所", "Shelters, the nearest first"),
            None => self.say("避难场所", "Shelters"),
        };
        let _ = write!(html, "<section><h2>{heading}</h2>");
        if !known.buildings.is_empty() && !known.shelters.is_empty() {
            let chosen =
                spot.as_ref().map_or("", |spot| if spot.building.is_empty() { &self.at } else { &spot.building });
            let _ = write!(
                html,
                "<form method=\"get\" action=\"/residents\"><input type=\"hidden\" name=\"lang\" value=\"{}\">\
                 <label for=\"at\">{}</label><select id=\"at\" name=\"at\">{}</select><button>{}</button></form>",
                self.lang.as_str(),
                self.say("我在", "I am at"),
                self.choice(known, chosen, true),
                self.say("显示最近的", "Show the nearest"),
            );
        }
        if known.shelters.is_empty() {
            let _ = write!(html, "<p>{}</p>", self.say("没有登记避难场所。", "No shelter is listed."));
        }
        html.push_str("<ul class=\"shelters\">");
        for row in known.shelters_near(spot.as_ref()).into_iter().take(MOST_SHELTERS) {
            html.push_str(&self.shelter(row));
        }
        html.push_str("</ul></section>");
    }

    fn shelter(&self, row: &Row) -> String {
        let state = match row.cell("state") {
            "open" => self.say("开放", "open"),
            "full" => self.say("已满", "full"),
            _ => self.say("关闭", "closed"),
        };
        let building = row.cell("building");
        let building = if building.is_empty() { String::new() } else { self.building(building) };
        let places = [row.cell("address"), &building].into_iter().filter(|part| !part.is_empty());
        let mut facts: Vec<String> = places.map(safe).collect();
        let capacity = row.cell("capacity");
        facts.push(match self.lang {
            Lang::Zh => format!("可容纳 {} 人", safe(capacity)),
            Lang::En => format!("room for {}", safe(capacity)),
        });
        let people = row.cell("people");
        if !people.is_empty() {
            facts.push(match self.lang {
                Lang::Zh => format!("现有 {} 人", safe(people)),
                Lang::En => format!("{} there now", safe(people)),
            });
        }
        let class = if row.cell("state") == "open" { "open" } else { "not" };
        format!(
            "<li><b>{}</b> <span class=\"{class}\">{state}</span><br>{}</li>",
            safe(row.cell("name")),
            facts.join(self.say("，", ", "))
        )
    }

    /// A page that says one thing.
    pub fn said(&self, zh: &str, en: &str) -> String {
        let back = format!(
            "<p class=\"unknown\" role=\"alert\">{}</p><p><a class=\"button\" href=\"{}\">{}</a></p>",
            self.say(zh, en),
            self.link("/residents", ""),
            self.say("返回", "Back"),
        );
        self.whole(self.say("居民通知", "For residents"), ("/residents", ""), &back)
    }

    /// `known`: where it could not be found out which buildings there are, they are written by hand.
    pub fn form(&self, known: Option<&Known>, form: &Form, safe_one: bool, faults: &[(&'static str, Text)]) -> String {
        let heading =
            if safe_one { self.say("我平安", "I am safe") } else { self.say("我需要帮助", "I need help") };
        let mut html = String::new();
        if !faults.is_empty() {
            let _ = write!(
                html,
                "<div class=\"unknown\" role=\"alert\"><p>{}</p><ul>",
                self.say("还没有发出。请改正：", "It is not sent yet. Please correct:")
            );
            for (field, text) in faults {
                let _ = write!(html, "<li><a href=\"#{field}\">{}</a></li>", safe(self.lang.text(text)));
            }
            html.push_str("</ul></div>");
        }
        if !safe_one {
            let _ = write!(
                html,
                "<p class=\"first\">{}</p>",
                self.say(
                    "有生命危险，先打 119 或 120。这里的消息由社区值班员查看，不能代替报警。",
                    "If a life is in danger, phone 119 or 120 first. The community's duty officer reads what you send here; it does \
                     not replace that call."
                )
            );
        }
        let _ = write!(
            html,
            "<form method=\"post\" action=\"/residents\"><input type=\"hidden\" name=\"once\" value=\"{}\">\
             <input type=\"hidden\" name=\"lang\" value=\"{}\">",
            safe(&form.once),
            self.lang.as_str()
        );
        let wrong = |field: &str| match faults.iter().any(|(wrong, _)| *wrong == field) {
            true => " aria-invalid=\"true\"",
            false => "",
        };
        if safe_one {
            html.push_str(
                "<input type=\"hidden\" name=\"safe\" value=\"1\"><input type=\"hidden\" name=\"need\" value=\"safe\">",
            );
        } else {
            let _ = write!(html, "<fieldset id=\"need\"><legend>{}</legend>", self.say("发生了什么", "What is it"));
            for (word, _) in NEEDS.iter().filter(|(word, _)| *word != "safe") {
                let checked = if form.need == *word { " checked" } else { "" };
                let words = match *word {
                    "trapped" => self.say("被困，出不去", "Trapped: cannot get out"),
                    "hurt" => self.say("有人受伤或突发疾病", "Somebody is hurt or ill"),
                    "move" => self.say("行动不便，需要人帮助转移", "Cannot leave without help"),
                    _ => self.say("其他", "Something else"),
                };
                let _ = write!(
                    html,
                    "<label class=\"pick\"><input type=\"radio\" name=\"need\" value=\"{word}\" required{checked}> {words}</label>"
                );
            }
            html.push_str("</fieldset>");
        }
        if let Some(known) = known.filter(|known| !known.buildings.is_empty()) {
            let _ = write!(
                html,
                "<label for=\"building\">{}</label><select id=\"building\" name=\"building\"{}>{}</select>",
                self.say("哪栋楼", "Which building"),
                wrong("building"),
                self.choice(known, &form.building, false),
            );
        }
        let mut input = |name: &str, kind: &str, most: usize, value: &str, words: &str| {
            let _ = write!(
                html,
                "<label for=\"{name}\">{words}</label><input id=\"{name}\" name=\"{name}\" type=\"{kind}\" maxlength=\"{most}\" \
                 value=\"{}\" autocomplete=\"off\"{}>",
                safe(value),
                wrong(name)
            );
        };
        let room = self.say("具体位置，如 2单元 501", "Where exactly, such as unit 2, 501");
        input("room", "text", 64, &form.room, room);
        if !safe_one {
            let said = self.say("说明（可不填）", "More about it (if you like)");
            input("said", "text", 200, &form.said, said);
            let phone = self.say("联系电话（可不填）", "Your telephone (if you like)");
            input("phone", "tel", 40, &form.phone, phone);
        }
        let class = if safe_one { "safe" } else { "need" };
        let days = self.desk.residents.settings().kept.as_secs().div_ceil(86_400);
        let kept = match self.lang {
            Lang::Zh => format!(
                "只有值班员能看到全部内容；前去救助的队员能看到位置和需要。收到满 {days} 天且已处理的即删除。请不要填写姓名和证件号码。"
            ),
            Lang::En => format!(
                "Only duty officers see all of it; the crew that comes sees where you are and what you need. It is deleted {days} \
                 days after it came, once it is dealt with. Please write no names and no numbers of papers."
            ),
        };
        let _ = write!(
            html,
            "<button class=\"{class}\">{}</button></form><p class=\"soft\">{kept}</p><p><a class=\"button\" href=\"{}\">{}</a></p>",
            self.say("发送", "Send"),
            self.link("/residents", ""),
            self.say("返回，不发送", "Back, do not send"),
        );
        self.whole(heading, ("/residents/say", if safe_one { "&safe" } else { "" }), &html)
    }

    /// How far a call has come.
    pub fn sent(&self, state: &str, once: &str) -> String {
        let words = match state {
            "new" => self.say("已收到，等待值班员受理。", "Received: a duty officer will take it on."),
            "taken" => self.say("值班员已受理，正在处理。", "A duty officer has taken it on."),
            _ => self.say("已记录。", "It is noted."),
        };
        let path = format!("/residents/sent/{once}");
        let body = format!(
            "<p class=\"calm\" role=\"status\">{words}</p><p class=\"made\">{} <b>{}</b></p>\
             <p><a class=\"button\" href=\"{}\">{}</a><a class=\"button\" href=\"{}\">{}</a></p>",
            self.say("本页时间：", "This page is of"),
            self.clock(self.now, "%Y-%m-%d %H:%M:%S"),
            self.link(&path, ""),
            self.say("再看一次", "Look again"),
            self.link("/residents", ""),
            self.say("查看通知和避难场所", "Notices and shelters"),
        );
        self.whole(self.say("您的消息", "Your message"), (&path, ""), &body)
    }
}
