//! Device profiles, parsed from data: which topic, path or register of a model is which point.
//!
//! A profile is one TOML file with its own sample messages or frames and what they must read as. [`run_cases`] decodes
//! them with the code that serves the real devices; one test walks all shipped files, `anmin test` does it on site.
//! This module does not know sockets, topics of a site, or devices.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use include_dir::{Dir, include_dir};
use toml::de::DeValue;

use crate::decode::binary::parse_hex;
use crate::decode::frame::Layout;
use crate::decode::message::{self, Payload, Shape, Source};
use crate::decode::modbus;
use crate::decode::properties::Property;
use crate::decode::stamp::iso8601;
use crate::decode::value::Conversion;
use crate::document::{Document, Faults, FromToml, Reader, did_you_mean};
use crate::point::{Form, KINDS, Kind, PointSpec};
use crate::reading::{Fault, Quality, Value};
use crate::time::Wall;

static SHIPPED: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/profiles");

/// One model of device.
#[derive(Clone, Debug)]
pub struct Profile {
    /// The word of `[[device]]` and mappings, such as `yaoan-ya-k300`.
    pub id: Arc<str>,
    pub vendor: String,
    pub model: String,
    /// What it is, in Chinese and English.
    pub zh: String,
    pub en: String,
    /// Its points, as devices that say nothing else have them; in the order of `mqtt` and `modbus`.
    specs: Vec<Arc<PointSpec>>,
    /// How its MQTT messages read; `None` for a device that does not speak MQTT.
    pub mqtt: Option<Arc<Shape>>,
    /// How its registers read; `None` for a device that does not speak Modbus.
    pub modbus: Option<Arc<modbus::Unit>>,
    pub cases: Vec<Case>,
}

/// A sample of what the device sends, and what it must read as.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    pub name: String,
    input: Input,
    expect: BTreeMap<String, Value>,
    faults: BTreeMap<String, Fault>,
    time: Option<Wall>,
    /// Of points whose values have one of their own.
    times: BTreeMap<String, Wall>,
    sequence: Option<u64>,
    warming_up: Option<bool>,
    /// Nothing of it can be used.
    refused: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Input {
    /// A payload, and the part of the topic below the device.
    Message { topic: String, payload: Vec<u8> },
    /// A request and its answer, and the answer before that, for counters.
    Frames { request: Vec<u8>, earlier: Option<Vec<u8>>, answer: Vec<u8> },
}

/// What became of one [`Case`].
#[derive(Clone, Debug, PartialEq)]
pub struct CaseResult {
    pub case: String,
    /// What differs, one sentence each.
    pub outcome: Result<(), Vec<String>>,
}

impl Profile {
    /// Reads a profile file. `None` when a fault was noted.
    pub fn parse(source: &str, text: &str, faults: &Faults) -> Option<Self> {
        let doc = Document::parse(source, text, faults)?;
        let before = faults.len();
        let profile = Self::read(&doc.root(faults));
        profile.filter(|_| faults.len() == before)
    }

