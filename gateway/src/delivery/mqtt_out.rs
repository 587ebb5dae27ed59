//! Alarm events and retained alarm states over MQTT.
//!
//! The topic tree, version 1 (`anmin` is `topic_prefix`):
//!
//! | topic | what | retained |
//! |---|---|---|
//! | `anmin/v1/<site>/alarm/<rule>/<subject>/event` | `alarm.event`: one transition | no |
//! | `anmin/v1/<site>/alarm/<rule>/<subject>/state` | `alarm.state`: how the alarm stands | yes |
//! | `anmin/v1/<site>/call/<station>/<alarm>/event` | `call.event`: one change of a station's call | no |
//! | `anmin/v1/<site>/cap/<status>` | a CAP 1.2 message of a `[[cap]]` that names this way out; `actual`, `exercise`, `test`, `system` | no |
//! | `anmin/v1/<site>/status` | `status`: whether anmin is there; the will says when it is not | yes |
//! | `anmin/v1/<site>/heartbeat` | `heartbeat`: that it is alive, every 30 s | yes |
//!
//! A rule is two levels, `gas/leak`; a subject is `device/point`, a device, or a part of anmin. When an alarm is closed
//! its state says `normal` once more and is then cleared by an empty retained payload: no retained state means no open
//! alarm, and a broker does not fill up with what is over. In a level `+`, `#`, `%` and control characters are written
//! `%XX`, and an empty level is `%`, so that no id can reach into another level. Everything goes with QoS 1; in MQTT 5 the
//! user property `idempotency-key` repeats the order's id.
//!
//! An order counts as delivered when the broker has acknowledged all of its publishes. The client keeps nothing for
//! another connection: what was not acknowledged when one broke is the courier's to send again.
//!
//! ```toml
//! [[mqtt_out]]
//! id            = "office"
//! url           = "mqtts://broker.example.cn"    # or: broker = "embedded"
//! username      = "anmin"
//! password_file = "secrets/broker"
//! min_level     = "blue"
//! ```

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use anmin_rules::alarm::Alarm;
use anmin_rules::order::{CallChange, Channel, ChannelForm, Order, OrderBody};
use anmin_rules::rule::Level;
use anmin_sensors::document::Reader;
use bytes::Bytes;
use hyper::Uri;
use rumqttc::v5::mqttbytes::v5 as five;
use rumqttc::{QoS, TlsConfiguration, Transport, v5};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Carrier, DeliveryError, Receipt, Replaceable, Secret, Site, cap, event, excerpt, read_channel, read_file};
use crate::credentials::ClientTls;
use crate::outgoing::Outgoing;

/// Publishes under way; a courier has eight orders of three publishes each at most, the status is one more.
const IN_FLIGHT: u16 = 64;
/// Larger than any event; what is larger would break the connection and is refused.
const LARGEST: usize = 256 << 10;
/// Short, because an alarm may be waiting and a connection attempt costs next to nothing.
const RECONNECT_LONGEST: Duration = Duration::from_secs(5);

/// The embedded broker's publish: topic, payload, whether to retain. With QoS 1; returns at once. The error says why it
/// was not taken.
pub type Embedded = Arc<dyn Fn(&str, Bytes, bool) -> Result<(), String> + Send + Sync>;

/// For a name to be resolved, and then for a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// `[[mqtt_out]]`.
#[derive(Clone, Debug)]
pub struct Settings {
    pub channel: Channel,
    /// Whether it tells every 30 s that anmin is alive.
    pub heartbeat: bool,
    prefix: String,
    to: To,
}

#[derive(Clone, Debug)]
enum To {
    Embedded,
    Outside(Outside),
}

#[derive(Clone, Debug)]
struct Outside {
    host: String,
    port: u16,
    secure: bool,
    version: Version,
    client_id: Option<String>,
    username: Option<String>,
    password_file: Option<PathBuf>,
    tls: ClientTls,
    outgoing: Outgoing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Three,
    Five,
}

impl Settings {
    pub fn read(r: &Reader<'_>, base: &Path) -> Option<Self> {
        let channel = read_channel(r, ChannelForm::Events, Level::Blue, true);
        let heartbeat = r.or("heartbeat", true);
        let prefix = r.or("topic_prefix", "anmin".to_owned());
        let whole = |level: &str| !level.is_empty() && escape(level) == level;
        if prefix.starts_with('$') || prefix.len() > 200 || !prefix.split('/').all(whole) {
            r.fault(
                "topic_prefix",
                format!("`topic_prefix` is {prefix:?}, expected topic levels without +, #, % and $ at the beginning"),
                None,
            );
        }
        let to = match (r.has("url"), r.choice("broker", &[("embedded", ())])) {
            (true, None) => outside(r, base).map(To::Outside),
            (false, Some(())) => Some(To::Embedded),
            _ if r.is_faulty() => None,
            _ => {
                r.fault("url", "an [[mqtt_out]] stanza needs either `url` or `broker = \"embedded\"`", None);
                r.optional::<String>("url");
                None
            }
        };
        r.finish();
        Some(Self { channel: channel?, heartbeat, prefix, to: to? })
    }

    pub fn heed(&mut self, outgoing: &Outgoing, r: &Reader<'_>) {
        if let To::Outside(outside) = &mut self.to {
            outgoing.check(r, "url", &outside.host);
            outside.outgoing = outgoing.clone();
        }
    }

    /// Whether it needs the embedded broker.
    pub fn is_embedded(&self) -> bool {
        matches!(self.to, To::Embedded)
    }
}

