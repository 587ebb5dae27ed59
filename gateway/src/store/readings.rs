//! readings.db: the queue for forwarding and the history for charts. Large, bounded, may be lost without losing an alarm.
//!
//! Tables of schema 3 (times are microseconds of the wall clock; bodies as in [`super::column`]):
//!
//! | table | row |
//! |---|---|
//! | `points` | a point's number, stable over restarts, with the names that a time-series database wants as tags |
//! | `queue` | one batch of readings in order of arrival under an ascending id that is never used twice |
//! | `chunks` | some readings of one point, or of some points of one group of [`GROUP`]: the history |
//! | `cursors` | up to which queue id each consumer has taken |
//! | `gaps` | queue ids that were dropped before every consumer had them, and how many readings they held |
//! | `progress` | one row: next queue id, how far the queue has been sorted into history |
//! | `unusable`, ... | since schema 3: messages of which nothing could be used, see [`super::unusable`] |
//!
//! One thread owns the connection that writes. Everything queued becomes one transaction: within 5 to 25 ms when readings
//! of QoS 1 wait for their acknowledgement, else every 200 ms. A commit with acknowledgements waits for the disk; without any,
//! every fifth does, so QoS 0 readings of up to a second go with a power cut and flash memory lives longer.
//!
//! **Compaction** sorts each 131,072 readings by point and writes them down as chunks, a slice with each commit, so that
//! no acknowledgement waits long behind it. The slice and the mark of how far it got are one transaction. A chunk is
//! written once and never again: points that seldom speak share one, so that a hundred thousand of them cost a few
//! thousand rows each time, not a hundred thousand.
//!
//! **Away.** A file that cannot be opened or written keeps nobody from acknowledging: a source that is never answered stops
//! sending, alarms too. From the second failure on, a second after the first, readings are acknowledged as they come, the
//! newest are kept in memory within its bound, the others shed and counted; every second the file is tried again.
//!
//! **Bounds.** When the file's used pages pass `max_bytes` the oldest go: queue batches while the queue holds more than
//! half, history otherwise. Readings that a consumer had not taken yet are counted and recorded in `gaps`.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anmin_rules::rule::Text;
use anmin_sensors::document::{ByteSize, Reader as TomlReader};
use anmin_sensors::point::{DeviceId, Kind, Place, PointId, PointIx, Points};
use anmin_sensors::reading::{Quality, Sample, Value};
use anmin_sensors::time::{Mono, Wall};
use rusqlite::types::Value as SqlValue;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};
use tokio::sync::watch;

use super::column::{self, BatchEncoder, Cell, FLAG, NO_VALUE};
use super::unusable::{self, Unusable};
use super::view::{Damage, Gap, History, Reader};
use super::{Disk, StoreError, migrate, set_aside};
use crate::intake::Ack;

pub(super) const FILE: &str = "readings.db";

/// Readings that may wait in memory for the writer (about 12 MB). Beyond it the oldest go, those without an
/// acknowledgement first: a source that waits for one sends no more than its window anyway.
const QUEUED_MAX: usize = if cfg!(test) { 10_000 } else { 100_000 };

/// With acknowledgements waiting, so many times [`QUEUED_MAX`] before those go, too.
const QUEUED_MAX_WITH_ACKS: usize = 4;

/// So many readings end the wait for more at once.
const QUEUED_URGENT: usize = 32_768;

/// How long readings without acknowledgement wait for others to share a commit.
const GROUP_WAIT: Duration = Duration::from_millis(200);

/// How long readings that wait for their acknowledgement wait for others to share a commit, at least: what waits for the
/// disk is the source's window, not an alarm, and every sync costs the journal's next one time.
const ACK_WAIT: Duration = Duration::from_millis(5);

/// ... at most, while more keep coming: a source that pauses for [`ACK_PAUSE`] may have filled its window, and so many
/// acknowledgements fill the window of most.
const ACK_WAIT_LONGEST: Duration = Duration::from_millis(25);
const ACK_PAUSE: Duration = Duration::from_millis(2);
const ACKS_MANY: usize = 256;

/// How long the writer sleeps with nothing to do, and waits after a failed commit.
const IDLE_WAIT: Duration = Duration::from_secs(1);

/// Commits without acknowledgements of which only the last waits for the disk.
const LAZY_COMMITS: u32 = 5;

/// Largest number of readings in one row of the queue.
const BATCH_MAX: usize = if cfg!(test) { 256 } else { 4_096 };

/// Compaction starts with so many readings, or with readings older than [`COMPACT_AFTER`].
const COMPACT_AT: usize = if cfg!(test) { 4_096 } else { 131_072 };
const COMPACT_AFTER: Duration = Duration::from_secs(600);

/// Readings that compaction sorts in with each commit, or twice what came with it if that is more.
const COMPACT_SLICE: usize = if cfg!(test) { 512 } else { 8_192 };

/// Points whose numbers divided by this are the same may share a chunk.
pub(super) const GROUP: u32 = 64;

/// Readings in one chunk at most.
const CHUNK_MAX: usize = 480;

/// Microseconds from the oldest to the newest reading of one chunk at most: where a chart's time begins says which
/// chunks can matter to it, and chunks age nearly in the order of their ids.
pub(super) const CHUNK_SPAN: i64 = 86_400_000_000;

/// Gaps that are remembered for those who ask how forwarding stands.
const GAPS_SHOWN: i64 = 10;

/// Rows that one commit deletes at most, so that none takes long.
const DELETE_MAX: i64 = 2_000;

pub(super) const MIGRATIONS: super::Migrations = &[
    "
    CREATE TABLE points (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        kind TEXT NOT NULL,
        device TEXT NOT NULL,
        area TEXT NOT NULL,
        grid TEXT NOT NULL,
        building TEXT NOT NULL,
        unit TEXT NOT NULL,
        floor TEXT NOT NULL,
        room TEXT NOT NULL
    );
    CREATE TABLE queue (
        id INTEGER PRIMARY KEY,
        samples INTEGER NOT NULL,
        first INTEGER NOT NULL,
        last INTEGER NOT NULL,
        body BLOB NOT NULL
    );
    CREATE TABLE chunks (
        id INTEGER PRIMARY KEY,
        point INTEGER NOT NULL,
        first INTEGER NOT NULL,
        last INTEGER NOT NULL,
        samples INTEGER NOT NULL,
        body BLOB NOT NULL
    );
    CREATE INDEX chunks_of_point ON chunks (point, first, last);
    CREATE TABLE cursors (consumer TEXT PRIMARY KEY, id INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE gaps (
        last_id INTEGER PRIMARY KEY,
        first_id INTEGER NOT NULL,
        first INTEGER NOT NULL,
        last INTEGER NOT NULL,
        samples INTEGER NOT NULL
    );
    CREATE TABLE progress (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        next_id INTEGER NOT NULL,
        compacted INTEGER NOT NULL,
        compacting INTEGER NOT NULL,
        next_point INTEGER NOT NULL
    );
    INSERT INTO progress VALUES (1, 1, 0, 0, 0);
",
    "
    ALTER TABLE chunks ADD COLUMN grp INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE chunks ADD COLUMN last_point INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE chunks ADD COLUMN members BLOB;
    UPDATE chunks SET grp = point / 64, last_point = point;
    DROP INDEX chunks_of_point;
    CREATE INDEX chunks_of_group ON chunks (grp, first, last, point, last_point);
",
    unusable::SCHEMA,
];

/// How much may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub max_bytes: u64,
    /// History older than this goes.
    pub keep: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_bytes: 512 << 20, keep: Duration::from_secs(30 * 86_400) }
    }
}

