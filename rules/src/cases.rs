//! The test cases that stand beside a rule, and how they are run.
//!
//! ```toml
//! [[case]]
//! name = "the deadband holds the level"
//! steps = [
//!   { at = "0s", gas = 26.0, expect = "orange", limit = "orange" },
//!   { at = "1s", gas = 21.0, expect = "orange" },
//!   { at = "2s", gas = { value = 12.0, quality = "jump" }, expect = "orange" },
//!   { at = "3s", gas = "silent", expect = "undetermined" },
//! ]
//! ```
//!
//! A step gives some inputs a value, a value with its quality, or the reason why there is none, and says what must
//! stand afterwards: `normal`, a level, or `undetermined`. A step without inputs lets time pass. Cases are about
//! verdicts: the alarm follows them without delay here, because delays and latches belong to the alarm and have
//! timelines of their own. An input that a case never mentions is not there.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anmin_sensors::document::{DeValue, Fault, Faults, FromToml, Reader, did_you_mean, parse_duration};
use anmin_sensors::point::{DeviceId, Form, Place, PointIx, PointSpec, Points};
use anmin_sensors::reading::{Quality, Sample, Value};
use anmin_sensors::time::{Mono, Now, Wall};

use crate::rule::{Judged, Level, RuleSpec, Scope, Verdict};
use crate::set::{RuleSet, RuleSource};

/// One `[[case]]` of a rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    pub name: String,
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq)]
struct Step {
    at: Duration,
    /// By position of the input.
    inputs: Vec<(usize, Option<Value>, Quality)>,
    expect: Option<Expected>,
    /// The limit that the finding must name.
    limit: Option<String>,
    place: Fault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Normal,
    Level(Level),
    Undetermined,
}

impl Expected {
    fn named(name: &str) -> Option<Self> {
        match name {
            "normal" => Some(Self::Normal),
            "undetermined" => Some(Self::Undetermined),
            level => Level::named(level).map(Self::Level),
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Undetermined => "undetermined",
            Self::Level(level) => level.as_str(),
        }
    }
}

/// How one case went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaseOutcome {
    pub rule: String,
    pub case: String,
    /// Where and how it failed; `None` when all went as expected.
    pub failure: Option<Fault>,
}

/// What may stand behind a key of a step.
#[derive(Clone, Debug)]
enum Given {
    Value(Value),
    With { value: Value, quality: String },
}

impl FromToml for Given {
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let plain = |value: &DeValue<'_>| match value {
            DeValue::Boolean(flag) => Some(Value::Flag(*flag)),
            DeValue::String(text) => Some(Value::Text(text.as_ref().into())),
            other => f64::from_toml(other).ok().map(Value::Number),
        };
        let wanted = || "a value, the name of a quality, or { value = ..., quality = \"...\" }".to_owned();
        match value {
            DeValue::Table(table) => {
                let get = |key| table.get(key).map(|value| value.get_ref());
                match (get("value").and_then(plain), get("quality").and_then(DeValue::as_str), table.len()) {
                    (Some(value), Some(quality), 2) => Ok(Self::With { value, quality: quality.to_owned() }),
                    _ => Err(wanted()),
                }
            }
            other => plain(other).map(Self::Value).ok_or_else(wanted),
        }
    }
}

fn quality_named(name: &str) -> Option<Quality> {
    Quality::ALL.into_iter().find(|quality| quality.reason() == name || (*quality == Quality::Good && name == "good"))
}

impl Case {
    /// Reads one case; `spec` is `None` when the rule itself could not be read and the steps cannot be understood.
    pub(crate) fn read(r: &Reader<'_>, spec: Option<&RuleSpec>) -> Option<Self> {
        let name: Option<String> = r.required("name");
        let mut steps = Vec::new();
        let mut last = Duration::ZERO;
        let mut whole = true;
        for entry in r.tables("steps") {
            let Some(spec) = spec else { break };
            match Step::read(&entry, spec) {
                Some(step) => {
                    if step.at < last {
                        entry.fault("at", "steps must follow each other in time", None);
                        whole = false;
                    }
                    last = step.at;
                    steps.push(step);
                }
                None => whole = false,
            }
        }
        if spec.is_some() && whole && !steps.iter().any(|step| step.expect.is_some()) {
            r.fault("steps", "the case expects nothing", Some("give a step `expect`".to_owned()));
        }
        r.finish();
        Some(Self { name: name?, steps }).filter(|_| whole && !r.is_faulty())
    }
}

