//! The incident: alarms that share a cause, as one event for the people who deal with it.
//!
//! Every open alarm about a hazard belongs to exactly one open incident; which one stands in the alarm itself. An alarm
//! that is raised joins the oldest incident that still takes alarms and that has, or had, one of the same or a related
//! hazard ([`RELATED`]) in its neighbourhood ([`Spot`]); where there is none it begins one. In a storm (more than
//! `storm_alarms` in ten minutes) the same hazard anywhere in the building is near enough. It leaves when it is closed, or
//! when a person merges or splits.
//!
//! An incident whose last alarm has closed is settled. For [`QUIET`] it takes alarms, so that what flickers stays one
//! event. Then it closes by itself, unless it was so grave that a station was called: that one is owed a reason by a
//! person, for [`REASON_WITHIN`].
//!
//! What is no emergency ([`crate::casework`]) is an incident, too, with states of its own; alarms join only those of their
//! kind. One that a person has taken on does not settle: it waits for that person's word.
//!
//! Alarms about anmin itself stay outside: each has a cause of its own, which its subject names, and none puts people in
//! danger. The plans for its hazards give an incident its checklist, whose steps have clocks of their own until they are
//! ticked. This module does not know stations, channels or scripts.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anmin_sensors::point::{Hazard, Place};
use anmin_sensors::time::{Mono, Now, Wall};

use crate::alarm::{Alarm, AlarmId, Class, Refusal, Transition};
use crate::book::{ANMIN, Ids};
use crate::casework::{Case, CaseKind, Stage};
use crate::drill::{self, DrillId};
use crate::plan::{self, Done, Item, Plans};
use crate::rule::{Level, Text};

/// How long a settled incident takes alarms.
pub const QUIET: Duration = Duration::from_secs(600);
/// How long a person may take to say what a grave one was.
pub const REASON_WITHIN: Duration = Duration::from_secs(24 * 3600);
/// In which a storm's alarms are counted.
pub const STORM_WITHIN: Duration = Duration::from_secs(600);
/// Notes of one incident.
pub const MOST_NOTES: usize = 200;
/// Open cases that people have opened by hand: what a community can still see to, and no more than the box can hold.
pub const MOST_BY_HAND: usize = 1_000;

/// UUIDv7: sorts by the time at which it began.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IncidentId(pub uuid::Uuid);

impl fmt::Display for IncidentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for IncidentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One event, whole but for its alarms, which name it themselves.
#[derive(Clone, Debug, PartialEq)]
pub struct Incident {
    pub id: IncidentId,
    /// Number of its changes so far; the first is 1.
    pub seq: u32,
    /// What it is and how far it has come, if it is no emergency.
    pub case: Option<Case>,
    /// What its first alarm is called; of one that was opened by hand what the person has called it.
    pub title: Text,
    /// Where its first alarm is, or where the person says.
    pub place: Arc<Place>,
    /// The drill that it is part of; `None` for what is real.
    pub drill: Option<DrillId>,
    /// In the order in which they came; none of a case that no alarm has opened.
    pub hazards: Vec<Hazard>,
    /// The highest level that any of its alarms ever had.
    pub peak: Level,
    /// Alarms of the whole building were folded into it.
    pub storm: bool,
    /// Alarms that ever belonged to it and were not moved.
    pub alarms: u32,
    pub opened_at: Wall,
    pub changed_at: Wall,
    /// Since when none of its alarms is open.
    pub settled_at: Option<Wall>,
    /// When it closes by itself, once it is settled.
    pub closes_at: Option<Wall>,
    pub notes: Vec<Note>,
    /// What its plans say is to be done, in order.
    pub checklist: Vec<Item>,
    /// A person has called 119.
    pub called_119: Option<Note>,
    pub end: Option<End>,
}

impl Incident {
    /// Steps that are not done and should be.
    pub fn late_steps(&self) -> impl Iterator<Item = &Item> {
        self.checklist.iter().filter(|item| self.is_open() && item.late && item.is_open())
    }

    pub fn is_open(&self) -> bool {
        self.end.is_none()
    }

    pub fn case_kind(&self) -> Option<CaseKind> {
        self.case.as_ref().map(|case| case.kind)
    }

    /// Somebody has taken it on: it waits for that person's word, not for its alarms.
    pub fn is_taken_on(&self) -> bool {
        self.case.as_ref().is_some_and(|case| case.owner.is_some())
    }

    /// Whether a person may say this of how it ended.
    ///
    /// # Errors
    /// Where the word belongs to another kind of incident, with those that fit.
    pub fn check_outcome(&self, outcome: Outcome) -> Result<(), Refusal> {
        let (fits, known) = match self.case_kind() {
            None => (
                Outcome::EMERGENCY.contains(&outcome) || matches!(outcome, Outcome::FalseAlarm(_)),
                &Outcome::EMERGENCY[..],
            ),
            Some(kind) => (kind.outcomes().contains(&outcome), kind.outcomes()),
        };
        if fits {
            return Ok(());
        }
        let listed = |word: fn(&Outcome) -> &'static str, between: &str| {
            known.iter().map(word).collect::<Vec<_>>().join(between)
        };
        let also = if self.case.is_none() { ("、误报", ", false_alarm") } else { ("", "") };
        Err(Refusal::not_allowed(
            format!("“{}”不适用于该事件：可用 {}{}", outcome.zh(), listed(|one| one.zh(), "、"), also.0),
            format!(
                "{} does not fit this incident: there are {}{}",
                outcome.as_str(),
                listed(|one| one.as_str(), ", "),
                also.1
            ),
        ))
    }

    fn add_hazards(&mut self, hazards: &[Hazard]) {
        for hazard in hazards {
            if !self.hazards.contains(hazard) {
                self.hazards.push(*hazard);
            }
        }
    }

    pub fn state(&self) -> IncidentState {
        match (&self.end, self.settled_at) {
            (Some(_), _) => IncidentState::Closed,
            (None, Some(_)) => IncidentState::Settled,
            (None, None) => IncidentState::Standing,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IncidentState {
    /// At least one of its alarms is open, or a person has taken it on.
    Standing,
    /// All its alarms are closed; it is not.
    Settled,
    Closed,
}

impl IncidentState {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Standing => "standing",
            Self::Settled => "settled",
            Self::Closed => "closed",
        }
    }

    pub const fn zh(self) -> &'static str {
        match self {
            Self::Standing => "处置中",
            Self::Settled => "待结案",
            Self::Closed => "已结案",
        }
    }
}

/// What a person wrote down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub at: Wall,
    pub by: String,
    pub text: String,
    /// Where its photos are: addresses, or names of files in whatever keeps them. anmin keeps no pictures of people's homes.
    pub photos: Vec<String>,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    pub at: Wall,
    /// `anmin` where nobody said it.
    pub by: String,
    pub outcome: Outcome,
    /// In the person's own words; may be empty.
    pub why: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    Real,
    FalseAlarm(FalseCause),
    Test,
    Maintenance,
    /// The neighbours are quiet again.
    Quiet,
    /// Both sides agree.
    Agreed,
    /// What was asked for is done.
    Resolved,
    Repaired,
    Replaced,
    /// Nothing is broken.
    NoFault,
    /// Somebody else's by now: the text says whose.
    Referred,
    /// It is not as it was said.
    Unfounded,
    /// It was part of a drill.
    Drill,
    /// Its alarms and notes are another's now.
    Merged(IncidentId),
    /// It closed by itself, and nobody said what it was.
    Unexplained,
}

