//! What differs between two sets of rules, in the words of those who set limits: which rules, and which numbers from what
//! to what.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::rule::{RuleId, RuleSpec};
use crate::set::{Override, RuleSet};

/// What a new set of rules changes. Empty lists: nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RulesChange {
    pub added: Vec<RuleId>,
    pub removed: Vec<RuleId>,
    /// Rules whose files are not what they were, or whose overrides stand in another order, by which the later wins.
    pub changed: Vec<RuleId>,
    /// Limits, delays and deadbands, of the rules' own files and of the site's overrides.
    pub numbers: Vec<NumberChange>,
}

impl RulesChange {
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty() && self.numbers.is_empty()
    }
}

/// One number that is another one.
#[derive(Clone, Debug, PartialEq)]
pub struct NumberChange {
    pub rule: RuleId,
    /// For whom, such as `device b3-*`; empty for all of the rule's subjects, by its own file.
    pub of: String,
    /// `limit.red`, `on_delay_s`, `off_delay_s`, `deadband`, `escalate_after_s`, `realarm_after_s`, or `enabled`, 1 or 0.
    pub name: String,
    /// `None`: there was none.
    pub from: Option<f64>,
    /// `None`: there is none any more.
    pub to: Option<f64>,
}

/// Numbers by rule, for whom, and name.
type Numbers = BTreeMap<(RuleId, String, String), f64>;

/// What becomes of `old` when `new` takes its place.
pub(crate) fn between(old: &RuleSet, new: &RuleSet) -> RulesChange {
    let mut change = RulesChange::default();
    for (rule, spec) in new.rules() {
        match old.find(&spec.id) {
            None => change.added.push(spec.id.clone()),
            Some(before) if old.source(before).is_as(new.source(rule)) => {}
            Some(_) => change.changed.push(spec.id.clone()),
        }
    }
    let gone = old.rules().filter(|(_, spec)| new.find(&spec.id).is_none());
    change.removed.extend(gone.map(|(_, spec)| spec.id.clone()));
    let (mut before, after) = (numbers(old), numbers(new));
    let of_both = |(id, ..): &(RuleId, String, String)| old.find(id).is_some() && new.find(id).is_some();
    for (key, to) in &after {
        let from = before.remove(key);
        if from != Some(*to) && (of_both(key) || !key.1.is_empty()) {
            change.numbers.push(NumberChange::of(key, from, Some(*to)));
        }
    }
    let gone = before.iter().filter(|(key, _)| of_both(key) || !key.1.is_empty());
    change.numbers.extend(gone.map(|(key, from)| NumberChange::of(key, Some(*from), None)));
    let in_order = |set: &RuleSet, id: &RuleId| -> Vec<(String, Vec<(String, f64)>)> {
        let of_rule = set.overrides().iter().filter(|over| over.rule == id.as_str());
        of_rule.map(|over| (over.whom(), of_override(over))).collect()
    };
    for (_, spec) in new.rules() {
        let id = &spec.id;
        let told = change.changed.contains(id) || change.numbers.iter().any(|number| number.rule == *id);
        if !told && in_order(old, id) != in_order(new, id) {
            change.changed.push(id.clone());
        }
    }
    change.numbers.sort_by(|a, b| (&a.rule, &a.of, &a.name).cmp(&(&b.rule, &b.of, &b.name)));
    change
}

impl NumberChange {
    fn of((rule, of, name): &(RuleId, String, String), from: Option<f64>, to: Option<f64>) -> Self {
        Self { rule: rule.clone(), of: of.clone(), name: name.clone(), from, to }
    }
}

fn numbers(set: &RuleSet) -> Numbers {
    let mut numbers = Numbers::new();
    for (_, spec) in set.rules() {
        for (name, number) in of_spec(spec) {
            numbers.insert((spec.id.clone(), String::new(), name), number);
        }
    }
    for over in set.overrides() {
        // Of two for the same subjects the later wins.
        for (name, number) in of_override(over) {
            numbers.insert((RuleId::new(over.rule.as_str()), over.whom(), name), number);
        }
    }
    numbers
}

fn of_spec(spec: &RuleSpec) -> Vec<(String, f64)> {
    let mut numbers = vec![
        ("on_delay_s".to_owned(), spec.on_delay.as_secs_f64()),
        ("off_delay_s".to_owned(), spec.off_delay.as_secs_f64()),
        ("deadband".to_owned(), spec.deadband),
    ];
    numbers.extend(spec.limits.iter().map(|(name, limit)| (format!("limit.{name}"), limit.value)));
    let times = [("escalate_after_s", spec.escalate_after), ("realarm_after_s", spec.realarm_after)];
    numbers.extend(times.into_iter().filter_map(|(name, time)| Some((name.to_owned(), time?.as_secs_f64()))));
    numbers
}

