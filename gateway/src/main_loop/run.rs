//! The loop itself: drain, decode, validate, judge, commit, let out.
//!
//! One turn takes everything that is there. What a turn decides is in the journal before the world hears of it; only
//! when the journal cannot be written do orders go out from memory, and a system alarm says so: a full disk must not
//! silence a fire.
//!
//! For the same reason messages are acknowledged while the journal is away. Those that a turn decided nothing about lose
//! nothing by it. The others wait for the journal, but at most [`HELD_AT_MOST`]: a broker sends no more than its window
//! without an acknowledgement, and an alarm that cannot come in is worse than one that a crash now would forget.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use anmin_rules::alarm::{Alarm, CapRef, Pending, Refusal, Subject, Transition};
use anmin_rules::change::RulesChange;
use anmin_rules::drill::DrillChange;
use anmin_rules::duty::DutyChange;
use anmin_rules::engine::{DUTY_CHECK, Effect, Engine, HELP, WARNING};
use anmin_rules::incident::IncidentChange;
use anmin_rules::order::{Call, CallChange, CapMessage, CapOrder, Order, OrderBody, OrderId};
use anmin_rules::rule::{Evidence, Finding, Level, Text};
use anmin_rules::set::Refill;
use anmin_rules::walk::WalkChange;
use anmin_sensors::by_name;
use anmin_sensors::point::{PointIx, Points};
use anmin_sensors::reading::{Doubt, Quality, Reading, Sample};
use anmin_sensors::router::{self, NodeNews, NodeTrouble, Router};
use anmin_sensors::time::{Mono, Now};
use anmin_sensors::validator::{Judged, Validator};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

use super::clock_trust::ClockTrust;
use super::deeds;
use super::deliveries::{Deliveries, Heard};
use super::drill_calendar::DrillCalendar;
use super::feed::{Changed, ChangedPoint, Feed, FeedEvent};
use super::hearing::{Act, Hearing};
use super::help::HelpWatch;
use super::losses::{self, Losses};
use super::pace::{LATELY, Pace};
use super::plan_history::PlanHistory;
use super::query::{
    AlarmList, AlarmView, Database, DevicePage, DeviceView, HeldView, IncidentList, IncidentView, JournalState, Next,
    PointChoices, PointPage, PointRow, Quarantined, Query, ReadingCounts, RuleRow, StationView, Status, Stranger,
    Testable, TestablePoint, Trouble, WayOut,
};
use super::seen;
use super::stock::StockWatch;
use super::test_calendar::TestCalendar;
use super::{Change, Input, NewSite, PartState, ReloadAsked, Reloaded, Resend, Resent, Routes, SessionStart};
use crate::clock::Clock;
use crate::delivery::Outcome;
use crate::delivery::courier::CourierHandle;
use crate::delivery::siren::Sounding;
use crate::delivery_report::Report;
use crate::intake::{Ack, Message};
use crate::pulse::{Pulse, Stage};
use crate::store::audit::{Deed, Through, Way};
use crate::store::people::{Kept, Places};
use crate::store::reach::Addressed;
use crate::store::readings::{Backlog, NewPoint, Readings, ReadingsBatch};
use crate::store::suspects::{Key, Standing, Suspects};
use crate::store::unusable::Unusable;
use crate::store::{Fact, OrderOutcome, Restored, StateStore, StoreError, Turn};
use crate::telemetry::{Figures, Repeats};

/// How many inputs one turn takes at most: bounds the time until its effects are let out.
const MOST_INPUTS: usize = 256;

/// Buffers keep room for so many readings from turn to turn; what a burst needed beyond it is given back.
const KEPT_ROOM: usize = 4_096;

/// How long an acknowledgement waits for a journal that is away.
const HELD_AT_MOST: Duration = Duration::from_secs(10);

/// How long a receipt, or what the audit says of a command that changed nothing, may wait for a commit that is made
/// anyway. A receipt that a crash forgets costs a repeat, which its receiver knows by its id; a commit of its own costs
/// the alarm behind it the time of a sync.
const RECEIPTS_WAIT: Duration = Duration::from_millis(250);

/// Receipts and rows of the audit that wait at most.
const MOST_RECEIPTS: usize = 256;

/// Rows of the audit that wait in memory for a journal that is away: alarms wait there, too, and need the room more.
const MOST_DEEDS_WITHOUT_JOURNAL: usize = 10_000;

/// How often a journal that is away is tried again although nothing new is to be written.
const TRY_JOURNAL_EVERY: Duration = Duration::from_secs(1);

/// What the loop is made of, as `app` composes it.
pub struct Parts {
    pub clock: Clock,
    pub points: Points,
    pub router: Router,
    pub validator: Validator,
    pub engine: Engine,
    pub journal: StateStore,
    pub readings: Readings,
    pub couriers: BTreeMap<Arc<str>, CourierHandle>,
    pub feed: Feed,
    /// What takes the self-test's beats through; `None` where nobody sends any.
    pub pulse: Option<Pulse>,
    pub figures: Figures,
    /// Orders of the last run that went to the couriers again.
    pub orders_waiting: usize,
    pub losses: Losses,
    pub deliveries: Deliveries,
    pub clock_trust: ClockTrust,
    pub suspects: Suspects,
    pub drill_calendar: DrillCalendar,
    pub test_calendar: TestCalendar,
    pub stock: StockWatch,
    pub help: HelpWatch,
    pub hearing: Hearing,
    pub plan_history: PlanHistory,
    /// By which anmin works from now on, until it is written down.
    pub configuration: Option<Arc<str>>,
    /// Who looks for the past of windows, and answers with [`Input::Past`]; `None` where nobody does. Holds no more than the
    /// site has rules and points.
    pub refills: Option<std::sync::mpsc::Sender<Vec<Refill>>>,
    /// What the journal holds of those who may ask, for whoever lets them in.
    pub people: watch::Sender<Kept>,
    /// By broker: publishes there, with QoS 0 and not retained. Must not block.
    pub says: BTreeMap<Arc<str>, Say>,
    /// Which sirens are to sound, and until when, for those who keep them so.
    pub sirens: watch::Sender<Option<Sounding>>,
}

/// Takes a topic and a payload.
pub type Say = Box<dyn Fn(String, Vec<u8>) + Send>;

impl Parts {
    /// Takes up what the last run left in the journal: open alarms and their calls, delays that ran, what was judged, and
    /// the orders without a receipt, which go to the couriers again under the same ids. Once, before the loop is made.
    pub fn take_up(&mut self, now: Now, restored: Restored) {
        let Restored {
            alarms, calls, incidents, drills, walks, pending, duty, orders, sessions, judged, alive, ..
        } = restored;
        self.clock_trust = ClockTrust::new(alive);
        self.losses.recall(sessions);
        self.deliveries.restore(judged);
        match self.journal.judged() {
            Ok(judged) => judged.into_iter().for_each(|Evidence { point, source_time, sequence, .. }| {
                if let Some(point) = point {
                    self.validator.recall(point, Judged { source_time, sequence });
                }
            }),
            Err(problem) => {
                warn!("what was judged before is not known, so a repeat may raise an alarm again: {problem}")
            }
        }
        if alarms.len() + orders.len() > 0 {
            info!("taken up from the journal: {} open alarms, {} orders to send again", alarms.len(), orders.len());
        }
        self.hearing.restore(now.mono, alarms.iter(), &self.engine.desk().channels);
        let calls = calls.iter().map(|change| change.call.clone()).collect();
        self.engine.restore_drills(now, alive, drills);
        self.engine.restore_walks(now, alive, walks);
        self.engine.restore(now, alarms, calls, incidents);
        self.engine.restore_pending(now, pending, |_| true);
        self.engine.restore_duty(now, duty.iter().map(|change| DutyChange::clone(change)).collect());
        self.orders_waiting = orders.len();
        for order in orders {
            match self.couriers.get(&order.channel) {
                Some(courier) => courier.send(order),
                None => {
                    warn!(order = %order.id, "way out {} is no longer configured; the order stays in the journal", order.channel)
                }
            }
        }
    }

    /// Binds rules to points that have come, and has somebody look what history knows of them.
    fn bind(&mut self) {
        self.engine.bind(&self.points);
        let wanted = self.engine.poll_refills(&self.points);
        if let Some(refills) = self.refills.as_ref().filter(|_| !wanted.is_empty()) {
            // Nobody looks any more: windows fill by themselves.
            let _ = refills.send(wanted);
        }
    }