impl Outcome {
    /// Those that a person may give of an emergency, but for a false alarm, which needs its cause.
    pub const EMERGENCY: [Self; 3] = [Self::Real, Self::Test, Self::Maintenance];

    /// The words of those that a person may give, but for a false alarm.
    pub fn named(word: &str) -> Option<Self> {
        let of_cases = CaseKind::ALL.iter().flat_map(|kind| kind.outcomes());
        Self::EMERGENCY.iter().chain(of_cases).copied().find(|outcome| outcome.as_str() == word)
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Real => "real",
            Self::FalseAlarm(_) => "false_alarm",
            Self::Test => "test",
            Self::Maintenance => "maintenance",
            Self::Quiet => "quiet",
            Self::Agreed => "agreed",
            Self::Resolved => "resolved",
            Self::Repaired => "repaired",
            Self::Replaced => "replaced",
            Self::NoFault => "no_fault",
            Self::Referred => "referred",
            Self::Unfounded => "unfounded",
            Self::Drill => "drill",
            Self::Merged(_) => "merged",
            Self::Unexplained => "unexplained",
        }
    }

    pub const fn zh(self) -> &'static str {
        match self {
            Self::Real => "真实险情",
            Self::FalseAlarm(_) => "误报",
            Self::Test => "测试",
            Self::Maintenance => "检修",
            Self::Quiet => "已劝止",
            Self::Agreed => "达成一致",
            Self::Resolved => "已解决",
            Self::Repaired => "已修复",
            Self::Replaced => "已更换",
            Self::NoFault => "未发现故障",
            Self::Referred => "已移交",
            Self::Unfounded => "情况不属实",
            Self::Drill => "演练",
            Self::Merged(_) => "已并入",
            Self::Unexplained => "未说明",
        }
    }
}

/// Why a false alarm was given: few words, so that a month can be counted by them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FalseCause {
    Cooking,
    Steam,
    Smoking,
    Dust,
    Insects,
    Weather,
    Device,
    Wiring,
    Mistake,
    Limit,
    Other,
}

impl FalseCause {
    pub const ALL: [Self; 11] = [
        Self::Cooking,
        Self::Steam,
        Self::Smoking,
        Self::Dust,
        Self::Insects,
        Self::Weather,
        Self::Device,
        Self::Wiring,
        Self::Mistake,
        Self::Limit,
        Self::Other,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cooking => "cooking",
            Self::Steam => "steam",
            Self::Smoking => "smoking",
            Self::Dust => "dust",
            Self::Insects => "insects",
            Self::Weather => "weather",
            Self::Device => "device",
            Self::Wiring => "wiring",
            Self::Mistake => "mistake",
            Self::Limit => "limit",
            Self::Other => "other",
        }
    }

    pub const fn zh(self) -> &'static str {
        match self {
            Self::Cooking => "烹饪油烟",
            Self::Steam => "水蒸气",
            Self::Smoking => "吸烟",
            Self::Dust => "灰尘",
            Self::Insects => "昆虫",
            Self::Weather => "天气",
            Self::Device => "设备故障",
            Self::Wiring => "线路问题",
            Self::Mistake => "误操作",
            Self::Limit => "限值不当",
            Self::Other => "其他",
        }
    }

    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.as_str() == word)
    }
}

/// Why an incident changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IncidentCause {
    Opened,
    /// A graver level, another hazard, or a storm.
    Grew,
    /// Its last open alarm has closed.
    Settled,
    /// An alarm joined it after that.
    Resumed,
    Noted {
        by: String,
    },
    /// A step of its checklist is done.
    Ticked {
        step: String,
        by: String,
    },
    /// ... or need not be; the checklist says why.
    Skipped {
        step: String,
        by: String,
    },
    /// A step is not done in time.
    StepLate {
        step: String,
    },
    /// A person has called 119.
    Called119 {
        by: String,
    },
    /// A case has come to another state, or to another person.
    Staged {
        stage: Stage,
        by: String,
    },
    /// It began with alarms that a person took out of another.
    SplitFrom {
        from: IncidentId,
        by: String,
    },
    /// A person took alarms out of it, which are another's now.
    SplitInto {
        into: IncidentId,
        by: String,
    },
    /// Everything of another is its own now.
    Absorbed {
        from: IncidentId,
        by: String,
    },
    /// Its `end` says how.
    Closed,
}

impl IncidentCause {
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Grew => "grew",
            Self::Settled => "settled",
            Self::Resumed => "resumed",
            Self::Noted { .. } => "noted",
            Self::Ticked { .. } => "ticked",
            Self::Skipped { .. } => "skipped",
            Self::StepLate { .. } => "step_late",
            Self::Called119 { .. } => "called_119",
            Self::Staged { .. } => "staged",
            Self::SplitFrom { .. } => "split_from",
            Self::SplitInto { .. } => "split_into",
            Self::Absorbed { .. } => "absorbed",
            Self::Closed => "closed",
        }
    }
}

/// One change of one incident: journaled like a transition. Identified by (incident.id, incident.seq).
#[derive(Clone, Debug, PartialEq)]
pub struct IncidentChange {
    pub at: Wall,
    pub cause: IncidentCause,
    /// As it stands after the change.
    pub incident: Arc<Incident>,
}

/// A case that a person opens by hand.
#[derive(Clone, Debug, PartialEq)]
pub struct NewCase {
    pub kind: CaseKind,
    /// What it is about, in a line that names nobody.
    pub title: String,
    pub place: Place,
    /// What was said; may be empty. Becomes its first note.
    pub text: String,
    /// Who sees to it; `None`: who opens it.
    pub owner: Option<String>,
}

/// What an officer does with an incident.
#[derive(Clone, Debug, PartialEq)]
pub enum IncidentAction {
    /// All its alarms that nobody has acknowledged; those that were raised after `newest` nobody has looked at yet.
    Acknowledge {
        newest: Option<AlarmId>,
    },
    Note {
        text: String,
        photos: Vec<String>,
    },
    /// A step of its checklist is done.
    Tick {
        step: String,
    },
    /// A step need not be done.
    Skip {
        step: String,
        why: String,
    },
    /// Somebody has called 119; the text says what matters of it.
    Called119 {
        text: String,
    },
    /// A case comes to this state, which must be one of its kind.
    Stage {
        stage: Stage,
        /// Who sees to it from now on; `None`: who did, or where nobody did, who says this.
        owner: Option<String>,
        /// May be empty; otherwise a note.
        text: String,
    },
    /// Its alarms and notes become those of `into`.
    MergeInto {
        into: IncidentId,
    },
    /// These open alarms become an incident of their own.
    Split {
        alarms: Vec<AlarmId>,
    },
    /// Acknowledges and resets what is over, and says what it was.
    Close {
        outcome: Outcome,
        why: String,
    },
}

/// An incident as it stands with its open alarms.
#[derive(Clone, Debug, PartialEq)]
pub struct Situation {
    pub incident: Arc<Incident>,
    /// The highest level of its active alarms in force; `None` while there is none.
    pub level: Option<Level>,
    /// Its open alarms, gravest first, then oldest first.
    pub alarms: Vec<Arc<Alarm>>,
    /// What to do, in order.
    pub advice: Vec<Text>,
    /// Who has acknowledged any of its open alarms.
    pub people: Vec<String>,
    /// Open alarms that it has besides, which whoever asks does not see.
    pub beyond: usize,
}

