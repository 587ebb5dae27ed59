//! One simulated time from one seed: events in order, a turn of the box at each, and everything checked after it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anmin::delivery::courier::Lane;
use anmin::delivery::{DeliveryError, Outcome, Receipt};
use anmin::main_loop::{Input, SessionStart};
use anmin::store::Reader;
use anmin::store::audit::{Through, Way};
use anmin::store::suspects::Suspects;
use anmin_rules::alarm::{Action, Alarm, AlarmId, Command, Refusal};
use anmin_rules::incident::{IncidentAction, Outcome as End};
use anmin_rules::order::{CallStep, Order};
use anmin_rules::rule::Level;
use anmin_sensors::reading::Value;
use anmin_sensors::time::Wall;
use tokio::sync::oneshot;

use crate::dice::Dice;
use crate::gateway::{Birth, DiskState, Life, Stop, Weather};
use crate::model::{Journal, Model};
use crate::site::{self, CHANNELS, MAX_SHELVE, MINUTE, RulePlan, SECOND, SILENT_AFTER, SOURCE};
use crate::world::{Broker, Device, Mood, Msg, Receiver, Said, Stamp, TRUE_START};

/// The longest that people put an alarm on the shelf.
const LONGEST_SHELF: u64 = 3 * MINUTE;

/// How long an acknowledgement waits for a journal that is away.
const HELD: u64 = 10 * SECOND;

/// How much is simulated.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    pub devices: usize,
    pub period: u64,
    pub lasts: u64,
    /// Devices speak at multiples of this: those that speak together share a turn.
    pub grid: u64,
    /// How many readings in how many stand elsewhere than the one before.
    pub moves: (u64, u64),
    /// After how many readings in how many a device says nothing for some minutes.
    pub rests: (u64, u64),
    /// People do something after between so much time and so much.
    pub people: (u64, u64),
    /// Screens are looked at no more often than this, and everything that grows with time no more often than that.
    pub looks: u64,
    pub stocktaking: u64,
    /// How much of the time receivers take what they are sent, in percent.
    pub well: u64,
}

impl Scale {
    /// Mostly a few devices for some minutes; one seed in fifty has many of them.
    pub fn of(seed: u64) -> Self {
        let mut dice = Dice::new(seed, 1);
        let (devices, period, lasts) = match seed % 50 {
            49 => (150, 10 * SECOND, 2 * MINUTE),
            _ => (dice.from(2, 9) as usize, dice.from(2, 20) * SECOND, dice.from(2, 7) * MINUTE),
        };
        let people = (3 * SECOND, 40 * SECOND);
        Self {
            devices,
            period,
            lasts,
            grid: 1,
            moves: (20, 100),
            rests: (2, 100),
            people,
            looks: 0,
            stocktaking: 0,
            well: 33,
        }
    }

    /// A thousand points at 1 Hz for a day, or so many hours of it.
    pub fn day(hours: u64) -> Self {
        Self {
            devices: 1_000,
            period: SECOND,
            lasts: hours * 60 * MINUTE,
            grid: SECOND / 20,
            moves: (1, 20_000),
            rests: (1, 10_000),
            people: (2 * SECOND, 20 * SECOND),
            looks: SECOND,
            stocktaking: 5 * MINUTE,
            // What waits for a receiver must not grow all day: each of a thousand starts would read it again.
            well: 75,
        }
    }
}

/// Lines of the trace that are kept for whoever looks for a fault.
fn trace_lines() -> usize {
    std::env::var("ANMIN_TRACE").ok().and_then(|lines| lines.parse().ok()).unwrap_or(120)
}

/// What a run leaves for comparison.
#[derive(Debug, PartialEq)]
pub struct Ending {
    /// What the prompt rule's conditions did, of devices whose repeats can be told.
    pub edges: BTreeMap<String, Vec<usize>>,
    pub lives: u64,
    pub turns: u64,
    pub readings: u64,
    pub transitions: u64,
    pub taken: u64,
    /// What receivers were sent more than once.
    pub repeats: u64,
    /// Devices of which the box has forgotten something, as it may.
    pub forgotten: BTreeSet<String>,
    /// The same for the same seed, or the simulation does not replay.
    pub print: u64,
}

#[derive(Debug)]
enum Event {
    /// A device speaks at its own time, whatever holds up the box.
    Speak {
        device: usize,
        at: u64,
    },
    Boot,
    Arm(Stop),
    StopNow,
    Disk {
        state: Weather,
        readings: Weather,
    },
    StepWall(i64),
    Mood(usize, Mood),
    Operate,
    Connect,
    CutBroker,
    WriteReadings,
    Take {
        life: u64,
        channel: usize,
        order: Box<Order>,
    },
    Answer {
        life: u64,
        channel: usize,
        lane: Lane,
        id: String,
        answer: Result<Receipt, DeliveryError>,
    },
}

/// A deadline that the box must keep, in true time.
#[derive(Clone, Debug)]
struct Deadline {
    /// What it was set for: escalation step, or end of the shelf by the wall clock.
    about: i64,
    limit: u64,
}

pub struct Run {
    seed: u64,
    rough: bool,
    scale: Scale,
    t: u64,
    plans: [RulePlan; 2],
    devices: Vec<Device>,
    known: bool,
    broker: Broker,
    receivers: Vec<Receiver>,
    model: Model,
    journal: Journal,
    life: Option<Life>,
    lives: u64,
    events: BTreeMap<(u64, u64), Event>,
    counter: u64,
    next_msg: u64,
    dice: Dice,
    base: PathBuf,
    next_disk: (Weather, Weather),
    armed: Option<Stop>,
    durable: bool,
    inputs: Vec<Input>,
    replies: Vec<oneshot::Receiver<Result<(), Refusal>>>,
    /// Messages that something follows from which is not in the journal yet, and when they came.
    unsafe_msgs: BTreeMap<u64, u64>,
    /// Devices of which such a message was acknowledged, since the journal was away for too long; and those of which a
    /// crash then made the box forget it.
    unsafe_devices: BTreeSet<usize>,
    forgotten: BTreeSet<usize>,
    /// Messages that were acknowledged while readings.db was away: in memory only; and those that a crash took.
    in_memory: BTreeSet<u64>,
    given_up: BTreeSet<u64>,
    /// Messages that were in memory only when the box had to give up some because it held too many; how many readings it
    /// said that it gave up, and how many of these were missed.
    crowded: BTreeSet<u64>,
    shed: u64,
    shed_in_life: u64,
    missed: u64,
    /// Messages that were acknowledged and that nobody has seen stored yet: number, device, and the bits of the value.
    owed: Vec<(u64, usize, u64)>,
    stored: Stored,
    /// Rows of what was judged that were seen.
    marks: i64,
    /// Orders whose delivery this life knows of; and whose receipt is safe, or on its way to be.
    told: BTreeSet<String>,
    receipts: BTreeSet<String>,
    receipts_coming: Vec<(u64, String)>,
    dead: BTreeSet<String>,
    /// Orders sent while the journal could not be written.
    from_memory: BTreeSet<String>,
    writing: bool,
    alarms: Vec<Arc<Alarm>>,
    calls: Vec<(AlarmId, String)>,
    shelves: BTreeMap<AlarmId, Deadline>,
    escalations: BTreeMap<AlarmId, Deadline>,
    /// When each device was last heard at the latest.
    heard: Vec<u64>,
    wall_error: i64,
    steps_walls: bool,
    turns: u64,
    resting: u64,
    looked: u64,
    look_again: u64,
    stocktaking_at: u64,
    looked_hours: u64,
    /// Nobody has looked at the screens of this life yet.
    just_begun: bool,
    readings: u64,
    print: u64,
    ending: bool,
    trace: Option<VecDeque<String>>,
}