    /// Losses of the last run whose alarms are still in trouble end like any other.
    fn watch_losses(&mut self, now: Now) {
        for alarm in self.engine.alarms() {
            if let Subject::Part(part) = &alarm.subject
                && losses::is_loss(part)
            {
                self.losses.restore(now, part);
            }
        }
    }
}

/// How a Sparkplug node stands, for the officer.
fn part_of_node(news: &NodeNews) -> PartState {
    let NodeNews { source, node, trouble: found } = news;
    let message = found.map(|found| match found {
        NodeTrouble::Unborn => Text {
            zh: format!("Sparkplug 节点 {node} 的数据无法解读：多次请求后仍未发送上线报文（BIRTH）；其后设备状态未知"),
            en: format!(
                "the data of Sparkplug node {node} cannot be read: it does not say its births although it is asked; how the \
                 devices behind it are is not known"
            ),
        },
        NodeTrouble::Broken => Text {
            zh: format!("Sparkplug 节点 {node} 的消息序号反复中断：可能有两个节点同名，或途中丢失消息"),
            en: format!(
                "the sequence of Sparkplug node {node} breaks again and again: two nodes bear this name, or messages are lost \
                 on the way"
            ),
        },
    });
    let part = format!("sparkplug:{source}/{node}").into();
    PartState { part, trouble: message.map(|message| trouble(Level::Yellow, message)) }
}

/// The owner of all domain state. Nobody else touches it.
pub struct MainLoop {
    parts: Parts,
    started: Now,
    /// Points that the engine and the validator know of.
    known_points: usize,
    /// Points that the readings' writer knows of.
    stored_points: usize,
    troubles: BTreeMap<Arc<str>, super::PartTrouble>,
    journal_trouble: Option<StoreError>,
    journal_due: Mono,
    /// Rows of the audit since the journal went away.
    deeds_without_journal: usize,
    /// When the oldest receipt or row of the audit that waits goes into the journal.
    receipts_due: Option<Mono>,
    /// Acknowledgements of messages whose decisions are not in the journal yet.
    held: VecDeque<(Mono, Vec<Ack>)>,
    reserve_held: bool,
    changed: Changed,
    /// How fast each database takes what waits for it.
    paces: BTreeMap<Arc<str>, Pace>,
    readings_due: Mono,
    figures_due: Mono,
    repeats: Repeats,
    scratch: Scratch,
}

/// What a person is told once their command is durable.
type Reply = (oneshot::Sender<Result<(), Refusal>>, Result<(), Refusal>);

/// How much of a turn has been handed to the journal.
#[derive(Clone, Copy, Debug, Default)]
struct Handed {
    transitions: usize,
    calls: usize,
    incidents: usize,
    pending: usize,
    orders: usize,
}

/// Buffers that are used again every turn.
#[derive(Default)]
struct Scratch {
    /// What came in, until the turn has come to its end.
    seen: Vec<(Arc<str>, Vec<Message>)>,
    polled: Vec<Reading>,
    /// Answered as of the end of the turn.
    queries: Vec<Query>,
    readings: Vec<Reading>,
    samples: Vec<Sample>,
    batch: Vec<Sample>,
    acks: Vec<Ack>,
    /// Of messages that came again and were not known.
    acks_again: Vec<Ack>,
    replies: Vec<Reply>,
    /// Who waits for what became of new rules.
    reloaded: Vec<(oneshot::Sender<Reloaded>, Reloaded)>,
    outcomes: Vec<OrderOutcome>,
    transitions: Vec<Arc<Transition>>,
    calls: Vec<Arc<CallChange>>,
    incidents: Vec<Arc<IncidentChange>>,
    drills: Vec<Arc<DrillChange>>,
    walks: Vec<Arc<WalkChange>>,
    pending: Vec<Arc<Pending>>,
    orders: Vec<Order>,
    /// The beat of this turn, and what is to be carried of it.
    beat: Option<(u64, Vec<Order>)>,
    facts: Vec<Fact>,
    /// What people did, until the next commit.
    deeds: Vec<Fact>,
    /// Judged in the last run: to be stored.
    judged: Vec<Reading>,
    unusable: Vec<Unusable>,
}

impl MainLoop {
    pub fn new(mut parts: Parts) -> Self {
        let started = parts.clock.now();
        parts.bind();
        parts.validator.watch(&parts.points, started);
        parts.watch_losses(started);
        let journal_trouble = parts.journal.trouble().cloned();
        let mut main_loop = Self {
            started,
            known_points: parts.points.len(),
            stored_points: 0,
            troubles: BTreeMap::new(),
            journal_trouble,
            journal_due: started.mono,
            deeds_without_journal: 0,
            receipts_due: None,
            held: VecDeque::new(),
            reserve_held: true,
            changed: Changed::default(),
            paces: BTreeMap::new(),
            readings_due: started.mono,
            figures_due: started.mono,
            repeats: Repeats::default(),
            scratch: Scratch::default(),
            parts,
        };
        if let Some(problem) = &main_loop.journal_trouble {
            let trouble = Some(trouble(Level::Orange, problem.text()));
            main_loop.handle_part(started, PartState { part: Arc::from("store:state"), trouble });
        }
        if main_loop.parts.suspects.any_given_up() {
            main_loop.say_given_up(started);
        }
        main_loop
    }

    /// Runs until [`Input::Stop`] or until every sender is gone.
    pub async fn run(mut self, mut inputs: mpsc::Receiver<Input>) {
        let mut batch = Vec::with_capacity(MOST_INPUTS);
        loop {
            let now = self.parts.clock.now().mono;
            // At least once a second, so that the figures are fresh.
            let due = self.poll_timeout().map_or(self.figures_due, |due| due.min(self.figures_due));
            let wait = due.since(now);
            tokio::select! {
                biased;
                taken = inputs.recv_many(&mut batch, MOST_INPUTS) => if taken == 0 { batch.push(Input::Stop) },
                () = tokio::time::sleep(wait) => {}
            }
            if !self.turn(&mut batch) {
                break;
            }
        }
        info!("the main loop has stopped; what it decided is in the journal");
    }

    /// When the next turn is due although nothing came in.
    pub fn poll_timeout(&self) -> Option<Mono> {
        let feed = (!self.changed.is_empty()).then_some(self.readings_due);
        let Parts { engine, validator, losses, hearing, .. } = &self.parts;
        let parts = [engine.poll_timeout(), validator.poll_timeout(), losses.poll_timeout(), hearing.poll_timeout()];
        parts.into_iter().chain([feed, self.receipts_due]).flatten().min()
    }

    /// One turn over everything that came in. False when the loop shall end. Where the last run ended in a panic, what it
    /// held has a turn of its own each.
    pub fn turn(&mut self, inputs: &mut Vec<Input>) -> bool {
        if self.parts.suspects.is_empty() {
            return self.watched_turn(inputs);
        }
        let mut go_on = true;
        for mut some in self.apart(inputs) {
            go_on &= self.watched_turn(&mut some);
        }
        go_on
    }

    /// One turn. A panic in it goes on when it is written down what the turn held.
    fn watched_turn(&mut self, inputs: &mut Vec<Input>) -> bool {
        let result = catch_unwind(AssertUnwindSafe(|| self.turn_over(inputs)));
        if result.is_err() || !self.parts.suspects.is_empty() {
            let held = self.held_keys();
            match result {
                Ok(_) => self.parts.suspects.handle_passed(held.into_iter()),
                Err(_) => self.parts.suspects.handle_panic(self.parts.clock.now().wall, &held),
            }
        }
        self.scratch.seen.clear();
        self.scratch.polled.clear();
        result.unwrap_or_else(|cause| resume_unwind(cause))
    }

    fn held_keys(&self) -> Vec<Key> {
        let Scratch { seen, polled, .. } = &self.scratch;
        let messages = seen.iter().flat_map(|(source, messages)| messages.iter().map(|message| key(source, message)));
        messages.chain(polled.iter().map(|reading| self.key_of(reading))).collect()
    }

    fn key_of(&self, reading: &Reading) -> Key {
        Key::of_reading(&self.parts.points.point(reading.point).id, reading)
    }

