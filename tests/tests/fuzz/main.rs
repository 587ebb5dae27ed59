//! Nothing that comes from outside may bring anmin down: what reads rules, profiles, messages, frames, readings, lists,
//! sites, records and words is fed with changed copies of anmin's own files, and must say what is wrong without a panic, in
//! bounded time.
//!
//! Here shortly, and with what stable Rust has: the answer shows the way, and an input that was answered otherwise than all
//! before becomes a seed. `make fuzz` runs the same targets led by coverage, for as long as one likes.
//!
//! An input that fails is kept in `target/fuzz/failed`, where `make fuzz` plays it again. Once it is mended it becomes a case
//! of the reader's own tests.

mod mutate;

use std::collections::{BTreeSet, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anmin_tests::fuzz::{TARGETS, Target};
use mutate::{Dice, mutate};

/// For each target.
const SHORT: Duration = Duration::from_millis(1_000);
/// No input may take longer, in whatever profile.
const PATIENCE: Duration = Duration::from_secs(20);

struct Report {
    name: &'static str,
    executions: u64,
    seeds: usize,
    kept: usize,
    slowest: Duration,
    failures: Vec<String>,
}

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// Writes an input where somebody finds it, and says how to play it again.
fn keep(name: &str, input: &[u8]) -> String {
    let folder = root("target/fuzz/failed");
    let hash = input.iter().fold(0_u64, |hash, byte| hash.wrapping_mul(0x100_0000_01b3) ^ u64::from(*byte));
    let file = format!("{name}-short-{hash:016x}");
    std::fs::create_dir_all(&folder)
        .and_then(|()| std::fs::write(folder.join(&file), input))
        .expect("target can be written");
    format!("make fuzz TARGET={name} INPUT=target/fuzz/failed/{file}")
}

fn fuzz(target: &Target, seed: u64, time: Duration) -> Report {
    let mut corpus = (target.seeds)();
    let seeds = corpus.len();
    assert!(seeds > 2, "{} has only {seeds} seeds", target.name);
    let mut read = (target.reader)();
    let (mut dice, mut seen) = (Dice::new(seed), HashSet::new());
    let mut report =
        Report { name: target.name, executions: 0, seeds, kept: 0, slowest: Duration::ZERO, failures: Vec::new() };
    let began = Instant::now();
    while (began.elapsed() < time || report.executions < seeds as u64) && report.failures.len() < 5 {
        // First the seeds as they are.
        let input = match corpus.get(report.executions as usize) {
            Some(seed) if report.executions < seeds as u64 => seed.clone(),
            _ => {
                let (one, other) = (dice.below(corpus.len()), dice.below(corpus.len()));
                mutate(&mut dice, &corpus[one], &corpus[other], target.longest)
            }
        };
        report.executions += 1;
        let at = Instant::now();
        match catch_unwind(AssertUnwindSafe(|| read(&input))) {
            Ok(answer) => {
                if seen.insert(answer) && report.executions > seeds as u64 && corpus.len() < 20_000 {
                    report.kept += 1;
                    corpus.push(input.clone());
                }
            }
            Err(cause) => {
                let said = cause.downcast_ref::<String>().map(String::as_str).or(cause.downcast_ref::<&str>().copied());
                report.failures.push(format!("{} panics: {said:?}: {}", target.name, keep(target.name, &input)));
                // What it was in the middle of is not to be relied on.
                read = (target.reader)();
            }
        }
        let took = at.elapsed();
        report.slowest = report.slowest.max(took);
        if took > PATIENCE {
            report.failures.push(format!("{} took {took:?}: {}", target.name, keep(target.name, &input)));
        }
    }
    report
}

#[test]
fn whatever_comes_is_answered_without_a_panic() {
    let seed = std::env::var("ANMIN_FUZZ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, reports) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(target) = TARGETS.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let report = fuzz(target, seed, SHORT);
                    reports.lock().expect("nobody panics with it in hand").push(report);
                }
            });
        }
    });
    let reports = reports.into_inner().expect("nobody panics with it in hand");
    for Report { name, executions, seeds, kept, slowest, .. } in &reports {
        println!(
            "{name:14} {executions:9} inputs from {seeds:3} seeds, {kept:5} kept for another answer, slowest {slowest:?}"
        );
    }
    println!("{} inputs in all", reports.iter().map(|report| report.executions).sum::<u64>());
    let failures: Vec<&str> = reports.iter().flat_map(|report| &report.failures).map(String::as_str).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// What decoders are made of, and reads nothing by itself.
const NO_READERS: [&str; 2] = ["mod", "preset"];

#[test]
fn every_decoder_has_a_target() {
    let decoders: BTreeSet<String> = std::fs::read_dir(root("sensors/src/decode"))
        .expect("the decoders are there")
        .map(|entry| entry.expect("a folder can be read").path())
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .filter(|name| !NO_READERS.contains(&name.as_str()))
        .collect();
    assert!(decoders.len() > 10, "{decoders:?}");
    let targets: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(targets.len(), TARGETS.len(), "each has a name of its own");
    let without: Vec<_> = decoders.difference(&targets).collect();
    assert!(without.is_empty(), "no target in tests/src/fuzz.rs: {without:?}");
}

#[test]
fn cargo_fuzz_has_the_targets_of_the_list() {
    let text = std::fs::read_to_string(root("tests/fuzz/Cargo.toml")).expect("it is there");
    let manifest: toml::Table = text.parse().expect("a manifest is TOML");
    let bins = manifest["bin"].as_array().expect("it lists its programs");
    let bins: Vec<&str> = bins.iter().filter_map(|bin| bin["name"].as_str()).collect();
    let targets: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(bins, targets, "tests/fuzz/Cargo.toml and the list in tests/src/fuzz.rs, in one order");
}
