//! From transitions to orders: station calls with their clocks, events and CAP messages for the ways out.
//!
//! It sees every transition once, in order, and says what must be done. Calls run on the monotonic clock like the alarm
//! book. It knows neither rules nor readings, nor whether an order arrives: that is the couriers' business.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use anmin_sensors::point::Hazard;
use anmin_sensors::time::{Mono, Now, Wall};

use crate::alarm::{Alarm, AlarmId, AlarmState, CapRef, Cause, Class, Refusal, Subject, Transition};
use crate::book::{ANMIN, said_why, silenced};
use crate::broadcast::{
    ASKED_FROM, Broadcast, BroadcastAction, BroadcastState, BroadcastStep, No, Policy, nothing_to_send,
};
use crate::drill::marked;
use crate::duty::{Duty, DutyChange, StationAction, Unready, Zone};
use crate::engine::{Effect, HELP, WARNING};
use crate::incident::IncidentId;
use crate::order::{
    Call, CallCause, CallChange, CallStamp, CallState, CallStep, CapMessage, CapOrder, Channel, ChannelForm, OnCall,
    Order, OrderBody, OrderId, SirenOrder, Station, Voice,
};
use crate::plan::Plans;
use crate::rule::{Level, Text};
use crate::siren::{self, Sounding};

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
    /// Of the stations' shifts.
    pub zone: Zone,
    /// What becomes the checklist of incidents.
    pub plans: Arc<Plans>,
    /// Who lets a warning leave the community.
    pub broadcast: Policy,
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
            zone: Zone::default(),
            plans: Arc::default(),
            broadcast: Policy::default(),
        }
    }
}

impl DeskSettings {
    /// The stations for a place in the order in which they are called. A place that names none has them all: somebody
    /// must come.
    fn stations_for(&self, area: &str) -> Vec<Station> {
        let find = |id: &Arc<str>| self.stations.iter().find(|station| station.id == *id).cloned();
        let mut found: Vec<Station> = self.areas.get(area).into_iter().flatten().filter_map(find).collect();
        if found.is_empty() {
            return self.stations.clone();
        }
        for neighbour in found.clone().iter().flat_map(|station| &station.neighbours).filter_map(find) {
            if !found.iter().any(|station| station.id == neighbour.id) {
                found.push(neighbour);
            }
        }
        found
    }
}

/// What the desk asks of the alarm book.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Request {
    /// Somebody who was called does not come: one step up.
    Escalate(AlarmId),
    /// Whether an area has an alarm that no station answers; the text says which.
    Unanswered { area: Arc<str>, alarm: Option<(Arc<Alarm>, Text)> },
    /// Whether a station can respond; the text says why not.
    Readiness { station: Arc<str>, trouble: Option<Text> },
    /// A warning was not let out in time.
    Expired(AlarmId),
    /// What was said outside is to be said again.
    Renew(AlarmId),
    /// A siren has sounded for its longest time.
    Ended(AlarmId),
}

/// A station that a person calls by hand.
pub(crate) struct ByHand<'a> {
    pub who: &'a str,
    pub why: &'a str,
    /// Also where it cannot respond.
    pub insist: bool,
}

/// A station as whoever would call it by hand for an alarm sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callable {
    pub station: Arc<str>,
    pub name: Text,
    pub phone: String,
    /// Why it cannot respond.
    pub unready: Option<Text>,
    /// It comes for another incident.
    pub elsewhere: bool,
    /// It is called for this alarm or its incident and has not ended that: then it is not called again.
    pub called: Option<CallState>,
}

/// Calls, and what each way out has heard.
pub(crate) struct ResponseDesk {
    settings: DeskSettings,
    /// Alarms for which a station was called.
    calls: BTreeMap<AlarmId, Calls>,
    engaged: Engaged,
    timers: BTreeSet<(Mono, AlarmId, Arc<str>)>,
    /// What was said outside of alarms about which anything was, or is to be.
    said: BTreeMap<AlarmId, Said>,
    /// When a question to people expires.
    questions: BTreeSet<(Mono, AlarmId)>,
    /// When what is in force outside is to be said again.
    renewals: BTreeSet<(Mono, AlarmId)>,
    /// When a siren has sounded for its longest time for an alarm.
    ends: BTreeSet<(Mono, AlarmId)>,
    /// Which sirens sound for which alarms, and until when.
    sounding: BTreeMap<Arc<str>, BTreeMap<AlarmId, Mono>>,
    /// Alarms that no station answers, by area.
    unanswered: BTreeMap<Arc<str>, BTreeSet<AlarmId>>,
    /// What people have said of the stations.
    duty: BTreeMap<Arc<str>, Arc<Duty>>,
    /// Stations that cannot respond, as they were told last.
    unready: BTreeMap<Arc<str>, Vec<Unready>>,
    /// When that may change by time alone.
    look_at: Option<Mono>,
    requests: VecDeque<Request>,
}

/// What was said outside about one alarm.
#[derive(Default)]
struct Said {
    /// CAP messages that are in force.
    caps: Vec<CapRef>,
    broadcast: Option<Broadcast>,
    rerouted: Vec<Arc<str>>,
    /// When its question expires, as it stands in `questions`.
    due: Option<Mono>,
    /// When what is in force is to be said again, as it stands in `renewals`.
    renew_at: Option<Mono>,
    /// What sirens have sounded for it, and when each must end.
    sirens: Vec<(Sounding, Mono)>,
    /// When the first that sounds must end, as it stands in `ends`.
    ends_at: Option<Mono>,
    /// The question is another than the one whose clock runs.
    anew: bool,
}

/// What a CAP channel says now: its order is told from others of the same transition by `suffix`.
struct ToSay {
    message: CapMessage,
    suffix: &'static str,
    voice: Option<Arc<Voice>>,
    references: Vec<CapRef>,
}

/// At the end of the identifier of the message that ends what was said in another earnest. No id of a way out holds a `~`.
pub const OVER: &str = "~over";

impl Said {
    /// What is in force there, as it speaks now; and what was said in another earnest, such as before an exercise became real.
    fn chains(&self, channel: &Channel, alarm: &Alarm) -> (Vec<CapRef>, Vec<CapRef>) {
        let of_channel = self.caps.iter().filter(|sent| *sent.channel == *channel.id).cloned();
        let is_own = |sent: &CapRef| sent.voice.as_ref().is_none_or(|voice| voice.status == channel.voice.status);
        of_channel.partition(|sent| alarm.drill.is_some() || is_own(sent))
    }

    /// Whether the alarm says the same.
    fn is_in(&self, alarm: &Alarm) -> bool {
        self.caps == alarm.cap_log
            && self.broadcast == alarm.broadcast
            && self.rerouted == alarm.rerouted
            && self.sirens.iter().map(|(sounding, _)| sounding).eq(&alarm.sirens)
    }

    fn siren(&self, id: &str) -> Option<&Sounding> {
        self.sirens.iter().map(|(sounding, _)| sounding).find(|sounding| *sounding.siren == *id)
    }

    /// Whether a siren sounds for it.
    fn sounds(&self, id: &str) -> bool {
        self.siren(id).is_some_and(|sounding| !sounding.ended)
    }

    fn write(&self, alarm: &mut Arc<Alarm>) {
        if self.is_in(alarm) {
            return;
        }
        let alarm = Arc::make_mut(alarm);
        alarm.cap_log.clone_from(&self.caps);
        alarm.broadcast.clone_from(&self.broadcast);
        alarm.rerouted.clone_from(&self.rerouted);
        alarm.sirens = self.sirens.iter().map(|(sounding, _)| sounding.clone()).collect();
    }
}

