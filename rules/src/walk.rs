//! Walk tests: somebody walks from detector to detector, presses each, and the list says which have answered.
//!
//! While a walk is on, the first time that one of its points speaks is a test: the alarm waits for [`REAL_AFTER`] instead of
//! its rule's on-delay, and is not raised where the point is quiet again before. So a test is nothing but a longer delay in the
//! one alarm book: no alarm is hidden, cleared or kept elsewhere, and when anmin starts again in between, the delay that the
//! journal holds is the rule's own. What is no test has its own delay as ever:
//!
//! - what outlasts [`REAL_AFTER`], or the walk itself;
//! - a point that has been tested in this walk already;
//! - whatever rests on more than the one point: a rule with a second input, another device or another danger in the room, which
//!   makes that which was taken for a test real at once;
//! - what stood in the room before.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anmin_sensors::point::{DeviceIx, Form, Hazard, Kind, Place, Point, PointId, PointIx, Points};
use anmin_sensors::reading::Value;
use anmin_sensors::time::{Mono, Now, Wall};

use crate::alarm::Refusal;
use crate::book::{ANMIN, AlarmBook};
use crate::drill::Scope;
use crate::engine::Effect;
use crate::rule::{Judged, Level, RuleId, RuleIx, RuleSpec, Text, Tuning, Verdict};

/// What the words of a test begin with.
pub const MARK_ZH: &str = "【测试】";
pub const MARK_EN: &str = "[TEST] ";

/// How long a walk lasts where nobody says it.
pub const USUAL: Duration = Duration::from_secs(2 * 3600);
/// And at most.
pub const MOST: Duration = Duration::from_secs(8 * 3600);
/// Walks at one time.
pub const MOST_AT_ONCE: usize = 4;
/// A detector that speaks for so long is not being tested.
pub const REAL_AFTER: Duration = Duration::from_secs(180);

/// Whether somebody can press it: detectors and buttons, not meters.
pub fn is_testable(kind: Kind) -> bool {
    match kind.info().hazard {
        Hazard::Gas | Hazard::Fire => true,
        _ => matches!(kind.as_str(), "flood.leak" | "care.sos" | "care.lift_trapped"),
    }
}

/// UUIDv7, given by whoever starts it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WalkId(pub uuid::Uuid);

impl fmt::Display for WalkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for WalkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One walk, whole but for its ticks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    pub id: WalkId,
    /// Number of its changes so far; the first is 1.
    pub seq: u32,
    /// What it is called; may be empty.
    pub name: String,
    pub scope: Scope,
    /// Empty: all that can be tested.
    pub kinds: Vec<Kind>,
    pub by: String,
    pub started_at: Wall,
    /// When it ends by itself.
    pub ends_at: Wall,
    /// Points that it is about, as the site was when it began.
    pub points: u32,
    /// Of these, how many have spoken.
    pub ticked: u32,
    /// When it ended, and by whom: `anmin` where its time was over.
    pub end: Option<(Wall, String)>,
}

impl Walk {
    pub fn is_on(&self) -> bool {
        self.end.is_none()
    }

    /// Whether a point of this kind, there, is one of its points.
    pub fn covers(&self, kind: Kind, place: &Place) -> bool {
        is_testable(kind) && (self.kinds.is_empty() || self.kinds.contains(&kind)) && self.scope.covers(place)
    }
}

/// One point that has spoken in a walk.
#[derive(Clone, Debug, PartialEq)]
pub struct Tick {
    pub walk: WalkId,
    pub point: PointId,
    pub kind: Kind,
    pub place: Arc<Place>,
    /// The rule whose alarm it would have been, and at which level.
    pub rule: RuleId,
    pub level: Level,
    /// Of a number, with its unit in the kind.
    pub value: Option<f64>,
    /// When the alarm would have been raised.
    pub at: Wall,
    /// `None` while it speaks; for ever where anmin ended meanwhile.
    pub end: Option<(Wall, TickEnd)>,
}

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TickEnd {
    /// The point is quiet again: it works.
    Returned,
    /// It was no test; the alarm is real.
    Real,
}

impl TickEnd {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Returned => "returned",
            Self::Real => "real",
        }
    }

    pub fn named(word: &str) -> Option<Self> {
        [Self::Returned, Self::Real].into_iter().find(|end| end.as_str() == word)
    }
}

/// Why a walk changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalkCause {
    Started,
    /// A point speaks.
    Ticked,
    /// ... and is quiet again.
    Returned,
    /// ... or is no test.
    Real,
    Ended,
}

impl WalkCause {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Ticked => "ticked",
            Self::Returned => "returned",
            Self::Real => "real",
            Self::Ended => "ended",
        }
    }
}

/// One change of one walk.
#[derive(Clone, Debug, PartialEq)]
pub struct WalkChange {
    pub at: Wall,
    pub cause: WalkCause,
    /// As it stands after the change.
    pub walk: Arc<Walk>,
    /// The point that it is about.
    pub tick: Option<Arc<Tick>>,
}

/// What somebody does with a walk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalkCommand {
    pub who: String,
    pub walk: WalkId,
    pub what: WalkAction,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WalkAction {
    Start { scope: Scope, kinds: Vec<Kind>, lasts: Duration, name: String },
    End,
}

