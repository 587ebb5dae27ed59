//! Modbus TCP, RTU and ASCII, on serial lines, over TCP and from devices that dial in: one task a bus.
//!
//! Carries what [`Poller`] asks and hands back what became of it; which unit is asked when is decided there. Promises that
//! a late or foreign answer is never taken for the current one, and that nothing that fails becomes a number:
//!
//! - Modbus TCP numbers its requests. After a time-out, a mismatch or a damaged answer the connection is closed, so
//!   that what still comes on it is nobody's.
//! - A serial frame has no number. After a failure the line is drained until it is silent; a unit that did not answer
//!   is not asked again before its answer has been heard or `late_window` has passed. What lies on the line before a
//!   request is thrown away, and an answer is given time to come twice before its unit is asked for something alike. The same holds
//!   for serial frames over TCP: the serial server keeps late answers over a reconnect.
//! - tokio-modbus checks the count of values only by an assertion in debug builds, in its convenience methods. Those are
//!   not used here: [`Client::call`] gives the raw answer, and the count is checked in every build.
//!
//! It does not know what an alarm is, nor what the registers mean.

pub mod dial_in;
pub mod line;
pub mod write;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anmin_rules::rule::{Finding, Level, Text};
use anmin_sensors::decode::modbus::{Pdu, Table, crc16};
use anmin_sensors::document::Reader;
use anmin_sensors::poll::{self, Answer, Ask, Event, Failure, Next, Poller, Timing, Trouble, UnitPlan};
use anmin_sensors::reading::Reading;
use anmin_sensors::time::Mono;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_modbus::client::{Client as _, Context as Master, rtu, tcp};
use tokio_modbus::prelude::{Request, Response, Slave, SlaveContext as _};
use tokio_serial::{DataBits, Parity, SerialPortBuilderExt as _, StopBits};

use crate::clock::Clock;
use crate::main_loop::{Input, PartState, PartTrouble};
use crate::outgoing::Outgoing;
use crate::telemetry::BusCounters;
use dial_in::{DialIn, Door};
use line::{Line, Wire};
use write::{NotDone, Writes};

/// A `[[bus]]`.
#[derive(Clone, Debug)]
pub struct Settings {
    pub id: Arc<str>,
    pub transport: Transport,
    /// Longest wait for an answer; on a serial line the time that the bytes take comes on top.
    pub timeout: Duration,
    pub retries: u32,
    pub reconnect_min: Duration,
    pub reconnect_max: Duration,
    pub pause_after_connect: Duration,
    pub pause_between_requests: Duration,
    /// Connections of a `tcp` bus; more than one only for gateways that serve units in parallel.
    pub max_concurrent_units: usize,
    /// Serial framing only: how long after an unanswered request its answer may still come.
    pub late_window: Duration,
    /// Whom anmin may dial.
    pub outgoing: Outgoing,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp {
        host: String,
        port: u16,
    },
    /// A serial server, which passes frames through.
    OverTcp {
        framing: Framing,
        host: String,
        port: u16,
    },
    Serial(Framing, Serial),
    /// A serial line behind a device that calls us.
    DialIn(DialIn),
}

/// How frames look on a serial line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Rtu,
    /// In hexadecimal digits.
    Ascii,
}

impl Framing {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rtu => "rtu",
            Self::Ascii => "ascii",
        }
    }

    /// Characters on the line of a frame that has so many bytes in RTU.
    const fn characters(self, bytes: u32) -> u32 {
        match self {
            Self::Rtu => bytes,
            // Colon, CR, LF, and one check byte less.
            Self::Ascii => 2 * bytes + 1,
        }
    }
}

/// A serial line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serial {
    pub device: PathBuf,
    pub baud_rate: u32,
    pub data_bits: DataBits,
    pub parity: Parity,
    pub stop_bits: StopBits,
}

impl Serial {
    /// 8N1.
    pub fn new(device: impl Into<PathBuf>, baud_rate: u32) -> Self {
        let (data_bits, parity, stop_bits) = (DataBits::Eight, Parity::None, StopBits::One);
        Self { device: device.into(), baud_rate, data_bits, parity, stop_bits }
    }

    /// How long `bytes` take on the line: eleven bits each, as the specification counts.
    fn takes(&self, bytes: u32) -> Duration {
        Duration::from_secs(1) * 11 * bytes / self.baud_rate.max(1)
    }

    /// The silence between two frames: 3.5 characters, and no less than 1.75 ms.
    fn silence(&self) -> Duration {
        (self.takes(7) / 2).max(Duration::from_micros(1_750))
    }
}

impl Settings {
    /// Settings with everything but the place at its default, for tests and tools.
    pub fn new(id: &str, transport: Transport) -> Self {
        Self {
            id: Arc::from(id),
            timeout: Duration::from_millis(match transport {
                Transport::Serial(..) => 500,
                Transport::DialIn(_) => 3_000,
                _ => 1_000,
            }),
            transport,
            retries: 1,
            reconnect_min: Duration::from_secs(1),
            reconnect_max: Duration::from_secs(30),
            pause_after_connect: Duration::ZERO,
            pause_between_requests: Duration::ZERO,
            max_concurrent_units: 1,
            late_window: Duration::from_secs(3),
            outgoing: Outgoing::default(),
        }
    }

