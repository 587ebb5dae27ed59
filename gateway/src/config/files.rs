//! Which files make up a site, and reading them.
//!
//! A site is a folder: `anmin.toml`, `anmin.d/*.toml` in the order of their names, `rules/<area>/<name>.{toml,rhai}`,
//! `profiles/*.toml`. A single file is a site too; its folder is then the base of relative paths.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anmin_rules::set::RuleSource;
use anmin_sensors::document::{Fault, Faults};

/// One file as text, under the name that faults give it.
#[derive(Clone, Debug)]
pub struct Source {
    pub name: String,
    pub text: String,
}

/// Everything a site is made of, as text.
#[derive(Clone, Debug, Default)]
pub struct SiteFiles {
    /// Where relative paths start.
    pub base: PathBuf,
    pub config: Vec<Source>,
    pub profiles: Vec<Source>,
    pub rules: Vec<RuleSource>,
}

/// Reads one file; what cannot be read is a fault that says why.
pub fn read(path: &Path, faults: &Faults) -> Option<Source> {
    let name = path.display().to_string();
    let problem = match fs::read(path).map(String::from_utf8) {
        Ok(Ok(text)) => return Some(Source { name, text }),
        Ok(Err(error)) => format!("not UTF-8 from byte {} on", error.utf8_error().valid_up_to()),
        Err(error) => reason(&error),
    };
    faults.note(Fault { source: name, line: 0, column: 0, message: format!("cannot be read: {problem}"), hint: None });
    None
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

impl SiteFiles {
    /// The configuration alone, without profiles and rules.
    pub fn configuration(path: &Path, faults: &Faults) -> Self {
        let (base, config) = if path.is_dir() {
            let mut config = vec![path.join("anmin.toml")];
            config.extend(below(&path.join("anmin.d"), "toml"));
            (path, config)
        } else {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            (parent.unwrap_or(Path::new(".")), vec![path.to_owned()])
        };
        let config = config.iter().filter_map(|file| read(file, faults)).collect();
        Self { base: base.to_owned(), config, ..Self::default() }
    }

    /// Gathers the files of the site at `path`.
    pub fn gather(path: &Path, faults: &Faults) -> Self {
        let configuration = Self::configuration(path, faults);
        if !path.is_dir() {
            return configuration;
        }
        let mut rules = Vec::new();
        for area in folders(&path.join("rules")) {
            for toml in below(&area, "toml") {
                let script = toml.with_extension("rhai");
                let (Some(toml_text), Some(script_text)) = (read(&toml, faults), read(&script, faults)) else {
                    continue;
                };
                let word = |path: &Path| path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
                rules.push(RuleSource {
                    folder: path.join("rules").display().to_string(),
                    name: format!("{}/{}", word(&area), word(&toml)),
                    toml: toml_text.text,
                    script: script_text.text,
                });
            }
        }
        let profiles = below(&path.join("profiles"), "toml").iter().filter_map(|file| read(file, faults)).collect();
        Self { profiles, rules, ..configuration }
    }
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
