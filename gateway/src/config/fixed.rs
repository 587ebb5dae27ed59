//! What of a site's files is read at the start and not again: a part that has changed since waits for a restart.

use std::collections::BTreeMap;

use anmin_sensors::document::Faults;
use ring::digest::{Context, SHA256};

use super::files::SiteFiles;

/// Each part of the files but rules and overrides, by its name and the hash of what it says: `[web]`, `[[mqtt]]`,
/// `profiles/own.toml`. Comments, blanks and the order of tables say nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fixed(BTreeMap<String, Vec<u8>>);

impl Fixed {
    /// A file that is no TOML has no parts; its fault is told elsewhere.
    pub fn of(files: &SiteFiles) -> Self {
        let mut parts: BTreeMap<String, Context> = BTreeMap::new();
        let mut add = |name: String, text: &str| {
            let part = parts.entry(name).or_insert_with(|| Context::new(&SHA256));
            part.update(&(text.len() as u64).to_be_bytes());
            part.update(text.as_bytes());
        };
        for source in &files.config {
            let Ok(tables) = toml::from_str::<toml::Table>(&source.text) else { continue };
            for (key, value) in tables.iter().filter(|(key, _)| *key != "override") {
                let name = if value.is_array() { format!("[[{key}]]") } else { format!("[{key}]") };
                add(name.clone(), &format!("{value:?}"));
                let lists = value
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter(|_| ["device_list", "place_list"].contains(&key.as_str()));
                for file in lists.filter_map(|list| list.get("file")?.as_str()) {
                    // What cannot be read is told elsewhere, too.
                    let read = files.list(file, &Faults::default());
                    add(format!("{name} {file}"), &read.map(|read| read.text).unwrap_or_default());
                }
            }
        }
        for profile in &files.profiles {
            add(profile.name.clone(), &profile.text);
        }
        Self(parts.into_iter().map(|(name, part)| (name, part.finish().as_ref().to_vec())).collect())
    }

    /// The parts that are not as in `other`, by their names.
    pub fn differs(&self, other: &Self) -> Vec<String> {
        let changed = self.0.iter().filter(|(name, hash)| other.0.get(*name) != Some(*hash)).map(|(name, _)| name);
        let gone = other.0.keys().filter(|name| !self.0.contains_key(*name));
        let mut names: Vec<String> = changed.chain(gone).cloned().collect();
        names.sort();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::super::files::Source;
    use super::*;

    #[test]
    fn a_part_that_says_something_else_is_named() {
        let of = |text: &str, profile: &str| {
            let source = |name: &str, text: &str| Source { name: name.to_owned(), text: text.to_owned() };
            let (config, profiles) = (vec![source("anmin.toml", text)], vec![source("profiles/own.toml", profile)]);
            Fixed::of(&SiteFiles { config, profiles, ..SiteFiles::default() })
        };
        let first =
            "[site]\nid = \"s\"\n[[mqtt]]\nid = \"a\"\n[[mqtt]]\nid = \"b\"\n[[override]]\nrule = \"gas/leak\"\n";
        let started = of(first, "x");
        for (text, profile, wanted) in [
            (first, "x", &[][..]),
            ("# moved\n[[mqtt]]\nid='a'\n[[mqtt]]\nid = \"b\"\n\n[site]\nid = \"s\"", "x", &[]),
            (&first.replace("gas/leak", "gas/co"), "x", &[]),
            (&first.replace("\"b\"", "\"c\""), "x", &["[[mqtt]]"]),
            (&format!("{first}[web]\nlisten = \"127.0.0.1:1\"\n"), "x", &["[web]"]),
            ("[[mqtt]]\nid = \"a\"\n[[mqtt]]\nid = \"b\"\n", "y", &["[site]", "profiles/own.toml"]),
        ] {
            assert_eq!(of(text, profile).differs(&started), wanted, "{text}");
        }
    }
}
