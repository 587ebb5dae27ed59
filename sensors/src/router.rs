//! MQTT topics to points: mappings, what unknown devices become, and the way of every message to its readings.
//!
//! Promises that a topic seen before costs one look-up, that the identity of a device comes from its topic and never from
//! a payload, and that every message is counted once: it gave readings, it needed none, or it was quarantined or
//! rejected with a reason. Everything that devices can make grow has a bound. It does not know brokers or connections,
//! and not whether a reading is to be believed.

mod sparkplug;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::by_name::ByName;
use crate::decode::homeassistant::{self, Entity};
use crate::decode::json::{Paths, Scalar};
use crate::decode::message::{Payload, Shape, Unreadable, text};
use crate::decode::preset::{Preset, below};
use crate::decode::topic::{Found, Pattern, Template};
use crate::decode::value::Word;
use crate::decode::{sparkplug as wire, zigbee2mqtt};
use crate::document::{self, Faults, FromToml, Reader};
use crate::point::{AddError, DeviceId, DeviceIx, Name, Place, PointIx, PointSpec, Points};
use crate::profile::{Profile, Profiles};
use crate::reading::{Fault, Reading, Value};
use crate::time::{Mono, Now, Wall};

pub use self::sparkplug::{Ask, NodeNews, NodeTrouble};

/// The longest topic that is looked at.
const MAX_TOPIC: usize = 1_024;
/// What is kept of the last payload of an unknown device.
const EXCERPT: usize = 4_096;

/// What devices may make grow, at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Devices of the site, known and provisioned. Further ones are quarantined.
    pub devices: usize,
    /// Unknown devices on the list. A further one takes the place of the first.
    pub quarantined: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { devices: 200_000, quarantined: 1_000 }
    }
}

/// What becomes of retained messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Retained {
    /// They say how things stand, and are no news.
    StateOnly,
    /// As if they were live: for brokers that set the flag on everything.
    Accept,
    Ignore,
}

/// What becomes of devices that the site does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unknown {
    Quarantine,
    Provision,
    Drop,
}

/// One `[[mqtt.mapping]]`: which topics of a broker are devices, and how their messages read.
#[derive(Clone, Debug)]
pub struct Mapping {
    topics: Topics,
    device: Template,
    /// Its own points; without them each device's profile says how it reads.
    inline: Option<Arc<Profile>>,
    /// What an unknown device may be: the only one, or the first whose signature it bears.
    profiles: Vec<Arc<Profile>>,
    expire_after: Option<Duration>,
    availability: Option<Arc<Availability>>,
    retained: Retained,
    unknown: Unknown,
    location: Location,
    at: document::Fault,
}

/// The patterns of one mapping; all that it subscribes to, but for what tells who is there.
#[derive(Clone, Debug, Default)]
struct Topics {
    states: Vec<Pattern>,
    /// Devices use these, too, and they say nothing about the community.
    others: Vec<Pattern>,
    /// Zigbee2MQTT's base: its topics need more than patterns.
    zigbee: Option<String>,
    /// The base of Home Assistant's discovery: its topics announce, they carry no values.
    discovery: Option<String>,
    /// Sparkplug's base: its topics say what kind of message theirs is.
    sparkplug: Option<String>,
}

#[derive(Clone, Debug)]
struct Availability {
    /// `None`: the preset knows the topic.
    topic: Option<Pattern>,
    path: Paths,
    online: Vec<Word>,
    offline: Vec<Word>,
}

/// Where provisioned devices are.
#[derive(Clone, Debug, Default)]
struct Location {
    place: Option<Template>,
    building: Option<Template>,
    unit: Option<Template>,
    floor: Option<Template>,
    room: Option<Template>,
}

/// What a topic is about.
enum About<'t> {
    State(Found<'t>),
    Availability(Found<'t>),
    /// The radio bridge of all devices of the mapping.
    Bridge,
    /// The list of devices that the bridge keeps.
    List,
    /// A device tells what it publishes, and where: the component.
    Announcement(&'t str),
    /// A Sparkplug node speaks.
    Node,
    /// Nothing that concerns us.
    Other,
}

impl Mapping {
    /// Reads one mapping; faults in it are noted. `profiles` are those that the site knows.
    pub fn read(r: &Reader<'_>, profiles: &Profiles) -> Option<Self> {
        let preset = r.choice("preset", &Preset::choices());
        let base = preset.map(|preset| r.or("base_topic", preset.base.to_owned())).unwrap_or_default();
        let topics = match preset {
            Some(preset) => Topics::of(r, preset, &base),
            // A preset that is not known has topics that are not known.
            None if r.has("preset") => r.optional::<String>("topic").and(None),
            None => r.required::<String>("topic").and_then(|text| pattern(r, "topic", &text)).map(Topics::one),
        };
        let captures: Vec<&str> = match &topics {
            Some(topics) if topics.zigbee.is_some() || topics.discovery.is_some() => vec!["device"],
            Some(topics) if topics.sparkplug.is_some() => sparkplug::CAPTURES.to_vec(),
            Some(topics) => topics.states.first().into_iter().flat_map(Pattern::captures).collect(),
            None => Vec::new(),
        };
        // Without a topic, what uses its captures cannot be judged.
        let judge = topics.is_some();
        let template = |r: &Reader<'_>, key: &'static str| {
            let text: String = r.optional(key)?;
            match Template::parse(&text, &captures) {
                Ok(template) => Some(template),
                Err(wrong) if judge => {
                    r.fault(key, wrong, None);
                    None
                }
                Err(_) => None,
            }
        };
        let device = if r.has("device") {
            template(r, "device")
        } else if captures.contains(&"device") || !judge {
            r.optional::<String>("device");
            Template::parse("{device}", &["device"]).ok()
        } else {
            r.required::<String>("device");
            None
        };
        if device.as_ref().is_some_and(Template::is_fixed) && captures.contains(&"device") {
            let hint = Some("device = \"{device}\"".to_owned());
            r.fault("device", "`device` is the same for every topic, although the topic captures {device}", hint);
        }
        let inline = (r.has("points") && (r.has("topic") || preset.is_some())).then(|| {
            let id = format!(
                "mapping:{}",
                topics.iter().flat_map(|t| &t.states).next().map(ToString::to_string).unwrap_or_default()
            );
            let usual = preset.map_or(Payload::Json, |preset| preset.payload);
            Arc::new(Profile::inline(r, Arc::from(id), "points", usual))
        });
        let usual = preset.filter(|_| inline.is_none()).map_or(&[][..], |preset| preset.profiles);
        let named = Self::read_profiles(r, profiles, usual);
        if inline.is_some() && r.has("profile") {
            r.fault("profile", "a mapping has `points` of its own or a `profile`, not both", None);
        }
        if inline.is_none() {
            let payload = r.choice("payload", &Payload::CHOICES);
            if let Some(other) = named.iter().find(|profile| {
                let shape = profile.mqtt.as_ref();
                payload.is_some() && shape.is_some_and(|shape| Some(shape.payload) != payload)
            }) {
                r.fault("payload", format!("profile {} has another `payload`; leave it out here", other.id), None);
            }
        }
        let choices = [("quarantine", Unknown::Quarantine), ("provision", Unknown::Provision), ("drop", Unknown::Drop)];
        let unknown = r.choice("unknown", &choices).unwrap_or(Unknown::Quarantine);
        if unknown == Unknown::Provision && inline.is_none() && named.is_empty() && !r.is_faulty() {
            let hint = Some("profile = \"...\", or points = [ ... ]".to_owned());
            r.fault("unknown", "unknown devices cannot be provisioned without a profile", hint);
        }
        let choices = [("state_only", Retained::StateOnly), ("accept", Retained::Accept), ("ignore", Retained::Ignore)];
        let mut location = Location::default();
        if let Some(table) = r.table("location") {
            location.place = template(&table, "place");
            location.building = template(&table, "building");
            location.unit = template(&table, "unit");
            location.floor = template(&table, "floor");
            location.room = template(&table, "room");
            table.finish();
        }
        let availability = match r.table("availability") {
            Some(table) => Availability::read(&table, preset.map(|preset| (preset, &*base)), &captures),
            None => preset.and_then(|preset| Availability::of(preset, &base)),
        };
        let expire_after = r.optional("expire_after");
        let retained = r.choice("retained", &choices).unwrap_or(Retained::StateOnly);
        r.finish();
        let mapping = Self {
            topics: topics?,
            device: device?,
            inline,
            profiles: named,
            expire_after,
            availability: availability.map(Arc::new),
            retained,
            unknown,
            location,
            at: r.place(if preset.is_some() { "preset" } else { "topic" }),
        };
        (!r.is_faulty()).then_some(mapping)
    }

    fn read_profiles(r: &Reader<'_>, profiles: &Profiles, usual: &[&str]) -> Vec<Arc<Profile>> {
        let names =
            r.optional("profile").unwrap_or_else(|| Names(usual.iter().map(|name| (*name).to_owned()).collect()));
        let mut found = Vec::new();
        for name in &names.0 {
            match profiles.get(name) {
                None => r.fault("profile", format!("there is no profile {name:?}"), profiles.hint(name)),
                Some(profile) => match &profile.mqtt {
                    None => r.fault("profile", format!("profile {name:?} does not speak MQTT"), None),
                    Some(shape) if names.0.len() > 1 && !shape.has_signature() => {
                        let message = format!("profile {name:?} has no `signature` by which its devices are known");
                        r.fault("profile", message, Some("name one profile only".to_owned()));
                    }
                    Some(_) => found.push(Arc::clone(profile)),
                },
            }
        }
        found
    }

    /// Whether a device of this mapping can have an alarm point; `None` where only the device's own profile says so.
    pub fn has_alarm_points(&self) -> Option<bool> {
        let mut named = self.inline.iter().chain(&self.profiles).peekable();
        named.peek()?;
        Some(named.any(|profile| profile.specs().iter().any(|spec| spec.alarm_point)))
    }

    /// Whether devices that nobody has listed become devices of the site.
    pub fn provisions(&self) -> bool {
        self.unknown == Unknown::Provision
    }

    /// Notes every pair of mappings of one broker that would fight for a topic.
    pub fn check_overlaps(mappings: &[Self], faults: &Faults) {
        for (n, later) in mappings.iter().enumerate() {
            let shared = |earlier: &Self| {
                let shared = |pattern: &&Pattern| later.patterns().any(|other| other.overlaps(pattern));
                earlier.patterns().find(shared).map(ToString::to_string)
            };
            if let Some((earlier, pattern)) = mappings[..n].iter().find_map(|earlier| Some((earlier, shared(earlier)?)))
            {
                faults.note(document::Fault {
                    message: format!("the mapping shares topics with that of line {}: {pattern}", earlier.at.line),
                    hint: Some("make one of the two topics narrower".to_owned()),
                    ..later.at.clone()
                });
            }
        }
    }

    fn patterns(&self) -> impl Iterator<Item = &Pattern> {
        self.topics.states.iter()
    }

    fn about<'t>(&'t self, topic: &'t str, name: &'t mut String) -> Option<About<'t>> {
        if let Some(base) = &self.topics.discovery {
            return homeassistant::component(base, topic).map(About::Announcement);
        }
        if let Some(base) = &self.topics.sparkplug {
            return wire::topic(base, topic).map(|topic| match topic.kind {
                wire::Type::Other => About::Other,
                _ => About::Node,
            });
        }
        let Some(base) = &self.topics.zigbee else {
            let available = self.availability.as_ref().and_then(|availability| availability.topic.as_ref());
            let find = |patterns: &'t [Pattern]| patterns.iter().find_map(|pattern| pattern.find(topic));
            // The narrower topic first: a mapping with # takes its own availability topic, too.
            return available
                .and_then(|available| available.find(topic))
                .map(About::Availability)
                .or_else(|| find(&self.topics.states).map(About::State))
                .or_else(|| find(&self.topics.others).map(|_| About::Other));
        };
        let about = zigbee2mqtt::topic(base, topic)?;
        if let zigbee2mqtt::Topic::State(friendly) | zigbee2mqtt::Topic::Availability(friendly) = about {
            *name = zigbee2mqtt::device_id(friendly);
        }
        let found = Found { captures: vec![("device", name.as_str())], rest: None };
        Some(match about {
            zigbee2mqtt::Topic::State(_) => About::State(found),
            zigbee2mqtt::Topic::Availability(_) => About::Availability(found),
            zigbee2mqtt::Topic::Bridge => About::Bridge,
            zigbee2mqtt::Topic::Devices => About::List,
            zigbee2mqtt::Topic::Other => About::Other,
        })
    }
}

