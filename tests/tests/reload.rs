//! New rules while the daemon watches: by signal, by command, by a file that is saved; what is sound is taken at once, what
//! is not changes nothing.

use std::process::Command;

use anmin_tests::daemon::{Daemon, anmin};
use anmin_tests::http;
use anmin_tests::mqtt::Mqtt;
use anmin_tests::site::{GAS_AS_IT_SPEAKS, Site};
use serde_json::{Value, json};

const ENDLESS: &str = "fn judge(value) { loop { } }\n";
const BLIND: &str = "fn judge(value) { normal() }\n";

fn say(device: &mut Mqtt, value: f64) {
    for _ in 0..2 {
        device.publish("acceptance/g1/up", json!({ "v": value }).to_string());
    }
}

fn hang_up(daemon: &Daemon) {
    let killed = Command::new("kill").args(["-HUP", &daemon.pid().to_string()]).status();
    assert!(killed.is_ok_and(|status| status.success()));
}

/// What the audit says of the rules, the newest first, once there are `count` rows.
fn reloads(daemon: &Daemon, count: usize) -> Vec<Value> {
    let of = |found: &Value| -> Vec<Value> {
        let rows = found["rows"].as_array().cloned().unwrap_or_default();
        rows.into_iter().filter(|row| row["what"] == "rules.reload").collect()
    };
    let found = daemon.wait("/api/v1/audit?limit=1000", &format!("reload {count}"), |found| of(found).len() >= count);
    let rows = of(&found);
    assert_eq!(rows.len(), count, "{rows:#?}");
    rows
}

/// Waits until a part of anmin is ill, or well.
fn trouble(daemon: &Daemon, part: &str, ill: bool) -> String {
    let of = |status: &Value| {
        let troubles = status["troubles"].as_array().cloned().unwrap_or_default();
        let found = troubles.into_iter().find(|trouble| trouble["part"] == part);
        found.map(|trouble| trouble["message"]["en"].as_str().unwrap_or_default().to_owned())
    };
    let what = format!("{part} {}", if ill { "ill" } else { "well" });
    of(&daemon.wait("/api/v1/status", &what, |status| of(status).is_some() == ill)).unwrap_or_default()
}

fn run(arguments: &[&str], code: i32) -> String {
    let ran = anmin(arguments);
    let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert_eq!(ran.status.code(), Some(code), "{arguments:?}: {said}");
    said
}

