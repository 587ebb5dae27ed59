//! Plays all variations of a story at once, each in a building of its own of one community, through the validator and the
//! engine with the shipped rules; and hands every value as it came to plain thresholds beside them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use anmin_rules::alarm::{Action, AlarmId, AlarmState, Cause, Class, Command, Transition};
use anmin_rules::engine::{Effect, Engine};
use anmin_rules::library;
use anmin_rules::response::DeskSettings;
use anmin_rules::rule::{Level, RuleSpec};
use anmin_rules::set::RuleSet;
use anmin_sensors::document::Faults;
use anmin_sensors::point::{DeviceId, Form, Place, PointIx, PointSpec, Points};
use anmin_sensors::reading::{Reading, Value};
use anmin_sensors::time::{Mono, Now, Wall};
use anmin_sensors::validator::{Settings, Validator};

use crate::signal::{Dice, HOUR, Speaker};
use crate::stories::{Scene, Story};

/// What plain thresholds know: rules of the library, the direction, and which of their limits. No delay, deadband,
/// window or quality; a contact is believed at once.
const PLAIN: [(&str, Side, &[&str]); 11] = [
    ("gas/leak", Side::Over, &["yellow", "orange", "red"]),
    ("gas/co", Side::Over, &["yellow", "orange", "red"]),
    ("fire/heat", Side::Over, &["yellow", "orange", "red"]),
    ("fire/smoke_density", Side::Over, &["yellow", "orange"]),
    ("fire/smoke", Side::Over, &[]),
    ("power/residual_current", Side::Over, &["yellow", "orange", "red"]),
    ("power/cable_temperature", Side::Over, &["yellow", "orange", "red"]),
    ("power/voltage", Side::Over, &["over", "far_over"]),
    ("power/voltage", Side::Under, &["under", "far_under"]),
    ("flood/level", Side::Over, &["blue", "yellow", "orange", "red"]),
    ("flood/leak", Side::Over, &[]),
];

/// The level of a contact's alarm, which its script says.
const CONTACTS: [(&str, Level); 2] = [("fire/smoke", Level::Orange), ("flood/leak", Level::Yellow)];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Over,
    Under,
}

/// One row of [`PLAIN`] with the library's numbers.
struct Threshold {
    kind: &'static str,
    side: Side,
    limits: Vec<(Level, f64)>,
    /// Seconds that the rule waits to make sure.
    confirm: f64,
}

fn thresholds(rules: &RuleSet) -> Vec<Threshold> {
    let of = |name: &str| -> &RuleSpec {
        rules.rules().map(|(_, spec)| spec).find(|spec| spec.id.as_str() == name).expect("a rule of the library")
    };
    let row = |(rule, side, names): &(&str, Side, &[&str])| {
        let spec = of(rule);
        let limit = |name: &&str| {
            let limit = &spec.limits[*name];
            (limit.level.expect("each of these stands for a level"), limit.value)
        };
        let contact = CONTACTS.iter().filter(|(name, _)| name == rule).map(|(_, level)| (*level, 0.5));
        Threshold {
            kind: spec.inputs[0].kind.as_str(),
            side: *side,
            limits: names.iter().map(limit).chain(contact).collect(),
            confirm: spec.on_delay.as_secs_f64(),
        }
    };
    PLAIN.iter().map(row).collect()
}

impl Threshold {
    fn level(&self, value: f64) -> Option<Level> {
        let broken = |limit: f64| if self.side == Side::Over { value >= limit } else { value < limit };
        self.limits.iter().filter(|(_, limit)| broken(*limit)).map(|(level, _)| *level).max()
    }
}

/// When people were called out, in seconds from the beginning, in one variation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    pub times: Vec<f64>,
}

impl Told {
    /// Before anything was wrong.
    pub fn falsely(&self, hazard: Option<(f64, f64)>) -> usize {
        self.times.iter().filter(|t| hazard.is_none_or(|(begins, _)| **t < begins)).count()
    }

    /// Of the false ones those that came more than half an hour after the one before.
    pub fn occasions(&self, hazard: Option<(f64, f64)>) -> usize {
        let mut last = f64::NEG_INFINITY;
        let falsely = self.times.iter().filter(|t| hazard.is_none_or(|(begins, _)| **t < begins));
        falsely.filter(|t| **t - std::mem::replace(&mut last, **t) > HOUR / 2.0).count()
    }

