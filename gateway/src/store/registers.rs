//! Rows of the registers in state.db; what a register is stands in [`crate::register`].
//!
//! | column | |
//! |---|---|
//! | `kind`, `id` | which register, and which of its rows |
//! | `cells` | a JSON object of text by the names of the columns, without those that are empty |
//! | `sum` | SHA-256 over kind, id and cells: a row that fails it is not shown |
//!
//! By names, so that a register may get another column: an older row has nothing in it.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use super::incidents::WORDS;
use super::state::{Hash, sha256};
use super::{reach, sent};
pub use crate::register::{Kind, Row};

/// The step to schema 11: one table for whatever people keep, see also [`super::walks`] and [`super::incidents`]. Its words are few
/// because SQLite's list of tables should stay on one page, whose loss costs no more than it did.
pub(super) const SCHEMA_11: &str = "CREATE TABLE kept(kind,id,cells,sum,PRIMARY KEY(kind,id))WITHOUT ROWID;";

/// A row as it stands from now on, or that it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Row(Row),
    Gone(Kind, String),
}

/// Which row.
pub type Key = (Kind, String);

impl Change {
    pub fn key(&self) -> Key {
        match self {
            Self::Row(row) => (row.kind, row.id().to_owned()),
            Self::Gone(kind, id) => (*kind, id.clone()),
        }
    }

    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Gone(..))
    }
}

/// A record of a kind under its id takes the place of the one before.
pub(super) fn put(tx: &Connection, kind: &str, id: &str, cells: &str) -> rusqlite::Result<()> {
    tx.prepare_cached("INSERT OR REPLACE INTO kept (kind, id, cells, sum) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![kind, id, cells, sum(kind, id, cells)])
        .map(drop)
}

/// The record of a kind under its id; `None` where it is not as it was written.
pub(super) fn record(conn: &Connection, kind: &str, id: &str) -> rusqlite::Result<Option<String>> {
    let mut sql = conn.prepare_cached("SELECT kind, id, cells, sum FROM kept WHERE kind = ?1 AND id = ?2")?;
    sql.query_row([kind, id], |row| Ok(whole_row(row).map(|[.., cells]| cells)))
}

/// Ids and records of a kind whose ids begin so, in the order of their ids; those that are as they were written.
pub(super) fn records(conn: &Connection, kind: &str, begins: &str) -> rusqlite::Result<Vec<(String, String)>> {
    let sql = "SELECT id, cells, sum FROM kept WHERE kind = ?1 AND id >= ?2 ORDER BY id";
    let mut sql = conn.prepare_cached(sql)?;
    let mut rows = sql.query([kind, begins])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        // Damaged beyond being text.
        let (Ok(id), Ok(cells)) = (row.get::<_, String>(0), row.get::<_, String>(1)) else { continue };
        if !id.starts_with(begins) {
            break;
        }
        if row.get::<_, Hash>(2).is_ok_and(|kept| kept == sum(kind, &id, &cells)) {
            found.push((id, cells));
        }
    }
    Ok(found)
}

pub(super) fn write(tx: &Connection, change: &Change) -> rusqlite::Result<()> {
    let (kind, id) = change.key();
    let Change::Row(row) = change else {
        tx.prepare_cached("DELETE FROM kept WHERE kind = ?1 AND id = ?2")?.execute([kind.as_str(), &id])?;
        return Ok(());
    };
    let named = kind.columns().iter().map(|column| column.name).zip(&row.cells);
    let cells: BTreeMap<&str, &String> = named.filter(|(_, cell)| !cell.is_empty()).collect();
    let cells = serde_json::to_string(&cells).expect("texts under names are JSON");
    put(tx, kind.as_str(), &id, &cells)
}

pub(super) fn rows(conn: &Connection, kind: Kind) -> rusqlite::Result<Vec<Row>> {
    let read = |(_, cells): (String, String)| {
        let mut cells: BTreeMap<String, String> = serde_json::from_str(&cells).ok()?;
        let cells = kind.columns().iter().map(|column| cells.remove(column.name).unwrap_or_default());
        Some(Row { kind, cells: cells.collect() })
    };
    Ok(records(conn, kind.as_str(), "")?.into_iter().filter_map(read).collect())
}

pub(super) fn all(conn: &Connection) -> rusqlite::Result<Vec<Change>> {
    let mut all = Vec::new();
    for kind in Kind::ALL {
        all.extend(rows(conn, kind)?.into_iter().map(Change::Row));
    }
    Ok(all)
}

fn is_there(conn: &Connection) -> rusqlite::Result<bool> {
    conn.prepare("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'kept'")?.exists([])
}

/// Rows that are whole, and those that are not.
pub(super) fn check(conn: &Connection) -> rusqlite::Result<(u64, u64)> {
    // A file of an older schema has no such table.
    if !is_there(conn)? {
        return Ok((0, 0));
    }
    let mut sql = conn.prepare("SELECT kind, id, cells, sum FROM kept")?;
    let mut rows = sql.query([])?;
    let (mut whole, mut damaged) = (0, 0);
    while let Some(row) = rows.next()? {
        match whole_row(row) {
            Some(_) => whole += 1,
            None => damaged += 1,
        }
    }
    Ok((whole, damaged))
}

