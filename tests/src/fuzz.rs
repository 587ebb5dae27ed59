//! Everything that reads what comes from outside, as targets for fuzzing: each with what it is fed to begin with.
//!
//! One list for two runs. `tests/tests/fuzz` feeds all of them shortly in `make test`, on nothing but stable Rust;
//! `tests/fuzz` makes each a target of cargo-fuzz, which is led by coverage, and `make fuzz` runs those for as long as one
//! likes. A reader panics where it is wrong: it keeps nothing from input to input that could change its answer, so that an
//! input that failed fails again when it is played alone.

mod decoders;
mod desk;
mod intake;
mod kept;
mod site;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anmin_sensors::document::{Document, Fault, Faults};
use anmin_sensors::profile::{self, Profile, Profiles};
use anmin_sensors::router::{Limits, Mapping, Router};

/// Takes an input and says what came out as a number: inputs with the same number were answered alike.
pub type Read = Box<dyn FnMut(&[u8]) -> u64>;

/// Something that reads.
#[derive(Clone, Copy)]
pub struct Target {
    /// Of a decoder the name of its module.
    pub name: &'static str,
    pub seeds: fn() -> Vec<Vec<u8>>,
    pub reader: fn() -> Read,
    /// Bytes; longer inputs are not tried.
    pub longest: usize,
}

const fn target(name: &'static str, seeds: fn() -> Vec<Vec<u8>>, reader: fn() -> Read, longest: usize) -> Target {
    Target { name, seeds, reader, longest }
}

pub const TARGETS: [Target; 36] = [
    // sensors/src/decode, one for each module
    target("binary", decoders::binary_seeds, decoders::binary, 256),
    target("frame", decoders::frame_seeds, decoders::frame, 256),
    target("gbt26875", decoders::gbt26875_seeds, || Box::new(decoders::gbt26875), 2_048),
    target("homeassistant", decoders::homeassistant_seeds, || Box::new(decoders::homeassistant), 2_048),
    target("json", decoders::json_seeds, decoders::json, 1_024),
    target("message", decoders::message_seeds, decoders::message, 2_048),
    target("modbus", decoders::modbus_seeds, decoders::modbus, 512),
    target("modbus_ascii", decoders::modbus_ascii_seeds, || Box::new(decoders::modbus_ascii), 1_024),
    target("properties", decoders::properties_seeds, decoders::properties, 1_024),
    target("sparkplug", decoders::sparkplug_seeds, || Box::new(decoders::sparkplug), 512),
    target("stamp", decoders::stamp_seeds, || Box::new(decoders::stamp), 64),
    target("topic", decoders::topic_seeds, || Box::new(decoders::topic), 256),
    target("value", decoders::value_seeds, decoders::value, 64),
    target("zigbee2mqtt", decoders::zigbee2mqtt_seeds, || Box::new(decoders::zigbee2mqtt), 2_048),
    // what comes over a wire
    target("router", intake::router_seeds, intake::router, 4_096),
    target("sparkplug_node", intake::sparkplug_node_seeds, intake::sparkplug_node, 1_024),
    target("mqtt", intake::mqtt_seeds, || Box::new(intake::mqtt), 1_024),
    target("modbus_line", intake::modbus_line_seeds, || Box::new(intake::modbus_line), 512),
    target("dial_in", intake::dial_in_seeds, intake::dial_in, 256),
    target("http", intake::http_seeds, intake::http, 2_048),
    target("web", desk::web_seeds, desk::web, 2_048),
    target("warning", intake::warning_seeds, || Box::new(intake::warning), 16_384),
    target("survey", intake::survey_seeds, intake::survey, 2_048),
    target("position", intake::position_seeds, intake::position, 256),
    // what people write
    target("rule", site::rule_seeds, site::rule, 16_384),
    target("script", site::script_seeds, || Box::new(site::script), 4_096),
    target("profile", site::profile_seeds, || Box::new(site::profile), 16_384),
    target("config", site::config_seeds, || Box::new(site::config), 16_384),
    target("accounts", site::accounts_seeds, || Box::new(site::accounts), 1_024),
    target("list", site::list_seeds, || Box::new(site::list), 8_192),
    target("sheet", site::sheet_seeds, || Box::new(site::sheet), 8_192),
    target("readings", site::readings_seeds, site::readings, 4_096),
    // what was kept on disk
    target("column", kept::column_seeds, || Box::new(kept::column), 1_024),
    target("record", kept::record_seeds, || Box::new(kept::record), 8_192),
    target("package", kept::package_seeds, || Box::new(kept::package), 8_192),
    target("database", kept::database_seeds, kept::database, 129),
];

/// The target of this name. Asked by the compiler, so that a program has its own target in it and nothing of the others:
/// libFuzzer looks through all that is instrumented after each input.
///
/// # Panics
/// Where there is none.
pub const fn named(name: &str) -> Target {
    let mut n = 0;
    while n < TARGETS.len() {
        if is_same(TARGETS[n].name.as_bytes(), name.as_bytes()) {
            return TARGETS[n];
        }
        n += 1;
    }
    panic!("there is no such target")
}

const fn is_same(one: &[u8], other: &[u8]) -> bool {
    let mut n = 0;
    while n < one.len() && n < other.len() && one[n] == other[n] {
        n += 1;
    }
    n == one.len() && n == other.len()
}

