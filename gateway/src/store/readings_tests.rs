//! Basic, limits and faults of readings.db. Times move by acknowledgements, never by sleeping: an acknowledgement says
//! that everything appended before it is committed.

use std::sync::atomic::AtomicUsize;
use std::sync::mpsc;

use anmin_sensors::point::PointSpec;
use anmin_sensors::reading::{Doubt, Fault};
use anmin_sensors::time::Now;

use super::super::tests::TestDir;
use super::*;
use crate::store::StoredSample;
use crate::store::view::{Bucket, Taken};

const START: i64 = 1_772_328_600_000_000;

fn site(devices: u32) -> Points {
    let mut points = Points::default();
    let place = Arc::new(Place { building: "3".to_owned(), grid: "G-07".to_owned(), ..Place::default() });
    let spec = |name, kind| Arc::new(PointSpec::plain(name, Kind::named(kind).unwrap()));
    let specs = [spec("lel", "gas.lel"), spec("smoke", "fire.smoke"), spec("text", "device.text")];
    for n in 0..devices {
        points.add(DeviceId::new(format!("dev-{n}")), None, &"plain".into(), &place, &specs).unwrap();
    }
    points
}

fn news(points: &Points) -> Vec<NewPoint> {
    points.iter().map(|(ix, _)| NewPoint::of(points, ix)).collect()
}

fn sample(point: u32, micros: i64, value: Option<Value>, quality: Quality) -> Sample {
    let received =
        Now { mono: Mono::from_nanos((micros - START).max(0) as u64 * 1_000), wall: Wall::from_micros(micros) };
    Sample {
        point: PointIx(point),
        value,
        quality,
        time: Wall::from_micros(micros),
        source_time: None,
        received,
        sequence: None,
        news: true,
    }
}

fn number(point: u32, micros: i64, value: f64) -> Sample {
    sample(point, micros, Some(Value::Number(value)), Quality::Good)
}

fn batch(samples: Vec<Sample>) -> ReadingsBatch {
    ReadingsBatch { points: Vec::new(), samples }
}

struct Rig {
    readings: Readings,
    dir: Arc<TestDir>,
    influx: Arc<str>,
    health: mpsc::Receiver<Option<StoreError>>,
    notes: Vec<Text>,
}

impl Rig {
    fn open(dir: &Arc<TestDir>, limits: Limits, disk: Disk) -> Self {
        Self::open_for(dir, limits, disk, &["influx"])
    }

    fn open_for(dir: &Arc<TestDir>, limits: Limits, disk: Disk, consumers: &[&str]) -> Self {
        let (say, health) = mpsc::channel();
        let consumers: Vec<Arc<str>> = consumers.iter().map(|name| Arc::from(*name)).collect();
        let on_health = Box::new(move |error| say.send(error).unwrap_or_default());
        let now = Wall::from_micros(START);
        let (readings, notes) = Readings::open_on(dir.path(), limits, &consumers, now, on_health, disk).unwrap();
        Self { readings, dir: Arc::clone(dir), influx: "influx".into(), health, notes }
    }

    fn new(name: &str) -> Self {
        Self::open(&Arc::new(TestDir::new(name)), Limits::default(), Disk::real())
    }

    /// Waits until everything appended so far is committed.
    fn settle(&self) {
        let (done, wait) = mpsc::channel();
        self.readings.append(batch(Vec::new()), vec![Ack::new(move || done.send(()).unwrap_or_default())]);
        wait.recv().unwrap();
    }

    fn all(&self) -> Vec<StoredSample> {
        self.after(0)
    }

    fn after(&self, mut after: i64) -> Vec<StoredSample> {
        let mut reader = self.readings.reader(&self.influx).unwrap();
        let mut all = Vec::new();
        while let Some(Taken { up_to, samples }) = reader.next(after, 1_000).unwrap() {
            after = up_to;
            all.extend(samples);
        }
        all
    }

    fn reopen(self) -> Self {
        let dir = Arc::clone(&self.dir);
        drop(self);
        Self::open(&dir, Limits::default(), Disk::real())
    }
}

/// Leaves a file with so many readings of one device's three points, the older ones in history.
pub(in crate::store) fn some_readings(dir: &Arc<TestDir>, count: usize) {
    let rig = Rig::open(dir, Limits::default(), Disk::real());
    let mut points = news(&site(1));
    for part in (0..count).collect::<Vec<_>>().chunks(COMPACT_AT) {
        let samples = part.iter().map(|n| number(*n as u32 % 2, START + *n as i64 * 1_000_000, *n as f64)).collect();
        let flags = vec![sample(1, START + part[0] as i64, Some(Value::Flag(true)), Quality::Good)];
        rig.readings.append(ReadingsBatch { points: std::mem::take(&mut points), samples }, Vec::new());
        rig.readings.append(batch(flags), Vec::new());
        rig.settle();
    }
}

