//! Home Assistant discovery: what devices announce of themselves, as mappings that read it.
//!
//! Many gateways publish, retained, one JSON document an entity under `homeassistant/<component>/[<node>/]<object>/config`:
//! its class, where its state comes, how that reads. An [`Entity`] is what anmin understands of it; [`mapping`] writes the
//! `[[mqtt.mapping]]` that takes it in, for a person to look at and copy. Nothing is taken in by itself: whether a class
//! means what anmin means by it only a person can say. It does not evaluate templates beyond `value_json.key`.

use std::fmt::Write as _;

use serde_json::{Map, Value as Json};

use crate::decode::json::quoted;
use crate::point::{Form, Hazard, Kind};

/// Entities of one document or topic, at most; a device may announce many at once.
pub const MOST: usize = 24;

/// One announced value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entity {
    /// The device it belongs to, and what that is called.
    pub device: String,
    pub label: String,
    pub topic: String,
    /// `gas`, `smoke`, `moisture`, ...
    class: String,
    kind: Kind,
    /// A JSON pointer; `None`: the whole payload is the value.
    path: Option<String>,
    /// The factor to the kind's unit, with the unit.
    scale: Option<(String, f64)>,
    words: Option<(String, String)>,
    availability: Option<(String, String, String)>,
    expire_after: Option<u64>,
}

/// Short names that documents use for the long ones.
const SHORT: [(&str, &str); 22] = [
    ("stat_t", "state_topic"),
    ("val_tpl", "value_template"),
    ("dev_cla", "device_class"),
    ("unit_of_meas", "unit_of_measurement"),
    ("uniq_id", "unique_id"),
    ("obj_id", "object_id"),
    ("pl_on", "payload_on"),
    ("pl_off", "payload_off"),
    ("exp_aft", "expire_after"),
    ("avty_t", "availability_topic"),
    ("avty", "availability"),
    ("pl_avail", "payload_available"),
    ("pl_not_avail", "payload_not_available"),
    ("t", "topic"),
    ("dev", "device"),
    ("ids", "identifiers"),
    ("cmps", "components"),
    ("p", "platform"),
    ("mf", "manufacturer"),
    ("mdl", "model"),
    ("cns", "connections"),
    ("o", "origin"),
];

/// What a class of a `binary_sensor` or `sensor` is to anmin.
const CLASSES: [(&str, &str, &str); 17] = [
    ("binary_sensor", "gas", "gas.detected"),
    ("binary_sensor", "smoke", "fire.smoke"),
    ("binary_sensor", "moisture", "flood.leak"),
    ("binary_sensor", "power", "power.supply"),
    ("binary_sensor", "problem", "device.fault"),
    ("binary_sensor", "tamper", "device.tamper"),
    ("binary_sensor", "battery", "device.battery_low"),
    ("sensor", "carbon_monoxide", "gas.co"),
    ("sensor", "temperature", "env.temperature"),
    ("sensor", "humidity", "env.humidity"),
    ("sensor", "battery", "device.battery"),
    ("sensor", "signal_strength", "device.signal"),
    ("sensor", "voltage", "power.voltage"),
    ("sensor", "current", "power.current"),
    ("sensor", "power", "power.active_power"),
    ("sensor", "energy", "power.energy"),
    ("sensor", "frequency", "power.frequency"),
];

/// Units of Home Assistant that are not the kind's own.
const UNITS: [(&str, &str, f64); 5] =
    [("mV", "V", 0.001), ("mA", "A", 0.001), ("kW", "W", 1_000.0), ("Wh", "kWh", 0.001), ("°C", "degC", 1.0)];

/// The component of a configuration topic below `base`; `None` for other topics.
pub fn component<'t>(base: &str, topic: &'t str) -> Option<&'t str> {
    let levels: Vec<&str> = topic.strip_prefix(base)?.strip_prefix('/')?.split('/').collect();
    match levels[..] {
        [component, _, "config"] | [component, _, _, "config"] => Some(component),
        _ => None,
    }
}

/// What a configuration announces, as far as anmin has a kind for it and understands how it reads. `None` for what is no
/// configuration.
pub fn entities(component: &str, payload: &[u8]) -> Option<Vec<Entity>> {
    let Json::Object(document) = serde_json::from_slice(payload).ok()? else { return None };
    let document = long(document);
    let Some(Json::Object(components)) = document.get("components") else {
        return Some(Entity::read(component, &document).into_iter().collect());
    };
    let several = components.values().take(MOST).filter_map(Json::as_object).filter_map(|own| {
        let mut whole = document.clone();
        whole.extend(long(own.clone()));
        let component = whole.get("platform")?.as_str()?.to_owned();
        Entity::read(&component, &whole)
    });
    Some(several.collect())
}

