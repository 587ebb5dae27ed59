//! What a notice says: how bad, what, where; since when; what to do; who is on it; a link.
//!
//! One change is told whole. Several are told together, a line for each kind of thing at each level, the gravest first. In which
//! words is up to a [`Template`] for each form and language; what is filled in comes from here. An exercise, and a drill, say so before
//! whatever a template says. Text of devices and people is text here: robots are spoken to in JSON, and what they would take for a
//! mention is none.
//!
//! Where a message is too long, the details go first. What to do is never cut within a sentence, and that something was left out is
//! said.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use anmin_rules::alarm::{Alarm, AlarmId, Cause, Class, Transition};
use anmin_rules::broadcast::BroadcastStep;
use anmin_rules::drill::{MARK_EN, MARK_ZH, unmarked};
use anmin_rules::order::{CallCause, CallChange, CallState, Order, OrderBody};
use anmin_rules::rule::{Level, Text};
use anmin_sensors::time::Wall;

use super::super::{DeliveryError, Site, event};
use super::template::{Template, Values};
use crate::crew_link::{Link, Links};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    Zh,
    En,
}

impl Language {
    pub const CHOICES: [(&'static str, Self); 2] = [("zh-CN", Self::Zh), ("en-US", Self::En)];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Zh => "zh-CN",
            Self::En => "en-US",
        }
    }

    /// Without a drill's mark: it stands before everything.
    fn of(self, text: &Text) -> &str {
        unmarked(match self {
            Self::Zh => &text.zh,
            Self::En => &text.en,
        })
    }

    fn level(self, level: Level) -> &'static str {
        match (self, level) {
            (Self::Zh, level) => level.zh(),
            (Self::En, Level::Red) => "Red",
            (Self::En, Level::Orange) => "Orange",
            (Self::En, Level::Yellow) => "Yellow",
            (Self::En, Level::Blue) => "Blue",
        }
    }

    fn pick(self, zh: &'static str, en: &'static str) -> &'static str {
        match self {
            Self::Zh => zh,
            Self::En => en,
        }
    }
}

/// Of the subject of a mail: more is not shown in a list.
const SUBJECT_BYTES: usize = 240;

/// A time in a short message.
const SHORT: &str = "%m-%d %H:%M";

/// Places named in one line of several changes.
const PLACES: usize = 5;

/// Stands where something was left out.
const MORE: [&str; 2] = ["……", "..."];

/// How people are reached, and so in which templates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Robot,
    Mail,
    Sms,
    Voice,
}

impl Manner {
    /// Beginning of the names of its templates.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Robot => "robot",
            Self::Mail => "mail",
            Self::Sms => "sms",
            Self::Voice => "voice",
        }
    }

    const fn is_by_telephone(self) -> bool {
        matches!(self, Self::Sms | Self::Voice)
    }

    /// How much more room than the others a language takes for the same.
    const fn weight(self, language: Language) -> usize {
        match (self, language) {
            (Self::Sms | Self::Voice, Language::En) => 2,
            _ => 1,
        }
    }

    /// As much as one message has where nothing else is said: `of_one` for each language that takes no more room than Chinese.
    pub fn room(self, of_one: usize, languages: impl Iterator<Item = Language>) -> usize {
        languages.map(|language| of_one * self.weight(language)).sum()
    }

    /// Between two languages.
    const fn between(self) -> &'static str {
        match self {
            Self::Robot | Self::Mail => "\n\n",
            Self::Sms | Self::Voice => " ",
        }
    }

    /// How much of a message a text is: bytes, where machines count; for telephones units of UCS-2, as 3GPP TS 23.038 counts them.
    pub fn measure(self, text: &str) -> usize {
        match self {
            Self::Robot | Self::Mail => text.len(),
            Self::Sms | Self::Voice => text.encode_utf16().count(),
        }
    }
}

pub struct Words {
    /// Of a station's own group: by them its crew answers.
    pub links: Option<Links>,
    pub site: Site,
    /// With the template of each.
    pub languages: Vec<(Language, Arc<Template>)>,
    /// Where the duty desk's page is reached by those who read.
    pub page: Option<String>,
    pub manner: Manner,
    /// As [`Manner::measure`] counts.
    pub most: usize,
}

