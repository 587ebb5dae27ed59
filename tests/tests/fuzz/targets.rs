//! What reads text and bytes from outside, and what it is fed with to begin with: anmin's own files and sample frames.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anmin::app::replay::readings::{self, Site};
use anmin::config::files::{SiteFiles, Source};
use anmin::config::sheet::Sheet;
use anmin::config::site::time_zone;
use anmin::config::{Config, devices};
use anmin::spreadsheet::{self, Encoding};
use anmin::warning::book::{Book, Here};
use anmin::warning::message::read_feed;
use anmin_rules::cases::run_cases;
use anmin_rules::library;
use anmin_rules::replay::{self, Replay};
use anmin_rules::set::{RuleSet, RuleSource};
use anmin_sensors::decode::stamp::iso8601;
use anmin_sensors::decode::topic::{Pattern, Template};
use anmin_sensors::decode::value::decimal;
use anmin_sensors::decode::{binary, homeassistant, modbus_ascii, zigbee2mqtt};
use anmin_sensors::document::{Document, Fault, Faults, parse_duration};
use anmin_sensors::point::{DeviceId, Kind, PointSpec, Points};
use anmin_sensors::profile::{self, Profile, Profiles};
use anmin_sensors::router::{Limits, Mapping, Router};
use anmin_sensors::survey::{Survey, apart};
use anmin_sensors::time::{Now, Wall};

/// Takes an input and says what came out as a number; panics where it is wrong.
pub type Read = Box<dyn FnMut(&[u8]) -> u64>;

/// Something that reads.
pub struct Target {
    pub name: &'static str,
    pub seeds: fn() -> Vec<Vec<u8>>,
    pub reader: fn() -> Read,
    /// Longer inputs are cut.
    pub longest: usize,
}

const fn target(name: &'static str, seeds: fn() -> Vec<Vec<u8>>, reader: fn() -> Read, longest: usize) -> Target {
    Target { name, seeds, reader, longest }
}

pub static TARGETS: [Target; 14] = [
    target("rule", rule_seeds, rule, 16_384),
    target("script", script_seeds, || Box::new(script), 4_096),
    target("profile", profile_seeds, || Box::new(profile), 16_384),
    target("message", message_seeds, message, 8_192),
    target("sparkplug", sparkplug_seeds, sparkplug, 1_024),
    target("frame", frame_seeds, frame, 1_024),
    target("modbus_ascii", modbus_ascii_seeds, || Box::new(ascii), 1_024),
    target("readings", readings_seeds, readings, 4_096),
    target("sheet", sheet_seeds, || Box::new(sheet), 8_192),
    target("survey", survey_seeds, survey, 2_048),
    target("list", list_seeds, || Box::new(list), 8_192),
    target("config", config_seeds, || Box::new(config), 16_384),
    target("warning", warning_seeds, || Box::new(warning), 16_384),
    target("words", words_seeds, || Box::new(words), 256),
];

/// What came out, without the numbers and names that are only the input's.
fn signature(faults: &[Fault]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for fault in faults {
        let plain = |c: &char| c.is_ascii_lowercase() || *c == ' ' || *c == '`';
        fault.message.chars().filter(plain).take(48).collect::<String>().hash(&mut hasher);
    }
    hasher.finish()
}

