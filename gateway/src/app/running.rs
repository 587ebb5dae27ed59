//! What of a site can be exchanged while the daemon runs: ways out, subscribers, sources of warnings, outside brokers, buses.
//!
//! What is new is first prepared, which changes nothing and may fail, and then taken, which cannot fail: a site is taken whole or
//! not at all. A connection whose part of the files says what it said is not touched.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use anmin_rules::order::{Order, OrderBody};
use anmin_rules::response::DeskSettings;
use anmin_rules::set::RuleSet;
use anmin_sensors::point::{PointIx, TakenIn};
use anmin_sensors::poll::UnitPlan;
use anmin_sensors::router::{Mapping, Router};
use anmin_sensors::time::Wall;
use rumqttc::QoS;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tracing::{error, warn};
use uuid::Uuid;

use crate::clock::Clock;
use crate::config::outside::Named;
use crate::config::parts::{Difference, Differences, How, Parts};
use crate::config::{self, Config};
use crate::crew_link::Links;
use crate::delivery::broadcast::Broadcast;
use crate::delivery::courier::{self, CourierHandle};
use crate::delivery::ebm::numbers::Numbers;
use crate::delivery::ebm::{self, Ebm};
use crate::delivery::gbt26875_out::{self, Gbt26875Out};
use crate::delivery::mqtt_out::{self, Lines, MqttOut};
use crate::delivery::notice::{self, Notice};
use crate::delivery::siren::{self, Siren};
use crate::delivery::webhook::{self, Webhook};
use crate::delivery::{Carrier, Replaceable, Site, broadcast, cap, heartbeat, influx};
use crate::delivery_report;
use crate::intake::broker::Broker;
use crate::intake::modbus::dial_in::{self, Door};
use crate::intake::modbus::{self, Doors, Transport};
use crate::intake::mqtt::{self, Discard, Outbox};
use crate::main_loop::drill_calendar::{DrillCalendar, Plan};
use crate::main_loop::help::HelpWatch;
use crate::main_loop::plan_history::PlanHistory;
use crate::main_loop::run::Say;
use crate::main_loop::stock::StockWatch;
use crate::main_loop::test_calendar::{TestCalendar, TestPlan};
use crate::main_loop::{Change, Feed, Input, Routes};
use crate::output::{self, Switch};
use crate::register::Kind;
use crate::store::{Reader, StateReader};
use crate::subscription::{self, Subscriptions, push};
use crate::telemetry::{self, Figures};
use crate::warning::book::Here;
use crate::warning::{Source, Warnings};
use crate::web::{DiscardSession, InForce, Teller};

use super::supervisor;

/// Tasks that can be ended one by one, by their names. Cheap to clone.
#[derive(Clone, Default)]
pub struct Tasks(Arc<Mutex<BTreeMap<String, JoinHandle<()>>>>);

impl Tasks {
    /// Takes the place of one of this name.
    pub fn put(&self, name: String, task: JoinHandle<()>) {
        self.ending(|tasks| tasks.insert(name, task));
    }

    pub fn end(&self, name: &str) {
        self.ending(|tasks| tasks.remove(name));
    }

    /// Ends all whose names begin so.
    pub fn end_below(&self, beginning: &str) {
        let all = |tasks: &BTreeMap<String, JoinHandle<()>>| {
            tasks.keys().filter(|name| name.starts_with(beginning)).cloned().collect()
        };
        let names: Vec<String> = all(&self.0.lock().unwrap_or_else(PoisonError::into_inner));
        names.iter().for_each(|name| self.end(name));
    }

    /// As [`Tasks::end_below`], and waits until they are gone: another may want what they had.
    pub async fn ended_below(&self, beginning: &str) {
        let ending: Vec<_> = {
            let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let (ending, others) =
                std::mem::take(&mut *tasks).into_iter().partition::<Vec<_>, _>(|(name, _)| name.starts_with(beginning));
            tasks.extend(others);
            ending
        };
        for (_, task) in ending {
            task.abort();
            // It fails because it was ended.
            let _ = task.await;
        }
    }

    pub fn has_below(&self, beginning: &str) -> bool {
        let tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.keys().any(|name| name.starts_with(beginning))
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(name)
    }

    pub fn end_all(&self) {
        self.end_below("");
    }

    fn ending(&self, take: impl FnOnce(&mut BTreeMap<String, JoinHandle<()>>) -> Option<JoinHandle<()>>) {
        if let Some(task) = take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner)) {
            task.abort();
        }
    }
}

