//! Sparkplug B 3.0: what edge nodes have said of themselves, and the way of their messages to readings.
//!
//! Promises:
//! - A value is read by what the birth of its device said of it, and by nothing else: data before a birth are left out, and
//!   the node is asked for its births.
//! - A number that is missing from a node's sequence is no reason to drop what came after it, since a node may not know how
//!   to be born again; it is a reason to ask. Questions to one node come ever further apart.
//! - A death makes every point behind it offline at once. The will of an earlier session changes nothing.
//! - What a node kept while it had no connection is stored under its own time and is no news.
//!
//! A node whose sequence breaks however often it is asked is told: most often two nodes bear one name.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Binding, Mapping, Message, Retained, Router, Why, points_of_devices};
use crate::decode::message::{MAX_PAYLOAD, Unreadable};
use crate::decode::sparkplug::{Metric, Payload, Topic, Type, command_topic, rebirth};
use crate::decode::topic::Found;
use crate::decode::zigbee2mqtt;
use crate::point::{DeviceId, DeviceIx, PointIx, Points};
use crate::reading::{Fault, Reading};
use crate::time::Mono;

/// Nodes of one broker; a further one is left out.
const MOST_NODES: usize = 10_000;
/// Devices of one node; more than any gateway carries.
const MOST_DEVICES: usize = 10_000;
/// Between the first two questions to a node, then twice as long each time.
const ASK_AGAIN: Duration = Duration::from_secs(5);
const ASK_SELDOM: Duration = Duration::from_secs(300);
/// After so many in vain a person is told.
const IN_VAIN: u32 = 3;
/// A node without a fault for so long is well.
const CALM: Duration = Duration::from_secs(60);
/// Devices that are not born within so long of their node are not there.
const BORN_WITHIN: Duration = Duration::from_secs(10);

/// To be published at this broker, with QoS 0 and not retained (section 6.4.18).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    pub source: Arc<str>,
    pub topic: String,
    pub payload: Vec<u8>,
}

/// How a node stands, where that has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeNews {
    pub source: Arc<str>,
    /// `group/node`.
    pub node: String,
    /// `None`: well again.
    pub trouble: Option<NodeTrouble>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeTrouble {
    /// Its data cannot be read, and it does not say its births although it is asked.
    Unborn,
    /// Its sequence breaks again and again: two nodes with one name, or messages that are lost.
    Broken,
}

/// One edge node.
#[derive(Debug, Default)]
pub(super) struct Node {
    born: Option<Mono>,
    /// Since this birth nobody has looked yet who of before is missing.
    awaits: bool,
    bd_seq: Option<u64>,
    next: Option<u8>,
    /// By name; the empty name is the node itself.
    devices: HashMap<String, Device>,
    asks: u32,
    asked: Option<Mono>,
    /// When something was last wrong.
    wrong: Option<Mono>,
    trouble: Option<NodeTrouble>,
}

#[derive(Debug, Default)]
struct Device {
    is_born: bool,
    /// It was there before its node was born again, and has not been born since.
    is_awaited: bool,
    /// `None`: the site does not know it.
    to: Option<Target>,
    metrics: Vec<Known>,
    /// Place among `metrics`; `None` for what the profile does not know.
    aliases: HashMap<u64, Option<usize>>,
}

#[derive(Clone, Debug)]
struct Target {
    device: DeviceIx,
    first: PointIx,
    binding: Arc<Binding>,
}

/// A metric that the device's profile reads.
#[derive(Debug)]
struct Known {
    name: String,
    datatype: Option<u32>,
}

impl Node {
    /// The node says that it begins. Its devices follow.
    fn handle_birth(&mut self, payload: &Payload<'_>, now: Mono) {
        (self.born, self.awaits) = (Some(now), true);
        self.bd_seq = payload.bd_seq();
        self.next = payload.sequence.map(|sequence| (sequence as u8).wrapping_add(1));
        for device in self.devices.values_mut() {
            device.is_awaited = device.is_born;
            device.is_born = false;
        }
    }