impl Limits {
    /// Reads `[readings]`: `max_bytes = "512MiB"`, `keep = "30d"`.
    pub fn read(r: &TomlReader<'_>) -> Option<Self> {
        let default = Self::default();
        let max_bytes = r.or("max_bytes", ByteSize(default.max_bytes)).0;
        if max_bytes < 8 << 20 {
            let message = format!("`max_bytes` is {max_bytes} bytes, expected \"8MiB\" or more");
            r.fault("max_bytes", message, Some("less does not hold a minute of readings".to_owned()));
        }
        let keep = r.or("keep", default.keep);
        r.finish();
        (!r.is_faulty()).then_some(Self { max_bytes, keep })
    }
}

/// A point that the writer has not heard of, in the order of [`PointIx`] without holes.
#[derive(Clone, Debug)]
pub struct NewPoint {
    pub ix: PointIx,
    pub id: PointId,
    pub kind: Kind,
    pub device: DeviceId,
    pub place: Arc<Place>,
}

impl NewPoint {
    pub fn of(points: &Points, ix: PointIx) -> Self {
        let (point, device) = (points.point(ix), points.device_of(ix));
        Self {
            ix,
            id: point.id.clone(),
            kind: point.spec.kind,
            device: device.id.clone(),
            place: Arc::clone(&device.place),
        }
    }
}

/// What one turn of the main loop hands over.
#[derive(Debug, Default)]
pub struct ReadingsBatch {
    /// Each point once, in the batch that first names it or an earlier one.
    pub points: Vec<NewPoint>,
    pub samples: Vec<Sample>,
}

/// What has become of the readings so far in this run. Every reading that was appended is in one of `stored`, `shed`
/// or still in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Committed to the queue.
    pub stored: u64,
    /// Given up in memory because the writer could not follow or the disk was away.
    pub shed: u64,
    /// Given up on disk, for want of room, before every consumer had them.
    pub dropped: u64,
    /// Commits, and how many of them waited for the disk.
    pub commits: u64,
    pub synced: u64,
    /// Readings in the queue, and bytes of the whole file in use.
    pub queued: u64,
    pub bytes: u64,
    /// Readings that the slowest consumer has still to take.
    pub waiting: u64,
}

/// What waits for one consumer, as of the last commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backlog {
    pub consumer: Arc<str>,
    /// Readings behind its cursor, and their bytes on disk.
    pub queued: u64,
    pub bytes: u64,
    /// Of these, readings that it has taken before those in front of them.
    pub ahead: u64,
    /// The earliest time in the oldest batch behind its cursor.
    pub oldest: Option<Wall>,
    /// Readings given up in this run before it had them.
    pub dropped: u64,
    /// Its cursor.
    taken: i64,
}

impl Backlog {
    fn none(consumer: &Arc<str>) -> Self {
        let consumer = Arc::clone(consumer);
        Self { consumer, queued: 0, bytes: 0, ahead: 0, oldest: None, dropped: 0, taken: 0 }
    }

    /// Readings that it has still to take.
    pub fn waiting(&self) -> u64 {
        self.queued.saturating_sub(self.ahead)
    }

    /// The oldest readings wait no longer, for whatever reason.
    fn leave(&mut self, samples: u64, bytes: u64) {
        self.queued = self.queued.saturating_sub(samples);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.oldest = None;
    }
}

/// How far the consumers are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwarding {
    /// In the order in which they were named at the opening.
    pub backlogs: Vec<Backlog>,
    /// Unbroken stretches that were dropped before every consumer had them, since the file began.
    pub gaps: u64,
    /// The newest of them first, [`GAPS_SHOWN`] at most.
    pub newest_gaps: Vec<Gap>,
}

impl Forwarding {
    fn waiting(&self) -> u64 {
        self.backlogs.iter().map(Backlog::waiting).max().unwrap_or(0)
    }
}

/// Told by the writer's thread when it falls ill (`Some`) and when it is well again (`None`). Must not block.
pub type OnHealth = Box<dyn Fn(Option<StoreError>) + Send>;

/// The face of readings.db. Cheap calls; the work is done by a thread of its own. Dropping it commits what is left.
#[derive(Debug)]
pub struct Readings {
    dir: PathBuf,
    shared: Arc<Shared>,
    /// `None` where a test takes the steps.
    writer: Option<JoinHandle<()>>,
}

/// What the threads share.
#[derive(Debug)]
pub(super) struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    /// The last committed queue id.
    pub(super) committed: watch::Sender<i64>,
    /// The file is away: what comes is acknowledged at once.
    away: AtomicBool,
    /// How many times a new file has taken the place of a damaged one; readers open anew.
    pub(super) generation: AtomicU64,
    stored: AtomicU64,
    shed: AtomicU64,
    dropped: AtomicU64,
    commits: AtomicU64,
    synced: AtomicU64,
    queued: AtomicU64,
    bytes: AtomicU64,
    forwarding: Mutex<Forwarding>,
    pub(super) damage: Arc<Damage>,
}

#[derive(Debug, Default)]
struct Queue {
    work: VecDeque<Work>,
    /// Readings, and what takes their room.
    samples: usize,
    acks: usize,
    points: Vec<NewPoint>,
    cursors: HashMap<Arc<str>, Cursor>,
    /// Emptied vectors on their way back to the main loop.
    spare: Vec<Vec<Sample>>,
    /// New ones, until the writer has taken them.
    limits: Option<Limits>,
    stop: bool,
    /// The writer's thread has ended.
    gone: bool,
}

/// How far a consumer says that it is: up to which id, and how many readings behind that it has taken already.
#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    id: i64,
    ahead: u64,
}

#[derive(Debug)]
struct Work {
    samples: Vec<Sample>,
    unusable: Vec<Unusable>,
    acks: Vec<Ack>,
}

impl Work {
    /// What it takes of [`QUEUED_MAX`].
    fn room(&self) -> usize {
        self.samples.len() + self.unusable.iter().map(Unusable::room).sum::<usize>()
    }
}

