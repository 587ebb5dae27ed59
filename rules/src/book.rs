//! The book of all open alarms: verdicts and commands in, transitions out.
//!
//! One entry a rule and subject. An entry follows two things that never wait for each other: the condition, which the
//! world decides ([`Track`]: which level has held for how long), and the alarm, which people owe something
//! (acknowledge, reset). Delays run on the monotonic clock; the wall clock is only written down, and used once, after
//! a restart, to find out how much of a deadline was left. This module does not know stations, channels or scripts.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use anmin_sensors::point::{Hazard, Name, Place, PointIx, Points};
use anmin_sensors::time::{Mono, Now, Wall};

use crate::alarm::{
    Action, Alarm, AlarmId, AlarmState, By, Cause, Class, Condition, Pending, Refusal, Shelf, Subject, Transition,
};
use crate::broadcast::BroadcastStep;
use crate::drill::{DrillId, marked};
use crate::incident::IncidentId;
use crate::rule::{Evidence, Finding, Judged, Level, OnBad, RuleId, RuleIx, RuleSpec, Text, Tuning, Verdict, Why};
use crate::words::{Fields, render};

/// Who does what nobody did.
pub(crate) const ANMIN: &str = "anmin";

/// What people may do with alarms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BookSettings {
    pub max_shelve: Duration,
    pub max_shelve_red: Duration,
}

/// A condition that anmin itself watches; rules of a site come as [`Judged`].
#[derive(Clone, Debug)]
pub(crate) struct SystemReport {
    pub spec: Arc<RuleSpec>,
    pub subject: Subject,
    pub place: Arc<Place>,
    /// `None`: the condition is over.
    pub trouble: Option<(Level, Text)>,
    pub evidence: Evidence,
}

/// All open alarms and all conditions that wait for their on-delay.
pub struct AlarmBook {
    settings: BookSettings,
    ids: Ids,
    /// The drill that all alarms are part of.
    drill: Option<DrillId>,
    /// By slot, which counts up: iteration is in the order of creation, the same in every run.
    entries: BTreeMap<Slot, Entry>,
    by_key: HashMap<(RuleId, Subject), Slot>,
    by_alarm: HashMap<AlarmId, Slot>,
    by_instance: HashMap<(RuleIx, PointIx), Slot>,
    timers: BTreeSet<(Mono, Slot)>,
    next_slot: Slot,
    transitions: VecDeque<Transition>,
    /// When each condition came lately, whether or not its alarm was closed in between.
    came: HashMap<(RuleId, Subject), VecDeque<Mono>>,
    /// How many there were when the old ones were last thrown away.
    came_kept: usize,
    chatter: VecDeque<Chatter>,
    pending: VecDeque<Pending>,
    /// Whether what is written down now has a wrong time, maybe.
    clock_doubtful: bool,
}

/// A condition that comes so often within so long chatters. From then on it must be gone for as long before it counts as
/// gone: the alarm is held, so that nobody is told every minute, and nothing that is worse is held back.
const CHATTER_TIMES: usize = 5;
const CHATTER_WITHIN: Duration = Duration::from_secs(600);

/// An alarm has begun to chatter, or has come to rest.
pub(crate) struct Chatter {
    pub alarm: Arc<Alarm>,
    pub begins: bool,
}

type Slot = u64;

struct Entry {
    rule: RuleId,
    subject: Subject,
    class: Class,
    place: Arc<Place>,
    /// What people call the device.
    label: Name,
    /// `None` after a restart where the rule is gone.
    terms: Option<Terms>,
    /// Nobody judges this any more: the rule is gone, or switched off here.
    abandoned: bool,
    track: Track,
    /// The newest finding of each level: what a message is made of when its level is entered later.
    seen: [Option<Box<(Finding, Evidence)>>; 4],
    /// The words of a system condition, given with it.
    said: Option<Text>,
    /// The newest evidence of any verdict.
    latest: Evidence,
    chatters: bool,
    /// Nothing has been heard of the condition since the restart.
    unheard: bool,
    alarm: Option<Arc<Alarm>>,
    instance: Option<(RuleIx, PointIx)>,
    escalate: Option<Mono>,
    realarm: Option<Mono>,
    unshelve: Option<Mono>,
    /// Its place in `timers`.
    due: Option<Mono>,
    /// The delays that were last spoken of, as in [`Track::running`].
    told: Running,
}

/// The parts of a rule that the book follows, with the subject's own numbers.
#[derive(Clone)]
struct Terms {
    spec: Arc<RuleSpec>,
    on_delay: Duration,
    off_delay: Duration,
    escalate_after: Option<Duration>,
}

impl Terms {
    fn new(spec: &Arc<RuleSpec>, tuning: &Tuning) -> Self {
        Self {
            spec: Arc::clone(spec),
            on_delay: tuning.on_delay,
            off_delay: tuning.off_delay,
            escalate_after: tuning.escalate_after.map(at_least_a_second),
        }
    }

    /// Nobody is woken again and again for a yellow or blue condition of anmin itself.
    fn system(spec: &Arc<RuleSpec>, level: Level) -> Self {
        let mut terms = Self::new(spec, &Tuning::of(spec));
        terms.escalate_after = terms.escalate_after.filter(|_| level >= Level::Orange);
        terms
    }

    fn realarm_after(&self) -> Option<Duration> {
        self.spec.realarm_after.map(at_least_a_second)
    }
}

/// A period that repeats must never be nothing.
fn at_least_a_second(period: Duration) -> Duration {
    period.max(Duration::from_secs(1))
}

/// Which levels the condition has reached and left, and since when.
///
/// A level is entered when the verdict has been at or above it for the on-delay without a break, and left when it has
/// been below it for the off-delay without a break. Not knowing ends no alarm and forgets no danger: it stops every
/// off-delay and lets an on-delay that was running go on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Track {
    held: Option<Level>,
    above: [Option<Mono>; 4],
    below: [Option<Mono>; 4],
}

/// Levels as in [`Pending`]: `above` and `below`.
type Running = (Option<Level>, Option<Level>);

impl Track {
    fn abnormal(&mut self, level: Level, at: Mono) {
        for each in Level::ALL {
            if each <= level {
                self.above[each as usize].get_or_insert(at);
                self.below[each as usize] = None;
            } else {
                self.above[each as usize] = None;
                self.below[each as usize].get_or_insert(at);
            }
        }
    }

    fn normal(&mut self, at: Mono) {
        for each in Level::ALL {
            self.above[each as usize] = None;
            self.below[each as usize].get_or_insert(at);
        }
    }

