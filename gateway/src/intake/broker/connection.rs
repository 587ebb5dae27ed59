//! One client's connection: a task that reads all that is there, hands it on as one batch, and writes what is owed.
//!
//! It never waits for the main loop with its hands full: while a batch waits for room in the channel nothing more is
//! read (TCP holds the publisher back), but acknowledgements and deliveries go on being written.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anmin_sensors::by_name::ByName;
use anmin_sensors::time::Now;
use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::accounts::Who;
use super::hub::{self, Hub, Link, Options, Owed, Route, Session, Token, cut};
use super::wire::{self, Connect, Fault, Header, Packet, Reply, Version, Will, reason};
use crate::intake::{Ack, Delivery, Message};
use crate::main_loop::Input;

/// Accept to CONNECT, TLS included.
pub const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// A client that takes nothing for so long is gone.
const STALLED_AFTER: Duration = Duration::from_secs(30);
/// Publishes in one batch at most.
const BATCH: usize = 1_024;
/// With more than this waiting to be written nothing more is read or taken from the queue.
const OUTPUT_FULL: usize = 256 * 1024;
const READ_LEAST: usize = 2 * 1024;
const READ_MOST: usize = 128 * 1024;
/// A publish that is larger than `max_packet_size` but not than this is skipped and acknowledged: its sender would
/// otherwise send it again for ever, before everything else it has to say.
const SKIP_MOST: usize = 16 * 1024 * 1024;
/// Bytes that are kept of it.
const EXCERPT: usize = 4 * 1024;
const MOST_ALIASES: u16 = 64;
/// Unacknowledged publishes of one MQTT 5 client.
const RECEIVE_MAXIMUM: u16 = 4_096;
/// Unacknowledged deliveries to one subscriber.
const WINDOW: usize = 128;
const MOST_FILTERS: usize = 10_000;
/// Topics that one connection remembers the way of; beyond, it starts to remember anew.
const MOST_TOPICS: usize = 131_072;
const MOST_TOPIC_BYTES: usize = 16 * 1024 * 1024;

/// Why a connection ended.
enum End {
    /// DISCONNECT, with a will only if the client said so.
    Goodbye {
        with_will: bool,
        session_expiry: Option<u32>,
    },
    /// The peer or the network closed it.
    Gone,
    Fault(Fault),
    /// An MQTT 5 reason for which we close it.
    Closed(u8),
    MainLoopGone,
}

/// Serves one client until it leaves.
pub async fn serve<R, W>(hub: Arc<Hub>, mut read: R, mut write: W, peer: String, deadline: Instant)
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    let mut input = BytesMut::new();
    let connect = match tokio::time::timeout_at(deadline, read_connect(&hub, &mut read, &mut input)).await {
        Ok(Ok(connect)) => connect,
        Ok(Err(Some(fault))) => {
            note_refusal(&hub, &peer, fault.words());
            let mut output = BytesMut::new();
            // The answer to a version that we do not speak; to anything else there is none, section 4.13.
            if let Fault::UnknownVersion(level) = fault {
                let version = if level < 5 { Version::V3 } else { Version::V5 };
                wire::write_connack(&mut output, version, false, reason::VERSION, None);
                let _ = timeout(Duration::from_secs(1), write.write_all_buf(&mut output)).await;
            }
            return;
        }
        Ok(Err(None)) => return,
        Err(_) => return note_refusal(&hub, &peer, "no CONNECT within 10 seconds"),
    };
    let version = connect.speaks();
    let mut output = BytesMut::new();
    match admit(&hub, &connect).await {
        Ok(()) => {}
        Err((code, why)) => {
            note_refusal(&hub, &peer, why);
            wire::write_connack(&mut output, version, false, code, None);
            let _ = timeout(Duration::from_secs(1), write.write_all_buf(&mut output)).await;
            let _ = timeout(Duration::from_secs(1), write.shutdown()).await;
            return;
        }
    }
    let mut peer = Peer::new(hub, *connect, output);
    let end = peer.talk(&mut read, &mut write, input).await;
    peer.leave(&mut write, end).await;
}

