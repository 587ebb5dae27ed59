//! `tuned.toml` beside the databases: numbers for rules that people have set at the duty desk.
//!
//! `[[override]]`s as in the site's own files, and read after them, so that among equals these win. One for each rule and
//! each of whom it is for. anmin writes the file whole and never the site's own files, which it need not be able to.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ring::digest::{SHA256, digest};
use toml::{Table, Value};

use super::files::Source;

pub const FILE: &str = "tuned.toml";

/// Whom an override may name, as the site's files do.
pub const SELECTORS: [&str; 5] = ["point", "device", "place", "profile", "kind"];

/// Longest delay that may be set here.
const MOST_SECONDS: f64 = 86_400.0;

/// Numbers for one rule, for all whom it judges or for those whom the selectors name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    pub rule: String,
    /// Of [`SELECTORS`].
    pub of: BTreeMap<String, String>,
    /// `limit.red`, `on_delay_s`, `off_delay_s`, `deadband`; `None` takes back what was set here.
    pub numbers: BTreeMap<String, Option<f64>>,
}

/// Where the databases of a site with these files lie.
pub fn storage(config: &[Source], base: &Path) -> PathBuf {
    let dir = config.iter().find_map(|source| {
        let table: Table = source.text.parse().ok()?;
        table.get("storage")?.get("dir")?.as_str().map(str::to_owned)
    });
    base.join(dir.as_deref().unwrap_or("data"))
}

/// The text that is kept; empty while nothing has been set.
pub fn read(storage: &Path) -> io::Result<String> {
    read_own(storage, FILE)
}

/// Puts another text in its place, whole or not at all.
pub fn write(storage: &Path, text: &str) -> io::Result<()> {
    write_own(storage, FILE, text)
}

/// A file beside the databases that anmin writes itself; empty while there is none.
pub(super) fn read_own(storage: &Path, file: &str) -> io::Result<String> {
    match fs::read_to_string(storage.join(file)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read,
    }
}

pub(super) fn write_own(storage: &Path, name: &str, text: &str) -> io::Result<()> {
    let (path, beside) = (storage.join(name), storage.join(format!("{name}.new")));
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, &path)?;
    File::open(storage)?.sync_all()
}