macro_rules! tell {
    ($run:expr, $($what:tt)*) => {
        if $run.trace.is_some() {
            let line = format!($($what)*);
            $run.note(line);
        }
    };
}

impl Run {
    pub fn new(seed: u64, scale: Scale, rough: bool, trace: bool) -> Self {
        let mut plan = Dice::new(seed, 2);
        let plans = RulePlan::both(&mut plan);
        // A device's own time is doubtful while the box does not know what time it is.
        let steps_walls = plan.percent(50);
        let stamps: &[Stamp] = if steps_walls {
            &[Stamp::Count, Stamp::Count, Stamp::None]
        } else {
            &[Stamp::Both, Stamp::Both, Stamp::Count, Stamp::None]
        };
        let devices: Vec<Device> = (0..scale.devices).map(|ix| Device::new(ix, seed, stamps, scale)).collect();
        let refuses = plan.pick(&[0, 0, 23]);
        let receivers =
            (0..CHANNELS.len()).map(|n| Receiver::new(seed, 20 + n as u64, if rough { refuses } else { 0 }));
        let model = Model::new(plans.clone(), devices.iter().map(|device| device.rule).collect());
        let shm = PathBuf::from("/dev/shm");
        let root = if shm.is_dir() { shm } else { std::env::temp_dir() };
        static RUNS: AtomicU64 = AtomicU64::new(0);
        let number = RUNS.fetch_add(1, Ordering::Relaxed);
        let base = root.join(format!("anmin-simulation-{}-{number}", std::process::id()));
        let mut run = Self {
            seed,
            rough,
            scale,
            t: 0,
            heard: vec![0; devices.len()],
            known: plan.percent(50),
            broker: Broker::new(plan.from(4, 16) as usize * scale.devices.div_ceil(8)),
            receivers: receivers.collect(),
            model,
            plans,
            devices,
            journal: Journal::default(),
            life: None,
            lives: 0,
            events: BTreeMap::new(),
            counter: 0,
            next_msg: 0,
            dice: Dice::new(seed, 3),
            base,
            next_disk: Default::default(),
            armed: None,
            durable: true,
            inputs: Vec::new(),
            replies: Vec::new(),
            unsafe_msgs: BTreeMap::new(),
            unsafe_devices: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            in_memory: BTreeSet::new(),
            given_up: BTreeSet::new(),
            crowded: BTreeSet::new(),
            shed: 0,
            shed_in_life: 0,
            missed: 0,
            owed: Vec::new(),
            stored: Stored::default(),
            marks: 0,
            told: BTreeSet::new(),
            receipts: BTreeSet::new(),
            receipts_coming: Vec::new(),
            dead: BTreeSet::new(),
            from_memory: BTreeSet::new(),
            writing: false,
            alarms: Vec::new(),
            calls: Vec::new(),
            shelves: BTreeMap::new(),
            escalations: BTreeMap::new(),
            wall_error: 0,
            steps_walls,
            turns: 0,
            resting: 0,
            looked: 0,
            look_again: 0,
            stocktaking_at: 0,
            looked_hours: 0,
            just_begun: true,
            readings: 0,
            print: 0,
            ending: false,
            trace: trace.then(VecDeque::new),
        };
        run.journal.says_news = trace;
        run.plan();
        run
    }

    /// Without faults but for one: the box stops now and then when a courier has a receipt that waits for its commit.
    pub fn losing_receipts(seed: u64, scale: Scale) -> Self {
        let mut run = Self::new(seed, scale, false, false);
        for t in (10 * SECOND..scale.lasts).step_by(40 * SECOND as usize) {
            run.at(t, Event::Arm(Stop::ReceiptWaits));
        }
        run
    }

    /// Everything that will happen whatever the box does.
    fn plan(&mut self) {
        let _ = fs::remove_dir_all(&self.base);
        fs::create_dir_all(self.base.join("1")).expect("the folder of the simulation can be written");
        self.at(0, Event::Boot);
        for device in 0..self.devices.len() {
            let first = Dice::new(self.seed, 50 + device as u64).from(SECOND / 10, self.scale.period + SECOND);
            self.at(first, Event::Speak { device, at: first });
        }
        let mut dice = Dice::new(self.seed, 4);
        let lasts = self.scale.lasts;
        let mut each = |run: &mut Self, least: u64, most: u64, event: &mut dyn FnMut(&mut Self, &mut Dice, u64)| {
            let mut t = dice.from(SECOND, most);
            while t < lasts {
                event(run, &mut dice, t);
                t += dice.from(least, most);
            }
        };
        let (least, most) = self.scale.people;
        each(self, least, most, &mut |run, _, t| run.at(t, Event::Operate));
        if !self.rough {
            return;
        }
        let often = self.plan_dice(5).from(20, 90) * SECOND;
        let seldom = self.plan_dice(6).from(60, 200) * SECOND;
        each(self, often / 4, often * 2, &mut |run, dice, t| {
            let stop = dice.pick(&Stop::ALL);
            run.at(t, Event::Arm(stop));
            run.at(t + 45 * SECOND, Event::StopNow);
        });
        each(self, seldom / 2, seldom * 2, &mut |run, dice, t| {
            let ill = |dice: &mut Dice| {
                let slow = dice.from(SECOND / 10, 4 * SECOND);
                dice.pick(&[Weather::Fine, Weather::Full, Weather::Failing, Weather::ReadOnly, Weather::Slow(slow)])
            };
            let (state, readings) = (ill(dice), ill(dice));
            run.at(t, Event::Disk { state, readings });
            run.at(t + dice.from(SECOND, 90 * SECOND), Event::Disk { state: Weather::Fine, readings: Weather::Fine });
        });
        for channel in 0..CHANNELS.len() {
            each(self, 20 * SECOND, 4 * MINUTE, &mut |run, dice, t| {
                let ill = dice.pick(&[Mood::Busy, Mood::Away, Mood::Mute, Mood::Later]);
                let mood = if dice.percent(run.scale.well) { Mood::Well } else { ill };
                run.at(t, Event::Mood(channel, mood));
            });
        }
        each(self, MINUTE, 6 * MINUTE, &mut |run, _, t| run.at(t, Event::CutBroker));
        let years = self.steps_walls;
        each(self, MINUTE, 7 * MINUTE, &mut |run, dice, t| {
            let year = 365 * 24 * 3600 * SECOND as i64;
            let far = [-56 * year, -3600 * SECOND as i64, 3600 * SECOND as i64, 12 * year, 80 * year];
            let near = [-1_500_000, -70 * SECOND as i64, 900_000, 40 * SECOND as i64];
            let step = if years { dice.pick(&far) } else { dice.pick(&near) };
            run.at(t, Event::StepWall(step));
        });
    }

