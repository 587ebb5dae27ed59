//! Verdicts and bisection as functions; the lane against a scripted database and against the real VictoriaMetrics.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::Mutex;

use anmin_sensors::document::{Document, Faults};
use anmin_sensors::point::{DeviceId, Kind, Place, PointIx, PointSpec, Points};
use anmin_sensors::reading::{Fault, Quality, Sample, Value};
use anmin_sensors::time::{Now, Wall};
use flate2::read::GzDecoder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::line::tests::{Line, parse};
use super::*;
use crate::store::{Limits, NewPoint, Readings, ReadingsBatch};

fn settings(toml: &str) -> Result<Settings, Vec<String>> {
    let faults = Faults::default();
    let doc = Document::parse("site.toml", toml, &faults).expect("TOML");
    let settings = Settings::read(&doc.root(&faults), Path::new("."));
    let faults: Vec<String> = faults.take().iter().map(ToString::to_string).collect();
    if faults.is_empty() { Ok(settings.expect("no fault, so there are settings")) } else { Err(faults) }
}

#[test]
fn a_stanza_is_read_and_its_faults_are_named() {
    let good = settings("url = 'http://127.0.0.1:8086'\nbucket = 'anmin'\ntags = { site = 'spring' }").unwrap();
    assert_eq!((&*good.id, good.batch_max, good.timeout), ("influx", 5_000, Duration::from_secs(5)));
    let cases = [
        ("url = 'http://127.0.0.1:1'", "site.toml:1:1: `bucket` is missing"),
        ("bucket = 'b'\nurl = 'ftp://x'", "site.toml:2:7: `url` is \"ftp://x\", expected http:// or https://"),
        (
            "bucket = 'b'\nurl = 'http://127.0.0.1:1'\nbatch_max = 0",
            "site.toml:3:13: `batch_max` is 0, expected 1 to 50000",
        ),
        (
            "bucket = 'b'\nurl = 'http://127.0.0.1:1'\nid = 'a b'",
            "site.toml:3:6: `id` is \"a b\", expected 1 to 64 letters",
        ),
        ("bucket = 'b'\nurl = 'http://127.0.0.1:1'\nmeasurement = '#x'", "site.toml:3:15: \"#x\" cannot name"),
        (
            "bucket = 'b'\nurl = 'http://127.0.0.1:1'\ntags = { quality = 'x' }",
            "site.toml:3:8: \"quality\" cannot name",
        ),
        ("bucket = 'b'\nurl = 'http://127.0.0.1:1'\ntoken_file = 'nowhere'", "site.toml:3:14: `token_file` names"),
        ("bucket = 'b'\nurl = 'http://127.0.0.1:1'\nbucke = 1", "site.toml:3:1: `bucke` is not a known key"),
    ];
    for (toml, fault) in cases {
        let found = settings(toml).expect_err(toml);
        assert!(found.iter().any(|found| found.starts_with(fault)), "{toml}: {found:?}");
    }
}

#[test]
fn what_is_said_of_a_line_names_no_home() {
    for (text, wanted) in [
        (
            "gas.lel,building=3,floor=5,point=g/lel,room=5\\ 01,unit=2 value=1 17",
            "gas.lel,building=3,floor=…,point=g/lel,room=…,unit=… value=1 17",
        ),
        ("unable to parse 'a,room=501 value=1': bad", "unable to parse 'a,room=… value=1': bad"),
        ("device.text,room=501 text=\"Mrs Wang, 501\" 17", "device.text,room=… text=…"),
        ("a,room=501", "a,room=…"),
        ("no such database", "no such database"),
    ] {
        assert_eq!(without_home(text), wanted);
    }
}

