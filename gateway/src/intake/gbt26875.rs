//! GB/T 26875.3 over TCP: user information transmission devices (用户信息传输装置) dial in and send what fire alarm panels say.
//!
//! Each object of a frame becomes a message under the topics of [`anmin_sensors::decode::gbt26875`], for the mappings of this
//! stanza. A frame is confirmed when everything in it is safe, and not before: a device that hears nothing sends it again
//! (6.5: three times, ten seconds apart). What is damaged, of an unknown command or from nobody that may speak is denied.
//! A device is told the time when it connects and once a day (type 90); one that says nothing for too long is in trouble.
//!
//! The protocol knows neither passwords nor encryption: only addresses of the network and of devices that are listed may
//! speak, and it belongs into a network of its own or a tunnel.
//!
//! ```toml
//! [[gbt26875]]
//! id     = "panels"
//! listen = "192.168.7.1:7799"
//! allow  = ["192.168.7.0/24"]
//!   [[gbt26875.mapping]]
//!   preset   = "gbt26875"
//!   unknown  = "provision"
//!   location = { place = "b1" }
//! ```

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anmin_rules::rule::{Finding, Level, Text};
use anmin_sensors::decode::gbt26875::{
    Address, CONFIRM, DENY, Frame, LONGEST_FRAME, Next, RESPONSE, SEND, TimeTag, next, told,
};
use anmin_sensors::document::Reader;
use anmin_sensors::time::{Mono, Now};
use bytes::{Buf as _, BytesMut};
use jiff::tz::TimeZone;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{interval, timeout};

use super::{Ack, Delivery, Message};
use crate::accept::Entrance;
use crate::clock::{Clock, time_tag};
use crate::main_loop::{Input, PartState, PartTrouble, clock_trust};
use crate::telemetry::Repeats;

/// A peer that does not take an answer within so long is let go.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// From a connection that says nothing at all.
const IDLE_LIMIT: Duration = Duration::from_secs(600);
/// A frame of which no more comes within so long swallows no other: its first byte is nobody's. Devices wait 10 s.
const HALF_FRAME_LIMIT: Duration = Duration::from_secs(3);
const SET_TIME_EVERY: Duration = Duration::from_secs(24 * 3_600);
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Frames of all devices that are known again when they are sent again.
const REMEMBERED: usize = 16_384;
/// Devices that are watched because they have spoken.
const MOST_HEARD: usize = 10_000;
/// Two devices that spoke in turns as one are told to be two for so long.
const TWICE_STANDS: Duration = Duration::from_secs(600);
/// Answers that a connection may owe.
const MOST_OWED: usize = 256;

/// `[[gbt26875]]`.
#[derive(Clone, Debug)]
pub struct Settings {
    pub id: Arc<str>,
    pub listen: SocketAddr,
    pub allow: Vec<Net>,
    /// Devices that may speak, and must; `None`: whoever comes from an allowed network.
    pub devices: Option<Vec<Address>>,
    /// A device that says nothing for so long, not even a heartbeat, is in trouble.
    pub silent_after: Duration,
    pub set_time: bool,
    pub max_connections: usize,
}

/// `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Net {
    start: IpAddr,
    bits: u32,
}

impl Net {
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse().ok()?)),
            None => (text, None),
        };
        let start: IpAddr = address.parse().ok()?;
        let all = if start.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(all);
        (bits <= all).then_some(Self { start, bits })
    }

    pub fn holds(&self, address: IpAddr) -> bool {
        let number = |address: IpAddr| match address {
            IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, true),
            IpAddr::V6(v6) => (v6.to_bits(), false),
        };
        let ((start, v4), (other, other_v4)) = (number(self.start), number(address.to_canonical()));
        v4 == other_v4 && (self.bits == 0 || (start ^ other) >> (128 - self.bits) == 0)
    }

    /// Reads `allow`; without it loopback and private networks.
    pub(super) fn read_allow(r: &Reader<'_>) -> Vec<Self> {
        let Some(texts) = r.optional::<Vec<String>>("allow") else { return Self::private() };
        let net = |text: &String| {
            let net = Self::parse(text);
            if net.is_none() {
                let hint = Some("such as \"192.168.7.0/24\" or \"10.1.2.3\"".to_owned());
                r.fault("allow", format!("`allow` has {text:?}, which is no network"), hint);
            }
            net
        };
        texts.iter().filter_map(net).collect()
    }

    /// Loopback and the private networks of RFC 1918 and RFC 4193.
    fn private() -> Vec<Self> {
        let all = ["127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1", "fc00::/7"];
        all.iter().filter_map(|text| Self::parse(text)).collect()
    }
}

