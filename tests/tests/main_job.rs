//! The main job, end to end, with the real binary among real peers: Mosquitto, pymodbus over TCP and over a serial line,
//! VictoriaMetrics, a CAP receiver that validates against the OASIS schema, a webhook, the file system.

use std::collections::BTreeMap;

use anmin_tests::daemon::Daemon;
use anmin_tests::mqtt::Mqtt;
use anmin_tests::peers::{CapReceiver, Hook, Line, Mosquitto, Peer, VictoriaMetrics, text};
use anmin_tests::site::Site;
use rumqttc::Publish;
use serde_json::{Value, json};

/// Now, in milliseconds since 1970: devices stamp their readings with it.
fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(now.expect("it is after 1970").as_millis()).expect("it is before the year 292 million")
}

/// A gas reading as its detector sends it.
fn gas(value: f64, ts: i64, seq: u64) -> String {
    json!({ "v": value, "ts": ts, "seq": seq }).to_string()
}

fn body(publish: &Publish) -> Value {
    serde_json::from_slice(&publish.payload).unwrap_or(Value::Null)
}

/// Ways out that every test here has: MQTT to the site's own broker, CAP to an endpoint and to a folder, a webhook.
fn ways_out(broker: u16, cap: &str, hook: &str, database: u16) -> String {
    format!(
        r#"
[[mqtt_out]]
id = "alarms"
url = "mqtt://127.0.0.1:{broker}"

[[cap]]
id = "office"
url = "{cap}"
min_level = "orange"
sender = "acceptance.anmin.example.cn"
status = "exercise"

[[cap]]
id = "folder"
folder = "cap"
min_level = "orange"
sender = "acceptance.anmin.example.cn"
status = "exercise"

[[webhook]]
id = "property"
url = "{hook}"

[[influx]]
id = "tsdb"
url = "http://127.0.0.1:{database}"
bucket = "anmin"
flush_interval = "200ms"

[[override]]
rule = "gas/leak"
on_delay = "200ms"
off_delay = "300ms"
"#
    )
}

/// Devices by MQTT through `broker`.
fn devices(broker: u16, count: usize) -> String {
    let mut toml = format!(
        r#"
[[mqtt]]
id = "site"
url = "mqtt://127.0.0.1:{broker}"
max_reconnect_interval = "1s"
  [[mqtt.mapping]]
  topic = "acceptance/{{device}}/up"
  payload = "json"
  device = "{{device}}"
  unknown = "quarantine"
"#
    );
    for n in 0..count {
        toml.push_str(&format!(
            "[[device]]\nid = \"g{n}\"\nprofile = \"anmin-json-gas\"\nplace = \"b1\"\nfloor = \"{n}\"\nroom = \"{n}01\"\n"
        ));
    }
    toml
}

/// The pymodbus units of `tests/peers/modbus_sim.py`, as far as they are of use here.
const METER: &str = r#"
id = "test-meter"
title = { zh = "试验电表", en = "test meter" }
[modbus]
[[point]]
name = "voltage"
kind = "power.voltage"
register = "holding"
address = 2
type = "float32"
[[point]]
name = "energy"
kind = "power.energy"
register = "holding"
address = 6
type = "float64"
[[point]]
name = "frequency"
kind = "power.frequency"
register = "input"
address = 0
type = "float32"
[[point]]
name = "smoke"
kind = "fire.smoke"
register = "coil"
address = 3
"#;

