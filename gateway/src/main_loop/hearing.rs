//! Whether those who were told have been reached, and have answered.
//!
//! What a gateway reports goes to the message that it names, whether that left a moment or a day ago. Somebody who is not reached
//! is a notice of anmin's own until something reaches them again. Where a way out must have reached somebody, or must have had an
//! answer, in a time (`reached_within`, `answered_within`), the time runs from when it was taken; what is late is handed on to the
//! next way out, and so is at once what was reported to have reached nobody. Times are not kept over a restart: they begin again
//! for every alarm that still waits, which is late, never too early and never not at all.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use anmin_rules::alarm::{Alarm, AlarmId};
use anmin_rules::order::{Channel, ChannelForm, OrderId};
use anmin_rules::rule::{Finding, Level, Text};
use anmin_sensors::time::{Mono, Now};

use super::{PartState, PartTrouble};
use crate::delivery_report::Report;
use crate::store::reach::{Addressed, Reach, Standing};

/// Messages that are known without a look into the journal.
const MOST_KNOWN: usize = 2_000;
/// Reports that came before anmin knew that their message was taken.
const MOST_EARLY: usize = 200;
/// How long these wait for it.
const EARLY: Duration = Duration::from_secs(60);
/// Somebody who could not be reached must be reached again so long after the last failure, before that is over: what says so
/// goes to them, too.
const STANDS: Duration = Duration::from_secs(600);
/// Alarms and ways out that are waited for; beyond it those go that were addressed and never taken.
const MOST_WAITS: usize = 20_000;
/// Recipients who are said to be unreachable at most, of all ways out.
const MOST_UNREACHED: usize = 200;

type Name = (Arc<str>, Arc<str>);

/// Until when one way out must have reached somebody, and had an answer, about one alarm; and how it stands with whom.
#[derive(Clone, Debug, Default)]
struct Waits {
    reached: Option<Mono>,
    answered: Option<Mono>,
    recipients: BTreeMap<u32, Standing>,
}

impl Waits {
    fn due(&self) -> Option<Mono> {
        [self.reached, self.answered].into_iter().flatten().min()
    }

    fn take(&mut self, now: Mono, recipient: u32, standing: &Standing) {
        merge(&mut self.recipients, recipient, standing);
        match self.recipients.values().map(|standing| standing.reach).max() {
            Some(Reach::Answered) => (self.reached, self.answered) = (None, None),
            Some(Reach::Delivered | Reach::Read) => self.reached = None,
            // Nobody of them will hear of it.
            Some(Reach::Failed | Reach::LeftOut) => {
                for time in [&mut self.reached, &mut self.answered].into_iter().flatten() {
                    *time = now;
                }
            }
            _ => {}
        }
    }
}

fn merge(recipients: &mut BTreeMap<u32, Standing>, recipient: u32, standing: &Standing) {
    recipients
        .entry(recipient)
        .and_modify(|known| _ = known.take(standing.clone()))
        .or_insert_with(|| standing.clone());
}

fn alarms_of(message: &Addressed) -> BTreeSet<AlarmId> {
    message.orders.iter().filter_map(OrderId::about).map(|(alarm, _)| alarm).collect()
}

/// Whether somebody must be reached, or answer, in a time.
fn has_times(channel: &Channel) -> bool {
    channel.reached_within.is_some() || channel.answered_within.is_some()
}

/// What a turn has to do about it.
#[derive(Clone, Debug)]
pub enum Act {
    /// To be written down.
    Write(Addressed),
    /// To be handed on to the next way out, if nobody has answered.
    HandOn(AlarmId, Arc<str>),
    Part(PartState),
}

#[derive(Debug, Default)]
pub struct Hearing {
    known: HashMap<Name, Addressed>,
    /// As they came.
    came: VecDeque<Name>,
    early: VecDeque<(Mono, Arc<str>, Report)>,
    waits: BTreeMap<(AlarmId, Arc<str>), Waits>,
    /// Nothing is due before; asked in every turn.
    soonest: Option<Mono>,
    /// When it failed last.
    unreached: BTreeMap<(Arc<str>, u32), Mono>,
    acts: VecDeque<Act>,
}

