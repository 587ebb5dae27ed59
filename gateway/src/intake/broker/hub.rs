//! What all connections share: sessions, subscriptions, retained messages.
//!
//! Publishing takes no lock that all share: a connection keeps, for each topic it publishes on, who wants it, until
//! the subscriptions change (`epoch`). Nothing here waits for a socket: a message goes into the bounded queue of each
//! subscriber, and the subscriber's own connection takes it from there.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use anmin_sensors::time::Mono;
use bytes::Bytes;
use tokio::sync::{Notify, mpsc};

use super::accounts::Who;
use super::wire::{self, Will, reason};
use super::{Settings, Stats};
use crate::clock::Clock;
use crate::main_loop::Input;
use crate::telemetry::{More, Repeats};

pub struct Hub {
    pub settings: Settings,
    pub clock: Clock,
    pub inputs: mpsc::Sender<Input>,
    pub source: Arc<str>,
    sessions: Mutex<HashMap<Arc<str>, Arc<Session>>>,
    routes: RwLock<Node>,
    /// Grows whenever who may get or publish what has changed.
    epoch: AtomicU64,
    retained: Mutex<Retained>,
    reserved: RwLock<Vec<String>>,
    stopped: AtomicBool,
    pub counters: Counters,
    repeats: Mutex<Repeats>,
}

#[derive(Default)]
pub struct Counters {
    pub connections: AtomicUsize,
    pub received: AtomicU64,
    pub delivered: AtomicU64,
    pub dropped: AtomicU64,
    pub refused: AtomicU64,
    pub oversized: AtomicU64,
}

impl Counters {
    pub fn read(&self) -> Stats {
        Stats {
            connections: self.connections.load(Ordering::Relaxed),
            received: self.received.load(Ordering::Relaxed),
            delivered: self.delivered.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            oversized: self.oversized.load(Ordering::Relaxed),
        }
    }
}

/// One message on its way to subscribers; all queues share it.
#[derive(Debug)]
pub struct Publication {
    pub topic: Arc<str>,
    pub payload: Bytes,
    pub properties: Bytes,
    pub expires: Option<Mono>,
}

/// Retained messages: at most `MOST_RETAINED`, with at most `MOST_RETAINED_BYTES`; what does not fit is not kept.
#[derive(Default)]
struct Retained {
    messages: HashMap<Arc<str>, (Arc<Publication>, u8)>,
    bytes: usize,
}

const MOST_RETAINED: usize = 100_000;
const MOST_RETAINED_BYTES: usize = 64 * 1024 * 1024;

/// A live connection as others see it: where acknowledgements and deliveries announce themselves.
pub struct Link {
    ready: Mutex<Vec<(Owed, u16)>>,
    pub wake: Notify,
    /// Why the connection must end; 0 while it need not.
    closing: AtomicU8,
}

/// What a publisher is owed when its message is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owed {
    PubAck,
    PubRec,
}

impl Link {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { ready: Mutex::default(), wake: Notify::new(), closing: AtomicU8::new(0) })
    }

    /// The first reason stands.
    pub fn close(&self, reason: u8) {
        let _ = self.closing.compare_exchange(0, reason, Ordering::AcqRel, Ordering::Acquire);
        self.wake.notify_one();
    }

    pub fn closing(&self) -> Option<u8> {
        Some(self.closing.load(Ordering::Acquire)).filter(|&reason| reason != 0)
    }

    fn acknowledge(&self, owed: Owed, id: u16) {
        let first = {
            let mut ready = lock(&self.ready);
            ready.push((owed, id));
            ready.len() == 1
        };
        // The connection takes all that are ready at once: one call is enough.
        if first {
            self.wake.notify_one();
        }
    }

    pub fn take_ready(&self, into: &mut Vec<(Owed, u16)>) {
        into.clear();
        std::mem::swap(&mut *lock(&self.ready), into);
    }
}

/// The right to one acknowledgement on one connection. Dropped unused, it ends that connection: only then does the
/// publisher send again what nobody made safe.
pub struct Token {
    link: Arc<Link>,
    owed: Owed,
    id: u16,
    /// For QoS 2, whose identifiers belong to the session.
    session: Option<Arc<Session>>,
    used: bool,
}

impl Token {
    pub fn new(link: Arc<Link>, owed: Owed, id: u16, session: Option<Arc<Session>>) -> Self {
        Self { link, owed, id, session, used: false }
    }

