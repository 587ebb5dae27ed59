//! Whether the wall clock can be believed.
//!
//! A box whose clock has no battery starts in 1970, or where its clock stood when the power went, until the network knows
//! better. Nothing waits for that: delays run on the other clock. But a time that is written down meanwhile is wrong, so it
//! is marked, and a system alarm says so.
//!
//! A clock is in doubt while it is behind what is known to have been: the year of this version, and the last time at
//! which anmin was alive with a clock that it believed. It is believed again when it has come past that, or when nobody has
//! set it for a day: then whoever set it meant it, and what was known before was wrong.

use std::sync::Arc;
use std::time::Duration;

use anmin_rules::rule::{Finding, Level, Text};
use anmin_sensors::time::{Mono, Now, Wall};

use super::{PartState, PartTrouble};

/// No honest clock is before this, the beginning of the year in which this version was made: 2026-01-01T00:00:00Z.
pub const EARLIEST: Wall = Wall::from_micros(1_767_225_600_000_000);

/// So far a clock may be put right backwards without a word.
const TOLERANCE: Duration = Duration::from_secs(120);

/// More than this between two looks is a step, and no slewing.
const STEP: Duration = Duration::from_secs(2);

/// Nobody has set it for so long.
const STEADY: Duration = Duration::from_secs(24 * 3_600);

#[derive(Debug)]
pub struct ClockTrust {
    /// The latest time that was believed.
    known: Wall,
    last: Option<Now>,
    /// When it was last set, or first looked at.
    set: Mono,
    doubtful: bool,
}

impl ClockTrust {
    /// `alive`: when the last run was last known to be alive.
    pub fn new(alive: Option<Wall>) -> Self {
        let known = alive.map_or(EARLIEST, |alive| alive.max(EARLIEST));
        Self { known, last: None, set: Mono::default(), doubtful: false }
    }

    pub fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    /// The latest time that was believed: what the next run is to know.
    pub fn known(&self) -> Wall {
        self.known
    }

    /// Looks at the clock. Gives what is to be said when that has changed.
    pub fn handle_now(&mut self, now: Now) -> Option<PartState> {
        match self.last.replace(now) {
            None => self.set = now.mono,
            Some(last) => {
                let expected = last.wall.plus(now.mono.since(last.mono));
                let off = now.wall.micros().abs_diff(expected.micros());
                if u128::from(off) > STEP.as_micros() {
                    self.set = now.mono;
                    let (from, to) = (shown(expected), shown(now.wall));
                    tracing::warn!(%from, %to, "the clock was set; no delay moves by it");
                }
            }
        }
        let behind = now.wall.plus(TOLERANCE) < self.known;
        let before = std::mem::replace(&mut self.doubtful, behind && now.mono.since(self.set) < STEADY);
        if !self.doubtful {
            self.known = if behind { now.wall } else { self.known.max(now.wall) };
        }
        (before != self.doubtful)
            .then(|| PartState { part: Arc::from("clock"), trouble: self.doubtful.then(|| self.trouble(now.wall)) })
    }

    fn trouble(&self, wall: Wall) -> PartTrouble {
        let (now, known) = (shown(wall), shown(self.known));
        PartTrouble {
            finding: Finding { level: Level::Orange, limit: None, note: None },
            message: Text {
                zh: format!("本机时钟不可信：显示 {now}，而此前已到 {known}。校时之前记录的时间仅供参考，报警不受影响"),
                en: format!(
                    "the clock of this box cannot be believed: it says {now}, and {known} has been already. Times written down until it is set are marked as doubtful; alarms do not depend on it"
                ),
            },
        }
    }
}

/// To the second, in UTC.
fn shown(at: Wall) -> String {
    jiff::Timestamp::from_second(at.micros().div_euclid(1_000_000))
        .map_or_else(|_| at.micros().to_string(), |at| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60;
    const DAY: u64 = 86_400;
    /// Some moment after the release.
    const THEN: i64 = 1_800_000_000;

    fn at(mono: u64, wall: i64) -> Now {
        Now { mono: Mono::default().plus(Duration::from_secs(mono)), wall: Wall::from_micros(wall * 1_000_000) }
    }

    /// What is said at each look: `true` that it is in doubt, `false` that it is not any more.
    fn said(alive: Option<i64>, looks: &[(u64, i64)]) -> Vec<Option<bool>> {
        let mut trust = ClockTrust::new(alive.map(|at| Wall::from_micros(at * 1_000_000)));
        looks
            .iter()
            .map(|(mono, wall)| trust.handle_now(at(*mono, *wall)).map(|state| state.trouble.is_some()))
            .collect()
    }

    #[test]
    fn a_clock_behind_what_has_been_is_in_doubt_until_it_is_set() {
        type Case = (&'static str, Option<i64>, &'static [(u64, i64)], &'static [Option<bool>]);
        const SAVED: i64 = THEN - 3 * DAY as i64;
        let cases: [Case; 8] = [
            ("a clock that goes", Some(THEN), &[(0, THEN + 5), (60, THEN + 65)], &[None, None]),
            ("the first start ever", None, &[(0, THEN), (1, THEN + 1)], &[None, None]),
            ("1970, then set", Some(THEN), &[(0, 3), (30, 33), (40, THEN + 100)], &[Some(true), None, Some(false)]),
            ("1970 at the first start ever", None, &[(0, 3), (9, THEN)], &[Some(true), Some(false)]),
            ("what was saved days ago", Some(THEN), &[(0, SAVED), (9, THEN + 60)], &[Some(true), Some(false)]),
            ("put right by a minute", Some(THEN), &[(0, THEN), (5, THEN - MINUTE as i64)], &[None, None]),
            ("set back by an hour while running", Some(THEN), &[(0, THEN), (5, THEN - 3_600)], &[None, Some(true)]),
            (
                "it had been years ahead, and nobody sets it again",
                Some(THEN + 3_000 * DAY as i64),
                &[
                    (0, THEN),
                    (DAY / 2, THEN + DAY as i64 / 2),
                    (DAY, THEN + DAY as i64),
                    (DAY + 1, THEN + DAY as i64 + 1),
                ],
                &[Some(true), None, Some(false), None],
            ),
        ];
        for (what, alive, looks, wanted) in cases {
            assert_eq!(said(alive, looks), wanted, "{what}");
        }
    }

    #[test]
    fn the_next_run_learns_the_latest_time_that_was_believed() {
        let mut trust = ClockTrust::new(None);
        trust.handle_now(at(0, THEN));
        trust.handle_now(at(10, 7));
        assert_eq!((trust.known(), trust.is_doubtful()), (at(0, THEN).wall, true));
    }
}
