//! What people have said of the micro fire stations, kept in state.db: who took over, what was checked, what is off duty.
//!
//! One row a station, in the transaction of the turn in which it was said; the audit has the past. Each carries a hash, since
//! a damaged one could send a call past a station that is there. Without its row a station stands as if nothing was said.

use std::collections::BTreeMap;
use std::sync::Arc;

use anmin_rules::duty::{Check, Duty, DutyChange, HandOver, OffDuty};
use anmin_sensors::time::Wall;
use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};

use super::state::{Hash, sha256};

/// The step to schema 8.
pub(super) const SCHEMA_8: &str =
    "CREATE TABLE duty (station TEXT PRIMARY KEY, record TEXT NOT NULL, sum BLOB NOT NULL) WITHOUT ROWID;";

/// Version 1 of a record; times are microseconds of the wall clock.
#[derive(Serialize, Deserialize)]
struct DutyV1 {
    v: u32,
    seq: u32,
    handed_over: Option<HandOverV1>,
    off_duty: Option<OffDutyV1>,
    checks: BTreeMap<String, CheckV1>,
}

#[derive(Serialize, Deserialize)]
struct HandOverV1 {
    at: i64,
    by: String,
    crew: Vec<String>,
    note: String,
}

#[derive(Serialize, Deserialize)]
struct OffDutyV1 {
    at: i64,
    by: String,
    why: String,
}

#[derive(Serialize, Deserialize)]
struct CheckV1 {
    at: i64,
    by: String,
    fit: bool,
    note: String,
}

impl DutyV1 {
    fn of(duty: &Duty) -> Self {
        let handed_over = duty.handed_over.as_ref().map(|HandOver { at, by, crew, note }| HandOverV1 {
            at: at.micros(),
            by: by.clone(),
            crew: crew.iter().map(ToString::to_string).collect(),
            note: note.clone(),
        });
        let off_duty = duty.off_duty.as_ref();
        let check = |(id, check): (&Arc<str>, &Check)| {
            let Check { at, by, fit, note } = check;
            (id.to_string(), CheckV1 { at: at.micros(), by: by.clone(), fit: *fit, note: note.clone() })
        };
        Self {
            v: 1,
            seq: duty.seq,
            handed_over,
            off_duty: off_duty.map(|off| OffDutyV1 { at: off.at.micros(), by: off.by.clone(), why: off.why.clone() }),
            checks: duty.checks.iter().map(check).collect(),
        }
    }

    fn read(self) -> Duty {
        let at = Wall::from_micros;
        let handed_over = self.handed_over.map(|last| HandOver {
            at: at(last.at),
            by: last.by,
            crew: last.crew.into_iter().map(Arc::from).collect(),
            note: last.note,
        });
        let check = |(id, check): (String, CheckV1)| {
            let CheckV1 { at: when, by, fit, note } = check;
            (Arc::from(id), Check { at: at(when), by, fit, note })
        };
        Duty {
            handed_over,
            off_duty: self.off_duty.map(|off| OffDuty { at: at(off.at), by: off.by, why: off.why }),
            checks: self.checks.into_iter().map(check).collect(),
            seq: self.seq,
        }
    }
}

/// Takes the place of what was known of the station.
pub(super) fn write(tx: &Connection, change: &DutyChange) -> rusqlite::Result<()> {
    let record = serde_json::to_string(&DutyV1::of(&change.duty)).expect("texts, numbers and maps by text are JSON");
    let sum = sum(&change.station, &record);
    tx.prepare_cached("INSERT OR REPLACE INTO duty (station, record, sum) VALUES (?1, ?2, ?3)")?.execute(params![
        &*change.station,
        record,
        sum
    ])?;
    Ok(())
}

/// A station, and its row or why it cannot be read.
type Found = (String, Result<DutyChange, String>);

/// Each station's row.
pub(super) fn read(conn: &Connection) -> rusqlite::Result<Vec<Found>> {
    let mut sql = conn.prepare("SELECT station, record, sum FROM duty ORDER BY station")?;
    let rows = sql.query_map([], row)?;
    rows.collect()
}

fn row(row: &Row<'_>) -> rusqlite::Result<Found> {
    let station: String = row.get(0)?;
    let (Ok(record), Ok(kept)) = (row.get::<_, String>(1), row.get::<_, Hash>(2)) else {
        return Ok((station, Err("it holds something else than text and a hash".to_owned())));
    };
    let found = if sum(&station, &record) != kept {
        Err("it fails its hash".to_owned())
    } else {
        match serde_json::from_str::<DutyV1>(&record) {
            Ok(duty) if duty.v == 1 => {
                Ok(DutyChange { station: Arc::from(station.as_str()), duty: Arc::new(duty.read()) })
            }
            Ok(duty) => Err(format!("it has version {}, this anmin knows 1", duty.v)),
            Err(error) => Err(error.to_string()),
        }
    };
    Ok((station, found))
}

/// What of a damaged file is whole, read from both ends: a row or a page that cannot be read costs itself.
pub(super) fn carry_over(from: &Connection, into: &Connection) -> rusqlite::Result<()> {
    for way in ["ASC", "DESC"] {
        // A file of an older schema has none.
        let Ok(mut sql) = from.prepare(&format!("SELECT station, record, sum FROM duty ORDER BY station {way}")) else {
            return Ok(());
        };
        let rows = sql.query_map([], row)?;
        rows.filter_map(|row| row.ok()?.1.ok()).try_for_each(|change| write(into, &change))?;
    }
    Ok(())
}

fn sum(station: &str, record: &str) -> Hash {
    sha256(&[station.as_bytes(), &[0], record.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_comes_back_and_a_damaged_row_is_told() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(SCHEMA_8).unwrap();
        let at = Wall::from_micros(1_800_000_000_000_001);
        let duty = Duty {
            handed_over: Some(HandOver {
                at,
                by: "chen".to_owned(),
                crew: vec!["wang".into(), "李".into()],
                note: "水带少一根".to_owned(),
            }),
            off_duty: Some(OffDuty { at, by: "li".to_owned(), why: "training".to_owned() }),
            checks: [(Arc::from("hose"), Check { at, by: "li".to_owned(), fit: false, note: "leaks".to_owned() })]
                .into(),
            seq: 3,
        };
        let whole = DutyChange { station: "st-1".into(), duty: Arc::new(duty) };
        let plain = DutyChange { station: "st-2".into(), duty: Arc::default() };
        for change in [&plain, &whole, &plain] {
            write(&conn, change).unwrap();
        }
        let read = |conn| read(conn).unwrap().into_iter().map(|(_, found)| found).collect::<Vec<_>>();
        assert_eq!(read(&conn), [Ok(whole), Ok(plain.clone())]);
        conn.execute("UPDATE duty SET record = replace(record, 'chen', 'shen') WHERE station = 'st-1'", []).unwrap();
        assert_eq!(read(&conn), [Err("it fails its hash".to_owned()), Ok(plain.clone())]);
        // Not even a text: once it cost every row of the table.
        conn.execute("INSERT INTO duty (station, record, sum) VALUES ('st-0', x'ff', 7)", []).unwrap();
        assert_eq!(read(&conn)[0], Err("it holds something else than text and a hash".to_owned()));
        let other = Connection::open_in_memory().unwrap();
        other.execute_batch(SCHEMA_8).unwrap();
        carry_over(&conn, &other).unwrap();
        assert_eq!(read(&other), [Ok(plain)], "only what is whole is carried over");
    }
}
