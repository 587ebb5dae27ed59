//! The JSON of the API, version 1. Converted by hand from the domain's types.
//!
//! Moments are RFC 3339 with milliseconds and the site's offset. Texts come in both languages. Within version 1 fields
//! may be added, never removed or given another meaning.

use std::collections::BTreeSet;

use anmin_rules::alarm::{Alarm, By, Cause, Subject, Transition};
use anmin_rules::broadcast::{Broadcast, BroadcastStep};
use anmin_rules::change::{NumberChange, RulesChange};
use anmin_rules::incident::{End, Incident, IncidentCause, IncidentChange, Note, Outcome, Situation};
use anmin_rules::library;
use anmin_rules::order::{Call, CallChange, OrderBody};
use anmin_rules::plan::Item;
use anmin_rules::rule::{Grounds, Level, Limit, LimitUsed, RuleId, Text};
use anmin_sensors::point::{Hazard, Kind, KindInfo, Name, Place, PointId};
use anmin_sensors::reading::{Sample, Value};
use anmin_sensors::time::Wall;
use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Site;
use super::drills::DrillWire;
use super::people::{SignInState, public_id};
use super::walks::WalkWire;
use crate::main_loop::query::{
    Database, DevicePage, HeldRule, PointChoices, PointPage, PointRow, Quarantined, RuleRow, Status,
};
use crate::store::audit::{self, Audited, Chain};
use crate::store::people::{Account, ApiToken};
use crate::store::state::{Entry, Journaled};
use crate::store::unusable::Kept;
use crate::store::{Bucket, DeadLetter};
use crate::subscription::{Position, Standing, Subscriber};
use crate::warning::book::Warning;
use crate::warning::message::Key;
use crate::warning::subject;