struct Calls {
    /// As it stood after its last transition.
    alarm: Arc<Alarm>,
    /// In the order in which the stations were first called.
    calls: Vec<Placed>,
    /// How often the alarm has called for help anew. Its calls of this number were made since.
    round: u32,
}

impl Calls {
    fn new(alarm: &Arc<Alarm>) -> Self {
        Self { alarm: Arc::clone(alarm), calls: Vec::new(), round: 0 }
    }

    /// Those made since the alarm last called for help.
    fn of_round(&self) -> impl Iterator<Item = &Placed> {
        self.calls.iter().filter(|placed| placed.call.round == self.round)
    }

    /// That it is not under control was said: once for all who were called, since it is one danger.
    fn is_said(&self) -> bool {
        self.of_round().any(|placed| placed.call.not_controlled)
    }

    /// Until when it must be under control: the third clock runs from the first call for help, whoever comes.
    fn control_by(&self) -> Option<(Mono, Wall)> {
        self.of_round().map(|placed| (placed.control_by, placed.call.control_by)).min()
    }

    /// Puts the next deadline of each call into `timers`.
    fn rearm(&mut self, timers: &mut BTreeSet<(Mono, AlarmId, Arc<str>)>, id: AlarmId) {
        let (said, round) = (self.is_said(), self.round);
        self.calls.iter_mut().for_each(|placed| placed.rearm(timers, id, said || placed.call.round != round));
    }
}

/// Stations whose crew has said that it comes: for which incidents, and for which of their alarms. Each new call looks
/// here, also the ten thousandth of a storm.
#[derive(Default)]
struct Engaged(BTreeMap<Arc<str>, BTreeMap<Option<IncidentId>, BTreeSet<AlarmId>>>);

impl Engaged {
    fn insert(&mut self, of: &Calls) {
        for Placed { call, .. } in of.calls.iter().filter(|placed| placed.call.is_answered()) {
            let incidents = self.0.entry(Arc::clone(&call.station)).or_default();
            incidents.entry(of.alarm.incident).or_default().insert(of.alarm.id);
        }
    }

    /// Before anything of it changes.
    fn remove(&mut self, of: &Calls) {
        for Placed { call, .. } in of.calls.iter().filter(|placed| placed.call.is_answered()) {
            let Some(incidents) = self.0.get_mut(&call.station) else { continue };
            let Some(alarms) = incidents.get_mut(&of.alarm.incident) else { continue };
            alarms.remove(&of.alarm.id);
            if alarms.is_empty() {
                incidents.remove(&of.alarm.incident);
            }
            if incidents.is_empty() {
                self.0.remove(&call.station);
            }
        }
    }

    /// Alarms of this incident for which the station comes.
    fn in_incident(&self, station: &str, incident: IncidentId) -> impl Iterator<Item = AlarmId> {
        self.0.get(station).and_then(|incidents| incidents.get(&Some(incident))).into_iter().flatten().copied()
    }

    /// Whether the station comes for something else than this alarm and its incident.
    fn is_elsewhere(&self, station: &str, alarm: &Alarm) -> bool {
        let mut others = self.0.get(station).into_iter().flatten().filter(|(of, _)| **of != alarm.incident);
        others.any(|(_, alarms)| alarms.iter().any(|id| *id != alarm.id))
    }
}

struct Placed {
    call: Call,
    respond_by: Mono,
    arrive_by: Mono,
    control_by: Mono,
    due: Option<Mono>,
}

impl Placed {
    /// `said`: that it is not under control, or that its third clock is not the alarm's.
    fn rearm(&mut self, timers: &mut BTreeSet<(Mono, AlarmId, Arc<str>)>, id: AlarmId, said: bool) {
        let Self { call, respond_by, arrive_by, control_by, due } = self;
        let next = match call.state {
            CallState::Called => Some(*respond_by),
            CallState::Accepted | CallState::OnTheWay if !call.late => Some(*arrive_by),
            _ => None,
        };
        let open = call.is_live() && call.state != CallState::UnderControl && !said;
        let next = next.into_iter().chain(open.then_some(*control_by)).min();
        if next != *due {
            if let Some(old) = *due {
                timers.remove(&(old, id, Arc::clone(&call.station)));
            }
            if let Some(new) = next {
                timers.insert((new, id, Arc::clone(&call.station)));
            }
            *due = next;
        }
    }
}

/// Readiness is looked at this often at least: the wall clock, by which shifts begin, may be set.
const LOOK_EVERY: Duration = Duration::from_secs(600);

impl ResponseDesk {
    pub fn new(settings: DeskSettings) -> Self {
        let mut desk = Self {
            settings,
            calls: BTreeMap::new(),
            engaged: Engaged::default(),
            timers: BTreeSet::new(),
            said: BTreeMap::new(),
            questions: BTreeSet::new(),
            renewals: BTreeSet::new(),
            ends: BTreeSet::new(),
            sounding: BTreeMap::new(),
            unanswered: BTreeMap::new(),
            duty: BTreeMap::new(),
            unready: BTreeMap::new(),
            look_at: None,
            requests: VecDeque::new(),
        };
        desk.look_at = desk.settings.stations.iter().any(is_watched).then(Mono::default);
        desk
    }

    pub fn settings(&self) -> &DeskSettings {
        &self.settings
    }

    pub fn set_settings(&mut self, now: Now, settings: DeskSettings) {
        self.settings = settings;
        self.look(now);
    }

    /// Takes up what people said of the stations in the last run.
    pub fn restore_duty(&mut self, now: Now, duty: Vec<DutyChange>) {
        for DutyChange { station, duty } in duty {
            self.duty.entry(station).or_insert(duty);
        }
        self.look(now);
    }

    /// What a person says of a station.
    pub fn handle_station(
        &mut self,
        now: Now,
        who: &str,
        id: &str,
        what: &StationAction,
        effects: &mut VecDeque<Effect>,
    ) -> Result<(), Refusal> {
        let found = self.settings.stations.iter().find(|station| *station.id == *id);
        let station = found.ok_or_else(|| Refusal::NoSuchStation(id.to_owned()))?;
        let duty = Arc::new(station.take(now.wall, who, &self.duty_of(&station.id), what)?);
        let station = Arc::clone(&station.id);
        self.duty.insert(Arc::clone(&station), Arc::clone(&duty));
        effects.push_back(Effect::Duty(Arc::new(DutyChange { station, duty })));
        self.look(now);
        Ok(())
    }

    /// What people said of all stations.
    pub fn duties(&self) -> Vec<DutyChange> {
        let said = self.duty.iter();
        said.map(|(station, duty)| DutyChange { station: Arc::clone(station), duty: Arc::clone(duty) }).collect()
    }

    pub fn duty_of(&self, station: &str) -> Arc<Duty> {
        self.duty.get(station).cloned().unwrap_or_default()
    }

