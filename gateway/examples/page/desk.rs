//! A made-up site for looking at the page and for testing the routes: it answers what the main loop answers, with alarms
//! and readings of its own, and just enough of the lifecycle for every button to do something. No rule runs here.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anmin::clock::Clock;
use anmin::config::adopted::{Change as ListChange, Changed, List};
use anmin::config::list_faults;
use anmin::config::tuned::Change;
use anmin::delivery;
use anmin::main_loop::feed::{ChangedPoint, Readings};
use anmin::main_loop::query::{
    AlarmList, AlarmView, Database, DevicePage, DeviceView, HeldView, IncidentList, IncidentView, JournalState, Next,
    PointChoices, PointPage, PointRow, Quarantined, ReadingCounts, RuleRow, StationView, Status, Stranger, Testable,
    TestablePoint, Trouble, WayOut,
};
use anmin::main_loop::{Feed, FeedEvent, Input, Query, ReloadAsked, Reloaded, Resend, Resent};
use anmin::pulse::Seen;
use anmin::register::{Kind as Register, Row};
use anmin::store::audit::{Audited, Chain, Deed, Through, Wanted, Way};
use anmin::store::incidents::{ClosedCursor, ClosedFilter};
use anmin::store::people::{self, Places, Principal};
use anmin::store::plans::Revision;
use anmin::store::state::{Entry, Journaled, Sent};
use anmin::store::unusable::{Kept, KeptCursor};
use anmin::store::view::Raw;
use anmin::store::{Bucket, DeadLetter, Gap};
use anmin::subscription::{self, Subscriptions};
use anmin::telemetry::Figures;
use anmin::warning::Warnings;
use anmin::warning::book::Here;
use anmin::web::Archive;
use anmin::web::devices::{Listed, Lister, NewPoint, NotListed, Planned, RowChange, SHEET};
use anmin::web::drills::{Drilled, ScoreSheet};
use anmin::web::tuning::{Changed as Tried, Kept as Set, NotTuned, Standing, Trial, TunedRule, Tuner};
use anmin_rules::alarm::{
    Action, Alarm, AlarmId, AlarmState, By, Cause, Class, Command, Condition, Refusal, Shelf, Subject, Transition,
};
use anmin_rules::casework::{Case, Stage as CaseStage};
use anmin_rules::change::{NumberChange, RulesChange};
use anmin_rules::drill::{Drill, DrillAction, DrillCause, DrillChange, DrillCommand, DrillEnd, DrillId, Scope};
use anmin_rules::duty::{Duty, Equipment, Member, Role, Shift, Zone};
use anmin_rules::engine::{Counts, Engine};
use anmin_rules::incident::{
    End, Incident, IncidentAction, IncidentCause, IncidentChange, IncidentId, Note, Outcome, Situation,
};
use anmin_rules::library;
use anmin_rules::order::{
    Call, CallCause, CallChange, CallStamp, CallState, CallStep, OnCall, OrderBody, OrderId, Station,
};
use anmin_rules::plan::{Done, Item, Plans, Subject as PlanSubject};
use anmin_rules::response::Callable;
use anmin_rules::response::DeskSettings;
use anmin_rules::rule::{
    ContentHash, Evidence, Grounds, InputSeen, Level, LimitUsed, Measure, Origin, RuleId, Said, Text, WindowSeen,
};
use anmin_rules::set::RuleSet;
use anmin_rules::walk::{Tick, TickEnd, Walk, WalkId};
use anmin_sensors::document::{Document, Faults};
use anmin_sensors::point::{DeviceId, Hazard, Kind, Name, Place, PointId, PointIx, PointSpec, Points};
use anmin_sensors::profile::Profiles;
use anmin_sensors::reading::{Doubt, Fault, Quality, Sample, Value};
use anmin_sensors::time::{Now, Wall};
use tokio::sync::mpsc;

pub fn text(zh: &str, en: &str) -> Text {
    Text { zh: zh.to_owned(), en: en.to_owned() }
}

/// Ids count up from 1, so that tests can name them.
pub fn id(n: u128) -> AlarmId {
    AlarmId(uuid::Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + n))
}

/// One subscriber, of a journal that is not there.
pub fn subscriptions(clock: &Clock) -> Subscriptions {
    let faults = Faults::default();
    let toml = "id = 'office'\nurl = 'http://127.0.0.1:9/'\n";
    let document = Document::parse("subscriber", toml, &faults).expect("it is TOML");
    let settings = subscription::Settings::read(&document.root(&faults), Path::new("."), &BTreeSet::new());
    let settings = settings.expect("they are good");
    let (_, beats) = tokio::sync::watch::channel(0);
    let (all, _) =
        Subscriptions::new(&[settings], &site(), true, Path::new("nowhere"), clock, &Figures::default(), beats)
            .expect("it names no files");
    all
}

fn site() -> delivery::Site {
    delivery::Site {
        id: "chunhui".into(),
        name: self::text("春晖社区", "Chunhui"),
        area_code: None,
        time_zone: jiff::tz::TimeZone::UTC,
        exercise: true,
    }
}

/// Nobody above, and so no warnings.
pub fn warnings(clock: &Clock) -> Warnings {
    Warnings::open(&[], &site(), Here::default(), Path::new("nowhere"), clock).expect("it names no files")
}

/// A station that is manned day and night, and one whose hose nobody has looked at yet.
fn stations() -> Vec<(Station, Duty)> {
    let member = |id: &str, name: &str, role| Member {
        id: id.into(),
        name: name.to_owned(),
        role,
        phone: "13800000000".to_owned(),
    };
    let shift = |name: &str, from, to, crew: &str| Shift {
        name: name.to_owned(),
        days: [true; 7],
        from,
        to,
        crew: vec![crew.into()],
    };
    let east = Station {
        id: "east".into(),
        name: text("东区微型消防站", "East micro fire station"),
        phone: "0000-0000119".to_owned(),
        neighbours: vec!["south".into()],
        crew: vec![member("zhao", "赵站长", Role::Head), member("wang", "王强", Role::Member)],
        shifts: vec![shift("白班", 480, 1_200, "zhao"), shift("夜班", 1_200, 480, "wang")],
        ..Station::default()
    };
    let hose = Equipment {
        id: "hose".into(),
        name: text("消防水带", "fire hose"),
        check_every: std::time::Duration::from_secs(7 * 86_400),
    };
    let south = Station {
        id: "south".into(),
        name: text("南区微型消防站", "South micro fire station"),
        phone: "0000-0000120".to_owned(),
        crew: vec![member("li", "李勇", Role::Head)],
        equipment: vec![hose],
        ..Station::default()
    };
    vec![(east, Duty::default()), (south, Duty::default())]
}

/// What the shipped plan says is to be done.
fn checklist(hazard: Hazard, alarm: &Alarm) -> Vec<Item> {
    let plans = Plans::shipped();
    let plan = plans.choose(PlanSubject::Hazard(hazard), alarm.peak, &alarm.place.area);
    let item = |(n, step): (usize, &anmin_rules::plan::Step)| Item {
        id: format!("{}/{}", hazard.as_str(), step.id),
        plan: plan.map(|plan| plan.id.clone()).unwrap_or_default(),
        version: "2026-1".to_owned(),
        text: step.text.clone(),
        owner: step.owner,
        added_at: alarm.raised_at,
        due: step.within.map(|within| alarm.raised_at.plus(within)),
        late: n == 0,
        done: None,
    };
    plan.into_iter().flat_map(|plan| plan.steps.iter().enumerate().map(item)).collect()
}

/// Takes new rules the first time; the second time they are broken.
pub fn reloader() -> mpsc::Sender<ReloadAsked> {
    let (asked, mut taken) = mpsc::channel::<ReloadAsked>(1);
    tokio::spawn(async move {
        let number = NumberChange {
            rule: RuleId::new("gas/leak"),
            of: "device b3-*".to_owned(),
            name: "limit.yellow".to_owned(),
            from: Some(10.0),
            to: Some(8.0),
        };
        let change =
            RulesChange { added: vec![RuleId::new("gas/ours")], numbers: vec![number], ..RulesChange::default() };
        let broken =
            "rules/gas/ours.rhai:7:12: there is no function `abve`\n  hint: did you mean `above(point, \"limit\")`?";
        let mut answers = [Ok(change), Err(vec![broken.to_owned()])].into_iter().cycle();
        while let Some(ReloadAsked { reply, .. }) = taken.recv().await {
            let change = answers.next().expect("they come again and again");
            let reloaded = Reloaded {
                change,
                rules: 49,
                taken: vec!["[[webhook]] office (url)".to_owned()],
                waits: vec!["[web] (listen)".to_owned()],
            };
            if let Some(reply) = reply {
                // The asker may be gone.
                let _ = reply.send(reloaded);
            }
        }
    });
    asked
}

