//! Drills: the whole way from an alarm to people on the ground, played on purpose.
//!
//! Each drill has a watch of its own (alarm book, incidents, response desk), made like the real one and sharing nothing with
//! it but the stations' names and the ways out. So its alarms cannot hide, clear, delay, acknowledge or join a real one, nor
//! one of another drill, whatever anybody commands: there is no book in which the two could meet. What it raises comes by
//! command alone; readings never reach it, so a real danger inside the drill's area is real, always.
//!
//! Everything that a drill says is marked at birth: its alarms and incidents name the [`DrillId`], and their words begin with
//! [`MARK_ZH`] or [`MARK_EN`], so that even what forwards only text passes the mark on.
//!
//! A drill ends by itself. Its end closes its alarms, stands down its crews and closes its incidents as [`Outcome::Drill`].

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anmin_sensors::point::{Form, Hazard, Kind, Place, PointId, PointIx, Points};
use anmin_sensors::reading::Value;
use anmin_sensors::time::{Mono, Now, Wall};

use crate::alarm::{Action, Alarm, AlarmId, Command, Refusal};
use crate::book::ANMIN;
use crate::duty::DutyChange;
use crate::engine::{Effect, Watch};
use crate::incident::{Incident, IncidentAction, IncidentId, Outcome, Situation};
use crate::order::Call;
use crate::response::{Callable, DeskSettings};
use crate::rule::{Evidence, Finding, Judged, Level, RuleId, RuleIx, RuleSpec, Text, Tuning, Verdict};
use crate::set::RuleSet;

/// What the words of a drill begin with.
pub const MARK_ZH: &str = "【演练】";
pub const MARK_EN: &str = "[DRILL] ";

/// How long a drill lasts where nobody says it.
pub const USUAL: Duration = Duration::from_secs(3600);
/// And at most.
pub const MOST: Duration = Duration::from_secs(4 * 3600);
/// Drills at one time.
pub const MOST_AT_ONCE: usize = 8;
/// Alarms of one drill.
pub const MOST_ALARMS: u32 = 100;

/// UUIDv7, given by whoever starts it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DrillId(pub uuid::Uuid);

impl fmt::Display for DrillId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for DrillId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The same words, marked as a drill's.
pub(crate) fn marked(text: Text) -> Text {
    let Text { zh, en } = text;
    let with = |mark: &str, words: String| match words.is_empty() || words.starts_with(mark) {
        true => words,
        false => format!("{mark}{words}"),
    };
    Text { zh: with(MARK_ZH, zh), en: with(MARK_EN, en) }
}

/// A drill's words without their mark, for what sets a mark of its own before them.
pub fn unmarked(text: &str) -> &str {
    text.strip_prefix(MARK_ZH).or_else(|| text.strip_prefix(MARK_EN)).unwrap_or(text)
}

/// Where a drill is: what is empty is not asked for, so the default is the whole site.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// The id of a `[[place]]`.
    pub area: String,
    pub grid: String,
    pub building: String,
}

impl Scope {
    pub fn covers(&self, place: &Place) -> bool {
        let fits = |wanted: &String, is: &String| wanted.is_empty() || wanted == is;
        fits(&self.area, &place.area) && fits(&self.grid, &place.grid) && fits(&self.building, &place.building)
    }

    pub fn text(&self) -> Text {
        let Self { area, grid, building } = self;
        let place = Place { area: area.clone(), building: building.clone(), ..Place::default() };
        let placed = !(area.is_empty() && building.is_empty());
        let join =
            |parts: [Option<String>; 2], between: &str| parts.into_iter().flatten().collect::<Vec<_>>().join(between);
        let grid = |word: String| (!grid.is_empty()).then_some(word);
        let zh = join([grid(format!("网格{}", self.grid)), placed.then(|| place.zh())], "");
        let en = join([placed.then(|| place.en()), grid(format!("grid {}", self.grid))], ", ");
        match zh.is_empty() {
            true => Text { zh: "全站".to_owned(), en: "the whole site".to_owned() },
            false => Text { zh, en },
        }
    }
}

/// One drill, whole but for its alarms and incidents, which name it themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drill {
    pub id: DrillId,
    /// Number of its changes so far; the first is 1.
    pub seq: u32,
    /// What it is called; may be empty.
    pub name: String,
    pub scope: Scope,
    /// Whether those who are called were told of it before.
    pub announced: bool,
    pub by: String,
    pub started_at: Wall,
    /// When it ends by itself.
    pub ends_at: Wall,
    /// Alarms that were raised in it by command.
    pub alarms: u32,
    pub end: Option<DrillEnd>,
}

impl Drill {
    pub fn is_on(&self) -> bool {
        self.end.is_none()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrillEnd {
    pub at: Wall,
    /// `anmin` where its time was over.
    pub by: String,
}

/// Why a drill changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrillCause {
    Started,
    /// An alarm was raised in it.
    Raised,
    Ended,
}

impl DrillCause {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Raised => "raised",
            Self::Ended => "ended",
        }
    }
}

/// One change of one drill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrillChange {
    pub at: Wall,
    pub cause: DrillCause,
    /// As it stands after the change.
    pub drill: Arc<Drill>,
}

/// An alarm to be raised in a drill, as if the point had said so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrillAlarm {
    pub target: Target,
    /// `None`: the highest that the rule has a limit for, else red.
    pub level: Option<Level>,
}

/// The point that a drill's alarm is about: a real one, inside the drill's scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Point(PointId),
    /// The first point of this kind; floor and room where they are not empty.
    Kind {
        kind: Kind,
        floor: String,
        room: String,
    },
}

