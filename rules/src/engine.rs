//! The facade that composes rule set, alarm book and response desk.
//!
//! Samples, troubles and commands go in by `handle_*`, effects come out by `poll_effect`. Every `handle_*` first fires
//! the timers that are due, earliest first, so that the order of effects depends on the inputs alone.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use anmin_sensors::point::{Place, PointId, PointIx, Points};
use anmin_sensors::reading::Sample;
use anmin_sensors::time::{Mono, Now, Wall};

use crate::alarm::{Action, Alarm, AlarmId, AlarmState, Class, Command, Pending, Refusal, Subject, Transition};
use crate::book::{ANMIN, AlarmBook, BookSettings, Chatter, SystemReport};
use crate::broadcast::{BroadcastAction, BroadcastState, BroadcastStep};
use crate::drill::{Drill, DrillChange, DrillCommand, DrillDesk, DrillId, Kept, Site};
use crate::duty::{Duty, DutyChange, Unready};
use crate::health::{Health, SystemRules};
use crate::incident::{Incident, IncidentAction, IncidentBook, IncidentChange, IncidentId, Outcome, Situation};
use crate::order::{Call, CallChange, Order};
use crate::plan::Item;
use crate::response::{ByHand, Callable, DeskSettings, Request, ResponseDesk};
use crate::rule::{Evidence, Finding, Judged, Level, RuleId, RuleSpec, Text, Tuning};
use crate::set::{Bound, BrokenRule, Past, Refill, RuleSet};
use crate::walk::{Tick, Walk, WalkChange, WalkCommand, WalkDesk};

/// What the engine wants done, in the order in which it must become durable: an order never comes before the
/// transition or call change that it speaks of.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    Transition(Arc<Transition>),
    Call(Arc<CallChange>),
    Incident(Arc<IncidentChange>),
    /// What people say of a station; takes the place of what was said before.
    Duty(Arc<DutyChange>),
    /// A drill has begun, raised an alarm or ended.
    Drill(Arc<DrillChange>),
    /// A walk test has begun, ticked a point off or ended.
    Walk(Arc<WalkChange>),
    Order(Order),
    /// The delays of a condition have begun, changed or ended; takes the place of what was said of it before.
    Pending(Arc<Pending>),
}

/// How many alarms stand how, for screens and metrics. Those of drills are counted apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub open: usize,
    /// Alarms in force (neither shelved nor out of service) by level: blue, yellow, orange, red.
    pub by_level: [usize; 4],
    /// By state, in the order of `AlarmState::ALL`.
    pub by_state: [usize; 8],
    /// Incidents that are not closed.
    pub incidents: usize,
    /// Conditions that wait for their on-delay.
    pub pending: usize,
    /// Calls that are not over.
    pub live_calls: usize,
    /// Drills that are on, and their open alarms.
    pub drills: usize,
    pub drill_alarms: usize,
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
    incidents: IncidentBook,
    desk: ResponseDesk,
    health: Health,
    effects: VecDeque<Effect>,
}

impl Watch {
    pub(crate) fn new(desk: DeskSettings, seed: u64) -> Self {
        Self {
            book: AlarmBook::new(book_settings(&desk), seed),
            incidents: IncidentBook::new(desk.storm_alarms, desk.call_level, Arc::clone(&desk.plans), seed),
            health: Health::new(SystemRules::new(desk.bad_grace, desk.system_escalate_after)),
            desk: ResponseDesk::new(desk),
            effects: VecDeque::new(),
        }
    }

    /// The watch of a drill: all that it raises is marked as such.
    pub(crate) fn of_drill(desk: DeskSettings, seed: u64, drill: DrillId) -> Self {
        let mut watch = Self::new(desk, seed);
        watch.book.set_drill(drill);
        watch.incidents.set_drill(drill);
        watch
    }

    pub(crate) fn set_clock_doubtful(&mut self, doubtful: bool) {
        self.book.set_clock_doubtful(doubtful);
    }

    pub(crate) fn set_settings(&mut self, now: Now, desk: DeskSettings) {
        self.book.set_settings(book_settings(&desk));
        self.incidents.set_settings(desk.storm_alarms, desk.call_level, Arc::clone(&desk.plans));
        self.health.rules = SystemRules::new(desk.bad_grace, desk.system_escalate_after);
        self.desk.set_settings(now, desk);
        self.drain(now);
    }

