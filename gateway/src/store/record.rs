//! What the journal's rows hold: JSON with a version in it, converted by hand.
//!
//! The wire types below are the format. A field is never renamed and never given another meaning; a new field is an
//! `Option` with `#[serde(default)]`, anything else is a new version beside the old one. `records/v<n>.jsonl` holds what each version
//! wrote, and a test reads them all.
//!
//! Floats are written as text with as many digits as their bits need, because a JSON number read back by serde_json
//! may differ in the last bit, and orders must come back exactly as they were.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use anmin_rules::alarm::{
    Alarm, AlarmId, AlarmState, By, CapRef, Cause, Class, Condition, Pending, Shelf, Subject, Transition,
};
use anmin_rules::broadcast::{Broadcast, BroadcastState, BroadcastStep, No, Yes};
use anmin_rules::casework::{Case, CaseKind, Stage};
use anmin_rules::drill::DrillId;
use anmin_rules::incident::{End, FalseCause, Incident, IncidentCause, IncidentChange, IncidentId, Note, Outcome};
use anmin_rules::order::{
    Call, CallCause, CallChange, CallStamp, CallState, CapMessage, CapOrder, OnCall, OrderBody, SirenOrder, Voice,
};
use anmin_rules::plan::{Done, Item, Owner};
use anmin_rules::rule::{
    ContentHash, Evidence, Finding, Grounds, InputSeen, Level, LimitUsed, Measure, Origin, RuleId, Said, Text,
    WindowSeen,
};
use anmin_rules::siren::Sounding;
use anmin_sensors::point::{DeviceId, Hazard, KINDS, Name, Place, PointId};
use anmin_sensors::reading::{Quality, Value};
use anmin_sensors::time::{Mono, Now, Wall};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The version that this anmin writes.
pub const VERSION: u32 = 1;

/// Why a record cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Not JSON, or a field is missing or of the wrong form.
    #[error("record is not readable: {0}")]
    Form(String),
    /// A word that this anmin does not know.
    #[error("record has {what} {word:?}, which is not known here")]
    Word { what: &'static str, word: String },
    /// Written by a newer anmin.
    #[error("record has version {0}, this anmin knows up to {VERSION}")]
    Version(u32),
    /// The order names a row of the journal that is gone or damaged.
    #[error("record names journal row {0}, which cannot be read")]
    Missing(i64),
}

impl From<serde_json::Error> for RecordError {
    fn from(error: serde_json::Error) -> Self {
        Self::Form(error.to_string())
    }
}

/// Where an order's body is found.
pub enum Body {
    /// It came whole.
    Whole(OrderBody),
    /// It is the transition in this row of the journal.
    EventAt(i64),
    /// It is the call change in this row of the journal.
    CallAt(i64),
}

pub fn write_transition(transition: &Transition) -> String {
    to_json(&Versioned { v: VERSION, record: TransitionV1::of(transition) })
}

pub fn read_transition(json: &str) -> Result<Transition, RecordError> {
    check_version(json)?;
    serde_json::from_str::<Versioned<TransitionV1<'_>>>(json)?.record.read()
}

pub fn write_call(change: &CallChange) -> String {
    to_json(&Versioned { v: VERSION, record: CallChangeV1::of(change) })
}

pub fn read_call(json: &str) -> Result<CallChange, RecordError> {
    check_version(json)?;
    serde_json::from_str::<Versioned<CallChangeV1<'_>>>(json)?.record.read()
}

pub fn write_incident(change: &IncidentChange) -> String {
    to_json(&Versioned { v: VERSION, record: IncidentChangeV1::of(change) })
}

pub fn read_incident(json: &str) -> Result<IncidentChange, RecordError> {
    check_version(json)?;
    serde_json::from_str::<Versioned<IncidentChangeV1<'_>>>(json)?.record.read()
}

/// An order's body, whole.
pub fn write_body(body: &OrderBody) -> String {
    let body = match body {
        OrderBody::Event(transition) => BodyV1::Event(TransitionV1::of(transition)),
        OrderBody::Call(change) => BodyV1::Call(CallChangeV1::of(change)),
        OrderBody::Cap(cap) => BodyV1::Cap(CapV1::of(cap)),
        OrderBody::Siren(siren) => BodyV1::Siren(SirenV1::of(siren)),
    };
    to_json(&Versioned { v: VERSION, record: OrderV1 { body } })
}

/// An order's body that stands in row `n` of the journal.
pub fn write_body_at(n: i64, call: bool) -> String {
    let body = if call { BodyV1::CallAt(n) } else { BodyV1::EventAt(n) };
    to_json(&Versioned { v: VERSION, record: OrderV1 { body } })
}

pub fn read_body(json: &str) -> Result<Body, RecordError> {
    check_version(json)?;
    Ok(match serde_json::from_str::<Versioned<OrderV1<'_>>>(json)?.record.body {
        BodyV1::Event(transition) => Body::Whole(OrderBody::Event(Arc::new(transition.read()?))),
        BodyV1::Call(change) => Body::Whole(OrderBody::Call(Arc::new(change.read()?))),
        BodyV1::Cap(cap) => Body::Whole(OrderBody::Cap(Arc::new(cap.read()?))),
        BodyV1::Siren(siren) => Body::Whole(OrderBody::Siren(Arc::new(siren.read()?))),
        BodyV1::EventAt(n) => Body::EventAt(n),
        BodyV1::CallAt(n) => Body::CallAt(n),
    })
}

pub fn write_pending(pending: &Pending) -> String {
    to_json(&Versioned { v: VERSION, record: PendingV1::of(pending) })
}

pub fn read_pending(json: &str) -> Result<Pending, RecordError> {
    check_version(json)?;
    serde_json::from_str::<Versioned<PendingV1<'_>>>(json)?.record.read()
}

fn check_version(json: &str) -> Result<(), RecordError> {
    #[derive(Deserialize)]
    struct Head {
        v: u32,
    }
    match serde_json::from_str::<Head>(json)?.v {
        1 => Ok(()),
        other => Err(RecordError::Version(other)),
    }
}

fn to_json(record: &impl Serialize) -> String {
    // The wire types have text keys only and no failing Serialize of their own, the two ways in which this can fail.
    serde_json::to_string(record).expect("a record is always JSON")
}

#[derive(Serialize, Deserialize)]
struct Versioned<R> {
    v: u32,
    #[serde(flatten)]
    record: R,
}

/// A float by its shortest text that gives the same bits back.
#[derive(Clone, Copy)]
struct Exact(f64);

impl Serialize for Exact {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{:?}", self.0))
    }
}

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map(Self).map_err(|_| D::Error::custom(format!("{text:?} is not a number")))
    }
}

struct Id(uuid::Uuid);

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        uuid::Uuid::parse_str(&text).map(Self).map_err(D::Error::custom)
    }
}

type Str<'a> = Cow<'a, str>;

#[derive(Serialize, Deserialize)]
struct TransitionV1<'a> {
    from: Str<'a>,
    to: Str<'a>,
    cause: CauseV1<'a>,
    wall: i64,
    mono: u64,
    alarm: AlarmV1<'a>,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
enum CauseV1<'a> {
    Raised,
    LevelChanged {
        level: Str<'a>,
    },
    Returned,
    Realarmed,
    Acknowledged {
        by: Str<'a>,
    },
    Reset {
        by: Str<'a>,
    },
    Shelved {
        by: Str<'a>,
    },
    Unshelved {
        by: Option<Str<'a>>,
    },
    TakenOutOfService {
        by: Str<'a>,
        why: Str<'a>,
    },
    ReturnedToService {
        by: Str<'a>,
    },
    Escalated {
        step: u32,
        /// By hand.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Str<'a>>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<Str<'a>>,
    },
    Regrouped {
        by: Option<Str<'a>>,
    },
    Moved,
    Broadcast {
        step: Str<'a>,
        by: Option<Str<'a>>,
    },
}

#[derive(Serialize, Deserialize)]
struct AlarmV1<'a> {
    id: Id,
    rule: Str<'a>,
    subject: SubjectV1<'a>,
    class: Str<'a>,
    title: TextV1<'a>,
    place: PlaceV1<'a>,
    #[serde(default, skip_serializing_if = "is_zero")]
    moved: u32,
    /// Of what is no emergency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    case: Option<Str<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    incident: Option<Id>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    drill: Option<Id>,
    level: Str<'a>,
    peak: Str<'a>,
    condition: Str<'a>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    acknowledged: Option<ByV1<'a>>,
    latched: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shelved: Option<ShelfV1<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    out_of_service: Option<ByV1<'a>>,
    escalation: u32,
    /// Where it was more before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    peak_escalation: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    escalate_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    realarm_at: Option<i64>,
    raised_at: i64,
    changed_at: i64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    clock_doubtful: bool,
    seq: u32,
    evidence: EvidenceV1<'a>,
    message: TextV1<'a>,
    advice: TextV1<'a>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    cap_log: Vec<CapRefV1<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    broadcast: Option<BroadcastV1<'a>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    rerouted: Vec<Str<'a>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    sirens: Vec<SoundingV1<'a>>,
}

