//! What a rule is, and what it can say.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anmin_sensors::document::{Reader, did_you_mean};
use anmin_sensors::point::{Form, Hazard, KINDS, Kind, Name, PointId, PointIx};
use anmin_sensors::reading::{Fault, Quality, Value};
use anmin_sensors::time::Wall;

use crate::alarm::Class;
use crate::casework::CaseKind;
pub use crate::window::Measure;

/// The four warning colours: blue IV, yellow III, orange II, red I. Ordered by gravity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    Blue,
    Yellow,
    Orange,
    Red,
}

impl Level {
    pub const ALL: [Self; 4] = [Self::Blue, Self::Yellow, Self::Orange, Self::Red];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blue => "blue",
            Self::Yellow => "yellow",
            Self::Orange => "orange",
            Self::Red => "red",
        }
    }

    pub const fn zh(self) -> &'static str {
        match self {
            Self::Blue => "蓝色",
            Self::Yellow => "黄色",
            Self::Orange => "橙色",
            Self::Red => "红色",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == name)
    }

    /// For `Reader::choice`.
    pub const CHOICES: [(&'static str, Self); 4] =
        [("blue", Self::Blue), ("yellow", Self::Yellow), ("orange", Self::Orange), ("red", Self::Red)];
}

/// `area/name`, such as `gas/leak`; `system/...` for the rules that anmin brings in its own code.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(Arc<str>);

impl RuleId {
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The same words in both languages of the duty desk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text {
    pub zh: String,
    pub en: String,
}

impl Text {
    /// A name that is the same in both.
    pub fn both(name: impl Into<String>) -> Self {
        let zh = name.into();
        Self { en: zh.clone(), zh }
    }
}

impl From<&Name> for Text {
    fn from(name: &Name) -> Self {
        Self { zh: name.zh.to_string(), en: name.en.to_string() }
    }
}

/// Which points of the site an input is bound to, seen from the subject (the first input).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Points of the kind on the subject's own device.
    Device,
    /// Points of the kind in the subject's room.
    Room,
    /// Points of the kind on the subject's floor.
    Floor,
    /// Points of the kind on the next floor up.
    Above,
    /// Points of the kind on the next floor down.
    Below,
    /// Points of the kind in rooms of the subject's room's name on any floor: a shaft, a stair well.
    Shaft,
    /// Points of the kind in the subject's unit of the building.
    Unit,
    /// Points of the kind in the subject's building.
    Building,
    /// Points of the kind anywhere.
    Site,
}

impl Scope {
    pub const CHOICES: [(&'static str, Self); 9] = [
        ("device", Self::Device),
        ("room", Self::Room),
        ("floor", Self::Floor),
        ("above", Self::Above),
        ("below", Self::Below),
        ("shaft", Self::Shaft),
        ("unit", Self::Unit),
        ("building", Self::Building),
        ("site", Self::Site),
    ];

    /// Where its points are, in words.
    pub const fn what(self) -> &'static str {
        match self {
            Self::Device => {
                "on the subject's own device, as all phases of a meter and what else it measures of its circuit"
            }
            Self::Room => "in the subject's room",
            Self::Floor => "on the subject's floor of its unit",
            Self::Above => {
                "on the next floor up; floors are told apart where their names are numbers, `B1` being below `1`"
            }
            Self::Below => "on the next floor down",
            Self::Shaft => "in rooms of the same name on any floor of the unit, as shafts and stair wells have it",
            Self::Unit => "anywhere in the subject's unit of its building",
            Self::Building => "anywhere in the subject's building",
            Self::Site => "anywhere in the site",
        }
    }
}

/// One role that a script's function takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    pub role: String,
    pub kind: Kind,
    /// Ignored for the first input: that one is the subject, and each point of its kind gets a rule instance.
    pub scope: Scope,
    /// A subject without a point for this input still gets the rule; the script sees an absent input.
    pub optional: bool,
    /// Only points of these ids, `*` standing for any letters; all when empty.
    pub points: Vec<String>,
}

/// Inputs that a rule may have.
pub const MAX_INPUTS: usize = 8;

/// A named number that a script compares with; overridable per site, kind, device and point.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    pub value: f64,
    pub unit: String,
    /// The standard and clause, or the practice, that it follows.
    pub source: Text,
    /// The level that breaking it stands for: the one it is named after unless the file says otherwise. The deadband
    /// holds a broken limit while the alarm stands at this level or above, or waits to; without a level, at any.
    pub level: Option<Level>,
    /// Instead of the rule's, for limits in another unit than the subject's.
    pub deadband: Option<f64>,
}