    fn unknown(&mut self) {
        self.below = [None; 4];
    }

    /// Not knowing counts as `level`; what is known to be worse stays.
    fn unknown_as(&mut self, level: Level, at: Mono) {
        self.unknown();
        for each in Level::ALL.into_iter().filter(|each| *each <= level) {
            self.above[each as usize].get_or_insert(at);
        }
    }

    fn advance(&mut self, now: Mono, on_delay: Duration, off_delay: Duration) {
        let entered = |level: Level| self.above[level as usize].is_some_and(|since| now.since(since) >= on_delay);
        let left = |level: Level| self.below[level as usize].is_some_and(|since| now.since(since) >= off_delay);
        let highest = |wanted: &dyn Fn(Level) -> bool| Level::ALL.into_iter().rev().find(|level| wanted(*level));
        let entered = highest(&entered);
        let kept = self.held.and_then(|held| highest(&|level| level <= held && !left(level)));
        self.held = entered.max(kept);
    }

    /// The highest level that is held or waits for its delay.
    fn reached(&self) -> Option<Level> {
        let begun = Level::ALL.into_iter().rev().find(|level| self.above[*level as usize].is_some());
        self.held.max(begun)
    }

    /// When [`Track::advance`] will change something by itself.
    fn due(&self, on_delay: Duration, off_delay: Duration) -> Option<Mono> {
        let entering = Level::ALL
            .into_iter()
            .filter(|level| Some(*level) > self.held)
            .filter_map(|level| self.above[level as usize].map(|since| since.plus(on_delay)));
        let leaving = self.held.and_then(|held| self.below[held as usize]).map(|since| since.plus(off_delay));
        entering.chain(leaving).min()
    }

    /// The delays that run: up to which level, out of which level and those above it. Nothing when none does, whatever
    /// else the track knows.
    fn running(&self) -> Running {
        let above = Level::ALL.into_iter().rev().find(|level| self.above[*level as usize].is_some());
        let below = Level::ALL.into_iter().find(|level| self.below[*level as usize].is_some());
        let rising = above > self.held;
        let falling = self.held.is_some_and(|held| below.is_some_and(|below| below <= held));
        if rising || falling { (above, below) } else { Running::default() }
    }

    fn is_pending(&self) -> bool {
        self.above.iter().any(Option::is_some)
    }

    /// As the condition of a restored alarm stands: at its level until somebody knows better.
    fn restored(alarm: &Alarm) -> Self {
        Self { held: alarm.is_active().then_some(alarm.level), ..Self::default() }
    }
}

impl AlarmBook {
    /// `seed` goes into the ids of alarms.
    pub fn new(settings: BookSettings, seed: u64) -> Self {
        Self {
            settings,
            ids: Ids::new(seed),
            drill: None,
            entries: BTreeMap::new(),
            by_key: HashMap::new(),
            by_alarm: HashMap::new(),
            by_instance: HashMap::new(),
            timers: BTreeSet::new(),
            next_slot: 0,
            transitions: VecDeque::new(),
            came: HashMap::new(),
            came_kept: 0,
            chatter: VecDeque::new(),
            pending: VecDeque::new(),
            clock_doubtful: false,
        }
    }

    /// From now on the wall clock is in doubt, or no longer: changes are marked meanwhile. No delay hears of it.
    pub fn set_clock_doubtful(&mut self, doubtful: bool) {
        self.clock_doubtful = doubtful;
    }

    /// From the first alarm on, all are a drill's.
    pub(crate) fn set_drill(&mut self, drill: DrillId) {
        self.drill = Some(drill);
    }

    pub(crate) fn is_drill(&self) -> bool {
        self.drill.is_some()
    }

    pub fn set_settings(&mut self, settings: BookSettings) {
        self.settings = settings;
    }

    /// Takes up one open alarm of the journal. Its on-delays start again; its deadlines go on where they were by the
    /// wall clock, but none waits longer than its full period, whatever the clock did in between. `spec` is `None`
    /// where the site no longer has the rule.
    pub fn restore(&mut self, now: Now, mut alarm: Arc<Alarm>, spec: Option<&Arc<RuleSpec>>) {
        if !alarm.is_open() || self.by_alarm.contains_key(&alarm.id) {
            return;
        }
        if alarm.condition != Condition::Active && alarm.condition != Condition::Normal {
            let condition = if alarm.is_active() { Condition::Active } else { Condition::Normal };
            Arc::make_mut(&mut alarm).condition = condition;
        }
        let terms = spec.map(|spec| match alarm.class {
            Class::System => Terms::system(spec, alarm.level),
            Class::Hazard(_) => Terms::new(spec, &Tuning::of(spec)),
        });
        let entry = Entry {
            rule: alarm.rule.clone(),
            subject: alarm.subject.clone(),
            class: alarm.class,
            place: Arc::clone(&alarm.place),
            label: Name::both(alarm.subject.as_str()),
            abandoned: terms.is_none(),
            terms,
            track: Track::restored(&alarm),
            seen: Default::default(),
            said: None,
            latest: alarm.evidence.clone(),
            chatters: false,
            unheard: true,
            instance: None,
            escalate: None,
            realarm: None,
            unshelve: None,
            due: None,
            told: Running::default(),
            alarm: None,
        };
        let slot = self.insert(entry);
        let max_shelve = self.max_shelve(alarm.level);
        let entry = self.entries.get_mut(&slot).expect("inserted one line above");
        let left = |until: Wall, period: Duration| now.mono.plus(until.since(now.wall).min(period));
        let terms = entry.terms.as_ref();
        // Nor longer than it had still to go when the alarm last changed, for a clock may have been set back since.
        let shelf_left = |until: Wall| until.since(alarm.changed_at).min(max_shelve);
        entry.unshelve = alarm.shelved.as_ref().map(|shelf| left(shelf.until, shelf_left(shelf.until)));
        entry.escalate = alarm
            .escalate_at
            .map(|at| left(at, terms.and_then(|terms| terms.escalate_after).unwrap_or(Duration::from_secs(3600))));
        entry.realarm = alarm
            .realarm_at
            .map(|at| left(at, terms.and_then(Terms::realarm_after).unwrap_or(Duration::from_secs(24 * 3600))));
        self.by_alarm.insert(alarm.id, slot);
        entry.alarm = Some(alarm);
        self.rearm(slot);
    }