#[test]
fn from_sensors_to_station_database_and_broadcast() {
    let line = Line::start();
    let (_tcp, tcp_port) = Peer::ready("modbus_sim.py", &["tcp"]);
    let _rtu = Peer::ready("modbus_sim.py", &["rtu", &line.ends[1]]);
    let mut cap = CapReceiver::start(&[]);
    let hook = Hook::start();

    let site = Site::new("main-job", "");
    let broker = Mosquitto::start(&site);
    let database = VictoriaMetrics::start(&site);
    site.write("profiles/test-meter.toml", METER);
    site.write("anmin.d/devices.toml", &devices(broker.port, 20));
    site.write("anmin.d/ways-out.toml", &ways_out(broker.port, &cap.url, &hook.url, database.port));
    site.write(
        "anmin.d/buses.toml",
        &format!(
            r#"
[[bus]]
id = "plant"
transport = "tcp"
host = "127.0.0.1"
port = {tcp_port}
[[bus]]
id = "shop"
transport = "rtu"
device = "{}"
baud_rate = 19200
[[device]]
id = "meter-tcp"
profile = "test-meter"
place = "b1"
bus = "plant"
unit_id = 1
interval = "500ms"
[[device]]
id = "meter-rtu"
profile = "test-meter"
place = "b1"
bus = "shop"
unit_id = 2
interval = "500ms"
"#,
            line.ends[0]
        ),
    );
    let mut daemon = Daemon::start(site.folder());
    daemon.until("is subscribed to");
    let mut office = Mqtt::connect(broker.port, "office");
    office.subscribe("anmin/v1/acceptance/#");
    daemon.wait("/api/v1/status", "all parts well", |status| status["troubles"] == json!([]));

    // Readings of twenty detectors, each with its own time and number.
    let mut sensors = Mqtt::connect(broker.port, "sensors");
    let start = now_ms();
    let mut sent: BTreeMap<String, Vec<(i64, f64)>> = BTreeMap::new();
    for round in 0..50 {
        let messages = (0..20).map(|n| {
            let (ts, value) = (start + round * 7 + n, (round + n) as f64 / 100.0);
            sent.entry(format!("g{n}/lel")).or_default().push((ts, value));
            (format!("acceptance/g{n}/up"), gas(value, ts, round as u64).into_bytes())
        });
        sensors.publish_all(messages.collect::<Vec<_>>());
    }
    let stored = database.wait("gas.lel_value", |stored| stored.values().map(Vec::len).sum::<usize>() >= 1_000);
    assert_eq!(stored, sent, "what was sent over MQTT, point by point");

    // What the units hold, over TCP and over the serial line.
    for (field, wanted) in
        [("power.voltage", f64::from(230.2_f32)), ("power.energy", 1_234.5), ("power.frequency", 50.0)]
    {
        let name = field.rsplit('.').next().expect("a kind has a name");
        let points = ["meter-rtu", "meter-tcp"].map(|device| format!("{device}/{name}"));
        let stored = database.wait(&format!("{field}_value"), |stored| points.iter().all(|p| stored.contains_key(p)));
        for point in &points {
            // VictoriaMetrics keeps ten to twelve digits.
            let same = |value: f64| (value - wanted).abs() <= wanted.abs() * 1e-9;
            assert!(
                stored[point].iter().all(|(_, value)| same(*value)),
                "{point}: {:?}, expected {wanted}",
                stored[point]
            );
        }
    }
    daemon.alarm("fire/smoke", "meter-rtu/smoke", "the coil over the serial line raises", |alarm| {
        alarm["level"] == "orange"
    });

    // Gas climbs; each alarm message names device, point, time and number of the reading that raised it.
    let (event, state) =
        ("anmin/v1/acceptance/alarm/gas/leak/g7/lel/event", "anmin/v1/acceptance/alarm/gas/leak/g7/lel/state");
    let mut seq = 100;
    let mut climb = |value: f64, level: &str| {
        let mut ts = 0;
        // Twice: a jump is believed when a second reading agrees.
        for _ in 0..2 {
            seq += 1;
            ts = now_ms();
            sensors.publish("acceptance/g7/up", gas(value, ts, seq));
        }
        let publish = office
            .next(&format!("the {level} event"), |publish| publish.topic == event && body(publish)["level"] == *level);
        let said = body(&publish);
        assert_eq!(said["device"], "g7");
        assert_eq!(said["reading"]["point"], "g7/lel");
        assert_eq!(said["reading"]["value"], json!(value));
        let reading = &said["reading"];
        assert!([seq - 1, seq].contains(&reading["sequence"].as_u64().expect("it has a number")), "{reading}");
        assert!(reading["source_time"]["unix_ms"].as_i64().expect("it has a time") <= ts, "{reading}");
        said
    };
    let yellow = climb(12.0, "yellow");
    let orange = climb(30.0, "orange");
    let red = climb(55.0, "red");
    assert_eq!((&yellow["alarm"], &orange["alarm"]), (&red["alarm"], &red["alarm"]), "one alarm, three levels");
    let id = red["alarm"].as_str().expect("an alarm has an id").to_owned();

    // The emergency office: Alert, then Update that refers to it.
    let alert = cap.next("Alert");
    let mut update = cap.next("Update");
    assert_eq!((&alert["ok"], &alert["faults"], &alert["status"]), (&json!(true), &json!([]), &json!("Exercise")));
    while update["identifier"].as_str().is_some_and(|name| !name.contains(&id)) {
        update = cap.next("Update");
    }
    assert_eq!((&update["ok"], &update["faults"]), (&json!(true), &json!([])));
    let file = site
        .path("cap")
        .join(format!("{}.xml", update["identifier"].as_str().expect("it has one").replace("-office", "-folder")));
    assert!(text(&file).contains("<msgType>Update</msgType>"));

    // The property company, by webhook.
    hook.next("the red event", |said| said["alarm"] == *id && said["level"] == "red");

    // The station: called, unanswered, answered by its crew; the officer acknowledges.
    let post = |path: &str, body: Value| {
        let answer = anmin_tests::http::post(daemon.web, path, &body);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    };
    for (step, state) in [("accept", "accepted"), ("on-the-way", "on_the_way"), ("on-scene", "on_scene")] {
        post(&format!("/api/v1/alarms/{id}/calls/st-1/{step}"), json!({ "who": "crew" }));
        let topic = format!("anmin/v1/acceptance/call/st-1/{id}/event");
        office
            .next(&format!("the call is {state}"), |publish| publish.topic == topic && body(publish)["state"] == state);
    }
    post(&format!("/api/v1/alarms/{id}/acknowledge"), json!({ "who": "li" }));
    let retained = office.next("the state says who acknowledged", |publish| {
        publish.topic == state && body(publish)["acknowledged"]["by"] == "li"
    });
    assert_eq!(body(&retained)["state"], "acknowledged");

    // Below the limit less deadband it returns; the red one is latched until a person resets it.
    for _ in 0..2 {
        seq += 1;
        sensors.publish("acceptance/g7/up", gas(0.5, now_ms(), seq));
    }
    daemon.alarm("gas/leak", "g7/lel", "returned and latched", |alarm| alarm["state"] == "latched");
    post(&format!("/api/v1/alarms/{id}/reset"), json!({ "who": "li" }));
    let mut cancel = cap.next("Cancel");
    while cancel["identifier"].as_str().is_some_and(|name| !name.contains(&id)) {
        cancel = cap.next("Cancel");
    }
    assert_eq!((&cancel["ok"], &cancel["faults"]), (&json!(true), &json!([])));
    office.next("no retained state is left", |publish| publish.topic == state && publish.payload.is_empty());

    let status = daemon.wait("/api/v1/status", "every order is taken", |status| status["orders_waiting"] == 0);
    assert_eq!(status["readings"]["rejected"], 0, "{status:#}");
    assert_eq!(daemon.terminate(), Some(0));
}
