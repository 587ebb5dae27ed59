//! All rules of a site, bound to its points, judged when something they read has changed.
//!
//! A rule gets one *instance* for each point of its first input's kind, the *subject*. An instance is *linked* to every
//! point that it reads. A script is called only when its answer could be another one: it leaves behind, for each link,
//! the range of values in which every comparison comes out the same, and each point keeps the intersection of the
//! ranges of all its links. So a reading within that range costs one comparison, however many rules are bound to its
//! point; only links that must hear of every reading (*noisy* ones: the verdict is not normal, an alarm stands, a
//! window sums, a script reads the value itself) are visited.
//!
//! This file does not know delays, latches or people: it says what is so at this moment.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use anmin_sensors::document::{Document, Fault, Faults, Reader, did_you_mean};
use anmin_sensors::point::{Form, Place, PointId, PointIx, Points};
use anmin_sensors::reading::{Doubt, Quality, Sample, Value};
use anmin_sensors::time::{Mono, Now, Wall};

use crate::cases::Case;
use crate::change::{self, RulesChange};
use crate::library;
use crate::rule::{
    ContentHash, Evidence, Finding, Grounds, Input, InputSeen, Judged, Level, LimitUsed, MAX_INPUTS, OnBad, Origin,
    RuleId, RuleIx, RuleSpec, Said, Scope, Tuning, Verdict, Why, WindowSeen,
};
use crate::script::{
    Answer, Frame, Member, Names, Opinion, Role, Sandbox, Script, ScriptError, Seen, Stopwatch, Track,
};
pub use crate::window::BYTES_A_CHANGE;
use crate::window::{Operand, Sliding, Windows};

/// The two files of one rule as text, with the names that faults give them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSource {
    /// Where the files lie, as faults shall say it: `rules/library`.
    pub folder: String,
    /// `area/name`: the rule's id, and the files' path in the folder without their endings.
    pub name: String,
    pub toml: String,
    pub script: String,
}

impl RuleSource {
    /// Whether both say the same, wherever they lie.
    pub(crate) fn is_as(&self, other: &Self) -> bool {
        (&self.name, &self.toml, &self.script) == (&other.name, &other.toml, &other.script)
    }
}

impl RuleSource {
    /// The names of its cases, as they stand in its file.
    pub fn cases(&self) -> Vec<String> {
        let read = self.read(&Faults::default());
        read.map(|(_, cases)| cases.into_iter().map(|case| case.name).collect()).unwrap_or_default()
    }

    /// Reads the TOML: what the rule is, and its cases. `None` when it cannot be used; the faults say why.
    pub(crate) fn read(&self, faults: &Faults) -> Option<(RuleSpec, Vec<Case>)> {
        let file = format!("{}/{}.toml", self.folder, self.name);
        let well_named = is_rule_name(&self.name);
        if !well_named {
            let message = format!("a rule cannot be named {:?}", self.name);
            let hint =
                "name its files area/name, small letters, digits and underscores; the area system is anmin's own";
            faults.note(Fault {
                source: file.clone(),
                line: 0,
                column: 0,
                message,
                hint: Some(hint.to_owned()),
                zh: None,
            });
        }
        let document = Document::parse(file, &self.toml, faults)?;
        let root = document.root(faults);
        let before = faults.len();
        let spec = RuleSpec::read(RuleId::new(self.name.as_str()), &root);
        let cases: Vec<Option<Case>> = root.tables("case").iter().map(|case| Case::read(case, spec.as_ref())).collect();
        root.finish();
        let cases = cases.into_iter().collect::<Option<Vec<_>>>();
        spec.zip(cases).filter(|_| well_named && faults.len() == before)
    }

    fn script_fault(&self, error: ScriptError) -> Fault {
        let source = format!("{}/{}.rhai", self.folder, self.name);
        Fault { source, line: error.line, column: error.column, message: error.message, hint: error.hint, zh: None }
    }
}

/// Whether a rule may be called so.
pub(crate) fn is_rule_name(name: &str) -> bool {
    let is_part =
        |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    name.split('/').count() == 2 && name.split('/').all(is_part) && !name.starts_with("system/")
}

/// A rule that could not be taken, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokenRule {
    /// `area/name`, as its files have it.
    pub name: String,
    /// At least one.
    pub faults: Vec<Fault>,
}

/// A site's own numbers for a rule: for all its subjects, or for those that every selector given here matches.
///
/// Of several that say something about the same number the most specific wins: point, device, place, profile, kind,
/// all; among equals the later. `*` in a selector stands for any letters.
#[derive(Clone, Debug, PartialEq)]
pub struct Override {
    pub rule: String,
    pub point: Option<String>,
    pub device: Option<String>,
    /// The id of a `[[place]]`, or a grid cell.
    pub place: Option<String>,
    pub profile: Option<String>,
    pub kind: Option<String>,
    pub limits: Vec<(String, f64)>,
    pub on_delay: Option<Duration>,
    pub off_delay: Option<Duration>,
    pub deadband: Option<f64>,
    pub escalate_after: Option<Duration>,
    pub enabled: Option<bool>,
    /// Where `rule` and each limit stand, for faults that show only beside the rules.
    at: Fault,
    limits_at: Vec<Fault>,
}

impl Override {
    /// Reads one `[[override]]`.
    pub fn read(r: &Reader<'_>) -> Option<Self> {
        let rule = r.required("rule");
        let (mut limits, mut limits_at) = (Vec::new(), Vec::new());
        if let Some(table) = r.table("limit") {
            for (name, value) in table.values::<f64>() {
                limits.push((name.to_owned(), value));
                limits_at.push(table.place(name));
            }
            if table.is_faulty() {
                return None;
            }
        }
        let found = Self {
            rule: rule.unwrap_or_default(),
            point: r.optional("point"),
            device: r.optional("device"),
            place: r.optional("place"),
            profile: r.optional("profile"),
            kind: r.optional("kind"),
            limits,
            on_delay: r.optional("on_delay"),
            off_delay: r.optional("off_delay"),
            deadband: r.optional("deadband"),
            escalate_after: r.optional("escalate_after"),
            enabled: r.optional("enabled"),
            at: r.place("rule"),
            limits_at,
        };
        if found.deadband.is_some_and(|deadband| deadband < 0.0) {
            r.fault("deadband", "`deadband` is negative, expected 0 or more", None);
        }
        r.finish();
        (!r.is_faulty()).then_some(found)
    }

    /// For whom it is, in words: `device b3-*`, or `all`.
    pub fn whom(&self) -> String {
        let selectors = [
            ("point", &self.point),
            ("device", &self.device),
            ("place", &self.place),
            ("profile", &self.profile),
            ("kind", &self.kind),
        ];
        let named = selectors.iter().filter_map(|(name, found)| Some(format!("{name} {}", found.as_ref()?)));
        let named = named.collect::<Vec<_>>().join(", ");
        if named.is_empty() { "all".to_owned() } else { named }
    }

    /// What it sets: `limit.red`, `on_delay_s`, ... as [`change::NumberChange`] names them.
    pub fn numbers(&self) -> Vec<(String, f64)> {
        change::of_override(self)
    }

    /// Whether it stands in a file of this name.
    pub fn is_from(&self, file: &str) -> bool {
        self.at.source.rsplit('/').next() == Some(file)
    }

    fn matches(&self, points: &Points, subject: PointIx) -> bool {
        let (point, device) = (points.point(subject), points.device_of(subject));
        let fits = |pattern: &Option<String>, text: &str| pattern.as_ref().is_none_or(|pattern| glob(pattern, text));
        fits(&self.point, point.id.as_str())
            && fits(&self.device, device.id.as_str())
            && self
                .place
                .as_ref()
                .is_none_or(|place| glob(place, &device.place.area) || glob(place, &device.place.grid))
            && fits(&self.profile, &device.profile)
            && fits(&self.kind, point.spec.kind.as_str())
    }

    fn rank(&self) -> u8 {
        let selectors = [&self.point, &self.device, &self.place, &self.profile, &self.kind];
        selectors.iter().position(|selector| selector.is_some()).map_or(0, |at| 5 - at as u8)
    }

    /// Who sets a number by it.
    pub fn origin(&self) -> Origin {
        [Origin::Site, Origin::Kind, Origin::Profile, Origin::Place, Origin::Device, Origin::Point]
            [usize::from(self.rank())]
    }

    fn apply(&self, spec: &RuleSpec, tuning: &mut Tuning) {
        for (name, value) in &self.limits {
            if let Some(at) = spec.limits.keys().position(|known| known == name) {
                tuning.limits[at] = *value;
                tuning.origins[at] = self.origin();
            }
        }
        tuning.on_delay = self.on_delay.unwrap_or(tuning.on_delay);
        tuning.off_delay = self.off_delay.unwrap_or(tuning.off_delay);
        tuning.deadband = self.deadband.unwrap_or(tuning.deadband);
        tuning.escalate_after = self.escalate_after.or(tuning.escalate_after);
        tuning.enabled = self.enabled.unwrap_or(tuning.enabled);
    }

    fn fault(at: &Fault, message: String, hint: Option<String>) -> Fault {
        Fault { message, hint, ..at.clone() }
    }
}

/// `*` stands for any letters, also none.
fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// A rule as it is in force for one subject, whole enough to judge that subject anywhere.
#[derive(Debug)]
pub struct InForce {
    pub source: Arc<RuleSource>,
    /// Those of this rule, in their order.
    pub overrides: Vec<Override>,
    /// The points that it reads for the subject, and no others.
    pub points: Points,
    /// The longest of its windows.
    pub longest: Duration,
}

impl InForce {
    /// The rule alone, bound to its points.
    pub fn rule_set(&self) -> RuleSet {
        let mut set = RuleSet::load(vec![(*self.source).clone()], self.overrides.clone(), &Faults::default());
        set.bind(&self.points);
        set
    }
}

/// What a rule holds of one point.
#[derive(Clone, Debug)]
pub struct Held<'s> {
    pub spec: &'s RuleSpec,
    pub tuning: Tuning,
    pub limits: Arc<[LimitUsed]>,
    /// False where an input that the rule must have is not there, or an override switches it off.
    pub is_judged: bool,
}

/// The windows of one instance, which know nothing of the time before this run yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refill {
    pub rule: RuleId,
    pub subject: PointId,
    /// All that they watch.
    pub points: Vec<PointId>,
    /// How far back they go.
    pub over: Duration,
}

/// What history has for a [`Refill`].
#[derive(Clone, Debug, PartialEq)]
pub struct Past {
    pub of: Refill,
    /// In the order of their times, each with its place in the points of the [`Refill`]. Flags are 0 and 1.
    pub readings: Vec<(usize, Wall, Option<f64>, Quality)>,
    /// When the run before this one was last known to listen: nothing is known from then on.
    pub until: Wall,
}

/// What [`RuleSet::bind`] has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bound {
    /// Rule instances added.
    pub instances: usize,
    /// How often a point was too many for one role of one instance: it, and any behind it, are not read by that one.
    pub left_out: usize,
}

/// What is asked for at once: a site of a hundred thousand points would have more than history can be read for in time.
const MOST_REFILLS: usize = 10_000;

/// Points that one role of one instance may stand for. A site that has more in one room means a smaller scope.
const MAX_MEMBERS: usize = 64;

const NONE: u32 = u32::MAX;

struct Rule {
    spec: RuleSpec,
    source: Arc<RuleSource>,
    hash: ContentHash,
    names: Arc<Names>,
    script: Script,
    /// What evidence says of the roles, and of the windows with their units, in the order of the spec.
    roles: Vec<Arc<str>>,
    windows: Vec<(Arc<str>, Arc<str>)>,
    /// Positions of its overrides, the least specific first.
    overrides: Vec<u32>,
    /// The first is the rule's own.
    tunings: Vec<Tuning>,
    /// What evidence says of the limits of each tuning.
    limits: Vec<Arc<[LimitUsed]>>,
    tuning_of: HashMap<Vec<u32>, u32>,
    /// Only subjects with another tuning than the first.
    tuned: HashMap<u32, u32>,
    /// For rules with more than one input.
    joins: Option<Box<Joins>>,
}

/// Who reads whom, by place, so that a point added later finds the instances that want it.
#[derive(Default)]
struct Joins {
    /// Subjects, by input and the key of its scope.
    subjects: HashMap<(u8, u64), Vec<u32>>,
    /// Points of an input, likewise.
    others: HashMap<(u8, u64), Vec<u32>>,
    /// Instance of each subject that has one.
    instances: HashMap<u32, u32>,
}

/// What an instance found when it was last judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Normal,
    Abnormal(Level),
    Unclear,
    Failed,
    Bad,
    NoData,
}

struct Instance {
    rule: u32,
    subject: u32,
    tuning: u32,
    /// The subject's link.
    link: u32,
    /// The point that cannot be believed or has not spoken, for `Bad` and `NoData`.
    blame: u32,
    note: Option<Arc<str>>,
    extra: Option<Box<Extra>>,
    limit: u16,
    outcome: Outcome,
    /// What the book heard last; `None` before the first.
    emitted: Option<Outcome>,
    /// The alarm's level when the script was last called.
    active: Option<Level>,
    /// Whether the outcome may be used again.
    fresh: bool,
    /// Whether the outcome rests on a value that is not quite believed.
    uncertain: bool,
}

#[derive(Default)]
struct Extra {
    /// The other inputs' links.
    links: Vec<u32>,
    windows: Windows,
}

impl Instance {
    /// Takes over the windows of one that is the same.
    fn windows_of(&mut self, before: &mut Self) {
        if let (Some(own), Some(before)) = (&mut self.extra, &mut before.extra) {
            own.windows = std::mem::take(&mut before.windows);
        }
    }
}

/// One point that one instance reads.
struct Link {
    /// While the point's value stays in here, the instance's outcome stays.
    low: f64,
    high: f64,
    instance: u32,
    point: u32,
    /// The point's next link.
    next: u32,
    role: u8,
    /// The script reads the value itself.
    read: bool,
    /// Must hear of every reading.
    noisy: bool,
    /// Stands in the list of noisy links.
    listed: bool,
}

impl Link {
    fn holds(&self, number: f64) -> bool {
        !self.read && self.low <= number && number < self.high
    }
}

/// An instance whose script has gone beyond its limits: it is not called again before its time.
#[derive(Clone, Copy, Debug)]
struct Parked {
    until: Mono,
    /// How long it waits this time; twice as long the next, up to [`PARKED_AT_MOST`].
    wait: Duration,
}

const PARKED_FIRST: Duration = Duration::from_secs(1);
const PARKED_AT_MOST: Duration = Duration::from_secs(64);

