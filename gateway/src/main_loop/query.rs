//! Questions to the main loop, answered from its own state between two turns: no question waits for a disk.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anmin_rules::alarm::{Alarm, AlarmId, AlarmState, Class};
use anmin_rules::drill::Drill;
use anmin_rules::duty::{Duty, HandOver, Member, Unready};
use anmin_rules::engine::{Counts, Engine};
use anmin_rules::incident::{IncidentId, Situation};
use anmin_rules::order::{Call, Station};
use anmin_rules::plan::Plans;
use anmin_rules::response::Callable;
use anmin_rules::rule::{ContentHash, Level, LimitUsed, RuleId, RuleSpec, Text, Tuning};
use anmin_rules::set::{Held, InForce, RuleSource};
use anmin_rules::walk::{self, Tick, Walk};
use anmin_sensors::point::{Device, DeviceId, Hazard, KINDS, Kind, Name, Place, Point, PointId, PointIx, Points};
use anmin_sensors::profile::{Profile, Profiles};
use anmin_sensors::reading::{Quality, Sample};
use anmin_sensors::time::Wall;
use tokio::sync::oneshot;

use super::drill_calendar;
use super::help::HelpCalls;
use crate::pulse::Seen;
use crate::store::people::Places;
use crate::store::{Counts as Stored, Gap};

/// Walk tests that are on, and what speaks in them.
pub type Walks = (Vec<Arc<Walk>>, Vec<Arc<Tick>>);

/// A question with the place for its answer. The asker may be gone: a reply that nobody takes is dropped.
#[derive(Debug)]
pub enum Query {
    Alarms {
        filter: AlarmFilter,
        page: AlarmPage,
        reply: oneshot::Sender<AlarmList>,
    },
    Alarm {
        id: AlarmId,
        reply: oneshot::Sender<Option<AlarmView>>,
    },
    /// Who can be called and told next about an open alarm.
    Next {
        id: AlarmId,
        reply: oneshot::Sender<Option<Next>>,
    },
    Incidents {
        within: Places,
        page: IncidentPage,
        reply: oneshot::Sender<IncidentList>,
    },
    Incident {
        id: IncidentId,
        reply: oneshot::Sender<Option<IncidentView>>,
    },
    Stations {
        reply: oneshot::Sender<Vec<StationView>>,
    },
    /// The walk tests that are on, and what speaks in them.
    Walks {
        reply: oneshot::Sender<Walks>,
    },
    /// The points that a walk test is about.
    Testable {
        within: Places,
        reply: oneshot::Sender<Testable>,
    },
    Points {
        filter: PointFilter,
        page: Page,
        reply: oneshot::Sender<PointPage>,
    },
    Point {
        id: PointId,
        reply: oneshot::Sender<Option<PointRow>>,
    },
    PointChoices {
        within: Places,
        reply: oneshot::Sender<PointChoices>,
    },
    Devices {
        within: Places,
        page: Page,
        reply: oneshot::Sender<DevicePage>,
    },
    /// One device by its id.
    Device {
        id: String,
        reply: oneshot::Sender<Option<DeviceView>>,
    },
    /// A device in the quarantine by its id, and through which broker it came where that matters; with what it may be.
    Stranger {
        device: String,
        source: Option<String>,
        reply: oneshot::Sender<Option<Stranger>>,
    },
    Quarantine {
        reply: oneshot::Sender<Vec<Quarantined>>,
    },
    /// The rule as it is in force for a point; `None` where it does not judge it.
    InForce {
        rule: RuleId,
        subject: PointId,
        reply: oneshot::Sender<Option<InForce>>,
    },
    Rules {
        reply: oneshot::Sender<Vec<RuleRow>>,
    },
    /// What the rules hold of a point; `None` where there is none of this id.
    Held {
        id: PointId,
        reply: oneshot::Sender<Option<HeldView>>,
    },
    /// What is to be done in which incident.
    Plans {
        reply: oneshot::Sender<Arc<Plans>>,
    },
    /// Which areas are to be drilled how often, and when each was last.
    DrillCalendar {
        reply: oneshot::Sender<Vec<(drill_calendar::Plan, Wall)>>,
    },
    Status {
        within: Places,
        reply: oneshot::Sender<Status>,
    },
    /// Answered when what was noted before it is in the audit, or the journal is away.
    Audited {
        reply: oneshot::Sender<()>,
    },
}

/// What can be done about an open alarm without waiting for a clock.
#[derive(Clone, Debug)]
pub struct Next {
    pub alarm: Arc<Alarm>,
    pub stations: Vec<Callable>,
    pub last_escalation: u32,
}

/// A detector or button that somebody can press.
#[derive(Clone, Debug, PartialEq)]
pub struct TestablePoint {
    pub id: PointId,
    pub kind: Kind,
    /// What people call the device.
    pub label: Name,
    pub place: Arc<Place>,
    /// When it was last tested.
    pub last: Option<Wall>,
}

/// Detectors and buttons, and how often each is to be tested.
#[derive(Clone, Debug, PartialEq)]
pub struct Testable {
    pub every: Duration,
    pub points: Vec<TestablePoint>,
}

