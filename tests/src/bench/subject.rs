//! What is measured: the real binary on a site made for the bench, a yardstick, and the broker between.

use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::cpu_seconds;
use super::load::device;
use super::yardstick::Work;
use crate::daemon::{Daemon, pause};
use crate::peers::{Peer, free_port, listening, take_request};
use crate::site::Site;

/// Mosquitto as the documented profile for sites has it, but in memory only: it is not what is measured.
pub struct Broker {
    pub port: u16,
    peer: Peer,
    _site: Site,
}

impl Broker {
    pub fn start() -> Self {
        let port = free_port();
        let site = Site::new("bench-broker", "");
        site.write(
            "mosquitto.conf",
            &format!(
                "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\npersistence false\nmax_queued_messages 0\n\
                 max_inflight_messages 1000\nset_tcp_nodelay true\nlog_dest none\n"
            ),
        );
        let peer = Peer::start("/usr/sbin/mosquitto", &["-c", &site.path("mosquitto.conf").display().to_string()]);
        listening(port, "mosquitto");
        Self { port, peer, _site: site }
    }

    pub fn cpu(&self) -> f64 {
        cpu_seconds(self.peer.pid())
    }
}

/// A database that takes everything and keeps nothing: what a real one costs is not what is measured.
pub struct Sink {
    pub port: u16,
    /// Its open connections; none any more once it has gone away.
    open: Arc<Mutex<Option<Vec<TcpStream>>>>,
}

impl Sink {
    pub fn start() -> Self {
        Self::start_at(0)
    }

