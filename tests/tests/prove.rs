//! What an alarm rests on is kept, and can be judged again; what other rules would have done is found in the past.

use std::process::Output;

use anmin_tests::daemon::{Daemon, anmin};
use anmin_tests::http;
use anmin_tests::mqtt::Mqtt;
use anmin_tests::site::{GAS_AS_IT_SPEAKS, Site};
use serde_json::{Value, json};

/// A limit of the site's own for one detector.
const TUNED: &str = r#"
[[override]]
rule = "gas/leak"
on_delay = "0s"
off_delay = "0s"

[[override]]
rule = "gas/leak"
device = "kitchen"
limit = { yellow = 8.0 }
"#;

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn json_of(arguments: &[&str]) -> Value {
    let text = said(&anmin(arguments));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// What a replay raised: rule, point, level.
fn raised(replay: &Value) -> Vec<String> {
    let alarms = replay["alarms"].as_array().expect("a list");
    let words = |alarm: &Value, key: &str| alarm[key].as_str().unwrap_or_default().to_owned();
    alarms.iter().map(|alarm| ["rule", "subject", "level"].map(|key| words(alarm, key)).join(" ")).collect()
}

#[test]
fn what_fell_before_a_restart_counts_after_it() {
    let site = Site::new("prove-refill", GAS_AS_IT_SPEAKS);
    let words = r#"{ zh = "累计", en = "sum" }"#;
    let toml = format!(
        "title = {words}\nmessage = {words}\nadvice = {words}\non_delay = \"0s\"\n[[input]]\nrole = \"gas\"\nkind = \"gas.lel\"\n\
         [[window]]\nname = \"day\"\ninput = \"gas\"\nover = \"24h\"\n\
         [limit.yellow]\nvalue = 9.5\nunit = \"%LEL\"\nsource = \"test\"\n"
    );
    site.write("rules/gas/sum.toml", &toml);
    let script = r#"fn judge(gas) { if above(window("day"), "yellow") { yellow() } else { normal() } }"#;
    site.write("rules/gas/sum.rhai", script);
    let daemon = Daemon::start(site.folder());
    let mut device = Mqtt::connect(daemon.broker.expect("the site has a broker").port(), "devices");
    for value in [3.0, 2.0, 4.0] {
        device.publish("acceptance/gauge/up", json!({ "v": value }).to_string());
    }
    daemon.wait("/api/v1/points/gauge/lel/history", "three readings in history", |history| {
        let counts = history.as_array().into_iter().flatten().map(|bucket| bucket["count"].as_u64().unwrap_or(0));
        counts.sum::<u64>() == 3
    });
    daemon.kill();
    let daemon = Daemon::start(site.folder());
    assert_eq!(daemon.get("/api/v1/alarms")["of"], json!(0), "nine have fallen, and nobody has spoken since");
    device = Mqtt::connect(daemon.broker.expect("the site has a broker").port(), "devices");
    device.publish("acceptance/gauge/up", json!({ "v": 0.1 }).to_string());
    // It is refilled beside what happens; the reading after that counts. Ten and more would be seven hundred of these.
    let mut alarm = Value::Null;
    for _ in 0..40 {
        device.publish("acceptance/gauge/up", json!({ "v": 0.05 }).to_string());
        daemon.wait("/api/v1/status", "it was judged", |status| status["readings"]["evaluated"].as_u64() > Some(0));
        alarm = daemon.get("/api/v1/alarms")["alarms"][0].clone();
        if !alarm.is_null() {
            break;
        }
        anmin_tests::daemon::pause();
    }
    assert_eq!(alarm["rule"], json!("gas/sum"));
    let view = daemon.get(&format!("/api/v1/alarms/{}", alarm["id"].as_str().expect("an id")));
    let sum = view["evidence"]["windows"][0]["value"].as_f64().expect("it is known");
    assert!((9.5..12.0).contains(&sum), "{view:#}");
}

#[test]
fn an_alarm_is_explained_and_what_other_rules_would_have_done_is_told() {
    let site = Site::new("prove", &format!("{GAS_AS_IT_SPEAKS}{TUNED}"));
    let folder = site.folder().to_str().expect("the target folder is UTF-8").to_owned();
    let daemon = Daemon::start(site.folder());
    let mut device = Mqtt::connect(daemon.broker.expect("the site has a broker").port(), "devices");
    for (name, value) in [("kitchen", 9.0), ("hall", 9.0), ("cellar", 30.0), ("kitchen", 9.5)] {
        device.publish(&format!("acceptance/{name}/up"), json!({ "v": value }).to_string());
    }
    let alarm = daemon.alarm("gas/leak", "kitchen/lel", "raised", |_| true);
    daemon.alarm("gas/leak", "cellar/lel", "raised", |_| true);
    let id = alarm["id"].as_str().expect("an alarm has an id").to_owned();

    // Kept, in the API and in the journal.
    let view = daemon.get(&format!("/api/v1/alarms/{id}"));
    let evidence = &view["evidence"];
    assert_eq!((&evidence["said"], &evidence["held"]), (&json!("yellow"), &Value::Null), "{evidence:#}");
    let input = &evidence["inputs"][0];
    assert_eq!(
        (&input["point"], &input["value"], &input["quality"]),
        (&json!("kitchen/lel"), &json!(9.0), &json!("good"))
    );
    let limits = evidence["limits"].as_array().expect("a list");
    let yellow = limits.iter().find(|limit| limit["name"] == "yellow").expect("the rule has it");
    assert_eq!((&yellow["value"], &yellow["origin"]), (&json!(8.0), &json!("device")));
    assert!(limits.iter().any(|limit| limit["name"] == "red" && limit["origin"] == "library"), "{limits:?}");
    let history = daemon.get(&format!("/api/v1/alarms/{id}/transitions"));
    assert_eq!(history[0]["transition"]["evidence"], *evidence);

    // The same when it is judged again from history.
    let explained = |daemon: &Daemon| daemon.get(&format!("/api/v1/alarms/{id}/explanation"));
    let of = format!("/api/v1/alarms/{id}/explanation");
    let first = daemon.wait(&of, "its reading in history", |answer| answer["again"].is_object());
    assert_eq!((&first["again"]["same"], &first["again"]["limits"]), (&json!(true), &json!([])), "{first:#}");
    let url = format!("http://{}", daemon.web);
    let told = said(&anmin(&["explain", &id, "--url", &url]));
    for part in ["按设备调整 device", "结论相同 the same: 黄色 yellow", "9 %LEL"] {
        assert!(told.contains(part), "no {part:?} in\n{told}");
    }
    let shown = said(&anmin(&["alarm", "show", &id, "--url", &url]));
    assert!(shown.contains("依据 evidence") && shown.contains("按设备调整 device"), "{shown}");
    assert_eq!(http::get(daemon.web, &format!("{of}?seq=99")).status, 404);

    // Replayed while the daemon runs: what the journal has, thousands of times faster.
    let replay = json_of(&["replay", &folder, "--json"]);
    assert_eq!(raised(&replay), ["gas/leak kitchen/lel yellow", "gas/leak cellar/lel orange"], "{replay:#}");
    assert_eq!(replay["by_rule"]["gas/leak"]["raised"], json!(2));

    // Other rules on the same past: one alarm more, one less, one worse.
    let other = Site::new(
        "prove-other",
        &format!(
            "{GAS_AS_IT_SPEAKS}\n[[override]]\nrule = \"gas/leak\"\non_delay = \"0s\"\noff_delay = \"0s\"\nlimit = {{ red = 28.0 }}\n\
         [[override]]\nrule = \"gas/leak\"\ndevice = \"hall\"\nlimit = {{ yellow = 5.0 }}\n"
        ),
    );
    let other = other.folder().to_str().expect("the target folder is UTF-8").to_owned();
    let tried = ["replay", &folder, "--site", &other, "--diff"];
    let diff = json_of(&[&tried[..], &["--json"]].concat())["diff"].clone();
    let changes: Vec<String> = diff["changed"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|change| {
            let either = if change["tried"].is_null() { &change["in_force"] } else { &change["tried"] };
            format!(
                "{} {}",
                change["change"].as_str().unwrap_or_default(),
                either["subject"].as_str().unwrap_or_default()
            )
        })
        .collect();
    assert_eq!(changes, ["lost kitchen/lel", "gained hall/lel", "other_level cellar/lel"], "{diff:#}");
    assert_eq!(diff["by_point"]["hall/lel"]["gained"], json!(1));
    let told = said(&anmin(&tried));
    for part in ["新增 1，消失 1", "gained 1, lost 1", "橙色 orange → 红色 red"] {
        assert!(told.contains(part), "no {part:?} in\n{told}");
    }

    // What was exported says the same, in either format, and a bad line of it is named.
    for format in ["csv", "lines"] {
        let exported = said(&anmin(&["export", &folder, "--format", format]));
        site.write("past", &format!("{exported}what,is,this\n"));
        let past = site.path("past");
        let past = past.to_str().expect("the target folder is UTF-8");
        let again = json_of(&["replay", &folder, "--input", past, "--json"]);
        assert_eq!(raised(&again), raised(&replay), "{format}");
        assert_eq!(again["bad_lines"]["count"], json!(1), "{format}: {}", again["bad_lines"]);
        // It ends with its last reading.
        assert!(again["to"].as_str() <= replay["to"].as_str(), "{format}");
        // Without a site the shipped rules judge.
        let alone = json_of(&["replay", "--input", past, "--json"]);
        assert_eq!(alone["readings"], replay["readings"], "{format}");
    }

    // With another limit the verdict is another, and it is said why; what was kept stays.
    assert_eq!(daemon.terminate(), Some(0));
    let text = std::fs::read_to_string(site.path("anmin.toml")).expect("it was written");
    site.write("anmin.toml", &text.replace("yellow = 8.0", "yellow = 20.0"));
    let daemon = Daemon::start(site.folder());
    device = Mqtt::connect(daemon.broker.expect("the site has a broker").port(), "devices");
    device.publish("acceptance/kitchen/up", json!({ "v": 9.5 }).to_string());
    let of = format!("{of}?seq=1");
    let later = daemon.wait(&of, "the point, taken in again", |answer| answer["again"].is_object());
    assert_eq!(later["evidence"], *evidence);
    assert_eq!((&later["again"]["same"], &later["again"]["evidence"]["said"]), (&json!(false), &json!("normal")));
    let limit = &later["again"]["limits"][0];
    assert_eq!((&limit["was"]["value"], &limit["is"]["value"]), (&json!(8.0), &json!(20.0)), "{later:#}");
    assert!(explained(&daemon)["message"].is_object());
}
