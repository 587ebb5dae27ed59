//! A site's files part by part, as hashes: what is different between two readings, and what of it a running daemon can take.
//!
//! Rules and overrides are not here: they are compared by what they mean ([`anmin_rules::change`]). Nor is what a part says:
//! a difference names parts and keys, never values, so that it can be told to anybody.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use anmin_sensors::point::{DeviceId, Points};
use ring::digest::{SHA256, digest};

use super::devices::Entry;
use super::drawings::sha256;
use super::files::{self, SiteFiles};
use crate::credentials::named_file;

type Hash = [u8; 8];

fn hash(text: &str) -> Hash {
    let whole = digest(&SHA256, text.as_bytes());
    std::array::from_fn(|n| whole.as_ref()[n])
}

/// What stands in the files, by part and key. Comments, blanks, the order of tables and the file that they stand in say
/// nothing; what a file holds that a key names does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Tables: `[web]`, `[[mqtt]] site`; profiles by their files: `profiles/own.toml`.
    tables: BTreeMap<String, BTreeMap<String, Hash>>,
    devices: BTreeMap<DeviceId, Hash>,
}

/// One part that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub part: String,
    pub how: How,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    Added,
    Removed,
    /// Which of its keys.
    Changed(Vec<String>),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.part)?;
        match &self.how {
            How::Changed(keys) if !keys.is_empty() => write!(f, " ({})", keys.join(", ")),
            _ => Ok(()),
        }
    }
}

/// What is different, by whether a running daemon takes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    pub live: Vec<Difference>,
    /// In force only after a restart.
    pub waits: Vec<Difference>,
}

/// Keys that name a file which is read when its part is taken up: secrets, authorities, and what says what the site is. Files
/// that are read anew whenever they are needed, a server's certificates, the authorities of its clients and all of an `[[mqtt]]`,
/// are not among them.
fn names_a_file(key: &str) -> bool {
    key.ends_with("_file") || key == "tls_ca" || describes_the_site(key)
}

/// Keys of a list of devices and of what a drawing is drawn on: files that are no secret and say what the site is.
fn describes_the_site(key: &str) -> bool {
    ["file", "geojson", "image"].contains(&key)
}

impl Parts {
    /// A file that is no TOML has no parts; its fault is told elsewhere. Devices go by the ids that `points` have already.
    pub fn of(files: &SiteFiles, devices: &[Entry], points: &Points) -> Self {
        let mut parts = Self::default();
        for source in &files.config {
            let Ok(tables) = toml::from_str::<toml::Table>(&source.text) else { continue };
            for (key, value) in &tables {
                match (key.as_str(), value) {
                    // Rules are compared by what they mean, devices below.
                    ("override" | "device" | "device_list", _) => {}
                    (_, toml::Value::Array(list)) => {
                        for one in list.iter().filter_map(toml::Value::as_table) {
                            let id = one.get("id").or_else(|| one.get("file"));
                            let id = id.and_then(toml::Value::as_str).unwrap_or_default();
                            parts.add(format!("[[{key}]] {id}"), key, one, files);
                        }
                    }
                    (_, toml::Value::Table(one)) => parts.add(format!("[{key}]"), key, one, files),
                    _ => {}
                }
            }
        }
        for profile in &files.profiles {
            let keys = BTreeMap::from([(String::new(), hash(&profile.text))]);
            parts.tables.insert(format!("{PROFILES}{}", profile.file_name()), keys);
        }
        let id = |id: &str| points.find_device(id).map_or_else(|| DeviceId::new(id), |ix| points.device(ix).id.clone());
        parts.devices = devices.iter().map(|entry| (id(&entry.id), hash(&entry.words()))).collect();
        parts
    }

    fn add(&mut self, part: String, table: &str, values: &toml::Table, files: &SiteFiles) {
        let keys = self.tables.entry(part).or_default();
        for (key, value) in values {
            let mut text = format!("{value:?}");
            if table != "mqtt" {
                for file in named_files(key, value, names_a_file) {
                    // What cannot be read is told elsewhere. An image is no text, and another image another part.
                    let read = files::bytes(&named_file(&files.base, file), files::MOST_BYTES).unwrap_or_default();
                    text.push_str(&String::from_utf8(read).unwrap_or_else(|image| sha256(image.as_bytes())));
                }
            }
            keys.insert(key.clone(), hash(&text));
        }
    }

