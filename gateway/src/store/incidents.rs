//! Incidents in state.db: the last row of each, what closed ones are found by, and which rows of the journal belong to which.
//!
//! An incident's own rows stand in the journal under its id, as an alarm's do. `threads` says to which incident the rows of
//! an alarm belong, to which drill those of an incident, and those of an incident that was merged into another: nothing is
//! rewritten when people merge and split.
//! Since schema 11 the table of [`super::registers`] has the words by which a closed one is found, in lower case; one that closed
//! before is looked for in its record. All of it says again what the journal says and is made anew from it where a file is damaged.

use anmin_rules::alarm::{Alarm, AlarmId};
#[cfg(doc)]
use anmin_rules::casework::CaseKind;
use anmin_rules::drill::DrillId;
use anmin_rules::incident::{Incident, IncidentChange, IncidentId, Outcome};
use anmin_sensors::time::Wall;
use memchr::memmem;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::registers;

/// Of the records with the words of closed incidents.
pub(super) const WORDS: &str = "words";

/// The step to schema 6. `closed` is 0 for an open one.
pub(super) const SCHEMA_6: &str = "
    CREATE TABLE incidents (
        id BLOB PRIMARY KEY,
        n INTEGER NOT NULL,
        closed INTEGER NOT NULL,
        building TEXT NOT NULL,
        outcome TEXT NOT NULL,
        cause TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX incidents_closed ON incidents (closed, id);
    CREATE INDEX incidents_of_building ON incidents (building, closed, id);
    CREATE INDEX incidents_by_outcome ON incidents (outcome, closed, id);
    CREATE TABLE threads (thread BLOB PRIMARY KEY, incident BLOB NOT NULL) WITHOUT ROWID;
    CREATE INDEX threads_of_incident ON threads (incident);
";

/// A closed incident's place in the list, the newest first: pages begin behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosedCursor(pub Wall, pub IncidentId);

/// Which closed incidents; the default is all but those that were merged into others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClosedFilter {
    pub building: Option<String>,
    /// A word of [`Outcome::as_str`].
    pub outcome: Option<String>,
    /// A word of [`Hazard::as_str`]: one of the dangers that were part of it.
    pub hazard: Option<String>,
    /// A word of [`CaseKind::as_str`]: what it was, if no emergency.
    pub case: Option<String>,
    /// Stands in its title, its place or the reason that was given, in either language; case is nothing.
    pub text: Option<String>,
    /// Closed at or after this moment, and before that one.
    pub from: Option<Wall>,
    pub to: Option<Wall>,
}

/// The change stands in row `n` of the journal.
pub(super) fn write(tx: &Connection, change: &IncidentChange, n: i64) -> rusqlite::Result<()> {
    let Incident { id, title, place, drill, hazards, notes, end, .. } = &*change.incident;
    let case = change.incident.case_kind().map(|kind| format!("\"{}\"", kind.as_str())).unwrap_or_default();
    let (closed, outcome, cause) = match end {
        None => (0, "", ""),
        Some(end) => {
            let cause = match end.outcome {
                Outcome::FalseAlarm(cause) => cause.as_str(),
                _ => "",
            };
            (end.at.micros(), end.outcome.as_str(), cause)
        }
    };
    tx.prepare_cached(
        "INSERT OR REPLACE INTO incidents (id, n, closed, building, outcome, cause) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![id.0.as_bytes(), n, closed, place.building, outcome, cause])?;
    if let Some(end) = end {
        let hazards = hazards.iter().map(|hazard| format!("\"{}\"", hazard.as_str())).collect::<String>();
        let mut words = vec![title.zh.clone(), title.en.clone(), place.zh(), place.en(), end.why.clone()];
        words.extend(notes.iter().map(|note| note.text.clone()));
        let words = words.join("\n").to_lowercase();
        registers::put(tx, WORDS, &id.0.simple().to_string(), &format!("{hazards}{case}\n{words}"))?;
    }
    if let Some(drill) = drill {
        join(tx, id.0, drill.0)?;
    }
    if let Some(Outcome::Merged(into)) = end.as_ref().map(|end| end.outcome) {
        tx.prepare_cached("UPDATE threads SET incident = ?2 WHERE incident = ?1")?
            .execute([id.0.as_bytes(), into.0.as_bytes()])?;
        join(tx, id.0, into.0)?;
    }
    Ok(())
}

/// The alarm is one of its incident's; one that has none may be a drill's.
pub(super) fn belongs(tx: &Connection, alarm: &Alarm) -> rusqlite::Result<()> {
    let AlarmId(id) = alarm.id;
    match (alarm.incident, alarm.drill) {
        (Some(incident), _) => join(tx, id, incident.0),
        (None, Some(drill)) => join(tx, id, drill.0),
        (None, None) => Ok(()),
    }
}

fn join(tx: &Connection, thread: uuid::Uuid, of: uuid::Uuid) -> rusqlite::Result<()> {
    let sql = "INSERT INTO threads (thread, incident) VALUES (?1, ?2)
               ON CONFLICT (thread) DO UPDATE SET incident = excluded.incident WHERE incident <> excluded.incident";
    tx.prepare_cached(sql)?.execute([thread.as_bytes(), of.as_bytes()]).map(drop)
}

/// Ids of the open ones, each with its last row.
pub(super) fn open(conn: &Connection) -> rusqlite::Result<Vec<(IncidentId, i64)>> {
    let mut sql = conn.prepare("SELECT id, n FROM incidents WHERE closed = 0 ORDER BY n")?;
    let rows = sql.query_map([], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get(1)?)))?;
    let named = rows.filter_map(|row| match row {
        Ok((id, n)) => uuid::Uuid::from_slice(&id).ok().map(|id| Ok((IncidentId(id), n))),
        Err(error) => Some(Err(error)),
    });
    named.collect()
}