/// Numbers that were set at this desk; whatever is tried would have saved one alarm.
#[derive(Default)]
pub struct Tuned(Mutex<Vec<TunedRule>>);

impl Tuned {
    fn version(&self) -> String {
        self.0.lock().expect("nobody panics with it").len().to_string()
    }
}

impl Tuner for Tuned {
    fn kept(&self) -> Result<Set, NotTuned> {
        Ok(Set { version: self.version(), overrides: self.0.lock().expect("nobody panics with it").clone() })
    }

    fn try_out(&self, change: &Change, span: Duration) -> Result<Trial, NotTuned> {
        if change.rule != "gas/leak" {
            return Err(NotTuned::Faults(vec![format!("there is no rule {:?}", change.rule)]));
        }
        let to = Clock::system().now().wall;
        let from = Wall::from_millis(to.millis() - span.as_millis() as i64);
        let message = text("甲烷浓度 12.4 %LEL，达到报警值", "methane 12.4 %LEL");
        let lost = Standing { from, to: Some(to), level: Level::Yellow, message };
        let changed =
            vec![Tried { change: "lost", subject: "b3-5-gas/lel".to_owned(), before: Some(lost), after: None }];
        Ok(Trial { from, to, readings: 60_480, counts: [3, 0, 1, 0, 0, 0], changed })
    }

    fn keep(&self, change: &Change, version: &str) -> Result<String, NotTuned> {
        if version != self.version() {
            return Err(NotTuned::Changed);
        }
        let numbers = change.numbers.iter().filter_map(|(name, number)| Some((name.clone(), (*number)?))).collect();
        let of = change.of.iter().map(|(key, word)| format!("{key} {word}")).collect::<Vec<_>>().join(", ");
        self.0.lock().expect("nobody panics with it").push(TunedRule { rule: change.rule.clone(), of, numbers });
        Ok(String::new())
    }

    fn put_back(&self, _: &str) -> Result<(), NotTuned> {
        self.0.lock().expect("nobody panics with it").pop();
        Ok(())
    }
}

/// Devices that were taken in at this desk; there are no files beside it.
#[derive(Default)]
pub struct Devices(Mutex<String>);

impl Devices {
    fn planned(&self, change: &ListChange) -> Result<(Planned, String), NotListed> {
        let text = self.0.lock().expect("nobody panics with it").clone();
        let list = List::new(&text, &[]).expect("it was written here");
        let version = text.len().to_string();
        let Changed { sheet, unchanged } = match list.changed(SHEET, change) {
            Ok(changed) => changed,
            Err(faults) => return Ok((Planned { version, faults, ..Planned::default() }, text)),
        };
        let faults = Faults::default();
        let (new, lines) = sheet.text();
        let profiles = Profiles::shipped();
        for (row, line) in sheet.rows.iter().zip(lines) {
            let profile = sheet.cell(row, "profile");
            if profiles.get(profile).is_none() {
                let known: Vec<&str> = profiles.iter().map(|profile| &*profile.id).collect();
                let line = if row.line > 0 { row.line } else { line };
                faults.note(list_faults::no_profile(sheet.id(row), profile, &known).at(SHEET, line, 2));
            }
        }
        let olds = list.sheet.by_id();
        let added = sheet.rows.iter().filter(|row| !olds.contains_key(sheet.id(row)));
        let added: Vec<&str> = added.map(|row| sheet.id(row)).collect();
        let gone = list.sheet.rows.iter().map(|row| list.sheet.id(row)).filter(|id| !sheet.by_id().contains_key(id));
        let change = |id: &str, change| RowChange { id: id.to_owned(), change, cells: Vec::new() };
        let changes = added.iter().map(|id| change(id, "added")).chain(gone.map(|id| change(id, "removed"))).collect();
        let specs = added.iter().filter_map(|id| Some((id, profiles.get(sheet.cell(sheet.by_id()[*id], "profile"))?)));
        let point = |id: &str, spec: &PointSpec| NewPoint {
            id: PointId::new(format!("{id}/{}", spec.name)),
            kind: spec.kind,
            alarm_point: spec.alarm_point,
        };
        let points = specs.flat_map(|(id, profile)| profile.specs().iter().map(move |spec| point(id, spec))).collect();
        let columns = sheet.columns.clone();
        Ok((Planned { version, unchanged, changes, points, faults: faults.take(), columns }, new))
    }
}

impl Lister for Devices {
    fn list(&self) -> Result<Listed, NotListed> {
        let text = self.0.lock().expect("nobody panics with it").clone();
        let list = List::new(&text, &[]).expect("it was written here");
        Ok(Listed { version: text.len().to_string(), whole: list.whole(), sheet: list.sheet })
    }

    fn plan(&self, change: &ListChange) -> Result<Planned, NotListed> {
        Ok(self.planned(change)?.0)
    }

    fn keep(&self, change: &ListChange, version: Option<&str>) -> Result<(Planned, Option<String>), NotListed> {
        let (planned, text) = self.planned(change)?;
        if version.is_some_and(|version| version != planned.version) {
            return Err(NotListed::Changed);
        }
        if !planned.faults.is_empty() || planned.changes.is_empty() {
            return Ok((planned, None));
        }
        let was = std::mem::replace(&mut *self.0.lock().expect("nobody panics with it"), text);
        Ok((planned, Some(was)))
    }

    fn put_back(&self, text: &str) -> Result<(), NotListed> {
        text.clone_into(&mut self.0.lock().expect("nobody panics with it"));
        Ok(())
    }
}

/// What the journal and the history would hold.
#[derive(Default)]
pub struct Memory(Mutex<Vec<Journaled>>, Mutex<Vec<Drill>>);

impl Memory {
    fn push(&self, entry: Entry) {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let n = rows.len() as i64 + 1;
        rows.push(Journaled { n, entry });
    }
}

/// The one order that the office's way out has refused.
const DEAD: &str = "01900000-0000-7000-8000-000000000001/1/office";

impl Archive for Memory {
    fn verify_audit(&self) -> Result<Chain, String> {
        let first = Wall::from_millis(1_772_328_600_000);
        Ok(Chain { rows: 3, first: Some((1, first)), last: Some((3, first)), head: vec![0xab; 32], broken: None })
    }

    /// Three deeds of a morning: one was done, one refused, one cannot be read.
    fn audit(&self, wanted: &Wanted, limit: usize) -> Result<Vec<Audited>, String> {
        let address = Some([10, 0, 0, 7].into());
        let principal = Principal {
            account: "li".to_owned(),
            shown: "李值班".to_owned(),
            role: people::Role::Officer,
            places: Places::of(["3".to_owned()]),
        };
        let reset = Deed {
            at: Wall::from_millis(1_772_328_600_000),
            who: "李值班".to_owned(),
            from: Way { through: Through::Page, address, principal: Some(Arc::new(principal)) },
            what: "alarm.reset".into(),
            about: id(1).to_string(),
            refused: Some(text("报警的异常仍在持续，不能复位", "it cannot be reset while its condition lasts")),
            detail: serde_json::Value::Null,
        };
        let start = Deed::of_anmin(reset.at, "system.start", serde_json::json!({ "version": "0.1.0" }));
        let rows = [Err("it has version 9".to_owned()), Ok(reset), Ok(start)].into_iter().zip([3, 2, 1]);
        let rows = rows.map(|(deed, n)| Audited { n, deed, hash: vec![n as u8; 32] });
        let is_wanted = |row: &Audited| {
            let by = row.deed.as_ref().ok().map(|deed| &deed.who);
            wanted.before.is_none_or(|before| row.n < before) && (wanted.who.is_none() || wanted.who.as_ref() == by)
        };
        Ok(rows.filter(is_wanted).take(limit).collect())
    }

