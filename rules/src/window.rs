//! Windows: what a rule may know of the last minutes or hours, kept by the engine over monotonic time.
//!
//! Between two readings a value holds: the mean, the extremes and the time above a limit are those of that staircase, so
//! that they are right however irregularly a device speaks. A bad or missing value ends the stair; what follows until
//! the next good one is unknown and counts as no time at all. Sums and counts add what was heard; the slope is the
//! straight line that fits the readings of the time before the last best. A window says also when its value will leave the range in which the
//! rule's answer stays, so that nobody asks it before.
//!
//! All is exact while at most [`MAX_STEPS`] changes lie within a window. Beyond that, changes closer together than a
//! hundred-and-twenty-eighth of it are taken together: a sum forgets them together when the last is too old, an extreme
//! stays one, a mean stays a mean, a slope goes through their middle.
//!
//! This file knows neither points nor scripts: numbers and times come in, a value and a time to look again come out.

use std::collections::VecDeque;
use std::time::Duration;

use anmin_sensors::time::Mono;

use crate::script::Track;

/// What a window keeps of each change within.
pub const BYTES_A_CHANGE: usize = size_of::<Step>();

/// Changes that a window keeps one by one.
pub const MAX_STEPS: usize = 256;

/// What a window makes of the values within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// All values together, such as the rain of the last three hours.
    Sum,
    /// How often the value has come to a limit, or a flag has come on.
    Count,
    /// Weighted with the time for which each value held.
    Mean,
    Min,
    Max,
    /// Change a minute of the straight line that fits the readings best.
    Slope,
    /// Seconds for which the value was at or above a limit, or a flag was on.
    TimeAbove,
    /// One value less another, at this moment.
    Difference,
}

impl Measure {
    pub const CHOICES: [(&'static str, Self); 8] = [
        ("sum", Self::Sum),
        ("count", Self::Count),
        ("mean", Self::Mean),
        ("min", Self::Min),
        ("max", Self::Max),
        ("slope", Self::Slope),
        ("time_above", Self::TimeAbove),
        ("difference", Self::Difference),
    ];

    pub fn as_str(self) -> &'static str {
        Self::CHOICES.iter().find(|(_, each)| *each == self).map_or("", |(name, _)| name)
    }

    /// What it is, its unit, and the keys that it takes besides `name`, `measure`, `input`.
    pub const fn what(self) -> (&'static str, &'static str, &'static str) {
        let waits = "`over`; `least`, the time that must be known before it says anything, half of `over` by default";
        match self {
            Self::Sum => ("all readings together", "the input's unit", "`over`"),
            Self::Count => ("how often the value came to a limit, or a flag came on", "no unit", "`over`, `limit`"),
            Self::Mean => ("the mean over time", "the input's unit", waits),
            Self::Min => ("the least", "the input's unit", waits),
            Self::Max => ("the greatest", "the input's unit", waits),
            Self::Slope => ("change a minute of the line that fits at least three readings", "its unit `/min`", waits),
            Self::TimeAbove => (
                "time for which the value was at or above a limit, or a flag on",
                "`s`",
                "`over`, `limit`; `least`, none by default",
            ),
            Self::Difference => ("one input or earlier window less another, now", "the input's unit", "`minus`"),
        }
    }

    /// Whether a value holds until the next: the others know only the moments of readings.
    const fn holds(self) -> bool {
        matches!(self, Self::Mean | Self::Min | Self::Max | Self::TimeAbove)
    }
}

/// What a difference is made of: an input, or a window declared before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operand {
    Role(u8),
    Window(u8),
}

/// A kept change: from `at` on the value is this one; unknown when it is not a number.
#[derive(Clone, Copy, Debug)]
struct Step {
    at: Mono,
    value: f64,
}

/// How a window's value moves by itself while nothing is heard.
#[derive(Clone, Copy, Debug, Default)]
struct Motion {
    value: Option<f64>,
    per_s: f64,
    /// When it begins to move otherwise.
    until: Option<Mono>,
    /// When it begins or ceases to be known.
    turns: Option<Mono>,
    /// All that it can become by time alone lies between these.
    low: f64,
    high: f64,
}

impl Motion {
    fn still(value: Option<f64>) -> Self {
        let at = value.unwrap_or_default();
        Self { value, per_s: 0.0, until: None, turns: None, low: at, high: at }
    }
}

