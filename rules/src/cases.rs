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
//! stand afterwards: `normal`, a level, or `undetermined`. A step without inputs lets time pass. An input that a case
//! never mentions is not there.
//!
//! A step may last: `{ at = "0s", for = "10m", every = "10s", gas = [2.0, 20.0] }` is a reading each ten seconds on a
//! straight line, `gas = 9.0, jitter = 2.0` one that is now above and now below; `worst` is then the highest level that
//! may stand in the meantime. `restart = true` takes the power away for a moment: windows begin anew, open alarms stay.
//!
//! Cases are about verdicts, and the alarm follows them without delay. Where one says `alarm`, what it says is about the
//! alarm itself: the case then runs with the rule's delays, and the deadband holds from the first touch of a limit. `raised`
//! says how often people have been told so far.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anmin_sensors::document::{DeValue, Fault, Faults, FromToml, Reader, did_you_mean, parse_duration};
use anmin_sensors::point::{DeviceId, Form, Place, PointIx, PointSpec, Points};
use anmin_sensors::reading::{Quality, Sample, Value};
use anmin_sensors::time::{Mono, Now, Wall};

use crate::alarm::Cause;
use crate::book::{AlarmBook, BookSettings};
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
    /// How long it lasts, and the time between two of its readings.
    lasts: Option<(Duration, Duration)>,
    /// By position of the input.
    inputs: Vec<(usize, Option<Value>, Quality)>,
    /// Where a straight line ends, by position of the input.
    ends: Vec<(usize, f64)>,
    jitter: f64,
    restart: bool,
    expect: Option<Expected>,
    /// What the alarm must be: `normal` for none, or the level of an active one.
    alarm: Option<Expected>,
    /// How often an alarm was raised, or came back, since the case began.
    raised: Option<f64>,
    /// The highest that may stand during the step.
    worst: Option<Expected>,
    /// The limit that the finding must name.
    limit: Option<String>,
    place: Fault,
}

/// In the order of gravity; what is undetermined is not less than anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
    Line(f64, f64),
    With { value: Value, quality: String },
}

impl FromToml for Given {
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let plain = |value: &DeValue<'_>| match value {
            DeValue::Boolean(flag) => Some(Value::Flag(*flag)),
            DeValue::String(text) => Some(Value::Text(text.as_ref().into())),
            other => f64::from_toml(other).ok().map(Value::Number),
        };
        let wanted = || "a value, [from, to], the name of a quality, or { value = ..., quality = \"...\" }".to_owned();
        match value {
            DeValue::Table(table) => {
                let get = |key| table.get(key).map(|value| value.get_ref());
                match (get("value").and_then(plain), get("quality").and_then(DeValue::as_str), table.len()) {
                    (Some(value), Some(quality), 2) => Ok(Self::With { value, quality: quality.to_owned() }),
                    _ => Err(wanted()),
                }
            }
            DeValue::Array(ends) => {
                let number = |at: usize| ends.get(at).and_then(|end| f64::from_toml(end.get_ref()).ok());
                match (number(0), number(1), ends.len()) {
                    (Some(from), Some(to), 2) => Ok(Self::Line(from, to)),
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

/// What a step may say besides its inputs, and what that means.
pub const KEYS: &[(&str, &str)] = &[
    ("at", "when, from the case's beginning; steps follow each other"),
    ("expect", "the verdict that must stand afterwards: `normal`, a level, `undetermined`"),
    ("limit", "the limit that the finding must name"),
    (
        "alarm",
        "the level of the alarm that must be active afterwards, or `normal`; the case then runs with the rule's delays",
    ),
    ("raised", "how often an alarm was raised or came back since the beginning"),
    ("worst", "the highest that may stand at any time of the step"),
    (
        "for",
        "how long the step lasts, with a reading every `every`; an input may then be `[from, to]`, a straight line",
    ),
    ("every", "time between two readings"),
    ("jitter", "every second reading is higher by it, every other lower"),
    ("restart", "`true`: the gateway starts anew before the step; alarms stay, windows begin anew"),
];

/// Readings that one step may stand for.
const MAX_READINGS: u128 = 20_000;

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
                    last = step.at + step.lasts.map_or(Duration::ZERO, |(lasts, _)| lasts);
                    steps.push(step);
                }
                None => whole = false,
            }
        }
        if spec.is_some() && whole && !steps.iter().any(|step| step.says_something()) {
            r.fault("steps", "the case expects nothing", Some("give a step `expect`".to_owned()));
        }
        r.finish();
        Some(Self { name: name?, steps }).filter(|_| whole && !r.is_faulty())
    }
}

