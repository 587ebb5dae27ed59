//! What a quantity does over time, and what a sensor makes of it: response, dead time, noise, drift, steps of its
//! resolution, lost messages, an end.
//!
//! Plain arithmetic and the dice of `anmin sim`, no library of curves: the same seed gives the same readings on every
//! machine, in whichever profile.

use anmin::sim::scenario::mix;
use anmin_sensors::point::{Form, Kind};
use anmin_sensors::reading::{Fault, Value};

pub const MINUTE: f64 = 60.0;
pub const HOUR: f64 = 3_600.0;
pub const DAY: f64 = 86_400.0;

/// Chance that can be repeated.
#[derive(Clone, Debug)]
pub struct Dice {
    seed: u64,
    step: u64,
}

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self { seed, step: 0 }
    }

    fn next(&mut self) -> u64 {
        self.step += 1;
        mix(self.seed, self.step)
    }

    /// From 0 to 1.
    pub fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub fn from(&mut self, least: f64, most: f64) -> f64 {
        least + (most - least) * self.share()
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[(self.next() % of.len() as u64) as usize]
    }

    /// True in so many of a hundred throws.
    pub fn percent(&mut self, chance: f64) -> bool {
        self.share() * 100.0 < chance
    }

    /// How often something happens within a time, when it happens `mean` times on average: a whole number around it.
    pub fn times(&mut self, mean: f64) -> usize {
        (mean + self.from(-0.5, 0.5)).round().max(0.0) as usize
    }

    /// Bell-shaped, of deviation 1, never beyond 3.
    fn noise(&mut self) -> f64 {
        (0..3).map(|_| self.from(-1.0, 1.0)).sum()
    }
}

/// Something that comes and goes: straight up within `rise`, there for `hold`, straight down within `fall`. Seconds.
#[derive(Clone, Copy, Debug)]
pub struct Bump {
    pub at: f64,
    pub rise: f64,
    pub hold: f64,
    pub fall: f64,
    pub height: f64,
}

impl Bump {
    fn length(&self) -> f64 {
        self.rise + self.hold + self.fall
    }

    fn value(&self, t: f64) -> f64 {
        let since = t - self.at;
        let left = self.length() - since;
        if since < 0.0 || left <= 0.0 {
            return 0.0;
        }
        let up = if self.rise > 0.0 { (since / self.rise).min(1.0) } else { 1.0 };
        let down = if self.fall > 0.0 { (left / self.fall).min(1.0) } else { 1.0 };
        self.height * up.min(down)
    }
}

/// A quantity where the sensor is: straight lines from knot to knot, and what comes and goes on top of them.
#[derive(Clone, Debug, Default)]
pub struct Curve {
    knots: Vec<(f64, f64)>,
    /// By when they begin; none lasts longer than `longest`.
    bumps: Vec<Bump>,
    longest: f64,
}

impl Curve {
    /// The same from the beginning.
    pub fn still(value: f64) -> Self {
        Self { knots: vec![(0.0, value)], ..Self::default() }
    }

    fn last(&self) -> (f64, f64) {
        self.knots.last().copied().unwrap_or_default()
    }

    /// Stays as it is until then.
    pub fn until(mut self, t: f64) -> Self {
        self.knots.push((t, self.last().1));
        self
    }

    /// In a straight line to `value` at `t`.
    pub fn to(mut self, t: f64, value: f64) -> Self {
        self.knots.push((t, value));
        self
    }

    /// To `value` at `t`, ever faster, as a fire grows: with the square of the time.
    pub fn growing_to(mut self, t: f64, value: f64) -> Self {
        let (began, from) = self.last();
        for n in 1..=16 {
            let share = f64::from(n) / 16.0;
            self.knots.push((began + (t - began) * share, from + (value - from) * share * share));
        }
        self
    }

    /// To `value` at `t`, ever slower, as heat and gas in a room come to rest.
    pub fn settling_to(mut self, t: f64, value: f64) -> Self {
        let (began, from) = self.last();
        for n in 1..=16 {
            let share = f64::from(n) / 16.0;
            let left = (1.0 - share) * (1.0 - share);
            self.knots.push((began + (t - began) * share, value + (from - value) * left));
        }
        self
    }

    pub fn with(mut self, bump: Bump) -> Self {
        self.longest = self.longest.max(bump.length());
        self.bumps.insert(self.bumps.partition_point(|other| other.at <= bump.at), bump);
        self
    }

    pub fn value(&self, t: f64) -> f64 {
        let next = self.knots.partition_point(|(at, _)| *at <= t);
        let base = match (next.checked_sub(1).map(|last| self.knots[last]), self.knots.get(next)) {
            (Some((a, from)), Some((b, to))) => from + (to - from) * (t - a) / (b - a),
            (Some((_, value)), None) | (None, Some(&(_, value))) => value,
            (None, None) => 0.0,
        };
        let begun = &self.bumps[..self.bumps.partition_point(|bump| bump.at <= t)];
        let late = begun.iter().rev().take_while(|bump| bump.at >= t - self.longest);
        base + late.map(|bump| bump.value(t)).sum::<f64>()
    }
}

