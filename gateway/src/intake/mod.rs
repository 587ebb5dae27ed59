//! Everything that enters. An intake turns a wire into [`Input`](crate::main_loop::Input)s and knows nothing of alarms.

pub mod broker;
pub mod gbt26875;
pub mod http;
pub mod modbus;
pub mod mqtt;

use std::sync::Arc;

use anmin_sensors::time::Now;
use bytes::Bytes;
use tokio::sync::oneshot;

/// One MQTT publish as it came, whichever broker it came through.
#[derive(Debug)]
pub struct Message {
    pub topic: Arc<str>,
    pub payload: Bytes,
    /// Kept by the broker from before we subscribed: state, never news.
    pub retained: bool,
    /// Only its start is here: it is larger than anmin takes. Nothing is read out of it.
    pub cut: bool,
    pub received: Now,
    /// `None` for QoS 0.
    pub delivery: Option<Delivery>,
    /// `None` for QoS 0.
    pub ack: Option<Ack>,
}

/// What tells that a message is delivered again from that another says the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Who sends it, and the packet identifier; the same in every run.
    pub key: u64,
    /// The sender says that it may have sent it before (DUP, section 3.3.1.1 of both MQTT versions).
    pub again: bool,
}

impl Delivery {
    /// `source` is the broker, `client` whose session it is there.
    pub fn new(source: &str, client: &str, packet: u16, again: bool) -> Self {
        Self::of(Self::session(source, client), packet, again)
    }

    /// Source and client as one number, which a connection keeps.
    pub fn session(source: &str, client: &str) -> u64 {
        // FNV-1a, 64 bits.
        let bytes = source.bytes().chain([0]).chain(client.bytes());
        bytes.fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3))
    }

    pub fn of(session: u64, packet: u16, again: bool) -> Self {
        Self { key: session.wrapping_add(u64::from(packet)), again }
    }
}

/// The right to acknowledge one message on the one connection that delivered it, once.
///
/// Held by value: the main loop calls [`Ack::done`] when the message is safe. A token that is dropped without it leaves
/// the message unacknowledged, so the broker delivers it again.
pub struct Ack(Tell);

enum Tell {
    /// Of our own broker, held here: a box for each message would cost more than the acknowledgement.
    Broker(broker::Token),
    Done(Box<dyn FnOnce() + Send>),
    /// Whoever sent it waits for an answer, and for the reason where it was of no use.
    Answer(oneshot::Sender<Option<Refused>>, Option<Refused>),
}

/// Why nothing of a message could be used; it is safe all the same, with what nobody can read.
#[derive(Debug)]
pub struct Refused {
    /// The name of [`anmin_sensors::router::Why`].
    pub reason: &'static str,
    pub words: String,
}

impl Ack {
    /// `send` must not block; it is called from the main loop's or the store's thread.
    pub fn new(send: impl FnOnce() + Send + 'static) -> Self {
        Self(Tell::Done(Box::new(send)))
    }

    fn of_broker(token: broker::Token) -> Self {
        Self(Tell::Broker(token))
    }

    /// Answers whether the message was of use. A token that is dropped closes the channel.
    pub fn answering(answer: oneshot::Sender<Option<Refused>>) -> Self {
        Self(Tell::Answer(answer, None))
    }

    /// Nothing of the message can be used. `words` are asked for where somebody waits for them.
    pub fn refuse(&mut self, reason: &'static str, words: impl FnOnce() -> String) {
        if let Tell::Answer(_, refused) = &mut self.0 {
            *refused = Some(Refused { reason, words: words() });
        }
    }

    /// The message is safe: acknowledge it.
    pub fn done(self) {
        match self.0 {
            Tell::Broker(token) => token.done(),
            Tell::Done(send) => send(),
            // Whoever asked may have hung up.
            Tell::Answer(answer, refused) => drop(answer.send(refused)),
        }
    }
}

impl std::fmt::Debug for Ack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ack")
    }
}
