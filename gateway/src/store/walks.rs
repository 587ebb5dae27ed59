//! Walk tests in state.db, in the table of [`super::registers`]: a row for each walk as it stood after its last change (`walk`, its
//! id), and one for each point that spoke in it (`tick`, the walk's id, a slash and the point).
//!
//! When a point was last tested is what the second kind says, so no point has a row of its own. Who started and ended a walk,
//! and what was ticked off, is in the audit, too. A row that is not as it was written is left out: its point counts as not tested.

use std::collections::BTreeMap;
use std::sync::Arc;

use anmin_rules::drill::Scope;
use anmin_rules::rule::{Level, RuleId};
use anmin_rules::walk::{Tick, TickEnd, Walk, WalkId};
use anmin_sensors::point::{Kind, Place, PointId};
use anmin_sensors::time::Wall;
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::registers::{put, records};

const WALK: &str = "walk";
const TICK: &str = "tick";

/// A walk that was on, with the points that have spoken in it.
pub type On = (Arc<Walk>, Vec<PointId>);

/// Times are microseconds of the wall clock.
#[derive(Serialize, Deserialize)]
struct WalkRecord {
    seq: u32,
    name: String,
    /// Area, grid, building.
    scope: [String; 3],
    kinds: Vec<String>,
    by: String,
    started: i64,
    ends: i64,
    points: u32,
    ticked: u32,
    /// When and by whom.
    ended: Option<(i64, String)>,
}

#[derive(Serialize, Deserialize)]
struct TickRecord {
    kind: String,
    /// Area, grid, building, unit, floor, room.
    place: [String; 6],
    rule: String,
    level: String,
    value: Option<f64>,
    at: i64,
    ended: Option<(i64, String)>,
}

pub(super) fn write(tx: &Connection, walk: &Walk) -> rusqlite::Result<()> {
    let Scope { area, grid, building } = walk.scope.clone();
    let record = WalkRecord {
        seq: walk.seq,
        name: walk.name.clone(),
        scope: [area, grid, building],
        kinds: walk.kinds.iter().map(|kind| kind.as_str().to_owned()).collect(),
        by: walk.by.clone(),
        started: walk.started_at.micros(),
        ends: walk.ends_at.micros(),
        points: walk.points,
        ticked: walk.ticked,
        ended: walk.end.as_ref().map(|(at, by)| (at.micros(), by.clone())),
    };
    let text = serde_json::to_string(&record).expect("texts and numbers are JSON");
    put(tx, WALK, &walk.id.to_string(), &text)
}

pub(super) fn write_tick(tx: &Connection, tick: &Tick) -> rusqlite::Result<()> {
    let Place { area, grid, building, unit, floor, room, .. } = (*tick.place).clone();
    let record = TickRecord {
        kind: tick.kind.as_str().to_owned(),
        place: [area, grid, building, unit, floor, room],
        rule: tick.rule.to_string(),
        level: tick.level.as_str().to_owned(),
        value: tick.value,
        at: tick.at.micros(),
        ended: tick.end.map(|(at, how)| (at.micros(), how.as_str().to_owned())),
    };
    let text = serde_json::to_string(&record).expect("texts and numbers are JSON");
    put(tx, TICK, &format!("{}/{}", tick.walk, tick.point), &text)
}

fn read(id: &str, text: &str) -> Option<Walk> {
    let record: WalkRecord = serde_json::from_str(text).ok()?;
    let [area, grid, building] = record.scope;
    Some(Walk {
        id: WalkId(id.parse().ok()?),
        seq: record.seq,
        name: record.name,
        scope: Scope { area, grid, building },
        kinds: record.kinds.iter().map(|word| Kind::named(word)).collect::<Option<_>>()?,
        by: record.by,
        started_at: Wall::from_micros(record.started),
        ends_at: Wall::from_micros(record.ends),
        points: record.points,
        ticked: record.ticked,
        end: record.ended.map(|(at, by)| (Wall::from_micros(at), by)),
    })
}

