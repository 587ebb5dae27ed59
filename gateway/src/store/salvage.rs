//! What can still be read of a damaged state.db, carried over into a new one.
//!
//! SQLite gives up a walk at the first page that it cannot read. Here every table is walked by its number, and where a row
//! cannot be reached it is looked for on the pages themselves (see [`Pages`]), so that a damaged page costs the rows that
//! stand on it and no others. Only rows that pass their hash and can be read are taken, wherever they were found; they are
//! numbered anew, without gaps.
//!
//! The first page holds the list of all tables and is the one that a torn write hits most. Its list is the same in every
//! file of one schema, because all tables are made before the first row: where it is lost, the page of a new file takes
//! its place in a copy. The damaged file itself is only ever read.
//!
//! Which alarms are open the table `heads` says. Where that cannot be read whole, an alarm is open when the last row that
//! is left of it says so: it may have been closed by a row that is lost, and to say so once too often is the safe side.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anmin_rules::alarm::AlarmId;
use anmin_rules::incident::IncidentId;
use anmin_sensors::time::Wall;
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};

use super::audit;
use super::cursors;
use super::drills;
use super::facts;
use super::incidents;
use super::pending;
use super::people;
use super::record::{self, Body};
use super::registers;
use super::state::{
    CALL, DEAD, DELIVERED, FILE, Hash, INCIDENT, MIGRATIONS, PENDING, TRANSITION, append, first_link, new_installation,
    order_sum, row_sum, second,
};
use super::{beside, migrate};

/// Rows of the journal and delivered orders, the newest, that the start of the daemon carries over: seconds, not minutes.
/// What is owed to somebody is carried over whatever its age.
pub(super) const MOST_AT_START: i64 = 200_000;

/// A walk ends after so many rows in a row that cannot be reached.
const MOST_STEPS: u32 = 1_000_000;

/// What was carried over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Salvaged {
    /// Rows of the journal.
    pub rows: u64,
    /// Alarms that are open.
    pub open: u64,
    /// Orders that are not delivered.
    pub pending: u64,
    /// Rows that were there by their numbers and could not be read.
    pub lost: u64,
}

/// Carries over into the new file `into` what can be read of `bad`, of the journal at most its newest `most` rows.
/// Fails only when `into` cannot be written.
pub(super) fn carry_over(bad: &Path, into: &mut Connection, now: Wall, most: i64) -> rusqlite::Result<Salvaged> {
    let source = Source::open(bad);
    let tx = into.transaction()?;
    let meta = |key: &str| -> Option<String> {
        source.conn()?.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).ok()
    };
    // Without the old number of starts this must count as another installation.
    let (installation, epoch) = meta("installation")
        .and_then(|text| uuid::Uuid::parse_str(&text).ok())
        .zip(meta("epoch").and_then(|text| text.parse::<u64>().ok()))
        .unwrap_or_else(|| (new_installation(now), 0));
    let numbers_from = meta("numbers_from").and_then(|text| text.parse::<u32>().ok()).unwrap_or(0);
    for (key, value) in [
        ("installation", installation.to_string()),
        ("epoch", epoch.to_string()),
        ("numbers_from", numbers_from.max(second(now)).to_string()),
    ] {
        tx.execute("INSERT INTO meta (key, value) VALUES (?1, ?2)", params![key, value])?;
    }
    let mut salvaged = Salvaged::default();
    if let Some(conn) = source.conn() {
        let pages = Pages::of(source.path());
        let rows = carry_journal(conn, &pages, &tx, first_link(installation), most, &mut salvaged)?;
        carry_orders(conn, &pages, &tx, &rows, now, most, &mut salvaged)?;
        cursors::carry_over(conn, &tx, &rows)?;
        facts::carry_over(conn, &tx)?;
        pending::carry_over(conn, &tx)?;
        audit::carry_over(conn, &tx)?;
        drills::carry_over(conn, &tx)?;
        registers::carry_over(conn, &tx)?;
        people::carry_over(conn, &tx)?;
    } else {
        people::mark_lost(&tx)?;
    }
    tx.commit()?;
    Ok(salvaged)
}