impl Situation {
    /// `alarms` are its open ones, in any order.
    pub fn new(incident: Arc<Incident>, mut alarms: Vec<Arc<Alarm>>) -> Self {
        alarms.sort_by_key(|alarm| (std::cmp::Reverse(alarm.level), alarm.raised_at, alarm.id));
        let in_force = alarms.iter().filter(|alarm| alarm.is_active() && !alarm.is_silenced());
        let mut people: Vec<String> = Vec::new();
        for by in alarms.iter().filter_map(|alarm| alarm.acknowledged.as_ref()) {
            if !people.contains(&by.who) {
                people.push(by.who.clone());
            }
        }
        Self {
            level: in_force.map(|alarm| alarm.level).max(),
            advice: advice(&incident.hazards, &alarms),
            people,
            incident,
            alarms,
            beyond: 0,
        }
    }

    /// What of it somebody sees who sees some places alone: nothing where none of it lies there. Where it began elsewhere it
    /// goes by the gravest of their own alarms, and what was written of the whole is not theirs to read.
    pub fn seen(self, sees: impl Fn(&Place) -> bool) -> Option<Self> {
        let (own, others): (Vec<_>, Vec<_>) = self.alarms.into_iter().partition(|alarm| sees(&alarm.place));
        let incident = match own.first() {
            _ if sees(&self.incident.place) => self.incident,
            None => return None,
            Some(first) => {
                let mut hazards: Vec<Hazard> = Vec::new();
                for alarm in &own {
                    if let Class::Hazard(hazard) = alarm.class
                        && !hazards.contains(&hazard)
                    {
                        hazards.push(hazard);
                    }
                }
                Arc::new(Incident {
                    title: first.title.clone(),
                    place: Arc::clone(&first.place),
                    peak: own.iter().map(|alarm| alarm.peak).max().unwrap_or(first.peak),
                    hazards,
                    case: None,
                    notes: Vec::new(),
                    checklist: Vec::new(),
                    called_119: None,
                    ..Incident::clone(&self.incident)
                })
            }
        };
        Some(Self { beyond: self.beyond + others.len(), ..Self::new(incident, own) })
    }
}

/// Hazards that may have one cause, or make one another worse.
const RELATED: [(Hazard, Hazard); 5] = [
    (Hazard::Gas, Hazard::Fire),
    (Hazard::Gas, Hazard::Power),
    (Hazard::Fire, Hazard::Power),
    (Hazard::Flood, Hazard::Power),
    (Hazard::Flood, Hazard::Ground),
];

/// What must come first where two hazards meet: it stands in neither's own advice. In the order in which it is to be done.
const FIRST: [(Hazard, Hazard, &str, &str); 5] = [
    (
        Hazard::Gas,
        Hazard::Power,
        "有燃气泄漏：不要就地拉合开关，在现场以外切断电源。",
        "Gas is there: touch no switch on the spot, cut the power from outside.",
    ),
    (
        Hazard::Gas,
        Hazard::Fire,
        "先疏散人员、在安全处关闭燃气总阀，再灭火；气源未断不要扑灭燃烧的气体。",
        "Get people out and close the gas main where it is safe before fighting the fire; do not put out burning gas while it flows.",
    ),
    (Hazard::Fire, Hazard::Power, "先切断电源，再用水灭火。", "Cut the power before using water on the fire."),
    (Hazard::Flood, Hazard::Power, "先切断电源，再进入积水区域。", "Cut the power before entering the water."),
    (
        Hazard::Flood,
        Hazard::Ground,
        "水位上涨期间，人员远离坡脚和开裂的墙体。",
        "Keep people away from the slope and from cracked walls while the water rises.",
    ),
];

/// What to do, in order: where hazards meet what must come first, then what each alarm's rule says, the gravest first.
fn advice(hazards: &[Hazard], alarms: &[Arc<Alarm>]) -> Vec<Text> {
    let both = |one: &Hazard, other: &Hazard| hazards.contains(one) && hazards.contains(other);
    let first = FIRST.iter().filter(|(one, other, ..)| both(one, other));
    let mut steps: Vec<Text> =
        first.map(|(_, _, zh, en)| Text { zh: (*zh).to_owned(), en: (*en).to_owned() }).collect();
    for alarm in alarms {
        if alarm.advice != Text::default() && !steps.contains(&alarm.advice) {
            steps.push(alarm.advice.clone());
        }
    }
    steps
}

/// Where an alarm is, as far as neighbours go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Spot {
    /// A floor of a unit; the next ones up and down are near.
    Storey { hazard: Hazard, at: String, unit: String, floor: Floor },
    /// Somebody's own room: what happens next door is another matter.
    Room { hazard: Hazard, at: String, unit: String, floor: String, room: String },
    /// The whole building: near enough in a storm.
    Whole { hazard: Hazard, at: String },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Floor {
    Number(i32),
    /// No number, so that nobody knows what lies above it.
    Named(String),
}

impl Spot {
    /// Where alarms of `hazard` must be to be near this place. The first is the place itself.
    fn near(hazard: Hazard, alarm: &Alarm) -> Vec<Self> {
        let Place { area, building, unit, floor, room, .. } = &*alarm.place;
        let within = [unit, floor, room].into_iter().any(|part| !part.is_empty());
        let at = match (building.as_str(), area.as_str()) {
            ("", "") if within => String::new(),
            // A yard, a slope: the place itself.
            ("", area) if !area.is_empty() => area.to_owned(),
            // Two compounds of one site may both have a building 1.
            (building, area) if within => format!("{area}/{building}"),
            // Where in the building nobody has said, or not even in which: only that it is itself is known.
            _ => format!("device {}", alarm.subject.as_str().split('/').next().unwrap_or_default()),
        };
        match hazard {
            Hazard::Care | Hazard::Device => {
                vec![Self::Room { hazard, at, unit: unit.clone(), floor: floor.clone(), room: room.clone() }]
            }
            _ => {
                let storey = |floor| Self::Storey { hazard, at: at.clone(), unit: unit.clone(), floor };
                match alarm.place.storey() {
                    Some(n) => [n, n - 1, n + 1].map(|n| storey(Floor::Number(n))).into(),
                    None => vec![storey(Floor::Named(floor.clone()))],
                }
            }
        }
    }

    fn whole(hazard: Hazard, alarm: &Alarm) -> Self {
        let Place { area, building, .. } = &*alarm.place;
        let at = if building.is_empty() { area.clone() } else { format!("{area}/{building}") };
        Self::Whole { hazard, at }
    }
}

fn too_many_notes() -> Refusal {
    Refusal::not_allowed(
        format!("一个事件最多 {MOST_NOTES} 条记录"),
        format!("an incident holds {MOST_NOTES} notes at most"),
    )
}