/// What is kept for each point of the site.
#[derive(Clone, Copy)]
struct Row {
    /// Within, no quiet link needs to be visited.
    low: f64,
    high: f64,
    /// The first of the point's links.
    first: u32,
    /// Where the last sample is kept, for points that somebody needs when another point speaks.
    latest: u32,
    /// The last quality seen; `None` makes the next reading visit every link.
    seen: Option<Quality>,
    /// Whether some link is noisy.
    noisy: bool,
}

impl Row {
    const EMPTY: Self =
        Self { low: f64::INFINITY, high: f64::NEG_INFINITY, first: NONE, latest: NONE, seen: None, noisy: false };
}

/// How far the site's clock is ahead of UTC, in seconds, at a moment.
struct Zone(Box<dyn Fn(Wall) -> i32 + Send + Sync>);

impl Default for Zone {
    /// China's, all the year.
    fn default() -> Self {
        Self(Box::new(|_| 8 * 3600))
    }
}

impl Zone {
    fn second_of_day(&self, at: Wall) -> u32 {
        let seconds = at.millis().div_euclid(1000) + i64::from(self.0(at));
        seconds.rem_euclid(86_400) as u32
    }
}

impl fmt::Debug for RuleSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RuleSet({} rules, {} instances)", self.rules.len(), self.instances.len())
    }
}

/// All rules of a site.
#[derive(Default)]
pub struct RuleSet {
    rules: Vec<Rule>,
    overrides: Vec<Override>,
    override_used: Vec<bool>,
    by_kind: HashMap<&'static str, Vec<(u32, u8)>>,
    rows: Vec<Row>,
    links: Vec<Link>,
    instances: Vec<Instance>,
    latest: Vec<Option<Sample>>,
    noisy: HashMap<u32, Vec<u32>>,
    /// When an instance's windows must be looked at, or its script be tried again; what is neither its own `wake` nor the end of
    /// its parking is out of date.
    due: BinaryHeap<Reverse<(Mono, u32)>>,
    parked: HashMap<u32, Parked>,
    sandbox: Sandbox,
    zone: Zone,
    calls: u64,
    broken: Vec<BrokenRule>,
}

impl RuleSet {
    /// Reads, compiles and rehearses the rules. One that fails is left out and stands in [`RuleSet::broken`]; the others
    /// stay in force. A later source takes the place of an earlier one of the same name, unless it fails. `faults` hears
    /// what is wrong with the overrides.
    pub fn load(sources: Vec<RuleSource>, overrides: Vec<Override>, faults: &Faults) -> Self {
        let mut set = Self::default();
        let mut at_of: HashMap<&str, usize> = HashMap::new();
        for source in &sources {
            let own = Faults::default();
            let Some(rule) = set.prepare(source, &own) else {
                set.broken.push(BrokenRule { name: source.name.clone(), faults: own.take() });
                continue;
            };
            match at_of.get(source.name.as_str()) {
                Some(&at) => set.rules[at] = rule,
                None => {
                    at_of.insert(&source.name, set.rules.len());
                    set.rules.push(rule);
                }
            }
        }
        set.sandbox.forget_texts();
        for (n, over) in overrides.iter().enumerate() {
            let Some(&at) = at_of.get(over.rule.as_str()) else {
                // A rule that was left out has had its fault; its overrides wait with it.
                if !sources.iter().any(|source| source.name == over.rule) {
                    let hint = did_you_mean(&over.rule, sources.iter().map(|source| source.name.as_str()));
                    faults.note(Override::fault(&over.at, format!("there is no rule {:?}", over.rule), hint));
                }
                continue;
            };
            let rule = &mut set.rules[at];
            for ((name, _), place) in over.limits.iter().zip(&over.limits_at) {
                if !rule.spec.limits.contains_key(name) {
                    let known = rule.spec.limits.keys().map(String::as_str);
                    let hint = did_you_mean(name, known.clone())
                        .unwrap_or_else(|| format!("it has {}", known.collect::<Vec<_>>().join(", ")));
                    let message = format!("rule {} has no limit `{name}`", over.rule);
                    faults.note(Override::fault(place, message, Some(hint)));
                }
            }
            rule.overrides.push(n as u32);
        }
        for rule in &mut set.rules {
            // Stable: among equals the later stays the later, and wins.
            rule.overrides.sort_by_key(|n| overrides[*n as usize].rank());
        }
        for (n, rule) in set.rules.iter().enumerate() {
            for (role, input) in rule.spec.inputs.iter().enumerate() {
                set.by_kind.entry(input.kind.as_str()).or_default().push((n as u32, role as u8));
            }
        }
        set.override_used = vec![false; overrides.len()];
        set.overrides = overrides;
        set
    }

    /// Has no standing alarm told again: where nobody is there to hear it, a year of it would only cost time.
    pub(crate) fn without_reminders(mut self) -> Self {
        self.rules.iter_mut().for_each(|rule| rule.spec.realarm_after = None);
        self
    }

    /// Says how far the site's clock is ahead of UTC, in seconds, at a moment; China's time until somebody says so.
    pub fn set_zone(&mut self, ahead: impl Fn(Wall) -> i32 + Send + Sync + 'static) {
        self.zone = Zone(Box::new(ahead));
    }

    /// Has a script end that takes longer than [`MAX_CALL_TIME`](crate::script::MAX_CALL_TIME); without a stopwatch the
    /// limit of operations alone holds, and every run gives the same.
    pub fn set_stopwatch(&mut self, stopwatch: Stopwatch) {
        self.sandbox.set_stopwatch(stopwatch);
    }

    fn prepare(&mut self, source: &RuleSource, faults: &Faults) -> Option<Rule> {
        let (spec, _) = source.read(faults)?;
        let names = Arc::new(Names::of(&spec));
        let script = match self.sandbox.compile(&source.script, &names) {
            Ok(script) => script,
            Err(errors) => {
                errors.into_iter().for_each(|error| faults.note(source.script_fault(error)));
                return None;
            }
        };
        if let Err(error) = rehearse(&mut self.sandbox, &spec, &names, &script) {
            faults.note(source.script_fault(error));
            return None;
        }
        let mut tuning = Tuning::of(&spec);
        if source.folder != library::FOLDER {
            tuning.origins.fill(Origin::Rule);
        }
        let joins = (spec.inputs.len() > 1).then(Box::default);
        Some(Rule {
            source: Arc::new(source.clone()),
            hash: ContentHash::of(&source.toml, &source.script),
            roles: spec.inputs.iter().map(|input| input.role.as_str().into()).collect(),
            windows: spec
                .windows
                .iter()
                .map(|window| (window.name.as_str().into(), spec.unit_of(window).into()))
                .collect(),
            limits: vec![limits_used(&spec, &tuning)],
            tunings: vec![tuning],
            spec,
            names,
            script,
            overrides: Vec::new(),
            tuning_of: HashMap::new(),
            tuned: HashMap::new(),
            joins,
        })
    }

    /// Panics on an index that did not come from this set, which is a defect of the caller.
    pub fn spec(&self, rule: RuleIx) -> &RuleSpec {
        &self.rules[rule.0 as usize].spec
    }

    /// Tells this version of the rule from others.
    pub fn content_hash(&self, rule: RuleIx) -> ContentHash {
        self.rules[rule.0 as usize].hash
    }

    /// The text that the rule was read from.
    pub fn source(&self, rule: RuleIx) -> &Arc<RuleSource> {
        &self.rules[rule.0 as usize].source
    }

    /// The site's own numbers, in the order in which they were given.
    pub fn overrides(&self) -> &[Override] {
        &self.overrides
    }

    /// What becomes different when `new` takes the place of this one.
    pub fn difference(&self, new: &Self) -> RulesChange {
        change::between(self, new)
    }

    /// How many subjects each rule judges, in the order of `RuleIx`.
    pub fn subjects(&self) -> Vec<usize> {
        let mut subjects = vec![0; self.rules.len()];
        self.instances.iter().for_each(|instance| subjects[instance.rule as usize] += 1);
        subjects
    }

    /// The rule's numbers as they hold for this subject.
    pub fn tuning(&self, rule: RuleIx, subject: PointIx) -> &Tuning {
        let rule = &self.rules[rule.0 as usize];
        let at = if rule.tuned.is_empty() { 0 } else { rule.tuned.get(&subject.0).copied().unwrap_or(0) };
        &rule.tunings[at as usize]
    }

    pub fn rules(&self) -> impl ExactSizeIterator<Item = (RuleIx, &RuleSpec)> {
        self.rules.iter().enumerate().map(|(n, rule)| (RuleIx(n as u32), &rule.spec))
    }

    /// The rules that were left out.
    pub fn broken(&self) -> &[BrokenRule] {
        &self.broken
    }

    pub fn find(&self, id: &RuleId) -> Option<RuleIx> {
        self.rules.iter().position(|rule| rule.spec.id == *id).map(|n| RuleIx(n as u32))
    }

    /// The rules whose subject this point is.
    pub fn rules_on(&self, point: PointIx) -> impl Iterator<Item = RuleIx> {
        let first = self.rows.get(point.0 as usize).map_or(NONE, |row| row.first);
        std::iter::successors(self.links.get(first as usize), |link| self.links.get(link.next as usize))
            .filter(|link| link.role == 0)
            .map(|link| RuleIx(self.instances[link.instance as usize].rule))
    }

