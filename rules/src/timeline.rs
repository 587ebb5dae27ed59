//! Lifecycles as text tables, `timelines/*.txt`, walked by one test; and whole days at random against the invariants.
//!
//! A table begins with `== name`, says in `spec` and `desk` what the rule and the stations are like, and then what
//! happens when. A line with `->` is what anmin does. Everything that anmin does must be there, at its time, in order.
//! Time jumps from deadline to deadline; a restart rebuilds everything from what the journal would hold.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use anmin_sensors::document::parse_duration;
use anmin_sensors::point::{DeviceId, Kind, Place, PointId, PointIx, PointSpec, Points};
use anmin_sensors::reading::{Fault, Quality, Sample, Value};
use anmin_sensors::time::{Mono, Now, Wall};
use include_dir::{Dir, include_dir};

use crate::alarm::{Action, Alarm, AlarmId, AlarmState, CapRef, Cause, Class, Command, Refusal, Transition};
use crate::book::ANMIN;
use crate::broadcast::{Approval, BroadcastAction, BroadcastState, Policy, Seen};
use crate::casework::{CaseKind, Stage as CaseStage};
use crate::duty::{DutyChange, Equipment, Member, Role, Shift, StationAction};
use crate::engine::{Counts, Effect, Watch};
use crate::incident::{
    FalseCause, Incident, IncidentAction, IncidentCause, IncidentChange, IncidentId, IncidentState, NewCase, Outcome,
    QUIET, REASON_WITHIN,
};
use crate::order::{
    Call, CallCause, CallState, CallStep, CapMessage, CapOrder, Channel, ChannelForm, OrderBody, OrderId, Station,
    Voice,
};
use crate::plan::Plans;
use crate::response::{DeskSettings, OVER};
use crate::rule::{
    Evidence, Finding, Input, Judged, Level, OnBad, RuleId, RuleIx, RuleSpec, Scope, Text, Tuning, Verdict, Why,
};

static TABLES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/timelines");

/// One site on which a table or a random day is played.
struct Stage {
    watch: Watch,
    spec: Arc<RuleSpec>,
    tuning: Tuning,
    desk: DeskSettings,
    points: Points,
    at: Duration,
    mono_start: u64,
    wall_start: i64,
    starts: u64,
    /// What the journal holds: the last state of every alarm and call.
    alarms: BTreeMap<AlarmId, Arc<Alarm>>,
    calls: BTreeMap<(AlarmId, Arc<str>), Call>,
    /// ... and of every incident, and which of them each alarm that ever was belongs to.
    incidents: BTreeMap<IncidentId, Arc<Incident>>,
    belongs: BTreeMap<AlarmId, IncidentId>,
    /// ... and what people said of the stations.
    duty: BTreeMap<Arc<str>, DutyChange>,
    settled_since: BTreeMap<IncidentId, Duration>,
    names: HashMap<AlarmId, usize>,
    incident_names: HashMap<IncidentId, usize>,
    latest: Option<AlarmId>,
    show_events: bool,
    show_incidents: bool,
    done: Vec<String>,
    orders: BTreeSet<OrderId>,
    /// CAP messages in force by alarm and channel, oldest first, as a receiver would keep them.
    caps: BTreeMap<(AlarmId, Arc<str>), Vec<CapRef>>,
    /// Since when the last word of a way out is in force, or its clock began anew.
    said_since: BTreeMap<(AlarmId, Arc<str>), Duration>,
    /// Since when somebody owes an acknowledgement or the last escalation, whichever is later.
    owed_since: BTreeMap<AlarmId, Duration>,
    shelved_until: BTreeMap<AlarmId, Duration>,
    called_since: BTreeMap<(AlarmId, Arc<str>), Duration>,
    /// Which question about a broadcast stands, and since when.
    asked_since: BTreeMap<AlarmId, (Wall, Duration)>,
    /// Since when a siren sounds for an alarm.
    heard_since: BTreeMap<(AlarmId, Arc<str>), Duration>,
    /// CAP identifiers that have left.
    identifiers: BTreeSet<String>,
    clock_was_set: bool,
}

impl Stage {
    /// How the broadcast of an alarm stands on a screen.
    fn seen(&self, alarm: AlarmId) -> Seen {
        let alarm = self.watch.book.alarm(alarm);
        let state = alarm.and_then(|alarm| alarm.broadcast.as_ref()).map(|broadcast| broadcast.state);
        let level = alarm.map_or(Level::Red, |alarm| alarm.level);
        Seen { state: state.unwrap_or(BroadcastState::Waiting), level }
    }

    fn new(spec: RuleSpec, desk: DeskSettings, show_events: bool, show_incidents: bool) -> Self {
        Self {
            watch: Watch::new(desk.clone(), 1),
            tuning: Tuning::of(&spec),
            spec: Arc::new(spec),
            desk,
            points: points("5"),
            at: Duration::ZERO,
            mono_start: 77_000_000_000_000,
            wall_start: 1_767_225_600_000_000,
            starts: 1,
            alarms: BTreeMap::new(),
            calls: BTreeMap::new(),
            incidents: BTreeMap::new(),
            belongs: BTreeMap::new(),
            duty: BTreeMap::new(),
            settled_since: BTreeMap::new(),
            names: HashMap::new(),
            incident_names: HashMap::new(),
            latest: None,
            show_events,
            show_incidents,
            done: Vec::new(),
            orders: BTreeSet::new(),
            caps: BTreeMap::new(),
            said_since: BTreeMap::new(),
            owed_since: BTreeMap::new(),
            shelved_until: BTreeMap::new(),
            called_since: BTreeMap::new(),
            asked_since: BTreeMap::new(),
            heard_since: BTreeMap::new(),
            identifiers: BTreeSet::new(),
            clock_was_set: false,
        }
    }

    fn now(&self) -> Now {
        Now {
            mono: Mono::from_nanos(self.mono_start + self.at.as_nanos() as u64),
            wall: Wall::from_micros(self.wall_start + self.at.as_micros() as i64),
        }
    }

    /// Jumps from deadline to deadline until `at`. What is due at `at` itself fires before what happens then.
    fn walk_to(&mut self, at: Duration) {
        while let Some(due) = self.watch.poll_timeout() {
            let due = Duration::from_nanos(due.nanos().saturating_sub(self.mono_start));
            if due > at {
                break;
            }
            self.at = self.at.max(due);
            self.watch.fire(self.now());
            self.take();
        }
        self.at = at;
        self.watch.fire(self.now());
        self.take();
    }

    fn judge(&mut self, subject: PointIx, verdict: Verdict) {
        let now = self.now();
        let value = match &verdict {
            Verdict::Normal => Some(1.0),
            Verdict::Abnormal(finding) => Some(f64::from(finding.level as u8 + 1) * 10.0),
            Verdict::Undetermined(_) => None,
        };
        let evidence = Evidence {
            point: Some(self.points.point(subject).id.clone()),
            value: value.map(Value::Number),
            received: now.wall,
            ..Evidence::default()
        };
        let judged = Judged { rule: RuleIx(0), subject, verdict, evidence };
        self.watch.handle_judged(now, &self.points, &self.spec, &self.tuning, &judged);
        self.take();
    }

    fn sample(&mut self, points: &[PointIx], quality: Quality, news: bool) {
        let now = self.now();
        let samples: Vec<Sample> = points
            .iter()
            .map(|point| Sample {
                point: *point,
                value: (!matches!(quality, Quality::Bad(_))).then_some(Value::Number(1.0)),
                quality,
                time: now.wall,
                source_time: None,
                received: now,
                sequence: None,
                news,
            })
            .collect();
        self.watch.handle_samples(now, &self.points, &samples);
        self.take();
    }

    fn command(&mut self, who: &str, what: Action) -> Result<(), Refusal> {
        let outcome = self.watch.handle_command(self.now(), &Command { who: who.to_owned(), what });
        self.take();
        outcome
    }

    /// A target has not taken what it was sent.
    fn undelivered(&mut self, alarm: AlarmId, channel: &str) {
        self.watch.handle_undelivered(self.now(), alarm, channel);
        self.take();
    }

    /// The power fails and comes back `down` later: another monotonic clock, other ids, the journal as it was.
    /// What was taken for real outside is an exercise after a restart, or the other way round.
    fn become_real(&mut self, real: bool) {
        for channel in self.desk.channels.iter_mut().filter(|channel| !channel.voice.status.is_empty()) {
            *channel = in_earnest(channel.clone(), real);
        }
        if !real {
            // At an exercise the building is quiet.
            self.desk.channels.retain(|channel| *channel.id != *"horn" || channel.drills);
        }
        self.restart(Duration::ZERO);
        let known = |siren: &Arc<str>| self.desk.channels.iter().any(|channel| channel.id == *siren);
        assert!(self.watch.sirens().all(|(siren, _)| known(siren)), "what the site has no more is not to sound");
    }