    /// Seconds from the beginning of the hazard until it was told.
    pub fn delay(&self, hazard: (f64, f64)) -> Option<f64> {
        self.times.iter().find(|t| (hazard.0..=hazard.1).contains(*t)).map(|t| t - hazard.0)
    }
}

/// What became of one variation.
#[derive(Clone, Debug, PartialEq)]
pub struct Ending {
    pub length: f64,
    pub sensors: usize,
    pub hazard: Option<(f64, f64)>,
    pub readings: usize,
    pub rules: Told,
    pub plain: Told,
    /// How many seconds the rule waits to make sure whose limit was the first to be touched in the hazard.
    pub confirm: Option<f64>,
    /// Rules that called people out, in order, for whoever wants to know why.
    pub by: Vec<(f64, String)>,
}

fn start() -> Now {
    Now { mono: Mono::from_nanos(1_000_000_000), wall: Wall::from_millis(1_800_000_000_000) }
}

fn at(t: f64) -> Now {
    start().plus(Duration::from_millis((t * 1_000.0) as u64))
}

fn seconds(now: Mono) -> f64 {
    now.since(start().mono).as_secs_f64()
}

/// How a sensor of the kind is set up in the shipped profiles.
fn spec(kind: &str, speaker: &crate::signal::Sensor, n: usize) -> PointSpec {
    let max_jump = match kind {
        "gas.lel" => Some(60.0),
        "gas.co" => Some(200.0),
        _ => None,
    };
    let number = speaker.kind.info().form == Form::Number;
    PointSpec {
        range: number.then_some((speaker.range.0 - 1.0, speaker.range.1 + 1.0)),
        max_jump,
        silent_after: Some(Duration::from_secs(if number { 900 } else { 25 * 3_600 })),
        alarm_point: true,
        ..PointSpec::plain(&format!("{n}"), speaker.kind)
    }
}

struct Played {
    points: Points,
    validator: Validator,
    engine: Engine,
    /// The duty desk: acknowledges within a minute, and resets as soon as it may.
    desk: BinaryHeap<Reverse<(Mono, AlarmId)>>,
    /// By point.
    variation: Vec<usize>,
    endings: Vec<Ending>,
    story: &'static Story,
}