impl Testable {
    /// `tested`, `overdue` or `never`.
    pub fn standing(&self, point: &TestablePoint, now: Wall) -> &'static str {
        match point.last {
            None => "never",
            // By a clock that was wrong.
            Some(at) if at > now => "never",
            Some(at) if now > at.plus(self.every) => "overdue",
            Some(_) => "tested",
        }
    }
}

impl TestablePoint {
    pub fn all(points: &Points, within: &Places, last: impl Fn(&PointId) -> Option<Wall>) -> Vec<Self> {
        let testable = points.iter().filter(|(_, point)| walk::is_testable(point.spec.kind));
        let rows = testable.map(|(ix, point)| {
            let device = points.device_of(ix);
            let (label, place) = (device.label(), Arc::clone(&device.place));
            Self { id: point.id.clone(), kind: point.spec.kind, label, place, last: last(&point.id) }
        });
        rows.filter(|row| within.takes(&row.place)).collect()
    }
}

/// A micro fire station as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct StationView {
    pub station: Station,
    pub duty: Arc<Duty>,
    /// Why it cannot respond; nothing where it can.
    pub unready: Vec<Unready>,
    pub on_duty: Vec<Member>,
    /// Names of the shifts that run.
    pub shifts: Vec<String>,
    /// The hand-over that holds until the next shift begins.
    pub handed_over: Option<HandOver>,
    /// Its calls that are not over.
    pub calls: Vec<Call>,
}

impl StationView {
    /// All stations in the order of the configuration.
    pub fn all(engine: &Engine, at: Wall) -> Vec<Self> {
        let desk = engine.desk();
        let calls: Vec<Call> = engine.calls().into_iter().filter(Call::is_live).collect();
        let view = |station: &Station| {
            let (duty, unready) = engine.duty_of(&station.id);
            Self {
                unready: unready.to_vec(),
                on_duty: station.on_duty(&desk.zone, &duty, at).into_iter().cloned().collect(),
                shifts: station.shifts_at(&desk.zone, at).map(|shift| shift.name.clone()).collect(),
                handed_over: station.hand_over_in_force(&desk.zone, &duty, at).cloned(),
                calls: calls.iter().filter(|call| call.station == station.id).cloned().collect(),
                station: station.clone(),
                duty,
            }
        };
        desk.stations.iter().map(view).collect()
    }
}

/// Which open alarms; the default is all of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AlarmFilter {
    pub min_level: Option<Level>,
    /// A class by its word: `gas`, `fire`, `system`, ...
    pub class: Option<String>,
    pub building: Option<String>,
    /// What the asker may see.
    pub within: Places,
    /// Only those of which people were asked whether they may leave the community, and drills.
    pub asked: bool,
}

impl AlarmFilter {
    pub fn takes(&self, alarm: &Alarm) -> bool {
        self.min_level.is_none_or(|level| alarm.level >= level)
            && self.class.as_ref().is_none_or(|class| alarm.class.as_str() == class)
            && self.building.as_ref().is_none_or(|building| alarm.place.building == *building)
            && self.within.takes(&alarm.place)
            && (!self.asked || alarm.drill.is_some() || alarm.broadcast.is_some())
    }
}

/// Where an alarm stands in the list: gravest first, then oldest first, and drills behind all that is real. Alarms come and go while somebody turns the
/// pages, so a page begins behind such a place and not at a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AlarmCursor(Played, Reverse<Level>, Wall, AlarmId);

impl AlarmCursor {
    pub fn of(alarm: &Alarm) -> Self {
        Self(Played(alarm.drill.is_some()), Reverse(alarm.level), alarm.raised_at, alarm.id)
    }
}

/// Whether something is part of a drill; `drill.` before a cursor that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Played(bool);

impl Played {
    fn read(text: &str) -> (Self, &str) {
        text.strip_prefix("drill.").map_or((Self(false), text), |rest| (Self(true), rest))
    }
}

impl fmt::Display for Played {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0 { "drill." } else { "" })
    }
}

/// As the API writes it: `red.1772328600000000.0195506b-f3c0-7000-8000-000000000001`.
impl fmt::Display for AlarmCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}.{}.{}", self.0, self.1.0.as_str(), self.2.micros(), self.3)
    }
}

impl FromStr for AlarmCursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (played, text) = Played::read(text);
        let mut parts = text.splitn(3, '.');
        let mut part = || parts.next().ok_or(());
        let level = Level::named(part()?).ok_or(())?;
        let micros = part()?.parse().map_err(|_| ())?;
        let id = part()?.parse().map_err(|_| ())?;
        Ok(Self(played, Reverse(level), Wall::from_micros(micros), AlarmId(id)))
    }
}

/// A stretch of the list of alarms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlarmPage {
    /// Behind which place it begins; `None`: with the first.
    pub after: Option<AlarmCursor>,
    /// Alarms at most.
    pub limit: usize,
}