/// One window of one rule instance.
pub(crate) struct Sliding {
    pub measure: Measure,
    /// The input it watches; of a difference what is diminished and by what.
    pub of: Operand,
    pub less: Operand,
    pub over: Duration,
    /// Time that must be known within the window before it says anything.
    pub least: Duration,
    /// What counts and times compare with.
    pub threshold: f64,
    pub track: Track,
    /// Whether it had a value when the script was called.
    pub judged_known: bool,
    steps: VecDeque<Step>,
    /// When it heard last.
    heard: Mono,
    /// Whether the last value was on, for counts.
    on: Option<bool>,
    motion: Motion,
}

impl Sliding {
    pub fn new(measure: Measure, of: Operand, over: Duration) -> Self {
        Self {
            measure,
            of,
            less: of,
            over,
            least: Duration::ZERO,
            threshold: 0.5,
            track: Track::default(),
            judged_known: false,
            steps: VecDeque::new(),
            heard: Mono::default(),
            on: None,
            motion: Motion::default(),
        }
    }

    /// Whether both keep the same of what they hear.
    fn hears_as(&self, other: &Self) -> bool {
        (self.measure, self.of, self.over, self.threshold) == (other.measure, other.of, other.over, other.threshold)
    }

    /// As of the last look; `None` while too little is known.
    pub fn value(&self) -> Option<f64> {
        self.motion.value
    }

    /// Whether the rule's answer stays, as far as it rests on this window.
    pub fn holds(&self) -> bool {
        let Track { low, high, read, used } = self.track;
        let same = self.motion.value.is_some() == self.judged_known;
        !used || (same && self.motion.value.is_none_or(|value| !read && low <= value && value < high))
    }

    /// Hears a value, or that there is none. `at` may lie before the last: then it counts as simultaneous with it.
    pub fn hear(&mut self, at: Mono, value: Option<f64>) {
        let last = self.steps.back().copied();
        let at = at.max(self.heard);
        self.heard = at;
        let value = match (self.measure, value) {
            (Measure::Difference, _) | (Measure::Slope | Measure::Sum | Measure::Count, None) => return,
            (Measure::Sum, Some(0.0)) => return,
            (Measure::Count, Some(value)) => {
                let on = value >= self.threshold;
                // What was on when it was first heard did not come on before our eyes.
                if !on || self.on.replace(on) != Some(false) {
                    self.on = Some(on);
                    return;
                }
                1.0
            }
            (Measure::TimeAbove, Some(value)) => f64::from(u8::from(value >= self.threshold)),
            (_, value) => value.unwrap_or(f64::NAN),
        };
        let same = |last: Step| last.value == value || (last.value.is_nan() && value.is_nan());
        if self.measure.holds() && last.is_some_and(same) {
            return;
        }
        self.steps.push_back(Step { at, value });
        if self.measure == Measure::Slope {
            self.forget(at);
        }
        if self.steps.len() > MAX_STEPS {
            self.forget(at);
            if self.steps.len() > MAX_STEPS {
                self.thin();
            }
        }
    }

    /// Puts what `past`, of the same making, has heard before what was heard since.
    fn prepend(&mut self, past: Self) {
        let since = std::mem::replace(&mut self.steps, past.steps);
        self.steps.extend(since);
        self.heard = self.heard.max(past.heard);
        self.on = self.on.or(past.on);
        if let Some(&Step { at, .. }) = self.steps.back() {
            self.forget(at);
        }
        if self.steps.len() > MAX_STEPS {
            self.thin();
        }
    }

    /// Drops what lies wholly before the window.
    fn forget(&mut self, now: Mono) {
        if self.measure.holds() {
            while self.steps.get(1).is_some_and(|next| next.at.plus(self.over) <= now) {
                self.steps.pop_front();
            }
        } else {
            while self.steps.front().is_some_and(|step| step.at.plus(self.over) <= now) {
                self.steps.pop_front();
            }
        }
    }