/// Plays variations `first..first + count` of a story.
pub fn play(story: &'static Story, first: u64, count: u64) -> Vec<Ending> {
    let faults = Faults::default();
    let rules = RuleSet::load(library::shipped(), Vec::new(), &faults);
    assert!(faults.is_empty() && rules.broken().is_empty(), "the library is sound");
    let thresholds = thresholds(&rules);
    let (mut points, mut variation, mut speakers) = (Points::default(), Vec::new(), Vec::new());
    let mut endings = Vec::new();
    for n in 0..count {
        // The name goes in, so that stories do not throw the same dice.
        let name = story.name.bytes().fold(0, |hash: u64, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
        let mut dice = Dice::new(name ^ (first + n) << 32);
        let Scene { sensors, length, hazard } = (story.make)(&mut dice);
        let place = Place {
            area: "scenarios".to_owned(),
            building: (first + n).to_string(),
            unit: "1".to_owned(),
            floor: "1".to_owned(),
            room: "101".to_owned(),
            ..Place::default()
        };
        let specs: Vec<_> =
            sensors.iter().enumerate().map(|(n, sensor)| Arc::new(spec(sensor.kind.as_str(), sensor, n))).collect();
        let id = DeviceId::new(format!("v{}", first + n));
        points.add(id, None, &"scenario".into(), &Arc::new(place), &specs).expect("each variation is a device");
        endings.push(Ending {
            length,
            sensors: sensors.len(),
            hazard,
            readings: 0,
            rules: Told::default(),
            plain: Told::default(),
            confirm: None,
            by: Vec::new(),
        });
        for sensor in sensors {
            variation.push(n as usize);
            speakers.push(Speaker::new(sensor, Dice::new(dice.share().to_bits())));
        }
    }
    let mut engine = Engine::new(rules, DeskSettings::default(), 1);
    engine.bind(&points);
    let validator = Validator::new(Settings::default());
    let mut played = Played { points, validator, engine, desk: BinaryHeap::new(), variation, endings, story };
    played.run(speakers, &thresholds);
    played.endings
}

impl Played {
    fn run(&mut self, mut speakers: Vec<Speaker>, thresholds: &[Threshold]) {
        self.validator.watch(&self.points, start());
        // Whether each threshold that looks at the point is broken.
        let mut broken = vec![vec![false; thresholds.len()]; speakers.len()];
        let key = |t: f64, n: usize| Reverse(((t * 1_000.0) as u64, n));
        let mut next: BinaryHeap<_> = speakers.iter().enumerate().map(|(n, speaker)| key(speaker.due, n)).collect();
        let mut sequences = vec![0_u64; speakers.len()];
        while let Some(Reverse((_, n))) = next.pop() {
            let t = speakers[n].due;
            let which = self.variation[n];
            if t > self.endings[which].length {
                continue;
            }
            let measured = speakers[n].measure();
            next.push(key(speakers[n].due, n));
            sequences[n] += 1;
            let Some(value) = measured else { continue };
            self.endings[which].readings += 1;
            let kind = self.points.point(PointIx(n as u32)).spec.kind.as_str();
            for (at, threshold) in thresholds.iter().enumerate().filter(|(_, threshold)| threshold.kind == kind) {
                let Some(number) = value.as_ref().ok().and_then(Value::as_f64) else { continue };
                let ending = &mut self.endings[which];
                let was = std::mem::replace(&mut broken[n][at], threshold.level(number) >= Some(self.story.from));
                if broken[n][at] && !was {
                    ending.plain.times.push(t);
                    if ending.hazard.is_some_and(|(begins, ends)| (begins..=ends).contains(&t)) {
                        ending.confirm.get_or_insert(threshold.confirm);
                    }
                }
            }
            let now = at(t);
            self.wait_until(now);
            let reading = Reading {
                point: PointIx(n as u32),
                value,
                source_time: Some(now.wall),
                received: now,
                sequence: Some(sequences[n]),
                retained: false,
                redelivered: false,
                historical: false,
                warming_up: false,
            };
            let mut samples = Vec::with_capacity(1);
            self.validator.handle_readings(now, &self.points, &[reading], &mut samples);
            self.engine.handle_samples(now, &self.points, &samples);
            self.take();
        }
    }

    /// Jumps from deadline to deadline.
    fn wait_until(&mut self, now: Now) {
        loop {
            let desk = self.desk.peek().map(|Reverse((at, _))| *at);
            let timers = [self.validator.poll_timeout(), self.engine.poll_timeout(), desk];
            let Some(due) = timers.into_iter().flatten().min().filter(|due| *due <= now.mono) else { return };
            let then = start().plus(due.since(start().mono));
            let mut samples = Vec::new();
            self.validator.handle_timeout(then, &self.points, &mut samples);
            self.engine.handle_timeout(then, &self.points);
            if !samples.is_empty() {
                self.engine.handle_samples(then, &self.points, &samples);
            }
            if desk.is_some_and(|desk| desk <= then.mono)
                && let Some(Reverse((_, alarm))) = self.desk.pop()
            {
                // Refused where it is too early to reset, or all is over: then there is nothing to do.
                for what in [Action::Acknowledge { alarm }, Action::Reset { alarm }] {
                    let _ = self.engine.handle_command(then, Command { who: "desk".to_owned(), what });
                }
            }
            self.take();
        }
    }

    fn take(&mut self) {
        while let Some(effect) = self.engine.poll_effect() {
            if let Effect::Transition(transition) = effect {
                self.hear(&transition);
            }
        }
    }

    fn hear(&mut self, transition: &Transition) {
        let Transition { from, cause, at, alarm, .. } = transition;
        let wait = match cause {
            Cause::Raised | Cause::Realarmed | Cause::LevelChanged(_) => Duration::from_secs(60),
            Cause::Returned => Duration::from_secs(1),
            _ => Duration::MAX,
        };
        if wait != Duration::MAX {
            self.desk.push(Reverse((at.mono.plus(wait), alarm.id)));
        }
        let least = self.story.from;
        let calls_out = alarm.level >= least
            && match cause {
                Cause::Raised => true,
                // Said again to people who know it: nothing new.
                Cause::Realarmed => *from != AlarmState::Acknowledged,
                Cause::LevelChanged(level) => *level < least,
                _ => false,
            };
        if !calls_out || alarm.class != Class::Hazard(self.story.hazard) {
            return;
        }
        let Some(point) = self.points.find(alarm.subject.as_str()) else { return };
        let ending = &mut self.endings[self.variation[point.0 as usize]];
        let t = seconds(at.mono);
        if t <= ending.length {
            ending.rules.times.push(t);
            ending.by.push((t, alarm.rule.to_string()));
        }
    }
}