/// Open alarms with their calls, gravest first, then oldest first.
#[derive(Clone, Debug, Default)]
pub struct AlarmList {
    pub alarms: Vec<Arc<Alarm>>,
    /// Calls of these alarms.
    pub calls: Vec<Call>,
    /// `after` of the next page; `None` at the end.
    pub next: Option<AlarmCursor>,
    /// Open alarms that the filter takes.
    pub of: usize,
}

impl AlarmList {
    /// What filter and page take out of the engine's `alarms()`, with what its `calls_of` says of each of them.
    pub fn select(
        filter: &AlarmFilter,
        page: AlarmPage,
        mut alarms: Vec<Arc<Alarm>>,
        calls_of: impl Fn(AlarmId) -> Vec<Call>,
    ) -> Self {
        alarms.retain(|alarm| filter.takes(alarm));
        let of = alarms.len();
        alarms.retain(|alarm| page.after.is_none_or(|after| AlarmCursor::of(alarm) > after));
        alarms.sort_by_cached_key(|alarm| AlarmCursor::of(alarm));
        let more = alarms.len() > page.limit;
        alarms.truncate(page.limit);
        let next = alarms.last().filter(|_| more).map(|last| AlarmCursor::of(last));
        Self { calls: alarms.iter().flat_map(|alarm| calls_of(alarm.id)).collect(), alarms, next, of }
    }
}

#[derive(Clone, Debug)]
pub struct AlarmView {
    pub alarm: Arc<Alarm>,
    pub calls: Vec<Call>,
}

/// What the rules hold of a point, whether it has spoken or not.
#[derive(Clone, Debug)]
pub struct HeldView {
    pub place: Arc<Place>,
    pub rules: Vec<HeldRule>,
}

#[derive(Clone, Debug)]
pub struct HeldRule {
    pub rule: RuleId,
    pub title: Text,
    pub tuning: Tuning,
    pub limits: Arc<[LimitUsed]>,
    pub is_judged: bool,
}

impl HeldView {
    pub fn of(engine: &Engine, points: &Points, id: &PointId) -> Option<Self> {
        let subject = points.find(id.as_str())?;
        let held = engine.rules().held_of(subject, points);
        let rule = |Held { spec, tuning, limits, is_judged }: Held<'_>| HeldRule {
            rule: spec.id.clone(),
            title: spec.title.clone(),
            tuning,
            limits,
            is_judged,
        };
        let mut rules: Vec<HeldRule> = held.into_iter().map(rule).collect();
        rules.sort_by(|a, b| a.rule.cmp(&b.rule));
        Some(Self { place: Arc::clone(&points.device_of(subject).place), rules })
    }
}

/// One rule in force.
#[derive(Clone, Debug)]
pub struct RuleRow {
    pub spec: Arc<RuleSpec>,
    /// What it was read from.
    pub source: Arc<RuleSource>,
    pub hash: ContentHash,
    /// Points that it judges.
    pub subjects: usize,
    /// The site's own numbers: for whom, and what by which name.
    pub overrides: Vec<(String, Vec<(String, f64)>)>,
    pub open_alarms: usize,
    /// It cannot judge all of its subjects, or a file of its name could not be loaded.
    pub broken: bool,
}

impl RuleRow {
    /// All rules by their ids.
    pub fn all(engine: &Engine) -> Vec<Self> {
        let (set, mut open) = (engine.rules(), HashMap::<RuleId, usize>::new());
        let real = engine.alarms().into_iter().filter(|alarm| alarm.drill.is_none());
        real.for_each(|alarm| *open.entry(alarm.rule.clone()).or_default() += 1);
        let broken: HashSet<&RuleId> = engine.broken_rules().collect();
        let rules = set.rules().zip(engine.specs()).zip(set.subjects());
        let mut rows: Vec<Self> = rules
            .map(|(((rule, _), spec), subjects)| Self {
                spec: Arc::clone(spec),
                source: Arc::clone(set.source(rule)),
                hash: set.content_hash(rule),
                subjects,
                overrides: Vec::new(),
                open_alarms: open.get(&spec.id).copied().unwrap_or(0),
                broken: broken.contains(&spec.id),
            })
            .collect();
        rows.sort_by(|a, b| a.spec.id.cmp(&b.spec.id));
        for over in set.overrides() {
            if let Ok(at) = rows.binary_search_by(|row| row.spec.id.as_str().cmp(&over.rule)) {
                rows[at].overrides.push((over.whom(), over.numbers()));
            }
        }
        rows
    }
}

/// Where an open incident stands in the list: those with a level in force first, the gravest of them first, then the
/// oldest; behind them those that wait to be closed, and behind all that is real the drills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IncidentCursor(Played, Reverse<Option<Level>>, Wall, IncidentId);

impl IncidentCursor {
    pub fn of(situation: &Situation) -> Self {
        let incident = &situation.incident;
        Self(Played(incident.drill.is_some()), Reverse(situation.level), incident.opened_at, incident.id)
    }
}

/// As the API writes it: `red.1772328600000000.0195506b-f3c0-7000-8000-000000000001`, with `none` for no level.
impl fmt::Display for IncidentCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}.{}.{}", self.0, self.1.0.map_or("none", Level::as_str), self.2.micros(), self.3)
    }
}

