//! What `anmin check` and `anmin run` say about sites, sound and unsound.

mod peers;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anmin::config::Config;
use anmin::config::files::{SiteFiles, Source};
use anmin_rules::schema::document;
use anmin_sensors::document::{Expected, Faults};
use anmin_sensors::point::{Form, KINDS};
use anmin_sensors::profile::{Profiles, run_cases};
use peers::{Folder, Raw, free_port, publish, soon};
use serde_json::Value;
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
    daemon.until(&["1 broken rule; the other 49 rules stay in force"]).await;
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

/// The site that a newcomer copies first, in both languages.
#[test]
fn the_first_site_of_each_readme_is_sound() {
    for readme in ["README.md", "README.zh-CN.md"] {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("gateway/ stands in the root");
        let folder = Folder::new(readme);
        folder.write("anmin.toml", &first_site(&root.join(readme)));
        let (said, code) = check(&folder.0, ".");
        assert!(code == 0 && said.contains("sound. 2 devices with 11 points"), "{readme}: {said}");
    }
}

fn first_site(readme: &Path) -> String {
    let text = std::fs::read_to_string(readme).expect("the file is there");
    let (_, block) = text.split_once("   ```toml\n").expect("the step in which anmin.toml is written");
    let lines = block.lines().take_while(|line| line.trim() != "```").map(|line| line.trim_start_matches("   "));
    lines.collect::<Vec<_>>().join("\n")
}

/// `docs/configuration.md`, taken apart.
struct Reference {
    text: String,
    /// The blocks of examples: the language, the first line of the content in the file, the content.
    examples: Vec<(String, usize, String)>,
    /// The keys of its tables, such as `mqtt.mapping.topic`, of profiles `profile:point.kind`.
    keys: BTreeSet<String>,
}

impl Reference {
    fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
        let text = std::fs::read_to_string(path).expect("the reference is there");
        let (mut examples, mut keys) = (Vec::new(), BTreeSet::new());
        let mut tables: Vec<String> = Vec::new();
        let mut lines = text.lines().enumerate();
        while let Some((n, line)) = lines.next() {
            if let Some(heading) = line.strip_prefix("### ") {
                tables = tables_of(heading);
            } else if let Some(language) = line.strip_prefix("```").filter(|language| !language.is_empty()) {
                let body = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```");
                examples.push((language.to_owned(), n + 1, body.collect::<Vec<_>>().join("\n") + "\n"));
            } else if let [_, names, kind, default, _, _] = line.split('|').map(str::trim).collect::<Vec<_>>()[..]
                && names.starts_with('`')
            {
                assert!(!kind.is_empty() && !default.is_empty(), "line {}: {line}", n + 1);
                for (table, name) in tables.iter().flat_map(|table| quoted(names).map(move |name| (table, name))) {
                    let key = if table.ends_with(':') { format!("{table}{name}") } else { format!("{table}.{name}") };
                    if kind == "bilingual text" {
                        keys.extend(["zh", "en"].map(|language| format!("{key}.{language}")));
                    }
                    keys.insert(key);
                }
            }
        }
        Self { examples, keys, text }
    }
}

/// The words in backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The tables that a heading names: `[x]` or `[[x]]`, `of a profile` where it is one of those, or a profile's file itself.
fn tables_of(heading: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut parts = heading.split('`').skip(1);
    while let (Some(name), after) = (parts.next(), parts.next().unwrap_or_default()) {
        let path = name.trim_matches(['[', ']']);
        found.push(match (name.starts_with("profiles/"), after.starts_with(" of a profile")) {
            (true, _) => "profile:".to_owned(),
            (_, true) => format!("profile:{path}"),
            _ => path.to_owned(),
        });
    }
    found
}

/// Mappings are the same wherever they stand.
fn one_mapping(key: &str) -> String {
    key.replacen("broker.mapping", "mqtt.mapping", 1).replacen("gbt26875.mapping", "mqtt.mapping", 1).replacen(
        "http.mapping",
        "mqtt.mapping",
        1,
    )
}