/// How a sensor ends.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// It says nothing any more.
    Silent,
    /// It says the same for ever.
    Flat(f64),
    /// It leaps between the ends of its range, and falls silent now and then.
    Wild,
}

/// What a sensor makes of a quantity, and how it speaks.
#[derive(Clone, Debug)]
pub struct Sensor {
    pub kind: Kind,
    pub curve: Curve,
    /// Time between two readings, give or take a tenth.
    pub interval: f64,
    /// Time in which it follows two thirds of a step.
    pub lag: f64,
    /// What it sees is so old.
    pub dead_time: f64,
    /// Deviation of a reading.
    pub noise: f64,
    /// Deviation of the quantity itself, as a share of it: smoke and steam come in clouds.
    pub clouds: f64,
    /// The least step that it can tell.
    pub step: f64,
    /// Messages in a hundred that do not arrive.
    pub lost: f64,
    /// How far its zero wanders a day.
    pub drift_a_day: f64,
    /// The ends of what it can show.
    pub range: (f64, f64),
    /// A contact closes here. It speaks when it changes, and each hour.
    pub closes_at: f64,
    /// A tipping bucket speaks of what fell since its last reading.
    pub counts_up: bool,
    pub end: Option<(f64, End)>,
}

/// A sensor as it goes through its story.
#[derive(Debug)]
pub struct Speaker {
    sensor: Sensor,
    dice: Dice,
    /// When it measures next.
    pub due: f64,
    before: f64,
    follows: Option<f64>,
    /// What it counted up to, and what a contact said when.
    counted: f64,
    said: Option<(f64, bool)>,
}

impl Speaker {
    pub fn new(sensor: Sensor, mut dice: Dice) -> Self {
        let due = dice.from(0.0, sensor.interval);
        Self { sensor, dice, due, before: 0.0, follows: None, counted: 0.0, said: None }
    }

    /// Measures, and sets when it does so next. `None` when nothing arrives.
    pub fn measure(&mut self) -> Option<Result<Value, Fault>> {
        let (sensor, dice, t) = (&self.sensor, &mut self.dice, self.due);
        self.due = t + sensor.interval * dice.from(0.9, 1.1);
        let cloud = (1.0 + sensor.clouds * dice.noise()).max(0.0);
        let there = sensor.curve.value((t - sensor.dead_time).max(0.0)) * cloud;
        let step = t - self.before;
        self.before = t;
        let follows = match self.follows {
            // Steps back in time from where it is to where it was: stays sound however long the interval.
            Some(follows) => follows + (there - follows) * step / (sensor.lag + step).max(f64::MIN_POSITIVE),
            None => there,
        };
        self.follows = Some(follows);
        let mut value = follows + sensor.noise * dice.noise() + sensor.drift_a_day * t / DAY;
        let lost = dice.percent(sensor.lost);
        match sensor.end {
            Some((at, End::Silent)) if t >= at => return None,
            Some((at, End::Flat(stays))) if t >= at => value = stays,
            Some((at, End::Wild)) if t >= at => {
                value = if dice.percent(50.0) { sensor.range.0 } else { sensor.range.1 };
                if dice.percent(20.0) {
                    return None;
                }
            }
            _ => {}
        }
        if sensor.counts_up {
            let tips = ((follows - self.counted) / sensor.step).max(0.0) as u32;
            let fell = f64::from(tips) * sensor.step;
            self.counted += fell;
            return (!lost).then_some(Ok(Value::Number(rounded(fell))));
        }
        if sensor.kind.info().form == Form::Flag {
            let on = value >= sensor.closes_at;
            let quiet = self.said.is_some_and(|(at, said)| said == on && t - at < HOUR);
            if quiet || lost {
                return None;
            }
            self.said = Some((t, on));
            return Some(Ok(Value::Flag(on)));
        }
        let value = (value.clamp(sensor.range.0, sensor.range.1) / sensor.step).round() * sensor.step;
        (!lost).then_some(Ok(Value::Number(rounded(value))))
    }
}

/// As many digits as a message has.
fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_goes_from_knot_to_knot_and_a_bump_comes_and_goes() {
        let curve = Curve::still(2.0).until(10.0).to(20.0, 12.0).with(Bump {
            at: 30.0,
            rise: 2.0,
            hold: 4.0,
            fall: 4.0,
            height: 8.0,
        });
        let seen = [0.0, 10.0, 15.0, 25.0, 31.0, 35.0, 38.0, 40.0].map(|t| curve.value(t));
        assert_eq!(seen, [2.0, 2.0, 7.0, 12.0, 16.0, 20.0, 16.0, 12.0]);
        let fire = Curve::still(20.0).growing_to(16.0, 276.0);
        assert_eq!([4.0, 8.0, 16.0].map(|t| fire.value(t)), [36.0, 84.0, 276.0]);
    }
}
