//! Whatever a device sends, the daemon goes on, says what and where, and counts it; the good reading behind it is judged.

use anmin_tests::daemon::{Daemon, anmin};
use anmin_tests::mqtt::Mqtt;
use anmin_tests::site::Site;
use serde_json::{Value, json};

/// A site on the embedded broker, with two gas detectors.
fn site(name: &str) -> Site {
    Site::new(
        name,
        r#"
[broker]
listen = "127.0.0.1:0"
  [[broker.mapping]]
  topic = "acceptance/{device}/up"
  payload = "json"
  device = "{device}"
  unknown = "quarantine"

[[device]]
id = "g1"
profile = "anmin-json-gas"
place = "b1"
[[device]]
id = "g2"
profile = "anmin-json-gas"
place = "b1"

[[override]]
rule = "gas/leak"
on_delay = "0s"
off_delay = "0s"
"#,
    )
}

/// The daemon on `site`, and a device that is connected to its broker.
fn start(site: &Site) -> (Daemon, Mqtt) {
    let daemon = Daemon::start(site.folder());
    let port = daemon.broker.expect("it has a broker").port();
    (daemon, Mqtt::connect(port, "device"))
}

/// The latest sample of g1's gas point.
fn sample(daemon: &Daemon, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    daemon.wait("/api/v1/points/g1/lel", what, |point| wanted(&point["sample"]))["sample"].clone()
}

fn counts(daemon: &Daemon) -> Value {
    daemon.get("/api/v1/status")["readings"].clone()
}