/// Gives where each row stands now, by where it stood.
fn carry_journal(
    from: &Connection,
    pages: &Pages,
    into: &Connection,
    first: Hash,
    most: i64,
    salvaged: &mut Salvaged,
) -> rusqlite::Result<HashMap<i64, i64>> {
    let heads = named(from, "SELECT alarm, n FROM heads");
    let calls = named(from, "SELECT alarm, n FROM calls");
    let end = end(from, "journal").unwrap_or_else(|| pages.end(JOURNAL));
    let cut = (end - most.min(end)).max(0);
    let mut state =
        Carried { last: 0, chain: first, places: HashMap::new(), alarms: BTreeMap::new(), calls: BTreeMap::new() };
    // What is owed to somebody, from before the newest rows.
    let mut owed: BTreeSet<i64> = heads.iter().chain(&calls).flatten().map(|(_, n)| *n).collect();
    // A file of an older schema has none.
    owed.extend(incidents::open(from).unwrap_or_default().into_iter().map(|(_, n)| n));
    if cut > 0 {
        owed.extend(events_of_orders(from, pages)?);
    }
    for n in owed.into_iter().filter(|n| (1..=cut).contains(n)) {
        salvaged.lost += walk(from, pages, JOURNAL, n - 1, n, |n, row| state.carry(n, row, into))?;
    }
    salvaged.lost += walk(from, pages, JOURNAL, cut, end, |n, row| state.carry(n, row, into))?;
    salvaged.rows = state.last.unsigned_abs();
    let still: Option<HashSet<Vec<u8>>> = heads.map(|heads| heads.into_iter().map(|(alarm, _)| alarm).collect());
    let is_open = |alarm: &AlarmId, open: bool| {
        open && still.as_ref().is_none_or(|still| still.contains(alarm.0.as_bytes().as_slice()))
    };
    let mut open = HashSet::new();
    for (alarm, (n, was_open)) in &state.alarms {
        if is_open(alarm, *was_open) {
            into.prepare_cached("INSERT INTO heads (alarm, n) VALUES (?1, ?2)")?
                .execute(params![alarm.0.as_bytes(), n])?;
            open.insert(*alarm);
        }
    }
    salvaged.open = open.len() as u64;
    for ((alarm, station), (n, live)) in &state.calls {
        if *live || open.contains(alarm) {
            into.prepare_cached("INSERT INTO calls (alarm, station, over, n) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![alarm.0.as_bytes(), station, !live, n])?;
        }
    }
    Ok(state.places)
}

/// The rows that orders refer to which are not delivered.
fn events_of_orders(from: &Connection, pages: &Pages) -> rusqlite::Result<BTreeSet<i64>> {
    let mut rows = BTreeSet::new();
    let end = end(from, "orders").unwrap_or_else(|| pages.end(ORDERS));
    walk(from, pages, ORDERS, 0, end, |_, row| {
        if let [_, _, _, Value::Integer(state), _, _, _, Value::Text(body), _] = row
            && *state != DELIVERED
            && let Ok(Body::EventAt(n) | Body::CallAt(n)) = record::read_body(body)
        {
            rows.insert(n);
        }
        Ok(true)
    })?;
    Ok(rows)
}

/// The end of the new journal, and the last row of each alarm and call.
struct Carried {
    last: i64,
    chain: Hash,
    places: HashMap<i64, i64>,
    alarms: BTreeMap<AlarmId, (i64, bool)>,
    calls: BTreeMap<(AlarmId, String), (i64, bool)>,
}

impl Carried {
    /// Whether the row was good.
    fn carry(&mut self, n: i64, row: &[Value], into: &Connection) -> rusqlite::Result<bool> {
        let [_, Value::Integer(kind), _, _, Value::Text(json), Value::Blob(sum), _] = row else { return Ok(false) };
        if row_sum(n, *kind, json)[..] != **sum {
            return Ok(false);
        }
        let (of, at) = match *kind {
            TRANSITION => match record::read_transition(json) {
                Ok(transition) => {
                    let alarm = &transition.alarm;
                    self.alarms.insert(alarm.id, (self.last + 1, alarm.is_open()));
                    incidents::belongs(into, alarm)?;
                    (alarm.id.0, transition.at.wall)
                }
                Err(_) => return Ok(false),
            },
            CALL => match record::read_call(json) {
                Ok(change) => {
                    let call = &change.call;
                    self.calls.insert((call.alarm, call.station.to_string()), (self.last + 1, call.is_live()));
                    (call.alarm.0, change.at)
                }
                Err(_) => return Ok(false),
            },
            // One whose end is lost is open: it closes by itself where none of its alarms is.
            INCIDENT => match record::read_incident(json) {
                Ok(change) => {
                    incidents::write(into, &change, self.last + 1)?;
                    let IncidentId(id) = change.incident.id;
                    (id, change.at)
                }
                Err(_) => return Ok(false),
            },
            _ => return Ok(false),
        };
        (self.last, self.chain) = append(into, self.last, &self.chain, *kind, of, at, json)?;
        self.places.insert(n, self.last);
        Ok(true)
    }
}

fn carry_orders(
    from: &Connection,
    pages: &Pages,
    into: &Connection,
    places: &HashMap<i64, i64>,
    now: Wall,
    most: i64,
    salvaged: &mut Salvaged,
) -> rusqlite::Result<()> {
    let end = end(from, "orders").unwrap_or_else(|| pages.end(ORDERS));
    let cut = (end - most.min(end)).max(0);
    let mut pending = 0;
    salvaged.lost += walk(from, pages, ORDERS, 0, end, |n, row| {
        let [
            _,
            Value::Text(id),
            Value::Text(channel),
            Value::Integer(state),
            Value::Integer(ended),
            Value::Integer(ends),
            Value::Text(detail),
            Value::Text(body),
            Value::Blob(sum),
        ] = row
        else {
            return Ok(false);
        };
        if order_sum(id, channel, body)[..] != **sum {
            return Ok(false);
        }
        if *state == DELIVERED && n <= cut {
            return Ok(true);
        }
        let (at, call) = match record::read_body(body) {
            Ok(Body::Whole(_)) => (None, false),
            Ok(Body::EventAt(n)) => (Some(n), false),
            Ok(Body::CallAt(n)) => (Some(n), true),
            Err(_) => return Ok(false),
        };
        let (mut state, mut ended, mut detail, mut body) = (*state, *ended, detail.clone(), body.clone());
        if let Some(n) = at {
            let place = places.get(&n).copied();
            if place.is_none() && state == PENDING {
                // It can be listed, it cannot be sent.
                (state, ended) = (DEAD, now.micros());
                detail = format!("the event that it carries, row {n} of a damaged file, cannot be read");
            }
            // No row has the number 0: what names it is known to be lost.
            body = record::write_body_at(place.unwrap_or(0), call);
        }
        pending += u64::from(state == PENDING);
        let sum = order_sum(id, channel, &body);
        into.prepare_cached(
            "INSERT INTO orders (id, channel, state, ended, ends, detail, body, sum) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (id) DO NOTHING",
        )?
        .execute(params![id, channel, state, ended, ends, detail, body, sum])?;
        Ok(true)
    })?;
    salvaged.pending = pending;
    Ok(())
}

/// A table whose rows are numbered 1, 2, 3 ... without gaps, and how many columns it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Table {
    name: &'static str,
    columns: usize,
}

