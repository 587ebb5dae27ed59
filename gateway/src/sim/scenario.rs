//! What happens in a simulated community: a pure function of scenario, seed and time.
//!
//! The same seed gives the same values at the same moments, so that a run can be shown again.

use std::time::Duration;

use anmin_rules::rule::Text;
use anmin_sensors::document::{Document, Faults, Reader};
use anmin_sensors::point::{DeviceIx, Form, Kind, PointIx, Points};
use anmin_sensors::reading::Value;

use crate::config::site::text;

/// One story.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub name: String,
    pub title: Text,
    pub length: Duration,
    steps: Vec<Step>,
}

#[derive(Clone, Debug)]
struct Step {
    kind: Kind,
    who: Who,
    at: Duration,
    over: Duration,
    until: Duration,
    /// `None`: the device falls silent.
    to: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Focus,
    Room,
    Building,
    All,
}

impl Scenario {
    /// The shipped ones and those of a file of the same form.
    pub fn read_all(source: &str, text: &str, faults: &Faults) -> Vec<Self> {
        let Some(doc) = Document::parse(source, text, faults) else { return Vec::new() };
        let root = doc.root(faults);
        let scenarios = root.tables("scenario").iter().filter_map(Self::read).collect();
        root.finish();
        scenarios
    }

    pub fn shipped() -> Vec<Self> {
        let faults = Faults::default();
        let scenarios = Self::read_all("scenarios.toml", include_str!("scenarios.toml"), &faults);
        // Invariant: the shipped file is sound; the test below walks it.
        debug_assert!(faults.is_empty());
        scenarios
    }

    fn read(r: &Reader<'_>) -> Option<Self> {
        let name: Option<String> = r.required("name");
        let title = text(r, "title").unwrap_or_default();
        let length = r.required("length");
        let steps = r.tables("step").iter().filter_map(Step::read).collect();
        r.finish();
        Some(Self { name: name?, title, length: length?, steps })
    }
}

impl Step {
    fn read(r: &Reader<'_>) -> Option<Self> {
        let word: Option<String> = r.required("kind");
        let kind = word.as_deref().and_then(Kind::named);
        if let (Some(word), None) = (&word, kind) {
            r.fault("kind", format!("`kind` is {word:?}, which is not a kind of point"), None);
        }
        let who = r
            .choice(
                "who",
                &[("focus", Who::Focus), ("room", Who::Room), ("building", Who::Building), ("all", Who::All)],
            )
            .unwrap_or(Who::Focus);
        let step = Self {
            kind: kind?,
            who,
            at: r.or("at", Duration::ZERO),
            over: r.or("over", Duration::ZERO),
            until: r.or("until", Duration::MAX),
            to: if r.or("silent", false) { None } else { r.required("to") },
        };
        r.finish();
        Some(step)
    }

    /// How far the step has come at `t`, from 0 to 1; it goes as fast as it came.
    fn share(&self, t: Duration) -> f64 {
        let reached = |since: Duration| {
            if self.over.is_zero() { 1.0 } else { (since.as_secs_f64() / self.over.as_secs_f64()).min(1.0) }
        };
        if t < self.at {
            0.0
        } else if t < self.until {
            reached(t - self.at)
        } else {
            1.0 - reached(t - self.until)
        }
    }
}

/// A scenario cast with the devices of one site.
#[derive(Clone, Debug)]
pub struct Play {
    scenario: Scenario,
    seed: u64,
    focus: Option<DeviceIx>,
}

impl Play {
    /// The seed picks the device at which it happens among those that have the first step's kind.
    pub fn new(scenario: Scenario, seed: u64, points: &Points) -> Self {
        let focus = scenario.steps.first().and_then(|step| {
            let able: Vec<DeviceIx> = points
                .devices()
                .filter(|(_, device)| device.points().any(|ix| points.point(ix).spec.kind == step.kind))
                .map(|(ix, _)| ix)
                .collect();
            able.get(mix(seed, 0) as usize % able.len().max(1)).copied()
        });
        Self { scenario, seed, focus }
    }

    pub fn scenario(&self) -> &Scenario {
        &self.scenario
    }

    pub fn focus(&self) -> Option<DeviceIx> {
        self.focus
    }

    /// Whether the device has anything to do with the story.
    pub fn concerns(&self, points: &Points, device: DeviceIx) -> bool {
        let kinds: Vec<Kind> = points.device(device).points().map(|ix| points.point(ix).spec.kind).collect();
        self.scenario.steps.iter().any(|step| kinds.contains(&step.kind) && self.hits(step, points, device))
    }

    /// Whether the device says nothing at `t`.
    pub fn is_silent(&self, points: &Points, device: DeviceIx, t: Duration) -> bool {
        self.scenario.steps.iter().any(|step| {
            step.to.is_none()
                && (step.at..step.until).contains(&t)
                && points.device(device).points().any(|ix| points.point(ix).spec.kind == step.kind)
                && self.hits(step, points, device)
        })
    }

