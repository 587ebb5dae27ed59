//! Both databases checked to the last byte, and mended where that is asked for.
//!
//! [`check`] only reads, and may do so while the daemon runs. [`repair`] wants the directory for itself. Whatever it
//! takes out stands in the file that it sets aside first, so that nothing is lost that a person could still look into.

use std::collections::HashSet;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use anmin_rules::rule::Text;
use anmin_sensors::time::Wall;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags, Row};

use super::audit::{Deed, Through, Way};
use super::{DirLock, StoreError, column, drills, duty, people, readings, registers, set_aside, state, unusable};

/// Lines of SQLite's own check, and faults of one kind, that are told one by one.
const MOST_TOLD: usize = 20;

/// What was found in one database.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    pub file: &'static str,
    /// What it holds: a word and how many.
    pub holds: Vec<(Text, u64)>,
    /// Nothing here: it is sound.
    pub faults: Vec<Text>,
}

impl Checked {
    fn new(file: &'static str) -> Self {
        Self { file, holds: Vec::new(), faults: Vec::new() }
    }

    pub fn is_sound(&self) -> bool {
        self.faults.is_empty()
    }

    fn fault(&mut self, zh: impl Into<String>, en: impl Into<String>) {
        self.faults.push(Text { zh: zh.into(), en: en.into() });
    }

    /// One fault for all of its kind, which names the first few.
    fn faults_of(&mut self, zh: &str, en: &str, which: &[String]) {
        if which.is_empty() {
            return;
        }
        let more = if which.len() > MOST_TOLD { " …" } else { "" };
        let named = which.iter().take(MOST_TOLD).map(String::as_str).collect::<Vec<_>>().join(", ");
        self.fault(format!("{zh} {} 个：{named}{more}", which.len()), format!("{} {en}: {named}{more}", which.len()));
    }

    fn holds(&mut self, zh: &str, en: &str, count: u64) {
        self.holds.push((Text { zh: zh.to_owned(), en: en.to_owned() }, count));
    }
}

/// Checks the databases in `dir`. An error says that a file could not be opened at all, or is of a newer anmin.
pub fn check(dir: &Path) -> Result<Vec<Checked>, StoreError> {
    let mut all = Vec::new();
    for (file, known, look) in [
        (state::FILE, state::MIGRATIONS.len(), check_state as fn(&Connection, &mut Checked) -> Result<(), StoreError>),
        (readings::FILE, readings::MIGRATIONS.len(), check_readings),
    ] {
        let mut checked = Checked::new(file);
        match open(dir, file, known as i64, &mut checked) {
            Ok(Some(conn)) => match look(&conn, &mut checked) {
                Ok(()) => {}
                Err(StoreError::Damaged { why, .. }) => {
                    checked.fault(format!("读取中断：{why}"), format!("it cannot be read to its end: {why}"));
                }
                Err(error) => return Err(error),
            },
            Ok(None) => {}
            Err(StoreError::Damaged { why, .. }) => {
                checked.fault(format!("SQLite 无法读取：{why}"), format!("SQLite cannot read it: {why}"))
            }
            Err(error) => return Err(error),
        }
        all.push(checked);
    }
    Ok(all)
}

/// What a short look at a database has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glance {
    /// There is none yet.
    Absent,
    Sound,
    /// What could be read in time was sound.
    SoundSoFar,
}

/// The databases that [`glance`] knows.
pub const FILES: [&str; 2] = [state::FILE, readings::FILE];

/// Looks at one database for no longer than `most`: SQLite's quick check, without what stands in the records. It only reads, and
/// may do so while the daemon runs. The error says what is wrong with the file, or why it cannot be read.
pub fn glance(dir: &Path, file: &'static str, most: Duration) -> Result<Glance, StoreError> {
    let path = dir.join(file);
    let err = |error| StoreError::sqlite(file, error);
    match std::fs::metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Glance::Absent),
        Err(error) => return Err(StoreError::io(file, &error)),
        // As SQLite leaves it before the first table.
        Ok(meta) if meta.len() == 0 => return Ok(Glance::Absent),
        Ok(_) => {}
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(&path, flags).map_err(err)?;
    conn.busy_timeout(most).map_err(err)?;
    let known = if file == state::FILE { state::MIGRATIONS.len() } else { readings::MIGRATIONS.len() } as i64;
    let found: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(err)?;
    if found > known && found <= super::MOST_SCHEMAS {
        return Err(StoreError::Newer { file: file.to_owned(), found, known });
    }
    let interrupt = conn.get_interrupt_handle();
    let (done, is_done) = mpsc::channel::<()>();
    let said: Result<String, rusqlite::Error> = std::thread::scope(|scope| {
        scope.spawn(move || {
            // The other end goes when the check has come to its own.
            if is_done.recv_timeout(most) == Err(mpsc::RecvTimeoutError::Timeout) {
                interrupt.interrupt();
            }
        });
        let said = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0));
        drop(done);
        said
    });
    match said {
        Ok(said) if said == "ok" => Ok(Glance::Sound),
        Ok(why) => Err(StoreError::Damaged { file: file.to_owned(), why }),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => Ok(Glance::SoundSoFar),
        Err(error) => Err(err(error)),
    }
}