    /// Those that were done on this page, and one of the day before.
    fn drills(&self, limit: usize, before: Option<Wall>) -> Result<Vec<Drill>, String> {
        let done = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        let all = done.iter().rev().cloned().chain([past_drill()]);
        Ok(all.filter(|drill| before.is_none_or(|before| drill.started_at < before)).take(limit).collect())
    }

    /// Nobody was told anything yet.
    fn messages(&self, _: &[AlarmId]) -> Result<Vec<Sent>, String> {
        Ok(Vec::new())
    }

    /// One of the day before, in which a detector answered; asked by its id, whatever that is.
    fn walks(&self, _: usize, _: Option<Wall>) -> Result<Vec<Walk>, String> {
        Ok(vec![past_walk(WalkId(past_drill().id.0)).0])
    }

    fn walk(&self, id: WalkId) -> Result<Option<(Walk, Vec<Tick>)>, String> {
        let (walk, tick) = past_walk(id);
        Ok(Some((walk, vec![tick])))
    }

    fn configurations(&self, _: Wall, _: Wall) -> Result<Vec<(Wall, String)>, String> {
        Ok(Vec::new())
    }

    fn plans(&self) -> Result<Vec<Revision>, String> {
        Ok(Vec::new())
    }

    /// Three items of the stock, one of which is short, and nothing else.
    fn last_test(&self, _: &[PointId]) -> Result<Option<(Tick, Option<Walk>)>, String> {
        Ok(None)
    }

    fn register(&self, kind: Register) -> Result<Vec<Row>, String> {
        let items = [("W-01", "灭火毯", "3", "5"), ("W-02", "沙袋", "400", "200"), ("W-03", "应急灯", "12", "10")];
        let row = |(id, name, quantity, minimum): (&str, &str, &str, &str)| {
            let cells =
                [("id", id), ("name", name), ("quantity", quantity), ("minimum", minimum), ("where", "1号微站")];
            let cells = cells.into_iter().map(|(name, cell)| (name.to_owned(), cell.to_owned())).collect();
            Row::read(Register::Stock, &cells).expect("it is sound")
        };
        Ok(if kind == Register::Stock { items.map(row).into() } else { Vec::new() })
    }

    /// All that has happened is its story.
    fn drill(&self, drill: DrillId) -> Result<Option<Drilled>, String> {
        let known = self.drills(usize::MAX, None)?.into_iter().find(|known| known.id == drill);
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let told = |_| Ok::<_, String>(vec![("office".into(), past_drill().started_at.plus(Duration::from_secs(3)))]);
        let sheet = ScoreSheet::of(&rows, told)?;
        Ok(known.map(|drill| Drilled { drill, rows, sheet }))
    }

    fn dead_letters_after(&self, order: Option<&OrderId>, most: usize) -> Result<Option<Vec<DeadLetter>>, String> {
        match order {
            None => self.dead_letters(most).map(Some),
            Some(order) => Ok((*order == OrderId::new(DEAD)).then(Vec::new)),
        }
    }

    fn dead_letters(&self, _: usize) -> Result<Vec<DeadLetter>, String> {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = rows.iter().find_map(|row| match &row.entry {
            Entry::Transition(transition) => Some(Arc::new(transition.clone())),
            _ => None,
        });
        Ok(vec![DeadLetter {
            id: OrderId::new(DEAD),
            channel: "office".into(),
            at: Wall::from_millis(1_772_328_600_000),
            why: "HTTP 400: no such template".to_owned(),
            body: first.map(OrderBody::Event),
        }])
    }

    /// A slow wave between 1 and 9, with a gap in the third quarter.
    fn readings(&self, _: &PointId, from: Wall, to: Wall, buckets: usize) -> Result<Vec<Bucket>, String> {
        let width = (to.micros() - from.micros()) / buckets as i64;
        let gap = buckets / 2..buckets * 5 / 8;
        Ok((0..buckets)
            .filter(|n| !gap.contains(n))
            .map(|n| {
                let mean = 5.0 + 4.0 * (n as f64 / buckets as f64 * 12.0).sin();
                let start = Wall::from_micros(from.micros() + width * n as i64);
                Bucket { start, count: 20, min: mean - 0.6, max: mean + 0.6, mean, bad: 0 }
            })
            .collect())
    }

    fn samples(&self, _: &PointId, _: Wall, _: Wall) -> Result<Vec<(Wall, Option<f64>, Quality)>, String> {
        Ok(Vec::new())
    }

    fn first_samples(&self, _: &PointId, _: Wall, _: Wall, _: usize) -> Result<(Vec<Raw>, u64), String> {
        Ok((Vec::new(), 0))
    }

    fn recent(&self, limit: usize, before: Option<i64>) -> Result<Vec<Journaled>, String> {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(rows.iter().rev().filter(|row| before.is_none_or(|n| row.n < n)).take(limit).cloned().collect())
    }

    fn history(&self, alarm: AlarmId) -> Result<Vec<Journaled>, String> {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_its = |row: &&Journaled| match &row.entry {
            Entry::Transition(transition) => transition.alarm.id == alarm,
            Entry::Call(change) => change.call.alarm == alarm,
            Entry::Incident(_) | Entry::Damaged(_) => false,
        };
        Ok(rows.iter().filter(is_its).cloned().collect())
    }

    fn incident(&self, id: IncidentId) -> Result<Option<Incident>, String> {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = rows.iter().rev().find_map(|row| match &row.entry {
            Entry::Incident(change) if change.incident.id == id => Some((*change.incident).clone()),
            _ => None,
        });
        Ok(last)
    }

    fn closed_incidents(
        &self,
        _: &ClosedFilter,
        _: Option<ClosedCursor>,
        limit: usize,
    ) -> Result<Vec<Incident>, String> {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let closed = rows.iter().rev().filter_map(|row| match &row.entry {
            Entry::Incident(change) if !change.incident.is_open() => Some((*change.incident).clone()),
            _ => None,
        });
        Ok(closed.take(limit).collect())
    }

    fn timeline(&self, id: IncidentId, limit: usize, before: Option<i64>) -> Result<Vec<Journaled>, String> {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_its = |row: &&Journaled| match &row.entry {
            Entry::Transition(transition) => transition.alarm.incident == Some(id),
            Entry::Call(change) => change.alarm.incident == Some(id),
            Entry::Incident(change) => change.incident.id == id,
            Entry::Damaged(_) => false,
        };
        let before = |row: &&Journaled| before.is_none_or(|n| row.n < n);
        Ok(rows.iter().rev().filter(is_its).filter(before).take(limit).cloned().collect())
    }

    fn outcomes(&self, _: Wall, _: Wall) -> Result<Vec<(String, String, u64)>, String> {
        let counted = [("false_alarm", "cooking", 7), ("real", "", 3), ("unexplained", "", 1)];
        Ok(counted.map(|(outcome, cause, count)| (outcome.to_owned(), cause.to_owned(), count)).into())
    }

    fn unusable(&self, limit: usize, _: Option<KeptCursor>) -> Result<Vec<Kept>, String> {
        let (first, last) = (Wall::from_millis(1_772_328_600_000), Wall::from_millis(1_772_332_200_000));
        let kept = Kept {
            n: 1,
            source: "site".to_owned(),
            topic: "chunhui/b2-402-gas/up".to_owned(),
            why: "not_json".to_owned(),
            bytes: 9,
            sha256: vec![0x5A; 32],
            start: b"gas=12,5\xFF".to_vec(),
            first,
            last,
            messages: 14,
        };
        Ok(vec![kept].into_iter().take(limit).collect())
    }
}

fn past_walk(id: WalkId) -> (Walk, Tick) {
    let Drill { scope, started_at, .. } = past_drill();
    let after = |minutes: u64| started_at.plus(Duration::from_secs(minutes * 60));
    let tick = Tick {
        walk: id,
        point: PointId::new("b3-5-gas/lel"),
        kind: Kind::named("gas.lel").expect("a kind of the table"),
        place: Arc::new(Place { building: "3".to_owned(), floor: "5".to_owned(), ..Place::default() }),
        rule: RuleId::new("gas/leak"),
        level: Level::Red,
        value: Some(60.0),
        at: after(2),
        end: Some((after(3), TickEnd::Returned)),
    };
    let walk = Walk {
        id,
        seq: 4,
        name: "年检".to_owned(),
        scope,
        kinds: Vec::new(),
        by: "李值班".to_owned(),
        started_at,
        ends_at: after(120),
        points: 12,
        ticked: 1,
        end: Some((after(40), "李值班".to_owned())),
    };
    (walk, tick)
}