    /// Whether the message is the next one of the node, or one that came before.
    fn is_in_order(&mut self, sequence: Option<u64>) -> bool {
        let Some(sequence) = sequence.map(|sequence| sequence as u8) else { return true };
        let is = self.next.is_none_or(|next| sequence == next || sequence == next.wrapping_sub(1));
        self.next = Some(sequence.wrapping_add(1));
        is
    }

    /// Whether to ask it for its births now.
    fn wants_birth(&mut self, now: Mono) -> bool {
        self.wrong = Some(now);
        let wait = (ASK_AGAIN * (1 << self.asks.saturating_sub(1).min(10))).min(ASK_SELDOM);
        if self.asked.is_some_and(|at| now.since(at) < wait) {
            return false;
        }
        self.asked = Some(now);
        self.asks += 1;
        true
    }

    /// Nothing was wrong with a message. True when the node is well again after trouble.
    fn is_well_again(&mut self, now: Mono) -> bool {
        if self.wrong.is_none_or(|at| now.since(at) < CALM) {
            return false;
        }
        (self.asks, self.asked, self.wrong) = (0, None, None);
        self.trouble.take().is_some()
    }

    fn handle_death(&mut self) {
        (self.born, self.next) = (None, None);
        for device in self.devices.values_mut() {
            (device.is_born, device.is_awaited) = (false, false);
        }
    }

    /// Devices that were there before the last birth and have not come back; looked for once a birth.
    fn missing(&mut self, now: Mono) -> Vec<DeviceIx> {
        if !self.awaits || self.born.is_none_or(|born| now.since(born) < BORN_WITHIN) {
            return Vec::new();
        }
        self.awaits = false;
        let missing = self.devices.values_mut().filter(|device| device.is_awaited && !device.is_born);
        missing
            .filter_map(|device| {
                device.is_awaited = false;
                Some(device.to.as_ref()?.device)
            })
            .collect()
    }
}

impl Device {
    /// Remembers what a birth says of the metrics that the profile reads.
    fn handle_birth(&mut self, payload: &Payload<'_>, to: Option<Target>) {
        (self.is_born, self.is_awaited) = (true, false);
        self.metrics.clear();
        self.aliases.clear();
        if let Some(shape) = to.as_ref().and_then(|to| to.binding.shape.as_ref()) {
            for metric in &payload.metrics {
                let Some(name) = metric.name else { continue };
                let known = shape.points_of_metric(name).next().map(|_| {
                    self.metrics.push(Known { name: name.to_owned(), datatype: metric.datatype });
                    self.metrics.len() - 1
                });
                self.aliases.extend(metric.alias.map(|alias| (alias, known)));
            }
        }
        self.to = to;
    }

    /// Which metric of the birth this is: `Err` for an alias that it did not name.
    fn find(&self, metric: &Metric<'_>) -> Result<Option<&Known>, ()> {
        if let Some(name) = metric.name {
            return Ok(self.metrics.iter().find(|known| known.name == name));
        }
        let alias = metric.alias.ok_or(())?;
        Ok(self.aliases.get(&alias).ok_or(())?.and_then(|at| self.metrics.get(at)))
    }
}

impl Router {
    /// What is to be said to nodes since this was last asked.
    pub fn take_asks(&mut self) -> Vec<Ask> {
        std::mem::take(&mut self.asks)
    }

    /// What is to be said of nodes since this was last asked.
    pub fn take_news(&mut self) -> Vec<NodeNews> {
        std::mem::take(&mut self.news)
    }