    /// Takes together what lies close together.
    fn thin(&mut self) {
        // By the cells of a fixed grid, so that what was taken together once does not spread when it is done again.
        let cell = (self.over.as_nanos() as u64 / (MAX_STEPS as u64 / 2)).max(1);
        let old = std::mem::take(&mut self.steps);
        let Some(&end) = old.back() else { return };
        // The last stays as it is: how long it will hold is not known yet.
        let mut at = 0;
        while at + 1 < old.len() {
            let first = old[at];
            let mut next = at + 1;
            while next + 1 < old.len() && old[next].at.nanos() / cell == first.at.nanos() / cell {
                next += 1;
            }
            let group = || old.range(at..next);
            let known = || group().map(|step| step.value).filter(|value| !value.is_nan());
            let step = match self.measure {
                Measure::Sum | Measure::Count => Step { at: old[next - 1].at, value: known().sum() },
                Measure::Max => Step { value: known().fold(f64::NAN, f64::max), ..first },
                Measure::Min => Step { value: known().fold(f64::NAN, f64::min), ..first },
                Measure::Mean | Measure::TimeAbove => {
                    let (mut integral, mut time) = (0.0, 0.0);
                    for n in at..next {
                        if !old[n].value.is_nan() {
                            let length = seconds(old[n].at, old[n + 1].at);
                            integral += old[n].value * length;
                            time += length;
                        }
                    }
                    let value = if time > 0.0 { integral / time } else { old[next - 1].value };
                    Step { value, ..first }
                }
                Measure::Slope | Measure::Difference => {
                    let count = (next - at) as f64;
                    let after = group().map(|step| seconds(first.at, step.at)).sum::<f64>() / count;
                    Step { at: first.at.plus(Duration::from_secs_f64(after)), value: known().sum::<f64>() / count }
                }
            };
            self.steps.push_back(step);
            at = next;
        }
        self.steps.push_back(end);
    }

    /// Finds the value at this moment and how it will move. Inputs and windows before this one are known to `of`.
    fn look(&mut self, now: Mono, of: impl Fn(Operand) -> Motion) {
        self.motion = match self.measure {
            Measure::Sum | Measure::Count => {
                self.forget(now);
                let (mut value, mut low, mut high) = (0.0, 0.0_f64, 0.0_f64);
                for step in &self.steps {
                    value += step.value;
                    low += step.value.min(0.0);
                    high += step.value.max(0.0);
                }
                let until = self.steps.front().map(|step| step.at.plus(self.over));
                Motion { value: Some(value), per_s: 0.0, until, turns: None, low, high }
            }
            // Nothing but a reading changes it: a slope does not grow gentle because nobody says anything.
            Measure::Slope => self.slope(),
            Measure::Mean | Measure::TimeAbove | Measure::Min | Measure::Max => {
                self.forget(now);
                self.stairs(now)
            }
            Measure::Difference => {
                let (a, b) = (of(self.of), of(self.less));
                let earlier = |a: Option<Mono>, b: Option<Mono>| [a, b].into_iter().flatten().min();
                Motion {
                    value: a.value.zip(b.value).map(|(a, b)| a - b),
                    per_s: a.per_s - b.per_s,
                    until: earlier(a.until, b.until),
                    turns: earlier(a.turns, b.turns),
                    low: a.low - b.high,
                    high: a.high - b.low,
                }
            }
        };
    }

    fn slope(&self) -> Motion {
        let nothing = Motion::still(None);
        let (Some(first), Some(last)) = (self.steps.front(), self.steps.back()) else { return nothing };
        if self.steps.len() < 3 || last.at.since(first.at) < self.least {
            return nothing;
        }
        // Around the first reading, so that no large numbers cancel each other.
        let minutes = |step: &Step| seconds(first.at, step.at) / 60.0;
        let count = self.steps.len() as f64;
        let (mut t, mut v) = (0.0, 0.0);
        for step in &self.steps {
            t += minutes(step);
            v += step.value - first.value;
        }
        let (t, v) = (t / count, v / count);
        let (mut tt, mut tv) = (0.0, 0.0);
        for step in &self.steps {
            let along = minutes(step) - t;
            tt += along * along;
            tv += along * (step.value - first.value - v);
        }
        Motion::still((tt > 0.0).then(|| tv / tt))
    }