/// A drill of the day before, under the id of the first alarm.
fn past_drill() -> Drill {
    let started_at = Wall::from_millis(1_772_242_200_000);
    Drill {
        id: DrillId(id(1).0),
        seq: 3,
        name: "季度演练".to_owned(),
        scope: Scope { building: "3".to_owned(), ..Scope::default() },
        announced: true,
        by: "李值班".to_owned(),
        started_at,
        ends_at: started_at.plus(Duration::from_secs(3_600)),
        alarms: 1,
        end: Some(DrillEnd { at: started_at.plus(Duration::from_secs(1_260)), by: "李值班".to_owned() }),
    }
}

pub struct Desk {
    pub feed: Feed,
    pub memory: Arc<Memory>,
    clock: Clock,
    points: Points,
    latest: HashMap<PointIx, Sample>,
    alarms: Vec<Arc<Alarm>>,
    incidents: Vec<Arc<Incident>>,
    calls: Vec<Call>,
    stations: Vec<(Station, Duty)>,
    drills: Vec<Arc<Drill>>,
    asked: u64,
}

/// The shipped rules, which judge nothing here.
fn engine() -> Engine {
    Engine::new(RuleSet::load(library::shipped(), Vec::new(), &Faults::default()), DeskSettings::default(), 1)
}

impl Desk {
    /// Three buildings, some forty devices, one alarm of each kind of state.
    pub fn new(clock: Clock) -> Self {
        let mut desk = Self {
            feed: Feed::new(),
            memory: Arc::default(),
            clock,
            points: Points::default(),
            latest: HashMap::new(),
            alarms: Vec::new(),
            incidents: Vec::new(),
            calls: Vec::new(),
            stations: stations(),
            drills: Vec::new(),
            asked: 0,
        };
        desk.add_devices();
        desk.add_alarms();
        desk
    }

    fn ago(&self, seconds: i64) -> Wall {
        Wall::from_micros(self.clock.now().wall.micros() - seconds * 1_000_000)
    }

    fn add_devices(&mut self) {
        /// A device's word, its name in both languages, and its points with their kinds.
        type Model = (&'static str, [&'static str; 2], &'static [(&'static str, &'static str)]);
        let models: [Model; 4] = [
            ("gas", ["燃气探测器", "gas detector"], &[("lel", "gas.lel"), ("battery", "device.battery")]),
            ("smoke", ["烟感", "smoke detector"], &[("smoke", "fire.smoke"), ("temperature", "fire.temperature")]),
            (
                "power",
                ["配电箱", "power cabinet"],
                &[("residual", "power.residual_current"), ("cable", "power.cable_temperature")],
            ),
            ("water", ["水浸", "water sensor"], &[("leak", "flood.leak"), ("level", "flood.level")]),
        ];
        let mut n = 0_u32;
        for building in ["1", "2", "3"] {
            for floor in ["B1", "1", "5"] {
                for (model, [zh, en], points) in models {
                    let place = Arc::new(Place {
                        area: format!("b{building}"),
                        grid: "G03".to_owned(),
                        building: building.to_owned(),
                        unit: "2".to_owned(),
                        floor: floor.to_owned(),
                        room: if floor == "5" { "501".to_owned() } else { "公共走廊".to_owned() },
                        position: None,
                        polygon: Vec::new(),
                    });
                    let specs: Vec<Arc<PointSpec>> = points
                        .iter()
                        .map(|(name, kind)| Kind::named(kind).map(|kind| Arc::new(PointSpec::plain(name, kind))))
                        .collect::<Option<_>>()
                        .expect("the kinds above are in KINDS");
                    let device = DeviceId::new(format!("b{building}-{floor}-{model}"));
                    let label = Name {
                        zh: format!("{building}号楼{floor}层{zh}").into(),
                        en: format!("{en}, Building {building}, Floor {floor}").into(),
                    };
                    let ix = self
                        .points
                        .add(device, Some(&label), &Arc::from(model), &place, &specs)
                        .expect("each id is new");
                    for point in self.points.device(ix).points() {
                        n += 1;
                        let quality = match n {
                            7 => Quality::Bad(Fault::Silent),
                            12 => Quality::Uncertain(Doubt::Stuck),
                            23 => Quality::Bad(Fault::OutOfRange),
                            _ => Quality::Good,
                        };
                        // One device has never spoken.
                        if n != 31 && n != 32 {
                            self.latest.insert(point, self.sample(point, f64::from(n % 9) * 1.37, quality));
                        }
                    }
                }
            }
        }
    }

