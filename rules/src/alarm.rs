//! The alarm: its state, its lifecycle, the book of all open ones.
//!
//! States follow ISA-18.2 / IEC 62682 (normal, unacknowledged, acknowledged, returned-unacknowledged, shelved,
//! suppressed, out of service), with the latch of Chinese fire practice (GB 31252-2014 4.3.1: held until manual reset).
//! One alarm a rule and subject; an occurrence has one id from the moment it is raised until it is closed.

use std::fmt;
use std::sync::Arc;

use anmin_sensors::point::{DeviceId, Hazard, Name, Place, PointId};
use anmin_sensors::time::{Now, Wall};

use crate::broadcast::{Broadcast, BroadcastAction, BroadcastStep};
use crate::casework::CaseKind;
use crate::drill::DrillId;
use crate::incident::{IncidentAction, IncidentId, NewCase};
use crate::order::Voice;
use crate::rule::{Evidence, Finding, Level, RuleId, Text};
use crate::siren::Sounding;
use crate::walk::WalkId;

/// UUIDv7 of one occurrence: sorts by the time it was raised.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AlarmId(pub uuid::Uuid);

impl fmt::Display for AlarmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for AlarmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What an alarm is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    Point(PointId),
    Device(DeviceId),
    /// A part of anmin or of its surroundings: `broker:site`, `bus:bus-a`, `way-out:office`, `rule:gas/leak`.
    Part(Arc<str>),
}

impl Subject {
    pub fn as_str(&self) -> &str {
        match self {
            Self::Point(id) => id.as_str(),
            Self::Device(id) => id.as_str(),
            Self::Part(name) => name,
        }
    }
}

/// Whether people are in danger or anmin's own eyes and hands are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    Hazard(Hazard),
    System,
}

impl Class {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hazard(hazard) => hazard.as_str(),
            Self::System => "system",
        }
    }
}

/// What the world says. `Pending` and `Clearing` wait for their delays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Condition {
    Normal,
    Pending,
    Active,
    Clearing,
}

/// Derived and flat, for screens and API: the ISA-18.2 list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AlarmState {
    /// Closed: nobody owes anything.
    Normal,
    /// Condition there, not acknowledged: annunciates.
    Unacknowledged,
    /// Condition there, acknowledged.
    Acknowledged,
    /// Condition gone, not acknowledged: stays visible.
    ReturnedUnacknowledged,
    /// Condition gone, acknowledged, waits for a person's reset.
    Latched,
    Shelved,
    Suppressed,
    OutOfService,
}

impl AlarmState {
    pub const ALL: [Self; 8] = [
        Self::Normal,
        Self::Unacknowledged,
        Self::Acknowledged,
        Self::ReturnedUnacknowledged,
        Self::Latched,
        Self::Shelved,
        Self::Suppressed,
        Self::OutOfService,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Unacknowledged => "unacknowledged",
            Self::Acknowledged => "acknowledged",
            Self::ReturnedUnacknowledged => "returned_unacknowledged",
            Self::Latched => "latched",
            Self::Shelved => "shelved",
            Self::Suppressed => "suppressed",
            Self::OutOfService => "out_of_service",
        }
    }

    pub const fn zh(self) -> &'static str {
        match self {
            Self::Normal => "正常",
            Self::Unacknowledged => "未确认",
            Self::Acknowledged => "已确认",
            Self::ReturnedUnacknowledged => "已恢复未确认",
            Self::Latched => "待复位",
            Self::Shelved => "已搁置",
            Self::Suppressed => "已抑制",
            Self::OutOfService => "已停用",
        }
    }
}

/// Who did it and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct By {
    pub who: String,
    pub at: Wall,
}

/// A shelf: the alarm is silenced by a person for a while, with a reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shelf {
    pub until: Wall,
    pub by: String,
    pub why: String,
}

