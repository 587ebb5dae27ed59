//! What is published at a broker that nobody has described yet, and the mappings that would take it in.
//!
//! Knows publishers by their topics, device models by which profile reads their messages, and what is left by the names of
//! its keys. Promises that each proposal is a mapping that reads; not that it is right:
//! a person compares it with the wall. Bound: [`Survey::MOST`] topics with their last message.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::Value as Json;

use crate::decode::frame::Encoding;
use crate::decode::message::Payload;
use crate::decode::preset::{PRESETS, Preset, below};
use crate::decode::topic::Pattern;
use crate::profile::{Profile, Profiles};

/// What was heard.
#[derive(Debug, Default)]
pub struct Survey {
    topics: BTreeMap<String, Heard>,
    /// Messages of topics for which there was no room.
    pub left_out: u64,
}

#[derive(Debug, Default)]
struct Heard {
    messages: u64,
    payload: Vec<u8>,
}

/// One mapping for some of the topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// What seems to publish there: a preset's name, or a payload.
    pub what: &'static str,
    pub topics: usize,
    pub messages: u64,
    /// One of them, and the start of its last message.
    pub example: (String, String),
    /// The keys below `[[mqtt.mapping]]`; tables inside it are written inline.
    pub keys: String,
    /// The shipped profile that reads the messages.
    pub profile: Option<String>,
    /// Those that read them alike, where no one reads them best: which it is only a person can say.
    pub alike: Vec<String>,
    patterns: Vec<Pattern>,
}

impl Proposal {
    fn overlaps(&self, other: &Self) -> bool {
        self.patterns.iter().any(|pattern| other.patterns.iter().any(|of| of.overlaps(pattern)))
    }
}

/// As few groups as it takes so that in none two proposals share topics: mappings of one broker must not, and `#` of one publisher
/// may hold the topics of another.
pub fn apart(proposals: Vec<Proposal>) -> Vec<Vec<Proposal>> {
    let mut groups: Vec<Vec<Proposal>> = Vec::new();
    for proposal in proposals {
        match groups.iter_mut().find(|group| !group.iter().any(|other| other.overlaps(&proposal))) {
            Some(group) => group.push(proposal),
            None => groups.push(vec![proposal]),
        }
    }
    groups
}

impl Survey {
    /// Topics that are kept.
    pub const MOST: usize = 5_000;

    pub fn handle(&mut self, topic: &str, payload: &[u8]) {
        if !self.topics.contains_key(topic) && self.topics.len() >= Self::MOST {
            self.left_out += 1;
            return;
        }
        let heard = self.topics.entry(topic.to_owned()).or_default();
        heard.messages += 1;
        // What takes a retained message back says nothing of the others.
        if !payload.is_empty() {
            heard.payload = payload.to_vec();
        }
    }

    pub fn len(&self) -> usize {
        self.topics.len()
    }

    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// The mappings that take in what was heard, those of known publishers first.
    pub fn proposals(&self, profiles: &Profiles) -> Vec<Proposal> {
        let mut left: BTreeSet<&str> = self.topics.keys().map(String::as_str).collect();
        let mut found = Vec::new();
        for base in self.zigbee_bases() {
            let below = format!("{base}/");
            let taken: Vec<&str> = left.iter().copied().filter(|topic| topic.starts_with(&below)).collect();
            let preset = PRESETS.iter().find(|preset| preset.name == "zigbee2mqtt");
            found.extend(preset.and_then(|preset| self.of_preset(preset, Some(base), &taken, profiles)));
            left.retain(|topic| !topic.starts_with(&below));
        }
        for preset in PRESETS.iter().filter(|preset| !["zigbee2mqtt", "gbt26875"].contains(&preset.name)) {
            let patterns = |topics: &[&str]| -> Vec<Pattern> {
                topics.iter().filter_map(|topic| Pattern::parse(&below(preset.base, topic)).ok()).collect()
            };
            let (states, mut all) = (patterns(preset.states), patterns(preset.others));
            all.extend(states.iter().cloned());
            all.extend(preset.availability.iter().flat_map(|available| patterns(&[available.topic])));
            let is = |patterns: &[Pattern], topic: &str| patterns.iter().any(|pattern| pattern.find(topic).is_some());
            let state: Vec<&str> = left.iter().copied().filter(|topic| is(&states, topic)).collect();
            if state.is_empty() {
                continue;
            }
            found.extend(self.of_preset(preset, None, &state, profiles));
            left.retain(|topic| !is(&all, topic));
        }
        let mut groups: BTreeMap<Shape, Vec<&str>> = BTreeMap::new();
        for topic in left {
            groups.entry(Shape::of(topic, &self.topics[topic].payload)).or_default().push(topic);
        }
        let mut patterns: Vec<Pattern> = Vec::new();
        for (shape, topics) in groups {
            let Some((pattern, proposal)) = self.of_group(shape, &topics, profiles) else { continue };
            // Of two that share topics the first stands.
            if !patterns.iter().any(|other| other.overlaps(&pattern)) {
                patterns.push(pattern);
                found.push(proposal);
            }
        }
        found
    }