    /// While anmin is away somebody corrects where the first device is.
    fn become_elsewhere(&mut self, floor: &str) {
        self.points = points(floor);
        self.restart(Duration::ZERO);
    }

    fn restart(&mut self, down: Duration) {
        self.check_journal();
        self.at += down;
        self.mono_start = self.mono_start / 3 + 1_000_000_000 * self.starts;
        self.starts += 1;
        self.watch = Watch::new(self.desk.clone(), self.starts);
        let alarms: Vec<Arc<Alarm>> = self.alarms.values().filter(|alarm| alarm.is_open()).cloned().collect();
        let open = |call: &&Call| self.alarms.get(&call.alarm).is_some_and(|alarm| alarm.is_open());
        let calls: Vec<Call> = self.calls.values().filter(open).cloned().collect();
        let spec = Arc::clone(&self.spec);
        self.watch.restore(self.now(), &alarms, calls, self.open_incidents(), |id| (*id == spec.id).then_some(&spec));
        self.watch.restore_duty(self.now(), self.duty.values().cloned().collect());
        self.take();
        self.check_journal();
        // By the wall clock a deadline may lie anywhere now, but never further than its full period.
        for since in self.owed_since.values_mut().chain(self.called_since.values_mut()) {
            *since = self.at;
        }
        for since in self.settled_since.values_mut() {
            *since = self.at;
        }
        for since in self.heard_since.values_mut() {
            *since = self.at;
        }
        for (_, since) in self.asked_since.values_mut() {
            *since = self.at;
        }
        for until in self.shelved_until.values_mut() {
            *until = self.at + self.desk.max_shelve;
        }
        for since in self.said_since.values_mut() {
            *since = self.at;
        }
    }

    /// The last states in the journal are the book.
    fn check_journal(&self) {
        let mut book = self.watch.alarms();
        book.sort_by_key(|alarm| alarm.id);
        let journal: Vec<Arc<Alarm>> = self.alarms.values().filter(|alarm| alarm.is_open()).cloned().collect();
        assert_eq!(book, journal, "at {:?} the book differs from what its transitions say", self.at);
        let mut calls = self.watch.calls();
        calls.sort_by(|a, b| (a.alarm, &a.station).cmp(&(b.alarm, &b.station)));
        let open = |call: &&Call| self.alarms.get(&call.alarm).is_some_and(|alarm| alarm.is_open());
        let journal: Vec<Call> = self.calls.values().filter(open).cloned().collect();
        assert_eq!(calls, journal, "at {:?} the calls differ from what their changes say", self.at);
        let incidents: Vec<Arc<Incident>> = self.watch.incidents().cloned().collect();
        assert_eq!(incidents, self.open_incidents(), "at {:?} the incidents differ from their changes", self.at);
        self.check_incidents();
    }

    /// As the journal gives them back: how many alarms belong to one is counted there.
    fn open_incidents(&self) -> Vec<Arc<Incident>> {
        let open = self.incidents.values().filter(|incident| incident.is_open());
        open.map(|incident| {
            let alarms = self.belongs.values().filter(|id| **id == incident.id).count() as u32;
            Arc::new(Incident { alarms, ..Incident::clone(incident) })
        })
        .collect()
    }

    /// An alarm belongs to exactly one incident, which is open as long as the alarm; nothing is lost by merging and
    /// splitting.
    fn check_incidents(&self) {
        for alarm in self.alarms.values() {
            let Class::Hazard(_) = alarm.class else {
                assert_eq!(alarm.incident, None, "{} is about anmin itself", alarm.rule);
                continue;
            };
            let of = self.belongs[&alarm.id];
            if alarm.is_open() {
                assert_eq!(alarm.incident, Some(of), "{} names another incident", alarm.id);
                assert_eq!(self.incidents[&of].state(), IncidentState::Standing, "{} is open", alarm.id);
            }
        }
        for (id, incident) in &self.incidents {
            let situation = self.watch.situation(*id);
            assert_eq!(situation.is_some(), incident.is_open());
            if situation.is_none() {
                continue;
            }
            let open = |alarm: &&Arc<Alarm>| alarm.is_open() && alarm.incident == Some(*id);
            let mut alarms: Vec<AlarmId> = self.alarms.values().filter(open).map(|alarm| alarm.id).collect();
            let mut found: Vec<AlarmId> =
                situation.iter().flat_map(|situation| &situation.alarms).map(|alarm| alarm.id).collect();
            alarms.sort();
            found.sort();
            assert_eq!(found, alarms, "the open alarms of incident {id}");
            let of = |alarm: &&Arc<Alarm>| self.belongs.get(&alarm.id) == Some(id);
            let peak = self.alarms.values().filter(of).map(|alarm| alarm.peak).max();
            assert!(peak <= Some(incident.peak), "incident {id} was never so grave as one of its alarms");
            let stands = !alarms.is_empty() || incident.is_taken_on();
            assert_eq!(incident.state() == IncidentState::Standing, stands, "incident {id}");
        }
    }

    /// Writes down what was done, and checks what must hold for every effect.
    fn take(&mut self) {
        while let Some(effect) = self.watch.poll_effect() {
            let text = match effect {
                Effect::Transition(transition) => self.take_transition(&transition),
                Effect::Call(change) => {
                    let key = (change.call.alarm, Arc::clone(&change.call.station));
                    let before = self.calls.get(&key);
                    assert_eq!(
                        change.call.seq,
                        before.map_or(0, |call| call.seq) + 1,
                        "a call's changes are numbered without a gap"
                    );
                    assert!(
                        change.cause != CallCause::Called || before.is_none_or(|call| !call.is_on_it()),
                        "{} is called twice at once for {}",
                        key.1,
                        key.0
                    );
                    assert!(!change.message.zh.is_empty() && !change.message.en.is_empty());
                    match change.call.state {
                        CallState::Called => self.called_since.insert(key.clone(), self.at),
                        _ => self.called_since.remove(&key),
                    };
                    self.calls.insert(key, change.call.clone());
                    let what = match change.cause {
                        CallCause::Late => "late",
                        CallCause::NotControlled => "not_controlled",
                        _ => change.call.state.as_str(),
                    };
                    let by = change.call.stamps.last().map_or("", |stamp| &stamp.by);
                    let is_said = change.cause == CallCause::Said || (change.cause == CallCause::Called && by != ANMIN);
                    let by = if is_said { format!(" {by}") } else { String::new() };
                    format!("{}call {} {what}{by}", self.name(change.call.alarm), change.call.station)
                }
                Effect::Pending(_) | Effect::Drill(_) | Effect::Walk(_) => continue,
                Effect::Duty(change) => {
                    let before = self.duty.insert(Arc::clone(&change.station), DutyChange::clone(&change));
                    assert_eq!(
                        change.duty.seq,
                        before.map_or(0, |before| before.duty.seq) + 1,
                        "numbered without a gap"
                    );
                    format!("duty {} {}", change.station, change.duty.seq)
                }
                Effect::Incident(change) => {
                    let text = self.take_incident(&change);
                    if !self.show_incidents {
                        continue;
                    }
                    text
                }
                Effect::Order(order) => {
                    assert!(self.orders.insert(order.id.clone()), "order {} left twice", order.id);
                    let (alarm, text) = match &order.body {
                        OrderBody::Event(transition) => (&transition.alarm, "event".to_owned()),
                        OrderBody::Call(change) => (&change.alarm, format!("call {}", change.call.station)),
                        OrderBody::Siren(siren) => {
                            let (alarm, key) = (&siren.alarm, (siren.alarm.id, Arc::clone(&order.channel)));
                            if siren.on {
                                assert!(has_yes(&self.desk, &order.channel, alarm), "{} sounds too early", order.id);
                                self.heard_since.insert(key, self.at);
                            } else {
                                assert!(
                                    self.heard_since.remove(&key).is_some(),
                                    "{} ends what did not sound",
                                    order.id
                                );
                            }
                            (alarm, if siren.on { "on" } else { "off" }.to_owned())
                        }
                        OrderBody::Cap(cap) => {
                            assert!(!cap.identifier.contains([' ', ',', '<', '&']));
                            let word = match cap.message {
                                CapMessage::Alert => "alert",
                                CapMessage::Update => "update",
                                CapMessage::Cancel => "cancel",
                            };
                            let key = (cap.alarm.id, Arc::clone(&order.channel));
                            let chain = self.caps.entry(key.clone()).or_default();
                            let renewed = self.desk.channels.iter().find(|channel| channel.id == order.channel);
                            let renewed = renewed.and_then(|channel| channel.renew_after);
                            if let Some(after) = renewed.filter(|_| !cap.identifier.ends_with(OVER)) {
                                // Receivers drop what has expired; the last word is named whatever its age.
                                let over = |sent: &CapRef| cap.sent >= sent.sent.plus(2 * after);
                                let last = chain.pop();
                                chain.retain(|sent| !over(sent));
                                chain.extend(last);
                            }
                            assert_eq!(cap.references, *chain, "references are what is in force, oldest first");
                            let references = &cap.references;
                            assert!(self.identifiers.insert(cap.identifier.clone()), "an identifier is used twice");
                            assert!(may_leave(&self.desk, cap), "{} left too early", cap.identifier);
                            assert_eq!(references.is_empty(), cap.message == CapMessage::Alert);
                            let earnest =
                                |voice: &Option<Arc<Voice>>| voice.as_ref().map(|voice| Arc::clone(&voice.status));
                            let same = |sent: &CapRef| {
                                cap.alarm.drill.is_some() || earnest(&sent.voice) == earnest(&cap.voice)
                            };
                            assert!(cap.references.iter().all(same), "{} goes on in another earnest", cap.identifier);
                            match cap.message {
                                CapMessage::Cancel => {
                                    chain.clear();
                                    self.said_since.remove(&key);
                                }
                                _ => {
                                    chain.push(CapRef {
                                        channel: order.channel.to_string(),
                                        identifier: cap.identifier.clone(),
                                        sent: cap.sent,
                                        level: cap.alarm.level,
                                        moved: cap.alarm.moved,
                                        voice: cap.voice.clone(),
                                    });
                                    self.said_since.insert(key, self.at);
                                }
                            }
                            (&cap.alarm, format!("{word} {} refs={}", cap.alarm.level.as_str(), cap.references.len()))
                        }
                    };
                    let journaled = self.alarms.get(&alarm.id).expect("an order comes after its alarm's transition");
                    assert!(alarm.seq <= journaled.seq, "an order comes after its transition");
                    if !self.show_events && !matches!(order.body, OrderBody::Cap(_) | OrderBody::Siren(_)) {
                        continue;
                    }
                    format!("{}order {} {text}", self.name(alarm.id), order.channel)
                }
            };
            self.note(&text);
        }
    }