#[test]
fn the_write_address_keeps_a_path_and_escapes_names() {
    let at = |url: &str| {
        let settings = settings(&format!("url = '{url}'\nbucket = 'b'")).unwrap();
        let query = format!("bucket={}", percent("一 b&c"));
        format!("{:?}", settings.target.at("/api/v2/write", &query).unwrap())
    };
    for (url, wanted) in [
        ("http://127.0.0.1:8086", "http://127.0.0.1:8086/api/v2/write?bucket=%E4%B8%80%20b%26c"),
        ("http://127.0.0.1:8086/", "http://127.0.0.1:8086/api/v2/write?"),
        ("http://127.0.0.1/insert/0/influx", "http://127.0.0.1/insert/0/influx/api/v2/write?"),
        ("http://127.0.0.1/x/api/v2/write", "http://127.0.0.1/x/api/v2/write?"),
    ] {
        assert!(at(url).contains(wanted), "{url}: {}", at(url));
    }
}

/// Drives [`Parts`] against a database that refuses `poison` and bodies above `largest` lines. Gives the refused lines,
/// whether it gave up, and the number of requests; panics when a good line is set aside or never sent.
fn drive(
    lines: usize,
    limit: usize,
    trusted: bool,
    poison: &BTreeSet<usize>,
    largest: usize,
) -> (BTreeSet<usize>, bool, u32) {
    let mut parts = Parts::new(lines, limit, trusted);
    let mut taken = BTreeSet::new();
    while let Some(range) = parts.next() {
        parts.requests += 1;
        assert!(parts.requests < 100_000, "it never ends");
        if range.len() > largest {
            parts.handle_too_large();
        } else if range.clone().any(|line| poison.contains(&line)) {
            if parts.handle_poison() == Step::RefusesAll {
                return (parts.refused.into_iter().collect(), true, parts.requests);
            }
        } else {
            taken.extend(range);
            parts.handle_taken();
        }
    }
    let refused: BTreeSet<usize> = parts.refused.into_iter().collect();
    let all: BTreeSet<usize> = (0..lines).collect();
    assert_eq!(&taken | &refused, all, "every line is sent or set aside");
    (refused, false, parts.requests)
}

#[test]
fn one_poison_line_is_found_in_a_logarithm_of_tries() {
    for lines in [1, 2, 3, 100, 1_000, 5_000] {
        for at in [0, lines / 3, lines / 2, lines - 1] {
            let (refused, gave_up, requests) = drive(lines, lines, true, &BTreeSet::from([at]), usize::MAX);
            assert_eq!((refused, gave_up), (BTreeSet::from([at]), false));
            let bound = 2 * lines.next_power_of_two().ilog2() + 3;
            assert!(requests <= bound, "{requests} requests for line {at} of {lines}");
        }
    }
}

#[test]
fn any_poison_is_set_aside_and_nothing_else() {
    let mut seed = 3_u64;
    let mut random = move |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    for round in 0..2_000 {
        let lines = 1 + random(200);
        let limit = 1 + random(300);
        let largest = if round % 3 == 0 { 1 + random(50) } else { usize::MAX };
        let count = random(lines.min(20));
        // In one stretch or all over.
        let from = random(lines - count);
        let poison: BTreeSet<usize> =
            (0..count).map(|n| if round % 2 == 0 { from + n } else { random(lines) }).collect();
        let (refused, gave_up, requests) = drive(lines, limit, true, &poison, largest);
        if gave_up {
            assert!(poison.len() > 3, "{poison:?} of {lines} lines");
        } else if requests <= MOST_REQUESTS {
            assert_eq!(refused, poison, "{lines} lines");
        }
    }
}

#[test]
fn a_database_that_refuses_everything_costs_no_line() {
    for lines in [1, 2, 5, 5_000] {
        let all: BTreeSet<usize> = (0..lines).collect();
        let (refused, gave_up, requests) = drive(lines, 5_000, false, &all, usize::MAX);
        assert!(gave_up && refused.is_empty(), "{lines} lines: {refused:?}");
        assert!(requests < 60, "{requests}");
    }
    // A quiet site whose first line is poison: nothing is known about the database, so nothing is thrown away yet.
    assert!(drive(1, 10, false, &BTreeSet::from([0]), usize::MAX).1);
    assert!(!drive(1, 10, true, &BTreeSet::from([0]), usize::MAX).1);
}

