//! Sparkplug B nodes behind Mosquitto. Their payloads are written, and anmin's are read, by Google's protobuf
//! (`peers/sparkplug.py`).

use anmin_tests::daemon::Daemon;
use anmin_tests::mqtt::Mqtt;
use anmin_tests::peers::{Mosquitto, Peer};
use anmin_tests::site::Site;
use serde_json::{Value, json};

fn site(name: &str, broker: &str) -> Site {
    let site = Site::new(name, "");
    site.write(
        "anmin.d/nodes.toml",
        &format!(
            r#"
{broker}.mapping]]
  preset = "sparkplug"
  profile = "generic-sparkplug"
  unknown = "provision"
  location = {{ place = "b1", room = "{{name}}" }}

[[override]]
rule = "gas/leak"
on_delay = "0s"
off_delay = "0s"
"#
        ),
    );
    site
}

/// An edge node: what it says, and what is said to it.
struct Node {
    mqtt: Mqtt,
    codec: Peer,
    seq: u64,
}

impl Node {
    fn connect(port: u16, id: &str) -> Self {
        let mut mqtt = Mqtt::connect(port, id);
        mqtt.subscribe("spBv1.0/g/NCMD/n");
        Self { mqtt, codec: Peer::python("sparkplug.py", &[]), seq: 0 }
    }

    fn ask(&mut self, said: &Value) -> Value {
        self.codec.tell(&said.to_string());
        let line = self.codec.until("{");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}"))
    }

    /// With the next number of the sequence.
    fn say(&mut self, kind: &str, device: &str, metrics: Value) {
        let said = json!({ "t": now(), "seq": self.seq, "metrics": metrics });
        self.seq = (self.seq + 1) % 256;
        self.send(kind, device, &said);
    }

    fn send(&mut self, kind: &str, device: &str, said: &Value) {
        let hex = self.ask(said)["hex"].as_str().expect("hexadecimal digits").to_owned();
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("two digits")).collect();
        let device = if device.is_empty() { String::new() } else { format!("/{device}") };
        self.mqtt.publish(&format!("spBv1.0/g/{kind}/n{device}"), bytes);
    }

    fn birth(&mut self, bd_seq: u64) {
        self.seq = 0;
        let rebirth = json!({ "name": "Node Control/Rebirth", "type": 11, "value": false });
        self.say("NBIRTH", "", json!([{ "name": "bdSeq", "type": 4, "value": bd_seq }, rebirth]));
    }

    fn device_birth(&mut self, device: &str, alias: u64, lel: f64) {
        let smoke = json!({ "name": "smoke/alarm", "alias": alias + 1, "type": 11, "value": false });
        let gas = json!({ "name": "gas/lel", "alias": alias, "type": 9, "value": lel });
        self.say("DBIRTH", device, json!([gas, smoke]));
    }

    /// Waits until somebody asks for the births.
    fn asked(&mut self) {
        let command = self.mqtt.next("the question for births", |publish| publish.topic.ends_with("/NCMD/n"));
        assert!(!command.retain);
        let hex: String = command.payload.iter().map(|byte| format!("{byte:02x}")).collect();
        let said = self.ask(&json!({ "hex": hex }));
        assert_eq!(said["metrics"], json!([{ "name": "Node Control/Rebirth", "type": 11, "value": true }]));
    }
}

fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("it is after 1970");
    u64::try_from(since.as_millis()).expect("it is before the year 500 million")
}

fn lel(daemon: &Daemon, device: &str, what: &str, wanted: impl Fn(&Value) -> bool) {
    daemon.wait(&format!("/api/v1/points/g:n:{device}/lel"), what, |point| wanted(&point["sample"]));
}

