//! The rules that anmin ships: `library/<area>/<name>.toml` with the script of the same name beside it.

use include_dir::{Dir, include_dir};

use crate::set::RuleSource;

static LIBRARY: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/library");

/// How faults name the folder.
pub const FOLDER: &str = "rules/library";

/// All shipped rules by name. A script that is missing is an empty text, which the loader refuses with its name.
pub fn shipped() -> Vec<RuleSource> {
    let mut sources = Vec::new();
    for area in LIBRARY.dirs() {
        for file in area.files() {
            let path = file.path();
            if path.extension().is_some_and(|ending| ending == "toml") {
                let script = LIBRARY.get_file(path.with_extension("rhai")).and_then(|script| script.contents_utf8());
                sources.push(RuleSource {
                    folder: FOLDER.to_owned(),
                    name: path.with_extension("").to_string_lossy().replace('\\', "/"),
                    toml: file.contents_utf8().unwrap_or_default().to_owned(),
                    script: script.unwrap_or_default().to_owned(),
                });
            }
        }
    }
    sources.sort_by(|a, b| a.name.cmp(&b.name));
    sources
}
