//! How far each subscriber has been told of the journal, kept in state.db: whoever was away goes on from there.
//!
//! A cursor is the number of the last row of the journal that is dealt with: told and taken, or not for this subscriber. Rows
//! keep their numbers but for a damaged file, whose rows are numbered anew; the cursors then move with the rows. A number
//! means something only together with the [`lineage`] of its file.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::state::sha256;

/// The step to schema 7.
pub(super) const SCHEMA_7: &str =
    "CREATE TABLE cursors (subscriber TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;";

/// A subscriber has been told everything up to row `n`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub subscriber: Arc<str>,
    /// Of the file in which the row has this number.
    pub lineage: u64,
    pub n: i64,
}

/// One of another lineage says nothing about this file and is left out: to tell once too often is the safe side.
pub(super) fn write(tx: &Connection, told: &Told) -> rusqlite::Result<()> {
    if lineage(tx)? == told.lineage {
        set(tx, &told.subscriber, told.n)?;
    }
    Ok(())
}

fn set(tx: &Connection, subscriber: &str, n: i64) -> rusqlite::Result<()> {
    tx.prepare_cached("INSERT OR REPLACE INTO cursors (subscriber, n) VALUES (?1, ?2)")?
        .execute(params![subscriber, n])
        .map(drop)
}

pub(super) fn read(conn: &Connection) -> rusqlite::Result<BTreeMap<Arc<str>, i64>> {
    let mut sql = conn.prepare("SELECT subscriber, n FROM cursors")?;
    let rows = sql.query_map([], |row| Ok((Arc::from(row.get::<_, String>(0)?), row.get(1)?)))?;
    rows.collect()
}

/// From a damaged file, whose rows stand in `places` by where they stood: behind the last of those that were told.
pub(super) fn carry_over(from: &Connection, into: &Connection, places: &HashMap<i64, i64>) -> rusqlite::Result<()> {
    for way in ["ASC", "DESC"] {
        // A file of an older schema has none.
        let sql = format!("SELECT subscriber, n FROM cursors ORDER BY subscriber {way}");
        let Ok(mut sql) = from.prepare(&sql) else { return Ok(()) };
        // From both ends: a row or a page that cannot be read costs itself.
        let rows = sql.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))?;
        for (subscriber, n) in rows.filter_map(Result::ok) {
            let told = places.iter().filter(|(before, _)| **before <= n).map(|(_, now)| *now).max();
            set(into, &subscriber, told.unwrap_or(0))?;
        }
    }
    Ok(())
}

/// Tells this numbering of rows from that of every other file, one restored from a backup or made anew included.
pub(super) fn lineage(conn: &Connection) -> rusqlite::Result<u64> {
    let meta = |key: &str| -> rusqlite::Result<String> {
        let mut sql = conn.prepare_cached("SELECT value FROM meta WHERE key = ?1")?;
        Ok(sql.query_row([key], |row| row.get(0)).optional()?.unwrap_or_default())
    };
    let hash = sha256(&[meta("installation")?.as_bytes(), b"\0", meta("numbers_from")?.as_bytes()]);
    let [a, b, c, d, e, f, g, h, ..] = hash;
    Ok(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
}

#[cfg(test)]
mod tests {
    use anmin_rules::alarm::{Alarm, AlarmId, AlarmState, Cause};

    use super::super::tests::TestDir;
    use super::super::{Fact, StateReader, StateStore, Turn};
    use super::*;
    use crate::samples::{RAISED, alarm, transition};

    fn open(dir: &TestDir) -> (StateStore, StateReader) {
        let store = StateStore::open(dir.path(), RAISED).expect("the folder can be written").0;
        let reader = store.reader().expect("it is open");
        (store, reader)
    }

    fn raise(store: &mut StateStore, alarms: std::ops::Range<u128>) {
        for n in alarms {
            let alarm = Alarm { id: AlarmId(uuid::Uuid::from_u128(n)), ..alarm() };
            let raised = transition(AlarmState::Normal, Cause::Raised, alarm);
            store.commit(&Turn { transitions: &[raised], ..Turn::default() }).expect("the disk takes it");
        }
    }

    fn tell(store: &mut StateStore, lineage: u64, n: i64) {
        let told = Fact::Told(Told { subscriber: "office".into(), lineage, n });
        store.commit(&Turn { facts: &[told], ..Turn::default() }).expect("the disk takes it");
    }

    fn cursor(reader: &StateReader) -> Option<i64> {
        reader.cursors().expect("it can be read").get("office").copied()
    }

    #[test]
    fn a_cursor_survives_a_restart_and_one_of_another_journal_is_left_out() {
        let dir = TestDir::new("cursor-restart");
        let (mut store, reader) = open(&dir);
        raise(&mut store, 0..5);
        let lineage = reader.lineage().expect("it can be read");
        assert_eq!(cursor(&reader), None);
        tell(&mut store, lineage, 3);
        tell(&mut store, lineage ^ 1, 5);
        drop(store);
        let (_store, reader) = open(&dir);
        assert_eq!((cursor(&reader), reader.lineage()), (Some(3), Ok(lineage)));
        assert_eq!(reader.after(3, 10).expect("it can be read").iter().map(|row| row.n).collect::<Vec<_>>(), [4, 5]);
    }

    /// Rows 2 and 3 are lost, so those behind them move: what was told is not told again, and nothing else is left out.
    #[test]
    fn in_a_damaged_file_the_cursor_moves_with_its_rows() {
        let dir = TestDir::new("cursor-salvage");
        let (mut store, reader) = open(&dir);
        raise(&mut store, 0..6);
        let lineage = reader.lineage().expect("it can be read");
        tell(&mut store, lineage, 4);
        drop((store, reader));
        let path = dir.path().join("state.db");
        let damage = "UPDATE journal SET record = 'x' WHERE n IN (2, 3)";
        Connection::open(&path).expect("the file is there").execute_batch(damage).expect("it is a table");
        super::super::state::rebuild(&path, RAISED).expect("the folder can be written");
        let (_store, reader) = open(&dir);
        let left = reader.after(cursor(&reader).expect("it is kept"), 10).expect("it can be read");
        assert_eq!(left.iter().map(|row| row.n).collect::<Vec<_>>(), [3, 4], "the fifth and the sixth of before");
        assert_ne!(reader.lineage(), Ok(lineage), "a number of before means nothing now");
    }

    #[test]
    fn a_file_of_schema_6_takes_it_up() {
        let dir = TestDir::new("cursor-schema-6");
        let (mut store, reader) = open(&dir);
        raise(&mut store, 0..2);
        drop((store, reader));
        dir.back_to_schema(6);
        let (mut store, back) = StateStore::open(dir.path(), RAISED).expect("the folder can be written");
        assert_eq!((back.alarms.len(), back.notes), (2, vec![]), "nothing was lost on the way");
        let reader = store.reader().expect("it is open");
        tell(&mut store, reader.lineage().expect("it can be read"), 1);
        assert_eq!(cursor(&reader), Some(1));
    }
}