    fn plan_dice(&self, stream: u64) -> Dice {
        Dice::new(self.seed, stream)
    }

    fn at(&mut self, t: u64, event: Event) {
        self.counter += 1;
        self.events.insert((t, self.counter), event);
    }

    fn note(&mut self, line: String) {
        let line = format!("{:>12.6} {line}", self.t as f64 / SECOND as f64);
        if let Some(trace) = &mut self.trace {
            if trace.len() == trace_lines() {
                trace.pop_front();
            }
            trace.push_back(line);
        }
    }

    /// The last lines of what happened, where it was written down.
    pub fn trace(&self) -> String {
        let lines: Vec<&str> = self.trace.iter().flatten().map(String::as_str).collect();
        lines.join("\n")
    }

    /// To the end of the simulated time, and on until everything is through.
    pub fn finish(&mut self) -> Ending {
        let lasts = self.scale.lasts;
        while self.step(lasts) {}
        self.go_to(lasts);
        self.calm_down();
        let through = self.t + 2 * MINUTE;
        while self.step(through) {}
        let latest = through + 15 * MINUTE;
        while !self.is_through() {
            assert!(
                self.step(latest),
                "G5: {} orders are still not delivered, the first about {:?}; messages waiting: {}",
                self.pending().len(),
                self.pending().first().map(|order| self.journal.about(order)),
                self.broker.waiting()
            );
        }
        self.last_checks();
        let told_apart = |point: &String| {
            let of = self.devices.iter().find(|device| device.point == **point);
            of.is_some_and(|device| device.stamp != Stamp::None)
        };
        let ending = Ending {
            edges: self.journal.edges.clone().into_iter().filter(|(point, _)| told_apart(point)).collect(),
            lives: self.lives,
            turns: self.turns,
            readings: self.readings,
            transitions: self.journal.rows,
            taken: self.receivers.iter().map(|receiver| receiver.taken.len() as u64).sum(),
            repeats: self.receivers.iter().map(|receiver| receiver.repeats).sum(),
            forgotten: self.forgotten.iter().map(|n| self.devices[*n].point.clone()).collect(),
            print: self.print,
        };
        self.life = None;
        let _ = fs::remove_dir_all(&self.base);
        ending
    }

    fn pending(&self) -> Vec<String> {
        self.life.as_ref().map(|life| life.eye.pending()).unwrap_or_default()
    }

    fn is_through(&self) -> bool {
        self.durable
            && self.refused() == 0
            && self.life.as_ref().is_some_and(|life| !life.eye.is_anything_pending())
            && self.broker.waiting() == 0
    }

    /// No more faults, no more readings; people see to what is open.
    fn calm_down(&mut self) {
        self.ending = true;
        self.armed = None;
        let keep = |event: &Event| {
            matches!(
                event,
                Event::Boot | Event::Connect | Event::WriteReadings | Event::Take { .. } | Event::Answer { .. }
            )
        };
        self.events.retain(|_, event| keep(event));
        for receiver in &mut self.receivers {
            receiver.mood = Mood::Well;
        }
        self.set_disk(Weather::Fine, Weather::Fine);
        for n in 1..60 {
            self.at(self.t + n * 4 * SECOND, Event::Operate);
        }
    }

    /// Goes to the next moment at which something happens and lets it. False when there is none before `end`.
    fn step(&mut self, end: u64) -> bool {
        let world = self.events.keys().next().map(|(t, _)| *t);
        let box_due = self.life.as_ref().and_then(|life| {
            let mono = life.now().mono;
            let couriers = life.couriers.iter().filter_map(|courier| courier.backlog.poll_timeout(mono));
            let couriers = couriers.map(|due| life.at(due));
            // What is due and was not settled by the turn just taken is asked again a millisecond later.
            let own = life.poll_timeout().into_iter().chain(couriers);
            own.map(|due| if due <= self.t { self.t + 1_000 } else { due }).min()
        });
        let model = self.life.as_ref().and_then(|_| self.model.due());
        // The loop turns once a second at least; where nothing is the matter those turns change nothing.
        let ill = self.life.is_some() && (!self.durable || !self.unsafe_msgs.is_empty());
        let second = ill.then_some(self.t + SECOND);
        let Some(next) = [world, box_due, model, second].into_iter().flatten().min().filter(|t| *t < end) else {
            return false;
        };
        self.resting = if box_due == Some(self.t + 1_000) && Some(next) == box_due { self.resting + 1 } else { 0 };
        assert!(
            self.resting < 1_000,
            "the box does not come to rest: now {}, loop {:?}, couriers {:?}",
            self.t,
            self.life.as_ref().and_then(Life::poll_timeout),
            self.life.as_ref().map(|life| {
                let mono = life.now().mono;
                life.couriers
                    .iter()
                    .map(|courier| courier.backlog.poll_timeout(mono).map(|due| life.at(due)))
                    .collect::<Vec<_>>()
            })
        );
        self.go_to(next);
        // What a slow start holds up is looked at first.
        let moment = self.t;
        while let Some((&key, _)) = self.events.first_key_value()
            && key.0 <= moment
        {
            let event = self.events.remove(&key).expect("looked at just now");
            self.handle(event);
        }
        self.settle();
        true
    }