impl Shared {
    fn counts(&self) -> Counts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts {
            stored: read(&self.stored),
            shed: read(&self.shed),
            dropped: read(&self.dropped),
            commits: read(&self.commits),
            synced: read(&self.synced),
            queued: read(&self.queued),
            waiting: self.forwarding().waiting(),
            bytes: read(&self.bytes),
        }
    }

    pub(super) fn set_cursor(&self, consumer: &Arc<str>, id: i64, ahead: u64) {
        let mut queue = self.lock();
        let cursor = queue.cursors.entry(Arc::clone(consumer)).or_default();
        *cursor = Cursor { id: id.max(cursor.id), ahead };
    }

    /// Waits for more readings to share the commit of those that wait for their acknowledgement.
    fn gather(&self, mut queue: MutexGuard<'_, Queue>) {
        let start = Instant::now();
        let mut wait = ACK_WAIT;
        loop {
            let before = queue.acks;
            queue = self
                .wake
                .wait_timeout_while(queue, wait, |queue| !queue.stop && queue.samples < QUEUED_URGENT)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            let paused = wait == ACK_PAUSE && queue.acks == before;
            let enough = queue.stop || queue.samples >= QUEUED_URGENT || queue.acks >= ACKS_MANY;
            if enough || paused || start.elapsed() >= ACK_WAIT_LONGEST {
                return;
            }
            wait = ACK_PAUSE;
        }
    }

    fn forwarding(&self) -> MutexGuard<'_, Forwarding> {
        self.forwarding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, forwarding: Forwarding) {
        *self.forwarding() = forwarding;
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // A panic of another holder leaves plain vectors and counters, whole at every step.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Readings {
    /// Opens `dir/readings.db`, made when it is not there. `consumers` are the ids of all that will take readings:
    /// the queue is kept for these and no others, a new one starts with what the queue holds. A damaged file is set
    /// aside and a new one started; the texts say so. A file that cannot be opened, or is of a newer anmin, is left alone
    /// and tried again now and then; `on_health` hears of it. The caller holds the directory through
    /// [`StateStore`](super::StateStore).
    pub fn open(
        dir: &Path,
        limits: Limits,
        consumers: &[Arc<str>],
        now: Wall,
        on_health: OnHealth,
    ) -> Result<(Self, Vec<Text>), StoreError> {
        Self::open_on(dir, limits, consumers, now, on_health, Disk::real())
    }

    /// [`Readings::open`] on a disk that a test can break.
    pub fn open_on(
        dir: &Path,
        limits: Limits,
        consumers: &[Arc<str>],
        now: Wall,
        on_health: OnHealth,
        disk: Disk,
    ) -> Result<(Self, Vec<Text>), StoreError> {
        let (mut readings, writer, notes) = Self::open_stepped(dir, limits, consumers, now, on_health, disk)?;
        let thread = std::thread::Builder::new()
            .name("anmin-readings".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| StoreError::io(FILE, &error))?;
        readings.writer = Some(thread);
        Ok((readings, notes))
    }

    /// [`Readings::open_on`] without the thread: nothing is written but by [`Writer::step`].
    pub fn open_stepped(
        dir: &Path,
        limits: Limits,
        consumers: &[Arc<str>],
        now: Wall,
        on_health: OnHealth,
        disk: Disk,
    ) -> Result<(Self, Writer, Vec<Text>), StoreError> {
        let shared = Arc::new(Shared {
            away: AtomicBool::new(false),
            queue: Mutex::default(),
            wake: Condvar::new(),
            committed: watch::Sender::new(0),
            generation: AtomicU64::new(0),
            stored: AtomicU64::new(0),
            shed: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            synced: AtomicU64::new(0),
            queued: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            forwarding: Mutex::default(),
            damage: Arc::default(),
        });
        let mut writer = Writer {
            dir: dir.to_owned(),
            disk,
            limits,
            consumers: consumers.to_vec(),
            shared: Arc::clone(&shared),
            on_health,
            file: QueueFile::nowhere(consumers)?,
            held: Vec::new(),
            encoder: BatchEncoder::default(),
            points: Vec::new(),
            numbers: Vec::new(),
            ill: false,
            opened: false,
            failures: 0,
            lost: false,
            lazy: 0,
            newest: now,
            mono: Mono::default(),
            cap: limits.max_bytes,
            well: 0,
        };
        shared.show(Forwarding { backlogs: writer.file.backlogs.clone(), ..Forwarding::default() });
        let notes = match writer.open_file() {
            Ok(notes) => notes,
            Err(error) => {
                writer.fail(&error);
                Vec::new()
            }
        };
        Ok((Self { dir: dir.to_owned(), shared, writer: None }, writer, notes))
    }

    /// Hands readings over and returns at once. `acks` are called when the readings are on disk. When the writer
    /// cannot follow, the oldest readings are shed and counted; theirs are not called.
    pub fn append(&self, batch: ReadingsBatch, acks: Vec<Ack>) {
        self.append_with(batch, Vec::new(), acks);
    }

    /// [`Readings::append`] together with messages of which nothing could be used. They take room as readings do, by
    /// their size, and go with those that are shed, but are counted with none.
    pub fn append_with(&self, batch: ReadingsBatch, unusable: Vec<Unusable>, acks: Vec<Ack>) {
        let ReadingsBatch { points, samples } = batch;
        let acks = if self.shared.away.load(Ordering::Relaxed) {
            acks.into_iter().for_each(Ack::done);
            Vec::new()
        } else {
            acks
        };
        let mut shed = 0;
        {
            let mut queue = self.shared.lock();
            let was_idle = queue.work.is_empty();
            queue.points.extend(points);
            if samples.is_empty() && unusable.is_empty() && acks.is_empty() {
                return;
            }
            let work = Work { samples, unusable, acks };
            if queue.gone {
                shed = work.samples.len();
            } else {
                let was_urgent = queue.is_urgent();
                queue.samples += work.room();
                queue.acks += work.acks.len();
                queue.work.push_back(work);
                while queue.samples > QUEUED_MAX {
                    let without = queue.work.iter().position(|work| work.acks.is_empty());
                    let oldest = match without {
                        Some(at) => queue.work.remove(at),
                        None if queue.samples > QUEUED_MAX * QUEUED_MAX_WITH_ACKS => queue.work.pop_front(),
                        None => None,
                    };
                    let Some(oldest) = oldest else { break };
                    queue.samples -= oldest.room();
                    queue.acks -= oldest.acks.len();
                    shed += oldest.samples.len();
                }
                if was_idle || (!was_urgent && queue.is_urgent()) {
                    self.shared.wake.notify_one();
                }
            }
        }
        if shed > 0 {
            self.shared.shed.fetch_add(shed as u64, Ordering::Relaxed);
        }
    }

    /// For how long and how much is kept from the next commit on.
    pub fn set_limits(&self, limits: Limits) {
        self.shared.lock().limits = Some(limits);
    }

    /// An empty vector that has been through here before, so that a turn allocates none.
    pub fn spare(&self) -> Vec<Sample> {
        self.shared.lock().spare.pop().unwrap_or_default()
    }

    /// A view for one of the consumers named at the opening.
    pub fn reader(&self, consumer: &Arc<str>) -> Result<Reader, StoreError> {
        Ok(Reader::open(&self.dir, consumer, &self.shared))
    }

    /// A view for charts, with a connection of its own.
    pub fn history(&self) -> Result<History, StoreError> {
        Ok(History::following(&self.dir, &self.shared))
    }

    pub fn counts(&self) -> Counts {
        self.shared.counts()
    }

    /// What waits for each consumer, and what none will get.
    pub fn forwarding(&self) -> Forwarding {
        self.shared.forwarding().clone()
    }

    /// Commits what is left and ends the thread. Without room on the disk what is left is shed after one last try.
    pub fn close(mut self) -> Counts {
        self.stop();
        self.counts()
    }

    fn stop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.wake.notify_all();
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("The writer of readings had panicked; readings since then were not kept.");
        }
    }
}

impl Drop for Readings {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Queue {
    fn is_urgent(&self) -> bool {
        self.acks > 0 || self.stop || self.samples >= QUEUED_URGENT
    }
}

/// The owner of the writing connection: a thread of its own, or a test that takes each step by hand.
pub struct Writer {
    dir: PathBuf,
    disk: Disk,
    limits: Limits,
    consumers: Vec<Arc<str>>,
    shared: Arc<Shared>,
    on_health: OnHealth,
    file: QueueFile,
    /// Taken from the queue and not committed yet: more than nothing only after a commit that failed.
    held: Vec<Work>,
    encoder: BatchEncoder,
    /// All points of this run, by [`PointIx`], to name them again in a new file.
    points: Vec<NewPoint>,
    /// The number of each in the file; 0 until its first reading.
    numbers: Vec<u32>,
    ill: bool,
    /// There is a file; `false` until the first opening has succeeded.
    opened: bool,
    /// Commits that failed in a row.
    failures: u32,
    /// The file was found damaged; the next commit starts a new one.
    lost: bool,
    /// Commits since the last that waited for the disk.
    lazy: u32,
    /// Newest receive time seen: the writer's only idea of today.
    newest: Wall,
    mono: Mono,
    /// Bytes that may be in use: the limit, or less while the disk is full.
    cap: u64,
    /// Good commits since the disk was last full.
    well: u32,
}

/// The connection and what is known about the file without asking it.
struct QueueFile {
    conn: Connection,
    next_id: i64,
    first_id: i64,
    queued: u64,
    queue_bytes: u64,
    cursors: HashMap<Arc<str>, Cursor>,
    /// What waits for each, as of the last commit.
    backlogs: Vec<Backlog>,
    cursors_moved: bool,
    compacted: i64,
    /// Readings committed to the queue and not yet given to a compaction, in order.
    tail: Vec<(u32, Cell)>,
    tail_since: Option<Mono>,
    job: Option<Job>,
}

/// A compaction in progress.
struct Job {
    /// Sorted by point, then in order of arrival.
    cells: Vec<(u32, Cell)>,
    next: usize,
    up_to: i64,
}

/// What changes in [`QueueFile`] once a transaction has been committed.
#[derive(Default)]
struct Changes {
    tail: Vec<(u32, Cell)>,
    rows: Vec<(i64, u64, u64)>,
    new_numbers: Vec<(usize, u32)>,
    newest: Wall,
    mono: Mono,
    unknown: u64,
}

impl Writer {
    fn run(mut self) {
        struct Gone(Arc<Shared>);
        impl Drop for Gone {
            fn drop(&mut self) {
                let mut queue = self.0.lock();
                queue.gone = true;
                let left: usize = queue.work.drain(..).map(|work| work.samples.len()).sum();
                (queue.samples, queue.acks) = (0, 0);
                drop(queue);
                self.0.shed.fetch_add(left as u64, Ordering::Relaxed);
            }
        }
        let _gone = Gone(Arc::clone(&self.shared));
        loop {
            self.wait();
            if !self.step() {
                return;
            }
        }
    }

