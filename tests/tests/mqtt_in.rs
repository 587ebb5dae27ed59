//! Readings from an outside broker that forgets, repeats itself or sends what nobody can read: nothing is lost unsaid, and
//! nothing happens twice.

use anmin_tests::daemon::Daemon;
use anmin_tests::mqtt::Mqtt;
use anmin_tests::peers::{Hook, Mosquitto, Proxy};
use anmin_tests::site::Site;
use serde_json::{Value, json};

/// Gas detectors behind the broker on `port`; what happens is told to `hook`.
fn site(name: &str, port: u16, hook: &str) -> Site {
    let site = Site::new(name, "");
    site.write(
        "anmin.d/all.toml",
        &format!(
            r#"
[[mqtt]]
id = "site"
url = "mqtt://127.0.0.1:{port}"
max_reconnect_interval = "1s"
  [[mqtt.mapping]]
  topic = "acceptance/{{device}}/up"
  payload = "json"
  device = "{{device}}"
  unknown = "provision"
  profile = "anmin-json-gas"
  location = {{ place = "b1" }}

[[webhook]]
id = "office"
url = "{hook}"

[[override]]
rule = "gas/leak"
on_delay = "0s"
off_delay = "0s"
"#
        ),
    );
    site
}

fn sample(daemon: &Daemon, device: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    daemon.wait(&format!("/api/v1/points/{device}/lel"), what, |point| wanted(&point["sample"]))["sample"].clone()
}

/// Waits until the broker has anmin's session and subscription, and gives a device at it.
fn device(daemon: &mut Daemon, broker: &Mosquitto) -> Mqtt {
    daemon.until("is subscribed to");
    Mqtt::connect(broker.port, "device")
}

/// Starts the broker again without its memory: no session, no queue.
fn forget(broker: &mut Mosquitto) {
    broker.kill();
    broker.forget();
    broker.run();
}

#[test]
fn a_session_that_the_broker_has_lost_is_told_to_desk_and_office_and_its_points_are_unconfirmed() {
    let folder = Site::new("session-lost", "");
    let mut broker = Mosquitto::start(&folder);
    let hook = Hook::start();
    let site = site("session-lost", broker.port, &hook.url);
    let mut daemon = Daemon::start(site.folder());
    let mut gas = device(&mut daemon, &broker);
    gas.publish("acceptance/g1/up", r#"{"v":1.5}"#);
    sample(&daemon, "g1", "the reading", |sample| sample["quality"] == "good");
    assert_eq!(daemon.get("/api/v1/status")["possible_losses"], 0, "there was no session to lose");

    // While anmin looks on.
    forget(&mut broker);
    let loss = daemon.alarm("system/part", "loss:site", "the loss", |alarm| alarm["active"] == true);
    let said = loss["message"]["zh"].as_str().expect("a text");
    assert!(said.contains("丢失了本机的会话") && said.contains(" 1 个测点"), "{said}");
    hook.next("the loss", |event| event["subject"] == "loss:site");
    let doubted = sample(&daemon, "g1", "the doubt", |sample| sample["reason"] == "unconfirmed");
    assert_eq!((&doubted["value"], &doubted["news"]), (&json!(1.5), &json!(false)));
    let mut gas = Mqtt::connect(broker.port, "device");
    // Its topic is subscribed to again by the time that a reading of it comes.
    while sample(&daemon, "g1", "a sample", |sample| sample.is_object())["quality"] != "good" {
        gas.publish("acceptance/g1/up", r#"{"v":1.6}"#);
    }

    // And while it is down: what it expected it knows from before.
    daemon.kill();
    forget(&mut broker);
    let daemon = Daemon::start(site.folder());
    daemon.wait("/api/v1/status", "the second loss", |status| status["possible_losses"] == 1);

    // With the session there, nothing is said.
    daemon.terminate();
    let mut daemon = Daemon::start(site.folder());
    daemon.until("takes up its session");
    assert_eq!(daemon.get("/api/v1/status")["possible_losses"], 0);
}

#[test]
fn messages_that_a_device_has_counted_and_that_did_not_come_are_told() {
    let folder = Site::new("gap", "");
    let broker = Mosquitto::start(&folder);
    let hook = Hook::start();
    let site = site("gap", broker.port, &hook.url);
    let mut daemon = Daemon::start(site.folder());
    let mut gas = device(&mut daemon, &broker);
    for seq in [1, 2, 5] {
        gas.publish("acceptance/g1/up", json!({ "v": 1.0, "seq": seq }).to_string());
    }
    let gap = daemon.alarm("system/part", "gap:g1", "the gap", |alarm| alarm["level"] == "yellow");
    assert!(gap["message"]["zh"].as_str().is_some_and(|text| text.contains("最近缺 3–4")), "{gap:#}");
    hook.next("the gap", |event| event["subject"] == "gap:g1");
    daemon.wait("/api/v1/status", "the count", |status| status["readings"]["missing"] == 2);
}

/// Goal: messages without time and count, delivered again because the broker has no acknowledgement of them, raise and
/// clear nothing a second time: not after a broken connection, and not after `kill -9`. Method: between anmin and
/// Mosquitto the acknowledgements are lost.
#[test]
fn what_is_delivered_again_is_known_after_a_broken_connection_and_after_a_crash() {
    let folder = Site::new("again", "");
    let broker = Mosquitto::start(&folder);
    let proxy = Proxy::start(broker.port);
    let hook = Hook::start();
    let site = site("again", proxy.port, &hook.url);
    let mut daemon = Daemon::start(site.folder());
    let mut gas = device(&mut daemon, &broker);
    let rows = |daemon: &Daemon| daemon.get("/api/v1/journal").as_array().map_or(0, Vec::len);

    proxy.swallow_acknowledgements(true);
    // A leap counts with the second value; the alarm is raised, and is over.
    for value in [0.5, 60.0, 60.0, 0.5, 0.5] {
        gas.publish("acceptance/g1/up", json!({ "v": value }).to_string());
    }
    daemon.alarm("gas/leak", "g1/lel", "over again", |alarm| alarm["active"] == false);
    daemon.wait("/api/v1/status", "all of them", |status| status["readings"]["evaluated"] == 5);
    let before = rows(&daemon);
    proxy.cut();
    daemon.wait("/api/v1/status", "the repeats", |status| status["readings"]["repeated"] == 5);
    assert_eq!(rows(&daemon), before, "nothing has happened twice");
    assert_eq!(daemon.get("/api/v1/status")["readings"]["evaluated"], 5);

    daemon.kill();
    proxy.swallow_acknowledgements(false);
    let daemon = Daemon::start(site.folder());
    daemon.wait("/api/v1/status", "the repeats", |status| status["readings"]["repeated"] == 5);
    // News is news.
    gas.publish("acceptance/g1/up", r#"{"v":0.6}"#);
    sample(&daemon, "g1", "the next reading", |sample| sample["value"] == 0.6);
    assert_eq!(rows(&daemon), before, "nothing has happened twice");
}
