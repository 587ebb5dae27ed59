//! anmin watches itself: a synthetic reading travels the real path every [`EVERY`] and must come out at its end.
//!
//! A thread of its own puts the beat into the main loop's queue. The loop validates a reading that crosses a limit and
//! one that is back, its rule raises an alarm, a command acknowledges it, it clears; the turn is marked in the journal,
//! the readings' writer acknowledges, and a courier carries the alarm to nowhere. Point, rule and alarm live in a small
//! site of their own, so that nothing of them shows among the community's or reaches a database; the queue, the thread,
//! the code and the disks are the real ones.
//!
//! | what comes back | what follows |
//! |---|---|
//! | all of it within [`LIMIT`] | `anmin_pulse_*` say when and how fast; `self-test` is well; every third is told upstream |
//! | judged and carried, but a disk did not answer | system alarm `self-test` that names it; the system's watchdog is fed all the same, since a restart mends no disk |
//! | not judged or not carried | system alarm if the loop still takes one, an error in the log, and nothing for the watchdog: systemd restarts anmin |
//!
//! Never feed the watchdog from anywhere else: a timer that runs proves nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anmin_rules::alarm::{Action, AlarmId, Command, Transition};
use anmin_rules::engine::{Effect, Engine};
use anmin_rules::order::{Channel, ChannelForm, Order, OrderBody, OrderId};
use anmin_rules::response::DeskSettings;
use anmin_rules::rule::{Finding, Level, Text};
use anmin_rules::set::{RuleSet, RuleSource};
use anmin_sensors::document::Faults;
use anmin_sensors::point::{DeviceId, Kind, Place, PointIx, PointSpec, Points};
use anmin_sensors::reading::{Reading, Value};
use anmin_sensors::time::{Now, Wall};
use anmin_sensors::validator::Validator;
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

use crate::clock::Clock;
use crate::delivery::courier::{self, CourierHandle};
use crate::delivery::{Carrier, DeliveryError, Receipt};
use crate::main_loop::query::Status;
use crate::main_loop::{Input, PartState, PartTrouble};
use crate::telemetry::Figures;

/// From beat to beat.
pub const EVERY: Duration = Duration::from_secs(10);

/// A beat that is not through by then has failed.
pub const LIMIT: Duration = Duration::from_secs(15);

/// The part that system alarms about it name.
pub const PART: &str = "self-test";

/// No way out of a site can have this id: it holds a colon.
const CHANNEL: &str = "anmin:pulse";

/// How far a beat has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The rule raised and cleared its alarm.
    Judged,
    /// The journal holds the turn.
    Journaled,
    /// The readings' writer has acknowledged.
    Stored,
    /// The courier has carried the alarm.
    Carried,
}

impl Stage {
    pub const ALL: [Self; 4] = [Self::Judged, Self::Journaled, Self::Stored, Self::Carried];

    fn text(self) -> (&'static str, &'static str) {
        match self {
            Self::Judged => ("规则判断", "the judgement by its rule"),
            Self::Journaled => ("报警日志写盘", "the journal's write to disk"),
            Self::Stored => ("数据写盘", "the readings' write to disk"),
            Self::Carried => ("报警外发", "the delivery of its alarm"),
        }
    }
}

/// The last beat that reached each stage, shared by all who carry it.
#[derive(Debug, Default)]
pub struct Progress {
    reached: Mutex<[u64; 4]>,
    moved: Condvar,
}

impl Progress {
    pub fn reach(&self, stage: Stage, beat: u64) {
        let mut reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        reached[stage as usize] = beat.max(reached[stage as usize]);
        self.moved.notify_all();
    }

    /// Waits until the beat has passed every stage, `limit` at most. Gives the stages that it has not.
    fn wait(&self, beat: u64, limit: Duration) -> Vec<Stage> {
        let reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        let reached = self
            .moved
            .wait_timeout_while(reached, limit, |reached| reached.iter().any(|last| *last < beat))
            .unwrap_or_else(PoisonError::into_inner)
            .0;
        Stage::ALL.into_iter().filter(|stage| reached[*stage as usize] < beat).collect()
    }
}

/// The main loop's side: a site of one point, one rule and one way out.
pub struct Pulse {
    points: Points,
    validator: Validator,
    engine: Engine,
    courier: CourierHandle,
    progress: Arc<Progress>,
}

const RULE: &str = r#"
title = { zh = "自检", en = "self-test" }
on_delay = "0s"
off_delay = "0s"
latch = false
[[input]]
role = "beat"
kind = "fire.call_point"
[message]
zh = "自检"
en = "self-test"
[advice]
zh = "无"
en = "none"
[[case]]
name = "it beats"
steps = [{ at = "0s", beat = true, expect = "blue" }]
"#;