    fn read(r: &Reader<'_>) -> Option<Self> {
        let id: Option<String> = r.required("id");
        if let Some(id) = &id
            && (id.is_empty() || !id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'))
        {
            r.fault("id", format!("`id` is {id:?}, expected small letters, digits and -"), None);
        }
        let vendor = r.or("vendor", String::new());
        let model = r.or("model", String::new());
        let (zh, en) = match r.table("title") {
            Some(title) => {
                let both = (title.required("zh"), title.required("en"));
                title.finish();
                both
            }
            None => {
                r.fault("title", "`title` is missing", Some("title = { zh = \"...\", en = \"...\" }".to_owned()));
                (None, None)
            }
        };
        let mqtt = r.table("mqtt");
        let points = r.tables("point");
        if points.is_empty() {
            r.fault("point", "the profile has no [[point]]", None);
        }
        let payload = mqtt.as_ref().map(|mqtt| mqtt.choice("payload", &Payload::CHOICES).unwrap_or(Payload::Json));
        let (specs, shape) = read_points(&points, payload, mqtt.as_ref());
        let forms: Vec<Form> = specs.iter().map(|spec| spec.kind.info().form).collect();
        let readers: Vec<(Reader<'_>, Form)> = points.into_iter().zip(forms).collect();
        let modbus = modbus::Unit::read(r, &readers).map(Arc::new);
        for (n, (point, _)) in readers.iter().enumerate() {
            let on_mqtt = shape.as_ref().is_some_and(|shape| matches!(shape.sources().get(n), Some(Some(_))));
            if !on_mqtt && !modbus::Register::is_in(point) {
                point.fault(
                    "name",
                    "the point has neither a place in MQTT messages (`path`, `topic`, `at`, `property`, `event`, `metric`) nor a `register`",
                    payload.is_none().then(|| "a profile for MQTT has a [mqtt] table".to_owned()),
                );
            }
            point.finish();
        }
        if let Some(mqtt) = &mqtt {
            mqtt.finish();
        }
        let cases = r.tables("case").iter().filter_map(|case| Case::read(case, &specs)).collect();
        r.finish();
        Some(Self {
            id: Arc::from(id?),
            vendor,
            model,
            zh: zh?,
            en: en?,
            specs: specs.into_iter().map(Arc::new).collect(),
            mqtt: shape.map(Arc::new),
            modbus,
            cases,
        })
    }

    /// A profile without a file, for a mapping that has its points inline: reads `point_key` and the keys of a `[mqtt]`
    /// table out of `r`. `usual` is the payload where it says none.
    pub fn inline(r: &Reader<'_>, id: Arc<str>, point_key: &'static str, usual: Payload) -> Self {
        let points = r.tables(point_key);
        let payload = r.choice("payload", &Payload::CHOICES).unwrap_or(usual);
        let (specs, shape) = read_points(&points, Some(payload), Some(r));
        for (n, point) in points.iter().enumerate() {
            if shape.as_ref().is_some_and(|shape| matches!(shape.sources().get(n), Some(None))) {
                point.fault("name", format!("the point has no `{}`", payload.key()), None);
            }
            point.finish();
        }
        Self {
            zh: id.to_string(),
            en: id.to_string(),
            id,
            vendor: String::new(),
            model: String::new(),
            specs: specs.into_iter().map(Arc::new).collect(),
            mqtt: shape.map(Arc::new),
            modbus: None,
            cases: Vec::new(),
        }
    }

    /// What its points are, in the profile's order, ready for [`crate::point::Points::add`].
    pub fn specs(&self) -> &[Arc<PointSpec>] {
        &self.specs
    }

    /// The same with another `silent_after` for every point that has one in the profile. Keep the result for all devices
    /// that share it.
    pub fn specs_silent_after(&self, silent_after: Duration) -> Vec<Arc<PointSpec>> {
        self.specs
            .iter()
            .map(|spec| match spec.silent_after {
                Some(usual) if usual != silent_after => {
                    Arc::new(PointSpec { silent_after: Some(silent_after), ..PointSpec::clone(spec) })
                }
                _ => Arc::clone(spec),
            })
            .collect()
    }

    /// The place of a point in the profile.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.specs.iter().position(|spec| spec.name == name)
    }

    /// What a device of this profile would send: a JSON document with the values, its time in Unix milliseconds and its
    /// sequence, each where the profile reads it. For simulators. `None` for profiles without JSON.
    pub fn compose_json(&self, values: &[(usize, Value)], time: Wall, sequence: u64) -> Option<String> {
        self.mqtt.as_ref()?.compose_json(values, time, sequence)
    }
}

/// The keys of all `[[point]]`s that hold whatever the wire is, and those of MQTT.
fn read_points(
    points: &[Reader<'_>],
    payload: Option<Payload>,
    mqtt: Option<&Reader<'_>>,
) -> (Vec<PointSpec>, Option<Shape>) {
    let mut specs: Vec<PointSpec> = Vec::new();
    let mut sources = Vec::new();
    for r in points {
        let spec = read_spec(r);
        if specs.iter().any(|other| other.name == spec.name) {
            r.fault("name", format!("there are two points named {:?}", spec.name), None);
        }
        let frame = || Layout::is_in(r).then_some(message::Place::Frame);
        let place = match payload {
            None => None,
            Some(Payload::Json) => {
                r.optional("path").map(|Pointers(paths)| message::Place::Paths(paths)).or_else(frame)
            }
            Some(Payload::Value) if r.has("topic") => r.optional("topic").map(message::Place::Topic),
            // The only point of a device may be the whole of its topic.
            Some(Payload::Value) => (points.len() == 1).then(|| message::Place::Topic(String::new())),
            Some(Payload::Hex | Payload::Bytes) => frame(),
            Some(Payload::Properties) => {
                let property = read_property(r, spec.kind);
                let is_told = property.name.is_some() || !property.events.is_empty();
                is_told.then_some(message::Place::Property(property))
            }
            Some(Payload::Sparkplug) => r.optional("metric").map(message::Place::Metric),
        };
        let conversion = Conversion::read(r, spec.kind);
        check_unit(r, spec.kind);
        sources.push(place.map(|place| Source { place, conversion }));
        specs.push(spec);
    }
    let shape =
        mqtt.zip(payload).map(|(mqtt, payload)| Shape::read(mqtt, payload, points.iter().zip(sources).collect()));
    (specs, shape)
}

fn read_property(r: &Reader<'_>, kind: Kind) -> Property {
    let names = |key: &'static str| r.optional(key).map(|Names(names)| names).unwrap_or_default();
    let property = Property {
        name: r.optional("property"),
        service: r.optional("service"),
        events: names("event"),
        over: names("event_over"),
        output: r.optional("output"),
    };
    let (is_flag, kind) = (kind.info().form == Form::Flag, kind.as_str());
    if property.events.is_empty() {
        for key in ["event_over", "output"].into_iter().filter(|key| r.has(key)) {
            r.fault(key, format!("`{key}` is there without an `event`"), None);
        }
    } else if property.output.is_none() && !is_flag {
        let hint = Some("output = \"...\", what of the event is the value".to_owned());
        r.fault("event", format!("that an event came is true or false, which {kind} is not"), hint);
    }
    if !property.over.is_empty() && !is_flag {
        r.fault("event_over", format!("what is over is false, which {kind} cannot be"), None);
    }
    property
}

/// One name or several.
struct Names(Vec<String>);

impl FromToml for Names {
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        String::from_toml(value)
            .map(|name| vec![name])
            .or_else(|_| Vec::from_toml(value))
            .ok()
            .filter(|names| !names.is_empty() && names.iter().all(|name| !name.is_empty()))
            .map(Self)
            .ok_or_else(|| "a name, or a list of names".to_owned())
    }
}

/// One JSON pointer or several.
struct Pointers(Vec<String>);

impl FromToml for Pointers {
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        String::from_toml(value)
            .map(|path| vec![path])
            .or_else(|_| Vec::from_toml(value))
            .ok()
            .filter(|paths| !paths.is_empty())
            .map(Self)
            .ok_or_else(|| "a path such as \"/data/lel\", or a list of paths".to_owned())
    }
}

