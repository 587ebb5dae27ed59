//! The loop itself: drain, decode, validate, judge, commit, let out.
//!
//! One turn takes everything that is there. What a turn decides is in the journal before the world hears of it; only
//! when the journal cannot be written do orders go out from memory, and a system alarm says so: a full disk must not
//! silence a fire.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anmin_rules::alarm::{Refusal, Transition};
use anmin_rules::engine::{Effect, Engine};
use anmin_rules::order::{CallChange, Order};
use anmin_rules::rule::{Finding, Level};
use anmin_sensors::point::{PointIx, Points};
use anmin_sensors::reading::{Reading, Sample};
use anmin_sensors::router::{self, Router};
use anmin_sensors::time::{Mono, Now};
use anmin_sensors::validator::Validator;
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use super::feed::{Feed, FeedEvent};
use super::query::{
    AlarmList, AlarmView, DevicePage, PointChoices, PointPage, PointRow, Quarantined, Query, ReadingCounts, Status,
    Trouble,
};
use super::{Input, PartState};
use crate::clock::Clock;
use crate::delivery::courier::CourierHandle;
use crate::intake::{Ack, Message};
use crate::pulse::{Pulse, Stage};
use crate::store::readings::{NewPoint, Readings, ReadingsBatch};
use crate::store::{OrderOutcome, Restored, StateStore, StoreError, Turn};
use crate::telemetry::{Figures, Repeats};

/// How many inputs one turn takes at most: bounds the time until its effects are let out.
const MOST_INPUTS: usize = 256;

/// Buffers keep room for so many readings from turn to turn; what a burst needed beyond it is given back.
const KEPT_ROOM: usize = 4_096;

/// What the loop is made of, as `app` composes it.
pub struct Parts {
    pub clock: Clock,
    pub points: Points,
    pub router: Router,
    pub validator: Validator,
    pub engine: Engine,
    /// `None`: the state directory could not be opened; alarms go out from memory.
    pub journal: Option<StateStore>,
    pub readings: Option<Readings>,
    pub couriers: BTreeMap<Arc<str>, CourierHandle>,
    pub feed: Feed,
    /// What takes the self-test's beats through; `None` where nobody sends any.
    pub pulse: Option<Pulse>,
    pub figures: Figures,
    /// Orders of the last run that went to the couriers again.
    pub orders_waiting: usize,
}

impl Parts {
    /// Takes up what the last run left in the journal: open alarms and their calls, and the orders without a receipt,
    /// which go to the couriers again under the same ids. Once, before the loop is made.
    pub fn take_up(&mut self, now: Now, restored: Restored) {
        let Restored { alarms, calls, orders, .. } = restored;
        if alarms.len() + orders.len() > 0 {
            info!("taken up from the journal: {} open alarms, {} orders to send again", alarms.len(), orders.len());
        }
        self.engine.restore(now, alarms, calls.iter().map(|change| change.call.clone()).collect());
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
    changed: BTreeSet<PointIx>,
    readings_due: Mono,
    figures_due: Mono,
    repeats: Repeats,
    scratch: Scratch,
}

/// What a person is told once their command is durable.
type Reply = (oneshot::Sender<Result<(), Refusal>>, Result<(), Refusal>);

/// Buffers that are used again every turn.
#[derive(Default)]
struct Scratch {
    readings: Vec<Reading>,
    samples: Vec<Sample>,
    batch: Vec<Sample>,
    acks: Vec<Ack>,
    replies: Vec<Reply>,
    outcomes: Vec<OrderOutcome>,
    effects: Effects,
    /// The beat of this turn, and what is to be carried of it.
    beat: Option<(u64, Vec<Order>)>,
}

/// What the engine wants done, sorted as the journal takes it.
#[derive(Default)]
struct Effects {
    transitions: Vec<Arc<Transition>>,
    calls: Vec<Arc<CallChange>>,
    orders: Vec<Order>,
}

impl Effects {
    fn append(&mut self, later: &mut Self) {
        self.transitions.append(&mut later.transitions);
        self.calls.append(&mut later.calls);
        self.orders.append(&mut later.orders);
    }
}

impl MainLoop {
    pub fn new(mut parts: Parts) -> Self {
        let started = parts.clock.now();
        parts.engine.bind(&parts.points);
        parts.validator.watch(&parts.points, started);
        Self {
            started,
            known_points: parts.points.len(),
            stored_points: 0,
            troubles: BTreeMap::new(),
            journal_trouble: None,
            changed: BTreeSet::new(),
            readings_due: started.mono,
            figures_due: started.mono,
            repeats: Repeats::default(),
            scratch: Scratch::default(),
            parts,
        }
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
                taken = inputs.recv_many(&mut batch, MOST_INPUTS) => if taken == 0 { break },
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
        [self.parts.engine.poll_timeout(), self.parts.validator.poll_timeout(), feed].into_iter().flatten().min()
    }

