//! GB/T 26875.3 northwards: a city's monitoring centre takes anmin as one of its user information transmission devices.
//!
//! anmin dials the centre and sends (command 2) how parts of fire facilities stand, what people did about it, and how it stands
//! itself; an order is delivered when the centre has confirmed (3) each frame of it. A deny (6) is a refusal; no answer within ten
//! seconds is a failure, and after three in a row the connection is made anew (6.5). The centre's requests (4) are answered from
//! what the main loop knows at that moment.
//!
//! What it promises:
//! - A state is put together and handed in under one lock, from the alarm as it stood after the transition and from what else is
//!   open at the same part. So what is sent last is what holds, and one alarm that ends does not end the fire of another.
//! - A duty check (查岗, type 91) becomes an alarm about anmin itself, `duty-check:<id>`, and only a person's acknowledgement within
//!   its time is an answer (type 24). anmin never answers by itself.
//! - Drills are not sent. Bit 0 of a state says "test", but the standard's own example of a fire has it, so no centre can tell.
//! - The box's clock is nobody's to set, and nobody initialises it from afar: types 89 and 90 are denied, 90 only where the clocks
//!   differ.
//! - Nothing leaves about who lives where: a part is described by building, unit and floor.
//!
//! ```toml
//! [[gbt26875_out]]
//! id     = "city"
//! url    = "tcp://10.20.0.5:7799"
//! source = "620102000001"            # the address that the centre knows this site by
//! centre = "1"
//! ```

mod link;
mod part;
mod unit;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anmin_rules::alarm::{Alarm, Cause, Subject, Transition};
use anmin_rules::engine::DUTY_CHECK;
use anmin_rules::order::{Channel, ChannelForm, Order, OrderBody};
use anmin_rules::rule::{Finding, Level, Text};
use anmin_sensors::decode::gbt26875::{
    Address, CONFIRM, CONTROL, DENY, Frame, LONGEST_FRAME, Next, REQUEST, RESPONSE, SEND, TimeTag, next,
};
use anmin_sensors::document::Reader;
use anmin_sensors::point::{DeviceId, Hazard, Place};
use anmin_sensors::reading::Value;
use anmin_sensors::time::{Mono, Wall};
use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::{Carrier, DeliveryError, Receipt, Site, read_id};
use crate::clock::{Clock, tagged, time_tag};
use crate::main_loop::query::{
    AlarmFilter, AlarmList, AlarmPage, Page, PointFilter, PointPage, PointRow, Query, Status,
};
use crate::main_loop::{Input, PartState, PartTrouble, clock_trust};
use crate::outgoing::Outgoing;
use crate::store::people::Places;
use link::{Asked, Link, Said};
use part::{Numbering, Remembered};
use unit::PartAddress;

/// The standard's wait for an answer (6.5).
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Short, because an alarm may be waiting and a connection attempt costs next to nothing.
const RECONNECT_LONGEST: Duration = Duration::from_secs(10);
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// A frame of which no more comes within so long swallows no other.
const HALF_FRAME_LIMIT: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Clocks that differ by more are not the same.
const CLOCKS_DIFFER: Duration = Duration::from_secs(60);
/// Points asked of the main loop at once.
const PAGE: usize = 1_000;
/// What people did lately, as far as a centre may ask (type 64): a unit holds no more.
const REMEMBERED: usize = 102;
/// Parts of anmin that bring readings.
const LINES: [&str; 8] = ["mqtt:", "broker", "bus:", "unit:", "gbt26875:", "http:", "sparkplug:", "callers:"];

/// `[[gbt26875_out]]`.
#[derive(Clone, Debug)]
pub struct Settings {
    pub channel: Channel,
    host: String,
    port: u16,
    source: Address,
    centre: Address,
    keep_alive: Duration,
    numbering: Numbering,
    outgoing: Outgoing,
}

