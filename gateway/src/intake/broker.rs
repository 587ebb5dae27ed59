//! The embedded MQTT broker: 3.1, 3.1.1 and 5, in this process, so that a site needs no other.
//!
//! What devices publish goes to the main loop in batches, as they stood on the wire, and a PUBACK (QoS 2: PUBREC) is
//! written only when [`Ack::done`](crate::intake::Ack::done) says that the message is safe. Publishes reach other
//! subscribers, too, with wildcards, retained messages, wills, and sessions that last as long as the process.
//!
//! It delivers with QoS 0 and 1, knows no shared subscriptions and no subscription identifiers, and says so in CONNACK
//! and SUBACK. It writes nothing to disk: what must survive is the main loop's to keep. Why it is our own is told in
//! `docs/decisions/0002-embedded-broker.md`.

pub mod accounts;
mod connection;
mod hub;
pub mod wire;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anmin_sensors::document::{ByteSize, Reader};
use bytes::Bytes;
use rumqttc::QoS;
use rumqttc::tokio_rustls::TlsAcceptor;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};

use self::accounts::{Accounts, Acl};
use self::hub::Hub;
pub(super) use self::hub::Token;
use crate::accept::Entrance;
use crate::clock::Clock;
use crate::credentials;
use crate::main_loop::Input;

/// `[broker]`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Anything but loopback needs a `password_file`.
    pub listen: SocketAddr,
    pub max_packet_size: usize,
    pub max_connections: usize,
    /// Per subscriber; a full queue loses its oldest message.
    pub max_queued_messages: usize,
    pub max_queued_bytes: usize,
    /// How long the session of a subscriber that is away is kept, at most.
    pub session_expiry: Duration,
    accounts: Option<Arc<Accounts>>,
    acl: Option<Arc<Acl>>,
    tls: Option<Arc<rustls::ServerConfig>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 1_883).into(),
            max_packet_size: 256 * 1024,
            max_connections: 10_000,
            max_queued_messages: 10_000,
            max_queued_bytes: 4 * 1024 * 1024,
            session_expiry: Duration::from_secs(24 * 3_600),
            accounts: None,
            acl: None,
            tls: None,
        }
    }
}

impl Settings {
    /// Reads `[broker]`. Its files are read here, once: accounts and access list change with the configuration.
    pub fn read(r: &Reader<'_>, base: &Path) -> Option<Self> {
        let default = Self::default();
        let listen = match r.optional::<String>("listen") {
            None => default.listen,
            Some(text) => match text.parse() {
                Ok(listen) => listen,
                Err(_) => {
                    r.fault(
                        "listen",
                        format!("`listen` is {text:?}, expected an address and a port"),
                        Some("such as \"127.0.0.1:1883\", or \"0.0.0.0:1883\" for the network".to_owned()),
                    );
                    default.listen
                }
            },
        };
        let ByteSize(max_packet_size) = r.or("max_packet_size", ByteSize(default.max_packet_size as u64));
        if !(1_024..=16 * 1024 * 1024).contains(&max_packet_size) {
            r.fault("max_packet_size", "`max_packet_size` must lie between 1KiB and 16MiB", None);
        }
        let max_connections = r.or("max_connections", default.max_connections);
        let max_queued_messages = r.or("max_queued_messages", default.max_queued_messages);
        for (key, value) in [("max_connections", max_connections), ("max_queued_messages", max_queued_messages)] {
            if value == 0 {
                r.fault(key, format!("`{key}` must be 1 or more"), None);
            }
        }
        let ByteSize(max_queued_bytes) = r.or("max_queued_bytes", ByteSize(default.max_queued_bytes as u64));
        let session_expiry = r.or("session_expiry", default.session_expiry);
        let accounts = file(r, "password_file", base, |text| Accounts::parse(&text));
        let acl = file(r, "acl_file", base, |text| Acl::parse(&text));
        let tls = credentials::server_tls(r, base);
        if !listen.ip().is_loopback() && !r.has("password_file") {
            r.fault(
                "listen",
                format!("`listen` is {listen}: open to the network, but without `password_file`"),
                Some("make one with `mosquitto_passwd -c <file> <name>`, or listen on 127.0.0.1".to_owned()),
            );
        }
        r.finish();
        if r.is_faulty() {
            return None;
        }
        Some(Self {
            listen,
            max_packet_size: usize::try_from(max_packet_size).ok()?,
            max_connections,
            max_queued_messages,
            max_queued_bytes: usize::try_from(max_queued_bytes).ok()?,
            session_expiry,
            accounts: accounts.map(Arc::new),
            acl: acl.map(Arc::new),
            tls,
        })
    }
}

/// Reads the file that `key` names; whatever is wrong with it is a fault at `key`.
fn file<T>(
    r: &Reader<'_>,
    key: &'static str,
    base: &Path,
    parse: impl FnOnce(String) -> Result<T, Vec<String>>,
) -> Option<T> {
    let path = credentials::named_file(base, r.optional::<String>(key)?);
    match std::fs::read_to_string(&path) {
        Ok(text) => match parse(text) {
            Ok(parsed) => return Some(parsed),
            Err(faults) => {
                for fault in faults {
                    r.fault(key, format!("{}: {fault}", path.display()), None);
                }
            }
        },
        Err(error) => r.fault(key, format!("cannot read {}: {error}", path.display()), None),
    }
    None
}

/// Why the broker cannot take a publish.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A topic to publish on is empty, too long, or holds a wildcard or U+0000.
    #[error("broker: cannot publish on {topic:?}")]
    Topic { topic: String },
}