    /// What is not as in `before`, by the names of the parts.
    pub fn differences(&self, before: &Self) -> Differences {
        let nothing = BTreeMap::new();
        let mut all: Vec<Difference> = Vec::new();
        let named: BTreeSet<&String> = self.tables.keys().chain(before.tables.keys()).collect();
        for part in named {
            let (now, then) = (self.tables.get(part), before.tables.get(part));
            // A table that a site has once is always there, with its usual values.
            let once = part.starts_with('[') && !part.starts_with("[[");
            let how = match (now, then) {
                (Some(_), None) if !once => How::Added,
                (None, Some(_)) if !once => How::Removed,
                _ => {
                    let (now, then) = (now.unwrap_or(&nothing), then.unwrap_or(&nothing));
                    let keys: BTreeSet<&String> = now.keys().chain(then.keys()).collect();
                    let other = keys.into_iter().filter(|key| now.get(*key) != then.get(*key));
                    let changed: Vec<&String> = other.collect();
                    if changed.is_empty() {
                        continue;
                    }
                    How::Changed(changed.into_iter().filter(|key| !key.is_empty()).cloned().collect())
                }
            };
            all.push(Difference { part: part.clone(), how });
        }
        let ids: BTreeSet<&DeviceId> = self.devices.keys().chain(before.devices.keys()).collect();
        for id in ids {
            let how = match (self.devices.get(id), before.devices.get(id)) {
                (Some(now), Some(then)) if now == then => continue,
                (Some(_), Some(_)) => How::Changed(Vec::new()),
                (Some(_), None) => How::Added,
                _ => How::Removed,
            };
            all.push(Difference { part: format!("[[device]] {id}"), how });
        }
        let (mut live, mut waits): (Vec<_>, Vec<_>) = all.into_iter().partition(Difference::is_live);
        // Devices, and those who hear them, rest on places and profiles, and a bus on all of its devices: what waits holds back
        // what may rest on it. Nothing is ever half taken.
        let holds_back: [(&[&str], &[&str]); 3] = [
            // An output hangs on the bus that it was read with.
            (&["output"], &["bus", "device"]),
            // A siren is told by the connection that it was read with.
            (&["siren"], &["mqtt_out"]),
            (
                &["place", "place_list", "device", "profiles/"],
                &["mqtt", "bus", "device", "place", "station", "plan", "drawing", "desk", "profiles/"],
            ),
        ];
        for (what, rests) in holds_back {
            if waits.iter().any(|one| what.contains(&one.table())) {
                let (held, free) = live.into_iter().partition(|one: &Difference| rests.contains(&one.table()));
                live = free;
                waits.extend::<Vec<_>>(held);
            }
        }
        waits.sort_by(|a, b| a.part.cmp(&b.part));
        Differences { live, waits }
    }

    /// What is in force once all that is not in `waits` was taken from `self`.
    pub fn taken(mut self, before: &Self, waits: &[Difference]) -> Self {
        for Difference { part, .. } in waits {
            match part.strip_prefix("[[device]] ") {
                Some(id) => match before.devices.get(id) {
                    Some(hash) => drop(self.devices.insert(DeviceId::new(id), *hash)),
                    None => drop(self.devices.remove(id)),
                },
                None => match before.tables.get(part) {
                    Some(keys) => drop(self.tables.insert(part.clone(), keys.clone())),
                    None => drop(self.tables.remove(part)),
                },
            }
        }
        self
    }
}

const PROFILES: &str = "profiles/";

/// The files that a value names, under its key or deeper in, as far as the key is one of `those`.
fn named_files<'v>(key: &str, value: &'v toml::Value, those: fn(&str) -> bool) -> Vec<&'v str> {
    match value {
        toml::Value::String(file) if those(key) => vec![file],
        toml::Value::Array(list) => list.iter().flat_map(|one| named_files(key, one, those)).collect(),
        toml::Value::Table(table) => table.iter().flat_map(|(key, value)| named_files(key, value, those)).collect(),
        _ => Vec::new(),
    }
}

/// Every file that these texts name, as far as a change of it is a change of the site.
pub fn files_named(config: &[files::Source]) -> Vec<PathBuf> {
    named_in(config, names_a_file)
}