    fn stairs(&self, now: Mono) -> Motion {
        let start =
            Mono::from_nanos(now.nanos().saturating_sub(u64::try_from(self.over.as_nanos()).unwrap_or(u64::MAX)));
        let (mut integral, mut known, mut least, mut most) = (0.0, 0.0, f64::INFINITY, f64::NEG_INFINITY);
        let mut end = now;
        for step in self.steps.iter().rev() {
            if !step.value.is_nan() {
                let length = seconds(step.at.max(start), end);
                integral += step.value * length;
                known += length;
                least = if step.value < least { step.value } else { least };
                most = if step.value > most { step.value } else { most };
            }
            end = step.at;
        }
        let is_known = |step: Option<&Step>| step.is_some_and(|step| !step.value.is_nan());
        let (front, back) = (self.steps.front(), self.steps.back());
        // What enters at the near edge of the window, and what leaves at the far one.
        let (enters, leaves) = (is_known(back), is_known(front) && front.is_some_and(|step| step.at <= start));
        let gain = f64::from(u8::from(enters)) - f64::from(u8::from(leaves));
        let change = back.filter(|_| enters).map_or(0.0, |step| step.value)
            - front.filter(|_| leaves).map_or(0.0, |step| step.value);
        let enough = known >= self.least.as_secs_f64() && (enters || known > 0.0);
        let (value, per_s) = match self.measure {
            Measure::TimeAbove => (integral, change),
            Measure::Min => (least, 0.0),
            Measure::Max => (most, 0.0),
            // At the very moment of the first reading no time has passed yet.
            _ if known == 0.0 => (back.map_or(f64::NAN, |step| step.value), 0.0),
            _ => (integral / known, (change - integral / known * gain) / known),
        };
        // The far edge meets the next change: the end of the front stair, or its beginning while the window fills.
        let edge = match front.filter(|front| front.at > start) {
            Some(front) => Some(front.at.plus(self.over)),
            None => self.steps.get(1).map(|next| next.at.plus(self.over)),
        };
        let missing = self.least.as_secs_f64() - known;
        let ripe =
            (missing > 0.0 && gain > 0.0 || missing < 0.0 && gain < 0.0).then(|| later(now, (missing / gain).max(0.0)));
        // While it fills a mean moves along a curve and not along a line.
        let bend = (self.measure == Measure::Mean && enough && gain != 0.0).then(|| now.plus(self.over / 64));
        // What will enter by time alone is the last value again.
        let last = back.filter(|_| enters).map_or(f64::NAN, |step| step.value);
        let (low, high) = match self.measure {
            Measure::TimeAbove if last > 0.0 => (0.0, self.over.as_secs_f64()),
            Measure::TimeAbove => (0.0, value),
            Measure::Min => (value, value.max(most)),
            Measure::Max => (value.min(least), value),
            _ => (least, most),
        };
        Motion {
            value: Some(value).filter(|value| enough && value.is_finite()),
            per_s,
            until: [edge, bend].into_iter().flatten().min(),
            // While the last is known what is known does not grow less.
            turns: [ripe, edge].into_iter().flatten().min().filter(|_| !(enters && enough)),
            low,
            high,
        }
    }

    /// When to look again: at the next time at which the rule's answer may change by time alone.
    fn due(&self, now: Mono) -> Option<Mono> {
        let Track { low, high, read, used } = self.track;
        let Motion { value, per_s, until, turns, .. } = self.motion;
        let Some(value) = value.filter(|_| used) else { return turns.filter(|_| used) };
        if !read && low <= self.motion.low && self.motion.high < high {
            return turns;
        }
        let wall = if per_s > 0.0 { high } else { low };
        let crossing = Some((wall - value) / per_s)
            .filter(|seconds| !read && per_s != 0.0 && (0.0..1e9).contains(seconds))
            .map(|seconds| later(now, seconds));
        [until, turns, crossing].into_iter().flatten().min()
    }
}

/// From one moment to another; nothing when the second is the earlier.
fn seconds(from: Mono, to: Mono) -> f64 {
    to.nanos().saturating_sub(from.nanos()) as f64 * 1e-9
}

/// The first whole millisecond after so many seconds: by then a line has crossed, whatever was rounded.
fn later(now: Mono, seconds: f64) -> Mono {
    now.plus(Duration::from_millis((seconds * 1000.0).min(1e12) as u64 + 1))
}

/// All windows of one rule instance.
#[derive(Default)]
pub(crate) struct Windows {
    all: Vec<Sliding>,
    /// What each input says now.
    heard: Vec<Option<f64>>,
    /// The earliest time at which somebody has been asked to wake us.
    pub wake: Option<Mono>,
    /// A time that the script has named.
    pub named: Option<Mono>,
    /// An alarm stands from before the restart, and what it rests on will be known in full only then.
    full: Option<Mono>,
    asked: bool,
    /// The past has been put before what was heard in this run, once and for all.
    refilled: bool,
}

