//! Readings to samples: range, jump, stuck, silent, clock skew, duplicates, late and retained readings, two devices under one name.
//!
//! Promises that every reading is counted once, as a duplicate or as a sample; that what is no value, or no plausible
//! one, has no number that a rule could reach; that a wrong device clock never hides a reading from the rules. It does
//! not know where readings come from, and no clock: delays run on the monotonic time of `now`.
//!
//! A device's own time stamp is evidence of lateness only while it has been near ours; one from 1970 or 2099, or a
//! clock that was set back, makes a reading doubtful, not old.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::time::Duration;

use crate::document::Reader;
use crate::point::{DeviceIx, Form, Hazard, PointId, PointIx, PointSpec, Points};
use crate::reading::{Doubt, Fault, Quality, Reading, Sample, Value};
use crate::time::{Mono, Now, Wall};

/// How much is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// A device's clock may differ from ours by so much.
    pub max_skew: Duration,
    /// A repeat of a reading is recognised for so long.
    pub duplicate_window: Duration,
    /// A retained reading that the device took within so long before now is as good as live.
    pub fresh: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_skew: Duration::from_secs(600),
            duplicate_window: Duration::from_secs(600),
            fresh: Duration::from_secs(60),
        }
    }
}

impl Settings {
    /// Reads `max_skew` and `duplicate_window` of a table such as `[validation]`.
    pub fn read(r: &Reader<'_>) -> Self {
        let usual = Self::default();
        let settings = Self {
            max_skew: r.or("max_skew", usual.max_skew),
            duplicate_window: r.or("duplicate_window", usual.duplicate_window),
            ..usual
        };
        r.finish();
        settings
    }
}

/// What became of the readings since the start: `received = evaluated + duplicate`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Handed in.
    pub received: u64,
    /// Became a sample.
    pub evaluated: u64,
    /// Recognised as a repeat and left out.
    pub duplicate: u64,
    /// Of the evaluated: older than what was known already; stored, no news.
    pub late: u64,
    /// Of the evaluated: kept by the broker; stored, no news.
    pub unconfirmed: u64,
    /// Of the evaluated: of uncertain quality.
    pub uncertain: u64,
    /// Of the evaluated: of bad quality.
    pub bad: u64,
    /// Samples made here because a point fell silent; no reading stands behind them.
    pub silent: u64,
}

/// A reading that is older than the newest by more than this is no late reading but one from a wrong clock.
const OLDEST_BACKLOG: Duration = Duration::from_secs(30 * 86_400);
/// Without time stamps only a sequence so little behind is late; one further back has started again. A counter starts
/// low, so one that has come far may be further behind: by half of where it was, within the larger window.
const SEQUENCE_WINDOW: u64 = 16;
const LARGE_SEQUENCE_WINDOW: u64 = 1_024;
/// For so long, late stamps must run as fast as our clock before the device's clock counts as set back.
const SET_BACK_PROOF: Duration = Duration::from_secs(5);

/// A device has counted messages that did not come: it sent them with QoS 0, or somebody on the way forgot them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    pub device: DeviceIx,
    /// The first and the last number that is missing.
    pub first: u64,
    pub last: u64,
    /// When it was heard before the gap, and after it.
    pub since: Wall,
    pub until: Wall,
}

/// Gaps that wait to be fetched; further ones of one turn are forgotten.
const MOST_GAPS: usize = 1_024;

/// Points at which a second device is looked for; with more at once the further ones must wait.
const MOST_RIVALS: usize = 1_024;
/// So many counts of a point are remembered once one has come that is behind.
const COUNTS_KEPT: usize = 1_024;
/// So many times a count must have two meanings, or go on beside another, before it is said that there are two devices.
const RIVAL_PROOF: u8 = 3;
/// For so long after the last proof both are doubted, and what proves nothing is forgotten after it.
const RIVAL_FOR: Duration = Duration::from_secs(1_800);
/// They are said again after so long.
const RIVAL_TOLD_EVERY: Duration = Duration::from_secs(60);

/// Turns what devices claim into what rules may see.
#[derive(Debug, Default)]
pub struct Validator {
    settings: Settings,
    /// By point index.
    states: Vec<State>,
    /// When to look whether a point has fallen silent: at most one entry a point, never later than due.
    watch: BinaryHeap<Reverse<(Mono, PointIx)>>,
    /// What the last run had judged, of points that are not there yet, and of those that are.
    judged_of: HashMap<PointId, Judged>,
    judged: HashMap<PointIx, Judged>,
    gaps: Vec<Gap>,
    /// By point: what speaks for a second device under the same name.
    rivals: HashMap<PointIx, Rival>,
    doubles: Vec<DeviceIx>,
    counts: Counts,
}

/// What speaks for a second device under the same name. A count that falls behind and goes on from there, while the other goes on as
/// well, is none that has started again; and what comes late fills a hole, whereas one device never says two things under one count.
#[derive(Clone, Debug)]
struct Rival {
    /// Counts that came in order since one was behind, and what each said.
    heard: VecDeque<(u64, u32)>,
    /// The last count that was behind, and the newest one then.
    behind: u64,
    newest: u64,
    proofs: u8,
    /// When it began, then when it was last proved.
    at: Mono,
    told: Option<Mono>,
}

impl Rival {
    fn new(reading: &Reading, sequence: u64, newest: u64) -> Self {
        let heard = VecDeque::new();
        Self { heard, behind: sequence, newest, proofs: 0, at: reading.received.mono, told: None }
    }

    fn is_over(&self, now: Mono) -> bool {
        now.since(self.at) > RIVAL_FOR
    }

    fn fall_behind(&mut self, reading: &Reading, sequence: u64, newest: u64, is_late: bool) {
        let contradicts = || {
            let known = self.heard.binary_search_by_key(&sequence, |(count, _)| *count);
            known.is_ok_and(|at| self.heard[at].1 != saying(&reading.value))
        };
        if sequence > self.behind && newest > self.newest && (!is_late || contradicts()) {
            self.proofs = self.proofs.saturating_add(1);
            self.at = reading.received.mono;
        }
        (self.behind, self.newest) = (sequence, newest);
        // What it has passed it does not say again.
        while self.heard.front().is_some_and(|(count, _)| *count < sequence) {
            self.heard.pop_front();
        }
    }

    fn go_on(&mut self, reading: &Reading, sequence: u64) {
        if self.heard.back().is_none_or(|(last, _)| *last < sequence) {
            if self.heard.len() == COUNTS_KEPT {
                self.heard.pop_front();
            }
            self.heard.push_back((sequence, saying(&reading.value)));
        }
    }
}