    /// Takes up a condition whose delay ran when the last run ended: it starts again. After the alarms. `spec` is `None`
    /// where nobody judges it any more, or somebody has judged it anew.
    pub(crate) fn restore_pending(&mut self, now: Now, pending: &Pending, spec: Option<&Arc<RuleSpec>>) {
        let key = (pending.rule.clone(), pending.subject.clone());
        let known = self.by_key.get(&key).copied();
        if known.is_some_and(|slot| self.entries[&slot].told != Running::default()) {
            // It runs already, and what was said of it then holds.
            return;
        }
        let Some(spec) = spec else {
            let (above, below) = Running::default();
            self.pending.push_back(Pending { above, below, ..pending.clone() });
            return;
        };
        let slot = known.unwrap_or_else(|| self.insert(Entry::new(key.0, key.1, pending.class)));
        let entry = self.entries.get_mut(&slot).expect("every index names a slot that is there");
        if entry.alarm.is_none() {
            entry.place = Arc::clone(&pending.place);
            entry.terms = Some(Terms::new(spec, &Tuning::of(spec)));
        }
        entry.label = pending.label.clone();
        for level in Level::ALL {
            if Some(level) <= pending.above {
                entry.track.above[level as usize] = Some(now.mono);
            }
            if pending.below.is_some_and(|below| level >= below) {
                entry.track.below[level as usize] = Some(now.mono);
            }
        }
        entry.told = (pending.above, pending.below);
        entry.latest = pending.evidence.clone();
        if let (Some(level), Some(finding)) = (pending.above, &pending.finding) {
            entry.seen[level as usize] = Some(Box::new((finding.clone(), pending.evidence.clone())));
        }
        self.rearm(slot);
        self.drop_if_empty(slot);
    }

    /// What a rule says about its subject. `tuning` holds the subject's own numbers.
    pub fn handle_judged(&mut self, now: Now, points: &Points, spec: &Arc<RuleSpec>, tuning: &Tuning, judged: &Judged) {
        let slot = match self.by_instance.get(&(judged.rule, judged.subject)) {
            Some(slot) => *slot,
            None => {
                let point = points.point(judged.subject);
                let key = (spec.id.clone(), Subject::Point(point.id.clone()));
                match self.by_key.get(&key) {
                    Some(slot) => *slot,
                    None if starts_nothing(spec, &judged.verdict) => return,
                    None => {
                        let hazard = spec.hazard.unwrap_or(point.spec.kind.info().hazard);
                        self.insert(Entry::new(key.0, key.1, Class::Hazard(hazard)))
                    }
                }
            }
        };
        let device = points.device_of(judged.subject);
        let entry = self.entries.get_mut(&slot).expect("every index names a slot that is there");
        if entry.instance != Some((judged.rule, judged.subject)) {
            if let Some(old) = entry.instance.replace((judged.rule, judged.subject)) {
                self.by_instance.remove(&old);
            }
            self.by_instance.insert((judged.rule, judged.subject), slot);
            entry.place = Arc::clone(&device.place);
            entry.label = device.label();
        }
        entry.terms = Some(Terms::new(spec, tuning));
        entry.abandoned = false;
        entry.latest = judged.evidence.clone();
        self.follow_place(now, slot);
        let entry = self.entries.get_mut(&slot).expect("looked up above");
        match &judged.verdict {
            Verdict::Normal => {
                entry.unheard = false;
                entry.track.normal(now.mono);
            }
            Verdict::Abnormal(finding) => {
                entry.unheard = false;
                // What a level looked like the last time says nothing about this time.
                for level in Level::ALL.into_iter().filter(|level| *level <= finding.level) {
                    if entry.track.above[level as usize].is_none() {
                        entry.seen[level as usize] = None;
                    }
                }
                entry.track.abnormal(finding.level, now.mono);
                entry.seen[finding.level as usize] = Some(Box::new((finding.clone(), judged.evidence.clone())));
            }
            Verdict::Undetermined(why) => match counts_as(spec, why) {
                Some(level) => {
                    let finding = Finding { level, limit: None, note: None };
                    entry.track.unknown_as(level, now.mono);
                    entry.seen[level as usize] = Some(Box::new((finding, judged.evidence.clone())));
                }
                None => entry.track.unknown(),
            },
        }
        self.settle(now, slot);
    }

    /// A condition that anmin watches by itself has come, changed or gone.
    pub(crate) fn handle_system(&mut self, now: Now, report: SystemReport) {
        let key = (report.spec.id.clone(), report.subject);
        let slot = match (self.by_key.get(&key), &report.trouble) {
            (Some(slot), _) => *slot,
            (None, None) => return,
            (None, Some(_)) => self.insert(Entry::new(key.0, key.1, Class::System)),
        };
        let entry = self.entries.get_mut(&slot).expect("every index names a slot that is there");
        entry.place = report.place;
        entry.latest = report.evidence;
        entry.unheard = false;
        match report.trouble {
            Some((level, text)) => {
                entry.terms = Some(Terms::system(&report.spec, level));
                entry.track.abnormal(level, now.mono);
                entry.said = Some(text);
            }
            None => entry.track.normal(now.mono),
        }
        self.settle(now, slot);
    }

    /// What a person says about an alarm.
    pub fn handle_command(&mut self, now: Now, who: &str, action: &Action) -> Result<(), Refusal> {
        match action {
            Action::Acknowledge { alarm } => {
                let slot = self.slot_of(*alarm)?;
                if self.alarm_at(slot).acknowledged.is_none() {
                    let by = By { who: who.to_owned(), at: now.wall };
                    let cause = Cause::Acknowledged { by: who.to_owned() };
                    self.change(now, slot, cause, |alarm| alarm.acknowledged = Some(by));
                }
                Ok(())
            }
            Action::Reset { alarm } => self.reset(now, who, *alarm),
            Action::Shelve { alarm, until, why } => self.shelve(now, who, *alarm, *until, why),
            Action::Unshelve { alarm } => {
                let slot = self.slot_of(*alarm)?;
                if self.alarm_at(slot).shelved.is_none() {
                    return Err(Refusal::not_allowed("该报警未被搁置", "the alarm is not shelved"));
                }
                self.unshelve(now, slot, Some(who.to_owned()));
                Ok(())
            }
            Action::TakeOutOfService { alarm, why } => {
                let slot = self.slot_of(*alarm)?;
                said_why(why)?;
                if self.alarm_at(slot).out_of_service.is_some() {
                    return Err(Refusal::not_allowed("该报警已停用", "the alarm is out of service already"));
                }
                let by = By { who: who.to_owned(), at: now.wall };
                let cause = Cause::TakenOutOfService { by: who.to_owned(), why: why.clone() };
                self.change(now, slot, cause, |alarm| {
                    alarm.out_of_service = Some(by);
                    alarm.shelved = None;
                });
                Ok(())
            }
            Action::ReturnToService { alarm } => {
                let slot = self.slot_of(*alarm)?;
                if self.alarm_at(slot).out_of_service.is_none() {
                    return Err(Refusal::not_allowed("该报警未停用", "the alarm is not out of service"));
                }
                let cause = Cause::ReturnedToService { by: who.to_owned() };
                self.change(now, slot, cause, |alarm| {
                    alarm.out_of_service = None;
                    annunciate_if_active(alarm);
                });
                Ok(())
            }
            // Its last step is the desk's to know.
            Action::Escalate { alarm, step, why } => self.escalate_by_hand(now, who, *alarm, *step, why),
            Action::Call { alarm, .. } | Action::CallStation { alarm, .. } | Action::Broadcast { alarm, .. } => {
                self.slot_of(*alarm).map(drop)
            }
            // Of many alarms: the watch takes it apart.
            Action::Incident { .. } | Action::OpenCase { .. } | Action::Station { .. } => Ok(()),
        }
    }