    fn go_to(&mut self, t: u64) {
        let t = t.max(self.t);
        if let Some(life) = &self.life {
            life.clock.advance(Duration::from_micros(t - self.t));
        }
        self.t = t;
    }

    fn handle(&mut self, event: Event) {
        match &event {
            Event::Speak { .. } | Event::WriteReadings => {}
            Event::Take { channel, order, .. } => tell!(self, "{} takes {}", CHANNELS[*channel].0, order.id),
            event => tell!(self, "{event:?}"),
        }
        match event {
            // A slow disk may hold up the end.
            Event::Speak { at, .. } if at >= self.scale.lasts => {}
            Event::Speak { device, at } => {
                let (said, next) = self.devices[device].speak(at, &mut self.next_msg);
                for msg in said {
                    tell!(self, "d{device} says {:?} n={} {:?} (message {})", msg.said, msg.n, msg.stamp, msg.id);
                    self.broker.publish(self.t, msg);
                }
                if !self.ending {
                    self.at(next, Event::Speak { device, at: next });
                }
            }
            Event::Boot => self.boot(),
            Event::Arm(stop) => {
                self.armed = self.life.is_some().then_some(stop);
                let file = match self.armed {
                    Some(Stop::BeforeState) => Some("state.db"),
                    Some(Stop::BeforeReadings) => Some("readings.db"),
                    _ => None,
                };
                if let Some(life) = &self.life {
                    life.disk.lock().expect("nobody panics with it").stop_before = file;
                }
            }
            // What was armed has not come to pass: then now, wherever it stands.
            Event::StopNow => {
                if self.armed.is_some() {
                    self.crash(None);
                }
            }
            Event::Disk { state, readings } => self.set_disk(state, readings),
            Event::StepWall(micros) => {
                // Where devices give their time the box knows it to some minutes: what is further off makes theirs doubtful.
                let is_off = !self.steps_walls && (self.wall_error + micros).unsigned_abs() > 5 * MINUTE;
                let micros = if is_off { -self.wall_error } else { micros };
                if let Some(life) = &self.life {
                    life.clock.step_wall(micros);
                    self.wall_error += micros;
                }
            }
            Event::Mood(channel, mood) => self.receivers[channel].mood = mood,
            Event::Operate => self.operate(),
            Event::Connect => {
                if self.life.is_some() && !self.broker.connected {
                    let kept = self.broker.connect(self.t);
                    self.receive(kept);
                }
            }
            Event::CutBroker => {
                if self.life.is_some() {
                    self.broker.disconnect();
                    let wait = self.dice.from(SECOND / 10, 20 * SECOND);
                    self.at(self.t + wait, Event::Connect);
                }
            }
            Event::WriteReadings => self.write_readings(),
            Event::Take { life, channel, order } => {
                // What was on the wire when the box stopped arrives, or does not.
                if life == self.lives && self.life.is_some() || self.dice.percent(50) {
                    self.receivers[channel].take(&order);
                    if self.armed == Some(Stop::BeforeReceipt) && self.life.is_some() {
                        self.crash(None);
                    }
                }
            }
            Event::Answer { life, channel, lane, id, answer } => {
                if life == self.lives
                    && let Some(own) = &mut self.life
                {
                    if answer.is_ok() {
                        self.told.insert(id);
                    }
                    let now = own.now().mono;
                    own.couriers[channel].backlog.handle_result(now, lane, answer);
                }
            }
        }
    }

    fn set_disk(&mut self, state: Weather, readings: Weather) {
        self.next_disk = (state, readings);
        if let Some(life) = &self.life {
            let mut disk = life.disk.lock().expect("nobody panics with it");
            (disk.state, disk.readings) = (state, readings);
        }
    }

    fn boot(&mut self) {
        self.lives += 1;
        // Without a battery the clock begins anywhere until somebody tells it.
        if self.rough && self.lives > 1 && self.steps_walls && self.dice.percent(40) {
            self.wall_error = self.dice.pick(&[-TRUE_START, 0, 40 * 365 * 24 * 3600 * SECOND as i64]) - self.t as i64;
        }
        let (state, readings) = self.next_disk;
        let named: Vec<(&str, usize)> = self.devices.iter().map(|device| (device.id.as_str(), device.rule)).collect();
        let birth = Birth {
            number: self.lives,
            t: self.t,
            wall: Wall::from_micros(TRUE_START + self.t as i64 + self.wall_error),
            seed: Dice::new(self.seed, 10_000 + self.lives).throw(),
            plans: &self.plans,
            points: site::points(named.into_iter().filter(|_| self.known)),
            disk: DiskState { state, readings, ..DiskState::default() },
            // The box stops without a panic.
            suspects: Suspects::nobody(),
        };
        let life = Life::begin(self.base.join(self.lives.to_string()), birth);
        tell!(
            self,
            "life {} begins, journal: {}, wall {}",
            self.lives,
            !life.no_journal,
            life.now().wall.micros() - TRUE_START
        );
        self.journal.check_kept(&life.eye);
        self.marks = life.eye.marks(0).0;
        self.shed_in_life = 0;
        self.durable = !life.no_journal;
        // The box reads the clock first; a slow disk may hold up the rest of the start.
        self.model.boot(self.t);
        self.t += std::mem::take(&mut life.disk.lock().expect("nobody panics with it").slept);
        self.life = Some(life);
        self.heard.fill(self.t);
        (self.just_begun, self.look_again) = (true, self.t);
        let wait = self.dice.from(1, 3 * SECOND);
        self.at(self.t + wait, Event::Connect);
        self.at(self.t, Event::WriteReadings);
    }

    /// The box stops here. `torn` is the file whose last commit is cut in the middle.
    fn crash(&mut self, torn: Option<&str>) {
        let Some(life) = self.life.take() else { return };
        tell!(self, "the box stops; torn: {torn:?}, armed: {:?}", self.armed);
        // What screens showed last may never have been; the journal says what holds.
        self.shelves.clear();
        self.escalations.clear();
        if torn.is_some() || !self.durable {
            let forgotten = self.from_memory.difference(&self.journal.orders);
            let alarms: BTreeSet<String> = forgotten.filter_map(|id| id.split('/').next()).map(str::to_owned).collect();
            for receiver in &mut self.receivers {
                receiver.broken.extend(alarms.iter().cloned());
            }
        }
        self.broker.disconnect();
        let cut = self.dice.from(0, 1_000);
        let second = (life.now().mono.nanos() / 1_000_000_000).max(1);
        let (marks, found) = life.eye.marks(self.marks);
        let tore = life.leave(&self.base.join((self.lives + 1).to_string()), torn.map(|file| (file, cut)));
        if torn == Some("state.db") && !tore {
            // The log was folded or begun anew: the commit was whole after all, with what it says was judged.
            self.model.safe();
            if marks != self.marks {
                self.model.take_down(second, found);
            }
        }
        self.broker.lose_acks();
        self.model.crash();
        self.forgotten.append(&mut self.unsafe_devices);
        self.given_up.append(&mut self.in_memory);
        self.armed = None;
        self.inputs.clear();
        self.replies.clear();
        self.unsafe_msgs.clear();
        self.told.clear();
        self.receipts_coming.clear();
        self.writing = false;
        self.alarms.clear();
        let away = if self.dice.percent(70) {
            self.dice.from(SECOND, 20 * SECOND)
        } else {
            self.dice.from(SECOND, 4 * MINUTE)
        };
        self.at(self.t + away, Event::Boot);
    }