    /// What each rule that is about such points holds of this one, whether it has ever spoken or not.
    pub fn held_of(&self, subject: PointIx, points: &Points) -> Vec<Held<'_>> {
        let kind = points.point(subject).spec.kind;
        let about = self.rules.iter().enumerate().filter(|(_, rule)| {
            let input = &rule.spec.inputs[0];
            input.kind == kind && is_named(input, points, subject)
        });
        about
            .map(|(n, rule)| {
                // Not as it was bound: what waits for another input has no tuning of its own yet.
                let mut tuning = rule.tunings[0].clone();
                for over in rule.overrides.iter().map(|n| &self.overrides[*n as usize]) {
                    if over.matches(points, subject) {
                        over.apply(&rule.spec, &mut tuning);
                    }
                }
                let is_judged = self.instance_of(RuleIx(n as u32), subject).is_some();
                Held { spec: &rule.spec, limits: limits_used(&rule.spec, &tuning), tuning, is_judged }
            })
            .collect()
    }

    /// The rule as it is in force for a subject; `None` where nothing judges the subject by this rule.
    pub fn in_force(&self, rule: RuleIx, subject: PointIx, points: &Points) -> Option<InForce> {
        let instance = &self.instances[self.instance_of(rule, subject)? as usize];
        let rule = &self.rules[instance.rule as usize];
        let others = instance.extra.as_ref().map(|extra| extra.links.as_slice()).unwrap_or_default();
        let mut read: Vec<PointIx> = others.iter().map(|link| PointIx(self.links[*link as usize].point)).collect();
        read.push(subject);
        // In the order of the site, by which the members of a role stand.
        read.sort_unstable();
        read.dedup();
        let mut own = Points::default();
        for of_device in read.chunk_by(|a, b| points.point(*a).device == points.point(*b).device) {
            let device = points.device_of(of_device[0]);
            let specs: Vec<_> = of_device.iter().map(|point| Arc::clone(&points.point(*point).spec)).collect();
            // Devices of one site have different names, and so have the points of one device.
            let _ = own.add(device.id.clone(), Some(&device.label()), &device.profile, &device.place, &specs);
        }
        Some(InForce {
            source: Arc::clone(&rule.source),
            overrides: rule.overrides.iter().map(|n| self.overrides[*n as usize].clone()).collect(),
            points: own,
            longest: rule.spec.windows.iter().map(|window| window.over).max().unwrap_or_default(),
        })
    }

    /// The windows of the instances from this one on that may be refilled from history: the longest, [`MOST_REFILLS`] at
    /// most.
    pub fn refills(&self, from: usize, points: &Points) -> Vec<Refill> {
        let windowed = self.instances.iter().skip(from).filter_map(|instance| {
            let windows = &instance.extra.as_ref()?.windows;
            let over = windows.longest();
            (!over.is_zero() && !windows.is_refilled()).then_some((over, instance, windows))
        });
        let mut windowed: Vec<_> = windowed.collect();
        windowed.sort_by_key(|(over, ..)| Reverse(*over));
        windowed.truncate(MOST_REFILLS);
        let refill = |(over, instance, windows): (Duration, &Instance, &Windows)| {
            let watched = self.links_of(instance).filter(|link| windows.watch(link.role));
            Refill {
                rule: self.rules[instance.rule as usize].spec.id.clone(),
                subject: points.point(PointIx(instance.subject)).id.clone(),
                points: watched.map(|link| points.point(PointIx(link.point)).id.clone()).collect(),
                over,
            }
        };
        windowed.into_iter().map(refill).collect()
    }

    /// Puts the past before what an instance's windows have heard in this run. Judges nothing: what they say now counts
    /// when one of their points speaks next.
    pub fn refill(&mut self, now: Now, points: &Points, past: &Past) {
        let found = self.find(&past.of.rule).zip(points.find(past.of.subject.as_str()));
        let Some(at) = found.and_then(|(rule, subject)| self.instance_of(rule, subject)) else { return };
        let instance = &self.instances[at as usize];
        let rule = &self.rules[instance.rule as usize];
        let mut windows = windows_of(&rule.spec, &rule.tunings[instance.tuning as usize]);
        let places: Vec<Option<PointIx>> = past.of.points.iter().map(|id| points.find(id.as_str())).collect();
        let links: Vec<&Link> = self.links_of(instance).filter(|link| windows.watch(link.role)).collect();
        let mut latest: Vec<Option<f64>> = vec![None; links.len()];
        let then = |at: Wall| {
            let ago = u64::try_from(now.wall.since(at).as_nanos()).unwrap_or(u64::MAX);
            Mono::from_nanos(now.mono.nanos().saturating_sub(ago))
        };
        let readings = past.readings.iter().filter(|(_, at, ..)| *at <= now.wall);
        for (place, at, value, quality) in readings.clone() {
            let Some(point) = places.get(*place).copied().flatten() else { continue };
            let own = value.filter(|value| value.is_finite() && !matches!(quality, Quality::Bad(_)));
            let doubtful = *quality == Quality::Uncertain(Doubt::Jump);
            if *quality == Quality::Uncertain(Doubt::Unconfirmed) {
                continue;
            }
            for n in (0..links.len()).filter(|n| links[*n].point == point.0) {
                latest[n] = own;
                let of_role = links.iter().zip(&latest).filter(|(link, _)| link.role == links[n].role);
                let now_is = of_role.filter_map(|(_, value)| *value).reduce(f64::max);
                windows.hear(links[n].role, then(*at), own, now_is, doubtful);
            }
        }
        // While nobody listened nobody knew.
        let newest = readings.clone().map(|(_, at, ..)| *at).max();
        let until = newest.map_or(past.until, |newest| newest.max(past.until)).min(now.wall);
        for role in 0..rule.spec.inputs.len() as u8 {
            windows.hear(role, then(until), None, None, false);
        }
        let longest = windows.longest();
        let begin = Wall::from_micros(now.wall.micros().saturating_sub_unsigned(longest.as_micros() as u64));
        let away = now.wall.since(until);
        let whole = readings.clone().any(|(_, at, ..)| *at <= begin) && away <= longest / 20;
        let first = self.rows[instance.subject as usize].first;
        if let Some(extra) = &mut self.instances[at as usize].extra
            && extra.windows.prepend(windows, whole)
        {
            self.forget(first);
        }
    }

    fn links_of(&self, instance: &Instance) -> impl Iterator<Item = &Link> {
        let others = instance.extra.as_ref().map(|extra| extra.links.as_slice()).unwrap_or_default();
        std::iter::once(&instance.link).chain(others).map(|link| &self.links[*link as usize])
    }

    /// Rule instances bound so far.
    pub fn instances(&self) -> usize {
        self.instances.len()
    }

    /// How often a script was called so far.
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// The overrides that match no subject bound so far: most likely a device that is not there, or a slip of the pen.
    pub fn idle_overrides(&self) -> impl Iterator<Item = &Override> {
        self.overrides.iter().zip(&self.override_used).filter(|(_, used)| !**used).map(|(over, _)| over)
    }

    /// Binds the rules to the points that were added since the last time.
    pub fn bind(&mut self, points: &Points) -> Bound {
        let mut bound = Bound::default();
        for n in self.rows.len()..points.len() {
            self.rows.push(Row::EMPTY);
            let point = PointIx(n as u32);
            let kind = points.point(point).spec.kind.as_str();
            // Backwards, because a link is put before the others of its point.
            for at in (0..self.by_kind.get(kind).map_or(0, Vec::len)).rev() {
                let (rule, role) = self.by_kind[kind][at];
                if role == 0 {
                    self.bind_subject(rule, point, points, &mut bound);
                } else {
                    self.bind_other(rule, role, point, points, &mut bound);
                }
            }
        }
        bound
    }

    /// Takes the place of `old`, which was bound to the same points. Where a rule, its numbers for a subject and the points
    /// it reads are what they were, the instance goes on where it was: nothing of it is asked or said again. Any other is
    /// judged at once by what its points said last, for they may not speak again soon; its windows keep what they have
    /// heard as far as they are the same, and the others begin with what holds now. `latest` is the last sample of a point
    /// that `old` did not keep, `active` as in [`RuleSet::handle_samples`], by the new set's indices.
    pub(crate) fn take_over(
        &mut self,
        now: Now,
        points: &Points,
        mut old: Self,
        latest: impl Fn(PointIx) -> Option<Sample>,
        active: &impl Fn(RuleIx, PointIx) -> Option<Level>,
        out: &mut Vec<Judged>,
    ) {
        self.calls += old.calls;
        self.zone = std::mem::take(&mut old.zone);
        for (at, row) in self.rows.iter().enumerate() {
            if let Some(kept) = self.latest.get_mut(row.latest as usize) {
                let before = old.rows.get(at).and_then(|row| old.latest.get_mut(row.latest as usize));
                *kept = before.and_then(Option::take).or_else(|| latest(PointIx(at as u32)));
            }
        }
        let before: HashMap<(u32, u32), u32> =
            old.instances.iter().enumerate().map(|(at, found)| ((found.rule, found.subject), at as u32)).collect();
        let rule_before: Vec<Option<u32>> =
            self.rules.iter().map(|rule| old.find(&rule.spec.id).map(|rule| rule.0)).collect();
        let mut judge = Vec::new();
        for at in 0..self.instances.len() as u32 {
            let Instance { rule, subject, .. } = self.instances[at as usize];
            let known = rule_before[rule as usize].and_then(|rule| before.get(&(rule, subject)).copied());
            match known {
                Some(known) if self.is_as_before(at, &old, known) => self.go_on(at, &mut old, known),
                Some(known) => {
                    self.instances[at as usize].emitted = old.instances[known as usize].emitted;
                    self.begin_windows(at, now, Some((&mut old, known)));
                    judge.push(at);
                }
                None => {
                    self.begin_windows(at, now, None);
                    judge.push(at);
                }
            }
        }
        for at in judge {
            let (rule, subject) =
                (RuleIx(self.instances[at as usize].rule), PointIx(self.instances[at as usize].subject));
            let spoken = self.spoken(subject).or_else(|| latest(subject).filter(|sample| sample.news));
            let level = active(rule, subject);
            if let Some(extra) = &mut self.instances[at as usize].extra {
                extra.windows.look(now.mono);
            }
            match spoken {
                Some(sample) => {
                    self.evaluate(at, &sample, now, level);
                    self.emit(at, &sample, now, points, level, out);
                    self.settle(at);
                }
                // Asked as soon as its subject speaks, whatever the others need not hear.
                None => self.listen(self.instances[at as usize].link),
            }
            self.wake(at, now);
        }
        self.keep_rows(&old);
    }

    /// Has a link hear of every reading.
    fn listen(&mut self, link: u32) {
        let own = &mut self.links[link as usize];
        own.noisy = true;
        if !std::mem::replace(&mut own.listed, true) {
            let point = own.point;
            self.rows[point as usize].noisy = true;
            self.noisy.entry(point).or_default().push(link);
        }
    }

    /// The subject's link first.
    fn link_places(&self, at: u32) -> Vec<u32> {
        let instance = &self.instances[at as usize];
        let others = instance.extra.as_ref().map(|extra| extra.links.as_slice()).unwrap_or_default();
        std::iter::once(instance.link).chain(others.iter().copied()).collect()
    }

    /// What an instance reads, and as what.
    fn reads(&self, at: u32) -> impl Iterator<Item = (u8, u32)> {
        self.link_places(at).into_iter().map(|link| {
            let link = &self.links[link as usize];
            (link.role, link.point)
        })
    }

    fn tuning_of(&self, at: u32) -> &Tuning {
        let instance = &self.instances[at as usize];
        &self.rules[instance.rule as usize].tunings[instance.tuning as usize]
    }

    fn is_as_before(&self, at: u32, old: &Self, known: u32) -> bool {
        let (rule, rule_before) = (self.instances[at as usize].rule, old.instances[known as usize].rule);
        self.rules[rule as usize].source.is_as(&old.rules[rule_before as usize].source)
            && self.tuning_of(at) == old.tuning_of(known)
            && self.reads(at).eq(old.reads(known))
    }

    /// Moves over everything that an instance knows.
    fn go_on(&mut self, at: u32, old: &mut Self, known: u32) {
        for (link, before) in self.link_places(at).into_iter().zip(old.link_places(known)) {
            let (own, before) = (&mut self.links[link as usize], &old.links[before as usize]);
            (own.low, own.high, own.read, own.noisy) = (before.low, before.high, before.read, before.noisy);
            if own.noisy {
                self.listen(link);
            }
        }
        let before = &mut old.instances[known as usize];
        let own = &mut self.instances[at as usize];
        own.note = before.note.take();
        own.windows_of(before);
        (own.blame, own.limit, own.outcome, own.emitted) = (before.blame, before.limit, before.outcome, before.emitted);
        (own.active, own.fresh, own.uncertain) = (before.active, before.fresh, before.uncertain);
        let wake = own.extra.as_ref().and_then(|extra| extra.windows.wake);
        self.due.extend(wake.map(|wake| Reverse((wake, at))));
        if let Some(parked) = old.parked.remove(&known) {
            self.due.push(Reverse((parked.until, at)));
            self.parked.insert(at, parked);
            let subject = PointIx(self.instances[at as usize].subject);
            self.keep_latest(subject);
            let (row, before) = (&self.rows[subject.0 as usize], &old.rows[subject.0 as usize]);
            let kept = &mut self.latest[row.latest as usize];
            if kept.is_none() {
                kept.clone_from(&old.latest[before.latest as usize]);
            }
        }
    }

    /// Windows of an instance that is not what it was: each that is the same goes on, the others begin with what holds now.
    fn begin_windows(&mut self, at: u32, now: Now, before: Option<(&mut Self, u32)>) {
        let links = self.link_places(at);
        let Self { instances, links: all, rows, latest, rules, .. } = self;
        let instance = &mut instances[at as usize];
        let Some(extra) = &mut instance.extra else { return };
        let inputs = &rules[instance.rule as usize].spec.inputs;
        for (role, _) in inputs.iter().enumerate() {
            let of_role = links.iter().map(|link| &all[*link as usize]).filter(|link| usize::from(link.role) == role);
            let values =
                of_role.filter_map(|link| usable(latest.get(rows[link.point as usize].latest as usize)?.as_ref()?));
            extra.windows.begin(role as u8, now.mono, values.reduce(f64::max));
        }
        let Some((old, known)) = before else { return };
        let found = &mut old.instances[known as usize];
        let same_inputs = rules[instance.rule as usize].spec.inputs.iter().map(Input::reads).eq(old.rules
            [found.rule as usize]
            .spec
            .inputs
            .iter()
            .map(Input::reads));
        if let Some(old) = found.extra.as_mut().filter(|_| same_inputs) {
            extra.windows.take_over(std::mem::take(&mut old.windows));
        }
    }

    /// Takes over what was last heard of each point, and finds the range in which none of its links need be visited.
    fn keep_rows(&mut self, old: &Self) {
        for (row, before) in self.rows.iter_mut().zip(&old.rows) {
            row.seen = before.seen;
            (row.low, row.high) = (f64::NEG_INFINITY, f64::INFINITY);
            let mut at = row.first;
            while let Some(link) = self.links.get(at as usize) {
                if !link.read {
                    row.low = row.low.max(link.low);
                    row.high = row.high.min(link.high);
                }
                at = link.next;
            }
        }
    }

    fn bind_subject(&mut self, rule_at: u32, subject: PointIx, points: &Points, bound: &mut Bound) {
        let rule = &mut self.rules[rule_at as usize];
        if !is_named(&rule.spec.inputs[0], points, subject) {
            return;
        }
        if let Some(joins) = &mut rule.joins {
            for (role, input) in rule.spec.inputs.iter().enumerate().skip(1) {
                if let Some(key) = scope_key(input.scope, points, subject, true) {
                    joins.subjects.entry((role as u8, key)).or_default().push(subject.0);
                }
            }
        }
        self.add_instance(rule_at, subject, points, bound);
    }

    fn bind_other(&mut self, rule_at: u32, role: u8, point: PointIx, points: &Points, bound: &mut Bound) {
        let rule = &mut self.rules[rule_at as usize];
        let input = &rule.spec.inputs[usize::from(role)];
        let scope = input.scope;
        if !is_named(input, points, point) {
            return;
        }
        let (Some(joins), Some(key)) = (&mut rule.joins, scope_key(scope, points, point, false)) else { return };
        joins.others.entry((role, key)).or_default().push(point.0);
        let mut subjects = joins.subjects.remove(&(role, key)).unwrap_or_default();
        // Who can take no more is not asked again: with thousands of points in one place that would be their square.
        subjects.retain(|&subject| {
            let subject = PointIx(subject);
            if subject == point || !in_scope(scope, points, subject, point) {
                return true;
            }
            let joins = self.rules[rule_at as usize].joins.as_ref();
            match joins.and_then(|joins| joins.instances.get(&subject.0)).copied() {
                Some(instance) => self.add_other(instance, role, point, bound),
                None => self.add_instance(rule_at, subject, points, bound),
            }
        });
        if let Some(joins) = &mut self.rules[rule_at as usize].joins {
            joins.subjects.insert((role, key), subjects);
        }
    }

    /// Adds the instance if every input that it must have is there, and no override switches it off. False where there
    /// will never be one.
    fn add_instance(&mut self, rule_at: u32, subject: PointIx, points: &Points, bound: &mut Bound) -> bool {
        let mut others: Vec<(u8, PointIx)> = Vec::new();
        let rule = &self.rules[rule_at as usize];
        for (role, input) in rule.spec.inputs.iter().enumerate().skip(1) {
            let found = rule.joins.as_ref().zip(scope_key(input.scope, points, subject, true));
            let found = found.and_then(|(joins, key)| joins.others.get(&(role as u8, key)));
            let before = others.len();
            for point in found.into_iter().flatten().map(|&point| PointIx(point)) {
                if point != subject && in_scope(input.scope, points, subject, point) {
                    if others.len() == before + MAX_MEMBERS {
                        bound.left_out += 1;
                        break;
                    }
                    others.push((role as u8, point));
                }
            }
            if others.len() == before && !input.optional {
                return true;
            }
        }
        let tuning = self.choose_tuning(rule_at, subject, points);
        let rule = &mut self.rules[rule_at as usize];
        if !rule.tunings[tuning as usize].enabled {
            return false;
        }
        let instance = self.instances.len() as u32;
        let windows = windows_of(&rule.spec, &rule.tunings[tuning as usize]);
        let plain = rule.joins.is_none() && rule.spec.windows.is_empty() && !rule.script.calendar;
        if let Some(joins) = &mut rule.joins {
            joins.instances.insert(subject.0, instance);
        }
        self.instances.push(Instance {
            rule: rule_at,
            subject: subject.0,
            tuning,
            link: NONE,
            blame: NONE,
            note: None,
            extra: (!plain).then(|| Box::new(Extra { links: Vec::new(), windows })),
            limit: u16::MAX,
            outcome: Outcome::NoData,
            emitted: None,
            active: None,
            fresh: false,
            uncertain: false,
        });
        bound.instances += 1;
        self.instances[instance as usize].link = self.add_link(instance, 0, subject);
        if !plain {
            self.keep_latest(subject);
        }
        for (role, point) in others {
            self.add_other(instance, role, point, bound);
        }
        true
    }

    /// False where the instance can take no more for this role.
    fn add_other(&mut self, instance: u32, role: u8, point: PointIx, bound: &mut Bound) -> bool {
        let members = |set: &Self| {
            let links = set.instances[instance as usize].extra.as_ref().map(|extra| extra.links.as_slice());
            links.unwrap_or_default().iter().filter(|link| set.links[**link as usize].role == role).count()
        };
        if members(self) >= MAX_MEMBERS {
            bound.left_out += 1;
            return false;
        }
        let link = self.add_link(instance, role, point);
        self.keep_latest(point);
        let found = &mut self.instances[instance as usize];
        found.fresh = false;
        let subject = found.subject;
        found.extra.get_or_insert_default().links.push(link);
        self.rows[subject as usize].seen = None;
        true
    }

    fn add_link(&mut self, instance: u32, role: u8, point: PointIx) -> u32 {
        let at = self.links.len() as u32;
        let row = &mut self.rows[point.0 as usize];
        // A window misses nothing, not even what is said before the subject has spoken.
        let extra = self.instances[instance as usize].extra.as_ref();
        let watched = extra.is_some_and(|extra| extra.windows.watch(role));
        if watched {
            row.noisy = true;
            self.noisy.entry(point.0).or_default().push(at);
        }
        self.links.push(Link {
            low: f64::NEG_INFINITY,
            high: f64::INFINITY,
            instance,
            point: point.0,
            next: row.first,
            role,
            read: false,
            noisy: watched,
            listed: watched,
        });
        row.first = at;
        row.seen = None;
        at
    }

    fn keep_latest(&mut self, point: PointIx) {
        let row = &mut self.rows[point.0 as usize];
        if row.latest == NONE {
            row.latest = self.latest.len() as u32;
            self.latest.push(None);
        }
    }

    fn choose_tuning(&mut self, rule_at: u32, subject: PointIx, points: &Points) -> u32 {
        let rule = &mut self.rules[rule_at as usize];
        let matching: Vec<u32> =
            rule.overrides.iter().copied().filter(|n| self.overrides[*n as usize].matches(points, subject)).collect();
        if matching.is_empty() {
            return 0;
        }
        for n in &matching {
            self.override_used[*n as usize] = true;
        }
        let at = match rule.tuning_of.get(&matching) {
            Some(at) => *at,
            None => {
                let mut tuning = rule.tunings[0].clone();
                for n in &matching {
                    self.overrides[*n as usize].apply(&rule.spec, &mut tuning);
                }
                rule.limits.push(limits_used(&rule.spec, &tuning));
                rule.tunings.push(tuning);
                let at = rule.tunings.len() as u32 - 1;
                rule.tuning_of.insert(matching, at);
                at
            }
        };
        rule.tuned.insert(subject.0, at);
        at
    }

    /// Judges what the samples change.
    ///
    /// `active` is the level that the alarm's condition has reached (`Pending`, `Active` or `Clearing`), `None` while it is
    /// normal; a latched alarm whose condition has ended is `None` too. Emitted into `out`: the first
    /// verdict of each instance, every verdict that is not normal, every change, and every verdict while `active` says
    /// so. A normal verdict that nobody waits for is not emitted. A verdict that rests on an uncertain value is held
    /// back when it would clear or lower what stands. Samples that are no news are not judged.
    pub fn handle_samples(
        &mut self,
        now: Now,
        points: &Points,
        samples: &[Sample],
        active: &impl Fn(RuleIx, PointIx) -> Option<Level>,
        out: &mut Vec<Judged>,
    ) {
        self.handle_timeout(now, points, active, out);
        for sample in samples {
            let point = sample.point.0;
            let Some(row) = self.rows.get(point as usize) else { continue };
            if row.first == NONE {
                continue;
            }
            let (first, latest) = (row.first, self.latest.get_mut(row.latest as usize));
            if !sample.news {
                // The last known state is better than none, but never takes the place of news, and judges nothing now.
                if let Some(latest) = latest
                    && latest.is_none()
                {
                    *latest = Some(sample.clone());
                    self.forget(first);
                }
                continue;
            }
            if let Some(latest) = latest {
                *latest = Some(sample.clone());
            }
            let row = &self.rows[point as usize];
            let number = number_of(sample);
            if row.seen == Some(sample.quality) && row.low <= number && number < row.high {
                if row.noisy {
                    self.visit_noisy(now, points, sample, number, active, out);
                }
            } else {
                self.visit_all(now, points, sample, number, active, out);
            }
        }
    }

    /// When [`RuleSet::handle_timeout`] is due: a window's value may leave the range in which a verdict stays.
    pub fn poll_timeout(&self) -> Option<Mono> {
        self.due.peek().map(|Reverse((at, ..))| *at)
    }

    /// Judges again what the passing of time has changed; harmless when nothing is due.
    pub fn handle_timeout(
        &mut self,
        now: Now,
        points: &Points,
        active: &impl Fn(RuleIx, PointIx) -> Option<Level>,
        out: &mut Vec<Judged>,
    ) {
        while let Some(&Reverse((at, instance))) = self.due.peek() {
            if at > now.mono {
                return;
            }
            self.due.pop();
            let found = &mut self.instances[instance as usize];
            let (rule, subject) = (RuleIx(found.rule), PointIx(found.subject));
            let again = self.parked.get(&instance).is_some_and(|parked| parked.until == at);
            let windows =
                found.extra.as_mut().map(|extra| &mut extra.windows).filter(|windows| windows.wake == Some(at));
            let level = active(rule, subject);
            let holds = match windows {
                Some(windows) => {
                    windows.wake = None;
                    windows.look(now.mono) && !again && found.fresh && found.active == level
                }
                None if again => false,
                None => continue,
            };
            if !holds && let Some(sample) = self.spoken(subject) {
                self.evaluate(instance, &sample, now, level);
                self.emit(instance, &sample, now, points, level, out);
                self.settle(instance);
            }
            self.wake(instance, now);
        }
    }

    /// Asks to be woken when an instance's windows may change its answer by time alone.
    fn wake(&mut self, at: u32, now: Now) {
        let Some(windows) = self.instances[at as usize].extra.as_mut().map(|extra| &mut extra.windows) else { return };
        if let Some(due) = windows.due(now.mono)
            && windows.wake.is_none_or(|wake| due < wake)
        {
            // A later time stays as it is asked for: coming too early costs a look and is harmless.
            windows.wake = Some(due);
            self.due.push(Reverse((due, at)));
        }
    }

    /// Makes the instances that read a point ask their scripts again when their subjects speak next.
    fn forget(&mut self, first: u32) {
        let mut at = first;
        while let Some(link) = self.links.get(at as usize) {
            let instance = &mut self.instances[link.instance as usize];
            instance.fresh = false;
            self.rows[instance.subject as usize].seen = None;
            at = link.next;
        }
    }

    /// What the subject itself said last; nothing when it has not spoken since start.
    fn spoken(&self, subject: PointIx) -> Option<Sample> {
        let latest = self.latest.get(self.rows[subject.0 as usize].latest as usize)?;
        latest.clone().filter(|sample| sample.news)
    }

    fn visit_noisy(
        &mut self,
        now: Now,
        points: &Points,
        sample: &Sample,
        number: f64,
        active: &impl Fn(RuleIx, PointIx) -> Option<Level>,
        out: &mut Vec<Judged>,
    ) {
        let point = sample.point.0;
        let Some(mut list) = self.noisy.remove(&point) else { return };
        for link in &list {
            self.visit(*link, now, points, sample, number, false, active, out);
        }
        // A visit may have made another link of the point noisy, which then stands in a new list.
        list.extend(self.noisy.remove(&point).unwrap_or_default());
        list.retain(|link| {
            let link = &mut self.links[*link as usize];
            link.listed = link.noisy;
            link.noisy
        });
        self.rows[point as usize].noisy = !list.is_empty();
        if !list.is_empty() {
            self.noisy.insert(point, list);
        }
    }

    fn visit_all(
        &mut self,
        now: Now,
        points: &Points,
        sample: &Sample,
        number: f64,
        active: &impl Fn(RuleIx, PointIx) -> Option<Level>,
        out: &mut Vec<Judged>,
    ) {
        let point = sample.point.0;
        let row = &mut self.rows[point as usize];
        let forced = row.seen != Some(sample.quality);
        row.seen = Some(sample.quality);
        (row.low, row.high) = (f64::NEG_INFINITY, f64::INFINITY);
        let (mut low, mut high) = (f64::NEG_INFINITY, f64::INFINITY);
        let mut at = row.first;
        while at != NONE {
            let link = &self.links[at as usize];
            if forced || link.noisy || !link.holds(number) {
                self.visit(at, now, points, sample, number, forced, active, out);
            }
            let link = &self.links[at as usize];
            if !link.read {
                low = low.max(link.low);
                high = high.min(link.high);
            }
            at = link.next;
        }
        let row = &mut self.rows[point as usize];
        // What visits to other links have narrowed meanwhile counts as well.
        row.low = row.low.max(low);
        row.high = row.high.min(high);
    }

    #[expect(clippy::too_many_arguments, reason = "one step of one loop, split for reading only")]
    fn visit(
        &mut self,
        at: u32,
        now: Now,
        points: &Points,
        sample: &Sample,
        number: f64,
        forced: bool,
        active: &impl Fn(RuleIx, PointIx) -> Option<Level>,
        out: &mut Vec<Judged>,
    ) {
        let Self { links, instances, rows, latest, .. } = self;
        let link = &links[at as usize];
        let (at, role, holds) = (link.instance, link.role, link.holds(number));
        let instance = &mut instances[at as usize];
        let mut windows_hold = true;
        if let Some(extra) = &mut instance.extra {
            if extra.windows.watch(role) {
                let own = usable(sample);
                let now_is = match role {
                    0 => own,
                    _ => {
                        let of_role = extra.links.iter().map(|link| &links[*link as usize]);
                        let latest = of_role.filter(|link| link.role == role).filter_map(|link| {
                            usable(latest.get(rows[link.point as usize].latest as usize)?.as_ref()?)
                        });
                        latest.reduce(f64::max)
                    }
                };
                let doubtful = sample.quality == Quality::Uncertain(Doubt::Jump);
                let heard = sample.received.mono.min(now.mono);
                extra.windows.hear(role, heard, own, now_is, doubtful);
            }
            windows_hold = extra.windows.look(now.mono);
        }
        let (rule, subject) = (RuleIx(instance.rule), PointIx(instance.subject));
        let level = active(rule, subject);
        let again = forced || !instance.fresh || instance.active != level || !holds || !windows_hold;
        if role == 0 {
            if again {
                self.evaluate(at, sample, now, level);
            }
            self.emit(at, sample, now, points, level, out);
            self.settle(at);
        } else if again {
            // Nothing to say about a subject that has not spoken.
            if let Some(own) = self.spoken(subject) {
                self.evaluate(at, &own, now, level);
                self.emit(at, &own, now, points, level, out);
                self.settle(at);
            }
        }
        if self.instances[at as usize].extra.is_some() {
            self.wake(at, now);
        }
    }

    /// Calls the script and notes for which values its answer holds.
    fn evaluate(&mut self, at: u32, sample: &Sample, now: Now, active: Option<Level>) {
        if self.parked.get(&at).is_some_and(|parked| now.mono < parked.until) {
            let instance = &mut self.instances[at as usize];
            // What it said when it was parked stands; with the first chance it is asked anew.
            (instance.active, instance.fresh) = (active, false);
            return;
        }
        let Self { rules, instances, links, rows, latest, sandbox, calls, zone, .. } = self;
        let instance = &mut instances[at as usize];
        let rule = &rules[instance.rule as usize];
        instance.active = active;
        instance.fresh = true;
        instance.uncertain = false;
        instance.note = None;
        instance.limit = u16::MAX;
        instance.blame = NONE;
        let no_links = Vec::new();
        let others = instance.extra.as_ref().map_or(&no_links, |extra| &extra.links);
        let spoken = |link: &Link| latest.get(rows[link.point as usize].latest as usize).and_then(Option::as_ref);

        let mut frame = sandbox.frame();
        let tuning = &rule.tunings[instance.tuning as usize];
        fill_frame(&mut frame, &rule.names, rule.spec.inputs.len(), tuning, active);
        frame.second_of_day = zone.second_of_day(now.wall);
        frame.roles[0].members.push(member(sample, now));
        for link in others.iter().map(|link| &links[*link as usize]) {
            if let Some(sample) = spoken(link) {
                frame.roles[usize::from(link.role)].members.push(member(sample, now));
            }
        }
        if let Some(extra) = &instance.extra {
            let seen = |window: &Sliding| Seen { value: window.value(), track: Track::default() };
            frame.windows.extend(extra.windows.iter().map(seen));
        }
        let blocked = rule
            .spec
            .inputs
            .iter()
            .zip(&frame.roles)
            .position(|(input, role)| !input.optional && role.members.iter().all(|member| member.value.is_none()));
        drop(frame);

        let (mut timed, mut exceeded) = (false, false);
        match blocked {
            Some(role) => {
                instance.blame = if role == 0 {
                    instance.subject
                } else {
                    let of_role = others.iter().map(|link| &links[*link as usize]);
                    of_role.filter(|link| usize::from(link.role) == role).map(|link| link.point).next().unwrap_or(NONE)
                };
                let blamed = if role == 0 {
                    Some(sample)
                } else {
                    rows.get(instance.blame as usize)
                        .and_then(|row| latest.get(row.latest as usize))
                        .and_then(Option::as_ref)
                };
                instance.outcome = match (blamed, rule.spec.on_bad) {
                    (None, _) => Outcome::NoData,
                    (Some(_), OnBad::Fault) => Outcome::Bad,
                    (Some(blamed), OnBad::Raise(level)) => {
                        let role = &rule.spec.inputs[role].role;
                        instance.note = Some(format!("{role}: {}", blamed.quality.reason()).into());
                        Outcome::Abnormal(level)
                    }
                };
            }
            None => {
                *calls += 1;
                let answer = sandbox.call(&rule.script);
                exceeded = sandbox.exceeded;
                let frame = sandbox.frame();
                timed = frame.timed;
                match answer {
                    Ok(Answer { verdict, note }) => {
                        instance.note = note;
                        instance.outcome = match verdict {
                            Opinion::Normal => Outcome::Normal,
                            Opinion::Abnormal(level) => {
                                instance.limit = frame.decisive.unwrap_or(u16::MAX);
                                Outcome::Abnormal(level)
                            }
                            Opinion::Unknown => Outcome::Unclear,
                        };
                    }
                    Err(error) => {
                        let (id, ScriptError { line, column, message, .. }) = (&rule.spec.id, &error);
                        instance.note = Some(match line {
                            0 => format!("{id}.rhai: {message}").into(),
                            _ => format!("{id}.rhai:{line}:{column}: {message}").into(),
                        });
                        instance.outcome = Outcome::Failed;
                    }
                }
            }
        }

        // Take back what was noted about each link, in the order in which the members were given.
        let frame = sandbox.frame();
        let mut next = [0_usize; MAX_INPUTS];
        for at in std::iter::once(&instance.link).chain(others) {
            let role = usize::from(links[*at as usize].role);
            let there = role == 0 || spoken(&links[*at as usize]).is_some();
            let member = there.then(|| {
                next[role] += 1;
                &frame.roles[role].members[next[role] - 1]
            });
            let track = match member {
                Some(member) if blocked.is_none() => member.track,
                _ => Track::default(),
            };
            instance.uncertain |=
                track.used && member.is_some_and(|member| matches!(member.quality, Quality::Uncertain(_)));
            let link = &mut links[*at as usize];
            (link.low, link.high, link.read) = (track.low, track.high, track.read || timed);
        }
        if let Some(extra) = &mut instance.extra {
            for (window, seen) in extra.windows.iter_mut().zip(&frame.windows) {
                window.track = if blocked.is_some() { Track::default() } else { seen.track };
                window.track.read |= timed;
                window.judged_known = seen.value.is_some();
            }
            let until = frame.until.filter(|_| blocked.is_none());
            instance.uncertain |= extra.windows.is_doubtful(now.mono, active.is_some());
            extra.windows.named = until.map(|seconds| now.mono.plus(Duration::from_secs(u64::from(seconds))));
        }
        drop(frame);
        if exceeded {
            self.park(at, sample, now);
        } else if !self.parked.is_empty() {
            self.parked.remove(&at);
        }
    }

    /// Keeps an instance's script from being called for a while, and its sample for when it is tried again.
    fn park(&mut self, at: u32, sample: &Sample, now: Now) {
        let wait = self.parked.get(&at).map_or(PARKED_FIRST, |before| (before.wait * 2).min(PARKED_AT_MOST));
        let until = now.mono.plus(wait);
        self.parked.insert(at, Parked { until, wait });
        self.due.push(Reverse((until, at)));
        self.keep_latest(sample.point);
        let row = &self.rows[sample.point.0 as usize];
        self.latest[row.latest as usize] = Some(sample.clone());
    }

    /// Judges an instance at this moment whether or not anything has changed; `sample` is what its subject said last.
    /// `None` where the rule has no such subject.
    pub fn judge(
        &mut self,
        rule: RuleIx,
        sample: &Sample,
        now: Now,
        points: &Points,
        held: Option<Level>,
    ) -> Option<Judged> {
        let at = self.instance_of(rule, sample.point)?;
        if let Some(extra) = &mut self.instances[at as usize].extra {
            extra.windows.look(now.mono);
        }
        self.evaluate(at, sample, now, held);
        let (verdict, limit) = self.verdict(at, sample, points);
        let grounds = Arc::new(self.grounds(at, sample, now, points, held, verdict.said()));
        Some(self.judged(at, sample, points, verdict, limit, Some(grounds)))
    }

    fn instance_of(&self, rule: RuleIx, subject: PointIx) -> Option<u32> {
        let first = self.rows.get(subject.0 as usize)?.first;
        std::iter::successors(self.links.get(first as usize), |link| self.links.get(link.next as usize))
            .find(|link| link.role == 0 && self.instances[link.instance as usize].rule == rule.0)
            .map(|link| link.instance)
    }

    /// Hands the outcome to the book, if the book needs it.
    fn emit(
        &mut self,
        at: u32,
        sample: &Sample,
        now: Now,
        points: &Points,
        active: Option<Level>,
        out: &mut Vec<Judged>,
    ) {
        let instance = &mut self.instances[at as usize];
        let standing = match (active, instance.emitted) {
            (Some(level), Some(Outcome::Abnormal(emitted))) => Some(level.max(emitted)),
            (Some(level), _) | (None, Some(Outcome::Abnormal(level))) => Some(level),
            (None, _) => None,
        };
        match instance.outcome {
            Outcome::Normal if active.is_none() && instance.emitted == Some(Outcome::Normal) => return,
            // Uncertain may raise, never clears.
            Outcome::Normal if instance.uncertain && standing.is_some() => return,
            Outcome::Abnormal(level) if instance.uncertain && standing > Some(level) => return,
            _ => {}
        }
        instance.emitted = Some(instance.outcome);
        // Nobody will ask why all is as it was.
        let wanted = instance.outcome != Outcome::Normal || standing.is_some();
        let (verdict, limit) = self.verdict(at, sample, points);
        let grounds = wanted.then(|| Arc::new(self.grounds(at, sample, now, points, active, verdict.said())));
        out.push(self.judged(at, sample, points, verdict, limit, grounds));
    }

    /// What the instance has found, in the words of the book, and the limit that decided it.
    fn verdict(&self, at: u32, sample: &Sample, points: &Points) -> (Verdict, Option<(String, f64)>) {
        let instance = &self.instances[at as usize];
        let rule = &self.rules[instance.rule as usize];
        let limits = &rule.tunings[instance.tuning as usize].limits;
        let limit = rule.spec.limits.keys().zip(limits).nth(usize::from(instance.limit));
        let limit = limit.map(|(name, value)| (name.clone(), *value));
        let note = || instance.note.as_deref().unwrap_or_default().to_owned();
        let verdict = match instance.outcome {
            Outcome::Normal => Verdict::Normal,
            Outcome::Abnormal(level) => Verdict::Abnormal(Finding {
                level,
                limit: limit.clone(),
                note: instance.note.as_deref().map(str::to_owned),
            }),
            Outcome::Unclear => Verdict::Undetermined(Why::Unclear(note())),
            Outcome::Failed => Verdict::Undetermined(Why::ScriptFailed(note())),
            Outcome::NoData => {
                Verdict::Undetermined(Why::NoData { point: points.point(PointIx(instance.blame)).id.clone() })
            }
            Outcome::Bad => {
                let row = &self.rows[instance.blame as usize];
                let quality = match self.latest.get(row.latest as usize) {
                    Some(Some(latest)) if instance.blame != instance.subject => latest.quality,
                    _ => sample.quality,
                };
                let point = points.point(PointIx(instance.blame)).id.clone();
                match quality {
                    Quality::Bad(fault) => Verdict::Undetermined(Why::BadInput { point, fault }),
                    // It has been blamed because its value could not be used, so it is bad.
                    _ => Verdict::Undetermined(Why::NoData { point }),
                }
            }
        };
        (verdict, limit)
    }

    /// Everything that the verdict rests on. `sample` is the subject's.
    fn grounds(&self, at: u32, sample: &Sample, now: Now, points: &Points, held: Option<Level>, said: Said) -> Grounds {
        let instance = &self.instances[at as usize];
        let rule = &self.rules[instance.rule as usize];
        let seen = |role: u8, sample: &Sample| {
            let point = points.point(sample.point);
            InputSeen {
                role: Arc::clone(&rule.roles[usize::from(role)]),
                point: point.id.clone(),
                value: sample.value.clone(),
                unit: point.spec.kind.info().unit.into(),
                quality: sample.quality,
                time: sample.time,
                // As exactly as a record keeps it.
                age: Duration::from_micros(now.mono.since(sample.received.mono).as_micros() as u64),
            }
        };
        let mut inputs = vec![seen(0, sample)];
        let mut windows = Vec::new();
        if let Some(extra) = &instance.extra {
            inputs.extend(extra.links.iter().filter_map(|link| {
                let link = &self.links[*link as usize];
                let latest = self.latest.get(self.rows[link.point as usize].latest as usize)?;
                latest.as_ref().map(|sample| seen(link.role, sample))
            }));
            windows.extend(extra.windows.iter().zip(&rule.windows).map(|(window, (name, unit))| WindowSeen {
                name: Arc::clone(name),
                measure: window.measure,
                over: window.over,
                value: window.value(),
                unit: Arc::clone(unit),
            }));
        }
        let limits = Arc::clone(&rule.limits[instance.tuning as usize]);
        Grounds { at: now.wall, rule: rule.hash, said, held, inputs, windows, limits }
    }

    fn judged(
        &self,
        at: u32,
        sample: &Sample,
        points: &Points,
        verdict: Verdict,
        limit: Option<(String, f64)>,
        grounds: Option<Arc<Grounds>>,
    ) -> Judged {
        let instance = &self.instances[at as usize];
        let subject = points.point(PointIx(instance.subject));
        let evidence = Evidence {
            point: Some(subject.id.clone()),
            value: sample.value.clone(),
            unit: subject.spec.kind.info().unit.to_owned(),
            limit,
            source_time: sample.source_time,
            sequence: sample.sequence,
            received: sample.received.wall,
            grounds,
        };
        Judged { rule: RuleIx(instance.rule), subject: PointIx(instance.subject), verdict, evidence }
    }

    /// Tells each point of an instance which values it need not hear of any more, and which it must.
    fn settle(&mut self, at: u32) {
        let Self { instances, links, rows, noisy, .. } = self;
        let instance = &instances[at as usize];
        let abnormal = instance.outcome != Outcome::Normal
            || instance.emitted != Some(Outcome::Normal)
            || instance.active.is_some();
        let windows = instance.extra.as_ref().map(|extra| &extra.windows);
        let others = instance.extra.as_ref().map(|extra| extra.links.as_slice()).unwrap_or_default();
        for at in std::iter::once(&instance.link).chain(others) {
            let link = &mut links[*at as usize];
            let row = &mut rows[link.point as usize];
            if !link.read {
                row.low = row.low.max(link.low);
                row.high = row.high.min(link.high);
            }
            let watched = windows.is_some_and(|windows| windows.watch(link.role));
            link.noisy = link.read || watched || (abnormal && link.role == 0);
            if link.noisy && !link.listed {
                link.listed = true;
                row.noisy = true;
                noisy.entry(link.point).or_default().push(*at);
            }
        }
    }
}