    fn zigbee_bases(&self) -> BTreeSet<&str> {
        let ends = ["/bridge/state", "/bridge/devices"];
        let bases = self.topics.keys().filter_map(|topic| ends.iter().find_map(|end| topic.strip_suffix(end)));
        // What would be a capture is no base.
        bases.filter(|base| !base.is_empty() && !base.contains(['{', '}']) && Pattern::parse(base).is_ok()).collect()
    }

    fn example(&self, topics: &[&str]) -> (String, String) {
        let topic = topics.first().copied().unwrap_or_default();
        let payload = self.topics.get(topic).map(|heard| &heard.payload[..heard.payload.len().min(160)]);
        (topic.to_owned(), String::from_utf8_lossy(payload.unwrap_or_default()).into_owned())
    }

    fn messages(&self, topics: &[&str]) -> u64 {
        topics.iter().filter_map(|topic| self.topics.get(*topic)).map(|heard| heard.messages).sum()
    }

    fn of_preset(
        &self,
        preset: &'static Preset,
        base: Option<&str>,
        topics: &[&str],
        profiles: &Profiles,
    ) -> Option<Proposal> {
        let mut keys = format!("preset = {}\n", quoted(preset.name));
        if let Some(base) = base.filter(|base| *base != preset.base) {
            let _ = writeln!(keys, "base_topic = {}", quoted(base));
        }
        let (profile, alike) = match preset.profiles.is_empty() && preset.name != "homeassistant" {
            true => one_of(self.best(preset.payload, topics, profiles).1),
            false => (None, Vec::new()),
        };
        if let Some(profile) = &profile {
            let _ = writeln!(keys, "profile = {}", quoted(profile));
        }
        let base = base.unwrap_or(preset.base);
        let patterns = preset.states.iter().filter_map(|topic| Pattern::parse(&below(base, topic)).ok()).collect();
        (!topics.is_empty()).then_some(Proposal {
            patterns,
            what: preset.name,
            topics: topics.len(),
            messages: self.messages(topics),
            example: self.example(topics),
            keys,
            profile,
            alike,
        })
    }