/// What somebody does with a drill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrillCommand {
    pub who: String,
    pub drill: DrillId,
    pub what: DrillAction,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DrillAction {
    Start { scope: Scope, lasts: Duration, name: String, announced: bool, alarms: Vec<DrillAlarm> },
    Raise { alarms: Vec<DrillAlarm> },
    End,
}

/// A story that is told often enough to have a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scenario {
    pub name: &'static str,
    pub zh: &'static str,
    pub en: &'static str,
    /// What speaks, and how gravely; a kind that the place does not have is left out as long as another is there.
    pub alarms: &'static [(&'static str, Level)],
}

impl Scenario {
    pub const ALL: [Self; 5] = [
        Self {
            name: "kitchen-gas",
            zh: "厨房燃气泄漏",
            en: "Gas leak in a kitchen",
            alarms: &[("gas.lel", Level::Red)],
        },
        Self {
            name: "corridor-smoke",
            zh: "楼道烟雾",
            en: "Smoke in a corridor",
            alarms: &[("fire.smoke", Level::Red), ("fire.temperature", Level::Red)],
        },
        Self {
            name: "electrical-fire",
            zh: "电气火灾",
            en: "Electrical fire",
            alarms: &[("power.cable_temperature", Level::Red), ("fire.smoke", Level::Red)],
        },
        Self { name: "flood", zh: "积水内涝", en: "Rising water", alarms: &[("flood.level", Level::Red)] },
        Self { name: "sos", zh: "居民求助", en: "A resident calls for help", alarms: &[("care.sos", Level::Red)] },
    ];

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scenario| scenario.name == name)
    }
}

/// The rules and points that a drill's alarms are taken from.
pub(crate) struct Site<'a> {
    pub rules: &'a RuleSet,
    pub specs: &'a [Arc<RuleSpec>],
    pub points: &'a Points,
    /// Who is on duty: a drill calls whom the real thing would have called when it began.
    pub duty: &'a [DutyChange],
}

/// All drills that are on.
pub(crate) struct DrillDesk {
    runs: BTreeMap<DrillId, Run>,
    settings: DeskSettings,
    seed: u64,
    effects: VecDeque<Effect>,
}

struct Run {
    drill: Arc<Drill>,
    due: Mono,
    watch: Watch,
}

/// What the journal holds of one drill.
#[derive(Default)]
pub(crate) struct Kept {
    pub alarms: Vec<Arc<Alarm>>,
    pub calls: Vec<Call>,
    pub incidents: Vec<Arc<Incident>>,
}

/// An alarm of a drill, found in the site.
struct Found {
    rule: RuleIx,
    point: PointIx,
    level: Level,
}

impl DrillDesk {
    pub fn new(settings: &DeskSettings, seed: u64) -> Self {
        Self { runs: BTreeMap::new(), settings: of_drills(settings), seed, effects: VecDeque::new() }
    }

    pub fn set_clock_doubtful(&mut self, doubtful: bool) {
        self.runs.values_mut().for_each(|run| run.watch.set_clock_doubtful(doubtful));
    }

    /// For the drills that start from now on, and for what those that are on will do.
    pub fn set_settings(&mut self, now: Now, settings: &DeskSettings) {
        self.settings = of_drills(settings);
        for run in self.runs.values_mut() {
            run.watch.set_settings(now, self.settings.clone());
        }
        self.drain();
    }

    /// What people said of the stations in the last run.
    pub fn restore_duty(&mut self, now: Now, duty: &[DutyChange]) {
        self.runs.values_mut().for_each(|run| run.watch.restore_duty(now, duty.to_vec()));
        self.drain();
    }

    fn watch(&self, id: DrillId) -> Watch {
        let bits = id.0.as_u128();
        Watch::of_drill(self.settings.clone(), self.seed ^ (bits ^ (bits >> 64)) as u64, id)
    }

    /// Takes up the drills that were on. They end when they were to end: `known` is the latest moment that the last run
    /// wrote down, and no clock that was set back since makes them longer.
    pub fn restore(&mut self, now: Now, known: Option<Wall>, drills: Vec<Arc<Drill>>) {
        for drill in drills.into_iter().filter(|drill| drill.is_on()) {
            if self.runs.contains_key(&drill.id) {
                continue;
            }
            let from = known.map_or(now.wall, |known| known.max(now.wall));
            let left = drill.ends_at.since(from).min(drill.ends_at.since(drill.started_at)).min(MOST);
            let run = Run { due: now.mono.plus(left), watch: self.watch(drill.id), drill };
            self.runs.insert(run.drill.id, run);
        }
    }