fn note_refusal(hub: &Hub, peer: &str, why: &str) {
    let refused = hub.counters.refused.fetch_add(1, Ordering::Relaxed) + 1;
    if hub::is_worth_a_line(refused) {
        tracing::warn!(%peer, why, refused, "broker refuses a connection");
    }
}

/// `None` when the peer closed before it said anything that is wrong.
async fn read_connect<R>(hub: &Hub, read: &mut R, input: &mut BytesMut) -> Result<Box<Connect>, Option<Fault>>
where
    R: AsyncRead + Unpin,
{
    loop {
        if let Some(header) = wire::header(input).map_err(Some)? {
            if header.first != 0x10 {
                return Err(Some(Fault::Protocol("the first packet is not CONNECT")));
            }
            if header.total() > hub.settings.max_packet_size {
                return Err(Some(Fault::Protocol("a CONNECT that is too large")));
            }
            if input.len() >= header.total() {
                let frame = input.split_to(header.total());
                return match wire::read(header, &frame, Version::V5).map_err(Some)? {
                    Packet::Connect(connect) => Ok(connect),
                    _ => Err(Some(Fault::Protocol("the first packet is not CONNECT"))),
                };
            }
        }
        input.reserve(512);
        match read.read_buf(input).await {
            Ok(0) | Err(_) => return Err(None),
            Ok(_) => {}
        }
    }
}

/// Whether this client may come in; the error is the reason code and its words.
async fn admit(hub: &Hub, connect: &Connect) -> Result<(), (u8, &'static str)> {
    if connect.auth_method {
        return Err((reason::AUTH_METHOD, "extended authentication is not spoken here"));
    }
    if connect.client_id.is_empty() && !connect.clean && connect.speaks() == Version::V3 {
        return Err((reason::CLIENT_ID, "a session to keep, but no client id"));
    }
    if connect.client_id.chars().any(char::is_control) {
        return Err((reason::CLIENT_ID, "a client id with control characters"));
    }
    let Some(accounts) = &hub.settings.accounts else { return Ok(()) };
    let (Some(name), Some(password)) = (connect.username.clone(), connect.password.clone()) else {
        return Err((reason::NOT_AUTHORIZED, "no user name and password"));
    };
    let accounts = accounts.clone();
    let right = tokio::task::spawn_blocking(move || accounts.is_right(&name, &password)).await.unwrap_or(false);
    if right && hub.belongs_to_another(&connect.client_id, connect.username.as_deref()) {
        Err((reason::NOT_AUTHORIZED, "the session of this client id belongs to another user"))
    } else if right {
        Ok(())
    } else {
        // Guessing costs a second each.
        sleep(Duration::from_secs(1)).await;
        Err((reason::CREDENTIALS, "wrong user name or password"))
    }
}

struct Peer {
    hub: Arc<Hub>,
    version: Version,
    session: Arc<Session>,
    /// Whose packet identifiers its publishes bear.
    sender: u64,
    user: Option<Arc<str>>,
    link: Arc<Link>,
    keep_alive: Option<Duration>,
    /// Deliveries in flight at most, and the largest that the client takes.
    window: usize,
    max_delivery: usize,
    topics: ByName<Route>,
    topic_bytes: usize,
    aliases: HashMap<u16, Arc<str>>,
    batch: Vec<Message>,
    output: BytesMut,
    ready: Vec<(Owed, u16)>,
    unacknowledged: usize,
    /// Bytes still to be thrown away, and what to answer then.
    skip: usize,
    skipped: Option<(u8, u16)>,
}

type Sending = Pin<Box<dyn Future<Output = Result<(), mpsc::error::SendError<Input>>> + Send>>;