    fn sample(&self, point: PointIx, number: f64, quality: Quality) -> Sample {
        let now = self.clock.now();
        let flag = self.points.point(point).spec.kind.info().unit.is_empty();
        let value = if flag { Value::Flag(false) } else { Value::Number(number) };
        Sample {
            point,
            value: (!matches!(quality, Quality::Bad(_))).then_some(value),
            quality,
            time: now.wall,
            source_time: Some(now.wall),
            received: now,
            sequence: None,
            news: true,
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn alarm(
        &mut self,
        rule: &str,
        hazard: Hazard,
        level: Level,
        point: &str,
        seconds: i64,
        title: Text,
        message: Text,
        advice: Text,
    ) -> Alarm {
        let at = self.ago(seconds);
        let ix = self.points.find(point);
        Alarm {
            id: id(self.alarms.len() as u128 + 1),
            rule: RuleId::new(rule),
            subject: Subject::Point(PointId::new(point)),
            class: Class::Hazard(hazard),
            title,
            place: ix.map(|ix| Arc::clone(&self.points.device_of(ix).place)).unwrap_or_default(),
            case: None,
            incident: None,
            drill: None,
            level,
            peak: level,
            condition: Condition::Active,
            acknowledged: None,
            latched: true,
            shelved: None,
            out_of_service: None,
            escalation: 0,
            peak_escalation: 0,
            escalate_at: None,
            realarm_at: None,
            raised_at: at,
            changed_at: at,
            clock_doubtful: false,
            seq: 1,
            evidence: Evidence {
                point: Some(PointId::new(point)),
                value: Some(Value::Number(26.4)),
                unit: ix.map(|ix| self.points.point(ix).spec.kind.info().unit.to_owned()).unwrap_or_default(),
                limit: Some((level.as_str().to_owned(), 20.0)),
                source_time: Some(at),
                sequence: Some(4_711),
                received: at,
                grounds: Some(Arc::new(Grounds {
                    at,
                    rule: ContentHash(0x0123_4567_89ab_cdef),
                    said: Said::Abnormal(level),
                    held: None,
                    inputs: vec![InputSeen {
                        role: "point".into(),
                        point: PointId::new(point),
                        value: Some(Value::Number(26.4)),
                        unit: ix.map_or("", |ix| self.points.point(ix).spec.kind.info().unit).into(),
                        quality: Quality::Good,
                        time: at,
                        age: Duration::from_millis(1_250),
                    }],
                    windows: vec![WindowSeen {
                        name: "rise".into(),
                        measure: Measure::Slope,
                        over: Duration::from_secs(300),
                        value: Some(3.2),
                        unit: "%LEL/min".into(),
                    }],
                    limits: Arc::new([LimitUsed {
                        name: level.as_str().to_owned(),
                        value: 20.0,
                        unit: "%LEL".to_owned(),
                        origin: Origin::Device,
                        source: Text::both("GB 15322.1-2019 4.3.2"),
                    }]),
                })),
            },
            message,
            advice,
            cap_log: Vec::new(),
            broadcast: None,
            rerouted: Vec::new(),
            sirens: Vec::new(),
            moved: 0,
        }
    }

    fn add_alarms(&mut self) {
        let gas = self.alarm(
            "gas/leak",
            Hazard::Gas,
            Level::Red,
            "b3-5-gas/lel",
            75,
            text("可燃气体泄漏", "Combustible gas leak"),
            text(
                "3号楼2单元5层501 可燃气体浓度 26.4 %LEL，超过二级限值 20 %LEL",
                "Building 3, Unit 2, Floor 5, 501: combustible gas 26.4 %LEL, above the second limit of 20 %LEL",
            ),
            text(
                "关闭总阀，开窗通风，不要开关电器，疏散本层住户",
                "Shut the main valve, open windows, touch no switch, clear the floor",
            ),
        );
        let gas_id = gas.id;
        self.open(gas, Cause::Raised);
        let smoke = self.alarm(
            "fire/smoke",
            Hazard::Fire,
            Level::Orange,
            "b1-5-smoke/smoke",
            250,
            text("烟雾报警", "Smoke"),
            text("1号楼2单元5层501 烟雾报警", "Building 1, Unit 2, Floor 5, 501: smoke"),
            text("派人到现场查看，准备灭火器", "Send somebody to look, with an extinguisher"),
        );
        let smoke = Alarm {
            acknowledged: Some(By { who: "李值班".to_owned(), at: self.ago(190) }),
            seq: 2,
            escalation: 1,
            peak_escalation: 1,
            evidence: Evidence { value: Some(Value::Flag(true)), limit: None, grounds: None, ..smoke.evidence },
            ..smoke
        };
        self.open(smoke, Cause::Acknowledged { by: "李值班".to_owned() });
        let cable = self.alarm(
            "power/cable_temperature",
            Hazard::Power,
            Level::Yellow,
            "b2-B1-power/cable",
            1_900,
            text("线缆温度偏高", "Cable too warm"),
            text("2号楼2单元B1层公共走廊 线缆温度 71.2 degC", "Building 2, Unit 2, Floor B1: cable at 71.2 degC"),
            text("检查负荷与接线端子", "Check load and terminals"),
        );
        let cable = Alarm { condition: Condition::Normal, seq: 2, changed_at: self.ago(600), ..cable };
        self.open(cable, Cause::Returned);
        let water = self.alarm(
            "flood/level",
            Hazard::Flood,
            Level::Blue,
            "b2-B1-water/level",
            5_400,
            text("积水", "Standing water"),
            text("2号楼地下一层积水 6 cm", "Building 2, basement: 6 cm of water"),
            text("检查排水泵", "Check the pump"),
        );
        let water = Alarm {
            shelved: Some(Shelf {
                until: self.ago(-1_500), by: "王工".to_owned(), why: "正在清洗地面".to_owned()
            }),
            seq: 2,
            ..water
        };
        self.open(water, Cause::Shelved { by: "王工".to_owned() });
        let residual = self.alarm(
            "power/residual_current",
            Hazard::Power,
            Level::Orange,
            "b1-1-power/residual",
            9_000,
            text("剩余电流超限", "Residual current too high"),
            text("1号楼2单元1层 剩余电流 412 mA，超过限值 300 mA", "Building 1, Floor 1: 412 mA, limit 300 mA"),
            text("断电检查线路绝缘", "Switch off and check the insulation"),
        );
        let residual = Alarm {
            condition: Condition::Normal,
            acknowledged: Some(By { who: "李值班".to_owned(), at: self.ago(8_800) }),
            seq: 3,
            ..residual
        };
        self.open(residual, Cause::Returned);
        let broker = self.alarm(
            "system/part",
            Hazard::Device,
            Level::Yellow,
            "broker:site",
            40,
            text("系统部件异常", "A part of anmin is ill"),
            text("与消息服务器 site 的连接已断开", "The connection to the MQTT broker `site` is lost"),
            text("检查网络与服务器", "Check network and broker"),
        );
        let broker = Alarm {
            class: Class::System,
            subject: Subject::Part(Arc::from("broker:site")),
            latched: false,
            evidence: Evidence { received: self.ago(40), ..Evidence::default() },
            ..broker
        };
        self.open(broker, Cause::Raised);
        let south = text("南区微型消防站", "South micro fire station");
        self.call(gas_id, "south", south, CallState::Called, &[(CallState::Called, 70, "anmin")], -20);
        let states = [
            (CallState::Called, 71, "anmin"),
            (CallState::Accepted, 40, "赵站长"),
            (CallState::OnTheWay, 25, "赵站长"),
        ];
        let east = text("东区微型消防站", "East micro fire station");
        self.call(gas_id, "east", east, CallState::OnTheWay, &states, -110);
    }

    fn call(
        &mut self,
        alarm: AlarmId,
        station: &str,
        name: Text,
        state: CallState,
        stamps: &[(CallState, i64, &str)],
        due: i64,
    ) {
        let stamps: Vec<CallStamp> = stamps
            .iter()
            .map(|(state, ago, by)| CallStamp {
                state: *state,
                at: self.ago(*ago),
                by: (*by).to_owned(),
                why: String::new(),
            })
            .collect();
        self.calls.push(Call {
            alarm,
            station: Arc::from(station),
            station_name: name,
            state,
            seq: stamps.len() as u32,
            stamps,
            respond_by: self.ago(due),
            arrive_by: self.ago(due - 30),
            control_by: self.ago(due - 150),
            late: false,
            not_controlled: station == "south",
            crew: vec![OnCall { id: "zhao".into(), name: "赵站长".to_owned() }],
            round: 0,
        });
    }

    /// Puts an alarm in and tells everybody.
    fn open(&mut self, alarm: Alarm, cause: Cause) {
        let incident = self.incident_of(&alarm);
        let alarm = Arc::new(Alarm { incident, ..alarm });
        let order = |alarm: &Alarm| (std::cmp::Reverse(alarm.level), alarm.raised_at);
        let at = self.alarms.partition_point(|other| order(other) <= order(&alarm));
        self.alarms.insert(at, Arc::clone(&alarm));
        self.tell(AlarmState::Normal, cause, alarm);
    }

    /// So many more alarms, of every level and in every building.
    pub fn storm(&mut self, alarms: usize) {
        let points: Vec<PointId> = self.points.iter().map(|(_, point)| point.id.clone()).collect();
        let levels = [Level::Red, Level::Orange, Level::Yellow, Level::Blue];
        let alarms: Vec<Alarm> = (0..alarms)
            .map(|n| {
                let alarm = self.alarm(
                    "fire/smoke",
                    Hazard::Fire,
                    levels[n % levels.len()],
                    points[n * 7 % points.len()].as_str(),
                    0,
                    text("烟雾报警", "Smoke"),
                    text("烟雾探测器报警", "The smoke detector has given an alarm"),
                    text("派人到现场查看，准备灭火器", "Send somebody to look, with an extinguisher"),
                );
                Alarm { id: id(1_000 + n as u128), ..alarm }
            })
            .collect();
        for alarm in alarms {
            self.open(alarm, Cause::Raised);
        }
    }

    fn tell(&self, from: AlarmState, cause: Cause, alarm: Arc<Alarm>) {
        let transition = Transition { from, to: alarm.state(), cause, at: self.clock.now(), alarm };
        self.memory.push(Entry::Transition(transition.clone()));
        self.feed.publish(FeedEvent::Transition(Arc::new(transition)));
    }

    /// Answers until nobody can ask any more or somebody says stop.
    pub async fn run(mut self, mut inputs: mpsc::Receiver<Input>) {
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                _ = ticks.tick() => self.breathe(),
                input = inputs.recv() => match input {
                    Some(Input::Command { command, seen, reply, .. }) => {
                        let changed = seen.zip(self.stands(&command.what)).is_some_and(|(seen, stands)| seen != stands);
                        let done = if changed { Err(Refusal::ChangedMeanwhile) } else { self.handle(command) };
                        // The asker may be gone, here and below: that is its own matter.
                        let _ = reply.send(done);
                    }
                    Some(Input::Drill { command, reply, .. }) => {
                        let _ = reply.send(self.handle_drill(command));
                    }
                    Some(Input::Resend { which, reply, .. }) => {
                        let id = OrderId::new(DEAD);
                        let known = matches!(&which, Resend::Order(order) if *order == id)
                            || matches!(&which, Resend::WayOut(way_out) if **way_out == *"office");
                        let _ = reply.send(Ok(Resent { sent: known.then_some(id).into_iter().collect(), over: Vec::new() }));
                    }
                    Some(Input::Walk { reply, .. } | Input::Register { reply, .. }) => drop(reply.send(Ok(()))),
                    Some(Input::People { reply, .. }) => drop(reply.send(Ok(()))),
                    Some(Input::Query(query)) => self.answer(query),
                    Some(Input::Stop) | None => return,
                    Some(_) => {}
                },
            }
        }
    }

