//! Readings to samples: range, jump, stuck, silent, clock skew, late, repeated, retained.
//!
//! What it promises: every reading becomes exactly one sample or is counted as a duplicate; a sample that cannot be
//! believed says why; a point that says nothing for its `silent_after` gives a sample that says so. It does not know
//! rules or alarms, and it never reads a clock.
//!
//! Order of the doubts: what makes a value unusable (device, sentinel, range) comes before what makes it doubtful, and of
//! several doubts the one that holds a reading back most (retained, warming up) is named.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::point::{Hazard, PointIx, Points};
use crate::reading::{Doubt, Fault, Quality, Reading, Sample, Value};
use crate::time::{Mono, Now, Wall};

/// How far a device's clock may differ from ours before its time is not believed.
pub const MAX_SKEW: Duration = Duration::from_secs(600);
/// A retained message counts as news when its own time is not older than this.
pub const RETAINED_NEWS: Duration = Duration::from_secs(60);
/// A reading that repeats one of the last so many minutes is the same reading, not another.
pub const REPEAT_WINDOW: Duration = Duration::from_secs(600);

/// What became of the readings so far. `received = samples + duplicate`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub received: u64,
    /// The same point, time, sequence and value as one before: dropped.
    pub duplicate: u64,
    /// Older than the newest of its point: stored, never judged.
    pub late: u64,
    /// Retained: shown, never judged.
    pub retained: u64,
    pub uncertain: u64,
    pub bad: u64,
    /// Samples made because nothing came.
    pub silent: u64,
}

/// What is remembered of one point; kept small, there may be a hundred thousand.
#[derive(Clone, Debug)]
struct Memory {
    /// The last sample as it was handed on; `None` before the first.
    last: Option<Box<Sample>>,
    /// Hashes of the last few identities (time, sequence, value), newest overwriting oldest.
    seen: [u64; 4],
    /// When each of them came.
    seen_at: [Mono; 4],
    next: u8,
    /// Newest source time and sequence so far.
    newest_time: Option<Wall>,
    newest_sequence: Option<u64>,
    /// A jump that waits for a second reading near it.
    jumped_to: Option<f64>,
    /// Last believed number and when it last moved.
    number: Option<f64>,
    moved_at: Mono,
    heard_at: Mono,
    /// A silent sample has been given and nothing came since.
    silent: bool,
}

/// The validation of all points.
#[derive(Debug, Default)]
pub struct Validator {
    memory: Vec<Memory>,
    /// One entry a watched point: when it would be silent, seen from when the entry was made. A point that spoke since is
    /// put back with its new time when the entry comes up.
    deadlines: BinaryHeap<Reverse<(Mono, PointIx)>>,
    counts: Counts,
}

impl Validator {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Takes up points that were added since the last time: from `now` on they are expected to speak.
    pub fn watch(&mut self, points: &Points, now: Now) {
        for n in self.memory.len()..points.len() {
            let ix = PointIx(n as u32);
            self.memory.push(Memory {
                last: None,
                seen: [0; 4],
                seen_at: [Mono::default(); 4],
                next: 0,
                newest_time: None,
                newest_sequence: None,
                jumped_to: None,
                number: None,
                moved_at: now.mono,
                heard_at: now.mono,
                silent: false,
            });
            if let Some(silent_after) = points.point(ix).spec.silent_after {
                self.deadlines.push(Reverse((now.mono.plus(silent_after), ix)));
            }
        }
    }

    /// The point's last sample, for screens.
    pub fn latest(&self, ix: PointIx) -> Option<Sample> {
        self.memory.get(ix.0 as usize)?.last.as_deref().cloned()
    }

