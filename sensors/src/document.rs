//! TOML text to fields, with every fault located.
//!
//! One parser for configuration, device profiles and rule files. It does not stop at the first fault: each one is
//! noted with source, line, column, the offending value and a hint, and the reader goes on. A key that nobody asked
//! for is a fault that names the nearest key that was asked for. It takes text, never paths.
//!
//! ```
//! use anmin_sensors::document::{Document, Faults};
//! let faults = Faults::default();
//! let doc = Document::parse("site.toml", "name = 'Spring'\nport = 'x'\n", &faults).unwrap();
//! let mut root = doc.root(&faults);
//! assert_eq!(root.required::<String>("name").unwrap(), "Spring");
//! assert_eq!(root.optional::<u16>("port"), None);
//! root.finish();
//! assert_eq!(faults.take()[0].to_string(), "site.toml:2:8: `port` is \"x\", expected a whole number from 0 to 65535");
//! ```

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeTable;
/// What [`FromToml`] is given.
pub use toml::de::DeValue;

/// One fault in one file: where, what, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// The file as the user named it.
    pub source: String,
    /// From 1; 0 where the fault has no place in the text.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What is wrong, with the offending value; lower case, no full stop.
    pub message: String,
    /// What to do, where we can tell.
    pub hint: Option<String>,
    /// Both in Chinese, of what is read at the duty desk, too; of what only whoever writes files reads there is none.
    pub zh: Option<String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            write!(f, "{}: {}", self.source, self.message)?;
        } else {
            write!(f, "{}:{}:{}: {}", self.source, self.line, self.column, self.message)?;
        }
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// Where all readers of one load note what they find.
#[derive(Debug, Default)]
pub struct Faults {
    found: RefCell<Vec<Fault>>,
    /// What works, and should be written otherwise.
    warnings: RefCell<Vec<Fault>>,
    asked: Option<RefCell<BTreeSet<Asked>>>,
    /// What was expected of each key, without the file; only where `asked` is.
    expected: RefCell<BTreeMap<String, Expected>>,
    /// How many tables of each name were read.
    tables: RefCell<BTreeMap<String, usize>>,
}

/// A file, and a key that a reader asked for in it.
pub type Asked = (String, String);

/// The form that a value must have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// Of more than one form.
    #[default]
    Any,
    Text,
    Flag,
    Number,
    /// A whole number.
    Whole,
    Duration,
    /// A list of values.
    List,
    Table,
    /// An array of tables.
    Tables,
}

/// What readers expect of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Several where a key may be written short or long.
    pub forms: BTreeSet<Form>,
    /// The words that it may be; none where any will do.
    pub words: BTreeSet<String>,
    /// Of so many tables it was required.
    required: usize,
}

impl Expected {
    fn in_form(&mut self, form: Form) {
        self.forms.insert(form);
    }
}

impl Faults {
    /// Also remembers every key that readers ask for, whether it is there or not: what a parser knows, for those who
    /// compare it with its documentation.
    pub fn recording() -> Self {
        Self { asked: Some(RefCell::default()), ..Self::default() }
    }

    /// What was asked for: `mqtt.mapping.topic`, without the numbers of array entries; `*` where any key will do.
    pub fn asked(&self) -> BTreeSet<Asked> {
        self.asked.as_ref().map(|asked| asked.borrow().clone()).unwrap_or_default()
    }

    /// What was expected of each key that was asked for, by names as in [`Faults::asked`], and whether every table of its kind
    /// must have it.
    pub fn expected(&self) -> BTreeMap<String, (Expected, bool)> {
        let tables = self.tables.borrow();
        let of_all = |key: &str, expected: &Expected| {
            let table = key.rsplit_once('.').map_or("", |(table, _)| table);
            expected.required > 0 && tables.get(table) == Some(&expected.required)
        };
        let expected = self.expected.borrow();
        expected.iter().map(|(key, expected)| (key.clone(), (expected.clone(), of_all(key, expected)))).collect()
    }

