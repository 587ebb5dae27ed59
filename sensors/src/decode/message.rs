//! One MQTT payload to the values of one device, as its profile or mapping says.

use std::fmt;
use std::time::Duration;

use crate::decode::frame::{Encoding, FrameError, Layout, Only};
use crate::decode::json::{JsonError, Paths, Scalar, quoted, tokens};
use crate::decode::properties::{Properties, Property, Told};
use crate::decode::sparkplug;
use crate::decode::stamp::{TimeFormat, Zone};
use crate::decode::value::{Conversion, Word};
use crate::document::Reader;
use crate::point::Form;
use crate::reading::{Fault, Value};
use crate::time::Wall;

/// The longest payload that is looked at.
pub const MAX_PAYLOAD: usize = 256 * 1024;

/// A device that says longer than this that it warms up is believed no more, and its values count.
const WARM_UP: Duration = Duration::from_secs(600);

/// What a payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A JSON document with a value at a path for each point, or with a frame in it.
    Json,
    /// One value; which point it belongs to is said by the topic.
    Value,
    /// A frame in hexadecimal digits.
    Hex,
    /// A frame as it is.
    Bytes,
    /// A property report of a device platform.
    Properties,
    /// The metrics of a Sparkplug B payload.
    Sparkplug,
}

impl Payload {
    pub const CHOICES: [(&'static str, Self); 6] = [
        ("json", Self::Json),
        ("value", Self::Value),
        ("hex", Self::Hex),
        ("bytes", Self::Bytes),
        ("properties", Self::Properties),
        ("sparkplug", Self::Sparkplug),
    ];

    /// The key by which a point says where it stands.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Json => "path",
            Self::Value => "topic",
            Self::Hex | Self::Bytes => "at",
            Self::Properties => "property",
            Self::Sparkplug => "metric",
        }
    }
}

/// Why nothing of a payload can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Nothing at all; what a broker sends when a retained message is taken away.
    #[error("the payload is empty")]
    Empty,
    /// More than [`MAX_PAYLOAD`].
    #[error("the payload has {0} bytes, more than {MAX_PAYLOAD}")]
    TooLong(usize),
    /// The text breaks off at this byte. GBK comes here too: it may hide quotes and braces in its second bytes.
    #[error("the payload is not UTF-8 at byte {0}")]
    NotUtf8(usize),
    /// Not JSON, or nested too deep.
    #[error("the payload is {0}")]
    Json(JsonError),
    /// The profile awaits bytes in hexadecimal digits or Base64, and this is neither.
    #[error("the payload has no bytes in the encoding that the profile says")]
    NotBytes,
    /// Not a frame of this model.
    #[error("the frame {0}")]
    Frame(FrameError),
    /// Not protobuf, or more of it than any sensor says.
    #[error("the payload {0}")]
    Sparkplug(sparkplug::Damaged),
    /// Well formed, but no path or topic of the profile is in it.
    #[error("the payload has nothing that the profile knows")]
    NothingKnown,
}

/// What a message says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    pub time: Option<Wall>,
    /// Points whose values have a time of their own.
    pub times: Vec<(usize, Wall)>,
    pub sequence: Option<u64>,
    /// `None`: the message says nothing about warming up.
    pub warming_up: Option<bool>,
}

/// Where the points of a profile stand in its messages.
#[derive(Clone, Debug)]
pub struct Shape {
    pub payload: Payload,
    /// For each point of the profile, in its order; `None` for one that MQTT does not carry.
    sources: Vec<Option<Source>>,
    paths: Paths,
    targets: Vec<Target>,
    /// The paths of `targets`, as written.
    pointers: Vec<String>,
    layout: Layout,
    /// In JSON documents, how the frame is written.
    encoding: Encoding,
    only: Option<Only>,
    properties: Properties,
    time_format: TimeFormat,
    zone: Option<Zone>,
    warm_words: Vec<Word>,
    /// In value payloads, the topic that says it.
    warm_topic: Option<String>,
    /// A device that says longer than this that it warms up is believed no more.
    pub warm_up_longest: Duration,
    signature: Option<String>,
}

