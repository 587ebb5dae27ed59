//! The site that is simulated: two rules, devices that speak JSON over MQTT, three ways out, two stations.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anmin_rules::order::{Channel, ChannelForm, Station};
use anmin_rules::response::DeskSettings;
use anmin_rules::rule::{Level, Text};
use anmin_rules::set::{RuleSet, RuleSource};
use anmin_sensors::document::{Document, Faults};
use anmin_sensors::point::{DeviceId, Place, Points};
use anmin_sensors::profile::{Profile, Profiles};
use anmin_sensors::router::{Limits, Mapping, Router};

use crate::dice::Dice;

pub const SECOND: u64 = 1_000_000;
pub const MINUTE: u64 = 60 * SECOND;
pub const SOURCE: &str = "site";
pub const SILENT_AFTER: u64 = 90 * SECOND;
/// Yellow, orange, red, in the order of [`Level`] from yellow on.
pub const LIMITS: [f64; 3] = [10.0, 25.0, 50.0];
pub const MAX_SHELVE: u64 = 30 * MINUTE;
/// Ways out, what each hears, and from which level on.
pub const CHANNELS: [(&str, ChannelForm, Level, bool); 3] = [
    ("all", ChannelForm::Events, Level::Blue, true),
    ("grave", ChannelForm::Events, Level::Orange, false),
    ("town", ChannelForm::Cap, Level::Orange, false),
];

/// What people outside take for real, from the first escalation on. Nobody here says yes, so that nothing ever leaves by it.
pub const PUBLIC: &str = "public";

/// One of the two rules: `prompt` has no delays, so what it must say follows from the readings alone; `patient` has all.
#[derive(Clone, Debug)]
pub struct RulePlan {
    pub name: &'static str,
    pub kind: &'static str,
    pub on_delay: u64,
    pub off_delay: u64,
    pub deadband: f64,
    pub latch: bool,
    pub escalate_after: u64,
}

impl RulePlan {
    pub fn both(dice: &mut Dice) -> [Self; 2] {
        [
            Self {
                name: "prompt",
                kind: "gas.lel",
                on_delay: 0,
                off_delay: 0,
                deadband: dice.pick(&[0.0, 5.0]),
                latch: false,
                escalate_after: 60 * SECOND,
            },
            Self {
                name: "patient",
                kind: "gas.co",
                on_delay: dice.from(2, 20) * SECOND,
                off_delay: dice.from(5, 60) * SECOND,
                deadband: dice.pick(&[0.0, 5.0]),
                latch: dice.percent(50),
                escalate_after: dice.from(30, 120) * SECOND,
            },
        ]
    }

    pub fn id(&self) -> String {
        format!("sim/{}", self.name)
    }

    fn source(&self) -> RuleSource {
        let [yellow, orange, red] = LIMITS;
        let Self { name, kind, on_delay, off_delay, deadband, latch, escalate_after } = self;
        let unit = if *kind == "gas.lel" { "%LEL" } else { "ppm" };
        let [on_delay, off_delay, escalate_after] = [on_delay, off_delay, escalate_after].map(|each| each / SECOND);
        let toml = format!(
            r#"
            title = {{ zh = "仿真", en = "{name}" }}
            on_delay = "{on_delay}s"
            off_delay = "{off_delay}s"
            deadband = {deadband:?}
            latch = {latch}
            on_bad = "fault"
            escalate_after = "{escalate_after}s"
            realarm_after = "10m"
            [[input]]
            role = "gas"
            kind = "{kind}"
            [limit.yellow]
            value = {yellow:?}
            unit = "{unit}"
            source = "the simulation"
            [limit.orange]
            value = {orange:?}
            unit = "{unit}"
            source = "the simulation"
            [limit.red]
            value = {red:?}
            unit = "{unit}"
            source = "the simulation"
            [message]
            zh = "{{value}}"
            en = "{{value}}"
            [advice]
            zh = "看"
            en = "look"
            [[case]]
            name = "red"
            steps = [{{ at = "0s", gas = 60.0, expect = "red" }}]
            "#
        );
        let script = r#"
            fn judge(gas) {
                if above(gas, "red") { return red(); }
                if above(gas, "orange") { return orange(); }
                if above(gas, "yellow") { return yellow(); }
                normal()
            }"#;
        RuleSource { folder: "sim".to_owned(), name: self.id(), toml, script: script.to_owned() }
    }
}