fn limits_used(spec: &RuleSpec, tuning: &Tuning) -> Arc<[LimitUsed]> {
    let all = spec.limits.iter().zip(tuning.limits.iter().zip(&tuning.origins));
    all.map(|((name, limit), (value, origin))| LimitUsed {
        name: name.clone(),
        value: *value,
        unit: limit.unit.clone(),
        origin: *origin,
        source: limit.source.clone(),
    })
    .collect()
}

/// What a window may take for a number: nothing of a bad value.
fn usable(sample: &Sample) -> Option<f64> {
    let value = sample.value.as_ref().filter(|_| !matches!(sample.quality, Quality::Bad(_)));
    value.and_then(Value::as_f64).filter(|number| number.is_finite())
}

/// The rule's windows for a new instance, empty.
fn windows_of(spec: &RuleSpec, tuning: &Tuning) -> Windows {
    let operand = |name: &String| {
        let role = spec.inputs.iter().position(|input| input.role == *name).map(|at| Operand::Role(at as u8));
        let window = || spec.windows.iter().position(|window| window.name == *name);
        // One of the two is there, or the rule would not have been taken.
        role.or_else(|| window().map(|at| Operand::Window(at as u8))).unwrap_or(Operand::Role(0))
    };
    let all = spec.windows.iter().map(|window| {
        let of = operand(&window.input);
        let limit = window.limit.as_ref().and_then(|name| spec.limits.keys().position(|known| known == name));
        let mut sliding = Sliding::new(window.measure, of, window.over);
        sliding.less = window.minus.as_ref().map_or(of, operand);
        sliding.least = window.least;
        sliding.threshold = limit.map_or(sliding.threshold, |at| tuning.limits[at]);
        sliding
    });
    Windows::new(all.collect(), spec.inputs.len())
}