impl FromStr for IncidentCursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (played, text) = Played::read(text);
        let mut parts = text.splitn(3, '.');
        let mut part = || parts.next().ok_or(());
        let level = match part()? {
            "none" => None,
            word => Some(Level::named(word).ok_or(())?),
        };
        let micros = part()?.parse().map_err(|_| ())?;
        let id = part()?.parse().map_err(|_| ())?;
        Ok(Self(played, Reverse(level), Wall::from_micros(micros), IncidentId(id)))
    }
}

/// A stretch of the list of open incidents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IncidentPage {
    /// Behind which place it begins; `None`: with the first.
    pub after: Option<IncidentCursor>,
    /// Incidents at most.
    pub limit: usize,
}

/// Open incidents with their open alarms, in the order of [`IncidentCursor`].
#[derive(Clone, Debug, Default)]
pub struct IncidentList {
    pub incidents: Vec<Situation>,
    /// `after` of the next page; `None` at the end.
    pub next: Option<IncidentCursor>,
    /// Open incidents that the asker may see.
    pub of: usize,
}

impl IncidentList {
    /// What the page takes out of all open ones.
    pub fn select(page: IncidentPage, mut all: Vec<Situation>) -> Self {
        let of = all.len();
        all.retain(|situation| page.after.is_none_or(|after| IncidentCursor::of(situation) > after));
        all.sort_by_cached_key(IncidentCursor::of);
        let more = all.len() > page.limit;
        all.truncate(page.limit);
        let next = all.last().filter(|_| more).map(IncidentCursor::of);
        Self { incidents: all, next, of }
    }
}

#[derive(Clone, Debug)]
pub struct IncidentView {
    pub situation: Situation,
    /// Calls for its open alarms.
    pub calls: Vec<Call>,
}

/// A stretch of a list that only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Index of the first row to look at: 0, or `next` of the page before.
    pub from: u32,
    /// Rows at most.
    pub limit: usize,
}

/// Which points; the default is all of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PointFilter {
    pub device: Option<DeviceId>,
    pub kind: Option<Kind>,
    pub building: Option<String>,
    pub quality: Option<QualityIs>,
    /// What the asker may see.
    pub within: Places,
    /// Part of the point's id or of what its device is called in either language.
    pub text: Option<String>,
}

/// Quality without its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QualityIs {
    Good,
    Uncertain,
    Bad,
    /// Uncertain, bad, or never heard of.
    NotGood,
}

impl QualityIs {
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "good" => Self::Good,
            "uncertain" => Self::Uncertain,
            "bad" => Self::Bad,
            "not_good" => Self::NotGood,
            _ => return None,
        })
    }

    fn takes(self, sample: Option<&Sample>) -> bool {
        let quality = sample.map(|sample| sample.quality);
        match self {
            Self::Good => quality == Some(Quality::Good),
            Self::Uncertain => matches!(quality, Some(Quality::Uncertain(_))),
            Self::Bad => matches!(quality, Some(Quality::Bad(_))),
            Self::NotGood => quality != Some(Quality::Good),
        }
    }
}

impl PointFilter {
    fn takes(&self, point: &Point, device: &Device) -> bool {
        self.kind.is_none_or(|kind| point.spec.kind == kind)
            && self.building.as_ref().is_none_or(|building| device.place.building == *building)
            && self.within.takes(&device.place)
            && self.text.as_ref().is_none_or(|text| {
                let label = device.label();
                [point.id.as_str(), &label.zh, &label.en].iter().any(|said| said.contains(&**text))
            })
    }
}

/// One point with its latest sample.
#[derive(Clone, Debug)]
pub struct PointRow {
    pub id: PointId,
    pub device: DeviceId,
    pub label: Name,
    pub kind: Kind,
    pub alarm_point: bool,
    pub place: Arc<Place>,
    /// `None`: nothing was heard of it since the start.
    pub sample: Option<Sample>,
}

