//! What a notice says: how bad, what, where; since when; what to do; who is on it; a link.
//!
//! One change is told whole. Several are told together, a line for each kind of thing at each level, the gravest first. Text
//! of devices and people is text here: robots are spoken to in JSON, and what they would take for a mention is none.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use anmin_rules::alarm::{Alarm, AlarmId, Cause, Class, Transition};
use anmin_rules::broadcast::BroadcastStep;
use anmin_rules::drill::{MARK_EN, MARK_ZH, unmarked};
use anmin_rules::order::{CallCause, CallChange, CallState, Order, OrderBody};
use anmin_rules::rule::{Level, Text};
use anmin_sensors::time::Wall;

use super::super::{DeliveryError, Site, event};
use crate::crew_link::{Link, Links};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    Zh,
    En,
}

impl Language {
    pub const CHOICES: [(&'static str, Self); 2] = [("zh-CN", Self::Zh), ("en-US", Self::En)];

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

/// Between the languages.
const BETWEEN: &str = "\n\n";

/// Places named in one line of several changes.
const PLACES: usize = 5;

pub struct Words {
    /// Of a station's own group: by them its crew answers.
    pub links: Option<Links>,
    pub site: Site,
    pub languages: Vec<Language>,
    /// Where the duty desk's page is reached by those who read.
    pub page: Option<String>,
    pub most_bytes: usize,
}

/// One message.
pub struct Said {
    pub text: String,
    /// What follows it, where it is for a crew: by them they answer, so no record keeps them.
    pub links: String,
    /// The gravest that a person must act on, if any.
    pub level: Option<Level>,
}

impl Words {
    pub fn message(&self, orders: &[&Order]) -> Result<Said, DeliveryError> {
        let news = orders.iter().map(|order| News::of(order)).collect::<Result<Vec<_>, _>>()?;
        // A station's own group is to hear that it is called.
        let called = |news: &&News<'_>| self.links.is_some() && news.calls();
        let level =
            news.iter().filter(|news| news.calls_for_action() || called(news)).map(|news| news.alarm().level).max();
        let links = self.links_of(&news);
        let room = self.most_bytes - links.len();
        let share = room / self.languages.len().max(1) - BETWEEN.len();
        let texts = self.languages.iter().map(|language| match news.as_slice() {
            [one] => cut(&self.whole(*language, one), share),
            many => self.together(*language, many, share),
        });
        Ok(Said { text: texts.collect::<Vec<_>>().join(BETWEEN), links, level })
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
                if text.len() + line.len() <= self.most_bytes / 2 {
                    text.push_str(&line);
                }
            }
        }
        text
    }

    /// An exercise, and a drill, say so before anything else. The courier puts no drill into one message with what is real.
    fn opening(&self, language: Language, news: &[&News<'_>]) -> &'static str {
        if news.iter().any(|news| news.alarm().drill.is_some()) {
            language.pick(MARK_ZH, MARK_EN)
        } else if self.site.exercise {
            language.pick("【演练】", "[Exercise] ")
        } else {
            ""
        }
    }

    fn whole(&self, language: Language, news: &News<'_>) -> String {
        let alarm = news.alarm();
        let part = |zh, en, words: &str| format!("{}{}", language.pick(zh, en), plain(words));
        let mut lines = vec![
            format!(
                "{}{}{}",
                self.opening(language, &[news]),
                tag(language, &news.what(language)),
                plain(language.of(&alarm.title))
            ),
            plain(&place(language, alarm)),
        ];
        match news {
            News::Change(_) => lines.push(plain(language.of(&alarm.message))),
            News::Call(change) => lines.push(plain(language.of(&change.message))),
        }
        let doubt = if alarm.clock_doubtful { language.pick("（时钟未校准）", " (clock in doubt)") } else { "" };
        lines.push(part("时间：", "At: ", &format!("{}{doubt}", self.moment(news.at()))));
        if news.calls_for_action() {
            lines.push(part("处置：", "Do: ", language.of(&alarm.advice)));
        }
        // Whoever must say yes has minutes, and may sit at no screen.
        if let Some(asked) = alarm.broadcast.as_ref().filter(|broadcast| broadcast.is_waiting()) {
            let (have, of, until) = (asked.yes.len(), asked.people, self.moment(asked.until));
            lines.push(match language {
                Language::Zh => format!("对外播报待批准：{have}/{of} 人同意，截止 {until}"),
                Language::En => format!("Broadcast waits for a yes: {have} of {of}, until {until}"),
            });
        }
        lines.push(match &alarm.acknowledged {
            Some(by) => part("处理人：", "On it: ", &by.who),
            None => language.pick("尚无人确认", "Nobody has acknowledged it yet").to_owned(),
        });
        match &self.page {
            Some(_) if self.links.is_some() => {
                lines.push(language.pick("点击姓名后的链接应答", "Answer by the link behind your name").to_owned());
            }
            Some(page) => lines.push(format!("{}/#/now/{}", page.trim_end_matches('/'), alarm.id)),
            None => {}
        }
        // The same when it is sent again, so that a reader knows it.
        lines.push(format!("{} · {}", plain(language.of(&self.site.name)), news.mark()));
        lines.join("\n")
    }

    fn together(&self, language: Language, news: &[News<'_>], most_bytes: usize) -> String {
        struct Line {
            level: Level,
            tag: String,
            title: String,
            places: Vec<String>,
            count: usize,
        }
        let mut lines: Vec<Line> = Vec::new();
        let mut levels: BTreeMap<Reverse<Level>, usize> = BTreeMap::new();
        for each in news {
            let alarm = each.alarm();
            let (tag, title) = (tag(language, &each.what(language)), plain(language.of(&alarm.title)));
            *levels.entry(Reverse(alarm.level)).or_default() += 1;
            let known =
                lines.iter().position(|line| line.level == alarm.level && line.tag == tag && line.title == title);
            let at = known.unwrap_or_else(|| {
                lines.push(Line { level: alarm.level, tag, title, places: Vec::new(), count: 0 });
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
        let of_each: Vec<String> = of_each.collect();
        let opening = self.opening(language, &news.iter().collect::<Vec<_>>());
        let (site, count) = (plain(language.of(&self.site.name)), news.len());
        let mut text = match language {
            Language::Zh => format!("{opening}{site}：{count} 条消息（{}）", of_each.join("，")),
            Language::En => format!("{opening}{site}: {count} messages ({})", of_each.join(", ")),
        };
        let end = match (&self.page, language) {
            (Some(page), _) => format!("\n{}/#/now", page.trim_end_matches('/')),
            (None, Language::Zh) => "\n详情见值班台".to_owned(),
            (None, Language::En) => "\nSee the duty desk".to_owned(),
        };
        let end = if self.links.is_some() { String::new() } else { end };
        let mut left = count;
        for line in lines {
            let more = line.places.len().saturating_sub(PLACES);
            let places = line.places[..line.places.len() - more].join(language.pick("、", "; "));
            let words = match (language, more) {
                (Language::Zh, 0) => format!("\n{}{} ×{}：{places}", line.tag, line.title, line.count),
                (Language::Zh, _) => {
                    format!("\n{}{} ×{}：{places} 等 {} 处", line.tag, line.title, line.count, line.places.len())
                }
                (Language::En, 0) => format!("\n{}{} ×{}: {places}", line.tag, line.title, line.count),
                (Language::En, _) => {
                    format!("\n{}{} ×{}: {places} and {more} more places", line.tag, line.title, line.count)
                }
            };
            // Room for the end and for saying that something is left out.
            if text.len() + words.len() + end.len() + 64 > most_bytes {
                text.push_str(&match language {
                    Language::Zh => format!("\n……另有 {left} 条"),
                    Language::En => format!("\n... and {left} more"),
                });
                break;
            }
            left -= line.count;
            text.push_str(&words);
        }
        text.push_str(&end);
        text
    }

    fn moment(&self, at: Wall) -> String {
        event::local(at, &self.site.time_zone).strftime("%Y-%m-%d %H:%M:%S").to_string()
    }
}

/// A change that asks nothing of anybody.
pub fn is_bookkeeping(order: &Order) -> bool {
    let OrderBody::Event(transition) = &order.body else { return false };
    matches!(transition.cause, Cause::Regrouped { .. } | Cause::Broadcast { step: BroadcastStep::Renewed, .. })
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
            OrderBody::Cap(_) => Err(DeliveryError::Never("a notice tells events, not CAP".to_owned())),
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
                Cause::Raised | Cause::Realarmed | Cause::Escalated(_) => true,
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

    /// How bad it is, and what has become of it.
    fn what(&self, language: Language) -> String {
        let alarm = self.alarm();
        let level = language.level(alarm.level);
        let with = |zh: &str, en: &str| match language {
            Language::Zh => format!("{level}·{zh}"),
            Language::En => format!("{level}, {en}"),
        };
        let transition = match self {
            Self::Call(change) => return with(change.call.state.zh(), &change.call.state.as_str().replace('_', " ")),
            Self::Change(transition) => transition,
        };
        match &transition.cause {
            Cause::Raised => level.to_owned(),
            Cause::LevelChanged(from) if alarm.level > *from => with("升级为此级", "raised to this level"),
            Cause::LevelChanged(_) => with("降为此级", "lowered to this level"),
            Cause::Realarmed => with("再次报警", "again"),
            Cause::Escalated(_) => with("无人处置", "nobody acts"),
            Cause::Returned => with("已恢复", "returned to normal"),
            Cause::Acknowledged { .. } => with("已确认", "acknowledged"),
            Cause::Reset { .. } => with("已复位", "reset"),
            Cause::Shelved { .. } => with("已搁置", "shelved"),
            Cause::Unshelved { .. } => with("恢复监视", "unshelved"),
            Cause::TakenOutOfService { .. } => with("已停用", "out of service"),
            Cause::ReturnedToService { .. } => with("恢复使用", "back in service"),
            Cause::Regrouped { .. } => with("归入另一事件", "moved to another incident"),
            Cause::Broadcast { step, .. } => {
                let (zh, en) = step.words();
                with(zh, en)
            }
        }
    }
}

fn tag(language: Language, what: &str) -> String {
    match language {
        Language::Zh => format!("【{what}】"),
        Language::En => format!("[{what}] "),
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

/// At most so many bytes, cut between characters.
fn cut(text: &str, most_bytes: usize) -> String {
    if text.len() <= most_bytes {
        return text.to_owned();
    }
    const MORE: &str = "……";
    let end = (0..=most_bytes.saturating_sub(MORE.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}{MORE}", &text[..end])
}
