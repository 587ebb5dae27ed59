//! state.db: transitions, calls, orders and receipts. Small, precious, every commit synced.
//!
//! Tables of schema 10 (times are microseconds of the wall clock):
//!
//! | table | row |
//! |---|---|
//! | `meta` | `installation` (UUID of this file's first start), `epoch` (number of starts), `numbers_from` (see below) |
//! | `journal` | one transition (kind 1), call change (kind 2) or change of an incident (kind 3): `n` 1, 2, 3 ... without gaps, JSON record, hash chain |
//! | `heads` | the last journal row of each open alarm, so a restart reads these and not the whole journal |
//! | `calls` | the last journal row of each call that is not over, or whose alarm is open |
//! | `orders` | what must leave: body, channel, 0 pending, 1 delivered, 2 dead; the receipt or the reason |
//! | `sessions` | since schema 2: the outside brokers that keep our session, see [`super::facts`] |
//! | `judged` | since schema 3: messages that may be delivered again, by their hashes |
//! | `pending` | since schema 4: conditions whose delays run, see [`super::pending`] |
//! | `audit` | since schema 5: who did what and when, see [`super::audit`] |
//! | `incidents`, `threads` | since schema 6: incidents, and which rows belong to which, see [`super::incidents`] |
//! | `cursors` | since schema 7: how far each subscriber has been told of the journal, see [`super::cursors`] |
//! | `duty` | since schema 8: what people said of the stations, see [`super::duty`] |
//! | `drills` | since schema 9: drills and the time of each, see [`super::drills`] |
//! | `people` | since schema 10: accounts, sign-ins and tokens, see [`super::people`] |
//! | `kept` | since schema 11: registers, walk tests, words of closed incidents, see [`super::registers`] |
//!
//! `sum` of row n is SHA-256 over n, kind and record; `chain` is SHA-256 over `chain` of row n-1 and `sum`, and row 0
//! stands for the installation. So a row stands for itself when its neighbour is damaged, and a row that was taken out
//! or put in is seen all the same. An order carries SHA-256 over its id, channel and body. SHA-256 because the chain is also the proof, before an inquiry, that
//! nobody edited a row in between: a checksum such as CRC would only see accidents. It comes from `ring`, which the TLS
//! stack brings anyway. A row that fails its hash is never served as good.
//!
//! An order whose event was journaled in the same turn refers to that row; any other body stands whole in the order.
//!
//! **No number comes twice.** Order ids and CAP identifiers are made of an alarm's id and the number of its transition. A
//! file that was restored from a backup, or that lost rows, has forgotten numbers which receivers have seen. Then
//! `numbers_from` is set to the second since 1970 at which that happened, and every alarm and call that is taken up
//! counts on from there: an alarm has fewer transitions than its life has seconds.
//!
//! What cannot be written stays in memory, whole turns in order, and goes first into the next commit that succeeds, so
//! the journal heals when there is room again. This module does not know who carries orders.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anmin_rules::alarm::{Alarm, AlarmId, Cause, Pending, Subject, Transition};
use anmin_rules::drill::{Drill, DrillId};
use anmin_rules::duty::DutyChange;
use anmin_rules::incident::{Incident, IncidentChange, IncidentId};
use anmin_rules::order::{CallChange, Order, OrderBody, OrderId};
use anmin_rules::rule::{Evidence, RuleId, Text};
use anmin_rules::walk::{Tick, Walk, WalkId};
use anmin_sensors::point::PointId;
use anmin_sensors::time::{Mono, Wall};
use ring::digest;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row, params};

use super::audit::{self, Audited, Chain, Deed, Wanted};
use super::checkpoint::Checkpoints;
use super::cursors;
use super::drills;
use super::duty;
use super::facts::{self, Fact, KeptSession, Mark};
use super::incidents::{self, ClosedCursor, ClosedFilter};
use super::pending;
use super::people::{self, Person};
use super::plans;
use super::reach::{self, Addressed, Standing};
use super::record::{self, Body, RecordError};
use super::registers::{self, Kind};
use super::salvage::{self, Salvaged};
use super::sent;
use super::walks;
use super::{DirLock, Disk, StoreError, beside, migrate, set_aside};
use crate::delivery::Outcome;

pub(super) const FILE: &str = "state.db";
const RESERVE: &str = "state.reserve";

/// Room kept beside the database and given up when the disk is full: about 2,000 alarms of five transitions each.
const RESERVE_BYTES: u64 = if cfg!(test) { 64 << 10 } else { 8 << 20 };

/// Entries kept in memory while the journal cannot be written. Beyond it the oldest turns go, counted and said.
const MAX_UNWRITTEN: usize = 100_000;

/// Turns go into one transaction until it holds so many entries; a turn is never split.
const ENTRIES_A_TRANSACTION: usize = 1_000;

/// Entries after which what the log holds is moved into the file, off this thread: about 600 pages.
const ENTRIES_A_CHECKPOINT: usize = 128;

/// Pages in the log beyond which a commit moves them itself: only where the thread for it cannot keep up.
const PAGES_IN_LOG: &str = "4000";

/// Journal rows at the end whose chain is checked at every start.
const CHECKED_AT_START: i64 = 512;

/// A file up to this size is checked page by page at every start (about 50 ms).
const QUICK_CHECK_BYTES: u64 = 32 << 20;

/// Journal rows in which [`StateStore::judged`] looks: as many as brokers have messages in flight, and some.
const LOOKED_BACK: usize = 4_096;

pub(super) const MIGRATIONS: super::Migrations = &[
    "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE journal (
        n INTEGER PRIMARY KEY,
        kind INTEGER NOT NULL,
        alarm BLOB NOT NULL,
        at INTEGER NOT NULL,
        record TEXT NOT NULL,
        sum BLOB NOT NULL,
        chain BLOB NOT NULL
    );
    CREATE INDEX journal_of_alarm ON journal (alarm, n);
    CREATE TABLE heads (alarm BLOB PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE calls (
        alarm BLOB NOT NULL,
        station TEXT NOT NULL,
        over INTEGER NOT NULL,
        n INTEGER NOT NULL,
        PRIMARY KEY (alarm, station)
    ) WITHOUT ROWID;
    CREATE TABLE orders (
        n INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        channel TEXT NOT NULL,
        state INTEGER NOT NULL DEFAULT 0,
        ended INTEGER NOT NULL DEFAULT 0,
        ends INTEGER NOT NULL DEFAULT 0,
        detail TEXT NOT NULL DEFAULT '',
        body TEXT NOT NULL,
        sum BLOB NOT NULL
    );
    CREATE INDEX orders_not_delivered ON orders (state, n) WHERE state <> 1;
",
    facts::SCHEMA_2,
    facts::SCHEMA_3,
    pending::SCHEMA_4,
    audit::SCHEMA_5,
    incidents::SCHEMA_6,
    cursors::SCHEMA_7,
    duty::SCHEMA_8,
    drills::SCHEMA_9,
    people::SCHEMA_10,
    registers::SCHEMA_11,
];

// `state <> 1` says nothing new, but without it SQLite does not use the index that leaves out what is delivered.
const PENDING_ORDERS: &str = "SELECT id, channel, body, sum FROM orders WHERE state = ?1 AND state <> 1 ORDER BY n";
const DEAD_ORDERS: &str = "SELECT id, channel, body, sum, ended, detail FROM orders WHERE state = ?1 AND state <> 1 \
                           ORDER BY n DESC LIMIT ?2";

const DEAD_ORDERS_AFTER: &str = "SELECT id, channel, body, sum, ended, detail FROM orders WHERE state = ?1 AND state <> 1 \
                                 AND n > ?3 ORDER BY n LIMIT ?2";

pub(super) const TRANSITION: i64 = 1;
pub(super) const CALL: i64 = 2;
pub(super) const INCIDENT: i64 = 3;

pub(super) const PENDING: i64 = 0;
pub(super) const DELIVERED: i64 = 1;
pub(super) const DEAD: i64 = 2;

pub(super) type Hash = [u8; 32];

/// Everything that one turn of the main loop wants durable, in one transaction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Turn<'a> {
    pub transitions: &'a [Arc<Transition>],
    pub calls: &'a [Arc<CallChange>],
    pub incidents: &'a [Arc<IncidentChange>],
    /// Each takes the place of the one before of its rule and subject.
    pub pending: &'a [Arc<Pending>],
    /// Committed as pending, in this order. An id that is there already changes nothing.
    pub orders: &'a [Order],
    /// Results that couriers reported.
    pub outcomes: &'a [OrderOutcome],
    /// What must be known after a restart, and what people did.
    pub facts: &'a [Fact],
}

impl Turn<'_> {
    pub fn is_empty(&self) -> bool {
        self.transitions.is_empty()
            && self.calls.is_empty()
            && self.incidents.is_empty()
            && self.pending.is_empty()
            && self.orders.is_empty()
            && self.outcomes.is_empty()
            && self.facts.is_empty()
    }
}

/// How one order ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderOutcome {
    pub order: OrderId,
    pub outcome: Outcome,
    pub at: Wall,
}

/// What the last run left behind.
#[derive(Clone, Debug)]
pub struct Restored {
    /// Open alarms as they stood after their last transition, in the order of those.
    pub alarms: Vec<Arc<Alarm>>,
    /// The last change of each call that is not over, or whose alarm is open.
    pub calls: Vec<Arc<CallChange>>,
    /// Open incidents.
    pub incidents: Vec<Arc<Incident>>,
    /// Drills that were on.
    pub drills: Vec<Arc<Drill>>,
    /// Walk tests that were on, with the points that have spoken in them.
    pub walks: Vec<walks::On>,
    /// Conditions whose delays ran.
    pub pending: Vec<Arc<Pending>>,
    /// What people had said of the stations.
    pub duty: Vec<Arc<DutyChange>>,
    /// Orders without a receipt, in the order they were committed: to be sent again under the same ids.
    pub orders: Vec<Order>,
    /// Brokers that should still have our session.
    pub sessions: Vec<KeptSession>,
    /// Messages that were judged and may be delivered again, the oldest first.
    pub judged: Vec<Mark>,
    /// Who may do what.
    pub people: people::Kept,
    /// When a run was last known to be alive, see [`StateStore::mark_alive`].
    pub alive: Option<Wall>,
    /// Made at the first start of this file.
    pub installation: uuid::Uuid,
    /// Number of starts, this one included; never the same twice in one installation.
    pub epoch: u64,
    /// What a person should know: a file set aside, a damaged row. Each is worth a system alarm.
    pub notes: Vec<Text>,
}

/// An order that was given up.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    pub id: OrderId,
    pub channel: Arc<str>,
    pub at: Wall,
    /// Why it was given up.
    pub why: String,
    /// `None` when its bytes are damaged.
    pub body: Option<OrderBody>,
}

/// An order as it was committed, and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sent {
    pub id: OrderId,
    pub channel: Arc<str>,
    /// `waiting`, `delivered` or `dead`.
    pub state: &'static str,
    /// When it ended.
    pub at: Option<Wall>,
    /// The receipt, or why it was given up.
    pub detail: String,
    /// What people were told, as it left; `None` where the order says it all, and of what left before this was kept.
    pub text: Option<String>,
    /// How it stands with each of several recipients, by their places in the list, where the way out tells.
    pub recipients: BTreeMap<u32, Standing>,
    /// `None` when its bytes are damaged.
    pub body: Option<OrderBody>,
}

/// One row of the journal, for screens and API.
#[derive(Clone, Debug, PartialEq)]
pub struct Journaled {
    /// Ascending without gaps: what to give as `before` for the next page.
    pub n: i64,
    pub entry: Entry,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    Transition(Transition),
    Call(CallChange),
    Incident(IncidentChange),
    /// The row is there but fails its hash or cannot be read; the text says why.
    Damaged(String),
}

/// What a walk over the whole journal found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    pub rows: u64,
    /// Rows that fail their hash or cannot be read, and orders likewise.
    pub bad_rows: Vec<i64>,
    pub bad_orders: Vec<OrderId>,
}

/// The one writer of state.db. Lives in the main loop's thread; `commit` waits for the disk.
#[derive(Debug)]
pub struct StateStore {
    dir: PathBuf,
    disk: Disk,
    /// `None` while the file cannot be opened, and after it was found damaged until the next commit has made a new one.
    db: Option<Db>,
    /// `None` while the directory itself is away.
    lock: Option<DirLock>,
    /// What the file holds has been taken up, and the start is counted in it.
    taken_up: bool,
    /// Orders that were read from the file before it could be opened for writing.
    read_before: HashSet<OrderId>,
    late: Option<Restored>,
    live: Live,
    unwritten: VecDeque<OwnedTurn>,
    unwritten_entries: usize,
    dropped: u64,
    commits: u64,
    notes: Vec<Text>,
    trouble: Option<StoreError>,
    reserve: Reserve,
    audit_kept: Duration,
}

/// One that is on, with what has spoken in it.
type LiveWalk = (Arc<Walk>, BTreeMap<PointId, Arc<Tick>>);

/// What somebody is still owed, as far as it is written: it goes into the new file when the old one breaks.
#[derive(Debug, Default)]
struct Live {
    count: u64,
    alarms: HashMap<AlarmId, (u64, Arc<Transition>)>,
    calls: HashMap<(AlarmId, Arc<str>), (u64, Arc<CallChange>)>,
    incidents: HashMap<IncidentId, (u64, Arc<IncidentChange>)>,
    pending: HashMap<(RuleId, Subject), (u64, Arc<Pending>)>,
    duty: HashMap<Arc<str>, Arc<DutyChange>>,
    /// Those that are on.
    drills: HashMap<DrillId, Arc<Drill>>,
    /// Those that are on, with what has spoken in them.
    walks: BTreeMap<WalkId, LiveWalk>,
    registers: BTreeMap<registers::Key, Box<registers::Change>>,
    plans: BTreeMap<String, Box<plans::Revision>>,
    orders: HashMap<OrderId, (u64, Order)>,
    people: HashMap<(&'static str, String), (u64, Person)>,
}

#[derive(Debug)]
struct Db {
    conn: Connection,
    checkpoints: Checkpoints,
    /// The last row of the journal and its chain.
    last: i64,
    chain: Hash,
}

#[derive(Debug, Default)]
struct OwnedTurn {
    transitions: Vec<Arc<Transition>>,
    calls: Vec<Arc<CallChange>>,
    incidents: Vec<Arc<IncidentChange>>,
    pending: Vec<Arc<Pending>>,
    orders: Vec<Order>,
    outcomes: Vec<OrderOutcome>,
    facts: Vec<Fact>,
}

impl OwnedTurn {
    fn entries(&self) -> usize {
        let decided = self.transitions.len() + self.calls.len() + self.incidents.len() + self.pending.len();
        decided + self.orders.len() + self.outcomes.len() + self.facts.len()
    }
}

impl Live {
    fn take(&mut self, turn: &OwnedTurn) {
        for transition in &turn.transitions {
            let alarm = &transition.alarm;
            if alarm.is_open() {
                self.count += 1;
                self.alarms.insert(alarm.id, (self.count, Arc::clone(transition)));
            } else {
                self.alarms.remove(&alarm.id);
                self.calls.retain(|(of, _), (_, change)| *of != alarm.id || change.call.is_live());
            }
        }
        for change in &turn.calls {
            let call = &change.call;
            let key = (call.alarm, Arc::clone(&call.station));
            if call.is_live() || self.alarms.contains_key(&call.alarm) {
                self.count += 1;
                self.calls.insert(key, (self.count, Arc::clone(change)));
            } else {
                self.calls.remove(&key);
            }
        }
        for change in &turn.incidents {
            let id = change.incident.id;
            if change.incident.is_open() {
                self.count += 1;
                self.incidents.insert(id, (self.count, Arc::clone(change)));
            } else {
                self.incidents.remove(&id);
            }
        }
        for pending in &turn.pending {
            let key = (pending.rule.clone(), pending.subject.clone());
            if pending.is_over() {
                self.pending.remove(&key);
            } else {
                self.count += 1;
                self.pending.insert(key, (self.count, Arc::clone(pending)));
            }
        }
        for order in &turn.orders {
            self.count += 1;
            self.orders.entry(order.id.clone()).or_insert_with(|| (self.count, order.clone()));
        }
        for ended in &turn.outcomes {
            self.orders.remove(&ended.order);
        }
        for fact in &turn.facts {
            match fact {
                Fact::Duty(change) => drop(self.duty.insert(Arc::clone(&change.station), Arc::clone(change))),
                Fact::Drill(drill) if drill.end.is_some() => drop(self.drills.remove(&drill.id)),
                Fact::Drill(drill) => drop(self.drills.insert(drill.id, Arc::clone(drill))),
                Fact::Walk(walk) if walk.is_on() => {
                    self.walks.entry(walk.id).or_insert_with(|| (Arc::clone(walk), BTreeMap::new())).0 =
                        Arc::clone(walk);
                }
                Fact::Walk(walk) => drop(self.walks.remove(&walk.id)),
                Fact::Tick(tick) => {
                    if let Some((_, ticks)) = self.walks.get_mut(&tick.walk) {
                        ticks.insert(tick.point.clone(), Arc::clone(tick));
                    }
                }
                Fact::Register(change) if change.is_gone() => drop(self.registers.remove(&change.key())),
                Fact::Register(change) => drop(self.registers.insert(change.key(), change.clone())),
                Fact::Plan(revision) => drop(self.plans.insert(revision.key(), revision.clone())),
                Fact::Person(person) => {
                    let (kind, id) = person.key();
                    if person.is_gone() {
                        self.people.remove(&(kind, id.to_owned()));
                    } else {
                        self.count += 1;
                        self.people.insert((kind, id.to_owned()), (self.count, Person::clone(person)));
                    }
                }
                _ => {}
            }
        }
    }

