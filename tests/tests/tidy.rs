//! What the house promises about itself: the pure crates stay pure, imports run in one line, links in the docs lead
//! somewhere, nothing is left half done.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ stands in the root").to_owned()
}

/// All files of the project below `dir`, without what builds and tools leave behind.
fn files(dir: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(dir)];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let left_behind = ["target", ".git", "node_modules", "dist", "anmin-demo", "__pycache__"];
            if left_behind.iter().any(|word| name == *word) {
                continue;
            }
            if path.is_dir() { open.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn dependencies(package: &str) -> BTreeSet<String> {
    let manifest: toml::Table = text(&root().join(package).join("Cargo.toml")).parse().expect("a manifest is TOML");
    let table = manifest.get("dependencies").and_then(toml::Value::as_table).cloned().unwrap_or_default();
    table.keys().cloned().collect()
}

#[test]
fn a_pure_crate_has_no_dependency_that_could_do_input_or_output() {
    for (package, allowed) in [
        ("sensors", ["hashbrown", "include_dir", "jiff", "serde", "serde_json", "thiserror", "toml"].as_slice()),
        ("rules", ["anmin-sensors", "include_dir", "rhai", "thiserror", "uuid"].as_slice()),
    ] {
        let strangers: Vec<String> =
            dependencies(package).into_iter().filter(|name| !allowed.contains(&name.as_str())).collect();
        assert!(strangers.is_empty(), "{package}/ may not depend on {strangers:?}: it is sans-IO");
    }
}

#[test]
fn a_pure_crate_bans_clocks_files_and_sockets() {
    for package in ["sensors", "rules"] {
        let bans = text(&root().join(package).join("clippy.toml"));
        for banned in ["Instant::now", "SystemTime::now", "thread::sleep", "std::fs::", "std::net::"] {
            assert!(bans.contains(banned), "{package}/clippy.toml no longer bans {banned}");
        }
    }
}

#[test]
fn imports_between_crates_run_in_one_line() {
    assert!(!dependencies("sensors").iter().any(|name| name.starts_with("anmin")));
    assert!(!dependencies("rules").contains("anmin"));
}

#[test]
fn intake_delivery_and_web_never_import_one_another() {
    let rooms = ["intake", "delivery", "web"];
    for room in rooms {
        for file in
            files(&format!("gateway/src/{room}")).iter().filter(|file| file.extension().is_some_and(|e| e == "rs"))
        {
            for other in rooms.iter().filter(|other| **other != room) {
                let line = format!("crate::{other}::");
                assert!(!text(file).contains(&line), "{}: {room} imports {other}", file.display());
            }
        }
    }
}

#[test]
fn no_room_is_called_common_core_or_utils() {
    for file in files(".") {
        let name = file.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        assert!(!["common", "core", "utils", "util", "helpers", "misc"].contains(&name), "{}", file.display());
    }
}

#[test]
fn nothing_is_left_half_done() {
    // Spelled in two parts so that this file does not find itself.
    let marks = [concat!("to", "do!("), concat!("unimple", "mented!("), concat!("TO", "DO"), concat!("FIX", "ME")];
    for file in files(".") {
        let code = file
            .extension()
            .is_some_and(|e| ["rs", "js", "ts", "vue", "rhai", "py", "sh"].iter().any(|known| e == *known));
        if code {
            for mark in marks {
                assert!(!text(&file).contains(mark), "{} holds {mark}", file.display());
            }
        }
    }
}

/// How a heading is called in a link: small letters, blanks as dashes, no other punctuation.
fn anchors(text: &str) -> BTreeSet<String> {
    let plain = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    headings.map(|heading| heading.to_lowercase().chars().filter(plain).collect::<String>().replace(' ', "-")).collect()
}

#[test]
fn every_link_in_the_docs_leads_somewhere() {
    for file in files(".").iter().filter(|file| file.extension().is_some_and(|e| e == "md")) {
        let folder = file.parent().expect("a file stands in a folder");
        let own = text(file);
        for link in own.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (target, anchor) = link.split_once('#').unwrap_or((link, ""));
            let path = if target.is_empty() { file.clone() } else { folder.join(target) };
            assert!(path.exists(), "{} links to {target}, which is not there", file.display());
            let found = anchor.is_empty() || anchors(&text(&path)).contains(anchor);
            assert!(found, "{} links to {link}, where there is no such heading", file.display());
        }
    }
}