#[test]
fn what_is_appended_is_read_back_in_order_also_after_a_restart() {
    let rig = Rig::new("readings-basic");
    let points = site(3);
    let samples = vec![
        number(0, START, 12.5),
        sample(1, START + 1, Some(Value::Flag(true)), Quality::Uncertain(Doubt::Unconfirmed)),
        sample(2, START, Some(Value::Text("门开".into())), Quality::Good),
        sample(0, START + 5, None, Quality::Bad(Fault::Comms)),
        number(8, START - 5, -0.1),
    ];
    rig.readings.append(ReadingsBatch { points: news(&points), samples: samples.clone() }, Vec::new());
    rig.settle();
    rig.readings.append(batch(vec![number(3, START + 9, 1e-9)]), Vec::new());
    let rig = rig.reopen();
    let mut reader = rig.readings.reader(&rig.influx).unwrap();
    let expected = samples.iter().chain(&[number(3, START + 9, 1e-9)]).cloned().collect::<Vec<_>>();
    let stored = rig.all();
    assert_eq!(stored.len(), expected.len());
    for (stored, sample) in stored.iter().zip(&expected) {
        let label = reader.label(stored.point).unwrap().unwrap();
        assert_eq!(label.point, points.point(sample.point).id.as_str());
        assert_eq!((label.building.as_str(), label.grid.as_str()), ("3", "G-07"));
        assert_eq!((stored.time, &stored.value, stored.quality), (sample.time, &sample.value, sample.quality));
    }
    assert_eq!(rig.readings.counts().queued, 6);
}

#[test]
fn a_point_keeps_its_number_and_takes_a_new_place() {
    let rig = Rig::new("readings-numbers");
    rig.readings.append(
        ReadingsBatch { points: news(&site(2)), samples: vec![number(3, START, 1.0), number(0, START, 2.0)] },
        Vec::new(),
    );
    let rig = rig.reopen();
    // The site has changed: another order of points, another building.
    let mut points = Points::default();
    let place = Arc::new(Place { building: "4".to_owned(), ..Place::default() });
    let lel = Arc::new(PointSpec::plain("lel", Kind::named("gas.lel").unwrap()));
    for id in ["dev-9", "dev-1"] {
        points.add(DeviceId::new(id), None, &"plain".into(), &place, std::slice::from_ref(&lel)).unwrap();
    }
    rig.readings.append(ReadingsBatch { points: news(&points), samples: vec![number(1, START + 1, 3.0)] }, Vec::new());
    rig.settle();
    let all = rig.all();
    assert_eq!(all[0].point, all[2].point, "dev-1/lel before and after");
    let label = rig.readings.reader(&rig.influx).unwrap().label(all[2].point).unwrap().unwrap();
    assert_eq!((label.point.as_str(), label.building.as_str()), ("dev-1/lel", "4"));
}

