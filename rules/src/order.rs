//! What must be done: the calls to stations and the orders that leave by the ways out.
//!
//! An order's id is derived from (alarm, transition number, channel), so an order sent again after a crash carries the
//! same id and a receiver that remembers ids acts once.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anmin_sensors::point::{Hazard, Place};
use anmin_sensors::time::Wall;

use crate::alarm::{Alarm, AlarmId, CapRef, Class, Transition};
use crate::duty::{Equipment, Member, Shift};
use crate::rule::{Level, Text};

/// `alarm/seq/channel`: the idempotency key of every attempt.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderId(Arc<str>);

impl OrderId {
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The alarm that it is about, and the way out.
    pub fn about(&self) -> Option<(AlarmId, &str)> {
        let (alarm, rest) = self.0.split_once('/')?;
        let (_, channel) = rest.split_once('/')?;
        uuid::Uuid::parse_str(alarm).ok().map(|id| (AlarmId(id), channel))
    }
}

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What must be done by one way out.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    pub id: OrderId,
    /// Id of the way out in the configuration, such as `office-cap`.
    pub channel: Arc<str>,
    pub body: OrderBody,
}

#[derive(Clone, Debug, PartialEq)]
pub enum OrderBody {
    /// An alarm changed: for MQTT (event and retained state) and webhooks.
    Event(Arc<Transition>),
    /// A station is called, or its call changed.
    Call(Arc<CallChange>),
    /// A CAP 1.2 message.
    Cap(Arc<CapOrder>),
    /// A siren is to sound, or not any longer.
    Siren(Arc<SirenOrder>),
}

/// Everything a CAP message needs besides the site's own words.
#[derive(Clone, Debug, PartialEq)]
pub struct CapOrder {
    pub message: CapMessage,
    /// CAP `identifier`: unique for ever by construction.
    pub identifier: String,
    pub sent: Wall,
    /// As whom it is said, whatever the configuration says by the time it leaves. `None` in journals of before.
    pub voice: Option<Arc<Voice>>,
    /// Every live predecessor, oldest first.
    pub references: Vec<CapRef>,
    pub alarm: Arc<Alarm>,
}

/// What an alarm wants of a siren. The siren itself does what all alarms together want of it when the order reaches it, so that an
/// order which comes late or twice never makes it wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct SirenOrder {
    pub on: bool,
    pub at: Wall,
    /// When it ends by itself.
    pub until: Wall,
    pub alarm: Arc<Alarm>,
}

/// As whom and in which earnest a CAP way out speaks. Each message keeps it: what has left is referred to as it left, and what
/// was said as an exercise never becomes real on its way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Voice {
    /// CAP `sender`.
    pub sender: Arc<str>,
    /// CAP `status` of all but drills.
    pub status: Arc<str>,
    /// Name of the time zone, or its offset, that `sent` is written in.
    pub zone: Arc<str>,
}

/// CAP 1.2 `msgType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CapMessage {
    Alert,
    Update,
    Cancel,
}

