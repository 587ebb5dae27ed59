//! What reads readings.db: a consumer's view of the queue ([`Reader`]) and the history for charts ([`History`]).
//!
//! Each has a connection of its own, never writes, and follows the writer to a new file. What stands in the tables is
//! said in [`super::readings`].

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anmin_sensors::reading::{Quality, Value};
use anmin_sensors::time::Wall;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row, params};
use tokio::sync::watch;

use super::StoreError;
use super::column::{self, Cell, ColumnError, FLAG, NO_VALUE, StoredSample};
use super::readings::{CHUNK_SPAN, FILE, GROUP, Shared, cell_of, sqlite, sums_in};
use super::unusable;

/// The names of a point as the file has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    pub point: String,
    pub kind: String,
    pub device: String,
    pub area: String,
    pub grid: String,
    pub building: String,
    pub unit: String,
    pub floor: String,
    pub room: String,
}

/// When, what, and how good; flags are 0 and 1.
pub type Raw = (Wall, Option<f64>, Quality);

/// Some readings from the queue.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Taken {
    /// Give this to [`Reader::forwarded`] once they have arrived, and to [`Reader::next`] for the ones behind.
    pub up_to: i64,
    pub samples: Vec<StoredSample>,
}

impl Taken {
    /// The batch with the next id, or why there is nothing of it.
    fn add(&mut self, id: i64, batch: Result<Vec<StoredSample>, impl std::fmt::Display>, damage: &Damage) -> u64 {
        self.up_to = id;
        match batch {
            Ok(samples) if self.samples.is_empty() => self.samples = samples,
            Ok(samples) => self.samples.extend(samples),
            Err(error) => {
                if let Some(so_far) = damage.next_of_batches() {
                    tracing::error!(id, %error, so_far, "A batch of readings is damaged and cannot be forwarded.");
                }
                return 1;
            }
        }
        0
    }
}

/// How often damage was met, by all that read one file. A bad page stays, and is met again whenever somebody looks there: the first
/// of each kind is worth a line, then whenever they have doubled.
#[derive(Debug, Default)]
pub(super) struct Damage {
    batches: AtomicU64,
    pages: AtomicU64,
    chunks: AtomicU64,
}

impl Damage {
    fn next_of_batches(&self) -> Option<u64> {
        Self::next(&self.batches)
    }

    fn next_of_pages(&self) -> Option<u64> {
        Self::next(&self.pages)
    }

    fn next_of_chunks(&self) -> Option<u64> {
        Self::next(&self.chunks)
    }

    /// How many there are with this one, where that is worth a line.
    fn next(count: &AtomicU64) -> Option<u64> {
        let so_far = count.fetch_add(1, Ordering::Relaxed) + 1;
        so_far.is_power_of_two().then_some(so_far)
    }
}

/// One consumer's view of the queue. Calls read the disk: not for an async task's own thread.
#[derive(Debug)]
pub struct Reader {
    view: View,
    consumer: Arc<str>,
    shared: Arc<Shared>,
    committed: watch::Receiver<i64>,
    damaged: u64,
}

impl Reader {
    pub(super) fn open(dir: &Path, consumer: &Arc<str>, shared: &Arc<Shared>) -> Self {
        Self {
            view: View::following(dir, shared),
            consumer: Arc::clone(consumer),
            shared: Arc::clone(shared),
            committed: shared.committed.subscribe(),
            damaged: 0,
        }
    }

    /// Another view for the same consumer, with a connection of its own.
    pub fn again(&self) -> Self {
        Self::open(&self.view.dir, &self.consumer, &self.shared)
    }

    /// Up to which id this consumer had taken when the database was last written.
    pub fn cursor(&mut self) -> Result<i64, StoreError> {
        self.view
            .conn()?
            .prepare_cached("SELECT id FROM cursors WHERE consumer = ?1")
            .and_then(|mut sql| sql.query_row([&*self.consumer], |row| row.get(0)).optional())
            .map(|id| id.unwrap_or(0))
            .map_err(sqlite)
    }

    /// Readings in the queue behind `after`.
    pub fn behind(&mut self, after: i64) -> Result<u64, StoreError> {
        Ok(sums_in(self.view.conn()?, after, i64::MAX)?.0)
    }