/// What bad quality means for a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnBad {
    /// A system alarm says that the rule cannot judge; its alarm stays as it is.
    Fault,
    /// Not knowing counts as abnormal at this level.
    Raise(Level),
}

/// What the engine makes of an input's recent past, read by the script under `name`.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    pub name: String,
    pub measure: Measure,
    /// Role that is watched; for a difference also a window declared before.
    pub input: String,
    /// What a difference takes away from its input: a role, or a window declared before.
    pub minus: Option<String>,
    /// No time for a difference, which is about this moment.
    pub over: Duration,
    /// For counts and times: the limit that the value must come to. A flag needs none.
    pub limit: Option<String>,
    /// Time that must be known within the window before it says anything.
    pub least: Duration,
}

/// Everything about a rule but its script.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleSpec {
    pub id: RuleId,
    /// What it is called on screens.
    pub title: Text,
    /// What its alarms are about, where that is not what the subject's kind says: a dirty smoke chamber is no fire.
    pub hazard: Option<Hazard>,
    /// What its alarms open, where that is neither an emergency nor, of a device's own health, a maintenance order.
    pub opens: Option<CaseKind>,
    /// The first is the subject.
    pub inputs: Vec<Input>,
    pub windows: Vec<Window>,
    pub limits: BTreeMap<String, Limit>,
    /// The condition must hold so long before the alarm is raised.
    pub on_delay: Duration,
    /// The condition must be gone so long before it counts as gone.
    pub off_delay: Duration,
    /// How far back from a limit, in the subject's unit, the value must go while the alarm is active or its on-delay runs.
    pub deadband: f64,
    /// Stays raised after the condition has ended until a person resets it.
    pub latch: bool,
    pub on_bad: OnBad,
    /// Unacknowledged for so long the alarm escalates one step, again and again.
    pub escalate_after: Option<Duration>,
    /// Acknowledged but still active for so long it annunciates again.
    pub realarm_after: Option<Duration>,
    /// May hold `{value}`, `{unit}`, `{place}`, `{limit}`, `{level}`, `{point}`, `{id}`, and `{note}`, the
    /// script's own words.
    pub message: Text,
    /// What to do first.
    pub advice: Text,
}

/// What a rule says about its subject at one moment.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    Normal,
    Abnormal(Finding),
    /// Not knowing is not normal: raises a system alarm, clears nothing.
    Undetermined(Why),
}

/// What is wrong, and the numbers that say so.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    pub level: Level,
    /// The limit that was broken: its name and value.
    pub limit: Option<(String, f64)>,
    /// What the script adds in its own words, such as a window's sum.
    pub note: Option<String>,
}

/// Why a rule cannot say.
#[derive(Clone, Debug, PartialEq)]
pub enum Why {
    /// An input has bad quality.
    BadInput { point: PointId, fault: Fault },
    /// The script failed or ran away; the text has position and cause.
    ScriptFailed(String),
    /// An input has not spoken since start. Give devices the time to speak before anybody is told.
    NoData { point: PointId },
    /// The script itself says that it cannot judge, in its own words.
    Unclear(String),
}

/// A verdict in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    Normal,
    Abnormal(Level),
    Undetermined,
}

impl Said {
    /// `normal`, a level, or `undetermined`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Abnormal(level) => level.as_str(),
            Self::Undetermined => "undetermined",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        match name {
            "normal" => Some(Self::Normal),
            "undetermined" => Some(Self::Undetermined),
            level => Level::named(level).map(Self::Abnormal),
        }
    }
}

impl Verdict {
    pub const fn said(&self) -> Said {
        match self {
            Self::Normal => Said::Normal,
            Self::Abnormal(finding) => Said::Abnormal(finding.level),
            Self::Undetermined(_) => Said::Undetermined,
        }
    }
}

/// Who has set a limit's number: the rule's own file, or the selector of the `[[override]]` that won.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The file of a shipped rule.
    Library,
    /// The file of a rule of the site's own.
    Rule,
    /// An override for all subjects of the rule.
    Site,
    Kind,
    Profile,
    Place,
    Device,
    Point,
}

