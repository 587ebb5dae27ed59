//! Zigbee2MQTT: its topics, device ids from friendly names, and the list of devices that its bridge keeps.
//!
//! `<base>/<friendly name>` carries a device's whole state as JSON, `<base>/<friendly name>/availability` and
//! `<base>/bridge/state` say who is there, `<base>/bridge/devices` is the list. Friendly names may hold `/` and Chinese.

use serde_json::Value as Json;

/// What a topic below the base is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topic<'t> {
    /// The state of a device.
    State(&'t str),
    /// Whether a device is there.
    Availability(&'t str),
    /// Whether the radio bridge itself, and with it every device, is there.
    Bridge,
    /// The list of all devices that have joined.
    Devices,
    /// Logs and other lists of the bridge, and what others tell devices to do.
    Other,
}

/// Sorts a topic; `None` when it does not lie below `base`.
pub fn topic<'t>(base: &str, topic: &'t str) -> Option<Topic<'t>> {
    let name = topic.strip_prefix(base)?.strip_prefix('/').filter(|name| !name.is_empty())?;
    Some(if name == "bridge/state" {
        Topic::Bridge
    } else if name == "bridge/devices" {
        Topic::Devices
    } else if name == "bridge" || name.starts_with("bridge/") {
        Topic::Other
    } else if let Some(device) = name.strip_suffix("/availability") {
        Topic::Availability(device)
    } else if ["/set", "/get"].iter().any(|tail| name.ends_with(tail))
        || name.contains("/set/")
        || name.contains("/get/")
    {
        Topic::Other
    } else {
        Topic::State(name)
    })
}

/// The device id of a friendly name: what an id cannot hold is written as `%` and two digits, so `厨房/燃气` is
/// `厨房%2F燃气`. [`friendly_name`] turns it back.
pub fn device_id(name: &str) -> String {
    let mut id = String::with_capacity(name.len());
    for c in name.chars() {
        if matches!(c, '%' | '/' | '\\' | '+' | '#') || c.is_ascii_control() {
            id.push_str(&format!("%{:02X}", u32::from(c)));
        } else {
            id.push(c);
        }
    }
    id
}

/// The friendly name behind a device id.
pub fn friendly_name(id: &str) -> String {
    let mut name = String::with_capacity(id.len());
    let mut rest = id;
    while let Some(at) = rest.find('%') {
        name.push_str(&rest[..at]);
        match rest.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                name.push(char::from(byte));
                rest = &rest[at + 3..];
            }
            None => {
                name.push('%');
                rest = &rest[at + 1..];
            }
        }
    }
    name.push_str(rest);
    name
}

/// A device that has joined the radio network, whether it has spoken or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub friendly_name: String,
    pub vendor: String,
    pub model: String,
    pub description: String,
    /// The keys that its state messages may have.
    pub properties: Vec<String>,
}

/// The devices of the bridge's list: neither the bridge's own radio, nor what was switched off or is not understood.
/// `None` for what is no such list.
pub fn devices(payload: &[u8]) -> Option<Vec<Listed>> {
    let list: Vec<Json> = serde_json::from_slice(payload).ok()?;
    Some(list.iter().filter_map(Listed::of).collect())
}