fn outside(r: &Reader<'_>, base: &Path) -> Option<Outside> {
    let url: Option<String> = r.required("url");
    let versions = [("3.1.1", Version::Three), ("5", Version::Five)];
    let version = r.choice("protocol_version", &versions).unwrap_or(Version::Five);
    let client_id: Option<String> = r.optional("client_id");
    let username: Option<String> = r.optional("username");
    let password_file = read_file(r, "password_file", base, Secret::read);
    let tls = ClientTls::read(r, base);
    if password_file.is_some() && username.is_none() {
        r.fault("password_file", "`password_file` without `username`", None);
    }
    if client_id.as_deref().is_some_and(|id| id.is_empty() || id.len() > 200 || id.chars().any(char::is_control)) {
        r.fault("client_id", "`client_id` must have 1 to 200 bytes and no control characters", None);
    }
    let url = url?;
    let Some((host, port, secure)) = address(&url) else {
        let hint = "write mqtt://host:1883 or, with TLS, mqtts://host:8883".to_owned();
        r.fault("url", format!("`url` is {url:?}, which is no address of a broker"), Some(hint));
        return None;
    };
    let outgoing = Outgoing::default();
    Some(Outside { host, port, secure, version, client_id, username, password_file, tls, outgoing })
}

fn address(url: &str) -> Option<(String, u16, bool)> {
    let uri: Uri = url.parse().ok()?;
    let secure = match uri.scheme_str()? {
        "mqtt" => false,
        "mqtts" => true,
        _ => return None,
    };
    let bare = !uri.authority()?.as_str().contains('@') && matches!(uri.path(), "" | "/") && uri.query().is_none();
    let host = uri.host().filter(|host| !host.is_empty() && bare)?;
    Some((host.to_owned(), uri.port_u16().unwrap_or(if secure { 8_883 } else { 1_883 }), secure))
}

/// The carrier of one `[[mqtt_out]]`.
pub struct MqttOut {
    topics: Topics,
    site: Site,
    way: Way,
    begun: AtomicBool,
}

enum Way {
    Embedded(Embedded),
    Outside { link: Arc<Link>, driver: Mutex<Driver> },
}

/// The connection to an outside broker: how it is to be made, and the task that keeps it.
enum Driver {
    Planned(Box<Plan>),
    Runs(JoinHandle<()>),
    Ended,
}

/// Reads the secrets; nothing is said or connected before [`MqttOut::begin`]. `embedded` must be there when
/// [`Settings::is_embedded`].
pub fn carrier(settings: &Settings, site: &Site, embedded: Option<Embedded>) -> Result<MqttOut, String> {
    let topics = Topics { root: format!("{}/v1/{}", settings.prefix, escape(&site.id)) };
    let way = match &settings.to {
        To::Embedded => Way::Embedded(embedded.ok_or("broker = \"embedded\", but there is no embedded broker")?),
        To::Outside(outside) => {
            let password = outside.password_file.as_deref().map(Secret::read).transpose()?;
            let tls = match outside.secure {
                true => Some(Arc::new(outside.tls.config(true)?)),
                false => None,
            };
            let plan = Plan {
                client_id: outside
                    .client_id
                    .clone()
                    .unwrap_or_else(|| format!("anmin-{}-out-{}", site.id, settings.channel.id)),
                outside: outside.clone(),
                password,
                tls,
                status_topic: topics.status(),
                online: event::status(site, true).into(),
                offline: event::status(site, false).into(),
                name: settings.channel.id.to_string(),
            };
            let link = Arc::new(Link::new(format!("{}:{}", outside.host, outside.port)));
            Way::Outside { link, driver: Mutex::new(Driver::Planned(Box::new(plan))) }
        }
    };
    Ok(MqttOut { topics, site: site.clone(), way, begun: AtomicBool::new(false) })
}

impl MqttOut {
    /// Starts the connection in the background; call it inside a Tokio runtime, once.
    pub fn begin(&self) -> Result<(), String> {
        self.begun.store(true, Ordering::Relaxed);
        match &self.way {
            Way::Embedded(publish) => publish(&self.topics.status(), event::status(&self.site, true).into(), true),
            Way::Outside { link, driver } => {
                let mut driver = driver.lock().unwrap_or_else(PoisonError::into_inner);
                if let Driver::Planned(plan) = std::mem::replace(&mut *driver, Driver::Ended) {
                    *driver = Driver::Runs(tokio::spawn(drive(*plan, Arc::clone(link))));
                }
                Ok(())
            }
        }
    }

    /// Says that anmin is no longer there by this way, and carries nothing more. So another may begin in its place although
    /// somebody still holds this one.
    pub fn end(&self) {
        let begun = self.begun.swap(false, Ordering::Relaxed);
        match &self.way {
            // The connection breaks and the broker speaks the will.
            Way::Outside { driver, link, .. } => {
                let mut driver = driver.lock().unwrap_or_else(PoisonError::into_inner);
                if let Driver::Runs(task) = std::mem::replace(&mut *driver, Driver::Ended) {
                    task.abort();
                }
                // Nobody answers any more what is under way.
                link.handle_down("another takes its place");
            }
            Way::Embedded(publish) if begun => {
                if let Err(why) = publish(&self.topics.status(), event::status(&self.site, false).into(), true) {
                    tracing::warn!(%why, "the embedded broker did not take the last status");
                }
            }
            Way::Embedded(_) => {}
        }
    }
}

impl Drop for MqttOut {
    fn drop(&mut self) {
        self.end();
    }
}

impl Carrier for MqttOut {
    async fn carry(&self, order: &Order) -> Result<Receipt, DeliveryError> {
        self.publish(self.publishes(order)?, order.id.as_str()).await?;
        Ok(Receipt::of("acknowledged by the broker"))
    }

    fn reachable(&self) -> Option<bool> {
        match &self.way {
            Way::Embedded(_) => None,
            Way::Outside { link, .. } => Some(link.lock().client.is_some()),
        }
    }

    async fn tell_alive(&self, id: &str, document: Bytes) -> Result<(), DeliveryError> {
        self.publish(vec![Publish { topic: self.topics.heartbeat(), payload: document, retain: true }], id).await
    }
}

/// The connections that are there, by the id of their `[[mqtt_out]]`: other ways out speak by them.
#[derive(Clone, Default)]
pub struct Lines(Arc<RwLock<BTreeMap<Arc<str>, Line>>>);