/// Where one point stands and how it is to be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    pub place: Place,
    pub conversion: Conversion,
}

/// Where one point stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// JSON pointers, of which a message has one.
    Paths(Vec<String>),
    /// The part of the topic below the device.
    Topic(String),
    Property(Property),
    /// The name of a Sparkplug metric.
    Metric(String),
    /// The layout knows.
    Frame,
}

#[derive(Clone, Copy, Debug)]
enum Target {
    Point(usize),
    Time,
    Sequence,
    WarmUp,
    Signature,
    Frame,
    Only,
}

impl Shape {
    /// Reads `time`, `sequence`, `warm_up`, `signature`, `frame` and `bytes` of a `[mqtt]` table or a mapping. `points` are
    /// the places of its points, each with its reader for faults.
    pub fn read(r: &Reader<'_>, payload: Payload, points: Vec<(&Reader<'_>, Option<Source>)>) -> Self {
        let mut shape = Self {
            payload,
            sources: Vec::new(),
            paths: Paths::default(),
            targets: Vec::new(),
            pointers: Vec::new(),
            layout: Layout::default(),
            encoding: Encoding::Base64,
            only: None,
            properties: Properties::default(),
            time_format: TimeFormat::Auto,
            zone: None,
            warm_words: Vec::new(),
            warm_topic: None,
            warm_up_longest: WARM_UP,
            signature: None,
        };
        let mut seek =
            |owner: &Reader<'_>, key: &'static str, pointer: String, target: Target| match Paths::new(
                [pointer.as_str()],
            ) {
                Ok(_) => {
                    shape.pointers.push(pointer);
                    shape.targets.push(target);
                }
                Err(wrong) => owner.fault(key, wrong, None),
            };
        for (n, (point, source)) in points.iter().enumerate() {
            if let Some(Source { place: Place::Paths(paths), .. }) = source {
                paths.iter().for_each(|path| seek(point, "path", path.clone(), Target::Point(n)));
            }
        }
        let is_framed = |n: usize| {
            points.get(n).is_some_and(|(_, source)| source.as_ref().is_some_and(|s| s.place == Place::Frame))
        };
        if let Some(bytes) = r.table("bytes") {
            if payload != Payload::Json {
                r.fault("bytes", "`bytes` says where a JSON document holds a frame", None);
            }
            if let Some(path) = bytes.required::<String>("path") {
                seek(&bytes, "path", path, Target::Frame);
            }
            shape.encoding = bytes.choice("encoding", &Encoding::CHOICES).unwrap_or(Encoding::Base64);
            shape.only = bytes.table("only").and_then(|only| {
                let read = Only::read(&only)?;
                seek(&only, "path", read.path.clone(), Target::Only);
                Some(read)
            });
            bytes.finish();
        } else if payload == Payload::Json && (0..points.len()).any(is_framed) {
            let hint = Some("bytes = { path = \"/data\", encoding = \"base64\" }".to_owned());
            r.fault("bytes", "`bytes` is missing: where the document holds the frame", hint);
        }
        let mut told = false;
        if r.is_table("time") {
            if let Some(time) = r.table("time") {
                if let Some(path) = time.required::<String>("path") {
                    seek(&time, "path", path, Target::Time);
                }
                shape.time_format = time.choice("format", &TimeFormat::CHOICES).unwrap_or_default();
                if let Some(text) = time.optional::<String>("zone") {
                    shape.zone = Zone::parse(&text);
                    if shape.zone.is_none() {
                        time.fault("zone", format!("`zone` is {text:?}, expected such as \"+08:00\""), None);
                    }
                }
                time.finish();
                told = true;
            }
        } else if let Some(path) = r.optional::<String>("time") {
            seek(r, "time", path, Target::Time);
            told = true;
        }
        if let Some(path) = r.optional::<String>("sequence") {
            seek(r, "sequence", path, Target::Sequence);
            told = true;
        }
        let signature = r.optional::<String>("signature");
        match (&signature, payload) {
            (Some(path), Payload::Json) => seek(r, "signature", path.clone(), Target::Signature),
            (None, _) | (Some(_), Payload::Properties | Payload::Sparkplug) => {}
            (Some(_), _) => told = true,
        }
        if told && payload != Payload::Json {
            let hint = Some("other payloads carry neither time nor count at a path; leave them out".to_owned());
            r.fault("payload", "`time`, `sequence` and `signature` are for payload \"json\"", hint);
        }
        if let Some(warm_up) = r.table("warm_up") {
            match payload {
                Payload::Hex | Payload::Bytes | Payload::Properties | Payload::Sparkplug => {
                    r.fault("warm_up", "`warm_up` is for payloads \"json\" and \"value\"", None);
                }
                Payload::Json => {
                    if let Some(path) = warm_up.required::<String>("path") {
                        seek(&warm_up, "path", path, Target::WarmUp);
                    }
                }
                Payload::Value => shape.warm_topic = warm_up.required("topic"),
            }
            shape.warm_words = warm_up.required("words").unwrap_or_default();
            shape.warm_up_longest = warm_up.or("longest", WARM_UP);
            warm_up.finish();
        }
        // Each pointer was compiled alone above, so the set compiles.
        shape.paths = Paths::new(shape.pointers.iter().map(String::as_str)).unwrap_or_default();
        let forms: Vec<_> = points
            .iter()
            .map(|(point, source)| (*point, source.as_ref().map_or(Form::Number, |s| s.conversion.form())))
            .collect();
        shape.layout = Layout::read(r, &forms, is_framed);
        if payload == Payload::Properties {
            let property = |source: &Option<Source>| match source.as_ref().map(|source| &source.place) {
                Some(Place::Property(property)) => Some(property.clone()),
                _ => None,
            };
            let properties: Vec<_> = points.iter().map(|(_, source)| property(source)).collect();
            shape.properties = Properties::new(&properties, signature.as_deref());
        }
        shape.signature = signature;
        shape.sources = points.into_iter().map(|(_, source)| source).collect();
        shape
    }

    /// Whether MQTT carries any point.
    pub fn is_empty(&self) -> bool {
        self.sources.iter().all(Option::is_none)
    }

    /// The places of the points, in the profile's order.
    pub fn sources(&self) -> &[Option<Source>] {
        &self.sources
    }

    /// Whether this profile is picked by a key that its devices send.
    pub fn has_signature(&self) -> bool {
        self.signature.is_some()
    }

    /// Whether one of these keys at the top of a message would be this profile's signature.
    pub fn is_signed_by(&self, keys: &[String]) -> bool {
        let signature = self.signature.as_deref().map(|path| path.strip_prefix('/').unwrap_or(path));
        signature.is_some_and(|signature| keys.iter().any(|key| key == signature))
    }

    /// Whether a payload bears this profile's signature, be it null. `topic` is the part below the device.
    pub fn is_signed(&self, topic: &str, payload: &[u8]) -> bool {
        match self.payload {
            Payload::Properties => return text(payload).is_ok_and(|text| self.properties.is_signed(topic, text)),
            Payload::Sparkplug => {
                let payload = sparkplug::Payload::read(payload);
                return payload.is_ok_and(|payload| self.signature.as_deref().is_some_and(|name| payload.has(name)));
            }
            _ => {}
        }
        let mut signed = false;
        let look = text(payload).and_then(|text| {
            let mut found =
                |slot: usize, _: Scalar<'_>| signed |= matches!(self.targets.get(slot), Some(Target::Signature));
            self.paths.read(text, &mut found).map_err(Unreadable::Json)
        });
        look.is_ok() && signed
    }

    /// Hands the value of each point that the message carries to `found`, by the point's place in the profile. `topic` is
    /// the part below the device. On an error what was found before it must not be used.
    pub fn decode(
        &self,
        topic: &str,
        payload: &[u8],
        mut found: impl FnMut(usize, Result<Value, Fault>),
    ) -> Result<Stamp, Unreadable> {
        let mut stamp = Stamp::default();
        let mut known = false;
        match self.payload {
            Payload::Json => {
                let (mut frame, mut meant) = (None, self.only.is_none());
                self.paths
                    .read(text(payload)?, &mut |slot, scalar| match self.targets.get(slot) {
                        Some(Target::Point(n)) => {
                            if let Some(Some(source)) = self.sources.get(*n)
                                && source.takes(&scalar)
                            {
                                known = true;
                                found(*n, source.conversion.scalar(&scalar));
                            }
                        }
                        Some(Target::Time) => stamp.time = self.time_format.read(&scalar, self.zone),
                        Some(Target::Sequence) => stamp.sequence = sequence(&scalar),
                        Some(Target::WarmUp) => {
                            known = true;
                            stamp.warming_up = Some(self.says_warm_up(&scalar));
                        }
                        Some(Target::Frame) => frame = Some(scalar),
                        Some(Target::Only) => meant = self.only.as_ref().is_some_and(|only| only.is(&scalar)),
                        Some(Target::Signature) | None => {}
                    })
                    .map_err(Unreadable::Json)?;
                match frame {
                    // Another of the device's messages: well known, and nothing in it for us.
                    Some(_) if !meant => known = true,
                    Some(Scalar::Text(text)) => {
                        let bytes = self.encoding.decode(&text).ok_or(Unreadable::NotBytes)?;
                        let mut found = |n, value| {
                            known = true;
                            found(n, value);
                        };
                        self.layout.decode(&bytes, &mut found).map_err(Unreadable::Frame)?;
                    }
                    // A message without data, as radio networks pass them on, is none.
                    Some(Scalar::Null) | None => {}
                    Some(_) => return Err(Unreadable::NotBytes),
                }
            }
            Payload::Hex | Payload::Bytes => {
                let decoded;
                let bytes = if self.payload == Payload::Hex {
                    decoded = Encoding::Hex.decode(text(payload)?).ok_or(Unreadable::NotBytes)?;
                    &decoded
                } else if payload.len() > MAX_PAYLOAD {
                    return Err(Unreadable::TooLong(payload.len()));
                } else if payload.is_empty() {
                    return Err(Unreadable::Empty);
                } else {
                    payload
                };
                let mut found = |n, value| {
                    known = true;
                    found(n, value);
                };
                self.layout.decode(bytes, &mut found).map_err(Unreadable::Frame)?;
            }
            Payload::Properties => {
                let take = |n: usize, told: Told<'_, '_>| {
                    if let Some(Some(source)) = self.sources.get(n) {
                        known = true;
                        found(
                            n,
                            match told {
                                Told::Value(scalar) => source.conversion.scalar(scalar),
                                Told::Happened(happened) => Ok(Value::Flag(happened)),
                            },
                        );
                    }
                };
                let times = &mut stamp.times;
                let report = self.properties.read(topic, text(payload)?, take, |n, time| times.push((n, time)));
                let report = report.map_err(Unreadable::Json)?;
                known |= report.is_housekeeping;
                stamp.time = report.time;
            }
            Payload::Sparkplug => {
                let payload = sparkplug::Payload::read(payload).map_err(Unreadable::Sparkplug)?;
                stamp.time = payload.time;
                for metric in &payload.metrics {
                    // What has only an alias can be read by whoever has heard the birth.
                    for n in metric.name.into_iter().flat_map(|name| self.points_of_metric(name)) {
                        known = true;
                        found(n, self.metric(n, metric, None));
                        stamp.times.extend(metric.time.map(|time| (n, time)));
                    }
                }
            }
            Payload::Value => {
                let text = text(payload)?;
                for (n, source) in self.sources.iter().enumerate() {
                    if let Some(source) = source
                        && matches!(&source.place, Place::Topic(own) if own == topic)
                    {
                        known = true;
                        found(n, source.conversion.plain_text(text));
                    }
                }
                if self.warm_topic.as_deref() == Some(topic) {
                    known = true;
                    let word = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
                    stamp.warming_up = Some(self.warm_words.iter().any(|warm| warm.is(word)));
                }
            }
        }
        if known { Ok(stamp) } else { Err(Unreadable::NothingKnown) }
    }

    /// The points, by their place in the profile, that a Sparkplug metric of this name is read for.
    pub fn points_of_metric(&self, name: &str) -> impl Iterator<Item = usize> {
        let is = move |source: &Source| matches!(&source.place, Place::Metric(own) if own == name);
        self.sources.iter().enumerate().filter(move |(_, source)| source.as_ref().is_some_and(is)).map(|(n, _)| n)
    }

    /// The value of one of those points. `datatype` is what the metric's birth said.
    pub fn metric(&self, n: usize, metric: &sparkplug::Metric<'_>, datatype: Option<u32>) -> Result<Value, Fault> {
        let source = self.sources.get(n).and_then(Option::as_ref).ok_or(Fault::NotAValue)?;
        metric.read_as(datatype, |scalar| source.conversion.scalar(scalar))
    }

    /// See [`crate::profile::Profile::compose_json`].
    pub fn compose_json(&self, values: &[(usize, Value)], time: Wall, sequence: u64) -> Option<String> {
        if self.payload != Payload::Json {
            return None;
        }
        let mut tree = Tree::default();
        for (n, value) in values {
            let source = self.sources.get(*n)?.as_ref()?;
            let Place::Paths(paths) = &source.place else { return None };
            tree.put(paths.first()?, source.conversion.compose(value))?;
        }
        for (target, pointer) in self.targets.iter().zip(&self.pointers) {
            match target {
                Target::Time => tree.put(pointer, time.millis().to_string())?,
                Target::Sequence => tree.put(pointer, sequence.to_string())?,
                Target::Point(_) | Target::WarmUp | Target::Signature | Target::Frame | Target::Only => {}
            }
        }
        Some(tree.to_string())
    }

    fn says_warm_up(&self, scalar: &Scalar<'_>) -> bool {
        let word = match scalar {
            Scalar::Flag(true) => "true",
            Scalar::Flag(false) => "false",
            Scalar::Number(text) => text,
            Scalar::Text(text) => text.trim(),
            Scalar::Null | Scalar::NoNumber | Scalar::Compound => return false,
        };
        self.warm_words.iter().any(|warm| warm.is(word))
    }
}

