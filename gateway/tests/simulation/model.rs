//! What must be so: written from the promises, without a line of the code under test.
//!
//! [`Model`] follows the condition of each device as a person with a stop watch would, from what was delivered to the
//! box and is safe, or was delivered to the run that still lives. [`Journal`] reads state.db by plain SQL and checks
//! every row against those before it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use anmin_rules::order::ChannelForm;
use anmin_rules::rule::Level;
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use crate::site::{CHANNELS, LIMITS, PUBLIC, RulePlan};
use crate::world::{Msg, Said, Stamp};

/// So many messages of the last ten seconds are known; more than a broker has in flight.
const KNOWN: usize = 16_384;

/// The condition of one device under its one rule. Levels are 1 yellow, 2 orange, 3 red.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Condition {
    /// The newest count that was heard.
    newest: u64,
    /// Since when the reading has been at or above each level, and below it.
    above: [Option<u64>; 4],
    below: [Option<u64>; 4],
    pub held: usize,
}

pub struct Model {
    plans: [RulePlan; 2],
    /// By device.
    pub conditions: Vec<Condition>,
    /// When time alone will change the condition of a device, and of which.
    due: BTreeSet<(u64, usize)>,
    due_of: Vec<Option<u64>>,
    rule_of: Vec<usize>,
    /// What stood before the first change that is not durable yet.
    undo: BTreeMap<usize, Condition>,
    /// By device: what was judged of it, the oldest first.
    judged: Vec<Vec<Judged>>,
    /// So many were.
    heard: usize,
}

/// A message that was judged, and when by the second; in an earlier life 0. What was marked as sent before and was not
/// known has no time: the order of things was lost with it.
#[derive(Clone, Debug)]
struct Judged {
    msg: Msg,
    /// The box knows the last so many.
    n: usize,
    at: Option<u64>,
    kept: Kept,
}

/// What the journal has of a message that was judged.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kept {
    Open,
    /// Open when the journal went away; and whether it was judged lately then.
    Waits(bool),
    Written,
    /// Too old by the time, and acknowledged long ago.
    LeftOut,
}

impl Judged {
    fn is_lately(&self, second: u64) -> bool {
        self.at.is_none_or(|at| at + LATELY >= second)
    }
}

/// A repeat is no older than this beside the last word of its device.
const LATELY: u64 = 10;

impl Model {
    pub fn new(plans: [RulePlan; 2], rule_of: Vec<usize>) -> Self {
        let devices = rule_of.len();
        Self {
            plans,
            conditions: vec![Condition::default(); devices],
            due: BTreeSet::new(),
            due_of: vec![None; devices],
            rule_of,
            undo: BTreeMap::new(),
            judged: vec![Vec::new(); devices],
            heard: 0,
        }
    }

    fn change(&mut self, device: usize, how: impl FnOnce(&mut Condition, &RulePlan)) {
        let condition = &mut self.conditions[device];
        let before = condition.clone();
        how(condition, &self.plans[self.rule_of[device]]);
        if *condition != before {
            self.undo.entry(device).or_insert(before);
            self.watch(device);
        }
    }

    /// The condition of the device is another one: so may be the time at which it changes by itself.
    fn watch(&mut self, device: usize) {
        let next = self.next_of(device);
        let before = std::mem::replace(&mut self.due_of[device], next);
        if before != next {
            before.map(|due| self.due.remove(&(due, device)));
            self.due.extend(next.map(|due| (due, device)));
        }
    }

    /// Whether the message was judged before and is known by its identifier. In doubt it is not.
    fn knows(&self, msg: &Msg) -> Option<usize> {
        let of = &self.judged[msg.device];
        let known = |judged: &&Judged| judged.n + KNOWN >= self.heard;
        let last = of.last().filter(known)?;
        if last.msg.looks_like(msg) {
            return Some(of.len() - 1);
        }
        let lately =
            |judged: &&Judged| judged.at.zip(last.at).is_some_and(|(at, last)| last.saturating_sub(at) <= LATELY);
        let mut before = of[..of.len() - 1].iter().rev().take_while(known).take_while(lately).enumerate();
        before.find(|(_, judged)| judged.msg.looks_like(msg)).map(|(back, _)| of.len() - 2 - back)
    }