    /// Reads one `[[bus]]`. A relative `device` stands for itself: it is a name for the operating system, not a file of
    /// the configuration.
    pub fn read(r: &Reader<'_>, _base: &Path) -> Option<Self> {
        #[derive(Clone, Copy)]
        enum Kind {
            Tcp,
            OverTcp(Framing),
            Serial(Framing),
            DialIn,
        }
        let id: Option<String> = r.required("id");
        let kinds = [
            ("tcp", Kind::Tcp),
            ("rtu", Kind::Serial(Framing::Rtu)),
            ("rtu_over_tcp", Kind::OverTcp(Framing::Rtu)),
            ("ascii", Kind::Serial(Framing::Ascii)),
            ("ascii_over_tcp", Kind::OverTcp(Framing::Ascii)),
            ("dial_in", Kind::DialIn),
        ];
        let kind = if r.has("transport") {
            r.choice("transport", &kinds)
        } else {
            r.required::<String>("transport").and(None)
        };
        let transport = match kind {
            Some(Kind::Serial(framing)) => Self::read_serial(r).map(|line| Transport::Serial(framing, line)),
            Some(Kind::DialIn) => DialIn::read(r).map(Transport::DialIn),
            Some(kind) => {
                let (host, port) = (r.required::<String>("host"), r.or("port", 502_u16));
                if port == 0 {
                    r.fault("port", "`port` is 0", None);
                }
                host.map(|host| match kind {
                    Kind::OverTcp(framing) => Transport::OverTcp { framing, host, port },
                    _ => Transport::Tcp { host, port },
                })
            }
            // Which keys belong to it is not known, so none is called unknown.
            None => {
                let _ = (r.optional::<String>("host"), r.optional::<u16>("port"), Self::read_serial_keys(r));
                let _ = (r.has("listen").then(|| DialIn::read(r)), r.optional::<Vec<String>>("allow"));
                None
            }
        };
        let usual = Self::new("", transport.clone().unwrap_or(Transport::Tcp { host: String::new(), port: 502 }));
        let settings = Self {
            id: Arc::from(id.clone().unwrap_or_default()),
            transport: usual.transport.clone(),
            timeout: r.or("timeout", usual.timeout),
            retries: r.or("retries", usual.retries),
            reconnect_min: r.or("reconnect_min", usual.reconnect_min),
            reconnect_max: r.or("reconnect_max", usual.reconnect_max),
            pause_after_connect: r.or("pause_after_connect", usual.pause_after_connect),
            pause_between_requests: r.or("pause_between_requests", usual.pause_between_requests),
            max_concurrent_units: r.or("max_concurrent_units", usual.max_concurrent_units),
            late_window: r.or("late_window", usual.late_window),
            outgoing: Outgoing::default(),
        };
        r.finish();
        let mut sound = true;
        let mut wrong = |key: &str, message: String| {
            sound = false;
            r.fault(key, message, None);
        };
        if id.as_deref().is_some_and(|id| id.is_empty() || id.contains(['/', '+', '#'])) {
            wrong("id", "`id` is empty or holds one of / + #".to_owned());
        }
        if !(Duration::from_millis(10)..=Duration::from_secs(60)).contains(&settings.timeout) {
            wrong("timeout", "`timeout` must lie between 10ms and 60s".to_owned());
        }
        if settings.retries > 10 {
            wrong("retries", format!("`retries` is {}, at most 10", settings.retries));
        }
        if settings.reconnect_min.is_zero() || settings.reconnect_min > settings.reconnect_max {
            wrong("reconnect_min", "`reconnect_min` must be above zero and not above `reconnect_max`".to_owned());
        }
        let most = if matches!(settings.transport, Transport::Tcp { .. }) { 16 } else { 1 };
        if !(1..=most).contains(&settings.max_concurrent_units) {
            let units = settings.max_concurrent_units;
            wrong("max_concurrent_units", format!("`max_concurrent_units` is {units}, expected 1 to {most}"));
        }
        (sound && id.is_some() && transport.is_some()).then_some(settings)
    }

    pub fn heed(&mut self, outgoing: &Outgoing, r: &Reader<'_>) {
        if let Transport::Tcp { host, .. } | Transport::OverTcp { host, .. } = &self.transport {
            outgoing.check(r, "host", host);
        }
        self.outgoing = outgoing.clone();
    }

    fn read_serial(r: &Reader<'_>) -> Option<Serial> {
        let device: Option<String> = r.required("device");
        let (baud_rate, data_bits, parity, stop_bits) = Self::read_serial_keys(r);
        if !(300..=4_000_000).contains(&baud_rate) {
            r.fault("baud_rate", format!("`baud_rate` is {baud_rate}, expected 300 to 4000000"), None);
            return None;
        }
        let data_bits = match data_bits {
            7 => DataBits::Seven,
            8 => DataBits::Eight,
            other => {
                r.fault("data_bits", format!("`data_bits` is {other}, expected 7 or 8"), None);
                return None;
            }
        };
        let stop_bits = match stop_bits {
            1 => StopBits::One,
            2 => StopBits::Two,
            other => {
                r.fault("stop_bits", format!("`stop_bits` is {other}, expected 1 or 2"), None);
                return None;
            }
        };
        Some(Serial { device: device?.into(), baud_rate, data_bits, parity, stop_bits })
    }

    fn read_serial_keys(r: &Reader<'_>) -> (u32, u8, Parity, u8) {
        let parity = [("none", Parity::None), ("even", Parity::Even), ("odd", Parity::Odd)];
        let parity = r.choice("parity", &parity).unwrap_or(Parity::None);
        let _ = r.has("device").then(|| r.optional::<String>("device"));
        (r.or("baud_rate", 9_600), r.or("data_bits", 8), parity, r.or("stop_bits", 1))
    }

    /// `None`: Modbus TCP, which numbers its requests.
    pub fn framing(&self) -> Option<Framing> {
        match &self.transport {
            Transport::Tcp { .. } => None,
            Transport::OverTcp { framing, .. } | Transport::Serial(framing, _) => Some(*framing),
            Transport::DialIn(dial_in) => Some(dial_in.framing),
        }
    }

    fn is_serial_framing(&self) -> bool {
        self.framing().is_some()
    }

    fn timing(&self) -> Timing {
        let (late_window, repeat_window) = match self.is_serial_framing() {
            true => (self.late_window.max(self.timeout), REPEAT_WINDOW),
            false => (Duration::ZERO, Duration::ZERO),
        };
        Timing { timeout: self.timeout, retries: self.retries, late_window, repeat_window }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } => write!(f, "tcp {host}:{port}"),
            Self::OverTcp { framing, host, port } => write!(f, "{}_over_tcp {host}:{port}", framing.as_str()),
            Self::Serial(framing, line) => write!(f, "{} {}", framing.as_str(), line.device.display()),
            Self::DialIn(dial_in) => write!(f, "dial_in {}", dial_in.listen),
        }
    }
}

/// What comes to a bus from beside its schedule. Clones are the same doors.
#[derive(Clone, Debug, Default)]
pub struct Doors {
    /// Where the connections of a device that dials in come from, by [`dial_in::spawn`].
    pub callers: Door,
    /// What is to be written.
    pub writes: Writes,
}

