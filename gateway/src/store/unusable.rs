//! Messages of which nothing could be used, kept in readings.db: what a device sent, for whoever is to mend it.
//!
//! Tables of schema 3 (times are microseconds of the wall clock):
//!
//! | table | row |
//! |---|---|
//! | `unusable` | a payload: its first 4 KiB, the SHA-256 of all of it, how often it came on this topic |
//! | `unusable_counts` | how many messages of a broker could not be used, by reason: all of them, also what stands in no row |
//! | `unusable_room` | one row: bytes that `unusable` holds |
//!
//! They are written in the transaction that makes the readings of the same turn durable, before the acknowledgements.
//! Above the quota nothing new is kept, only counted; what has not come for as long as readings are kept makes room.

use std::sync::Arc;

use anmin_sensors::time::Wall;
use bytes::Bytes;
use ring::digest;
use rusqlite::types::Value;
use rusqlite::{Connection, params};

/// Bytes kept of one payload.
const START: usize = 4_096;
/// Bytes kept of all, or a sixteenth of the file's own bound where that is less.
const QUOTA: u64 = 16 << 20;
/// Bytes of a reading in memory.
const READING: usize = 128;
/// What a row costs beside payload and topic.
const ROW: usize = 128;
/// Old rows that make room for one new one at most.
const FORGET: i64 = 16;

pub(super) const SCHEMA: &str = "
    CREATE TABLE unusable (
        n INTEGER PRIMARY KEY,
        source TEXT NOT NULL,
        topic TEXT NOT NULL,
        why TEXT NOT NULL,
        bytes INTEGER NOT NULL,
        sum BLOB NOT NULL,
        start BLOB NOT NULL,
        first INTEGER NOT NULL,
        last INTEGER NOT NULL,
        messages INTEGER NOT NULL,
        UNIQUE (sum, topic, source)
    );
    CREATE INDEX unusable_by_age ON unusable (last);
    CREATE TABLE unusable_counts (
        source TEXT NOT NULL, why TEXT NOT NULL, messages INTEGER NOT NULL, PRIMARY KEY (source, why)
    ) WITHOUT ROWID;
    CREATE TABLE unusable_room (one INTEGER PRIMARY KEY CHECK (one = 1), bytes INTEGER NOT NULL);
    INSERT INTO unusable_room VALUES (1, 0);
";

/// One such message on its way to the disk.
#[derive(Clone, Debug)]
pub struct Unusable {
    pub source: Arc<str>,
    pub topic: Arc<str>,
    /// The reason's name, as in the log.
    pub why: &'static str,
    /// `None`: it is only counted.
    pub payload: Option<Bytes>,
    pub received: Wall,
}

impl Unusable {
    /// The readings whose room in memory it takes.
    pub(super) fn room(&self) -> usize {
        1 + self.payload.as_ref().map_or(0, |payload| payload.len() / READING)
    }
}

/// One payload as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Ascending, never used twice while it is there.
    pub n: i64,
    pub source: String,
    pub topic: String,
    pub why: String,
    /// Of the whole payload.
    pub bytes: u64,
    pub sha256: Vec<u8>,
    /// Its first 4 KiB.
    pub start: Vec<u8>,
    pub first: Wall,
    pub last: Wall,
    /// How often it came.
    pub messages: u64,
}

/// Inside the writer's transaction. `oldest`: what has not come since makes room; `bound`: of the whole file, in bytes.
pub(super) fn write<'u>(
    conn: &Connection,
    messages: impl Iterator<Item = &'u Unusable>,
    oldest: Wall,
    bound: u64,
) -> rusqlite::Result<()> {
    let quota = i64::try_from(QUOTA.min(bound / 16)).unwrap_or(i64::MAX);
    for Unusable { source, topic, why, payload, received } in messages {
        conn.prepare_cached(
            "INSERT INTO unusable_counts (source, why, messages) VALUES (?1, ?2, 1)
             ON CONFLICT (source, why) DO UPDATE SET messages = messages + 1",
        )?
        .execute(params![&**source, why])?;
        let Some(payload) = payload else { continue };
        let sum = digest::digest(&digest::SHA256, payload);
        let known = conn
            .prepare_cached(
                "UPDATE unusable SET last = ?4, why = ?5, messages = messages + 1 WHERE sum = ?1 AND topic = ?2 AND source = ?3",
            )?
            .execute(params![sum.as_ref(), &**topic, &**source, received.micros(), why])?;
        if known > 0 {
            continue;
        }
        let start = &payload[..payload.len().min(START)];
        let cost = (start.len() + topic.len() + ROW) as i64;
        let room = |conn: &Connection| -> rusqlite::Result<i64> {
            conn.prepare_cached("SELECT bytes FROM unusable_room")?.query_row([], |row| row.get(0))
        };
        if room(conn)? + cost > quota {
            forget(conn, oldest)?;
        }
        if room(conn)? + cost > quota {
            continue;
        }
        conn.prepare_cached(
            "INSERT INTO unusable (source, topic, why, bytes, sum, start, first, last, messages)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, 1)",
        )?
        .execute(params![
            &**source,
            &**topic,
            why,
            payload.len() as i64,
            sum.as_ref(),
            start,
            received.micros()
        ])?;
        conn.prepare_cached("UPDATE unusable_room SET bytes = bytes + ?1")?.execute([cost])?;
    }
    Ok(())
}