    /// A message came, as the life's clock has it at `second`. True when something follows from it.
    pub fn hear(&mut self, t: u64, second: u64, msg: &Msg, again: bool) -> bool {
        if !msg.retained {
            if let Some(known) = again.then(|| self.knows(msg)).flatten() {
                let at = &mut self.judged[msg.device][known].at;
                if *at == Some(0) {
                    *at = Some(second);
                }
                return false;
            }
            let at = (!again).then_some(second);
            self.forget(msg.device, second);
            self.judged[msg.device].push(Judged { msg: msg.clone(), n: self.heard, at, kept: Kept::Open });
            self.heard += 1;
        }
        let before = self.conditions[msg.device].clone();
        self.judge(t, msg);
        self.follows(msg.device, &before)
    }

    /// What is long judged cannot come again: a broker has let go of it, and its identifier stands for something else.
    fn forget(&mut self, device: usize, second: u64) {
        let of = &mut self.judged[device];
        let old = |judged: &Judged, by: u64| judged.at.is_some_and(|at| at + by < second);
        // Half at a time, so that it costs nothing each time.
        if of.len() >= 64 && of.first().is_some_and(|first| old(first, 120 * LATELY)) {
            of.retain(|judged| !old(judged, 60 * LATELY) || matches!(judged.kept, Kept::Open | Kept::Waits(_)));
        }
    }

    /// Whether a delay runs.
    pub fn runs(&self, device: usize) -> bool {
        let Condition { above, below, held, .. } = &self.conditions[device];
        above[held + 1..].iter().chain(&below[1..=*held]).any(Option::is_some)
    }

    /// Whether it holds another level now, or another delay runs.
    fn follows(&self, device: usize, before: &Condition) -> bool {
        fn runs(condition: &Condition) -> (usize, &[Option<u64>], &[Option<u64>]) {
            let held = condition.held;
            (held, &condition.above[held + 1..], &condition.below[1..=held])
        }
        runs(before) != runs(&self.conditions[device])
    }

    /// The journal went away with this turn.
    pub fn journal_fails(&mut self, second: u64) {
        let forgotten = self.heard.saturating_sub(KNOWN);
        for judged in self.judged.iter_mut().flatten().filter(|judged| judged.kept == Kept::Open) {
            judged.kept = Kept::Waits(judged.n >= forgotten && judged.is_lately(second));
        }
    }

    /// The journal took down `found` messages that were judged lately: those not taken down before.
    pub fn take_down(&mut self, second: u64, found: usize) {
        // Whether the turn with which the journal went away had any to write down is not to be seen from here.
        let forgotten = self.heard.saturating_sub(KNOWN);
        let choices = [true, false].map(|had| {
            move |judged: &Judged| match judged.kept {
                Kept::Waits(lately) if had => lately,
                Kept::Open | Kept::Waits(_) => judged.n >= forgotten && judged.is_lately(second),
                Kept::Written | Kept::LeftOut => false,
            }
        });
        // What is not taken down yet came last.
        let waits = |judged: &&Judged| matches!(judged.kept, Kept::Open | Kept::Waits(_));
        let counts = choices.map(|choice| {
            let waiting = self.judged.iter().flat_map(|of| of.iter().rev().take_while(waits));
            waiting.filter(|judged| choice(judged)).count()
        });
        let choice = counts.iter().position(|count| *count == found);
        let choice =
            choice.unwrap_or_else(|| panic!("G2: {found} messages are written down as judged, not {counts:?}"));
        for of in &mut self.judged {
            for judged in of.iter_mut().rev().take_while(|judged| waits(&&**judged)) {
                judged.kept = if choices[choice](judged) { Kept::Written } else { Kept::LeftOut };
            }
        }
    }