impl Settings {
    pub fn read(r: &Reader<'_>) -> Option<Self> {
        let id = read_id(r);
        let url: Option<String> = r.required("url");
        let to = url.and_then(|url| {
            let to = address(&url);
            if to.is_none() {
                let hint = Some("such as \"tcp://10.20.0.5:7799\"; the standard fixes no port".to_owned());
                r.fault("url", format!("`url` is {url:?}, which is no address of a monitoring centre"), hint);
            }
            to
        });
        let of = |key: &'static str| {
            let text: String = r.required(key)?;
            let address = Address::parse(&text);
            if address.is_none() {
                let hint = Some("the decimal number of its six bytes, such as \"889\"".to_owned());
                r.fault(key, format!("`{key}` is {text:?}, which is no address of a device or centre"), hint);
            }
            address
        };
        let (source, centre) = (of("source"), of("centre"));
        let keep_alive = r.or("keep_alive", Duration::from_secs(30));
        if !(Duration::from_secs(5)..=Duration::from_secs(3_600)).contains(&keep_alive) {
            r.fault("keep_alive", "`keep_alive` must be 5s to 1h", None);
        }
        let numbering = Numbering::read(r);
        r.finish();
        let (host, port) = to?;
        let channel = Channel {
            // Its own state is the centre's business, and so is the answer to its duty checks.
            system: true,
            drills: false,
            classes: vec![Hazard::Fire, Hazard::Gas, Hazard::Power, Hazard::Device],
            ..Channel::new(id?, ChannelForm::Events, Level::Blue)
        };
        let outgoing = Outgoing::default();
        Some(Self { channel, host, port, source: source?, centre: centre?, keep_alive, numbering, outgoing })
    }

    pub fn heed(&mut self, outgoing: &Outgoing, r: &Reader<'_>) {
        outgoing.check(r, "url", &self.host);
        self.outgoing = outgoing.clone();
    }
}

fn address(url: &str) -> Option<(String, u16)> {
    let (host, port) = url.strip_prefix("tcp://")?.rsplit_once(':')?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '@' | '?' | '#' | '[' | ']');
    let sound = !bare.is_empty() && !bare.contains(odd) && (bare.len() < host.len() || !bare.contains(':'));
    let port = port.parse().ok().filter(|port| *port > 0)?;
    sound.then(|| (bare.to_owned(), port))
}

/// The carrier of one `[[gbt26875_out]]`.
pub struct Gbt26875Out {
    inner: Arc<Inner>,
    driver: Mutex<Option<JoinHandle<()>>>,
}

struct Inner {
    settings: Settings,
    site: Site,
    clock: Clock,
    inputs: mpsc::Sender<Input>,
    link: Arc<Link>,
    /// Held from looking at how things stand until the frame that says so is handed in.
    turn: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    remembered: Mutex<Remembered>,
    /// The centre answers heartbeats, which the standard does not know: then it is gone when it answers none.
    answers_beats: AtomicBool,
}

#[derive(Default)]
struct State {
    /// What was said last of anmin's own state by this connection, and not in vain.
    own_told: Option<u8>,
    check: Option<Check>,
    /// What people did in this run, oldest first.
    operations: VecDeque<Operation>,
    /// It was said that the centre's clock is another.
    clock_differs: bool,
}

/// What somebody did, as a bit of the standard.
#[derive(Clone, Copy, Debug)]
struct Operation {
    /// Type and number; `None` where it was about anmin itself.
    system: Option<(u8, u8)>,
    what: u8,
    at: Wall,
}

/// A duty check that waits for somebody.
#[derive(Clone, Copy, Debug)]
struct Check {
    serial: u16,
    minutes: u8,
    until: Mono,
}

/// A part of a fire facility, as a centre may ask for it.
struct Part {
    address: PartAddress,
    place: Arc<Place>,
    state: u16,
    values: Vec<(u8, i16)>,
}

/// What an order says to the centre.
#[derive(Default)]
struct Says {
    /// Units in their order, each with whether the order is not delivered without it.
    units: Vec<(Vec<u8>, bool)>,
    detail: String,
    own: Option<u8>,
    operation: Option<Operation>,
    ends_check: bool,
}

/// Nothing is said before [`Gbt26875Out::begin`]. What must outlive a restart is kept in `storage`.
pub fn carrier(
    settings: &Settings,
    site: &Site,
    storage: &Path,
    clock: &Clock,
    inputs: &mpsc::Sender<Input>,
) -> Gbt26875Out {
    let file = storage.join(format!("centre-{}.parts", settings.channel.id));
    let peer = format!("{}:{}", settings.host, settings.port);
    let link = Link::new(peer, settings.source, settings.centre, ANSWER_LIMIT);
    let inner = Inner {
        settings: settings.clone(),
        site: site.clone(),
        clock: clock.clone(),
        inputs: inputs.clone(),
        link: Arc::new(link),
        turn: tokio::sync::Mutex::default(),
        state: Mutex::default(),
        remembered: Mutex::new(Remembered::open(file)),
        answers_beats: AtomicBool::new(false),
    };
    Gbt26875Out { inner: Arc::new(inner), driver: Mutex::default() }
}

