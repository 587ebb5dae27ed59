//! A drill in the running daemon, and a real alarm in the middle of it, at the very detector that the drill plays with.

use std::fs;

use anmin_tests::daemon::{Daemon, anmin};
use anmin_tests::http;
use anmin_tests::mqtt::Mqtt;
use anmin_tests::site::{GAS_AS_IT_SPEAKS, Site};
use serde_json::{Value, json};

/// The head's site is an exercise as a whole: this one is real.
fn real_site() -> Site {
    let site = Site::new(
        "drill",
        &format!(
            r#"{GAS_AS_IT_SPEAKS}
[[mqtt_out]]
id = "alarms"
broker = "embedded"

[[cap]]
id = "office"
folder = "cap"
min_level = "orange"
sender = "acceptance.anmin.example.cn"
status = "actual"

[broadcast]
approval = "none"

[[drill]]
id = "building-1"
building = "1"
every = "90d"

[[override]]
rule = "gas/leak"
on_delay = "0s"
off_delay = "0s"
"#
        ),
    );
    let text = fs::read_to_string(site.path("anmin.toml")).expect("it was written above");
    site.write("anmin.toml", &text.replace("exercise = true\n", ""));
    site
}

fn speak(device: &mut Mqtt, value: f64) {
    for _ in 0..2 {
        device.publish("acceptance/g1/up", json!({ "v": value }).to_string());
    }
}

fn post(daemon: &Daemon, path: &str, body: Value) -> Value {
    let answer = http::post(daemon.web, path, &body);
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    answer.json()
}

/// What the CAP folder holds about an alarm: each message whole, once there are so many.
fn messages(site: &Site, daemon: &Daemon, alarm: &str, wanted: usize) -> Vec<String> {
    daemon.wait("/api/v1/status", "every order taken", |status| status["orders_waiting"] == 0);
    let files = fs::read_dir(site.path("cap")).expect("the folder is there").flatten();
    let of_alarm = files.filter(|file| {
        let name = file.file_name().to_string_lossy().into_owned();
        name.contains(alarm) && name.ends_with(".xml")
    });
    let texts: Vec<String> = of_alarm.map(|file| fs::read_to_string(file.path()).expect("UTF-8")).collect();
    assert_eq!(texts.len(), wanted, "{texts:#?}");
    texts
}