    /// Messages without a right to acknowledge: what the broker keeps retained.
    fn receive(&mut self, kept: Vec<Msg>) {
        let Some(life) = &self.life else { return };
        let now = life.now();
        let messages = kept.iter().map(|msg| msg.deliver(now, None, None)).collect();
        let start = SessionStart {
            source: SOURCE.into(),
            client_id: "anmin".into(),
            kept: true,
            present: self.broker.was_connected,
            heard: None,
        };
        self.broker.was_connected = true;
        self.inputs.push(Input::Session(start));
        self.inputs.push(Input::Messages { source: SOURCE.into(), messages });
    }

    /// Turns until nothing is left to do at this moment, then looks at everything.
    fn settle(&mut self) {
        let rows = self.journal.rows;
        let mut anything = false;
        for round in 0.. {
            assert!(round < 1_000, "the box does not come to rest");
            let Some(life) = &mut self.life else { return };
            let (msgs, messages): (Vec<(Msg, bool)>, Vec<_>) = self.broker.deliver(life.now()).into_iter().unzip();
            let mut inputs = std::mem::take(&mut self.inputs);
            let (busy, count) = (!inputs.is_empty() || !msgs.is_empty(), msgs.len());
            anything |= busy;
            if count > 0 {
                inputs.push(Input::Messages { source: SOURCE.into(), messages });
            }
            if !self.turn(inputs, msgs) {
                return;
            }
            let slept = {
                let Some(life) = &self.life else { return };
                std::mem::take(&mut life.disk.lock().expect("nobody panics with it").slept)
            };
            self.t += slept;
            self.model.pass(self.t);
            if !self.drive_couriers() {
                return;
            }
            if count > 0 && !self.writing {
                self.writing = true;
                let wait = match self.next_disk.1 {
                    Weather::Slow(micros) => micros,
                    _ => self.dice.from(100, 5_000),
                };
                self.at(self.t + wait, Event::WriteReadings);
            }
            if !busy && slept == 0 && self.inputs.is_empty() {
                break;
            }
        }
        // What only the passing of time could have changed is looked at every few seconds.
        let due = self.shelves.values().chain(self.escalations.values()).any(|deadline| deadline.limit <= self.t);
        let news = (anything || self.journal.rows != rows) && self.t >= self.looked + self.scale.looks;
        if news || due || self.t >= self.look_again {
            (self.looked, self.look_again) = (self.t, self.t + 5 * SECOND);
            let all = self.t >= self.stocktaking_at;
            self.look(all);
            if all {
                if self.scale.stocktaking > 0 && self.t / (60 * MINUTE) > self.looked_hours {
                    self.looked_hours = self.t / (60 * MINUTE);
                    let (hours, lives, readings, rows) =
                        (self.looked_hours, self.lives, self.readings, self.journal.rows);
                    println!("{hours} h: life {lives}, {readings} readings, {rows} rows in the journal");
                }
                self.stocktaking_at = self.t + self.scale.stocktaking;
                self.take_stock();
            }
        }
    }

    /// One turn. False when the box stopped.
    fn turn(&mut self, mut inputs: Vec<Input>, msgs: Vec<(Msg, bool)>) -> bool {
        let Some(life) = &mut self.life else { return false };
        let second = (life.now().mono.nanos() / 1_000_000_000).max(1);
        {
            let mut disk = life.disk.lock().expect("nobody panics with it");
            (disk.last_state, disk.commits) = (None, 0);
        }
        self.turns += 1;
        self.readings += msgs.len() as u64;
        if !life.turn(&mut inputs) {
            // A courier might have been quicker than the disk.
            for id in life.let_out() {
                assert!(self.journal.orders.contains(&id), "G5: order {id} was let out before it was committed");
            }
            self.crash(None);
            return false;
        }
        let (committed, commits) = {
            let disk = life.disk.lock().expect("nobody panics with it");
            (disk.last_state, disk.commits)
        };
        for (msg, again) in &msgs {
            self.heard[msg.device] = self.t;
            if self.model.hear(self.t, second, msg, *again) {
                self.unsafe_msgs.insert(msg.id, self.t);
            }
        }
        self.model.pass(self.t);
        if committed == Some(true) && commits == 1 && self.armed == Some(Stop::InState) {
            self.crash(Some("state.db"));
            return false;
        }
        let was_durable = self.durable;
        self.durable = committed.unwrap_or(was_durable);
        if was_durable && !self.durable {
            self.model.journal_fails(second);
        }
        let (rows, (marks, found)) = (self.journal.rows, life.eye.marks(self.marks));
        self.journal.read(&life.eye);
        if std::mem::replace(&mut self.marks, marks) != marks {
            self.model.take_down(second, found);
        } else if self.journal.rows > rows {
            self.model.take_down(second, 0);
        }
        // Only with a commit does a receipt become safe.
        if committed == Some(true) {
            let coming = std::mem::take(&mut self.receipts_coming);
            let (safe, coming): (Vec<_>, _) = coming.into_iter().partition(|(_, id)| life.eye.state_of(id) > 0);
            self.receipts.extend(safe.into_iter().map(|(_, id)| id));
            self.receipts_coming = coming;
        }
        for line in std::mem::take(&mut self.journal.news) {
            tell!(self, "journal: {line}");
        }
        if self.durable {
            self.model.safe();
            self.unsafe_msgs.clear();
            self.unsafe_devices.clear();
        }
        if self.armed == Some(Stop::ReceiptWaits) && !self.receipts_coming.is_empty() {
            self.crash(None);
            return false;
        }
        let overdue = self.receipts_coming.iter().find(|(since, _)| self.durable && self.t > since + SECOND);
        assert!(overdue.is_none(), "G7: a receipt waits and the journal is there: {overdue:?}");
        self.take_acks();
        if committed == Some(true) && self.armed == Some(Stop::BetweenTheTwo) {
            self.crash(None);
            return false;
        }
        true
    }

