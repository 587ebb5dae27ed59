//! What the intake must still know after a restart, kept in state.db beside alarms and orders.
//!
//! A fact goes into the transaction of the turn that it belongs to. Losing one costs a notice, never an alarm, so facts carry
//! no hash. From a damaged file a table is carried over where SQLite can read all of it, else left behind.

use std::sync::Arc;

use anmin_sensors::time::Wall;
use rusqlite::{Connection, params};

/// Something to remember.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A broker keeps our session.
    Session(KeptSession),
    /// A broker keeps none, and need not.
    NoSession(Arc<str>),
}

/// The session that an outside broker should still have when we come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptSession {
    /// The id of the `[[mqtt]]`.
    pub source: Arc<str>,
    pub client_id: Arc<str>,
    /// When something last came through it: what was sent up to then has been heard.
    pub heard: Wall,
}

pub(super) const SCHEMA: &str =
    "CREATE TABLE sessions (source TEXT PRIMARY KEY, client_id TEXT NOT NULL, heard INTEGER NOT NULL) WITHOUT ROWID;";

pub(super) fn write(tx: &Connection, fact: &Fact) -> rusqlite::Result<()> {
    match fact {
        Fact::Session(KeptSession { source, client_id, heard }) => tx
            .prepare_cached("INSERT OR REPLACE INTO sessions (source, client_id, heard) VALUES (?1, ?2, ?3)")?
            .execute(params![&**source, &**client_id, heard.micros()])?,
        Fact::NoSession(source) => tx.prepare_cached("DELETE FROM sessions WHERE source = ?1")?.execute([&**source])?,
    };
    Ok(())
}

/// What of a damaged file is whole.
pub(super) fn carry_over(from: &Connection, into: &Connection) -> rusqlite::Result<()> {
    sessions(from).unwrap_or_default().into_iter().try_for_each(|kept| write(into, &Fact::Session(kept)))
}

pub(super) fn sessions(conn: &Connection) -> rusqlite::Result<Vec<KeptSession>> {
    let mut sql = conn.prepare("SELECT source, client_id, heard FROM sessions ORDER BY source")?;
    let rows = sql.query_map([], |row| {
        let (source, client_id): (String, String) = (row.get(0)?, row.get(1)?);
        Ok(KeptSession { source: source.into(), client_id: client_id.into(), heard: Wall::from_micros(row.get(2)?) })
    })?;
    rows.collect()
}
