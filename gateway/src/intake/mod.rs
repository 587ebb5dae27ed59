//! Everything that enters. An intake turns a wire into [`Input`](crate::main_loop::Input)s and knows nothing of alarms.

pub mod broker;
pub mod modbus;
pub mod mqtt;

use std::sync::Arc;

use anmin_sensors::time::Now;
use bytes::Bytes;

/// One MQTT publish as it came, whichever broker it came through.
#[derive(Debug)]
pub struct Message {
    pub topic: Arc<str>,
    pub payload: Bytes,
    /// Kept by the broker from before we subscribed: state, never news.
    pub retained: bool,
    /// Sent before without an acknowledgement; the DUP flag.
    pub redelivered: bool,
    pub received: Now,
    /// `None` for QoS 0.
    pub ack: Option<Ack>,
}

/// The right to acknowledge one message on the one connection that delivered it, once.
///
/// Held by value: the main loop calls [`Ack::done`] when the message is safe. A token that is dropped without it leaves
/// the message unacknowledged, so the broker delivers it again.
pub struct Ack(Box<dyn FnOnce() + Send>);

impl Ack {
    /// `send` must not block; it is called from the main loop's or the store's thread.
    pub fn new(send: impl FnOnce() + Send + 'static) -> Self {
        Self(Box::new(send))
    }

    /// The message is safe: acknowledge it.
    pub fn done(self) {
        (self.0)();
    }
}

impl std::fmt::Debug for Ack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ack")
    }
}