impl Gbt26875Out {
    /// Starts the connection in the background; call it inside a Tokio runtime, once.
    pub fn begin(&self) {
        let task = tokio::spawn(Arc::clone(&self.inner).drive());
        *self.driver.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
    }

    /// Ends the connection. So another may begin in its place although somebody still holds this one.
    pub fn end(&self) {
        if let Some(task) = self.driver.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
        self.inner.link.down("another takes its place");
    }
}

impl Drop for Gbt26875Out {
    fn drop(&mut self) {
        self.end();
    }
}

impl Carrier for Gbt26875Out {
    async fn carry(&self, order: &Order) -> Result<Receipt, DeliveryError> {
        let inner = &self.inner;
        let transition = match &order.body {
            OrderBody::Event(transition) => transition,
            OrderBody::Call(_) => return Ok(Receipt::of("a call of a station is the site's own: nothing was sent")),
            OrderBody::Cap(_) | OrderBody::Siren(_) => {
                return Err(DeliveryError::Never("a monitoring centre takes no CAP".to_owned()));
            }
        };
        let (says, asked) = {
            let _turn = inner.turn.lock().await;
            let says = inner.says(transition).await?;
            let at = inner.tag();
            let mut asked: Vec<(Asked, bool)> = Vec::new();
            for (n, (unit, needed)) in says.units.iter().enumerate() {
                asked.push((inner.link.ask(unit.clone(), at, Some((order.id.clone(), n)))?, *needed));
            }
            let mut state = inner.state();
            state.own_told = says.own.or(state.own_told);
            drop(state);
            (says, asked)
        };
        for (one, needed) in asked {
            match one.answer(needed).await {
                Ok(Said::Denied) if needed => return Err(DeliveryError::Never("denied by the centre".to_owned())),
                Err(why) if needed => {
                    inner.state().own_told = None;
                    return Err(why);
                }
                _ => {}
            }
        }
        inner.handle_said(&says).await;
        Ok(Receipt::of(says.detail))
    }

    fn reachable(&self) -> Option<bool> {
        Some(self.inner.link.is_up())
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tag(&self) -> TimeTag {
        self.tag_of(self.clock.now().wall)
    }

    fn tag_of(&self, at: Wall) -> TimeTag {
        time_tag(at, &self.site.time_zone)
    }

    fn check_part(&self) -> Arc<str> {
        format!("{DUTY_CHECK}{}", self.settings.channel.id).into()
    }

    fn clock_part(&self) -> Arc<str> {
        format!("centre-clock:{}", self.settings.channel.id).into()
    }

    /// Fails only when the main loop has ended, and then nothing matters any more.
    async fn report(&self, part: Arc<str>, trouble: Option<PartTrouble>) {
        let _ = self.inputs.send(Input::Part(PartState { part, trouble })).await;
    }
}

/// What is said, and how things stand.
impl Inner {
    /// What this transition says to the centre now. To be called with the turn.
    async fn says(&self, transition: &Transition) -> Result<Says, DeliveryError> {
        let alarm = &transition.alarm;
        if alarm.drill.is_some() {
            return Err(DeliveryError::Never("a drill is never told to a monitoring centre".to_owned()));
        }
        let nothing = |why: &str| Says { detail: format!("{why}: nothing was sent"), ..Says::default() };
        let Some(device) = part::device(&alarm.subject) else {
            return match &alarm.subject {
                Subject::Part(part) if part.starts_with(DUTY_CHECK) => Ok(self.says_of_check(transition)),
                _ => {
                    let own = self.own_state().await?;
                    if self.state().own_told == Some(own) {
                        return Ok(nothing("the centre knows already that anmin is as it is"));
                    }
                    let unit = unit::of(unit::OWN_STATE, [own_state(own, self.tag())]);
                    let detail = format!("confirmed: own state {own:#04x}");
                    Ok(Says { units: vec![(unit, true)], detail, own: Some(own), ..Says::default() })
                }
            };
        };
        let operation = match transition.cause {
            Cause::Escalated { .. } | Cause::Regrouped { .. } | Cause::Moved | Cause::Broadcast { .. } => {
                return Ok(nothing("no change of a part"));
            }
            Cause::Acknowledged { .. } => Some(unit::ANSWERED),
            Cause::Reset { .. } => Some(unit::RESET),
            Cause::Shelved { .. } => Some(unit::MUTED),
            _ => None,
        };
        let rows = self.rows_of(device).await?;
        let Some(address) = self.address(device, &rows, alarm) else {
            return Ok(nothing("no part of a fire facility"));
        };
        let others = self.alarms(AlarmFilter::default()).await?;
        let others = others.iter().filter(|other| other.id != alarm.id && part::device(&other.subject) == Some(device));
        let state = unit::NORMAL | others.fold(part::state(alarm), |state, other| state | part::state(other));
        let at = self.tag_of(transition.at.wall);
        let mut says = Says { detail: format!("confirmed: part {address} state {state:#06x}"), ..Says::default() };
        if let Some(what) = operation {
            let system = (address.system_type, address.system);
            says.units.push((unit::of(unit::OPERATION, [unit::operation(system, what, at)]), true));
            says.operation = Some(Operation { system: Some(system), what, at: transition.at.wall });
        }
        says.units.push((
            unit::of(unit::PART_STATE, [unit::part_state(address, state, &part::text(&alarm.place), at)]),
            true,
        ));
        if let Some((kind, raw)) = measured(transition, &rows) {
            // Not every centre takes values, and a fire is told without one.
            says.units.push((unit::of(unit::PART_ANALOG, [unit::part_analog(address, kind, raw, at)]), false));
        }
        Ok(says)
    }

