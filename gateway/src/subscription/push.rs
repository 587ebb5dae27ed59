//! The form of a subscription that goes out by itself: documents of several events to the subscriber's webhook, signed, or to a
//! topic of its own at a broker; in order.
//!
//! One post at a time, each behind the one before. What the receiver takes moves the cursor, which is written down; what
//! fails is posted again until it is taken, after a random wait of up to 0.5, 1, 2 … 30 s or when the receiver says. A post
//! that is refused is cut in halves until the event is found that the receiver will not have; after [`REFUSALS`] refusals
//! that one is left out, counted and told, so that it cannot hold up those behind it. It stays in the journal, and the
//! subscriber finds it by the page. What has been failing for a minute is the alarm `subscriber:<id>`.

use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anmin_rules::rule::{Finding, Level, Text};
use anmin_sensors::document::Reader;
use anmin_sensors::time::Mono;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::{MOST_EVENTS, Position, Since, Stretch, Subscriber, Subscriptions, Test};
use crate::chance::Chance;
use crate::clock::Clock;
use crate::delivery::mqtt_out::Lines;
use crate::delivery::webhook::{Receiver, Signer};
use crate::delivery::{DeliveryError, Receipt, excerpt, heartbeat};
use crate::main_loop::{Input, PartState, PartTrouble};
use crate::outgoing::Outgoing;
use crate::store::{StateReader, Told};

/// Some 200 KB.
const MOST_EVENTS_BY_MQTT: usize = 100;
/// Refusals of one event after which it is left out.
const REFUSALS: u32 = 3;
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
const BACKOFF_LONGEST: Duration = Duration::from_secs(30);
const LONGEST_ASKED_WAIT: Duration = Duration::from_secs(600);
/// Failing for so long is a system alarm.
const TROUBLE_AFTER: Duration = Duration::from_secs(60);
/// The journal is looked at so often although nothing was said.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Rows that were looked through and held nothing are written down when they are so many.
const WORTH_NOTING: i64 = 1_000;

/// `url` or `mqtt_out`, and what goes with it.
#[derive(Clone, Debug)]
pub struct Settings {
    to: To,
    heartbeat: bool,
}

#[derive(Clone, Debug)]
enum To {
    Webhook(Receiver),
    /// By the connection of this `[[mqtt_out]]`.
    Mqtt(String),
}

impl Settings {
    /// `None` where there is neither `url` nor `mqtt_out`, or a fault.
    pub fn read(r: &Reader<'_>, base: &Path) -> Option<Self> {
        let line: Option<String> = r.optional("mqtt_out");
        let heartbeat: Option<bool> = r.optional("heartbeat");
        let settings = |to| Self { to, heartbeat: heartbeat.unwrap_or(true) };
        if r.has("url") {
            if line.is_some() {
                r.fault("mqtt_out", "a [[subscriber]] has `url` or `mqtt_out`, not both", None);
            }
            return Some(settings(To::Webhook(Receiver::read(r, base)?)));
        }
        let alone = |key: &str| r.fault(key, format!("`{key}` goes with `url`, and there is none"), None);
        for key in ["secret_file", "tls_ca", "tls_cert", "tls_key"] {
            if r.optional::<String>(key).is_some() {
                alone(key);
            }
        }
        if r.optional::<bool>("allow_http").is_some() {
            alone("allow_http");
        }
        if line.is_none() && heartbeat.is_some() {
            r.fault("heartbeat", "`heartbeat` goes with `url` or `mqtt_out`, and there is none", None);
        }
        line.map(|line| settings(To::Mqtt(line)))
    }

    pub(super) fn heed(&mut self, outgoing: &Outgoing, r: &Reader<'_>) {
        if let To::Webhook(receiver) = &mut self.to {
            receiver.heed(outgoing, r);
        }
    }