/// All walks that are on, and the points that speak in them.
#[derive(Default)]
pub(crate) struct WalkDesk {
    runs: BTreeMap<WalkId, Run>,
    presses: BTreeMap<PointIx, Press>,
    effects: VecDeque<Effect>,
    /// Instances that wait no longer than their rules say.
    real: Vec<(RuleIx, PointIx)>,
}

struct Run {
    walk: Arc<Walk>,
    due: Mono,
    /// What has been tested.
    ticked: HashSet<PointId>,
}

/// A point that speaks.
struct Press {
    walk: WalkId,
    device: DeviceIx,
    hazard: Hazard,
    place: Arc<Place>,
    /// The rules that say so now, and when the alarm of each would be raised.
    abnormal: BTreeMap<RuleIx, Mono>,
    /// The longest off-delay of all that said so.
    calm: Duration,
    /// When it is real.
    real_due: Mono,
    /// When the alarm would be raised, until then.
    tick_due: Option<Mono>,
    /// When it has been quiet for long enough.
    quiet_due: Option<Mono>,
    tick: Arc<Tick>,
    ticked: bool,
}

impl Press {
    fn due(&self) -> Mono {
        [self.tick_due, self.quiet_due].into_iter().flatten().fold(self.real_due, Mono::min)
    }

    fn abnormal(&mut self, now: Now, rule: RuleIx, tuning: &Tuning) {
        let due = *self.abnormal.entry(rule).or_insert(now.mono.plus(tuning.on_delay));
        if !self.ticked {
            self.tick_due = Some(self.tick_due.map_or(due, |earlier| earlier.min(due)));
        }
        self.calm = self.calm.max(tuning.off_delay);
        self.quiet_due = None;
    }

    fn normal(&mut self, now: Now, rule: RuleIx) {
        if self.abnormal.remove(&rule).is_none() {
            return;
        }
        // What was due by now would have been an alarm, and is ticked off when the timers fire: press and release may come at once.
        let was_due = self.tick_due.filter(|due| *due <= now.mono);
        let next = self.abnormal.values().min().copied().filter(|_| !self.ticked);
        self.tick_due = was_due.or(next);
        if self.abnormal.is_empty() {
            self.quiet_due = Some(now.mono.plus(self.calm));
        }
    }
}

impl WalkDesk {
    /// Takes up the walks that were on, with the points that were tested in each. They end when they were to end, as drills do.
    pub fn restore(&mut self, now: Now, known: Option<Wall>, walks: Vec<(Arc<Walk>, Vec<PointId>)>) {
        for (walk, ticked) in walks.into_iter().filter(|(walk, _)| walk.is_on()) {
            let from = known.map_or(now.wall, |known| known.max(now.wall));
            let left = walk.ends_at.since(from).min(walk.ends_at.since(walk.started_at)).min(MOST);
            let run = Run { due: now.mono.plus(left), ticked: ticked.into_iter().collect(), walk };
            self.runs.entry(run.walk.id).or_insert(run);
        }
    }

    pub fn handle(&mut self, now: Now, points: &Points, command: &WalkCommand) -> Result<(), Refusal> {
        let id = command.walk;
        match &command.what {
            WalkAction::Start { scope, kinds, lasts, name } => {
                self.may_start(id, *lasts)?;
                let mut walk = Walk {
                    id,
                    seq: 0,
                    name: name.clone(),
                    scope: scope.clone(),
                    kinds: kinds.clone(),
                    by: command.who.clone(),
                    started_at: now.wall,
                    ends_at: now.wall.plus(*lasts),
                    points: 0,
                    ticked: 0,
                    end: None,
                };
                let of = |walk: &Walk, (ix, point): (PointIx, &Point)| {
                    walk.covers(point.spec.kind, &points.device_of(ix).place)
                };
                walk.points = points.iter().filter(|point| of(&walk, *point)).count() as u32;
                let Text { zh, en } = scope.text();
                if walk.points == 0 {
                    return Err(Refusal::not_allowed(
                        format!("{zh}没有可测试的探测器或按钮"),
                        format!("there is no detector or button to test in {en}"),
                    ));
                }
                // A point is tested once, and in one walk.
                let other = |point| self.runs.values().find(|run| of(&run.walk, point));
                if let Some(other) = points.iter().filter(|point| of(&walk, *point)).find_map(other) {
                    let Text { zh, en } = other.walk.scope.text();
                    return Err(Refusal::not_allowed(
                        format!("其中的探测器正在另一次巡检测试中（{zh}）"),
                        format!("a walk test of the same detectors is on already, for {en}"),
                    ));
                }
                let run = Run { walk: Arc::new(walk), due: now.mono.plus(*lasts), ticked: HashSet::new() };
                self.runs.insert(id, run);
                self.change(now, id, WalkCause::Started, None, |_| {});
                Ok(())
            }
            WalkAction::End => {
                if !self.runs.contains_key(&id) {
                    return Err(Refusal::NoSuchWalk(id));
                }
                self.end(now, id, &command.who);
                Ok(())
            }
        }
    }

    fn may_start(&self, id: WalkId, lasts: Duration) -> Result<(), Refusal> {
        if lasts.is_zero() || lasts > MOST {
            let hours = MOST.as_secs() / 3600;
            return Err(Refusal::not_allowed(
                format!("巡检测试时长须大于零，最多 {hours} 小时"),
                format!("a walk test lasts {hours} hours at most, and longer than nothing"),
            ));
        }
        if self.runs.len() >= MOST_AT_ONCE || self.runs.contains_key(&id) {
            return Err(Refusal::not_allowed(
                format!("同时最多进行 {MOST_AT_ONCE} 次巡检测试"),
                format!("{MOST_AT_ONCE} walk tests are on, which is as many as there can be"),
            ));
        }
        Ok(())
    }