#[derive(Serialize, Deserialize)]
struct SoundingV1<'a> {
    siren: Str<'a>,
    level: Str<'a>,
    since: i64,
    until: i64,
    outward: bool,
    ended: bool,
}

#[derive(Serialize, Deserialize)]
struct BroadcastV1<'a> {
    state: Str<'a>,
    level: Str<'a>,
    asked_at: i64,
    until: i64,
    people: usize,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    yes: Vec<YesV1<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    no: Option<NoV1<'a>>,
}

#[derive(Serialize, Deserialize)]
struct YesV1<'a> {
    account: Str<'a>,
    who: Str<'a>,
    at: i64,
}

#[derive(Serialize, Deserialize)]
struct NoV1<'a> {
    who: Str<'a>,
    at: i64,
    why: Str<'a>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SubjectV1<'a> {
    Point(Str<'a>),
    Device(Str<'a>),
    Part(Str<'a>),
}

#[derive(Serialize, Deserialize)]
struct TextV1<'a> {
    zh: Str<'a>,
    en: Str<'a>,
}

#[derive(Serialize, Deserialize)]
struct PlaceV1<'a> {
    area: Str<'a>,
    grid: Str<'a>,
    building: Str<'a>,
    unit: Str<'a>,
    floor: Str<'a>,
    room: Str<'a>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    position: Option<(Exact, Exact)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    polygon: Vec<(Exact, Exact)>,
}

#[derive(Serialize, Deserialize)]
struct ByV1<'a> {
    who: Str<'a>,
    at: i64,
}

#[derive(Serialize, Deserialize)]
struct ShelfV1<'a> {
    until: i64,
    by: Str<'a>,
    why: Str<'a>,
}

#[derive(Serialize, Deserialize)]
struct EvidenceV1<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    point: Option<Str<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<ValueV1<'a>>,
    unit: Str<'a>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit: Option<(Str<'a>, Exact)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source_time: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    received: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    grounds: Option<GroundsV1<'a>>,
}

#[derive(Serialize, Deserialize)]
struct GroundsV1<'a> {
    at: i64,
    rule_hash: Str<'a>,
    said: Str<'a>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    held: Option<Str<'a>>,
    inputs: Vec<InputV1<'a>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    windows: Vec<WindowV1<'a>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    limits: Vec<LimitV1<'a>>,
}

#[derive(Serialize, Deserialize)]
struct InputV1<'a> {
    role: Str<'a>,
    point: Str<'a>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<ValueV1<'a>>,
    unit: Str<'a>,
    /// The reason, as in [`Quality::reason`]; not there when it is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    quality: Option<Str<'a>>,
    time: i64,
    age_us: u64,
}

#[derive(Serialize, Deserialize)]
struct WindowV1<'a> {
    name: Str<'a>,
    measure: Str<'a>,
    over_us: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<Exact>,
    unit: Str<'a>,
}

#[derive(Serialize, Deserialize)]
struct LimitV1<'a> {
    name: Str<'a>,
    value: Exact,
    unit: Str<'a>,
    origin: Str<'a>,
    source: Str<'a>,
    /// Where it has other words in Chinese.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source_zh: Option<Str<'a>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ValueV1<'a> {
    Number(Exact),
    Flag(bool),
    Text(Str<'a>),
}

#[derive(Serialize, Deserialize)]
struct PendingV1<'a> {
    rule: Str<'a>,
    subject: SubjectV1<'a>,
    class: Str<'a>,
    place: PlaceV1<'a>,
    label: Str<'a>,
    /// Where it is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    label_en: Option<Str<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    above: Option<Str<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    below: Option<Str<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    finding: Option<FindingV1<'a>>,
    evidence: EvidenceV1<'a>,
}

#[derive(Serialize, Deserialize)]
struct FindingV1<'a> {
    level: Str<'a>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit: Option<(Str<'a>, Exact)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    note: Option<Str<'a>>,
}

#[derive(Serialize, Deserialize)]
struct CapRefV1<'a> {
    channel: Str<'a>,
    identifier: Str<'a>,
    sent: i64,
    level: Str<'a>,
    #[serde(default, skip_serializing_if = "is_zero")]
    moved: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    voice: Option<VoiceV1<'a>>,
}

#[derive(Serialize, Deserialize)]
struct VoiceV1<'a> {
    sender: Str<'a>,
    status: Str<'a>,
    zone: Str<'a>,
}

#[derive(Serialize, Deserialize)]
struct CallChangeV1<'a> {
    at: i64,
    cause: Str<'a>,
    call: CallV1<'a>,
    alarm: AlarmV1<'a>,
    message: TextV1<'a>,
}

#[derive(Serialize, Deserialize)]
struct CallV1<'a> {
    alarm: Id,
    station: Str<'a>,
    station_name: Str<'a>,
    /// Where it is another one than the Chinese.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    station_name_en: Option<Str<'a>>,
    state: Str<'a>,
    stamps: Vec<StampV1<'a>>,
    respond_by: i64,
    arrive_by: i64,
    /// Since there are three clocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    control_by: Option<i64>,
    late: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    not_controlled: bool,
    /// Ids and names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    crew: Vec<(Str<'a>, Str<'a>)>,
    #[serde(default)]
    round: u32,
    seq: u32,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

fn is_false(flag: &bool) -> bool {
    !flag
}

#[derive(Serialize, Deserialize)]
struct ItemV1<'a> {
    id: Str<'a>,
    plan: Str<'a>,
    version: Str<'a>,
    text: TextV1<'a>,
    owner: Str<'a>,
    added_at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    due: Option<i64>,
    #[serde(default, skip_serializing_if = "is_false")]
    late: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    done: Option<DoneV1<'a>>,
}

#[derive(Serialize, Deserialize)]
struct DoneV1<'a> {
    at: i64,
    by: Str<'a>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    skipped: Option<Str<'a>>,
}

#[derive(Serialize, Deserialize)]
struct StampV1<'a> {
    state: Str<'a>,
    at: i64,
    by: Str<'a>,
    why: Str<'a>,
}

#[derive(Serialize, Deserialize)]
struct IncidentChangeV1<'a> {
    at: i64,
    cause: IncidentCauseV1<'a>,
    incident: IncidentV1<'a>,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
enum IncidentCauseV1<'a> {
    Opened,
    Grew,
    Settled,
    Resumed,
    Noted {
        by: Str<'a>,
    },
    Ticked {
        step: Str<'a>,
        by: Str<'a>,
    },
    Skipped {
        step: Str<'a>,
        by: Str<'a>,
    },
    StepLate {
        step: Str<'a>,
    },
    #[serde(rename = "called_119")]
    Called119 {
        by: Str<'a>,
    },
    Staged {
        stage: Str<'a>,
        by: Str<'a>,
    },
    SplitFrom {
        from: Id,
        by: Str<'a>,
    },
    SplitInto {
        into: Id,
        by: Str<'a>,
    },
    Absorbed {
        from: Id,
        by: Str<'a>,
    },
    Closed,
}

#[derive(Serialize, Deserialize)]
struct IncidentV1<'a> {
    id: Id,
    seq: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    case: Option<CaseV1<'a>>,
    title: TextV1<'a>,
    place: PlaceV1<'a>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    drill: Option<Id>,
    hazards: Vec<Str<'a>>,
    peak: Str<'a>,
    storm: bool,
    alarms: u32,
    opened_at: i64,
    changed_at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    settled_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    closes_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    notes: Vec<NoteV1<'a>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    checklist: Vec<ItemV1<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    called_119: Option<NoteV1<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end: Option<EndV1<'a>>,
}

#[derive(Serialize, Deserialize)]
struct CaseV1<'a> {
    kind: Str<'a>,
    stage: Str<'a>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<Str<'a>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    by_hand: bool,
}

#[derive(Serialize, Deserialize)]
struct NoteV1<'a> {
    at: i64,
    by: Str<'a>,
    text: Str<'a>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    photos: Vec<Str<'a>>,
}

#[derive(Serialize, Deserialize)]
struct EndV1<'a> {
    at: i64,
    by: Str<'a>,
    outcome: Str<'a>,
    /// Of a false alarm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cause: Option<Str<'a>>,
    /// Of one that was merged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    into: Option<Id>,
    why: Str<'a>,
}