impl Step {
    fn says_something(&self) -> bool {
        self.expect.or(self.alarm).or(self.worst).is_some() || self.raised.is_some()
    }

    fn read(r: &Reader<'_>, spec: &RuleSpec) -> Option<Self> {
        let place = ["expect", "alarm", "worst", "raised"].into_iter().find(|key| r.has(key)).unwrap_or("expect");
        let mut step = Self {
            at: Duration::ZERO,
            lasts: None,
            inputs: Vec::new(),
            ends: Vec::new(),
            jitter: 0.0,
            restart: false,
            expect: None,
            alarm: None,
            raised: None,
            worst: None,
            limit: None,
            place: r.place(place),
        };
        let (mut lasts, mut every) = (None, None);
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
                "for" | "every" => match text.as_deref().and_then(parse_duration).filter(|time| !time.is_zero()) {
                    Some(time) if key == "for" => lasts = Some(time),
                    Some(time) => every = Some(time),
                    None => fault(key, format!("`{key}` is not a duration such as \"30s\" or \"12h\""), None),
                },
                "jitter" | "raised" => match given {
                    Given::Value(Value::Number(jitter)) if key == "jitter" => step.jitter = jitter,
                    Given::Value(Value::Number(times)) => step.raised = Some(times),
                    _ => fault(key, format!("`{key}` is not a number"), None),
                },
                "restart" => match given {
                    Given::Value(Value::Flag(restart)) => step.restart = restart,
                    _ => fault(key, "`restart` is neither true nor false".to_owned(), None),
                },
                "expect" | "alarm" | "worst" => match text.as_deref().and_then(Expected::named) {
                    Some(Expected::Undetermined) if key == "alarm" => {
                        fault(key, "an alarm is normal, blue, yellow, orange or red".to_owned(), None);
                    }
                    Some(expected) if key == "expect" => step.expect = Some(expected),
                    Some(expected) if key == "alarm" => step.alarm = Some(expected),
                    Some(expected) => step.worst = Some(expected),
                    None => {
                        let words = "normal, blue, yellow, orange, red, undetermined";
                        let hint = did_you_mean(text.as_deref().unwrap_or_default(), words.split(", "));
                        fault(key, format!("`{key}` is not one of {words}"), hint);
                    }
                },
                "limit" => match text {
                    Some(name) if spec.limits.contains_key(&*name) => step.limit = Some(name.as_ref().to_owned()),
                    _ => fault(key, "the rule has no such limit".to_owned(), None),
                },
                role => {
                    let Some(at) = spec.inputs.iter().position(|input| input.role == role) else {
                        let known = spec.inputs.iter().map(|input| input.role.as_str());
                        let hint = did_you_mean(role, known.chain(KEYS.iter().map(|(key, _)| *key)));
                        let keys: Vec<&str> = KEYS.iter().map(|(key, _)| *key).collect();
                        fault(role, format!("`{role}` is neither an input nor {}", keys.join(", ")), hint);
                        continue;
                    };
                    let form = spec.inputs[at].kind.info().form;
                    let (value, quality) = match (given, form) {
                        (Given::Value(Value::Text(name)), Form::Number | Form::Flag) => (None, quality_named(&name)),
                        (Given::Value(value), _) => (Some(value), Some(Quality::Good)),
                        (Given::Line(from, to), _) => {
                            step.ends.push((at, to));
                            (Some(Value::Number(from)), Some(Quality::Good))
                        }
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
        match (lasts, every) {
            (Some(lasts), Some(every)) if lasts.as_nanos() / every.as_nanos() <= MAX_READINGS => {
                step.lasts = Some((lasts, every));
            }
            (Some(_), Some(_)) => {
                fault("every", format!("that is more than {MAX_READINGS} readings in one step"), None);
            }
            (None, None) if step.ends.is_empty() => {}
            _ => fault("for", "a step that lasts says `for` and `every`".to_owned(), None),
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
            let loaded = || RuleSet::load(vec![source.clone()], Vec::new(), &Faults::default());
            outcome(&case.name, Play::new(&spec, case, &loaded).run().err())
        })
        .collect()
}

/// A case on its stage: one device in one room, one rule, and the book of alarms where the case speaks of alarms.
struct Play<'c> {
    case: &'c Case,
    spec: Arc<RuleSpec>,
    load: &'c dyn Fn() -> RuleSet,
    set: RuleSet,
    points: Points,
    /// By position.
    inputs: BTreeMap<usize, PointIx>,
    /// `None` where the alarm follows the verdict without delay.
    book: Option<AlarmBook>,
    start: Now,
    stands: Verdict,
    level: Option<Level>,
    raised: f64,
    /// The highest that has stood in the step so far.
    worst: Expected,
    out: Vec<Judged>,
}

impl<'c> Play<'c> {
    fn new(spec: &RuleSpec, case: &'c Case, load: &'c dyn Fn() -> RuleSet) -> Self {
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
        // The same text has just been loaded without a fault.
        let mut set = load();
        set.bind(&points);
        let settings = BookSettings { max_shelve: Duration::ZERO, max_shelve_red: Duration::ZERO };
        let delays = case.steps.iter().any(|step| step.alarm.is_some() || step.raised.is_some());
        Self {
            case,
            spec: Arc::new(spec.clone()),
            load,
            set,
            points,
            inputs,
            book: delays.then(|| AlarmBook::new(settings, 1)),
            start: Now { mono: Mono::from_nanos(1), wall: Wall::from_millis(1_767_225_600_000) },
            stands: Verdict::Normal,
            level: None,
            raised: 0.0,
            worst: Expected::Normal,
            out: Vec::new(),
        }
    }