/// One occurrence, whole: a transition carries it as it stands after, so any prefix of the journal gives the book.
#[derive(Clone, Debug, PartialEq)]
pub struct Alarm {
    pub id: AlarmId,
    pub rule: RuleId,
    pub subject: Subject,
    pub class: Class,
    pub title: Text,
    pub place: Arc<Place>,
    /// How often the place has been another since it was raised: what was said outside names the one of then.
    pub moved: u32,
    /// What kind of case it opens, if it is no emergency.
    pub case: Option<CaseKind>,
    /// Which event it is part of; `None` for those about anmin itself.
    pub incident: Option<IncidentId>,
    /// The drill that it is part of; `None` for what is real.
    pub drill: Option<DrillId>,
    /// The level it stands at; for a latched rule the highest reached.
    pub level: Level,
    /// The highest level of this occurrence: who has heard of it hears how it ends.
    pub peak: Level,
    /// Only `Normal` or `Active` in a journal: delays start again after a restart.
    pub condition: Condition,
    pub acknowledged: Option<By>,
    /// A person must reset it before it can close.
    pub latched: bool,
    pub shelved: Option<Shelf>,
    pub out_of_service: Option<By>,
    /// Steps escalated since it was last acknowledged.
    pub escalation: u32,
    /// The most of this occurrence: who was told because of it hears how it ends.
    pub peak_escalation: u32,
    pub escalate_at: Option<Wall>,
    pub realarm_at: Option<Wall>,
    pub raised_at: Wall,
    pub changed_at: Wall,
    /// Some change of this occurrence was written down while the wall clock was in doubt: its times may be wrong, its
    /// order is not.
    pub clock_doubtful: bool,
    /// Number of its transitions so far; the first is 1.
    pub seq: u32,
    pub evidence: Evidence,
    /// Rendered message.
    pub message: Text,
    pub advice: Text,
    /// CAP messages sent about it, by channel, oldest first: what Update and Cancel must refer to.
    pub cap_log: Vec<CapRef>,
    /// Whether people let it leave the community, where they are asked.
    pub broadcast: Option<Broadcast>,
    /// Spare targets that get what is said about it, since another has not taken it.
    pub rerouted: Vec<Arc<str>>,
    /// Sirens that sound, or have sounded, for it: of each the last time.
    pub sirens: Vec<Sounding>,
}

/// One CAP message that left: what a later one puts in `references`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapRef {
    pub channel: String,
    pub identifier: String,
    pub sent: Wall,
    pub level: Level,
    /// The alarm's [`Alarm::moved`] of then: with another one it names a wrong place.
    pub moved: u32,
    /// As whom it was said. `None` in journals of before.
    pub voice: Option<Arc<Voice>>,
}

impl Alarm {
    /// Whether the condition lasts, as far as anybody knows.
    pub fn is_active(&self) -> bool {
        matches!(self.condition, Condition::Active | Condition::Clearing)
    }

    /// Silenced by a person: nobody is called and no public message starts.
    pub fn is_silenced(&self) -> bool {
        self.shelved.is_some() || self.out_of_service.is_some()
    }

    pub fn state(&self) -> AlarmState {
        let active = self.is_active();
        if self.out_of_service.is_some() {
            AlarmState::OutOfService
        } else if self.shelved.is_some() {
            AlarmState::Shelved
        } else {
            match (active, self.acknowledged.is_some(), self.latched) {
                (true, false, _) => AlarmState::Unacknowledged,
                (true, true, _) => AlarmState::Acknowledged,
                (false, false, _) => AlarmState::ReturnedUnacknowledged,
                (false, true, true) => AlarmState::Latched,
                (false, true, false) => AlarmState::Normal,
            }
        }
    }

    pub fn is_open(&self) -> bool {
        self.state() != AlarmState::Normal
    }
}

/// Why an alarm changed.
#[derive(Clone, Debug, PartialEq)]
pub enum Cause {
    Raised,
    /// From the first level to the second, either way.
    LevelChanged(Level),
    /// The condition ended.
    Returned,
    /// The condition came back before the alarm was closed.
    Realarmed,
    Acknowledged {
        by: String,
    },
    Reset {
        by: String,
    },
    Shelved {
        by: String,
    },
    /// By a person, or by the deadline when nobody is named.
    Unshelved {
        by: Option<String>,
    },
    TakenOutOfService {
        by: String,
        why: String,
    },
    ReturnedToService {
        by: String,
    },
    /// One step up: by a person with a reason, or by anmin when nobody is named.
    Escalated {
        step: u32,
        by: Option<String>,
        why: String,
    },
    /// It belongs to another incident now: by a person, or by anmin when nobody is named.
    Regrouped {
        by: Option<String>,
    },
    /// The site says by now that the device is somewhere else, or draws the place otherwise.
    Moved,
    /// What became of its broadcast: by a person, or by anmin when nobody is named.
    Broadcast {
        step: BroadcastStep,
        by: Option<String>,
    },
}