    /// The profiles that read most of these messages, and most in each, and how many values that is. Of several nobody but a
    /// person can say which it is.
    fn best<'p>(&self, payload: Payload, topics: &[&str], profiles: &'p Profiles) -> (usize, Vec<&'p Profile>) {
        let read = |profile: &Profile| -> usize {
            let Some(shape) = profile.mqtt.as_ref().filter(|shape| shape.payload == payload) else { return 0 };
            let payloads = topics.iter().filter_map(|topic| self.topics.get(*topic)).map(|heard| &heard.payload);
            payloads
                .map(|payload| {
                    let (mut good, mut bad) = (0_usize, 0_usize);
                    let read = shape.decode("", payload, |_, value| match value {
                        Ok(_) => good += 1,
                        Err(_) => bad += 1,
                    });
                    // One whose names are there and whose values are not, or whose own name is not, is another model.
                    let is_it = !shape.has_signature() || shape.is_signed("", payload);
                    if read.is_ok() && bad == 0 && is_it { good } else { 0 }
                })
                .sum()
        };
        let scored: Vec<(usize, &Profile)> = profiles.iter().map(|profile| (read(profile), &**profile)).collect();
        let most = scored.iter().map(|(score, _)| *score).max().unwrap_or(0);
        let best = scored.into_iter().filter(|(score, _)| *score == most && most > 0);
        (most, best.map(|(_, profile)| profile).collect())
    }

    fn of_group(&self, shape: Shape, topics: &[&str], profiles: &Profiles) -> Option<(Pattern, Proposal)> {
        let (pattern, device) = pattern_of(topics, Payload::CHOICES[shape.what].1 == Payload::Value)?;
        let mut keys = format!("topic = {}\n", quoted(&pattern));
        if device != "{device}" {
            let _ = writeln!(keys, "device = {}", quoted(&device));
        }
        let (word, payload) = Payload::CHOICES[shape.what];
        let points = match payload {
            Payload::Json => self.points_of_json(topics),
            Payload::Value => self.points_of_values(topics),
            _ => Vec::new(),
        };
        // A profile that reads less than the names say is that of another model.
        let (read, best) = self.best(payload, topics, profiles);
        let (profile, alike) = one_of(if read >= points.len() * topics.len() { best } else { Vec::new() });
        if let Some(profile) = &profile {
            let _ = writeln!(keys, "profile = {}", quoted(profile));
        } else if !points.is_empty() {
            let _ = writeln!(keys, "payload = {}\npoints = [\n  {},\n]", quoted(word), points.join(",\n  "));
        }
        // With neither, its devices are listed until somebody writes a profile.
        let pattern = Pattern::parse(&pattern).ok()?;
        let proposal = Proposal {
            patterns: vec![pattern.clone()],
            what: word,
            topics: topics.len(),
            messages: self.messages(topics),
            example: self.example(topics),
            keys,
            profile,
            alike,
        };
        Some((pattern, proposal))
    }

    fn points_of_json(&self, topics: &[&str]) -> Vec<String> {
        let mut found: BTreeMap<String, String> = BTreeMap::new();
        for heard in topics.iter().filter_map(|topic| self.topics.get(*topic)) {
            let Ok(json) = serde_json::from_slice::<Json>(&heard.payload) else { continue };
            walk(&json, String::new(), &mut |pointer, key, value| {
                if let Some(kind) = kind_of(key, value.is_boolean()) {
                    found.entry(pointer.to_owned()).or_insert_with(|| kind.to_owned());
                }
            });
        }
        let mut names: BTreeSet<String> = BTreeSet::new();
        let mut point = |(pointer, kind): (String, String)| {
            let name = pointer.rsplit('/').next().unwrap_or_default().replace(['~', '+', '#'], "-");
            let name = if names.contains(&name) { pointer.trim_matches('/').replace(['/', '~'], "-") } else { name };
            let line = format!("{{ name = {}, kind = {}, path = {} }}", quoted(&name), quoted(&kind), quoted(&pointer));
            names.insert(name).then_some(line)
        };
        found.into_iter().filter_map(&mut point).collect()
    }

    fn points_of_values(&self, topics: &[&str]) -> Vec<String> {
        let mut found: BTreeMap<&str, &str> = BTreeMap::new();
        for topic in topics {
            let name = topic.rsplit('/').next().unwrap_or_default();
            let text = self.topics.get(*topic).map(|heard| String::from_utf8_lossy(&heard.payload).into_owned());
            let is_flag = text.is_some_and(|text| text.trim().parse::<f64>().is_err());
            found.extend(kind_of(name, is_flag).map(|kind| (name, kind)));
        }
        let point = |(name, kind): (&str, &str)| {
            format!("{{ name = {name}, kind = {}, topic = {name} }}", quoted(kind), name = quoted(name))
        };
        found.into_iter().map(point).collect()
    }
}

/// The only one, or the names of several.
fn one_of(best: Vec<&Profile>) -> (Option<String>, Vec<String>) {
    match &best[..] {
        [only] => (Some(only.id.to_string()), Vec::new()),
        several => (None, several.iter().map(|profile| profile.id.to_string()).collect()),
    }
}

