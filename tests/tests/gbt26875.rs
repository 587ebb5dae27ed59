//! Fire alarm panels by GB/T 26875.3, played by a second implementation of the standard's tables (`peers/panel.py`).

use anmin_tests::daemon::Daemon;
use anmin_tests::peers::{Peer, free_port};
use anmin_tests::site::Site;
use serde_json::{Value, json};

fn site(name: &str, more: &str) -> (Site, u16) {
    let port = free_port();
    let site = Site::new(name, "[storage]\ndir = \"state\"\n");
    site.write(
        "anmin.d/panels.toml",
        &format!(
            r#"
[broker]
listen = "127.0.0.1:0"
[[gbt26875]]
id = "panels"
listen = "127.0.0.1:{port}"
{more}
  [[gbt26875.mapping]]
  preset = "gbt26875"
  unknown = "provision"
  location = {{ place = "b1" }}
"#
        ),
    );
    (site, port)
}

struct Panel(Peer);

impl Panel {
    fn dial(port: u16, address: &str) -> Self {
        let mut peer = Peer::python("panel.py", &["127.0.0.1", &port.to_string(), address]);
        peer.until("connected");
        Self(peer)
    }

    /// The next frame of this command.
    fn answer(&mut self, command: u8) -> Value {
        let line = self.0.until(&format!("\"command\": {command},"));
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}"));
        assert_eq!(said["sound"], true, "{said}");
        said
    }
}

/// Somebody else has the port when anmin starts: all else is watched, it is said, and panels are heard once it is free.
#[test]
fn a_port_that_is_taken_costs_the_panels_behind_it_and_nobody_else() {
    let (site, port) = site("gbt26875-taken", "");
    let take = || std::net::TcpListener::bind(("127.0.0.1", port)).expect("it was free a moment ago");
    let taken = take();
    let daemon = Daemon::start(site.folder());
    daemon.alarm("system/part", "gbt26875:panels", "raised", |alarm| alarm["level"] == "orange");
    daemon.kill();
    drop(taken);
    // The port is free at the next start: what the last run has said is over.
    let daemon = Daemon::start(site.folder());
    daemon.alarm("system/part", "gbt26875:panels", "over", |alarm| alarm["state"] == "returned_unacknowledged");
    daemon.kill();
    let taken = take();
    let daemon = Daemon::start(site.folder());
    let ill = |status: &Value| {
        let troubles = status["troubles"].as_array().into_iter().flatten();
        troubles.filter(|trouble| trouble["part"] == "gbt26875:panels").count() == 1
    };
    daemon.wait("/api/v1/status", "it is said", ill);
    drop(taken);
    daemon.wait("/api/v1/status", "it listens", |status| !ill(status));
    let mut panel = Panel::dial(port, "889");
    panel.0.tell("heartbeat");
    panel.answer(CONFIRM);
}

const CONFIRM: u8 = 3;
const CONTROL: u8 = 1;
const DENY: u8 = 6;

#[test]
fn what_a_panel_reports_becomes_an_alarm_and_is_confirmed_when_it_is_safe() {
    let (site, port) = site("gbt26875", "devices = [\"889\"]\nsilent_after = \"5s\"\n");
    let mut daemon = Daemon::start(site.folder());
    let mut panel = Panel::dial(port, "889");
    panel.0.tell("heartbeat");
    let confirmed = panel.answer(CONFIRM);
    assert_eq!((&confirmed["serial"], &confirmed["to"]), (&json!(1), &json!(889)));
    // It is told the time: type 90, one object, six bytes.
    let unit = panel.answer(CONTROL)["unit"].to_string();
    assert!(unit.starts_with("\"5a01") && unit.len() == 18, "{unit}");

    // Smoke in a stream of three bytes at a time. Bit 0 is clear, "test": an alarm all the same.
    panel.0.tell("slowly");
    panel.0.tell("part 42 1 131082 2");
    assert_eq!(panel.answer(CONFIRM)["serial"], 2);
    let smoke = daemon.alarm("fire/smoke", "889-1-1-131082/smoke", "smoke", |_| true);
    assert_eq!(smoke["place"]["building"], "1");
    // Once more, as after a confirm that was lost: confirmed again, and no other alarm.
    panel.0.tell("again");
    assert_eq!(panel.answer(CONFIRM)["serial"], 2);
    panel.0.tell("analog 74 1 7 6 253");
    panel.answer(CONFIRM);
    daemon.alarm("gas/leak", "889-1-1-7/lel", "25.3 %LEL", |alarm| alarm["reading"]["value"] == 25.3);
    panel.0.tell("part 99 1 8 3");
    panel.answer(CONFIRM);
    daemon.alarm("fire/alarm", "889-1-1-8/fire", "a pressure switch", |alarm| alarm["level"] == "red");
    let list = daemon.get("/api/v1/alarms");
    let count = list["alarms"].as_array().map(|list| list.iter().filter(|alarm| alarm["rule"] == "fire/smoke").count());
    assert_eq!(count, Some(1), "{list:#}");

    // What is damaged is denied and changes nothing; what stands behind it is heard.
    panel.0.tell("damaged");
    panel.answer(DENY);
    panel.0.tell("bytes 4040ffff23");
    panel.0.tell("device 1");
    panel.answer(CONFIRM);

    // After a crash everything that was confirmed is there.
    daemon.kill();
    daemon = Daemon::start(site.folder());
    daemon.alarm("fire/smoke", "889-1-1-131082/smoke", "smoke", |_| true);
    // Nobody dials in any more, and somebody is told.
    let silent = daemon.wait("/api/v1/status", "silence", |status| {
        let troubles = status["troubles"].as_array();
        troubles.is_some_and(|list| list.iter().any(|part| part["part"] == "gbt26875:panels/889"))
    });
    assert!(silent.to_string().contains("从未接入"), "{silent:#}");
    let mut back = Panel::dial(port, "889");
    back.0.tell("heartbeat");
    back.answer(CONFIRM);
    daemon.wait("/api/v1/status", "it speaks again", |status| {
        status["troubles"].as_array().is_some_and(|list| !list.iter().any(|part| part["part"] == "gbt26875:panels/889"))
    });
}

#[test]
fn who_is_not_listed_is_let_go_and_heard_by_nobody() {
    let (site, port) = site("gbt26875-strange", "devices = [\"889\"]\n");
    let daemon = Daemon::start(site.folder());
    let mut stranger = Panel::dial(port, "890");
    stranger.0.tell("part 42 1 1 3");
    stranger.0.until("closed");
    assert_eq!(daemon.get("/api/v1/points")["points"], json!([]));
}

/// Both are heard, whatever they say by turns, and somebody is told that they are two.
#[test]
fn two_devices_with_one_address_are_heard_and_told_to_be_two() {
    let (site, port) = site("gbt26875-twice", "");
    let daemon = Daemon::start(site.folder());
    let mut panels = [Panel::dial(port, "889"), Panel::dial(port, "889")];
    // Their serial numbers are the same, too, and what the one says in pieces stands between what the other says whole.
    panels[0].0.tell("slowly");
    for (n, part) in [(0, 1), (1, 2), (0, 3), (1, 4)] {
        panels[n].0.tell(&format!("part 42 1 {part} 3"));
        panels[n].answer(CONFIRM);
    }
    for part in 1..=4 {
        daemon.alarm("fire/smoke", &format!("889-1-1-{part}/smoke"), "heard", |_| true);
    }
    daemon.alarm("system/part", "gbt26875:panels/889/twice", "told", |alarm| alarm["level"] == "orange");
}