    /// In the same order, each suspect by itself, and without what was given up.
    fn apart(&mut self, inputs: &mut Vec<Input>) -> Vec<Vec<Input>> {
        let now = self.parts.clock.now();
        let mut turns = vec![Vec::new()];
        let mut put = |standing: Standing, input: Input| match standing {
            Standing::Suspected => turns.extend([vec![input], Vec::new()]),
            _ => turns.last_mut().expect("there is always one").push(input),
        };
        for input in inputs.drain(..) {
            match input {
                Input::Messages { source, messages } => {
                    for message in messages {
                        match self.parts.suspects.standing(key(&source, &message)) {
                            Standing::GivenUp => self.set_aside(now, &source, message),
                            other => {
                                put(other, Input::Messages { source: Arc::clone(&source), messages: vec![message] })
                            }
                        }
                    }
                }
                Input::Readings(readings) => {
                    for reading in readings {
                        match self.parts.suspects.standing(self.key_of(&reading)) {
                            Standing::GivenUp => self.say_given_up(now),
                            other => put(other, Input::Readings(vec![reading])),
                        }
                    }
                }
                other => put(Standing::Clear, other),
            }
        }
        // One turn at least: what is due does not wait.
        turns.retain(|turn| !turn.is_empty());
        if turns.is_empty() {
            turns.push(Vec::new());
        }
        turns
    }

    fn set_aside(&mut self, now: Now, source: &Arc<str>, message: Message) {
        error!(source = &**source, topic = &*message.topic, "a message that ended anmin twice is set aside");
        self.scratch.unusable.push(Unusable {
            source: Arc::clone(source),
            topic: message.topic,
            why: "ended_anmin",
            payload: Some(message.payload),
            received: message.received.wall,
        });
        self.scratch.acks.extend(message.ack);
        self.say_given_up(now);
    }

    fn say_given_up(&mut self, now: Now) {
        let message = Text {
            zh: "有一条消息或数值两次使本系统中断运行，已搁置不再处理；其余照常。请将隔离记录与日志交给开发者".to_owned(),
            en: "a message or a value has ended anmin twice and is set aside; everything else goes on. Give the quarantine and the log to the developers".to_owned(),
        };
        let trouble = Some(trouble(Level::Orange, message));
        self.handle_part(now, PartState { part: Arc::from("suspects"), trouble });
    }

    fn turn_over(&mut self, inputs: &mut Vec<Input>) -> bool {
        let now = self.parts.clock.now();
        let state = self.parts.clock_trust.handle_now(now);
        self.parts.engine.set_clock_doubtful(self.parts.clock_trust.is_doubtful());
        if let Some(state) = state {
            self.handle_part(now, state);
        }
        let mut go_on = true;
        for input in inputs.drain(..) {
            match input {
                Input::Messages { source, messages } => self.decode(now, source, messages),
                Input::Readings(mut readings) => {
                    self.scratch.polled.extend_from_slice(&readings);
                    self.scratch.readings.append(&mut readings);
                }
                Input::Stop => {
                    go_on = false;
                    self.receipts_due = None;
                }
                other => {
                    // What a person or a part says is judged after the readings that came before it.
                    self.judge(now);
                    self.handle(now, other);
                }
            }
        }
        self.judge(now);
        self.parts.validator.handle_timeout(now, &self.parts.points, &mut self.scratch.samples);
        self.evaluate(now);
        self.parts.engine.handle_timeout(now, &self.parts.points);
        self.act_on_hearing(now);
        self.watch_reserve(now);
        // Since when something is in force is of use only by a clock that can be trusted.
        if !self.parts.clock_trust.is_doubtful() {
            self.compare_plans(now, "anmin", &Way::of(Through::Anmin));
            let configuration = self.parts.configuration.take();
            self.scratch.facts.extend(configuration.map(|sha256| Fact::Configuration(now.wall, sha256)));
        }
        while let Some(part) = self.parts.losses.poll_part(now, &self.parts.points) {
            self.handle_part(now, part);
        }
        // What is due by the calendar waits for a clock that can be trusted.
        if !self.parts.clock_trust.is_doubtful() {
            while let Some(part) = self.parts.drill_calendar.poll_part(now) {
                self.handle_part(now, part);
            }
            while let Some(part) = self.parts.test_calendar.poll_part(now, &self.parts.points) {
                self.handle_part(now, part);
            }
            while let Some(part) = self.parts.stock.poll_part(now) {
                self.handle_part(now, part);
            }
            self.forget_help(now);
        }
        while let Some(part) = self.parts.help.poll_part() {
            self.handle_part(now, part);
        }
        self.let_out(now);
        // Nobody reads what is not in the journal yet.
        for query in std::mem::take(&mut self.scratch.queries) {
            self.answer(now, query);
        }
        self.scratch.readings.shrink_to(KEPT_ROOM);
        self.scratch.samples.shrink_to(KEPT_ROOM);
        self.show_readings(now);
        if now.mono >= self.figures_due {
            self.figures_due = now.mono.plus(Duration::from_secs(1));
            self.watch_databases(now);
            self.parts.figures.set(self.status(now));
        }
        go_on
    }

    fn decode(&mut self, now: Now, source: Arc<str>, messages: Vec<Message>) {
        let Parts { router, points, losses, deliveries, says, .. } = &mut self.parts;
        losses.handle_heard(now, &source);
        self.scratch.seen.push((source, messages));
        let (source, messages) = self.scratch.seen.last_mut().expect("put there above");
        let source = &*source;
        for n in 0..messages.len() {
            if n.is_multiple_of(by_name::GROUP) {
                router.look_ahead(source, messages[n..].iter().map(|message| &*message.topic));
            }
            let message = &mut messages[n];
            let heard = deliveries.handle(now.mono, message);
            if heard == Heard::Repeat {
                // Its readings went to the readings' writer before this token does; what was decided about it may still
                // wait for the journal.
                let acks = self.held.back_mut().map_or(&mut self.scratch.acks, |(_, acks)| acks);
                acks.extend(message.ack.take());
                continue;
            }
            if message.cut {
                losses.handle_unusable(now, source, &message.topic);
                self.scratch.unusable.push(Unusable {
                    source: Arc::clone(source),
                    topic: Arc::clone(&message.topic),
                    why: "too_large",
                    payload: Some(message.payload.clone()),
                    received: message.received.wall,
                });
                self.scratch.acks.extend(message.ack.take());
                continue;
            }
            let into = match heard {
                Heard::InLastRun => &mut self.scratch.judged,
                _ => &mut self.scratch.readings,
            };
            let first = into.len();
            let decoded = router.decode(
                points,
                source,
                &message.topic,
                &message.payload,
                message.retained,
                message.received,
                into,
            );
            if let Err(rejected) = decoded {
                if let Some(more) = self.repeats.say(rejected.why.as_str(), now.mono) {
                    warn!(source = &**source, more, "{rejected}");
                }
                if let Some(ack) = &mut message.ack {
                    ack.refuse(rejected.why.as_str(), || rejected.to_string());
                }
                let worth_keeping = rejected.why.is_fault_of_device();
                if worth_keeping {
                    losses.handle_unusable(now, source, &message.topic);
                }
                self.scratch.unusable.push(Unusable {
                    source: Arc::clone(source),
                    topic: rejected.topic,
                    why: rejected.why.as_str(),
                    payload: worth_keeping.then(|| message.payload.clone()),
                    received: message.received.wall,
                });
            }
            let again = message.delivery.is_some_and(|delivery| delivery.again);
            if again {
                into[first..].iter_mut().for_each(|reading| reading.redelivered = true);
            }
            let acks = if again { &mut self.scratch.acks_again } else { &mut self.scratch.acks };
            acks.extend(message.ack.take());
        }
        for ask in router.take_asks() {
            if let Some(say) = says.get(&ask.source) {
                say(ask.topic, ask.payload);
            }
        }
        let news = router.take_news();
        if points.len() > self.known_points {
            self.known_points = points.len();
            self.parts.bind();
            self.parts.validator.watch(&self.parts.points, now);
        }
        for news in news {
            self.handle_part(now, part_of_node(&news));
        }
    }

    /// Readings to samples to verdicts.
    fn judge(&mut self, now: Now) {
        let Scratch { judged, batch, .. } = &mut self.scratch;
        self.parts.validator.handle_judged(&self.parts.points, judged, batch);
        judged.clear();
        if self.scratch.readings.is_empty() {
            return;
        }
        self.parts.validator.handle_readings(
            now,
            &self.parts.points,
            &self.scratch.readings,
            &mut self.scratch.samples,
        );
        self.scratch.readings.clear();
        self.evaluate(now);
        for gap in self.parts.validator.take_gaps() {
            let part = self.parts.losses.handle_gap(now, &self.parts.points, &gap);
            self.handle_part(now, part);
        }
        for device in self.parts.validator.take_doubles() {
            let part = self.parts.losses.handle_double(now, &self.parts.points, device);
            self.handle_part(now, part);
        }
    }