/// Whether a row of `unusable` is whole, as far as it can prove it: its start must have the sum, where it is all there was.
pub(super) fn is_sound(row: &[Value]) -> bool {
    let [_, _, _, _, Value::Integer(bytes), Value::Blob(sum), Value::Blob(start), ..] = row else { return false };
    match usize::try_from(*bytes) {
        Ok(bytes) if bytes > START => start.len() == START,
        Ok(bytes) => start.len() == bytes && digest::digest(&digest::SHA256, start).as_ref() == &sum[..],
        Err(_) => false,
    }
}

/// Says anew how many bytes there are.
pub(super) fn measure(conn: &Connection) -> rusqlite::Result<()> {
    let sql = "UPDATE unusable_room SET bytes =
                   (SELECT coalesce(sum(length(start) + length(CAST(topic AS BLOB)) + ?1), 0) FROM unusable)";
    conn.execute(sql, [ROW as i64]).map(drop)
}

fn forget(conn: &Connection, oldest: Wall) -> rusqlite::Result<()> {
    let mut sql = conn.prepare_cached(
        "DELETE FROM unusable WHERE n IN (SELECT n FROM unusable WHERE last < ?1 ORDER BY last LIMIT ?2)
         RETURNING length(start) + length(CAST(topic AS BLOB)) + ?3",
    )?;
    let gone = sql
        .query_map(params![oldest.micros(), FORGET, ROW as i64], |row| row.get::<_, i64>(0))?
        .sum::<rusqlite::Result<i64>>()?;
    conn.prepare_cached("UPDATE unusable_room SET bytes = bytes - ?1")?.execute([gone])?;
    Ok(())
}

/// Behind which row a page begins: when it came last, and its number.
pub type KeptCursor = (Wall, i64);

/// The last `limit` that came, the newest first, behind `after`.
pub(super) fn latest(conn: &Connection, limit: usize, after: Option<KeptCursor>) -> rusqlite::Result<Vec<Kept>> {
    let mut sql = conn.prepare_cached(
        "SELECT n, source, topic, why, bytes, sum, start, first, last, messages FROM unusable
         WHERE last <= ?2 AND (last, n) < (?2, ?3) ORDER BY last DESC, n DESC LIMIT ?1",
    )?;
    let (last, n) = after.map_or((i64::MAX, i64::MAX), |(last, n)| (last.micros(), n));
    let rows = sql.query_map(params![i64::try_from(limit).unwrap_or(i64::MAX), last, n], |row| {
        Ok(Kept {
            n: row.get(0)?,
            source: row.get(1)?,
            topic: row.get(2)?,
            why: row.get(3)?,
            bytes: row.get::<_, i64>(4)?.unsigned_abs(),
            sha256: row.get(5)?,
            start: row.get(6)?,
            first: Wall::from_micros(row.get(7)?),
            last: Wall::from_micros(row.get(8)?),
            messages: row.get::<_, i64>(9)?.unsigned_abs(),
        })
    })?;
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(topic: &str, payload: &[u8], second: i64) -> Unusable {
        Unusable {
            source: "site".into(),
            topic: topic.into(),
            why: "not_json",
            payload: Some(Bytes::copy_from_slice(payload)),
            received: Wall::from_micros(second * 1_000_000),
        }
    }

    fn counted(conn: &Connection) -> i64 {
        conn.query_row("SELECT coalesce(sum(messages), 0) FROM unusable_counts", [], |row| row.get(0))
            .expect("the table is there")
    }

    #[test]
    fn a_payload_is_kept_once_with_its_start_and_above_the_quota_only_counted() {
        let conn = Connection::open_in_memory().expect("SQLite works");
        conn.execute_batch(SCHEMA).expect("the schema is sound");
        let (oldest, bound) = (Wall::from_micros(0), 1 << 20);
        let long = vec![b'x'; 10_000];
        let some = [message("g1", b"gas=1", 1), message("g1", b"gas=1", 2), message("g2", &long, 3)];
        write(&conn, some.iter(), oldest, bound).expect("it can be written");
        let kept = latest(&conn, 9, None).expect("it can be read");
        assert_eq!(kept.len(), 2);
        assert_eq!((kept[0].bytes, kept[0].start.len(), kept[0].sha256.len()), (10_000, START, 32));
        assert_eq!((kept[1].messages, kept[1].first.micros(), kept[1].last.micros()), (2, 1_000_000, 2_000_000));
        // 64 KiB are the quota here.
        for n in 0..1_000 {
            write(&conn, [message("g3", n.to_string().as_bytes(), 10)].iter(), oldest, bound)
                .expect("it can be written");
        }
        let full = latest(&conn, 9_999, None).expect("it can be read").len();
        assert!((200..600).contains(&full), "{full}");
        assert_eq!(counted(&conn), 1_003);
        // What is old makes room.
        let oldest = Wall::from_micros(5_000_000);
        write(&conn, [message("g4", b"new", 11)].iter(), oldest, bound).expect("it can be written");
        let kept = latest(&conn, 9_999, None).expect("it can be read");
        assert_eq!((kept[0].topic.as_str(), kept.len()), ("g4", full - 1));
    }
}