/// Tells one text from another.
pub fn version(text: &str) -> String {
    digest(&SHA256, text.as_bytes()).as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The text with a change in it, or why there is none. That rule and limits exist, only the whole site can tell.
pub fn changed(text: &str, change: &Change) -> Result<String, String> {
    let mut file: Table = text.parse().map_err(|error| format!("{FILE} cannot be read: {error}"))?;
    let mut overrides = match file.remove("override") {
        None => Vec::new(),
        Some(Value::Array(overrides)) => overrides,
        Some(_) => return Err(format!("{FILE} cannot be read: `override` is no list of tables")),
    };
    let is_it = |found: &Value| {
        let word = |key: &str| found.get(key).and_then(Value::as_str);
        word("rule") == Some(&change.rule)
            && SELECTORS.iter().all(|key| word(key) == change.of.get(*key).map(String::as_str))
    };
    let mut one = match overrides.iter().position(is_it) {
        Some(at) => overrides.remove(at),
        None => {
            let whom = change.of.iter().map(|(key, word)| (key.clone(), Value::from(word.as_str())));
            Value::Table(whom.chain([("rule".to_owned(), Value::from(change.rule.as_str()))]).collect())
        }
    };
    let Value::Table(table) = &mut one else { return Err(format!("{FILE} cannot be read: an override is no table")) };
    for (name, number) in &change.numbers {
        set(table, name, *number)?;
    }
    let says_something = table.keys().any(|key| key != "rule" && !SELECTORS.contains(&key.as_str()));
    if says_something {
        overrides.push(one);
    }
    let file = Table::from_iter([("override".to_owned(), Value::Array(overrides))]);
    let tables = toml::to_string(&file).map_err(|error| error.to_string())?;
    Ok(format!(
        "# 由值班台设定，安民会整个改写本文件 · set at the duty desk; anmin writes this file anew\n\n{}",
        if tables.trim() == "override = []" { "" } else { &tables }
    ))
}

fn set(table: &mut Table, name: &str, number: Option<f64>) -> Result<(), String> {
    let in_range = |range: std::ops::RangeInclusive<f64>| match number {
        Some(number) if !range.contains(&number) => {
            Err(format!("`{name}` is {number}, expected {} to {}", range.start(), range.end()))
        }
        _ => Ok(()),
    };
    let put = |table: &mut Table, key: &str, value: Option<Value>| match value {
        Some(value) => drop(table.insert(key.to_owned(), value)),
        None => drop(table.remove(key)),
    };
    match (name, name.strip_prefix("limit.")) {
        (_, Some(limit)) => {
            in_range(-1e9..=1e9)?;
            let limits = table.entry("limit").or_insert_with(|| Value::Table(Table::new()));
            let Value::Table(limits) = limits else {
                return Err(format!("{FILE} cannot be read: `limit` is no table"));
            };
            put(limits, limit, number.map(Value::Float));
            if limits.is_empty() {
                table.remove("limit");
            }
        }
        ("on_delay_s" | "off_delay_s", None) => {
            in_range(0.0..=MOST_SECONDS)?;
            let key = name.trim_end_matches("_s");
            put(table, key, number.map(|seconds| Value::from(format!("{}ms", (seconds * 1_000.0).round()))));
        }
        ("deadband", None) => {
            in_range(0.0..=1e9)?;
            put(table, name, number.map(Value::Float));
        }
        _ => return Err(format!("`{name}` is not one of limit.*, on_delay_s, off_delay_s, deadband")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(of: &[(&str, &str)], numbers: &[(&str, Option<f64>)]) -> Change {
        Change {
            rule: "gas/leak".to_owned(),
            of: of.iter().map(|(key, word)| ((*key).to_owned(), (*word).to_owned())).collect(),
            numbers: numbers.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect(),
        }
    }

    #[test]
    fn what_is_set_again_takes_the_place_of_what_was_set_for_the_same() {
        let all: &[(&str, &str)] = &[];
        let b3: &[(&str, &str)] = &[("device", "b3-*")];
        type Step<'s> = (&'s [(&'s str, &'s str)], &'s [(&'s str, Option<f64>)], &'s [&'s str]);
        let steps: [Step<'_>; 5] = [
            (all, &[("limit.red", Some(50.0))], &["rule = \"gas/leak\"", "red = 50.0"]),
            (b3, &[("limit.red", Some(40.0)), ("on_delay_s", Some(2.5))], &["red = 50.0", "red = 40.0", "\"2500ms\""]),
            (
                all,
                &[("limit.red", Some(45.0)), ("deadband", Some(1.0))],
                &["red = 45.0", "red = 40.0", "deadband = 1.0"],
            ),
            (b3, &[("limit.red", None), ("on_delay_s", None)], &["red = 45.0", "deadband"]),
            (all, &[("limit.red", None), ("deadband", None)], &[]),
        ];
        let mut text = String::new();
        for (of, numbers, expected) in steps {
            text = changed(&text, &change(of, numbers)).unwrap();
            assert_eq!(text.matches("[[override]]").count(), text.matches("rule =").count(), "{text}");
            assert!(expected.iter().all(|part| text.contains(part)), "{expected:?} in {text}");
            assert_eq!(text.contains("device"), expected.contains(&"red = 40.0"), "{text}");
        }
        assert!(!text.contains("override]]"), "{text}");
    }

    #[test]
    fn what_is_no_number_of_a_rule_is_refused() {
        for (name, number, expected) in [
            ("on_delay_s", -1.0, "`on_delay_s` is -1, expected 0 to 86400"),
            ("deadband", -0.5, "`deadband` is -0.5"),
            ("enabled", 0.0, "`enabled` is not one of"),
            ("limit.red", 1e12, "`limit.red` is 1000000000000"),
        ] {
            let refused = changed("", &change(&[], &[(name, Some(number))])).unwrap_err();
            assert!(refused.starts_with(expected), "{refused}");
        }
    }
}
