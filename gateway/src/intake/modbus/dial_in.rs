//! Devices that dial in: 4G modems (DTU) with a serial line behind them, which call us, say who they are and then pass frames
//! through.
//!
//! One listener serves all buses that name its address. The first bytes of a caller are its registration, which is that of one
//! bus; its connection is then handed to that bus through its [`Door`]. A caller that nobody expects is let go, and the log says
//! with what it came: that is what an installer needs.
//!
//! Two callers with one registration: the older stays as long as it answers, and the newer is refused and told, because two lines
//! that take turns under one name would mix the readings of two houses. A caller that comes back after its network was gone has
//! to wait only until the old connection is found dead, which takes three requests.
//!
//! The registration is no secret and proves nothing: only addresses that are listed may call, and the listener belongs into a
//! network of its own or a tunnel (an APN of the operator).

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use anmin_rules::rule::Level;
use anmin_sensors::decode::binary::parse_hex;
use anmin_sensors::document::{Fault, Reader};
use anmin_sensors::time::Mono;
use tokio::io::{AsyncReadExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::{Framing, Settings, Transport, part_trouble};
use crate::accept::Entrance;
use crate::clock::Clock;
use crate::intake::gbt26875::Net;
use crate::main_loop::PartTrouble;

/// A caller that does not say who it is within so long is let go.
const REGISTRATION_LIMIT: Duration = Duration::from_secs(15);
/// Callers of one listener that have not said yet who they are.
const MOST_STRANGERS: usize = 64;
/// Between two tries to listen.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);
/// Callers whose first refusal is told; of further ones whenever their number has doubled.
const MOST_TOLD: usize = 256;
const LONGEST_REGISTRATION: usize = 128;
/// A caller that comes more often than so many times in [`WATCHED`] is told.
const MOST_CALLS: usize = 10;
const WATCHED: Duration = Duration::from_secs(60);

/// The keys of a `[[bus]]` with `transport = "dial_in"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialIn {
    pub listen: SocketAddr,
    pub framing: Framing,
    /// What the caller says first; empty: whoever calls is this bus.
    pub registration: Vec<u8>,
    /// What it says now and then by itself.
    pub heartbeat: Vec<u8>,
    pub allow: Vec<Net>,
}

impl DialIn {
    pub(super) fn read(r: &Reader<'_>) -> Option<Self> {
        let listen: Option<String> = r.required("listen");
        let listen = listen.and_then(|text| {
            let listen = text.parse();
            if listen.is_err() {
                let hint = Some("such as \"192.168.7.1:8502\"".to_owned());
                r.fault("listen", format!("`listen` is {text:?}, expected an address and a port"), hint);
            }
            listen.ok()
        });
        let framing = [("rtu", Framing::Rtu), ("ascii", Framing::Ascii)];
        let framing = r.choice("framing", &framing).unwrap_or(Framing::Rtu);
        let bytes = |key: &'static str| {
            let text: String = r.optional(key)?;
            let bytes = text.strip_prefix("hex:").map_or_else(|| Some(text.clone().into_bytes()), parse_hex);
            let bytes = bytes.filter(|bytes| (1..=LONGEST_REGISTRATION).contains(&bytes.len()));
            if bytes.is_none() {
                let message = format!("`{key}` is {text:?}, expected 1 to {LONGEST_REGISTRATION} bytes");
                r.fault(key, message, Some("text such as \"DTU-0007\", or \"hex:7E 01 07\"".to_owned()));
            }
            bytes
        };
        let (registration, heartbeat) = (bytes("registration"), bytes("heartbeat"));
        let allow = Net::read_allow(r);
        Some(Self {
            listen: listen?,
            framing,
            registration: registration.unwrap_or_default(),
            heartbeat: heartbeat.unwrap_or_default(),
            allow,
        })
    }

    /// What the caller says by itself: many repeat the registration as their heartbeat.
    pub(super) fn beats(&self) -> Arc<[Vec<u8>]> {
        [&self.heartbeat, &self.registration].into_iter().filter(|beat| !beat.is_empty()).cloned().collect()
    }
}

/// Notes buses that could not be told apart on their listener; each comes with where it stands.
pub fn check_apart<'s>(buses: impl Iterator<Item = &'s (Settings, Fault)>, note: impl Fn(Fault)) {
    let mut earlier: Vec<(&str, &DialIn)> = Vec::new();
    for (settings, at) in buses {
        let Transport::DialIn(own) = &settings.transport else { continue };
        let alike = earlier.iter().find(|(_, other)| {
            let (a, b) = (&own.registration, &other.registration);
            own.listen == other.listen && (a.starts_with(b) || b.starts_with(a))
        });
        if let Some((other, _)) = alike {
            let message =
                format!("bus {:?} cannot be told from bus {other:?}: both listen on {}", settings.id, own.listen);
            let hint = "give each a `registration` with which no other begins".to_owned();
            note(Fault { message, hint: Some(hint), ..at.clone() });
        }
        earlier.push((&settings.id, own));
    }
}

