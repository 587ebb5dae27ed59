//! From transitions to orders: station calls with their clocks, events and CAP messages for the ways out.
//!
//! It sees every transition once, in order, and says what must be done. Calls run on the monotonic clock like the alarm
//! book. It knows neither rules nor readings, nor whether an order arrives: that is the couriers' business.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use anmin_sensors::point::Hazard;
use anmin_sensors::time::{Mono, Now, Wall};

use crate::alarm::{Alarm, AlarmId, AlarmState, CapRef, Cause, Class, Refusal, Transition};
use crate::book::ANMIN;
use crate::engine::Effect;
use crate::order::{
    Call, CallCause, CallChange, CallStamp, CallState, CallStep, CapMessage, CapOrder, Channel, ChannelForm, Order,
    OrderBody, OrderId, Station,
};
use crate::rule::{Level, Text};

/// Everything about people and ways out that the engine must know.
#[derive(Clone, Debug, PartialEq)]
pub struct DeskSettings {
    /// The site's id: the first part of every CAP identifier.
    pub site: String,
    /// In the order of the configuration: who is called where a place names no station.
    pub stations: Vec<Station>,
    /// For each `Place.area` the ids of its stations in the order in which they are called: its own, then neighbours.
    pub areas: BTreeMap<String, Vec<Arc<str>>>,
    /// A hazard at or above this level calls the station.
    pub call_level: Level,
    /// More alarms than so many in ten minutes are a storm, which is folded into incidents by building.
    pub storm_alarms: usize,
    pub channels: Vec<Channel>,
    /// Longest time on the shelf; half an hour at most is the practice for red.
    pub max_shelve: Duration,
    pub max_shelve_red: Duration,
    /// A point may give unusable values for so long before anybody is told.
    pub bad_grace: Duration,
    /// A system alarm of orange or red that nobody acknowledges escalates after so long.
    pub system_escalate_after: Option<Duration>,
}

impl Default for DeskSettings {
    fn default() -> Self {
        Self {
            site: "site".to_owned(),
            stations: Vec::new(),
            areas: BTreeMap::new(),
            call_level: Level::Orange,
            storm_alarms: 10,
            channels: Vec::new(),
            max_shelve: Duration::from_secs(4 * 3600),
            max_shelve_red: Duration::from_secs(1800),
            bad_grace: Duration::from_secs(60),
            system_escalate_after: Some(Duration::from_secs(300)),
        }
    }
}

impl DeskSettings {
    /// The stations for a place in the order in which they are called. A place that names none has them all: somebody
    /// must come.
    fn stations_for(&self, area: &str) -> Vec<Station> {
        let find = |id: &Arc<str>| self.stations.iter().find(|station| station.id == *id).cloned();
        let own: Vec<Station> = self.areas.get(area).into_iter().flatten().filter_map(find).collect();
        if own.is_empty() { self.stations.clone() } else { own }
    }
}

/// What the desk asks of the alarm book.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Request {
    /// Somebody who was called does not come: one step up.
    Escalate(AlarmId),
    /// Whether an area has an alarm that no station answers; the text says which.
    Unanswered { area: Arc<str>, alarm: Option<(Arc<Alarm>, Text)> },
}

/// Calls, and what each way out has heard.
pub(crate) struct ResponseDesk {
    settings: DeskSettings,
    /// Alarms for which a station was called.
    calls: BTreeMap<AlarmId, Calls>,
    timers: BTreeSet<(Mono, AlarmId, Arc<str>)>,
    /// CAP messages that are in force, of alarms that have any.
    caps: BTreeMap<AlarmId, Vec<CapRef>>,
    /// Alarms that no station answers, by area.
    unanswered: BTreeMap<Arc<str>, BTreeSet<AlarmId>>,
    requests: VecDeque<Request>,
}

struct Calls {
    /// As it stood after its last transition.
    alarm: Arc<Alarm>,
    /// In the order in which the stations were first called.
    calls: Vec<Placed>,
    /// Stations called since the last time that the alarm called for help, as indices in `calls`.
    round: BTreeSet<usize>,
}

struct Placed {
    call: Call,
    respond_by: Mono,
    arrive_by: Mono,
    due: Option<Mono>,
}