/// What everything that is exchanged needs to know.
pub struct Running {
    /// Said of the site by all that leaves it; what the files say of it now waits for a restart.
    pub site: Site,
    pub desk: DeskSettings,
    pub parts: Parts,
    /// What waits for a restart.
    pub waits: Vec<String>,
    pub crew: Links,
    pub broker: Option<Broker>,
    pub clock: Clock,
    pub figures: Figures,
    /// What [`crate::pulse::Watch`] counts.
    pub beats: watch::Receiver<u64>,
    pub feed: Feed,
    pub inputs: mpsc::Sender<Input>,
    pub tasks: Tasks,
    pub ways: BTreeMap<Arc<str>, WayOut>,
    /// The connections of the ways out over MQTT, by which others speak, too.
    pub lines: Lines,
    /// What numbers the emergency broadcast's messages have.
    pub numbers: Arc<Numbers>,
    pub subscriptions: Subscriptions,
    pub warnings: Warnings,
    /// What waits in the queue of readings, by the database that takes it.
    pub readers: BTreeMap<Arc<str>, Reader>,
    pub in_force: Arc<RwLock<InForce>>,
    /// Files of certificates that the site names now, for who looks when they end.
    pub certificates: watch::Sender<Vec<Named>>,
    /// Where the databases are, and when they were made.
    pub storage: PathBuf,
    pub installation: Uuid,
    /// Questions to devices at outside brokers.
    pub outboxes: BTreeMap<Arc<str>, Outbox>,
    /// What comes to buses from beside their schedules: outputs hold on to theirs while a bus is exchanged.
    pub doors: BTreeMap<Arc<str>, Doors>,
}

/// One way out with its courier.
pub struct WayOut {
    carrier: CarrierOf,
    courier: CourierHandle,
}

enum CarrierOf {
    Mqtt(Arc<Replaceable<MqttOut>>),
    Webhook(Arc<Replaceable<Webhook>>),
    Notice(Arc<Replaceable<Notice>>),
    Cap(Arc<Replaceable<Broadcast>>),
    Ebm(Arc<Replaceable<Ebm>>),
    Centre(Arc<Replaceable<Gbt26875Out>>),
    /// Only a restart exchanges it.
    Siren,
}

/// A carrier that is sound and has said nothing yet.
enum NewCarrier {
    Mqtt(MqttOut),
    Webhook(Webhook),
    Notice(Notice),
    Cap(Broadcast),
    Ebm(Ebm),
    Centre(Gbt26875Out),
}

impl WayOut {
    /// Whether a carrier of this kind can go on with what waits here.
    fn is_like(&self, new: &NewWay) -> bool {
        matches!(
            (&self.carrier, &new.carrier),
            (CarrierOf::Mqtt(_), NewCarrier::Mqtt(_))
                | (CarrierOf::Webhook(_), NewCarrier::Webhook(_))
                | (CarrierOf::Notice(_), NewCarrier::Notice(_))
                | (CarrierOf::Cap(_), NewCarrier::Cap(_))
                | (CarrierOf::Ebm(_), NewCarrier::Ebm(_))
                | (CarrierOf::Centre(_), NewCarrier::Centre(_))
        )
    }
}

/// A way out that is to be taken, and whether it carries heartbeats.
pub struct NewWay {
    id: Arc<str>,
    heartbeat: bool,
    carrier: NewCarrier,
}

/// All of a new site that could have failed.
pub struct Prepared {
    pub rules: RuleSet,
    pub differences: Differences,
    /// The rest of it.
    config: Config,
    ways: Vec<NewWay>,
    subscribers: Vec<subscription::Prepared>,
    sources: Vec<Source>,
    drill_calendar: Option<DrillCalendar>,
}

impl Running {
    /// The ways out of a site that are `wanted`, each sound by itself.
    pub fn prepare_ways(&self, config: &Config, wanted: impl Fn(&str) -> bool) -> Result<Vec<NewWay>, String> {
        let Self { site, crew, clock, broker, inputs, storage, .. } = self;
        let mut ways = Vec::new();
        let mut add = |id: &Arc<str>, heartbeat, make: &dyn Fn() -> Result<NewCarrier, String>| {
            if wanted(id) {
                let carrier = make().map_err(|problem| format!("way out {id}: {problem}"))?;
                ways.push(NewWay { id: Arc::clone(id), heartbeat, carrier });
            }
            Ok::<_, String>(())
        };
        for settings in &config.mqtt_out {
            let make = || mqtt_out::carrier(settings, site, broker.as_ref().map(embedded)).map(NewCarrier::Mqtt);
            add(&settings.channel.id, settings.heartbeat, &make)?;
        }
        for settings in &config.webhooks {
            let make = || webhook::carrier(settings, site, clock).map(NewCarrier::Webhook);
            add(&settings.channel.id, settings.heartbeat, &make)?;
        }
        for settings in &config.notices {
            let make = || notice::carrier(settings, site, Some(crew), clock, inputs).map(NewCarrier::Notice);
            add(&settings.channel.id, false, &make)?;
        }
        for settings in &config.caps {
            let make = || broadcast::carrier(settings, site, &self.lines).map(NewCarrier::Cap);
            add(&settings.channel.id, false, &make)?;
        }
        for settings in &config.ebms {
            let make = || ebm::carrier(settings, site, &self.numbers, clock).map(NewCarrier::Ebm);
            add(&settings.channel.id, settings.heartbeat, &make)?;
        }
        for settings in config.centres(site) {
            let make = || Ok(NewCarrier::Centre(gbt26875_out::carrier(settings, site, storage, clock, inputs)));
            add(&settings.channel.id, false, &make)?;
        }
        Ok(ways)
    }

