//! Publishers that many sites have: which topics they use, who says that a device is gone, and which profiles fit.
//!
//! A mapping with a preset says only what differs. A further publisher is one entry here.

use crate::decode::message::Payload;

/// What is known of one publisher.
#[derive(Debug)]
pub struct Preset {
    pub name: &'static str,
    /// Where its topics begin, unless the mapping moves them; empty: nothing stands before them.
    pub base: &'static str,
    /// Below the base. The first has all captures.
    pub states: &'static [&'static str],
    /// Topics that a device uses, too, and that say nothing about the community.
    pub others: &'static [&'static str],
    pub availability: Option<Available>,
    pub payload: Payload,
    /// What an unknown device may be, where the mapping does not say; each has a signature.
    pub profiles: &'static [&'static str],
}

/// How a device, or its broker for it, says whether it is there.
#[derive(Debug)]
pub struct Available {
    /// Below the base; empty: the publisher's own code knows.
    pub topic: &'static str,
    pub online: &'static str,
    pub offline: &'static str,
}

/// Every publisher that a mapping can name.
pub static PRESETS: [Preset; 11] = [
    // zigbee2mqtt.io, "MQTT topics and messages"; friendly names may hold `/`, so `decode::zigbee2mqtt` sorts its topics.
    Preset {
        name: "zigbee2mqtt",
        base: "zigbee2mqtt",
        states: &["#"],
        others: &[],
        availability: Some(Available { topic: "", online: "online", offline: "offline" }),
        payload: Payload::Json,
        profiles: &["zigbee2mqtt-gas", "zigbee2mqtt-smoke", "zigbee2mqtt-leak"],
    },
    // tasmota.github.io, "MQTT": the full topic as shipped, %prefix%/%topic%/. A switch tells its change in RESULT.
    Preset {
        name: "tasmota",
        base: "",
        states: &["tele/{device}/SENSOR", "stat/{device}/RESULT"],
        others: &["tele/{device}/STATE", "tele/{device}/+", "stat/{device}/+"],
        availability: Some(Available { topic: "tele/{device}/LWT", online: "Online", offline: "Offline" }),
        payload: Payload::Json,
        profiles: &[],
    },
    // shelly-api-docs.shelly.cloud, second generation and later: notifications, on by default.
    Preset {
        name: "shelly",
        base: "",
        states: &["{device}/events/rpc"],
        others: &[],
        availability: Some(Available { topic: "{device}/online", online: "true", offline: "false" }),
        payload: Payload::Json,
        profiles: &["shelly-smoke", "shelly-flood"],
    },
    // chirpstack.io, version 4, "MQTT integration".
    Preset {
        name: "chirpstack",
        base: "application",
        states: &["{application}/device/{device}/event/up", "{application}/device/{device}/event/status"],
        others: &["{application}/device/{device}/event/+"],
        availability: None,
        payload: Payload::Json,
        profiles: &[],
    },
    // home-assistant.io, "MQTT discovery": no values, but who announces some; `decode::homeassistant` reads it.
    Preset {
        name: "homeassistant",
        base: "homeassistant",
        states: &["+/+/config", "+/+/+/config"],
        others: &[],
        availability: None,
        payload: Payload::Json,
        profiles: &[],
    },
    // Eclipse Sparkplug 3.0; births and deaths say who is there, and `router::sparkplug` remembers them. Commands are nobody's state.
    Preset {
        name: "sparkplug",
        base: "spBv1.0",
        states: &["+/NBIRTH/+", "+/NDEATH/+", "+/NDATA/+", "+/DBIRTH/+/+", "+/DDEATH/+/+", "+/DDATA/+/+"],
        others: &[],
        availability: None,
        payload: Payload::Sparkplug,
        profiles: &[],
    },
    // GB/T 26875.3, as `decode::gbt26875` tells what its frames say.
    Preset {
        name: "gbt26875",
        base: "",
        states: &["{device}/part", "{device}/system", "{device}/panel"],
        others: &[],
        availability: None,
        payload: Payload::Json,
        profiles: &[
            "gbt26875-smoke",
            "gbt26875-heat",
            "gbt26875-gas",
            "gbt26875-call-point",
            "gbt26875-electrical",
            "gbt26875-part",
            "gbt26875-system",
            "gbt26875-panel",
        ],
    },
    // help.aliyun.com, "device properties, events and services": Alink JSON. Below `property` stand the packs of gateways and what
    // was kept for later, which nobody reads: they are heard so that it is told.
    Preset {
        name: "aliyun",
        base: "/sys",
        states: &[
            "{product}/{device}/thing/event/{point}/post",
            "{product}/{device}/thing/event/property/{point}/post",
        ],
        others: &["{product}/{device}/thing/event/+/post_reply"],
        availability: None,
        payload: Payload::Properties,
        profiles: &["alink-gas"],
    },
    // open.iot.10086.cn, OneNET with a thing model.
    Preset {
        name: "onenet",
        base: "$sys",
        states: &["{product}/{device}/thing/{point}/post"],
        others: &["{product}/{device}/thing/+/post/reply"],
        availability: None,
        payload: Payload::Properties,
        profiles: &["alink-gas"],
    },
    // support.huaweicloud.com, IoTDA, "device reporting properties" and "device events".
    Preset {
        name: "huawei",
        base: "$oc",
        states: &[
            "devices/{device}/sys/properties/report",
            "devices/{device}/sys/events/up",
            // Of the children of a gateway; heard so that it is told that nobody reads it.
            "devices/{device}/sys/gateway/sub_devices/properties/report",
        ],
        others: &[],
        availability: None,
        payload: Payload::Properties,
        profiles: &["alink-gas"],
    },
    // cloud.tencent.com, IoT Explorer, "thing model protocol".
    Preset {
        name: "tencent",
        base: "$thing",
        states: &["up/property/{product}/{device}", "up/event/{product}/{device}"],
        others: &[],
        availability: None,
        payload: Payload::Properties,
        profiles: &["alink-gas"],
    },
];

impl Preset {
    /// For [`crate::document::Reader::choice`].
    pub fn choices() -> [(&'static str, &'static Self); PRESETS.len()] {
        PRESETS.each_ref().map(|preset| (preset.name, preset))
    }
}

/// A topic below a base.
pub fn below(base: &str, topic: &str) -> String {
    if base.is_empty() { topic.to_owned() } else { format!("{base}/{topic}") }
}