impl Source {
    /// Of several paths one may lead to a document that holds the other.
    fn takes(&self, scalar: &Scalar<'_>) -> bool {
        !(matches!(scalar, Scalar::Compound) && matches!(&self.place, Place::Paths(paths) if paths.len() > 1))
    }
}

/// A JSON document in the making: objects only, keys in the order they were put.
#[derive(Default)]
struct Tree(Vec<(String, Branch)>);

enum Branch {
    Leaf(String),
    Object(Tree),
}

impl Tree {
    /// Puts a JSON value at a pointer; `None` when it has no key or another value is in the way.
    fn put(&mut self, pointer: &str, value: String) -> Option<()> {
        let keys = tokens(pointer).ok()?;
        let (last, above) = keys.split_last()?;
        let mut at = self;
        for key in above {
            let n = at.0.iter().position(|(other, _)| other == key).unwrap_or_else(|| {
                at.0.push((key.clone(), Branch::Object(Self::default())));
                at.0.len() - 1
            });
            at = match &mut at.0[n].1 {
                Branch::Object(tree) => tree,
                Branch::Leaf(_) => return None,
            };
        }
        at.0.push((last.clone(), Branch::Leaf(value)));
        Some(())
    }
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (n, (key, branch)) in self.0.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            write!(f, "{comma}{}:", quoted(key))?;
            match branch {
                Branch::Leaf(value) => f.write_str(value)?,
                Branch::Object(tree) => write!(f, "{tree}")?,
            }
        }
        f.write_str("}")
    }
}

fn sequence(scalar: &Scalar<'_>) -> Option<u64> {
    match scalar {
        Scalar::Number(text) => text.parse().ok(),
        Scalar::Text(text) => text.parse().ok(),
        _ => None,
    }
}

/// The payload as text: without the mark that some editors put in front and the zero that C programs leave behind.
pub fn text(payload: &[u8]) -> Result<&str, Unreadable> {
    if payload.len() > MAX_PAYLOAD {
        return Err(Unreadable::TooLong(payload.len()));
    }
    let text = std::str::from_utf8(payload).map_err(|error| Unreadable::NotUtf8(error.valid_up_to()))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim_end_matches('\0');
    if text.trim().is_empty() { Err(Unreadable::Empty) } else { Ok(text) }
}