    /// A verdict before the alarm book hears it. Gives the numbers that it shall go by where the point is being tested, `None`
    /// where the rule's own hold.
    pub fn judge(
        &mut self,
        now: Now,
        points: &Points,
        spec: &RuleSpec,
        tuning: &Tuning,
        judged: &Judged,
        book: &AlarmBook,
    ) -> Option<Tuning> {
        if self.runs.is_empty() {
            return None;
        }
        let Judged { rule, subject, verdict, .. } = judged;
        let hazard = points.point(*subject).spec.kind.info().hazard;
        let about = spec.hazard.unwrap_or(hazard);
        // What rests on another point, too, is more than somebody at this one.
        let alone = spec.inputs.len() == 1 && about == hazard;
        let waits = Tuning { on_delay: tuning.on_delay.max(REAL_AFTER), ..tuning.clone() };
        match (verdict, self.presses.get_mut(subject).filter(|_| alone)) {
            (Verdict::Abnormal(_), Some(press)) => {
                press.abnormal(now, *rule, tuning);
                Some(waits)
            }
            (Verdict::Normal, Some(press)) => {
                press.normal(now, *rule);
                None
            }
            (Verdict::Undetermined(_), Some(press)) => press.abnormal.contains_key(rule).then_some(waits),
            (Verdict::Abnormal(finding), None) if about != Hazard::Device => {
                let began = alone.then(|| self.press(points, spec, judged, finding.level, book)).flatten();
                let Some(mut press) = began else {
                    let device = points.point(*subject).device;
                    self.stir(now, &points.device_of(*subject).place, alone.then_some((device, about)));
                    return None;
                };
                // A combined detector speaks twice for one press.
                let of_it = |other: &&Press| (other.device, other.hazard) == (press.device, press.hazard);
                let since = self.presses.values().filter(of_it).map(|other| other.real_due).min();
                press.real_due = since.unwrap_or(now.mono.plus(REAL_AFTER));
                press.abnormal(now, *rule, tuning);
                self.presses.insert(*subject, press);
                Some(waits)
            }
            _ => None,
        }
    }

    /// A point that begins to speak, where that is a test.
    fn press(
        &self,
        points: &Points,
        spec: &RuleSpec,
        judged: &Judged,
        level: Level,
        book: &AlarmBook,
    ) -> Option<Press> {
        let subject = judged.subject;
        let (point, place) = (points.point(subject), &points.device_of(subject).place);
        let kind = point.spec.kind;
        let run = self.runs.values().find(|run| run.walk.covers(kind, place))?;
        if self.runs.values().any(|run| run.ticked.contains(&point.id)) {
            return None;
        }
        let hazard = kind.info().hazard;
        let beside =
            |press: &Press| is_one_room(&press.place, place) && (press.device, press.hazard) != (point.device, hazard);
        if self.presses.values().any(beside) || book.knows(judged.rule, subject) {
            return None;
        }
        let is_test =
            |instance: Option<(RuleIx, PointIx)>| instance.is_some_and(|(_, point)| self.presses.contains_key(&point));
        if book.stands_in(|other| is_one_room(other, place), is_test) {
            return None;
        }
        let value = match (judged.evidence.value.as_ref(), kind.info().form) {
            (Some(Value::Number(value)), Form::Number) => Some(*value),
            _ => None,
        };
        let tick = Tick {
            walk: run.walk.id,
            point: point.id.clone(),
            kind,
            place: Arc::clone(place),
            rule: spec.id.clone(),
            level,
            value,
            at: Wall::default(),
            end: None,
        };
        Some(Press {
            walk: run.walk.id,
            device: point.device,
            hazard,
            place: Arc::clone(place),
            abnormal: BTreeMap::new(),
            calm: Duration::ZERO,
            real_due: Mono::default(),
            tick_due: None,
            quiet_due: None,
            tick: Arc::new(tick),
            ticked: false,
        })
    }

    /// There is a real sign of danger in this room: nothing that speaks there is a test, but for what `own` names.
    fn stir(&mut self, now: Now, place: &Place, own: Option<(DeviceIx, Hazard)>) {
        let there = self
            .presses
            .iter()
            .filter(|(_, press)| is_one_room(&press.place, place) && own != Some((press.device, press.hazard)));
        let there: Vec<PointIx> = there.map(|(ix, _)| *ix).collect();
        there.into_iter().for_each(|ix| self.over(now, ix));
    }

    /// A test is over: the point is quiet, or it is real.
    fn over(&mut self, now: Now, ix: PointIx) {
        let Some(press) = self.presses.remove(&ix) else { return };
        let how = if press.abnormal.is_empty() { TickEnd::Returned } else { TickEnd::Real };
        self.real.extend(press.abnormal.keys().map(|rule| (*rule, ix)));
        if press.ticked {
            let mut tick = press.tick;
            Arc::make_mut(&mut tick).end = Some((now.wall, how));
            let cause = if how == TickEnd::Real { WalkCause::Real } else { WalkCause::Returned };
            self.change(now, press.walk, cause, Some(tick), |_| {});
        }
    }