/// The same with long names, and with `~` in topics written out.
fn long(map: Map<String, Json>) -> Map<String, Json> {
    let base = map.get("~").and_then(Json::as_str).unwrap_or_default().to_owned();
    let mut long_names = Map::new();
    for (key, value) in map {
        let name = SHORT.iter().find(|(short, _)| *short == key).map_or(key.as_str(), |(_, long)| long);
        let value = match value {
            Json::Object(inner) if name != "components" => Json::Object(long(inner)),
            Json::String(text) if name.ends_with("topic") => Json::String(expand(&text, &base)),
            Json::Array(items) => Json::Array(items.into_iter().map(|item| in_list(item, &base)).collect()),
            other => other,
        };
        long_names.insert(name.to_owned(), value);
    }
    long_names
}

fn in_list(item: Json, base: &str) -> Json {
    let Json::Object(inner) = item else { return item };
    let mut inner = long(inner);
    if let Some(Json::String(topic)) = inner.get_mut("topic") {
        *topic = expand(topic, base);
    }
    Json::Object(inner)
}

fn expand(topic: &str, base: &str) -> String {
    match (topic.strip_prefix('~'), topic.strip_suffix('~')) {
        (Some(rest), _) => format!("{base}{rest}"),
        (None, Some(rest)) => format!("{rest}{base}"),
        (None, None) => topic.to_owned(),
    }
}

impl Entity {
    fn read(component: &str, r: &Map<String, Json>) -> Option<Self> {
        let text = |of: &Map<String, Json>, key: &str| of.get(key).and_then(Json::as_str).map(str::to_owned);
        let class = text(r, "device_class")?;
        let (.., kind) = CLASSES.iter().find(|(of, name, _)| *of == component && *name == class)?;
        let kind = Kind::named(kind)?;
        let topic = text(r, "state_topic").filter(|topic| !topic.is_empty() && !topic.contains(['+', '#', '{']))?;
        let path = match text(r, "value_template") {
            Some(template) => Some(pointer(&template)?),
            None => None,
        };
        let ours = kind.info().unit;
        let unit = text(r, "unit_of_measurement").filter(|unit| unit != ours && !ours.is_empty());
        let scale = match unit {
            Some(unit) if ours == "%RH" && unit == "%" => None,
            Some(unit) => Some((unit.clone(), UNITS.iter().find(|(from, to, _)| *from == unit && *to == ours)?.2)),
            None => None,
        };
        let device = r.get("device").and_then(Json::as_object);
        let identifier = device.and_then(|device| match device.get("identifiers")? {
            Json::Array(all) => all.first()?.as_str().map(str::to_owned),
            one => one.as_str().map(str::to_owned),
        });
        let word = |of: &Map<String, Json>, key: &str, usual: &str| match of.get(key) {
            Some(Json::String(word)) => word.clone(),
            Some(Json::Bool(_) | Json::Number(_)) => of[key].to_string(),
            _ => usual.to_owned(),
        };
        let first = r.get("availability").and_then(|all| all.as_array().map_or(Some(all), |all| all.first()));
        let listed = first.and_then(Json::as_object);
        let from = |of: &Map<String, Json>, key: &str| {
            let topic = text(of, key)?;
            Some((topic, word(of, "payload_available", "online"), word(of, "payload_not_available", "offline")))
        };
        Some(Self {
            device: identifier.or_else(|| text(r, "unique_id"))?,
            label: device.and_then(|device| text(device, "name")).or_else(|| text(r, "name")).unwrap_or_default(),
            topic,
            class,
            kind,
            path,
            scale: scale.filter(|(_, scale)| *scale != 1.0),
            words: (kind.info().form == Form::Flag)
                .then(|| (word(r, "payload_on", "ON"), word(r, "payload_off", "OFF"))),
            availability: listed.and_then(|of| from(of, "topic")).or_else(|| from(r, "availability_topic")),
            expire_after: r.get("expire_after").and_then(Json::as_u64).filter(|seconds| *seconds > 0),
        })
    }
}

