//! The facade that composes rule set, alarm book and response desk.
//!
//! Samples, troubles and commands go in by `handle_*`, effects come out by `poll_effect`. Every `handle_*` first fires
//! the timers that are due, earliest first, so that the order of effects depends on the inputs alone.

use std::collections::VecDeque;
use std::sync::Arc;

use anmin_sensors::point::{Place, Points};
use anmin_sensors::reading::Sample;
use anmin_sensors::time::{Mono, Now};

use crate::alarm::{Action, Alarm, AlarmId, AlarmState, Class, Command, Refusal, Subject, Transition};
use crate::book::{AlarmBook, BookSettings, SystemReport};
use crate::health::{Health, SystemRules};
use crate::order::{Call, CallChange, Order};
use crate::response::{DeskSettings, Request, ResponseDesk};
use crate::rule::{Evidence, Finding, Judged, Level, RuleId, RuleSpec, Text, Tuning};
use crate::set::{Bound, RuleSet};

/// What the engine wants done, in the order in which it must become durable: an order never comes before the
/// transition or call change that it speaks of.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    Transition(Arc<Transition>),
    Call(Arc<CallChange>),
    Order(Order),
}

/// How many alarms stand how, for screens and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub open: usize,
    /// Alarms in force (neither shelved nor out of service) by level: blue, yellow, orange, red.
    pub by_level: [usize; 4],
    /// By state, in the order of `AlarmState::ALL`.
    pub by_state: [usize; 8],
    /// Conditions that wait for their on-delay.
    pub pending: usize,
    /// Calls that are not over.
    pub live_calls: usize,
}

impl Counts {
    pub fn at(&self, level: Level) -> usize {
        self.by_level[level as usize]
    }
}

/// Everything behind the rules: what verdicts do to alarms, and what alarms do to people. The engine without its rule
/// set, so that lifecycles can be proved without scripts.
pub(crate) struct Watch {
    pub(crate) book: AlarmBook,
    desk: ResponseDesk,
    health: Health,
    effects: VecDeque<Effect>,
}

impl Watch {
    pub(crate) fn new(desk: DeskSettings, seed: u64) -> Self {
        Self {
            book: AlarmBook::new(book_settings(&desk), seed),
            health: Health::new(SystemRules::new(desk.bad_grace, desk.system_escalate_after)),
            desk: ResponseDesk::new(desk),
            effects: VecDeque::new(),
        }
    }