/// All open incidents.
pub(crate) struct IncidentBook {
    ids: Ids,
    /// The drill that all of them are part of.
    drill: Option<DrillId>,
    storm_alarms: usize,
    call_level: Level,
    plans: Arc<Plans>,
    entries: BTreeMap<IncidentId, Entry>,
    /// Of each open hazard alarm.
    of_alarm: HashMap<AlarmId, IncidentId>,
    spots: HashMap<Spot, BTreeSet<IncidentId>>,
    timers: BTreeSet<(Mono, IncidentId)>,
    /// When steps of checklists are late.
    step_timers: BTreeSet<(Mono, IncidentId, String)>,
    /// When alarms were raised lately, of no more than it takes to know a storm.
    raised: VecDeque<Mono>,
    storm: bool,
    changes: VecDeque<IncidentChange>,
}

struct Entry {
    incident: Arc<Incident>,
    /// Its open alarms.
    standing: BTreeSet<AlarmId>,
    spots: HashSet<Spot>,
    /// Until when it takes alarms once it is settled.
    takes_until: Option<Mono>,
    /// When it closes by itself.
    due: Option<Mono>,
    /// When its open steps are late.
    clocks: BTreeMap<String, Mono>,
}

impl Entry {
    fn by_hand(&self) -> bool {
        self.incident.case.as_ref().is_some_and(|case| case.by_hand)
    }

    fn new(incident: Arc<Incident>) -> Self {
        Self {
            incident,
            standing: BTreeSet::new(),
            spots: HashSet::new(),
            takes_until: None,
            due: None,
            clocks: BTreeMap::new(),
        }
    }
}

impl IncidentBook {
    pub fn new(storm_alarms: usize, call_level: Level, plans: Arc<Plans>, seed: u64) -> Self {
        Self {
            // Another row of ids than that of the alarms.
            ids: Ids::new(!seed),
            drill: None,
            storm_alarms,
            call_level,
            plans,
            entries: BTreeMap::new(),
            of_alarm: HashMap::new(),
            spots: HashMap::new(),
            timers: BTreeSet::new(),
            step_timers: BTreeSet::new(),
            raised: VecDeque::new(),
            storm: false,
            changes: VecDeque::new(),
        }
    }

    /// From the first incident on, all are a drill's.
    pub fn set_drill(&mut self, drill: DrillId) {
        self.drill = Some(drill);
    }

    /// Incidents that are open keep the steps that they have.
    pub fn set_settings(&mut self, storm_alarms: usize, call_level: Level, plans: Arc<Plans>) {
        (self.storm_alarms, self.call_level, self.plans) = (storm_alarms, call_level, plans);
    }

    /// Takes up the journal's open incidents and alarms. Gives the alarms that must be written down anew because their
    /// incident is not known: they were raised before there were incidents, or its record is lost.
    pub fn restore(&mut self, now: Now, incidents: Vec<Arc<Incident>>, alarms: &[Arc<Alarm>]) -> Vec<AlarmId> {
        let mut restored = Vec::new();
        for incident in incidents.into_iter().filter(|incident| incident.is_open()) {
            let id = incident.id;
            if self.entries.contains_key(&id) {
                continue;
            }
            restored.push(id);
            self.entries.insert(id, Entry::new(incident));
            self.arm_steps(now, id);
        }
        let mut astray = Vec::new();
        let open = alarms.iter().filter(|alarm| alarm.is_open() && matches!(alarm.class, Class::Hazard(_)));
        for alarm in open {
            if self.of_alarm.contains_key(&alarm.id) {
                continue;
            }
            if now.wall.since(alarm.raised_at) < STORM_WITHIN && alarm.raised_at <= now.wall {
                self.count_raised(now.mono);
            }
            match alarm.incident.filter(|id| self.entries.contains_key(id)) {
                Some(id) => self.take_in(now, id, alarm, false),
                None => astray.push(alarm),
            }
        }
        for alarm in &astray {
            let (id, joins) = self.find_or_open(now, alarm);
            self.take_in(now, id, alarm, joins);
        }
        for id in restored {
            let entry = self.entries.get_mut(&id).expect("inserted above");
            match (entry.standing.is_empty(), entry.incident.settled_at, entry.incident.closes_at) {
                (false, ..) => {}
                // It waits for the person who has taken it on.
                _ if entry.incident.is_taken_on() => {}
                (true, Some(settled), Some(closes)) => {
                    // Deadlines go on where they were by the wall clock, none longer than its full period.
                    let left = |until: Wall, period: Duration| now.mono.plus(until.since(now.wall).min(period));
                    entry.takes_until = Some(left(settled.plus(QUIET), QUIET));
                    let due = left(closes, closes.since(settled).min(REASON_WITHIN));
                    entry.due = Some(due);
                    self.timers.insert((due, id));
                }
                (true, ..) => self.settle(now, id),
            }
        }
        astray.into_iter().map(|alarm| alarm.id).collect()
    }

    /// One transition before it is journaled: its alarm is told which incident it belongs to.
    pub fn handle_transition(&mut self, now: Now, transition: &mut Transition) {
        if transition.alarm.class == Class::System {
            return;
        }
        let id = match self.of_alarm.get(&transition.alarm.id) {
            Some(id) => {
                let id = *id;
                self.take_in(now, id, &transition.alarm, false);
                id
            }
            None => {
                self.count_raised(now.mono);
                let (id, joins) = self.find_or_open(now, &transition.alarm);
                self.take_in(now, id, &transition.alarm, joins);
                id
            }
        };
        if transition.alarm.incident != Some(id) {
            Arc::make_mut(&mut transition.alarm).incident = Some(id);
        }
        if !transition.alarm.is_open() {
            self.of_alarm.remove(&transition.alarm.id);
            let entry = self.entries.get_mut(&id).expect("an alarm's incident is open as long as the alarm");
            entry.standing.remove(&transition.alarm.id);
            if entry.standing.is_empty() {
                self.settle(now, id);
            }
        }
    }

    /// The oldest incident that takes this alarm, or a new one; and whether the alarm has yet to be counted there.
    fn find_or_open(&mut self, now: Now, alarm: &Alarm) -> (IncidentId, bool) {
        let Class::Hazard(hazard) = alarm.class else { unreachable!("alarms about anmin belong to no incident") };
        let related = RELATED.iter().filter_map(|(one, other)| match () {
            () if *one == hazard => Some(*other),
            () if *other == hazard => Some(*one),
            () => None,
        });
        let near = [hazard].into_iter().chain(related).flat_map(|hazard| Spot::near(hazard, alarm));
        let takes = |id: &&IncidentId| {
            let entry = &self.entries[*id];
            if entry.incident.case_kind() != alarm.case {
                return false;
            }
            !entry.standing.is_empty() || entry.takes_until.is_some_and(|until| now.mono < until)
        };
        let oldest_at = |spot: &Spot| self.spots.get(spot)?.iter().find(takes).copied();
        if let Some(found) = near.filter_map(|spot| oldest_at(&spot)).min() {
            return (found, true);
        }
        if self.storm
            && let Some(found) = oldest_at(&Spot::whole(hazard, alarm))
        {
            if !self.entries[&found].incident.storm {
                self.change(now, found, IncidentCause::Grew, |incident| incident.storm = true);
            }
            return (found, true);
        }
        (self.open(now, alarm, 1, IncidentCause::Opened), false)
    }