#[derive(Serialize, Deserialize)]
struct OrderV1<'a> {
    body: BodyV1<'a>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum BodyV1<'a> {
    Event(TransitionV1<'a>),
    EventAt(i64),
    Call(CallChangeV1<'a>),
    CallAt(i64),
    Cap(CapV1<'a>),
    Siren(SirenV1<'a>),
}

#[derive(Serialize, Deserialize)]
struct SirenV1<'a> {
    on: bool,
    at: i64,
    until: i64,
    alarm: AlarmV1<'a>,
}

#[derive(Serialize, Deserialize)]
struct CapV1<'a> {
    message: Str<'a>,
    identifier: Str<'a>,
    sent: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    voice: Option<VoiceV1<'a>>,
    references: Vec<CapRefV1<'a>>,
    alarm: AlarmV1<'a>,
}

impl<'a> TransitionV1<'a> {
    fn of(transition: &'a Transition) -> Self {
        Self {
            from: transition.from.as_str().into(),
            to: transition.to.as_str().into(),
            cause: CauseV1::of(&transition.cause),
            wall: transition.at.wall.micros(),
            mono: transition.at.mono.nanos(),
            alarm: AlarmV1::of(&transition.alarm),
        }
    }

    fn read(self) -> Result<Transition, RecordError> {
        Ok(Transition {
            from: state(&self.from)?,
            to: state(&self.to)?,
            cause: self.cause.read()?,
            at: Now { mono: Mono::from_nanos(self.mono), wall: Wall::from_micros(self.wall) },
            alarm: Arc::new(self.alarm.read()?),
        })
    }
}

impl<'a> CauseV1<'a> {
    fn of(cause: &'a Cause) -> Self {
        match cause {
            Cause::Raised => Self::Raised,
            Cause::LevelChanged(level) => Self::LevelChanged { level: level.as_str().into() },
            Cause::Returned => Self::Returned,
            Cause::Realarmed => Self::Realarmed,
            Cause::Acknowledged { by } => Self::Acknowledged { by: by.into() },
            Cause::Reset { by } => Self::Reset { by: by.into() },
            Cause::Shelved { by } => Self::Shelved { by: by.into() },
            Cause::Unshelved { by } => Self::Unshelved { by: by.as_ref().map(Into::into) },
            Cause::TakenOutOfService { by, why } => Self::TakenOutOfService { by: by.into(), why: why.into() },
            Cause::ReturnedToService { by } => Self::ReturnedToService { by: by.into() },
            Cause::Escalated { step, by, why } => Self::Escalated {
                step: *step,
                by: by.as_ref().map(Into::into),
                why: Some(why).filter(|why| !why.is_empty()).map(Into::into),
            },
            Cause::Regrouped { by } => Self::Regrouped { by: by.as_ref().map(Into::into) },
            Cause::Moved => Self::Moved,
            Cause::Broadcast { step, by } => {
                Self::Broadcast { step: step.as_str().into(), by: by.as_ref().map(Into::into) }
            }
        }
    }

    fn read(self) -> Result<Cause, RecordError> {
        Ok(match self {
            Self::Raised => Cause::Raised,
            Self::LevelChanged { level: word } => Cause::LevelChanged(level(&word)?),
            Self::Returned => Cause::Returned,
            Self::Realarmed => Cause::Realarmed,
            Self::Acknowledged { by } => Cause::Acknowledged { by: by.into_owned() },
            Self::Reset { by } => Cause::Reset { by: by.into_owned() },
            Self::Shelved { by } => Cause::Shelved { by: by.into_owned() },
            Self::Unshelved { by } => Cause::Unshelved { by: by.map(Cow::into_owned) },
            Self::TakenOutOfService { by, why } => {
                Cause::TakenOutOfService { by: by.into_owned(), why: why.into_owned() }
            }
            Self::ReturnedToService { by } => Cause::ReturnedToService { by: by.into_owned() },
            Self::Escalated { step, by, why } => Cause::Escalated {
                step,
                by: by.map(Cow::into_owned),
                why: why.map(Cow::into_owned).unwrap_or_default(),
            },
            Self::Regrouped { by } => Cause::Regrouped { by: by.map(Cow::into_owned) },
            Self::Moved => Cause::Moved,
            Self::Broadcast { step, by } => Cause::Broadcast {
                step: find("step of a broadcast", &step, BroadcastStep::ALL, BroadcastStep::as_str)?,
                by: by.map(Cow::into_owned),
            },
        })
    }
}

impl<'a> AlarmV1<'a> {
    fn of(alarm: &'a Alarm) -> Self {
        Self {
            id: Id(alarm.id.0),
            rule: alarm.rule.as_str().into(),
            subject: SubjectV1::of(&alarm.subject),
            class: alarm.class.as_str().into(),
            title: TextV1::of(&alarm.title),
            place: PlaceV1::of(&alarm.place),
            moved: alarm.moved,
            case: alarm.case.map(|kind| kind.as_str().into()),
            incident: alarm.incident.map(|incident| Id(incident.0)),
            drill: alarm.drill.map(|drill| Id(drill.0)),
            level: alarm.level.as_str().into(),
            peak: alarm.peak.as_str().into(),
            condition: condition_word(alarm.condition).into(),
            acknowledged: alarm.acknowledged.as_ref().map(ByV1::of),
            latched: alarm.latched,
            shelved: alarm.shelved.as_ref().map(|shelf| ShelfV1 {
                until: shelf.until.micros(),
                by: (&shelf.by).into(),
                why: (&shelf.why).into(),
            }),
            out_of_service: alarm.out_of_service.as_ref().map(ByV1::of),
            escalation: alarm.escalation,
            peak_escalation: Some(alarm.peak_escalation).filter(|peak| *peak > alarm.escalation),
            escalate_at: alarm.escalate_at.map(Wall::micros),
            realarm_at: alarm.realarm_at.map(Wall::micros),
            raised_at: alarm.raised_at.micros(),
            changed_at: alarm.changed_at.micros(),
            clock_doubtful: alarm.clock_doubtful,
            seq: alarm.seq,
            evidence: EvidenceV1::of(&alarm.evidence),
            message: TextV1::of(&alarm.message),
            advice: TextV1::of(&alarm.advice),
            cap_log: alarm.cap_log.iter().map(CapRefV1::of).collect(),
            broadcast: alarm.broadcast.as_ref().map(BroadcastV1::of),
            rerouted: alarm.rerouted.iter().map(|id| (&**id).into()).collect(),
            sirens: alarm.sirens.iter().map(SoundingV1::of).collect(),
        }
    }

    fn read(self) -> Result<Alarm, RecordError> {
        Ok(Alarm {
            id: AlarmId(self.id.0),
            rule: RuleId::new(self.rule.into_owned()),
            subject: self.subject.read(),
            class: class(&self.class)?,
            title: self.title.read(),
            place: Arc::new(self.place.read()),
            moved: self.moved,
            case: self.case.map(|word| case_kind(&word)).transpose()?,
            incident: self.incident.map(|id| IncidentId(id.0)),
            drill: self.drill.map(|id| DrillId(id.0)),
            level: level(&self.level)?,
            peak: level(&self.peak)?,
            condition: condition(&self.condition)?,
            acknowledged: self.acknowledged.map(ByV1::read),
            latched: self.latched,
            shelved: self.shelved.map(|shelf| Shelf {
                until: Wall::from_micros(shelf.until),
                by: shelf.by.into_owned(),
                why: shelf.why.into_owned(),
            }),
            out_of_service: self.out_of_service.map(ByV1::read),
            escalation: self.escalation,
            peak_escalation: self.peak_escalation.unwrap_or(self.escalation),
            escalate_at: self.escalate_at.map(Wall::from_micros),
            realarm_at: self.realarm_at.map(Wall::from_micros),
            raised_at: Wall::from_micros(self.raised_at),
            changed_at: Wall::from_micros(self.changed_at),
            clock_doubtful: self.clock_doubtful,
            seq: self.seq,
            evidence: self.evidence.read()?,
            message: self.message.read(),
            advice: self.advice.read(),
            cap_log: self.cap_log.into_iter().map(CapRefV1::read).collect::<Result<_, _>>()?,
            broadcast: self.broadcast.map(BroadcastV1::read).transpose()?,
            rerouted: self.rerouted.into_iter().map(|id| id.into_owned().into()).collect(),
            sirens: self.sirens.into_iter().map(SoundingV1::read).collect::<Result<_, _>>()?,
        })
    }
}

impl<'a> SoundingV1<'a> {
    fn of(sounding: &'a Sounding) -> Self {
        Self {
            siren: (&*sounding.siren).into(),
            level: sounding.level.as_str().into(),
            since: sounding.since.micros(),
            until: sounding.until.micros(),
            outward: sounding.outward,
            ended: sounding.ended,
        }
    }

    fn read(self) -> Result<Sounding, RecordError> {
        Ok(Sounding {
            siren: self.siren.into(),
            level: level(&self.level)?,
            since: Wall::from_micros(self.since),
            until: Wall::from_micros(self.until),
            outward: self.outward,
            ended: self.ended,
        })
    }
}

impl<'a> SirenV1<'a> {
    fn of(order: &'a SirenOrder) -> Self {
        let (at, until) = (order.at.micros(), order.until.micros());
        Self { on: order.on, at, until, alarm: AlarmV1::of(&order.alarm) }
    }

    fn read(self) -> Result<SirenOrder, RecordError> {
        let (at, until) = (Wall::from_micros(self.at), Wall::from_micros(self.until));
        Ok(SirenOrder { on: self.on, at, until, alarm: Arc::new(self.alarm.read()?) })
    }
}

impl<'a> SubjectV1<'a> {
    fn of(subject: &'a Subject) -> Self {
        match subject {
            Subject::Point(id) => Self::Point(id.as_str().into()),
            Subject::Device(id) => Self::Device(id.as_str().into()),
            Subject::Part(name) => Self::Part((&**name).into()),
        }
    }

    fn read(self) -> Subject {
        match self {
            Self::Point(id) => Subject::Point(PointId::new(id.into_owned())),
            Self::Device(id) => Subject::Device(DeviceId::new(id.into_owned())),
            Self::Part(name) => Subject::Part(name.into()),
        }
    }
}

impl<'a> PendingV1<'a> {
    fn of(pending: &'a Pending) -> Self {
        Self {
            rule: pending.rule.as_str().into(),
            subject: SubjectV1::of(&pending.subject),
            class: pending.class.as_str().into(),
            place: PlaceV1::of(&pending.place),
            label: (&*pending.label.zh).into(),
            label_en: (pending.label.en != pending.label.zh).then(|| (&*pending.label.en).into()),
            above: pending.above.map(|level| level.as_str().into()),
            below: pending.below.map(|level| level.as_str().into()),
            finding: pending.finding.as_ref().map(|finding| FindingV1 {
                level: finding.level.as_str().into(),
                limit: finding.limit.as_ref().map(|(name, value)| (name.into(), Exact(*value))),
                note: finding.note.as_ref().map(Into::into),
            }),
            evidence: EvidenceV1::of(&pending.evidence),
        }
    }

    fn read(self) -> Result<Pending, RecordError> {
        let finding = |finding: FindingV1<'_>| {
            Ok::<_, RecordError>(Finding {
                level: level(&finding.level)?,
                limit: finding.limit.map(|(name, value)| (name.into_owned(), value.0)),
                note: finding.note.map(Cow::into_owned),
            })
        };
        let (zh, en) = (self.label.into_owned(), self.label_en.map(Cow::into_owned));
        Ok(Pending {
            rule: RuleId::new(self.rule.into_owned()),
            subject: self.subject.read(),
            class: class(&self.class)?,
            place: Arc::new(self.place.read()),
            label: Name { en: en.unwrap_or_else(|| zh.clone()).into(), zh: zh.into() },
            above: self.above.as_deref().map(level).transpose()?,
            below: self.below.as_deref().map(level).transpose()?,
            finding: self.finding.map(finding).transpose()?,
            evidence: self.evidence.read()?,
        })
    }
}

impl<'a> TextV1<'a> {
    fn of(text: &'a Text) -> Self {
        Self { zh: (&text.zh).into(), en: (&text.en).into() }
    }

    fn read(self) -> Text {
        Text { zh: self.zh.into_owned(), en: self.en.into_owned() }
    }
}

impl<'a> PlaceV1<'a> {
    fn of(place: &'a Place) -> Self {
        Self {
            area: (&place.area).into(),
            grid: (&place.grid).into(),
            building: (&place.building).into(),
            unit: (&place.unit).into(),
            floor: (&place.floor).into(),
            room: (&place.room).into(),
            position: place.position.map(|(lat, lon)| (Exact(lat), Exact(lon))),
            polygon: place.polygon.iter().map(|(lat, lon)| (Exact(*lat), Exact(*lon))).collect(),
        }
    }

    fn read(self) -> Place {
        Place {
            area: self.area.into_owned(),
            grid: self.grid.into_owned(),
            building: self.building.into_owned(),
            unit: self.unit.into_owned(),
            floor: self.floor.into_owned(),
            room: self.room.into_owned(),
            position: self.position.map(|(lat, lon)| (lat.0, lon.0)),
            polygon: self.polygon.into_iter().map(|(lat, lon)| (lat.0, lon.0)).collect(),
        }
    }
}

impl<'a> ByV1<'a> {
    fn of(by: &'a By) -> Self {
        Self { who: (&by.who).into(), at: by.at.micros() }
    }

    fn read(self) -> By {
        By { who: self.who.into_owned(), at: Wall::from_micros(self.at) }
    }
}

impl<'a> EvidenceV1<'a> {
    fn of(evidence: &'a Evidence) -> Self {
        Self {
            point: evidence.point.as_ref().map(|id| id.as_str().into()),
            value: evidence.value.as_ref().map(ValueV1::of),
            unit: (&evidence.unit).into(),
            limit: evidence.limit.as_ref().map(|(name, value)| (name.into(), Exact(*value))),
            source_time: evidence.source_time.map(Wall::micros),
            sequence: evidence.sequence,
            received: evidence.received.micros(),
            grounds: evidence.grounds.as_deref().map(GroundsV1::of),
        }
    }

    fn read(self) -> Result<Evidence, RecordError> {
        Ok(Evidence {
            point: self.point.map(|id| PointId::new(id.into_owned())),
            value: self.value.map(ValueV1::read),
            unit: self.unit.into_owned(),
            limit: self.limit.map(|(name, value)| (name.into_owned(), value.0)),
            source_time: self.source_time.map(Wall::from_micros),
            sequence: self.sequence,
            received: Wall::from_micros(self.received),
            grounds: self.grounds.map(|grounds| grounds.read().map(Arc::new)).transpose()?,
        })
    }
}

impl<'a> ValueV1<'a> {
    fn of(value: &'a Value) -> Self {
        match value {
            Value::Number(number) => Self::Number(Exact(*number)),
            Value::Flag(flag) => Self::Flag(*flag),
            Value::Text(text) => Self::Text((&**text).into()),
        }
    }

    fn read(self) -> Value {
        match self {
            Self::Number(number) => Value::Number(number.0),
            Self::Flag(flag) => Value::Flag(flag),
            Self::Text(text) => Value::Text(text.into()),
        }
    }
}

impl<'a> GroundsV1<'a> {
    fn of(grounds: &'a Grounds) -> Self {
        Self {
            at: grounds.at.micros(),
            rule_hash: grounds.rule.to_string().into(),
            said: grounds.said.as_str().into(),
            held: grounds.held.map(|level| level.as_str().into()),
            inputs: grounds
                .inputs
                .iter()
                .map(|input| InputV1 {
                    role: (&*input.role).into(),
                    point: input.point.as_str().into(),
                    value: input.value.as_ref().map(ValueV1::of),
                    unit: (&*input.unit).into(),
                    quality: (input.quality != Quality::Good).then(|| input.quality.reason().into()),
                    time: input.time.micros(),
                    age_us: micros(input.age),
                })
                .collect(),
            windows: grounds
                .windows
                .iter()
                .map(|window| WindowV1 {
                    name: (&*window.name).into(),
                    measure: window.measure.as_str().into(),
                    over_us: micros(window.over),
                    value: window.value.map(Exact),
                    unit: (&*window.unit).into(),
                })
                .collect(),
            limits: grounds
                .limits
                .iter()
                .map(|limit| LimitV1 {
                    name: (&limit.name).into(),
                    value: Exact(limit.value),
                    unit: (&limit.unit).into(),
                    origin: limit.origin.as_str().into(),
                    source: (&limit.source.en).into(),
                    source_zh: (limit.source.zh != limit.source.en).then(|| (&limit.source.zh).into()),
                })
                .collect(),
        }
    }

    fn read(self) -> Result<Grounds, RecordError> {
        let word = |what, word: &str| RecordError::Word { what, word: word.chars().take(64).collect() };
        let input = |input: InputV1<'_>| {
            Ok(InputSeen {
                role: input.role.into(),
                point: PointId::new(input.point.into_owned()),
                value: input.value.map(ValueV1::read),
                unit: input.unit.into_owned().into(),
                quality: match input.quality.as_deref() {
                    None => Quality::Good,
                    Some(reason) => find("quality", reason, Quality::ALL, Quality::reason)?,
                },
                time: Wall::from_micros(input.time),
                age: Duration::from_micros(input.age_us),
            })
        };
        let window = |window: WindowV1<'_>| {
            Ok(WindowSeen {
                name: window.name.into(),
                measure: find("measure", &window.measure, Measure::CHOICES.map(|(_, each)| each), Measure::as_str)?,
                over: Duration::from_micros(window.over_us),
                value: window.value.map(|value| value.0),
                unit: window.unit.into(),
            })
        };
        let limit = |limit: LimitV1<'_>| {
            let en = limit.source.into_owned();
            Ok(LimitUsed {
                name: limit.name.into_owned(),
                value: limit.value.0,
                unit: limit.unit.into_owned(),
                origin: find("origin", &limit.origin, Origin::ALL, Origin::as_str)?,
                source: Text { zh: limit.source_zh.map_or_else(|| en.clone(), Str::into_owned), en },
            })
        };
        Ok(Grounds {
            at: Wall::from_micros(self.at),
            rule: ContentHash::parse(&self.rule_hash).ok_or_else(|| word("content hash", &self.rule_hash))?,
            said: Said::named(&self.said).ok_or_else(|| word("verdict", &self.said))?,
            held: self.held.as_deref().map(level).transpose()?,
            inputs: self.inputs.into_iter().map(input).collect::<Result<_, RecordError>>()?,
            windows: self.windows.into_iter().map(window).collect::<Result<_, RecordError>>()?,
            limits: self.limits.into_iter().map(limit).collect::<Result<_, RecordError>>()?,
        })
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl<'a> BroadcastV1<'a> {
    fn of(broadcast: &'a Broadcast) -> Self {
        let yes = |yes: &'a Yes| YesV1 { account: (&yes.account).into(), who: (&yes.who).into(), at: yes.at.micros() };
        let no = |no: &'a No| NoV1 { who: (&no.who).into(), at: no.at.micros(), why: (&no.why).into() };
        Self {
            state: broadcast.state.as_str().into(),
            level: broadcast.level.as_str().into(),
            asked_at: broadcast.asked_at.micros(),
            until: broadcast.until.micros(),
            people: broadcast.people,
            yes: broadcast.yes.iter().map(yes).collect(),
            no: broadcast.no.as_ref().map(no),
        }
    }

    fn read(self) -> Result<Broadcast, RecordError> {
        let yes = |yes: YesV1<'_>| Yes {
            account: yes.account.into_owned(),
            who: yes.who.into_owned(),
            at: Wall::from_micros(yes.at),
        };
        let no = |no: NoV1<'_>| No { who: no.who.into_owned(), at: Wall::from_micros(no.at), why: no.why.into_owned() };
        Ok(Broadcast {
            state: find("state of a broadcast", &self.state, BroadcastState::ALL, BroadcastState::as_str)?,
            level: level(&self.level)?,
            asked_at: Wall::from_micros(self.asked_at),
            until: Wall::from_micros(self.until),
            people: self.people,
            yes: self.yes.into_iter().map(yes).collect(),
            no: self.no.map(no),
        })
    }
}