fn hashed(value: impl std::hash::Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Between a rule's two files.
const CUT: &str = "\n#### script ####\n";

fn rule_seeds() -> Vec<Vec<u8>> {
    library::shipped().into_iter().map(|rule| format!("{}{CUT}{}", rule.toml, rule.script).into_bytes()).collect()
}

/// The loader, and for every eighth rule that it takes the cases, which load it again and again.
fn rule() -> Read {
    let mut sound = 0_u32;
    Box::new(move |bytes| {
        let text = text(bytes);
        let (toml, script) = text.split_once(CUT).unwrap_or((&text, "fn judge(gas) { normal() }"));
        let source = RuleSource {
            folder: "rules".to_owned(),
            name: "fuzz/rule".to_owned(),
            toml: toml.to_owned(),
            script: script.to_owned(),
        };
        let loaded = RuleSet::load(vec![source.clone()], Vec::new(), &Faults::default());
        if let [broken] = loaded.broken() {
            return signature(&broken.faults);
        }
        sound += 1;
        let outcomes = if sound.is_multiple_of(8) { run_cases(&source) } else { Vec::new() };
        signature(&outcomes.into_iter().filter_map(|outcome| outcome.failure).collect::<Vec<_>>())
    })
}

const ONE_OF_EACH: &str = r#"
title = { zh = "甲", en = "a" }
message = { zh = "甲", en = "a" }
advice = { zh = "甲", en = "a" }
[[input]]
role = "gas"
kind = "gas.lel"
[[input]]
role = "other"
kind = "gas.co"
scope = "room"
optional = true
[[window]]
name = "mean"
measure = "mean"
input = "gas"
over = "5m"
[limit.yellow]
value = 10.0
unit = "%LEL"
source = "fuzz"
[limit.red]
value = 50.0
unit = "%LEL"
source = "fuzz"
[[case]]
name = "c"
steps = [{ at = "0s", gas = 30.0, other = 5.0 }, { at = "5m", gas = 60.0, expect = "red" }]
"#;

fn script_seeds() -> Vec<Vec<u8>> {
    library::shipped().into_iter().map(|rule| rule.script.into_bytes()).collect()
}

/// The sandbox, with the same inputs, windows and limits whatever the script.
fn script(bytes: &[u8]) -> u64 {
    let script = text(bytes);
    let source =
        RuleSource { folder: "rules".to_owned(), name: "fuzz/script".to_owned(), toml: ONE_OF_EACH.to_owned(), script };
    let loaded = RuleSet::load(vec![source.clone()], Vec::new(), &Faults::default());
    match loaded.broken() {
        [] => {
            let outcomes = run_cases(&source);
            hashed(outcomes.iter().filter_map(|outcome| Some(outcome.failure.as_ref()?.column)).collect::<Vec<_>>())
        }
        [broken, ..] => signature(&broken.faults),
    }
}

fn profile_seeds() -> Vec<Vec<u8>> {
    profile::shipped_files().map(|(_, text)| text.as_bytes().to_vec()).collect()
}

/// The profile reader, and then its sample messages and frames.
fn profile(bytes: &[u8]) -> u64 {
    let faults = Faults::default();
    let parsed = Profile::parse("fuzz.toml", &text(bytes), &faults);
    let said = signature(&faults.take());
    match parsed {
        Some(profile) => {
            let results = profile::run_cases(&profile);
            hashed(results.iter().map(|result| result.outcome.is_ok()).collect::<Vec<_>>()) ^ said
        }
        None => said,
    }
}

/// The texts behind a key of all cases of all profiles.
fn samples(key: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (_, text) in profile::shipped_files() {
        let table: toml::Table = text.parse().expect("shipped profiles are TOML");
        let cases = table.get("case").and_then(toml::Value::as_array).into_iter().flatten();
        found.extend(cases.filter_map(|case| case.get(key)?.as_str().map(str::to_owned)));
    }
    found
}

fn message_seeds() -> Vec<Vec<u8>> {
    samples("payload").into_iter().map(String::into_bytes).collect()
}

/// The way of one MQTT message: the router with a mapping of each shape, and every profile on its own.
fn message() -> Read {
    let profiles = Profiles::shipped();
    let faults = Faults::default();
    let toml = r#"
        [[mapping]]
        topic = "json/{device}"
        profile = "anmin-json-gas"
        unknown = "provision"
        [[mapping]]
        preset = "zigbee2mqtt"
        [[mapping]]
        preset = "homeassistant"
    "#;
    let document = Document::parse("fuzz", toml, &faults).expect("sound TOML");
    let root = document.root(&faults);
    let mappings: Vec<Mapping> = root.tables("mapping").iter().filter_map(|r| Mapping::read(r, &profiles)).collect();
    assert_eq!(mappings.len(), 3, "{:?}", faults.take());
    let all: Vec<Arc<Profile>> = profiles.iter().cloned().collect();
    let mut router = Router::new(vec![("fuzz".into(), mappings)], profiles, Default::default(), Limits::default());
    let mut points = Points::default();
    let mut next = 0_usize;
    Box::new(move |bytes| {
        let mut out = Vec::new();
        for topic in ["json/one", "zigbee2mqtt/厨房", "zigbee2mqtt/bridge/devices", "homeassistant/sensor/x/config"] {
            let topic: Arc<str> = topic.into();
            let _ = router.decode(&mut points, "fuzz", &topic, bytes, false, Now::default(), &mut out);
        }
        // One of them in turn: all would take their time for each input.
        next += 1;
        let profile = &all[next % all.len()];
        let mut found = Vec::new();
        let read = profile.mqtt.as_ref().map(|shape| {
            shape
                .decode("", bytes, |n, value| found.push((n, value.is_ok())))
                .map(drop)
                .map_err(|why| format!("{why:?}"))
        });
        let why = read.and_then(Result::err).unwrap_or_default();
        hashed((&why[..why.len().min(24)].to_owned(), next % all.len(), out.len().min(8), found.len().min(8)))
    })
}

/// Messages of Sparkplug nodes, each behind a byte for its topic and one for its length.
fn sparkplug_seeds() -> Vec<Vec<u8>> {
    let hex = |text: &str| binary::parse_hex(text).unwrap_or_default();
    let birth = hex(
        "0880d095ffbc3112120a0562645365711880d095ffbc312008580012210a144e6f646520436f6e74726f6c2f526562697274681880d095ffbc31200b70001800",
    );
    let device = hex(
        "0880d095ffbc3112190a076761732f6c656c10011880d095ffbc312009650000cc41121a0a0b736d6f6b652f616c61726d10021880d095ffbc31200b70001801",
    );
    let data = hex("0888f795ffbc31121010011888f795ffbc3120096500004c421802");
    let death = hex("0880d095ffbc31120b0a05626453657120085800");
    let seed = |messages: &[(u8, &[u8])]| -> Vec<u8> {
        messages.iter().flat_map(|(topic, payload)| [&[*topic, payload.len() as u8], *payload].concat()).collect()
    };
    vec![
        seed(&[(0, &birth), (3, &device), (5, &data), (1, &death), (5, &data)]),
        seed(&[(3, &device), (5, &data), (5, &data), (4, &data), (5, &data)]),
        seed(&[(0, &device), (2, &data), (0, &birth), (2, &data)]),
    ]
}

/// Births, data and deaths in any order: the router remembers what they said from message to message, and each input
/// meets a node of its own.
fn sparkplug() -> Read {
    let profiles = Profiles::shipped();
    let faults = Faults::default();
    let toml = "[[mapping]]\npreset = \"sparkplug\"\nprofile = \"generic-sparkplug\"\nunknown = \"provision\"\ndevice = \"{name}\"\n";
    let document = Document::parse("fuzz", toml, &faults).expect("sound TOML");
    let mappings: Vec<Mapping> =
        document.root(&faults).tables("mapping").iter().filter_map(|r| Mapping::read(r, &profiles)).collect();
    assert_eq!(mappings.len(), 1, "{:?}", faults.take());
    let mut points = Points::default();
    Box::new(move |bytes| {
        let source = ("fuzz".into(), mappings.clone());
        let mut router = Router::new(vec![source], profiles.clone(), Default::default(), Limits::default());
        let (mut out, mut said, mut rest) = (Vec::new(), Vec::new(), bytes);
        while let [topic, length, behind @ ..] = rest {
            let kind =
                ["NBIRTH/n", "NDEATH/n", "NDATA/n", "DBIRTH/n/d", "DDEATH/n/d", "DDATA/n/d"][usize::from(*topic) % 6];
            let (payload, behind) = behind.split_at(usize::from(*length).min(behind.len()));
            rest = behind;
            let topic: Arc<str> = format!("spBv1.0/g/{kind}").into();
            let read = router.decode(&mut points, "fuzz", &topic, payload, *length > 250, Now::default(), &mut out);
            said.push(read.map_err(|rejected| rejected.why.as_str()));
        }
        hashed((format!("{said:?}"), out.len().min(16), router.take_asks().len(), router.take_news().len()))
    })
}

/// A request, an earlier answer and an answer, each behind its length.
/// Our own CAP messages, each by itself, inside a feed, and beside a feed that only links.
fn warning_seeds() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gateway/tests/golden/cap");
    let mut seeds = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the golden files are there").flatten() {
        let message = std::fs::read_to_string(entry.path()).expect("a golden file can be read");
        let body = message.split_once("?>").map_or(&*message, |(_, body)| body);
        seeds.push(
            format!(
                "<feed xmlns=\"http://www.w3.org/2005/Atom\"><entry><content>{body}</content></entry>\
                 <entry><link type=\"application/cap+xml\" href=\"a.xml?b&amp;c\"/></entry></feed>"
            )
            .into_bytes(),
        );
        seeds.push(message.into_bytes());
    }
    seeds
}

