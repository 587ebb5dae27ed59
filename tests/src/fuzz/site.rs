//! What people write: rules, profiles, sites, lists, and the readings that they play.

use std::sync::Arc;

use anmin::app::replay::readings::{self, Site};
use anmin::config::files::{SiteFiles, Source};
use anmin::config::parts::Parts;
use anmin::config::sheet::Sheet;
use anmin::config::site::{read_places, time_zone};
use anmin::config::{Config, devices, outside, tuned};
use anmin::intake::broker::accounts::{Accounts, Acl, Who, covers};
use anmin::register;
use anmin::spreadsheet::{self, Encoding};
use anmin_rules::cases::run_cases;
use anmin_rules::library;
use anmin_rules::replay::{self, Replay};
use anmin_rules::set::{RuleSet, RuleSource};
use anmin_sensors::document::{Document, Faults, parse_duration};
use anmin_sensors::point::{DeviceId, Kind, PointSpec, Points};
use anmin_sensors::profile::{self, Profile};
use anmin_sensors::time::Wall;

use super::{Read, files, hashed, root, seeds, signature, text};

/// Whether it is the turn of what is done with every n-th input only, because it takes its time. By the input itself, so
/// that it is the same when the input is played alone.
fn is_turn(bytes: &[u8], n: u64) -> bool {
    hashed(bytes).is_multiple_of(n)
}

/// Between a rule's two files.
const CUT: &str = "\n#### script ####\n";

pub fn rule_seeds() -> Vec<Vec<u8>> {
    library::shipped().into_iter().map(|rule| format!("{}{CUT}{}", rule.toml, rule.script).into_bytes()).collect()
}

fn source(toml: &str, script: &str) -> RuleSource {
    RuleSource {
        folder: "rules".to_owned(),
        name: "fuzz/rule".to_owned(),
        toml: toml.to_owned(),
        script: script.to_owned(),
    }
}