impl<'a> CapRefV1<'a> {
    fn of(cap: &'a CapRef) -> Self {
        Self {
            channel: (&cap.channel).into(),
            identifier: (&cap.identifier).into(),
            sent: cap.sent.micros(),
            level: cap.level.as_str().into(),
            moved: cap.moved,
            voice: cap.voice.as_deref().map(VoiceV1::of),
        }
    }

    fn read(self) -> Result<CapRef, RecordError> {
        Ok(CapRef {
            channel: self.channel.into_owned(),
            identifier: self.identifier.into_owned(),
            sent: Wall::from_micros(self.sent),
            level: level(&self.level)?,
            moved: self.moved,
            voice: self.voice.map(VoiceV1::read),
        })
    }
}

impl<'a> VoiceV1<'a> {
    fn of(voice: &'a Voice) -> Self {
        Self { sender: (&*voice.sender).into(), status: (&*voice.status).into(), zone: (&*voice.zone).into() }
    }

    fn read(self) -> Arc<Voice> {
        let [sender, status, zone] = [self.sender, self.status, self.zone].map(|word| Arc::from(&*word.into_owned()));
        Arc::new(Voice { sender, status, zone })
    }
}

impl<'a> CallChangeV1<'a> {
    fn of(change: &'a CallChange) -> Self {
        let call = &change.call;
        Self {
            at: change.at.micros(),
            cause: change.cause.as_str().into(),
            call: CallV1 {
                alarm: Id(call.alarm.0),
                station: (&*call.station).into(),
                station_name: (&call.station_name.zh).into(),
                station_name_en: (call.station_name.en != call.station_name.zh).then(|| (&call.station_name.en).into()),
                state: call.state.as_str().into(),
                stamps: call
                    .stamps
                    .iter()
                    .map(|stamp| StampV1 {
                        state: stamp.state.as_str().into(),
                        at: stamp.at.micros(),
                        by: (&stamp.by).into(),
                        why: (&stamp.why).into(),
                    })
                    .collect(),
                respond_by: call.respond_by.micros(),
                arrive_by: call.arrive_by.micros(),
                control_by: Some(call.control_by.micros()),
                late: call.late,
                not_controlled: call.not_controlled,
                crew: call.crew.iter().map(|member| ((&*member.id).into(), (&member.name).into())).collect(),
                round: call.round,
                seq: call.seq,
            },
            alarm: AlarmV1::of(&change.alarm),
            message: TextV1::of(&change.message),
        }
    }