impl Topics {
    fn one(pattern: Pattern) -> Self {
        Self { states: vec![pattern], ..Self::default() }
    }

    /// Those of a preset below the mapping's base.
    fn of(r: &Reader<'_>, preset: &Preset, base: &str) -> Option<Self> {
        if r.has("topic") {
            r.fault("topic", "the preset knows its topics; `base_topic` moves them", None);
            r.optional::<String>("topic");
        }
        if !base.is_empty() && Pattern::parse(base).is_err() || base.contains(['+', '#', '{']) {
            let message = format!("`base_topic` is {base:?}, expected a topic without wildcards");
            r.fault("base_topic", message, None);
            return None;
        }
        // Invariant: the patterns of the presets are sound, also below a sound base; a test walks them.
        let under =
            |topics: &[&str]| topics.iter().filter_map(|topic| Pattern::parse(&below(base, topic)).ok()).collect();
        let base_of = |name: &str| (preset.name == name).then(|| base.to_owned());
        let (zigbee, discovery) = (base_of("zigbee2mqtt"), base_of("homeassistant"));
        let (states, others) = (under(preset.states), under(preset.others));
        Some(Self { states, others, zigbee, discovery, sparkplug: base_of("sparkplug") })
    }
}

fn pattern(r: &Reader<'_>, key: &'static str, text: &str) -> Option<Pattern> {
    match Pattern::parse(text) {
        Ok(pattern) => Some(pattern),
        Err(wrong) => {
            r.fault(key, wrong, None);
            None
        }
    }
}

impl Availability {
    fn usual() -> Self {
        Self {
            topic: None,
            // Invariant: the path is sound; without it only plain words would be understood.
            path: Paths::new(["/state"]).unwrap_or_default(),
            online: vec![Word::new("online")],
            offline: vec![Word::new("offline")],
        }
    }

    /// The preset's, below the mapping's base; `None` where its devices never say good-bye.
    fn of(preset: &Preset, base: &str) -> Option<Self> {
        let known = preset.availability.as_ref()?;
        let topic = (!known.topic.is_empty()).then(|| below(base, known.topic));
        Some(Self {
            topic: topic.and_then(|topic| Pattern::parse(&topic).ok()),
            online: vec![Word::new(known.online)],
            offline: vec![Word::new(known.offline)],
            ..Self::usual()
        })
    }

    fn read(r: &Reader<'_>, preset: Option<(&Preset, &str)>, captures: &[&str]) -> Option<Self> {
        let known = preset.and_then(|(preset, base)| Self::of(preset, base));
        let has_topic = known.is_none();
        let mut availability = known.unwrap_or_else(Self::usual);
        if has_topic {
            availability.topic = r.required::<String>("topic").and_then(|text| pattern(r, "topic", &text));
            let found: Vec<&str> = availability.topic.iter().flat_map(Pattern::captures).collect();
            if let Some(missing) = captures.iter().find(|name| **name == "device" && !found.contains(name)) {
                r.fault("topic", format!("the availability topic does not capture {{{missing}}}"), None);
            }
        }
        if let Some(path) = r.optional::<String>("path") {
            match Paths::new([path.as_str()]) {
                Ok(paths) => availability.path = paths,
                Err(wrong) => r.fault("path", wrong, None),
            }
        }
        for (key, words) in [("online", &mut availability.online), ("offline", &mut availability.offline)] {
            if let Some(Words(found)) = r.optional(key) {
                *words = found;
            }
        }
        r.finish();
        Some(availability)
    }

    /// `None` for a word that is neither.
    fn is_online(&self, payload: &[u8]) -> Result<Option<bool>, Unreadable> {
        let text = text(payload)?.trim();
        let mut word = text.to_owned();
        if text.starts_with('{') {
            let mut take = |_, scalar: Scalar<'_>| match scalar {
                Scalar::Text(text) => word = text.trim().to_owned(),
                Scalar::Flag(flag) => word = flag.to_string(),
                Scalar::Number(number) => word = number.to_owned(),
                Scalar::Null | Scalar::NoNumber | Scalar::Compound => {}
            };
            self.path.read(text, &mut take).map_err(Unreadable::Json)?;
        }
        let is = |words: &[Word]| words.iter().any(|known| known.is(&word));
        Ok(if is(&self.offline) { Some(false) } else { is(&self.online).then_some(true) })
    }
}

/// One name or several.
struct Names(Vec<String>);

impl FromToml for Names {
    fn from_toml(value: &toml::de::DeValue<'_>) -> Result<Self, String> {
        String::from_toml(value)
            .map(|name| Self(vec![name]))
            .or_else(|_| Vec::from_toml(value).map(Self))
            .map_err(|_| "the name of a profile, or a list of names".to_owned())
    }
}

/// One word or several.
struct Words(Vec<Word>);

impl FromToml for Words {
    fn from_toml(value: &toml::de::DeValue<'_>) -> Result<Self, String> {
        Word::from_toml(value)
            .map(|word| Self(vec![word]))
            .or_else(|_| Vec::from_toml(value).map(Self))
            .map_err(|_| "a word, or a list of words".to_owned())
    }
}

/// A message that gave no readings although it should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    pub topic: Arc<str>,
    pub why: Why,
}

/// What is wrong with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// No mapping of its broker has the topic.
    NoMapping,
    /// Too long, or it holds what no topic may hold.
    BadTopic,
    /// What the topic calls the device cannot be a device's id.
    BadDevice(String),
    /// The site does not know the device; it stands on the list of unknown devices.
    Quarantined(DeviceId),
    /// The site does not know the device, and the mapping says to drop it.
    UnknownDevice(DeviceId),
    /// The device's profile does not say how MQTT messages read.
    NoShape { device: DeviceId, profile: Arc<str> },
    /// Nothing of the payload can be used.
    Unreadable(Unreadable),
    /// Neither the word for online nor the one for offline.
    NoAvailability,
    /// Not the list of devices that belongs there.
    NoList,
    /// Sparkplug data of a device whose birth was not heard; its node is asked for it.
    Unborn,
}

impl Why {
    /// Whether somebody should look at what the device sends: not where the site has no interest in it, nor where the device
    /// stands on the list of unknown ones, nor where it is asked already to say more.
    pub const fn is_fault_of_device(&self) -> bool {
        !matches!(self, Self::NoMapping | Self::Quarantined(_) | Self::UnknownDevice(_) | Self::Unborn)
    }

    /// The reason's name in metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::NoMapping => "no_mapping",
            Self::BadTopic => "bad_topic",
            Self::BadDevice(_) => "bad_device",
            Self::Quarantined(_) => "quarantined",
            Self::UnknownDevice(_) => "unknown_device",
            Self::NoShape { .. } => "no_shape",
            Self::Unreadable(Unreadable::Empty) => "empty",
            Self::Unreadable(Unreadable::TooLong(_)) => "too_long",
            Self::Unreadable(Unreadable::NotUtf8(_)) => "not_utf8",
            Self::Unreadable(Unreadable::Json(crate::decode::json::JsonError::TooDeep)) => "too_deep",
            Self::Unreadable(Unreadable::Json(_)) => "not_json",
            Self::Unreadable(Unreadable::NotBytes) => "not_bytes",
            Self::Unreadable(Unreadable::Frame(_)) => "bad_frame",
            Self::Unreadable(Unreadable::Sparkplug(_)) => "not_sparkplug",
            Self::Unreadable(Unreadable::NothingKnown) => "nothing_known",
            Self::NoAvailability => "no_availability",
            Self::NoList => "no_list",
            Self::Unborn => "unborn",
        }
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut topic: String = self.topic.chars().take(120).collect();
        if topic.len() < self.topic.len() {
            topic.push('…');
        }
        write!(f, "topic {topic:?}: ")?;
        match &self.why {
            Why::NoMapping => f.write_str("no mapping has this topic; the message is left out"),
            Why::BadTopic => f.write_str("no device has such a topic; the message is left out"),
            Why::BadDevice(wrong) => write!(f, "{wrong}; the message is left out"),
            Why::Quarantined(device) => {
                write!(
                    f,
                    "the site does not know device {:?}; it stands on the list of unknown devices",
                    device.as_str()
                )
            }
            Why::UnknownDevice(device) => {
                write!(f, "the site does not know device {:?}; the message is dropped", device.as_str())
            }
            Why::NoShape { device, profile } => {
                let device = device.as_str();
                write!(
                    f,
                    "profile {profile:?} of device {device:?} does not say how MQTT messages read; the message is left out"
                )
            }
            Why::Unreadable(why) => write!(f, "{why}; the message is left out"),
            Why::NoAvailability => {
                f.write_str("the payload says neither online nor offline; the device stays as it was")
            }
            Why::NoList => f.write_str("the payload is not the list of devices that belongs there; it is left out"),
            Why::Unborn => {
                f.write_str("its birth was not heard; the node is asked for it, and the message is left out")
            }
        }
    }
}

impl std::error::Error for Rejected {}

/// What became of the messages since the start. Those that are not counted below gave readings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub messages: u64,
    /// Understood, and nothing to be done: online again, a bridge's log, a retained message that is to be ignored.
    pub ignored: u64,
    /// From devices that the site does not know.
    pub quarantined: u64,
    /// Nothing of it could be used.
    pub rejected: u64,
    /// Devices made from a profile because they spoke.
    pub provisioned: u64,
}

/// A device that spoke and that the site does not know.
#[derive(Clone, Debug, PartialEq)]
pub struct Quarantined {
    /// The broker it came through.
    pub source: Arc<str>,
    pub device: DeviceId,
    /// The last topic.
    pub topic: Arc<str>,
    pub first: Wall,
    pub last: Wall,
    pub messages: u64,
    /// The start of its last payload; what is not UTF-8 is replaced.
    pub excerpt: String,
    /// The profile that its mapping would read it by, where that names one whose signature it bears.
    pub profile: Option<Arc<str>>,
}

/// Takes every message to the points it is about.
#[derive(Debug)]
pub struct Router {
    profiles: Profiles,
    places: HashMap<String, Arc<Place>>,
    limits: Limits,
    sources: Vec<Source>,
    bindings: HashMap<Like, Arc<Binding>>,
    /// Points of provisioned devices, shared by all that are alike.
    specs: HashMap<Like, Arc<[Arc<PointSpec>]>>,
    provisioned_places: HashMap<[String; 5], Arc<Place>>,
    /// Devices that say they warm up, since when.
    warming: HashMap<DeviceIx, Mono>,
    quarantine: Quarantine,
    /// What devices have announced, by broker and topic.
    announced: HashMap<(usize, String), (DeviceId, Vec<Entity>)>,
    /// What is to be said to Sparkplug nodes, and of them: a few for each message since they were last fetched.
    asks: Vec<Ask>,
    news: Vec<NodeNews>,
    counts: Counts,
}

