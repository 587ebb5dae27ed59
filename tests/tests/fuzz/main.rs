//! Nothing that comes from outside may bring anmin down: what reads rules, profiles, messages, frames, readings, lists,
//! sites and words is fed with changed copies of anmin's own files, and must say what is wrong without a panic, in bounded time.
//!
//! There is no coverage to go by on a stable toolchain. What goes by instead is the answer: an input that was answered
//! otherwise than all before becomes a seed, so that the changes go deeper.
//!
//! ```text
//! make fuzz MINUTES=30                                  all targets, with their share of the time
//! ANMIN_FUZZ_TARGET=rule make fuzz MINUTES=5            one
//! ```
//!
//! An input that fails is kept in `target/fuzz-found`. Once it is mended it becomes a case of the reader's own tests.

mod mutate;
mod targets;

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mutate::{Dice, mutate};
use targets::{TARGETS, Target};

/// For each target in `make test`.
const SHORT: Duration = Duration::from_millis(1_500);
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

/// Writes an input where somebody finds it, and says where.
fn keep(name: &str, input: &[u8]) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/fuzz-found");
    let hash = input.iter().fold(0_u64, |hash, byte| hash.wrapping_mul(0x100_0000_01b3) ^ u64::from(*byte));
    let file = folder.join(format!("{name}-{hash:016x}"));
    std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&file, input)).expect("target can be written");
    file.display().to_string()
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
    while began.elapsed() < time && report.failures.len() < 5 {
        let (one, other) = (dice.below(corpus.len()), dice.below(corpus.len()));
        let input = mutate(&mut dice, &corpus[one], &corpus[other], target.longest);
        report.executions += 1;
        let at = Instant::now();
        match catch_unwind(AssertUnwindSafe(|| read(&input))) {
            Ok(answer) => {
                if seen.insert(answer) && corpus.len() < 20_000 {
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
    let variable = |name: &str| std::env::var(name).ok();
    let minutes: Option<f64> = variable("ANMIN_FUZZ_MINUTES").and_then(|minutes| minutes.parse().ok());
    let seed = variable("ANMIN_FUZZ_SEED").and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let wanted = variable("ANMIN_FUZZ_TARGET");
    let chosen: Vec<&Target> =
        TARGETS.iter().filter(|target| wanted.as_ref().is_none_or(|name| name == target.name)).collect();
    assert!(!chosen.is_empty(), "there is no target {wanted:?}");
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(chosen.len());
    let share =
        minutes.map_or(SHORT, |minutes| Duration::from_secs_f64(minutes * 60.0) * workers as u32 / chosen.len() as u32);
    let (next, reports) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(target) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let report = fuzz(target, seed, share);
                    reports.lock().expect("nobody panics with it in hand").push(report);
                }
            });
        }
    });
    let reports = reports.into_inner().expect("nobody panics with it in hand");
    for Report { name, executions, seeds, kept, slowest, .. } in &reports {
        println!(
            "{name:10} {executions:9} inputs from {seeds:3} seeds, {kept:5} kept for another answer, slowest {slowest:?}"
        );
    }
    println!("{} inputs in all", reports.iter().map(|report| report.executions).sum::<u64>());
    let failures: Vec<&str> = reports.iter().flat_map(|report| &report.failures).map(String::as_str).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