    pub(crate) fn restore<'s>(
        &mut self,
        now: Now,
        alarms: &[Arc<Alarm>],
        calls: Vec<Call>,
        find: impl Fn(&RuleId) -> Option<&'s Arc<RuleSpec>>,
    ) {
        self.desk.restore(now, alarms, calls);
        let mut stations = Vec::new();
        for alarm in alarms.iter().filter(|alarm| alarm.is_open()) {
            let spec = match alarm.class {
                Class::System => self.health.rules.find(&alarm.rule),
                Class::Hazard(_) => find(&alarm.rule),
            };
            self.book.restore(now, Arc::clone(alarm), spec);
            if alarm.class == Class::System {
                self.health.restore(&alarm.rule, &alarm.subject);
                let area = alarm.subject.as_str().strip_prefix(STATION).unwrap_or_default();
                let says_so = alarm.rule == self.health.rules.station.id && alarm.is_active();
                if says_so && !self.desk.restore_unanswered(area) {
                    stations.push(Arc::from(area));
                }
            }
        }
        for area in stations {
            self.report_station(now, area, None);
        }
        self.drain(now);
    }

    /// Fires what is due, earliest first.
    pub(crate) fn fire(&mut self, now: Now) {
        loop {
            let fired = match (self.book.poll_timeout(), self.desk.poll_timeout()) {
                (Some(book), Some(desk)) if desk < book => self.desk.fire_one(now, &mut self.effects),
                (Some(_), _) => self.book.fire_one(now),
                (None, _) => self.desk.fire_one(now, &mut self.effects),
            };
            self.drain(now);
            if !fired {
                return;
            }
        }
    }

    pub(crate) fn handle_judged(
        &mut self,
        now: Now,
        points: &Points,
        spec: &Arc<RuleSpec>,
        tuning: &Tuning,
        judged: &Judged,
    ) {
        self.health.handle_judged(now, points, spec, judged, &mut self.book);
        self.book.handle_judged(now, points, spec, tuning, judged);
        self.drain(now);
    }

    pub(crate) fn handle_samples(&mut self, now: Now, points: &Points, samples: &[Sample]) {
        self.health.handle_samples(now, points, samples, &mut self.book);
        self.drain(now);
    }

    pub(crate) fn handle_part(&mut self, now: Now, part: &str, trouble: Option<(Finding, Text)>) {
        let report = SystemReport {
            spec: Arc::clone(&self.health.rules.part),
            subject: Subject::Part(part.into()),
            place: Arc::default(),
            trouble: trouble.map(|(finding, text)| (finding.level, text)),
            evidence: Evidence { received: now.wall, ..Evidence::default() },
        };
        self.book.handle_system(now, report);
        self.drain(now);
    }

    pub(crate) fn handle_command(&mut self, now: Now, command: &Command) -> Result<(), Refusal> {
        let outcome = match &command.what {
            Action::Call { alarm, station, step } => self
                .book
                .handle_command(now, &command.who, &command.what)
                .and_then(|()| self.desk.handle_step(now, &command.who, *alarm, station, step, &mut self.effects)),
            action => self.book.handle_command(now, &command.who, action),
        };
        self.drain(now);
        outcome
    }

    /// Takes every transition to the desk, and what the desk asks for back to the book, until both are quiet.
    fn drain(&mut self, now: Now) {
        loop {
            if let Some(transition) = self.book.poll_transition() {
                let done = self.desk.handle_transition(now, transition, &mut self.effects);
                self.book.set_cap_log(done.alarm.id, &done.alarm.cap_log);
            } else if let Some(request) = self.desk.poll_request() {
                match request {
                    Request::Escalate(alarm) => self.book.escalate(now, alarm),
                    Request::Unanswered { area, alarm } => self.report_station(now, area, alarm),
                }
            } else {
                return;
            }
        }
    }

    fn report_station(&mut self, now: Now, area: Arc<str>, alarm: Option<(Arc<Alarm>, Text)>) {
        let place: Arc<Place> = alarm.as_ref().map(|(alarm, _)| Arc::clone(&alarm.place)).unwrap_or_default();
        let report = SystemReport {
            spec: Arc::clone(&self.health.rules.station),
            subject: Subject::Part(format!("{STATION}{area}").into()),
            place,
            trouble: alarm.map(|(_, text)| (Level::Orange, text)),
            evidence: Evidence { received: now.wall, ..Evidence::default() },
        };
        self.book.handle_system(now, report);
    }

    pub(crate) fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Mono> {
        [self.book.poll_timeout(), self.desk.poll_timeout()].into_iter().flatten().min()
    }

    pub(crate) fn alarms(&self) -> Vec<Arc<Alarm>> {
        let mut alarms: Vec<Arc<Alarm>> = self.book.alarms().cloned().collect();
        alarms.sort_by(|a, b| {
            b.level.cmp(&a.level).then_with(|| a.raised_at.cmp(&b.raised_at)).then_with(|| a.id.cmp(&b.id))
        });
        alarms
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.desk.calls().cloned().collect()
    }

    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts {
            open: self.book.open_count(),
            pending: self.book.pending_count(),
            live_calls: self.desk.calls().filter(|call| call.is_live()).count(),
            ..Counts::default()
        };
        for alarm in self.book.alarms() {
            let state = alarm.state();
            counts.by_state[AlarmState::ALL.iter().position(|each| *each == state).unwrap_or(0)] += 1;
            if !alarm.is_silenced() {
                counts.by_level[alarm.level as usize] += 1;
            }
        }
        counts
    }
}

/// Subject of the alarm that no station answers: `station:` and the area.
const STATION: &str = "station:";

fn book_settings(desk: &DeskSettings) -> BookSettings {
    BookSettings { max_shelve: desk.max_shelve, max_shelve_red: desk.max_shelve_red }
}

/// Rules, alarms and orders behind one door. It reads no clock: every call says what time it is, and the caller comes
/// back with [`Engine::handle_timeout`] at [`Engine::poll_timeout`]. Coming too early is harmless.
pub struct Engine {
    rules: RuleSet,
    /// In the order of `RuleIx`.
    specs: Vec<Arc<RuleSpec>>,
    watch: Watch,
    /// Restored alarms may still wait for their points.
    unbound: bool,
    points_seen: usize,
    judged: Vec<Judged>,
}

impl Engine {
    /// `seed` must differ from start to start: it goes into the alarms' ids.
    pub fn new(rules: RuleSet, desk: DeskSettings, seed: u64) -> Self {
        let specs = specs_of(&rules);
        Self { rules, specs, watch: Watch::new(desk, seed), unbound: false, points_seen: 0, judged: Vec::new() }
    }

    /// Takes up what the journal holds: the last state of every open alarm and of their calls. Once, before anything
    /// is handled. What it finds out about them comes as effects.
    pub fn restore(&mut self, now: Now, alarms: Vec<Arc<Alarm>>, calls: Vec<Call>) {
        let (rules, specs) = (&self.rules, &self.specs);
        let find = |id: &RuleId| rules.find(id).map(|rule| &specs[rule.0 as usize]);
        self.watch.restore(now, &alarms, calls, find);
        self.unbound = true;
    }

    /// Binds rules to points that were added since the last time.
    pub fn bind(&mut self, points: &Points) -> Bound {
        let bound = self.rules.bind(points);
        self.bind_restored(points);
        bound
    }

