//! What survives the power switch: alarms, acknowledgements, calls and timers come back; nobody hears of them twice.

use anmin_tests::daemon::Daemon;
use anmin_tests::http;
use anmin_tests::mqtt::Mqtt;
use anmin_tests::peers::CapReceiver;
use anmin_tests::site::{GAS_AS_IT_SPEAKS, Site};
use serde_json::{Value, json};

fn site(cap: &str) -> Site {
    Site::new(
        "restart",
        &format!(
            r#"{GAS_AS_IT_SPEAKS}
[[mqtt_out]]
id = "alarms"
broker = "embedded"

[[cap]]
id = "office"
url = "{cap}"
min_level = "orange"
sender = "acceptance.anmin.example.cn"
status = "exercise"

[[override]]
rule = "gas/leak"
on_delay = "0s"
off_delay = "0s"
"#
        ),
    )
}

fn devices(daemon: &Daemon) -> Mqtt {
    Mqtt::connect(daemon.broker.expect("the site has a broker").port(), "devices")
}

fn raise(device: &mut Mqtt, name: &str, value: f64) {
    for _ in 0..2 {
        device.publish(&format!("acceptance/{name}/up"), json!({ "v": value }).to_string());
    }
}

fn act(daemon: &Daemon, alarm: &Value, action: &str, body: Value) {
    let path = format!("/api/v1/alarms/{}/{action}", alarm["id"].as_str().expect("an alarm has an id"));
    let answer = http::post(daemon.web, &path, &body);
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
}

/// What of an alarm must be the same after a restart.
fn lasting(daemon: &Daemon, id: &Value) -> Value {
    daemon.get(&format!("/api/v1/alarms/{}", id.as_str().expect("an id is a text")))
}

#[test]
fn a_killed_daemon_comes_back_with_all_that_people_owe() {
    let mut cap = CapReceiver::start(&[]);
    let site = site(&cap.url);
    let daemon = Daemon::start(site.folder());
    let mut device = devices(&daemon);
    for (name, value) in [("yellow", 12.0), ("acked", 30.0), ("shelved", 13.0), ("red", 60.0), ("latched", 55.0)] {
        raise(&mut device, name, value);
    }
    let alarms: Vec<Value> = ["yellow", "acked", "shelved", "red", "latched"]
        .map(|name| daemon.alarm("gas/leak", &format!("{name}/lel"), "raised", |_| true))
        .into();
    act(&daemon, &alarms[1], "acknowledge", json!({ "who": "li" }));
    act(&daemon, &alarms[2], "shelve", json!({ "who": "li", "minutes": 20, "why": "works in the kitchen" }));
    act(&daemon, &alarms[3], "calls/st-1/accept", json!({ "who": "crew" }));
    act(&daemon, &alarms[4], "acknowledge", json!({ "who": "wang" }));
    raise(&mut device, "latched", 0.1);
    daemon.alarm("gas/leak", "latched/lel", "latched", |alarm| alarm["state"] == "latched");
    let before: Vec<Value> = alarms.iter().map(|alarm| lasting(&daemon, &alarm["id"])).collect();
    let alerts: Vec<Value> = (0..3).map(|_| cap.next("Alert")["identifier"].clone()).collect();
    daemon.wait("/api/v1/status", "every order taken", |status| status["orders_waiting"] == 0);
    daemon.kill();

    for end in ["killed", "terminated"] {
        let daemon = Daemon::start(site.folder());
        let after: Vec<Value> = alarms.iter().map(|alarm| lasting(&daemon, &alarm["id"])).collect();
        for (was, is) in before.iter().zip(&after) {
            assert_eq!(was, is, "after the daemon was {end}");
        }
        let status = daemon.get("/api/v1/status");
        assert_eq!((&status["open_alarms"], &status["orders_waiting"]), (&json!(5), &json!(0)), "{status:#}");

        // The devices go on saying what they said: no news, no second alarm.
        let mut device = devices(&daemon);
        raise(&mut device, "red", 60.0);
        raise(&mut device, "acked", 30.0);
        let list = daemon.get("/api/v1/alarms");
        let ids: Vec<&Value> = list["alarms"].as_array().into_iter().flatten().map(|alarm| &alarm["id"]).collect();
        assert_eq!(ids.len(), 5, "{list:#}");
        assert!(alarms.iter().all(|alarm| ids.contains(&&alarm["id"])));
        if end == "killed" {
            assert_eq!(daemon.terminate(), Some(0));
        } else {
            // A new one is news: the next alert that the office hears is about it and none of the old.
            raise(&mut device, "fresh", 31.0);
            let next = cap.next("Alert");
            assert!(!alerts.contains(&next["identifier"]), "{next}");
            let fresh = daemon.alarm("gas/leak", "fresh/lel", "raised", |_| true);
            let id = fresh["id"].as_str().expect("an alarm has an id");
            assert!(next["identifier"].as_str().is_some_and(|name| name.contains(id)), "{next}");
        }
    }
}

#[test]
fn an_order_that_nobody_took_before_the_kill_goes_out_after_it_once() {
    // Nobody listens: the order stays open.
    let port = anmin_tests::peers::free_port();
    let site = site(&format!("http://127.0.0.1:{port}/cap"));
    let daemon = Daemon::start(site.folder());
    raise(&mut devices(&daemon), "g1", 30.0);
    let alarm = daemon.alarm("gas/leak", "g1/lel", "orange", |alarm| alarm["level"] == "orange");
    daemon.wait("/api/v1/status", "the office's order waits", |status| status["orders_waiting"] == 1);
    daemon.kill();

    let mut cap = CapReceiver::start(&["--port", &port.to_string()]);
    let daemon = Daemon::start(site.folder());
    let alert = cap.next("Alert");
    assert_eq!((&alert["ok"], &alert["repeated"]), (&json!(true), &json!(false)), "{alert}");
    assert!(alert["identifier"].as_str().is_some_and(|name| name.contains(alarm["id"].as_str().unwrap_or("?"))));
    daemon.wait("/api/v1/status", "the office has taken it", |status| status["orders_waiting"] == 0);
}