/// Polls one bus until `inputs` is closed or the task is aborted.
///
/// Readings go out in batches: at once on a slow bus, at the latest 5 ms after the first on a fast one. `inputs` is
/// bounded; while it is full the bus is not asked anything, so nothing queues up here.
///
/// What the bus has done is counted in `counters`.
pub fn spawn(
    settings: Settings,
    units: Vec<UnitPlan>,
    clock: Clock,
    inputs: mpsc::Sender<Input>,
    counters: BusCounters,
    doors: Doors,
) -> JoinHandle<()> {
    let poller = Poller::new(settings.timing(), units, clock.now().mono);
    let lanes = settings.max_concurrent_units;
    let bus = Bus {
        state: Mutex::new(State { poller, connected: 0, health: None }),
        changed: Notify::new(),
        settings,
        clock,
        inputs,
        counters,
        doors,
    };
    tokio::spawn(async move {
        // All lanes are one task: they share the schedule and never run at the same time.
        futures_util::future::join_all((0..lanes).map(|_| Lane::new(&bus).run())).await;
    })
}

/// A bus that nobody polls, looked at by hand: one request at a time, and only such as read.
pub struct Look {
    settings: Settings,
    clock: Clock,
    link: Option<Link>,
}

impl Look {
    pub fn new(settings: Settings, clock: Clock) -> Self {
        Self { settings, clock, link: None }
    }

    /// Registers, or bits as 0 and 1, of a unit. Connects first where there is no connection; one on which an answer is
    /// missing is not used again, unless it is a serial line, which is listened to until it is silent.
    pub async fn read(&mut self, unit: u8, request: poll::Request) -> Result<Vec<u16>, Failure> {
        let mut link = match self.link.take() {
            Some(link) => link,
            // Nobody can be called who calls himself: such a door stays shut.
            None => Link::open(&self.settings, &self.clock, &Door::default()).await.map_err(|_| Failure::Lost)?,
        };
        let ask = Ask::alone(unit, request, self.settings.timeout);
        let read = link.exchange(&ask, &self.settings, &self.clock).await;
        let is_usable = match &read {
            Ok(_) | Err(Failure::Exception(_)) => true,
            Err(Failure::Silent | Failure::Garbled) => link.framing.is_some(),
            Err(Failure::Lost) => false,
        };
        self.link = is_usable.then_some(link);
        read.map(|data| match data {
            Data::Words(words) => words,
            Data::Bits(bits) => bits.into_iter().take(request.count.into()).map(u16::from).collect(),
        })
    }
}

/// Readings wait for company at most so long.
const BATCH_WAIT: Duration = Duration::from_millis(5);
/// A line is silent when nothing came for so long; USB adapters hand on what they have every 16 ms.
const LINE_SILENT: Duration = Duration::from_millis(25);
/// Units and repeaters that say everything twice do so at once.
const REPEAT_WINDOW: Duration = Duration::from_millis(50);
/// A line that chatters longer without a pause is used as it is: the CRC must tell.
const LONGEST_DRAIN: Duration = Duration::from_millis(500);
/// Bytes of a request that reads, and of one that writes a single value.
const REQUEST: u32 = 8;
/// Requests in a row without a byte, after which RTU over TCP suspects the connection itself.
const DEAF_AFTER: u32 = 3;

struct Bus {
    settings: Settings,
    clock: Clock,
    inputs: mpsc::Sender<Input>,
    state: Mutex<State>,
    changed: Notify,
    counters: BusCounters,
    doors: Doors,
}

struct State {
    poller: Poller,
    connected: usize,
    /// Whether the bus could be reached when it was last tried; `None` before the first try.
    health: Option<bool>,
}

/// The main loop is gone.
struct Closed;

impl Bus {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock panics halfway; a poisoned lock would still hold a sound state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(&self, input: Input) -> Result<(), Closed> {
        self.inputs.send(input).await.map_err(|_| Closed)
    }

    /// Tells of what the schedule has found out: each event in the log, what remains of it as the state of the unit.
    async fn tell_events(&self) -> Result<(), Closed> {
        loop {
            let (event, trouble) = {
                let mut state = self.state();
                let Some(event) = state.poller.poll_event() else { return Ok(()) };
                let trouble = state.poller.trouble(event.unit());
                (event, trouble)
            };
            let bus = &self.settings.id;
            match &event {
                Event::Parked { unit, device, why } => tracing::warn!(
                    "bus {bus}: unit {unit} ({device}) cannot be read ({why}); it is parked and probed now and then, the \
                     others are read as before"
                ),
                Event::Back { unit, device } => tracing::info!("bus {bus}: unit {unit} ({device}) can be read again"),
                Event::Quarantined { unit, device, points, why } => tracing::warn!(
                    "bus {bus}: unit {unit} ({device}) refuses {} of its points with {why}; they are left alone and tried \
                     again every ten minutes: check the addresses of its profile",
                    points.len()
                ),
                Event::Released { unit, device, points } => {
                    tracing::info!("bus {bus}: unit {unit} ({device}) gives {} of its points again", points.len());
                }
                Event::Withheld { unit, device, points, why } => tracing::warn!(
                    "bus {bus}: unit {unit} ({device}) answers, but not for {} of its points ({why}); they are tried less \
                     often",
                    points.len()
                ),
            }
            let trouble = trouble.map(|trouble| self.trouble_of(&event, &trouble));
            self.send(part(format!("unit:{bus}/{}", event.unit()), trouble)).await?;
        }
    }

    /// Tells of callers that should not be, or not so often.
    async fn tell_of_callers(&self) -> Result<(), Closed> {
        if !matches!(self.settings.transport, Transport::DialIn(_)) {
            return Ok(());
        }
        match self.doors.callers.news(&self.settings, self.clock.now().mono) {
            Some(trouble) => self.send(part(format!("callers:{}", self.settings.id), trouble)).await,
            None => Ok(()),
        }
    }

    /// What the officer reads about a unit.
    fn trouble_of(&self, event: &Event, trouble: &Trouble) -> PartTrouble {
        let (bus, unit, device) = (&self.settings.id, event.unit(), event.device());
        let who = (format!("总线 {bus} 的 {unit} 号设备（{device}）"), format!("unit {unit} ({device}) on bus {bus}"));
        match trouble {
            Trouble::Parked(why) if why.is_refusal() => part_trouble(
                Level::Yellow,
                why,
                format!("{}对所有请求都应答异常，其测点状态未知", who.0),
                format!("{} answers every request with an exception; its points are unknown", who.1),
            ),
            Trouble::Parked(why) => part_trouble(
                Level::Yellow,
                why,
                format!("{}不应答，其测点状态未知", who.0),
                format!("{} does not answer; its points are unknown", who.1),
            ),
            // The points speak for themselves; this says where to look.
            Trouble::Lacks { names, why } => {
                let (count, shown) = (names.len(), &names[..names.len().min(8)]);
                let more = if shown.len() < count { ("等", " and others") } else { ("", "") };
                part_trouble(
                    Level::Blue,
                    why,
                    format!(
                        "{}有 {count} 个测点读不到：{}{}。请核对设备型号和寄存器地址",
                        who.0,
                        shown.join("、"),
                        more.0
                    ),
                    format!(
                        "{} does not give {count} of its points: {}{}; check its model and register addresses",
                        who.1,
                        shown.join(", "),
                        more.1
                    ),
                )
            }
        }
    }
}

