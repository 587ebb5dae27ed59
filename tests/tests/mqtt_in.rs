//! Readings from an outside broker that forgets, repeats itself or sends what nobody can read: nothing is lost unsaid, and
//! nothing happens twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anmin_tests::daemon::{Daemon, pause};
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

/// Two boards with one program in them: each counts for itself, a little apart, and one of them is in a kitchen full of gas.
#[test]
fn two_devices_under_one_name_are_told_and_neither_hides_the_alarm_of_the_other() {
    let folder = Site::new("double", "");
    let broker = Mosquitto::start(&folder);
    let hook = Hook::start();
    let site = site("double", broker.port, &hook.url);
    let mut daemon = Daemon::start(site.folder());
    let mut first = device(&mut daemon, &broker);
    let mut second = Mqtt::connect(broker.port, "the other");
    let is_told = |daemon: &Daemon| {
        let list = daemon.get("/api/v1/alarms?limit=1000");
        list["alarms"].as_array().is_some_and(|alarms| alarms.iter().any(|alarm| alarm["subject"] == "double:g1"))
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut n = 0;
    while !is_told(&daemon) {
        assert!(Instant::now() < deadline, "nobody was told of two devices under one name");
        first.publish("acceptance/g1/up", json!({ "v": 1.0, "seq": 100 + n }).to_string());
        second.publish("acceptance/g1/up", json!({ "v": 60.0, "seq": 90 + n }).to_string());
        n += 1;
        pause();
    }
    let double = daemon.alarm("system/part", "double:g1", "it is told", |alarm| alarm["level"] == "orange");
    assert!(double["message"]["zh"].as_str().is_some_and(|text| text.contains("两台设备使用同一编号")), "{double:#}");
    hook.next("it is told", |event| event["subject"] == "double:g1");
    second.publish("acceptance/g1/up", json!({ "v": 60.0, "seq": 90 + n }).to_string());
    daemon.alarm("gas/leak", "g1/lel", "the alarm of the second", |_| true);
}

/// One device gone mad: 10,000 messages a second, for three seconds and until the alarm of another device is there. Nobody waits
/// behind it, nothing is lost, and it is still read when it is over.
#[test]
fn a_device_that_sends_ten_thousand_messages_a_second_holds_up_nobodys_alarm() {
    let folder = Site::new("flood", "");
    let broker = Mosquitto::start(&folder);
    let hook = Hook::start();
    let site = site("flood", broker.port, &hook.url);
    let mut daemon = Daemon::start(site.folder());
    let mut well = device(&mut daemon, &broker);
    well.publish("acceptance/g2/up", json!({ "v": 1.0, "seq": 1 }).to_string());
    sample(&daemon, "g2", "the reading", |sample| sample["quality"] == "good");
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mad = std::thread::spawn({
        let (stop, sent, port) = (Arc::clone(&stop), Arc::clone(&sent), broker.port);
        move || {
            let mut mad = Mqtt::connect(port, "mad");
            let began = Instant::now();
            while !stop.load(Ordering::Relaxed) || began.elapsed() < Duration::from_secs(3) {
                // By the clock, not by pauses: what is behind is made up for.
                let due = (began.elapsed().as_secs_f64() * 10_000.0) as u64;
                let from = sent.load(Ordering::Relaxed);
                mad.throw((from..due).map(|n| {
                    let payload = json!({ "v": (n % 20) as f64 / 10.0, "seq": n + 1 }).to_string();
                    ("acceptance/mad/up".to_owned(), payload.into_bytes())
                }));
                sent.store(due.max(from), Ordering::Relaxed);
                pause();
            }
            // Acknowledged: everything before it is at the broker.
            let last = sent.load(Ordering::Relaxed) + 1;
            mad.publish("acceptance/mad/up", json!({ "v": 3.5, "seq": last }).to_string());
        }
    });
    while sent.load(Ordering::Relaxed) < 10_000 {
        pause();
    }
    let began = Instant::now();
    for n in 2..4 {
        well.publish("acceptance/g2/up", json!({ "v": 60.0, "seq": n }).to_string());
    }
    daemon.alarm("gas/leak", "g2/lel", "the alarm of the other", |alarm| alarm["active"] == true);
    let took = began.elapsed();
    stop.store(true, Ordering::Relaxed);
    mad.join().expect("it ends");
    assert!(took < Duration::from_secs(5), "the alarm stood behind the flood for {took:?}");
    sample(&daemon, "mad", "the last of the flood", |sample| sample["value"] == 3.5);
    let readings = &daemon.get("/api/v1/status")["readings"];
    let heard = sent.load(Ordering::Relaxed) + 4;
    assert_eq!((&readings["missing"], &readings["rejected"]), (&json!(0), &json!(0)), "{readings:#}");
    assert!(readings["received"].as_u64().is_some_and(|received| received >= heard), "{heard}: {readings:#}");
}