    /// What the loop handed to the couriers, what they try, what they report. False when the box stopped.
    fn drive_couriers(&mut self) -> bool {
        let Some(life) = &mut self.life else { return false };
        let now = life.now().mono;
        let (number, journaled) = (life.number, self.durable);
        let mut planned = Vec::new();
        for (channel, courier) in life.couriers.iter_mut().enumerate() {
            courier.take_orders();
            while let Some(report) = courier.backlog.poll_report(now) {
                match &report {
                    Input::Outcome { order, outcome: Outcome::Delivered(_) } => {
                        self.receipts_coming.push((self.t, order.to_string()));
                    }
                    Input::Outcome { order, outcome: Outcome::Dead(_) } => {
                        self.dead.insert(order.to_string());
                    }
                    _ => {}
                }
                self.inputs.push(report);
            }
            while let Some(attempt) = courier.backlog.poll_attempt(now) {
                let (lane, order) = (attempt.lane, attempt.order);
                let id = order.id.to_string();
                let alarm = id.split('/').next().expect("an id starts with its alarm").to_owned();
                assert!(
                    !journaled || self.journal.orders.contains(&id) || self.from_memory.contains(&id),
                    "order {id} leaves and is not in the journal"
                );
                if !self.journal.orders.contains(&id) {
                    self.from_memory.insert(id.clone());
                }
                assert!(
                    !self.told.contains(&id) && !self.receipts.contains(&id),
                    "G7: order {id} is sent again although its receipt is known"
                );
                let before = self.journal.lanes.get(&(courier.channel.to_owned(), alarm));
                let before = before.into_iter().flatten().take_while(|other| **other != id);
                for other in before.filter(|_| self.journal.orders.contains(&id)) {
                    assert!(
                        self.receivers[channel].taken.contains(other) || self.dead.contains(other),
                        "G6: order {id} is sent before {other} was taken"
                    );
                }
                let fate = self.receivers[channel].fate(&order);
                if fate.takes {
                    let order = Box::new(order);
                    planned.push((self.t + fate.after / 2, Event::Take { life: number, channel, order }));
                }
                planned.push((
                    self.t + fate.after,
                    Event::Answer { life: number, channel, lane, id, answer: fate.answer },
                ));
            }
        }
        self.inputs.extend(life.health());
        for (t, event) in planned {
            self.at(t, event);
        }
        true
    }

    fn write_readings(&mut self) {
        self.writing = false;
        let Some(life) = &mut self.life else { return };
        if !life.write_readings() {
            self.crash(None);
            return;
        }
        match self.armed {
            Some(Stop::InReadings) => return self.crash(Some("readings.db")),
            Some(Stop::BeforeAck) => {
                self.broker.lose_acks();
                return self.crash(None);
            }
            _ => {}
        }
        if self.refused() == 0 {
            let shed = self.life.as_ref().map_or(0, Life::shed);
            if shed > self.shed_in_life {
                tell!(self, "the box gave up {} readings that it could not write", shed - self.shed_in_life);
                self.shed += shed - self.shed_in_life;
                self.shed_in_life = shed;
                self.crowded.append(&mut self.in_memory);
            }
            self.in_memory.clear();
        }
        self.take_acks();
        if self.broker.in_flight() > 0 || self.refused() > 0 {
            self.writing = true;
            let again = if self.next_disk.1 == Weather::Fine { SECOND / 1_000 } else { SECOND };
            self.at(self.t + again, Event::WriteReadings);
        }
    }

    /// Commits of readings.db that were refused, in a row.
    fn refused(&self) -> u32 {
        self.life.as_ref().map_or(0, |life| life.disk.lock().expect("nobody panics with it").readings_refused)
    }

    /// What the box acknowledged is gone from the session.
    fn take_acks(&mut self) {
        let refused = self.refused();
        let (gone, forsaken) = self.broker.settle();
        for msg in &gone {
            tell!(self, "message {} is acknowledged, readings.db has refused {refused}", msg.id);
            if let Some(since) = self.unsafe_msgs.get(&msg.id) {
                assert!(
                    !self.durable && self.t >= since + HELD,
                    "G1: message {} of d{} is acknowledged and what follows from it is not in the journal",
                    msg.id,
                    msg.device
                );
                self.unsafe_devices.insert(msg.device);
            }
            assert_ne!(refused, 1, "G9: message {} is acknowledged, readings.db has refused it once", msg.id);
            if refused > 0 {
                self.in_memory.insert(msg.id);
            }
            if let Said::Value(value) = msg.said {
                self.owed.push((msg.id, msg.device, value.to_bits()));
            }
        }
        if forsaken {
            self.broker.disconnect();
            let wait = self.dice.from(SECOND / 10, 5 * SECOND);
            self.at(self.t + wait, Event::Connect);
        }
    }