fn read_tick(id: &str, text: &str) -> Option<Tick> {
    let (walk, point) = id.split_once('/')?;
    let record: TickRecord = serde_json::from_str(text).ok()?;
    let [area, grid, building, unit, floor, room] = record.place;
    let end = match record.ended {
        None => None,
        Some((at, how)) => Some((Wall::from_micros(at), TickEnd::named(&how)?)),
    };
    Some(Tick {
        walk: WalkId(walk.parse().ok()?),
        point: PointId::new(point),
        kind: Kind::named(&record.kind)?,
        place: Arc::new(Place { area, grid, building, unit, floor, room, ..Place::default() }),
        rule: RuleId::new(record.rule),
        level: Level::named(&record.level)?,
        value: record.value,
        at: Wall::from_micros(record.at),
        end,
    })
}

/// The last to begin first. Walks are few: one a building and year.
fn walks(conn: &Connection) -> rusqlite::Result<Vec<Walk>> {
    let rows = records(conn, WALK, "")?;
    let mut walks: Vec<Walk> = rows.iter().filter_map(|(id, text)| read(id, text)).collect();
    walks.sort_by_key(|walk| std::cmp::Reverse(walk.started_at));
    Ok(walks)
}

/// Those that are on, the oldest first.
pub(super) fn on(conn: &Connection) -> rusqlite::Result<Vec<(Arc<Walk>, Vec<Tick>)>> {
    let on = walks(conn)?.into_iter().rev().filter(Walk::is_on);
    on.map(|walk| Ok((Arc::new(walk.clone()), ticks(conn, walk.id)?))).collect()
}

/// The last to begin first.
pub(super) fn newest(conn: &Connection, limit: usize, before: Option<Wall>) -> rusqlite::Result<Vec<Walk>> {
    let mut walks = walks(conn)?;
    walks.retain(|walk| before.is_none_or(|before| walk.started_at < before));
    walks.truncate(limit);
    Ok(walks)
}

pub(super) fn one(conn: &Connection, id: WalkId) -> rusqlite::Result<Option<Walk>> {
    let id = id.to_string();
    let rows = records(conn, WALK, &id)?;
    Ok(rows.iter().find_map(|(id, text)| read(id, text)))
}

/// Of a walk that is over nobody knows how it ended; what was tested stays tested.
pub(super) fn forget(conn: &Connection, id: WalkId) -> rusqlite::Result<()> {
    conn.execute("DELETE FROM kept WHERE kind = ?1 AND id = ?2", [WALK, &id.to_string()]).map(drop)
}

/// The points that spoke in a walk, in the order in which they did.
pub(super) fn ticks(conn: &Connection, id: WalkId) -> rusqlite::Result<Vec<Tick>> {
    let rows = records(conn, TICK, &format!("{id}/"))?;
    let mut ticks: Vec<Tick> = rows.iter().filter_map(|(id, text)| read_tick(id, text)).collect();
    ticks.sort_by_key(|tick| tick.at);
    Ok(ticks)
}

/// When each point was last tested and fell silent again. A test that turned out to be real is none.
pub(super) fn last_tested(conn: &Connection) -> rusqlite::Result<BTreeMap<PointId, Wall>> {
    let mut tested = BTreeMap::new();
    for tick in records(conn, TICK, "")?.iter().filter_map(|(id, text)| read_tick(id, text)) {
        if matches!(tick.end, Some((_, TickEnd::Returned))) {
            let last = tested.entry(tick.point).or_insert(tick.at);
            *last = tick.at.max(*last);
        }
    }
    Ok(tested)
}

/// The last of these points' ticks that was a test.
pub(super) fn last_test(conn: &Connection, points: &[PointId]) -> rusqlite::Result<Option<Tick>> {
    let of_these = |id: &str| id.split_once('/').is_some_and(|(_, of)| points.iter().any(|point| point.as_str() == of));
    let rows = records(conn, TICK, "")?;
    let ticks = rows.iter().filter(|(id, _)| of_these(id)).filter_map(|(id, text)| read_tick(id, text));
    Ok(ticks.filter(|tick| matches!(tick.end, Some((_, TickEnd::Returned)))).max_by_key(|tick| tick.at))
}

#[cfg(test)]
mod tests {
    use super::super::registers::{Change, Kind as Register, Row};
    use super::super::state::{FILE, StateReader, StateStore, Turn};
    use super::super::tests::TestDir;
    use super::super::{Fact, salvage};
    use super::*;
    use crate::samples::RAISED;