/// The number that ranges are about. Bad values are all alike; a text is a number to nobody and never in a range.
fn number_of(sample: &Sample) -> f64 {
    match (&sample.quality, &sample.value) {
        (Quality::Bad(_), _) | (_, None) => 0.0,
        (_, Some(value)) => value.as_f64().unwrap_or(f64::NAN),
    }
}

fn member(sample: &Sample, now: Now) -> Member {
    let usable = !matches!(sample.quality, Quality::Bad(_));
    Member {
        value: sample.value.clone().filter(|_| usable),
        quality: sample.quality,
        age_s: now.mono.since(sample.received.mono).as_secs_f64(),
        track: Track::default(),
    }
}

fn fill_frame(frame: &mut Frame, names: &Arc<Names>, roles: usize, tuning: &Tuning, active: Option<Level>) {
    frame.names = Arc::clone(names);
    frame.roles.resize_with(roles, Role::default);
    frame.roles.iter_mut().for_each(|role| role.members.clear());
    frame.windows.clear();
    frame.limits.clear();
    frame.limits.extend_from_slice(&tuning.limits);
    frame.deadband = tuning.deadband;
    frame.active = active;
}

/// Calls a script with made-up inputs around every limit, so that a fault shows when the rule is loaded and not on the
/// day of the fire.
fn rehearse(sandbox: &mut Sandbox, spec: &RuleSpec, names: &Arc<Names>, script: &Script) -> Result<(), ScriptError> {
    let tuning = Tuning::of(spec);
    let mut numbers: Vec<f64> = tuning.limits.to_vec();
    numbers.extend([0.0, numbers.iter().copied().fold(1.0, f64::max) * 2.0]);
    numbers.push(numbers.iter().copied().fold(-1.0, f64::min) * 2.0);
    for turn in 0..numbers.len() + 2 {
        let number = numbers[turn % numbers.len()];
        let alone = turn == numbers.len();
        let mut frame = sandbox.frame();
        let active = (turn == numbers.len() + 1).then_some(Level::Red);
        fill_frame(&mut frame, names, spec.inputs.len(), &tuning, active);
        // Noon and midnight.
        frame.second_of_day = turn as u32 % 2 * 43_200;
        for (input, role) in spec.inputs.iter().zip(&mut frame.roles) {
            if alone && input.optional {
                continue;
            }
            let value = match input.kind.info().form {
                Form::Number => Value::Number(number),
                Form::Flag => Value::Flag(turn % 2 == 0),
                Form::Text => Value::Text("".into()),
            };
            role.members.push(Member {
                value: Some(value),
                quality: Quality::Good,
                age_s: 1.0,
                track: Track::default(),
            });
        }
        let value = (!alone).then_some(number);
        frame.windows.extend(spec.windows.iter().map(|_| Seen { value, track: Track::default() }));
        drop(frame);
        sandbox.call(script)?;
    }
    Ok(())
}

/// Whether the input takes this point, where it names some.
fn is_named(input: &Input, points: &Points, point: PointIx) -> bool {
    let id = points.point(point).id.as_str();
    input.points.is_empty() || input.points.iter().any(|pattern| glob(pattern, id))
}

