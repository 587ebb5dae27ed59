//! Who asks for help and has no answer yet: a system notice for each, until somebody at the desk has taken it on; and for how long
//! what residents have said is kept.
//!
//! Anybody can ask, so few are named one by one, the gravest first, and the rest is one notice: a flood of calls hides no alarm.
//! A notice names the building and what is needed; where exactly and whom to phone stands in the register alone.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use anmin_rules::engine::HELP;
use anmin_rules::rule::{Finding, Level, Text};
use anmin_sensors::point::Place;
use anmin_sensors::time::{Mono, Now};
use jiff::tz::TimeZone;

use super::{PartState, PartTrouble};
use crate::register::{Kind, NEEDS, Row, moment_of, need_text};
use crate::store::people::Places;
use crate::store::registers::Change;

/// How often is looked at what has been kept long enough.
const LOOK_EVERY: Duration = Duration::from_secs(600);
/// Calls that are named one by one.
const MOST_NAMED: usize = 10;
/// Rows that go at one time.
const MOST_GONE: usize = 500;

/// Calls for help that are not done with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HelpCalls {
    /// Nobody has answered them.
    pub waiting: usize,
    /// Somebody sees to them.
    pub taken: usize,
}

/// The register of calls, and what was said of it in this run.
#[derive(Debug)]
pub struct HelpWatch {
    zone: TimeZone,
    kept: Duration,
    rows: BTreeMap<String, Row>,
    /// By part; `None`: that it is over.
    told: BTreeMap<Arc<str>, Option<(Level, Text)>>,
    changed: bool,
    look_at: Option<Mono>,
    parts: VecDeque<PartState>,
}

impl HelpWatch {
    /// `kept`: for how long what is done with is kept.
    pub fn new(zone: TimeZone, kept: Duration, rows: Vec<Row>) -> Self {
        let rows = rows.into_iter().map(|row| (row.id().to_owned(), row)).collect();
        Self { zone, kept, rows, told: BTreeMap::new(), changed: true, look_at: None, parts: VecDeque::new() }
    }

    /// A row of any register has changed.
    pub fn handle_change(&mut self, change: &Change) {
        match change {
            Change::Row(row) if row.kind == Kind::Help => drop(self.rows.insert(row.id().to_owned(), row.clone())),
            Change::Gone(Kind::Help, id) => {
                self.rows.remove(id);
                self.told.entry(part(id)).or_insert(Some((Level::Blue, Text::default())));
            }
            _ => return,
        }
        self.changed = true;
    }

    /// Who asks now and has not asked before, or has an answer.
    pub fn poll_part(&mut self) -> Option<PartState> {
        if std::mem::take(&mut self.changed) {
            let wanted = self.wanted();
            // What the last run has said may be over: each is said once.
            let ids = self.rows.keys().map(|id| part(id));
            let all: Vec<Arc<str>> = ids.chain([part("rest")]).chain(self.told.keys().cloned()).collect();
            for part in all {
                let said = wanted.get(&part).cloned();
                if self.told.get(&part) == Some(&said) {
                    continue;
                }
                let trouble = said.clone().map(|(level, message)| PartTrouble {
                    finding: Finding { level, limit: None, note: None },
                    message,
                });
                self.parts.push_back(PartState { part: Arc::clone(&part), trouble });
                self.told.insert(part, said);
            }
            let rows = &self.rows;
            self.told.retain(|part, said| {
                said.is_some() || rows.contains_key(part.trim_start_matches(HELP)) || **part == *format!("{HELP}rest")
            });
        }
        self.parts.pop_front()
    }

    fn wanted(&self) -> BTreeMap<Arc<str>, (Level, Text)> {
        let rank = |row: &Row| NEEDS.iter().position(|(word, _)| *word == row.cell("need"));
        let waits = |row: &&Row| row.cell("state") == "new" && row.cell("need") != "safe";
        let mut waiting: Vec<&Row> = self.rows.values().filter(waits).collect();
        waiting.sort_by_key(|row| (rank(row), row.cell("at"), row.id()));
        let rest = waiting.split_off(waiting.len().min(MOST_NAMED));
        let level = |row: &Row| match row.cell("need") {
            "trapped" | "hurt" => Level::Orange,
            _ => Level::Yellow,
        };
        let mut wanted: BTreeMap<Arc<str>, (Level, Text)> = BTreeMap::new();
        for row in waiting {
            let place = Place { building: row.cell("building").to_owned(), ..Place::default() };
            let need = need_text(row.cell("need"));
            let message =
                Text { zh: format!("{}：{}", place.zh(), need.zh), en: format!("{}: {}", place.en(), need.en) };
            wanted.insert(part(row.id()), (level(row), message));
        }
        if let Some(gravest) = rest.iter().map(|row| level(row)).max() {
            let rest = rest.len();
            let message = Text {
                zh: format!("另有 {rest} 条居民求助未受理，见登记表"),
                en: format!("{rest} more calls for help have no answer; see the register"),
            };
            wanted.insert(part("rest"), (gravest, message));
        }
        wanted
    }

    /// How many wait for an answer and how many somebody sees to, within some places. Who is safe is in neither.
    pub fn calls(&self, within: &Places) -> HelpCalls {
        let asks = self.rows.values().filter(|row| row.cell("need") != "safe" && within.takes(&row.place()));
        asks.fold(HelpCalls::default(), |mut calls, row| {
            match row.cell("state") {
                "new" => calls.waiting += 1,
                "taken" => calls.taken += 1,
                _ => {}
            }
            calls
        })
    }

