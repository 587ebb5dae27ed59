//! The Atom form of a subscription (RFC 4287): the CAP 1.2 messages that hold now, for whoever comes and reads.
//!
//! Nothing is kept for it: which messages an alarm has led to follows from its transitions in the journal, always the same, so
//! the feed is whole after any restart. While an alarm stands, a message that has run half its time is renewed by an Update
//! that says the same, so that a reader never sees a danger expire that is still there. An entry is what was said last of an
//! alarm; a Cancel stays until it expires. What is said for real, orange and red, is there once people have let it out, as it
//! would leave by a `[[cap]]`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anmin_rules::alarm::{AlarmId, CapRef, Transition};
use anmin_rules::order::{CapMessage, CapOrder, Channel};
use anmin_rules::response::{cap_identifier, cap_message, is_asked};
use anmin_sensors::time::Wall;
use quick_xml::escape::escape;

use super::{Subscriber, Subscriptions};
use crate::delivery::cap::{self, Document};
use crate::delivery::event::rfc3339;
use crate::store::StateReader;
use crate::store::state::Entry;

/// Rows that are read at once, from the end of the journal back, to find alarms that have closed within `expires`.
const ROWS_AT_ONCE: usize = 2_000;
/// So often at most: a feed is asked for every minute, and one that is late for a storm is of use to nobody.
const MOST_READS: usize = 10;
/// Entries at most, the newest.
const MOST_ENTRIES: usize = 500;

/// What an alarm's transitions have led a channel to say, oldest first, with all that was renewed up to `now` and refers to
/// or is what holds.
fn said(site: &str, channel: &Channel, history: &[Transition], expires: Duration, now: Wall) -> Vec<CapOrder> {
    let mut chain = Chain { said: Vec::new(), live: Vec::new(), expires };
    for transition in history {
        let (alarm, at) = (Arc::clone(&transition.alarm), transition.at.wall);
        let last = chain.live.last();
        let Some(message) = cap_message(channel, &alarm, last) else { continue };
        let allowed = alarm.broadcast.as_ref().is_some_and(|broadcast| broadcast.allows(alarm.level));
        if message != CapMessage::Cancel && is_asked(channel, &alarm, last) && !allowed {
            continue;
        }
        chain.renew(at);
        let identifier = cap_identifier(site, &alarm, &channel.id, "");
        chain.say(CapOrder { message, identifier, sent: at, voice: None, references: Vec::new(), alarm });
    }
    chain.renew(now);
    chain.said
}

struct Chain {
    said: Vec<CapOrder>,
    /// Said and neither cancelled nor expired.
    live: Vec<CapRef>,
    expires: Duration,
}

impl Chain {
    fn say(&mut self, order: CapOrder) {
        self.live.retain(|earlier| earlier.sent.plus(self.expires) > order.sent);
        let order = CapOrder { references: self.live.clone(), ..order };
        match order.message {
            CapMessage::Cancel => self.live.clear(),
            CapMessage::Alert | CapMessage::Update => self.live.push(CapRef {
                channel: String::new(),
                identifier: order.identifier.clone(),
                sent: order.sent,
                level: order.alarm.level,
                moved: order.alarm.moved,
                voice: None,
            }),
        }
        self.said.push(order);
    }

    /// Says again what holds, each time half of its time has run. Of those that have passed only the last two matter: the one
    /// that holds, and the one that it refers to.
    fn renew(&mut self, now: Wall) {
        let half = self.expires / 2;
        if self.live.is_empty() {
            return;
        }
        let Some(first) = self.said.last().cloned() else { return };
        let passed = u32::try_from(now.since(first.sent).as_micros() / half.as_micros().max(1)).unwrap_or(u32::MAX);
        for n in [passed.saturating_sub(1), passed].into_iter().filter(|n| *n > 0).collect::<BTreeSet<_>>() {
            let sent = first.sent.plus(half.saturating_mul(n));
            let earlier = (n > 1).then(|| CapRef {
                channel: String::new(),
                identifier: format!("{}-r{}", first.identifier, n - 1),
                sent: first.sent.plus(half.saturating_mul(n - 1)),
                level: first.alarm.level,
                moved: first.alarm.moved,
                voice: None,
            });
            if let Some(earlier) = earlier.filter(|earlier| !self.live.contains(earlier)) {
                self.live.push(earlier);
            }
            let identifier = format!("{}-r{n}", first.identifier);
            self.say(CapOrder { message: CapMessage::Update, identifier, sent, ..first.clone() });
        }
    }
}