impl Step {
    fn read(r: &Reader<'_>, spec: &RuleSpec) -> Option<Self> {
        let mut step =
            Self { at: Duration::ZERO, inputs: Vec::new(), expect: None, limit: None, place: r.place("expect") };
        let sound = Cell::new(true);
        let fault = |key: &str, message: String, hint: Option<String>| {
            sound.set(false);
            r.fault(key, message, hint);
        };
        let mut timed = false;
        for (key, given) in r.values::<Given>() {
            let text = match &given {
                Given::Value(Value::Text(text)) => Some(Arc::clone(text)),
                _ => None,
            };
            match key {
                "at" => match text.as_deref().and_then(parse_duration) {
                    Some(at) => (step.at, timed) = (at, true),
                    None => fault(key, "`at` is not a duration such as \"30s\" or \"12h\"".to_owned(), None),
                },
                "expect" => match text.as_deref().and_then(Expected::named) {
                    Some(expected) => step.expect = Some(expected),
                    None => {
                        let words = "normal, blue, yellow, orange, red, undetermined";
                        let hint = did_you_mean(text.as_deref().unwrap_or_default(), words.split(", "));
                        fault(key, format!("`expect` is not one of {words}"), hint);
                    }
                },
                "limit" => match text {
                    Some(name) if spec.limits.contains_key(&*name) => step.limit = Some(name.as_ref().to_owned()),
                    _ => fault(key, "the rule has no such limit".to_owned(), None),
                },
                role => {
                    let Some(at) = spec.inputs.iter().position(|input| input.role == role) else {
                        let known = spec.inputs.iter().map(|input| input.role.as_str());
                        let hint = did_you_mean(role, known.chain(["at", "expect", "limit"]));
                        fault(role, format!("`{role}` is neither an input nor at, expect, limit"), hint);
                        continue;
                    };
                    let form = spec.inputs[at].kind.info().form;
                    let (value, quality) = match (given, form) {
                        (Given::Value(Value::Text(name)), Form::Number | Form::Flag) => (None, quality_named(&name)),
                        (Given::Value(value), _) => (Some(value), Some(Quality::Good)),
                        (Given::With { value, quality }, _) => (Some(value), quality_named(&quality)),
                    };
                    let fits = match (&value, form) {
                        (None, _) => quality.is_some_and(|quality| matches!(quality, Quality::Bad(_))),
                        (Some(value), form) => matches!(
                            (value, form),
                            (Value::Number(_), Form::Number)
                                | (Value::Flag(_), Form::Flag)
                                | (Value::Text(_), Form::Text)
                        ),
                    };
                    match quality {
                        Some(quality) if fits => step.inputs.push((at, value, quality)),
                        Some(_) => {
                            let takes = match form {
                                Form::Number => "a number or the name of a bad quality",
                                Form::Flag => "true, false or the name of a bad quality",
                                Form::Text => "a text",
                            };
                            fault(role, format!("`{role}` takes {takes}"), None);
                        }
                        None => {
                            let known: Vec<&str> = Quality::ALL.iter().map(|quality| quality.reason()).collect();
                            fault(role, format!("there is no such quality; known are {}", known[1..].join(", ")), None);
                        }
                    }
                }
            }
        }
        if !timed && sound.get() {
            fault("at", "the step does not say when: `at` is missing".to_owned(), None);
        }
        (sound.get() && !r.is_faulty()).then_some(step)
    }
}