/// Mends what [`check`] found. The texts say what was done, and the audit that `who` did it. Refuses while a daemon runs.
pub fn repair(dir: &Path, found: &[Checked], now: Wall, who: &str) -> Result<Vec<Text>, StoreError> {
    let _lock = DirLock::take(dir)?;
    let mut done = Vec::new();
    for checked in found.iter().filter(|checked| !checked.is_sound()) {
        let path = dir.join(checked.file);
        if checked.file == state::FILE {
            done.push(state::rebuild(&path, now)?);
        } else {
            let bad = set_aside(&path, now).map_err(|error| StoreError::io(checked.file, &error))?;
            let (kept, lost) = readings::rebuild(&bad, &path)?;
            let shown = bad.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            done.push(Text {
                zh: format!("{} 已另存为 {shown}；新文件保留完好的数据块 {kept} 个，丢弃 {lost} 个", checked.file),
                en: format!(
                    "{} is kept as {shown}; the new file holds {kept} sound blocks, {lost} were left out",
                    checked.file
                ),
            });
        }
    }
    let detail = serde_json::json!({ "done": done.iter().map(|text| text.en.as_str()).collect::<Vec<_>>() });
    let (who, from) = (who.to_owned(), Way::of(Through::CommandLine));
    let deed = Deed { who, from, ..Deed::of_anmin(now, "system.repair", detail) };
    state::note(&dir.join(state::FILE), &deed)?;
    Ok(done)
}

fn open(dir: &Path, file: &'static str, known: i64, checked: &mut Checked) -> Result<Option<Connection>, StoreError> {
    let path = dir.join(file);
    let err = |error| StoreError::sqlite(file, error);
    match std::fs::metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            checked.fault("文件不存在", "there is no such file");
            return Ok(None);
        }
        Err(error) => return Err(StoreError::io(file, &error)),
        Ok(meta) if meta.is_dir() => {
            checked.fault("是文件夹而不是文件", "it is a folder");
            return Ok(None);
        }
        Ok(meta) if meta.len() == 0 => {
            checked.fault("空文件", "it is empty");
            return Ok(None);
        }
        Ok(_) => {}
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(&path, flags).map_err(err)?;
    conn.busy_timeout(Duration::from_secs(10)).map_err(err)?;
    let found: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(err)?;
    if found > known && found <= super::MOST_SCHEMAS {
        return Err(StoreError::Newer { file: file.to_owned(), found, known });
    }
    if found != known {
        // An older one becomes a newer one with the next start; every table that is looked into has been there always.
        checked.faults_of("结构版本不符", "number of its schema is not ours", &[found.to_string()]);
    }
    // All of it as of one moment, whatever the daemon writes meanwhile.
    conn.execute_batch("BEGIN").map_err(err)?;
    let lines: Vec<String> = conn
        .prepare(&format!("PRAGMA integrity_check({MOST_TOLD})"))
        .and_then(|mut sql| sql.query_map([], |row| row.get(0))?.collect())
        .map_err(err)?;
    for line in lines.iter().filter(|line| *line != "ok") {
        checked.fault(format!("SQLite 检查：{line}"), format!("SQLite says: {line}"));
    }
    Ok(Some(conn))
}

