//! New rules and another configuration while the daemon watches: by signal, by command, by a file that is saved; what is sound is
//! taken at once, what is not changes nothing.

use std::process::Command;

use anmin_tests::daemon::{Daemon, anmin};
use anmin_tests::http;
use anmin_tests::mqtt::Mqtt;
use anmin_tests::peers::{CapReceiver, Hook, Mosquitto, Peer, free_port};
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
    site.write("anmin.toml", &format!("{both}[crew]\nlink_valid = \"9h\"\n"));
    let said = run(&["rules", "reload", "--url", &url, "--who", "陈工"], 0);
    for part in ["新增 added gas/ours", "(all) on_delay_s: - → 0", "only after a restart: [crew] (link_valid)"] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    assert!(said.contains(&format!("{} rules are in force", shipped + 1)), "{said}");
    assert!(trouble(&daemon, "config", true).contains("[crew]"));
    let row = reloads(&daemon, 2).remove(0);
    assert_eq!((&row["who"], &row["through"]), (&json!("陈工"), &json!("command_line")));
    assert_eq!(
        (&row["detail"]["added"], &row["detail"]["waits_for_restart"]),
        (&json!(["gas/ours"]), &json!(["[crew] (link_valid)"]))
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
        "原有配置和规则继续有效",
        "what is in force stays",
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
    let set_by = |who: &str, daemon: &Daemon, change: &Value, version: &Value| {
        let body = json!({ "who": who, "why": "too many", "change": change, "version": version });
        let set = http::post(daemon.web, "/api/v1/rules/set", &body);
        (set.status, set.json())
    };
    let set = |daemon: &Daemon, change: &Value, version: &Value| set_by("li", daemon, change, version);
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

    // Another folder for the databases waits for the next start, and what was set at the desk stays in force.
    site.write("anmin.d/elsewhere.toml", "[storage]\ndir = \"elsewhere\"\n");
    let url = format!("http://{}", daemon.web);
    let said = run(&["rules", "reload", "--url", &url, "--who", "陈工"], 0);
    assert!(said.contains("only after a restart: [storage] (dir)") && !said.contains("limit.yellow"), "{said}");
    assert!(run(&["rules", "list", "--url", &url], 0).contains("all: limit.yellow 15"), "it is in force");
    std::fs::remove_file(site.path("anmin.d/elsewhere.toml")).expect("it was just written");
    drop(daemon);

    daemon = Daemon::start(site.folder());
    let tuned = daemon.get("/api/v1/rules/tuned");
    assert_eq!(tuned["overrides"][0]["numbers"], json!([{ "name": "limit.yellow", "value": 15.0 }]), "{tuned}");
    let (status, _) = set(&daemon, &change("limit.yellow", Value::Null), &tuned["version"]);
    assert_eq!((status, &daemon.get("/api/v1/rules/tuned")["overrides"]), (200, &json!([])));

    // Whoever looked before that is told who it was: the last one, however short a while ago.
    let now = daemon.get("/api/v1/rules/tuned");
    assert_eq!(set_by("wang", &daemon, &higher, &now["version"]).0, 200);
    let (status, stale) = set(&daemon, &higher, &now["version"]);
    assert_eq!((status, &stale["code"]), (409, &json!("changed_meanwhile")));
    assert!(stale["detail"].as_str().is_some_and(|why| why.starts_with("wang has changed it")), "{stale}");
}