    fn reset(&mut self, now: Now, who: &str, id: AlarmId) -> Result<(), Refusal> {
        let slot = self.slot_of(id)?;
        let entry = &self.entries[&slot];
        let alarm = self.alarm_at(slot);
        // Nobody judges it any more, or it is about anmin itself and nobody has spoken of it since the restart: then
        // a person's word is the best there is.
        let abandoned = entry.abandoned || (alarm.class == Class::System && entry.unheard);
        if alarm.is_active() && !abandoned {
            return Err(Refusal::StillActive { alarm: id });
        }
        if alarm.acknowledged.is_none() {
            return Err(Refusal::NotAcknowledged { alarm: id });
        }
        if alarm.is_silenced() {
            return Err(silenced());
        }
        if abandoned {
            self.entries.get_mut(&slot).expect("found above").track = Track::default();
        }
        self.change(now, slot, Cause::Reset { by: who.to_owned() }, |alarm| {
            alarm.latched = false;
            alarm.condition = Condition::Normal;
        });
        Ok(())
    }

    fn shelve(&mut self, now: Now, who: &str, id: AlarmId, until: Wall, why: &str) -> Result<(), Refusal> {
        let slot = self.slot_of(id)?;
        said_why(why)?;
        let alarm = self.alarm_at(slot);
        if alarm.out_of_service.is_some() {
            return Err(Refusal::not_allowed("该报警已停用", "the alarm is out of service"));
        }
        if self.entries[&slot].is_by_hand() {
            return Err(Refusal::not_allowed(
                "由人按下按钮发出的报警不得搁置",
                "an alarm that a person has given by a button cannot be shelved",
            ));
        }
        let (wait, max) = (until.since(now.wall), self.max_shelve(alarm.level));
        if wait.is_zero() {
            return Err(Refusal::not_allowed("搁置的截止时间已过", "the time to shelve until has passed"));
        }
        if wait > max {
            let minutes = max.as_secs() / 60;
            return Err(Refusal::not_allowed(
                format!("{}报警最多搁置 {minutes} 分钟", alarm.level.zh()),
                format!("a {} alarm can be shelved for {minutes} minutes at most", alarm.level.as_str()),
            ));
        }
        let shelf = Shelf { until, by: who.to_owned(), why: why.to_owned() };
        self.entries.get_mut(&slot).expect("found above").unshelve = Some(now.mono.plus(wait));
        self.change(now, slot, Cause::Shelved { by: who.to_owned() }, |alarm| alarm.shelved = Some(shelf));
        Ok(())
    }

    fn unshelve(&mut self, now: Now, slot: Slot, by: Option<String>) {
        self.change(now, slot, Cause::Unshelved { by }, |alarm| {
            alarm.shelved = None;
            annunciate_if_active(alarm);
        });
    }

    /// Somebody who was called did not come forward: one step up without waiting for the timer.
    pub(crate) fn escalate(&mut self, now: Now, id: AlarmId) {
        if let Some(slot) = self.by_alarm.get(&id).copied() {
            self.escalate_at(now, slot, None);
        }
    }

    fn escalate_by_hand(&mut self, now: Now, who: &str, id: AlarmId, step: u32, why: &str) -> Result<(), Refusal> {
        let slot = self.slot_of(id)?;
        said_why(why)?;
        let alarm = self.alarm_at(slot);
        if alarm.is_silenced() {
            return Err(silenced());
        }
        match step.checked_sub(alarm.escalation) {
            // The same tap again, or the timer was faster.
            None | Some(0) => {}
            Some(1) => self.escalate_at(now, slot, Some((who, why))),
            Some(_) => {
                let (at, next) = (alarm.escalation, alarm.escalation + 1);
                return Err(Refusal::not_allowed(
                    format!("该报警现处于升级第 {at} 级，下一级是第 {next} 级"),
                    format!("the alarm stands at step {at} of its escalation: the next one is {next}"),
                ));
            }
        }
        Ok(())
    }

    /// `said`: by whom, and why; else by the clock.
    fn escalate_at(&mut self, now: Now, slot: Slot, said: Option<(&str, &str)>) {
        self.entries.get_mut(&slot).expect("the caller found the slot").escalate = None;
        let step = self.alarm_at(slot).escalation.saturating_add(1);
        let (by, why) = said.unzip();
        let cause = Cause::Escalated { step, by: by.map(str::to_owned), why: why.unwrap_or_default().to_owned() };
        self.change(now, slot, cause, |alarm| {
            alarm.escalation = step;
            alarm.peak_escalation = alarm.peak_escalation.max(step);
        });
    }

    /// Ends all conditions of people's dangers, or of anmin itself, and closes their alarms as if somebody had: a drill is over.
    pub(crate) fn end_all(&mut self, now: Now, system: bool) {
        let slots: Vec<Slot> = self.entries.keys().copied().collect();
        for slot in slots {
            let entry = self.entries.get_mut(&slot).expect("only this slot goes in its own turn");
            if (entry.class == Class::System) != system {
                continue;
            }
            entry.track = Track::default();
            let silenced = entry.alarm.as_ref().map(|alarm| (alarm.id, alarm.shelved.is_some(), alarm.is_silenced()));
            if let Some((id, shelved, true)) = silenced {
                let what = if shelved { Action::Unshelve { alarm: id } } else { Action::ReturnToService { alarm: id } };
                // It is silenced in just this way.
                let _ = self.handle_command(now, ANMIN, &what);
            }
            // What was silenced after it was over is closed by that.
            if self.entries.contains_key(&slot) {
                self.settle(now, slot);
            }
            let Some(alarm) = self.entries.get(&slot).and_then(|entry| entry.alarm.as_ref()).map(|alarm| alarm.id)
            else {
                continue;
            };
            for what in [Action::Acknowledge { alarm }, Action::Reset { alarm }] {
                // The first may have closed it, and then there is nothing to reset.
                let _ = self.handle_command(now, ANMIN, &what);
            }
        }
    }