fn read_spec(r: &Reader<'_>) -> PointSpec {
    let name = r.required::<String>("name").unwrap_or_default();
    if r.has("name") && (name.is_empty() || name.contains(['/', '+', '#']) || name.chars().any(char::is_control)) {
        r.fault("name", format!("`name` is {name:?}, which no point can have"), None);
    }
    let word: Option<String> = r.required("kind");
    let kind = word.as_deref().and_then(Kind::named);
    if let (Some(word), None) = (&word, kind) {
        let hint = did_you_mean(word, KINDS.iter().map(|info| info.name));
        r.fault("kind", format!("`kind` is {word:?}, which is not a kind of point"), hint);
    }
    // With a fault noted any kind does.
    let mut spec = PointSpec::plain(&name, kind.unwrap_or(Kind::FIRST));
    if let Some(range) = r.optional::<Vec<f64>>("range") {
        match range[..] {
            [low, high] if low < high => spec.range = Some((low, high)),
            _ => r.fault("range", "`range` is not [lowest, highest]", None),
        }
    }
    spec.max_jump = r.optional("max_jump");
    if spec.max_jump.is_some_and(|jump| jump <= 0.0) {
        r.fault("max_jump", "`max_jump` must be above 0", None);
    }
    spec.stuck_after = r.optional("stuck_after");
    spec.silent_after = r.optional("silent_after");
    for (key, wait) in [("stuck_after", spec.stuck_after), ("silent_after", spec.silent_after)] {
        if wait == Some(Duration::ZERO) {
            r.fault(key, format!("`{key}` is zero"), None);
        }
    }
    spec.alarm_point = r.or("alarm_point", false);
    spec
}

