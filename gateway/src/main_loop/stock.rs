//! What of the stock there is too little of, and what is past its date: a system notice for each item.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use anmin_rules::rule::{Finding, Level, Text};
use anmin_sensors::time::{Mono, Now};
use jiff::tz::TimeZone;

use super::{PartState, PartTrouble};
use crate::register::{Kind, Row, day, shortage};
use crate::store::registers::Change;

/// How often the date is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(600);
/// Items that are named one by one: a sheet that is past its date as a whole is one matter and not a thousand.
const MOST_NAMED: usize = 50;

/// The items, and what was said of each in this run.
#[derive(Debug)]
pub struct StockWatch {
    zone: TimeZone,
    items: BTreeMap<String, (Row, Option<Option<Text>>)>,
    look_at: Option<Mono>,
    /// How many more were said to be short.
    rest: Option<usize>,
    parts: VecDeque<PartState>,
}

impl StockWatch {
    pub fn new(zone: TimeZone, rows: Vec<Row>) -> Self {
        let items = rows.into_iter().map(|row| (row.id().to_owned(), (row, None))).collect();
        Self { zone, items, look_at: None, rest: Some(0), parts: VecDeque::new() }
    }

    /// A row of any register has changed.
    pub fn handle_change(&mut self, change: &Change) {
        match change {
            Change::Row(row) if row.kind == Kind::Stock => {
                let told = self.items.remove(row.id()).and_then(|(_, told)| told);
                self.items.insert(row.id().to_owned(), (row.clone(), told));
            }
            Change::Gone(Kind::Stock, id) => {
                if self.items.remove(id).is_some() {
                    self.parts.push_back(PartState { part: part(id), trouble: None });
                }
            }
            _ => return,
        }
        self.look_at = None;
    }

    /// What has become short, or is so no longer.
    pub fn poll_part(&mut self, now: Now) -> Option<PartState> {
        if self.look_at.is_none_or(|at| at <= now.mono) {
            self.look_at = Some(now.mono.plus(LOOK_EVERY));
            let today = day(now.wall, &self.zone);
            let mut named = 0;
            for (id, (row, told)) in &mut self.items {
                let mut short = shortage(row, today);
                named += usize::from(short.is_some());
                if named > MOST_NAMED {
                    short = None;
                }
                // What the last run has said may be over: each is said once.
                if told.as_ref() != Some(&short) {
                    *told = Some(short.clone());
                    let finding = Finding { level: Level::Blue, limit: None, note: None };
                    let trouble = short.map(|message| PartTrouble { finding, message });
                    self.parts.push_back(PartState { part: part(id), trouble });
                }
            }
            let rest = named.saturating_sub(MOST_NAMED);
            if self.rest.replace(rest) != Some(rest) {
                let finding = Finding { level: Level::Blue, limit: None, note: None };
                let message = Text {
                    zh: format!("另有 {rest} 项物资不足或过期，见登记表"),
                    en: format!("{rest} more items of the stock are low or past their date; see the register"),
                };
                let trouble = (rest > 0).then_some(PartTrouble { finding, message });
                self.parts.push_back(PartState { part: Arc::from("stock"), trouble });
            }
        }
        self.parts.pop_front()
    }
}

fn part(id: &str) -> Arc<str> {
    format!("stock:{id}").into()
}

#[cfg(test)]
mod tests {
    use anmin_sensors::time::Wall;

    use super::*;

    fn row(id: &str, quantity: &str, expires: &str) -> Row {
        let cells = [("id", id), ("name", "毯"), ("quantity", quantity), ("minimum", "5"), ("expires", expires)];
        let cells = cells.into_iter().map(|(name, cell)| (name.to_owned(), cell.to_owned())).collect();
        Row::read(Kind::Stock, &cells).expect("it is sound")
    }

    #[test]
    fn an_item_is_said_to_be_short_until_it_is_not_or_is_gone() {
        let at = |hours: u64| {
            // 2027-01-15T08:00:00Z, which is 16:00 in Shanghai.
            let start = Now { mono: Mono::from_nanos(1), wall: Wall::from_millis(1_800_000_000_000) };
            start.plus(Duration::from_secs(hours * 3_600))
        };
        let zone = TimeZone::fixed(jiff::tz::offset(8));
        let mut watch = StockWatch::new(zone, vec![row("a", "3", ""), row("b", "9", "2027-01-15")]);
        let told = |watch: &mut StockWatch, hours| {
            let parts = std::iter::from_fn(|| watch.poll_part(at(hours)));
            parts.map(|said| (said.part.to_string(), said.trouble.is_some())).collect::<Vec<_>>()
        };
        let [a, b] = ["stock:a", "stock:b"].map(str::to_owned);
        assert_eq!(told(&mut watch, 0), [(a.clone(), true), (b.clone(), false)], "whatever the last run said");
        assert_eq!(told(&mut watch, 7), [], "said once");
        assert_eq!(told(&mut watch, 8), [(b.clone(), true)], "midnight in Shanghai");
        watch.handle_change(&Change::Row(row("a", "8", "")));
        assert_eq!(told(&mut watch, 8), [(a, false)]);
        watch.handle_change(&Change::Gone(Kind::Stock, "b".to_owned()));
        assert_eq!(told(&mut watch, 9), [(b, false)]);
    }
}