    fn read(self) -> Result<CallChange, RecordError> {
        let call = self.call;
        Ok(CallChange {
            at: Wall::from_micros(self.at),
            cause: call_cause(&self.cause)?,
            call: Call {
                alarm: AlarmId(call.alarm.0),
                station: call.station.into(),
                station_name: Text {
                    en: call.station_name_en.unwrap_or_else(|| call.station_name.clone()).into_owned(),
                    zh: call.station_name.into_owned(),
                },
                state: call_state(&call.state)?,
                stamps: call
                    .stamps
                    .into_iter()
                    .map(|stamp| {
                        Ok(CallStamp {
                            state: call_state(&stamp.state)?,
                            at: Wall::from_micros(stamp.at),
                            by: stamp.by.into_owned(),
                            why: stamp.why.into_owned(),
                        })
                    })
                    .collect::<Result<_, RecordError>>()?,
                respond_by: Wall::from_micros(call.respond_by),
                arrive_by: Wall::from_micros(call.arrive_by),
                // The third clock of a call of the time before it: two minutes after the second, as is practice.
                control_by: Wall::from_micros(call.control_by.unwrap_or(call.arrive_by + 120_000_000)),
                late: call.late,
                not_controlled: call.not_controlled,
                crew: call
                    .crew
                    .into_iter()
                    .map(|(id, name)| OnCall { id: id.into(), name: name.into_owned() })
                    .collect(),
                round: call.round,
                seq: call.seq,
            },
            alarm: Arc::new(self.alarm.read()?),
            message: self.message.read(),
        })
    }
}

impl<'a> IncidentChangeV1<'a> {
    fn of(change: &'a IncidentChange) -> Self {
        let incident = &*change.incident;
        Self {
            at: change.at.micros(),
            cause: IncidentCauseV1::of(&change.cause),
            incident: IncidentV1 {
                id: Id(incident.id.0),
                seq: incident.seq,
                case: incident.case.as_ref().map(CaseV1::of),
                title: TextV1::of(&incident.title),
                place: PlaceV1::of(&incident.place),
                drill: incident.drill.map(|drill| Id(drill.0)),
                hazards: incident.hazards.iter().map(|hazard| hazard.as_str().into()).collect(),
                peak: incident.peak.as_str().into(),
                storm: incident.storm,
                alarms: incident.alarms,
                opened_at: incident.opened_at.micros(),
                changed_at: incident.changed_at.micros(),
                settled_at: incident.settled_at.map(Wall::micros),
                closes_at: incident.closes_at.map(Wall::micros),
                notes: incident.notes.iter().map(NoteV1::of).collect(),
                checklist: incident.checklist.iter().map(ItemV1::of).collect(),
                called_119: incident.called_119.as_ref().map(NoteV1::of),
                end: incident.end.as_ref().map(EndV1::of),
            },
        }
    }

    fn read(self) -> Result<IncidentChange, RecordError> {
        let incident = self.incident;
        Ok(IncidentChange {
            at: Wall::from_micros(self.at),
            cause: self.cause.read()?,
            incident: Arc::new(Incident {
                id: IncidentId(incident.id.0),
                seq: incident.seq,
                case: incident.case.map(CaseV1::read).transpose()?,
                title: incident.title.read(),
                place: Arc::new(incident.place.read()),
                drill: incident.drill.map(|id| DrillId(id.0)),
                hazards: incident.hazards.iter().map(|word| hazard(word)).collect::<Result<_, _>>()?,
                peak: level(&incident.peak)?,
                storm: incident.storm,
                alarms: incident.alarms,
                opened_at: Wall::from_micros(incident.opened_at),
                changed_at: Wall::from_micros(incident.changed_at),
                settled_at: incident.settled_at.map(Wall::from_micros),
                closes_at: incident.closes_at.map(Wall::from_micros),
                notes: incident.notes.into_iter().map(NoteV1::read).collect(),
                checklist: incident.checklist.into_iter().map(ItemV1::read).collect::<Result<_, _>>()?,
                called_119: incident.called_119.map(NoteV1::read),
                end: incident.end.map(EndV1::read).transpose()?,
            }),
        })
    }
}

