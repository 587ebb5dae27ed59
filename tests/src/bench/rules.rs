//! Evaluations a second on one core, dispatch to the rule included; nanoseconds a reading as rules and points grow; what a
//! rule's instance and a sample in a window cost in memory.
//!
//! An evaluation is a rule's answer to one reading. Values stay below every limit unless the line says otherwise, as they
//! do on all days but one: then the rule set knows the answer without a script call. Both are measured.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anmin_rules::engine::Engine;
use anmin_rules::library;
use anmin_rules::replay::{self, Replay};
use anmin_rules::response::DeskSettings;
use anmin_rules::rule::{Judged, Level, RuleIx};
use anmin_rules::set::{RuleSet, RuleSource};
use anmin_sensors::document::Faults;
use anmin_sensors::point::{DeviceId, Form, KINDS, Kind, Place, PointIx, PointSpec, Points};
use anmin_sensors::reading::{Quality, Sample, Value};
use anmin_sensors::time::{Mono, Now, Wall};

const STAGES: &str = "fn judge(gas) {
    if above(gas, \"red\") { return red(); }
    if above(gas, \"orange\") { return orange(); }
    if above(gas, \"yellow\") { return yellow(); }
    normal()
}";
const READS: &str = "fn judge(gas) { if gas.value > limit(\"red\") { red() } else { normal() } }";

fn source(n: usize, script: &str) -> RuleSource {
    let words = "{ zh = \"甲\", en = \"a\" }";
    let mut toml = format!(
        "title = {words}\nmessage = {words}\nadvice = {words}\ndeadband = 5.0\n\
         [[input]]\nrole = \"gas\"\nkind = \"gas.lel\"\n"
    );
    for (level, value) in [("yellow", 60), ("orange", 70), ("red", 80)] {
        toml += &format!(
            "[limit.{level}]\nvalue = {}.5\nunit = \"%LEL\"\nsource = \"bench\"\n",
            // The first rule's limits lie below those of all others.
            value + if n == 0 { 0 } else { 12 }
        );
    }
    RuleSource { folder: "bench".to_owned(), name: format!("gas/r{n}"), toml, script: script.to_owned() }
}

fn site(devices: usize) -> Points {
    let mut points = Points::default();
    let spec = Arc::new(PointSpec::plain("lel", Kind::named("gas.lel").expect("a known kind")));
    let (profile, place): (Arc<str>, _) = ("bench".into(), Arc::new(Place::default()));
    for n in 0..devices {
        points.add(DeviceId::new(format!("d{n}")), None, &profile, &place, &[Arc::clone(&spec)]).expect("a new id");
    }
    points
}

fn sample(point: usize, received: Now, value: f64) -> Sample {
    Sample {
        point: PointIx(point as u32),
        value: Some(Value::Number(value)),
        quality: Quality::Good,
        time: received.wall,
        source_time: None,
        received,
        sequence: None,
        news: true,
    }
}

const START: Now = Now { mono: Mono::from_nanos(1), wall: Wall::from_millis(0) };

/// Readings in turn over the devices; `value` gives the n-th.
fn readings(devices: usize, count: usize, value: impl Fn(usize) -> f64) -> Vec<Sample> {
    (0..count).map(|n| sample(n % devices, START.plus(Duration::from_micros(n as u64)), value(n))).collect()
}

fn measure(
    name: &str,
    rules: usize,
    devices: usize,
    script: &str,
    value: impl Fn(usize) -> f64,
    active: impl Fn(RuleIx) -> Option<Level>,
) {
    let faults = Faults::default();
    let began = Instant::now();
    let mut set = RuleSet::load((0..rules).map(|n| source(n, script)).collect(), Vec::new(), &faults);
    assert_eq!(set.broken(), []);
    let loaded = began.elapsed();
    let points = site(devices);
    let began = Instant::now();
    set.bind(&points);
    let bound = began.elapsed();
    let samples = readings(devices, 400_000, value);
    let mut out: Vec<Judged> = Vec::new();
    let mut best = f64::INFINITY;
    let mut calls = 0;
    for round in 0..6 {
        let before = set.calls();
        let began = Instant::now();
        // In bursts, as the intake hands them over.
        for batch in samples.chunks(256) {
            set.handle_samples(batch[0].received, &points, batch, &|rule, _| active(rule), &mut out);
            black_box(&out);
            out.clear();
        }
        let nanos = began.elapsed().as_nanos() as f64 / samples.len() as f64;
        if round > 0 {
            best = best.min(nanos);
            calls = set.calls() - before;
        }
    }
    println!(
        "{name:44} {rules:6} rules {devices:7} points {best:9.1} ns/reading {calls:8} calls   load {:6.1} ms bind {:7.1} ms",
        loaded.as_secs_f64() * 1e3,
        bound.as_secs_f64() * 1e3,
    );
}

/// Ten units of twenty flats in two buildings, with a day's readings that stay below the limits as they do on all days but
/// one: each point speaks every twenty seconds. Each flat has a device for every kind that watches homes and people, each
/// unit one for every kind that watches the house.
fn community(count: usize) -> (Points, Vec<Sample>) {
    let mut points = Points::default();
    let at_home =
        |kind: &str| ["gas.", "fire.", "care.", "device.", "flood.leak"].iter().any(|start| kind.starts_with(start));
    for flat in 0..200 {
        let text = |n: usize| n.to_string();
        let (building, unit, floor) = (text(flat / 100), text(flat / 20), text(flat % 20 / 2));
        let place = Arc::new(Place { building, unit, floor, room: text(flat), ..Place::default() });
        for kind in KINDS.iter().filter(|info| info.form != Form::Text).filter_map(|info| Kind::named(info.name)) {
            if !at_home(kind.as_str()) && flat % 20 > 0 {
                continue;
            }
            let spec = Arc::new(PointSpec::plain("value", kind));
            let id = DeviceId::new(format!("{flat}-{}", kind.as_str()));
            points.add(id, None, &"bench".into(), &place, &[spec]).expect("a new id");
        }
    }
    let rules = shipped();
    // Half way to the nearest limit that a shipped rule has for the kind, with a little noise.
    let calm = |point: PointIx| {
        let kind = points.point(point).spec.kind;
        let of_kind = rules.rules().filter(|(_, spec)| spec.inputs[0].kind == kind);
        let limits = of_kind.flat_map(|(_, spec)| spec.limits.values()).filter(|limit| limit.unit == kind.info().unit);
        let value = match kind.as_str() {
            // What has limits on both sides.
            "power.voltage" => 230.0,
            "power.frequency" => 50.0,
            "device.battery" | "device.link_quality" => 100.0,
            "device.signal" => -60.0,
            _ => limits.map(|limit| limit.value).filter(|value| *value > 0.0).fold(20.0, f64::min) / 2.0,
        };
        (kind.info().form, value)
    };
    let calm: Vec<(Form, f64)> = points.iter().map(|(point, _)| calm(point)).collect();
    let step = 20_000_000 / points.len() as u64;
    let samples = (0..count).map(|n| {
        let point = n % points.len();
        let noise = 1.0 + (n.wrapping_mul(2_654_435_761) >> 16 & 0xff) as f64 / 25_600.0;
        let value = match calm[point] {
            (Form::Flag, _) => Value::Flag(false),
            (_, value) => Value::Number(value * noise),
        };
        let at = Wall::from_millis(1_800_000_000_000).plus(Duration::from_micros(n as u64 * step));
        replay::sample(PointIx(point as u32), at, Some(value), Quality::Good)
    });
    let samples = samples.collect();
    (points, samples)
}

fn shipped() -> RuleSet {
    RuleSet::load(library::shipped(), Vec::new(), &Faults::default())
}

/// Readings a second through the whole engine with the shipped library, as `anmin replay` does it.
fn replays() {
    println!("\nReplay: million readings a second with the shipped library, best of three");
    let (points, samples) = community(2_000_000);
    let halves = replay::halves(&shipped(), &points);
    let judge = |own: &dyn Fn(PointIx) -> bool| {
        let mut replay = Replay::new(shipped(), &points);
        replay.handle_samples(&points, samples.iter().filter(|sample| own(sample.point)), |_| {});
        replay.finish(&points, samples[samples.len() - 1].time, |_| {})
    };
    for (name, threads) in [("one core, whole site", 1), ("two cores, half of the site each", 2)] {
        let (mut best, mut cpu, mut alarms) = (f64::INFINITY, f64::INFINITY, 0);
        for _ in 0..3 {
            let (began, used) = (Instant::now(), super::cpu_seconds(std::process::id()));
            let runs: Vec<_> = std::thread::scope(|scope| {
                let thread = |half: bool| {
                    let (judge, halves) = (&judge, &halves);
                    scope.spawn(move || judge(&|point| threads == 1 || halves[point.0 as usize] == half))
                };
                let threads: Vec<_> = [false, true].into_iter().take(threads).map(thread).collect();
                threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
            });
            best = best.min(began.elapsed().as_secs_f64());
            cpu = cpu.min(super::cpu_seconds(std::process::id()) - used);
            assert_eq!(runs.iter().map(|run| run.samples).sum::<u64>(), samples.len() as u64);
            alarms = runs.iter().map(|run| run.occurrences.len()).sum();
        }
        let speed = samples.len() as f64 / best / 1e6;
        let life = samples[samples.len() - 1].time.since(samples[0].time).as_secs_f64() / best;
        println!(
            "{name:44} {:6} rules {:7} points {speed:9.2} million/s {:6.0} ns CPU a reading {life:9.0} times faster than life \
             {alarms:6} alarms",
            shipped().rules().len(),
            points.len(),
            cpu / samples.len() as f64 * 1e9,
        );
    }
}

/// A rule with a mean and a slope over half an hour.
const LOOKS_BACK: &str = "fn judge(gas) {
    if above(window(\"mean\"), \"red\") || above(window(\"rise\"), \"orange\") { return red(); }
    if above(gas, \"yellow\") { return yellow(); }
    normal()
}";
/// A rule of one point and all others of its unit.
const LOOKS_AROUND: &str = "fn judge(gas, near) {
    let others = count_above(near, \"yellow\");
    if above(gas, \"red\") && others > 0 { return red(); }
    if above(gas, \"yellow\") { return yellow(); }
    normal()
}";

fn with(tables: &str, script: &str) -> RuleSource {
    let plain = source(0, script);
    RuleSource { toml: format!("{}{tables}", plain.toml), ..plain }
}

fn looks_back() -> RuleSource {
    let window = |name: &str, measure: &str| {
        format!("[[window]]\nname = \"{name}\"\nmeasure = \"{measure}\"\ninput = \"gas\"\nover = \"30m\"\n")
    };
    with(&[window("mean", "mean"), window("rise", "slope")].concat(), LOOKS_BACK)
}

fn looks_around() -> RuleSource {
    with("[[input]]\nrole = \"near\"\nkind = \"gas.lel\"\nscope = \"unit\"\n", LOOKS_AROUND)
}

/// Four detectors in each unit.
fn units(devices: usize) -> Points {
    let mut points = Points::default();
    let spec = Arc::new(PointSpec::plain("lel", Kind::named("gas.lel").expect("a known kind")));
    let profile: Arc<str> = "bench".into();
    for n in 0..devices {
        let place = Place { building: (n / 4).to_string(), unit: "1".to_owned(), ..Place::default() };
        points
            .add(DeviceId::new(format!("d{n}")), None, &profile, &Arc::new(place), &[Arc::clone(&spec)])
            .expect("a new id");
    }
    points
}

/// Readings of all points in turn, each every ten seconds, in bursts as the intake hands them over. The time that the
/// rule set took.
fn hear(set: &mut RuleSet, points: &Points, rounds: std::ops::Range<usize>, value: impl Fn(usize) -> f64) -> Duration {
    let (mut took, mut out) = (Duration::ZERO, Vec::new());
    for round in rounds {
        let now = START.plus(Duration::from_secs(10 * round as u64));
        for first in (0..points.len()).step_by(256) {
            let batch = first..(first + 256).min(points.len());
            let samples: Vec<Sample> = batch.map(|n| sample(n, now, value(round + n))).collect();
            let began = Instant::now();
            set.handle_samples(now, points, &samples, &|_, _| None, &mut out);
            took += began.elapsed();
            black_box(&out);
            out.clear();
        }
    }
    took
}

/// Evaluations a second, best of five times ten readings a point.
fn evaluations(name: &str, source: RuleSource, points: &Points, value: impl Fn(usize) -> f64 + Copy) {
    let mut set = RuleSet::load(vec![source], Vec::new(), &Faults::default());
    assert_eq!(set.broken(), []);
    set.bind(points);
    // Until the windows are full.
    hear(&mut set, points, 0..200, value);
    let (mut best, mut calls) = (f64::INFINITY, 0);
    for round in 20..25 {
        let before = set.calls();
        let took = hear(&mut set, points, round * 10..round * 10 + 10, value);
        best = best.min(took.as_secs_f64() / (10 * points.len()) as f64);
        calls = set.calls() - before;
    }
    println!(
        "{name:56} {:11.0} evaluations/s {:8.0} ns each, a script call in {:5.1} %",
        1.0 / best,
        best * 1e9,
        calls as f64 / (10 * points.len()) as f64 * 100.0
    );
}

/// How long the main loop stands still when one limit changes: the shipped rules on so many points that have all spoken.
fn reload(points: usize) {
    let site = site(points);
    let mut engine = Engine::new(shipped(), DeskSettings::default(), 1);
    engine.bind(&site);
    let samples = readings(points, points, |_| 1.0);
    for batch in samples.chunks(256) {
        engine.handle_samples(START, &site, batch);
    }
    let changed = || {
        let mut sources = library::shipped();
        let leak = sources.iter_mut().find(|source| source.name == "gas/leak").expect("it is shipped");
        leak.toml = leak.toml.replacen("value = 10.0", "value = 9.0", 1);
        RuleSet::load(sources, Vec::new(), &Faults::default())
    };
    let stands: Vec<f64> = (0..5)
        .map(|n| {
            let rules = if n % 2 == 0 { changed() } else { shipped() };
            let began = Instant::now();
            engine.replace_rules(START.plus(Duration::from_secs(n)), &site, rules, |point| {
                Some(samples[point.0 as usize].clone())
            });
            began.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    println!(
        "one limit changes, shipped rules, {points:7} points: the main loop stands {:.1} ms",
        super::median(stands)
    );
}

/// Resident memory of this process, in bytes.
fn resident() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok()).unwrap_or(f64::NAN) * 4_096.0
}

/// Bytes an instance when it is bound, and bytes a sample that its windows have taken in.
fn memory(name: &str, source: RuleSource, points: &Points, rounds: usize, windows: usize) {
    let mut set = RuleSet::load(vec![source], Vec::new(), &Faults::default());
    assert_eq!(set.broken(), []);
    let before = resident();
    set.bind(points);
    hear(&mut set, points, 0..1, |_| 1.0);
    let bound = resident();
    let each = (bound - before) / points.len() as f64;
    if windows == 0 {
        println!("{name:56} {each:8.0} bytes an instance");
        return;
    }
    hear(&mut set, points, 1..rounds, |n| (n % 500) as f64 / 10.0);
    let sample = (resident() - bound) / (points.len() * (rounds - 1) * windows) as f64;
    println!("{name:56} {each:8.0} bytes an instance, {sample:5.1} bytes a sample in each of {windows} windows");
    black_box(set);
}

/// Prints a line for each case.
pub fn run() {
    println!("\nRules: evaluations a second on one core, dispatch included");
    let quiet = |n: usize| (n % 500) as f64 / 10.0;
    let crosses = |n: usize| [1.0, 75.0][n % 2];
    let (plain, around) = (site(1_000), units(1_000));
    evaluations("plain limits, normal", source(0, STAGES), &plain, quiet);
    evaluations("plain limits, each reading crosses one", source(0, STAGES), &plain, crosses);
    evaluations("mean and slope of 30 min at 10 s, normal", looks_back(), &plain, quiet);
    evaluations("mean and slope of 30 min at 10 s, each crosses a limit", looks_back(), &plain, crosses);
    evaluations("a point and three others of its unit, normal", looks_around(), &around, quiet);
    evaluations("a point and three others of its unit, each crosses", looks_around(), &around, crosses);

    println!("\nRules: memory");
    let many = site(100_000);
    memory("plain limits, 100,000 points", source(0, STAGES), &many, 1, 0);
    memory("mean and slope of 30 min at 10 s, 100,000 points", looks_back(), &many, 180, 2);
    memory("a point and three others of its unit, 100,000 points", looks_around(), &units(100_000), 1, 0);

    println!("\nRules: nanoseconds a reading, best of five rounds");
    for rules in [1, 10, 100, 1_000] {
        measure("normal, all rules on every point", rules, 100, STAGES, quiet, |_| None);
    }
    measure("normal, all rules on every point", 10_000, 50, STAGES, quiet, |_| None);
    for devices in [1_000, 10_000, 100_000] {
        measure("normal, one rule", 1, devices, STAGES, quiet, |_| None);
    }
    measure("alarm stands, evidence kept fresh", 1, 100, STAGES, |_| 75.0, |_| Some(Level::Orange));
    measure(
        "alarm of one rule stands among many",
        1_000,
        100,
        STAGES,
        |n| [60.7, 60.8][n % 2],
        |rule| (rule == RuleIx(0)).then_some(Level::Yellow),
    );
    measure("each reading crosses a limit: a script call", 1, 1, STAGES, |n| [1.0, 75.0][n % 2], |_| None);
    measure("script reads the value: a script call", 1, 100, READS, quiet, |_| None);
    println!("\nRules: reload");
    [1_000, 10_000, 100_000].into_iter().for_each(reload);
    println!("\nA window keeps {} bytes for each change within", anmin_rules::set::BYTES_A_CHANGE);
    replays();
}
