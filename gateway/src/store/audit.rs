//! Who did what and when: the audit, kept in state.db as a chain that shows whether a row was changed, put in or taken out.
//!
//! | column | |
//! |---|---|
//! | `n` | 1, 2, 3 ... without gaps |
//! | `at` | microseconds of the wall clock |
//! | `who` | the name that was given; `anmin` where nobody was |
//! | `record` | JSON with a version in it: what was done to what, from where, and what came of it |
//! | `hash` | SHA-256 over the hash of row n-1, n, `at`, the length of `who`, `who` and `record`; numbers in 8 bytes, the highest first |
//!
//! Row 0 stands for the installation. `audit_from` in `meta` is the last row that was given up for its age, so that the chain
//! holds from there on, and `audit_end` the last that was written, so that rows which are cut off at the end are missed.
//! A chain shows what was changed by somebody who does not know how to make a new one: note now and then on paper how it
//! ends, and compare.
//!
//! A row goes into the transaction of the turn that it belongs to and is never waited for.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anmin_rules::rule::Text;
use anmin_sensors::time::Wall;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::people::Principal;
use super::state::{Hash, sha256};

/// The step to schema 5.
pub(super) const SCHEMA_5: &str = "
    CREATE TABLE audit (
        n INTEGER PRIMARY KEY,
        at INTEGER NOT NULL,
        who TEXT NOT NULL,
        record TEXT NOT NULL,
        hash BLOB NOT NULL
    );
";

/// For how long rows are kept unless the site says otherwise: what rules ask of logs of networks, six months, and a little.
pub const KEPT: Duration = Duration::from_secs(184 * 86_400);

/// Rows that are given up at most when one is written: a clock that has leapt ahead must not cost the whole past.
const MOST_GIVEN_UP: usize = 100;

/// Rows of a damaged file that may be out of reach before the rest is left behind.
const MOST_MISSED: usize = 100_000;

/// The version of the records that this anmin writes.
const VERSION: u32 = 1;

/// Which way a command came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Through {
    /// The page of the duty desk.
    Page,
    /// `anmin` on a terminal.
    CommandLine,
    /// Another program, by HTTP.
    Api,
    /// The crew's page, by a signed link.
    CrewLink,
    /// SIGHUP, SIGTERM.
    Signal,
    /// Somebody changed the site's files.
    Files,
    /// Nobody: anmin itself.
    Anmin,
}

impl Through {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::CommandLine => "command_line",
            Self::Api => "api",
            Self::CrewLink => "crew_link",
            Self::Signal => "signal",
            Self::Files => "files",
            Self::Anmin => "anmin",
        }
    }
}

/// The way a command came, and in whose right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    pub through: Through,
    /// Of the peer, where it came over the network.
    pub address: Option<IpAddr>,
    /// `None` where nobody had to prove who they are: anmin itself, and whoever works on the box's files.
    pub principal: Option<Arc<Principal>>,
}

impl Way {
    pub const fn of(through: Through) -> Self {
        Self { through, address: None, principal: None }
    }
}

/// Something that somebody did, or was not let do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deed {
    pub at: Wall,
    pub who: String,
    pub from: Way,
    /// `alarm.acknowledge`, `call.accept`, `order.resend`, `rules.reload`, `system.start`, ...
    pub what: Cow<'static, str>,
    /// The id of the alarm, order, broker or rule; empty where it is about all of anmin.
    pub about: String,
    /// Why it was refused; `None`: it was done.
    pub refused: Option<Text>,
    /// What else there is to say of it, by names; `Null` where nothing is.
    pub detail: Value,
}

impl Deed {
    /// What anmin does by itself.
    pub fn of_anmin(at: Wall, what: &'static str, detail: Value) -> Self {
        let (who, from) = ("anmin".to_owned(), Way::of(Through::Anmin));
        Self { at, who, from, what: what.into(), about: String::new(), refused: None, detail }
    }
}

/// The format of `record`.
#[derive(Serialize, Deserialize)]
struct RecordV1<'r> {
    v: u32,
    through: Through,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    principal: Option<Cow<'r, Principal>>,
    what: Cow<'r, str>,
    about: Cow<'r, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refused: Option<Refused<'r>>,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    detail: Cow<'r, Value>,
}