    fn end(&mut self, now: Now, id: WalkId, by: &str) {
        self.stop(now, |press| press.walk == id);
        self.change(now, id, WalkCause::Ended, None, |walk| walk.end = Some((now.wall, by.to_owned())));
        self.runs.remove(&id);
    }

    /// Nothing that speaks now is a test any more: other rules judge it.
    pub fn stop_all(&mut self, now: Now) {
        self.stop(now, |_| true);
    }

    fn stop(&mut self, now: Now, which: impl Fn(&Press) -> bool) {
        let all: Vec<PointIx> = self.presses.iter().filter(|(_, press)| which(press)).map(|(ix, _)| *ix).collect();
        all.into_iter().for_each(|ix| self.over(now, ix));
    }

    fn change(&mut self, now: Now, id: WalkId, cause: WalkCause, tick: Option<Arc<Tick>>, how: impl FnOnce(&mut Walk)) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let walk = Arc::make_mut(&mut run.walk);
        how(walk);
        walk.seq += 1;
        let change = WalkChange { at: now.wall, cause, walk: Arc::clone(&run.walk), tick };
        self.effects.push_back(Effect::Walk(Arc::new(change)));
    }

    /// Fires every timer that is due, and ends what is over.
    pub fn fire(&mut self, now: Now) {
        let is_due = |at: Option<Mono>| at.is_some_and(|at| at <= now.mono);
        let due: Vec<PointIx> =
            self.presses.iter().filter(|(_, press)| press.due() <= now.mono).map(|(ix, _)| *ix).collect();
        for ix in due {
            let press = self.presses.get_mut(&ix).expect("listed above; only `over` removes, and each its own");
            if is_due(press.tick_due) {
                press.tick_due = None;
                press.ticked = true;
                Arc::make_mut(&mut press.tick).at = now.wall;
                let (id, tick) = (press.walk, Arc::clone(&press.tick));
                if let Some(run) = self.runs.get_mut(&id) {
                    run.ticked.insert(tick.point.clone());
                }
                self.change(now, id, WalkCause::Ticked, Some(tick), |walk| walk.ticked += 1);
            }
            let press = &self.presses[&ix];
            if is_due(press.quiet_due) || press.real_due <= now.mono {
                self.over(now, ix);
            }
        }
        let ended: Vec<WalkId> = self.runs.values().filter(|run| run.due <= now.mono).map(|run| run.walk.id).collect();
        ended.into_iter().for_each(|id| self.end(now, id, ANMIN));
    }

    /// The next instance that was taken for a test and is none.
    pub fn poll_real(&mut self) -> Option<(RuleIx, PointIx)> {
        self.real.pop()
    }

    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    pub fn poll_timeout(&self) -> Option<Mono> {
        self.runs.values().map(|run| run.due).chain(self.presses.values().map(Press::due)).min()
    }

    /// The oldest first.
    pub fn walks(&self) -> impl ExactSizeIterator<Item = &Arc<Walk>> {
        self.runs.values().map(|run| &run.walk)
    }

    /// What speaks now in a walk, and has spoken for long enough to count.
    pub fn speaking(&self) -> impl Iterator<Item = &Arc<Tick>> {
        self.presses.values().filter(|press| press.ticked).map(|press| &press.tick)
    }
}