    pub fn note(&self, fault: Fault) {
        self.found.borrow_mut().push(fault);
    }

    pub fn warn(&self, warning: Fault) {
        self.warnings.borrow_mut().push(warning);
    }

    /// All warnings so far in the order of the text; leaves none behind. They keep nothing from starting.
    pub fn warnings(&self) -> Vec<Fault> {
        let mut warnings = self.warnings.take();
        warnings.sort();
        warnings.dedup();
        warnings
    }

    pub fn is_empty(&self) -> bool {
        self.found.borrow().is_empty()
    }

    pub fn len(&self) -> usize {
        self.found.borrow().len()
    }

    /// All faults so far in the order of the text; leaves none behind.
    pub fn take(&self) -> Vec<Fault> {
        let mut faults = self.found.take();
        faults.sort();
        faults.dedup();
        faults
    }
}

/// A parsed file that remembers where everything stood.
pub struct Document<'t> {
    source: String,
    text: &'t str,
    line_starts: Vec<usize>,
    root: DeTable<'t>,
}

impl<'t> Document<'t> {
    /// Parses TOML 1.1. A syntax error is noted in `faults` and gives `None`.
    pub fn parse(source: impl Into<String>, text: &'t str, faults: &Faults) -> Option<Self> {
        let source = source.into();
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        match DeTable::parse(text) {
            Ok(root) => Some(Self { source, text, line_starts, root: root.into_inner() }),
            Err(error) => {
                let place = Self { source, text, line_starts, root: DeTable::new() };
                let at = error.span().map_or(0, |span| span.start);
                let message = format!("not TOML: {}", error.message().replace('\n', "; "));
                faults.note(place.fault(at, message, None));
                None
            }
        }
    }

    pub fn root<'d>(&'d self, faults: &'d Faults) -> Reader<'d> {
        Reader::new(self, faults, &self.root, 0..0, String::new())
    }

    fn fault(&self, at: usize, message: String, hint: Option<String>) -> Fault {
        let line = self.line_starts.partition_point(|&start| start <= at).max(1);
        let start = self.line_starts[line - 1];
        let column = self.text.get(start..at).map_or(0, |before| before.chars().count()) + 1;
        Fault { source: self.source.clone(), line, column, message, hint, zh: None }
    }
}

/// Reads one table. Ask for each key once, then call [`Reader::finish`], which notes the keys nobody asked for.
pub struct Reader<'d> {
    doc: &'d Document<'d>,
    faults: &'d Faults,
    table: &'d DeTable<'d>,
    span: Range<usize>,
    path: String,
    asked: RefCell<Vec<&'static str>>,
    /// Keys that had another name, with that name.
    renamed: RefCell<Vec<(&'static str, &'static str)>>,
    faulty: Cell<bool>,
}

impl<'d> Reader<'d> {
    fn new(
        doc: &'d Document<'d>,
        faults: &'d Faults,
        table: &'d DeTable<'d>,
        span: Range<usize>,
        path: String,
    ) -> Self {
        if faults.asked.is_some() {
            *faults.tables.borrow_mut().entry(plain(&path)).or_default() += 1;
        }
        Self {
            doc,
            faults,
            table,
            span,
            path,
            asked: RefCell::default(),
            renamed: RefCell::default(),
            faulty: Cell::new(false),
        }
    }

    /// `None` when the key is absent or, with a fault noted, when its value is of the wrong form.
    pub fn optional<T: FromToml>(&self, key: &'static str) -> Option<T> {
        self.expect(key, |expected| expected.in_form(T::FORM));
        let (at, value) = self.value(key)?;
        match T::from_toml(value) {
            Ok(found) => Some(found),
            Err(wanted) => {
                self.fault_at(at, format!("`{}` is {}, expected {wanted}", self.name(key), show(value)), None);
                None
            }
        }
    }