/// What is sound is taken, and is over in the end.
fn warning(bytes: &[u8]) -> u64 {
    let plain = |why: &str| why.chars().filter(|c| c.is_ascii_lowercase() || *c == ' ').take(48).collect::<String>();
    let feed = match read_feed(bytes) {
        Ok(feed) => feed,
        Err(why) => return hashed(plain(&why)),
    };
    let source: Arc<str> = "office".into();
    let mut book = Book::new(Here { area_code: Some("620102001001".to_owned()), places: vec![(36.06, 103.83)] });
    let now = Wall::from_millis(1_772_328_600_000);
    let mut said = vec![feed.links.len().to_string()];
    for message in feed.messages {
        said.push(match message {
            Ok(message) => book.take(now, &source, message).as_str().to_owned(),
            Err(why) => plain(&why),
        });
    }
    let in_force = book.in_force(now);
    assert!(in_force.iter().all(|warning| warning.until > now), "{in_force:?}");
    book.forget(Wall::from_micros(i64::MAX));
    assert_eq!(book.in_force(now), [], "all of it is over in the end");
    hashed(said)
}

fn frame_seeds() -> Vec<Vec<u8>> {
    let hex = |text: &str| binary::parse_hex(text).unwrap_or_default();
    let mut seeds = Vec::new();
    for (request, answer) in samples("request").iter().zip(samples("answer")) {
        let mut seed = Vec::new();
        for part in [hex(request), hex(&answer), hex(&answer)] {
            seed.push(part.len() as u8);
            seed.extend(part);
        }
        seeds.push(seed);
    }
    seeds
}