/// One site through a working day of somebody who keeps its rules.
#[test]
fn new_rules_are_taken_at_once_or_not_at_all() {
    let site = Site::new("reload", GAS_AS_IT_SPEAKS);
    let head = std::fs::read_to_string(site.path("anmin.toml")).expect("it was just written");
    let quick = |rule: &str| format!("\n[[override]]\nrule = \"{rule}\"\non_delay = \"0s\"\n");
    let folder = site.folder().to_str().expect("a plain name");
    let daemon = Daemon::start(site.folder());
    let url = format!("http://{}", daemon.web);
    let shipped = daemon.get("/api/v1/rules").as_array().map_or(0, Vec::len);
    let mut device = Mqtt::connect(daemon.broker.expect("the site has a broker").port(), "devices");
    say(&mut device, 9.0);
    daemon.wait("/api/v1/points?text=g1", "the point", |found| found["points"][0]["sample"]["value"] == 9.0);

    // A limit is lowered, and SIGHUP sent: what the point has said is judged by it at once.
    let lower = "limit = { yellow = 8.0 }\n";
    site.write("anmin.toml", &format!("{head}{}{lower}", quick("gas/leak")));
    hang_up(&daemon);
    daemon.alarm("gas/leak", "g1/lel", "yellow", |alarm| alarm["level"] == "yellow");
    let row = reloads(&daemon, 1).remove(0);
    assert_eq!((&row["through"], &row["done"]), (&json!("signal"), &json!(true)));
    let number = |name: &str, to: f64| json!({ "rule": "gas/leak", "of": "all", "name": name, "from": null, "to": to });
    assert_eq!(row["detail"]["numbers"], json!([number("limit.yellow", 8.0), number("on_delay_s", 0.0)]));

    // A rule of the site's own is begun, tried, and taken by command; something else has changed that is not.
    run(&["rules", "new", "gas/ours", folder], 0);
    assert!(run(&["rules", "new", "gas/ours", folder], 1).contains("is there already"));
    run(&["test", folder], 0);
    let both = format!("{head}{}{lower}{}", quick("gas/leak"), quick("gas/ours"));
    site.write("anmin.toml", &format!("{both}[readings]\nkeep = \"40d\"\n"));
    let said = run(&["rules", "reload", "--url", &url, "--who", "陈工"], 0);
    for part in ["新增 added gas/ours", "(all) on_delay_s: - → 0", "restart: [readings]"] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    assert!(said.contains(&format!("{} rules are in force", shipped + 1)), "{said}");
    assert!(trouble(&daemon, "config", true).contains("[readings]"));
    let row = reloads(&daemon, 2).remove(0);
    assert_eq!((&row["who"], &row["through"]), (&json!("陈工"), &json!("command_line")));
    assert_eq!(
        (&row["detail"]["added"], &row["detail"]["waits_for_restart"]),
        (&json!(["gas/ours"]), &json!(["[readings]"]))
    );
    let listed = run(&["rules", "list", "--url", &url], 0);
    assert!(
        listed.contains("gas/ours") && listed.contains("本站 site") && listed.contains("all: limit.yellow 8"),
        "{listed}"
    );
    site.write("anmin.toml", &both);
    hang_up(&daemon);
    trouble(&daemon, "config", false);

    // What is saved half done is not taken, and said; the rules in force judge on.
    let rule = || {
        let rules = daemon.get("/api/v1/rules");
        rules
            .as_array()
            .and_then(|rules| rules.iter().find(|rule| rule["id"] == "gas/ours").cloned())
            .expect("it is there")
    };
    let hash = rule()["hash"].clone();
    let script = std::fs::read_to_string(site.path("rules/gas/ours.rhai")).expect("it was made");
    site.write("rules/gas/ours.rhai", ENDLESS);
    assert!(trouble(&daemon, "rules", true).contains("rules/gas/ours.rhai:1:"), "with its place");
    daemon.alarm("system/part", "rules", "raised", |alarm| alarm["level"] == "yellow");
    let row = reloads(&daemon, 4).remove(0);
    assert_eq!((&row["through"], &row["done"]), (&json!("files"), &json!(false)));
    site.write("rules/gas/ours.rhai", BLIND);
    let refused = run(&["rules", "reload", "--url", &url, "--who", "陈工"], 1);
    for part in [
        "原有规则继续有效",
        "those in force stay",
        "rule gas/ours fails its case \"the hazard is seen, stage by stage\"",
    ] {
        assert!(refused.contains(part), "no {part:?} in {refused}");
    }
    assert_eq!(rule()["hash"], hash);
    say(&mut device, 60.0);
    let alarm = daemon.alarm("gas/ours", "g1/lel", "red", |alarm| alarm["level"] == "red");
    site.write("rules/gas/ours.rhai", &script);
    trouble(&daemon, "rules", false);

    // A rule is taken away: its alarm neither goes unseen nor stands for ever.
    std::fs::remove_dir_all(site.path("rules")).expect("it is there");
    site.write("anmin.toml", &format!("{head}{}{lower}", quick("gas/leak")));
    daemon.alarm("system/rule", "rule-gone:gas/ours", "raised", |notice| notice["level"] == "blue");
    say(&mut device, 0.1);
    let id = alarm["id"].as_str().expect("an id");
    run(&["alarm", "ack", id, "--who", "li", "--url", &url], 0);
    run(&["alarm", "reset", id, "--who", "li", "--url", &url], 0);
    daemon.wait("/api/v1/alarms", "the notice is over", |list| {
        !list["alarms"]
            .as_array()
            .is_some_and(|alarms| alarms.iter().any(|alarm| alarm["subject"] == "rule-gone:gas/ours"))
    });
    assert_eq!(daemon.get("/api/v1/rules").as_array().map_or(0, Vec::len), shipped);
    assert_eq!(daemon.terminate(), Some(0));
}