    fn evaluate(&mut self, now: Now) {
        let samples = &mut self.scratch.samples;
        if samples.is_empty() {
            return;
        }
        self.parts.engine.handle_samples(now, &self.parts.points, samples);
        if self.parts.feed.readings_wanted() {
            self.changed.extend(samples.iter().map(|sample| sample.point));
        }
        self.scratch.batch.append(samples);
    }

    fn handle(&mut self, now: Now, input: Input) {
        match input {
            Input::Session(start) => self.handle_session(now, &start),
            Input::Part(state) => self.handle_part(now, state),
            Input::Command { command, from, seen, reply } => {
                let engine = &mut self.parts.engine;
                let result = seen::of_command(engine, &command.what, seen)
                    .and_then(|()| engine.handle_command(now, command.clone()));
                self.note(now, deeds::of_command(now.wall, &command, from, &result));
                // The person hears of it when it is durable.
                self.scratch.replies.push((reply, result));
            }
            Input::Drill { command, from, seen, reply } => {
                let engine = &mut self.parts.engine;
                let stands = engine.drills().find(|drill| drill.id == command.drill).map(|drill| drill.seq);
                let result =
                    seen::check(seen, stands).and_then(|()| engine.handle_drill(now, &self.parts.points, &command));
                self.note(now, deeds::of_drill(now.wall, &command, from, &result));
                self.scratch.replies.push((reply, result));
            }
            Input::Walk { command, from, seen, reply } => {
                let engine = &mut self.parts.engine;
                let stands = engine.walks().find(|walk| walk.id == command.walk).map(|walk| walk.seq);
                let result =
                    seen::check(seen, stands).and_then(|()| engine.handle_walk(now, &self.parts.points, &command));
                self.note(now, deeds::of_walk(now.wall, &command, from, &result));
                self.scratch.replies.push((reply, result));
            }
            // What stands there is read from the file: over what waits for it nobody could see what they change.
            Input::Register { mut deed, reply, .. } if self.journal_trouble.is_some() => {
                let why = Text {
                    zh: "数据库暂时无法写入，登记表未更改；恢复后请重试".to_owned(),
                    en: "the database cannot be written, nothing was changed; try again when it can".to_owned(),
                };
                deed.refused = Some(why.clone());
                self.note(now, *deed);
                self.scratch.replies.push((reply, Err(Refusal::NotAllowed(why))));
            }
            Input::Register { changes, deed, reply } => {
                for change in &changes {
                    self.parts.stock.handle_change(change);
                    self.parts.help.handle_change(change);
                }
                self.scratch.facts.extend(changes.into_iter().map(|change| Fact::Register(Box::new(change))));
                self.note(now, *deed);
                self.scratch.replies.push((reply, Ok(())));
            }
            Input::Outcome { order, .. } if Pulse::owns(&order) => {}
            Input::Outcome { order, outcome } => {
                self.parts.orders_waiting = self.parts.orders_waiting.saturating_sub(1);
                match &outcome {
                    Outcome::Dead(_) => self.handle_undelivered(now, &order),
                    Outcome::Delivered(_) => self.handle_taken(now, &order),
                }
                self.scratch.outcomes.push(OrderOutcome { order, outcome, at: now.wall });
                self.receipts_due.get_or_insert(now.mono.plus(RECEIPTS_WAIT));
            }
            Input::Overdue { order } => self.handle_undelivered(now, &order),
            Input::Addressed(message) => {
                let Parts { engine, hearing, .. } = &mut self.parts;
                let channel = engine.desk().channels.iter().find(|one| one.id == message.channel);
                hearing.handle_addressed(now, *message, channel);
            }
            Input::Reported { channel, reports, reply } => {
                // The asker may have hung up; what was said holds all the same.
                let _ = reply.send(self.handle_reports(now, &channel, reports));
            }
            Input::Resend { who, from, which, reply } => {
                let sent = self.resend(&who, &which);
                self.note(now, deeds::of_resend(now.wall, who, from, &which, &sent));
                // The asker may have hung up; what was sent is sent all the same.
                let _ = reply.send(sent);
            }
            Input::Site(new) => self.handle_site(now, *new),
            Input::Did(deed) => self.note(now, deed),
            Input::Told(told) => {
                self.scratch.deeds.push(Fact::Told(told));
                self.receipts_due.get_or_insert(now.mono.plus(RECEIPTS_WAIT));
            }
            Input::Query(query) => {
                if matches!(query, Query::Audited { .. }) {
                    self.receipts_due = None;
                }
                self.scratch.queries.push(query);
            }
            Input::People { people, deed, reply } => {
                let facts = people.into_iter().map(|person| Fact::Person(Box::new(person)));
                self.scratch.facts.extend(facts);
                if let Some(deed) = deed {
                    self.note(now, *deed);
                }
                self.scratch.replies.push((reply, Ok(())));
            }
            // By a wrong clock it would be the past of another time.
            Input::Past(_) if self.parts.clock_trust.is_doubtful() => {}
            Input::Past(past) => self.parts.engine.handle_past(now, &self.parts.points, &past),
            Input::Pulse(beat) => {
                let orders = self.parts.pulse.as_mut().map(|pulse| pulse.beat(now, beat));
                self.scratch.beat = orders.map(|orders| (beat, orders));
            }
            Input::Messages { .. } | Input::Readings(_) | Input::Stop => {}
        }
    }

    /// A target has refused what it was sent, or has not taken it in time: another may get it.
    fn handle_undelivered(&mut self, now: Now, order: &OrderId) {
        if let Some((alarm, channel)) = order.about() {
            self.parts.engine.handle_undelivered(now, alarm, channel);
        }
    }

    fn handle_taken(&mut self, now: Now, order: &OrderId) {
        let Parts { engine, hearing, .. } = &mut self.parts;
        let Some((alarm, channel)) = order.about() else { return };
        let channel = engine.desk().channels.iter().find(|one| *one.id == *channel);
        if let Some((alarm, channel)) = engine.alarm(alarm).zip(channel) {
            hearing.handle_taken(now.mono, alarm, channel);
        }
    }

    /// All of them, or none: whoever reported can do so again.
    fn handle_reports(&mut self, now: Now, channel: &Arc<str>, reports: Vec<Report>) -> Result<usize, StoreError> {
        let Parts { hearing, journal, .. } = &mut self.parts;
        let kept = |report: &Report| match hearing.knows(channel, &report.key) {
            true => Ok(None),
            false => journal.addressed(channel, &report.key),
        };
        let kept: Vec<Option<Addressed>> = reports.iter().map(kept).collect::<Result<_, _>>()?;
        let all = reports.into_iter().zip(kept);
        Ok(all.map(|(report, kept)| hearing.handle_report(now, channel, report, kept)).filter(|known| *known).count())
    }

    /// What is to be written down, handed on and said of who was told.
    fn act_on_hearing(&mut self, now: Now) {
        loop {
            let Parts { hearing, engine, .. } = &mut self.parts;
            match hearing.poll(now.mono, |alarm| engine.waits_for_answer(alarm)) {
                Some(Act::Write(message)) => {
                    self.scratch.deeds.push(Fact::Addressed(Box::new(message)));
                    self.receipts_due.get_or_insert(now.mono.plus(RECEIPTS_WAIT));
                }
                Some(Act::HandOn(alarm, channel)) => engine.handle_undelivered(now, alarm, &channel),
                Some(Act::Part(state)) => self.handle_part(now, state),
                None => return,
            }
        }
    }