    /// Lets a way out speak: by the courier that it had, with what waits there, or by a new one.
    pub fn take_way(&mut self, way: NewWay) -> Result<(), String> {
        let NewWay { id, heartbeat, carrier } = way;
        self.tasks.end(&format!("heartbeat of {id}"));
        match (carrier, self.ways.get(&id)) {
            (NewCarrier::Mqtt(new), Some(WayOut { carrier: CarrierOf::Mqtt(old), courier })) => {
                // First, so that the broker hears of the end of the one before it hears of the other.
                old.now().end();
                old.replace(new);
                courier.renew();
                old.now().begin()?;
                self.beat(&id, heartbeat, Arc::clone(old));
            }
            (NewCarrier::Webhook(new), Some(WayOut { carrier: CarrierOf::Webhook(old), courier })) => {
                old.replace(new);
                courier.renew();
                self.beat(&id, heartbeat, Arc::clone(old));
            }
            (NewCarrier::Notice(new), Some(WayOut { carrier: CarrierOf::Notice(old), courier })) => {
                old.replace(new);
                courier.renew();
            }
            (NewCarrier::Cap(new), Some(WayOut { carrier: CarrierOf::Cap(old), courier })) => {
                old.replace(new);
                courier.renew();
            }
            (NewCarrier::Ebm(new), Some(WayOut { carrier: CarrierOf::Ebm(old), courier })) => {
                old.replace(new);
                courier.renew();
                self.beat(&id, heartbeat, Arc::clone(old));
            }
            (NewCarrier::Centre(new), Some(WayOut { carrier: CarrierOf::Centre(old), courier })) => {
                old.replace(new).end();
                old.now().begin();
                courier.renew();
            }
            // The first of its name, or of another kind than the one before: its orders go on by the journal.
            (NewCarrier::Mqtt(new), _) => {
                let carrier = Arc::new(Replaceable::new(new));
                carrier.now().begin()?;
                self.lines.put(&id, &carrier);
                self.start(&id, heartbeat, &carrier, CarrierOf::Mqtt);
            }
            (NewCarrier::Webhook(new), _) => {
                self.start(&id, heartbeat, &Arc::new(Replaceable::new(new)), CarrierOf::Webhook);
            }
            (NewCarrier::Notice(new), _) => {
                self.start(&id, heartbeat, &Arc::new(Replaceable::new(new)), CarrierOf::Notice);
            }
            (NewCarrier::Centre(new), _) => {
                let carrier = Arc::new(Replaceable::new(new));
                carrier.now().begin();
                self.start(&id, heartbeat, &carrier, CarrierOf::Centre);
            }
            (NewCarrier::Ebm(new), _) => self.start(&id, heartbeat, &Arc::new(Replaceable::new(new)), CarrierOf::Ebm),
            (NewCarrier::Cap(new), _) => self.start(&id, heartbeat, &Arc::new(Replaceable::new(new)), CarrierOf::Cap),
        }
        Ok(())
    }

    /// Starts the sirens, which nothing but a restart exchanges. Gives the outputs as a person has them, each by way of its siren
    /// where there is one.
    pub fn sound(
        &mut self,
        config: &Config,
        wanted: &siren::Wanted,
    ) -> Result<Vec<(output::Settings, Switch)>, String> {
        let mut outputs: Vec<(output::Settings, Switch)> = Vec::new();
        for output in &config.outputs {
            let writes = self.doors(&output.bus).writes;
            outputs.push((output.settings.clone(), super::daemon::switch(output, writes)));
        }
        for settings in &config.sirens {
            let id = &settings.channel.id;
            let mut output = outputs.iter_mut().find(|(output, _)| settings.output() == Some(&*output.id));
            let relay = output.as_ref().map(|(_, switch)| Arc::clone(switch));
            let siren = siren::carrier(settings, relay, &self.lines, wanted.clone(), &self.clock);
            let siren = Arc::new(Replaceable::new(siren.map_err(|problem| format!("way out {id}: {problem}"))?));
            if let Some((_, switch)) = &mut output {
                *switch = siren.now().by_hand(Arc::clone(switch));
            }
            self.start(id, false, &siren, |_: Arc<Replaceable<Siren>>| CarrierOf::Siren);
            let keeper = format!("siren:{id}");
            let task = supervisor::keep(keeper.as_str(), self.inputs.clone(), move || siren.now().keep());
            self.tasks.put(keeper, task);
        }
        Ok(outputs)
    }

