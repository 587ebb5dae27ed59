//! What it costs that nothing is lost: throughput with a real disk and with one that forgets, bytes a reading, a start with
//! a long journal, a database that is away for a minute.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anmin::clock::Clock;
use anmin::config::Config;
use anmin::sim::player::Player;
use anmin::sim::scenario::{Play, Scenario};
use anmin::store::incidents::{ClosedCursor, ClosedFilter};
use anmin::store::state::Entry;
use anmin::store::{Limits, NewPoint, Readings, ReadingsBatch, StateStore, Turn, view};
use anmin_rules::alarm::{AlarmId, Condition, Transition};
use anmin_rules::incident::{End, FalseCause, Incident, IncidentCause, IncidentChange, IncidentId, Note, Outcome};
use anmin_rules::rule::{Level, Text};
use anmin_sensors::point::{Hazard, Place, PointIx};
use anmin_sensors::router::{self, Router};
use anmin_sensors::time::{Mono, Now, Wall};
use anmin_sensors::validator::Validator;

use super::load::{CROSSINGS, Latencies, Load, flood, paced};
use super::subject::{Shape, Sink, Subject, site, site_with};
use super::{median, quantile};
use crate::daemon::{Daemon, pause};
use crate::site::Site;

const SHAPE: Shape = Shape { rules: 1, devices: 1_000, broker: None, qos: 1 };
const ALARMS: &str = "anmin/v1/acceptance/alarm/#";

pub fn run() {
    println!("\nWhat it costs that nothing is lost");
    throughput();
    disk();
    long_journal();
    database_away();
}

fn load(subject: &Subject, devices: u32) -> Load {
    let port = subject.daemon().and_then(|daemon| daemon.broker).expect("it has a broker").port();
    Load { port, qos: 1, devices, connections: 4 }
}

/// Both databases on the disk, and on a file system in memory, where a sync costs nothing.
fn throughput() {
    const COUNT: u64 = 600_000;
    const ROUNDS: usize = 3;
    let memory = Path::new("/dev/shm").join(format!("anmin-bench-{}", std::process::id()));
    let [mut durable, mut forgetful] = [const { Vec::new() }; 2];
    let mut syncs = Vec::new();
    for _ in 0..ROUNDS {
        for dir in [None, Some(&memory)] {
            let site = site(SHAPE);
            if let Some(dir) = dir {
                site.write("anmin.d/storage.toml", &format!("[storage]\ndir = {:?}\n", dir.display().to_string()));
            }
            let mut subject = Subject::anmin_on(site, SHAPE);
            let load = load(&subject, SHAPE.devices);
            flood(load, u64::from(load.devices));
            subject.wait(u64::from(load.devices));
            let synced = |subject: &Subject| {
                let daemon = subject.daemon().expect("it is anmin");
                daemon.figure("anmin_readings_syncs_total") + daemon.figure("anmin_journal_commits_total")
            };
            let (start, before) = (Instant::now(), synced(&subject));
            flood(load, COUNT);
            subject.wait(COUNT + u64::from(load.devices));
            let seconds = start.elapsed().as_secs_f64();
            let rate = COUNT as f64 / seconds;
            match dir {
                None => {
                    durable.push(rate);
                    // The figures are of the last full second.
                    syncs.push((synced(&subject) - before) as f64 / seconds);
                }
                Some(dir) => {
                    forgetful.push(rate);
                    drop(subject);
                    let _ = std::fs::remove_dir_all(dir);
                }
            }
        }
    }
    let (durable, forgetful) = (median(durable), median(forgetful));
    println!(
        "embedded broker, QoS 1, readings/s: {durable:.0} durable, {forgetful:.0} on a disk that forgets: {:.2} of it, {:.0} syncs a second",
        durable / forgetful,
        median(syncs)
    );
    println!("  wanted: at least 100,000/s, durability costs at most 20 %");
    let subject = Subject::anmin(SHAPE);
    let latencies = paced(Load { connections: 1, ..load(&subject, 1_000) }, 100_000, Duration::from_secs(8), ALARMS);
    tell_alarms("alarms at 100,000/s", &latencies);
    println!("  wanted: p99 below 50 ms");
}

fn tell_alarms(what: &str, found: &Latencies) {
    println!(
        "{what}: p50 {:.2} ms, p99 {:.2} ms, {} of {} seen",
        quantile(&found.ms, 0.5),
        quantile(&found.ms, 0.99),
        found.ms.len(),
        found.crossed
    );
}