/// A database of ours: keeps what it takes, does as the script says, one request after the other.
struct Database {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// (series, time) to the fields: a repeat overwrites itself, as InfluxDB does.
    points: BTreeMap<(String, i64), String>,
    script: Vec<Answers>,
    /// What it does once the script is over.
    always: Option<Answers>,
    requests: usize,
    stored_twice: usize,
    /// Times in the order in which they came.
    arrived: Vec<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Answers {
    Takes,
    Status(u16, &'static str),
    /// Takes the lines and says nothing.
    Silence,
    /// Takes the lines and breaks off in the middle of its answer.
    Half,
    /// 400 when a line holds this word; the others are stored all the same, as InfluxDB does.
    Refuses(&'static str),
    /// 413 above so many lines.
    AtMost(usize),
}

impl Database {
    async fn start(script: Vec<Answers>, always: Answers) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { script, always: Some(always), ..State::default() }));
        let kept = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(Self::serve(socket, Arc::clone(&kept)));
            }
        });
        Self { address, state }
    }

    async fn serve(mut socket: TcpStream, state: Arc<Mutex<State>>) {
        let mut pending = Vec::new();
        while let Some((head, body)) = request(&mut socket, &mut pending).await {
            let answer = if head.starts_with("POST /api/v2/write?") {
                assert!(head.contains("precision=ns"), "{head}");
                let mut text = String::new();
                // One that is only tried is sent nothing.
                if !body.is_empty() {
                    assert!(head.contains("content-encoding: gzip"), "{head}");
                    GzDecoder::new(&body[..]).read_to_string(&mut text).expect("a body is whole gzip");
                }
                let lines: Vec<Line> =
                    text.lines().map(|line| parse(line).unwrap_or_else(|why| panic!("{line}: {why}"))).collect();
                answer(&mut state.lock().unwrap(), &lines)
            } else if head.starts_with("GET /api/v2/buckets") {
                Some(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 14\r\n\r\n{\"buckets\":[]}"
                        .to_owned(),
                )
            } else {
                Some("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned())
            };
            match answer {
                Some(text) if text.ends_with("...") => {
                    let _ = socket.write_all(text.trim_end_matches('.').as_bytes()).await;
                    return;
                }
                Some(text) => {
                    if socket.write_all(text.as_bytes()).await.is_err() {
                        return;
                    }
                }
                None => std::future::pending().await,
            }
        }
    }

    fn points(&self) -> BTreeMap<(String, i64), String> {
        self.state.lock().unwrap().points.clone()
    }
}

fn answer(state: &mut State, lines: &[Line]) -> Option<String> {
    state.requests += 1;
    let does = if state.script.is_empty() { state.always.unwrap() } else { state.script.remove(0) };
    let status = match does {
        Answers::Takes | Answers::Silence | Answers::Half => (204, ""),
        Answers::Status(status, headers) => (status, headers),
        Answers::AtMost(most) => (if lines.len() > most { 413 } else { 204 }, ""),
        Answers::Refuses(word) => {
            (if lines.iter().any(|line| format!("{line:?}").contains(word)) { 400 } else { 204 }, "")
        }
    };
    let stored = match does {
        Answers::Refuses(word) => lines.iter().filter(|line| !format!("{line:?}").contains(word)).collect(),
        _ if status.0 == 204 => lines.iter().collect::<Vec<_>>(),
        _ => Vec::new(),
    };
    for line in stored {
        let series = format!("{} {:?}", line.measurement, line.tags);
        state.arrived.push(line.nanos);
        if state.points.insert((series, line.nanos), format!("{:?}", line.fields)).is_some() {
            state.stored_twice += 1;
        }
    }
    match does {
        Answers::Silence => None,
        Answers::Half => Some("HTTP/1.1 204 No Con...".to_owned()),
        _ if status.0 == 204 => Some("HTTP/1.1 204 No Content\r\n\r\n".to_owned()),
        _ => Some(format!("HTTP/1.1 {} As told\r\n{}content-length: 6\r\n\r\nreason", status.0, status.1)),
    }
}

/// One request off the connection: its head and its body.
async fn request(socket: &mut TcpStream, pending: &mut Vec<u8>) -> Option<(String, Vec<u8>)> {
    let mut part = [0; 65_536];
    loop {
        if let Some(end) = pending.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&pending[..end]).into_owned();
            let length = head
                .lines()
                .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok())
                .unwrap_or(0);
            if pending.len() >= end + 4 + length {
                let body = pending[end + 4..end + 4 + length].to_vec();
                pending.drain(..end + 4 + length);
                return Some((head, body));
            }
        }
        let n = socket.read(&mut part).await.ok()?;
        if n == 0 {
            return None;
        }
        pending.extend_from_slice(&part[..n]);
    }
}

