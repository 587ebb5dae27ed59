//! One connection, from its CONNACK to its end: takes all that is there, hands it on as one batch, acknowledges what is
//! safe.
//!
//! While the main loop has no room the socket is not read: TCP and the broker hold back what comes. That lasts a third of
//! the keep-alive at most; then the connection ends, and the broker delivers again what was not acknowledged.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use anmin_sensors::time::{Mono, Now};
use futures_util::FutureExt as _;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{sleep, timeout};

use super::acks::{Acks, Owed};
use super::client::{Client, Credentials, Event, Failure, Publish};
use super::pressure::{InFlight, Pace, Pressure};
use super::settings::Settings;
use super::{Closed, Keeper, Plan};
use crate::intake::{Delivery, Message};
use crate::main_loop::Input;

/// Bounds of one batch: a burst is one `Vec`, and a turn of the main loop stays short.
const BATCH: usize = 512;
const BATCH_BYTES: usize = 256 * 1024;
/// What a message costs beside its topic and payload.
const MESSAGE: usize = 160;
/// A full main loop is asked again after so long.
const ASK_AGAIN: Duration = Duration::from_millis(10);

pub struct Connection {
    client: Client,
    /// Whose packet identifiers these are.
    session: u64,
    acks: Arc<Acks>,
    batch: Vec<Message>,
    batch_bytes: usize,
    pace: Pace,
    /// Of the batch, for the queue's sake: bytes of messages without a token.
    untracked: usize,
    received: Now,
    owed: Vec<Owed>,
    /// The SUBSCRIBE under way: since when, and its identifier once it is written.
    asked: Option<(Mono, Option<u16>)>,
    /// When the broker last said anything, as of the last turn.
    alive: Mono,
    /// It has since.
    spoke: bool,
}

/// Why a connection ended.
pub enum End {
    MainLoopGone,
    /// The session is to be discarded.
    Discard,
    Failed(Failure),
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<Closed> for End {
    fn from(_: Closed) -> Self {
        Self::MainLoopGone
    }
}

impl Connection {
    /// Reads the credentials, connects, and waits for CONNACK. Says also whether the broker had our session.
    pub async fn open(
        plan: Arc<Plan>,
        max_packet_size: usize,
        in_flight: InFlight,
        now: Mono,
    ) -> Result<(Self, bool), Failure> {
        let files = Arc::clone(&plan);
        let read = tokio::task::spawn_blocking(move || Credentials::read(&files));
        let credentials = match timeout(plan.connect_within(), read).await {
            Ok(Ok(read)) => read.map_err(Failure::Local)?,
            Ok(Err(panicked)) => return Err(Failure::Local(panicked.to_string())),
            Err(_) => return Err(Failure::Local("its files cannot be read in time".to_owned())),
        };
        let Settings { host, port, tls, outgoing, .. } = &plan.settings;
        let host = match timeout(plan.connect_within(), outgoing.name_for_client(host, *port, tls.is_some())).await {
            Ok(Ok(host)) => host,
            Ok(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(Failure::NotAllowed(error.to_string()));
            }
            Ok(Err(error)) => return Err(Failure::Network(error.to_string())),
            Err(_) => return Err(Failure::NoAnswer),
        };
        let mut client = Client::new(&plan, &host, credentials, max_packet_size);
        // rumqttc has the same limit for the same thing; this one stands even if it forgets an await.
        let first = timeout(plan.connect_within() + Duration::from_secs(1), client.next()).await;
        let session_present = match first.map_err(|_| Failure::NoAnswer)?? {
            Event::Connected { session_present } => session_present,
            _ => return Err(Failure::Unreadable("no CONNACK".to_owned())),
        };
        let connection = Self {
            client,
            session: Delivery::session(&plan.settings.id, &plan.client_id),
            acks: Acks::new(in_flight),
            batch: Vec::new(),
            batch_bytes: 0,
            pace: Pace::default(),
            untracked: 0,
            received: Now::default(),
            owed: Vec::new(),
            asked: None,
            alive: now,
            spoke: false,
        };
        Ok((connection, session_present))
    }

    /// Serves until the end. What was read before it reaches the main loop all the same: an alarm does not wait for the
    /// next connection.
    pub async fn run(mut self, keeper: &mut Keeper) -> End {
        let end = loop {
            if let Err(end) = self.turn(keeper).await {
                break end;
            }
        };
        for event in self.client.rest() {
            if let Event::Publish(publish) = event {
                self.keep(keeper, publish);
            }
        }
        drop(self.client);
        if self.batch.is_empty() {
            return end;
        }
        // While the main loop has no room there is no sense in a connection either.
        let Ok(permit) = keeper.inputs.reserve().await else { return End::MainLoopGone };
        keeper.pressure.handle_batch(self.untracked);
        permit.send(Input::Messages { source: Arc::clone(&keeper.plan.settings.id), messages: self.batch });
        end
    }