/// Reads the examples of the reference as the one site that they are, and remembers what the parser asked for.
async fn read_examples(reference: &Reference, folder: &Folder) -> (Option<Config>, Faults) {
    folder.certificates().await;
    for name in ["secrets", "tls", "data", "rules", "profiles", "words"] {
        std::fs::create_dir_all(folder.0.join(name)).expect("a folder for files");
    }
    for (from, to) in [("ca.pem", "ca.pem"), ("server.pem", "server.pem"), ("server.key", "server.key")] {
        std::fs::copy(folder.0.join(from), folder.0.join("tls").join(to)).expect("the certificates are there");
    }
    folder.write("secrets/accounts", "");
    folder.write("secrets/acl", "pattern write shequ/+/%u/up\n");
    for secret in
        ["web", "zigbee", "office", "property", "town", "tsdb", "duty-group-sign", "cloud", "mail", "sms", "oidc"]
    {
        folder.write(&format!("secrets/{secret}"), "0123456789abcdef\n");
    }
    std::fs::create_dir_all(folder.0.join("plans")).expect("a folder for drawings");
    folder.write(
        "plans/site.geojson",
        r#"{"type":"Feature","properties":{"place":"b1"},"geometry":{"type":"Point","coordinates":[103.8343,36.0611]}}"#,
    );
    let floor = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/plans/b3-f1.png");
    std::fs::copy(floor, folder.0.join("plans/b1-f1.png")).expect("the demo has a floor");
    folder.write("secrets/duty-numbers", "13800000001\n");
    folder.write("secrets/duty-report", "0123456789abcdef0123456789abcdef\n");
    folder.write("secrets/duty-group", "https://robot.example.cn/send?key=0123456789abcdef\n");
    let mut files = SiteFiles { base: folder.0.clone(), ..SiteFiles::default() };
    for (language, line, text) in &reference.examples {
        // Faults then name the line of the reference.
        let source = |name: &str| Source { name: name.to_owned(), text: "\n".repeat(*line) + text.as_str() };
        match (language.as_str(), text.lines().next().unwrap_or_default()) {
            ("csv", first) if first.contains("grid") => drop(folder.write("places.csv", text)),
            ("csv", _) => drop(folder.write("devices.csv", text)),
            ("toml", "# anmin.toml") => files.config.push(source("docs/configuration.md")),
            ("toml", first) if first.starts_with("# profiles/") => {
                files.profiles.push(source("docs/configuration.md, profile"));
            }
            other => panic!("line {line}: an example says first which file it is of, not {other:?}"),
        }
    }
    let faults = Faults::recording();
    let config = Config::parse(&files, &faults);
    (config, faults)
}

/// The examples of the reference are one sound site, and its tables name the keys that the parser asks for: all of them and
/// no others. What a reader asks for only in one form of a table is asked for only if there is an example of that form.
#[tokio::test]
async fn the_reference_is_what_the_parser_knows() {
    let reference = Reference::read();
    let folder = Folder::new("reference");
    let (config, faults) = read_examples(&reference, &folder).await;
    let asked = faults.asked();
    let found: Vec<String> = faults.take().iter().map(ToString::to_string).collect();
    assert!(found.is_empty() && config.is_some(), "{}", found.join("\n"));
    let config = config.expect("checked above");
    assert_eq!(config.points.devices().len(), 4, "two devices stand there, two in the list");
    for own in config.profiles.iter().filter(|profile| profile.id.starts_with("example-")) {
        for case in run_cases(own) {
            assert_eq!(case.outcome, Ok(()), "{}: {}", own.id, case.case);
        }
    }

    let known: BTreeSet<String> = asked
        .into_iter()
        .map(|(source, key)| if source.ends_with("profile") { format!("profile:{key}") } else { key })
        .map(|key| one_mapping(&key))
        .collect();
    // Tables are known to the root by their names alone.
    let is_table = |key: &&String| known.iter().any(|other| other.starts_with(&format!("{key}.")));
    let missing: Vec<&String> = known.iter().filter(|key| !reference.keys.contains(*key) && !is_table(key)).collect();
    assert!(missing.is_empty(), "the parser knows keys that the reference does not name: {missing:#?}");
    let named = reference.keys.iter().map(|key| one_mapping(key));
    let unknown: Vec<String> = named.filter(|key| !known.contains(key)).collect();
    assert!(unknown.is_empty(), "the reference names keys that the parser does not ask for: {unknown:#?}");

    for info in KINDS {
        let unit = match info.form {
            Form::Flag => "flag",
            Form::Text => "text",
            Form::Number if info.unit.is_empty() => "number",
            Form::Number => info.unit,
        };
        let row = format!("| `{}` | {unit} | {} {} |", info.name, info.en, info.zh);
        assert!(reference.text.contains(&row), "the reference lacks the row\n{row}");
    }
}