impl<'a> CaseV1<'a> {
    fn of(case: &'a Case) -> Self {
        let owner = case.owner.as_ref().map(Into::into);
        Self { kind: case.kind.as_str().into(), stage: case.stage.as_str().into(), owner, by_hand: case.by_hand }
    }

    fn read(self) -> Result<Case, RecordError> {
        let owner = self.owner.map(Cow::into_owned);
        Ok(Case { kind: case_kind(&self.kind)?, stage: case_stage(&self.stage)?, owner, by_hand: self.by_hand })
    }
}

fn case_kind(word: &str) -> Result<CaseKind, RecordError> {
    find("kind of case", word, CaseKind::ALL, CaseKind::as_str)
}

fn case_stage(word: &str) -> Result<Stage, RecordError> {
    find("state of a case", word, Stage::ALL, Stage::as_str)
}

impl<'a> NoteV1<'a> {
    fn of(note: &'a Note) -> Self {
        let photos = note.photos.iter().map(Into::into).collect();
        Self { at: note.at.micros(), by: (&note.by).into(), text: (&note.text).into(), photos }
    }

    fn read(self) -> Note {
        let photos = self.photos.into_iter().map(Cow::into_owned).collect();
        Note { at: Wall::from_micros(self.at), by: self.by.into_owned(), text: self.text.into_owned(), photos }
    }
}

impl<'a> ItemV1<'a> {
    fn of(item: &'a Item) -> Self {
        let done = item.done.as_ref().map(|Done { at, by, skipped }| DoneV1 {
            at: at.micros(),
            by: by.into(),
            skipped: skipped.as_ref().map(Into::into),
        });
        Self {
            id: (&item.id).into(),
            plan: (&item.plan).into(),
            version: (&item.version).into(),
            text: TextV1::of(&item.text),
            owner: item.owner.as_str().into(),
            added_at: item.added_at.micros(),
            due: item.due.map(Wall::micros),
            late: item.late,
            done,
        }
    }

    fn read(self) -> Result<Item, RecordError> {
        let owners = Owner::CHOICES.into_iter().map(|(_, owner)| owner);
        Ok(Item {
            id: self.id.into_owned(),
            plan: self.plan.into_owned(),
            version: self.version.into_owned(),
            text: self.text.read(),
            owner: find("owner of a step", &self.owner, owners, Owner::as_str)?,
            added_at: Wall::from_micros(self.added_at),
            due: self.due.map(Wall::from_micros),
            late: self.late,
            done: self.done.map(|done| Done {
                at: Wall::from_micros(done.at),
                by: done.by.into_owned(),
                skipped: done.skipped.map(Str::into_owned),
            }),
        })
    }
}

impl<'a> IncidentCauseV1<'a> {
    fn of(cause: &'a IncidentCause) -> Self {
        match cause {
            IncidentCause::Opened => Self::Opened,
            IncidentCause::Grew => Self::Grew,
            IncidentCause::Settled => Self::Settled,
            IncidentCause::Resumed => Self::Resumed,
            IncidentCause::Noted { by } => Self::Noted { by: by.into() },
            IncidentCause::Ticked { step, by } => Self::Ticked { step: step.into(), by: by.into() },
            IncidentCause::Skipped { step, by } => Self::Skipped { step: step.into(), by: by.into() },
            IncidentCause::StepLate { step } => Self::StepLate { step: step.into() },
            IncidentCause::Called119 { by } => Self::Called119 { by: by.into() },
            IncidentCause::Staged { stage, by } => Self::Staged { stage: stage.as_str().into(), by: by.into() },
            IncidentCause::SplitFrom { from, by } => Self::SplitFrom { from: Id(from.0), by: by.into() },
            IncidentCause::SplitInto { into, by } => Self::SplitInto { into: Id(into.0), by: by.into() },
            IncidentCause::Absorbed { from, by } => Self::Absorbed { from: Id(from.0), by: by.into() },
            IncidentCause::Closed => Self::Closed,
        }
    }

    fn read(self) -> Result<IncidentCause, RecordError> {
        Ok(match self {
            Self::Opened => IncidentCause::Opened,
            Self::Grew => IncidentCause::Grew,
            Self::Settled => IncidentCause::Settled,
            Self::Resumed => IncidentCause::Resumed,
            Self::Noted { by } => IncidentCause::Noted { by: by.into_owned() },
            Self::Ticked { step, by } => IncidentCause::Ticked { step: step.into_owned(), by: by.into_owned() },
            Self::Skipped { step, by } => IncidentCause::Skipped { step: step.into_owned(), by: by.into_owned() },
            Self::StepLate { step } => IncidentCause::StepLate { step: step.into_owned() },
            Self::Called119 { by } => IncidentCause::Called119 { by: by.into_owned() },
            Self::Staged { stage, by } => IncidentCause::Staged { stage: case_stage(&stage)?, by: by.into_owned() },
            Self::SplitFrom { from, by } => IncidentCause::SplitFrom { from: IncidentId(from.0), by: by.into_owned() },
            Self::SplitInto { into, by } => IncidentCause::SplitInto { into: IncidentId(into.0), by: by.into_owned() },
            Self::Absorbed { from, by } => IncidentCause::Absorbed { from: IncidentId(from.0), by: by.into_owned() },
            Self::Closed => IncidentCause::Closed,
        })
    }
}

impl<'a> EndV1<'a> {
    fn of(end: &'a End) -> Self {
        let (cause, into) = match end.outcome {
            Outcome::FalseAlarm(cause) => (Some(cause.as_str().into()), None),
            Outcome::Merged(into) => (None, Some(Id(into.0))),
            _ => (None, None),
        };
        Self {
            at: end.at.micros(),
            by: (&end.by).into(),
            outcome: end.outcome.as_str().into(),
            cause,
            into,
            why: (&end.why).into(),
        }
    }

    fn read(self) -> Result<End, RecordError> {
        let unknown = |what, word: &str| RecordError::Word { what, word: word.chars().take(64).collect() };
        let outcome = match (&*self.outcome, self.cause, self.into) {
            ("drill", ..) => Outcome::Drill,
            ("unexplained", ..) => Outcome::Unexplained,
            ("merged", _, Some(into)) => Outcome::Merged(IncidentId(into.0)),
            ("false_alarm", Some(cause), _) => {
                Outcome::FalseAlarm(FalseCause::named(&cause).ok_or_else(|| unknown("cause of a false alarm", &cause))?)
            }
            (word, ..) => Outcome::named(word).ok_or_else(|| unknown("outcome", word))?,
        };
        Ok(End { at: Wall::from_micros(self.at), by: self.by.into_owned(), outcome, why: self.why.into_owned() })
    }
}

impl<'a> CapV1<'a> {
    fn of(cap: &'a CapOrder) -> Self {
        Self {
            message: match cap.message {
                CapMessage::Alert => "alert",
                CapMessage::Update => "update",
                CapMessage::Cancel => "cancel",
            }
            .into(),
            identifier: (&cap.identifier).into(),
            sent: cap.sent.micros(),
            voice: cap.voice.as_deref().map(VoiceV1::of),
            references: cap.references.iter().map(CapRefV1::of).collect(),
            alarm: AlarmV1::of(&cap.alarm),
        }
    }

    fn read(self) -> Result<CapOrder, RecordError> {
        Ok(CapOrder {
            message: match &*self.message {
                "alert" => CapMessage::Alert,
                "update" => CapMessage::Update,
                "cancel" => CapMessage::Cancel,
                word => return Err(RecordError::Word { what: "CAP message", word: word.to_owned() }),
            },
            identifier: self.identifier.into_owned(),
            sent: Wall::from_micros(self.sent),
            voice: self.voice.map(VoiceV1::read),
            references: self.references.into_iter().map(CapRefV1::read).collect::<Result<_, _>>()?,
            alarm: Arc::new(self.alarm.read()?),
        })
    }
}

fn find<T: Copy>(
    what: &'static str,
    word: &str,
    all: impl IntoIterator<Item = T>,
    name: impl Fn(T) -> &'static str,
) -> Result<T, RecordError> {
    all.into_iter()
        .find(|item| name(*item) == word)
        .ok_or_else(|| RecordError::Word { what, word: word.chars().take(64).collect() })
}