impl Subscriptions {
    /// The feed as XML; `None` where the subscriber has no words for CAP. Waits for the disk.
    pub fn feed(&self, subscriber: &Subscriber) -> Result<Option<String>, String> {
        let Some(words) = &subscriber.words else { return Ok(None) };
        let now = self.0.clock.now().wall;
        let journal = StateReader::open(&self.0.dir).map_err(|error| error.to_string())?;
        let mut alarms: BTreeSet<AlarmId> = journal.open_alarms().map_err(|error| error.to_string())?;
        let mut before = None;
        for _ in 0..MOST_READS {
            let rows = journal.recent(ROWS_AT_ONCE, before).map_err(|error| error.to_string())?;
            let changes = || {
                rows.iter().filter_map(|row| match &row.entry {
                    Entry::Transition(transition) => Some(transition),
                    _ => None,
                })
            };
            alarms.extend(changes().map(|transition| transition.alarm.id));
            let is_past = changes().next_back().is_some_and(|oldest| oldest.at.wall.plus(words.expires()) < now);
            before = rows.last().map(|row| row.n);
            if is_past || before.is_none() {
                break;
            }
        }
        let mut holding = Vec::new();
        for alarm in alarms {
            let last = self.messages(&journal, subscriber, words, alarm, now)?.pop();
            holding.extend(last.filter(|last| last.sent.plus(words.expires()) > now));
        }
        holding.sort_by(|a, b| (b.sent, &b.identifier).cmp(&(a.sent, &a.identifier)));
        holding.truncate(MOST_ENTRIES);
        Ok(Some(self.atom(subscriber, words, &holding)))
    }

    /// One message of the feed by its identifier, also one that another has taken the place of. Waits for the disk.
    pub fn cap(&self, subscriber: &Subscriber, identifier: &str) -> Result<Option<Document>, String> {
        let Some(words) = &subscriber.words else { return Ok(None) };
        let Some(rest) = identifier.strip_prefix(&*self.0.site.id).and_then(|rest| rest.strip_prefix('-')) else {
            return Ok(None);
        };
        let Some(Ok(alarm)) = rest.get(..36).map(uuid::Uuid::parse_str) else { return Ok(None) };
        let now = self.0.clock.now().wall;
        let journal = StateReader::open(&self.0.dir).map_err(|error| error.to_string())?;
        let found = self.messages(&journal, subscriber, words, AlarmId(alarm), now)?;
        let Some(order) = found.iter().find(|order| order.identifier == identifier) else { return Ok(None) };
        cap::compose(words, order).map(Some)
    }

    fn messages(
        &self,
        journal: &StateReader,
        subscriber: &Subscriber,
        words: &cap::Words,
        alarm: AlarmId,
        now: Wall,
    ) -> Result<Vec<CapOrder>, String> {
        let rows = journal.history(alarm).map_err(|error| error.to_string())?;
        let history: Vec<Transition> = rows
            .into_iter()
            .filter_map(|row| match row.entry {
                Entry::Transition(transition) => Some(transition),
                _ => None,
            })
            .filter(|transition| subscriber.settings.filter.takes(&transition.alarm))
            .collect();
        let channel = subscriber.settings.filter.channel(Arc::clone(subscriber.id()));
        let channel = Channel { outward: words.is_for_real() && self.0.asks, ..channel };
        Ok(said(&self.0.site.id, &channel, &history, words.expires(), now))
    }

    fn atom(&self, subscriber: &Subscriber, words: &cap::Words, holding: &[CapOrder]) -> String {
        let site = &self.0.site;
        let at = |at: Wall| rfc3339(at, &site.time_zone);
        let updated = holding.first().map_or(self.0.started, |newest| newest.sent);
        let exercise = if site.exercise { "【演练】" } else { "" };
        let name = format!("{} / {}", site.name.zh, site.name.en);
        let mut xml = format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<feed xmlns=\"http://www.w3.org/2005/Atom\">\n\
             <id>urn:anmin:{0}:{1}</id>\n<title>{exercise}{2}</title>\n<updated>{3}</updated>\n\
             <author><name>{2}</name></author>\n<link rel=\"self\" href=\"feed.atom\"/>\n\
             <generator version=\"{4}\">anmin</generator>\n",
            escape(&*site.id),
            escape(&**subscriber.id()),
            escape(&*name),
            at(updated),
            env!("CARGO_PKG_VERSION"),
        );
        for order in holding {
            let document = match cap::compose(words, order) {
                Ok(document) => document,
                Err(why) => {
                    tracing::error!(identifier = order.identifier, why, "a CAP message is not fit for the feed");
                    continue;
                }
            };
            let kind = match order.message {
                CapMessage::Alert => "Alert",
                CapMessage::Update => "Update",
                CapMessage::Cancel => "Cancel",
            };
            xml.push_str(&format!(
                "<entry>\n<id>urn:anmin:cap:{0}</id>\n<title>{1}</title>\n<updated>{2}</updated>\n\
                 <category term=\"{kind}\"/>\n<category term=\"{3}\"/>\n\
                 <link rel=\"alternate\" type=\"application/cap+xml\" href=\"cap/{0}\"/>\n\
                 <summary>{4}</summary>\n</entry>\n",
                escape(&*order.identifier),
                escape(&*document.headline),
                at(order.sent),
                order.alarm.level.as_str(),
                escape(&*document.description),
            ));
        }
        xml.push_str("</feed>\n");
        xml
    }
}

