//! MQTT from outside brokers, 3.1.1 and 5, by rumqttc.
//!
//! What is promised:
//!
//! - A message is acknowledged when the main loop says that it is safe, on the connection that brought it and on no
//!   other. What nobody made safe comes again: the broker keeps our session, and a token that is dropped ends the connection.
//! - No connection inherits anything from the one before it: each has a client and a ledger of tokens of its own.
//! - No packet stops what stands behind it for ever. One above the limit raises the limit. Where a session gets nowhere
//!   all the same, a second connection without a session takes what is said from then on.
//! - Every wait has an end: for the network, for CONNACK, for SUBACK, for a ping, for room in the main loop.
//! - The part `mqtt:<id>` says what is wrong: the broker is away or refuses us, a subscription is refused, a session gets
//!   nowhere, or is fought over by two clients with one id.
//! - A person may have a session discarded that gets nowhere: what the broker kept in it is lost, and said to be.
//! - Before the first message of a connection the main loop hears whether the broker had our session.
//!
//! It does not know what a topic means. Why it is built so is told in `docs/decisions/0007-mqtt-intake.md`.

mod acks;
mod client;
mod connection;
mod health;
mod policy;
mod pressure;
mod settings;
mod subscriptions;

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anmin_sensors::time::{Mono, Now, Wall};
use futures_util::FutureExt as _;
use rumqttc::QoS;
use tokio::sync::Notify;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use self::client::Failure;
use self::connection::{Connection, End};
use self::health::Health;
use self::policy::{Backoff, PATTERN, PacketLimit, Snag, Standstill, Takeover};
use self::pressure::Pressure;
use self::settings::PACKET_LIMIT;
pub use self::settings::{Protocol, Settings};
use self::subscriptions::{Answer, Subscriptions};
use crate::chance::Chance;
use crate::clock::Clock;
use crate::main_loop::{Input, PartState, SessionStart};
use crate::telemetry::Repeats;

/// Keeps a connection to one outside broker for as long as `inputs` has a receiver; abort the task to end it sooner.
///
/// Messages go out in batches with the broker's id as their source. `inputs` is bounded; while it is full the broker is
/// not read.
pub fn spawn(
    settings: Settings,
    subscriptions: Vec<(String, QoS)>,
    clock: Clock,
    inputs: mpsc::Sender<Input>,
    discard: Discard,
    outbox: Outbox,
) -> JoinHandle<()> {
    let client_id = settings.client_id.clone().unwrap_or_else(|| format!("anmin-{}-in", settings.id));
    let plan = Plan { settings, client_id, role: Role::Main };
    tokio::spawn(Keeper { discard, outbox, ..Keeper::new(plan, subscriptions, clock, inputs) }.run())
}

/// Tells an intake to have its broker forget our session, with everything that it kept for us.
#[derive(Clone, Debug, Default)]
pub struct Discard(Arc<Notify>);

impl Discard {
    /// As soon as the broker answers; returns at once.
    pub fn order(&self) {
        self.0.notify_one();
    }

    async fn ordered(&self) {
        self.0.notified().await;
    }
}

/// What is to be published at the broker, with QoS 0 and not retained: questions that are asked again when nothing comes of
/// them. Bound: [`Outbox::MOST`] while there is no connection; the oldest goes first.
#[derive(Clone, Debug, Default)]
pub struct Outbox(Arc<(Mutex<VecDeque<Said>>, Notify)>);

/// A topic and a payload.
type Said = (String, Vec<u8>);

impl Outbox {
    const MOST: usize = 1_024;

    /// Returns at once.
    pub fn put(&self, topic: String, payload: Vec<u8>) {
        let (waiting, news) = &*self.0;
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() == Self::MOST {
            waiting.pop_front();
        }
        waiting.push_back((topic, payload));
        news.notify_one();
    }

    /// Everything that waits, once there is something.
    async fn taken(&self) -> VecDeque<Said> {
        loop {
            let taken = std::mem::take(&mut *self.0.0.lock().unwrap_or_else(PoisonError::into_inner));
            if !taken.is_empty() {
                return taken;
            }
            self.0.1.notified().await;
        }
    }
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// The one with the session that the broker keeps.
    Main,
    /// Takes what is said from now on with QoS 0, while the session of the other gets nowhere.
    Stopgap,
    /// Has the broker forget the session, and goes.
    Discard,
}

/// What holds for every connection.
struct Plan {
    settings: Settings,
    client_id: String,
    role: Role,
}

impl Plan {
    fn keeps_session(&self) -> bool {
        self.role == Role::Main && !self.settings.clean_session
    }