/// `unit` is what the device speaks; where that is not the kind's own unit, `scale` must lead there.
fn check_unit(r: &Reader<'_>, kind: Kind) {
    let Some(unit) = r.optional::<String>("unit") else { return };
    let ours = kind.info().unit;
    if unit != ours && !r.has("scale") && !r.has("span") {
        let hint = match (unit.as_str(), ours) {
            _ if ours.is_empty() => "leave `unit` out".to_owned(),
            ("A", "mA") | ("V", "mV") | ("kW", "W") => "scale = 1000.0".to_owned(),
            ("mV", "V") | ("W", "kWh") | ("Wh", "kWh") => "scale = 0.001".to_owned(),
            ("mm", "cm") => "scale = 0.1".to_owned(),
            ("m", "cm") => "scale = 100.0".to_owned(),
            _ => format!("give the `scale` that turns {unit} into {ours}, or write unit = {ours:?}"),
        };
        r.fault("unit", format!("`unit` is {unit:?}, but {} is in {ours:?}", kind.as_str()), Some(hint));
    }
}

impl Case {
    fn read(r: &Reader<'_>, specs: &[PointSpec]) -> Option<Self> {
        let name: Option<String> = r.required("name");
        let input = Self::read_input(r);
        let known = |owner: &Reader<'_>, point: &str| {
            let spec = specs.iter().find(|spec| spec.name == point);
            if spec.is_none() {
                let hint = did_you_mean(point, specs.iter().map(|spec| spec.name.as_str()));
                owner.fault(point, format!("there is no point named {point:?}"), hint);
            }
            spec.map(|spec| spec.kind.info().form)
        };
        let mut expect = BTreeMap::new();
        if let Some(table) = r.table("expect") {
            for (point, Expected(value)) in table.values() {
                match (known(&table, point), &value) {
                    (Some(Form::Number), Value::Number(_))
                    | (Some(Form::Flag), Value::Flag(_))
                    | (Some(Form::Text), Value::Text(_)) => {
                        expect.insert(point.to_owned(), value);
                    }
                    (Some(_), _) => table.fault(point, format!("{point:?} cannot be {value}"), None),
                    (None, _) => {}
                }
            }
        }
        let mut faults = BTreeMap::new();
        if let Some(table) = r.table("faults") {
            for (point, word) in table.values::<String>() {
                let fault = Quality::ALL.into_iter().find_map(|quality| match quality {
                    Quality::Bad(fault) if quality.reason() == word => Some(fault),
                    _ => None,
                });
                match fault {
                    Some(fault) if known(&table, point).is_some() => {
                        faults.insert(point.to_owned(), fault);
                    }
                    Some(_) => {}
                    None => table.fault(point, format!("{word:?} is not a fault such as \"sentinel\""), None),
                }
            }
        }
        let moment = |owner: &Reader<'_>, key: &str, text: String| {
            let time = iso8601(&text, None);
            if time.is_none() {
                owner.fault(key, format!("`{key}` is {text:?}, expected such as \"2026-03-01T09:30:00+08:00\""), None);
            }
            time
        };
        let time = r.optional::<String>("time").and_then(|text| moment(r, "time", text));
        let mut times = BTreeMap::new();
        if let Some(table) = r.table("times") {
            for (point, text) in table.values::<String>() {
                if let (Some(_), Some(time)) = (known(&table, point), moment(&table, point, text)) {
                    times.insert(point.to_owned(), time);
                }
            }
        }
        let case = Self {
            name: name.unwrap_or_default(),
            input: input?,
            expect,
            faults,
            time,
            times,
            sequence: r.optional("sequence"),
            warming_up: r.optional("warming_up"),
            refused: r.or("refused", false),
        };
        r.finish();
        Some(case)
    }

    fn read_input(r: &Reader<'_>) -> Option<Input> {
        let hex = |key: &'static str| {
            let text: String = r.required(key)?;
            let bytes = parse_hex(&text);
            if bytes.is_none() {
                r.fault(key, format!("`{key}` is not pairs of hexadecimal digits"), None);
            }
            bytes
        };
        if r.has("request") {
            let (request, answer) = (hex("request"), hex("answer"));
            let earlier = if r.has("earlier") { Some(hex("earlier")?) } else { None };
            return Some(Input::Frames { request: request?, earlier, answer: answer? });
        }
        let topic = r.or("topic", String::new());
        let payload =
            if r.has("payload_hex") { hex("payload_hex") } else { r.required::<String>("payload").map(Vec::from) };
        Some(Input::Message { topic, payload: payload? })
    }

    fn run(&self, profile: &Profile) -> Result<(), Vec<String>> {
        let mut got: BTreeMap<&str, Result<Value, Fault>> = BTreeMap::new();
        let name = |n: usize| profile.specs.get(n).map_or("", |spec| spec.name.as_str());
        let mut wrong = Vec::new();
        let mut differ = |what: &str, got: String, wanted: String| {
            if got != wanted {
                wrong.push(format!("{what} is {got}, expected {wanted}"));
            }
        };
        let refused = match &self.input {
            Input::Message { topic, payload } => {
                let Some(shape) = &profile.mqtt else { return Err(vec!["the profile does not speak MQTT".to_owned()]) };
                match shape.decode(topic, payload, |n, value| drop(got.insert(name(n), value))) {
                    Ok(stamp) => {
                        differ("the time", show(self.time.and(stamp.time)), show(self.time));
                        for (point, time) in &self.times {
                            let own = stamp.times.iter().rev().find(|(n, _)| name(*n) == point).map(|(_, time)| *time);
                            differ(&format!("the time of {point}"), show(own), show(Some(*time)));
                        }
                        differ("the sequence", show(self.sequence.and(stamp.sequence)), show(self.sequence));
                        differ("warming up", show(self.warming_up.and(stamp.warming_up)), show(self.warming_up));
                        None
                    }
                    Err(unreadable) => Some(unreadable.to_string()),
                }
            }
            Input::Frames { request, earlier, answer } => {
                let Some(unit) = &profile.modbus else {
                    return Err(vec!["the profile does not speak Modbus".to_owned()]);
                };
                match unit.decode_frames(request, earlier.as_deref(), answer) {
                    Ok(values) => {
                        got.extend(values.into_iter().map(|(n, value)| (name(n), value)));
                        None
                    }
                    Err(error) => Some(error.to_string()),
                }
            }
        };
        match (self.refused, refused) {
            (true, Some(_)) => return Ok(()),
            (true, None) => return Err(vec!["it was accepted, expected to be refused".to_owned()]),
            (false, Some(why)) => return Err(vec![why]),
            (false, None) => {}
        }
        let wanted = self.expect.iter().map(|(point, value)| (point.as_str(), Ok(value.clone())));
        let wanted: BTreeMap<&str, Result<Value, Fault>> =
            wanted.chain(self.faults.iter().map(|(point, fault)| (point.as_str(), Err(*fault)))).collect();
        for point in wanted.keys().chain(got.keys().filter(|point| !wanted.contains_key(*point))) {
            differ(point, say(got.get(point)), say(wanted.get(point)));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}

fn show<T: std::fmt::Debug>(value: Option<T>) -> String {
    value.map_or("not there".to_owned(), |value| format!("{value:?}"))
}

fn say(value: Option<&Result<Value, Fault>>) -> String {
    match value {
        None => "not there".to_owned(),
        Some(Ok(value)) => value.to_string(),
        Some(Err(fault)) => format!("bad ({})", Quality::Bad(*fault).reason()),
    }
}

/// A value of a case.
struct Expected(Value);

impl FromToml for Expected {
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        match value {
            DeValue::Boolean(flag) => Ok(Self(Value::Flag(*flag))),
            DeValue::String(text) => Ok(Self(Value::Text(Arc::from(text.as_ref())))),
            _ => f64::from_toml(value)
                .map(|number| Self(Value::Number(number)))
                .map_err(|_| "a number, true, false or text".to_owned()),
        }
    }
}