/// Takes in the count of a reading that is of now; true while it is proved that two devices speak.
fn is_double(rivals: &mut HashMap<PointIx, Rival>, reading: &Reading, newest: Option<u64>, is_late: bool) -> bool {
    let (Some(sequence), Some(newest)) = (reading.sequence, newest) else { return false };
    let (now, is_behind) = (reading.received.mono, sequence < newest);
    if !is_behind && rivals.is_empty() {
        return false;
    }
    if is_behind && !rivals.contains_key(&reading.point) {
        if rivals.len() >= MOST_RIVALS {
            rivals.retain(|_, rival| !rival.is_over(now));
        }
        if rivals.len() < MOST_RIVALS {
            rivals.insert(reading.point, Rival::new(reading, sequence, newest));
        }
        return false;
    }
    let Some(rival) = rivals.get_mut(&reading.point) else { return false };
    if rival.is_over(now) {
        rivals.remove(&reading.point);
        return false;
    }
    match is_behind {
        true => rival.fall_behind(reading, sequence, newest, is_late),
        false if sequence > newest => rival.go_on(reading, sequence),
        false => {}
    }
    rival.proofs >= RIVAL_PROOF
}

/// The newest reading of a point that an earlier run judged for good: what came of it is in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    pub source_time: Option<Wall>,
    pub sequence: Option<u64>,
}

impl Judged {
    /// Whether the reading had come by then. Only what is delivered again can have; a device that neither stamps nor
    /// counts cannot be told.
    fn covers(&self, reading: &Reading) -> bool {
        let by_time = self.source_time.zip(reading.source_time).map(|(judged, at)| at <= judged);
        let by_count = self.sequence.zip(reading.sequence).map(|(judged, count)| count <= judged);
        reading.redelivered
            && (by_time.is_some() || by_count.is_some())
            && by_time != Some(false)
            && by_count != Some(false)
    }
}