/// Of an open incident nobody knows any more what became of it.
pub(super) fn forget(conn: &Connection, id: IncidentId) -> rusqlite::Result<()> {
    conn.execute("DELETE FROM incidents WHERE id = ?1", [id.0.as_bytes()]).map(drop)
}

/// Alarms that belong to it.
pub(super) fn count_alarms(conn: &Connection, id: IncidentId) -> rusqlite::Result<u32> {
    // Those of incidents that it has absorbed are its own by now; the incidents themselves are no alarms.
    let sql = "SELECT count(*) FROM threads WHERE incident = ?1
               AND NOT EXISTS (SELECT 1 FROM incidents WHERE incidents.id = threads.thread)";
    conn.prepare_cached(sql)?.query_row([id.0.as_bytes()], |row| row.get(0))
}

/// The last row of one incident.
pub(super) fn row_of(conn: &Connection, id: IncidentId) -> rusqlite::Result<Option<i64>> {
    let mut sql = conn.prepare_cached("SELECT n FROM incidents WHERE id = ?1")?;
    sql.query_row([id.0.as_bytes()], |row| row.get(0)).optional()
}

/// More of them than this are found sooner one after the other than all at once.
const MOST_HITS: usize = 5_000;

impl ClosedFilter {
    /// What must stand in the words of an incident.
    fn needles(&self) -> Vec<String> {
        let quoted = [&self.hazard, &self.case].into_iter().flatten().map(|word| format!("\"{word}\""));
        quoted.chain(self.text.as_ref().map(|text| text.to_lowercase())).collect()
    }
}

/// The incidents whose words hold all of these, looked for from the first word to the last; `None` where it is better to look
/// at them one after the other: there are many, or some have no words.
fn hits(conn: &Connection, needles: &[String]) -> rusqlite::Result<Option<Vec<uuid::Uuid>>> {
    let finders: Vec<memmem::Finder<'_>> = needles.iter().map(memmem::Finder::new).collect();
    let mut sql = conn.prepare_cached("SELECT id, cells FROM kept WHERE kind = ?1")?;
    let mut rows = sql.query([WORDS])?;
    let (mut with_words, mut found) = (0_i64, Vec::new());
    while let Some(row) = rows.next()? {
        with_words += 1;
        let ValueRef::Text(words) = row.get_ref(1)? else { continue };
        if !finders.iter().all(|finder| finder.find(words).is_some()) {
            continue;
        }
        if found.len() == MOST_HITS {
            return Ok(None);
        }
        found.extend(row.get::<_, String>(0).ok().and_then(|id| id.parse::<uuid::Uuid>().ok()));
    }
    let closed = "SELECT count(*) FROM incidents WHERE closed > 0";
    let closed: i64 = conn.prepare_cached(closed)?.query_row([], |row| row.get(0))?;
    Ok((with_words == closed).then_some(found))
}

/// Of these the last rows of those that pass, the one that closed last first.
fn of_hits(
    conn: &Connection,
    hits: &[uuid::Uuid],
    filter: &ClosedFilter,
    after: ClosedCursor,
    limit: usize,
) -> rusqlite::Result<Vec<i64>> {
    let mut sql = conn.prepare_cached("SELECT closed, n, building, outcome FROM incidents WHERE id = ?1")?;
    let mut found = Vec::new();
    for id in hits {
        let row = sql.query_row([id.as_bytes()], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, String>(2)?, row.get::<_, String>(3)?))
        });
        let Some((closed, n, building, outcome)) = row.optional()? else { continue };
        let within = closed >= filter.from.map_or(1, Wall::micros) && closed < filter.to.map_or(i64::MAX, Wall::micros);
        let ended = filter.outcome.as_ref().map_or(outcome != "merged", |wanted| *wanted == outcome);
        let there = filter.building.as_ref().is_none_or(|wanted| *wanted == building);
        if within && ended && there && (closed, *id) < (after.0.micros(), after.1.0) {
            found.push((closed, *id, n));
        }
    }
    found.sort_by(|a, b| b.cmp(a));
    found.truncate(limit);
    Ok(found.into_iter().map(|(.., n)| n).collect())
}

