//! How much of one broker's traffic the main loop has and is not done with, so that a stalled one does not fill the
//! memory.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anmin_sensors::time::Mono;

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

/// When to let messages gather: a turn costs some wake-ups, however few messages it takes.
#[derive(Debug, Default)]
pub struct Pace {
    since: Mono,
    taken: u32,
}

impl Pace {
    /// More messages than this in a millisecond are a flood. Below it nothing waits: at 10,000 messages a second an alarm
    /// is as quick as at one. Two cores carry some 25,000 a second with QoS 1, which must count as a flood, too: being woken
    /// for few messages at a time takes a third of what they cost.
    const FLOOD: u32 = 20;
    pub const REST: Duration = Duration::from_millis(1);

    /// So many messages were taken. Says whether to rest for [`Pace::REST`] before reading on.
    pub fn handle_taken(&mut self, now: Mono, count: usize) -> bool {
        let elapsed = now.since(self.since);
        self.taken = self.taken.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        if elapsed <= Self::REST {
            return self.taken > Self::FLOOD;
        }
        // A rest takes longer than it should, so what came meanwhile is held against the time that it took.
        let flood = f64::from(self.taken) > f64::from(Self::FLOOD) * elapsed.as_secs_f64() * 1e3;
        (self.since, self.taken) = (now, 0);
        flood
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_flood_is_let_gather() {
        // Microseconds and messages of each turn, and whether the last one is followed by a rest.
        type Case = (&'static [(u64, usize)], bool);
        let cases: [Case; 8] = [
            (&[(0, 1)], false),
            // 10,000 a second, in bursts of five.
            (&[(0, 5), (500, 5), (1_001, 5), (1_501, 5), (2_002, 5)], false),
            // The same after the load stood still for a moment, and after a rest that took long.
            (&[(0, 5), (4_000, 40), (6_500, 25)], false),
            (&[(0, 5), (100, 15), (200, 15), (300, 15)], true),
            // 18,000 a second, and 22,000.
            (&[(0, 5), (500, 13), (1_001, 5), (1_501, 5), (2_003, 13)], false),
            (&[(0, 5), (500, 15), (1_001, 5), (1_501, 5), (2_003, 17)], true),
            (&[(0, 5), (10, 512)], true),
            (&[(0, 5), (10, 512), (2_100, 110)], true),
        ];
        for (turns, wanted) in cases {
            let mut pace = Pace::default();
            let start = Mono::default().plus(Duration::from_secs(9));
            let rests =
                turns.iter().map(|(at, count)| pace.handle_taken(start.plus(Duration::from_micros(*at)), *count));
            assert_eq!(rests.last(), Some(wanted), "{turns:?}");
        }
    }

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