    /// Like [`Reader::optional`]; a missing key is a fault.
    pub fn required<T: FromToml>(&self, key: &'static str) -> Option<T> {
        if self.must_have(key) { self.optional(key) } else { None }
    }

    fn must_have(&self, key: &'static str) -> bool {
        self.expect(key, |expected| expected.required += 1);
        let there = self.has(key);
        if !there {
            self.ask(key);
            self.fault_at(self.span.start, format!("`{}` is missing", self.name(key)), None);
        }
        there
    }

    /// `key` had the name `old` in an earlier version: what stands there is taken as if it stood at `key`, and a warning says
    /// the new name. Say it before anybody asks for `key`; the reference names only the new one.
    pub fn renamed(&self, old: &'static str, key: &'static str) {
        let Some(value) = self.table.get(old) else { return };
        let at = value.span();
        if self.table.contains_key(key) {
            let message = format!("`{}` is the old name of `{key}`, which is there, too", self.name(old));
            self.fault_at(at, message, Some(format!("remove `{old}`")));
        } else {
            let message = format!("`{}` is called `{key}` now", self.name(old));
            self.faults.warn(self.doc.fault(
                at.start,
                message,
                Some("it is taken as such; write the new name".to_owned()),
            ));
        }
        self.renamed.borrow_mut().push((old, key));
    }

    /// The value, or `default` when the key is absent or faulty.
    pub fn or<T: FromToml>(&self, key: &'static str, default: T) -> T {
        self.optional(key).unwrap_or(default)
    }