    fn take_incident(&mut self, change: &IncidentChange) -> String {
        let incident = &change.incident;
        let before = self.incidents.get(&incident.id);
        assert_eq!(incident.seq, before.map_or(0, |before| before.seq) + 1, "changes are numbered without a gap");
        if let Some(before) = before {
            assert!(before.is_open(), "a closed incident never changes");
            assert!(incident.peak >= before.peak && incident.notes.len() >= before.notes.len());
            let done = |incident: &Incident| incident.checklist.iter().filter(|item| !item.is_open()).count();
            assert!(incident.checklist.len() >= before.checklist.len() && done(incident) >= done(before));
            assert!(before.hazards.iter().all(|hazard| incident.hazards.contains(hazard)));
        }
        match incident.end.as_ref().map(|end| end.outcome) {
            Some(Outcome::Merged(into)) => {
                let moved = self.belongs.values_mut().filter(|of| **of == incident.id);
                moved.for_each(|of| *of = into);
            }
            Some(_) => {}
            None => assert_eq!(incident.settled_at.is_some(), incident.closes_at.is_some()),
        }
        match incident.state() {
            IncidentState::Settled if change.cause == IncidentCause::Settled => {
                self.settled_since.insert(incident.id, self.at);
            }
            IncidentState::Settled => {}
            _ => drop(self.settled_since.remove(&incident.id)),
        }
        let next = self.incident_names.len() + 1;
        let n = *self.incident_names.entry(incident.id).or_insert(next);
        self.incidents.insert(incident.id, Arc::clone(incident));
        let name = |id: &IncidentId| self.incident_names.get(id).map_or(0, |n| *n);
        let how = match &change.cause {
            IncidentCause::Noted { by } | IncidentCause::Called119 { by } => format!(" {by}"),
            IncidentCause::Ticked { step, by } | IncidentCause::Skipped { step, by } => format!(" {step} {by}"),
            IncidentCause::StepLate { step } => format!(" {step}"),
            IncidentCause::Staged { stage, by } => {
                let case = incident.case.as_ref().expect("only a case has states");
                let owner = case.owner.as_deref().expect("who says it has taken it on");
                format!(" {} {by} owner={owner}", stage.as_str())
            }
            IncidentCause::SplitFrom { from, by } | IncidentCause::Absorbed { from, by } => {
                format!(" {} {by}", name(from))
            }
            IncidentCause::SplitInto { into, by } => format!(" {} {by}", name(into)),
            IncidentCause::Closed => {
                let end = incident.end.as_ref().expect("a closed incident says how");
                format!(" {} {}", end.outcome.as_str(), end.by)
            }
            _ => String::new(),
        };
        let storm = if incident.storm { " storm" } else { "" };
        format!(
            "incident {n} {}{how} {}{storm} alarms={}",
            change.cause.as_str(),
            incident.peak.as_str(),
            incident.alarms
        )
    }

    fn take_transition(&mut self, transition: &Transition) -> String {
        let alarm = &transition.alarm;
        let before = self.alarms.get(&alarm.id);
        assert_eq!(alarm.seq, before.map_or(0, |alarm| alarm.seq) + 1, "transitions are numbered without a gap");
        assert_eq!(transition.from, before.map_or(AlarmState::Normal, |alarm| alarm.state()));
        assert_eq!(transition.to, alarm.state());
        assert!(alarm.peak >= alarm.level);
        if let Some(before) = before {
            assert!(before.is_open(), "a closed alarm never changes");
            let reset = matches!(transition.cause, Cause::Reset { .. });
            assert!(!before.latched || alarm.latched || reset, "only a reset releases a latch");
        }
        let before = before.cloned();
        if let Some(incident) = alarm.incident {
            let known = self.belongs.insert(alarm.id, incident);
            let moved = matches!(transition.cause, Cause::Raised | Cause::Regrouped { .. });
            assert!(known == Some(incident) || moved, "an alarm changes its incident in silence");
        }
        // A level that waits for people says nothing more of the old one, and by a clock that was set its age is unknown.
        let rose = before.as_ref().is_some_and(|before| (before.level, before.moved) != (alarm.level, alarm.moved));
        for (_, since) in self.said_since.iter_mut().filter(|((id, _), _)| *id == alarm.id) {
            if rose || self.clock_was_set {
                *since = self.at;
            }
        }
        let next = self.names.len() + 1;
        self.names.entry(alarm.id).or_insert(next);
        self.latest = Some(alarm.id);
        self.alarms.insert(alarm.id, Arc::clone(alarm));
        let owed = alarm.is_open() && alarm.acknowledged.is_none() && !alarm.is_silenced();
        if !owed {
            self.owed_since.remove(&alarm.id);
        } else if matches!(transition.cause, Cause::Escalated { .. })
            // A condition of anmin itself escalates from orange on, so a change of level may begin a period.
            || (alarm.class == Class::System && before.is_none_or(|before| before.level < Level::Orange))
        {
            self.owed_since.insert(alarm.id, self.at);
        } else {
            self.owed_since.entry(alarm.id).or_insert(self.at);
        }
        match (&alarm.shelved, &transition.cause) {
            (Some(shelf), Cause::Shelved { .. }) => {
                let until = self.at + shelf.until.since(transition.at.wall);
                self.shelved_until.insert(alarm.id, until);
            }
            (Some(_), _) => {}
            (None, _) => drop(self.shelved_until.remove(&alarm.id)),
        }
        match alarm.broadcast.as_ref().filter(|broadcast| broadcast.is_waiting()) {
            Some(broadcast) => {
                let since = (broadcast.asked_at, self.at);
                let known = self.asked_since.entry(alarm.id).or_insert(since);
                if known.0 != broadcast.asked_at {
                    *known = since;
                }
            }
            None => drop(self.asked_since.remove(&alarm.id)),
        }
        let cause = match &transition.cause {
            Cause::LevelChanged(from) => format!("{} to", from.as_str()),
            Cause::Acknowledged { by } => format!("acknowledged {by}"),
            Cause::Reset { by } => format!("reset {by}"),
            Cause::Shelved { by } => format!("shelved {by}"),
            Cause::Unshelved { by } => format!("unshelved {}", by.as_deref().unwrap_or("anmin")),
            Cause::TakenOutOfService { by, .. } => format!("taken_out_of_service {by}"),
            Cause::ReturnedToService { by } => format!("returned_to_service {by}"),
            Cause::Escalated { step, by: None, .. } => format!("escalated {step}"),
            Cause::Escalated { step, by: Some(by), .. } => format!("escalated {step} {by}"),
            Cause::Regrouped { by } => format!("regrouped {}", by.as_deref().unwrap_or("anmin")),
            Cause::Broadcast { step, by } => format!("{} {}", step.as_str(), by.as_deref().unwrap_or("anmin")),
            other => other.as_str().to_owned(),
        };
        let what = if alarm.rule == self.spec.id || transition.cause != Cause::Raised {
            String::new()
        } else {
            assert!(!alarm.message.zh.is_empty() && !alarm.message.en.is_empty());
            let named = alarm.subject.as_str().strip_prefix("steps:").and_then(|id| uuid::Uuid::parse_str(id).ok());
            match named.and_then(|id| self.incident_names.get(&IncidentId(id))) {
                Some(n) => format!(" {} steps:{n}", alarm.rule),
                None if alarm.subject.as_str().starts_with("broadcast:") => format!(" {}", alarm.rule),
                None => format!(" {} {}", alarm.rule, alarm.subject.as_str()),
            }
        };
        format!("{}{cause} {} {}{what}", self.name(alarm.id), alarm.level.as_str(), transition.to.as_str())
    }