#[test]
fn acknowledgements_wait_until_the_disk_has_taken_the_readings() {
    let dir = Arc::new(TestDir::new("readings-acks"));
    let full = Arc::new(AtomicUsize::new(1));
    let state = Arc::clone(&full);
    let disk = Disk::scripted(move |file| match state.load(Ordering::SeqCst) {
        1 => Err(StoreError::Full { file: file.to_owned() }),
        _ => Ok(()),
    });
    let rig = Rig::open(&dir, Limits::default(), disk);
    let (acked, acks) = mpsc::channel();
    for n in 0..3 {
        let acked = acked.clone();
        rig.readings.append(
            ReadingsBatch {
                points: if n == 0 { news(&site(1)) } else { Vec::new() },
                samples: vec![number(0, START + n, 1.0)],
            },
            vec![Ack::new(move || acked.send(n).unwrap_or_default())],
        );
    }
    assert!(matches!(rig.health.recv().unwrap(), Some(StoreError::Full { .. })));
    assert!(acks.try_recv().is_err(), "nothing is acknowledged that is not on disk, while there is hope");
    assert_eq!(rig.readings.counts().stored, 0);
    full.store(0, Ordering::SeqCst);
    assert_eq!((0..3).map(|_| acks.recv().unwrap()).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(rig.health.recv().unwrap(), None);
    assert_eq!(rig.all().len(), 3);
    assert!(rig.readings.counts().synced >= 1);
}

#[test]
fn a_source_without_acknowledgements_is_shed_first_and_every_reading_is_counted() {
    let dir = Arc::new(TestDir::new("readings-shed"));
    let (open, gate) = mpsc::sync_channel::<()>(0);
    let gate = Mutex::new(gate);
    // The first commit stands still until the test lets it go: a disk that is slow.
    let disk = Disk::scripted(move |_| {
        let _ = gate.lock().unwrap().recv();
        Ok(())
    });
    let rig = Rig::open(&dir, Limits::default(), disk);
    let mut appended = 0_u64;
    let mut append = |points: Vec<NewPoint>, count: i64, acks: Vec<Ack>| {
        appended += count as u64;
        let samples = (0..count).map(|n| number(0, START + n, n as f64)).collect();
        rig.readings.append(ReadingsBatch { points, samples }, acks);
    };
    append(news(&site(1)), 1, vec![Ack::new(|| ())]);
    // Wait until the writer has taken the first: it is inside the disk then.
    open.send(()).unwrap();
    let (acked, acks) = mpsc::channel();
    for _ in 0..2 {
        let acked = acked.clone();
        append(Vec::new(), 1_000, vec![Ack::new(move || acked.send(()).unwrap_or_default())]);
    }
    for _ in 0..30 {
        append(Vec::new(), 1_000, Vec::new());
    }
    drop(open);
    acks.recv().unwrap();
    acks.recv().unwrap();
    let counts = rig.readings.close();
    assert!(counts.shed >= 10_000, "{counts:?}");
    assert_eq!(counts.stored + counts.shed, appended, "{counts:?}");
}

#[test]
fn the_queue_is_kept_for_its_consumers_and_no_longer() {
    let dir = Arc::new(TestDir::new("readings-cursor"));
    let rig = Rig::open_for(&dir, Limits::default(), Disk::real(), &["influx", "other"]);
    let samples: Vec<Sample> = (0..9_000).map(|n| number(n as u32 % 3 * 3, START + n * 1_000, n as f64)).collect();
    rig.readings.append(ReadingsBatch { points: news(&site(3)), samples }, Vec::new());
    rig.settle();
    let last = *rig.readings.reader(&rig.influx).unwrap().committed().borrow();
    rig.readings.reader(&rig.influx).unwrap().forwarded(last - 2);
    for _ in 0..60 {
        rig.settle();
    }
    assert_eq!(rig.readings.counts().queued, 9_000, "the other has taken nothing");
    assert_eq!(rig.readings.counts().waiting, 9_000, "the slowest counts");
    let backlogs = rig.readings.forwarding().backlogs;
    let left = 9_000 - (last as u64 - 2) * BATCH_MAX as u64;
    assert_eq!(backlogs.iter().map(|one| one.queued).collect::<Vec<_>>(), [left, 9_000], "each for itself");
    assert!(backlogs[0].bytes > 0 && backlogs[0].bytes < backlogs[1].bytes, "{backlogs:?}");
    let oldest = |behind: u64| Some(Wall::from_micros(START + (9_000 - behind as i64) * 1_000));
    assert_eq!(backlogs.iter().map(|one| one.oldest).collect::<Vec<_>>(), [oldest(left), oldest(9_000)]);
    rig.readings.reader(&rig.influx).unwrap().forwarded_with(last - 2, 7);
    rig.settle();
    assert_eq!(rig.readings.forwarding().backlogs[0].waiting(), left - 7, "seven went before the others");
    drop(rig);
    let rig = Rig::open(&dir, Limits::default(), Disk::real());
    assert_eq!(rig.readings.reader(&rig.influx).unwrap().cursor().unwrap(), last - 2, "the cursor is durable");
    assert_eq!(rig.after(last - 2).len(), 9_000 - (last as usize - 2) * BATCH_MAX);
    for _ in 0..60 {
        rig.settle();
    }
    assert!(rig.readings.counts().queued < 9_000, "the other is gone");
    assert_eq!(rig.readings.counts().waiting as usize, 9_000 - (last as usize - 2) * BATCH_MAX);
    rig.readings.reader(&rig.influx).unwrap().forwarded(last);
    rig.settle();
    assert_eq!(rig.readings.counts().waiting, 0);
    let [influx] = &rig.readings.forwarding().backlogs[..] else { panic!("one consumer") };
    assert_eq!((influx.queued, influx.bytes, influx.oldest), (0, 0, None));
    assert_eq!(rig.after(last).len(), 0);
    rig.readings.append(batch(vec![number(0, START, 1.0)]), Vec::new());
    rig.settle();
    assert_eq!(rig.after(last).len(), 0, "points are named anew in each run: a stranger is counted, not stored");
    assert_eq!(rig.readings.counts().shed, 1);
}

/// What `buckets` must give, the plain way.
fn naive(all: &[(i64, Option<f64>, bool)], from: i64, to: i64, count: usize) -> Vec<(i64, u32, f64, f64, f64, u32)> {
    let width = ((to - from) as u64).div_ceil(count as u64) as i64;
    (0..count as i64)
        .filter_map(|n| {
            let start = from + n * width;
            let within: Vec<_> = all.iter().filter(|(at, ..)| *at >= start && *at < (start + width).min(to)).collect();
            let values: Vec<f64> = within.iter().filter(|(.., bad)| !bad).filter_map(|(_, value, _)| *value).collect();
            let bad = within.iter().filter(|(.., bad)| *bad).count() as u32;
            let min = values.iter().copied().fold(f64::INFINITY, f64::min);
            let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = values.iter().sum();
            (!within.is_empty()).then_some((start, values.len() as u32, min, max, sum, bad))
        })
        .collect()
}

/// Goal: a chart shows each reading once, whether it is still in the queue, being sorted in, or in chunks, also after a
/// crash at any of these. Method: append, ask at every step, and open copies of the files as a crash would leave them.
#[test]
fn history_is_whole_at_every_step_of_compaction_and_after_a_crash_there() {
    let rig = Rig::new("readings-history");
    rig.readings.append(ReadingsBatch { points: news(&site(4)), samples: Vec::new() }, Vec::new());
    let mut all: Vec<Vec<(i64, Option<f64>, bool)>> = vec![Vec::new(); 12];
    let mut seed = 7_u64;
    let check = |history: &mut History, all: &[Vec<(i64, Option<f64>, bool)>], step: usize| {
        let mut swept = Vec::new();
        let take = |samples| {
            swept.extend::<Vec<StoredSample>>(samples);
            true
        };
        history.sweep(Wall::from_micros(i64::MIN), Wall::from_micros(i64::MAX), take).unwrap();
        assert!(swept.is_sorted_by_key(|sample| (sample.time, sample.point)), "step {step}");
        assert_eq!(swept.len(), all.iter().map(Vec::len).sum::<usize>(), "step {step}");
        for (ix, point) in site(4).iter() {
            let all = &all[ix.0 as usize];
            let (from, to) = (START, START + 3_600_000_000);
            let got = history.buckets(point.id.as_str(), Wall::from_micros(from), Wall::from_micros(to), 60).unwrap();
            let expected = naive(all, from, to, 60);
            assert_eq!(got.len(), expected.len(), "step {step} {}", point.id);
            for (Bucket { start, count, min, max, mean, bad }, (at, n, low, high, sum, wrong)) in
                got.iter().zip(expected)
            {
                assert_eq!((start.micros(), *count, *bad), (at, n, wrong), "step {step} {}", point.id);
                if n > 0 {
                    assert_eq!((*min, *max), (low, high));
                    assert!((mean - sum / f64::from(n)).abs() < 1e-9);
                }
            }
            let raw = history.raw(point.id.as_str(), Wall::from_micros(i64::MIN), Wall::from_micros(i64::MAX)).unwrap();
            assert_eq!(raw.len(), all.len(), "step {step} {}", point.id);
            let mut streamed = Vec::new();
            for (number, _) in history.points(Some(point.id.as_str()), None, None).unwrap() {
                let to = Wall::from_micros(i64::MAX);
                let take = |sample: StoredSample| {
                    let value = sample.value.map(|value| match value {
                        Value::Number(number) => number,
                        other => panic!("{other:?}"),
                    });
                    streamed.push((sample.time, value, sample.quality));
                    true
                };
                history.stream(number, Wall::from_micros(i64::MIN), to, take).unwrap();
                let own = swept.iter().filter(|sample| sample.point == number);
                let own =
                    own.map(|sample| (sample.time, sample.value.as_ref().and_then(Value::as_f64), sample.quality));
                assert!(own.collect::<Vec<_>>() == raw, "step {step} {}: a sweep is in order and whole", point.id);
            }
            assert!(streamed == raw, "step {step} {}: a stream is in order and whole", point.id);
        }
    };
    let mut history = rig.readings.history().unwrap();
    for step in 0..60 {
        let samples: Vec<Sample> = (0..300_u32)
            .map(|n| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let ix = (seed >> 33) as u32 % 3 * 3 + u32::from(n % 10 == 0);
                let at = START + i64::from(step) * 60_000_000 + i64::from(n) * 200_000;
                let (value, quality) = match seed >> 60 {
                    0 => (None, Quality::Bad(Fault::Comms)),
                    1 => (Some(0.5), Quality::Bad(Fault::OutOfRange)),
                    _ => (Some((seed >> 50) as f64 / 10.0), Quality::Good),
                };
                all[ix as usize].push((at, value, matches!(quality, Quality::Bad(_))));
                sample(ix, at, value.map(Value::Number), quality)
            })
            .collect();
        rig.readings.append(batch(samples), Vec::new());
        rig.settle();
        if step % 7 == 3 {
            check(&mut history, &all, step as usize);
            let crashed = Arc::new(TestDir::new("readings-crashed"));
            for suffix in ["", "-wal"] {
                let name = format!("{FILE}{suffix}");
                fs::copy(rig.dir.path().join(&name), crashed.path().join(&name)).unwrap();
            }
            let again = Rig::open(&crashed, Limits::default(), Disk::real());
            assert!(again.notes.is_empty());
            for _ in 0..20 {
                again.settle();
            }
            check(&mut again.readings.history().unwrap(), &all, step as usize);
        }
    }
    let conn = Connection::open(rig.dir.path().join(FILE)).unwrap();
    let chunks: i64 = conn.query_row("SELECT sum(samples) FROM chunks", [], |row| row.get(0)).unwrap();
    assert!(chunks > 10_000, "most of it is sorted in: {chunks}");
}