    fn judge(&mut self, t: u64, msg: &Msg) {
        self.pass_one(t, msg.device);
        // Kept by the broker: state, never news (G14). Unreadable: nothing was said.
        if msg.retained || msg.said == Said::Junk {
            return;
        }
        self.change(msg.device, |condition, plan| {
            if msg.stamp != Stamp::None {
                // A repeat, or late: whatever it says was said before (F10, G14).
                if msg.n <= condition.newest {
                    return;
                }
                condition.newest = msg.n;
            }
            match msg.said {
                Said::Value(value) => {
                    let at = |level: usize| value >= LIMITS[level - 1];
                    let reached = |level: usize| condition.held >= level || condition.above[level].is_some();
                    let kept = |level: usize| reached(level) && value >= LIMITS[level - 1] - plan.deadband;
                    let found = (1..=3).rev().find(|level| at(*level) || kept(*level)).unwrap_or(0);
                    for level in 1..=3 {
                        if level <= found {
                            condition.above[level].get_or_insert(t);
                            condition.below[level] = None;
                        } else {
                            condition.above[level] = None;
                            condition.below[level].get_or_insert(t);
                        }
                    }
                }
                // Not knowing ends nothing and forgets nothing.
                Said::NoValue => condition.below = [None; 4],
                Said::Junk => {}
            }
        });
        self.pass_one(t, msg.device);
    }

    /// Time has come to `t`.
    pub fn pass(&mut self, t: u64) {
        while let Some((due, device)) = self.due.first().copied().filter(|(due, _)| *due <= t) {
            self.pass_one(t, device);
            assert!(self.due_of[device].is_none_or(|next| next > due), "the model does not come to rest");
        }
    }

    fn pass_one(&mut self, t: u64, device: usize) {
        if self.due_of[device].is_some_and(|due| due <= t) {
            self.change(device, |condition, plan| {
                let entered = |level: &usize| condition.above[*level].is_some_and(|since| t >= since + plan.on_delay);
                let left = |level: usize| condition.below[level].is_some_and(|since| t >= since + plan.off_delay);
                let up = (1..=3).rev().find(entered).unwrap_or(0);
                let kept = (1..=condition.held).rev().find(|level| !left(*level)).unwrap_or(0);
                condition.held = up.max(kept);
            });
        }
    }

    fn next_of(&self, device: usize) -> Option<u64> {
        let (condition, plan) = (&self.conditions[device], &self.plans[self.rule_of[device]]);
        let up = (condition.held + 1..=3).filter_map(|level| condition.above[level].map(|since| since + plan.on_delay));
        let down = condition.below[condition.held].filter(|_| condition.held > 0).map(|since| since + plan.off_delay);
        up.chain(down).min()
    }

    pub fn due(&self) -> Option<u64> {
        self.due.first().map(|(due, _)| *due)
    }

    /// All that was heard so far is safe.
    pub fn safe(&mut self) {
        self.undo.clear();
    }

    /// The box has crashed: what was not safe was never heard. Delays that were running start again at `t`.
    pub fn crash(&mut self) {
        for (device, before) in std::mem::take(&mut self.undo) {
            self.conditions[device] = before;
            self.watch(device);
        }
        let forgotten = self.heard.saturating_sub(KNOWN);
        for judged in &mut self.judged {
            judged.retain(|judged| judged.kept == Kept::Written && judged.n >= forgotten);
            judged.iter_mut().for_each(|judged| judged.at = Some(0));
        }
    }

    pub fn boot(&mut self, t: u64) {
        for condition in &mut self.conditions {
            for since in condition.above.iter_mut().chain(&mut condition.below).flatten() {
                *since = t;
            }
        }
        for device in 0..self.conditions.len() {
            self.watch(device);
        }
        self.undo.clear();
    }
}

/// An alarm as its last row of the journal leaves it.
#[derive(Clone, Debug)]
pub struct Row {
    pub rule: String,
    pub subject: String,
    pub seq: u64,
    pub state: String,
    pub active: bool,
    pub level: usize,
    pub latched: bool,
    pub cause: String,
}