    /// What must be true whenever all that is due has been done.
    fn check_promises(&self) {
        for (id, since) in &self.owed_since {
            let alarm = &self.alarms[id];
            let after = match alarm.class {
                Class::Hazard(_) => self.tuning.escalate_after,
                Class::System if alarm.level >= Level::Orange => self.desk.system_escalate_after,
                Class::System => None,
            };
            assert!(after.is_none_or(|after| self.at < *since + after), "{id} should have escalated by {:?}", self.at);
        }
        for (id, until) in &self.shelved_until {
            assert!(self.at < *until, "the shelf of {id} outlives its deadline at {:?}", self.at);
        }
        for (id, (_, since)) in &self.asked_since {
            assert!(self.at < *since + self.desk.broadcast.within, "a question about {id} stands too long");
        }
        for ((id, station), since) in &self.called_since {
            assert!(self.at < *since + Duration::from_secs(60), "{station} was given too long for {id}");
        }
        for (id, alarm) in self.alarms.iter().filter(|(_, alarm)| alarm.is_open()) {
            let hazard = matches!(alarm.class, Class::Hazard(_));
            if hazard && alarm.is_active() && !alarm.is_silenced() && alarm.level >= self.desk.call_level {
                let called = self.calls.keys().any(|(alarm, _)| alarm == id);
                assert!(called || self.desk.stations.is_empty(), "nobody was called for {id}");
            }
        }
        // Every open incident has an owner or a running clock.
        for incident in self.incidents.values().filter(|incident| incident.is_open()) {
            let of = |alarm: &&Arc<Alarm>| alarm.is_open() && alarm.incident == Some(incident.id);
            let seen_to = |alarm: &Arc<Alarm>| {
                let called = self.calls.iter().any(|((id, _), call)| *id == alarm.id && call.is_live());
                alarm.acknowledged.is_some() || alarm.is_silenced() || alarm.escalate_at.is_some() || called
            };
            let cared =
                incident.closes_at.is_some() || incident.is_taken_on() || self.alarms.values().filter(of).all(seen_to);
            assert!(cared || self.tuning.escalate_after.is_none(), "nobody and no clock for incident {}", incident.id);
            let at = self.now().wall;
            for item in incident.checklist.iter().filter(|item| item.is_open() && !item.late) {
                // By a clock that was set the wall may say anything; the step's own clock is checked by its timer.
                assert!(
                    item.due.is_none_or(|due| at < due) || self.clock_was_set,
                    "step {} is late in silence",
                    item.id
                );
            }
        }
        for (id, since) in &self.settled_since {
            let within = if self.incidents[id].peak >= self.desk.call_level { REASON_WITHIN } else { QUIET };
            assert!(self.at < *since + within, "incident {id} should have closed by {:?}", self.at);
        }
        for ((id, channel), chain) in &self.caps {
            let log = self.alarms[id].cap_log.iter().filter(|sent| *sent.channel == **channel);
            assert!(log.eq(chain), "the alarm's log is what receivers hold to be in force");
            let of = self.desk.channels.iter().find(|known| known.id == *channel);
            if let Some((after, last)) = of.and_then(|of| of.renew_after).zip(chain.last())
                && self.alarms[id].level <= last.level
                && self.alarms[id].moved == last.moved
            {
                let since = self.said_since[&(*id, Arc::clone(channel))];
                assert!(self.at < since + after, "what {channel} says of {id} should have been said again");
            }
            assert!(self.alarms[id].is_open() || chain.is_empty(), "a closed alarm is cancelled everywhere");
        }
        self.check_sirens();
    }

    /// No siren sounds without a cause or longer than its time, and each is known to.
    fn check_sirens(&self) {
        for ((id, siren), since) in &self.heard_since {
            let (alarm, channel) = (&self.alarms[id], self.desk.channels.iter().find(|one| one.id == *siren));
            let channel = channel.expect("a siren of the desk");
            assert!(self.at < *since + channel.sounds_for, "{siren} sounds too long for {id}");
            let silenced = alarm.is_silenced() || (!channel.outward && alarm.acknowledged.is_some());
            assert!(alarm.is_open() && !silenced, "{siren} sounds without a cause for {id}");
        }
        let journaled: BTreeSet<(AlarmId, Arc<str>)> = self
            .alarms
            .values()
            .flat_map(|alarm| alarm.sirens.iter().filter(|of| !of.ended).map(|of| (alarm.id, Arc::clone(&of.siren))))
            .collect();
        assert!(self.heard_since.keys().eq(&journaled), "what sounds is what the journal holds");
        let sounding: BTreeSet<Arc<str>> = self.watch.sirens().map(|(siren, _)| Arc::clone(siren)).collect();
        assert_eq!(sounding, journaled.into_iter().map(|(_, siren)| siren).collect(), "and what the desk says");
    }

    /// A book restored from the journal, with nothing handled yet, is the book that there was.
    fn check_restored(&self) {
        let mut other = Watch::new(self.desk.clone(), 99);
        let alarms: Vec<Arc<Alarm>> = self.alarms.values().filter(|alarm| alarm.is_open()).cloned().collect();
        let open = |call: &&Call| self.alarms.get(&call.alarm).is_some_and(|alarm| alarm.is_open());
        let calls: Vec<Call> = self.calls.values().filter(open).cloned().collect();
        other.restore(self.now(), &alarms, calls, self.open_incidents(), |id| {
            (*id == self.spec.id).then_some(&self.spec)
        });
        other.restore_duty(self.now(), self.duty.values().cloned().collect());
        // Where shifts run by a clock that was set, a restart looks at once and the day that goes on a little later.
        if self.desk.stations.iter().any(|station| !station.crew.is_empty()) {
            let [mut one, mut two] = [other.calls(), self.watch.calls()];
            for calls in [&mut one, &mut two] {
                calls.sort_by(|a, b| (a.alarm, &a.station).cmp(&(b.alarm, &b.station)));
            }
            assert_eq!(one, two);
            assert!(other.incidents().eq(self.watch.incidents()));
            return;
        }
        assert_eq!(other.alarms(), self.watch.alarms());
        assert!(other.incidents().eq(self.watch.incidents()));
        assert_eq!(other.poll_effect(), None, "a restart by itself changes nothing");
        let (mut one, mut two) = (other.counts(), self.watch.counts());
        (one.pending, two.pending) = (0, 0);
        assert_eq!(one, two);
    }

    fn name(&self, id: AlarmId) -> String {
        match self.names.get(&id) {
            Some(1) | None => String::new(),
            Some(n) => format!("#{n} "),
        }
    }

    fn note(&mut self, text: &str) {
        self.done.push(format!("{:?} -> {text}", self.at));
    }
}

/// Three devices; the first may be on another floor than at first.
fn points(floor: &str) -> Points {
    let mut points = Points::default();
    let profile: Arc<str> = "test".into();
    for (device, kind, alarm_point, floor) in
        [("d1", "gas.lel", true, floor), ("d2", "gas.lel", true, "9"), ("d3", "env.temperature", false, "6")]
    {
        let specs: Vec<Arc<PointSpec>> = (1..=8)
            .map(|n| {
                let kind = Kind::named(kind).expect("a kind of the table in sensors");
                Arc::new(PointSpec { alarm_point, ..PointSpec::plain(&format!("p{n}"), kind) })
            })
            .collect();
        let place = Place { area: "east".to_owned(), building: "3".to_owned(), ..Place::default() };
        let place = Place { floor: floor.to_owned(), ..place };
        points
            .add(DeviceId::new(device), None, &profile, &Arc::new(place), &specs)
            .expect("the devices have different names");
    }
    points
}

