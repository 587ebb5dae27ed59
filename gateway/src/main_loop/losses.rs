//! What may have been lost before it reached us: a broker that no longer had our session, a device whose count leaps, a
//! device that sends what nobody can read, and two devices under one name, of which nobody can say whose reading it is.
//!
//! Nothing can mend a loss. So it is a system alarm that ends by itself after a while, and that stays on the desk until
//! somebody has acknowledged it. That a session was expected outlives a restart, where there is a state directory.
//! This module does not know which messages were lost, only that some may have been, and between when and when.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anmin_rules::rule::{Finding, Level, Text};
use anmin_sensors::point::{Device, DeviceIx, Name, Points};
use anmin_sensors::time::{Mono, Now, Wall};
use anmin_sensors::validator::Gap;
use jiff::tz::TimeZone;

use super::{PartState, PartTrouble, SessionStart};
use crate::store::{Fact, KeptSession};

/// A loss is in trouble for so long after it was found.
const SHOWN: Duration = Duration::from_secs(600);
/// How old the note of when a broker was last heard may grow; each is a commit that waits for the disk.
const NOTED_EVERY: Duration = Duration::from_secs(60);
/// Devices whose gaps are alarms of their own at one time; further ones share one.
const MOST_GAPS: usize = 16;

/// So many messages of one topic that nobody can read, within [`UNUSABLE_WITHIN`], are an alarm.
const UNUSABLE: u32 = 10;
const UNUSABLE_WITHIN: Duration = Duration::from_secs(3_600);
/// Topics of such messages that are remembered; beyond it the count begins anew for all.
const MOST_TOPICS: usize = 1_024;

const UNREADABLE: &str = "unreadable:";
const OTHER_UNREADABLE: &str = "unreadable:*";
const LOSS: &str = "loss:";
pub const GAP: &str = "gap:";
/// Stands for all devices beyond [`MOST_GAPS`]; no device has such an id.
const OTHER_GAPS: &str = "gap:*";
const DOUBLE: &str = "double:";
const OTHER_DOUBLES: &str = "double:*";

/// Whether a part is one of those that are said here.
pub fn is_loss(part: &str) -> bool {
    [LOSS, GAP, UNREADABLE, DOUBLE].iter().any(|kind| part.starts_with(kind))
}

/// What is known of losses.
#[derive(Debug)]
pub struct Losses {
    zone: TimeZone,
    sessions: BTreeMap<Arc<str>, Session>,
    /// Parts in trouble, since when.
    shown: BTreeMap<Arc<str>, Mono>,
    /// What devices with a gap in trouble have lost in it.
    missing: BTreeMap<DeviceIx, u64>,
    /// Topics with messages that nobody can read: how many, since when.
    unreadable: BTreeMap<Arc<str>, (u32, Mono)>,
    waiting: Vec<PartState>,
    facts: Vec<Fact>,
    counts: Counts,
}

#[derive(Debug)]
struct Session {
    kept: KeptSession,
    noted: Wall,
}

/// Since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Times that a broker had lost our session.
    pub sessions: u64,
    /// Messages that devices have counted and that did not come.
    pub missing: u64,
}

impl Default for Losses {
    fn default() -> Self {
        Self::new(TimeZone::UTC)
    }
}