/// What devices that are read alike have in common: broker, mapping and profile.
type Like = (usize, usize, Arc<str>);

#[derive(Debug)]
struct Source {
    id: Arc<str>,
    mappings: Arc<[Mapping]>,
    /// Topics seen before, of devices that the site knows.
    routes: ByName<Route>,
    /// Sparkplug's nodes, by group and name.
    nodes: HashMap<String, sparkplug::Node>,
}

/// Where the messages of one topic go.
#[derive(Clone, Debug)]
struct Route {
    device: DeviceIx,
    first: PointIx,
    /// The part of the topic that says which point, from byte to byte.
    key: (u16, u16),
    is_availability: bool,
    binding: Arc<Binding>,
}

/// How the messages of one mapping read for devices of one profile.
#[derive(Debug)]
struct Binding {
    mapping: usize,
    shape: Option<Arc<Shape>>,
    availability: Option<Arc<Availability>>,
    /// For each point of the shape, how far behind the device's first point it stands.
    offsets: Box<[Option<u32>]>,
    retained: Retained,
}

impl Router {
    /// `sources` are the brokers with their mappings, `places` the `[[place]]`s of the site by id.
    pub fn new(
        sources: Vec<(Arc<str>, Vec<Mapping>)>,
        profiles: Profiles,
        places: HashMap<String, Arc<Place>>,
        limits: Limits,
    ) -> Self {
        let sources = sources
            .into_iter()
            .map(|(id, mappings)| Source {
                id,
                mappings: mappings.into(),
                routes: ByName::default(),
                nodes: HashMap::new(),
            })
            .collect();
        Self {
            profiles,
            places,
            limits,
            sources,
            bindings: HashMap::new(),
            specs: HashMap::new(),
            provisioned_places: HashMap::new(),
            warming: HashMap::new(),
            quarantine: Quarantine { bound: limits.quarantined, ..Quarantine::default() },
            announced: HashMap::new(),
            asks: Vec::new(),
            news: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// From now on the messages of these sources are read by these mappings; of one without any, not at all. What was learnt of
    /// other sources stays.
    pub fn replace(
        &mut self,
        profiles: Profiles,
        places: HashMap<String, Arc<Place>>,
        sources: Vec<(Arc<str>, Vec<Mapping>)>,
    ) {
        (self.profiles, self.places) = (profiles, places);
        self.provisioned_places.clear();
        for (id, mappings) in sources {
            let mappings = mappings.into();
            match self.sources.iter().position(|of| of.id == id) {
                Some(s) => {
                    self.sources[s] = Source { id, mappings, routes: ByName::default(), nodes: HashMap::new() };
                    self.bindings.retain(|like, _| like.0 != s);
                    self.specs.retain(|like, _| like.0 != s);
                    self.announced.retain(|key, _| key.0 != s);
                }
                None => self.sources.push(Source { id, mappings, routes: ByName::default(), nodes: HashMap::new() }),
            }
        }
    }

    /// The topic filters to subscribe at one broker.
    pub fn subscriptions(&self, source: &str) -> Vec<String> {
        let of = self.sources.iter().find(|of| *of.id == *source);
        of.map(|of| Self::filters(&of.mappings)).unwrap_or_default()
    }

    /// The same of mappings that no router has yet.
    pub fn filters(mappings: &[Mapping]) -> Vec<String> {
        let mut filters: Vec<String> = Vec::new();
        for mapping in mappings {
            filters.extend(mapping.patterns().map(Pattern::filter));
            let available = mapping.availability.as_ref().and_then(|availability| availability.topic.as_ref());
            filters.extend(available.map(Pattern::filter));
        }
        filters.sort();
        filters.dedup();
        filters
    }

    /// The topic on which the first mapping that can hear the device would hear it: for simulators. `None` where the
    /// device's id alone does not say it.
    pub fn topic_of(&self, device: &str) -> Option<String> {
        let mut mappings = self.sources.iter().flat_map(|source| source.mappings.iter());
        mappings.find_map(|mapping| match &mapping.topics.zigbee {
            Some(base) => Some(format!("{base}/{}", zigbee2mqtt::friendly_name(device))),
            None if mapping.topics.sparkplug.is_some() => None,
            None => mapping.patterns().next()?.compose(mapping.device.as_capture()?, device),
        })
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Unknown devices, in no order.
    pub fn quarantined(&self) -> impl ExactSizeIterator<Item = &Quarantined> {
        self.quarantine.list.iter()
    }

    /// The profiles of the site.
    pub fn profiles(&self) -> &Profiles {
        &self.profiles
    }

    /// Takes devices off the list of unknown ones that the site has come to know without their having spoken since.
    pub fn settle(&mut self, points: &Points) {
        let known = self.quarantine.list.iter().filter(|waiting| points.find_device(waiting.device.as_str()).is_some());
        let known: Vec<_> = known.map(|waiting| (Arc::clone(&waiting.source), waiting.device.clone())).collect();
        known.iter().for_each(|(source, device)| self.quarantine.release(source, device));
    }

    /// The points of all devices that were heard through a broker.
    pub fn points_through(&self, points: &Points, source: &str) -> Vec<PointIx> {
        let routes = self.sources.iter().filter(|of| *of.id == *source).flat_map(|of| of.routes.values());
        points_of(points, routes)
    }

    /// Appends the readings of one message. A device that the mapping provisions is added to `points`.
    #[expect(
        clippy::too_many_arguments,
        reason = "a message has many parts, and a struct would be taken apart at once"
    )]
    pub fn decode(
        &mut self,
        points: &mut Points,
        source: &str,
        topic: &Arc<str>,
        payload: &[u8],
        retained: bool,
        received: Now,
        out: &mut Vec<Reading>,
    ) -> Result<(), Rejected> {
        self.counts.messages += 1;
        let start = out.len();
        let message = Message { topic, payload, retained, received };
        let done = self.find(points, source, &message, out);
        match done {
            Ok(()) => {
                self.counts.ignored += u64::from(out.len() == start);
                Ok(())
            }
            Err(why) => {
                out.truncate(start);
                match why {
                    Why::Quarantined(_) => self.counts.quarantined += 1,
                    _ => self.counts.rejected += 1,
                }
                Err(Rejected { topic: Arc::clone(topic), why })
            }
        }
    }

    /// Finds the ways of the next of these topics at once, which are then decoded one after the other.
    pub fn look_ahead<'t>(&mut self, source: &str, topics: impl Iterator<Item = &'t str>) {
        if let Some(of) = self.sources.iter_mut().find(|of| *of.id == *source) {
            of.routes.look_ahead(topics.map(str::as_bytes));
        }
    }

    fn find(
        &mut self,
        points: &mut Points,
        source: &str,
        message: &Message<'_>,
        out: &mut Vec<Reading>,
    ) -> Result<(), Why> {
        let s = self.sources.iter().position(|of| *of.id == *source).ok_or(Why::NoMapping)?;
        if let Some((_, route)) = self.sources[s].routes.get(message.topic) {
            return route.follow(points, message, &mut self.warming, out);
        }
        match self.resolve(points, s, message)? {
            Way::To(route) => {
                let done = route.follow(points, message, &mut self.warming, out);
                if self.sources[s].routes.len() < self.limits.devices.saturating_mul(4) {
                    self.sources[s].routes.insert(Arc::clone(message.topic), route);
                }
                done
            }
            Way::Bridge(mapping) => self.bridge(points, s, mapping, message, out),
            Way::List(mapping) => self.list(points, s, mapping, message),
            Way::Announcement(component) => self.announce(s, &component, message),
            Way::Node(m, topic) => {
                let mappings = Arc::clone(&self.sources[s].mappings);
                self.sparkplug(points, (s, m, &mappings[m]), &topic, message, out)
            }
            Way::Nowhere => Ok(()),
        }
    }