/// One of them, whoever takes its place.
type Line = Arc<Replaceable<MqttOut>>;

impl Lines {
    pub fn put(&self, id: &Arc<str>, line: &Line) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(Arc::clone(id), Arc::clone(line));
    }

    pub fn take_away(&self, id: &str) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// One CAP message by one of them, below a branch of its status, so that nobody who listens for what is real hears an
    /// exercise. Not kept by the broker: what has expired is not to be told to who comes later.
    pub async fn tell_cap(&self, line: &str, message: &cap::Document, id: &str) -> Result<Receipt, DeliveryError> {
        let line = self.line(line)?;
        let topic = line.topics.cap(&message.status);
        let payload = Bytes::from(message.xml.clone());
        line.publish(vec![Publish { topic, payload, retain: false }], id).await?;
        Ok(Receipt::of("acknowledged by the broker"))
    }

    /// One document of a subscription by one of them. Not kept by the broker: where the subscriber was stands in our journal.
    pub async fn tell_subscriber(
        &self,
        line: &str,
        subscriber: &str,
        document: Bytes,
        id: &str,
    ) -> Result<Receipt, DeliveryError> {
        let line = self.line(line)?;
        let topic = line.topics.subscription(subscriber);
        line.publish(vec![Publish { topic, payload: document, retain: false }], id).await?;
        Ok(Receipt::of("acknowledged by the broker"))
    }

    /// One word to a device by one of them, under a topic of the site's own.
    pub async fn tell(
        &self,
        line: &str,
        topic: &str,
        payload: Bytes,
        retain: bool,
        id: &str,
    ) -> Result<(), DeliveryError> {
        self.line(line)?.publish(vec![Publish { topic: topic.to_owned(), payload, retain }], id).await
    }

    fn line(&self, line: &str) -> Result<Arc<MqttOut>, DeliveryError> {
        let found = self.0.read().unwrap_or_else(PoisonError::into_inner).get(line).cloned();
        let gone = || DeliveryError::Retry(format!("way out {line}, by which it is to go, is not there"));
        found.map(|line| line.now()).ok_or_else(gone)
    }
}

struct Publish {
    topic: String,
    payload: Bytes,
    retain: bool,
}

impl MqttOut {
    /// All of them, in order; `id` is the idempotency key.
    async fn publish(&self, publishes: Vec<Publish>, id: &str) -> Result<(), DeliveryError> {
        if let Some(large) = publishes.iter().find(|one| one.payload.len() > LARGEST || one.topic.len() > 65_535) {
            let (topic, payload) = (large.topic.len(), large.payload.len());
            return Err(DeliveryError::Never(format!(
                "a topic of {topic} and a payload of {payload} bytes are too large"
            )));
        }
        match &self.way {
            Way::Embedded(publish) => {
                for one in publishes {
                    publish(&one.topic, one.payload, one.retain).map_err(DeliveryError::Retry)?;
                }
            }
            Way::Outside { link, .. } => {
                // All are handed in before the first is waited for: they go in order and cost one round trip.
                let answers: Vec<_> = publishes.into_iter().map(|one| link.publish(one, id)).collect();
                for answer in answers {
                    let gone =
                        |_| Err(DeliveryError::Retry("the connection broke before the acknowledgement".to_owned()));
                    answer?.await.unwrap_or_else(gone)?;
                }
            }
        }
        Ok(())
    }

    fn publishes(&self, order: &Order) -> Result<Vec<Publish>, DeliveryError> {
        let news = |topic, payload: Vec<u8>| Publish { topic, payload: payload.into(), retain: false };
        let kept = |topic, payload: Vec<u8>| Publish { topic, payload: payload.into(), retain: true };
        match &order.body {
            OrderBody::Event(transition) => {
                let alarm = &transition.alarm;
                let state = self.topics.alarm(alarm, "state");
                let event = event::alarm_event(&self.site, &order.id, transition);
                let mut publishes = vec![
                    news(self.topics.alarm(alarm, "event"), event),
                    kept(state.clone(), event::alarm_state(&self.site, alarm)),
                ];
                if !alarm.is_open() {
                    publishes.push(kept(state, Vec::new()));
                }
                Ok(publishes)
            }
            OrderBody::Call(change) => {
                let event = event::call_event(&self.site, &order.id, change);
                Ok(vec![news(self.topics.call(change), event)])
            }
            OrderBody::Cap(_) | OrderBody::Siren(_) => {
                Err(DeliveryError::Never("this way out carries events, not CAP".to_owned()))
            }
        }
    }
}

#[derive(Clone, Debug)]
struct Topics {
    /// `anmin/v1/<site>`.
    root: String,
}

impl Topics {
    fn status(&self) -> String {
        format!("{}/status", self.root)
    }

    fn heartbeat(&self) -> String {
        format!("{}/heartbeat", self.root)
    }

    fn subscription(&self, subscriber: &str) -> String {
        format!("{}/subscription/{}", self.root, escape(subscriber))
    }

    fn cap(&self, status: &str) -> String {
        format!("{}/cap/{}", self.root, escape(&status.to_lowercase()))
    }

    fn alarm(&self, alarm: &Alarm, leaf: &str) -> String {
        let (root, rule, subject) = (self.of(alarm), levels(alarm.rule.as_str()), levels(alarm.subject.as_str()));
        format!("{root}/alarm/{rule}/{subject}/{leaf}")
    }

    fn call(&self, change: &CallChange) -> String {
        let root = self.of(&change.alarm);
        format!("{root}/call/{}/{}/event", escape(&change.call.station), change.call.alarm)
    }

    /// A drill's have a branch of their own, so that they never take the place of what is kept of a real alarm.
    fn of(&self, alarm: &Alarm) -> Cow<'_, str> {
        match alarm.drill {
            None => (&*self.root).into(),
            Some(_) => format!("{}/drill", self.root).into(),
        }
    }
}