impl Hearing {
    /// After a restart: what was told of these alarms, of which nobody knows when, waits anew.
    pub fn restore<'a>(&mut self, now: Mono, alarms: impl Iterator<Item = &'a Arc<Alarm>>, channels: &[Channel]) {
        for alarm in alarms {
            for channel in channels.iter().filter(|channel| channel.wants(alarm, alarm.peak)) {
                self.wait(now, alarm, channel);
            }
        }
    }

    /// A way out has taken news of an alarm.
    pub fn handle_taken(&mut self, now: Mono, alarm: &Alarm, channel: &Channel) {
        self.wait(now, alarm, channel);
    }

    fn wait(&mut self, now: Mono, alarm: &Alarm, channel: &Channel) {
        let handed_on = channel.then.iter().any(|next| alarm.rerouted.contains(next));
        if channel.form != ChannelForm::Events || handed_on || !has_times(channel) {
            return;
        }
        let waits = self.waits.entry((alarm.id, Arc::clone(&channel.id))).or_default();
        if waits.due().is_none() {
            waits.reached = channel.reached_within.map(|within| now.plus(within));
            waits.answered = channel.answered_within.map(|within| now.plus(within));
            for (recipient, standing) in std::mem::take(&mut waits.recipients) {
                waits.take(now, recipient, &standing);
            }
        }
        self.soonest = self.soonest.into_iter().chain(waits.due()).min();
        self.tidy();
    }

    fn tidy(&mut self) {
        if self.waits.len() > MOST_WAITS {
            self.waits.retain(|_, waits| waits.due().is_some());
        }
    }

    /// A message was taken, or not taken for somebody; `channel` is the way out, where it is still one.
    pub fn handle_addressed(&mut self, now: Now, message: Addressed, channel: Option<&Channel>) {
        let name = (Arc::clone(&message.channel), Arc::clone(&message.key));
        let alarms = alarms_of(&message);
        for (recipient, standing) in &message.recipients {
            self.handle_standing(now.mono, &message.channel, *recipient, standing);
            if channel.is_some_and(has_times) {
                for alarm in &alarms {
                    let waits = self.waits.entry((*alarm, Arc::clone(&message.channel))).or_default();
                    // That they were reached by an earlier message says nothing of this one.
                    if !self.known.contains_key(&name) {
                        waits.recipients.remove(recipient);
                    }
                    waits.take(now.mono, *recipient, standing);
                    self.soonest = self.soonest.into_iter().chain(waits.due()).min();
                }
            }
        }
        self.tidy();
        let message = match self.known.remove(&name) {
            // The same message again, to others or once more.
            Some(mut before) => {
                message.recipients.iter().for_each(|(n, standing)| merge(&mut before.recipients, *n, standing));
                let new: Vec<OrderId> =
                    message.orders.into_iter().filter(|order| !before.orders.contains(order)).collect();
                before.orders.extend(new);
                before
            }
            None => message,
        };
        self.keep(message.clone());
        self.acts.push_back(Act::Write(message));
        let of_it = |channel: &Arc<str>, report: &Report| *channel == name.0 && *report.key == *name.1;
        let (early, others): (VecDeque<_>, _) = std::mem::take(&mut self.early)
            .into_iter()
            .filter(|(since, ..)| now.mono.since(*since) < EARLY)
            .partition(|(_, channel, report)| of_it(channel, report));
        self.early = others;
        for (_, channel, report) in early {
            self.handle_report(now, &channel, report, None);
        }
    }

    fn keep(&mut self, message: Addressed) {
        let name = (Arc::clone(&message.channel), Arc::clone(&message.key));
        if self.known.insert(name.clone(), message).is_none() {
            self.came.push_back(name);
        }
        while self.came.len() > MOST_KNOWN {
            let first = self.came.pop_front().expect("it is not empty");
            self.known.remove(&first);
        }
    }

    /// Whether the journal need not be asked for this message.
    pub fn knows(&self, channel: &Arc<str>, key: &str) -> bool {
        self.known.contains_key(&(Arc::clone(channel), Arc::from(key)))
    }

    /// A gateway has reported; `kept` is what the journal has of the message, where it was asked. False where nobody knows the
    /// message: that it was taken may be heard later.
    pub fn handle_report(&mut self, now: Now, channel: &Arc<str>, report: Report, kept: Option<Addressed>) -> bool {
        let name = (Arc::clone(channel), Arc::from(report.key.as_str()));
        let Some(mut message) = self.known.get(&name).cloned().or(kept) else {
            self.early.push_back((now.mono, Arc::clone(channel), report));
            if self.early.len() > MOST_EARLY {
                self.early.pop_front();
            }
            return false;
        };
        let whose: Vec<u32> = match report.recipient {
            Some(recipient) => vec![recipient],
            None => message.recipients.keys().copied().collect(),
        };
        let standing = Standing::new(report.reach, now.wall, &report.why);
        let alarms = alarms_of(&message);
        let mut news = false;
        for recipient in whose {
            // Somebody to whom this message did not go.
            let Some(known) = message.recipients.get_mut(&recipient) else { continue };
            if !known.take(standing.clone()) {
                continue;
            }
            news = true;
            self.handle_standing(now.mono, channel, recipient, &standing);
            for alarm in &alarms {
                if let Some(waits) = self.waits.get_mut(&(*alarm, Arc::clone(channel))) {
                    waits.take(now.mono, recipient, &standing);
                    self.soonest = self.soonest.into_iter().chain(waits.due()).min();
                }
            }
        }
        if !news {
            return true;
        }
        self.keep(message.clone());
        self.acts.push_back(Act::Write(message));
        true
    }

    fn handle_standing(&mut self, now: Mono, channel: &Arc<str>, recipient: u32, standing: &Standing) {
        let who = (Arc::clone(channel), recipient);
        let part = format!("way-out:{channel}/recipient-{}", recipient + 1).into();
        match standing.reach {
            Reach::LeftOut | Reach::Failed => {
                if self.unreached.len() >= MOST_UNREACHED && !self.unreached.contains_key(&who) {
                    return;
                }
                self.unreached.insert(who, now);
                let (n, why) = (recipient + 1, &standing.why);
                let finding = Finding { level: Level::Yellow, limit: None, note: None };
                let message = match why.is_empty() {
                    true => Text {
                        zh: format!("通知出口 {channel} 的第 {n} 位接收人联系不上，请核对号码或地址"),
                        en: format!(
                            "recipient {n} of way out {channel} cannot be reached: check the number or address"
                        ),
                    },
                    false => Text {
                        zh: format!("通知出口 {channel} 的第 {n} 位接收人联系不上（{why}），请核对号码或地址"),
                        en: format!(
                            "recipient {n} of way out {channel} cannot be reached ({why}): check the number or address"
                        ),
                    },
                };
                self.acts.push_back(Act::Part(PartState { part, trouble: Some(PartTrouble { finding, message }) }));
            }
            _ => {
                if self.unreached.get(&who).is_none_or(|failed| now.since(*failed) >= STANDS) {
                    self.unreached.remove(&who);
                    self.acts.push_back(Act::Part(PartState { part, trouble: None }));
                }
            }
        }
    }

    pub fn poll_timeout(&self) -> Option<Mono> {
        self.soonest
    }

    /// What is to be done. `waits_for_answer`: whether nobody has answered an alarm yet.
    pub fn poll(&mut self, now: Mono, waits_for_answer: impl Fn(AlarmId) -> bool) -> Option<Act> {
        if self.acts.is_empty() && self.soonest.is_some_and(|due| due <= now) {
            let due = |waits: &Waits| waits.due().is_some_and(|due| due <= now);
            let late: Vec<_> =
                self.waits.iter().filter(|(_, waits)| due(waits)).map(|(name, _)| name.clone()).collect();
            for name in late {
                self.waits.remove(&name);
                if waits_for_answer(name.0) {
                    self.acts.push_back(Act::HandOn(name.0, name.1));
                }
            }
            self.soonest = self.waits.values().filter_map(Waits::due).min();
        }
        self.acts.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{self, RAISED};

    fn at(seconds: u64) -> Now {
        let since = Duration::from_secs(seconds);
        Now { mono: Mono::default().plus(since), wall: RAISED.plus(since) }
    }

    fn channel(reached: Option<u64>, answered: Option<u64>) -> Channel {
        Channel {
            then: vec!["deputy".into()],
            reached_within: reached.map(Duration::from_secs),
            answered_within: answered.map(Duration::from_secs),
            ..Channel::new("sms", ChannelForm::Events, Level::Yellow)
        }
    }

    fn message(key: &str, recipients: &[(u32, Reach)]) -> Addressed {
        let alarm = samples::alarm().id;
        let standing = |(n, reach): &(u32, Reach)| (*n, Standing::new(*reach, RAISED, ""));
        Addressed {
            channel: "sms".into(),
            key: key.into(),
            orders: vec![OrderId::new(format!("{alarm}/1/sms"))],
            recipients: recipients.iter().map(standing).collect(),
        }
    }

    fn report(key: &str, recipient: Option<u32>, reach: Reach) -> Report {
        Report { key: key.to_owned(), recipient, reach, why: String::new() }
    }

    /// What is done by then, in words; `waits`: nobody has answered.
    fn acts(hearing: &mut Hearing, now: Now, waits: bool) -> Vec<String> {
        std::iter::from_fn(|| hearing.poll(now.mono, |_| waits))
            .map(|act| match act {
                Act::Write(message) => {
                    let best = |standing: &Standing| standing.reach.as_str();
                    let said: Vec<&str> = message.recipients.values().map(best).collect();
                    format!("{}: {}", message.key, said.join(", "))
                }
                Act::HandOn(_, channel) => format!("{channel} hands on"),
                Act::Part(PartState { part, trouble }) => {
                    format!("{part} {}", if trouble.is_some() { "in trouble" } else { "well" })
                }
            })
            .filter(|said| !said.ends_with(" well"))
            .collect()
    }

    /// One red alarm that is told to two by one message; what a report says of whom, and when the next way out gets it.
    #[test]
    fn the_next_gets_what_has_reached_nobody_or_had_no_answer_in_time() {
        use Reach::{Answered, Delivered, Failed};
        let none: &[(Option<u32>, Reach)] = &[];
        for (reached, answered, reports, handed_on) in [
            (Some(30), None, none, Some(30)),
            (Some(30), None, &[(Some(0), Delivered)], None),
            // One of them is enough.
            (Some(30), None, &[(Some(0), Failed)], Some(30)),
            (Some(30), None, &[(Some(0), Failed), (Some(1), Delivered)], None),
            // Reported to have reached nobody: at once.
            (Some(30), None, &[(Some(0), Failed), (Some(1), Failed)], Some(5)),
            (None, Some(60), &[(None, Failed)], Some(5)),
            (None, Some(60), none, Some(60)),
            (None, Some(60), &[(None, Delivered)], Some(60)),
            (None, Some(60), &[(Some(1), Answered)], None),
            (Some(30), Some(60), &[(Some(1), Delivered)], Some(60)),
            (Some(30), Some(60), &[(Some(1), Answered)], None),
            (None, None, none, None),
        ] {
            let (mut hearing, channel) = (Hearing::default(), channel(reached, answered));
            // One request for both, or one for each.
            let keys = if reports.iter().any(|(recipient, _)| recipient.is_none()) { ["k", "k"] } else { ["k0", "k1"] };
            for (n, key) in (0..).zip(keys) {
                hearing.handle_addressed(at(0), message(key, &[(n, Reach::Accepted)]), Some(&channel));
            }
            hearing.handle_taken(at(0).mono, &samples::alarm(), &channel);
            acts(&mut hearing, at(0), true);
            for (recipient, reach) in reports {
                let key = recipient.map_or("k", |n| keys[n as usize]);
                assert!(hearing.handle_report(at(5), &"sms".into(), report(key, *recipient, *reach), None));
            }
            let mut found = None;
            for second in 5..200 {
                if acts(&mut hearing, at(second), true).contains(&"sms hands on".to_owned()) {
                    assert_eq!(found, None, "once");
                    found = Some(second);
                }
            }
            assert_eq!(found, handed_on, "{reached:?} {answered:?} {reports:?}");
            assert_eq!(hearing.poll_timeout(), None);
        }
    }

    #[test]
    fn what_somebody_has_answered_or_was_handed_on_already_is_not_handed_on() {
        let mut hearing = Hearing::default();
        hearing.handle_taken(at(0).mono, &samples::alarm(), &channel(None, Some(60)));
        assert_eq!(acts(&mut hearing, at(60), false), Vec::<String>::new(), "somebody has acknowledged it");
        let handed_on = Alarm { rerouted: vec!["deputy".into()], ..samples::alarm() };
        hearing.handle_taken(at(61).mono, &handed_on, &channel(None, Some(60)));
        assert_eq!(hearing.poll_timeout(), None, "the deputy has a time of its own");
    }

    #[test]
    fn whoever_has_answered_one_message_has_not_answered_the_next() {
        let (mut hearing, channel) = (Hearing::default(), channel(None, Some(60)));
        for (key, at_second) in [("k1", 0), ("k2", 10)] {
            hearing.handle_addressed(at(at_second), message(key, &[(0, Reach::Accepted)]), Some(&channel));
            hearing.handle_taken(at(at_second).mono, &samples::alarm(), &channel);
            if key == "k1" {
                hearing.handle_report(at(5), &"sms".into(), report(key, None, Reach::Answered), None);
            }
        }
        acts(&mut hearing, at(10), true);
        assert_eq!(acts(&mut hearing, at(69), true), Vec::<String>::new());
        assert_eq!(acts(&mut hearing, at(70), true), ["sms hands on"]);
    }

    #[test]
    fn after_a_restart_every_alarm_that_waits_has_its_whole_time_again() {
        let mut hearing = Hearing::default();
        let quiet = Channel { min_level: Level::Red, ..channel(None, Some(60)) };
        let yellow = Alarm { level: Level::Yellow, peak: Level::Yellow, ..samples::alarm() };
        hearing.restore(at(500).mono, [Arc::new(yellow)].iter(), &[quiet]);
        assert_eq!(hearing.poll_timeout(), None, "it was never told of it");
        hearing.restore(at(500).mono, [Arc::new(samples::alarm())].iter(), &[channel(None, Some(60))]);
        assert_eq!(acts(&mut hearing, at(559), true), Vec::<String>::new());
        assert_eq!(acts(&mut hearing, at(560), true), ["sms hands on"]);
    }

    #[test]
    fn a_report_that_comes_before_the_answer_to_what_it_speaks_of_is_not_lost() {
        let mut hearing = Hearing::default();
        let sms: Arc<str> = "sms".into();
        assert!(!hearing.handle_report(at(0), &sms, report("k", None, Reach::Delivered), None));
        assert!(!hearing.handle_report(at(0), &"voice".into(), report("k", None, Reach::Failed), None));
        hearing.handle_addressed(at(1), message("k", &[(0, Reach::Accepted)]), None);
        assert_eq!(acts(&mut hearing, at(1), true), ["k: accepted", "k: delivered"]);
        // Too long before it is somebody's mistake.
        hearing.handle_report(at(2), &sms, report("late", None, Reach::Delivered), None);
        hearing.handle_addressed(at(200), message("late", &[(0, Reach::Accepted)]), None);
        assert_eq!(acts(&mut hearing, at(200), true), ["late: accepted"]);
    }

    #[test]
    fn a_report_of_a_message_of_long_ago_is_taken_up_from_the_journal() {
        let mut hearing = Hearing::default();
        let kept = Some(message("old", &[(0, Reach::Accepted), (1, Reach::Delivered)]));
        assert!(hearing.handle_report(at(90_000), &"sms".into(), report("old", Some(0), Reach::Read), kept));
        assert_eq!(acts(&mut hearing, at(90_000), true), ["old: read, delivered"]);
        // What is known already, and somebody who is not told, change nothing.
        for (recipient, reach) in [(0, Reach::Delivered), (7, Reach::Read)] {
            assert!(hearing.handle_report(at(90_001), &"sms".into(), report("old", Some(recipient), reach), None));
        }
        assert_eq!(acts(&mut hearing, at(90_001), true), Vec::<String>::new());
    }

    #[test]
    fn somebody_who_cannot_be_reached_is_a_notice_until_they_can() {
        let mut hearing = Hearing::default();
        let parts = |hearing: &mut Hearing, second: u64, reach: Reach| {
            hearing.handle_addressed(at(second), message(&format!("k{second}"), &[(1, reach)]), None);
            let part = |act| match act {
                Act::Part(PartState { part, trouble }) => Some((part.to_string(), trouble.is_some())),
                _ => None,
            };
            std::iter::from_fn(|| hearing.poll(at(second).mono, |_| true)).find_map(part)
        };
        let said = |trouble| Some(("way-out:sms/recipient-2".to_owned(), trouble));
        assert_eq!(parts(&mut hearing, 0, Reach::Accepted), said(false), "whatever the last run knew");
        assert_eq!(parts(&mut hearing, 10, Reach::LeftOut), said(true));
        // What says so goes to them, too: it would never end.
        assert_eq!(parts(&mut hearing, 20, Reach::Accepted), None);
        assert_eq!(parts(&mut hearing, 609, Reach::Accepted), None);
        assert_eq!(parts(&mut hearing, 610, Reach::Accepted), said(false));
    }

    #[test]
    fn memory_is_bounded() {
        let mut hearing = Hearing::default();
        for n in 0..MOST_KNOWN + 5 {
            hearing.handle_addressed(at(0), message(&format!("k{n}"), &[(n as u32, Reach::LeftOut)]), None);
            hearing.handle_report(at(0), &"sms".into(), report(&format!("x{n}"), None, Reach::Read), None);
            acts(&mut hearing, at(0), true);
        }
        let Hearing { known, came, early, unreached, .. } = &hearing;
        assert_eq!((known.len(), came.len()), (MOST_KNOWN, MOST_KNOWN));
        assert_eq!((early.len(), unreached.len()), (MOST_EARLY, MOST_UNREACHED));
    }
}
