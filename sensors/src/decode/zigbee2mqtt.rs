//! Zigbee2MQTT: its topics, and device ids from friendly names.
//!
//! `<base>/<friendly name>` carries a device's whole state as JSON, `<base>/<friendly name>/availability` and
//! `<base>/bridge/state` say who is there. Friendly names may hold `/` and Chinese.

/// What a topic below the base is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topic<'t> {
    /// The state of a device.
    State(&'t str),
    /// Whether a device is there.
    Availability(&'t str),
    /// Whether the radio bridge itself, and with it every device, is there.
    Bridge,
    /// Logs and lists of the bridge, and what others tell devices to do.
    Other,
}

/// Sorts a topic; `None` when it does not lie below `base`.
pub fn topic<'t>(base: &str, topic: &'t str) -> Option<Topic<'t>> {
    let name = topic.strip_prefix(base)?.strip_prefix('/').filter(|name| !name.is_empty())?;
    Some(if name == "bridge/state" {
        Topic::Bridge
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::point::DeviceId;

    #[test]
    fn topics_are_sorted() {
        for (text, wanted) in [
            ("zigbee2mqtt/kitchen", Some(Topic::State("kitchen"))),
            ("zigbee2mqtt/3号楼/厨房 燃气", Some(Topic::State("3号楼/厨房 燃气"))),
            ("zigbee2mqtt/kitchen/availability", Some(Topic::Availability("kitchen"))),
            ("zigbee2mqtt/3号楼/厨房/availability", Some(Topic::Availability("3号楼/厨房"))),
            ("zigbee2mqtt/bridge/state", Some(Topic::Bridge)),
            ("zigbee2mqtt/bridge/devices", Some(Topic::Other)),
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
