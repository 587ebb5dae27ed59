//! What anmin's binary is made of: every crate in it, by what Cargo itself resolves, with licence and source.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

/// One crate in the binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub name: String,
    pub version: String,
    /// An SPDX expression; empty where the crate says none.
    pub license: String,
    /// Of ours it has none.
    pub source: Option<String>,
    /// SHA-256 of what was downloaded, as Cargo.lock keeps it.
    pub checksum: Option<String>,
    /// Names and versions of what it needs itself.
    pub needs: BTreeSet<(String, String)>,
}

impl Part {
    /// A package URL (ECMA-427).
    fn url(&self) -> String {
        format!("pkg:cargo/{}@{}", self.name, self.version)
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ stands in the root")
}

/// What Cargo resolves for this kind of machine, without a network.
fn resolved() -> Value {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let ran = Command::new(cargo)
        .args(["metadata", "--locked", "--offline", "--format-version=1", "--filter-platform", &platform])
        .current_dir(root())
        .output()
        .expect("cargo is there, since it built this");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    serde_json::from_slice(&ran.stdout).expect("cargo writes JSON")
}

/// The versions of every crate that building and testing anmin takes, the newest last.
pub fn versions() -> BTreeMap<String, Vec<String>> {
    let told = resolved();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let used: BTreeSet<String> =
        list(&told["resolve"]["nodes"]).iter().filter_map(|node| node["id"].as_str().map(str::to_owned)).collect();
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in list(&told["packages"]) {
        let word = |key: &str| package[key].as_str().unwrap_or_default().to_owned();
        if used.contains(&word("id")) {
            versions.entry(word("name")).or_default().push(word("version"));
        }
    }
    let numbers =
        |version: &String| -> Vec<u64> { version.split(['.', '-', '+']).map_while(|n| n.parse().ok()).collect() };
    versions.values_mut().for_each(|all| all.sort_by_key(numbers));
    versions
}

/// The crates of the binary, the binary's own included, in the order of their names. Runs Cargo, which needs no network.
pub fn parts() -> Vec<Part> {
    let (root, told) = (root(), resolved());
    let lock = std::fs::read_to_string(root.join("Cargo.lock")).expect("it is there");
    let lock: toml::Table = lock.parse().expect("a lock file is TOML");
    let word = |value: &toml::Value, key: &str| value.get(key).and_then(toml::Value::as_str).map(str::to_owned);
    let checksums: BTreeMap<(String, String), String> = lock["package"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|package| Some(((word(package, "name")?, word(package, "version")?), word(package, "checksum")?)))
        .collect();

    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let packages: BTreeMap<String, Value> =
        list(&told["packages"]).into_iter().map(|package| (text(&package["id"]), package)).collect();
    let needs: BTreeMap<String, Vec<String>> = list(&told["resolve"]["nodes"])
        .iter()
        .map(|node| {
            // What only builds or tests is not in the binary.
            let normal = |dep: &Value| list(&dep["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
            (
                text(&node["id"]),
                list(&node["deps"]).iter().filter(|dep| normal(dep)).map(|dep| text(&dep["pkg"])).collect(),
            )
        })
        .collect();
    let called = |id: &String| (text(&packages[id]["name"]), text(&packages[id]["version"]));
    let mut open: Vec<String> = packages.keys().filter(|id| called(id).0 == "anmin").cloned().collect();
    let mut seen = BTreeSet::new();
    let mut parts = Vec::new();
    while let Some(id) = open.pop() {
        if !seen.insert(id.clone()) {
            continue;
        }
        let below = needs.get(&id).cloned().unwrap_or_default();
        let (name, version) = called(&id);
        parts.push(Part {
            license: text(&packages[&id]["license"]),
            source: packages[&id]["source"].as_str().map(str::to_owned),
            checksum: checksums.get(&(name.clone(), version.clone())).cloned(),
            needs: below.iter().map(called).collect(),
            name,
            version,
        });
        open.extend(below);
    }
    parts.sort_by(|one, other| (&one.name, &one.version).cmp(&(&other.name, &other.version)));
    parts
}

/// Whether an SPDX expression can be met by these licences alone.
pub fn allowed(expression: &str, licences: &BTreeSet<String>) -> bool {
    // Cargo's old way of writing OR.
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ").replace(" WITH ", "+WITH+");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let met = either(&words, &mut at, licences);
    met && at == words.len() && !words.is_empty()
}

fn either(words: &[&str], at: &mut usize, licences: &BTreeSet<String>) -> bool {
    let mut met = both(words, at, licences);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        met |= both(words, at, licences);
    }
    met
}

fn both(words: &[&str], at: &mut usize, licences: &BTreeSet<String>) -> bool {
    let mut met = single(words, at, licences);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        met &= single(words, at, licences);
    }
    met
}

fn single(words: &[&str], at: &mut usize, licences: &BTreeSet<String>) -> bool {
    let word = words.get(*at).copied().unwrap_or_default();
    *at += 1;
    if word == "(" {
        let met = either(words, at, licences);
        *at += 1;
        return met;
    }
    // `MPL-2.0+` is met by `MPL-2.0`.
    licences.contains(&word.replace("+WITH+", " WITH "))
        || word.strip_suffix('+').is_some_and(|word| licences.contains(word))
}

/// A bill of materials in CycloneDX 1.5.
pub fn sbom(parts: &[Part]) -> Value {
    let component = |part: &Part, kind: &str| {
        let mut found = json!({
            "type": kind,
            "bom-ref": part.url(),
            "name": part.name,
            "version": part.version,
            "purl": part.url(),
            "licenses": [{ "expression": part.license.replace('/', " OR ") }],
        });
        if let Some(checksum) = &part.checksum {
            found["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
        }
        found
    };
    let (own, others): (Vec<&Part>, Vec<&Part>) = parts.iter().partition(|part| part.name == "anmin");
    let below = |part: &Part| {
        part.needs.iter().map(|(name, version)| format!("pkg:cargo/{name}@{version}")).collect::<Vec<_>>()
    };
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": own.first().map(|part| component(part, "application")) },
        "components": others.iter().map(|part| component(part, "library")).collect::<Vec<_>>(),
        "dependencies": parts.iter().map(|part| json!({ "ref": part.url(), "dependsOn": below(part) })).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_met_or_not() {
        let ours: BTreeSet<String> =
            ["MIT", "Apache-2.0", "ISC", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned).into();
        for (expression, met) in [
            ("MIT", true),
            ("GPL-3.0", false),
            ("MIT OR GPL-3.0", true),
            ("MIT/Apache-2.0", true),
            ("MIT AND GPL-3.0", false),
            ("(MIT OR Apache-2.0) AND ISC", true),
            ("(MIT OR Apache-2.0) AND Unicode-3.0", false),
            ("Apache-2.0 WITH LLVM-exception OR GPL-3.0", true),
            ("GPL-2.0 OR (MIT AND (ISC OR BSD-3-Clause))", true),
            ("", false),
            ("MIT OR", false),
        ] {
            assert_eq!(allowed(expression, &ours), met, "{expression}");
        }
    }
}
