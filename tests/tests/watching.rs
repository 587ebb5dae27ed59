//! What watches anmin from outside: figures and rules on them, and the log in each of its forms.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

use anmin_tests::daemon::{DEADLINE, Daemon, binary};
use anmin_tests::http;
use anmin_tests::mqtt::Mqtt;
use anmin_tests::peers::free_port;
use anmin_tests::site::{GAS_AS_IT_SPEAKS, Site};
use serde_json::{Value, json};

fn monitoring(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ stands in the root")
        .join("gateway/docs/monitoring");
    std::fs::read_to_string(path.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The figures that a text names.
fn named(text: &str) -> Vec<&str> {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let mut found: Vec<&str> = text
        .match_indices("anmin_")
        .filter(|(at, _)| !text[..*at].ends_with(word))
        .map(|(at, _)| text[at..].split(|c| !word(c)).next().unwrap_or_default())
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// Goal: no alert and no panel waits for a figure that does not exist. Method: the real figures of a site that has each
/// kind of peer, and vmalert's own reading of the rules.
#[test]
fn rules_and_dashboard_name_figures_that_are_there() {
    let more = format!(
        "{GAS_AS_IT_SPEAKS}\n[[mqtt_out]]\nid = \"office\"\nbroker = \"embedded\"\n\
         [[influx]]\nid = \"tsdb\"\nurl = \"http://127.0.0.1:1/\"\nbucket = \"b\"\n\
         [[bus]]\nid = \"plant\"\ntransport = \"tcp\"\nhost = \"127.0.0.1\"\nport = 1\n"
    );
    let site = Site::new("watching", &more);
    let daemon = Daemon::start(site.folder());
    daemon.wait("/api/v1/status", "the first beat", |status| !status["self_test"]["last"].is_null());
    let text = http::get(daemon.web, "/metrics").body;
    let there: BTreeMap<String, &str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, kind)| (if kind == "counter" { format!("{name}_total") } else { name.to_owned() }, kind))
        .collect();
    assert!(there.len() > 40, "{text}");
    let (alerts, dashboard) = (monitoring("alerts.yml"), monitoring("dashboard.json"));
    for (file, text) in [("alerts.yml", &alerts), ("dashboard.json", &dashboard)] {
        let names = named(text);
        assert!(names.len() > 12, "{file}: {names:?}");
        for name in names {
            assert!(there.contains_key(name), "{file} names {name}, which /metrics does not have");
        }
    }
    let board: Value = serde_json::from_str(&dashboard).expect("it is JSON");
    for panel in board["panels"].as_array().into_iter().flatten() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().unwrap_or_default();
            let counters = named(expression).into_iter().any(|name| there[name] == "counter");
            assert_eq!(counters, expression.starts_with("rate("), "counters are shown by their rate: {expression}");
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ stands in the root")
        .join("gateway/docs/monitoring/alerts.yml");
    let ran = Command::new("vmalert").arg("-dryRun").arg(format!("-rule={}", path.display())).output();
    let ran = ran.unwrap_or_else(|error| panic!("vmalert: {error}; tests/setup.sh installs it"));
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

/// Goal: nobody has to ask before they hear that a certificate ends, or that a backup was not made. Method: a certificate of five
/// more days and a backup to a folder that is a file; then both are put right. Reading the site anew has them looked at.
#[test]
fn a_certificate_that_ends_and_a_backup_that_failed_are_said_by_the_daemon_itself() {
    let more = "[broker]\nlisten = \"127.0.0.1:0\"\ntls_cert = \"box.pem\"\ntls_key = \"box.key\"\n";
    let site = Site::new("upkeep", more);
    [("box", 5), ("next", 300)].into_iter().for_each(|(name, days)| site.certificate(name, days));
    let daemon = Daemon::start(site.folder());
    let file = site.path("box.pem").display().to_string();
    let certificate = format!("certificate:{file}");
    let level = |status: &Value, part: &str| {
        let of = status["troubles"].as_array().into_iter().flatten().find(|trouble| trouble["part"] == part);
        of.map(|trouble| trouble["level"].as_str().unwrap_or_default().to_owned())
    };
    let stands = |part: &str, wanted: Option<&str>| {
        daemon.wait("/api/v1/status", &format!("{part} {wanted:?}"), |status| level(status, part).as_deref() == wanted)
    };
    let shows = |line: &str| {
        let there = || http::get(daemon.web, "/metrics").body.lines().any(|found| found.starts_with(line));
        daemon.wait("/api/v1/status", line, |_| there());
    };
    stands(&certificate, Some("blue"));
    shows(&format!("anmin_certificate_expiry_timestamp_seconds{{file=\"{file}\"}} 1"));
    shows(&format!("anmin_part_in_trouble{{part=\"{certificate}\",level=\"blue\"}} 1"));

    let backup = |to: &str| {
        let to = site.path(to);
        let ran = Command::new(binary()).arg("backup").args(["--keep", "1"]).arg(to).arg(site.folder()).output();
        ran.expect("the binary can be started").status.success()
    };
    let look = || {
        let told = Command::new("kill").args(["-HUP", &daemon.pid().to_string()]).status();
        assert!(told.expect("kill is there").success());
    };
    assert!(!backup("anmin.toml"), "a file is no folder");
    for ending in ["key", "pem"] {
        std::fs::copy(site.path(&format!("next.{ending}")), site.path(&format!("box.{ending}")))
            .expect("both are ours");
    }
    look();
    stands("backup", Some("blue"));
    stands(&certificate, None);
    assert!(backup("backups"));
    look();
    stands("backup", None);
    shows("anmin_backup_last_success_timestamp_seconds 1");
}

#[test]
fn alive_and_ready_are_two_questions() {
    let site = Site::new("ready", "[broker]\nlisten = \"127.0.0.1:0\"\n");
    let daemon = Daemon::start(site.folder());
    for (path, said) in [("/healthz", "ok"), ("/readyz", "ready")] {
        let answer = http::get(daemon.web, path);
        assert_eq!((answer.status, answer.body.trim()), (200, said), "{path}");
    }
}

/// The log of a daemon to which one alarm comes, in a form.
fn alarmed(site: &Site, form: &str) -> Daemon {
    let mut daemon = Daemon::launch_by(Command::new(binary()).env("ANMIN_LOG", form), site.folder());
    daemon.ready();
    let mut device = Mqtt::connect(daemon.broker.expect("it has a broker").port(), "device");
    for _ in 0..2 {
        device.publish("acceptance/g1/up", json!({ "v": 60.0 }).to_string());
    }
    daemon.alarm("gas/leak", "g1/lel", "it is raised", |_| true);
    daemon
}

#[test]
fn programs_read_the_log_as_json() {
    let site = Site::new("log-json", GAS_AS_IT_SPEAKS);
    let mut daemon = alarmed(&site, "json");
    daemon.until("\"cause\":\"raised\"");
    for line in &daemon.log {
        let entry: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(["time", "severity", "message"].iter().all(|key| entry[key].is_string()), "{line}");
    }
    let raised = daemon.log.iter().find(|line| line.contains("gas/leak")).expect("it was said");
    let raised: Value = serde_json::from_str(raised).expect("checked above");
    assert_eq!((&raised["rule"], &raised["level"]), (&json!("gas/leak"), &json!("red")), "{raised}");
}

/// With a socket of ours in the place of journald.
#[test]
fn journald_gets_each_field_by_its_name() {
    let site = Site::new("log-journal", GAS_AS_IT_SPEAKS);
    let path = site.path("journal");
    let journal = UnixDatagram::bind(&path).expect("the site's folder takes a socket");
    journal.set_read_timeout(Some(DEADLINE)).expect("a socket has this option");
    let hear = |part: &str| loop {
        let mut buffer = [0; 8_192];
        let length = journal.recv(&mut buffer).unwrap_or_else(|error| panic!("{part:?} is not said: {error}"));
        let entry = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if entry.contains(part) {
            return entry;
        }
    };
    let form = format!("journal:{}", path.display());
    let _daemon = Daemon::launch_by(Command::new(binary()).env("ANMIN_LOG", form), site.folder());
    let found = hear("devices find the broker at mqtt://");
    let port = found.split_once("mqtt://127.0.0.1:").and_then(|(_, rest)| rest.split('/').next()?.parse().ok());
    hear("the duty desk is at");
    let mut device = Mqtt::connect(port.unwrap_or_else(|| panic!("{found}")), "device");
    for _ in 0..2 {
        device.publish("acceptance/g1/up", json!({ "v": 60.0 }).to_string());
    }
    let raised = hear("ANMIN_RULE=gas/leak\n");
    for line in ["SYSLOG_IDENTIFIER=anmin", "ANMIN_LEVEL=red", "ANMIN_CAUSE=raised"] {
        assert!(raised.lines().any(|found| found == line), "no {line} in\n{raised}");
    }
    assert!(raised.starts_with("MESSAGE="), "{raised}");
}

/// Goal: the log, which many read and which goes into support bundles, says which alarm stands at which building, and nothing of who
/// lives there or of what people write. Method: words that stand nowhere else, in every place where a site and its people can put
/// them, through an alarm from its first reading to the close of its incident; then the whole log, as sentences and as JSON.
#[test]
fn the_log_finds_an_alarm_and_names_no_resident() {
    let home = r#"
[broker]
listen = "127.0.0.1:0"
  [[broker.mapping]]
  topic = "acceptance/{device}/up"
  payload = "json"
  device = "{device}"

[[device]]
id = "g1"
name = "OSMANTHUS bedside"
profile = "anmin-json-gas"
place = "b1"
unit = "u-LOTUS"
floor = "f-LOTUS"
room = "R-77501"

[[override]]
rule = "gas/leak"
on_delay = "0s"
off_delay = "0s"
"#;
    let never = ["OSMANTHUS", "LOTUS", "R-77501", "1380013", "0000-0000001", "oxygen"];
    for form in ["plain", "json"] {
        let site = Site::new("log-residents", home);
        let mut daemon = alarmed(&site, form);
        let post = |path: &str, body: Value| {
            let answer = http::post(daemon.web, path, &body);
            assert!(answer.status < 300, "{path}: {} {}", answer.status, answer.body);
            answer.json()
        };
        let household = json!({
            "id": "h-LOTUS", "building": "1", "unit": "u-LOTUS", "room": "R-77501", "need": "oxygen", "phone": "13800138000",
            "helper": "OSMANTHUS"
        });
        post("/api/v1/registers/households/rows", json!({ "who": "li", "rows": [household] }));
        let place = json!({ "area": "b1", "building": "1", "room": "R-77501" });
        let case = json!({ "who": "li", "kind": "report", "title": "OSMANTHUS complains", "place": place, "text": "of LOTUS" });
        post("/api/v1/incidents", case);
        let alarm = daemon.alarm("gas/leak", "g1/lel", "raised", |alarm| !alarm["incident"].is_null());
        let id = |key: &str| alarm[key].as_str().expect("it has one").to_owned();
        let (incident, alarm_at) =
            (format!("/api/v1/incidents/{}", id("incident")), format!("/api/v1/alarms/{}", id("id")));
        post(&format!("{incident}/note"), json!({ "who": "li", "text": "OSMANTHUS, 13800138000, is not at home" }));
        post(&format!("{alarm_at}/calls/st-1/decline"), json!({ "who": "li", "why": "with OSMANTHUS in R-77501" }));
        post("/api/v1/stations/st-2/off-duty", json!({ "who": "li", "why": "OSMANTHUS is ill" }));
        let mut device = Mqtt::connect(daemon.broker.expect("it has a broker").port(), "device");
        // It has counted messages that did not come, which is said of it by its name and place.
        for seq in [1, 9, 10] {
            device.publish("acceptance/g1/up", json!({ "v": 0.0, "seq": seq }).to_string());
        }
        daemon.alarm("system/part", "gap:g1", "said", |_| true);
        daemon.wait(&incident, "no gas", |view| view["incident"]["level"].is_null());
        post(&format!("{incident}/close"), json!({ "who": "li", "outcome": "real", "why": "OSMANTHUS left it on" }));
        // What was said before is in the log by then.
        post("/api/v1/rules/reload", json!({ "who": "li" }));
        daemon.until("the site was read anew");
        let raised = daemon.log.iter().find(|line| line.contains("gas/leak")).expect("it was said").clone();
        for part in [&*id("id"), "g1/lel", "red", "Building 1"] {
            assert!(raised.contains(part), "{form}: no {part:?} in {raised}");
        }
        for line in &daemon.log {
            let found = never.iter().find(|word| line.contains(**word));
            assert_eq!(found, None, "{form}: {line}");
        }
    }
}

/// What every screen lives on, by the real daemon.
#[test]
fn the_live_stream_beats_and_tells_of_an_alarm_at_once() {
    let site = Site::new("live", GAS_AS_IT_SPEAKS);
    let daemon = Daemon::start(site.folder());
    let mut stream = TcpStream::connect(daemon.web).expect("the desk listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a stream can be told how long to wait");
    let head = format!("GET /api/v1/events HTTP/1.1\r\nhost: {}\r\n\r\n", daemon.web);
    stream.write_all(head.as_bytes()).expect("the desk reads");
    let mut lines = BufReader::new(stream).lines().map(|line| line.expect("the stream goes on"));
    let mut until = |event: &str| {
        let wanted = format!("event: {event}");
        assert!(lines.any(|line| line == wanted), "the stream ended before {wanted:?}");
    };
    until("hello");
    until("status");
    let mut devices = Mqtt::connect(daemon.broker.expect("the site has a broker").port(), "devices");
    for _ in 0..2 {
        devices.publish("acceptance/flat-1/up", json!({ "v": 60.0 }).to_string());
    }
    until("transition");
    until("call");
}

/// Somebody else has both ports when anmin starts: it watches all the same, says so, and is reached once they are free.
#[test]
fn a_desk_and_a_broker_without_their_ports_are_said_and_opened_later() {
    let site = Site::new("taken-ports", GAS_AS_IT_SPEAKS);
    let ports = [free_port(), free_port()];
    let mut text = std::fs::read_to_string(site.path("anmin.toml")).expect("the site has a configuration");
    for port in ports {
        text = text.replacen("listen = \"127.0.0.1:0\"", &format!("listen = \"127.0.0.1:{port}\""), 1);
    }
    site.write("anmin.toml", &text);
    let taken = ports.map(|port| std::net::TcpListener::bind(("127.0.0.1", port)).expect("it was free a moment ago"));
    let mut daemon = Daemon::launch(site.folder());
    for part in ["web", "broker"] {
        daemon.until(&format!("{part}: cannot listen on 127.0.0.1:"));
    }
    daemon.ready();
    let raised = daemon.until("subject=\"broker\"");
    assert!(raised.contains("orange") && raised.contains("system/part"), "{raised}");
    drop(taken);
    for part in ["web", "broker"] {
        daemon.until(&format!("{part}: one can dial in on 127.0.0.1:"));
        daemon.alarm("system/part", part, "over", |alarm| alarm["state"] == "returned_unacknowledged");
    }
    let broker = daemon.until("devices find the broker at mqtt://");
    let port = ports.into_iter().find(|port| broker.contains(&format!(":{port}/"))).expect("it is one of the two");
    let mut devices = Mqtt::connect(port, "devices");
    for _ in 0..2 {
        devices.publish("acceptance/flat-1/up", json!({ "v": 60.0 }).to_string());
    }
    daemon.alarm("gas/leak", "flat-1/lel", "raised", |_| true);
}