/// Modbus answers to the registers of every profile, with checksums that fit whatever was changed.
fn frame() -> Read {
    let all: Vec<Arc<Profile>> = Profiles::shipped().iter().filter(|of| of.modbus.is_some()).cloned().collect();
    let mut next = 0_usize;
    Box::new(move |bytes| {
        let mut rest = bytes;
        let mut part = || {
            let Some((length, behind)) = rest.split_first() else { return Vec::new() };
            let (part, behind) = behind.split_at(usize::from(*length).min(behind.len()));
            rest = behind;
            let mut part = part.to_vec();
            if let Some(end) = part.len().checked_sub(2) {
                let crc = binary::crc16(&part[..end]).to_le_bytes();
                part[end..].copy_from_slice(&crc);
            }
            part
        };
        let (request, earlier, answer) = (part(), part(), part());
        next += 1;
        let profile = &all[next % all.len()];
        let unit = profile.modbus.as_ref().expect("only those that have one are here");
        let read = unit.decode_frames(&request, Some(&earlier), &answer);
        let alone = unit.decode_frames(&request, None, &answer);
        hashed((format!("{:?}", read.as_ref().map(Vec::len)), alone.map(|values| values.len()).ok()))
    })
}

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// All files below a folder with this ending.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("the golden sites are there") {
            let path = entry.expect("a folder can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn list_seeds() -> Vec<Vec<u8>> {
    let golden = files(&root("gateway/tests/golden/config"), "csv");
    let mut seeds: Vec<Vec<u8>> = golden.iter().map(|file| std::fs::read(file).expect("it was just found")).collect();
    seeds.push(
        "id,name,profile,place,unit,floor,room,bus,unit_id,interval,silent_after\n\
         g1,\"厨房, 一\",anmin-json-gas,b1,1,5,501,,,,90s\nm1,表,eastron-sdm120,b1,,,,bus,7,2s,\n"
            .as_bytes()
            .to_vec(),
    );
    seeds
}