/// An id whose slashes are levels.
fn levels(id: &str) -> String {
    id.split('/').map(escape).collect::<Vec<_>>().join("/")
}

/// One level, whatever the id holds.
fn escape(id: &str) -> String {
    if id.is_empty() {
        return "%".to_owned();
    }
    let mut level = String::new();
    for letter in id.chars() {
        if matches!(letter, '+' | '#' | '%' | '/') || letter.is_control() {
            let mut bytes = [0; 4];
            level.extend(letter.encode_utf8(&mut bytes).bytes().map(|byte| format!("%{byte:02X}")));
        } else {
            level.push(letter);
        }
    }
    level
}

type Answer = Result<(), DeliveryError>;

/// Publishes and their acknowledgements, matched over one connection.
///
/// rumqttc numbers a publish only when it writes it and tells nobody whose number that is. But it writes in the order in
/// which requests were handed in, and says the number of each. So the waiters stand in line in `handed_in`, under the same
/// lock as the handing in, and move to `sent` under their number.
struct Link {
    peer: String,
    state: Mutex<LinkState>,
}

#[derive(Default)]
struct LinkState {
    /// There exactly while the connection stands.
    client: Option<Client>,
    handed_in: VecDeque<oneshot::Sender<Answer>>,
    sent: HashMap<u16, oneshot::Sender<Answer>>,
    /// Why there is no connection.
    why: String,
}

impl Link {
    fn new(peer: String) -> Self {
        Self { peer, state: Mutex::new(LinkState { why: "not connected yet".to_owned(), ..LinkState::default() }) }
    }

    fn lock(&self) -> MutexGuard<'_, LinkState> {
        // Nothing under this lock panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, publish: Publish, key: &str) -> Result<oneshot::Receiver<Answer>, DeliveryError> {
        let mut state = self.lock();
        let Some(client) = &state.client else {
            return Err(DeliveryError::Retry(format!("no connection to {}: {}", self.peer, state.why)));
        };
        client.publish(publish, Some(key)).map_err(DeliveryError::Retry)?;
        let (answer, waiter) = oneshot::channel();
        state.handed_in.push_back(answer);
        Ok(waiter)
    }

    fn handle_up(&self, client: Client, status: Publish) {
        let mut state = self.lock();
        if client.publish(status, None).is_ok() {
            // Nobody waits for the status, but it takes a number like any other.
            state.handed_in.push_back(oneshot::channel().0);
        }
        state.client = Some(client);
    }

    /// Everything that was not acknowledged is the courier's again.
    fn handle_down(&self, why: &str) {
        let mut state = self.lock();
        let LinkState { handed_in, sent, .. } = std::mem::take(&mut *state);
        state.why = why.to_owned();
        drop(state);
        for waiter in handed_in.into_iter().chain(sent.into_values()) {
            let _ = waiter.send(Err(DeliveryError::Retry(format!("the connection to {} broke: {why}", self.peer))));
        }
    }

    fn handle_sent(&self, number: u16) {
        let mut state = self.lock();
        if let Some(waiter) = state.handed_in.pop_front() {
            state.sent.insert(number, waiter);
        }
    }

    fn handle_acknowledged(&self, number: u16, answer: Answer) {
        let waiter = self.lock().sent.remove(&number);
        if let Some(waiter) = waiter {
            // Whoever has given up waiting will send the order again.
            let _ = waiter.send(answer);
        }
    }
}

/// What is needed for each new connection.
struct Plan {
    name: String,
    client_id: String,
    outside: Outside,
    password: Option<Secret>,
    tls: Option<Arc<rustls::ClientConfig>>,
    status_topic: String,
    online: Bytes,
    offline: Bytes,
}

/// Keeps the connection: a new client each time, so that nothing of a broken one can reach the next.
async fn drive(plan: Plan, link: Arc<Link>) {
    let mut wait = Duration::from_secs(1);
    // Why it was last away, until it is there again: each reason is said once, the alarm about the way out stands.
    let mut said = String::new();
    loop {
        let why = match plan.connect().await {
            Ok((client, events)) => plan.serve(client, events, &link, &mut wait, &mut said).await,
            Err(why) => why,
        };
        let why = excerpt(&why);
        link.handle_down(&why);
        if why != said {
            tracing::warn!(way_out = %plan.name, peer = %link.peer, %why,
                "no connection; alarm events wait and are kept, tried again at least every {RECONNECT_LONGEST:?}");
            said.clone_from(&why);
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RECONNECT_LONGEST);
    }
}

impl Plan {
    /// Carries what the client does into the link, until it says why it can no more.
    async fn serve(
        &self,
        client: Client,
        mut events: Events,
        link: &Link,
        wait: &mut Duration,
        said: &mut String,
    ) -> String {
        let mut client = Some(client);
        loop {
            match events.next().await {
                Ok(Happened::Connected) => {
                    tracing::info!(way_out = %self.name, peer = %link.peer, "connected");
                    *wait = Duration::from_secs(1);
                    said.clear();
                    let status =
                        Publish { topic: self.status_topic.clone(), payload: self.online.clone(), retain: true };
                    if let Some(client) = client.take() {
                        link.handle_up(client, status);
                    }
                }
                Ok(Happened::Sent(number)) => link.handle_sent(number),
                Ok(Happened::Acknowledged(number, answer)) => link.handle_acknowledged(number, answer),
                Ok(Happened::Nothing) => {}
                Err(why) => return why,
            }
        }
    }