    /// As [`Readings::counts`] gives them.
    pub fn counts(&self) -> Counts {
        self.shared.counts()
    }

    /// Until there is enough to do, or for long enough.
    fn wait(&self) {
        let wake = &self.shared.wake;
        let mut queue = self.shared.lock();
        if !self.held.is_empty() {
            // The last commit failed: the same again, after a while.
            let _ = wake.wait_timeout_while(queue, IDLE_WAIT, |queue| !queue.stop);
            return;
        }
        queue = wake
            .wait_timeout_while(queue, IDLE_WAIT, |queue| queue.work.is_empty() && !queue.stop)
            .unwrap_or_else(PoisonError::into_inner)
            .0;
        if !queue.work.is_empty() {
            queue = wake
                .wait_timeout_while(queue, GROUP_WAIT, |queue| !queue.is_urgent())
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        if queue.acks > 0 {
            self.shared.gather(queue);
        }
    }

    /// Commits what waits and gives its acknowledgements, without waiting for more. False when it was told to stop and
    /// nothing is left, or nothing more can be done about it.
    pub fn step(&mut self) -> bool {
        let shared = Arc::clone(&self.shared);
        let stop = {
            let mut queue = shared.lock();
            if self.held.is_empty() {
                self.held.extend(queue.work.drain(..));
                (queue.samples, queue.acks) = (0, 0);
            }
            if let Some(limits) = queue.limits.take().filter(|limits| *limits != self.limits) {
                (self.limits, self.cap) = (limits, limits.max_bytes);
            }
            // The room of a start's thousands of points goes with them.
            for point in std::mem::take(&mut queue.points) {
                match (point.ix.0 as usize).cmp(&self.points.len()) {
                    std::cmp::Ordering::Equal => self.points.push(point),
                    std::cmp::Ordering::Less => {}
                    std::cmp::Ordering::Greater => {
                        tracing::error!(point = %point.id, "A point came out of order; its readings are not kept.");
                    }
                }
            }
            for (consumer, Cursor { id, ahead }) in queue.cursors.drain() {
                if let Some(cursor) = self.file.cursors.get_mut(&consumer)
                    && (id > cursor.id || ahead != cursor.ahead)
                {
                    *cursor = Cursor { id: id.max(cursor.id), ahead };
                    self.file.cursors_moved = true;
                }
            }
            queue.stop
        };
        let mut held = std::mem::take(&mut self.held);
        match self.commit(&held) {
            Ok(()) => {
                self.set_health(None);
                self.failures = 0;
                shared.away.store(false, Ordering::Relaxed);
                let mut spare = Vec::with_capacity(held.len());
                for mut work in held.drain(..) {
                    for ack in work.acks {
                        ack.done();
                    }
                    work.samples.clear();
                    spare.push(work.samples);
                }
                self.held = held;
                let mut queue = shared.lock();
                let room = 16_usize.saturating_sub(queue.spare.len());
                // A burst's vectors go: kept, they would hold its memory for good.
                let worth = |vec: &Vec<Sample>| (1..=BATCH_MAX).contains(&vec.capacity());
                queue.spare.extend(spare.into_iter().filter(worth).take(room));
                !(stop && queue.work.is_empty())
            }
            Err(error) => {
                self.fail(&error);
                if shared.away.load(Ordering::Relaxed) {
                    let mut queue = shared.lock();
                    let waiting = held.iter_mut().chain(queue.work.iter_mut());
                    let acks: Vec<Ack> = waiting.flat_map(|work| work.acks.drain(..)).collect();
                    queue.acks = 0;
                    drop(queue);
                    acks.into_iter().for_each(Ack::done);
                }
                if stop {
                    let left: usize = held.drain(..).map(|work| work.samples.len()).sum();
                    shared.shed.fetch_add(left as u64, Ordering::Relaxed);
                    tracing::error!(%error, readings = left, "The last readings could not be written and are lost.");
                    return false;
                }
                self.held = held;
                true
            }
        }
    }

    fn fail(&mut self, error: &StoreError) {
        self.set_health(Some(error));
        self.failures = self.failures.saturating_add(1);
        if !self.opened || self.failures >= 2 {
            self.shared.away.store(true, Ordering::Relaxed);
        }
    }

    /// The first opening in this run.
    fn open_file(&mut self) -> Result<Vec<Text>, StoreError> {
        fs::create_dir_all(&self.dir).map_err(|error| StoreError::io(FILE, &error))?;
        let (file, notes) = QueueFile::open(&self.dir, &self.consumers, self.newest)?;
        // Cursors move only for what was read from the file.
        self.file = file;
        self.recover_tail()?;
        self.opened = true;
        self.shared.queued.store(self.file.queued, Ordering::Relaxed);
        self.shared.show(self.file.forwarding()?);
        self.shared.generation.fetch_add(1, Ordering::Release);
        self.shared.committed.send_replace(self.file.next_id - 1);
        Ok(notes)
    }

    fn set_health(&mut self, error: Option<&StoreError>) {
        match error {
            Some(error) if !self.ill => {
                tracing::error!(%error, "Readings cannot be written. anmin keeps the newest in memory, counts those it must give up and tries again every second; alarms go on.");
            }
            None if self.ill => tracing::info!("Readings can be written again."),
            _ => return,
        }
        self.ill = error.is_some();
        (self.on_health)(error.cloned());
    }

    fn commit(&mut self, held: &[Work]) -> Result<(), StoreError> {
        if !self.opened {
            self.disk.before_commit(FILE)?;
            for Text { en, .. } in self.open_file()? {
                tracing::error!("{en}");
            }
        }
        let acks = held.iter().any(|work| !work.acks.is_empty());
        if held.is_empty() && !self.has_chores() {
            return Ok(());
        }
        if self.lost {
            self.start_over()?;
        }
        let sync = acks || self.lazy + 1 >= LAZY_COMMITS;
        let allowed = self.disk.before_commit(FILE);
        match allowed.and_then(|()| self.transact(held, sync)) {
            Ok(()) => {
                self.lazy = if sync { 0 } else { self.lazy + 1 };
                self.well = self.well.saturating_add(1);
                if self.well == 300 {
                    self.cap = self.limits.max_bytes;
                }
                Ok(())
            }
            Err(error) => {
                match &error {
                    StoreError::Damaged { .. } => self.lost = true,
                    StoreError::Full { .. } => {
                        // Nothing more may be added than goes: pages given up inside the file are used again. A file
                        // that is small already is not what fills the disk.
                        let used = used_bytes(&self.file.conn).unwrap_or(self.cap);
                        self.cap = self.cap.min(used - used / 16).max(self.limits.max_bytes / 4);
                        self.well = 0;
                    }
                    _ => {}
                }
                Err(error)
            }
        }
    }

    fn has_chores(&self) -> bool {
        let file = &self.file;
        file.job.is_some()
            || file.cursors_moved
            || file.deletable() >= file.first_id
            || file.tail_since.is_some_and(|since| self.mono.since(since) >= COMPACT_AFTER)
    }

    fn transact(&mut self, held: &[Work], sync: bool) -> Result<(), StoreError> {
        let err = sqlite;
        self.file.conn.pragma_update(None, "synchronous", if sync { "FULL" } else { "NORMAL" }).map_err(err)?;
        self.file.conn.execute_batch("BEGIN IMMEDIATE").map_err(err)?;
        let mut changes = Changes { newest: self.newest, mono: self.mono, ..Changes::default() };
        let result = self.fill(held, &mut changes).and_then(|done| {
            self.file.conn.execute_batch("COMMIT").map_err(sqlite)?;
            Ok(done)
        });
        let (next, dropped) = match result {
            Ok(done) => done,
            Err(error) => {
                // SQLite may have rolled back by itself; then there is nothing to roll back.
                let _ = self.file.conn.execute_batch("ROLLBACK");
                if !self.encoder.is_empty() {
                    self.encoder.finish();
                }
                for (ix, _) in changes.new_numbers {
                    self.numbers[ix] = 0;
                }
                return Err(error);
            }
        };
        let appended: u64 = changes.rows.iter().map(|row| row.1).sum();
        let gaps = match dropped {
            0 => None,
            _ => self.file.gaps().ok(),
        };
        let file = &mut self.file;
        (file.first_id, file.queued, file.queue_bytes) = (next.first_id, next.queued, next.queue_bytes);
        file.backlogs = next.backlogs;
        file.next_id = next.next_id;
        file.cursors_moved = false;
        if let Some(job) = &mut file.job {
            job.next = next.job_next;
            if job.next >= job.cells.len() {
                file.compacted = job.up_to;
                file.job = None;
            }
        }
        if !changes.tail.is_empty() {
            file.tail_since.get_or_insert(changes.mono);
            file.tail.append(&mut changes.tail);
        }
        (self.newest, self.mono) = (changes.newest, changes.mono);
        if file.job.is_none()
            && (file.tail.len() >= COMPACT_AT
                || file.tail_since.is_some_and(|since| self.mono.since(since) >= COMPACT_AFTER))
        {
            let mut cells = std::mem::take(&mut file.tail);
            file.tail_since = None;
            cells.sort_by_key(|(point, _)| *point);
            file.job = Some(Job { cells, next: 0, up_to: file.next_id - 1 });
        }
        let shared = &self.shared;
        shared.stored.fetch_add(appended, Ordering::Relaxed);
        shared.shed.fetch_add(changes.unknown, Ordering::Relaxed);
        shared.dropped.fetch_add(dropped, Ordering::Relaxed);
        shared.commits.fetch_add(1, Ordering::Relaxed);
        shared.synced.fetch_add(u64::from(sync), Ordering::Relaxed);
        shared.queued.store(file.queued, Ordering::Relaxed);
        let mut forwarding = shared.forwarding();
        forwarding.backlogs.clone_from(&file.backlogs);
        if let Some((gaps, newest)) = gaps {
            (forwarding.gaps, forwarding.newest_gaps) = (gaps, newest);
        }
        drop(forwarding);
        shared.bytes.store(next.bytes, Ordering::Relaxed);
        if appended > 0 {
            shared.committed.send_replace(file.next_id - 1);
        }
        Ok(())
    }

    /// Everything inside the transaction. Gives what holds after it, and how many readings were dropped untaken.
    fn fill(&mut self, held: &[Work], changes: &mut Changes) -> Result<(Next, u64), StoreError> {
        let mut next = Next {
            first_id: self.file.first_id,
            next_id: self.file.next_id,
            queued: self.file.queued,
            queue_bytes: self.file.queue_bytes,
            backlogs: self.file.backlogs.clone(),
            job_next: self.file.job.as_ref().map_or(0, |job| job.next),
            bytes: 0,
        };
        self.append(held, changes, &mut next)?;
        let oldest = Wall::from_micros(self.oldest(changes.newest));
        unusable::write(&self.file.conn, held.iter().flat_map(|work| &work.unusable), oldest, self.cap)
            .map_err(sqlite)?;
        let slice = COMPACT_SLICE.max(2 * changes.tail.len());
        let compacting = self.compact(slice, &mut next)?;
        self.write_cursors()?;
        self.file.count_taken(&mut next.backlogs)?;
        self.file.forget_taken(&mut next, compacting)?;
        let dropped = self.keep_bounds(&mut next, changes.newest)?;
        self.file.find_oldest(&mut next.backlogs)?;
        self.file
            .conn
            .prepare_cached("UPDATE progress SET next_id = ?1, compacted = ?2, compacting = ?3, next_point = ?4")
            .and_then(|mut sql| {
                let (up_to, point) = compacting.point.map_or((0, 0), |point| (compacting.up_to, point));
                sql.execute(params![next.next_id, compacting.compacted, up_to, point])
            })
            .map_err(sqlite)?;
        Ok((next, dropped))
    }

    fn append(&mut self, held: &[Work], changes: &mut Changes, next: &mut Next) -> Result<(), StoreError> {
        let mut span: Option<(i64, i64)> = None;
        for sample in held.iter().flat_map(|work| &work.samples) {
            let ix = sample.point.0 as usize;
            let number = match self.numbers.get(ix) {
                Some(number) if *number != 0 => *number,
                _ => match self.points.get(ix) {
                    Some(point) => {
                        let number = number_of(&self.file.conn, point)?;
                        if self.numbers.len() <= ix {
                            self.numbers.resize(self.points.len(), 0);
                        }
                        self.numbers[ix] = number;
                        changes.new_numbers.push((ix, number));
                        number
                    }
                    None => {
                        changes.unknown += 1;
                        continue;
                    }
                },
            };
            let time = sample.time.micros();
            self.encoder.push(number, time, sample.value.as_ref(), sample.quality);
            span = Some(span.map_or((time, time), |(first, last)| (first.min(time), last.max(time))));
            if let Some(cell) = cell_of(time, sample.value.as_ref(), sample.quality) {
                changes.tail.push((number, cell));
            }
            changes.newest = changes.newest.max(sample.received.wall);
            changes.mono = changes.mono.max(sample.received.mono);
            if self.encoder.len() >= BATCH_MAX {
                self.put_row(&mut span, changes, next)?;
            }
        }
        if !self.encoder.is_empty() {
            self.put_row(&mut span, changes, next)?;
        }
        Ok(())
    }

    fn put_row(
        &mut self,
        span: &mut Option<(i64, i64)>,
        changes: &mut Changes,
        next: &mut Next,
    ) -> Result<(), StoreError> {
        let samples = self.encoder.len() as u64;
        let body = self.encoder.finish();
        let (first, last) = span.take().unwrap_or_default();
        self.file
            .conn
            .prepare_cached("INSERT INTO queue (id, samples, first, last, body) VALUES (?1, ?2, ?3, ?4, ?5)")
            .and_then(|mut sql| sql.execute(params![next.next_id, samples as i64, first, last, body]))
            .map_err(sqlite)?;
        changes.rows.push((next.next_id, samples, body.len() as u64));
        next.next_id += 1;
        next.queued += samples;
        next.queue_bytes += body.len() as u64;
        for backlog in &mut next.backlogs {
            backlog.queued += samples;
            backlog.bytes += body.len() as u64;
        }
        Ok(())
    }

    /// Moves about `budget` readings of the running compaction into chunks, whole groups of points only.
    fn compact(&self, budget: usize, next: &mut Next) -> Result<Compacting, StoreError> {
        let Some(job) = &self.file.job else {
            return Ok(Compacting { compacted: self.file.compacted, up_to: 0, point: None });
        };
        let end = job.cells.len().min(next.job_next + budget);
        while next.job_next < end {
            let left = &job.cells[next.job_next..];
            let group = left[0].0 / GROUP;
            let run = left.partition_point(|(point, _)| point / GROUP <= group);
            put_chunks(&self.file.conn, group, &left[..run])?;
            next.job_next += run;
        }
        Ok(match job.cells.get(next.job_next) {
            Some((point, _)) => Compacting { compacted: self.file.compacted, up_to: job.up_to, point: Some(*point) },
            None => Compacting { compacted: job.up_to, up_to: job.up_to, point: None },
        })
    }

    fn write_cursors(&self) -> Result<(), StoreError> {
        for (consumer, Cursor { id, .. }) in &self.file.cursors {
            self.file
                .conn
                .prepare_cached("UPDATE cursors SET id = ?2 WHERE consumer = ?1 AND id <> ?2")
                .and_then(|mut sql| sql.execute(params![&**consumer, id]))
                .map_err(sqlite)?;
        }
        Ok(())
    }

    /// Microseconds: what is older than this need not be kept.
    fn oldest(&self, newest: Wall) -> i64 {
        newest.micros().saturating_sub(i64::try_from(self.limits.keep.as_micros()).unwrap_or(i64::MAX))
    }

    fn keep_bounds(&self, next: &mut Next, newest: Wall) -> Result<u64, StoreError> {
        let conn = &self.file.conn;
        // By age. A clock that jumps ahead makes this run too early, but never more than so many chunks a commit.
        let oldest = self.oldest(newest);
        conn.prepare_cached(
            "DELETE FROM chunks WHERE id IN (SELECT id FROM chunks ORDER BY id LIMIT 64) AND last < ?1",
        )
        .and_then(|mut sql| sql.execute([oldest]))
        .map_err(sqlite)?;
        let mut dropped = 0;
        let mut deleted = 0;
        loop {
            next.bytes = used_bytes(conn)?;
            if next.bytes <= self.cap || deleted >= DELETE_MAX {
                return Ok(dropped);
            }
            let queue_first = next.queue_bytes > self.cap / 2;
            if queue_first || drop_chunks(conn)? == 0 {
                let Some(lost) = self.file.drop_oldest(next)? else { return Ok(dropped) };
                dropped += lost;
            }
            deleted += 8;
        }
    }

    /// A damaged file in the middle of a run: aside with it, and on with a new one.
    fn start_over(&mut self) -> Result<(), StoreError> {
        // Closes the connection, so that its WAL is complete before the files move.
        self.file.conn = Connection::open_in_memory().map_err(sqlite)?;
        let bad = set_aside(&self.dir.join(FILE), self.newest).map_err(|error| StoreError::io(FILE, &error))?;
        let (mut file, _) = QueueFile::open(&self.dir, &self.consumers, self.newest)?;
        for (backlog, before) in file.backlogs.iter_mut().zip(&self.file.backlogs) {
            backlog.dropped = before.dropped;
        }
        self.shared.show(file.forwarding()?);
        // Readers go on from where they are, so ids go on, too.
        let next_id = file.next_id.max(self.file.next_id);
        self.file = QueueFile { next_id, first_id: next_id, compacted: next_id - 1, ..file };
        self.numbers.clear();
        self.lost = false;
        self.shared.generation.fetch_add(1, Ordering::Release);
        tracing::error!(set_aside = %bad.display(), "The database of readings was damaged while running. anmin set it aside and started a new one; no alarm is lost by that.");
        Ok(())
    }

    /// Reads back what the last run had queued but not yet sorted into history.
    fn recover_tail(&mut self) -> Result<(), StoreError> {
        let file = &mut self.file;
        let (up_to, next_point): (i64, u32) = file
            .conn
            .query_row("SELECT compacting, next_point FROM progress", [], |row| Ok((row.get(0)?, row.get(1)?)))
            .map_err(sqlite)?;
        let mut job = Vec::new();
        {
            let mut sql = file.conn.prepare("SELECT id, body FROM queue WHERE id > ?1 ORDER BY id").map_err(sqlite)?;
            let mut rows = sql.query([file.compacted]).map_err(sqlite)?;
            while let Some(row) = rows.next().map_err(sqlite)? {
                let id: i64 = row.get(0).map_err(sqlite)?;
                let body = row.get_ref(1).and_then(|body| Ok(body.as_blob()?)).map_err(sqlite)?;
                let Ok(samples) = column::decode_batch(body) else { continue };
                let cells = samples
                    .iter()
                    .filter_map(|s| Some((s.point, cell_of(s.time.micros(), s.value.as_ref(), s.quality)?)));
                if id > up_to {
                    file.tail.extend(cells);
                } else {
                    job.extend(cells.filter(|(point, _)| *point >= next_point));
                }
            }
        }
        if up_to > 0 {
            job.sort_by_key(|(point, _)| *point);
            file.job = Some(Job { cells: job, next: 0, up_to });
        }
        Ok(())
    }
}

/// What holds once the running transaction is committed.
struct Next {
    first_id: i64,
    next_id: i64,
    queued: u64,
    queue_bytes: u64,
    backlogs: Vec<Backlog>,
    job_next: usize,
    bytes: u64,
}

/// How far compaction is within the running transaction.
#[derive(Clone, Copy)]
struct Compacting {
    compacted: i64,
    up_to: i64,
    /// The first point whose readings up to `up_to` are not in chunks yet.
    point: Option<u32>,
}

impl QueueFile {
    fn open(dir: &Path, consumers: &[Arc<str>], now: Wall) -> Result<(Self, Vec<Text>), StoreError> {
        let path = dir.join(FILE);
        match Self::open_file(&path, consumers) {
            Err(StoreError::Damaged { why, .. }) => {
                let bad = set_aside(&path, now).map_err(|error| StoreError::io(FILE, &error))?;
                let shown = bad.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                tracing::error!(file = FILE, set_aside = %shown, why = %why, "The database of readings is damaged. anmin set it aside and started a new one; no alarm is lost by that.");
                let note = Text {
                    zh: format!(
                        "{FILE} 已损坏，已另存为 {shown}，并已新建；历史数据和待转发数据不在新文件中，报警记录不受影响"
                    ),
                    en: format!(
                        "{FILE} was damaged, is kept as {shown} and begins anew: history and readings not yet forwarded are in the old file, alarms are not affected"
                    ),
                };
                Ok((Self::open_file(&path, consumers)?, vec![note]))
            }
            other => other.map(|file| (file, Vec::new())),
        }
    }