impl Cause {
    /// Whether a rule's verdict has changed the alarm, now or when a delay that it began had passed.
    pub const fn is_verdict(&self) -> bool {
        matches!(self, Self::Raised | Self::LevelChanged(_) | Self::Returned | Self::Realarmed)
    }

    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Raised => "raised",
            Self::LevelChanged(_) => "level_changed",
            Self::Returned => "returned",
            Self::Realarmed => "realarmed",
            Self::Acknowledged { .. } => "acknowledged",
            Self::Reset { .. } => "reset",
            Self::Shelved { .. } => "shelved",
            Self::Unshelved { .. } => "unshelved",
            Self::TakenOutOfService { .. } => "taken_out_of_service",
            Self::ReturnedToService { .. } => "returned_to_service",
            Self::Escalated { .. } => "escalated",
            Self::Regrouped { .. } => "regrouped",
            Self::Moved => "moved",
            Self::Broadcast { step, .. } => step.as_str(),
        }
    }
}

/// One change of one alarm: the unit of the journal. Identified by (alarm.id, alarm.seq).
#[derive(Clone, Debug, PartialEq)]
pub struct Transition {
    pub from: AlarmState,
    pub to: AlarmState,
    pub cause: Cause,
    pub at: Now,
    /// The alarm as it stands after the change.
    pub alarm: Arc<Alarm>,
}

/// A condition whose delay runs, so that a restart does not forget it: the delays start again then, from what the world
/// last said. One a rule and subject.
#[derive(Clone, Debug, PartialEq)]
pub struct Pending {
    pub rule: RuleId,
    pub subject: Subject,
    pub class: Class,
    pub place: Arc<Place>,
    /// What people call the device.
    pub label: Name,
    /// The worst level that the condition is at or on its way to.
    pub above: Option<Level>,
    /// This level and those above it are on their way out.
    pub below: Option<Level>,
    /// What was found at `above`, and the reading that said it.
    pub finding: Option<Finding>,
    pub evidence: Evidence,
}

impl Pending {
    /// No delay runs any more: forget it.
    pub fn is_over(&self) -> bool {
        self.above.is_none() && self.below.is_none()
    }
}

/// What an operator says.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    pub who: String,
    pub what: Action,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Acknowledge {
        alarm: AlarmId,
    },
    Reset {
        alarm: AlarmId,
    },
    Shelve {
        alarm: AlarmId,
        until: Wall,
        why: String,
    },
    Unshelve {
        alarm: AlarmId,
    },
    TakeOutOfService {
        alarm: AlarmId,
        why: String,
    },
    ReturnToService {
        alarm: AlarmId,
    },
    /// One step up now, as the timer would have it. `step` is the one that the person means, so that saying it twice is one.
    Escalate {
        alarm: AlarmId,
        step: u32,
        why: String,
    },
    /// A station is called by hand, as the desk would call it. `insist`: also one that cannot respond.
    CallStation {
        alarm: AlarmId,
        station: String,
        insist: bool,
        why: String,
    },
    /// What a station's crew says, or an officer on its behalf.
    Call {
        alarm: AlarmId,
        station: String,
        step: crate::order::CallStep,
    },
    /// Whether it is broadcast outside of the community.
    Broadcast {
        alarm: AlarmId,
        what: BroadcastAction,
    },
    Incident {
        incident: IncidentId,
        what: IncidentAction,
    },
    /// A person opens a case by hand, under an id that whoever asks has made: said twice it is one.
    OpenCase {
        incident: IncidentId,
        what: Box<NewCase>,
    },
    /// A micro fire station is handed over, checked, or taken off duty.
    Station {
        station: String,
        what: crate::duty::StationAction,
    },
}

