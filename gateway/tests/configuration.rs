//! What `anmin check` and `anmin run` say about sites, sound and unsound.

mod peers;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use peers::{Folder, Raw, free_port, publish, soon};
use tokio::io::{AsyncBufReadExt as _, BufReader};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/config")
}

/// What `anmin check SITE` says in `folder`, and its exit code.
fn check(folder: &Path, site: &str) -> (String, i32) {
    let output = Command::new(env!("CARGO_BIN_EXE_anmin"))
        .args(["check", site])
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs");
    let said = [output.stdout, output.stderr].concat();
    (String::from_utf8(said).expect("output is UTF-8"), output.status.code().unwrap_or(-1))
}

/// Each folder of `tests/golden/config` is a site, and the text beside it what `check` says of it. To write the texts
/// anew: `UPDATE_GOLDEN=1 cargo test -p anmin --test configuration`, then review them like code.
#[test]
fn every_fault_of_a_site_is_told_at_once_with_its_place_and_a_hint() {
    let mut sites = Vec::new();
    for entry in std::fs::read_dir(golden()).expect("the golden files are there") {
        let path = entry.expect("a folder can be read").path();
        if path.is_dir() {
            sites.push(path.file_name().expect("it has a name").to_string_lossy().into_owned());
        }
    }
    assert!(sites.len() >= 10, "{sites:?}");
    let mut differences = String::new();
    for site in sites {
        let (said, code) = check(&golden(), &site);
        let said = format!("{said}exit code {code}\n");
        let file = golden().join(format!("{site}.txt"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&file, &said).expect("the golden file can be written");
        }
        let expected = std::fs::read_to_string(&file).unwrap_or_default();
        if said != expected {
            let _ = write!(differences, "{} says\n{expected}but check said\n{said}\n", file.display());
        }
    }
    assert!(differences.is_empty(), "{differences}UPDATE_GOLDEN=1 writes the texts anew");
}

#[test]
fn what_is_no_site_is_said() {
    let folder = Folder::new("no-site");
    std::fs::create_dir(folder.0.join("bare")).expect("a folder for a folder");
    folder.write("large.toml", &"#".repeat((64 << 20) + 1));
    for (site, words) in [
        ("nowhere", "nowhere: cannot be read: there is no such file"),
        ("bare", "bare/anmin.toml: cannot be read: there is no such file"),
        ("large.toml", "large.toml: cannot be read: it is larger than 64 MiB"),
        ("/dev/zero", "/dev/zero: cannot be read: it is larger than 64 MiB"),
    ] {
        let (said, code) = check(&folder.0, site);
        assert!(code == 1 && said.contains(words) && said.contains("1 fault"), "{site}: {code} {said}");
    }
}

/// Ten megabytes of tables, of keys that nobody knows, of brackets, and of nothing: each is read or refused, and soon.
#[test]
fn a_large_configuration_is_read_or_refused() {
    let folder = Folder::new("large-configuration");
    let repeated = |part: &dyn Fn(usize) -> String| {
        let mut text = String::from("[site]\nid = \"large\"\n");
        for n in 0.. {
            if text.len() > 10_000_000 {
                break;
            }
            text.push_str(&part(n));
        }
        text
    };
    let device = |n| format!("[[device]]\nid = \"gas-{n}\"\nprofile = \"anmin-json-gas\"\nroom = \"{n}\"\n");
    for (name, text, code, words) in [
        ("devices", repeated(&device), 0, "sound"),
        ("comments", repeated(&|_| "# nothing\n".to_owned()), 0, "sound"),
        ("unknown", repeated(&|n| format!("unknown_key_{n} = \"{}\"\n", "x".repeat(1_000))), 1, "is not a known key"),
        ("brackets", repeated(&|_| "a = [[[[[[[[[[[[[[[[[[[[".to_owned()), 1, "not TOML"),
    ] {
        folder.write("anmin.toml", &text);
        let (said, found) = check(&folder.0, ".");
        let said: String = said.chars().take(2_000).collect();
        assert!(found == code && said.contains(words), "{name}: {found} {said}");
    }
}

/// `anmin run`, killed when it is dropped; what it says, line by line.
struct Daemon {
    _child: tokio::process::Child,
    lines: tokio::io::Lines<BufReader<tokio::process::ChildStderr>>,
    said: String,
}

impl Daemon {
    fn run(folder: &Folder) -> Self {
        let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_anmin"))
            .args(["run", "."])
            .current_dir(&folder.0)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the binary runs");
        let lines = BufReader::new(child.stderr.take().expect("stderr is piped")).lines();
        Self { _child: child, lines, said: String::new() }
    }

    /// Waits until a line holds all the words; it may have been said already.
    async fn until(&mut self, words: &[&str]) {
        let fits = |line: &str| words.iter().all(|word| line.contains(word));
        while !self.said.lines().any(fits) {
            let line = soon(&format!("{words:?} after\n{}", self.said), self.lines.next_line()).await;
            let line = line.expect("its log is text").unwrap_or_else(|| panic!("it ended:\n{}", self.said));
            self.said.push_str(&line);
            self.said.push('\n');
        }
    }
}

/// A site with one broken rule is watched by the others, and the broken one is an alarm until it is mended.
#[tokio::test]
async fn a_broken_rule_keeps_no_site_from_being_watched() {
    let folder = Folder::new("broken-rule");
    let port = free_port();
    folder.write(
        "anmin.toml",
        &format!(
            "[site]\nid = \"s\"\n[web]\nlisten = \"127.0.0.1:0\"\n[broker]\nlisten = \"127.0.0.1:{port}\"\n\
             [[broker.mapping]]\ntopic = \"s/{{device}}\"\n[[device]]\nid = \"g\"\nprofile = \"anmin-json-gas\"\n"
        ),
    );
    std::fs::create_dir_all(folder.0.join("rules/gas")).expect("a folder for a rule");
    let rule = golden().join("broken-rules/rules/gas");
    let take = |from: &str, to: &str| {
        let text = std::fs::read_to_string(rule.join(from)).expect("the golden files are there");
        folder.write(&format!("rules/gas/{to}"), &text);
    };
    take("endless.toml", "ours.toml");
    take("endless.rhai", "ours.rhai");

    let (said, code) = check(&folder.0, ".");
    assert!(code == 1 && said.contains("does a loop never end?") && said.contains("1 broken rule"), "{code} {said}");

    let mut daemon = Daemon::run(&folder);
    daemon.until(&["rules/gas/ours.rhai:1:4: the script takes more than 20000 operations"]).await;
    daemon.until(&["1 broken rule; the other 18 rules stay in force"]).await;
    daemon.until(&["the duty desk is at"]).await;
    daemon
        .until(&["rule=system/rule", "rule-file:gas/ours", "cause=\"raised\"", "rule gas/ours cannot be loaded"])
        .await;
    let (mut sensor, _) = Raw::connect(port, "sensor", true).await;
    sensor.send(&publish("s/g", br#"{"v":60}"#, 0, 0, false)).await;
    daemon.until(&["rule=gas/leak", "level=\"red\"", "cause=\"raised\""]).await;
    drop(daemon);

    take("sound.rhai", "ours.rhai");
    let mut daemon = Daemon::run(&folder);
    daemon.until(&["rule=system/rule", "rule-file:gas/ours", "cause=\"returned\""]).await;
    assert!(!daemon.said.contains("error"), "{}", daemon.said);
}