fn state(word: &str) -> Result<AlarmState, RecordError> {
    find("state", word, AlarmState::ALL, AlarmState::as_str)
}

fn level(word: &str) -> Result<Level, RecordError> {
    find("level", word, Level::ALL, Level::as_str)
}

fn hazard(word: &str) -> Result<Hazard, RecordError> {
    find("hazard", word, Hazard::ALL, Hazard::as_str)
}

fn class(word: &str) -> Result<Class, RecordError> {
    // Every hazard has a kind, so the table of kinds names them all.
    let hazards = KINDS.iter().map(|kind| Class::Hazard(kind.hazard));
    find("class", word, hazards.chain([Class::System]), Class::as_str)
}

const fn condition_word(condition: Condition) -> &'static str {
    match condition {
        Condition::Normal => "normal",
        Condition::Pending => "pending",
        Condition::Active => "active",
        Condition::Clearing => "clearing",
    }
}

fn condition(word: &str) -> Result<Condition, RecordError> {
    let all = [Condition::Normal, Condition::Pending, Condition::Active, Condition::Clearing];
    find("condition", word, all, condition_word)
}

fn call_state(word: &str) -> Result<CallState, RecordError> {
    find("call state", word, CallState::ALL, CallState::as_str)
}

fn call_cause(word: &str) -> Result<CallCause, RecordError> {
    let all = [
        CallCause::Called,
        CallCause::Said,
        CallCause::Unanswered,
        CallCause::Late,
        CallCause::NotControlled,
        CallCause::AlarmClosed,
    ];
    find("call cause", word, all, CallCause::as_str)
}

#[cfg(test)]
mod tests {
    use anmin_rules::alarm::AlarmState;

    use super::*;
    use crate::samples::{
        RAISED, alarm, call_change, cap_orders, closed, explained, incident_change, pending, transition,
    };

    /// A name and what was written, for each kind of record; all fields filled somewhere.
    fn examples() -> Vec<(&'static str, OrderBody)> {
        let shelf = Shelf { until: RAISED, by: "li".to_owned(), why: "painting \"today\"\n".to_owned() };
        let by = By { who: "wang".to_owned(), at: RAISED };
        let full = Alarm {
            shelved: Some(shelf),
            out_of_service: Some(by),
            realarm_at: Some(RAISED),
            escalation: 3,
            peak_escalation: 3,
            latched: true,
            class: Class::System,
            subject: Subject::Part("way-out:office".into()),
            place: Arc::new(Place { position: Some((-0.1, 1.0 / 3.0)), ..Place::default() }),
            evidence: Evidence {
                value: Some(Value::Number(0.1 + 0.2)),
                limit: Some(("high".to_owned(), f64::MIN_POSITIVE)),
                sequence: Some(u64::MAX),
                ..Evidence::default()
            },
            cap_log: cap_orders()[2].1.references.clone(),
            ..alarm()
        };
        let with = |value: Value, subject: Subject| Alarm {
            evidence: Evidence { value: Some(value), ..Evidence::default() },
            subject,
            ..alarm()
        };
        let yes = |name: &str| Yes { account: name.to_owned(), who: name.to_uppercase(), at: RAISED };
        let asked = Alarm {
            broadcast: Some(Broadcast {
                state: BroadcastState::Approved,
                level: Level::Red,
                asked_at: RAISED,
                until: RAISED,
                people: 2,
                yes: vec![yes("li"), yes("wang")],
                no: Some(No { who: "chen".to_owned(), at: RAISED, why: "\"no\"".to_owned() }),
            }),
            rerouted: vec!["spare".into()],
            ..alarm()
        };
        let at = |cause: Cause, alarm: Alarm| OrderBody::Event(transition(AlarmState::Unacknowledged, cause, alarm));
        let mut all = vec![
            ("raised", at(Cause::Raised, alarm())),
            (
                "level changed",
                at(Cause::LevelChanged(Level::Red), with(Value::Flag(true), Subject::Device(DeviceId::new("a")))),
            ),
            ("returned", at(Cause::Returned, closed())),
            ("realarmed", at(Cause::Realarmed, with(Value::Text("门开".into()), alarm().subject))),
            ("acknowledged", at(Cause::Acknowledged { by: "li".to_owned() }, alarm())),
            ("reset", at(Cause::Reset { by: "li".to_owned() }, closed())),
            ("shelved", at(Cause::Shelved { by: "li".to_owned() }, full.clone())),
            ("unshelved", at(Cause::Unshelved { by: None }, full.clone())),
            ("unshelved by", at(Cause::Unshelved { by: Some("li".to_owned()) }, full)),
            ("out", at(Cause::TakenOutOfService { by: "li".to_owned(), why: "broken".to_owned() }, alarm())),
            ("in", at(Cause::ReturnedToService { by: "li".to_owned() }, alarm())),
            ("escalated", at(Cause::Escalated { step: 2, by: None, why: String::new() }, alarm())),
            ("regrouped", at(Cause::Regrouped { by: Some("li".to_owned()) }, alarm())),
            ("regrouped by anmin", at(Cause::Regrouped { by: None }, alarm())),
            ("call", OrderBody::Call(call_change())),
        ];
        all.extend(cap_orders().map(|(name, cap)| (name, OrderBody::Cap(Arc::new(cap)))));
        // Since evidence keeps its grounds; a record without them is one of the time before.
        all.push(("raised on grounds", at(Cause::Raised, explained())));
        // Since a call names its crew and has a third clock.
        let mut crewed = (*call_change()).clone();
        crewed.cause = CallCause::NotControlled;
        (crewed.call.state, crewed.call.not_controlled, crewed.call.round) = (CallState::UnderControl, true, 2);
        crewed.call.crew = vec![OnCall { id: "wang".into(), name: "王强".to_owned() }];
        all.push(("call of a crew", OrderBody::Call(Arc::new(crewed))));
        // Since what is found may be no emergency.
        all.push(("raised of a case", at(Cause::Raised, Alarm { case: Some(CaseKind::Mediation), ..alarm() })));
        // Since people are asked before a broadcast.
        let approved = Cause::Broadcast { step: BroadcastStep::Approved, by: Some("wang".to_owned()) };
        all.push(("broadcast approved", at(approved, asked.clone())));
        all.push(("broadcast rerouted", at(Cause::Broadcast { step: BroadcastStep::Rerouted, by: None }, asked)));
        // Since those who hear of what nobody acts on hear how it ends, and what is in force is said again.
        let before = Alarm { escalation: 1, peak_escalation: 2, ..alarm() };
        all.push((
            "escalated more before",
            at(Cause::Escalated { step: 1, by: None, why: String::new() }, before.clone()),
        ));
        all.push(("broadcast renewed", at(Cause::Broadcast { step: BroadcastStep::Renewed, by: None }, before)));
        // Since people escalate and call by hand.
        let by_hand = Cause::Escalated { step: 2, by: Some("li".to_owned()), why: "两处冒烟".to_owned() };
        all.push(("escalated by hand", at(by_hand, alarm())));
        // Since an alarm follows its device to another place, and a place may be drawn.
        let mut cap_log = cap_orders()[2].1.references.clone();
        cap_log[1].moved = 1;
        let polygon = vec![(36.0, 103.5), (36.0, 1.0 / 3.0), (36.25, 103.5), (36.0, 103.5)];
        let place = Arc::new(Place { polygon, ..Place::default() });
        all.push(("moved", at(Cause::Moved, Alarm { place, moved: 2, cap_log, ..alarm() })));
        // Since sirens sound.
        let sounding = |ended: bool| {
            let (since, until) = (RAISED, RAISED.plus(std::time::Duration::from_secs(180)));
            let of = Sounding { siren: "horn".into(), level: Level::Red, since, until, outward: ended, ended };
            Alarm { sirens: vec![of], ..alarm() }
        };
        let ended = Cause::Broadcast { step: BroadcastStep::Ended, by: None };
        all.push(("broadcast ended", at(ended, sounding(true))));
        for on in [true, false] {
            let alarm = Arc::new(sounding(!on));
            let until = alarm.sirens[0].until;
            all.push(("siren", OrderBody::Siren(Arc::new(SirenOrder { on, at: RAISED, until, alarm }))));
        }
        all
    }