#[derive(Serialize, Deserialize)]
struct Refused<'r> {
    zh: Cow<'r, str>,
    en: Cow<'r, str>,
}

fn write_record(deed: &Deed) -> String {
    let refused = deed.refused.as_ref().map(|Text { zh, en }| Refused { zh: zh.into(), en: en.into() });
    let record = RecordV1 {
        v: VERSION,
        through: deed.from.through,
        address: deed.from.address,
        principal: deed.from.principal.as_deref().map(Cow::Borrowed),
        what: Cow::Borrowed(&deed.what),
        about: Cow::Borrowed(&deed.about),
        refused,
        detail: Cow::Borrowed(&deed.detail),
    };
    // Plain text and numbers under plain names: it becomes JSON.
    serde_json::to_string(&record).unwrap_or_default()
}

fn read_record(at: Wall, who: String, record: &str) -> Result<Deed, String> {
    let record: RecordV1<'_> = serde_json::from_str(record).map_err(|error| error.to_string())?;
    if record.v > VERSION {
        return Err(format!("it has version {}, this anmin knows up to {VERSION}", record.v));
    }
    Ok(Deed {
        at,
        who,
        from: Way {
            through: record.through,
            address: record.address,
            principal: record.principal.map(|principal| Arc::new(principal.into_owned())),
        },
        what: record.what.into_owned().into(),
        about: record.about.into_owned(),
        refused: record.refused.map(|Refused { zh, en }| Text { zh: zh.into_owned(), en: en.into_owned() }),
        detail: record.detail.into_owned(),
    })
}

/// One row, for screens and API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audited {
    /// Ascending without gaps: what to give as `before` for the next page.
    pub n: i64,
    /// The text says why it cannot be read.
    pub deed: Result<Deed, String>,
    pub hash: Vec<u8>,
}

/// Which rows; the default is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Only rows before this number.
    pub before: Option<i64>,
    pub since: Option<Wall>,
    /// Up to, and not at, this moment.
    pub until: Option<Wall>,
    pub who: Option<String>,
}

/// What a walk along the chain found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    pub rows: u64,
    /// The first row that is kept, and when it was written; the last likewise.
    pub first: Option<(i64, Wall)>,
    pub last: Option<(i64, Wall)>,
    /// How the chain ends: the hash of the last row.
    pub head: Vec<u8>,
    /// The first row that is not what was written, and why.
    pub broken: Option<(i64, Text)>,
}

/// Appends one row, and gives up those from the front that are older than `keep`.
pub(super) fn write(tx: &Connection, deed: &Deed, keep: Duration) -> rusqlite::Result<()> {
    let (last, before) = end(tx)?;
    // Behind every row that is there: one that somebody put in must not keep anything from being written.
    let there: i64 = tx.prepare_cached("SELECT coalesce(max(n), 0) FROM audit")?.query_row([], |row| row.get(0))?;
    let (n, record) = (last.max(there).saturating_add(1), write_record(deed));
    let hash = link(&before, n, deed.at, &deed.who, &record);
    tx.prepare_cached("INSERT OR REPLACE INTO audit (n, at, who, record, hash) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![n, deed.at.micros(), deed.who, record, hash])?;
    mark(tx, "audit_end", n, &hash)?;
    give_up(tx, deed.at.micros().saturating_sub(i64::try_from(keep.as_micros()).unwrap_or(i64::MAX)))
}

fn give_up(tx: &Connection, older: i64) -> rusqlite::Result<()> {
    let mut sql = tx.prepare_cached("SELECT n, at, hash FROM audit ORDER BY n")?;
    let mut rows = sql.query([])?;
    let mut last = None;
    for _ in 0..MOST_GIVEN_UP {
        match rows.next()? {
            Some(row) if row.get::<_, i64>(1)? < older => last = Some((row.get::<_, i64>(0)?, bytes(row.get_ref(2)?))),
            _ => break,
        }
    }
    drop(rows);
    let Some((n, hash)) = last else { return Ok(()) };
    tx.prepare_cached("DELETE FROM audit WHERE n <= ?1")?.execute([n])?;
    mark(tx, "audit_from", n, &hash)
}

/// Row and hash behind which the next one comes.
fn end(conn: &Connection) -> rusqlite::Result<(i64, Vec<u8>)> {
    if let Some(end) = marked(conn, "audit_end")? {
        return Ok(end);
    }
    let last = conn
        .prepare_cached("SELECT n, hash FROM audit ORDER BY n DESC LIMIT 1")?
        .query_row([], |row| Ok((row.get(0)?, bytes(row.get_ref(1)?))))
        .optional()?;
    last.map_or_else(|| start(conn), Ok)
}

/// Row and hash on which the first one that is kept rests.
fn start(conn: &Connection) -> rusqlite::Result<(i64, Vec<u8>)> {
    if let Some(start) = marked(conn, "audit_from")? {
        return Ok(start);
    }
    let installation = meta(conn, "installation")?.unwrap_or_default();
    Ok((0, sha256(&[b"anmin audit\0", installation.as_bytes()]).to_vec()))
}

fn link(before: &[u8], n: i64, at: Wall, who: &str, record: &str) -> Hash {
    let length = who.len() as u64;
    let numbers = [n.to_be_bytes(), at.micros().to_be_bytes(), length.to_be_bytes()].concat();
    sha256(&[before, &numbers, who.as_bytes(), record.as_bytes()])
}

fn meta(conn: &Connection, key: &str) -> rusqlite::Result<Option<String>> {
    conn.prepare_cached("SELECT value FROM meta WHERE key = ?1")?.query_row([key], |row| row.get(0)).optional()
}

fn mark(tx: &Connection, key: &str, n: i64, hash: &[u8]) -> rusqlite::Result<()> {
    tx.prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)")?
        .execute([key, &format!("{n} {}", hex(hash))])
        .map(drop)
}