    /// What the device is called there, and was before a restart.
    fn address(&self, device: &str, rows: &[PointRow], alarm: &Alarm) -> Option<PartAddress> {
        let numbering = &self.settings.numbering;
        let found = numbering.of(device, rows.iter().map(|row| row.kind));
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        match found {
            Some(address) => remembered.put(device, address.part_type),
            None if rows.is_empty() => {
                let part_type = remembered.get(device).or_else(|| part::usual(alarm.class))?;
                return Some(numbering.at(device, part_type));
            }
            None => {}
        }
        found
    }

    /// An answer is what a person has said while the check was on; all else the centre knows by itself.
    fn says_of_check(&self, transition: &Transition) -> Says {
        let own = matches!(&transition.alarm.subject, Subject::Part(part) if **part == *self.check_part());
        let detail = match &transition.cause {
            _ if !own => "the duty check of another centre: nothing was sent".to_owned(),
            Cause::Acknowledged { .. } if transition.alarm.is_active() => {
                let unit = unit::of(
                    unit::OWN_OPERATION,
                    [unit::own_operation(unit::ANSWERED, self.tag_of(transition.at.wall))],
                );
                let detail = "confirmed: duty check answered".to_owned();
                let operation = Some(Operation { system: None, what: unit::ANSWERED, at: transition.at.wall });
                return Says { units: vec![(unit, true)], detail, operation, ends_check: true, ..Says::default() };
            }
            Cause::Acknowledged { .. } => "too late for the duty check: nothing was sent".to_owned(),
            _ => "no answer to a duty check: nothing was sent".to_owned(),
        };
        Says { detail, ..Says::default() }
    }

    /// The centre has confirmed it.
    async fn handle_said(self: &Arc<Self>, says: &Says) {
        {
            let mut state = self.state();
            if let Some(operation) = says.operation {
                if state.operations.len() == REMEMBERED {
                    state.operations.pop_front();
                }
                state.operations.push_back(operation);
            }
            if says.ends_check {
                state.check = None;
            }
        }
        if says.ends_check {
            self.report(self.check_part(), None).await;
        } else if !says.units.is_empty() && says.own.is_none() {
            // With the state of a part that of the whole may be another.
            let inner = Arc::clone(self);
            tokio::spawn(async move { inner.tell_own_state().await });
        }
    }