fn reads_and_asks(daemon: &mut Daemon, port: u16) {
    // Heard in the middle: nothing is believed, and the node is asked.
    let mut node = Node::connect(port, "node");
    node.seq = 17;
    node.say("DDATA", "kitchen", json!([{ "alias": 1, "value": 51.0, "type": 9 }]));
    node.asked();
    node.birth(7);
    node.device_birth("kitchen", 1, 1.5);
    lel(daemon, "kitchen", "the birth", |sample| sample["value"] == 1.5 && sample["quality"] == "good");

    // Kept while the node was away, two hours ago: stored under its own time, and no alarm.
    let then = now() - 7_200_000;
    node.say("DDATA", "kitchen", json!([{ "alias": 1, "value": 80.0, "type": 9, "t": then, "historical": true }]));
    node.say("DDATA", "kitchen", json!([{ "alias": 1, "value": 2.5, "type": 9 }]));
    lel(daemon, "kitchen", "what came after it", |sample| sample["value"] == 2.5);
    assert_eq!(daemon.get("/api/v1/alarms")["alarms"], json!([]));
    let past = format!("/api/v1/points/g:n:kitchen/lel/history?from={}&to={}", then - 1_000, then + 1_000);
    daemon.wait(&past, "what was kept", |kept| kept[0]["max"] == 80.0 && kept[0]["count"] == 1);

    // An alarm by number only; the place is the mapping's.
    node.say("DDATA", "kitchen", json!([{ "alias": 1, "value": 62.0, "type": 9 }]));
    let leak = daemon.alarm("gas/leak", "g:n:kitchen/lel", "the leak", |alarm| alarm["level"] == "red");
    assert_eq!(leak["place"]["room"], "kitchen");

    // A message is lost: what comes is read, and the node is asked.
    node.seq += 1;
    node.say("DDATA", "kitchen", json!([{ "alias": 1, "value": 61.0, "type": 9 }]));
    lel(daemon, "kitchen", "the value behind the gap", |sample| sample["value"] == 61.0);

    // Damage is listed and takes nothing down.
    node.mqtt.publish("spBv1.0/g/DDATA/n/kitchen", vec![0x12, 0xFF, 0x01]);
    daemon.until("is no Sparkplug payload");

    // The will of an earlier session changes nothing; that of this one ends it.
    node.send("NDEATH", "", &json!({ "metrics": [{ "name": "bdSeq", "type": 4, "value": 6 }] }));
    node.say("DDATA", "kitchen", json!([{ "alias": 1, "value": 60.0, "type": 9 }]));
    lel(daemon, "kitchen", "a value after an old will", |sample| sample["value"] == 60.0);
    node.send("NDEATH", "", &json!({ "metrics": [{ "name": "bdSeq", "type": 4, "value": 7 }] }));
    lel(daemon, "kitchen", "the death", |sample| sample["reason"] == "offline");
}

#[test]
fn a_node_behind_mosquitto_is_read_by_its_births_and_asked_for_them() {
    let folder = Site::new("sparkplug", "");
    let broker = Mosquitto::start(&folder);
    for version in ["3.1.1", "5"] {
        let stanza = format!(
            "[[mqtt]]\nid = \"site\"\nurl = \"mqtt://127.0.0.1:{}\"\nclient_id = \"anmin-{version}\"\nprotocol_version = \"{version}\"\n  [[mqtt",
            broker.port
        );
        let site = site("sparkplug", &stanza);
        let mut daemon = Daemon::start(site.folder());
        daemon.until("is subscribed to");
        reads_and_asks(&mut daemon, broker.port);
    }
}

#[test]
fn two_nodes_with_one_name_are_told_at_the_embedded_broker() {
    let site = site("sparkplug-two", "[broker]\nlisten = \"127.0.0.1:0\"\n  [[broker");
    let mut daemon = Daemon::start(site.folder());
    let port = daemon.broker.expect("the site has one").port();
    let (mut one, mut other) = (Node::connect(port, "one"), Node::connect(port, "other"));
    one.birth(1);
    one.device_birth("a", 1, 1.0);
    // Each counts for itself and takes no notice of being asked.
    other.seq = 100;
    let told = |daemon: &Daemon| {
        let status = daemon.get("/api/v1/status");
        let parts = status["troubles"].as_array().cloned().unwrap_or_default();
        parts.into_iter().find(|part| part["part"] == "sparkplug:broker/g/n")
    };
    let deadline = std::time::Instant::now() + anmin_tests::daemon::DEADLINE;
    let trouble = loop {
        one.say("DDATA", "a", json!([{ "alias": 1, "value": 1.0, "type": 9 }]));
        other.say("DDATA", "a", json!([{ "alias": 1, "value": 2.0, "type": 9 }]));
        if let Some(trouble) = told(&daemon) {
            break trouble;
        }
        assert!(std::time::Instant::now() < deadline, "nobody says that two nodes bear one name");
        anmin_tests::daemon::pause();
    };
    assert!(trouble.to_string().contains("两个节点同名"), "{trouble:#}");
    daemon.until("two nodes bear this name");
    one.asked();
    daemon.alarm("system/part", "sparkplug:broker/g/n", "the two nodes", |alarm| alarm["level"] == "yellow");
}