const JOURNAL: Table = Table { name: "journal", columns: 7 };
const ORDERS: Table = Table { name: "orders", columns: 9 };

/// Hands over every row behind number `after` up to `end`, in order, as far as it can be found; `each` says whether it was
/// good. Gives how many were not good or not found.
fn walk(
    from: &Connection,
    pages: &Pages,
    table: Table,
    mut after: i64,
    end: i64,
    mut each: impl FnMut(i64, &[Value]) -> rusqlite::Result<bool>,
) -> rusqlite::Result<u64> {
    let (mut lost, mut missed) = (0, 0);
    let sql = format!("SELECT * FROM {} WHERE n > ?1 AND n <= ?2 ORDER BY n", table.name);
    let Ok(mut statement) = from.prepare(&sql) else { return Ok(lost) };
    // Not reached by way of the table: perhaps its page is whole all the same.
    let look_for = |n: i64, each: &mut dyn FnMut(i64, &[Value]) -> rusqlite::Result<bool>| match pages.row(table, n) {
        Some(row) => each(n, &row),
        None => Ok(false),
    };
    while after < end && missed < MOST_STEPS {
        let Ok(mut rows) = statement.query([after, end]) else { return Ok(lost) };
        let reached = loop {
            let (n, row) = match rows.next() {
                Ok(Some(row)) => {
                    let values = (0..table.columns).map(|column| row.get::<_, Value>(column));
                    // Text that is none: the row fails its hash in any case.
                    let values = values.map(|value| value.unwrap_or(Value::Null)).collect::<Vec<_>>();
                    match values.first() {
                        Some(Value::Integer(n)) if *n > after => (*n, values),
                        _ => break after + 1,
                    }
                }
                Ok(None) => break end,
                Err(_) => break after + 1,
            };
            while after + 1 < n && missed < MOST_STEPS {
                after += 1;
                missed += 1;
                lost += u64::from(!look_for(after, &mut each)?);
            }
            (after, missed) = (n, 0);
            if !each(n, &row)? {
                lost += u64::from(!look_for(n, &mut each)?);
            }
        };
        while after < reached && missed < MOST_STEPS {
            after += 1;
            missed += 1;
            lost += u64::from(!look_for(after, &mut each)?);
        }
    }
    Ok(lost)
}