    /// Says which stations cannot respond, where that is another answer than the last time.
    fn look(&mut self, now: Now) {
        let mut wait: Option<Duration> = None;
        let mut unready = BTreeMap::new();
        for station in self.settings.stations.iter().filter(|station| is_watched(station)) {
            let duty = self.duty_of(&station.id);
            let changes_in = station.changes_in(&self.settings.zone, &duty, now.wall);
            wait = wait.into_iter().chain(changes_in).chain([LOOK_EVERY]).min();
            let reasons = station.unready(&self.settings.zone, &duty, now.wall);
            if !reasons.is_empty() {
                unready.insert(Arc::clone(&station.id), reasons);
            }
        }
        self.look_at = wait.map(|wait| now.mono.plus(wait.max(Duration::from_secs(1))));
        let before = std::mem::replace(&mut self.unready, unready);
        for (id, reasons) in &self.unready {
            if before.get(id) != Some(reasons) {
                let name = self.settings.stations.iter().find(|station| station.id == *id).map(|station| &station.name);
                let (why, name) = (Unready::texts(reasons), name.cloned().unwrap_or_default());
                let trouble = Some(Text {
                    zh: format!("{}不能出动：{}。呼叫将直接转至联防站", name.zh, why.zh),
                    en: format!("{} cannot respond: {}. Its calls go straight on to its neighbours", name.en, why.en),
                });
                self.requests.push_back(Request::Readiness { station: Arc::clone(id), trouble });
            }
        }
        for id in before.keys().filter(|id| !self.unready.contains_key(*id)) {
            self.requests.push_back(Request::Readiness { station: Arc::clone(id), trouble: None });
        }
    }

    /// Why a station cannot respond, as far as it was looked at.
    pub fn unready(&self, station: &str) -> &[Unready] {
        self.unready.get(station).map_or(&[], Vec::as_slice)
    }