/// What is different is taken without a connection that did not change noticing anything; what waits is said by name, and what
/// was due by a way out that was written down wrongly goes out by the right one.
#[test]
fn another_configuration_is_taken_and_connections_that_are_in_it_as_they_were_stand() {
    let site = Site::new("reconfigure", "");
    let (mut kept, mut moved) = (Mosquitto::start(&site), Mosquitto::start(&site));
    let (office, town, nobody) = (Hook::start(), Hook::start(), free_port());
    let head = std::fs::read_to_string(site.path("anmin.toml")).expect("it was just written");
    let device = |id: &str| format!("{id},anmin-json-gas,b1\n");
    site.write("devices.csv", &format!("id,profile,place\n{}", device("g1")));
    let brokers = |keep_alive: &str, topic: &str| {
        format!(
            "[[mqtt]]\nid = \"kept\"\nurl = \"mqtt://127.0.0.1:{}\"\n[[mqtt.mapping]]\ntopic = \"site/{{device}}/up\"\n\
             payload = \"json\"\ndevice = \"{{device}}\"\n\
             [[mqtt]]\nid = \"moved\"\nurl = \"mqtt://127.0.0.1:{}\"\nkeep_alive = \"{keep_alive}\"\n[[mqtt.mapping]]\n\
             topic = \"{topic}/{{device}}/up\"\npayload = \"json\"\ndevice = \"{{device}}\"\n\
             [[device_list]]\nfile = \"devices.csv\"\n",
            kept.port, moved.port
        )
    };
    let out = format!("[[mqtt_out]]\nid = \"out\"\nurl = \"mqtt://127.0.0.1:{}\"\n", kept.port);
    let hook = |id: &str, url: &str| format!("[[webhook]]\nid = \"{id}\"\nurl = \"{url}\"\n");
    let wrong = format!("http://127.0.0.1:{nobody}/hook");
    let quick = "[[override]]\nrule = \"gas/leak\"\non_delay = \"0s\"\n";
    site.write("anmin.d/out.toml", &format!("{out}{}", hook("office", &wrong)));
    site.write("anmin.d/in.toml", &format!("{}{quick}", brokers("20s", "other")));
    let mut daemon = Daemon::start(site.folder());
    daemon.until("kept-in is subscribed to");
    let url = format!("http://{}", daemon.web);
    let folder = site.folder().to_str().expect("a plain name");
    let mut near = Mqtt::connect(kept.port, "devices");
    let mut far = Mqtt::connect(moved.port, "devices");
    let part = |status: &Value, part: &str| {
        status["troubles"].as_array().is_some_and(|all| all.iter().any(|trouble| trouble["part"] == part))
    };
    let speak = |device: &mut Mqtt, topic: &str, value: f64| {
        for seq in 1..3 {
            device.publish(topic, json!({ "v": value, "seq": seq }).to_string());
        }
    };

    // An alarm that the office is owed, and that a station is called for.
    speak(&mut near, "site/g1/up", 60.0);
    let alarm = daemon.alarm("gas/leak", "g1/lel", "red", |alarm| alarm["level"] == "red");
    let id = alarm["id"].as_str().expect("an id").to_owned();
    daemon.wait("/api/v1/status", "the office is owed", |status| status["orders_waiting"].as_u64() >= Some(1));

    // Everything at once: the office where it is, another way out, a station, a device, what is kept; and what waits.
    site.write("devices.csv", &format!("id,profile,place\n{}{}", device("g1"), device("g2")));
    site.write("anmin.d/out.toml", &format!("{out}{}{}", hook("office", &office.url), hook("town", &town.url)));
    site.write("anmin.d/in.toml", &format!("{}{quick}", brokers("30s", "far")));
    let more = "[readings]\nkeep = \"40d\"\n[log]\nlevel = \"debug\"\n[crew]\nlink_valid = \"9h\"\n\
                [[subscriber]]\nid = \"county\"\nclasses = [\"gas\"]\n[[station]]\nid = \"st-3\"\nname = \"三号站\"\n";
    let changed = format!("{}{more}", head.replace("0000-0000001", "0000-0000009"));
    site.write("anmin.toml", &changed);
    let told = run(&["check", "--against-running", "--url", &url, folder], 0);
    let parts = [
        "即时生效 at once: [[device]] g2",
        "at once: [[mqtt]] moved (keep_alive, mapping)",
        "at once: [[station]] st-1 (phone)",
        "at once: [[station]] st-3",
        "at once: [[subscriber]] county",
        "at once: [[webhook]] office (url)",
        "at once: [[webhook]] town",
        "at once: [log] (level)",
        "at once: [readings] (keep)",
        "重启后才生效 only after a restart: [crew] (link_valid)",
    ];
    for part in parts {
        assert!(told.contains(part), "no {part:?} in {told}");
    }
    assert!(!told.contains("kept") && !told.contains("mqtt_out"), "{told}");
    let said = run(&["rules", "reload", "--url", &url, "--who", "陈工"], 0);
    for part in parts {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    let row = reloads(&daemon, 1).remove(0);
    assert_eq!((&row["who"], &row["done"]), (&json!("陈工"), &json!(true)));
    let named = |row: &Value, list: &str, part: &str| {
        row["detail"][list].as_array().is_some_and(|all| all.iter().any(|one| one == part))
    };
    assert!(
        named(&row, "taken", "[[webhook]] office (url)") && named(&row, "waits_for_restart", "[crew] (link_valid)")
    );
    assert!(
        daemon.wait("/api/v1/status", "what waits", |status| part(status, "config"))["troubles"]
            .to_string()
            .contains("[crew] (link_valid)")
    );

    // What the office was owed is there, the alarm is the one it was, and whoever is new hears of what is new.
    office.next("the first alarm", |body| body["alarm"]["id"] == id || body["alarm"] == id);
    assert_eq!(daemon.get(&format!("/api/v1/alarms/{id}"))["alarm"]["raised_at"], alarm["raised_at"]);
    daemon.until("moved-in is subscribed to");
    speak(&mut far, "far/g2/up", 60.0);
    daemon.alarm("gas/leak", "g2/lel", "red", |alarm| alarm["level"] == "red");
    for hook in [&office, &town] {
        hook.next("the second alarm", |body| body.to_string().contains("g2/lel"));
    }
    let stations = daemon.get("/api/v1/stations").to_string();
    assert!(stations.contains("0000-0000009") && stations.contains("三号站"), "{stations}");
    assert!(daemon.get("/api/v1/subscriptions").to_string().contains("county"));

    // Only who is another now has connected again.
    assert_eq!(kept.connects("anmin-acceptance-kept-in"), 1);
    assert_eq!(kept.connects("anmin-acceptance-out-out"), 1);
    assert_eq!(moved.connects("anmin-acceptance-moved-in"), 2);

    // One fault anywhere, and nothing of it is taken.
    site.write("anmin.d/out.toml", &format!("{out}{}[[webhook]]\nid = \"village\"\n", hook("office", &office.url)));
    let refused = run(&["rules", "reload", "--url", &url, "--who", "陈工"], 1);
    assert!(refused.contains("out.toml:") && refused.contains("what is in force stays"), "{refused}");
    let status = daemon.wait("/api/v1/status", "the fault", |status| part(status, "rules"));
    assert!(part(&status, "config"), "what waits waits on: {status:#}");
    speak(&mut near, "site/g1/up", 0.1);
    town.next("it is still told", |body| body.to_string().contains("g1/lel"));

    // A way out goes, and nobody waits for it; the files are what they were at the start but for the rest.
    site.write("anmin.toml", &changed.replace("[crew]\nlink_valid = \"9h\"\n", ""));
    site.write("anmin.d/out.toml", &format!("{out}{}", hook("office", &office.url)));
    let said = run(&["rules", "reload", "--url", &url, "--who", "陈工"], 0);
    assert!(said.contains("at once: [[webhook]] town") && !said.contains("restart"), "{said}");
    daemon.wait("/api/v1/status", "all is well", |status| {
        !part(status, "config")
            && !part(status, "rules")
            && !part(status, "way-out:town")
            && status["orders_waiting"] == 0
    });
    assert_eq!((kept.connects("anmin-acceptance-kept-in"), moved.connects("anmin-acceptance-moved-in")), (1, 2));
    assert_eq!(daemon.terminate(), Some(0));
}

/// Whether something leaves for real, and who must say yes to it, is not changed by a file while anmin runs: neither a real broadcast of
/// a sudden, nor one that was to wait and no longer does.
#[test]
fn what_is_broadcast_for_real_and_who_says_yes_to_it_waits_for_a_restart() {
    let quick = "[[override]]\nrule = \"gas/leak\"\non_delay = \"0s\"\n";
    let site = Site::new("real-reload", &format!("{GAS_AS_IT_SPEAKS}{quick}"));
    let mut target = CapReceiver::start(&[]);
    let to = target.url.clone();
    let cap = |status: &str| {
        format!("[[cap]]\nid = \"town\"\nurl = \"{}\"\nsender = \"anmin.test.example\"\nstatus = \"{status}\"\n", to)
    };
    let real = std::fs::read_to_string(site.path("anmin.toml")).expect("it was just written");
    let real = real.replace("exercise = true\n", "");
    site.write("anmin.toml", &real);
    site.write("anmin.d/out.toml", &cap("actual"));
    let mut daemon = Daemon::start(site.folder());
    let url = format!("http://{}", daemon.web);
    for (text, out, waits) in [
        (format!("{real}[broadcast]\napproval = \"none\"\n"), cap("actual"), "[broadcast] (approval)"),
        (real.clone(), cap("exercise"), "[[cap]] town (status)"),
    ] {
        site.write("anmin.toml", &text);
        site.write("anmin.d/out.toml", &out);
        let said = run(&["rules", "reload", "--url", &url, "--who", "陈工"], 0);
        assert!(said.contains(&format!("only after a restart: {waits}")), "no {waits:?} in {said}");
        assert!(!said.contains("at once: [broadcast]") && !said.contains("at once: [[cap]]"), "{said}");
    }
    let mut device = Mqtt::connect(daemon.broker.expect("the site has a broker").port(), "devices");
    for _ in 0..2 {
        device.publish("acceptance/g1/up", json!({ "v": 60.0 }).to_string());
    }
    // It is asked for as before, and nothing has left.
    let waits = |alarm: &Value| alarm["broadcast"]["state"] == "waiting";
    daemon.alarm("gas/leak", "g1/lel", "waits for two people", waits);
    daemon.until("Station 1: called");
    assert_eq!(target.taken(), Vec::<Value>::new(), "nothing has left");
    assert_eq!(daemon.terminate(), Some(0));
}

const METER: &str = r#"
id = "meter"
title = { zh = "试验表", en = "test meter" }
[[point]]
name = "lel"
kind = "gas.lel"
register = "holding"
address = 0
scale = 0.1
"#;

/// Another modem was mounted: it is expected from now on, on the port where the other called.
#[test]
fn a_modem_with_another_registration_is_let_in_and_the_one_before_it_no_longer() {
    let port = free_port().to_string();
    let bus = |registration: &str| {
        format!(
            "[broker]\nlisten = \"127.0.0.1:0\"\n[[bus]]\nid = \"line\"\ntransport = \"dial_in\"\n\
             listen = \"127.0.0.1:{port}\"\nregistration = \"{registration}\"\nallow = [\"127.0.0.0/8\"]\n[[device]]\n\
             id = \"m1\"\nprofile = \"meter\"\nplace = \"b1\"\nbus = \"line\"\nunit_id = 1\ninterval = \"100ms\"\n"
        )
    };
    let site = Site::new("modem", &bus("DTU-7"));
    site.write("profiles/meter.toml", METER);
    let head = std::fs::read_to_string(site.path("anmin.toml")).expect("it was just written");
    let daemon = Daemon::start(site.folder());
    let reads = |value: f64| {
        let what = format!("the modem that reads {value}");
        daemon.wait("/api/v1/points/m1/lel", &what, |point| point["sample"]["value"] == value);
    };
    let _first = Peer::python("dtu.py", &[&port, "DTU-7"]);
    reads(12.6);
    site.write("anmin.toml", &head.replace("DTU-7", "DTU-8"));
    let said = run(&["rules", "reload", "--url", &format!("http://{}", daemon.web), "--who", "陈工"], 0);
    assert!(said.contains("at once: [[bus]] line (registration)"), "{said}");
    // The first calls again and again meanwhile, and nobody takes it for the other.
    let _second = Peer::python("dtu.py", &[&port, "DTU-8", "--first", "500"]);
    reads(50.0);
    // One more unit on its line: the modem is let in again, and all of them are heard.
    let more = "[[device]]\nid = \"m2\"\nprofile = \"meter\"\nplace = \"b1\"\nbus = \"line\"\nunit_id = 2\ninterval = \"100ms\"\n";
    site.write("anmin.toml", &format!("{}{more}", head.replace("DTU-7", "DTU-8")));
    let said = run(&["rules", "reload", "--url", &format!("http://{}", daemon.web), "--who", "陈工"], 0);
    assert!(said.contains("at once: [[device]] m2"), "{said}");
    daemon.wait("/api/v1/points/m2/lel", "the new unit", |point| point["sample"]["value"] == 50.0);
    assert_eq!(daemon.terminate(), Some(0));
}
