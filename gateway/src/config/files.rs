//! Which files make up a site, and reading them.
//!
//! A site is a folder: `anmin.toml`, `anmin.d/*.toml` in the order of their names, `rules/<area>/<name>.{toml,rhai}`,
//! `profiles/*.toml` and tables of points, `profiles/*.csv`, and what was set and taken in at the duty desk, which is kept beside the
//! databases ([`tuned`], [`adopted`]). A single file is a site too; its folder is then the base of relative paths. A file that cannot be
//! read is a fault, but of a rule's files only that rule's: it keeps nothing else from starting.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anmin_rules::set::{BrokenRule, RuleSource};
use anmin_sensors::document::{Fault, Faults};

use super::sheet::{About, Sheet};
use super::{adopted, parts, tuned};
use crate::credentials::named_file;

/// One file as text, under the name that faults give it.
#[derive(Clone, Debug)]
pub struct Source {
    pub name: String,
    pub text: String,
}

/// Everything a site is made of, as text.
#[derive(Clone, Debug, Default)]
pub struct SiteFiles {
    /// The site's folder, or its one file.
    pub path: PathBuf,
    /// The files as they were before they were read.
    pub look: Look,
    /// Where relative paths start.
    pub base: PathBuf,
    pub config: Vec<Source>,
    pub profiles: Vec<Source>,
    pub rules: Vec<RuleSource>,
    /// Rules whose files cannot be read.
    pub broken_rules: Vec<BrokenRule>,
    /// Devices that were taken in at the duty desk.
    pub adopted: Option<Source>,
    /// Lists as they would be, instead of those on the disk: to try them.
    pub instead: BTreeMap<PathBuf, String>,
}

impl Source {
    /// Without the folder.
    pub fn file_name(&self) -> &str {
        Path::new(&self.name).file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }
}

/// No file of a site is larger; one that is was named by mistake, and may have no end.
pub const MOST_BYTES: u64 = 64 << 20;

/// Reads one file; what cannot be read is a fault that says why.
pub fn read(path: &Path, faults: &Faults) -> Option<Source> {
    let name = path.display().to_string();
    let fault = |line, column, message: String, hint: Option<&str>| {
        faults.note(Fault { source: name.clone(), line, column, message, hint: hint.map(str::to_owned), zh: None });
        None
    };
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes)) {
        Ok(_) if bytes.len() as u64 > MOST_BYTES => {
            return fault(0, 0, "cannot be read: it is larger than 64 MiB".to_owned(), None);
        }
        Ok(_) => {}
        Err(error) => return fault(0, 0, format!("cannot be read: {}", reason(&error)), None),
    }
    match String::from_utf8(bytes) {
        Ok(text) => Some(Source { name, text }),
        Err(error) => {
            let sound = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = sound.iter().filter(|byte| **byte == b'\n').count() + 1;
            // What stands before the fault is UTF-8.
            let before = String::from_utf8_lossy(sound.rsplit(|byte| *byte == b'\n').next().unwrap_or_default());
            let message = format!("not UTF-8: byte 0x{:02X}", error.as_bytes()[sound.len()]);
            fault(line, before.chars().count() + 1, message, Some("save it as UTF-8, not as GBK or UTF-16"))
        }
    }
}

/// The bytes of a plain file of no more than `most` bytes, whole MiB, or why there are none.
pub fn bytes(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    let read = || {
        // Asked before it is opened: a pipe would wait for a writer.
        if fs::metadata(path)?.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::other("it is no plain file"));
        }
        let mut bytes = Vec::new();
        File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) if bytes.len() as u64 > most => Err(format!("it is larger than {} MiB", most >> 20)),
        read => read.map_err(|error| reason(&error)),
    }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::IsADirectory => "it is a folder, expected a file".to_owned(),
        _ => error.to_string(),
    }
}

impl SiteFiles {
    /// The configuration alone, without profiles and rules.
    pub fn configuration(path: &Path, faults: &Faults) -> Self {
        let mut look = Look::at(path);
        let (base, config) = if path.is_dir() {
            let mut config = vec![path.join("anmin.toml")];
            config.extend(below(&path.join("anmin.d"), "toml"));
            (path, config)
        } else {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            (parent.unwrap_or(Path::new(".")), vec![path.to_owned()])
        };
        let mut config: Vec<Source> = config.iter().filter_map(|file| read(file, faults)).collect();
        let storage = tuned::storage(&config, base);
        let tuned = storage.join(tuned::FILE);
        if tuned.is_file() {
            config.extend(read(&tuned, faults));
        }
        let adopted = adopted_below(&storage, faults);
        look.and_named(parts::files_named(&config).into_iter().map(|file| named_file(base, file)).collect());
        Self { path: path.to_owned(), look, base: base.to_owned(), config, adopted, ..Self::default() }
    }