    /// Judges readings in the order in which they came.
    pub fn handle_readings(&mut self, now: Now, points: &Points, readings: &[Reading], out: &mut Vec<Sample>) {
        if self.memory.len() < points.len() {
            self.watch(points, now);
        }
        for reading in readings {
            self.counts.received += 1;
            let memory = &mut self.memory[reading.point.0 as usize];
            let Some(sample) = judge(memory, &mut self.counts, points, reading) else { continue };
            match sample.quality {
                Quality::Good => {}
                Quality::Uncertain(_) => self.counts.uncertain += 1,
                Quality::Bad(_) => self.counts.bad += 1,
            }
            // A late one belongs to the past: screens keep the newest.
            if !is_late(memory, &sample) {
                match &mut memory.last {
                    Some(last) => (**last).clone_from(&sample),
                    none => *none = Some(Box::new(sample.clone())),
                }
            }
            out.push(sample);
        }
    }

    /// When the next point may be silent.
    pub fn poll_timeout(&self) -> Option<Mono> {
        self.deadlines.peek().map(|Reverse((due, _))| *due)
    }

    /// Gives a sample for every point that has been silent for too long. Harmless when none has.
    pub fn handle_timeout(&mut self, now: Now, points: &Points, out: &mut Vec<Sample>) {
        while let Some(Reverse((due, ix))) = self.deadlines.peek().copied() {
            if due > now.mono {
                break;
            }
            self.deadlines.pop();
            let Some(silent_after) = points.point(ix).spec.silent_after else { continue };
            let memory = &mut self.memory[ix.0 as usize];
            let really_due = memory.heard_at.plus(silent_after);
            if really_due > now.mono {
                self.deadlines.push(Reverse((really_due, ix)));
                continue;
            }
            // Said once; looked at again when the point may have spoken.
            self.deadlines.push(Reverse((now.mono.plus(silent_after), ix)));
            if memory.silent {
                continue;
            }
            memory.silent = true;
            self.counts.silent += 1;
            let sample = Sample {
                point: ix,
                value: None,
                quality: Quality::Bad(Fault::Silent),
                time: now.wall,
                source_time: None,
                received: now,
                sequence: None,
                news: true,
            };
            memory.last = Some(Box::new(sample.clone()));
            out.push(sample);
        }
    }
}

fn is_late(memory: &Memory, sample: &Sample) -> bool {
    match (memory.newest_time, sample.source_time) {
        (Some(newest), Some(time)) => time < newest && sample.time == time,
        _ => false,
    }
}

/// One reading to one sample; `None` for one that was there already.
fn judge(memory: &mut Memory, counts: &mut Counts, points: &Points, reading: &Reading) -> Option<Sample> {
    let Reading { received, source_time, sequence, .. } = *reading;
    let spec = &points.point(reading.point).spec;
    if is_repeat(memory, reading) {
        counts.duplicate += 1;
        return None;
    }

    let skewed = source_time.is_some_and(|time| time.distance(received.wall) > MAX_SKEW);
    let believed_time = source_time.filter(|_| !skewed);
    // By its own time, or where that says nothing by its own count: older than what we have.
    let late = match (believed_time, memory.newest_time) {
        (Some(time), Some(newest)) if time != newest => time < newest,
        _ => match (sequence, memory.newest_sequence) {
            // A counter that starts again near zero is a device that started again, not the past.
            (Some(sequence), Some(newest)) => sequence < newest && newest - sequence < 1_000,
            _ => false,
        },
    };
    let old_retained = reading.retained && believed_time.is_none_or(|time| received.wall.since(time) > RETAINED_NEWS);

    let hazard = !matches!(spec.kind.info().hazard, Hazard::Device | Hazard::Care);
    let warming_up = reading.warming_up && hazard;

    let mut doubt = skewed.then_some(Doubt::ClockSkew);
    let (value, fault) = match &reading.value {
        Err(fault) => (None, Some(*fault)),
        Ok(value) => match value.as_f64() {
            Some(number) if !number.is_finite() => (None, Some(Fault::NotAValue)),
            Some(number) if spec.range.is_some_and(|(low, high)| number < low || number > high) => {
                (None, Some(Fault::OutOfRange))
            }
            number => {
                if let Some(number) = number.filter(|_| !late && !old_retained && !warming_up) {
                    doubt = doubt.or(jump_or_stuck(memory, spec.max_jump, spec.stuck_after, number, received.mono));
                }
                (Some(value.clone()), None)
            }
        },
    };

    if warming_up {
        doubt = Some(Doubt::WarmingUp);
    }
    if old_retained {
        doubt = Some(Doubt::Unconfirmed);
        counts.retained += 1;
    }
    if late {
        counts.late += 1;
    } else if !old_retained {
        memory.newest_time = believed_time.or(memory.newest_time);
        memory.newest_sequence = sequence.or(memory.newest_sequence);
    }
    if !old_retained && reading.value != Err(Fault::Offline) {
        memory.heard_at = received.mono;
        memory.silent = false;
    }
    let quality = match (fault, doubt) {
        (Some(fault), _) => Quality::Bad(fault),
        (None, Some(doubt)) => Quality::Uncertain(doubt),
        (None, None) => Quality::Good,
    };
    // Faults are news even while warming up and when retained: a detector that says it is offline is offline.
    let held_back = late || old_retained || (warming_up && fault.is_none());
    Some(Sample {
        point: reading.point,
        value,
        quality,
        time: believed_time.unwrap_or(received.wall),
        source_time,
        received,
        sequence,
        news: !held_back || reading.value == Err(Fault::Offline),
    })
}