/// Whether as many people have said yes to a message as it needs: a real one outward, orange or red, that says more than what
/// is in force. Written down anew here, from what receivers see.
fn may_leave(desk: &DeskSettings, cap: &CapOrder) -> bool {
    let outward = cap.voice.as_ref().is_some_and(|voice| *voice.status == *REAL);
    let is_other = |last: &CapRef| last.level < cap.alarm.level || last.moved != cap.alarm.moved;
    let more = cap.references.last().is_none_or(is_other);
    if !outward || cap.message == CapMessage::Cancel || cap.alarm.level < Level::Orange || !more {
        return true;
    }
    let broadcast = cap.alarm.broadcast.as_ref();
    let people: BTreeSet<&str> =
        broadcast.into_iter().flat_map(|broadcast| &broadcast.yes).map(|yes| &*yes.account).collect();
    people.len() >= desk.broadcast.approval.people()
        && (desk.broadcast.approval == Approval::None || broadcast.is_some_and(|found| found.level >= cap.alarm.level))
}

/// Whether people have let a siren sound that the public hears.
fn has_yes(desk: &DeskSettings, siren: &str, alarm: &Alarm) -> bool {
    let outward = desk.channels.iter().any(|channel| *channel.id == *siren && channel.outward);
    let yes = alarm.broadcast.as_ref().filter(|found| found.level >= alarm.level).map_or(0, |found| found.yes.len());
    !outward || alarm.level < Level::Orange || yes >= desk.broadcast.approval.people()
}

/// CAP `status` of what is real.
const REAL: &str = "Actual";

/// A way out that people outside take for real, or that plays for now.
fn in_earnest(channel: Channel, real: bool) -> Channel {
    let status = if real { REAL } else { "Exercise" }.into();
    Channel { outward: real, voice: Arc::new(Voice { status, ..Voice::default() }), ..channel }
}

/// How the community is called that decides on broadcasts.
fn chunhui(approval: Approval) -> Policy {
    Policy { approval, name: Text { zh: "春晖".to_owned(), en: "Chunhui".to_owned() }, ..Policy::default() }
}

/// A rule without delays, latch or deadlines.
fn plain_spec() -> RuleSpec {
    RuleSpec {
        id: RuleId::new("gas/test"),
        title: Text { zh: "测试".to_owned(), en: "test".to_owned() },
        hazard: None,
        opens: None,
        inputs: vec![Input {
            role: "x".to_owned(),
            kind: Kind::named("gas.lel").expect("a kind of the table in sensors"),
            scope: Scope::Device,
            optional: false,
            points: Vec::new(),
        }],
        windows: Vec::new(),
        limits: BTreeMap::new(),
        on_delay: Duration::ZERO,
        off_delay: Duration::ZERO,
        deadband: 0.0,
        latch: false,
        on_bad: OnBad::Fault,
        escalate_after: None,
        realarm_after: None,
        message: Text { zh: "{place}{level}{value}".to_owned(), en: "{place} {level} {value}".to_owned() },
        advice: Text::default(),
    }
}

fn station(id: &str) -> Station {
    Station { id: id.into(), name: Text::both(id.to_uppercase()), phone: "000".to_owned(), ..Station::default() }
}

/// `a:08:00-20:00` gives station a a crew of one, on duty daily between these times; `a:always` one that always is; with
/// `+hose` it also has a hose that is to be checked once a day.
fn roster(desk: &mut DeskSettings, word: &str) {
    let (id, rest) = word.split_once(':').expect("station:times");
    let (times, hose) = rest.strip_suffix("+hose").map_or((rest, false), |times| (times, true));
    let station = desk.stations.iter_mut().find(|station| *station.id == *id).expect("a station of the desk");
    station.crew =
        vec![Member { id: "wang".into(), name: "Wang".to_owned(), role: Role::Member, phone: String::new() }];
    if let Some((from, to)) = times.split_once('-') {
        let minutes = |time: &str| {
            let (hours, minutes) = time.split_once(':').expect("a time of day");
            hours.parse::<u16>().expect("hours") * 60 + minutes.parse::<u16>().expect("minutes")
        };
        let (from, to) = (minutes(from), minutes(to));
        station.shifts = vec![Shift { name: String::new(), days: [true; 7], from, to, crew: vec!["wang".into()] }];
    }
    if hose {
        let check_every = Duration::from_secs(86_400);
        station.equipment = vec![Equipment { id: "hose".into(), name: Text::both("hose"), check_every }];
    }
}

fn level(word: &str) -> Level {
    Level::named(word).unwrap_or_else(|| panic!("{word:?} is not a level"))
}

fn wait(word: &str) -> Duration {
    parse_duration(word).unwrap_or_else(|| panic!("{word:?} is not a duration"))
}

fn quality(word: &str) -> Quality {
    let known = Quality::ALL.into_iter().find(|each| each.reason() == word || each.as_str() == word);
    known.unwrap_or_else(|| panic!("{word:?} is not a quality"))
}

/// Plays one table and gives back what was done.
fn play(table: &str) -> (Vec<String>, Vec<String>) {
    let mut spec = plain_spec();
    let mut desk = DeskSettings { broadcast: chunhui(Approval::TwoPeople), ..DeskSettings::default() };
    let mut show_events = false;
    let mut show_incidents = false;
    let mut expected = Vec::new();
    let mut stage: Option<Stage> = None;
    let mut end = Duration::ZERO;
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let key = |name: &str| words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        match words[0] {
            "spec" => {
                for word in &words[1..] {
                    let (key, value) = word.split_once('=').unwrap_or_else(|| panic!("{word:?} is not key=value"));
                    match key {
                        "on_delay" => spec.on_delay = wait(value),
                        "off_delay" => spec.off_delay = wait(value),
                        "latch" => spec.latch = value == "yes",
                        "escalate" => spec.escalate_after = Some(wait(value)),
                        "opens" => spec.opens = Some(CaseKind::named(value).expect("a kind of case")),
                        "realarm" => spec.realarm_after = Some(wait(value)),
                        "on_bad" => spec.on_bad = OnBad::Raise(level(value)),
                        "kind" => spec.inputs[0].kind = Kind::named(value).expect("a kind"),
                        _ => panic!("{key:?} is not a key of spec"),
                    }
                }
                continue;
            }
            "desk" => {
                for word in &words[1..] {
                    let (key, value) = word.split_once('=').unwrap_or_else(|| panic!("{word:?} is not key=value"));
                    let channel = |form, system| Channel { system, ..Channel::new(key, form, level(value)) };
                    match key {
                        "stations" => {
                            desk.stations = value.split(',').map(station).collect();
                            let ids = desk.stations.iter().map(|station| Arc::clone(&station.id)).collect();
                            desk.areas.insert("east".to_owned(), ids);
                        }
                        "crew" => roster(&mut desk, value),
                        "plans" => desk.plans = Arc::new(Plans::shipped()),
                        "call_level" => desk.call_level = level(value),
                        "storm" => desk.storm_alarms = value.parse().expect("a number"),
                        "incidents" => show_incidents = value == "yes",
                        "cap" => desk.channels.push(channel(ChannelForm::Cap, false)),
                        // Taken for real; the spare ones get what they do not take.
                        "town" | "county" => desk.channels.push(Channel {
                            then: vec!["spare".into(), "radio".into()],
                            ..in_earnest(channel(ChannelForm::Cap, false), true)
                        }),
                        "spare" | "radio" => desk
                            .channels
                            .push(Channel { spare: true, ..in_earnest(channel(ChannelForm::Cap, false), true) }),
                        // Others come for it.
                        "feed" => desk.channels.push(in_earnest(channel(ChannelForm::Feed, false), true)),
                        "approval" => {
                            let known = Approval::CHOICES.iter().find(|(name, _)| *name == value);
                            desk.broadcast.approval = known.expect("a way to approve").1;
                        }
                        "events" | "boss" => {
                            desk.channels.push(channel(ChannelForm::Events, false));
                            show_events = true;
                        }
                        // A group, and the one that gets what it does not take.
                        "group" | "reserve" => {
                            let (spare, then) = (key == "reserve", vec!["reserve".into()]);
                            let then = if spare { Vec::new() } else { then };
                            desk.channels.push(Channel { spare, then, ..channel(ChannelForm::Events, false) });
                            show_events = true;
                        }
                        // In the building; in the yard; and the one that sounds when the one in the building does not.
                        "horn" | "loud" | "second" => desk.channels.push(Channel {
                            outward: key == "loud",
                            spare: key == "second",
                            then: if key == "horn" { vec!["second".into()] } else { Vec::new() },
                            sounds_for: Duration::from_secs(180),
                            drills: false,
                            ..channel(ChannelForm::Siren, false)
                        }),
                        // Of the way out before it.
                        "renew" => desk.channels.last_mut().expect("a way out").renew_after = Some(wait(value)),
                        "from_step" => {
                            desk.channels.last_mut().expect("a way out").from_escalation =
                                value.parse().expect("a number");
                        }
                        _ => panic!("{key:?} is not a key of desk"),
                    }
                }
                continue;
            }
            _ => {}
        }
        let at = wait(words[0]);
        end = end.max(at);
        if words[1] == "->" {
            expected.push(format!("{at:?} -> {}", words[2..].join(" ")));
            continue;
        }
        let stage = stage.get_or_insert_with(|| Stage::new(spec.clone(), desk.clone(), show_events, show_incidents));
        assert!(at >= stage.at, "{line:?} goes back in time");
        stage.walk_to(at);
        act(stage, words[1], &words[2..], &key);
    }
    let mut stage = stage.expect("something happens in every table");
    stage.walk_to(end.max(stage.at) + Duration::from_secs(1));
    stage.check_journal();
    (stage.done, expected)
}