    /// A list that the configuration names, below the base.
    pub fn list(&self, file: &str, faults: &Faults) -> Option<Source> {
        let path = self.base.join(file);
        match self.instead.get(&path) {
            Some(text) => Some(Source { name: path.display().to_string(), text: text.clone() }),
            None => read(&path, faults),
        }
    }

    /// Gathers the files of the site at `path`.
    pub fn gather(path: &Path, faults: &Faults) -> Self {
        let configuration = Self::configuration(path, faults);
        if !path.is_dir() {
            return configuration;
        }
        let (rules, broken_rules) = rules_below(&path.join("rules"));
        let folder = path.join("profiles");
        let mut profiles: Vec<Source> = below(&folder, "toml").iter().filter_map(|file| read(file, faults)).collect();
        let tables = below(&folder, "csv").into_iter().filter_map(|file| Self::table(&read(&file, faults)?, faults));
        profiles.extend(tables);
        Self { profiles, rules, broken_rules, ..configuration }
    }

    /// A table of points as the profile that it is; it is called after its file. One without rows is none.
    pub fn table(table: &Source, faults: &Faults) -> Option<Source> {
        let id = Path::new(&table.name).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        match Sheet::parse(&table.name, &table.text) {
            Ok((About::Points, sheet)) if sheet.rows.is_empty() => None,
            Ok((About::Points, sheet)) => Some(Source { name: table.name.clone(), text: sheet.as_profile(id) }),
            Ok(_) => {
                let message = "it is no table of points: there is no column `kind`".to_owned();
                faults.note(Fault { source: table.name.clone(), line: 1, column: 1, message, hint: None, zh: None });
                None
            }
            Err(found) => {
                found.into_iter().for_each(|fault| faults.note(fault));
                None
            }
        }
    }

    /// The same site with what was set at the duty desk as it stands in this folder, and not where the site's files say.
    pub fn tuned_in(&mut self, storage: &Path, faults: &Faults) {
        let named = tuned::storage(&self.config, &self.base);
        if named == storage {
            return;
        }
        let name = named.join(tuned::FILE).display().to_string();
        self.config.retain(|source| source.name != name);
        let file = storage.join(tuned::FILE);
        if file.is_file() {
            self.config.extend(read(&file, faults));
        }
        self.adopted = adopted_below(storage, faults);
    }

    /// The same site with this text in place of the devices that were taken in at the duty desk.
    pub fn adopt(&mut self, storage: &Path, text: &str) {
        let name = storage.join(adopted::FILE).display().to_string();
        self.adopted = (!text.is_empty()).then(|| Source { name, text: text.to_owned() });
    }

    /// The same site with this text in place of what was set at the duty desk.
    pub fn tune(&mut self, text: &str) {
        let name = tuned::storage(&self.config, &self.base).join(tuned::FILE).display().to_string();
        self.config.retain(|source| source.name != name);
        self.config.push(Source { name, text: text.to_owned() });
    }