    /// One message of a node.
    pub(super) fn sparkplug(
        &mut self,
        points: &mut Points,
        at: (usize, usize, &Mapping),
        topic: &Topic<'_>,
        message: &Message<'_>,
        out: &mut Vec<Reading>,
    ) -> Result<(), Why> {
        if message.payload.len() > MAX_PAYLOAD {
            return Err(Why::Unreadable(Unreadable::TooLong(message.payload.len())));
        }
        if message.payload.is_empty() {
            return Err(Why::Unreadable(Unreadable::Empty));
        }
        let payload = Payload::read(message.payload).map_err(|why| Why::Unreadable(Unreadable::Sparkplug(why)))?;
        let nodes = &mut self.sources[at.0].nodes;
        let key = format!("{}/{}", topic.group, topic.node);
        let mut node = match nodes.remove(&key) {
            Some(node) => node,
            // Nothing was believed of it.
            None if matches!(topic.kind, Type::NodeDeath | Type::DeviceDeath) => return Ok(()),
            None if nodes.len() >= MOST_NODES => {
                return Err(Why::BadDevice(format!("there are more than {MOST_NODES} Sparkplug nodes")));
            }
            None => Node::default(),
        };
        let done = self.of_node(points, at, &mut node, topic, &payload, message, out);
        self.sources[at.0].nodes.insert(key, node);
        done
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of a message and where it belongs")]
    fn of_node(
        &mut self,
        points: &mut Points,
        at: (usize, usize, &Mapping),
        node: &mut Node,
        topic: &Topic<'_>,
        payload: &Payload<'_>,
        message: &Message<'_>,
        out: &mut Vec<Reading>,
    ) -> Result<(), Why> {
        let now = message.received.mono;
        let name = topic.device.unwrap_or_default();
        // What the broker kept stands outside the order, and a death in it may be long over.
        let is_live = !message.retained;
        let mut offline = |devices: Vec<DeviceIx>| {
            let lost = points_of_devices(points, devices).into_iter();
            out.extend(lost.map(|point| message.reading(point, Err(Fault::Offline), false)));
        };
        match topic.kind {
            Type::NodeDeath => {
                if is_live && (node.bd_seq.is_none() || payload.bd_seq() == node.bd_seq) {
                    node.handle_death();
                    offline(node.devices.values().filter_map(|device| Some(device.to.as_ref()?.device)).collect());
                }
                return Ok(());
            }
            Type::NodeBirth => node.handle_birth(payload, now),
            _ if is_live && !node.is_in_order(payload.sequence) => {
                self.ask(at, node, topic, message, NodeTrouble::Broken)
            }
            _ if is_live && node.is_well_again(now) => self.tell(at.0, topic, None),
            _ => {}
        }
        offline(node.missing(now));
        match topic.kind {
            Type::NodeBirth | Type::DeviceBirth => {
                if node.devices.len() >= MOST_DEVICES && !node.devices.contains_key(name) {
                    return Err(Why::BadDevice(format!("the node has more than {MOST_DEVICES} devices")));
                }
                let device = node.devices.entry(name.to_owned()).or_default();
                let to = self.target(points, at, topic, payload, message);
                device.handle_birth(payload, to.as_ref().ok().cloned().flatten());
                if to?.is_none() {
                    return Ok(());
                }
            }
            Type::DeviceDeath => {
                if let Some(device) = node.devices.get_mut(name).filter(|_| is_live) {
                    (device.is_born, device.is_awaited) = (false, false);
                    offline(device.to.iter().map(|to| to.device).collect());
                }
                return Ok(());
            }
            _ => {}
        }
        let Some(device) = node.devices.get(name).filter(|device| device.is_born) else {
            self.ask(at, node, topic, message, NodeTrouble::Unborn);
            return Err(Why::Unborn);
        };
        let Some(Target { first, binding, .. }) = &device.to else {
            // A node that only carries devices has nothing of its own to say.
            return if name.is_empty() { Ok(()) } else { Err(Why::UnknownDevice(self.device_id(at.2, topic)?)) };
        };
        let Some(shape) = &binding.shape else { return Ok(()) };
        let retained = message.retained && binding.retained != Retained::Accept;
        let (mut strange, before) = (false, out.len());
        for metric in &payload.metrics {
            let Ok(found) = device.find(metric) else {
                strange = true;
                continue;
            };
            let Some(Known { name, datatype }) = found else { continue };
            for n in shape.points_of_metric(name) {
                let Some(offset) = binding.offsets.get(n).copied().flatten() else { continue };
                let value = shape.metric(n, metric, *datatype);
                out.push(Reading {
                    source_time: metric.time.or(payload.time),
                    historical: metric.is_historical,
                    ..message.reading(PointIx(first.0 + offset), value, retained)
                });
            }
        }
        if strange {
            self.ask(at, node, topic, message, NodeTrouble::Unborn);
        }
        if topic.kind == Type::DeviceBirth && out.len() == before {
            return Err(Why::Unreadable(Unreadable::NothingKnown));
        }
        Ok(())
    }

    /// Who in the site this device is: `Ok(None)` for a node that has nothing of its own.
    fn target(
        &mut self,
        points: &mut Points,
        (s, m, mapping): (usize, usize, &Mapping),
        topic: &Topic<'_>,
        payload: &Payload<'_>,
        message: &Message<'_>,
    ) -> Result<Option<Target>, Why> {
        let id = self.device_id(mapping, topic)?;
        let device = match points.find_device(id.as_str()) {
            Some(device) => {
                self.quarantine.release(&self.sources[s].id, &id);
                device
            }
            None if topic.device.is_none() && !payload.metrics.iter().any(is_own) => return Ok(None),
            None => {
                let names = Names::of(topic);
                match self.meet(points, (s, m, mapping), &names.found(), id, "", message) {
                    Err(Why::Unreadable(Unreadable::NothingKnown)) if topic.device.is_none() => return Ok(None),
                    Err(Why::Quarantined(id)) => {
                        self.quarantine.describe(&self.sources[s].id, &id, payload);
                        return Err(Why::Quarantined(id));
                    }
                    met => met?,
                }
            }
        };
        let first = points.device(device).points().next().unwrap_or(PointIx(0));
        let binding = self.binding(points, (s, m, mapping), device);
        if binding.shape.is_none() {
            let device = points.device(device);
            return Err(Why::NoShape { device: device.id.clone(), profile: Arc::clone(&device.profile) });
        }
        Ok(Some(Target { device, first, binding }))
    }

    fn device_id(&self, mapping: &Mapping, topic: &Topic<'_>) -> Result<DeviceId, Why> {
        DeviceId::parse(&mapping.device.fill(&Names::of(topic).found())).map_err(Why::BadDevice)
    }

    /// Asks a node for its births, unless it was asked just now.
    fn ask(
        &mut self,
        (s, _, mapping): (usize, usize, &Mapping),
        node: &mut Node,
        topic: &Topic<'_>,
        message: &Message<'_>,
        why: NodeTrouble,
    ) {
        if !node.wants_birth(message.received.mono) {
            return;
        }
        let base = mapping.topics.sparkplug.as_deref().unwrap_or_default();
        self.asks.push(Ask {
            source: Arc::clone(&self.sources[s].id),
            topic: command_topic(base, topic.group, topic.node),
            payload: rebirth(message.received.wall),
        });
        if node.asks >= IN_VAIN && node.trouble.is_none() {
            node.trouble = Some(why);
            self.tell(s, topic, Some(why));
        }
    }

    fn tell(&mut self, s: usize, topic: &Topic<'_>, trouble: Option<NodeTrouble>) {
        let node = format!("{}/{}", topic.group, topic.node);
        self.news.push(NodeNews { source: Arc::clone(&self.sources[s].id), node, trouble });
    }
}

/// Whether a metric says anything but how its node itself is run.
fn is_own(metric: &Metric<'_>) -> bool {
    metric.name.is_some_and(|name| name != "bdSeq" && !name.starts_with("Node Control/"))
}

/// The captures of a topic. Names of nodes are only unique in their group, and those of devices in their node, so a
/// device's own id has all three.
struct Names {
    device: String,
    group: String,
    node: String,
    name: String,
}

impl Names {
    fn of(topic: &Topic<'_>) -> Self {
        // The colon stands between them.
        let part = |text: &str| zigbee2mqtt::device_id(text).replace(':', "%3A");
        let (group, node) = (part(topic.group), part(topic.node));
        let name = topic.device.map(part);
        let mut device = format!("{group}:{node}");
        if let Some(name) = &name {
            device = format!("{device}:{name}");
        }
        Self { device, name: name.unwrap_or_else(|| node.clone()), group, node }
    }