    /// One of a few words. The fault lists them and names the nearest.
    pub fn choice<T: Copy>(&self, key: &'static str, choices: &[(&'static str, T)]) -> Option<T> {
        self.suggest(key, choices.iter().map(|(word, _)| *word));
        let word: String = self.optional(key)?;
        if let Some((_, found)) = choices.iter().find(|(name, _)| *name == word) {
            return Some(*found);
        }
        let words: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        self.fault(
            key,
            format!("`{}` is {word:?}, expected one of {}", self.name(key), words.join(", ")),
            did_you_mean(&word, words.iter().copied()),
        );
        None
    }

    /// Says which words a text may be, where the caller itself looks whether it is one.
    pub fn suggest<'w>(&self, key: &'static str, words: impl Iterator<Item = &'w str>) {
        self.expect(key, |expected| expected.words.extend(words.map(str::to_owned)));
    }

    /// Says that a key may be written in this form, too, where it depends on the file which one is asked for.
    pub fn takes(&self, key: &'static str, form: Form) {
        self.expect(key, |expected| expected.in_form(form));
    }

    /// Like [`Reader::table`]; a missing one is a fault.
    pub fn required_table(&self, key: &'static str) -> Option<Reader<'d>> {
        if self.must_have(key) { self.table(key) } else { None }
    }

    /// A sub-table, written `[key]` or inline.
    pub fn table(&self, key: &'static str) -> Option<Reader<'d>> {
        self.expect(key, |expected| expected.in_form(Form::Table));
        let (at, value) = self.value(key)?;
        match value {
            DeValue::Table(table) => Some(Reader::new(self.doc, self.faults, table, at, self.name(key))),
            other => {
                self.fault_at(at.start, format!("`{}` is {}, expected a table", self.name(key), show(other)), None);
                None
            }
        }
    }

    /// An array of tables, written `[[key]]` or inline; a single table counts as one.
    pub fn tables(&self, key: &'static str) -> Vec<Reader<'d>> {
        self.expect(key, |expected| expected.in_form(Form::Tables));
        let Some((at, value)) = self.value(key) else { return Vec::new() };
        let entry = |span: Range<usize>, value: &'d DeValue<'d>, path: String| match value {
            DeValue::Table(table) => Some(Reader::new(self.doc, self.faults, table, span, path)),
            other => {
                self.fault_at(span.start, format!("`{path}` is {}, expected a table", show(other)), None);
                None
            }
        };
        match value {
            DeValue::Array(array) => array
                .iter()
                .enumerate()
                .filter_map(|(n, item)| entry(item.span(), item.get_ref(), format!("{}[{n}]", self.name(key))))
                .collect(),
            other => entry(at, other, self.name(key)).into_iter().collect(),
        }
    }

    /// All entries of this table, for tables whose keys are the user's own names. Every key then counts as asked for.
    pub fn entries(&self) -> Vec<(&'d str, Reader<'d>)> {
        self.expect("*", |expected| expected.in_form(Form::Table));
        self.keys()
            .into_iter()
            .filter_map(|(key, value)| match value.get_ref() {
                DeValue::Table(table) => {
                    Some((key, Reader::new(self.doc, self.faults, table, value.span(), self.name(key))))
                }
                other => {
                    self.fault_at(
                        value.span().start,
                        format!("`{}` is {}, expected a table", self.name(key), show(other)),
                        None,
                    );
                    None
                }
            })
            .collect()
    }

    /// All entries as plain values, for tables whose keys are the user's own names.
    pub fn values<T: FromToml>(&self) -> Vec<(&'d str, T)> {
        self.expect("*", |expected| expected.in_form(T::FORM));
        self.keys()
            .into_iter()
            .filter_map(|(key, value)| match T::from_toml(value.get_ref()) {
                Ok(found) => Some((key, found)),
                Err(wanted) => {
                    self.fault_at(
                        value.span().start,
                        format!("`{}` is {}, expected {wanted}", self.name(key), show(value.get_ref())),
                        None,
                    );
                    None
                }
            })
            .collect()
    }

    fn keys(&self) -> Vec<(&'d str, &'d Spanned<DeValue<'d>>)> {
        self.ask("*");
        self.table.iter().map(|(key, value)| (key.get_ref().as_ref(), value)).collect()
    }

    pub fn has(&self, key: &str) -> bool {
        self.find(key).is_some()
    }

    /// Whether the value of `key` is a table; lets a key be written short or long.
    pub fn is_table(&self, key: &str) -> bool {
        self.find(key).is_some_and(|value| matches!(value.get_ref(), DeValue::Table(_)))
    }

    /// Notes a fault at the value of `key` (at the table when it has none).
    pub fn fault(&self, key: &str, message: impl Into<String>, hint: Option<String>) {
        let at = self.find(key).map_or(self.span.start, |value| value.span().start);
        self.fault_at(at, message.into(), hint);
    }

    /// Notes what keeps nothing from starting, in a file that this text names.
    pub fn warn(&self, warning: Fault) {
        self.faults.warn(warning);
    }

    /// The place of `key` as a fault without words, to be filled in later when other files are known.
    pub fn place(&self, key: &str) -> Fault {
        let at = self.find(key).map_or(self.span.start, |value| value.span().start);
        self.doc.fault(at, String::new(), None)
    }

    /// Whether this table has had a fault of its own.
    pub fn is_faulty(&self) -> bool {
        self.faulty.get()
    }

    /// Notes every key that nobody asked for, with the nearest that somebody did.
    pub fn finish(&self) {
        let asked = self.asked.borrow();
        if asked.contains(&"*") {
            return;
        }
        for (key, _) in self.table.iter() {
            let name: &str = key.get_ref();
            if !asked.contains(&name) && !self.renamed.borrow().iter().any(|(old, _)| *old == name) {
                let hint = did_you_mean(name, asked.iter().copied())
                    .or_else(|| Some(format!("known here: {}", asked.join(", "))));
                self.fault_at(key.span().start, format!("`{}` is not a known key", self.name(name)), hint);
            }
        }
    }

    /// Where `key` stands, under its own name or an old one.
    fn find(&self, key: &str) -> Option<&'d Spanned<DeValue<'d>>> {
        let old = || {
            let renamed = self.renamed.borrow();
            renamed.iter().find(|(_, new)| *new == key).and_then(|(old, _)| self.table.get(*old))
        };
        self.table.get(key).or_else(old)
    }

    fn value(&self, key: &'static str) -> Option<(Range<usize>, &'d DeValue<'d>)> {
        self.ask(key);
        self.find(key).map(|value| (value.span(), value.get_ref()))
    }

    fn ask(&self, key: &'static str) {
        self.asked.borrow_mut().push(key);
        if let Some(asked) = &self.faults.asked {
            asked.borrow_mut().insert((self.doc.source.clone(), plain(&self.name(key))));
        }
    }

    /// Remembers what is expected of a key, where somebody wants it.
    fn expect(&self, key: &'static str, expect: impl FnOnce(&mut Expected)) {
        if self.faults.asked.is_some() {
            expect(self.faults.expected.borrow_mut().entry(plain(&self.name(key))).or_default());
        }
    }

    fn fault_at(&self, at: impl Into<At>, message: String, hint: Option<String>) {
        self.faulty.set(true);
        self.faults.note(self.doc.fault(at.into().0, message, hint));
    }

    fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

/// A key's path without the numbers of array entries.
fn plain(path: &str) -> String {
    path.split('[').map(|part| part.split_once(']').map_or(part, |(_, rest)| rest)).collect()
}

struct At(usize);

impl From<usize> for At {
    fn from(at: usize) -> Self {
        Self(at)
    }
}

impl From<Range<usize>> for At {
    fn from(span: Range<usize>) -> Self {
        Self(span.start)
    }
}

/// A Rust value that can stand in a file. The error says what was expected, to follow "expected ".
pub trait FromToml: Sized {
    const FORM: Form = Form::Any;

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String>;
}

impl FromToml for String {
    const FORM: Form = Form::Text;

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        value.as_str().map(str::to_owned).ok_or_else(|| "text in quotes".to_owned())
    }
}

impl FromToml for bool {
    const FORM: Form = Form::Flag;

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        value.as_bool().ok_or_else(|| "true or false".to_owned())
    }
}

impl FromToml for f64 {
    const FORM: Form = Form::Number;

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let number = match value {
            DeValue::Integer(_) => integer(value).map(|whole| whole as f64),
            DeValue::Float(float) => float.as_str().replace('_', "").parse::<f64>().ok(),
            _ => None,
        };
        number.filter(|number| number.is_finite()).ok_or_else(|| "a finite number".to_owned())
    }
}