    /// SHA-256 of all files by their names, in hexadecimal digits: two sites that are the same to the letter have the same,
    /// wherever they lie. Lists of devices and drawings are among them, secrets are not: whoever has the rest and this could try
    /// words until one fits.
    pub fn sha256(&self) -> String {
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        let mut put = |part: &[u8]| {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        };
        for source in self.config.iter().chain(&self.profiles).chain(&self.adopted) {
            put(source.file_name().as_bytes());
            put(source.text.as_bytes());
        }
        for rule in &self.rules {
            [&rule.name, &rule.toml, &rule.script].into_iter().for_each(|part| put(part.as_bytes()));
        }
        for file in parts::descriptions_named(&self.config) {
            let path = self.base.join(&file);
            put(file.as_os_str().as_encoded_bytes());
            match self.instead.get(&path) {
                Some(text) => put(text.as_bytes()),
                // What cannot be read is told elsewhere.
                None => put(&bytes(&path, MOST_BYTES).unwrap_or_default()),
            }
        }
        context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// None where nobody has taken in a device.
fn adopted_below(storage: &Path, faults: &Faults) -> Option<Source> {
    let file = storage.join(adopted::FILE);
    file.is_file().then(|| read(&file, faults)).flatten()
}

/// The rules of a folder of areas, as a site's `rules`, and those whose files cannot be read.
pub fn rules_below(folder: &Path) -> (Vec<RuleSource>, Vec<BrokenRule>) {
    let (mut rules, mut broken_rules) = (Vec::new(), Vec::new());
    for stray in rule_names(folder) {
        let message = "it lies in no folder of an area, so it is not read".to_owned();
        let hint = Some(format!("such as {}", folder.join("gas").join(&stray).display()));
        let source = folder.join(&stray).display().to_string();
        let faults = vec![Fault { source, line: 0, column: 0, message, hint, zh: None }];
        broken_rules.push(BrokenRule { name: stray, faults });
    }
    for area in folders(folder) {
        for stem in rule_names(&area) {
            let name = format!("{}/{stem}", area.file_name().unwrap_or_default().to_string_lossy());
            let own = Faults::default();
            let file = |ending: &str| read(&area.join(format!("{stem}.{ending}")), &own);
            match (file("toml"), file("rhai")) {
                (Some(toml), Some(script)) => rules.push(RuleSource {
                    folder: folder.display().to_string(),
                    name,
                    toml: toml.text,
                    script: script.text,
                }),
                _ => broken_rules.push(BrokenRule { name, faults: own.take() }),
            }
        }
    }
    (rules, broken_rules)
}

/// Which files make up the site at `path`, how long they are and when they were last written, and the same of the files that
/// these name: equal looks, equal files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    path: PathBuf,
    own: Vec<FileLook>,
    named: Vec<FileLook>,
}

/// A file, its length, and when it was last written.
type FileLook = (PathBuf, u64, Option<SystemTime>);

impl Look {
    fn at(path: &Path) -> Self {
        let mut files = vec![path.to_owned()];
        if path.is_dir() {
            files = vec![path.join("anmin.toml")];
            files.extend(below(&path.join("anmin.d"), "toml"));
            files.extend(["toml", "csv"].iter().flat_map(|ending| below(&path.join("profiles"), ending)));
            let rules = path.join("rules");
            for folder in std::iter::once(rules.clone()).chain(folders(&rules)) {
                files.extend(["toml", "rhai"].iter().flat_map(|ending| below(&folder, ending)));
            }
        }
        Self { path: path.to_owned(), own: files.into_iter().map(look).collect(), named: Vec::new() }
    }

    fn and_named(&mut self, files: Vec<PathBuf>) {
        self.named = files.into_iter().map(look).collect();
    }

    /// The same at this moment.
    pub fn again(&self) -> Self {
        let mut again = Self::at(&self.path);
        again.and_named(self.named.iter().map(|(file, ..)| file.clone()).collect());
        again
    }
}

fn look(file: PathBuf) -> FileLook {
    let meta = fs::metadata(&file).ok();
    let (length, written) = (meta.as_ref().map_or(0, fs::Metadata::len), meta.and_then(|meta| meta.modified().ok()));
    (file, length, written)
}

/// The names that rules have in a folder: of their two files one is enough to be found.
fn rule_names(folder: &Path) -> Vec<String> {
    let stem = |path: &PathBuf| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let mut names: Vec<String> =
        ["toml", "rhai"].iter().flat_map(|ending| below(folder, ending)).map(|path| stem(&path)).collect();
    names.sort();
    names.dedup();
    names
}

/// Files of a folder with this ending, by name; none where the folder is not there.
fn below(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        entries(folder).filter(|path| path.extension().is_some_and(|e| e == ending)).collect();
    found.sort();
    found
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = entries(folder).filter(|path| path.is_dir()).collect();
    found.sort();
    found
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::TestDir;

    /// Goal: what was in force can be told by one number. Method: a site with a list and a secret, of which one file is another.
    #[test]
    fn the_number_of_a_site_is_another_with_each_file_that_says_what_it_is_and_tells_nothing_of_a_secret() {
        const LIST: &str = "id,profile\ng1,gas\n";
        const SITE: &str = "[[device_list]]\nfile = \"devices.csv\"\n[[drawing]]\nimage = \"plan.png\"\n\
                            [[mqtt_out]]\nid = \"o\"\npassword_file = \"word\"\n";
        let files = [("anmin.toml", SITE), ("devices.csv", LIST), ("plan.png", "\u{89}PNG"), ("word", "secret")];
        let number = |other: Option<(&str, &str)>, instead: Option<&str>| {
            let dir = TestDir::new("number");
            for (name, text) in files.into_iter().chain(other) {
                fs::write(dir.path().join(name), text).expect("the folder can be written");
            }
            let mut site = SiteFiles::gather(dir.path(), &Faults::default());
            site.instead.extend(instead.map(|text| (dir.path().join("devices.csv"), text.to_owned())));
            site.sha256()
        };
        let before = number(None, None);
        for (other, is_other) in [
            (("devices.csv", "id,profile\ng1,co\n"), true),
            (("plan.png", "other"), true),
            (("anmin.toml", "# moved\n"), true),
            (("word", "another"), false),
        ] {
            assert_eq!(number(Some(other), None) != before, is_other, "{other:?}");
        }
        assert_eq!(number(None, Some(LIST)), before, "a list that would be the same");
        assert_ne!(number(None, Some("id,profile\n")), before, "a list as it would be");
    }
}