    fn found(&self) -> Found<'_> {
        let captures = CAPTURES.into_iter().zip([&self.device, &self.group, &self.node, &self.name]);
        Found { captures: captures.map(|(name, text)| (name, text.as_str())).collect(), rest: None }
    }
}

/// What a mapping may make ids and places of.
pub(super) const CAPTURES: [&str; 4] = ["device", "group", "node", "name"];

impl fmt::Display for NodeTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unborn => "its data cannot be read, and it does not say its births although it is asked",
            Self::Broken => "its sequence breaks again and again",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Limits;
    use super::super::tests::Site;
    use super::*;
    use crate::decode::sparkplug::written;

    const SITE: &str = "[[mapping]]\npreset = 'sparkplug'\nprofile = 'generic-sparkplug'\nunknown = 'provision'\n\
        location = { building = '{node}', room = '{name}' }\n";

    /// Topic below the base, the words of its payload, what is read; then what is asked and told.
    type Line<'l> = (&'l str, &'l str, &'l str, &'l str);

    fn say(site: &mut Site, topic: &str, words: &str) -> (String, String) {
        let (retained, words) = words.strip_prefix("retained ").map_or((false, words), |words| (true, words));
        let payload = words.strip_prefix("bytes ").map_or_else(|| written(words), |text| text.as_bytes().to_vec());
        let said = site.said_bytes(&format!("spBv1.0/{topic}"), &payload, retained);
        let mut news: Vec<String> =
            site.router.take_asks().into_iter().map(|ask| format!("ask {}", ask.topic)).collect();
        news.extend(site.router.take_news().into_iter().map(|NodeNews { node, trouble, .. }| match trouble {
            Some(trouble) => format!("{node}: {trouble:?}"),
            None => format!("{node}: well"),
        }));
        (said, news.join(", "))
    }

    fn play(text: &str, known: &[(&str, &str)], story: &[Line<'_>]) -> Site {
        let mut site = Site::new(text, known, Limits::default());
        for (n, (topic, words, wanted, news)) in story.iter().enumerate() {
            let said = say(&mut site, topic, words);
            assert_eq!((said.0.as_str(), said.1.as_str()), (*wanted, *news), "line {n}: {topic} {words}");
        }
        site
    }

    const ASK: &str = "ask spBv1.0/g/NCMD/n";

    #[test]
    fn births_name_what_data_say_by_number() {
        let site = play(
            SITE,
            &[],
            &[
                ("g/NBIRTH/n", "t=1772328600000 seq=0 bdSeq=7", "nothing", ""),
                (
                    "g/DBIRTH/n/kitchen",
                    "t=1772328600000 seq=1 gas/lel:1=25.5 smoke/alarm:2=false firmware:3=1",
                    "g:n:kitchen/lel=25.5 g:n:kitchen/smoke=false ts=1772328600000",
                    "",
                ),
                ("g/DDATA/n/kitchen", "t=1772328601000 seq=2 :1=51", "g:n:kitchen/lel=51 ts=1772328601000", ""),
                // Its own time before that of the message; by name; and what the profile does not read.
                (
                    "g/DDATA/n/kitchen",
                    "t=1772328602000 seq=3 :2=true@1772328601500 :3=2",
                    "g:n:kitchen/smoke=true ts=1772328601500",
                    "",
                ),
                ("g/DDATA/n/kitchen", "seq=4 gas/lel=52", "g:n:kitchen/lel=52", ""),
                ("g/DDATA/n/kitchen", "seq=5 :3=3", "nothing", ""),
                // What was kept while the node was away.
                (
                    "g/DDATA/n/kitchen",
                    "seq=6 :1=1@1772328500000~ :1=2@1772328510000~ :1=3@1772328603000",
                    "g:n:kitchen/lel=1 g:n:kitchen/lel=2 g:n:kitchen/lel=3 ts=1772328500000 historical",
                    "",
                ),
                ("g/DDATA/n/kitchen", "seq=7 :9=1", "nothing", ASK),
                ("g/DDATA/n/kitchen", "bytes {\"v\":1}", "not_sparkplug", ""),
                ("g/DDATA/n/kitchen", "", "empty", ""),
                ("g/NCMD/n", "Node=true", "nothing", ""),
                ("g/DDATA/n", "seq=8", "no_mapping", ""),
            ],
        );
        let point = site.points.find("g:n:kitchen/lel").expect("it was provisioned");
        let place = &site.points.device(site.points.point(point).device).place;
        assert_eq!((place.building.as_str(), place.room.as_str()), ("n", "kitchen"));
    }

    #[test]
    fn deaths_make_offline_and_the_will_of_an_earlier_session_does_not() {
        let offline = "g:n:a/lel=bad(offline) g:n:a/smoke=bad(offline)";
        play(
            SITE,
            &[],
            &[
                ("g/NDEATH/n", "bdSeq=6", "nothing", ""),
                ("g/NBIRTH/n", "seq=0 bdSeq=7", "nothing", ""),
                ("g/DBIRTH/n/a", "seq=1 gas/lel:1=1", "g:n:a/lel=1", ""),
                ("g/DBIRTH/n/b", "seq=2 gas/lel:2=2", "g:n:b/lel=2", ""),
                ("g/NDEATH/n", "bdSeq=6", "nothing", ""),
                ("g/NDEATH/n", "retained bdSeq=7", "nothing", ""),
                ("g/DDEATH/n/a", "seq=3", offline, ""),
                ("g/DDATA/n/a", "seq=4 :1=5", "unborn", ASK),
                ("g/DDATA/n/b", "seq=5 :2=5", "g:n:b/lel=5", ""),
                ("g/DBIRTH/n/a", "seq=6 gas/lel:1=1", "g:n:a/lel=1", ""),
                (
                    "g/NDEATH/n",
                    "bdSeq=7",
                    "g:n:a/lel=bad(offline) g:n:a/smoke=bad(offline) g:n:b/lel=bad(offline) g:n:b/smoke=bad(offline)",
                    "",
                ),
                ("g/DDATA/n/b", "seq=7 :2=5", "unborn", ""),
                ("g/NDEATH/n", "bytes x", "not_sparkplug", ""),
            ],
        );
    }

    #[test]
    fn who_has_not_been_born_again_with_its_node_is_not_there() {
        let mut site = play(
            SITE,
            &[],
            &[
                ("g/NBIRTH/n", "seq=0 bdSeq=7", "nothing", ""),
                ("g/DBIRTH/n/a", "seq=1 gas/lel:1=1", "g:n:a/lel=1", ""),
                ("g/DBIRTH/n/b", "seq=2 gas/lel:2=2", "g:n:b/lel=2", ""),
                ("g/NBIRTH/n", "seq=0 bdSeq=7", "nothing", ""),
                ("g/DBIRTH/n/b", "seq=1 gas/lel:3=2", "g:n:b/lel=2", ""),
                ("g/DDATA/n/b", "seq=2 :3=3", "g:n:b/lel=3", ""),
            ],
        );
        site.seconds += 10;
        let said = say(&mut site, "g/DDATA/n/b", "seq=3 :3=4").0;
        assert_eq!(said, "g:n:a/lel=bad(offline) g:n:a/smoke=bad(offline) g:n:b/lel=4");
        assert_eq!(say(&mut site, "g/DDATA/n/b", "seq=4 :2=4").1, ASK, "an alias of the birth before");
    }

    #[test]
    fn a_node_that_names_devices_without_end_is_refused_more() {
        let mut site = play(SITE.replace("provision", "quarantine").as_str(), &[], &[]);
        say(&mut site, "g/NBIRTH/n", "seq=0 bdSeq=7");
        let mut birth =
            |n: usize| say(&mut site, &format!("g/DBIRTH/n/d{n}"), &format!("seq={} gas/lel=1", (n + 1) % 256)).0;
        for n in 0..MOST_DEVICES - 1 {
            let said = birth(n);
            assert_ne!(said, "bad_device", "{n}");
        }
        assert_eq!(birth(MOST_DEVICES), "bad_device");
        assert_ne!(birth(1), "bad_device", "those that are known are read on");
    }

    #[test]
    fn a_gap_drops_nothing_and_is_asked_about_ever_more_seldom() {
        let mut site = play(
            SITE,
            &[],
            &[
                ("g/NBIRTH/n", "seq=255 bdSeq=1", "nothing", ""),
                ("g/DBIRTH/n/a", "seq=0 gas/lel:1=1", "g:n:a/lel=1", ""),
                // Two bridges carry each message.
                ("g/DDATA/n/a", "seq=1 :1=2", "g:n:a/lel=2", ""),
                ("g/DDATA/n/a", "seq=1 :1=2", "g:n:a/lel=2", ""),
                ("g/DDATA/n/a", "seq=3 :1=4", "g:n:a/lel=4", ASK),
                ("g/DDATA/n/a", "seq=4 :1=4", "g:n:a/lel=4", ""),
                ("g/DDATA/n/a", "retained seq=99 :1=4", "g:n:a/lel=4 retained", ""),
            ],
        );
        // Another node with the same name counts for itself: every message breaks the order.
        let mut told = Vec::new();
        for second in 0..1_000_u32 {
            let words = format!("seq={} :1=4", (second * 2) % 256);
            let (said, news) = say(&mut site, "g/DDATA/n/a", &words);
            assert_eq!(said, "g:n:a/lel=4", "{second}");
            if !news.is_empty() {
                told.push((second, news));
            }
        }
        let seconds: Vec<u32> = told.iter().map(|(second, _)| *second).collect();
        assert_eq!(seconds, [2, 12, 32, 72, 152, 312, 612, 912]);
        assert_eq!(told[1].1, format!("{ASK}, g/n: Broken"));
        assert!(told.iter().filter(|(_, news)| news != ASK).count() == 1, "{told:?}");
        // It has gone.
        let mut told = Vec::new();
        for second in 0..100_u32 {
            let news = say(&mut site, "g/DDATA/n/a", &format!("seq={} :1=4", (second + 200) % 256)).1;
            if !news.is_empty() {
                told.push((second, news));
            }
        }
        assert_eq!(told, [(60, "g/n: well".to_owned())]);
    }

    #[test]
    fn a_node_that_is_heard_first_in_the_middle_is_asked_and_a_device_that_introduces_itself_is_read() {
        play(
            SITE,
            &[],
            &[
                ("g/DDATA/n/a", "seq=17 :1=5", "unborn", ASK),
                ("g/NDATA/n", "seq=18 :1=5", "unborn", ""),
                ("g/DBIRTH/n/a", "seq=19 gas/lel:1=1", "g:n:a/lel=1", ""),
                ("g/DDATA/n/a", "seq=20 :1=5", "g:n:a/lel=5", ""),
                // A node with sensors of its own, and names that other topics could not tell apart.
                ("g:n/NBIRTH/a", "seq=0 gas/lel:1=7", "g%3An:a/lel=7", ""),
                ("g:n/NDATA/a", "seq=1 :1=8", "g%3An:a/lel=8", ""),
                // Nothing of its own that anybody reads.
                ("g/NBIRTH/m", "seq=0 Properties/os=1", "nothing", ""),
                ("g/DBIRTH/m/x", "seq=1 other=1", "nothing_known", ""),
            ],
        );
    }

    #[test]
    fn unknown_devices_wait_with_what_their_birth_says() {
        let text = "[[mapping]]\npreset = 'sparkplug'\n";
        let known = [("g:n:a", "generic-sparkplug"), ("g:n:b", "anmin-json-gas")];
        let site = play(
            text,
            &known,
            &[
                ("g/NBIRTH/n", "seq=0 bdSeq=1", "nothing", ""),
                ("g/DBIRTH/n/a", "seq=1 gas/lel:1=1", "g:n:a/lel=1", ""),
                ("g/DBIRTH/n/b", "seq=2 gas/lel:2=1", "nothing_known", ""),
                ("g/DBIRTH/n/c", "seq=3 gas/lel:3=1.5 on:4=true", "quarantined", ""),
                ("g/DDATA/n/c", "seq=4 :3=2", "unknown_device", ""),
            ],
        );
        let waiting: Vec<_> = site.router.quarantined().map(|of| (of.device.as_str(), of.excerpt.as_str())).collect();
        assert_eq!(waiting, [("g:n:c", "gas/lel=1.5 on=true")]);
        assert_eq!(site.router.topic_of("g:n:a"), None);
        assert_eq!(site.router.subscriptions("site").len(), 6);
    }
}