    /// Takes up what the journal holds of one drill. One that nobody knows to be on is over: its alarms are closed.
    pub fn restore_run<'s>(
        &mut self,
        now: Now,
        id: DrillId,
        Kept { alarms, calls, incidents }: Kept,
        find: impl Fn(&RuleId) -> Option<&'s Arc<RuleSpec>>,
    ) {
        if let Some(run) = self.runs.get_mut(&id) {
            run.watch.restore(now, &alarms, calls, incidents, find);
        } else {
            let mut watch = self.watch(id);
            watch.restore(now, &alarms, calls, incidents, find);
            watch.finish(now);
            drain(&mut watch, &mut self.effects);
        }
        self.drain();
    }

    pub fn handle(&mut self, now: Now, site: &Site<'_>, command: &DrillCommand) -> Result<(), Refusal> {
        let id = command.drill;
        match &command.what {
            DrillAction::Start { scope, lasts, name, announced, alarms } => {
                self.may_start(id, scope, *lasts)?;
                has_room(0, alarms.len())?;
                let found = find_all(site, scope, alarms)?;
                let drill = Arc::new(Drill {
                    id,
                    seq: 0,
                    name: name.clone(),
                    scope: scope.clone(),
                    announced: *announced,
                    by: command.who.clone(),
                    started_at: now.wall,
                    ends_at: now.wall.plus(*lasts),
                    alarms: 0,
                    end: None,
                });
                let mut watch = self.watch(id);
                watch.restore_duty(now, site.duty.to_vec());
                let run = Run { drill, due: now.mono.plus(*lasts), watch };
                self.runs.insert(id, run);
                self.change(now, id, DrillCause::Started, |_| {});
                self.raise(now, site, id, &found);
                Ok(())
            }
            DrillAction::Raise { alarms } => {
                let drill = &self.run(id)?.drill;
                has_room(drill.alarms, alarms.len())?;
                let found = find_all(site, &drill.scope, alarms)?;
                self.raise(now, site, id, &found);
                Ok(())
            }
            DrillAction::End => {
                self.run(id)?;
                self.end(now, id, &command.who);
                Ok(())
            }
        }
    }

    fn may_start(&self, id: DrillId, scope: &Scope, lasts: Duration) -> Result<(), Refusal> {
        if lasts.is_zero() || lasts > MOST {
            let hours = MOST.as_secs() / 3600;
            return Err(Refusal::not_allowed(
                format!("演练时长须大于零，最多 {hours} 小时"),
                format!("a drill lasts {hours} hours at most, and longer than nothing"),
            ));
        }
        if self.runs.len() >= MOST_AT_ONCE {
            return Err(Refusal::not_allowed(
                format!("同时最多进行 {MOST_AT_ONCE} 次演练"),
                format!("{MOST_AT_ONCE} drills are on, which is as many as there can be"),
            ));
        }
        if self.runs.contains_key(&id) || self.runs.values().any(|run| run.drill.scope == *scope) {
            let Text { zh, en } = scope.text();
            return Err(Refusal::not_allowed(format!("{zh}正在演练"), format!("a drill is on for {en} already")));
        }
        Ok(())
    }

    fn raise(&mut self, now: Now, site: &Site<'_>, id: DrillId, found: &[Found]) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        for Found { rule, point, level } in found {
            let spec = &site.specs[rule.0 as usize];
            let tuning = Tuning { on_delay: Duration::ZERO, ..site.rules.tuning(*rule, *point).clone() };
            let judged = judged(now, site.points, spec, &tuning, *rule, *point, *level);
            run.watch.raise_by_hand(now, site.points, spec, &tuning, &judged);
        }
        if !found.is_empty() {
            self.change(now, id, DrillCause::Raised, |drill| drill.alarms += found.len() as u32);
        }
        self.drain();
    }

    fn end(&mut self, now: Now, id: DrillId, by: &str) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        run.watch.finish(now);
        self.drain();
        self.change(now, id, DrillCause::Ended, |drill| {
            drill.end = Some(DrillEnd { at: now.wall, by: by.to_owned() });
        });
        self.runs.remove(&id);
    }

    fn change(&mut self, now: Now, id: DrillId, cause: DrillCause, how: impl FnOnce(&mut Drill)) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let drill = Arc::make_mut(&mut run.drill);
        how(drill);
        drill.seq += 1;
        let change = DrillChange { at: now.wall, cause, drill: Arc::clone(&run.drill) };
        self.effects.push_back(Effect::Drill(Arc::new(change)));
    }

    /// Fires every timer that is due, and ends what is over.
    pub fn fire(&mut self, now: Now) {
        let ids: Vec<DrillId> = self.runs.keys().copied().collect();
        for id in ids {
            let run = self.runs.get_mut(&id).expect("listed above; only `end` removes, and each once");
            // What would have come after the end does not come.
            if run.due > now.mono || run.watch.poll_timeout().is_some_and(|next| next < run.due) {
                run.watch.fire(now);
            }
            if run.due <= now.mono {
                self.end(now, id, ANMIN);
            }
        }
        self.drain();
    }

    /// A command about an alarm or incident of a drill; `None` when it is about none.
    pub fn handle_command(&mut self, now: Now, command: &Command) -> Option<Result<(), Refusal>> {
        let (mine, other) = match &command.what {
            Action::Incident { incident, what } => {
                let other = match what {
                    IncidentAction::MergeInto { into } => Some(*into),
                    _ => None,
                };
                (self.of_incident(*incident), other)
            }
            action => (self.of_alarm(action.alarm()?), None),
        };
        if let Some(other) = other
            && self.of_incident(other) != mine
        {
            return Some(Err(Refusal::not_allowed(
                "演练事件只能并入同一次演练的事件",
                "a drill's incident and any other never become one",
            )));
        }
        let run = self.runs.get_mut(&mine?)?;
        let result = run.watch.handle_command(now, command);
        self.drain();
        Some(result)
    }

    fn of_alarm(&self, id: AlarmId) -> Option<DrillId> {
        self.runs.iter().find(|(_, run)| run.watch.alarm(id).is_some()).map(|(drill, _)| *drill)
    }

    fn of_incident(&self, id: IncidentId) -> Option<DrillId> {
        self.runs.iter().find(|(_, run)| run.watch.incident(id).is_some()).map(|(drill, _)| *drill)
    }

    fn run(&self, id: DrillId) -> Result<&Run, Refusal> {
        self.runs.get(&id).ok_or(Refusal::NoSuchDrill(id))
    }

    fn drain(&mut self) {
        for run in self.runs.values_mut() {
            drain(&mut run.watch, &mut self.effects);
        }
    }

    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    pub fn poll_timeout(&self) -> Option<Mono> {
        self.runs.values().flat_map(|run| [Some(run.due), run.watch.poll_timeout()]).flatten().min()
    }

    /// The oldest first.
    pub fn drills(&self) -> impl ExactSizeIterator<Item = &Arc<Drill>> {
        self.runs.values().map(|run| &run.drill)
    }

    pub fn alarm(&self, id: AlarmId) -> Option<&Arc<Alarm>> {
        self.runs.values().find_map(|run| run.watch.alarm(id))
    }

    pub fn alarms(&self) -> impl Iterator<Item = Arc<Alarm>> {
        self.runs.values().flat_map(|run| run.watch.alarms())
    }

    pub fn incidents(&self) -> impl Iterator<Item = &Arc<Incident>> {
        self.runs.values().flat_map(|run| run.watch.incidents())
    }

    pub fn situation(&self, id: IncidentId) -> Option<Situation> {
        self.runs.values().find_map(|run| run.watch.situation(id))
    }

    pub fn calls_of(&self, id: AlarmId) -> impl Iterator<Item = &Call> {
        self.runs.values().flat_map(move |run| run.watch.calls_of(id))
    }

    pub fn callable(&self, id: AlarmId) -> Option<Vec<Callable>> {
        self.runs.values().find_map(|run| run.watch.callable(id))
    }

    pub fn last_escalation(&self, alarm: &Alarm) -> u32 {
        self.runs
            .values()
            .find(|run| run.watch.alarm(alarm.id).is_some())
            .map_or(1, |run| run.watch.last_escalation(alarm))
    }

    pub fn sirens(&self) -> impl Iterator<Item = (&Arc<str>, Mono)> {
        self.runs.values().flat_map(|run| run.watch.sirens())
    }
}