    fn walks(&self) -> Vec<walks::On> {
        self.walks.values().map(|(walk, ticks)| (Arc::clone(walk), ticks.keys().cloned().collect())).collect()
    }

    /// All of it in the order in which it was written.
    fn turn(&self) -> OwnedTurn {
        fn in_order<T: Clone>(all: impl Iterator<Item = (u64, T)>) -> Vec<T> {
            let mut all: Vec<(u64, T)> = all.collect();
            all.sort_by_key(|(n, _)| *n);
            all.into_iter().map(|(_, one)| one).collect()
        }
        OwnedTurn {
            transitions: in_order(self.alarms.values().cloned()),
            calls: in_order(self.calls.values().cloned()),
            incidents: in_order(self.incidents.values().cloned()),
            pending: in_order(self.pending.values().cloned()),
            orders: in_order(self.orders.values().cloned()),
            facts: {
                let people = in_order(self.people.values().cloned()).into_iter();
                let people = people.map(|person| Fact::Person(Box::new(person)));
                let drills = self.drills.values().cloned().map(Fact::Drill);
                let walks = self.walks.values().flat_map(|(walk, ticks)| {
                    [Fact::Walk(Arc::clone(walk))].into_iter().chain(ticks.values().cloned().map(Fact::Tick))
                });
                let registers = self.registers.values().cloned().map(Fact::Register);
                let duty = self.duty.values().cloned().map(Fact::Duty);
                let plans = self.plans.values().cloned().map(Fact::Plan);
                duty.chain(drills).chain(walks).chain(registers).chain(plans).chain(people).collect()
            },
            ..OwnedTurn::default()
        }
    }
}

impl StateStore {
    /// Opens `dir/state.db`, made when it is not there; counts the start. A damaged file is set aside, everything that can
    /// still be read is carried over into a new one, and `Restored::notes` says so.
    ///
    /// A file that cannot be opened does not keep the daemon from starting: what can be read of it is taken up,
    /// [`StateStore::trouble`] says what is the matter, and every commit tries again. What it holds beyond that comes by
    /// [`StateStore::take_late`]. The only errors are another anmin on the directory and a file of a newer one.
    pub fn open(dir: &Path, now: Wall) -> Result<(Self, Restored), StoreError> {
        Self::open_on(dir, now, Disk::real())
    }

    /// [`StateStore::open`] on a disk that a test can break.
    pub fn open_on(dir: &Path, now: Wall, disk: Disk) -> Result<(Self, Restored), StoreError> {
        let waits = disk.is_scripted();
        let mut store = Self {
            dir: dir.to_owned(),
            disk,
            db: None,
            lock: None,
            taken_up: false,
            read_before: HashSet::new(),
            late: None,
            live: Live::default(),
            unwritten: VecDeque::new(),
            unwritten_entries: 0,
            dropped: 0,
            commits: 0,
            notes: Vec::new(),
            trouble: None,
            reserve: Reserve::new(dir, waits),
            audit_kept: audit::KEPT,
        };
        match store.open_file(now) {
            Ok(restored) => {
                store.reserve.fill();
                Ok((store, restored))
            }
            Err(error @ (StoreError::InUse { .. } | StoreError::Newer { .. })) => Err(error),
            Err(error) => {
                let restored = Db::only_read(dir).unwrap_or_else(|| {
                    // What cannot be looked at may be there; below what is no folder there is nothing.
                    let is_there =
                        dir.join(FILE).try_exists().unwrap_or_else(|error| error.kind() != ErrorKind::NotADirectory);
                    let people = if is_there { people::Kept::lost() } else { people::Kept::default() };
                    Restored { people, ..Restored::nothing(now) }
                });
                tracing::error!(
                    %error,
                    alarms = restored.alarms.len(),
                    orders = restored.orders.len(),
                    "The journal cannot be opened. anmin goes on with what it could read and tries again; alarms go out from memory."
                );
                store.read_before = restored.orders.iter().map(|order| order.id.clone()).collect();
                store.trouble = Some(error);
                Ok((store, restored))
            }
        }
    }

    /// For how long the audit is kept from now on; [`audit::KEPT`] until somebody says so.
    pub fn keep_audit(&mut self, kept: Duration) {
        self.audit_kept = kept;
    }

    /// What the journal suffers from since the last commit or the opening.
    pub fn trouble(&self) -> Option<&StoreError> {
        self.trouble.as_ref()
    }

    /// What a file held that could only be opened after the start, as far as it was not known: alarms and calls that are
    /// still open, orders that nobody has sent. Once, with the commit that succeeded first.
    pub fn take_late(&mut self) -> Option<Restored> {
        self.late.take()
    }

    /// Whether there is room kept beside the database for the day when the disk is full. Fills it again, at most once a
    /// minute, off this thread. Call it now and then.
    pub fn tend_reserve(&mut self, now: Mono) -> bool {
        self.reserve.tend(now)
    }

    /// Makes one turn durable. On an error the turn is kept in memory and goes first into the next commit, so the
    /// caller sends its orders all the same and says what happened; it does not hand the turn in again. An empty turn
    /// tries what is left over.
    pub fn commit(&mut self, turn: &Turn<'_>) -> Result<(), StoreError> {
        if !turn.is_empty() {
            let owned = OwnedTurn {
                transitions: turn.transitions.to_vec(),
                calls: turn.calls.to_vec(),
                incidents: turn.incidents.to_vec(),
                pending: turn.pending.to_vec(),
                orders: turn.orders.to_vec(),
                outcomes: turn.outcomes.to_vec(),
                facts: turn.facts.to_vec(),
            };
            self.unwritten_entries += owned.entries();
            self.unwritten.push_back(owned);
        }
        let result = self.write_all();
        while self.unwritten_entries > MAX_UNWRITTEN {
            let Some(oldest) = self.unwritten.pop_front() else { break };
            self.unwritten_entries -= oldest.entries();
            self.dropped += oldest.entries() as u64;
        }
        self.trouble = result.as_ref().err().cloned();
        result
    }

    /// What a dying disk would do: nothing is open any more, and what lies there is no database.
    #[cfg(test)]
    pub(super) fn spoil(&mut self) {
        self.db = None;
        fs::write(self.dir.join(FILE), vec![7; 8192]).unwrap();
        // There need be none.
        let _ = fs::remove_file(self.dir.join("state.db-wal"));
    }

    /// Makes one courier's result durable; shorthand for a turn with one outcome.
    pub fn record_outcome(&mut self, order: &OrderId, outcome: &Outcome, at: Wall) -> Result<(), StoreError> {
        let outcome = OrderOutcome { order: order.clone(), outcome: outcome.clone(), at };
        self.commit(&Turn { outcomes: &[outcome], ..Turn::default() })
    }

    /// Writes down that anmin was alive at `at`, synced like any commit.
    pub fn mark_alive(&mut self, at: Wall) -> Result<(), StoreError> {
        self.disk.before_commit(FILE)?;
        let db = self.db.as_mut().ok_or_else(not_open)?;
        db.conn
            .prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES ('alive', ?1)")
            .and_then(|mut sql| sql.execute([at.micros().to_string()]))
            .map(drop)
            .map_err(sqlite)
    }

    /// Entries (transitions, changes of calls and incidents, orders, outcomes, facts) that wait in memory for the disk.
    pub fn unwritten(&self) -> usize {
        self.unwritten_entries
    }

    /// Entries that never reached the journal because the disk was away for too long.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Commits so far, each synced.
    pub fn commits(&self) -> u64 {
        self.commits
    }

    /// What was found while running that a person should know, such as a file set aside. Empties the list.
    pub fn take_notes(&mut self) -> Vec<Text> {
        std::mem::take(&mut self.notes)
    }

    /// The newest `limit` rows of the journal older than row `before`, newest first.
    pub fn recent(&self, limit: usize, before: Option<i64>) -> Result<Vec<Journaled>, StoreError> {
        recent(self.conn()?, limit, before)
    }

    /// The newest reading of each point that an alarm was raised, changed or cleared by, as far as the last
    /// [`LOOKED_BACK`] rows tell. What a broker delivers again after a crash can only be about these.
    pub fn judged(&self) -> Result<Vec<Evidence>, StoreError> {
        let mut known = HashSet::new();
        let rows = self.recent(LOOKED_BACK, None)?.into_iter();
        let rests_on = |row: Journaled| match row.entry {
            Entry::Transition(transition) => match transition.cause {
                Cause::Raised | Cause::Realarmed | Cause::LevelChanged(_) | Cause::Returned => {
                    Some(transition.alarm.evidence.clone())
                }
                _ => None,
            },
            _ => None,
        };
        Ok(rows.filter_map(rests_on).filter(|found| known.insert(found.point.clone())).collect())
    }

    /// All rows about one alarm, oldest first.
    pub fn history(&self, alarm: AlarmId) -> Result<Vec<Journaled>, StoreError> {
        history(self.conn()?, alarm)
    }

    /// Orders that were given up, oldest first.
    pub fn dead_letters(&self) -> Result<Vec<DeadLetter>, StoreError> {
        dead_letters(self.conn()?, usize::MAX)
    }

    /// What is known of a message by its name; `None` too where the record is damaged.
    pub fn addressed(&self, channel: &str, key: &str) -> Result<Option<Addressed>, StoreError> {
        reach::read(self.conn()?, channel, key).map_err(sqlite)
    }

    /// Orders that are written down and have no receipt, in the order in which they were.
    pub fn unsent(&self) -> Vec<Order> {
        let mut orders: Vec<&(u64, Order)> = self.live.orders.values().collect();
        orders.sort_by_key(|(n, _)| *n);
        orders.into_iter().map(|(_, order)| order.clone()).collect()
    }

    /// Makes a dead letter pending again, under its id, and gives it to be sent; `who` told it to. `None` when there is no
    /// such dead letter or its body is damaged.
    pub fn redo(&mut self, id: &OrderId, who: &str) -> Result<Option<Order>, StoreError> {
        self.write_all()?;
        self.disk.before_commit(FILE)?;
        let db = self.db.as_mut().ok_or_else(not_open)?;
        let body = body_of_dead(&db.conn, id)?;
        let Some((channel, Ok(body))) = body else { return Ok(None) };
        db.conn
            .prepare_cached("UPDATE orders SET state = ?2, detail = ?3 WHERE id = ?1")
            .and_then(|mut sql| sql.execute(params![id.as_str(), PENDING, format!("sent again by {who}")]))
            .map_err(sqlite)?;
        let order = Order { id: id.clone(), channel: channel.into(), body };
        self.live.count += 1;
        self.live.orders.insert(id.clone(), (self.live.count, order.clone()));
        Ok(Some(order))
    }

    /// Walks the whole journal and all orders and checks every hash.
    pub fn check(&self) -> Result<Checked, StoreError> {
        check(self.conn()?)
    }

    /// A reader of its own for another thread; sees every commit as it happens and never holds the writer up.
    pub fn reader(&self) -> Result<StateReader, StoreError> {
        StateReader::open(&self.dir)
    }

    fn conn(&self) -> Result<&Connection, StoreError> {
        self.db.as_ref().map(|db| &db.conn).ok_or_else(not_open)
    }

    fn write_all(&mut self) -> Result<(), StoreError> {
        let mut late = None;
        if self.db.is_none() {
            let now = self.unwritten.iter().find_map(OwnedTurn::at).unwrap_or_default();
            late = self.open_again(now)?;
        }
        while !self.unwritten.is_empty() {
            let mut count = 0;
            let turns = self
                .unwritten
                .iter()
                .take_while(|turn| {
                    let fits = count == 0 || count + turn.entries() <= ENTRIES_A_TRANSACTION;
                    count += turn.entries();
                    fits
                })
                .count();
            match self.write(turns) {
                Ok(()) => {}
                Err(StoreError::Full { .. }) if self.reserve.give_up() => self.write(turns)?,
                Err(error @ StoreError::Damaged { .. }) => {
                    self.db = None;
                    return Err(error);
                }
                Err(error) => return Err(error),
            }
            for turn in self.unwritten.drain(..turns) {
                self.live.take(&turn);
                self.unwritten_entries -= turn.entries();
            }
        }
        if let Some(from_file) = late {
            let owed = self.live.turn();
            let in_file: BTreeSet<&OrderId> = from_file.orders.iter().map(|order| &order.id).collect();
            let waits = |order: &Order| in_file.contains(&order.id) && !self.read_before.contains(&order.id);
            let orders = owed.orders.into_iter().filter(waits);
            self.late = Some(Restored {
                alarms: owed.transitions.iter().map(|transition| Arc::clone(&transition.alarm)).collect(),
                calls: owed.calls,
                incidents: owed.incidents.iter().map(|change| Arc::clone(&change.incident)).collect(),
                drills: self.live.drills.values().cloned().collect(),
                walks: self.live.walks(),
                pending: owed.pending,
                duty: self.live.duty.values().cloned().collect(),
                orders: orders.collect(),
                ..from_file
            });
        }
        Ok(())
    }

    /// Writes the first `turns` turns in one transaction.
    fn write(&mut self, turns: usize) -> Result<(), StoreError> {
        self.disk.before_commit(FILE)?;
        let db = self.db.as_mut().ok_or_else(not_open)?;
        let (last, chain) = db.write(self.unwritten.iter().take(turns), self.audit_kept).map_err(sqlite)?;
        (db.last, db.chain) = (last, chain);
        self.commits += 1;
        Ok(())
    }

    /// The first opening of the file in this run.
    fn open_file(&mut self, now: Wall) -> Result<Restored, StoreError> {
        if self.lock.is_none() {
            self.lock = Some(DirLock::take(&self.dir)?);
        }
        self.disk.before_commit(FILE)?;
        let (mut db, restored, live) = Db::open(&self.dir, now, true)?;
        if self.disk.is_scripted() {
            db.checkpoints = Checkpoints::new(&self.dir.join(FILE), usize::MAX);
        }
        (self.db, self.live, self.taken_up) = (Some(db), live, true);
        Ok(restored)
    }

    /// After a damaged file was let go: a new one, with what can be read of the old and what this run knows. Or a file that
    /// could not be opened at the start: gives what it holds.
    fn open_again(&mut self, now: Wall) -> Result<Option<Restored>, StoreError> {
        if !self.taken_up {
            let mut restored = self.open_file(now)?;
            self.notes.append(&mut restored.notes);
            self.reserve.fill();
            return Ok(Some(restored));
        }
        self.disk.before_commit(FILE)?;
        let (mut db, restored, _) = Db::open(&self.dir, now, false)?;
        self.notes.extend(restored.notes);
        db.reconcile(&self.live)?;
        self.db = Some(db);
        Ok(None)
    }
}

impl OwnedTurn {
    fn at(&self) -> Option<Wall> {
        let transition = self.transitions.first().map(|transition| transition.at.wall);
        let call = self.calls.first().map(|change| change.at);
        let incident = self.incidents.first().map(|change| change.at);
        let deed = self.facts.iter().find_map(|fact| match fact {
            Fact::Did(deed) => Some(deed.at),
            _ => None,
        });
        transition.or(call).or(incident).or(self.outcomes.first().map(|outcome| outcome.at)).or(deed)
    }
}

/// A read-only view of state.db for screens, API and command line.
#[derive(Debug)]
pub struct StateReader(Connection);

impl StateReader {
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(dir.join(FILE), flags).map_err(sqlite)?;
        conn.busy_timeout(std::time::Duration::from_secs(2)).map_err(sqlite)?;
        Ok(Self(conn))
    }

    /// See [`StateStore::recent`].
    pub fn recent(&self, limit: usize, before: Option<i64>) -> Result<Vec<Journaled>, StoreError> {
        recent(&self.0, limit, before)
    }

    /// See [`StateStore::history`].
    pub fn history(&self, alarm: AlarmId) -> Result<Vec<Journaled>, StoreError> {
        history(&self.0, alarm)
    }