    /// Holds what screens see against the model, the journal and the deadlines.
    fn look(&mut self, all: bool) {
        let Some(life) = &mut self.life else { return };
        let Some(list) = life.alarms() else {
            self.crash(None);
            return;
        };
        let wall = life.now().wall;
        self.alarms = list.alarms;
        self.calls = list.calls.iter().map(|call| (call.alarm, call.station.to_string())).collect();
        let t = self.t;
        let sum = |sum: u64, id: &AlarmId| sum.rotate_left(5) ^ (id.0.as_u128() as u64);
        self.print = self.alarms.iter().fold(self.print.rotate_left(3) ^ t, |s, alarm| sum(s, &alarm.id));

        // The condition of every device, as the model has it.
        let by_key: HashMap<(&str, &str), &Arc<Alarm>> =
            self.alarms.iter().map(|alarm| ((alarm.rule.as_str(), alarm.subject.as_str()), alarm)).collect();
        let of = |rule: &str, subject: &str| by_key.get(&(rule, subject)).copied();
        // What a broker kept while nobody was there comes all at once, and what came within an hour may be chatter then: the
        // alarm is held for ten minutes, and people are told.
        let rules = [0, 1].map(|rule: usize| self.plans[rule].id());
        let chatters = |device: &Device| {
            let about = format!("chatter:{}:{}", rules[device.rule], device.point);
            of("system/chatter", &about).is_some_and(|notice| notice.is_active())
        };
        for n in 0..self.devices.len() {
            let (device, held) = (&self.devices[n], self.model.conditions[n].held);
            let alarm = of(&rules[device.rule], &device.point);
            let is = alarm.map_or(0, |alarm| if alarm.is_active() { alarm.level as usize } else { 0 });
            let latched = alarm.is_some_and(|alarm| alarm.latched);
            assert!(
                is == held || is > held && (latched && held > 0 || chatters(device)),
                "G2, G13, G14: {} stands at level {held} and its alarm at {is}: {:?}, model {:?} of {:?}",
                device.point,
                alarm.map(|alarm| (alarm.id, alarm.state(), alarm.seq)),
                self.model.conditions[n],
                self.plans[device.rule],
            );
            if self.known && t > self.heard[n] + SILENT_AFTER {
                let silent = of("system/silent", &device.id);
                assert!(
                    silent.is_some_and(|alarm| alarm.is_active()),
                    "G11: {} is silent and nobody says so",
                    device.id
                );
            }
        }

        // Any prefix of the journal gives the book.
        if self.durable {
            let book: BTreeMap<u128, u64> =
                self.alarms.iter().map(|alarm| (alarm.id.0.as_u128(), u64::from(alarm.seq))).collect();
            assert_eq!(book, self.journal.open, "the book is not what the journal gives");
        }

        // An alarm belongs to exactly one incident, which is open as long as the alarm.
        if self.durable {
            for alarm in &self.alarms {
                let Some(incident) = alarm.incident else { continue };
                let of = incident.0.as_u128();
                assert_eq!(self.journal.threads.get(&alarm.id.0.as_u128()), Some(&of), "alarm {}", alarm.id);
                let state = self.journal.incidents.get(&of).map(|(state, _)| *state);
                assert_eq!(state, Some("standing"), "incident {incident} of the open alarm {}", alarm.id);
            }
        }
        if self.durable && all {
            let (threads, open) = life.eye.threads();
            assert_eq!(threads, self.journal.threads, "the table of what belongs where is not what the journal says");
            let said = self.journal.incidents.iter().filter(|(_, (state, _))| *state != "closed");
            assert!(open.iter().eq(said.map(|(id, _)| id)), "the table of open incidents is not what the journal says");
        }

        if self.durable {
            let written = life.eye.delays();
            for (n, device) in self.devices.iter().enumerate() {
                let alarm = of(&rules[device.rule], &device.point);
                // After a restart a latched condition stands at the level of its alarm until it is heard to be lower.
                assert!(
                    written.contains_key(&device.point) == self.model.runs(n)
                        || alarm.is_some_and(|alarm| alarm.latched)
                        || chatters(device),
                    "G13: of {} the journal says that a delay runs, or that none does: {:?}, model {:?}",
                    device.point,
                    written.get(&device.point),
                    self.model.conditions[n]
                );
            }
        }

        // Shelves end, and what nobody acknowledges escalates.
        let open: BTreeMap<AlarmId, bool> =
            self.alarms.iter().map(|alarm| (alarm.id, alarm.shelved.is_some())).collect();
        self.shelves.retain(|id, _| open.get(id) == Some(&true));
        self.escalations.retain(|id, _| open.contains_key(id));
        for alarm in &self.alarms {
            if let Some(shelf) = &alarm.shelved {
                let left = u64::try_from(shelf.until.since(wall).as_micros()).unwrap_or(u64::MAX);
                let about = shelf.until.micros();
                // After a start it goes on by the wall clock, and is never longer than it was; but how long it was is
                // known only by the alarm's last change.
                let untouched =
                    self.journal.alarms.get(&alarm.id.to_string()).is_some_and(|row| row.cause == "shelved");
                let period = match self.just_begun {
                    true if untouched => LONGEST_SHELF,
                    true => MAX_SHELVE,
                    false => left,
                };
                let new = Deadline { about, limit: t + left.min(period) };
                let deadline = self.shelves.entry(alarm.id).or_insert_with(|| new.clone());
                if deadline.about != about {
                    *deadline = new;
                }
                assert!(t <= deadline.limit, "alarm {} is shelved beyond its deadline", alarm.id);
            }
            let Some(plan) = self.plans.iter().find(|plan| plan.id() == alarm.rule.as_str()) else { continue };
            if alarm.acknowledged.is_some() || alarm.is_silenced() {
                self.escalations.remove(&alarm.id);
                continue;
            }
            // Between two looks it may have been acknowledged and come back, and then it starts anew.
            let about = if self.scale.looks == 0 { alarm.escalation } else { alarm.seq };
            let (about, period) = (i64::from(about), plan.escalate_after);
            // After a start it goes on by the wall clock, and is never longer than its full length.
            let by_wall = alarm.escalate_at.map(|at| u64::try_from(at.since(wall).as_micros()).unwrap_or(u64::MAX));
            let left = if self.just_begun { by_wall.map_or(period, |left| left.min(period)) } else { period };
            let new = Deadline { about, limit: t + left };
            let deadline = self.escalations.entry(alarm.id).or_insert_with(|| new.clone());
            if deadline.about != about {
                *deadline = new;
            }
            assert!(
                t <= deadline.limit,
                "alarm {} of {} is past its escalation and nobody is told: {:?}, {:?}, {:?}",
                alarm.id,
                alarm.subject.as_str(),
                alarm.state(),
                alarm.escalate_at.map(|at| at.micros() - TRUE_START),
                deadline
            );
        }
        self.just_begun = false;
        for mut reply in std::mem::take(&mut self.replies) {
            assert!(reply.try_recv().is_ok(), "a person is not told what became of a command");
        }
    }