impl Peer {
    /// Binds the connection to its session and writes CONNACK and what the session has in flight.
    fn new(hub: Arc<Hub>, connect: Connect, mut output: BytesMut) -> Self {
        let version = connect.speaks();
        let assigned = connect.client_id.is_empty().then(|| format!("anmin-{}", uuid::Uuid::now_v7().simple()));
        let client: Arc<str> = assigned.as_deref().unwrap_or(&connect.client_id).into();
        let user: Option<Arc<str>> = connect.username.as_deref().map(Into::into);
        let longest = hub.settings.session_expiry;
        let expiry = match version {
            Version::V3 if connect.clean => Duration::ZERO,
            Version::V3 => longest,
            Version::V5 => Duration::from_secs(u64::from(connect.session_expiry.unwrap_or(0))).min(longest),
        };
        let link = Link::new();
        let attached = hub.attach(client, user.clone(), connect.clean, expiry, connect.will, link.clone());
        let mut batch = Vec::new();
        if let Some(will) = attached.will
            && let Some(topic) = hub.publish_will(&attached.session, user.as_deref(), &will)
        {
            batch.push(will_message(topic, will, hub.clock.now()));
        }
        wire::write_connack(
            &mut output,
            version,
            attached.present,
            reason::SUCCESS,
            Some(wire::Limits {
                session_expiry: (connect.session_expiry.unwrap_or(0) as u64 != expiry.as_secs())
                    .then(|| u32::try_from(expiry.as_secs()).unwrap_or(u32::MAX)),
                receive_maximum: RECEIVE_MAXIMUM,
                max_packet_size: u32::try_from(hub.settings.max_packet_size).unwrap_or(u32::MAX),
                topic_alias_maximum: MOST_ALIASES,
                assigned_client_id: assigned.as_deref(),
            }),
        );
        let peer = Self {
            version,
            sender: Delivery::session(&hub.source, &attached.session.client),
            session: attached.session,
            user,
            link,
            keep_alive: (connect.keep_alive > 0).then(|| Duration::from_millis(u64::from(connect.keep_alive) * 1_500)),
            window: connect.receive_maximum.map_or(WINDOW, |most| usize::from(most).min(WINDOW)),
            max_delivery: connect.max_packet_size.map_or(usize::MAX, |most| most as usize),
            topics: ByName::default(),
            topic_bytes: 0,
            aliases: HashMap::new(),
            batch,
            output,
            ready: Vec::new(),
            unacknowledged: 0,
            skip: 0,
            skipped: None,
            hub,
        };
        peer.resume()
    }

    /// Sends again, marked as repeated, what the client has not acknowledged.
    fn resume(mut self) -> Self {
        let session = self.session.clone();
        let state = hub::lock(&session.state);
        for (id, queued) in state.in_flight() {
            write_delivery(&mut self.output, self.version, queued, *id, true, self.hub.clock.now());
        }
        drop(state);
        self
    }