    fn open(&mut self, now: Now, alarm: &Alarm, alarms: u32, cause: IncidentCause) -> IncidentId {
        let Class::Hazard(hazard) = alarm.class else { unreachable!("alarms about anmin belong to no incident") };
        let id = loop {
            let id = IncidentId(self.ids.next(now.wall));
            if !self.entries.contains_key(&id) {
                break id;
            }
        };
        let incident = Incident {
            id,
            seq: 0,
            case: alarm.case.map(|kind| Case { kind, stage: Stage::New, owner: None, by_hand: false }),
            title: alarm.title.clone(),
            place: Arc::clone(&alarm.place),
            drill: self.drill,
            hazards: vec![hazard],
            peak: alarm.peak,
            storm: false,
            alarms,
            opened_at: now.wall,
            changed_at: now.wall,
            settled_at: None,
            closes_at: None,
            notes: Vec::new(),
            checklist: Vec::new(),
            called_119: None,
            end: None,
        };
        self.entries.insert(id, Entry::new(Arc::new(incident)));
        self.change(now, id, cause, |_| {});
        id
    }

    /// An open alarm as it stands now is one of this incident's.
    fn take_in(&mut self, now: Now, id: IncidentId, alarm: &Alarm, joins: bool) {
        let Class::Hazard(hazard) = alarm.class else { return };
        let entry = self.entries.get_mut(&id).expect("the caller found the incident");
        let resumes = entry.standing.is_empty() && entry.incident.settled_at.is_some();
        let grows = alarm.peak > entry.incident.peak || !entry.incident.hazards.contains(&hazard);
        if entry.standing.insert(alarm.id) {
            self.of_alarm.insert(alarm.id, id);
            for spot in Spot::near(hazard, alarm).into_iter().take(1).chain([Spot::whole(hazard, alarm)]) {
                if entry.spots.insert(spot.clone()) {
                    self.spots.entry(spot).or_default().insert(id);
                }
            }
        }
        if joins {
            Arc::make_mut(&mut entry.incident).alarms += 1;
        }
        if resumes {
            self.stop_clock(id);
        }
        if resumes || grows {
            let cause = if resumes { IncidentCause::Resumed } else { IncidentCause::Grew };
            self.change(now, id, cause, |incident| {
                (incident.settled_at, incident.closes_at) = (None, None);
                incident.peak = incident.peak.max(alarm.peak);
                incident.add_hazards(&[hazard]);
            });
        }
    }

    fn settle(&mut self, now: Now, id: IncidentId) {
        let call_level = self.call_level;
        let entry = self.entries.get_mut(&id).expect("the caller found the incident");
        if entry.incident.is_taken_on() {
            // What flickers stays one event; the end is the person's to say.
            entry.takes_until = Some(now.mono.plus(QUIET));
            return;
        }
        let wait = if entry.incident.peak >= call_level { REASON_WITHIN } else { QUIET };
        let due = now.mono.plus(wait);
        (entry.takes_until, entry.due) = (Some(now.mono.plus(QUIET)), Some(due));
        self.timers.insert((due, id));
        self.change(now, id, IncidentCause::Settled, |incident| {
            (incident.settled_at, incident.closes_at) = (Some(now.wall), Some(now.wall.plus(wait)));
        });
    }

    fn stop_clock(&mut self, id: IncidentId) {
        let entry = self.entries.get_mut(&id).expect("the caller found the incident");
        entry.takes_until = None;
        if let Some(due) = entry.due.take() {
            self.timers.remove(&(due, id));
        }
    }

    /// The only place where an incident changes: counts it and says why.
    fn change(&mut self, now: Now, id: IncidentId, cause: IncidentCause, how: impl FnOnce(&mut Incident)) {
        let entry = self.entries.get_mut(&id).expect("the caller found the incident");
        let incident = Arc::make_mut(&mut entry.incident);
        how(incident);
        incident.seq += 1;
        incident.changed_at = now.wall;
        if incident.settled_at.is_none() && incident.is_open() {
            let Incident { checklist, hazards, peak, place, case, .. } = incident;
            let subjects = match case {
                Some(case) => vec![plan::Subject::Case(case.kind)],
                None => hazards.iter().copied().map(plan::Subject::Hazard).collect(),
            };
            plan::grow(checklist, &self.plans, &subjects, *peak, &place.area, now.wall);
        }
        self.changes.push_back(IncidentChange { at: now.wall, cause, incident: Arc::clone(&entry.incident) });
        self.arm_steps(now, id);
    }

    /// Starts the clocks of steps that are new, stops those of steps that are done or late. After a restart they go on where
    /// they were by the wall clock, none longer than its full time.
    fn arm_steps(&mut self, now: Now, id: IncidentId) {
        let Some(Entry { incident, clocks, .. }) = self.entries.get_mut(&id) else { return };
        let open = incident.is_open();
        let runs = |item: &&Item| open && item.is_open() && !item.late;
        let due: BTreeMap<&str, (Wall, Duration)> = (incident.checklist.iter().filter(runs))
            .filter_map(|item| Some((item.id.as_str(), (item.due?, item.due?.since(item.added_at)))))
            .collect();
        clocks.retain(|step, at| {
            let stays = due.contains_key(step.as_str());
            if !stays {
                self.step_timers.remove(&(*at, id, step.clone()));
            }
            stays
        });
        for (step, (due, within)) in due {
            if !clocks.contains_key(step) {
                let at = now.mono.plus(due.since(now.wall).min(within));
                clocks.insert(step.to_owned(), at);
                self.step_timers.insert((at, id, step.to_owned()));
            }
        }
    }

    fn count_raised(&mut self, at: Mono) {
        self.raised.push_back(at);
        while self.raised.len() > self.storm_alarms + 1
            || self.raised.front().is_some_and(|first| at.since(*first) >= STORM_WITHIN)
        {
            self.raised.pop_front();
        }
        // It is over when there are half as many, so that it does not begin and end with every alarm.
        let count = self.raised.len();
        self.storm = count > self.storm_alarms || (self.storm && 2 * count > self.storm_alarms);
    }