    pub fn done(mut self) {
        self.used = true;
        match &self.session {
            None => self.link.acknowledge(self.owed, self.id),
            Some(session) => {
                let mut state = lock(&session.state);
                if let Some(recorded) = state.received.get_mut(&self.id) {
                    *recorded = true;
                    // The connection of today, which need not be the one that the message came by.
                    if let Some(link) = &state.link {
                        link.acknowledge(self.owed, self.id);
                    }
                }
            }
        }
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        if !self.used {
            if let Some(session) = &self.session {
                lock(&session.state).received.remove(&self.id);
            }
            self.link.close(reason::UNSPECIFIED);
        }
    }
}

/// What the broker remembers of one client.
pub struct Session {
    pub client: Arc<str>,
    pub state: Mutex<SessionState>,
}

#[derive(Default)]
pub struct SessionState {
    /// `None` while the client is away.
    pub link: Option<Arc<Link>>,
    pub user: Option<Arc<str>>,
    pub will: Option<Will>,
    queue: VecDeque<Queued>,
    queued_bytes: usize,
    /// Sent with QoS 1 and not acknowledged, in the order of sending.
    in_flight: VecDeque<(u16, Queued)>,
    last_id: u16,
    filters: HashMap<String, Options>,
    /// QoS 2 publishes between PUBLISH and PUBREL; true when they are safe.
    pub received: HashMap<u16, bool>,
    expiry: Duration,
    away_since: Option<Mono>,
    dropped: u64,
}

/// How one subscription wants its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    pub qos: u8,
    pub no_local: bool,
    pub retain_as_published: bool,
}

#[derive(Clone)]
pub struct Queued {
    pub publication: Arc<Publication>,
    pub qos: u8,
    pub retain: bool,
}

impl SessionState {
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// The next message that may be sent now, with its packet identifier.
    pub fn next(&mut self, window: usize) -> Option<(Queued, u16)> {
        let first = self.queue.front()?;
        if first.qos > 0 && self.in_flight.len() >= window {
            return None;
        }
        let queued = self.queue.pop_front()?;
        self.queued_bytes = self.queued_bytes.saturating_sub(cost(&queued));
        if queued.qos == 0 {
            return Some((queued, 0));
        }
        let mut id = self.last_id;
        loop {
            id = id.checked_add(1).unwrap_or(1);
            // The window is smaller than the 65,535 identifiers, so one of them is free.
            if !self.in_flight.iter().any(|(taken, _)| *taken == id) {
                break;
            }
        }
        self.last_id = id;
        self.in_flight.push_back((id, queued.clone()));
        Some((queued, id))
    }

    /// PUBACK from the subscriber. An identifier that is not in flight is left from an earlier session: harmless.
    pub fn acknowledged(&mut self, id: u16) {
        if let Some(at) = self.in_flight.iter().position(|(taken, _)| *taken == id) {
            self.in_flight.remove(at);
        }
    }

    /// What a resumed session must be sent again, in its order.
    pub fn in_flight(&self) -> impl Iterator<Item = &(u16, Queued)> {
        self.in_flight.iter()
    }
}

fn cost(queued: &Queued) -> usize {
    64 + queued.publication.topic.len() + queued.publication.payload.len() + queued.publication.properties.len()
}

/// One who gets the messages of a topic.
#[derive(Clone)]
pub struct Target {
    pub session: Arc<Session>,
    pub options: Options,
}

/// Who gets the messages of one topic, and whether the publisher may publish on it, as of `epoch`.
#[derive(Clone, Default)]
pub struct Route {
    pub epoch: u64,
    pub may_write: bool,
    pub targets: Option<Arc<[Target]>>,
}

/// Subscriptions as a tree of topic levels.
#[derive(Default)]
struct Node {
    levels: HashMap<Box<str>, Node>,
    any: Option<Box<Node>>,
    here: Vec<Target>,
    below: Vec<Target>,
}

impl Node {
    fn put(&mut self, filter: &str, target: Target) {
        let (level, rest) = match filter.split_once('/') {
            Some((level, rest)) => (level, Some(rest)),
            None => (filter, None),
        };
        if level == "#" {
            return put(&mut self.below, target);
        }
        let next = if level == "+" {
            &mut **self.any.get_or_insert_default()
        } else {
            self.levels.entry(level.into()).or_default()
        };
        match rest {
            Some(rest) => next.put(rest, target),
            None => put(&mut next.here, target),
        }
    }