/// The real history, the real files: what the made-up desk of the page's tests cannot show.
#[test]
fn a_limit_from_the_desk_is_tried_on_history_holds_over_a_restart_and_is_taken_back() {
    let quick = "\n[[override]]\nrule = \"gas/leak\"\non_delay = \"0s\"\n";
    let site = Site::new("tuned", &format!("{GAS_AS_IT_SPEAKS}{quick}"));
    let mut daemon = Daemon::start(site.folder());
    let mut device = Mqtt::connect(daemon.broker.expect("the site has a broker").port(), "devices");
    say(&mut device, 12.0);
    daemon.alarm("gas/leak", "g1/lel", "yellow", |alarm| alarm["level"] == "yellow");
    let change = |limit: &str, value: Value| json!({ "rule": "gas/leak", "of": {}, "numbers": { limit: value } });
    let try_out = |daemon: &Daemon, change: &Value| {
        let tried = http::post(daemon.web, "/api/v1/rules/try", &json!({ "change": change, "days": 1 }));
        (tried.status, tried.json())
    };
    let set = |daemon: &Daemon, change: &Value, version: &Value| {
        let body = json!({ "who": "li", "why": "too many", "change": change, "version": version });
        let set = http::post(daemon.web, "/api/v1/rules/set", &body);
        (set.status, set.json())
    };
    let file = || std::fs::read_to_string(site.path("data/tuned.toml")).unwrap_or_default();

    let (status, unknown) = try_out(&daemon, &change("limit.purple", json!(15)));
    assert_eq!((status, &unknown["code"]), (409, &json!("rules_refused")), "{unknown}");
    assert!(unknown["detail"].as_str().is_some_and(|why| why.contains("has no limit `purple`")), "{unknown}");

    let higher = change("limit.yellow", json!(15));
    let (status, trial) = try_out(&daemon, &higher);
    assert_eq!((status, &trial["lost"], &trial["gained"]), (200, &json!(1), &json!(0)), "{trial}");
    assert_eq!(trial["changed"][0]["subject"], "g1/lel", "{trial}");
    assert_eq!(file(), "", "a trial sets nothing");

    // The site's own files are in no order just now: nothing is set.
    site.write("anmin.d/slip.toml", "[[override]]\nrule = \"gas/laek\"\n");
    let (status, refused) = set(&daemon, &higher, &trial["version"]);
    assert_eq!((status, file().as_str()), (409, ""), "{refused}");
    std::fs::remove_file(site.path("anmin.d/slip.toml")).expect("it was just written");

    let (status, done) = set(&daemon, &higher, &trial["version"]);
    assert_eq!((status, &done["numbers"][0]["to"]), (200, &json!(15.0)), "{done}");
    assert!(file().contains("yellow = 15.0"), "{}", file());
    run(&["check", site.folder().to_str().expect("a plain name")], 0);
    drop(daemon);

    daemon = Daemon::start(site.folder());
    let tuned = daemon.get("/api/v1/rules/tuned");
    assert_eq!(tuned["overrides"][0]["numbers"], json!([{ "name": "limit.yellow", "value": 15.0 }]), "{tuned}");
    let (status, _) = set(&daemon, &change("limit.yellow", Value::Null), &tuned["version"]);
    assert_eq!((status, &daemon.get("/api/v1/rules/tuned")["overrides"]), (200, &json!([])));
    let (status, stale) = set(&daemon, &higher, &tuned["version"]);
    assert_eq!((status, &stale["code"]), (409, &json!("changed_meanwhile")));
}
