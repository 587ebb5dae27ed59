//! The box at its worst: a disk filled to the brim, one that cannot be written, no file handles left, a wall clock that
//! leaps by decades, a broker killed. Each time alarms still go out, what is ill is said, and anmin recovers by itself.
//!
//! Disks are file systems in memory of a few MiB, mounted in a namespace of the daemon's own (`unshare -rm`), which needs
//! no privilege where the kernel lets users have namespaces; where it does not, the story says so and is left out.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anmin_tests::daemon::{DEADLINE, Daemon, binary, pause};
use anmin_tests::mqtt::Mqtt;
use anmin_tests::peers::{CapReceiver, Mosquitto, text};
use anmin_tests::site::Site;
use anmin_tests::storm;
use serde_json::{Value, json};

/// A site on Mosquitto with the rule of storms, which has no delays, and CAP to `cap`.
fn site(name: &str, broker: impl FnOnce(&Site) -> Mosquitto, cap: &str) -> (Site, Mosquitto) {
    let site = Site::new(name, "[storage]\ndir = \"state\"\n");
    let broker = broker(&site);
    site.write("state/.keep", "");
    site.write("rules/storm/gas.toml", storm::RULE_TOML);
    site.write("rules/storm/gas.rhai", storm::RULE_RHAI);
    site.write(
        "anmin.d/all.toml",
        &format!(
            r#"{}
[desk]
call_level = "red"
[[mqtt]]
id = "site"
url = "mqtt://127.0.0.1:{port}"
max_reconnect_interval = "1s"
  [[mqtt.mapping]]
  topic = "acceptance/{{device}}/up"
  payload = "json"
  device = "{{device}}"
  unknown = "provision"
  profile = "anmin-json-gas"
  location = {{ place = "b1" }}
[[mqtt_out]]
id = "alarms"
url = "mqtt://127.0.0.1:{port}"
[[cap]]
id = "office"
url = "{cap}"
min_level = "orange"
sender = "acceptance.anmin.example.cn"
status = "exercise"
"#,
            storm::ONLY_THE_STORM,
            port = broker.port,
        ),
    );
    (site, broker)
}

/// Devices on one end, somebody who listens to the alarm stream on the other.
struct World {
    devices: Mqtt,
    stream: Mqtt,
    /// Events that nobody has asked about.
    heard: Vec<Value>,
    sequence: u64,
}

impl World {
    fn around(broker: &Mosquitto) -> Self {
        let (devices, mut stream) = (Mqtt::connect(broker.port, "devices"), Mqtt::connect(broker.port, "stream"));
        stream.subscribe("anmin/v1/acceptance/alarm/+/+/#");
        Self { devices, stream, heard: Vec::new(), sequence: 0 }
    }

    /// A reading without a time of its own.
    fn say(&mut self, device: &str, value: f64) {
        self.sequence += 1;
        let payload = json!({ "v": value, "seq": self.sequence }).to_string();
        self.devices.publish(&format!("acceptance/{device}/up"), payload);
    }

