//! What is decided between two connections: how long to wait, how large a packet may be, and whether the trouble has a
//! pattern. Plain values that know no socket; `now` and chance come in.

use std::collections::VecDeque;
use std::time::Duration;

use anmin_sensors::time::Mono;

use crate::chance::Chance;

/// A connection that stood for so long was no failure: the next wait begins small again.
const STOOD: Duration = Duration::from_secs(10);
/// Patterns are looked for within so long, and forgotten when a connection has stood for so long.
pub const PATTERN: Duration = Duration::from_secs(60);
/// So many ends of one kind within [`PATTERN`] are one.
const MANY: usize = 3;

/// Waits between connections: a random time between half of and all of 0.5, 1, 2 … s.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(500);

    pub fn new(longest: Duration) -> Self {
        Self { next: Self::FIRST, longest }
    }

    /// The wait after a connection that stood for so long; zero for an attempt that failed.
    pub fn after(&mut self, stood: Duration, chance: &mut Chance) -> Duration {
        if stood >= STOOD {
            self.next = Self::FIRST;
        }
        let most = self.next.min(self.longest);
        self.next = (self.next * 2).min(self.longest);
        most / 2 + chance.up_to(most / 2)
    }
}

/// How large a packet is let in.
///
/// A packet above the limit ends the connection, and the broker sends it again first thing on the next: everything
/// behind it would wait for ever. So the limit rises until the packet fits, and falls back when that is long ago.
#[derive(Debug)]
pub struct PacketLimit {
    configured: usize,
    raised: Option<(usize, Mono)>,
    most: usize,
}

impl PacketLimit {
    const CALM: Duration = Duration::from_secs(600);

    pub fn new(configured: usize, most: usize) -> Self {
        Self { configured, raised: None, most }
    }

    /// The limit of a connection that begins now.
    pub fn at(&self, now: Mono) -> usize {
        match self.raised {
            Some((limit, since)) if now.since(since) < Self::CALM => limit,
            _ => self.configured,
        }
    }

    /// A packet of `size` did not get through. The limit of the next connection; `None` when it is too large for any.
    pub fn handle_too_large(&mut self, size: usize, now: Mono) -> Option<usize> {
        let mut limit = self.at(now);
        while limit < size && limit < self.most {
            limit = limit.saturating_mul(4).min(self.most);
        }
        self.raised = Some((limit, now));
        (limit >= size).then_some(limit)
    }
}

/// Ends of connections within [`PATTERN`], and whether they are many.
#[derive(Debug, Default)]
struct Ends {
    at: VecDeque<Mono>,
    many: bool,
}

impl Ends {
    fn note(&mut self, now: Mono) {
        while self.at.len() >= MANY || self.at.front().is_some_and(|first| now.since(*first) > PATTERN) {
            self.at.pop_front();
        }
        self.at.push_back(now);
        self.many |= self.at.len() >= MANY;
    }

    fn forget(&mut self) {
        *self = Self::default();
    }
}

/// Two clients with one id throw each other out for ever; each new connection looks like a success.
#[derive(Debug, Default)]
pub struct Takeover(Ends);

impl Takeover {
    /// A connection that the peer closes so soon was hardly closed for what was said on it.
    const SOON: Duration = Duration::from_secs(5);
    const SHORTEST_WAIT: Duration = Duration::from_secs(30);

    /// The peer closed a connection that had stood for `stood`; `said`: it said that another client took its place.
    pub fn handle_closed(&mut self, now: Mono, stood: Duration, said: bool) {
        if said || stood <= Self::SOON {
            self.0.note(now);
        }
    }

    /// A connection has stood for [`PATTERN`], or the peer cannot be reached at all.
    pub fn forget(&mut self) {
        self.0.forget();
    }

    pub fn is_going_on(&self) -> bool {
        self.0.many
    }

    /// The least wait while it goes on: whoever else uses the id gets the time to be noticed, too.
    pub fn wait(&self, wait: Duration, chance: &mut Chance) -> Duration {
        if !self.0.many {
            return wait;
        }
        wait.max(Self::SHORTEST_WAIT + chance.up_to(Self::SHORTEST_WAIT))
    }
}

/// Why the kept session gets nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Snag {
    /// It holds a packet that cannot be read; the words say what is wrong with it.
    Poison(String),
    /// What it delivers is not made safe and so cannot be acknowledged.
    Unsafe,
}