    fn start<C: Carrier>(
        &mut self,
        id: &Arc<str>,
        heartbeat: bool,
        carrier: &Arc<Replaceable<C>>,
        of: impl Fn(Arc<Replaceable<C>>) -> CarrierOf,
    ) {
        let (courier, task) =
            courier::spawn(Arc::clone(carrier), Arc::clone(id), self.clock.clone(), self.inputs.clone());
        self.tasks.put(format!("courier of {id}"), supervisor::or_end(format!("courier of {id}"), task));
        self.figures.way_out(id, courier.tally());
        self.beat(id, heartbeat, Arc::clone(carrier));
        self.ways.insert(Arc::clone(id), WayOut { carrier: of(Arc::clone(carrier)), courier });
    }

    fn beat<C: Carrier>(&self, id: &Arc<str>, heartbeat: bool, carrier: Arc<Replaceable<C>>) {
        if heartbeat {
            let (site, clock) = (self.site.clone(), self.clock.clone());
            let (figures, beats) = (self.figures.clone(), self.beats.clone());
            let task = heartbeat::spawn(carrier, Arc::clone(id), site, clock, figures, beats);
            self.tasks.put(format!("heartbeat of {id}"), task);
        }
    }

    fn end_way(&mut self, id: &str) {
        self.tasks.end(&format!("heartbeat of {id}"));
        self.tasks.end(&format!("courier of {id}"));
        match self.ways.remove(id).map(|way| way.carrier) {
            Some(CarrierOf::Mqtt(carrier)) => {
                self.lines.take_away(id);
                carrier.now().end();
            }
            Some(CarrierOf::Centre(carrier)) => carrier.now().end(),
            _ => {}
        }
        self.figures.no_way_out(id);
    }

    /// Where the main loop hands in orders.
    pub fn couriers(&self) -> BTreeMap<Arc<str>, CourierHandle> {
        self.ways.iter().map(|(id, way)| (Arc::clone(id), way.courier.clone())).collect()
    }

    /// The forwarder of one `[[influx]]`, started again from its cursor where it fails.
    pub fn forward(&self, settings: &influx::Settings) -> Result<(), String> {
        let Some(reader) = self.readers.get(&settings.id).map(Reader::again) else { return Ok(()) };
        let name = format!("way-out:{}", settings.id);
        let (settings, clock, to) = (settings.clone(), self.clock.clone(), self.inputs.clone());
        let figures = self.figures.clone();
        let mut start = move || -> Result<JoinHandle<()>, String> {
            let forwarder = influx::spawn(&settings, reader.again(), clock.clone(), to.clone())
                .map_err(|problem| format!("way out {}: {problem}", settings.id))?;
            figures.database(&settings.id, &forwarder.stats);
            Ok(forwarder.task)
        };
        let mut first = Some(start()?);
        let task = supervisor::keep(name.as_str(), self.inputs.clone(), move || {
            let started = first.take().map_or_else(&mut start, Ok);
            started.unwrap_or_else(|problem| tokio::spawn(async move { panic!("{problem}") }))
        });
        self.tasks.put(name, task);
        Ok(())
    }

    /// The connection to one outside broker.
    pub fn connect(&mut self, settings: mqtt::Settings, mappings: &[Mapping]) {
        let settings = settings.or_client_id(&self.site.id);
        let name = format!("mqtt:{}", settings.id);
        let filters: Vec<(String, QoS)> =
            Router::filters(mappings).into_iter().map(|filter| (filter, settings.qos)).collect();
        let (clock, to, discard) = (self.clock.clone(), self.inputs.clone(), Discard::default());
        let outbox = self.outboxes.entry(Arc::clone(&settings.id)).or_default().clone();
        let order = discard.clone();
        let session: DiscardSession = Arc::new(move || order.order());
        self.in_force
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .sessions
            .insert(Arc::clone(&settings.id), session);
        let task = supervisor::keep(name.as_str(), self.inputs.clone(), move || {
            mqtt::spawn(settings.clone(), filters.clone(), clock.clone(), to.clone(), discard.clone(), outbox.clone())
        });
        self.tasks.put(name, task);
    }

    pub fn doors(&mut self, bus: &Arc<str>) -> Doors {
        self.doors.entry(Arc::clone(bus)).or_default().clone()
    }