/// The journal, read by SQL, and what is known of it from the lives before.
#[derive(Default)]
pub struct Journal {
    last: i64,
    last_order: i64,
    pub alarms: BTreeMap<String, Row>,
    /// Those that are open, with the number of their last transition; and by rule and subject.
    pub open: BTreeMap<u128, u64>,
    standing: HashMap<(String, String), String>,
    /// Order ids in the order of commitment, by way out and alarm.
    pub lanes: BTreeMap<(String, String), Vec<String>>,
    pub orders: BTreeSet<String>,
    /// How each incident stood after its last row: `standing`, `settled` or `closed`, and the number of its changes.
    pub incidents: BTreeMap<u128, (&'static str, u64)>,
    /// The incident of each alarm that ever was, and of each incident that was merged.
    pub threads: BTreeMap<u128, u128>,
    /// How far the last call of each station for each alarm was.
    calls: BTreeMap<(String, String), String>,
    /// What the conditions of the prompt rule did, by subject: 0 is the end.
    pub edges: BTreeMap<String, Vec<usize>>,
    pub rows: u64,
    /// What came since it was last taken, in short, where somebody wants it.
    pub news: Vec<String>,
    pub says_news: bool,
}

/// What an id in the journal is the text of.
fn number_of(id: &str) -> u128 {
    uuid::Uuid::parse_str(id).expect("an id").as_u128()
}

/// A connection to the file of one life.
pub struct Eye(Connection);

impl Eye {
    pub fn open(dir: &Path) -> Self {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Self(Connection::open_with_flags(dir.join("state.db"), flags).expect("state.db can be read"))
    }

    /// Rows of what was judged: the last one, and how many messages stand in those after `after`.
    pub fn marks(&self, after: i64) -> (i64, usize) {
        let sql = "SELECT coalesce((SELECT max(n) FROM judged), 0), \
                   coalesce((SELECT sum(length(marks)) FROM judged WHERE n > ?1), 0)";
        let found = self
            .0
            .prepare_cached(sql)
            .and_then(|mut sql| sql.query_row([after], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?))));
        let (last, bytes) = found.expect("a table of what was judged");
        (last, usize::try_from(bytes).expect("a length") / 12)
    }

    /// The delays that are written down, by subject.
    pub fn delays(&self) -> BTreeMap<String, String> {
        let mut sql = self.0.prepare_cached("SELECT subject, record FROM pending").expect("a table of delays");
        let rows = sql.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("subjects and records are text");
        rows.collect::<Result<_, _>>().expect("subjects and records are text")
    }

    /// The incident of every thread, and those that are open.
    pub fn threads(&self) -> (BTreeMap<u128, u128>, BTreeSet<u128>) {
        let id = |bytes: Vec<u8>| uuid::Uuid::from_slice(&bytes).expect("an id").as_u128();
        let mut sql = self.0.prepare_cached("SELECT thread, incident FROM threads").expect("a table of threads");
        let rows = sql.query_map([], |row| Ok((id(row.get(0)?), id(row.get(1)?)))).expect("ids");
        let threads = rows.collect::<Result<_, _>>().expect("ids");
        let mut sql = self.0.prepare_cached("SELECT id FROM incidents WHERE closed = 0").expect("a table of incidents");
        let open = sql.query_map([], |row| Ok(id(row.get(0)?))).and_then(Iterator::collect).expect("ids");
        (threads, open)
    }

    /// Ids of orders that are pending.
    pub fn pending(&self) -> Vec<String> {
        let mut sql = self.0.prepare("SELECT id FROM orders WHERE state = 0 ORDER BY n").expect("a table of orders");
        let ids = sql.query_map([], |row| row.get(0)).expect("ids are text").collect::<Result<_, _>>();
        ids.expect("ids are text")
    }

    pub fn is_anything_pending(&self) -> bool {
        let found = self.0.prepare_cached("SELECT 1 FROM orders WHERE state = 0 LIMIT 1");
        found.and_then(|mut sql| sql.exists([])).expect("a table of orders")
    }

    pub fn state_of(&self, order: &str) -> i64 {
        self.0
            .prepare_cached("SELECT state FROM orders WHERE id = ?1")
            .and_then(|mut sql| sql.query_row([order], |row| row.get(0)))
            .unwrap_or(-1)
    }
}

fn level(word: &Value) -> usize {
    let named = word.as_str().and_then(Level::named).expect("a level has a name");
    named as usize
}

impl Journal {
    /// The alarm that an order is about, and how often it has changed.
    pub fn about(&self, order: &str) -> String {
        let row = order.split('/').next().and_then(|alarm| self.alarms.get(alarm));
        row.map_or_else(|| order.to_owned(), |row| format!("{} of {}, change {}", row.rule, row.subject, row.seq))
    }