/// Seen before, by (time, sequence, value), lately. A reading with neither time nor sequence is never a repeat: two equal
/// values one after the other are two readings.
fn is_repeat(memory: &mut Memory, reading: &Reading) -> bool {
    if reading.source_time.is_none() && reading.sequence.is_none() {
        return false;
    }
    let value = match &reading.value {
        Ok(Value::Number(number)) => number.to_bits(),
        Ok(Value::Flag(flag)) => u64::from(*flag) + 1,
        Ok(Value::Text(text)) => text.bytes().fold(7, |hash, byte| mix(hash ^ u64::from(byte))),
        Err(fault) => *fault as u64 + 1_000,
    };
    let time = reading.source_time.map_or(0, |time| time.micros() as u64);
    // Never zero, which stands for "nothing seen".
    let identity = mix(mix(mix(value) ^ time) ^ reading.sequence.map_or(0, |sequence| sequence.wrapping_add(1))) | 1;
    let now = reading.received.mono;
    let known =
        memory.seen.iter().zip(&memory.seen_at).any(|(seen, at)| *seen == identity && now.since(*at) <= REPEAT_WINDOW);
    if !known {
        let slot = usize::from(memory.next);
        memory.seen[slot] = identity;
        memory.seen_at[slot] = now;
        memory.next = (memory.next + 1) % memory.seen.len() as u8;
    }
    known
}

fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Compares a number with what the point said before. A second reading near a jump confirms it: fires do jump.
fn jump_or_stuck(
    memory: &mut Memory,
    max_jump: Option<f64>,
    stuck_after: Option<Duration>,
    number: f64,
    now: Mono,
) -> Option<Doubt> {
    let before = memory.number;
    if before != Some(number) {
        memory.moved_at = now;
    }
    if let (Some(max_jump), Some(before)) = (max_jump, before)
        && (number - before).abs() > max_jump
    {
        let confirmed = memory.jumped_to.is_some_and(|to| (number - to).abs() <= max_jump);
        if !confirmed {
            memory.jumped_to = Some(number);
            return Some(Doubt::Jump);
        }
    }
    memory.jumped_to = None;
    memory.number = Some(number);
    let stuck = stuck_after.is_some_and(|limit| now.since(memory.moved_at) >= limit);
    stuck.then_some(Doubt::Stuck)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::point::{DeviceId, Kind, Place, PointSpec};

    const NOON: i64 = 1_772_337_600_000;

    fn site() -> Points {
        let mut points = Points::default();
        let spec = PointSpec {
            range: Some((-5.0, 100.0)),
            max_jump: Some(30.0),
            stuck_after: Some(Duration::from_secs(3_600)),
            silent_after: Some(Duration::from_secs(90)),
            ..PointSpec::plain("lel", Kind::named("gas.lel").expect("a kind of the table"))
        };
        points
            .add(DeviceId::new("g1"), None, &Arc::from("p"), &Arc::new(Place::default()), &[Arc::new(spec)])
            .expect("the first device");
        points
    }

    fn at(seconds: f64) -> Now {
        Now { mono: Mono::default(), wall: Wall::from_millis(NOON) }.plus(Duration::from_secs_f64(seconds))
    }

    /// `t` seconds after noon a reading comes: `12.5`, `nan`, `offline`, with `@-3` its own time three seconds earlier,
    /// `#7` its sequence, `r` retained, `w` warming up.
    fn reading(text: &str) -> (f64, Reading) {
        let mut words = text.split_whitespace();
        let t: f64 = words.next().and_then(|t| t.parse().ok()).expect("a time");
        let value = match words.next().expect("a value") {
            "nan" => Err(Fault::NotAValue),
            "null" => Err(Fault::Sentinel),
            "offline" => Err(Fault::Offline),
            "comms" => Err(Fault::Comms),
            "inf" => Ok(Value::Number(f64::INFINITY)),
            number => Ok(Value::Number(number.parse().expect("a number"))),
        };
        let mut reading = Reading {
            point: PointIx(0),
            value,
            source_time: None,
            received: at(t),
            sequence: None,
            retained: false,
            warming_up: false,
        };
        for word in words {
            if let Some(offset) = word.strip_prefix('@') {
                let offset: f64 = offset.parse().expect("seconds");
                let micros = reading.received.wall.micros() + (offset * 1e6) as i64;
                reading.source_time = Some(Wall::from_micros(micros));
            } else if let Some(sequence) = word.strip_prefix('#') {
                reading.sequence = sequence.parse().ok();
            } else {
                reading.retained |= word == "r";
                reading.warming_up |= word == "w";
            }
        }
        (t, reading)
    }

    /// Each line is one reading and what becomes of it: quality, reason, `old` when it is no news; `-` for a duplicate.
    #[test]
    fn each_reading_is_believed_or_doubted_for_a_reason() {
        let stories = [
            ("a plain value is good", "0 1.2 -> good"),
            ("out of range is no number", "0 140 -> bad out_of_range\n1 -5.1 -> bad out_of_range\n2 100 -> good"),
            ("infinity is no number", "0 inf -> bad not_a_value"),
            (
                "what is not a value stays a fault",
                "0 nan -> bad not_a_value\n1 null -> bad sentinel\n2 comms -> bad comms",
            ),
            (
                "a jump is doubted until a second reading agrees",
                "0 1 -> good\n1 60 -> uncertain jump\n2 62 -> good\n3 61 -> good",
            ),
            ("a spike is doubted and what follows is not", "0 1 -> good\n1 60 -> uncertain jump\n2 1.5 -> good"),
            (
                "the second of two far jumps is doubted too",
                "0 1 -> good\n1 60 -> uncertain jump\n2 99 -> uncertain jump\n3 98 -> good",
            ),
            (
                "a value that never moves is stuck",
                "0 1 -> good\n3599 1 -> good\n3600 1 -> uncertain stuck\n3601 1.1 -> good",
            ),
            (
                "a wrong clock is said and the receive time counts",
                "0 1 @-601 -> uncertain clock_skew\n1 2 @-56000000 -> uncertain clock_skew\n2 3 @2300000000 -> uncertain clock_skew\n3 4 @0 -> good",
            ),
            ("the same reading again changes nothing", "0 1 @0 -> good\n1 1 @-1 -> -\n2 1 @0 -> good"),
            ("a sequence tells repeats of equal values", "0 1 #5 -> good\n1 1 #5 -> -\n2 1 #6 -> good"),
            ("equal values without time or sequence are two readings", "0 1 -> good\n1 1 -> good"),
            ("late by its own time is no news", "0 1 @0 -> good\n1 50 @-5 -> good old\n2 1 @0 -> good"),
            ("late by its sequence is no news", "0 1 #10 -> good\n1 50 #9 -> good old\n2 1 #11 -> good"),
            ("a counter that starts again is news", "0 1 #90000 -> good\n1 2 #1 -> good"),
            ("retained is state, not news", "0 80 r -> uncertain unconfirmed old\n1 1 -> good"),
            (
                "retained and fresh by its own time is news",
                "0 80 r @-10 -> good\n1 80 r @-120 -> uncertain unconfirmed old",
            ),
            ("a detector that warms up raises nothing", "0 80 w -> uncertain warming_up old\n1 1 -> good"),
            ("a fault while warming up is news", "0 null w -> bad sentinel"),
            ("offline is offline, retained or not", "0 offline r -> bad offline"),
        ];
        for (story, lines) in stories {
            let points = site();
            let mut validator = Validator::new();
            validator.watch(&points, at(0.0));
            let mut samples = 0;
            for line in lines.lines() {
                let (input, expected) = line.split_once(" -> ").expect("an arrow");
                let (t, reading) = reading(input);
                let mut out = Vec::new();
                validator.handle_readings(at(t), &points, &[reading], &mut out);
                samples += out.len() as u64;
                let found = out.first().map_or("-".to_owned(), |sample| {
                    assert_eq!(sample.value.is_none(), matches!(sample.quality, Quality::Bad(_)), "{story}: {line}");
                    let old = if sample.news { "" } else { "old" };
                    [sample.quality.as_str(), sample.quality.reason(), old]
                        .join(" ")
                        .replace("  ", " ")
                        .trim()
                        .to_owned()
                });
                assert_eq!(found, expected, "{story}: {line}");
            }
            let counts = validator.counts();
            assert_eq!(counts.received, samples + counts.duplicate, "{story}: nothing is lost uncounted");
        }
    }

    #[test]
    fn a_silent_point_says_so_once_within_its_own_time() {
        let points = site();
        let mut validator = Validator::new();
        validator.watch(&points, at(0.0));
        let mut out = Vec::new();
        let mut said = Vec::new();
        validator.handle_readings(at(30.0), &points, &[reading("30 1").1], &mut out);
        out.clear();
        // Jump from deadline to deadline: the point spoke at 30 s, so it is silent from 120 s on.
        for _ in 0..5 {
            let due = validator.poll_timeout().expect("the point is watched");
            let now = Now { mono: due, wall: at(0.0).wall.plus(due.since(Mono::default())) };
            validator.handle_timeout(now, &points, &mut out);
            said.extend(out.drain(..).map(|sample| (due.since(Mono::default()).as_secs(), sample.quality)));
        }
        assert_eq!(said, [(120, Quality::Bad(Fault::Silent))]);
        // It speaks again, and falls silent again.
        validator.handle_readings(at(1_000.0), &points, &[reading("1000 1").1], &mut out);
        assert_eq!(out.pop().map(|sample| sample.quality), Some(Quality::Good));
        validator.handle_timeout(at(1_089.0), &points, &mut out);
        assert!(out.is_empty());
        validator.handle_timeout(at(1_181.0), &points, &mut out);
        assert_eq!(out.len(), 1);
    }

    #[test]
    fn a_point_that_never_spoke_is_silent_too() {
        let points = site();
        let mut validator = Validator::new();
        validator.watch(&points, at(0.0));
        let mut out = Vec::new();
        validator.handle_timeout(at(89.0), &points, &mut out);
        assert!(out.is_empty());
        validator.handle_timeout(at(90.0), &points, &mut out);
        assert_eq!(out.len(), 1);
    }

    #[test]
    fn a_late_reading_does_not_replace_what_screens_show() {
        let points = site();
        let mut validator = Validator::new();
        let mut out = Vec::new();
        validator.handle_readings(at(0.0), &points, &[reading("0 7 @0").1, reading("1 3 @-9").1], &mut out);
        assert_eq!(validator.latest(PointIx(0)).and_then(|sample| sample.value), Some(Value::Number(7.0)));
    }

    #[test]
    fn a_point_costs_little_memory() {
        assert!(size_of::<Memory>() + size_of::<Sample>() + size_of::<Reverse<(Mono, PointIx)>>() <= 320);
    }
}
