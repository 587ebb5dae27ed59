//! Sirens: a coil of pymodbus and a device at Mosquitto that really go on and off, with units that are dead, brokers that are away
//! and a daemon that is killed while they sound.

use std::process::Command;
use std::time::{Duration, Instant};

use anmin_tests::daemon::{DEADLINE, Daemon, anmin, pause};
use anmin_tests::http;
use anmin_tests::mqtt::Mqtt;
use anmin_tests::peers::{Mosquitto, Peer};
use anmin_tests::site::{GAS_AS_IT_SPEAKS, Site};
use serde_json::json;

/// At once, one alarm a detector, and over as soon as it is.
const AT_ONCE: &str = "[[override]]\nrule = \"gas/leak\"\non_delay = \"0s\"\noff_delay = \"0s\"\n\
    [[override]]\nrule = \"gas/several_rooms\"\nenabled = false\n\
    [[override]]\nrule = \"gas/rising\"\nenabled = false\n";

const PROFILE: &str = r#"
id = "plant-relay"
title = { zh = "试验继电器", en = "test relay" }
[[point]]
name = "humidity"
kind = "env.humidity"
register = "holding"
address = 0
scale = 0.1
"#;

/// The relay of `peers/modbus_sim.py`: coil 5 is the horn.
const RELAY: &str = r#"
[[bus]]
id = "plant"
transport = "tcp"
host = "127.0.0.1"
port = PORT
timeout = "300ms"
[[device]]
id = "relay"
profile = "plant-relay"
place = "b1"
bus = "plant"
unit_id = 1
interval = "100ms"
[[output]]
id = "b1-horn"
device = "relay"
address = 5
settle = "50ms"
"#;

/// A site that means what it says, whose horn is coil 5 of a relay.
struct Building {
    site: Site,
    port: String,
    relay: Option<Peer>,
}

impl Building {
    fn new(name: &str, horn: &str) -> Self {
        let mut building = Self { site: Site::new(name, ""), port: String::new(), relay: None };
        building.power();
        let head = std::fs::read_to_string(building.site.path("anmin.toml")).expect("it was written");
        building.site.write("anmin.toml", &head.replace("exercise = true", "exercise = false"));
        building.site.write("profiles/plant-relay.toml", PROFILE);
        let relay = RELAY.replace("PORT", &building.port);
        let siren = format!("[[siren]]\nid = \"horn\"\noutput = \"b1-horn\"\nclasses = [\"gas\", \"fire\"]\n{horn}\n");
        building.site.write("anmin.d/all.toml", &format!("{GAS_AS_IT_SPEAKS}{AT_ONCE}{relay}{siren}"));
        building
    }

    /// Starts the relay, on the port that it had.
    fn power(&mut self) {
        let words = ["tcp", &self.port];
        let (relay, port) = Peer::ready("modbus_sim.py", if self.port.is_empty() { &words[..1] } else { &words });
        (self.relay, self.port) = (Some(relay), port);
    }

    /// The relay hears nothing and says nothing until it goes on.
    fn signal(&self, signal: &str) {
        let pid = self.relay.as_ref().expect("it runs").pid().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status();
        assert!(sent.is_ok_and(|status| status.success()));
    }

    fn mbpoll(&self, words: &[&str]) -> String {
        let common = ["-m", "tcp", "-p", &self.port, "-1", "-a", "1", "-t", "0", "-r", "6", "127.0.0.1"];
        let ran = Command::new("mbpoll").args(common).args(words).output().expect("mbpoll; see tests/setup.sh");
        String::from_utf8_lossy(&ran.stdout).into_owned()
    }

    /// Whether the horn sounds, as another master sees it.
    fn sounds(&self) -> bool {
        let text = self.mbpoll(&[]);
        let line = text.lines().find_map(|line| line.strip_prefix("[6]:"));
        line.unwrap_or_else(|| panic!("mbpoll read nothing: {text}")).trim() == "1"
    }

    fn until(&self, sounds: bool) {
        let deadline = Instant::now() + DEADLINE;
        while self.sounds() != sounds {
            assert!(Instant::now() < deadline, "the horn should be {}", if sounds { "on" } else { "off" });
            pause();
        }
    }

    /// For so long nothing changes.
    fn stays(&self, sounds: bool, wait: Duration) {
        let until = Instant::now() + wait;
        while Instant::now() < until {
            assert_eq!(self.sounds(), sounds);
            pause();
        }
    }
}

fn says(daemon: &Daemon, device: &str, lel: f64, seq: u32) {
    let mut mqtt = Mqtt::connect(daemon.broker.expect("it has a broker").port(), "device");
    mqtt.publish_all([(format!("acceptance/{device}/up"), json!({ "v": lel, "seq": seq }).to_string().into_bytes())]);
}