    /// In the place of a file that is not there yet.
    fn nowhere(consumers: &[Arc<str>]) -> Result<Self, StoreError> {
        Ok(Self {
            conn: Connection::open_in_memory().map_err(sqlite)?,
            next_id: 1,
            first_id: 1,
            queued: 0,
            queue_bytes: 0,
            cursors: HashMap::new(),
            backlogs: consumers.iter().map(Backlog::none).collect(),
            cursors_moved: false,
            compacted: 0,
            tail: Vec::new(),
            tail_since: None,
            job: None,
        })
    }

    fn open_file(path: &Path, consumers: &[Arc<str>]) -> Result<Self, StoreError> {
        if fs::metadata(path).is_ok_and(|meta| meta.is_dir()) {
            return Err(StoreError::Damaged { file: FILE.to_owned(), why: "it is a folder".to_owned() });
        }
        let mut conn = Connection::open(path).map_err(sqlite)?;
        conn.set_prepared_statement_cache_capacity(32);
        conn.busy_timeout(Duration::from_secs(2)).map_err(sqlite)?;
        conn.pragma_update(None, "page_size", 8192).map_err(sqlite)?;
        conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0)).map_err(sqlite)?;
        conn.pragma_update(None, "cache_size", -4096).map_err(sqlite)?;
        migrate(&mut conn, FILE, MIGRATIONS)?;
        let (mut next_id, compacted): (i64, i64) = conn
            .query_row("SELECT next_id, compacted FROM progress", [], |row| Ok((row.get(0)?, row.get(1)?)))
            .map_err(sqlite)?;
        let (first_id, last_id, queued, queue_bytes): (Option<i64>, Option<i64>, i64, i64) = conn
            .query_row(
                "SELECT min(id), max(id), coalesce(sum(samples), 0), coalesce(sum(length(body)), 0) FROM queue",
                [],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
            )
            .map_err(sqlite)?;
        next_id = next_id.max(last_id.unwrap_or(0) + 1);
        let first_id = first_id.unwrap_or(next_id);
        let known: Vec<(String, i64)> = conn
            .prepare("SELECT consumer, id FROM cursors")
            .and_then(|mut sql| sql.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect())
            .map_err(sqlite)?;
        let mut cursors = HashMap::new();
        let mut backlogs = Vec::new();
        for consumer in consumers {
            let taken = known.iter().find(|(name, _)| **name == **consumer).map_or(first_id - 1, |(_, id)| *id);
            cursors.insert(Arc::clone(consumer), Cursor { id: taken, ahead: 0 });
            let (queued, bytes) = sums_in(&conn, taken, i64::MAX)?;
            backlogs.push(Backlog { queued, bytes, taken, ..Backlog::none(consumer) });
        }
        let tx = conn.transaction().map_err(sqlite)?;
        tx.execute("DELETE FROM cursors", []).map_err(sqlite)?;
        for (consumer, Cursor { id, .. }) in &cursors {
            tx.execute("INSERT INTO cursors (consumer, id) VALUES (?1, ?2)", params![&**consumer, id])
                .map_err(sqlite)?;
        }
        tx.commit().map_err(sqlite)?;
        let mut file = Self {
            conn,
            next_id,
            first_id,
            queued: queued as u64,
            queue_bytes: queue_bytes as u64,
            cursors,
            backlogs: Vec::new(),
            cursors_moved: false,
            compacted,
            tail: Vec::new(),
            tail_since: None,
            job: None,
        };
        file.find_oldest(&mut backlogs)?;
        file.backlogs = backlogs;
        Ok(file)
    }