impl PointRow {
    pub fn of(points: &Points, ix: PointIx, sample: Option<Sample>) -> Self {
        let (point, device) = (points.point(ix), points.device_of(ix));
        Self {
            id: point.id.clone(),
            device: device.id.clone(),
            label: device.label(),
            kind: point.spec.kind,
            alarm_point: point.spec.alarm_point,
            place: Arc::clone(&device.place),
            sample,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct PointPage {
    pub rows: Vec<PointRow>,
    /// `from` of the next page; `None` at the end.
    pub next: Option<u32>,
    /// Points of the whole site.
    pub of: usize,
}

impl PointPage {
    /// Walks the points from `page.from` until the page is full. `latest` gives a point's latest sample.
    pub fn select(
        points: &Points,
        filter: &PointFilter,
        page: Page,
        latest: impl Fn(PointIx) -> Option<Sample>,
    ) -> Self {
        let all = points.len() as u32;
        let range: Box<dyn Iterator<Item = PointIx>> = match &filter.device {
            None => Box::new((page.from.min(all)..all).map(PointIx)),
            Some(device) => match points.find_device(device.as_str()) {
                None => Box::new(std::iter::empty()),
                Some(ix) => Box::new(points.device(ix).points().filter(move |ix| ix.0 >= page.from)),
            },
        };
        let mut found = Self { rows: Vec::new(), next: None, of: points.len() };
        for ix in range {
            let point = points.point(ix);
            if !filter.takes(point, points.device(point.device)) {
                continue;
            }
            let sample = latest(ix);
            if filter.quality.is_some_and(|quality| !quality.takes(sample.as_ref())) {
                continue;
            }
            if found.rows.len() == page.limit {
                found.next = Some(ix.0);
                break;
            }
            found.rows.push(PointRow::of(points, ix, sample));
        }
        found
    }
}

/// What the site's points can be filtered by: only what is there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PointChoices {
    /// Sorted as text.
    pub buildings: Vec<String>,
    /// Ids of places, likewise.
    pub areas: Vec<String>,
    pub grids: Vec<String>,
    /// In the order of [`KINDS`].
    pub kinds: Vec<Kind>,
}

impl PointChoices {
    pub fn of(points: &Points, within: &Places) -> Self {
        let [mut buildings, mut areas, mut grids] = [const { BTreeSet::new() }; 3];
        // Devices of one place mostly follow one another: most of them need no look-up.
        let mut last = ["", "", ""];
        for (_, device) in points.devices() {
            let Place { building, area, grid, .. } = &*device.place;
            let here = [building, area, grid].map(String::as_str);
            if here != last && within.takes(&device.place) {
                for (all, name) in [&mut buildings, &mut areas, &mut grids].into_iter().zip(here) {
                    all.insert(name);
                }
                last = here;
            }
        }
        let seen = points.iter().filter(|(ix, _)| within.takes(&points.device_of(*ix).place));
        let kinds: BTreeSet<&str> = seen.map(|(_, point)| point.spec.kind.as_str()).collect();
        let [buildings, areas, grids] = [buildings, areas, grids]
            .map(|all| all.into_iter().filter(|name| !name.is_empty()).map(str::to_owned).collect());
        Self {
            buildings,
            areas,
            grids,
            kinds: KINDS
                .iter()
                .filter(|info| kinds.contains(info.name))
                .filter_map(|info| Kind::named(info.name))
                .collect(),
        }
    }
}

#[derive(Clone, Debug)]
pub struct DeviceRow {
    pub id: DeviceId,
    pub label: Name,
    pub profile: Arc<str>,
    pub place: Arc<Place>,
    pub points: Vec<PointId>,
    /// When any of its points last spoke.
    pub heard: Option<Wall>,
}

/// A device with its points.
#[derive(Clone, Debug)]
pub struct DeviceView {
    pub row: DeviceRow,
    pub points: Vec<PointRow>,
    /// `None` for a device that its mapping says how to read.
    pub profile: Option<Arc<Profile>>,
}

impl DeviceView {
    pub fn of(
        points: &Points,
        id: &str,
        profiles: &Profiles,
        latest: impl Fn(PointIx) -> Option<Sample>,
    ) -> Option<Self> {
        let device = points.find_device(id)?;
        let row = DeviceRow::of(points, points.device(device), &latest);
        let its = points.device(device).points().map(|ix| PointRow::of(points, ix, latest(ix))).collect();
        Some(Self { profile: profiles.get(&row.profile).cloned(), row, points: its })
    }
}

impl DeviceRow {
    fn of(points: &Points, device: &Device, latest: impl Fn(PointIx) -> Option<Sample>) -> Self {
        Self {
            id: device.id.clone(),
            label: device.label(),
            profile: Arc::clone(&device.profile),
            place: Arc::clone(&device.place),
            points: device.points().map(|ix| points.point(ix).id.clone()).collect(),
            heard: device.points().filter_map(latest).map(|sample| sample.received.wall).max(),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct DevicePage {
    pub rows: Vec<DeviceRow>,
    /// `from` of the next page; `None` at the end.
    pub next: Option<u32>,
    /// Devices that the asker may see.
    pub of: usize,
}

impl DevicePage {
    pub fn select(points: &Points, within: &Places, page: Page, latest: impl Fn(PointIx) -> Option<Sample>) -> Self {
        let devices: Vec<_> = points.devices().filter(|(_, device)| within.takes(&device.place)).collect();
        let of = devices.len();
        let end = (page.from as usize).saturating_add(page.limit);
        let rows = devices
            .into_iter()
            .skip(page.from as usize)
            .take(page.limit)
            .map(|(_, device)| DeviceRow::of(points, device, &latest))
            .collect();
        Self { rows, next: u32::try_from(end).ok().filter(|_| end < of), of }
    }
}

/// A device that spoke and that nobody has put into the site.
#[derive(Clone, Debug, PartialEq)]
pub struct Quarantined {
    /// The `[[mqtt]]` id it came through.
    pub source: Arc<str>,
    /// What it calls itself.
    pub device: String,
    /// The last topic.
    pub topic: String,
    /// Start of its last payload, as text.
    pub excerpt: String,
    pub messages: u64,
    pub first: Wall,
    pub last: Wall,
}

/// A device in the quarantine, and the profiles that it may be of.
#[derive(Clone, Debug)]
pub struct Stranger {
    pub row: Quarantined,
    /// What its mapping would take it for.
    pub profile: Option<Arc<str>>,
    pub profiles: Profiles,
}

/// How anmin stands as a whole.
#[derive(Clone, Debug, Default)]
pub struct Status {
    pub now: Wall,
    pub uptime: Duration,
    pub counts: Counts,
    /// Drills that are on, the oldest first.
    pub drills: Vec<Arc<Drill>>,
    /// Walk tests that are on.
    pub walks: Vec<Arc<Walk>>,
    pub readings: ReadingCounts,
    /// What became of those that were evaluated.
    pub stored: Stored,
    pub points: usize,
    pub devices: usize,
    pub quarantined: usize,
    pub rules: usize,
    /// Rules that could not be loaded or that fail.
    pub broken_rules: Vec<String>,
    /// What is ill now, gravest first.
    pub troubles: Vec<Trouble>,
    /// Orders that no way out has taken yet.
    pub orders_waiting: usize,
    /// The same of each way out, also of those that owe nothing.
    pub ways_out: Vec<WayOut>,
    /// Readings that the database has not taken yet.
    pub readings_waiting: usize,
    pub journal: JournalState,
    /// Times that a broker had lost our session, and messages with it, perhaps.
    pub possible_losses: u64,
    /// The wall clock cannot be believed; see [`super::clock_trust`].
    pub clock_doubtful: bool,
    /// One for each `[[influx]]`.
    pub databases: Vec<Database>,
    /// Stretches that were dropped before every database had them; the newest first, not all of them.
    pub gaps: u64,
    pub newest_gaps: Vec<Gap>,
    pub self_test: Seen,
    /// What residents ask for.
    pub help: HelpCalls,
}

impl Status {
    /// As much of it as concerns some places, of whose real alarms so many calls are live: what is open there. Drills are for
    /// everybody to know. Of other places and of readings as a whole it says nothing, of anmin's own parts
    /// only where what has no place is among them.
    pub fn within(self, places: &Places, alarms: &[Arc<Alarm>], live_calls: usize, points: &Points) -> Self {
        let (real, drilled): (Vec<_>, Vec<_>) = alarms.iter().partition(|alarm| alarm.drill.is_none());
        let mut counts = Counts {
            open: real.len(),
            live_calls,
            drills: self.counts.drills,
            drill_alarms: drilled.len(),
            ..Counts::default()
        };
        for alarm in &real {
            let state = alarm.state();
            counts.by_state[AlarmState::ALL.iter().position(|each| *each == state).unwrap_or(0)] += 1;
            if !alarm.is_silenced() {
                counts.by_level[alarm.level as usize] += 1;
            }
        }
        counts.incidents = real.iter().filter_map(|alarm| alarm.incident).collect::<BTreeSet<_>>().len();
        let (mut devices, mut of_points) = (0, 0);
        for (_, device) in points.devices().filter(|(_, device)| places.takes(&device.place)) {
            devices += 1;
            of_points += device.points().count();
        }
        Self {
            now: self.now,
            uptime: self.uptime,
            counts,
            drills: self.drills,
            walks: self.walks,
            points: of_points,
            devices,
            rules: self.rules,
            clock_doubtful: self.clock_doubtful,
            self_test: self.self_test,
            troubles: if places.takes(&Place::default()) { self.troubles } else { Vec::new() },
            ..Self::default()
        }
    }
}

/// What a way out owes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WayOut {
    pub id: Arc<str>,
    /// Orders that it has not taken yet.
    pub waiting: usize,
}

/// How far a database is with the readings that wait for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Database {
    /// The id of the `[[influx]]`.
    pub id: Arc<str>,
    pub waiting: u64,
    /// What the queue holds for it on disk.
    pub bytes: u64,
    /// Time of the oldest reading that waits.
    pub oldest: Option<Wall>,
    /// Readings a second that it has taken lately.
    pub rate: f64,
    /// Nothing where it keeps up; `None` where what waits does not grow less.
    pub catch_up: Option<Duration>,
    /// Readings given up in this run before it had them.
    pub dropped: u64,
}

/// How the journal stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalState {
    /// Transitions, call changes, orders and results that wait in memory for it.
    pub unwritten: usize,
    /// ... and those that never reached it since the start.
    pub dropped: u64,
    /// Commits since the start: each waited for the disk.
    pub commits: u64,
    /// The room kept for the day when the disk is full is there.
    pub reserve: bool,
}

/// Since the start. `received = evaluated + duplicate + quarantined + rejected`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadingCounts {
    /// Readings, and messages that gave none.
    pub received: u64,
    pub evaluated: u64,
    pub duplicate: u64,
    pub quarantined: u64,
    /// Payloads that could not be understood.
    pub rejected: u64,
    /// Made here, because a point fell silent.
    pub silent: u64,
    /// Messages that devices have counted and that did not come.
    pub missing: u64,
    /// Messages that were delivered again and had been judged.
    pub repeated: u64,
}

#[derive(Clone, Debug)]
pub struct Trouble {
    pub part: Arc<str>,
    pub level: Level,
    pub message: Text,
}

/// The words of [`AlarmFilter::class`].
pub fn is_class(word: &str) -> bool {
    Hazard::ALL.into_iter().map(Class::Hazard).chain([Class::System]).any(|c| c.as_str() == word)
}

#[cfg(test)]
mod tests {
    use anmin_sensors::point::PointSpec;
    use anmin_sensors::reading::{Fault, Value};
    use anmin_sensors::time::Now;