/// What the broker has done since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub connections: usize,
    /// Publishes handed to the main loop.
    pub received: u64,
    /// Messages put into the queues of subscribers.
    pub delivered: u64,
    /// Messages that a full queue, a full store or a client's limit cost.
    pub dropped: u64,
    /// Connections, subscriptions and publishes that were not allowed.
    pub refused: u64,
    /// Publishes above `max_packet_size`.
    pub oversized: u64,
}

/// The broker inside this process. Cheap to clone. It runs until [`Broker::stop`], or until its last clone is gone.
#[derive(Clone)]
pub struct Broker {
    hub: Arc<Hub>,
    stop: Arc<watch::Sender<bool>>,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Broker({})", self.hub.settings.listen)
    }
}

impl Broker {
    /// What devices publish goes to `inputs` in batches with the source `broker`. `inputs` bounds what waits: while it is
    /// full, publishers are not read. Nobody can connect before [`Broker::listen`].
    pub fn new(settings: Settings, clock: Clock, inputs: mpsc::Sender<Input>) -> Self {
        Self { hub: Arc::new(Hub::new(settings, clock, inputs)), stop: Arc::new(watch::channel(false).0) }
    }

    /// Opens the broker to devices; says where, with the port that the system chose when the settings said 0. Fails where something
    /// else listens there, or the address is not of this machine.
    pub async fn listen(self) -> io::Result<(SocketAddr, JoinHandle<()>)> {
        let listener = TcpListener::bind(self.hub.settings.listen).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(accept(Arc::clone(&self.hub), listener, self.stop.subscribe()));
        tracing::info!("devices find the broker at mqtt://{address}/");
        Ok((address, task))
    }

    /// Hands a message of our own to the subscribers; says to how many. Never blocks, never reaches the intake.
    pub fn publish(&self, topic: &str, payload: Bytes, qos: QoS, retain: bool) -> Result<usize, Error> {
        self.hub
            .publish_own(topic, &payload, qos as u8, retain)
            .ok_or_else(|| Error::Topic { topic: topic.chars().take(200).collect() })
    }

    /// Clients may not publish on topics that begin with `prefix`: they are ours.
    pub fn reserve(&self, prefix: &str) {
        self.hub.reserve(prefix);
    }

    pub fn stats(&self) -> Stats {
        self.hub.counters.read()
    }

    /// Sessions of clients that are here or may come back.
    pub fn sessions(&self) -> usize {
        self.hub.session_count()
    }

    /// Stops listening, says goodbye to all clients, and waits until they are gone or five seconds have passed.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        self.hub.stop();
        let gone = async {
            while self.hub.counters.connections.load(Ordering::Acquire) > 0 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(5), gone).await;
    }
}

/// How often sessions are looked through for those that have expired.
const SWEEP: Duration = Duration::from_secs(30);

async fn accept(hub: Arc<Hub>, listener: TcpListener, mut stopping: watch::Receiver<bool>) {
    // Bound: `max_connections`; one more is closed at once.
    let room = Arc::new(Semaphore::new(hub.settings.max_connections));
    let tls = hub.settings.tls.clone().map(TlsAcceptor::from);
    let mut sweep = interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut full = 0_u64;
    let mut entrance = Entrance::new(listener, "broker");
    loop {
        let (stream, peer) = tokio::select! {
            accepted = entrance.next() => accepted,
            _ = sweep.tick() => {
                hub.expire_sessions();
                continue;
            }
            // An error says that the last handle is gone.
            _ = stopping.wait_for(|stop| *stop) => break,
        };
        let Ok(permit) = room.clone().try_acquire_owned() else {
            full += 1;
            if hub::is_worth_a_line(full) {
                tracing::warn!(%peer, full, "broker has as many connections as it may have; it closes a new one");
            }
            continue;
        };
        let (hub, tls) = (hub.clone(), tls.clone());
        hub.counters.connections.fetch_add(1, Ordering::AcqRel);
        tokio::spawn(async move {
            let _gone = Gone(hub.clone());
            greet(hub, stream, tls, peer).await;
            drop(permit);
        });
    }
    hub.stop();
}

/// Counts a connection out even if its task panics.
struct Gone(Arc<Hub>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.counters.connections.fetch_sub(1, Ordering::AcqRel);
    }
}

async fn greet(hub: Arc<Hub>, mut stream: TcpStream, tls: Option<TlsAcceptor>, peer: SocketAddr) {
    let deadline = Instant::now() + connection::CONNECT_WITHIN;
    // Without it an acknowledgement waits for the one before; a socket that cannot is slower, not wrong.
    let _ = stream.set_nodelay(true);
    match tls {
        None => {
            let (read, write) = stream.split();
            connection::serve(hub, read, write, peer.to_string(), deadline).await;
        }
        Some(tls) => match timeout_at(deadline, tls.accept(stream)).await {
            Ok(Ok(stream)) => {
                let (read, write) = tokio::io::split(stream);
                connection::serve(hub, read, write, peer.to_string(), deadline).await;
            }
            Ok(Err(error)) => {
                if let Some(more) = hub.say("TLS") {
                    tracing::info!(%peer, %error, more, "TLS failed; broker closes the connection");
                }
            }
            Err(_) => {
                if let Some(more) = hub.say("no TLS") {
                    tracing::info!(%peer, more, "no TLS within 10 seconds; broker closes the connection");
                }
            }
        },
    }
}