    /// Takes up the journal's open alarms and their calls. Deadlines go on where they were by the wall clock, none
    /// longer than its full time.
    pub fn restore(&mut self, now: Now, alarms: &[Arc<Alarm>], calls: Vec<Call>) {
        let open: BTreeMap<AlarmId, &Arc<Alarm>> =
            alarms.iter().filter(|alarm| alarm.is_open()).map(|alarm| (alarm.id, alarm)).collect();
        for alarm in open.values() {
            let said = Said {
                caps: alarm.cap_log.clone(),
                broadcast: alarm.broadcast.clone(),
                rerouted: alarm.rerouted.clone(),
                // By the wall clock, and none longer than its full time.
                sirens: alarm
                    .sirens
                    .iter()
                    .map(|of| (of.clone(), now.mono.plus(of.until.since(now.wall).min(of.until.since(of.since)))))
                    .collect(),
                ..Said::default()
            };
            self.keep_said(now, alarm, said);
        }
        for call in calls {
            let Some(alarm) = open.get(&call.alarm) else { continue };
            let station = self.settings.stations.iter().find(|station| station.id == call.station);
            let usual = Station::default();
            let Station { respond_within, arrive_within, control_within, .. } = station.unwrap_or(&usual);
            let left = |until: Wall, period: Duration| now.mono.plus(until.since(now.wall).min(period));
            let placed = Placed {
                respond_by: left(call.respond_by, *respond_within),
                arrive_by: left(call.arrive_by, *arrive_within),
                control_by: left(call.control_by, *control_within),
                due: None,
                call,
            };
            self.calls.entry(alarm.id).or_insert_with(|| Calls::new(alarm)).calls.push(placed);
        }
        for (id, of) in &mut self.calls {
            of.round = of.calls.iter().map(|placed| placed.call.round).max().unwrap_or(0);
            of.rearm(&mut self.timers, *id);
            self.engaged.insert(of);
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
        let (caps, sirens) = self.outward_messages(now, &mut transition);
        let transition = Arc::new(transition);
        effects.push_back(Effect::Transition(Arc::clone(&transition)));
        let alarm = &transition.alarm;
        for channel in &self.settings.channels {
            let body = match channel.form {
                ChannelForm::Events if channel.wants(alarm, alarm.peak) => OrderBody::Event(Arc::clone(&transition)),
                ChannelForm::Events | ChannelForm::Cap | ChannelForm::Feed | ChannelForm::Siren => continue,
            };
            let id = OrderId::new(format!("{}/{}/{}", alarm.id, alarm.seq, channel.id));
            effects.push_back(Effect::Order(Order { id, channel: Arc::clone(&channel.id), body }));
        }
        for (channel, say) in caps {
            let id = OrderId::new(format!("{}/{}{}/{}", alarm.id, alarm.seq, say.suffix, channel));
            let body = OrderBody::Cap(Arc::new(CapOrder {
                message: say.message,
                identifier: cap_identifier(&self.settings.site, alarm, &channel, say.suffix),
                sent: now.wall,
                voice: say.voice,
                references: say.references,
                alarm: Arc::clone(alarm),
            }));
            effects.push_back(Effect::Order(Order { id, channel, body }));
        }
        for Sounding { siren, until, ended, .. } in sirens {
            let id = OrderId::new(format!("{}/{}/{siren}", alarm.id, alarm.seq));
            let order = SirenOrder { on: !ended, at: now.wall, until, alarm: Arc::clone(alarm) };
            let body = OrderBody::Siren(Arc::new(order));
            effects.push_back(Effect::Order(Order { id, channel: siren, body }));
        }
        self.call_or_stand_down(now, &transition, effects);
        transition
    }

    /// Brings what each CAP channel has said, and what each siren does, in line with how the alarm stands now, as far as people
    /// let it.
    fn outward_messages(&mut self, now: Now, transition: &mut Transition) -> (Vec<(Arc<str>, ToSay)>, Vec<Sounding>) {
        let mut out = Vec::new();
        let (cause, from) = (transition.cause.clone(), transition.from);
        let alarm = &mut transition.alarm;
        let mut said = self.said.remove(&alarm.id).unwrap_or_default();
        if let Some(asked) = said.broadcast.as_mut().filter(|asked| asked.state != BroadcastState::TakenBack)
            && cause == Cause::Moved
        {
            // What people have said of one place says nothing of another.
            asked.state = BroadcastState::Over;
        }
        // Alarms wait in the book's queue: the desk knows what was said since.
        said.write(alarm);
        let allowed = |said: &Said| said.broadcast.as_ref().is_some_and(|broadcast| broadcast.allows(alarm.level));
        let (mut wanted, mut in_force) = (None, None);
        for channel in self.settings.channels.iter().filter(|channel| channel.outward) {
            if channel.form == ChannelForm::Siren {
                let before = said.siren(&channel.id);
                let sounds = before.filter(|before| !before.ended).map(|before| before.level);
                in_force = match siren::step(channel, alarm, &cause, from, before) {
                    siren::Step::End => in_force,
                    siren::Step::Stay => in_force.max(sounds),
                    siren::Step::Begin if self.is_asked(channel, alarm, None) => {
                        wanted = Some(alarm.level);
                        in_force.max(sounds)
                    }
                    siren::Step::Begin => in_force.max(Some(alarm.level)),
                };
                continue;
            }
            let (chain, _) = said.chains(channel, alarm);
            let last = chain.last();
            in_force = match cap_message(channel, alarm, last) {
                Some(CapMessage::Cancel) => in_force,
                // What people have let out is there to be fetched.
                Some(_) if channel.form == ChannelForm::Feed && allowed(&said) => in_force.max(Some(alarm.level)),
                Some(_) if self.is_asked(channel, alarm, last) => {
                    wanted = Some(alarm.level);
                    in_force.max(last.map(|last| last.level))
                }
                Some(_) => in_force.max(Some(alarm.level)),
                None => in_force.max(last.map(|last| last.level)),
            };
        }
        let asked = self.settings.broadcast.review(now.wall, said.broadcast.as_ref(), wanted, in_force);
        let question = |broadcast: &Option<Broadcast>| broadcast.as_ref().map(|broadcast| broadcast.asked_at);
        said.anew |= question(&asked) != question(&said.broadcast);
        said.broadcast = asked;
        for channel in self.settings.channels.iter().filter(|channel| channel.form == ChannelForm::Cap) {
            let (chain, other) = said.chains(channel, alarm);
            if let Some(voice) = other.last().map(|last| last.voice.clone()) {
                said.caps.retain(|sent| !other.contains(sent));
                let say = ToSay { message: CapMessage::Cancel, suffix: OVER, voice, references: other };
                out.push((Arc::clone(&channel.id), say));
            }
            let said_anew = || is_to_be_renewed(now.wall, channel, chain.last()?).then_some(CapMessage::Update);
            let Some(message) = cap_message(channel, alarm, chain.last()).or_else(said_anew) else { continue };
            if message != CapMessage::Cancel && self.is_asked(channel, alarm, chain.last()) && !allowed(&said) {
                continue;
            }
            let (over, chain) = expired(now.wall, channel, chain);
            said.caps.retain(|sent| !over.contains(sent));
            let voice = Some(Arc::clone(&channel.voice));
            match message {
                // The chain ends here; a later Alert begins another.
                CapMessage::Cancel => said.caps.retain(|sent| *sent.channel != *channel.id),
                CapMessage::Alert | CapMessage::Update => said.caps.push(CapRef {
                    channel: channel.id.to_string(),
                    identifier: cap_identifier(&self.settings.site, alarm, &channel.id, ""),
                    sent: now.wall,
                    level: alarm.level,
                    moved: alarm.moved,
                    voice: voice.clone(),
                }),
            }
            out.push((Arc::clone(&channel.id), ToSay { message, suffix: "", voice, references: chain }));
        }
        let switched = self.switch_sirens(now, &mut said, (alarm, &cause, from));
        said.write(alarm);
        if transition.to == AlarmState::Normal {
            let Said { due, renew_at, ends_at, .. } = said;
            said = Said { due, renew_at, ends_at, ..Said::default() };
        }
        self.keep_said(now, &transition.alarm, said);
        (out, switched)
    }

    /// What the change of an alarm does to each siren: those that begin or end.
    fn switch_sirens(
        &self,
        now: Now,
        said: &mut Said,
        (alarm, cause, from): (&Alarm, &Cause, AlarmState),
    ) -> Vec<Sounding> {
        let of_siren = |channel: &&Channel| channel.form == ChannelForm::Siren;
        // One that the site has no more cannot be switched.
        said.sirens.retain(|(of, _)| self.settings.channels.iter().any(|one| of_siren(&one) && one.id == of.siren));
        let mut switched = Vec::new();
        for channel in self.settings.channels.iter().filter(of_siren) {
            let step = siren::step(channel, alarm, cause, from, said.siren(&channel.id));
            let allowed = said.broadcast.as_ref().is_some_and(|broadcast| broadcast.allows(alarm.level));
            let at = said.sirens.iter().position(|(of, _)| of.siren == channel.id);
            let is_over = |at: usize| step == siren::Step::End || said.sirens[at].1 <= now.mono;
            if step == siren::Step::Begin && (allowed || !self.is_asked(channel, alarm, None)) {
                let (siren, level) = (Arc::clone(&channel.id), alarm.level);
                let until = now.wall.plus(channel.sounds_for);
                let (since, outward) = (now.wall, channel.outward);
                let begun = Sounding { siren, level, since, until, outward, ended: false };
                at.into_iter().for_each(|at| drop(said.sirens.remove(at)));
                said.sirens.push((begun.clone(), now.mono.plus(channel.sounds_for)));
                switched.push(begun);
            } else if let Some(at) = at.filter(|at| !said.sirens[*at].0.ended && is_over(*at)) {
                said.sirens[at].0.ended = true;
                switched.push(said.sirens[at].0.clone());
            }
        }
        switched
    }

    /// Which sirens sound, and until when.
    pub fn sirens(&self) -> impl Iterator<Item = (&Arc<str>, Mono)> {
        self.sounding.iter().filter_map(|(siren, of)| Some((siren, of.values().copied().max()?)))
    }

    /// Whether what this channel would say now waits for people.
    fn is_asked(&self, channel: &Channel, alarm: &Alarm, last: Option<&CapRef>) -> bool {
        self.settings.broadcast.approval.people() > 0 && is_asked(channel, alarm, last)
    }

    /// Keeps what was said, where anything was, and the clock of a question.
    fn keep_said(&mut self, now: Now, alarm: &Alarm, mut said: Said) {
        let id = alarm.id;
        let Policy { within, .. } = self.settings.broadcast;
        let due = said
            .broadcast
            .as_ref()
            .filter(|broadcast| broadcast.is_waiting())
            .map(|broadcast| now.mono.plus(broadcast.until.since(now.wall).min(within)));
        // The clock of a question that stands runs on whatever the wall clock does.
        let same = said.due.is_some() && due.is_some() && !said.anew;
        if !same {
            if let Some(old) = said.due {
                self.questions.remove(&(old, id));
            }
            if let Some(new) = due {
                self.questions.insert((new, id));
            }
            said.due = due;
        }
        said.anew = false;
        self.set_renewal(now, alarm, &mut said);
        self.set_sounding(id, &mut said);
        let Said { caps, broadcast, rerouted, sirens, .. } = &said;
        if !(caps.is_empty() && broadcast.is_none() && rerouted.is_empty() && sirens.is_empty()) {
            self.said.insert(id, said);
        }
    }

    /// Sets the clock after which what is in force is said again: that of the oldest last word of a channel. Where the wall
    /// clock was set it waits for its whole period once more at most.
    fn set_renewal(&mut self, now: Now, alarm: &Alarm, said: &mut Said) {
        let id = alarm.id;
        let due = self.settings.channels.iter().filter_map(|channel| {
            let last = said.caps.iter().rfind(|sent| *sent.channel == *channel.id)?;
            // A graver one waits for people, or one elsewhere, and what is in force says too little or is wrong.
            (alarm.level <= last.level && alarm.moved == last.moved).then_some(())?;
            let after = channel.renew_after?;
            Some(now.mono.plus(last.sent.plus(after).since(now.wall).min(after).max(Duration::from_secs(1))))
        });
        let due = due.min();
        if due == said.renew_at {
            return;
        }
        if let Some(old) = said.renew_at {
            self.renewals.remove(&(old, id));
        }
        if let Some(new) = due {
            self.renewals.insert((new, id));
        }
        said.renew_at = due;
    }

    /// Keeps which sirens sound for an alarm, and the clock of the one that ends first.
    fn set_sounding(&mut self, id: AlarmId, said: &mut Said) {
        self.sounding.values_mut().for_each(|of| {
            of.remove(&id);
        });
        // One that the site has no more, or not while it plays, is not to sound for what was before.
        let channels = &self.settings.channels;
        let is_there = |of: &Sounding| channels.iter().any(|one| one.form == ChannelForm::Siren && one.id == of.siren);
        let sounds = || said.sirens.iter().filter(|(sounding, _)| !sounding.ended && is_there(sounding));
        for (sounding, due) in sounds() {
            self.sounding.entry(Arc::clone(&sounding.siren)).or_default().insert(id, *due);
        }
        let due = sounds().map(|(_, due)| *due).min();
        if due != said.ends_at {
            if let Some(old) = said.ends_at {
                self.ends.remove(&(old, id));
            }
            self.ends.extend(due.map(|due| (due, id)));
            said.ends_at = due;
        }
    }

    /// What a person says about the broadcast of an alarm. The caller writes down the step, and with it leaves what is
    /// allowed to.
    pub fn handle_broadcast(
        &mut self,
        now: Now,
        who: &str,
        alarm: &Alarm,
        what: &BroadcastAction,
    ) -> Result<BroadcastStep, Refusal> {
        let policy = &self.settings.broadcast;
        let before = self.said.get(&alarm.id).and_then(|said| said.broadcast.as_ref());
        let (broadcast, step) = match what {
            BroadcastAction::Approve { account, typed, seen } => {
                let Some(account) = account else {
                    return Err(Refusal::not_allowed(
                        "对外播报须由登录本人账号的人员批准",
                        "a broadcast is approved by people who are signed in with accounts of their own",
                    ));
                };
                let before = before.ok_or_else(nothing_to_send)?;
                let would = |channel: &Channel| {
                    // As if nobody had taken anything back.
                    let open = Alarm { broadcast: None, ..alarm.clone() };
                    let says = match channel.form {
                        ChannelForm::Events => false,
                        ChannelForm::Siren => siren::may_begin(channel, &open),
                        ChannelForm::Cap | ChannelForm::Feed => cap_message(channel, &open, None).is_some(),
                    };
                    says && self.is_asked(channel, &open, None)
                };
                if !before.is_waiting() && !self.settings.channels.iter().any(would) {
                    return Err(nothing_to_send());
                }
                policy.check_typed(typed, &alarm.id.to_string())?;
                policy.approve(now.wall, before, alarm.level, *seen, account, who)?
            }
            BroadcastAction::Refuse { why } => {
                let before = before.filter(|before| before.is_waiting()).ok_or_else(|| {
                    Refusal::not_allowed("没有待批准的对外播报", "no broadcast of this alarm waits for a yes")
                })?;
                let no = Some(No { who: who.to_owned(), at: now.wall, why: why.clone() });
                (Broadcast { state: BroadcastState::Refused, no, ..before.clone() }, BroadcastStep::Refused)
            }
            BroadcastAction::TakeBack { why } => {
                let is_out = |said: &Said| {
                    let fed = self.settings.channels.iter().any(|channel| channel.form == ChannelForm::Feed);
                    let approved = |broadcast: &Broadcast| broadcast.state == BroadcastState::Approved;
                    let heard = |channel: &Channel| channel.outward && said.sounds(&channel.id);
                    !said.caps.is_empty()
                        || fed && said.broadcast.as_ref().is_some_and(approved)
                        || self.settings.channels.iter().any(heard)
                };
                if !self.said.get(&alarm.id).is_some_and(is_out) {
                    return Err(Refusal::not_allowed(
                        "没有可撤回的播报：该报警未对外发出，或已撤回",
                        "there is nothing to take back: nothing about this alarm is in force outside",
                    ));
                }
                let before = before.cloned().unwrap_or_else(|| Broadcast::taken_back(now.wall, alarm.level));
                let no = Some(No { who: who.to_owned(), at: now.wall, why: why.clone() });
                let (state, level) = (BroadcastState::TakenBack, alarm.level);
                let broadcast = Broadcast { state, level, no, ..before };
                (broadcast, BroadcastStep::TakenBack)
            }
        };
        let said = self.said.entry(alarm.id).or_default();
        said.anew = said.broadcast.as_ref().is_none_or(|before| before.asked_at != broadcast.asked_at);
        said.broadcast = Some(broadcast);
        Ok(step)
    }

    /// A target has not taken what was said about an alarm: whether a spare one gets it now.
    pub fn handle_undelivered(&mut self, alarm: &Alarm, channel: &str) -> bool {
        let channels = &self.settings.channels;
        let Some(failed) = channels.iter().find(|failed| *failed.id == *channel) else { return false };
        let said = self.said.get(&alarm.id);
        // Of what is in force outside the last word counts; of news each.
        let stands = match failed.form {
            ChannelForm::Events => failed.wants(alarm, alarm.peak),
            ChannelForm::Cap | ChannelForm::Feed => {
                said.is_some_and(|said| said.caps.iter().any(|sent| *sent.channel == *channel))
            }
            ChannelForm::Siren => said.is_some_and(|said| said.sounds(channel)),
        };
        if !stands {
            return false;
        }
        let level = if failed.form == ChannelForm::Events { alarm.peak } else { alarm.level };
        let wants =
            |spare: &&Arc<str>| channels.iter().any(|other| other.id == **spare && other.would_want(alarm, level));
        // One that is a spare itself hands on to those after it.
        let after = |of: &Channel| {
            let at = of.then.iter().position(|id| **id == *channel);
            let from = if *of.id == *channel { Some(0) } else { at.map(|at| at + 1) };
            of.then[from?..].iter().find(wants).cloned()
        };
        // Who has it already and does not take it says so itself: none is passed over for it.
        let has = |spare: &Arc<str>| said.is_some_and(|said| said.rerouted.contains(spare));
        let Some(next) = channels.iter().filter_map(after).find(|spare| !has(spare)) else { return false };
        self.said.entry(alarm.id).or_default().rerouted.push(next);
        true
    }

    fn call_or_stand_down(&mut self, now: Now, transition: &Transition, effects: &mut VecDeque<Effect>) {
        let alarm = &transition.alarm;
        if let Some(of) = self.calls.get_mut(&alarm.id) {
            self.engaged.remove(of);
            of.alarm = Arc::clone(alarm);
            self.engaged.insert(of);
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
            // What was under control and comes back, or gets worse, is so no longer. A reminder of what stands says nothing new.
            let reminds = transition.cause == Cause::Realarmed && transition.from == AlarmState::Acknowledged;
            if of.calls.iter().any(|placed| if reminds { placed.call.is_live() } else { placed.call.is_on_it() }) {
                return;
            }
            of.round += 1;
        }
        self.call_next(now, alarm, effects);
    }

    /// Calls the next station that has not been called in this round; when there is none left, says so. One that can respond
    /// and has nothing else to do comes first, then one that is busy with another incident; one that cannot respond is
    /// called last, since somebody must come.
    fn call_next(&mut self, now: Now, alarm: &Arc<Alarm>, effects: &mut VecDeque<Effect>) {
        let of = self.calls.get(&alarm.id);
        let called = |station: &Station| of.is_some_and(|of| of.of_round().any(|p| p.call.station == station.id));
        let stations = self.settings.stations_for(&alarm.place.area);
        let left: Vec<&Station> = stations.iter().filter(|station| !called(station)).collect();
        let rank = |station: &&&Station| {
            (!self.unready(&station.id).is_empty(), self.engaged.is_elsewhere(&station.id, alarm))
        };
        match left.iter().min_by_key(rank) {
            Some(station) => {
                let unready = !self.unready(&station.id).is_empty();
                let before = left.iter().take_while(|other| other.id != station.id);
                let passed: Vec<(Text, Text)> = before
                    .filter(|other| !self.unready(&other.id).is_empty())
                    .map(|other| (other.name.clone(), Unready::texts(self.unready(&other.id))))
                    .collect();
                if unready && of.is_none_or(|of| of.of_round().next().is_none()) {
                    // Nobody may be there: a person must not wait for the clock to say so.
                    self.requests.push_back(Request::Escalate(alarm.id));
                }
                self.call(now, alarm, station, None, &passed, effects);
            }
            // A site without any station has chosen so.
            None if stations.is_empty() => {}
            None => {
                let zh: Vec<&str> = stations.iter().map(|station| station.name.zh.as_str()).collect();
                let en: Vec<&str> = stations.iter().map(|station| station.name.en.as_str()).collect();
                let text = Text {
                    zh: format!(
                        "微型消防站（{}）均未应答：{}。请立即电话联系，必要时拨打 119！",
                        zh.join("、"),
                        alarm.message.zh
                    ),
                    en: format!(
                        "no station answers ({}): {}. Phone them at once, and 119 if need be!",
                        en.join(", "),
                        alarm.message.en
                    ),
                };
                let area = area_of(alarm);
                self.unanswered.entry(Arc::clone(&area)).or_default().insert(alarm.id);
                self.requests.push_back(Request::Unanswered { area, alarm: Some((Arc::clone(alarm), text)) });
            }
        }
    }

    /// Calls a station because a person says so: any of the site, whatever the alarm's level, with the clocks of every call.
    pub fn call_by_hand(
        &mut self,
        now: Now,
        alarm: &Arc<Alarm>,
        station: &str,
        by: &ByHand<'_>,
        effects: &mut VecDeque<Effect>,
    ) -> Result<(), Refusal> {
        let found = self.settings.stations.iter().find(|each| *each.id == *station).cloned();
        let station = found.ok_or_else(|| Refusal::NoSuchStation(station.to_owned()))?;
        said_why(by.why)?;
        if is_about_anmin(alarm) {
            return Err(Refusal::not_allowed(
                "该报警是关于平台自身的，不为其呼叫消防站",
                "the alarm is about anmin itself: no station is called for it",
            ));
        }
        if alarm.is_silenced() {
            return Err(silenced());
        }
        let Text { zh, en } = &station.name;
        if let Some(state) = self.called(alarm, &station.id) {
            return Err(Refusal::not_allowed(
                format!("{zh}已就该事件被呼叫（{}），不再另行呼叫", state.zh()),
                format!("{en} is called for this already ({}) and is not called again", state.as_str()),
            ));
        }
        let unready = self.unready(&station.id);
        if !unready.is_empty() && !by.insist {
            let why = Unready::texts(unready);
            return Err(Refusal::StationUnready(Text {
                zh: format!("{zh}不能出动：{}。如仍要呼叫，请确认", why.zh),
                en: format!("{en} cannot respond: {}. Insist to call it all the same", why.en),
            }));
        }
        self.call(now, alarm, &station, Some(by), &[], effects);
        Ok(())
    }

    /// The stations of the site in the order in which they are called for this alarm; behind them those that would not be.
    pub fn callable(&self, alarm: &Alarm) -> Vec<Callable> {
        let mut stations = self.settings.stations_for(&alarm.place.area);
        let near: BTreeSet<Arc<str>> = stations.iter().map(|station| Arc::clone(&station.id)).collect();
        stations.extend(self.settings.stations.iter().filter(|station| !near.contains(&station.id)).cloned());
        let callable = |station: Station| Callable {
            unready: Some(self.unready(&station.id)).filter(|why| !why.is_empty()).map(Unready::texts),
            elsewhere: self.engaged.is_elsewhere(&station.id, alarm),
            called: self.called(alarm, &station.id),
            station: station.id,
            name: station.name,
            phone: station.phone,
        };
        stations.into_iter().map(callable).collect()
    }

    /// How far a station's call for this alarm is, or else that for another of its incident which it is still on.
    fn called(&self, alarm: &Alarm, station: &str) -> Option<CallState> {
        let of = |id: AlarmId| {
            let calls = self.calls.get(&id).into_iter().flat_map(|of| &of.calls);
            calls.map(|placed| &placed.call).find(|call| *call.station == *station)
        };
        let own = of(alarm.id).filter(|call| call.is_live());
        let other = || {
            let incident = alarm.incident?;
            let others = self.calls.iter().filter(|(_, of)| of.alarm.incident == Some(incident));
            others.filter_map(|(id, _)| of(*id)).find(|call| call.is_on_it())
        };
        own.or_else(other).map(|call| call.state)
    }

    /// The step of its escalation after which nobody new hears of the alarm: that from which the last way out does, and one
    /// at least.
    pub fn last_escalation(&self, alarm: &Alarm) -> u32 {
        let hears = |channel: &&Channel| channel.covers(alarm) && alarm.peak >= channel.min_level;
        self.settings.channels.iter().filter(hears).map(|channel| channel.from_escalation).fold(1, u32::max)
    }

    /// Refuses a step that tells nobody.
    pub fn may_escalate(&self, alarm: &Alarm, step: u32) -> Result<(), Refusal> {
        let last = self.last_escalation(alarm);
        if step <= alarm.escalation || step <= last {
            return Ok(());
        }
        Err(Refusal::not_allowed(
            format!("该报警已升级到最后一级（第 {last} 级）：没有更多可通知的人"),
            format!("the alarm is at the last step of its escalation ({last}): there is nobody more to tell"),
        ))
    }

    /// The other calls of this station that are about the same incident: one crew, one way.
    fn group_of(&self, id: AlarmId, station: &str) -> Vec<(AlarmId, usize)> {
        let Some(incident) = self.calls.get(&id).and_then(|of| of.alarm.incident) else { return Vec::new() };
        let others = self.calls.iter().filter(|(other, of)| **other != id && of.alarm.incident == Some(incident));
        let calls = others.filter_map(|(other, of)| {
            let n = of.calls.iter().position(|placed| *placed.call.station == *station)?;
            Some((*other, n))
        });
        calls.collect()
    }

    /// `by`: the person who calls it. `passed` are stations before it that cannot respond, and why.
    fn call(
        &mut self,
        now: Now,
        alarm: &Arc<Alarm>,
        station: &Station,
        by: Option<&ByHand<'_>>,
        passed: &[(Text, Text)],
        effects: &mut VecDeque<Effect>,
    ) {
        let on_duty = station.on_duty(&self.settings.zone, &self.duty_of(&station.id), now.wall);
        let crew: Vec<OnCall> =
            on_duty.iter().map(|member| OnCall { id: Arc::clone(&member.id), name: member.name.clone() }).collect();
        let of = self.calls.entry(alarm.id).or_insert_with(|| Calls::new(alarm));
        let anew = || (now.mono.plus(station.control_within), now.wall.plus(station.control_within));
        let (control_by, control_by_wall) = of.control_by().unwrap_or_else(anew);
        let round = of.round;
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
                        control_by: now.wall,
                        late: false,
                        not_controlled: false,
                        crew: Vec::new(),
                        round,
                        seq: 0,
                    },
                    respond_by: now.mono,
                    arrive_by: now.mono,
                    control_by: now.mono,
                    due: None,
                });
                of.calls.len() - 1
            }
        };
        let placed = &mut of.calls[n];
        placed.respond_by = now.mono.plus(station.respond_within);
        placed.arrive_by = now.mono.plus(station.arrive_within);
        placed.control_by = control_by;
        let call = &mut placed.call;
        call.respond_by = now.wall.plus(station.respond_within);
        call.arrive_by = now.wall.plus(station.arrive_within);
        (call.control_by, call.late, call.not_controlled) = (control_by_wall, false, false);
        (call.crew, call.round) = (crew, round);
        let Text { zh, en } = &station.name;
        let others = alarm.incident.into_iter().flat_map(|incident| self.engaged.in_incident(&station.id, incident));
        let on_it = others.filter(|other| *other != alarm.id).find_map(|other| {
            let placed = self.calls[&other].calls.iter().find(|placed| placed.call.station == station.id)?;
            let call = Some(&placed.call).filter(|call| call.is_on_it())?;
            Some((call.state, call.stamps.last()?.by.clone(), call.late))
        });
        if let Some((state, by, late)) = on_it {
            let call = &mut self.calls.get_mut(&alarm.id).expect("made above").calls[n].call;
            call.late = late;
            let stamp = CallStamp { state: CallState::Called, at: now.wall, by: ANMIN.to_owned(), why: String::new() };
            call.stamps.push(stamp);
            let text = Text {
                zh: format!("{zh}已在处置同一事件，不再另行呼叫"),
                en: format!("{en} is on this incident already and is not called again"),
            };
            let why = "on this incident already";
            self.change(now, alarm.id, n, Some((state, &by, why)), CallCause::Said, text, effects);
            self.answered(alarm);
            return;
        }
        let passed_zh: String = passed.iter().map(|(name, why)| format!("；{}不能出动：{}", name.zh, why.zh)).collect();
        let passed_en: String =
            passed.iter().map(|(name, why)| format!("; {} cannot respond: {}", name.en, why.en)).collect();
        let (phone, seconds) = (&station.phone, station.respond_within.as_secs());
        let mut text = Text {
            zh: format!("已呼叫{zh}（电话 {phone}），须在 {seconds} 秒内应答{passed_zh}"),
            en: format!("{en} is called (phone {phone}), to answer within {seconds} s{passed_en}"),
        };
        if let Some(ByHand { who, why, .. }) = by {
            text.zh.push_str(&format!("；由{who}人工呼叫：{why}"));
            text.en.push_str(&format!("; by {who}: {why}"));
            if let Some(trouble) = Some(self.unready(&station.id)).filter(|why| !why.is_empty()).map(Unready::texts) {
                text.zh.push_str(&format!("；该站不能出动（{}），仍予呼叫", trouble.zh));
                text.en.push_str(&format!("; it cannot respond ({}) and is called all the same", trouble.en));
            }
            if self.engaged.is_elsewhere(&station.id, alarm) {
                text.zh.push_str("；该站正在处置另一事件");
                text.en.push_str("; it is at another incident");
            }
        }
        let (who, why) = by.map_or((ANMIN, ""), |by| (by.who, by.why));
        self.change(now, alarm.id, n, Some((CallState::Called, who, why)), CallCause::Called, text, effects);
    }

    /// What a crew says, or an officer on its behalf, of all its calls for the incident. Saying a thing twice is harmless.
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
        self.step(now, who, id, n, step, effects)?;
        for (other, n) in self.group_of(id, station) {
            let call = &self.calls[&other].calls[n].call;
            let comes = !matches!(step, CallStep::StandDown | CallStep::Decline { .. });
            if call.is_live() || (comes && call.state == CallState::Unanswered) {
                // What is refused was further on already.
                drop(self.step(now, who, other, n, step, effects));
            }
        }
        Ok(())
    }

    fn step(
        &mut self,
        now: Now,
        who: &str,
        id: AlarmId,
        n: usize,
        step: &CallStep,
        effects: &mut VecDeque<Effect>,
    ) -> Result<(), Refusal> {
        let of = &self.calls[&id];
        let (state, alarm) = (of.calls[n].call.state, Arc::clone(&of.alarm));
        let (to, why) = match step {
            CallStep::Accept => (CallState::Accepted, ""),
            CallStep::OnTheWay => (CallState::OnTheWay, ""),
            CallStep::OnScene => (CallState::OnScene, ""),
            CallStep::UnderControl => (CallState::UnderControl, ""),
            CallStep::StandDown => (CallState::StoodDown, ""),
            CallStep::Decline { why } => (CallState::Declined, why.as_str()),
        };
        // A crew on the way has accepted, one on the scene has been on the way.
        const WAY: [CallState; 4] =
            [CallState::Accepted, CallState::OnTheWay, CallState::OnScene, CallState::UnderControl];
        let along = |state: CallState| WAY.iter().position(|each| *each == state);
        match (state, to) {
            (CallState::StoodDown, CallState::StoodDown) | (CallState::Declined, CallState::Declined) => return Ok(()),
            (CallState::StoodDown, _) => {
                return Err(Refusal::not_allowed("该次出动已结束", "the call is over: the station was stood down"));
            }
            (CallState::OnScene | CallState::UnderControl, CallState::Declined) => {
                return Err(Refusal::not_allowed(
                    "已到场的消防站不能拒绝，请撤回",
                    "a crew on the scene cannot decline: stand it down",
                ));
            }
            (_, CallState::Declined) if why.trim().is_empty() => {
                return Err(Refusal::not_allowed("请说明拒绝的原因", "say why the station declines"));
            }
            _ if along(state).zip(along(to)).is_some_and(|(state, to)| to <= state) => return Ok(()),
            _ => {}
        }
        let Text { zh, en } = &of.calls[n].call.station_name;
        let text = match to {
            CallState::Accepted => (format!("{zh}已应答"), format!("{en} accepts")),
            CallState::OnTheWay => (format!("{zh}已出动"), format!("{en} is on the way")),
            CallState::OnScene => (format!("{zh}已到场"), format!("{en} is on the scene")),
            CallState::UnderControl => (format!("{zh}报告险情已控制"), format!("{en} has it under control")),
            CallState::StoodDown => (format!("{zh}已撤回"), format!("{en} is stood down")),
            _ => (format!("{zh}无法出动：{why}"), format!("{en} declines: {why}")),
        };
        let text = Text { zh: text.0, en: text.1 };
        if along(to).is_some() {
            self.join(now, id, n);
        }
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
        if self.look_at.is_some_and(|at| at <= now.mono && self.timers.first().is_none_or(|(due, ..)| at <= *due)) {
            self.look(now);
            return true;
        }
        let first = self.questions.first().filter(|(due, _)| *due <= now.mono).copied();
        if let Some((due, id)) = first.filter(|(at, _)| self.timers.first().is_none_or(|(due, ..)| at <= due)) {
            self.questions.remove(&(due, id));
            let said = self.said.get_mut(&id).expect("a question belongs to what was said");
            said.due = None;
            if let Some(broadcast) = said.broadcast.as_mut() {
                broadcast.state = BroadcastState::Expired;
            }
            self.requests.push_back(Request::Expired(id));
            return true;
        }
        let first = self.renewals.first().filter(|(due, _)| *due <= now.mono).copied();
        if let Some((due, id)) = first.filter(|(at, _)| self.timers.first().is_none_or(|(due, ..)| at <= due)) {
            self.renewals.remove(&(due, id));
            self.said.get_mut(&id).expect("what is renewed was said").renew_at = None;
            self.requests.push_back(Request::Renew(id));
            return true;
        }
        let first = self.ends.first().filter(|(due, _)| *due <= now.mono).copied();
        if let Some((due, id)) = first.filter(|(at, _)| self.timers.first().is_none_or(|(due, ..)| at <= due)) {
            self.ends.remove(&(due, id));
            self.said.get_mut(&id).expect("a siren sounds for what was said").ends_at = None;
            self.requests.push_back(Request::Ended(id));
            return true;
        }
        let Some((due, id, station)) = self.timers.first().filter(|(due, ..)| *due <= now.mono).cloned() else {
            return false;
        };
        self.timers.remove(&(due, id, Arc::clone(&station)));
        let of = self.calls.get_mut(&id).expect("a timer belongs to a call that is there");
        let n = of.calls.iter().position(|placed| placed.call.station == station);
        let n = n.expect("a timer belongs to a call that is there");
        let said = of.is_said();
        let placed = &mut of.calls[n];
        placed.due = None;
        let alarm = Arc::clone(&of.alarm);
        let Text { zh, en } = placed.call.station_name.clone();
        if placed.control_by <= due && !said {
            placed.call.not_controlled = true;
            let text = Text {
                zh: format!("呼叫{zh}后未在规定时间内控制险情：请值班员核实，并拨打 119"),
                en: format!("not under control in time since {en} was called: verify, and call 119"),
            };
            self.change(now, id, n, None, CallCause::NotControlled, text, effects);
        } else if placed.call.state == CallState::Called {
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
        if let Some(of) = self.calls.remove(&alarm.id) {
            self.engaged.remove(&of);
        }
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
        self.engaged.remove(of);
        let placed = &mut of.calls[n];
        placed.call.seq += 1;
        if let Some((state, by, why)) = to {
            placed.call.state = state;
            let stamp = CallStamp { state, at: now.wall, by: by.to_owned(), why: why.to_owned() };
            placed.call.stamps.push(stamp);
        }
        of.rearm(&mut self.timers, id);
        self.engaged.insert(of);
        let placed = &of.calls[n];
        let message = if of.alarm.drill.is_some() { marked(message) } else { message };
        let change =
            CallChange { at: now.wall, cause, call: placed.call.clone(), alarm: Arc::clone(&of.alarm), message };
        let change = Arc::new(change);
        effects.push_back(Effect::Call(Arc::clone(&change)));
        let (call, alarm) = (&change.call, &change.alarm);
        for channel in &self.settings.channels {
            if channel.form == ChannelForm::Events && channel.wants_call(&call.station, alarm) {
                let order = OrderId::new(format!("{id}/call-{}-{}/{}", call.station, call.seq, channel.id));
                let body = OrderBody::Call(Arc::clone(&change));
                effects.push_back(Effect::Order(Order { id: order, channel: Arc::clone(&channel.id), body }));
            }
        }
    }

    /// A station that was called before the alarm called for help anew, and comes all the same: the clocks that run are its own.
    fn join(&mut self, now: Now, id: AlarmId, n: usize) {
        let of = self.calls.get_mut(&id).expect("the caller found the call");
        let (round, control_by) = (of.round, of.control_by());
        let placed = &mut of.calls[n];
        if placed.call.round == round {
            return;
        }
        let station = self.settings.stations.iter().find(|station| station.id == placed.call.station);
        let usual = Station::default();
        let Station { arrive_within, control_within, .. } = station.unwrap_or(&usual);
        let anew = || (now.mono.plus(*control_within), now.wall.plus(*control_within));
        let call = &mut placed.call;
        (call.round, call.late, call.not_controlled) = (round, false, false);
        (placed.control_by, call.control_by) = control_by.unwrap_or_else(anew);
        (placed.arrive_by, call.arrive_by) = (now.mono.plus(*arrive_within), now.wall.plus(*arrive_within));
    }

    pub fn poll_request(&mut self) -> Option<Request> {
        self.requests.pop_front()
    }

    pub fn poll_timeout(&self) -> Option<Mono> {
        let first = |of: &BTreeSet<(Mono, AlarmId)>| of.first().map(|(due, _)| *due);
        let call = self.timers.first().map(|(due, ..)| *due);
        [call, first(&self.questions), first(&self.renewals), first(&self.ends), self.look_at]
            .into_iter()
            .flatten()
            .min()
    }

    pub fn calls(&self) -> impl Iterator<Item = &Call> {
        self.calls.values().flat_map(|of| of.calls.iter().map(|placed| &placed.call))
    }

    pub fn calls_of(&self, alarm: AlarmId) -> impl Iterator<Item = &Call> {
        self.calls.get(&alarm).into_iter().flat_map(|of| of.calls.iter().map(|placed| &placed.call))
    }
}