/// A way out as the desk sees it: what it wants to hear, and in which form.
#[derive(Clone, Debug, PartialEq)]
pub struct Channel {
    pub id: Arc<str>,
    pub form: ChannelForm,
    /// Alarms below this level are not sent.
    pub min_level: Level,
    /// System alarms too.
    pub system: bool,
    /// A station's own group: it hears the calls of these stations and nothing else. Empty: everything.
    pub stations: Vec<Arc<str>>,
    /// Drills too; without them this way out carries what is real and nothing else.
    pub drills: bool,
    /// What it carries is taken for real by people outside, so that orange and red wait for a yes.
    pub outward: bool,
    /// As whom it speaks CAP.
    pub voice: Arc<Voice>,
    /// Places, grids or buildings that it hears of; none means everywhere. What is about anmin itself has no place.
    pub areas: Vec<Arc<str>>,
    /// Hazards that it hears of; none means all.
    pub classes: Vec<Hazard>,
    /// It gets nothing of its own accord, only what another has not taken.
    pub spare: bool,
    /// Spare ways out that get what this one does not take in time, the first of them first.
    pub then: Vec<Arc<str>>,
    /// So long after it has taken what is orange or red a report must say that it has reached somebody, or the next spare one
    /// gets it. `None`: that it was taken is enough.
    pub reached_within: Option<Duration>,
    /// The same for an answer: the alarm is acknowledged, a station comes, or a report says that somebody has answered.
    pub answered_within: Option<Duration>,
    /// It hears of an alarm from this step of its escalation on, and then to its end; 0: from the beginning.
    pub from_escalation: u32,
    /// What it says in CAP is said again when it is so old and the alarm still stands. `None`: never.
    pub renew_after: Option<Duration>,
    /// The longest that a siren sounds for an alarm.
    pub sounds_for: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelForm {
    /// Every transition and every change of a call, in order.
    Events,
    /// CAP: Alert when raised at or above `min_level`, Update on level change, Cancel when closed or below.
    Cap,
    /// CAP that others come for: nothing is carried, and people are asked before it is there to be fetched.
    Feed,
    /// On for an alarm that [`crate::siren`] has it sound for, off when that is over.
    Siren,
}

impl Channel {
    pub fn new(id: impl Into<Arc<str>>, form: ChannelForm, min_level: Level) -> Self {
        Self {
            id: id.into(),
            form,
            min_level,
            system: false,
            stations: Vec::new(),
            drills: true,
            outward: false,
            voice: Arc::default(),
            areas: Vec::new(),
            classes: Vec::new(),
            spare: false,
            then: Vec::new(),
            reached_within: None,
            answered_within: None,
            from_escalation: 0,
            renew_after: None,
            sounds_for: Duration::ZERO,
        }
    }

    /// Whether it hears of this alarm once it is so grave.
    pub fn wants(&self, alarm: &Alarm, level: Level) -> bool {
        self.would_want(alarm, level) && (!self.spare || alarm.rerouted.contains(&self.id))
    }

    /// The same, where another has not taken it.
    pub fn would_want(&self, alarm: &Alarm, level: Level) -> bool {
        self.stations.is_empty()
            && level >= self.min_level
            && alarm.peak_escalation >= self.from_escalation
            && self.covers(alarm)
    }

    /// Whether the alarm is of a kind and at a place that it hears of.
    pub(crate) fn covers(&self, alarm: &Alarm) -> bool {
        match alarm.class {
            Class::Hazard(hazard) => self.reaches(hazard, &alarm.place),
            Class::System => self.system,
        }
    }

    /// Whether it hears of this hazard at this place at all.
    pub fn reaches(&self, hazard: Hazard, place: &Place) -> bool {
        let here =
            |area: &Arc<str>| [&place.area, &place.grid, &place.building].into_iter().any(|word| **word == **area);
        (self.classes.is_empty() || self.classes.contains(&hazard))
            && (self.areas.is_empty() || self.areas.iter().any(here))
    }

    /// Whether it hears of a call of this station for this alarm.
    pub fn wants_call(&self, station: &str, alarm: &Alarm) -> bool {
        self.wants(alarm, alarm.peak) || self.stations.iter().any(|own| **own == *station)
    }
}

/// A micro fire station (微型消防站) as the desk sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Station {
    pub id: Arc<str>,
    pub name: Text,
    pub phone: String,
    /// Must accept within this time; practice: 1 minute.
    pub respond_within: Duration,
    /// Must be on the scene within this time of the call; practice: 3 minutes.
    pub arrive_within: Duration,
    /// Where it is not under control within this time of the first call, the officer is told to call 119; practice: 5
    /// minutes.
    pub control_within: Duration,
    /// Whom it calls on after the stations that a place names (区域联防), in order.
    pub neighbours: Vec<Arc<str>>,
    /// Nobody is listed: it is taken to be manned.
    pub crew: Vec<Member>,
    /// None: the whole crew is always on duty.
    pub shifts: Vec<Shift>,
    pub equipment: Vec<Equipment>,
}

impl Default for Station {
    fn default() -> Self {
        Self {
            id: Arc::from(""),
            name: Text::default(),
            phone: String::new(),
            respond_within: Duration::from_secs(60),
            arrive_within: Duration::from_secs(180),
            control_within: Duration::from_secs(300),
            neighbours: Vec::new(),
            crew: Vec::new(),
            shifts: Vec::new(),
            equipment: Vec::new(),
        }
    }
}