    pub(super) fn way(&self, clock: &Clock) -> Result<Posted, String> {
        let way = match &self.to {
            To::Webhook(receiver) => Way::Webhook(Box::new(Signer::new(receiver, clock)?)),
            To::Mqtt(line) => Way::Mqtt(line.clone()),
        };
        Ok(Posted { way, heartbeat: self.heartbeat })
    }
}

/// Where it goes to, and whether heartbeats do, too.
pub(super) struct Posted {
    way: Way,
    heartbeat: bool,
}

enum Way {
    Webhook(Box<Signer>),
    Mqtt(String),
}

impl Posted {
    /// Events in one document at most: a broker takes less at once than a web server.
    const fn most(&self) -> usize {
        match self.way {
            Way::Webhook(_) => MOST_EVENTS,
            Way::Mqtt(_) => MOST_EVENTS_BY_MQTT,
        }
    }
}

/// When to post how much: knows no clock, socket or journal.
#[derive(Debug)]
struct Pacing {
    chance: Chance,
    /// Events in any post at most.
    limit: usize,
    /// Events in the next post at most.
    most: usize,
    failures: u32,
    refusals: u32,
    not_before: Mono,
    failing_since: Option<Mono>,
}

/// What a result means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Taken: go on behind it.
    Taken,
    /// The same again, or less of it, when [`Pacing::not_before`] has come.
    Again,
    /// The receiver will not have this one event: go on behind it.
    LeaveOut,
}

impl Pacing {
    fn new(seed: u64, limit: usize) -> Self {
        let start = Mono::default();
        Self {
            chance: Chance(seed),
            limit,
            most: limit,
            failures: 0,
            refusals: 0,
            not_before: start,
            failing_since: None,
        }
    }

    /// How the post of so many events ended.
    fn handle_result(&mut self, now: Mono, events: usize, result: &Result<Receipt, DeliveryError>) -> Next {
        let wait = match result {
            Ok(_) => {
                (self.failures, self.refusals, self.failing_since) = (0, 0, None);
                self.most = (self.most * 2).min(self.limit);
                return Next::Taken;
            }
            Err(DeliveryError::Never(_)) if events > 1 => {
                self.most = events / 2;
                self.failing_since.get_or_insert(now);
                return Next::Again;
            }
            Err(DeliveryError::Never(_)) => {
                self.refusals += 1;
                if self.refusals >= REFUSALS {
                    (self.refusals, self.failing_since) = (0, None);
                    return Next::LeaveOut;
                }
                self.backoff(self.refusals)
            }
            Err(DeliveryError::Retry(_)) => {
                self.failures = self.failures.saturating_add(1);
                self.backoff(self.failures)
            }
            Err(DeliveryError::RetryAfter { wait, .. }) => {
                self.failures = self.failures.saturating_add(1);
                (*wait).min(LONGEST_ASKED_WAIT)
            }
        };
        self.failing_since.get_or_insert(now);
        self.not_before = now.plus(wait);
        Next::Again
    }

    fn backoff(&mut self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        self.chance.up_to(BACKOFF_FIRST.saturating_mul(1 << doublings).min(BACKOFF_LONGEST))
    }

    fn is_in_trouble(&self, now: Mono) -> bool {
        self.failing_since.is_some_and(|since| now.since(since) >= TROUBLE_AFTER)
    }
}

/// Who posts to one subscriber.
pub struct Outbox {
    subscriber: Arc<Subscriber>,
    posted: Posted,
    tests: mpsc::Receiver<Test>,
}

impl Outbox {
    pub(super) fn new(subscriber: Arc<Subscriber>, posted: Posted, tests: mpsc::Receiver<Test>) -> Self {
        Self { subscriber, posted, tests }
    }

    pub fn id(&self) -> Arc<str> {
        Arc::clone(self.subscriber.id())
    }

