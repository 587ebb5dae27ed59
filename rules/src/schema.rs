//! JSON schemas of TOML files, for editors, made by the readers that read them: what a reader asks for is in it, and
//! nothing else. The form is draft 7, which editors of TOML know.
//!
//! That of a rule's `.toml` is made here: one specimen takes the reader through all that it can ask for, and what it
//! expected of each key is the schema.

use std::collections::BTreeMap;
use std::fmt::Write;

use anmin_sensors::document::{Expected, Faults, Form};

use crate::cases;
use crate::set::RuleSource;

/// Where the schema stands beside a site's rules.
pub const FILE: &str = "rule.schema.json";

/// Every table, and every key that only some of them have.
const SPECIMEN: &str = r#"
title = { zh = "试", en = "t" }
message = { zh = "试", en = "t" }
advice = { zh = "试", en = "t" }
[[input]]
role = "gas"
kind = "gas.lel"
[[window]]
name = "sum"
input = "gas"
over = "1h"
[[window]]
name = "mean"
measure = "mean"
input = "gas"
over = "1h"
[[window]]
name = "count"
measure = "count"
input = "gas"
over = "1h"
limit = "red"
[[window]]
name = "time"
measure = "time_above"
input = "gas"
over = "1h"
limit = "red"
[[window]]
name = "difference"
measure = "difference"
input = "gas"
minus = "mean"
[limit.red]
value = 1.0
unit = "%LEL"
source = "test"
[limit.orange]
value = 0.5
unit = "%LEL"
source = { zh = "试", en = "test" }
[[case]]
name = "one"
steps = [{ at = "0s", gas = 1.0, expect = "red" }]
"#;

/// The whole schema, for `rules/rule.schema.json`.
pub fn schema() -> String {
    let faults = Faults::recording();
    let source = RuleSource {
        folder: String::new(),
        name: "schema/specimen".to_owned(),
        toml: SPECIMEN.to_owned(),
        script: String::new(),
    };
    // Whether it is sound the test says.
    let _ = source.read(&faults);
    // The names of limits are the rule's own.
    let keys = faults.expected().into_iter().map(|(key, expected)| match key.strip_prefix("limit.") {
        Some(name) => (format!("limit.*{}", name.find('.').map_or("", |dot| &name[dot..])), expected),
        None => (key, expected),
    });
    document("A rule of anmin", keys)
}

/// The schema of a file of which readers have expected this: keys as [`Faults::expected`] names them, and whether they
/// must be there.
pub fn document(title: &str, keys: impl Iterator<Item = (String, (Expected, bool))>) -> String {
    let mut root = Node::default();
    for (key, (expected, required)) in keys {
        root.put(key.split('.'), expected, required);
    }
    let mut out = String::from("{\n  \"$schema\": \"http://json-schema.org/draft-07/schema#\",\n");
    out.push_str(&format!("  \"title\": {title:?},\n"));
    root.write_table(&mut out, 2);
    out.push_str("}\n");
    out
}

/// One key, and what is below it.
#[derive(Default)]
struct Node {
    expected: Expected,
    required: bool,
    below: BTreeMap<String, Node>,
}