/// What breaks readers: ends of number ranges, marks of the formats, letters of more than one byte.
pub const WORDS: [&str; 40] = [
    "0",
    "-0",
    "-1",
    "1e308",
    "-1e308",
    "1e-400",
    "1e999",
    "255",
    "256",
    "65535",
    "65536",
    "4294967295",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
    "99999999999999999999999999",
    "nan",
    "inf",
    "null",
    "true",
    "\"\"",
    "[]",
    "{}",
    "{",
    "[",
    "}",
    "]",
    "\"",
    "'",
    "\\",
    "\\u0000",
    "\u{0}",
    "\u{feff}",
    "字",
    "🚒",
    "\r\n",
    ",",
    "=",
    "-1s",
    "99999999999999999d",
];

/// Most words of a dictionary that come from seeds.
const MOST_WORDS: usize = 400;

/// A dictionary for libFuzzer: [`WORDS`], and the words that most seeds of the target have.
pub fn dictionary(target: &Target) -> String {
    let mut counts: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    for seed in (target.seeds)() {
        let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'/' | b':');
        let words: BTreeSet<&[u8]> =
            seed.split(|byte| !is_letter(byte)).filter(|word| (3..=32).contains(&word.len())).collect();
        for word in words {
            *counts.entry(word.to_vec()).or_default() += 1;
        }
    }
    let mut words: Vec<(Vec<u8>, usize)> = counts.into_iter().collect();
    words.sort_by_key(|(word, count)| (std::cmp::Reverse(*count), word.clone()));
    words.truncate(MOST_WORDS);
    let fixed = WORDS.iter().map(|word| word.as_bytes().to_vec());
    fixed.chain(words.into_iter().map(|(word, _)| word)).map(|word| entry(&word)).collect()
}

fn entry(word: &[u8]) -> String {
    let letters: String = word
        .iter()
        .map(|byte| match byte {
            b'"' | b'\\' => format!("\\{}", char::from(*byte)),
            b' '..=b'~' => char::from(*byte).to_string(),
            _ => format!("\\x{byte:02X}"),
        })
        .collect();
    format!("\"{letters}\"\n")
}

/// What came out, without the numbers and names that are only the input's.
fn signature(faults: &[Fault]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for fault in faults {
        plain(&fault.message).hash(&mut hasher);
    }
    hasher.finish()
}

/// The start of a sentence without what the input has brought into it.
fn plain(why: &str) -> String {
    why.chars().filter(|c| c.is_ascii_lowercase() || *c == ' ' || *c == '`').take(48).collect()
}

fn hashed(value: impl std::hash::Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// The first byte, which chooses, and what it is chosen for.
fn choice(bytes: &[u8]) -> (usize, &[u8]) {
    bytes.split_first().map_or((0, bytes), |(first, rest)| (usize::from(*first), rest))
}

/// Texts as seeds.
fn seeds<const N: usize>(texts: [&str; N]) -> Vec<Vec<u8>> {
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}

fn hex(text: &str) -> Vec<u8> {
    anmin_sensors::decode::binary::parse_hex(text).expect("pairs of digits")
}

/// A place in the project.
fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// All files below a folder with this ending, in the order of their names.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("the folder is part of the project") {
            let path = entry.expect("a folder can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The texts behind a key of all cases of all profiles that are shipped, each with the profile's id.
fn samples(key: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (_, text) in profile::shipped_files() {
        let table: toml::Table = text.parse().expect("shipped profiles are TOML");
        let id = table["id"].as_str().expect("each has an id");
        let cases = table.get("case").and_then(toml::Value::as_array).into_iter().flatten();
        found.extend(cases.filter_map(|case| Some((id.to_owned(), case.get(key)?.as_str()?.to_owned()))));
    }
    found
}

/// The shipped profiles that something is true of, in the order of their ids.
fn profiles(wanted: impl Fn(&Profile) -> bool) -> Vec<Arc<Profile>> {
    Profiles::shipped().iter().filter(|profile| wanted(profile)).cloned().collect()
}

/// The place of a profile among [`profiles`], as the byte that chooses it; `None` for one that is not there.
fn place(of: &[Arc<Profile>], id: &str) -> Option<u8> {
    of.iter().position(|profile| *profile.id == *id).and_then(|place| u8::try_from(place).ok())
}

/// A profile of the fuzzer's own.
fn own_profile(text: &str) -> Arc<Profile> {
    let faults = Faults::default();
    let profile = Profile::parse("fuzz.toml", text, &faults);
    Arc::new(profile.unwrap_or_else(|| panic!("{:?}", faults.take())))
}

/// Mappings, all of which must be sound.
fn mappings(toml: &str, profiles: &Profiles) -> Vec<Mapping> {
    let faults = Faults::default();
    let document = Document::parse("fuzz.toml", toml, &faults).expect("it is TOML");
    let root = document.root(&faults);
    let read: Vec<Mapping> = root.tables("mapping").iter().filter_map(|r| Mapping::read(r, profiles)).collect();
    assert_eq!(faults.take(), [], "the fuzzer's own mappings are sound");
    read
}

/// A router that has heard nothing yet.
fn fresh_router(mappings: &[Mapping], profiles: &Profiles) -> Router {
    let sources = vec![("fuzz".into(), mappings.to_vec())];
    Router::new(sources, profiles.clone(), Default::default(), Limits::default())
}
