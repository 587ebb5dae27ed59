//! Cycle time of the living units of a Modbus bus, beside a bus that has one dead unit more.
//!
//! All buses run at the same time, so that what disturbs the machine disturbs the subject and its yardstick alike; the
//! yardstick runs twice, and how its two figures differ is what chance does to them. The slaves are threads of this process: Modbus TCP, one request at a time, each answered after [`ANSWER`].

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anmin::clock::Clock;
use anmin::intake::modbus::{Doors, Settings, Transport, spawn};
use anmin::main_loop::Input;
use anmin::telemetry::BusCounters;
use anmin_sensors::document::Faults;
use anmin_sensors::point::{DeviceId, Place, PointIx, Points};
use anmin_sensors::poll::UnitPlan;
use anmin_sensors::profile::Profile;
use anmin_sensors::time::Mono;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::quantile;

/// What a unit behind a fast gateway needs.
const ANSWER: Duration = Duration::from_millis(3);
/// Long enough for the dead unit to be found, and for probes that have to be forced between the others.
const LENGTH: Duration = Duration::from_secs(150);
/// In so long the dead unit is found; its price is told apart.
const FINDING: Duration = Duration::from_secs(15);

const METER: &str = r#"
id = "bench-meter"
title = { zh = "基准电表", en = "bench meter" }
[modbus]
[[point]]
name = "voltage"
kind = "power.voltage"
register = "holding"
address = 0
scale = 0.1
[[point]]
name = "current"
kind = "power.current"
register = "holding"
address = 1
scale = 0.01
"#;

/// Units 1 to `living` answer; one more does not where `dead`.
#[derive(Clone, Copy, Debug)]
struct Bus {
    living: u8,
    dead: bool,
    /// How often each unit is to be read.
    interval: Duration,
}

/// Milliseconds between two readings of a living unit, sorted.
#[derive(Debug, Default)]
struct Cycles {
    steady: Vec<f64>,
    while_finding: Vec<f64>,
    requests_unanswered: u64,
}

/// All buses at once, and a table of them.
pub fn run() {
    println!(
        "\nModbus cycle time in ms of the living units over TCP, each answer takes {ANSWER:?}; all buses at once for \
         {LENGTH:?}"
    );
    println!(
        "{:<8}{:<22}{:<8}{:>10}{:>10}{:>10}{:>14}{:>12}",
        "units", "asked", "dead", "p50", "p99", "longest", "while finding", "unanswered"
    );
    let (full, paced) = (Duration::from_millis(1), Duration::from_secs(1));
    let groups = [(32, full), (200, full), (32, paced), (200, paced)]
        .map(|(living, interval)| [false, false, true].map(|dead| Bus { living, dead, interval }));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("the runtime starts");
    let slaves = Slaves::start();
    let measured = runtime.block_on(async {
        let all = groups.iter().flatten().map(|bus| measure(*bus, slaves.address));
        all.map(tokio::spawn).collect::<Vec<JoinHandle<Cycles>>>()
    });
    let mut cycles = measured.into_iter().map(|task| runtime.block_on(task).expect("a bus is measured to its end"));
    for group in groups {
        let p99 = group.map(|bus| line(bus, &cycles.next().expect("as many are measured as there are buses")));
        let (again, with_dead) = (p99[1] / p99[0], p99[2] / p99[0].midpoint(p99[1]));
        println!("{:<30}p99 with one dead unit: {with_dead:.3} times; with none again: {again:.3}", "");
    }
    println!("wanted: p99 less than 1.05 times");
}

fn line(bus: Bus, cycles: &Cycles) -> f64 {
    let [p50, p99, longest] = [0.5, 0.99, 1.0].map(|share| quantile(&cycles.steady, share));
    let pace = if bus.interval < Duration::from_millis(10) { "as fast as it goes" } else { "once a second" };
    println!(
        "{:<8}{pace:<22}{:<8}{p50:>10.1}{p99:>10.1}{longest:>10.1}{:>14.1}{:>12}",
        bus.living,
        if bus.dead { "one" } else { "none" },
        quantile(&cycles.while_finding, 1.0),
        cycles.requests_unanswered,
    );
    p99
}

/// Reads one bus for [`LENGTH`].
async fn measure(bus: Bus, slaves: SocketAddr) -> Cycles {
    let faults = Faults::default();
    let profile = Profile::parse("bench-meter.toml", METER, &faults);
    let profile = profile.unwrap_or_else(|| panic!("{:?}", faults.take()));
    let modbus = profile.modbus.clone().expect("the profile speaks Modbus");
    let mut points = Points::default();
    let place = Arc::new(Place::default());
    let units = (1..=bus.living).chain(bus.dead.then_some(DEAD));
    let plans = units
        .map(|unit| {
            let id = DeviceId::new(format!("u{unit}"));
            let device = points.add(id, None, &profile.id, &place, profile.specs()).expect("units differ");
            let mut plan = UnitPlan::new(unit, &modbus, &points, device);
            plan.interval = bus.interval;
            plan
        })
        .collect();
    let transport = Transport::Tcp { host: slaves.ip().to_string(), port: slaves.port() };
    let (sender, mut inputs) = mpsc::channel(1_024);
    let (clock, counters) = (Clock::system(), BusCounters::default());
    let start = clock.now().mono;
    let task =
        spawn(Settings::new("bench", transport), plans, clock.clone(), sender, counters.clone(), Doors::default());
    let mut cycles = Cycles::default();
    let mut last: HashMap<PointIx, Mono> = HashMap::new();
    while clock.now().mono.since(start) < LENGTH {
        let Some(input) = inputs.recv().await else { break };
        let Input::Readings(readings) = input else { continue };
        for reading in readings.iter().filter(|reading| reading.value.is_ok()) {
            let at = reading.received.mono;
            let Some(before) = last.insert(reading.point, at) else { continue };
            let ms = at.since(before).as_secs_f64() * 1_000.0;
            let finding = at.since(start) < FINDING;
            if finding { &mut cycles.while_finding } else { &mut cycles.steady }.push(ms);
        }
    }
    task.abort();
    let counters = counters.get();
    cycles.requests_unanswered = counters.requests - counters.answers;
    cycles.steady.sort_by(f64::total_cmp);
    cycles.while_finding.sort_by(f64::total_cmp);
    cycles
}

/// The unit that never answers.
const DEAD: u8 = 247;

/// Every unit but the dead one, for any number of connections; in a thread of its own, as another machine would be.
struct Slaves {
    address: SocketAddr,
}

impl Slaves {
    fn start() -> Self {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
        listener.set_nonblocking(true).expect("a socket can be made so");
        let address = listener.local_addr().expect("it is bound");
        // Ends with the process.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("it starts");
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("it is non-blocking");
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream));
                }
            });
        });
        Self { address }
    }
}

/// One request at a time, as a gateway before a serial line does; ends with the connection.
async fn serve(mut stream: TcpStream) {
    // Small answers must not wait for more; a stream that refuses the option still works.
    let _ = stream.set_nodelay(true);
    let mut request = [0; 12];
    while stream.read_exact(&mut request).await.is_ok() {
        let [t1, t2, _, _, _, _, unit, function, _, _, _, count] = request;
        if unit == DEAD {
            continue;
        }
        tokio::time::sleep(ANSWER).await;
        let bytes = count * 2;
        let mut answer = vec![t1, t2, 0, 0, 0, bytes + 3, unit, function, bytes];
        answer.extend((0..count).flat_map(|n| [unit, n]));
        if stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}