    /// From the first packet to CONNACK, and from SUBSCRIBE to SUBACK.
    fn connect_within(&self) -> Duration {
        self.settings.keep_alive.clamp(Duration::from_secs(5), Duration::from_secs(10))
    }

    /// For so long the socket may go unread: the broker waits for one and a half keep-alives, and a ping may just be due.
    fn patience(&self) -> Duration {
        self.settings.keep_alive / 3
    }

    fn peer(&self) -> String {
        let Settings { host, port, tls, .. } = &self.settings;
        format!("{}://{host}:{port}", if tls.is_some() { "mqtts" } else { "mqtt" })
    }
}

/// The main loop is gone.
struct Closed;

/// What outlives a connection.
struct Keeper {
    plan: Arc<Plan>,
    clock: Clock,
    inputs: mpsc::Sender<Input>,
    subscriptions: Subscriptions,
    pressure: Pressure,
    health: Health,
    part: Arc<str>,
    backoff: Backoff,
    limit: PacketLimit,
    takeover: Takeover,
    standstill: Standstill,
    chance: Chance,
    repeats: Repeats,
    /// Since when the connection stands.
    up: Option<Mono>,
    /// When the broker last said anything.
    heard: Option<Wall>,
    /// How the connection began, until the main loop has taken it.
    begun: Option<SessionStart>,
    filters: Vec<(String, QoS)>,
    stopgap: Option<Stopgap>,
    /// Subscribed at least once.
    live: Arc<AtomicBool>,
    /// The stopgap was live before this connection began, so that nothing was said between the two.
    covered: bool,
    discard: Discard,
    outbox: Outbox,
    /// The session is to be discarded before the next connection.
    discarding: bool,
}

/// The second connection, for as long as this lives.
struct Stopgap {
    task: JoinHandle<()>,
    /// Once it has been subscribed.
    live: Arc<AtomicBool>,
}

impl Drop for Stopgap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Keeper {
    fn new(plan: Plan, filters: Vec<(String, QoS)>, clock: Clock, inputs: mpsc::Sender<Input>) -> Self {
        let now = clock.now();
        let seed =
            plan.client_id.bytes().fold(now.wall.micros() as u64, |seed, byte| seed.rotate_left(7) ^ u64::from(byte));
        let id = Arc::clone(&plan.settings.id);
        Self {
            subscriptions: Subscriptions::new(filters.iter().cloned()),
            pressure: Pressure::default(),
            part: format!("mqtt:{id}").into(),
            health: Health::new(id, plan.peer(), plan.client_id.clone(), now.mono),
            backoff: Backoff::new(plan.settings.max_reconnect_interval),
            limit: PacketLimit::new(plan.settings.max_packet_size, PACKET_LIMIT),
            takeover: Takeover::default(),
            standstill: Standstill::default(),
            chance: Chance(seed),
            repeats: Repeats::default(),
            up: None,
            heard: None,
            begun: None,
            filters,
            stopgap: None,
            live: Arc::default(),
            covered: false,
            discard: Discard::default(),
            outbox: Outbox::default(),
            discarding: false,
            plan: Arc::new(plan),
            clock,
            inputs,
        }
    }