    /// Reads what was committed since the last time and holds it against what was there.
    pub fn read(&mut self, eye: &Eye) {
        let mut expected: BTreeSet<String> = BTreeSet::new();
        let mut sql =
            eye.0.prepare_cached("SELECT n, kind, record FROM journal WHERE n > ?1 ORDER BY n").expect("a journal");
        let mut rows = sql.query([self.last]).expect("the journal can be read");
        while let Some(row) = rows.next().expect("the journal can be read") {
            let (n, kind, record): (i64, i64, String) =
                (row.get(0).expect("a number"), row.get(1).expect("a kind"), row.get(2).expect("a record"));
            assert_eq!(n, self.last + 1, "the journal has a hole");
            self.last = n;
            self.rows += 1;
            let record: Value = serde_json::from_str(&record).expect("a record is JSON");
            self.take(kind, &record, &mut expected);
        }
        let mut sql =
            eye.0.prepare_cached("SELECT n, id, channel FROM orders WHERE n > ?1 ORDER BY n").expect("orders");
        let mut rows = sql.query([self.last_order]).expect("the orders can be read");
        while let Some(row) = rows.next().expect("the orders can be read") {
            let (n, id, channel): (i64, String, String) =
                (row.get(0).expect("a number"), row.get(1).expect("an id"), row.get(2).expect("a channel"));
            self.last_order = n;
            assert_ne!(channel, PUBLIC, "order {id} is for the public, and nobody has let it out");
            expected.remove(&id);
            let alarm = id.split('/').next().expect("an id starts with its alarm").to_owned();
            assert!(self.alarms.contains_key(&alarm), "order {id} has no journaled alarm");
            assert!(self.orders.insert(id.clone()), "G8: order id {id} was given twice");
            self.lanes.entry((channel, alarm)).or_default().push(id);
        }
        assert!(expected.is_empty(), "G1: transitions were committed without their orders {expected:?}");
    }

    /// After a crash: nothing that was there has gone.
    pub fn check_kept(&self, eye: &Eye) {
        let count = |table: &str| -> i64 {
            eye.0.query_row(&format!("SELECT coalesce(max(n), 0) FROM {table}"), [], |row| row.get(0)).expect("a count")
        };
        assert!(
            count("journal") >= self.last,
            "{} rows of the journal were there, {} are",
            self.last,
            count("journal")
        );
        assert!(count("orders") >= self.last_order, "committed orders are gone");
    }

    /// An incident's changes are numbered, none comes after its end, and what is merged goes where it is said.
    fn take_incident(&mut self, record: &Value) {
        let incident = &record["incident"];
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let (id, seq) = (text(&incident["id"]), incident["seq"].as_u64().expect("a number"));
        let number = number_of(&id);
        let before = self.incidents.get(&number).copied().unwrap_or(("standing", 0));
        assert_eq!(seq, before.1 + 1, "a change of incident {id} is missing: {record}");
        assert_ne!(before.0, "closed", "incident {id} is closed and changes: {record}");
        let state = match (incident["end"].is_null(), incident["settled_at"].is_null()) {
            (true, true) => "standing",
            (true, false) => "settled",
            (false, _) => "closed",
        };
        if let Some(into) = incident["end"]["into"].as_str() {
            let into = number_of(into);
            self.threads.values_mut().filter(|of| **of == number).for_each(|of| *of = into);
            self.threads.insert(number, into);
        }
        if self.says_news {
            self.news.push(format!("incident {id}/{seq} {} {state}", record["cause"]));
        }
        self.incidents.insert(number, (state, seq));
    }