/// What subject and other must have in common, as one number; `None` when the place is not known well enough.
/// Equal numbers are checked again by [`in_scope`].
fn scope_key(scope: Scope, points: &Points, point: PointIx, is_subject: bool) -> Option<u64> {
    let place = &*points.device_of(point).place;
    let Place { area, building, unit, floor, room, .. } = place;
    let mut hasher = DefaultHasher::new();
    let storey = |of_other: i32| place.storey().map(|storey| if is_subject { storey + of_other } else { storey });
    match scope {
        Scope::Device => points.point(point).device.0.hash(&mut hasher),
        Scope::Room if !room.is_empty() && !floor.is_empty() => (area, building, unit, floor, room).hash(&mut hasher),
        Scope::Floor if !floor.is_empty() => (area, building, unit, floor).hash(&mut hasher),
        Scope::Above => (area, building, unit, storey(1)?).hash(&mut hasher),
        Scope::Below => (area, building, unit, storey(-1)?).hash(&mut hasher),
        Scope::Shaft if !room.is_empty() => (area, building, unit, room).hash(&mut hasher),
        Scope::Unit if !(area.is_empty() && building.is_empty()) => (area, building, unit).hash(&mut hasher),
        Scope::Building if !(area.is_empty() && building.is_empty()) => (area, building).hash(&mut hasher),
        Scope::Site => {}
        Scope::Room | Scope::Floor | Scope::Shaft | Scope::Unit | Scope::Building => return None,
    }
    Some(hasher.finish())
}