    /// Fires one entry's timers if the earliest is due. Returns whether there was one.
    pub fn fire_one(&mut self, now: Now) -> bool {
        let Some((due, slot)) = self.timers.first().copied().filter(|(due, _)| *due <= now.mono) else {
            return false;
        };
        self.timers.remove(&(due, slot));
        self.entries.get_mut(&slot).expect("a timer names a slot that is there").due = None;
        self.settle(now, slot);
        let is_due = |at: Option<Mono>| at.is_some_and(|at| at <= now.mono);
        if self.entries.get(&slot).is_some_and(|entry| is_due(entry.unshelve)) {
            self.unshelve(now, slot, None);
        }
        if self.entries.get(&slot).is_some_and(|entry| is_due(entry.escalate)) {
            self.escalate_at(now, slot, None);
        }
        if self.entries.get(&slot).is_some_and(|entry| is_due(entry.realarm)) {
            self.change(now, slot, Cause::Realarmed, annunciate_if_active);
        }
        true
    }

    pub fn poll_transition(&mut self) -> Option<Transition> {
        self.transitions.pop_front()
    }

    pub(crate) fn poll_chatter(&mut self) -> Option<Chatter> {
        self.chatter.pop_front()
    }

    /// A notice of the time before the restart says that this alarm chatters. Returns whether it is still held.
    pub(crate) fn restore_chatter(&mut self, rule: &RuleId, subject: &str) -> bool {
        let is_it = |entry: &&mut Entry| entry.rule == *rule && entry.subject.as_str() == subject;
        let found = self.entries.values_mut().find(is_it);
        let held = found.filter(|entry| entry.alarm.as_ref().is_some_and(|alarm| alarm.is_active()));
        held.map(|entry| entry.chatters = true).is_some()
    }

    /// The next condition whose delays have begun, changed or ended.
    pub(crate) fn poll_pending(&mut self) -> Option<Pending> {
        self.pending.pop_front()
    }

    pub fn poll_timeout(&self) -> Option<Mono> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// The level that the condition of an instance has reached, whether it stands or its on-delay runs; `None` while normal. Deadbands
    /// go by it: noise around a limit that is being passed breaks no delay off.
    pub fn reached(&self, rule: RuleIx, subject: PointIx) -> Option<Level> {
        if self.by_instance.is_empty() {
            return None;
        }
        self.entries[self.by_instance.get(&(rule, subject))?].track.reached()
    }

    /// Whether a condition of an instance stands, waits for a delay, or has an alarm that is open.
    pub(crate) fn knows(&self, rule: RuleIx, subject: PointIx) -> bool {
        self.by_instance.contains_key(&(rule, subject))
    }

    /// Whether some danger stands or begins in a place that `here` names, but for instances that `leave_out` names.
    pub(crate) fn stands_in(
        &self,
        here: impl Fn(&Place) -> bool,
        leave_out: impl Fn(Option<(RuleIx, PointIx)>) -> bool,
    ) -> bool {
        self.entries.values().any(|entry| {
            matches!(entry.class, Class::Hazard(hazard) if hazard != Hazard::Device)
                && (entry.track.held.is_some() || entry.track.is_pending())
                && here(&entry.place)
                && !leave_out(entry.instance)
        })
    }

    /// The numbers of an instance are others from now on: what has waited for long enough by them waits no longer.
    pub(crate) fn retune(&mut self, now: Now, instance: (RuleIx, PointIx), tuning: &Tuning) {
        let Some(slot) = self.by_instance.get(&instance).copied() else { return };
        let entry = self.entries.get_mut(&slot).expect("every index names a slot that is there");
        if let Some(terms) = &mut entry.terms {
            *terms = Terms::new(&terms.spec, tuning);
        }
        self.settle(now, slot);
    }

    pub fn alarm(&self, id: AlarmId) -> Option<&Arc<Alarm>> {
        self.entries.get(self.by_alarm.get(&id)?)?.alarm.as_ref()
    }

    /// All open alarms in the order in which the book took them up.
    pub fn alarms(&self) -> impl Iterator<Item = &Arc<Alarm>> {
        self.entries.values().filter_map(|entry| entry.alarm.as_ref())
    }

    /// Open hazard alarms that nobody judges any more.
    pub(crate) fn abandoned(&self) -> impl Iterator<Item = &Arc<Alarm>> {
        let left = |entry: &&Entry| entry.abandoned && entry.class != Class::System;
        self.entries.values().filter(left).filter_map(|entry| entry.alarm.as_ref())
    }

    pub fn open_count(&self) -> usize {
        self.by_alarm.len()
    }

    /// Conditions that wait for their on-delay.
    pub fn pending_count(&self) -> usize {
        self.entries.len() - self.by_alarm.len()
    }

    /// Writes down which CAP messages have left about an alarm.
    pub(crate) fn set_outward(&mut self, as_of: &Alarm) {
        let Some(entry) = self.by_alarm.get(&as_of.id).and_then(|slot| self.entries.get_mut(slot)) else { return };
        let Alarm { cap_log, broadcast, rerouted, sirens, .. } = as_of;
        let differs = |alarm: &&mut Arc<Alarm>| {
            (&alarm.cap_log, &alarm.broadcast, &alarm.rerouted, &alarm.sirens) != (cap_log, broadcast, rerouted, sirens)
        };
        if let Some(alarm) = entry.alarm.as_mut().filter(differs) {
            let alarm = Arc::make_mut(alarm);
            alarm.cap_log.clone_from(cap_log);
            alarm.broadcast.clone_from(broadcast);
            alarm.rerouted.clone_from(rerouted);
            alarm.sirens.clone_from(sirens);
        }
    }

    /// Something became of the alarm's broadcast: the journal and the ways out hear of it by a transition.
    pub(crate) fn say_broadcast(&mut self, now: Now, id: AlarmId, step: BroadcastStep, by: Option<&str>) {
        if let Some(slot) = self.by_alarm.get(&id).copied() {
            self.change(now, slot, Cause::Broadcast { step, by: by.map(str::to_owned) }, |_| {});
        }
    }