impl Settings {
    /// Reads one `[[gbt26875]]`; its mappings are read by whoever knows the profiles.
    pub fn read(r: &Reader<'_>) -> Option<Self> {
        let id: Option<String> = r.required("id");
        let listen: Option<String> = r.required("listen");
        let listen = listen.and_then(|text| match text.parse::<SocketAddr>() {
            Ok(listen) => Some(listen),
            Err(_) => {
                let hint = "such as \"192.168.7.1:7799\"; the standard fixes no port".to_owned();
                r.fault("listen", format!("`listen` is {text:?}, expected an address and a port"), Some(hint));
                None
            }
        });
        let allow = Net::read_allow(r);
        let devices = r.optional::<Vec<String>>("devices").map(|texts| {
            let address = |text: &String| {
                let address = Address::parse(text);
                if address.is_none() {
                    let hint = Some("the decimal number of its six bytes, such as \"889\"".to_owned());
                    r.fault("devices", format!("`devices` has {text:?}, which is no address of a device"), hint);
                }
                address
            };
            texts.iter().filter_map(address).collect()
        });
        let silent_after = r.or("silent_after", Duration::from_secs(90));
        if silent_after < Duration::from_secs(5) {
            r.fault("silent_after", "`silent_after` must be 5s or more", None);
        }
        let set_time = r.or("set_time", true);
        let max_connections = r.or("max_connections", 1_000);
        if max_connections == 0 {
            r.fault("max_connections", "`max_connections` must be 1 or more", None);
        }
        Some(Self { id: id?.into(), listen: listen?, allow, devices, silent_after, set_time, max_connections })
    }
}

/// What all connections of one stanza share.
struct Centre {
    settings: Settings,
    zone: TimeZone,
    clock: Clock,
    inputs: mpsc::Sender<Input>,
    connections: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// When each device last said anything; `None` for one that is listed and never spoke.
    heard: BTreeMap<Address, Option<Mono>>,
    silent: BTreeMap<Address, bool>,
    speakers: BTreeMap<Address, Speaker>,
    /// Frames that came lately, by sender and serial number, with what was in them.
    known: HashMap<(Address, u16), u64>,
    order: VecDeque<(Address, u16)>,
    refused: u64,
    /// What ends connections.
    ended: Repeats,
}

/// Who speaks as a device. A device that dials in anew leaves its old connection for good; two devices with one address take
/// turns.
#[derive(Default)]
struct Speaker {
    /// Numbers of connections.
    now: u64,
    before: u64,
    twice_at: Option<Mono>,
    told: Option<bool>,
}

/// Binds and starts listening. The task ends when the main loop is gone; abort it to end every connection.
pub async fn spawn(
    settings: Settings,
    zone: TimeZone,
    clock: Clock,
    inputs: mpsc::Sender<Input>,
) -> std::io::Result<(SocketAddr, JoinHandle<()>)> {
    let listener = TcpListener::bind(settings.listen).await?;
    let address = listener.local_addr()?;
    tracing::info!(gbt26875 = &*settings.id, "listening for transmission devices on {address}");
    let state = State {
        heard: settings.devices.iter().flatten().map(|address| (*address, None)).collect(),
        ..State::default()
    };
    let centre =
        Arc::new(Centre { settings, zone, clock, inputs, connections: AtomicU64::new(0), state: Mutex::new(state) });
    Ok((address, tokio::spawn(listen(centre, listener))))
}