/// A slow reader of a stream holds nobody up: what is compacted, and what comes, while it reads, changes nothing of it.
#[test]
fn a_stream_is_as_of_the_moment_at_which_it_began() {
    let rig = Rig::new("readings-stream");
    rig.readings.append(ReadingsBatch { points: news(&site(1)), samples: Vec::new() }, Vec::new());
    let put = |from: i64, count: i64| {
        // Every third is late, as after a network that was away.
        let late = |n: i64| if n % 3 == 0 { -7_500_000 } else { 0 };
        let samples = (from..from + count).map(|n| number(0, START + n * 1_000_000 + late(n), n as f64)).collect();
        rig.readings.append(batch(samples), Vec::new());
        rig.settle();
    };
    (0..20).for_each(|n| put(n * 300, 300));
    let mut history = rig.readings.history().unwrap();
    let points = history.points(None, Some("dev-0"), Some("gas.lel")).unwrap();
    assert_eq!(points.iter().map(|(_, label)| label.point.as_str()).collect::<Vec<_>>(), ["dev-0/lel"]);
    assert!(history.points(Some("dev-0/lel"), Some("other"), None).unwrap().is_empty());
    let mut got = Vec::new();
    let take = |sample: StoredSample| {
        if got.len() == 100 {
            (20..50).for_each(|n| put(n * 300, 300));
        }
        got.push((sample.time.micros(), sample.value));
        true
    };
    history.stream(points[0].0, Wall::from_micros(i64::MIN), Wall::from_micros(i64::MAX), take).unwrap();
    assert!(got.is_sorted_by_key(|(time, _)| *time), "in order of time");
    let mut values: Vec<f64> =
        got.iter().map(|(_, value)| if let Some(Value::Number(number)) = value { *number } else { -1.0 }).collect();
    values.sort_by(f64::total_cmp);
    assert_eq!(values, (0..6_000).map(f64::from).collect::<Vec<_>>(), "each once, and none that came later");
    let mut few = 0;
    let part = (Wall::from_micros(START + 60_000_000), Wall::from_micros(START + 120_000_000));
    history
        .stream(points[0].0, part.0, part.1, |_| {
            few += 1;
            few < 10
        })
        .unwrap();
    assert_eq!(few, 10, "it ends where the taker has enough");
}