    /// The point's value `t` after the start: its quiet value with a little noise, moved by the steps that concern it.
    pub fn value(&self, points: &Points, ix: PointIx, t: Duration) -> Value {
        let point = points.point(ix);
        let kind = point.spec.kind;
        let (quiet, noise) = quiet(kind);
        let tick = t.as_millis() as u64 / 500;
        let wobble = (mix(self.seed ^ u64::from(ix.0) << 20, tick) % 2_001) as f64 / 1_000.0 - 1.0;
        let mut value = quiet + noise * wobble;
        for step in &self.scenario.steps {
            if let Some(to) = step.to
                && step.kind == kind
                && self.hits(step, points, point.device)
            {
                let share = step.share(t);
                value += (to - value) * share;
            }
        }
        match kind.info().form {
            Form::Flag => Value::Flag(value >= 0.5),
            Form::Number => Value::Number((value * 100.0).round() / 100.0),
            Form::Text => Value::Text("ok".into()),
        }
    }

    fn hits(&self, step: &Step, points: &Points, device: DeviceIx) -> bool {
        let Some(focus) = self.focus else { return step.who == Who::All };
        let (here, there) = (&points.device(focus).place, &points.device(device).place);
        match step.who {
            Who::Focus => device == focus,
            Who::Room => device == focus || here.same_room(there),
            Who::Building => device == focus || here.same_building(there),
            Who::All => true,
        }
    }
}

/// What a kind reads when nothing happens, and how much it moves.
fn quiet(kind: Kind) -> (f64, f64) {
    match kind.as_str() {
        "gas.lel" => (1.2, 0.6),
        "gas.co" => (2.0, 1.0),
        "fire.smoke_density" => (0.01, 0.005),
        "fire.temperature" => (23.0, 0.8),
        "power.residual_current" => (85.0, 12.0),
        "power.cable_temperature" => (36.0, 1.5),
        "power.voltage" => (228.0, 2.5),
        "power.current" => (14.0, 3.0),
        "power.active_power" => (3_100.0, 400.0),
        "power.energy" => (18_250.0, 0.0),
        "power.frequency" => (50.0, 0.03),
        "power.supply" => (1.0, 0.0),
        "flood.level" => (1.0, 0.4),
        "env.temperature" => (21.0, 0.5),
        "env.humidity" => (48.0, 2.0),
        "device.battery" => (92.0, 0.5),
        "device.link_quality" => (110.0, 20.0),
        "device.signal" => (-71.0, 4.0),
        _ => (0.0, 0.0),
    }
}

/// SplitMix64 of a seed and a step: chance that can be repeated.
pub fn mix(seed: u64, step: u64) -> u64 {
    let mut z = seed.wrapping_add(step.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use anmin_sensors::point::{DeviceId, Place, PointSpec};

    use super::*;

    fn community() -> Points {
        let mut points = Points::default();
        for (id, building, kind) in
            [("g1", "1", "gas.lel"), ("g2", "2", "gas.lel"), ("s1", "1", "fire.smoke"), ("h1", "1", "fire.temperature")]
        {
            let place =
                Arc::new(Place { area: format!("b{building}"), building: building.to_owned(), ..Place::default() });
            let kind = Kind::named(kind).expect("a kind of the table");
            let spec = Arc::new(PointSpec::plain("v", kind));
            points.add(DeviceId::new(id), None, &Arc::from("p"), &place, &[spec]).expect("ids differ");
        }
        points
    }

    fn play(name: &str, seed: u64, points: &Points) -> Play {
        let scenario = Scenario::shipped().into_iter().find(|s| s.name == name).expect("a shipped scenario");
        Play::new(scenario, seed, points)
    }

    #[test]
    fn the_shipped_scenarios_are_sound() {
        let faults = Faults::default();
        let scenarios = Scenario::read_all("scenarios.toml", include_str!("scenarios.toml"), &faults);
        assert_eq!(faults.take(), []);
        let names: Vec<&str> = scenarios.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "quiet",
                "gas-leak",
                "kitchen-smoke",
                "fire",
                "cable-overheating",
                "power-loss",
                "rain-flood",
                "dead-sensor",
                "alarm-storm"
            ]
        );
    }

    #[test]
    fn a_leak_climbs_at_one_detector_only_and_goes_again() {
        let points = community();
        let play = play("gas-leak", 7, &points);
        let focus = play.focus().expect("there are gas detectors");
        let leaking = points.device(focus).points().next().expect("it has a point");
        let other = points
            .iter()
            .map(|(ix, _)| ix)
            .find(|ix| *ix != leaking && points.point(*ix).spec.kind.as_str() == "gas.lel");
        let at = |s| play.value(&points, leaking, Duration::from_secs(s)).as_f64().expect("a number");
        assert!(at(0) < 3.0 && at(18) > 25.0 && at(40) > 60.0 && at(140) < 3.0);
        let quiet = play.value(&points, other.expect("two detectors"), Duration::from_secs(40)).as_f64();
        assert!(quiet.expect("a number") < 3.0);
    }

    #[test]
    fn the_same_seed_gives_the_same_run() {
        let points = community();
        let run = |seed| -> Vec<Value> {
            let play = play("fire", seed, &points);
            (0..60)
                .flat_map(|s| {
                    points.iter().map(|(ix, _)| play.value(&points, ix, Duration::from_secs(s))).collect::<Vec<_>>()
                })
                .collect()
        };
        assert_eq!(run(3), run(3));
        assert_ne!(run(3), run(4));
    }

    #[test]
    fn a_dead_sensor_says_nothing_for_a_while() {
        let points = community();
        let play = play("dead-sensor", 1, &points);
        let focus = play.focus().expect("there are gas detectors");
        let silent: Vec<bool> = [0, 10, 160].map(|s| play.is_silent(&points, focus, Duration::from_secs(s))).to_vec();
        assert_eq!(silent, [false, true, false]);
    }
}