    /// Tells how anmin itself stands where the centre does not know it. Gives whether anything was sent.
    async fn tell_own_state(&self) -> Result<bool, DeliveryError> {
        let asked = {
            let _turn = self.turn.lock().await;
            let own = self.own_state().await?;
            if self.state().own_told == Some(own) {
                return Ok(false);
            }
            let at = self.tag();
            let asked = self.link.ask(unit::of(unit::OWN_STATE, [own_state(own, at)]), at, None)?;
            self.state().own_told = Some(own);
            asked
        };
        // A centre that denies it will not take it the next time either.
        asked.answer(true).await.inspect_err(|_| self.state().own_told = None)?;
        Ok(true)
    }

    /// A frame with nothing in it, as is practice.
    async fn beat(&self) -> Result<(), DeliveryError> {
        let asked = self.link.ask(Vec::new(), self.tag(), None)?;
        asked.answer(self.answers_beats.load(Ordering::Relaxed)).await?;
        self.answers_beats.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The standard has bits for mains and battery, of which anmin knows nothing, and one for the way to the centre, which is well
    /// where it can be said.
    async fn own_state(&self) -> Result<u8, DeliveryError> {
        let alarms = self.alarms(AlarmFilter::default()).await?;
        let (reply, answer) = oneshot::channel();
        let status: Status = self.ask(Query::Status { within: Places::EVERYWHERE, reply }, answer).await?;
        let burns = alarms.iter().any(|alarm| part::state(alarm) & unit::FIRE != 0);
        // A notice is no fault.
        let troubles = || status.troubles.iter().filter(|trouble| trouble.level > Level::Blue);
        let line = troubles().any(|trouble| LINES.iter().any(|line| trouble.part.starts_with(line)));
        let ill = troubles().next().is_some();
        let bits =
            [(true, unit::NORMAL as u8), (burns, unit::FIRE as u8), (ill, unit::FAULT as u8), (line, unit::LINE_FAULT)];
        Ok(bits.iter().filter(|(is, _)| *is).map(|(_, bit)| bit).sum())
    }

    async fn ask<T>(&self, query: Query, answer: oneshot::Receiver<T>) -> Result<T, DeliveryError> {
        let ended = || DeliveryError::Retry("anmin is being stopped".to_owned());
        self.inputs.send(Input::Query(query)).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())
    }

    /// Open alarms that are real.
    async fn alarms(&self, filter: AlarmFilter) -> Result<Vec<Arc<Alarm>>, DeliveryError> {
        let (reply, answer) = oneshot::channel();
        let page = AlarmPage { after: None, limit: usize::MAX };
        let list: AlarmList = self.ask(Query::Alarms { filter, page, reply }, answer).await?;
        Ok(list.alarms.into_iter().filter(|alarm| alarm.drill.is_none()).collect())
    }

    async fn rows_of(&self, device: &str) -> Result<Vec<PointRow>, DeliveryError> {
        let Ok(device) = DeviceId::parse(device) else { return Ok(Vec::new()) };
        let (reply, answer) = oneshot::channel();
        let filter = PointFilter { device: Some(device), ..PointFilter::default() };
        let page: PointPage =
            self.ask(Query::Points { filter, page: Page { from: 0, limit: PAGE }, reply }, answer).await?;
        Ok(page.rows)
    }

