//! Drills in state.db: a row each, as it stood after its last change.
//!
//! Who started and ended it is in the audit, what happened in it in the journal, both under their hashes; this table says which
//! are on and where each is found. A row that cannot be read is left out: its alarms are then closed at the next start.

use std::sync::Arc;

use anmin_rules::alarm::AlarmId;
use anmin_rules::drill::{Drill, DrillEnd, DrillId, Scope};
use anmin_sensors::time::Wall;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

/// The step to schema 9. `ended` is 0 while it is on.
pub(super) const SCHEMA_9: &str = "
    CREATE TABLE drills (
        id BLOB PRIMARY KEY,
        seq INTEGER NOT NULL,
        name TEXT NOT NULL,
        area TEXT NOT NULL,
        grid TEXT NOT NULL,
        building TEXT NOT NULL,
        announced INTEGER NOT NULL,
        started_by TEXT NOT NULL,
        started INTEGER NOT NULL,
        ends INTEGER NOT NULL,
        alarms INTEGER NOT NULL,
        ended INTEGER NOT NULL,
        ended_by TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX drills_by_start ON drills (started);
    CREATE INDEX drills_on ON drills (ended) WHERE ended = 0;
";

const COLUMNS: &str =
    "id, seq, name, area, grid, building, announced, started_by, started, ends, alarms, ended, ended_by";

pub(super) fn write(tx: &Connection, drill: &Drill) -> rusqlite::Result<()> {
    let Drill { id, seq, name, scope: Scope { area, grid, building }, announced, by, started_at, ends_at, alarms, end } =
        drill;
    let (ended, ended_by) = end.as_ref().map_or((0, ""), |end| (end.at.micros(), end.by.as_str()));
    tx.prepare_cached(&format!(
        "INSERT OR REPLACE INTO drills ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)"
    ))?
    .execute(params![
        id.0.as_bytes(),
        seq,
        name,
        area,
        grid,
        building,
        announced,
        by,
        started_at.micros(),
        ends_at.micros(),
        alarms,
        ended,
        ended_by
    ])
    .map(drop)
}

fn read(row: &Row<'_>) -> rusqlite::Result<Option<Drill>> {
    let Ok(id) = uuid::Uuid::from_slice(&row.get::<_, Vec<u8>>(0)?) else { return Ok(None) };
    let ended: i64 = row.get(11)?;
    Ok(Some(Drill {
        id: DrillId(id),
        seq: row.get(1)?,
        name: row.get(2)?,
        scope: Scope { area: row.get(3)?, grid: row.get(4)?, building: row.get(5)? },
        announced: row.get(6)?,
        by: row.get(7)?,
        started_at: Wall::from_micros(row.get(8)?),
        ends_at: Wall::from_micros(row.get(9)?),
        alarms: row.get(10)?,
        end: match ended {
            0 => None,
            at => Some(DrillEnd { at: Wall::from_micros(at), by: row.get(12)? }),
        },
    }))
}

/// Those that are on, the oldest first.
pub(super) fn on(conn: &Connection) -> rusqlite::Result<Vec<Arc<Drill>>> {
    let mut sql = conn.prepare(&format!("SELECT {COLUMNS} FROM drills WHERE ended = 0 ORDER BY started"))?;
    let rows = sql.query_map([], read)?;
    Ok(rows.filter_map(|row| row.ok().flatten().map(Arc::new)).collect())
}

/// The last to begin first.
pub(super) fn newest(conn: &Connection, limit: usize, before: Option<Wall>) -> rusqlite::Result<Vec<Drill>> {
    let sql = format!("SELECT {COLUMNS} FROM drills WHERE started < ?1 ORDER BY started DESC LIMIT ?2");
    let mut sql = conn.prepare_cached(&sql)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = sql.query_map(params![before.map_or(i64::MAX, Wall::micros), limit], read)?;
    rows.filter_map(Result::transpose).collect()
}

/// Of a drill that is over nobody knows how it ended.
pub(super) fn forget(conn: &Connection, id: DrillId) -> rusqlite::Result<()> {
    conn.execute("DELETE FROM drills WHERE id = ?1", [id.0.as_bytes()]).map(drop)
}

pub(super) fn one(conn: &Connection, id: DrillId) -> rusqlite::Result<Option<Drill>> {
    let mut sql = conn.prepare_cached(&format!("SELECT {COLUMNS} FROM drills WHERE id = ?1"))?;
    Ok(sql.query_row([id.0.as_bytes()], read).optional()?.flatten())
}

/// What of a damaged file is whole, read from both ends: a row or a page that cannot be read costs itself.
pub(super) fn carry_over(from: &Connection, into: &Connection) -> rusqlite::Result<()> {
    for way in ["ASC", "DESC"] {
        // A file of an older schema has none.
        let Ok(mut sql) = from.prepare(&format!("SELECT {COLUMNS} FROM drills ORDER BY id {way}")) else {
            return Ok(());
        };
        let rows = sql.query_map([], read)?;
        rows.filter_map(|row| row.ok().flatten()).try_for_each(|drill| write(into, &drill))?;
    }
    Ok(())
}

/// How many there are, and how many of them cannot be read.
pub(super) fn check(conn: &Connection) -> rusqlite::Result<(u64, u64)> {
    let mut sql = conn.prepare(&format!("SELECT {COLUMNS} FROM drills"))?;
    let rows: Vec<bool> = sql.query_map([], read)?.map(|row| row.is_ok_and(|drill| drill.is_some())).collect();
    Ok((rows.len() as u64, rows.iter().filter(|sound| !**sound).count() as u64))
}

/// When the first message about an alarm arrived, by way out.
pub(super) fn delivered(conn: &Connection, alarm: AlarmId) -> rusqlite::Result<Vec<(Arc<str>, Wall)>> {
    let sql = "SELECT channel, min(ended) FROM orders WHERE id >= ?1 AND id < ?2 AND state = 1
               GROUP BY channel ORDER BY min(ended), channel";
    let mut sql = conn.prepare_cached(sql)?;
    // Ids begin with the alarm's and a slash, which the next sign but one ends.
    let rows = sql.query_map([format!("{alarm}/"), format!("{alarm}0")], |row| {
        Ok((row.get::<_, String>(0)?.into(), Wall::from_micros(row.get(1)?)))
    })?;
    rows.collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use anmin_rules::incident::{Incident, IncidentCause, IncidentChange};

    use super::super::state::{OrderOutcome, StateReader, StateStore, Turn};
    use super::super::tests::TestDir;
    use super::super::{Disk, Fact, StoreError, salvage};
    use super::*;
    use crate::delivery::{Outcome, Receipt};
    use crate::samples::{self, RAISED};

    fn drill(n: u128, end: Option<DrillEnd>) -> Arc<Drill> {
        Arc::new(Drill {
            id: DrillId(uuid::Uuid::from_u128(n)),
            seq: 1,
            name: "季度演练".to_owned(),
            scope: Scope { building: "3".to_owned(), ..Scope::default() },
            announced: true,
            by: "li".to_owned(),
            started_at: RAISED.plus(std::time::Duration::from_secs(n as u64)),
            ends_at: RAISED.plus(std::time::Duration::from_secs(3_600)),
            alarms: 2,
            end,
        })
    }

    /// The file is gone beyond reading while a drill is on: it is on in the new one, and what was over is not.
    #[test]
    fn a_drill_that_is_on_outlives_a_file_that_breaks() {
        let dir = TestDir::new("drills-break");
        let (mut store, _) = StateStore::open(dir.path(), RAISED).expect("an empty folder");
        let end = DrillEnd { at: RAISED, by: "anmin".to_owned() };
        for facts in [vec![drill(1, None), drill(2, None), drill(3, None)], vec![drill(2, Some(end))]] {
            let facts: Vec<Fact> = facts.into_iter().map(Fact::Drill).collect();
            store.commit(&Turn { facts: &facts, ..Turn::default() }).expect("there is room");
        }
        let facts = [Fact::NoSession("plant".into())];
        let next = Turn { facts: &facts, ..Turn::default() };
        store.spoil();
        store.commit(&next).expect("the file is made anew");
        drop(store);
        let (mut store, restored) = StateStore::open(dir.path(), RAISED).expect("it was made anew");
        assert_eq!(restored.drills, [drill(1, None), drill(3, None)]);
        // Also of those that the start has found.
        store.spoil();
        store.commit(&next).expect("the file is made anew");
        drop(store);
        let (_, restored) = StateStore::open(dir.path(), RAISED).expect("it was made anew");
        assert_eq!(restored.drills, [drill(1, None), drill(3, None)]);
    }

    /// The disk comes back after the drill that the start had read was ended: it does not begin again.
    #[test]
    fn a_drill_that_ended_while_the_file_was_away_stays_ended() {
        let dir = TestDir::new("drills-late");
        let (mut store, _) = StateStore::open(dir.path(), RAISED).expect("an empty folder");
        store.commit(&Turn { facts: &[Fact::Drill(drill(1, None))], ..Turn::default() }).expect("there is room");
        drop(store);
        let full = Arc::new(AtomicBool::new(true));
        let is_full = Arc::clone(&full);
        let disk = Disk::scripted(move |file| match is_full.load(Ordering::SeqCst) {
            true => Err(StoreError::Full { file: file.to_owned() }),
            false => Ok(()),
        });
        let (mut store, restored) = StateStore::open_on(dir.path(), RAISED, disk).expect("it can be read");
        assert_eq!(restored.drills, [drill(1, None)]);
        let end = DrillEnd { at: RAISED, by: "li".to_owned() };
        let facts = [Fact::Drill(drill(1, Some(end)))];
        store.commit(&Turn { facts: &facts, ..Turn::default() }).expect_err("there is no room");
        full.store(false, Ordering::SeqCst);
        store.commit(&Turn::default()).expect("there is room again");
        assert_eq!(store.take_late().expect("the file was opened late").drills, []);
    }

    /// An alarm of the drill in an incident of it, one of the drill alone, and one that is real; the first was heard of.
    #[test]
    fn a_drill_is_kept_with_all_that_belongs_to_it_and_nothing_else() {
        let dir = TestDir::new("drills");
        let (mut store, _) = StateStore::open(dir.path(), RAISED).expect("an empty folder");
        let order = samples::order("a", 1, anmin_rules::rule::Level::Red);
        let anmin_rules::order::OrderBody::Event(real) = &order.body else { unreachable!("samples are events") };
        let mut alone = (**real).clone();
        Arc::make_mut(&mut alone.alarm).incident = None;
        let real = &Arc::new(alone);
        let played = |n: u128, incident| {
            let mut transition = (**real).clone();
            let alarm = Arc::make_mut(&mut transition.alarm);
            (alarm.id, alarm.drill, alarm.incident) =
                (AlarmId(uuid::Uuid::from_u128(n)), Some(drill(1, None).id), incident);
            Arc::new(transition)
        };
        let first = samples::incident_change();
        let incident = Incident { drill: Some(drill(1, None).id), ..Incident::clone(&first.incident) };
        let opened = IncidentChange { at: RAISED, cause: IncidentCause::Opened, incident: Arc::new(incident) };
        let transitions = [Arc::clone(real), played(50, Some(opened.incident.id)), played(51, None)];
        let orders = [anmin_rules::order::Order {
            id: anmin_rules::order::OrderId::new(format!("{}/1/office", transitions[1].alarm.id)),
            channel: "office".into(),
            body: anmin_rules::order::OrderBody::Event(Arc::clone(&transitions[1])),
        }];
        let facts = [drill(1, None), drill(2, None)].map(Fact::Drill);
        let incidents = [Arc::new(opened)];
        let turn = Turn {
            transitions: &transitions,
            incidents: &incidents,
            orders: &orders,
            facts: &facts,
            ..Turn::default()
        };
        store.commit(&turn).expect("there is room");
        let end = DrillEnd { at: RAISED, by: "anmin".to_owned() };
        let outcome = Outcome::Delivered(Receipt::of("HTTP 204"));
        let outcomes = [OrderOutcome { order: orders[0].id.clone(), outcome, at: RAISED }];
        let facts = [Fact::Drill(drill(2, Some(end.clone())))];
        store.commit(&Turn { facts: &facts, outcomes: &outcomes, ..Turn::default() }).expect("there is room");
        drop(store);

        let (_, restored) = StateStore::open(dir.path(), RAISED).expect("it was written above");
        assert_eq!(restored.drills, [drill(1, None)], "only what is on");
        let look = |dir: &std::path::Path| {
            let reader = StateReader::open(dir).expect("it is there");
            let rows = reader.of_drill(drill(1, None).id).expect("it can be read");
            assert_eq!(rows.len(), 3, "two alarms and an incident: {rows:#?}");
            assert_eq!(reader.drill(drill(2, None).id), Ok(Some((*drill(2, Some(end.clone()))).clone())));
            let all = reader.drills(10, None).expect("they can be read");
            assert_eq!(all.iter().map(|drill| drill.id.0.as_u128()).collect::<Vec<_>>(), [2, 1]);
            assert_eq!(reader.delivered(AlarmId(uuid::Uuid::from_u128(50))), Ok(vec![("office".into(), RAISED)]));
        };
        look(dir.path());

        // What is salvaged has the same.
        let saved = TestDir::new("drills-saved");
        drop(StateStore::open(saved.path(), RAISED).expect("an empty folder"));
        std::fs::remove_file(saved.path().join(super::super::state::FILE)).expect("it is there");
        drop(StateStore::open(saved.path(), RAISED).expect("an empty folder"));
        let file = saved.path().join(super::super::state::FILE);
        let mut into = Connection::open(&file).expect("it is there");
        into.execute("DELETE FROM meta", []).expect("it can be written");
        salvage::carry_over(&dir.path().join(super::super::state::FILE), &mut into, RAISED, i64::MAX)
            .expect("it is whole");
        drop(into);
        look(saved.path());
    }
}