/// What cannot be read counts as not there: the chain then shows it.
fn marked(conn: &Connection, key: &str) -> rusqlite::Result<Option<(i64, Vec<u8>)>> {
    let read = |text: String| {
        let (n, hash) = text.split_once(' ')?;
        let digits = hash.as_bytes().as_chunks::<2>().0;
        let hash = digits.iter().map(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok());
        Some((n.parse().ok()?, hash.collect::<Option<Vec<u8>>>()?))
    };
    Ok(meta(conn, key)?.and_then(read))
}

/// A damaged hash is none, and keeps nothing from being written.
fn bytes(value: ValueRef<'_>) -> Vec<u8> {
    match value {
        ValueRef::Blob(bytes) => bytes.to_vec(),
        _ => Vec::new(),
    }
}

/// Lower-case digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The newest `limit` rows that are wanted, newest first.
pub(super) fn page(conn: &Connection, wanted: &Wanted, limit: usize) -> rusqlite::Result<Vec<Audited>> {
    let mut sql = conn.prepare_cached(
        "SELECT n, at, who, record, hash FROM audit
         WHERE n < ?1 AND at >= ?2 AND at < ?3 AND (?4 IS NULL OR who = ?4) ORDER BY n DESC LIMIT ?5",
    )?;
    let micros = |at: Option<Wall>, usual| at.map_or(usual, Wall::micros);
    let rows = sql.query_map(
        params![
            wanted.before.unwrap_or(i64::MAX),
            micros(wanted.since, i64::MIN),
            micros(wanted.until, i64::MAX),
            wanted.who,
            i64::try_from(limit).unwrap_or(i64::MAX)
        ],
        |row| {
            let (at, who, record): (i64, String, String) = (row.get(1)?, row.get(2)?, row.get(3)?);
            let deed = read_record(Wall::from_micros(at), who, &record);
            Ok(Audited { n: row.get(0)?, deed, hash: bytes(row.get_ref(4)?) })
        },
    )?;
    rows.collect()
}