    async fn turn(&mut self, keeper: &mut Keeper) -> Result<(), End> {
        let now = keeper.clock.now();
        if std::mem::take(&mut self.spoke) {
            (self.alive, keeper.heard) = (now.mono, Some(now.wall));
        }
        let due = keeper.tick(now).min(self.check(keeper, now.mono)?);
        while self.batch.len() < BATCH && self.batch_bytes < BATCH_BYTES {
            match self.client.next().now_or_never() {
                Some(event) => self.handle(keeper, event?)?,
                None => break,
            }
        }
        let flood = !self.batch.is_empty() && self.pace.handle_taken(now.mono, self.batch.len());
        self.hand_over(keeper).await?;
        self.acknowledge(keeper).await?;
        self.hold_back(keeper).await?;
        if self.acks.is_forsaken() {
            return Err(Failure::Unsafe.into());
        }
        if flood {
            sleep(Pace::REST).await;
            return Ok(());
        }
        tokio::select! {
            event = self.client.next() => self.handle(keeper, event?),
            () = self.acks.changed() => Ok(()),
            () = keeper.discard.ordered() => Err(End::Discard),
            said = keeper.outbox.taken() => match timeout(keeper.plan.connect_within(), self.client.publish(said)).await {
                Ok(done) => Ok(done?),
                Err(_) => Err(Failure::NoAnswer.into()),
            },
            () = keeper.inputs.closed() => Err(End::MainLoopGone),
            () = sleep(due.since(now.mono)) => Ok(()),
        }
    }

    /// Subscribes to what is open, and looks whether the peer has been silent for too long. Gives when to look again.
    fn check(&mut self, keeper: &mut Keeper, now: Mono) -> Result<Mono, End> {
        let filters = keeper.subscriptions.poll_request(now);
        if !filters.is_empty() {
            self.client.subscribe(filters).map_err(Failure::Local)?;
            self.asked = Some((now, None));
        }
        // rumqttc pings once a keep-alive and gives up when it finds the last ping unanswered. It may also hang.
        let mut due = self.alive.plus(keeper.plan.settings.keep_alive * 2 + Duration::from_secs(5));
        if let Some((since, _)) = self.asked {
            due = due.min(since.plus(keeper.plan.connect_within()));
        }
        if due <= now { Err(Failure::NoAnswer.into()) } else { Ok(due) }
    }

    fn handle(&mut self, keeper: &mut Keeper, event: Event) -> Result<(), End> {
        match event {
            Event::Publish(publish) => self.keep(keeper, publish),
            Event::Subscribing(id) => {
                if let Some((_, written)) = &mut self.asked {
                    *written = Some(id);
                }
                return Ok(());
            }
            Event::Subscribed(id, answers) => match self.asked {
                Some((_, Some(asked))) if asked == id => {
                    self.asked = None;
                    keeper.handle_answers(&answers)?;
                }
                // rumqttc's numbers come round again: this one is not ours.
                _ => {}
            },
            Event::Connected { .. } | Event::Heard => {}
            Event::Sent => return Ok(()),
        }
        self.spoke = true;
        Ok(())
    }

    fn keep(&mut self, keeper: &Keeper, publish: Publish) {
        if self.batch.is_empty() {
            self.received = keeper.clock.now();
        }
        let Publish { topic, payload, retained, owed, again } = publish;
        let bytes = topic.len() + payload.len() + MESSAGE;
        self.batch_bytes += bytes;
        self.untracked += if owed.is_none() { bytes } else { 0 };
        let delivery = owed.map(|owed| Delivery::of(self.session, owed.packet(), again));
        let ack = owed.map(|owed| self.acks.token(owed, bytes));
        self.batch.push(Message { topic, payload, retained, cut: false, received: self.received, delivery, ack });
    }

    /// Gives the batch to the main loop.
    async fn hand_over(&mut self, keeper: &mut Keeper) -> Result<(), End> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let permit = match keeper.inputs.try_reserve() {
            Ok(permit) => permit,
            Err(TrySendError::Closed(())) => return Err(End::MainLoopGone),
            Err(TrySendError::Full(())) => match timeout(keeper.plan.patience(), keeper.inputs.reserve()).await {
                Ok(Ok(permit)) => permit,
                Ok(Err(_)) => return Err(End::MainLoopGone),
                Err(_) => return Err(Failure::Overrun.into()),
            },
        };
        keeper.pressure.handle_batch(std::mem::take(&mut self.untracked));
        self.batch_bytes = 0;
        let messages = std::mem::take(&mut self.batch);
        permit.send(Input::Messages { source: Arc::clone(&keeper.plan.settings.id), messages });
        Ok(())
    }

    /// Sends the acknowledgements that are ready.
    async fn acknowledge(&mut self, keeper: &Keeper) -> Result<(), End> {
        self.acks.take_ready(&mut self.owed);
        if self.owed.is_empty() {
            return Ok(());
        }
        match timeout(keeper.plan.connect_within(), self.client.acknowledge(&mut self.owed)).await {
            Ok(done) => Ok(done?),
            // The peer takes nothing any more.
            Err(_) => Err(Failure::NoAnswer.into()),
        }
    }

    /// Reads nothing while the main loop has too much of what was read.
    async fn hold_back(&mut self, keeper: &mut Keeper) -> Result<(), End> {
        let mut since = None;
        while keeper.pressure() > Pressure::MOST {
            let now = keeper.clock.now().mono;
            if now.since(*since.get_or_insert(now)) > keeper.plan.patience() {
                return Err(Failure::Overrun.into());
            }
            sleep(ASK_AGAIN).await;
            self.acknowledge(keeper).await?;
        }
        Ok(())
    }
}
