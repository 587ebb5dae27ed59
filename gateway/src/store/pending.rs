//! Conditions whose delays run, kept in state.db: after a restart the delays begin again from what was said last, though
//! the device has been acknowledged for it and may not say it again.
//!
//! A row is written, or goes, with the turn that made it so. Each carries a hash, since a damaged one could raise an alarm
//! that nobody has cause for; without its row a condition is judged anew by the next reading.

use anmin_rules::alarm::Pending;
use rusqlite::{Connection, params};

use super::record::{self, RecordError};
use super::state::{Hash, sha256};

/// The step to schema 4.
pub(super) const SCHEMA_4: &str = "
    CREATE TABLE pending (
        rule TEXT NOT NULL,
        subject TEXT NOT NULL,
        record TEXT NOT NULL,
        sum BLOB NOT NULL,
        PRIMARY KEY (rule, subject)
    ) WITHOUT ROWID;
";

/// Takes the place of what was known of the condition.
pub(super) fn write(tx: &Connection, pending: &Pending) -> rusqlite::Result<()> {
    let (rule, subject) = (pending.rule.as_str(), pending.subject.as_str());
    if pending.is_over() {
        tx.prepare_cached("DELETE FROM pending WHERE rule = ?1 AND subject = ?2")?.execute([rule, subject])?;
        return Ok(());
    }
    let record = record::write_pending(pending);
    let sum = sum(rule, subject, &record);
    tx.prepare_cached("INSERT OR REPLACE INTO pending (rule, subject, record, sum) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![rule, subject, record, sum])?;
    Ok(())
}

/// Rule and subject of each row, and what it says.
#[expect(clippy::type_complexity, reason = "two names and what they stand for")]
pub(super) fn read(conn: &Connection) -> rusqlite::Result<Vec<(String, String, Result<Pending, RecordError>)>> {
    let mut sql = conn.prepare("SELECT rule, subject, record, sum FROM pending ORDER BY rule, subject")?;
    let rows = sql.query_map([], |row| {
        let (rule, subject): (String, String) = (row.get(0)?, row.get(1)?);
        let (record, kept): (String, Hash) = (row.get(2)?, row.get(3)?);
        let found = if sum(&rule, &subject, &record) == kept {
            record::read_pending(&record)
        } else {
            Err(RecordError::Form("it fails its hash".to_owned()))
        };
        Ok((rule, subject, found))
    })?;
    rows.collect()
}

/// What of a damaged file is whole.
pub(super) fn carry_over(from: &Connection, into: &Connection) -> rusqlite::Result<()> {
    let rows = read(from).unwrap_or_default();
    rows.into_iter().filter_map(|(.., found)| found.ok()).try_for_each(|pending| write(into, &pending))
}

/// All of them: in a file of a day long past, and where something knows better.
pub(super) fn forget(conn: &Connection) -> rusqlite::Result<()> {
    let of = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'pending'";
    // A file of an older schema has none.
    if conn.prepare(of)?.exists([])? {
        conn.execute("DELETE FROM pending", [])?;
    }
    Ok(())
}

pub(super) fn forget_one(conn: &Connection, rule: &str, subject: &str) -> rusqlite::Result<()> {
    conn.execute("DELETE FROM pending WHERE rule = ?1 AND subject = ?2", [rule, subject]).map(drop)
}

fn sum(rule: &str, subject: &str, record: &str) -> Hash {
    sha256(&[rule.as_bytes(), &[0], subject.as_bytes(), &[0], record.as_bytes()])
}
