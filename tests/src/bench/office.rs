//! An office that was away, and many that listen: how long it takes to catch up, and what it costs an alarm.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anmin::store::{Fact, StateStore, Told, Turn};
use anmin_rules::alarm::{Alarm, AlarmId, AlarmState, By, Cause, Class, Condition, Subject as Of, Transition};
use anmin_rules::rule::{Evidence, Level, RuleId, Text};
use anmin_sensors::point::{Hazard, PointId};
use anmin_sensors::time::{Mono, Now, Wall};

use super::load::{Latencies, Load, paced};
use super::subject::{Shape, Subject, site};
use super::{median, quantile};
use crate::daemon::Daemon;
use crate::peers::take_request;
use crate::site::Site;

const EVENTS: usize = 100_000;
const A_TURN: usize = 1_000;
const LISTENERS: usize = 200;
const ROUNDS: usize = 3;
const LENGTH: Duration = Duration::from_secs(8);
const SHAPE: Shape = Shape { rules: 1, devices: 1_000, broker: None, qos: 1 };

pub fn run() {
    println!("\nAn office that was away: {EVENTS} events in order");
    for (form, seconds) in [("live stream from the beginning", live()), ("posted, signed, 500 a post", posted())] {
        println!("{form:<34}{seconds:>8.2} s{:>12.0} events/s", EVENTS as f64 / seconds);
    }
    println!("wanted: under 10 s");

    println!("\nAlarm latency in ms at 1,000 readings/s, embedded broker; {ROUNDS} rounds of {LENGTH:?}, medians");
    let [mut alone, mut heard] = [const { Vec::new() }; 2];
    for _ in 0..ROUNDS {
        alone.push(latency(0));
        heard.push(latency(LISTENERS));
    }
    let figure = |rounds: &[Latencies], share| median(rounds.iter().map(|round| quantile(&round.ms, share)).collect());
    for (listeners, rounds) in [(0, &alone), (LISTENERS, &heard)] {
        let (p50, p99) = (figure(rounds, 0.5), figure(rounds, 0.99));
        println!("{listeners:>4} subscribers that listen{p50:>10.2}{p99:>10.2}");
    }
    println!("wanted: the same");
}

fn latency(listeners: usize) -> Latencies {
    let made = site(SHAPE);
    made.write("anmin.d/office.toml", "[[subscriber]]\nid = \"office\"\n");
    let subject = Subject::anmin_on(made, SHAPE);
    let daemon = subject.daemon().expect("it is anmin");
    let ended: Vec<Receiver<()>> = (0..listeners).map(|_| listen(daemon.web, "office", "")).collect();
    let port = daemon.broker.expect("it has a broker").port();
    let load = Load { port, qos: 1, devices: SHAPE.devices, connections: 1 };
    let measured = paced(load, 1_000, LENGTH, "anmin/v1/acceptance/alarm/#");
    assert!(ended.iter().all(|ended| ended.try_recv().is_err()), "every listener still listens");
    measured
}

fn connect(web: SocketAddr, subscriber: &str, last: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(web).expect("the desk listens");
    write!(stream, "GET /api/v1/subscriptions/{subscriber}/events HTTP/1.0\r\nHost: {web}\r\n{last}\r\n")
        .expect("the desk reads");
    BufReader::new(stream)
}

/// Reads a stream and throws it away; says when it has ended.
fn listen(web: SocketAddr, subscriber: &str, last: &str) -> Receiver<()> {
    let (end, ended) = channel();
    let mut stream = connect(web, subscriber, last);
    let mut line = String::new();
    stream.read_line(&mut line).expect("an answer");
    assert!(line.contains("200"), "{line}");
    std::thread::Builder::new()
        .stack_size(64 << 10)
        .spawn(move || {
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
            // Nobody asks any more once the round is over.
            let _ = end.send(());
        })
        .expect("a thread can be started");
    ended
}