    /// The last id that every consumer has taken; without consumers nobody waits for any.
    fn taken(&self) -> i64 {
        self.cursors.values().map(|cursor| cursor.id).min().unwrap_or(i64::MAX)
    }

    /// The last id that every consumer has taken and that is in history.
    fn deletable(&self) -> i64 {
        self.taken().min(self.compacted)
    }

    /// What the consumers have taken since the last commit waits no longer.
    fn count_taken(&self, backlogs: &mut [Backlog]) -> Result<(), StoreError> {
        for backlog in backlogs {
            let Some(cursor) = self.cursors.get(&backlog.consumer) else { continue };
            backlog.ahead = cursor.ahead;
            if cursor.id > backlog.taken {
                let (samples, bytes) = sums_in(&self.conn, backlog.taken, cursor.id)?;
                backlog.leave(samples, bytes);
                backlog.taken = cursor.id;
            }
        }
        Ok(())
    }

    /// Looks for the oldest readings where they are no longer those of the last commit.
    fn find_oldest(&self, backlogs: &mut [Backlog]) -> Result<(), StoreError> {
        for backlog in backlogs.iter_mut().filter(|backlog| backlog.oldest.is_none() && backlog.queued > 0) {
            backlog.oldest = self
                .conn
                .prepare_cached("SELECT first FROM queue WHERE id > ?1 ORDER BY id LIMIT 1")
                .and_then(|mut sql| sql.query_row([backlog.taken], |row| row.get(0)).optional())
                .map(|first| first.map(Wall::from_micros))
                .map_err(sqlite)?;
        }
        Ok(())
    }