    /// Listens for devices that dial in, instead of for those that did before.
    pub async fn answer(&mut self, buses: impl IntoIterator<Item = &modbus::Settings>) {
        let expected: Vec<_> =
            buses.into_iter().map(|settings| (settings.clone(), self.doors(&settings.id).callers)).collect();
        self.tasks.ended_below("dial_in:").await;
        for (address, task) in dial_in::spawn(&expected, &self.clock).await {
            let name = format!("dial_in:{address}");
            self.tasks.put(name.clone(), supervisor::or_end(name, task));
        }
    }

    /// One bus, polled.
    pub fn poll(&mut self, settings: modbus::Settings, units: Vec<UnitPlan>) {
        let name = format!("bus:{}", settings.id);
        let (clock, to, counters) = (self.clock.clone(), self.inputs.clone(), self.figures.bus(&settings.id));
        let doors = self.doors(&settings.id);
        let task = supervisor::keep(name.as_str(), self.inputs.clone(), move || {
            let (settings, units) = (settings.clone(), units.clone());
            modbus::spawn(settings, units, clock.clone(), to.clone(), counters.clone(), doors.clone())
        });
        self.tasks.put(name, task);
    }

    /// Those who are posted to.
    pub fn post(&self, outboxes: Vec<push::Outbox>) {
        for outbox in outboxes {
            let name = format!("subscriber:{}", outbox.id());
            let posting = tokio::spawn(outbox.run(self.subscriptions.clone(), self.lines.clone(), self.inputs.clone()));
            self.tasks.put(name.clone(), supervisor::or_end(name, posting));
        }
        if !self.subscriptions.is_empty() && !self.tasks.has("subscriptions") {
            let (all, feed) = (self.subscriptions.clone(), self.feed.clone());
            let follow = move || tokio::spawn(all.clone().follow(feed.clone()));
            self.tasks.put("subscriptions".to_owned(), supervisor::keep("subscriptions", self.inputs.clone(), follow));
        }
    }

    /// Polls the addresses of these sources of warnings, and has the duty desk hear what they say.
    pub fn listen(&self, wanted: impl Fn(&str) -> bool) {
        for (source, n) in self.warnings.addresses().into_iter().filter(|(source, _)| wanted(source)) {
            let (all, to) = (self.warnings.clone(), self.inputs.clone());
            let (task, name) = (format!("poll of {source}/{n}"), format!("poll of {source}"));
            let poll = move || tokio::spawn(all.clone().poll(Arc::clone(&source), n, to.clone()));
            self.tasks.put(task, supervisor::keep(name, self.inputs.clone(), poll));
        }
        if !self.warnings.is_empty() && !self.tasks.has("warnings") {
            let (all, feed, to) = (self.warnings.clone(), self.feed.clone(), self.inputs.clone());
            let run = move || tokio::spawn(all.clone().run(feed.clone(), to.clone()));
            self.tasks.put("warnings".to_owned(), supervisor::keep("warnings", self.inputs.clone(), run));
        }
    }

    /// How the main loop speaks to devices at the outside brokers.
    pub fn say_at(&mut self, id: &Arc<str>) -> Say {
        let outbox = self.outboxes.entry(Arc::clone(id)).or_default().clone();
        Box::new(move |topic, payload| outbox.put(topic, payload))
    }

    /// What the journal says of past drills; where it cannot be read an area counts as never drilled.
    pub fn drill_calendar(&self, plans: Vec<Plan>) -> DrillCalendar {
        /// Of each area the last one counts, and areas are few.
        const LOOKED_BACK: usize = 10_000;
        let past = StateReader::open(&self.storage).and_then(|journal| journal.drills(LOOKED_BACK, None));
        DrillCalendar::new(plans, self.made(), &past.unwrap_or_default())
    }

    /// When each detector was last tested; where that cannot be read all count as never tested.
    pub fn test_calendar(&self, plan: TestPlan) -> TestCalendar {
        let tested = StateReader::open(&self.storage).and_then(|journal| journal.last_tested()).unwrap_or_default();
        TestCalendar::new(plan, self.made(), tested)
    }

    /// The register of the stock; where it cannot be read nothing is said of it until it changes.
    pub fn stock(&self) -> StockWatch {
        let rows = StateReader::open(&self.storage).and_then(|journal| journal.register(Kind::Stock));
        StockWatch::new(self.site.time_zone.clone(), rows.unwrap_or_default())
    }

    /// Who asks for help; where it cannot be read nothing is said of anybody until they change.
    pub fn help(&self, kept: Duration) -> HelpWatch {
        let rows = StateReader::open(&self.storage).and_then(|journal| journal.register(Kind::Help));
        HelpWatch::new(self.site.time_zone.clone(), kept, rows.unwrap_or_default())
    }

    /// Which plans were in force; where that cannot be read all count as new.
    pub fn plan_history(&self) -> PlanHistory {
        let past = StateReader::open(&self.storage).and_then(|journal| journal.plans());
        PlanHistory::new(past.unwrap_or_default())
    }