fn check_state(conn: &Connection, checked: &mut Checked) -> Result<(), StoreError> {
    let count = |sql: &str| -> Result<u64, StoreError> {
        conn.query_row(sql, [], |row| row.get::<_, i64>(0))
            .map(i64::unsigned_abs)
            .map_err(|error| StoreError::sqlite(state::FILE, error))
    };
    checked.holds("日志记录", "records of the journal", count("SELECT count(*) FROM journal")?);
    checked.holds("未关闭报警", "open alarms", count("SELECT count(*) FROM heads")?);
    checked.holds("未结案事件", "open incidents", open_incidents(conn)?);
    checked.holds("指令", "orders", count("SELECT count(*) FROM orders")?);
    checked.holds("待发指令", "pending orders", count("SELECT count(*) FROM orders WHERE state = 0")?);
    checked.holds("死信", "dead letters", count("SELECT count(*) FROM orders WHERE state = 2")?);
    // A file of an older schema has no audit.
    if is_there(conn, "audit").map_err(|error| StoreError::sqlite(state::FILE, error))? {
        checked.holds("审计记录", "rows of the audit", count("SELECT count(*) FROM audit")?);
    }
    check_desk(conn, checked).map_err(|error| StoreError::sqlite(state::FILE, error))?;
    let (known, damaged) = people::check(conn).map_err(|error| StoreError::sqlite(state::FILE, error))?;
    checked.holds("账号", "accounts", known.accounts.len() as u64);
    if damaged > 0 {
        checked.fault(
            format!("{damaged} 条账号、登录或令牌记录校验失败，已不起作用"),
            format!("{damaged} rows of accounts, sign-ins or tokens fail their hash and give no right"),
        );
    }
    let (rows, damaged) = registers::check(conn).map_err(|error| StoreError::sqlite(state::FILE, error))?;
    checked.holds("登记表记录", "rows of registers", rows);
    if damaged > 0 {
        checked.fault(
            format!("{damaged} 条登记表记录校验失败，不再显示"),
            format!("{damaged} rows of registers fail their hash and are not shown"),
        );
    }
    let found = state::check(conn)?;
    let numbers = |rows: &[i64]| rows.iter().map(ToString::to_string).collect::<Vec<_>>();
    checked.faults_of(
        "校验失败或不连续的记录",
        "records fail their hash or do not follow the one before",
        &numbers(&found.bad_rows),
    );
    let orders: Vec<String> = found.bad_orders.iter().map(ToString::to_string).collect();
    checked.faults_of("无法读取的指令", "orders cannot be read", &orders);
    let astray = count("SELECT count(*) FROM heads WHERE n NOT IN (SELECT n FROM journal)")?
        + count("SELECT count(*) FROM calls WHERE n NOT IN (SELECT n FROM journal)")?;
    if astray > 0 {
        checked.fault(
            format!("{astray} 个未关闭报警或调派没有对应的记录"),
            format!("{astray} open alarms or calls name a record that is not there"),
        );
    }
    if is_there(conn, "incidents").map_err(|error| StoreError::sqlite(state::FILE, error))? {
        let astray = count("SELECT count(*) FROM incidents WHERE n NOT IN (SELECT n FROM journal WHERE kind = 3)")?;
        if astray > 0 {
            checked.fault(
                format!("{astray} 个事件没有对应的记录"),
                format!("{astray} incidents name a record that is not there"),
            );
        }
    }
    Ok(())
}

/// What people have said of stations, drills, and how far subscribers were told.
fn check_desk(conn: &Connection, checked: &mut Checked) -> rusqlite::Result<()> {
    // A file of an older schema lacks one or the other.
    if is_there(conn, "duty")? {
        let found = duty::read(conn)?;
        checked.holds("消防站记录", "stations that something was said of", found.len() as u64);
        let bad: Vec<String> =
            found.into_iter().filter(|(_, found)| found.is_err()).map(|(station, _)| station).collect();
        checked.faults_of("校验失败的消防站记录", "rows of stations fail their hash", &bad);
    }
    if is_there(conn, "drills")? {
        let (all, bad) = drills::check(conn)?;
        checked.holds("演练", "drills", all);
        if bad > 0 {
            checked.fault(format!("{bad} 条演练记录无法读取"), format!("{bad} rows of drills cannot be read"));
        }
    }
    if is_there(conn, "cursors")? {
        let count = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs);
        checked.holds("订阅方进度", "subscribers that were told something", count("SELECT count(*) FROM cursors")?);
        let beyond = "SELECT count(*) FROM cursors WHERE typeof(n) <> 'integer' OR n < 0 \
                      OR n > (SELECT coalesce(max(n), 0) FROM journal)";
        let astray = count(beyond)?;
        if astray > 0 {
            checked.fault(
                format!("{astray} 个订阅方的进度超出日志"),
                format!("{astray} subscribers were told of records that are not there"),
            );
        }
    }
    Ok(())
}