fn part(part: String, trouble: Option<PartTrouble>) -> Input {
    Input::Part(PartState { part: part.into(), trouble })
}

fn part_trouble(level: Level, note: impl fmt::Display, zh: String, en: String) -> PartTrouble {
    let note = Some(note.to_string());
    PartTrouble { finding: Finding { level, limit: None, note }, message: Text { zh, en } }
}

/// One connection and what is done over it, one request at a time.
struct Lane<'b> {
    bus: &'b Bus,
    link: Option<Link>,
    batch: Vec<Reading>,
    batch_since: Mono,
    backoff: Duration,
}

impl<'b> Lane<'b> {
    fn new(bus: &'b Bus) -> Self {
        let backoff = bus.settings.reconnect_min;
        Self { bus, link: None, batch: Vec::new(), batch_since: Mono::default(), backoff }
    }

    async fn run(mut self) {
        while self.step().await.is_ok() {}
    }

    /// Connects, or waits, or carries one request.
    async fn step(&mut self) -> Result<(), Closed> {
        if self.link.is_none() && !self.connect().await? {
            return Ok(());
        }
        let now = self.bus.clock.now().mono;
        // A unit that owes an answer is written to no sooner than it is asked.
        let writes_at = self.bus.doors.writes.next_unit().map(|unit| self.bus.state().poller.gate(unit));
        if writes_at.is_some_and(|at| at <= now)
            && let Some(job) = self.bus.doors.writes.next()
        {
            return self.carry_out(job).await;
        }
        let changed = self.bus.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        let next = self.bus.state().poller.poll_request(now);
        match next {
            Next::Ask(ask) => self.carry(&ask).await,
            Next::Wait(until) => {
                self.flush().await?;
                let wait = async {
                    match until.into_iter().chain(writes_at).min() {
                        Some(at) => sleep(at.since(now)).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = wait => Ok(()),
                    () = changed => Ok(()),
                    () = self.bus.doors.writes.came(), if writes_at.is_none() => Ok(()),
                    () = self.bus.inputs.closed() => Err(Closed),
                }
            }
        }
    }

    /// Tries once to connect; after a failure waits, twice as long each time.
    async fn connect(&mut self) -> Result<bool, Closed> {
        let settings = &self.bus.settings;
        match Link::open(settings, &self.bus.clock, &self.bus.doors.callers).await {
            Ok(link) => {
                self.link = Some(link);
                let before = {
                    let mut state = self.bus.state();
                    state.connected += 1;
                    state.health.replace(true)
                };
                if before != Some(true) {
                    tracing::info!("bus {}: connected to {}", settings.id, settings.transport);
                    self.bus.send(part(format!("bus:{}", settings.id), None)).await?;
                }
                sleep(settings.pause_after_connect).await;
                Ok(true)
            }
            Err(error) => {
                let now = self.bus.clock.now();
                let before = {
                    let mut state = self.bus.state();
                    if state.connected > 0 {
                        Some(false)
                    } else {
                        state.poller.handle_bus_lost(now, &mut self.batch);
                        state.health.replace(false)
                    }
                };
                if before != Some(false) {
                    let (id, transport) = (&settings.id, &settings.transport);
                    tracing::error!(
                        "bus {id}: cannot reach {transport}: {error}; all its points are unknown, anmin goes on trying"
                    );
                    let trouble = part_trouble(
                        Level::Yellow,
                        error,
                        format!("总线 {id}（{transport}）连接不上，其全部测点状态未知"),
                        format!("bus {id} ({transport}) cannot be reached; all its points are unknown"),
                    );
                    self.bus.send(part(format!("bus:{id}"), Some(trouble))).await?;
                }
                self.bus.tell_of_callers().await?;
                self.flush().await?;
                self.back_off().await?;
                Ok(false)
            }
        }
    }

    async fn back_off(&mut self) -> Result<(), Closed> {
        let wait = self.backoff;
        self.backoff = (wait * 2).min(self.bus.settings.reconnect_max);
        tokio::select! {
            () = sleep(wait) => Ok(()),
            () = self.bus.doors.callers.somebody() => Ok(()),
            () = self.bus.inputs.closed() => Err(Closed),
        }
    }

    async fn carry(&mut self, ask: &Ask) -> Result<(), Closed> {
        // Invariant: `step` has connected.
        let Some(link) = &mut self.link else { return Ok(()) };
        let second_caller = self.bus.doors.callers.waits();
        let result = link.exchange(ask, &self.bus.settings, &self.bus.clock).await;
        let now = self.bus.clock.now();
        let waiting = !self.batch.is_empty();
        {
            let mut state = self.bus.state();
            let answer = match &result {
                Ok(Data::Words(words)) => Ok(Answer::Words(words)),
                Ok(Data::Bits(bits)) => Ok(Answer::Bits(bits)),
                Err(failure) => Err(*failure),
            };
            state.poller.handle_answer(ask.ticket, answer, now, &mut self.batch);
            for unit in link.late.drain(..) {
                state.poller.handle_late_answer(unit);
            }
            self.bus.counters.set(state.poller.counters());
        }
        self.bus.changed.notify_waiters();
        if !waiting {
            self.batch_since = now.mono;
        }
        let answered = matches!(result, Ok(_) | Err(Failure::Exception(_)));
        if answered {
            link.answers += 1;
            link.deaf = 0;
            self.backoff = self.bus.settings.reconnect_min;
            if let (Some(who), Some(peer)) = (second_caller, link.peer) {
                self.bus.doors.callers.turn_away(who, peer, now.mono);
            }
        }
        let close = match result {
            Ok(_) | Err(Failure::Exception(_)) => false,
            Err(Failure::Lost) => true,
            Err(Failure::Silent | Failure::Garbled) => !self.bus.settings.is_serial_framing() || link.is_deaf(),
        };
        if close {
            let fruitless = link.answers == 0 && matches!(result, Err(Failure::Lost));
            self.link = None;
            self.bus.state().connected -= 1;
            if fruitless {
                // A peer that takes connections only to drop them must not be called in a tight loop.
                self.flush().await?;
                self.back_off().await?;
            }
        }
        self.bus.tell_events().await?;
        self.bus.tell_of_callers().await?;
        if now.mono.since(self.batch_since) >= BATCH_WAIT || self.batch.len() >= 512 {
            self.flush().await?;
        }
        Ok(())
    }

    /// Does what somebody wants written, if they still wait for it.
    async fn carry_out(&mut self, job: write::Job) -> Result<(), Closed> {
        self.flush().await?;
        // Invariant: `step` has connected.
        let (Some(link), Some((deed, done))) = (&mut self.link, job.begin().await) else { return Ok(()) };
        let result = link.carry_out(&deed, &self.bus.settings, &self.bus.clock).await;
        if matches!(result, Err(NotDone::Unknown(_))) {
            // Whatever still comes on this connection is nobody's, and on a serial line it may come on the next one.
            self.link = None;
            let mut state = self.bus.state();
            state.connected -= 1;
            state.poller.handle_owed(deed.unit, self.bus.clock.now().mono);
        }
        // Whoever asked may have gone; it is done all the same.
        let _ = done.send(result);
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Closed> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.bus.send(Input::Readings(std::mem::take(&mut self.batch))).await
    }
}

/// The values of one answer.
#[derive(Debug)]
enum Data {
    Words(Vec<u16>),
    Bits(Vec<bool>),
}

/// A connection with tokio-modbus' master on it. The wire is shared with the master, so that it can be drained when
/// the master has failed; a failed master is replaced, since its framing does not start anew by itself.
struct Link {
    line: Line,
    master: Master,
    serial: Option<Serial>,
    framing: Option<Framing>,
    /// Of a connection that the other end began.
    peer: Option<SocketAddr>,
    last_use: Mono,
    /// Answers on this connection.
    answers: u64,
    /// Requests in a row after which not a byte came, nor a heartbeat.
    deaf: u32,
    beaten: u64,
    /// Units whose late answers were heard and thrown away.
    late: Vec<u8>,
}

impl Link {
    async fn open(settings: &Settings, clock: &Clock, door: &Door) -> io::Result<Self> {
        let (mut peer, mut beats) = (None, Arc::default());
        let (wire, serial) = match &settings.transport {
            Transport::Tcp { host, port } | Transport::OverTcp { host, port, .. } => {
                let limit = settings.timeout.max(Duration::from_secs(3));
                let stream = timeout(limit, settings.outgoing.connect(host, *port))
                    .await
                    .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer to the connection attempt"))??;
                stream.set_nodelay(true)?;
                (Wire::Tcp(stream), None)
            }
            Transport::Serial(_, serial) => {
                let port = tokio_serial::new(serial.device.to_string_lossy(), serial.baud_rate)
                    .data_bits(serial.data_bits)
                    .parity(serial.parity)
                    .stop_bits(serial.stop_bits)
                    .open_native_async()?;
                (Wire::Serial(port), Some(serial.clone()))
            }
            Transport::DialIn(dial_in) => {
                let (stream, from) = door.take(settings.reconnect_max).await?;
                peer = Some(from);
                beats = dial_in.beats();
                (Wire::Tcp(stream), None)
            }
        };
        let framing = settings.framing();
        let line = Line::new(wire, framing == Some(Framing::Ascii), beats);
        let master = master(&line, framing.is_some());
        let last_use = clock.now().mono;
        Ok(Self { line, master, serial, framing, peer, last_use, answers: 0, deaf: 0, beaten: 0, late: Vec::new() })
    }