#[test]
fn the_file_stays_within_its_bound_and_says_what_went() {
    let dir = Arc::new(TestDir::new("readings-bound"));
    let limits = Limits { max_bytes: 1 << 20, ..Limits::default() };
    let rig = Rig::open(&dir, limits, Disk::real());
    rig.readings.append(ReadingsBatch { points: news(&site(4)), samples: Vec::new() }, Vec::new());
    let mut seed = 1_u64;
    for step in 0..100_i64 {
        let samples = (0..2_000_i64)
            .map(|n| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                // Noise that does not compress, the worst case.
                number(n as u32 % 4 * 3, START + (step * 2_000 + n) * 1_000, f64::from_bits(seed >> 2))
            })
            .collect();
        rig.readings.append(batch(samples), Vec::new());
        rig.settle();
        assert!(rig.readings.counts().bytes <= limits.max_bytes, "{:?}", rig.readings.counts());
    }
    let counts = rig.readings.counts();
    assert_eq!(counts.stored, 200_000);
    assert!(counts.dropped > 100_000, "{counts:?}");
    assert_eq!(counts.queued + counts.dropped, counts.stored, "what is gone from the queue is counted");
    let gaps = rig.readings.history().unwrap().gaps().unwrap();
    assert_eq!(gaps.len(), 1, "one unbroken stretch");
    assert_eq!((gaps[0].samples, gaps[0].first.micros()), (counts.dropped, START));
    assert_eq!(rig.all().len() as u64, counts.queued);
    assert_eq!(counts.waiting, counts.queued, "what was dropped waits no longer");
    let forwarding = rig.readings.forwarding();
    assert_eq!((forwarding.gaps, &forwarding.newest_gaps), (1, &gaps));
    assert_eq!((forwarding.backlogs[0].dropped, forwarding.backlogs[0].queued), (counts.dropped, counts.queued));
    assert_eq!(forwarding.backlogs[0].oldest, rig.all().first().map(|sample| sample.time), "what is left begins here");
    let newest = rig.readings.history().unwrap().raw("dev-0/lel", gaps[0].last, Wall::from_micros(i64::MAX)).unwrap();
    assert!(newest.len() > 1_000, "history keeps the newest: {}", newest.len());
}