    /// The number of what an alarm's shelf is about.
    fn stands(&self, what: &Action) -> Option<u32> {
        let (Action::Shelve { alarm, .. } | Action::Unshelve { alarm }) = what else { return None };
        self.alarms.iter().find(|other| other.id == *alarm).map(|alarm| alarm.seq)
    }

    fn handle_drill(&mut self, command: DrillCommand) -> Result<(), Refusal> {
        let now = self.clock.now().wall;
        let at = self.drills.iter().position(|drill| drill.id == command.drill);
        let (at, cause) = match (command.what, at) {
            (DrillAction::Start { scope, lasts, name, announced, alarms }, _) => {
                self.drills.push(Arc::new(Drill {
                    id: command.drill,
                    seq: 0,
                    name,
                    scope,
                    announced,
                    by: command.who,
                    started_at: now,
                    ends_at: now.plus(lasts),
                    alarms: alarms.len() as u32,
                    end: None,
                }));
                (self.drills.len() - 1, DrillCause::Started)
            }
            (DrillAction::Raise { alarms }, Some(at)) => {
                Arc::make_mut(&mut self.drills[at]).alarms += alarms.len() as u32;
                (at, DrillCause::Raised)
            }
            (DrillAction::End, Some(at)) => {
                Arc::make_mut(&mut self.drills[at]).end = Some(DrillEnd { at: now, by: command.who });
                (at, DrillCause::Ended)
            }
            (_, None) => return Err(Refusal::NoSuchDrill(command.drill)),
        };
        Arc::make_mut(&mut self.drills[at]).seq += 1;
        let drill = Arc::clone(&self.drills[at]);
        if !drill.is_on() {
            let mut done = self.memory.1.lock().unwrap_or_else(PoisonError::into_inner);
            done.push((*drill).clone());
            self.drills.remove(at);
        }
        self.feed.publish(FeedEvent::Drill(Arc::new(DrillChange { at: now, cause, drill })));
        Ok(())
    }

    /// Moves the readings a little.
    fn breathe(&mut self) {
        self.asked += 1;
        if !self.feed.readings_wanted() {
            return;
        }
        let mut rows = Vec::new();
        let moving: Vec<PointIx> = self
            .latest
            .iter()
            .filter(|(ix, sample)| sample.quality == Quality::Good && u64::from(ix.0) % 3 == self.asked % 3)
            .map(|(ix, _)| *ix)
            .collect();
        for ix in moving {
            let number = f64::from(ix.0 % 9) * 1.37 + (self.asked as f64 * 0.7 + f64::from(ix.0)).sin() * 0.4;
            let sample = self.sample(ix, number.abs(), Quality::Good);
            self.latest.insert(ix, sample.clone());
            let place = Arc::clone(&self.points.device_of(ix).place);
            rows.push(ChangedPoint { id: self.points.point(ix).id.clone(), place, sample });
        }
        self.feed.publish(FeedEvent::Readings(Arc::new(Readings { rows, truncated: false })));
    }

    fn answer(&mut self, query: Query) {
        let latest = |ix: PointIx| self.latest.get(&ix).cloned();
        match query {
            Query::Alarms { filter, page, reply } => {
                let calls_of = |id| self.calls.iter().filter(|call| call.alarm == id).cloned().collect();
                drop(reply.send(AlarmList::select(&filter, page, self.alarms.clone(), calls_of)));
            }
            Query::Alarm { id, reply } => {
                drop(reply.send(self.alarms.iter().find(|alarm| alarm.id == id).map(|alarm| AlarmView {
                    alarm: Arc::clone(alarm),
                    calls: self.calls.iter().filter(|call| call.alarm == id).cloned().collect(),
                })))
            }
            Query::Incidents { within, page, reply } => {
                let all = self.incidents.iter().map(|incident| self.situation(incident));
                let all = all.filter_map(|situation| situation.seen(|place| within.takes(place)));
                drop(reply.send(IncidentList::select(page, all.collect())));
            }
            Query::Incident { id, reply } => {
                let found = self.incidents.iter().find(|incident| incident.id == id);
                drop(reply.send(found.map(|incident| {
                    let calls = self.calls.iter().filter(|call| {
                        self.alarms.iter().any(|alarm| alarm.id == call.alarm && alarm.incident == Some(id))
                    });
                    IncidentView { situation: self.situation(incident), calls: calls.cloned().collect() }
                })));
            }
            Query::Walks { reply } => drop(reply.send(Default::default())),
            Query::Testable { within, reply } => {
                let points = TestablePoint::all(&self.points, &within, |_| None);
                drop(reply.send(Testable { every: Duration::from_secs(365 * 86_400), points }));
            }
            Query::Next { id, reply } => {
                let alarm = self.alarms.iter().find(|alarm| alarm.id == id);
                let called = |station: &str| {
                    let call = self.calls.iter().find(|call| call.alarm == id && *call.station == *station);
                    call.filter(|call| call.is_live()).map(|call| call.state)
                };
                let stations = self.stations.iter().map(|(station, _)| Callable {
                    station: Arc::clone(&station.id),
                    name: station.name.clone(),
                    phone: station.phone.clone(),
                    unready: None,
                    elsewhere: false,
                    called: called(&station.id),
                });
                let stations = stations.collect();
                drop(reply.send(alarm.map(|alarm| Next { alarm: Arc::clone(alarm), stations, last_escalation: 2 })))
            }
            Query::Stations { reply } => drop(reply.send(self.station_views())),
            Query::Points { filter, page, reply } => {
                drop(reply.send(PointPage::select(&self.points, &filter, page, latest)));
            }
            Query::Point { id, reply } => {
                drop(reply.send(self.points.find(id.as_str()).map(|ix| PointRow::of(&self.points, ix, latest(ix)))))
            }
            Query::PointChoices { within, reply } => drop(reply.send(PointChoices::of(&self.points, &within))),
            Query::Devices { within, page, reply } => {
                drop(reply.send(DevicePage::select(&self.points, &within, page, latest)));
            }
            Query::Device { id, reply } => {
                drop(reply.send(DeviceView::of(&self.points, &id, &Profiles::shipped(), latest)));
            }
            Query::Stranger { device, reply, .. } => {
                let stranger = self.stranger();
                drop(reply.send((device == stranger.device).then(|| Stranger {
                    row: stranger,
                    profile: None,
                    profiles: Profiles::shipped(),
                })));
            }
            Query::Quarantine { reply } => drop(reply.send(vec![self.stranger()])),
            Query::InForce { reply, .. } => drop(reply.send(None)),
            Query::Audited { reply } => drop(reply.send(())),
            Query::Rules { reply } => drop(reply.send(self.rules())),
            Query::Held { id, reply } => drop(reply.send(HeldView::of(&engine(), &self.points, &id))),
            Query::Plans { reply } => drop(reply.send(Arc::new(Plans::shipped()))),
            Query::DrillCalendar { reply } => drop(reply.send(Vec::new())),
            Query::Status { within, reply } => {
                let mut status = self.status();
                if !within.is_everywhere() {
                    let alarms = self.alarms.iter().filter(|alarm| within.takes(&alarm.place));
                    status = status.within(&within, &alarms.cloned().collect::<Vec<_>>(), 0, &self.points);
                }
                drop(reply.send(status));
            }
        }
    }

    /// The shipped rules, one of them with numbers of the site's own.
    fn rules(&self) -> Vec<RuleRow> {
        let mut rows = RuleRow::all(&engine());
        if let Some(leak) = rows.iter_mut().find(|row| row.spec.id.as_str() == "gas/leak") {
            leak.overrides = vec![("device b3-*".to_owned(), vec![("limit.yellow".to_owned(), 8.0)])];
            (leak.subjects, leak.open_alarms) = (9, 1);
        }
        rows
    }

    /// A device that speaks and that nobody knows.
    fn stranger(&self) -> Quarantined {
        Quarantined {
            source: Arc::from("site"),
            device: "0x00158d0009c1a2f3".to_owned(),
            topic: "zigbee2mqtt/0x00158d0009c1a2f3".to_owned(),
            excerpt: "{\"smoke\":false,\"battery\":97}".to_owned(),
            messages: 12,
            first: self.ago(3_000),
            last: self.ago(5),
        }
    }