/// What messages that one mapping may take have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Shape {
    levels: usize,
    /// The first level and the last, where that says what the message is; a value says it by its own level.
    first: String,
    last: String,
    /// Place among [`Payload::CHOICES`].
    what: usize,
}

impl Shape {
    fn of(topic: &str, payload: &[u8]) -> Self {
        let levels: Vec<&str> = topic.split('/').collect();
        let text = std::str::from_utf8(payload).map(str::trim);
        let payload = match text {
            Err(_) => Payload::Bytes,
            Ok(text) if serde_json::from_str::<Json>(text).is_ok_and(|json| json.is_object() || json.is_array()) => {
                Payload::Json
            }
            Ok(text) if text.len() >= 8 && Encoding::Hex.decode(text).is_some() => Payload::Hex,
            Ok(_) => Payload::Value,
        };
        let what = Payload::CHOICES.iter().position(|(_, choice)| *choice == payload).unwrap_or_default();
        let last = levels.last().filter(|last| ENDS.contains(last) && payload != Payload::Value).copied();
        Self {
            levels: levels.len(),
            first: levels.first().copied().unwrap_or_default().to_owned(),
            last: last.unwrap_or_default().to_owned(),
            what,
        }
    }
}

/// Last levels that say what a message is, not whose.
const ENDS: [&str; 14] = [
    "up",
    "state",
    "status",
    "data",
    "telemetry",
    "report",
    "event",
    "events",
    "sensor",
    "SENSOR",
    "attributes",
    "uplink",
    "value",
    "values",
];

/// The pattern of some topics of as many levels, and the device's id. `None` where no level can be the device.
fn pattern_of(topics: &[&str], is_value: bool) -> Option<(String, String)> {
    let split: Vec<Vec<&str>> = topics.iter().map(|topic| topic.split('/').collect()).collect();
    let first = split.first()?;
    let mut levels: Vec<String> = first.iter().map(|level| (*level).to_owned()).collect();
    // What would be a wildcard or a capture stands for nobody.
    if levels.iter().any(|level| level.contains(['{', '}', '+', '#'])) {
        return None;
    }
    let end = if is_value { levels.len().checked_sub(1)? } else { levels.len() };
    let varies = |n: usize| split.iter().any(|other| other[n] != first[n]);
    let mut captured: Vec<usize> = (0..end).filter(|n| varies(*n)).collect();
    if captured.is_empty() {
        let is_end = |n: usize| n > 0 && ENDS.contains(&first[n]);
        captured.push((0..end).rev().find(|n| !is_end(*n) && !first[*n].is_empty())?);
    }
    let device = captured.pop()?;
    levels[device] = "{device}".to_owned();
    let mut id = String::new();
    for n in captured {
        levels[n] = format!("{{level{}}}", n + 1);
        let _ = write!(id, "{}-", levels[n]);
    }
    id.push_str("{device}");
    if is_value {
        levels.truncate(end);
        levels.push("#".to_owned());
    }
    Some((levels.join("/"), id))
}

fn walk(json: &Json, at: String, found: &mut impl FnMut(&str, &str, &Json)) {
    // A report is not deeper, and whoever writes one that is does not mean sensors.
    if at.matches('/').count() > 6 {
        return;
    }
    if let Json::Object(map) = json {
        for (key, value) in map {
            let pointer = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
            match value {
                Json::Object(_) => walk(value, pointer, found),
                Json::Number(_) | Json::Bool(_) => found(&pointer, key, value),
                Json::Null | Json::String(_) | Json::Array(_) => {}
            }
        }
    }
}

