//! How fast a database takes readings lately, and when it will have caught up with those that wait.

use std::collections::VecDeque;
use std::time::Duration;

use anmin_sensors::time::Mono;

/// What *lately* means: long enough that batches do not show, short enough that a database that is back does.
pub const LATELY: Duration = Duration::from_secs(20);

/// Looks at one database, one a second.
#[derive(Debug, Default)]
pub struct Pace {
    /// The oldest is [`LATELY`] ago, or a little more.
    looks: VecDeque<Look>,
}

#[derive(Clone, Copy, Debug)]
struct Look {
    at: Mono,
    sent: u64,
    waiting: u64,
}

impl Pace {
    /// `sent`: readings that it has taken so far; a smaller number than before begins anew.
    pub fn look(&mut self, at: Mono, sent: u64, waiting: u64) {
        if self.looks.back().is_some_and(|last| sent < last.sent) {
            self.looks.clear();
        }
        self.looks.push_back(Look { at, sent, waiting });
        while self.looks.get(1).is_some_and(|second| at.since(second.at) >= LATELY) {
            self.looks.pop_front();
        }
    }

    /// Readings a second that it has taken lately.
    pub fn rate(&self) -> f64 {
        self.span().map_or(0.0, |(first, last, seconds)| (last.sent - first.sent) as f64 / seconds)
    }

    /// How long until nothing waits, if it goes on as lately; `None` where what waits does not grow less.
    pub fn catch_up(&self) -> Option<Duration> {
        let (first, last, seconds) = self.span()?;
        let shrunk = first.waiting.checked_sub(last.waiting).filter(|shrunk| *shrunk > 0)?;
        Duration::try_from_secs_f64(last.waiting as f64 * seconds / shrunk as f64).ok()
    }

    fn span(&self) -> Option<(Look, Look, f64)> {
        let (first, last) = (*self.looks.front()?, *self.looks.back()?);
        let seconds = last.at.since(first.at).as_secs_f64();
        (seconds > 0.0).then_some((first, last, seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks as (second, sent, waiting), then the rate and the seconds to catch up.
    #[test]
    fn the_pace_is_that_of_the_last_twenty_seconds() {
        type Case = (&'static str, &'static [(u64, u64, u64)], f64, Option<u64>);
        let cases: [Case; 7] = [
            ("nothing is known yet", &[], 0.0, None),
            ("one look is no speed", &[(0, 50, 100)], 0.0, None),
            ("it catches up", &[(0, 0, 1_000), (10, 600, 500)], 60.0, Some(10)),
            ("away: what waits grows", &[(0, 0, 1_000), (10, 0, 1_500)], 0.0, None),
            ("too slow: what waits stays", &[(0, 0, 1_000), (10, 500, 1_000)], 50.0, None),
            (
                "what was before is forgotten",
                &[(0, 0, 9_000), (10, 0, 9_900), (30, 2_000, 8_000), (40, 4_000, 6_100)],
                (4_000.0 - 0.0) / 30.0,
                Some(6_100 * 30 / 3_800),
            ),
            ("a counter that begins anew", &[(0, 900, 500), (10, 0, 400), (11, 40, 360)], 40.0, Some(9)),
        ];
        for (name, looks, rate, seconds) in cases {
            let mut pace = Pace::default();
            for (second, sent, waiting) in looks {
                pace.look(Mono::default().plus(Duration::from_secs(*second)), *sent, *waiting);
            }
            assert!((pace.rate() - rate).abs() < 1e-9, "{name}: {}", pace.rate());
            assert_eq!(pace.catch_up().map(|wait| wait.as_secs()), seconds, "{name}");
        }
    }
}
