//! Readings a second through the whole path, and CPU seconds a million readings.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::load::{Load, flood};
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
}

/// Rounds of which the median is printed.
const ROUNDS: usize = 3;

fn measure(mut subject: Subject, load: Load, count: u64) -> Run {
    let mut known = 0;
    if subject.daemon().is_some() {
        // Each device once, so that what a device's first reading costs is not counted as what a reading costs.
        known = u64::from(load.devices);
        flood(load, known);
        subject.wait(known);
    }
    let cpu = subject.cpu();
    let start = Instant::now();
    flood(load, count);
    subject.wait(known + count);
    let seconds = start.elapsed().as_secs_f64();
    // A yardstick has ended by then and has said its own figure; anmin is still there.
    let used = subject.cpu_since(cpu);
    Run { per_second: count as f64 / seconds, cpu_per_million: used * 1e6 / count as f64 }
}

fn middle(runs: &[Run]) -> Run {
    Run {
        per_second: median(runs.iter().map(|run| run.per_second).collect()),
        cpu_per_million: median(runs.iter().map(|run| run.cpu_per_million).collect()),
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
                runs.push(measure(subject, load, count));
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

/// The embedded broker: rules and devices from few to many, all in turn, against the first of each row.
pub fn embedded() {
    const COUNT: u64 = 400_000;
    let shape = |rules, devices| Shape { rules, devices, broker: None, qos: 1 };
    let groups = [
        ("rules on each of 100 devices", vec![shape(1, 100), shape(1_000, 100), shape(10_000, 100)]),
        ("devices with one rule", vec![shape(1, 100), shape(1, 1_000), shape(1, 10_000), shape(1, 100_000)]),
    ];
    for (title, shapes) in groups {
        println!("\nEmbedded broker, {title}; {COUNT} readings, {ROUNDS} rounds, medians");
        println!(
            "{:<6}{:>8}{:>10}{:>14}{:>18}{:>16}",
            "QoS", "rules", "devices", "readings/s", "CPU s / million", "CPU / first"
        );
        for qos in [0, 1] {
            let mut runs: Vec<Vec<Run>> = vec![Vec::new(); shapes.len()];
            for _ in 0..ROUNDS {
                for (shape, runs) in shapes.iter().zip(&mut runs) {
                    let subject = Subject::anmin(*shape);
                    let port = subject.daemon().and_then(|daemon| daemon.broker).expect("it has a broker").port();
                    let load = Load { port, qos, devices: shape.devices, connections: 4 };
                    runs.push(measure(subject, load, COUNT));
                }
            }
            let runs: Vec<Run> = runs.iter().map(|runs| middle(runs)).collect();
            for (shape, run) in shapes.iter().zip(&runs) {
                println!(
                    "{qos:<6}{:>8}{:>10}{:>14.0}{:>18.2}{:>16.2}",
                    shape.rules,
                    shape.devices,
                    run.per_second,
                    run.cpu_per_million,
                    run.cpu_per_million / runs[0].cpu_per_million
                );
            }
        }
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
                let run = measure(subject, Load { port, qos: 1, devices: 1_000, connections: 4 }, COUNT);
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