/// A site whose readings are stored and forwarded.
struct Rig {
    dir: PathBuf,
    readings: Option<Readings>,
    forwarder: Option<Forwarder>,
    inputs: mpsc::Receiver<Input>,
    say: mpsc::Sender<Input>,
    points: Points,
}

impl Rig {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("anmin-influx-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        let mut points = Points::default();
        let spec = |name, kind| Arc::new(PointSpec::plain(name, Kind::named(kind).unwrap()));
        let specs = [spec("lel", "gas.lel"), spec("smoke", "fire.smoke"), spec("text", "device.text")];
        for n in 0..10 {
            let place = Arc::new(Place { building: format!("{n}"), grid: "G 7".to_owned(), ..Place::default() });
            points.add(DeviceId::new(format!("探测器-{n}")), None, &"plain".into(), &place, &specs).unwrap();
        }
        let (say, inputs) = mpsc::channel(16);
        let mut rig = Self { dir, readings: None, forwarder: None, inputs, say, points };
        rig.open();
        rig
    }

    fn open(&mut self) {
        let consumers = [Arc::from("influx")];
        let (readings, notes) =
            Readings::open(&self.dir, Limits::default(), &consumers, Wall::default(), Box::new(|_| ())).unwrap();
        assert!(notes.is_empty());
        let points = self.points.iter().map(|(ix, _)| NewPoint::of(&self.points, ix)).collect();
        readings.append(ReadingsBatch { points, samples: Vec::new() }, Vec::new());
        self.readings = Some(readings);
    }

    fn forward(&mut self, address: SocketAddr, more: &str) {
        let toml = format!("url = 'http://{address}'\nbucket = 'b'\ntimeout = '300ms'\nflush_interval = '1ms'\n{more}");
        let settings = settings(&toml).unwrap();
        let reader = self.readings.as_ref().unwrap().reader(&settings.id).unwrap();
        self.forwarder = Some(spawn(&settings, reader, Clock::system(), self.say.clone()).unwrap());
    }

    /// Stores and waits until it is committed.
    fn store(&self, samples: Vec<Sample>) {
        let (done, wait) = std::sync::mpsc::channel();
        let ack = crate_ack(move || done.send(()).unwrap_or_default());
        self.readings.as_ref().unwrap().append(ReadingsBatch { points: Vec::new(), samples }, vec![ack]);
        wait.recv().unwrap();
    }