    /// The next batches after `after` in order, until they hold `max_samples`; `None` when there are none. A batch is
    /// never split, so there may be some more. A batch whose bytes are damaged is passed over and counted.
    pub fn next(&mut self, after: i64, max_samples: usize) -> Result<Option<Taken>, StoreError> {
        self.next_within(after, i64::MAX, max_samples)
    }

    /// As [`Reader::next`], from the batches up to `last`.
    pub fn next_within(&mut self, after: i64, last: i64, max_samples: usize) -> Result<Option<Taken>, StoreError> {
        match self.in_order(after, last, max_samples) {
            Err(StoreError::Damaged { why, .. }) => self.one_by_one(after, last, max_samples, &why),
            taken => taken,
        }
    }

    fn in_order(&mut self, after: i64, last: i64, max_samples: usize) -> Result<Option<Taken>, StoreError> {
        let mut sql = self
            .view
            .conn()?
            .prepare_cached("SELECT id, body FROM queue WHERE id > ?1 AND id <= ?2 ORDER BY id")
            .map_err(sqlite)?;
        let mut rows = sql.query([after, last]).map_err(sqlite)?;
        let mut taken = Taken { up_to: after, samples: Vec::new() };
        while taken.samples.len() < max_samples
            && let Some(row) = rows.next().map_err(sqlite)?
        {
            let id = row.get(0).map_err(sqlite)?;
            let body = row.get_ref(1).and_then(|body| Ok(body.as_blob()?)).map_err(sqlite)?;
            self.damaged += taken.add(id, column::decode_batch(body), &self.shared.damage);
        }
        Ok((taken.up_to > after).then_some(taken))
    }

    /// Where a page is damaged, by the ids, which follow each other: what cannot be found or read is passed over. So one bad
    /// page costs the batches on it and never stands before those behind it.
    fn one_by_one(
        &mut self,
        after: i64,
        last: i64,
        max_samples: usize,
        why: &str,
    ) -> Result<Option<Taken>, StoreError> {
        if let Some(so_far) = self.shared.damage.next_of_pages() {
            tracing::error!(%why, after, so_far, "The queue of readings is damaged here; what can be read of it is looked for.");
        }
        let last = last.min(*self.committed.borrow());
        let mut taken = Taken { up_to: after, samples: Vec::new() };
        for id in after + 1..=last {
            if taken.samples.len() >= max_samples {
                break;
            }
            let mut sql = self.view.conn()?.prepare_cached("SELECT body FROM queue WHERE id = ?1").map_err(sqlite)?;
            match sql.query_row([id], |row| row.get::<_, Vec<u8>>(0)).optional().map_err(sqlite) {
                Ok(Some(body)) => self.damaged += taken.add(id, column::decode_batch(&body), &self.shared.damage),
                Ok(None) => taken.up_to = id,
                Err(error @ StoreError::Damaged { .. }) => {
                    self.damaged += taken.add(id, Err(error), &self.shared.damage)
                }
                Err(error) => return Err(error),
            }
        }
        Ok((taken.up_to > after).then_some(taken))
    }

    /// Everything up to `up_to` has arrived. Durable with the writer's next commit; after a crash before that the same
    /// readings are given out again.
    pub fn forwarded(&self, up_to: i64) {
        self.forwarded_with(up_to, 0);
    }

    /// As [`Reader::forwarded`], with so many of the readings behind `up_to`: they count as waiting no longer. After a
    /// crash they are given out again.
    pub fn forwarded_with(&self, up_to: i64, ahead: u64) {
        self.shared.set_cursor(&self.consumer, up_to, ahead);
    }

    /// Changes whenever the writer has committed; its value is the last id.
    pub fn committed(&self) -> watch::Receiver<i64> {
        self.committed.clone()
    }

    /// The names of the point with this number.
    pub fn label(&mut self, number: u32) -> Result<Option<Label>, StoreError> {
        self.view
            .conn()?
            .prepare_cached(
                "SELECT id, kind, device, area, grid, building, unit, floor, room FROM points WHERE number = ?1",
            )
            .and_then(|mut sql| sql.query_row([number], label).optional())
            .map_err(sqlite)
    }