pub fn rules(plans: &[RulePlan; 2]) -> RuleSet {
    let faults = Faults::default();
    let set = RuleSet::load(plans.iter().map(RulePlan::source).collect(), Vec::new(), &faults);
    assert!(faults.is_empty() && set.broken().is_empty(), "{:?} {:?}", faults.take(), set.broken());
    set
}

static SENSES: LazyLock<(Profiles, Vec<Mapping>)> = LazyLock::new(|| {
    let faults = Faults::default();
    let mut profiles = Profiles::default();
    for (name, kind) in [("prompt", "gas.lel"), ("patient", "gas.co")] {
        let silent = SILENT_AFTER / SECOND;
        let text = format!(
            r#"
            id = "sim-{name}"
            title = {{ zh = "仿真", en = "{name}" }}
            [mqtt]
            time = {{ path = "/t", format = "unix_ms" }}
            sequence = "/n"
            [[point]]
            name = "v"
            kind = "{kind}"
            path = "/v"
            range = [0.0, 100.0]
            silent_after = "{silent}s"
            "#
        );
        profiles.add(Profile::parse(name, &text, &faults).unwrap_or_else(|| panic!("{:?}", faults.take())));
    }
    let text = r#"
        [[mapping]]
        topic = "prompt/{device}"
        profile = "sim-prompt"
        unknown = "provision"
        [[mapping]]
        topic = "patient/{device}"
        profile = "sim-patient"
        unknown = "provision"
        "#;
    let document = Document::parse("site", text, &faults).expect("the mappings are TOML");
    let root = document.root(&faults);
    let mappings = root.tables("mapping").iter().filter_map(|r| Mapping::read(r, &profiles)).collect();
    assert!(faults.is_empty(), "{:?}", faults.take());
    (profiles, mappings)
});

pub fn router() -> Router {
    let (profiles, mappings) = SENSES.clone();
    Router::new(vec![(SOURCE.into(), mappings)], profiles, HashMap::new(), Limits::default())
}

/// The devices that the configuration names; others are taken in when they first speak.
pub fn points<'d>(devices: impl Iterator<Item = (&'d str, usize)>) -> Points {
    let mut points = Points::default();
    for (n, (id, rule)) in devices.enumerate() {
        // Three floors with one between them: several incidents at a time.
        let floor = (2 * (n % 3) + 1).to_string();
        let place = Arc::new(Place { area: "a".to_owned(), building: "1".to_owned(), floor, ..Place::default() });
        let profile = SENSES.0.get(["sim-prompt", "sim-patient"][rule]).expect("made above");
        points
            .add(DeviceId::new(id), None, &profile.id, &place, profile.specs())
            .expect("devices have ids of their own");
    }
    points
}

pub fn desk() -> DeskSettings {
    let station = |id: &str| Station {
        id: id.into(),
        name: Text { zh: id.to_owned(), en: id.to_owned() },
        phone: "0".to_owned(),
        ..Station::default()
    };
    let public = Channel { outward: true, from_escalation: 1, ..Channel::new(PUBLIC, ChannelForm::Cap, Level::Orange) };
    DeskSettings {
        site: "sim".to_owned(),
        stations: vec![station("st-1"), station("st-2")],
        channels: CHANNELS
            .iter()
            .map(|(id, form, min_level, system)| Channel { system: *system, ..Channel::new(*id, *form, *min_level) })
            .chain([public])
            .collect(),
        max_shelve: Duration::from_micros(MAX_SHELVE),
        max_shelve_red: Duration::from_micros(MAX_SHELVE),
        ..DeskSettings::default()
    }
}