    async fn until(&self, what: impl Fn(&Stats) -> bool) {
        let stats = &self.forwarder.as_ref().unwrap().stats;
        let reached = async {
            while !what(stats) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), reached).await.unwrap_or_else(|_| panic!("{stats:?}"));
    }

    /// What the database should hold for these samples.
    fn expected(&self, samples: &[Sample]) -> BTreeSet<(String, i64)> {
        let mut seen: BTreeMap<(PointIx, i64), i64> = BTreeMap::new();
        samples
            .iter()
            .map(|sample| {
                let (point, device) = (self.points.point(sample.point), self.points.device_of(sample.point));
                let tags = [
                    ("building", device.place.building.as_str()),
                    ("device", device.id.as_str()),
                    ("grid", "G 7"),
                    ("point", point.id.as_str()),
                    ("quality", sample.quality.as_str()),
                ];
                let tags: Vec<(String, String)> = tags.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
                let tie = seen.entry((sample.point, sample.time.micros())).and_modify(|n| *n += 1).or_insert(0);
                (format!("{} {tags:?}", point.spec.kind.as_str()), sample.time.micros() * 1_000 + *tie)
            })
            .collect()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(forwarder) = &self.forwarder {
            forwarder.task.abort();
        }
        self.readings = None;
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn crate_ack(done: impl FnOnce() + Send + 'static) -> crate::store::Ack {
    crate::store::Ack::new(done)
}

fn sample(point: u32, micros: i64, value: Option<Value>, quality: Quality) -> Sample {
    let time = Wall::from_micros(micros);
    Sample {
        point: PointIx(point),
        value,
        quality,
        time,
        source_time: None,
        received: Now { wall: time, ..Now::default() },
        sequence: None,
        news: true,
    }
}

const START: i64 = 1_772_328_600_000_000;

/// Readings of all kinds, some at the same microsecond.
fn readings(count: u32) -> Vec<Sample> {
    (0..count)
        .map(|n| {
            let at = START + i64::from(n / 40) * 1_000_000;
            match n % 4 {
                0 => sample(n % 10 * 3, at, Some(Value::Number(f64::from(n) / 7.0)), Quality::Good),
                1 => sample(n % 10 * 3 + 1, at, Some(Value::Flag(n % 8 == 1)), Quality::Good),
                2 => sample(n % 10 * 3 + 2, at, Some(Value::Text(format!("状态 {n}").into())), Quality::Good),
                _ => sample(n % 10 * 3, at, None, Quality::Bad(Fault::Comms)),
            }
        })
        .collect()
}

/// Goal: whatever a database answers, every reading is there in the end, once. Method: a script of bad answers, then good
/// ones; lines that were stored although the answer said otherwise overwrite themselves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_arrives_once_through_any_answer() {
    let script = vec![
        Answers::Status(500, ""),
        Answers::Half,
        Answers::Silence,
        Answers::Status(429, "retry-after: 0\r\n"),
        Answers::Status(503, "retry-after: 1\r\n"),
        Answers::AtMost(300),
        Answers::AtMost(300),
        Answers::AtMost(300),
        Answers::Half,
    ];
    let database = Database::start(script, Answers::AtMost(300)).await;
    let mut rig = Rig::new("answers");
    let samples = readings(2_000);
    rig.store(samples.clone());
    rig.forward(database.address, "batch_max = 1000");
    rig.until(|stats| stats.sent.load(Ordering::Relaxed) == 2_000).await;
    assert_eq!(database.points().into_keys().collect::<BTreeSet<_>>(), rig.expected(&samples));
    assert!(database.state.lock().unwrap().stored_twice > 0, "some answers were lost after the lines were stored");
    let more = readings(2_100)[2_000..].to_vec();
    rig.store(more);
    rig.until(|stats| stats.sent.load(Ordering::Relaxed) == 2_100).await;
    assert_eq!(database.points().len(), rig.expected(&readings(2_100)).len());
}