/// Who a caller is by what it has said so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The bus whose registration stands at this place.
    Bus(usize),
    /// It may still become a registration.
    Unsaid,
    /// No registration begins so.
    Nobody,
}

/// Looks up what a caller has said; none of the registrations begins with another.
pub fn who<'r>(registrations: impl Iterator<Item = &'r [u8]> + Clone, said: &[u8]) -> Who {
    match registrations.clone().position(|registration| said.starts_with(registration)) {
        Some(bus) => Who::Bus(bus),
        None if said.is_empty() => Who::Unsaid,
        None if registrations.clone().any(|registration| registration.starts_with(said)) => Who::Unsaid,
        None => Who::Nobody,
    }
}

/// Where a bus takes its caller from. Clones are the same door.
#[derive(Clone, Debug, Default)]
pub struct Door(Arc<Hall>);

#[derive(Debug, Default)]
struct Hall {
    waiting: Mutex<Waiting>,
    came: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    /// The newest; who came before and was not taken is let go.
    caller: Option<Caller>,
    /// Callers so far.
    calls: u64,
    /// When the last of them came.
    lately: VecDeque<Mono>,
    /// When somebody was last turned away because another answers, and both addresses.
    twins: Option<(Mono, SocketAddr, SocketAddr)>,
    told: Option<Noise>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Noise {
    Twins,
    Restless,
}

#[derive(Debug)]
struct Caller {
    stream: TcpStream,
    peer: SocketAddr,
}

impl Door {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing under this lock panics halfway.
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, caller: Caller, now: Mono) {
        let mut waiting = self.waiting();
        waiting.calls += 1;
        waiting.lately.push_back(now);
        if waiting.lately.len() > MOST_CALLS {
            waiting.lately.pop_front();
        }
        waiting.caller = Some(caller);
        drop(waiting);
        self.0.came.notify_one();
    }

    /// The next caller that is still there, within `limit`.
    pub(super) async fn take(&self, limit: Duration) -> io::Result<(TcpStream, SocketAddr)> {
        let next = async {
            loop {
                let caller = self.waiting().caller.take();
                match caller {
                    Some(Caller { stream, peer }) if !has_hung_up(&stream).await => return (stream, peer),
                    Some(_) => {}
                    None => self.0.came.notified().await,
                }
            }
        };
        let nobody = |_| io::Error::new(io::ErrorKind::TimedOut, "nobody has dialled in");
        timeout(limit, next).await.map_err(nobody)
    }

    /// Waits until somebody is there to be taken.
    pub(super) async fn somebody(&self) {
        while self.waiting().caller.is_none() {
            self.0.came.notified().await;
        }
    }

    /// Who waits, as a number for [`Door::turn_away`].
    pub(super) fn waits(&self) -> Option<u64> {
        let waiting = self.waiting();
        waiting.caller.as_ref().map(|_| waiting.calls)
    }

    /// The connection with `current` has answered a request that went out while `who` was waiting: those are two devices.
    pub(super) fn turn_away(&self, who: u64, current: SocketAddr, now: Mono) {
        let mut waiting = self.waiting();
        if waiting.calls == who
            && let Some(Caller { peer, .. }) = waiting.caller.take()
        {
            waiting.twins = Some((now, current, peer));
        }
    }

    /// What must be told now: `Some(None)` when all is quiet again.
    pub(super) fn news(&self, settings: &Settings, now: Mono) -> Option<Option<PartTrouble>> {
        let mut waiting = self.waiting();
        let recent = |at: &Mono| now.since(*at) < WATCHED;
        let twins = waiting.twins.filter(|(at, ..)| recent(at));
        let is_restless = waiting.lately.len() >= MOST_CALLS && waiting.lately.front().is_some_and(recent);
        let noise = twins.map(|_| Noise::Twins).or(is_restless.then_some(Noise::Restless));
        if noise == waiting.told {
            return None;
        }
        waiting.told = noise;
        let id = &settings.id;
        Some(match (noise, twins) {
            (Some(Noise::Twins), Some((_, one, other))) => Some(part_trouble(
                Level::Orange,
                format!("{one}, {other}"),
                format!("总线 {id}：有两台设备以同一注册包接入（{one} 与 {other}），后者已被拒绝，其所连设备无人监视"),
                format!(
                    "bus {id}: two devices dial in with one registration ({one} and {other}); the second is refused, and nobody \
                     watches what hangs on it"
                ),
            )),
            (Some(_), _) => Some(part_trouble(
                Level::Yellow,
                format!("{MOST_CALLS} calls within {} s", WATCHED.as_secs()),
                format!("总线 {id}：接入设备反复重连，采集时断时续。请检查信号、电源和注册包设置"),
                format!(
                    "bus {id}: its device calls again and again, so that it is read only now and then; check its signal, power and registration"
                ),
            )),
            (None, _) => None,
        })
    }
}