    /// A client that dials when it is first asked what happened. The error says why it may not.
    async fn connect(&self) -> Result<(Client, Events), String> {
        let Outside { host, port, version, username, secure, outgoing, .. } = &self.outside;
        let name = timeout(CONNECT_LIMIT, outgoing.name_for_client(host, *port, *secure)).await;
        let host =
            &name.map_err(|_| "its name is not resolved in time".to_owned())?.map_err(|error| error.to_string())?;
        let transport = match &self.tls {
            Some(tls) => Transport::tls_with_config(TlsConfiguration::Rustls(Arc::clone(tls))),
            None => Transport::tcp(),
        };
        let password = self.password.as_ref().map_or("", |password| password.reveal());
        let (will, topic) = (self.offline.to_vec(), self.status_topic.clone());
        let mut network = rumqttc::NetworkOptions::new();
        network.set_connection_timeout(CONNECT_LIMIT.as_secs());
        // Without it a state waits for the kernel's acknowledgement of the event before it, 40 ms at worst.
        network.set_tcp_nodelay(true);
        match version {
            Version::Five => {
                let mut options = v5::MqttOptions::new(&self.client_id, host, *port);
                options.set_transport(transport);
                options.set_clean_start(true);
                options.set_keep_alive(Duration::from_secs(20));
                options.set_connection_timeout(CONNECT_LIMIT.as_secs());
                options.set_network_options(network);
                // Its table of publishes under way is made at full length: 65,535 would be megabytes.
                options.set_outgoing_inflight_upper_limit(IN_FLIGHT);
                options.set_last_will(five::LastWill::new(topic, will, five_qos(), true, None));
                if let Some(username) = username {
                    options.set_credentials(username, password);
                }
                let (client, events) = v5::AsyncClient::new(options, usize::from(IN_FLIGHT));
                Ok((Client::Five(client), Events::Five(Box::new(events))))
            }
            Version::Three => {
                let mut options = rumqttc::MqttOptions::new(&self.client_id, host, *port);
                options.set_transport(transport);
                options.set_clean_session(true);
                options.set_keep_alive(Duration::from_secs(20));
                options.set_inflight(IN_FLIGHT);
                options.set_max_packet_size(64 << 10, LARGEST + (128 << 10));
                options.set_last_will(rumqttc::LastWill::new(topic, will, QoS::AtLeastOnce, true));
                if let Some(username) = username {
                    options.set_credentials(username, password);
                }
                let (client, mut events) = rumqttc::AsyncClient::new(options, usize::from(IN_FLIGHT));
                events.set_network_options(network);
                Ok((Client::Three(client), Events::Three(Box::new(events))))
            }
        }
    }
}

const fn five_qos() -> v5::mqttbytes::QoS {
    v5::mqttbytes::QoS::AtLeastOnce
}

enum Client {
    Three(rumqttc::AsyncClient),
    Five(v5::AsyncClient),
}

impl Client {
    fn publish(&self, publish: Publish, key: Option<&str>) -> Result<(), String> {
        let Publish { topic, payload, retain } = publish;
        match self {
            Self::Three(client) => client
                .try_publish(topic, QoS::AtLeastOnce, retain, payload)
                .map_err(|error| format!("the client did not take it: {error}")),
            Self::Five(client) => {
                let properties = five::PublishProperties {
                    user_properties: key
                        .map(|key| ("idempotency-key".to_owned(), key.to_owned()))
                        .into_iter()
                        .collect(),
                    content_type: (!payload.is_empty()).then(|| "application/json".to_owned()),
                    ..five::PublishProperties::default()
                };
                client
                    .try_publish_with_properties(topic, five_qos(), retain, payload, properties)
                    .map_err(|error| format!("the client did not take it: {error}"))
            }
        }
    }
}

enum Events {
    Three(Box<rumqttc::EventLoop>),
    Five(Box<v5::EventLoop>),
}

enum Happened {
    Connected,
    Sent(u16),
    Acknowledged(u16, Answer),
    Nothing,
}

impl Events {
    async fn next(&mut self) -> Result<Happened, String> {
        match self {
            Self::Three(events) => {
                use rumqttc::{Event, Outgoing, Packet};
                Ok(match events.poll().await.map_err(|error| error.to_string())? {
                    Event::Incoming(Packet::ConnAck(_)) => Happened::Connected,
                    Event::Incoming(Packet::PubAck(ack)) => Happened::Acknowledged(ack.pkid, Ok(())),
                    Event::Outgoing(Outgoing::Publish(number)) => Happened::Sent(number),
                    _ => Happened::Nothing,
                })
            }
            Self::Five(events) => {
                use rumqttc::Outgoing;
                use rumqttc::v5::Event;
                Ok(match events.poll().await.map_err(|error| error.to_string())? {
                    Event::Incoming(v5::Incoming::ConnAck(_)) => Happened::Connected,
                    Event::Incoming(v5::Incoming::PubAck(ack)) => Happened::Acknowledged(ack.pkid, judge(ack.reason)),
                    Event::Outgoing(Outgoing::Publish(number)) => Happened::Sent(number),
                    _ => Happened::Nothing,
                })
            }
        }
    }
}