/// RFC 3339 with milliseconds and the zone's offset; years before 1 and after 9999 become the ends of the calendar.
pub fn stamp(at: Wall, zone: &TimeZone) -> String {
    // 0001-01-02 UTC: no offset reaches the year 0. The other end is jiff's own limit.
    const FIRST_MS: i64 = -62_135_510_400_000;
    let moment = Timestamp::from_millisecond(at.millis().max(FIRST_MS)).unwrap_or(Timestamp::MAX);
    let seconds = zone.to_offset(moment).seconds();
    // RFC 3339 cannot write the seconds that offsets of the nineteenth century had.
    let whole = Offset::from_seconds(seconds - seconds % 60).unwrap_or(Offset::UTC);
    moment.to_zoned_datetime(TimeZone::fixed(whole)).strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string()
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TextWire {
    pub zh: String,
    pub en: String,
}

impl From<Text> for TextWire {
    fn from(text: Text) -> Self {
        Self { zh: text.zh, en: text.en }
    }
}

impl From<&Name> for TextWire {
    fn from(name: &Name) -> Self {
        Text::from(name).into()
    }
}

impl From<&Text> for TextWire {
    fn from(text: &Text) -> Self {
        text.clone().into()
    }
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ValueWire {
    Number(f64),
    Flag(bool),
    Text(String),
}

impl From<&Value> for ValueWire {
    fn from(value: &Value) -> Self {
        match value {
            Value::Number(number) => Self::Number(*number),
            Value::Flag(flag) => Self::Flag(*flag),
            Value::Text(text) => Self::Text(text.as_ref().to_owned()),
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PlaceWire {
    pub zh: String,
    pub en: String,
    pub area: String,
    pub grid: String,
    pub building: String,
    pub unit: String,
    pub floor: String,
    pub room: String,
    /// Latitude and longitude, WGS-84.
    pub position: Option<(f64, f64)>,
}

impl From<&Place> for PlaceWire {
    fn from(place: &Place) -> Self {
        let Place { area, grid, building, unit, floor, room, position, polygon: _ } = place.clone();
        Self { zh: place.zh(), en: place.en(), area, grid, building, unit, floor, room, position }
    }
}

/// One rule in force.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RuleWire {
    pub id: String,
    pub title: TextWire,
    /// `library` or `site`.
    pub origin: String,
    pub hash: String,
    pub limits: Vec<RuleLimitWire>,
    pub on_delay_s: f64,
    pub off_delay_s: f64,
    pub deadband: f64,
    pub latch: bool,
    pub overrides: Vec<OverrideWire>,
    /// What it is tried on whenever it is read anew, in words.
    #[serde(default)]
    pub cases: Vec<String>,
    pub subjects: usize,
    pub open_alarms: usize,
    pub broken: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RuleLimitWire {
    pub name: String,
    pub value: f64,
    pub unit: String,
    pub level: Option<String>,
    pub source: TextWire,
}

/// What a rule holds of a point, whether it has spoken or not.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct HeldRuleWire {
    pub rule: String,
    pub title: TextWire,
    /// It judges the point: every input that it must have is there, and no override switches it off.
    pub judged: bool,
    /// No override switches it off for this point.
    pub enabled: bool,
    pub limits: Vec<LimitUsedWire>,
    pub on_delay_s: f64,
    pub off_delay_s: f64,
    pub deadband: f64,
}

impl From<&HeldRule> for HeldRuleWire {
    fn from(HeldRule { rule, title, tuning, limits, is_judged }: &HeldRule) -> Self {
        Self {
            rule: rule.to_string(),
            title: title.into(),
            judged: *is_judged,
            enabled: tuning.enabled,
            limits: limits.iter().map(limit_used).collect(),
            on_delay_s: tuning.on_delay.as_secs_f64(),
            off_delay_s: tuning.off_delay.as_secs_f64(),
            deadband: tuning.deadband,
        }
    }
}

/// The site's own numbers for a rule.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct OverrideWire {
    pub of: String,
    pub numbers: Vec<LimitWire>,
}

/// What a site that was read anew has changed, or would.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ReloadedWire {
    pub rules: usize,
    pub added: Vec<String>,
    pub removed: Vec<String>,
    pub changed: Vec<String>,
    pub numbers: Vec<NumberWire>,
    pub taken: Vec<String>,
    pub waits_for_restart: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct NumberWire {
    pub rule: String,
    pub of: String,
    pub name: String,
    pub from: Option<f64>,
    pub to: Option<f64>,
}

impl ReloadedWire {
    pub(super) fn new(rules: usize, change: &RulesChange, taken: Vec<String>, waits: Vec<String>) -> Self {
        let ids = |rules: &[RuleId]| rules.iter().map(ToString::to_string).collect();
        let number = |NumberChange { rule, of, name, from, to }: &NumberChange| NumberWire {
            rule: rule.to_string(),
            of: of.clone(),
            name: name.clone(),
            from: *from,
            to: *to,
        };
        Self {
            rules,
            added: ids(&change.added),
            removed: ids(&change.removed),
            changed: ids(&change.changed),
            numbers: change.numbers.iter().map(number).collect(),
            taken,
            waits_for_restart: waits,
        }
    }
}

impl From<&RuleRow> for RuleWire {
    fn from(row: &RuleRow) -> Self {
        let spec = &row.spec;
        let limit = |(name, limit): (&String, &Limit)| RuleLimitWire {
            name: name.clone(),
            value: limit.value,
            unit: limit.unit.clone(),
            level: limit.level.map(|level| level.as_str().to_owned()),
            source: (&limit.source).into(),
        };
        let numbers = |(of, numbers): &(String, Vec<(String, f64)>)| OverrideWire {
            of: of.clone(),
            numbers: numbers.iter().map(|(name, value)| LimitWire { name: name.clone(), value: *value }).collect(),
        };
        Self {
            id: spec.id.to_string(),
            title: (&spec.title).into(),
            origin: if row.source.folder == library::FOLDER { "library" } else { "site" }.to_owned(),
            hash: row.hash.to_string(),
            limits: spec.limits.iter().map(limit).collect(),
            on_delay_s: spec.on_delay.as_secs_f64(),
            off_delay_s: spec.off_delay.as_secs_f64(),
            deadband: spec.deadband,
            latch: spec.latch,
            overrides: row.overrides.iter().map(numbers).collect(),
            cases: row.source.cases(),
            subjects: row.subjects,
            open_alarms: row.open_alarms,
            broken: row.broken,
        }
    }
}

/// One row of the audit.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DeedWire {
    pub n: i64,
    pub at: Option<String>,
    pub who: Option<String>,
    pub through: Option<String>,
    pub address: Option<String>,
    /// In whose right; `None` where nobody had to prove who they are.
    pub account: Option<String>,
    pub role: Option<String>,
    pub what: Option<String>,
    pub about: Option<String>,
    pub done: Option<bool>,
    pub refused: Option<TextWire>,
    pub detail: serde_json::Value,
    /// Why the row cannot be read.
    pub damaged: Option<String>,
    pub hash: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AuditWire {
    pub rows: Vec<DeedWire>,
    /// `before` of the next page; `None` at the end.
    pub next: Option<i64>,
}

/// Whether the audit is what was written.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ChainWire {
    pub whole: bool,
    pub rows: u64,
    pub first: Option<ChainEndWire>,
    pub last: Option<ChainEndWire>,
    /// The hash of the last row: who has written it down elsewhere can tell later that nothing was cut off.
    pub head: String,
    /// The first row that is not what was written, and why.
    pub broken: Option<TextWire>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ChainEndWire {
    pub n: i64,
    pub at: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ByWire {
    pub by: String,
    pub at: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ShelfWire {
    pub until: String,
    pub by: String,
    pub why: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LimitWire {
    pub name: String,
    pub value: f64,
}

/// The reading that an alarm's last change rests on.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ReadingWire {
    pub point: Option<String>,
    pub value: Option<ValueWire>,
    pub unit: String,
    pub limit: Option<LimitWire>,
    pub source_time: Option<String>,
    pub sequence: Option<u64>,
    pub received: String,
}

/// What a verdict rests on, whole.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct EvidenceWire {
    /// When it was judged.
    pub at: String,
    /// Tells this version of the rule from others.
    pub rule_hash: String,
    /// `normal`, a level, or `undetermined`.
    pub said: String,
    /// The level at which the alarm stood then: deadbands go by it.
    pub held: Option<String>,
    pub inputs: Vec<InputWire>,
    pub windows: Vec<WindowWire>,
    pub limits: Vec<LimitUsedWire>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct InputWire {
    pub role: String,
    pub point: String,
    pub value: Option<ValueWire>,
    pub unit: String,
    pub quality: String,
    pub reason: String,
    pub time: String,
    pub age_seconds: f64,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct WindowWire {
    pub name: String,
    pub measure: String,
    /// 0 for a difference, which is about one moment.
    pub over_seconds: f64,
    /// `null` while too little was known.
    pub value: Option<f64>,
    pub unit: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LimitUsedWire {
    pub name: String,
    pub value: f64,
    pub unit: String,
    /// `library`, `rule`, `site`, `kind`, `profile`, `place`, `device` or `point`.
    pub origin: String,
    /// The standard and clause, or the practice, that the rule's own number follows.
    pub source: TextWire,
}

/// Why an alarm changed, and whether the rules in force say the same of what history kept.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ExplanationWire {
    pub alarm: String,
    pub rule: String,
    pub subject: String,
    /// Which of its transitions.
    pub seq: u32,
    pub cause: String,
    pub at: String,
    pub message: TextWire,
    /// `null` where none was kept.
    pub evidence: Option<EvidenceWire>,
    /// `null` where it cannot be judged again; `why_not` says why.
    pub again: Option<AgainWire>,
    pub why_not: Option<TextWire>,
}

/// The verdict of the rules in force, and what is otherwise than it was.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AgainWire {
    /// Whether the verdict is the same.
    pub same: bool,
    /// The rule is another version.
    pub rule_changed: bool,
    /// How many readings of history it rests on.
    pub readings: usize,
    pub limits: Vec<ChangedLimitWire>,
    pub inputs: Vec<ChangedInputWire>,
    pub windows: Vec<ChangedWindowWire>,
    pub evidence: EvidenceWire,
}

/// `was` is `null` for a new one, `is` for one that is gone.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ChangedLimitWire {
    pub was: Option<LimitUsedWire>,
    pub is: Option<LimitUsedWire>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ChangedInputWire {
    pub role: String,
    pub was: Option<ValueWire>,
    pub is: Option<ValueWire>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ChangedWindowWire {
    pub name: String,
    pub was: Option<f64>,
    pub is: Option<f64>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AlarmWire {
    pub id: String,
    /// Number of its transitions so far: the larger one is the newer state.
    pub seq: u32,
    pub rule: String,
    pub subject: String,
    /// `point`, `device` or `part`.
    pub subject_type: String,
    pub class: String,
    /// The incident that it is part of; `None` for those about anmin itself.
    pub incident: Option<String>,
    /// The drill that it is part of; `None`: it is real.
    pub drill: Option<String>,
    pub level: String,
    pub peak: String,
    pub state: String,
    pub open: bool,
    pub active: bool,
    pub latched: bool,
    pub title: TextWire,
    pub message: TextWire,
    pub advice: TextWire,
    pub place: PlaceWire,
    pub reading: ReadingWire,
    pub raised_at: String,
    pub changed_at: String,
    pub clock_doubtful: bool,
    pub acknowledged: Option<ByWire>,
    pub shelved: Option<ShelfWire>,
    pub out_of_service: Option<ByWire>,
    pub escalation: u32,
    pub escalate_at: Option<String>,
    pub realarm_at: Option<String>,
    /// Whether people let it leave the community; `None`: they were not asked.
    pub broadcast: Option<BroadcastWire>,
    /// Ids of the ways out that have told people outside of it, and have not taken it back.
    pub told_outside: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct BroadcastWire {
    /// `waiting`, `approved`, `refused`, `expired`, `taken_back` or `over`.
    pub state: String,
    pub level: String,
    pub asked_at: String,
    pub until: String,
    /// How many must say yes.
    pub people: usize,
    pub yes: Vec<ByWire>,
    pub no: Option<NoWire>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct NoWire {
    pub who: String,
    pub at: String,
    pub why: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct StepWire {
    pub state: String,
    pub at: String,
    pub by: String,
    pub why: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CallWire {
    pub alarm: String,
    pub station: String,
    /// In Chinese; `station_names` has both languages.
    pub station_name: String,
    pub station_names: TextWire,
    pub state: String,
    pub live: bool,
    pub late: bool,
    pub respond_by: String,
    pub arrive_by: String,
    pub control_by: String,
    /// Not under control in time: a person shall call 119.
    pub not_controlled: bool,
    /// Who was on duty when the station was called.
    pub crew: Vec<OnCallWire>,
    pub steps: Vec<StepWire>,
    pub seq: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct OnCallWire {
    pub id: String,
    pub name: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AlarmsWire {
    pub now: String,
    pub alarms: Vec<AlarmWire>,
    pub calls: Vec<CallWire>,
    /// `after` of the next page; `null` on the last.
    pub next: Option<String>,
    pub of: usize,
}

/// Each way out that has a message in force outside, and each siren that the public hears, once.
fn told_outside(alarm: &Alarm) -> Vec<String> {
    let sounding = alarm.sirens.iter().filter(|of| of.outward && !of.ended).map(|of| &*of.siren);
    let told: BTreeSet<&str> = alarm.cap_log.iter().map(|sent| sent.channel.as_str()).chain(sounding).collect();
    told.into_iter().map(str::to_owned).collect()
}

pub(super) fn limit_used(limit: &LimitUsed) -> LimitUsedWire {
    LimitUsedWire {
        name: limit.name.clone(),
        value: limit.value,
        unit: limit.unit.clone(),
        origin: limit.origin.as_str().to_owned(),
        source: (&limit.source).into(),
    }
}

/// What a command leaves behind; `alarm` is null when it closed the alarm.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AlarmViewWire {
    pub alarm: Option<AlarmWire>,
    /// What its last change by a verdict rests on; `null` for what anmin watches by itself.
    #[serde(default)]
    pub evidence: Option<EvidenceWire>,
    pub calls: Vec<CallWire>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct NoteWire {
    pub at: String,
    pub by: String,
    pub text: String,
    /// Where its photos are.
    #[serde(default)]
    pub photos: Vec<String>,
}

/// One step of an incident's checklist.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ItemWire {
    pub id: String,
    pub plan: String,
    pub version: String,
    pub text: TextWire,
    pub owner: String,
    pub due: Option<String>,
    /// Not done in time.
    pub late: bool,
    /// When it was done, or skipped.
    pub done_at: Option<String>,
    pub by: Option<String>,
    /// Why it was skipped.
    pub skipped: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct EndWire {
    pub at: String,
    pub by: String,
    pub outcome: String,
    /// Of a false alarm.
    pub cause: Option<String>,
    /// Of one that was merged.
    pub into: Option<String>,
    pub why: String,
}

/// An incident but for its alarms, which name it themselves.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct IncidentWire {
    pub id: String,
    /// Number of its changes so far: the larger one is the newer state.
    pub seq: u32,
    pub state: String,
    /// What it is and how far it has come, if it is no emergency.
    #[serde(default)]
    pub case: Option<CaseWire>,
    pub title: TextWire,
    pub place: PlaceWire,
    /// The drill that it is part of; `None`: it is real.
    pub drill: Option<String>,
    pub hazards: Vec<String>,
    pub peak: String,
    pub storm: bool,
    pub alarms: u32,
    pub opened_at: String,
    pub changed_at: String,
    pub settled_at: Option<String>,
    pub closes_at: Option<String>,
    pub notes: Vec<NoteWire>,
    /// What its plans say is to be done, in order.
    #[serde(default)]
    pub checklist: Vec<ItemWire>,
    /// When a person called 119.
    #[serde(default)]
    pub called_119: Option<NoteWire>,
    pub end: Option<EndWire>,
}

/// A quarrel to be mediated, what a resident asks for, or something to be repaired.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CaseWire {
    /// `mediation`, `report` or `maintenance`.
    pub kind: String,
    pub stage: String,
    /// Who sees to it; `null` while nobody has taken it on.
    pub owner: Option<String>,
    /// A person has opened it, in words of that person.
    #[serde(default)]
    pub by_hand: bool,
    /// The states of its kind, in their order.
    pub stages: Vec<String>,
    /// How a person may say that it ended.
    pub outcomes: Vec<String>,
}

/// An incident with what its open alarms say of it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SituationWire {
    #[serde(flatten)]
    pub incident: IncidentWire,
    /// The highest of its active alarms in force.
    pub level: Option<String>,
    pub open_alarms: usize,
    pub unacknowledged: usize,
    pub advice: Vec<TextWire>,
    pub people: Vec<String>,
    /// Open alarms that it has besides, beyond the places of whoever asks.
    #[serde(default)]
    pub beyond: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct IncidentsWire {
    pub now: String,
    pub incidents: Vec<SituationWire>,
    /// `cursor` of the next page; `null` on the last.
    pub next: Option<String>,
    /// Open incidents; `null` of closed ones, which nobody counts.
    pub of: Option<usize>,
}

/// One incident, its open alarms and their calls.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct IncidentViewWire {
    pub incident: SituationWire,
    pub alarms: Vec<AlarmWire>,
    pub calls: Vec<CallWire>,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct IncidentChangeWire {
    pub at: String,
    pub cause: &'static str,
    pub by: Option<String>,
    /// The incident that alarms came from or went to.
    pub other: Option<String>,
    /// The step of the checklist that it is about.
    pub step: Option<String>,
    pub incident: IncidentWire,
}

/// How many incidents ended so.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct OutcomeWire {
    pub outcome: String,
    pub cause: Option<String>,
    pub incidents: u64,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct TransitionWire {
    pub at: String,
    pub cause: &'static str,
    pub by: Option<String>,
    pub why: Option<String>,
    pub from: &'static str,
    pub to: &'static str,
    pub from_level: Option<&'static str>,
    pub alarm: AlarmWire,
    /// For what a verdict has changed, in the history of one alarm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<EvidenceWire>,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct CallChangeWire {
    pub at: String,
    pub cause: &'static str,
    pub message: TextWire,
    pub call: CallWire,
    pub level: &'static str,
    pub place: PlaceWire,
}

/// An order that was given up.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DeadLetterWire {
    pub order: String,
    pub way_out: String,
    pub at: String,
    pub why: String,
    /// The alarm that it is about and what it says; `None` when its bytes are damaged.
    pub alarm: Option<String>,
    pub level: Option<String>,
    pub message: Option<TextWire>,
}

/// Dead letters that are on their way again.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ResentWire {
    pub sent: Vec<String>,
    /// Warnings that hold no longer and stay where they are.
    #[serde(default)]
    pub over: Vec<String>,
}

/// An outside broker that is told to forget our session.
/// A warning from above, in force.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct WarningWire {
    pub source: String,
    pub identifier: String,
    pub sender: String,
    pub sender_name: TextWire,
    pub sent: String,
    pub until: String,
    pub exercise: bool,
    pub level: String,
    pub hazards: Vec<String>,
    pub event: TextWire,
    pub headline: TextWire,
    pub description: TextWire,
    pub instruction: TextWire,
    pub area: TextWire,
    /// Subject of its alarm.
    pub subject: String,
}

/// What became of a message that was posted.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TakenWire {
    pub identifier: String,
    pub sender: String,
    pub taken: String,
}

/// A subscription and how its subscriber stands.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SubscriptionWire {
    pub id: String,
    pub listeners: usize,
    /// How the posting to it stands, where it is posted to.
    pub posted: Option<PostedWire>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PostedWire {
    /// Rows of the journal that are not dealt with yet.
    pub behind: i64,
    pub taken_at: Option<String>,
    pub failing: Option<String>,
    pub left_out: u64,
}

/// What became of a test message.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TestedWire {
    pub subscriber: String,
    pub listeners: usize,
    /// What the receiver said, where it is posted to.
    pub answer: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DiscardedWire {
    pub broker: String,
}

/// One row of the journal.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct JournalWire {
    pub n: i64,
    #[serde(flatten)]
    pub entry: EntryWire,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EntryWire {
    Transition(Box<TransitionWire>),
    Call(Box<CallChangeWire>),
    Incident(Box<IncidentChangeWire>),
    Damaged(String),
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PointWire {
    pub id: String,
    pub device: String,
    pub label: TextWire,
    pub kind: &'static str,
    pub hazard: &'static str,
    pub title: TextWire,
    pub unit: &'static str,
    pub alarm_point: bool,
    pub place: PlaceWire,
    /// `null`: nothing was heard of it since the start.
    pub sample: Option<SampleWire>,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SampleWire {
    pub value: Option<ValueWire>,
    pub quality: &'static str,
    pub reason: &'static str,
    pub time: String,
    pub source_time: Option<String>,
    pub received: String,
    pub sequence: Option<u64>,
    pub news: bool,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PointsWire {
    pub now: String,
    pub points: Vec<PointWire>,
    pub next: Option<u32>,
    pub of: usize,
}

/// What points can be filtered by.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PointChoicesWire {
    pub buildings: Vec<String>,
    /// Ids of places.
    pub areas: Vec<String>,
    pub grids: Vec<String>,
    pub kinds: Vec<KindWire>,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct KindWire {
    pub kind: &'static str,
    pub title: TextWire,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ChangedPointWire {
    pub id: String,
    pub sample: SampleWire,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ChangedPointsWire {
    pub points: Vec<ChangedPointWire>,
    pub truncated: bool,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct DeviceWire {
    pub id: String,
    pub label: TextWire,
    pub profile: String,
    pub place: PlaceWire,
    pub points: Vec<String>,
    pub heard: Option<String>,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct DevicesWire {
    pub devices: Vec<DeviceWire>,
    pub next: Option<u32>,
    pub of: usize,
}

/// A payload of which nothing could be used.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct UnusableWire {
    pub source: String,
    pub topic: String,
    pub why: String,
    pub bytes: u64,
    pub sha256: String,
    pub excerpt: String,
    pub messages: u64,
    pub first: String,
    pub last: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct QuarantinedWire {
    pub source: String,
    pub device: String,
    pub topic: String,
    pub excerpt: String,
    pub messages: u64,
    pub first: String,
    pub last: String,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct BucketWire {
    /// Where the stretch begins.
    pub at: String,
    /// Readings with a value.
    pub count: u32,
    /// Readings of bad quality.
    pub bad: u32,
    /// `null` where no reading had a value.
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub mean: Option<f64>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LevelsWire {
    pub blue: usize,
    pub yellow: usize,
    pub orange: usize,
    pub red: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CountersWire {
    pub received: u64,
    pub evaluated: u64,
    pub duplicate: u64,
    pub quarantined: u64,
    pub rejected: u64,
    pub missing: u64,
    pub repeated: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TroubleWire {
    pub part: String,
    pub level: String,
    pub message: TextWire,
}

/// How far one time-series database is with the readings that wait for it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DatabaseWire {
    pub id: String,
    pub waiting: u64,
    pub bytes: u64,
    /// `null`: nothing waits.
    pub oldest: Option<String>,
    pub rate_per_second: f64,
    /// 0 where it keeps up; `null` while what waits does not grow less.
    pub catch_up_seconds: Option<u64>,
    pub dropped: u64,
}

/// What a way out has not taken yet.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct WayOutWire {
    pub id: String,
    pub waiting: usize,
}

/// A stretch of readings that were dropped before every database had them.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct GapWire {
    pub from: String,
    pub to: String,
    pub readings: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct GapsWire {
    pub count: u64,
    /// The newest first, ten at most.
    pub newest: Vec<GapWire>,
}

/// anmin's test of its own way from a reading to an order.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SelfTestWire {
    /// When it last came through; `null` before the first time.
    pub last: Option<String>,
    pub took_ms: Option<u64>,
    pub failed: u64,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
pub struct HelpCallsWire {
    /// Nobody has answered them.
    pub waiting: usize,
    /// Somebody sees to them.
    pub taken: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct StatusWire {
    pub version: String,
    pub site: String,
    pub name: TextWire,
    pub exercise: bool,
    /// Drills that are on, the oldest first.
    pub drills: Vec<DrillWire>,
    pub walks: Vec<WalkWire>,
    /// Residents' calls for help that are not done with.
    pub help: HelpCallsWire,
    pub now: String,
    pub uptime_seconds: u64,
    pub open_alarms: usize,
    pub open_incidents: usize,
    /// Alarms in force by level: neither shelved nor out of service.
    pub by_level: LevelsWire,
    pub live_calls: usize,
    pub pending: usize,
    pub readings: CountersWire,
    pub points: usize,
    pub devices: usize,
    pub quarantined_devices: usize,
    pub rules: usize,
    pub broken_rules: Vec<String>,
    pub troubles: Vec<TroubleWire>,
    pub orders_waiting: usize,
    /// What each way out owes, also those that owe nothing.
    pub ways_out: Vec<WayOutWire>,
    pub readings_waiting: usize,
    pub possible_losses: u64,
    pub clock_doubtful: bool,
    pub databases: Vec<DatabaseWire>,
    pub gaps: GapsWire,
    pub self_test: SelfTestWire,
}

/// Who is asking.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct MyselfWire {
    /// How one comes in: `open`, `token`, `set_up` or `sign_in`.
    pub door: String,
    pub signed_in: bool,
    pub locked: bool,
    pub must_change: bool,
    pub totp: bool,
    /// What the provider is called by which one may sign in, where there is one.
    pub provider: Option<TextWire>,
    /// The account is of that provider and has no password here.
    pub by_provider: bool,
    /// `None` where no account stands behind it.
    pub account: Option<String>,
    pub shown: Option<String>,
    pub role: Option<String>,
    pub places: Vec<String>,
    pub rights: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DoneWire {
    pub done: bool,
}

/// Where the browser goes next.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AddressWire {
    pub address: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AccountWire {
    pub name: String,
    pub shown: String,
    pub role: String,
    pub places: Vec<String>,
    pub disabled: bool,
    pub must_change: bool,
    pub totp: bool,
    /// The issuer of the provider by which they sign in; `None` where a password stands behind it.
    pub provider: Option<String>,
    pub created_at: String,
    pub changed_at: String,
}

impl AccountWire {
    pub(crate) fn of(account: &Account, writer: Writer<'_>) -> Self {
        Self {
            name: account.name.clone(),
            shown: account.shown.clone(),
            role: account.role.as_str().to_owned(),
            places: account.places.words(),
            disabled: account.disabled,
            must_change: account.must_change,
            totp: account.totp.is_some(),
            provider: account.provider.as_ref().map(|from| from.issuer.clone()),
            created_at: writer.at(account.created),
            changed_at: writer.at(account.changed),
        }
    }
}

/// A password that opens an account once.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PasswordWire {
    pub account: String,
    pub password: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SignInWire {
    pub id: String,
    pub created_at: String,
    pub used_at: String,
    pub address: Option<String>,
    pub agent: String,
    pub locked: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TokenWire {
    pub name: String,
    pub role: String,
    pub places: Vec<String>,
    pub created_at: String,
    pub expires_at: String,
    pub by: String,
}

impl SignInWire {
    pub(crate) fn of(state: &SignInState, writer: Writer<'_>) -> Self {
        Self {
            id: public_id(&state.kept.id).to_owned(),
            created_at: writer.at(state.kept.created),
            used_at: writer.at(state.kept.used),
            address: state.kept.address.map(|address| address.to_string()),
            agent: state.kept.agent.clone(),
            locked: state.locked,
        }
    }
}

impl TokenWire {
    pub(crate) fn of(token: &ApiToken, writer: Writer<'_>) -> Self {
        Self {
            name: token.name.clone(),
            role: token.role.as_str().to_owned(),
            places: token.places.words(),
            created_at: writer.at(token.created),
            expires_at: writer.at(token.expires),
            by: token.by.clone(),
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct NewTokenWire {
    /// Shown this once.
    pub token: String,
    pub kept: TokenWire,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TotpWire {
    pub secret: String,
    /// What apps read.
    pub address: String,
}

/// Turns domain values into wire values, with the site's time zone.
#[derive(Clone, Copy)]
pub(crate) struct Writer<'z> {
    pub zone: &'z TimeZone,
}

impl Writer<'_> {
    pub fn warning(&self, warning: &Warning) -> WarningWire {
        let Key { identifier, sender, sent } = &warning.message.key;
        WarningWire {
            source: warning.source.to_string(),
            identifier: identifier.clone(),
            sender: sender.clone(),
            sender_name: warning.sender_name().into(),
            sent: self.at(*sent),
            until: self.at(warning.until),
            exercise: warning.is_exercise(),
            level: warning.level.as_str().to_owned(),
            hazards: warning.hazards.iter().map(|hazard| hazard.as_str().to_owned()).collect(),
            event: warning.event().into(),
            headline: warning.headline().into(),
            description: warning.description().into(),
            instruction: warning.instruction().into(),
            area: warning.area().into(),
            subject: subject(warning).to_string(),
        }
    }

    pub fn subscription(&self, one: &Subscriber, end: Option<Position>) -> SubscriptionWire {
        let posted = one.is_posted_to().then(|| {
            let Standing { told, taken_at, failing, left_out } = one.standing();
            let behind = end.map_or(0, |end| (end.n - told).max(0));
            PostedWire { behind, taken_at: taken_at.map(|at| self.at(at)), failing, left_out }
        });
        SubscriptionWire { id: one.id().to_string(), listeners: one.listeners(), posted }
    }

    pub fn at(self, moment: Wall) -> String {
        stamp(moment, self.zone)
    }

    fn by(self, by: &By) -> ByWire {
        ByWire { by: by.who.clone(), at: self.at(by.at) }
    }

    pub fn alarm(self, alarm: &Alarm) -> AlarmWire {
        let subject_type = match alarm.subject {
            Subject::Point(_) => "point",
            Subject::Device(_) => "device",
            Subject::Part(_) => "part",
        };
        let evidence = &alarm.evidence;
        AlarmWire {
            id: alarm.id.to_string(),
            seq: alarm.seq,
            rule: alarm.rule.to_string(),
            subject: alarm.subject.as_str().to_owned(),
            subject_type: subject_type.to_owned(),
            class: alarm.class.as_str().to_owned(),
            incident: alarm.incident.map(|incident| incident.to_string()),
            drill: alarm.drill.map(|drill| drill.to_string()),
            level: alarm.level.as_str().to_owned(),
            peak: alarm.peak.as_str().to_owned(),
            state: alarm.state().as_str().to_owned(),
            open: alarm.is_open(),
            active: alarm.is_active(),
            latched: alarm.latched,
            title: (&alarm.title).into(),
            message: (&alarm.message).into(),
            advice: (&alarm.advice).into(),
            place: alarm.place.as_ref().into(),
            reading: ReadingWire {
                point: evidence.point.as_ref().map(PointId::to_string),
                value: evidence.value.as_ref().map(Into::into),
                unit: evidence.unit.clone(),
                limit: evidence.limit.as_ref().map(|(name, value)| LimitWire { name: name.clone(), value: *value }),
                source_time: evidence.source_time.map(|at| self.at(at)),
                sequence: evidence.sequence,
                received: self.at(evidence.received),
            },
            raised_at: self.at(alarm.raised_at),
            changed_at: self.at(alarm.changed_at),
            clock_doubtful: alarm.clock_doubtful,
            acknowledged: alarm.acknowledged.as_ref().map(|by| self.by(by)),
            shelved: alarm.shelved.as_ref().map(|shelf| ShelfWire {
                until: self.at(shelf.until),
                by: shelf.by.clone(),
                why: shelf.why.clone(),
            }),
            out_of_service: alarm.out_of_service.as_ref().map(|by| self.by(by)),
            escalation: alarm.escalation,
            escalate_at: alarm.escalate_at.map(|at| self.at(at)),
            realarm_at: alarm.realarm_at.map(|at| self.at(at)),
            broadcast: alarm.broadcast.as_ref().map(|broadcast| self.broadcast(broadcast)),
            told_outside: told_outside(alarm),
        }
    }

    fn broadcast(self, broadcast: &Broadcast) -> BroadcastWire {
        BroadcastWire {
            state: broadcast.state.as_str().to_owned(),
            level: broadcast.level.as_str().to_owned(),
            asked_at: self.at(broadcast.asked_at),
            until: self.at(broadcast.until),
            people: broadcast.people,
            yes: broadcast.yes.iter().map(|yes| ByWire { by: yes.who.clone(), at: self.at(yes.at) }).collect(),
            no: broadcast.no.as_ref().map(|no| NoWire { who: no.who.clone(), at: self.at(no.at), why: no.why.clone() }),
        }
    }

    pub fn call(self, call: &Call) -> CallWire {
        CallWire {
            alarm: call.alarm.to_string(),
            station: call.station.as_ref().to_owned(),
            station_name: call.station_name.zh.clone(),
            station_names: (&call.station_name).into(),
            state: call.state.as_str().to_owned(),
            live: call.is_live(),
            late: call.late,
            respond_by: self.at(call.respond_by),
            arrive_by: self.at(call.arrive_by),
            control_by: self.at(call.control_by),
            not_controlled: call.not_controlled,
            crew: call
                .crew
                .iter()
                .map(|member| OnCallWire { id: member.id.to_string(), name: member.name.clone() })
                .collect(),
            steps: call
                .stamps
                .iter()
                .map(|stamp| StepWire {
                    state: stamp.state.as_str().to_owned(),
                    at: self.at(stamp.at),
                    by: stamp.by.clone(),
                    why: stamp.why.clone(),
                })
                .collect(),
            seq: call.seq,
        }
    }

    pub fn calls(self, calls: &[Call]) -> Vec<CallWire> {
        calls.iter().map(|call| self.call(call)).collect()
    }

    pub fn transition(self, transition: &Transition) -> TransitionWire {
        let by = match &transition.cause {
            Cause::Acknowledged { by }
            | Cause::Reset { by }
            | Cause::Shelved { by }
            | Cause::TakenOutOfService { by, .. }
            | Cause::ReturnedToService { by } => Some(by.clone()),
            Cause::Unshelved { by }
            | Cause::Regrouped { by }
            | Cause::Escalated { by, .. }
            | Cause::Broadcast { by, .. } => by.clone(),
            Cause::Raised | Cause::LevelChanged(_) | Cause::Returned | Cause::Realarmed | Cause::Moved => None,
        };
        let why = match &transition.cause {
            Cause::TakenOutOfService { why, .. } | Cause::Escalated { by: Some(_), why, .. } => Some(why.clone()),
            Cause::Shelved { .. } => transition.alarm.shelved.as_ref().map(|shelf| shelf.why.clone()),
            Cause::Broadcast { step: BroadcastStep::Refused | BroadcastStep::TakenBack, .. } => {
                transition.alarm.broadcast.as_ref().and_then(|broadcast| broadcast.no.as_ref()).map(|no| no.why.clone())
            }
            _ => None,
        };
        let from_level = match &transition.cause {
            Cause::LevelChanged(level) => Some(level.as_str()),
            _ => None,
        };
        TransitionWire {
            at: self.at(transition.at.wall),
            cause: transition.cause.as_str(),
            by,
            why,
            from: transition.from.as_str(),
            to: transition.to.as_str(),
            from_level,
            alarm: self.alarm(&transition.alarm),
            evidence: None,
        }
    }

    pub fn evidence(self, grounds: &Grounds) -> EvidenceWire {
        EvidenceWire {
            at: self.at(grounds.at),
            rule_hash: grounds.rule.to_string(),
            said: grounds.said.as_str().to_owned(),
            held: grounds.held.map(|level| level.as_str().to_owned()),
            inputs: grounds
                .inputs
                .iter()
                .map(|input| InputWire {
                    role: input.role.as_ref().to_owned(),
                    point: input.point.to_string(),
                    value: input.value.as_ref().map(Into::into),
                    unit: input.unit.as_ref().to_owned(),
                    quality: input.quality.as_str().to_owned(),
                    reason: input.quality.reason().to_owned(),
                    time: self.at(input.time),
                    age_seconds: input.age.as_secs_f64(),
                })
                .collect(),
            windows: grounds
                .windows
                .iter()
                .map(|window| WindowWire {
                    name: window.name.as_ref().to_owned(),
                    measure: window.measure.as_str().to_owned(),
                    over_seconds: window.over.as_secs_f64(),
                    value: window.value,
                    unit: window.unit.as_ref().to_owned(),
                })
                .collect(),
            limits: grounds.limits.iter().map(limit_used).collect(),
        }
    }

    /// The history of one alarm: with what each verdict rests on.
    pub fn history(self, rows: &[Journaled]) -> Vec<JournalWire> {
        let mut wires = self.journal(rows);
        for (row, wire) in rows.iter().zip(&mut wires) {
            if let (Entry::Transition(transition), EntryWire::Transition(said)) = (&row.entry, &mut wire.entry)
                && transition.cause.is_verdict()
            {
                said.evidence = transition.alarm.evidence.grounds.as_deref().map(|grounds| self.evidence(grounds));
            }
        }
        wires
    }

    pub fn call_change(self, change: &CallChange) -> CallChangeWire {
        CallChangeWire {
            at: self.at(change.at),
            cause: change.cause.as_str(),
            message: (&change.message).into(),
            call: self.call(&change.call),
            level: change.alarm.level.as_str(),
            place: change.alarm.place.as_ref().into(),
        }
    }

    pub fn audit(self, rows: &[Audited]) -> Vec<DeedWire> {
        rows.iter().map(|row| self.deed(row)).collect()
    }

    pub fn chain(self, chain: &Chain) -> ChainWire {
        let end = |end: Option<(i64, Wall)>| end.map(|(n, at)| ChainEndWire { n, at: self.at(at) });
        ChainWire {
            whole: chain.broken.is_none(),
            rows: chain.rows,
            first: end(chain.first),
            last: end(chain.last),
            head: audit::hex(&chain.head),
            broken: chain.broken.as_ref().map(|(_, why)| why.into()),
        }
    }

    fn deed(self, row: &Audited) -> DeedWire {
        let deed = row.deed.as_ref().ok();
        let principal = deed.and_then(|deed| deed.from.principal.as_deref());
        DeedWire {
            n: row.n,
            at: deed.map(|deed| self.at(deed.at)),
            who: deed.map(|deed| deed.who.clone()),
            through: deed.map(|deed| deed.from.through.as_str().to_owned()),
            address: deed.and_then(|deed| deed.from.address).map(|address| address.to_string()),
            account: principal.map(|who| who.account.clone()),
            role: principal.map(|who| who.role.as_str().to_owned()),
            what: deed.map(|deed| deed.what.to_string()),
            about: deed.map(|deed| deed.about.clone()),
            done: deed.map(|deed| deed.refused.is_none()),
            refused: deed.and_then(|deed| deed.refused.as_ref()).map(Into::into),
            detail: deed.map_or(serde_json::Value::Null, |deed| deed.detail.clone()),
            damaged: row.deed.as_ref().err().cloned(),
            hash: audit::hex(&row.hash),
        }
    }

    pub fn incident(self, incident: &Incident) -> IncidentWire {
        IncidentWire {
            id: incident.id.to_string(),
            seq: incident.seq,
            state: incident.state().as_str().to_owned(),
            case: incident.case.as_ref().map(|case| CaseWire {
                kind: case.kind.as_str().to_owned(),
                stage: case.stage.as_str().to_owned(),
                owner: case.owner.clone(),
                by_hand: case.by_hand,
                stages: case.kind.stages().iter().map(|stage| stage.as_str().to_owned()).collect(),
                outcomes: case.kind.outcomes().iter().map(|outcome| outcome.as_str().to_owned()).collect(),
            }),
            title: (&incident.title).into(),
            place: incident.place.as_ref().into(),
            drill: incident.drill.map(|drill| drill.to_string()),
            hazards: incident.hazards.iter().map(|hazard| Hazard::as_str(*hazard).to_owned()).collect(),
            peak: incident.peak.as_str().to_owned(),
            storm: incident.storm,
            alarms: incident.alarms,
            opened_at: self.at(incident.opened_at),
            changed_at: self.at(incident.changed_at),
            settled_at: incident.settled_at.map(|at| self.at(at)),
            closes_at: incident.closes_at.map(|at| self.at(at)),
            notes: incident.notes.iter().map(|note| self.note(note)).collect(),
            checklist: incident.checklist.iter().map(|item| self.item(item)).collect(),
            called_119: incident.called_119.as_ref().map(|note| self.note(note)),
            end: incident.end.as_ref().map(|end| self.end(end)),
        }
    }

    fn note(self, note: &Note) -> NoteWire {
        NoteWire { at: self.at(note.at), by: note.by.clone(), text: note.text.clone(), photos: note.photos.clone() }
    }

    fn item(self, item: &Item) -> ItemWire {
        ItemWire {
            id: item.id.clone(),
            plan: item.plan.clone(),
            version: item.version.clone(),
            text: (&item.text).into(),
            owner: item.owner.as_str().to_owned(),
            due: item.due.map(|due| self.at(due)),
            late: item.late,
            done_at: item.done.as_ref().map(|done| self.at(done.at)),
            by: item.done.as_ref().map(|done| done.by.clone()),
            skipped: item.done.as_ref().and_then(|done| done.skipped.clone()),
        }
    }

    fn end(self, end: &End) -> EndWire {
        let (cause, into) = match end.outcome {
            Outcome::FalseAlarm(cause) => (Some(cause.as_str().to_owned()), None),
            Outcome::Merged(into) => (None, Some(into.to_string())),
            _ => (None, None),
        };
        EndWire {
            at: self.at(end.at),
            by: end.by.clone(),
            outcome: end.outcome.as_str().to_owned(),
            cause,
            into,
            why: end.why.clone(),
        }
    }

    pub fn situation(self, situation: &Situation) -> SituationWire {
        let Situation { incident, level, alarms, advice, people, beyond } = situation;
        SituationWire {
            incident: self.incident(incident),
            level: level.map(|level| level.as_str().to_owned()),
            open_alarms: alarms.len(),
            unacknowledged: alarms.iter().filter(|alarm| alarm.acknowledged.is_none()).count(),
            advice: advice.iter().map(Into::into).collect(),
            people: people.clone(),
            beyond: *beyond,
        }
    }

    /// One that is closed.
    pub fn past(self, incident: &Incident) -> SituationWire {
        let incident = self.incident(incident);
        SituationWire {
            incident,
            level: None,
            open_alarms: 0,
            unacknowledged: 0,
            advice: Vec::new(),
            people: Vec::new(),
            beyond: 0,
        }
    }

    pub fn incident_change(self, change: &IncidentChange) -> IncidentChangeWire {
        let (by, other) = match &change.cause {
            IncidentCause::Noted { by }
            | IncidentCause::Called119 { by }
            | IncidentCause::Staged { by, .. }
            | IncidentCause::Ticked { by, .. }
            | IncidentCause::Skipped { by, .. } => (Some(by.clone()), None),
            IncidentCause::SplitFrom { from: other, by }
            | IncidentCause::SplitInto { into: other, by }
            | IncidentCause::Absorbed { from: other, by } => (Some(by.clone()), Some(other.to_string())),
            IncidentCause::Closed => (change.incident.end.as_ref().map(|end| end.by.clone()), None),
            IncidentCause::Opened
            | IncidentCause::Grew
            | IncidentCause::Settled
            | IncidentCause::Resumed
            | IncidentCause::StepLate { .. } => (None, None),
        };
        let step = match &change.cause {
            IncidentCause::Ticked { step, .. }
            | IncidentCause::Skipped { step, .. }
            | IncidentCause::StepLate { step } => Some(step.clone()),
            _ => None,
        };
        IncidentChangeWire {
            at: self.at(change.at),
            cause: change.cause.as_str(),
            by,
            other,
            step,
            incident: self.incident(&change.incident),
        }
    }

    pub fn dead_letter(self, letter: &DeadLetter) -> DeadLetterWire {
        let (alarm, message) = match &letter.body {
            Some(OrderBody::Event(transition)) => (Some(&transition.alarm), Some(&transition.alarm.message)),
            Some(OrderBody::Call(change)) => (Some(&change.alarm), Some(&change.message)),
            Some(OrderBody::Cap(cap)) => (Some(&cap.alarm), Some(&cap.alarm.message)),
            Some(OrderBody::Siren(siren)) => (Some(&siren.alarm), Some(&siren.alarm.message)),
            None => (None, None),
        };
        DeadLetterWire {
            order: letter.id.to_string(),
            way_out: letter.channel.to_string(),
            at: self.at(letter.at),
            why: letter.why.clone(),
            alarm: alarm.map(|alarm| alarm.id.to_string()),
            level: alarm.map(|alarm| alarm.level.as_str().to_owned()),
            message: message.map(Into::into),
        }
    }

    pub fn journal(self, rows: &[Journaled]) -> Vec<JournalWire> {
        rows.iter()
            .map(|row| JournalWire {
                n: row.n,
                entry: match &row.entry {
                    Entry::Transition(transition) => EntryWire::Transition(Box::new(self.transition(transition))),
                    Entry::Call(change) => EntryWire::Call(Box::new(self.call_change(change))),
                    Entry::Incident(change) => EntryWire::Incident(Box::new(self.incident_change(change))),
                    Entry::Damaged(why) => EntryWire::Damaged(why.clone()),
                },
            })
            .collect()
    }

    pub fn sample(self, sample: &Sample) -> SampleWire {
        SampleWire {
            value: sample.value.as_ref().map(Into::into),
            quality: sample.quality.as_str(),
            reason: sample.quality.reason(),
            time: self.at(sample.time),
            source_time: sample.source_time.map(|at| self.at(at)),
            received: self.at(sample.received.wall),
            sequence: sample.sequence,
            news: sample.news,
        }
    }

    pub fn point(self, row: &PointRow) -> PointWire {
        let kind = row.kind.info();
        PointWire {
            id: row.id.to_string(),
            device: row.device.to_string(),
            label: (&row.label).into(),
            kind: kind.name,
            hazard: kind.hazard.as_str(),
            title: TextWire { zh: kind.zh.to_owned(), en: kind.en.to_owned() },
            unit: kind.unit,
            alarm_point: row.alarm_point,
            place: row.place.as_ref().into(),
            sample: row.sample.as_ref().map(|sample| self.sample(sample)),
        }
    }

    pub fn point_choices(self, choices: PointChoices) -> PointChoicesWire {
        let kind = |kind: Kind| {
            let KindInfo { name, zh, en, .. } = *kind.info();
            KindWire { kind: name, title: TextWire { zh: zh.to_owned(), en: en.to_owned() } }
        };
        let PointChoices { buildings, areas, grids, kinds } = choices;
        PointChoicesWire { buildings, areas, grids, kinds: kinds.into_iter().map(kind).collect() }
    }

    pub fn points(self, now: Wall, page: &PointPage) -> PointsWire {
        PointsWire {
            now: self.at(now),
            points: page.rows.iter().map(|row| self.point(row)).collect(),
            next: page.next,
            of: page.of,
        }
    }

    pub fn devices(self, page: &DevicePage) -> DevicesWire {
        let device = |row: &crate::main_loop::query::DeviceRow| DeviceWire {
            id: row.id.to_string(),
            label: (&row.label).into(),
            profile: row.profile.as_ref().to_owned(),
            place: row.place.as_ref().into(),
            points: row.points.iter().map(PointId::to_string).collect(),
            heard: row.heard.map(|at| self.at(at)),
        };
        DevicesWire { devices: page.rows.iter().map(device).collect(), next: page.next, of: page.of }
    }

    pub fn quarantined(self, row: &Quarantined) -> QuarantinedWire {
        QuarantinedWire {
            source: row.source.as_ref().to_owned(),
            device: row.device.clone(),
            topic: row.topic.clone(),
            excerpt: row.excerpt.clone(),
            messages: row.messages,
            first: self.at(row.first),
            last: self.at(row.last),
        }
    }

    pub fn unusable(self, kept: &Kept) -> UnusableWire {
        UnusableWire {
            source: kept.source.clone(),
            topic: kept.topic.clone(),
            why: kept.why.clone(),
            bytes: kept.bytes,
            sha256: kept.sha256.iter().map(|byte| format!("{byte:02x}")).collect(),
            excerpt: String::from_utf8_lossy(&kept.start).into_owned(),
            messages: kept.messages,
            first: self.at(kept.first),
            last: self.at(kept.last),
        }
    }

    pub fn bucket(self, bucket: &Bucket) -> BucketWire {
        let Bucket { start, count, min, max, mean, bad } = *bucket;
        let [min, max, mean] = [min, max, mean].map(|value| value.is_finite().then_some(value));
        BucketWire { at: self.at(start), count, bad, min, max, mean }
    }

    fn database(self, database: &Database) -> DatabaseWire {
        DatabaseWire {
            id: database.id.as_ref().to_owned(),
            waiting: database.waiting,
            bytes: database.bytes,
            oldest: database.oldest.map(|at| self.at(at)),
            rate_per_second: (database.rate * 10.0).round() / 10.0,
            catch_up_seconds: database.catch_up.map(|wait| wait.as_secs_f64().ceil() as u64),
            dropped: database.dropped,
        }
    }

    pub fn status(self, site: &Site, status: &Status) -> StatusWire {
        let counts = &status.counts;
        StatusWire {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            site: site.id.clone(),
            name: (&site.name).into(),
            exercise: site.exercise,
            drills: status.drills.iter().map(|drill| self.drill(drill)).collect(),
            walks: status.walks.iter().map(|walk| self.walk(walk)).collect(),
            help: HelpCallsWire { waiting: status.help.waiting, taken: status.help.taken },
            now: self.at(status.now),
            uptime_seconds: status.uptime.as_secs(),
            open_alarms: counts.open,
            open_incidents: counts.incidents,
            by_level: LevelsWire {
                blue: counts.at(Level::Blue),
                yellow: counts.at(Level::Yellow),
                orange: counts.at(Level::Orange),
                red: counts.at(Level::Red),
            },
            live_calls: counts.live_calls,
            pending: counts.pending,
            readings: CountersWire {
                received: status.readings.received,
                evaluated: status.readings.evaluated,
                duplicate: status.readings.duplicate,
                quarantined: status.readings.quarantined,
                rejected: status.readings.rejected,
                missing: status.readings.missing,
                repeated: status.readings.repeated,
            },
            points: status.points,
            devices: status.devices,
            quarantined_devices: status.quarantined,
            rules: status.rules,
            broken_rules: status.broken_rules.clone(),
            troubles: status
                .troubles
                .iter()
                .map(|trouble| TroubleWire {
                    part: trouble.part.as_ref().to_owned(),
                    level: trouble.level.as_str().to_owned(),
                    message: (&trouble.message).into(),
                })
                .collect(),
            orders_waiting: status.orders_waiting,
            ways_out: status
                .ways_out
                .iter()
                .map(|way_out| WayOutWire { id: way_out.id.as_ref().to_owned(), waiting: way_out.waiting })
                .collect(),
            readings_waiting: status.readings_waiting,
            possible_losses: status.possible_losses,
            clock_doubtful: status.clock_doubtful,
            databases: status.databases.iter().map(|database| self.database(database)).collect(),
            gaps: GapsWire {
                count: status.gaps,
                newest: status
                    .newest_gaps
                    .iter()
                    .map(|gap| GapWire { from: self.at(gap.first), to: self.at(gap.last), readings: gap.samples })
                    .collect(),
            },
            self_test: SelfTestWire {
                last: status.self_test.last.map(|(at, _)| self.at(at)),
                took_ms: status.self_test.last.map(|(_, took)| took.as_millis() as u64),
                failed: status.self_test.failed,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use anmin_sensors::point::{NUMBERED, ROOMS_IN_ENGLISH};

    use super::*;

    /// The page calls a building or floor that stands alone as it is called within the words of a place.
    #[test]
    fn the_page_has_the_same_words_for_places() {
        let rooms = BTreeMap::from(ROOMS_IN_ENGLISH);
        let words = serde_json::to_string_pretty(&serde_json::json!({ "numbered": NUMBERED, "rooms": rooms }));
        crate::samples::check_text("web/src/words/place.json", &(words.expect("plain words") + "\n"));
    }

    #[test]
    fn moments_carry_the_sites_offset_and_stay_in_the_calendar() {
        let lanzhou = TimeZone::get("Asia/Shanghai").expect("the system knows Shanghai");
        for (micros, expected) in [
            (1_700_000_000_123_000, "2023-11-15T06:13:20.123+08:00"),
            // Local mean time before 1901 had seconds in its offset.
            (-3_000_000_000_000_000, "1874-12-08T02:45:00.000+08:05"),
            (i64::MAX, "9999-"),
            (i64::MIN, "0001-01-0"),
        ] {
            let text = stamp(Wall::from_micros(micros), &lanzhou);
            assert!(text.starts_with(expected), "{micros}: {text}");
        }
    }
}
