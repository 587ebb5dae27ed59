//! One life of the box: the real router, validator, engine, main loop, databases and couriers' policy, composed as the
//! daemon composes them, on a clock, a disk and wires that are simulated.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anmin::clock::Clock;
use anmin::delivery::courier::{Backlog, CourierHandle};
use anmin::main_loop::clock_trust::ClockTrust;
use anmin::main_loop::deliveries::Deliveries;
use anmin::main_loop::drill_calendar::DrillCalendar;
use anmin::main_loop::help::HelpWatch;
use anmin::main_loop::losses::Losses;
use anmin::main_loop::plan_history::PlanHistory;
use anmin::main_loop::query::{AlarmFilter, AlarmList, AlarmPage};
use anmin::main_loop::run::{MainLoop, Parts};
use anmin::main_loop::stock::StockWatch;
use anmin::main_loop::test_calendar::{TestCalendar, TestPlan};
use anmin::main_loop::{Feed, Input, PartState, PartTrouble, Query};
use anmin::store::suspects::Suspects;
use anmin::store::{Disk, Limits, Reader, Readings, StateStore, StoreError, Writer};
use anmin::telemetry::Figures;
use anmin_rules::engine::Engine;
use anmin_rules::order::Order;
use anmin_rules::rule::{Finding, Level};
use anmin_sensors::point::Points;
use anmin_sensors::time::{Mono, Now, Wall};
use anmin_sensors::validator::{Settings, Validator};
use tokio::sync::{mpsc, oneshot};

use crate::model::Eye;
use crate::site::{self, CHANNELS, RulePlan};

/// Where in a commit the box stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Before state.db takes the turn.
    BeforeState,
    /// In the middle of writing it: a part of it is on the disk, and rubbish behind.
    InState,
    /// state.db has the turn, readings.db has not; no order has left.
    BetweenTheTwo,
    /// Before readings.db takes its batch.
    BeforeReadings,
    InReadings,
    /// Both have everything, no acknowledgement has left.
    BeforeAck,
    /// A receiver has taken an order and the courier knows nothing of it.
    BeforeReceipt,
    /// The courier has its receipt, which waits for a commit.
    ReceiptWaits,
}

impl Stop {
    pub const ALL: [Self; 8] = [
        Self::BeforeState,
        Self::InState,
        Self::BetweenTheTwo,
        Self::BeforeReadings,
        Self::InReadings,
        Self::BeforeAck,
        Self::BeforeReceipt,
        Self::ReceiptWaits,
    ];
}

/// What the disk does to one file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weather {
    #[default]
    Fine,
    /// ENOSPC.
    Full,
    /// EIO.
    Failing,
    /// EROFS.
    ReadOnly,
    /// A write takes so many microseconds.
    Slow(u64),
}

#[derive(Default)]
pub struct DiskState {
    pub state: Weather,
    pub readings: Weather,
    /// The next write to this file never comes to pass.
    pub stop_before: Option<&'static str>,
    /// What became of the last commit of state.db; `None` when none was asked for since this was taken.
    pub last_state: Option<bool>,
    pub slept: u64,
    /// Commits of readings.db that were refused, in a row.
    pub readings_refused: u32,
    /// Times that a commit of state.db was allowed or refused since this was set to nothing.
    pub commits: u32,
    /// Length of each write-ahead log before the last commit.
    pub wal_before: BTreeMap<String, u64>,
}

/// Thrown through the code under test to stop it where it stands.
struct Stopped;

fn script(dir: &Path, clock: &Clock, disk: &Arc<Mutex<DiskState>>) -> Disk {
    let (dir, clock, disk) = (dir.to_owned(), clock.clone(), Arc::clone(disk));
    Disk::scripted(move |file| {
        let mut disk = disk.lock().expect("nobody panics with it");
        if disk.stop_before == Some(if file == "state.db" { "state.db" } else { "readings.db" }) {
            disk.stop_before = None;
            drop(disk);
            resume_unwind(Box::new(Stopped));
        }
        let length = fs::metadata(dir.join(format!("{file}-wal"))).map_or(0, |meta| meta.len());
        disk.wal_before.insert(file.to_owned(), length);
        let weather = if file == "state.db" { disk.state } else { disk.readings };
        let named = file.to_owned();
        let result = match weather {
            Weather::Fine => Ok(()),
            Weather::Full => Err(StoreError::Full { file: named }),
            Weather::Failing => Err(StoreError::Io { file: named, why: "EIO".to_owned() }),
            Weather::ReadOnly => Err(StoreError::ReadOnly { file: named }),
            Weather::Slow(micros) => {
                // The writer of readings has a thread of its own: only the journal holds up the loop.
                if file == "state.db" {
                    clock.advance(Duration::from_micros(micros));
                    disk.slept += micros;
                }
                Ok(())
            }
        };
        if file == "state.db" {
            disk.last_state = Some(result.is_ok());
            disk.commits += 1;
        } else {
            disk.readings_refused = if result.is_ok() { 0 } else { disk.readings_refused + 1 };
        }
        result
    })
}