const SCRIPT: &str = "fn judge(beat) { if on(beat) { blue() } else { normal() } }";

impl Pulse {
    /// Call it inside a Tokio runtime: its courier is a task there. `seed` as for [`Engine::new`].
    pub fn new(seed: u64, clock: Clock, inputs: mpsc::Sender<Input>) -> Self {
        let mut points = Points::default();
        // A button: what a person presses is never held back as chatter, and nor must this be.
        let kind = Kind::named("fire.call_point").expect("the kind is in the table");
        let spec = Arc::new(PointSpec::plain("beat", kind));
        points
            .add(DeviceId::new("anmin"), None, &Arc::from("anmin"), &Arc::new(Place::default()), &[spec])
            .expect("the first device is no repeat");
        let source = RuleSource {
            folder: "anmin".to_owned(),
            name: "anmin/pulse".to_owned(),
            toml: RULE.to_owned(),
            script: SCRIPT.to_owned(),
        };
        let rules = RuleSet::load(vec![source], Vec::new(), &Faults::default());
        let channel = Channel { drills: false, ..Channel::new(CHANNEL, ChannelForm::Events, Level::Blue) };
        let mut engine = Engine::new(rules, DeskSettings { channels: vec![channel], ..DeskSettings::default() }, seed);
        engine.bind(&points);
        let progress = Arc::<Progress>::default();
        let (courier, _ends_with_its_handle) =
            courier::spawn(Nowhere(Arc::clone(&progress)), CHANNEL.into(), clock, inputs);
        Self { points, validator: Validator::default(), engine, courier, progress }
    }

    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Whether an order is one of a beat, which the journal knows nothing of.
    pub fn owns(order: &OrderId) -> bool {
        order.as_str().ends_with(CHANNEL)
    }

    /// Takes one beat through validator, rule and alarm. Gives what is to be carried, once the turn is durable.
    pub fn beat(&mut self, now: Now, beat: u64) -> Vec<Order> {
        let mut orders = Vec::new();
        self.hear(now, beat, true);
        let raised = self.drain(&mut orders);
        for alarm in raised {
            // The alarm is its own: no refusal can matter but by the beat not coming through.
            let _ = self
                .engine
                .handle_command(now, Command { who: "anmin".to_owned(), what: Action::Acknowledge { alarm } });
        }
        self.hear(now, beat, false);
        self.drain(&mut orders);
        if self.engine.counts().open == 0 && !orders.is_empty() {
            self.progress.reach(Stage::Judged, beat);
        }
        orders
    }

    pub fn send(&self, order: Order) {
        self.courier.send(order);
    }

    fn hear(&mut self, now: Now, beat: u64, value: bool) {
        let reading = Reading {
            point: PointIx(0),
            value: Ok(Value::Flag(value)),
            source_time: None,
            received: now,
            sequence: Some(beat),
            redelivered: false,
            historical: false,
            retained: false,
            warming_up: false,
        };
        let mut samples = Vec::new();
        self.validator.handle_readings(now, &self.points, &[reading], &mut samples);
        self.engine.handle_samples(now, &self.points, &samples);
    }

    fn drain(&mut self, orders: &mut Vec<Order>) -> Vec<AlarmId> {
        let mut alarms = Vec::new();
        while let Some(effect) = self.engine.poll_effect() {
            match effect {
                Effect::Transition(transition) => alarms.push(transition.alarm.id),
                Effect::Order(order) => orders.push(order),
                Effect::Call(_)
                | Effect::Incident(_)
                | Effect::Pending(_)
                | Effect::Duty(_)
                | Effect::Drill(_)
                | Effect::Walk(_) => {}
            }
        }
        alarms
    }
}

/// The way out of a beat.
struct Nowhere(Arc<Progress>);

impl Carrier for Nowhere {
    async fn carry(&self, order: &Order) -> Result<Receipt, DeliveryError> {
        if let Some(beat) = beat_of(order) {
            self.0.reach(Stage::Carried, beat);
        }
        Ok(Receipt::of("carried to nowhere"))
    }
}

fn beat_of(order: &Order) -> Option<u64> {
    let OrderBody::Event(transition) = &order.body else { return None };
    let Transition { alarm, .. } = &**transition;
    alarm.evidence.sequence
}

/// What the watching thread has seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seen {
    /// Beats that did not come through.
    pub failed: u64,
    /// When the last one came through, and how long it took.
    pub last: Option<(Wall, Duration)>,
}