    /// At most `limit` rows of the journal behind row `n`, oldest first.
    pub fn after(&self, n: i64, limit: usize) -> Result<Vec<Journaled>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut sql =
            self.0.prepare_cached("SELECT n, kind FROM journal WHERE n > ?1 ORDER BY n LIMIT ?2").map_err(sqlite)?;
        let rows = sql
            .query_map(params![n, limit], |row| Ok((row.get(0)?, row.get(1)?)))
            .and_then(Iterator::collect::<rusqlite::Result<Vec<(i64, i64)>>>)
            .map_err(sqlite)?;
        rows.into_iter().map(|(n, kind)| journaled(&self.0, n, kind)).collect()
    }

    /// Alarms that are open.
    pub fn open_alarms(&self) -> Result<BTreeSet<AlarmId>, StoreError> {
        let found = heads(&self.0, "SELECT alarm, n FROM heads")?;
        Ok(found.iter().filter_map(|(alarm, _)| uuid::Uuid::from_slice(alarm).ok()).map(AlarmId).collect())
    }

    /// The number of the journal's last row; 0 where there is none.
    pub fn end(&self) -> Result<i64, StoreError> {
        self.0.query_row("SELECT coalesce(max(n), 0) FROM journal", [], |row| row.get(0)).map_err(sqlite)
    }

    /// Tells this numbering of rows from all others: a file that was salvaged, restored or made anew has another.
    pub fn lineage(&self) -> Result<u64, StoreError> {
        cursors::lineage(&self.0).map_err(sqlite)
    }

    /// The last row that each subscriber has been told.
    pub fn cursors(&self) -> Result<BTreeMap<Arc<str>, i64>, StoreError> {
        cursors::read(&self.0).map_err(sqlite)
    }

    /// How one incident stands, or ended; `None` when there never was one.
    pub fn incident(&self, id: IncidentId) -> Result<Option<Incident>, StoreError> {
        let Some(n) = incidents::row_of(&self.0, id).map_err(sqlite)? else { return Ok(None) };
        let found = incident_at(&self.0, n)?.map_err(|why| damaged(&why.to_string()))?;
        Ok(Some(Incident::clone(&found.incident)))
    }

    /// Incidents that have closed, the last first, behind `after`. One whose row is damaged is left out.
    pub fn closed_incidents(
        &self,
        filter: &ClosedFilter,
        after: Option<ClosedCursor>,
        limit: usize,
    ) -> Result<Vec<Incident>, StoreError> {
        let rows = incidents::closed(&self.0, filter, after, limit).map_err(sqlite)?;
        let mut found = Vec::with_capacity(rows.len());
        for n in rows {
            found.extend(incident_at(&self.0, n)?.ok().map(|change| Incident::clone(&change.incident)));
        }
        Ok(found)
    }

    /// The newest `limit` rows about one incident, its alarms, their calls and what was merged into it, older than row
    /// `before`, newest first.
    pub fn timeline(&self, id: IncidentId, limit: usize, before: Option<i64>) -> Result<Vec<Journaled>, StoreError> {
        let rows = incidents::timeline(&self.0, id, limit, before).map_err(sqlite)?;
        rows.into_iter().map(|(n, kind)| journaled(&self.0, n, kind)).collect()
    }

    /// How incidents that closed within a stretch of time ended: outcome, cause of false alarms, and how many.
    pub fn outcomes(&self, from: Wall, to: Wall) -> Result<Vec<(String, String, u64)>, StoreError> {
        incidents::outcomes(&self.0, from, to).map_err(sqlite)
    }

    /// The newest `limit` drills that began before `before`, the last first.
    pub fn drills(&self, limit: usize, before: Option<Wall>) -> Result<Vec<Drill>, StoreError> {
        drills::newest(&self.0, limit, before).map_err(sqlite)
    }

    /// One drill; `None` when there never was one.
    pub fn drill(&self, id: DrillId) -> Result<Option<Drill>, StoreError> {
        drills::one(&self.0, id).map_err(sqlite)
    }

    /// The newest `limit` walk tests that began before `before`, the last first.
    pub fn walks(&self, limit: usize, before: Option<Wall>) -> Result<Vec<Walk>, StoreError> {
        walks::newest(&self.0, limit, before).map_err(sqlite)
    }

    /// One walk test with the points that spoke in it; `None` when there never was one.
    pub fn walk(&self, id: WalkId) -> Result<Option<(Walk, Vec<Tick>)>, StoreError> {
        let Some(walk) = walks::one(&self.0, id).map_err(sqlite)? else { return Ok(None) };
        Ok(Some((walk, walks::ticks(&self.0, id).map_err(sqlite)?)))
    }

    /// The last tick of one of these points that was a test, with its walk where that is still known.
    pub fn last_test(&self, points: &[PointId]) -> Result<Option<(Tick, Option<Walk>)>, StoreError> {
        let Some(tick) = walks::last_test(&self.0, points).map_err(sqlite)? else { return Ok(None) };
        let walk = walks::one(&self.0, tick.walk).map_err(sqlite)?;
        Ok(Some((tick, walk)))
    }

    /// When each point was last tested.
    pub fn last_tested(&self) -> Result<BTreeMap<PointId, Wall>, StoreError> {
        walks::last_tested(&self.0).map_err(sqlite)
    }

    /// The rows of one register in the order of their ids, those that are whole.
    pub fn register(&self, kind: Kind) -> Result<Vec<registers::Row>, StoreError> {
        registers::rows(&self.0, kind).map_err(sqlite)
    }

    /// Which plans came into force, of each the oldest first.
    pub fn plans(&self) -> Result<Vec<plans::Revision>, StoreError> {
        plans::all(&self.0).map_err(sqlite)
    }

    /// The configurations that were in force between two moments, each with since when, the oldest first.
    pub fn configurations(&self, from: Wall, to: Wall) -> Result<Vec<(Wall, String)>, StoreError> {
        plans::configurations(&self.0, from, to).map_err(sqlite)
    }

    /// Every row about one drill, the oldest first.
    pub fn of_drill(&self, id: DrillId) -> Result<Vec<Journaled>, StoreError> {
        let rows = incidents::of_drill(&self.0, id).map_err(sqlite)?;
        rows.into_iter().map(|(n, kind)| journaled(&self.0, n, kind)).collect()
    }

    /// Every order about these alarms, in the order in which they were committed.
    pub fn messages(&self, alarms: &[AlarmId]) -> Result<Vec<Sent>, StoreError> {
        let sql = "SELECT id, channel, body, sum, ended, detail, state FROM orders WHERE id >= ?1 AND id < ?2";
        let mut sql = self.0.prepare_cached(sql).map_err(sqlite)?;
        let mut found = Vec::new();
        for alarm in alarms {
            // Ids begin with the alarm's and a slash, behind which comes the zero.
            let mut rows = sql.query([format!("{alarm}/"), format!("{alarm}0")]).map_err(sqlite)?;
            while let Some(row) = rows.next().map_err(sqlite)? {
                let (id, channel, body) = order_row(&self.0, row)?;
                let ended: i64 = row.get(4).map_err(sqlite)?;
                found.push(Sent {
                    text: sent::read(&self.0, &id).map_err(sqlite)?,
                    recipients: reach::of_order(&self.0, &id).map_err(sqlite)?,
                    id: OrderId::new(id),
                    channel: channel.into(),
                    state: match row.get::<_, i64>(6).map_err(sqlite)? {
                        DELIVERED => "delivered",
                        DEAD => "dead",
                        _ => "waiting",
                    },
                    at: (ended > 0).then(|| Wall::from_micros(ended)),
                    detail: row.get(5).map_err(sqlite)?,
                    body: body.ok(),
                });
            }
        }
        // An alarm's transitions and a call's changes are numbered; in an id the number is text.
        let number = |sent: &Sent| {
            let of = sent.body.as_ref();
            of.map_or((Wall::default(), 0), |body| match body {
                OrderBody::Event(transition) => (transition.at.wall, transition.alarm.seq),
                OrderBody::Call(change) => (change.at, change.call.seq),
                OrderBody::Cap(cap) => (cap.sent, cap.alarm.seq),
                OrderBody::Siren(siren) => (siren.at, siren.alarm.seq),
            })
        };
        found.sort_by(|a, b| number(a).cmp(&number(b)).then_with(|| a.id.cmp(&b.id)));
        Ok(found)
    }

    /// When the messages about an alarm arrived, by way out: the first of each that did.
    pub fn delivered(&self, alarm: AlarmId) -> Result<Vec<(Arc<str>, Wall)>, StoreError> {
        drills::delivered(&self.0, alarm).map_err(sqlite)
    }

    /// The newest `limit` orders that were given up, oldest first.
    pub fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, StoreError> {
        dead_letters(&self.0, limit)
    }

    /// The first `limit`, oldest first, behind an order where one is named; `None` where nothing is known of it any more.
    pub fn dead_letters_after(
        &self,
        order: Option<&OrderId>,
        limit: usize,
    ) -> Result<Option<Vec<DeadLetter>>, StoreError> {
        let place = |order: &OrderId| {
            let sql = "SELECT n FROM orders WHERE id = ?1";
            self.0.query_row(sql, [order.as_str()], |row| row.get::<_, i64>(0)).optional().map_err(sqlite)
        };
        let Some(n) = order.map_or(Ok(Some(-1)), place)? else { return Ok(None) };
        let mut sql = self.0.prepare_cached(DEAD_ORDERS_AFTER).map_err(sqlite)?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        read_letters(&self.0, sql.query([DEAD, limit, n]).map_err(sqlite)?).map(Some)
    }

    /// See [`StateStore::check`].
    pub fn check(&self) -> Result<Checked, StoreError> {
        check(&self.0)
    }

    /// The newest `limit` rows of the audit that are wanted, newest first.
    pub fn audit(&self, wanted: &Wanted, limit: usize) -> Result<Vec<Audited>, StoreError> {
        audit::page(&self.0, wanted, limit).map_err(sqlite)
    }

    /// Walks the audit from its first row to its last.
    pub fn verify_audit(&self) -> Result<Chain, StoreError> {
        audit::verify(&self.0).map_err(sqlite)
    }
}

fn points_of((walk, ticks): (Arc<Walk>, Vec<Tick>)) -> walks::On {
    (walk, ticks.into_iter().map(|tick| tick.point).collect())
}

impl Restored {
    fn nothing(now: Wall) -> Self {
        Self {
            alarms: Vec::new(),
            calls: Vec::new(),
            incidents: Vec::new(),
            drills: Vec::new(),
            walks: Vec::new(),
            pending: Vec::new(),
            duty: Vec::new(),
            orders: Vec::new(),
            sessions: Vec::new(),
            judged: Vec::new(),
            people: people::Kept::default(),
            alive: None,
            installation: new_installation(now),
            epoch: 1,
            notes: Vec::new(),
        }
    }
}

impl Db {
    /// `start` counts a start of the daemon; false when the file is replaced in the middle of a run.
    fn open(dir: &Path, now: Wall, start: bool) -> Result<(Self, Restored, Live), StoreError> {
        let path = dir.join(FILE);
        let mut notes = Vec::new();
        let emptied = fs::metadata(&path).is_ok_and(|meta| meta.is_file() && meta.len() == 0);
        if emptied {
            notes.push(Text {
                zh: format!("{FILE} 为空文件，此前的报警记录不在其中"),
                en: format!("{FILE} was an empty file: what it may have held before is not there"),
            });
        }
        match Self::open_file(&path, now, start, &mut notes) {
            Err(StoreError::Damaged { why, .. }) => {
                let (mut db, note) = Self::rebuild(&path, now, salvage::MOST_AT_START, &why)?;
                let (restored, live) = db.restore(now, start, vec![note])?;
                Ok((db, restored, live))
            }
            Ok((db, mut restored, live)) if emptied => {
                people::mark_lost(&db.conn).map_err(sqlite)?;
                restored.people = people::Kept::lost();
                Ok((db, restored, live))
            }
            other => other,
        }
    }

    /// Sets the file aside and makes a new one of what can be read of it, its newest `most` rows. The text says so.
    fn rebuild(path: &Path, now: Wall, most: i64, why: &str) -> Result<(Self, Text), StoreError> {
        let bad = set_aside(path, now).map_err(|error| StoreError::io(FILE, &error))?;
        let shown = bad.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let mut db = Self::create(path)?;
        let saved = salvage::carry_over(&bad, &mut db.conn, now, most).map_err(sqlite)?;
        tracing::error!(
            file = FILE,
            set_aside = %shown,
            why = %why,
            rows = saved.rows,
            alarms = saved.open,
            orders = saved.pending,
            lost = saved.lost,
            "The journal is damaged. anmin set it aside and carried over into a new one what can be read."
        );
        let Salvaged { rows, open, pending, .. } = saved;
        let note = Text {
            zh: format!(
                "{FILE} 已损坏，已另存为 {shown}；从中恢复记录 {rows} 条，包括未关闭报警 {open} 条、待发指令 {pending} 条，其余请从该文件查找"
            ),
            en: format!(
                "{FILE} was damaged and is kept as {shown}; {rows} records, {open} open alarms and {pending} pending orders among them, were read from it, look there for the rest"
            ),
        };
        Ok((db, note))
    }

    fn open_file(
        path: &Path,
        now: Wall,
        start: bool,
        notes: &mut Vec<Text>,
    ) -> Result<(Self, Restored, Live), StoreError> {
        if fs::metadata(path).is_ok_and(|meta| meta.is_dir()) {
            return Err(damaged("it is a folder"));
        }
        let size = fs::metadata(path).map_or(0, |meta| meta.len());
        let mut db = Self::create(path)?;
        if size <= QUICK_CHECK_BYTES {
            let verdict: String = db.conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(sqlite)?;
            if verdict != "ok" {
                return Err(damaged(&verdict));
            }
        }
        let (restored, live) = db.restore(now, start, std::mem::take(notes))?;
        Ok((db, restored, live))
    }

    /// What can be read of a file that cannot be opened for writing. Where SQLite must write to read, on a read-only file
    /// system after a crash, it does so on a copy.
    fn only_read(dir: &Path) -> Option<Restored> {
        let read = |path: &Path| -> Option<Restored> {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let conn = Connection::open_with_flags(path, flags).ok()?;
            let db = Self { conn, checkpoints: Checkpoints::new(path, usize::MAX), last: 0, chain: [0; 32] };
            let mut notes = Vec::new();
            let mut floor = db.numbers_from().ok()?;
            let alarms = db.open_alarms(&mut floor, Wall::default(), &mut notes).ok()?;
            let calls = db.open_calls(floor, &mut notes).ok()?;
            let (orders, _) = db.pending_orders().ok()?;
            let alarms = alarms.into_iter().map(|transition| Arc::clone(&transition.alarm)).collect();
            // A file of an older schema has none.
            let incidents = db.open_incidents(&mut notes).unwrap_or_default();
            let incidents = incidents.into_iter().map(|change| Arc::clone(&change.incident)).collect();
            let sessions = facts::sessions(&db.conn).unwrap_or_default();
            let judged = facts::judged(&db.conn).unwrap_or_default();
            let pending = pending::read(&db.conn).unwrap_or_default();
            let pending = pending.into_iter().filter_map(|(.., found)| found.ok().map(Arc::new)).collect();
            let duty = duty::read(&db.conn).unwrap_or_default();
            let duty = duty.into_iter().filter_map(|(_, found)| found.ok().map(Arc::new)).collect();
            let drills = drills::on(&db.conn).unwrap_or_default();
            let walks = walks::on(&db.conn).unwrap_or_default().into_iter().map(points_of).collect();
            let people = people::read(&db.conn).unwrap_or_else(|_| people::Kept::lost());
            let nothing = Restored::nothing(Wall::default());
            let alive = db.alive();
            Some(Restored {
                alarms,
                calls,
                incidents,
                drills,
                walks,
                pending,
                duty,
                orders,
                sessions,
                judged,
                people,
                alive,
                notes,
                ..nothing
            })
        };
        let path = dir.join(FILE);
        read(&path).or_else(|| {
            let copy = std::env::temp_dir().join(format!("anmin-{}-{FILE}", std::process::id()));
            fs::copy(&path, &copy).ok()?;
            // Without one the file is whole by itself.
            let _ = fs::copy(beside(&path, "-wal"), beside(&copy, "-wal"));
            let restored = read(&copy);
            for suffix in ["", "-wal", "-shm"] {
                let _ = fs::remove_file(beside(&copy, suffix));
            }
            restored
        })
    }

    /// Makes the tables of what is owed say what this run knows, which is more than a file that had to be salvaged.
    fn reconcile(&mut self, live: &Live) -> Result<(), StoreError> {
        let owed = live.turn();
        let known = |n: i64| transition_at(&self.conn, n).map(|row| row.map_or(0, |transition| transition.alarm.seq));
        let mut written: HashMap<AlarmId, u32> = HashMap::new();
        for (alarm, n) in heads(&self.conn, "SELECT alarm, n FROM heads")? {
            if let Ok(id) = uuid::Uuid::from_slice(&alarm) {
                written.insert(AlarmId(id), known(n)?);
            }
        }
        let known = |id: IncidentId| -> Result<u32, StoreError> {
            let row = incidents::row_of(&self.conn, id).map_err(sqlite)?;
            let Some(n) = row else { return Ok(0) };
            Ok(incident_at(&self.conn, n)?.map_or(0, |change| change.incident.seq))
        };
        let mut incidents = Vec::new();
        for change in owed.incidents {
            if known(change.incident.id)? < change.incident.seq {
                incidents.push(change);
            }
        }
        let lost = OwnedTurn {
            transitions: owed
                .transitions
                .into_iter()
                .filter(|transition| written.get(&transition.alarm.id).is_none_or(|seq| *seq < transition.alarm.seq))
                .collect(),
            // Few, and only the last one of each counts.
            calls: owed.calls,
            incidents,
            pending: owed.pending,
            orders: owed.orders,
            facts: owed.facts,
            ..OwnedTurn::default()
        };
        pending::forget(&self.conn).map_err(sqlite)?;
        (self.last, self.chain) = self.write(std::iter::once(&lost), audit::KEPT).map_err(sqlite)?;
        for alarm in written.keys().filter(|alarm| !live.alarms.contains_key(*alarm)) {
            self.conn.execute("DELETE FROM heads WHERE alarm = ?1", [alarm.0.as_bytes()]).map_err(sqlite)?;
        }
        for (id, _) in incidents::open(&self.conn).map_err(sqlite)? {
            if !live.incidents.contains_key(&id) {
                incidents::forget(&self.conn, id).map_err(sqlite)?;
            }
        }
        // What has ended or is gone since is not on, and not there, again.
        for drill in drills::on(&self.conn).map_err(sqlite)? {
            if !live.drills.contains_key(&drill.id) {
                drills::forget(&self.conn, drill.id).map_err(sqlite)?;
            }
        }
        for (walk, _) in walks::on(&self.conn).map_err(sqlite)? {
            if !live.walks.contains_key(&walk.id) {
                walks::forget(&self.conn, walk.id).map_err(sqlite)?;
            }
        }
        let kept: Vec<registers::Key> =
            registers::all(&self.conn).map_err(sqlite)?.iter().map(registers::Change::key).collect();
        // They may be thousands: one sync for all.
        let tx = self.conn.unchecked_transaction().map_err(sqlite)?;
        for key in kept.into_iter().filter(|key| !live.registers.contains_key(key)) {
            registers::write(&tx, &registers::Change::Gone(key.0, key.1)).map_err(sqlite)?;
        }
        tx.commit().map_err(sqlite)?;
        let (pending, _) = self.pending_orders()?;
        for order in pending.iter().filter(|order| !live.orders.contains_key(&order.id)) {
            self.conn
                .execute("UPDATE orders SET state = ?2 WHERE id = ?1", params![order.id.as_str(), DELIVERED])
                .map_err(sqlite)?;
        }
        Ok(())
    }