    /// One turn over everything that came in. False when the loop shall end.
    pub fn turn(&mut self, inputs: &mut Vec<Input>) -> bool {
        let now = self.parts.clock.now();
        let mut go_on = true;
        for input in inputs.drain(..) {
            match input {
                Input::Messages { source, messages } => self.decode(now, &source, messages),
                Input::Readings(mut readings) => self.scratch.readings.append(&mut readings),
                Input::Stop => go_on = false,
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
        self.let_out(now);
        self.scratch.readings.shrink_to(KEPT_ROOM);
        self.scratch.samples.shrink_to(KEPT_ROOM);
        self.show_readings(now);
        if now.mono >= self.figures_due {
            self.figures_due = now.mono.plus(Duration::from_secs(1));
            self.parts.figures.set(self.status(now));
        }
        go_on
    }

    fn decode(&mut self, now: Now, source: &Arc<str>, messages: Vec<Message>) {
        let Parts { router, points, .. } = &mut self.parts;
        for message in messages {
            let first = self.scratch.readings.len();
            let decoded = router.decode(
                points,
                source,
                &message.topic,
                &message.payload,
                message.retained,
                message.received,
                &mut self.scratch.readings,
            );
            if let Err(rejected) = decoded
                && let Some(more) = self.repeats.say(rejected.why.as_str(), now.mono)
            {
                warn!(source = &**source, more, "{rejected}");
            }
            if message.redelivered {
                self.scratch.readings[first..].iter_mut().for_each(|reading| reading.redelivered = true);
            }
            self.scratch.acks.extend(message.ack);
        }
        if points.len() > self.known_points {
            self.known_points = points.len();
            self.parts.engine.bind(&self.parts.points);
            self.parts.validator.watch(&self.parts.points, now);
        }
    }

    /// Readings to samples to verdicts.
    fn judge(&mut self, now: Now) {
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
            Input::Part(state) => self.handle_part(now, state),
            Input::Command { command, reply } => {
                let result = self.parts.engine.handle_command(now, command);
                // The person hears of it when it is durable.
                self.scratch.replies.push((reply, result));
            }
            Input::Outcome { order, .. } if Pulse::owns(&order) => {}
            Input::Outcome { order, outcome } => {
                self.parts.orders_waiting = self.parts.orders_waiting.saturating_sub(1);
                self.scratch.outcomes.push(OrderOutcome { order, outcome, at: now.wall });
            }
            Input::Query(query) => self.answer(now, query),
            Input::Pulse(beat) => {
                let orders = self.parts.pulse.as_mut().map(|pulse| pulse.beat(now, beat));
                self.scratch.beat = orders.map(|orders| (beat, orders));
            }
            Input::Messages { .. } | Input::Readings(_) | Input::Stop => {}
        }
    }

    fn handle_part(&mut self, now: Now, state: PartState) {
        match &state.trouble {
            Some(trouble) => {
                warn!(part = &*state.part, "{}", trouble.message.en);
                self.troubles.insert(Arc::clone(&state.part), trouble.clone());
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

    /// Journal first, then the world.
    fn let_out(&mut self, now: Now) {
        let mut committed = Effects::default();
        loop {
            self.drain_effects();
            let change = self.commit();
            committed.append(&mut self.scratch.effects);
            // The journal fell ill or got well: that is an alarm too, journaled like any other, and goes out with this
            // turn.
            let Some(change) = change else { break };
            self.handle_part(now, change);
        }
        self.scratch.effects = committed;
        let scratch = &mut self.scratch;
        for transition in scratch.effects.transitions.drain(..) {
            info!(
                alarm = %transition.alarm.id,
                rule = %transition.alarm.rule,
                subject = transition.alarm.subject.as_str(),
                level = transition.alarm.level.as_str(),
                state = transition.to.as_str(),
                cause = transition.cause.as_str(),
                "{}",
                transition.alarm.message.en
            );
            self.parts.feed.publish(FeedEvent::Transition(transition));
        }
        for change in scratch.effects.calls.drain(..) {
            info!(alarm = %change.call.alarm, station = &*change.call.station, state = change.call.state.as_str(), "{}", change.message.en);
            self.parts.feed.publish(FeedEvent::Call(change));
        }
        self.parts.orders_waiting += scratch.effects.orders.len();
        for order in scratch.effects.orders.drain(..) {
            match self.parts.couriers.get(&order.channel) {
                Some(courier) => courier.send(order),
                None => {
                    error!(order = %order.id, "way out {} is gone from the configuration; the order stays in the journal", order.channel)
                }
            }
        }
        for (reply, result) in scratch.replies.drain(..) {
            // The asker may have hung up; the command holds all the same.
            let _ = reply.send(result);
        }
        self.let_out_beat(now);
        let scratch = &mut self.scratch;
        if scratch.batch.is_empty() && scratch.acks.is_empty() {
            return;
        }
        let spare = self.parts.readings.as_ref().map(Readings::spare).unwrap_or_default();
        let (batch, acks) = (std::mem::replace(&mut scratch.batch, spare), std::mem::take(&mut scratch.acks));
        if self.journal_trouble.is_some() || self.parts.journal.is_none() {
            // Not safe yet: dropped tokens leave the messages with the broker, which delivers them again.
            drop(acks);
            self.append(batch, Vec::new());
        } else {
            self.append(batch, acks);
        }
    }

    /// The self-test's beat goes the way of a turn that raised an alarm: journal, courier, readings.
    fn let_out_beat(&mut self, now: Now) {
        let (Some((beat, orders)), Some(pulse)) = (self.scratch.beat.take(), &self.parts.pulse) else { return };
        let progress = pulse.progress();
        let journaled = self.parts.journal.as_mut().map_or(Ok(()), |journal| journal.mark_alive(now.wall));
        if journaled.is_ok() {
            progress.reach(Stage::Journaled, beat);
        }
        orders.into_iter().for_each(|order| pulse.send(order));
        let stored = Ack::new(move || progress.reach(Stage::Stored, beat));
        match &self.parts.readings {
            Some(readings) => readings.append(ReadingsBatch::default(), vec![stored]),
            // Its absence has an alarm of its own.
            None => stored.done(),
        }
    }

    fn append(&mut self, batch: Vec<Sample>, acks: Vec<Ack>) {
        let Some(readings) = &self.parts.readings else { return };
        let points = &self.parts.points;
        let new = (self.stored_points..points.len()).map(|n| NewPoint::of(points, PointIx(n as u32))).collect();
        self.stored_points = points.len();
        readings.append(ReadingsBatch { points: new, samples: batch }, acks);
    }

    fn drain_effects(&mut self) {
        while let Some(effect) = self.parts.engine.poll_effect() {
            match effect {
                Effect::Transition(transition) => self.scratch.effects.transitions.push(transition),
                Effect::Call(change) => self.scratch.effects.calls.push(change),
                Effect::Order(order) => self.scratch.effects.orders.push(order),
            }
        }
    }

    /// Commits the turn. Gives the journal's change of health, if it changed.
    fn commit(&mut self) -> Option<PartState> {
        let scratch = &mut self.scratch;
        let turn = Turn {
            transitions: &scratch.effects.transitions,
            calls: &scratch.effects.calls,
            orders: &scratch.effects.orders,
            outcomes: &scratch.outcomes,
        };
        let Some(journal) = self.parts.journal.as_mut() else {
            scratch.outcomes.clear();
            return None;
        };
        if turn.is_empty() && self.journal_trouble.is_none() {
            return None;
        }
        let result = journal.commit(&turn);
        scratch.outcomes.clear();
        let part: Arc<str> = Arc::from("store:state");
        match (result, self.journal_trouble.take()) {
            (Ok(()), None) => None,
            (Ok(()), Some(_)) => Some(PartState { part, trouble: None }),
            (Err(error), before) => {
                let news = before.is_none();
                let message = error.text();
                self.journal_trouble = Some(error);
                let finding = Finding { level: Level::Orange, limit: None, note: None };
                news.then_some(PartState { part, trouble: Some(super::PartTrouble { finding, message }) })
            }
        }
    }

    fn show_readings(&mut self, now: Now) {
        if self.changed.is_empty() || now.mono < self.readings_due {
            return;
        }
        self.readings_due = now.mono.plus(Feed::READINGS_EVERY);
        let truncated = self.changed.len() > Feed::MOST_ROWS;
        let rows = std::mem::take(&mut self.changed)
            .into_iter()
            .take(Feed::MOST_ROWS)
            .filter_map(|ix| Some((self.parts.points.point(ix).id.clone(), self.parts.validator.latest(ix)?)))
            .collect();
        self.parts.feed.publish(FeedEvent::Readings(Arc::new(super::feed::Readings { rows, truncated })));
    }

    fn answer(&self, now: Now, query: Query) {
        let Parts { points, engine, validator, router, .. } = &self.parts;
        let latest = |ix: PointIx| validator.latest(ix);
        // Each reply may find nobody: the asker has gone, which is its own business.
        match query {
            Query::Alarms { filter, reply } => {
                let _ = reply.send(AlarmList::select(&filter, engine.alarms(), engine.calls()));
            }
            Query::Alarm { id, reply } => {
                let view =
                    engine.alarm(id).map(|alarm| AlarmView { alarm: Arc::clone(alarm), calls: engine.calls_of(id) });
                let _ = reply.send(view);
            }
            Query::Points { filter, page, reply } => {
                let _ = reply.send(PointPage::select(points, &filter, page, latest));
            }
            Query::Point { id, reply } => {
                let _ = reply.send(points.find(id.as_str()).map(|ix| PointRow::of(points, ix, latest(ix))));
            }
            Query::PointChoices { reply } => {
                let _ = reply.send(PointChoices::of(points));
            }
            Query::Devices { page, reply } => {
                let _ = reply.send(DevicePage::select(points, page, latest));
            }
            Query::Quarantine { reply } => {
                let _ = reply.send(router.quarantined().map(quarantined).collect());
            }
            Query::Status { reply } => {
                let _ = reply.send(self.status(now));
            }
        }
    }

    fn status(&self, now: Now) -> Status {
        let Parts { points, engine, validator, router, readings, .. } = &self.parts;
        let (validated, stored) = (validator.counts(), readings.as_ref().map(Readings::counts).unwrap_or_default());
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
        Status {
            now: now.wall,
            uptime: now.mono.since(self.started.mono),
            counts: engine.counts(),
            readings: ReadingCounts {
                received: validated.received + router.counts().quarantined + router.counts().rejected,
                evaluated: validated.evaluated,
                duplicate: validated.duplicate,
                quarantined: router.counts().quarantined,
                rejected: router.counts().rejected,
                silent: validated.silent,
            },
            stored,
            points: points.len(),
            devices: points.devices().len(),
            quarantined: router.quarantined().len(),
            rules: engine.rules().rules().len(),
            broken_rules: engine.broken_rules().map(ToString::to_string).collect(),
            troubles,
            orders_waiting: self.parts.orders_waiting,
            readings_waiting: stored.waiting as usize,
        }
    }
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
