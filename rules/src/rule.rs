//! What a rule is, and what it can say.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anmin_sensors::point::{Kind, PointId, PointIx};
use anmin_sensors::reading::{Fault, Value};
use anmin_sensors::time::Wall;

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

/// Which points of the site an input is bound to, seen from the subject (the first input).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Points of the kind on the subject's own device.
    Device,
    /// Points of the kind in the subject's room.
    Room,
    /// Points of the kind on the subject's floor.
    Floor,
    /// Points of the kind in the subject's building.
    Building,
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
}

/// A named number that a script compares with; overridable per site, kind, device and point.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    pub value: f64,
    pub unit: String,
    /// The standard and clause, or the practice, that it follows.
    pub source: String,
    /// The level that breaking it stands for: the one it is named after unless the file says otherwise. The deadband
    /// holds a broken limit while the alarm stands at this level or above; without a level, at any.
    pub level: Option<Level>,
}

/// What bad quality means for a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnBad {
    /// A system alarm says that the rule cannot judge; its alarm stays as it is.
    Fault,
    /// Not knowing counts as abnormal at this level.
    Raise(Level),
}

/// A sum over a sliding time, kept by the engine, read by the script under `name`.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    pub name: String,
    /// Role whose values are summed.
    pub input: String,
    pub over: Duration,
}

/// Everything about a rule but its script.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleSpec {
    pub id: RuleId,
    /// What it is called on screens.
    pub title: Text,
    /// The first is the subject.
    pub inputs: Vec<Input>,
    pub windows: Vec<Window>,
    pub limits: BTreeMap<String, Limit>,
    /// The condition must hold so long before the alarm is raised.
    pub on_delay: Duration,
    /// The condition must be gone so long before it counts as gone.
    pub off_delay: Duration,
    /// How far back from a limit, in the subject's unit, the value must go while the alarm is active.
    pub deadband: f64,
    /// Stays raised after the condition has ended until a person resets it.
    pub latch: bool,
    pub on_bad: OnBad,
    /// Unacknowledged for so long the alarm escalates one step, again and again.
    pub escalate_after: Option<Duration>,
    /// Acknowledged but still active for so long it annunciates again.
    pub realarm_after: Option<Duration>,
    /// May hold `{value}`, `{unit}`, `{place}`, `{limit}`, `{level}`, `{point}`; windows by their name.
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
}

impl Tuning {
    /// The numbers of the rule's own file.
    pub fn of(spec: &RuleSpec) -> Self {
        Self {
            enabled: true,
            on_delay: spec.on_delay,
            off_delay: spec.off_delay,
            deadband: spec.deadband,
            escalate_after: spec.escalate_after,
            limits: spec.limits.values().map(|limit| limit.value).collect(),
        }
    }
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