async fn listen(centre: Arc<Centre>, listener: TcpListener) {
    let room = Arc::new(Semaphore::new(centre.settings.max_connections));
    let mut connections = JoinSet::new();
    let mut entrance = Entrance::new(listener, format!("gbt26875:{}", centre.settings.id));
    let mut look = interval(LOOK_EVERY);
    let started = centre.clock.now().mono;
    loop {
        tokio::select! {
            (stream, peer) = entrance.next() => {
                    if !centre.settings.allow.iter().any(|net| net.holds(peer.ip())) {
                        centre.refuse(&format!("{peer} is in no allowed network"));
                        continue;
                    }
                    let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
                        centre.refuse(&format!("{peer} finds all {} connections taken", centre.settings.max_connections));
                        continue;
                    };
                    let centre = Arc::clone(&centre);
                    connections.spawn(async move {
                        let _permit = permit;
                        if let Err(why) = serve(&centre, stream).await {
                            centre.note_end(peer, &why);
                        }
                    });
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            _ = look.tick() => {
                for state in centre.look(started) {
                    if centre.inputs.send(Input::Part(state)).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

impl Centre {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse(&self, why: &str) {
        let mut state = self.state();
        state.refused += 1;
        // The first, then whenever they have doubled: whoever dials in every second fills no log.
        if state.refused.is_power_of_two() {
            tracing::warn!(gbt26875 = &*self.settings.id, refused = state.refused, "refused: {why}");
        }
    }

    /// A device on a bad line, or whoever may connect, comes and goes as often as it likes: one line a minute tells of them all.
    fn note_end(&self, peer: SocketAddr, why: &str) {
        if let Some(more) = self.state().ended.say("ended", self.clock.now().mono) {
            tracing::info!(gbt26875 = &*self.settings.id, %peer, more, "connection ended: {why}");
        }
    }

    fn may_speak(&self, address: Address) -> bool {
        self.settings.devices.as_ref().is_none_or(|devices| devices.contains(&address))
    }

    fn handle_heard(&self, address: Address, connection: u64, now: Mono) {
        let mut state = self.state();
        if state.heard.len() >= MOST_HEARD && !state.heard.contains_key(&address) {
            return;
        }
        state.heard.insert(address, Some(now));
        let speaker = state.speakers.entry(address).or_default();
        if speaker.now != connection {
            if speaker.before == connection {
                speaker.twice_at = Some(now);
            }
            (speaker.before, speaker.now) = (speaker.now, connection);
        }
    }

    /// Whether this very frame came a while ago; it is known from now on.
    fn came_before(&self, frame: &Frame) -> bool {
        let key = (frame.source, frame.serial);
        // FNV-1a, 64 bits.
        let what = frame
            .unit
            .iter()
            .fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3));
        let mut state = self.state();
        let before = state.known.insert(key, what);
        if before.is_none() {
            state.order.push_back(key);
            if state.order.len() > REMEMBERED
                && let Some(oldest) = state.order.pop_front()
            {
                state.known.remove(&oldest);
            }
        }
        before == Some(what)
    }

    /// Devices that have fallen silent, or speak again; and addresses that two devices have. Of each it is said once how it is: the
    /// last run may have said otherwise.
    fn look(&self, started: Mono) -> Vec<PartState> {
        let now = self.clock.now().mono;
        let mut state = self.state();
        let State { heard, silent, speakers, .. } = &mut *state;
        let mut news = Vec::new();
        for (address, last) in heard.iter() {
            let is = now.since(last.unwrap_or(started)) >= self.settings.silent_after;
            // One that has not spoken yet may still do so in time.
            let known = is || last.is_some();
            if known && silent.insert(*address, is) != Some(is) {
                let part = format!("gbt26875:{}/{address}", self.settings.id).into();
                news.push(PartState { part, trouble: is.then(|| self.trouble(*address, last.is_some())) });
            }
        }
        for (address, speaker) in speakers.iter_mut() {
            let is = speaker.twice_at.is_some_and(|at| now.since(at) < TWICE_STANDS);
            if speaker.told.replace(is) != Some(is) {
                let part = format!("gbt26875:{}/{address}/twice", self.settings.id).into();
                news.push(PartState { part, trouble: is.then(|| twice(*address)) });
            }
        }
        news
    }

    fn trouble(&self, address: Address, spoke: bool) -> PartTrouble {
        let after = self.settings.silent_after.as_secs();
        let message = if spoke {
            Text {
                zh: format!("用户信息传输装置 {address} 已 {after} 秒没有任何消息，其所连消防设施无人监视"),
                en: format!(
                    "transmission device {address} has said nothing for {after} s: nobody watches the fire facilities behind it"
                ),
            }
        } else {
            Text {
                zh: format!("用户信息传输装置 {address} 从未接入"),
                en: format!("transmission device {address} has never connected"),
            }
        };
        PartTrouble { finding: Finding { level: Level::Orange, limit: None, note: None }, message }
    }

    /// The site's local time, as the standard has it.
    fn time(&self, now: Now) -> TimeTag {
        time_tag(now.wall, &self.zone)
    }
}

fn twice(address: Address) -> PartTrouble {
    let message = Text {
        zh: format!("两台用户信息传输装置使用同一地址 {address}，它们的上报已混为一台；请核对装置地址"),
        en: format!("two transmission devices have the address {address}: what they say counts as one's; set another"),
    };
    PartTrouble { finding: Finding { level: Level::Orange, limit: None, note: None }, message }
}

/// A frame that is confirmed when all of its messages are safe.
struct Owed {
    left: AtomicUsize,
    answer: Vec<u8>,
    answers: mpsc::Sender<Vec<u8>>,
}

impl Owed {
    fn done(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            // A connection that owes too many answers, or is gone: its device sends the frame again.
            let _ = self.answers.try_send(self.answer.clone());
        }
    }
}

async fn serve(centre: &Arc<Centre>, stream: TcpStream) -> Result<(), String> {
    let _ = stream.set_nodelay(true);
    let (from, mut to) = stream.into_split();
    let (answers, mut answers_due) = mpsc::channel::<Vec<u8>>(MOST_OWED);
    let mut input = BytesMut::new();
    let mut time_told: Option<Mono> = None;
    let connection = centre.connections.fetch_add(1, Ordering::Relaxed) + 1;
    loop {
        let ready = tokio::select! {
            answer = answers_due.recv() => {
                let Some(answer) = answer else { return Ok(()) };
                write(&mut to, &answer).await?;
                continue;
            }
            ready = timeout(if input.is_empty() { IDLE_LIMIT } else { HALF_FRAME_LIMIT }, from.readable()) => ready,
        };
        match ready {
            Err(_) if !input.is_empty() => input.advance(1),
            Err(_) => return Err(format!("nothing for {IDLE_LIMIT:?}")),
            Ok(Err(error)) => return Err(error.to_string()),
            Ok(Ok(())) => {
                input.reserve(LONGEST_FRAME);
                match from.try_read_buf(&mut input) {
                    Ok(0) => return Err("closed by the device".to_owned()),
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                    Err(error) => return Err(error.to_string()),
                }
            }
        }
        let now = centre.clock.now();
        let mut messages = Vec::new();
        loop {
            match next(&input) {
                Next::More => break,
                Next::Skip(length, looked_like) => {
                    if let Some(frame) = looked_like {
                        centre.refuse(&format!("a damaged frame of device {}", frame.source));
                        if centre.may_speak(frame.source) {
                            write(&mut to, &frame.answer(DENY, centre.time(now)).write()).await?;
                        }
                    }
                    input.advance(length);
                }
                Next::Frame(frame, length) => {
                    input.advance(length);
                    if !centre.may_speak(frame.source) {
                        let why = format!("device {} is not listed in `devices`", frame.source);
                        centre.refuse(&why);
                        return Err(why);
                    }
                    centre.handle_heard(frame.source, connection, now.mono);
                    if let Some(answer) = handle(centre, &frame, now, &answers, &mut messages) {
                        write(&mut to, &answer.write()).await?;
                    }
                    let due = time_told.is_none_or(|told| now.mono.since(told) >= SET_TIME_EVERY);
                    // A clock without a battery sets nobody else's.
                    let known = now.wall > clock_trust::EARLIEST;
                    if centre.settings.set_time && due && known && frame.command == SEND {
                        time_told = Some(now.mono);
                        write(&mut to, &frame.set_time(frame.serial, centre.time(now)).write()).await?;
                    }
                }
            }
        }
        if !messages.is_empty() {
            let source = Arc::clone(&centre.settings.id);
            if centre.inputs.send(Input::Messages { source, messages }).await.is_err() {
                return Ok(());
            }
        }
        if input.is_empty() {
            // Ten thousand quiet connections need no buffer each.
            input = BytesMut::new();
        }
    }
}

/// What a frame brings; the answer, where it has one at once.
fn handle(
    centre: &Centre,
    frame: &Frame,
    now: Now,
    answers: &mpsc::Sender<Vec<u8>>,
    messages: &mut Vec<Message>,
) -> Option<Frame> {
    let answer = |command| frame.answer(command, centre.time(now));
    let wants_answer = match frame.command {
        SEND => true,
        // The answer to a request of ours, which none of ours needs.
        RESPONSE => false,
        // To a frame of ours.
        CONFIRM | DENY => return None,
        // What a centre says to a device, and what the standard does not know.
        _ => return Some(answer(DENY)),
    };
    let told = match told(frame) {
        Ok(told) => told,
        Err(why) => {
            centre.refuse(&format!("a frame of device {}: {why}", frame.source));
            return wants_answer.then(|| answer(DENY));
        }
    };
    if told.is_empty() {
        return wants_answer.then(|| answer(CONFIRM));
    }
    let again = centre.came_before(frame);
    let owed = Arc::new(Owed {
        left: AtomicUsize::new(told.len()),
        answer: answer(CONFIRM).write(),
        answers: answers.clone(),
    });
    let session = Delivery::session(&centre.settings.id, &frame.source.to_string());
    for (n, told) in told.into_iter().enumerate() {
        let owed = Arc::clone(&owed);
        messages.push(Message {
            topic: told.topic.into(),
            payload: told.payload.to_string().into(),
            retained: false,
            cut: false,
            received: now,
            delivery: Some(Delivery::of(session.wrapping_add((n as u64) << 16), frame.serial, again)),
            ack: wants_answer.then(|| Ack::new(move || owed.done())),
        });
    }
    None
}

async fn write(to: &mut tokio::net::tcp::OwnedWriteHalf, bytes: &[u8]) -> Result<(), String> {
    match timeout(WRITE_LIMIT, to.write_all(bytes)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("took no answer within {WRITE_LIMIT:?}")),
    }
}

#[cfg(test)]
mod tests {
    use anmin_sensors::time::Wall;

    use super::*;

    #[test]
    fn a_device_that_is_silent_or_two_is_told_and_so_is_that_it_is_over() {
        let address = |text| Address::parse(text).expect("an address");
        let settings = Settings {
            id: "panels".into(),
            listen: ([127, 0, 0, 1], 0).into(),
            allow: Net::private(),
            devices: Some(vec![address("889")]),
            silent_after: Duration::from_secs(90),
            set_time: false,
            max_connections: 9,
        };
        let clock = Clock::manual(Wall::from_millis(1_772_328_600_000));
        let (inputs, _) = mpsc::channel(1);
        let heard = BTreeMap::from([(address("889"), None)]);
        let state = Mutex::new(State { heard, ..State::default() });
        let (zone, connections) = (TimeZone::UTC, AtomicU64::new(0));
        let centre = Centre { settings, zone, clock: clock.clone(), inputs, connections, state };
        let started = clock.now().mono;
        let look = || {
            let news = centre.look(started).into_iter();
            let news =
                news.map(|state| format!("{} {}", state.part, if state.trouble.is_some() { "ill" } else { "well" }));
            news.collect::<Vec<_>>().join(", ")
        };
        let hear = |connection| centre.handle_heard(address("889"), connection, clock.now().mono);
        let pass = |seconds| clock.advance(Duration::from_secs(seconds));
        assert_eq!(look(), "", "it may come yet");
        pass(90);
        assert_eq!(look(), "gbt26875:panels/889 ill");
        hear(1);
        // Of two that take turns it is told; the one that dials in anew is one.
        assert_eq!(look(), "gbt26875:panels/889 well, gbt26875:panels/889/twice well");
        for connection in [1, 2, 2, 3] {
            hear(connection);
            assert_eq!(look(), "", "{connection}");
        }
        hear(2);
        assert_eq!(look(), "gbt26875:panels/889/twice ill");
        for _ in 0..10 {
            hear(2);
            assert_eq!(look(), "");
            pass(60);
        }
        assert_eq!(look(), "gbt26875:panels/889/twice well");
    }

    #[test]
    fn only_addresses_of_an_allowed_network_may_speak() {
        let cases = [
            ("192.168.7.0/24", "192.168.7.9", true),
            ("192.168.7.0/24", "192.168.8.9", false),
            ("192.168.7.0/24", "::ffff:192.168.7.9", true),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("0.0.0.0/0", "8.8.8.8", true),
            ("0.0.0.0/0", "fd00::1", false),
            ("fd00::/8", "fd12::1", true),
            ("fd00::1", "fd00::2", false),
        ];
        for (net, address, holds) in cases {
            let (net, address) = (Net::parse(net).expect(net), address.parse().expect(address));
            assert_eq!(net.holds(address), holds, "{net:?} {address}");
        }
        for wrong in ["", "192.168.7", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/-1", "panel"] {
            assert_eq!(Net::parse(wrong), None, "{wrong}");
        }
        let usual = Net::private();
        for (address, holds) in [("127.0.0.1", true), ("172.31.0.1", true), ("172.32.0.1", false), ("8.8.8.8", false)] {
            let address = address.parse().expect(address);
            assert_eq!(usual.iter().any(|net| net.holds(address)), holds, "{address}");
        }
        assert_eq!(usual.len(), 6, "each of them is a network");
    }
}
