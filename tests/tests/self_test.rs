//! anmin watches itself: a synthetic reading travels the real path, and what comes back of it is what systemd, the
//! operator and the emergency office are told.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anmin_tests::daemon::{DEADLINE, Daemon, binary, pause};
use anmin_tests::http;
use anmin_tests::mqtt::Mqtt;
use anmin_tests::site::{GAS_AS_IT_SPEAKS, Site};
use serde_json::Value;

/// The value of a figure at `/metrics`.
fn figure(daemon: &Daemon, name: &str) -> Option<f64> {
    let text = http::get(daemon.web, "/metrics").body;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// As systemd starts it, with a socket of ours to be told at.
fn told_to(socket: &Path, site: &Site) -> Daemon {
    let mut daemon = Daemon::launch_by(Command::new(binary()).env("NOTIFY_SOCKET", socket), site.folder());
    daemon.ready();
    daemon
}

#[test]
fn systemd_hears_that_it_is_ready_that_it_lives_and_that_it_stops() {
    let site = Site::new("notify", GAS_AS_IT_SPEAKS);
    let path = site.path("notify");
    let systemd = UnixDatagram::bind(&path).expect("the site's folder takes a socket");
    systemd.set_read_timeout(Some(DEADLINE)).expect("a socket has this option");
    let hear = || {
        let mut buffer = [0; 1_024];
        let length = systemd.recv(&mut buffer).expect("it is told in time");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let daemon = told_to(&path, &site);
    let standing = "STATUS=watching 0 points of 0 devices; alarms open: 0";
    let first = hear();
    assert!(first.starts_with("READY=1\nWATCHDOG=1\nSTATUS="), "only once the first beat has come through: {first}");
    assert_eq!(hear().trim(), format!("WATCHDOG=1\n{standing}"), "and again with the next");

    let latency = figure(&daemon, "anmin_pulse_latency_seconds").expect("a beat came through");
    assert!(latency > 0.0 && latency < 15.0, "{latency} s");
    assert_eq!(figure(&daemon, "anmin_pulse_failed_total"), Some(0.0));
    assert!(figure(&daemon, "anmin_pulse_last_success_timestamp_seconds") > Some(1.7e9));
    let points = daemon.get("/api/v1/points");
    assert_eq!(points["points"].as_array().map(Vec::len), Some(0), "nothing of it shows among the community's points");

    assert_eq!(daemon.terminate(), Some(0));
    let mut last = hear();
    while last.starts_with("WATCHDOG=1") {
        last = hear();
    }
    assert_eq!(last.trim(), "STOPPING=1");
}

/// Method: another process holds the write lock of state.db for longer than a beat may take.
#[test]
fn a_disk_that_does_not_answer_is_named_and_the_watchdog_is_fed_all_the_same() {
    let site = Site::new("slow-disk", GAS_AS_IT_SPEAKS);
    let path = site.path("notify");
    let systemd = UnixDatagram::bind(&path).expect("the site's folder takes a socket");
    systemd.set_read_timeout(Some(DEADLINE)).expect("a socket has this option");
    let mut daemon = told_to(&path, &site);
    daemon.wait("/api/v1/status", "the first beat", |_| figure(&daemon, "anmin_pulse_latency_seconds").is_some());

    let lock = rusqlite::Connection::open(site.path("data/state.db")).expect("the daemon has made it");
    lock.execute_batch("BEGIN IMMEDIATE").expect("the lock is free for a moment");
    daemon.alarm("system/part", "self-test", "it is raised", |alarm| {
        alarm["message"]["en"].as_str().is_some_and(|said| said.contains("the journal's write to disk"))
    });
    daemon.until("the self-test did not come through");
    let mut buffer = [0; 1_024];
    let deadline = Instant::now() + DEADLINE;
    while systemd.recv(&mut buffer).is_ok_and(|length| !buffer[..length].starts_with(b"WATCHDOG=1")) {
        assert!(Instant::now() < deadline, "the watchdog is not fed");
    }
    lock.execute_batch("ROLLBACK").expect("the lock is ours");
    let deadline = Instant::now() + DEADLINE;
    while daemon.get("/api/v1/status")["troubles"].as_array().is_some_and(|troubles| !troubles.is_empty()) {
        assert!(Instant::now() < deadline, "the trouble stays: {}", daemon.get("/api/v1/status"));
        pause();
    }
}

/// Goal: whoever listens at the broker knows that the box is alive, and would know that it is not.
#[test]
fn a_heartbeat_tells_the_emergency_office_that_the_box_lives() {
    let site =
        Site::new("heartbeat", &format!("{GAS_AS_IT_SPEAKS}\n[[mqtt_out]]\nid = \"office\"\nbroker = \"embedded\"\n"));
    let daemon = Daemon::start(site.folder());
    let port = daemon.broker.expect("the site has a broker").port();
    let mut office = Mqtt::connect(port, "office");
    office.subscribe("anmin/v1/acceptance/heartbeat");
    let told = office.next("the heartbeat", |publish| publish.topic == "anmin/v1/acceptance/heartbeat");
    let beat: Value = serde_json::from_slice(&told.payload).expect("it is JSON");
    assert_eq!((&beat["type"], &beat["sequence"]), (&"heartbeat".into(), &1.into()), "{beat}");
    assert_eq!((&beat["every_seconds"], &beat["alarms"]["open"]), (&30.into(), &0.into()), "{beat}");
    assert_eq!(beat["troubles"].as_array().map(Vec::len), Some(0), "{beat}");
}