/// A condition whose delay runs would stand under the same rule and point as the real one: a drill's is forgotten.
fn drain(watch: &mut Watch, effects: &mut VecDeque<Effect>) {
    while let Some(effect) = watch.poll_effect() {
        if !matches!(effect, Effect::Pending(_)) {
            effects.push_back(effect);
        }
    }
}

/// A way out may be kept for what is real.
fn of_drills(settings: &DeskSettings) -> DeskSettings {
    let mut settings = settings.clone();
    settings.channels.retain(|channel| channel.drills);
    settings
}

/// Before anything is looked for: what is real waits behind it.
fn has_room(before: u32, more: usize) -> Result<(), Refusal> {
    if u32::try_from(more).is_ok_and(|more| before.saturating_add(more) <= MOST_ALARMS) {
        return Ok(());
    }
    let (zh, en) = (format!("一次演练最多 {MOST_ALARMS} 条报警"), format!("a drill has {MOST_ALARMS} alarms at most"));
    Err(Refusal::not_allowed(zh, en))
}

fn find_all(site: &Site<'_>, scope: &Scope, alarms: &[DrillAlarm]) -> Result<Vec<Found>, Refusal> {
    alarms.iter().map(|alarm| find(site, scope, alarm)).collect()
}

fn find(site: &Site<'_>, scope: &Scope, alarm: &DrillAlarm) -> Result<Found, Refusal> {
    let here = |point: PointIx| scope.covers(&site.points.device_of(point).place);
    let points: Vec<PointIx> = match &alarm.target {
        Target::Point(id) => {
            let Some(point) = site.points.find(id.as_str()) else {
                return Err(Refusal::not_allowed(format!("没有测点 {id}"), format!("there is no point {id}")));
            };
            if !here(point) {
                let Text { zh, en } = scope.text();
                return Err(Refusal::not_allowed(
                    format!("测点 {id} 不在演练范围（{zh}）内"),
                    format!("point {id} lies outside the drill's area, {en}"),
                ));
            }
            vec![point]
        }
        Target::Kind { kind, floor, room } => {
            let fits = |wanted: &String, is: &String| wanted.is_empty() || wanted == is;
            let all = site.points.iter().filter(|(_, point)| point.spec.kind == *kind).map(|(ix, _)| ix);
            all.filter(|ix| {
                let place = &site.points.device_of(*ix).place;
                here(*ix) && fits(floor, &place.floor) && fits(room, &place.room)
            })
            .collect()
        }
    };
    let found = points.into_iter().find_map(|point| Some((point, rule_on(site, point, alarm.level)?)));
    let Some((point, (rule, level))) = found else {
        let Text { zh, en } = scope.text();
        let (what_zh, what_en) = match &alarm.target {
            Target::Point(id) => (id.to_string(), id.to_string()),
            Target::Kind { kind, floor, room } => {
                let place = Place { floor: floor.clone(), room: room.clone(), ..Place::default() };
                let within = !(floor.is_empty() && room.is_empty());
                let (zh, en) = if within { (place.zh(), format!(" on {}", place.en())) } else { Default::default() };
                (format!("{zh}{}", kind.info().zh), format!("{}{en}", kind.info().en))
            }
        };
        return Err(Refusal::not_allowed(
            format!("{zh}没有可用于演练的测点：{what_zh}（须有规则监视）"),
            format!("there is no point to drill with in {en}: {what_en}, watched by a rule"),
        ));
    };
    Ok(Found { rule, point, level })
}