fn open_incidents(conn: &Connection) -> Result<u64, StoreError> {
    if !is_there(conn, "incidents").map_err(|error| StoreError::sqlite(state::FILE, error))? {
        return Ok(0);
    }
    let sql = "SELECT count(*) FROM incidents WHERE closed = 0";
    let found = conn.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs);
    found.map_err(|error| StoreError::sqlite(state::FILE, error))
}

fn check_readings(conn: &Connection, checked: &mut Checked) -> Result<(), StoreError> {
    let points: HashSet<i64> = conn
        .prepare("SELECT number FROM points")
        .and_then(|mut sql| sql.query_map([], |row| row.get(0))?.collect())
        .map_err(readings::sqlite)?;
    let (mut batches, mut chunks, mut queued, mut kept) = (0, 0, 0, 0);
    let (mut bad_batches, mut bad_chunks) = (Vec::new(), Vec::new());
    each_row(conn, "SELECT id, samples, body FROM queue ORDER BY id", |row| {
        batches += 1;
        let (id, samples) = (row.get::<_, i64>(0)?, row.get::<_, i64>(1)?);
        let read = blob(row, 2).and_then(|body| column::decode_batch(body).ok());
        match read {
            Some(read)
                if read.len() as i64 == samples && read.iter().all(|one| points.contains(&i64::from(one.point))) =>
            {
                queued += read.len() as u64;
            }
            _ => bad_batches.push(id.to_string()),
        }
        Ok(())
    })?;
    let mut cells = Vec::new();
    each_row(conn, "SELECT id, point, samples, first, last, body, members FROM chunks ORDER BY id", |row| {
        chunks += 1;
        let (id, point, samples) = (row.get::<_, i64>(0)?, row.get::<_, u32>(1)?, row.get::<_, i64>(2)?);
        let span = (row.get::<_, i64>(3)?, row.get::<_, i64>(4)?);
        let owners = blob(row, 5)
            .and_then(|body| column::decode_shared(body, blob(row, 6), point, &mut cells).ok())
            .filter(|owners| owners.iter().all(|(point, _)| points.contains(&i64::from(*point))));
        let times = || cells.iter().map(|cell| cell.time);
        let spans = times().min().zip(times().max()) == Some(span);
        if owners.is_some() && spans && cells.len() as i64 == samples {
            kept += cells.len() as u64;
        } else {
            bad_chunks.push(id.to_string());
        }
        Ok(())
    })?;
    checked.holds("测点", "points", points.len() as u64);
    checked.holds("队列批次", "batches in the queue", batches);
    checked.holds("队列读数", "readings in the queue", queued);
    checked.holds("历史数据块", "blocks of history", chunks);
    checked.holds("历史读数", "readings of history", kept);
    check_unusable(conn, checked)?;
    checked.faults_of(
        "无法读取或数目不符的批次",
        "batches cannot be read or hold another number than they say",
        &bad_batches,
    );
    checked.faults_of(
        "无法读取或数目不符的数据块",
        "blocks of history cannot be read or hold another number than they say",
        &bad_chunks,
    );
    Ok(())
}

fn check_unusable(conn: &Connection, checked: &mut Checked) -> Result<(), StoreError> {
    // A file of an older schema has none.
    if !is_there(conn, "unusable").map_err(readings::sqlite)? {
        return Ok(());
    }
    let (mut count, mut bad) = (0, Vec::new());
    each_row(conn, "SELECT * FROM unusable ORDER BY n", |row| {
        count += 1;
        let values = (0..10).map(|n| row.get(n)).collect::<rusqlite::Result<Vec<_>>>();
        if !values.is_ok_and(|values| unusable::is_sound(&values)) {
            bad.push(row.get::<_, i64>(0)?.to_string());
        }
        Ok(())
    })?;
    checked.holds("隔离区消息", "payloads in quarantine", count);
    checked.faults_of("校验失败的隔离区消息", "payloads in quarantine fail their hash", &bad);
    Ok(())
}

fn is_there(conn: &Connection, table: &str) -> rusqlite::Result<bool> {
    conn.prepare("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1")?.exists([table])
}