    fn walk(n: u128, end: Option<(Wall, String)>) -> Arc<Walk> {
        Arc::new(Walk {
            id: WalkId(uuid::Uuid::from_u128(n)),
            seq: 2,
            name: "年检".to_owned(),
            scope: Scope { building: "3".to_owned(), ..Scope::default() },
            kinds: ["fire.smoke", "care.sos"].map(|kind| Kind::named(kind).expect("a kind of the table")).to_vec(),
            by: "li".to_owned(),
            started_at: RAISED.plus(std::time::Duration::from_secs(n as u64)),
            ends_at: RAISED.plus(std::time::Duration::from_secs(7_200)),
            points: 12,
            ticked: 1,
            end,
        })
    }

    fn tick(n: u128, point: &str, end: Option<TickEnd>) -> Arc<Tick> {
        let place = Place { building: "3".to_owned(), room: "\"501\"".to_owned(), ..Place::default() };
        Arc::new(Tick {
            walk: WalkId(uuid::Uuid::from_u128(n)),
            point: PointId::new(point),
            kind: Kind::named("gas.lel").expect("a kind of the table"),
            place: Arc::new(place),
            rule: RuleId::new("gas/leak"),
            level: Level::Red,
            value: Some(60.5),
            at: RAISED.plus(std::time::Duration::from_secs(10 * n as u64)),
            end: end.map(|how| (RAISED.plus(std::time::Duration::from_secs(900)), how)),
        })
    }

    fn facts() -> Vec<Fact> {
        vec![
            Fact::Walk(walk(1, Some((RAISED, "anmin".to_owned())))),
            Fact::Walk(walk(2, None)),
            Fact::Tick(tick(1, "d1/lel", Some(TickEnd::Returned))),
            Fact::Tick(tick(1, "d2/lel", Some(TickEnd::Real))),
            Fact::Tick(tick(2, "d1/lel", None)),
            Fact::Tick(tick(2, "d1/lel", Some(TickEnd::Returned))),
            Fact::Tick(tick(2, "d3/lel", None)),
        ]
    }

    fn look(dir: &std::path::Path) {
        let reader = StateReader::open(dir).expect("it is there");
        let all = reader.walks(10, None).expect("they can be read");
        assert_eq!(all, [(*walk(2, None)).clone(), (*walk(1, Some((RAISED, "anmin".to_owned())))).clone()]);
        let found = reader.walk(walk(2, None).id).expect("it can be read").expect("it is there");
        assert_eq!(found.0, *walk(2, None));
        let wanted = [(*tick(2, "d1/lel", Some(TickEnd::Returned))).clone(), (*tick(2, "d3/lel", None)).clone()];
        assert_eq!(found.1, wanted);
        let tested = reader.last_tested().expect("it can be read");
        let wanted = tick(2, "d1/lel", None).at;
        assert_eq!(
            tested.into_iter().collect::<Vec<_>>(),
            [(PointId::new("d1/lel"), wanted)],
            "real ones are no tests"
        );
        let last = |points: &[&str]| {
            let points: Vec<PointId> = points.iter().map(|point| PointId::new(*point)).collect();
            let found = reader.last_test(&points).expect("it can be read");
            found.map(|(tick, walk)| (tick.point, walk.map(|walk| walk.by)))
        };
        assert_eq!(last(&["d2/lel", "d3/lel", "1/lel"]), None, "neither what was real nor what still speaks");
        assert_eq!(last(&["d3/lel", "d1/lel"]), Some((PointId::new("d1/lel"), Some("li".to_owned()))));
    }