/// One message.
pub struct Said {
    pub text: String,
    /// What follows it, where it is for a crew: by them they answer, so no record keeps them.
    pub links: String,
    /// The gravest that a person must act on, if any.
    pub level: Option<Level>,
}

/// One mail.
pub struct Letter {
    /// One line: how bad, what, where.
    pub subject: String,
    pub text: String,
    /// As in [`Said`].
    pub links: String,
    pub level: Option<Level>,
}

impl Letter {
    /// For the record.
    pub fn as_sent(&self) -> String {
        format!("{}\n\n{}", self.subject, self.text)
    }
}

/// Single words, for those who take no free text.
pub struct Fields {
    pub level: String,
    /// With the mark of an exercise.
    pub title: String,
    pub place: String,
}

impl Words {
    /// What is sent by itself, as the record keeps it.
    pub fn as_sent(&self, orders: &[&Order]) -> Result<String, DeliveryError> {
        match self.manner {
            Manner::Mail => self.letter(orders).map(|letter| letter.as_sent()),
            _ => self.message(orders).map(|said| said.text),
        }
    }

    pub fn message(&self, orders: &[&Order]) -> Result<Said, DeliveryError> {
        let (news, level, links) = self.told(orders)?;
        let room = self.most.saturating_sub(self.manner.measure(&links));
        let texts = self.languages.iter().map(|(language, template)| {
            let opening = self.opening(*language, &news);
            format!("{opening}{}", self.fit(*language, template, &news, room, self.manner.measure(opening)))
        });
        Ok(Said { text: texts.collect::<Vec<_>>().join(self.manner.between()), links, level })
    }

    /// The same as a mail: the first line of the first language is its subject.
    pub fn letter(&self, orders: &[&Order]) -> Result<Letter, DeliveryError> {
        let (news, level, links) = self.told(orders)?;
        let (mut subject, mut texts) = (String::new(), Vec::new());
        for (language, template) in &self.languages {
            let opening = self.opening(*language, &news);
            let text = self.fit(*language, template, &news, self.most, 2 * opening.len());
            let (first, rest) = text.split_once('\n').unwrap_or((&text, &text));
            if subject.is_empty() {
                subject = cut(&format!("{opening}{first}"), SUBJECT_BYTES, MORE[0], str::len);
            }
            texts.push(format!("{opening}{}", rest.trim_start()));
        }
        Ok(Letter { subject, text: texts.join(self.manner.between()), links, level })
    }

    pub fn fields(&self, orders: &[&Order]) -> Result<Fields, DeliveryError> {
        let (news, ..) = self.told(orders)?;
        let language = self.languages.first().map_or(Language::Zh, |(language, _)| *language);
        let opening = self.opening(language, &news);
        let gravest = news.iter().map(|each| each.alarm().level).max().unwrap_or(Level::Blue);
        let (title, place) = match news.as_slice() {
            [one] => {
                let state = one.state(language);
                let title = plain(language.of(&one.alarm().title));
                let title = if state.is_empty() { title } else { format!("{title} {state}") };
                (title, plain(&place(language, one.alarm())))
            }
            many => match language {
                Language::Zh => (format!("{} 条消息", many.len()), "多处".to_owned()),
                Language::En => (format!("{} messages", many.len()), "several places".to_owned()),
            },
        };
        Ok(Fields { level: language.level(gravest).to_owned(), title: format!("{opening}{title}"), place })
    }