/// Walks the whole chain.
pub(super) fn verify(conn: &Connection) -> rusqlite::Result<Chain> {
    let (mut last, mut head) = start(conn)?;
    let mut chain = Chain { rows: 0, first: None, last: None, head: Vec::new(), broken: None };
    let mut break_at = |n: i64, zh: String, en: String| {
        chain.broken.get_or_insert((n, Text { zh, en }));
    };
    let gone = |from: i64, to: i64| {
        if from == to {
            (format!("第 {from} 条缺失"), format!("row {from} is missing"))
        } else {
            (format!("第 {from} 至 {to} 条缺失"), format!("rows {from} to {to} are missing"))
        }
    };
    let mut sql = conn.prepare("SELECT n, at, who, record, hash FROM audit ORDER BY n")?;
    let mut rows = sql.query([])?;
    while let Some(row) = rows.next()? {
        let n: i64 = row.get(0)?;
        let hash = bytes(row.get_ref(4)?);
        if n != last + 1 {
            let (zh, en) = gone(last + 1, n - 1);
            break_at(last + 1, zh, en);
        }
        let read = || -> rusqlite::Result<(Wall, String, String)> {
            Ok((Wall::from_micros(row.get(1)?), row.get(2)?, row.get(3)?))
        };
        match read() {
            Ok((at, who, record)) => {
                if link(&head, n, at, &who, &record)[..] != *hash {
                    break_at(n, format!("第 {n} 条与写入时不一致"), format!("row {n} is not what was written"));
                }
                chain.first.get_or_insert((n, at));
                chain.last = Some((n, at));
            }
            Err(_) => break_at(n, format!("第 {n} 条无法读取"), format!("row {n} cannot be read")),
        }
        chain.rows += 1;
        (last, head) = (n, hash);
    }
    if let Some((end, hash)) = marked(conn, "audit_end")?
        && (end, &hash) != (last, &head)
    {
        let (zh, en) = if end > last {
            gone(last + 1, end)
        } else {
            (format!("第 {last} 条不是最后写入的一条"), format!("row {last} is not the last that was written"))
        };
        break_at(last.min(end) + i64::from(end > last), zh, en);
    }
    chain.head = head;
    Ok(chain)
}