    /// Every cause, and every way to end.
    fn incidents() -> Vec<IncidentChange> {
        let other = IncidentId(uuid::Uuid::from_u128(9));
        let by = || "li".to_owned();
        let causes = [
            IncidentCause::Opened,
            IncidentCause::Grew,
            IncidentCause::Settled,
            IncidentCause::Resumed,
            IncidentCause::Noted { by: by() },
            IncidentCause::SplitFrom { from: other, by: by() },
            IncidentCause::SplitInto { into: other, by: by() },
            IncidentCause::Absorbed { from: other, by: by() },
            IncidentCause::Ticked { step: "gas/valve".to_owned(), by: by() },
            IncidentCause::Skipped { step: "gas/power".to_owned(), by: by() },
            IncidentCause::StepLate { step: "gas/valve".to_owned() },
            IncidentCause::Called119 { by: by() },
            IncidentCause::Staged { stage: Stage::Waiting, by: by() },
        ];
        let own = [Outcome::Drill, Outcome::Unexplained, Outcome::Merged(other)];
        let of_cases = CaseKind::ALL.iter().flat_map(|kind| kind.outcomes()).copied();
        let outcomes = Outcome::EMERGENCY.into_iter().chain(own).chain(FalseCause::ALL.map(Outcome::FalseAlarm));
        let ended = outcomes.chain(of_cases).map(|outcome| {
            let end = Some(End { at: RAISED, by: by(), outcome, why: "\"窗\"\n".to_owned() });
            let incident = Arc::new(Incident { end, closes_at: None, ..(*incident_change().incident).clone() });
            IncidentChange { cause: IncidentCause::Closed, incident, ..incident_change() }
        });
        let plain =
            Incident { settled_at: None, closes_at: None, notes: Vec::new(), ..(*incident_change().incident).clone() };
        let plain = IncidentChange { incident: Arc::new(plain), ..incident_change() };
        let item = |step: &str, owner, late: bool, done| Item {
            id: format!("gas/{step}"),
            plan: "gas-red".to_owned(),
            version: "2026-1".to_owned(),
            text: Text { zh: "关闭阀门".to_owned(), en: "close the valve".to_owned() },
            owner,
            added_at: RAISED,
            due: (!late).then_some(RAISED),
            late,
            done,
        };
        let done = |skipped: Option<&str>| Some(Done { at: RAISED, by: by(), skipped: skipped.map(str::to_owned) });
        let planned = Incident {
            checklist: vec![
                item("a", Owner::Officer, false, None),
                item("b", Owner::Utility, true, done(None)),
                item("c", Owner::Grid, false, done(Some("已断电"))),
            ],
            called_119: Some(Note { at: RAISED, by: by(), text: "已报告".to_owned(), photos: Vec::new() }),
            ..(*incident_change().incident).clone()
        };
        let planned = IncidentChange { incident: Arc::new(planned), ..incident_change() };
        let cases = CaseKind::ALL.iter().flat_map(|kind| kind.stages().iter().map(|stage| (*kind, *stage)));
        let cases = cases.zip([None, Some("li".to_owned())].into_iter().cycle()).map(|((kind, stage), owner)| {
            let case = Some(Case { kind, stage, by_hand: owner.is_some(), owner });
            let incident = Incident { case, ..(*incident_change().incident).clone() };
            IncidentChange { incident: Arc::new(incident), ..incident_change() }
        });
        causes
            .into_iter()
            .map(|cause| IncidentChange { cause, ..incident_change() })
            .chain(ended)
            .chain([plain, planned])
            .chain(cases)
            .collect()
    }

    #[test]
    fn every_record_comes_back_exactly() {
        for (name, body) in examples() {
            let Body::Whole(back) = read_body(&write_body(&body)).unwrap() else { panic!("{name}") };
            assert_eq!(back, body, "{name}");
            match &body {
                OrderBody::Event(transition) => {
                    assert_eq!(read_transition(&write_transition(transition)).unwrap(), **transition, "{name}");
                }
                OrderBody::Call(change) => assert_eq!(read_call(&write_call(change)).unwrap(), **change, "{name}"),
                OrderBody::Cap(_) | OrderBody::Siren(_) => {}
            }
        }
        for change in incidents() {
            assert_eq!(read_incident(&write_incident(&change)).unwrap(), change);
        }
        let below = Pending { above: None, below: Some(Level::Blue), finding: None, ..pending() };
        for condition in [pending(), below] {
            assert_eq!(read_pending(&write_pending(&condition)).unwrap(), condition);
        }
        assert!(matches!(read_body(&write_body_at(7, false)), Ok(Body::EventAt(7))));
        assert!(matches!(read_body(&write_body_at(8, true)), Ok(Body::CallAt(8))));
    }

    /// Goal: what any released anmin wrote is read by this one. Method: `records/v<n>.jsonl` holds the examples as
    /// version n wrote them; the newest is what this anmin writes. `UPDATE_GOLDEN=1 cargo test -p anmin store::record`
    /// writes the newest anew, which is right only as long as no release wrote it.
    #[test]
    fn every_version_is_read() {
        let path = |version: u32| format!("{}/src/store/records/v{version}.jsonl", env!("CARGO_MANIFEST_DIR"));
        let now: String = examples().iter().map(|(_, body)| write_body(body) + "\n").collect();
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(path(VERSION), &now).expect("the golden file can be written");
        }
        for version in 1..=VERSION {
            let lines = std::fs::read_to_string(path(version)).expect("each version has its file");
            for (line, (name, body)) in lines.lines().zip(examples()) {
                let Body::Whole(back) = read_body(line).unwrap() else { panic!("{name}") };
                assert_eq!(back, body, "version {version}: {name}");
            }
            if version == VERSION {
                assert_eq!(lines, now, "the format changed without a new version");
            }
        }
    }

    /// As [`every_version_is_read`], for incidents.
    #[test]
    fn every_version_of_an_incident_is_read() {
        let path = |version: u32| format!("{}/src/store/records/incident-v{version}.jsonl", env!("CARGO_MANIFEST_DIR"));
        let now: String = incidents().iter().map(|change| write_incident(change) + "\n").collect();
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(path(VERSION), &now).expect("the golden file can be written");
        }
        for version in 1..=VERSION {
            let lines = std::fs::read_to_string(path(version)).expect("each version has its file");
            let read: Vec<IncidentChange> = lines.lines().map(|line| read_incident(line).unwrap()).collect();
            assert_eq!(read, incidents(), "version {version}");
            if version == VERSION {
                assert_eq!(lines, now, "the format changed without a new version");
            }
        }
    }

    #[test]
    fn an_alarm_of_the_time_before_incidents_is_read_as_one_without() {
        let before = (*transition(AlarmState::Normal, Cause::Raised, Alarm { incident: None, ..alarm() })).clone();
        let written = write_transition(&before);
        assert!(!written.contains("incident"), "{written}");
        assert_eq!(read_transition(&written).unwrap(), before);
    }

    #[test]
    fn a_call_of_the_time_before_the_third_clock_has_two_minutes_more_than_the_second() {
        let mut older: serde_json::Value = serde_json::from_str(&write_call(&call_change())).expect("a record is JSON");
        let call = older["call"].as_object_mut().expect("an object");
        assert!(call.remove("control_by").is_some() && call.remove("round").is_some());
        assert_eq!(read_call(&older.to_string()).unwrap(), *call_change());
    }

    #[test]
    fn evidence_of_the_time_before_grounds_is_read_without_them() {
        let raised = |alarm| transition(AlarmState::Normal, Cause::Raised, alarm);
        let whole = write_transition(&raised(explained()));
        let mut older: serde_json::Value = serde_json::from_str(&whole).expect("a record is JSON");
        let evidence = older["alarm"]["evidence"].as_object_mut().expect("an object");
        assert!(evidence.remove("grounds").is_some());
        assert_eq!(read_transition(&older.to_string()).unwrap(), *raised(alarm()));
    }

    #[test]
    fn a_station_whose_names_are_one_is_written_once_and_read_as_both() {
        let mut change = (*call_change()).clone();
        change.call.station_name.en = change.call.station_name.zh.clone();
        let written = write_call(&change);
        assert!(!written.contains("station_name_en"), "{written}");
        assert_eq!(read_call(&written).unwrap(), change);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let good = write_transition(&transition(AlarmState::Normal, Cause::Raised, alarm()));
        let grounds = write_transition(&transition(AlarmState::Normal, Cause::Raised, explained()));
        let cases = [
            ("{}".to_owned(), "record is not readable: missing field `v`"),
            (good.replace("\"v\":1", "\"v\":9"), "record has version 9, this anmin knows up to 1"),
            (good.replace("\"orange\"", "\"mauve\""), "record has level \"mauve\", which is not known here"),
            (good.replace("\"26.5\"", "\"warm\""), "record is not readable: \"warm\" is not a number"),
            (
                grounds.replace("\"device\",\"source\"", "\"moon\",\"source\""),
                "record has origin \"moon\", which is not known here",
            ),
            (grounds.replace("0123456789abcdef", "xyz"), "record has content hash \"xyz\", which is not known here"),
        ];
        for (json, said) in cases {
            let error = read_transition(&json).unwrap_err().to_string();
            assert!(error.starts_with(said), "{error}");
        }
    }
}