#[test]
fn what_is_said_now_goes_before_a_backlog_and_the_cursor_stays_with_the_backlog() {
    let at = |seconds: u64| Mono::default().plus(Duration::from_secs(seconds));
    let pause = Duration::from_secs(1);
    let mut progress = Progress { through: 10, ahead: None };
    assert_eq!(progress.next(at(0), 100), (Track::Whole, 10, i64::MAX));
    progress.handle_arrived(at(0), Track::Whole, 20, 20, pause);
    progress.handle_backlog(at(0), 100);
    // Second, last row committed, the stretch that comes next, and the row up to which it arrives; 0 when it is empty.
    let story = [
        (0, 100, (Track::Backlog, 20, 100), 50),
        (0, 101, (Track::Live, 100, i64::MAX), 101),
        (0, 102, (Track::Backlog, 50, 100), 90),
        (1, 104, (Track::Live, 101, i64::MAX), 104),
        (1, 104, (Track::Backlog, 90, 100), 100),
        (3, 104, (Track::Backlog, 100, 100), 0),
        (3, 104, (Track::Whole, 104, i64::MAX), 0),
    ];
    for (second, committed, wanted, arrived) in story {
        let stretch = progress.next(at(second), committed);
        assert_eq!(stretch, wanted, "at {second} s with {committed} rows: {progress:?}");
        let before = progress.through;
        match arrived {
            0 => progress.handle_empty(stretch.0, committed),
            row => progress.handle_arrived(at(second), stretch.0, row, 1, pause),
        }
        assert!(stretch.0 != Track::Live || progress.through == before, "live data move no cursor");
    }
}

