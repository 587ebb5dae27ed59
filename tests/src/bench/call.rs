//! From a reading that crosses the red limit to the station's call on the wire, and to the notice that a group's robot gets; and a
//! storm of a thousand alarms in ten seconds, all of which must be journalled and streamed. `make bench BENCH=call`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::load::{CROSSINGS, Latencies, Load, evenly, paced, topic};
use super::subject::{Shape, Subject, site};
use super::{median, quantile};
use crate::mqtt::Mqtt;
use crate::peers::take_notice;
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
    notice();
    storm();
}

/// A robot that accepts everything, and when each message came that says red and nothing else.
fn robot() -> (u16, Arc<Mutex<Vec<Instant>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let heard: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let known = Arc::clone(&heard);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut body = Vec::new();
            while take_notice(&stream, &mut body).is_some() {
                if String::from_utf8_lossy(&body).contains("【红色】") {
                    known.lock().expect("nobody panics with it").push(Instant::now());
                }
                body.clear();
            }
        }
    });
    (port, heard)
}

/// One red alarm every half a second, each in a room of its own, so that none is gathered with others.
fn notice() {
    const RATE: u64 = 10_000;
    const LENGTH: Duration = Duration::from_secs(50);
    let (port, heard) = robot();
    let site = red_site();
    site.write("robot", &format!("http://127.0.0.1:{port}/\n"));
    let notice = "[[notice]]\nid = \"duty\"\nrobot = \"wecom\"\naddress_file = \"robot\"\nper_minute = 1000\nsystem = false\n\
                  [desk]\nstorm_alarms = 10000\n";
    site.write("anmin.d/notice.toml", notice);
    let subject = Subject::anmin_on(site, SHAPE);
    let broker = subject.daemon().and_then(|daemon| daemon.broker).expect("it has a broker").port();
    let load = Load { port: broker, qos: 1, devices: DEVICES, connections: 1 };
    let rounds_a_second = RATE / u64::from(DEVICES);
    let crosses = |device: u32, round: u64| {
        let every = rounds_a_second / 2;
        round.is_multiple_of(every) && u64::from(device) == round / every * 4 % u64::from(DEVICES)
    };
    let mut sent = Vec::new();
    drop(evenly(
        load,
        RATE,
        |so_far| so_far < LENGTH,
        crosses,
        |crossing| sent.extend(crossing.iter().map(|_| Instant::now())),
    ));
    std::thread::sleep(Duration::from_secs(3));
    let heard = heard.lock().expect("nobody panics with it");
    // They are further apart than the slowest takes, so each is answered by the first that comes after it.
    let mut ms: Vec<f64> = sent
        .iter()
        .filter_map(|sent| heard.iter().find(|heard| *heard >= sent).map(|heard| (*heard - *sent).as_secs_f64() * 1e3))
        .collect();
    ms.sort_by(f64::total_cmp);
    let [half, most, longest] = [0.5, 0.99, 1.0].map(|share| quantile(&ms, share));
    println!(
        "notice: {RATE} readings/s, a red alarm to the request at a group's robot: p50 {half:.2} ms, p99 {most:.2} ms, longest \
         {longest:.2} ms; {} of {} heard; wanted: p99 below 100 ms",
        heard.len(),
        sent.len(),
    );
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
        devices.publish(&topic(n), format!(r#"{{"v":60.0,"ts":{ts},"seq":{n}}}"#));
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