/// The rule by which a point's drill alarm is raised: one about the danger that the point is there for, with a limit for the
/// level where one has it.
fn rule_on(site: &Site<'_>, point: PointIx, wanted: Option<Level>) -> Option<(RuleIx, Level)> {
    let hazard = site.points.point(point).spec.kind.info().hazard;
    let of = |rule: &RuleIx| site.specs[rule.0 as usize].hazard.unwrap_or(hazard);
    let judges = site.rules.rules_on(point).filter(|rule| site.rules.tuning(*rule, point).enabled);
    let fits = |rule: &RuleIx| of(rule) == hazard || hazard == Hazard::Device;
    let levels = |rule: RuleIx| site.specs[rule.0 as usize].limits.values().filter_map(|limit| limit.level);
    let rated = judges.filter(fits).map(|rule| {
        let highest = levels(rule).max();
        let level = wanted.or(highest).unwrap_or(Level::Red);
        (levels(rule).any(|known| known == level), highest.is_none(), rule, level)
    });
    let best = rated.min_by_key(|(has, plain, rule, _)| (!has, !plain, *rule))?;
    Some((best.2, best.3))
}

/// What the rule would have said of a reading that just reaches the level's limit.
fn judged(
    now: Now,
    points: &Points,
    spec: &RuleSpec,
    tuning: &Tuning,
    rule: RuleIx,
    subject: PointIx,
    level: Level,
) -> Judged {
    let point = points.point(subject);
    let info = point.spec.kind.info();
    let limits = spec.limits.iter().zip(&tuning.limits);
    let mut limit =
        limits.filter(|((_, limit), _)| limit.level == Some(level)).map(|((name, _), value)| (name.clone(), *value));
    let limit = limit.next_back();
    let value = match (&limit, info.form) {
        (Some((_, value)), Form::Number) => Some(Value::Number(*value)),
        (_, Form::Flag) => Some(Value::Flag(true)),
        _ => None,
    };
    let evidence = Evidence {
        point: Some(point.id.clone()),
        value,
        unit: info.unit.to_owned(),
        limit: limit.clone(),
        source_time: None,
        sequence: None,
        received: now.wall,
        grounds: None,
    };
    Judged { rule, subject, verdict: Verdict::Abnormal(Finding { level, limit, note: None }), evidence }
}

/// How an incident of a drill ends, whatever anybody says it was.
pub(crate) const fn outcome(of_drill: bool, said: Outcome) -> Outcome {
    match said {
        Outcome::Merged(_) => said,
        _ if of_drill => Outcome::Drill,
        _ => said,
    }
}

#[cfg(test)]
mod tests {
    use anmin_sensors::document::Faults;
    use anmin_sensors::point::{DeviceId, PointSpec};
    use anmin_sensors::reading::{Quality, Sample};

    use super::*;
    use crate::alarm::Transition;
    use crate::engine::{Counts, Engine};
    use crate::incident::FalseCause;
    use crate::library;
    use crate::order::{CallStep, Channel, ChannelForm, OrderBody, Station};

    fn start() -> Now {
        Now { mono: Mono::from_nanos(1_000_000_000), wall: Wall::from_millis(1_800_000_000_000) }
    }

    fn rules() -> RuleSet {
        let set = RuleSet::load(library::shipped(), Vec::new(), &Faults::default());
        assert_eq!(set.broken(), []);
        set
    }

    fn desk() -> DeskSettings {
        let station =
            |id: &str| Station { id: id.into(), name: Text::both(id), phone: String::new(), ..Station::default() };
        let channel = |id: &str, form, drills| Channel { system: true, drills, ..Channel::new(id, form, Level::Blue) };
        DeskSettings {
            stations: vec![station("one"), station("two")],
            channels: vec![
                channel("events", ChannelForm::Events, true),
                channel("cap", ChannelForm::Cap, true),
                channel("real-only", ChannelForm::Events, false),
            ],
            ..DeskSettings::default()
        }
    }

    fn points() -> Points {
        let mut points = Points::default();
        for (n, (building, floor, room)) in [("3", "5", "501"), ("3", "5", "502"), ("4", "1", "101")].iter().enumerate()
        {
            let place = Place {
                grid: "G1".to_owned(),
                building: (*building).to_owned(),
                unit: "1".to_owned(),
                floor: (*floor).to_owned(),
                room: (*room).to_owned(),
                ..Place::default()
            };
            let specs: Vec<_> = ["gas.lel", "fire.smoke", "care.sos", "flood.level"]
                .iter()
                .map(|kind| Arc::new(PointSpec::plain(&kind.replace('.', "_"), Kind::named(kind).expect("a kind"))))
                .collect();
            let id = DeviceId::new(format!("d{n}"));
            points.add(id, None, &"test".into(), &Arc::new(place), &specs).expect("each id is new");
        }
        points
    }

    fn engine(points: &Points, seed: u64) -> Engine {
        let mut engine = Engine::new(rules(), desk(), seed);
        engine.bind(points);
        engine
    }

    fn id(n: u128) -> DrillId {
        DrillId(uuid::Uuid::from_u128(n))
    }

    fn kitchen() -> DrillAction {
        let target =
            Target::Kind { kind: Kind::named("gas.lel").expect("a kind"), floor: "5".to_owned(), room: String::new() };
        DrillAction::Start {
            scope: Scope { building: "3".to_owned(), ..Scope::default() },
            lasts: USUAL,
            name: "quarter".to_owned(),
            announced: true,
            alarms: vec![DrillAlarm { target, level: None }],
        }
    }

    fn command(n: u128, what: DrillAction) -> DrillCommand {
        DrillCommand { who: "li".to_owned(), drill: id(n), what }
    }

    fn hear(engine: &mut Engine, points: &Points, at: Now, ix: PointIx, value: Value) {
        let sample = Sample {
            point: ix,
            value: Some(value),
            quality: Quality::Good,
            time: at.wall,
            source_time: None,
            received: at,
            sequence: None,
            news: true,
        };
        engine.handle_samples(at, points, &[sample]);
    }