    /// What was kept long enough: who is safe, and what is done with. What nobody has answered stays.
    pub fn poll_gone(&mut self, now: Now) -> Vec<Change> {
        if self.look_at.is_some_and(|at| at > now.mono) {
            return Vec::new();
        }
        self.look_at = Some(now.mono.plus(LOOK_EVERY));
        let is_over = |row: &&Row| {
            let ended = row.cell("state") == "done" || row.cell("need") == "safe";
            ended && moment_of(row.cell("at"), &self.zone).is_none_or(|at| at.plus(self.kept) <= now.wall)
        };
        let gone: Vec<String> =
            self.rows.values().filter(is_over).map(|row| row.id().to_owned()).take(MOST_GONE).collect();
        let gone: Vec<Change> = gone.into_iter().map(|id| Change::Gone(Kind::Help, id)).collect();
        gone.iter().for_each(|change| self.handle_change(change));
        gone
    }
}

fn part(id: &str) -> Arc<str> {
    format!("{HELP}{id}").into()
}

#[cfg(test)]
mod tests {
    use anmin_sensors::time::Wall;

    use super::*;
    use crate::register::moment;

    fn row(id: &str, need: &str, state: &str) -> Row {
        let cells =
            [("id", id), ("need", need), ("state", state), ("building", "3"), ("room", "501"), ("phone", "110")];
        let cells = cells.into_iter().map(|(name, cell)| (name.to_owned(), cell.to_owned())).collect();
        Row::read(Kind::Help, &cells).expect("it is sound")
    }

    fn told(watch: &mut HelpWatch) -> Vec<(String, Option<(Level, String)>)> {
        let parts = std::iter::from_fn(|| watch.poll_part());
        let said = |state: PartState| {
            let trouble = state.trouble.map(|trouble| (trouble.finding.level, trouble.message.en));
            (state.part.to_string(), trouble)
        };
        parts.map(said).collect()
    }

    #[test]
    fn a_call_is_said_until_somebody_takes_it_on_and_names_no_home() {
        let mut watch = HelpWatch::new(TimeZone::UTC, Duration::from_secs(60), vec![row("a", "hurt", "taken")]);
        let over = |id: &str| (format!("help:{id}"), None);
        assert_eq!(told(&mut watch), [over("a"), over("rest")], "whatever the last run said");
        watch.handle_change(&Change::Row(row("b", "trapped", "new")));
        watch.handle_change(&Change::Row(row("c", "safe", "new")));
        let said = ("help:b".to_owned(), Some((Level::Orange, "Building 3: trapped".to_owned())));
        assert_eq!(told(&mut watch), [said, over("c")]);
        assert_eq!(told(&mut watch), [], "said once");
        watch.handle_change(&Change::Row(row("b", "trapped", "taken")));
        assert_eq!(told(&mut watch), [over("b")]);
    }

    #[test]
    fn calls_are_counted_within_the_places_of_who_asks_and_who_is_safe_is_none() {
        let rows = [("a", "hurt", "new"), ("b", "move", "taken"), ("c", "move", "done"), ("d", "safe", "new")];
        let rows = rows.map(|(id, need, state)| row(id, need, state)).to_vec();
        let watch = HelpWatch::new(TimeZone::UTC, Duration::from_secs(60), rows);
        assert_eq!(watch.calls(&Places::EVERYWHERE), HelpCalls { waiting: 1, taken: 1 });
        assert_eq!(watch.calls(&Places::of(["3".to_owned()])), HelpCalls { waiting: 1, taken: 1 });
        assert_eq!(watch.calls(&Places::of(["4".to_owned()])), HelpCalls::default());
    }

    #[test]
    fn a_flood_of_calls_is_ten_notices_and_one_more_and_the_gravest_are_named() {
        let mut watch = HelpWatch::new(TimeZone::UTC, Duration::from_secs(60), Vec::new());
        for n in 0..400 {
            watch.handle_change(&Change::Row(row(&format!("o{n}"), "other", "new")));
        }
        watch.handle_change(&Change::Row(row("z", "trapped", "new")));
        let said = told(&mut watch);
        let standing: Vec<_> = said.iter().filter_map(|(part, trouble)| Some((part, trouble.as_ref()?))).collect();
        assert_eq!(standing.len(), MOST_NAMED + 1, "{standing:?}");
        assert!(standing.iter().any(|(part, (level, _))| **part == "help:z" && *level == Level::Orange));
        let rest = standing.iter().find(|(part, _)| **part == "help:rest").expect("the rest is said");
        assert!(rest.1.1.starts_with("391 more"), "{rest:?}");
    }

    #[test]
    fn what_is_done_with_goes_after_its_time_and_what_nobody_answered_stays() {
        let start = Now { mono: Mono::from_nanos(1), wall: Wall::from_millis(1_800_000_000_000) };
        let at = moment(start.wall, &TimeZone::UTC);
        let rows = [("a", "hurt", "done"), ("b", "safe", "new"), ("c", "move", "new"), ("d", "move", "taken")];
        let rows = rows.map(|(id, need, state)| row(id, need, state).with("at", &at)).to_vec();
        let mut watch = HelpWatch::new(TimeZone::UTC, Duration::from_secs(86_400), rows);
        assert_eq!(watch.poll_gone(start.plus(Duration::from_secs(86_399))), []);
        let gone = watch.poll_gone(start.plus(Duration::from_secs(2 * 86_400)));
        assert_eq!(gone, ["a", "b"].map(|id| Change::Gone(Kind::Help, id.to_owned())));
        assert_eq!(watch.poll_gone(start.plus(Duration::from_secs(3 * 86_400))), []);
    }
}