    /// Moves everything of `from` into `into`. Gives the open alarms that moved.
    pub fn merge(
        &mut self,
        now: Now,
        who: &str,
        from: IncidentId,
        into: IncidentId,
    ) -> Result<BTreeSet<AlarmId>, Refusal> {
        if from == into {
            return Err(Refusal::not_allowed("不能把事件并入它自己", "an incident cannot be merged into itself"));
        }
        self.incident(into)?;
        let source = Arc::clone(self.incident(from)?);
        if source.case.is_none() && self.incident(into)?.case.is_some() {
            return Err(Refusal::not_allowed(
                "险情不能并入日常事项：请反过来合并",
                "an emergency cannot become part of what is none: merge the other way round",
            ));
        }
        let entry = self.entries.get_mut(&from).expect("found above");
        let (moved, spots) = (std::mem::take(&mut entry.standing), entry.spots.clone());
        for alarm in &moved {
            self.of_alarm.insert(*alarm, into);
        }
        let end = End { at: now.wall, by: who.to_owned(), outcome: Outcome::Merged(into), why: String::new() };
        self.end(now, from, end);
        let target = self.entries.get_mut(&into).expect("found above");
        for spot in spots {
            self.spots.entry(spot.clone()).or_default().insert(into);
            target.spots.insert(spot);
        }
        let resumes = target.standing.is_empty() && !moved.is_empty();
        target.standing.extend(&moved);
        if resumes {
            self.stop_clock(into);
        }
        let cause = IncidentCause::Absorbed { from, by: who.to_owned() };
        self.change(now, into, cause, |incident| {
            if resumes {
                (incident.settled_at, incident.closes_at) = (None, None);
            }
            incident.peak = incident.peak.max(source.peak);
            incident.storm |= source.storm;
            incident.alarms += source.alarms;
            incident.opened_at = incident.opened_at.min(source.opened_at);
            incident.add_hazards(&source.hazards);
            incident.notes.extend(source.notes.iter().cloned());
            incident.notes.sort_by_key(|note| note.at);
            incident.called_119 = incident.called_119.take().or_else(|| source.called_119.clone());
            // Whoever had taken on what comes here has it now: it does not end in silence.
            if let (Some(case), Some(Case { kind, stage, owner: Some(owner), .. })) = (&mut incident.case, &source.case)
                && case.owner.is_none()
            {
                case.owner = Some(owner.clone());
                if case.kind == *kind {
                    case.stage = *stage;
                }
                (incident.settled_at, incident.closes_at) = (None, None);
            }
            for item in &source.checklist {
                match incident.checklist.iter_mut().find(|known| known.id == item.id) {
                    Some(known) if known.is_open() => known.done = item.done.clone(),
                    Some(_) => {}
                    None => incident.checklist.push(item.clone()),
                }
            }
        });
        // A graver past may give a settled one more time to be explained.
        if self.entries[&into].standing.is_empty() {
            self.stop_clock(into);
            self.settle(now, into);
        }
        Ok(moved)
    }

    /// Makes an incident of its own out of these open alarms of `from`.
    pub fn split(&mut self, now: Now, who: &str, from: IncidentId, alarms: &[Arc<Alarm>]) -> Result<(), Refusal> {
        self.incident(from)?;
        let standing = &self.entries[&from].standing;
        if let Some(other) = alarms.iter().find(|alarm| !standing.contains(&alarm.id)) {
            return Err(Refusal::not_allowed(
                format!("报警 {} 不属于该事件", other.id),
                format!("alarm {} does not belong to the incident", other.id),
            ));
        }
        let moved: BTreeSet<AlarmId> = alarms.iter().map(|alarm| alarm.id).collect();
        let Some(first) = alarms.iter().min_by_key(|alarm| (alarm.raised_at, alarm.id)) else {
            return Err(Refusal::not_allowed("请指明要分出的报警", "name the alarms to split off"));
        };
        // What a person has taken on stands without alarms.
        if moved.len() == standing.len() && !self.incident(from)?.is_taken_on() {
            return Err(Refusal::not_allowed(
                "事件中至少要留下一条未结束的报警",
                "at least one open alarm must stay in the incident",
            ));
        }
        let count = moved.len() as u32;
        let into = self.open(now, first, count, IncidentCause::SplitFrom { from, by: who.to_owned() });
        let entry = self.entries.get_mut(&from).expect("found above");
        entry.standing.retain(|alarm| !moved.contains(alarm));
        if entry.standing.is_empty() {
            entry.takes_until = Some(now.mono.plus(QUIET));
        }
        let cause = IncidentCause::SplitInto { into, by: who.to_owned() };
        self.change(now, from, cause, |incident| incident.alarms = incident.alarms.saturating_sub(count));
        for alarm in alarms {
            self.take_in(now, into, alarm, false);
        }
        Ok(())
    }

    pub fn note(&mut self, now: Now, who: &str, id: IncidentId, text: &str, photos: &[String]) -> Result<(), Refusal> {
        let incident = self.incident(id)?;
        if text.trim().is_empty() {
            return Err(Refusal::not_allowed("记录内容为空", "the note is empty"));
        }
        if incident.notes.len() >= MOST_NOTES {
            return Err(too_many_notes());
        }
        let note = Note { at: now.wall, by: who.to_owned(), text: text.to_owned(), photos: photos.to_vec() };
        self.change(now, id, IncidentCause::Noted { by: who.to_owned() }, |incident| incident.notes.push(note));
        Ok(())
    }

    /// A step of the checklist is done, or with a reason need not be. Saying a thing twice is harmless.
    pub fn tick(
        &mut self,
        now: Now,
        who: &str,
        id: IncidentId,
        step: &str,
        skipped: Option<&str>,
    ) -> Result<(), Refusal> {
        let Some(item) = self.incident(id)?.checklist.iter().find(|item| item.id == step) else {
            return Err(Refusal::not_allowed(
                format!("事件的处置清单中没有步骤 {step:?}"),
                format!("the incident's checklist has no step {step:?}"),
            ));
        };
        if !item.is_open() {
            return Ok(());
        }
        if skipped.is_some_and(|why| why.trim().is_empty()) {
            return Err(Refusal::not_allowed("请说明跳过的原因", "say why the step is skipped"));
        }
        let (step, by) = (step.to_owned(), who.to_owned());
        let done = Done { at: now.wall, by: by.clone(), skipped: skipped.map(str::to_owned) };
        let cause = match skipped {
            Some(_) => IncidentCause::Skipped { step: step.clone(), by },
            None => IncidentCause::Ticked { step: step.clone(), by },
        };
        self.change(now, id, cause, |incident| {
            let item = incident.checklist.iter_mut().find(|item| item.id == step);
            item.expect("found above").done = Some(done);
        });
        Ok(())
    }

    /// Somebody has called 119. The first call counts; what is said later is a note.
    pub fn called_119(&mut self, now: Now, who: &str, id: IncidentId, text: &str) -> Result<(), Refusal> {
        if self.incident(id)?.called_119.is_some() {
            return self.note(now, who, id, &format!("119: {text}"), &[]);
        }
        let note = Note { at: now.wall, by: who.to_owned(), text: text.to_owned(), photos: Vec::new() };
        self.change(now, id, IncidentCause::Called119 { by: who.to_owned() }, |incident| {
            incident.called_119 = Some(note);
        });
        Ok(())
    }

    /// A person opens a case. Saying it twice is harmless.
    pub fn open_case(&mut self, now: Now, who: &str, id: IncidentId, new: &NewCase) -> Result<(), Refusal> {
        if self.entries.contains_key(&id) {
            return Ok(());
        }
        if new.title.trim().is_empty() {
            return Err(Refusal::not_allowed("请写明事项", "say what it is about"));
        }
        if self.entries.values().filter(|entry| entry.by_hand()).count() >= MOST_BY_HAND {
            return Err(Refusal::not_allowed(
                format!("未办结的日常事项已有 {MOST_BY_HAND} 件：请先办结一些"),
                format!("{MOST_BY_HAND} cases are open already: close some first"),
            ));
        }
        let by = who.to_owned();
        let text = new.text.trim();
        let note = Note { at: now.wall, by: by.clone(), text: text.to_owned(), photos: Vec::new() };
        let owner = Some(new.owner.clone().unwrap_or_else(|| by.clone()));
        let incident = Incident {
            id,
            seq: 0,
            case: Some(Case { kind: new.kind, stage: Stage::New, owner, by_hand: true }),
            title: Text::both(new.title.trim()),
            place: Arc::new(new.place.clone()),
            // What an office warns of is real whatever is played here.
            drill: self.drill.filter(|_| new.kind != CaseKind::Precaution),
            hazards: Vec::new(),
            peak: Level::Blue,
            storm: false,
            alarms: 0,
            opened_at: now.wall,
            changed_at: now.wall,
            settled_at: None,
            closes_at: None,
            notes: if text.is_empty() { Vec::new() } else { vec![note] },
            checklist: Vec::new(),
            called_119: None,
            end: None,
        };
        self.entries.insert(id, Entry::new(Arc::new(incident)));
        self.change(now, id, IncidentCause::Staged { stage: Stage::New, by }, |_| {});
        Ok(())
    }