/// What the parser expects of each key of a configuration: the mappings of all brokers are read by one reader, so each knows
/// what any of them was asked for.
fn expected(faults: &Faults) -> BTreeMap<String, (Expected, bool)> {
    let of_site: BTreeSet<String> = faults
        .asked()
        .into_iter()
        .filter(|(source, _)| source == "docs/configuration.md")
        .map(|(_, key)| key)
        .collect();
    let mut all: BTreeMap<String, (Expected, bool)> = BTreeMap::new();
    for (key, (expected, required)) in faults.expected().into_iter().filter(|(key, _)| of_site.contains(key)) {
        match all.entry(one_mapping(&key)) {
            Entry::Vacant(place) => drop(place.insert((expected, required))),
            Entry::Occupied(mut place) => {
                let (known, always) = place.get_mut();
                known.forms.extend(expected.forms);
                known.words.extend(expected.words);
                *always &= required;
            }
        }
    }
    for of in ["broker", "gbt26875", "http"] {
        let mappings: Vec<_> = all.iter().filter(|(key, _)| key.starts_with("mqtt.mapping")).collect();
        let copies = mappings.into_iter().map(|(key, what)| (key.replacen("mqtt", of, 1), what.clone()));
        all.extend(copies.collect::<Vec<_>>());
    }
    all
}

/// Where a value does not fit the schema, by the words of draft 7 that ours uses.
fn misfit(schema: &Value, value: &toml::Value, at: &str) -> Option<String> {
    if let Some(any) = schema["anyOf"].as_array() {
        let misfits: Vec<String> = any.iter().map_while(|schema| misfit(schema, value, at)).collect();
        return (misfits.len() == any.len()).then(|| misfits.join(", or "));
    }
    if let Some(words) = schema["enum"].as_array() {
        return (!words.iter().any(|word| word.as_str() == value.as_str())).then(|| format!("{at} is {value}"));
    }
    let fits = match schema["type"].as_str() {
        None => true,
        Some("string") => value.is_str(),
        Some("boolean") => value.is_bool(),
        Some("number") => value.is_float() || value.is_integer(),
        Some("integer") => value.is_integer(),
        Some("array") => value.is_array(),
        Some("object") => value.is_table(),
        Some(other) => panic!("the schema has a type {other:?}"),
    };
    if !fits {
        return Some(format!("{at} is {value}, expected {}", schema["type"]));
    }
    let table = value.as_table().into_iter().flatten();
    let list = value.as_array().into_iter().flatten().filter(|_| schema.get("items").is_some());
    list.map(|item| misfit(&schema["items"], item, at))
        .chain(table.filter(|_| schema.get("properties").is_some()).map(|(key, value)| {
            let at = format!("{at}.{key}");
            match (schema["properties"].get(key), &schema["additionalProperties"]) {
                (Some(schema), _) => misfit(schema, value, &at),
                (None, Value::Bool(true)) => None,
                (None, Value::Bool(false)) => Some(format!("{at} is not known")),
                (None, schema) => misfit(schema, value, &at),
            }
        }))
        .flatten()
        .next()
        .or_else(|| {
            let mut required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            required.find(|key| value.get(key).is_none()).map(|key| format!("{at}.{key} is missing"))
        })
}