    async fn talk<R, W>(&mut self, read: &mut R, write: &mut W, mut input: BytesMut) -> End
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let link = self.link.clone();
        let mut sending: Option<Sending> = None;
        let mut read_size = READ_LEAST;
        let mut unflushed = false;
        let mut heard = Instant::now();
        let mut written = Instant::now();
        let first_check = self.keep_alive.unwrap_or(STALLED_AFTER);
        let mut check = std::pin::pin!(sleep(first_check));
        loop {
            if let Some(reason) = link.closing() {
                return End::Closed(reason);
            }
            // Parse until a batch is full, or nothing whole is left.
            let mut more = false;
            if sending.is_none() {
                match self.take(&mut input) {
                    Ok(left) => more = left,
                    Err(end) => {
                        // What was read before the fault, or the goodbye, counts.
                        if let Some(message) = self.take_batch() {
                            let _ = self.hub.inputs.send(message).await;
                        }
                        return end;
                    }
                }
                if let Some(message) = self.take_batch() {
                    match self.hub.inputs.try_send(message) {
                        Ok(()) => {}
                        Err(mpsc::error::TrySendError::Closed(_)) => return End::MainLoopGone,
                        Err(mpsc::error::TrySendError::Full(message)) => {
                            let inputs = self.hub.inputs.clone();
                            sending = Some(Box::pin(async move { inputs.send(message).await }));
                        }
                    }
                }
            }
            let was_empty = self.output.is_empty();
            self.fill();
            if was_empty && !self.output.is_empty() {
                written = Instant::now();
            }
            let may_read = sending.is_none() && self.output.len() < OUTPUT_FULL;
            if may_read && !more {
                input.reserve(read_size);
            }
            tokio::select! {
                biased;
                result = push(write, &mut self.output, &mut unflushed), if !self.output.is_empty() || unflushed => {
                    if result.is_err() {
                        return End::Gone;
                    }
                    written = Instant::now();
                }
                () = link.wake.notified() => {}
                result = async { match sending.as_mut() {
                    Some(sending) => sending.await,
                    None => std::future::pending().await,
                } }, if sending.is_some() => {
                    sending = None;
                    heard = Instant::now();
                    if result.is_err() {
                        return End::MainLoopGone;
                    }
                }
                () = std::future::ready(()), if may_read && more => {}
                result = read.read_buf(&mut input), if may_read && !more => match result {
                    Ok(0) | Err(_) => return End::Gone,
                    Ok(read) => {
                        heard = Instant::now();
                        // Follow the rate: a quiet sensor keeps 2 KiB, a busy gateway gets what it fills.
                        if read >= read_size {
                            read_size = (read_size * 2).min(READ_MOST);
                        } else if read < read_size / 8 {
                            read_size = (read_size / 2).max(READ_LEAST);
                        }
                    }
                },
                () = &mut check => {
                    let now = Instant::now();
                    if !self.output.is_empty() && now.duration_since(written) >= STALLED_AFTER {
                        return End::Closed(reason::KEEP_ALIVE);
                    }
                    // While we do not read, silence is ours.
                    if !may_read {
                        heard = now;
                    }
                    if let Some(limit) = self.keep_alive && now.duration_since(heard) >= limit {
                        return End::Closed(reason::KEEP_ALIVE);
                    }
                    let alive = self.keep_alive.map_or(now + STALLED_AFTER, |limit| heard + limit);
                    check.as_mut().reset(if self.output.is_empty() { alive } else { alive.min(written + STALLED_AFTER) });
                }
            }
        }
    }

    fn take_batch(&mut self) -> Option<Input> {
        if self.batch.is_empty() {
            return None;
        }
        self.hub.counters.received.fetch_add(self.batch.len() as u64, Ordering::Relaxed);
        Some(Input::Messages { source: self.hub.source.clone(), messages: std::mem::take(&mut self.batch) })
    }

    /// Handles the whole packets at the start of `input`; true when more of them are left.
    fn take(&mut self, input: &mut BytesMut) -> Result<bool, End> {
        if self.skip > 0 {
            let gone = self.skip.min(input.len());
            input.advance(gone);
            self.skip -= gone;
            if self.skip > 0 {
                return Ok(false);
            }
            self.answer_skipped();
        }
        // The whole packets become one shared piece, of which each payload is a slice.
        let mut end = 0;
        let mut count = 0;
        let mut more = false;
        let mut too_large = None;
        while let Some(header) = wire::header(&input[end..]).map_err(End::Fault)? {
            if header.total() > self.hub.settings.max_packet_size {
                too_large = Some(header);
                break;
            }
            if input.len() - end < header.total() {
                // Room for the rest at once instead of in steps.
                let missing = header.total() - (input.len() - end);
                if end == 0 {
                    input.reserve(missing);
                }
                break;
            }
            if count == BATCH {
                more = true;
                break;
            }
            count += 1;
            end += header.total();
        }
        if end > 0 {
            let frames = input.split_to(end).freeze();
            let now = self.hub.clock.now();
            let (mut at, mut looked) = (0, 0);
            while at < frames.len() {
                if at >= looked {
                    looked = self.look_ahead(&frames, at);
                }
                let Ok(Some(header)) = wire::header(&frames[at..]) else { break };
                self.packet(header, &frames, at, now)?;
                at += header.total();
            }
        }
        match too_large {
            Some(header) => self.start_skip(header, input),
            None => Ok(more),
        }
    }

    /// A packet over the limit: a publish is thrown away as it comes and then acknowledged, all else ends the talk.
    fn start_skip(&mut self, header: Header, input: &mut BytesMut) -> Result<bool, End> {
        if !header.is_publish() || header.total() > SKIP_MOST {
            return Err(End::Closed(reason::TOO_LARGE));
        }
        let Some(start) = wire::publish_start(header, input).map_err(End::Fault)? else { return Ok(false) };
        let oversized = self.hub.counters.oversized.fetch_add(1, Ordering::Relaxed) + 1;
        if hub::is_worth_a_line(oversized) {
            tracing::warn!(
                client = %cut(&self.session.client),
                topic = %cut(&String::from_utf8_lossy(start.topic)),
                bytes = header.total(),
                oversized,
                "publish is larger than max_packet_size; broker throws it away and acknowledges it, so that what stands behind it gets through"
            );
        }
        self.skipped = Some((start.qos, start.id));
        // Its start goes into the quarantine, for whoever is to mend the device.
        if let Some(topic) = start.topic() {
            let payload = Bytes::copy_from_slice(&start.rest[..start.rest.len().min(EXCERPT)]);
            let (topic, route) = self.route(topic);
            if route.may_write {
                let received = self.hub.clock.now();
                let message =
                    Message { topic, payload, retained: false, cut: true, received, delivery: None, ack: None };
                self.batch.push(message);
            }
        }
        let gone = header.total().min(input.len());
        input.advance(gone);
        self.skip = header.total() - gone;
        if self.skip == 0 {
            self.answer_skipped();
            return Ok(true);
        }
        Ok(false)
    }

    fn answer_skipped(&mut self) {
        match self.skipped.take() {
            Some((1, id)) => self.acknowledge(Reply::PubAck, id, reason::QUOTA),
            Some((2, id)) => {
                // 3.1.1 cannot refuse: its sender goes on to PUBREL, which needs an entry.
                if self.version == Version::V3 {
                    hub::lock(&self.session.state).received.insert(id, true);
                }
                self.acknowledge(Reply::PubRec, id, reason::QUOTA);
            }
            _ => {}
        }
    }

    fn acknowledge(&mut self, kind: Reply, id: u16, reason: u8) {
        wire::write_acknowledgement(&mut self.output, self.version, kind, id, reason);
    }

    fn packet(&mut self, header: Header, frames: &Bytes, at: usize, now: Now) -> Result<(), End> {
        let frame = &frames[at..at + header.total()];
        match wire::read(header, frame, self.version).map_err(End::Fault)? {
            Packet::Publish(publish) => self.publish(publish, frames, at, now),
            Packet::PubAck(id) => {
                hub::lock(&self.session.state).acknowledged(id);
                Ok(())
            }
            Packet::PubRel(id) => {
                let known = hub::lock(&self.session.state).received.remove(&id).is_some();
                let reason = if known { reason::SUCCESS } else { reason::PACKET_ID_UNKNOWN };
                self.acknowledge(Reply::PubComp, id, reason);
                Ok(())
            }
            // We deliver with QoS 1 at most, so these answer nothing of ours.
            Packet::PubRec(id) => {
                self.acknowledge(Reply::PubRel, id, reason::PACKET_ID_UNKNOWN);
                Ok(())
            }
            Packet::PubComp(_) => Ok(()),
            Packet::Subscribe(subscribe) => {
                if subscribe.has_identifier {
                    return Err(End::Fault(Fault::Protocol("a subscription identifier, which CONNACK ruled out")));
                }
                self.subscribe(subscribe)
            }
            Packet::Unsubscribe(id, filters) => {
                let codes: Vec<u8> = filters
                    .iter()
                    .map(|filter| match self.hub.unsubscribe(&self.session, filter) {
                        true => reason::SUCCESS,
                        false => reason::NO_SUBSCRIPTION,
                    })
                    .collect();
                wire::write_unsuback(&mut self.output, self.version, id, &codes);
                Ok(())
            }
            Packet::PingReq => {
                wire::write_pingresp(&mut self.output);
                Ok(())
            }
            Packet::Disconnect { reason, session_expiry } => {
                Err(End::Goodbye { with_will: reason == reason::WITH_WILL, session_expiry })
            }
            Packet::Connect(_) => Err(End::Fault(Fault::Protocol("a second CONNECT"))),
            Packet::Auth => Err(End::Fault(Fault::Protocol("AUTH without an authentication method"))),
        }
    }

    fn publish(&mut self, publish: wire::Publish<'_>, frames: &Bytes, at: usize, now: Now) -> Result<(), End> {
        let (topic, route) = match publish.alias {
            None => self.route(publish.topic),
            Some(alias) => {
                if alias == 0 || alias > MOST_ALIASES {
                    return Err(End::Closed(reason::TOPIC_ALIAS));
                }
                if publish.topic.is_empty() {
                    let Some(topic) = self.aliases.get(&alias).cloned() else {
                        return Err(End::Closed(reason::TOPIC_ALIAS));
                    };
                    self.route(&topic)
                } else {
                    let (topic, route) = self.route(publish.topic);
                    self.aliases.insert(alias, topic.clone());
                    (topic, route)
                }
            }
        };
        if !route.may_write {
            let refused = self.hub.counters.refused.fetch_add(1, Ordering::Relaxed) + 1;
            if hub::is_worth_a_line(refused) {
                tracing::warn!(client = %cut(&self.session.client), topic = %cut(&topic), refused, "client may not publish on this topic; broker drops the message");
            }
            match publish.qos {
                0 => {}
                1 => self.acknowledge(Reply::PubAck, publish.id, reason::NOT_AUTHORIZED),
                _ => {
                    if self.version == Version::V3 {
                        hub::lock(&self.session.state).received.insert(publish.id, true);
                    }
                    self.acknowledge(Reply::PubRec, publish.id, reason::NOT_AUTHORIZED);
                }
            }
            return Ok(());
        }
        let ack = match publish.qos {
            0 => None,
            1 => {
                self.unacknowledged += 1;
                Some(Token::new(self.link.clone(), Owed::PubAck, publish.id, None))
            }
            _ => {
                use std::collections::hash_map::Entry;
                let repeated = match hub::lock(&self.session.state).received.entry(publish.id) {
                    Entry::Occupied(recorded) => Some(*recorded.get()),
                    Entry::Vacant(free) => {
                        free.insert(false);
                        None
                    }
                };
                match repeated {
                    Some(true) => {
                        self.acknowledge(Reply::PubRec, publish.id, reason::SUCCESS);
                        return Ok(());
                    }
                    // Not yet safe: its PUBREC comes when it is.
                    Some(false) => return Ok(()),
                    None => {
                        self.unacknowledged += 1;
                        Some(Token::new(self.link.clone(), Owed::PubRec, publish.id, Some(self.session.clone())))
                    }
                }
            }
        };
        if self.unacknowledged > usize::from(u16::MAX) {
            return Err(End::Closed(reason::RECEIVE_MAXIMUM));
        }
        let payload = at + publish.payload.start..at + publish.payload.end;
        self.hub.publish(
            Some(&self.session),
            route.targets.as_deref(),
            &topic,
            &frames[payload.clone()],
            &publish.properties,
            publish.expiry,
            publish.qos,
            publish.retain,
        );
        self.batch.push(Message {
            topic,
            payload: frames.slice(payload),
            // We are the broker: whatever reaches us is said now.
            retained: false,
            cut: false,
            received: now,
            delivery: (publish.qos > 0).then(|| Delivery::of(self.sender, publish.id, publish.dup)),
            ack: ack.map(Ack::of_broker),
        });
        Ok(())
    }

    /// Finds the ways of the next packets' topics at once. Gives where the first packet behind these begins.
    fn look_ahead(&mut self, frames: &[u8], mut at: usize) -> usize {
        if !self.topics.are_many() {
            return frames.len();
        }
        self.topics.look_ahead(std::iter::from_fn(|| {
            loop {
                let frame = frames.get(at..)?;
                let header = wire::header(frame).ok()??;
                at += header.total();
                let topic = wire::topic(header, frame);
                if !topic.is_empty() {
                    return Some(topic);
                }
            }
        }));
        at
    }

    /// The shared name of a topic and its way, remembered until the subscriptions change.
    fn route(&mut self, topic: &str) -> (Arc<str>, Route) {
        let known = self.topics.get(topic);
        if let Some((name, route)) = known
            && route.epoch == self.hub.epoch()
        {
            return (name.clone(), route.clone());
        }
        let name: Arc<str> = known.map_or_else(|| topic.into(), |(name, _)| name.clone());
        let is_new = known.is_none();
        let route = self.hub.route(topic, Some(Who { user: self.user.as_deref(), client: &self.session.client }));
        if is_new {
            self.topic_bytes += topic.len();
            if self.topics.len() >= MOST_TOPICS || self.topic_bytes > MOST_TOPIC_BYTES {
                self.topics.clear();
                self.topic_bytes = topic.len();
            }
        }
        self.topics.insert(name.clone(), route.clone());
        (name, route)
    }

    fn subscribe(&mut self, subscribe: wire::Subscribe) -> Result<(), End> {
        let mut codes = Vec::with_capacity(subscribe.filters.len());
        let mut retained = Vec::new();
        for (filter, bits) in subscribe.filters {
            let who = Who { user: self.user.as_deref(), client: &self.session.client };
            let refused = if !wire::is_filter(&filter) {
                Some(reason::FILTER)
            } else if filter.starts_with("$share/") {
                Some(reason::SHARED_SUBSCRIPTIONS)
            } else if self.hub.settings.acl.as_ref().is_some_and(|acl| !acl.may_subscribe(who, &filter)) {
                Some(reason::NOT_AUTHORIZED)
            } else if self.hub.subscription_count(&self.session) >= MOST_FILTERS {
                Some(reason::QUOTA)
            } else {
                None
            };
            if let Some(code) = refused {
                self.hub.counters.refused.fetch_add(1, Ordering::Relaxed);
                if let Some(more) = self.hub.say("subscription") {
                    tracing::info!(client = %cut(&self.session.client), filter = %cut(&filter), more, "broker refuses a subscription");
                }
                codes.push(code);
                continue;
            }
            let options = Options {
                // QoS 2 is granted as 1, section 3.8.4.
                qos: (bits & 0x03).min(1),
                no_local: bits & 0x04 != 0,
                retain_as_published: bits & 0x08 != 0,
            };
            let new = self.hub.subscribe(&self.session, &filter, options);
            codes.push(options.qos);
            match (bits >> 4) & 0x03 {
                0 => retained.push((filter, options)),
                1 if new => retained.push((filter, options)),
                _ => {}
            }
        }
        wire::write_suback(&mut self.output, self.version, subscribe.id, &codes);
        for (filter, options) in retained {
            self.hub.send_retained(&self.session, &filter, options);
        }
        Ok(())
    }

    /// Moves what is owed and what is queued into the output.
    fn fill(&mut self) {
        self.link.take_ready(&mut self.ready);
        self.unacknowledged = self.unacknowledged.saturating_sub(self.ready.len());
        for &(owed, id) in &self.ready {
            let kind = match owed {
                Owed::PubAck => Reply::PubAck,
                Owed::PubRec => Reply::PubRec,
            };
            wire::write_acknowledgement(&mut self.output, self.version, kind, id, reason::SUCCESS);
        }
        if self.output.len() >= OUTPUT_FULL {
            return;
        }
        let mut state = hub::lock(&self.session.state);
        if state.is_idle() || !state.link.as_ref().is_some_and(|current| Arc::ptr_eq(current, &self.link)) {
            return;
        }
        let now = self.hub.clock.now();
        while self.output.len() < OUTPUT_FULL
            && let Some((queued, id)) = state.next(self.window)
        {
            let over = queued.publication.expires.is_some_and(|expires| expires <= now.mono);
            let written = !over && {
                let start = self.output.len();
                write_delivery(&mut self.output, self.version, &queued, id, false, now);
                // Section 3.1.2.11.4: what is too large for the client is dropped as if it had been sent.
                let fits = self.output.len() - start <= self.max_delivery;
                if !fits {
                    self.output.truncate(start);
                    self.hub.counters.dropped.fetch_add(1, Ordering::Relaxed);
                }
                fits
            };
            if !written && id != 0 {
                state.acknowledged(id);
            }
        }
    }

    /// Says goodbye, leaves the session, publishes the will.
    async fn leave<W>(mut self, write: &mut W, end: End)
    where
        W: AsyncWrite + Unpin,
    {
        let client = cut(&self.session.client);
        let (with_will, session_expiry, goodbye) = match end {
            End::Goodbye { with_will, session_expiry } => (with_will, session_expiry, None),
            End::Gone => {
                tracing::debug!(%client, "connection lost");
                (true, None, None)
            }
            End::Fault(fault) => {
                note_refusal(&self.hub, &client, fault.words());
                (true, None, Some(fault.reason()))
            }
            End::Closed(reason) => {
                match reason {
                    reason::UNSPECIFIED => {
                        if let Some(more) = self.hub.say("unsafe") {
                            tracing::warn!(
                                %client,
                                more,
                                "a message could not be made safe; broker closes the connection unacknowledged, so that the client sends it again"
                            );
                        }
                    }
                    reason::KEEP_ALIVE => {
                        if let Some(more) = self.hub.say("silent") {
                            tracing::info!(%client, more, "client has been silent for too long; broker closes its connection");
                        }
                    }
                    reason::TAKEN_OVER | reason::SHUTTING_DOWN => {}
                    _ => note_refusal(&self.hub, &client, "it broke a limit of this broker"),
                }
                (true, None, Some(reason))
            }
            End::MainLoopGone => (false, None, Some(reason::SHUTTING_DOWN)),
        };
        let longest = self.hub.settings.session_expiry;
        let expiry = session_expiry.map(|seconds| Duration::from_secs(u64::from(seconds)).min(longest));
        let session_ends = expiry;
        let will = self.hub.detach(&self.session, &self.link, with_will, expiry);
        if let Some(will) = will {
            let delay = Duration::from_secs(u64::from(will.delay));
            let (hub, session, user) = (self.hub.clone(), self.session.clone(), self.user.clone());
            let say = async move {
                if let Some(topic) = hub.publish_will(&session, user.as_deref(), &will) {
                    let messages = vec![will_message(topic, will, hub.clock.now())];
                    let _ = hub.inputs.send(Input::Messages { source: hub.source.clone(), messages }).await;
                }
            };
            if delay.is_zero() || session_ends == Some(Duration::ZERO) {
                say.await;
            } else {
                let (hub, session) = (self.hub.clone(), self.session.clone());
                tokio::spawn(async move {
                    sleep(delay).await;
                    // Section 3.1.3.2.2: not if the client is back in time.
                    if hub.is_away(&session) {
                        say.await;
                    }
                });
            }
        }
        if let Some(reason) = goodbye {
            wire::write_disconnect(&mut self.output, self.version, reason);
        }
        let _ = timeout(Duration::from_secs(1), async {
            write.write_all_buf(&mut self.output).await?;
            write.shutdown().await
        })
        .await;
    }
}

fn will_message(topic: Arc<str>, will: Will, now: Now) -> Message {
    let payload = will.payload.into();
    Message { topic, payload, retained: false, cut: false, received: now, delivery: None, ack: None }
}

fn write_delivery(output: &mut BytesMut, version: Version, queued: &hub::Queued, id: u16, dup: bool, now: Now) {
    let publication = &queued.publication;
    let left = publication.expires.map(|expires| {
        let left = expires.since(now.mono);
        u32::try_from(left.as_secs() + u64::from(left.subsec_nanos() > 0)).unwrap_or(u32::MAX)
    });
    let message = wire::Outgoing {
        dup,
        qos: queued.qos,
        retain: queued.retain,
        id,
        topic: &publication.topic,
        payload: &publication.payload,
        properties: &publication.properties,
        expiry: left,
    };
    message.write(output, version);
}

/// Writes what it can; safe to cancel, since `unflushed` remembers what a layer below may still hold.
async fn push<W>(write: &mut W, output: &mut BytesMut, unflushed: &mut bool) -> std::io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    if output.is_empty() {
        write.flush().await?;
        *unflushed = false;
    } else {
        *unflushed = true;
        if write.write_buf(output).await? == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
    }
    Ok(())
}