    pub fn handle_samples(&mut self, now: Now, points: &Points, samples: &[Sample]) {
        self.fire(now, points);
        if self.unbound && self.points_seen != points.len() {
            self.bind_restored(points);
        }
        let book = &self.watch.book;
        let active = |rule, subject| book.held(rule, subject);
        self.rules.handle_samples(now, points, samples, &active, &mut self.judged);
        self.take_judged(now, points);
        self.watch.handle_samples(now, points, samples);
    }

    /// A part of anmin or of its surroundings fell ill (`Some`) or is well (`None`).
    pub fn handle_part(&mut self, now: Now, part: &str, trouble: Option<(Finding, Text)>) {
        self.watch.fire(now);
        self.watch.handle_part(now, part, trouble);
    }

    pub fn handle_command(&mut self, now: Now, command: Command) -> Result<(), Refusal> {
        self.watch.fire(now);
        self.watch.handle_command(now, &command)
    }

    /// Fires every timer that is due. Harmless when none is.
    pub fn handle_timeout(&mut self, now: Now, points: &Points) {
        self.fire(now, points);
    }

    /// Takes new rules and binds them to the points. Alarms stay; one whose rule is gone stays until a person resets
    /// it.
    pub fn replace_rules(&mut self, now: Now, points: &Points, rules: RuleSet) -> Bound {
        self.fire(now, points);
        self.specs = specs_of(&rules);
        self.rules = rules;
        let bound = self.rules.bind(points);
        let (rules, specs) = (&self.rules, &self.specs);
        self.watch.book.rebind(|id, subject| {
            let rule = rules.find(id)?;
            let spec = Arc::clone(&specs[rule.0 as usize]);
            match points.find(subject.as_str()) {
                Some(point) => {
                    let tuning = rules.tuning(rule, point).clone();
                    tuning.enabled.then_some((Some((rule, point)), spec, tuning))
                }
                None => {
                    let tuning = Tuning::of(&spec);
                    Some((None, spec, tuning))
                }
            }
        });
        self.watch.health.rebind(now, |id| rules.find(id).is_some(), &mut self.watch.book);
        self.watch.drain(now);
        bound
    }

    /// Takes new stations, channels and limits; alarms and calls stay.
    pub fn replace_desk(&mut self, now: Now, desk: DeskSettings) {
        self.watch.fire(now);
        self.watch.book.set_settings(book_settings(&desk));
        self.watch.health.rules = SystemRules::new(desk.bad_grace, desk.system_escalate_after);
        self.watch.desk.set_settings(desk);
    }

    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.watch.poll_effect()
    }

    pub fn poll_timeout(&self) -> Option<Mono> {
        [self.watch.poll_timeout(), self.rules.poll_timeout()].into_iter().flatten().min()
    }

    pub fn rules(&self) -> &RuleSet {
        &self.rules
    }

    pub fn desk(&self) -> &DeskSettings {
        self.watch.desk.settings()
    }

    /// One open alarm.
    pub fn alarm(&self, id: AlarmId) -> Option<&Arc<Alarm>> {
        self.watch.book.alarm(id)
    }

    /// All open alarms, gravest first, then oldest first.
    pub fn alarms(&self) -> Vec<Arc<Alarm>> {
        self.watch.alarms()
    }

    /// The calls for one alarm in the order in which the stations were first called.
    pub fn calls_of(&self, alarm: AlarmId) -> Vec<Call> {
        self.watch.desk.calls_of(alarm).cloned().collect()
    }

    /// All calls for open alarms.
    pub fn calls(&self) -> Vec<Call> {
        self.watch.calls()
    }

    pub fn counts(&self) -> Counts {
        self.watch.counts()
    }

    /// Timers of rules, alarms and calls. What a window says now counts after what was due before.
    fn fire(&mut self, now: Now, points: &Points) {
        self.watch.fire(now);
        if self.rules.poll_timeout().is_some_and(|due| due <= now.mono) {
            let book = &self.watch.book;
            let active = |rule, subject| book.held(rule, subject);
            self.rules.handle_timeout(now, points, &active, &mut self.judged);
            self.take_judged(now, points);
        }
    }

    fn take_judged(&mut self, now: Now, points: &Points) {
        for judged in self.judged.drain(..) {
            let spec = &self.specs[judged.rule.0 as usize];
            let tuning = self.rules.tuning(judged.rule, judged.subject);
            self.watch.handle_judged(now, points, spec, tuning, &judged);
        }
    }

    fn bind_restored(&mut self, points: &Points) {
        if !self.unbound {
            return;
        }
        self.points_seen = points.len();
        for key in self.watch.book.unbound() {
            let (Some(rule), Some(point)) = (self.rules.find(&key.0), points.find(key.1.as_str())) else { continue };
            self.watch.book.bind(&key, (rule, point), points, self.rules.tuning(rule, point));
        }
        self.unbound = !self.watch.book.unbound().is_empty();
    }
}

fn specs_of(rules: &RuleSet) -> Vec<Arc<RuleSpec>> {
    rules.rules().map(|(_, spec)| Arc::new(spec.clone())).collect()
}