impl ResponseDesk {
    pub fn new(settings: DeskSettings) -> Self {
        Self {
            settings,
            calls: BTreeMap::new(),
            timers: BTreeSet::new(),
            caps: BTreeMap::new(),
            unanswered: BTreeMap::new(),
            requests: VecDeque::new(),
        }
    }

    pub fn settings(&self) -> &DeskSettings {
        &self.settings
    }

    pub fn set_settings(&mut self, settings: DeskSettings) {
        self.settings = settings;
    }

    /// Takes up the journal's open alarms and their calls. Deadlines go on where they were by the wall clock, none
    /// longer than its full time.
    pub fn restore(&mut self, now: Now, alarms: &[Arc<Alarm>], calls: Vec<Call>) {
        let open: BTreeMap<AlarmId, &Arc<Alarm>> =
            alarms.iter().filter(|alarm| alarm.is_open()).map(|alarm| (alarm.id, alarm)).collect();
        for alarm in open.values().filter(|alarm| !alarm.cap_log.is_empty()) {
            self.caps.insert(alarm.id, alarm.cap_log.clone());
        }
        for call in calls {
            let Some(alarm) = open.get(&call.alarm) else { continue };
            let station = self.settings.stations.iter().find(|station| station.id == call.station);
            let (respond, arrive) = station
                .map_or((Duration::from_secs(60), Duration::from_secs(180)), |s| (s.respond_within, s.arrive_within));
            let left = |until: Wall, period: Duration| now.mono.plus(until.since(now.wall).min(period));
            let placed = Placed {
                respond_by: left(call.respond_by, respond),
                arrive_by: left(call.arrive_by, arrive),
                due: None,
                call,
            };
            let of = self.calls.entry(alarm.id).or_insert_with(|| Calls {
                alarm: Arc::clone(alarm),
                calls: Vec::new(),
                round: BTreeSet::new(),
            });
            of.calls.push(placed);
        }
        for (id, of) in &mut self.calls {
            for n in 0..of.calls.len() {
                rearm(&mut self.timers, *id, &mut of.calls[n]);
            }
            of.round = last_round(&of.calls, &self.settings.stations_for(&of.alarm.place.area));
        }
    }

    /// The journal says that no station answers in this area. Finds again which alarms that was about; `false` when
    /// there is none.
    pub fn restore_unanswered(&mut self, area: &str) -> bool {
        let nobody = |of: &Calls| {
            let failed = |stamp: &CallStamp| matches!(stamp.state, CallState::Unanswered | CallState::Declined);
            let settled = |call: &Call| call.is_answered() || call.state == CallState::StoodDown;
            of.calls.iter().any(|placed| placed.call.stamps.iter().any(failed))
                && !of.calls.iter().any(|placed| settled(&placed.call))
        };
        let of_area = self.calls.iter().filter(|(_, of)| of.alarm.place.area == area);
        let alarms: BTreeSet<AlarmId> = of_area.filter(|(_, of)| nobody(of)).map(|(id, _)| *id).collect();
        let any = !alarms.is_empty();
        if any {
            self.unanswered.insert(area.into(), alarms);
        }
        any
    }

    /// One transition: who must hear of it and who must be called. Returns it as it shall be journaled: with the CAP
    /// messages that leave because of it written into the alarm.
    pub fn handle_transition(
        &mut self,
        now: Now,
        mut transition: Transition,
        effects: &mut VecDeque<Effect>,
    ) -> Arc<Transition> {
        let caps = self.cap_messages(now, &mut transition);
        let transition = Arc::new(transition);
        effects.push_back(Effect::Transition(Arc::clone(&transition)));
        let alarm = &transition.alarm;
        for channel in &self.settings.channels {
            let body = match channel.form {
                ChannelForm::Events if channel.wants(alarm.class, alarm.peak) => {
                    OrderBody::Event(Arc::clone(&transition))
                }
                ChannelForm::Events => continue,
                ChannelForm::Cap => {
                    let Some((message, identifier, references)) = caps.get(&channel.id) else { continue };
                    OrderBody::Cap(Arc::new(CapOrder {
                        message: *message,
                        identifier: identifier.clone(),
                        sent: now.wall,
                        references: references.clone(),
                        alarm: Arc::clone(alarm),
                    }))
                }
            };
            let id = OrderId::new(format!("{}/{}/{}", alarm.id, alarm.seq, channel.id));
            effects.push_back(Effect::Order(Order { id, channel: Arc::clone(&channel.id), body }));
        }
        self.call_or_stand_down(now, &transition, effects);
        transition
    }