/// The schema for editors is made of what the parser asks for while it reads the examples of the reference, so the two
/// cannot disagree. To write it anew: `UPDATE_GOLDEN=1 cargo test -p anmin --test configuration`.
#[tokio::test]
async fn the_schema_is_what_the_parser_reads() {
    let reference = Reference::read();
    let folder = Folder::new("schema");
    let (_, faults) = read_examples(&reference, &folder).await;
    let made = document("A site of anmin", expected(&faults).into_iter());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/site.schema.json");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &made).expect("the schema can be written");
    } else {
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(made == written, "schema/site.schema.json differs from the parser; UPDATE_GOLDEN=1 writes it anew");
    }

    let schema: Value = serde_json::from_str(&made).unwrap_or_else(|error| panic!("{error}: {made}"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("gateway/ stands in the root");
    let mut sites: Vec<(String, String)> =
        ["README.md", "README.zh-CN.md"].map(|readme| (readme.to_owned(), first_site(&root.join(readme)))).into();
    let demo = std::fs::read_to_string(root.join("gateway/demo/anmin.toml")).expect("the demo is there");
    sites.push(("the demo".to_owned(), demo));
    let examples = reference.examples.iter().filter(|(_, _, text)| text.starts_with("# anmin.toml"));
    sites.extend(examples.map(|(_, line, text)| (format!("line {line}"), text.clone())));
    assert!(sites.len() > 8, "{}", sites.len());
    for (name, text) in &sites {
        let site: toml::Table = text.parse().unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(misfit(&schema, &toml::Value::Table(site), ""), None, "{name}");
    }
    for (text, wanted) in [
        ("[site]\nname = 'x'", ".site.id is missing"),
        ("[site]\nid = 'x'\nnmae = 'y'", ".site.nmae is not known"),
        ("[site]\nid = 'x'\nname = 5", ".site.name is 5, expected \"string\", or .site.name is 5, expected \"object\""),
        ("[desk]\ncall_level = 'purple'", ".desk.call_level is \"purple\""),
        ("[[broker.mapping]]\ntopic = 'a'\nunknown = 'x'", "unknown"),
    ] {
        let site: toml::Table = text.parse().expect("it is TOML");
        let found = misfit(&schema, &toml::Value::Table(site), "");
        assert!(found.as_deref().is_some_and(|found| found.contains(wanted)), "{text}: {found:?}");
    }
}

/// The catalogue lists what the shipped files hold. To write it anew:
/// `UPDATE_GOLDEN=1 cargo test -p anmin --test configuration`.
#[test]
fn the_catalogue_of_profiles_is_what_is_shipped() {
    let profiles = Profiles::shipped();
    let mut rows: Vec<(bool, &str, &str, String)> = profiles
        .iter()
        .map(|profile| {
            let mut over: Vec<&str> = Vec::new();
            over.extend(profile.mqtt.iter().map(|_| "MQTT"));
            over.extend(profile.modbus.iter().map(|_| "Modbus"));
            let mut kinds: Vec<(&str, usize)> = Vec::new();
            for spec in profile.specs() {
                match kinds.iter_mut().find(|(kind, _)| *kind == spec.kind.as_str()) {
                    Some((_, count)) => *count += 1,
                    None => kinds.push((spec.kind.as_str(), 1)),
                }
            }
            let several = |count: usize| if count == 1 { String::new() } else { format!(" ×{count}") };
            let kinds: Vec<String> = kinds.iter().map(|(kind, count)| format!("`{kind}`{}", several(*count))).collect();
            let vendor = if profile.vendor.is_empty() { "any 通用" } else { &profile.vendor };
            let row = format!(
                "| {vendor} | {} | {} {} | [`{}`](../../sensors/profiles/{}.toml) | {} | {} |\n",
                profile.model,
                profile.zh,
                profile.en,
                profile.id,
                profile.id,
                over.join(", "),
                kinds.join(", "),
            );
            (profile.vendor.is_empty(), vendor, profile.model.as_str(), row)
        })
        .collect();
    rows.sort();
    let mut text = String::from(
        "# Device profiles\n\n\
         The models that anmin brings, by vendor and model. 随附的设备型号，按厂家和型号排列。Give a device the `profile` of its row.\n\
         Where yours is not here, copy the nearest of those for any vendor, set what its manual says, and prove it with a frame\n\
         or message of its own as a `[[case]]`; the keys stand in [configuration](configuration.md#device-profiles).\n\
         找不到型号时，复制最接近的通用文件，按说明书修改，并用设备自己的报文作为 `[[case]]` 验证。\n\n\
         | vendor 厂家 | model 型号 | what 名称 | profile | over | points 测点 |\n|---|---|---|---|---|---|\n",
    );
    rows.into_iter().for_each(|(.., row)| text.push_str(&row));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/profiles.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).expect("the catalogue can be written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(text == written, "docs/profiles.md differs from the files; UPDATE_GOLDEN=1 writes it anew");
}
