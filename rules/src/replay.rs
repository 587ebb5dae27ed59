//! Replay: what rules would have said about the past, how two rule sets differ in it, and whether a verdict of then is
//! the verdict of now.
//!
//! The same [`Engine`] as on duty hears samples in the order of their times, each with the quality that was written down;
//! the time of a sample is both clocks, so it knows neither the clock of now nor anything that has not happened yet.
//! Somebody is there who acknowledges at once and resets as soon as the condition is gone: an [`Occurrence`] lasts as long
//! as its condition.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use anmin_sensors::point::{PointIx, Points};
use anmin_sensors::reading::{Doubt, Quality, Sample, Value};
use anmin_sensors::time::{Mono, Now, Wall};

use crate::alarm::{Action, Alarm, AlarmId, Cause, Class, Command, Subject, Transition};
use crate::engine::{Effect, Engine};
use crate::response::DeskSettings;
use crate::rule::{Grounds, Judged, Level, LimitUsed, RuleId, RuleIx, RuleSpec, Scope, Text};
use crate::set::RuleSet;

/// The last moment of the monotonic clock, in the year 2262: behind it there must be room for deadlines, which would else be due
/// for ever.
const LAST: u64 = u64::MAX / 2;

/// Both clocks as they stand at a moment of the past. Times before 1970 are its beginning to the monotonic one, those after
/// [`LAST`] its end.
fn clocks(at: Wall) -> Now {
    let nanos = u64::try_from(at.micros()).unwrap_or(0).saturating_mul(1_000);
    Now { mono: Mono::from_nanos(nanos.min(LAST)), wall: at }
}

/// A sample as history has it. What was not confirmed then is no news now.
pub fn sample(point: PointIx, time: Wall, value: Option<Value>, quality: Quality) -> Sample {
    let news = quality != Quality::Uncertain(Doubt::Unconfirmed);
    Sample { point, value, quality, time, source_time: None, received: clocks(time), sequence: None, news }
}

/// A condition of the past, from when its alarm was raised until it was gone.
#[derive(Clone, Debug, PartialEq)]
pub struct Occurrence {
    pub rule: RuleId,
    pub subject: Subject,
    pub class: Class,
    pub title: Text,
    /// As it was when it was raised.
    pub message: Text,
    pub from: Wall,
    /// `None`: it stood at the end.
    pub to: Option<Wall>,
    pub peak: Level,
    /// Each level from when it stood at it; the first is that of the beginning.
    pub levels: Vec<(Wall, Level)>,
}

impl Occurrence {
    fn new(alarm: &Alarm, at: Wall) -> Self {
        Self {
            rule: alarm.rule.clone(),
            subject: alarm.subject.clone(),
            class: alarm.class,
            title: alarm.title.clone(),
            message: alarm.message.clone(),
            from: at,
            to: None,
            peak: alarm.level,
            levels: vec![(at, alarm.level)],
        }
    }

    fn overlaps(&self, other: &Self) -> bool {
        let ends_before = |a: &Self, b: &Self| a.to.is_some_and(|to| to < b.from);
        !ends_before(self, other) && !ends_before(other, self)
    }
}

/// What came of a replay, in the order in which it was raised.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Run {
    pub occurrences: Vec<Occurrence>,
    pub samples: u64,
    pub first: Option<Wall>,
    /// Where it ended.
    pub last: Option<Wall>,
}

impl Run {
    /// Puts another run over other points of the same past beside this one.
    pub fn join(&mut self, other: Self) {
        self.occurrences.extend(other.occurrences);
        self.occurrences.sort_by(|a, b| (a.from, &a.rule, &a.subject).cmp(&(b.from, &b.rule, &b.subject)));
        self.samples += other.samples;
        self.first = self.first.into_iter().chain(other.first).min();
        self.last = self.last.max(other.last);
    }
}