    /// Where a topic leads that was not seen before.
    fn resolve<'m>(&mut self, points: &mut Points, s: usize, message: &Message<'m>) -> Result<Way<'m>, Why> {
        let topic: &'m str = message.topic;
        let strange = |c: char| matches!(c, '+' | '#') || c.is_control();
        if topic.is_empty() || topic.len() > MAX_TOPIC || topic.contains(strange) {
            return Err(Why::BadTopic);
        }
        let mappings = Arc::clone(&self.sources[s].mappings);
        for (m, mapping) in mappings.iter().enumerate() {
            let mut name = String::new();
            let Some(about) = mapping.about(topic, &mut name) else { continue };
            let (found, is_availability) = match about {
                About::State(_) if message.retained && mapping.retained == Retained::Ignore => return Ok(Way::Nowhere),
                About::State(found) => (found, false),
                About::Availability(found) => (found, true),
                About::Bridge => return Ok(Way::Bridge(m)),
                About::List => return Ok(Way::List(m)),
                About::Announcement(component) => return Ok(Way::Announcement(component.to_owned())),
                About::Node if message.retained && mapping.retained == Retained::Ignore => return Ok(Way::Nowhere),
                About::Node => {
                    // Found again, for the mapping's list is held here only.
                    let base = mapping.topics.sparkplug.as_deref().unwrap_or_default();
                    return Ok(wire::topic(base, topic).map_or(Way::Nowhere, |topic| Way::Node(m, topic)));
                }
                About::Other => return Ok(Way::Nowhere),
            };
            let id = DeviceId::parse(&mapping.device.fill(&found)).map_err(Why::BadDevice)?;
            let key = found.get("point").or(found.rest).unwrap_or_default();
            let device = match points.find_device(id.as_str()) {
                Some(device) => {
                    self.quarantine.release(&self.sources[s].id, &id);
                    device
                }
                None if is_availability => return Ok(Way::Nowhere),
                None => self.meet(points, (s, m, mapping), &found, id, key, message)?,
            };
            // Invariant: a key that is not empty is a piece of the topic, which is shorter than 64 KiB.
            let at = if key.is_empty() { 0 } else { key.as_ptr() as usize - topic.as_ptr() as usize };
            let first = points.device(device).points().next().unwrap_or(PointIx(0));
            let binding = self.binding(points, (s, m, mapping), device);
            return Ok(Way::To(Route {
                device,
                first,
                key: (at as u16, (at + key.len()) as u16),
                is_availability,
                binding,
            }));
        }
        Err(Why::NoMapping)
    }

    /// A device that the site does not know speaks.
    fn meet(
        &mut self,
        points: &mut Points,
        (s, m, mapping): (usize, usize, &Mapping),
        found: &Found<'_>,
        id: DeviceId,
        key: &str,
        message: &Message<'_>,
    ) -> Result<DeviceIx, Why> {
        if mapping.unknown == Unknown::Drop {
            return Err(Why::UnknownDevice(id));
        }
        let signed = |profile: &&Arc<Profile>| {
            profile.mqtt.as_ref().is_some_and(|shape| !shape.has_signature() || shape.is_signed(key, message.payload))
        };
        let profile = mapping.inline.as_ref().or_else(|| mapping.profiles.iter().find(signed));
        let full = points.devices().len() >= self.limits.devices;
        let (Unknown::Provision, Some(profile), false) = (mapping.unknown, profile, full) else {
            let named = mapping.inline.is_none().then_some(profile).flatten();
            self.quarantine.note(&self.sources[s].id, &id, message, named);
            return Err(Why::Quarantined(id));
        };
        if let Some(shape) = &profile.mqtt {
            // Noise on a topic makes no device: the message must say something that the profile knows.
            shape.decode(key, message.payload, |_, _| ()).map_err(Why::Unreadable)?;
        }
        let profile = Arc::clone(profile);
        self.provision(points, (s, m, mapping), &profile, found, id)
    }

    /// Makes a device of the site.
    fn provision(
        &mut self,
        points: &mut Points,
        (s, m, mapping): (usize, usize, &Mapping),
        profile: &Arc<Profile>,
        found: &Found<'_>,
        id: DeviceId,
    ) -> Result<DeviceIx, Why> {
        let place = self.place(mapping, found);
        let specs = self.specs.entry((s, m, Arc::clone(&profile.id))).or_insert_with(|| match mapping.expire_after {
            None => profile.specs().into(),
            Some(wait) if mapping.inline.is_some() => profile
                .specs()
                .iter()
                .map(|spec| {
                    let silent_after = spec.silent_after.or(Some(wait));
                    Arc::new(PointSpec { silent_after, ..PointSpec::clone(spec) })
                })
                .collect(),
            Some(wait) => profile.specs_silent_after(wait).into(),
        });
        let zigbee = mapping.topics.zigbee.is_some();
        let label =
            zigbee.then(|| found.get("device").map(|device| Name::both(zigbee2mqtt::friendly_name(device)))).flatten();
        let device = points
            .add(id, label.as_ref(), &profile.id, &place, specs)
            .map_err(|error: AddError| Why::BadDevice(error.to_string()))?;
        self.counts.provisioned += 1;
        Ok(device)
    }

    /// How the mapping's messages read for a device: by the mapping's own points, by the device's profile, or by the only
    /// profile that the mapping names.
    fn binding(
        &mut self,
        points: &Points,
        (s, m, mapping): (usize, usize, &Mapping),
        device: DeviceIx,
    ) -> Arc<Binding> {
        let profile = Arc::clone(&points.device(device).profile);
        let binding = self.bindings.entry((s, m, Arc::clone(&profile))).or_insert_with(|| {
            let own = self.profiles.get(&profile).or_else(|| mapping.profiles.iter().find(|named| named.id == profile));
            let only = if let [only] = &mapping.profiles[..] { Some(only) } else { None };
            let how = mapping.inline.as_ref().or(own.filter(|own| own.mqtt.is_some())).or(only);
            let place = |spec: &Arc<PointSpec>| {
                let at = points.device(device).points().position(|ix| points.point(ix).spec.name == spec.name);
                at.map(|at| at as u32)
            };
            Arc::new(Binding {
                mapping: m,
                shape: how.and_then(|profile| profile.mqtt.clone()),
                availability: mapping.availability.clone(),
                offsets: how.map(|profile| profile.specs().iter().map(place).collect()).unwrap_or_default(),
                retained: mapping.retained,
            })
        });
        Arc::clone(binding)
    }

    fn place(&mut self, mapping: &Mapping, found: &Found<'_>) -> Arc<Place> {
        let location = &mapping.location;
        let fill = |template: &Option<Template>| template.as_ref().map(|t| t.fill(found)).unwrap_or_default();
        let parts = [&location.place, &location.building, &location.unit, &location.floor, &location.room].map(fill);
        if let Some(place) = self.provisioned_places.get(&parts) {
            return Arc::clone(place);
        }
        let [area, building, unit, floor, room] = parts.clone();
        let base = self.places.get(&area).map(|place| Place::clone(place));
        let mut place = base.unwrap_or_else(|| Place { area, ..Place::default() });
        for (part, field) in [
            (building, &mut place.building),
            (unit, &mut place.unit),
            (floor, &mut place.floor),
            (room, &mut place.room),
        ] {
            if !part.is_empty() {
                *field = part;
            }
        }
        let place = Arc::new(place);
        self.provisioned_places.insert(parts, Arc::clone(&place));
        place
    }

    /// The bridge lists its devices, also those that have not spoken yet: a detector that joined and fell silent at once is
    /// known to be silent. Those that no profile of the mapping fits are left out.
    fn list(&mut self, points: &mut Points, s: usize, m: usize, message: &Message<'_>) -> Result<(), Why> {
        let listed = zigbee2mqtt::devices(message.payload).ok_or(Why::NoList)?;
        let mappings = Arc::clone(&self.sources[s].mappings);
        let mapping = &mappings[m];
        for device in listed {
            let name = zigbee2mqtt::device_id(&device.friendly_name);
            let found = Found { captures: vec![("device", &name)], rest: None };
            let Ok(id) = DeviceId::parse(&mapping.device.fill(&found)) else { continue };
            let fits = |profile: &&Arc<Profile>| {
                profile.mqtt.as_ref().is_some_and(|shape| shape.is_signed_by(&device.properties))
            };
            let profile = mapping.inline.as_ref().or_else(|| mapping.profiles.iter().find(fits));
            let (None, Some(profile)) = (points.find_device(id.as_str()), profile) else { continue };
            match mapping.unknown {
                Unknown::Provision if points.devices().len() < self.limits.devices => {
                    self.provision(points, (s, m, mapping), profile, &found, id)?;
                }
                Unknown::Drop => {}
                Unknown::Provision | Unknown::Quarantine => {
                    let properties = device.properties.join(", ");
                    let text = format!("{} {}, {}: {properties}", device.vendor, device.model, device.description);
                    let named = mapping.inline.is_none().then_some(profile);
                    let said = Message { payload: text.as_bytes(), ..*message };
                    self.quarantine.note(&self.sources[s].id, &id, &said, named);
                }
            }
        }
        Ok(())
    }

    /// A device announces itself. Where no mapping has the topic of its values it goes on the list of unknown devices, with
    /// the mapping that would take it in.
    fn announce(&mut self, s: usize, component: &str, message: &Message<'_>) -> Result<(), Why> {
        // An empty one takes an announcement back.
        if message.payload.is_empty() {
            return Ok(());
        }
        let mappings = Arc::clone(&self.sources[s].mappings);
        for entity in homeassistant::entities(component, message.payload).ok_or(Why::NoList)? {
            let mut name = String::new();
            let is_mapped = mappings.iter().any(|mapping| mapping.about(&entity.topic, &mut name).is_some());
            let key = (s, entity.topic.clone());
            if is_mapped || self.announced.len() >= self.limits.quarantined && !self.announced.contains_key(&key) {
                continue;
            }
            // A device with values on several topics becomes one for each.
            let id = zigbee2mqtt::device_id(&entity.device);
            let is_taken = self.announced.iter().any(|(other, (taken, _))| other.1 != key.1 && taken.as_str() == id);
            let id = if is_taken { format!("{id}:{}", zigbee2mqtt::device_id(&entity.topic)) } else { id };
            let Ok(id) = DeviceId::parse(&id) else { continue };
            let (id, known) = self.announced.entry(key).or_insert_with(|| (id, Vec::new()));
            match known.iter().position(|known| known.is_same(&entity)) {
                Some(at) => known[at] = entity,
                None if known.len() < homeassistant::MOST => known.push(entity),
                None => continue,
            }
            let source = &self.sources[s].id;
            let table = if **source == *"broker" { "broker.mapping" } else { "mqtt.mapping" };
            let text = homeassistant::mapping(table, id.as_str(), known);
            self.quarantine.note(source, id, &Message { payload: text.as_bytes(), ..*message }, None);
        }
        Ok(())
    }

    /// The bridge is gone, and every device behind it with it.
    fn bridge(
        &self,
        points: &Points,
        s: usize,
        mapping: usize,
        message: &Message<'_>,
        out: &mut Vec<Reading>,
    ) -> Result<(), Why> {
        match Availability::usual().is_online(message.payload).map_err(Why::Unreadable)? {
            Some(true) => Ok(()),
            None => Err(Why::NoAvailability),
            Some(false) => {
                let behind = self.sources[s]
                    .routes
                    .values()
                    .filter(|route| route.binding.mapping == mapping && !route.is_availability);
                let lost = points_of(points, behind).into_iter();
                out.extend(lost.map(|point| message.reading(point, Err(Fault::Offline), false)));
                Ok(())
            }
        }
    }
}

/// The points of the devices that these topics are about.
fn points_of<'r>(points: &Points, routes: impl Iterator<Item = &'r Route>) -> Vec<PointIx> {
    points_of_devices(points, routes.map(|route| route.device).collect())
}

fn points_of_devices(points: &Points, mut devices: Vec<DeviceIx>) -> Vec<PointIx> {
    devices.sort();
    devices.dedup();
    devices.into_iter().flat_map(|ix| points.device(ix).points()).collect()
}

/// The parts of one message.
struct Message<'m> {
    topic: &'m Arc<str>,
    payload: &'m [u8],
    retained: bool,
    received: Now,
}

impl Message<'_> {
    fn reading(&self, point: PointIx, value: Result<Value, Fault>, retained: bool) -> Reading {
        let received = self.received;
        let (source_time, sequence) = (None, None);
        let (redelivered, historical, warming_up) = (false, false, false);
        Reading { point, value, source_time, received, sequence, retained, redelivered, historical, warming_up }
    }
}

/// Where a new topic leads.
enum Way<'m> {
    To(Route),
    /// It tells of the bridge of all devices of this mapping.
    Bridge(usize),
    /// It lists the devices of this mapping.
    List(usize),
    /// It announces entities of this component.
    Announcement(String),
    /// A Sparkplug node speaks, of this mapping.
    Node(usize, wire::Topic<'m>),
    Nowhere,
}

impl Route {
    /// The hot path: the readings of a message whose topic is known.
    fn follow(
        &self,
        points: &Points,
        message: &Message<'_>,
        warming: &mut HashMap<DeviceIx, Mono>,
        out: &mut Vec<Reading>,
    ) -> Result<(), Why> {
        let binding = &self.binding;
        if self.is_availability {
            let Some(availability) = &binding.availability else { return Ok(()) };
            match availability.is_online(message.payload).map_err(Why::Unreadable)? {
                Some(true) => {}
                // A retained good-bye is how things stand now, so it is not marked as retained.
                Some(false) => {
                    let lost = points.device(self.device).points();
                    out.extend(lost.map(|point| message.reading(point, Err(Fault::Offline), false)));
                }
                None => return Err(Why::NoAvailability),
            }
            return Ok(());
        }
        let Some(shape) = &binding.shape else {
            let device = points.device(self.device);
            return Err(Why::NoShape { device: device.id.clone(), profile: Arc::clone(&device.profile) });
        };
        let retained = match binding.retained {
            Retained::Ignore if message.retained => return Ok(()),
            Retained::Accept => false,
            _ => message.retained,
        };
        let start = out.len();
        let key = message.topic.get(usize::from(self.key.0)..usize::from(self.key.1)).unwrap_or_default();
        let stamp = shape
            .decode(key, message.payload, |n, value| {
                let Some(offset) = binding.offsets.get(n).copied().flatten() else { return };
                let point = PointIx(self.first.0 + offset);
                // A key that stands twice: the last one counts.
                match out[start..].iter_mut().find(|reading| reading.point == point) {
                    Some(reading) => reading.value = value,
                    None => out.push(message.reading(point, value, retained)),
                }
            })
            .map_err(Why::Unreadable)?;
        let warming_up = match (stamp.warming_up, shape.payload) {
            (Some(says), _) => says,
            // One value a topic: what another topic has said still holds.
            (None, Payload::Value) => warming.contains_key(&self.device),
            (None, _) => false,
        };
        let warming_up = if warming_up {
            let since = *warming.entry(self.device).or_insert(message.received.mono);
            message.received.mono.since(since) <= shape.warm_up_longest
        } else {
            if !warming.is_empty() {
                warming.remove(&self.device);
            }
            false
        };
        for reading in &mut out[start..] {
            reading.source_time = stamp.time;
            reading.sequence = stamp.sequence;
            reading.warming_up = warming_up;
        }
        for (n, time) in stamp.times {
            let point = binding.offsets.get(n).copied().flatten().map(|offset| PointIx(self.first.0 + offset));
            if let Some(reading) = out[start..].iter_mut().find(|reading| Some(reading.point) == point) {
                reading.source_time = Some(time);
            }
        }
        Ok(())
    }
}

