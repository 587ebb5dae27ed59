//! Modbus, against peers that anmin did not write. In: pymodbus over TCP and over a pair of pseudo-terminals made by
//! socat, and a slave of raw bytes that misbehaves in every way that the wire allows. Played: mbpoll reads the simulated
//! slaves.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::ops::RangeInclusive;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anmin::clock::Clock;
use anmin::config::{Config, report};
use anmin::intake::gbt26875::Net;
use anmin::intake::modbus::dial_in::{self, DialIn, Door};
use anmin::intake::modbus::{Doors, Framing, Serial, Settings, Transport, spawn};
use anmin::main_loop::Input;
use anmin::sim::World;
use anmin::sim::modbus_slaves::{ModbusSlaves, Registers, SharedRegisters};
use anmin::sim::scenario::{Scenario, mix};
use anmin::telemetry::BusCounters;
use anmin_sensors::decode::modbus::Table;
use anmin_sensors::document::Faults;
use anmin_sensors::point::{DeviceId, Place, PointIx, Points};
use anmin_sensors::poll::{Counters, UnitPlan};
use anmin_sensors::profile::Profile;
use anmin_sensors::reading::{Fault, Value};
use anmin_tests::peers::{Line, Peer, free_port};
use anmin_tests::site::Site as Folder;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// No test waits longer for what it waits for.
const DEADLINE: Duration = Duration::from_secs(60);
const MS: Duration = Duration::from_millis(1);

/// A bus under test and all that it said.
struct Site {
    points: Points,
    task: JoinHandle<()>,
    counters: BusCounters,
    inputs: mpsc::Receiver<Input>,
    /// By point name `dU/name`: good values and faults, in order.
    seen: HashMap<String, Vec<Result<Value, Fault>>>,
    /// By part: whether it was last in trouble.
    parts: BTreeMap<String, bool>,
}

impl Site {
    fn start(profile: &str, units: &[u8], settings: Settings, tune: impl Fn(&mut UnitPlan)) -> Self {
        Self::start_behind(Doors::default(), profile, units, settings, tune)
    }

    fn start_behind(
        doors: Doors,
        profile: &str,
        units: &[u8],
        settings: Settings,
        tune: impl Fn(&mut UnitPlan),
    ) -> Self {
        let faults = Faults::default();
        let profile = Profile::parse("p.toml", profile, &faults);
        let profile = profile.unwrap_or_else(|| panic!("{:?}", faults.take()));
        let modbus = profile.modbus.clone().expect("the profile speaks Modbus");
        let mut points = Points::default();
        let place = Arc::new(Place::default());
        let plans = units.iter().map(|unit| {
            let id = DeviceId::new(format!("d{unit}"));
            let device = points.add(id, None, &profile.id, &place, profile.specs()).expect("units differ");
            let mut plan = UnitPlan::new(*unit, &modbus, &points, device);
            plan.interval = 50 * MS;
            plan.probe_every = 200 * MS;
            tune(&mut plan);
            plan
        });
        let plans = plans.collect();
        let (sender, inputs) = mpsc::channel(64);
        let counters = BusCounters::default();
        let task = spawn(settings, plans, Clock::system(), sender, counters.clone(), doors);
        Self { points, task, counters, inputs, seen: HashMap::new(), parts: BTreeMap::new() }
    }

    async fn until(&mut self, what: &str, met: impl Fn(&Self) -> bool) {
        let wait = async {
            while !met(self) {
                match self.inputs.recv().await.expect("the bus is polled until the test ends") {
                    Input::Readings(readings) => {
                        for reading in readings {
                            let name = self.points.point(reading.point).id.to_string();
                            self.seen.entry(name).or_default().push(reading.value);
                        }
                    }
                    Input::Part(state) => drop(self.parts.insert(state.part.to_string(), state.trouble.is_some())),
                    other => panic!("a bus does not send {other:?}"),
                }
            }
        };
        if timeout(DEADLINE, wait).await.is_err() {
            let counts: BTreeMap<&str, (usize, usize)> =
                self.seen.keys().map(|name| (name.as_str(), (self.good(name).count(), self.bad(name)))).collect();
            panic!("not within {DEADLINE:?}: {what}; parts {:?}; good and bad readings {counts:?}", self.parts);
        }
    }

    fn good(&self, point: &str) -> impl Iterator<Item = &Value> {
        self.seen.get(point).into_iter().flatten().flatten()
    }

    fn bad(&self, point: &str) -> usize {
        self.seen.get(point).into_iter().flatten().filter(|value| value.is_err()).count()
    }

