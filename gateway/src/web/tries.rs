//! Wrong passwords: after a few, each costs a longer wait.

use std::collections::HashMap;
use std::time::Duration;

use anmin_sensors::time::Mono;

/// The first wait; it doubles with every failure up to [`LONGEST`].
const FIRST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(3_600);
/// Failures are forgotten when none has come for so long.
const FORGOTTEN: Duration = Duration::from_secs(86_400);
/// Names and addresses that are remembered; beyond it those go that have waited longest.
const MOST: usize = 10_000;

/// Failures by what they were about: a name, known or not, and an address. By the monotonic clock, so that no step of the
/// other opens anything.
#[derive(Debug, Default)]
pub struct Tries(HashMap<String, Tried>);

#[derive(Clone, Copy, Debug)]
struct Tried {
    failures: u32,
    last: Mono,
    until: Mono,
}

impl Tries {
    /// How long one must wait before trying `key` again.
    pub fn wait(&self, key: &str, now: Mono) -> Option<Duration> {
        let wait = self.0.get(key)?.until.since(now);
        (!wait.is_zero()).then_some(wait)
    }

    /// Notes a failure; the first `free` of them cost no wait.
    pub fn failed(&mut self, key: &str, free: u32, now: Mono) {
        if self.0.len() >= MOST && !self.0.contains_key(key) {
            self.0.retain(|_, tried| now.since(tried.last) < FORGOTTEN);
            let oldest = self.0.iter().min_by_key(|(_, tried)| (tried.until, tried.last));
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()).filter(|_| self.0.len() >= MOST) {
                self.0.remove(&oldest);
            }
        }
        let tried = self.0.entry(key.to_owned()).or_insert(Tried { failures: 0, last: now, until: now });
        if now.since(tried.last) >= FORGOTTEN {
            tried.failures = 0;
        }
        tried.failures = tried.failures.saturating_add(1);
        tried.last = now;
        if let Some(beyond) = tried.failures.checked_sub(free) {
            tried.until = now.plus(FIRST.saturating_mul(1 << beyond.min(10)).min(LONGEST));
        }
    }

    /// It was no failure after all.
    pub fn take_back(&mut self, key: &str, now: Mono) {
        if let Some(tried) = self.0.get_mut(key) {
            tried.failures = tried.failures.saturating_sub(1);
            tried.until = tried.until.min(now);
        }
    }

    pub fn forget(&mut self, key: &str) {
        self.0.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_an_hour_and_are_forgotten_after_a_quiet_day() {
        let mut tries = Tries::default();
        let mut now = Mono::default().plus(FORGOTTEN);
        let mut waits = Vec::new();
        for _ in 0..13 {
            tries.failed("li", 5, now);
            let wait = tries.wait("li", now).unwrap_or_default();
            waits.push(wait.as_secs());
            now = now.plus(wait);
        }
        assert_eq!(waits, [0, 0, 0, 0, 60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]);
        assert_eq!(tries.wait("wang", now), None);
        tries.failed("li", 5, now.plus(FORGOTTEN));
        assert_eq!(tries.wait("li", now.plus(FORGOTTEN)), None);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_longest_wait_stays() {
        let (mut tries, now) = (Tries::default(), Mono::default());
        for _ in 0..9 {
            tries.failed("li", 5, now);
        }
        for n in 0..MOST + 100 {
            tries.failed(&format!("address {n}"), 5, now);
        }
        assert_eq!(tries.0.len(), MOST);
        assert!(tries.wait("li", now).is_some());
    }
}