    fn create(path: &Path) -> Result<Self, StoreError> {
        let mut conn = Connection::open(path).map_err(sqlite)?;
        conn.set_prepared_statement_cache_capacity(32);
        conn.busy_timeout(std::time::Duration::from_secs(2)).map_err(sqlite)?;
        conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0)).map_err(sqlite)?;
        let pragmas = [
            ("synchronous", "FULL"),
            ("foreign_keys", "ON"),
            ("journal_size_limit", "4194304"),
            ("wal_autocheckpoint", PAGES_IN_LOG),
        ];
        for (pragma, value) in pragmas {
            conn.pragma_update(None, pragma, value).map_err(sqlite)?;
        }
        migrate(&mut conn, FILE, MIGRATIONS)?;
        Ok(Self { conn, checkpoints: Checkpoints::new(path, ENTRIES_A_CHECKPOINT), last: 0, chain: [0; 32] })
    }

    /// Reads what the last run left and counts the start.
    fn restore(&mut self, now: Wall, start: bool, mut notes: Vec<Text>) -> Result<(Restored, Live), StoreError> {
        let (installation, epoch) = self.count_start(now, start)?;
        self.find_end(installation, &mut notes)?;
        let mut floor = self.numbers_from()?;
        let transitions = self.open_alarms(&mut floor, now, &mut notes)?;
        self.set("numbers_from", &floor.to_string())?;
        let calls = self.open_calls(floor, &mut notes)?;
        let incidents = self.open_incidents(&mut notes)?;
        let pending = self.pending_conditions(&mut notes)?;
        let duty = self.duty(&mut notes)?;
        let (orders, lost) = self.pending_orders()?;
        self.bury(lost, now, &mut notes)?;
        let people = people::read(&self.conn).map_err(sqlite)?;
        let facts = people.clone().into_people().map(|person| Fact::Person(Box::new(person)));
        let drills = drills::on(&self.conn).map_err(sqlite)?;
        let facts = drills.iter().cloned().map(Fact::Drill).chain(facts);
        let walks = walks::on(&self.conn).map_err(sqlite)?;
        let facts = facts.chain(walks.iter().flat_map(|(walk, ticks)| {
            [Fact::Walk(Arc::clone(walk))].into_iter().chain(ticks.iter().cloned().map(Arc::new).map(Fact::Tick))
        }));
        let registers = registers::all(&self.conn).map_err(sqlite)?;
        let facts = facts.chain(registers.into_iter().map(|change| Fact::Register(Box::new(change))));
        let plans = plans::all(&self.conn).map_err(sqlite)?;
        let facts = facts.chain(plans.into_iter().map(|revision| Fact::Plan(Box::new(revision))));
        let facts = duty.iter().cloned().map(Fact::Duty).chain(facts).collect();
        let mut live = Live::default();
        live.take(&OwnedTurn {
            transitions: transitions.clone(),
            calls: calls.clone(),
            incidents: incidents.clone(),
            pending: pending.clone(),
            orders: orders.clone(),
            facts,
            ..OwnedTurn::default()
        });
        let sessions = facts::sessions(&self.conn).map_err(sqlite)?;
        let judged = facts::judged(&self.conn).map_err(sqlite)?;
        let alarms = transitions.iter().map(|transition| Arc::clone(&transition.alarm)).collect();
        let incidents = incidents.iter().map(|change| Arc::clone(&change.incident)).collect();
        let alive = self.alive();
        let restored = Restored {
            alarms,
            calls,
            incidents,
            drills,
            walks: walks.into_iter().map(points_of).collect(),
            pending,
            duty,
            orders,
            sessions,
            judged,
            people,
            alive,
            installation,
            epoch,
            notes,
        };
        Ok((restored, live))
    }

    /// The least number that a transition may have; see the top of this file.
    fn numbers_from(&self) -> Result<u32, StoreError> {
        let text: Option<String> = self
            .conn
            .query_row("SELECT value FROM meta WHERE key = 'numbers_from'", [], |row| row.get(0))
            .optional()
            .map_err(sqlite)?;
        text.map_or(Ok(0), |text| text.parse().map_err(|_| damaged("the least number of a transition is not a number")))
    }

    /// What cannot be read was never known.
    fn alive(&self) -> Option<Wall> {
        let text: String =
            self.conn.query_row("SELECT value FROM meta WHERE key = 'alive'", [], |row| row.get(0)).ok()?;
        text.parse().ok().map(Wall::from_micros)
    }

    fn set(&self, key: &str, value: &str) -> Result<(), StoreError> {
        let sql = "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value
                   WHERE value <> excluded.value";
        self.conn.execute(sql, [key, value]).map(|_| ()).map_err(sqlite)
    }

    fn count_start(&mut self, now: Wall, start: bool) -> Result<(uuid::Uuid, u64), StoreError> {
        let tx = self.conn.transaction().map_err(sqlite)?;
        let get = |key: &str| -> Result<Option<String>, StoreError> {
            tx.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).optional().map_err(sqlite)
        };
        let installation = match get("installation")?.map(|text| uuid::Uuid::parse_str(&text)) {
            Some(Ok(known)) => known,
            Some(Err(_)) => return Err(damaged("the installation id is not a UUID")),
            None => new_installation(now),
        };
        let epoch = match get("epoch")?.map(|text| text.parse::<u64>()) {
            Some(Ok(before)) => before + u64::from(start),
            Some(Err(_)) => return Err(damaged("the number of starts is not a number")),
            None => 1,
        };
        let set =
            "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
        tx.execute(set, params!["installation", installation.to_string()]).map_err(sqlite)?;
        tx.execute(set, params!["epoch", epoch.to_string()]).map_err(sqlite)?;
        tx.commit().map_err(sqlite)?;
        Ok((installation, epoch))
    }

    /// Finds the last row and checks the chain of the last few.
    fn find_end(&mut self, installation: uuid::Uuid, notes: &mut Vec<Text>) -> Result<(), StoreError> {
        self.last =
            self.conn.query_row("SELECT coalesce(max(n), 0) FROM journal", [], |row| row.get(0)).map_err(sqlite)?;
        self.chain = if self.last == 0 {
            first_link(installation)
        } else {
            self.conn
                .query_row("SELECT chain FROM journal WHERE n = ?1", [self.last], |row| row.get::<_, Hash>(0))
                .map_err(sqlite)?
        };
        let mut bad = Vec::new();
        walk(&self.conn, self.last - CHECKED_AT_START, |_, n, good| {
            if !good {
                bad.push(n);
            }
        })?;
        if let (Some(first), Some(last)) = (bad.first(), bad.last()) {
            let count = bad.len();
            tracing::error!(
                file = FILE,
                rows = count,
                first,
                last,
                "Rows of the journal fail their hash; anmin uses none of them."
            );
            notes.push(Text {
                zh: format!("{FILE} 中有 {count} 条记录校验失败（第 {first} 至 {last} 条），未予采用"),
                en: format!("{count} rows of {FILE} fail their hash (rows {first} to {last}) and are not used"),
            });
        }
        Ok(())
    }

    /// The last transition of each open alarm. A head whose row is damaged falls back to the last good row of its alarm;
    /// since receivers may have seen the numbers in between, all go on from a new `floor`.
    fn open_alarms(
        &self,
        floor: &mut u32,
        now: Wall,
        notes: &mut Vec<Text>,
    ) -> Result<Vec<Arc<Transition>>, StoreError> {
        let heads = heads(&self.conn, "SELECT alarm, n FROM heads ORDER BY n")?;
        let mut open = Vec::with_capacity(heads.len());
        for (alarm, n) in heads {
            let mut at = Some(n);
            let mut found = None;
            while let Some(n) = at {
                if let Ok(transition) = transition_at(&self.conn, n)? {
                    found = Some(transition);
                    break;
                }
                at = self
                    .conn
                    .query_row(
                        "SELECT n FROM journal WHERE alarm = ?1 AND n < ?2 AND kind = ?3 ORDER BY n DESC LIMIT 1",
                        params![alarm, n, TRANSITION],
                        |row| row.get(0),
                    )
                    .optional()
                    .map_err(sqlite)?;
            }
            let name = uuid::Uuid::from_slice(&alarm).map_or_else(|_| "?".to_owned(), |id| id.to_string());
            if found.is_some() && at != Some(n) {
                *floor = (*floor).max(second(now));
                notes.push(Text {
                    zh: format!("报警 {name} 的最后记录已损坏，按其上一条完好记录恢复"),
                    en: format!("the last record of alarm {name} is damaged; it stands as of the last good one"),
                });
            }
            match found {
                Some(transition) => open.push(transition),
                None => notes.push(Text {
                    zh: format!("报警 {name} 的全部记录已损坏，无法恢复"),
                    en: format!("every record of alarm {name} is damaged; it could not be restored"),
                }),
            }
        }
        for transition in open.iter_mut().filter(|transition| transition.alarm.seq < *floor) {
            Arc::make_mut(&mut transition.alarm).seq = *floor;
        }
        Ok(open.into_iter().map(Arc::new).collect())
    }

    fn open_calls(&self, floor: u32, notes: &mut Vec<Text>) -> Result<Vec<Arc<CallChange>>, StoreError> {
        let mut calls = Vec::new();
        for (_, n) in heads(&self.conn, "SELECT alarm, n FROM calls ORDER BY n")? {
            match call_at(&self.conn, n)? {
                Ok(mut change) => {
                    change.call.seq = change.call.seq.max(floor);
                    calls.push(Arc::new(change));
                }
                Err(why) => notes.push(Text {
                    zh: format!("调派记录（第 {n} 条）已损坏，无法恢复"),
                    en: format!("a call of a station could not be restored: row {n}: {why}"),
                }),
            }
        }
        Ok(calls)
    }

    /// The last change of each open incident. One whose row is damaged stands as of the last good one; without any its
    /// alarms are grouped anew.
    fn open_incidents(&self, notes: &mut Vec<Text>) -> Result<Vec<Arc<IncidentChange>>, StoreError> {
        let mut open = Vec::new();
        for (id, last) in incidents::open(&self.conn).map_err(sqlite)? {
            let mut at = Some(last);
            let mut found = None;
            while let Some(n) = at {
                if let Ok(change) = incident_at(&self.conn, n)? {
                    found = Some(change);
                    break;
                }
                at = self
                    .conn
                    .query_row(
                        "SELECT n FROM journal WHERE alarm = ?1 AND n < ?2 AND kind = ?3 ORDER BY n DESC LIMIT 1",
                        params![id.0.as_bytes(), n, INCIDENT],
                        |row| row.get(0),
                    )
                    .optional()
                    .map_err(sqlite)?;
            }
            if at != Some(last) {
                notes.push(Text {
                    zh: format!("事件 {id} 的最后记录已损坏，按其上一条完好记录恢复；没有完好记录时重新归并其报警"),
                    en: format!(
                        "the last record of incident {id} is damaged; it stands as of the last good one, and without any its alarms are grouped anew"
                    ),
                });
            }
            if let Some(mut change) = found {
                // Alarms join without a change of the incident: their own rows say so.
                let alarms = incidents::count_alarms(&self.conn, id).map_err(sqlite)?;
                change.incident = Arc::new(Incident { alarms, ..Incident::clone(&change.incident) });
                open.push(Arc::new(change));
            }
        }
        Ok(open)
    }

    /// What people said of the stations. Where a row is damaged the station stands as if nothing was said.
    fn duty(&self, notes: &mut Vec<Text>) -> Result<Vec<Arc<DutyChange>>, StoreError> {
        let mut said = Vec::new();
        for (station, found) in duty::read(&self.conn).map_err(sqlite)? {
            match found {
                Ok(change) => said.push(Arc::new(change)),
                Err(why) => {
                    tracing::error!(%station, why = %why, "What was said of a station is damaged; it stands as its shifts say.");
                    notes.push(Text {
                        zh: format!("{station} 的交接班和器材检查记录已损坏，请重新登记"),
                        en: format!("hand-over and checks of station {station} are damaged ({why}); say them again"),
                    });
                }
            }
        }
        Ok(said)
    }

    /// Conditions whose delays ran. One whose row is damaged is forgotten: the next reading is judged anew.
    fn pending_conditions(&self, notes: &mut Vec<Text>) -> Result<Vec<Arc<Pending>>, StoreError> {
        let mut conditions = Vec::new();
        for (rule, subject, found) in pending::read(&self.conn).map_err(sqlite)? {
            match found {
                Ok(condition) => conditions.push(Arc::new(condition)),
                Err(why) => {
                    tracing::error!(%rule, %subject, why = %why, "The record of a delay that ran is damaged; the next reading is judged anew.");
                    pending::forget_one(&self.conn, &rule, &subject).map_err(sqlite)?;
                    notes.push(Text {
                        zh: format!("{subject}（规则 {rule}）的延时记录已损坏，待其再次上报时重新判断"),
                        en: format!(
                            "the delay of rule {rule} that ran for {subject} is damaged ({why}); its next reading is judged anew"
                        ),
                    });
                }
            }
        }
        Ok(conditions)
    }

    /// Orders without a receipt, and those whose body cannot be read.
    #[expect(clippy::type_complexity, reason = "an id and why")]
    fn pending_orders(&self) -> Result<(Vec<Order>, Vec<(String, RecordError)>), StoreError> {
        let mut orders = Vec::new();
        let mut lost = Vec::new();
        let mut sql = self.conn.prepare(PENDING_ORDERS).map_err(sqlite)?;
        let mut rows = sql.query([PENDING]).map_err(sqlite)?;
        while let Some(row) = rows.next().map_err(sqlite)? {
            let (id, channel, body) = order_row(&self.conn, row)?;
            match body {
                Ok(body) => orders.push(Order { id: OrderId::new(id), channel: channel.into(), body }),
                Err(why) => lost.push((id, why)),
            }
        }
        Ok((orders, lost))
    }

    /// An order whose body cannot be read becomes a dead letter: it can be listed, it cannot be sent.
    fn bury(&self, lost: Vec<(String, RecordError)>, now: Wall, notes: &mut Vec<Text>) -> Result<(), StoreError> {
        for (id, why) in lost {
            tracing::error!(order = %id, why = %why, "A pending order is damaged and cannot be sent; it is a dead letter now.");
            self.conn
                .execute(
                    "UPDATE orders SET state = ?2, ended = ?3, detail = ?4 WHERE id = ?1",
                    params![id, DEAD, now.micros(), why.to_string()],
                )
                .map_err(sqlite)?;
            notes.push(Text {
                zh: format!("待发指令 {id} 已损坏，无法发送，已列入死信"),
                en: format!("pending order {id} is damaged and cannot be sent; it is listed as a dead letter"),
            });
        }
        Ok(())
    }

    fn write<'t>(
        &mut self,
        turns: impl Iterator<Item = &'t OwnedTurn>,
        audit_kept: Duration,
    ) -> rusqlite::Result<(i64, Hash)> {
        let mut entries = 0;
        let tx = self.conn.transaction()?;
        let (mut last, mut chain) = (self.last, self.chain);
        // Where this turn's events stand, by address: orders that carry the same `Arc` refer to the row.
        let mut rows: HashMap<usize, i64> = HashMap::new();
        for turn in turns {
            entries += turn.entries();
            rows.clear();
            for transition in &turn.transitions {
                let alarm = &transition.alarm;
                let at = transition.at.wall;
                let record = record::write_transition(transition);
                (last, chain) = append(&tx, last, &chain, TRANSITION, alarm.id.0, at, &record)?;
                rows.insert(Arc::as_ptr(transition).addr(), last);
                incidents::belongs(&tx, alarm)?;
                if alarm.is_open() {
                    tx.prepare_cached("INSERT OR REPLACE INTO heads (alarm, n) VALUES (?1, ?2)")?
                        .execute(params![alarm.id.0.as_bytes(), last])?;
                } else {
                    tx.prepare_cached("DELETE FROM heads WHERE alarm = ?1")?.execute([alarm.id.0.as_bytes()])?;
                    tx.prepare_cached("DELETE FROM calls WHERE alarm = ?1 AND over = 1")?
                        .execute([alarm.id.0.as_bytes()])?;
                }
            }
            for change in &turn.calls {
                let call = &change.call;
                let record = record::write_call(change);
                (last, chain) = append(&tx, last, &chain, CALL, call.alarm.0, change.at, &record)?;
                rows.insert(Arc::as_ptr(change).addr(), last);
                let over = !call.is_live();
                tx.prepare_cached("INSERT OR REPLACE INTO calls (alarm, station, over, n) VALUES (?1, ?2, ?3, ?4)")?
                    .execute(params![call.alarm.0.as_bytes(), &*call.station, over, last])?;
                if over {
                    tx.prepare_cached(
                        "DELETE FROM calls WHERE alarm = ?1 AND over = 1 AND alarm NOT IN (SELECT alarm FROM heads)",
                    )?
                    .execute([call.alarm.0.as_bytes()])?;
                }
            }
            for change in &turn.incidents {
                let record = record::write_incident(change);
                (last, chain) = append(&tx, last, &chain, INCIDENT, change.incident.id.0, change.at, &record)?;
                incidents::write(&tx, change, last)?;
            }
            for condition in &turn.pending {
                pending::write(&tx, condition)?;
            }
            for order in &turn.orders {
                let at = match &order.body {
                    OrderBody::Event(transition) => rows.get(&Arc::as_ptr(transition).addr()).map(|n| (*n, false)),
                    OrderBody::Call(change) => rows.get(&Arc::as_ptr(change).addr()).map(|n| (*n, true)),
                    OrderBody::Cap(_) | OrderBody::Siren(_) => None,
                };
                let body =
                    at.map_or_else(|| record::write_body(&order.body), |(n, call)| record::write_body_at(n, call));
                let sum = order_sum(order.id.as_str(), &order.channel, &body);
                tx.prepare_cached(
                    "INSERT INTO orders (id, channel, body, sum) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (id) DO NOTHING",
                )?
                .execute(params![order.id.as_str(), &*order.channel, body, sum])?;
            }
            for ended in &turn.outcomes {
                let (state, detail) = match &ended.outcome {
                    Outcome::Delivered(receipt) => {
                        receipt.text.iter().try_for_each(|text| sent::write(&tx, &ended.order, text))?;
                        (DELIVERED, &receipt.detail)
                    }
                    Outcome::Dead(why) => (DEAD, why),
                };
                // What was delivered stays delivered, whatever a slower attempt says afterwards.
                tx.prepare_cached(
                    "UPDATE orders SET state = ?2, ended = ?3, detail = ?4, ends = ends + 1 WHERE id = ?1 AND state <> 1",
                )?
                .execute(params![ended.order.as_str(), state, ended.at.micros(), detail])?;
            }
            for fact in &turn.facts {
                facts::write(&tx, fact, audit_kept)?;
            }
        }
        tx.commit()?;
        self.checkpoints.count(entries);
        Ok((last, chain))
    }
}