    fn run(mut self) -> Result<(), Fault> {
        for step in &self.case.steps {
            if step.restart {
                self.walk_to(step.at);
                // The journal keeps alarms, and nothing keeps windows.
                self.set = (self.load)();
                self.set.bind(&self.points);
            }
            self.worst = self.found(step);
            let (lasts, every) = step.lasts.unwrap_or((Duration::ZERO, Duration::from_secs(1)));
            let readings = u32::try_from(lasts.as_nanos() / every.as_nanos()).unwrap_or(0);
            for n in 0..=readings {
                self.walk_to(step.at + every * n);
                for (role, value, quality) in &step.inputs {
                    let mut value = value.clone();
                    if let Some(Value::Number(number)) = &mut value {
                        if let Some((_, to)) = step.ends.iter().find(|(at, _)| at == role) {
                            *number += (to - *number) * f64::from(n) / f64::from(readings.max(1));
                        }
                        *number += if n % 2 == 0 { step.jitter } else { -step.jitter };
                    }
                    self.hear(step.at + every * n, *role, value, *quality);
                }
                self.note(step);
            }
            self.walk_to(step.at + lasts);
            self.note(step);
            self.check(step)?;
        }
        Ok(())
    }

    fn now(&self, at: Duration) -> Now {
        self.start.plus(at)
    }

    /// Jumps from deadline to deadline until `at`.
    fn walk_to(&mut self, at: Duration) {
        let now = self.now(at);
        loop {
            let timers = [self.set.poll_timeout(), self.book.as_ref().and_then(AlarmBook::poll_timeout)];
            let Some(due) = timers.into_iter().flatten().min().filter(|due| *due <= now.mono) else { return };
            let then = self.start.plus(due.since(self.start.mono));
            if let Some(book) = &mut self.book {
                while book.fire_one(then) {}
            }
            self.judge(then, None);
        }
    }

    fn hear(&mut self, at: Duration, role: usize, value: Option<Value>, quality: Quality) {
        let now = self.now(at);
        let sample = Sample {
            // A case that gives an input a value has made its point.
            point: self.inputs[&role],
            value,
            quality,
            time: now.wall,
            source_time: Some(now.wall),
            received: now,
            sequence: None,
            news: true,
        };
        self.judge(now, Some(sample));
    }

    fn judge(&mut self, now: Now, sample: Option<Sample>) {
        let (set, points, out) = (&mut self.set, &self.points, &mut self.out);
        let follows = self.level;
        let book = self.book.as_ref();
        let active = |rule, subject| book.map_or(follows, |book| book.reached(rule, subject));
        match sample {
            Some(sample) => set.handle_samples(now, points, &[sample], &active, out),
            None => set.handle_timeout(now, points, &active, out),
        }
        // Other points of the room may be subjects of the same rule; the case is about its own.
        let subject = self.inputs[&0];
        for judged in self.out.drain(..).filter(|judged| judged.subject == subject) {
            if let Some(book) = &mut self.book {
                let tuning = self.set.tuning(judged.rule, judged.subject).clone();
                book.handle_judged(now, &self.points, &self.spec, &tuning, &judged);
            }
            match &judged.verdict {
                Verdict::Normal => self.level = None,
                Verdict::Abnormal(finding) => self.level = Some(finding.level),
                // Not knowing clears nothing.
                Verdict::Undetermined(_) => {}
            }
            self.stands = judged.verdict;
        }
        while let Some(transition) = self.book.as_mut().and_then(AlarmBook::poll_transition) {
            self.raised += f64::from(u8::from(matches!(transition.cause, Cause::Raised | Cause::Realarmed)));
        }
    }