    /// Boxed, since the stopgap is a keeper inside a keeper.
    fn run(mut self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            loop {
                let next = if self.discarding { self.discard_session().await } else { self.connect_once().await };
                let Ok(wait) = next else { return };
                let discard = self.discard.clone();
                let ordered = self.during(timeout(wait, discard.ordered())).await;
                let Ok(ordered) = ordered else { return };
                self.discarding |= ordered.is_ok();
            }
        })
    }

    /// One connection from its beginning to its end. Gives the time to wait before the next.
    async fn connect_once(&mut self) -> Result<Duration, Closed> {
        let now = self.clock.now().mono;
        self.covered = self.stopgap.as_ref().is_some_and(|stopgap| stopgap.live.load(Ordering::Relaxed));
        let open = Connection::open(Arc::clone(&self.plan), self.limit.at(now), self.pressure.in_flight.clone(), now);
        match self.during(open).await? {
            Err(failure) => Ok(self.handle_unreachable(&failure)),
            Ok((connection, session_present)) => {
                self.handle_up(session_present);
                if let Err(failure) = self.say_how_it_began().await? {
                    return self.handle_broken(failure).await;
                }
                // Whatever a broker sends that makes the client panic costs this connection, not the intake.
                let end = AssertUnwindSafe(connection.run(self)).catch_unwind().await;
                match end.unwrap_or(End::Failed(Failure::Panicked)) {
                    End::MainLoopGone => Err(Closed),
                    End::Discard => {
                        self.up = None;
                        self.discarding = true;
                        Ok(Duration::ZERO)
                    }
                    End::Failed(failure) => self.handle_broken(failure).await,
                }
            }
        }
    }

    /// A connection without a session takes the place of the one that the broker kept, which forgets it. The next finds none,
    /// and says what that may have cost.
    async fn discard_session(&mut self) -> Result<Duration, Closed> {
        let now = self.clock.now().mono;
        let Plan { settings, client_id, .. } = &*self.plan;
        let plan = Plan { settings: settings.clone(), client_id: client_id.clone(), role: Role::Discard };
        let open = Connection::open(Arc::new(plan), self.limit.at(now), self.pressure.in_flight.clone(), now);
        match self.during(open).await? {
            Err(failure) => Ok(self.handle_unreachable(&failure)),
            Ok(_) => {
                self.discarding = false;
                self.standstill.forget();
                tracing::warn!(
                    "the session of {} at MQTT broker {} is discarded",
                    self.plan.client_id,
                    self.plan.peer()
                );
                Ok(Duration::ZERO)
            }
        }
    }

    /// Does `work` and meanwhile says what is to be said.
    async fn during<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Closed> {
        let mut work = pin!(work);
        loop {
            let now = self.clock.now();
            let due = self.tick(now);
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                () = self.inputs.closed() => return Err(Closed),
                () = sleep(due.since(now.mono)) => {}
            }
        }
    }

    /// Says what is to be said, if there is room. Gives when to look again.
    fn tick(&mut self, now: Now) -> Mono {
        let mut due = now.mono.plus(Duration::from_secs(3_600));
        if let Some(since) = self.up {
            if now.mono.since(since) >= PATTERN {
                self.takeover.forget();
                self.standstill.forget();
            } else {
                due = due.min(since.plus(PATTERN));
            }
        }
        self.health.contested = self.takeover.is_going_on();
        self.health.snag = self.standstill.snag().cloned();
        self.mind_the_stopgap();
        due = [self.health.poll_timeout(), self.subscriptions.poll_timeout()]
            .into_iter()
            .flatten()
            .filter(|at| *at > now.mono)
            .fold(due, Mono::min);
        // The stopgap's broker is the other's, who says how it is.
        if self.plan.role == Role::Main
            && let Some(trouble) = self.health.poll_report(now.mono)
        {
            match self.inputs.try_send(Input::Part(PartState { part: Arc::clone(&self.part), trouble })) {
                Ok(()) => self.health.handle_told(now.mono),
                Err(TrySendError::Full(_)) => due = due.min(now.mono.plus(Duration::from_millis(250))),
                // Whoever waits for the main loop sees it.
                Err(TrySendError::Closed(_)) => {}
            }
        }
        due
    }

    fn mind_the_stopgap(&mut self) {
        let needed = self.plan.role == Role::Main && self.standstill.snag().is_some();
        if needed && self.stopgap.is_none() {
            let Plan { settings, client_id, .. } = &*self.plan;
            let plan = Plan { settings: settings.clone(), client_id: format!("{client_id}-live"), role: Role::Stopgap };
            let filters = self.filters.iter().map(|(path, _)| (path.clone(), QoS::AtMostOnce)).collect();
            let keeper = Self::new(plan, filters, self.clock.clone(), self.inputs.clone());
            let live = Arc::clone(&keeper.live);
            self.stopgap = Some(Stopgap { task: tokio::spawn(keeper.run()), live });
        } else if !needed {
            self.stopgap = None;
        }
    }

    fn pressure(&mut self) -> usize {
        self.pressure.bytes(self.inputs.max_capacity() - self.inputs.capacity())
    }

    fn handle_up(&mut self, session_present: bool) {
        let now = self.clock.now();
        let (peer, client_id) = (self.plan.peer(), &self.plan.client_id);
        self.up = Some(now.mono);
        self.health.handle_up();
        self.subscriptions.handle_connected(session_present);
        if self.plan.role == Role::Main {
            // What an earlier connection found, and nobody could be told, still holds.
            let unsaid = self.begun.take();
            self.begun = Some(SessionStart {
                source: Arc::clone(&self.plan.settings.id),
                client_id: client_id.as_str().into(),
                kept: self.plan.keeps_session(),
                present: session_present && unsaid.as_ref().is_none_or(|start| start.present),
                heard: unsaid.map_or(self.heard, |start| start.heard),
            });
        }
        self.heard = Some(now.wall);
        if let Some(more) = self.repeats.say("up", now.mono) {
            let session = if session_present { "takes up its session" } else { "starts a session" };
            tracing::info!(more, "{client_id} is connected to MQTT broker {peer} and {session}");
        }
    }

    /// Before any message of the connection: the main loop must know whether something may be missing before it.
    async fn say_how_it_began(&mut self) -> Result<Result<(), Failure>, Closed> {
        let Some(start) = self.begun.clone() else { return Ok(Ok(())) };
        let inputs = self.inputs.clone();
        match self.during(timeout(self.plan.patience(), inputs.send(Input::Session(start)))).await? {
            Ok(Ok(())) => {
                self.begun = None;
                Ok(Ok(()))
            }
            Ok(Err(_)) => Err(Closed),
            Err(_) => Ok(Err(Failure::Overrun)),
        }
    }

    /// The broker's answers to a SUBSCRIBE.
    fn handle_answers(&mut self, answers: &[Answer]) -> Result<(), Failure> {
        let now = self.clock.now().mono;
        let lowered = self
            .subscriptions
            .handle_answers(now, answers)
            .map_err(|_| Failure::Unreadable(format!("a SUBACK with {} answers", answers.len())))?;
        if let Some(first) = lowered.first()
            && let Some(more) = self.repeats.say("lowered", now)
        {
            tracing::warn!(
                more,
                "MQTT broker {} grants QoS 0 only for {first} and {} others: what is sent while anmin is away is lost",
                self.plan.peer(),
                lowered.len() - 1
            );
        }
        self.live.fetch_or(self.subscriptions.granted().is_some(), Ordering::Relaxed);
        if let Some(granted) = self.subscriptions.granted()
            && let Some(more) = self.repeats.say("subscribed", now)
        {
            let (client_id, peer) = (&self.plan.client_id, self.plan.peer());
            tracing::info!(more, "{client_id} is subscribed to {granted} topic filters at MQTT broker {peer}");
        }
        self.health.refused = self.subscriptions.refused().map(|(path, why, more)| (path.to_owned(), why, more));
        Ok(())
    }

    /// No connection came about.
    fn handle_unreachable(&mut self, failure: &Failure) -> Duration {
        let now = self.clock.now().mono;
        let words = failure.words();
        self.takeover.forget();
        let wait = self.backoff.after(Duration::ZERO, &mut self.chance);
        if let Some(more) = self.repeats.say("unreachable", now) {
            tracing::warn!(
                more,
                "cannot connect to MQTT broker {}: {}; next attempt in {wait:.1?}",
                self.plan.peer(),
                words.en
            );
        }
        self.health.handle_unreachable(now, words);
        wait
    }

    /// A connection ended.
    async fn handle_broken(&mut self, failure: Failure) -> Result<Duration, Closed> {
        let now = self.clock.now().mono;
        let stood = self.up.take().map_or(Duration::ZERO, |since| now.since(since));
        let words = failure.words();
        let mut at_once = false;
        match &failure {
            Failure::Closed(_) => self.takeover.handle_closed(now, stood, false),
            Failure::TakenOver => self.takeover.handle_closed(now, stood, true),
            Failure::TooLarge(size) => {
                at_once = self.limit.handle_too_large(*size, now).is_some();
                if !at_once {
                    self.standstill.handle_snag(now, Snag::Poison(words.en.clone()));
                }
            }
            Failure::Unreadable(_) | Failure::Panicked => {
                self.standstill.handle_snag(now, Snag::Poison(words.en.clone()));
            }
            Failure::Unsafe => self.standstill.handle_snag(now, Snag::Unsafe),
            _ => {}
        }
        let wait = match at_once {
            true => Duration::ZERO,
            false => {
                let wait = self.backoff.after(stood, &mut self.chance);
                let wait = self.takeover.wait(wait, &mut self.chance);
                // What was said while neither was there waits in the session: one more look, soon.
                if self.covered { self.standstill.wait(wait, &mut self.chance) } else { wait }
            }
        };
        self.health.handle_broken(now, words.clone());
        if let Some(more) = self.repeats.say("broken", now) {
            tracing::warn!(
                more,
                "the connection to MQTT broker {} ended after {stood:.1?}: {}; next attempt in {wait:.1?}",
                self.plan.peer(),
                words.en
            );
        }
        if failure == Failure::Overrun {
            self.wait_for_room().await?;
        }
        Ok(wait)
    }

    /// Until the main loop is done with half of what it has.
    async fn wait_for_room(&mut self) -> Result<(), Closed> {
        while self.pressure() > Pressure::MOST / 2 || self.inputs.capacity() == 0 {
            self.during(sleep(Duration::from_millis(50))).await?;
        }
        Ok(())
    }
}