/// Unknown devices, a bounded number of them.
#[derive(Debug, Default)]
struct Quarantine {
    bound: usize,
    list: Vec<Quarantined>,
    index: HashMap<(Arc<str>, DeviceId), usize>,
    /// Whose place the next one takes when the list is full.
    next: usize,
}

impl Quarantine {
    fn note(&mut self, source: &Arc<str>, device: &DeviceId, message: &Message<'_>, profile: Option<&Arc<Profile>>) {
        let profile = profile.map(|profile| Arc::clone(&profile.id));
        let excerpt = String::from_utf8_lossy(&message.payload[..message.payload.len().min(EXCERPT)]).into_owned();
        let now = message.received.wall;
        let key = (Arc::clone(source), device.clone());
        if let Some(known) = self.index.get(&key).and_then(|at| self.list.get_mut(*at)) {
            known.topic = Arc::clone(message.topic);
            known.last = now;
            known.messages += 1;
            known.excerpt = excerpt;
            // What one message does not say another may have said.
            known.profile = profile.or(known.profile.take());
            return;
        }
        let new = Quarantined {
            source: Arc::clone(source),
            device: device.clone(),
            topic: Arc::clone(message.topic),
            first: now,
            last: now,
            messages: 1,
            excerpt,
            profile,
        };
        if self.list.len() < self.bound {
            self.index.insert(key, self.list.len());
            self.list.push(new);
        } else if let Some(old) = self.list.get_mut(self.next) {
            self.index.remove(&(Arc::clone(&old.source), old.device.clone()));
            self.index.insert(key, self.next);
            *old = new;
            self.next = (self.next + 1) % self.bound;
        }
    }

    /// What a device sends is bytes: this says it in words.
    fn describe(&mut self, source: &Arc<str>, device: &DeviceId, words: &dyn fmt::Display) {
        let at = self.index.get(&(Arc::clone(source), device.clone()));
        if let Some(known) = at.and_then(|at| self.list.get_mut(*at)) {
            known.excerpt = words.to_string().chars().take(EXCERPT / 4).collect();
        }
    }

