//! The daemon: every room started in order, tied together, and stopped in order.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, RwLock};
use std::thread;

use anmin_rules::engine::Engine;
use anmin_rules::rule::{Finding, Level, Text};
use anmin_sensors::decode::modbus::Table;
use anmin_sensors::router::{Limits, Router};
use anmin_sensors::validator::Validator;
use rumqttc::QoS;
use serde_json::json;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use crate::clock::Clock;
use crate::config::{self, Config};
use crate::crew_link::{LinkKey, Links};
use crate::delivery::ebm::numbers::Numbers;
use crate::intake::broker::Broker;
use crate::intake::modbus::write::{self, NotDone, Writes};
use crate::intake::{gbt26875, http};
use crate::main_loop::clock_trust::ClockTrust;
use crate::main_loop::deliveries::Deliveries;
use crate::main_loop::hearing::Hearing;
use crate::main_loop::losses::Losses;
use crate::main_loop::run::{MainLoop, Parts, Say};
use crate::main_loop::{Feed, Input, PartState, PartTrouble, ReloadAsked};
use crate::output::{self, Action, Outputs, Refused, Switch};
use crate::pulse::{Pulse, Watch};
use crate::store::audit::{Deed, Through, Way};
use crate::store::readings::Readings;
use crate::store::suspects::Suspects;
use crate::store::{StateStore, StoreError};
use crate::subscription::Subscriptions;
use crate::telemetry::{self, Figures};
use crate::warning::Warnings;
use crate::warning::book::Here;
use crate::web::{self, InForce};

use super::caretaker::{self, Caretaker};
use super::running::{self, Running, Tasks};
use super::{adopted, refill, reload, supervisor, trial};

/// Inputs that may wait for the main loop. When full, intakes stop reading: the broker or the bus keeps what comes.
const WAITING_INPUTS: usize = 1_024;

/// The part of anmin that signs the links of crews.
const CREW_LINKS: &str = "crew-links";

fn keyless(why: &str) -> Text {
    Text {
        zh: format!("消防站应答链接的密钥无法保存，本次运行结束后已发出的链接将失效：{why}"),
        en: format!("the key of the crews' links cannot be kept, so that links end with this run: {why}"),
    }
}

/// `anmin run`.
pub fn run(site: &Path) -> ExitCode {
    let config = match Config::load(site) {
        Ok(config) => config,
        Err(faults) => {
            eprintln!("{}", config::report(site, &faults));
            return ExitCode::FAILURE;
        }
    };
    telemetry::set_log_level(config.log_level);
    for warning in &config.warnings {
        warn!("{warning}");
    }
    if !config.broken_rules.is_empty() {
        eprintln!("{}", config::report_rules(site, &config.broken_rules, &config.rules));
    }
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(problem) => return fail(&problem),
    };
    supervisor::watch_panics();
    runtime.block_on(async {
        // Before anybody is told that it runs.
        let told_to_stop = told_to_stop();
        match Daemon::start(config, Clock::system()).await {
            Ok(daemon) => {
                daemon.reload_on_hangup();
                told_to_stop.await;
                daemon.stop().await;
                ExitCode::SUCCESS
            }
            Err(problem) => fail(&problem),
        }
    })
}

/// Hears SIGTERM and SIGINT from now on; the future ends at the first.
pub fn told_to_stop() -> impl Future<Output = ()> {
    use tokio::signal::unix::{SignalKind, signal};
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    async move {
        match signals {
            (Ok(mut terminate), Ok(mut interrupt)) => tokio::select! {
                _ = terminate.recv() => info!("told to stop"),
                _ = interrupt.recv() => info!("told to stop"),
            },
            // Without signal handlers the system's own end the process at once, which every part survives.
            _ => std::future::pending().await,
        }
    }
}

pub fn fail(problem: &str) -> ExitCode {
    error!("{problem}");
    ExitCode::FAILURE
}

/// The runtime of all sockets but the desk's; the main loop and the two writers have threads of their own.
pub fn runtime() -> Result<Runtime, String> {
    build(2, "anmin-io")
}

fn build(threads: usize, name: &str) -> Result<Runtime, String> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name(name)
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the runtime: {error}"))
}

/// The desk has a runtime of its own: two hundred screens that are told of an alarm never stand before the alarm on its way out.
struct DeskRuntime(Option<Runtime>);

impl DeskRuntime {
    fn new() -> Result<Self, String> {
        build(1, "anmin-desk").map(|runtime| Self(Some(runtime)))
    }