#[test]
fn a_payload_that_cannot_be_understood_is_rejected_and_counted_and_the_next_is_judged() {
    let site = site("payloads");
    let (mut daemon, mut device) = start(&site);
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let wide = format!("{{{}\"v\":1}}", "\"k\":0,".repeat(20_000));
    let cases: [(&str, Vec<u8>); 12] = [
        ("empty", Vec::new()),
        ("not JSON", b"gas=12.5".to_vec()),
        ("broken off", br#"{"v":12.5,"ts":17"#.to_vec()),
        ("two documents", br#"{"v":1}{"v":2}"#.to_vec()),
        ("not UTF-8", b"{\"v\":1,\"note\":\"\xff\xfe\"}".to_vec()),
        ("a NUL", b"{\"v\":\0}".to_vec()),
        ("random bytes", (0_u32..2_000).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()),
        ("deep", deep.into_bytes()),
        ("deep objects", format!("{}1{}", "{\"v\":".repeat(5_000), "}".repeat(5_000)).into_bytes()),
        ("an array of nothing", b"[]".to_vec()),
        ("200 KB of one letter", vec![b'a'; 200 << 10]),
        ("a text alone", b"\"12.5\"".to_vec()),
    ];
    let mut rejected = 0;
    for (n, (name, payload)) in cases.into_iter().enumerate() {
        device.publish("acceptance/g1/up", payload);
        rejected += 1;
        let value = 1.0 + n as f64 / 10.0;
        device.publish("acceptance/g1/up", json!({ "v": value }).to_string());
        sample(&daemon, &format!("the good reading behind {name:?}"), |sample| sample["value"] == value);
        assert_eq!(counts(&daemon)["rejected"], rejected, "{name} is counted once");
    }
    // Wide is no fault: it holds a value.
    device.publish("acceptance/g1/up", wide);
    sample(&daemon, "the value in a wide object", |sample| sample["value"] == 1.0);
    let said = daemon.until("acceptance/g1/up");
    assert!(said.contains("WARN"), "{said}");
}

/// Goal: what nobody can read is on disk before it is acknowledged, is listed, and holds up nothing that can be read.
#[test]
fn what_nobody_can_read_is_kept_and_listed_also_after_a_crash() {
    let site = site("unreadable");
    let (daemon, mut device) = start(&site);
    let noise = |n: u32| (0..64).map(|at: u32| (n * 64 + at).wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let mut messages: Vec<(String, Vec<u8>)> = (0..2_000).map(|n| ("acceptance/g2/up".to_owned(), noise(n))).collect();
    messages.extend((0..9).map(|_| ("acceptance/g1/up".to_owned(), b"gas=12.5".to_vec())));
    messages.insert(1_000, ("acceptance/g1/up".to_owned(), br#"{"v":3.25}"#.to_vec()));
    // Each is acknowledged, so each is on the disk.
    device.publish_all(messages);
    assert_eq!(sample(&daemon, "the reading among them", |sample| sample.is_object())["value"], 3.25);
    daemon.alarm("system/part", "unreadable:acceptance/g2/up", "the noise", |alarm| alarm["level"] == "yellow");
    let alarms = daemon.get("/api/v1/alarms").to_string();
    assert!(!alarms.contains("unreadable:acceptance/g1/up"), "nine are no alarm yet");
    assert_eq!(counts(&daemon)["rejected"], 2_009);
    daemon.kill();

    let daemon = Daemon::start(site.folder());
    let kept = daemon.get("/api/v1/quarantine/messages?limit=1000");
    assert_eq!(
        (&kept[0]["excerpt"], &kept[0]["messages"]),
        (&json!("gas=12.5"), &json!(9)),
        "once, however often it came"
    );
    assert_eq!((&kept[1]["topic"], &kept[1]["bytes"]), (&json!("acceptance/g2/up"), &json!(64)));
    assert_eq!(kept.as_array().map(Vec::len), Some(1_000));
    let said = anmin(&["quarantine", "--url", &format!("http://{}", daemon.web)]);
    let said = String::from_utf8(said.stdout).expect("its output is text");
    assert!(said.contains("acceptance/g1/up") && said.contains("not_json") && said.contains("gas=12.5"), "{said}");
}

#[test]
fn what_is_no_number_never_becomes_one_and_clears_no_alarm() {
    let site = site("numbers");
    let (daemon, mut device) = start(&site);
    for _ in 0..2 {
        device.publish("acceptance/g1/up", r#"{"v":60}"#);
    }
    let alarm = daemon.alarm("gas/leak", "g1/lel", "red", |alarm| alarm["level"] == "red");
    let words = [
        "NaN",
        "-Infinity",
        "1e400",
        "-1e999",
        "\"12,5\"",
        "\"high\"",
        "\"\"",
        "null",
        "[1]",
        "{}",
        "-60",
        "151",
        "1e18",
        "99999999999999999999999999",
        "0x10",
        "+5",
        "1.2.3",
        "\"NaN\"",
        "\"inf\"",
    ];
    for (n, word) in words.iter().enumerate() {
        device.publish("acceptance/g1/up", format!(r#"{{"v":{word},"seq":{}}}"#, n + 10));
        let received = daemon.get("/api/v1/points/g1/lel")["sample"].clone();
        assert!(received["quality"] == "bad" || received["value"] == 60.0, "{word} reads as {received}");
        let now = daemon.alarm("gas/leak", "g1/lel", "still there", |_| true);
        assert_eq!((&now["id"], &now["active"], &now["level"]), (&alarm["id"], &json!(true), &json!("red")), "{word}");
    }
}

#[test]
fn a_device_that_the_site_does_not_know_is_quarantined_and_listed() {
    let site = site("unknown");
    let (daemon, mut device) = start(&site);
    for n in 0..3 {
        device.publish("acceptance/stranger/up", format!(r#"{{"v":{n}}}"#));
    }
    let listed = daemon.wait("/api/v1/quarantine", "the stranger", |list| list[0]["messages"] == 3);
    assert_eq!((&listed[0]["device"], &listed[0]["topic"]), (&json!("stranger"), &json!("acceptance/stranger/up")));
    assert_eq!(counts(&daemon)["quarantined"], 3);
    for odd in ["acceptance/../up", "acceptance/a b/up", "acceptance/名/up", "acceptance//up", "other/topic"] {
        device.publish(odd, r#"{"v":1}"#);
    }
    device.publish("acceptance/g1/up", r#"{"v":1.5}"#);
    sample(&daemon, "the known device behind them", |sample| sample["value"] == 1.5);
}

#[test]
fn a_clock_of_1970_or_2099_makes_a_reading_doubtful_and_hides_no_alarm() {
    for (name, ts) in [("1970", 12_000_i64), ("2099", 4_099_680_000_000), ("before 1970", -5)] {
        let site = site("clocks");
        let (daemon, mut device) = start(&site);
        for seq in 1..3 {
            device.publish("acceptance/g1/up", json!({ "v": 60.0, "ts": ts, "seq": seq }).to_string());
        }
        let alarm =
            daemon.alarm("gas/leak", "g1/lel", &format!("red in spite of {name}"), |alarm| alarm["level"] == "red");
        assert_eq!(alarm["reading"]["value"], 60.0, "{name}");
        let sample = sample(&daemon, "the reading", |sample| sample["value"] == 60.0);
        assert_eq!(sample["quality"], "uncertain", "{name}: {sample}");
    }
}

#[test]
fn rules_that_cannot_be_read_loop_or_recurse_are_said_and_stop_no_other() {
    let toml = |rule: &str| {
        format!(
            "title = {{ zh = \"试\", en = \"test\" }}\non_delay = \"0s\"\n[[input]]\nrole = \"gas\"\nkind = \"gas.lel\"\n\
             [limit.yellow]\nvalue = 5.0\nunit = \"%LEL\"\nsource = \"test\"\n\
             [message]\nzh = \"试\"\nen = \"{rule}\"\n[advice]\nzh = \"无\"\nen = \"none\"\n\
             [[case]]\nname = \"one\"\nsteps = [{{ at = \"0s\", gas = 1.0, expect = \"normal\" }}]\n"
        )
    };
    let site = site("rules");
    for (name, script) in [
        ("syntax", "fn judge(gas) { if above(gas, \"yellow\" { yellow() } }"),
        ("endless", "fn judge(gas) { let n = 0; while true { n += 1; } normal() }"),
        ("recursive", "fn deep(n) { deep(n + 1) } fn judge(gas) { deep(0) }"),
        ("late", "fn judge(gas) { if gas.value > 40.0 { let n = 0; loop { n += 1; } } normal() }"),
        ("sound", "fn judge(gas) { if above(gas, \"yellow\") { yellow() } else { normal() } }"),
    ] {
        site.write(&format!("rules/test/{name}.toml"), &toml(name));
        site.write(&format!("rules/test/{name}.rhai"), script);
    }
    let (daemon, mut device) = start(&site);
    // Those that cannot be loaded, each as an alarm of its own that names the file.
    for name in ["syntax", "endless", "recursive"] {
        let alarm = daemon.alarm("system/rule", &format!("rule-file:test/{name}"), "it is said", |_| true);
        assert!(alarm["message"]["en"].as_str().is_some_and(|text| text.contains(name)), "{alarm:#}");
    }
    // One that fails only at a value that nobody tried: from then on it is said, and the others judge.
    for _ in 0..2 {
        device.publish("acceptance/g1/up", r#"{"v":45}"#);
    }
    daemon.alarm("test/sound", "g1/lel", "the sound rule judges", |alarm| alarm["level"] == "yellow");
    daemon.alarm("gas/leak", "g1/lel", "the shipped rule judges", |alarm| alarm["level"] == "orange");
    daemon.wait("/api/v1/alarms", "the rule that ran away is said", |list| {
        let mut alarms = list["alarms"].as_array().into_iter().flatten();
        alarms.any(|alarm| {
            alarm["class"] == "system" && alarm["message"]["en"].as_str().is_some_and(|t| t.contains("late"))
        })
    });
}