/// Runs all cases of one rule with its own numbers. A rule that cannot be loaded gives one failed outcome a fault.
pub fn run_cases(source: &RuleSource) -> Vec<CaseOutcome> {
    let outcome = |case: &str, failure| CaseOutcome { rule: source.name.clone(), case: case.to_owned(), failure };
    let faults = Faults::default();
    let loaded = RuleSet::load(vec![source.clone()], Vec::new(), &faults);
    if let [broken] = loaded.broken() {
        return broken.faults.iter().map(|fault| outcome("the rule loads", Some(fault.clone()))).collect();
    }
    let Some((spec, cases)) = source.read(&faults) else { return Vec::new() };
    cases
        .iter()
        .map(|case| {
            // The same text has just been loaded without a fault.
            let set = RuleSet::load(vec![source.clone()], Vec::new(), &faults);
            outcome(&case.name, play(&spec, case, set).err())
        })
        .collect()
}

fn play(spec: &RuleSpec, case: &Case, mut set: RuleSet) -> Result<(), Fault> {
    let mut points = Points::default();
    let subject = site(spec, case, &mut points);
    let mut inputs = BTreeMap::from([(0, subject)]);
    for role in 1..spec.inputs.len() {
        if let Some(point) = points.find(&format!("case-{role}/value")) {
            inputs.insert(role, point);
        } else if let Some(point) = points.find(&format!("case-0/{}", spec.inputs[role].role)) {
            inputs.insert(role, point);
        }
    }
    set.bind(&points);
    let start = Now { mono: Mono::from_nanos(1), wall: Wall::from_millis(1_767_225_600_000) };
    let mut stands = Verdict::Normal;
    let mut level = None;
    let mut out = Vec::new();
    let follow = |out: &mut Vec<Judged>, stands: &mut Verdict, level: &mut Option<Level>| {
        for judged in out.drain(..) {
            match &judged.verdict {
                Verdict::Normal => *level = None,
                Verdict::Abnormal(finding) => *level = Some(finding.level),
                // Not knowing clears nothing.
                Verdict::Undetermined(_) => {}
            }
            *stands = judged.verdict;
        }
    };
    for step in &case.steps {
        let now = start.plus(step.at);
        loop {
            let active = level;
            match set.poll_timeout() {
                Some(due) if due <= now.mono => {
                    let then = start.plus(due.since(start.mono));
                    set.handle_timeout(then, &points, &|_, _| active, &mut out);
                }
                _ => break,
            }
            follow(&mut out, &mut stands, &mut level);
        }
        for (role, value, quality) in &step.inputs {
            let active = level;
            let sample = Sample {
                // A case that gives an input a value has made its point.
                point: inputs[role],
                value: value.clone(),
                quality: *quality,
                time: now.wall,
                source_time: Some(now.wall),
                received: now,
                sequence: None,
                news: true,
            };
            set.handle_samples(now, &points, &[sample], &|_, _| active, &mut out);
            follow(&mut out, &mut stands, &mut level);
        }
        let found = match &stands {
            Verdict::Normal => Expected::Normal,
            Verdict::Abnormal(finding) => Expected::Level(finding.level),
            Verdict::Undetermined(_) => Expected::Undetermined,
        };
        let case_name = &case.name;
        let failed = |what: String, wanted: &str| Fault {
            message: format!("case {case_name:?} at {:?}: expected {wanted}, found {what}", step.at),
            ..step.place.clone()
        };
        if let Some(expected) = step.expect
            && expected != found
        {
            let why = match &stands {
                Verdict::Undetermined(why) => format!("undetermined ({why:?})"),
                _ => found.as_str().to_owned(),
            };
            return Err(failed(why, expected.as_str()));
        }
        if let Some(wanted) = &step.limit {
            let named = match &stands {
                Verdict::Abnormal(finding) => finding.limit.as_ref().map_or("none", |(name, _)| name.as_str()),
                _ => "none",
            };
            if named != wanted {
                return Err(failed(format!("limit {named}"), &format!("limit {wanted}")));
            }
        }
    }
    Ok(())
}