impl Node {
    fn put<'p>(&mut self, mut path: impl Iterator<Item = &'p str>, expected: Expected, required: bool) {
        match path.next() {
            Some(part) => self.below.entry(part.to_owned()).or_default().put(path, expected, required),
            None => {
                // Keys of the user's own naming come together here.
                let first = self.expected.forms.is_empty();
                self.required = required && (first || self.required);
                self.expected.forms.extend(expected.forms);
                self.expected.words.extend(expected.words);
            }
        }
    }

    fn is_anything(&self) -> bool {
        self.below.is_empty() && self.expected.forms.iter().all(|form| *form == Form::Any)
    }

    /// What it says of the key, without the braces around it.
    fn write(&self, out: &mut String, indent: usize) {
        let forms: Vec<Form> = self.expected.forms.iter().copied().collect();
        match forms[..] {
            [] => self.write_as(Form::Any, out, indent),
            [form] => self.write_as(form, out, indent),
            _ => {
                let gap = " ".repeat(indent);
                out.push_str(&format!("{gap}\"anyOf\": ["));
                for (n, form) in forms.into_iter().enumerate() {
                    out.push_str(if n == 0 { "\n" } else { ",\n" });
                    out.push_str(&format!("{gap}  {{\n"));
                    self.write_as(form, out, indent + 4);
                    out.push_str(&format!("{gap}  }}"));
                }
                out.push_str(&format!("\n{gap}]\n"));
            }
        }
    }

    fn write_as(&self, form: Form, out: &mut String, indent: usize) {
        let gap = " ".repeat(indent);
        // Writing into a text does not fail.
        let _ = match form {
            Form::Any if self.below.is_empty() => return,
            Form::Text if !self.expected.words.is_empty() => {
                let words = self.expected.words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ");
                writeln!(out, "{gap}\"enum\": [{words}]")
            }
            Form::Text => writeln!(out, "{gap}\"type\": \"string\""),
            Form::Flag => writeln!(out, "{gap}\"type\": \"boolean\""),
            Form::Number => writeln!(out, "{gap}\"type\": \"number\""),
            Form::Whole => writeln!(out, "{gap}\"type\": \"integer\""),
            Form::List => writeln!(out, "{gap}\"type\": \"array\""),
            Form::Duration => {
                writeln!(out, "{gap}\"type\": \"string\",\n{gap}\"pattern\": \"^([0-9.]+(us|ms|s|m|h|d) *)+$\"")
            }
            Form::Tables => {
                let _ = writeln!(out, "{gap}\"type\": \"array\",\n{gap}\"items\": {{");
                self.write_table(out, indent + 2);
                writeln!(out, "{gap}}}")
            }
            Form::Any | Form::Table => return self.write_table(out, indent),
        };
    }

    fn write_table(&self, out: &mut String, indent: usize) {
        let gap = " ".repeat(indent);
        if self.below.is_empty() {
            let _ = writeln!(out, "{gap}\"type\": \"object\"");
            return;
        }
        let _ = write!(out, "{gap}\"type\": \"object\",\n{gap}\"additionalProperties\": ");
        match self.below.get("*") {
            Some(any) if any.is_anything() => out.push_str("true"),
            Some(any) => {
                out.push_str("{\n");
                any.write(out, indent + 2);
                let _ = write!(out, "{gap}}}");
            }
            None => out.push_str("false"),
        }
        let named: Vec<(&String, &Node)> = self.below.iter().filter(|(name, _)| *name != "*").collect();
        let required: Vec<String> =
            named.iter().filter(|(_, node)| node.required).map(|(name, _)| format!("{name:?}")).collect();
        if !required.is_empty() {
            let _ = write!(out, ",\n{gap}\"required\": [{}]", required.join(", "));
        }
        // Steps have keys of their own beside the inputs' roles.
        let is_step = self.below.get("*").is_some_and(Node::is_anything);
        let _ = write!(out, ",\n{gap}\"properties\": {{");
        let mut first = true;
        let mut open = |out: &mut String, name: &str| {
            let comma = if std::mem::replace(&mut first, false) { "" } else { "," };
            let _ = write!(out, "{comma}\n{gap}  {name:?}: {{");
        };
        for (name, node) in named {
            open(out, name);
            out.push('\n');
            node.write(out, indent + 4);
            let _ = write!(out, "{gap}  }}");
        }
        for (name, what) in cases::KEYS.iter().filter(|_| is_step) {
            open(out, name);
            let _ = write!(out, " \"description\": {what:?} }}");
        }
        let _ = writeln!(out, "\n{gap}}}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library;

    #[test]
    fn the_schema_is_what_the_reader_reads() {
        let (written, made) = (include_str!("../rule.schema.json"), schema());
        assert!(
            made == written,
            "rules/rule.schema.json is out of date; make it anew by cargo run -p anmin-rules --example schema > rules/rule.schema.json"
        );
    }

    /// All that the reader asks of any shipped rule it has asked of the specimen, so that the schema lacks nothing.
    #[test]
    fn the_specimen_takes_the_reader_everywhere() {
        let asked = |source: &RuleSource| {
            let faults = Faults::recording();
            assert!(source.read(&faults).is_some(), "{}: {:?}", source.name, faults.take());
            let own = |key: &str| match key.strip_prefix("limit.").and_then(|rest| rest.split_once('.')) {
                Some((_, rest)) => format!("limit.*.{rest}"),
                None => key.to_owned(),
            };
            faults.expected().keys().map(|key| own(key)).collect::<std::collections::BTreeSet<_>>()
        };
        let specimen = RuleSource {
            folder: String::new(),
            name: "schema/specimen".to_owned(),
            toml: SPECIMEN.to_owned(),
            script: String::new(),
        };
        let known = asked(&specimen);
        for shipped in library::shipped() {
            let missing: Vec<String> = asked(&shipped).difference(&known).cloned().collect();
            assert!(missing.is_empty(), "{}: {missing:?}", shipped.name);
        }
        assert!(known.len() > 40, "{known:?}");
    }
}