    fn handle(&self) -> Handle {
        self.0.as_ref().expect("it is there until it is dropped").handle().clone()
    }
}

impl Drop for DeskRuntime {
    fn drop(&mut self) {
        // Whoever drops it may stand in a runtime, which must not wait.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// What listens, with whoever dials in, on that runtime.
fn opened_in<T: Send + 'static, F: Future<Output = io::Result<T>> + Send + 'static>(
    runtime: &Handle,
    opening: F,
) -> impl Future<Output = io::Result<T>> + Send + use<T, F> {
    let opening = runtime.spawn(opening);
    async { opening.await.unwrap_or_else(|ended| Err(io::Error::other(ended))) }
}

/// A running daemon.
pub struct Daemon {
    pub web: SocketAddr,
    /// Where devices find the embedded broker.
    pub devices: Option<SocketAddr>,
    broker: Option<Broker>,
    /// What screens follow live.
    pub feed: Feed,
    inputs: mpsc::Sender<Input>,
    reload: mpsc::Sender<ReloadAsked>,
    tasks: Vec<JoinHandle<()>>,
    /// Those that a reload ends and begins.
    exchanged: Tasks,
    main_loop: thread::JoinHandle<()>,
    watch: Watch,
    clock: Clock,
    /// Ends with everything that it serves.
    _desk: DeskRuntime,
}

impl Daemon {
    /// Starts everything: databases, ways out, main loop, then what listens, and the intakes last. The error is for the operator.
    pub async fn start(mut config: Config, clock: Clock) -> Result<Self, String> {
        let now = clock.now();
        let (path, look) = (config.path.clone(), config.look.clone());
        let (reload, reloads) = mpsc::channel(reload::WAITING);
        let (inputs, queue) = mpsc::channel(WAITING_INPUTS);
        let mut tasks = Vec::new();
        let mut notes: Vec<(&str, Text)> = Vec::new();

        let (mut journal, restored) =
            StateStore::open(&config.storage, now.wall).map_err(|problem| problem.to_string())?;
        journal.keep_audit(config.audit_kept);
        let consumers: Vec<Arc<str>> = config.influx.iter().map(|out| Arc::clone(&out.id)).collect();
        let (readings, said) =
            Readings::open(&config.storage, config.limits, &consumers, now.wall, health_of("store:readings", &inputs))
                .map_err(|problem| problem.to_string())?;
        notes.extend(said.into_iter().map(|text| ("store:readings", text)));

        let broker = config.broker.clone().map(|settings| Broker::new(settings, clock.clone(), inputs.clone()));
        let figures = Figures::default();
        let (came_through, beats) = watch::channel(0);
        let asks = config.desk.broadcast.approval.people() > 0;
        let (subscriptions, posts) = Subscriptions::new(
            &config.subscribers,
            &config.site,
            asks,
            &config.storage,
            &clock,
            &figures,
            beats.clone(),
        )?;
        let here = Here::new(config.site.area_code.as_deref(), config.places.values());
        let warnings = Warnings::open(&config.warning_sources, &config.site, here, &config.storage, &clock)?;
        let key = match &config.crew.key_file {
            Some(file) => LinkKey::load(file).map_err(|why| format!("crew links: {why}"))?,
            // A disk that cannot be written keeps nobody from being called.
            None => LinkKey::of_directory(&config.storage).or_else(|why| {
                notes.push((CREW_LINKS, keyless(&why)));
                LinkKey::of_this_run()
            })?,
        };
        let crew = Links { key, valid: config.crew.link_valid };
        let feed = Feed::new();
        let numbers = Arc::new(Numbers::open(&config.storage));
        let mut running = Running {
            site: config.site.clone(),
            desk: config.desk.clone(),
            parts: std::mem::take(&mut config.parts),
            waits: Vec::new(),
            crew: crew.clone(),
            broker: broker.clone(),
            clock: clock.clone(),
            figures: figures.clone(),
            beats,
            feed: feed.clone(),
            inputs: inputs.clone(),
            tasks: Tasks::default(),
            ways: BTreeMap::new(),
            lines: crate::delivery::mqtt_out::Lines::default(),
            numbers: Arc::clone(&numbers),
            subscriptions: subscriptions.clone(),
            warnings: warnings.clone(),
            readers: BTreeMap::new(),
            in_force: Arc::new(RwLock::new(InForce {
                configuration: config.sha256.as_str().into(),
                places: config.places.values().cloned().collect(),
                drawings: Arc::clone(&config.drawings),
                reports: running::reports(&config.notices),
                texts: running::texts(&config.caps, &config.ebms, &config.notices, (&config.site, &numbers)),
                ..InForce::default()
            })),
            certificates: watch::Sender::new(config.certificates.clone()),
            storage: config.storage.clone(),
            installation: restored.installation,
            outboxes: BTreeMap::new(),
            doors: BTreeMap::new(),
        };
        for way in running.prepare_ways(&config, |_| true)? {
            running.take_way(way)?;
        }
        let sirens = watch::Sender::default();
        let outputs = running.sound(&config, &sirens.subscribe())?;
        for settings in &config.influx {
            let reader = readings.reader(&settings.id).map_err(|problem| problem.to_string())?;
            running.readers.insert(Arc::clone(&settings.id), reader);
            running.forward(settings)?;
        }

        // What must differ from start to start, so that no two alarms ever share an id.
        let seed = uuid::Uuid::now_v7().as_u128();
        let engine = Engine::new(config.rules, config.desk, (seed ^ (seed >> 64)) as u64);
        let mappings: BTreeMap<Arc<str>, _> = config.mappings.iter().cloned().collect();
        let router = Router::new(config.mappings, config.profiles, config.places, Limits::default());
        let history = readings.history().map_err(|problem| problem.to_string())?;
        let archive = Arc::new(web::Databases { dir: config.storage.clone(), readings: Mutex::new(history) });
        let past = readings.history().map_err(|problem| problem.to_string())?;
        let refills = refill::start(past, restored.alive, clock.clone(), inputs.clone())?;
        let pulse = Pulse::new((seed >> 32) as u64, clock.clone(), inputs.clone());
        let progress = pulse.progress();
        let mut says: BTreeMap<Arc<str>, Say> =
            broker.iter().map(|broker| (Arc::from("broker"), say_at(broker))).collect();
        says.extend(config.mqtt.iter().map(|settings| (Arc::clone(&settings.id), running.say_at(&settings.id))));
        let people = watch::Sender::new(restored.people.clone());
        let mut parts = Parts {
            clock: clock.clone(),
            points: config.points,
            router,
            validator: Validator::new(config.validation),
            engine,
            journal,
            readings,
            couriers: running.couriers(),
            feed: feed.clone(),
            pulse: Some(pulse),
            figures: figures.clone(),
            orders_waiting: 0,
            losses: Losses::new(config.site.time_zone.clone()),
            deliveries: Deliveries::default(),
            clock_trust: ClockTrust::new(None),
            suspects: Suspects::open(&config.storage, now.wall),
            drill_calendar: running.drill_calendar(config.drills),
            test_calendar: running.test_calendar(config.tests),
            stock: running.stock(),
            help: running.help(config.web.residents.kept),
            hearing: Hearing::default(),
            plan_history: running.plan_history(),
            configuration: Some(config.sha256.clone().into()),
            refills: Some(refills),
            people: people.clone(),
            says,
            sirens,
        };
        let said: Vec<&str> = notes.iter().map(|(_, text)| text).chain(&restored.notes).map(|text| &*text.en).collect();
        let started = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "start": restored.epoch,
            // What was changed while anmin did not run shows here, too.
            "configuration": config.sha256,
            "rules": parts.engine.rules().rules().len(),
            "broken_rules": config.broken_rules.iter().map(|rule| &*rule.name).collect::<Vec<_>>(),
            "notes": said,
        });
        let started = Deed::of_anmin(now.wall, "system.start", started);
        notes.extend(restored.notes.iter().map(|text| ("store:state", text.clone())));
        parts.take_up(now, restored);
        parts.engine.handle_broken_rules(now, &config.broken_rules);
        let main_loop = thread::Builder::new()
            .name("anmin-main".to_owned())
            .spawn(move || {
                let _end = supervisor::EndOnPanic("main loop");
                // Timers and the queue of inputs, nothing else: it owns all domain state and touches no socket.
                let own = tokio::runtime::Builder::new_current_thread().enable_time().build();
                match own {
                    Ok(own) => own.block_on(MainLoop::new(parts).run(queue)),
                    Err(problem) => error!("the main loop cannot start: {problem}"),
                }
            })
            .map_err(|error| format!("cannot start the main loop: {error}"))?;
        // The loop runs and its queue is empty: this cannot fail but at the very end, and the others neither.
        let _ = inputs.send(Input::Did(started)).await;
        // What the last run had not taken is in force now, or told otherwise.
        for part in ["rules", "config", CREW_LINKS, "web", "web:tls", "broker"] {
            let _ = inputs.send(Input::Part(PartState { part: Arc::from(part), trouble: None })).await;
        }
        for (part, message) in notes {
            let finding = Finding { level: Level::Orange, limit: None, note: None };
            let trouble = Some(PartTrouble { finding, message });
            let _ = inputs.send(Input::Part(PartState { part: Arc::from(part), trouble })).await;
        }

        running.post(posts);
        running.listen(|_| true);
        let outputs = Outputs::new(outputs);
        let link = web::WebLink {
            inputs: inputs.clone(),
            reload: reload.clone(),
            feed: feed.clone(),
            archive,
            tuner: Arc::new(trial::Desk {
                site: config.path.clone(),
                storage: config.storage.clone(),
                clock: clock.clone(),
                trying: Mutex::default(),
                writing: Mutex::default(),
            }),
            lister: Arc::new(adopted::Desk {
                site: config.path.clone(),
                storage: config.storage.clone(),
                writing: Mutex::default(),
            }),
            subscriptions,
            warnings,
            outputs,
            metrics: {
                let figures = figures.clone();
                Arc::new(move || figures.text())
            },
            clock: clock.clone(),
            crew,
            in_force: Arc::clone(&running.in_force),
            site: web::Site {
                id: config.site.id.to_string(),
                name: config.site.name.clone(),
                exercise: config.site.exercise,
                time_zone: config.site.time_zone.clone(),
            },
        };
        let listen = config.web.listen;
        let desk = DeskRuntime::new()?;
        let (server, told) = {
            let _within = desk.handle().enter();
            web::Server::new(config.web, link, people.subscribe(), Some(&config.storage))
        };
        tasks.push(supervisor::or_end("live stream", told));
        let open = {
            let (server, desk) = (server.clone(), desk.handle());
            move || opened_in(&desk, server.clone().open())
        };
        let (web, task) = supervisor::listening("web".to_owned(), listen, inputs.clone(), open).await;
        tasks.push(task);
        if let Some(listen) = server.tls_listen() {
            let desk = desk.handle();
            let open = move || opened_in(&desk, server.clone().open_tls());
            tasks.push(supervisor::listening("web:tls".to_owned(), listen, inputs.clone(), open).await.1);
        }
        let mut devices = None;
        if let (Some(broker), Some(settings)) = (&broker, &config.broker) {
            let (broker, name) = (broker.clone(), "broker".to_owned());
            let open = move || broker.clone().listen();
            let (address, task) = supervisor::listening(name, settings.listen, inputs.clone(), open).await;
            devices = address;
            tasks.push(task);
        }
        for settings in config.gbt26875 {
            let (name, listen) = (format!("gbt26875:{}", settings.id), settings.listen);
            let (zone, clock, to) = (config.site.time_zone.clone(), clock.clone(), inputs.clone());
            let open = move || gbt26875::spawn(settings.clone(), zone.clone(), clock.clone(), to.clone());
            tasks.push(supervisor::listening(name, listen, inputs.clone(), open).await.1);
        }
        for settings in config.http {
            let (name, listen) = (format!("http:{}", settings.id), settings.listen);
            let (clock, to) = (clock.clone(), inputs.clone());
            let open = move || http::spawn(settings.clone(), clock.clone(), to.clone());
            tasks.push(supervisor::listening(name, listen, inputs.clone(), open).await.1);
        }
        running.answer(config.buses.iter().map(|bus| &bus.settings)).await;
        for bus in config.buses {
            running.poll(bus.settings, bus.units);
        }
        for settings in config.mqtt {
            let mappings = mappings.get(&settings.id).map_or(&[][..], Vec::as_slice);
            running.connect(settings, mappings);
        }
        let look_after = {
            let (storage, zone) = (config.storage.clone(), config.site.time_zone.clone());
            let named = running.certificates.subscribe();
            let (clock, figures, to) = (clock.clone(), figures.clone(), inputs.clone());
            move || {
                let caretaker = Caretaker::new(storage.clone(), zone.clone());
                caretaker::spawn(caretaker, named.clone(), clock.clone(), figures.clone(), to.clone())
            }
        };
        tasks.push(supervisor::keep("caretaker", inputs.clone(), look_after));
        let exchanged = running.tasks.clone();
        tasks.push(reload::spawn(reload::Site { path, look, running }, reloads, inputs.clone()));
        let watch = Watch::start(progress, clock.clone(), inputs.clone(), figures, came_through)?;
        let (web, later) = web.map_or((listen, " as soon as it can listen there"), |address| (address, ""));
        info!("anmin watches {}; the duty desk is at http://{web}/{later}", config.site.name.en);
        Ok(Self { web, devices, broker, feed, inputs, reload, tasks, exchanged, main_loop, watch, clock, _desk: desk })
    }

