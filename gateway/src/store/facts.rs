//! What must be known after a restart, kept in state.db beside alarms and orders: what the intake has heard, and what people
//! did (see [`super::audit`]).
//!
//! A fact goes into the transaction of the turn that it belongs to. Losing one of the intake's costs a notice, never an alarm,
//! so they carry no hash. From a damaged file a table is carried over where SQLite can read all of it, else left behind.

use std::sync::Arc;
use std::time::Duration;

use anmin_rules::drill::Drill;
use anmin_rules::duty::DutyChange;
use anmin_rules::walk::{Tick, Walk};
use anmin_sensors::time::Wall;
use rusqlite::{Connection, params};

use super::audit::{self, Deed};
use super::cursors::{self, Told};
use super::drills;
use super::duty;
use super::people::{self, Person};
use super::plans::{self, Revision};
use super::reach::{self, Addressed};
use super::registers;
use super::walks;

/// Something to remember.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// A broker keeps our session.
    Session(KeptSession),
    /// A broker keeps none, and need not.
    NoSession(Arc<str>),
    /// Messages that were judged by the end of this turn and may come again.
    Judged(Vec<Mark>),
    /// What people say of a station.
    Duty(Arc<DutyChange>),
    /// Somebody did something, or was not let.
    Did(Box<Deed>),
    /// A subscriber has taken what it was told.
    Told(Told),
    /// A drill as it stands.
    Drill(Arc<Drill>),
    /// A walk test as it stands.
    Walk(Arc<Walk>),
    /// A point that has spoken in a walk.
    Tick(Arc<Tick>),
    /// A row of a register.
    Register(Box<registers::Change>),
    /// By which configuration anmin works from this moment on: the SHA-256 of its files, in hexadecimal digits.
    Configuration(Wall, Arc<str>),
    /// A plan that came into force, or went.
    Plan(Box<Revision>),
    /// Who may do what.
    Person(Box<Person>),
    /// How a message stands with those whom it is for.
    Addressed(Box<Addressed>),
}

/// A message by its hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Of sender, packet identifier, topic and payload.
    pub what: u64,
    /// Of the topic alone.
    pub topic: u32,
}

/// Bytes of one mark: `what`, then `topic`, the lowest first.
const MARK: usize = 12;
/// Rows of marks that are kept: what lacks its acknowledgement is in the last few.
const MARK_ROWS: i64 = 64;

/// The session that an outside broker should still have when we come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptSession {
    /// The id of the `[[mqtt]]`.
    pub source: Arc<str>,
    pub client_id: Arc<str>,
    /// When something last came through it: what was sent up to then has been heard.
    pub heard: Wall,
}

/// The step to schema 2.
pub(super) const SCHEMA_2: &str =
    "CREATE TABLE sessions (source TEXT PRIMARY KEY, client_id TEXT NOT NULL, heard INTEGER NOT NULL) WITHOUT ROWID;";

/// The step to schema 3.
pub(super) const SCHEMA_3: &str = "CREATE TABLE judged (n INTEGER PRIMARY KEY, marks BLOB NOT NULL);";

/// `audit_kept` is for how long the audit is kept.
pub(super) fn write(tx: &Connection, fact: &Fact, audit_kept: Duration) -> rusqlite::Result<()> {
    match fact {
        Fact::Session(KeptSession { source, client_id, heard }) => tx
            .prepare_cached("INSERT OR REPLACE INTO sessions (source, client_id, heard) VALUES (?1, ?2, ?3)")?
            .execute(params![&**source, &**client_id, heard.micros()])?,
        Fact::NoSession(source) => tx.prepare_cached("DELETE FROM sessions WHERE source = ?1")?.execute([&**source])?,
        Fact::Judged(marks) => {
            let bytes: Vec<u8> = marks
                .iter()
                .flat_map(|mark| [&mark.what.to_le_bytes()[..], &mark.topic.to_le_bytes()].concat())
                .collect();
            tx.prepare_cached("INSERT INTO judged (marks) VALUES (?1)")?.execute([bytes])?;
            tx.prepare_cached("DELETE FROM judged WHERE n <= ?1")?.execute([tx.last_insert_rowid() - MARK_ROWS])?
        }
        Fact::Duty(change) => return duty::write(tx, change),
        Fact::Did(deed) => return audit::write(tx, deed, audit_kept),
        Fact::Told(told) => return cursors::write(tx, told),
        Fact::Drill(drill) => return drills::write(tx, drill),
        Fact::Walk(walk) => return walks::write(tx, walk),
        Fact::Tick(tick) => return walks::write_tick(tx, tick),
        Fact::Register(change) => return registers::write(tx, change),
        Fact::Configuration(at, sha256) => return plans::write_configuration(tx, *at, sha256),
        Fact::Plan(revision) => return plans::write(tx, revision),
        Fact::Person(person) => return people::write(tx, person),
        Fact::Addressed(heard) => return reach::write(tx, heard),
    };
    Ok(())
}

/// What of a damaged file is whole.
pub(super) fn carry_over(from: &Connection, into: &Connection) -> rusqlite::Result<()> {
    let mut sessions = sessions(from).unwrap_or_default().into_iter();
    sessions.try_for_each(|kept| write(into, &Fact::Session(kept), audit::KEPT))?;
    duty::carry_over(from, into)?;
    match judged(from) {
        Ok(marks) if !marks.is_empty() => write(into, &Fact::Judged(marks), audit::KEPT),
        _ => Ok(()),
    }
}

/// In a file of a day long past: packet identifiers have been used again since, and in doubt a message is judged.
pub(super) fn forget_judged(conn: &Connection) -> rusqlite::Result<()> {
    let of = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'judged'";
    // A file of an older schema has none.
    if conn.prepare(of)?.exists([])? {
        conn.execute("DELETE FROM judged", [])?;
    }
    Ok(())
}

pub(super) fn sessions(conn: &Connection) -> rusqlite::Result<Vec<KeptSession>> {
    let mut sql = conn.prepare("SELECT source, client_id, heard FROM sessions ORDER BY source")?;
    let rows = sql.query_map([], |row| {
        let (source, client_id): (String, String) = (row.get(0)?, row.get(1)?);
        Ok(KeptSession { source: source.into(), client_id: client_id.into(), heard: Wall::from_micros(row.get(2)?) })
    })?;
    rows.collect()
}

/// The oldest first.
pub(super) fn judged(conn: &Connection) -> rusqlite::Result<Vec<Mark>> {
    let mut sql = conn.prepare("SELECT marks FROM judged ORDER BY n")?;
    let rows = sql.query_map([], |row| row.get::<_, Vec<u8>>(0))?;
    let mut marks = Vec::new();
    for bytes in rows {
        marks.extend(bytes?.as_chunks::<MARK>().0.iter().map(|bytes| {
            let [a, b, c, d, e, f, g, h, topic @ ..] = *bytes;
            Mark { what: u64::from_le_bytes([a, b, c, d, e, f, g, h]), topic: u32::from_le_bytes(topic) }
        }));
    }
    Ok(marks)
}