    /// Posts what comes, until the main loop has ended.
    pub async fn run(self, all: Subscriptions, lines: Lines, inputs: mpsc::Sender<Input>) {
        let seed = self
            .id()
            .bytes()
            .fold(all.0.clock.now().wall.micros() as u64, |seed, byte| seed.rotate_left(7) ^ u64::from(byte));
        let Self { subscriber, posted, tests } = self;
        let part = format!("subscriber:{}", subscriber.id()).into();
        let pacing = Pacing::new(seed, posted.most());
        let post = Post {
            all,
            subscriber,
            posted,
            lines,
            tests,
            inputs,
            part,
            pacing,
            at: None,
            last: None,
            noted: 0,
            sequence: 0,
            told: None,
            unsure: true,
            more: false,
        };
        post.run().await;
    }
}

struct Post {
    all: Subscriptions,
    subscriber: Arc<Subscriber>,
    posted: Posted,
    lines: Lines,
    tests: mpsc::Receiver<Test>,
    inputs: mpsc::Sender<Input>,
    part: Arc<str>,
    pacing: Pacing,
    /// Everything up to here is dealt with; `None` until the journal has said.
    at: Option<Position>,
    /// The last event that was taken, or where it began.
    last: Option<Position>,
    /// What of it is written down.
    noted: i64,
    sequence: u64,
    /// What the duty desk was told.
    told: Option<Trouble>,
    /// The last run may have told it something that is over.
    unsure: bool,
    /// More may be there already.
    more: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Failing,
    LeftOut,
}

impl Post {
    async fn run(mut self) {
        let mut end = self.all.0.end.subscribe();
        let mut beats = self.all.0.beats.clone();
        let mut waiting: Option<Stretch> = None;
        loop {
            if waiting.is_none() {
                waiting = self.read().await;
            }
            let now = self.all.0.clock.now().mono;
            if let Some(stretch) = waiting.take_if(|_| now >= self.pacing.not_before) {
                waiting = self.post(stretch).await;
                self.tell(None).await;
                if self.inputs.is_closed() {
                    return;
                }
                // Tests and heartbeats have their turn between two posts.
            }
            let wait = match &waiting {
                None if self.more => Duration::ZERO,
                Some(_) => self.pacing.not_before.since(self.all.0.clock.now().mono).min(LOOK_EVERY),
                None => LOOK_EVERY,
            };
            tokio::select! {
                biased;
                Some(test) = self.tests.recv() => self.try_way(test).await,
                changed = beats.changed() => match changed {
                    Err(_) => return,
                    Ok(()) => {
                        let due = heartbeat::is_due(*beats.borrow_and_update());
                        if due && self.posted.heartbeat {
                            self.beat().await;
                        }
                    }
                },
                () = sleep(wait) => {}
                _ = end.changed(), if waiting.is_none() => {}
            }
            self.tell(None).await;
        }
    }

    /// What is to be posted next, if there is any.
    async fn read(&mut self) -> Option<Stretch> {
        if self.at.is_none() {
            self.begin().await?;
        }
        let (all, subscriber, most) = (self.all.clone(), Arc::clone(&self.subscriber), self.pacing.most);
        let since = Since::Behind(self.at?);
        // An error: the journal is away for a moment, which the main loop says.
        let stretch = spawn_blocking(move || all.read(&subscriber, since, most)).await.ok()?.ok()?;
        self.more = stretch.more || stretch.lost || !stretch.events.is_empty();
        if stretch.lost {
            // Another file: how far the subscriber was told stands there, too.
            self.at = None;
            return None;
        }
        if stretch.events.is_empty() {
            self.reached(stretch.upto, false).await;
            return None;
        }
        Some(stretch)
    }

    /// Where the last run was, and with a new subscriber the end of the journal.
    async fn begin(&mut self) -> Option<()> {
        let (dir, id) = (self.all.0.dir.clone(), Arc::clone(self.subscriber.id()));
        let found = spawn_blocking(move || {
            let journal = StateReader::open(&dir)?;
            let known = journal.cursors()?.get(&id).copied();
            let n = known.map_or_else(|| journal.end(), Ok)?;
            Ok::<_, crate::store::StoreError>((Position { lineage: journal.lineage()?, n }, known.is_some()))
        });
        let (at, known) = found.await.ok()?.ok()?;
        self.last = Some(at);
        self.noted = at.n;
        self.reached(at, !known).await;
        Some(())
    }