    /// The id of the installation holds the moment at which it was made.
    fn made(&self) -> Wall {
        let made = self.installation.get_timestamp().map(|stamp| stamp.to_unix());
        made.map_or(self.clock.now().wall, |(seconds, _)| Wall::from_millis(seconds as i64 * 1_000))
    }

    /// Prepares all that is different in `config`. Waits for the disk and changes nothing; the error is for the operator.
    pub fn prepare(&self, mut config: Config) -> Result<Prepared, String> {
        let differences = config.parts.differences(&self.parts);
        let live = |table: &str| ids(&differences.live, &[table], |how| *how != How::Removed);
        let ways = ids(&differences.live, WAYS, |how| *how != How::Removed);
        let (subscribers, sources) = (live("subscriber"), live("warning_source"));
        let changed: Vec<_> = config.subscribers.iter().filter(|one| subscribers.contains(&*one.id)).cloned().collect();
        let polled: Vec<_> = config.warning_sources.iter().filter(|one| sources.contains(&*one.id)).cloned().collect();
        // Another zone waits with `[site]`.
        config.rules.set_zone(config::ahead(&self.site.time_zone));
        let is_drilled = !ids(&differences.live, &["drill"], |_| true).is_empty();
        Ok(Prepared {
            ways: self.prepare_ways(&config, |id| ways.contains(id))?,
            subscribers: self.subscriptions.prepare(&changed)?,
            sources: Warnings::prepare(&polled)?,
            drill_calendar: is_drilled.then(|| self.drill_calendar(config.drills.clone())),
            rules: std::mem::take(&mut config.rules),
            config,
            differences,
        })
    }
}