/// Every row of a damaged file that can be read, as it was: where one is lost the chain shows it.
pub(super) fn carry_over(from: &Connection, into: &Connection) -> rusqlite::Result<()> {
    for key in ["audit_from", "audit_end"] {
        if let Ok(Some((n, hash))) = marked(from, key) {
            mark(into, key, n, &hash)?;
        }
    }
    let Ok(mut sql) = from.prepare("SELECT n, at, who, record, hash FROM audit WHERE n > ?1 ORDER BY n") else {
        return Ok(());
    };
    let Ok(end) = from.query_row("SELECT coalesce(max(n), 0) FROM audit", [], |row| row.get::<_, i64>(0)) else {
        return Ok(());
    };
    let (mut after, mut missed) = (0, 0);
    // A page that cannot be read ends a walk: go on behind the row that could not be reached.
    while after < end && missed < MOST_MISSED {
        let Ok(mut rows) = sql.query([after]) else { return Ok(()) };
        loop {
            let row = match rows.next() {
                Ok(Some(row)) => row,
                Ok(None) => return Ok(()),
                Err(_) => break,
            };
            let read = || -> rusqlite::Result<(i64, i64, String, String, Vec<u8>)> {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, bytes(row.get_ref(4)?)))
            };
            let Ok((n, at, who, record, hash)) = read() else { break };
            after = n;
            if hash.len() == size_of::<Hash>() && read_record(Wall::default(), String::new(), &record).is_ok() {
                into.prepare_cached(
                    "INSERT OR IGNORE INTO audit (n, at, who, record, hash) VALUES (?1, ?2, ?3, ?4, ?5)",
                )?
                .execute(params![n, at, who, record, hash])?;
            }
        }
        (after, missed) = (after + 1, missed + 1);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::super::people::{Places, Role};
    use super::super::state::FILE;
    use super::super::tests::TestDir;
    use super::super::{Fact, StateReader, StateStore, Turn};
    use super::*;
    use crate::samples::RAISED;

    fn deed(n: u64, who: &str) -> Deed {
        Deed {
            at: RAISED.plus(Duration::from_secs(n)),
            who: who.to_owned(),
            from: Way {
                through: Through::Page,
                address: Some([10, 0, 0, 7].into()),
                principal: n.is_multiple_of(2).then(|| {
                    Arc::new(Principal {
                        account: "li".to_owned(),
                        shown: "李值班".to_owned(),
                        role: Role::Officer,
                        places: Places::of(["3".to_owned()]),
                    })
                }),
            },
            what: "alarm.acknowledge".into(),
            about: format!("alarm-{n}"),
            refused: n.is_multiple_of(3).then(|| Text { zh: "不能".to_owned(), en: "it cannot be".to_owned() }),
            detail: if n.is_multiple_of(2) { Value::Null } else { json!({ "why": "检修", "minutes": n }) },
        }
    }

    fn commit(store: &mut StateStore, deeds: impl IntoIterator<Item = Deed>) {
        let facts: Vec<Fact> = deeds.into_iter().map(|deed| Fact::Did(Box::new(deed))).collect();
        store.commit(&Turn { facts: &facts, ..Turn::default() }).unwrap();
    }

    /// A journal with the deeds 1 to `end` of three people.
    fn some(name: &str, end: u64) -> TestDir {
        let dir = TestDir::new(name);
        let (mut store, _) = StateStore::open(dir.path(), RAISED).unwrap();
        for n in 1..=end {
            commit(&mut store, [deed(n, ["li", "王工", "anmin"][n as usize % 3])]);
        }
        dir
    }

    fn edit(dir: &TestDir, sql: &str) {
        Connection::open(dir.path().join(FILE)).unwrap().execute_batch(sql).unwrap();
    }

    fn chain(dir: &TestDir) -> Chain {
        StateReader::open(dir.path()).unwrap().verify_audit().unwrap()
    }

    #[test]
    fn what_was_done_is_given_back_and_can_be_asked_for() {
        let dir = some("audit", 9);
        let reader = StateReader::open(dir.path()).unwrap();
        let ask = |wanted: Wanted, limit| -> Vec<i64> {
            reader.audit(&wanted, limit).unwrap().iter().map(|row| row.n).collect()
        };
        let all = reader.audit(&Wanted::default(), 100).unwrap();
        assert_eq!(
            all.iter().rev().map(|row| row.deed.clone().unwrap()).collect::<Vec<_>>(),
            (1..=9).map(|n| deed(n, ["li", "王工", "anmin"][n as usize % 3])).collect::<Vec<_>>()
        );
        let at = |n| Some(RAISED.plus(Duration::from_secs(n)));
        assert_eq!(ask(Wanted::default(), 2), [9, 8]);
        assert_eq!(ask(Wanted { before: Some(8), ..Wanted::default() }, 2), [7, 6]);
        assert_eq!(ask(Wanted { since: at(3), until: at(6), ..Wanted::default() }, 100), [5, 4, 3]);
        assert_eq!(ask(Wanted { who: Some("王工".to_owned()), ..Wanted::default() }, 100), [7, 4, 1]);
        let chain = chain(&dir);
        assert_eq!((chain.rows, chain.first.map(|row| row.0), chain.last.map(|row| row.0)), (9, Some(1), Some(9)));
        assert_eq!((chain.broken, &chain.head), (None, &all[0].hash));
    }

    #[test]
    fn the_first_row_that_was_touched_is_named() {
        for (sql, wanted) in [
            ("UPDATE audit SET record = replace(record, 'alarm-4', 'alarm-5') WHERE n = 4", "row 4 is not"),
            ("UPDATE audit SET who = 'li' WHERE n = 4", "row 4 is not"),
            ("UPDATE audit SET at = at + 1 WHERE n = 4", "row 4 is not"),
            ("UPDATE audit SET hash = zeroblob(32) WHERE n = 4", "row 4 is not"),
            ("UPDATE audit SET hash = 'x' WHERE n = 9", "row 9 is not"),
            ("UPDATE audit SET record = x'ff00' WHERE n = 4", "row 4 cannot be read"),
            ("DELETE FROM audit WHERE n = 4", "row 4 is missing"),
            ("DELETE FROM audit WHERE n IN (4, 5)", "rows 4 to 5 are missing"),
            ("DELETE FROM audit WHERE n < 3", "rows 1 to 2 are missing"),
            ("DELETE FROM audit WHERE n = 9", "row 9 is missing"),
            ("DELETE FROM audit WHERE n > 7", "rows 8 to 9 are missing"),
            ("DELETE FROM audit", "rows 1 to 9 are missing"),
            ("DELETE FROM audit WHERE n = 4; UPDATE audit SET n = n - 1 WHERE n > 4", "row 4 is not"),
            ("INSERT INTO audit SELECT 10, at, who, record, hash FROM audit WHERE n = 9", "row 10 is not"),
            (
                "UPDATE audit SET record = (SELECT record FROM audit WHERE n = 5) WHERE n = 4;
                 UPDATE audit SET hash = (SELECT hash FROM audit WHERE n = 5) WHERE n = 4",
                "row 4 is not",
            ),
        ] {
            let dir = some("audit-touched", 9);
            edit(&dir, sql);
            let said = chain(&dir).broken.map(|(_, text)| text.en).unwrap_or_default();
            assert!(said.starts_with(wanted), "{sql}: {said:?}");
            // It is still written down what is done from now on.
            let (mut store, _) = StateStore::open(dir.path(), RAISED).unwrap();
            commit(&mut store, [deed(100, "li")]);
            let rows = StateReader::open(dir.path()).unwrap().audit(&Wanted::default(), 1).unwrap();
            assert_eq!(rows[0].deed, Ok(deed(100, "li")), "{sql}");
            let again = chain(&dir).broken.map(|(_, text)| text.en).unwrap_or_default();
            assert_eq!(again, said, "{sql}: and the break does not heal");
        }
    }

    #[test]
    fn what_is_old_goes_from_the_front_and_the_chain_holds() {
        let dir = some("audit-old", 300);
        let (mut store, _) = StateStore::open(dir.path(), RAISED).unwrap();
        store.keep_audit(Duration::from_secs(250));
        // Deeds 1 to 50 are older than that.
        commit(&mut store, [deed(301, "li")]);
        let whole = chain(&dir);
        assert_eq!((whole.rows, whole.first.map(|row| row.0), whole.broken), (251, Some(51), None));
        // A clock that has leapt by a year costs a hundred rows a deed and not all of them.
        commit(&mut store, [deed(365 * 86_400, "li")]);
        let whole = chain(&dir);
        assert_eq!((whole.first.map(|row| row.0), whole.broken), (Some(151), None));
        edit(&dir, "DELETE FROM audit WHERE n = 151");
        assert_eq!(chain(&dir).broken.map(|(n, _)| n), Some(151), "the front is known");
    }

    #[test]
    fn a_file_of_schema_4_takes_it_up() {
        let dir = TestDir::new("audit-schema-4");
        drop(StateStore::open(dir.path(), RAISED).unwrap());
        dir.back_to_schema(4);
        let (mut store, back) = StateStore::open(dir.path(), RAISED).unwrap();
        assert_eq!(back.notes, vec![]);
        commit(&mut store, [deed(1, "li"), deed(2, "li")]);
        assert_eq!((chain(&dir).rows, chain(&dir).broken), (2, None));
    }

    /// Goal: a damaged page costs the rows that stand on it, and the chain names them. Method: overwrite the page of one row.
    #[test]
    fn a_damaged_file_keeps_every_row_that_can_be_read() {
        let dir = some("audit-damaged", 300);
        let path = dir.path().join(FILE);
        let mut bytes = fs::read(&path).unwrap();
        let row = bytes.windows(9).position(|window| window == b"alarm-150").expect("it stands on some page");
        let page = row / 4_096 * 4_096;
        bytes[page..page + 4_096].fill(0x5a);
        fs::write(&path, bytes).unwrap();
        let (mut store, back) = StateStore::open(dir.path(), RAISED).unwrap();
        assert_eq!(back.notes.len(), 1, "{:?}", back.notes);
        commit(&mut store, [deed(301, "li")]);
        let (chain, rows) =
            (chain(&dir), StateReader::open(dir.path()).unwrap().audit(&Wanted::default(), 1_000).unwrap());
        let lost: Vec<i64> = (1..=301).filter(|n| !rows.iter().any(|row| row.n == *n)).collect();
        assert!(lost.contains(&150) && lost.len() < 40, "{lost:?}");
        assert_eq!(chain.broken.map(|(n, _)| n), lost.first().copied());
    }

    #[test]
    fn a_row_of_a_newer_anmin_is_shown_as_one() {
        let dir = some("audit-newer", 1);
        edit(&dir, "UPDATE audit SET record = replace(record, '\"v\":1', '\"v\":9')");
        let rows = StateReader::open(dir.path()).unwrap().audit(&Wanted::default(), 1).unwrap();
        assert_eq!(rows[0].deed, Err("it has version 9, this anmin knows up to 1".to_owned()));
    }
}