/// Four hours of the demo's devices through router and validator into readings.db; a day of one point at 1 Hz read back.
fn disk() {
    const SECONDS: u64 = 4 * 3_600;
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gateway/demo");
    let config = || Config::load(&demo).unwrap_or_else(|faults| panic!("the demo's site: {faults:?}"));
    let Config { mut points, profiles, mappings, places, .. } = config();
    let source = Arc::clone(&mappings.first().expect("the demo has a broker").0);
    let mut router = Router::new(mappings, profiles.clone(), places, router::Limits::default());
    let scenario = Scenario::shipped().into_iter().find(|scenario| scenario.name == "gas-leak").expect("it is shipped");
    let play = Play::new(scenario, 1, &points);
    let mut player = Player::new(config().points, &profiles, play, Duration::from_secs(1), |points, device| {
        router.topic_of(points.device(device).id.as_str())
    });
    let mut validator = Validator::new(anmin_sensors::validator::Settings::default());

    let site = Site::new("bench-history", "");
    let folder = site.path("data");
    std::fs::create_dir_all(&folder).expect("the target folder can be written");
    let start = Clock::system().now().wall;
    let limits = Limits { max_bytes: 4 << 30, ..Limits::default() };
    let open = |at: Wall| Readings::open(&folder, limits, &[], at, Box::new(|_| {})).expect("it is a new file").0;
    let readings = open(start);
    let (mut count, mut known, mut decoded) = (0, 0, Vec::new());
    for second in 0..SECONDS {
        let t = Duration::from_secs(second);
        let now = Now { wall: start.plus(t), mono: Mono::default().plus(t) };
        let mut samples = Vec::new();
        for publish in player.poll_publishes(t, now.wall) {
            let topic = Arc::from(publish.topic);
            router
                .decode(&mut points, &source, &topic, publish.payload.as_bytes(), false, now, &mut decoded)
                .unwrap_or_else(|rejected| panic!("the demo's own message: {rejected}"));
        }
        validator.handle_readings(now, &points, &decoded, &mut samples);
        decoded.clear();
        count += samples.len() as u64;
        let new = (known..points.len()).map(|n| NewPoint::of(&points, PointIx(n as u32))).collect();
        known = points.len();
        readings.append(ReadingsBatch { points: new, samples }, Vec::new());
        while count - readings.counts().stored > 50_000 {
            pause();
        }
    }
    drop(readings);
    // What waits to be compacted is, after a while of quiet.
    let later = start.plus(Duration::from_secs(SECONDS + 3_600));
    let readings = open(later);
    settle(&readings);
    drop(readings);
    let bytes = std::fs::metadata(folder.join("readings.db")).map_or(0, |file| file.len());
    println!(
        "history of the demo's MQTT devices, {count} readings of {known} points in 4 h: {:.2} bytes of disk a reading ({:.1} MB a million)",
        bytes as f64 / count as f64,
        bytes as f64 / count as f64
    );
    println!("  wanted: at most 8 bytes");
    let point = points.iter().find(|(_, point)| point.id.as_str().ends_with("/lel")).expect("a gas detector").1;
    let mut history = view::History::open(&folder).expect("it is our file");
    let times = (0..5).map(|_| {
        let begin = Instant::now();
        let to = start.plus(Duration::from_secs(SECONDS));
        let buckets = history.buckets(point.id.as_str(), start, to, 1_000).expect("it can be read");
        assert!(!buckets.is_empty());
        begin.elapsed().as_secs_f64() * 1e3 * (86_400.0 / SECONDS as f64)
    });
    println!("chart of a day at 1 Hz (4 h read, times 6): {:.0} ms", median(times.collect()));
    println!("  wanted: at most 50 ms");
}

/// Waits until the writer has nothing more to tidy up.
fn settle(readings: &Readings) {
    let mut commits = readings.counts().commits;
    let mut quiet = 0;
    while quiet < 150 {
        pause();
        let now = readings.counts().commits;
        quiet = if now == commits { quiet + 1 } else { 0 };
        commits = now;
    }
}