    /// Writes down which incident an alarm belongs to.
    pub(crate) fn set_incident(&mut self, id: AlarmId, incident: Option<IncidentId>) {
        let Some(entry) = self.by_alarm.get(&id).and_then(|slot| self.entries.get_mut(slot)) else { return };
        if let Some(alarm) = entry.alarm.as_mut().filter(|alarm| alarm.incident != incident) {
            Arc::make_mut(alarm).incident = incident;
        }
    }

    /// The alarm belongs to another incident now: the journal and the ways out hear of it by a transition.
    pub(crate) fn regroup(&mut self, now: Now, id: AlarmId, by: Option<&str>) {
        if let Some(slot) = self.by_alarm.get(&id).copied() {
            self.change(now, slot, Cause::Regrouped { by: by.map(str::to_owned) }, |_| {});
        }
    }

    /// Where the device is by now, as the site has it, is where the alarm is.
    fn follow_place(&mut self, now: Now, slot: Slot) {
        let entry = self.entries.get_mut(&slot).expect("the caller found the slot");
        let place = Arc::clone(&entry.place);
        let Some(alarm) = entry.alarm.as_mut().filter(|alarm| !Arc::ptr_eq(&alarm.place, &place)) else { return };
        if alarm.place == place {
            // After a restart: the same words, and from now on the same memory.
            Arc::make_mut(alarm).place = place;
            return;
        }
        self.change(now, slot, Cause::Moved, |alarm| {
            // What was measured then is still what was measured: only where it is was said wrong.
            let Text { zh, en } = &mut alarm.message;
            *zh = zh.replacen(&alarm.place.zh(), &place.zh(), 1);
            *en = en.replacen(&alarm.place.en(), &place.en(), 1);
            alarm.place = place;
            alarm.moved += 1;
        });
    }

    /// Open hazard alarms whose instance is not known yet: after a restart, until their points are there.
    pub(crate) fn unbound(&self) -> Vec<(RuleId, Subject)> {
        let unbound = |entry: &&Entry| entry.instance.is_none() && !entry.abandoned;
        let hazards = self.entries.values().filter(|entry| entry.class != Class::System);
        hazards.filter(unbound).map(|entry| (entry.rule.clone(), entry.subject.clone())).collect()
    }

    /// Tells which instance a restored alarm belongs to, so that its deadband holds from the first verdict.
    pub(crate) fn bind(
        &mut self,
        key: &(RuleId, Subject),
        instance: (RuleIx, PointIx),
        points: &Points,
        tuning: &Tuning,
    ) {
        let Some(slot) = self.by_key.get(key).copied() else { return };
        let entry = self.entries.get_mut(&slot).expect("every index names a slot that is there");
        entry.instance = Some(instance);
        let device = points.device_of(instance.1);
        entry.place = Arc::clone(&device.place);
        entry.label = device.label();
        if let Some(terms) = &mut entry.terms {
            *terms = Terms::new(&terms.spec, tuning);
        }
        self.by_instance.insert(instance, slot);
        self.rearm(slot);
    }

    /// Nobody judges this any more.
    pub(crate) fn abandon(&mut self, key: &(RuleId, Subject)) {
        if let Some(entry) = self.by_key.get(key).and_then(|slot| self.entries.get_mut(slot)) {
            entry.abandoned = true;
        }
    }

    /// New rules are in force. `find` gives each rule and subject its new instance and numbers, `None` where nobody
    /// judges it any more: a pending condition is then forgotten, an open alarm stays, and escalates, until a person has
    /// acknowledged and reset it.
    pub(crate) fn rebind(
        &mut self,
        mut find: impl FnMut(&RuleId, &Subject) -> Option<(Option<(RuleIx, PointIx)>, Arc<RuleSpec>, Tuning)>,
    ) {
        self.by_instance.clear();
        let slots: Vec<Slot> = self.entries.keys().copied().collect();
        for slot in slots {
            let entry = self.entries.get_mut(&slot).expect("listed one line above");
            if entry.class == Class::System {
                continue;
            }
            match find(&entry.rule, &entry.subject) {
                Some((instance, spec, tuning)) => {
                    entry.terms = Some(Terms::new(&spec, &tuning));
                    entry.abandoned = false;
                    entry.instance = instance;
                    if let Some(instance) = instance {
                        self.by_instance.insert(instance, slot);
                    }
                    self.rearm(slot);
                }
                None => {
                    entry.abandoned = true;
                    entry.instance = None;
                    entry.track = entry.alarm.as_deref().map(Track::restored).unwrap_or_default();
                    self.rearm(slot);
                    self.drop_if_empty(slot);
                }
            }
        }
    }

    fn insert(&mut self, entry: Entry) -> Slot {
        let slot = self.next_slot;
        self.next_slot += 1;
        self.by_key.insert((entry.rule.clone(), entry.subject.clone()), slot);
        self.entries.insert(slot, entry);
        slot
    }

    fn slot_of(&self, id: AlarmId) -> Result<Slot, Refusal> {
        self.by_alarm.get(&id).copied().ok_or(Refusal::NoSuchAlarm(id))
    }

    fn alarm_at(&self, slot: Slot) -> &Alarm {
        self.entries[&slot].alarm.as_ref().expect("`by_alarm` and timers of alarms name slots with an alarm")
    }

    fn max_shelve(&self, level: Level) -> Duration {
        match level {
            Level::Red => self.settings.max_shelve_red.min(self.settings.max_shelve),
            _ => self.settings.max_shelve,
        }
    }