#[cfg(test)]
mod tests {
    use anmin_rules::alarm::{Alarm, AlarmState, By, Cause, Condition};
    use anmin_rules::broadcast::{Broadcast, BroadcastState};
    use anmin_rules::rule::Level;
    use anmin_sensors::time::Now;

    use super::super::tests::Office;
    use super::*;
    use crate::samples::{self, RAISED};

    const WORDS: &str = "id = 'office'\nmin_level = 'orange'\n[cap]\nsender = 'anmin.example.cn'\nexpires = '1h'\n";

    fn minutes(n: u64) -> Wall {
        RAISED.plus(Duration::from_secs(60 * n))
    }

    fn at(minute: u64, cause: Cause, change: impl FnOnce(&mut Alarm)) -> Transition {
        let mut alarm = samples::alarm();
        change(&mut alarm);
        let mut transition = (*samples::transition(AlarmState::Unacknowledged, cause, alarm)).clone();
        transition.at = Now { wall: minutes(minute), ..transition.at };
        transition
    }

    /// Raised orange, acknowledged, red after 100 minutes, over after 130.
    fn story() -> Vec<Transition> {
        let by = || Some(By { who: "li".to_owned(), at: RAISED });
        vec![
            at(0, Cause::Raised, |_| {}),
            at(50, Cause::Acknowledged { by: "li".to_owned() }, |alarm| {
                (alarm.seq, alarm.acknowledged) = (2, by());
            }),
            at(100, Cause::LevelChanged(Level::Orange), |alarm| {
                (alarm.seq, alarm.acknowledged) = (3, by());
                (alarm.level, alarm.peak) = (Level::Red, Level::Red);
            }),
            at(130, Cause::Returned, |alarm| {
                (alarm.seq, alarm.acknowledged) = (4, by());
                (alarm.level, alarm.peak, alarm.condition) = (Level::Red, Level::Red, Condition::Normal);
            }),
        ]
    }

    /// What stands in the feed at each minute: the kind of message, the end of its identifier, and those to which it refers.
    #[test]
    fn the_feed_says_what_holds_and_refers_to_what_was_said() {
        let mut office = Office::new("feed", WORDS);
        for transition in story() {
            office.write(&Arc::new(transition));
        }
        let channel = office.one.settings.filter.channel(Arc::clone(office.one.id()));
        let hour = Duration::from_secs(3_600);
        let told = |transitions: usize, minute: u64| {
            let found = said("s", &channel, &story()[..transitions], hour, minutes(minute));
            let last = found.last().expect("something was said");
            let short = |identifier: &str| identifier.rsplit("000000000001-").next().unwrap_or_default().to_owned();
            let references: Vec<String> = last.references.iter().map(|earlier| short(&earlier.identifier)).collect();
            assert!(
                last.references.iter().all(|earlier| earlier.sent <= last.sent && earlier.sent.plus(hour) > last.sent)
            );
            (last.message, short(&last.identifier), references.join(" "))
        };
        use CapMessage::{Alert, Cancel, Update};
        for (transitions, minute, message, identifier, references) in [
            (1, 0, Alert, "1-office", ""),
            (1, 29, Alert, "1-office", ""),
            (1, 30, Update, "1-office-r1", "1-office"),
            // That somebody has acknowledged it changes nothing of what the public is told.
            (2, 60, Update, "1-office-r2", "1-office-r1"),
            (2, 99, Update, "1-office-r3", "1-office-r2"),
            (3, 100, Update, "3-office", "1-office-r2 1-office-r3"),
            (3, 130, Update, "3-office-r1", "1-office-r3 3-office"),
            (4, 131, Cancel, "4-office", "1-office-r3 3-office 3-office-r1"),
            (4, 9_999, Cancel, "4-office", "1-office-r3 3-office 3-office-r1"),
        ] {
            let wanted = (message, identifier.to_owned(), references.to_owned());
            assert_eq!(told(transitions, minute), wanted, "after {minute} minutes");
        }
    }