#[test]
fn history_older_than_its_days_goes() {
    let dir = Arc::new(TestDir::new("readings-days"));
    let limits = Limits { keep: Duration::from_secs(3_600), ..Limits::default() };
    let rig = Rig::open_for(&dir, limits, Disk::real(), &[]);
    rig.readings.append(ReadingsBatch { points: news(&site(1)), samples: Vec::new() }, Vec::new());
    for hour in 0..5 {
        let samples = (0..4_200).map(|n| number(0, START + hour * 3_600_000_000 + n * 800_000, 1.0)).collect();
        rig.readings.append(batch(samples), Vec::new());
        rig.settle();
    }
    for _ in 0..20 {
        rig.settle();
    }
    let left =
        rig.readings.history().unwrap().raw("dev-0/lel", Wall::from_micros(0), Wall::from_micros(i64::MAX)).unwrap();
    assert!(left[0].0.micros() >= START + 2 * 3_600_000_000, "{:?}", left[0]);
    assert!(left.len() >= 4_200);
    let all = Wall::from_micros(i64::MAX);
    for most in [0, 1, 4_200, left.len(), left.len() + 1] {
        let (first, left_out) =
            rig.readings.history().unwrap().first("dev-0/lel", Wall::from_micros(0), all, most).unwrap();
        assert_eq!(first, left[..most.min(left.len())], "{most}");
        assert_eq!(left_out as usize, left.len().saturating_sub(most), "{most}");
    }
    assert_eq!(rig.readings.history().unwrap().first("nobody/x", Wall::from_micros(0), all, 9), Ok((Vec::new(), 0)));
    assert_eq!(rig.readings.counts().queued, 21_000 % 4_200, "no consumer: the queue empties into history");
    assert_eq!(rig.readings.counts().waiting, 0, "no consumer: nobody waits");
}

#[test]
fn a_damaged_file_is_set_aside_at_the_start_and_while_running() {
    let dir = Arc::new(TestDir::new("readings-damaged"));
    fs::write(dir.path().join(FILE), vec![42; 20_000]).unwrap();
    let damaged = Arc::new(AtomicUsize::new(0));
    let state = Arc::clone(&damaged);
    let disk = Disk::scripted(move |file| match state.swap(0, Ordering::SeqCst) {
        1 => Err(StoreError::Damaged { file: file.to_owned(), why: "scripted".to_owned() }),
        _ => Ok(()),
    });
    let rig = Rig::open(&dir, Limits::default(), disk);
    assert_eq!(rig.notes.len(), 1);
    rig.readings.append(ReadingsBatch { points: news(&site(1)), samples: vec![number(0, START, 1.0)] }, Vec::new());
    rig.settle();
    let mut reader = rig.readings.reader(&rig.influx).unwrap();
    let mut history = rig.readings.history().unwrap();
    let first = reader.next(0, 10).unwrap().unwrap();
    damaged.store(1, Ordering::SeqCst);
    rig.readings.append(batch(vec![number(0, START + 1, 2.0)]), Vec::new());
    rig.settle();
    assert!(matches!(rig.health.recv().unwrap(), Some(StoreError::Damaged { .. })));
    assert_eq!(rig.health.recv().unwrap(), None);
    let second = reader.next(first.up_to, 10).unwrap().unwrap();
    assert_eq!(second.samples[0].value, Some(Value::Number(2.0)), "the reader follows to the new file");
    assert_eq!(reader.label(second.samples[0].point).unwrap().unwrap().point, "dev-0/lel");
    assert_eq!(history.raw("dev-0/lel", Wall::from_micros(0), Wall::from_micros(i64::MAX)).unwrap().len(), 1);
    let aside = fs::read_dir(dir.path())
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.contains(".bad-20260301T0130") && !name.ends_with("-wal") && !name.ends_with("-shm"))
        .count();
    assert_eq!(aside, 2);
}

/// What stands at a time, so that a value that was made up is seen.
fn honest(micros: i64) -> f64 {
    (micros - START) as f64 / 1e6 % 97.0
}