macro_rules! whole_numbers {
    ($($kind:ty),*) => {$(
        impl FromToml for $kind {
            const FORM: Form = Form::Whole;

            fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
                integer(value)
                    .and_then(|whole| <$kind>::try_from(whole).ok())
                    .ok_or_else(|| format!("a whole number from {} to {}", <$kind>::MIN, <$kind>::MAX))
            }
        }
    )*};
}
whole_numbers!(u8, u16, u32, u64, i64, usize);

fn integer(value: &DeValue<'_>) -> Option<i128> {
    match value {
        DeValue::Integer(whole) => i128::from_str_radix(&whole.as_str().replace('_', ""), whole.radix()).ok(),
        _ => None,
    }
}

impl FromToml for Duration {
    const FORM: Form = Form::Duration;

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        value
            .as_str()
            .and_then(parse_duration)
            .ok_or_else(|| "a duration such as \"500ms\", \"30s\", \"5m\", \"25h\" or \"30d\"".to_owned())
    }
}

/// A size in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl FromToml for ByteSize {
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        value
            .as_str()
            .and_then(parse_size)
            .map(ByteSize)
            .ok_or_else(|| "a size such as \"64KiB\", \"512MiB\" or \"2GiB\"".to_owned())
    }
}

impl<T: FromToml> FromToml for Vec<T> {
    const FORM: Form = Form::List;

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        match value {
            DeValue::Array(array) => array
                .iter()
                .map(|item| T::from_toml(item.get_ref()))
                .collect::<Result<_, _>>()
                .map_err(|wanted| format!("a list, each of it {wanted}")),
            _ => Err("a list in [ ]".to_owned()),
        }
    }
}