/// Two halves of a site that no rule joins, for two threads: for each point whether it is of the second. All of it is of
/// the first where some rule reads points of the whole site.
pub fn halves(rules: &RuleSet, points: &Points) -> Vec<bool> {
    let wide = |spec: &RuleSpec| spec.inputs.iter().skip(1).any(|input| input.scope == Scope::Site);
    let mut halves = vec![false; points.len()];
    if rules.rules().any(|(_, spec)| wide(spec)) {
        return halves;
    }
    let mut groups = BTreeMap::<[&str; 3], Vec<PointIx>>::new();
    for (_, device) in points.devices() {
        let (area, building) = (device.place.area.as_str(), device.place.building.as_str());
        // What is in no building is joined by nothing beyond its device.
        let alone = if area.is_empty() && building.is_empty() { device.id.as_str() } else { "" };
        groups.entry([area, building, alone]).or_default().extend(device.points());
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.len()));
    let mut sizes = [0, 0];
    for group in groups {
        let second = sizes[1] < sizes[0];
        sizes[usize::from(second)] += group.len();
        group.into_iter().for_each(|point| halves[point.0 as usize] = second);
    }
    halves
}

/// A rule set on its way through the past.
pub struct Replay {
    engine: Engine,
    /// By the alarm that stands for it now, its place in the run.
    open: HashMap<AlarmId, usize>,
    run: Run,
    now: Now,
}

impl Replay {
    pub fn new(rules: RuleSet, points: &Points) -> Self {
        // Nobody is called: the past is past.
        let desk = DeskSettings { system_escalate_after: None, ..DeskSettings::default() };
        let mut engine = Engine::new(rules.without_reminders(), desk, 0);
        engine.bind(points);
        Self { engine, open: HashMap::new(), run: Run::default(), now: Now::default() }
    }

    /// Hears samples in the order of their times, made by [`sample`]. One that lies before its predecessor counts as
    /// simultaneous with it. `heard` is told every transition that comes of them.
    pub fn handle_samples<'s>(
        &mut self,
        points: &Points,
        samples: impl IntoIterator<Item = &'s Sample>,
        mut heard: impl FnMut(&Transition),
    ) {
        for sample in samples {
            self.walk_to(points, sample.received, &mut heard);
            self.run.first.get_or_insert(sample.time);
            self.run.samples += 1;
            self.engine.handle_samples(self.now, points, std::slice::from_ref(sample));
            self.take(&mut heard);
        }
    }

    /// Lets the time pass until `end` and gives what came of it all.
    pub fn finish(mut self, points: &Points, end: Wall, mut heard: impl FnMut(&Transition)) -> Run {
        self.walk_to(points, clocks(end), &mut heard);
        self.run.last = self.run.first.map(|_| self.now.wall);
        self.run
    }

    /// Jumps from deadline to deadline.
    fn walk_to(&mut self, points: &Points, to: Now, heard: &mut impl FnMut(&Transition)) {
        while let Some(due) = self.engine.poll_timeout().filter(|due| *due <= to.mono) {
            // Before the first sample there are no deadlines, so its wall clock is that of the monotonic one.
            let micros = i64::try_from(due.nanos().div_ceil(1_000)).unwrap_or(i64::MAX);
            self.now = Now { mono: due, wall: Wall::from_micros(micros).min(to.wall) };
            self.engine.handle_timeout(self.now, points);
            self.take(heard);
        }
        if to.mono > self.now.mono {
            self.now = to;
        }
    }

    fn take(&mut self, heard: &mut impl FnMut(&Transition)) {
        while let Some(effect) = self.engine.poll_effect() {
            let Effect::Transition(transition) = effect else { continue };
            heard(&transition);
            let alarm = &transition.alarm;
            let at = transition.at.wall;
            let run = &mut self.run.occurrences;
            let open = self.open.get(&alarm.id).copied();
            match (&transition.cause, open) {
                (Cause::Raised | Cause::Realarmed, None) => {
                    self.open.insert(alarm.id, run.len());
                    run.push(Occurrence::new(alarm, at));
                }
                (Cause::LevelChanged(_), Some(at_run)) => {
                    run[at_run].levels.push((at, alarm.level));
                    run[at_run].peak = run[at_run].peak.max(alarm.level);
                }
                (Cause::Returned, Some(at_run)) => {
                    run[at_run].to = Some(at);
                    self.open.remove(&alarm.id);
                }
                _ => {}
            }
            let who = || "replay".to_owned();
            let mut say = |what| self.engine.handle_command(self.now, Command { who: who(), what }).is_ok();
            if alarm.is_open() && alarm.acknowledged.is_none() {
                say(Action::Acknowledge { alarm: alarm.id });
            } else if alarm.is_open() && !alarm.is_active() {
                say(Action::Reset { alarm: alarm.id });
            }
        }
    }
}