/// Whether time or people can make a station unable to respond.
fn is_watched(station: &Station) -> bool {
    !(station.crew.is_empty() && station.equipment.is_empty())
}

/// Whether the last word of a CAP channel is so old that it is said again before it expires.
fn is_to_be_renewed(now: Wall, channel: &Channel, last: &CapRef) -> bool {
    channel.renew_after.is_some_and(|after| now >= last.sent.plus(after) || now < last.sent)
}

/// What a channel has said that is over by itself, and what is in force: its last word in any case.
fn expired(now: Wall, channel: &Channel, mut chain: Vec<CapRef>) -> (Vec<CapRef>, Vec<CapRef>) {
    let Some(after) = channel.renew_after else { return (Vec::new(), chain) };
    let Some(last) = chain.pop() else { return (Vec::new(), chain) };
    let is_over = |sent: &CapRef| now >= sent.sent.plus(2 * after);
    let (over, mut chain): (Vec<CapRef>, Vec<CapRef>) = chain.into_iter().partition(is_over);
    chain.push(last);
    (over, chain)
}

/// Whether what this channel would say now waits for people, where they are asked.
pub fn is_asked(channel: &Channel, alarm: &Alarm, last: Option<&CapRef>) -> bool {
    channel.outward
        && alarm.drill.is_none()
        && alarm.level >= ASKED_FROM
        && last.is_none_or(|last| alarm.level > last.level || alarm.moved != last.moved)
}