/// The thread that sends beats and watches them come back. Ends when dropped.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// `progress` is what [`Pulse::progress`] gave; `came_through` is told each beat that was judged and carried.
    pub fn start(
        progress: Arc<Progress>,
        clock: Clock,
        inputs: mpsc::Sender<Input>,
        figures: Figures,
        came_through: watch::Sender<u64>,
    ) -> Result<Self, String> {
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("anmin-watch".to_owned())
            .spawn(move || {
                let mut watcher =
                    Watcher { progress, inputs, beat: 0, ill: false, ready: false, seen: Seen::default() };
                while !stopped.load(Ordering::Acquire) {
                    let start = Instant::now();
                    let missing = watcher.beat(LIMIT);
                    let standing = standing(&figures.status());
                    if watcher.judge(&missing, &standing, clock.now().wall, start.elapsed()) {
                        came_through.send_modify(|count| *count += 1);
                    }
                    figures.set_pulse(watcher.seen);
                    std::thread::park_timeout(EVERY.saturating_sub(start.elapsed()));
                }
            })
            .map_err(|error| format!("cannot start the self-test: {error}"))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        notify(&[sd_notify::NotifyState::Stopping]);
        if let Some(thread) = self.thread.take() {
            // It may be in the middle of a beat that nobody answers any more: it ends by itself.
            thread.thread().unpark();
        }
    }
}

struct Watcher {
    progress: Arc<Progress>,
    inputs: mpsc::Sender<Input>,
    beat: u64,
    ill: bool,
    ready: bool,
    seen: Seen,
}

impl Watcher {
    /// Sends one beat and waits for it. Gives the stages that it did not pass.
    fn beat(&mut self, limit: Duration) -> Vec<Stage> {
        self.beat += 1;
        // A full queue is a loop that does not follow: the beat is lost, which is the finding.
        let _ = self.inputs.try_send(Input::Pulse(self.beat));
        self.progress.wait(self.beat, limit)
    }

    /// True when the beat was judged and carried: anmin is alive. `standing` is what `systemctl status` shows then.
    fn judge(&mut self, missing: &[Stage], standing: &str, wall: Wall, took: Duration) -> bool {
        let alive = !missing.contains(&Stage::Judged) && !missing.contains(&Stage::Carried);
        let message = text(missing);
        let mut states = Vec::new();
        if alive {
            if !std::mem::replace(&mut self.ready, true) {
                states.push(sd_notify::NotifyState::Ready);
            }
            states.push(sd_notify::NotifyState::Watchdog);
        }
        let said = if missing.is_empty() { standing } else { &message.en };
        states.push(sd_notify::NotifyState::Status(said));
        notify(&states);
        if missing.is_empty() {
            self.seen.last = Some((wall, took));
            if std::mem::take(&mut self.ill) {
                info!("the self-test comes through again");
                self.say(None);
            }
            return alive;
        }
        self.seen.failed += 1;
        if alive {
            warn!("{}", message.en);
        } else {
            error!("{}", message.en);
        }
        self.ill = true;
        self.say(Some(PartTrouble { finding: Finding { level: Level::Orange, limit: None, note: None }, message }));
        alive
    }

    fn say(&self, trouble: Option<PartTrouble>) {
        // The log has it; a loop that stands still takes no alarm, and the system's watchdog is not fed.
        let _ = self.inputs.try_send(Input::Part(PartState { part: PART.into(), trouble }));
    }
}

/// How anmin stands, on one line.
fn standing(status: &Status) -> String {
    let counts = &status.counts;
    let mut said =
        format!("watching {} points of {} devices; alarms open: {}", status.points, status.devices, counts.open);
    for level in Level::ALL.into_iter().rev().filter(|level| counts.at(*level) > 0) {
        said.push_str(&format!(", {} {}", level.as_str(), counts.at(level)));
    }
    if !status.troubles.is_empty() {
        said.push_str(&format!("; ill: {}", status.troubles.len()));
    }
    said
}

fn text(missing: &[Stage]) -> Text {
    let words: Vec<_> = missing.iter().map(|stage| stage.text()).collect();
    let join = |between: &str, pick: fn(&(&'static str, &'static str)) -> &'static str| -> String {
        words.iter().map(pick).collect::<Vec<_>>().join(between)
    };
    let seconds = LIMIT.as_secs();
    Text {
        zh: format!("自检未通过：{seconds}秒内未完成{}", join("、", |(zh, _)| zh)),
        en: format!("the self-test did not come through: {} took more than {seconds} s", join(" and ", |(_, en)| en)),
    }
}