/// What people would call one room; where nobody has said which, all that is in one place of the configuration.
fn is_one_room(one: &Place, other: &Place) -> bool {
    let room = |place: &Place| {
        let Place { building, unit, floor, room, .. } = place;
        [building, unit, floor, room].map(Clone::clone)
    };
    let (one_room, other_room) = (room(one), room(other));
    one_room == other_room && (one_room.iter().any(|word| !word.is_empty()) || one.area == other.area)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use anmin_sensors::document::Faults;
    use anmin_sensors::point::{DeviceId, PointSpec};
    use anmin_sensors::reading::{Quality, Sample};

    use super::*;
    use crate::alarm::{Action, Alarm, Cause, Command, Transition};
    use crate::engine::Engine;
    use crate::library;
    use crate::order::{Channel, ChannelForm, Station};
    use crate::response::DeskSettings;
    use crate::set::RuleSet;

    const KINDS: [&str; 6] = ["gas.lel", "fire.smoke", "fire.temperature", "care.sos", "gas.co", "flood.level"];

    fn start() -> Now {
        Now { mono: Mono::from_nanos(1_000_000_000), wall: Wall::from_millis(1_800_000_000_000) }
    }

    fn points() -> Points {
        let mut points = Points::default();
        let rooms = [("3", "5", "501"), ("3", "5", "501"), ("3", "5", "502"), ("4", "1", "101")];
        for (n, (building, floor, room)) in rooms.iter().enumerate() {
            let [building, floor, room] = [building, floor, room].map(|word| (*word).to_owned());
            let place = Place { building, floor, room, ..Place::default() };
            let spec = |kind: &&str| {
                let named = Kind::named(kind).expect("a kind of the table");
                Arc::new(PointSpec::plain(&kind.replace('.', "_"), named))
            };
            let specs: Vec<_> = KINDS.iter().map(spec).collect();
            let id = DeviceId::new(format!("d{n}"));
            points.add(id, None, &"test".into(), &Arc::new(place), &specs).expect("each id is new");
        }
        points
    }

    fn engine(points: &Points, seed: u64) -> Engine {
        let rules = RuleSet::load(library::shipped(), Vec::new(), &Faults::default());
        assert_eq!(rules.broken(), []);
        let station = Station { id: "one".into(), name: Text::both("one"), phone: String::new(), ..Station::default() };
        let channel = |id: &str, form| Channel { system: true, ..Channel::new(id, form, Level::Blue) };
        let channels = vec![channel("events", ChannelForm::Events), channel("cap", ChannelForm::Cap)];
        let desk = DeskSettings { stations: vec![station], channels, ..DeskSettings::default() };
        let mut engine = Engine::new(rules, desk, seed);
        engine.bind(points);
        engine
    }

    fn begin(n: u128, building: &str, kinds: &[&str]) -> WalkCommand {
        let kinds = kinds.iter().map(|kind| Kind::named(kind).expect("a kind of the table")).collect();
        let scope = Scope { building: building.to_owned(), ..Scope::default() };
        let what = WalkAction::Start { scope, kinds, lasts: USUAL, name: "year".to_owned() };
        WalkCommand { who: "li".to_owned(), walk: WalkId(uuid::Uuid::from_u128(n)), what }
    }

    fn finish(n: u128) -> WalkCommand {
        WalkCommand { what: WalkAction::End, ..begin(n, "", &[]) }
    }

    /// One site, and what it has said, as words: `20 ticked d0/gas_lel`, `24 raised d0/gas_lel`, `24 call`, `24 order`.
    struct Site {
        points: Points,
        engine: Engine,
        said: Vec<String>,
        pending: Vec<Arc<crate::alarm::Pending>>,
        changes: Vec<Arc<WalkChange>>,
        alarms: Vec<Arc<Alarm>>,
    }

    fn at(seconds: u64) -> Now {
        start().plus(Duration::from_secs(seconds))
    }

    impl Site {
        fn new() -> Self {
            let points = points();
            let engine = engine(&points, 7);
            let (said, pending, changes, alarms) = Default::default();
            Self { points, engine, said, pending, changes, alarms }
        }

        fn walk(&mut self, seconds: u64, command: &WalkCommand) -> Result<(), Refusal> {
            self.wait(seconds);
            let result = self.engine.handle_walk(at(seconds), &self.points, command);
            self.take(seconds);
            result
        }

        fn wait(&mut self, seconds: u64) {
            while let Some(due) = self.engine.poll_timeout().filter(|due| *due <= at(seconds).mono) {
                let then = start().plus(due.since(start().mono));
                self.engine.handle_timeout(then, &self.points);
                self.take(due.since(start().mono).as_secs());
            }
        }

        fn hear(&mut self, seconds: u64, point: &str, value: f64) {
            self.wait(seconds);
            let ix = self.points.find(point).expect("a point of the site");
            self.engine.handle_samples(at(seconds), &self.points, &[sample(&self.points, at(seconds), ix, value)]);
            self.take(seconds);
        }

        fn take(&mut self, seconds: u64) {
            while let Some(effect) = self.engine.poll_effect() {
                match effect {
                    Effect::Transition(transition) => {
                        let alarm = &transition.alarm;
                        self.said.push(format!("{seconds} {} {}", transition.cause.as_str(), alarm.subject.as_str()));
                        self.alarms.retain(|other| other.id != alarm.id);
                        self.alarms.push(Arc::clone(alarm));
                    }
                    Effect::Call(_) => self.said.push(format!("{seconds} call")),
                    Effect::Order(order) if &*order.channel == "cap" => self.said.push(format!("{seconds} cap")),
                    Effect::Walk(change) => {
                        let point = change.tick.as_ref().map_or(String::new(), |tick| format!(" {}", tick.point));
                        self.said.push(format!("{seconds} {}{point}", change.cause.as_str()));
                        self.changes.push(change);
                    }
                    Effect::Pending(pending) => {
                        self.pending.retain(|other| (&other.rule, &other.subject) != (&pending.rule, &pending.subject));
                        self.pending.extend((!pending.is_over()).then_some(pending));
                    }
                    _ => {}
                }
            }
        }

        fn said(&mut self) -> Vec<String> {
            std::mem::take(&mut self.said)
        }
    }

    fn sample(points: &Points, at: Now, point: PointIx, value: f64) -> Sample {
        let value = match points.point(point).spec.kind.info().form {
            Form::Number => Value::Number(value),
            _ => Value::Flag(value > 0.0),
        };
        Sample {
            point,
            value: Some(value),
            quality: Quality::Good,
            time: at.wall,
            source_time: None,
            received: at,
            sequence: None,
            news: true,
        }
    }

    #[test]
    fn a_detector_that_is_pressed_is_ticked_off_and_nobody_is_called() {
        let mut site = Site::new();
        site.walk(0, &begin(1, "3", &[])).expect("nothing is on");
        site.hear(10, "d0/gas_lel", 60.0);
        site.hear(40, "d0/gas_lel", 1.0);
        site.wait(100);
        assert_eq!(site.said(), ["0 started", "12 ticked d0/gas_lel", "70 returned d0/gas_lel"]);
        let tick = site.changes[2].tick.as_ref().expect("it is about a point");
        assert_eq!((tick.rule.as_str(), tick.level, tick.value), ("gas/leak", Level::Red, Some(60.0)));
        assert_eq!(tick.end, Some((at(70).wall, TickEnd::Returned)));
        let walk = &site.changes[2].walk;
        assert_eq!((walk.points, walk.ticked), (15, 1), "three detectors with five kinds that can be pressed");
        assert!(site.pending.is_empty() && site.engine.alarms().is_empty());
        site.wait(2 * 3600);
        assert_eq!(site.said(), ["7200 ended"], "by itself");
        site.hear(7300, "d0/gas_lel", 60.0);
        site.wait(7302);
        assert_eq!(site.said(), ["7302 raised d0/gas_lel", "7302 cap", "7302 call"], "and what comes then is real");
    }

    /// What is done, in seconds, and what must be raised when.
    #[test]
    fn whatever_is_no_test_is_raised_as_ever() {
        type Step = (u64, &'static str, f64);
        let cases: [(&str, &[Step], &[&str]); 10] = [
            ("it outlasts three minutes", &[(10, "d0/fire_smoke", 1.0)], &["190 raised d0/fire_smoke"]),
            (
                "it is pressed a second time",
                &[(10, "d0/fire_smoke", 1.0), (20, "d0/fire_smoke", 0.0), (60, "d0/fire_smoke", 1.0)],
                &["60 raised d0/fire_smoke"],
            ),
            (
                "it comes back within its off-delay and stays",
                &[(10, "d0/fire_smoke", 1.0), (20, "d0/fire_smoke", 0.0), (30, "d0/fire_smoke", 1.0)],
                &["190 raised d0/fire_smoke"],
            ),
            (
                "another detector speaks in the same room",
                &[(10, "d0/fire_smoke", 1.0), (30, "d1/fire_smoke", 1.0)],
                &["30 raised d0/fire_smoke", "30 raised d1/fire_smoke"],
            ),
            (
                "another danger comes at the same detector",
                &[(10, "d0/fire_smoke", 1.0), (30, "d0/gas_lel", 60.0)],
                &["30 raised d0/fire_smoke", "32 raised d0/gas_lel"],
            ),
            (
                "two kinds of point confirm each other",
                &[(10, "d0/fire_smoke", 1.0), (30, "d0/fire_temperature", 60.0)],
                &["30 raised d0/fire_smoke", "30 raised d0/fire_smoke", "35 raised d0/fire_temperature"],
            ),
            (
                "a combined detector speaks twice for one press",
                &[(10, "d0/gas_lel", 60.0), (100, "d0/gas_co", 30.0)],
                &["190 raised d0/gas_co", "190 raised d0/gas_lel"],
            ),
            ("the point lies outside the walk", &[(10, "d3/fire_smoke", 1.0)], &["10 raised d3/fire_smoke"]),
            ("nobody presses that kind", &[(10, "d0/flood_level", 40.0)], &["raised d0/flood_level"]),
            (
                "the room was in danger before",
                &[(10, "d0/flood_level", 40.0), (200, "d1/care_sos", 1.0)],
                &["200 raised d1/care_sos", "raised d0/flood_level"],
            ),
        ];
        for (what, steps, raised) in cases {
            let mut site = Site::new();
            site.walk(0, &begin(1, "3", &[])).expect("nothing is on");
            for (seconds, point, value) in steps {
                site.hear(*seconds, point, *value);
            }
            site.wait(400);
            let mut said: Vec<String> = site.said().into_iter().filter(|line| line.contains(" raised d")).collect();
            said.sort();
            assert_eq!(said.len(), raised.len(), "{what}: {said:?}");
            for (is, wanted) in said.iter().zip(raised) {
                assert!(is.ends_with(wanted), "{what}: {said:?}");
            }
        }
    }

    #[test]
    fn rooms_next_door_and_one_after_the_other_are_tested_as_one_walks() {
        let mut site = Site::new();
        site.walk(0, &begin(1, "3", &["fire.smoke"])).expect("nothing is on");
        for (seconds, point, value) in [
            (10, "d0/fire_smoke", 1.0),
            (12, "d2/fire_smoke", 1.0),
            (15, "d0/fire_smoke", 0.0),
            (16, "d2/fire_smoke", 0.0),
            (60, "d1/fire_smoke", 1.0),
            (65, "d1/fire_smoke", 0.0),
        ] {
            site.hear(seconds, point, value);
        }
        site.wait(200);
        assert!(site.alarms.is_empty(), "{:?}", site.said);
        assert_eq!(site.changes.last().map(|change| change.walk.ticked), Some(3));
        site.hear(210, "d0/care_sos", 1.0);
        assert_eq!(site.alarms.len(), 1, "the walk is about smoke");
    }

    #[test]
    fn what_speaks_when_the_walk_ends_is_real() {
        let mut site = Site::new();
        site.walk(0, &begin(1, "3", &[])).expect("nothing is on");
        site.hear(10, "d0/care_sos", 1.0);
        assert_eq!(site.engine.speaking().count(), 0, "its alarm is due now and said with the next turn");
        site.walk(20, &finish(1)).expect("it is on");
        assert_eq!(
            site.said(),
            [
                "0 started",
                "10 ticked d0/care_sos",
                "20 raised d0/care_sos",
                "20 call",
                "20 real d0/care_sos",
                "20 ended"
            ]
        );
        assert_eq!(site.walk(21, &finish(1)), Err(Refusal::NoSuchWalk(WalkId(uuid::Uuid::from_u128(1)))));
    }

    /// The daemon ends while a detector is pressed: the test is over with it, and what still speaks is real.
    #[test]
    fn a_walk_outlives_a_restart_without_growing_and_what_spoke_is_real() {
        let mut site = Site::new();
        site.walk(0, &begin(1, "3", &[])).expect("nothing is on");
        site.hear(10, "d2/gas_lel", 60.0);
        site.hear(20, "d2/gas_lel", 1.0);
        site.hear(100, "d0/gas_lel", 60.0);
        site.wait(110);
        let walk = Arc::clone(&site.changes.last().expect("it began").walk);
        let ticked: Vec<PointId> =
            site.changes.iter().filter_map(|change| Some(change.tick.as_ref()?.point.clone())).collect();
        let pending = site.pending.clone();
        assert_eq!(pending.len(), 1, "the journal has the delay");
        // The clock is set back by an hour meanwhile.
        let now = Now { mono: at(130).mono, wall: at(0).wall };
        site.engine = engine(&site.points, 8);
        site.engine.restore_walks(now, Some(at(110).wall), vec![(walk, ticked)]);
        site.engine.restore(now, Vec::new(), Vec::new(), Vec::new());
        site.engine.restore_pending(now, pending, |_| true);
        site.engine.bind(&site.points);
        site.said();
        site.wait(140);
        assert_eq!(site.said(), ["132 raised d0/gas_lel", "132 cap", "132 call"]);
        site.hear(150, "d2/gas_lel", 60.0);
        site.wait(152);
        assert_eq!(site.said()[0], "152 raised d2/gas_lel", "what was tested in it is not tested again");
        site.wait(130 + 7_090);
        assert!(site.said().contains(&"7220 ended".to_owned()), "it had 7090 seconds left when the last run ended");
    }

    /// A button that springs back, or a slow disk: press and release may come in one batch.
    #[test]
    fn a_press_and_release_at_one_moment_is_a_test_once_and_real_the_second_time() {
        let mut site = Site::new();
        site.walk(0, &begin(1, "3", &[])).expect("nothing is on");
        let mut tap = |seconds: u64| {
            site.wait(seconds);
            let ix = site.points.find("d0/care_sos").expect("a point of the site");
            let both = [1.0, 0.0].map(|value| sample(&site.points, at(seconds), ix, value));
            site.engine.handle_samples(at(seconds), &site.points, &both);
            site.take(seconds);
            site.wait(seconds + 30);
            site.said()
        };
        let first = tap(10);
        assert!(first.iter().any(|said| said.contains("ticked d0/care_sos")), "{first:?}");
        assert!(!first.iter().any(|said| said.contains("raised d0/care_sos")), "{first:?}");
        let second = tap(60);
        assert!(second.iter().any(|said| said.contains("raised d0/care_sos")), "{second:?}");
    }

    #[test]
    fn what_cannot_be_a_walk_is_refused() {
        let mut site = Site::new();
        let long = |lasts| match begin(1, "3", &[]) {
            WalkCommand { who, walk, what: WalkAction::Start { scope, kinds, name, .. } } => {
                WalkCommand { who, walk, what: WalkAction::Start { scope, kinds, name, lasts } }
            }
            other => other,
        };
        for (command, words) in [
            (long(Duration::ZERO), "8 hours at most"),
            (long(MOST + Duration::from_secs(1)), "8 hours at most"),
            (begin(1, "9", &[]), "no detector or button to test in Building 9"),
            (begin(1, "3", &["flood.level"]), "no detector or button"),
        ] {
            let refused = site.walk(0, &command).expect_err(words);
            assert!(refused.text().en.contains(words), "{refused}");
        }
        site.walk(0, &begin(8, "3", &["gas.lel", "fire.smoke"])).expect("nothing is on");
        for kinds in [&["gas.lel"][..], &["fire.smoke", "care.sos"], &[]] {
            let refused = site.walk(0, &begin(9, "3", kinds)).expect_err("a detector is in one walk");
            assert_eq!(
                refused.text().en,
                "a walk test of the same detectors is on already, for Building 3",
                "{kinds:?}"
            );
        }
        site.walk(0, &finish(8)).expect("it is on");
        for n in 1..=MOST_AT_ONCE as u128 {
            let kinds = [&KINDS[..1], &KINDS[1..2], &KINDS[2..3], &KINDS[3..4]][n as usize - 1];
            site.walk(0, &begin(n, "3", kinds)).expect("there is room");
        }
        let refused = site.walk(0, &begin(9, "3", &["gas.co"])).expect_err("four are on");
        assert!(refused.text().en.contains("as many as there can be"), "{refused}");
    }

    /// Two sites live through the same days; only in the second does anybody walk, in building 3. What lies outside the walks is
    /// the same in both to the last transition. Inside, what has lasted for [`REAL_AFTER`] is an alarm in both, and so is at once
    /// what speaks a second time; nothing is ticked twice.
    #[test]
    fn a_walk_hides_clears_and_delays_nothing_outside_it() {
        let points = points();
        let (mut ticks, mut raised, mut inside) = (0, 0, 0);
        for seed in 1..=60_u64 {
            let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let mut roll = move |of: u64| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state % of
            };
            let mut engines = [engine(&points, seed), engine(&points, seed)];
            let mut now = start();
            let mut walks: u128 = 0;
            let mut ticked: HashMap<WalkId, HashSet<PointId>> = HashMap::new();
            // Since when each point has been in danger without a break.
            let mut since: HashMap<PointIx, Mono> = HashMap::new();
            for step in 0..250 {
                let wait = Duration::from_millis([100, 1_000, 5_000, 40_000, 100_000][roll(5) as usize]);
                let until = now.plus(wait);
                for engine in &mut engines {
                    while let Some(due) = engine.poll_timeout().filter(|due| *due <= until.mono) {
                        engine.handle_timeout(start().plus(due.since(start().mono)), &points);
                    }
                }
                now = until;
                let ix = PointIx(roll(points.len() as u64) as u32);
                match roll(10) {
                    0..=6 => {
                        let value = [0.0, 0.0, 0.0, 0.0, 0.0, 12.0, 60.0][roll(7) as usize];
                        let kind = points.point(ix).spec.kind.as_str();
                        let limit = HashMap::from([("fire.temperature", 54.0), ("gas.co", 24.0)]);
                        match value > limit.get(kind).copied().unwrap_or(10.0) {
                            true => drop(since.entry(ix).or_insert(now.mono)),
                            false => drop(since.remove(&ix)),
                        }
                        for engine in &mut engines {
                            engine.handle_samples(now, &points, &[sample(&points, now, ix, value)]);
                        }
                    }
                    7 => {
                        walks += 1;
                        let kinds = [&[][..], &["gas.lel"], &["fire.smoke", "care.sos"]][roll(3) as usize];
                        let begin = begin(walks, "3", kinds);
                        // May be refused.
                        let _ = engines[1].handle_walk(now, &points, &begin);
                    }
                    8 => {
                        let on = engines[1].walks().next().map(|walk| walk.id);
                        if let Some(walk) = on.filter(|_| roll(4) == 0) {
                            let end = WalkCommand { who: "li".to_owned(), walk, what: WalkAction::End };
                            engines[1].handle_walk(now, &points, &end).expect("it is on");
                        }
                    }
                    _ => {
                        for engine in &mut engines {
                            for alarm in engine.alarms() {
                                let (alarm, who) = (alarm.id, "li".to_owned());
                                for what in [Action::Acknowledge { alarm }, Action::Reset { alarm }] {
                                    // What is still there is not reset.
                                    let _ = engine.handle_command(now, Command { who: who.clone(), what });
                                }
                            }
                        }
                    }
                }
                let [alone, walked] =
                    engines.each_mut().map(|engine| std::iter::from_fn(|| engine.poll_effect()).collect::<Vec<_>>());
                for effect in &walked {
                    if let Effect::Walk(change) = effect
                        && let (WalkCause::Ticked, Some(tick)) = (change.cause, &change.tick)
                    {
                        ticks += 1;
                        let first = ticked.entry(tick.walk).or_default().insert(tick.point.clone());
                        assert!(first, "seed {seed}, step {step}: ticked twice: {tick:?}");
                        assert!(tick.place.building == "3" && change.walk.covers(tick.kind, &tick.place), "{tick:?}");
                    }
                }
                let outside = |alarm: &Alarm| {
                    // That nobody answers, or a checklist is late, follows from the alarms.
                    let point = points.find(alarm.subject.as_str());
                    point.is_some_and(|ix| {
                        points.device_of(ix).place.building != "3" || !is_testable(points.point(ix).spec.kind)
                    })
                };
                let of = |effects: &[Effect]| -> Vec<String> {
                    let line = |transition: &Transition| {
                        let alarm = &transition.alarm;
                        let (to, level) = (transition.to.as_str(), alarm.level.as_str());
                        format!("{} {} {:?} {to} {level}", alarm.rule, alarm.subject.as_str(), transition.cause)
                    };
                    let lines = effects.iter().filter_map(|effect| match effect {
                        Effect::Transition(transition)
                            if outside(&transition.alarm) && !matches!(transition.cause, Cause::Regrouped { .. }) =>
                        {
                            Some(line(transition))
                        }
                        _ => None,
                    });
                    // What comes at one moment has no order that anybody promised.
                    let mut lines: Vec<String> = lines.collect();
                    lines.sort();
                    lines
                };
                let (one, other) = (of(&alone), of(&walked));
                assert_eq!(one, other, "seed {seed}, step {step}");
                raised += one.len();
                let stands = |engine: &Engine, id: &PointId| {
                    engine.alarms().iter().any(|alarm| alarm.subject.as_str() == id.as_str() && alarm.is_active())
                };
                for (ix, began) in &since {
                    let id = &points.point(*ix).id;
                    if !stands(&engines[0], id) || now.mono.since(*began) < Duration::from_secs(6) {
                        continue;
                    }
                    let again = engines[1].walks().all(|walk| ticked.get(&walk.id).is_some_and(|of| of.contains(id)))
                        && !engines[1].speaking().any(|tick| tick.point == *id);
                    if again || now.mono.since(*began) >= REAL_AFTER {
                        inside += 1;
                        assert!(stands(&engines[1], id), "seed {seed}, step {step}: {id} is in danger and hidden");
                    }
                }
            }
        }
        assert!(ticks > 100 && raised > 1_000 && inside > 1_000, "the days are too quiet: {ticks} {raised} {inside}");
    }
}