    fn last(&self, point: &str) -> Option<&Result<Value, Fault>> {
        self.seen.get(point)?.last()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn tcp(port: &str) -> Transport {
    Transport::Tcp { host: "127.0.0.1".to_owned(), port: port.parse().expect("the peer names its port") }
}

fn rtu_over_tcp(port: &str) -> Transport {
    Transport::OverTcp {
        framing: Framing::Rtu,
        host: "127.0.0.1".to_owned(),
        port: port.parse().expect("the peer names its port"),
    }
}

fn settings(transport: Transport) -> Settings {
    Settings {
        timeout: 200 * MS,
        reconnect_min: 20 * MS,
        reconnect_max: 100 * MS,
        late_window: 600 * MS,
        ..Settings::new("test", transport)
    }
}

/// Everything that pymodbus holds, one point of each sort, a sentinel, and a register that is refused. Unit 3 is not there:
/// pymodbus 3.16 answers for it with exception 04, as some gateways do, and such a unit must be parked like a silent one.
const ALL_SORTS: &str = r#"
id = "all-sorts"
title = { zh = "试验", en = "test" }
[modbus]
max_register_fill = 100
[[point]]
name = "lel"
kind = "gas.lel"
register = "holding"
address = 0
scale = 0.1
[[point]]
name = "temperature"
kind = "env.temperature"
register = "holding"
address = 1
type = "int16"
scale = 0.1
[[point]]
name = "voltage"
kind = "power.voltage"
register = "holding"
address = 2
type = "float32"
[[point]]
name = "power"
kind = "power.active_power"
register = "holding"
address = 4
type = "int32"
[[point]]
name = "energy"
kind = "power.energy"
register = "holding"
address = 6
type = "float64"
[[point]]
name = "text"
kind = "device.text"
register = "holding"
address = 10
type = "string"
length = 2
[[point]]
name = "none"
kind = "gas.co"
register = "holding"
address = 100
invalid_raw = [0xFFFF]
[[point]]
name = "refused"
kind = "power.current"
register = "holding"
address = 200
[[point]]
name = "frequency"
kind = "power.frequency"
register = "input"
address = 0
type = "float32"
[[point]]
name = "smoke"
kind = "fire.smoke"
register = "coil"
address = 3
[[point]]
name = "leak"
kind = "flood.leak"
register = "discrete"
address = 1
[[point]]
name = "tamper"
kind = "device.tamper"
register = "discrete"
address = 2
[[point]]
name = "bit"
kind = "device.fault"
register = "holding"
address = 0
type = "bool"
bit = 1
"#;

/// What pymodbus holds, by point.
fn all_sorts() -> [(&'static str, Result<Value, Fault>); 13] {
    [
        ("lel", Ok(Value::Number(12.6))),
        ("temperature", Ok(Value::Number(-5.5))),
        ("voltage", Ok(Value::Number(f64::from(230.2_f32)))),
        ("power", Ok(Value::Number(-70_000.0))),
        ("energy", Ok(Value::Number(1_234.5))),
        ("text", Ok(Value::Text("AN-7".into()))),
        ("none", Err(Fault::Sentinel)),
        ("refused", Err(Fault::Comms)),
        ("frequency", Ok(Value::Number(50.0))),
        ("smoke", Ok(Value::Flag(true))),
        ("leak", Ok(Value::Flag(true))),
        ("tamper", Ok(Value::Flag(false))),
        ("bit", Ok(Value::Flag(true))),
    ]
}

async fn every_sort_reads(transport: Transport) {
    every_sort_reads_of(&[1, 2], &[3], transport).await;
}

async fn every_sort_reads_of(living: &[u8], absent: &[u8], transport: Transport) {
    let units = [living, absent].concat();
    let mut site = Site::start(ALL_SORTS, &units, settings(transport), |_| {});
    site.until("two cycles of the living units, the absent parked", |site| {
        living.iter().all(|unit| site.good(&format!("d{unit}/bit")).count() >= 2)
            && absent.iter().all(|unit| site.parts.get(&*format!("unit:test/{unit}")) == Some(&true))
    })
    .await;
    for unit in living.iter().map(|unit| format!("d{unit}")) {
        for (name, wanted) in all_sorts() {
            let point = format!("{unit}/{name}");
            let all = &site.seen[&point];
            assert!(all.iter().all(|value| *value == wanted), "{point}: {all:?}, expected {wanted:?}");
        }
    }
    assert!(
        site.seen.iter().filter(|(name, _)| name.starts_with("d3/")).all(|(_, all)| all.iter().all(Result::is_err))
    );
    assert_eq!(site.parts.get("bus:test"), Some(&false));
    assert_eq!(site.parts.get("unit:test/1"), Some(&true), "a register that is refused is said");
}

#[tokio::test]
async fn pymodbus_over_tcp_gives_every_sort_of_value() {
    let (_peer, port) = Peer::ready("modbus_sim.py", &["tcp"]);
    every_sort_reads(tcp(&port)).await;
}

#[tokio::test]
async fn pymodbus_over_a_serial_line_gives_every_sort_of_value() {
    let line = Line::start();
    let (_peer, _) = Peer::ready("modbus_sim.py", &["rtu", &line.ends[1]]);
    every_sort_reads(Transport::Serial(Framing::Rtu, Serial::new(&line.ends[0], 19_200))).await;
}

#[tokio::test]
async fn pymodbus_in_ascii_gives_every_sort_of_value_over_tcp_and_on_a_serial_line() {
    let (_over_tcp, port) = Peer::ready("modbus_sim.py", &["ascii_tcp"]);
    let port = port.parse().expect("the peer names its port");
    every_sort_reads(Transport::OverTcp { framing: Framing::Ascii, host: "127.0.0.1".to_owned(), port }).await;
    let line = Line::start();
    let (_serial, _) = Peer::ready("modbus_sim.py", &["ascii", &line.ends[1]]);
    every_sort_reads(Transport::Serial(Framing::Ascii, Serial::new(&line.ends[0], 19_200))).await;
}

#[tokio::test]
async fn libmodbus_gives_every_sort_of_value_over_tcp_and_on_a_serial_line() {
    let (_over_tcp, port) = Peer::ready("modbus_lib.py", &["tcp"]);
    every_sort_reads(tcp(&port)).await;
    let line = Line::start();
    let (_serial, _) = Peer::ready("modbus_lib.py", &["rtu", &line.ends[1]]);
    // Nobody else is asked for here: see the peer.
    every_sort_reads_of(&[1], &[], Transport::Serial(Framing::Rtu, Serial::new(&line.ends[0], 19_200))).await;
}

/// What a gateway has seen: masters that it turned away, the most connections, the most requests on its line at once, requests.
fn count(gateway: &mut Peer) -> [u64; 4] {
    gateway.tell("count");
    let said = gateway.until("count");
    let numbers: Vec<u64> = said.split(' ').skip(1).map(|word| word.parse().expect("a number")).collect();
    numbers.try_into().unwrap_or_else(|_| panic!("{said}"))
}

/// Two buses of anmin and a master that anmin did not write, each asking for units of its own through one gateway.
#[tokio::test]
async fn several_masters_behind_one_gateway_each_get_their_own_answers() {
    let (mut gateway, port) = Peer::ready("modbus_gateway.py", &["--connections", "3"]);
    let start = |unit: u8| {
        let settings = Settings { timeout: 1_000 * MS, ..settings(tcp(&port)) };
        Site::start(ALL_SORTS, &[unit], settings, |plan| plan.interval = 20 * MS)
    };
    let (mut first, mut second) = (start(1), start(2));
    let foreign = async {
        for _ in 0..10 {
            for (unit, wanted) in [("1", "1 126"), ("2", "1 500")] {
                let place = ["-m", "tcp", "-p", &port, "127.0.0.1"];
                let read = mbpoll(&["-a", unit, "-t", "4", "-r", "1", "-c", "1"], &place).await;
                assert_eq!(read, Ok(vec![wanted.to_owned()]), "unit {unit}");
            }
        }
    };
    tokio::join!(
        first.until("30 cycles of unit 1", |site| site.good("d1/bit").count() >= 30),
        second.until("30 cycles of unit 2", |site| site.good("d2/bit").count() >= 30),
        foreign,
    );
    for (site, point, wanted) in [(&first, "d1/lel", 12.6), (&second, "d2/lel", 50.0)] {
        let all = &site.seen[point];
        assert!(all.iter().all(|value| *value == Ok(Value::Number(wanted))), "{point}: {all:?}");
        assert_eq!(site.parts.get("bus:test"), Some(&false));
    }
    let [_, most, on_the_line, requests] = count(&mut gateway);
    assert!(most <= 3 && on_the_line == 1 && requests >= 200, "{most} {on_the_line} {requests}");
}

/// A gateway has so many sockets. What is turned away costs no reading, and the neighbour's connection is not lost.
#[tokio::test]
async fn a_bus_works_with_the_connections_that_its_gateway_takes() {
    let (mut gateway, port) = Peer::ready("modbus_gateway.py", &["--connections", "2"]);
    let start = |unit: u8, lanes: usize| {
        let settings = Settings { timeout: 1_000 * MS, max_concurrent_units: lanes, ..settings(tcp(&port)) };
        Site::start(ALL_SORTS, &[unit], settings, |plan| plan.interval = 20 * MS)
    };
    let mut first = start(1, 1);
    first.until("unit 1 is read", |site| site.good("d1/bit").count() >= 3).await;
    let mut second = start(2, 4);
    tokio::join!(
        first.until("50 cycles of unit 1", |site| site.good("d1/bit").count() >= 50),
        second.until("50 cycles of unit 2", |site| site.good("d2/bit").count() >= 50),
    );
    let [turned_away, most, on_the_line, _] = count(&mut gateway);
    assert!(turned_away >= 3 && most == 2 && on_the_line == 1, "{turned_away} {most} {on_the_line}");
    for (site, point, wanted) in [(&first, "d1/lel", 12.6), (&second, "d2/lel", 50.0)] {
        let all = &site.seen[point];
        assert!(all.iter().all(|value| *value == Ok(Value::Number(wanted))), "{point}: {all:?}");
        assert_eq!(site.parts.get("bus:test"), Some(&false), "{point}");
    }
}

/// A bus whose device dials in, and its listener.
struct Called {
    site: Site,
    port: u16,
    listener: JoinHandle<()>,
}

impl Called {
    async fn start(framing: Framing, heartbeat: &str, units: &[u8], tune: impl Fn(&mut UnitPlan)) -> Self {
        let dial_in = DialIn {
            listen: ([127, 0, 0, 1], 0).into(),
            framing,
            registration: b"DTU-7".to_vec(),
            heartbeat: heartbeat.into(),
            allow: vec![Net::parse("127.0.0.0/8").expect("it is one")],
        };
        let (settings, door) = (settings(Transport::DialIn(dial_in)), Door::default());
        let mut listeners = dial_in::spawn(&[(settings.clone(), door.clone())], &Clock::system()).await;
        let (address, listener) = listeners.pop().expect("one bus, one listener");
        let site = Site::start_behind(Doors { callers: door, ..Doors::default() }, ALL_SORTS, units, settings, tune);
        Self { site, port: address.port(), listener }
    }

    /// A modem that calls it.
    fn modem(&self, more: &[&str]) -> Peer {
        Peer::python("dtu.py", &[&[&self.port.to_string()[..], "DTU-7"], more].concat())
    }
}

impl Drop for Called {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// Frames come byte by byte, heartbeats between them, and in one piece with them.
#[tokio::test]
async fn a_modem_that_dials_in_gives_every_sort_of_value_between_its_heartbeats() {
    for (framing, more) in [
        (Framing::Rtu, &["--heartbeat", "HB", "--every", "0.03"][..]),
        (Framing::Rtu, &["--heartbeat", "HB", "--before", "--pieces"]),
        (Framing::Ascii, &["--framing", "ascii", "--heartbeat", "DTU-7", "--before"]),
        (Framing::Ascii, &["--framing", "ascii", "--pieces"]),
    ] {
        let mut called = Called::start(framing, "HB", &[1, 2], |_| {}).await;
        let _modem = called.modem(more);
        let both = |site: &Site| ["d1/bit", "d2/bit"].iter().all(|point| site.good(point).count() >= 10);
        called.site.until("ten cycles of both units", both).await;
        for (name, wanted) in all_sorts() {
            for unit in ["d1", "d2"] {
                // Before the modem has called there is nothing to be had.
                let all = called.site.seen[&format!("{unit}/{name}")].iter();
                let mut all = all.skip_while(|value| **value == Err(Fault::Comms));
                assert!(all.all(|value| *value == wanted), "{more:?}: {unit}/{name} is not always {wanted:?}");
            }
        }
        assert_eq!(called.site.parts.get("bus:test"), Some(&false), "{more:?}");
        assert_eq!(called.site.parts.get("callers:test"), None, "{more:?}");
    }
}

#[tokio::test]
async fn damaged_frames_of_a_modem_are_counted_and_never_believed() {
    for framing in [Framing::Rtu, Framing::Ascii] {
        let mut called = Called::start(framing, "HB", &[1, 2], |plan| plan.interval = MS).await;
        let _modem = called.modem(&["--framing", framing.as_str(), "--one-in", "400", "--heartbeat", "HB"]);
        let counters = called.site.counters.clone();
        called
            .site
            .until("damage, and good readings all the same", |site| {
                let Counters { silent, garbled, .. } = counters.get();
                silent + garbled >= 5 && ["d1/energy", "d2/energy"].iter().all(|point| site.good(point).count() >= 10)
            })
            .await;
        for (point, all) in &called.site.seen {
            let (_, name) = point.split_once('/').expect("a device and a point");
            let wanted = &all_sorts().into_iter().find(|(other, _)| *other == name).expect("it is in the profile").1;
            let sound = |value: &Result<Value, Fault>| value == wanted || *value == Err(Fault::Comms);
            assert!(all.iter().all(sound), "{framing:?}: {point} read {all:?}, pymodbus holds {wanted:?}");
        }
    }
}

#[tokio::test]
async fn a_modem_that_reconnects_every_second_is_read_all_the_same_and_told() {
    let mut called = Called::start(Framing::Rtu, "", &[1], |plan| plan.interval = 20 * MS).await;
    let _modem = called.modem(&["--hang-up", "0.5", "--redial", "0.1"]);
    let told = |site: &Site| site.parts.get("callers:test") == Some(&true);
    called.site.until("told that it calls again and again", told).await;
    let before = called.site.good("d1/lel").count();
    called.site.until("readings all the same", |site| site.good("d1/lel").count() > before + 50).await;
}

/// Their values differ, as those of two houses do: not one of the second may come under the name of the first.
#[tokio::test]
async fn the_second_of_two_modems_with_one_registration_is_refused_until_the_first_is_gone() {
    let mut called = Called::start(Framing::Rtu, "", &[1], |plan| plan.interval = 20 * MS).await;
    let mut first = called.modem(&[]);
    called.site.until("the first is read", |site| site.good("d1/lel").count() >= 3).await;
    let _second = called.modem(&["--first", "500"]);
    let told = |site: &Site| site.parts.get("callers:test") == Some(&true) && site.good("d1/lel").count() >= 20;
    called.site.until("both are told", told).await;
    let first_reads = Value::Number(12.6);
    assert!(called.site.good("d1/lel").all(|value| *value == first_reads), "{:?}", called.site.seen["d1/lel"]);
    first.kill();
    let second_reads = |site: &Site| site.good("d1/lel").any(|value| *value == Value::Number(50.0));
    called.site.until("the second takes its place", second_reads).await;
}

#[tokio::test]
async fn a_caller_that_nobody_expects_is_let_go_and_takes_nobodys_place() {
    let mut called = Called::start(Framing::Rtu, "", &[1], |_| {}).await;
    for said in [&b"DTU-8"[..], b"GET / HTTP/1.1\r\n", b"\x01\x03\x02\x00\x07\xF9\x86"] {
        let mut caller = tokio::net::TcpStream::connect(("127.0.0.1", called.port)).await.expect("it listens");
        caller.write_all(said).await.expect("it is read");
        let mut byte = [0];
        let end = timeout(DEADLINE, caller.read(&mut byte)).await.expect("it is let go");
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    }
    let _modem = called.modem(&[]);
    called.site.until("who is expected is read", |site| site.good("d1/lel").count() >= 3).await;
}

/// Copies what comes in at one end of a line to an end of the other, with one bit in so many bytes turned over. Ends with
/// the lines.
fn noise(from: &str, to: &str, one_in: u64, seed: u64) {
    let mut from = File::options().read(true).open(from).expect("socat made it");
    let mut to = File::options().write(true).open(to).expect("socat made it");
    std::thread::spawn(move || {
        let (mut bytes, mut step) = ([0; 64], 0);
        while let Ok(count) = from.read(&mut bytes)
            && count > 0
        {
            for byte in &mut bytes[..count] {
                step += 1;
                let chance = mix(seed, step);
                if chance.is_multiple_of(one_in) {
                    *byte ^= 1 << (chance >> 60 & 7);
                }
            }
            if to.write_all(&bytes[..count]).is_err() {
                return;
            }
        }
    });
}

/// One byte in a thousand, then one in a hundred, is damaged either way between anmin and pymodbus: requests arrive
/// broken, answers arrive broken. Nothing of it becomes a value, and what arrives whole still does.
#[tokio::test]
async fn on_a_noisy_line_damaged_frames_are_counted_and_never_believed() {
    for (one_in, seed) in [(1_000, 1), (100, 2)] {
        let (ours, theirs) = (Line::start(), Line::start());
        let (_peer, _) = Peer::ready("modbus_sim.py", &["rtu", &theirs.ends[1]]);
        noise(&ours.ends[1], &theirs.ends[0], one_in, seed);
        noise(&theirs.ends[0], &ours.ends[1], one_in, seed + 100);
        let quick = Settings {
            timeout: 60 * MS,
            ..settings(Transport::Serial(Framing::Rtu, Serial::new(&ours.ends[0], 19_200)))
        };
        let mut site = Site::start(ALL_SORTS, &[1, 2], quick, |plan| plan.interval = MS);
        let counters = site.counters.clone();
        site.until("damage both ways, and good readings all the same", |site| {
            let Counters { requests, silent, garbled, .. } = counters.get();
            let enough = requests >= 600 && silent >= 3 && garbled >= 3;
            enough && ["d1/energy", "d2/energy"].iter().all(|point| site.good(point).count() >= 20)
        })
        .await;
        for (point, all) in &site.seen {
            let (_, name) = point.split_once('/').expect("a device and a point");
            let wanted = &all_sorts().into_iter().find(|(other, _)| *other == name).expect("it is in the profile").1;
            let sound = |value: &Result<Value, Fault>| value == wanted || *value == Err(Fault::Comms);
            assert!(all.iter().all(sound), "one in {one_in}: {point} read {all:?}, pymodbus holds {wanted:?}");
        }
    }
}

/// Two points far enough apart to be asked for separately with equal lengths: the one's late answer fits the other.
const TWINS: &str = r#"
id = "twins"
title = { zh = "试验", en = "test" }
[modbus]
max_register_fill = 0
[[point]]
name = "a"
kind = "power.voltage"
register = "holding"
address = 100
type = "uint16"
[[point]]
name = "b"
kind = "power.current"
register = "holding"
address = 200
type = "uint16"
"#;

/// Goal: no answer that is late, foreign, short, long, damaged or doubled ever becomes a value. Method: each register
/// tells its unit and address, so a value out of place shows. A misbehaviour costs a time limit, so the units stand on
/// four lines that are read at the same time; each has a sound unit and a dead one.
async fn nothing_wrong_is_ever_believed(mode: &str, transport: fn(&str) -> Transport) {
    tokio::join!(
        nothing_wrong_is_believed_on(mode, transport, &[2, 3, 4, 40], 21..=23),
        nothing_wrong_is_believed_on(mode, transport, &[5, 6, 7, 41], 24..=26),
        nothing_wrong_is_believed_on(mode, transport, &[9, 10, 15, 42], 27..=29),
        nothing_wrong_is_believed_on(mode, transport, &[11, 12, 13], 30..=31),
    );
}

async fn nothing_wrong_is_believed_on(
    mode: &str,
    transport: fn(&str) -> Transport,
    odd: &[u8],
    exceptions: RangeInclusive<u8>,
) {
    let (mut slaves, place) = Peer::ready("modbus_faults.py", &[mode]);
    let exceptions: Vec<u8> = exceptions.collect();
    let units: Vec<u8> = [&[1, 8], odd, &exceptions[..]].concat();
    let mut site = Site::start(TWINS, &units, settings(transport(&place)), |plan| plan.fail_after = 4);
    site.until("good readings of every unit that can give them, the others are known to give none", |site| {
        let some = |unit: &u8| ["a", "b"].iter().all(|name| site.good(&format!("d{unit}/{name}")).count() >= 3);
        let told = |unit: &u8| site.parts.get(&*format!("unit:test/{unit}")) == Some(&true);
        site.good("d1/a").count() >= 15 && odd.iter().all(some) && told(&8) && exceptions.iter().all(told)
    })
    .await;
    for (name, all) in &site.seen {
        let (unit, point) = name[1..].split_once('/').expect("a device and a point");
        let unit: f64 = unit.parse().expect("devices are named after units");
        let wanted = f64::from((unit as u32 * 1_000 + if point == "a" { 100 } else { 200 }) as u16);
        for value in all {
            let sound = matches!(value, Ok(Value::Number(number)) if *number == wanted) || *value == Err(Fault::Comms);
            assert!(sound, "{mode}: {name} read {value:?}, the unit holds {wanted}");
        }
    }
    for unit in exceptions.iter().chain(&[8]) {
        assert_eq!(site.good(&format!("d{unit}/a")).count(), 0, "{mode}: unit {unit} never answers soundly");
        assert!(site.bad(&format!("d{unit}/a")) > 0, "{mode}: the silence of unit {unit} must be said");
    }
    assert_eq!(site.bad("d1/a") + site.bad("d1/b"), 0, "{mode}: the others' faults cost the sound unit no reading");
    slaves.tell("count");
    assert_ne!(slaves.until("count"), "count 0");
}

#[tokio::test]
async fn a_misbehaving_unit_over_tcp_is_never_believed() {
    nothing_wrong_is_ever_believed("mbap", tcp).await;
}

#[tokio::test]
async fn a_misbehaving_unit_over_rtu_in_tcp_is_never_believed() {
    nothing_wrong_is_ever_believed("rtu_tcp", rtu_over_tcp).await;
}

#[tokio::test]
async fn a_misbehaving_unit_on_a_serial_line_is_never_believed() {
    nothing_wrong_is_ever_believed("rtu_pty", |device| Transport::Serial(Framing::Rtu, Serial::new(device, 115_200)))
        .await;
}

#[tokio::test]
async fn a_bus_that_vanishes_is_said_and_comes_back_by_itself() {
    let (slaves, port) = Peer::ready("modbus_faults.py", &["mbap"]);
    let mut site = Site::start(TWINS, &[1], settings(tcp(&port)), |_| {});
    site.until("a reading", |site| site.good("d1/a").count() > 0).await;
    drop(slaves);
    site.until("the loss is said and the points fail", |site| {
        site.parts.get("bus:test") == Some(&true) && site.last("d1/b") == Some(&Err(Fault::Comms))
    })
    .await;
    // The peer's port is free again; the simulated slaves take it over.
    let table = Registers::shared();
    for (address, raw) in [(100, 1_100), (200, 1_200)] {
        table.write().expect("nobody panics with the table").set(1, Table::Holding, address, raw);
    }
    let address = ([127, 0, 0, 1], port.parse().expect("a port")).into();
    let _slaves = ModbusSlaves::tcp(address, table).await.expect("the port is free again");
    site.until("readings again", |site| {
        site.parts.get("bus:test") == Some(&false) && site.last("d1/b") == Some(&Ok(Value::Number(1_200.0)))
    })
    .await;
    assert_eq!(site.points.find("d1/a"), Some(PointIx(0)));
}

#[tokio::test]
async fn a_serial_line_that_vanishes_is_said_and_comes_back_by_itself() {
    let folder = Folder::new("line", "");
    let path = folder.path("tty");
    let slaves = |value: u16| {
        let table = Registers::shared();
        for address in [100, 200] {
            table.write().expect("nobody panics with the table").set(1, Table::Holding, address, value);
        }
        let slaves = ModbusSlaves::pty(Framing::Rtu, table).expect("a pseudo-terminal is free");
        let _ = std::fs::remove_file(&path);
        std::os::unix::fs::symlink(slaves.device().expect("it has a path"), &path).expect("the folder is ours");
        slaves
    };
    let first = slaves(1);
    let mut site =
        Site::start(TWINS, &[1], settings(Transport::Serial(Framing::Rtu, Serial::new(&path, 115_200))), |_| {});
    site.until("a reading", |site| site.last("d1/b") == Some(&Ok(Value::Number(1.0)))).await;
    std::fs::remove_file(&path).expect("the link is ours");
    drop(first);
    site.until("the loss is said and the points fail", |site| {
        site.parts.get("bus:test") == Some(&true) && site.last("d1/b") == Some(&Err(Fault::Comms))
    })
    .await;
    let _second = slaves(2);
    site.until("readings again", |site| {
        site.parts.get("bus:test") == Some(&false) && site.last("d1/b") == Some(&Ok(Value::Number(2.0)))
    })
    .await;
}

#[tokio::test]
async fn a_unit_that_sleeps_is_woken_before_every_request() {
    let (_peer, place) = Peer::ready("modbus_faults.py", &["rtu_pty"]);
    let line = Transport::Serial(Framing::Rtu, Serial::new(place, 9_600));
    let sleeper = TWINS.replace("[modbus]", "[modbus]\nwake_bytes = '8F'\nwake_pause = '30ms'");
    let mut site = Site::start(&sleeper, &[14], settings(line), |_| {});
    site.until("five readings of both points", |site| {
        ["d14/a", "d14/b"].iter().all(|point| site.good(point).count() >= 5)
    })
    .await;
    assert_eq!(site.bad("d14/a") + site.bad("d14/b"), 0, "it was awake each time");
    assert_eq!(site.last("d14/b"), Some(&Ok(Value::Number(14_200.0))));
}

/// One bus of each kind with a gas detector on it.
const ALL_BUSES: &str = r#"
[[bus]]
id = "tcp"
transport = "tcp"
host = "127.0.0.1"
port = PORT_1
[[bus]]
id = "server"
transport = "rtu_over_tcp"
host = "127.0.0.1"
port = PORT_2
[[bus]]
id = "line"
transport = "rtu"
device = "DEVICE"
[[device]]
id = "gas-tcp"
profile = "yaoan-ya-k300"
place = "b1"
bus = "tcp"
unit_id = 1
[[device]]
id = "gas-server"
profile = "yaoan-ya-k300"
place = "b1"
bus = "server"
unit_id = 2
[[device]]
id = "gas-line"
profile = "yaoan-ya-k300"
place = "b1"
bus = "line"
unit_id = 3
"#;

#[tokio::test]
async fn the_devices_of_every_kind_of_bus_can_be_played() {
    let folder = Folder::new("all-buses-line", "");
    let buses = ALL_BUSES
        .replace("PORT_1", &free_port().to_string())
        .replace("PORT_2", &free_port().to_string())
        .replace("DEVICE", &folder.path("tty").display().to_string());
    let site = Folder::new("all-buses", &buses);
    let load = || Config::load(site.folder()).unwrap_or_else(|faults| panic!("{}", report(site.folder(), &faults)));
    let quiet = Scenario::shipped().into_iter().find(|scenario| scenario.name == "quiet").expect("it is shipped");
    let mut world = World::new(load(), quiet, 1, Duration::from_secs(1));
    world.start_slaves().await.expect("ports and pseudo-terminals are free");
    let config = load();
    let (sender, mut inputs) = mpsc::channel(64);
    for bus in config.buses {
        spawn(bus.settings, bus.units, Clock::system(), sender.clone(), BusCounters::default(), Doors::default());
    }
    let mut missing: BTreeSet<String> =
        (0..config.points.len()).map(|n| config.points.point(PointIx(n as u32)).id.to_string()).collect();
    assert!(["gas-tcp/lel", "gas-server/lel", "gas-line/lel"].iter().all(|point| missing.contains(*point)));
    let wait = async {
        while !missing.is_empty() {
            let Some(Input::Readings(readings)) = inputs.recv().await else { continue };
            for reading in readings {
                let id = config.points.point(reading.point).id.to_string();
                let value = reading.value.unwrap_or_else(|fault| panic!("{id}: {fault:?}"));
                let played = world.player().value(reading.point, Duration::ZERO).expect("every point is played");
                let same = match (&value, &played) {
                    // What the register cannot hold is rounded off.
                    (Value::Number(read), Value::Number(played)) => (read - played).abs() <= 0.05,
                    (read, played) => read == played,
                };
                assert!(same, "{id} reads {value:?}, played is {played:?}");
                missing.remove(&id);
            }
        }
    };
    timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("nothing was read of {missing:?}"));
}

/// What mbpoll, a master that anmin did not write, reads once: `reference value` a line, or why it reads nothing.
async fn mbpoll(arguments: &[&str], place: &[&str]) -> Result<Vec<String>, String> {
    let arguments = [&["-1", "-o", "0.5"], arguments, place].concat();
    let command = tokio::process::Command::new("mbpoll").args(&arguments).stdin(Stdio::null()).output();
    let output = command.await.unwrap_or_else(|error| panic!("cannot start mbpoll: {error}; see tests/setup.sh"));
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let values: Vec<String> = lines
        .lines()
        .filter_map(|line| line.strip_prefix('['))
        .map(|line| line.replace("]:", "").split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    if output.status.success() && !values.is_empty() {
        return Ok(values);
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The registers that mbpoll is to find.
fn registers() -> SharedRegisters {
    let table = Registers::shared();
    {
        let mut registers = table.write().expect("nobody panics with the table");
        for (address, raw) in [(0, 126), (1, 0xFFC9), (2, 0x4366), (3, 0x3333), (4, 0xFFFE), (5, 0xEE90)] {
            registers.set(1, Table::Holding, address, raw);
        }
        registers.set(1, Table::Input, 40, 0xABCD);
        for (address, bit) in [(7, 1), (8, 0), (9, 1), (20, 1)] {
            registers.set(1, Table::Coil, address, bit);
            registers.set(1, Table::Discrete, address, 1 - bit);
        }
        registers.set(2, Table::Holding, 0, 2);
        registers.silence(2, true);
    }
    table
}

/// Goal: a foreign master finds in the simulated slaves what they hold, whatever the wire.
async fn mbpoll_finds_what_the_slaves_hold(place: &[&str]) {
    for (arguments, wanted) in [
        ("-a 1 -t 4 -r 1 -c 2", ["1 126", "2 65481 (-55)"].as_slice()),
        ("-a 1 -t 4:float -B -r 3 -c 1", &["3 230.2"]),
        ("-a 1 -t 4:int -B -r 5 -c 1", &["5 -70000"]),
        ("-a 1 -t 3:hex -r 41 -c 1", &["41 0xABCD"]),
        ("-a 1 -t 0 -r 8 -c 3", &["8 1", "9 0", "10 1"]),
        (
            "-a 1 -t 1 -r 8 -c 14",
            &[
                "8 0", "9 1", "10 0", "11 0", "12 0", "13 0", "14 0", "15 0", "16 0", "17 0", "18 0", "19 0", "20 0",
                "21 0",
            ],
        ),
    ] {
        let read = mbpoll(&arguments.split(' ').collect::<Vec<_>>(), place).await;
        assert_eq!(read, Ok(wanted.iter().map(ToString::to_string).collect()), "mbpoll {arguments} {place:?}");
    }
    for (arguments, wanted) in [
        ("-a 1 -t 4 -r 6 -c 2", "Illegal data address"),
        ("-a 2 -t 4 -r 1 -c 1", "timed out"),
        ("-a 3 -t 4 -r 1 -c 1", "timed out"),
    ] {
        let read = mbpoll(&arguments.split(' ').collect::<Vec<_>>(), place).await;
        assert!(read.as_ref().is_err_and(|why| why.contains(wanted)), "mbpoll {arguments} {place:?}: {read:?}");
    }
}

#[tokio::test]
async fn mbpoll_reads_the_simulated_slaves_over_tcp() {
    let slaves = ModbusSlaves::tcp(([127, 0, 0, 1], 0).into(), registers()).await.expect("a port is free");
    let port = slaves.address().expect("it listens").port().to_string();
    mbpoll_finds_what_the_slaves_hold(&["-m", "tcp", "-p", &port, "127.0.0.1"]).await;
}

#[tokio::test]
async fn mbpoll_reads_the_simulated_slaves_on_a_pseudo_terminal() {
    let slaves = ModbusSlaves::pty(Framing::Rtu, registers()).expect("a pseudo-terminal is free");
    let device = slaves.device().expect("it has a path").display().to_string();
    mbpoll_finds_what_the_slaves_hold(&["-m", "rtu", "-b", "19200", "-P", "none", &device]).await;
}

#[tokio::test]
async fn mbpoll_reads_the_simulated_slaves_behind_a_serial_server() {
    let slaves =
        ModbusSlaves::over_tcp(Framing::Rtu, ([127, 0, 0, 1], 0).into(), registers()).await.expect("a port is free");
    let to = format!("tcp:{},nodelay", slaves.address().expect("it listens"));
    let mut socat = Peer::start("socat", &["-d", "-d", "pty,raw,echo=0,wait-slave=0", &to]);
    let device = socat.until("PTY is ").rsplit(' ').next().expect("socat names the end").to_owned();
    mbpoll_finds_what_the_slaves_hold(&["-m", "rtu", "-b", "19200", "-P", "none", &device]).await;
}