/// Sets the file aside and makes a new one of everything that can be read of it. The caller holds the directory.
pub(super) fn rebuild(path: &Path, now: Wall) -> Result<Text, StoreError> {
    if !path.exists() {
        Db::open_file(path, now, false, &mut Vec::new())?;
        return Ok(Text { zh: format!("已新建 {FILE}"), en: format!("{FILE} was made anew") });
    }
    let (mut db, note) = Db::rebuild(path, now, i64::MAX, "fsck")?;
    db.restore(now, false, Vec::new())?;
    Ok(note)
}

/// Writes what was done to the file itself into its audit. The caller holds the directory.
pub(super) fn note(path: &Path, deed: &Deed) -> Result<(), StoreError> {
    let mut conn = Connection::open(path).map_err(sqlite)?;
    migrate(&mut conn, FILE, MIGRATIONS)?;
    let tx = conn.transaction().map_err(sqlite)?;
    audit::write(&tx, deed, audit::KEPT).and_then(|()| tx.commit()).map_err(sqlite)
}

/// Seconds since 1970, within what a number of transitions can be.
pub(super) fn second(now: Wall) -> u32 {
    u32::try_from(now.micros() / 1_000_000).unwrap_or(0)
}

pub(super) fn new_installation(now: Wall) -> uuid::Uuid {
    let micros = u64::try_from(now.micros()).unwrap_or(0);
    let nanos = u32::try_from(micros % 1_000_000 * 1_000).unwrap_or(0);
    uuid::Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, micros / 1_000_000, nanos))
}