    /// Brings the alarm in line with its condition.
    fn settle(&mut self, now: Now, slot: Slot) {
        let entry = self.entries.get_mut(&slot).expect("the caller found the slot");
        if let Some((on_delay, off_delay)) = entry.delays() {
            entry.track.advance(now.mono, on_delay, off_delay);
        }
        let held = entry.track.held;
        let drill = self.drill;
        match (&entry.alarm, held) {
            (None, Some(level)) => self.raise(now, slot, level),
            (Some(alarm), Some(level)) if !alarm.is_active() => {
                let level = if alarm.latched { level.max(alarm.level) } else { level };
                let worse = level > alarm.level;
                let shelved = alarm.shelved.is_some();
                let (message, evidence) = entry.words(level, drill);
                self.change(now, slot, Cause::Realarmed, |alarm| {
                    alarm.condition = Condition::Active;
                    alarm.level = level;
                    alarm.peak = alarm.peak.max(level);
                    alarm.message = message;
                    alarm.evidence = evidence;
                    annunciate(alarm);
                });
                if worse && shelved {
                    self.unshelve(now, slot, None);
                }
            }
            (Some(alarm), Some(level)) if level > alarm.level || (level < alarm.level && !alarm.latched) => {
                let (from, shelved) = (alarm.level, alarm.shelved.is_some());
                let (message, evidence) = entry.words(level, drill);
                self.change(now, slot, Cause::LevelChanged(from), |alarm| {
                    alarm.level = level;
                    alarm.peak = alarm.peak.max(level);
                    alarm.message = message;
                    alarm.evidence = evidence;
                    if level > from {
                        annunciate(alarm);
                    }
                });
                // What was put on the shelf was a lesser danger.
                if level > from && shelved {
                    self.unshelve(now, slot, None);
                }
            }
            (Some(alarm), None) if alarm.is_active() => {
                // Nobody need confirm that a lesser part of anmin is well again.
                let by_itself = alarm.class == Class::System && alarm.level == Level::Blue;
                let evidence = entry.latest.clone();
                self.change(now, slot, Cause::Returned, |alarm| {
                    alarm.condition = Condition::Normal;
                    alarm.evidence = evidence;
                    if by_itself && alarm.acknowledged.is_none() {
                        alarm.acknowledged = Some(By { who: ANMIN.to_owned(), at: now.wall });
                    }
                });
            }
            _ => {
                self.rearm(slot);
                self.drop_if_empty(slot);
            }
        }
    }

    fn raise(&mut self, now: Now, slot: Slot, level: Level) {
        let id = loop {
            let id = AlarmId(self.ids.next(now.wall));
            if !self.by_alarm.contains_key(&id) {
                break id;
            }
        };
        let entry = self.entries.get_mut(&slot).expect("the caller found the slot");
        let terms = entry.terms.as_ref().expect("only a judged condition raises");
        let drill = self.drill;
        let own = |text: &Text| if drill.is_some() { marked(text.clone()) } else { text.clone() };
        let (message, evidence) = entry.words(level, drill);
        let alarm = Alarm {
            id,
            rule: entry.rule.clone(),
            subject: entry.subject.clone(),
            class: entry.class,
            title: own(&terms.spec.title),
            place: Arc::clone(&entry.place),
            moved: 0,
            case: terms.spec.case_of(entry.class),
            incident: None,
            drill,
            level,
            peak: level,
            condition: Condition::Active,
            acknowledged: None,
            latched: terms.spec.latch,
            shelved: None,
            out_of_service: None,
            escalation: 0,
            peak_escalation: 0,
            escalate_at: None,
            realarm_at: None,
            raised_at: now.wall,
            changed_at: now.wall,
            clock_doubtful: false,
            seq: 0,
            evidence,
            message,
            advice: own(&terms.spec.advice),
            cap_log: Vec::new(),
            broadcast: None,
            rerouted: Vec::new(),
            sirens: Vec::new(),
        };
        entry.alarm = Some(Arc::new(alarm));
        self.by_alarm.insert(id, slot);
        self.change(now, slot, Cause::Raised, |_| {});
    }

    /// The only place where an alarm changes: counts it, sets its deadlines, writes the transition, closes it.
    fn change(&mut self, now: Now, slot: Slot, cause: Cause, how: impl FnOnce(&mut Alarm)) {
        let entry = self.entries.get_mut(&slot).expect("the caller found the slot");
        let alarm = Arc::make_mut(entry.alarm.as_mut().expect("the caller found the alarm"));
        let from = if matches!(cause, Cause::Raised) { AlarmState::Normal } else { alarm.state() };
        let peak = alarm.peak;
        how(alarm);
        alarm.seq += 1;
        alarm.changed_at = now.wall;
        alarm.clock_doubtful |= self.clock_doubtful;
        let to = alarm.state();

        let terms = entry.terms.as_ref();
        let owed = alarm.acknowledged.is_none() && !alarm.is_silenced();
        let escalate_after = terms.and_then(|terms| terms.escalate_after).filter(|_| owed);
        set_deadline(now, escalate_after, &mut entry.escalate, &mut alarm.escalate_at);
        let standing = alarm.acknowledged.is_some() && alarm.is_active() && !alarm.is_silenced();
        let realarm_after = terms.and_then(Terms::realarm_after).filter(|_| standing);
        set_deadline(now, realarm_after, &mut entry.realarm, &mut alarm.realarm_at);
        if alarm.shelved.is_none() {
            entry.unshelve = None;
        }

        let alarm = Arc::clone(entry.alarm.as_ref().expect("changed above"));
        let comes = match cause {
            Cause::Raised => true,
            // Also said again to people who have let it stand: then nothing has come.
            Cause::Realarmed => from != AlarmState::Acknowledged,
            // A level that was not reached before is news and no chatter.
            Cause::LevelChanged(old) => alarm.level > old && alarm.peak == peak,
            _ => false,
        };
        let rests = entry.chatters && !alarm.is_active();
        if rests {
            entry.chatters = false;
            self.chatter.push_back(Chatter { alarm: Arc::clone(&alarm), begins: false });
        }
        if comes && matches!(alarm.class, Class::Hazard(_)) && !entry.is_by_hand() && !entry.chatters {
            let times = self.came.entry((alarm.rule.clone(), alarm.subject.clone())).or_default();
            times.push_back(now.mono);
            if times.len() > CHATTER_TIMES {
                times.pop_front();
            }
            if times.len() == CHATTER_TIMES && now.mono.since(times[0]) < CHATTER_WITHIN {
                entry.chatters = true;
                self.chatter.push_back(Chatter { alarm: Arc::clone(&alarm), begins: true });
            }
            if self.came.len() > 2 * self.came_kept + 64 {
                self.came.retain(|_, times| times.back().is_some_and(|last| now.mono.since(*last) < CHATTER_WITHIN));
                self.came_kept = self.came.len();
            }
        }
        let entry = self.entries.get_mut(&slot).expect("the caller found the slot");
        if to == AlarmState::Normal {
            self.by_alarm.remove(&alarm.id);
            entry.alarm = None;
            (entry.escalate, entry.realarm, entry.unshelve) = (None, None, None);
        }
        self.transitions.push_back(Transition { from, to, cause, at: now, alarm });
        self.rearm(slot);
        self.drop_if_empty(slot);
    }