/// Method: cut the file within every page, invert every page, empty it. Whatever is damaged, new readings are
/// taken and read back, and what the file still gives of the old ones is true.
#[test]
fn a_file_damaged_on_any_page_takes_new_readings_and_gives_no_false_ones() {
    const PAGE: usize = 8_192;
    let sound = Rig::new("readings-pages");
    let mut points = news(&site(1));
    for part in 0..40 {
        let samples = (0..200_i64).map(|n| START + (part * 200 + n) * 250_000);
        let samples = samples.map(|at| number(0, at, honest(at))).collect();
        sound.readings.append(ReadingsBatch { points: std::mem::take(&mut points), samples }, Vec::new());
        sound.settle();
    }
    let dir = Arc::clone(&sound.dir);
    drop(sound);
    let bytes = fs::read(dir.path().join(FILE)).unwrap();
    let pages = bytes.len() / PAGE;
    assert!(pages > 8, "{pages}");
    type Damage = fn(&mut Vec<u8>, usize);
    let ways: [(&str, Damage); 3] = [
        ("cut within", |bytes, at| bytes.truncate(at + 3_000)),
        ("inverted", |bytes, at| bytes[at..at + PAGE].iter_mut().for_each(|byte| *byte ^= 0x5a)),
        ("emptied", |bytes, at| bytes[at..at + PAGE].fill(0)),
    ];
    let mut survivors = 0;
    for (way, damage) in ways {
        for page in 0..pages {
            let what = format!("page {page} {way}");
            let dir = Arc::new(TestDir::new(&format!("readings-page-{page}-{}", &way[..3])));
            let mut damaged = bytes.clone();
            damage(&mut damaged, page * PAGE);
            fs::write(dir.path().join(FILE), &damaged).unwrap();
            let rig = Rig::open(&dir, Limits::default(), Disk::real());
            let at = START + 86_400_000_000;
            // Twice, because the damage may only be found by writing.
            for at in [at, at + 1_000_000] {
                let news = if at % 2_000_000 == 0 { news(&site(1)) } else { Vec::new() };
                rig.readings
                    .append(ReadingsBatch { points: news, samples: vec![number(0, at, honest(at))] }, Vec::new());
                rig.settle();
            }
            let all = rig.all();
            let values = all.iter().map(|sample| (sample.time.micros(), sample.value.clone()));
            for (at, value) in values {
                assert_eq!(value, Some(Value::Number(honest(at))), "{what}: at {at}");
            }
            let newest = all.last().map(|sample| sample.time.micros());
            assert_eq!(newest, Some(at + 1_000_000), "{what}: of {} readings", all.len());
            survivors += usize::from(all.len() > 2);
            let mut history = rig.readings.history().unwrap();
            let told = history.raw("dev-0/lel", Wall::from_micros(0), Wall::from_micros(i64::MAX));
            assert!(matches!(told, Ok(_) | Err(StoreError::Damaged { .. })), "{what}: {told:?}");
            for (at, value, _) in told.unwrap_or_default() {
                assert_eq!(value, Some(honest(at.micros())), "{what}: history at {}", at.micros());
            }
        }
    }
    assert!(survivors > 0, "a page that is not the table's own spares the others");
}

#[test]
fn a_damaged_batch_is_passed_over_and_the_rest_arrives() {
    let rig = Rig::new("readings-batch");
    rig.readings.append(ReadingsBatch { points: news(&site(1)), samples: vec![number(0, START, 1.0)] }, Vec::new());
    rig.settle();
    rig.readings.append(batch(vec![number(0, START + 1, 2.0)]), Vec::new());
    rig.settle();
    let dir = Arc::clone(&rig.dir);
    drop(rig);
    Connection::open(dir.path().join(FILE))
        .unwrap()
        .execute_batch("UPDATE queue SET body = zeroblob(30) WHERE id = 1")
        .unwrap();
    let rig = Rig::open(&dir, Limits::default(), Disk::real());
    let mut reader = rig.readings.reader(&rig.influx).unwrap();
    let taken = reader.next(0, 10).unwrap().unwrap();
    assert_eq!((taken.samples.len(), taken.up_to, reader.damaged()), (1, 2, 1));
}

#[test]
fn a_newer_file_is_left_alone() {
    let rig = Rig::new("readings-newer");
    let dir = Arc::clone(&rig.dir);
    drop(rig);
    Connection::open(dir.path().join(FILE)).unwrap().execute_batch("PRAGMA user_version = 7").unwrap();
    let before = fs::read(dir.path().join(FILE)).unwrap();
    let rig = Rig::open(&dir, Limits::default(), Disk::real());
    assert!(matches!(rig.health.recv().unwrap(), Some(StoreError::Newer { found: 7, known: 3, .. })));
    rig.readings.append(ReadingsBatch { points: news(&site(1)), samples: vec![number(0, START, 1.0)] }, Vec::new());
    rig.settle();
    assert_eq!(rig.readings.close().shed, 1);
    assert!(fs::read(dir.path().join(FILE)).unwrap() == before);
}