    /// A person does something about an alarm that the screen shows.
    fn operate(&mut self) {
        let Some(life) = &self.life else { return };
        if self.alarms.is_empty() {
            return;
        }
        let alarm = &self.alarms[self.dice.throw() as usize % self.alarms.len()];
        let (id, why) = (alarm.id, "work".to_owned());
        // At the end, too: then there are incidents with alarms that are closed already.
        let merges = self.ending && self.dice.from(0, 10) == 0;
        let choice = if merges {
            12
        } else if self.ending {
            0
        } else {
            self.dice.from(0, 24)
        };
        let call = self.calls.iter().find(|(of, _)| *of == id);
        let what = match choice {
            _ if alarm.out_of_service.is_some() && choice < 6 => Action::ReturnToService { alarm: id },
            _ if alarm.shelved.is_some() && choice < 4 => Action::Unshelve { alarm: id },
            0..5 if alarm.acknowledged.is_none() => Action::Acknowledge { alarm: id },
            0..7 => Action::Reset { alarm: id },
            7 | 8 => {
                let wait = Duration::from_micros(self.dice.from(20 * SECOND, LONGEST_SHELF));
                Action::Shelve { alarm: id, until: life.now().wall.plus(wait), why }
            }
            9 => Action::TakeOutOfService { alarm: id, why },
            20 | 21 => {
                let station = ["st-1", "st-2", "st-3"][self.dice.from(0, 3) as usize].to_owned();
                Action::CallStation { alarm: id, station, insist: self.dice.percent(50), why }
            }
            22 | 23 => Action::Escalate { alarm: id, step: alarm.escalation + self.dice.pick(&[1, 1, 0, 2]), why },
            12.. if alarm.incident.is_some() => {
                let incident = alarm.incident.expect("looked at just now");
                let other = self.dice.throw() as usize % self.alarms.len();
                let pick = if merges { 1 } else { self.dice.from(0, 6) };
                let what = match (pick, self.alarms[other].incident) {
                    (0, _) => IncidentAction::Acknowledge { newest: None },
                    (1 | 5, Some(into)) => IncidentAction::MergeInto { into },
                    (2, _) => IncidentAction::Split { alarms: vec![id] },
                    (3, _) => IncidentAction::Close { outcome: End::Test, why },
                    _ => IncidentAction::Note { text: why, photos: Vec::new() },
                };
                Action::Incident { incident, what }
            }
            _ => match call {
                Some((_, station)) => {
                    let steps = [CallStep::Accept, CallStep::OnTheWay, CallStep::OnScene, CallStep::StandDown];
                    let step = match self.dice.from(0, 5) {
                        4 => CallStep::Decline { why },
                        n => steps[n as usize].clone(),
                    };
                    Action::Call { alarm: id, station: station.clone(), step }
                }
                None => Action::Acknowledge { alarm: id },
            },
        };
        let (reply, answer) = oneshot::channel();
        self.replies.push(answer);
        tell!(self, "li: {what:?}");
        let (command, from) = (Command { who: "li".to_owned(), what }, Way::of(Through::Api));
        self.inputs.push(Input::Command { command, from, seen: None, reply });
    }

    /// When all is through: every order has arrived once, every reading that was acknowledged is stored.
    fn last_checks(&mut self) {
        let life = self.life.take().expect("it is through");
        let eye = &life.eye;
        for ((channel, alarm), orders) in &self.journal.lanes {
            let n = CHANNELS.iter().position(|(id, ..)| id == channel).expect("a channel of the site");
            for order in orders {
                let taken = self.receivers[n].taken.contains(order);
                match eye.state_of(order) {
                    1 => assert!(taken, "G5: order {order} counts as delivered and never arrived"),
                    2 => assert!(self.dead.contains(order), "order {order} is dead and no courier gave it up"),
                    state => panic!("G5: order {order} is neither delivered nor dead: {state}"),
                }
            }
            let broken = self.receivers[n].broken.contains(alarm);
            let lost = broken || orders.iter().any(|order| self.dead.contains(order));
            let row = &self.journal.alarms[alarm];
            let receiver = &self.receivers[n];
            if CHANNELS[n].1 == anmin_rules::order::ChannelForm::Cap && !lost {
                let in_force = receiver.in_force.get(alarm).is_some_and(|chain| !chain.is_empty());
                let must = matches!(row.state.as_str(), "unacknowledged" | "acknowledged")
                    && row.level >= Level::Orange as usize;
                assert!(
                    !(row.state == "normal" && in_force),
                    "G8: alarm {alarm} is over and its CAP message is in force"
                );
                assert!(!must || in_force, "alarm {alarm} stands and no CAP message is in force");
            }
            if let Some((seq, state)) = receiver.last_said.get(alarm)
                && !lost
            {
                assert_eq!(
                    (u64::from(*seq), state),
                    (row.seq, &row.state),
                    "G6: {channel} knows alarm {alarm} as it was"
                );
            }
        }
        self.life = Some(life);
        self.take_stock();
        assert!(self.owed.is_empty(), "readings.db has all and messages are in memory only: {:?}", self.owed);
    }

    /// What was acknowledged since the last time is in readings.db, but for what was in memory only when the box stopped.
    fn take_stock(&mut self) {
        let refused = self.refused();
        let Some(life) = &mut self.life else { return };
        if refused > 0 {
            return;
        }
        self.stored.read(&mut life.archive);
        for (id, device, bits) in std::mem::take(&mut self.owed) {
            if self.given_up.remove(&id) {
                continue;
            }
            let point = &self.devices[device].point;
            if self.in_memory.contains(&id) {
                self.owed.push((id, device, bits));
            } else {
                let value = f64::from_bits(bits);
                let stored = self.stored.has(point, bits);
                if self.crowded.remove(&id) && !stored {
                    self.missed += 1;
                    continue;
                }
                assert!(stored, "G1, G9: message {id} ({point} {value}) is acknowledged and not stored");
            }
        }
        assert!(
            self.missed <= self.shed,
            "G9: {} readings are acknowledged and not stored, and the box says that it gave up {}",
            self.missed,
            self.shed
        );
        self.stored.turn(self.t);
    }
}

/// What the archive has read of readings.db lately. A device says no value twice in so short a time, and what was stored before
/// the box stopped is acknowledged sooner.
#[derive(Default)]
struct Stored {
    since: u64,
    after: i64,
    names: HashMap<u32, String>,
    now: HashMap<String, HashSet<u64>>,
    before: HashMap<String, HashSet<u64>>,
}

impl Stored {
    fn read(&mut self, archive: &mut Reader) {
        while let Some(taken) = archive.next(self.after, 10_000).expect("readings.db can be read") {
            self.after = taken.up_to;
            for sample in taken.samples {
                let Some(Value::Number(value)) = sample.value else { continue };
                let name = self.names.entry(sample.point).or_insert_with(|| {
                    archive.label(sample.point).expect("readings.db can be read").expect("a point has names").point
                });
                match self.now.get_mut(name) {
                    Some(values) => drop(values.insert(value.to_bits())),
                    None => drop(self.now.insert(name.clone(), HashSet::from([value.to_bits()]))),
                }
            }
        }
        archive.forwarded(self.after);
    }

    fn has(&self, point: &str, bits: u64) -> bool {
        [&self.now, &self.before].iter().any(|stored| stored.get(point).is_some_and(|values| values.contains(&bits)))
    }

    /// What is older than ten minutes can be forgotten.
    fn turn(&mut self, t: u64) {
        if t > self.since + 10 * MINUTE {
            self.since = t;
            self.before = std::mem::take(&mut self.now);
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.life = None;
        let _ = fs::remove_dir_all(&self.base);
    }
}