    /// The level of the alarm that is active, as far as the case follows one.
    fn alarm(&self) -> Expected {
        let book = self.book.as_ref();
        let active = book.and_then(|book| book.alarms().find(|alarm| alarm.is_active()).map(|alarm| alarm.level));
        active.map_or(Expected::Normal, Expected::Level)
    }

    /// What the step is about: the alarm where the case speaks of alarms, else the verdict.
    fn found(&self, step: &Step) -> Expected {
        match &self.stands {
            _ if step.alarm.is_some() || (step.expect.is_none() && self.book.is_some()) => self.alarm(),
            Verdict::Normal => Expected::Normal,
            Verdict::Abnormal(finding) => Expected::Level(finding.level),
            Verdict::Undetermined(_) => Expected::Undetermined,
        }
    }

    fn note(&mut self, step: &Step) {
        self.worst = self.worst.max(self.found(step));
    }

    fn check(&self, step: &Step) -> Result<(), Fault> {
        let failed = |what: String, wanted: &str| Fault {
            message: format!("case {:?} at {:?}: expected {wanted}, found {what}", self.case.name, step.at),
            ..step.place.clone()
        };
        let verdict = match &self.stands {
            Verdict::Normal => Expected::Normal,
            Verdict::Abnormal(finding) => Expected::Level(finding.level),
            Verdict::Undetermined(_) => Expected::Undetermined,
        };
        if let Some(expected) = step.expect
            && expected != verdict
        {
            let why = match &self.stands {
                Verdict::Undetermined(why) => format!("undetermined ({why:?})"),
                _ => verdict.as_str().to_owned(),
            };
            return Err(failed(why, expected.as_str()));
        }
        if let Some(expected) = step.alarm
            && expected != self.alarm()
        {
            let wanted = format!("the alarm {}", expected.as_str());
            return Err(failed(format!("{} (verdict {})", self.alarm().as_str(), verdict.as_str()), &wanted));
        }
        if let Some(raised) = step.raised
            && raised != self.raised
        {
            return Err(failed(format!("{} times", self.raised), &format!("raised {raised} times")));
        }
        if let Some(worst) = step.worst
            && self.worst > worst
        {
            return Err(failed(self.worst.as_str().to_owned(), &format!("at worst {}", worst.as_str())));
        }
        if let Some(wanted) = &step.limit {
            let named = match &self.stands {
                Verdict::Abnormal(finding) => finding.limit.as_ref().map_or("none", |(name, _)| name.as_str()),
                _ => "none",
            };
            if named != wanted {
                return Err(failed(format!("limit {named}"), &format!("limit {wanted}")));
            }
        }
        Ok(())
    }
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

    /// What a case shows of its rule's manners. Told from its steps and not from its name, so that it shows what it says.
    fn shows(spec: &RuleSpec, case: &Case) -> Vec<&'static str> {
        let steps = &case.steps;
        let says = |step: &Step, wanted: &dyn Fn(Expected) -> bool| {
            [step.expect, step.alarm].into_iter().flatten().any(wanted)
        };
        let is_level = |expected: Expected| matches!(expected, Expected::Level(_));
        let is_normal = |expected: Expected| expected == Expected::Normal;
        let first = |wanted: &dyn Fn(&Step) -> bool| steps.iter().position(wanted);
        let last = |wanted: &dyn Fn(&Step) -> bool| steps.iter().rposition(wanted);
        let hazard = first(&|step| says(step, &is_level));
        let bad = first(&|step| step.inputs.iter().any(|(.., quality)| matches!(quality, Quality::Bad(_))));
        let silent = step_is_silent(steps);
        let told = steps.iter().filter_map(|step| step.raised).next_back();
        // A value that sways, or one that was given a new value many times.
        let sways = steps.iter().any(|step| step.jitter != 0.0);
        let changes = steps.iter().filter(|step| step.inputs.iter().any(|(role, ..)| *role == 0)).count();
        let quiet = steps.iter().all(|step| step.worst.is_none_or(is_normal)) && hazard.is_none();
        let at_once = spec.on_delay.is_zero() && told == Some(1.0);
        let mut found = Vec::new();
        let mut note = |shown: bool, what| found.extend(shown.then_some(what));
        note(hazard.is_some(), "the hazard seen");
        note(quiet && steps.iter().any(|step| step.worst.is_some()), "just below the limit");
        note((sways || changes >= 4) && told.is_some(), "noise around the limit");
        note(told == Some(0.0) || at_once, "a short spike");
        note(bad.is_some_and(|bad| bad > 0 && bad + 1 < steps.len()) && hazard.is_some(), "bad data in the middle");
        note(silent && steps.iter().any(|step| says(step, &|it| it == Expected::Undetermined)), "silence");
        note(first(&|step| step.restart).is_some_and(|at| at > 0), "a restart in the middle");
        let normal = last(&|step| says(step, &is_normal));
        note(hazard.zip(normal).is_some_and(|(hazard, normal)| hazard < normal), "recovery");
        found
    }