/// The last rows of closed incidents, the one that closed last first.
pub(super) fn closed(
    conn: &Connection,
    filter: &ClosedFilter,
    after: Option<ClosedCursor>,
    limit: usize,
) -> rusqlite::Result<Vec<i64>> {
    let ClosedFilter { building, outcome, hazard, case, text, from, to } = filter;
    let after = after.unwrap_or(ClosedCursor(Wall::from_micros(i64::MAX), IncidentId(uuid::Uuid::max())));
    let needles = filter.needles();
    if !needles.is_empty()
        && let Some(hits) = hits(conn, &needles)?
    {
        return of_hits(conn, &hits, filter, after, limit);
    }
    // Words of their own for each way to ask, so that SQLite takes the index that fits.
    let building_is = if building.is_some() { "building = ?5" } else { "?5 IS NULL" };
    let outcome_is = if outcome.is_some() { "outcome = ?6" } else { "?6 IS NULL AND outcome <> 'merged'" };
    // One without words closed before there were any: its record says it.
    let stands_in = |asked: bool, parameter: &str| match asked {
        false => format!("{parameter} IS NULL"),
        true => format!(
            "instr(coalesce((SELECT cells FROM kept WHERE kind = '{WORDS}' AND kept.id = lower(hex(incidents.id))),
                            (SELECT lower(record) FROM journal WHERE journal.n = incidents.n)), {parameter}) > 0"
        ),
    };
    let (hazard_is, text_is) = (stands_in(hazard.is_some(), "?8"), stands_in(text.is_some(), "?9"));
    // What closed before there were words was no case.
    let case_is = match case {
        None => "?10 IS NULL".to_owned(),
        Some(_) => format!(
            "instr(coalesce((SELECT cells FROM kept WHERE kind = '{WORDS}' AND kept.id = lower(hex(incidents.id))), ''), ?10) > 0"
        ),
    };
    let sql = format!(
        "SELECT n FROM incidents
         WHERE closed > 0 AND (closed, id) < (?1, ?2) AND closed >= ?3 AND closed < ?4 AND {building_is} AND {outcome_is}
               AND {hazard_is} AND {text_is} AND {case_is}
         ORDER BY closed DESC, id DESC LIMIT ?7"
    );
    let mut sql = conn.prepare_cached(&sql)?;
    let rows = sql.query_map(
        params![
            after.0.micros(),
            after.1.0.as_bytes(),
            from.map_or(1, Wall::micros),
            to.map_or(i64::MAX, Wall::micros),
            building,
            outcome,
            i64::try_from(limit).unwrap_or(i64::MAX),
            hazard.as_ref().map(|word| format!("\"{word}\"")),
            text.as_ref().map(|text| text.to_lowercase()),
            case.as_ref().map(|word| format!("\"{word}\"")),
        ],
        |row| row.get(0),
    )?;
    rows.collect()
}

/// Number and kind of the newest `limit` rows about one incident and all that belongs to it before row `before`, the newest
/// first.
pub(super) fn timeline(
    conn: &Connection,
    id: IncidentId,
    limit: usize,
    before: Option<i64>,
) -> rusqlite::Result<Vec<(i64, i64)>> {
    let sql = "SELECT n, kind FROM journal
               WHERE alarm IN (SELECT thread FROM threads WHERE incident = ?1 UNION ALL SELECT ?1) AND n < ?2
               ORDER BY n DESC LIMIT ?3";
    let mut sql = conn.prepare_cached(sql)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = sql
        .query_map(params![id.0.as_bytes(), before.unwrap_or(i64::MAX), limit], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

/// Number and kind of every row about one drill: its incidents, their alarms and calls, the oldest first.
pub(super) fn of_drill(conn: &Connection, id: DrillId) -> rusqlite::Result<Vec<(i64, i64)>> {
    let sql = "WITH RECURSIVE part (id) AS (
                   VALUES (?1) UNION SELECT thread FROM threads JOIN part ON threads.incident = part.id
               )
               SELECT n, kind FROM journal WHERE alarm IN (SELECT id FROM part) ORDER BY n";
    let mut sql = conn.prepare_cached(sql)?;
    let rows = sql.query_map([id.0.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

/// How incidents that closed within a stretch of time ended: outcome, cause and how many.
pub(super) fn outcomes(conn: &Connection, from: Wall, to: Wall) -> rusqlite::Result<Vec<(String, String, u64)>> {
    let sql = "SELECT outcome, cause, count(*) FROM incidents
               WHERE closed >= max(?1, 1) AND closed < ?2 AND outcome <> 'merged'
               GROUP BY outcome, cause ORDER BY count(*) DESC, outcome, cause";
    let mut sql = conn.prepare_cached(sql)?;
    let rows = sql.query_map([from.micros(), to.micros()], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get::<_, i64>(2)?.unsigned_abs()))
    })?;
    rows.collect()
}