impl Listed {
    fn of(device: &Json) -> Option<Self> {
        let text = |of: &Json, key: &str| of.get(key).and_then(Json::as_str).unwrap_or_default().to_owned();
        let definition = device.get("definition").filter(|definition| definition.is_object())?;
        if text(device, "type") == "Coordinator" || device.get("disabled") == Some(&Json::Bool(true)) {
            return None;
        }
        let mut properties = Vec::new();
        let mut exposes: Vec<&Json> = definition.get("exposes")?.as_array()?.iter().collect();
        while let Some(expose) = exposes.pop() {
            properties.extend(expose.get("property").and_then(Json::as_str).map(str::to_owned));
            exposes.extend(expose.get("features").and_then(Json::as_array).into_iter().flatten());
        }
        properties.sort();
        properties.dedup();
        let listed = Self {
            friendly_name: text(device, "friendly_name"),
            vendor: text(definition, "vendor"),
            model: text(definition, "model"),
            description: text(definition, "description"),
            properties,
        };
        (!listed.friendly_name.is_empty()).then_some(listed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::point::DeviceId;

    #[test]
    fn the_bridge_lists_who_has_joined() {
        let list = r#"[
            {"ieee_address":"0x00124b0000000001","type":"Coordinator","friendly_name":"Coordinator","definition":null},
            {"ieee_address":"0x00158d0001a2b3c4","type":"EndDevice","friendly_name":"3号楼/厨房","disabled":false,
             "definition":{"vendor":"HEIMAN","model":"HS1CG-M","description":"Combustible gas sensor",
              "exposes":[{"type":"binary","property":"gas"},{"type":"numeric","property":"linkquality"},
               {"type":"composite","features":[{"property":"tamper"},{"property":"gas"}]}]}},
            {"ieee_address":"0x02","type":"EndDevice","friendly_name":"off","disabled":true,"definition":{"exposes":[]}},
            {"ieee_address":"0x03","type":"EndDevice","friendly_name":"unsupported","definition":null},
            {"friendly_name":7,"definition":{"exposes":[]}}, {"definition":{"exposes":"no"}}, null, 1]"#;
        let listed = devices(list.as_bytes()).expect("it is a list");
        let [gas] = &listed[..] else { panic!("{listed:?}") };
        assert_eq!(
            (gas.friendly_name.as_str(), gas.vendor.as_str(), gas.model.as_str()),
            ("3号楼/厨房", "HEIMAN", "HS1CG-M")
        );
        assert_eq!(gas.properties, ["gas", "linkquality", "tamper"]);
        for payload in ["", "{}", "[1", "null", "\u{1}"] {
            assert_eq!(devices(payload.as_bytes()), None, "{payload:?}");
        }
        assert_eq!(devices("[".repeat(100_000).as_bytes()), None);
    }

    #[test]
    fn topics_are_sorted() {
        for (text, wanted) in [
            ("zigbee2mqtt/kitchen", Some(Topic::State("kitchen"))),
            ("zigbee2mqtt/3号楼/厨房 燃气", Some(Topic::State("3号楼/厨房 燃气"))),
            ("zigbee2mqtt/kitchen/availability", Some(Topic::Availability("kitchen"))),
            ("zigbee2mqtt/3号楼/厨房/availability", Some(Topic::Availability("3号楼/厨房"))),
            ("zigbee2mqtt/bridge/state", Some(Topic::Bridge)),
            ("zigbee2mqtt/bridge/devices", Some(Topic::Devices)),
            ("zigbee2mqtt/bridge/groups", Some(Topic::Other)),
            ("zigbee2mqtt/bridge", Some(Topic::Other)),
            ("zigbee2mqtt/bridgehouse", Some(Topic::State("bridgehouse"))),
            ("zigbee2mqtt/kitchen/set", Some(Topic::Other)),
            ("zigbee2mqtt/kitchen/set/state", Some(Topic::Other)),
            ("zigbee2mqtt/kitchen/get", Some(Topic::Other)),
            ("zigbee2mqtt/", None),
            ("zigbee2mqtt", None),
            ("zigbee2mqtt2/kitchen", None),
            ("other/kitchen", None),
        ] {
            assert_eq!(topic("zigbee2mqtt", text), wanted, "{text}");
        }
    }

    #[test]
    fn names_become_ids_and_come_back() {
        for (name, id) in [
            ("kitchen", "kitchen"),
            ("3号楼/厨房 燃气", "3号楼%2F厨房 燃气"),
            ("100%", "100%25"),
            ("a%2Fb", "a%252Fb"),
            ("0x00158d0001a2b3c4", "0x00158d0001a2b3c4"),
            ("a\\b\tc", "a%5Cb%09c"),
        ] {
            assert_eq!(device_id(name), id);
            assert_eq!(friendly_name(id), name);
            assert!(DeviceId::parse(id).is_ok(), "{id}");
        }
        assert_eq!(friendly_name("50%"), "50%");
        assert_eq!(friendly_name("%zz"), "%zz");
    }
}