/// A session that gets nowhere: every connection ends at the same message, and nothing behind it is heard.
#[derive(Debug, Default)]
pub struct Standstill {
    ends: Ends,
    snag: Option<Snag>,
}

impl Standstill {
    const SHORTEST_WAIT: Duration = Duration::from_secs(60);

    pub fn handle_snag(&mut self, now: Mono, snag: Snag) {
        self.ends.note(now);
        self.snag = Some(snag);
    }

    /// A connection has stood for [`PATTERN`].
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// The least wait while it goes on. Each try brings again what stands before the snag, which is old by then.
    pub fn wait(&self, wait: Duration, chance: &mut Chance) -> Duration {
        if !self.ends.many {
            return wait;
        }
        wait.max(Self::SHORTEST_WAIT + chance.up_to(Self::SHORTEST_WAIT))
    }

    pub fn snag(&self) -> Option<&Snag> {
        self.snag.as_ref().filter(|_| self.ends.many)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> Mono {
        Mono::default().plus(SECOND * u32::try_from(seconds).expect("a small number"))
    }

    #[test]
    fn waits_double_with_jitter_until_a_connection_has_stood() {
        let (mut backoff, mut chance) = (Backoff::new(SECOND * 3), Chance(1));
        // Seconds that the connection stood, and the longest wait after it in milliseconds.
        for (stood, most) in [(0, 500), (0, 1_000), (9, 2_000), (1, 3_000), (0, 3_000), (10, 500), (0, 1_000)] {
            let (wait, most) = (backoff.after(SECOND * stood, &mut chance), Duration::from_millis(most));
            assert!((most / 2..=most).contains(&wait), "{wait:?} after {stood} s, expected at most {most:?}");
        }
    }

    #[test]
    fn the_limit_rises_until_the_packet_fits_and_falls_back() {
        const KIB: usize = 1_024;
        let mut limit = PacketLimit::new(256 * KIB, 16 * 1_024 * KIB);
        assert_eq!(limit.at(at(0)), 256 * KIB);
        for (seconds, size, wanted) in [
            (0, 300 * KIB, Some(1_024 * KIB)),
            (1, 5_000 * KIB, Some(16 * 1_024 * KIB)),
            (2, 17 * 1_024 * KIB, None),
            (700, 257 * KIB, Some(1_024 * KIB)),
        ] {
            assert_eq!(limit.handle_too_large(size, at(seconds)), wanted, "{size} bytes");
        }
        assert_eq!(limit.at(at(1_299)), 1_024 * KIB);
        assert_eq!(limit.at(at(1_300)), 256 * KIB);
    }

    #[test]
    fn a_takeover_is_three_early_ends_within_a_minute() {
        // Second, how long the connection stood, whether the broker named the reason, and whether it is a takeover.
        let story = [
            (0, 1, false, false),
            (2, 4, false, false),
            (100, 5, false, false),
            (110, 6, false, false),
            (120, 1, false, false),
            (150, 300, true, true),
            (400, 6, false, true),
        ];
        let mut takeover = Takeover::default();
        for (second, stood, said, wanted) in story {
            takeover.handle_closed(at(second), SECOND * stood, said);
            assert_eq!(takeover.is_going_on(), wanted, "at {second} s");
        }
        let mut chance = Chance(7);
        for _ in 0..100 {
            assert!((SECOND * 30..=SECOND * 60).contains(&takeover.wait(SECOND, &mut chance)));
        }
        takeover.forget();
        assert_eq!((takeover.is_going_on(), takeover.wait(SECOND, &mut chance)), (false, SECOND));
    }

    #[test]
    fn a_standstill_is_three_snags_within_a_minute() {
        let mut standstill = Standstill::default();
        for (second, wanted) in [(0, false), (40, false), (99, false), (100, true), (300, true)] {
            standstill.handle_snag(at(second), Snag::Unsafe);
            assert_eq!(standstill.snag().is_some(), wanted, "at {second} s");
        }
        standstill.handle_snag(at(301), Snag::Poison("too large".to_owned()));
        assert_eq!(standstill.snag(), Some(&Snag::Poison("too large".to_owned())));
        let mut chance = Chance(3);
        assert!((SECOND * 60..=SECOND * 120).contains(&standstill.wait(SECOND, &mut chance)));
        standstill.forget();
        standstill.handle_snag(at(302), Snag::Unsafe);
        assert_eq!((standstill.snag(), standstill.wait(SECOND, &mut chance)), (None, SECOND));
    }
}