    /// All parts, by their addresses.
    async fn parts(&self) -> Result<Vec<Part>, DeliveryError> {
        let mut devices: BTreeMap<DeviceId, Vec<PointRow>> = BTreeMap::new();
        let mut from = Some(0);
        while let Some(first) = from {
            let (reply, answer) = oneshot::channel();
            let page = Page { from: first, limit: PAGE };
            let found: PointPage =
                self.ask(Query::Points { filter: PointFilter::default(), page, reply }, answer).await?;
            found.rows.into_iter().for_each(|row| devices.entry(row.device.clone()).or_default().push(row));
            from = found.next;
        }
        let mut states: HashMap<String, u16> = HashMap::new();
        for alarm in self.alarms(AlarmFilter::default()).await? {
            if let Some(device) = part::device(&alarm.subject) {
                *states.entry(device.to_owned()).or_default() |= part::state(&alarm);
            }
        }
        let mut parts: Vec<Part> = devices
            .into_iter()
            .filter_map(|(device, rows)| {
                let address = self.settings.numbering.of(device.as_str(), rows.iter().map(|row| row.kind))?;
                let value = |row: &PointRow| match row.sample.as_ref()?.value.as_ref()? {
                    Value::Number(number) => part::analog(row.kind, *number),
                    Value::Flag(_) | Value::Text(_) => None,
                };
                Some(Part {
                    address,
                    place: Arc::clone(&rows.first()?.place),
                    state: unit::NORMAL | states.get(device.as_str()).copied().unwrap_or(0),
                    values: rows.iter().filter_map(value).collect(),
                })
            })
            .collect();
        parts.sort_by_key(|part| part.address);
        Ok(parts)
    }
}

/// The measured value that an alarm rests on, as the standard writes it, while it is one.
fn measured(transition: &Transition, rows: &[PointRow]) -> Option<(u8, i16)> {
    let evidence = &transition.alarm.evidence;
    let row = rows.iter().find(|row| Some(&row.id) == evidence.point.as_ref())?;
    match (&transition.cause, &evidence.value) {
        (Cause::Raised | Cause::LevelChanged(_) | Cause::Realarmed, Some(Value::Number(number))) => {
            part::analog(row.kind, *number)
        }
        _ => None,
    }
}

fn own_state(state: u8, at: TimeTag) -> Vec<u8> {
    [&[state][..], &at].concat()
}

/// What the centre wants.
impl Inner {
    /// The answer, where one is due.
    async fn handle(self: &Arc<Self>, frame: &Frame) -> Option<Frame> {
        let answer = |command| Some(frame.answer(command, self.tag()));
        match frame.command {
            CONFIRM => self.link.handle_answer(frame.serial, Said::Confirmed),
            DENY => self.link.handle_answer(frame.serial, Said::Denied),
            // To nobody's request.
            RESPONSE => {}
            _ if frame.destination != self.settings.source => return answer(DENY),
            // Centres have heartbeats, too.
            SEND if frame.unit.is_empty() => return answer(CONFIRM),
            CONTROL | REQUEST => return self.handle_wish(frame).await,
            _ => return answer(DENY),
        }
        None
    }

    async fn handle_wish(self: &Arc<Self>, frame: &Frame) -> Option<Frame> {
        let answer = |command| Some(frame.answer(command, self.tag()));
        match frame.unit.as_slice() {
            [unit::SET_TIME, 1, tag @ ..] if tag.len() == 6 => {
                let same = self.handle_clock(tag.try_into().unwrap_or_default()).await;
                answer(if same { CONFIRM } else { DENY })
            }
            [unit::DUTY_CHECK, 1, minutes] => {
                self.handle_check(frame.serial, *minutes).await;
                answer(CONFIRM)
            }
            [unit::INITIALISE, ..] => answer(DENY),
            [kind, count, objects @ ..] if *kind > unit::ASKED => {
                match self.response(*kind - unit::ASKED, *count, objects).await {
                    Some(unit) => Some(Frame { unit, ..frame.answer(RESPONSE, self.tag()) }),
                    None => answer(DENY),
                }
            }
            _ => answer(DENY),
        }
    }

    /// Whether the centre's clock is ours; it is said when that changes. A clock that is itself in doubt judges none.
    async fn handle_clock(&self, tag: TimeTag) -> bool {
        let now = self.clock.now().wall;
        let Some(theirs) = tagged(&tag, &self.site.time_zone) else { return false };
        let apart = now.since(theirs).max(theirs.since(now));
        let differs = apart > CLOCKS_DIFFER;
        if now <= clock_trust::EARLIEST {
            return !differs;
        }
        if std::mem::replace(&mut self.state().clock_differs, differs) != differs {
            let seconds = apart.as_secs();
            let trouble = differs.then(|| PartTrouble {
                finding: Finding { level: Level::Yellow, limit: None, note: None },
                message: Text {
                    zh: format!("监控中心的时钟与本机相差 {seconds} 秒；本机时钟未改动，请核对两端的对时"),
                    en: format!(
                        "the monitoring centre's clock differs from this box's by {seconds} s; the box's was not set: see which is right"
                    ),
                },
            });
            self.report(self.clock_part(), trouble).await;
        }
        !differs
    }