/// What a broker's reason means. It will never take a topic or payload that it calls invalid; rights, quotas and its own
/// troubles can be mended while the order waits.
fn judge(reason: five::PubAckReason) -> Answer {
    use five::PubAckReason as Reason;
    match reason {
        Reason::Success | Reason::NoMatchingSubscribers => Ok(()),
        Reason::TopicNameInvalid | Reason::PayloadFormatInvalid => {
            Err(DeliveryError::Never(format!("the broker refused it: {reason:?}")))
        }
        _ => Err(DeliveryError::Retry(format!("the broker refused it for now: {reason:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::process::{Child, Command, Stdio};

    use anmin_rules::alarm::{AlarmState, Cause, Subject};
    use anmin_rules::order::OrderId;
    use anmin_rules::rule::RuleId;
    use anmin_sensors::document::{Document, Faults};
    use anmin_sensors::point::{DeviceId, PointId};
    use serde_json::Value as Json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::samples::{self, site};

    fn settings(text: &str) -> Result<Settings, Vec<String>> {
        let faults = Faults::default();
        let text = format!("id = 'office'\n{text}\n");
        let doc = Document::parse("t.toml", &text, &faults).expect("TOML");
        let found = Settings::read(&doc.root(&faults), Path::new("/nowhere"));
        let faults = faults.take();
        match found {
            Some(settings) if faults.is_empty() => Ok(settings),
            _ => Err(faults.iter().map(ToString::to_string).collect()),
        }
    }

    fn order(seq: u32, cause: Cause, alarm: Alarm) -> Order {
        Order {
            id: OrderId::new(format!("{}/{seq}/office", alarm.id)),
            channel: "office".into(),
            body: OrderBody::Event(samples::transition(AlarmState::Normal, cause, alarm)),
        }
    }

    fn raised() -> Order {
        order(1, Cause::Raised, samples::alarm())
    }

    fn over() -> Order {
        order(4, Cause::Returned, samples::closed())
    }

    #[test]
    fn no_id_reaches_into_another_level() {
        let topics = Topics { root: format!("anmin/v1/{}", escape("社区+1")) };
        for (rule, subject, wanted) in [
            ("gas/leak", Subject::Point(PointId::new("b3-2-gas/lel")), "gas/leak/b3-2-gas/lel"),
            ("gas/leak", Subject::Device(DeviceId::new("燃气 3#")), "gas/leak/燃气 3%23"),
            ("system/part", Subject::Part("bus:a/7".into()), "system/part/bus:a/7"),
            ("#", Subject::Part("+/%/\u{0}".into()), "%23/%2B/%25/%00"),
            ("", Subject::Part("//".into()), "%/%/%/%"),
        ] {
            let alarm = Alarm { rule: RuleId::new(rule), subject, ..samples::alarm() };
            assert_eq!(topics.alarm(&alarm, "event"), format!("anmin/v1/社区%2B1/alarm/{wanted}/event"));
        }
        let mut call = (*samples::call_change()).clone();
        call.call.station = "../#".into();
        assert_eq!(topics.call(&call), format!("anmin/v1/社区%2B1/call/..%2F%23/{}/event", call.call.alarm));
        let played = Alarm { drill: Some(anmin_rules::drill::DrillId(uuid::Uuid::nil())), ..samples::alarm() };
        let wanted = "anmin/v1/社区%2B1/drill/alarm/gas/leak/b3-2-gas/lel/state";
        assert_eq!(topics.alarm(&played, "state"), wanted, "a drill overwrites no real state");
    }

    #[test]
    fn settings_need_one_broker() {
        for (text, wanted) in [
            ("", "either `url` or `broker"),
            ("url = 'mqtt://a'\nbroker = 'embedded'", "either `url` or `broker"),
            ("url = 'http://a'", "no address of a broker"),
            ("url = 'mqtt://user:secret@a'", "no address of a broker"),
            ("url = 'mqtt://a/b'", "no address of a broker"),
            ("broker = 'mosquitto'", "expected one of embedded"),
            ("url = 'mqtt://a'\ntopic_prefix = 'a/+/b'", "topic levels"),
            ("url = 'mqtt://a'\ntopic_prefix = '$SYS'", "topic levels"),
            ("url = 'mqtt://a'\npassword_file = 'gone'", "not there"),
            ("url = 'mqtt://a'\nprotocol_version = '3'", "expected one of 3.1.1, 5"),
            ("url = 'mqtt://a'\nclient_id = ''", "1 to 200 bytes"),
        ] {
            let found = settings(text).expect_err(text).join("\n");
            assert!(found.contains(wanted), "{text}: {found}");
        }
        assert!(settings("broker = 'embedded'").expect("settings").is_embedded());
        assert_eq!(address("mqtts://[::1]"), Some(("[::1]".to_owned(), 8_883, true)));
        assert_eq!(address("mqtt://a:1884/"), Some(("a".to_owned(), 1_884, false)));
    }

    #[tokio::test]
    async fn the_embedded_broker_gets_event_state_and_the_end_of_it() {
        let taken: Arc<Mutex<Vec<(String, usize, bool)>>> = Arc::default();
        let kept = Arc::clone(&taken);
        let publish: Embedded = Arc::new(move |topic, payload, retain| {
            kept.lock().expect("nobody panics with it").push((topic.to_owned(), payload.len(), retain));
            Ok(())
        });
        let carrier =
            carrier(&settings("broker = 'embedded'").expect("settings"), &site(), Some(publish)).expect("a carrier");
        carrier.begin().expect("it takes the status");
        for order in [raised(), over()] {
            carrier.carry(&order).await.expect("taken");
        }
        drop(carrier);
        let taken = taken.lock().expect("nobody panics with it");
        let short: Vec<(&str, bool, bool)> =
            taken.iter().map(|(topic, length, retain)| (topic.as_str(), *length == 0, *retain)).collect();
        let (event, state) = (
            "anmin/v1/shequ-001/alarm/gas/leak/b3-2-gas/lel/event",
            "anmin/v1/shequ-001/alarm/gas/leak/b3-2-gas/lel/state",
        );
        let status = "anmin/v1/shequ-001/status";
        let wanted = [
            (status, false, true),
            (event, false, false),
            (state, false, true),
            (event, false, false),
            (state, false, true),
            (state, true, true),
            (status, false, true),
        ];
        assert_eq!(short, wanted);
    }

    #[tokio::test]
    async fn a_broadcast_goes_by_the_connection_under_the_topic_of_its_status_and_is_not_kept() {
        let taken: Arc<Mutex<Vec<(String, Bytes, bool)>>> = Arc::default();
        let kept = Arc::clone(&taken);
        let publish: Embedded = Arc::new(move |topic, payload, retain| {
            kept.lock().expect("nobody panics with it").push((topic.to_owned(), payload, retain));
            Ok(())
        });
        let line =
            carrier(&settings("broker = 'embedded'").expect("settings"), &site(), Some(publish)).expect("a carrier");
        let lines = Lines::default();
        let document = |status: &str| cap::Document {
            identifier: "x".to_owned(),
            status: status.to_owned(),
            headline: String::new(),
            description: String::new(),
            xml: format!("<alert>{status}</alert>"),
        };
        let early = lines.tell_cap("office", &document("Actual"), "1").await;
        assert!(matches!(early, Err(DeliveryError::Retry(_))), "{early:?}");
        let (id, line) = (Arc::from("office"), Arc::new(Replaceable::new(line)));
        lines.put(&id, &line);
        for status in ["Exercise", "Actual"] {
            lines.tell_cap("office", &document(status), status).await.expect("taken");
        }
        lines.take_away("office");
        assert!(lines.tell_cap("office", &document("Actual"), "2").await.is_err());
        let taken = taken.lock().expect("nobody panics with it");
        let wanted = ["exercise", "actual"].map(|status| format!("anmin/v1/shequ-001/cap/{status}"));
        assert!(taken.iter().map(|(topic, ..)| topic).eq(&wanted), "{taken:?}");
        assert!(taken.iter().all(|(.., retain)| !retain));
        assert_eq!(taken[1].1, "<alert>Actual</alert>");
    }

    /// Debian's broker on a free port, without a disk.
    struct Mosquitto {
        child: Child,
        port: u16,
        config: PathBuf,
    }

    impl Mosquitto {
        fn start(port: Option<u16>) -> Self {
            let port = port.unwrap_or_else(|| {
                let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port on loopback");
                free.local_addr().expect("it is bound").port()
            });
            let config = std::env::temp_dir().join(format!("anmin-mosquitto-{}-{port}.conf", std::process::id()));
            std::fs::write(&config, format!("listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n"))
                .expect("a file for its settings");
            let found = std::env::var_os("PATH").unwrap_or_default();
            let paths = std::env::split_paths(&found).chain([PathBuf::from("/usr/sbin")]);
            let program = paths.map(|path| path.join("mosquitto")).find(|path| path.is_file());
            let child = Command::new(program.expect("mosquitto is installed"))
                .arg("-c")
                .arg(&config)
                .stderr(Stdio::null())
                .spawn()
                .expect("mosquitto starts");
            Self { child, port, config }
        }

        fn stop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    impl Drop for Mosquitto {
        fn drop(&mut self) {
            self.stop();
            let _ = std::fs::remove_file(&self.config);
        }
    }

    /// Carries as the courier would, again and again until the broker has taken it.
    async fn carry_until_taken(carrier: &MqttOut, order: &Order) {
        let limit = tokio::time::timeout(Duration::from_secs(20), async {
            while let Err(error) = carrier.carry(order).await {
                assert!(matches!(error, DeliveryError::Retry(_)), "{error}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        limit.await.expect("the broker comes up");
    }

    struct Subscriber(v5::EventLoop, #[expect(dead_code, reason = "the loop ends with it")] v5::AsyncClient);

    impl Subscriber {
        async fn connect(port: u16) -> Self {
            let mut options = v5::MqttOptions::new("watcher", "127.0.0.1", port);
            options.set_max_packet_size(Some(1 << 20));
            let (client, events) = v5::AsyncClient::new(options, 8);
            client.subscribe("anmin/#", five_qos()).await.expect("handed in");
            let mut subscriber = Self(events, client);
            loop {
                let event = subscriber.0.poll().await.expect("the broker is up");
                if matches!(event, v5::Event::Incoming(v5::Incoming::SubAck(_))) {
                    return subscriber;
                }
            }
        }

        /// Last level, what it is about, whether it came as retained, and its key.
        async fn next(&mut self) -> (String, String, bool, Option<String>) {
            let publish = loop {
                let event = tokio::time::timeout(Duration::from_secs(10), self.0.poll()).await;
                if let v5::Event::Incoming(v5::Incoming::Publish(publish)) =
                    event.expect("a message").expect("the broker is up")
                {
                    break publish;
                }
            };
            let topic = String::from_utf8(publish.topic.to_vec()).expect("UTF-8");
            let leaf = topic.rsplit('/').next().unwrap_or_default().to_owned();
            let json: Json = serde_json::from_slice(&publish.payload).unwrap_or_default();
            let about = [&json["state"], &json["online"]].into_iter().find(|value| !value.is_null());
            let about = about.map(|value| value.to_string().replace('"', "")).unwrap_or_default();
            let keys = publish.properties.map(|properties| properties.user_properties).unwrap_or_default();
            let key = keys.into_iter().find(|(name, _)| name == "idempotency-key").map(|(_, key)| key);
            (leaf, about, publish.retain, key)
        }
    }

    /// Goal: what the module promises, against a real broker. Method: subscribers before and after, both protocols.
    #[tokio::test]
    async fn a_real_broker_gets_events_states_and_the_will() {
        for version in ["5", "3.1.1"] {
            let broker = Mosquitto::start(None);
            let stanza = format!("url = 'mqtt://127.0.0.1:{}'\nprotocol_version = '{version}'", broker.port);
            let carrier = carrier(&settings(&stanza).expect("settings"), &site(), None).expect("a carrier");
            carrier.begin().expect("nothing is connected yet");
            carry_until_taken(&carrier, &raised()).await;
            assert_eq!(carrier.reachable(), Some(true));

            let mut late = Subscriber::connect(broker.port).await;
            let mut kept = [late.next().await, late.next().await];
            kept.sort();
            let short: Vec<_> =
                kept.iter().map(|(leaf, about, retained, _)| (leaf.as_str(), about.as_str(), *retained)).collect();
            assert_eq!(short, [("state", "unacknowledged", true), ("status", "true", true)], "no event is retained");

            let over = over();
            carrier.carry(&over).await.expect("taken");
            let key = (version == "5").then(|| over.id.to_string());
            for (leaf, about) in [("event", "normal"), ("state", "normal"), ("state", "")] {
                assert_eq!(late.next().await, (leaf.to_owned(), about.to_owned(), false, key.clone()), "{version}");
            }
            drop(carrier);
            assert_eq!(late.next().await, ("status".to_owned(), "false".to_owned(), false, None), "the will");
            let mut later = Subscriber::connect(broker.port).await;
            assert_eq!(later.next().await, ("status".to_owned(), "false".to_owned(), true, None), "all that is left");
        }
    }

    #[tokio::test]
    async fn a_broker_that_vanishes_is_said_and_found_again() {
        let mut broker = Mosquitto::start(None);
        let stanza = format!("url = 'mqtt://127.0.0.1:{}'", broker.port);
        let carrier = carrier(&settings(&stanza).expect("settings"), &site(), None).expect("a carrier");
        carrier.begin().expect("nothing is connected yet");
        carry_until_taken(&carrier, &raised()).await;
        broker.stop();
        let failed = loop {
            // The end of the connection may take a moment to be seen; until then the publish waits for its answer.
            if let Err(error) = carrier.carry(&raised()).await {
                break error;
            }
        };
        assert!(matches!(&failed, DeliveryError::Retry(why) if why.contains("127.0.0.1")), "{failed}");
        assert_eq!(carrier.reachable(), Some(false));
        let again = Mosquitto::start(Some(broker.port));
        carry_until_taken(&carrier, &over()).await;
        drop(again);
    }

    /// A broker of MQTT 5 that acknowledges as the test says.
    struct Script {
        socket: TcpStream,
    }

    impl Script {
        async fn accept(listener: &TcpListener) -> Self {
            let (socket, _) = listener.accept().await.expect("a client");
            let mut script = Self { socket };
            assert_eq!(script.packet().await.0 >> 4, 1, "CONNECT");
            script.socket.write_all(&[0x20, 3, 0, 0, 0]).await.expect("CONNACK");
            script
        }

        /// First byte and body of the next packet.
        async fn packet(&mut self) -> (u8, Vec<u8>) {
            let first = self.socket.read_u8().await.expect("a packet");
            let (mut length, mut shift) = (0_usize, 0);
            loop {
                let byte = self.socket.read_u8().await.expect("its length");
                length |= usize::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            let mut body = vec![0; length];
            self.socket.read_exact(&mut body).await.expect("its body");
            (first, body)
        }

        /// Number and topic of the next publish.
        async fn publish(&mut self) -> ([u8; 2], String) {
            loop {
                let (first, body) = self.packet().await;
                if first >> 4 == 3 {
                    let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
                    let topic = String::from_utf8(body[2..2 + length].to_vec()).expect("UTF-8");
                    return ([body[2 + length], body[3 + length]], topic);
                }
            }
        }

        async fn acknowledge(&mut self, number: [u8; 2], reason: u8) {
            self.socket.write_all(&[0x40, 4, number[0], number[1], reason, 0]).await.expect("PUBACK");
        }
    }

    async fn scripted() -> (TcpListener, MqttOut) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port on loopback");
        let address: SocketAddr = listener.local_addr().expect("it is bound");
        let stanza = format!("url = 'mqtt://{address}'");
        let carrier = carrier(&settings(&stanza).expect("settings"), &site(), None).expect("a carrier");
        carrier.begin().expect("nothing is connected yet");
        (listener, carrier)
    }

    /// Goal: an acknowledgement counts for its own publish, in whatever order they come. Method: two orders under way at
    /// once; the broker takes the second's publishes first and refuses one of the first's.
    #[tokio::test]
    async fn acknowledgements_find_their_orders() {
        let (listener, carrier) = scripted().await;
        let mut broker = Script::accept(&listener).await;
        let (number, topic) = broker.publish().await;
        assert!(topic.ends_with("/status"), "{topic}");
        broker.acknowledge(number, 0).await;
        let (first, second) = (samples::order("a", 1, Level::Red), samples::order("b", 1, Level::Red));
        let both = async { tokio::join!(carrier.carry(&first), carrier.carry(&second)) };
        let broker = async {
            let mut numbers = Vec::new();
            for _ in 0..4 {
                numbers.push(broker.publish().await);
            }
            numbers.sort_by(|(_, a), (_, b)| b.cmp(a));
            for (number, topic) in numbers {
                broker.acknowledge(number, if topic.ends_with("/a/lel/state") { 0x90 } else { 0 }).await;
            }
            broker
        };
        let ((first, second), _broker) = tokio::join!(both, broker);
        assert!(matches!(first, Err(DeliveryError::Never(why)) if why.contains("TopicNameInvalid")));
        assert!(second.is_ok(), "{second:?}");
    }

    #[tokio::test]
    async fn what_was_not_acknowledged_when_the_connection_broke_is_the_couriers_again() {
        let (listener, carrier) = scripted().await;
        let mut broker = Script::accept(&listener).await;
        let order = raised();
        let (number, _) = broker.publish().await;
        broker.acknowledge(number, 0).await;
        let broken = async {
            let (number, _) = broker.publish().await;
            broker.acknowledge(number, 0).await;
            broker.publish().await;
            drop(broker);
        };
        let (failed, ()) = tokio::join!(carrier.carry(&order), broken);
        assert!(matches!(&failed, Err(DeliveryError::Retry(why)) if why.contains("broke")), "{failed:?}");
        let mut broker = Script::accept(&listener).await;
        let (_, topic) = broker.publish().await;
        assert!(topic.ends_with("/status"), "nothing of the old connection comes first: {topic}");
    }

    #[test]
    fn reasons_are_judged() {
        use five::PubAckReason as Reason;
        for (reason, wanted) in [
            (Reason::Success, "taken"),
            (Reason::NoMatchingSubscribers, "taken"),
            (Reason::NotAuthorized, "retry"),
            (Reason::QuotaExceeded, "retry"),
            (Reason::PayloadFormatInvalid, "never"),
        ] {
            let found = match judge(reason) {
                Ok(()) => "taken",
                Err(DeliveryError::Never(_)) => "never",
                Err(_) => "retry",
            };
            assert_eq!(found, wanted, "{reason:?}");
        }
    }
}