    use super::*;
    use crate::samples;

    /// Ten gas detectors in two buildings; every third value is bad, the last was never heard of.
    fn site() -> (Points, impl Fn(PointIx) -> Option<Sample>) {
        let mut points = Points::default();
        let gas = Kind::named("gas.lel").expect("gas.lel is a kind");
        let battery = Kind::named("device.battery").expect("device.battery is a kind");
        let specs = [PointSpec::plain("lel", gas), PointSpec::plain("battery", battery)].map(Arc::new);
        for n in 0..10 {
            let building = if n < 5 { "1" } else { "2" };
            let place = Arc::new(Place { building: building.to_owned(), ..Place::default() });
            points.add(DeviceId::new(format!("g{n}")), None, &Arc::from("p"), &place, &specs).expect("new device");
        }
        let latest = |ix: PointIx| {
            (ix.0 != 19).then(|| Sample {
                point: ix,
                value: Some(Value::Number(1.0)),
                quality: if ix.0.is_multiple_of(3) { Quality::Bad(Fault::Comms) } else { Quality::Good },
                time: Wall::from_millis(i64::from(ix.0)),
                source_time: None,
                received: Now { wall: Wall::from_millis(i64::from(ix.0)), ..Now::default() },
                sequence: None,
                news: true,
            })
        };
        (points, latest)
    }

