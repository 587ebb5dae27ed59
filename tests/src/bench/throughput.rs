//! Readings a second through the whole path, and CPU seconds a million readings.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::load::{Flood, Load};
use super::median;
use super::subject::{Broker, Shape, Subject, site};
use super::yardstick::Work;
use crate::daemon::anmin;
use crate::http;

/// What one subject did with one flood.
#[derive(Clone, Copy, Debug)]
struct Run {
    per_second: f64,
    cpu_per_million: f64,
    /// Of the readings, what was given up because the disk could not follow; known where the run lasts until [`Until::Done`].
    shed: f64,
}

/// How long a run lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    /// All has been taken in and judged.
    Taken,
    /// All is on the disk and forwarded as well.
    Done,
}

/// What is sent in each tenth of a second where a run lasts until all is done and nobody acknowledges: without it the flood outruns
/// every disk, and what is given up costs less than what is kept.
const SLICE: u64 = 15_000;

/// Rounds of which the median is printed.
const ROUNDS: usize = 3;

fn measure(mut subject: Subject, load: Load, count: u64, until: Until) -> Run {
    let mut flood = Flood::connect(load);
    let mut known = 0;
    if subject.daemon().is_some() {
        // Each device once, until all of it is done, so that what a device's first reading costs is not counted as what a
        // reading costs: its topic is new to the connection, its names to the store and to the way out.
        known = u64::from(load.devices);
        flood.send(known);
        subject.settle(known);
    }
    let cpu = subject.cpu();
    let start = Instant::now();
    if until == Until::Done && load.qos == 0 {
        for slice in 1..=count.div_ceil(SLICE) {
            flood.send(SLICE.min(count - (slice - 1) * SLICE));
            let due = Duration::from_millis(100) * slice as u32;
            std::thread::sleep(due.saturating_sub(start.elapsed()));
        }
    } else {
        flood.send(count);
    }
    subject.wait(known + count);
    let seconds = start.elapsed().as_secs_f64();
    let shed = if until == Until::Done { subject.settle(known + count) } else { 0 };
    // A yardstick has ended by then and has said its own figure; anmin is still there.
    let used = subject.cpu_since(cpu);
    let count = count as f64;
    Run { per_second: count / seconds, cpu_per_million: used * 1e6 / count, shed: shed as f64 / count }
}

/// The smallest loop that keeps each device's last value, through Mosquitto.
fn measure_keeping(devices: u32, count: u64) -> Run {
    let broker = Broker::start();
    let all = u64::from(devices) + count;
    let mut subject = Subject::yardstick(broker.port, 0, Work::Keep, all);
    let start = Instant::now();
    Flood::connect(Load { port: broker.port, qos: 0, devices, connections: 4 }).send(all);
    subject.wait(all);
    let per_second = all as f64 / start.elapsed().as_secs_f64();
    Run { per_second, cpu_per_million: subject.cpu_since(0.0) * 1e6 / count as f64, shed: 0.0 }
}

fn middle(runs: &[Run]) -> Run {
    Run {
        per_second: median(runs.iter().map(|run| run.per_second).collect()),
        cpu_per_million: median(runs.iter().map(|run| run.cpu_per_million).collect()),
        shed: median(runs.iter().map(|run| run.shed).collect()),
    }
}

/// Through Mosquitto: anmin beside a subscriber that counts and the smallest loop that raises alarms.
pub fn through_mosquitto() {
    println!(
        "\nThrough Mosquitto, 1,000 devices, 1,000 rules bound, readings forwarded durably; {ROUNDS} rounds, medians"
    );
    println!(
        "{:<6}{:<26}{:>14}{:>18}{:>12}{:>12}",
        "QoS", "subject", "readings/s", "CPU s / million", "of count", "CPU / loop"
    );
    for (qos, count) in [(0, 200_000), (1, 100_000)] {
        let mut runs: [Vec<Run>; 3] = Default::default();
        for _ in 0..ROUNDS {
            for (n, runs) in runs.iter_mut().enumerate() {
                let broker = Broker::start();
                let load = Load { port: broker.port, qos, devices: 1_000, connections: 4 };
                let subject = match n {
                    0 => Subject::yardstick(broker.port, qos, Work::Count, count),
                    1 => Subject::yardstick(broker.port, qos, Work::Alarm, count),
                    _ => Subject::anmin(Shape { rules: 1_000, devices: 1_000, broker: Some(broker.port), qos }),
                };
                runs.push(measure(subject, load, count, Until::Taken));
            }
        }
        let [counts, smallest, anmin] = runs.map(|runs| middle(&runs));
        for (name, run) in [("rumqttc, counts", counts), ("smallest loop", smallest), ("anmin", anmin)] {
            println!(
                "{qos:<6}{name:<26}{:>14.0}{:>18.2}{:>12.2}{:>12.2}",
                run.per_second,
                run.cpu_per_million,
                run.per_second / counts.per_second,
                run.cpu_per_million / smallest.cpu_per_million
            );
        }
    }
    println!("wanted: anmin at least 0.90 of count, at most 2.00 times the loop's CPU");
}