    /// What is new takes the place of what is in force, all at once, or nothing changes.
    fn handle_site(&mut self, now: Now, new: NewSite) {
        let NewSite { asked: ReloadAsked { who, from, only_tell, reply }, site, taken, waits } = new;
        if only_tell {
            let change = match site {
                Ok((rules, _)) => Ok(self.parts.engine.rules().difference(&rules)),
                Err(faults) => Err(faults.iter().map(ToString::to_string).collect()),
            };
            let rules = self.parts.engine.rules().rules().len();
            if let Some(reply) = reply {
                // As below.
                let _ = reply.send(Reloaded { change, rules, taken, waits });
            }
            return;
        }
        let is_sound = site.is_ok();
        let mut waits = waits;
        let change = match site {
            Ok((rules, change)) => {
                // Before the rules, which are bound to the points.
                waits.extend(change.map(|change| self.take_change(now, *change)).unwrap_or_default());
                let Parts { engine, points, validator, .. } = &mut self.parts;
                let change = engine.rules().difference(&rules);
                if !change.is_empty() {
                    engine.replace_rules(now, points, rules, |point| validator.latest(point));
                }
                engine.handle_broken_rules(now, &[]);
                // Points may be new, and windows that are may know of the past.
                self.parts.bind();
                self.parts.validator.watch(&self.parts.points, now);
                Ok(change)
            }
            Err(faults) => Err(faults.iter().map(ToString::to_string).collect::<Vec<_>>()),
        };
        self.compare_plans(now, &who, &from);
        let reloaded = Reloaded { change, rules: self.parts.engine.rules().rules().len(), taken, waits };
        let said = match &reloaded.change {
            Ok(change) if change.is_empty() && reloaded.taken.is_empty() => {
                info!(who, "the site was read anew and is what it was");
                None
            }
            Ok(change) => {
                let (rules, parts) = (reloaded.rules, reloaded.taken.join(", "));
                info!(who, rules, parts, "the new site is in force: {}", deeds::of_change(change));
                None
            }
            Err(faults) => {
                faults.iter().for_each(|fault| error!("{fault}"));
                Some(trouble(Level::Yellow, deeds::not_taken(faults)))
            }
        };
        self.handle_part(now, PartState { part: Arc::from("rules"), trouble: said });
        // Of files that are unsound nobody knows what waits: what was said stands.
        if is_sound {
            let named = reloaded.waits.join(", ");
            let waits = (!named.is_empty()).then(|| {
                let zh = format!("以下配置已修改，重启安民后才生效：{named}");
                let en = format!("changed, and in force only after anmin is started again: {named}");
                trouble(Level::Blue, Text { zh, en })
            });
            self.handle_part(now, PartState { part: Arc::from("config"), trouble: waits });
        }
        // Files that were only touched are nobody's deed.
        let touched = from.through == Through::Files && reloaded.change.as_ref().is_ok_and(RulesChange::is_empty);
        if !touched || reloaded.taken.len() + reloaded.waits.len() > 0 {
            self.note(now, deeds::of_reload(now.wall, who, from, &reloaded));
            // Whoever asked hears of it when it is durable.
            self.receipts_due = Some(now.mono);
        }
        self.scratch.reloaded.extend(reply.map(|reply| (reply, reloaded)));
    }

    /// Writes down which plans are in force from now on.
    fn compare_plans(&mut self, now: Now, who: &str, from: &Way) {
        let Parts { engine, plan_history, clock_trust, .. } = &mut self.parts;
        if clock_trust.is_doubtful() || plan_history.has_seen(&engine.desk().plans) {
            return;
        }
        let is_first = plan_history.is_empty();
        for revision in plan_history.compare(now.wall, who, &engine.desk().plans) {
            // What a new box begins with nobody has changed.
            if !is_first {
                self.note(now, deeds::of_plan(now.wall, who, from.clone(), &revision));
            }
            self.scratch.facts.push(Fact::Plan(Box::new(revision)));
        }
    }

    /// Everything of a new site but its rules. Alarms, delays, calls and what waits to be sent go on. Gives the devices that
    /// were there already and are otherwise: made by a message before anybody wrote them down.
    fn take_change(&mut self, now: Now, change: Change) -> Vec<String> {
        let Change {
            desk,
            validation,
            audit_kept,
            limits,
            drill_calendar,
            devices,
            router: routes,
            couriers,
            says,
            gone,
            configuration,
        } = change;
        self.parts.configuration = Some(configuration);
        let Parts { points, router, validator, engine, journal, readings, .. } = &mut self.parts;
        if *engine.desk() != desk {
            engine.replace_desk(now, desk);
        }
        validator.set_settings(validation);
        audit_kept.into_iter().for_each(|kept| journal.keep_audit(kept));
        readings.set_limits(limits);
        let mut otherwise = Vec::new();
        if let Some((new, reply)) = devices {
            let taken = points.take_in(new);
            self.known_points = points.len();
            otherwise.extend(taken.otherwise.iter().map(|id| format!("[[device]] {id}")));
            // Fails only when who asked has ended.
            let _ = reply.send(taken);
            router.settle(points);
        }
        if let Some(Routes { profiles, places, sources }) = routes {
            router.replace(profiles, places, sources);
        }
        self.parts.says.extend(says);
        if let Some(calendar) = drill_calendar {
            self.parts.drill_calendar = calendar;
        }
        self.take_couriers(couriers);
        for part in gone {
            let below = format!("{part}/");
            let of_it = |name: &Arc<str>| **name == *part || name.starts_with(&below);
            let over: Vec<Arc<str>> = self.troubles.keys().filter(|name| of_it(name)).cloned().collect();
            over.into_iter().for_each(|part| self.handle_part(now, PartState { part, trouble: None }));
        }
        otherwise
    }

    /// Orders of a way out that is there again go out, as after a restart; those of one that has gone stay in the journal.
    fn take_couriers(&mut self, couriers: BTreeMap<Arc<str>, CourierHandle>) {
        let before = std::mem::replace(&mut self.parts.couriers, couriers);
        let Parts { couriers, journal, orders_waiting, .. } = &mut self.parts;
        for (id, courier) in &before {
            if couriers.get(id).is_none_or(|other| !other.is(courier)) {
                *orders_waiting = orders_waiting.saturating_sub(courier.waiting());
            }
        }
        let new: Vec<&Arc<str>> = couriers
            .iter()
            .filter(|(id, now)| before.get(*id).is_none_or(|then| !then.is(now)))
            .map(|(id, _)| id)
            .collect();
        if new.is_empty() {
            return;
        }
        for order in journal.unsent().into_iter().filter(|order| new.contains(&&order.channel)) {
            *orders_waiting += 1;
            couriers[&order.channel].send(order);
        }
    }

    /// For the audit: with what else the turn makes durable, or a little later, as receipts are.
    fn note(&mut self, now: Now, deed: Deed) {
        if self.journal_trouble.is_some() {
            self.deeds_without_journal += 1;
            if self.deeds_without_journal > MOST_DEEDS_WITHOUT_JOURNAL {
                error!(who = deed.who, what = &*deed.what, "the audit has no room in memory while the journal is away");
                return;
            }
        }
        self.scratch.deeds.push(Fact::Did(Box::new(deed)));
        self.receipts_due.get_or_insert(now.mono.plus(RECEIPTS_WAIT));
    }

    /// Dead letters on their way again. One whose way out is gone, or whose bytes are damaged, stays where it is, and so does
    /// a warning that holds no longer: nobody outside is told today of what was taken back yesterday.
    fn resend(&mut self, who: &str, which: &Resend) -> Result<Resent, StoreError> {
        let Parts { journal, couriers, engine, orders_waiting, .. } = &mut self.parts;
        let mut resent = Resent::default();
        let holds = |cap: &CapOrder| {
            let is_it = |sent: &CapRef| sent.identifier == cap.identifier;
            let in_force = |alarm: &Arc<Alarm>| alarm.cap_log.iter().any(is_it);
            cap.message == CapMessage::Cancel || engine.alarm(cap.alarm.id).is_some_and(in_force)
        };
        for letter in journal.dead_letters()? {
            let wanted = match which {
                Resend::Order(id) => letter.id == *id,
                Resend::WayOut(id) => letter.channel == *id,
            };
            if !wanted {
                continue;
            }
            let Some(courier) = couriers.get(&letter.channel) else { continue };
            if let Some(OrderBody::Cap(cap)) = &letter.body
                && !holds(cap)
            {
                resent.over.push(letter.id);
                continue;
            }
            if let Some(order) = journal.redo(&letter.id, who)? {
                info!(order = %order.id, way_out = &*order.channel, who, "a dead letter is sent again by command");
                resent.sent.push(order.id.clone());
                *orders_waiting += 1;
                courier.send(order);
            }
        }
        Ok(resent)
    }