/// What a key of this name most often holds.
fn kind_of(name: &str, is_flag: bool) -> Option<&'static str> {
    let name = name.to_ascii_lowercase().replace(['-', ' '], "_");
    let words: &[(&[&str], &str, &str)] = &[
        (&["lel", "gas_lel", "ch4", "gas", "gas_value", "gasconcentration"], "gas.lel", "gas.detected"),
        (&["co", "carbon_monoxide"], "gas.co", ""),
        (&["smoke", "smoke_alarm"], "", "fire.smoke"),
        (&["smoke_density"], "fire.smoke_density", ""),
        (&["temp", "temperature", "temperature_c"], "env.temperature", ""),
        (&["hum", "humi", "humidity"], "env.humidity", ""),
        (&["level", "water_level", "depth"], "flood.level", ""),
        (&["leak", "water_leak", "flood", "water"], "", "flood.leak"),
        (&["rain", "rainfall"], "flood.rain", ""),
        (&["voltage", "volt", "u"], "power.voltage", ""),
        (&["current", "amp", "i"], "power.current", ""),
        (&["power", "active_power", "p"], "power.active_power", ""),
        (&["energy", "kwh"], "power.energy", ""),
        (&["leakage", "leak_current", "residual_current"], "power.residual_current", ""),
        (&["sos", "panic"], "", "care.sos"),
        (&["motion", "pir", "occupancy"], "", "care.motion"),
        (&["noise", "noise_db"], "env.noise", ""),
        (&["battery", "bat", "battery_level"], "device.battery", ""),
        (&["battery_low", "low_battery"], "", "device.battery_low"),
        (&["tamper"], "", "device.tamper"),
        (&["fault", "error"], "", "device.fault"),
        (&["rssi"], "device.signal", ""),
    ];
    let (_, number, flag) = words.iter().find(|(names, ..)| names.contains(&&*name))?;
    Some(if is_flag { flag } else { number }).filter(|kind| !kind.is_empty()).copied()
}