fn each_row(
    conn: &Connection,
    sql: &str,
    mut each: impl FnMut(&Row<'_>) -> rusqlite::Result<()>,
) -> Result<(), StoreError> {
    let mut sql = conn.prepare(sql).map_err(readings::sqlite)?;
    let mut rows = sql.query([]).map_err(readings::sqlite)?;
    while let Some(row) = rows.next().map_err(readings::sqlite)? {
        each(row).map_err(readings::sqlite)?;
    }
    Ok(())
}

fn blob<'r>(row: &'r Row<'_>, at: usize) -> Option<&'r [u8]> {
    match row.get_ref(at).ok()? {
        ValueRef::Blob(bytes) => Some(bytes),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use anmin_rules::alarm::{Alarm, AlarmId, AlarmState, Cause, Transition};
    use anmin_rules::order::{Order, OrderBody, OrderId};

    use super::super::tests::TestDir;
    use super::super::{StateStore, Turn};
    use super::*;
    use crate::samples::{RAISED, alarm, transition};
    use crate::store::readings::tests::some_readings;

    fn raised(n: u128) -> Arc<Transition> {
        let alarm = Alarm { id: AlarmId(uuid::Uuid::from_u128(n)), ..alarm() };
        transition(AlarmState::Normal, Cause::Raised, alarm)
    }

    /// Ten alarms, each with an order, and readings both in the queue and in history.
    fn site(name: &str) -> Arc<TestDir> {
        let dir = Arc::new(TestDir::new(name));
        some_readings(&dir, 20_000);
        let (mut store, _) = StateStore::open(dir.path(), RAISED).unwrap();
        for n in 0..10 {
            let one = raised(n);
            let order = Order {
                id: OrderId::new(format!("{n}/1/mqtt")),
                channel: "mqtt".into(),
                body: OrderBody::Event(Arc::clone(&one)),
            };
            store.commit(&Turn { transitions: &[one], orders: &[order], ..Turn::default() }).unwrap();
        }
        dir
    }

    #[test]
    fn sound_databases_are_found_sound_and_left_as_they_are() {
        let dir = site("fsck-sound");
        let bytes = || [state::FILE, readings::FILE].map(|file| fs::read(dir.path().join(file)).unwrap());
        let before = bytes();
        let found = check(dir.path()).unwrap();
        assert!(found.iter().all(Checked::is_sound), "{found:?}");
        let count = |file: usize, word: &str| found[file].holds.iter().find(|(text, _)| text.en == word).unwrap().1;
        assert_eq!(
            (count(0, "records of the journal"), count(0, "open alarms"), count(0, "pending orders")),
            (10, 10, 10)
        );
        assert_eq!(count(1, "points"), 2);
        assert!(
            count(1, "blocks of history") > 0
                && count(1, "readings of history") + count(1, "readings in the queue") >= 20_000
        );
        assert!(bytes() == before, "a check changes nothing");
        // Also under a daemon at work; only the mending is refused.
        let (_store, _) = StateStore::open(dir.path(), RAISED).unwrap();
        let found = check(dir.path()).unwrap();
        assert!(found.iter().all(Checked::is_sound), "{found:?}");
        assert!(matches!(repair(dir.path(), &found, RAISED, "li"), Err(StoreError::InUse { .. })));
    }

    #[test]
    fn damage_is_found_by_its_kind_and_mended_without_what_it_hit() {
        let sql = |file: &'static str, sql: &'static str| {
            move |dir: &Path| Connection::open(dir.join(file)).unwrap().execute_batch(sql).unwrap()
        };
        let bytes = |file: &'static str, change: fn(&mut Vec<u8>)| {
            move |dir: &Path| {
                let mut bytes = fs::read(dir.join(file)).unwrap();
                change(&mut bytes);
                fs::write(dir.join(file), bytes).unwrap();
            }
        };
        type Damage = (&'static str, Box<dyn Fn(&Path)>, &'static str, usize);
        // What is done, what is said of it, and how many alarms are open after the mending.
        let cases: [Damage; 14] = [
            (
                "a changed record",
                Box::new(sql(state::FILE, "UPDATE journal SET record = replace(record, 'orange', 'blue') WHERE n = 4")),
                "1 records fail their hash",
                9,
            ),
            (
                "a missing record",
                Box::new(sql(state::FILE, "DELETE FROM journal WHERE n = 4")),
                "do not follow the one before",
                9,
            ),
            (
                "a changed order",
                Box::new(sql(state::FILE, "UPDATE orders SET channel = 'other' WHERE n = 2")),
                "1 orders cannot be read",
                10,
            ),
            (
                "a changed row of a station",
                Box::new(sql(state::FILE, "INSERT INTO duty VALUES ('st-1', '{}', zeroblob(32))")),
                "1 rows of stations fail their hash: st-1",
                10,
            ),
            (
                "a cursor from nowhere",
                Box::new(sql(state::FILE, "INSERT INTO cursors VALUES ('office', 4711)")),
                "1 subscribers were told of records that are not there",
                10,
            ),
            (
                "a drill without an id",
                Box::new(sql(
                    state::FILE,
                    "INSERT INTO drills VALUES (x'07', 1, '', '', '', '', 0, '', 0, 0, 0, 0, '')",
                )),
                "1 rows of drills cannot be read",
                10,
            ),
            ("a page", Box::new(bytes(state::FILE, |bytes| bytes[4_096 * 2..4_096 * 3].fill(0))), "SQLite ", 10),
            ("an end", Box::new(bytes(state::FILE, |bytes| bytes.truncate(bytes.len() - 4_096))), "", 9),
            ("no file", Box::new(|dir| fs::remove_file(dir.join(state::FILE)).unwrap()), "there is no such file", 0),
            (
                "a batch",
                Box::new(sql(
                    readings::FILE,
                    "UPDATE queue SET body = zeroblob(40) WHERE id = (SELECT max(id) FROM queue)",
                )),
                "1 batches cannot be read",
                10,
            ),
            (
                "a wrong number",
                Box::new(sql(readings::FILE, "UPDATE chunks SET samples = samples + 1 WHERE id = 2")),
                "1 blocks of history",
                10,
            ),
            (
                "a page of readings",
                Box::new(bytes(readings::FILE, |bytes| bytes[8_192 * 4..8_192 * 5].fill(7))),
                "SQLite ",
                10,
            ),
            (
                "noise",
                Box::new(|dir| fs::write(dir.join(readings::FILE), [7; 5_000]).unwrap()),
                "SQLite cannot read it",
                10,
            ),
            ("nothing", Box::new(|dir| fs::write(dir.join(readings::FILE), "").unwrap()), "it is empty", 10),
        ];
        for (what, damage, said, alarms) in cases {
            let dir = site("fsck-damaged");
            damage(dir.path());
            let found = check(dir.path()).unwrap_or_else(|error| panic!("{what}: {error}"));
            let faults: Vec<&str> =
                found.iter().flat_map(|checked| &checked.faults).map(|fault| fault.en.as_str()).collect();
            assert!(!faults.is_empty() && faults.iter().any(|fault| fault.contains(said)), "{what}: {faults:?}");
            let done = repair(dir.path(), &found, RAISED, "li").unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(done.len(), 1, "{what}: {done:?}");
            let again = check(dir.path()).unwrap();
            assert!(again.iter().all(Checked::is_sound), "{what}: {again:?}");
            let (_, back) = StateStore::open(dir.path(), RAISED).unwrap();
            assert!(back.alarms.len() >= alarms, "{what}: {} alarms", back.alarms.len());
        }
    }

    #[test]
    fn a_glance_sees_a_broken_file_and_a_newer_one_and_writes_nothing() {
        const MOST: Duration = Duration::from_secs(60);
        let dir = site("fsck-glance");
        let glance = |file| glance(dir.path(), file, MOST);
        let path = |file| dir.path().join(file);
        let before = FILES.map(|file| fs::read(path(file)).unwrap());
        assert_eq!(FILES.map(glance), [Ok(Glance::Sound), Ok(Glance::Sound)]);
        assert!(before == FILES.map(|file| fs::read(path(file)).unwrap()));
        // All but the first pages.
        let mut bytes = before[1].clone();
        bytes[16_384..].fill(0xFF);
        fs::write(path(readings::FILE), bytes).unwrap();
        assert!(matches!(glance(readings::FILE), Err(StoreError::Damaged { .. })), "{:?}", glance(readings::FILE));
        Connection::open(path(state::FILE)).unwrap().pragma_update(None, "user_version", 99).unwrap();
        assert!(matches!(glance(state::FILE), Err(StoreError::Newer { found: 99, .. })));
        fs::remove_file(path(state::FILE)).unwrap();
        assert_eq!(glance(state::FILE), Ok(Glance::Absent));
    }

    #[test]
    fn a_newer_file_is_not_judged() {
        let dir = site("fsck-newer");
        Connection::open(dir.path().join(readings::FILE)).unwrap().pragma_update(None, "user_version", 9).unwrap();
        assert!(matches!(check(dir.path()), Err(StoreError::Newer { found: 9, .. })));
    }
}