/// The largest number of a table; `None` where it cannot be read.
fn end(conn: &Connection, table: &str) -> Option<i64> {
    conn.query_row(&format!("SELECT max(n) FROM {table}"), [], |row| row.get::<_, Option<i64>>(0))
        .optional()
        .ok()
        .flatten()
        .map(|end| end.unwrap_or(0))
}

/// All rows of a small table, or `None` where one of them cannot be read.
fn named(conn: &Connection, sql: &str) -> Option<Vec<(Vec<u8>, i64)>> {
    let mut statement = conn.prepare(sql).ok()?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).ok()?;
    rows.collect::<rusqlite::Result<_>>().ok()
}

/// The rows that stand on the pages of a file, whether or not a way leads there: the leaves of tables as the format of
/// SQLite's files has them (<https://www.sqlite.org/fileformat2.html>, 1.6 and 2.1). What is found must prove itself by its
/// hash. Looked for once, when the first row cannot be reached; what stands in a write-ahead log is not seen.
struct Pages {
    path: PathBuf,
    size: usize,
    /// By columns and number: page, and where on it the cell begins.
    found: OnceCell<HashMap<(usize, i64), (u32, usize)>>,
}

impl Pages {
    fn of(path: &Path) -> Self {
        // Every page of every file that anmin made has SQLite's usual size.
        Self { path: path.to_owned(), size: 4096, found: OnceCell::new() }
    }

    /// The largest number that a row of the table has.
    fn end(&self, table: Table) -> i64 {
        let numbers = self.found().keys().filter(|(columns, _)| *columns == table.columns).map(|(_, n)| *n);
        // Its neighbours bear witness: a number that a broken page made up stands alone.
        let mut numbers: Vec<i64> = numbers.collect();
        numbers.sort_unstable();
        numbers.windows(2).rev().find(|pair| pair[1] - pair[0] < 10_000).map_or(0, |pair| pair[1])
    }