/// A TOML string.
pub fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::sparkplug;
    use crate::document::{Document, Faults};
    use crate::router::Mapping;

    /// The keys of every proposal, which must be sound together.
    fn proposed(heard: &[(&str, &str)]) -> Vec<String> {
        let mut survey = Survey::default();
        for (topic, payload) in heard {
            match payload.strip_prefix("sparkplug ") {
                Some(words) => survey.handle(topic, &sparkplug::written(words)),
                None => survey.handle(topic, payload.as_bytes()),
            }
        }
        let profiles = Profiles::shipped();
        let proposals = survey.proposals(&profiles);
        for group in apart(proposals.clone()) {
            let text: String = group.iter().map(|proposal| format!("[[mapping]]\n{}", proposal.keys)).collect();
            let faults = Faults::default();
            let document = Document::parse("p.toml", &text, &faults);
            let document = document.unwrap_or_else(|| panic!("{:?}\n{text}", faults.take()));
            let root = document.root(&faults);
            let read: Vec<Mapping> =
                root.tables("mapping").iter().filter_map(|r| Mapping::read(r, &profiles)).collect();
            Mapping::check_overlaps(&read, &faults);
            root.finish();
            assert_eq!(faults.take(), [], "{text}");
        }
        proposals.into_iter().map(|proposal| proposal.keys.trim_end().replace('\n', "; ")).collect()
    }

    #[test]
    fn every_known_publisher_is_known_by_its_topics() {
        for (topic, payload, wanted) in [
            ("zigbee2mqtt/bridge/state", r#"{"state":"online"}"#, "preset = \"zigbee2mqtt\""),
            ("b3/z2m/bridge/devices", "[]", "preset = \"zigbee2mqtt\"; base_topic = \"b3/z2m\""),
            (
                "tele/panji-3/SENSOR",
                r#"{"Time":"2026-03-01T09:30:00","DS18B20":{"Temperature":20.6},"TempUnit":"C"}"#,
                "preset = \"tasmota\"; profile = \"tasmota-ds18b20\"",
            ),
            (
                "shellyplussmoke-a1b2/events/rpc",
                r#"{"method":"NotifyStatus","params":{"ts":1772328600.42,"smoke:0":{"id":0,"alarm":true}}}"#,
                "preset = \"shelly\"",
            ),
            (
                "application/17c8/device/0101010101010101/event/up",
                r#"{"time":"2026-03-01T01:30:00.433+00:00","fPort":2,"data":"AAoBLA==","object":{"level_mm":300}}"#,
                "preset = \"chirpstack\"; profile = \"generic-lorawan-level\"",
            ),
            (
                "spBv1.0/g/DBIRTH/n/kitchen",
                "sparkplug seq=1 gas/lel:1=25.5",
                "preset = \"sparkplug\"; profile = \"generic-sparkplug\"",
            ),
            ("homeassistant/sensor/x/config", r#"{"name":"x","state_topic":"a/b"}"#, "preset = \"homeassistant\""),
            ("/sys/pk/dn/thing/event/property/post", r#"{"params":{"GasConcentration":1}}"#, "preset = \"aliyun\""),
            ("$sys/pid/dev/thing/property/post", r#"{"params":{"smoke":{"value":false}}}"#, "preset = \"onenet\""),
            ("$oc/devices/d1/sys/properties/report", r#"{"services":[]}"#, "preset = \"huawei\""),
            ("$thing/up/property/P/D", r#"{"method":"report","params":{"lel":12.6}}"#, "preset = \"tencent\""),
        ] {
            assert_eq!(proposed(&[(topic, payload)]), [wanted], "{topic}");
        }
    }

    #[test]
    fn other_topics_become_patterns_with_profile_points_or_neither() {
        for (heard, wanted) in [
            (
                // Gas, carbon monoxide or water: nobody but a person can say.
                &[("shequ/3/g1/up", r#"{"v":1.5,"ts":1772328600000}"#), ("shequ/3/g2/up", r#"{"v":2}"#)][..],
                "topic = \"shequ/3/{device}/up\"",
            ),
            (
                &[("shequ/3/s1/up", r#"{"v":12.5,"cable_temperature":31.0,"current":4.5}"#)],
                "topic = \"shequ/3/{device}/up\"; profile = \"anmin-json-power\"",
            ),
            (
                &[
                    ("a/1/x/data", r#"{"h":{"temperature":20.5,"humidity":50},"battery":80,"n":1}"#),
                    ("a/2/y/data", "{}"),
                ],
                "topic = \"a/{level2}/{device}/data\"; device = \"{level2}-{device}\"; payload = \"json\"; points = [;   \
                 { name = \"battery\", kind = \"device.battery\", path = \"/battery\" },;   \
                 { name = \"humidity\", kind = \"env.humidity\", path = \"/h/humidity\" },;   \
                 { name = \"temperature\", kind = \"env.temperature\", path = \"/h/temperature\" },; ]",
            ),
            (&[("lab/box7/status", r#"{"colour":"red"}"#)], "topic = \"lab/{device}/status\""),
            (
                &[("house/k1/temperature", "21.5"), ("house/k1/leak", "OFF"), ("house/k2/leak", "ON")],
                "topic = \"house/{device}/#\"; payload = \"value\"; points = [;   \
                 { name = \"leak\", kind = \"flood.leak\", topic = \"leak\" },;   \
                 { name = \"temperature\", kind = \"env.temperature\", topic = \"temperature\" },; ]",
            ),
            (&[("dtu/7", "zz\u{7f}")], "topic = \"{device}/#\""),
        ] {
            let found = proposed(heard);
            assert_eq!(found, [wanted], "{heard:?}");
        }
        // A publisher whose `#` holds the topics of another.
        let both = [("zigbee2mqtt/bridge/state", "{}"), ("plug/events/rpc", r#"{"params":{}}"#)];
        assert_eq!(proposed(&both), ["preset = \"zigbee2mqtt\"", "preset = \"shelly\""]);
        // Nothing to go by, and no two that share topics.
        assert_eq!(proposed(&[]), Vec::<String>::new());
        let many = proposed(&[
            ("a/b/up", r#"{"v":1}"#),
            ("a/c/up", "1"),
            ("a/d/up", "AA BB CC DD EE"),
            ("x", "1"),
            ("{a}/b", "1"),
        ]);
        assert_eq!(many.len(), 1, "of those that share topics the first stands: {many:?}");
    }

    #[test]
    fn what_is_kept_has_a_bound() {
        let mut survey = Survey::default();
        for n in 0..Survey::MOST + 3 {
            survey.handle(&format!("a/{n}"), b"1");
        }
        survey.handle("a/0", b"");
        assert_eq!((survey.len(), survey.left_out, survey.is_empty()), (Survey::MOST, 3, false));
        assert_eq!(survey.topics["a/0"].payload, b"1");
    }
}