fn act<'w>(stage: &mut Stage, verb: &str, words: &[&'w str], key: &dyn Fn(&str) -> Option<&'w str>) {
    let find = |stage: &Stage, id: &str| stage.points.find(id).unwrap_or_else(|| panic!("there is no point {id}"));
    let subject = find(stage, key("point").unwrap_or("d1/p1"));
    let alarm = match key("alarm") {
        Some(number) => {
            let number: usize = number.parse().expect("a number");
            stage.names.iter().find(|(_, n)| **n == number).map(|(id, _)| *id)
        }
        None => stage.names.iter().find(|(_, n)| **n == 1).map(|(id, _)| *id),
    };
    let alarm = alarm.unwrap_or(AlarmId(uuid::Uuid::nil()));
    let who = key("by").unwrap_or("li");
    let abnormal = |level| Verdict::Abnormal(Finding { level, limit: None, note: None });
    let why = || key("why").unwrap_or_default().to_owned();
    let action = match verb {
        "abnormal" => return stage.judge(subject, abnormal(level(words[0]))),
        "normal" => return stage.judge(subject, Verdict::Normal),
        "unknown" => {
            let point = PointId::new("d1/p1");
            let why = match words[0] {
                "bad" => Why::BadInput { point, fault: Fault::OutOfRange },
                "nodata" => Why::NoData { point },
                "script" => Why::ScriptFailed("line 3".to_owned()),
                "unclear" => Why::Unclear("no".to_owned()),
                other => panic!("{other:?} is no reason"),
            };
            return stage.judge(subject, Verdict::Undetermined(why));
        }
        "sample" => {
            let points: Vec<PointIx> = match words[0].split_once('/') {
                Some((_, "all" | "others")) => {
                    let (device, which) = words[0].split_once('/').expect("matched above");
                    let device = stage.points.find_device(device).expect("a device of the stage");
                    let skip = usize::from(which == "others");
                    stage.points.device(device).points().skip(skip).collect()
                }
                _ => vec![find(stage, words[0])],
            };
            return stage.sample(&points, quality(words[1]), key("news") != Some("no"));
        }
        "part" => {
            let trouble = (words[1] != "well").then(|| {
                let text = Text { zh: "坏".to_owned(), en: "broken".to_owned() };
                (Finding { level: level(words[1]), limit: None, note: None }, text)
            });
            stage.watch.handle_part(stage.now(), words[0], trouble);
            return stage.take();
        }
        "restart" => return stage.restart(key("down").map_or(Duration::ZERO, wait)),
        "become" => return stage.become_real(words[0] == "real"),
        "elsewhere" => return stage.become_elsewhere(words[0]),
        "wall" => {
            let years: i64 = words[0].strip_suffix('y').and_then(|n| n.parse().ok()).expect("whole years");
            stage.wall_start += years * 31_557_600_000_000;
            return;
        }
        // A square wave: half a period abnormal, half a period normal.
        "chatter" => {
            let (half, end) = (wait(key("every").expect("a period")) / 2, stage.at + wait(key("for").expect("a time")));
            while stage.at < end {
                stage.judge(subject, abnormal(level(words[0])));
                stage.walk_to(stage.at + half);
                stage.judge(subject, Verdict::Normal);
                stage.walk_to(stage.at + half);
            }
            return;
        }
        // The account is the word; the name that the journal keeps is by=.
        "yes" => {
            let account = words.first().filter(|word| !word.contains('=')).map(|word| (*word).to_owned());
            let typed = key("typed").unwrap_or("chunhui").to_owned();
            // What stands, or what `seen=` says.
            let mut seen = stage.seen(alarm);
            if let Some(word) = key("seen") {
                seen.level = level(word);
            }
            Action::Broadcast { alarm, what: BroadcastAction::Approve { account, typed, seen } }
        }
        "no" => Action::Broadcast { alarm, what: BroadcastAction::Refuse { why: why() } },
        "take_back" => Action::Broadcast { alarm, what: BroadcastAction::TakeBack { why: why() } },
        "undelivered" => return stage.undelivered(alarm, words[0]),
        "acknowledge" => Action::Acknowledge { alarm },
        "reset" => Action::Reset { alarm },
        "shelve" => Action::Shelve { alarm, until: stage.now().wall.plus(wait(words[0])), why: why() },
        "unshelve" => Action::Unshelve { alarm },
        "take_out_of_service" => Action::TakeOutOfService { alarm, why: why() },
        "return_to_service" => Action::ReturnToService { alarm },
        "incident" => {
            let named = |number: &str| {
                let number: usize = number.parse().expect("the number of an incident");
                let found = stage.incident_names.iter().find(|(_, n)| **n == number);
                found.map_or(IncidentId(uuid::Uuid::nil()), |(id, _)| *id)
            };
            let what = match words[1] {
                "acknowledge" => {
                    IncidentAction::Acknowledge { newest: (words.get(2) == Some(&"up_to")).then_some(alarm) }
                }
                "note" => IncidentAction::Note { text: words[2..].join(" "), photos: Vec::new() },
                "merge_into" => IncidentAction::MergeInto { into: named(words[2]) },
                "tick" => IncidentAction::Tick { step: words[2].to_owned() },
                "skip" => IncidentAction::Skip { step: words[2].to_owned(), why: why() },
                "called_119" => IncidentAction::Called119 { text: why() },
                "stage" => IncidentAction::Stage {
                    stage: CaseStage::named(words[2]).expect("a state of a case"),
                    owner: key("owner").map(str::to_owned),
                    text: String::new(),
                },
                "split" => IncidentAction::Split { alarms: vec![alarm] },
                "close" => {
                    let outcome = match words[2] {
                        word if Outcome::named(word).is_some() => Outcome::named(word).expect("asked before"),
                        cause => Outcome::FalseAlarm(FalseCause::named(cause).expect("a cause of false alarms")),
                    };
                    IncidentAction::Close { outcome, why: why() }
                }
                other => panic!("{other:?} is nothing to do with an incident"),
            };
            Action::Incident { incident: named(words[0]), what }
        }
        "open_case" => {
            let kind = CaseKind::named(words[0]).expect("a kind of case");
            let (place, owner) = (Place::default(), key("owner").map(str::to_owned));
            let what = NewCase { kind, title: words[0].to_owned(), place, text: String::new(), owner };
            let n = 0xca5e_0000 + stage.incidents.len() as u128;
            Action::OpenCase { incident: IncidentId(uuid::Uuid::from_u128(n)), what: Box::new(what) }
        }
        "crew" => {
            let list = |name| key(name).map_or_else(Vec::new, |ids| ids.split(',').map(str::to_owned).collect());
            let what = match words[1] {
                "hand_over" => StationAction::HandOver { crew: list("to"), note: String::new() },
                "check" => StationAction::Check {
                    items: list("items"),
                    fit: key("fit") != Some("no"),
                    note: key("why").unwrap_or_default().to_owned(),
                },
                "off_duty" => StationAction::OffDuty { why: why() },
                "on_duty" => StationAction::OnDuty,
                other => panic!("{other:?} is nothing to say of a station"),
            };
            Action::Station { station: words[0].to_owned(), what }
        }
        "escalate" => {
            let step = words[0].parse().expect("the number of a step");
            Action::Escalate { alarm, step, why: key("why").unwrap_or("slow").to_owned() }
        }
        "call" => {
            let (station, why) = (words[0].to_owned(), key("why").unwrap_or("more hands").to_owned());
            Action::CallStation { alarm, station, insist: key("insist") == Some("yes"), why }
        }
        "station" => {
            let step = match words[1] {
                "accept" => CallStep::Accept,
                "on_the_way" => CallStep::OnTheWay,
                "on_scene" => CallStep::OnScene,
                "under_control" => CallStep::UnderControl,
                "stand_down" => CallStep::StandDown,
                "decline" => CallStep::Decline { why: why() },
                other => panic!("{other:?} is not a step"),
            };
            Action::Call { alarm, station: words[0].to_owned(), step }
        }
        other => panic!("{other:?} is not a verb"),
    };
    if let Err(refusal) = stage.command(who, action) {
        assert!(!refusal.text().zh.is_empty() && !refusal.text().en.is_empty());
        stage.note(&format!("refused {}", refusal.as_str()));
    }
}