    /// Brings what each CAP channel has said in line with how the alarm stands now.
    fn cap_messages(
        &mut self,
        now: Now,
        transition: &mut Transition,
    ) -> BTreeMap<Arc<str>, (CapMessage, String, Vec<CapRef>)> {
        let mut out = BTreeMap::new();
        let alarm = &mut transition.alarm;
        let mut log = self.caps.remove(&alarm.id).unwrap_or_default();
        for channel in self.settings.channels.iter().filter(|channel| channel.form == ChannelForm::Cap) {
            let chain: Vec<CapRef> = log.iter().filter(|sent| *sent.channel == *channel.id).cloned().collect();
            let Some(message) = cap_message(channel, alarm, chain.last()) else { continue };
            let identifier = cap_identifier(&self.settings.site, alarm, channel);
            match message {
                // The chain ends here; a later Alert begins another.
                CapMessage::Cancel => log.retain(|sent| *sent.channel != *channel.id),
                CapMessage::Alert | CapMessage::Update => log.push(CapRef {
                    channel: channel.id.to_string(),
                    identifier: identifier.clone(),
                    sent: now.wall,
                    level: alarm.level,
                }),
            }
            out.insert(Arc::clone(&channel.id), (message, identifier, chain));
        }
        if alarm.cap_log != log {
            Arc::make_mut(alarm).cap_log.clone_from(&log);
        }
        if !log.is_empty() && transition.to != AlarmState::Normal {
            self.caps.insert(transition.alarm.id, log);
        }
        out
    }

    fn call_or_stand_down(&mut self, now: Now, transition: &Transition, effects: &mut VecDeque<Effect>) {
        let alarm = &transition.alarm;
        if let Some(of) = self.calls.get_mut(&alarm.id) {
            of.alarm = Arc::clone(alarm);
        }
        if transition.to == AlarmState::Normal {
            self.close(now, alarm, effects);
            return;
        }
        let calls_for_help = match transition.cause {
            Cause::Raised | Cause::Realarmed | Cause::Unshelved { .. } | Cause::ReturnedToService { .. } => true,
            Cause::LevelChanged(from) => alarm.level > from,
            _ => false,
        };
        let grave = matches!(alarm.class, Class::Hazard(_)) && alarm.level >= self.settings.call_level;
        if !(calls_for_help && grave && alarm.is_active() && !alarm.is_silenced()) {
            return;
        }
        if let Some(of) = self.calls.get_mut(&alarm.id) {
            if of.calls.iter().any(|placed| placed.call.is_live()) {
                return;
            }
            of.round.clear();
        }
        self.call_next(now, alarm, effects);
    }

    /// Calls the next station that has not been called in this round; when there is none left, says so.
    fn call_next(&mut self, now: Now, alarm: &Arc<Alarm>, effects: &mut VecDeque<Effect>) {
        let of = self.calls.get(&alarm.id);
        let called =
            |station: &Station| of.is_some_and(|of| of.round.iter().any(|n| of.calls[*n].call.station == station.id));
        let stations = self.settings.stations_for(&alarm.place.area);
        match stations.iter().find(|station| !called(station)) {
            Some(station) => self.call(now, alarm, station, effects),
            // A site without any station has chosen so.
            None if stations.is_empty() => {}
            None => {
                let zh: Vec<&str> = stations.iter().map(|station| station.name.zh.as_str()).collect();
                let en: Vec<&str> = stations.iter().map(|station| station.name.en.as_str()).collect();
                let text = Text {
                    zh: format!("微型消防站（{}）均未应答：{}。请立即电话联系！", zh.join("、"), alarm.message.zh),
                    en: format!("no station answers ({}): {}. Phone them at once!", en.join(", "), alarm.message.en),
                };
                let area = area_of(alarm);
                self.unanswered.entry(Arc::clone(&area)).or_default().insert(alarm.id);
                self.requests.push_back(Request::Unanswered { area, alarm: Some((Arc::clone(alarm), text)) });
            }
        }
    }