    fn status(&self) -> Status {
        let (open, incidents) = (self.alarms.len(), self.incidents.len());
        let mut counts = Counts { open, incidents, ..Counts::default() };
        for alarm in self.alarms.iter().filter(|alarm| !alarm.is_silenced()) {
            counts.by_level[alarm.level as usize] += 1;
        }
        counts.live_calls = self.calls.iter().filter(|call| call.is_live()).count();
        Status {
            help: Default::default(),
            journal: JournalState::default(),
            now: self.clock.now().wall,
            uptime: Duration::from_secs(93_780),
            counts,
            walks: Vec::new(),
            drills: self.drills.clone(),
            readings: ReadingCounts {
                received: 1_204_331 + self.asked * 24,
                evaluated: 1_203_977 + self.asked * 24,
                duplicate: 321,
                quarantined: 12,
                rejected: 21,
                silent: 0,
                missing: 3,
                repeated: 2,
            },
            stored: Default::default(),
            points: self.points.len(),
            devices: self.points.devices().len(),
            quarantined: 1,
            rules: 17,
            broken_rules: vec!["site/own-rule".to_owned()],
            troubles: vec![Trouble {
                part: Arc::from("mqtt:site"),
                level: Level::Yellow,
                message: text("与消息服务器 site 的连接已断开", "The connection to the MQTT broker `site` is lost"),
            }],
            orders_waiting: 2,
            ways_out: vec![
                WayOut { id: Arc::from("office"), waiting: 2 },
                WayOut { id: Arc::from("siren"), waiting: 0 },
            ],
            readings_waiting: 1_204_830,
            possible_losses: 0,
            clock_doubtful: false,
            databases: vec![
                Database {
                    id: Arc::from("tsdb"),
                    waiting: 1_204_830,
                    bytes: 9_871_360,
                    oldest: Some(self.ago(11_550)),
                    rate: 2_310.5,
                    catch_up: Some(Duration::from_secs(530)),
                    dropped: 4_096,
                },
                Database {
                    id: Arc::from("office"),
                    waiting: 96,
                    bytes: 812,
                    oldest: Some(self.ago(1)),
                    rate: 24.0,
                    catch_up: Some(Duration::ZERO),
                    dropped: 0,
                },
            ],
            gaps: 1,
            newest_gaps: vec![Gap { first: self.ago(96_000), last: self.ago(95_830), samples: 4_096 }],
            self_test: Seen { failed: 0, last: Some((self.ago(4), Duration::from_millis(18))) },
        }
    }

    fn handle(&mut self, command: Command) -> Result<(), Refusal> {
        let Command { who, what } = command;
        let now: Now = self.clock.now();
        let by = By { who: who.clone(), at: now.wall };
        let id = match &what {
            Action::Incident { incident, what } => return self.handle_incident(who, *incident, what),
            Action::OpenCase { incident, what } => {
                let note = Note { at: now.wall, by: who.clone(), text: what.text.clone(), photos: Vec::new() };
                self.incidents.push(Arc::new(Incident {
                    id: *incident,
                    seq: 0,
                    case: Some(Case {
                        kind: what.kind,
                        stage: CaseStage::New,
                        owner: Some(who.clone()),
                        by_hand: true,
                    }),
                    title: Text::both(what.title.clone()),
                    place: Arc::new(what.place.clone()),
                    drill: None,
                    hazards: Vec::new(),
                    peak: Level::Blue,
                    storm: false,
                    alarms: 0,
                    opened_at: now.wall,
                    changed_at: now.wall,
                    settled_at: None,
                    closes_at: None,
                    notes: vec![note],
                    checklist: Vec::new(),
                    called_119: None,
                    end: None,
                }));
                let last = self.incidents.len() - 1;
                self.change(last, IncidentCause::Staged { stage: CaseStage::New, by: who }, |_| {});
                return Ok(());
            }
            Action::Station { station, what } => {
                let found = self.stations.iter_mut().find(|(known, _)| *known.id == **station);
                let (known, duty) = found.ok_or_else(|| Refusal::NoSuchStation(station.clone()))?;
                *duty = known.take(now.wall, &who, duty, what)?;
                return Ok(());
            }
            other => other.alarm().expect("all others are about an alarm"),
        };
        let at = self.alarms.iter().position(|alarm| alarm.id == id).ok_or(Refusal::NoSuchAlarm(id))?;
        let before = Arc::clone(&self.alarms[at]);
        let mut alarm = Alarm::clone(&before);
        let cause = match what {
            Action::Acknowledge { .. } => {
                alarm.acknowledged = Some(by);
                Cause::Acknowledged { by: who }
            }
            Action::Reset { .. } if alarm.is_active() => return Err(Refusal::StillActive { alarm: id }),
            Action::Reset { .. } if alarm.acknowledged.is_none() => return Err(Refusal::NotAcknowledged { alarm: id }),
            Action::Reset { .. } => {
                alarm.latched = false;
                Cause::Reset { by: who }
            }
            Action::Shelve { .. } if alarm.level == Level::Red => {
                return Err(Refusal::NotAllowed(text("红色报警不能屏蔽", "a red alarm cannot be shelved")));
            }
            Action::Shelve { until, why, .. } => {
                alarm.shelved = Some(Shelf { until, by: who.clone(), why });
                Cause::Shelved { by: who }
            }
            Action::Unshelve { .. } => {
                alarm.shelved = None;
                Cause::Unshelved { by: Some(who) }
            }
            Action::TakeOutOfService { why, .. } => {
                alarm.out_of_service = Some(by);
                Cause::TakenOutOfService { by: who, why }
            }
            Action::ReturnToService { .. } => {
                alarm.out_of_service = None;
                Cause::ReturnedToService { by: who }
            }
            Action::Escalate { step, .. } if step <= alarm.escalation => return Ok(()),
            Action::Escalate { step, .. } if step > 2 => {
                return Err(Refusal::NotAllowed(text(
                    "已升级到最后一级",
                    "the alarm is at the last step of its escalation",
                )));
            }
            Action::Escalate { step, why, .. } => {
                (alarm.escalation, alarm.peak_escalation) = (step, alarm.peak_escalation.max(step));
                Cause::Escalated { step, by: Some(who), why }
            }
            Action::CallStation { station, .. } => {
                let found = self.stations.iter().find(|(known, _)| *known.id == *station);
                let name = found.map(|(known, _)| known.name.clone()).ok_or(Refusal::NoSuchStation(station.clone()))?;
                let stamps = [(CallState::Called, 0, &*who)];
                self.call(id, &station, name, CallState::Called, &stamps, -60);
                let call = self.calls.last().expect("just pushed").clone();
                let message =
                    text(&format!("已呼叫{}", call.station_name.zh), &format!("{} is called", call.station_name.en));
                let change = CallChange { at: now.wall, cause: CallCause::Called, call, alarm: before, message };
                self.memory.push(Entry::Call(change.clone()));
                self.feed.publish(FeedEvent::Call(Arc::new(change)));
                return Ok(());
            }
            Action::Call { station, step, .. } => return self.step(before, &station, step, who),
            Action::Broadcast { .. } => {
                return Err(Refusal::NotAllowed(text("没有待批准的对外播报", "no broadcast waits for a yes")));
            }
            Action::Incident { .. } | Action::OpenCase { .. } | Action::Station { .. } => return Ok(()),
        };
        alarm.seq += 1;
        alarm.changed_at = now.wall;
        let alarm = Arc::new(alarm);
        if alarm.is_open() {
            self.alarms[at] = Arc::clone(&alarm);
        } else {
            self.alarms.remove(at);
            self.calls.retain(|call| call.alarm != id);
        }
        self.tell(before.state(), cause, alarm);
        Ok(())
    }

    fn station_views(&self) -> Vec<StationView> {
        let (zone, at) = (Zone::new(|_| 8 * 3_600), self.clock.now().wall);
        let view = |(station, duty): &(Station, Duty)| StationView {
            unready: station.unready(&zone, duty, at),
            on_duty: station.on_duty(&zone, duty, at).into_iter().cloned().collect(),
            shifts: station.shifts_at(&zone, at).map(|shift| shift.name.clone()).collect(),
            handed_over: station.hand_over_in_force(&zone, duty, at).cloned(),
            calls: self.calls.iter().filter(|call| call.station == station.id && call.is_live()).cloned().collect(),
            station: station.clone(),
            duty: Arc::new(duty.clone()),
        };
        self.stations.iter().map(view).collect()
    }