    fn is_deaf(&self) -> bool {
        self.serial.is_none() && self.deaf >= DEAF_AFTER
    }

    /// Carries one request and gives its answer or why there is none; leaves the line silent.
    async fn exchange(&mut self, ask: &Ask, settings: &Settings, clock: &Clock) -> Result<Data, Failure> {
        if let Err(error) = self.prepare(ask, settings, clock).await {
            tracing::debug!("bus {}: {error}", settings.id);
            return Err(Failure::Lost);
        }
        let values = if ask.request.table.is_bits() { ask.request.count.div_ceil(8) } else { ask.request.count * 2 };
        let answer = 5 + values;
        let limit = ask.limit + self.time_of(REQUEST) + self.time_of(answer.into());
        let started = clock.now().mono;
        let result = if self.framing.is_some() {
            let damaged = silent_after(self.line.clone(), answer.into(), self.silence());
            tokio::select! {
                result = self.call(ask, limit) => result,
                () = damaged => Err(Failure::Garbled),
            }
        } else {
            self.call(ask, limit).await
        };
        let result = match result {
            Err(Failure::Silent | Failure::Garbled) if self.framing.is_some() => {
                let left = limit.saturating_sub(clock.now().mono.since(started));
                Err(self.settle(ask, left, clock).await)
            }
            other => other,
        };
        if self.framing.is_some() {
            self.note_late(ask.unit);
        }
        self.last_use = clock.now().mono;
        result
    }

    /// How long a frame that has so many bytes in RTU is on the line.
    fn time_of(&self, bytes: u32) -> Duration {
        let framing = self.framing.unwrap_or(Framing::Rtu);
        self.serial.as_ref().map_or(Duration::ZERO, |serial| serial.takes(framing.characters(bytes)))
    }

    /// For a write and its answer, which are equally long.
    fn limit_of_write(&self, settings: &Settings) -> Duration {
        settings.timeout + self.time_of(REQUEST) * 2
    }

    /// After a failure on a serial line: what still comes is thrown away, and the framing begins anew.
    async fn start_anew(&mut self, clock: &Clock) -> io::Result<()> {
        self.drain(clock).await?;
        self.master = master(&self.line, true);
        Ok(())
    }