/// A red alarm; gives its id.
fn raise(daemon: &Daemon, device: &str) -> String {
    says(daemon, device, 60.0, 1);
    let alarm = daemon.alarm("gas/leak", &format!("{device}/lel"), "red", |alarm| alarm["level"] == "red");
    alarm["id"].as_str().expect("it has an id").to_owned()
}

fn acknowledge(daemon: &Daemon, alarm: &str) {
    let answer = http::post(daemon.web, &format!("/api/v1/alarms/{alarm}/acknowledge"), &json!({ "who": "li" }));
    assert_eq!(answer.status, 200, "{}", answer.json());
}

/// What the horn has said to the orders of an alarm's incident, once it is as wanted.
fn receipts(daemon: &Daemon, alarm: &str, wanted: &[&str]) {
    let found =
        daemon.wait(&format!("/api/v1/alarms/{alarm}"), "its incident", |found| found["alarm"]["incident"].is_string());
    let incident = found["alarm"]["incident"].as_str().expect("it has one");
    let of_horn = |found: &serde_json::Value| -> Vec<String> {
        let all = found["messages"].as_array().into_iter().flatten().filter(|message| message["form"] == "siren");
        all.map(|message| format!("{} {}", message["state"], message["receipt"]).replace('"', "")).collect()
    };
    let path = format!("/api/v1/incidents/{incident}/messages");
    daemon.wait(&path, &format!("{wanted:?}"), |found| of_horn(found) == wanted);
}

#[test]
fn a_horn_sounds_for_what_is_red_until_somebody_has_acknowledged_all_of_it() {
    let building = Building::new("siren", "");
    let daemon = Daemon::start(building.site.folder());
    says(&daemon, "g1", 30.0, 0);
    daemon.alarm("gas/leak", "g1/lel", "orange", |alarm| alarm["level"] == "orange");
    assert!(!building.sounds(), "it is for red alone");
    let first = raise(&daemon, "g1");
    building.until(true);
    receipts(&daemon, &first, &["delivered on, read back"]);
    let second = raise(&daemon, "g2");
    acknowledge(&daemon, &first);
    building.stays(true, Duration::from_secs(1));
    acknowledge(&daemon, &second);
    building.until(false);
    let goes_on = "delivered goes on for another alarm: on, read back";
    receipts(&daemon, &first, &["delivered on, read back", goes_on]);
    receipts(&daemon, &second, &["delivered on, read back", "delivered off, read back"]);
}

/// The hand wins until the next order.
#[test]
fn whoever_switches_it_off_by_hand_has_quiet_until_the_next_alarm() {
    let building = Building::new("siren-hand", "");
    let daemon = Daemon::start(building.site.folder());
    raise(&daemon, "g1");
    building.until(true);
    let url = format!("http://{}", daemon.web);
    let run = |line: &str| {
        let ran = anmin(&["output"].into_iter().chain(line.split(' ')).chain(["--url", &url]).collect::<Vec<_>>());
        let said = String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned();
        assert!(ran.status.success(), "{line}: {said}");
        said
    };
    let said = run("arm b1-horn off --why 已疏散 --who li");
    let code = said.split("--code ").nth(1).expect("the code is said").trim();
    run(&format!("do b1-horn off --who li --code {code}"));
    building.stays(false, Duration::from_secs(13));
    raise(&daemon, "g2");
    building.until(true);
}

#[test]
fn a_unit_that_is_dead_when_the_horn_should_end_is_told_until_it_shows_it() {
    let mut building = Building::new("siren-dead", "deliver_within = \"5s\"");
    let daemon = Daemon::start(building.site.folder());
    let alarm = raise(&daemon, "g1");
    building.until(true);
    receipts(&daemon, &alarm, &["delivered on, read back"]);
    building.signal("-STOP");
    acknowledge(&daemon, &alarm);
    daemon.alarm("system/part", "way-out:horn", "it is said", |alarm| alarm["state"] != "normal");
    building.signal("-CONT");
    building.until(false);
    building.stays(false, Duration::from_secs(1));
    receipts(&daemon, &alarm, &["delivered on, read back", "delivered off, read back"]);
    // Its power fails while it sounds: it sounds again when it is back.
    raise(&daemon, "g2");
    building.until(true);
    building.relay = None;
    building.power();
    building.until(true);
}

#[test]
fn a_daemon_that_is_killed_while_the_horn_sounds_ends_it_in_time() {
    let building = Building::new("siren-killed", "for = \"20s\"");
    // Left on by nobody knows whom.
    building.mbpoll(&["1"]);
    assert!(building.sounds());
    let daemon = Daemon::start(building.site.folder());
    building.until(false);
    raise(&daemon, "g1");
    building.until(true);
    let begun = Instant::now();
    daemon.kill();
    assert!(building.sounds());
    let daemon = Daemon::start(building.site.folder());
    daemon.alarm("gas/leak", "g1/lel", "it stands", |alarm| alarm["level"] == "red");
    building.until(false);
    let sounded = begun.elapsed();
    assert!((17..=25).contains(&sounded.as_secs()), "it sounded for {sounded:?}");
    let alarm = raise(&daemon, "g2");
    building.until(true);
    receipts(&daemon, &alarm, &["delivered on, read back"]);
    // Down for longer than it may sound.
    daemon.kill();
    std::thread::sleep(Duration::from_secs(21));
    assert!(building.sounds());
    let daemon = Daemon::start(building.site.folder());
    building.until(false);
    building.stays(false, Duration::from_secs(2));
    receipts(&daemon, &alarm, &["delivered on, read back", "delivered off, read back"]);
}