/// Goal: a database that is away holds no source back, and nothing is given up unsaid. Method: where its folder should be
/// stands a file; it goes away later.
#[test]
fn without_a_file_readings_are_acknowledged_and_kept_until_there_is_one() {
    let dir = Arc::new(TestDir::new("readings-away"));
    let within = dir.path().join("data");
    fs::write(&within, "in the way").unwrap();
    let (say, health) = mpsc::channel();
    let on_health = Box::new(move |error| say.send(error).unwrap_or_default());
    let influx: Arc<str> = "influx".into();
    let (readings, notes) =
        Readings::open(&within, Limits::default(), &[Arc::clone(&influx)], Wall::from_micros(START), on_health)
            .unwrap();
    assert!(notes.is_empty());
    assert!(health.recv().unwrap().is_some_and(|error| error.may_pass()));
    let (mut reader, mut history) = (readings.reader(&influx).unwrap(), readings.history().unwrap());
    assert!(reader.next(0, 10).is_err() && history.gaps().is_err());
    let (acked, acks) = mpsc::channel();
    for n in 0..5 {
        let acked = acked.clone();
        let points = if n == 0 { news(&site(1)) } else { Vec::new() };
        let samples = vec![number(0, START + n, n as f64)];
        readings.append(ReadingsBatch { points, samples }, vec![Ack::new(move || acked.send(n).unwrap_or_default())]);
    }
    // Acknowledged where the file cannot be: or a broker would stop sending.
    assert_eq!((0..5).map(|_| acks.recv().unwrap()).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert_eq!(readings.counts().stored, 0);
    let many = (0..QUEUED_MAX as i64 * 2).map(|n| number(1, START + n, 1.0));
    many.collect::<Vec<_>>().chunks(500).for_each(|part| readings.append(batch(part.to_vec()), Vec::new()));
    let mut committed = readings.reader(&influx).unwrap().committed();
    committed.borrow_and_update();
    fs::remove_file(&within).unwrap();
    assert_eq!(health.recv().unwrap(), None, "well again by itself");
    let taken = reader.next(0, usize::MAX).unwrap().unwrap();
    assert!(!taken.samples.is_empty(), "the reader finds the new file");
    assert!(history.gaps().unwrap().is_empty());
    let counts = readings.close();
    assert_eq!(counts.stored + counts.shed, 5 + QUEUED_MAX as u64 * 2, "each is stored or counted");
    assert!(counts.shed > 0);
}

#[test]
fn history_of_the_first_schema_is_still_there() {
    let dir = TestDir::new("first-schema");
    let from = Wall::from_micros(START);
    {
        let conn = Connection::open(dir.path().join(FILE)).unwrap();
        conn.execute_batch(MIGRATIONS[0]).unwrap();
        conn.pragma_update(None, "user_version", 1).unwrap();
        for number in [3_u32, 70] {
            let cells: Vec<(u32, Cell)> = (0..10)
                .map(|n| (number, Cell { time: START + n * 1_000_000, value: f64::from(number), code: 0 }))
                .collect();
            conn.execute(
                "INSERT INTO points VALUES (?1, ?2, 'gas.lel', 'd', '', '', '', '', '', '')",
                params![number, format!("d/{number}")],
            )
            .unwrap();
            conn.execute(
                "INSERT INTO chunks (point, first, last, samples, body) VALUES (?1, ?2, ?3, 10, ?4)",
                params![number, cells[0].1.time, cells[9].1.time, column::encode_chunk(&cells)],
            )
            .unwrap();
        }
    }
    let (store, notes) =
        Readings::open(dir.path(), Limits::default(), &[], from, Box::new(|_| {})).expect("it is brought forward");
    assert!(notes.is_empty(), "nothing was set aside: {notes:?}");
    for number in [3_u32, 70] {
        let all =
            store.history().unwrap().raw(&format!("d/{number}"), Wall::from_micros(0), Wall::from_micros(i64::MAX));
        let values: Vec<Option<f64>> = all.unwrap().into_iter().map(|(_, value, _)| value).collect();
        assert_eq!(values, vec![Some(f64::from(number)); 10]);
    }
}

/// Goal: a community of many points that each speak seldom does not rewrite its history with every compaction.
#[test]
fn points_that_seldom_speak_share_their_chunks() {
    let rig = Rig::new("readings-share");
    let points = site(1_000);
    let at = |n: usize| START + n as i64 * 1_000_000;
    let spread = (0..COMPACT_AT).map(|n| number((n % 3_000) as u32, at(n), n as f64)).collect();
    rig.readings.append(ReadingsBatch { points: news(&points), samples: spread }, Vec::new());
    // One slice of the compaction with each commit.
    (0..COMPACT_AT / COMPACT_SLICE + 2).for_each(|_| rig.settle());
    let conn = Connection::open(rig.dir.path().join(FILE)).unwrap();
    let sum = |what: &str| -> i64 {
        conn.query_row(&format!("SELECT coalesce({what}, 0) FROM chunks"), [], |row| row.get(0)).unwrap()
    };
    assert_eq!(sum("sum(samples)"), COMPACT_AT as i64, "all of it is sorted in");
    assert!(sum("count(*)") <= 3_000 / i64::from(GROUP) + 1, "{} chunks", sum("count(*)"));
    let mut history = rig.readings.history().unwrap();
    for (ix, point) in points.iter().step_by(77) {
        let all = history.raw(point.id.as_str(), Wall::from_micros(0), Wall::from_micros(i64::MAX)).unwrap();
        let values: Vec<f64> = all.into_iter().filter_map(|(_, value, _)| value).collect();
        let wanted: Vec<f64> = (ix.0 as usize..COMPACT_AT).step_by(3_000).map(|n| n as f64).collect();
        assert_eq!(values, wanted, "{}", point.id);
    }
}