    fn row(&self, table: Table, n: i64) -> Option<Vec<Value>> {
        let (page, at) = self.found().get(&(table.columns, n))?;
        let file = File::open(&self.path).ok()?;
        let bytes = self.page(&file, *page)?;
        let (_, payload) = self.cell(&file, &bytes, *at)?;
        values(&payload)
    }

    fn found(&self) -> &HashMap<(usize, i64), (u32, usize)> {
        self.found.get_or_init(|| {
            let mut found = HashMap::new();
            let Ok(file) = File::open(&self.path) else { return found };
            for page in 2.. {
                let Some(bytes) = self.page(&file, page) else { break };
                if bytes[0] != 0x0d {
                    continue;
                }
                let cells = usize::from(u16::from_be_bytes([bytes[3], bytes[4]]));
                for pointer in bytes[8..].chunks_exact(2).take(cells) {
                    let at = usize::from(u16::from_be_bytes([pointer[0], pointer[1]]));
                    if let Some((n, payload)) = self.cell(&file, &bytes, at)
                        && let Some(values) = values(&payload)
                        && [JOURNAL.columns, ORDERS.columns].contains(&values.len())
                    {
                        found.insert((values.len(), n), (page, at));
                    }
                }
            }
            found
        })
    }

    fn page(&self, file: &File, number: u32) -> Option<Vec<u8>> {
        let mut bytes = vec![0; self.size];
        let at = u64::from(number.checked_sub(1)?) * self.size as u64;
        file.read_exact_at(&mut bytes, at).ok().map(|()| bytes)
    }

    /// Number and payload of the cell at `at`.
    fn cell(&self, file: &File, page: &[u8], at: usize) -> Option<(i64, Vec<u8>)> {
        let mut rest = page.get(at..)?;
        let length = usize::try_from(varint(&mut rest)?).ok().filter(|length| *length < 64 << 20)?;
        let n = varint(&mut rest)?;
        let most = self.size - 35;
        if length <= most {
            return Some((n, rest.get(..length)?.to_vec()));
        }
        let least = (self.size - 12) * 32 / 255 - 23;
        let kept = least + (length - least) % (self.size - 4);
        let kept = if kept <= most { kept } else { least };
        let mut payload = rest.get(..kept)?.to_vec();
        let mut next = u32::from_be_bytes(rest.get(kept..kept + 4)?.try_into().ok()?);
        while payload.len() < length {
            let bytes = self.page(file, next)?;
            let part = (length - payload.len()).min(self.size - 4);
            payload.extend_from_slice(&bytes[4..4 + part]);
            next = u32::from_be_bytes(bytes[..4].try_into().ok()?);
        }
        Some((n, payload))
    }
}