    pub(crate) fn restore<'s>(
        &mut self,
        now: Now,
        alarms: &[Arc<Alarm>],
        calls: Vec<Call>,
        incidents: Vec<Arc<Incident>>,
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
        let chatter = &self.health.rules.chatter.id;
        for notice in alarms.iter().filter(|alarm| alarm.rule == *chatter && alarm.is_active()) {
            let Some((rule, subject)) =
                notice.subject.as_str().strip_prefix(CHATTER).and_then(|rest| rest.split_once(':'))
            else {
                continue;
            };
            if !self.book.restore_chatter(&RuleId::new(rule), subject) {
                let report = self.chatter_report(now, notice.subject.clone(), Arc::clone(&notice.place), None);
                self.book.handle_system(now, report);
            }
        }
        for area in stations {
            self.report_station(now, area, None);
        }
        self.health.handle_abandoned(now, &mut self.book);
        for alarm in self.incidents.restore(now, incidents, alarms) {
            self.book.regroup(now, alarm, None);
        }
        let plan = &self.health.rules.plan.id;
        for notice in alarms.iter().filter(|alarm| alarm.rule == *plan && alarm.is_active()) {
            let id = notice.subject.as_str().strip_prefix(STEPS).and_then(|id| uuid::Uuid::parse_str(id).ok());
            let incident = id.and_then(|id| self.incidents.incident(IncidentId(id)).ok());
            if incident.is_none_or(|incident| incident.late_steps().next().is_none()) {
                let report = SystemReport {
                    spec: Arc::clone(&self.health.rules.plan),
                    subject: notice.subject.clone(),
                    place: Arc::clone(&notice.place),
                    trouble: None,
                    evidence: Evidence { received: now.wall, ..Evidence::default() },
                };
                self.book.handle_system(now, report);
            }
        }
        let unsent = &self.health.rules.broadcast.id;
        for notice in alarms.iter().filter(|alarm| alarm.rule == *unsent && alarm.is_active()) {
            let id = notice.subject.as_str().strip_prefix(BROADCAST).and_then(|id| uuid::Uuid::parse_str(id).ok());
            if id.is_none_or(|id| self.book.alarm(AlarmId(id)).is_none()) {
                let report = SystemReport {
                    spec: Arc::clone(&self.health.rules.broadcast),
                    subject: notice.subject.clone(),
                    place: Arc::clone(&notice.place),
                    trouble: None,
                    evidence: Evidence { received: now.wall, ..Evidence::default() },
                };
                self.book.handle_system(now, report);
            }
        }
        self.drain(now);
    }

    /// Fires what is due, earliest first; of what is due at once the alarms', then the calls', then the incidents'.
    pub(crate) fn fire(&mut self, now: Now) {
        loop {
            let [book, desk, incidents] =
                [self.book.poll_timeout(), self.desk.poll_timeout(), self.incidents.poll_timeout()];
            let first = [book, desk, incidents].into_iter().flatten().min();
            let fired = match first {
                None => false,
                _ if first == book => self.book.fire_one(now),
                _ if first == desk => self.desk.fire_one(now, &mut self.effects),
                _ => self.incidents.fire_one(now),
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

    /// An alarm that a person raises in a drill: no reading stands behind it, so nothing is learnt about the point's health.
    pub(crate) fn raise_by_hand(
        &mut self,
        now: Now,
        points: &Points,
        spec: &Arc<RuleSpec>,
        tuning: &Tuning,
        judged: &Judged,
    ) {
        self.book.handle_judged(now, points, spec, tuning, judged);
        self.drain(now);
    }

    /// Everything is over: alarms are closed, crews stood down, incidents ended.
    pub(crate) fn finish(&mut self, now: Now) {
        for system in [false, true] {
            self.book.end_all(now, system);
            self.drain(now);
        }
        let open: Vec<IncidentId> = self.incidents.incidents().map(|incident| incident.id).collect();
        for id in open {
            self.incidents.close(now, ANMIN, id, Outcome::Unexplained, "");
        }
        self.drain(now);
    }

    pub(crate) fn handle_samples(&mut self, now: Now, points: &Points, samples: &[Sample]) {
        self.health.handle_samples(now, points, samples, &mut self.book);
        self.drain(now);
    }

    pub(crate) fn handle_part(&mut self, now: Now, part: &str, trouble: Option<(Finding, Text)>) {
        let report = SystemReport {
            spec: Arc::clone(match part {
                part if part.starts_with(WARNING) => &self.health.rules.warning,
                part if part.starts_with(DUTY_CHECK) => &self.health.rules.duty_check,
                part if part.starts_with(HELP) => &self.health.rules.help,
                _ => &self.health.rules.part,
            }),
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
            Action::CallStation { alarm, station, insist, why } => match self.book.alarm(*alarm) {
                Some(found) => {
                    let by = ByHand { who: &command.who, why, insist: *insist };
                    self.desk.call_by_hand(now, found, station, &by, &mut self.effects)
                }
                None => Err(Refusal::NoSuchAlarm(*alarm)),
            },
            Action::Escalate { alarm, step, .. } => self
                .book
                .alarm(*alarm)
                .map_or(Ok(()), |found| self.desk.may_escalate(found, *step))
                .and_then(|()| self.book.handle_command(now, &command.who, &command.what)),
            Action::Broadcast { alarm, what } => self.handle_broadcast(now, &command.who, *alarm, what),
            Action::Incident { incident, what } => self.handle_incident(now, &command.who, *incident, what),
            Action::OpenCase { incident, what } => self.incidents.open_case(now, &command.who, *incident, what),
            Action::Station { station, what } => {
                self.desk.handle_station(now, &command.who, station, what, &mut self.effects)
            }
            action => self.book.handle_command(now, &command.who, action),
        };
        self.drain(now);
        outcome
    }

    fn handle_broadcast(&mut self, now: Now, who: &str, id: AlarmId, what: &BroadcastAction) -> Result<(), Refusal> {
        let alarm = self.book.alarm(id).cloned().ok_or(Refusal::NoSuchAlarm(id))?;
        let step = self.desk.handle_broadcast(now, who, &alarm, what)?;
        self.book.say_broadcast(now, id, step, Some(who));
        Ok(())
    }

    /// A target has not taken what was said about an alarm, or not in time.
    pub(crate) fn handle_undelivered(&mut self, now: Now, alarm: AlarmId, channel: &str) {
        let Some(found) = self.book.alarm(alarm).cloned() else { return };
        if self.desk.handle_undelivered(&found, channel) {
            self.book.say_broadcast(now, alarm, BroadcastStep::Rerouted, None);
            self.drain(now);
        }
    }

    /// Whether nobody has done anything about what is orange or red and still concerns people.
    pub(crate) fn waits_for_answer(&self, alarm: AlarmId) -> bool {
        let waits = |alarm: &Alarm| {
            let unacknowledged =
                matches!(alarm.state(), AlarmState::Unacknowledged | AlarmState::ReturnedUnacknowledged);
            unacknowledged && matches!(alarm.class, Class::Hazard(_)) && alarm.level >= Level::Orange
        };
        self.book.alarm(alarm).is_some_and(|found| waits(found)) && !self.desk.calls_of(alarm).any(Call::is_answered)
    }

    /// Which sirens sound, and until when.
    pub(crate) fn sirens(&self) -> impl Iterator<Item = (&Arc<str>, Mono)> {
        self.desk.sirens()
    }

    fn handle_incident(&mut self, now: Now, who: &str, id: IncidentId, what: &IncidentAction) -> Result<(), Refusal> {
        self.incidents.incident(id)?;
        match what {
            IncidentAction::Acknowledge { newest } => {
                let seen = |alarm: &AlarmId| newest.is_none_or(|newest| *alarm <= newest);
                for alarm in self.incidents.alarms_of(id).filter(seen).collect::<Vec<_>>() {
                    self.book.handle_command(now, who, &Action::Acknowledge { alarm })?;
                }
                Ok(())
            }
            IncidentAction::Note { text, photos } => self.incidents.note(now, who, id, text, photos),
            IncidentAction::Tick { step } => self.incidents.tick(now, who, id, step, None),
            IncidentAction::Skip { step, why } => self.incidents.tick(now, who, id, step, Some(why)),
            IncidentAction::Called119 { text } => self.incidents.called_119(now, who, id, text),
            IncidentAction::Stage { stage, owner, text } => {
                self.incidents.set_stage(now, who, id, *stage, owner.as_deref(), text)
            }
            IncidentAction::MergeInto { into } => {
                for alarm in self.incidents.merge(now, who, id, *into)? {
                    self.book.regroup(now, alarm, Some(who));
                }
                Ok(())
            }
            IncidentAction::Split { alarms } => {
                let found: Vec<Arc<Alarm>> = alarms
                    .iter()
                    .map(|alarm| self.book.alarm(*alarm).cloned().ok_or(Refusal::NoSuchAlarm(*alarm)))
                    .collect::<Result<_, _>>()?;
                self.incidents.split(now, who, id, &found)?;
                for alarm in found {
                    self.book.regroup(now, alarm.id, Some(who));
                }
                Ok(())
            }
            IncidentAction::Close { outcome, why } => self.close_incident(now, who, id, *outcome, why),
        }
    }

    /// What is over is acknowledged and reset in the person's name; what is not keeps the incident open.
    fn close_incident(
        &mut self,
        now: Now,
        who: &str,
        id: IncidentId,
        outcome: Outcome,
        why: &str,
    ) -> Result<(), Refusal> {
        if matches!(outcome, Outcome::Merged(_) | Outcome::Unexplained | Outcome::Drill) {
            return Err(Refusal::not_allowed("请说明事件的性质", "say what the incident was"));
        }
        self.incidents.incident(id)?.check_outcome(outcome)?;
        let alarms: Vec<Arc<Alarm>> =
            self.incidents.alarms_of(id).filter_map(|alarm| self.book.alarm(alarm).cloned()).collect();
        if let Some(alarm) = alarms.iter().find(|alarm| alarm.is_silenced()) {
            return Err(Refusal::not_allowed(
                format!("事件中的报警 {} 已搁置或停用：请先恢复，或将其分出", alarm.id),
                format!(
                    "alarm {} of the incident is shelved or out of service: end that first, or split it off",
                    alarm.id
                ),
            ));
        }
        if let Some(alarm) = alarms.iter().find(|alarm| alarm.is_active()) {
            return Err(Refusal::AlarmActive { alarm: alarm.id });
        }
        for alarm in alarms {
            let alarm = alarm.id;
            self.book.handle_command(now, who, &Action::Acknowledge { alarm })?;
            if self.book.alarm(alarm).is_some() {
                self.book.handle_command(now, who, &Action::Reset { alarm })?;
            }
        }
        self.drain(now);
        self.incidents.close(now, who, id, outcome, why);
        Ok(())
    }

    /// Takes every transition to its incident and to the desk, and what the desk asks for back to the book, until both are quiet.
    fn drain(&mut self, now: Now) {
        loop {
            if let Some(mut transition) = self.book.poll_transition() {
                if !transition.alarm.is_open() && self.health.is_abandoned(&transition.alarm.rule) {
                    self.health.handle_abandoned(now, &mut self.book);
                }
                self.incidents.handle_transition(now, &mut transition);
                let done = self.desk.handle_transition(now, transition, &mut self.effects);
                self.book.set_incident(done.alarm.id, done.alarm.incident);
                self.book.set_outward(&done.alarm);
                self.report_broadcast(now, &done.alarm);
            } else if let Some(change) = self.incidents.poll_change() {
                let incident = Arc::clone(&change.incident);
                self.effects.push_back(Effect::Incident(Arc::new(change)));
                self.report_steps(now, &incident);
            } else if let Some(request) = self.desk.poll_request() {
                match request {
                    Request::Escalate(alarm) => self.book.escalate(now, alarm),
                    Request::Unanswered { area, alarm } => self.report_station(now, area, alarm),
                    // What a station lacks is real, and said once.
                    Request::Readiness { .. } if self.book.is_drill() => {}
                    Request::Readiness { station, trouble } => self.report_readiness(now, &station, trouble),
                    Request::Expired(alarm) => self.book.say_broadcast(now, alarm, BroadcastStep::Expired, None),
                    Request::Renew(alarm) => self.book.say_broadcast(now, alarm, BroadcastStep::Renewed, None),
                    Request::Ended(alarm) => self.book.say_broadcast(now, alarm, BroadcastStep::Ended, None),
                }
            } else if let Some(Chatter { alarm, begins }) = self.book.poll_chatter() {
                let subject = Subject::Part(format!("{CHATTER}{}:{}", alarm.rule, alarm.subject.as_str()).into());
                let trouble = begins.then(|| {
                    let text = Text {
                        zh: format!(
                            "报警“{}”（{}，{}）反复出现和消失。在连续十分钟正常之前，该报警保持不解除；更高等级照常上报。",
                            alarm.title.zh,
                            alarm.place.zh(),
                            alarm.subject.as_str(),
                        ),
                        en: format!(
                            "the alarm {:?} ({}, {}) comes and goes. It is held until all has been well for ten minutes; \
                             a higher level is told as ever.",
                            alarm.title.en,
                            alarm.place.en(),
                            alarm.subject.as_str(),
                        ),
                    };
                    (Level::Blue, text)
                });
                let report = self.chatter_report(now, subject, Arc::clone(&alarm.place), trouble);
                self.book.handle_system(now, report);
            } else {
                let pending = std::iter::from_fn(|| self.book.poll_pending());
                self.effects.extend(pending.map(|pending| Effect::Pending(Arc::new(pending))));
                return;
            }
        }
    }

    fn chatter_report(
        &self,
        now: Now,
        subject: Subject,
        place: Arc<Place>,
        trouble: Option<(Level, Text)>,
    ) -> SystemReport {
        let spec = Arc::clone(&self.health.rules.chatter);
        let evidence = Evidence { received: now.wall, ..Evidence::default() };
        SystemReport { spec, subject, place, trouble, evidence }
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

    /// Tells the officer which steps of an incident's checklist are late, or that none is any more.
    fn report_steps(&mut self, now: Now, incident: &Incident) {
        // What is no emergency is late on its card; nobody is alarmed.
        let late: Vec<&Item> = incident.late_steps().filter(|_| incident.case.is_none()).collect();
        let trouble = (!late.is_empty()).then(|| {
            let zh: Vec<String> = late.iter().map(|item| format!("{}（{}）", item.text.zh, item.owner.zh())).collect();
            let en: Vec<String> =
                late.iter().map(|item| format!("{} ({})", item.text.en, item.owner.as_str())).collect();
            let (title, place) = (&incident.title, &incident.place);
            let text = Text {
                zh: format!("事件“{}”（{}）有 {} 项处置步骤超时：{}", title.zh, place.zh(), late.len(), zh.join("；")),
                en: format!("{} steps are late in {:?} ({}): {}", late.len(), title.en, place.en(), en.join("; ")),
            };
            (Level::Yellow, text)
        });
        let report = SystemReport {
            spec: Arc::clone(&self.health.rules.plan),
            subject: Subject::Part(format!("{STEPS}{}", incident.id).into()),
            place: Arc::clone(&incident.place),
            trouble,
            evidence: Evidence { received: now.wall, ..Evidence::default() },
        };
        self.book.handle_system(now, report);
    }

    /// Tells the officer that nobody has let a warning out in time, or that it is settled.
    fn report_broadcast(&mut self, now: Now, alarm: &Alarm) {
        let Some(broadcast) = alarm.broadcast.as_ref().filter(|_| alarm.rule != self.health.rules.broadcast.id) else {
            return;
        };
        let lost = broadcast.state == BroadcastState::Expired && alarm.is_active() && !alarm.is_silenced();
        let trouble = lost.then(|| {
            let (title, place, level) = (&alarm.title, &alarm.place, alarm.level);
            let text = Text {
                zh: format!("{}报警“{}”（{}）的对外播报超时未获批准，没有发出", level.zh(), title.zh, place.zh()),
                en: format!(
                    "the broadcast of the {} alarm {:?} ({}) was not approved in time and has not left",
                    level.as_str(),
                    title.en,
                    place.en()
                ),
            };
            (Level::Orange, text)
        });
        let report = SystemReport {
            spec: Arc::clone(&self.health.rules.broadcast),
            subject: Subject::Part(format!("{BROADCAST}{}", alarm.id).into()),
            place: Arc::clone(&alarm.place),
            trouble,
            evidence: Evidence { received: now.wall, ..Evidence::default() },
        };
        self.book.handle_system(now, report);
    }

    fn report_readiness(&mut self, now: Now, station: &str, trouble: Option<Text>) {
        let report = SystemReport {
            spec: Arc::clone(&self.health.rules.readiness),
            subject: Subject::Part(format!("{STATION}{station}").into()),
            place: Arc::default(),
            trouble: trouble.map(|text| (Level::Yellow, text)),
            evidence: Evidence { received: now.wall, ..Evidence::default() },
        };
        self.book.handle_system(now, report);
    }

    /// Takes up what people said of the stations in the last run. A notice about a station that can respond by now, or that
    /// is gone, ends.
    pub(crate) fn restore_duty(&mut self, now: Now, duty: Vec<DutyChange>) {
        self.desk.restore_duty(now, duty);
        let readiness = &self.health.rules.readiness.id;
        let told = self.book.alarms().filter(|alarm| alarm.rule == *readiness && alarm.is_active());
        let told = told.filter_map(|alarm| alarm.subject.as_str().strip_prefix(STATION));
        let over: Vec<Arc<str>> = told.filter(|station| self.desk.unready(station).is_empty()).map(Arc::from).collect();
        for station in over {
            self.report_readiness(now, &station, None);
        }
        self.drain(now);
    }

    pub(crate) fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Mono> {
        let timers = [self.book.poll_timeout(), self.desk.poll_timeout(), self.incidents.poll_timeout()];
        timers.into_iter().flatten().min()
    }

    pub(crate) fn alarm(&self, id: AlarmId) -> Option<&Arc<Alarm>> {
        self.book.alarm(id)
    }

    pub(crate) fn incident(&self, id: IncidentId) -> Option<&Arc<Incident>> {
        self.incidents.incident(id).ok()
    }

    pub(crate) fn calls_of(&self, alarm: AlarmId) -> impl Iterator<Item = &Call> {
        self.desk.calls_of(alarm)
    }

    pub(crate) fn callable(&self, alarm: AlarmId) -> Option<Vec<Callable>> {
        self.book.alarm(alarm).map(|alarm| self.desk.callable(alarm))
    }

    pub(crate) fn last_escalation(&self, alarm: &Alarm) -> u32 {
        self.desk.last_escalation(alarm)
    }

    pub(crate) fn incidents(&self) -> impl Iterator<Item = &Arc<Incident>> {
        self.incidents.incidents()
    }

    pub(crate) fn situation(&self, id: IncidentId) -> Option<Situation> {
        let incident = self.incidents.incident(id).ok()?;
        let alarms = self.incidents.alarms_of(id).filter_map(|alarm| self.book.alarm(alarm).cloned());
        Some(Situation::new(Arc::clone(incident), alarms.collect()))
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
            incidents: self.incidents.incidents().count(),
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

/// Subject of the notice that an alarm chatters: `chatter:`, the rule, a colon, the alarm's subject.
const CHATTER: &str = "chatter:";

/// Subject of the alarm that no station answers: `station:` and the area; and of the notice that a station cannot respond:
/// `station:` and its id.
const STATION: &str = "station:";
/// Subjects of what an office above warns of.
pub const WARNING: &str = "warning:";
/// Subjects of what a monitoring centre asks the people on duty.
pub const DUTY_CHECK: &str = "duty-check:";
/// Subjects of what residents ask help for.
pub const HELP: &str = "help:";

/// Subject of the alarm that a warning was not let out in time: `broadcast:` and the alarm's id.
const BROADCAST: &str = "broadcast:";

/// Subject of the notice that steps of an incident's checklist are late: `steps:` and the incident's id.
const STEPS: &str = "steps:";

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
    drills: DrillDesk,
    walks: WalkDesk,
    /// Restored alarms may still wait for their points.
    unbound: bool,
    points_seen: usize,
    judged: Vec<Judged>,
    /// Rule instances whose windows somebody was asked to refill.
    refills: usize,
    /// Restored alarms that nobody judges have been found and not been said yet.
    abandoned: bool,
}

impl Engine {
    /// `seed` must differ from start to start: it goes into the alarms' ids.
    pub fn new(rules: RuleSet, desk: DeskSettings, seed: u64) -> Self {
        let specs = specs_of(&rules);
        Self {
            rules,
            specs,
            drills: DrillDesk::new(&desk, seed),
            watch: Watch::new(desk, seed),
            walks: WalkDesk::default(),
            unbound: false,
            points_seen: 0,
            judged: Vec::new(),
            refills: 0,
            abandoned: false,
        }
    }

    /// Takes up what the journal holds: the last state of every open alarm, of their calls, and of every open incident.
    /// Once, before anything is handled. What it finds out about them comes as effects.
    pub fn restore(&mut self, now: Now, alarms: Vec<Arc<Alarm>>, calls: Vec<Call>, incidents: Vec<Arc<Incident>>) {
        let (rules, specs) = (&self.rules, &self.specs);
        let find = |id: &RuleId| rules.find(id).map(|rule| &specs[rule.0 as usize]);
        let mut drills: BTreeMap<DrillId, Kept> = BTreeMap::new();
        let (alarms, played): (Vec<_>, Vec<_>) = alarms.into_iter().partition(|alarm| alarm.drill.is_none());
        let of_alarm: BTreeMap<AlarmId, DrillId> =
            played.iter().filter_map(|alarm| Some((alarm.id, alarm.drill?))).collect();
        for alarm in played {
            drills.entry(of_alarm[&alarm.id]).or_default().alarms.push(alarm);
        }
        let mut own = (Vec::new(), Vec::new());
        for call in calls {
            match of_alarm.get(&call.alarm) {
                Some(drill) => drills.entry(*drill).or_default().calls.push(call),
                None => own.0.push(call),
            }
        }
        for incident in incidents {
            match incident.drill {
                Some(drill) => drills.entry(drill).or_default().incidents.push(incident),
                None => own.1.push(incident),
            }
        }
        self.watch.restore(now, &alarms, own.0, own.1, find);
        for (drill, kept) in drills {
            self.drills.restore_run(now, drill, kept, find);
        }
        self.unbound = true;
    }

    /// Takes up the drills that were on; before [`Engine::restore`]. `known` is the latest moment that the last run has
    /// written down: a drill gets no longer by a clock that was set back.
    pub fn restore_drills(&mut self, now: Now, known: Option<Wall>, drills: Vec<Arc<Drill>>) {
        self.drills.restore(now, known, drills);
    }

    /// Takes up the walk tests that were on, each with the points that have spoken in it, as drills are taken up.
    pub fn restore_walks(&mut self, now: Now, known: Option<Wall>, walks: Vec<(Arc<Walk>, Vec<PointId>)>) {
        self.walks.restore(now, known, walks);
    }

    /// Takes up conditions whose delays ran when the last run ended: the delays start again. Those that do not `hold` any
    /// more are said to be over. After [`Engine::restore`].
    pub fn restore_pending(&mut self, now: Now, pending: Vec<Arc<Pending>>, hold: impl Fn(&Pending) -> bool) {
        for pending in pending {
            let rule = self.rules.find(&pending.rule).filter(|_| hold(&pending));
            let spec = rule.map(|rule| &self.specs[rule.0 as usize]);
            self.watch.book.restore_pending(now, &pending, spec);
        }
        self.watch.drain(now);
        self.unbound = true;
    }

    /// From now on the wall clock is in doubt, or no longer: alarms that change meanwhile are marked.
    pub fn set_clock_doubtful(&mut self, doubtful: bool) {
        self.watch.book.set_clock_doubtful(doubtful);
        self.drills.set_clock_doubtful(doubtful);
    }

    /// Binds rules to points that were added since the last time.
    pub fn bind(&mut self, points: &Points) -> Bound {
        let bound = self.rules.bind(points);
        self.bind_restored(points);
        bound
    }

    /// The windows that came with new points or rules since the last time and know nothing of the past.
    pub fn poll_refills(&mut self, points: &Points) -> Vec<Refill> {
        let from = std::mem::replace(&mut self.refills, self.rules.instances());
        self.rules.refills(from, points)
    }

    /// Lets windows know what history has of the time before this run. Raises and clears nothing: what they say counts
    /// when one of their points speaks next.
    pub fn handle_past(&mut self, now: Now, points: &Points, past: &Past) {
        self.rules.refill(now, points, past);
    }

    pub fn handle_samples(&mut self, now: Now, points: &Points, samples: &[Sample]) {
        self.fire(now, points);
        if self.unbound && self.points_seen != points.len() {
            self.bind_restored(points);
        }
        // One by one, since a verdict may raise the alarm whose deadband the next sample meets: how samples were batched
        // must not decide what becomes of them.
        for sample in samples {
            let book = &self.watch.book;
            let active = |rule, subject| book.reached(rule, subject);
            self.rules.handle_samples(now, points, std::slice::from_ref(sample), &active, &mut self.judged);
            if !self.judged.is_empty() {
                self.take_judged(now, points);
            }
        }
        self.watch.handle_samples(now, points, samples);
    }

    /// A part of anmin or of its surroundings fell ill (`Some`) or is well (`None`).
    pub fn handle_part(&mut self, now: Now, part: &str, trouble: Option<(Finding, Text)>) {
        self.fire_watches(now);
        self.watch.handle_part(now, part, trouble);
    }

    /// Says which rules could not be loaded, all of them. Each is a system alarm of its own, until it is loaded or gone:
    /// say it after every start and every change of the rules, also when there are none.
    pub fn handle_broken_rules(&mut self, now: Now, broken: &[BrokenRule]) {
        self.fire_watches(now);
        self.watch.health.handle_broken_rules(now, broken, &self.rules, &mut self.watch.book);
        self.watch.drain(now);
    }

    /// Rules that could not be loaded or that cannot judge.
    pub fn broken_rules(&self) -> impl Iterator<Item = &RuleId> {
        self.watch.health.broken_rules()
    }

    /// A target has not taken the message about an alarm that it was sent, or not in time: a spare one gets it, where
    /// there is one.
    pub fn handle_undelivered(&mut self, now: Now, alarm: AlarmId, channel: &str) {
        self.fire_watches(now);
        self.watch.handle_undelivered(now, alarm, channel);
    }

    /// Whether nobody has answered what is orange or red, real and not over: it is not acknowledged, and no station comes.
    pub fn waits_for_answer(&self, alarm: AlarmId) -> bool {
        self.watch.waits_for_answer(alarm)
    }

    /// Which sirens are to sound, and until when, whatever alarms and drills want them.
    pub fn sirens(&self) -> BTreeMap<Arc<str>, Mono> {
        let mut sirens = BTreeMap::new();
        for (siren, until) in self.watch.sirens().chain(self.drills.sirens()) {
            let last = sirens.entry(Arc::clone(siren)).or_insert(until);
            *last = until.max(*last);
        }
        sirens
    }

    pub fn handle_command(&mut self, now: Now, command: Command) -> Result<(), Refusal> {
        self.fire_watches(now);
        if let Some(result) = self.drills.handle_command(now, &command) {
            return result;
        }
        self.watch.handle_command(now, &command)
    }

    /// Starts a drill, raises an alarm in it, ends it.
    pub fn handle_drill(&mut self, now: Now, points: &Points, command: &DrillCommand) -> Result<(), Refusal> {
        self.fire_watches(now);
        let duty = self.watch.desk.duties();
        let site = Site { rules: &self.rules, specs: &self.specs, points, duty: &duty };
        self.drills.handle(now, &site, command)
    }

    /// Starts a walk test, ends it. What speaks at its end is real.
    pub fn handle_walk(&mut self, now: Now, points: &Points, command: &WalkCommand) -> Result<(), Refusal> {
        self.fire_watches(now);
        let result = self.walks.handle(now, points, command);
        self.take_real(now);
        result
    }

    /// Fires every timer that is due. Harmless when none is.
    pub fn handle_timeout(&mut self, now: Now, points: &Points) {
        self.fire(now, points);
    }

    /// Takes new rules and binds them to the points. For a rule that is what it was nothing changes: delays, windows, alarms
    /// and chatter go on. One that changed keeps its alarms and delays and is judged at once by what its points said last,
    /// as `latest` gives it. An alarm whose rule is gone stays until a person has acknowledged and reset it, and a notice
    /// says so.
    pub fn replace_rules(
        &mut self,
        now: Now,
        points: &Points,
        mut rules: RuleSet,
        latest: impl Fn(PointIx) -> Option<Sample>,
    ) -> Bound {
        self.fire(now, points);
        self.walks.stop_all(now);
        self.take_real(now);
        self.specs = specs_of(&rules);
        self.refills = 0;
        let bound = rules.bind(points);
        let old = std::mem::replace(&mut self.rules, rules);
        let goes_on = |id: &RuleId| {
            let (before, after) = (old.find(id), self.rules.find(id));
            before.zip(after).is_some_and(|(before, after)| old.source(before).is_as(self.rules.source(after)))
        };
        let judges =
            |id: &RuleId, point| self.rules.find(id).is_some_and(|rule| self.rules.tuning(rule, point).enabled);
        let ended =
            self.watch.health.rebind(|id, point| goes_on(id) && judges(id, point), |id| self.rules.find(id).is_some());
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
        self.watch.health.handle_ended(now, ended, &mut self.watch.book);
        let book = &self.watch.book;
        let active = |rule, subject| book.reached(rule, subject);
        self.rules.take_over(now, points, old, latest, &active, &mut self.judged);
        self.take_judged(now, points);
        self.watch.health.handle_abandoned(now, &mut self.watch.book);
        self.watch.drain(now);
        bound
    }

    /// Takes new stations, channels and limits; alarms and calls stay.
    pub fn replace_desk(&mut self, now: Now, desk: DeskSettings) {
        self.fire_watches(now);
        self.drills.set_settings(now, &desk);
        self.watch.set_settings(now, desk);
    }

    /// What is real comes first.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.watch.poll_effect().or_else(|| self.drills.poll_effect()).or_else(|| self.walks.poll_effect())
    }

    pub fn poll_timeout(&self) -> Option<Mono> {
        let Self { watch, drills, walks, rules, .. } = self;
        let timers = [watch.poll_timeout(), drills.poll_timeout(), walks.poll_timeout(), rules.poll_timeout()];
        timers.into_iter().flatten().min()
    }

    pub fn rules(&self) -> &RuleSet {
        &self.rules
    }

    /// The rules in force, in the order of `RuleIx`.
    pub fn specs(&self) -> &[Arc<RuleSpec>] {
        &self.specs
    }

    pub fn desk(&self) -> &DeskSettings {
        self.watch.desk.settings()
    }

    /// One open alarm.
    pub fn alarm(&self, id: AlarmId) -> Option<&Arc<Alarm>> {
        self.watch.alarm(id).or_else(|| self.drills.alarm(id))
    }

    /// All open alarms, gravest first, then oldest first; behind them those of drills.
    pub fn alarms(&self) -> Vec<Arc<Alarm>> {
        let mut alarms = self.watch.alarms();
        alarms.extend(self.drills.alarms());
        alarms
    }

    /// The drills that are on, the oldest first.
    pub fn drills(&self) -> impl ExactSizeIterator<Item = &Arc<Drill>> {
        self.drills.drills()
    }

    /// The walk tests that are on, the oldest first.
    pub fn walks(&self) -> impl ExactSizeIterator<Item = &Arc<Walk>> {
        self.walks.walks()
    }

    /// The points that speak now and are taken for tested.
    pub fn speaking(&self) -> impl Iterator<Item = &Arc<Tick>> {
        self.walks.speaking()
    }

    /// All open incidents, the oldest first; behind them those of drills.
    pub fn incidents(&self) -> impl Iterator<Item = &Arc<Incident>> {
        self.watch.incidents().chain(self.drills.incidents())
    }

    /// One open incident with its open alarms.
    pub fn situation(&self, id: IncidentId) -> Option<Situation> {
        self.watch.situation(id).or_else(|| self.drills.situation(id))
    }

    /// The calls for one alarm in the order in which the stations were first called.
    pub fn calls_of(&self, alarm: AlarmId) -> Vec<Call> {
        self.watch.calls_of(alarm).chain(self.drills.calls_of(alarm)).cloned().collect()
    }

    /// The stations that can be called by hand for an open alarm, in the order in which they would be called.
    pub fn callable(&self, alarm: AlarmId) -> Option<Vec<Callable>> {
        self.watch.callable(alarm).or_else(|| self.drills.callable(alarm))
    }

    /// The step of its escalation after which nobody new hears of an alarm.
    pub fn last_escalation(&self, alarm: &Alarm) -> u32 {
        match alarm.drill {
            None => self.watch.last_escalation(alarm),
            Some(_) => self.drills.last_escalation(alarm),
        }
    }

    /// Takes up what people said of the stations in the last run. After [`Engine::restore`].
    pub fn restore_duty(&mut self, now: Now, duty: Vec<DutyChange>) {
        self.drills.restore_duty(now, &duty);
        self.watch.restore_duty(now, duty);
    }

    /// What people said of a station, and why it cannot respond.
    pub fn duty_of(&self, station: &str) -> (Arc<Duty>, &[Unready]) {
        (self.watch.desk.duty_of(station), self.watch.desk.unready(station))
    }

    /// All calls for open alarms that are real.
    pub fn calls(&self) -> Vec<Call> {
        self.watch.calls()
    }

    pub fn counts(&self) -> Counts {
        Counts { drills: self.drills.drills().len(), drill_alarms: self.drills.alarms().count(), ..self.watch.counts() }
    }

    /// Timers of rules, alarms and calls. What a window says now counts after what was due before.
    fn fire(&mut self, now: Now, points: &Points) {
        self.fire_watches(now);
        if std::mem::take(&mut self.abandoned) {
            self.watch.health.handle_abandoned(now, &mut self.watch.book);
            self.watch.drain(now);
        }
        if self.rules.poll_timeout().is_some_and(|due| due <= now.mono) {
            let book = &self.watch.book;
            let active = |rule, subject| book.reached(rule, subject);
            self.rules.handle_timeout(now, points, &active, &mut self.judged);
            self.take_judged(now, points);
        }
    }

    /// What is real comes first.
    fn fire_watches(&mut self, now: Now) {
        // Before the alarms' timers: what is no test any more is among them.
        self.walks.fire(now);
        self.take_real(now);
        self.watch.fire(now);
        self.drills.fire(now);
    }

    fn take_judged(&mut self, now: Now, points: &Points) {
        let mut all = std::mem::take(&mut self.judged);
        for judged in all.drain(..) {
            let spec = &self.specs[judged.rule.0 as usize];
            let tuning = self.rules.tuning(judged.rule, judged.subject);
            let waits = self.walks.judge(now, points, spec, tuning, &judged, &self.watch.book);
            self.watch.handle_judged(now, points, spec, waits.as_ref().unwrap_or(tuning), &judged);
            self.take_real(now);
        }
        // Its room is used again.
        self.judged = all;
    }

    /// What was taken for a test and is none has waited for long enough.
    fn take_real(&mut self, now: Now) {
        while let Some((rule, point)) = self.walks.poll_real() {
            self.watch.book.retune(now, (rule, point), self.rules.tuning(rule, point));
            self.watch.drain(now);
        }
    }

    fn bind_restored(&mut self, points: &Points) {
        if !self.unbound {
            return;
        }
        self.points_seen = points.len();
        for key in self.watch.book.unbound() {
            let (Some(rule), Some(point)) = (self.rules.find(&key.0), points.find(key.1.as_str())) else { continue };
            let tuning = self.rules.tuning(rule, point);
            if tuning.enabled {
                self.watch.book.bind(&key, (rule, point), points, tuning);
            } else {
                // Switched off for this subject while anmin was away.
                self.watch.book.abandon(&key);
                self.abandoned = true;
            }
        }
        self.unbound = !self.watch.book.unbound().is_empty();
    }
}

fn specs_of(rules: &RuleSet) -> Vec<Arc<RuleSpec>> {
    rules.rules().map(|(_, spec)| Arc::new(spec.clone())).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use anmin_sensors::document::{Fault, Faults};
    use anmin_sensors::point::{DeviceId, Form, Kind, PointIx, PointSpec};
    use anmin_sensors::reading::{Quality, Value};

    use super::*;
    use crate::library;
    use crate::order::{CallState, Station};
    use crate::rule::RuleIx;
    use crate::set::RuleSource;

    /// Two gas detectors in a kitchen and the shipped rules.
    struct Kitchen {
        engine: Engine,
        points: Points,
        alarms: Vec<Arc<Alarm>>,
        incidents: Vec<Arc<Incident>>,
        /// What a journal would hold of conditions whose delays run.
        pending: Vec<Arc<Pending>>,
        seen: Vec<String>,
    }

    fn now(seconds: u64) -> Now {
        Now { mono: Mono::from_nanos(1_000_000_000), wall: Wall::from_millis(1_800_000_000_000) }
            .plus(Duration::from_secs(seconds))
    }

    fn rules(leave_out: &str) -> RuleSet {
        let faults = Faults::default();
        let sources = library::shipped().into_iter().filter(|source| source.name != leave_out).collect();
        let set = RuleSet::load(sources, Vec::new(), &faults);
        assert_eq!(set.broken(), []);
        set
    }

    fn desk() -> DeskSettings {
        let station =
            Station {
                id: "s1".into(), name: Text::both("一号站"), phone: "0571-1".to_owned(), ..Station::default()
            };
        DeskSettings { stations: vec![station], ..DeskSettings::default() }
    }

    impl Kitchen {
        fn new() -> Self {
            let mut points = Points::default();
            let place = Place { building: "3".to_owned(), room: "501".to_owned(), ..Place::default() };
            let kind = Kind::named("gas.lel").expect("a kind of the table in sensors");
            let spec = Arc::new(PointSpec { alarm_point: true, ..PointSpec::plain("lel", kind) });
            for id in ["g1", "g2"] {
                let specs = [Arc::clone(&spec)];
                points
                    .add(DeviceId::new(id), None, &"test".into(), &Arc::new(place.clone()), &specs)
                    .expect("the devices have different names");
            }
            let mut engine = Engine::new(rules(""), desk(), 7);
            engine.bind(&points);
            Self { engine, points, alarms: Vec::new(), incidents: Vec::new(), pending: Vec::new(), seen: Vec::new() }
        }

        fn sample(&self, at: u64, point: u32, value: f64) -> Sample {
            Sample {
                point: PointIx(point),
                value: Some(Value::Number(value)),
                quality: Quality::Good,
                time: now(at).wall,
                source_time: Some(now(at).wall),
                received: now(at),
                sequence: Some(at),
                news: true,
            }
        }

        fn hear(&mut self, at: u64, values: &[f64]) {
            self.wait_until(at);
            let samples: Vec<Sample> = values.iter().map(|value| self.sample(at, 0, *value)).collect();
            self.engine.handle_samples(now(at), &self.points, &samples);
            self.take();
        }

        /// The points said nothing worth knowing.
        fn replace_rules(&mut self, at: u64, rules: RuleSet) {
            self.engine.replace_rules(now(at), &self.points, rules, |_| None);
            self.take();
        }

        fn wait_until(&mut self, at: u64) {
            while let Some(due) = self.engine.poll_timeout().filter(|due| *due <= now(at).mono) {
                let then = now(0).plus(due.since(now(0).mono));
                self.engine.handle_timeout(then, &self.points);
                self.take();
            }
        }

        fn take(&mut self) {
            while let Some(effect) = self.engine.poll_effect() {
                match effect {
                    Effect::Transition(transition) => {
                        let alarm = &transition.alarm;
                        self.alarms.retain(|other| other.id != alarm.id);
                        self.alarms.push(Arc::clone(alarm));
                        self.seen.push(format!("{} {}", transition.cause.as_str(), alarm.level.as_str()));
                    }
                    Effect::Call(change) => self.seen.push(format!("call {}", change.call.state.as_str())),
                    Effect::Incident(change) => {
                        self.incidents.retain(|other| other.id != change.incident.id);
                        self.incidents.push(Arc::clone(&change.incident));
                    }
                    Effect::Pending(pending) => {
                        self.pending.retain(|other| (&other.rule, &other.subject) != (&pending.rule, &pending.subject));
                        if !pending.is_over() {
                            self.pending.push(pending);
                        }
                    }
                    Effect::Duty(_) => {}
                    Effect::Drill(change) => panic!("nobody drills: {change:?}"),
                    Effect::Walk(change) => panic!("nobody walks: {change:?}"),
                    Effect::Order(order) => panic!("there is no channel for {:?}", order.id),
                }
            }
        }

        fn seen(&mut self) -> Vec<String> {
            std::mem::take(&mut self.seen)
        }
    }

    #[test]
    fn gas_climbs_from_yellow_to_red_and_the_station_is_called() {
        let mut kitchen = Kitchen::new();
        kitchen.hear(0, &[2.0]);
        kitchen.hear(10, &[12.0]);
        kitchen.hear(11, &[13.0]);
        assert!(kitchen.seen().is_empty(), "the on-delay is two seconds");
        kitchen.hear(13, &[30.0]);
        kitchen.hear(16, &[31.0]);
        kitchen.hear(20, &[60.0]);
        kitchen.hear(22, &[61.0]);
        kitchen.wait_until(22);
        assert_eq!(kitchen.seen(), ["raised yellow", "level_changed orange", "call called", "level_changed red"],);
        let alarm = Arc::clone(&kitchen.alarms[0]);
        assert_eq!(alarm.rule.as_str(), "gas/leak");
        assert_eq!(alarm.message.zh, "3号楼501可燃气体浓度60 %LEL，达到红色限值50 %LEL。");
        assert_eq!(alarm.evidence.sequence, Some(20), "the reading at hand when the delay had passed");
        assert_eq!(alarm.evidence.limit, Some(("red".to_owned(), 50.0)));
        assert_eq!(kitchen.engine.counts().at(Level::Red), 1);
        assert_eq!(kitchen.engine.calls_of(alarm.id)[0].state, CallState::Called);
        assert_eq!(kitchen.engine.alarms(), [alarm]);
    }

    #[test]
    fn how_samples_are_batched_decides_nothing() {
        let values = [5.0, 26.0, 21.0, 26.0, 60.0, 46.0, 44.0, 19.0, 2.0, 30.0];
        let (mut one, mut many) = (Kitchen::new(), Kitchen::new());
        for round in 0..20 {
            one.hear(round, &values);
            values.iter().for_each(|value| many.hear(round, &[*value]));
        }
        one.hear(60, &[30.0]);
        many.hear(60, &[30.0]);
        assert_eq!(one.seen(), many.seen());
        assert_eq!(one.alarms, many.alarms);
    }

    #[test]
    fn after_a_restart_the_deadband_holds_from_the_first_sample() {
        let mut kitchen = Kitchen::new();
        kitchen.hear(0, &[30.0]);
        kitchen.hear(5, &[30.0]);
        assert_eq!(kitchen.seen(), ["raised orange", "call called"]);
        let (alarms, calls) = (kitchen.alarms.clone(), kitchen.engine.calls());
        kitchen.engine = Engine::new(rules(""), desk(), 8);
        kitchen.engine.restore(now(10), alarms.clone(), calls, kitchen.incidents.clone());
        kitchen.engine.bind(&kitchen.points);
        assert_eq!(kitchen.engine.alarms(), alarms);
        kitchen.hear(20, &[22.0]);
        kitchen.hear(55, &[22.0]);
        assert!(kitchen.seen().is_empty(), "22 lies within the deadband of the orange limit");
        let all = (0..kitchen.engine.specs.len()).map(|n| RuleIx(n as u32));
        let held: Vec<Level> = all.filter_map(|rule| kitchen.engine.watch.book.reached(rule, PointIx(0))).collect();
        assert_eq!(held, [Level::Orange]);
    }

    #[test]
    fn a_delay_that_runs_starts_again_after_a_restart_though_nobody_speaks() {
        let mut kitchen = Kitchen::new();
        let restart = |kitchen: &mut Kitchen, at: u64| {
            kitchen.engine = Engine::new(rules(""), desk(), at);
            kitchen.engine.restore(now(at), kitchen.alarms.clone(), Vec::new(), kitchen.incidents.clone());
            kitchen.engine.restore_pending(now(at), kitchen.pending.clone(), |_| true);
            kitchen.engine.bind(&kitchen.points);
            kitchen.take();
        };
        kitchen.hear(0, &[12.0]);
        assert_eq!((kitchen.pending.len(), kitchen.pending[0].above), (1, Some(Level::Yellow)));
        restart(&mut kitchen, 10);
        kitchen.wait_until(11);
        assert!(kitchen.seen().is_empty(), "gas/leak waits two seconds");
        kitchen.wait_until(12);
        assert_eq!(kitchen.seen(), ["raised yellow"]);
        assert!(kitchen.alarms[0].message.en.contains("12"), "{}", kitchen.alarms[0].message.en);
        assert!(kitchen.pending.is_empty(), "the alarm says it now");
        kitchen.hear(20, &[1.0]);
        assert_eq!(kitchen.pending[0].below, Some(Level::Blue));
        restart(&mut kitchen, 30);
        kitchen.wait_until(59);
        assert!(kitchen.seen().is_empty(), "... and thirty until it is over");
        kitchen.wait_until(60);
        assert_eq!(kitchen.seen(), ["returned yellow"]);
        assert!(kitchen.pending.is_empty());
    }

    /// Goal: a quantity that rises slowly under noise is told no later than its confirm time after the first touch. Method: a reading at
    /// the limit, then some within the deadband below it, with a restart between them; and one that is over before the delay is.
    #[test]
    fn noise_around_a_limit_breaks_no_delay_off_not_even_with_a_restart_in_the_middle() {
        let mut kitchen = Kitchen::new();
        kitchen.hear(0, &[25.0, 21.0]);
        kitchen.hear(1, &[24.9, 20.0]);
        assert_eq!((kitchen.pending.len(), kitchen.pending[0].above), (1, Some(Level::Orange)));
        kitchen.hear(2, &[20.0]);
        assert_eq!(kitchen.seen(), ["raised orange", "call called"], "gas/leak waits two seconds");
        let mut kitchen = Kitchen::new();
        kitchen.hear(0, &[25.0]);
        kitchen.engine = Engine::new(rules(""), desk(), 8);
        kitchen.engine.restore_pending(now(1), kitchen.pending.clone(), |_| true);
        kitchen.engine.bind(&kitchen.points);
        kitchen.hear(2, &[20.0]);
        kitchen.hear(3, &[20.0]);
        assert_eq!(kitchen.seen(), ["raised orange", "call called"]);
        let mut kitchen = Kitchen::new();
        kitchen.hear(0, &[25.0]);
        kitchen.hear(1, &[19.9]);
        kitchen.hear(3, &[24.9]);
        assert_eq!(kitchen.seen(), ["raised yellow"], "it was over as far as orange goes");
    }

    #[test]
    fn an_alarm_whose_rule_is_gone_stays_until_a_person_resets_it() {
        let mut kitchen = Kitchen::new();
        kitchen.hear(0, &[12.0]);
        kitchen.hear(5, &[12.0]);
        assert_eq!(kitchen.seen(), ["raised yellow"]);
        kitchen.replace_rules(6, rules("gas/leak"));
        kitchen.hear(7, &[1.0]);
        kitchen.hear(100, &[1.0]);
        let of =
            |rule: &str| kitchen.alarms.iter().find(|alarm| alarm.rule.as_str() == rule).cloned().expect("it is open");
        let (alarm, notice) = (of("gas/leak").id, of("system/rule"));
        assert_eq!((notice.subject.as_str(), notice.level), ("rule-gone:gas/leak", Level::Blue));
        assert!(notice.message.en.contains("its open alarms (1)"), "{}", notice.message.en);
        assert_eq!(kitchen.seen(), ["raised blue", "escalated yellow"], "and somebody is told again until they come");
        let mut say = |what| kitchen.engine.handle_command(now(101), Command { who: "li".to_owned(), what });
        assert_eq!(say(Action::Reset { alarm }), Err(Refusal::NotAcknowledged { alarm }));
        say(Action::Acknowledge { alarm }).expect("it is open");
        say(Action::Reset { alarm }).expect("nobody judges it any more");
        kitchen.take();
        assert_eq!(kitchen.engine.counts(), Counts { incidents: 1, ..Counts::default() });
    }

    /// An override switches a rule off for a subject whose alarm stands, once while anmin runs and once while it does not.
    #[test]
    fn an_alarm_whose_rule_is_switched_off_is_said_and_can_be_reset() {
        for restart in [false, true] {
            let mut kitchen = Kitchen::new();
            kitchen.hear(0, &[12.0]);
            kitchen.hear(5, &[12.0]);
            assert_eq!(kitchen.seen(), ["raised yellow"]);
            let alarm = kitchen.alarms[0].id;
            let faults = Faults::default();
            let text = "[[override]]\nrule = \"gas/leak\"\ndevice = \"g1\"\nenabled = false\n";
            let document = anmin_sensors::document::Document::parse("site.toml", text, &faults).expect("TOML");
            let off = document.root(&faults).tables("override").iter().filter_map(crate::set::Override::read).collect();
            let off = RuleSet::load(library::shipped(), off, &faults);
            if restart {
                kitchen.engine = Engine::new(off, desk(), 8);
                kitchen.engine.restore(now(6), kitchen.alarms.clone(), Vec::new(), kitchen.incidents.clone());
                kitchen.engine.bind(&kitchen.points);
                kitchen.hear(7, &[12.0]);
            } else {
                kitchen.replace_rules(6, off);
            }
            assert_eq!(kitchen.seen(), ["raised blue"], "{restart}");
            let mut say = |what| kitchen.engine.handle_command(now(8), Command { who: "li".to_owned(), what });
            say(Action::Acknowledge { alarm }).expect("it is open");
            say(Action::Reset { alarm }).expect("nobody judges it any more");
            kitchen.take();
            assert_eq!(kitchen.engine.counts(), Counts { incidents: 1, ..Counts::default() }, "{restart}");
        }
    }

    #[test]
    fn rules_that_stay_go_on_where_they_were() {
        let mut kitchen = Kitchen::new();
        kitchen.hear(0, &[12.0]);
        kitchen.replace_rules(1, rules("flood/rain"));
        kitchen.hear(2, &[12.0]);
        kitchen.wait_until(4);
        assert_eq!(kitchen.seen(), ["raised yellow"], "a pending delay is not lost");
        kitchen.replace_rules(5, rules(""));
        kitchen.hear(6, &[7.0]);
        kitchen.hear(60, &[7.0]);
        assert!(kitchen.seen().is_empty(), "7 lies within the deadband of the yellow limit");
        kitchen.hear(61, &[1.0]);
        kitchen.wait_until(100);
        assert_eq!(kitchen.seen(), ["escalated yellow", "returned yellow"]);
    }

    /// A site's own rule is broken, first one that stands alone, then one under a shipped rule's name.
    #[test]
    fn a_rule_that_cannot_be_loaded_is_a_system_alarm_until_it_is_mended() {
        let mut kitchen = Kitchen::new();
        let fault = Fault {
            source: "rules/gas/ours.rhai".to_owned(),
            line: 7,
            column: 12,
            message: "there is no function `abve`".to_owned(),
            hint: Some("did you mean `above`?".to_owned()),
            zh: None,
        };
        let broken = |name: &str| vec![BrokenRule { name: name.to_owned(), faults: vec![fault.clone()] }];
        kitchen.engine.handle_broken_rules(now(0), &broken("gas/ours"));
        kitchen.take();
        assert_eq!(kitchen.seen(), ["raised yellow"]);
        let alarm = Arc::clone(&kitchen.alarms[0]);
        assert_eq!((alarm.rule.as_str(), alarm.subject.as_str()), ("system/rule", "rule-file:gas/ours"));
        let others = kitchen.engine.rules().rules().len();
        let said = format!(
            "rule gas/ours cannot be loaded: rules/gas/ours.rhai:7:12: there is no function `abve`. Nobody judges what \
             it was to watch; {others} rules are in force."
        );
        assert_eq!(alarm.message.en, said);
        assert!(alarm.message.zh.contains("目前无人判断"), "{}", alarm.message.zh);
        assert_eq!(kitchen.engine.broken_rules().map(RuleId::as_str).collect::<Vec<_>>(), ["gas/ours"]);

        let restart = |kitchen: &mut Kitchen, at: u64, broken: &[BrokenRule]| {
            let alarms = kitchen.alarms.clone();
            kitchen.engine = Engine::new(rules(""), desk(), at);
            kitchen.engine.restore(now(at), alarms, Vec::new(), kitchen.incidents.clone());
            kitchen.engine.bind(&kitchen.points);
            kitchen.engine.handle_broken_rules(now(at), broken);
            kitchen.wait_until(at + 1);
            kitchen.take();
        };
        restart(&mut kitchen, 10, &broken("gas/ours"));
        assert!(kitchen.seen().is_empty(), "it is the same alarm after a restart");
        restart(&mut kitchen, 20, &[]);
        assert_eq!(kitchen.seen(), ["returned yellow"], "mended or taken away");
        assert_eq!(kitchen.engine.broken_rules().count(), 0);

        restart(&mut kitchen, 30, &broken("gas/leak"));
        assert_eq!(kitchen.seen(), ["raised yellow"]);
        kitchen.hear(40, &[12.0]);
        kitchen.hear(45, &[12.0]);
        assert_eq!(kitchen.seen(), ["raised yellow"], "the shipped gas/leak judges on");
        assert!(kitchen.engine.broken_rules().any(|rule| rule.as_str() == "gas/leak"), "and does not mend the file");
        let said =
            &kitchen.engine.alarms().iter().find(|alarm| alarm.subject.as_str() == "rule-file:gas/leak").cloned();
        assert!(said.as_ref().is_some_and(|alarm| alarm.message.en.contains("The shipped rule of that name judges")));
    }

    /// A script that never ends for some values costs the others nothing, is said, and is tried again by time alone.
    #[test]
    fn a_rule_that_runs_away_is_parked_said_and_tried_again() {
        let own = |name: &str, script: &str| {
            RuleSource {
            folder: "site".to_owned(),
            name: name.to_owned(),
            toml: "title = { zh = \"试\", en = \"t\" }\nmessage = { zh = \"试\", en = \"t\" }\nadvice = { zh = \"试\", en = \"t\" }\n\
                   on_delay = \"0s\"\n[[input]]\nrole = \"gas\"\nkind = \"gas.lel\"\n\
                   [limit.red]\nvalue = 50\nunit = \"%LEL\"\nsource = \"test\"\n"
                .to_owned(),
            script: script.to_owned(),
        }
        };
        let set = || {
            let away = "fn judge(gas) { if gas.value > 40.0 && gas.value < 41.0 { loop { } } \
                        if above(gas, \"red\") { red() } else { normal() } }";
            let well = "fn judge(gas) { if gas.value > 40.5 { red() } else { normal() } }";
            let set = RuleSet::load(vec![own("gas/away", away), own("gas/well", well)], Vec::new(), &Faults::default());
            assert_eq!(set.broken(), []);
            set
        };
        let mut kitchen = Kitchen::new();
        kitchen.engine = Engine::new(set(), desk(), 7);
        kitchen.engine.bind(&kitchen.points);
        kitchen.hear(0, &[40.2]);
        assert_eq!(kitchen.seen(), ["raised yellow"], "that it cannot judge");
        let rule = kitchen.alarms[0].clone();
        assert_eq!((rule.rule.as_str(), rule.subject.as_str()), ("system/rule", "rule:gas/away"));
        assert!(rule.message.en.contains("more than 20000 operations"), "{}", rule.message.en);
        let before = kitchen.engine.rules().calls();
        kitchen.hear(0, &[40.2; 100]);
        assert_eq!(kitchen.engine.rules().calls() - before, 100, "the other rule alone is asked");
        kitchen.wait_until(1);
        assert_eq!(kitchen.engine.rules().calls() - before, 101, "tried again after a second, though nobody speaks");
        kitchen.engine.replace_rules(now(2), &kitchen.points, set(), |_| None);
        kitchen.wait_until(600);
        let tries = kitchen.engine.rules().calls() - before - 101;
        assert!(
            (12..20).contains(&tries),
            "{tries}: less and less often, and a reload of what it was forgives nothing"
        );
        assert!(kitchen.seen().is_empty());
        // What it could judge waits its turn, and no longer.
        kitchen.hear(601, &[60.0]);
        assert_eq!(kitchen.seen()[0], "raised red", "by the other rule at once");
        kitchen.wait_until(665);
        let seen = kitchen.seen();
        assert!(seen.contains(&"raised red".to_owned()) && seen.contains(&"returned yellow".to_owned()), "{seen:?}");
        let calls = kitchen.engine.rules().calls();
        kitchen.hear(666, &[61.0]);
        assert_eq!(kitchen.engine.rules().calls() - calls, 2, "and it is asked as ever");
    }

    /// A rule whose text is another, with a new limit: what its window has heard is not lost, and it is judged at once.
    #[test]
    fn a_rule_that_changed_keeps_its_windows_and_is_judged_at_once() {
        let rain = |limit: u32, over: &str| {
            let toml = format!(
                "title = {{ zh = \"试\", en = \"t\" }}\nmessage = {{ zh = \"试\", en = \"t {limit}\" }}\n\
                 advice = {{ zh = \"试\", en = \"t\" }}\non_delay = \"0s\"\n[[input]]\nrole = \"rain\"\nkind = \"flood.rain\"\n\
                 [[window]]\nname = \"fallen\"\ninput = \"rain\"\nover = \"{over}\"\n\
                 [limit.red]\nvalue = {limit}\nunit = \"mm\"\nsource = \"test\"\n"
            );
            let script =
                "fn judge(rain) { if above(window(\"fallen\"), \"red\") { red() } else { normal() } }".to_owned();
            let source = RuleSource { folder: "site".to_owned(), name: "flood/ours".to_owned(), toml, script };
            let set = RuleSet::load(vec![source], Vec::new(), &Faults::default());
            assert_eq!(set.broken(), []);
            set
        };
        let mut points = Points::default();
        let spec = Arc::new(PointSpec::plain("rain", Kind::named("flood.rain").expect("a kind")));
        points.add(DeviceId::new("r1"), None, &"test".into(), &Arc::default(), &[spec]).expect("the first");
        let mut engine = Engine::new(rain(20, "1h"), DeskSettings::default(), 7);
        engine.bind(&points);
        let hear = |engine: &mut Engine, at: u64, fallen: f64| {
            let sample = Sample {
                point: PointIx(0),
                value: Some(Value::Number(fallen)),
                quality: Quality::Good,
                time: now(at).wall,
                source_time: None,
                received: now(at),
                sequence: None,
                news: true,
            };
            engine.handle_samples(now(at), &points, std::slice::from_ref(&sample));
            sample
        };
        let raised = |engine: &mut Engine| engine.alarms().len();
        hear(&mut engine, 0, 12.0);
        let last = hear(&mut engine, 60, 0.0);
        engine.replace_rules(now(120), &points, rain(15, "1h"), |_| Some(last.clone()));
        assert_eq!(raised(&mut engine), 0);
        let last = hear(&mut engine, 180, 2.0);
        assert_eq!(raised(&mut engine), 0, "fourteen of fifteen");
        // Another window begins anew, and sums nothing that it has not heard.
        engine.replace_rules(now(190), &points, rain(10, "2h"), |_| Some(last.clone()));
        assert_eq!(raised(&mut engine), 0);
        engine.replace_rules(now(200), &points, rain(15, "1h"), |_| Some(last.clone()));
        hear(&mut engine, 210, 14.0);
        assert_eq!(raised(&mut engine), 0, "nor does it when the first comes back");
        engine.replace_rules(now(220), &points, rain(14, "1h"), |_| Some(last.clone()));
        assert_eq!(raised(&mut engine), 1, "judged by the new limit, though nobody speaks");
    }

    /// Goal: a reload in the middle of a day changes nothing for rules that stay. Method: two engines live through the same
    /// random day, with all shipped rules; one of them gets new rules again and again, in which one more rule comes, changes
    /// or goes, and its overrides with it. All that they want done must be the same, to the last letter.
    #[test]
    fn a_reload_in_the_middle_of_a_day_changes_nothing_for_rules_that_stay() {
        const KINDS: [&str; 14] = [
            "gas.lel",
            "gas.co",
            "fire.smoke",
            "fire.temperature",
            "fire.smoke_density",
            "power.residual_current",
            "power.cable_temperature",
            "power.current",
            "power.voltage",
            "flood.level",
            "flood.rain",
            "care.motion",
            "env.noise",
            "device.battery",
        ];
        // It watches what others watch, and finds nothing: what it did would be a difference that is wanted.
        let toml = |limit: u32| {
            format!(
                "title = {{ zh = \"试\", en = \"t\" }}\nmessage = {{ zh = \"试\", en = \"t\" }}\nadvice = {{ zh = \"试\", en = \"t\" }}\n\
                 [[input]]\nrole = \"gas\"\nkind = \"gas.lel\"\n[[input]]\nrole = \"heat\"\nkind = \"fire.temperature\"\n\
                 scope = \"room\"\noptional = true\n[[window]]\nname = \"most\"\nmeasure = \"max\"\ninput = \"heat\"\nover = \"5m\"\n\
                 [limit.red]\nvalue = {limit}\nunit = \"%LEL\"\nsource = \"test\"\n"
            )
        };
        let set = |more: Option<u32>| {
            let mut sources = library::shipped();
            sources.extend(more.map(|limit| RuleSource {
                folder: "site".to_owned(),
                // Before the others, so that every index moves.
                name: "aa/more".to_owned(),
                toml: toml(10_000 + limit),
                script: "fn judge(gas, heat) { if above(gas, \"red\") { red() } else { normal() } }".to_owned(),
            }));
            sources.sort_by(|a, b| a.name.cmp(&b.name));
            let set = RuleSet::load(sources, Vec::new(), &Faults::default());
            assert_eq!(set.broken(), []);
            set
        };
        for seed in 1..5_u64 {
            let mut dice = seed;
            let mut roll = |sides: u64| {
                // xorshift64*: good enough to tell stories.
                dice ^= dice >> 12;
                dice ^= dice << 25;
                dice ^= dice >> 27;
                (dice.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
            };
            let mut points = Points::default();
            let mut engines = [Engine::new(set(None), desk(), seed), Engine::new(set(None), desk(), seed)];
            let mut latest: BTreeMap<PointIx, Sample> = BTreeMap::new();
            let mut devices = 0;
            let mut at = now(0);
            let (mut told, mut reloads) = (0, 0);
            for step in 0..700_usize {
                if step.is_multiple_of(100) && devices < 24 {
                    for room in ["101", "201", "301"] {
                        let place = Place {
                            building: "3".to_owned(),
                            unit: "1".to_owned(),
                            floor: room[..1].to_owned(),
                            room: room.to_owned(),
                            ..Place::default()
                        };
                        let specs: Vec<_> = KINDS
                            .iter()
                            .map(|kind| {
                                Arc::new(PointSpec::plain(&kind.replace('.', "_"), Kind::named(kind).expect("a kind")))
                            })
                            .collect();
                        devices += 1;
                        let id = DeviceId::new(format!("d{devices}"));
                        points.add(id, None, &"test".into(), &Arc::new(place), &specs).expect("each id is new");
                    }
                    engines.iter_mut().for_each(|engine| assert_eq!(engine.bind(&points).left_out, 0));
                }
                at = at.plus(Duration::from_millis(1 + roll(if step % 50 < 40 { 20_000 } else { 900_000 })));
                let ix = PointIx(roll(points.len() as u64) as u32);
                let info = points.point(ix).spec.kind.info();
                let quality = match roll(16) {
                    0 => Quality::Bad(anmin_sensors::reading::Fault::Comms),
                    1 => Quality::Uncertain(anmin_sensors::reading::Doubt::Jump),
                    _ => Quality::Good,
                };
                let value = match info.form {
                    Form::Flag => Value::Flag(roll(3) == 0),
                    _ => Value::Number([0.0, 5.0, 12.0, 26.0, 60.0, 240.0, 320.0, 8.0][roll(8) as usize]),
                };
                let sample = Sample {
                    point: ix,
                    value: (!matches!(quality, Quality::Bad(_))).then_some(value),
                    quality,
                    time: at.wall,
                    source_time: None,
                    received: at,
                    sequence: None,
                    news: roll(20) > 0,
                };
                latest.insert(ix, sample.clone());
                for engine in &mut engines {
                    // Each timer at its own time, as the main loop would.
                    while let Some(due) = engine.poll_timeout().filter(|due| *due < at.mono) {
                        let then = now(0).plus(due.since(now(0).mono));
                        engine.handle_timeout(then, &points);
                    }
                    engine.handle_samples(at, &points, std::slice::from_ref(&sample));
                    if roll_command(step) {
                        for alarm in engine.alarms() {
                            let what = Action::Acknowledge { alarm: alarm.id };
                            engine.handle_command(at, Command { who: "li".to_owned(), what }).expect("it is open");
                        }
                    }
                }
                if roll(35) == 0 {
                    reloads += 1;
                    let more = [None, Some(1), Some(2)][roll(3) as usize];
                    engines[1].replace_rules(at, &points, set(more), |ix| latest.get(&ix).cloned());
                }
                let [one, other] = &mut engines;
                let said: [Vec<Effect>; 2] =
                    [one, other].map(|engine| std::iter::from_fn(|| engine.poll_effect()).collect());
                told += said[0].len();
                assert_eq!(said[0], said[1], "seed {seed}, step {step}, {sample:?}");
                let stands = |engine: &Engine| {
                    let rules: Vec<RuleId> = engine.rules().rules().map(|(_, spec)| spec.id.clone()).collect();
                    let held = rules.iter().filter(|id| id.as_str() != "aa/more").flat_map(|id| {
                        let rule = engine.rules().find(id).expect("listed above");
                        (0..points.len() as u32).map(move |ix| (rule, PointIx(ix)))
                    });
                    held.map(|(rule, ix)| engine.watch.book.reached(rule, ix)).collect::<Vec<_>>()
                };
                if step.is_multiple_of(20) {
                    assert_eq!(stands(&engines[0]), stands(&engines[1]), "seed {seed}, step {step}");
                }
            }
            assert!(told > 100 && reloads > 8, "seed {seed} tells little: {told} {reloads}");
        }
    }

    fn roll_command(step: usize) -> bool {
        step.is_multiple_of(97)
    }
}