    /// The site has come to know the device.
    fn release(&mut self, source: &Arc<str>, device: &DeviceId) {
        if let Some(at) = self.index.remove(&(Arc::clone(source), device.clone())) {
            self.list.swap_remove(at);
            if let Some(moved) = self.list.get(at) {
                self.index.insert((Arc::clone(&moved.source), moved.device.clone()), at);
            }
            self.next = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::decode::preset::PRESETS;
    use crate::document::Document;
    use crate::reading::Quality;

    fn mappings(text: &str) -> Result<Vec<Mapping>, Vec<String>> {
        let faults = Faults::default();
        let doc = Document::parse("site.toml", text, &faults).expect("the test writes TOML");
        let root = doc.root(&faults);
        let profiles = Profiles::shipped();
        let read: Vec<Mapping> = root.tables("mapping").iter().filter_map(|r| Mapping::read(r, &profiles)).collect();
        Mapping::check_overlaps(&read, &faults);
        root.finish();
        match faults.take() {
            found if found.is_empty() => Ok(read),
            found => Err(found.iter().map(ToString::to_string).collect()),
        }
    }

    pub(super) struct Site {
        pub(super) router: Router,
        pub(super) points: Points,
        pub(super) seconds: u64,
    }

    impl Site {
        /// `known` are devices of the site: id and profile.
        pub(super) fn new(text: &str, known: &[(&str, &str)], limits: Limits) -> Self {
            let mappings = mappings(text).unwrap_or_else(|faults| panic!("{faults:#?}"));
            let profiles = Profiles::shipped();
            let mut points = Points::default();
            for (id, profile) in known {
                let profile = profiles.get(profile).expect("a shipped profile");
                let place = Arc::new(Place::default());
                points.add(DeviceId::new(*id), None, &profile.id, &place, profile.specs()).expect("ids differ");
            }
            let b3 = Place { area: "b3".into(), grid: "W02".into(), building: "3".into(), ..Place::default() };
            let places = HashMap::from([("b3".to_owned(), Arc::new(b3))]);
            Self { router: Router::new(vec![("site".into(), mappings)], profiles, places, limits), points, seconds: 0 }
        }

        fn send(&mut self, topic: &str, payload: &[u8], retained: bool) -> Result<Vec<Reading>, Rejected> {
            self.seconds += 1;
            let received = Now {
                mono: Mono::from_nanos(self.seconds * 1_000_000_000),
                wall: Wall::from_millis(1_772_328_600_000 + self.seconds as i64 * 1_000),
            };
            let mut out = Vec::new();
            let done =
                self.router.decode(&mut self.points, "site", &Arc::from(topic), payload, retained, received, &mut out);
            assert!(done.is_ok() || out.is_empty());
            done.map(|()| out)
        }

        /// `g1/lel=12.5 g1/fault=bad(sentinel)`, then what the first reading carries besides.
        fn said(&mut self, topic: &str, payload: &str) -> String {
            let (retained, payload) = match payload.strip_prefix("retained ") {
                Some(payload) => (true, payload),
                None => (false, payload),
            };
            self.said_bytes(topic, payload.as_bytes(), retained)
        }

        pub(super) fn said_bytes(&mut self, topic: &str, payload: &[u8], retained: bool) -> String {
            match self.send(topic, payload, retained) {
                Err(rejected) => rejected.why.as_str().to_owned(),
                Ok(readings) if readings.is_empty() => "nothing".to_owned(),
                Ok(readings) => {
                    let mut words: Vec<String> = readings
                        .iter()
                        .map(|reading| {
                            let value = match &reading.value {
                                Ok(value) => value.to_string(),
                                Err(fault) => format!("bad({})", Quality::Bad(*fault).reason()),
                            };
                            format!("{}={value}", self.points.point(reading.point).id)
                        })
                        .collect();
                    let first = &readings[0];
                    words.extend(first.source_time.map(|time| format!("ts={}", time.millis())));
                    words.extend(first.sequence.map(|count| format!("seq={count}")));
                    words.extend(first.retained.then(|| "retained".to_owned()));
                    words.extend(readings.iter().any(|reading| reading.historical).then(|| "historical".to_owned()));
                    words.extend(first.warming_up.then(|| "warm".to_owned()));
                    words.join(" ")
                }
            }
        }
    }

    fn play(text: &str, known: &[(&str, &str)], story: &[(&str, &str, &str)]) -> Site {
        let mut site = Site::new(text, known, Limits::default());
        for (topic, payload, wanted) in story {
            assert_eq!(site.said(topic, payload), *wanted, "{topic} {payload}");
        }
        let counts = site.router.counts();
        assert_eq!(counts.messages, story.len() as u64);
        site
    }

    const COMMUNITY: &str = "[[mapping]]\ntopic = 'chunhui/{device}/up'\npayload = 'json'\ndevice = '{device}'\n\
        availability = { topic = 'chunhui/{device}/status', online = 'online', offline = ['offline', 'gone'] }\n";

    #[test]
    fn known_devices_read_by_their_profile_and_others_are_quarantined() {
        let mut site = play(
            COMMUNITY,
            &[("g1", "anmin-json-gas"), ("s1", "anmin-json-smoke"), ("x1", "shelly-gas")],
            &[
                (
                    "chunhui/g1/up",
                    "{\"v\":12.5,\"ts\":1772328600000,\"seq\":17}",
                    "g1/lel=12.5 ts=1772328600000 seq=17",
                ),
                ("chunhui/g1/up", "{\"v\":13,\"battery\":80}", "g1/lel=13 g1/battery=80"),
                ("chunhui/g1/up", "retained {\"v\":13}", "g1/lel=13 retained"),
                ("chunhui/g1/up", "{\"v\":13,\"warming_up\":true}", "g1/lel=13 warm"),
                ("chunhui/g1/up", "{\"v\":13}", "g1/lel=13"),
                // A key that stands twice: the last one counts, as everywhere.
                ("chunhui/g1/up", "{\"v\":1,\"v\":NaN}", "g1/lel=bad(not_a_value)"),
                // What a payload calls itself changes nothing.
                ("chunhui/s1/up", "{\"v\":true,\"device\":\"g1\",\"id\":\"g1\"}", "s1/smoke=true"),
                ("chunhui/s1/up", "{\"v\":\"maybe\"}", "s1/smoke=bad(not_a_value)"),
                ("chunhui/g1/status", "online", "nothing"),
                (
                    "chunhui/s1/status",
                    "{\"state\":\"offline\"}",
                    "s1/smoke=bad(offline) s1/fault=bad(offline) s1/battery=bad(offline)",
                ),
                (
                    "chunhui/s1/status",
                    "retained GONE",
                    "s1/smoke=bad(offline) s1/fault=bad(offline) s1/battery=bad(offline)",
                ),
                ("chunhui/s1/status", "perhaps", "no_availability"),
                ("chunhui/x9/status", "offline", "nothing"),
                ("chunhui/g9/up", "{\"v\":1}", "quarantined"),
                ("chunhui/g9/up", "{\"v\":2}", "quarantined"),
                ("chunhui/g1/down", "{}", "no_mapping"),
                ("chunhui/g1/up", "", "empty"),
                ("chunhui/g1/up", "{\"w\":1}", "nothing_known"),
                ("chunhui/g1/up", "v=1", "not_json"),
                ("chunhui//up", "{\"v\":1}", "bad_device"),
                ("chunhui/../up", "{\"v\":1}", "bad_device"),
                ("chunhui/a\\b/up", "{\"v\":1}", "bad_device"),
                ("chunhui/+/up", "{\"v\":1}", "bad_topic"),
                ("chunhui/#", "{\"v\":1}", "bad_topic"),
                ("chunhui/a\0b/up", "{\"v\":1}", "bad_topic"),
                ("", "{\"v\":1}", "bad_topic"),
            ],
        );
        let list: Vec<&Quarantined> = site.router.quarantined().collect();
        assert_eq!(list.len(), 1);
        assert_eq!((list[0].device.as_str(), list[0].messages, list[0].excerpt.as_str()), ("g9", 2, "{\"v\":2}"));
        assert!(list[0].first < list[0].last);
        let long = format!("chunhui/{}/up", "x".repeat(2_000));
        assert_eq!(site.said(&long, "{}"), "bad_topic");
        assert_eq!(site.router.subscriptions("site"), ["chunhui/+/status", "chunhui/+/up"]);
        assert_eq!(site.router.subscriptions("other"), Vec::<String>::new());
    }

    #[test]
    fn a_device_that_the_site_comes_to_know_leaves_the_list_and_its_mapping_names_its_profile() {
        let text = "[[mapping]]\npreset = 'zigbee2mqtt'\n[[mapping]]\ntopic = 'a/{device}'\n";
        let mut site = Site::new(text, &[], Limits::default());
        site.said("zigbee2mqtt/kitchen", "{\"gas\":true}");
        // A message without the signature takes back nothing.
        site.said("zigbee2mqtt/kitchen", "{\"linkquality\":9}");
        site.said("a/g1", "{\"v\":1}");
        let named = |site: &Site| -> Vec<(String, Option<String>)> {
            let one =
                |waiting: &Quarantined| (waiting.device.to_string(), waiting.profile.as_deref().map(str::to_owned));
            site.router.quarantined().map(one).collect()
        };
        let kitchen = ("kitchen".to_owned(), Some("zigbee2mqtt-gas".to_owned()));
        assert_eq!(named(&site), [kitchen.clone(), ("g1".to_owned(), None)]);
        let profiles = Profiles::shipped();
        let profile = profiles.get("anmin-json-gas").expect("it is shipped");
        let id = DeviceId::parse("g1").expect("an id");
        site.points.add(id, None, &profile.id, &Arc::default(), profile.specs()).expect("it is new");
        site.router.settle(&site.points);
        assert_eq!(named(&site), [kitchen]);
        assert_eq!(site.said("a/g1", "{\"v\":1}"), "g1/lel=1");
    }

    #[test]
    fn hostile_payloads_are_refused_each_with_its_reason() {
        let mut site = Site::new(COMMUNITY, &[("g1", "anmin-json-gas")], Limits::default());
        let nested = format!("{{\"v\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        let huge = format!("{{\"v\":1,\"pad\":\"{}\"}}", "x".repeat(300_000));
        let cases: [(&[u8], &str, &str); 6] = [
            (nested.as_bytes(), "too_deep", "the payload is more than 16 arrays and objects inside one another"),
            (huge.as_bytes(), "too_long", "the payload has 300016 bytes, more than 262144"),
            (b"{\"v\":\"\xff\xfe\"}", "not_utf8", "the payload is not UTF-8 at byte 6"),
            (b"\xd4\xc6\xc6\xf8", "not_utf8", "the payload is not UTF-8 at byte 0"),
            (b"{\"v\":1", "not_json", "the payload is not JSON at byte 6"),
            (b" \0\0", "empty", "the payload is empty"),
        ];
        for (payload, reason, message) in cases {
            let rejected = site.send("chunhui/g1/up", payload, false).expect_err("it cannot be read");
            assert_eq!(rejected.why.as_str(), reason);
            assert_eq!(rejected.to_string(), format!("topic \"chunhui/g1/up\": {message}; the message is left out"));
        }
        assert_eq!(site.said("chunhui/g1/up", "{\"v\":1e400,\"ts\":\"soon\",\"seq\":-3}"), "g1/lel=bad(not_a_value)");
        assert_eq!(site.said("chunhui/g1/up", "\u{feff}{\"v\":5}\0"), "g1/lel=5");
        assert_eq!(site.router.counts().rejected, 6);
    }

    #[test]
    fn a_mapping_with_points_of_its_own_provisions_devices_at_their_place() {
        let text = "[[mapping]]\n\
            topic = 'shequ/{building}/{unit}/{device}/up'\n\
            device = 'b{building}-{unit}-{device}'\n\
            time = { path = '/t', format = 'unix_s' }\n\
            points = [\n\
              { name = 'lel', kind = 'gas.lel', path = '/data/lel', range = [-5, 150] },\n\
              { name = 'smoke', kind = 'fire.smoke', path = '/data/smoke', true_words = ['ALARM!'], silent_after = '1h' },\n\
            ]\n\
            expire_after = '90s'\n\
            unknown = 'provision'\n\
            location = { place = 'b{building}', unit = '{unit}', floor = '1' }\n";
        let mut site = play(
            text,
            &[],
            &[
                ("shequ/3/2/gas/up", "noise", "not_json"),
                ("shequ/3/2/gas/up", "{\"other\":1}", "nothing_known"),
                (
                    "shequ/3/2/gas/up",
                    "{\"t\":1772328600.5,\"data\":{\"lel\":7,\"smoke\":\"alarm!\"}}",
                    "b3-2-gas/lel=7 b3-2-gas/smoke=true ts=1772328600500",
                ),
                ("shequ/3/2/gas/up", "{\"data\":{\"smoke\":null}}", "b3-2-gas/smoke=bad(sentinel)"),
                ("shequ/4/2/gas/up", "{\"data\":{\"lel\":7}}", "b4-2-gas/lel=7"),
            ],
        );
        assert_eq!((site.points.devices().len(), site.router.counts().provisioned), (2, 2));
        let at = |site: &Site, id: &str| {
            let device = site.points.find_device(id).expect("it was provisioned");
            site.points.device(device).place.clone()
        };
        let place = at(&site, "b3-2-gas");
        assert_eq!(
            (place.grid.as_str(), place.building.as_str(), place.unit.as_str(), place.floor.as_str()),
            ("W02", "3", "2", "1")
        );
        assert_eq!(at(&site, "b4-2-gas").area, "b4");
        let lel = site.points.find("b3-2-gas/lel").expect("it was provisioned");
        let smoke = site.points.find("b3-2-gas/smoke").expect("it was provisioned");
        let silent = |site: &Site, ix| site.points.point(ix).spec.silent_after;
        assert_eq!(silent(&site, lel), Some(Duration::from_secs(90)));
        assert_eq!(silent(&site, smoke), Some(Duration::from_secs(3_600)));
        let twin = site.points.find("b4-2-gas/lel").expect("it was provisioned");
        assert!(
            Arc::ptr_eq(&site.points.point(lel).spec, &site.points.point(twin).spec),
            "devices share what they can"
        );
        assert_eq!(site.said("shequ/3/2/gas/up", "{\"data\":{\"lel\":8}}"), "b3-2-gas/lel=8");
    }

    #[test]
    fn zigbee2mqtt_devices_are_known_by_what_they_send() {
        let site = play(
            "[[mapping]]\npreset = 'zigbee2mqtt'\nunknown = 'provision'\nexpire_after = '6h'\n",
            &[("3号楼%2F厨房", "zigbee2mqtt-gas")],
            &[
                (
                    "zigbee2mqtt/3号楼/厨房",
                    "{\"gas\":true,\"battery\":null,\"linkquality\":112,\"last_seen\":\"2026-03-01T09:30:00+08:00\"}",
                    "3号楼%2F厨房/detected=true 3号楼%2F厨房/battery=bad(sentinel) 3号楼%2F厨房/link_quality=112 ts=1772328600000",
                ),
                (
                    "zigbee2mqtt/hall",
                    "retained {\"smoke\":false,\"battery\":97}",
                    "hall/smoke=false hall/battery=97 retained",
                ),
                ("zigbee2mqtt/lamp", "{\"state\":\"ON\"}", "quarantined"),
                ("zigbee2mqtt/cellar/availability", "offline", "nothing"),
                ("zigbee2mqtt/cellar", "{\"water_leak\":true}", "cellar/leak=true"),
                ("zigbee2mqtt/hall/set", "{\"state\":\"ON\"}", "nothing"),
                ("zigbee2mqtt/bridge/devices", "[]", "nothing"),
                ("zigbee2mqtt/bridge/state", "{\"state\":\"online\"}", "nothing"),
                (
                    "zigbee2mqtt/cellar/availability",
                    "{\"state\":\"offline\"}",
                    "cellar/leak=bad(offline) cellar/battery=bad(offline) cellar/battery_low=bad(offline) \
                     cellar/tamper=bad(offline) cellar/link_quality=bad(offline)",
                ),
            ],
        );
        let mut site = site;
        let lost = site.said("zigbee2mqtt/bridge/state", "offline");
        assert_eq!(lost.matches("bad(offline)").count(), 5 + 6 + 5, "{lost}");
        let hall = site.points.find("hall/smoke").expect("it was provisioned");
        assert_eq!(site.points.point(hall).spec.silent_after, Some(Duration::from_secs(6 * 3_600)));
        assert_eq!(site.router.subscriptions("site"), ["zigbee2mqtt/#"]);
    }

    /// Each publisher as it is set up when nothing is said but its name: state, good-bye, what is of no interest.
    #[test]
    fn a_preset_knows_the_topics_of_its_publisher() {
        play(
            "[[mapping]]\npreset = 'tasmota'\nprofile = 'tasmota-switch'\nunknown = 'provision'\n",
            &[("cellar", "tasmota-ds18b20")],
            &[
                (
                    "tele/panji-3/SENSOR",
                    "{\"Time\":\"2026-03-01T09:30:00\",\"Switch1\":\"ON\"}",
                    "panji-3/input=true ts=1772328600000",
                ),
                ("stat/panji-3/RESULT", "{\"Switch1\":{\"Action\":\"OFF\"}}", "panji-3/input=false"),
                ("stat/panji-3/RESULT", "{\"POWER\":\"OFF\"}", "nothing_known"),
                ("tele/cellar/SENSOR", "{\"DS18B20\":{\"Temperature\":20.6}}", "cellar/temperature=20.6"),
                ("tele/panji-3/STATE", "{\"Uptime\":\"1T00:00:00\"}", "nothing"),
                ("stat/panji-3/POWER", "ON", "nothing"),
                ("tele/panji-3/LWT", "retained Online", "nothing"),
                ("tele/panji-3/LWT", "Offline", "panji-3/input=bad(offline)"),
            ],
        );
        let said =
            "{\"src\":\"s\",\"method\":\"NotifyStatus\",\"params\":{\"ts\":1772328600.5,\"smoke:0\":{\"alarm\":true}}}";
        play(
            "[[mapping]]\npreset = 'shelly'\nunknown = 'provision'\n",
            &[],
            &[
                ("shellyplussmoke-a1b2/events/rpc", said, "shellyplussmoke-a1b2/smoke=true ts=1772328600500"),
                ("shellyplug-1/events/rpc", "{\"params\":{\"switch:0\":{}}}", "quarantined"),
                (
                    "shellyplussmoke-a1b2/online",
                    "false",
                    "shellyplussmoke-a1b2/smoke=bad(offline) shellyplussmoke-a1b2/battery=bad(offline) \
                     shellyplussmoke-a1b2/signal=bad(offline)",
                ),
                ("shellyplussmoke-a1b2/online", "true", "nothing"),
            ],
        );
        play(
            "[[mapping]]\npreset = 'chirpstack'\nprofile = 'generic-lorawan-level'\nunknown = 'provision'\n\
             device = 'lora-{device}'\nlocation = { place = '{application}' }\n",
            &[("lora-02", "milesight-em500-swl")],
            &[
                (
                    "application/a1/device/01/event/up",
                    "{\"time\":\"2026-03-01T01:30:00Z\",\"fCnt\":7,\"object\":{\"level_mm\":300}}",
                    "lora-01/level=30 ts=1772328600000 seq=7",
                ),
                (
                    "application/a1/device/01/event/status",
                    "{\"margin\":20,\"batteryLevel\":87.5}",
                    "lora-01/battery=87.5",
                ),
                (
                    "application/a1/device/02/event/up",
                    "{\"fPort\":85,\"data\":\"AXVkA3cCAA==\"}",
                    "lora-02/battery=100 lora-02/level=2",
                ),
                ("application/a1/device/02/event/up", "{\"fPort\":85,\"data\":\"AXV*\"}", "not_bytes"),
                ("application/a1/device/02/event/up", "{\"fPort\":2,\"data\":\"AXVk\"}", "nothing"),
                ("application/a1/device/01/event/join", "{}", "nothing"),
                ("application/a1/device/01/event/log", "{}", "nothing"),
                ("application/a1/device/01/command/down", "{}", "no_mapping"),
            ],
        );
        let report =
            "{\"params\":{\"GasConcentration\":{\"value\":12.6,\"time\":1772328600000},\"BatteryPercentage\":80}}";
        let huawei = "{\"services\":[{\"properties\":{\"GasConcentration\":7},\"event_time\":\"20260301T013000Z\"}]}";
        for (preset, topic, payload, wanted) in [
            ("aliyun", "/sys/pk/g1/thing/event/property/post", report, "g1/lel=12.6 g1/battery=80 ts=1772328600000"),
            ("onenet", "$sys/pid/g1/thing/property/post", report, "g1/lel=12.6 g1/battery=80 ts=1772328600000"),
            (
                "tencent",
                "$thing/up/property/pid/g1",
                "{\"timestamp\":1772328600000,\"params\":{\"GasConcentration\":3}}",
                "g1/lel=3 ts=1772328600000",
            ),
            ("huawei", "$oc/devices/g1/sys/properties/report", huawei, "g1/lel=7 ts=1772328600000"),
        ] {
            let unknown = topic.replace("g1", "lamp");
            let text = format!("[[mapping]]\npreset = '{preset}'\nunknown = 'provision'\n");
            let story = [(topic, payload, wanted), (unknown.as_str(), "{\"params\":{\"Lamp\":1}}", "quarantined")];
            let site = play(&text, &[], &story);
            let ix = |name: &str| site.points.find(name).expect("it was provisioned");
            assert!(site.points.point(ix("g1/lel")).spec.alarm_point);
        }
    }

    /// Goal: no alarm goes by because it came as an event. Method: a detector of each platform that nobody knows speaks for the first
    /// time by the event of its alarm; then it says what nobody reads, which is told, and what is its platform's, which is not.
    #[test]
    fn an_alarm_that_a_cloud_device_tells_as_an_event_is_read_from_the_first_word_on() {
        let alink = |name: &str| {
            format!("{{\"params\":{{\"value\":{{}},\"time\":1772328600000}},\"method\":\"thing.event.{name}.post\"}}")
        };
        let onenet = |name: &str| format!("{{\"params\":{{\"{name}\":{{\"value\":{{}},\"time\":1772328600000}}}}}}");
        let tencent = |name: &str| {
            format!("{{\"method\":\"event_post\",\"eventId\":\"{name}\",\"timestamp\":1772328600000,\"params\":{{}}}}")
        };
        let huawei = |name: &str| {
            format!(
                "{{\"services\":[{{\"service_id\":\"Gas\",\"event_type\":\"{name}\",\"event_time\":\"20260301T013000Z\",\"paras\":{{}}}}]}}"
            )
        };
        let clock = r#"{"services":[{"service_id":"$time_sync","event_type":"time_sync_request","paras":{}}]}"#;
        let pack = r#"{"params":{"subDevices":[]},"method":"thing.event.property.pack.post"}"#;
        let children = r#"{"devices":[{"device_id":"x","services":[]}]}"#;
        let event: [&dyn Fn(&str) -> String; 4] = [&alink, &onenet, &tencent, &huawei];
        let topics = [
            "/sys/pk/g1/thing/event/EVENT/post",
            "$sys/pid/g1/thing/event/post",
            "$thing/up/event/pid/g1",
            "$oc/devices/g1/sys/events/up",
        ];
        for (n, preset) in ["aliyun", "onenet", "tencent", "huawei"].into_iter().enumerate() {
            let mut site = Site::new(
                &format!("[[mapping]]\npreset = '{preset}'\nunknown = 'provision'\n"),
                &[],
                Limits::default(),
            );
            let mut said = |name: &str| site.said(&topics[n].replace("EVENT", name), &event[n](name));
            assert_eq!(said("DoorOpened"), "quarantined", "{preset}: nobody's signature");
            assert_eq!(said("GasAlarm"), "g1/detected=true ts=1772328600000", "{preset}");
            assert_eq!(said("GasAlarmRecover"), "g1/detected=false ts=1772328600000", "{preset}");
            assert_eq!(said("DoorOpened"), "nothing_known", "{preset}: told, for it may be an alarm");
            for (of, topic, payload, wanted) in [
                ("huawei", "$oc/devices/g1/sys/events/up", clock, "nothing"),
                ("huawei", "$oc/devices/g1/sys/gateway/sub_devices/properties/report", children, "nothing_known"),
                ("aliyun", "/sys/pk/g1/thing/event/property/pack/post", pack, "nothing_known"),
                ("aliyun", "/sys/pk/g1/thing/event/GasAlarm/post_reply", "{\"code\":200}", "nothing"),
                ("onenet", "$sys/pid/g1/thing/pack/post", "{\"params\":[]}", "nothing_known"),
                ("onenet", "$sys/pid/g1/thing/event/post/reply", "{\"code\":200}", "nothing"),
            ] {
                if of == preset {
                    assert_eq!(site.said(topic, payload), wanted, "{topic}");
                }
            }
        }
    }

    /// The value of a property keeps its own time; one without has none.
    #[test]
    fn a_report_may_carry_values_of_several_times() {
        let mut site = Site::new("[[mapping]]\npreset = 'aliyun'\n", &[("g1", "alink-gas")], Limits::default());
        let report = b"{\"params\":{\"GasConcentration\":{\"value\":1,\"time\":1772328600000},\"GasState\":{\"value\":0,\"time\":1772328601000},\"BatteryPercentage\":80}}";
        let readings = site.send("/sys/pk/g1/thing/event/property/post", report, false).expect("it is sound");
        let times: Vec<_> = readings.iter().map(|reading| reading.source_time.map(Wall::millis)).collect();
        assert_eq!(times, [Some(1_772_328_600_000), Some(1_772_328_601_000), None]);
    }

    #[test]
    fn a_mapping_may_move_a_preset_and_give_it_points_of_its_own() {
        let site = play(
            "[[mapping]]\npreset = 'huawei'\nbase_topic = 'cloud/huawei'\nunknown = 'provision'\n\
             points = [{ name = 'level', kind = 'flood.level', property = 'mm', service = 'Sump', unit = 'mm', scale = 0.1 }]\n\
             [[mapping]]\npreset = 'tasmota'\nbase_topic = 'b3'\nprofile = 'tasmota-ds18b20'\n\
             availability = { online = 'here', offline = ['gone'] }\n",
            &[("t1", "tasmota-ds18b20")],
            &[
                (
                    "cloud/huawei/devices/d1/sys/properties/report",
                    "{\"services\":[{\"service_id\":\"Sump\",\"properties\":{\"mm\":126}},{\"service_id\":\"Other\",\"properties\":{\"mm\":9}}]}",
                    "d1/level=12.6",
                ),
                ("b3/tele/t1/SENSOR", "{\"DS18B20\":{\"Temperature\":20.6}}", "t1/temperature=20.6"),
                ("b3/tele/t1/LWT", "gone", "t1/temperature=bad(offline)"),
                ("tele/t1/SENSOR", "{}", "no_mapping"),
            ],
        );
        assert_eq!(
            site.router.subscriptions("site"),
            [
                "b3/stat/+/RESULT",
                "b3/tele/+/LWT",
                "b3/tele/+/SENSOR",
                "cloud/huawei/devices/+/sys/events/up",
                "cloud/huawei/devices/+/sys/gateway/sub_devices/properties/report",
                "cloud/huawei/devices/+/sys/properties/report"
            ]
        );
        let found = mappings(
            "[[mapping]]\npreset = 'tasmota'\n[[mapping]]\ntopic = 'tele/{device}/SENSOR'\n[[mapping]]\npreset = 'tasmoto'\n[[mapping]]\npreset = 'shelly'\nbase_topic = 'a/#'\n",
        );
        assert_eq!(
            found.expect_err("three faults"),
            [
                "site.toml:4:9: the mapping shares topics with that of line 2: tele/{device}/SENSOR\n  hint: make one of the two topics narrower",
                "site.toml:6:10: `mapping[2].preset` is \"tasmoto\", expected one of zigbee2mqtt, tasmota, shelly, chirpstack, homeassistant, sparkplug, gbt26875, aliyun, onenet, huawei, tencent\n  hint: did you mean `tasmota`?",
                "site.toml:9:14: `base_topic` is \"a/#\", expected a topic without wildcards",
            ]
        );
    }

    #[test]
    fn every_preset_is_sound_and_its_profiles_are_there() {
        let profiles = Profiles::shipped();
        for preset in &PRESETS {
            let text = format!("[[mapping]]\npreset = '{}'\n", preset.name);
            let read = mappings(&text).unwrap_or_else(|faults| panic!("{}: {faults:?}", preset.name));
            let topics = &read[0].topics;
            assert_eq!((topics.states.len(), topics.others.len()), (preset.states.len(), preset.others.len()));
            let available = read[0].availability.as_ref().map(|availability| availability.topic.is_some());
            assert_eq!(available, preset.availability.as_ref().map(|known| !known.topic.is_empty()), "{}", preset.name);
            for name in preset.profiles {
                let shape = profiles.get(name).and_then(|profile| profile.mqtt.clone()).expect("a shipped profile");
                assert!(shape.has_signature() && shape.payload == preset.payload, "{name}");
            }
        }
    }

    #[test]
    fn the_list_of_a_zigbee_bridge_makes_devices_known_before_they_speak() {
        let listed = |name: &str, property: &str| {
            format!(
                "{{\"type\":\"EndDevice\",\"friendly_name\":\"{name}\",\"definition\":{{\"vendor\":\"HEIMAN\",\"model\":\"M\",\
                 \"description\":\"d\",\"exposes\":[{{\"property\":\"battery\"}},{{\"property\":\"{property}\"}}]}}}}"
            )
        };
        let list = format!("[{},{}]", listed("3号楼/厨房", "gas"), listed("lamp", "state"));
        let list = [("zigbee2mqtt/bridge/devices", list.as_str(), "nothing")];
        let mut site = play("[[mapping]]\npreset = 'zigbee2mqtt'\nunknown = 'provision'\n", &[], &list);
        let gas = site.points.find("3号楼%2F厨房/detected").expect("it was provisioned");
        assert_eq!(&*site.points.device(site.points.point(gas).device).label().zh, "3号楼/厨房");
        assert_eq!((site.points.devices().len(), site.router.quarantined().len()), (1, 0));
        assert_eq!(site.said("zigbee2mqtt/bridge/devices", list[0].1), "nothing");
        assert_eq!(site.said("zigbee2mqtt/3号楼/厨房", "{\"gas\":true}"), "3号楼%2F厨房/detected=true");
        assert_eq!(site.said("zigbee2mqtt/bridge/devices", "{}"), "no_list");
        assert_eq!(site.router.counts().provisioned, 1);

        let site = play("[[mapping]]\npreset = 'zigbee2mqtt'\n", &[], &list);
        let waiting: Vec<_> = site.router.quarantined().map(|w| (w.device.as_str(), w.excerpt.as_str())).collect();
        assert_eq!(waiting, [("3号楼%2F厨房", "HEIMAN M, d: battery, gas")]);
        let site = play("[[mapping]]\npreset = 'zigbee2mqtt'\nunknown = 'drop'\n", &[], &list);
        assert_eq!((site.points.devices().len(), site.router.quarantined().len()), (0, 0));
    }

    /// What is announced waits with the mapping that takes it in; with that mapping its values are read, and it waits no
    /// more.
    #[test]
    fn an_announced_device_brings_the_mapping_that_reads_it() {
        let discovery = "[[mapping]]\npreset = 'homeassistant'\n";
        let gas = r#"{"name":"3号楼燃气","uniq_id":"u1","stat_t":"x/gas/state","val_tpl":"{{ value_json.alarm }}","dev_cla":"gas","exp_aft":900,"avty_t":"x/gas/status","dev":{"ids":["gas-1"]}}"#;
        let heat = r#"{"uniq_id":"u2","stat_t":"x/gas/state","val_tpl":"{{ value_json.t }}","dev_cla":"temperature","unit_of_meas":"°C","dev":{"ids":["gas-1"]}}"#;
        let leak = r#"{"uniq_id":"u3","stat_t":"x/leak","dev_cla":"moisture","dev":{"ids":["gas-1"]}}"#;
        let announcements = [
            ("homeassistant/binary_sensor/gas/config", gas, "nothing"),
            ("homeassistant/sensor/node/t/config", heat, "nothing"),
            ("homeassistant/sensor/node/t/config", heat, "nothing"),
            ("homeassistant/binary_sensor/leak/config", leak, "nothing"),
            ("homeassistant/light/lamp/config", r#"{"uniq_id":"u4","stat_t":"x/lamp"}"#, "nothing"),
            ("homeassistant/light/lamp/config", "", "nothing"),
            ("homeassistant/light/lamp/config", "lamp", "no_list"),
            ("homeassistant/status", "online", "no_mapping"),
        ];
        let site = play(discovery, &[], &announcements);
        assert_eq!(site.router.subscriptions("site"), ["homeassistant/+/+/+/config", "homeassistant/+/+/config"]);
        let mut waiting: Vec<(&str, &str)> =
            site.router.quarantined().map(|waiting| (waiting.device.as_str(), waiting.excerpt.as_str())).collect();
        waiting.sort();
        let [(first, with_two), (second, with_one)] = waiting[..] else { panic!("{waiting:?}") };
        assert_eq!((first, second), ("gas-1", "gas-1:x%2Fleak"));
        let text = format!("{discovery}{with_two}{with_one}").replace("[[mqtt.mapping", "[[mapping");
        let mut story = announcements[..4].to_vec();
        story.extend([
            ("x/gas/state", r#"{"alarm":"ON","t":21.5}"#, "gas-1/gas=true gas-1/temperature=21.5"),
            ("x/gas/status", "offline", "gas-1/gas=bad(offline) gas-1/temperature=bad(offline)"),
            ("x/leak", "OFF", "gas-1:x%2Fleak/moisture=false"),
        ]);
        let site = play(&text, &[], &story);
        assert_eq!(site.router.quarantined().len(), 0);
        let gas = site.points.find("gas-1/gas").expect("it was provisioned");
        assert_eq!(site.points.point(gas).spec.silent_after, Some(Duration::from_secs(900)));
    }

    #[test]
    fn one_value_a_topic_and_warm_up_for_a_while() {
        let mut site = play(
            "[[mapping]]\ntopic = 'shellies/{device}/#'\nprofile = 'shelly-gas'\nunknown = 'provision'\n\
             availability = { topic = 'shellies/{device}/online', online = 'true', offline = 'false' }\n",
            &[],
            &[
                ("shellies/sg-1/info", "{\"wifi\":1}", "nothing_known"),
                ("shellies/sg-1/sensor/concentration", "5000", "sg-1/lel=10"),
                ("shellies/sg-1/sensor/operation", "warmup", "sg-1/fault=false warm"),
                ("shellies/sg-1/sensor/gas", "heavy", "sg-1/detected=true warm"),
                ("shellies/sg-1/sensor/operation", "normal", "sg-1/fault=false"),
                ("shellies/sg-1/sensor/gas", "heavy", "sg-1/detected=true"),
                (
                    "shellies/sg-1/online",
                    "false",
                    "sg-1/detected=bad(offline) sg-1/lel=bad(offline) sg-1/fault=bad(offline)",
                ),
                ("shellies/sg-1/online", "true", "nothing"),
                ("shellies/sg-1/sensor/operation", "warmup", "sg-1/fault=false warm"),
            ],
        );
        site.seconds += 598;
        assert_eq!(site.said("shellies/sg-1/sensor/gas", "heavy"), "sg-1/detected=true warm");
        site.seconds += 2;
        assert_eq!(site.said("shellies/sg-1/sensor/gas", "heavy"), "sg-1/detected=true");
        assert_eq!(site.said("shellies/sg-1/sensor/operation", "warmup"), "sg-1/fault=false");
    }

    #[test]
    fn retained_messages_go_as_the_mapping_says() {
        for (word, wanted) in [("state_only", "g1/lel=1 retained"), ("accept", "g1/lel=1"), ("ignore", "nothing")] {
            let text = format!("[[mapping]]\ntopic = 'a/{{device}}'\nretained = '{word}'\n");
            play(
                &text,
                &[("g1", "anmin-json-gas")],
                &[
                    ("a/g1", "retained {\"v\":1}", wanted),
                    ("a/g1", "{\"v\":2}", "g1/lel=2"),
                    ("a/g1", "retained {\"v\":1}", wanted),
                ],
            );
        }
    }

    #[test]
    fn what_devices_can_make_grow_is_bounded() {
        let text = "[[mapping]]\ntopic = 'a/{device}'\nprofile = 'anmin-json-gas'\nunknown = 'provision'\n";
        let mut site = Site::new(text, &[], Limits { devices: 10, quarantined: 5 });
        for n in 0..100 {
            let said = site.said(&format!("a/d{n}"), "{\"v\":1}");
            assert_eq!(said, if n < 10 { format!("d{n}/lel=1") } else { "quarantined".to_owned() });
        }
        assert_eq!((site.points.devices().len(), site.router.quarantined().len()), (10, 5));
        let mut last: Vec<&str> = site.router.quarantined().map(|found| found.device.as_str()).collect();
        last.sort();
        assert_eq!(last, ["d95", "d96", "d97", "d98", "d99"]);
        let long = site.send("a/long", "气".repeat(5_000).as_bytes(), false);
        assert!(long.is_err());
        assert!(site.router.quarantined().all(|found| found.excerpt.len() <= EXCERPT + 2));
        let text = "[[mapping]]\ntopic = 'a/{device}'\nunknown = 'drop'\n";
        let mut site = Site::new(text, &[], Limits::default());
        assert_eq!(site.said("a/x", "{\"v\":1}"), "unknown_device");
        assert_eq!(site.router.quarantined().len(), 0);
    }

    #[test]
    fn a_faulty_mapping_names_every_fault() {
        let text = "[[mapping]]\n\
            topic = 'a/{device}/x{b}'\n\
            [[mapping]]\n\
            topic = 'a/{d}'\n\
            device = '{e}'\n\
            profile = 'anmin-json-gass'\n\
            retaind = 'ignore'\n\
            [[mapping]]\n\
            topic = 'b/{device}'\n\
            device = 'same'\n\
            unknown = 'provision'\n\
            [[mapping]]\n\
            topic = 'c/+'\n\
            [[mapping]]\n\
            topic = 'd/{device}'\n\
            profile = ['anmin-json-gas', 'zigbee2mqtt-gas']\n\
            payload = 'value'\n\
            availability = { topic = 'd/status' }\n\
            [[mapping]]\n\
            topic = 'e/{device}'\n\
            [[mapping]]\n\
            topic = 'e/#'\n\
            device = 'e'\n";
        let found = mappings(text).expect_err("it is full of faults");
        assert_eq!(
            found,
            [
                "site.toml:2:9: in \"a/{device}/x{b}\" level \"x{b}\" mixes a wildcard or capture with other text",
                "site.toml:5:10: \"{e}\" uses {e}, but the topic captures {d}",
                "site.toml:6:11: there is no profile \"anmin-json-gass\"\n  hint: did you mean `anmin-json-gas`?",
                "site.toml:7:1: `mapping[1].retaind` is not a known key\n  hint: did you mean `retained`?",
                "site.toml:10:10: `device` is the same for every topic, although the topic captures {device}\n  hint: device = \"{device}\"",
                "site.toml:12:1: `mapping[3].device` is missing",
                "site.toml:16:11: profile \"anmin-json-gas\" has no `signature` by which its devices are known\n  hint: name one profile only",
                "site.toml:17:11: profile zigbee2mqtt-gas has another `payload`; leave it out here",
                "site.toml:18:26: the availability topic does not capture {device}",
                "site.toml:22:9: the mapping shares topics with that of line 20: e/{device}\n  hint: make one of the two topics narrower",
            ]
        );
    }

    /// Goal: no bytes make the router panic, lose count, or let a number out that is not finite. Method: sound messages
    /// with random damage and plain noise, by seed.
    #[test]
    fn whatever_bytes_come_every_message_is_counted_and_numbers_stay_finite() {
        let sound: [&[u8]; 9] = [
            b"{\"v\":12.5,\"ts\":1772328600000,\"seq\":17,\"battery\":80,\"fault\":false}",
            b"{\"gas\":true,\"battery\":null,\"linkquality\":112,\"last_seen\":\"2026-03-01T09:30:00+08:00\"}",
            "{\"v\":\"厨房\",\"ts\":1e400}".as_bytes(),
            b"9999.5",
            b"offline",
            b"{\"fPort\":85,\"data\":\"AXVkA3cCAA==\",\"fCnt\":7}",
            b"{\"params\":{\"GasConcentration\":{\"value\":1,\"time\":1772328600000},\"GasState\":1}}",
            b"{\"services\":[{\"service_id\":\"Gas\",\"properties\":{\"GasConcentration\":7},\"event_time\":\"20260301T013000Z\"}]}",
            b"01 03 04 01 08 00 01 7A 0D",
        ];
        let topics = [
            "a/g1",
            "a/g2",
            "zigbee2mqtt/x",
            "zigbee2mqtt/x/availability",
            "s/y/sensor/gas",
            "s/y/sensor/concentration",
            "application/a/device/1/event/up",
            "/sys/p/1/thing/event/property/post",
            "hex/1",
        ];
        let text = "[[mapping]]\ntopic = 'a/{device}'\nprofile = 'anmin-json-gas'\nunknown = 'provision'\n\
            [[mapping]]\npreset = 'zigbee2mqtt'\nunknown = 'provision'\n\
            [[mapping]]\ntopic = 's/{device}/#'\nprofile = 'shelly-gas'\nunknown = 'provision'\n\
            [[mapping]]\npreset = 'chirpstack'\nprofile = 'milesight-em500-swl'\ndevice = 'l{device}'\nunknown = 'provision'\n\
            [[mapping]]\npreset = 'aliyun'\ndevice = 'p{device}'\nunknown = 'provision'\n\
            [[mapping]]\ntopic = 'hex/{device}'\ndevice = 'h{device}'\nprofile = 'generic-dtu-gas-hex'\nunknown = 'provision'\n";
        for seed in 1..=10_u64 {
            let mut site = Site::new(text, &[], Limits { devices: 20, quarantined: 5 });
            let mut state = seed;
            let mut next = |below: usize| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) as usize % below
            };
            let mut outcomes: BTreeMap<&str, u64> = BTreeMap::new();
            for _ in 0..3_000 {
                let mut payload = sound[next(sound.len())].to_vec();
                for _ in 0..next(6) {
                    let at = next(payload.len().max(1)).min(payload.len().saturating_sub(1));
                    match next(4) {
                        0 if !payload.is_empty() => payload[at] = next(256) as u8,
                        1 if !payload.is_empty() => drop(payload.remove(at)),
                        2 => payload.truncate(at),
                        _ => payload.insert(at, b"0123456789.eE-+[]{}\",:NIn"[next(25)]),
                    }
                }
                let topic = topics[next(topics.len())];
                match site.send(topic, &payload, next(5) == 0) {
                    Ok(readings) => {
                        *outcomes.entry(if readings.is_empty() { "ignored" } else { "read" }).or_default() += 1;
                        for reading in readings {
                            let number = reading.value.ok().and_then(|value| value.as_f64());
                            assert!(number.is_none_or(f64::is_finite), "seed {seed}: {payload:?}");
                        }
                    }
                    Err(rejected) => {
                        let quarantined = matches!(rejected.why, Why::Quarantined(_));
                        *outcomes.entry(if quarantined { "quarantined" } else { "rejected" }).or_default() += 1;
                        assert!(!rejected.to_string().is_empty());
                    }
                }
            }
            let of = |word: &str| outcomes.get(word).copied().unwrap_or_default();
            let counts = site.router.counts();
            assert_eq!(
                counts.messages,
                of("read") + counts.ignored + counts.quarantined + counts.rejected,
                "seed {seed}"
            );
            assert_eq!(
                (of("ignored"), of("quarantined"), of("rejected")),
                (counts.ignored, counts.quarantined, counts.rejected),
                "seed {seed}"
            );
            assert!(of("read") > 100 && of("rejected") > 100, "seed {seed}: the noise tells nothing: {outcomes:?}");
        }
    }
}