    fn forwarding(&self) -> Result<Forwarding, StoreError> {
        let (gaps, newest_gaps) = self.gaps()?;
        Ok(Forwarding { backlogs: self.backlogs.clone(), gaps, newest_gaps })
    }

    /// How many gaps there are, and the newest of them.
    fn gaps(&self) -> Result<(u64, Vec<Gap>), StoreError> {
        let count: i64 = self.conn.query_row("SELECT count(*) FROM gaps", [], |row| row.get(0)).map_err(sqlite)?;
        let newest = self
            .conn
            .prepare_cached("SELECT first, last, samples FROM gaps ORDER BY last_id DESC LIMIT ?1")
            .and_then(|mut sql| sql.query_map([GAPS_SHOWN], Gap::read)?.collect())
            .map_err(sqlite)?;
        Ok((count as u64, newest))
    }

    fn forget_taken(&self, next: &mut Next, compacting: Compacting) -> Result<(), StoreError> {
        let taken = self.taken().min(compacting.compacted);
        if taken >= next.first_id {
            self.delete_up_to(next, taken.min(next.first_id.saturating_add(DELETE_MAX)))?;
        }
        Ok(())
    }

    /// Gives up a few of the oldest batches; `None` when the queue is empty, else the readings nobody will get.
    fn drop_oldest(&self, next: &mut Next) -> Result<Option<u64>, StoreError> {
        let up_to = (next.first_id + 7).min(next.next_id - 1);
        if up_to < next.first_id {
            return Ok(None);
        }
        let from = next.first_id;
        let taken = self.taken();
        let lost: Option<(i64, i64, i64)> = self
            .conn
            .prepare_cached(
                "SELECT coalesce(sum(samples), 0), min(first), max(last) FROM queue WHERE id > ?1 AND id <= ?2 HAVING count(*) > 0",
            )
            .and_then(|mut sql| {
                sql.query_row([taken.max(from - 1), up_to], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()
            })
            .map_err(sqlite)?;
        if let Some((samples, first, last)) = lost {
            // One row for an unbroken stretch.
            let joined = self
                .conn
                .prepare_cached(
                    "UPDATE gaps SET last_id = ?2, samples = samples + ?3, first = min(first, ?4), last = max(last, ?5) WHERE last_id = ?1 - 1",
                )
                .and_then(|mut sql| sql.execute(params![from, up_to, samples, first, last]))
                .map_err(sqlite)?;
            if joined == 0 {
                self.conn
                    .prepare_cached(
                        "INSERT OR REPLACE INTO gaps (first_id, last_id, samples, first, last) VALUES (?1, ?2, ?3, ?4, ?5)",
                    )
                    .and_then(|mut sql| sql.execute(params![from, up_to, samples, first, last]))
                    .map_err(sqlite)?;
            }
        }
        for backlog in &mut next.backlogs {
            let (samples, bytes) = sums_in(&self.conn, backlog.taken.max(from - 1), up_to)?;
            if samples > 0 {
                backlog.leave(samples, bytes);
                backlog.dropped += samples;
            }
        }
        self.delete_up_to(next, up_to)?;
        Ok(Some(lost.map_or(0, |(samples, ..)| samples as u64)))
    }

    fn delete_up_to(&self, next: &mut Next, up_to: i64) -> Result<(), StoreError> {
        let (samples, bytes): (i64, i64) = self
            .conn
            .prepare_cached(
                "SELECT coalesce(sum(samples), 0), coalesce(sum(length(body)), 0) FROM queue WHERE id <= ?1",
            )
            .and_then(|mut sql| sql.query_row([up_to], |row| Ok((row.get(0)?, row.get(1)?))))
            .map_err(sqlite)?;
        self.conn
            .prepare_cached("DELETE FROM queue WHERE id <= ?1")
            .and_then(|mut sql| sql.execute([up_to]))
            .map_err(sqlite)?;
        next.queued = next.queued.saturating_sub(samples as u64);
        next.queue_bytes = next.queue_bytes.saturating_sub(bytes as u64);
        next.first_id = (up_to + 1).min(next.next_id);
        Ok(())
    }
}

/// Makes the new file `path` of what is sound in `bad`: points, batches, chunks, how far each consumer is, and what nobody
/// could read. Gives how
/// many batches and chunks it holds, and how many were left out.
pub(super) fn rebuild(bad: &Path, path: &Path) -> Result<(u64, u64), StoreError> {
    let new = QueueFile::open_file(path, &[])?.conn;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let Ok(old) = Connection::open_with_flags(bad, flags) else { return Ok((0, 0)) };
    let tx = new.unchecked_transaction().map_err(sqlite)?;
    let any = |_: &[SqlValue]| true;
    for (table, key, columns) in
        [("points", "number", 10), ("cursors", "consumer", 2), ("gaps", "last_id", 5), ("progress", "one", 5)]
    {
        copy_sound(&old, &tx, table, key, columns, &any)?;
    }
    let points: HashSet<i64> = tx
        .prepare("SELECT number FROM points")
        .and_then(|mut sql| sql.query_map([], |row| row.get(0))?.collect())
        .map_err(sqlite)?;
    let batch = |values: &[SqlValue]| match values {
        [_, SqlValue::Integer(samples), _, _, SqlValue::Blob(body)] => column::decode_batch(body).is_ok_and(|read| {
            read.len() as i64 == *samples && read.iter().all(|one| points.contains(&i64::from(one.point)))
        }),
        _ => false,
    };
    let chunk = |values: &[SqlValue]| match values {
        [_, SqlValue::Integer(point), _, _, SqlValue::Integer(samples), SqlValue::Blob(body), _, _, members] => {
            let members = match members {
                SqlValue::Blob(members) => Some(&members[..]),
                _ => None,
            };
            let point = u32::try_from(*point).unwrap_or(0);
            column::decode_shared(body, members, point, &mut Vec::new()).is_ok_and(|owners| {
                owners.iter().map(|(_, count)| count).sum::<usize>() as i64 == *samples
                    && owners.iter().all(|(point, _)| points.contains(&i64::from(*point)))
            })
        }
        _ => false,
    };
    let batches = copy_sound(&old, &tx, "queue", "id", 5, &batch)?;
    let chunks = copy_sound(&old, &tx, "chunks", "id", 9, &chunk)?;
    copy_sound(&old, &tx, "unusable", "n", 10, &unusable::is_sound)?;
    copy_sound(&old, &tx, "unusable_counts", "source, why", 3, &any)?;
    unusable::measure(&tx).map_err(sqlite)?;
    tx.commit().map_err(sqlite)?;
    Ok((batches.0 + chunks.0, batches.1 + chunks.1))
}

/// Copies the rows of a table that are sound; gives how many were and how many were not. It walks from both ends: a page
/// that cannot be read stops each walk where it stands.
fn copy_sound(
    old: &Connection,
    new: &Connection,
    table: &str,
    key: &str,
    columns: usize,
    sound: &dyn Fn(&[SqlValue]) -> bool,
) -> Result<(u64, u64), StoreError> {
    let (mut kept, mut lost) = (0, 0);
    let places = (1..=columns).map(|n| format!("?{n}")).collect::<Vec<_>>().join(", ");
    let mut put = new.prepare(&format!("INSERT OR REPLACE INTO {table} VALUES ({places})")).map_err(sqlite)?;
    for order in ["", "DESC"] {
        let Ok(mut sql) = old.prepare(&format!("SELECT * FROM {table} ORDER BY {key} {order}")) else { continue };
        let Ok(mut rows) = sql.query([]) else { continue };
        loop {
            let row = match rows.next() {
                Ok(Some(row)) => row,
                Ok(None) => return Ok((kept, lost)),
                Err(_) => break,
            };
            match (0..columns).map(|n| row.get(n)).collect::<rusqlite::Result<Vec<SqlValue>>>() {
                Ok(values) if sound(&values) => {
                    put.execute(rusqlite::params_from_iter(&values)).map_err(sqlite)?;
                    kept += 1;
                }
                _ => lost += 1,
            }
        }
    }
    Ok((kept, lost))
}

/// Readings in the queue behind id `after`, up to `up_to`, and their bytes.
pub(super) fn sums_in(conn: &Connection, after: i64, up_to: i64) -> Result<(u64, u64), StoreError> {
    conn.prepare_cached(
        "SELECT coalesce(sum(samples), 0), coalesce(sum(length(body)), 0) FROM queue WHERE id > ?1 AND id <= ?2",
    )
    .and_then(|mut sql| {
        sql.query_row([after, up_to], |row| Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64)))
    })
    .map_err(sqlite)
}