    fn effects(engine: &mut Engine) -> Vec<Effect> {
        std::iter::from_fn(|| engine.poll_effect()).collect()
    }

    /// The drill that an effect is about; the error is one that carries both marks or none where it should.
    fn drill_of(effect: &Effect) -> Option<DrillId> {
        let of = |alarm: &Alarm| {
            let marked = alarm.title.zh.starts_with(MARK_ZH)
                && alarm.title.en.starts_with(MARK_EN)
                && alarm.message.zh.starts_with(MARK_ZH)
                && alarm.message.en.starts_with(MARK_EN);
            assert_eq!(alarm.drill.is_some(), marked, "words and tag agree: {alarm:?}");
            alarm.drill
        };
        match effect {
            Effect::Transition(transition) => of(&transition.alarm),
            Effect::Call(change) => {
                assert_eq!(change.alarm.drill.is_some(), change.message.zh.starts_with(MARK_ZH), "{change:?}");
                of(&change.alarm)
            }
            Effect::Incident(change) => {
                let incident = &change.incident;
                assert_eq!(incident.drill.is_some(), incident.title.zh.starts_with(MARK_ZH), "{incident:?}");
                if let Some(end) = &incident.end {
                    let is_drill = matches!(end.outcome, Outcome::Drill | Outcome::Merged(_));
                    assert!(incident.drill.is_none() || is_drill, "{incident:?}");
                    assert!(incident.drill.is_some() || end.outcome != Outcome::Drill, "{incident:?}");
                }
                incident.drill
            }
            Effect::Drill(change) => Some(change.drill.id),
            Effect::Order(order) => match &order.body {
                OrderBody::Event(transition) => of(&transition.alarm),
                OrderBody::Call(change) => of(&change.alarm),
                OrderBody::Cap(cap) => of(&cap.alarm),
                OrderBody::Siren(siren) => of(&siren.alarm),
            },
            Effect::Pending(_) | Effect::Duty(_) | Effect::Walk(_) => None,
        }
    }

    #[test]
    fn a_kitchen_gas_drill_is_marked_from_alarm_to_crew_and_ends_by_itself() {
        let points = points();
        let mut engine = engine(&points, 7);
        engine.handle_drill(start(), &points, &command(1, kitchen())).expect("nothing is on");
        let alarms = engine.alarms();
        let [alarm] = alarms.as_slice() else { panic!("{alarms:?}") };
        assert_eq!((alarm.level, alarm.subject.as_str(), alarm.drill), (Level::Red, "d0/gas_lel", Some(id(1))));
        assert!(alarm.message.zh.contains("501") && alarm.advice.en.starts_with(MARK_EN), "{alarm:?}");
        assert_eq!(engine.calls_of(alarm.id).len(), 1, "the station is called");
        assert_eq!(engine.counts().by_level, [0; 4], "nobody is in danger");
        assert_eq!((engine.counts().drills, engine.counts().drill_alarms), (1, 1));
        let said = effects(&mut engine);
        assert!(said.iter().all(|effect| drill_of(effect) == Some(id(1))), "{said:#?}");
        let to = |channel: &str| {
            said.iter().filter(|effect| matches!(effect, Effect::Order(order) if *order.channel == *channel)).count()
        };
        assert_eq!((to("events"), to("cap"), to("real-only")), (2, 1, 0));

        let again = engine.handle_drill(start(), &points, &command(2, kitchen()));
        assert!(matches!(again, Err(Refusal::NotAllowed(_))), "one at a time in one area");
        let accept = Action::Call { alarm: alarm.id, station: "one".to_owned(), step: CallStep::Accept };
        let later = start().plus(Duration::from_secs(20));
        engine.handle_command(later, Command { who: "wang".to_owned(), what: accept }).expect("it was called");

        let end = start().plus(USUAL);
        assert!(engine.poll_timeout().is_some_and(|due| due <= end.mono));
        engine.handle_timeout(end, &points);
        assert_eq!((engine.alarms().len(), engine.counts().drills), (0, 0));
        let said = effects(&mut engine);
        let ended = said.iter().filter_map(|effect| match effect {
            Effect::Drill(change) => change.drill.end.clone(),
            _ => None,
        });
        assert_eq!(ended.collect::<Vec<_>>(), [DrillEnd { at: end.wall, by: ANMIN.to_owned() }]);
        let stood_down = |effect: &Effect| matches!(effect, Effect::Call(change) if !change.call.is_live());
        assert!(said.iter().any(stood_down), "the crew is told that it is over");
        assert_eq!(engine.poll_timeout(), None, "nothing is left of it");
    }