/// Where a station's call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallState {
    Called,
    Accepted,
    OnTheWay,
    OnScene,
    UnderControl,
    StoodDown,
    Declined,
    /// Nobody answered within `respond_within`.
    Unanswered,
}

impl CallState {
    pub const ALL: [Self; 8] = [
        Self::Called,
        Self::Accepted,
        Self::OnTheWay,
        Self::OnScene,
        Self::UnderControl,
        Self::StoodDown,
        Self::Declined,
        Self::Unanswered,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Called => "called",
            Self::Accepted => "accepted",
            Self::OnTheWay => "on_the_way",
            Self::OnScene => "on_scene",
            Self::UnderControl => "under_control",
            Self::StoodDown => "stood_down",
            Self::Declined => "declined",
            Self::Unanswered => "unanswered",
        }
    }

    pub const fn zh(self) -> &'static str {
        match self {
            Self::Called => "已呼叫",
            Self::Accepted => "已应答",
            Self::OnTheWay => "已出动",
            Self::OnScene => "已到场",
            Self::UnderControl => "已控制",
            Self::StoodDown => "已撤回",
            Self::Declined => "无法出动",
            Self::Unanswered => "无人应答",
        }
    }
}

/// What a crew says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallStep {
    Accept,
    OnTheWay,
    OnScene,
    UnderControl,
    StandDown,
    Decline { why: String },
}

/// One call of one station for one alarm, whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    pub alarm: AlarmId,
    pub station: Arc<str>,
    pub station_name: Text,
    pub state: CallState,
    /// Each state it went through, oldest first.
    pub stamps: Vec<CallStamp>,
    pub respond_by: Wall,
    pub arrive_by: Wall,
    /// By then it shall be under control.
    pub control_by: Wall,
    /// Accepted in time but not on the scene in time: said once.
    pub late: bool,
    /// Not under control in time: the officer was told to call 119, once.
    pub not_controlled: bool,
    /// Who was on duty when the station was called.
    pub crew: Vec<OnCall>,
    /// How often the alarm had called for help anew when the station was called.
    pub round: u32,
    /// Number of its changes so far.
    pub seq: u32,
}

/// One who was called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnCall {
    /// In the station's crew.
    pub id: Arc<str>,
    pub name: String,
}

/// When a call reached a state, who said so, and why where that was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallStamp {
    pub state: CallState,
    pub at: Wall,
    /// `anmin` where nobody said it.
    pub by: String,
    /// Empty but for a decline, a call by hand and for what anmin did by itself.
    pub why: String,
}

impl Call {
    /// Somebody may still come: called and not answered yet, or accepted and not stood down.
    pub fn is_live(&self) -> bool {
        self.state == CallState::Called || self.is_answered()
    }

    /// A station is called or at work, and not done: what comes now comes to it.
    pub fn is_on_it(&self) -> bool {
        self.is_live() && self.state != CallState::UnderControl
    }

    /// Somebody has said that they come.
    pub fn is_answered(&self) -> bool {
        matches!(self.state, CallState::Accepted | CallState::OnTheWay | CallState::OnScene | CallState::UnderControl)
    }
}

/// Why a call changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallCause {
    /// The station is called, for the first time or again.
    Called,
    /// The crew, or an officer on its behalf, said where it stands.
    Said,
    /// Nobody answered within `respond_within`.
    Unanswered,
    /// Not on the scene within `arrive_within`.
    Late,
    /// Not under control within `control_within`: a person shall call 119.
    NotControlled,
    /// The alarm is closed: anmin stood the crew down.
    AlarmClosed,
}

impl CallCause {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Called => "called",
            Self::Said => "said",
            Self::Unanswered => "unanswered",
            Self::Late => "late",
            Self::NotControlled => "not_controlled",
            Self::AlarmClosed => "alarm_closed",
        }
    }
}

/// One change of one call: journaled like a transition. Identified by (call.alarm, call.station, call.seq).
#[derive(Clone, Debug, PartialEq)]
pub struct CallChange {
    pub at: Wall,
    pub cause: CallCause,
    pub call: Call,
    pub alarm: Arc<Alarm>,
    /// What happened and what anmin did, for the officer.
    pub message: Text,
}