    /// Puts the question to people. The same frame again is the same question.
    async fn handle_check(&self, serial: u16, minutes: u8) {
        let now = self.clock.now();
        let minutes = minutes.max(1);
        {
            let mut state = self.state();
            if state.check.is_some_and(|check| check.serial == serial && check.minutes == minutes) {
                return;
            }
            let until = now.mono.plus(Duration::from_secs(u64::from(minutes) * 60));
            state.check = Some(Check { serial, minutes, until });
        }
        let by = self.tag_of(now.wall.plus(Duration::from_secs(u64::from(minutes) * 60)));
        let (hour, minute) = (by[2], by[1]);
        let message = Text {
            zh: format!("监控中心查岗：请值班人员在 {minutes} 分钟内（{hour:02}:{minute:02} 前）确认应答"),
            en: format!(
                "the monitoring centre checks who is on duty: acknowledge within {minutes} min (by {hour:02}:{minute:02}) to answer"
            ),
        };
        let trouble = PartTrouble { finding: Finding { level: Level::Orange, limit: None, note: None }, message };
        // A check before it is over: what was said to that one is no answer to this.
        self.report(self.check_part(), None).await;
        self.report(self.check_part(), Some(trouble)).await;
    }

    /// A duty check whose time is up has no answer.
    async fn look(&self) {
        let now = self.clock.now().mono;
        let up = {
            let mut state = self.state();
            let up = state.check.is_some_and(|check| now >= check.until);
            if up {
                state.check = None;
            }
            up
        };
        if up {
            tracing::warn!(way_out = &*self.settings.channel.id, "nobody has answered the duty check in its time");
            self.report(self.check_part(), None).await;
        }
    }