    #[test]
    fn a_walk_is_kept_with_its_ticks_and_salvaged_with_them() {
        let dir = TestDir::new("walks");
        let (mut store, _) = StateStore::open(dir.path(), RAISED).expect("an empty folder");
        store.commit(&Turn { facts: &facts(), ..Turn::default() }).expect("there is room");
        drop(store);
        let (_, restored) = StateStore::open(dir.path(), RAISED).expect("it was written above");
        let ticked = [PointId::new("d1/lel"), PointId::new("d3/lel")];
        assert_eq!(restored.walks, [(walk(2, None), ticked.to_vec())], "only what is on");
        look(dir.path());

        let saved = TestDir::new("walks-saved");
        drop(StateStore::open(saved.path(), RAISED).expect("an empty folder"));
        let mut into = Connection::open(saved.path().join(FILE)).expect("it is there");
        into.execute("DELETE FROM meta", []).expect("it can be written");
        salvage::carry_over(&dir.path().join(FILE), &mut into, RAISED, i64::MAX).expect("it is whole");
        drop(into);
        look(saved.path());
    }

    /// The file is gone beyond reading while a walk is on: it is on in the new one, with what was ticked off.
    #[test]
    fn a_walk_that_is_on_outlives_a_file_that_breaks() {
        let dir = TestDir::new("walks-break");
        let (mut store, _) = StateStore::open(dir.path(), RAISED).expect("an empty folder");
        store.commit(&Turn { facts: &facts(), ..Turn::default() }).expect("there is room");
        for _ in 0..2 {
            store.spoil();
            let next = [Fact::NoSession("plant".into())];
            store.commit(&Turn { facts: &next, ..Turn::default() }).expect("the file is made anew");
            drop(store);
            let restored;
            // The second time of what the start has found.
            (store, restored) = StateStore::open(dir.path(), RAISED).expect("it was made anew");
            let ticked = [PointId::new("d1/lel"), PointId::new("d3/lel")];
            assert_eq!(restored.walks, [(walk(2, None), ticked.to_vec())]);
        }
    }

    /// All that can be read of the file that broke is how it was once.
    #[test]
    fn what_has_ended_or_gone_is_not_there_again_after_a_file_breaks() {
        let dir = TestDir::new("walks-older");
        let cells = [("id", "W-1"), ("name", "毯"), ("quantity", "3")].map(|(name, cell)| (name.into(), cell.into()));
        let row = Row::read(Register::Stock, &cells.into()).expect("it is sound");
        let gone = Change::Gone(Register::Stock, row.id().to_owned());
        let (mut store, _) = StateStore::open(dir.path(), RAISED).expect("an empty folder");
        let mut before = facts();
        before.push(Fact::Register(Box::new(Change::Row(row))));
        store.commit(&Turn { facts: &before, ..Turn::default() }).expect("there is room");
        drop(store);
        let older = std::fs::read(dir.path().join(FILE)).expect("it is there");

        let (mut store, _) = StateStore::open(dir.path(), RAISED).expect("it was written above");
        let after = [Fact::Walk(walk(2, Some((RAISED, "li".to_owned())))), Fact::Register(Box::new(gone))];
        store.commit(&Turn { facts: &after, ..Turn::default() }).expect("there is room");
        store.spoil();
        std::fs::write(dir.path().join(FILE), older).expect("it can be written");
        let next = [Fact::NoSession("plant".into())];
        store.commit(&Turn { facts: &next, ..Turn::default() }).expect("the file is taken up");
        drop(store);
        let (_, restored) = StateStore::open(dir.path(), RAISED).expect("it is in order");
        assert_eq!(restored.walks, []);
        let reader = StateReader::open(dir.path()).expect("it is there");
        assert_eq!(reader.register(Register::Stock).expect("it can be read"), []);
        assert_eq!(reader.last_tested().expect("it can be read").len(), 1, "what was tested stays tested");
    }

    #[test]
    fn a_file_of_schema_10_takes_up_walks() {
        let dir = TestDir::new("walks-schema-10");
        drop(StateStore::open(dir.path(), RAISED).expect("an empty folder"));
        let conn = Connection::open(dir.path().join(FILE)).expect("it is there");
        conn.execute_batch("DROP TABLE kept; PRAGMA user_version = 10").expect("it is of this schema");
        drop(conn);
        let (mut store, restored) = StateStore::open(dir.path(), RAISED).expect("it is taken up");
        assert_eq!((restored.walks, restored.notes), (vec![], vec![]));
        store.commit(&Turn { facts: &facts(), ..Turn::default() }).expect("there is room");
        drop(store);
        look(dir.path());
    }
}