    fn handle_session(&mut self, now: Now, start: &SessionStart) {
        let Parts { router, points, validator, losses, .. } = &mut self.parts;
        let changed = &mut self.changed;
        let lost = losses.handle_session(now, start, || {
            let mut doubted = router.points_through(points, &start.source);
            doubted.retain(|point| validator.doubt(*point));
            let count = doubted.len();
            changed.extend(doubted);
            count
        });
        if let Some(part) = lost {
            self.handle_part(now, part);
        }
    }

    fn handle_part(&mut self, now: Now, state: PartState) {
        match &state.trouble {
            Some(trouble) => {
                // What lasts says so again and again, some of it with every tenth message that nobody can read.
                let again = self.troubles.contains_key(&state.part);
                let more = self.repeats.say(&format!("part {}", state.part), now.mono);
                if let Some(more) = more.or_else(|| (!again).then_some(None)) {
                    let said = if names_home(&state.part) {
                        "messages of this device did not come"
                    } else if state.part.starts_with(HELP) {
                        "somebody asks for help"
                    } else {
                        &trouble.message.en
                    };
                    warn!(part = &*state.part, more, "{said}");
                }
                // What an office above warns of or asks is no trouble of ours.
                if ![WARNING, DUTY_CHECK, HELP].iter().any(|word| state.part.starts_with(word)) {
                    self.troubles.insert(Arc::clone(&state.part), trouble.clone());
                }
            }
            None => {
                if self.troubles.remove(&state.part).is_some() {
                    info!(part = &*state.part, "well again");
                }
            }
        }
        let trouble = state.trouble.map(|trouble| (trouble.finding, trouble.message));
        self.parts.engine.handle_part(now, &state.part, trouble);
    }

    /// What residents have said is kept for its time, and no longer.
    fn forget_help(&mut self, now: Now) {
        if self.journal_trouble.is_some() {
            return;
        }
        let gone = self.parts.help.poll_gone(now);
        if !gone.is_empty() {
            let detail = serde_json::json!({ "removed": gone.len() });
            let deed = Deed { about: "help".to_owned(), ..Deed::of_anmin(now.wall, "register.forget", detail) };
            self.scratch.facts.extend(gone.into_iter().map(|change| Fact::Register(Box::new(change))));
            self.note(now, deed);
        }
    }

    /// Says when the room that is kept for the journal is gone, and when it is there again.
    fn watch_reserve(&mut self, now: Now) {
        if now.mono < self.figures_due {
            return;
        }
        let held = self.parts.journal.tend_reserve(now.mono);
        if held != std::mem::replace(&mut self.reserve_held, held) {
            let message = Text {
                zh: "磁盘空间不足：为报警记录预留的空间已用掉或无法保留，请尽快清理磁盘".to_owned(),
                en: "the disk is nearly full: the room kept for alarms is used up or cannot be kept; make room"
                    .to_owned(),
            };
            let trouble = (!held).then_some(trouble(Level::Orange, message));
            self.handle_part(now, PartState { part: Arc::from("store:reserve"), trouble });
        }
    }

    /// Journal first, then the world.
    fn let_out(&mut self, now: Now) {
        let mut handed = Handed::default();
        // Twice: that the journal fell ill or got well is an alarm too, and stands in it like any other.
        for _ in 0..2 {
            self.drain_effects();
            let news = self.commit(now, &mut handed);
            if news.is_empty() {
                break;
            }
            news.into_iter().for_each(|state| self.handle_part(now, state));
        }
        let decided = handed.transitions + handed.calls + handed.incidents + handed.pending + handed.orders > 0;
        let scratch = &mut self.scratch;
        scratch.pending.clear();
        // Before the orders, which say no more than that it is time to look.
        let sirens = self.parts.engine.sirens();
        self.parts.sirens.send_if_modified(|known| {
            let other = known.as_deref() != Some(&sirens);
            if other {
                *known = Some(Arc::new(sirens));
            }
            other
        });
        // Whoever is called does not wait for what is written into the log.
        self.parts.orders_waiting += scratch.orders.len();
        for order in scratch.orders.drain(..) {
            match self.parts.couriers.get(&order.channel) {
                Some(courier) => courier.send(order),
                None => {
                    error!(order = %order.id, "way out {} is gone from the configuration; the order stays in the journal", order.channel)
                }
            }
        }
        for (reply, reloaded) in scratch.reloaded.drain(..) {
            // As below.
            let _ = reply.send(reloaded);
        }
        for (reply, result) in scratch.replies.drain(..) {
            // The asker may have hung up; the command holds all the same.
            let _ = reply.send(result);
        }
        // What the log never holds is said in docs/threats.md: of a call and an incident no words of people.
        for transition in scratch.transitions.drain(..) {
            info!(
                alarm = %transition.alarm.id,
                rule = %transition.alarm.rule,
                subject = transition.alarm.subject.as_str(),
                level = transition.alarm.level.as_str(),
                state = transition.to.as_str(),
                cause = transition.cause.as_str(),
                "{}",
                said_of(&transition.alarm)
            );
            self.parts.feed.publish(FeedEvent::Transition(transition));
        }
        for change in scratch.calls.drain(..) {
            let CallChange { call, cause, .. } = &*change;
            info!(
                alarm = %call.alarm,
                station = &*call.station,
                state = call.state.as_str(),
                "{}: {}",
                call.station_name.en,
                cause.as_str()
            );
            self.parts.feed.publish(FeedEvent::Call(change));
        }
        for change in scratch.incidents.drain(..) {
            let incident = &change.incident;
            info!(
                incident = %incident.id,
                peak = incident.peak.as_str(),
                state = incident.state().as_str(),
                cause = change.cause.as_str(),
                alarms = incident.alarms,
                "incident: {}, {}",
                if incident.case.is_some() { "a case" } else { &incident.title.en },
                incident.place.to_building().en()
            );
            self.parts.feed.publish(FeedEvent::Incident(change));
        }
        for change in scratch.drills.drain(..) {
            let drill = &change.drill;
            info!(drill = %drill.id, cause = change.cause.as_str(), by = drill.by, "drill in {}", drill.scope.text().en);
            self.parts.drill_calendar.handle_drill(drill);
            self.parts.feed.publish(FeedEvent::Drill(change));
        }
        for change in std::mem::take(&mut scratch.walks) {
            let (walk, cause) = (&change.walk, change.cause.as_str());
            let point = change.tick.as_ref().map_or("", |tick| tick.point.as_str());
            info!(walk = %walk.id, cause, point, by = walk.by, "walk test in {}", walk.scope.text().en);
            if let Some(tick) = &change.tick {
                self.parts.test_calendar.handle_tick(now, tick);
            }
            self.parts.feed.publish(FeedEvent::Walk(change));
        }
        self.let_out_beat();
        let scratch = &mut self.scratch;
        let (batch, mut acks) = (std::mem::take(&mut scratch.batch), std::mem::take(&mut scratch.acks));
        // What came again and was not known may have decided something, which waits for the journal, when it came before.
        let before = self.held.back_mut().filter(|_| !decided).map_or(&mut acks, |(_, acks)| acks);
        before.append(&mut scratch.acks_again);
        if self.journal_trouble.is_some() && decided && !acks.is_empty() {
            self.held.push_back((now.mono, std::mem::take(&mut acks)));
        }
        while let Some((since, _)) = self.held.front()
            && (self.journal_trouble.is_none() || now.mono.since(*since) >= HELD_AT_MOST)
        {
            acks.extend(self.held.pop_front().into_iter().flat_map(|(_, acks)| acks));
        }
        let unusable = std::mem::take(&mut self.scratch.unusable);
        if batch.is_empty() && unusable.is_empty() && acks.is_empty() {
            self.scratch.batch = batch;
            return;
        }
        self.scratch.batch = self.parts.readings.spare();
        self.append(batch, unusable, acks);
    }

    /// The self-test's beat goes the way of a turn that raised an alarm: journal, courier, readings.
    fn let_out_beat(&mut self) {
        let (Some((beat, orders)), Some(pulse)) = (self.scratch.beat.take(), &self.parts.pulse) else { return };
        let progress = pulse.progress();
        if self.parts.journal.mark_alive(self.parts.clock_trust.known()).is_ok() {
            progress.reach(Stage::Journaled, beat);
        }
        orders.into_iter().for_each(|order| pulse.send(order));
        let stored = Ack::new(move || progress.reach(Stage::Stored, beat));
        self.parts.readings.append(ReadingsBatch::default(), vec![stored]);
    }