impl Losses {
    /// `zone` is that of the site, for what people read.
    pub fn new(zone: TimeZone) -> Self {
        Self {
            zone,
            sessions: BTreeMap::new(),
            shown: BTreeMap::new(),
            missing: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            waiting: Vec::new(),
            facts: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// The sessions that the last run had. Those of a broker that this run has met already are past.
    pub fn recall(&mut self, sessions: Vec<KeptSession>) {
        for kept in sessions {
            let noted = kept.heard;
            self.sessions.entry(Arc::clone(&kept.source)).or_insert(Session { kept, noted });
        }
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// A loss of the last run whose alarm is still in trouble: it ends like any other.
    pub fn restore(&mut self, now: Now, part: &str) {
        self.shown.entry(part.into()).or_insert(now.mono);
    }

    /// A connection began. `Some` when messages may have been lost before it; then `doubt` makes what is known of its
    /// points doubtful and gives their number.
    pub fn handle_session(
        &mut self,
        now: Now,
        start: &SessionStart,
        doubt: impl FnOnce() -> usize,
    ) -> Option<PartState> {
        let before = self.sessions.remove(&start.source).filter(|before| before.kept.client_id == start.client_id);
        if start.kept {
            let kept = KeptSession {
                source: Arc::clone(&start.source),
                client_id: Arc::clone(&start.client_id),
                heard: now.wall,
            };
            self.facts.push(Fact::Session(kept.clone()));
            self.sessions.insert(Arc::clone(&start.source), Session { kept, noted: now.wall });
        } else {
            self.facts.push(Fact::NoSession(Arc::clone(&start.source)));
        }
        let before = before.filter(|_| start.kept && !start.present)?;
        self.counts.sessions += 1;
        let points = doubt();
        let heard = start.heard.map_or(before.kept.heard, |heard| heard.max(before.kept.heard));
        let (from, until) = (self.moment(heard), self.moment(now.wall));
        let source = &start.source;
        let message = Text {
            zh: format!(
                "MQTT 代理 {source} 丢失了本机的会话：{from} 至 {until} 之间的消息可能已丢失。经它上报的 {points} \
                 个测点在再次上报前按“未经证实”处理，请核对"
            ),
            en: format!(
                "MQTT broker {source} has lost anmin's session: messages sent between {from} and {until} may be lost. The \
                 {points} points reported through it are unconfirmed until they are heard again; check them"
            ),
        };
        Some(self.trouble(now, format!("{LOSS}{source}"), Level::Yellow, format!("{from} to {until}"), message))
    }

    /// Something came from a broker.
    pub fn handle_heard(&mut self, now: Now, source: &str) {
        if let Some(session) = self.sessions.get_mut(source) {
            session.kept.heard = now.wall;
        }
    }

    /// A device has counted on without us.
    pub fn handle_gap(&mut self, now: Now, points: &Points, gap: &Gap) -> PartState {
        let count = gap.last - gap.first + 1;
        self.counts.missing = self.counts.missing.saturating_add(count);
        let device = points.device(gap.device);
        if !self.missing.contains_key(&gap.device) && self.missing.len() >= MOST_GAPS {
            let message = Text {
                zh: format!("另有设备的消息序号不连续（同时超过 {MOST_GAPS} 台）：可能有消息丢失，明细见日志"),
                en: format!(
                    "more than {MOST_GAPS} devices at once have gaps in the count of their messages: some may be lost; \
                     the log has the details"
                ),
            };
            return self.trouble(now, OTHER_GAPS.to_owned(), Level::Yellow, "many devices".to_owned(), message);
        }
        let missing = self.missing.entry(gap.device).or_insert(0);
        *missing = missing.saturating_add(count);
        let (missing, Gap { first, last, .. }) = (*missing, *gap);
        let (from, until) = (self.moment(gap.since), self.moment(gap.until));
        let (Device { id, place, .. }, Name { zh: label, en: label_en }) = (device, device.label());
        let alarm_point = device.points().any(|point| points.point(point).spec.alarm_point);
        let message = Text {
            zh: format!(
                "{}{label}（{id}）的消息序号不连续：缺 {missing} 条（最近缺 {first}–{last}，{from} 至 {until}），可能已丢失",
                place.zh()
            ),
            en: format!(
                "{label_en} ({id}) at {} has counted {missing} messages that did not come (lately {first} to {last}, between \
                 {from} and {until}): they may be lost",
                place.en()
            ),
        };
        let level = if alarm_point { Level::Yellow } else { Level::Blue };
        self.trouble(now, format!("{GAP}{id}"), level, format!("{first} to {last}"), message)
    }

    /// Two devices speak under one name.
    pub fn handle_double(&mut self, now: Now, points: &Points, device: DeviceIx) -> PartState {
        let device = points.device(device);
        let (Device { id, place, .. }, Name { zh: label, en: label_en }) = (device, device.label());
        let part = format!("{DOUBLE}{id}");
        let shown = self.shown.keys().filter(|part| part.starts_with(DOUBLE)).count();
        if shown >= MOST_GAPS && !self.shown.contains_key(&*part) {
            let message = Text {
                zh: format!("另有设备编号重复（同时超过 {MOST_GAPS} 个编号），请逐一核对设备编号与主题"),
                en: format!(
                    "more than {MOST_GAPS} names are borne by two devices each; check ids and topics one by one"
                ),
            };
            return self.trouble(now, OTHER_DOUBLES.to_owned(), Level::Yellow, "many devices".to_owned(), message);
        }
        let alarm_point = device.points().any(|point| points.point(point).spec.alarm_point);
        let message = Text {
            zh: format!(
                "{}{label}（{id}）：有两台设备使用同一编号上报，读数无法区分，一台的报警会被另一台的正常读数掩盖。请立即现场核对并改正其中一台的编号",
                place.zh()
            ),
            en: format!(
                "two devices report as {label_en} ({id}) at {}: nobody can tell their readings apart, and the normal reading of one \
                 covers the alarm of the other. Go and look, and give one of them a name of its own",
                place.en()
            ),
        };
        // As long as it lasts nobody is sure to be warned by either.
        let level = if alarm_point { Level::Orange } else { Level::Yellow };
        self.trouble(now, part, level, id.to_string(), message)
    }

    /// A device has sent what nobody can read. What is to be said of it comes by [`Losses::poll_part`].
    pub fn handle_unusable(&mut self, now: Now, source: &str, topic: &Arc<str>) {
        if !self.unreadable.contains_key(topic) && self.unreadable.len() >= MOST_TOPICS {
            self.unreadable.clear();
        }
        let (count, since) = self.unreadable.entry(Arc::clone(topic)).or_insert((0, now.mono));
        if now.mono.since(*since) >= UNUSABLE_WITHIN {
            (*count, *since) = (0, now.mono);
        }
        *count += 1;
        // Said at the tenth, and at each tenth again, so that it lasts as long as they come.
        if !count.is_multiple_of(UNUSABLE) {
            return;
        }
        let shown = self.shown.keys().filter(|part| part.starts_with(UNREADABLE)).count();
        let part = format!("{UNREADABLE}{topic}");
        let (part, message) = if shown < MOST_GAPS || self.shown.contains_key(&*part) {
            let message = Text {
                zh: format!(
                    "设备发来的消息无法识别：主题 {topic}（代理 {source}），一小时内已有 {count} 条；其数据未采用，原文已存入隔离区，请检查设备"
                ),
                en: format!(
                    "a device sends what cannot be read: {count} messages within an hour on topic {topic} of broker {source}.                      Nothing of them is used; they are kept in the quarantine. Check the device"
                ),
            };
            (part, message)
        } else {
            let message = Text {
                zh: format!("另有设备发来无法识别的消息（同时超过 {MOST_GAPS} 个主题），原文见隔离区"),
                en: format!(
                    "more than {MOST_GAPS} topics at once carry messages that cannot be read; see the quarantine"
                ),
            };
            (OTHER_UNREADABLE.to_owned(), message)
        };
        let state = self.trouble(now, part, Level::Yellow, topic.to_string(), message);
        self.waiting.push(state);
    }

    fn trouble(&mut self, now: Now, part: String, level: Level, note: String, message: Text) -> PartState {
        let part: Arc<str> = part.into();
        self.shown.insert(Arc::clone(&part), now.mono);
        let finding = Finding { level, limit: None, note: Some(note) };
        PartState { part, trouble: Some(PartTrouble { finding, message }) }
    }

    /// What is to be said next: that something cannot be read, or that a part has been in trouble for long enough.
    pub fn poll_part(&mut self, now: Now, points: &Points) -> Option<PartState> {
        if let Some(state) = self.waiting.pop() {
            return Some(state);
        }
        let over = |since: &Mono| now.mono.since(*since) >= SHOWN;
        let part = self.shown.iter().find(|(_, since)| over(since)).map(|(part, _)| Arc::clone(part))?;
        self.shown.remove(&part);
        if let Some(device) = part.strip_prefix(GAP).and_then(|id| points.find_device(id)) {
            self.missing.remove(&device);
        }
        Some(PartState { part, trouble: None })
    }

    /// When [`Losses::poll_part`] has something to say by itself.
    pub fn poll_timeout(&self) -> Option<Mono> {
        self.shown.values().min().map(|since| since.plus(SHOWN))
    }

    /// Moves to `facts` what the next commit must write down.
    pub fn take_facts(&mut self, facts: &mut Vec<Fact>) {
        facts.append(&mut self.facts);
        for session in self.sessions.values_mut() {
            let Session { kept, noted } = session;
            if kept.heard.distance(*noted) >= NOTED_EVERY {
                *noted = kept.heard;
                facts.push(Fact::Session(kept.clone()));
            }
        }
    }

    /// As people read it, in the site's own time.
    fn moment(&self, wall: Wall) -> String {
        jiff::Timestamp::from_microsecond(wall.micros())
            .map_or_else(|_| "?".to_owned(), |at| self.zone.to_datetime(at).strftime("%Y-%m-%d %H:%M:%S").to_string())
    }
}

#[cfg(test)]
mod tests {
    use anmin_sensors::point::{DeviceId, Kind, Place, PointSpec};

    use super::*;

    fn at(seconds: u64) -> Now {
        Now::default().plus(Duration::from_secs(seconds))
    }

    fn start(client_id: &str, kept: bool, present: bool, heard: Option<u64>) -> SessionStart {
        SessionStart {
            source: "site".into(),
            client_id: client_id.into(),
            kept,
            present,
            heard: heard.map(|second| at(second).wall),
        }
    }

    fn note(state: Option<PartState>) -> Option<String> {
        state.and_then(|state| state.trouble?.finding.note)
    }

    #[test]
    fn only_a_session_that_should_be_there_can_be_lost() {
        let window = |from: &str, until: &str| Some(format!("1970-01-01 00:{from} to 1970-01-01 00:{until}"));
        // Second, how the connection began, when something was heard on it, and the window of the loss.
        let story = [
            (0, start("a", true, false, None), Some(50), None),
            (60, start("a", true, true, Some(55)), None, None),
            (120, start("a", true, false, Some(90)), Some(121), window("01:30", "02:00")),
            // The last connection was mute: what counts is when something was heard.
            (180, start("a", true, false, None), None, window("02:01", "03:00")),
            (240, start("b", true, false, Some(200)), None, None),
            (300, start("b", false, false, None), None, None),
            (360, start("b", true, false, None), None, None),
        ];
        let mut losses = Losses::default();
        for (second, start, heard, wanted) in story {
            assert_eq!(note(losses.handle_session(at(second), &start, || 3)), wanted, "at {second} s");
            if let Some(heard) = heard {
                losses.handle_heard(at(heard), "site");
            }
        }
        assert_eq!(losses.counts().sessions, 2);
    }

    #[test]
    fn what_was_expected_is_expected_after_a_restart() {
        let mut losses = Losses::default();
        let mut facts = Vec::new();
        losses.handle_session(at(10), &start("a", true, false, None), || 0);
        losses.handle_heard(at(69), "site");
        losses.take_facts(&mut facts);
        assert_eq!(facts.len(), 1, "a note that is a minute old at most is new enough: {facts:?}");
        losses.handle_heard(at(70), "site");
        losses.take_facts(&mut facts);
        losses.take_facts(&mut facts);
        assert_eq!(facts.len(), 2);
        let Some(Fact::Session(kept)) = facts.pop() else { panic!("{facts:?}") };
        let mut losses = Losses::new(TimeZone::fixed(jiff::tz::offset(8)));
        losses.recall(vec![kept]);
        let said = losses.handle_session(at(3_600), &start("a", true, false, None), || 7).expect("a loss");
        let trouble = said.trouble.expect("it is in trouble");
        assert_eq!((&*said.part, trouble.finding.level), ("loss:site", Level::Yellow));
        for text in [&trouble.message.zh, &trouble.message.en] {
            assert!(text.contains("1970-01-01 08:01:10") && text.contains("1970-01-01 09:00:00"), "{text}");
            assert!(text.contains(" 7 "), "{text}");
        }
    }

    #[test]
    fn a_loss_is_over_after_ten_minutes_and_many_gaps_are_one_alarm() {
        let mut points = Points::default();
        let spec = Arc::new(PointSpec::plain("lel", Kind::named("gas.lel").expect("a kind of the table")));
        for n in 0..20 {
            let id = DeviceId::new(format!("g{n}"));
            points
                .add(id, None, &Arc::from("p"), &Arc::new(Place::default()), &[Arc::clone(&spec)])
                .expect("ids differ");
        }
        let mut losses = Losses::default();
        let gap = |device: u32, second| Gap {
            device: DeviceIx(device),
            first: 5,
            last: 6,
            since: at(second - 1).wall,
            until: at(second).wall,
        };
        let parts: Vec<String> =
            (0..20).map(|n| losses.handle_gap(at(9), &points, &gap(n, 9)).part.to_string()).collect();
        assert_eq!((parts[0].as_str(), parts[15].as_str(), parts[16].as_str()), ("gap:g0", "gap:g15", OTHER_GAPS));
        assert_eq!((parts.iter().filter(|part| *part == OTHER_GAPS).count(), losses.counts().missing), (4, 40));
        // One goes on: what it lost adds up, and it stays.
        let again = losses.handle_gap(at(300), &points, &gap(3, 300));
        assert!(again.trouble.is_some_and(|trouble| trouble.message.zh.contains("缺 4 条")));
        assert_eq!(losses.poll_timeout(), Some(at(609).mono));
        assert_eq!(losses.poll_part(at(608), &points).map(|state| state.part), None);
        let mut over = 0;
        while let Some(state) = losses.poll_part(at(609), &points) {
            assert!(is_loss(&state.part) && state.trouble.is_none());
            over += 1;
        }
        assert_eq!((over, losses.poll_timeout()), (16, Some(at(900).mono)));
        assert_eq!(&*losses.handle_gap(at(700), &points, &gap(19, 700)).part, "gap:g19");
    }

    #[test]
    fn two_devices_under_one_name_are_an_alarm_of_their_own_and_many_are_one() {
        let mut points = Points::default();
        let plain = PointSpec::plain("lel", Kind::named("gas.lel").expect("a kind of the table"));
        for n in 0..20 {
            let spec = Arc::new(PointSpec { alarm_point: n == 0, ..plain.clone() });
            let id = DeviceId::new(format!("g{n}"));
            points.add(id, None, &Arc::from("p"), &Arc::new(Place::default()), &[spec]).expect("ids differ");
        }
        let mut losses = Losses::default();
        let mut said = |second: u64, n: u32| {
            let state = losses.handle_double(at(second), &points, DeviceIx(n));
            (state.part.to_string(), state.trouble.map(|trouble| trouble.finding.level))
        };
        assert_eq!(said(0, 0), ("double:g0".to_owned(), Some(Level::Orange)));
        assert_eq!(said(0, 1), ("double:g1".to_owned(), Some(Level::Yellow)));
        (2..16).for_each(|n| drop(said(0, n)));
        assert_eq!(said(0, 16).0, OTHER_DOUBLES);
        assert_eq!(said(60, 0).0, "double:g0", "as long as it lasts");
        let mut over = Vec::new();
        while let Some(state) = losses.poll_part(at(600), &points) {
            assert!(is_loss(&state.part) && state.trouble.is_none());
            over.push(state.part.to_string());
        }
        assert_eq!((over.len(), over.contains(&"double:g0".to_owned())), (16, false));
        assert_eq!(
            losses.poll_part(at(660), &points).map(|state| state.part.to_string()).as_deref(),
            Some("double:g0")
        );
    }

    #[test]
    fn ten_unreadable_messages_of_a_topic_within_an_hour_are_an_alarm() {
        let (mut losses, points) = (Losses::default(), Points::default());
        let said = |losses: &mut Losses, second: u64, topic: &str| {
            losses.handle_unusable(at(second), "site", &topic.into());
            losses.poll_part(at(second), &points).map(|state| state.part.to_string())
        };
        for n in 0..9 {
            assert_eq!(said(&mut losses, n, "a/g1"), None);
            assert_eq!(said(&mut losses, 3_000 * n, "a/g2"), None, "seldom enough");
        }
        assert_eq!(said(&mut losses, 10, "a/g1").as_deref(), Some("unreadable:a/g1"));
        for n in 0..200 {
            said(&mut losses, 20, &format!("b/{}", n % 20));
        }
        assert_eq!(losses.shown.len(), MOST_GAPS + 1, "{:?}", losses.shown);
        assert!(losses.shown.contains_key(OTHER_UNREADABLE));
        for n in 0..10_000 {
            said(&mut losses, 30, &format!("c/{n}"));
        }
        assert!(losses.unreadable.len() <= MOST_TOPICS);
    }
}