pub struct Courier {
    pub channel: &'static str,
    queue: mpsc::UnboundedReceiver<Order>,
    pub backlog: Backlog,
}

impl Courier {
    pub fn take_orders(&mut self) {
        while let Ok(order) = self.queue.try_recv() {
            self.backlog.handle_order(order);
        }
    }
}

pub struct Life {
    pub number: u64,
    pub started: u64,
    pub clock: Clock,
    pub dir: PathBuf,
    pub couriers: Vec<Courier>,
    pub disk: Arc<Mutex<DiskState>>,
    /// The journal could not be opened at the start: what it held is known, nothing can be written.
    pub no_journal: bool,
    pub eye: Eye,
    /// What is forwarded to the time-series database.
    pub archive: Reader,
    /// Readings' health as its writer told it.
    health: Arc<Mutex<Vec<Option<StoreError>>>>,
    main_loop: MainLoop,
    writer: Option<Writer>,
}

pub struct Birth<'a> {
    pub number: u64,
    pub t: u64,
    pub wall: Wall,
    pub seed: u64,
    pub plans: &'a [RulePlan; 2],
    pub points: Points,
    pub disk: DiskState,
    pub suspects: Suspects,
}

impl Life {
    pub fn begin(dir: PathBuf, birth: Birth<'_>) -> Self {
        let clock = Clock::manual(birth.wall);
        let now = clock.now();
        let disk = Arc::new(Mutex::new(birth.disk));
        let opened = StateStore::open_on(&dir, now.wall, script(&dir, &clock, &disk));
        let (journal, restored) = opened.expect("nobody else has the folder, and no newer anmin wrote it");
        let no_journal = journal.trouble().is_some();
        let health: Arc<Mutex<Vec<_>>> = Arc::default();
        let told = Arc::clone(&health);
        let on_health = Box::new(move |error| told.lock().expect("nobody panics with it").push(error));
        let consumers = ["archive".into()];
        let disk_of_readings = script(&dir, &clock, &disk);
        let opened = Readings::open_stepped(&dir, Limits::default(), &consumers, now.wall, on_health, disk_of_readings);
        let (readings, writer, _) = opened.expect("the simulated disk refuses writes, not opening readings.db");
        let archive = readings.reader(&consumers[0]).expect("named just now");
        let (mut couriers, mut handles) = (Vec::new(), BTreeMap::new());
        for (n, (channel, ..)) in CHANNELS.iter().enumerate() {
            let (handle, queue) = CourierHandle::pair((*channel).into());
            handles.insert(Arc::clone(handle.channel()), handle);
            couriers.push(Courier { channel, queue, backlog: Backlog::new((*channel).into(), birth.seed + n as u64) });
        }
        let mut parts = Parts {
            clock: clock.clone(),
            points: birth.points,
            router: site::router(),
            validator: Validator::new(Settings::default()),
            engine: Engine::new(site::rules(birth.plans), site::desk(), birth.seed),
            journal,
            readings,
            couriers: handles,
            feed: Feed::new(),
            pulse: None,
            figures: Figures::default(),
            orders_waiting: 0,
            losses: Losses::default(),
            deliveries: Deliveries::default(),
            clock_trust: ClockTrust::new(None),
            suspects: birth.suspects,
            drill_calendar: DrillCalendar::default(),
            test_calendar: TestCalendar::new(TestPlan::default(), now.wall, BTreeMap::new()),
            plan_history: PlanHistory::default(),
            configuration: None,
            stock: StockWatch::new(jiff::tz::TimeZone::UTC, Vec::new()),
            hearing: anmin::main_loop::hearing::Hearing::default(),
            help: HelpWatch::new(jiff::tz::TimeZone::UTC, Duration::from_secs(86_400), Vec::new()),
            refills: None,
            people: Default::default(),
            says: BTreeMap::new(),
            sirens: Default::default(),
        };
        parts.take_up(now, restored);
        parts.engine.handle_broken_rules(now, &[]);
        Self {
            number: birth.number,
            started: birth.t,
            clock,
            couriers,
            disk,
            no_journal,
            eye: Eye::open(&dir),
            archive,
            health,
            main_loop: MainLoop::new(parts),
            writer: Some(writer),
            dir,
        }
    }