/// `of`: the alarm or incident that the row is about.
pub(super) fn append(
    tx: &Connection,
    last: i64,
    chain: &Hash,
    kind: i64,
    of: uuid::Uuid,
    at: Wall,
    record: &str,
) -> rusqlite::Result<(i64, Hash)> {
    let n = last + 1;
    let sum = row_sum(n, kind, record);
    let chain = sha256(&[chain, &sum]);
    tx.prepare_cached(
        "INSERT INTO journal (n, kind, alarm, at, record, sum, chain) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![n, kind, of.as_bytes(), at.micros(), record, sum, chain])?;
    Ok((n, chain))
}

pub(super) fn first_link(installation: uuid::Uuid) -> Hash {
    sha256(&[b"anmin journal\0", installation.as_bytes()])
}

pub(super) fn row_sum(n: i64, kind: i64, record: &str) -> Hash {
    sha256(&[&n.to_be_bytes(), &kind.to_be_bytes(), record.as_bytes()])
}

pub(super) fn order_sum(id: &str, channel: &str, body: &str) -> Hash {
    let lengths = [id.len() as u64, channel.len() as u64].map(u64::to_be_bytes).concat();
    sha256(&[&lengths, id.as_bytes(), channel.as_bytes(), body.as_bytes()])
}

pub(super) fn sha256(parts: &[&[u8]]) -> Hash {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// Reads rows after `after` in order and says of each whether it follows from the one before.
fn walk(conn: &Connection, after: i64, mut each: impl FnMut(&Row<'_>, i64, bool)) -> Result<(), StoreError> {
    let after = after.max(0);
    let mut before: Option<(i64, Hash)> = if after == 0 {
        conn.query_row("SELECT value FROM meta WHERE key = 'installation'", [], |row| row.get::<_, String>(0))
            .optional()
            .map_err(sqlite)?
            .and_then(|text| uuid::Uuid::parse_str(&text).ok())
            .map(|id| (0, first_link(id)))
    } else {
        conn.query_row("SELECT n, chain FROM journal WHERE n = ?1", [after], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()
            .map_err(sqlite)?
    };
    let mut sql =
        conn.prepare("SELECT n, kind, record, sum, chain FROM journal WHERE n > ?1 ORDER BY n").map_err(sqlite)?;
    let mut rows = sql.query([after]).map_err(sqlite)?;
    while let Some(row) = rows.next().map_err(sqlite)? {
        let n: i64 = row.get(0).map_err(sqlite)?;
        let read = || -> rusqlite::Result<(bool, Hash, Hash)> {
            let (kind, record, sum): (i64, String, Hash) = (row.get(1)?, row.get(2)?, row.get(3)?);
            Ok((row_sum(n, kind, &record) == sum, sum, row.get(4)?))
        };
        let (good, chain) = match (read(), before) {
            (Ok((whole, sum, chain)), Some((last, link))) => {
                (whole && last + 1 == n && sha256(&[&link, &sum]) == chain, Some((n, chain)))
            }
            (Ok((_, _, chain)), None) => (false, Some((n, chain))),
            (Err(_), _) => (false, None),
        };
        each(row, n, good);
        before = chain;
    }
    Ok(())
}

/// One row's record when it is as it was written.
fn record_at(conn: &Connection, n: i64, kind: i64) -> Result<Result<String, RecordError>, StoreError> {
    let row = conn.prepare_cached("SELECT kind, record, sum FROM journal WHERE n = ?1").and_then(|mut sql| {
        sql.query_row([n], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, Hash>(2)?)))
    });
    match row {
        Ok((found, record, sum)) if found == kind && row_sum(n, kind, &record) == sum => Ok(Ok(record)),
        // Not there, changed, or not even text any more.
        Ok(_)
        | Err(
            rusqlite::Error::QueryReturnedNoRows
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::FromSqlConversionFailure(..),
        ) => Ok(Err(RecordError::Missing(n))),
        Err(error) => Err(sqlite(error)),
    }
}

fn transition_at(conn: &Connection, n: i64) -> Result<Result<Transition, RecordError>, StoreError> {
    Ok(record_at(conn, n, TRANSITION)?.and_then(|json| record::read_transition(&json)))
}

fn call_at(conn: &Connection, n: i64) -> Result<Result<CallChange, RecordError>, StoreError> {
    Ok(record_at(conn, n, CALL)?.and_then(|json| record::read_call(&json)))
}

fn incident_at(conn: &Connection, n: i64) -> Result<Result<IncidentChange, RecordError>, StoreError> {
    Ok(record_at(conn, n, INCIDENT)?.and_then(|json| record::read_incident(&json)))
}

pub(super) fn heads(conn: &Connection, sql: &str) -> Result<Vec<(Vec<u8>, i64)>, StoreError> {
    let mut sql = conn.prepare(sql).map_err(sqlite)?;
    let rows = sql.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(sqlite)?;
    rows.collect::<rusqlite::Result<_>>().map_err(sqlite)
}

/// Id, channel and body of a row `id, channel, body, sum`.
fn order_row(conn: &Connection, row: &Row<'_>) -> Result<(String, String, Result<OrderBody, RecordError>), StoreError> {
    let id: String = row.get(0).map_err(sqlite)?;
    let channel: String = row.get(1).map_err(sqlite)?;
    let body: String = row.get(2).map_err(sqlite)?;
    let sum: Vec<u8> = row.get(3).map_err(sqlite)?;
    if sum != order_sum(&id, &channel, &body) {
        return Ok((id, channel, Err(RecordError::Form("the order fails its hash".to_owned()))));
    }
    let body = match record::read_body(&body) {
        Ok(Body::Whole(body)) => Ok(body),
        Ok(Body::EventAt(n)) => transition_at(conn, n)?.map(|transition| OrderBody::Event(Arc::new(transition))),
        Ok(Body::CallAt(n)) => call_at(conn, n)?.map(|change| OrderBody::Call(Arc::new(change))),
        Err(error) => Err(error),
    };
    Ok((id, channel, body))
}

#[expect(clippy::type_complexity, reason = "channel and body of at most one row")]
fn body_of_dead(
    conn: &Connection,
    id: &OrderId,
) -> Result<Option<(String, Result<OrderBody, RecordError>)>, StoreError> {
    let mut sql = conn
        .prepare_cached("SELECT id, channel, body, sum FROM orders WHERE id = ?1 AND state = ?2")
        .map_err(sqlite)?;
    let mut rows = sql.query(params![id.as_str(), DEAD]).map_err(sqlite)?;
    let Some(row) = rows.next().map_err(sqlite)? else { return Ok(None) };
    let (_, channel, body) = order_row(conn, row)?;
    Ok(Some((channel, body)))
}

fn recent(conn: &Connection, limit: usize, before: Option<i64>) -> Result<Vec<Journaled>, StoreError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut sql =
        conn.prepare_cached("SELECT n, kind FROM journal WHERE n < ?1 ORDER BY n DESC LIMIT ?2").map_err(sqlite)?;
    let rows = sql
        .query_map(params![before.unwrap_or(i64::MAX), limit], |row| Ok((row.get(0)?, row.get(1)?)))
        .and_then(Iterator::collect::<rusqlite::Result<Vec<(i64, i64)>>>)
        .map_err(sqlite)?;
    rows.into_iter().map(|(n, kind)| journaled(conn, n, kind)).collect()
}

fn history(conn: &Connection, alarm: AlarmId) -> Result<Vec<Journaled>, StoreError> {
    let mut sql = conn.prepare_cached("SELECT n, kind FROM journal WHERE alarm = ?1 ORDER BY n").map_err(sqlite)?;
    let rows = sql
        .query_map([alarm.0.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))
        .and_then(Iterator::collect::<rusqlite::Result<Vec<(i64, i64)>>>)
        .map_err(sqlite)?;
    rows.into_iter().map(|(n, kind)| journaled(conn, n, kind)).collect()
}

fn journaled(conn: &Connection, n: i64, kind: i64) -> Result<Journaled, StoreError> {
    let entry = match kind {
        CALL => call_at(conn, n)?.map(Entry::Call),
        INCIDENT => incident_at(conn, n)?.map(Entry::Incident),
        _ => transition_at(conn, n)?.map(Entry::Transition),
    };
    Ok(Journaled { n, entry: entry.unwrap_or_else(|why| Entry::Damaged(why.to_string())) })
}

fn dead_letters(conn: &Connection, limit: usize) -> Result<Vec<DeadLetter>, StoreError> {
    let mut sql = conn.prepare_cached(DEAD_ORDERS).map_err(sqlite)?;
    // SQLite takes a negative limit for none.
    let rows = sql.query([DEAD, i64::try_from(limit).unwrap_or(-1)]).map_err(sqlite)?;
    let mut letters = read_letters(conn, rows)?;
    letters.reverse();
    Ok(letters)
}

fn read_letters(conn: &Connection, mut rows: rusqlite::Rows<'_>) -> Result<Vec<DeadLetter>, StoreError> {
    let mut letters = Vec::new();
    while let Some(row) = rows.next().map_err(sqlite)? {
        let (id, channel, body) = order_row(conn, row)?;
        letters.push(DeadLetter {
            id: OrderId::new(id),
            channel: channel.into(),
            at: Wall::from_micros(row.get(4).map_err(sqlite)?),
            why: row.get(5).map_err(sqlite)?,
            body: body.ok(),
        });
    }
    Ok(letters)
}

pub(super) fn check(conn: &Connection) -> Result<Checked, StoreError> {
    let mut checked = Checked::default();
    walk(conn, 0, |row, n, good| {
        checked.rows += 1;
        let readable = || -> Option<()> {
            let (kind, json): (i64, String) = (row.get(1).ok()?, row.get(2).ok()?);
            match kind {
                CALL => record::read_call(&json).ok().map(drop),
                INCIDENT => record::read_incident(&json).ok().map(drop),
                _ => record::read_transition(&json).ok().map(drop),
            }
        };
        if !good || readable().is_none() {
            checked.bad_rows.push(n);
        }
    })?;
    let mut sql = conn.prepare("SELECT id, channel, body, sum FROM orders ORDER BY n").map_err(sqlite)?;
    let mut rows = sql.query([]).map_err(sqlite)?;
    while let Some(row) = rows.next().map_err(sqlite)? {
        match order_row(conn, row)? {
            // Given up with its event when the file was salvaged: lost, but not unsaid.
            (_, _, Ok(_) | Err(RecordError::Missing(0))) => {}
            (id, ..) => checked.bad_orders.push(OrderId::new(id)),
        }
    }
    Ok(checked)
}

/// Room kept beside the database, given up when the disk is full.
#[derive(Debug)]
struct Reserve {
    path: PathBuf,
    held: bool,
    filling: Option<JoinHandle<bool>>,
    tried: Mono,
    /// Whether who asks waits for the filling, so that a test plays the same each time.
    waits: bool,
}

impl Reserve {
    const TRY_EVERY: Duration = Duration::from_secs(60);

    fn new(dir: &Path, waits: bool) -> Self {
        Self { path: dir.join(RESERVE), held: false, filling: None, tried: Mono::default(), waits }
    }

    /// Fills it when it is not there. Without room there is no reserve, and that is all.
    fn fill(&mut self) {
        self.held = fill(&self.path, 1);
    }

    /// Whether there was something to give up.
    fn give_up(&mut self) -> bool {
        // One that is being filled is in the way of the journal.
        if let Some(filling) = self.filling.take() {
            self.held |= filling.join().unwrap_or(false);
        }
        let given = std::mem::take(&mut self.held) && fs::remove_file(&self.path).is_ok();
        if given {
            tracing::error!(file = FILE, "The disk is full; anmin gave up its reserve to write the journal.");
        }
        given
    }

    fn tend(&mut self, now: Mono) -> bool {
        if let Some(filled) = self.filling.take_if(|filling| self.waits || filling.is_finished()) {
            self.held = filled.join().unwrap_or(false);
            if self.held {
                tracing::info!(file = RESERVE, "There is room again; the journal's reserve is kept.");
            }
        }
        if !self.held && self.filling.is_none() && now.since(self.tried) >= Self::TRY_EVERY {
            self.tried = now;
            let path = self.path.clone();
            // Twice the room must be there, or the reserve would come and go while the disk is nearly full.
            self.filling = std::thread::Builder::new()
                .name("anmin-reserve".to_owned())
                .spawn(move || fill(&path, 2))
                .map_err(|error| tracing::warn!(%error, "The reserve cannot be filled."))
                .ok();
        }
        self.held
    }
}

/// Makes the reserve if there is `times` its room; whether it is there afterwards.
fn fill(path: &Path, times: u64) -> bool {
    if fs::metadata(path).is_ok_and(|meta| meta.len() >= RESERVE_BYTES) {
        return true;
    }
    let fill = || -> std::io::Result<()> {
        let mut file = File::create(path)?;
        // Written, not only set to its length: a sparse file reserves nothing.
        let block = vec![0_u8; 64 << 10];
        for _ in 0..times * RESERVE_BYTES / block.len() as u64 {
            file.write_all(&block)?;
        }
        file.set_len(RESERVE_BYTES)?;
        file.sync_all()
    };
    let filled = fill();
    if let Err(error) = &filled {
        tracing::warn!(file = RESERVE, %error, "No room for the journal's reserve; anmin goes on without it.");
        let _ = fs::remove_file(path);
    }
    filled.is_ok()
}

fn sqlite(error: rusqlite::Error) -> StoreError {
    StoreError::sqlite(FILE, error)
}

fn damaged(why: &str) -> StoreError {
    StoreError::Damaged { file: FILE.to_owned(), why: why.to_owned() }
}

fn not_open() -> StoreError {
    damaged("set aside; the next commit starts a new file")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use anmin_rules::alarm::{AlarmState, Condition};
    use anmin_rules::duty::Duty;
    use anmin_rules::order::{Call, CallStamp, CallState};
    use anmin_sensors::point::Hazard;

    use super::super::tests::TestDir;
    use super::*;
    use crate::delivery::Receipt;
    use crate::samples::{RAISED, alarm, call_change, cap_orders, transition};
    use anmin_rules::incident::{End, FalseCause, IncidentCause, Outcome as IncidentOutcome};

    fn numbered(n: u128) -> Alarm {
        Alarm { id: AlarmId(uuid::Uuid::from_u128(n)), ..alarm() }
    }

    fn raised(n: u128) -> Arc<Transition> {
        transition(AlarmState::Normal, Cause::Raised, numbered(n))
    }

    fn over(n: u128) -> Arc<Transition> {
        let by = anmin_rules::alarm::By { who: "li".to_owned(), at: RAISED };
        let alarm = Alarm { condition: Condition::Normal, acknowledged: Some(by), seq: 2, ..numbered(n) };
        transition(AlarmState::Acknowledged, Cause::Returned, alarm)
    }

    fn event(transition: &Arc<Transition>, channel: &str) -> Order {
        let id = format!("{}/{}/{channel}", transition.alarm.id, transition.alarm.seq);
        Order { id: OrderId::new(id), channel: channel.into(), body: OrderBody::Event(Arc::clone(transition)) }
    }

    fn delivered() -> Outcome {
        Outcome::Delivered(Receipt::of("HTTP 204"))
    }

    /// Runs `damage` on the files of a store that is closed.
    fn edit(dir: &TestDir, sql: &str) {
        Connection::open(dir.path().join(FILE)).unwrap().execute_batch(sql).unwrap();
    }

    #[test]
    fn a_restart_gives_back_open_alarms_calls_and_pending_orders_in_order() {
        let dir = TestDir::new("state-restart");
        let call = call_change();
        let caps: Vec<Order> = cap_orders()
            .into_iter()
            .map(|(name, cap)| Order {
                id: OrderId::new(format!("cap/{name}")),
                channel: "town".into(),
                body: OrderBody::Cap(Arc::new(cap)),
            })
            .collect();
        let (one, two) = (raised(1), raised(2));
        let mut orders = vec![event(&two, "mqtt"), event(&one, "mqtt"), event(&one, "office")];
        orders.push(Order {
            id: OrderId::new("call/1"),
            channel: "mqtt".into(),
            body: OrderBody::Call(Arc::clone(&call)),
        });
        // Equal but not the one that is journaled with it: stands whole in its row.
        orders.push(Order {
            id: OrderId::new("copy"),
            channel: "mqtt".into(),
            body: OrderBody::Event(Arc::new((*two).clone())),
        });
        orders.extend(caps);
        let installation = {
            let (mut store, fresh) = StateStore::open(dir.path(), RAISED).unwrap();
            assert_eq!((fresh.epoch, fresh.alarms.len(), fresh.orders.len(), fresh.notes.len()), (1, 0, 0, 0));
            store
                .commit(&Turn {
                    transitions: &[one, Arc::clone(&two)],
                    calls: std::slice::from_ref(&call),
                    orders: &orders,
                    ..Turn::default()
                })
                .unwrap();
            store.record_outcome(&orders[1].id, &delivered(), RAISED).unwrap();
            // The same order again, as after a crash: changes nothing, also not what was delivered.
            store.commit(&Turn { orders: &orders[..2], ..Turn::default() }).unwrap();
            let turn = [over(1)];
            store.commit(&Turn { transitions: &turn, ..Turn::default() }).unwrap();
            fresh.installation
        };
        let (store, back) = StateStore::open(dir.path(), RAISED).unwrap();
        assert_eq!((back.epoch, back.installation, back.notes.len()), (2, installation, 0));
        assert_eq!(back.alarms, [Arc::clone(&two.alarm)]);
        assert_eq!(back.calls, [call]);
        orders.remove(1);
        assert_eq!(back.orders, orders);
        let checked = store.check().unwrap();
        assert_eq!(checked, Checked { rows: 4, ..Checked::default() });
    }

    #[test]
    fn the_newest_reading_that_changed_an_alarm_is_known_for_each_point() {
        let dir = TestDir::new("state-judged");
        let (mut store, _) = StateStore::open(dir.path(), RAISED).unwrap();
        assert_eq!(store.judged().unwrap(), []);
        let step = |cause: Cause, point: &str, sequence: u64| {
            let mut alarm = numbered(1);
            alarm.evidence.point = Some(anmin_sensors::point::PointId::new(point));
            alarm.evidence.sequence = Some(sequence);
            transition(AlarmState::Normal, cause, alarm)
        };
        let story = [
            step(Cause::Raised, "g1/lel", 3),
            step(Cause::Raised, "g2/lel", 7),
            step(Cause::Returned, "g1/lel", 5),
            // What a person does rests on a reading of long ago.
            step(Cause::Acknowledged { by: "li".to_owned() }, "g2/lel", 1),
        ];
        store.commit(&Turn { transitions: &story, ..Turn::default() }).unwrap();
        let judged = store.judged().unwrap();
        let found = judged.iter().map(|judged| (judged.point.as_ref().unwrap().as_str(), judged.sequence));
        assert_eq!(found.collect::<Vec<_>>(), [("g1/lel", Some(5)), ("g2/lel", Some(7))]);
    }

    #[test]
    fn a_call_is_kept_until_it_is_over_and_its_alarm_closed() {
        let dir = TestDir::new("state-calls");
        let change = |state: CallState, seq: u32| {
            let base = call_change();
            let stamp = CallStamp { state, at: RAISED, by: "anmin".to_owned(), why: String::new() };
            let call =
                Call { state, seq, stamps: vec![stamp], alarm: AlarmId(uuid::Uuid::from_u128(1)), ..base.call.clone() };
            Arc::new(CallChange { call, ..(*base).clone() })
        };
        let steps: [(Turn<'_>, usize); 4] = [
            (Turn { transitions: &[raised(1)], calls: &[change(CallState::Called, 1)], ..Turn::default() }, 1),
            (Turn { calls: &[change(CallState::Unanswered, 2)], ..Turn::default() }, 1),
            (Turn { transitions: &[over(1)], ..Turn::default() }, 0),
            (Turn { calls: &[change(CallState::StoodDown, 3)], ..Turn::default() }, 0),
        ];
        for (turn, kept) in steps {
            let (mut store, _) = StateStore::open(dir.path(), RAISED).unwrap();
            store.commit(&turn).unwrap();
            drop(store);
            let (_, back) = StateStore::open(dir.path(), RAISED).unwrap();
            assert_eq!(back.calls.len(), kept);
        }
    }

    #[test]
    fn what_the_disk_refuses_is_written_when_it_gives_way_again() {
        let dir = TestDir::new("state-refused");
        let refusals = Arc::new(AtomicUsize::new(0));
        let left = Arc::clone(&refusals);
        let disk = Disk::scripted(move |file| {
            let refuse = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
            if refuse { Err(StoreError::ReadOnly { file: file.to_owned() }) } else { Ok(()) }
        });
        let (mut store, _) = StateStore::open_on(dir.path(), RAISED, disk).unwrap();
        refusals.store(2, Ordering::SeqCst);
        let (one, two) = (raised(1), raised(2));
        let order = event(&one, "mqtt");
        let turn = [Arc::clone(&one)];
        let error = store.commit(&Turn { transitions: &turn, orders: std::slice::from_ref(&order), ..Turn::default() });
        assert_eq!(error, Err(StoreError::ReadOnly { file: FILE.to_owned() }));
        assert!(error.unwrap_err().may_pass());
        store.record_outcome(&order.id, &delivered(), RAISED).unwrap_err();
        assert_eq!(store.unwritten(), 3);
        store.commit(&Turn { transitions: &[two], ..Turn::default() }).unwrap();
        assert_eq!((store.unwritten(), store.dropped()), (0, 0));
        drop(store);
        let (_, back) = StateStore::open(dir.path(), RAISED).unwrap();
        assert_eq!((back.alarms.len(), back.orders.len()), (2, 0));
    }

    #[test]
    fn a_full_file_takes_more_once_it_may_grow() {
        let dir = TestDir::new("state-full");
        let (mut store, _) = StateStore::open(dir.path(), RAISED).unwrap();
        let conn = |store: &StateStore, pages: i64| {
            store
                .db
                .as_ref()
                .unwrap()
                .conn
                .query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
                .unwrap();
        };
        conn(&store, 20);
        let mut failed = 0;
        for n in 0..200 {
            match store.commit(&Turn { transitions: &[raised(n)], ..Turn::default() }) {
                Ok(()) => assert_eq!(failed, 0, "nothing fits behind what did not fit"),
                Err(error) => {
                    assert_eq!(error, StoreError::Full { file: FILE.to_owned() });
                    failed += 1;
                }
            }
        }
        assert!(failed > 100 && store.unwritten() == failed, "{failed}");
        assert!(!dir.path().join(RESERVE).exists(), "the reserve was given up for it");
        conn(&store, 10_000);
        store.commit(&Turn::default()).unwrap();
        drop(store);
        let (store, back) = StateStore::open(dir.path(), RAISED).unwrap();
        assert_eq!(back.alarms.len(), 200);
        assert_eq!(store.check().unwrap(), Checked { rows: 200, ..Checked::default() });
        assert!(dir.path().join(RESERVE).exists(), "and made again");
    }

    #[test]
    fn the_newest_dead_letters_are_listed_oldest_first() {
        let dir = TestDir::new("state-dead-many");
        let (mut store, _) = StateStore::open(dir.path(), RAISED).unwrap();
        let transitions: Vec<_> = (1..=5).map(raised).collect();
        let orders: Vec<Order> = transitions.iter().map(|one| event(one, "office")).collect();
        store.commit(&Turn { transitions: &transitions, orders: &orders, ..Turn::default() }).unwrap();
        for order in &orders[..4] {
            store.record_outcome(&order.id, &Outcome::Dead("HTTP 400: no".to_owned()), RAISED).unwrap();
        }
        let reader = store.reader().unwrap();
        for (limit, wanted) in [(2, &orders[2..4]), (4, &orders[..4]), (usize::MAX, &orders[..4])] {
            let listed: Vec<OrderId> =
                reader.dead_letters(limit).unwrap().into_iter().map(|letter| letter.id).collect();
            assert_eq!(listed, wanted.iter().map(|order| order.id.clone()).collect::<Vec<_>>(), "{limit}");
        }
    }

    /// A journal holds a million orders that were delivered: nobody who looks for the others walks past them.
    #[test]
    fn orders_that_are_not_delivered_are_found_by_their_index() {
        let dir = TestDir::new("state-index");
        let (store, _) = StateStore::open(dir.path(), RAISED).unwrap();
        for sql in [PENDING_ORDERS, DEAD_ORDERS] {
            let mut plan = store.conn().unwrap().prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let values = [DEAD, 1];
            let values = rusqlite::params_from_iter(&values[..plan.parameter_count()]);
            let steps: Vec<String> =
                plan.query_map(values, |row| row.get("detail")).unwrap().map(Result::unwrap).collect();
            assert_eq!(steps, ["SEARCH orders USING INDEX orders_not_delivered (state=?)"], "{sql}");
        }
    }

    #[test]
    fn a_dead_letter_is_listed_and_sent_again_under_its_id() {
        let dir = TestDir::new("state-dead");
        let (mut store, _) = StateStore::open(dir.path(), RAISED).unwrap();
        let one = raised(1);
        let order = event(&one, "office");
        store.commit(&Turn { transitions: &[one], orders: std::slice::from_ref(&order), ..Turn::default() }).unwrap();
        assert_eq!(store.redo(&order.id, "li").unwrap(), None, "it is not dead");
        store.record_outcome(&order.id, &Outcome::Dead("HTTP 400: no".to_owned()), RAISED).unwrap();
        let letters = store.dead_letters().unwrap();
        assert_eq!(letters.len(), 1);
        assert_eq!((&*letters[0].why, letters[0].body.as_ref()), ("HTTP 400: no", Some(&order.body)));
        assert_eq!(store.redo(&order.id, "li").unwrap().as_ref(), Some(&order));
        assert!(store.reader().unwrap().dead_letters(usize::MAX).unwrap().is_empty());
        drop(store);
        let (_, back) = StateStore::open(dir.path(), RAISED).unwrap();
        assert_eq!(back.orders, [order]);
    }

    #[test]
    fn pages_of_the_journal_come_newest_first() {
        let dir = TestDir::new("state-recent");
        let (mut store, _) = StateStore::open(dir.path(), RAISED).unwrap();
        for n in 1..=5 {
            store.commit(&Turn { transitions: &[raised(n)], ..Turn::default() }).unwrap();
        }
        store.commit(&Turn { calls: &[call_change()], transitions: &[over(3)], ..Turn::default() }).unwrap();
        let reader = store.reader().unwrap();
        let page = reader.recent(3, None).unwrap();
        assert_eq!(page.iter().map(|row| row.n).collect::<Vec<_>>(), [7, 6, 5]);
        assert_eq!(page[0].entry, Entry::Call((*call_change()).clone()));
        assert_eq!(page[1].entry, Entry::Transition((*over(3)).clone()));
        assert_eq!(reader.recent(10, Some(5)).unwrap().len(), 4);
        let about = reader.history(AlarmId(uuid::Uuid::from_u128(3))).unwrap();
        assert_eq!(about.iter().map(|row| row.n).collect::<Vec<_>>(), [3, 6]);
    }

    #[test]
    fn a_changed_row_is_seen_and_never_served() {
        let dir = TestDir::new("state-changed");
        let order = {
            let (mut store, _) = StateStore::open(dir.path(), RAISED).unwrap();
            let one = raised(1);
            let order = event(&one, "mqtt");
            store
                .commit(&Turn {
                    transitions: &[one, raised(2)],
                    orders: std::slice::from_ref(&order),
                    ..Turn::default()
                })
                .unwrap();
            let red = Alarm { seq: 2, level: anmin_rules::rule::Level::Red, ..numbered(2) };
            let worse =
                transition(AlarmState::Unacknowledged, Cause::Escalated { step: 1, by: None, why: String::new() }, red);
            store.commit(&Turn { transitions: &[worse], ..Turn::default() }).unwrap();
            order
        };
        edit(
            &dir,
            "UPDATE journal SET record = replace(record, 'orange', 'yellow') WHERE n = 1;
                    UPDATE journal SET record = replace(record, '\"red\"', '\"blue\"') WHERE n = 3",
        );
        let (store, back) = StateStore::open(dir.path(), RAISED).unwrap();
        let two = Alarm { seq: second(RAISED), ..numbered(2) };
        assert_eq!(back.alarms, [Arc::new(two)], "alarm 2 as of its last good record, alarm 1 has none");
        assert_eq!(back.orders, [], "its event is row 1");
        assert_eq!(back.notes.len(), 4, "{:?}", back.notes);
        assert_eq!(store.check().unwrap().bad_rows, [1, 3]);
        assert!(matches!(store.recent(1, None).unwrap()[0].entry, Entry::Damaged(_)));
        assert_eq!(store.dead_letters().unwrap()[0].id, order.id);
        assert_eq!(store.dead_letters().unwrap()[0].body, None);
    }

    #[test]
    fn a_removed_row_is_seen() {
        let dir = TestDir::new("state-removed");
        {
            let (mut store, _) = StateStore::open(dir.path(), RAISED).unwrap();
            store.commit(&Turn { transitions: &[raised(1), raised(2), raised(3)], ..Turn::default() }).unwrap();
        }
        edit(&dir, "DELETE FROM journal WHERE n = 2");
        let (store, back) = StateStore::open(dir.path(), RAISED).unwrap();
        assert_eq!(store.check().unwrap().bad_rows, [3]);
        assert_eq!(back.alarms.len(), 2, "a row stands for itself");
    }

    #[test]
    fn facts_are_known_after_a_restart_and_a_file_of_schema_1_takes_them_up() {
        let dir = TestDir::new("facts");
        let kept = |source: &str, seconds: u64| KeptSession {
            source: source.into(),
            client_id: format!("anmin-{source}").into(),
            heard: RAISED.plus(std::time::Duration::from_secs(seconds)),
        };
        drop(StateStore::open(dir.path(), RAISED).unwrap());
        dir.back_to_schema(1);
        {
            let (mut store, restored) = StateStore::open(dir.path(), RAISED).unwrap();
            assert_eq!((restored.sessions, restored.notes), (vec![], vec![]));
            let facts = [kept("a", 1), kept("b", 2), kept("a", 3)].map(Fact::Session);
            store.commit(&Turn { facts: &facts, ..Turn::default() }).unwrap();
        }
        let (mut store, restored) = StateStore::open(dir.path(), RAISED).unwrap();
        assert_eq!(restored.sessions, [kept("a", 3), kept("b", 2)]);
        store.commit(&Turn { facts: &[Fact::NoSession("a".into())], ..Turn::default() }).unwrap();
        drop(store);
        let (mut store, restored) = StateStore::open(dir.path(), RAISED).unwrap();
        assert_eq!((restored.sessions, restored.judged), (vec![kept("b", 2)], vec![]));
        for n in 0..100_u32 {
            let marks = vec![Mark { what: u64::MAX - u64::from(n), topic: n }; 3];
            store.commit(&Turn { facts: &[Fact::Judged(marks)], ..Turn::default() }).unwrap();
        }
        drop(store);
        let judged = StateStore::open(dir.path(), RAISED).unwrap().1.judged;
        assert_eq!((judged.len(), judged.last()), (3 * 64, Some(&Mark { what: u64::MAX - 99, topic: 99 })));
    }

    #[test]
    fn a_pending_condition_is_kept_until_it_is_over_and_never_served_damaged() {
        let dir = TestDir::new("state-pending");
        let one = crate::samples::pending();
        let restart = |then: Option<&Pending>| {
            let (mut store, back) = StateStore::open(dir.path(), RAISED).unwrap();
            if let Some(then) = then {
                store.commit(&Turn { pending: &[Arc::new(then.clone())], ..Turn::default() }).unwrap();
            }
            (back.pending.iter().map(|pending| Pending::clone(pending)).collect::<Vec<_>>(), back.notes)
        };
        let over = Pending { above: None, below: None, ..one.clone() };
        restart(Some(&one));
        let worse = Pending { above: Some(anmin_rules::rule::Level::Red), ..one.clone() };
        assert_eq!(restart(Some(&worse)).0, vec![one.clone()]);
        assert_eq!(restart(Some(&over)).0, vec![worse.clone()]);
        assert_eq!(restart(Some(&worse)).0, []);
        edit(&dir, "UPDATE pending SET record = replace(record, '\"red\"', '\"blue\"')");
        let (damaged, notes) = restart(None);
        assert_eq!((damaged, notes.len()), (vec![], 1), "{notes:?}");
        assert_eq!(restart(None), (vec![], vec![]), "it is said once");
        // A row that stands for another condition is no good one either.
        restart(Some(&one));
        edit(&dir, "UPDATE pending SET subject = 'g-9/lel'");
        assert_eq!(restart(None).0, []);
    }

    #[test]
    fn a_file_of_schema_3_takes_up_pending_conditions() {
        let dir = TestDir::new("state-schema-3");
        let (mut store, _) = StateStore::open(dir.path(), RAISED).unwrap();
        store.commit(&Turn { transitions: &[raised(1)], ..Turn::default() }).unwrap();
        drop(store);
        dir.back_to_schema(3);
        let one = Arc::new(crate::samples::pending());
        let (mut store, back) = StateStore::open(dir.path(), RAISED).unwrap();
        assert_eq!((back.alarms.len(), back.pending, back.notes), (1, vec![], vec![]));
        store.commit(&Turn { pending: &[Arc::clone(&one)], ..Turn::default() }).unwrap();
        drop(store);
        let back = StateStore::open(dir.path(), RAISED).unwrap().1;
        assert_eq!((back.alarms.len(), back.pending), (1, vec![one]));
    }

    fn incident(n: u128) -> IncidentId {
        IncidentId(uuid::Uuid::from_u128(1_000 + n))
    }

    /// Alarm `n`, raised as a part of incident `of`.
    fn joined(n: u128, of: u128) -> Arc<Transition> {
        transition(AlarmState::Normal, Cause::Raised, Alarm { incident: Some(incident(of)), ..numbered(n) })
    }

    fn changed(n: u128, seq: u32, end: Option<End>) -> Arc<IncidentChange> {
        let standing = Incident { id: incident(n), seq, settled_at: None, closes_at: None, end, ..incident_sample() };
        let cause = if seq == 1 { IncidentCause::Opened } else { IncidentCause::Closed };
        Arc::new(IncidentChange { at: RAISED, cause, incident: Arc::new(standing) })
    }

    fn incident_sample() -> Incident {
        (*crate::samples::incident_change().incident).clone()
    }

    fn ended(seconds: u64, outcome: IncidentOutcome) -> Option<End> {
        Some(End { at: RAISED.plus(Duration::from_secs(seconds)), by: "li".to_owned(), outcome, why: String::new() })
    }

    /// Two incidents of two alarms each; the second is merged into the first.
    fn two_that_became_one(name: &str) -> TestDir {
        let dir = TestDir::new(name);
        let (mut store, _) = StateStore::open(dir.path(), RAISED).unwrap();
        let raised = [joined(1, 1), joined(2, 1), joined(3, 2), joined(4, 2)];
        store
            .commit(&Turn {
                transitions: &raised,
                incidents: &[changed(1, 1, None), changed(2, 1, None)],
                ..Turn::default()
            })
            .unwrap();
        let merged = changed(2, 2, ended(5, IncidentOutcome::Merged(incident(1))));
        store.commit(&Turn { incidents: &[merged, changed(1, 2, None)], ..Turn::default() }).unwrap();
        dir
    }

    /// Number of alarms and of rows, which are six of alarms and changes each: nothing of what was merged is lost.
    fn whole(dir: &TestDir, restored: &Restored) {
        assert_eq!(restored.incidents.len(), 1);
        let one =
            Incident { id: incident(1), seq: 2, settled_at: None, closes_at: None, alarms: 4, ..incident_sample() };
        assert_eq!(*restored.incidents[0], one, "its alarms are counted from their own rows");
        let reader = StateReader::open(dir.path()).unwrap();
        let rows = reader.timeline(incident(1), 100, None).unwrap();
        assert_eq!(rows.iter().map(|row| row.n).collect::<Vec<_>>(), [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(
            reader.timeline(incident(1), 2, Some(6)).unwrap().iter().map(|row| row.n).collect::<Vec<_>>(),
            [5, 4]
        );
        let second = reader.incident(incident(2)).unwrap().expect("it is known");
        assert_eq!(second.end.map(|end| end.outcome), Some(IncidentOutcome::Merged(incident(1))));
    }

    #[test]
    fn an_incident_and_what_was_merged_into_it_come_back_also_from_a_damaged_file() {
        let dir = two_that_became_one("state-incidents");
        let (_, restored) = StateStore::open(dir.path(), RAISED).unwrap();
        assert_eq!(restored.notes, []);
        whole(&dir, &restored);
        let mut bytes = fs::read(dir.path().join(FILE)).unwrap();
        bytes[..100].fill(0);
        fs::write(dir.path().join(FILE), bytes).unwrap();
        let (_, restored) = StateStore::open(dir.path(), RAISED).unwrap();
        assert_eq!(restored.notes.len(), 1, "{:?}", restored.notes);
        whole(&dir, &restored);
    }

    #[test]
    fn a_file_that_breaks_while_running_keeps_its_incidents() {
        let dir = two_that_became_one("state-incidents-break");
        let (mut store, _) = StateStore::open(dir.path(), RAISED).unwrap();
        store.spoil();
        store.commit(&Turn { incidents: &[changed(3, 1, None)], ..Turn::default() }).unwrap();
        drop(store);
        let (_, restored) = StateStore::open(dir.path(), RAISED).unwrap();
        let ids: Vec<IncidentId> = restored.incidents.iter().map(|incident| incident.id).collect();
        assert_eq!((ids, restored.alarms.len()), (vec![incident(1), incident(3)], 4));
    }

    #[test]
    fn what_was_said_of_a_station_outlives_a_restart_and_a_file_that_breaks() {
        let dir = TestDir::new("state-duty");
        let said = |seq| {
            let duty = Arc::new(Duty { seq, ..Duty::default() });
            Fact::Duty(Arc::new(DutyChange { station: "st-1".into(), duty }))
        };
        let seq_after = |dir: &TestDir| {
            let (_, restored) = StateStore::open(dir.path(), RAISED).unwrap();
            restored.duty.iter().map(|change| (change.station.to_string(), change.duty.seq)).collect::<Vec<_>>()
        };
        let (mut store, _) = StateStore::open(dir.path(), RAISED).unwrap();
        store.commit(&Turn { facts: &[said(1), said(2)], ..Turn::default() }).unwrap();
        drop(store);
        assert_eq!(seq_after(&dir), [("st-1".to_owned(), 2)], "the newest is in force");
        let (mut store, _) = StateStore::open(dir.path(), RAISED).unwrap();
        store.spoil();
        store.commit(&Turn { incidents: &[changed(3, 1, None)], ..Turn::default() }).unwrap();
        drop(store);
        assert_eq!(seq_after(&dir), [("st-1".to_owned(), 2)]);
        edit(&dir, "UPDATE duty SET record = replace(record, '\"seq\":2', '\"seq\":9')");
        let (_, restored) = StateStore::open(dir.path(), RAISED).unwrap();
        assert!(restored.duty.is_empty() && restored.notes.iter().any(|note| note.en.contains("say them again")));
    }

    #[test]
    fn an_incident_whose_last_row_is_damaged_stands_as_of_the_one_before() {
        let dir = two_that_became_one("state-incidents-row");
        edit(&dir, "UPDATE journal SET record = replace(record, '\"seq\":2', '\"seq\":3') WHERE n = 8");
        let (_, restored) = StateStore::open(dir.path(), RAISED).unwrap();
        assert_eq!(restored.incidents.iter().map(|incident| incident.seq).collect::<Vec<_>>(), [1]);
        assert!(
            restored.notes.iter().any(|note| note.en.contains("the last record of incident")),
            "{:?}",
            restored.notes
        );
    }

    #[test]
    fn a_file_of_schema_5_takes_up_incidents() {
        let dir = TestDir::new("state-schema-5-incidents");
        let (mut store, _) = StateStore::open(dir.path(), RAISED).unwrap();
        let old = transition(AlarmState::Normal, Cause::Raised, Alarm { incident: None, ..numbered(1) });
        store.commit(&Turn { transitions: &[old], ..Turn::default() }).unwrap();
        drop(store);
        dir.back_to_schema(5);
        let (mut store, back) = StateStore::open(dir.path(), RAISED).unwrap();
        assert_eq!((back.alarms.len(), back.incidents, back.notes), (1, vec![], vec![]));
        store
            .commit(&Turn { transitions: &[joined(2, 1)], incidents: &[changed(1, 1, None)], ..Turn::default() })
            .unwrap();
        drop(store);
        assert_eq!(StateStore::open(dir.path(), RAISED).unwrap().1.incidents.len(), 1);
    }

    #[test]
    fn closed_incidents_are_paged_the_last_first_and_counted_by_how_they_ended() {
        let dir = TestDir::new("state-closed");
        let (mut store, _) = StateStore::open(dir.path(), RAISED).unwrap();
        let outcomes = [
            IncidentOutcome::Real,
            IncidentOutcome::FalseAlarm(FalseCause::Cooking),
            IncidentOutcome::FalseAlarm(FalseCause::Steam),
            IncidentOutcome::Merged(incident(1)),
            IncidentOutcome::FalseAlarm(FalseCause::Cooking),
        ];
        for (n, outcome) in outcomes.into_iter().enumerate() {
            let n = n as u128;
            // The first two close in one moment.
            let end = ended(n.max(1) as u64, outcome);
            store.commit(&Turn { incidents: &[changed(n, 1, None), changed(n, 2, end)], ..Turn::default() }).unwrap();
        }
        store.commit(&Turn { incidents: &[changed(9, 1, None)], ..Turn::default() }).unwrap();
        let reader = store.reader().unwrap();
        let page = |filter: &ClosedFilter, after: Option<ClosedCursor>, limit| -> Vec<Incident> {
            reader.closed_incidents(filter, after, limit).unwrap()
        };
        let ids = |found: &[Incident]| found.iter().map(|one| one.id.0.as_u128() - 1_000).collect::<Vec<_>>();
        let all = ClosedFilter::default();
        let (mut seen, mut after) = (Vec::new(), None);
        while let [one] = &page(&all, after, 1)[..] {
            seen.extend(ids(std::slice::from_ref(one)));
            after = Some(ClosedCursor(one.end.as_ref().unwrap().at, one.id));
        }
        assert_eq!(seen, [4, 2, 1, 0], "neither the merged nor the open one");
        let at = |seconds| Some(RAISED.plus(Duration::from_secs(seconds)));
        for (filter, wanted) in [
            (ClosedFilter { outcome: Some("false_alarm".to_owned()), ..all.clone() }, vec![4, 2, 1]),
            (ClosedFilter { building: Some("3".to_owned()), ..all.clone() }, vec![4, 2, 1, 0]),
            (ClosedFilter { building: Some("4".to_owned()), ..all.clone() }, vec![]),
            (ClosedFilter { from: at(1), to: at(2), ..all.clone() }, vec![1, 0]),
        ] {
            assert_eq!(ids(&page(&filter, None, 10)), wanted, "{filter:?}");
        }
        let named = |(outcome, cause, count): (&str, &str, u64)| (outcome.to_owned(), cause.to_owned(), count);
        assert_eq!(
            reader.outcomes(RAISED, RAISED.plus(Duration::from_secs(60))).unwrap(),
            [("false_alarm", "cooking", 2), ("false_alarm", "steam", 1), ("real", "", 1)].map(named)
        );
    }

    /// All words at once give what each incident asked by itself gives, whatever else is asked, page by page.
    #[test]
    fn closed_incidents_are_found_alike_by_either_way() {
        let dir = TestDir::new("state-alike");
        let (mut store, _) = StateStore::open(dir.path(), RAISED).unwrap();
        for n in 0..60_u128 {
            let outcome = match n % 5 {
                0 => IncidentOutcome::Real,
                1 => IncidentOutcome::FalseAlarm(FalseCause::Cooking),
                4 if n > 10 => IncidentOutcome::Merged(incident(0)),
                _ => IncidentOutcome::Test,
            };
            // Two by two close in one moment, and the later opened the earlier.
            let end = ended(100 - n as u64 / 2, outcome).map(|end| End { why: format!("原因{}", n % 7), ..end });
            let change = changed(n, 1, end);
            let mut one = (*change.incident).clone();
            Arc::make_mut(&mut one.place).building = (n % 3).to_string();
            one.hazards = vec![if n % 2 == 0 { Hazard::Gas } else { Hazard::Flood }];
            let change = Arc::new(IncidentChange { incident: Arc::new(one), ..(*change).clone() });
            store.commit(&Turn { incidents: &[change], ..Turn::default() }).unwrap();
        }
        let word = |word: &str| (!word.is_empty()).then(|| word.to_owned());
        let ask = |store: &StateStore| {
            let reader = store.reader().unwrap();
            let mut all = Vec::new();
            for (text, hazard, outcome, building) in [
                ("原因3", "", "", ""),
                ("原因", "gas", "", ""),
                ("", "flood", "test", ""),
                ("原因", "", "merged", ""),
                ("", "gas", "", "1"),
                ("无此词", "", "", ""),
            ] {
                let at = |seconds| Some(RAISED.plus(Duration::from_secs(seconds)));
                for (from, to) in [(None, None), (at(80), at(95))] {
                    let (hazard, building) = (word(hazard), word(building));
                    let (text, outcome) = (word(text), word(outcome));
                    let filter = ClosedFilter { text, hazard, outcome, building, from, to, ..ClosedFilter::default() };
                    let (mut pages, mut after) = (Vec::new(), None);
                    loop {
                        let page = reader.closed_incidents(&filter, after, 3).unwrap();
                        let Some(last) = page.last() else { break };
                        after = Some(ClosedCursor(last.end.as_ref().unwrap().at, last.id));
                        pages.extend(page.iter().map(|one| one.id));
                    }
                    all.push((format!("{filter:?}"), pages));
                }
            }
            all
        };
        let by_words = ask(&store);
        assert!(by_words.iter().filter(|(_, found)| found.len() > 3).count() >= 5, "{by_words:#?}");
        drop(store);
        // One that closed before words were kept: all are looked at one after the other.
        edit(&dir, &format!("DELETE FROM kept WHERE id = '{}'", incident(4).0.simple()));
        store = StateStore::open(dir.path(), RAISED).unwrap().0;
        assert_eq!(ask(&store), by_words);
    }

    /// By what the table of words has, and by the records of those that closed before there was one.
    #[test]
    fn closed_incidents_are_found_by_text_and_danger() {
        let dir = TestDir::new("state-words");
        let (mut store, _) = StateStore::open(dir.path(), RAISED).unwrap();
        let stories =
            [("厨房起火", "Kitchen FIRE", Hazard::Fire, "李值班"), ("漏水", "Leak", Hazard::Flood, "水表坏了")];
        for (n, (zh, en, hazard, why)) in stories.into_iter().enumerate() {
            let end = ended(1 + n as u64, IncidentOutcome::Real).map(|end| End { why: why.to_owned(), ..end });
            let change = changed(n as u128, 1, end);
            let mut incident = (*change.incident).clone();
            (incident.title, incident.hazards) = (Text { zh: zh.to_owned(), en: en.to_owned() }, vec![hazard]);
            let change = Arc::new(IncidentChange { incident: Arc::new(incident), ..(*change).clone() });
            store.commit(&Turn { incidents: &[change], ..Turn::default() }).unwrap();
        }
        let look = |store: &StateStore, text: &str, hazard: &str| {
            let word = |word: &str| (!word.is_empty()).then(|| word.to_owned());
            let filter = ClosedFilter { text: word(text), hazard: word(hazard), ..ClosedFilter::default() };
            let found = store.reader().unwrap().closed_incidents(&filter, None, 10).unwrap();
            found.iter().map(|one| one.id.0.as_u128() - 1_000).collect::<Vec<_>>()
        };
        for older in [false, true] {
            if older {
                drop(store);
                edit(&dir, "DELETE FROM kept");
                store = StateStore::open(dir.path(), RAISED).unwrap().0;
            }
            for (text, hazard, wanted) in [
                ("起火", "", vec![0]),
                ("kitchen fire", "", vec![0]),
                ("水表", "", vec![1]),
                ("3号楼", "flood", if older { vec![] } else { vec![1] }),
                ("", "fire", vec![0]),
                ("起火", "flood", vec![]),
                ("50%", "", vec![]),
                ("", "", vec![1, 0]),
            ] {
                assert_eq!(look(&store, text, hazard), wanted, "{text:?} {hazard:?} {older}");
            }
        }
    }

    #[test]
    fn a_file_of_a_newer_anmin_is_refused_and_left_alone() {
        let dir = TestDir::new("state-newer");
        drop(StateStore::open(dir.path(), RAISED).unwrap());
        edit(&dir, "PRAGMA user_version = 99");
        let error = StateStore::open(dir.path(), RAISED).unwrap_err();
        assert_eq!(error, StoreError::Newer { file: FILE.to_owned(), found: 99, known: MIGRATIONS.len() as i64 });
        assert!(!error.may_pass());
        let conn = Connection::open(dir.path().join(FILE)).unwrap();
        assert_eq!(
            conn.query_row("SELECT value FROM meta WHERE key = 'epoch'", [], |r| r.get::<_, String>(0)).unwrap(),
            "1"
        );
    }

    #[test]
    fn a_second_anmin_on_the_directory_is_refused() {
        let dir = TestDir::new("state-twice");
        let first = StateStore::open(dir.path(), RAISED).unwrap();
        assert!(matches!(StateStore::open(dir.path(), RAISED), Err(StoreError::InUse { .. })));
        drop(first);
        StateStore::open(dir.path(), RAISED).unwrap();
    }

    const SOUND: usize = 20;

    /// A file with twenty open alarms and an order for each, as many that are closed, and a call.
    fn sound_file(name: &str) -> TestDir {
        let dir = TestDir::new(name);
        let (mut store, _) = StateStore::open(dir.path(), RAISED).unwrap();
        for n in 0..SOUND as u128 {
            let (one, closed) = (raised(n), raised(1_000 + n));
            let order = event(&one, "mqtt");
            store.commit(&Turn { transitions: &[one, closed], orders: &[order], ..Turn::default() }).unwrap();
            store.commit(&Turn { transitions: &[over(1_000 + n)], ..Turn::default() }).unwrap();
        }
        store.commit(&Turn { calls: &[call_change()], ..Turn::default() }).unwrap();
        dir
    }

    /// Opens what `damage` has made of a sound file, checks every promise, and gives how many alarms are left.
    fn survive(what: &str, damage: impl FnOnce(&Path)) -> usize {
        let dir = TestDir::new("state-damaged");
        damage(&dir.path().join(FILE));
        let (mut store, back) = StateStore::open(dir.path(), RAISED).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(store.trouble(), None, "{what}");
        for alarm in &back.alarms {
            assert!(alarm.seq == 1 || alarm.seq == second(RAISED), "{what}: {}", alarm.seq);
            let n = alarm.id.0.as_u128();
            // An alarm whose end is lost is open: the safe side.
            assert_eq!(Alarm { seq: 1, ..Alarm::clone(alarm) }, numbered(n), "{what}");
        }
        for order in &back.orders {
            let OrderBody::Event(transition) = &order.body else { panic!("{order:?}") };
            assert_eq!(*order, event(&raised(transition.alarm.id.0.as_u128()), "mqtt"), "{what}");
        }
        let left = back.alarms.iter().filter(|alarm| alarm.id.0.as_u128() < SOUND as u128).count();
        if left < SOUND || back.orders.len() < SOUND || back.calls.is_empty() {
            assert!(!back.notes.is_empty(), "{what}: something is gone and nobody says so");
        }
        let aside: Vec<String> = fs::read_dir(dir.path())
            .unwrap()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| name.contains(".bad-"))
            .collect();
        assert!(aside.iter().all(|name| name.starts_with("state.db.bad-20260301T013000Z")), "{what}: {aside:?}");
        assert!(aside.iter().all(|name| !name.contains("reading")), "{what}: {aside:?}");
        store.commit(&Turn { transitions: &[raised(99)], ..Turn::default() }).unwrap();
        drop(store);
        let (store, again) = StateStore::open(dir.path(), RAISED).unwrap();
        assert_eq!(again.alarms.len(), back.alarms.len() + 1, "{what}");
        if !aside.is_empty() {
            assert_eq!(again.notes, [], "{what}: the new file is whole");
            let checked = store.check().unwrap();
            assert!(checked.bad_rows.is_empty(), "{what}");
            assert!(checked.bad_orders.is_empty(), "{what}");
        }
        left
    }

    /// Goal: whatever happens to the file, anmin starts, keeps the evidence, says so, serves nothing that was not written,
    /// and keeps every alarm that stands on a page that can be read. Method: cut the file at and within every page,
    /// overwrite every page, empty it, and flip a bit at many places of it.
    #[test]
    fn any_damage_is_survived_and_costs_no_more_than_what_it_hit() {
        let good = sound_file("state-damage");
        let bytes = fs::read(good.path().join(FILE)).unwrap();
        const PAGE: usize = 4096;
        let pages = bytes.len() / PAGE;
        assert!(pages > 20, "{pages}");
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = bytes.clone();
            change(&mut bytes);
            move |path: &Path| fs::write(path, bytes).unwrap()
        };
        for page in 0..pages {
            let (start, end) = (page * PAGE, (page + 1) * PAGE);
            survive(&format!("cut before page {page}"), with(&|bytes| bytes.truncate(start)));
            survive(&format!("cut within page {page}"), with(&|bytes| bytes.truncate(start + 1_000)));
            let mut hit = vec![
                (
                    format!("page {page} inverted"),
                    survive("an inverted page", with(&|b| b[start..end].iter_mut().for_each(|b| *b ^= 0x5a))),
                ),
                (format!("page {page} emptied"), survive("an empty page", with(&|b| b[start..end].fill(0)))),
            ];
            // The schema's number at 60 to 63 of the first page may say that a newer anmin wrote the file.
            for at in (start + 7 * page..end).step_by(if page < 3 { 211 } else { 4_000 }) {
                let what = format!("a bit of byte {at} on page {page}");
                hit.push((what.clone(), survive(&what, with(&|bytes| bytes[at] ^= 0x10))));
            }
            for (what, left) in hit {
                // Two rows of the journal stand on a page, and one transition of an alarm that is open.
                assert!(left + 1 >= SOUND, "{what} costs {} alarms", SOUND - left);
            }
        }
    }

    /// Sessions, marks of what was judged and delays that run: each of them is whole or gone, and few pages cost any.
    #[test]
    fn what_stands_beside_the_journal_outlives_a_damaged_file_as_well() {
        let good = sound_file("state-beside");
        let kept =
            |n: usize| KeptSession { source: format!("broker-{n}").into(), client_id: "anmin".into(), heard: RAISED };
        let sessions: Vec<KeptSession> = (0..3).map(kept).collect();
        let marks: Vec<Mark> = (0..9_u32).map(|n| Mark { what: 1 << n, topic: n }).collect();
        let one = Arc::new(crate::samples::pending());
        {
            let (mut store, _) = StateStore::open(good.path(), RAISED).unwrap();
            let mut facts: Vec<Fact> = sessions.iter().cloned().map(Fact::Session).collect();
            facts.push(Fact::Judged(marks.clone()));
            let pending = [Arc::clone(&one)];
            store.commit(&Turn { facts: &facts, pending: &pending, ..Turn::default() }).unwrap();
        }
        let bytes = fs::read(good.path().join(FILE)).unwrap();
        let (mut salvaged, mut lost) = (0, [0; 3]);
        for page in 0..bytes.len() / 4096 {
            let dir = TestDir::new("state-beside-damaged");
            let mut bytes = bytes.clone();
            bytes[page * 4096..(page + 1) * 4096].iter_mut().for_each(|byte| *byte ^= 0x5a);
            fs::write(dir.path().join(FILE), bytes).unwrap();
            let (_, back) = StateStore::open(dir.path(), RAISED).unwrap();
            salvaged += usize::from(!back.notes.is_empty());
            for (n, (gone, whole)) in [
                (back.sessions.is_empty(), back.sessions == sessions),
                (back.judged.is_empty(), back.judged == marks),
                (back.pending.is_empty(), back.pending == [Arc::clone(&one)]),
            ]
            .into_iter()
            .enumerate()
            {
                assert!(gone || whole, "page {page}, table {n}: {back:?}");
                lost[n] += usize::from(gone);
            }
        }
        // Its own page, and the one that says where it is.
        assert!(salvaged > 20 && lost.iter().all(|lost| *lost <= 2), "{salvaged} {lost:?}");
    }

    #[test]
    fn the_reserve_is_given_up_on_a_full_disk_and_kept_again_when_there_is_room() {
        let dir = TestDir::new("state-reserve");
        let full = Arc::new(AtomicUsize::new(0));
        let when = Arc::clone(&full);
        let disk = Disk::scripted(move |file| match when.load(Ordering::SeqCst) {
            0 => Ok(()),
            _ => {
                // What the reserve took is enough for this commit.
                when.fetch_sub(1, Ordering::SeqCst);
                Err(StoreError::Full { file: file.to_owned() })
            }
        });
        let at = |seconds: u64| Mono::default().plus(std::time::Duration::from_secs(seconds));
        let reserve = dir.path().join(RESERVE);
        let kept = || fs::metadata(&reserve).map(|meta| meta.len()).ok();
        let (mut store, _) = StateStore::open_on(dir.path(), RAISED, disk).unwrap();
        assert_eq!((store.tend_reserve(at(1)), kept()), (true, Some(RESERVE_BYTES)));
        full.store(1, Ordering::SeqCst);
        store.commit(&Turn { transitions: &[raised(1)], ..Turn::default() }).unwrap();
        assert_eq!((store.unwritten(), kept()), (0, None), "the alarm is on the disk at its cost");
        // Not at once: whoever filled the disk goes on filling it. Then by itself, and said the time after.
        assert_eq!((store.tend_reserve(at(2)), kept()), (false, None));
        store.tend_reserve(at(62));
        assert_eq!((store.tend_reserve(at(63)), kept()), (true, Some(RESERVE_BYTES)));
        // Without a reserve a full disk is said, and nothing is lost.
        full.store(2, Ordering::SeqCst);
        store.commit(&Turn { transitions: &[raised(2)], ..Turn::default() }).unwrap_err();
        assert_eq!((store.unwritten(), kept()), (1, None));
        store.commit(&Turn::default()).unwrap();
        assert_eq!(store.unwritten(), 0);
    }

    #[test]
    fn what_is_no_database_at_all_is_set_aside_too() {
        let good = sound_file("state-other");
        let sound = good.path().join(FILE);
        let noise: Vec<u8> = (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        type Damage<'d> = (&'d str, usize, Box<dyn FnOnce(&Path) + 'd>);
        let cases: [Damage<'_>; 5] = [
            ("an empty file", 0, Box::new(|path| fs::write(path, b"").unwrap())),
            ("noise", 0, Box::new(|path| fs::write(path, &noise).unwrap())),
            ("a text", 0, Box::new(|path| fs::write(path, "state").unwrap())),
            ("a folder", 0, Box::new(|path| fs::create_dir(path).unwrap())),
            (
                "a write-ahead log of another file",
                SOUND,
                Box::new(|path| {
                    fs::copy(&sound, path).unwrap();
                    fs::write(beside(path, "-wal"), &noise).unwrap();
                }),
            ),
        ];
        for (what, left, damage) in cases {
            assert_eq!(survive(what, damage), left, "{what}");
        }
    }

    /// The log of the last commits is gone after a crash: what it held is not there, the rest is whole.
    #[test]
    fn without_its_log_the_file_is_as_old_as_its_last_checkpoint() {
        let dir = TestDir::new("state-no-log");
        let copy = TestDir::new("state-no-log-copy");
        let (mut store, _) = StateStore::open(dir.path(), RAISED).unwrap();
        store.commit(&Turn { transitions: &[raised(1)], ..Turn::default() }).unwrap();
        store.db.as_ref().unwrap().conn.query_row("PRAGMA wal_checkpoint", [], |_| Ok(())).unwrap();
        store.commit(&Turn { transitions: &[raised(2)], ..Turn::default() }).unwrap();
        for (with_log, alarms) in [(true, 2), (false, 1)] {
            for suffix in ["", "-wal"].iter().filter(|suffix| with_log || suffix.is_empty()) {
                fs::copy(beside(&dir.path().join(FILE), suffix), beside(&copy.path().join(FILE), suffix)).unwrap();
            }
            let (_, back) = StateStore::open(copy.path(), RAISED).unwrap();
            assert_eq!((back.alarms.len(), back.notes.len()), (alarms, 0));
        }
    }

    #[test]
    fn a_file_that_breaks_while_running_is_replaced_and_nothing_of_the_turn_is_lost() {
        let dir = TestDir::new("state-breaks");
        let broken = Arc::new(AtomicUsize::new(0));
        let when = Arc::clone(&broken);
        let disk = Disk::scripted(move |file| {
            match when.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)) {
                Ok(_) => Err(StoreError::Damaged { file: file.to_owned(), why: "scripted".to_owned() }),
                Err(_) => Ok(()),
            }
        });
        let (mut store, first) = StateStore::open_on(dir.path(), RAISED, disk).unwrap();
        store.commit(&Turn { transitions: &[raised(1)], ..Turn::default() }).unwrap();
        broken.store(1, Ordering::SeqCst);
        store.commit(&Turn { transitions: &[raised(2)], ..Turn::default() }).unwrap_err();
        // SQLite's own word for it counts the same when the file is opened again.
        fs::write(dir.path().join(FILE), vec![7; 8192]).unwrap();
        let _ = fs::remove_file(dir.path().join("state.db-wal"));
        store.commit(&Turn { transitions: &[raised(3)], ..Turn::default() }).unwrap();
        assert_eq!(store.take_notes().len(), 1);
        assert_eq!(store.unwritten(), 0);
        drop(store);
        let (_, back) = StateStore::open(dir.path(), RAISED).unwrap();
        assert_ne!(back.installation, first.installation, "without the old count of starts it is another installation");
        assert_eq!(back.alarms.len(), 3, "nothing can be read of the file, but the run knew what it held");
    }

    #[test]
    fn a_long_outage_keeps_the_newest_and_counts_what_went() {
        let dir = TestDir::new("state-outage");
        let full = Arc::new(AtomicUsize::new(0));
        let state = Arc::clone(&full);
        let disk = Disk::scripted(move |file| {
            if state.load(Ordering::SeqCst) == 1 { Err(StoreError::Full { file: file.to_owned() }) } else { Ok(()) }
        });
        let (mut store, _) = StateStore::open_on(dir.path(), RAISED, disk).unwrap();
        full.store(1, Ordering::SeqCst);
        let many: Vec<_> = (0..1_000).map(|_| raised(7)).collect();
        for _ in 0..101 {
            store.commit(&Turn { transitions: &many, ..Turn::default() }).unwrap_err();
        }
        assert_eq!((store.unwritten(), store.dropped()), (100_000, 1_000));
    }

    #[test]
    fn the_names_of_files_set_aside_carry_the_time_and_never_collide() {
        let dir = TestDir::new("state-aside");
        let now = RAISED.plus(Duration::from_secs(1));
        let mut names = Vec::new();
        for _ in 0..3 {
            fs::write(dir.path().join(FILE), b"not a database, whatever the name says").unwrap();
            let (_, back) = StateStore::open(dir.path(), now).unwrap();
            assert_eq!(back.notes.len(), 1);
            names = fs::read_dir(dir.path())
                .unwrap()
                .flatten()
                .map(|e| e.file_name().to_string_lossy().into_owned())
                .collect();
            let _ = fs::remove_file(dir.path().join("state.db-wal"));
        }
        names.retain(|name| name.contains(".bad-"));
        names.sort();
        assert_eq!(
            names,
            ["state.db.bad-20260301T013001Z", "state.db.bad-20260301T013001Z-1", "state.db.bad-20260301T013001Z-2"]
        );
    }
}