/// Those of [`files_named`] that say what the site is.
pub fn descriptions_named(config: &[files::Source]) -> Vec<PathBuf> {
    named_in(config, describes_the_site)
}

fn named_in(config: &[files::Source], those: fn(&str) -> bool) -> Vec<PathBuf> {
    let mut named = Vec::new();
    for source in config {
        let Ok(tables) = toml::from_str::<toml::Table>(&source.text) else { continue };
        for (key, value) in &tables {
            named.extend(named_files(key, value, those).into_iter().map(PathBuf::from));
        }
    }
    named
}

impl Difference {
    /// `mqtt` of `[[mqtt]] site`, `profiles/` of a profile.
    pub fn table(&self) -> &str {
        let name = self.part.trim_start_matches('[');
        match name.split_once(']') {
            Some((table, _)) => table,
            None => PROFILES,
        }
    }

    /// `site` of `[[mqtt]] site`.
    pub fn id(&self) -> &str {
        self.part.split_once("]] ").map_or("", |(_, id)| id)
    }

    /// Whether a running daemon takes it, as far as nothing that it rests on must wait.
    fn is_live(&self) -> bool {
        let only = |known: &[&str]| match &self.how {
            How::Changed(keys) => keys.iter().all(|key| known.contains(&key.as_str())),
            _ => false,
        };
        match self.table() {
            "station" | "plan" | "drawing" | "desk" | "drill" | "mqtt_out" | "webhook" | "notice" | "gbt26875_out"
            | "subscriber" | "warning_source" | "validation" | "readings" | "log" | "mqtt" | "bus" => true,
            // What was sent as an exercise is not real of a sudden, and what is in force outside has to be cancelled there.
            "cap" | "ebm" => match &self.how {
                How::Added => true,
                How::Removed => false,
                How::Changed(keys) => keys.iter().all(|key| key != "status"),
            },
            "place" => self.how == How::Added || only(&["stations"]),
            // A database that comes or goes is a matter of what is kept for whom.
            "influx" => matches!(self.how, How::Changed(_)),
            "storage" => only(&["audit_days"]),
            "device" | PROFILES => self.how == How::Added,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use anmin_sensors::document::Faults;

    use super::super::files::Source;
    use super::*;

    fn parts(text: &str, profile: &str) -> Parts {
        let source = |name: &str, text: &str| Source { name: name.to_owned(), text: text.to_owned() };
        let files = SiteFiles {
            config: vec![source("anmin.toml", text)],
            profiles: vec![source("/etc/anmin/profiles/own.toml", profile)],
            ..SiteFiles::default()
        };
        let faults = Faults::default();
        let lines: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# device ")).collect();
        let devices = super::super::devices::read_csv("d.csv", &format!("id,profile\n{}", lines.join("\n")), &faults);
        Parts::of(&files, &devices, &Points::default())
    }

    const FIRST: &str = "# device g1,gas\n[site]\nid = \"s\"\n[[mqtt]]\nid = \"a\"\n[[mqtt]]\nid = \"b\"\n[[place]]\nid = \"b3\"\n\
                         [[webhook]]\nid = \"office\"\nurl = \"x\"\n[[override]]\nrule = \"gas/leak\"\n";

    #[test]
    fn what_says_something_else_is_named_and_either_taken_or_waits() {
        let started = parts(FIRST, "x");
        for (text, profile, live, waits) in [
            (FIRST.to_owned(), "x", "", ""),
            // Moved, written otherwise, and other rules: nothing that concerns this.
            (format!("# moved\n{}", FIRST.replace("id = \"a\"", "id='a'").replace("leak", "co")), "x", "", ""),
            (FIRST.replace("\"b\"", "\"c\""), "x", "[[mqtt]] b, [[mqtt]] c", ""),
            (format!("{FIRST}[web]\nlisten = \"127.0.0.1:1\"\n"), "x", "", "[web] (listen)"),
            (FIRST.replace("\"x\"", "\"y\"\nmin_level = \"red\""), "x", "[[webhook]] office (min_level, url)", ""),
            (format!("{FIRST}[outgoing]\nallow = []\n"), "x", "", "[outgoing] (allow)"),
            (
                format!("{FIRST}[oidc]\nissuer = \"i\"\n[[oidc.role]]\nvalue = \"v\"\n"),
                "x",
                "",
                "[oidc] (issuer, role)",
            ),
            (
                format!("{FIRST}[[siren]]\nid = \"horn\"\n[[mqtt_out]]\nid = \"yard\"\n"),
                "x",
                "",
                "[[mqtt_out]] yard, [[siren]] horn",
            ),
            (format!("{FIRST}[storage]\naudit_days = 999\n"), "x", "[storage] (audit_days)", ""),
            (format!("{FIRST}[storage]\naudit_days = 999\ndir = \"d\"\n"), "x", "", "[storage] (audit_days, dir)"),
            (FIRST.replace("id = \"b3\"", "id = \"b3\"\nstations = [\"s\"]"), "x", "[[place]] b3 (stations)", ""),
            (format!("# device g2,gas\n{FIRST}"), "x", "[[device]] g2", ""),
            (format!("{FIRST}[[influx]]\nid = \"db\"\n"), "x", "", "[[influx]] db"),
            // What waits holds back what may rest on it, and nothing else.
            (
                FIRST.replace("g1,gas", "g1,co").replace("id = \"a\"", "id = \"a\"\nqos = 0").replace("\"x\"", "\"y\""),
                "x",
                "[[webhook]] office (url)",
                "[[device]] g1, [[mqtt]] a (qos)",
            ),
            (format!("# device g2,gas\n{FIRST}"), "y", "", "[[device]] g2, profiles/own.toml"),
            // An output waits, with it a device that is new, and with that a broker that may speak for it.
            (
                format!("# device g2,gas\n{FIRST}[[output]]\nid = \"valve\"\n")
                    .replace("id = \"a\"", "id = \"a\"\nqos = 0"),
                "x",
                "",
                "[[device]] g2, [[mqtt]] a (qos), [[output]] valve",
            ),
            (format!("{FIRST}[[cap]]\nid = \"county\"\n"), "x", "[[cap]] county", ""),
            (
                format!("{FIRST}[[bus]]\nid = \"r\"\n[[output]]\nid = \"valve\"\n").replace("\"x\"", "\"y\""),
                "x",
                "[[webhook]] office (url)",
                "[[bus]] r, [[output]] valve",
            ),
        ] {
            let found = parts(&text, profile).differences(&started);
            let names = |all: &[Difference]| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            assert_eq!((names(&found.live), names(&found.waits)), (live.to_owned(), waits.to_owned()), "{text}");
        }
    }

    /// Nobody has been asked about what was sent as an exercise, and what is in force outside has to be cancelled by its own way.
    #[test]
    fn a_broadcast_is_neither_real_of_a_sudden_nor_gone() {
        let before = "[[cap]]\nid = \"county\"\nstatus = \"exercise\"\nurl = \"x\"\n";
        let started = parts(before, "x");
        for (text, live, waits) in [
            (before.replace("exercise", "actual").replace("\"x\"", "\"y\""), "", "[[cap]] county (status, url)"),
            (String::new(), "", "[[cap]] county"),
            (before.replace("\"x\"", "\"y\""), "[[cap]] county (url)", ""),
            (format!("{before}[broadcast]\napproval = \"none\"\n"), "", "[broadcast] (approval)"),
        ] {
            let found = parts(&text, "x").differences(&started);
            let names = |all: &[Difference]| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            assert_eq!((names(&found.live), names(&found.waits)), (live.to_owned(), waits.to_owned()), "{text}");
        }
    }

    /// Otherwise what waits would be told once and forgotten, or what was taken be taken again for ever.
    #[test]
    fn what_waits_waits_until_it_is_as_it_was() {
        let started = parts(FIRST, "x");
        let other =
            FIRST.replace("\"x\"", "\"y\"").replace("\"b3\"", "\"b3\"\nfloor = \"1\"").replace("g1,gas", "g1,co");
        let new = parts(&other, "x");
        let found = new.differences(&started);
        let now = new.clone().taken(&started, &found.waits);
        let again = new.differences(&now);
        assert_eq!((again.live, again.waits.clone()), (vec![], found.waits));
        assert_eq!(parts(&FIRST.replace("\"x\"", "\"y\""), "x").differences(&now), Differences::default());
    }
}