    pub fn now(&self) -> Now {
        self.clock.now()
    }

    pub fn at(&self, mono: Mono) -> u64 {
        self.started + mono.nanos().div_ceil(1_000)
    }

    /// One turn of the main loop. False when the box stopped in the middle of it.
    pub fn turn(&mut self, inputs: &mut Vec<Input>) -> bool {
        let turned = catch_unwind(AssertUnwindSafe(|| self.main_loop.turn(inputs)));
        inputs.clear();
        whole(turned)
    }

    /// Orders that the loop let out and no courier has looked at.
    pub fn let_out(&mut self) -> Vec<String> {
        let queues = self.couriers.iter_mut().map(|courier| &mut courier.queue);
        queues
            .flat_map(|queue| std::iter::from_fn(|| queue.try_recv().ok()))
            .map(|order| order.id.to_string())
            .collect()
    }

    pub fn poll_timeout(&self) -> Option<u64> {
        self.main_loop.poll_timeout().map(|mono| self.at(mono))
    }

    /// What screens see. Asked in a turn of its own.
    pub fn alarms(&mut self) -> Option<AlarmList> {
        let (reply, mut answer) = oneshot::channel();
        let (filter, page) = (AlarmFilter::default(), AlarmPage { after: None, limit: usize::MAX });
        self.turn(&mut vec![Input::Query(Query::Alarms { filter, page, reply })])
            .then(|| answer.try_recv().expect("a query is answered in its turn"))
    }

    /// The writer of readings takes one step. False when the box stopped in the middle of it.
    pub fn write_readings(&mut self) -> bool {
        // Only what this step commits may be torn.
        let disk = &self.disk;
        disk.lock().expect("nobody panics with it").wal_before.remove("readings.db");
        let refused = || disk.lock().expect("nobody panics with it").readings_refused > 0;
        let writer = self.writer.as_mut().expect("there until the end");
        let stepped = catch_unwind(AssertUnwindSafe(|| {
            // Behind what was refused before stands what came since.
            let more = refused();
            writer.step();
            if more && !refused() {
                writer.step();
            }
        }));
        whole(stepped)
    }

    /// Readings that the box gave up in this life, as it counts them.
    pub fn shed(&self) -> u64 {
        self.writer.as_ref().expect("there until the end").counts().shed
    }

    /// What the writer of readings said of its health, as the daemon hands it on.
    pub fn health(&self) -> Vec<Input> {
        let told = std::mem::take(&mut *self.health.lock().expect("nobody panics with it"));
        let part: Arc<str> = "store:readings".into();
        let input = |problem: Option<StoreError>| {
            let finding = Finding { level: Level::Yellow, limit: None, note: None };
            let trouble = problem.map(|problem| PartTrouble { finding, message: problem.text() });
            Input::Part(PartState { part: Arc::clone(&part), trouble })
        };
        told.into_iter().map(input).collect()
    }

    /// The files as a new life finds them after this one stopped; `cut` of a thousand of what the last commit added to
    /// the log of `torn` are there, the rest is rubbish. Tells whether it could be torn.
    pub fn leave(self, to: &Path, torn: Option<(&str, u64)>) -> bool {
        let mut tore = false;
        fs::create_dir_all(to).expect("the folder of the simulation can be written");
        for file in ["state.db", "state.db-wal", "readings.db", "readings.db-wal"] {
            match fs::copy(self.dir.join(file), to.join(file)) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => panic!("{file}: {error}"),
            }
        }
        // The reserve is large and never changes.
        let _ = fs::rename(self.dir.join("state.reserve"), to.join("state.reserve"));
        if let Some((file, cut)) = torn {
            let name = format!("{file}-wal");
            let before = self.disk.lock().expect("nobody panics with it").wal_before.get(file).copied();
            let mut bytes = fs::read(to.join(&name)).unwrap_or_default();
            let after = bytes.len() as u64;
            // A log that has begun anew or was folded into the file tells nothing by its length.
            if let Some(before) = before
                && after > before
                && after < 3 << 20
            {
                let end = before + (after - before) * cut / 1_000;
                for byte in &mut bytes[end as usize..] {
                    *byte ^= 0x5a;
                }
                fs::write(to.join(&name), bytes).expect("the folder of the simulation can be written");
                tore = true;
            }
        }
        let dir = self.dir.clone();
        drop(self);
        let _ = fs::remove_dir_all(dir);
        tore
    }
}

/// A stop that was planned is no panic; any other goes on its way.
fn whole<T>(result: std::thread::Result<T>) -> bool {
    match result {
        Ok(_) => true,
        Err(cause) if cause.is::<Stopped>() => false,
        Err(cause) => resume_unwind(cause),
    }
}