impl Action {
    /// The alarm that it is about; `None` where it is about an incident, a case or a station.
    pub const fn alarm(&self) -> Option<AlarmId> {
        match self {
            Self::Acknowledge { alarm }
            | Self::Reset { alarm }
            | Self::Shelve { alarm, .. }
            | Self::Unshelve { alarm }
            | Self::TakeOutOfService { alarm, .. }
            | Self::ReturnToService { alarm }
            | Self::Escalate { alarm, .. }
            | Self::CallStation { alarm, .. }
            | Self::Call { alarm, .. }
            | Self::Broadcast { alarm, .. } => Some(*alarm),
            Self::Incident { .. } | Self::OpenCase { .. } | Self::Station { .. } => None,
        }
    }
}

/// Why a command was not carried out; both languages are shown to the person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Closed already, or never was.
    #[error("there is no open alarm {0}")]
    NoSuchAlarm(AlarmId),
    /// A latch is only released when the danger is over.
    #[error("alarm {alarm} cannot be reset while its condition lasts")]
    StillActive { alarm: AlarmId },
    /// Somebody must have seen it first.
    #[error("alarm {alarm} must be acknowledged before it can be reset")]
    NotAcknowledged { alarm: AlarmId },
    /// The station has no call for this alarm.
    #[error("station {station} has not been called for alarm {alarm}")]
    NoSuchCall { alarm: AlarmId, station: String },
    /// The configuration names none.
    #[error("there is no station {0:?}")]
    NoSuchStation(String),
    /// It cannot respond, as the text says; a person may insist.
    #[error("{}", .0.en)]
    StationUnready(Text),
    /// Closed already, or never was.
    #[error("there is no open incident {0}")]
    NoSuchIncident(IncidentId),
    /// Over already, or never was.
    #[error("no drill {0} is on")]
    NoSuchDrill(DrillId),
    /// Over already, or never was.
    #[error("no walk test {0} is on")]
    NoSuchWalk(WalkId),
    /// An incident ends with the danger.
    #[error("the incident cannot be closed while its alarm {alarm} is active")]
    AlarmActive { alarm: AlarmId },
    /// It is not as the person saw it any more.
    #[error("it has changed meanwhile; nothing was done")]
    ChangedMeanwhile,
    /// Against a rule of the house, said in the text.
    #[error("{}", .0.en)]
    NotAllowed(Text),
}

impl Refusal {
    pub(crate) fn not_allowed(zh: impl Into<String>, en: impl Into<String>) -> Self {
        Self::NotAllowed(Text { zh: zh.into(), en: en.into() })
    }

    /// A word for API and metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::NoSuchAlarm(_) => "no_such_alarm",
            Self::StillActive { .. } => "still_active",
            Self::NotAcknowledged { .. } => "not_acknowledged",
            Self::NoSuchCall { .. } => "no_such_call",
            Self::NoSuchStation(_) => "no_such_station",
            Self::StationUnready(_) => "station_unready",
            Self::NoSuchIncident(_) => "no_such_incident",
            Self::NoSuchDrill(_) => "no_such_drill",
            Self::NoSuchWalk(_) => "no_such_walk",
            Self::AlarmActive { .. } => "alarm_active",
            Self::ChangedMeanwhile => "changed_meanwhile",
            Self::NotAllowed(_) => "not_allowed",
        }
    }

    pub fn text(&self) -> Text {
        let zh = match self {
            Self::NoSuchAlarm(alarm) => format!("没有处于打开状态的报警 {alarm}"),
            Self::StillActive { alarm } => format!("报警 {alarm} 的异常仍在持续，不能复位"),
            Self::NotAcknowledged { alarm } => format!("报警 {alarm} 须先确认才能复位"),
            Self::NoSuchCall { alarm, station } => format!("没有就报警 {alarm} 呼叫过 {station}"),
            Self::NoSuchStation(station) => format!("没有微型消防站 {station:?}"),
            Self::NoSuchIncident(incident) => format!("没有未结案的事件 {incident}"),
            Self::NoSuchDrill(drill) => format!("没有正在进行的演练 {drill}"),
            Self::NoSuchWalk(walk) => format!("没有正在进行的巡检测试 {walk}"),
            Self::AlarmActive { alarm } => format!("事件中的报警 {alarm} 仍在持续，不能结案"),
            Self::NotAllowed(text) | Self::StationUnready(text) => return text.clone(),
            Self::ChangedMeanwhile => "情况已有变化，本次操作未执行".to_owned(),
        };
        Text { zh, en: self.to_string() }
    }
}