/// Device lists of spreadsheets.
fn list(bytes: &[u8]) -> u64 {
    let faults = Faults::default();
    let entries = devices::read_csv("fuzz.csv", &text(bytes), &faults);
    signature(&faults.take()) ^ hashed(entries.len().min(16))
}

fn modbus_ascii_seeds() -> Vec<Vec<u8>> {
    let frames = [&[1, 3, 0, 0x6B, 0, 3][..], &[1, 3, 2, 0, 7], &[1, 0x83, 2], &[0; 255]].map(modbus_ascii::write);
    frames.iter().cloned().chain([frames.concat()]).collect()
}

/// Characters of a line; a frame that is read is the same when it is written and read again.
fn ascii(bytes: &[u8]) -> u64 {
    let mut reader = modbus_ascii::Reader::default();
    let frames: Vec<_> = bytes.iter().filter_map(|character| reader.take(*character)).collect();
    for frame in frames.iter().flatten() {
        let written = modbus_ascii::write(frame);
        let mut reader = modbus_ascii::Reader::default();
        let again: Vec<_> = written.iter().filter_map(|character| reader.take(*character)).collect();
        assert_eq!(again, [Ok(frame.clone())]);
    }
    hashed((frames.len().min(8), frames.iter().filter(|frame| frame.is_ok()).count().min(8), reader.is_inside()))
}

fn sheet_seeds() -> Vec<Vec<u8>> {
    let mut seeds = list_seeds();
    let places = "编号,网格,楼栋,纬度,经度,微型消防站\r\nb7,W03,7,36.06,103.83,st-1 st-2\r\nb8,W03,\"8,\n九\",,,\r\n";
    seeds.extend(
        [Encoding::Utf8, Encoding::Gbk].map(|encoding| spreadsheet::encode(places, encoding).expect("GBK has them")),
    );
    seeds
}

/// Spreadsheets in whatever encoding; one that is sound is the same when it is written and read again.
fn sheet(bytes: &[u8]) -> u64 {
    let Ok((_, text)) = spreadsheet::decode(bytes) else { return 1 };
    match Sheet::parse("fuzz.csv", &text) {
        Err(faults) => signature(&faults),
        Ok((about, read)) => {
            let (again, written) = Sheet::parse("again.csv", &read.text().0).expect("what was sound stays sound");
            assert_eq!((about, written.changes(&read)), (again, Vec::new()));
            assert_eq!(read.joined(&written, true).text().0, read.text().0);
            hashed((read.columns.len().min(12), read.rows.len().min(16)))
        }
    }
}

/// Topics with their payloads, one a line behind a blank.
fn survey_seeds() -> Vec<Vec<u8>> {
    let seeds = [
        "zigbee2mqtt/bridge/state {\"state\":\"online\"}\nzigbee2mqtt/a {\"gas\":true}",
        "tele/p/SENSOR {\"DS18B20\":{\"Temperature\":20.6}}\nhouse/k1/leak ON\nhouse/k2/temperature 21.5",
        "a/1/x/data {\"h\":{\"temperature\":20.5},\"battery\":80}\na/2/y/data {}\n$oc/devices/d/sys/properties/report {}",
    ];
    seeds.into_iter().map(|seed| seed.as_bytes().to_vec()).collect()
}