/// The embedded broker: rules and devices from few to many, all in turn, against the first of each row. Beside the devices what
/// many of them cost the smallest loop: memory that is far away is far away for every program.
pub fn embedded() {
    const COUNT: u64 = 400_000;
    let shape = |rules, devices| Shape { rules, devices, broker: None, qos: 1 };
    let groups = [
        ("rules on each of 100 devices", vec![shape(1, 100), shape(1_000, 100), shape(10_000, 100)]),
        ("devices with one rule", vec![shape(1, 100), shape(1, 1_000), shape(1, 10_000), shape(1, 100_000)]),
    ];
    for (title, shapes) in groups {
        println!(
            "\nEmbedded broker, {title}; {COUNT} readings, {ROUNDS} rounds, medians; QoS 0 at {} readings/s",
            SLICE * 10
        );
        println!(
            "{:<6}{:>8}{:>10}{:>14}{:>18}{:>16}{:>8}",
            "QoS", "rules", "devices", "readings/s", "CPU s / million", "CPU / first", "shed"
        );
        for qos in [0, 1] {
            let mut runs: Vec<Vec<Run>> = vec![Vec::new(); shapes.len()];
            for _ in 0..ROUNDS {
                for (shape, runs) in shapes.iter().zip(&mut runs) {
                    let subject = Subject::anmin(*shape);
                    let port = subject.daemon().and_then(|daemon| daemon.broker).expect("it has a broker").port();
                    let load = Load { port, qos, devices: shape.devices, connections: 4 };
                    runs.push(measure(subject, load, COUNT, Until::Done));
                }
            }
            let runs: Vec<Run> = runs.iter().map(|runs| middle(runs)).collect();
            for (shape, run) in shapes.iter().zip(&runs) {
                println!(
                    "{qos:<6}{:>8}{:>10}{:>14.0}{:>18.2}{:>16.2}{:>7.0}%",
                    shape.rules,
                    shape.devices,
                    run.per_second,
                    run.cpu_per_million,
                    run.cpu_per_million / runs[0].cpu_per_million,
                    run.shed * 100.0
                );
            }
        }
    }
    println!("the smallest loop that keeps each device's last value, through Mosquitto");
    let mut first = None;
    for devices in [100, 100_000] {
        let runs: Vec<Run> = (0..ROUNDS).map(|_| measure_keeping(devices, COUNT)).collect();
        let run = middle(&runs);
        let ratio = run.cpu_per_million / *first.get_or_insert(run.cpu_per_million);
        println!("0{devices:>23}{:>14.0}{:>18.2}{ratio:>16.2}", run.per_second, run.cpu_per_million);
    }
    println!("wanted: 1 to 1,000 rules and 100 to 100,000 devices each at most 1.10 times the CPU a reading");
}

/// What it costs to be watched: log and figures as a site has them, a scraper at the door, against a log of errors alone and
/// nobody who asks.
pub fn watched() {
    const COUNT: u64 = 400_000;
    const EVERY: Duration = Duration::from_secs(1);
    println!("\nWatched: embedded broker, QoS 1, 1,000 devices, one rule; {COUNT} readings, {ROUNDS} rounds, medians");
    println!("{:<44}{:>14}{:>18}", "subject", "readings/s", "CPU s / million");
    let shape = Shape { rules: 1, devices: 1_000, broker: None, qos: 1 };
    let mut runs: [Vec<Run>; 2] = Default::default();
    for round in 0..ROUNDS {
        // By turns the one and the other first.
        for n in [round % 2, 1 - round % 2] {
            let site = site(shape);
            let path = site.path("anmin.toml");
            let subject = Subject::anmin_on(site, shape);
            let daemon = subject.daemon().expect("it is anmin");
            let (port, web) = (daemon.broker.expect("it has a broker").port(), daemon.web);
            if n == 1 {
                // Only now: where it listens is told at info.
                let text = std::fs::read_to_string(&path).expect("the site has a configuration");
                std::fs::write(&path, format!("{text}[log]\nlevel = \"error\"\n")).expect("it is ours");
                let told = anmin(&["rules", "reload", "--url", &format!("http://{web}"), "--who", "bench"]);
                assert!(told.status.success(), "{told:?}");
            }
            let over = AtomicBool::new(n == 1);
            runs[n].push(std::thread::scope(|scope| {
                scope.spawn(|| {
                    // Until the daemon has gone, at the latest.
                    while !over.load(Ordering::Relaxed) && http::request(web, "GET", "/metrics", "").is_ok() {
                        std::thread::sleep(EVERY);
                    }
                });
                let load = Load { port, qos: 1, devices: 1_000, connections: 4 };
                let run = measure(subject, load, COUNT, Until::Taken);
                over.store(true, Ordering::Relaxed);
                run
            }));
        }
    }
    let [on, off] = runs.map(|runs| middle(&runs));
    for (name, run) in [("log at info, /metrics asked every second", on), ("log of errors alone, nobody asks", off)] {
        println!("{name:<44}{:>14.0}{:>18.2}", run.per_second, run.cpu_per_million);
    }
    println!(
        "on of off: {:.3} of the readings/s, {:.3} times the CPU; wanted: within noise",
        on.per_second / off.per_second,
        on.cpu_per_million / off.cpu_per_million
    );
}