fn in_scope(scope: Scope, points: &Points, subject: PointIx, other: PointIx) -> bool {
    let (here, there) = (&points.device_of(subject).place, &points.device_of(other).place);
    let higher = || Some(there.storey()? - here.storey()?).filter(|_| here.same_unit(there));
    match scope {
        Scope::Device => points.point(subject).device == points.point(other).device,
        Scope::Room => here.same_room(there),
        Scope::Floor => here.same_floor(there),
        Scope::Above => higher() == Some(1),
        Scope::Below => higher() == Some(-1),
        Scope::Shaft => here.same_unit(there) && here.room == there.room && !here.room.is_empty(),
        Scope::Unit => here.same_unit(there),
        Scope::Building => here.same_building(there),
        Scope::Site => true,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use anmin_sensors::point::{DeviceId, Kind, PointSpec};
    use anmin_sensors::reading::Fault as Bad;

    use super::*;

    fn source(name: &str, head: &str, script: &str) -> RuleSource {
        let words = "{ zh = \"甲\", en = \"a\" }";
        let toml = format!("title = {words}\nmessage = {words}\nadvice = {words}\n{head}");
        RuleSource { folder: "site/rules".to_owned(), name: name.to_owned(), toml, script: script.to_owned() }
    }

    const GAS: &str = "deadband = 5.0\n[[input]]\nrole = \"gas\"\nkind = \"gas.lel\"\n\
        [limit.yellow]\nvalue = 10\nunit = \"%LEL\"\nsource = \"test\"\n\
        [limit.orange]\nvalue = 25\nunit = \"%LEL\"\nsource = \"test\"\n";
    const STAGES: &str = "fn judge(gas) {\n  if above(gas, \"orange\") { return orange(); }\n  \
        if above(gas, \"yellow\") { yellow() } else { normal() }\n}\n";

    fn load(sources: Vec<RuleSource>) -> RuleSet {
        let faults = Faults::default();
        let set = RuleSet::load(sources, Vec::new(), &faults);
        assert_eq!(set.broken(), []);
        set
    }

    fn device(points: &mut Points, id: &str, place: &str, kinds: &[&str]) -> Vec<PointIx> {
        let mut parts = place.split('/').map(str::to_owned);
        let mut part = || parts.next().unwrap_or_default();
        let place =
            Place { area: part(), building: part(), unit: part(), floor: part(), room: part(), ..Place::default() };
        let specs: Vec<_> = kinds
            .iter()
            .map(|kind| Arc::new(PointSpec::plain(&kind.replace('.', "-"), Kind::named(kind).expect("a known kind"))))
            .collect();
        let device = points.add(DeviceId::new(id), None, &"test".into(), &Arc::new(place), &specs).expect("a new id");
        points.device(device).points().collect()
    }

    fn now(seconds: u64) -> Now {
        Now { mono: Mono::from_nanos(1), wall: Wall::from_millis(1_000) }.plus(Duration::from_secs(seconds))
    }

    fn sample(point: PointIx, value: Option<Value>, quality: Quality, now: Now) -> Sample {
        let (time, news) = (now.wall, true);
        Sample { point, value, quality, time, source_time: None, received: now, sequence: Some(7), news }
    }

    fn good(point: PointIx, number: f64) -> Sample {
        sample(point, Some(Value::Number(number)), Quality::Good, now(1))
    }

    /// Gives the set one sample; the alarm stands at `active` wherever it is asked about.
    fn hear(set: &mut RuleSet, points: &Points, sample: Sample, active: Option<Level>) -> Vec<Judged> {
        let mut out = Vec::new();
        set.handle_samples(sample.received, points, &[sample], &|_, _| active, &mut out);
        out
    }

    fn levels(judged: &[Judged]) -> Vec<String> {
        judged
            .iter()
            .map(|judged| match &judged.verdict {
                Verdict::Normal => "normal".to_owned(),
                Verdict::Abnormal(finding) => finding.level.as_str().to_owned(),
                Verdict::Undetermined(why) => format!("{why:?}"),
            })
            .collect()
    }

    fn overrides(text: &str) -> (Vec<Override>, Vec<String>) {
        let faults = Faults::default();
        let document = Document::parse("site.toml", text, &faults).expect("TOML");
        let root = document.root(&faults);
        let found = root.tables("override").iter().filter_map(Override::read).collect();
        root.finish();
        (found, faults.take().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_verdict_names_level_limit_and_evidence() {
        let mut set = load(vec![source("gas/leak", GAS, STAGES)]);
        let mut points = Points::default();
        let gas = device(&mut points, "g", "a/1/1/1/101", &["gas.lel"])[0];
        assert_eq!(set.bind(&points), Bound { instances: 1, left_out: 0 });
        assert_eq!(set.bind(&points), Bound::default(), "bound once");
        let judged = hear(&mut set, &points, good(gas, 31.5), None);
        assert_eq!(judged.len(), 1);
        let finding = Finding { level: Level::Orange, limit: Some(("orange".to_owned(), 25.0)), note: None };
        assert_eq!(judged[0].verdict, Verdict::Abnormal(finding));
        let evidence = &judged[0].evidence;
        assert_eq!(evidence.value, Some(Value::Number(31.5)));
        assert_eq!((evidence.unit.as_str(), evidence.sequence), ("%LEL", Some(7)));
        assert_eq!(evidence.point.as_ref().map(|point| point.as_str()), Some("g/gas-lel"));
    }

    #[test]
    fn a_normal_verdict_that_nobody_waits_for_is_said_once() {
        let mut set = load(vec![source("gas/leak", GAS, STAGES)]);
        let mut points = Points::default();
        let gas = device(&mut points, "g", "a", &["gas.lel"])[0];
        set.bind(&points);
        assert_eq!(levels(&hear(&mut set, &points, good(gas, 1.0), None)), ["normal"]);
        assert!(hear(&mut set, &points, good(gas, 2.0), None).is_empty());
        assert_eq!(levels(&hear(&mut set, &points, good(gas, 12.0), None)), ["yellow"]);
        assert_eq!(levels(&hear(&mut set, &points, good(gas, 13.0), None)), ["yellow"], "evidence stays fresh");
        assert_eq!(levels(&hear(&mut set, &points, good(gas, 6.0), Some(Level::Yellow))), ["yellow"], "deadband");
        assert_eq!(levels(&hear(&mut set, &points, good(gas, 4.0), Some(Level::Yellow))), ["normal"]);
        assert_eq!(levels(&hear(&mut set, &points, good(gas, 4.0), Some(Level::Yellow))), ["normal"], "alarm clearing");
        assert!(hear(&mut set, &points, good(gas, 6.0), None).is_empty());
    }

    #[test]
    fn the_script_is_called_only_when_its_answer_could_change() {
        let mut set = load((0..1000).map(|n| source(&format!("gas/leak{n}"), GAS, STAGES)).collect());
        let mut points = Points::default();
        let gas = device(&mut points, "g", "a", &["gas.lel"])[0];
        set.bind(&points);
        let mut out = Vec::new();
        for n in 0..10_000 {
            set.handle_samples(now(n), &points, &[good(gas, (n % 97) as f64 / 10.0)], &|_, _| None, &mut out);
        }
        assert_eq!((set.calls(), out.len()), (1000, 1000));
    }

    #[test]
    fn what_is_no_news_is_not_judged() {
        let mut set = load(vec![source("gas/leak", GAS, STAGES)]);
        let mut points = Points::default();
        let gas = device(&mut points, "g", "a", &["gas.lel"])[0];
        set.bind(&points);
        let old = Sample { news: false, ..good(gas, 99.0) };
        assert!(hear(&mut set, &points, old, None).is_empty());
    }

    #[test]
    fn doubt_raises_and_never_clears_or_lowers() {
        let mut set = load(vec![source("gas/leak", GAS, STAGES)]);
        let mut points = Points::default();
        let gas = device(&mut points, "g", "a", &["gas.lel"])[0];
        set.bind(&points);
        let doubtful = |number| sample(gas, Some(Value::Number(number)), Quality::Uncertain(Doubt::Jump), now(1));
        assert_eq!(levels(&hear(&mut set, &points, doubtful(30.0), None)), ["orange"]);
        assert!(hear(&mut set, &points, doubtful(1.0), None).is_empty(), "a pending alarm is not called off");
        assert!(hear(&mut set, &points, doubtful(1.0), Some(Level::Orange)).is_empty());
        assert!(hear(&mut set, &points, doubtful(12.0), Some(Level::Orange)).is_empty());
        assert_eq!(levels(&hear(&mut set, &points, good(gas, 12.0), Some(Level::Orange))), ["yellow"]);
        assert_eq!(levels(&hear(&mut set, &points, good(gas, 1.0), Some(Level::Yellow))), ["normal"]);
    }

    #[test]
    fn bad_input_is_not_normal() {
        let head = format!("on_bad = \"red\"\n{GAS}");
        let mut set = load(vec![source("gas/leak", GAS, STAGES), source("gas/strict", &head, STAGES)]);
        let mut points = Points::default();
        let gas = device(&mut points, "g", "a", &["gas.lel"])[0];
        set.bind(&points);
        let lost = || sample(gas, None, Quality::Bad(Bad::Comms), now(1));
        assert_eq!(
            levels(&hear(&mut set, &points, lost(), None)),
            ["BadInput { point: g/gas-lel, fault: Comms }", "red"]
        );
        assert_eq!(levels(&hear(&mut set, &points, lost(), None)).len(), 2, "and stays so");
        assert_eq!(levels(&hear(&mut set, &points, good(gas, 1.0), None)), ["normal", "normal"]);
    }

    #[test]
    fn inputs_are_bound_by_scope_whatever_comes_first() {
        let head = "[[input]]\nrole = \"smoke\"\nkind = \"fire.smoke\"\n\
            [[input]]\nrole = \"heat\"\nkind = \"fire.temperature\"\nscope = \"room\"\n\
            [limit.fire]\nvalue = 54\nunit = \"degC\"\nlevel = \"red\"\nsource = \"test\"\n";
        let script = "fn judge(smoke, heat) { if on(smoke) && above(heat, \"fire\") { red() } else { normal() } }";
        let flag = |point, flag| sample(point, Some(Value::Flag(flag)), Quality::Good, now(1));

        let mut set = load(vec![source("fire/both", head, script)]);
        let mut points = Points::default();
        let smoke = device(&mut points, "s", "a/1/1/1/101", &["fire.smoke"])[0];
        assert_eq!(set.bind(&points).instances, 0, "no heat in the room");
        let elsewhere = device(&mut points, "h0", "a/1/1/1/102", &["fire.temperature"])[0];
        assert_eq!(set.bind(&points).instances, 0, "heat in another room");
        let here = device(&mut points, "h1", "a/1/1/1/101", &["fire.temperature"])[0];
        assert_eq!(set.bind(&points).instances, 1);

        assert_eq!(
            levels(&hear(&mut set, &points, flag(smoke, true), None)),
            ["NoData { point: h1/fire-temperature }"]
        );
        assert!(hear(&mut set, &points, good(elsewhere, 90.0), None).is_empty());
        assert_eq!(levels(&hear(&mut set, &points, good(here, 60.0), None)), ["red"], "the other input decides");
        let second = device(&mut points, "h2", "a/1/1/1/101", &["fire.temperature"])[0];
        assert_eq!(set.bind(&points).instances, 0, "the same instance reads one more");
        assert!(hear(&mut set, &points, good(here, 61.0), None).is_empty(), "known to change nothing");
        assert_eq!(levels(&hear(&mut set, &points, good(second, 70.0), None)), ["red"], "first word of a new point");
        assert_eq!(levels(&hear(&mut set, &points, good(here, 20.0), None)), ["red"], "the second still burns");
        assert_eq!(levels(&hear(&mut set, &points, good(second, 20.0), None)), ["normal"]);
        let lost = |point| sample(point, None, Quality::Bad(Bad::Silent), now(1));
        assert!(hear(&mut set, &points, lost(second), None).is_empty(), "one of two is enough");
        assert_eq!(
            levels(&hear(&mut set, &points, lost(here), None)),
            ["BadInput { point: h1/fire-temperature, fault: Silent }"]
        );
    }

    #[test]
    fn scopes_reach_as_far_as_they_say() {
        let cases = [
            ("device", "a/1/1/1/101", false),
            ("room", "a/1/1/1/101", true),
            ("room", "a/1/1/1/102", false),
            ("room", "a/1/1/1/", false),
            ("floor", "a/1/1/1/102", true),
            ("floor", "a/1/1/2/101", false),
            ("above", "a/1/1/2/901", true),
            ("above", "a/1/2/2/901", false),
            ("above", "a/1/1/1/102", false),
            ("below", "a/1/1/B1/", true),
            ("below", "a/1/1/-1/", true),
            ("below", "a/1/1/2/101", false),
            ("shaft", "a/1/1/9/101", true),
            ("shaft", "a/1/1/9/102", false),
            ("unit", "a/1/1/9/", true),
            ("unit", "a/1/2/1/101", false),
            ("site", "z/7///", true),
            ("building", "a/1/2/7/", true),
            ("building", "a/2/1/1/101", false),
        ];
        for (scope, place, reached) in cases {
            let head = format!(
                "[[input]]\nrole = \"smoke\"\nkind = \"fire.smoke\"\n\
                 [[input]]\nrole = \"heat\"\nkind = \"fire.temperature\"\nscope = \"{scope}\"\n"
            );
            let script = "fn judge(smoke, heat) { if on(smoke) && heat.present { red() } else { normal() } }";
            let mut set = load(vec![source("fire/both", &head, script)]);
            let mut points = Points::default();
            device(&mut points, "s", "a/1/1/1/101", &["fire.smoke"]);
            device(&mut points, "h", place, &["fire.temperature"]);
            assert_eq!(set.bind(&points).instances == 1, reached, "{scope} reaches {place}");
        }
    }

    #[test]
    fn inputs_may_name_their_points() {
        let head = "[[input]]\nrole = \"gas\"\nkind = \"gas.lel\"\npoints = [\"kitchen-*\"]\n\
            [[input]]\nrole = \"fan\"\nkind = \"power.current\"\nscope = \"site\"\npoints = [\"fan-?\", \"roof/*\"]\n\
            [limit.runs]\nvalue = 1\nunit = \"A\"\nsource = \"test\"\n";
        let script = "fn judge(gas, fan) { if below(fan, \"runs\") { blue() } else { normal() } }";
        let mut set = load(vec![source("gas/fan", head, script)]);
        let mut points = Points::default();
        let kitchen = device(&mut points, "kitchen-1", "a/1", &["gas.lel"])[0];
        device(&mut points, "cellar", "a/1", &["gas.lel"]);
        device(&mut points, "other", "a/1", &["power.current"]);
        assert_eq!(set.bind(&points).instances, 0, "neither the cellar's gas nor another current");
        let fan = device(&mut points, "roof", "z/9", &["power.current"])[0];
        assert_eq!(set.bind(&points).instances, 1);
        hear(&mut set, &points, good(fan, 0.0), None);
        assert_eq!(levels(&hear(&mut set, &points, good(kitchen, 0.0), None)), ["blue"]);
    }

    #[test]
    fn a_window_sums_what_fell_and_forgets_by_itself() {
        let head = "[[input]]\nrole = \"rain\"\nkind = \"flood.rain\"\n[[window]]\nname = \"hour\"\ninput = \"rain\"\n\
            over = \"1h\"\n[limit.blue]\nvalue = 10\nunit = \"mm\"\nsource = \"test\"\n";
        let script = "fn judge(rain) { if above(window(\"hour\"), \"blue\") { blue() } else { normal() } }";
        let mut set = load(vec![source("flood/rain", head, script)]);
        let mut points = Points::default();
        let rain = device(&mut points, "r", "a", &["flood.rain"])[0];
        set.bind(&points);
        let fall = |minute: u64, amount| sample(rain, Some(Value::Number(amount)), Quality::Good, now(minute * 60));
        assert_eq!(levels(&hear(&mut set, &points, fall(0, 6.0), None)), ["normal"]);
        assert!(hear(&mut set, &points, fall(30, 3.9), None).is_empty());
        assert_eq!(levels(&hear(&mut set, &points, fall(59, 0.2), None)), ["blue"]);
        assert_eq!(set.poll_timeout(), Some(now(3600).mono));
        let mut out = Vec::new();
        set.handle_timeout(now(3599), &points, &|_, _| Some(Level::Blue), &mut out);
        assert!(out.is_empty(), "too early is harmless");
        set.handle_timeout(now(3600), &points, &|_, _| Some(Level::Blue), &mut out);
        assert_eq!(levels(&out), ["normal"]);
        set.handle_timeout(now(9999), &points, &|_, _| None, &mut out);
        assert_eq!(set.poll_timeout(), None, "nothing is left to forget");
    }

    #[test]
    fn overrides_set_numbers_and_the_most_specific_wins() {
        let (found, faults) = overrides(
            "[[override]]\nrule = \"gas/leak\"\npoint = \"b3-2-gas/gas-lel\"\nlimit = { yellow = 3.0 }\n\
             [[override]]\nrule = \"gas/leak\"\ndevice = \"b3-*\"\nlimit = { yellow = 5.0, orange = 15.0 }\n\
             [[override]]\nrule = \"gas/leak\"\nplace = \"kitchen\"\non_delay = \"9s\"\nlimit = { yellow = 7.0 }\n\
             [[override]]\nrule = \"gas/leak\"\ndeadband = 1.0\nlimit = { yellow = 8.0 }\n\
             [[override]]\nrule = \"gas/leak\"\ndevice = \"b9-*\"\nenabled = false\n\
             [[override]]\nrule = \"gas/leak\"\ndevice = \"nobody\"\nescalate_after = \"1m\"\n",
        );
        assert_eq!(faults, Vec::<String>::new());
        let faults = Faults::default();
        let mut set = RuleSet::load(vec![source("gas/leak", GAS, STAGES)], found, &faults);
        assert!(faults.is_empty());
        let mut points = Points::default();
        let cases = [
            // Where nobody says a delay, it is the kind's.
            ("b1-gas", "hall", 8.0, 25.0, 1.0, 2),
            ("b2-gas", "kitchen", 7.0, 25.0, 1.0, 9),
            ("b3-1-gas", "kitchen", 5.0, 15.0, 1.0, 9),
            ("b3-2-gas", "hall", 3.0, 15.0, 1.0, 2),
        ];
        let subjects: Vec<PointIx> =
            cases.iter().map(|(id, area, ..)| device(&mut points, id, area, &["gas.lel"])[0]).collect();
        let off = device(&mut points, "b9-gas", "hall", &["gas.lel"])[0];
        assert_eq!(set.bind(&points).instances, cases.len());
        for ((id, _, yellow, orange, deadband, on_delay), subject) in cases.into_iter().zip(subjects) {
            let tuning = set.tuning(RuleIx(0), subject).clone();
            // Limits stand in the order of their names.
            assert_eq!(&*tuning.limits, [orange, yellow], "{id}");
            assert_eq!((tuning.deadband, tuning.on_delay.as_secs()), (deadband, on_delay), "{id}");
            let judged = hear(&mut set, &points, good(subject, yellow), None);
            assert_eq!(levels(&judged), ["yellow"], "{id}");
            assert_eq!(judged[0].evidence.limit, Some(("yellow".to_owned(), yellow)), "{id}");
        }
        assert!(hear(&mut set, &points, good(off, 99.0), None).is_empty());
        let idle: Vec<_> = set.idle_overrides().map(|over| over.device.clone()).collect();
        assert_eq!(idle, [Some("nobody".to_owned())]);

        let (found, faults) = overrides(
            "[[override]]\nrule = \"gas/leek\"\n[[override]]\nrule = \"gas/leak\"\nlimit = { yelow = 1 }\nlmit = 3\ndeadband = -1.0\n",
        );
        assert_eq!(
            faults,
            [
                "site.toml:6:1: `override[1].lmit` is not a known key\n  hint: did you mean `limit`?",
                "site.toml:7:12: `deadband` is negative, expected 0 or more",
            ]
        );
        let faults = Faults::default();
        RuleSet::load(vec![source("gas/leak", GAS, STAGES)], found, &faults);
        let said: Vec<String> = faults.take().iter().map(ToString::to_string).collect();
        assert_eq!(said, ["site.toml:2:8: there is no rule \"gas/leek\"\n  hint: did you mean `gas/leak`?"]);
        let (found, _) = overrides("[[override]]\nrule = \"gas/leak\"\nlimit = { yelow = 1 }\n");
        RuleSet::load(vec![source("gas/leak", GAS, STAGES)], found, &faults);
        let said: Vec<String> = faults.take().iter().map(ToString::to_string).collect();
        assert_eq!(said, ["site.toml:3:19: rule gas/leak has no limit `yelow`\n  hint: did you mean `yellow`?"]);
    }

    #[test]
    fn what_holds_of_a_point_is_known_before_it_speaks_and_without_what_its_rule_waits_for() {
        let toml = format!("{GAS}[[input]]\nrole = \"heat\"\nkind = \"fire.temperature\"\nscope = \"room\"\n");
        let script = STAGES.replace("judge(gas)", "judge(gas, heat)");
        let (found, _) = overrides(
            "[[override]]\nrule = \"gas/both\"\npoint = \"g/gas-lel\"\nlimit = { yellow = 6 }\non_delay = \"5s\"\n\
             [[override]]\nrule = \"gas/leak\"\ndevice = \"g\"\nenabled = false\n",
        );
        let sources = vec![source("gas/both", &toml, &script), source("gas/leak", GAS, STAGES)];
        let mut set = RuleSet::load(sources, found, &Faults::default());
        let mut points = Points::default();
        let gas = device(&mut points, "g", "a/1/1/1/101", &["gas.lel"])[0];
        let smoke = device(&mut points, "s", "a/1/1/1/101", &["fire.smoke"])[0];
        set.bind(&points);
        type Said = (String, bool, bool, Vec<(String, f64, Origin)>);
        let said = |set: &RuleSet, points: &Points| -> Vec<Said> {
            let limit = |limit: &LimitUsed| (limit.name.clone(), limit.value, limit.origin);
            let held = set.held_of(gas, points).into_iter();
            held.map(|held| {
                let limits = held.limits.iter().map(limit).collect();
                (held.spec.id.to_string(), held.is_judged, held.tuning.enabled, limits)
            })
            .collect()
        };
        let both = vec![("orange".to_owned(), 25.0, Origin::Rule), ("yellow".to_owned(), 6.0, Origin::Point)];
        let leak = vec![("orange".to_owned(), 25.0, Origin::Rule), ("yellow".to_owned(), 10.0, Origin::Rule)];
        let leak = ("gas/leak".to_owned(), false, false, leak);
        assert_eq!(said(&set, &points), [("gas/both".to_owned(), false, true, both.clone()), leak.clone()]);
        assert!(set.held_of(smoke, &points).is_empty(), "no rule is about such a point");
        device(&mut points, "h", "a/1/1/1/101", &["fire.temperature"]);
        set.bind(&points);
        assert_eq!(said(&set, &points), [("gas/both".to_owned(), true, true, both), leak], "now it is judged");
        assert_eq!(set.held_of(gas, &points)[0].tuning.on_delay, Duration::from_secs(5));
    }

    /// A slope and a neighbour, with a limit that the site has set for one device.
    #[test]
    fn a_verdict_keeps_what_it_rests_on_and_is_the_same_when_it_is_judged_again() {
        let toml = format!(
            "{GAS}\n[[input]]\nrole = \"other\"\nkind = \"gas.co\"\nscope = \"room\"\noptional = true\n\
             [[window]]\nname = \"rise\"\nmeasure = \"slope\"\ninput = \"gas\"\nover = \"60s\"\nleast = \"20s\"\n\
             [limit.fast]\nvalue = 3.0\nunit = \"%LEL/min\"\nlevel = \"yellow\"\nsource = \"experience\"\n"
        );
        let script = "fn judge(gas, other) { if above(window(\"rise\"), \"fast\") || above(gas, \"orange\") { yellow() } else { normal() } }";
        let (found, _) = overrides("[[override]]\nrule = \"gas/fast\"\ndevice = \"g-*\"\nlimit = { fast = 2.0 }\n");
        let load = |overrides| RuleSet::load(vec![source("gas/fast", &toml, script)], overrides, &Faults::default());
        let mut set = load(found);
        assert_eq!(set.broken(), []);
        let mut points = Points::default();
        device(&mut points, "far", "a/1/1/1/hall", &["gas.co"]);
        let (near, gas) = (
            device(&mut points, "co", "a/1/1/1/kitchen", &["gas.co"])[0],
            device(&mut points, "g-1", "a/1/1/1/kitchen", &["gas.lel"])[0],
        );
        set.bind(&points);
        let past = |seconds: u64, point, value: f64| {
            let at = Wall::from_millis(1_800_000_000_000).plus(Duration::from_secs(seconds));
            crate::replay::sample(point, at, Some(Value::Number(value)), Quality::Good)
        };
        let mut story = vec![past(0, near, 7.0)];
        story.extend((0..8).map(|n| past(5 + 10 * n, gas, 1.0 + n as f64 * 0.4)));
        let mut judged = Vec::new();
        for sample in &story {
            set.handle_samples(sample.received, &points, std::slice::from_ref(sample), &|_, _| None, &mut judged);
        }
        let quiet = judged.iter().find(|judged| judged.verdict == Verdict::Normal);
        assert!(quiet.is_none_or(|judged| judged.evidence.grounds.is_none()), "nobody asks why all is well");
        let judged = judged.pop().expect("2.4 %LEL/min is fast");
        let grounds = judged.evidence.grounds.clone().expect("it is abnormal");
        let source = ("g-1/gas-lel", "co/gas-co");
        let inputs: Vec<_> = grounds
            .inputs
            .iter()
            .map(|seen| (&*seen.role, seen.point.as_str(), seen.value.clone(), seen.age))
            .collect();
        let seconds = Duration::from_secs;
        let number = |value| Some(Value::Number(value));
        let gas_now = story.last().and_then(|sample| sample.value.clone());
        assert_eq!(inputs, [("gas", source.0, gas_now, seconds(0)), ("other", source.1, number(7.0), seconds(75))]);
        assert_eq!(grounds.windows[0].value.map(|slope| (slope * 1e6).round()), Some(2_400_000.0));
        assert_eq!(&*grounds.windows[0].unit, "%LEL/min");
        let limits: Vec<_> =
            grounds.limits.iter().map(|limit| (limit.name.as_str(), limit.value, limit.origin.as_str())).collect();
        assert_eq!(limits[0], ("fast", 2.0, "device"));
        assert!(limits[1..].iter().all(|(_, _, origin)| *origin == "rule"), "{limits:?}");
        assert_eq!((grounds.said, grounds.held), (Said::Abnormal(Level::Yellow), None));

        let rule = RuleIx(0);
        let in_force = set.in_force(rule, gas, &points).expect("it has just judged");
        let ids: Vec<&str> = in_force.points.iter().map(|(_, point)| point.id.as_str()).collect();
        assert_eq!(ids, ["co/gas-co", "g-1/gas-lel"], "and nobody else's points");
        let again = |mut set: RuleSet, points: &Points| {
            let find = |point: PointIx| points.find(["far/gas-co", source.1, source.0][point.0 as usize]);
            let story = story.iter().filter_map(|sample| Some(Sample { point: find(sample.point)?, ..sample.clone() }));
            // What came afterwards changes nothing.
            let later = find(gas).map(|point| past(200, point, 0.0));
            let subject = find(gas).expect("it is the subject");
            let judged = crate::replay::judge_again(&mut set, points, rule, subject, &grounds, story.chain(later));
            judged.expect("the rule is there").evidence.grounds.expect("it was asked for")
        };
        assert_eq!(crate::replay::otherwise(&grounds, &again(in_force.rule_set(), &in_force.points)), []);
        let mut other = load(Vec::new());
        other.bind(&in_force.points);
        let said = crate::replay::otherwise(&grounds, &again(other, &in_force.points));
        let said: Vec<String> = said.iter().map(|each| format!("{each:?}")).collect();
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].starts_with("Limit { was: Some(LimitUsed { name: \"fast\", value: 2.0"), "{said:?}");
        assert_eq!(said[1], "Said", "2.4 is below 3");
    }

    #[test]
    fn what_fell_before_a_restart_counts_with_the_next_reading_and_raises_nothing_by_itself() {
        let toml = format!("{GAS}[[window]]\nname = \"sum\"\ninput = \"gas\"\nover = \"1h\"\n");
        let script = "fn judge(gas) { if above(window(\"sum\"), \"orange\") { orange() } else { normal() } }";
        let mut points = Points::default();
        device(&mut points, "other", "a", &["gas.co"]);
        let gas = device(&mut points, "g", "a", &["gas.lel"])[0];
        let mut set = load(vec![source("gas/sum", &toml, script), source("gas/leak", GAS, STAGES)]);
        set.bind(&points);
        let wanted = set.refills(0, &points);
        let refill = Refill {
            rule: RuleId::new("gas/sum"),
            subject: PointId::new("g/gas-lel"),
            points: vec![PointId::new("g/gas-lel")],
            over: Duration::from_secs(3_600),
        };
        assert_eq!(wanted, std::slice::from_ref(&refill), "and nothing for a rule without windows");
        let now = |seconds: u64| now(100_000 + seconds);
        let before = |seconds: i64| Wall::from_micros(now(0).wall.micros() - seconds * 1_000_000);
        let readings = vec![
            (0, before(3_700), Some(50.0), Quality::Good),
            (0, before(3_000), Some(8.0), Quality::Good),
            (0, before(2_000), Some(99.0), Quality::Bad(Bad::OutOfRange)),
            (0, before(1_000), Some(8.0), Quality::Good),
        ];
        let past = Past { of: refill, readings, until: before(5) };
        let say = |set: &mut RuleSet, seconds, value| {
            let mut out = Vec::new();
            let sample = sample(gas, Some(Value::Number(value)), Quality::Good, now(seconds));
            set.handle_samples(now(seconds), &points, &[sample], &|_, _| None, &mut out);
            let sum = |judged: &&Judged| judged.rule == RuleIx(0);
            out.iter().find(sum).map(|judged| levels(std::slice::from_ref(judged))[0].clone())
        };
        assert_eq!(say(&mut set, 0, 8.0).as_deref(), Some("normal"), "8 have fallen, as far as it knows");
        set.refill(now(1), &points, &past);
        let mut out = Vec::new();
        set.handle_timeout(now(1), &points, &|_, _| None, &mut out);
        assert_eq!(out, [], "nobody has spoken");
        set.refill(now(1), &points, &past);
        assert_eq!(say(&mut set, 2, 0.5), None, "24.5 in all, and the past counts once");
        assert_eq!(say(&mut set, 3, 0.6).as_deref(), Some("orange"), "25.1 in the last hour");
        assert_eq!(set.refills(0, &points), [], "it knows its past");
    }

    #[test]
    fn globs() {
        for (pattern, text, fits) in [
            ("b3-*", "b3-2-gas", true),
            ("b3-*", "b2-gas", false),
            ("*", "", true),
            ("*-gas", "b3-gas", true),
            ("b*-*s", "b3-2-gas", true),
            ("ab*ba", "aba", false),
            ("b3", "b3", true),
            ("b3", "b33", false),
            ("电*表", "电能表", true),
        ] {
            assert_eq!(glob(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn a_broken_rule_is_left_out_and_says_where() {
        let faults = Faults::default();
        let broken =
            source("gas/broken", GAS, "fn judge(gas) {\n    if abve(gas, \"orange\") { red() } else { normal() }\n}\n");
        let set = RuleSet::load(vec![broken, source("gas/leak", GAS, STAGES)], Vec::new(), &faults);
        let left: Vec<&str> = set.rules().map(|(_, spec)| spec.id.as_str()).collect();
        assert_eq!((left, faults.is_empty()), (vec!["gas/leak"], true));
        assert_eq!(set.broken().len(), 1);
        assert_eq!(
            set.broken()[0].faults[0].to_string(),
            "site/rules/gas/broken.rhai:2:8: there is no function `abve`\n  hint: did you mean `above(point, \"limit\")`?"
        );
    }

    #[test]
    fn a_later_source_takes_the_place_of_an_earlier_one_unless_it_fails() {
        let ours = "fn judge(gas) { if above(gas, \"yellow\") { red() } else { normal() } }";
        let faults = Faults::default();
        let sources = vec![
            source("gas/leak", GAS, STAGES),
            source("gas/leak", GAS, ours),
            source("gas/leak", GAS, "fn judge(gas) {"),
        ];
        let mut set = RuleSet::load(sources, Vec::new(), &faults);
        assert_eq!((set.rules().len(), set.broken().len()), (1, 1));
        let mut points = Points::default();
        let gas = device(&mut points, "g", "a", &["gas.lel"])[0];
        set.bind(&points);
        assert_eq!(levels(&hear(&mut set, &points, good(gas, 11.0), None)), ["red"]);
    }

    #[test]
    fn a_script_that_fails_at_run_time_silences_nobody_else() {
        let runs_away =
            "fn judge(gas) { if gas.value > 40.0 && gas.value < 41.0 { let n = 0; loop { n += 1; } } normal() }";
        let mut set =
            load(vec![source("gas/a", GAS, STAGES), source("gas/b", GAS, runs_away), source("gas/c", GAS, STAGES)]);
        let mut points = Points::default();
        let gas = device(&mut points, "g", "a", &["gas.lel"])[0];
        set.bind(&points);
        let said = levels(&hear(&mut set, &points, good(gas, 40.5), None));
        assert_eq!(said[0], "orange");
        assert!(said[1].starts_with("ScriptFailed(\"gas/b.rhai:1:"), "{}", said[1]);
        assert!(said[1].contains("more than 20000 operations"), "{}", said[1]);
        assert_eq!(said[2], "orange");
        let said = levels(&hear(&mut set, &points, good(gas, 1.0), None));
        assert_eq!((said[0].as_str(), said[2].as_str()), ("normal", "normal"));
        assert!(said[1].starts_with("ScriptFailed"), "it is parked: {}", said[1]);
        let mut out = Vec::new();
        let then = good(gas, 1.0).received.plus(Duration::from_secs(1));
        set.handle_timeout(then, &points, &|_, _| None, &mut out);
        assert_eq!(levels(&out), ["normal"], "and asked again by what the point said last");
    }

    /// Goal: the ranges are right. Method: the same random story for a set that uses them and for one that is made to
    /// forget them before each sample; what stands must be the same after every sample.
    #[test]
    fn a_cached_verdict_is_the_verdict() {
        let limits = "[limit.low]\nvalue = 10\nunit = \"%LEL\"\nlevel = \"yellow\"\nsource = \"test\"\n\
            [limit.high]\nvalue = 20\nunit = \"%LEL\"\nlevel = \"red\"\nsource = \"test\"\n\
            [limit.any]\nvalue = 14\nunit = \"%LEL\"\nsource = \"test\"\n";
        let one = format!("deadband = 3.0\n[[input]]\nrole = \"gas\"\nkind = \"gas.lel\"\n{limits}");
        let two = format!(
            "deadband = 2.0\n[[input]]\nrole = \"gas\"\nkind = \"gas.lel\"\n\
             [[input]]\nrole = \"other\"\nkind = \"gas.lel\"\nscope = \"room\"\noptional = true\n{limits}"
        );
        let sums = format!("{one}[[window]]\nname = \"sum\"\ninput = \"gas\"\nover = \"40s\"\n");
        let window = |name: &str, rest: &str| {
            format!("[[window]]\nname = \"{name}\"\nmeasure = \"{name}\"\ninput = \"gas\"\n{rest}\n")
        };
        let stairs = [
            &two,
            "[limit.long]\nvalue = 9\nunit = \"s\"\nlevel = \"blue\"\nsource = \"test\"\n",
            &window("mean", "over = \"30s\"\nleast = \"5s\""),
            &window("slope", "over = \"50s\""),
            &window("time_above", "over = \"60s\"\nlimit = \"any\""),
            &window("difference", "minus = \"mean\""),
            "[[window]]\nname = \"most\"\nmeasure = \"max\"\ninput = \"other\"\nover = \"25s\"\nleast = \"0s\"\n",
        ]
        .concat();
        let sources = || {
            vec![
                source(
                    "t/stages",
                    &one,
                    "fn judge(gas) { if above(gas, \"high\") { red() } else if above(gas, \"low\") { yellow() } else { normal() } }",
                ),
                source(
                    "t/below",
                    &one,
                    "fn judge(gas) { if below(gas, \"low\") { blue() } else if !below(gas, \"high\") { orange(\"far\") } else { normal() } }",
                ),
                source(
                    "t/any",
                    &one,
                    "fn judge(gas) { if above(gas, \"any\") || gas.on && below(gas, \"low\") { yellow() } else { normal() } }",
                ),
                source(
                    "t/value",
                    &one,
                    "fn judge(gas) { if gas.value * 2.0 > limit(\"high\") { yellow() } else { normal() } }",
                ),
                source(
                    "t/age",
                    &one,
                    "fn judge(gas) { if gas.age_s < 5.0 && above(gas, \"any\") { yellow() } else { normal() } }",
                ),
                source(
                    "t/quality",
                    &one,
                    "fn judge(gas) { if !gas.ok { return unknown(gas.quality); } if above(gas, \"low\") { red() } else { normal() } }",
                ),
                source(
                    "t/two",
                    &two,
                    "fn judge(gas, other) { if above(gas, \"low\") && above(other, \"high\") { red() } else if other.present && below(other, \"low\") { blue() } else { normal() } }",
                ),
                source(
                    "t/sum",
                    &sums,
                    "fn judge(gas) { if above(window(\"sum\"), \"high\") { red() } else if above(gas, \"any\") { yellow() } else { normal() } }",
                ),
                source(
                    "t/mean",
                    &stairs,
                    "fn judge(gas, other) { if above(window(\"mean\"), \"any\") { red() } else if window(\"slope\").ok && above(window(\"slope\"), \"low\") { yellow() } else { normal() } }",
                ),
                source(
                    "t/time",
                    &stairs,
                    "fn judge(gas, other) { if above(window(\"time_above\"), \"long\") { orange() } else if below(window(\"difference\"), \"low\") && above(window(\"most\"), \"high\") { blue() } else { normal() } }",
                ),
                source(
                    "t/count",
                    &two,
                    "fn judge(gas, other) { if count_above(other, \"any\") >= 2 { red() } else { normal() } }",
                ),
                source(
                    "t/sum_value",
                    &sums,
                    "fn judge(gas) { if window(\"sum\").value > 55.0 { blue() } else { normal() } }",
                ),
            ]
        };
        for seed in 1..20_u64 {
            let mut dice = seed;
            let mut roll = |sides: u64| {
                // xorshift64*: good enough to tell stories.
                dice ^= dice >> 12;
                dice ^= dice << 25;
                dice ^= dice >> 27;
                (dice.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
            };
            let (mut quick, mut slow) = (load(sources()), load(sources()));
            let mut points = Points::default();
            let mut gas: Vec<PointIx> = Vec::new();
            let mut stands: [BTreeMap<(RuleIx, PointIx), String>; 2] = Default::default();
            let mut active: BTreeMap<(RuleIx, PointIx), Level> = BTreeMap::new();
            let mut at = now(0);
            for step in 0..600 {
                if step % 150 == 0 {
                    gas.extend(device(&mut points, &format!("g{step}"), "a/1/1/1/101", &["gas.lel"]));
                    quick.bind(&points);
                    slow.bind(&points);
                }
                at = at.plus(Duration::from_millis(roll(9_000)));
                let quality = match roll(20) {
                    0 => Quality::Bad(Bad::Comms),
                    1 => Quality::Bad(Bad::Silent),
                    2 => Quality::Uncertain(Doubt::Jump),
                    _ => Quality::Good,
                };
                let number = [roll(28) as f64, 10.0, 14.0, 20.0, 7.0, 17.0, 9.999][roll(7) as usize];
                let value = (!matches!(quality, Quality::Bad(_))).then_some(Value::Number(number));
                let mut spoken = sample(gas[roll(gas.len() as u64) as usize], value, quality, at);
                spoken.news = roll(15) > 0;
                let level = |rule, subject| active.get(&(rule, subject)).copied();
                for row in &mut slow.rows {
                    row.seen = None;
                }
                for instance in &mut slow.instances {
                    instance.fresh = false;
                }
                let mut levels_of = BTreeMap::new();
                for (set, stands) in [&mut quick, &mut slow].into_iter().zip(&mut stands) {
                    let mut out = Vec::new();
                    set.handle_samples(at, &points, std::slice::from_ref(&spoken), &level, &mut out);
                    for judged in out {
                        let key = (judged.rule, judged.subject);
                        stands.insert(key, format!("{:?}", judged.verdict));
                        match judged.verdict {
                            Verdict::Normal => levels_of.insert(key, None),
                            Verdict::Abnormal(finding) => levels_of.insert(key, Some(finding.level)),
                            Verdict::Undetermined(_) => None,
                        };
                    }
                }
                let other = stands[0].iter().find(|(key, said)| stands[1].get(key) != Some(said));
                assert_eq!(
                    other,
                    None,
                    "seed {seed}, step {step}, {spoken:?}, slowly {:?}",
                    other.and_then(|(key, _)| stands[1].get(key))
                );
                assert_eq!(stands[0].len(), stands[1].len(), "seed {seed}, step {step}, {spoken:?}");
                // The book follows after a while, as delays have it.
                for (key, level) in levels_of {
                    if roll(3) > 0 {
                        match level {
                            Some(level) => active.insert(key, level),
                            None => active.remove(&key),
                        };
                    }
                }
            }
            assert!(quick.calls() < slow.calls() * 3 / 4, "{} of {} calls", quick.calls(), slow.calls());
        }
    }

    #[test]
    fn state_is_small() {
        assert!(size_of::<Link>() + size_of::<Instance>() <= 96, "{}", size_of::<Link>() + size_of::<Instance>());
        assert!(size_of::<Row>() <= 32, "{}", size_of::<Row>());
    }
}