    /// Where commands go in.
    pub fn inputs(&self) -> mpsc::Sender<Input> {
        self.inputs.clone()
    }

    /// From now on SIGHUP has the site read anew.
    pub fn reload_on_hangup(&self) {
        use tokio::signal::unix::{SignalKind, signal};
        let reload = self.reload.clone();
        match signal(SignalKind::hangup()) {
            Ok(mut hangups) => drop(tokio::spawn(async move {
                while hangups.recv().await.is_some() {
                    info!("told by SIGHUP to read the site anew");
                    let from = Way::of(Through::Signal);
                    if reload
                        .send(ReloadAsked { who: "anmin".to_owned(), from, only_tell: false, reply: None })
                        .await
                        .is_err()
                    {
                        return;
                    }
                }
            })),
            Err(problem) => error!("SIGHUP cannot be heard: {problem}"),
        }
    }

    /// Intakes off, what is there judged and committed, then the rest.
    pub async fn stop(self) {
        drop(self.watch);
        for task in &self.tasks {
            task.abort();
        }
        for task in self.tasks {
            // The error says that it was aborted, which is what we asked for.
            let _ = task.await;
        }
        self.exchanged.end_all();
        if let Some(broker) = &self.broker {
            broker.stop().await;
        }
        // The queue may be full for a moment; the loop takes what came before and ends.
        let version = json!({ "version": env!("CARGO_PKG_VERSION") });
        let stopped = Deed::of_anmin(self.clock.now().wall, "system.stop", version);
        let _ = self.inputs.send(Input::Did(stopped)).await;
        let _ = self.inputs.send(Input::Stop).await;
        let main_loop = self.main_loop;
        // A panic in it has ended the process already.
        let _ = tokio::task::spawn_blocking(move || main_loop.join()).await;
        info!("stopped");
    }
}