impl Running {
    /// Ends what is gone or another by now, and takes what leads out. What hears waits for [`Running::begin`], when the main
    /// loop knows its points.
    pub fn take(&mut self, prepared: Prepared) -> (Change, Beginning) {
        let Prepared { differences, config, ways, subscribers, sources, drill_calendar, rules: _ } = prepared;
        let Differences { live, waits } = differences;
        let gone = |tables: &[&str]| ids(&live, tables, |how| *how == How::Removed);
        let other = |tables: &[&str]| ids(&live, tables, |how| *how != How::Removed);
        let all = |tables: &[&str]| ids(&live, tables, |_| true);
        let mut over: Vec<String> = Vec::new();

        for id in gone(WAYS).difference(&other(WAYS)) {
            self.end_way(id);
            over.extend(["way-out", "duty-check", "centre-clock"].map(|part| format!("{part}:{id}")));
        }
        for way in ways {
            let (id, same) = (Arc::clone(&way.id), self.ways.get(&way.id).is_some_and(|old| old.is_like(&way)));
            if !same {
                self.end_way(&id);
                over.push(format!("way-out:{id}"));
            }
            if let Err(why) = self.take_way(way) {
                // The embedded broker has not taken the status; it takes the next.
                warn!(way_out = &*id, "{why}");
            }
        }
        for id in all(&["subscriber"]) {
            self.tasks.end(&format!("subscriber:{id}"));
            over.push(format!("subscriber:{id}"));
        }
        let left: Vec<Arc<str>> = gone(&["subscriber"]).iter().map(|id| Arc::from(id.as_str())).collect();
        self.post(self.subscriptions.replace(&left, subscribers));
        let changed = other(&["warning_source"]);
        for id in all(&["warning_source"]) {
            self.tasks.end_below(&format!("poll of {id}/"));
            over.push(format!("warning-source:{id}"));
        }
        let left: Vec<Arc<str>> = gone(&["warning_source"]).iter().map(|id| Arc::from(id.as_str())).collect();
        self.warnings.replace(&left, sources);
        // Devices, profiles and places are read by one another: where one of them waits, none was taken.
        let rest_waits = waits.iter().any(|one| ["device", "place", "place_list", "profiles/"].contains(&one.table()));
        if !rest_waits {
            self.warnings.settle(Here::new(self.site.area_code.as_deref(), config.places.values()));
            let places = config.places.values().cloned().collect();
            self.in_force.write().unwrap_or_else(PoisonError::into_inner).places = places;
        }
        self.listen(|id| changed.contains(id));
        over.extend(gone(&["drill"]).iter().map(|id| format!("drill:{id}")));

        let added = other(&["device"]);
        let mut buses = other(&["bus"]);
        for bus in &config.buses {
            if bus.units.iter().any(|unit| added.contains(&*unit.device)) {
                buses.insert(bus.settings.id.to_string());
            }
        }
        for id in buses.iter().chain(&gone(&["bus"])) {
            self.tasks.end(&format!("bus:{id}"));
            over.extend(["bus", "unit", "callers"].map(|part| format!("{part}:{id}")));
        }
        let answered = |settings: &modbus::Settings| matches!(settings.transport, Transport::DialIn(_));
        // Those who were connected are no longer.
        for bus in config.buses.iter().map(|bus| &bus.settings).filter(|bus| answered(bus) && buses.contains(&*bus.id))
        {
            self.doors.entry(Arc::clone(&bus.id)).or_default().callers = Door::default();
        }
        let is_other = config.buses.iter().any(|bus| answered(&bus.settings) && buses.contains(&*bus.settings.id));
        let callers = is_other || (self.tasks.has_below("dial_in:") && !all(&["bus"]).is_empty());
        let callers = callers.then(|| config.buses.iter().map(|bus| bus.settings.clone()).collect());
        let brokers = other(&["mqtt"]);
        let mut routes: Vec<(Arc<str>, Vec<Mapping>)> = Vec::new();
        for id in all(&["mqtt"]) {
            self.tasks.end(&format!("mqtt:{id}"));
            over.extend(["mqtt", "sparkplug"].map(|part| format!("{part}:{id}")));
            let mappings = config.mappings.iter().find(|(of, _)| **of == *id).map(|(_, mappings)| mappings.clone());
            let mappings = if brokers.contains(&id) { mappings } else { None };
            routes.push((Arc::from(id), mappings.unwrap_or_default()));
        }
        for id in gone(&["mqtt"]) {
            self.outboxes.remove(&*id);
            self.in_force.write().unwrap_or_else(PoisonError::into_inner).sessions.remove(&*id);
        }
        let says =
            brokers.iter().map(|id| Arc::from(id.as_str())).map(|id| (Arc::clone(&id), self.say_at(&id))).collect();
        let databases = other(&["influx"]);
        databases.iter().for_each(|id| {
            self.tasks.end(&format!("way-out:{id}"));
            over.push(format!("way-out:{id}"));
        });
        self.certificates.send_replace(config.certificates.clone());
        if !all(&["log"]).is_empty() {
            telemetry::set_log_level(config.log_level);
        }

        let desk_waits =
            waits.iter().any(|one| ["station", "plan", "desk", "place", "place_list"].contains(&one.table()));
        let mut known = DeskSettings {
            site: self.desk.site.clone(),
            zone: self.desk.zone.clone(),
            broadcast: self.desk.broadcast.clone(),
            ..config.desk.clone()
        };
        // Whom a warning reaches in earnest follows from what the site is now, not from what it will be.
        known.channels = config.channels(&self.site);
        // What waits goes on as it was.
        let ways_waiting: Vec<&str> =
            waits.iter().filter(|one| WAYS.contains(&one.table())).map(Difference::id).collect();
        known.channels.retain(|channel| !ways_waiting.contains(&&*channel.id));
        known.channels.extend(self.desk.channels.iter().filter(|one| ways_waiting.contains(&&*one.id)).cloned());
        self.desk = match desk_waits {
            true => DeskSettings { channels: known.channels, ..self.desk.clone() },
            false => known,
        };
        let router =
            (!rest_waits).then_some(Routes { profiles: config.profiles, places: config.places, sources: routes });
        let (devices, numbers) = if added.is_empty() && buses.is_empty() {
            (None, None)
        } else {
            let (reply, numbers) = oneshot::channel();
            (Some((config.points, reply)), Some(numbers))
        };
        let waiting = |table: &str| waits.iter().any(|one| one.table() == table);
        let change = Change {
            desk: self.desk.clone(),
            validation: config.validation,
            audit_kept: (!waiting("storage")).then_some(config.audit_kept),
            limits: config.limits,
            drill_calendar,
            devices,
            router,
            couriers: self.couriers(),
            says,
            gone: over,
            configuration: config.sha256.clone().into(),
        };
        {
            let mut in_force = self.in_force.write().unwrap_or_else(PoisonError::into_inner);
            let before = std::mem::replace(
                &mut in_force.texts,
                texts(&config.caps, &config.ebms, &config.notices, (&self.site, &self.numbers)),
            );
            in_force.texts.retain(|id, _| !ways_waiting.contains(&&**id));
            in_force.texts.extend(before.into_iter().filter(|(id, _)| ways_waiting.contains(&&**id)));
            in_force.reports = reports(&config.notices);
            in_force.configuration = config.sha256.into();
            if !waiting("drawing") {
                in_force.drawings = Arc::clone(&config.drawings);
            }
        }
        let beginning = Beginning {
            callers,
            buses: config
                .buses
                .into_iter()
                .filter(|bus| buses.contains(&*bus.settings.id))
                .map(|bus| (bus.settings, bus.units))
                .collect(),
            brokers: config
                .mqtt
                .into_iter()
                .filter(|settings| brokers.contains(&*settings.id))
                .map(|settings| {
                    let of = config.mappings.iter().find(|(id, _)| *id == settings.id);
                    let mappings = of.map(|(_, mappings)| mappings.clone()).unwrap_or_default();
                    (settings, mappings)
                })
                .collect(),
            databases: config.influx.into_iter().filter(|settings| databases.contains(&*settings.id)).collect(),
            numbers,
            parts: config.parts,
            waits,
        };
        (change, beginning)
    }