/// Goal: after days without the database a reading of now is there soon, and the backlog whole. Method: a hundred requests
/// wait; a reading is stored once the first few are through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reading_of_now_does_not_wait_behind_the_backlog() {
    let database = Database::start(Vec::new(), Answers::Takes).await;
    let mut rig = Rig::new("backlog");
    let backlog = readings(40_000);
    rig.store(backlog.clone());
    rig.forward(database.address, "batch_max = 400");
    rig.until(|stats| stats.sent.load(Ordering::Relaxed) >= 1_200).await;
    let now = vec![sample(0, START + 1_000_000_000_000, Some(Value::Number(1.0)), Quality::Good)];
    rig.store(now.clone());
    rig.until(|stats| stats.sent.load(Ordering::Relaxed) == 40_001).await;
    let all = [backlog, now].concat();
    assert_eq!(database.points().into_keys().collect::<BTreeSet<_>>(), rig.expected(&all));
    let state = database.state.lock().unwrap();
    assert_eq!((state.arrived.len(), state.stored_twice), (40_001, 0));
    let live = state.arrived.iter().position(|nanos| *nanos == (START + 1_000_000_000_000) * 1_000);
    assert!(live.is_some_and(|place| place < 36_000), "{live:?} of 40001");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poison_line_is_set_aside_and_the_others_arrive() {
    let database = Database::start(Vec::new(), Answers::Refuses("状态 402")).await;
    let mut rig = Rig::new("poison");
    let samples = readings(1_000);
    rig.store(samples.clone());
    rig.forward(database.address, "");
    rig.until(|stats| stats.sent.load(Ordering::Relaxed) == 999).await;
    let stats = &rig.forwarder.as_ref().unwrap().stats;
    assert_eq!(stats.refused.load(Ordering::Relaxed), 1);
    assert!(stats.requests.load(Ordering::Relaxed) <= 24, "{stats:?}");
    let stored: BTreeSet<_> = database.points().into_keys().collect();
    let missing: Vec<_> = rig.expected(&samples).difference(&stored).cloned().collect();
    assert_eq!((stored.len(), missing.len()), (999, 1), "{missing:?}");
    assert!(missing[0].0.starts_with("device.text"), "{missing:?}");
    assert!(rig.inputs.try_recv().is_err(), "one bad reading is no trouble of the way out");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denial_is_told_at_once_with_its_reason_and_taken_back() {
    let database = Database::start(vec![Answers::Status(401, ""); 2], Answers::Takes).await;
    let mut rig = Rig::new("denied");
    rig.store(readings(10));
    rig.forward(database.address, "org = 'shequ'");
    let Some(Input::Part(PartState { part, trouble: Some(trouble) })) = rig.inputs.recv().await else { panic!() };
    assert_eq!(&*part, "way-out:influx");
    assert!(
        trouble.message.en.contains("HTTP 401: reason (there is no bucket \"b\" in organization \"shequ\")"),
        "{:?}",
        trouble.message
    );
    assert!(trouble.message.zh.contains("读数无法转发"), "{:?}", trouble.message);
    let Some(Input::Part(PartState { trouble: None, .. })) = rig.inputs.recv().await else { panic!() };
    rig.until(|stats| stats.sent.load(Ordering::Relaxed) == 10).await;
    assert_eq!(database.points().len(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_refuses_all_lines_loses_none() {
    let database = Database::start(Vec::new(), Answers::Status(400, "")).await;
    let mut rig = Rig::new("refuses-all");
    rig.store(readings(1));
    rig.forward(database.address, "");
    let Some(Input::Part(PartState { trouble: Some(trouble), .. })) = rig.inputs.recv().await else { panic!() };
    assert!(trouble.message.en.contains("every line is refused: HTTP 400"), "{:?}", trouble.message);
    rig.store(readings(500)[1..].to_vec());
    database.state.lock().unwrap().always = Some(Answers::Takes);
    rig.until(|stats| stats.sent.load(Ordering::Relaxed) == 500).await;
    assert_eq!(rig.forwarder.as_ref().unwrap().stats.refused.load(Ordering::Relaxed), 0);
    assert_eq!(database.points().into_keys().collect::<BTreeSet<_>>(), rig.expected(&readings(500)));
    let Some(Input::Part(PartState { trouble: None, .. })) = rig.inputs.recv().await else { panic!() };
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_it_goes_on_behind_what_has_arrived() {
    let database = Database::start(Vec::new(), Answers::Takes).await;
    let mut rig = Rig::new("restart");
    rig.store(readings(100));
    rig.forward(database.address, "");
    rig.until(|stats| stats.sent.load(Ordering::Relaxed) == 100).await;
    // The cursor is durable with the next commit.
    rig.store(readings(140)[100..120].to_vec());
    rig.until(|stats| stats.sent.load(Ordering::Relaxed) == 120).await;
    rig.forwarder.take().unwrap().task.abort();
    rig.readings = None;
    rig.open();
    rig.store(readings(140)[120..].to_vec());
    rig.forward(database.address, "");
    rig.until(|stats| stats.sent.load(Ordering::Relaxed) >= 20).await;
    assert!(
        rig.forwarder.as_ref().unwrap().stats.sent.load(Ordering::Relaxed) <= 40,
        "the first hundred are not sent again"
    );
    assert_eq!(database.points().into_keys().collect::<BTreeSet<_>>(), rig.expected(&readings(140)));
}

#[tokio::test]
async fn a_database_is_tried_without_a_line() {
    let said = |status: u16| format!("HTTP {status}: reason");
    for (answers, wanted) in [
        (Answers::Takes, Tried::Taken),
        (Answers::Status(400, ""), Tried::Taken),
        (Answers::Status(401, ""), Tried::Denied(said(401))),
        (Answers::Status(403, ""), Tried::Denied(said(403))),
        (Answers::Status(404, ""), Tried::Unknown(said(404))),
        (Answers::Status(503, ""), Tried::Odd(said(503))),
        (Answers::Silence, Tried::Silent("no answer within 200ms".to_owned())),
    ] {
        let database = Database::start(Vec::new(), answers).await;
        let url = format!("url = 'http://{}'\nbucket = 'b'\norg = 'o'\ntimeout = '200ms'", database.address);
        let settings = settings(&url).expect("it is sound");
        assert_eq!(probe(&settings).await, Ok(wanted), "{answers:?}");
        assert!(database.points().is_empty(), "nothing is written");
    }
    let settings = settings("url = 'http://127.0.0.1:1'\nbucket = 'b'").expect("it is sound");
    assert!(matches!(probe(&settings).await, Ok(Tried::Silent(_))), "nobody is there");
}

/// Goal: what a real database gives back is what was measured. Method: Debian's VictoriaMetrics on a free port, its
/// v2 write API in, its export out, compared point by point. It keeps milliseconds and numbers, so texts and readings
/// without a value are compared by their absence.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn victoria_metrics_gives_back_what_was_measured() {
    let Some(server) = Victoria::start().await else {
        eprintln!("skipped: there is no victoria-metrics on this machine");
        return;
    };
    let mut rig = Rig::new("victoria");
    let today = Clock::system().now().wall.millis() / 1_000 * 1_000_000 - 600_000_000;
    let samples: Vec<Sample> = readings(2_000)
        .into_iter()
        .enumerate()
        .map(|(n, mut sample)| {
            // Every millisecond its own: it knows no finer time.
            sample.time = Wall::from_micros(today + n as i64 * 1_000);
            // Nor more than some twelve digits.
            if let Some(Value::Number(number)) = &mut sample.value {
                *number = n as f64 / 8.0;
            }
            sample
        })
        .collect();
    rig.store(samples.clone());
    rig.forward(server.address, "");
    rig.until(|stats| stats.sent.load(Ordering::Relaxed) == 2_000).await;
    let mut expected: BTreeMap<(String, i64), f64> = BTreeMap::new();
    for sample in &samples {
        if let Some(value) = sample.value.as_ref().and_then(Value::as_f64) {
            let point = rig.points.point(sample.point).id.to_string();
            expected.insert((point, sample.time.millis()), value);
        }
    }
    let mut found = BTreeMap::new();
    for _ in 0..200 {
        found = server.export().await;
        if found.len() >= expected.len() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(expected.len() >= 1_000);
    for (key, value) in &expected {
        assert_eq!(found.get(key), Some(value), "{key:?}");
    }
    assert_eq!(found.len(), expected.len());
}

struct Victoria {
    child: std::process::Child,
    address: SocketAddr,
    dir: PathBuf,
}

impl Victoria {
    async fn start() -> Option<Self> {
        let program = Path::new("/usr/bin/victoria-metrics");
        if !program.exists() {
            return None;
        }
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let dir = std::env::temp_dir().join(format!("anmin-victoria-{}", std::process::id()));
        let child = std::process::Command::new(program)
            .arg(format!("-httpListenAddr={address}"))
            .arg(format!("-storageDataPath={}", dir.display()))
            .arg("-memory.allowedPercent=5")
            .arg("-retentionPeriod=100y")
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { child, address, dir };
        for _ in 0..400 {
            if server.get("/health").await.is_some_and(|answer| answer.contains("OK")) {
                return Some(server);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("victoria-metrics does not answer on {address}");
    }

    async fn get(&self, path: &str) -> Option<String> {
        let mut socket = TcpStream::connect(self.address).await.ok()?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.address);
        socket.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.ok()?;
        Some(answer.split_once("\r\n\r\n")?.1.to_owned())
    }

    /// Every number by point and millisecond.
    async fn export(&self) -> BTreeMap<(String, i64), f64> {
        let text = self.get("/api/v1/export?match[]=%7B__name__!=%22%22%7D").await.unwrap();
        let mut found = BTreeMap::new();
        for line in text.lines() {
            let series: serde_json::Value = serde_json::from_str(line).unwrap();
            // Of a string it makes a 0, under the name of the string's field.
            if !series["metric"]["__name__"].as_str().unwrap().ends_with("_value") {
                continue;
            }
            let point = series["metric"]["point"].as_str().unwrap().to_owned();
            let values = series["values"].as_array().unwrap();
            for (value, time) in values.iter().zip(series["timestamps"].as_array().unwrap()) {
                let before = found.insert((point.clone(), time.as_i64().unwrap()), value.as_f64().unwrap());
                assert_eq!(before, None, "{point} twice at {time}");
            }
        }
        found
    }
}

impl Drop for Victoria {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