#[test]
fn every_timeline_comes_out_as_its_table_says() {
    let mut count = 0;
    let mut wrong = Vec::new();
    for file in TABLES.files() {
        let name = file.path().display();
        let text = file.contents_utf8().expect("tables are UTF-8");
        for table in text.split("\n== ").skip(1) {
            let (title, body) = table.split_once('\n').expect("a title stands on a line of its own");
            count += 1;
            let (done, expected) = play(body);
            if done != expected {
                wrong.push(format!(
                    "{name}: {title}\n  expected\n    {}\n  but was\n    {}",
                    expected.join("\n    "),
                    done.join("\n    ")
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {count} timelines went wrong\n{}", wrong.len(), wrong.join("\n"));
    assert!(count >= 25, "only {count} timelines were found");
}

/// SplitMix64: a whole day from one number.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}

/// Goal: the promises of [`Stage::check_promises`] hold whatever happens in whatever order. Method: each seed makes a
/// rule, a desk and some hundred events, checks after each, and at the end puts everything in order and asks that
/// nothing at all is left: no alarm, call, pending condition or timer.
fn random_day(seed: u64) -> Vec<String> {
    let chance = &mut Chance(seed);
    let seconds = Duration::from_secs;
    let mut spec = plain_spec();
    spec.on_delay = seconds(chance.of(&[0, 0, 3, 30]));
    spec.off_delay = seconds(chance.of(&[0, 10, 60]));
    spec.latch = chance.below(2) == 0;
    spec.escalate_after = chance.of(&[None, Some(seconds(60)), Some(seconds(600))]);
    spec.opens = chance.of(&[None, None, Some(CaseKind::Mediation)]);
    spec.realarm_after = chance.of(&[None, Some(seconds(900))]);
    spec.on_bad = chance.of(&[OnBad::Fault, OnBad::Fault, OnBad::Raise(Level::Orange)]);
    let channel = |id: &str, form, min_level, system| Channel { system, ..Channel::new(id, form, min_level) };
    let outward = |id: &str, min_level| in_earnest(channel(id, ChannelForm::Cap, min_level, false), true);
    let renew_after = chance.of(&[None, Some(seconds(120)), Some(seconds(1_800))]);
    let mut desk = DeskSettings {
        channels: vec![
            channel("mq", ChannelForm::Events, Level::Blue, true),
            Channel { then: vec!["hook-2".into()], ..channel("hook", ChannelForm::Events, Level::Orange, false) },
            Channel { spare: true, ..channel("hook-2", ChannelForm::Events, Level::Yellow, false) },
            Channel { from_escalation: 2, ..channel("boss", ChannelForm::Events, Level::Yellow, false) },
            Channel { renew_after, ..channel("cap", ChannelForm::Cap, chance.of(&Level::ALL), false) },
            channel("cap-2", ChannelForm::Cap, Level::Red, true),
            Channel {
                then: vec!["spare".into(), "radio".into()],
                renew_after,
                ..outward("town", chance.of(&[Level::Yellow, Level::Orange]))
            },
            outward("county", Level::Red),
            Channel { from_escalation: 3, ..outward("province", Level::Yellow) },
            Channel { spare: true, ..outward("spare", Level::Yellow) },
            Channel { spare: true, ..outward("radio", Level::Red) },
            in_earnest(channel("feed", ChannelForm::Feed, chance.of(&Level::ALL), false), chance.below(2) == 0),
            Channel {
                sounds_for: seconds(180),
                then: vec!["second".into()],
                ..channel("horn", ChannelForm::Siren, Level::Orange, false)
            },
            Channel {
                sounds_for: seconds(600),
                spare: true,
                ..channel("second", ChannelForm::Siren, Level::Blue, true)
            },
            Channel {
                outward: true,
                sounds_for: seconds(60),
                ..channel("loud", ChannelForm::Siren, Level::Yellow, true)
            },
        ],
        broadcast: chunhui(chance.of(&[Approval::TwoPeople, Approval::TwoPeople, Approval::OnePerson, Approval::None])),
        call_level: chance.of(&[Level::Orange, Level::Yellow]),
        ..DeskSettings::default()
    };
    desk.stations = ["a", "b", "c"][..chance.below(4) as usize].iter().map(|id| station(id)).collect();
    desk.storm_alarms = chance.of(&[1, 3, 10, 1000]);
    // Half of the days have crews and plans.
    let crewed: Vec<String> = match chance.below(2) {
        0 => Vec::new(),
        _ => desk.stations.iter().take(2).map(|station| station.id.to_string()).collect(),
    };
    if !crewed.is_empty() {
        desk.plans = Arc::new(Plans::shipped());
        let times = chance.of(&["always", "08:00-20:00", "22:00-06:00+hose"]);
        crewed.iter().for_each(|id| roster(&mut desk, &format!("{id}:{times}")));
    }
    let mut stage = Stage::new(spec, desk, true, true);
    let subjects: Vec<PointIx> = ["d1/p1", "d1/p2", "d2/p1"].iter().filter_map(|id| stage.points.find(id)).collect();
    let people = ["li", "wang"];
    for _ in 0..300 {
        let subject = chance.of(&subjects);
        let known: Vec<AlarmId> = stage.alarms.keys().copied().collect();
        let recent = &known[known.len().saturating_sub(6)..];
        let alarm = if recent.is_empty() { AlarmId(uuid::Uuid::nil()) } else { chance.of(recent) };
        let who = chance.of(&people);
        let incidents: Vec<IncidentId> = stage.incidents.keys().copied().collect();
        let recent = &incidents[incidents.len().saturating_sub(4)..];
        let [incident, other] =
            [(); 2].map(|()| if recent.is_empty() { IncidentId(uuid::Uuid::nil()) } else { chance.of(recent) });
        match chance.below(46) {
            43 | 44 => {
                let station = chance.of(&["a", "b", "c", "nobody"]).to_owned();
                let (insist, why) = (chance.below(2) == 0, chance.of(&["x", "x", "x", ""]).to_owned());
                drop(stage.command(who, Action::CallStation { alarm, station, insist, why }));
            }
            45 => {
                let step = stage.alarms.get(&alarm).map_or(1, |alarm| alarm.escalation) + chance.of(&[1, 1, 1, 0, 2]);
                drop(stage.command(who, Action::Escalate { alarm, step, why: "x".to_owned() }));
            }
            42 => {
                let (kind, n) = (chance.of(&CaseKind::ALL), 0xca5e_0000 + u128::from(chance.below(8)));
                let text = chance.of(&["", "x"]).to_owned();
                let what = NewCase { kind, title: "x".to_owned(), place: Place::default(), text, owner: None };
                let incident = IncidentId(uuid::Uuid::from_u128(n));
                // Under an id that is over already nobody opens another.
                if stage.incidents.get(&incident).is_none_or(|incident| incident.is_open()) {
                    drop(stage.command(who, Action::OpenCase { incident, what: Box::new(what) }));
                }
            }
            32..36 => {
                let account = chance.of(&[None, Some("li"), Some("wang"), Some("chen")]).map(str::to_owned);
                let typed = chance.of(&["Chunhui", "春晖", "Chunhui", "no"]).to_owned();
                let what = BroadcastAction::Approve { account, typed, seen: stage.seen(alarm) };
                drop(stage.command(who, Action::Broadcast { alarm, what }));
            }
            36 => drop(
                stage.command(who, Action::Broadcast { alarm, what: BroadcastAction::Refuse { why: "x".to_owned() } }),
            ),
            37 => drop(
                stage
                    .command(who, Action::Broadcast { alarm, what: BroadcastAction::TakeBack { why: "x".to_owned() } }),
            ),
            38.. => stage.undelivered(
                alarm,
                chance.of(&["town", "county", "spare", "cap", "hook", "hook-2", "horn", "second", "nobody"]),
            ),
            30.. => {
                let what = match chance.below(5) {
                    0 => StationAction::HandOver { crew: vec!["wang".to_owned()], note: String::new() },
                    1 => StationAction::HandOver { crew: Vec::new(), note: String::new() },
                    2 => StationAction::Check { items: Vec::new(), fit: chance.below(2) == 0, note: "x".to_owned() },
                    3 => StationAction::OffDuty { why: "x".to_owned() },
                    _ => StationAction::OnDuty,
                };
                drop(stage.command(who, Action::Station { station: chance.of(&["a", "b", "c"]).to_owned(), what }));
            }
            24..30 => {
                let step = || {
                    let items = stage.incidents.get(&incident).map_or(&[][..], |incident| &incident.checklist);
                    items.iter().find(|item| item.is_open()).map_or_else(String::new, |item| item.id.clone())
                };
                let what = match chance.below(11) {
                    9 | 10 => {
                        let kind = stage.incidents.get(&incident).and_then(|incident| incident.case_kind());
                        let stages = chance.of(&[kind.unwrap_or(CaseKind::Report), CaseKind::Maintenance]).stages();
                        let owner = chance.of(&[None, Some("wang")]).map(str::to_owned);
                        IncidentAction::Stage { stage: chance.of(stages), owner, text: "x".to_owned() }
                    }
                    6 => IncidentAction::Tick { step: step() },
                    7 => IncidentAction::Skip { step: step(), why: "x".to_owned() },
                    8 => IncidentAction::Called119 { text: "x".to_owned() },
                    0 => IncidentAction::Acknowledge { newest: chance.of(&[None, Some(alarm)]) },
                    1 => IncidentAction::Note { text: "x".to_owned(), photos: Vec::new() },
                    2 => IncidentAction::MergeInto { into: other },
                    3 | 4 => IncidentAction::Split { alarms: vec![alarm] },
                    _ => {
                        let cause = chance.of(&FalseCause::ALL);
                        let outcome = chance.of(&[
                            Outcome::Real,
                            Outcome::Test,
                            Outcome::Maintenance,
                            Outcome::FalseAlarm(cause),
                            Outcome::Repaired,
                            Outcome::Resolved,
                        ]);
                        IncidentAction::Close { outcome, why: "x".to_owned() }
                    }
                };
                drop(stage.command(who, Action::Incident { incident, what }));
            }
            0..6 => {
                let level = chance.of(&Level::ALL);
                stage.judge(subject, Verdict::Abnormal(Finding { level, limit: None, note: None }));
            }
            6..10 => stage.judge(subject, Verdict::Normal),
            10 => {
                let point = PointId::new("d1/p1");
                let why = match chance.below(4) {
                    0 => Why::BadInput { point, fault: Fault::Comms },
                    1 => Why::NoData { point },
                    2 => Why::ScriptFailed("x".to_owned()),
                    _ => Why::Unclear("x".to_owned()),
                };
                stage.judge(subject, Verdict::Undetermined(why));
            }
            11 => {
                let quality = chance.of(&Quality::ALL);
                let points = if chance.below(2) == 0 { subjects.clone() } else { vec![subject] };
                stage.sample(&points, quality, chance.below(4) > 0);
            }
            12 => {
                let level = chance.of(&[None, Some(Level::Blue), Some(Level::Orange)]);
                let text = Text { zh: "坏".to_owned(), en: "broken".to_owned() };
                let trouble = level.map(|level| (Finding { level, limit: None, note: None }, text));
                stage.watch.handle_part(stage.now(), "mqtt:site", trouble);
                stage.take();
            }
            13..15 => drop(stage.command(who, Action::Acknowledge { alarm })),
            15 => drop(stage.command(who, Action::Reset { alarm })),
            16 => {
                let until = stage.now().wall.plus(seconds(chance.of(&[60, 1800, 7200, 20_000])));
                drop(stage.command(who, Action::Shelve { alarm, until, why: "x".to_owned() }));
            }
            17 => drop(stage.command(who, Action::Unshelve { alarm })),
            18 => drop(stage.command(who, Action::TakeOutOfService { alarm, why: "x".to_owned() })),
            19 => drop(stage.command(who, Action::ReturnToService { alarm })),
            20..22 => {
                let decline = CallStep::Decline { why: "x".to_owned() };
                let steps = [
                    CallStep::Accept,
                    CallStep::OnTheWay,
                    CallStep::OnScene,
                    CallStep::UnderControl,
                    CallStep::StandDown,
                    decline,
                ];
                let step = steps[chance.below(6) as usize].clone();
                let station = chance.of(&["a", "b", "c"]).to_owned();
                drop(stage.command(who, Action::Call { alarm, station, step }));
            }
            22 => {
                stage.wall_start += chance.of(&[-1, 1]) * chance.of(&[1_000_000, 3_600_000_000, 300_000_000_000_000]);
                stage.clock_was_set = true;
            }
            _ => {
                stage.check_restored();
                match chance.below(4) {
                    0 => stage.become_real(chance.below(2) == 0),
                    1 => stage.become_elsewhere(chance.of(&["5", "6"])),
                    _ => stage.restart(seconds(chance.of(&[0, 5, 600, 40_000]))),
                }
            }
        }
        let step = seconds(chance.of(&[0, 0, 0, 1, 1, 7, 45, 300, 2000]));
        stage.walk_to(stage.at + step);
        stage.check_journal();
        stage.check_promises();
    }

    // Everything gets well, people put everything in order.
    let all: Vec<PointIx> = stage.points.iter().map(|(ix, _)| ix).collect();
    stage.sample(&all, Quality::Good, true);
    stage.watch.handle_part(
        stage.now(),
        "mqtt:site",
        Some((
            Finding { level: Level::Blue, limit: None, note: None },
            Text { zh: "坏".to_owned(), en: "broken".to_owned() },
        )),
    );
    stage.watch.handle_part(stage.now(), "mqtt:site", None);
    for subject in &subjects {
        stage.judge(*subject, Verdict::Normal);
    }
    stage.walk_to(stage.at + seconds(8 * 3600));
    for incident in stage.open_incidents() {
        for step in incident.checklist.iter().filter(|item| item.is_open()).map(|item| item.id.clone()) {
            stage
                .command("li", Action::Incident { incident: incident.id, what: IncidentAction::Tick { step } })
                .unwrap();
        }
    }
    for station in &crewed {
        for what in [
            StationAction::OnDuty,
            StationAction::Check { items: Vec::new(), fit: true, note: String::new() },
            StationAction::HandOver { crew: vec!["wang".to_owned()], note: String::new() },
        ] {
            // It may be on duty and have nothing to check.
            drop(stage.command("li", Action::Station { station: station.clone(), what }));
        }
    }
    // Hazards first: that no station answers is over when the hazard is.
    let (hazards, system): (Vec<_>, Vec<_>) =
        stage.watch.alarms().into_iter().partition(|alarm| matches!(alarm.class, Class::Hazard(_)));
    for id in hazards.into_iter().chain(system).map(|alarm| alarm.id) {
        let alarm = Arc::clone(&stage.alarms[&id]);
        if alarm.is_active() && alarm.rule.as_str() == "system/readiness" {
            continue;
        }
        assert!(!alarm.is_active(), "{} {} is still active", alarm.rule, alarm.subject.as_str());
        if alarm.out_of_service.is_some() {
            stage.command("li", Action::ReturnToService { alarm: id }).expect("it is out of service");
        }
        if stage.alarms[&id].is_open() {
            stage.command("li", Action::Acknowledge { alarm: id }).expect("it is open");
        }
        if stage.alarms[&id].is_open() {
            stage.command("li", Action::Reset { alarm: id }).expect("it is normal and acknowledged");
        }
    }
    stage.check_journal();
    stage.check_promises();
    stage.walk_to(stage.at + REASON_WITHIN);
    stage.check_journal();
    for incident in stage.open_incidents() {
        assert!(incident.is_taken_on(), "only what a person has taken on waits for a person");
        let outcome = incident.case_kind().expect("only a case is taken on").outcomes()[0];
        let what = IncidentAction::Close { outcome, why: String::new() };
        stage.command("li", Action::Incident { incident: incident.id, what }).expect("its alarms are over");
    }
    stage.check_journal();
    assert!(stage.incidents.values().all(|incident| !incident.is_open()), "every incident has closed");
    // Crews come and go whatever happens.
    if crewed.is_empty() {
        assert_eq!(stage.watch.counts(), Counts::default(), "nothing is left");
        assert_eq!(stage.watch.poll_timeout(), None, "no timer is left");
    }
    stage.done
}

#[test]
fn promises_hold_on_random_days() {
    let mut done = 0;
    for seed in 0..120 {
        let day = std::panic::catch_unwind(|| random_day(seed));
        done += day.unwrap_or_else(|_| panic!("seed {seed} breaks a promise; what, stands above")).len();
    }
    assert!(done > 30_000, "random days are too quiet: only {done} effects");
}

#[test]
fn the_same_day_twice_is_the_same_to_the_letter() {
    for seed in 1000..1010 {
        assert_eq!(random_day(seed), random_day(seed), "seed {seed}");
    }
}