/// What of a damaged file is whole: walk tests and registers; by what words incidents are found is made anew, and what
/// people were told is left behind.
pub(super) fn carry_over(from: &Connection, into: &Connection) -> rusqlite::Result<()> {
    // From both ends: reading stops at a damaged page.
    for way in ["ASC", "DESC"] {
        // A file of an older schema has none.
        let sql = format!("SELECT kind, id, cells, sum FROM kept ORDER BY kind {way}, id {way}");
        let Ok(mut sql) = from.prepare(&sql) else { return Ok(()) };
        let mut rows = sql.query([])?;
        while let Ok(Some(row)) = rows.next() {
            let left = [WORDS, sent::TEXT, sent::SENT, reach::ADDRESSED, reach::BECAME];
            if let Some([kind, id, cells]) = whole_row(row).filter(|[kind, ..]| !left.contains(&kind.as_str())) {
                put(into, &kind, &id, &cells)?;
            }
        }
    }
    Ok(())
}

/// Kind, id and cells of a row that is as it was written.
fn whole_row(row: &rusqlite::Row<'_>) -> Option<[String; 3]> {
    let text = |n| row.get::<_, String>(n).ok();
    let [kind, id, cells] = [text(0)?, text(1)?, text(2)?];
    (row.get::<_, Hash>(3).ok()? == sum(&kind, &id, &cells)).then_some([kind, id, cells])
}

fn sum(kind: &str, id: &str, cells: &str) -> Hash {
    sha256(&[kind.as_bytes(), &[0], id.as_bytes(), &[0], cells.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::super::state::{FILE, StateReader, StateStore, Turn};
    use super::super::tests::TestDir;
    use super::super::{Fact, fsck, salvage};
    use super::*;
    use crate::samples::RAISED;

    fn row(kind: Kind, cells: &[(&str, &str)]) -> Row {
        let cells = cells.iter().map(|(name, cell)| ((*name).to_owned(), (*cell).to_owned())).collect();
        Row::read(kind, &cells).expect("it is sound")
    }

    fn blanket(quantity: &str) -> Row {
        row(Kind::Stock, &[("id", "w-1"), ("name", "灭火毯"), ("quantity", quantity), ("minimum", "5")])
    }

    fn household() -> Row {
        row(Kind::Households, &[("id", "h-1"), ("building", "3"), ("need", "oxygen"), ("room", "501")])
    }

    fn commit(store: &mut StateStore, changes: Vec<Change>) {
        let facts: Vec<Fact> = changes.into_iter().map(|change| Fact::Register(Box::new(change))).collect();
        store.commit(&Turn { facts: &facts, ..Turn::default() }).expect("there is room");
    }

    fn kept(dir: &std::path::Path) -> Vec<Row> {
        let reader = StateReader::open(dir).expect("it is there");
        Kind::ALL.into_iter().flat_map(|kind| reader.register(kind).expect("it can be read")).collect()
    }

    #[test]
    fn rows_come_go_and_outlive_a_file_that_breaks_or_is_salvaged() {
        let dir = TestDir::new("registers");
        let (mut store, _) = StateStore::open(dir.path(), RAISED).expect("an empty folder");
        let gone = row(Kind::Stock, &[("id", "w-2"), ("name", "沙袋"), ("quantity", "9")]);
        commit(&mut store, vec![Change::Row(blanket("7")), Change::Row(gone), Change::Row(household())]);
        commit(&mut store, vec![Change::Row(blanket("3")), Change::Gone(Kind::Stock, "w-2".to_owned())]);
        assert_eq!(kept(dir.path()), [blanket("3"), household()]);
        // Beyond reading, of what this run has written and of what its start has found.
        for _ in 0..2 {
            store.spoil();
            store
                .commit(&Turn { facts: &[Fact::NoSession("plant".into())], ..Turn::default() })
                .expect("the file is made anew");
            assert_eq!(kept(dir.path()), [blanket("3"), household()]);
            drop(store);
            store = StateStore::open(dir.path(), RAISED).expect("it was made anew").0;
        }
        drop(store);

        let saved = TestDir::new("registers-saved");
        drop(StateStore::open(saved.path(), RAISED).expect("an empty folder"));
        let mut into = Connection::open(saved.path().join(FILE)).expect("it is there");
        into.execute("DELETE FROM meta", []).expect("it can be written");
        salvage::carry_over(&dir.path().join(FILE), &mut into, RAISED, i64::MAX).expect("it is whole");
        drop(into);
        assert_eq!(kept(saved.path()), [blanket("3"), household()]);
    }

    #[test]
    fn a_damaged_row_is_not_shown_is_found_by_the_check_and_costs_no_other() {
        // Another word, and what is no text at all.
        for damage in ["replace(cells, 'oxygen', 'walk')", "CAST(x'FF' AS TEXT)"] {
            let dir = TestDir::new("registers-damaged");
            let (mut store, _) = StateStore::open(dir.path(), RAISED).expect("an empty folder");
            commit(&mut store, vec![Change::Row(blanket("7")), Change::Row(household())]);
            drop(store);
            let conn = Connection::open(dir.path().join(FILE)).expect("it is there");
            let sql = format!("UPDATE kept SET cells = {damage} WHERE kind = 'households'");
            conn.execute(&sql, []).expect("it can be written");
            assert_eq!(check(&conn), Ok((1, 1)), "{damage}");
            drop(conn);
            assert_eq!(kept(dir.path()), [blanket("7")], "{damage}");
            let said = format!("{:?}", fsck::check(dir.path()).expect("it can be looked at"));
            assert!(said.contains("1 rows of registers fail their hash"), "{damage}: {said}");
            let (_store, back) = StateStore::open(dir.path(), RAISED).expect("the file is in order but for one row");
            assert_eq!(back.notes, vec![], "{damage}");
        }
    }
}