/// The loader, and for every eighth rule that it takes the cases, which load it again and again.
pub fn rule() -> Read {
    Box::new(move |bytes| {
        let text = text(bytes);
        let (toml, script) = text.split_once(CUT).unwrap_or((&text, "fn judge(gas) { normal() }"));
        let source = source(toml, script);
        let loaded = RuleSet::load(vec![source.clone()], Vec::new(), &Faults::default());
        if let [broken] = loaded.broken() {
            return signature(&broken.faults);
        }
        let outcomes = if is_turn(bytes, 8) { run_cases(&source) } else { Vec::new() };
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

pub fn script_seeds() -> Vec<Vec<u8>> {
    library::shipped().into_iter().map(|rule| rule.script.into_bytes()).collect()
}

/// The sandbox, with the same inputs, windows and limits whatever the script.
pub fn script(bytes: &[u8]) -> u64 {
    let source = source(ONE_OF_EACH, &text(bytes));
    let loaded = RuleSet::load(vec![source.clone()], Vec::new(), &Faults::default());
    match loaded.broken() {
        [] => {
            let outcomes = run_cases(&source);
            hashed(outcomes.iter().filter_map(|outcome| Some(outcome.failure.as_ref()?.column)).collect::<Vec<_>>())
        }
        [broken, ..] => signature(&broken.faults),
    }
}

pub fn profile_seeds() -> Vec<Vec<u8>> {
    profile::shipped_files().map(|(_, text)| text.as_bytes().to_vec()).collect()
}

/// The profile reader, and then its sample messages and frames.
pub fn profile(bytes: &[u8]) -> u64 {
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

pub fn config_seeds() -> Vec<Vec<u8>> {
    let golden = files(&root("gateway/tests/golden/config"), "toml");
    let mut seeds: Vec<Vec<u8>> = golden.iter().map(|file| std::fs::read(file).expect("it was just found")).collect();
    let docs = std::fs::read_to_string(root("gateway/docs/configuration.md")).expect("the reference is there");
    seeds.extend(docs.split("```toml").skip(1).filter_map(|rest| Some(rest.split("```").next()?.as_bytes().to_vec())));
    seeds
}

/// A whole site in one file. What it names on the disk is looked for where nothing is.
pub fn config(bytes: &[u8]) -> u64 {
    let text = text(bytes).into_owned();
    let _ = parse_duration(text.lines().next().unwrap_or_default());
    let change = tuned::Change {
        rule: "gas/leak".to_owned(),
        of: [("point".to_owned(), "g1/lel".to_owned())].into(),
        numbers: [("limit.red".to_owned(), Some(30.0)), ("deadband".to_owned(), None)].into(),
    };
    let tuned = tuned::changed(&text, &change);
    if let Ok(text) = &tuned {
        assert!(text.parse::<toml::Table>().is_ok(), "{text}");
    }
    let source = Source { name: "anmin.toml".to_owned(), text };
    let files = SiteFiles { base: root("target/fuzz/nowhere"), config: vec![source], ..SiteFiles::default() };
    let (peers, named) = outside::outside(&files);
    let certificates = outside::certificates(&files);
    let _ = Parts::of(&files, &[], &Points::default());
    let faults = Faults::default();
    let config = Config::parse(&files, &faults);
    signature(&faults.take())
        ^ hashed((config.is_some(), peers.len().min(4), named.len().min(4), certificates.len().min(2), tuned.is_ok()))
}

pub fn accounts_seeds() -> Vec<Vec<u8>> {
    seeds([
        "# names\nli:$7$101$c2FsdHNhbHQ=$aGFzaGhhc2g=\n",
        "user li\ntopic readwrite a/#\ntopic deny a/secret\npattern read dev/%u/%c/+\n",
        "topic read #\nuser 王\ntopic write 楼/+/up\n",
    ])
}

/// Who may do what at the embedded broker, as the files of Mosquitto say it.
pub fn accounts(bytes: &[u8]) -> u64 {
    let text = text(bytes);
    let accounts = Accounts::parse(&text).map_err(|faults| faults.len().min(4));
    let acl = Acl::parse(&text).map(|acl| {
        let who = [Who { user: None, client: "c" }, Who { user: Some("li"), client: "c/#" }];
        let topics = ["a/b", "a/secret", "dev/li/c/x", "$SYS/x"];
        who.map(|who| {
            topics.map(|topic| (acl.may_write(who, topic), acl.may_read(who, topic), acl.may_subscribe(who, topic)))
        })
    });
    let mut lines = text.lines();
    let (rule, asked) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    hashed((accounts.map(|_| ()), acl.map_err(|faults| faults.len().min(4)), covers(rule, asked)))
}

pub fn list_seeds() -> Vec<Vec<u8>> {
    let golden = files(&root("gateway/tests/golden/config"), "csv");
    let mut seeds: Vec<Vec<u8>> = golden.iter().map(|file| std::fs::read(file).expect("it was just found")).collect();
    seeds.push(
        "id,name,profile,place,unit,floor,room,bus,unit_id,interval,silent_after\n\
         g1,\"厨房, 一\",anmin-json-gas,b1,1,5,501,,,,90s\nm1,表,eastron-sdm120,b1,,,,bus,7,2s,\n"
            .as_bytes()
            .to_vec(),
    );
    seeds.push(places().into_bytes());
    seeds
}

fn places() -> String {
    "编号,网格,楼栋,纬度,经度,微型消防站\r\nb7,W03,7,36.06,103.83,st-1 st-2\r\nb8,W03,\"8,\n九\",,,\r\n".to_owned()
}

/// Lists of devices and of places.
pub fn list(bytes: &[u8]) -> u64 {
    let text = text(bytes);
    let (faults, of_places) = (Faults::default(), Faults::default());
    let entries = devices::read_csv("fuzz.csv", &text, &faults);
    let areas = read_places("fuzz.csv", &text, &of_places);
    signature(&faults.take())
        ^ signature(&of_places.take()).rotate_left(1)
        ^ hashed((entries.len().min(16), areas.len().min(16)))
}

pub fn sheet_seeds() -> Vec<Vec<u8>> {
    let mut seeds = list_seeds();
    let encoded = |encoding| spreadsheet::encode(&places(), encoding).expect("GBK has them");
    seeds.extend([Encoding::Utf8, Encoding::Gbk].map(encoded));
    for kind in register::Kind::ALL {
        let heads = kind.columns().iter().map(|column| column.zh).collect::<Vec<_>>().join(",");
        let cells = kind.columns().iter().map(|_| "1").collect::<Vec<_>>().join(",");
        seeds.push(format!("{heads}\r\n{cells}\r\n").into_bytes());
    }
    seeds
}

/// Spreadsheets in whatever encoding; one that is sound is the same when it is written and read again.
pub fn sheet(bytes: &[u8]) -> u64 {
    let registers = register::Kind::ALL.map(|kind| match register::read(kind, bytes) {
        Ok(rows) => {
            let written = register::write(kind, &rows, Encoding::Utf8).expect("UTF-8 has every letter");
            let again = register::read(kind, &written).expect("what was sound stays sound");
            assert_eq!(register::version(&again), register::version(&rows));
            Ok(rows.len().min(4))
        }
        Err(faults) => Err(faults.first().map(|fault| super::plain(&fault.text.en))),
    });
    let Ok((_, text)) = spreadsheet::decode(bytes) else { return hashed(registers) };
    let said = match Sheet::parse("fuzz.csv", &text) {
        Err(faults) => signature(&faults),
        Ok((about, read)) => {
            let (again, written) = Sheet::parse("again.csv", &read.text().0).expect("what was sound stays sound");
            assert_eq!((about, written.changes(&read)), (again, Vec::new()));
            assert_eq!(read.joined(&written, true).text().0, read.text().0);
            hashed((read.columns.len().min(12), read.rows.len().min(16)))
        }
    };
    said ^ hashed(registers)
}

pub fn readings_seeds() -> Vec<Vec<u8>> {
    seeds([
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
    ])
}

/// What `anmin replay` reads, CSV and line protocol, and every so often what the rules make of its times and values.
pub fn readings() -> Read {
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
            if read.samples.len() > 1 && is_turn(bytes, 16) {
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