    /// Whoever sees some places only knows a drill for one, and takes none of its alarms for real.
    #[test]
    fn a_status_of_some_places_tells_drills_from_what_is_real() {
        use anmin_rules::drill::{DrillId, Scope};
        let id = DrillId(uuid::Uuid::from_u128(9));
        let drill = Arc::new(Drill {
            id,
            seq: 1,
            name: String::new(),
            scope: Scope::default(),
            announced: true,
            by: "li".to_owned(),
            started_at: Wall::default(),
            ends_at: Wall::from_millis(1),
            alarms: 1,
            end: None,
        });
        let whole = Status {
            drills: vec![Arc::clone(&drill)],
            counts: Counts { drills: 1, drill_alarms: 3, open: 7, ..Counts::default() },
            ..Status::default()
        };
        let real = samples::alarm();
        let alarms = [Arc::new(Alarm { drill: Some(id), ..real.clone() }), Arc::new(real)];
        let Status { drills, counts, .. } = whole.within(&Places::EVERYWHERE, &alarms, 1, &Points::default());
        assert_eq!(drills, [drill]);
        assert_eq!((counts.drills, counts.drill_alarms, counts.open, counts.live_calls), (1, 1, 1, 1));
        assert_eq!(counts.by_level.iter().sum::<usize>(), 1);
    }

    #[test]
    fn pages_walk_all_points_once_and_filters_hold() {
        let (points, latest) = site();
        let filters: [(&str, PointFilter, usize); 6] = [
            ("all", PointFilter::default(), 20),
            ("kind", PointFilter { kind: Kind::named("gas.lel"), ..Default::default() }, 10),
            ("building", PointFilter { building: Some("2".into()), ..Default::default() }, 10),
            ("device", PointFilter { device: Some(DeviceId::new("g3")), ..Default::default() }, 2),
            ("quality", PointFilter { quality: Some(QualityIs::NotGood), ..Default::default() }, 8),
            ("text", PointFilter { text: Some("g7/".into()), ..Default::default() }, 2),
        ];
        for (name, filter, expected) in filters {
            for limit in [1, 3, 100] {
                let (mut seen, mut from) = (Vec::new(), Some(0));
                while let Some(at) = from {
                    let page = PointPage::select(&points, &filter, Page { from: at, limit }, &latest);
                    assert!(page.rows.len() <= limit, "{name}");
                    seen.extend(page.rows.into_iter().map(|row| row.id));
                    from = page.next;
                }
                seen.dedup();
                assert_eq!(seen.len(), expected, "{name} by {limit}");
            }
        }
    }