#[test]
fn an_exercise_sounds_nothing() {
    let building = Building::new("siren-exercise", "");
    let file = std::fs::read_to_string(building.site.path("anmin.toml")).expect("it was written");
    building.site.write("anmin.toml", &file.replace("exercise = false", "exercise = true"));
    let daemon = Daemon::start(building.site.folder());
    raise(&daemon, "g1");
    building.stays(false, Duration::from_secs(3));
}

#[test]
fn a_siren_at_a_broker_hears_on_and_off_although_the_broker_was_away() {
    let site = Site::new("siren-mqtt", "");
    let mut mosquitto = Mosquitto::start(&site);
    let head = std::fs::read_to_string(site.path("anmin.toml")).expect("it was written");
    site.write("anmin.toml", &head.replace("exercise = true", "exercise = false"));
    let out = format!(
        "[[mqtt_out]]\nid = \"site\"\nurl = \"mqtt://127.0.0.1:{}\"\n[[siren]]\nid = \"horn\"\nmqtt_out = \"site\"\n\
         topic = \"b1/horn/set\"\npayload_on = '{{\"warning\":\"fire\"}}'\npayload_off = \"OFF\"\n",
        mosquitto.port
    );
    site.write("anmin.d/all.toml", &format!("{GAS_AS_IT_SPEAKS}{AT_ONCE}{out}"));
    let listen = |mosquitto: &Mosquitto| {
        let mut mqtt = Mqtt::connect(mosquitto.port, "horn");
        mqtt.subscribe("b1/horn/set");
        mqtt
    };
    let mut horn = listen(&mosquitto);
    let daemon = Daemon::start(site.folder());
    horn.next("off at the start", |publish| publish.payload[..] == *b"OFF");
    let alarm = raise(&daemon, "g1");
    horn.next("on", |publish| publish.payload[..] == *br#"{"warning":"fire"}"#);
    receipts(&daemon, &alarm, &["accepted on, acknowledged by the broker"]);
    mosquitto.kill();
    acknowledge(&daemon, &alarm);
    mosquitto.run();
    let mut horn = listen(&mosquitto);
    let next = horn.next("off", |_| true);
    assert_eq!(next.payload[..], *b"OFF", "nothing sounds it any more");
    receipts(&daemon, &alarm, &["accepted on, acknowledged by the broker", "accepted off, acknowledged by the broker"]);
}

#[test]
fn a_siren_that_could_not_sound_is_a_fault_of_the_site() {
    let building = Building::new("siren-faults", "");
    let check = || {
        let ran = anmin(&["check", &building.site.folder().display().to_string()]);
        String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned()
    };
    let said = check();
    assert!(
        said.contains("sound.") && said.contains("siren horn: output b1-horn, red and above (gas, fire)"),
        "{said}"
    );
    let output = |more: &str| format!("[[output]]\nid = \"more\"\ndevice = \"relay\"\naddress = 6\n{more}\n");
    for (stanza, wanted) in [
        ("output = \"b1-hron\"".to_owned(), "did you mean `b1-horn`"),
        ("output = \"b1-horn\"".to_owned(), "which siren \"horn\" switches"),
        (format!("output = \"more\"\n{}", output("may = [\"off\"]")), "may not be switched both on and off"),
        (
            format!("output = \"more\"\n{}", output("[[output.interlock]]\npoint = \"relay/humidity\"\nbelow = 1")),
            "which has an interlock",
        ),
        (
            "mqtt_out = \"nobody\"\ntopic = \"t\"\npayload_on = \"1\"\npayload_off = \"0\"".to_owned(),
            "which is no [[mqtt_out]]",
        ),
        ("".to_owned(), "needs either `output` or `mqtt_out`"),
        (format!("output = \"more\"\nareas = [\"b9\"]\n{}", output("")), "no place, grid or building"),
        (format!("output = \"more\"\nthen = [\"b9\"]\n{}", output("")), "which is no other [[siren]]"),
    ] {
        building.site.write("anmin.d/more.toml", &format!("[[siren]]\nid = \"second\"\n{stanza}\n"));
        let said = check();
        assert!(said.contains(wanted) && said.contains("anmin.d/more.toml:"), "{stanza}: {said}");
    }
}
