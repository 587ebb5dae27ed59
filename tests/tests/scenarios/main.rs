//! Whether the shipped rules see what they are for, and leave people in peace: hundreds of seeded variations of hazards
//! and of common days, with the truth known, against plain thresholds ([`page`]).
//!
//! ```text
//! make scenarios SEEDS=200                              more variations, and the tables
//! UPDATE_GOLDEN=1 make scenarios                        writes rules/SCENARIOS.md anew: read it like code
//! ANMIN_STORY="burst pipe" make scenarios SEEDS=5       one story, with what called people out and when
//! ```

mod page;
mod run;
mod signal;
mod stories;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anmin_rules::library;
use anmin_rules::set::RuleSet;
use anmin_sensors::document::Faults;
use anmin_sensors::point::Kind;
use page::Outcome;
use signal::Dice;
use stories::{CALM, HAZARDS, Story};

/// Variations of each story on the page, and in `make test`, where the page is only asked whether the rules have changed
/// since.
const SEEDS: u64 = 20;
const FEW: u64 = 2;

/// All stories, on all cores.
fn play_all(stories: &[&'static Story], seeds: u64) -> Vec<Outcome> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(story) = stories.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let endings = run::play(story, 1, seeds);
                    done.lock().expect("nobody panics with it in hand").push((*story, endings));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("nobody panics with it in hand");
    done.sort_by_key(|(story, _)| stories.iter().position(|other| other.name == story.name));
    done
}

fn all() -> Vec<&'static Story> {
    HAZARDS.iter().chain(&CALM).collect()
}

/// What must be so, whatever the dice say. One sentence a failure.
fn shortcomings(outcomes: &[Outcome]) -> Vec<String> {
    let (mut found, mut slow) = (Vec::new(), Vec::new());
    for (story, endings) in outcomes.iter().filter(|(story, _)| story.is_hazard()) {
        for (n, ending) in endings.iter().enumerate() {
            let which = format!("{}, variation {}", story.name, n + 1);
            let hazard = ending.hazard.expect("a story of a hazard has one");
            if ending.rules.delay(hazard).is_none() {
                found.push(format!("{which}: the hazard was missed"));
            }
            // A millisecond is what the stories' clock is rounded to.
            if let Some((late, confirm)) = page::late(ending).filter(|(late, confirm)| *late > confirm + 0.002) {
                slow.push(format!(
                    "{which}: told {late:.1} s after the first touch, and the rule makes sure for {confirm} s"
                ));
            }
        }
    }
    let played: usize = outcomes.iter().filter(|(story, _)| story.is_hazard()).map(|(_, endings)| endings.len()).sum();
    if slow.len() * 500 > played {
        found.append(&mut slow);
    }
    let (rules, plain) = page::false_alarms(outcomes);
    if rules * 5 > plain {
        found.push(format!("{rules} false alarms, and {plain} of plain thresholds: not five times fewer"));
    }
    found
}

/// What the rules that have a part in the stories judge by, as a number: neither words nor cases.
fn library() -> String {
    let played: Vec<Kind> =
        all().iter().flat_map(|story| (story.make)(&mut Dice::new(1)).sensors).map(|sensor| sensor.kind).collect();
    let rules = RuleSet::load(library::shipped(), Vec::new(), &Faults::default());
    let mut text = String::new();
    for (_, spec) in rules.rules() {
        if spec.inputs.iter().any(|input| !input.optional && !played.contains(&input.kind)) {
            continue;
        }
        let script = library::shipped().into_iter().find(|source| source.name == spec.id.as_str());
        let limits: Vec<_> = spec.limits.iter().map(|(name, limit)| (name, limit.value, limit.deadband)).collect();
        let (on, off, deadband, latch) = (spec.on_delay, spec.off_delay, spec.deadband, spec.latch);
        text += &format!("{} {:?} {limits:?} {on:?} {off:?} {deadband} {latch}", spec.id, spec.windows);
        text += &script.expect("a shipped rule has a source").script;
    }
    let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    format!("{:016x}", text.bytes().fold(0xcbf2_9ce4_8422_2325, fnv))
}

fn asked() -> Option<u64> {
    std::env::var("ANMIN_SEEDS").ok().and_then(|seeds| seeds.parse().ok())
}

#[test]
fn no_hazard_is_missed_and_false_alarms_are_few() {
    let whole = asked().unwrap_or(FEW);
    if let Ok(name) = std::env::var("ANMIN_STORY") {
        let one = all().into_iter().find(|story| story.name == name).expect("a story of the page");
        for (n, ending) in run::play(one, 1, whole).iter().enumerate() {
            println!("{} {:?}\n  rules {:?}\n  plain {:?}", n + 1, ending.hazard, ending.by, ending.plain);
        }
        return;
    }
    let outcomes = play_all(&all(), whole);
    let made = page::page(&outcomes, &library());
    println!("{made}");
    let found = shortcomings(&outcomes);
    assert!(found.is_empty(), "{}", found.join("\n"));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rules/SCENARIOS.md");
    if whole == SEEDS && std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, &made).expect("the page can be written");
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    let hint = "UPDATE_GOLDEN=1 make scenarios writes it";
    assert!(written.contains(&library()), "the rules are not those of rules/SCENARIOS.md any more: {hint}");
    if whole == SEEDS {
        let other = made.lines().zip(written.lines()).find(|(made, written)| made != written);
        assert!(made == written, "rules/SCENARIOS.md is out of date: {other:?}; {hint}");
    }
}

#[test]
fn a_seed_plays_the_same_story_again() {
    for story in [&HAZARDS[0], &HAZARDS[11]] {
        assert_eq!(run::play(story, 3, 2), run::play(story, 3, 2), "{}", story.name);
        assert_eq!(run::play(story, 4, 1)[0], run::play(story, 3, 2)[1], "{}: alone as in company", story.name);
    }
}