    fn call(&mut self, now: Now, alarm: &Arc<Alarm>, station: &Station, effects: &mut VecDeque<Effect>) {
        let of = self.calls.entry(alarm.id).or_insert_with(|| Calls {
            alarm: Arc::clone(alarm),
            calls: Vec::new(),
            round: BTreeSet::new(),
        });
        let n = match of.calls.iter().position(|placed| placed.call.station == station.id) {
            Some(n) => n,
            None => {
                of.calls.push(Placed {
                    call: Call {
                        alarm: alarm.id,
                        station: Arc::clone(&station.id),
                        station_name: station.name.clone(),
                        state: CallState::Called,
                        stamps: Vec::new(),
                        respond_by: now.wall,
                        arrive_by: now.wall,
                        late: false,
                        seq: 0,
                    },
                    respond_by: now.mono,
                    arrive_by: now.mono,
                    due: None,
                });
                of.calls.len() - 1
            }
        };
        of.round.insert(n);
        let placed = &mut of.calls[n];
        placed.respond_by = now.mono.plus(station.respond_within);
        placed.arrive_by = now.mono.plus(station.arrive_within);
        placed.call.respond_by = now.wall.plus(station.respond_within);
        placed.call.arrive_by = now.wall.plus(station.arrive_within);
        placed.call.late = false;
        let Text { zh, en } = &station.name;
        let text = Text {
            zh: format!("已呼叫{zh}（电话 {}），须在 {} 秒内应答", station.phone, station.respond_within.as_secs()),
            en: format!(
                "{en} is called (phone {}), to answer within {} s",
                station.phone,
                station.respond_within.as_secs()
            ),
        };
        self.change(now, alarm.id, n, Some((CallState::Called, ANMIN, "")), CallCause::Called, text, effects);
    }

    /// What a crew says, or an officer on its behalf. Saying a thing twice is harmless.
    pub fn handle_step(
        &mut self,
        now: Now,
        who: &str,
        id: AlarmId,
        station: &str,
        step: &CallStep,
        effects: &mut VecDeque<Effect>,
    ) -> Result<(), Refusal> {
        let no_call = || Refusal::NoSuchCall { alarm: id, station: station.to_owned() };
        let of = self.calls.get(&id).ok_or_else(no_call)?;
        let n = of.calls.iter().position(|placed| *placed.call.station == *station).ok_or_else(no_call)?;
        let (state, alarm) = (of.calls[n].call.state, Arc::clone(&of.alarm));
        let (to, why) = match step {
            CallStep::Accept => (CallState::Accepted, ""),
            CallStep::OnTheWay => (CallState::OnTheWay, ""),
            CallStep::OnScene => (CallState::OnScene, ""),
            CallStep::StandDown => (CallState::StoodDown, ""),
            CallStep::Decline { why } => (CallState::Declined, why.as_str()),
        };
        if state == to {
            return Ok(());
        }
        match (state, to) {
            (CallState::StoodDown, _) => {
                return Err(Refusal::not_allowed("该次出动已结束", "the call is over: the station was stood down"));
            }
            // A crew on the way has accepted, one on the scene has been on the way.
            (CallState::OnTheWay | CallState::OnScene, CallState::Accepted)
            | (CallState::OnScene, CallState::OnTheWay) => return Ok(()),
            (CallState::OnScene, CallState::Declined) => {
                return Err(Refusal::not_allowed(
                    "已到场的消防站不能拒绝，请撤回",
                    "a crew on the scene cannot decline: stand it down",
                ));
            }
            (_, CallState::Declined) if why.trim().is_empty() => {
                return Err(Refusal::not_allowed("请说明拒绝的原因", "say why the station declines"));
            }
            _ => {}
        }
        let Text { zh, en } = &of.calls[n].call.station_name;
        let text = match to {
            CallState::Accepted => (format!("{zh}已应答"), format!("{en} accepts")),
            CallState::OnTheWay => (format!("{zh}已出动"), format!("{en} is on the way")),
            CallState::OnScene => (format!("{zh}已到场"), format!("{en} is on the scene")),
            CallState::StoodDown => (format!("{zh}已撤回"), format!("{en} is stood down")),
            _ => (format!("{zh}无法出动：{why}"), format!("{en} declines: {why}")),
        };
        let text = Text { zh: text.0, en: text.1 };
        self.change(now, id, n, Some((to, who, why)), CallCause::Said, text, effects);
        if to == CallState::Declined {
            self.next_after_failure(now, &alarm, effects);
        } else {
            // Somebody comes, or a person has decided that nobody need.
            self.answered(&alarm);
        }
        Ok(())
    }