/// `{{ value_json.a.b }}` and `{{ value_json['a']["b"] }}`, without filters or with `| float` and `| int`.
fn pointer(template: &str) -> Option<String> {
    let inner = template.trim().strip_prefix("{{")?.strip_suffix("}}")?;
    let mut parts = inner.split('|').map(str::trim);
    let mut rest = parts.next()?.strip_prefix("value_json")?;
    if !parts.all(|filter| matches!(filter, "float" | "int" | "float(0)" | "int(0)")) {
        return None;
    }
    let mut path = String::new();
    while !rest.is_empty() {
        let (key, after) = if let Some(named) = rest.strip_prefix('.') {
            named.split_at(named.find(['.', '[']).unwrap_or(named.len()))
        } else {
            let (key, after) = rest.strip_prefix('[')?.split_once(']')?;
            (key.trim_matches(['\'', '"']), after)
        };
        let sound = !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | ':' | ' '));
        if !sound {
            return None;
        }
        path.push('/');
        path.push_str(key);
        rest = after;
    }
    (!path.is_empty()).then_some(path)
}

/// The mapping that takes in the entities of one topic, for `anmin.toml`, in `table`. They must all be of that topic.
pub fn mapping(table: &str, id: &str, entities: &[Entity]) -> String {
    let mut text = String::new();
    let Some(first) = entities.first() else { return text };
    let json = entities.iter().any(|entity| entity.path.is_some());
    // Writing to text does not fail.
    let _ = writeln!(
        text,
        "[[{table}]]{}",
        if first.label.is_empty() { String::new() } else { format!("  # {}", line(&first.label)) }
    );
    let _ = writeln!(text, "topic = {}\ndevice = {}\nunknown = \"provision\"", quoted(&first.topic), quoted(id));
    if !json {
        text.push_str("payload = \"value\"\n");
    }
    if let Some(seconds) = entities.iter().filter_map(|entity| entity.expire_after).min() {
        let _ = writeln!(text, "expire_after = \"{seconds}s\"");
    }
    if let Some((topic, online, offline)) = &first.availability {
        let _ = writeln!(
            text,
            "availability = {{ topic = {}, online = {}, offline = {} }}",
            quoted(topic),
            quoted(online),
            quoted(offline)
        );
    }
    let mut names: Vec<&str> = Vec::new();
    for entity in entities.iter().filter(|entity| entity.path.is_some() == json) {
        let alike = names.iter().filter(|name| **name == entity.class).count();
        names.push(&entity.class);
        let number = if alike == 0 { String::new() } else { format!("_{}", alike + 1) };
        let _ = write!(
            text,
            "\n  [[{table}.points]]\n  name = \"{}{number}\"\n  kind = \"{}\"\n",
            entity.class,
            entity.kind.as_str()
        );
        if let Some(path) = &entity.path {
            let _ = writeln!(text, "  path = {}", quoted(path));
        }
        if let Some((unit, scale)) = &entity.scale {
            let _ = writeln!(text, "  unit = {}\n  scale = {scale:?}", quoted(unit));
        }
        if let Some((on, off)) = &entity.words {
            let _ = writeln!(text, "  true_words = [{}]\n  false_words = [{}]", quoted(on), quoted(off));
        }
        if !matches!(entity.kind.info().hazard, Hazard::Device | Hazard::Care) && entity.words.is_some() {
            text.push_str("  alarm_point = true\n");
        }
    }
    text
}

impl Entity {
    /// Whether the other one is this one announced again.
    pub fn is_same(&self, other: &Self) -> bool {
        self.kind == other.kind && self.path == other.path
    }
}