    pub fn start_at(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("loopback has a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let open = Arc::new(Mutex::new(Some(Vec::new())));
        let known = Arc::clone(&open);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                match &mut *known.lock().expect("nobody panics with it") {
                    Some(known) => known.push(stream.try_clone().expect("there are handles left")),
                    None => return,
                }
                std::thread::spawn(move || while take_request(&stream, &mut std::io::sink()).is_some() {});
            }
        });
        Self { port, open }
    }

    /// Closes every connection and takes no more.
    pub fn go_away(self) {
        let open = self.open.lock().expect("nobody panics with it").take();
        for stream in open.into_iter().flatten() {
            // One that the other side has closed is closed.
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        // The listener is waiting, and looks only when somebody comes.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// How anmin's site is made.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Rules, all of them bound to every device's point.
    pub rules: u32,
    pub devices: u32,
    /// The broker outside, or `None` for the embedded one.
    pub broker: Option<u16>,
    pub qos: u8,
}

/// Devices of one point each from a list, `rules` rules over all of them, alarms to MQTT, readings queued for a database.
pub fn site(shape: Shape) -> Site {
    site_with(shape, Sink::start().port)
}

/// The same, its database at that port.
pub fn site_with(shape: Shape, database: u16) -> Site {
    let alarms = match shape.broker {
        Some(port) => format!("url = \"mqtt://127.0.0.1:{port}\""),
        None => "broker = \"embedded\"".to_owned(),
    };
    let mapping = "topic = \"bench/{device}/up\"\n  payload = \"json\"\n  device = \"{device}\"\n";
    let source = match shape.broker {
        Some(port) => format!(
            "[[mqtt]]\nid = \"site\"\nurl = \"mqtt://127.0.0.1:{port}\"\nqos = {}\n  [[mqtt.mapping]]\n  {mapping}",
            shape.qos
        ),
        None => format!("[broker]\nlisten = \"127.0.0.1:0\"\n  [[broker.mapping]]\n  {mapping}"),
    };
    let site = Site::new(
        "bench",
        &format!(
            "{source}\n[[mqtt_out]]\nid = \"alarms\"\n{alarms}\nsystem = false\n\
             [[influx]]\nurl = \"http://127.0.0.1:{database}\"\nbucket = \"bench\"\n[[device_list]]\nfile = \"devices.csv\"\n"
        ),
    );
    let mut devices = "id,profile,place,floor,room\n".to_owned();
    for n in 0..shape.devices {
        // Four to a room.
        devices.push_str(&format!("{},bench-gas,b1,{},{}\n", device(n), n / 100, n / 4));
    }
    site.write("devices.csv", &devices);
    site.write("profiles/bench-gas.toml", PROFILE);
    for n in 0..shape.rules {
        // The first is the one that is crossed; the others' limits lie above everything that is sent.
        let limit = if n == 0 { 50.0 } else { 100.0 + f64::from(n) / 100.0 };
        site.write(&format!("rules/bench/r{n}.toml"), &RULE.replace("LIMIT", &format!("{limit:.2}")));
        site.write(&format!("rules/bench/r{n}.rhai"), SCRIPT);
    }
    // The shipped rules that would bind to the same points are off, so that as many rules judge as the figure says.
    site.write(
        "anmin.d/shipped.toml",
        &["gas/leak", "gas/rising", "gas/several_rooms", "device/battery"]
            .map(|rule| format!("[[override]]\nrule = \"{rule}\"\nenabled = false\n"))
            .concat(),
    );
    site
}

const PROFILE: &str = r#"
id = "bench-gas"
title = { zh = "试验", en = "bench" }
[mqtt]
payload = "json"
time = { path = "/ts", format = "unix_ms" }
sequence = "/seq"
[[point]]
name = "v"
kind = "gas.lel"
path = "/v"
range = [-5.0, 150.0]
silent_after = "1h"
"#;

const RULE: &str = r#"
title = { zh = "试验", en = "bench" }
on_delay = "0s"
off_delay = "0s"
deadband = 1.0
latch = false
[[input]]
role = "gas"
kind = "gas.lel"
[limit.yellow]
value = LIMIT
unit = "%LEL"
source = "bench"
[message]
zh = "{place}浓度{value} %LEL，限值{limit} %LEL"
en = "{place}: {value} %LEL, limit {limit} %LEL"
[advice]
zh = "无"
en = "none"
[[case]]
name = "it has one"
steps = [{ at = "0s", gas = 1.0, expect = "normal" }]
"#;

const SCRIPT: &str = "fn judge(gas) { if above(gas, \"yellow\") { yellow() } else { normal() } }\n";

/// Something that takes readings from a broker.
pub enum Subject {
    /// `done` holds what it said of its own CPU when it had taken everything.
    Yardstick {
        peer: Peer,
        done: Option<f64>,
    },
    Anmin {
        daemon: Daemon,
        _site: Site,
    },
}

impl Subject {
    pub fn yardstick(port: u16, qos: u8, work: Work, count: u64) -> Self {
        let own = std::env::current_exe().expect("a program knows where it lies");
        let arguments = ["yardstick", &port.to_string(), &qos.to_string(), work.word(), &count.to_string()];
        let mut peer = Peer::start(&own.display().to_string(), &arguments);
        peer.until("up");
        Self::Yardstick { peer, done: None }
    }

    /// Starts the daemon and waits until it hears its devices.
    pub fn anmin(shape: Shape) -> Self {
        Self::anmin_on(site(shape), shape)
    }

    /// The same on a site that was made for it.
    pub fn anmin_on(site: Site, shape: Shape) -> Self {
        let mut daemon = Daemon::start(site.folder());
        if shape.broker.is_some() {
            daemon.until("is subscribed to");
        }
        Self::Anmin { daemon, _site: site }
    }

    pub fn daemon(&self) -> Option<&Daemon> {
        match self {
            Self::Anmin { daemon, .. } => Some(daemon),
            Self::Yardstick { .. } => None,
        }
    }

    pub fn cpu(&self) -> f64 {
        cpu_seconds(match self {
            Self::Yardstick { peer, .. } => peer.pid(),
            Self::Anmin { daemon, .. } => daemon.pid(),
        })
    }

    /// CPU seconds since [`Self::cpu`] gave `before`; a yardstick that has ended has said it itself.
    pub fn cpu_since(&self, before: f64) -> f64 {
        match self {
            Self::Yardstick { done: Some(used), .. } => *used,
            _ => self.cpu() - before,
        }
    }

    /// Waits until of `count` readings since the start each is on the disk and forwarded, or given up because the disk could
    /// not follow. Gives how many were given up.
    pub fn settle(&mut self, count: u64) -> u64 {
        let Self::Anmin { daemon, .. } = self else { return 0 };
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let shed = daemon.figure("anmin_readings_shed_total");
            if daemon.figure("anmin_readings_stored_total") + shed >= count
                && daemon.figure("anmin_readings_waiting") == 0
            {
                return shed;
            }
            assert!(Instant::now() < deadline, "anmin has not done with {count} readings in two minutes");
            // The figures are of the last full second.
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until `count` readings have been taken since the start.
    pub fn wait(&mut self, count: u64) {
        match self {
            Self::Yardstick { peer, done } => {
                *done = peer.until("done").rsplit(' ').next().and_then(|cpu| cpu.parse().ok())
            }
            Self::Anmin { daemon, .. } => {
                let deadline = Instant::now() + Duration::from_secs(120);
                while daemon.get("/api/v1/status")["readings"]["received"].as_u64() < Some(count) {
                    assert!(Instant::now() < deadline, "anmin has not taken {count} readings in two minutes");
                    pause();
                }
            }
        }
    }
}