    /// Begins to hear what the main loop knows by now.
    pub async fn begin(&mut self, beginning: Beginning) {
        let Beginning { callers, buses, brokers, databases, numbers, parts, mut waits } = beginning;
        let taken = match numbers {
            // Fails only when the main loop has ended.
            Some(numbers) => numbers.await.unwrap_or_default(),
            None => TakenIn::default(),
        };
        let there = taken.otherwise.iter();
        waits.extend(there.map(|id| Difference { part: format!("[[device]] {id}"), how: How::Added }));
        if let Some(callers) = callers {
            self.answer(&callers).await;
        }
        for (settings, units) in buses {
            let number = |ix: PointIx| taken.numbers.get(ix.0 as usize).copied().flatten();
            // A unit without its points is of a device that is there otherwise, and waits.
            let units = units.iter().filter_map(|unit| unit.renumbered(number)).collect();
            self.poll(settings, units);
        }
        for (settings, mappings) in brokers {
            self.connect(settings, &mappings);
        }
        for settings in databases {
            if let Err(why) = self.forward(&settings) {
                error!("{why}; its readings wait until the configuration is read anew");
                // So that it is tried again then.
                waits.push(Difference { part: format!("[[influx]] {}", settings.id), how: How::Changed(Vec::new()) });
            }
        }
        self.waits = waits.iter().map(ToString::to_string).collect();
        self.parts = parts.taken(&self.parts, &waits);
    }
}

/// What begins once the main loop has taken the change that goes with it.
pub struct Beginning {
    /// Buses that devices may dial in to, and the others, where they are not what they were.
    callers: Option<Vec<modbus::Settings>>,
    buses: Vec<(modbus::Settings, Vec<UnitPlan>)>,
    brokers: Vec<(mqtt::Settings, Vec<Mapping>)>,
    databases: Vec<influx::Settings>,
    numbers: Option<oneshot::Receiver<TakenIn>>,
    parts: Parts,
    waits: Vec<Difference>,
}

const WAYS: &[&str] = &["mqtt_out", "webhook", "notice", "cap", "ebm", "gbt26875_out", "siren"];

/// The ids of what is different in these tables.
fn ids(differences: &[Difference], tables: &[&str], how: impl Fn(&How) -> bool) -> BTreeSet<String> {
    let found = differences.iter().filter(|one| tables.contains(&one.table()) && how(&one.how));
    found.map(|one| one.id().to_owned()).collect()
}

/// How what gateways report is read.
pub fn reports(notices: &[notice::Settings]) -> BTreeMap<Arc<str>, delivery_report::Settings> {
    let of = |settings: &notice::Settings| Some((Arc::clone(&settings.channel.id), settings.report()?.clone()));
    notices.iter().filter_map(of).collect()
}

/// The same words in which the couriers send: a message is made of its order and of nothing that passes.
pub fn texts(
    caps: &[broadcast::Settings],
    ebms: &[ebm::Settings],
    notices: &[notice::Settings],
    (site, numbers): (&Site, &Arc<Numbers>),
) -> BTreeMap<Arc<str>, Teller> {
    let cap = |settings: &broadcast::Settings| -> (Arc<str>, Teller) {
        let words = settings.words(site);
        let teller = move |order: &Order| match &order.body {
            OrderBody::Cap(order) => Some(cap::compose(&words, order).ok()?.xml),
            OrderBody::Event(_) | OrderBody::Call(_) | OrderBody::Siren(_) => None,
        };
        (Arc::clone(&settings.channel.id), Arc::new(teller))
    };
    let notice = |settings: &notice::Settings| -> (Arc<str>, Teller) {
        (Arc::clone(&settings.channel.id), Arc::new(settings.teller(site)))
    };
    let ebm = |settings: &ebm::Settings| -> (Arc<str>, Teller) {
        let teller = ebm::teller(settings.words(site), Arc::clone(numbers));
        (Arc::clone(&settings.channel.id), Arc::new(teller))
    };
    caps.iter().map(cap).chain(ebms.iter().map(ebm)).chain(notices.iter().map(notice)).collect()
}

/// The embedded broker as the MQTT way out sees it.
fn embedded(broker: &Broker) -> mqtt_out::Embedded {
    let broker = broker.clone();
    Arc::new(move |topic, payload, retain| {
        broker
            .publish(topic, payload, QoS::AtLeastOnce, retain)
            .map(|_subscribers| ())
            .map_err(|error| error.to_string())
    })
}