    /// A case comes to another state, and to whoever sees to it.
    pub fn set_stage(
        &mut self,
        now: Now,
        who: &str,
        id: IncidentId,
        stage: Stage,
        owner: Option<&str>,
        text: &str,
    ) -> Result<(), Refusal> {
        let incident = self.incident(id)?;
        let Some(case) = &incident.case else {
            return Err(Refusal::not_allowed(
                "险情没有办理阶段：它随报警变化",
                "an emergency has no such states: it goes with its alarms",
            ));
        };
        let stages = case.kind.stages();
        if !stages.contains(&stage) {
            let words = |word: fn(&Stage) -> &'static str| stages.iter().map(word).collect::<Vec<_>>().join(", ");
            return Err(Refusal::not_allowed(
                format!("{}没有“{}”阶段：可用 {}", case.kind.zh(), stage.zh(), words(|one| one.zh())),
                format!(
                    "a {} has no state {}: there are {}",
                    case.kind.en(),
                    stage.as_str(),
                    words(|one| one.as_str())
                ),
            ));
        }
        let owner = owner.map(str::to_owned).or_else(|| case.owner.clone()).unwrap_or_else(|| who.to_owned());
        let case = Case { stage, owner: Some(owner), ..case.clone() };
        if text.trim().is_empty() && incident.case.as_ref() == Some(&case) {
            return Ok(());
        }
        if !text.trim().is_empty() && incident.notes.len() >= MOST_NOTES {
            return Err(too_many_notes());
        }
        let settled = incident.settled_at.is_some();
        if settled {
            // Until its alarms come back, as of one that had been taken on before it settled.
            self.stop_clock(id);
            self.entries.get_mut(&id).expect("found above").takes_until = Some(now.mono.plus(QUIET));
        }
        let by = who.to_owned();
        self.change(now, id, IncidentCause::Staged { stage, by: by.clone() }, |incident| {
            incident.case = Some(case);
            (incident.settled_at, incident.closes_at) = (None, None);
            if !text.trim().is_empty() {
                incident.notes.push(Note { at: now.wall, by, text: text.trim().to_owned(), photos: Vec::new() });
            }
        });
        Ok(())
    }

    /// Closes one none of whose alarms is open.
    pub fn close(&mut self, now: Now, who: &str, id: IncidentId, outcome: Outcome, why: &str) {
        let outcome = drill::outcome(self.drill.is_some(), outcome);
        let end = End { at: now.wall, by: who.to_owned(), outcome, why: why.to_owned() };
        self.end(now, id, end);
    }

    fn end(&mut self, now: Now, id: IncidentId, end: End) {
        self.stop_clock(id);
        self.change(now, id, IncidentCause::Closed, |incident| {
            incident.end = Some(end);
            incident.closes_at = None;
        });
        let entry = self.entries.remove(&id).expect("the caller found the incident");
        debug_assert!(entry.clocks.is_empty(), "a closed incident has no clock");
        for spot in entry.spots {
            if let Some(there) = self.spots.get_mut(&spot) {
                there.remove(&id);
                if there.is_empty() {
                    self.spots.remove(&spot);
                }
            }
        }
    }

    /// Closes the incident, or says of the step that it is late, whichever is due first. Returns whether there was one.
    pub fn fire_one(&mut self, now: Now) -> bool {
        let closes = self.timers.first().map(|(due, _)| *due);
        if let Some((due, id, step)) = self.step_timers.first().cloned()
            && due <= now.mono
            && closes.is_none_or(|closes| due <= closes)
        {
            self.change(now, id, IncidentCause::StepLate { step: step.clone() }, |incident| {
                let item = incident.checklist.iter_mut().find(|item| item.id == step);
                item.expect("a clock belongs to a step that is there").late = true;
            });
            return true;
        }
        let Some((_, id)) = self.timers.first().copied().filter(|(due, _)| *due <= now.mono) else { return false };
        self.close(now, ANMIN, id, Outcome::Unexplained, "");
        true
    }

    pub fn poll_timeout(&self) -> Option<Mono> {
        let steps = self.step_timers.first().map(|(due, ..)| *due);
        self.timers.first().map(|(due, _)| *due).into_iter().chain(steps).min()
    }

    pub fn poll_change(&mut self) -> Option<IncidentChange> {
        self.changes.pop_front()
    }

    pub fn incident(&self, id: IncidentId) -> Result<&Arc<Incident>, Refusal> {
        self.entries.get(&id).map(|entry| &entry.incident).ok_or(Refusal::NoSuchIncident(id))
    }

    /// The open alarms of an open incident.
    pub fn alarms_of(&self, id: IncidentId) -> impl Iterator<Item = AlarmId> {
        self.entries.get(&id).into_iter().flat_map(|entry| entry.standing.iter().copied())
    }

    /// All open ones, the oldest first.
    pub fn incidents(&self) -> impl Iterator<Item = &Arc<Incident>> {
        self.entries.values().map(|entry| &entry.incident)
    }
}

#[cfg(test)]
mod tests {
    use anmin_sensors::point::PointId;

    use super::*;
    use crate::alarm::{AlarmState, Cause, Condition, Subject};
    use crate::rule::{Evidence, RuleId};

    fn now(seconds: u64) -> Now {
        Now { mono: Mono::from_nanos(1), wall: Wall::from_millis(1_800_000_000_000) }.plus(Duration::from_secs(seconds))
    }

    /// An alarm of a hazard at `building/unit/floor/room`, or of a device that nobody has placed.
    fn alarm(n: u128, hazard: Hazard, place: &str) -> Alarm {
        let text = |word: &str| Text { zh: word.to_owned(), en: word.to_owned() };
        let mut parts = place.split('/').map(str::to_owned);
        let mut part = || parts.next().unwrap_or_default();
        let device = if place.starts_with("device") { place.to_owned() } else { format!("d{n}") };
        let placed = match place.starts_with("device") {
            true => Place::default(),
            false => Place { building: part(), unit: part(), floor: part(), room: part(), ..Place::default() },
        };
        Alarm {
            id: AlarmId(uuid::Uuid::from_u128(n)),
            rule: RuleId::new(format!("test/{}", hazard.as_str())),
            subject: Subject::Point(PointId::new(format!("{device}/x{n}"))),
            class: Class::Hazard(hazard),
            title: text(hazard.as_str()),
            place: Arc::new(placed),
            case: None,
            incident: None,
            drill: None,
            level: Level::Yellow,
            peak: Level::Yellow,
            condition: Condition::Active,
            acknowledged: None,
            latched: false,
            shelved: None,
            out_of_service: None,
            escalation: 0,
            peak_escalation: 0,
            escalate_at: None,
            realarm_at: None,
            raised_at: now(0).wall,
            changed_at: now(0).wall,
            clock_doubtful: false,
            seq: 1,
            evidence: Evidence::default(),
            message: Text::default(),
            advice: text(&format!("mind the {}", hazard.as_str())),
            cap_log: Vec::new(),
            broadcast: None,
            rerouted: Vec::new(),
            sirens: Vec::new(),
            moved: 0,
        }
    }