    /// Batches that this reader passed over because their bytes are damaged.
    pub fn damaged(&self) -> u64 {
        self.damaged
    }
}

/// One column of a chart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    pub start: Wall,
    /// Readings with a value.
    pub count: u32,
    pub min: f64,
    pub max: f64,
    pub mean: f64,
    /// Readings of bad quality, with or without a value.
    pub bad: u32,
}

/// Readings that were dropped before they were forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    pub first: Wall,
    pub last: Wall,
    pub samples: u64,
}

impl Gap {
    /// From the columns `first`, `last`, `samples`.
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            first: Wall::from_micros(row.get(0)?),
            last: Wall::from_micros(row.get(1)?),
            samples: row.get::<_, i64>(2)? as u64,
        })
    }
}

/// The history of points, for charts. Calls read the disk: not for an async task's own thread.
#[derive(Debug)]
pub struct History(View);

impl History {
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let conn = Some(open_to_read(dir)?);
        Ok(Self(View { dir: dir.to_owned(), conn, shared: None, generation: 0, damage: Arc::default() }))
    }

    pub(super) fn following(dir: &Path, shared: &Arc<Shared>) -> Self {
        Self(View::following(dir, shared))
    }

    /// `from..to` cut into `buckets` equal parts; parts without a reading are left out. Flags count as 0 and 1. Values of
    /// bad quality are counted and left out of min, max and mean.
    pub fn buckets(&mut self, point: &str, from: Wall, to: Wall, buckets: usize) -> Result<Vec<Bucket>, StoreError> {
        let (start, end) = (from.micros(), to.micros());
        let width = end.saturating_sub(start).max(0).unsigned_abs().div_ceil(buckets.max(1) as u64).max(1);
        let mut all: Vec<Option<(Bucket, f64)>> = vec![None; buckets.max(1)];
        self.each(point, from, to, |cell| {
            let at = (cell.time.abs_diff(start) / width) as usize;
            let Some(slot) = all.get_mut(at) else { return };
            let (bucket, sum) = slot.get_or_insert_with(|| {
                let start = Wall::from_micros(start.saturating_add_unsigned(width * at as u64));
                (Bucket { start, count: 0, min: f64::INFINITY, max: f64::NEG_INFINITY, mean: 0.0, bad: 0 }, 0.0)
            });
            if matches!(column::quality_of(cell.code), Ok(Quality::Bad(_))) {
                bucket.bad += 1;
            } else if cell.code & NO_VALUE == 0 {
                bucket.count += 1;
                bucket.min = bucket.min.min(cell.value);
                bucket.max = bucket.max.max(cell.value);
                *sum += cell.value;
            }
        })?;
        Ok(all
            .into_iter()
            .flatten()
            .map(|(bucket, sum)| {
                if bucket.count == 0 {
                    Bucket { min: f64::NAN, max: f64::NAN, mean: f64::NAN, ..bucket }
                } else {
                    Bucket { mean: sum / f64::from(bucket.count), ..bucket }
                }
            })
            .collect())
    }

    /// Every reading of `from..to` in order of time; `None` where there was no value.
    pub fn raw(&mut self, point: &str, from: Wall, to: Wall) -> Result<Vec<(Wall, Option<f64>, Quality)>, StoreError> {
        let mut cells = Vec::new();
        self.each(point, from, to, |cell| cells.push(*cell))?;
        cells.sort_by_key(|cell| cell.time);
        Ok(cells
            .into_iter()
            .filter_map(|cell| {
                let quality = column::quality_of(cell.code).ok()?;
                Some((Wall::from_micros(cell.time), (cell.code & NO_VALUE == 0).then_some(cell.value), quality))
            })
            .collect())
    }

    /// The first `most` readings of `from..to` in order of time, and how many there are besides. Holds no more than these and one
    /// chunk, however many there are.
    pub fn first(&mut self, point: &str, from: Wall, to: Wall, most: usize) -> Result<(Vec<Raw>, u64), StoreError> {
        let (mut kept, mut left_out) = (Vec::new(), 0);
        if let Some((number, _)) = self.points(Some(point), None, None)?.into_iter().next() {
            self.stream(number, from, to, |sample| {
                if kept.len() < most {
                    let number = match sample.value {
                        Some(Value::Number(number)) => Some(number),
                        Some(Value::Flag(flag)) => Some(f64::from(u8::from(flag))),
                        _ => None,
                    };
                    kept.push((sample.time, number, sample.quality));
                } else {
                    left_out += 1;
                }
                true
            })?;
        }
        Ok((kept, left_out))
    }

    /// The points that the file knows with their numbers, in the order of their ids; each filter that is there must fit.
    pub fn points(
        &mut self,
        point: Option<&str>,
        device: Option<&str>,
        kind: Option<&str>,
    ) -> Result<Vec<(u32, Label)>, StoreError> {
        self.0
            .conn()?
            .prepare_cached(
                "SELECT id, kind, device, area, grid, building, unit, floor, room, number FROM points
                 WHERE (?1 IS NULL OR id = ?1) AND (?2 IS NULL OR device = ?2) AND (?3 IS NULL OR kind = ?3) ORDER BY id",
            )
            .and_then(|mut sql| sql.query_map(params![point, device, kind], |row| Ok((row.get(9)?, label(row)?)))?.collect())
            .map_err(sqlite)
    }

    /// Hands over every reading of a point in `from..to` in order of time, until `take` says false. Holds one chunk in
    /// memory and what is not in chunks yet, and no transaction while `take` is called: the writer's log does not grow
    /// behind a slow reader. Texts are not in history.
    pub fn stream(
        &mut self,
        number: u32,
        from: Wall,
        to: Wall,
        mut take: impl FnMut(StoredSample) -> bool,
    ) -> Result<(), StoreError> {
        let (from, to) = (from.micros(), to.micros());
        let (chunks, mut tail) = self.outline(number, from, to)?;
        tail.sort_by_key(|cell| cell.time);
        let (mut tail, mut sorted) = (VecDeque::from(tail), VecDeque::<Cell>::new());
        // What lies before the next chunk: no later chunk can hold anything earlier.
        let mut give = |sorted: &mut VecDeque<Cell>, before: i64| -> bool {
            loop {
                let times = [&*sorted, &tail].map(|cells| cells.front().map_or(i64::MAX, |cell| cell.time));
                if times[0].min(times[1]) >= before {
                    return true;
                }
                let cell = if times[0] <= times[1] { sorted.pop_front() } else { tail.pop_front() };
                let Some(cell) = cell else { return true };
                if (from..to).contains(&cell.time)
                    && let Some(sample) = sample_of(number, &cell)
                    && !take(sample)
                {
                    return false;
                }
            }
        };
        let mut cells = Vec::new();
        for (id, first) in chunks {
            if !give(&mut sorted, first) {
                return Ok(());
            }
            let chunk: Option<(Option<Vec<u8>>, Vec<u8>)> = self
                .0
                .conn()?
                .prepare_cached("SELECT members, body FROM chunks WHERE id = ?1")
                .and_then(|mut sql| sql.query_row([id], |row| Ok((row.get(0)?, row.get(1)?))).optional())
                .map_err(sqlite)?;
            match chunk.map(|(members, body)| own_cells(&body, members.as_deref(), number, &mut cells)) {
                // Too old by now, and gone.
                None => {}
                Some(Ok(own)) => sorted.extend(own),
                Some(Err(error)) => {
                    if let Some(so_far) = self.0.damage.next_of_chunks() {
                        tracing::error!(id, %error, so_far, "A chunk of history is damaged; what it held is left out.");
                    }
                }
            }
            sorted.make_contiguous().sort_by_key(|cell| cell.time);
        }
        give(&mut sorted, i64::MAX);
        Ok(())
    }

    /// Hands over every reading of `from..to` of all points in the order of their times, thousands at once, until `take`
    /// says false. Holds what overlaps in time in memory, about one compaction's readings, and no transaction while `take`
    /// is called. Texts are not in history.
    pub fn sweep(
        &mut self,
        from: Wall,
        to: Wall,
        mut take: impl FnMut(Vec<StoredSample>) -> bool,
    ) -> Result<(), StoreError> {
        let (from, to) = (from.micros(), to.micros());
        let within = |cell: &Cell| (from..to).contains(&cell.time);
        let (chunks, mut tail) = self.whole_outline(from, to)?;
        tail.retain(|(_, cell)| within(cell));
        let mut waits = tail.iter().map(|(_, cell)| cell.time).min();
        let (mut buffer, mut most) = (Vec::<(u32, Cell)>::new(), SWEPT_AT_ONCE);
        let mut cells = Vec::new();
        let ends = chunks.into_iter().map(|(id, first)| (Some(id), first)).chain([(None, i64::MAX)]);
        for (id, first) in ends {
            if waits.take_if(|earliest| *earliest < first).is_some() {
                buffer.append(&mut tail);
            }
            // No later chunk holds anything before the first of this one.
            if buffer.len() >= most || id.is_none() {
                buffer.sort_by_key(|(point, cell)| (cell.time, *point));
                let rest = buffer.split_off(buffer.partition_point(|(_, cell)| cell.time < first));
                let samples: Vec<_> = buffer.iter().filter_map(|(point, cell)| sample_of(*point, cell)).collect();
                buffer = rest;
                most = SWEPT_AT_ONCE.max(2 * buffer.len());
                if !samples.is_empty() && !take(samples) {
                    return Ok(());
                }
            }
            let Some(id) = id else { break };
            let chunk: Option<(u32, Option<Vec<u8>>, Vec<u8>)> = self
                .0
                .conn()?
                .prepare_cached("SELECT point, members, body FROM chunks WHERE id = ?1")
                .and_then(|mut sql| sql.query_row([id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional())
                .map_err(sqlite)?;
            // Too old by now, and gone.
            let Some((point, members, body)) = chunk else { continue };
            match column::decode_shared(&body, members.as_deref(), point, &mut cells) {
                Ok(owners) => {
                    let whose = owners.iter().flat_map(|(owner, count)| std::iter::repeat_n(*owner, *count));
                    buffer.extend(whose.zip(cells.drain(..)).filter(|(_, cell)| within(cell)));
                }
                Err(error) => {
                    if let Some(so_far) = self.0.damage.next_of_chunks() {
                        tracing::error!(id, %error, so_far, "A chunk of history is damaged; what it held is left out.");
                    }
                }
            }
        }
        Ok(())
    }

    /// All chunks that a range touches, in the order of their first times, and what is not in chunks yet, as of one moment.
    #[expect(clippy::type_complexity, reason = "two lists for one caller")]
    fn whole_outline(&mut self, from: i64, to: i64) -> Result<(Vec<(i64, i64)>, Vec<(u32, Cell)>), StoreError> {
        let tx = self.0.conn()?.unchecked_transaction().map_err(sqlite)?;
        let chunks = tx
            .prepare_cached("SELECT id, first FROM chunks WHERE last >= ?1 AND first < ?2 ORDER BY first")
            .and_then(|mut sql| sql.query_map(params![from, to], |row| Ok((row.get(0)?, row.get(1)?)))?.collect())
            .map_err(sqlite)?;
        let mut tail = Vec::new();
        each_of_all_not_in_chunks(&tx, from, to, None, |point, cell| tail.push((point, *cell)))?;
        Ok((chunks, tail))
    }

    /// The chunks that a range touches, each with its first time, and what is not in chunks yet, all as of one moment.
    #[expect(clippy::type_complexity, reason = "two lists for one caller")]
    fn outline(&mut self, number: u32, from: i64, to: i64) -> Result<(Vec<(i64, i64)>, Vec<Cell>), StoreError> {
        let tx = self.0.conn()?.unchecked_transaction().map_err(sqlite)?;
        let chunks = tx
            .prepare_cached(&format!("SELECT id, first {CHUNKS_OF_POINT}"))
            .and_then(|mut sql| {
                let earliest = from.saturating_sub(CHUNK_SPAN);
                sql.query_map(params![number / GROUP, number, earliest, from, to], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })?
                .collect()
            })
            .map_err(sqlite)?;
        let mut tail = Vec::new();
        each_not_in_chunks(&tx, number, from, to, |cell| tail.push(*cell))?;
        Ok((chunks, tail))
    }

    /// The last `limit` payloads of which nothing could be used, the newest first.
    pub fn unusable(
        &mut self,
        limit: usize,
        after: Option<unusable::KeptCursor>,
    ) -> Result<Vec<unusable::Kept>, StoreError> {
        unusable::latest(self.0.conn()?, limit, after).map_err(sqlite)
    }

    /// What was dropped before it was forwarded, oldest first.
    pub fn gaps(&mut self) -> Result<Vec<Gap>, StoreError> {
        self.0
            .conn()?
            .prepare_cached("SELECT first, last, samples FROM gaps ORDER BY last_id")
            .and_then(|mut sql| sql.query_map([], Gap::read)?.collect())
            .map_err(sqlite)
    }

    fn each(&mut self, point: &str, from: Wall, to: Wall, mut take: impl FnMut(&Cell)) -> Result<(), StoreError> {
        let damage = Arc::clone(&self.0.damage);
        // One read transaction: chunks and queue of the same moment, so that compaction in between hides nothing.
        let tx = self.0.conn()?.unchecked_transaction().map_err(sqlite)?;
        let number: Option<u32> = tx
            .prepare_cached("SELECT number FROM points WHERE id = ?1")
            .and_then(|mut sql| sql.query_row([point], |row| row.get(0)).optional())
            .map_err(sqlite)?;
        let Some(number) = number else { return Ok(()) };
        let (from, to) = (from.micros(), to.micros());
        let mut cells = Vec::new();
        let mut sql = tx.prepare_cached(&format!("SELECT members, body {CHUNKS_OF_POINT}")).map_err(sqlite)?;
        let earliest = from.saturating_sub(CHUNK_SPAN);
        let mut rows = sql.query(params![number / GROUP, number, earliest, from, to]).map_err(sqlite)?;
        while let Some(row) = rows.next().map_err(sqlite)? {
            let members = row.get_ref(0).and_then(|members| Ok(members.as_blob_or_null()?)).map_err(sqlite)?;
            let body = row.get_ref(1).and_then(|body| Ok(body.as_blob()?)).map_err(sqlite)?;
            match own_cells(body, members, number, &mut cells) {
                Ok(own) => own.iter().filter(|cell| (from..to).contains(&cell.time)).for_each(&mut take),
                Err(error) => {
                    if let Some(so_far) = damage.next_of_chunks() {
                        tracing::error!(point, %error, so_far, "A chunk of history is damaged; the chart has a hole.");
                    }
                }
            }
        }
        each_not_in_chunks(&tx, number, from, to, take)
    }
}