    /// Fires the earliest timer if it is due. Returns whether there was one.
    pub fn fire_one(&mut self, now: Now, effects: &mut VecDeque<Effect>) -> bool {
        let Some((due, id, station)) = self.timers.first().filter(|(due, ..)| *due <= now.mono).cloned() else {
            return false;
        };
        self.timers.remove(&(due, id, Arc::clone(&station)));
        let of = self.calls.get_mut(&id).expect("a timer belongs to a call that is there");
        let n = of.calls.iter().position(|placed| placed.call.station == station);
        let n = n.expect("a timer belongs to a call that is there");
        let placed = &mut of.calls[n];
        placed.due = None;
        let alarm = Arc::clone(&of.alarm);
        let Text { zh, en } = placed.call.station_name.clone();
        if placed.call.state == CallState::Called {
            let text =
                Text { zh: format!("{zh}未在规定时间内应答"), en: format!("{en} does not answer in time") };
            let why = "no answer in time";
            self.change(now, id, n, Some((CallState::Unanswered, ANMIN, why)), CallCause::Unanswered, text, effects);
            self.next_after_failure(now, &alarm, effects);
        } else {
            placed.call.late = true;
            let text = Text {
                zh: format!("{zh}未在规定时间内到场"), en: format!("{en} is not on the scene in time")
            };
            self.change(now, id, n, None, CallCause::Late, text, effects);
        }
        true
    }

    /// A station does not come: the officer hears of it, the next station is called unless somebody else comes.
    fn next_after_failure(&mut self, now: Now, alarm: &Arc<Alarm>, effects: &mut VecDeque<Effect>) {
        self.requests.push_back(Request::Escalate(alarm.id));
        let somebody = self.calls.get(&alarm.id).is_some_and(|of| of.calls.iter().any(|p| p.call.is_live()));
        if !somebody && !alarm.is_silenced() {
            self.call_next(now, alarm, effects);
        }
    }

    fn answered(&mut self, alarm: &Arc<Alarm>) {
        let area = area_of(alarm);
        let Some(alarms) = self.unanswered.get_mut(&area) else { return };
        if alarms.remove(&alarm.id) && alarms.is_empty() {
            self.unanswered.remove(&area);
            self.requests.push_back(Request::Unanswered { area, alarm: None });
        }
    }

    /// The alarm is over: whoever is still on duty for it is stood down.
    fn close(&mut self, now: Now, alarm: &Arc<Alarm>, effects: &mut VecDeque<Effect>) {
        for n in 0..self.calls.get(&alarm.id).map_or(0, |of| of.calls.len()) {
            let call = &self.calls[&alarm.id].calls[n].call;
            if call.is_live() {
                let Text { zh, en } = &call.station_name;
                let text = Text {
                    zh: format!("报警已关闭，{zh}撤回"),
                    en: format!("the alarm is closed, {en} is stood down"),
                };
                let to = (CallState::StoodDown, ANMIN, "the alarm is closed");
                self.change(now, alarm.id, n, Some(to), CallCause::AlarmClosed, text, effects);
            }
        }
        self.answered(alarm);
        self.calls.remove(&alarm.id);
    }

    /// The only place where a call changes: counts it, stamps it, sets its clock, tells the ways out.
    #[allow(clippy::too_many_arguments)]
    fn change(
        &mut self,
        now: Now,
        id: AlarmId,
        n: usize,
        to: Option<(CallState, &str, &str)>,
        cause: CallCause,
        message: Text,
        effects: &mut VecDeque<Effect>,
    ) {
        let of = self.calls.get_mut(&id).expect("the caller found the call");
        let placed = &mut of.calls[n];
        placed.call.seq += 1;
        if let Some((state, by, why)) = to {
            placed.call.state = state;
            let stamp = CallStamp { state, at: now.wall, by: by.to_owned(), why: why.to_owned() };
            placed.call.stamps.push(stamp);
        }
        rearm(&mut self.timers, id, placed);
        let change =
            CallChange { at: now.wall, cause, call: placed.call.clone(), alarm: Arc::clone(&of.alarm), message };
        let change = Arc::new(change);
        effects.push_back(Effect::Call(Arc::clone(&change)));
        let (call, alarm) = (&change.call, &change.alarm);
        for channel in &self.settings.channels {
            if channel.form == ChannelForm::Events && channel.wants(alarm.class, alarm.peak) {
                let order = OrderId::new(format!("{id}/call-{}-{}/{}", call.station, call.seq, channel.id));
                let body = OrderBody::Call(Arc::clone(&change));
                effects.push_back(Effect::Order(Order { id: order, channel: Arc::clone(&channel.id), body }));
            }
        }
    }