fn live() -> f64 {
    let made = Site::new("bench-office", "[[subscriber]]\nid = \"office\"\n");
    fill(&made);
    let daemon = Daemon::start(made.folder());
    let start = Instant::now();
    let mut stream = connect(daemon.web, "office", "Last-Event-ID: beginning\r\n");
    let (mut events, mut last, mut line) = (0, 0, String::new());
    while events < EVENTS {
        line.clear();
        assert_ne!(stream.read_line(&mut line).expect("the stream goes on"), 0, "it has ended after {events} events");
        if line.starts_with("event: alarm.event") {
            events += 1;
        } else if let Some((_, n)) = line.strip_prefix("id: ").and_then(|id| id.trim().split_once('-')) {
            let n: usize = n.parse().expect("a number");
            assert!(n >= last, "{n} behind {last}");
            last = n;
        }
    }
    start.elapsed().as_secs_f64()
}

fn posted() -> f64 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let taken = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&taken);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut body = Vec::new();
            while take_request(&stream, &mut body).is_some() {
                let events = body.windows(EVENT.len()).filter(|window| *window == EVENT).count();
                counted.fetch_add(events, Ordering::Relaxed);
                body.clear();
            }
        }
    });
    let made = Site::new(
        "bench-posted",
        &format!("[[subscriber]]\nid = \"office\"\nurl = \"http://127.0.0.1:{port}/\"\nsecret_file = \"secret\"\n"),
    );
    made.write("secret", "0123456789abcdef\n");
    fill(&made);
    let _daemon = Daemon::start(made.folder());
    let start = Instant::now();
    while taken.load(Ordering::Relaxed) < EVENTS {
        std::thread::sleep(Duration::from_millis(5));
    }
    start.elapsed().as_secs_f64()
}

const EVENT: &[u8] = b"\"type\":\"alarm.event\"";

/// A journal of so many transitions, of which the office has been told none.
fn fill(made: &Site) {
    let at = Wall::from_millis(1_772_328_600_000);
    let (mut store, _) = StateStore::open(&made.path("data"), at).expect("the folder can be written");
    let lineage = store.reader().and_then(|reader| reader.lineage()).expect("it is open");
    let told = [Fact::Told(Told { subscriber: "office".into(), lineage, n: 0 })];
    for turn in 0..EVENTS / A_TURN {
        let transitions: Vec<Arc<Transition>> =
            (0..A_TURN).map(|n| Arc::new(transition((turn * A_TURN + n) as u128, at))).collect();
        let turn = Turn { transitions: &transitions, facts: &told, ..Turn::default() };
        store.commit(&turn).expect("the disk takes it");
    }
}

fn transition(n: u128, at: Wall) -> Transition {
    let text = |zh: &str, en: &str| Text { zh: zh.to_owned(), en: en.to_owned() };
    let alarm = Alarm {
        drill: None,
        id: AlarmId(uuid::Uuid::from_u128(n)),
        rule: RuleId::new("gas/leak"),
        subject: Of::Point(PointId::new(format!("d{n}/lel"))),
        class: Class::Hazard(Hazard::Gas),
        title: text("可燃气体泄漏", "Combustible gas leak"),
        place: Arc::default(),
        case: None,
        incident: None,
        level: Level::Orange,
        peak: Level::Orange,
        condition: Condition::Normal,
        acknowledged: Some(By { who: "bench".to_owned(), at }),
        latched: false,
        shelved: None,
        out_of_service: None,
        escalation: 0,
        peak_escalation: 0,
        escalate_at: None,
        realarm_at: None,
        raised_at: at,
        changed_at: at,
        clock_doubtful: false,
        seq: 2,
        evidence: Evidence::default(),
        message: text("3号楼2单元5层501可燃气体浓度26.5 %LEL，超过25 %LEL", "Combustible gas 26.5 %LEL above 25 %LEL"),
        advice: text("关闭燃气总阀，开窗通风。", "Close the gas valve, open windows."),
        cap_log: Vec::new(),
        broadcast: None,
        rerouted: Vec::new(),
        sirens: Vec::new(),
        moved: 0,
    };
    let now = Now { mono: Mono::default(), wall: at };
    Transition {
        from: AlarmState::Acknowledged,
        to: AlarmState::Normal,
        cause: Cause::Returned,
        at: now,
        alarm: Arc::new(alarm),
    }
}