    fn told<'o>(&self, orders: &[&'o Order]) -> Result<(Vec<News<'o>>, Option<Level>, String), DeliveryError> {
        let news = orders.iter().map(|order| News::of(order)).collect::<Result<Vec<_>, _>>()?;
        // A station's own group is to hear that it is called.
        let called = |news: &&News<'_>| self.links.is_some() && news.calls();
        let level =
            news.iter().filter(|news| news.calls_for_action() || called(news)).map(|news| news.alarm().level).max();
        let links = self.links_of(&news);
        Ok((news, level, links))
    }

    /// The links by which a crew answers, whole and one a line, the newest call first; as many as half of a message has room
    /// for.
    fn links_of(&self, news: &[News<'_>]) -> String {
        let (Some(page), Some(links)) = (&self.page, &self.links) else { return String::new() };
        let mut text = String::new();
        let mut seen: Vec<(AlarmId, &str)> = Vec::new();
        for change in news.iter().rev().filter_map(News::call) {
            let call = &change.call;
            let known = seen.contains(&(call.alarm, &*call.station));
            seen.push((call.alarm, &call.station));
            if known || !call.is_live() {
                continue;
            }
            for (link, name) in Link::of_call(call, links.valid) {
                let name = if name.is_empty() { call.station_name.zh.as_str() } else { &name };
                let line = format!("\n{} {}/crew/{}", plain(name), page.trim_end_matches('/'), links.key.token(&link));
                if text.len() + line.len() <= self.most / 2 {
                    text.push_str(&line);
                }
            }
        }
        text
    }

    /// An exercise, and a drill, say so before anything else. The courier puts no drill into one message with what is real.
    fn opening(&self, language: Language, news: &[News<'_>]) -> &'static str {
        let drill = news.iter().any(|news| news.alarm().drill.is_some());
        match (self.manner, drill, self.site.exercise) {
            (_, false, false) => "",
            (Manner::Voice, true, _) => language.pick("演练通知，这是演练。", "This is a drill. "),
            (Manner::Voice, ..) => language.pick("演练通知，这是演练。", "This is an exercise. "),
            (_, true, _) => language.pick(MARK_ZH, MARK_EN),
            _ => language.pick("【演练】", "[Exercise] "),
        }
    }

    /// Filled in, and no longer than this language's share of `room`, of which `taken` is taken.
    fn fit(&self, language: Language, template: &Template, news: &[News<'_>], room: usize, taken: usize) -> String {
        let measure = |text: &str| self.manner.measure(text);
        let all: usize = self.languages.iter().map(|(language, _)| self.manner.weight(*language)).sum();
        let share = room * self.manner.weight(language) / all.max(1);
        let most = share.saturating_sub(taken + measure(self.manner.between()));
        let mut values = match news {
            [one] => self.of_one(language, one),
            many => self.of_several(language, many),
        };
        let mut text = template.fill(&values);
        while measure(&text) > most && !values.lines().is_empty() {
            // As much as is surely too much at once.
            let keep = values.lines().len() * most / measure(&text).max(1);
            let kept = values.lines().len() - 1;
            values.lines().truncate(kept.min(keep.max(kept / 2)));
            let told: usize = values.lines().iter().filter_map(|line| line.get("count").parse::<usize>().ok()).sum();
            values.set("left", (news.len() - told).to_string());
            text = template.fill(&values);
        }
        // What can be spared, the most dispensable first: of a call what became of it, and of an alarm what to do, come last.
        let order = match news {
            [News::Call(_)] => {
                ["mark", "since", "since_short", "advice", "link", "detail", "place", "title", "station", "who"]
            }
            // Where a link takes a third of the message, what to do goes before it.
            _ if self.manner.is_by_telephone() => {
                ["detail", "mark", "since", "since_short", "link", "advice", "place", "title", "station", "who"]
            }
            _ => ["detail", "mark", "since", "since_short", "advice", "link", "place", "title", "station", "who"],
        };
        let more = language.pick(MORE[0], MORE[1]);
        for name in order {
            let over = measure(&text).saturating_sub(most);
            if over == 0 {
                break;
            }
            if values.get(name).is_empty() {
                continue;
            }
            let shorter = match name {
                "mark" | "since" | "since_short" | "link" => String::new(),
                "advice" => self.sentences(language, values.get(name), over),
                _ => {
                    let has = values.get(name);
                    match measure(has).saturating_sub(over) {
                        few if few < 4 + measure(more) => String::new(),
                        keep => cut(has, keep, more, measure),
                    }
                }
            };
            // A message that says not where or what is none, and whoever is on it is not nobody.
            let shorter =
                if shorter.is_empty() && ["place", "title", "who"].contains(&name) { more.to_owned() } else { shorter };
            values.set(name, shorter);
            text = template.fill(&values);
        }
        cut(&text, most, more, measure)
    }

    /// Whole sentences, at least `over` shorter, and a word that there are more.
    fn sentences(&self, language: Language, advice: &str, over: usize) -> String {
        let measure = |text: &str| self.manner.measure(text);
        let more = language.pick("……（详见值班台）", "... (see the duty desk)");
        let keep = measure(advice).saturating_sub(over + measure(more));
        let ends = advice.char_indices().filter(|(_, c)| matches!(c, '。' | '；' | '！' | '.' | ';' | '!'));
        let mut ends = ends.map(|(at, c)| &advice[..at + c.len_utf8()]);
        format!("{}{more}", ends.rfind(|sentence| measure(sentence) <= keep).unwrap_or_default())
    }

    fn of_one(&self, language: Language, news: &News<'_>) -> Values {
        let alarm = news.alarm();
        let mut values = Values::default();
        values.set("level", language.level(alarm.level));
        values.set("state", news.state(language));
        values.set("title", plain(language.of(&alarm.title)));
        values.set("place", plain(&place(language, alarm)));
        let detail = match news {
            News::Change(_) => &alarm.message,
            News::Call(change) => &change.message,
        };
        // Where sentence follows upon sentence, the template ends them.
        let ends: &[char] = if self.manner.is_by_telephone() { &['。', '.'] } else { &[] };
        values.set("detail", plain(language.of(detail)).trim_end_matches(ends));
        let (at, raised) = (news.at(), alarm.raised_at);
        values.set("time", self.moment(at));
        values.set("time_short", self.written(at, SHORT));
        let spoken = language.pick("%-m月%-d日%-H点%-M分", "%H:%M on %-d %B");
        values.set("time_spoken", self.written(at, spoken));
        if self.moment(raised) != self.moment(at) {
            values.set("since", self.moment(raised));
        }
        if self.written(raised, SHORT) != self.written(at, SHORT) {
            values.set("since_short", self.written(raised, SHORT));
        }
        if alarm.clock_doubtful {
            values.set("clock_doubtful", "1");
        }
        if news.calls_for_action() {
            values.set("advice", plain(language.of(&alarm.advice)));
        }
        // Whoever must say yes has minutes, and may sit at no screen.
        if let Some(asked) = alarm.broadcast.as_ref().filter(|broadcast| broadcast.is_waiting()) {
            values.set("broadcast_yes", asked.yes.len().to_string());
            values.set("broadcast_people", asked.people.to_string());
            values.set("broadcast_until", self.moment(asked.until));
        }
        if let Some(by) = &alarm.acknowledged {
            values.set("who", plain(&by.who));
        }
        if let Some(change) = news.call().filter(|change| change.call.is_answered()) {
            values.set("station", plain(language.of(&change.call.station_name)));
            values.set("station_state", state_of(language, change.call.state));
        }
        self.set_link(&mut values, &format!("/{}", alarm.id));
        values.set("site", plain(language.of(&self.site.name)));
        // The same when it is sent again, so that a reader knows it.
        values.set("mark", news.mark());
        values
    }

    fn set_link(&self, values: &mut Values, of: &str) {
        match &self.page {
            Some(_) if self.links.is_some() => values.set("crew", "1"),
            Some(page) => values.set("link", format!("{}/#/now{of}", page.trim_end_matches('/'))),
            None => {}
        }
    }

    fn of_several(&self, language: Language, news: &[News<'_>]) -> Values {
        struct Line {
            level: Level,
            state: String,
            title: String,
            places: Vec<String>,
            count: usize,
        }
        let mut lines: Vec<Line> = Vec::new();
        let mut levels: BTreeMap<Reverse<Level>, usize> = BTreeMap::new();
        for each in news {
            let alarm = each.alarm();
            let (state, title) = (each.state(language), plain(language.of(&alarm.title)));
            *levels.entry(Reverse(alarm.level)).or_default() += 1;
            let known =
                lines.iter().position(|line| line.level == alarm.level && line.state == state && line.title == title);
            let at = known.unwrap_or_else(|| {
                lines.push(Line { level: alarm.level, state, title, places: Vec::new(), count: 0 });
                lines.len() - 1
            });
            let (line, place) = (&mut lines[at], plain(&place(language, alarm)));
            line.count += 1;
            if !line.places.contains(&place) {
                line.places.push(place);
            }
        }
        lines.sort_by_key(|line| Reverse(line.level));
        let of_each = levels.iter().map(|(Reverse(level), count)| match language {
            Language::Zh => format!("{}{count}", level.zh()),
            Language::En => format!("{count} {}", language.level(*level).to_lowercase()),
        });
        let mut values = Values::default();
        values.set("several", "1");
        values.set("levels", of_each.collect::<Vec<_>>().join(language.pick("，", ", ")));
        values.set("count", news.len().to_string());
        values.set("site", plain(language.of(&self.site.name)));
        self.set_link(&mut values, "");
        *values.lines() = lines
            .into_iter()
            .map(|line| {
                let mut values = Values::default();
                let more = line.places.len().saturating_sub(PLACES);
                values.set("level", language.level(line.level));
                values.set("state", line.state);
                values.set("title", line.title);
                values.set("count", line.count.to_string());
                values.set("places", line.places[..line.places.len() - more].join(language.pick("、", "; ")));
                if more > 0 {
                    values.set("more_places", more.to_string());
                    values.set("all_places", line.places.len().to_string());
                }
                values
            })
            .collect();
        values
    }

    fn written(&self, at: Wall, form: &str) -> String {
        event::local(at, &self.site.time_zone).strftime(form).to_string()
    }

    fn moment(&self, at: Wall) -> String {
        self.written(at, "%Y-%m-%d %H:%M:%S")
    }
}

/// A change that asks nothing of anybody.
pub fn is_bookkeeping(order: &Order) -> bool {
    let OrderBody::Event(transition) = &order.body else { return false };
    use BroadcastStep::{Ended, Renewed};
    matches!(transition.cause, Cause::Regrouped { .. } | Cause::Broadcast { step: Renewed | Ended, .. })
}

/// What an order tells.
enum News<'o> {
    Change(&'o Transition),
    Call(&'o CallChange),
}

impl<'o> News<'o> {
    fn of(order: &'o Order) -> Result<Self, DeliveryError> {
        match &order.body {
            OrderBody::Event(transition) => Ok(Self::Change(transition)),
            OrderBody::Call(change) => Ok(Self::Call(change)),
            OrderBody::Cap(_) | OrderBody::Siren(_) => {
                Err(DeliveryError::Never("a notice tells events, not CAP".to_owned()))
            }
        }
    }

    fn alarm(&self) -> &'o Alarm {
        match self {
            Self::Change(transition) => &transition.alarm,
            Self::Call(change) => &change.alarm,
        }
    }

    fn call(&self) -> Option<&'o CallChange> {
        match self {
            Self::Change(_) => None,
            Self::Call(change) => Some(change),
        }
    }

    /// A station is called.
    fn calls(&self) -> bool {
        self.call().is_some_and(|change| change.call.state == CallState::Called)
    }

    fn at(&self) -> Wall {
        match self {
            Self::Change(transition) => transition.at.wall,
            Self::Call(change) => change.at,
        }
    }

    /// `0195506b…-2`: end of the alarm's id, which is its random part, and number of the change.
    fn mark(&self) -> String {
        let id = self.alarm().id.to_string();
        let end = &id[id.len() - 6..];
        match self {
            Self::Change(transition) => format!("{end}-{}", transition.alarm.seq),
            Self::Call(change) => format!("{end}-{}-{}", change.call.station, change.call.seq),
        }
    }

    /// Somebody has to do something because of it.
    fn calls_for_action(&self) -> bool {
        match self {
            Self::Change(transition) => match transition.cause {
                Cause::Raised | Cause::Realarmed | Cause::Escalated { .. } => true,
                Cause::Broadcast { step, .. } => step == BroadcastStep::Seconded,
                Cause::LevelChanged(from) => transition.alarm.level > from,
                _ => false,
            },
            Self::Call(change) => {
                change.cause == CallCause::NotControlled
                    || change.call.late
                    || matches!(change.call.state, CallState::Unanswered | CallState::Declined)
            }
        }
    }

    /// What has become of it; nothing where it is new.
    fn state(&self, language: Language) -> String {
        let (alarm, transition) = match self {
            Self::Call(change) => {
                return match change.cause {
                    CallCause::Late => language.pick("未按时到场", "not there in time").to_owned(),
                    CallCause::NotControlled => language.pick("未按时控制", "not under control in time").to_owned(),
                    _ => state_of(language, change.call.state),
                };
            }
            Self::Change(transition) => (self.alarm(), transition),
        };
        let said = match &transition.cause {
            Cause::Raised => "",
            Cause::LevelChanged(from) if alarm.level > *from => language.pick("升级为此级", "raised to this level"),
            Cause::LevelChanged(_) => language.pick("降为此级", "lowered to this level"),
            Cause::Realarmed => language.pick("再次报警", "again"),
            Cause::Escalated { by: None, .. } => language.pick("无人处置", "nobody acts"),
            Cause::Escalated { .. } => language.pick("人工升级", "escalated by hand"),
            Cause::Returned => language.pick("已恢复", "returned to normal"),
            Cause::Acknowledged { .. } => language.pick("已确认", "acknowledged"),
            Cause::Reset { .. } => language.pick("已复位", "reset"),
            Cause::Shelved { .. } => language.pick("已搁置", "shelved"),
            Cause::Unshelved { .. } => language.pick("恢复监视", "unshelved"),
            Cause::TakenOutOfService { .. } => language.pick("已停用", "out of service"),
            Cause::ReturnedToService { .. } => language.pick("恢复使用", "back in service"),
            Cause::Regrouped { .. } => language.pick("归入另一事件", "moved to another incident"),
            Cause::Moved => language.pick("位置更正", "place corrected"),
            Cause::Broadcast { step, .. } => {
                let (zh, en) = step.words();
                language.pick(zh, en)
            }
        };
        said.to_owned()
    }
}

fn state_of(language: Language, state: CallState) -> String {
    match language {
        Language::Zh => state.zh().to_owned(),
        Language::En => state.as_str().replace('_', " "),
    }
}

fn place(language: Language, alarm: &Alarm) -> String {
    match (alarm.class, language) {
        (Class::System, Language::Zh) => format!("本系统 {}", alarm.subject.as_str()),
        (Class::System, Language::En) => format!("anmin itself, {}", alarm.subject.as_str()),
        (_, Language::Zh) => alarm.place.zh(),
        (_, Language::En) => alarm.place.en(),
    }
}

/// Words of devices and people stay in their place: they begin no line, turn no direction, and mention nobody, which
/// `<at …>` and `<@…>` would.
fn plain(text: &str) -> String {
    let safe = |c: char| match c {
        '<' => '＜',
        '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => ' ',
        c if c.is_control() => ' ',
        c => c,
    };
    text.chars().map(safe).collect()
}

/// At most so much, cut between characters; that it was cut is seen.
fn cut(text: &str, most: usize, more: &str, measure: impl Fn(&str) -> usize) -> String {
    if measure(text) <= most {
        return text.to_owned();
    }
    let room = most.saturating_sub(measure(more));
    let (mut end, mut so_far) = (0, 0);
    let mut one = [0; 4];
    for (at, c) in text.char_indices() {
        so_far += measure(c.encode_utf8(&mut one));
        if so_far > room {
            break;
        }
        end = at + c.len_utf8();
    }
    format!("{}{more}", &text[..end])
}