/// Tells systemd, where it asked to be told.
fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "systemd's notification socket does not answer");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(seconds: u64) -> Now {
        let clock = Clock::manual(Wall::from_micros(1_772_328_600_000_000));
        clock.advance(Duration::from_secs(seconds));
        clock.now()
    }

    #[tokio::test]
    async fn each_beat_raises_acknowledges_and_clears_its_alarm_and_leaves_nothing() {
        let (inputs, mut outcomes) = mpsc::channel(64);
        let mut pulse = Pulse::new(1, Clock::system(), inputs);
        for beat in 1..=100 {
            let orders = pulse.beat(now(beat * 10), beat);
            assert_eq!(orders.len(), 3, "raised, acknowledged, closed: {orders:?}");
            assert!(orders.iter().all(|order| Pulse::owns(&order.id) && beat_of(order) == Some(beat)), "{orders:?}");
            assert_eq!(pulse.engine.counts().open, 0);
            orders.into_iter().for_each(|order| pulse.send(order));
            for _ in 0..3 {
                let input = outcomes.recv().await;
                assert!(matches!(&input, Some(Input::Outcome { order, .. }) if Pulse::owns(order)), "{input:?}");
            }
            let progress = pulse.progress();
            assert_eq!(progress.wait(beat, Duration::ZERO), [Stage::Journaled, Stage::Stored]);
        }
    }

    /// A name, the stages that came back, whether the watchdog is fed, and what is said.
    #[test]
    fn what_does_not_come_back_is_named() {
        let cases: [(&str, &[Stage], bool, &str); 4] = [
            ("well", &[Stage::Judged, Stage::Journaled, Stage::Stored, Stage::Carried], true, ""),
            ("the loop stands", &[], false, "the judgement by its rule and"),
            (
                "readings.db",
                &[Stage::Judged, Stage::Journaled, Stage::Carried],
                true,
                "the readings' write to disk took",
            ),
            ("no courier", &[Stage::Judged, Stage::Journaled, Stage::Stored], false, "the delivery of its alarm took"),
        ];
        for (name, reached, fed, said) in cases {
            let (inputs, mut queue) = mpsc::channel(4);
            let progress = Arc::<Progress>::default();
            let mut watcher = Watcher {
                progress: Arc::clone(&progress),
                inputs,
                beat: 0,
                ill: false,
                ready: false,
                seen: Seen::default(),
            };
            reached.iter().for_each(|stage| progress.reach(*stage, 1));
            let missing = watcher.beat(Duration::ZERO);
            watcher.judge(&missing, "", Wall::default(), Duration::ZERO);
            assert_eq!(watcher.ready, fed, "{name}");
            assert!(matches!(queue.try_recv(), Ok(Input::Pulse(1))), "{name}");
            match queue.try_recv() {
                Ok(Input::Part(PartState { part, trouble: Some(trouble) })) => {
                    assert_eq!(&*part, PART);
                    assert!(trouble.message.en.contains(said) && !said.is_empty(), "{name}: {}", trouble.message.en);
                }
                other => assert!(said.is_empty() && other.is_err(), "{name}: {other:?}"),
            }
            // The next beat comes through, and the alarm goes.
            Stage::ALL.iter().for_each(|stage| progress.reach(*stage, 2));
            let missing = watcher.beat(Duration::ZERO);
            watcher.judge(&missing, "", Wall::default(), Duration::ZERO);
            assert!(watcher.ready && watcher.seen.last.is_some(), "{name}");
            assert!(matches!(queue.try_recv(), Ok(Input::Pulse(2))), "{name}");
            let well = queue.try_recv();
            assert_eq!(matches!(well, Ok(Input::Part(PartState { trouble: None, .. }))), !said.is_empty(), "{name}");
        }
    }

    #[test]
    fn how_it_stands_is_said_gravest_first() {
        let mut status = Status { points: 7, devices: 3, ..Status::default() };
        assert_eq!(standing(&status), "watching 7 points of 3 devices; alarms open: 0");
        status.counts.open = 4;
        status.counts.by_level = [0, 1, 0, 2];
        assert_eq!(standing(&status), "watching 7 points of 3 devices; alarms open: 4, red 2, yellow 1");
    }

    #[test]
    fn a_queue_that_is_full_is_a_loop_that_stands_still() {
        let (inputs, _queue) = mpsc::channel(1);
        inputs.try_send(Input::Stop).expect("there is room for one");
        let mut watcher =
            Watcher { progress: Arc::default(), inputs, beat: 0, ill: false, ready: false, seen: Seen::default() };
        assert_eq!(watcher.beat(Duration::ZERO), Stage::ALL);
        watcher.judge(&Stage::ALL, "", Wall::default(), Duration::ZERO);
        assert!(!watcher.ready, "the watchdog is not fed");
        assert_eq!(watcher.seen.failed, 1);
    }
}