/// How often and how long, of a rule or a point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    pub raised: u64,
    /// By their worst: blue, yellow, orange, red.
    pub by_level: [u64; 4],
    pub lasted: Duration,
}

impl Run {
    /// For each key that `key` gives.
    pub fn totals<K: Ord>(&self, key: impl Fn(&Occurrence) -> K) -> BTreeMap<K, Total> {
        let mut totals = BTreeMap::<K, Total>::new();
        for occurrence in &self.occurrences {
            let total = totals.entry(key(occurrence)).or_default();
            total.raised += 1;
            total.by_level[occurrence.peak as usize] += 1;
            total.lasted += self.lasted(occurrence);
        }
        totals
    }

    /// How long it stood, as far as the run goes.
    pub fn lasted(&self, occurrence: &Occurrence) -> Duration {
        occurrence.to.or(self.last).map_or(Duration::ZERO, |to| to.since(occurrence.from))
    }
}

/// One thing that is otherwise with the other rules.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair<'r> {
    /// `None`: gained.
    pub before: Option<&'r Occurrence>,
    /// `None`: lost.
    pub after: Option<&'r Occurrence>,
}

/// What two runs over the same past differ in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    pub same: u64,
    pub gained: u64,
    pub lost: u64,
    pub earlier: u64,
    pub later: u64,
    /// Another worst level; such a one may be earlier or later as well.
    pub other_level: u64,
}

impl<'r> Pair<'r> {
    /// Both of them.
    pub fn both(&self) -> Option<(&'r Occurrence, &'r Occurrence)> {
        self.before.zip(self.after)
    }

    /// Either of them.
    pub fn any(&self) -> &'r Occurrence {
        self.before.or(self.after).expect("a pair is made of one occurrence at least")
    }

    pub fn is_same(&self) -> bool {
        self.both().is_some_and(|(before, after)| before.from == after.from && before.peak == after.peak)
    }

    fn count(&self, into: &mut Differences) {
        match (self.before, self.after) {
            (None, _) => into.gained += 1,
            (_, None) => into.lost += 1,
            (Some(before), Some(after)) => {
                into.same += u64::from(self.is_same());
                into.earlier += u64::from(after.from < before.from);
                into.later += u64::from(after.from > before.from);
                into.other_level += u64::from(after.peak != before.peak);
            }
        }
    }
}

/// Pairs what is about the same rule and subject and overlaps in time, in the order of time.
pub fn compare<'r>(before: &'r Run, after: &'r Run) -> Vec<Pair<'r>> {
    type Sides<'r> = [Vec<&'r Occurrence>; 2];
    let mut keys = BTreeMap::<(&RuleId, &Subject), Sides<'r>>::new();
    for (side, run) in [before, after].into_iter().enumerate() {
        for occurrence in &run.occurrences {
            keys.entry((&occurrence.rule, &occurrence.subject)).or_default()[side].push(occurrence);
        }
    }
    let mut pairs = Vec::new();
    for [before, after] in keys.into_values() {
        let (mut before, mut after) = (before.into_iter().peekable(), after.into_iter().peekable());
        loop {
            pairs.push(match (before.peek(), after.peek()) {
                (None, None) => break,
                (Some(b), Some(a)) if b.overlaps(a) => Pair { before: before.next(), after: after.next() },
                (Some(b), Some(a)) if a.from < b.from => Pair { before: None, after: after.next() },
                (Some(_), _) => Pair { before: before.next(), after: None },
                (None, _) => Pair { before: None, after: after.next() },
            });
        }
    }
    pairs.sort_by(|a, b| {
        let (a, b) = (a.any(), b.any());
        (a.from, &a.rule, &a.subject).cmp(&(b.from, &b.rule, &b.subject))
    });
    pairs
}