    /// Keeps the pauses, throws away what lies on the line, wakes the unit.
    async fn prepare(&mut self, ask: &Ask, settings: &Settings, clock: &Clock) -> io::Result<()> {
        let mut pause = settings.pause_between_requests;
        if let Some(serial) = &self.serial {
            pause = pause.max(serial.silence());
        }
        let rested = clock.now().mono.since(self.last_use);
        if rested < pause {
            sleep(pause - rested).await;
        }
        if self.framing.is_some() {
            self.line.heard_clear();
            if self.line.swallow().await? > 0 {
                self.drain(clock).await?;
                self.note_late(0);
            }
            // Bytes that wake are such of a line that speaks RTU.
            if let (Some(wake), Some(Framing::Rtu)) = (&ask.wake, self.framing) {
                self.line.write_all(&wake.bytes).await?;
                self.line.flush().await?;
                sleep(wake.pause).await;
            }
        }
        self.line.heard_clear();
        Ok(())
    }

    async fn call(&mut self, ask: &Ask, limit: Duration) -> Result<Data, Failure> {
        let (address, count) = (ask.request.address, ask.request.count);
        let request = match ask.request.table {
            Table::Coil => Request::ReadCoils(address, count),
            Table::Discrete => Request::ReadDiscreteInputs(address, count),
            Table::Holding => Request::ReadHoldingRegisters(address, count),
            Table::Input => Request::ReadInputRegisters(address, count),
        };
        if self.framing.is_some() {
            self.line.expect_echo(&request_frame(ask));
        }
        let count = usize::from(count);
        match self.say(ask.unit, request, limit).await? {
            Response::ReadCoils(bits) | Response::ReadDiscreteInputs(bits)
                if bits.len() == count.next_multiple_of(8) =>
            {
                Ok(Data::Bits(bits))
            }
            Response::ReadHoldingRegisters(words) | Response::ReadInputRegisters(words) if words.len() == count => {
                Ok(Data::Words(words))
            }
            _ => Err(Failure::Garbled),
        }
    }

    /// One request and whatever answers it.
    async fn say(&mut self, unit: u8, request: Request<'_>, limit: Duration) -> Result<Response, Failure> {
        self.master.set_slave(Slave(unit));
        match timeout(limit, self.master.call(request)).await {
            Err(_) => Err(Failure::Silent),
            Ok(Ok(Ok(response))) => Ok(response),
            Ok(Ok(Err(exception))) => Err(Failure::Exception(exception.into())),
            Ok(Err(tokio_modbus::Error::Protocol(_))) => Err(Failure::Garbled),
            Ok(Err(tokio_modbus::Error::Transport(error))) => {
                Err(if error.kind() == io::ErrorKind::InvalidData { Failure::Garbled } else { Failure::Lost })
            }
        }
    }

    /// After a failure on a serial line: listens until the line is silent, and for the rest of the time limit when
    /// the unit's own answer has not been heard yet. Then the unit either has spoken, or still owes its answer.
    async fn settle(&mut self, ask: &Ask, left: Duration, clock: &Clock) -> Failure {
        let until = clock.now().mono.plus(left);
        let spoke = loop {
            if self.drain(clock).await.is_err() {
                return Failure::Lost;
            }
            let spoke = self.line.heard(|heard| has_spoken(heard, ask.unit, ask.request.table));
            let left = until.since(clock.now().mono);
            if spoke || left.is_zero() {
                break spoke;
            }
            match timeout(left, self.line.readable()).await {
                Ok(Ok(())) | Err(_) => {}
                Ok(Err(_)) => return Failure::Lost,
            }
        };
        let beaten = self.line.beaten();
        let is_deaf = self.line.heard(<[u8]>::is_empty) && beaten == self.beaten;
        self.beaten = beaten;
        self.deaf = if is_deaf { self.deaf + 1 } else { 0 };
        self.master = master(&self.line, true);
        if spoke { Failure::Garbled } else { Failure::Silent }
    }

    /// A pause that no frame has inside it.
    fn silence(&self) -> Duration {
        self.serial.as_ref().map_or(LINE_SILENT, |serial| serial.silence().max(LINE_SILENT))
    }