    #[test]
    fn what_cannot_be_drilled_is_refused_whole() {
        let points = points();
        let mut engine = engine(&points, 7);
        let with = |lasts: u64, building: &str, target: Target| DrillAction::Start {
            scope: Scope { building: building.to_owned(), ..Scope::default() },
            lasts: Duration::from_secs(lasts),
            name: String::new(),
            announced: false,
            alarms: vec![DrillAlarm { target, level: None }],
        };
        let point = |id: &str| Target::Point(PointId::new(id));
        let kind = |name: &str, floor: &str| Target::Kind {
            kind: Kind::named(name).expect("a kind"),
            floor: floor.to_owned(),
            room: String::new(),
        };
        let many = match with(60, "3", point("d0/gas_lel")) {
            DrillAction::Start { scope, lasts, name, announced, alarms } => {
                let alarms = alarms.into_iter().cycle().take(MOST_ALARMS as usize + 1).collect();
                DrillAction::Start { scope, lasts, name, announced, alarms }
            }
            other => other,
        };
        for (what, words) in [
            (with(0, "3", point("d0/gas_lel")), "4 hours at most"),
            (with(4 * 3600 + 1, "3", point("d0/gas_lel")), "4 hours at most"),
            (with(60, "4", point("d0/gas_lel")), "lies outside the drill's area, Building 4"),
            (with(60, "3", point("nobody/x")), "there is no point nobody/x"),
            (with(60, "3", kind("gas.lel", "9")), "no point to drill with in Building 3"),
            (with(60, "3", kind("power.voltage", "")), "no point to drill with"),
            (many, "100 alarms at most"),
            (DrillAction::Raise { alarms: Vec::new() }, "no drill"),
            (DrillAction::End, "no drill"),
        ] {
            let refusal = engine.handle_drill(start(), &points, &command(1, what.clone())).expect_err("refused");
            assert!(refusal.to_string().contains(words), "{refusal} for {what:?}");
            assert!(!refusal.text().zh.is_ascii(), "in both languages");
            assert_eq!((effects(&mut engine).len(), engine.drills().len()), (0, 0), "{what:?}");
        }
    }

    #[test]
    fn a_restart_goes_on_with_the_drill_and_no_clock_makes_it_longer() {
        let points = points();
        for (set_back, known, left) in
            [(0, None, 3_000), (0, Some(600), 3_000), (1_800, Some(600), 3_000), (0, Some(4_000), 0)]
        {
            let mut before = engine(&points, 7);
            before.handle_drill(start(), &points, &command(1, kitchen())).expect("nothing is on");
            let (alarms, drills) = (before.alarms(), before.drills().cloned().collect::<Vec<_>>());
            let calls = before.calls_of(alarms[0].id);
            let incidents = before.incidents().cloned().collect();
            let mut at = start().plus(Duration::from_secs(600));
            at.wall = Wall::from_micros(at.wall.micros() - set_back * 1_000_000);
            let known = known.map(|seconds| start().wall.plus(Duration::from_secs(seconds)));
            let mut after = engine(&points, 8);
            after.restore_drills(at, known, drills);
            after.restore(at, alarms, calls, incidents);
            assert_eq!((after.counts().drill_alarms, after.counts().open), (1, 0));
            let end = at.plus(Duration::from_secs(left));
            if left > 0 {
                after.handle_timeout(at.plus(Duration::from_secs(left - 1)), &points);
                assert_eq!(after.drills().len(), 1, "set back {set_back}, known {known:?}");
            }
            after.handle_timeout(end, &points);
            assert_eq!((after.drills().len(), after.alarms().len()), (0, 0), "set back {set_back}, known {known:?}");
        }
    }

    #[test]
    fn alarms_of_a_drill_that_nobody_knows_of_are_closed_at_the_start() {
        let points = points();
        let mut before = engine(&points, 7);
        before.handle_drill(start(), &points, &command(1, kitchen())).expect("nothing is on");
        let (alarms, incidents) = (before.alarms(), before.incidents().cloned().collect());
        let mut after = engine(&points, 8);
        after.restore(start(), alarms, Vec::new(), incidents);
        assert_eq!((after.alarms().len(), after.incidents().count()), (0, 0));
        let said = effects(&mut after);
        assert!(!said.is_empty() && said.iter().all(|effect| drill_of(effect) == Some(id(1))), "{said:#?}");
    }

