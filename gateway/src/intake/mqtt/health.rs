//! How one outside broker is, in the words of the officer's two languages.
//!
//! Several things may be wrong at once; the part `mqtt:<id>` says the one from which the others follow. A break that is
//! mended within seconds is not said: brokers are restarted, and nothing is lost.

use std::sync::Arc;
use std::time::Duration;

use anmin_rules::rule::{Finding, Level, Text};
use anmin_sensors::time::Mono;

use super::policy::Snag;
use super::subscriptions::Refused;
use crate::main_loop::PartTrouble;

/// A broker that is away for so long is in trouble.
const GRACE: Duration = Duration::from_secs(5);

/// What is known of the broker.
#[derive(Debug)]
pub struct Health {
    /// `site（mqtt://192.168.1.5:1883）`: its id and where it is.
    id: Arc<str>,
    peer: String,
    client_id: String,
    away: Option<Away>,
    /// Another client uses our id.
    pub contested: bool,
    /// The kept session gets nowhere.
    pub snag: Option<Snag>,
    /// The first filter that is refused, and how many others.
    pub refused: Option<(String, Refused, usize)>,
    told: Option<Option<Trouble>>,
}

#[derive(Debug)]
struct Away {
    since: Mono,
    why: Text,
    /// Nothing came of the last attempt, as opposed to a connection that broke.
    unreachable: bool,
}

/// What is to be said, the gravest first.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Trouble {
    Away(Text),
    Contested,
    Stuck(Snag),
    Refused(String, Refused, usize),
}

impl Health {
    /// `now` is the start: a broker that is not there by then is away from now on.
    pub fn new(id: Arc<str>, peer: String, client_id: String, now: Mono) -> Self {
        let why = Text { zh: "尚未连上".to_owned(), en: "not connected yet".to_owned() };
        Self {
            id,
            peer,
            client_id,
            away: Some(Away { since: now, why, unreachable: true }),
            contested: false,
            snag: None,
            refused: None,
            told: None,
        }
    }

    pub fn handle_up(&mut self) {
        self.away = None;
    }

    /// A connection broke.
    pub fn handle_broken(&mut self, now: Mono, why: Text) {
        self.away = Some(Away { since: now, why, unreachable: false });
    }

    /// An attempt to connect failed.
    pub fn handle_unreachable(&mut self, now: Mono, why: Text) {
        let since = self.away.as_ref().map_or(now, |away| away.since);
        self.away = Some(Away { since, why, unreachable: true });
    }

    /// The moment at which something may be to be said although nothing happens.
    pub fn poll_timeout(&self) -> Option<Mono> {
        self.away.as_ref().map(|away| away.since.plus(GRACE))
    }

    /// What is to be said now, if it is something else than was said: the trouble, or that all is well.
    pub fn poll_report(&mut self, now: Mono) -> Option<Option<PartTrouble>> {
        let trouble = self.trouble(now);
        // Before the first connection, or the first trouble, there is nothing to say.
        let silent = self.told.is_none() && self.away.is_some() && trouble.is_none();
        if silent || self.told.as_ref() == Some(&trouble) {
            return None;
        }
        Some(trouble.map(|trouble| self.words(trouble)))
    }

    /// What [`Health::poll_report`] gave has been said.
    pub fn handle_told(&mut self, now: Mono) {
        self.told = Some(self.trouble(now));
    }

    fn trouble(&self, now: Mono) -> Option<Trouble> {
        let away = self.away.as_ref().filter(|away| now.since(away.since) >= GRACE);
        let gone = |unreachable| {
            away.filter(|away| away.unreachable == unreachable).map(|away| Trouble::Away(away.why.clone()))
        };
        gone(true)
            .or_else(|| self.contested.then_some(Trouble::Contested))
            .or_else(|| self.snag.clone().map(Trouble::Stuck))
            .or_else(|| gone(false))
            .or_else(|| self.refused.clone().map(|(path, why, more)| Trouble::Refused(path, why, more)))
    }

    fn words(&self, trouble: Trouble) -> PartTrouble {
        let Self { id, peer, client_id, .. } = self;
        let (note, zh, en) = match trouble {
            Trouble::Away(why) => (
                why.en.clone(),
                format!("连不上 MQTT 代理 {id}（{peer}）：{}；经它上报的测点状态未知", why.zh),
                format!("MQTT broker {id} ({peer}) is away: {}; the points reported through it are unknown", why.en),
            ),
            Trouble::Contested => (
                format!("client id {client_id} is used twice"),
                format!(
                    "MQTT 代理 {id}（{peer}）一连上就断开：很可能另有客户端使用同一标识 {client_id}，双方不断把对方挤下线；\
                     请改用不同的 client_id"
                ),
                format!(
                    "MQTT broker {id} ({peer}) closes each connection at once: most likely another client uses the id \
                     {client_id}, too, and each throws the other out; give one of them another client_id"
                ),
            ),
            Trouble::Stuck(Snag::Poison(why)) => (
                why.clone(),
                format!(
                    "MQTT 代理 {id}（{peer}）的会话 {client_id} 里有一个读不了的报文，排在其后的积压消息取不出来；\
                     新消息改由第二个连接接收。请在代理上删除该会话"
                ),
                format!(
                    "the session {client_id} at MQTT broker {id} ({peer}) holds a packet that cannot be read ({why}), and \
                     what waits behind it is not delivered; new messages come over a second connection. Remove the \
                     session at the broker"
                ),
            ),
            Trouble::Stuck(Snag::Unsafe) => (
                "messages are not made safe".to_owned(),
                format!(
                    "MQTT 代理 {id}（{peer}）送来的消息存不了盘，因此不予确认；新消息改由第二个连接接收，照常判断和报警"
                ),
                format!(
                    "messages of MQTT broker {id} ({peer}) cannot be made safe and are not acknowledged; new ones come \
                     over a second connection and are judged all the same"
                ),
            ),
            Trouble::Refused(path, why, more) => {
                let Refused { code, words } = why;
                let (others_zh, others_en) = match more {
                    0 => (String::new(), String::new()),
                    more => (format!("等 {} 项", more + 1), format!(" and {more} others")),
                };
                (
                    format!("{path}: {code} {words}"),
                    format!(
                        "MQTT 代理 {id}（{peer}）拒绝订阅 {path}{others_zh}（原因码 {code} {words}）；收不到这些主题的消息"
                    ),
                    format!(
                        "MQTT broker {id} ({peer}) refuses the subscription to {path}{others_en} (code {code}, {words}); \
                         nothing on these topics is heard"
                    ),
                )
            }
        };
        PartTrouble {
            finding: Finding { level: Level::Yellow, limit: None, note: Some(note) },
            message: Text { zh, en },
        }
    }
}