/// A number of one to nine bytes, the high bit of each but the ninth saying that more follow.
fn varint(from: &mut &[u8]) -> Option<i64> {
    let mut number = 0_u64;
    for n in 0..9 {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        if n == 8 {
            return Some((number << 8 | u64::from(*byte)) as i64);
        }
        number = number << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some(number as i64)
}

/// The columns of a record; fractions are not among ours.
fn values(payload: &[u8]) -> Option<Vec<Value>> {
    let mut head = payload;
    let length = usize::try_from(varint(&mut head)?).ok()?;
    let mut body = payload.get(length..)?;
    let mut head = head.get(..length.checked_sub(payload.len() - head.len())?)?;
    let mut values = Vec::with_capacity(ORDERS.columns);
    while !head.is_empty() {
        let kind = varint(&mut head)?;
        let size = match kind {
            0 | 8 | 9 => 0,
            1..=4 => kind as usize,
            5 => 6,
            6 => 8,
            12.. => usize::try_from((kind - 12) / 2).ok()?,
            _ => return None,
        };
        let (bytes, rest) = body.split_at_checked(size)?;
        body = rest;
        values.push(match kind {
            0 => Value::Null,
            8 | 9 => Value::Integer(kind - 8),
            1..=6 => {
                let negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
                let start = if negative { -1 } else { 0 };
                Value::Integer(bytes.iter().fold(start, |number: i64, byte| number << 8 | i64::from(*byte)))
            }
            _ if kind % 2 == 0 => Value::Blob(bytes.to_vec()),
            _ => Value::Text(String::from_utf8(bytes.to_vec()).ok()?),
        });
    }
    Some(values)
}

/// A damaged file as far as it can be opened, and the copy that had to be made for it.
struct Source {
    bad: PathBuf,
    conn: Option<Connection>,
    copy: Option<PathBuf>,
}

impl Source {
    fn open(bad: &Path) -> Self {
        if let Some(conn) = open_to_read(bad) {
            return Self { bad: bad.to_owned(), conn: Some(conn), copy: None };
        }
        let copy = beside(bad, ".reading");
        let conn = with_another_first_page(bad, &copy).ok().and_then(|()| open_to_read(&copy));
        Self { bad: bad.to_owned(), conn, copy: Some(copy) }
    }

    fn conn(&self) -> Option<&Connection> {
        self.conn.as_ref()
    }

    fn path(&self) -> &Path {
        &self.bad
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.conn = None;
        for copy in self.copy.iter() {
            for suffix in ["", "-wal", "-shm"] {
                // What is not there need not go.
                let _ = fs::remove_file(beside(copy, suffix));
            }
        }
    }
}

/// `None` when not even the list of tables can be read.
fn open_to_read(path: &Path) -> Option<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).ok()?;
    // Lets SQLite read a file that is shorter than it says.
    conn.pragma_update(None, "writable_schema", "ON").ok()?;
    let tables: i64 = conn
        .query_row(
            "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN ('meta', 'journal', 'heads', 'calls', 'orders')",
            [],
            |row| row.get(0),
        )
        .ok()?;
    (tables == 5).then_some(conn)
}

/// Copies `bad`, with the first page of a new file in the place of its own.
fn with_another_first_page(bad: &Path, copy: &Path) -> std::io::Result<()> {
    let template = beside(copy, ".new");
    let made = new_file(&template).and_then(|()| fs::read(&template).map_err(|_| rusqlite::Error::InvalidQuery));
    let _ = fs::remove_file(&template);
    let first = made.map_err(std::io::Error::other)?;
    let size = usize::from(u16::from_be_bytes([first[16], first[17]]));
    // Small and precious: a few hundred megabytes at the very most.
    let mut bytes = fs::read(bad)?;
    if bytes.len() < 2 * size {
        return Err(std::io::Error::other("there is no second page"));
    }
    bytes[..size].copy_from_slice(&first[..size]);
    let pages = u32::try_from(bytes.len() / size).unwrap_or(u32::MAX);
    // Number of pages; no free ones. SQLite believes the number when the two counters of changes agree.
    bytes[28..32].copy_from_slice(&pages.to_be_bytes());
    bytes[32..40].fill(0);
    let changes: [u8; 4] = [bytes[24], bytes[25], bytes[26], bytes[27]];
    bytes[92..96].copy_from_slice(&changes);
    if fs::metadata(beside(bad, "-wal")).is_ok_and(|wal| wal.len() > 0) {
        // What was written last stands there: the file must say that it has one.
        bytes[18..20].fill(2);
        fs::copy(beside(bad, "-wal"), beside(copy, "-wal"))?;
    }
    fs::write(copy, bytes)
}

fn new_file(path: &Path) -> rusqlite::Result<()> {
    let _ = fs::remove_file(path);
    let mut conn = Connection::open(path)?;
    migrate(&mut conn, FILE, MIGRATIONS).map_err(|_| rusqlite::Error::InvalidQuery)
}