    /// The unit of this type for the objects that were named; `None` where there is nothing to say.
    async fn response(&self, kind: u8, count: u8, named: &[u8]) -> Option<Vec<u8>> {
        let at = self.tag();
        let version = [number(env!("CARGO_PKG_VERSION_MAJOR")), number(env!("CARGO_PKG_VERSION_MINOR"))];
        let own: Option<Vec<u8>> = match kind {
            unit::OWN_STATE => Some(own_state(self.own_state().await.ok()?, at)),
            unit::OWN_VERSION => Some(version.to_vec()),
            unit::OWN_TEXT => {
                Some(unit::text(&[], &format!("anmin {}，{}", env!("CARGO_PKG_VERSION"), self.site.name.zh)))
            }
            unit::OWN_TIME => Some(at.to_vec()),
            _ => None,
        };
        if let Some(object) = own {
            return Some(unit::of(kind, [object]));
        }
        if matches!(kind, unit::OPERATION | unit::OWN_OPERATION) {
            let (system, count, since) = match (kind, named) {
                (unit::OPERATION, [a, b, count, since @ ..]) if since.len() == 6 => (Some((*a, *b)), *count, since),
                (unit::OWN_OPERATION, [count, since @ ..]) if since.len() == 6 => (None, *count, since),
                _ => return None,
            };
            let since = tagged(since.try_into().ok()?, &self.site.time_zone)?;
            let state = self.state();
            let found = state.operations.iter().filter(|one| one.system == system && one.at >= since);
            let objects = found.take(usize::from(count)).map(|one| match one.system {
                Some(system) => unit::operation(system, one.what, self.tag_of(one.at)),
                None => unit::own_operation(one.what, self.tag_of(one.at)),
            });
            return filled(unit::of(kind, objects));
        }
        let each = if matches!(kind, unit::PART_STATE | unit::PART_ANALOG | unit::PART_TEXT) { 6 } else { 2 };
        if usize::from(count) * each != named.len() {
            return None;
        }
        let parts = self.parts().await.ok()?;
        let mut objects = Vec::new();
        for name in named.chunks_exact(each) {
            let system = (name[0], name[1]);
            let number = name.get(2..6).map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
            let of = parts.iter().filter(|part| {
                let PartAddress { system_type, system: of, part, .. } = part.address;
                (system_type, of) == system && number.is_none_or(|number| number == part)
            });
            let of: Vec<&Part> = of.collect();
            if of.is_empty() {
                continue;
            }
            match kind {
                unit::SYSTEM_STATE => {
                    let state = of.iter().fold(0, |state, part| state | part.state);
                    objects.push(unit::system_state(system, state, at));
                }
                unit::PART_STATE => objects.extend(
                    of.iter().map(|part| unit::part_state(part.address, part.state, &part::text(&part.place), at)),
                ),
                unit::PART_ANALOG => objects.extend(of.iter().flat_map(|part| {
                    part.values.iter().map(|(kind, raw)| unit::part_analog(part.address, *kind, *raw, at))
                })),
                unit::PART_TEXT => {
                    objects.extend(of.iter().map(|part| unit::part_text(part.address, &part::text(&part.place))));
                }
                unit::VERSION => objects.push([system.0, system.1, version[0], version[1]].to_vec()),
                unit::SYSTEM_TEXT => {
                    let text = format!("{}，{} 个部件", self.site.name.zh, of.len());
                    objects.push(unit::text(&[system.0, system.1], &text));
                }
                unit::SYSTEM_TIME => objects.push([&[system.0, system.1][..], &at].concat()),
                _ => return None,
            }
        }
        filled(unit::of(kind, objects))
    }
}

fn filled(unit: Vec<u8>) -> Option<Vec<u8>> {
    (unit[1] > 0).then_some(unit)
}

fn number(text: &str) -> u8 {
    text.parse().unwrap_or(u8::MAX)
}

/// The connection.
impl Inner {
    async fn drive(self: Arc<Self>) {
        // A check of the run before had nobody to answer to when that ended.
        self.report(self.check_part(), None).await;
        let mut talk = pin!(self.talk());
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = &mut talk => return,
                _ = look.tick() => self.look().await,
            }
        }
    }

    async fn talk(self: &Arc<Self>) {
        let Settings { host, port, outgoing, .. } = &self.settings;
        let mut wait = LOOK_EVERY;
        loop {
            let why = match timeout(CONNECT_LIMIT, outgoing.connect(host, *port)).await {
                Ok(Ok(stream)) => {
                    tracing::info!(way_out = &*self.settings.channel.id, "connected to the monitoring centre");
                    wait = LOOK_EVERY;
                    self.state().own_told = None;
                    let written = self.link.up();
                    self.converse(stream, written).await
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("cannot be connected within {} s", CONNECT_LIMIT.as_secs()),
            };
            tracing::info!(way_out = &*self.settings.channel.id, "no connection to the monitoring centre: {why}");
            self.link.down(&why);
            sleep(wait).await;
            wait = (wait * 2).min(RECONNECT_LONGEST);
        }
    }

    /// Until the connection ends; gives why.
    async fn converse(self: &Arc<Self>, stream: TcpStream, mut written: mpsc::Receiver<Vec<u8>>) -> String {
        let _ = stream.set_nodelay(true);
        let (mut from, mut to) = stream.into_split();
        let mut input = BytesMut::with_capacity(LONGEST_FRAME);
        let mut beat = interval(self.settings.keep_alive);
        loop {
            let half = if input.is_empty() { self.settings.keep_alive * 2 } else { HALF_FRAME_LIMIT };
            input.reserve(LONGEST_FRAME);
            let mut out: Vec<Vec<u8>> = Vec::new();
            tokio::select! {
                frame = written.recv() => match frame {
                    Some(frame) => out.push(frame),
                    None => return "another connection takes its place".to_owned(),
                },
                read = timeout(half, from.read_buf(&mut input)) => match read {
                    Ok(Ok(0)) => return "closed by the centre".to_owned(),
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => return error.to_string(),
                    Err(_) if !input.is_empty() => input.advance(1),
                    Err(_) => {}
                },
                _ = beat.tick() => {
                    let inner = Arc::clone(self);
                    // It waits for answers that come by this loop.
                    tokio::spawn(async move {
                        if let Ok(false) = inner.tell_own_state().await {
                            let _ = inner.beat().await;
                        }
                    });
                }
                () = self.link.given_up.notified() => return "it answers nothing".to_owned(),
            }
            loop {
                match next(&input) {
                    Next::More => break,
                    Next::Skip(length, looked_like) => {
                        input.advance(length);
                        out.extend(looked_like.map(|frame| frame.answer(DENY, self.tag()).write()));
                    }
                    Next::Frame(frame, length) => {
                        input.advance(length);
                        out.extend(self.handle(&frame).await.map(|answer| answer.write()));
                    }
                }
            }
            for bytes in out {
                match timeout(WRITE_LIMIT, to.write_all(&bytes)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return error.to_string(),
                    Err(_) => return format!("takes nothing within {} s", WRITE_LIMIT.as_secs()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