    fn take(&mut self, kind: i64, record: &Value, expected: &mut BTreeSet<String>) {
        if kind == 3 {
            return self.take_incident(record);
        }
        let alarm = &record["alarm"];
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let id = text(&alarm["id"]);
        let system = alarm["class"] == "system";
        let hears = |channel: &(&str, ChannelForm, Level, bool)| {
            channel.1 == ChannelForm::Events && level(&alarm["peak"]) >= channel.2 as usize && (channel.3 || !system)
        };
        if kind == 2 {
            let (station, seq) = (&record["call"]["station"], &record["call"]["seq"]);
            for channel in CHANNELS.iter().filter(|channel| hears(channel)) {
                expected.insert(format!("{id}/call-{}-{seq}/{}", text(station), channel.0));
            }
            let state = text(&record["call"]["state"]);
            let before = self.calls.insert((id.clone(), text(station)), state);
            let comes = |state: &String| ["called", "accepted", "on_the_way", "on_scene"].contains(&&**state);
            let again = record["cause"] == "called" && before.as_ref().is_some_and(comes);
            assert!(!again, "station {station} is called twice at once for alarm {id}: {before:?}");
            return;
        }
        let seq = alarm["seq"].as_u64().expect("a number");
        for channel in CHANNELS.iter().filter(|channel| hears(channel)) {
            expected.insert(format!("{id}/{seq}/{}", channel.0));
        }
        let cause = text(&record["cause"]["is"]);
        let (from, to) = (text(&record["from"]), text(&record["to"]));
        let subject = alarm["subject"].as_object().and_then(|of| of.values().next()).map(text).expect("a subject");
        if cause == "escalated" && !record["cause"]["by"].is_null() {
            let silenced = !alarm["shelved"].is_null() || !alarm["out_of_service"].is_null();
            assert!(!silenced, "alarm {id} is silenced and somebody escalates it");
            assert_eq!(record["cause"]["step"], alarm["escalation"], "alarm {id} is escalated past a step");
        }
        let row = Row {
            rule: text(&alarm["rule"]),
            subject: subject.clone(),
            seq,
            state: to.clone(),
            active: alarm["condition"] == "active",
            level: level(&alarm["level"]),
            latched: alarm["latched"] == true,
            cause: cause.clone(),
        };
        if self.says_news {
            let Row { subject, level, active, latched, .. } = &row;
            self.news.push(format!(
                "{id}/{seq} {subject} {from} -> {to}: {}, level {level}, active {active}, latched {latched}, escalation {}",
                record["cause"], alarm["escalation"]
            ));
        }
        match alarm["incident"].as_str() {
            None => assert!(system, "alarm {id} of {subject} belongs to no incident"),
            Some(incident) => {
                assert!(!system, "alarm {id} about anmin itself belongs to an incident");
                let incident = number_of(incident);
                let known = self.threads.insert(number_of(&id), incident);
                let moved = known.is_some_and(|known| known != incident);
                assert!(!moved || cause == "regrouped", "alarm {id} changes its incident by {cause}");
            }
        }
        let before = self.alarms.get(&id);
        match before {
            None => {
                assert_eq!((seq, cause.as_str()), (1, "raised"), "alarm {id} begins in the middle: {record}");
                let twin = self.standing.get(&(row.rule.clone(), row.subject.clone()));
                assert!(twin.is_none(), "{} of {subject} is raised while its alarm is open", row.rule);
            }
            Some(before) => {
                assert_ne!(before.state, "normal", "G8: alarm {id} is closed and comes again as {cause}");
                assert_eq!(
                    (seq, &from),
                    (before.seq + 1, &before.state),
                    "alarm {id} {cause}: a transition is missing"
                );
            }
        }
        if to == "normal" {
            let latched = before.is_some_and(|before| before.latched);
            assert!(!latched || cause == "reset", "latched alarm {id} was closed by {cause}");
            assert!(!alarm["acknowledged"].is_null(), "alarm {id} was closed and nobody has seen it");
        }
        if row.rule == "sim/prompt" {
            let was = before.map_or(0, |before| if before.active { before.level } else { 0 });
            let is = if row.active { row.level } else { 0 };
            if was != is {
                self.edges.entry(subject).or_default().push(is);
            }
        }
        let number = id.parse::<uuid::Uuid>().expect("an id is a UUID").as_u128();
        let of = (row.rule.clone(), row.subject.clone());
        if row.state == "normal" {
            self.open.remove(&number);
            self.standing.remove(&of);
        } else {
            self.open.insert(number, seq);
            self.standing.insert(of, id.clone());
        }
        self.alarms.insert(id, row);
    }
}
