//! From a reading that crosses the red limit to the station's call on the wire; and a storm of a thousand alarms in ten seconds, all
//! of which must be journalled and streamed. `make bench BENCH=call`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::load::{CROSSINGS, Latencies, Load, paced};
use super::subject::{Shape, Subject, site};
use super::{median, quantile};
use crate::mqtt::Mqtt;
use crate::site::Site;

const DEVICES: u32 = 1_000;
const ROUNDS: usize = 3;
const LENGTH: Duration = Duration::from_secs(8);
const SHAPE: Shape = Shape { rules: 1, devices: DEVICES, broker: None, qos: 1 };
/// Of the storm.
const ALARMS: u32 = 1_000;
const STORM: Duration = Duration::from_secs(10);

/// The limit that is crossed is a red one, which calls the station.
fn red_site() -> Site {
    let site = site(SHAPE);
    for (file, calm, grave) in
        [("rules/bench/r0.toml", "[limit.yellow]", "[limit.red]"), ("rules/bench/r0.rhai", "yellow", "red")]
    {
        let text = std::fs::read_to_string(site.path(file)).expect("it was written with the site");
        site.write(file, &text.replace(calm, grave));
    }
    site
}

pub fn run() {
    println!(
        "\nCall latency in ms, embedded broker, QoS 1, {DEVICES} devices, {CROSSINGS} red alarms a second; {ROUNDS} rounds of {LENGTH:?}"
    );
    println!("{:<12}{:>10}{:>10}{:>10}{:>22}", "readings/s", "p50", "p99", "longest", "calls seen");
    for rate in [1_000, 10_000] {
        let rounds: Vec<Latencies> = (0..ROUNDS)
            .map(|_| {
                let subject = Subject::anmin_on(red_site(), SHAPE);
                let port = subject.daemon().and_then(|daemon| daemon.broker).expect("it has a broker").port();
                let load = Load { port, qos: 1, devices: DEVICES, connections: 1 };
                paced(load, rate, LENGTH, "anmin/v1/acceptance/call/#")
            })
            .collect();
        let middle = |share: f64| median(rounds.iter().map(|round| quantile(&round.ms, share)).collect());
        let (seen, crossed) = rounds.iter().fold((0, 0), |(a, b), round| (a + round.ms.len(), b + round.crossed));
        let [half, most, longest] = [0.5, 0.99, 1.0].map(middle);
        println!("{rate:<12}{half:>10.2}{most:>10.2}{longest:>10.2}{seen:>12} of {crossed}");
    }
    println!("wanted: p99 below 100 ms at 10,000/s, and every call seen");
    storm();
}

fn storm() {
    let subject = Subject::anmin_on(red_site(), SHAPE);
    let daemon = subject.daemon().expect("it is one");
    let streamed = follow(daemon.web);
    let mut devices = Mqtt::connect(daemon.broker.expect("it has a broker").port(), "storm");
    let start = Instant::now();
    for n in 0..ALARMS {
        let due = STORM * n / ALARMS;
        std::thread::sleep(due.saturating_sub(start.elapsed()));
        let ts = super::load::wall_ms();
        devices.publish(&format!("bench/d{n}/up"), format!(r#"{{"v":60.0,"ts":{ts},"seq":{n}}}"#));
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    let journalled = loop {
        let open = daemon.get("/api/v1/status")["open_alarms"].as_u64().unwrap_or(0);
        if (open >= u64::from(ALARMS) && streamed.load(Ordering::Relaxed) >= ALARMS as usize)
            || Instant::now() > deadline
        {
            break open;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let took = start.elapsed();
    let incidents = daemon.get("/api/v1/incidents");
    println!(
        "storm: {ALARMS} alarms in {STORM:?}: {journalled} open, {} streamed, {:.1} s after the first; {} incidents on the board, the first {}",
        streamed.load(Ordering::Relaxed),
        took.as_secs_f64(),
        incidents["of"],
        incidents["incidents"][0]["level"],
    );
}

/// Counts the hazard alarms that the live stream says have been raised.
fn follow(web: SocketAddr) -> Arc<AtomicUsize> {
    let mut stream = TcpStream::connect(web).expect("the daemon listens");
    let ask = format!("GET /api/v1/events HTTP/1.1\r\nHost: {web}\r\n\r\n");
    stream.write_all(ask.as_bytes()).expect("the daemon reads");
    let (seen, heard) = (Arc::new(AtomicUsize::new(0)), std::sync::mpsc::channel());
    let count = Arc::clone(&seen);
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if line.starts_with("event: hello") {
                let _ = heard.0.send(());
            }
            if line.starts_with("data: ") && line.contains("\"cause\":\"raised\"") && line.contains("bench/r0") {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    heard.1.recv_timeout(Duration::from_secs(10)).expect("the stream begins");
    seen
}