impl Origin {
    /// From the least specific to the most.
    pub const ALL: [Self; 8] =
        [Self::Library, Self::Rule, Self::Site, Self::Kind, Self::Profile, Self::Place, Self::Device, Self::Point];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Library => "library",
            Self::Rule => "rule",
            Self::Site => "site",
            Self::Kind => "kind",
            Self::Profile => "profile",
            Self::Place => "place",
            Self::Device => "device",
            Self::Point => "point",
        }
    }

    pub const fn zh(self) -> &'static str {
        match self {
            Self::Library => "规则库",
            Self::Rule => "本站规则",
            Self::Site => "全站调整",
            Self::Kind => "按类型调整",
            Self::Profile => "按型号调整",
            Self::Place => "按位置调整",
            Self::Device => "按设备调整",
            Self::Point => "按测点调整",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|origin| origin.as_str() == name)
    }
}

/// The numbers of a rule that a site may set otherwise, as they hold for one subject.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuning {
    /// False when an override switches the rule off for this subject.
    pub enabled: bool,
    pub on_delay: Duration,
    pub off_delay: Duration,
    pub deadband: f64,
    pub escalate_after: Option<Duration>,
    /// In the order of `RuleSpec::limits`.
    pub limits: Box<[f64]>,
    /// Who has set each of them.
    pub origins: Box<[Origin]>,
}

impl Tuning {
    /// The numbers of the rule's own file, taken for a shipped one.
    pub fn of(spec: &RuleSpec) -> Self {
        Self {
            enabled: true,
            on_delay: spec.on_delay,
            off_delay: spec.off_delay,
            deadband: spec.deadband,
            escalate_after: spec.escalate_after,
            limits: spec.limits.values().map(|limit| limit.value).collect(),
            origins: spec.limits.values().map(|_| Origin::Library).collect(),
        }
    }
}

/// What tells one version of a rule from another: FNV-1a of its two files. No seal, since nobody gains by forging it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ContentHash(pub u64);

impl ContentHash {
    pub fn of(toml: &str, script: &str) -> Self {
        let bytes = toml.bytes().chain([0]).chain(script.bytes());
        Self(bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)))
    }

    /// From sixteen hexadecimal digits, as [`fmt::Display`] writes them.
    pub fn parse(text: &str) -> Option<Self> {
        u64::from_str_radix(text, 16).ok().filter(|_| text.len() == 16).map(Self)
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What a verdict rests on, whole: everything that the script saw, so that a person understands it and anybody can
/// judge it again.
#[derive(Clone, Debug, PartialEq)]
pub struct Grounds {
    /// When it was judged.
    pub at: Wall,
    pub rule: ContentHash,
    pub said: Said,
    /// The level at which the alarm stood or waited for its on-delay: deadbands go by it.
    pub held: Option<Level>,
    /// One for each point; a role that stands for several has several, the subject comes first.
    pub inputs: Vec<InputSeen>,
    pub windows: Vec<WindowSeen>,
    pub limits: Arc<[LimitUsed]>,
}

/// One input as it stood.
#[derive(Clone, Debug, PartialEq)]
pub struct InputSeen {
    pub role: Arc<str>,
    pub point: PointId,
    pub value: Option<Value>,
    pub unit: Cow<'static, str>,
    pub quality: Quality,
    /// The time that its reading counts for.
    pub time: Wall,
    /// Since it was received.
    pub age: Duration,
}

/// One window as it stood.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowSeen {
    pub name: Arc<str>,
    pub measure: Measure,
    /// No time for a difference.
    pub over: Duration,
    /// `None` while too little was known.
    pub value: Option<f64>,
    pub unit: Arc<str>,
}

/// One limit as it held for the subject.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitUsed {
    pub name: String,
    pub value: f64,
    pub unit: String,
    pub origin: Origin,
    /// The standard and clause, or the practice, that the rule's own number follows.
    pub source: Text,
}

/// The reading that an alarm's last change rests on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evidence {
    pub point: Option<PointId>,
    pub value: Option<Value>,
    pub unit: String,
    pub limit: Option<(String, f64)>,
    pub source_time: Option<Wall>,
    pub sequence: Option<u64>,
    pub received: Wall,
    /// What else the verdict rests on; `None` for what anmin watches by itself, and in records of before it was kept.
    pub grounds: Option<Arc<Grounds>>,
}

/// Index of a rule in the rule set; dense, only good until the rules are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleIx(pub u32);

/// One verdict of one rule about one subject, as the rule set hands it to the alarm book.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    pub rule: RuleIx,
    pub subject: PointIx,
    pub verdict: Verdict,
    /// The sample of the subject that was judged: what an alarm names as its evidence.
    pub evidence: Evidence,
}