/// What others say to the desk: warnings from above, and who asks for help.
fn is_of_others(alarm: &Alarm) -> bool {
    matches!(&alarm.subject, Subject::Part(part) if [WARNING, HELP].iter().any(|word| part.starts_with(word)))
}

/// That no station answers would stand for ever if a station that does not answer were called for it.
fn is_about_anmin(alarm: &Alarm) -> bool {
    alarm.class == Class::System && !is_of_others(alarm)
}

/// Whether an alarm is for the duty desk alone and never for the public.
pub(crate) fn is_for_the_desk(alarm: &Alarm) -> bool {
    // What others warn of is theirs to broadcast; anybody can ask for help, and what anybody says is not for the public.
    is_of_others(alarm)
        // Noise next door, a lift that stands still, an empty battery.
        || matches!(alarm.class, Class::Hazard(Hazard::Care | Hazard::Device))
}

/// What a CAP channel must say now, given the last thing it said that is still in force.
pub fn cap_message(channel: &Channel, alarm: &Alarm, last: Option<&CapRef>) -> Option<CapMessage> {
    // Who takes a sensor out of service says that its word is not to be trusted: the public is told so.
    let over = !alarm.is_open()
        || alarm.out_of_service.is_some()
        || !channel.wants(alarm, alarm.level)
        // What a person has taken back stays so until it gets worse.
        || alarm.broadcast.as_ref().is_some_and(|broadcast| broadcast.holds_back(alarm.level))
        || is_for_the_desk(alarm);
    match last {
        Some(_) if over => Some(CapMessage::Cancel),
        // A shelf silences people's screens; what the public was told stays in force.
        Some(last) if (last.level, last.moved) != (alarm.level, alarm.moved) && alarm.shelved.is_none() => {
            Some(CapMessage::Update)
        }
        Some(_) => None,
        None if over || !alarm.is_active() || alarm.is_silenced() => None,
        None => Some(CapMessage::Alert),
    }
}

/// The identifier of what a CAP channel says of the alarm as it stands after its last transition: unique for ever. It holds
/// no spaces, commas, `<` or `&` (CAP 1.2 section 3.2.1).
pub fn cap_identifier(site: &str, alarm: &Alarm, channel: &str, suffix: &str) -> String {
    let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, ',' | '<' | '&');
    let text = format!("{site}-{}-{}-{channel}{suffix}", alarm.id, alarm.seq);
    text.chars().map(|c| if bad(c) { '_' } else { c }).collect()
}

fn area_of(alarm: &Alarm) -> Arc<str> {
    alarm.place.area.as_str().into()
}
