//! What anmin is made of: every crate in the binary is listed, comes from where crates come from, and may be passed on.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anmin_tests::supply::{allowed, parts, sbom, versions};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ stands in the root").to_owned()
}

#[test]
fn what_we_are_made_of_is_listed_and_allowed() {
    let deny: toml::Table =
        fs::read_to_string(root().join("deny.toml")).expect("it is there").parse().expect("it is TOML");
    let listed = deny["licenses"]["allow"].as_array().into_iter().flatten().filter_map(toml::Value::as_str);
    let licences: BTreeSet<String> = listed.map(str::to_owned).collect();
    let parts = parts();
    assert!(parts.len() > 100, "{}", parts.len());
    for part in &parts {
        let what = format!("{} {}", part.name, part.version);
        assert!(allowed(&part.license, &licences), "{what}: {:?} is not allowed by deny.toml", part.license);
        match &part.source {
            None => assert!(part.name.starts_with("anmin"), "{what} comes from nowhere"),
            Some(source) => {
                assert!(source.starts_with("registry+"), "{what} comes from {source}");
                assert!(part.checksum.as_ref().is_some_and(|sum| sum.len() == 64), "{what} has no checksum");
            }
        }
    }
    let needed = |licence: &String| {
        let without = licences.iter().filter(|other| *other != licence).cloned().collect();
        parts.iter().any(|part| !allowed(&part.license, &without))
    };
    let unneeded: Vec<&String> = licences.iter().filter(|licence| !needed(licence)).collect();
    assert!(unneeded.is_empty(), "deny.toml allows {unneeded:?}, which nothing needs");

    // What is known to be unsafe and passed over is about something that is still in the binary, and says why.
    for ignored in deny["advisories"]["ignore"].as_array().into_iter().flatten() {
        let (id, reason) = (ignored["id"].as_str(), ignored["reason"].as_str());
        let (about, why) = reason.and_then(|reason| reason.split_once(": ")).unwrap_or_default();
        assert!(parts.iter().any(|part| part.name == about) && why.len() > 10, "{id:?}: {reason:?}");
    }

    let bill = sbom(&parts);
    assert_eq!((&bill["bomFormat"], &bill["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
    assert_eq!(bill["metadata"]["component"]["name"], "anmin");
    let components = bill["components"].as_array().expect("they are listed");
    assert_eq!(components.len(), parts.len() - 1);
    let refs: BTreeSet<&str> = components.iter().filter_map(|part| part["bom-ref"].as_str()).collect();
    assert_eq!(refs.len(), components.len(), "each is there once");
    for name in ["pkg:cargo/rusqlite@", "pkg:cargo/rustls@", "pkg:cargo/rhai@"] {
        assert!(refs.iter().any(|found| found.starts_with(name)), "{name} is not in {refs:?}");
    }
    assert!(!refs.iter().any(|found| found.contains("anmin-tests")), "what only tests is not in the binary");
    for dependency in bill["dependencies"].as_array().into_iter().flatten() {
        for below in dependency["dependsOn"].as_array().into_iter().flatten().filter_map(|below| below.as_str()) {
            assert!(refs.contains(below), "{below} is needed and not listed");
        }
    }
}

/// Of every crate that is there in more than one generation all but the newest stand in deny.toml, with who needs them; and nothing
/// stands there that has gone.
#[test]
fn no_crate_is_there_twice_unless_it_is_said_why() {
    let deny: toml::Table =
        fs::read_to_string(root().join("deny.toml")).expect("it is there").parse().expect("it is TOML");
    assert_eq!(deny["bans"]["multiple-versions"].as_str(), Some("deny"));
    let mut said = BTreeSet::new();
    for skipped in deny["bans"]["skip"].as_array().into_iter().flatten() {
        let (what, why) = (skipped["crate"].as_str().unwrap_or_default(), skipped["reason"].as_str());
        assert!(why.is_some_and(|why| why.len() > 10), "{what}: {why:?}");
        said.insert(what.to_owned());
    }
    let mut older = BTreeSet::new();
    for (name, versions) in versions() {
        let all_but_the_newest = versions.iter().rev().skip(1);
        older.extend(all_but_the_newest.map(|version| format!("{name}@{version}")));
    }
    let unsaid: Vec<&String> = older.difference(&said).collect();
    assert!(
        unsaid.is_empty(),
        "{unsaid:?}: there is a newer one as well; `cargo tree -i CRATE` says who needs the older"
    );
    let gone: Vec<&String> = said.difference(&older).collect();
    assert!(gone.is_empty(), "deny.toml passes over {gone:?}, which are not there twice");
}

/// A mitigation without a test is none.
#[test]
fn every_mitigation_names_a_test_that_is_there() {
    let text = fs::read_to_string(root().join("gateway/docs/threats.md")).expect("it is there");
    let mut sources = String::new();
    let mut open: Vec<PathBuf> =
        ["sensors", "rules", "gateway/src", "gateway/tests", "tests"].map(|name| root().join(name)).into();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            sources.push_str(&fs::read_to_string(&path).unwrap_or_default());
        }
    }
    let mut rows = 0;
    for line in text.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, threat, stops, shown, _] = cells[..] else { continue };
        if threat == "threat" || threat.starts_with("---") {
            continue;
        }
        let tests: Vec<&str> = shown.split('`').skip(1).step_by(2).collect();
        assert!(!stops.is_empty() && !tests.is_empty(), "{line}");
        for test in tests {
            assert!(sources.contains(&format!("fn {test}()")), "{threat}: there is no test {test}");
        }
        rows += 1;
    }
    assert!(rows > 25, "{rows}");
}