/// The kinds, by name, that a rule file may use.
fn kind(r: &Reader<'_>, key: &'static str) -> Option<Kind> {
    r.suggest(key, KINDS.iter().map(|info| info.name));
    let name: String = r.required(key)?;
    let found = Kind::named(&name);
    if found.is_none() {
        let hint = did_you_mean(&name, KINDS.iter().map(|info| info.name));
        r.fault(key, format!("there is no kind {name:?}"), hint);
    }
    found
}

fn text(r: &Reader<'_>, key: &'static str) -> Option<Text> {
    let both = r.required_table(key)?;
    let (zh, en) = (both.required("zh"), both.required("en"));
    both.finish();
    Some(Text { zh: zh?, en: en? })
}

/// A name that scripts and overrides use: a small letter, then small letters, digits and underscores.
fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_lowercase())
        && word.len() <= 40
        && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

impl Input {
    /// Which points it reads, whatever it is called.
    pub(crate) fn reads(&self) -> (Kind, Scope, &[String]) {
        (self.kind, self.scope, &self.points)
    }

    fn read(r: &Reader<'_>) -> Option<Self> {
        let role: Option<String> = r.required("role");
        let kind = kind(r, "kind");
        let scope = r.choice("scope", &Scope::CHOICES).unwrap_or(Scope::Device);
        let optional = r.or("optional", false);
        let points = r.or("points", Vec::new());
        if let Some(role) = &role
            && !is_name(role)
        {
            r.fault("role", format!("`role` is {role:?}, expected a name such as \"gas\" or \"heat_2\""), None);
        }
        r.finish();
        Some(Self { role: role?, kind: kind?, scope, optional, points }).filter(|_| !r.is_faulty())
    }
}

/// What keeps an alarm from fluttering where the rule's file does not say it: by the kind of the subject.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Steady {
    pub on_s: u64,
    pub off_s: u64,
    /// In the kind's unit.
    pub deadband: f64,
}

impl Steady {
    /// On-delays follow common practice for the quantity, and are shortest where seconds count: a hand on a button waits
    /// for nothing. A flag has no deadband.
    pub fn of(kind: Kind) -> Self {
        let steady = |on_s, off_s, deadband| Self { on_s, off_s, deadband };
        match kind.as_str() {
            "fire.call_point" | "fire.alarm" | "care.sos" => steady(0, 0, 0.0),
            "fire.smoke" | "gas.detected" => steady(0, 30, 0.0),
            "gas.lel" => steady(2, 30, 5.0),
            "gas.co" => steady(5, 60, 5.0),
            "fire.temperature" => steady(5, 60, 3.0),
            "fire.smoke_density" => steady(10, 60, 0.02),
            "power.arc" => steady(0, 60, 3.0),
            "power.residual_current" => steady(5, 60, 30.0),
            "power.cable_temperature" => steady(10, 60, 3.0),
            "power.voltage" => steady(10, 30, 4.0),
            "power.current" => steady(10, 60, 1.0),
            "flood.level" => steady(15, 60, 2.0),
            "flood.rain" => steady(0, 600, 3.0),
            "flood.leak" | "care.fall" | "care.lift_trapped" => steady(5, 60, 0.0),
            "ground.tilt" => steady(600, 3600, 0.1),
            "ground.crack" => steady(600, 3600, 0.5),
            "env.noise" => steady(300, 900, 3.0),
            "env.temperature" => steady(60, 300, 1.0),
            "env.humidity" => steady(60, 300, 5.0),
            "device.battery" => steady(600, 600, 5.0),
            "device.signal" => steady(600, 3600, 4.0),
            "device.link_quality" => steady(600, 3600, 10.0),
            _ => steady(10, 60, 0.0),
        }
    }
}

impl Limit {
    fn read(name: &str, r: &Reader<'_>) -> Option<Self> {
        let (value, unit) = (r.required("value"), r.required("unit"));
        let source = match r.is_table("source") {
            true => text(r, "source"),
            false => r.required("source").map(|one: String| Text::both(one)),
        };
        let level = r.choice("level", &Level::CHOICES).or_else(|| Level::named(name));
        let deadband = r.optional("deadband");
        if deadband.is_some_and(|deadband| deadband < 0.0) {
            r.fault("deadband", "`deadband` is negative, expected 0 or more", None);
        }
        if source.as_ref().is_some_and(|source| source.zh.trim().is_empty() || source.en.trim().is_empty()) {
            r.fault(
                "source",
                "`source` is empty",
                Some("name the clause, or say that it is local practice".to_owned()),
            );
        }
        r.finish();
        Some(Self { value: value?, unit: unit?, source: source?, level, deadband }).filter(|_| !r.is_faulty())
    }
}