    fn situation(&self, incident: &Arc<Incident>) -> Situation {
        let alarms = self.alarms.iter().filter(|alarm| alarm.incident == Some(incident.id));
        Situation::new(Arc::clone(incident), alarms.cloned().collect())
    }

    /// The incident of an alarm that has come: of its hazard in its building, or a new one.
    fn incident_of(&mut self, alarm: &Alarm) -> Option<IncidentId> {
        let Class::Hazard(hazard) = alarm.class else { return None };
        let fits = |incident: &Arc<Incident>| {
            incident.hazards.contains(&hazard) && incident.place.building == alarm.place.building
        };
        let known = self.incidents.iter().position(fits);
        let at = known.unwrap_or_else(|| {
            self.incidents.push(Arc::new(Incident {
                id: IncidentId(id(self.incidents.len() as u128 + 1).0),
                seq: 0,
                case: None,
                title: alarm.title.clone(),
                place: Arc::clone(&alarm.place),
                drill: None,
                hazards: vec![hazard],
                peak: alarm.peak,
                storm: false,
                alarms: 0,
                opened_at: alarm.raised_at,
                changed_at: alarm.raised_at,
                settled_at: None,
                closes_at: None,
                notes: Vec::new(),
                checklist: checklist(hazard, alarm),
                called_119: None,
                end: None,
            }));
            self.incidents.len() - 1
        });
        let cause = if known.is_some() { IncidentCause::Grew } else { IncidentCause::Opened };
        self.change(at, cause, |incident| {
            incident.alarms += 1;
            incident.storm = incident.alarms > 10;
            incident.peak = incident.peak.max(alarm.peak);
        });
        Some(self.incidents[at].id)
    }

    fn change(&mut self, at: usize, cause: IncidentCause, how: impl FnOnce(&mut Incident)) {
        let wall = self.clock.now().wall;
        let incident = Arc::make_mut(&mut self.incidents[at]);
        how(incident);
        incident.seq += 1;
        incident.changed_at = wall;
        let change = IncidentChange { at: wall, cause, incident: Arc::clone(&self.incidents[at]) };
        self.memory.push(Entry::Incident(change.clone()));
        self.feed.publish(FeedEvent::Incident(Arc::new(change)));
        if !self.incidents[at].is_open() {
            self.incidents.remove(at);
        }
    }

    fn handle_incident(&mut self, who: String, id: IncidentId, what: &IncidentAction) -> Result<(), Refusal> {
        let wall = self.clock.now().wall;
        let find = |id: IncidentId| self.incidents.iter().position(|incident| incident.id == id);
        let at = find(id).ok_or(Refusal::NoSuchIncident(id))?;
        let its: Vec<Arc<Alarm>> = self.alarms.iter().filter(|alarm| alarm.incident == Some(id)).cloned().collect();
        let end = |outcome, why: &str| Some(End { at: wall, by: who.clone(), outcome, why: why.to_owned() });
        match what {
            IncidentAction::Acknowledge { newest } => {
                let seen = |alarm: &&Arc<Alarm>| newest.is_none_or(|newest| alarm.id <= newest);
                for alarm in its.iter().filter(seen).filter(|alarm| alarm.acknowledged.is_none()) {
                    self.handle(Command { who: who.clone(), what: Action::Acknowledge { alarm: alarm.id } })?;
                }
            }
            IncidentAction::Note { text, photos } => {
                let note = Note { at: wall, by: who.clone(), text: text.clone(), photos: photos.clone() };
                self.change(at, IncidentCause::Noted { by: who }, |incident| incident.notes.push(note));
            }
            IncidentAction::Tick { step } | IncidentAction::Skip { step, .. } => {
                let skipped = match what {
                    IncidentAction::Skip { why, .. } => Some(why.clone()),
                    _ => None,
                };
                let done = Done { at: wall, by: who.clone(), skipped };
                self.change(at, IncidentCause::Ticked { step: step.clone(), by: who }, |incident| {
                    if let Some(item) = incident.checklist.iter_mut().find(|item| item.id == *step) {
                        item.done = Some(done);
                    }
                });
            }
            IncidentAction::Called119 { text } => {
                let note = Note { at: wall, by: who.clone(), text: text.clone(), photos: Vec::new() };
                self.change(at, IncidentCause::Called119 { by: who }, |incident| incident.called_119 = Some(note));
            }
            IncidentAction::Stage { stage, owner, .. } => {
                let (stage, owner) = (*stage, owner.clone().or(Some(who.clone())));
                self.change(at, IncidentCause::Staged { stage, by: who }, |incident| {
                    if let Some(case) = &mut incident.case {
                        (case.stage, case.owner) = (stage, owner);
                    }
                });
            }
            IncidentAction::MergeInto { into } => {
                find(*into).ok_or(Refusal::NoSuchIncident(*into))?;
                self.move_to(*into, &its, &who);
                let end = end(Outcome::Merged(*into), "");
                self.change(at, IncidentCause::Closed, |incident| incident.end = end);
                if let Some(at) = self.incidents.iter().position(|incident| incident.id == *into) {
                    let cause = IncidentCause::Absorbed { from: id, by: who };
                    self.change(at, cause, |incident| incident.alarms += its.len() as u32);
                }
            }
            IncidentAction::Split { alarms } => {
                let moved: Vec<_> = its.into_iter().filter(|alarm| alarms.contains(&alarm.id)).collect();
                let new = IncidentId(self::id(500 + self.incidents.len() as u128).0);
                let own = Incident { id: new, seq: 0, alarms: moved.len() as u32, ..(*self.incidents[at]).clone() };
                self.move_to(new, &moved, &who);
                self.incidents.push(Arc::new(own));
                let last = self.incidents.len() - 1;
                self.change(last, IncidentCause::SplitFrom { from: id, by: who.clone() }, |_| {});
                self.change(at, IncidentCause::SplitInto { into: new, by: who }, |incident| {
                    incident.alarms -= moved.len() as u32;
                });
            }
            IncidentAction::Close { outcome, why } => {
                if let Some(alarm) = its.iter().find(|alarm| alarm.is_active()) {
                    return Err(Refusal::AlarmActive { alarm: alarm.id });
                }
                let end = end(*outcome, why);
                self.alarms.retain(|alarm| alarm.incident != Some(id));
                self.change(at, IncidentCause::Closed, |incident| incident.end = end);
            }
        }
        Ok(())
    }

    fn move_to(&mut self, into: IncidentId, alarms: &[Arc<Alarm>], who: &str) {
        for before in alarms {
            let moved = Arc::new(Alarm { incident: Some(into), seq: before.seq + 1, ..Alarm::clone(before) });
            if let Some(at) = self.alarms.iter().position(|alarm| alarm.id == before.id) {
                self.alarms[at] = Arc::clone(&moved);
            }
            self.tell(before.state(), Cause::Regrouped { by: Some(who.to_owned()) }, moved);
        }
    }

    fn step(&mut self, alarm: Arc<Alarm>, station: &str, step: CallStep, who: String) -> Result<(), Refusal> {
        let at = self.clock.now().wall;
        let call = self
            .calls
            .iter_mut()
            .find(|call| call.alarm == alarm.id && &*call.station == station)
            .ok_or_else(|| Refusal::NoSuchCall { alarm: alarm.id, station: station.to_owned() })?;
        let (state, why) = match step {
            CallStep::Accept => (CallState::Accepted, String::new()),
            CallStep::OnTheWay => (CallState::OnTheWay, String::new()),
            CallStep::OnScene => (CallState::OnScene, String::new()),
            CallStep::UnderControl => (CallState::UnderControl, String::new()),
            CallStep::StandDown => (CallState::StoodDown, String::new()),
            CallStep::Decline { why } => (CallState::Declined, why),
        };
        call.state = state;
        call.seq += 1;
        call.stamps.push(CallStamp { state, at, by: who, why });
        let message = text(
            &format!("{}{}", call.station_name.zh, state.zh()),
            &format!("{} {}", call.station_name.en, state.as_str()),
        );
        let change = CallChange { at, cause: CallCause::Said, call: call.clone(), alarm, message };
        self.memory.push(Entry::Call(change.clone()));
        self.feed.publish(FeedEvent::Call(Arc::new(change)));
        Ok(())
    }
}