    /// Puts the entry's next deadline into `timers`, and says which delays run.
    fn rearm(&mut self, slot: Slot) {
        let entry = self.entries.get_mut(&slot).expect("the caller found the slot");
        let running = entry.track.running();
        // What anmin watches by itself is found again by itself.
        if running != entry.told && entry.class != Class::System {
            entry.told = running;
            self.pending.push_back(entry.pending());
        }
        let tracked = entry.delays().and_then(|(on_delay, off_delay)| entry.track.due(on_delay, off_delay));
        let due = [tracked, entry.escalate, entry.realarm, entry.unshelve].into_iter().flatten().min();
        if due != entry.due {
            if let Some(old) = entry.due {
                self.timers.remove(&(old, slot));
            }
            if let Some(new) = due {
                self.timers.insert((new, slot));
            }
            entry.due = due;
        }
    }

    /// Forgets an entry that neither holds an alarm nor waits for one.
    fn drop_if_empty(&mut self, slot: Slot) {
        let Some(entry) = self.entries.get(&slot) else { return };
        if entry.alarm.is_some() || entry.track.held.is_some() || entry.track.is_pending() {
            return;
        }
        let entry = self.entries.remove(&slot).expect("looked up above");
        self.by_key.remove(&(entry.rule, entry.subject));
        if let Some(instance) = entry.instance {
            self.by_instance.remove(&instance);
        }
        if let Some(due) = entry.due {
            self.timers.remove(&(due, slot));
        }
    }
}

impl Entry {
    fn new(rule: RuleId, subject: Subject, class: Class) -> Self {
        Self {
            rule,
            label: Name::both(subject.as_str()),
            subject,
            class,
            place: Arc::default(),
            terms: None,
            abandoned: false,
            track: Track::default(),
            seen: Default::default(),
            said: None,
            latest: Evidence::default(),
            chatters: false,
            unheard: false,
            alarm: None,
            instance: None,
            escalate: None,
            realarm: None,
            unshelve: None,
            due: None,
            told: Running::default(),
        }
    }

    fn pending(&self) -> Pending {
        let (above, below) = self.told;
        let seen = above.and_then(|level| self.seen[level as usize].as_deref());
        let (finding, evidence) =
            seen.map_or((None, &self.latest), |(finding, evidence)| (Some(finding.clone()), evidence));
        Pending {
            rule: self.rule.clone(),
            subject: self.subject.clone(),
            class: self.class,
            place: Arc::clone(&self.place),
            label: self.label.clone(),
            above,
            below,
            finding,
            evidence: evidence.clone(),
        }
    }

    /// On- and off-delay as they hold now.
    fn delays(&self) -> Option<(Duration, Duration)> {
        let terms = self.terms.as_ref()?;
        let off_delay = if self.chatters { terms.off_delay.max(CHATTER_WITHIN) } else { terms.off_delay };
        Some((terms.on_delay, off_delay))
    }

    /// Whether a person gives this alarm by a button.
    fn is_by_hand(&self) -> bool {
        let subject = self.terms.as_ref().and_then(|terms| terms.spec.inputs.first());
        subject.is_some_and(|input| matches!(input.kind.as_str(), "fire.call_point" | "care.sos"))
    }

    /// Message and evidence for an alarm at `level`.
    fn words(&self, level: Level, drill: Option<DrillId>) -> (Text, Evidence) {
        let (message, evidence) = self.plain_words(level);
        (if drill.is_some() { marked(message) } else { message }, evidence)
    }

    fn plain_words(&self, level: Level) -> (Text, Evidence) {
        if let Some(said) = &self.said {
            return (said.clone(), self.latest.clone());
        }
        let nearest = Level::ALL.into_iter().filter(|each| *each >= level).chain(Level::ALL.into_iter().rev());
        let seen = nearest.filter_map(|each| self.seen[each as usize].as_deref()).next();
        let (finding, evidence) = seen.map_or((None, &self.latest), |(finding, evidence)| (Some(finding), evidence));
        let Some(terms) = &self.terms else { return (Text::default(), evidence.clone()) };
        let fields = Fields { place: &self.place, label: &self.label, level, finding, evidence };
        let mut evidence = evidence.clone();
        if let Some(limit) = finding.and_then(|finding| finding.limit.as_ref()) {
            evidence.limit = Some(limit.clone());
        }
        (render(&terms.spec.message, &fields), evidence)
    }
}

/// Whether a verdict about a subject without an entry leaves everything as it is.
fn starts_nothing(spec: &RuleSpec, verdict: &Verdict) -> bool {
    match verdict {
        Verdict::Normal => true,
        Verdict::Abnormal(_) => false,
        Verdict::Undetermined(why) => counts_as(spec, why).is_none(),
    }
}

/// The level that not knowing counts as, where the rule says so. A device that has not spoken since the start is
/// given its `silent_after` first.
fn counts_as(spec: &RuleSpec, why: &Why) -> Option<Level> {
    match (spec.on_bad, why) {
        (OnBad::Raise(level), Why::BadInput { .. } | Why::ScriptFailed(_) | Why::Unclear(_)) => Some(level),
        (OnBad::Fault, _) | (_, Why::NoData { .. }) => None,
    }
}

pub(crate) fn silenced() -> Refusal {
    Refusal::not_allowed("该报警已搁置或停用，须先恢复", "the alarm is shelved or out of service: end that first")
}

pub(crate) fn said_why(why: &str) -> Result<(), Refusal> {
    if why.trim().is_empty() { Err(Refusal::not_allowed("请说明原因", "say why")) } else { Ok(()) }
}

/// A new danger is heard again, whoever acknowledged the old one.
fn annunciate(alarm: &mut Alarm) {
    if alarm.acknowledged.take().is_some() {
        alarm.escalation = 0;
    }
}

fn annunciate_if_active(alarm: &mut Alarm) {
    if alarm.is_active() {
        annunciate(alarm);
    }
}

/// Starts, keeps or ends a deadline and what the record says of it.
fn set_deadline(now: Now, after: Option<Duration>, mono: &mut Option<Mono>, wall: &mut Option<Wall>) {
    match after {
        None => (*mono, *wall) = (None, None),
        Some(after) if mono.is_none() => (*mono, *wall) = (Some(now.mono.plus(after)), Some(now.wall.plus(after))),
        Some(_) => {}
    }
}

/// UUIDv7 from the wall clock and SplitMix64: the same inputs give the same ids.
pub(crate) struct Ids(u64);

impl Ids {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self, at: Wall) -> uuid::Uuid {
        let mut random = [0; 10];
        random[..8].copy_from_slice(&self.word().to_le_bytes());
        random[8..].copy_from_slice(&self.word().to_le_bytes()[..2]);
        let millis = u64::try_from(at.millis()).unwrap_or(0);
        uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
    }

    fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