impl Window {
    fn read(r: &Reader<'_>) -> Option<Self> {
        let (name, input) = (r.required::<String>("name"), r.required("input"));
        let measure = r.choice("measure", &Measure::CHOICES).unwrap_or(Measure::Sum);
        let is_difference = measure == Measure::Difference;
        let over = if is_difference { Some(Duration::ZERO) } else { r.required("over") };
        let minus: Option<String> = if is_difference { r.required("minus") } else { None };
        let compares = matches!(measure, Measure::Count | Measure::TimeAbove);
        let limit = if compares { r.optional("limit") } else { None };
        let waits = matches!(measure, Measure::Mean | Measure::Min | Measure::Max | Measure::Slope);
        let least = match over {
            Some(over) if waits => r.or("least", over / 2),
            _ if measure == Measure::TimeAbove => r.or("least", Duration::ZERO),
            _ => Duration::ZERO,
        };
        if let Some(name) = &name
            && !is_name(name)
        {
            r.fault("name", format!("`name` is {name:?}, expected a name such as \"rain_3h\""), None);
        }
        if over.is_some_and(|over: Duration| over.is_zero() && !is_difference) {
            r.fault("over", "a window over no time holds nothing", None);
        }
        if over.is_some_and(|over| least > over) {
            r.fault("least", "`least` is longer than the window, which would never say anything", None);
        }
        r.finish();
        let window = Self { name: name?, measure, input: input?, minus, over: over?, limit, least };
        Some(window).filter(|_| !r.is_faulty())
    }
}

impl RuleSpec {
    /// What kind of case an alarm of this class opens; `None`: an emergency.
    pub fn case_of(&self, class: Class) -> Option<CaseKind> {
        self.opens.or((class == Class::Hazard(Hazard::Device)).then_some(CaseKind::Maintenance))
    }

    /// Reads a rule's TOML but for its `[[case]]`s, which the caller asks for before it finishes the reader.
    /// `None` when something is missing or wrong; each fault is noted.
    pub fn read(id: RuleId, r: &Reader<'_>) -> Option<Self> {
        let title = text(r, "title");
        let hazard = r.choice("hazard", &Hazard::ALL.map(|hazard| (hazard.as_str(), hazard)));
        let opens = r.choice("opens", &CaseKind::CHOICES);
        let inputs: Vec<Option<Input>> = r.tables("input").iter().map(Input::read).collect();
        let windows: Vec<Option<Window>> = r.tables("window").iter().map(Window::read).collect();
        let mut limits = Some(BTreeMap::new());
        if let Some(table) = r.table("limit") {
            for (name, entry) in table.entries() {
                if !is_name(name) {
                    table.fault(name, format!("{name:?} is no name for a limit, such as \"orange\""), None);
                }
                match (Limit::read(name, &entry), &mut limits) {
                    (Some(limit), Some(limits)) if is_name(name) => {
                        limits.insert(name.to_owned(), limit);
                    }
                    _ => limits = None,
                }
            }
        }
        let steady =
            inputs.first().and_then(Option::as_ref).map(|subject| Steady::of(subject.kind)).unwrap_or_default();
        let on_delay = r.or("on_delay", Duration::from_secs(steady.on_s));
        let off_delay = r.or("off_delay", Duration::from_secs(steady.off_s));
        let deadband = r.or("deadband", steady.deadband);
        if deadband < 0.0 {
            r.fault("deadband", format!("`deadband` is {deadband}, expected 0 or more"), None);
        }
        let latch = r.or("latch", false);
        let mut on_bads = vec![("fault", OnBad::Fault)];
        on_bads.extend(Level::CHOICES.map(|(name, level)| (name, OnBad::Raise(level))));
        let on_bad = r.choice("on_bad", &on_bads).unwrap_or(OnBad::Fault);
        let escalate_after = r.optional("escalate_after");
        let realarm_after = r.optional("realarm_after");
        let message = text(r, "message");
        let advice = text(r, "advice");
        let spec = Self {
            id,
            title: title?,
            hazard,
            opens,
            inputs: inputs.into_iter().collect::<Option<_>>()?,
            windows: windows.into_iter().collect::<Option<_>>()?,
            limits: limits?,
            on_delay,
            off_delay,
            deadband,
            latch,
            on_bad,
            escalate_after,
            realarm_after,
            message: message?,
            advice: advice?,
        };
        spec.check(r);
        (!r.is_faulty()).then_some(spec)
    }