    fn append(&mut self, mut batch: Vec<Sample>, unusable: Vec<Unusable>, acks: Vec<Ack>) {
        let points = &self.parts.points;
        let new = (self.stored_points..points.len()).map(|n| NewPoint::of(points, PointIx(n as u32))).collect();
        self.stored_points = points.len();
        if self.parts.clock_trust.is_doubtful() {
            // They are judged by now: only what is written down is marked.
            for sample in batch.iter_mut().filter(|sample| sample.quality == Quality::Good) {
                sample.quality = Quality::Uncertain(Doubt::ClockSkew);
            }
        }
        self.parts.readings.append_with(ReadingsBatch { points: new, samples: batch }, unusable, acks);
    }

    fn drain_effects(&mut self) {
        while let Some(effect) = self.parts.engine.poll_effect() {
            match effect {
                Effect::Transition(transition) => self.scratch.transitions.push(transition),
                Effect::Call(change) => self.scratch.calls.push(change),
                Effect::Incident(change) => self.scratch.incidents.push(change),
                Effect::Pending(pending) => self.scratch.pending.push(pending),
                Effect::Duty(change) => self.scratch.facts.push(Fact::Duty(change)),
                Effect::Drill(change) => {
                    self.scratch.facts.push(Fact::Drill(Arc::clone(&change.drill)));
                    self.scratch.drills.push(change);
                }
                Effect::Walk(change) => {
                    self.scratch.facts.push(Fact::Walk(Arc::clone(&change.walk)));
                    if let Some(tick) = &change.tick {
                        self.scratch.facts.push(Fact::Tick(Arc::clone(tick)));
                        self.scratch.facts.push(Fact::Did(Box::new(deeds::of_tick(&change, tick))));
                    }
                    self.scratch.walks.push(change);
                }
                Effect::Order(order) => self.scratch.orders.push(order),
            }
        }
    }

    /// Commits what of the turn has not been handed over yet. Gives what there is to say of the journal.
    fn commit(&mut self, now: Now, handed: &mut Handed) -> Vec<PartState> {
        let scratch = &mut self.scratch;
        let news = scratch.transitions.len() > handed.transitions
            || scratch.calls.len() > handed.calls
            || scratch.incidents.len() > handed.incidents
            || scratch.pending.len() > handed.pending;
        // While the journal is away they wait where they are, which is bounded.
        if news && self.journal_trouble.is_none() {
            let marks = self.parts.deliveries.take_marks(now.mono);
            scratch.facts.extend((!marks.is_empty()).then_some(Fact::Judged(marks)));
        }
        self.parts.losses.take_facts(&mut scratch.facts);
        let waiting = scratch.outcomes.len() + scratch.deeds.len();
        let waits = self.receipts_due.is_some_and(|due| now.mono < due) && waiting < MOST_RECEIPTS;
        let due = self.journal_trouble.is_some() && now.mono >= self.journal_due;
        let orders = scratch.orders.len() > handed.orders;
        if !(news || orders || !scratch.facts.is_empty() || due) && (waits || waiting == 0) {
            return Vec::new();
        }
        scratch.facts.append(&mut scratch.deeds);
        let turn = Turn {
            transitions: &scratch.transitions[handed.transitions..],
            calls: &scratch.calls[handed.calls..],
            incidents: &scratch.incidents[handed.incidents..],
            pending: &scratch.pending[handed.pending..],
            orders: &scratch.orders[handed.orders..],
            outcomes: &scratch.outcomes,
            facts: &scratch.facts,
        };
        self.journal_due = now.mono.plus(TRY_JOURNAL_EVERY);
        self.receipts_due = None;
        let result = self.parts.journal.commit(&turn);
        *handed = Handed {
            transitions: scratch.transitions.len(),
            calls: scratch.calls.len(),
            incidents: scratch.incidents.len(),
            pending: scratch.pending.len(),
            orders: scratch.orders.len(),
        };
        scratch.outcomes.clear();
        scratch.facts.clear();
        let mut news = Vec::new();
        let mut say = |trouble| news.push(PartState { part: Arc::from("store:state"), trouble });
        match (result, self.journal_trouble.take()) {
            (Ok(()), None) => {}
            (Ok(()), Some(_)) => {
                self.deeds_without_journal = 0;
                say(None);
            }
            (Err(error), before) => {
                if before.is_none() {
                    say(Some(trouble(Level::Orange, error.text())));
                }
                self.journal_trouble = Some(error);
            }
        }
        for note in self.parts.journal.take_notes() {
            say(Some(trouble(Level::Orange, note)));
        }
        if let Some(late) = self.parts.journal.take_late() {
            self.take_up(now, late);
        }
        news
    }

    /// What the journal held and could not be read at the start.
    fn take_up(&mut self, now: Now, late: Restored) {
        let engine = &mut self.parts.engine;
        let open = engine.alarms();
        let key = |alarm: &Alarm| (alarm.rule.clone(), alarm.subject.clone(), alarm.drill);
        let (ids, keys): (BTreeSet<_>, BTreeSet<_>) = open.iter().map(|alarm| (alarm.id, key(alarm))).unzip();
        let (new, known): (Vec<_>, Vec<_>) =
            late.alarms.into_iter().partition(|alarm| !ids.contains(&alarm.id) && !keys.contains(&key(alarm)));
        for alarm in known.iter().filter(|alarm| engine.alarm(alarm.id).is_none()) {
            warn!(alarm = %alarm.id, rule = %alarm.rule, "an alarm of the last run was raised anew before the journal could be read; both stand in it");
        }
        let ids: BTreeSet<_> = new.iter().map(|alarm| alarm.id).collect();
        let calls = late.calls.iter().map(|change| &change.call).filter(|call| ids.contains(&call.alarm)).cloned();
        let calls = calls.collect();
        info!("taken up from the journal late: {} open alarms, {} orders to send again", new.len(), late.orders.len());
        let Parts { points, validator, engine, .. } = &mut self.parts;
        engine.restore_drills(now, late.alive, late.drills);
        engine.restore_walks(now, late.alive, late.walks);
        engine.restore(now, new, calls, late.incidents);
        engine.restore_duty(now, late.duty.iter().map(|change| DutyChange::clone(change)).collect());
        // Whoever has spoken since the start has been judged by that.
        engine.restore_pending(now, late.pending, |pending| {
            points.find(pending.subject.as_str()).is_none_or(|point| validator.latest(point).is_none())
        });
        engine.bind(points);
        self.parts.people.send_replace(late.people);
        // The marks of what was judged come too late: newer ones are known by now.
        self.parts.losses.recall(late.sessions);
        self.parts.watch_losses(now);
        self.parts.orders_waiting += late.orders.len();
        for order in late.orders {
            if let Some(courier) = self.parts.couriers.get(&order.channel) {
                courier.send(order);
            }
        }
    }

    fn show_readings(&mut self, now: Now) {
        if self.changed.is_empty() || now.mono < self.readings_due {
            return;
        }
        let (turn, truncated) = self.changed.take();
        self.readings_due = now.mono.plus(self.parts.feed.readings_wait(turn.len()));
        let rows = turn
            .into_iter()
            .filter_map(|ix| {
                let Parts { points, validator, .. } = &self.parts;
                let place = Arc::clone(&points.device_of(ix).place);
                Some(ChangedPoint { id: points.point(ix).id.clone(), place, sample: validator.latest(ix)? })
            })
            .collect();
        self.parts.feed.publish(FeedEvent::Readings(Arc::new(super::feed::Readings { rows, truncated })));
    }

    fn watch_databases(&mut self, now: Now) {
        let sent = self.parts.figures.sent();
        for backlog in self.parts.readings.forwarding().backlogs {
            let waiting = backlog.waiting();
            let sent = sent.get(&backlog.consumer).copied().unwrap_or(0);
            self.paces.entry(backlog.consumer).or_default().look(now.mono, sent, waiting);
        }
    }

    /// A database with the pace at which it goes on.
    fn database(&self, now: Now, backlog: &Backlog) -> Database {
        let pace = self.paces.get(&backlog.consumer);
        // What is that young waits for its batch, and for nothing else.
        let age = backlog.oldest.map_or(Duration::ZERO, |oldest| now.wall.since(oldest));
        let keeps_up = backlog.waiting() == 0 || age <= LATELY;
        Database {
            id: Arc::clone(&backlog.consumer),
            waiting: backlog.waiting(),
            bytes: backlog.bytes,
            oldest: backlog.oldest.filter(|_| backlog.waiting() > 0),
            rate: pace.map_or(0.0, Pace::rate),
            catch_up: if keeps_up { Some(Duration::ZERO) } else { pace.and_then(Pace::catch_up) },
            dropped: backlog.dropped,
        }
    }