    #[test]
    fn what_is_said_for_real_is_there_once_two_people_have_let_it_out() {
        let mut office = Office::new("feed-approval", WORDS);
        let channel = office.one.settings.filter.channel(Arc::clone(office.one.id()));
        let real = Channel { outward: true, ..channel.clone() };
        let asked = |state, level| {
            let broadcast = Broadcast { level, ..samples::broadcast(state) };
            move |alarm: &mut Alarm| (alarm.seq, alarm.broadcast) = (2, Some(broadcast))
        };
        let step = || Cause::Acknowledged { by: "li".to_owned() };
        let hour = Duration::from_secs(3_600);
        use BroadcastState::{Approved, TakenBack, Waiting};
        for (state, level, in_exercise, for_real) in [
            (Waiting, Level::Orange, "Alert", ""),
            (Approved, Level::Orange, "Alert", "Alert"),
            // A yes for less is none for this.
            (Approved, Level::Yellow, "Alert", ""),
            (TakenBack, Level::Orange, "Alert Cancel", ""),
        ] {
            let history = [at(0, Cause::Raised, |_| {}), at(1, step(), asked(state, level))];
            for (channel, wanted) in [(&channel, in_exercise), (&real, for_real)] {
                let said = said("s", channel, &history, hour, minutes(2));
                let kinds: Vec<String> = said.iter().map(|order| format!("{:?}", order.message)).collect();
                assert_eq!(kinds.join(" "), wanted, "{state:?} {level:?}, asked: {}", channel.outward);
            }
        }
        office.write(&Arc::new(at(0, Cause::Raised, |_| {})));
        assert!(office.all.feed(&office.one).expect("it can be read").expect("it has words").contains("<entry>"));
    }

    /// An alarm that has closed within the hour is told of though thousands of changes have come since.
    #[test]
    fn what_has_closed_is_told_of_for_its_time_however_much_has_come_since() {
        let mut office = Office::new("feed-busy", WORDS);
        for transition in story() {
            office.write(&Arc::new(transition));
        }
        let id = samples::alarm().id;
        let busy: Vec<Arc<Transition>> = (1..=5_000)
            .map(|seq| {
                let mut other = at(140, Cause::Acknowledged { by: "li".to_owned() }, |alarm| {
                    (alarm.id, alarm.seq, alarm.level) = (AlarmId(uuid::Uuid::from_u128(77)), seq, Level::Blue);
                });
                Arc::make_mut(&mut other.alarm).peak = Level::Blue;
                Arc::new(other)
            })
            .collect();
        office.write_all(&busy);
        for (minute, wanted) in [(150, 1), (191, 0)] {
            office.clock.advance(minutes(minute).since(office.clock.now().wall));
            let xml = office.all.feed(&office.one).expect("it can be read").expect("it has words");
            assert_eq!(xml.matches(&format!("{id}-4-office</id>")).count(), wanted, "after {minute} minutes: {xml}");
        }
    }

    #[test]
    fn an_entry_leads_to_its_message_and_one_that_has_expired_is_gone() {
        let mut office = Office::new("feed-entries", WORDS);
        for transition in story().into_iter().take(3) {
            office.write(&Arc::new(transition));
        }
        office.clock.advance(Duration::from_secs(101 * 60));
        let xml = office.all.feed(&office.one).expect("it can be read").expect("it has words");
        let identifier = format!("shequ-001-{}-3-office", samples::alarm().id);
        for part in [&*identifier, "<title>【演练】示例社区居民委员会", "<category term=\"Update\"/>", "EXERCISE: "]
        {
            assert!(xml.contains(part), "{part} is not in\n{xml}");
        }
        let message = office.all.cap(&office.one, &identifier).expect("it can be read").expect("it is there");
        assert!(message.xml.contains("<msgType>Update</msgType>"), "{}", message.xml);
        for unknown in ["", "x", "shequ-001-1", &format!("shequ-001-{}-9-office", samples::alarm().id)] {
            assert_eq!(office.all.cap(&office.one, unknown), Ok(None), "{unknown}");
        }
        let over = story().pop().expect("four of them");
        office.write(&Arc::new(over));
        office.clock.advance(Duration::from_secs(30 * 60));
        let xml = office.all.feed(&office.one).expect("it can be read").expect("it has words");
        assert!(xml.contains("<category term=\"Cancel\"/>") && xml.matches("<entry>").count() == 1, "{xml}");
        office.clock.advance(Duration::from_secs(60 * 60));
        let xml = office.all.feed(&office.one).expect("it can be read").expect("it has words");
        assert!(!xml.contains("<entry>"), "{xml}");
    }
}