    /// What must agree between the parts.
    fn check(&self, r: &Reader<'_>) {
        if self.inputs.is_empty() {
            r.fault("input", "a rule needs an `[[input]]`: the first is its subject", None);
        }
        if self.inputs.len() > MAX_INPUTS {
            r.fault("input", format!("a rule has at most {MAX_INPUTS} inputs, this has {}", self.inputs.len()), None);
        }
        for (n, input) in self.inputs.iter().enumerate() {
            if self.inputs[..n].iter().any(|other| other.role == input.role) {
                r.fault("input", format!("two inputs have the role {:?}", input.role), None);
            }
        }
        if self.inputs.first().is_some_and(|subject| subject.optional) {
            r.fault("input", "the first input is the subject and cannot be optional", None);
        }
        for n in 0..self.windows.len() {
            self.check_window(r, n);
        }
        for (name, limit) in &self.limits {
            let units = || {
                let inputs = self.inputs.iter().map(|input| input.kind.info().unit.to_owned());
                inputs.chain(self.windows.iter().map(|window| self.unit_of(window)))
            };
            if !units().any(|unit| unit == limit.unit) {
                let known: Vec<String> = units().collect();
                let message = format!(
                    "limit `{name}` is in {:?}, but inputs and windows are in {}",
                    limit.unit,
                    known.join(", ")
                );
                r.fault("limit", message, None);
            }
        }
        for (key, text) in [("message", &self.message), ("advice", &self.advice)] {
            for word in placeholders(&text.zh).chain(placeholders(&text.en)) {
                let known = ["value", "unit", "place", "limit", "level", "point", "id", "note"];
                if !known.contains(&word) {
                    r.fault(key, format!("`{key}` holds {{{word}}}, which nothing fills"), did_you_mean(word, known));
                }
            }
        }
    }
}

impl RuleSpec {
    fn check_window(&self, r: &Reader<'_>, n: usize) {
        let window = &self.windows[n];
        let (before, name) = (&self.windows[..n], &window.name);
        if before.iter().any(|other| other.name == *name) {
            r.fault("window", format!("two windows have the name {name:?}"), None);
        }
        let mut operand = |operand: &String| match self.inputs.iter().find(|input| input.role == *operand) {
            Some(input) if input.kind.info().form == Form::Text => {
                let message = format!("window `{name}` cannot watch {}, which is text", input.kind.as_str());
                r.fault("window", message, None);
            }
            Some(_) => {}
            None if window.measure == Measure::Difference && before.iter().any(|other| other.name == *operand) => {}
            None => r.fault(
                "window",
                format!("window `{name}` watches the input {operand:?}, which there is not"),
                did_you_mean(operand, self.inputs.iter().map(|input| input.role.as_str())),
            ),
        };
        operand(&window.input);
        window.minus.iter().for_each(&mut operand);
        let input = self.inputs.iter().find(|input| input.role == window.input);
        let is_number = input.is_some_and(|input| input.kind.info().form == Form::Number);
        match &window.limit {
            Some(limit) if !self.limits.contains_key(limit) => {
                let hint = did_you_mean(limit, self.limits.keys().map(String::as_str));
                r.fault("window", format!("window `{name}` names the limit {limit:?}, which there is not"), hint);
            }
            None if is_number && matches!(window.measure, Measure::Count | Measure::TimeAbove) => {
                let message = format!("window `{name}` does not say what its input must come to: `limit` is missing");
                r.fault("window", message, None);
            }
            _ => {}
        }
    }

    /// The unit of a window's value, in which limits for it are given.
    pub fn unit_of(&self, window: &Window) -> String {
        let own = match self.inputs.iter().find(|input| input.role == window.input) {
            Some(input) => input.kind.info().unit.to_owned(),
            // A difference of a window declared before; declared otherwise it has had its fault.
            None => {
                let mut before = self.windows.iter().take_while(|other| other.name != window.name);
                before.find(|other| other.name == window.input).map(|other| self.unit_of(other)).unwrap_or_default()
            }
        };
        match window.measure {
            Measure::Slope => format!("{own}/min"),
            Measure::TimeAbove => "s".to_owned(),
            Measure::Count => String::new(),
            Measure::Sum | Measure::Mean | Measure::Min | Measure::Max | Measure::Difference => own,
        }
    }
}

fn placeholders(text: &str) -> impl Iterator<Item = &str> {
    text.split('{').skip(1).filter_map(|rest| rest.split_once('}').map(|(word, _)| word))
}
