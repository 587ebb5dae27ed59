//! How much of one broker's traffic the main loop has and is not done with, so that a stalled one does not fill the
//! memory.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of messages that bear a token and are not safe yet. Shared with the tokens of all connections: those of a
/// connection that has ended take memory all the same.
#[derive(Clone, Debug, Default)]
pub struct InFlight(Arc<AtomicUsize>);

impl InFlight {
    pub fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn remove(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// What the main loop has.
#[derive(Debug, Default)]
pub struct Pressure {
    pub in_flight: InFlight,
    /// Messages of QoS 0 have no token that would tell when they are done. But the queue of inputs is a queue: when so
    /// many wait in it, they are at most our last so many batches.
    batches: VecDeque<usize>,
    queued: usize,
}

impl Pressure {
    /// Beyond this nothing more is read.
    pub const MOST: usize = 32 * 1024 * 1024;

    /// A batch went into the queue, with so many bytes of messages without a token.
    pub fn handle_batch(&mut self, untracked: usize) {
        self.batches.push_back(untracked);
        self.queued += untracked;
    }

    /// Bytes, when so many inputs of anybody wait in the queue.
    pub fn bytes(&mut self, waiting: usize) -> usize {
        while self.batches.len() > waiting {
            self.queued -= self.batches.pop_front().unwrap_or_default();
        }
        self.queued + self.in_flight.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_at_most_the_last_batches() {
        let mut pressure = Pressure::default();
        for bytes in [100, 20, 3] {
            pressure.handle_batch(bytes);
        }
        for (waiting, wanted) in [(9, 123), (3, 123), (2, 23), (3, 23), (1, 3), (0, 0)] {
            assert_eq!(pressure.bytes(waiting), wanted, "{waiting} inputs wait");
        }
        let token = pressure.in_flight.clone();
        token.add(7);
        assert_eq!(pressure.bytes(0), 7);
        token.remove(7);
        assert_eq!(pressure.bytes(0), 0);
    }
}
