//! The right to acknowledge: one message, on the one connection that delivered it, once.
//!
//! rumqttc's own `ack` knows only the packet identifier. Used late, after the broker has lost the session, it
//! acknowledges whatever message bears that identifier by then, and that message is lost. So each connection has a
//! [`Ledger`] of its own, and a token is a place in one ledger: of a connection that has ended it acknowledges nothing.
//!
//! Acknowledgements go out in the order in which the publishes came (section 4.6 of both MQTT versions), in whatever
//! order the messages become safe. A token that is dropped unused is a message that nobody made safe: the connection
//! ends, since only then does the broker deliver it again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::pressure::InFlight;
use crate::intake::Ack;

/// What the broker is owed for a message that is safe, under its packet identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owed {
    /// For QoS 1.
    PubAck(u16),
    /// For QoS 2.
    PubRec(u16),
}

impl Owed {
    pub fn packet(self) -> u16 {
        let (Self::PubAck(id) | Self::PubRec(id)) = self;
        id
    }
}

/// The messages of one connection that are not acknowledged yet, in the order in which they came.
#[derive(Debug, Default)]
struct Ledger {
    /// The place of the first entry.
    first: u64,
    entries: VecDeque<Entry>,
    /// May be sent now, in this order.
    ready: Vec<Owed>,
    forsaken: bool,
}

#[derive(Debug)]
struct Entry {
    owed: Owed,
    safe: bool,
}

impl Ledger {
    /// Notes a message and gives its place.
    fn enter(&mut self, owed: Owed) -> u64 {
        self.entries.push_back(Entry { owed, safe: false });
        self.first + self.entries.len() as u64 - 1
    }

    /// The message at this place is safe. True when the connection must be told: something is ready, and nothing was.
    fn settle(&mut self, place: u64) -> bool {
        let at = place.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        let Some(entry) = at.and_then(|at| self.entries.get_mut(at)) else { return false };
        entry.safe = true;
        let told = !self.ready.is_empty();
        while let Some(Entry { owed, safe: true }) = self.entries.front() {
            self.ready.push(*owed);
            self.entries.pop_front();
            self.first += 1;
        }
        !told && !self.ready.is_empty()
    }
}

/// The ledger of one connection, shared with its tokens.
#[derive(Debug)]
pub struct Acks {
    ledger: Mutex<Ledger>,
    changed: Notify,
    in_flight: InFlight,
}

impl Acks {
    pub fn new(in_flight: InFlight) -> Arc<Self> {
        Arc::new(Self { ledger: Mutex::default(), changed: Notify::new(), in_flight })
    }

    /// The token of a message of so many bytes.
    pub fn token(self: &Arc<Self>, owed: Owed, bytes: usize) -> Ack {
        let place = self.lock().enter(owed);
        self.in_flight.add(bytes);
        let token = Token { acks: Arc::clone(self), place, bytes, used: false };
        Ack::new(move || token.done())
    }

    /// Moves what may be sent now to `into`, which is empty.
    pub fn take_ready(&self, into: &mut Vec<Owed>) {
        std::mem::swap(&mut self.lock().ready, into);
    }

    /// Whether a token was dropped unused.
    pub fn is_forsaken(&self) -> bool {
        self.lock().forsaken
    }

    /// Waits until something is ready, or forsaken.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        // Nothing under this lock panics half-way through a change.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Token {
    acks: Arc<Acks>,
    place: u64,
    bytes: usize,
    used: bool,
}

impl Token {
    fn done(mut self) {
        self.used = true;
        let news = self.acks.lock().settle(self.place);
        if news {
            self.acks.changed.notify_one();
        }
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.acks.in_flight.remove(self.bytes);
        if !self.used {
            self.acks.lock().forsaken = true;
            self.acks.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intake::mqtt::pressure::Pressure;

    #[test]
    fn acknowledgements_go_in_the_order_of_the_publishes() {
        // Identifiers of the publishes, places in the order in which they become safe, and what is ready after each.
        type Case = (&'static [u16], &'static [(u64, &'static [u16])]);
        let cases: &[Case] = &[
            (&[1], &[(0, &[1])]),
            (&[7, 8, 9], &[(0, &[7]), (1, &[8]), (2, &[9])]),
            (&[7, 8, 9], &[(2, &[]), (1, &[]), (0, &[7, 8, 9])]),
            (&[7, 8, 9], &[(1, &[]), (0, &[7, 8]), (2, &[9])]),
            // The same again, and a place that was never given.
            (&[7, 8], &[(0, &[7]), (0, &[]), (5, &[]), (1, &[8]), (u64::MAX, &[])]),
            // Identifiers that the broker uses again are different messages.
            (&[1, 2, 1], &[(1, &[]), (0, &[1, 2]), (2, &[1])]),
        ];
        for (ids, steps) in cases {
            let mut ledger = Ledger::default();
            let places: Vec<u64> = ids.iter().map(|id| ledger.enter(Owed::PubAck(*id))).collect();
            assert_eq!(places, (0..ids.len() as u64).collect::<Vec<_>>());
            for (place, wanted) in *steps {
                let news = ledger.settle(*place);
                assert_eq!(news, !wanted.is_empty(), "{ids:?} at {place}");
                let ready = std::mem::take(&mut ledger.ready);
                assert_eq!(ready, wanted.iter().map(|id| Owed::PubAck(*id)).collect::<Vec<_>>(), "{ids:?} at {place}");
            }
        }
    }

    #[test]
    fn the_connection_is_told_once_for_all_that_is_ready() {
        let mut ledger = Ledger::default();
        let places = [1, 2, 3].map(|id| ledger.enter(Owed::PubRec(id)));
        assert_eq!(places.map(|place| ledger.settle(place)), [true, false, false]);
        assert_eq!(ledger.ready, [Owed::PubRec(1), Owed::PubRec(2), Owed::PubRec(3)]);
    }

    #[test]
    fn a_token_counts_its_bytes_while_it_lives_and_is_missed_when_it_is_dropped() {
        let mut pressure = Pressure::default();
        let [old, new] = [(); 2].map(|()| Acks::new(pressure.in_flight.clone()));
        let (late, kept) = (old.token(Owed::PubAck(1), 100), new.token(Owed::PubAck(1), 20));
        assert_eq!(pressure.bytes(0), 120);
        late.done();
        let mut ready = Vec::new();
        new.take_ready(&mut ready);
        assert_eq!(ready, [], "the old connection's identifier 1 is another message");
        assert_eq!((pressure.bytes(0), old.is_forsaken(), new.is_forsaken()), (20, false, false));
        drop(kept);
        assert_eq!((pressure.bytes(0), new.is_forsaken()), (0, true));
        new.take_ready(&mut ready);
        assert_eq!(ready, []);
    }
}