/// The way from an output to its register.
pub(super) fn switch(output: &config::Output, writes: Writes) -> Switch {
    let (settings, unit) = (output.settings.clone(), output.unit);
    Arc::new(move |action: Action, may| {
        let value = settings.value(action);
        let what = match settings.register {
            Table::Coil => write::Write::Coil(settings.address, value != 0),
            _ => write::Write::Register(settings.address, value),
        };
        // A bit elsewhere shows whether it is on; a register what was written.
        let is_elsewhere = settings.shows.0 != settings.register;
        let shown = if is_elsewhere && settings.shows.0.is_bits() { u16::from(action == Action::On) } else { value };
        let deed = write::Deed { unit, what, shows: settings.shows, shown, settle: settings.settle };
        let writes = writes.clone();
        Box::pin(async move {
            writes.carry(deed, may).await?.map_err(|why| {
                let in_doubt = matches!(why, NotDone::Unknown(_) | NotDone::Shows(_));
                Refused::Failed(output::Failed { in_doubt, why: why.to_string() })
            })
        })
    })
}

/// How the main loop speaks to devices at the embedded broker.
fn say_at(broker: &Broker) -> Say {
    let broker = broker.clone();
    Box::new(move |topic: String, payload: Vec<u8>| {
        if let Err(problem) = broker.publish(&topic, payload.into(), QoS::AtMostOnce, false) {
            error!("cannot ask a device: {problem}");
        }
    })
}

/// Reports a database's health to the main loop without ever blocking its writer.
fn health_of(part: &'static str, inputs: &mpsc::Sender<Input>) -> Box<dyn Fn(Option<StoreError>) + Send> {
    let (inputs, runtime) = (inputs.clone(), tokio::runtime::Handle::current());
    Box::new(move |problem| {
        let trouble = problem.map(|problem| PartTrouble {
            finding: Finding { level: Level::Yellow, limit: None, note: None },
            message: problem.text(),
        });
        let inputs = inputs.clone();
        runtime.spawn(async move {
            // Fails only when the main loop has ended.
            let _ = inputs.send(Input::Part(PartState { part: Arc::from(part), trouble })).await;
        });
    })
}