    fn step_is_silent(steps: &[Step]) -> bool {
        let silent = Quality::Bad(anmin_sensors::reading::Fault::Silent);
        steps.iter().any(|step| step.inputs.iter().any(|(.., quality)| *quality == silent))
    }

    const MANNERS: [&str; 8] = [
        "the hazard seen",
        "just below the limit",
        "noise around the limit",
        "a short spike",
        "bad data in the middle",
        "silence",
        "a restart in the middle",
        "recovery",
    ];

    /// What nobody has tried in the library will be tried by a fire.
    #[test]
    fn every_shipped_rule_shows_its_manners() {
        let mut lacking = Vec::new();
        for source in shipped() {
            let (spec, cases) = source.read(&Faults::default()).expect("every case of the library holds");
            let shown: Vec<&str> = cases.iter().flat_map(|case| shows(&spec, case)).collect();
            let lacks: Vec<&str> = MANNERS.into_iter().filter(|manner| !shown.contains(manner)).collect();
            if !lacks.is_empty() {
                lacking.push(format!("{} has no case of {}", source.name, lacks.join(", ")));
            }
            let comfort = spec.inputs[0].kind.as_str().starts_with("env.");
            let alarming = source.script.contains("orange(") || source.script.contains("red(");
            assert!(!(comfort && alarming), "{}: comfort is no matter for sirens", source.name);
            for (name, limit) in &spec.limits {
                let (zh, en) = (&limit.source.zh, &limit.source.en);
                let chinese = |text: &str| text.contains(|c| ('\u{4e00}'..='\u{9fff}').contains(&c));
                assert!(chinese(zh) && !chinese(en), "{}: the source of limit {name} in both languages", source.name);
            }
        }
        assert!(lacking.is_empty(), "{}", lacking.join("\n"));
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
                "the rule loads: 20: `gsa` is neither an input nor at, expect, limit, alarm, raised, worst, for, every, jitter, restart (did you mean `gas`?)",
            ),
            (
                "{ at = \"0s\", gas = 30, expect = \"ornage\" }",
                "the rule loads: 33: `expect` is not one of normal, blue, yellow, orange, red, undetermined (did you mean `orange`?)",
            ),
            (
                "{ at = \"9s\", gas = 30, expect = \"orange\" },{ at = \"1s\", gas = 30 }",
                "the rule loads: 51: steps must follow each other in time ()",
            ),
            (
                "{ at = \"0s\", for = \"1m\", every = \"10s\", gas = 24.5, jitter = 1.0, worst = \"orange\", expect = \"orange\" }",
                "c: ok",
            ),
            (
                "{ at = \"0s\", for = \"1m\", every = \"1s\", gas = [0.0, 30.0], worst = \"yellow\" }",
                "c: 67: case \"c\" at 0ns: expected at worst yellow, found orange ()",
            ),
            ("{ at = \"0s\", gas = 30, alarm = \"normal\" },{ at = \"1s\", gas = 1, alarm = \"normal\" }", "c: ok"),
            (
                "{ at = \"0s\", gas = 30 },{ at = \"2s\", gas = 30, restart = true, alarm = \"red\" }",
                "c: 72: case \"c\" at 2s: expected the alarm red, found orange (verdict orange) ()",
            ),
            (
                "{ at = \"0s\", for = \"1m\", gas = 3 }",
                "the rule loads: 20: a step that lasts says `for` and `every` ()",
            ),
            ("{ at = \"9s\", gas = true }", "the rule loads: 20: `gas` takes a number or the name of a bad quality ()"),
            ("{ gas = 3 }", "the rule loads: 1: the step does not say when: `at` is missing ()"),
            ("{ at = \"9s\", gas = 3 }", "the rule loads: 9: the case expects nothing (give a step `expect`)"),
        ] {
            assert_eq!(with(steps), said, "{steps}");
        }
    }
}