    /// The first event about `subject` with this cause that was not asked about before.
    fn hears(&mut self, subject: &str, cause: &str) -> Value {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let wanted = |said: &Value| said["subject"] == subject && said["change"]["cause"] == cause;
            if let Some(at) = self.heard.iter().position(wanted) {
                return self.heard.remove(at);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the stream did not say {subject} {cause}, but {:#?}", self.heard);
            let events = self.stream.take(left).into_iter().filter(|publish| publish.topic.ends_with("/event"));
            self.heard.extend(events.filter_map(|publish| serde_json::from_slice(&publish.payload).ok()));
        }
    }

    /// Gas at a device, and the alarm about it.
    fn raises(&mut self, device: &str) -> Value {
        self.say(device, 30.0);
        self.hears(&format!("{device}/lel"), "raised")
    }
}

fn is_ill(status: &Value, part: &str) -> bool {
    status["troubles"].as_array().into_iter().flatten().any(|trouble| trouble["part"] == part)
}

/// The daemon with a file system of its own at the site's `state`; `None` where the kernel forbids it.
fn with_a_disk(site: &Site, options: &str) -> Option<Daemon> {
    let tried = Command::new("unshare").args(["-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]).output();
    let refused = match tried {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Some(error.to_string()),
    };
    if let Some(why) = refused {
        println!("left out: the kernel gives us no mount namespace: {why}");
        return None;
    }
    let state = site.path("state");
    let script =
        format!("mount -t tmpfs -o {options} tmpfs '{}' && exec '{}' \"$@\"", state.display(), binary().display());
    let mut daemon = Daemon::launch_by(Command::new("unshare").args(["-rm", "sh", "-c", &script, "sh"]), site.folder());
    daemon.ready();
    Some(daemon)
}

/// A path as the daemon sees it.
fn inside(daemon: &Daemon, path: &Path) -> PathBuf {
    PathBuf::from(format!("/proc/{}/root{}", daemon.pid(), path.display()))
}

/// Writes until nothing more goes in; gives what went in.
fn fill(file: &mut File) -> usize {
    let mut written = 0;
    for size in [1 << 16, 1 << 12, 1] {
        while let Ok(more) = file.write(&vec![0x55; size])
            && more > 0
        {
            written += more;
        }
    }
    written
}

#[test]
fn on_a_full_disk_alarms_go_out_it_is_said_and_room_heals_it() {
    let mut cap = CapReceiver::start(&[]);
    let (site, broker) = site("full-disk", Mosquitto::start, &cap.url);
    let Some(mut daemon) = with_a_disk(&site, "size=24m") else { return };
    daemon.until("is subscribed to");
    let mut world = World::around(&broker);
    world.raises("before");
    cap.next("Alert");

    let path = inside(&daemon, &site.path("state/filler"));
    let mut filler =
        OpenOptions::new().create(true).append(true).open(&path).expect("the daemon's disk can be reached");
    assert!(fill(&mut filler) > 1 << 20);
    // Until anmin has given up its reserve and that is full, too; each alarm on the way goes out all the same.
    let deadline = Instant::now() + DEADLINE;
    let mut raised = Vec::new();
    loop {
        raised.push(world.raises(&format!("full{}", raised.len())));
        fill(&mut filler);
        let status = daemon.get("/api/v1/status");
        if is_ill(&status, "store:state") && is_ill(&status, "store:readings") {
            break;
        }
        assert!(Instant::now() < deadline, "{status:#}");
    }
    world.hears("store:state", "raised");
    // Now nothing at all can be written.
    raised.push(world.raises("worst"));
    for _ in &raised {
        let alert = cap.next("Alert");
        assert_eq!(alert["ok"], true, "{alert}");
    }

    drop(filler);
    fs::remove_file(&path).expect("the filler is ours");
    daemon.wait("/api/v1/status", "both databases are well and everything has left", |status| {
        !is_ill(status, "store:state") && !is_ill(status, "store:readings") && status["orders_waiting"] == 0
    });
    // What went out from memory has found its way into the journal, and work goes on.
    raised.push(world.raises("after"));
    for alarm in &raised {
        let id = alarm["alarm"].as_str().expect("an alarm has an id");
        daemon.wait(&format!("/api/v1/alarms/{id}/transitions"), "its raising is journaled", |journal| {
            journal.as_array().is_some_and(|rows| !rows.is_empty())
        });
    }
    // Every reading that came meanwhile: acknowledged at last, and kept.
    for n in 0..raised.len() - 2 {
        daemon.wait(&format!("/api/v1/points/full{n}/lel/history"), "the reading is kept", |history| {
            history.as_array().is_some_and(|buckets| !buckets.is_empty())
        });
    }
}

#[test]
fn on_a_disk_that_cannot_be_written_alarms_go_out_and_it_is_said() {
    let mut cap = CapReceiver::start(&[]);
    let (site, broker) = site("read-only", Mosquitto::start, &cap.url);
    let Some(mut daemon) = with_a_disk(&site, "size=24m,ro") else { return };
    daemon.until("is subscribed to");
    let mut world = World::around(&broker);
    daemon.wait("/api/v1/status", "both databases are said to be away", |status| {
        is_ill(status, "store:state") && is_ill(status, "store:readings")
    });
    // More than a broker's window of twenty: what cannot be made safe is acknowledged after a while all the same.
    for n in 0..25 {
        world.raises(&format!("g{n}"));
        assert_eq!(cap.next("Alert")["ok"], true);
    }
    world.say("g1", 1.0);
    world.hears("g1/lel", "returned");
}

#[test]
fn without_file_handles_alarms_go_out_and_the_desk_comes_back_with_them() {
    let mut cap = CapReceiver::start(&[]);
    let (site, broker) = site("handles", Mosquitto::start, &cap.url);
    let mut daemon = Daemon::start(site.folder());
    daemon.until("is subscribed to");
    let mut world = World::around(&broker);
    world.raises("before");
    cap.next("Alert");

    let pid = daemon.pid().to_string();
    let limit = |soft: &str| {
        let limit = format!("--nofile={soft}:");
        let done = Command::new("prlimit").args(["--pid", &pid, &limit]).status();
        assert!(done.is_ok_and(|status| status.success()));
    };
    // No number below 8 is free: nothing more can be opened.
    limit("8");
    let _visitor = TcpStream::connect(daemon.web).expect("the kernel lets it wait");
    daemon.until("Too many open files");
    for n in 0..5 {
        world.raises(&format!("without{n}"));
    }
    limit("1024");
    // The desk answers again, and what needed a connection of its own is sent.
    let deadline = Instant::now() + DEADLINE;
    while anmin_tests::http::request(daemon.web, "GET", "/healthz", "").is_err() {
        assert!(Instant::now() < deadline, "the desk does not come back");
        pause();
    }
    for _ in 0..5 {
        assert_eq!(cap.next("Alert")["ok"], true);
    }
    daemon.wait("/api/v1/status", "everything has left", |status| status["orders_waiting"] == 0);
}

/// Quality and reason of what is stored of a device, as soon as it is so many readings.
fn marks(site: &Site, device: &str, count: usize) -> Vec<String> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let mut command = Command::new(binary());
        command.arg("export").arg(site.folder()).args([
            "--device",
            device,
            "--from",
            "1970-01-01",
            "--to",
            "2200-01-01",
        ]);
        let csv = command.output().expect("anmin runs").stdout;
        let lines: Vec<String> = String::from_utf8_lossy(&csv).lines().skip(1).map(str::to_owned).collect();
        if lines.len() >= count {
            let columns =
                |line: String| line.splitn(11, ',').nth(10).unwrap_or_default().trim_end_matches(',').to_owned();
            return lines.into_iter().map(columns).collect();
        }
        assert!(Instant::now() < deadline, "{count} readings of {device} are not stored: {lines:?}");
        pause();
    }
}

/// Steps of the wall clock from now, in seconds.
fn steps() -> Vec<(&'static str, i64)> {
    let now = storm::now_ms() / 1_000;
    vec![
        ("1970", 100_000 - now),
        ("now", 0),
        // The last seconds of 32 bits, and those behind them.
        ("2038", 2_147_483_645 - now),
        ("2106", 4_294_967_293 - now),
        ("an hour ago", -3_600),
        ("now again", 0),
    ]
}

#[test]
fn a_wall_clock_that_leaps_moves_no_delay_raises_nothing_old_and_breaks_no_id() {
    const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
    const DELAY: Duration = Duration::from_millis(1_500);
    let library =
        [LIBRARY, &LIBRARY.replace("x86_64", "aarch64")].into_iter().map(PathBuf::from).find(|path| path.is_file());
    let library = library.expect("libfaketime is there; see tests/setup.sh");
    let mut cap = CapReceiver::start(&[]);
    let (site, broker) = site("clock", Mosquitto::start, &cap.url);
    site.write(
        "anmin.d/delay.toml",
        "[[override]]\nrule = \"storm/gas\"\non_delay = \"1500ms\"\noff_delay = \"1500ms\"\n",
    );
    let offset = site.path("offset");
    let set = |seconds: i64| {
        // Whole at every instant, for it is read at every look at the clock.
        let new = site.path("offset.new");
        fs::write(&new, format!("{seconds:+}\n"))
            .and_then(|()| fs::rename(&new, &offset))
            .expect("the site can be written");
    };
    set(0);
    let launch = || {
        let mut command = Command::new(binary());
        command
            .env("LD_PRELOAD", &library)
            .env("FAKETIME_TIMESTAMP_FILE", &offset)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        let mut daemon = Daemon::launch_by(&mut command, site.folder());
        daemon.ready();
        daemon.until("is subscribed to");
        daemon
    };
    let mut daemon = launch();
    let mut world = World::around(&broker);
    let mut ids = std::collections::BTreeSet::new();
    for (n, (year, seconds)) in steps().into_iter().enumerate() {
        let device = format!("g{n}");
        // Behind what has been already; after 2106 everything is.
        let behind = ["1970", "an hour ago", "now again"].contains(&year);
        // In the middle of the delay the clock leaps.
        for (value, cause) in [(30.0, "raised"), (1.0, "returned")] {
            set(if cause == "raised" { seconds } else { seconds + 7 });
            let since = Instant::now();
            world.say(&device, value);
            set(seconds);
            let said = world.hears(&format!("{device}/lel"), cause);
            let took = since.elapsed();
            assert!(took >= DELAY && took < DELAY * 4, "{year}: {cause} after {took:?}");
            assert_eq!(said["clock_doubtful"], behind, "{year}: {cause}: {said:#}");
            if cause == "raised" {
                assert!(ids.insert(said["alarm"].to_string()), "{said:#}");
            }
        }
        let status = daemon.get("/api/v1/status");
        let told = status["troubles"].as_array().is_some_and(|list| list.iter().any(|part| part["part"] == "clock"));
        assert_eq!((status["clock_doubtful"].as_bool(), told), (Some(behind), behind), "{year}: {status:#}");
        let marks = marks(&site, &device, 2);
        assert!(marks.iter().all(|mark| (mark == "uncertain,clock_skew") == behind), "{year}: {marks:?}");
        let list = daemon.get("/api/v1/alarms");
        let hazards = list["alarms"].as_array().into_iter().flatten().filter(|alarm| alarm["rule"] == storm::RULE);
        assert_eq!(hazards.count(), n + 1, "{year}: nothing but what was raised: {list:#}");
        if n % 2 == 1 {
            // A restart in between: the same alarms and no other. Over a restart deadlines go on by the wall clock, none
            // longer than its period: a step of a checklist may be called late too early, and never too late.
            daemon.kill();
            daemon = launch();
            let again = daemon.get("/api/v1/alarms");
            let standing = |list: &Value| {
                let alarms = list["alarms"].as_array().into_iter().flatten();
                let alarms = alarms.filter(|alarm| alarm["rule"] != "system/plan");
                alarms.map(|alarm| format!("{} {}", alarm["rule"], alarm["subject"])).collect::<Vec<_>>()
            };
            assert_eq!(standing(&again), standing(&list), "{year}: {again:#}");
        }
    }
    let told: Vec<Value> = steps().iter().map(|_| cap.next("Alert")).collect();
    let identifiers: std::collections::BTreeSet<String> =
        told.iter().map(|alert| alert["identifier"].to_string()).collect();
    assert_eq!(identifiers.len(), told.len());
    assert!(told.iter().all(|alert| alert["ok"] == true), "{told:#?}");
    assert!(text(&site.path("offset")).starts_with("+0"));
}

#[test]
fn a_killed_broker_that_forgets_everything_costs_no_alarm_that_anmin_knew_of() {
    let mut cap = CapReceiver::start(&[]);
    let (site, mut broker) = site("broker", Mosquitto::start, &cap.url);
    let mut daemon = Daemon::start(site.folder());
    daemon.until("is subscribed to");
    let mut world = World::around(&broker);
    // Twice: from the third sudden end within a minute on anmin believes that somebody else uses its id, and waits.
    for round in 0..2 {
        let device = format!("g{round}");
        world.say(&device, 30.0);
        // The alarm may have gone out by the broker or not when it dies; the office hears of it by its own way.
        assert_eq!(cap.next("Alert")["ok"], true);
        broker.kill();
        broker.forget();
        broker.run();
        world = World { sequence: world.sequence, ..World::around(&broker) };
        // The retained state is set anew, and readings come in again.
        let alarm = daemon.alarm(storm::RULE, &format!("{device}/lel"), "raised", |_| true);
        daemon.wait("/api/v1/status", "connected on both ways", |status| {
            status["orders_waiting"] == 0
                && status["troubles"].as_array().is_some_and(|list| {
                    !list.iter().any(|trouble| trouble["part"] == "mqtt:site" && trouble["level"] == "orange")
                })
        });
        let deadline = Instant::now() + DEADLINE;
        loop {
            // Nobody is subscribed until anmin is back: a device goes on saying how it is.
            world.say(&device, 1.0);
            let list = daemon.get("/api/v1/alarms");
            let mut alarms = list["alarms"].as_array().into_iter().flatten();
            if alarms.any(|found| found["id"] == alarm["id"] && found["state"] == "returned_unacknowledged") {
                break;
            }
            assert!(Instant::now() < deadline, "{list:#}");
            pause();
        }
        world.hears(&format!("{device}/lel"), "returned");
    }
}