impl Windows {
    pub fn new(all: Vec<Sliding>, roles: usize) -> Self {
        Self { all, heard: vec![None; roles], ..Self::default() }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Sliding> {
        self.all.iter()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Sliding> {
        self.all.iter_mut()
    }

    /// An input is known to say this before anybody has heard it: what holds, holds from now on; what counts and sums are made
    /// of is only heard.
    pub fn begin(&mut self, role: u8, now: Mono, now_is: Option<f64>) {
        let holding = |window: &&mut Sliding| window.measure.holds() || window.measure == Measure::Count;
        for window in self.all.iter_mut().filter(|window| window.of == Operand::Role(role)).filter(holding) {
            if now_is.is_some() {
                window.hear(now, now_is);
            }
        }
        self.heard[usize::from(role)] = now_is;
    }

    /// What windows of the same inputs have heard goes over to those that are the same.
    pub fn take_over(&mut self, old: Self) {
        (self.full, self.asked, self.refilled) = (old.full, old.asked, old.refilled);
        let mut old = old.all;
        for window in &mut self.all {
            if let Some(at) = old.iter().position(|before| before.hears_as(window)) {
                let before = old.swap_remove(at);
                (window.steps, window.heard, window.on) = (before.steps, before.heard, before.on);
            } else if window.measure != Measure::Difference {
                // What it has not heard is not known yet, so that it ends nothing.
                self.asked = false;
            }
        }
    }

    /// Whether some window watches the input.
    pub fn watch(&self, role: u8) -> bool {
        self.all.iter().any(|window| {
            let is_it = |operand| operand == Operand::Role(role);
            is_it(window.of) || (window.measure == Measure::Difference && is_it(window.less))
        })
    }

    /// An input has spoken: `own` is what it said, `now_is` what the input as a whole is now, which differs where it
    /// stands for several points. `doubtful` values are added to sums, and elsewhere leave things as they are.
    pub fn hear(&mut self, role: u8, at: Mono, own: Option<f64>, now_is: Option<f64>, doubtful: bool) {
        for window in self.all.iter_mut().filter(|window| window.of == Operand::Role(role)) {
            match window.measure {
                Measure::Sum => window.hear(at, own),
                _ if doubtful => {}
                _ => window.hear(at, now_is),
            }
        }
        self.heard[usize::from(role)] = now_is;
    }

    /// The time from now back that some window knows of; nothing where there is no window.
    pub fn longest(&self) -> Duration {
        self.all.iter().map(|window| window.over).max().unwrap_or_default()
    }

    /// Takes up what `past`, of the same making, has heard before this run; only once. `whole` is whether it knows all of
    /// the time that the windows are about: then an alarm from before the restart need not wait until they are full.
    pub fn prepend(&mut self, past: Self, whole: bool) -> bool {
        if std::mem::replace(&mut self.refilled, true) {
            return false;
        }
        for (window, past) in self.all.iter_mut().zip(past.all) {
            window.prepend(past);
        }
        if whole {
            (self.asked, self.full) = (true, None);
        }
        true
    }

    pub fn is_refilled(&self) -> bool {
        self.refilled
    }

    /// Brings every window to this moment. Returns whether the rule's answer stays.
    pub fn look(&mut self, now: Mono) -> bool {
        for n in 0..self.all.len() {
            let (before, rest) = self.all.split_at_mut(n);
            let heard = &self.heard;
            rest[0].look(now, |operand| match operand {
                Operand::Window(at) => before.get(usize::from(at)).map(|window| window.motion).unwrap_or_default(),
                Operand::Role(role) => Motion::still(heard[usize::from(role)]),
            });
        }
        let is_ahead = |at: Option<Mono>| at.is_none_or(|at| now < at);
        is_ahead(self.named) && is_ahead(self.full) && self.all.iter().all(Sliding::holds)
    }

    pub fn due(&self, now: Mono) -> Option<Mono> {
        self.all.iter().filter_map(|window| window.due(now)).chain(self.named).chain(self.full).min()
    }

    /// The rule's answer may rest on nothing but empty windows: it says that something is wrong, never that it is over.
    /// `stands` is whether the alarm does: when that is so at the first time of asking, it is older than the windows.
    pub fn is_doubtful(&mut self, now: Mono, stands: bool) -> bool {
        if !std::mem::replace(&mut self.asked, true) && stands && !self.all.is_empty() {
            self.full = Some(now.plus(self.longest()));
        }
        self.full = self.full.filter(|full| now < *full);
        self.full.is_some() || self.all.iter().any(|window| window.track.used && window.value().is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SplitMix64: good enough to tell stories.
    struct Chance(u64);

    impl Chance {
        fn below(&mut self, end: u64) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z ^ (z >> 31)) % end
        }
    }

    /// Milliseconds after a start that is not zero.
    fn at(millis: u64) -> Mono {
        Mono::from_nanos(1).plus(Duration::from_millis(1_000_000 + millis))
    }

    /// All that was ever heard, in milliseconds, and the definitions in their plainest form.
    #[derive(Default)]
    struct Naive(Vec<(u64, Option<f64>)>);

    impl Naive {
        /// Length in seconds and value of each stair within `(now - over, now]`, unknown ones left out.
        fn stairs(&self, now: u64, over: u64) -> Vec<(f64, f64)> {
            let ends = self.0.iter().skip(1).map(|(at, _)| *at).chain([now]);
            let stairs = self.0.iter().zip(ends).filter(|(_, end)| *end + over > now);
            stairs
                .filter_map(|((start, value), end)| {
                    let start = (*start).max(now.saturating_sub(over));
                    value.map(|value| (end.saturating_sub(start) as f64 / 1000.0, value))
                })
                .collect()
        }

        /// Time in minutes and value of each reading within.
        fn readings(&self, now: u64, over: u64) -> Vec<(f64, f64)> {
            let within = self.0.iter().filter(|(at, _)| *at + over > now);
            within.filter_map(|(at, value)| value.map(|value| (*at as f64 / 60_000.0, value))).collect()
        }

        fn value(&self, measure: Measure, now: u64, over: u64, least: u64, threshold: f64) -> Option<f64> {
            let (stairs, readings) = (self.stairs(now, over), self.readings(now, over));
            let known: f64 = stairs.iter().map(|(length, _)| length).sum();
            // What was taken back in the same moment was never known.
            let something = known > 0.0 || self.0.last().is_some_and(|(_, value)| value.is_some());
            let enough = something && known >= least as f64 / 1000.0 - 1e-9;
            let most = |better: fn(f64, f64) -> f64| stairs.iter().map(|(_, value)| *value).reduce(better);
            let area =
                |of: &dyn Fn(f64) -> f64| -> f64 { stairs.iter().map(|(length, value)| length * of(*value)).sum() };
            match measure {
                Measure::Sum => Some(readings.iter().map(|(_, value)| value).sum()),
                Measure::Count => {
                    let said: Vec<(u64, bool)> =
                        self.0.iter().filter_map(|(at, value)| value.map(|value| (*at, value >= threshold))).collect();
                    let rises = said.windows(2).filter(|two| !two[0].1 && two[1].1 && two[1].0 + over > now);
                    Some(rises.count() as f64)
                }
                Measure::Min => most(f64::min).filter(|_| enough),
                Measure::Max => most(f64::max).filter(|_| enough),
                Measure::TimeAbove => enough.then(|| area(&|value| f64::from(u8::from(value >= threshold)))),
                Measure::Mean if known == 0.0 => stairs.last().map(|(_, value)| *value).filter(|_| enough),
                Measure::Mean => enough.then(|| area(&|value| value) / known),
                Measure::Slope => {
                    // Up to the last reading, whenever that was.
                    let last = self.0.iter().rev().find(|(_, value)| value.is_some())?.0;
                    let readings = self.readings(last, over);
                    let count = readings.len() as f64;
                    let span = readings.last()?.0 - readings.first()?.0;
                    let t = readings.iter().map(|(t, _)| t).sum::<f64>() / count;
                    let v = readings.iter().map(|(_, v)| v).sum::<f64>() / count;
                    let tt: f64 = readings.iter().map(|(a, _)| (a - t) * (a - t)).sum();
                    let tv: f64 = readings.iter().map(|(a, b)| (a - t) * (b - v)).sum();
                    let enough = readings.len() >= 3 && span >= least as f64 / 60_000.0 - 1e-12 && span > 0.0;
                    enough.then(|| tv / tt)
                }
                Measure::Difference => unreachable!("made of others"),
            }
        }
    }

    const MEASURES: [Measure; 7] =
        [Measure::Sum, Measure::Count, Measure::Mean, Measure::Min, Measure::Max, Measure::Slope, Measure::TimeAbove];

    fn close(a: Option<f64>, b: Option<f64>) -> bool {
        match (a, b) {
            (Some(a), Some(b)) => (a - b).abs() <= 1e-6 * (1.0 + a.abs().max(b.abs())),
            (a, b) => a == b,
        }
    }

    /// Goal: every window is what its definition says, at readings and between them, and nobody need ask before the time
    /// that it names. Method: random stories of irregular readings, with bad ones and late ones, beside the naive
    /// computation from everything that was heard.
    #[test]
    fn a_window_is_what_its_definition_says() {
        let mut looked = 0;
        for seed in 0..120 {
            let chance = &mut Chance(seed);
            let (over, least) = (20_000 + chance.below(100_000), [0, 10_000, 20_000][chance.below(3) as usize]);
            let mut all: Vec<Sliding> = Vec::new();
            for measure in MEASURES {
                let mut window = Sliding::new(measure, Operand::Role(0), Duration::from_millis(over));
                if !matches!(measure, Measure::Sum | Measure::Count) {
                    window.least = Duration::from_millis(least);
                }
                window.threshold = 5.0;
                window.track = Track { low: 3.0, high: 6.0, read: false, used: true };
                all.push(window);
            }
            let mut windows = Windows::new(all, 1);
            let (mut naive, mut now) = (Naive::default(), chance.below(5_000));
            for _ in 0..200 {
                let value = match chance.below(12) {
                    0 => None,
                    1..4 => Some(5.0),
                    _ => Some(chance.below(100) as f64 / 10.0),
                };
                // A late one was received before what has been heard since, and is taken as of the last.
                let heard = if chance.below(10) == 0 { now.saturating_sub(chance.below(3_000)) } else { now };
                naive.0.push((heard.max(naive.0.last().map_or(0, |(at, _)| *at)), value));
                windows.hear(0, at(heard), value, value, false);
                let next =
                    now + [0, 1, 700, 3_000, 3_000, 9_000, 60_000][chance.below(7) as usize] * (1 + chance.below(3));
                loop {
                    windows.look(at(now));
                    for window in windows.iter() {
                        let wanted = naive.value(window.measure, now, over, window.least.as_millis() as u64, 5.0);
                        let found = window.value();
                        assert!(
                            close(found, wanted),
                            "seed {seed} at {now}: {:?} is {found:?}, wanted {wanted:?}",
                            window.measure
                        );
                        looked += 1;
                    }
                    if now >= next {
                        break;
                    }
                    // Until the time that a window names, what was within its range stays within.
                    let later = (now + 1 + chance.below(next - now)).min(next);
                    for window in windows.iter().filter(|window| {
                        naive.0.last().is_some_and(|(_, value)| value.is_some()) || window.measure != Measure::Mean
                    }) {
                        let inside = |value: Option<f64>| value.map(|value| (3.0..6.0).contains(&value));
                        let then = naive.value(window.measure, later, over, window.least.as_millis() as u64, 5.0);
                        let moved = inside(window.value()) != inside(then);
                        let near = then.is_some_and(|value| (value - 3.0).abs() < 1e-6 || (value - 6.0).abs() < 1e-6);
                        let due = window.due(at(now));
                        if moved && !near && window.value().is_none_or(|value| (3.0..6.0).contains(&value)) {
                            assert!(
                                due.is_some_and(|due| due <= at(later + 1)),
                                "seed {seed} at {now}: {:?} is {then:?} at {later}, but asks for {due:?}",
                                window.measure
                            );
                        }
                    }
                    now = later;
                }
            }
        }
        assert!(looked > 200_000, "only {looked} values were compared");
    }

    /// Goal: a window that is told its past later knows what one knows that heard it all. Method: both hear the same random
    /// story, one of them from the middle on and then what came before.
    #[test]
    fn a_past_that_comes_later_counts_as_if_it_had_been_heard() {
        for measure in MEASURES {
            for seed in 0..40 {
                let chance = &mut Chance(seed);
                let make = || {
                    let mut window = Sliding::new(measure, Operand::Role(0), Duration::from_millis(60_000));
                    window.threshold = 5.0;
                    window
                };
                let (mut whole, mut past, mut late) = (make(), make(), make());
                let (mut now, middle) = (0, 30 + chance.below(30));
                for n in 0..80 {
                    now += chance.below(2_500);
                    // That something came on in the very moment between is seen by nobody.
                    let value = match chance.below(8) {
                        0 if n != middle => None,
                        _ if n == middle => Some(0.0),
                        _ => Some(chance.below(100) as f64 / 10.0),
                    };
                    whole.hear(at(now), value);
                    if n < middle { past.hear(at(now), value) } else { late.hear(at(now), value) }
                }
                late.prepend(past);
                for later in [now, now + 7_000, now + 59_000] {
                    let [a, b] = [&mut whole, &mut late].map(|window| {
                        window.look(at(later), |_| Motion::still(None));
                        window.value()
                    });
                    let near = a.zip(b).map_or(a == b, |(a, b)| (a - b).abs() < 1e-9);
                    assert!(near, "{measure:?}, seed {seed}, at {later}: {a:?} heard, {b:?} told later");
                }
            }
        }
    }

    #[test]
    fn a_flood_of_readings_is_bounded_and_errs_to_the_full_side() {
        assert!(size_of::<Step>() <= 64);
        for measure in MEASURES {
            let chance = &mut Chance(measure as u64);
            let (over, near) = (3_600_000_u64, 3_600_000 / 128 + 1);
            let mut window = Sliding::new(measure, Operand::Role(0), Duration::from_millis(over));
            window.threshold = 5.0;
            let mut naive = Naive::default();
            for now in (0..2 * over).step_by(900) {
                let value = Some(chance.below(100) as f64 / 10.0 + (now as f64 / over as f64));
                window.hear(at(now), value);
                naive.0.push((now, value));
                assert!(window.steps.len() <= MAX_STEPS + 1, "{measure:?} keeps {}", window.steps.len());
                if now % 97_200 == 0 && now > over {
                    window.look(at(now), |_| Motion::still(None));
                    let exactly = |over| naive.value(measure, now, over, 0, 5.0).expect("much is known");
                    let (inner, outer) = (exactly(over), exactly(over + near));
                    let found = window.value().expect("much is known");
                    let holds = match measure {
                        Measure::Sum | Measure::Count | Measure::Max => inner - 1e-6 <= found && found <= outer + 1e-6,
                        Measure::Min => outer - 1e-6 <= found && found <= inner + 1e-6,
                        Measure::Mean => (found - inner).abs() < 0.05,
                        Measure::TimeAbove => (found - inner).abs() < near as f64 / 1000.0,
                        // Per minute, of a slope of one an hour under noise ten times as high.
                        _ => (found - 1.0 / 60.0).abs() < 0.02,
                    };
                    assert!(holds, "{measure:?} at {now}: {found}, exactly {inner}, a little wider {outer}");
                }
            }
        }
    }

    #[test]
    fn a_difference_follows_what_it_is_made_of() {
        let seconds = Duration::from_secs;
        let mut baseline = Sliding::new(Measure::Mean, Operand::Role(0), seconds(100));
        baseline.least = seconds(10);
        let mut rise = Sliding::new(Measure::Difference, Operand::Role(0), Duration::ZERO);
        rise.less = Operand::Window(0);
        rise.track = Track { low: f64::NEG_INFINITY, high: 20.0, read: false, used: true };
        rise.judged_known = true;
        let mut between = Sliding::new(Measure::Difference, Operand::Role(0), Duration::ZERO);
        between.less = Operand::Role(1);
        let mut windows = Windows::new(vec![baseline, rise, between], 2);
        let values = |windows: &Windows| windows.iter().map(Sliding::value).collect::<Vec<_>>();
        windows.hear(0, at(0), Some(50.0), Some(50.0), false);
        windows.look(at(0));
        assert_eq!(values(&windows), [None, None, None], "nothing is known long enough, the other has not spoken");
        windows.look(at(10_000));
        assert_eq!(values(&windows)[..2], [Some(50.0), Some(0.0)]);
        windows.hear(1, at(10_000), Some(20.0), Some(20.0), false);
        windows.hear(0, at(50_000), Some(100.0), Some(100.0), false);
        assert!(!windows.look(at(50_000)), "fifty above what it was used to");
        assert_eq!(values(&windows), [Some(50.0), Some(50.0), Some(80.0)]);
        // Ten seconds of a hundred at the new value after each ten: the difference falls by itself, and says when.
        let mut now = at(50_000);
        windows.all[1].track = Track { low: 20.0, high: f64::INFINITY, read: false, used: true };
        let mut asked = 0;
        while windows.look(now) {
            now = windows.due(now).expect("it falls");
            asked += 1;
            assert!(asked < 200, "it would be asked for ever");
        }
        let fallen = now.since(at(0)).as_secs_f64();
        assert!((110.0..110.01).contains(&fallen), "the mean is 80 when 40 of 100 seconds are old, not at {fallen}");
        windows.hear(1, now, None, None, false);
        windows.look(now);
        assert_eq!(values(&windows)[2], None, "a difference from nothing is nothing");
    }
}