    fn answer(&self, now: Now, query: Query) {
        let Parts { points, engine, validator, router, .. } = &self.parts;
        let latest = |ix: PointIx| validator.latest(ix);
        // Each reply may find nobody: the asker has gone, which is its own business.
        match query {
            Query::Alarms { filter, page, reply } => {
                let _ = reply.send(AlarmList::select(&filter, page, engine.alarms(), |id| engine.calls_of(id)));
            }
            Query::Alarm { id, reply } => {
                let view =
                    engine.alarm(id).map(|alarm| AlarmView { alarm: Arc::clone(alarm), calls: engine.calls_of(id) });
                let _ = reply.send(view);
            }
            Query::Incidents { within, page, reply } => {
                let all = engine.incidents().filter_map(|incident| engine.situation(incident.id));
                let all = all.filter_map(|situation| situation.seen(|place| within.takes(place)));
                let _ = reply.send(IncidentList::select(page, all.collect()));
            }
            Query::Incident { id, reply } => {
                let view = engine.situation(id).map(|situation| IncidentView {
                    calls: situation.alarms.iter().flat_map(|alarm| engine.calls_of(alarm.id)).collect(),
                    situation,
                });
                let _ = reply.send(view);
            }
            Query::Next { id, reply } => {
                let next = engine.alarm(id).and_then(|alarm| {
                    let stations = engine.callable(id)?;
                    Some(Next { alarm: Arc::clone(alarm), stations, last_escalation: engine.last_escalation(alarm) })
                });
                let _ = reply.send(next);
            }
            Query::Stations { reply } => {
                let _ = reply.send(StationView::all(engine, now.wall));
            }
            Query::Walks { reply } => {
                let _ = reply.send((engine.walks().cloned().collect(), engine.speaking().cloned().collect()));
            }
            Query::Testable { within, reply } => {
                let calendar = &self.parts.test_calendar;
                let points = TestablePoint::all(points, &within, |id| calendar.last(id));
                let _ = reply.send(Testable { every: calendar.every(), points });
            }
            Query::Points { filter, page, reply } => {
                let _ = reply.send(PointPage::select(points, &filter, page, latest));
            }
            Query::Point { id, reply } => {
                let _ = reply.send(points.find(id.as_str()).map(|ix| PointRow::of(points, ix, latest(ix))));
            }
            Query::PointChoices { within, reply } => {
                let _ = reply.send(PointChoices::of(points, &within));
            }
            Query::Devices { within, page, reply } => {
                let _ = reply.send(DevicePage::select(points, &within, page, latest));
            }
            Query::Device { id, reply } => {
                let _ = reply.send(DeviceView::of(points, &id, router.profiles(), latest));
            }
            Query::Stranger { device, source, reply } => {
                let is_it = |found: &&router::Quarantined| {
                    found.device.as_str() == device && source.as_deref().is_none_or(|source| *found.source == *source)
                };
                let found = router.quarantined().find(is_it);
                let profiles = router.profiles();
                let _ = reply.send(found.map(|found| Stranger {
                    row: quarantined(found),
                    profile: found.profile.clone(),
                    profiles: profiles.clone(),
                }));
            }
            Query::Quarantine { reply } => {
                let _ = reply.send(router.quarantined().map(quarantined).collect());
            }
            Query::InForce { rule, subject, reply } => {
                let rules = engine.rules();
                let found = rules.find(&rule).zip(points.find(subject.as_str()));
                let _ = reply.send(found.and_then(|(rule, subject)| rules.in_force(rule, subject, points)));
            }
            Query::Audited { reply } => {
                let _ = reply.send(());
            }
            Query::Rules { reply } => {
                let _ = reply.send(RuleRow::all(engine));
            }
            Query::Held { id, reply } => {
                let _ = reply.send(HeldView::of(engine, points, &id));
            }
            Query::Plans { reply } => {
                let _ = reply.send(Arc::clone(&engine.desk().plans));
            }
            Query::DrillCalendar { reply } => {
                let _ = reply.send(self.parts.drill_calendar.standing());
            }
            Query::Status { within, reply } => {
                let mut status = self.status(now);
                if !within.is_everywhere() {
                    let alarms = engine.alarms().into_iter().filter(|alarm| within.takes(&alarm.place));
                    let alarms: Vec<_> = alarms.collect();
                    let real = alarms.iter().filter(|alarm| alarm.drill.is_none());
                    let calls = real.flat_map(|alarm| engine.calls_of(alarm.id));
                    let live = calls.filter(Call::is_live).count();
                    let help = self.parts.help.calls(&within);
                    status = Status { help, ..status.within(&within, &alarms, live, points) };
                }
                let _ = reply.send(status);
            }
        }
    }

    fn status(&self, now: Now) -> Status {
        let Parts { points, engine, validator, router, readings, journal, losses, deliveries, .. } = &self.parts;
        let (validated, stored) = (validator.counts(), readings.counts());
        let mut troubles: Vec<Trouble> = self
            .troubles
            .iter()
            .map(|(part, trouble)| Trouble {
                part: Arc::clone(part),
                level: trouble.finding.level,
                message: trouble.message.clone(),
            })
            .collect();
        troubles.sort_by_key(|trouble| std::cmp::Reverse(trouble.level));
        let forwarding = readings.forwarding();
        let couriers = self.parts.couriers.iter();
        let ways_out = couriers.map(|(id, courier)| WayOut { id: Arc::clone(id), waiting: courier.waiting() });
        Status {
            now: now.wall,
            uptime: now.mono.since(self.started.mono),
            counts: engine.counts(),
            drills: engine.drills().cloned().collect(),
            walks: engine.walks().cloned().collect(),
            readings: ReadingCounts {
                received: validated.received + router.counts().quarantined + router.counts().rejected,
                evaluated: validated.evaluated,
                duplicate: validated.duplicate,
                quarantined: router.counts().quarantined,
                rejected: router.counts().rejected,
                silent: validated.silent,
                missing: losses.counts().missing,
                repeated: deliveries.repeats(),
            },
            stored,
            points: points.len(),
            devices: points.devices().len(),
            quarantined: router.quarantined().len(),
            rules: engine.rules().rules().len(),
            broken_rules: engine.broken_rules().map(ToString::to_string).collect(),
            troubles,
            orders_waiting: self.parts.orders_waiting,
            ways_out: ways_out.collect(),
            readings_waiting: stored.waiting as usize,
            journal: JournalState {
                unwritten: journal.unwritten(),
                dropped: journal.dropped(),
                commits: journal.commits(),
                reserve: self.reserve_held,
            },
            possible_losses: losses.counts().sessions,
            clock_doubtful: self.parts.clock_trust.is_doubtful(),
            databases: forwarding.backlogs.iter().map(|backlog| self.database(now, backlog)).collect(),
            gaps: forwarding.gaps,
            newest_gaps: forwarding.newest_gaps,
            self_test: self.parts.figures.pulse(),
            help: self.parts.help.calls(&Places::EVERYWHERE),
        }
    }
}

fn key(source: &str, message: &Message) -> Key {
    Key::of_message(source, &message.topic, &message.payload)
}

/// Whether what is said of a part names a device and where it is.
fn names_home(part: &str) -> bool {
    part.starts_with(losses::GAP)
}

/// An alarm's words for the log. Its message names the home; only that of a part of anmin or of a rule speaks of no place and is
/// anmin's own throughout.
fn said_of(alarm: &Alarm) -> String {
    match alarm.rule.as_str() {
        "system/part" | "system/rule" if !names_home(alarm.subject.as_str()) => alarm.message.en.clone(),
        _ => format!("{}, {}", alarm.title.en, alarm.place.to_building().en()),
    }
}

fn trouble(level: Level, message: Text) -> super::PartTrouble {
    super::PartTrouble { finding: Finding { level, limit: None, note: None }, message }
}

fn quarantined(unknown: &router::Quarantined) -> Quarantined {
    Quarantined {
        source: Arc::clone(&unknown.source),
        device: unknown.device.to_string(),
        topic: unknown.topic.to_string(),
        excerpt: unknown.excerpt.clone(),
        messages: unknown.messages,
        first: unknown.first,
        last: unknown.last,
    }
}