pub(crate) fn of_override(over: &Override) -> Vec<(String, f64)> {
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
    let mut numbers: Vec<(String, f64)> =
        over.limits.iter().map(|(name, value)| (format!("limit.{name}"), *value)).collect();
    let others = [
        ("on_delay_s", seconds(over.on_delay)),
        ("off_delay_s", seconds(over.off_delay)),
        ("deadband", over.deadband),
        ("escalate_after_s", seconds(over.escalate_after)),
        ("enabled", over.enabled.map(|enabled| f64::from(u8::from(enabled)))),
    ];
    numbers.extend(others.into_iter().filter_map(|(name, number)| Some((name.to_owned(), number?))));
    numbers
}

#[cfg(test)]
mod tests {
    use anmin_sensors::document::{Document, Faults};

    use super::*;
    use crate::set::RuleSource;

    fn set(rules: &[(&str, f64, &str)], overrides: &str) -> RuleSet {
        let source = |(name, limit, script): &(&str, f64, &str)| RuleSource {
            folder: "site".to_owned(),
            name: (*name).to_owned(),
            toml: format!(
                "title = {{ zh = \"试\", en = \"t\" }}\nmessage = {{ zh = \"试\", en = \"t\" }}\nadvice = {{ zh = \"试\", en = \"t\" }}\n\
                 [[input]]\nrole = \"gas\"\nkind = \"gas.lel\"\n[limit.red]\nvalue = {limit}\nunit = \"%LEL\"\nsource = \"test\"\n"
            ),
            script: format!("fn judge(gas) {{ {script} }}"),
        };
        let faults = Faults::default();
        let document = Document::parse("site.toml", overrides, &faults).expect("TOML");
        let root = document.root(&faults);
        let overrides = root.tables("override").iter().filter_map(Override::read).collect();
        let set = RuleSet::load(rules.iter().map(source).collect(), overrides, &faults);
        assert_eq!((set.broken(), faults.take()), (&[][..], vec![]));
        set
    }

    #[test]
    fn a_difference_names_rules_and_numbers_from_what_to_what() {
        let gas = "[[override]]\nrule = \"a/gas\"\ndevice = \"b3-*\"\n";
        let old =
            set(&[("a/gas", 10.0, "normal()"), ("a/old", 1.0, "normal()")], &format!("{gas}limit = {{ red = 8 }}\n"));
        let cases: [(RuleSet, &str); 5] = [
            (
                set(
                    &[("a/old", 1.0, "normal()"), ("a/gas", 10.0, "normal()")],
                    &format!("\n\n{gas}limit = {{ red = 8 }}\n"),
                ),
                "",
            ),
            (
                set(
                    &[("a/gas", 12.0, "normal()"), ("a/new", 1.0, "normal()")],
                    &format!("{gas}limit = {{ red = 8 }}\n"),
                ),
                "+a/new -a/old ~a/gas a/gas()limit.red Some(10.0) Some(12.0)",
            ),
            (
                set(&[("a/gas", 10.0, "red()"), ("a/old", 1.0, "normal()")], &format!("{gas}limit = {{ red = 8 }}\n")),
                "~a/gas",
            ),
            (
                set(
                    &[("a/gas", 10.0, "normal()"), ("a/old", 1.0, "normal()")],
                    &format!("{gas}limit = {{ red = 9 }}\nenabled = false\non_delay = \"1m\"\n"),
                ),
                "a/gas(device b3-*)enabled None Some(0.0) a/gas(device b3-*)limit.red Some(8.0) Some(9.0) \
                 a/gas(device b3-*)on_delay_s None Some(60.0)",
            ),
            (
                set(&[("a/gas", 10.0, "normal()"), ("a/old", 1.0, "normal()")], ""),
                "a/gas(device b3-*)limit.red Some(8.0) None",
            ),
        ];
        let two = |first: &str, second: &str| {
            let over = |device: &str, red: u32| {
                format!("[[override]]\nrule = \"a/gas\"\ndevice = \"{device}\"\nlimit = {{ red = {red} }}\n")
            };
            set(
                &[("a/gas", 10.0, "normal()")],
                &format!("{}{}", over(first, first.len() as u32), over(second, second.len() as u32)),
            )
        };
        let moved = two("b*", "*-gas").difference(&two("*-gas", "b*"));
        assert_eq!((moved.changed, moved.numbers), (vec![RuleId::new("a/gas")], vec![]), "the later wins");
        for (new, wanted) in cases {
            let change = old.difference(&new);
            let ids = |sign: &str, ids: &[RuleId]| ids.iter().map(|id| format!("{sign}{id}")).collect::<Vec<_>>();
            let mut said = [ids("+", &change.added), ids("-", &change.removed), ids("~", &change.changed)].concat();
            said.extend(
                change
                    .numbers
                    .iter()
                    .map(|NumberChange { rule, of, name, from, to }| format!("{rule}({of}){name} {from:?} {to:?}")),
            );
            assert_eq!(said.join(" "), wanted);
            assert_eq!(change.is_empty(), wanted.is_empty());
        }
    }
}
