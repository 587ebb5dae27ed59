//! Screens and programs at the duty desk, and what they cost an alarm: 200 live streams and 50 requests a second while
//! 10,000 readings a second flow, against the same without them.
//!
//! The screens are a process of their own that gives way to everything else, as they are other people's machines.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::load::{Latencies, Load, paced};
use super::subject::{Shape, Subject, site};
use super::{median, quantile};
use crate::http;
use crate::peers::Peer;

const SCREENS: u64 = 200;
/// As a program: opens the screens.
pub const SCREENS_LOOK: &str = "screens";
const ALL_LOOK: &str = "all look";
const REQUESTS_A_SECOND: u32 = 50;
const READINGS_A_SECOND: u64 = 10_000;
const ROUNDS: usize = 5;
const LENGTH: Duration = Duration::from_secs(10);
const SHAPE: Shape = Shape { rules: 1, devices: 1_000, broker: None, qos: 1 };

/// What a screen asks for when it is opened and used.
const PATHS: [&str; 5] = [
    "/api/v1/status",
    "/api/v1/alarms?limit=200",
    "/api/v1/incidents",
    "/api/v1/points?limit=200",
    "/api/v1/journal?limit=50",
];

pub fn run() {
    println!(
        "\nAlarm latency in ms at {READINGS_A_SECOND} readings/s, embedded broker; {ROUNDS} rounds of {LENGTH:?}, medians"
    );
    // Alone twice: how far two runs of the same lie apart is what the machine adds.
    let [mut alone, mut again, mut used] = [const { Vec::new() }; 3];
    let mut answers = Vec::new();
    for _ in 0..ROUNDS {
        alone.push(round(0, 0).0);
        let (latencies, answered) = round(SCREENS, REQUESTS_A_SECOND);
        used.push(latencies);
        answers.push(answered);
        again.push(round(0, 0).0);
    }
    let figure = |rounds: &[Latencies], share| median(rounds.iter().map(|round| quantile(&round.ms, share)).collect());
    println!("{:<28}{:>10}{:>10}{:>24}", "", "p50", "p99", "p99 of each round");
    for (what, rounds) in [("nobody looks", &alone), ("the same again", &again), ("200 screens, 50 requests/s", &used)]
    {
        let each: Vec<String> = rounds.iter().map(|round| format!("{:.1}", quantile(&round.ms, 0.99))).collect();
        println!("{what:<28}{:>10.2}{:>10.2}    {}", figure(rounds, 0.5), figure(rounds, 0.99), each.join(" "));
    }
    println!(
        "requests answered each second: {:.0}; wanted: {REQUESTS_A_SECOND}, and the same latency",
        median(answers)
    );
}

/// Latencies, and how many requests were answered each second.
fn round(screens: u64, requests: u32) -> (Latencies, f64) {
    let subject = Subject::anmin_on(site(SHAPE), SHAPE);
    let daemon = subject.daemon().expect("it is anmin");
    let (web, port) = (daemon.web, daemon.broker.expect("it has a broker").port());
    let over = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicU64::new(0));
    let mut looking = (screens > 0).then(|| {
        let own = std::env::current_exe().expect("the bench knows where it lies").display().to_string();
        let mut looking =
            Peer::start("nice", &["-n", "19", &own, SCREENS_LOOK, &web.port().to_string(), &screens.to_string()]);
        looking.until(ALL_LOOK);
        looking
    });
    let asking = (requests > 0).then(|| {
        let (over, answered) = (Arc::clone(&over), Arc::clone(&answered));
        thread::spawn(move || ask(web, requests, &over, &answered))
    });
    let began = Instant::now();
    let load = Load { port, qos: 1, devices: SHAPE.devices, connections: 1 };
    let measured = paced(load, READINGS_A_SECOND, LENGTH, "anmin/v1/acceptance/alarm/#");
    let took = began.elapsed().as_secs_f64();
    let ended = looking.as_mut().map(Peer::said).unwrap_or_default();
    over.store(true, Ordering::Relaxed);
    if let Some(asking) = asking {
        asking.join().expect("nobody panics in it");
    }
    assert!(ended.is_empty(), "every screen still follows: {ended:?}");
    (measured, answered.load(Ordering::Relaxed) as f64 / took)
}

/// So many live streams, read and thrown away, until the process is ended.
pub fn look(port: u16, screens: u64) {
    let readers: Vec<_> = (0..screens).map(|_| follow(port)).collect();
    println!("{ALL_LOOK}");
    readers.into_iter().for_each(|reader| reader.join().expect("nobody panics in it"));
}

/// Says so when it ends.
fn follow(port: u16) -> thread::JoinHandle<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the desk listens");
    write!(stream, "GET /api/v1/events?readings=yes HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n")
        .expect("the desk reads");
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).expect("an answer");
    assert!(line.contains("200"), "{line}");
    let reader = thread::Builder::new().stack_size(256 << 10).spawn(move || {
        let mut chunk = vec![0; 64 << 10];
        while stream.read(&mut chunk).is_ok_and(|read| read > 0) {}
        println!("a screen was let go");
    });
    reader.expect("a thread can be started")
}

/// Asks at an even rate, one after the other.
fn ask(web: SocketAddr, a_second: u32, over: &AtomicBool, answered: &AtomicU64) {
    let every = Duration::from_secs(1) / a_second;
    let mut due = Instant::now();
    for path in PATHS.iter().cycle() {
        if over.load(Ordering::Relaxed) {
            return;
        }
        thread::sleep(due.saturating_duration_since(Instant::now()));
        due += every;
        if http::request(web, "GET", path, "").is_ok_and(|answer| answer.status == 200) {
            answered.fetch_add(1, Ordering::Relaxed);
        }
    }
}