/// A journal of a million transitions, a hundred alarms of it open: from the start of the process to the first judged
/// reading.
fn long_journal() {
    const ROWS: u32 = 1_000_000;
    let site = site(SHAPE);
    let data: PathBuf = site.path("data");
    let seed = {
        let daemon = Daemon::start(site.folder());
        let port = daemon.broker.expect("it has a broker").port();
        let load = Load { port, qos: 1, devices: 1_000, connections: 1 };
        paced(load, CROSSINGS * 2, Duration::from_secs(4), ALARMS);
        assert_eq!(daemon.terminate(), Some(0));
        let store = StateStore::open(&data, Wall::default()).expect("it is our file").0;
        let rows = store.recent(1_000, None).expect("it can be read");
        let raised = rows.into_iter().find_map(|row| match row.entry {
            Entry::Transition(transition) if transition.alarm.is_active() => Some(transition),
            _ => None,
        });
        raised.expect("an alarm was raised")
    };
    let begin = Instant::now();
    {
        let (mut store, _) = StateStore::open(&data, Wall::default()).expect("it is our file");
        let row = |n: u32| {
            let mut alarm = (*seed.alarm).clone();
            alarm.id = AlarmId(uuid::Uuid::from_u128(seed.alarm.id.0.as_u128() + u128::from(n / 2)));
            // No incident has half a million alarms.
            alarm.incident = alarm.incident.filter(|_| n <= 200);
            if n % 2 == 1 && n > 200 {
                alarm.condition = Condition::Normal;
                alarm.seq = 2;
                alarm.acknowledged = Some(anmin_rules::alarm::By { who: "bench".to_owned(), at: alarm.raised_at });
            }
            Arc::new(Transition { alarm: Arc::new(alarm), ..seed.clone() })
        };
        for from in (0..ROWS).step_by(1_000) {
            let transitions: Vec<Arc<Transition>> = (from..from + 1_000).map(row).collect();
            store.commit(&Turn { transitions: &transitions, ..Turn::default() }).expect("the disk has room");
        }
    }
    let made = begin.elapsed();
    let bytes = std::fs::metadata(data.join("state.db")).map_or(0, |file| file.len());
    let starts = (0..3).map(|_| {
        let start = Instant::now();
        let daemon = Daemon::start(site.folder());
        let port = daemon.broker.expect("it has a broker").port();
        flood(Load { port, qos: 1, devices: 1, connections: 1 }, 1);
        while daemon.get("/api/v1/status")["readings"]["received"].as_u64() < Some(1) {
            pause();
        }
        let time = start.elapsed().as_secs_f64() * 1e3;
        assert_eq!(daemon.terminate(), Some(0));
        time
    });
    let starts = median(starts.collect());
    println!(
        "journal of {ROWS} transitions ({} MiB, made in {made:.0?}): {starts:.0} ms from the start of the process to the first judged reading",
        bytes >> 20
    );
    println!("  wanted: below 1,000 ms");
}