/// Whatever is published, the proposed mappings are sound together.
fn survey() -> Read {
    let profiles = Profiles::shipped();
    Box::new(move |bytes| {
        let mut survey = Survey::default();
        for line in bytes.split(|byte| *byte == b'\n') {
            let at = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
            let topic = String::from_utf8_lossy(&line[..at]);
            // What no broker delivers.
            if !topic.is_empty() && !topic.contains(['+', '#']) && !topic.chars().any(char::is_control) {
                survey.handle(&topic, line.get(at + 1..).unwrap_or_default());
            }
        }
        let proposals = survey.proposals(&profiles);
        let said: Vec<_> = proposals.iter().map(|proposal| (proposal.what, proposal.profile.is_some())).collect();
        for group in apart(proposals) {
            let text: String = group.iter().map(|proposal| format!("[[mapping]]\n{}", proposal.keys)).collect();
            let faults = Faults::default();
            if let Some(document) = Document::parse("fuzz", &text, &faults) {
                let root = document.root(&faults);
                let read: Vec<Mapping> =
                    root.tables("mapping").iter().filter_map(|r| Mapping::read(r, &profiles)).collect();
                Mapping::check_overlaps(&read, &faults);
            }
            assert_eq!(faults.take(), [], "{text}");
        }
        hashed(said)
    })
}

fn readings_seeds() -> Vec<Vec<u8>> {
    let seeds = [
        "time,point,kind,value,unit,quality,reason\n\
         2026-03-01T09:30:00+08:00,g1/lel,gas.lel,12.5,%LEL,good,\n\
         2026-03-01T09:30:10,g1/lel,gas.lel,60,%LEL,uncertain,jump\n\
         2026-03-01T01:31:00Z,s1/smoke,fire.smoke,true,,good,\n\
         2026-03-01T01:32:00Z,s1/smoke,fire.smoke,,,bad,comms\n",
        "time,point,value\n2026-03-01 09:30:00,g1/lel,30\n2026-03-01 09:40:00,g1/lel,0\n",
        "gas.lel,point=g1/lel,device=g1,area=b1,room=501 value=12.5 1772328600000000000\n\
         gas.lel,point=g1/lel,quality=uncertain value=60,reason=\"jump\" 1772328610000000000\n\
         fire.smoke,point=s1/smoke value=true 1772328620000000000\n",
        "device.text,point=g1/text,room=a\\ b\\,c\\=d text=\"ok \\\"so\\\"\" 1772328600000000000\n",
    ];
    seeds.into_iter().map(|seed| seed.as_bytes().to_vec()).collect()
}

/// What `anmin replay` reads, CSV and line protocol, and every so often what the rules make of its times and values.
fn readings() -> Read {
    let faults = Faults::default();
    let document = Document::parse("fuzz", "", &faults).expect("nothing is sound TOML");
    let zone = time_zone(&document.root(&faults));
    let mut points = Points::default();
    for (device, name, kind) in [("g1", "lel", "gas.lel"), ("s1", "smoke", "fire.smoke")] {
        let spec = Arc::new(PointSpec::plain(name, Kind::named(kind).expect("a kind of the table")));
        points.add(DeviceId::new(device), None, &"fuzz".into(), &Arc::default(), &[spec]).expect("two devices");
    }
    let rules: Vec<RuleSource> = library::shipped()
        .into_iter()
        .filter(|rule| ["gas/co_dose", "gas/leak", "fire/smoke"].contains(&&*rule.name))
        .collect();
    let mut sound = 0_u32;
    Box::new(move |bytes| {
        let kind_of = |_: &str| None;
        let site =
            Site { zone: &zone, kind_of: &kind_of, from: Wall::from_micros(i64::MIN), to: Wall::from_micros(i64::MAX) };
        let mut said = Vec::new();
        for read in [readings::csv(bytes, &site), readings::lines(bytes, &site)] {
            let read = read.expect("memory can be read");
            said.push((
                read.samples.len().min(4),
                read.bad.0.first().map(|bad| bad.why.chars().take(12).collect::<String>()),
            ));
            sound += u32::from(read.samples.len() > 1);
            if read.samples.len() > 1 && sound.is_multiple_of(16) {
                let mut replay = Replay::new(RuleSet::load(rules.clone(), Vec::new(), &Faults::default()), &points);
                let samples: Vec<_> = read
                    .samples
                    .into_iter()
                    .filter_map(|sample| {
                        let point = points.find(&read.labels[sample.point as usize].point)?;
                        Some(replay::sample(point, sample.time, sample.value, sample.quality))
                    })
                    .collect();
                replay.handle_samples(&points, &samples, |_| {});
                let end = samples.last().map_or(Wall::default(), |sample| sample.time);
                said.push((replay.finish(&points, end, |_| {}).occurrences.len().min(4), None));
            }
        }
        hashed(said)
    })
}