/// What is remembered of a point. There may be hundreds of thousands, so it is kept small.
#[derive(Clone, Debug, Default)]
struct State {
    /// The latest sample in order, without what the point index says.
    value: Option<Value>,
    quality: Option<Quality>,
    time: Wall,
    received: Now,
    flags: Flags,
    /// Newest claim of the device, also when a silence or a time-out came after it.
    source_time: Wall,
    sequence: u64,
    /// The newest claim and those before it, hashed with their values; 0 is none.
    claims: [u32; 3],
    /// When the device last said anything about the point.
    heard: Mono,
    /// Since when the value has stood.
    changed: Mono,
    /// What few points have.
    rare: Option<Box<Rare>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Rare {
    /// The last value that jumps are measured from.
    baseline: Option<f64>,
    /// A jumped value that waits for a second one to agree.
    candidate: Option<f64>,
    /// The first of the run of late readings that goes on: when it came, and when the device says that it took it.
    late: Option<(Mono, Wall)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Flags {
    has_source_time: bool,
    has_sequence: bool,
    /// The newest claim's time was near ours.
    clock_near: bool,
    /// The latest sample carries the newest claim itself.
    is_claim: bool,
    news: bool,
    /// An entry of the watch stands for this point.
    watched: bool,
    /// The latest sample came live, not from the broker's store.
    live: bool,
}

impl State {
    fn new(heard: Mono) -> Self {
        Self { heard, ..Self::default() }
    }

    fn sample(&self, point: PointIx) -> Option<Sample> {
        Some(Sample {
            point,
            value: self.value.clone(),
            quality: self.quality?,
            time: self.time,
            source_time: (self.flags.is_claim && self.flags.has_source_time).then_some(self.source_time),
            received: self.received,
            sequence: (self.flags.is_claim && self.flags.has_sequence).then_some(self.sequence),
            news: self.flags.news,
        })
    }

    /// What the broker kept makes nothing late: its session may still hold what was sent before it.
    fn newest_time(&self) -> Option<Wall> {
        (self.flags.live && self.flags.has_source_time).then_some(self.source_time)
    }

    fn newest_sequence(&self) -> Option<u64> {
        (self.flags.live && self.flags.has_sequence).then_some(self.sequence)
    }
}

impl Validator {
    pub fn new(settings: Settings) -> Self {
        Self { settings, ..Self::default() }
    }

    pub fn set_settings(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// After a restart: a point's readings up to this one were judged before it. Those that a broker delivers again are
    /// stored, like other late ones, and no news. Once, before anything is handled; the newest of a point.
    pub fn recall(&mut self, point: PointId, judged: Judged) {
        self.judged_of.insert(point, judged);
    }

    /// Begins to watch every point that was added since the last call for silence, also those that never spoke. The
    /// other calls do it, too; this one is for a start without readings.
    pub fn watch(&mut self, points: &Points, now: Now) {
        for n in self.states.len()..points.len() {
            let mut state = State::new(now.mono);
            let ix = PointIx(n as u32);
            if let Some(wait) = points.point(ix).spec.silent_after {
                state.flags.watched = true;
                self.watch.push(Reverse((now.mono.plus(wait), ix)));
            }
            self.states.push(state);
            if !self.judged_of.is_empty()
                && let Some(judged) = self.judged_of.remove(&points.point(ix).id)
            {
                self.judged.insert(ix, judged);
            }
        }
    }

    /// Appends one sample for each reading that is not a repeat.
    pub fn handle_readings(&mut self, now: Now, points: &Points, readings: &[Reading], out: &mut Vec<Sample>) {
        self.watch(points, now);
        out.reserve(readings.len());
        for reading in readings {
            self.counts.received += 1;
            match self.take(points, reading) {
                Some(sample) => {
                    self.counts.evaluated += 1;
                    match sample.quality {
                        Quality::Good => {}
                        Quality::Uncertain(_) => self.counts.uncertain += 1,
                        Quality::Bad(_) => self.counts.bad += 1,
                    }
                    out.push(sample);
                }
                None => self.counts.duplicate += 1,
            }
        }
    }

    /// Appends a sample for each of these readings, which were judged in the last run and perhaps not stored: it is to be
    /// stored, is no news, and says nothing of how the point is now.
    pub fn handle_judged(&mut self, points: &Points, readings: &[Reading], out: &mut Vec<Sample>) {
        for reading in readings {
            let Reading { point, source_time, received, sequence, .. } = *reading;
            self.counts.received += 1;
            self.counts.evaluated += 1;
            self.counts.late += 1;
            let (value, quality) = match plausible(&points.point(point).spec, &reading.value) {
                Ok(value) => (Some(value), Quality::Good),
                Err(fault) => (None, Quality::Bad(fault)),
            };
            let near = source_time.filter(|at| at.distance(received.wall) <= OLDEST_BACKLOG);
            let time = near.unwrap_or(received.wall);
            out.push(Sample { point, value, quality, time, source_time, received, sequence, news: false });
        }
    }

    /// Appends a sample of quality [`Fault::Silent`] for each point that has been silent for too long.
    pub fn handle_timeout(&mut self, now: Now, points: &Points, out: &mut Vec<Sample>) {
        self.watch(points, now);
        while let Some(&Reverse((due, ix))) = self.watch.peek()
            && due <= now.mono
        {
            self.watch.pop();
            let state = &mut self.states[ix.0 as usize];
            state.flags.watched = false;
            let Some(wait) = points.point(ix).spec.silent_after else { continue };
            let due = state.heard.plus(wait);
            if due > now.mono {
                state.flags.watched = true;
                self.watch.push(Reverse((due, ix)));
                continue;
            }
            // Who said good-bye is known to be silent.
            if matches!(state.quality, Some(Quality::Bad(Fault::Offline | Fault::Silent))) {
                continue;
            }
            self.counts.silent += 1;
            out.push(state.lost(ix, Fault::Silent, now));
        }
    }

    /// When [`Validator::handle_timeout`] has something to look at; may be too early, never too late.
    pub fn poll_timeout(&self) -> Option<Mono> {
        self.watch.peek().map(|Reverse((due, _))| *due)
    }

    /// What devices have counted and did not come, since this was last asked.
    pub fn take_gaps(&mut self) -> Vec<Gap> {
        std::mem::take(&mut self.gaps)
    }

    /// Devices under whose name a second one speaks, since this was last asked: of two counts that go on beside each other one
    /// is not late but somebody else's.
    pub fn take_doubles(&mut self) -> Vec<DeviceIx> {
        std::mem::take(&mut self.doubles)
    }

    /// What was last heard of this point may no longer hold, since something may have been lost after it: until it is
    /// heard again it is unconfirmed. False where that changes nothing: it was bad already, or never heard.
    pub fn doubt(&mut self, point: PointIx) -> bool {
        let Some(state) = self.states.get_mut(point.0 as usize) else { return false };
        let believed = matches!(state.quality, Some(Quality::Good | Quality::Uncertain(_)));
        if believed {
            state.quality = Some(Quality::Uncertain(Doubt::Unconfirmed));
            state.flags.news = false;
        }
        believed
    }

    /// The latest sample of a point in order: late readings do not replace it. `None` when nothing was heard of it.
    pub fn latest(&self, ix: PointIx) -> Option<Sample> {
        self.states.get(ix.0 as usize)?.sample(ix)
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether the run before this one judged it. Brokers deliver in order: with the first newer reading it is over. What
    /// they kept comes before all that and says nothing of it.
    fn was_judged(&mut self, reading: &Reading) -> bool {
        if self.judged.is_empty() || reading.retained {
            return false;
        }
        let covered = self.judged.get(&reading.point).is_some_and(|judged| judged.covers(reading));
        if !covered {
            self.judged.remove(&reading.point);
        }
        covered
    }

    /// `None` for a repeat.
    fn take(&mut self, points: &Points, reading: &Reading) -> Option<Sample> {
        let settings = self.settings;
        let judged = self.was_judged(reading);
        let state = &mut self.states[reading.point.0 as usize];
        let spec = &points.point(reading.point).spec;
        let received = reading.received;
        let skewed = reading.source_time.is_some_and(|at| at.distance(received.wall) > settings.max_skew);

        // A time that is far off may be the same in every message: alone it does not tell repeats.
        let claim = (reading.sequence.is_some() || reading.source_time.is_some() && !skewed).then(|| claim(reading));
        if let Some(claim) = claim
            && state.is_repeat(claim, reading, settings.duplicate_window)
        {
            return None;
        }
        let newest = state.newest_sequence();
        let is_late = state.is_late(reading, settings.fresh);
        let is_of_now = !(reading.historical || judged || reading.retained || reading.redelivered);
        let double = is_of_now && is_double(&mut self.rivals, reading, newest, is_late);
        let of_another = double && reading.sequence < newest;
        if of_another && self.doubles.len() < MOST_GAPS {
            let told = self.rivals.get_mut(&reading.point).map(|rival| &mut rival.told);
            if let Some(told) = told.filter(|told| told.is_none_or(|at| received.mono.since(at) >= RIVAL_TOLD_EVERY)) {
                *told = Some(received.mono);
                self.doubles.push(points.point(reading.point).device);
            }
        }
        let late = !of_another && (reading.historical || is_late || judged);
        let fresh = !late && reading.source_time.is_some_and(|at| at.distance(received.wall) <= settings.fresh);
        let unconfirmed = reading.retained && !fresh;
        let lost = match reading.value {
            Err(fault @ (Fault::Comms | Fault::Silent | Fault::Offline)) => Some(fault),
            _ => None,
        };

        if !late && !of_another && !unconfirmed && lost.is_none() && self.gaps.len() < MOST_GAPS {
            self.gaps.extend(gap(&self.states, points, reading));
        }
        let state = &mut self.states[reading.point.0 as usize];
        if !unconfirmed && lost.is_none() {
            state.heard = received.mono;
            if let (Some(wait), false) = (spec.silent_after, state.flags.watched) {
                state.flags.watched = true;
                self.watch.push(Reverse((received.mono.plus(wait), reading.point)));
            }
        }
        if let (Some(fault), false, None) = (lost, unconfirmed, claim) {
            return Some(state.lost(reading.point, fault, received));
        }

        let warming_up = reading.warming_up && is_hazard(spec);
        let (value, quality) = match plausible(spec, &reading.value) {
            Err(fault) => (None, Quality::Bad(fault)),
            Ok(value) => {
                let doubt = if warming_up {
                    Some(Doubt::WarmingUp)
                } else if unconfirmed || double {
                    Some(Doubt::Unconfirmed)
                } else if late {
                    None
                } else {
                    let jumped = state.has_jumped(spec, &value);
                    let stuck = state.is_stuck(spec, &value, received.mono);
                    jumped.or(stuck).or(skewed.then_some(Doubt::ClockSkew))
                };
                (Some(value), doubt.map_or(Quality::Good, Quality::Uncertain))
            }
        };
        let sample = Sample {
            point: reading.point,
            value,
            quality,
            // What is late was taken at its own time, however long ago.
            time: reading.source_time.filter(|_| late || !skewed).unwrap_or(received.wall),
            source_time: reading.source_time,
            received,
            sequence: reading.sequence,
            news: !late && !unconfirmed && quality != Quality::Uncertain(Doubt::WarmingUp),
        };
        self.counts.late += u64::from(late);
        self.counts.unconfirmed += u64::from(unconfirmed);
        // What the broker kept tells nothing new about a point that has spoken itself.
        let adds_nothing = late || of_another || unconfirmed && state.flags.live;
        if !adds_nothing {
            state.keep(&sample, claim, !skewed && reading.source_time.is_some(), !unconfirmed);
        }
        Some(sample)
    }
}

/// What the device has counted between its last message and this one.
///
/// Some devices count all their messages, some those of each topic; so the count of this point and the last one of
/// its device are both looked at, and only what follows on neither is a gap. A counter that starts again makes none.
fn gap(states: &[State], points: &Points, reading: &Reading) -> Option<Gap> {
    let sequence = reading.sequence?;
    let of = |ix: PointIx| states.get(ix.0 as usize).filter(|state| state.flags.has_sequence);
    let own = of(reading.point);
    if own.is_some_and(|own| own.sequence == sequence || Some(own.sequence) == sequence.checked_sub(1)) {
        return None;
    }
    let device = points.point(reading.point).device;
    let newest = points.device(device).points().filter_map(of).max_by_key(|state| (state.heard, state.sequence));
    let last =
        own.into_iter().chain(newest).filter(|state| state.sequence <= sequence).max_by_key(|state| state.sequence)?;
    (last.sequence + 1 < sequence).then(|| Gap {
        device,
        first: last.sequence + 1,
        last: sequence - 1,
        since: last.received.wall,
        until: reading.received.wall,
    })
}

impl State {
    fn is_repeat(&self, claim: u32, reading: &Reading, window: Duration) -> bool {
        // What the broker kept is sent by its session, too, and only then it is news.
        let kept = !self.flags.live && !reading.retained;
        if kept || reading.received.mono.since(self.received.mono) > window {
            return false;
        }
        if self.claims[0] == claim {
            return true;
        }
        // A device that counts nothing and whose time stands still sends one claim with many values: none is a repeat.
        let same = self.newest_time() == reading.source_time && self.newest_sequence() == reading.sequence;
        !same && self.claims[1..].contains(&claim)
    }

    fn is_late(&mut self, reading: &Reading, fresh: Duration) -> bool {
        let times = reading.source_time.zip(self.newest_time());
        // By how much it is older, as far as the stamps can be believed.
        let behind = times
            .filter(|_| self.flags.clock_near)
            .map(|(at, newest)| newest.since(at))
            .filter(|behind| *behind <= OLDEST_BACKLOG);
        let late = match (reading.sequence, self.newest_sequence()) {
            (Some(sequence), Some(newest)) if sequence > newest => false,
            (Some(sequence), Some(newest)) if sequence < newest => match behind {
                // Taken later than the newest although it counts less: the counter has started again.
                Some(behind) => !behind.is_zero(),
                None => {
                    times.is_none()
                        && sequence > 1
                        && newest - sequence <= SEQUENCE_WINDOW.max((newest / 2).min(LARGE_SEQUENCE_WINDOW))
                        && reading.received.mono.since(self.received.mono) <= fresh
                }
            },
            _ => {
                let old = |at: Wall| reading.received.wall.since(at) > fresh;
                behind.is_some_and(|behind| !behind.is_zero())
                    && reading.source_time.is_some_and(old)
                    && !self.was_set_back(reading)
            }
        };
        if !late && let Some(rare) = &mut self.rare {
            rare.late = None;
        }
        late
    }

    /// Whether a run of late readings goes on as fast as our clock: then the device's clock was set back, and what it
    /// sends is live. A backlog comes faster than it was taken, or between live readings.
    fn was_set_back(&mut self, reading: &Reading) -> bool {
        let (Some(source), now) = (reading.source_time, reading.received.mono) else { return false };
        let rare = self.rare.get_or_insert_default();
        if let Some((since, first)) = rare.late {
            let ours = now.since(since);
            if ours < SET_BACK_PROOF {
                return false;
            }
            let theirs = source.since(first);
            if theirs >= ours / 2 && theirs <= ours * 3 / 2 {
                return true;
            }
        }
        rare.late = Some((now, source));
        false
    }

    fn has_jumped(&mut self, spec: &PointSpec, value: &Value) -> Option<Doubt> {
        let (Some(most), Value::Number(number)) = (spec.max_jump, value) else { return None };
        let far = |from: f64| (number - from).abs() > most;
        let rare = self.rare.get_or_insert_default();
        if rare.baseline.is_some_and(far) && rare.candidate.is_none_or(far) {
            rare.candidate = Some(*number);
            return Some(Doubt::Jump);
        }
        // Near the value before, or the second that agrees: a real fire jumps, too.
        (rare.baseline, rare.candidate) = (Some(*number), None);
        None
    }

    /// After a gap there is nothing to jump from.
    fn forget_jumps(&mut self) {
        if let Some(rare) = &mut self.rare {
            (rare.baseline, rare.candidate) = (None, None);
        }
    }

    fn is_stuck(&self, spec: &PointSpec, value: &Value, now: Mono) -> Option<Doubt> {
        let stands = self.value.as_ref() == Some(value) && now.since(self.changed) >= spec.stuck_after?;
        stands.then_some(Doubt::Stuck)
    }

    fn keep(&mut self, sample: &Sample, claim: Option<u32>, clock_near: bool, live: bool) {
        if self.value != sample.value {
            self.changed = sample.received.mono;
            self.value.clone_from(&sample.value);
        }
        if sample.value.is_none() {
            self.forget_jumps();
        }
        if live && !self.flags.live {
            self.claims = [0; 3];
        }
        self.quality = Some(sample.quality);
        self.time = sample.time;
        self.received = sample.received;
        self.source_time = sample.source_time.unwrap_or_default();
        self.sequence = sample.sequence.unwrap_or_default();
        self.flags.has_source_time = sample.source_time.is_some();
        self.flags.has_sequence = sample.sequence.is_some();
        self.flags.clock_near = clock_near;
        self.flags.is_claim = true;
        self.flags.news = sample.news;
        self.flags.live = live;
        if let Some(claim) = claim {
            self.claims = [claim, self.claims[0], self.claims[1]];
        }
    }

    /// The point cannot be heard or read; its newest claim stays, so that a replay is still known.
    fn lost(&mut self, point: PointIx, fault: Fault, now: Now) -> Sample {
        if !self.flags.live {
            // Nothing that was said live: what the broker kept does not begin to make things late now.
            (self.flags.has_source_time, self.flags.has_sequence, self.claims) = (false, false, [0; 3]);
        }
        self.value = None;
        self.quality = Some(Quality::Bad(fault));
        self.time = now.wall;
        self.received = now;
        self.flags.is_claim = false;
        self.flags.news = true;
        self.flags.live = true;
        self.forget_jumps();
        Sample {
            point,
            value: None,
            quality: Quality::Bad(fault),
            time: now.wall,
            source_time: None,
            received: now,
            sequence: None,
            news: true,
        }
    }
}

/// A value that the point can have, or why there is none.
fn plausible(spec: &PointSpec, value: &Result<Value, Fault>) -> Result<Value, Fault> {
    let value = value.clone()?;
    let form = match &value {
        Value::Number(number) if !number.is_finite() => return Err(Fault::NotAValue),
        Value::Number(_) => Form::Number,
        Value::Flag(_) => Form::Flag,
        Value::Text(_) => Form::Text,
    };
    if form != spec.kind.info().form {
        return Err(Fault::NotAValue);
    }
    match (spec.range, &value) {
        (Some((low, high)), Value::Number(number)) if !(low..=high).contains(number) => Err(Fault::OutOfRange),
        _ => Ok(value),
    }
}

fn is_hazard(spec: &PointSpec) -> bool {
    matches!(spec.kind.info().hazard, Hazard::Gas | Hazard::Fire | Hazard::Power | Hazard::Flood)
}

/// A number for (source time, sequence, value) of one point; never 0.
fn claim(reading: &Reading) -> u32 {
    let hash = mix(1, reading.source_time.map_or(u64::MAX, |at| at.micros() as u64));
    number_of(mix(hash, reading.sequence.unwrap_or(u64::MAX)), &reading.value)
}

/// A number for a value alone.
fn saying(value: &Result<Value, Fault>) -> u32 {
    number_of(1, value)
}

fn number_of(hash: u64, value: &Result<Value, Fault>) -> u32 {
    let hash = match value {
        Ok(Value::Number(number)) => mix(mix(hash, 1), number.to_bits()),
        Ok(Value::Flag(flag)) => mix(mix(hash, 2), u64::from(*flag)),
        Ok(Value::Text(text)) => text.bytes().fold(mix(hash, 3), |hash, byte| mix(hash, u64::from(byte))),
        Err(fault) => mix(mix(hash, 4), *fault as u64),
    };
    ((hash >> 32) as u32).max(1)
}

fn mix(hash: u64, word: u64) -> u64 {
    let mixed = (hash ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed ^ (mixed >> 29)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::point::{DeviceId, Kind, Place};

    const START: i64 = 1_772_328_600_000;

    fn at(seconds: f64) -> Now {
        let nanos = (seconds * 1e9) as u64;
        Now { mono: Mono::from_nanos(nanos + 1_000_000_000), wall: Wall::from_millis(START + (seconds * 1e3) as i64) }
    }

    fn site(spec: PointSpec) -> Points {
        let mut points = Points::default();
        points
            .add(DeviceId::new("g"), None, &Arc::from("p"), &Arc::new(Place::default()), &[Arc::new(spec)])
            .expect("the first device");
        points
    }

    fn gas() -> PointSpec {
        PointSpec {
            range: Some((-5.0, 150.0)),
            max_jump: Some(20.0),
            silent_after: Some(Duration::from_secs(90)),
            stuck_after: Some(Duration::from_secs(3_600)),
            ..PointSpec::plain("lel", Kind::named("gas.lel").expect("a kind of the table"))
        }
    }

    /// One line a reading: `12s 5.0 ts=11 seq=3 retained again warm -> good news`. Times in seconds; `ts` is relative to the start,
    /// `@` before it makes it Unix seconds. A value may be a fault's name. `silent?` asks for a time-out instead.
    fn play(spec: PointSpec, story: &str) {
        play_on(Validator::default(), spec, story);
    }

    fn play_on(mut validator: Validator, spec: PointSpec, story: &str) {
        let points = site(spec);
        validator.watch(&points, at(0.0));
        for line in story.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (left, wanted) = line.split_once("->").expect("a line of the story has an arrow");
            let mut words = left.split_whitespace();
            let when: f64 =
                words.next().and_then(|w| w.strip_suffix('s')).and_then(|w| w.parse().ok()).expect("a time");
            let now = at(when);
            let value = words.next().expect("a value");
            let mut out = Vec::new();
            if value == "silent?" {
                validator.handle_timeout(now, &points, &mut out);
            } else {
                let mut reading = Reading {
                    point: PointIx(0),
                    value: match value {
                        "comms" => Err(Fault::Comms),
                        "offline" => Err(Fault::Offline),
                        "null" => Err(Fault::Sentinel),
                        "true" | "false" => Ok(Value::Flag(value == "true")),
                        number => Ok(Value::Number(number.parse().expect("a number"))),
                    },
                    source_time: None,
                    received: now,
                    sequence: None,
                    retained: false,
                    redelivered: false,
                    historical: false,
                    warming_up: false,
                };
                for word in words {
                    match word.split_once('=') {
                        Some(("ts", unix)) if unix.starts_with('@') => {
                            reading.source_time =
                                Some(Wall::from_millis(unix[1..].parse::<i64>().expect("seconds") * 1_000));
                        }
                        Some(("ts", seconds)) => {
                            reading.source_time = Some(at(0.0).wall).map(|start| {
                                Wall::from_millis(
                                    start.millis() + (seconds.parse::<f64>().expect("seconds") * 1e3) as i64,
                                )
                            });
                        }
                        Some(("seq", count)) => reading.sequence = Some(count.parse().expect("a count")),
                        _ if word == "retained" => reading.retained = true,
                        _ if word == "again" => reading.redelivered = true,
                        _ if word == "warm" => reading.warming_up = true,
                        _ => panic!("{word:?} means nothing"),
                    }
                }
                validator.handle_readings(now, &points, &[reading], &mut out);
            }
            let got: Vec<String> = out
                .iter()
                .map(|sample| {
                    assert_eq!(sample.value.is_none(), matches!(sample.quality, Quality::Bad(_)), "{line}");
                    let reason = sample.quality.reason();
                    let quality = if reason.is_empty() { "good" } else { reason };
                    format!("{quality} {}", if sample.news { "news" } else { "state" })
                })
                .collect();
            let got = if got.is_empty() { "nothing".to_owned() } else { got.join(", ") };
            assert_eq!(got, wanted.trim(), "{line}");
            let counts = validator.counts();
            assert_eq!(counts.received, counts.evaluated + counts.duplicate, "{line}");
        }
    }

    #[test]
    fn values_are_judged_one_by_one() {
        play(
            gas(),
            "0s 5 -> good news
             1s 151 -> out_of_range news
             2s -6 -> out_of_range news
             3s null -> sentinel news
             4s comms -> comms news
             5s true -> not_a_value news
             6s 150 -> good news
             7s nan -> not_a_value news
             8s inf -> not_a_value news",
        );
    }

    #[test]
    fn a_jump_is_doubted_until_a_second_value_agrees() {
        play(
            gas(),
            "0s 5 -> good news
             1s 60 -> jump news
             2s 6 -> good news
             3s 60 -> jump news
             4s 65 -> good news
             5s 70 -> good news
             6s 5 -> jump news
             7s 120 -> jump news
             8s 118 -> good news
             9s comms -> comms news
             10s 3 -> good news",
        );
    }

    #[test]
    fn a_value_that_never_moves_is_stuck() {
        play(
            gas(),
            "0s 5 -> good news
             1800s 5 -> good news
             3600s 5 -> stuck news
             3601s 5.1 -> good news
             7200s 5.1 -> good news
             7201s 5.1 -> stuck news",
        );
    }

    #[test]
    fn silence_is_noticed_once_and_ends_with_the_next_reading() {
        play(
            gas(),
            "89s silent? -> nothing
             90s silent? -> silent news
             200s silent? -> nothing
             300s 5 -> good news
             389s silent? -> nothing
             389s 6 -> good news
             478s silent? -> nothing
             479s silent? -> silent news
             480s 5 retained -> unconfirmed state
             600s silent? -> nothing
             601s 5 -> good news
             602s offline -> offline news
             700s silent? -> nothing
             701s comms -> comms news
             800s 7 -> good news
             880s comms -> comms news
             890s silent? -> silent news",
        );
    }

    #[test]
    fn repeats_are_left_out() {
        play(
            gas(),
            "0s 5 ts=0 seq=1 -> good news
             1s 5 ts=0 seq=1 -> nothing
             2s 6 ts=2 seq=2 -> good news
             3s 5 ts=0 seq=1 -> nothing
             4s 7 ts=4 seq=3 -> good news
             5s 5 ts=0 seq=1 retained -> nothing
             6s 7 -> good news
             7s 7 -> good news
             700s 8 ts=700 -> good news
             701s 8 ts=700 -> nothing
             702s 9 ts=700 -> good news
             703s 8 ts=700 -> good news",
        );
    }

    #[test]
    fn a_device_that_counts_nothing_is_still_heard() {
        // Sequence and time stand still, the value does not: true, false, true must all arrive.
        let smoke = PointSpec::plain("smoke", Kind::named("fire.smoke").expect("a kind of the table"));
        play(
            smoke.clone(),
            "0s true seq=0 -> good news
             1s false seq=0 -> good news
             2s true seq=0 -> good news
             3s true seq=0 -> nothing",
        );
        play(
            smoke,
            "0s false ts=@0 -> clock_skew news
             1s false ts=@0 -> clock_skew news
             2s true ts=@0 -> clock_skew news
             3s true ts=@0 -> clock_skew news",
        );
    }

    /// Goal: what a device has counted and did not come is a gap; its manner of counting, a restart and a redelivery are
    /// none. Method: a device with three points; of each message its second, points, count and the gap that it shows.
    #[test]
    fn a_gap_in_the_count_of_a_device_is_noticed() {
        let kind = Kind::named("gas.lel").expect("a kind of the table");
        let specs = ["a", "b", "c"].map(|name| Arc::new(PointSpec::plain(name, kind)));
        let mut points = Points::default();
        points
            .add(DeviceId::new("g"), None, &Arc::from("p"), &Arc::new(Place::default()), &specs)
            .expect("the first device");
        type Message<'m> = (f64, &'m [u32], u64, Option<(u64, u64)>);
        let stories: [&[Message<'_>]; 5] = [
            // All points in each message; two of them are lost, and one comes again.
            &[
                (0.0, &[0, 1, 2], 7, None),
                (1.0, &[0, 1, 2], 8, None),
                (2.0, &[0, 1, 2], 11, Some((9, 10))),
                (3.0, &[0, 1, 2], 10, None),
                (4.0, &[0, 1, 2], 12, None),
                (5.0, &[0, 1, 2], 1, None),
                (6.0, &[0, 1, 2], 2, None),
                (7.0, &[0, 1, 2], 4, Some((3, 3))),
            ],
            // A topic for each point, all counted together; some in one batch.
            &[
                (0.0, &[0], 1, None),
                (0.0, &[1], 2, None),
                (0.0, &[2], 3, None),
                (1.0, &[0], 4, None),
                (9.0, &[0], 5, None),
                (9.0, &[2], 6, None),
                (10.0, &[1], 9, Some((7, 8))),
                (11.0, &[1], 10, None),
            ],
            // A topic for each point, each counted for itself, and not equally often.
            &[
                (0.0, &[0], 1, None),
                (1.0, &[1], 1, None),
                (2.0, &[0], 2, None),
                (3.0, &[0], 3, None),
                (4.0, &[0], 4, None),
                (5.0, &[1], 2, None),
                (6.0, &[0], 5, None),
                (7.0, &[1], 4, Some((3, 3))),
            ],
            &[(0.0, &[0], 0, None), (1.0, &[0], 0, None), (2.0, &[0, 1], 0, None)],
            // One byte, which comes round.
            &[(0.0, &[1], 254, None), (1.0, &[1], 255, None), (2.0, &[1], 0, None), (3.0, &[1], 1, None)],
        ];
        for (n, story) in stories.into_iter().enumerate() {
            let mut validator = Validator::default();
            for (second, which, sequence, wanted) in story {
                let readings: Vec<Reading> = which
                    .iter()
                    .map(|point| Reading {
                        point: PointIx(*point),
                        value: Ok(Value::Number(*second)),
                        source_time: None,
                        received: at(*second),
                        sequence: Some(*sequence),
                        retained: false,
                        redelivered: false,
                        historical: false,
                        warming_up: false,
                    })
                    .collect();
                validator.handle_readings(at(*second), &points, &readings, &mut Vec::new());
                let gaps: Vec<(u64, u64)> = validator.take_gaps().iter().map(|gap| (gap.first, gap.last)).collect();
                assert_eq!(gaps, Vec::from_iter(*wanted), "story {n}, at {second} s");
            }
        }
    }

    #[test]
    fn what_may_have_changed_unheard_is_unconfirmed_until_it_is_heard_again() {
        let points = site(gas());
        let mut validator = Validator::default();
        let say = |validator: &mut Validator, second: f64, value| {
            let (point, received) = (PointIx(0), at(second));
            let (source_time, sequence, retained, warming_up) = (None, None, false, false);
            let reading = Reading {
                point,
                value,
                source_time,
                received,
                sequence,
                retained,
                redelivered: false,
                historical: false,
                warming_up,
            };
            validator.handle_readings(received, &points, &[reading], &mut Vec::new());
            validator.latest(point).map(|sample| (sample.quality, sample.news))
        };
        assert!(!validator.doubt(PointIx(0)), "nothing was heard of it");
        assert_eq!(say(&mut validator, 1.0, Ok(Value::Number(5.0))), Some((Quality::Good, true)));
        assert!(validator.doubt(PointIx(0)));
        let doubted = validator.latest(PointIx(0)).expect("it was heard");
        assert_eq!((doubted.quality, doubted.news), (Quality::Uncertain(Doubt::Unconfirmed), false));
        assert_eq!(doubted.value, Some(Value::Number(5.0)));
        assert_eq!(say(&mut validator, 2.0, Ok(Value::Number(5.0))), Some((Quality::Good, true)));
        say(&mut validator, 3.0, Err(Fault::Comms));
        assert!(!validator.doubt(PointIx(0)), "that it cannot be read still holds");
        assert_eq!(validator.latest(PointIx(0)).map(|sample| sample.quality), Some(Quality::Bad(Fault::Comms)));
    }

    #[test]
    fn late_readings_are_stored_and_no_news() {
        play(
            gas(),
            "1000s 5 ts=1000 -> good news
             1001s 7 ts=500 -> good state
             1002s 8 ts=900 -> good state
             1003s 6 ts=1003 -> good news
             1004s 6 ts=1002 -> good news
             1005s 6 ts=999 seq=1 -> good news
             1006s 7 ts=1006 seq=40 -> good news
             1007s 8 ts=1003 seq=39 -> good state
             1008s 9 ts=1008 seq=1 -> good news",
        );
        // Without time stamps the sequence decides, and a counter may start again.
        play(
            gas(),
            "0s 5 seq=100 -> good news
             1s 6 seq=98 -> good state
             2s 7 seq=101 -> good news
             3s 8 seq=1 -> good news
             4s 9 seq=2 -> good news
             5s 9 seq=500 -> good news
             6s 9 seq=20 -> good news
             7s 9 seq=30 -> good news
             200s 9 seq=29 -> good news",
        );
        // What is redelivered may be far behind a counter that has come far.
        play(
            gas(),
            "0s 5 seq=5000 -> good news
             1s 60 seq=4000 -> good state
             2s 60 seq=3900 -> jump news",
        );
    }

    /// Goal: two devices with one identity hide no alarm of each other. Method: two boards with one program, each of which counts for
    /// itself, as far apart as a moment, an evening and a year of commissioning makes them.
    #[test]
    fn of_two_devices_with_one_name_neither_hides_the_other_and_both_are_told() {
        // The one that counts less is late until its count has twice said what the other did not: it is three behind.
        play(
            gas(),
            "0s 5 seq=100 -> good news
             2s 60 seq=97 -> good state
             5s 5 seq=101 -> good news
             7s 60 seq=98 -> good state
             10s 5 seq=102 -> good news
             12s 60 seq=99 -> good state
             15s 5 seq=103 -> good news
             17s 60 seq=100 -> good state
             20s 5 seq=104 -> good news
             22s 60 seq=101 -> good state
             25s 5 seq=105 -> good news
             27s 60 seq=102 -> good state
             30s 5 seq=106 -> good news
             32s 60 seq=103 -> unconfirmed news
             35s 5 seq=107 -> unconfirmed news
             37s 61 seq=104 -> unconfirmed news",
        );
        // Their clocks agree, or their counts are far apart: neither is late. From then on neither ends what the other began.
        for (stamps, ahead) in [(true, 10_010), (false, 90_000)] {
            let at = |second: u32| if stamps { format!("ts={second} ") } else { String::new() };
            let mut rounds = String::new();
            for n in 0..6_u32 {
                let (first, second, low, high) = (n * 5, n * 5 + 2, 10_000 + n, ahead + n);
                let [of_high, of_low] = match n {
                    0..3 => ["good", "good"],
                    3 => ["good", "unconfirmed"],
                    _ => ["unconfirmed"; 2],
                };
                rounds += &format!("{first}s 5 {}seq={high} -> {of_high} news\n", at(first));
                rounds += &format!("{second}s 6 {}seq={low} -> {of_low} news\n", at(second));
            }
            play(gas(), &rounds);
        }
    }

    #[test]
    fn two_devices_with_one_name_are_told_once_a_minute_until_one_of_them_is_silent_for_half_an_hour() {
        let (points, mut validator, mut out) = (site(gas()), Validator::default(), Vec::new());
        let mut say = |second: f64, sequence: u64, value: f64| {
            let received = at(second);
            let reading = Reading {
                point: PointIx(0),
                value: Ok(Value::Number(value)),
                source_time: None,
                received,
                sequence: Some(sequence),
                retained: false,
                redelivered: false,
                historical: false,
                warming_up: false,
            };
            validator.handle_readings(received, &points, &[reading], &mut out);
            let sample = out.pop().expect("no repeat");
            assert_eq!(validator.take_gaps(), [], "neither lacks anything");
            let latest = validator.latest(PointIx(0)).and_then(|sample| sample.sequence);
            (validator.take_doubles(), sample.quality, latest)
        };
        let mut told = Vec::new();
        for n in 0..40_u64 {
            for (after, sequence, value) in [(0.0, 101 + n, 5.0), (2.0, 100 + n, 6.0)] {
                let (doubles, _, latest) = say(n as f64 * 5.0 + after, sequence, value);
                told.extend(doubles.into_iter().map(|device| (n, device)));
                assert_eq!(latest, Some(101 + n), "what it counts less adds nothing");
            }
        }
        assert_eq!(told, [(4, DeviceIx(0)), (16, DeviceIx(0)), (28, DeviceIx(0))]);
        let doubted = Quality::Uncertain(Doubt::Unconfirmed);
        assert_eq!(say(1_900.0, 141, 5.0).1, doubted);
        assert_eq!(say(2_100.0, 142, 5.0), (vec![], Quality::Good, Some(142)), "the other has been given a name");
    }

    /// Nothing of this is another device, however long it goes on.
    #[test]
    fn a_device_that_is_late_again_and_again_or_starts_again_and_again_is_no_two() {
        let all: &[fn(u32) -> String] = &[
            // One reading overtakes the other, each time.
            |n| {
                let (at, count) = (n * 10, 100 + n * 2);
                format!("{at}s 5 seq={} -> good news\n{at}.1s 6 seq={count} -> good state\n", count + 1)
            },
            // A backlog between live readings, by its times; and what is delivered again.
            |n| {
                let (at, count) = (10_000 + n * 5, 1_000 + n);
                format!(
                    "{at}s 5 ts={at} seq={count} -> good news\n{at}.5s 60 ts={} seq={} -> good state\n",
                    at - 5_000,
                    count - 400
                )
            },
            |n| {
                let (at, count) = (n * 10, 100 + n);
                format!("{at}s 5 seq={count} -> good news\n{at}.1s 6 seq={} again -> good state\n", count - 5)
            },
            // It sends its last five once more, at a loss whether they came.
            |n| {
                let (at, count) = (n * 10, 100 + n * 5);
                let said = |more: u32| format!("{at}.{more}s {} seq={}", more % 5, count + more % 5);
                let known = |more| if more < 7 { "good state" } else { "nothing" };
                let first = (0..5).map(|more| format!("{} -> good news\n", said(more)));
                let again = (5..10).map(|more| format!("{} -> {}\n", said(more), known(more)));
                first.chain(again).collect()
            },
            // Once in a while its counter goes back a little, and what it counts a second time means something else.
            |n| {
                let (at, count) = (n * 2_000, 1_000 * (n + 1));
                let overtaken =
                    format!("{at}.00s 1 seq={} -> good news\n{at}.01s 2 seq={count} -> good state\n", count + 1);
                let first = (2..9).map(|more| format!("{at}.{more}0s 3 seq={} -> good news\n", count + more));
                let again = (2..8).map(|more| format!("{at}.9{more}s 4 seq={} -> good state\n", count + more));
                std::iter::once(overtaken).chain(first).chain(again).collect()
            },
            // It starts again with one, each time after some readings more.
            |n| {
                (1..n + 5)
                    .map(|count| format!("{}.{count:02}s {} seq={count} -> good news\n", n * 100, count % 7))
                    .collect()
            },
        ];
        for of in all {
            play(gas(), &(0..40).map(of).collect::<String>());
        }
    }

    #[test]
    fn a_clock_that_was_set_back_hides_nothing_for_long() {
        play(
            gas(),
            "1000s 5 ts=1000 -> good news
             1001s 5 ts=701 -> good state
             1003s 6 ts=703 -> good state
             1007s 7 ts=707 -> good news
             1008s 8 ts=708 -> good news",
        );
        // A backlog comes faster than it was taken.
        play(
            gas(),
            "5000s 5 ts=5000 -> good news
             5001s 5 ts=3000 -> good state
             5007s 6 ts=3600 -> good state
             5013s 7 ts=4200 -> good state
             5014s 7 ts=5014 -> good news",
        );
        // One that comes between live readings may come at any pace.
        play(
            gas(),
            "5000s 5 ts=5000 -> good news
             5001s 5 ts=3000 -> good state
             5002s 5 ts=5002 -> good news
             5008s 6 ts=3007 -> good state",
        );
    }

    #[test]
    fn a_wrong_clock_makes_doubtful_never_silent() {
        play(
            gas(),
            "0s 5 ts=@0 -> clock_skew news
             1s 6 ts=@1 -> clock_skew news
             2s 7 ts=@4070908800 -> clock_skew news
             3s 8 ts=3 -> good news
             4s 9 ts=@4 -> clock_skew news
             5s 9 ts=@3 seq=7 -> clock_skew news
             6s 9 ts=604 -> good news
             7s 9 ts=608 -> clock_skew news",
        );
    }

    #[test]
    fn what_the_session_holds_is_news_also_behind_what_the_broker_kept() {
        play(
            gas(),
            "0s 60 ts=-300 seq=9 retained -> unconfirmed state
             1s 30 ts=-310 seq=8 -> good news
             2s 60 ts=-300 seq=9 -> jump news
             3s 60 ts=-300 seq=9 retained -> nothing",
        );
        play(
            gas(),
            "0s 60 ts=-300 seq=9 retained -> unconfirmed state
             1s comms -> comms news
             2s 30 ts=-310 seq=8 -> good news",
        );
    }

    #[test]
    fn retained_readings_are_state_unless_they_are_fresh() {
        play(
            gas(),
            "0s 60 retained -> unconfirmed state
             1s 61 ts=-300 retained -> unconfirmed state
             2s 62 ts=-20 retained -> good news
             3s 5 ts=3 -> jump news
             4s 60 retained -> unconfirmed state
             5s null retained -> sentinel state",
        );
    }

    #[test]
    fn what_an_earlier_run_judged_is_stored_and_no_news_when_it_is_delivered_again() {
        let stamp = |seconds: f64| Some(at(seconds).wall);
        let cases = [
            // Stamped and counted.
            (
                Judged { source_time: stamp(5.0), sequence: Some(7) },
                "10s 60 ts=4 seq=6 again -> good state
                 10s 61 ts=5 seq=7 again -> good state
                 10s 62 ts=6 seq=8 again -> good news
                 10s 63 ts=7 seq=9 -> good news",
            ),
            // Only one of the two is there.
            (
                Judged { source_time: stamp(5.0), sequence: None },
                "10s 60 ts=5 again -> good state\n11s 61 ts=6 -> good news",
            ),
            (
                Judged { source_time: None, sequence: Some(7) },
                "10s 60 seq=7 again -> good state\n11s 61 seq=8 -> good news",
            ),
            // A detector that started again with its clock behind is heard: what it says was never sent before.
            (Judged { source_time: stamp(5.0), sequence: Some(7) }, "10s 60 ts=1 seq=1 -> good news"),
            // Stamp and count disagree, or there is neither: better twice than never.
            (Judged { source_time: stamp(5.0), sequence: Some(7) }, "10s 60 ts=6 seq=1 again -> good news"),
            (Judged { source_time: stamp(5.0), sequence: Some(7) }, "10s 60 again -> good news"),
        ];
        for (judged, story) in cases {
            let mut validator = Validator::default();
            validator.recall(site(gas()).point(PointIx(0)).id.clone(), judged);
            play_on(validator, gas(), story);
        }
    }

    #[test]
    fn what_the_broker_kept_does_not_replace_what_was_heard() {
        let points = site(gas());
        let mut validator = Validator::default();
        let reading = |value: f64, retained| Reading {
            point: PointIx(0),
            value: Ok(Value::Number(value)),
            source_time: None,
            received: at(1.0),
            sequence: None,
            retained,
            redelivered: false,
            historical: false,
            warming_up: false,
        };
        let mut latest = |reading: Reading| {
            validator.handle_readings(at(1.0), &points, &[reading], &mut Vec::new());
            validator.latest(PointIx(0)).and_then(|sample| sample.value)
        };
        assert_eq!(latest(reading(7.0, true)), Some(Value::Number(7.0)));
        assert_eq!(latest(reading(5.0, false)), Some(Value::Number(5.0)));
        assert_eq!(latest(reading(7.0, true)), Some(Value::Number(5.0)));
    }

    #[test]
    fn warming_up_holds_alarms_back_but_no_faults() {
        play(
            gas(),
            "0s 60 warm -> warming_up state
             1s null warm -> sentinel news
             2s comms -> comms news
             3s 5 -> good news",
        );
        let fault = PointSpec::plain("fault", Kind::named("device.fault").expect("a kind of the table"));
        play(fault, "0s true warm -> good news");
    }

    #[test]
    fn a_point_costs_little_memory() {
        assert!(size_of::<State>() <= 152, "{} bytes", size_of::<State>());
    }

    #[test]
    fn points_added_later_are_watched_too() {
        let mut points = site(gas());
        let mut validator = Validator::default();
        validator.watch(&points, at(0.0));
        points
            .add(DeviceId::new("h"), None, &Arc::from("p"), &Arc::new(Place::default()), &[Arc::new(gas())])
            .expect("another device");
        let mut out = Vec::new();
        validator.handle_timeout(at(50.0), &points, &mut out);
        assert_eq!(out, []);
        validator.handle_timeout(at(139.0), &points, &mut out);
        assert_eq!(out.len(), 1);
        assert_eq!(validator.poll_timeout(), Some(at(140.0).mono));
        validator.handle_timeout(at(140.0), &points, &mut out);
        assert_eq!(out.iter().map(|sample| sample.point).collect::<Vec<_>>(), [PointIx(0), PointIx(1)]);
        assert_eq!(validator.poll_timeout(), None);
    }

    /// Goal: no input makes the validator panic, lose count, or let a number through that is not finite or out of range.
    #[test]
    fn whatever_comes_in_every_reading_is_counted_and_no_bad_number_gets_out() {
        for seed in 1..=20_u64 {
            let points = site(gas());
            let mut validator = Validator::default();
            let mut state = seed;
            let mut next = |below: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) % below
            };
            let numbers =
                [0.0, 5.0, 60.0, 1e300, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 151.0, f64::MIN_POSITIVE];
            let mut clock = 0.0;
            let mut out = Vec::new();
            for _ in 0..2_000 {
                clock += next(100) as f64;
                let reading = Reading {
                    point: PointIx(0),
                    value: match next(12) {
                        0 => Err(Fault::Comms),
                        1 => Err(Fault::Sentinel),
                        2 => Ok(Value::Text("x".into())),
                        3 => Ok(Value::Flag(true)),
                        _ => Ok(Value::Number(numbers[next(10) as usize])),
                    },
                    source_time: match next(5) {
                        0 => None,
                        1 => Some(Wall::from_micros(i64::MIN + next(9) as i64)),
                        2 => Some(Wall::from_micros(i64::MAX - next(9) as i64)),
                        _ => Some(Wall::from_millis(at(clock).wall.millis() - next(900_000) as i64)),
                    },
                    received: at(clock),
                    sequence: match next(3) {
                        0 => None,
                        1 => Some(next(50)),
                        _ => Some(u64::MAX - next(3)),
                    },
                    retained: next(6) == 0,
                    redelivered: next(4) == 0,
                    historical: false,
                    warming_up: next(9) == 0,
                };
                validator.handle_readings(at(clock), &points, &[reading], &mut out);
                validator.handle_timeout(at(clock), &points, &mut out);
            }
            let counts = validator.counts();
            assert_eq!(counts.received, 2_000, "seed {seed}");
            assert_eq!(counts.received, counts.evaluated + counts.duplicate, "seed {seed}");
            assert_eq!(out.len() as u64, counts.evaluated + counts.silent, "seed {seed}");
            for sample in out {
                if let Some(value) = sample.value {
                    assert!(
                        value.as_f64().is_some_and(|number| (-5.0..=150.0).contains(&number)),
                        "seed {seed}: {value}"
                    );
                }
            }
        }
    }
}