/// Readings that a sweep hands over at once, at least but for the last.
const SWEPT_AT_ONCE: usize = if cfg!(test) { 64 } else { 65_536 };

/// The chunks that hold readings of a point in a range: group, point, earliest first time, from, to.
const CHUNKS_OF_POINT: &str = "FROM chunks
    WHERE grp = ?1 AND first > ?3 AND first < ?5 AND last >= ?4 AND point <= ?2 AND last_point >= ?2 ORDER BY first";

/// What a chunk holds of one point. `cells` is used again from chunk to chunk.
fn own_cells<'c>(
    body: &[u8],
    members: Option<&[u8]>,
    point: u32,
    cells: &'c mut Vec<Cell>,
) -> Result<&'c [Cell], ColumnError> {
    let owners = column::decode_shared(body, members, point, cells)?;
    let before = owners.iter().take_while(|(owner, _)| *owner < point).map(|(_, count)| count).sum::<usize>();
    let own = owners.iter().find(|(owner, _)| *owner == point).map_or(0, |(_, count)| *count);
    Ok(&cells[before..before + own])
}

/// Readings of a point that compaction has not moved into chunks yet, within one transaction with the look at the chunks.
fn each_not_in_chunks(
    tx: &Connection,
    number: u32,
    from: i64,
    to: i64,
    mut take: impl FnMut(&Cell),
) -> Result<(), StoreError> {
    each_of_all_not_in_chunks(tx, from, to, Some(number), |_, cell| take(cell))
}