/// Decodes the profile's own samples with the code that serves its devices.
pub fn run_cases(profile: &Profile) -> Vec<CaseResult> {
    profile.cases.iter().map(|case| CaseResult { case: case.name.clone(), outcome: case.run(profile) }).collect()
}

/// All profiles that a site knows, by id.
#[derive(Clone, Debug, Default)]
pub struct Profiles(BTreeMap<Arc<str>, Arc<Profile>>);

impl Profiles {
    /// The shipped ones.
    pub fn shipped() -> Self {
        let mut profiles = Self::default();
        let faults = Faults::default();
        for (source, text) in shipped_files() {
            if let Some(profile) = Profile::parse(source, text, &faults) {
                profiles.add(profile);
            }
        }
        // Invariant: the shipped files are sound; the test below walks them.
        debug_assert!(faults.is_empty(), "{:?}", faults.take());
        profiles
    }

    /// A profile of the site; it takes the place of a shipped one with its id.
    pub fn add(&mut self, profile: Profile) -> Option<Arc<Profile>> {
        self.0.insert(Arc::clone(&profile.id), Arc::new(profile))
    }

    pub fn get(&self, id: &str) -> Option<&Arc<Profile>> {
        self.0.get(id)
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Profile>> {
        self.0.values()
    }

    /// `did you mean ...` for a profile that is not there.
    pub fn hint(&self, id: &str) -> Option<String> {
        did_you_mean(id, self.0.keys().map(|id| &**id)).or_else(|| {
            Some(format!("known profiles: {}", self.0.keys().map(|id| &**id).collect::<Vec<_>>().join(", ")))
        })
    }
}

/// Name and text of every shipped file.
pub fn shipped_files() -> impl Iterator<Item = (&'static str, &'static str)> {
    SHIPPED.files().filter_map(|file| Some((file.path().to_str()?, file.contents_utf8()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_profile_is_sound_and_passes_its_own_cases() {
        let mut count = 0;
        for (source, text) in shipped_files() {
            let faults = Faults::default();
            let profile = Profile::parse(source, text, &faults);
            let found: Vec<String> = faults.take().iter().map(ToString::to_string).collect();
            assert_eq!(found, Vec::<String>::new());
            let profile = profile.expect("a file without faults is a profile");
            assert_eq!(source, format!("{}.toml", profile.id), "the file is named after its profile");
            assert!(profile.cases.len() >= 2, "{source}: a profile has two sample messages or more");
            for result in run_cases(&profile) {
                assert_eq!(result.outcome, Ok(()), "{source}: case {:?}", result.case);
            }
            for spec in profile.specs() {
                let in_cases = profile.cases.iter().any(|case| case.expect.contains_key(&spec.name));
                assert!(in_cases, "{source}: no case shows a value of {:?}", spec.name);
                if spec.alarm_point {
                    assert!(spec.silent_after.is_some(), "{source}: alarm point {:?} may fall silent", spec.name);
                    let number = spec.kind.info().form == Form::Number;
                    assert!(!number || spec.range.is_some(), "{source}: alarm point {:?} has no range", spec.name);
                }
            }
            count += 1;
        }
        assert!(count >= 12, "{count} profiles are embedded");
        assert_eq!(Profiles::shipped().iter().len(), count);
    }

    fn faults_of(text: &str) -> Vec<String> {
        let faults = Faults::default();
        assert!(Profile::parse("p.toml", text, &faults).is_none());
        faults.take().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_faulty_profile_names_every_fault() {
        let text = "id = 'X 1'\n\
            title = { zh = '燃气', en = 'gas' }\n\
            [mqtt]\n\
            tiem = '/ts'\n\
            sequence = 'seq'\n\
            [[point]]\n\
            name = 'lel'\n\
            kind = 'gas.lell'\n\
            path = '/v'\n\
            [[point]]\n\
            name = 'mm'\n\
            kind = 'flood.level'\n\
            unit = 'mm'\n\
            path = '/mm'\n\
            range = [5, 1]\n\
            [[point]]\n\
            name = 'lost'\n\
            kind = 'fire.smoke'\n\
            scale = 2\n\
            [[case]]\n\
            name = 'a'\n\
            payload = '{}'\n\
            expect = { lol = 1 }\n\
            faults = { mm = 'ill' }\n";
        assert_eq!(
            faults_of(text),
            [
                "p.toml:1:6: `id` is \"X 1\", expected small letters, digits and -",
                "p.toml:4:1: `mqtt.tiem` is not a known key\n  hint: did you mean `time`?",
                "p.toml:5:12: a path such as \"/data/lel\" begins with a slash, \"seq\" does not",
                "p.toml:8:8: `kind` is \"gas.lell\", which is not a kind of point\n  hint: did you mean `gas.lel`?",
                "p.toml:13:8: `unit` is \"mm\", but flood.level is in \"cm\"\n  hint: scale = 0.1",
                "p.toml:15:9: `range` is not [lowest, highest]",
                "p.toml:17:8: the point has neither a place in MQTT messages (`path`, `topic`, `at`, `property`, `event`, `metric`) nor a `register`",
                "p.toml:19:9: `scale` has no meaning for kind \"fire.smoke\", which is a flag",
                "p.toml:23:18: there is no point named \"lol\"\n  hint: did you mean `lel`?",
                "p.toml:24:17: \"ill\" is not a fault such as \"sentinel\"",
            ]
        );
    }

    #[test]
    fn a_case_that_fails_says_what_differs() {
        let text = "id = 'x'\ntitle = { zh = '燃气', en = 'gas' }\n[mqtt]\ntime = '/ts'\n\
            [[point]]\nname = 'lel'\nkind = 'gas.lel'\npath = '/v'\n\
            [[point]]\nname = 'low'\nkind = 'device.battery_low'\npath = '/low'\n\
            [[case]]\nname = 'a'\npayload = '{\"v\":1.5,\"low\":null}'\nexpect = { lel = 2.5 }\ntime = '2026-03-01T01:30:00Z'\n\
            [[case]]\nname = 'b'\npayload = '{\"v\":1.5}'\nrefused = true\n\
            [[case]]\nname = 'c'\npayload = 'v=1'\nexpect = { lel = 1 }\n";
        let faults = Faults::default();
        let profile = Profile::parse("p.toml", text, &faults).expect("the profile is sound");
        let outcomes: Vec<_> = run_cases(&profile).into_iter().map(|result| result.outcome.unwrap_err()).collect();
        assert_eq!(
            outcomes,
            [
                vec![
                    "the time is not there, expected Wall(1772328600000000)".to_owned(),
                    "lel is 1.5, expected 2.5".to_owned(),
                    "low is bad (sentinel), expected not there".to_owned(),
                ],
                vec!["it was accepted, expected to be refused".to_owned()],
                vec!["the payload is not JSON at byte 0".to_owned()],
            ]
        );
    }

    #[test]
    fn what_a_simulator_composes_reads_back() {
        let profiles = Profiles::shipped();
        for profile in profiles.iter().filter(|profile| profile.id.starts_with("anmin-json-")) {
            let values: Vec<(usize, Value)> = profile
                .specs()
                .iter()
                .enumerate()
                .map(|(n, spec)| match spec.kind.info().form {
                    Form::Number => (n, Value::Number(12.25)),
                    Form::Flag => (n, Value::Flag(true)),
                    Form::Text => (n, Value::Text("\"正常\"\n".into())),
                })
                .collect();
            let time = Wall::from_millis(1_772_328_600_123);
            let text = profile.compose_json(&values, time, 7).expect("the family speaks JSON");
            let shape = profile.mqtt.as_ref().expect("the family speaks MQTT");
            let mut got = Vec::new();
            let stamp = shape.decode("", text.as_bytes(), |n, value| got.push((n, value))).expect("it is readable");
            assert_eq!((stamp.time, stamp.sequence), (Some(time), Some(7)), "{text}");
            let mut wanted: Vec<_> = values.into_iter().map(|(n, value)| (n, Ok(value))).collect();
            wanted.sort_by_key(|(n, _)| *n);
            got.sort_by_key(|(n, _)| *n);
            assert_eq!(got, wanted, "{text}");
        }
    }
}