/// Whether the other end is known to have closed; waits for nothing and takes no byte.
async fn has_hung_up(stream: &TcpStream) -> bool {
    poll_fn(|cx| {
        let mut byte = [0];
        let peeked = stream.poll_peek(cx, &mut ReadBuf::new(&mut byte));
        Poll::Ready(matches!(peeked, Poll::Ready(Ok(0) | Err(_))))
    })
    .await
}

struct Expected {
    bus: Arc<str>,
    dial_in: DialIn,
    door: Door,
}

struct Listener {
    address: SocketAddr,
    buses: Vec<Expected>,
    clock: Clock,
    /// How often, by whom and why.
    refused: Mutex<HashMap<(IpAddr, String), u64>>,
}

/// Listens on every address that a bus names, and goes on trying where it cannot. Ends when the tasks are aborted.
pub async fn spawn(buses: &[(Settings, Door)], clock: &Clock) -> Vec<(SocketAddr, JoinHandle<()>)> {
    let mut by_address: BTreeMap<SocketAddr, Vec<Expected>> = BTreeMap::new();
    for (settings, door) in buses {
        if let Transport::DialIn(dial_in) = &settings.transport {
            let (bus, dial_in, door) = (Arc::clone(&settings.id), dial_in.clone(), door.clone());
            by_address.entry(dial_in.listen).or_default().push(Expected { bus, dial_in, door });
        }
    }
    let mut tasks = Vec::new();
    for (listen, buses) in by_address {
        let first = TcpListener::bind(listen).await;
        let address = first.as_ref().ok().and_then(|listener| listener.local_addr().ok()).unwrap_or(listen);
        let own = Arc::new(Listener { address, buses, clock: clock.clone(), refused: Mutex::default() });
        tasks.push((address, tokio::spawn(own.run(first))));
    }
    tasks
}

impl Listener {
    /// Tries until it may listen: the address may be that of a tunnel that is not up yet, and nothing else waits for it.
    async fn listen(&self, first: io::Result<TcpListener>) -> TcpListener {
        let mut found = first;
        if let Err(error) = &found {
            let (bus, address) = (&self.buses[0].bus, self.address);
            tracing::error!("bus {bus}: nobody can dial in on {address}: {error}; it is tried again");
        }
        loop {
            if let Ok(listener) = found {
                tracing::info!("devices of {} buses may dial in on {}", self.buses.len(), self.address);
                return listener;
            }
            sleep(LISTEN_AGAIN).await;
            found = TcpListener::bind(self.address).await;
        }
    }