    /// Everything up to here is dealt with. It is written down at once, or when it is worth it.
    async fn reached(&mut self, at: Position, note: bool) {
        self.at = Some(at);
        self.subscriber.standing.lock().unwrap_or_else(PoisonError::into_inner).told = at.n;
        if note || at.n >= self.noted + WORTH_NOTING {
            self.noted = at.n;
            let told = Told { subscriber: Arc::clone(self.subscriber.id()), lineage: at.lineage, n: at.n };
            // Fails only when the main loop has ended.
            let _ = self.inputs.send(Input::Told(told)).await;
        }
    }

    /// Posts once; gives what is to be posted again.
    async fn post(&mut self, stretch: Stretch) -> Option<Stretch> {
        let lineage = stretch.upto.lineage;
        let (first, last) = (stretch.events.first()?.n, stretch.events.last()?.n);
        let id = format!("{}/{}/{lineage:016x}-{first}-{last}", self.all.0.site.id, self.subscriber.id());
        let body = Bytes::from(self.all.document(&self.subscriber, &stretch));
        let result = self.send(&id, body).await;
        let now = self.all.0.clock.now();
        let why = result.as_ref().err().map(|error| excerpt(&error.to_string()));
        {
            let mut standing = self.subscriber.standing.lock().unwrap_or_else(PoisonError::into_inner);
            standing.failing.clone_from(&why);
            if why.is_none() {
                standing.taken_at = Some(now.wall);
            }
        }
        match self.pacing.handle_result(now.mono, stretch.events.len(), &result) {
            Next::Taken => {
                self.last = Some(Position { lineage, n: last });
                self.reached(stretch.upto, true).await;
                if self.told.is_some() || self.unsure {
                    self.say(None).await;
                }
                None
            }
            // Less of it is read anew.
            Next::Again => (stretch.events.len() <= self.pacing.most).then_some(stretch),
            Next::LeaveOut => {
                let event = Position { lineage, n: last };
                tracing::error!(subscriber = &**self.subscriber.id(), %event, why = why.as_deref(),
                    "refused {REFUSALS} times; left out, and to be found by the page");
                self.subscriber.standing.lock().unwrap_or_else(PoisonError::into_inner).left_out += 1;
                self.reached(event, true).await;
                self.tell(Some((event, why.unwrap_or_default()))).await;
                None
            }
        }
    }

    /// One document, whatever its kind.
    async fn send(&self, id: &str, document: Bytes) -> Result<Receipt, DeliveryError> {
        match &self.posted.way {
            Way::Webhook(signer) => signer.post(id, document).await,
            Way::Mqtt(line) => self.lines.tell_subscriber(line, self.subscriber.id(), document, id).await,
        }
    }

    async fn try_way(&mut self, test: Test) {
        let Test { id, document, reply } = test;
        let result = self.send(&id, document).await;
        // Who asked may have gone.
        let _ = reply.send(result.map(|receipt| receipt.detail).map_err(|error| excerpt(&error.to_string())));
    }

    async fn beat(&mut self) {
        let Some(last) = self.last else { return };
        self.sequence += 1;
        let document = self.all.heartbeat(&self.subscriber, self.sequence, last);
        let started = self.all.0.started.micros();
        let id = format!("{}/{}/{started}/heartbeat/{}", self.all.0.site.id, self.subscriber.id(), self.sequence);
        // One that is lost is not sent again: the next has a higher number.
        let told = timeout(heartbeat::LIMIT, self.send(&id, document.into())).await;
        if let Ok(Err(error)) = told {
            tracing::debug!(subscriber = &**self.subscriber.id(), %error, "no heartbeat gets out");
        }
    }