/// The differences of each key that `key` gives.
pub fn differences<K: Ord>(pairs: &[Pair<'_>], key: impl Fn(&Occurrence) -> K) -> BTreeMap<K, Differences> {
    let mut totals = BTreeMap::<K, Differences>::new();
    for pair in pairs {
        pair.count(totals.entry(key(pair.any())).or_default());
    }
    totals
}

/// Judges again what was judged then: the rule of `rules` about `subject`, from the samples of the past in the order of
/// their times. Of each point it hears no more than was known then, and of others nothing. `None` where there is no such
/// rule for this subject, or history no longer has what was judged.
pub fn judge_again(
    rules: &mut RuleSet,
    points: &Points,
    rule: RuleIx,
    subject: PointIx,
    then: &Grounds,
    samples: impl IntoIterator<Item = Sample>,
) -> Option<Judged> {
    let known: HashMap<PointIx, (Wall, Wall)> = then
        .inputs
        .iter()
        .filter_map(|input| {
            let received = Wall::from_micros(then.at.micros().saturating_sub_unsigned(input.age.as_micros() as u64));
            Some((points.find(input.point.as_str())?, (input.time, received)))
        })
        .collect();
    let held = |each, point| then.held.filter(|_| (each, point) == (rule, subject));
    let (mut own, mut out) = (None, Vec::new());
    for mut sample in samples {
        let Some((last, received)) = known.get(&sample.point).filter(|(last, _)| sample.time <= *last) else {
            continue;
        };
        if sample.time == *last {
            sample.received = clocks(*received);
        }
        rules.handle_samples(sample.received, points, std::slice::from_ref(&sample), &held, &mut out);
        out.clear();
        if sample.point == subject {
            own = Some(sample);
        }
    }
    rules.judge(rule, &own?, clocks(then.at), points, then.held)
}

/// What is otherwise in a verdict that was judged again.
#[derive(Clone, Debug, PartialEq)]
pub enum Otherwise {
    /// The rule is another version.
    Rule,
    /// A limit has another number, is gone (`is` is `None`) or new (`was` is `None`).
    Limit {
        was: Option<LimitUsed>,
        is: Option<LimitUsed>,
    },
    /// A reading is not what was heard then: it was not kept, or is of another quality.
    Input {
        role: Arc<str>,
        was: Option<Value>,
        is: Option<Value>,
    },
    Window {
        name: Arc<str>,
        was: Option<f64>,
        is: Option<f64>,
    },
    /// The verdict itself.
    Said,
}

/// Compares what a verdict rested on with what it rests on now.
pub fn otherwise(was: &Grounds, is: &Grounds) -> Vec<Otherwise> {
    let mut all = Vec::new();
    if was.rule != is.rule {
        all.push(Otherwise::Rule);
    }
    let find = |limits: &[LimitUsed], name: &str| limits.iter().find(|limit| limit.name == name).cloned();
    for limit in was.limits.iter() {
        let now = find(&is.limits, &limit.name);
        if now.as_ref().map(|now| now.value) != Some(limit.value) {
            all.push(Otherwise::Limit { was: Some(limit.clone()), is: now });
        }
    }
    for limit in is.limits.iter().filter(|limit| find(&was.limits, &limit.name).is_none()) {
        all.push(Otherwise::Limit { was: None, is: Some(limit.clone()) });
    }
    for input in &was.inputs {
        let now = is.inputs.iter().find(|now| now.role == input.role && now.point == input.point);
        // What is bad is not used; neither it nor texts are all in history.
        let usable = |value: &Option<Value>, quality| value.clone().filter(|_| !matches!(quality, Quality::Bad(_)));
        let (old, new) = (usable(&input.value, input.quality), now.and_then(|now| usable(&now.value, now.quality)));
        let is_text = matches!(old, Some(Value::Text(_)));
        if old != new && !is_text {
            all.push(Otherwise::Input { role: Arc::clone(&input.role), was: old, is: new });
        }
    }
    for window in &was.windows {
        let now = is.windows.iter().find(|now| now.name == window.name).and_then(|now| now.value);
        let near = match (window.value, now) {
            (Some(was), Some(is)) => (was - is).abs() <= 1e-9 * was.abs().max(is.abs()).max(1e-9),
            (was, is) => was == is,
        };
        if !near {
            all.push(Otherwise::Window { name: Arc::clone(&window.name), was: window.value, is: now });
        }
    }
    if was.said != is.said {
        all.push(Otherwise::Said);
    }
    all
}

#[cfg(test)]
mod tests {
    use anmin_sensors::document::Faults;
    use anmin_sensors::point::{DeviceId, Form, KINDS, Kind, Place, PointId, PointSpec};
    use anmin_sensors::reading::Fault;

    use super::*;
    use crate::library;

    fn shipped() -> RuleSet {
        RuleSet::load(library::shipped(), Vec::new(), &Faults::default())
    }

    /// Two rooms, each with a device for every kind.
    fn site() -> Points {
        let mut points = Points::default();
        for room in ["101", "202"] {
            let [unit, floor] = ["1"; 2].map(str::to_owned);
            let place =
                Place { building: room[..1].to_owned(), unit, floor, room: room.to_owned(), ..Place::default() };
            for kind in KINDS.iter().filter(|info| info.form != Form::Text).filter_map(|info| Kind::named(info.name)) {
                let spec = Arc::new(PointSpec::plain("value", kind));
                let id = DeviceId::new(format!("{room}-{}", kind.as_str()));
                points.add(id, None, &"test".into(), &Arc::new(place.clone()), &[spec]).expect("each kind once a room");
            }
        }
        points
    }

    /// Found by fuzzing (2026-11-28): a reading of the year 4637 in a list of this year's kept `anmin replay` busy for ever.
    #[test]
    fn what_lies_beyond_the_clock_is_one_moment_and_comes_to_an_end() {
        let points = site();
        let point = points.find("101-fire.smoke/value").expect("each kind is there");
        let at = |year: i64| Wall::from_millis((year - 1970) * 365 * 86_400_000);
        let smoke = |year| sample(point, at(year), Some(Value::Flag(true)), Quality::Good);
        let mut replay = Replay::new(shipped(), &points);
        replay.handle_samples(&points, &[smoke(2026), smoke(4637), smoke(4638)], |_| {});
        let run = replay.finish(&points, Wall::from_micros(i64::MAX), |_| {});
        assert!(run.occurrences.iter().any(|it| it.rule.as_str() == "fire/smoke" && it.to.is_none()));
    }

    /// SplitMix64: good enough to tell stories.
    struct Chance(u64);

    impl Chance {
        fn below(&mut self, end: u64) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z ^ (z >> 31)) % end
        }
    }

    /// Values that wander around the limits of the shipped rules, flags that change, and now and then what cannot be used.
    fn story(seed: u64, points: &Points, length: usize) -> Vec<Sample> {
        let chance = &mut Chance(seed);
        let rules = shipped();
        let limits = |kind: Kind| -> Vec<f64> {
            let of_kind = rules.rules().filter(|(_, spec)| spec.inputs[0].kind == kind);
            let unit = kind.info().unit;
            of_kind
                .flat_map(|(_, spec)| spec.limits.values().filter(|limit| limit.unit == unit))
                .map(|limit| limit.value)
                .collect()
        };
        let limits: Vec<Vec<f64>> = points.iter().map(|(_, point)| limits(point.spec.kind)).collect();
        let mut factor = vec![0.3; points.len()];
        let mut at = Wall::from_millis(1_800_000_000_000);
        let mut samples = Vec::new();
        while samples.len() < length {
            if chance.below(3) > 0 {
                let most = [40_000_000, 3_000_000][chance.below(2) as usize];
                at = at.plus(Duration::from_micros(chance.below(most)));
            }
            let point = chance.below(points.len() as u64) as usize;
            // A point says one thing at one moment.
            let twice = |sample: &&Sample| sample.time == at && sample.point.0 as usize == point;
            if samples.iter().rev().take(points.len()).any(|sample| twice(&sample)) {
                at = at.plus(Duration::from_micros(1));
            }
            factor[point] = (factor[point] + (chance.below(61) as f64 - 29.0) / 100.0).clamp(0.0, 1.4);
            let quality = match chance.below(40) {
                0 => Quality::Bad(Fault::Comms),
                1 => Quality::Bad(Fault::Silent),
                2 => Quality::Uncertain(Doubt::Jump),
                3 => Quality::Uncertain(Doubt::Stuck),
                _ => Quality::Good,
            };
            let value = match points.point(PointIx(point as u32)).spec.kind.info().form {
                Form::Flag => Value::Flag(factor[point] > 0.9),
                _ => {
                    let limit = limits[point].get(chance.below(limits[point].len().max(1) as u64) as usize);
                    Value::Number(limit.copied().unwrap_or(10.0) * factor[point])
                }
            };
            let value = (!matches!(quality, Quality::Bad(_))).then_some(value);
            samples.push(sample(PointIx(point as u32), at, value, quality));
        }
        samples
    }

    fn told(transition: &Transition) -> String {
        let Transition { cause, at, alarm, .. } = transition;
        let cause = cause.as_str();
        format!("{} {} {} {cause} {}", at.wall.micros(), alarm.rule, alarm.subject.as_str(), alarm.level.as_str())
    }

    fn replayed(points: &Points, samples: &[Sample], end: Option<Wall>) -> (Vec<String>, Run) {
        let mut all = Vec::new();
        let mut replay = Replay::new(shipped(), points);
        replay.handle_samples(points, samples, |transition| all.push(told(transition)));
        let run = match end {
            Some(end) => replay.finish(points, end, |transition| all.push(told(transition))),
            None => replay.run,
        };
        (all, run)
    }

    /// A digit of a time stamp was lost, and between two readings lie decades.
    #[test]
    fn an_alarm_that_stands_for_decades_costs_no_more_than_one_that_stands_for_a_day() {
        let points = site();
        let gas = points.iter().find(|(_, point)| point.spec.kind.as_str() == "gas.lel").expect("a point each kind").0;
        let red =
            |seconds: i64| sample(gas, Wall::from_millis(seconds * 1_000), Some(Value::Number(60.0)), Quality::Good);
        let year = 365 * 86_400;
        let samples = [red(1), red(5), red(10 * year)];
        let (told, run) = replayed(&points, &samples, Some(Wall::from_millis(20 * year * 1_000)));
        assert!(told.len() < 20, "{} transitions", told.len());
        assert!(run.occurrences.iter().any(|it| it.rule.as_str() == "gas/leak" && it.to.is_none()));
    }

    /// Goal: what was on duty is what a replay of its history says. Method: an engine on duty hears a story in batches, is
    /// woken by its timers and also without any need, and a person acts at once; its transitions are those of the replay.
    #[test]
    fn a_replay_of_what_was_heard_gives_the_transitions_that_came_of_it() {
        let points = site();
        let mut count = 0;
        for seed in 0..3 {
            let samples = story(seed, &points, 4_000);
            let mut live = Vec::new();
            let desk = DeskSettings { system_escalate_after: None, ..DeskSettings::default() };
            let mut engine = Engine::new(shipped().without_reminders(), desk, 4711 + seed);
            engine.bind(&points);
            // On duty the monotonic clock begins with the process, and a clock's step moves nothing.
            let start = samples[0].time;
            let on_duty = |at: Wall| Now { mono: Mono::from_nanos(7_000_000_000), wall: start }.plus(at.since(start));
            let mut take = |engine: &mut Engine, now: Now| {
                while let Some(effect) = engine.poll_effect() {
                    let Effect::Transition(transition) = effect else { continue };
                    live.push(told(&transition));
                    let alarm = &transition.alarm;
                    let what = match alarm.acknowledged {
                        None if alarm.is_open() => Action::Acknowledge { alarm: alarm.id },
                        Some(_) if alarm.is_open() && !alarm.is_active() => Action::Reset { alarm: alarm.id },
                        _ => continue,
                    };
                    let _ = engine.handle_command(now, Command { who: "li".to_owned(), what });
                }
            };
            let end = samples[samples.len() - 1].time.plus(Duration::from_secs(3 * 86_400));
            for batch in samples.chunk_by(|a, b| a.time == b.time) {
                let now = on_duty(batch[0].time);
                while let Some(due) = engine.poll_timeout().filter(|due| *due <= now.mono) {
                    let then = on_duty(start.plus(due.since(on_duty(start).mono)));
                    let then = Now { mono: due, ..then };
                    engine.handle_timeout(then, &points);
                    take(&mut engine, then);
                }
                engine.handle_timeout(now, &points);
                let batch: Vec<Sample> =
                    batch.iter().map(|sample| Sample { received: on_duty(sample.time), ..sample.clone() }).collect();
                engine.handle_samples(now, &points, &batch);
                take(&mut engine, now);
            }
            let (again, _) = replayed(&points, &samples, None);
            // The wall clock of a deadline is rounded to microseconds either way, and what comes at one moment has no order.
            let by_alarm = |all: &[String]| -> Vec<(String, i64)> {
                let split = |line: &String| {
                    line.split_once(' ').map(|(at, what)| (what.to_owned(), at.parse::<i64>().unwrap_or(0)))
                };
                let mut all: Vec<_> = all.iter().filter_map(split).collect();
                all.sort();
                all
            };
            let (live, again) = (by_alarm(&live), by_alarm(&again));
            for (a, b) in live.iter().zip(&again) {
                assert!(a.0 == b.0 && a.1.abs_diff(b.1) <= 1, "seed {seed}: {a:?} on duty, {b:?} in replay");
            }
            assert_eq!(live.len(), again.len(), "seed {seed}");
            count += live.len();
            let (whole, run) = replayed(&points, &samples, Some(end));
            assert!(whole.len() >= again.len());
            let raised = whole.iter().filter(|line| line.contains(" raised ")).count();
            assert!(run.occurrences.len() >= raised, "each is an occurrence");
            assert_eq!(run.samples, 4_000);
        }
        assert!(count > 500, "the stories are too quiet: {count} transitions");
    }

    #[test]
    fn a_rule_cannot_see_the_future() {
        let points = site();
        let samples = story(99, &points, 3_000);
        let (whole, _) = replayed(&points, &samples, None);
        assert!(whole.len() > 100, "{}", whole.len());
        for length in [1, 10, 500, 1_200, 2_000, 2_999] {
            let (prefix, _) = replayed(&points, &samples[..length], None);
            assert_eq!(prefix, whole[..prefix.len()], "after {length} samples");
        }
    }

    #[test]
    fn two_halves_of_a_site_come_to_the_same_as_the_whole() {
        let points = site();
        let samples = story(5, &points, 2_000);
        let end = samples[samples.len() - 1].time.plus(Duration::from_secs(3_600));
        let (_, mut whole) = replayed(&points, &samples, Some(end));
        let halves = halves(&shipped(), &points);
        let [mut first, second] = [false, true].map(|half| {
            let own: Vec<Sample> =
                samples.iter().filter(|sample| halves[sample.point.0 as usize] == half).cloned().collect();
            assert!(own.len() > 500, "{}", own.len());
            replayed(&points, &own, Some(end)).1
        });
        first.join(second);
        whole.join(Run::default());
        assert_eq!(first, whole);
        let wide = "title = { zh = \"a\", en = \"a\" }\nmessage = { zh = \"a\", en = \"a\" }\nadvice = { zh = \"a\", en = \"a\" }\n\
            [[input]]\nrole = \"a\"\nkind = \"fire.smoke\"\n[[input]]\nrole = \"b\"\nkind = \"fire.smoke\"\nscope = \"site\"\n";
        let wide = crate::set::RuleSource {
            folder: "t".to_owned(),
            name: "t/wide".to_owned(),
            toml: wide.to_owned(),
            script: "fn judge(a, b) { if a.on && b.on { red() } else { normal() } }".to_owned(),
        };
        let wide = RuleSet::load(vec![wide], Vec::new(), &Faults::default());
        assert_eq!(wide.broken(), []);
        assert!(!super::halves(&wide, &points).contains(&true), "a rule joins them");
    }

    /// Intervals in minutes, `-` for one that stands at the end; levels by their first letters.
    #[test]
    fn occurrences_are_paired_by_what_they_are_about_and_when() {
        let occurrence = |text: &str| {
            let words: Vec<&str> = text.split(' ').collect();
            let minute = |text: &str| text.parse::<i64>().ok().map(|minutes| Wall::from_millis(minutes * 60_000));
            let level = Level::ALL.into_iter().find(|level| level.as_str().starts_with(words[3])).expect("a level");
            let from = minute(words[1]).expect("a beginning");
            Occurrence {
                rule: RuleId::new(format!("gas/{}", words[0])),
                subject: Subject::Point(PointId::new("g/lel")),
                class: Class::System,
                title: Text::default(),
                message: Text::default(),
                from,
                to: minute(words[2]),
                peak: level,
                levels: vec![(from, level)],
            }
        };
        let cases = [
            ("a 1 5 y", "a 1 5 y", "a same"),
            ("a 1 5 y", "a 1 9 y", "a same"),
            ("a 1 5 y", "a 3 5 y", "a later"),
            ("a 3 5 y", "a 1 4 y", "a earlier"),
            ("a 1 5 y", "a 1 5 o", "a level"),
            ("a 1 5 y", "", "a lost"),
            ("", "a 1 5 y", "a gained"),
            ("a 1 5 y", "b 1 5 y", "a lost, b gained"),
            ("a 1 2 y", "a 3 4 y", "a lost, a gained"),
            ("a 3 4 y", "a 1 2 y", "a gained, a lost"),
            ("a 1 - y", "a 3 4 y, a 6 7 y", "a later, a gained"),
            ("a 1 2 y, a 3 4 y", "a 1 9 y", "a same, a lost"),
            ("a 1 2 y, a 6 7 y", "a 6 8 r", "a lost, a level"),
        ];
        for (before, after, expected) in cases {
            let run = |text: &str| Run {
                occurrences: text.split(", ").filter(|text| !text.is_empty()).map(occurrence).collect(),
                ..Run::default()
            };
            let (before_run, after_run) = (run(before), run(after));
            let pairs = compare(&before_run, &after_run);
            let said: Vec<String> = pairs
                .iter()
                .map(|pair| {
                    let change = match pair.both() {
                        None if pair.before.is_none() => "gained",
                        None => "lost",
                        Some((before, after)) if after.from < before.from => "earlier",
                        Some((before, after)) if after.from > before.from => "later",
                        Some(_) if !pair.is_same() => "level",
                        Some(_) => "same",
                    };
                    format!("{} {change}", pair.any().rule.as_str().trim_start_matches("gas/"))
                })
                .collect();
            assert_eq!(said.join(", "), expected, "{before:?} and {after:?}");
            let total = differences(&pairs, |_| ()).remove(&()).unwrap_or_default();
            let Differences { same, gained, lost, earlier, later, other_level } = total;
            let each = same + gained + lost + earlier + later + other_level;
            assert_eq!(each as usize, pairs.len(), "{before:?} and {after:?}");
        }
    }
}