    /// Goal: over any sequence nothing of a drill touches what is real, nor one drill another. Method: two engines live through
    /// the same random day of readings, commands, time and restarts; in one of them drills are started, played and ended in
    /// between, and people command whatever they like with whatever they see. What the other does, and what this one does
    /// outside its drills, must be the same to the last letter; and every word of a drill bears its mark.
    #[test]
    fn over_any_sequence_no_drill_touches_what_is_real() {
        let points = points();
        let (mut played, mut real) = (0, 0);
        for seed in 1..8_u64 {
            let mut dice = seed;
            let mut roll = |sides: u64| {
                // xorshift64*: good enough to tell stories.
                dice ^= dice >> 12;
                dice ^= dice << 25;
                dice ^= dice >> 27;
                (dice.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
            };
            let mut engines = [engine(&points, seed), engine(&points, seed)];
            let mut at = start();
            let mut drills = 0_u128;
            for step in 0..250 {
                at = at.plus(Duration::from_secs([1, 5, 20, 90, 400][roll(5) as usize]));
                for engine in &mut engines {
                    while let Some(due) = engine.poll_timeout().filter(|due| *due <= at.mono) {
                        let then = start().plus(due.since(start().mono));
                        engine.handle_timeout(then, &points);
                    }
                }
                let ix = PointIx(roll(points.len() as u64) as u32);
                let value = match points.point(ix).spec.kind.info().form {
                    Form::Flag => Value::Flag(roll(2) == 0),
                    _ => Value::Number([0.0, 12.0, 26.0, 60.0][roll(4) as usize]),
                };
                let seen = engines[1].alarms();
                let mine: Vec<_> = seen.iter().filter(|alarm| alarm.drill.is_none()).collect();
                let person = || "li".to_owned();
                let act = |alarm: &Alarm, what: u64| match what {
                    0 => Action::Acknowledge { alarm: alarm.id },
                    1 => Action::Reset { alarm: alarm.id },
                    2 => {
                        Action::Shelve { alarm: alarm.id, until: at.wall.plus(Duration::from_secs(600)), why: person() }
                    }
                    3 => Action::TakeOutOfService { alarm: alarm.id, why: person() },
                    4 => Action::ReturnToService { alarm: alarm.id },
                    _ => Action::Call { alarm: alarm.id, station: "one".to_owned(), step: CallStep::Accept },
                };
                match roll(10) {
                    0..4 => engines.iter_mut().for_each(|engine| hear(engine, &points, at, ix, value.clone())),
                    // What both see, both are told.
                    4 | 5 if !mine.is_empty() => {
                        let what = act(mine[roll(mine.len() as u64) as usize], roll(6));
                        let both = engines
                            .each_mut()
                            .map(|engine| engine.handle_command(at, Command { who: person(), what: what.clone() }));
                        assert_eq!(both[0], both[1], "seed {seed}, step {step}: {what:?}");
                    }
                    6 => {
                        drills += 1;
                        let building = ["3", "4", ""][roll(3) as usize].to_owned();
                        let target = Target::Kind {
                            kind: points.point(ix).spec.kind,
                            floor: String::new(),
                            room: String::new(),
                        };
                        let what = DrillAction::Start {
                            scope: Scope { building, ..Scope::default() },
                            lasts: Duration::from_secs(60 * (1 + roll(40))),
                            name: String::new(),
                            announced: false,
                            alarms: vec![DrillAlarm { target, level: None }; roll(3) as usize],
                        };
                        // May be refused.
                        let _ = engines[1].handle_drill(at, &points, &command(drills, what));
                    }
                    7 => {
                        let on: Vec<DrillId> = engines[1].drills().map(|drill| drill.id).collect();
                        if let Some(drill) = on.first().copied() {
                            let target = Target::Point(points.point(ix).id.clone());
                            let what = match roll(3) {
                                0 => DrillAction::End,
                                _ => DrillAction::Raise { alarms: vec![DrillAlarm { target, level: None }] },
                            };
                            let _ = engines[1].handle_drill(at, &points, &DrillCommand { who: person(), drill, what });
                        }
                    }
                    // Whatever people do with what they see of a drill, also to make it one with what is real.
                    8 => {
                        let theirs: Vec<_> = seen.iter().filter(|alarm| alarm.drill.is_some()).collect();
                        let incidents: Vec<_> = engines[1].incidents().cloned().collect();
                        let of_drills: Vec<_> = incidents.iter().filter(|incident| incident.drill.is_some()).collect();
                        if let Some(alarm) = theirs.get(roll(theirs.len().max(1) as u64) as usize) {
                            let what = act(alarm, roll(6));
                            let _ = engines[1].handle_command(at, Command { who: person(), what });
                        }
                        if let Some(incident) = of_drills.first() {
                            let other = incidents[roll(incidents.len() as u64) as usize].id;
                            let any = seen[..seen.len().min(1)].iter().map(|alarm| alarm.id).collect();
                            let (incident, what) = match roll(5) {
                                0 => (incident.id, IncidentAction::MergeInto { into: other }),
                                1 => (other, IncidentAction::MergeInto { into: incident.id }),
                                2 => (incident.id, IncidentAction::Split { alarms: any }),
                                3 => (incident.id, IncidentAction::Acknowledge { newest: None }),
                                _ => {
                                    let outcome = Outcome::FalseAlarm(FalseCause::Other);
                                    (incident.id, IncidentAction::Close { outcome, why: String::new() })
                                }
                            };
                            let _ = engines[1].handle_command(
                                at,
                                Command { who: person(), what: Action::Incident { incident, what } },
                            );
                        }
                    }
                    9 if roll(8) == 0 => {
                        for engine in &mut engines {
                            let alarms = engine.alarms();
                            let calls = alarms.iter().flat_map(|alarm| engine.calls_of(alarm.id)).collect();
                            let (incidents, on) =
                                (engine.incidents().cloned().collect(), engine.drills().cloned().collect());
                            let mut after = self::engine(&points, seed + step);
                            after.restore_drills(at, Some(at.wall), on);
                            after.restore(at, alarms, calls, incidents);
                            after.bind(&points);
                            *engine = after;
                        }
                    }
                    _ => {}
                }
                let said = effects(&mut engines[1]);
                let (theirs, mine): (Vec<_>, Vec<_>) = said.into_iter().partition(|effect| drill_of(effect).is_some());
                let alone = effects(&mut engines[0]);
                let differs = alone.iter().zip(&mine).find(|(one, other)| one != other);
                assert!(alone == mine, "seed {seed}, step {step}: {} and {}: {differs:#?}", alone.len(), mine.len());
                (played, real) = (played + theirs.len(), real + mine.len());
                let to_real_only =
                    |effect: &Effect| matches!(effect, Effect::Order(order) if &*order.channel == "real-only");
                assert!(!theirs.iter().any(to_real_only), "seed {seed}, step {step}: {theirs:#?}");
                let joined = |transition: &Transition| {
                    let incident = transition.alarm.incident.and_then(|id| engines[1].situation(id));
                    incident.is_none_or(|situation| situation.incident.drill == transition.alarm.drill)
                };
                for effect in theirs.iter().chain(&mine) {
                    if let Effect::Transition(transition) = effect {
                        assert!(joined(transition), "seed {seed}, step {step}: {transition:?}");
                    }
                }
                let counts = engines.each_ref().map(|engine| Counts { drills: 0, drill_alarms: 0, ..engine.counts() });
                assert_eq!(counts[0], counts[1], "seed {seed}, step {step}");
            }
            at = at.plus(MOST);
            engines[1].handle_timeout(at, &points);
            assert!(
                engines[1].alarms().iter().all(|alarm| alarm.drill.is_none()),
                "seed {seed}: no drill outlasts its time"
            );
        }
        assert!(played > 1_000 && real > 1_000, "the days are too quiet: {played} {real}");
    }
}