/// `500ms`, `30s`, `5m`, `25h`, `30d`, and sums such as `1h30m`. A bare number has no unit and is refused.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    let mut total = 0.0_f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        total += number
            * match &rest[..letters] {
                "us" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3_600.0,
                "d" => 86_400.0,
                _ => return None,
            };
        rest = rest[letters..].trim_start();
    }
    Duration::try_from_secs_f64(total).ok()
}

/// `300B`, `64KiB`, `512MiB`, `2GiB`.
fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..digits].parse().ok()?;
    let unit: u64 = match text[digits..].trim() {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return None,
    };
    number.checked_mul(unit)
}

/// "did you mean `x`?" with the nearest of the known words, if one is near enough.
pub fn did_you_mean<'w>(word: &str, known: impl IntoIterator<Item = &'w str>) -> Option<String> {
    nearest(word, known).map(|candidate| format!("did you mean `{candidate}`?"))
}

/// The nearest of the known words, if one is near enough.
pub fn nearest<'w>(word: &str, known: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    known
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(far, candidate)| *far <= (candidate.chars().count().max(3)) / 3)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Edit distance, a swap of neighbours counting one.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let mut best = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + usize::from(a[i - 1] != b[j - 1]));
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

/// The offending value, short enough for one line.
fn show(value: &DeValue<'_>) -> String {
    let text = match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(whole) => whole.as_str().to_owned(),
        DeValue::Float(float) => float.as_str().to_owned(),
        DeValue::Boolean(yes) => yes.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    };
    if text.chars().count() > 60 { format!("{}…", text.chars().take(60).collect::<String>()) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults_of(text: &str, read: impl Fn(&Reader<'_>)) -> Vec<String> {
        let faults = Faults::default();
        if let Some(doc) = Document::parse("t.toml", text, &faults) {
            let root = doc.root(&faults);
            read(&root);
            root.finish();
        }
        faults.take().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_fault_is_reported_with_its_place() {
        let text = "[a]\nwait = 5\nnmae = 'x'\nkind = 'gsa'\n";
        let found = faults_of(text, |root| {
            let a = root.table("a").expect("there is a table a");
            a.optional::<Duration>("wait");
            a.required::<String>("name");
            a.choice("kind", &[("gas", 1), ("smoke", 2)]);
            a.finish();
        });
        assert_eq!(
            found,
            [
                "t.toml:1:1: `a.name` is missing",
                "t.toml:2:8: `a.wait` is 5, expected a duration such as \"500ms\", \"30s\", \"5m\", \"25h\" or \"30d\"",
                "t.toml:3:1: `a.nmae` is not a known key\n  hint: did you mean `name`?",
                "t.toml:4:8: `a.kind` is \"gsa\", expected one of gas, smoke\n  hint: did you mean `gas`?",
            ]
        );
    }

    #[test]
    fn a_syntax_error_has_a_place_too() {
        let found = faults_of("a = 1\nb = = 2\n", |_| ());
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("t.toml:2:"), "{found:?}");
    }

    #[test]
    fn what_was_asked_for_is_remembered_where_somebody_wants_it() {
        let faults = Faults::recording();
        let doc =
            Document::parse("t.toml", "[[a]]\n[[a.b]]\nx = 1\n[[a]]\ny = 2\n[own]\nk = 'v'\n", &faults).expect("TOML");
        let root = doc.root(&faults);
        for a in root.tables("a") {
            a.optional::<u8>("y");
            for b in a.tables("b") {
                b.required::<u8>("x");
            }
        }
        root.table("own").map(|own| own.values::<String>());
        root.has("only looked at");
        let asked: Vec<String> = faults.asked().into_iter().map(|(file, key)| format!("{file}: {key}")).collect();
        assert_eq!(asked, ["a", "a.b", "a.b.x", "a.y", "own", "own.*"].map(|key| format!("t.toml: {key}")));
        assert!(faults.is_empty() && Faults::default().asked().is_empty());
    }

    #[test]
    fn what_is_expected_of_a_key_is_remembered_where_somebody_wants_it() {
        let faults = Faults::recording();
        let text = "[a]\nx = 1\n[[b]]\ny = 'gas'\nz = '5s'\n[[b]]\nz = '6s'\n";
        let doc = Document::parse("t.toml", text, &faults).expect("TOML");
        let root = doc.root(&faults);
        root.required_table("a").map(|a| a.required::<f64>("x"));
        for b in root.tables("b") {
            b.required::<Duration>("z");
            if b.has("y") {
                b.required::<String>("y");
                b.choice("y", &[("gas", 1), ("smoke", 2)]);
            }
        }
        let found: Vec<_> = faults
            .expected()
            .into_iter()
            .map(|(key, (expected, all))| (key, expected.forms, expected.words.len(), all))
            .collect();
        let wanted = [
            ("a", Form::Table, 0, true),
            ("a.x", Form::Number, 0, true),
            ("b", Form::Tables, 0, false),
            // One of the two need not have it.
            ("b.y", Form::Text, 2, false),
            ("b.z", Form::Duration, 0, true),
        ];
        assert_eq!(found, wanted.map(|(key, form, words, all)| (key.to_owned(), BTreeSet::from([form]), words, all)));
    }

    #[test]
    fn an_old_name_is_taken_and_the_new_one_said() {
        let read = |text: &str| {
            let faults = Faults::default();
            let doc = Document::parse("t.toml", text, &faults).expect("it is TOML");
            let root = doc.root(&faults);
            root.renamed("wait", "on_delay");
            let wait = root.required::<Duration>("on_delay");
            root.finish();
            let lines = |found: Vec<Fault>| found.iter().map(ToString::to_string).collect::<Vec<_>>();
            (wait, lines(faults.warnings()), lines(faults.take()))
        };
        let two = Some(Duration::from_secs(2));
        assert_eq!(read("on_delay = '2s'"), (two, vec![], vec![]));
        let warning = "t.toml:1:8: `wait` is called `on_delay` now\n  hint: it is taken as such; write the new name";
        assert_eq!(read("wait = '2s'"), (two, vec![warning.to_owned()], vec![]));
        let fault = "t.toml:1:8: `wait` is the old name of `on_delay`, which is there, too\n  hint: remove `wait`";
        assert_eq!(read("wait = '9s'\non_delay = '2s'"), (two, vec![], vec![fault.to_owned()]));
        let (wait, warnings, faults) = read("wait = 5");
        assert_eq!((wait, warnings.len(), faults.len()), (None, 1, 1), "a fault in it is at its place");
        assert!(faults[0].starts_with("t.toml:1:8: "), "{faults:?}");
    }

    #[test]
    fn durations_carry_their_unit() {
        for (text, wanted) in [
            ("500ms", Some(Duration::from_millis(500))),
            ("1h30m", Some(Duration::from_secs(5_400))),
            ("1.5s", Some(Duration::from_millis(1_500))),
            ("30d", Some(Duration::from_secs(2_592_000))),
            ("5", None),
            ("", None),
            ("5 parsecs", None),
            ("-5s", None),
        ] {
            assert_eq!(parse_duration(text), wanted, "{text}");
        }
    }

    #[test]
    fn columns_count_characters_not_bytes() {
        let found = faults_of("名 = 1\n", |_| ());
        assert!(found[0].starts_with("t.toml:1:"), "{found:?}");
    }
}