#[cfg(test)]
mod tests {
    use anmin_sensors::time::Now;

    use super::*;

    fn at(seconds: u64) -> Now {
        Now::default().plus(Duration::from_secs(seconds))
    }

    fn why(words: &str) -> Text {
        Text { zh: "原因".to_owned(), en: words.to_owned() }
    }

    const DENIED: Refused = Refused { code: 0x87, words: "not authorized" };

    /// Second, what happens, and what is said then or by itself until the next line.
    type Line<'l> = (u64, fn(&mut Health, Now), &'l [&'l str]);

    fn play(story: &[Line<'_>]) {
        let mut health = Health::new("site".into(), "mqtt://b:1883".to_owned(), "anmin-1".to_owned(), at(0).mono);
        for (n, (second, event, wanted)) in story.iter().enumerate() {
            event(&mut health, at(*second));
            let end = story.get(n + 1).map_or(second + 1, |(next, ..)| *next);
            let mut said = Vec::new();
            for second in *second..end.max(second + 1) {
                if let Some(report) = health.poll_report(at(second).mono) {
                    said.push(report.map_or("well".to_owned(), |trouble| {
                        assert!(
                            trouble.message.zh.contains("MQTT 代理 site（mqtt://b:1883）"),
                            "{}",
                            trouble.message.zh
                        );
                        assert!(
                            trouble.message.en.contains("MQTT broker site (mqtt://b:1883)"),
                            "{}",
                            trouble.message.en
                        );
                        trouble.finding.note.unwrap_or_default()
                    }));
                    health.handle_told(at(second).mono);
                }
            }
            assert_eq!(said, *wanted, "line {n}, at {second} s");
        }
    }

    #[test]
    fn what_is_told_follows_what_happens() {
        // A broker that is there at once, is gone briefly, then for long.
        play(&[
            (0, |_, _| {}, &[]),
            (1, |health, _| health.handle_up(), &["well"]),
            (10, |health, now| health.handle_broken(now.mono, why("closed")), &[]),
            (14, |health, _| health.handle_up(), &[]),
            (20, |health, now| health.handle_broken(now.mono, why("closed")), &[]),
            (21, |health, now| health.handle_unreachable(now.mono, why("no answer")), &["no answer"]),
            (40, |health, now| health.handle_unreachable(now.mono, why("no answer")), &[]),
            (50, |health, now| health.handle_unreachable(now.mono, why("not trusted")), &["not trusted"]),
            (60, |health, _| health.handle_up(), &["well"]),
        ]);
        // One that was never there.
        play(&[
            (0, |health, now| health.handle_unreachable(now.mono, why("refused")), &["refused"]),
            (9, |health, _| health.handle_up(), &["well"]),
        ]);
        // The cause before what follows from it.
        play(&[
            (0, |health, _| health.handle_up(), &["well"]),
            (1, |health, _| health.refused = Some(("a/#".to_owned(), DENIED, 2)), &["a/#: 135 not authorized"]),
            (2, |health, now| health.handle_broken(now.mono, why("closed")), &[]),
            (3, |health, _| health.contested = true, &["client id anmin-1 is used twice"]),
            (30, |health, now| health.handle_unreachable(now.mono, why("refused")), &["refused"]),
            (31, |health, _| health.handle_up(), &["client id anmin-1 is used twice"]),
            (32, |health, _| health.contested = false, &["a/#: 135 not authorized"]),
            (33, |health, _| health.snag = Some(Snag::Poison("17 MB".to_owned())), &["17 MB"]),
            (34, |health, now| health.handle_broken(now.mono, why("17 MB")), &[]),
            (60, |health, _| (health.snag, health.away) = (None, None), &["a/#: 135 not authorized"]),
            (61, |health, _| health.refused = None, &["well"]),
        ]);
    }

    #[test]
    fn timers_are_asked_for() {
        let mut health = Health::new("site".into(), "mqtt://b".to_owned(), "anmin".to_owned(), at(1).mono);
        assert_eq!(health.poll_timeout(), Some(at(6).mono));
        health.handle_up();
        assert_eq!(health.poll_timeout(), None);
    }
}