    /// Alarms of every level, some raised at one moment; between two pages one that was shown ends and a grave one comes.
    #[test]
    fn alarms_are_paged_gravest_and_oldest_first_and_none_is_left_out_because_another_ends() {
        let none = |_| Vec::new();
        let alarm = |n: u128| {
            let level = Level::ALL[n as usize % 4];
            let raised_at = Wall::from_millis(n as i64 / 8);
            Arc::new(Alarm { id: AlarmId(uuid::Uuid::from_u128(n)), level, raised_at, ..samples::alarm() })
        };
        let mut alarms: Vec<Arc<Alarm>> = (0..40).map(alarm).collect();
        let all = AlarmPage { after: None, limit: 1_000 };
        let key = |alarm: &Arc<Alarm>| (Reverse(alarm.level), alarm.raised_at, alarm.id);
        let whole = AlarmList::select(&AlarmFilter::default(), all, alarms.clone(), none);
        assert!(whole.alarms.is_sorted_by_key(key));
        assert_eq!((whole.alarms.len(), whole.of, whole.next), (40, 40, None));
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = AlarmPage { after, limit: 7 };
            let list = AlarmList::select(&AlarmFilter::default(), page, alarms.clone(), none);
            seen.extend(list.alarms.iter().map(|alarm| alarm.id));
            if seen.len() == 7 {
                alarms.retain(|alarm| alarm.id != seen[3]);
                alarms.push(Arc::new(Alarm { level: Level::Red, ..(*alarm(99)).clone() }));
            }
            let Some(next) = list.next else { break };
            assert_eq!(next.to_string().parse(), Ok(next), "it survives the way to the client and back");
            after = Some(next);
        }
        let wanted: Vec<AlarmId> = whole.alarms.iter().map(|alarm| alarm.id).collect();
        assert_eq!(seen.iter().filter(|id| id.0.as_u128() < 40).copied().collect::<Vec<_>>(), wanted);
        for text in ["", "red", "red.1", "red.1.x", "purple.1.0195506b-f3c0-7000-8000-000000000001"] {
            assert_eq!(text.parse::<AlarmCursor>(), Err(()), "{text:?}");
        }
        let first = AlarmFilter { min_level: Some(Level::Red), ..AlarmFilter::default() };
        let list = AlarmList::select(&first, AlarmPage { after: None, limit: 9 }, alarms, none);
        assert_eq!((list.alarms.len(), list.of), (9, 10), "`of` counts what the filter takes");
        assert!(list.next.is_some());
    }

    #[test]
    fn choices_are_what_is_there_and_nothing_else() {
        let (points, _) = site();
        let choices = PointChoices::of(&points, &Places::EVERYWHERE);
        let kinds: Vec<&str> = choices.kinds.iter().map(|kind| kind.as_str()).collect();
        assert_eq!((choices.buildings, kinds), (vec!["1".into(), "2".into()], vec!["gas.lel", "device.battery"]));
        assert_eq!(PointChoices::of(&Points::default(), &Places::EVERYWHERE), PointChoices::default());
    }

    #[test]
    fn what_is_taken_in_while_the_pages_are_turned_comes_behind_and_nothing_comes_twice_or_is_missed() {
        let (mut points, _) = site();
        let silent = |_: PointIx| None;
        let gas = Kind::named("gas.lel").expect("gas.lel is a kind");
        let spec = [Arc::new(PointSpec::plain("lel", gas))];
        // The new ones are sorted before all others, and stand in the building that is asked for.
        let place = Arc::new(Place { building: "1".to_owned(), ..Place::default() });
        let (mut of_points, mut of_devices) = (Vec::new(), Vec::new());
        let (mut point_at, mut device_at) = (Some(0), Some(0));
        for n in 0.. {
            if point_at.is_none() && device_at.is_none() {
                break;
            }
            let within = Places::of(["1".to_owned()]);
            if let Some(from) = point_at {
                let filter = PointFilter { within: within.clone(), ..PointFilter::default() };
                let page = PointPage::select(&points, &filter, Page { from, limit: 3 }, silent);
                of_points.extend(page.rows.iter().map(|row| row.id.to_string()));
                point_at = page.next;
            }
            if let Some(from) = device_at {
                let page = DevicePage::select(&points, &within, Page { from, limit: 2 }, silent);
                of_devices.extend(page.rows.iter().map(|row| row.id.to_string()));
                device_at = page.next;
            }
            if n < 2 {
                let id = DeviceId::new(format!("a{n}"));
                points.add(id, None, &Arc::from("p"), &place, &spec).expect("new device");
            }
        }
        let old: Vec<String> = (0..5).flat_map(|n| [format!("g{n}/lel"), format!("g{n}/battery")]).collect();
        assert_eq!(of_points, [old, vec!["a0/lel".to_owned(), "a1/lel".to_owned()]].concat());
        assert_eq!(of_devices, ["g0", "g1", "g2", "g3", "g4", "a0", "a1"]);
    }

    #[test]
    fn devices_say_when_they_were_last_heard() {
        let (points, latest) = site();
        let page = DevicePage::select(&points, &Places::EVERYWHERE, Page { from: 8, limit: 5 }, &latest);
        assert_eq!((page.rows.len(), page.next, page.of), (2, None, 10));
        assert_eq!(page.rows[0].heard, Some(Wall::from_millis(17)));
        assert_eq!(page.rows[1].heard, Some(Wall::from_millis(18)), "its other point was never heard of");
        assert_eq!(DevicePage::select(&points, &Places::EVERYWHERE, Page { from: 0, limit: 4 }, &latest).next, Some(4));
    }
}