/// Goal: the words of the document are what works. Method: a key of this test, the script that signs, the commands that the document
/// has an operator give, before and after one byte was changed.
#[test]
fn what_was_released_is_known_by_its_signature() {
    let folder = std::env::temp_dir().join(format!("anmin-release-{}", std::process::id()));
    let (home, out) = (folder.join("keys"), folder.join("out"));
    fs::create_dir_all(&home).expect("the folder for temporary files can be written");
    fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).expect("it is ours");
    fs::create_dir_all(&out).expect("it is ours");
    let parts = folder.join("anmin.cdx.json");
    fs::write(&parts, "{}").expect("it is ours");
    let package = out.join("anmin_0.1.0_amd64.deb");
    fs::write(&package, "a package").expect("it is ours");
    let sh = |line: &str| {
        let ran = Command::new("sh").args(["-c", line]).current_dir(&out).env("GNUPGHOME", &home).output();
        ran.expect("every machine has sh")
    };
    let made = sh("gpg --batch --quiet --passphrase '' --quick-generate-key release@example.cn ed25519 sign never");
    assert!(made.status.success(), "{made:?}");
    let script = root().join("systemd/deb/sign.sh");
    let sign = |key: &str| sh(&format!("sh {} {} {} {key}", script.display(), out.display(), parts.display()));
    assert!(!sign("").status.success(), "nothing is released unsigned");
    let signed = sign("release@example.cn");
    assert!(signed.status.success(), "{signed:?}");

    let text = fs::read_to_string(root().join("gateway/docs/releases.md")).expect("it is there");
    let checks: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("$ "))
        .skip(2)
        .take_while(|line| !line.starts_with("sudo"))
        .collect();
    assert_eq!(checks.len(), 2, "{checks:?}");
    let sound = || checks.iter().map(|line| sh(line).status.success()).collect::<Vec<_>>();
    assert_eq!(sound(), [true, true]);
    fs::write(&package, "A package").expect("it is ours");
    assert_eq!(sound(), [true, false], "the package was changed");
    let refit = sh("sha256sum anmin_*.deb anmin.cdx.json >SHA256SUMS");
    assert!(refit.status.success());
    assert_eq!(sound(), [false, true], "and the list with it");
    sh("gpgconf --kill all");
    fs::remove_dir_all(&folder).expect("made above");
}