    /// Tells the duty desk when something is left out, or has been failing for a minute.
    async fn tell(&mut self, left_out: Option<(Position, String)>) {
        let id = Arc::clone(self.subscriber.id());
        if let Some((event, why)) = left_out {
            let message = Text {
                zh: format!(
                    "订阅方 {id} 拒收事件 {event}（{why}），已跳过并继续推送后续事件，该事件可由订阅方分页补取，请人工处理"
                ),
                en: format!(
                    "subscriber {id} refuses event {event} ({why}); it is left out and those behind it go on, the \
                     subscriber finds it by the page; somebody must look"
                ),
            };
            return self.say(Some((Trouble::LeftOut, message, why))).await;
        }
        if self.told.is_none() && self.pacing.is_in_trouble(self.all.0.clock.now().mono) {
            let why = self.subscriber.standing().failing.unwrap_or_default();
            let message = Text {
                zh: format!("订阅方 {id} 已超过一分钟无法送达（{why}），事件均已保存，恢复后按序补发"),
                en: format!(
                    "subscriber {id} has not been reached for over a minute ({why}); all events are kept and follow \
                     in order"
                ),
            };
            self.say(Some((Trouble::Failing, message, why))).await;
        }
    }

    async fn say(&mut self, what: Option<(Trouble, Text, String)>) {
        self.told = what.as_ref().map(|(trouble, ..)| *trouble);
        self.unsure = false;
        let trouble = what.map(|(_, message, why)| {
            let finding = Finding { level: Level::Yellow, limit: None, note: Some(why) };
            PartTrouble { finding, message }
        });
        let state = PartState { part: Arc::clone(&self.part), trouble };
        // Fails only when the main loop has ended.
        let _ = self.inputs.send(Input::Part(state)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Mono {
        Mono::default().plus(Duration::from_secs(seconds))
    }

    fn never() -> Result<Receipt, DeliveryError> {
        Err(DeliveryError::Never("HTTP 400".to_owned()))
    }

    fn taken() -> Result<Receipt, DeliveryError> {
        Ok(Receipt::of("HTTP 204"))
    }

    /// A receiver that will not have the event 77 of 500: how many posts until it is found, and what else it costs.
    #[test]
    fn the_one_event_that_is_refused_is_found_by_halves_and_left_out() {
        let mut pacing = Pacing::new(1, MOST_EVENTS);
        let (mut first, mut posts, mut left_out) = (0, 0, Vec::new());
        let mut now = at(1);
        while first < 500 {
            let events = pacing.most.min(500 - first);
            let result = if (first..first + events).contains(&77) { never() } else { taken() };
            now = now.plus(Duration::from_secs(31));
            posts += 1;
            match pacing.handle_result(now, events, &result) {
                Next::Taken => first += events,
                Next::Again => assert!(pacing.not_before <= now.plus(BACKOFF_LONGEST)),
                Next::LeaveOut => {
                    left_out.push(first);
                    first += 1;
                }
            }
        }
        assert_eq!(left_out, [77]);
        assert!(posts <= 30, "{posts}");
        assert!(!pacing.is_in_trouble(now), "the rest was taken");
    }

    #[test]
    fn what_fails_is_tried_for_ever_and_told_after_a_minute() {
        let mut pacing = Pacing::new(7, MOST_EVENTS);
        let retry = || Err(DeliveryError::Retry("no route".to_owned()));
        for n in 0..20 {
            assert_eq!(pacing.handle_result(at(10 * n), 5, &retry()), Next::Again);
            assert!(pacing.not_before.since(at(10 * n)) <= BACKOFF_LONGEST);
            assert_eq!(pacing.is_in_trouble(at(10 * n)), n >= 6, "{n}");
        }
        let wait = Duration::from_secs(7_200);
        pacing.handle_result(at(300), 5, &Err(DeliveryError::RetryAfter { wait, reason: String::new() }));
        assert_eq!(pacing.not_before, at(300).plus(LONGEST_ASKED_WAIT));
        assert_eq!(pacing.handle_result(at(900), 5, &taken()), Next::Taken);
        assert!(!pacing.is_in_trouble(at(2_000)));
    }
}