/// Pages of a hundred thousand closed incidents, by the ways in which they are looked for.
pub fn search() {
    println!("\nLooking for what is long over");
    const INCIDENTS: u32 = 100_000;
    let site = site(SHAPE);
    let data: PathBuf = site.path("data");
    std::fs::create_dir_all(&data).expect("the site's folder can be written");
    let causes = [FalseCause::Cooking, FalseCause::Steam, FalseCause::Dust].map(Outcome::FalseAlarm);
    let outcomes: Vec<Outcome> = [Outcome::Real, Outcome::Test].into_iter().chain(causes).collect();
    let (mut store, _) = StateStore::open(&data, Wall::default()).expect("it is our file");
    let row = |n: u32| {
        let at = Wall::from_millis(1_700_000_000_000 + i64::from(n) * 60_000);
        let why = if n % 5_000 == 7 {
            "电动自行车充电器短路".to_owned()
        } else {
            "灶具阀门未关严，已更换软管".to_owned()
        };
        let end = End { at, by: "bench".to_owned(), outcome: outcomes[n as usize % outcomes.len()], why };
        let note = |text: &str| Note { at, by: "bench".to_owned(), text: text.to_owned(), photos: Vec::new() };
        let place =
            Place { building: (n % 40).to_string(), unit: "1".to_owned(), floor: "5".to_owned(), ..Place::default() };
        let incident = Incident {
            id: IncidentId(uuid::Uuid::from_u128(u128::from(n))),
            seq: 1,
            case: None,
            title: Text::both("燃气泄漏"),
            place: Arc::new(place),
            drill: None,
            hazards: vec![Hazard::Gas],
            peak: Level::Orange,
            storm: false,
            alarms: 1,
            opened_at: at,
            changed_at: at,
            settled_at: Some(at),
            closes_at: None,
            notes: vec![note("到场核实，开窗通风后读数回落"), note("回访住户，情况正常")],
            checklist: Vec::new(),
            called_119: None,
            end: Some(end),
        };
        Arc::new(IncidentChange { at, cause: IncidentCause::Closed, incident: Arc::new(incident) })
    };
    for from in (0..INCIDENTS).step_by(1_000) {
        let incidents: Vec<_> = (from..from + 1_000).map(row).collect();
        store.commit(&Turn { incidents: &incidents, ..Turn::default() }).expect("the disk has room");
    }
    let reader = store.reader().expect("it is our file");
    let text = |word: &str| ClosedFilter { text: Some(word.to_owned()), ..ClosedFilter::default() };
    let filters = [
        ("all", ClosedFilter::default()),
        ("of a building", ClosedFilter { building: Some("7".to_owned()), ..ClosedFilter::default() }),
        ("false alarms", ClosedFilter { outcome: Some("false_alarm".to_owned()), ..ClosedFilter::default() }),
        ("by a word of twenty", text("充电器")),
        ("by a word of none", text("没有这样的事")),
        ("by a word of all", text("阀门")),
        (
            "of a danger that there was not",
            ClosedFilter { hazard: Some("flood".to_owned()), ..ClosedFilter::default() },
        ),
        ("of a kind of case", ClosedFilter { case: Some("mediation".to_owned()), ..ClosedFilter::default() }),
        ("of a building that had none", ClosedFilter { building: Some("none".to_owned()), ..ClosedFilter::default() }),
    ];
    for (name, filter) in filters {
        let mut after = None;
        let mut times = Vec::new();
        for _ in 0..100 {
            let begin = Instant::now();
            let page = reader.closed_incidents(&filter, after, 200).expect("it can be read");
            times.push(begin.elapsed().as_secs_f64() * 1e3);
            after = page.last().and_then(|last| Some(ClosedCursor(last.end.as_ref()?.at, last.id)));
            if after.is_none() {
                break;
            }
        }
        times.sort_by(f64::total_cmp);
        println!(
            "{INCIDENTS} closed incidents, {name}: a page of 200 in {:.1} ms, the slowest of {} in {:.1} ms",
            quantile(&times, 0.5),
            times.len(),
            quantile(&times, 1.0)
        );
    }
    println!("  wanted: below 50 ms");
}

/// The database is away for a minute at 5,000 readings a second, and comes back while they go on.
fn database_away() {
    const RATE: u64 = 5_000;
    const AWAY: Duration = Duration::from_secs(60);
    // So many that none crosses for the sixth time within ten minutes, which is chatter, and costs less.
    const SHAPE: Shape = Shape { devices: 3_000, ..self::SHAPE };
    let sink = Sink::start();
    let port = sink.port;
    let subject = Subject::anmin_on(site_with(SHAPE, port), SHAPE);
    let load = Load { connections: 1, ..load(&subject, SHAPE.devices) };
    let daemon = subject.daemon().expect("it is anmin");
    flood(load, RATE * 5);
    // As long as the other, at the same load: what alarms and readings cost by themselves is in both.
    let normal = paced(load, RATE, AWAY, ALARMS);
    let before = daemon.resident();
    sink.go_away();
    let away = paced(load, RATE, AWAY, ALARMS);
    let more = daemon.resident().saturating_sub(before);
    let waiting = daemon.figure("anmin_readings_waiting");
    let (start, _sink) = (Instant::now(), Sink::start_at(port));
    let drained = std::thread::scope(|scope| {
        scope.spawn(|| paced(load, RATE, Duration::from_secs(20), ALARMS));
        while daemon.figure("anmin_readings_waiting") > RATE {
            assert!(start.elapsed() < Duration::from_secs(120), "the backlog goes out");
            pause();
        }
        start.elapsed().as_secs_f64()
    });
    tell_alarms("database there, alarms at 5,000/s", &normal);
    tell_alarms("database away, alarms at 5,000/s", &away);
    println!(
        "away for a minute: {waiting} readings waited, {} dropped, {:.1} MB more memory, alarm p99 {:.2} of normal; drained within {drained:.1} s, {:.1} times the rate at which more came in",
        daemon.figure("anmin_readings_dropped_total") + daemon.figure("anmin_readings_shed_total"),
        more as f64 / 1e6,
        quantile(&away.ms, 0.99) / quantile(&normal.ms, 0.99),
        (waiting as f64 + RATE as f64 * drained) / drained / RATE as f64
    );
    println!("  wanted: none dropped, at most 10 MB, p99 at most 1.10, drained at 5 times the rate");
}