    fn raise(book: &mut IncidentBook, at: u64, alarm: Alarm) -> IncidentId {
        let mut transition = Transition {
            from: AlarmState::Normal,
            to: AlarmState::Unacknowledged,
            cause: Cause::Raised,
            at: now(at),
            alarm: Arc::new(alarm),
        };
        book.handle_transition(now(at), &mut transition);
        transition.alarm.incident.expect("a hazard's alarm belongs to an incident")
    }

    #[test]
    fn what_is_near_and_related_is_one_event_and_nothing_else_is() {
        use Hazard::{Care, Fire, Flood, Gas, Ground, Power};
        for (one, there, other, here, joined) in [
            (Gas, "3/1/5/501", Gas, "3/1/5/501", true),
            (Gas, "3/1/5/501", Gas, "3/1/5/502", true),
            (Gas, "3/1/5/501", Gas, "3/1/6/601", true),
            (Gas, "3/1/5/501", Gas, "3/1/4/401", true),
            (Gas, "3/1/5/501", Gas, "3/1/7/701", false),
            (Gas, "3/1/5/501", Gas, "3/2/5/501", false),
            (Gas, "3/1/5/501", Gas, "4/1/5/501", false),
            (Fire, "3/1/1/101", Fire, "3/1/B1/garage", true),
            (Fire, "3/1/1/101", Fire, "3/1/roof/", false),
            (Fire, "3/1//", Fire, "3/1//", true),
            // Hazards that belong together, in either order, and those that do not.
            (Gas, "3/1/5/501", Fire, "3/1/5/501", true),
            (Fire, "3/1/5/501", Gas, "3/1/6/601", true),
            (Power, "3/1/B1/switch", Flood, "3/1/B1/pump", true),
            (Flood, "3/1/B1/pump", Power, "3/1/B1/switch", true),
            (Flood, "//yard/", Ground, "//yard/", true),
            (Gas, "3/1/B1/", Flood, "3/1/B1/", false),
            // Somebody's own room.
            (Care, "3/1/5/501", Care, "3/1/5/501", true),
            (Care, "3/1/5/501", Care, "3/1/5/502", false),
            (Care, "3/1/5/501", Fire, "3/1/5/501", false),
            // Of what nobody has placed only its device is known.
            (Gas, "device-a", Gas, "device-a", true),
            (Gas, "device-a", Gas, "device-b", false),
            // Nor is it enough to be in one building.
            (Gas, "3///", Gas, "3///", false),
        ] {
            let mut book = IncidentBook::new(100, Level::Orange, Arc::default(), 1);
            let first = raise(&mut book, 0, alarm(1, one, there));
            let second = raise(&mut book, 3_600, alarm(2, other, here));
            assert_eq!(first == second, joined, "{one:?} at {there} and {other:?} at {here}");
        }
    }

    #[test]
    fn buildings_of_one_name_in_two_compounds_and_cases_of_two_kinds_are_kept_apart() {
        let (mut book, kitchen) = (IncidentBook::new(1, Level::Orange, Arc::default(), 1), "3/1/5/501");
        let mut found = BTreeSet::new();
        for (n, (area, case)) in
            [("east", None), ("west", None), ("east", Some(CaseKind::Mediation)), ("east", Some(CaseKind::Maintenance))]
                .into_iter()
                .enumerate()
        {
            // Twice, so that the second of each is a storm's and has one to join.
            for again in [0, 10] {
                let mut alarm = alarm(n as u128 + again, Hazard::Care, kitchen);
                Arc::make_mut(&mut alarm.place).area = area.to_owned();
                found.insert(raise(&mut book, n as u64, Alarm { case, ..alarm }));
            }
        }
        assert_eq!(found.len(), 4);
    }

    #[test]
    fn the_oldest_of_several_takes_an_alarm_and_a_neighbour_of_a_neighbour_is_one() {
        let mut book = IncidentBook::new(100, Level::Orange, Arc::default(), 1);
        let low = raise(&mut book, 0, alarm(1, Hazard::Fire, "3/1/2/201"));
        let high = raise(&mut book, 1, alarm(2, Hazard::Fire, "3/1/4/401"));
        assert_ne!(low, high);
        assert_eq!(raise(&mut book, 2, alarm(3, Hazard::Fire, "3/1/3/301")), low);
        assert_eq!(
            raise(&mut book, 3, alarm(4, Hazard::Fire, "3/1/4/402")),
            low,
            "the third floor is its neighbour now"
        );
        assert_eq!(
            raise(&mut book, 4, alarm(5, Hazard::Fire, "3/1/5/501")),
            low,
            "and so is the fourth, as of the other"
        );
    }

    #[test]
    fn forty_alarms_of_a_rain_night_are_three_incidents() {
        let mut book = IncidentBook::new(10, Level::Orange, Arc::default(), 1);
        let mut found = BTreeSet::new();
        for n in 0..40_u128 {
            let building = 1 + n % 3;
            found.insert(raise(&mut book, n as u64, alarm(n, Hazard::Flood, &format!("{building}/1/B1/{n}"))));
        }
        assert_eq!(found.len(), 3);
        assert_eq!(book.incidents().map(|incident| incident.alarms).sum::<u32>(), 40);
    }

    #[test]
    fn advice_begins_with_what_must_come_first_and_says_nothing_twice() {
        let alarms = [
            alarm(1, Hazard::Flood, "3/1/B1/"),
            Alarm { level: Level::Red, ..alarm(2, Hazard::Power, "3/1/B1/") },
            alarm(3, Hazard::Flood, "3/1/B1/"),
        ];
        let mut book = IncidentBook::new(100, Level::Orange, Arc::default(), 1);
        let [id, ..] = alarms.each_ref().map(|alarm| raise(&mut book, 0, alarm.clone()));
        let incident = Arc::clone(book.incident(id).expect("it is open"));
        let situation = Situation::new(incident, alarms.map(Arc::new).into());
        let said: Vec<&str> = situation.advice.iter().map(|text| text.en.as_str()).collect();
        assert_eq!(said, ["Cut the power before entering the water.", "mind the power", "mind the flood"]);
        assert_eq!(situation.level, Some(Level::Red));
        assert!(FIRST.iter().all(|(one, other, ..)| RELATED.contains(&(*one, *other))), "they meet in one incident");
    }

    #[test]
    fn an_alarm_of_the_time_before_incidents_gets_one_at_the_restart() {
        let mut book = IncidentBook::new(100, Level::Orange, Arc::default(), 1);
        let alarms = [alarm(1, Hazard::Gas, "3/1/5/501"), alarm(2, Hazard::Gas, "3/1/5/502")].map(Arc::new);
        let moved = book.restore(now(0), Vec::new(), &alarms);
        assert_eq!(moved, alarms.each_ref().map(|alarm| alarm.id), "both must be written down anew");
        assert_eq!(book.incidents().map(|incident| incident.alarms).collect::<Vec<_>>(), [2]);
        assert_eq!(book.restore(now(1), Vec::new(), &alarms), [], "once");
    }
}