/// ... of one point, or of all.
fn each_of_all_not_in_chunks(
    tx: &Connection,
    from: i64,
    to: i64,
    only: Option<u32>,
    mut take: impl FnMut(u32, &Cell),
) -> Result<(), StoreError> {
    let (compacted, up_to, next_point): (i64, i64, u32) = tx
        .query_row("SELECT compacted, compacting, next_point FROM progress", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .map_err(sqlite)?;
    // A compaction under way has done the points before `next_point`.
    let after = |number: u32| if number < next_point { up_to } else { compacted };
    let mut sql = tx
        .prepare_cached("SELECT id, body FROM queue WHERE id > ?1 AND first < ?3 AND last >= ?2 ORDER BY id")
        .map_err(sqlite)?;
    let mut rows = sql.query(params![only.map_or(compacted, after), from, to]).map_err(sqlite)?;
    while let Some(row) = rows.next().map_err(sqlite)? {
        let id: i64 = row.get(0).map_err(sqlite)?;
        let body = row.get_ref(1).and_then(|body| Ok(body.as_blob()?)).map_err(sqlite)?;
        for sample in column::decode_batch(body).unwrap_or_default() {
            if only.is_none_or(|only| only == sample.point)
                && id > after(sample.point)
                && let Some(cell) = cell_of(sample.time.micros(), sample.value.as_ref(), sample.quality)
                && (from..to).contains(&cell.time)
            {
                take(sample.point, &cell);
            }
        }
    }
    Ok(())
}

/// A cell as it was before it entered history.
fn sample_of(point: u32, cell: &Cell) -> Option<StoredSample> {
    let value = match cell.code {
        code if code & NO_VALUE != 0 => None,
        code if code & FLAG != 0 => Some(Value::Flag(cell.value != 0.0)),
        _ => Some(Value::Number(cell.value)),
    };
    let quality = column::quality_of(cell.code).ok()?;
    Some(StoredSample { point, time: Wall::from_micros(cell.time), value, quality })
}

fn label(row: &Row<'_>) -> rusqlite::Result<Label> {
    Ok(Label {
        point: row.get(0)?,
        kind: row.get(1)?,
        device: row.get(2)?,
        area: row.get(3)?,
        grid: row.get(4)?,
        building: row.get(5)?,
        unit: row.get(6)?,
        floor: row.get(7)?,
        room: row.get(8)?,
    })
}

/// A reading connection that follows the writer to a new file, opened when it is first needed.
#[derive(Debug)]
struct View {
    dir: PathBuf,
    conn: Option<Connection>,
    shared: Option<Arc<Shared>>,
    generation: u64,
    damage: Arc<Damage>,
}

impl View {
    fn following(dir: &Path, shared: &Arc<Shared>) -> Self {
        let damage = Arc::clone(&shared.damage);
        Self { dir: dir.to_owned(), conn: None, shared: Some(Arc::clone(shared)), generation: 0, damage }
    }

    fn conn(&mut self) -> Result<&Connection, StoreError> {
        let now = self.shared.as_ref().map_or(0, |shared| shared.generation.load(Ordering::Acquire));
        let conn = match self.conn.take().filter(|_| now == self.generation) {
            Some(conn) => conn,
            None => open_to_read(&self.dir)?,
        };
        self.generation = now;
        Ok(self.conn.insert(conn))
    }
}

fn open_to_read(dir: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(dir.join(FILE), flags).map_err(sqlite)?;
    conn.busy_timeout(Duration::from_secs(2)).map_err(sqlite)?;
    conn.pragma_update(None, "cache_size", -1024).map_err(sqlite)?;
    Ok(conn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_that_is_met_again_and_again_is_said_less_and_less_by_each_kind() {
        let damage = Damage::default();
        let said = |next: fn(&Damage) -> Option<u64>| (0..1_000).filter_map(|_| next(&damage)).collect::<Vec<_>>();
        for next in [Damage::next_of_batches, Damage::next_of_pages, Damage::next_of_chunks] {
            assert_eq!(said(next), [1, 2, 4, 8, 16, 32, 64, 128, 256, 512], "none hides another");
        }
    }
}