pub(super) fn cell_of(time: i64, value: Option<&Value>, quality: Quality) -> Option<Cell> {
    let code = column::quality_code(quality);
    match value {
        Some(Value::Number(value)) => Some(Cell { time, value: *value, code }),
        Some(Value::Flag(flag)) => Some(Cell { time, value: f64::from(u8::from(*flag)), code: code | FLAG }),
        Some(Value::Text(_)) => None,
        None => Some(Cell { time, value: 0.0, code: code | NO_VALUE }),
    }
}

/// The point's number in the file, given to it now if it has none; its names are brought up to date.
fn number_of(conn: &Connection, point: &NewPoint) -> Result<u32, StoreError> {
    let place = &*point.place;
    let names = [
        point.kind.as_str(),
        point.device.as_str(),
        &place.area,
        &place.grid,
        &place.building,
        &place.unit,
        &place.floor,
        &place.room,
    ];
    let known = conn
        .prepare_cached(
            "SELECT number, kind, device, area, grid, building, unit, floor, room FROM points WHERE id = ?1",
        )
        .and_then(|mut sql| {
            sql.query_row([point.id.as_str()], |row| {
                let mut same = true;
                for (at, name) in names.iter().enumerate() {
                    same &= row.get_ref(at + 1)?.as_str()? == *name;
                }
                Ok((row.get::<_, u32>(0)?, same))
            })
            .optional()
        })
        .map_err(sqlite)?;
    if let Some((number, true)) = known {
        return Ok(number);
    }
    let [kind, device, area, grid, building, unit, floor, room] = names;
    conn.prepare_cached(
        "INSERT INTO points (id, kind, device, area, grid, building, unit, floor, room)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT (id) DO UPDATE SET kind = ?2, device = ?3, area = ?4, grid = ?5, building = ?6, unit = ?7, floor = ?8, room = ?9
         RETURNING number",
    )
    .and_then(|mut sql| {
        sql.query_row(
            params![point.id.as_str(), kind, device, area, grid, building, unit, floor, room],
            |row| row.get(0),
        )
    })
    .map_err(sqlite)
}

/// Writes down the readings of one group, which are sorted by point.
fn put_chunks(conn: &Connection, group: u32, mut cells: &[(u32, Cell)]) -> Result<(), StoreError> {
    while let [(point, cell), ..] = cells {
        let (mut first, mut last) = (cell.time, cell.time);
        let fits = cells.iter().take(CHUNK_MAX).take_while(|(_, cell)| {
            (first, last) = (first.min(cell.time), last.max(cell.time));
            last.saturating_sub(first) < CHUNK_SPAN
        });
        let (piece, rest) = cells.split_at(fits.count().max(1));
        cells = rest;
        let (first, last) = piece
            .iter()
            .fold((cell.time, cell.time), |(first, last), (_, cell)| (first.min(cell.time), last.max(cell.time)));
        let last_point = piece.last().map_or(*point, |(point, _)| *point);
        let members = (last_point != *point).then(|| column::encode_members(piece));
        conn.prepare_cached(
            "INSERT INTO chunks (grp, point, last_point, first, last, samples, members, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )
        .and_then(|mut sql| {
            let body = column::encode_chunk(piece);
            sql.execute(params![group, point, last_point, first, last, piece.len() as i64, members, body])
        })
        .map_err(sqlite)?;
    }
    Ok(())
}

fn drop_chunks(conn: &Connection) -> Result<usize, StoreError> {
    conn.prepare_cached("DELETE FROM chunks WHERE id IN (SELECT id FROM chunks ORDER BY id LIMIT 8)")
        .and_then(|mut sql| sql.execute([]))
        .map_err(sqlite)
}

fn used_bytes(conn: &Connection) -> Result<u64, StoreError> {
    let get = |pragma: &str| -> Result<u64, StoreError> {
        let value: i64 = conn.pragma_query_value(None, pragma, |row| row.get(0)).map_err(sqlite)?;
        Ok(value as u64)
    };
    Ok((get("page_count")? - get("freelist_count")?) * get("page_size")?)
}

pub(super) fn sqlite(error: rusqlite::Error) -> StoreError {
    StoreError::sqlite(FILE, error)
}

#[cfg(test)]
#[path = "readings_tests.rs"]
pub(super) mod tests;