    pub fn poll_request(&mut self) -> Option<Request> {
        self.requests.pop_front()
    }

    pub fn poll_timeout(&self) -> Option<Mono> {
        self.timers.first().map(|(due, ..)| *due)
    }

    pub fn calls(&self) -> impl Iterator<Item = &Call> {
        self.calls.values().flat_map(|of| of.calls.iter().map(|placed| &placed.call))
    }

    pub fn calls_of(&self, alarm: AlarmId) -> impl Iterator<Item = &Call> {
        self.calls.get(&alarm).into_iter().flat_map(|of| of.calls.iter().map(|placed| &placed.call))
    }
}

/// The stations of the last round, as indices in `calls`: stations are called in order, so those up to the newest call.
fn last_round(calls: &[Placed], stations: &[Station]) -> BTreeSet<usize> {
    let called_at = |placed: &Placed| {
        let stamps = placed.call.stamps.iter().rev();
        stamps.filter(|stamp| stamp.state == CallState::Called).map(|stamp| stamp.at).next()
    };
    let rank = |placed: &Placed| stations.iter().position(|station| station.id == placed.call.station);
    let newest = calls.iter().max_by_key(|placed| (called_at(placed), rank(placed))).and_then(rank);
    (0..calls.len()).filter(|n| rank(&calls[*n]) <= newest).collect()
}

/// What a CAP channel must say now, given the last thing it said that is still in force.
pub fn cap_message(channel: &Channel, alarm: &Alarm, last: Option<&CapRef>) -> Option<CapMessage> {
    // Who takes a sensor out of service says that its word is not to be trusted: the public is told so.
    let over = !alarm.is_open()
        || alarm.out_of_service.is_some()
        || !channel.wants(alarm.class, alarm.level)
        // Noise next door, a lift that stands still, an empty battery: for the duty desk, never for the public.
        || matches!(alarm.class, Class::Hazard(Hazard::Care | Hazard::Device));
    match last {
        Some(_) if over => Some(CapMessage::Cancel),
        // A shelf silences people's screens; what the public was told stays in force.
        Some(last) if last.level != alarm.level && alarm.shelved.is_none() => Some(CapMessage::Update),
        Some(_) => None,
        None if over || !alarm.is_active() || alarm.is_silenced() => None,
        None => Some(CapMessage::Alert),
    }
}

/// The identifier of what a CAP channel says of the alarm as it stands after its last transition: unique for ever. It holds
/// no spaces, commas, `<` or `&` (CAP 1.2 section 3.2.1).
pub fn cap_identifier(site: &str, alarm: &Alarm, channel: &Channel) -> String {
    let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, ',' | '<' | '&');
    let text = format!("{site}-{}-{}-{}", alarm.id, alarm.seq, channel.id);
    text.chars().map(|c| if bad(c) { '_' } else { c }).collect()
}

fn area_of(alarm: &Alarm) -> Arc<str> {
    alarm.place.area.as_str().into()
}

/// Puts a call's next deadline into `timers`.
fn rearm(timers: &mut BTreeSet<(Mono, AlarmId, Arc<str>)>, id: AlarmId, placed: &mut Placed) {
    let due = match placed.call.state {
        CallState::Called => Some(placed.respond_by),
        CallState::Accepted | CallState::OnTheWay if !placed.call.late => Some(placed.arrive_by),
        _ => None,
    };
    if due != placed.due {
        if let Some(old) = placed.due {
            timers.remove(&(old, id, Arc::clone(&placed.call.station)));
        }
        if let Some(new) = due {
            timers.insert((new, id, Arc::clone(&placed.call.station)));
        }
        placed.due = due;
    }
}