fn config_seeds() -> Vec<Vec<u8>> {
    let golden = files(&root("gateway/tests/golden/config"), "toml");
    let mut seeds: Vec<Vec<u8>> = golden.iter().map(|file| std::fs::read(file).expect("it was just found")).collect();
    let docs = std::fs::read_to_string(root("gateway/docs/configuration.md")).expect("the reference is there");
    seeds.extend(docs.split("```toml").skip(1).filter_map(|rest| Some(rest.split("```").next()?.as_bytes().to_vec())));
    seeds
}

/// A whole site in one file. What it names on the disk is looked for where nothing is.
fn config(bytes: &[u8]) -> u64 {
    let source = Source { name: "anmin.toml".to_owned(), text: text(bytes) };
    let files = SiteFiles { base: root("target/fuzz-nowhere"), config: vec![source], ..SiteFiles::default() };
    let faults = Faults::default();
    let config = Config::parse(&files, &faults);
    signature(&faults.take()) ^ hashed(config.is_some())
}

fn words_seeds() -> Vec<Vec<u8>> {
    let seeds = [
        "2026-03-01T09:30:00.123+08:00",
        "20260301T013000Z",
        "1772328600.42",
        "1h30m",
        "250ms",
        "-12.5e3",
        "01 03 04 00 0a",
        "zigbee2mqtt/{device}/+/#",
        "b{building}-{device}",
        "{\"name\":\"x\",\"state_topic\":\"a/b\",\"device_class\":\"gas\",\"value_template\":\"{{ value_json.gas }}\"}",
        "[{\"friendly_name\":\"厨房/一\",\"ieee_address\":\"0x01\",\"type\":\"EndDevice\"}]",
    ];
    seeds.into_iter().map(|seed| seed.as_bytes().to_vec()).collect()
}

/// Everything that reads a word or a line.
fn words(bytes: &[u8]) -> u64 {
    let text = text(bytes);
    let pattern = Pattern::parse(&text);
    let found = pattern.as_ref().ok().map(|pattern| (pattern.filter(), pattern.find("b1/厨房/lel/x").is_some()));
    let entities = homeassistant::entities("binary_sensor", bytes);
    let mapping =
        entities.as_ref().map(|entities| homeassistant::mapping("[[mqtt.mapping]]", "x", entities).len() / 64);
    hashed((
        iso8601(&text, None).is_some(),
        parse_duration(&text).is_some(),
        decimal(&text).is_some(),
        binary::parse_hex(&text).map(|bytes| bytes.len().min(8)),
        Template::parse(&text, &["device", "building"]).is_ok(),
        zigbee2mqtt::topic("zigbee2mqtt", &text).is_some(),
        zigbee2mqtt::friendly_name(&zigbee2mqtt::device_id(&text)) == text,
        (found.is_some(), mapping, zigbee2mqtt::devices(bytes).map(|devices| devices.len().min(4))),
    ))
}