    /// Reads and throws away until nothing comes any more.
    async fn drain(&mut self, clock: &Clock) -> io::Result<()> {
        let silent = self.silence();
        let end = clock.now().mono.plus(LONGEST_DRAIN);
        let mut bytes = [0; 256];
        while clock.now().mono < end {
            match timeout(silent, self.line.read(&mut bytes)).await {
                Err(_) => return Ok(()),
                Ok(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// Remembers the units whose frames were heard, but for the one that was asked.
    fn note_late(&mut self, asked: u8) {
        let late = &mut self.late;
        self.line.heard(|heard| {
            let mut rest = heard;
            while rest.len() >= 5 {
                match whole_frame(rest) {
                    Some((length, unit)) => {
                        if unit != asked {
                            late.push(unit);
                        }
                        rest = &rest[length..];
                    }
                    None => rest = &rest[1..],
                }
            }
        });
    }
}

/// Waits until as many bytes were heard as a whole answer has, and then none for `silence`. What the master has not taken
/// by then is damaged: no more of it will come, and the line need not be held for the rest of the time limit.
async fn silent_after(line: Line, whole: usize, silence: Duration) {
    let mut before = 0;
    loop {
        sleep(silence).await;
        let heard = line.heard(<[u8]>::len);
        if heard >= whole && heard == before {
            return;
        }
        before = heard;
    }
}

fn master(line: &Line, is_serial_framing: bool) -> Master {
    if is_serial_framing { rtu::attach(line.clone()) } else { tcp::attach(line.clone()) }
}

/// The serial frame that asks for it.
fn request_frame(ask: &Ask) -> [u8; 8] {
    let ([a, b], [c, d]) = (ask.request.address.to_be_bytes(), ask.request.count.to_be_bytes());
    let [low, high] = crc16(&[ask.unit, ask.request.table.function(), a, b, c, d]).to_le_bytes();
    [ask.unit, ask.request.table.function(), a, b, c, d, low, high]
}

/// The answer frame at the start of `bytes`: its length and unit.
fn whole_frame(bytes: &[u8]) -> Option<(usize, u8)> {
    let length = match bytes {
        [_, 1..=4, count, ..] => 5 + usize::from(*count),
        [_, 0x81..=0x84, ..] => 5,
        _ => return None,
    };
    let pdu = Pdu::unpack_rtu(bytes.get(..length)?)?;
    Some((length, pdu.unit))
}

/// Whether what was heard is, or began as, this unit's answer. Damaged ones count: the unit has nothing more to say.
fn has_spoken(heard: &[u8], unit: u8, table: Table) -> bool {
    let is_start =
        |at: &[u8]| matches!(at, [first, function, ..] if *first == unit && function & 0x7F == table.function());
    is_start(heard) || (0..heard.len()).any(|at| is_start(&heard[at..]) && whole_frame(&heard[at..]).is_some())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use anmin_sensors::document::{Document, Faults};
    use anmin_sensors::point::{DeviceId, Place, Points};
    use anmin_sensors::profile::Profiles;
    use anmin_sensors::reading::{Fault, Value};

    use super::*;
    use crate::sim::modbus_slaves::{ModbusSlaves, Registers, SharedRegisters};

    const MS: Duration = Duration::from_millis(1);

    fn read(text: &str) -> Result<Settings, Vec<String>> {
        let faults = Faults::default();
        let doc = Document::parse("t.toml", text, &faults).expect("the test writes TOML");
        let settings = Settings::read(&doc.root(&faults), Path::new("."));
        settings.ok_or_else(|| faults.take().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_bus_is_read_with_its_defaults() {
        let tcp = read("id = 'a'\ntransport = 'tcp'\nhost = '127.0.0.1'").expect("sound");
        assert_eq!(tcp.transport, Transport::Tcp { host: "127.0.0.1".to_owned(), port: 502 });
        assert_eq!((tcp.timeout, tcp.retries, tcp.max_concurrent_units), (1_000 * MS, 1, 1));
        assert_eq!(tcp.timing().late_window, Duration::ZERO);
        let rtu =
            "id = 'b'\ntransport = 'rtu'\ndevice = '/dev/ttyS0'\nbaud_rate = 4800\nparity = 'even'\nstop_bits = 2";
        let rtu = read(rtu).expect("sound");
        let Transport::Serial(Framing::Rtu, serial) = &rtu.transport else { panic!("it is a serial line") };
        assert_eq!((serial.baud_rate, serial.parity, serial.stop_bits), (4_800, Parity::Even, StopBits::Two));
        assert_eq!((rtu.timeout, rtu.timing().late_window), (500 * MS, 3_000 * MS));
        assert!(serial.silence() > 8 * MS && Serial::new("x", 115_200).silence() == Duration::from_micros(1_750));
    }

    #[test]
    fn a_faulty_bus_says_what_is_wrong_with_it() {
        for (text, wanted) in [
            ("transport = 'tcp'\nhost = 'x'", "`id` is missing"),
            ("id = 'a/b'\ntransport = 'tcp'\nhost = 'x'", "holds one of / + #"),
            ("id = 'a'\nhost = 'x'", "`transport` is missing"),
            ("id = 'a'\ntransport = 'rtu_over_tpc'\nhost = 'x'", "did you mean `rtu_over_tcp`?"),
            ("id = 'a'\ntransport = 'tcp'", "`host` is missing"),
            ("id = 'a'\ntransport = 'tcp'\nhost = 'x'\nbaud_rate = 9600", "`baud_rate` is not a known key"),
            ("id = 'a'\ntransport = 'rtu'", "`device` is missing"),
            ("id = 'a'\ntransport = 'rtu'\ndevice = 'x'\nparity = 'evne'", "did you mean `even`?"),
            ("id = 'a'\ntransport = 'rtu'\ndevice = 'x'\ndata_bits = 9", "expected 7 or 8"),
            ("id = 'a'\ntransport = 'rtu'\ndevice = 'x'\nbaud_rate = 0", "expected 300 to"),
            ("id = 'a'\ntransport = 'rtu'\ndevice = 'x'\nmax_concurrent_units = 2", "expected 1 to 1"),
            ("id = 'a'\ntransport = 'tcp'\nhost = 'x'\ntimeout = '0s'", "between 10ms and 60s"),
            ("id = 'a'\ntransport = 'tcp'\nhost = 'x'\nreconnect_min = '1m'", "not above `reconnect_max`"),
            ("id = 'a'\ntransport = 'tcp'\nhost = 'x'\ntimeuot = '1s'", "did you mean `timeout`?"),
            ("id = 'a'\ntransport = 'dial_in'", "`listen` is missing"),
            ("id = 'a'\ntransport = 'dial_in'\nlisten = '8502'", "expected an address and a port"),
            ("id = 'a'\ntransport = 'dial_in'\nlisten = '[::1]:1'\nregistration = ''", "expected 1 to 128 bytes"),
            ("id = 'a'\ntransport = 'dial_in'\nlisten = '[::1]:1'\nheartbeat = 'hex:7G'", "expected 1 to 128 bytes"),
            ("id = 'a'\ntransport = 'dial_in'\nlisten = '[::1]:1'\nallow = ['dtu']", "which is no network"),
            ("id = 'a'\ntransport = 'dial_in'\nlisten = '[::1]:1'\nframing = 'tcp'", "one of rtu, ascii"),
            ("id = 'a'\ntransport = 'dial_in'\nlisten = '[::1]:1'\nhost = 'x'", "`host` is not a known key"),
        ] {
            let faults = match read(text) {
                Err(faults) => faults,
                // An unknown key is a fault of the file, noted beside the settings.
                Ok(_) => {
                    let faults = Faults::default();
                    let doc = Document::parse("t.toml", text, &faults).expect("the test writes TOML");
                    Settings::read(&doc.root(&faults), Path::new("."));
                    faults.take().iter().map(ToString::to_string).collect()
                }
            };
            assert!(faults.iter().any(|fault| fault.contains(wanted)), "{text}: {faults:?}");
        }
    }

    /// Gas detectors on one bus, and what comes of them.
    struct Site {
        points: Points,
        plans: Vec<UnitPlan>,
        table: SharedRegisters,
    }

    fn site(units: u8) -> Site {
        let profiles = Profiles::shipped();
        let profile = profiles.get("yaoan-ya-k300").expect("it is shipped");
        let modbus = profile.modbus.as_ref().expect("it speaks Modbus");
        let (mut points, table) = (Points::default(), Registers::shared());
        let plans = (1..=units)
            .map(|unit| {
                table.write().expect("nobody panics with the table").add_unit(unit, modbus);
                let id = DeviceId::new(format!("d{unit}"));
                let place = Arc::new(Place::default());
                let device = points.add(id, None, &profile.id, &place, profile.specs()).expect("ids differ");
                let mut plan = UnitPlan::new(unit, modbus, &points, device);
                (plan.interval, plan.probe_every) = (20 * MS, 50 * MS);
                plan
            })
            .collect();
        let site = Site { points, plans, table };
        for unit in 1..=units {
            site.set(unit, f64::from(unit));
        }
        site
    }

    impl Site {
        fn set(&self, unit: u8, lel: f64) {
            let profiles = Profiles::shipped();
            let modbus = profiles.get("yaoan-ya-k300").and_then(|profile| profile.modbus.clone()).expect("shipped");
            let register = modbus.registers[0].as_ref().expect("lel is the first point");
            let mut table = self.table.write().expect("nobody panics with the table");
            assert!(table.put(unit, register, &Value::Number(lel)));
        }

        fn silence(&self, unit: u8, silent: bool) {
            self.table.write().expect("nobody panics with the table").silence(unit, silent);
        }

        /// Takes inputs until the point reads as wanted.
        async fn until(&self, inputs: &mut mpsc::Receiver<Input>, point: &str, wanted: Result<Value, Fault>) {
            let ix = self.points.find(point).expect("the point is there");
            let wait = async {
                loop {
                    let input = inputs.recv().await.expect("the bus is polled");
                    if let Input::Readings(readings) = input
                        && readings.iter().any(|reading| reading.point == ix && reading.value == wanted)
                    {
                        return;
                    }
                }
            };
            timeout(Duration::from_secs(30), wait).await.unwrap_or_else(|_| panic!("{point} never read {wanted:?}"));
        }
    }

    async fn part_of(inputs: &mut mpsc::Receiver<Input>, name: &str, in_trouble: bool) {
        let wait = async {
            loop {
                match inputs.recv().await.expect("the bus is polled") {
                    Input::Part(state) if &*state.part == name && state.trouble.is_some() == in_trouble => {
                        if let Some(trouble) = state.trouble {
                            assert!(!trouble.message.zh.is_empty() && !trouble.message.en.is_empty());
                        }
                        return;
                    }
                    _ => {}
                }
            }
        };
        timeout(Duration::from_secs(30), wait).await.unwrap_or_else(|_| panic!("{name} was never said"));
    }

    /// What every transport must do: read, say that a unit is gone, and that it is back.
    async fn reads_loses_and_finds_a_unit(settings: Settings, site: Site) {
        let (sender, mut inputs) = mpsc::channel(64);
        let settings = Settings { timeout: 100 * MS, late_window: 100 * MS, ..settings };
        let task =
            spawn(settings, site.plans.clone(), Clock::system(), sender, BusCounters::default(), Doors::default());
        let number = |lel: f64| Ok(Value::Number(lel));
        site.until(&mut inputs, "d2/lel", number(2.0)).await;
        site.set(2, 61.2);
        site.until(&mut inputs, "d2/lel", number(61.2)).await;
        site.silence(2, true);
        part_of(&mut inputs, "unit:b/2", true).await;
        site.until(&mut inputs, "d1/lel", number(1.0)).await;
        site.until(&mut inputs, "d2/temperature", Err(Fault::Comms)).await;
        site.silence(2, false);
        part_of(&mut inputs, "unit:b/2", false).await;
        site.until(&mut inputs, "d2/lel", number(61.2)).await;
        drop(inputs);
        timeout(Duration::from_secs(30), task).await.expect("it ends when nobody listens").expect("and does not panic");
    }

    fn loopback() -> SocketAddr {
        ([127, 0, 0, 1], 0).into()
    }

    #[tokio::test]
    async fn tcp_reads_loses_and_finds_a_unit() {
        let site = site(4);
        let slaves = ModbusSlaves::tcp(loopback(), Arc::clone(&site.table)).await.expect("a port is free");
        let port = slaves.address().expect("it listens").port();
        let transport = Transport::Tcp { host: "127.0.0.1".to_owned(), port };
        reads_loses_and_finds_a_unit(Settings::new("b", transport), site).await;
    }

    #[tokio::test]
    async fn rtu_over_tcp_reads_loses_and_finds_a_unit() {
        let site = site(4);
        let slaves =
            ModbusSlaves::over_tcp(Framing::Rtu, loopback(), Arc::clone(&site.table)).await.expect("a port is free");
        let port = slaves.address().expect("it listens").port();
        let transport = Transport::OverTcp { framing: Framing::Rtu, host: "127.0.0.1".to_owned(), port };
        reads_loses_and_finds_a_unit(Settings::new("b", transport), site).await;
    }

    #[tokio::test]
    async fn tcp_with_several_connections_reads_loses_and_finds_a_unit() {
        let site = site(8);
        let slaves = ModbusSlaves::tcp(loopback(), Arc::clone(&site.table)).await.expect("a port is free");
        let port = slaves.address().expect("it listens").port();
        let transport = Transport::Tcp { host: "127.0.0.1".to_owned(), port };
        let settings = Settings { max_concurrent_units: 4, ..Settings::new("b", transport) };
        reads_loses_and_finds_a_unit(settings, site).await;
    }

    #[tokio::test]
    async fn a_serial_line_reads_loses_and_finds_a_unit() {
        let site = site(4);
        let slaves = ModbusSlaves::pty(Framing::Rtu, Arc::clone(&site.table)).expect("a pseudo-terminal is free");
        let device = slaves.device().expect("it has a path").to_owned();
        reads_loses_and_finds_a_unit(
            Settings::new("b", Transport::Serial(Framing::Rtu, Serial::new(device, 115_200))),
            site,
        )
        .await;
    }

    #[tokio::test]
    async fn a_bus_that_cannot_be_reached_is_said_and_found_later() {
        let site = site(1);
        let free = tokio::net::TcpListener::bind(loopback()).await.expect("a port is free");
        let address = free.local_addr().expect("it is bound");
        drop(free);
        let transport = Transport::Tcp { host: "127.0.0.1".to_owned(), port: address.port() };
        let settings = Settings { reconnect_min: 10 * MS, reconnect_max: 20 * MS, ..Settings::new("b", transport) };
        let (sender, mut inputs) = mpsc::channel(64);
        let _task =
            spawn(settings, site.plans.clone(), Clock::system(), sender, BusCounters::default(), Doors::default());
        part_of(&mut inputs, "bus:b", true).await;
        site.until(&mut inputs, "d1/lel", Err(Fault::Comms)).await;
        let _slaves = ModbusSlaves::tcp(address, Arc::clone(&site.table)).await.expect("the port is free");
        part_of(&mut inputs, "bus:b", false).await;
        site.until(&mut inputs, "d1/lel", Ok(Value::Number(1.0))).await;
    }
}