#[test]
fn a_real_alarm_in_the_middle_of_a_drill_is_real_and_a_restart_goes_on_with_both() {
    let site = real_site();
    let daemon = Daemon::start(site.folder());
    let broker = |daemon: &Daemon| daemon.broker.expect("the site has a broker").port();
    let mut device = Mqtt::connect(broker(&daemon), "devices");
    let mut office = Mqtt::connect(broker(&daemon), "office");
    office.subscribe("anmin/v1/acceptance/#");
    speak(&mut device, 0.1);
    daemon.wait("/api/v1/points", "the detector is known", |found| found["of"].as_u64().is_some_and(|of| of > 0));

    let started = post(
        &daemon,
        "/api/v1/drills",
        json!({ "who": "li", "building": "1", "scenario": "kitchen-gas", "minutes": 30, "announced": true }),
    );
    let drill = started["id"].as_str().expect("it has an id").to_owned();
    let played = daemon.alarm("gas/leak", "g1/lel", "played", |alarm| alarm["drill"] == json!(drill));
    assert!(played["message"]["zh"].as_str().is_some_and(|zh| zh.starts_with("【演练】")), "{played:#}");
    let event = office
        .next("the drill's event", |publish| publish.topic.ends_with("/event") && publish.topic.contains("/gas/"));
    let topic = &event.topic;
    assert!(topic.starts_with("anmin/v1/acceptance/drill/alarm/gas/leak/"), "{topic}");

    // The same detector, for real.
    speak(&mut device, 60.0);
    let real = daemon.alarm("gas/leak", "g1/lel", "real", |alarm| alarm["drill"].is_null() && alarm["level"] == "red");
    assert_ne!(real["incident"], played["incident"]);
    let id = |alarm: &Value| alarm["id"].as_str().expect("an alarm has an id").to_owned();
    let list = daemon.get("/api/v1/alarms");
    assert_eq!(list["alarms"][0]["id"], real["id"], "what is real stands first: {list:#}");
    let status = daemon.get("/api/v1/status");
    assert_eq!((&status["by_level"]["red"], &status["drills"][0]["id"]), (&json!(1), &json!(drill)), "{status:#}");
    for (alarm, is, is_not) in [(&played, "Exercise", "Actual"), (&real, "Actual", "Exercise")] {
        for text in messages(&site, &daemon, &id(alarm), 1) {
            assert!(text.contains(&format!("<status>{is}</status>")) && !text.contains(is_not), "{text}");
            assert_eq!(text.contains("【演练】"), is == "Exercise", "{text}");
            assert!(!text.contains("【演练】【演练】"), "{text}");
        }
    }
    let merge = format!("/api/v1/incidents/{}/merge", played["incident"].as_str().expect("a hazard's has one"));
    let answer = http::post(daemon.web, &merge, &json!({ "who": "li", "into": real["incident"] }));
    assert_eq!(answer.status, 409, "{}", answer.body);
    post(&daemon, &format!("/api/v1/alarms/{}/acknowledge", id(&played)), json!({ "who": "li" }));
    post(&daemon, &format!("/api/v1/alarms/{}/calls/st-1/accept", id(&played)), json!({ "who": "crew" }));
    daemon.wait("/api/v1/status", "every order taken", |status| status["orders_waiting"] == 0);
    daemon.kill();

    let daemon = Daemon::start(site.folder());
    let after = daemon.get("/api/v1/status");
    assert_eq!(after["drills"][0]["ends_at"], started["ends_at"], "{after:#}");
    let still = daemon.alarm("gas/leak", "g1/lel", "still unseen", |alarm| alarm["id"] == real["id"]);
    assert_eq!((&still["acknowledged"], &still["state"]), (&Value::Null, &json!("unacknowledged")));
    post(&daemon, &format!("/api/v1/drills/{drill}/end"), json!({ "who": "li" }));
    let list = daemon.get("/api/v1/alarms");
    let open: Vec<&Value> = list["alarms"].as_array().into_iter().flatten().collect();
    assert!(open.iter().all(|alarm| alarm["drill"].is_null()) && open.iter().any(|alarm| alarm["id"] == real["id"]));
    for text in messages(&site, &daemon, &id(&played), 2) {
        assert!(text.contains("<status>Exercise</status>"), "{text}");
    }

    let view = daemon.get(&format!("/api/v1/drills/{drill}"));
    let clocks = &view["score"]["alarms"][0]["clocks"];
    for (what, by) in [("notified", "alarms"), ("acknowledged", "li"), ("accepted", "crew")] {
        let clock = clocks.as_array().into_iter().flatten().find(|clock| clock["what"] == what);
        assert!(clock.is_some_and(|clock| clock["kept"] == true && clock["by"] != ""), "{what} by {by}: {view:#}");
    }
    let closed = daemon.get("/api/v1/incidents?state=closed");
    assert_eq!(closed["incidents"][0]["end"]["outcome"], "drill", "{closed:#}");

    let url = format!("http://{}", daemon.web);
    let out = site.path("drill.html");
    let told = anmin(&["drill", "report", "--url", &url, "--out", &out.display().to_string()]);
    let said = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.status.success() && said.contains("达标时限 clocks kept 3 / "), "{told:?}");
    let html = fs::read_to_string(out).expect("it was written");
    for part in ["演练报告：1号楼", "Drill report: Building 1", "成绩单", "Score sheet", "一号站", "Station 1"]
    {
        assert!(html.contains(part), "no {part:?} in {html}");
    }
}