    fn remove(&mut self, filter: &str, session: &Arc<Session>) {
        let (level, rest) = match filter.split_once('/') {
            Some((level, rest)) => (level, Some(rest)),
            None => (filter, None),
        };
        let not_theirs = |target: &Target| !Arc::ptr_eq(&target.session, session);
        if level == "#" {
            return self.below.retain(not_theirs);
        }
        let next = if level == "+" { self.any.as_deref_mut() } else { self.levels.get_mut(level) };
        let Some(next) = next else { return };
        match rest {
            Some(rest) => next.remove(rest, session),
            None => next.here.retain(not_theirs),
        }
        if next.is_empty() {
            if level == "+" {
                self.any = None;
            } else {
                self.levels.remove(level);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.levels.is_empty() && self.any.is_none() && self.here.is_empty() && self.below.is_empty()
    }

    /// `wild` is false for the first level of a topic that begins with a dollar.
    fn find(&self, topic: Option<&str>, wild: bool, found: &mut Vec<Target>) {
        if wild {
            found.extend_from_slice(&self.below);
        }
        let Some(topic) = topic else {
            found.extend_from_slice(&self.here);
            return;
        };
        let (level, rest) = match topic.split_once('/') {
            Some((level, rest)) => (level, Some(rest)),
            None => (topic, None),
        };
        if let Some(next) = self.levels.get(level) {
            next.find(rest, true, found);
        }
        if wild && let Some(next) = &self.any {
            next.find(rest, true, found);
        }
    }
}

fn put(targets: &mut Vec<Target>, target: Target) {
    match targets.iter_mut().find(|other| Arc::ptr_eq(&other.session, &target.session)) {
        Some(other) => *other = target,
        None => targets.push(target),
    }
}

/// What [`Hub::attach`] found.
pub struct Attached {
    pub session: Arc<Session>,
    pub present: bool,
    /// Of the connection that this one took the place of: to be published before anything of the new one.
    pub will: Option<Will>,
}

impl Hub {
    pub fn new(settings: Settings, clock: Clock, inputs: mpsc::Sender<Input>) -> Self {
        Self {
            settings,
            clock,
            inputs,
            source: "broker".into(),
            sessions: Mutex::default(),
            routes: RwLock::default(),
            epoch: AtomicU64::new(1),
            retained: Mutex::default(),
            reserved: RwLock::default(),
            stopped: AtomicBool::new(false),
            counters: Counters::default(),
            repeats: Mutex::default(),
        }
    }

    /// Whether a line of this kind is said now: what clients bring about as often as they like is said once a minute, whatever they
    /// call themselves.
    pub fn say(&self, kind: &'static str) -> Option<More> {
        lock(&self.repeats).say(kind, self.clock.now().mono)
    }

    /// Binds a connection to the session of its client; an older connection of the same client must go.
    pub fn attach(
        &self,
        client: Arc<str>,
        user: Option<Arc<str>>,
        clean: bool,
        expiry: Duration,
        will: Option<Will>,
        link: Arc<Link>,
    ) -> Attached {
        let mut sessions = lock(&self.sessions);
        if self.stopped.load(Ordering::Acquire) {
            link.close(reason::SHUTTING_DOWN);
        }
        let mut old_will = None;
        if let Some(session) = sessions.get(&client).cloned() {
            let mut state = lock(&session.state);
            let ends_with_connection = state.expiry.is_zero();
            if let Some(old) = state.link.take() {
                if let Some(more) = self.say("connected twice") {
                    tracing::info!(client = %cut(&client), more, "a client connects again while its last connection stands; broker closes the old one");
                }
                old.close(reason::TAKEN_OVER);
                old_will = state.will.take();
            }
            if !clean && !ends_with_connection {
                state.link = Some(link);
                state.user = user;
                state.will = will;
                state.expiry = expiry;
                state.away_since = None;
                drop(state);
                return Attached { session, present: true, will: old_will };
            }
            drop(state);
            self.forget(&mut sessions, &session);
        }
        let state = SessionState { link: Some(link), user, will, expiry, ..SessionState::default() };
        let session = Arc::new(Session { client: client.clone(), state: Mutex::new(state) });
        sessions.insert(client, session.clone());
        Attached { session, present: false, will: old_will }
    }

    /// The connection has ended. Gives the will that must be published now or after its delay.
    pub fn detach(
        &self,
        session: &Arc<Session>,
        link: &Arc<Link>,
        with_will: bool,
        expiry: Option<Duration>,
    ) -> Option<Will> {
        let mut sessions = lock(&self.sessions);
        let mut state = lock(&session.state);
        if !state.link.as_ref().is_some_and(|current| Arc::ptr_eq(current, link)) {
            return None;
        }
        state.link = None;
        state.away_since = Some(self.clock.now().mono);
        // MQTT 5 section 3.14.2.2.2: a session that was to end with its connection cannot be prolonged by DISCONNECT.
        if let Some(expiry) = expiry
            && !state.expiry.is_zero()
        {
            state.expiry = expiry;
        }
        // QoS 0 is for those who are there.
        state.queue.retain(|queued| queued.qos > 0);
        state.queued_bytes = state.queue.iter().map(cost).sum();
        let will = state.will.take().filter(|_| with_will);
        let ends = state.expiry.is_zero();
        drop(state);
        if ends {
            self.forget(&mut sessions, session);
        }
        will
    }

    fn forget(&self, sessions: &mut HashMap<Arc<str>, Arc<Session>>, session: &Arc<Session>) {
        if sessions.get(&session.client).is_some_and(|current| Arc::ptr_eq(current, session)) {
            sessions.remove(&session.client);
        }
        let filters = std::mem::take(&mut lock(&session.state).filters);
        if !filters.is_empty() {
            let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
            for filter in filters.keys() {
                routes.remove(filter, session);
            }
            drop(routes);
            self.changed();
        }
    }

    /// Whether a session under this client id was opened by another user: taking it over would hand out its queue.
    pub fn belongs_to_another(&self, client: &str, user: Option<&str>) -> bool {
        lock(&self.sessions).get(client).is_some_and(|session| lock(&session.state).user.as_deref() != user)
    }

    /// Whether the client is away, or gone for good.
    pub fn is_away(&self, session: &Session) -> bool {
        lock(&session.state).link.is_none()
    }

    /// Sessions whose client has been away for longer than it may be.
    pub fn expire_sessions(&self) {
        let now = self.clock.now().mono;
        let mut sessions = lock(&self.sessions);
        let over: Vec<Arc<Session>> = sessions
            .values()
            .filter(|session| {
                let state = lock(&session.state);
                state.away_since.is_some_and(|since| state.link.is_none() && now.since(since) >= state.expiry)
            })
            .cloned()
            .collect();
        for session in over {
            if let Some(more) = self.say("session expired") {
                tracing::info!(client = %cut(&session.client), more, "session expired; broker forgets its subscriptions and its queue");
            }
            self.forget(&mut sessions, &session);
        }
    }

    pub fn session_count(&self) -> usize {
        lock(&self.sessions).len()
    }

    /// Ends every connection, those that are about to begin, too.
    pub fn stop(&self) {
        let sessions = lock(&self.sessions);
        self.stopped.store(true, Ordering::Release);
        for session in sessions.values() {
            if let Some(link) = &lock(&session.state).link {
                link.close(reason::SHUTTING_DOWN);
            }
        }
    }

    /// Adds or replaces a subscription; true when there was none on this filter.
    pub fn subscribe(&self, session: &Arc<Session>, filter: &str, options: Options) -> bool {
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        let new = lock(&session.state).filters.insert(filter.to_owned(), options).is_none();
        routes.put(filter, Target { session: session.clone(), options });
        drop(routes);
        self.changed();
        new
    }

    pub fn subscription_count(&self, session: &Session) -> usize {
        lock(&session.state).filters.len()
    }

    pub fn unsubscribe(&self, session: &Arc<Session>, filter: &str) -> bool {
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        let was = lock(&session.state).filters.remove(filter).is_some();
        if was {
            routes.remove(filter, session);
        }
        drop(routes);
        self.changed();
        was
    }

    fn changed(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    pub fn reserve(&self, prefix: &str) {
        self.reserved.write().unwrap_or_else(PoisonError::into_inner).push(prefix.to_owned());
        self.changed();
    }

    /// Where the messages of `topic` go. `who` is the publisher, `None` when that is anmin itself.
    pub fn route(&self, topic: &str, who: Option<Who<'_>>) -> Route {
        // Read before the tree: a change in between makes this route old at once, never wrong for long.
        let epoch = self.epoch();
        let may_write = match who {
            None => true,
            Some(who) => {
                // Devices made for the platforms of China report below $sys, $oc and $thing.
                !["$SYS", "$share"].iter().any(|own| topic.split('/').next() == Some(own))
                    && !self
                        .reserved
                        .read()
                        .unwrap_or_else(PoisonError::into_inner)
                        .iter()
                        .any(|prefix| topic.starts_with(prefix.as_str()))
                    && self.settings.acl.as_ref().is_none_or(|acl| acl.may_write(who, topic))
            }
        };
        let mut found = Vec::new();
        self.routes.read().unwrap_or_else(PoisonError::into_inner).find(
            Some(topic),
            !topic.starts_with('$'),
            &mut found,
        );
        // A client whose filters overlap gets one copy, with the best QoS of them.
        found.sort_by_key(|target| Arc::as_ptr(&target.session) as usize);
        found.dedup_by(|next, kept| {
            let same = Arc::ptr_eq(&next.session, &kept.session);
            if same {
                kept.options.qos = kept.options.qos.max(next.options.qos);
                kept.options.no_local &= next.options.no_local;
                kept.options.retain_as_published |= next.options.retain_as_published;
            }
            same
        });
        if let Some(acl) = &self.settings.acl {
            found.retain(|target| {
                let user = lock(&target.session.state).user.clone();
                acl.may_read(Who { user: user.as_deref(), client: &target.session.client }, topic)
            });
        }
        Route { epoch, may_write, targets: (!found.is_empty()).then(|| found.into()) }
    }

    /// Hands a message to its subscribers and keeps it if it is retained; says how many got it.
    #[allow(clippy::too_many_arguments, reason = "a publish has as many parts")]
    pub fn publish(
        &self,
        from: Option<&Arc<Session>>,
        targets: Option<&[Target]>,
        topic: &Arc<str>,
        payload: &[u8],
        properties: &[u8],
        expiry: Option<u32>,
        qos: u8,
        retain: bool,
    ) -> usize {
        if targets.is_none() && !retain {
            return 0;
        }
        // Copied: a slice would keep the whole read buffer of its publisher alive for as long as a subscriber is slow.
        let publication = Arc::new(Publication {
            topic: topic.clone(),
            payload: Bytes::copy_from_slice(payload),
            properties: Bytes::copy_from_slice(properties),
            expires: expiry.map(|seconds| self.clock.now().mono.plus(Duration::from_secs(u64::from(seconds)))),
        });
        if retain {
            self.retain(&publication, qos);
        }
        let mut reached = 0;
        for target in targets.unwrap_or_default() {
            if target.options.no_local && from.is_some_and(|from| Arc::ptr_eq(from, &target.session)) {
                continue;
            }
            let queued = Queued {
                publication: publication.clone(),
                qos: qos.min(target.options.qos).min(1),
                retain: retain && target.options.retain_as_published,
            };
            reached += usize::from(self.enqueue(&target.session, queued));
        }
        self.counters.delivered.fetch_add(reached as u64, Ordering::Relaxed);
        reached
    }

    /// A full queue loses its oldest message: the newest says how things stand now.
    fn enqueue(&self, session: &Session, queued: Queued) -> bool {
        let mut state = lock(&session.state);
        let link = state.link.clone();
        // QoS 0 is for those who are there.
        if link.is_none() && queued.qos == 0 {
            return false;
        }
        state.queued_bytes += cost(&queued);
        state.queue.push_back(queued);
        let mut lost = 0_u64;
        while state.queue.len() > self.settings.max_queued_messages
            || state.queued_bytes > self.settings.max_queued_bytes && state.queue.len() > 1
        {
            let Some(oldest) = state.queue.pop_front() else { break };
            state.queued_bytes = state.queued_bytes.saturating_sub(cost(&oldest));
            lost += 1;
        }
        let first = state.queue.len() == 1 || lost > 0;
        if lost > 0 {
            state.dropped += lost;
            self.counters.dropped.fetch_add(lost, Ordering::Relaxed);
            if is_worth_a_line(state.dropped) {
                tracing::warn!(
                    client = %cut(&session.client),
                    dropped = state.dropped,
                    "queue of a slow or absent subscriber is full; broker drops its oldest messages"
                );
            }
        }
        drop(state);
        // The connection empties the whole queue once it is awake.
        if first && let Some(link) = link {
            link.wake.notify_one();
        }
        true
    }

    fn retain(&self, publication: &Arc<Publication>, qos: u8) {
        let mut retained = lock(&self.retained);
        let size = |kept: &Publication| kept.topic.len() + kept.payload.len() + kept.properties.len();
        if let Some((old, _)) = retained.messages.remove(&publication.topic) {
            retained.bytes -= size(&old);
        }
        if publication.payload.is_empty() {
            return;
        }
        if retained.messages.len() >= MOST_RETAINED || retained.bytes + size(publication) > MOST_RETAINED_BYTES {
            let dropped = self.counters.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            if is_worth_a_line(dropped) {
                tracing::warn!(topic = %cut(&publication.topic), "store of retained messages is full; broker passes the message on but does not keep it");
            }
            return;
        }
        retained.bytes += size(publication);
        retained.messages.insert(publication.topic.clone(), (publication.clone(), qos));
    }

    /// Puts the retained messages that fit a new subscription into its queue. They are bounded by what is retained, so
    /// the limit of the queue does not count: a subscriber must see the state of every topic.
    pub fn send_retained(&self, session: &Arc<Session>, filter: &str, options: Options) {
        let now = self.clock.now().mono;
        let found: Vec<(Arc<Publication>, u8)> = {
            let mut retained = lock(&self.retained);
            let mut over = Vec::new();
            let found = if filter.contains(['+', '#']) {
                let fitting =
                    retained.messages.values().filter(|(kept, _)| super::accounts::covers(filter, &kept.topic));
                fitting.cloned().collect::<Vec<_>>()
            } else {
                retained.messages.get(filter).cloned().into_iter().collect()
            };
            let found = found
                .into_iter()
                .filter(|(kept, _)| {
                    let fresh = kept.expires.is_none_or(|expires| expires > now);
                    if !fresh {
                        over.push(kept.clone());
                    }
                    fresh
                })
                .collect();
            for kept in over {
                retained.messages.remove(&kept.topic);
                retained.bytes -= kept.topic.len() + kept.payload.len() + kept.properties.len();
            }
            found
        };
        let mut state = lock(&session.state);
        let user = state.user.clone();
        let who = Who { user: user.as_deref(), client: &session.client };
        for (publication, qos) in found {
            if self.settings.acl.as_ref().is_some_and(|acl| !acl.may_read(who, &publication.topic)) {
                continue;
            }
            let queued = Queued { publication, qos: qos.min(options.qos).min(1), retain: true };
            state.queued_bytes += cost(&queued);
            state.queue.push_back(queued);
        }
    }

    /// Publishes a will to subscribers; what the intake gets of it is the caller's to send.
    pub fn publish_will(&self, session: &Arc<Session>, user: Option<&str>, will: &Will) -> Option<Arc<str>> {
        let who = Who { user, client: &session.client };
        let route = self.route(&will.topic, Some(who));
        if !route.may_write {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let topic: Arc<str> = will.topic.as_str().into();
        self.publish(
            Some(session),
            route.targets.as_deref(),
            &topic,
            &will.payload,
            &will.properties,
            will.expiry,
            will.qos,
            will.retain,
        );
        Some(topic)
    }

    /// A message of anmin's own.
    pub fn publish_own(&self, topic: &str, payload: &[u8], qos: u8, retain: bool) -> Option<usize> {
        if !wire::is_topic(topic) || topic.len() > usize::from(u16::MAX) || topic.contains('\0') {
            return None;
        }
        let route = self.route(topic, None);
        Some(self.publish(None, route.targets.as_deref(), &topic.into(), payload, &[], None, qos, retain))
    }
}

/// The first, tenth, hundredth ... of something that may happen a million times.
pub fn is_worth_a_line(count: u64) -> bool {
    count.checked_ilog10().is_some_and(|digits| count == 10_u64.pow(digits))
}

/// Text from a device for a log line: escaped and short.
pub fn cut(text: &str) -> String {
    match text.char_indices().nth(64) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}…", &text[..end]),
    }
}

/// A thread that panicked holding one of these left a queue or a map that is still in order: each change is one step.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