    async fn run(self: Arc<Self>, first: io::Result<TcpListener>) {
        let mut entrance = Entrance::new(self.listen(first).await, format!("bus {}", self.buses[0].bus));
        let room = Arc::new(Semaphore::new(MOST_STRANGERS));
        let mut strangers = JoinSet::new();
        loop {
            tokio::select! {
                (stream, peer) = entrance.next() => {
                        if !self.buses.iter().any(|bus| bus.dial_in.allow.iter().any(|net| net.holds(peer.ip()))) {
                            self.refuse(peer, "its address is in no allowed network");
                            continue;
                        }
                        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
                            self.refuse(peer, "too many callers have not said yet who they are");
                            continue;
                        };
                        let own = Arc::clone(&self);
                        strangers.spawn(async move {
                            let _permit = permit;
                            let heard = timeout(REGISTRATION_LIMIT, own.register(stream, peer)).await;
                            match heard {
                                Ok(Ok(())) => {}
                                Ok(Err(why)) => own.refuse(peer, &why),
                                Err(_) => own.refuse(peer, "it did not say who it is"),
                            }
                        });
                },
                Some(_) = strangers.join_next(), if !strangers.is_empty() => {}
            }
        }
    }

    fn refuse(&self, peer: SocketAddr, why: &str) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let whom = (peer.ip(), why.to_owned());
        let is_told = refused.contains_key(&whom) || refused.len() < MOST_TOLD;
        let key = if is_told { whom } else { (Ipv4Addr::UNSPECIFIED.into(), String::new()) };
        let count = refused.entry(key).or_default();
        *count += 1;
        // The first of each, then whenever they have doubled: whoever dials in every second fills no log, and hides nobody else.
        if count.is_power_of_two() {
            tracing::warn!("{}: caller {peer} is refused ({count} so far): {why}", self.address);
        }
    }

    /// Listens who calls, and hands the connection to its bus.
    async fn register(&self, mut stream: TcpStream, peer: SocketAddr) -> Result<(), String> {
        let mut said = Vec::new();
        loop {
            let found = who(self.buses.iter().map(|bus| &*bus.dial_in.registration), &said);
            if let Who::Bus(bus) = found {
                let bus = &self.buses[bus];
                if !bus.dial_in.allow.iter().any(|net| net.holds(peer.ip())) {
                    return Err(format!("its address is in no network that bus {} allows", bus.bus));
                }
                let _ = stream.set_nodelay(true);
                tracing::debug!("bus {}: {peer} has dialled in", bus.bus);
                bus.door.enter(Caller { stream, peer }, self.clock.now().mono);
                return Ok(());
            }
            if found == Who::Nobody {
                let hex: String = said.iter().take(32).map(|byte| format!("{byte:02X}")).collect();
                let text = said.escape_ascii();
                return Err(format!("no bus has this registration: \"{text}\" (hex:{hex})"));
            }
            let mut bytes = [0; LONGEST_REGISTRATION];
            match stream.read(&mut bytes).await {
                Ok(0) => return Err(format!("it hung up after \"{}\"", said.escape_ascii())),
                Ok(n) => said.extend_from_slice(&bytes[..n]),
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use anmin_sensors::document::{Document, Faults};

    use super::*;

    fn bus(id: &str, listen: &str, registration: &str) -> Settings {
        let faults = Faults::default();
        let registration =
            if registration.is_empty() { String::new() } else { format!("registration = {registration:?}") };
        let text = format!("id = {id:?}\ntransport = \"dial_in\"\nlisten = {listen:?}\n{registration}");
        let document = Document::parse("t.toml", &text, &faults).expect("the test writes TOML");
        Settings::read(&document.root(&faults), Path::new(".")).unwrap_or_else(|| panic!("{:?}", faults.take()))
    }

    #[test]
    fn callers_of_one_listener_must_be_told_apart_by_what_they_say_first() {
        let here = "127.0.0.1:8502";
        for (other, wanted) in [
            (bus("b", here, "DTU-8"), 0),
            (bus("b", "127.0.0.1:8503", "DTU-7"), 0),
            (bus("b", "127.0.0.1:8503", ""), 0),
            (bus("b", here, "DTU-7"), 1),
            (bus("b", here, "hex:4454552D37"), 1),
            (bus("b", here, "DTU-71"), 1),
            (bus("b", here, "DTU"), 1),
            (bus("b", here, ""), 1),
        ] {
            let at = Fault { source: "t".to_owned(), line: 1, column: 1, message: String::new(), hint: None, zh: None };
            let faults = Faults::default();
            let buses = [(bus("a", here, "DTU-7"), at.clone()), (other.clone(), at)];
            check_apart(buses.iter(), |fault| faults.note(fault));
            let found = faults.take();
            assert_eq!(found.len(), wanted, "{:?}: {found:?}", other.transport);
            assert!(
                found.iter().all(|fault| fault.message.contains("\"b\" cannot be told from bus \"a\"")),
                "{found:?}"
            );
        }
    }

    #[test]
    fn what_is_odd_about_callers_is_told_once_and_taken_back_when_a_minute_was_quiet() {
        let settings = bus("a", "127.0.0.1:8502", "DTU-7");
        let at = |seconds: u64| Mono::default().plus(Duration::from_secs(seconds));
        let door = Door::default();
        let news = |seconds| door.news(&settings, at(seconds)).map(|told| told.map(|trouble| trouble.message.en));
        (0..9).for_each(|second| door.waiting().lately.push_back(at(second * 5)));
        assert_eq!(news(45), None, "nine calls are few");
        door.waiting().lately.push_back(at(46));
        let told = news(46).flatten().expect("ten are told");
        assert!(told.contains("calls again and again"), "{told}");
        assert_eq!(news(47), None, "once");
        let [one, other] = [1, 2].map(|n| SocketAddr::from(([10, 8, 0, n], 1)));
        door.waiting().twins = Some((at(50), one, other));
        let told = news(50).flatten().expect("worse");
        assert!(told.contains("10.8.0.1:1 and 10.8.0.2:1"), "{told}");
        assert_eq!(news(109), None);
        assert_eq!(news(110), Some(None));
        assert_eq!(news(111), None);
    }
}