/// Words of a device in a comment: one line.
fn line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_that_name_a_place_become_paths() {
        for (template, wanted) in [
            ("{{ value_json.alarm }}", Some("/alarm")),
            ("{{value_json.DS18B20.Temperature}}", Some("/DS18B20/Temperature")),
            ("{{ value_json['smoke:0']['alarm'] }}", Some("/smoke:0/alarm")),
            ("{{ value_json.a[\"b\"] | float(0) }}", Some("/a/b")),
            ("{{ value_json.a | round(1) }}", None),
            ("{{ value }}", None),
            ("{{ value_json }}", None),
            ("{% if value_json.a %}ON{% endif %}", None),
            ("{{ value_json.a + 1 }}", None),
            ("{{ value_json['a }}", None),
            ("", None),
        ] {
            assert_eq!(pointer(template).as_deref(), wanted, "{template}");
        }
    }

    /// Found by fuzzing (2026-11-28): DEL stands in JSON as it is, and may not in TOML.
    #[test]
    fn what_is_announced_with_letters_of_control_becomes_sound_toml() {
        let mut understood = 0;
        for word in ["\u{7f}n", "\\u0000", "\\u001f\\\"", "\u{85}", "报\u{7f}警"] {
            let payload = format!(
                r#"{{"unique_id":"x","state_topic":"a/b","device_class":"gas","payload_on":"{word}","payload_off":"off",
                    "availability":[{{"topic":"a/{word}","payload_available":"{word}"}}]}}"#
            );
            let entities = entities("binary_sensor", payload.as_bytes()).expect("it is a configuration");
            let toml = mapping("mqtt.mapping", "x", &entities);
            let table: Result<toml::Table, _> = toml.parse();
            assert!(table.is_ok(), "{table:?} of\n{toml}");
            understood += entities.len();
        }
        assert!(understood > 1, "{understood} entities");
    }

    #[test]
    fn configuration_topics_are_known() {
        for (topic, wanted) in [
            ("homeassistant/binary_sensor/x/config", Some("binary_sensor")),
            ("homeassistant/sensor/node/x/config", Some("sensor")),
            ("homeassistant/sensor/a/b/c/config", None),
            ("homeassistant/status", None),
            ("other/sensor/x/config", None),
        ] {
            assert_eq!(component("homeassistant", topic), wanted, "{topic}");
        }
    }

    fn announced(component: &str, payload: &str) -> Vec<String> {
        let entities = entities(component, payload.as_bytes()).unwrap_or_default();
        entities
            .iter()
            .map(|e| {
                let words = e.words.as_ref().map_or(String::new(), |(on, off)| format!(" {on}/{off}"));
                let scale = e.scale.as_ref().map_or(String::new(), |(unit, scale)| format!(" {unit}*{scale}"));
                let gone =
                    e.availability.as_ref().map_or(String::new(), |(topic, on, off)| format!(" {topic}:{on}/{off}"));
                let wait = e.expire_after.map_or(String::new(), |wait| format!(" {wait}s"));
                let path = e.path.as_deref().unwrap_or("-");
                format!("{} {} {} {path}{words}{scale}{gone}{wait}", e.device, e.topic, e.kind.as_str())
            })
            .collect()
    }

    #[test]
    fn announcements_are_understood_long_and_short_one_by_one_and_by_device() {
        for (component, payload, wanted) in [
            (
                "binary_sensor",
                r#"{"name":"3号楼燃气","unique_id":"b3u2_gas","state_topic":"x/b3u2-gas/state","value_template":"{{ value_json.alarm }}","device_class":"gas","expire_after":900,"availability":[{"topic":"x/status"}],"device":{"identifiers":["b3u2-gas"],"model":"YA-K300-S"}}"#,
                &["b3u2-gas x/b3u2-gas/state gas.detected /alarm ON/OFF x/status:online/offline 900s"][..],
            ),
            (
                "sensor",
                r#"{"~":"tele/panji","stat_t":"~/SENSOR","val_tpl":"{{value_json['ENERGY'].Power}}","dev_cla":"power","unit_of_meas":"kW","uniq_id":"p1","avty_t":"~/LWT","pl_avail":"Online","pl_not_avail":"Offline","dev":{"ids":"panji"}}"#,
                &["panji tele/panji/SENSOR power.active_power /ENERGY/Power kW*1000 tele/panji/LWT:Online/Offline"],
            ),
            (
                "device",
                r#"{"dev":{"ids":["d"],"name":"Cellar"},"stat_t":"d/state","cmps":{"a":{"p":"binary_sensor","dev_cla":"moisture","val_tpl":"{{ value_json.wet }}","pl_on":true,"pl_off":false},"b":{"p":"sensor","dev_cla":"temperature","unit_of_meas":"°C","val_tpl":"{{ value_json.t }}"},"c":{"p":"button"}}}"#,
                &["d d/state flood.leak /wet true/false", "d d/state env.temperature /t"],
            ),
            // A class that anmin has no kind for, a unit it cannot turn, a template it does not evaluate, a wildcard.
            ("binary_sensor", r#"{"uniq_id":"x","stat_t":"x","dev_cla":"motion"}"#, &[]),
            ("sensor", r#"{"uniq_id":"x","stat_t":"x","dev_cla":"temperature","unit_of_meas":"°F"}"#, &[]),
            ("sensor", r#"{"uniq_id":"x","stat_t":"x","dev_cla":"humidity","val_tpl":"{{ value_json.a * 2 }}"}"#, &[]),
            ("sensor", r#"{"uniq_id":"x","stat_t":"x/#","dev_cla":"humidity"}"#, &[]),
            ("sensor", r#"{"stat_t":"x","dev_cla":"humidity"}"#, &[]),
            ("sensor", "[]", &[]),
            ("sensor", "{", &[]),
        ] {
            assert_eq!(announced(component, payload), wanted, "{payload}");
        }
        assert_eq!(entities("sensor", b"[]"), None);
    }
}