/// A room with a point for each input that the case speaks of: on the subject's device, or on one of its own.
fn site(spec: &RuleSpec, case: &Case, points: &mut Points) -> PointIx {
    let place = Arc::new(Place {
        area: "case".to_owned(),
        building: "1".to_owned(),
        unit: "1".to_owned(),
        floor: "1".to_owned(),
        room: "101".to_owned(),
        ..Place::default()
    });
    let spoken = |role: usize| case.steps.iter().any(|step| step.inputs.iter().any(|(at, ..)| *at == role));
    let on_device = |role: usize| spec.inputs[role].scope == Scope::Device;
    let mut own = vec![Arc::new(PointSpec::plain("@", spec.inputs[0].kind))];
    for role in 1..spec.inputs.len() {
        if on_device(role) && spoken(role) {
            own.push(Arc::new(PointSpec::plain(&spec.inputs[role].role, spec.inputs[role].kind)));
        }
    }
    let profile: Arc<str> = "case".into();
    // Ids and names differ by construction, so nothing is refused.
    let device = points.add(DeviceId::new("case-0"), None, &profile, &place, &own);
    for role in 1..spec.inputs.len() {
        if !on_device(role) && spoken(role) {
            let value = [Arc::new(PointSpec::plain("value", spec.inputs[role].kind))];
            let _ = points.add(DeviceId::new(format!("case-{role}")), None, &profile, &place, &value);
        }
    }
    device.ok().and_then(|device| points.device(device).points().next()).unwrap_or(PointIx(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library::shipped;

    #[test]
    fn every_case_of_the_library_holds() {
        let sources = shipped();
        assert!(sources.len() >= 18, "the library is there");
        let mut failures = Vec::new();
        for source in &sources {
            let outcomes = run_cases(source);
            assert!(!outcomes.is_empty(), "{} has cases", source.name);
            failures.extend(outcomes.into_iter().filter_map(|outcome| outcome.failure).map(|fault| fault.to_string()));
        }
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    }

    /// A case that does not hold says where and what; a case that cannot be read keeps the rule from loading.
    #[test]
    fn a_case_that_fails_names_its_step() {
        let leak = shipped().into_iter().find(|source| source.name == "gas/leak").expect("shipped");
        let with = |steps: &str| {
            let toml = leak.toml.split("[[case]]").next().unwrap_or_default();
            let source =
                RuleSource { toml: format!("{toml}[[case]]\nname = \"c\"\nsteps = [\n{steps}\n]\n"), ..leak.clone() };
            let outcomes = run_cases(&source);
            let said = outcomes.into_iter().map(|outcome| match outcome.failure {
                None => format!("{}: ok", outcome.case),
                Some(fault) => {
                    let Fault { column, message, hint, .. } = fault;
                    format!("{}: {column}: {message} ({})", outcome.case, hint.unwrap_or_default())
                }
            });
            said.collect::<Vec<_>>().join("; ")
        };
        for (steps, said) in [
            ("{ at = \"0s\", gas = 30, expect = \"orange\" }", "c: ok"),
            (
                "{ at = \"0s\", gas = 30, expect = \"normal\" }",
                "c: 33: case \"c\" at 0ns: expected normal, found orange ()",
            ),
            (
                "{ at = \"0s\", gas = 30, expect = \"orange\", limit = \"red\" }",
                "c: 33: case \"c\" at 0ns: expected limit red, found limit orange ()",
            ),
            (
                "{ at = \"0s\", gsa = 30, expect = \"orange\" }",
                "the rule loads: 20: `gsa` is neither an input nor at, expect, limit (did you mean `gas`?)",
            ),
            (
                "{ at = \"0s\", gas = 30, expect = \"ornage\" }",
                "the rule loads: 33: `expect` is not one of normal, blue, yellow, orange, red, undetermined (did you mean `orange`?)",
            ),
            (
                "{ at = \"9s\", gas = 30, expect = \"orange\" },{ at = \"1s\", gas = 30 }",
                "the rule loads: 51: steps must follow each other in time ()",
            ),
            ("{ at = \"9s\", gas = true }", "the rule loads: 20: `gas` takes a number or the name of a bad quality ()"),
            ("{ gas = 3 }", "the rule loads: 1: the step does not say when: `at` is missing ()"),
            ("{ at = \"9s\", gas = 3 }", "the rule loads: 9: the case expects nothing (give a step `expect`)"),
        ] {
            assert_eq!(with(steps), said, "{steps}");
        }
    }
}
