//! The page that says how it went: `rules/SCENARIOS.md`.

use std::fmt::Write;

use crate::run::{Ending, Told};
use crate::signal::DAY;
use crate::stories::Story;

pub type Outcome = (&'static Story, Vec<Ending>);

/// Days of all sensors together.
fn device_days(endings: &[Ending]) -> f64 {
    endings.iter().map(|ending| ending.length / DAY * ending.sensors as f64).sum()
}

fn falsely(endings: &[Ending], told: impl Fn(&Ending) -> &Told) -> (usize, usize) {
    let each =
        endings.iter().map(|ending| (told(ending).falsely(ending.hazard), told(ending).occasions(ending.hazard)));
    each.fold((0, 0), |(alarms, occasions), (a, o)| (alarms + a, occasions + o))
}

/// False alarms by the rules and by plain thresholds, without those of the story in which plain thresholds had the most:
/// a single broken detector must not make the rules look good.
pub fn false_alarms(outcomes: &[Outcome]) -> (usize, usize) {
    let of = |endings: &[Ending]| (falsely(endings, |it| &it.rules).0, falsely(endings, |it| &it.plain).0);
    let mut each: Vec<(usize, usize)> = outcomes.iter().map(|(_, endings)| of(endings)).collect();
    each.sort_by_key(|(_, plain)| *plain);
    each.pop();
    each.iter().fold((0, 0), |(rules, plain), (more, most)| (rules + more, plain + most))
}

fn delays(endings: &[Ending], told: impl Fn(&Ending) -> &Told) -> Vec<f64> {
    let mut found: Vec<f64> =
        endings.iter().filter_map(|ending| told(ending).delay(ending.hazard.unwrap_or_default())).collect();
    found.sort_by(f64::total_cmp);
    found
}

/// How much later than the first touch of a plain threshold the rules told of it, and how much that may be: the rule's `on_delay`.
/// `None` where one of the two never did.
pub fn late(ending: &Ending) -> Option<(f64, f64)> {
    let hazard = ending.hazard?;
    Some((ending.rules.delay(hazard)? - ending.plain.delay(hazard)?, ending.confirm?))
}

fn quantiles(sorted: &[f64]) -> String {
    let at = |share: f64| sorted.get(((sorted.len().max(1) - 1) as f64 * share).round() as usize).copied();
    let say = |share: f64| at(share).map_or("–".to_owned(), |seconds| format!("{seconds:.0}"));
    format!("{} / {} / {}", say(0.5), say(0.95), say(1.0))
}

fn a_month(alarms: usize, days: f64) -> String {
    format!("{:.2}", alarms as f64 / days * 30.0)
}

/// The whole page.
pub fn page(outcomes: &[Outcome], library: &str) -> String {
    let variations: usize = outcomes.iter().map(|(_, endings)| endings.len()).sum();
    let readings: usize = outcomes.iter().flat_map(|(_, endings)| endings).map(|ending| ending.readings).sum();
    let (hazards, calm): (Vec<&Outcome>, Vec<&Outcome>) = outcomes.iter().partition(|(story, _)| story.is_hazard());
    let mut out = format!(
        "# The shipped rules against plain thresholds\n\n\
         Made by `UPDATE_GOLDEN=1 make scenarios`; a test holds it. {variations} seeded variations of {} stories, {readings}\n\
         readings, through the real validator and engine with the shipped rules as they are. Beside them the same values go\n\
         against plain thresholds: the limits of the same rules without delay, deadband, window or quality. What counts is an\n\
         alarm that calls people out, orange or red; where a story's own rule knows only yellow, yellow. `make scenarios\n\
         SEEDS=200` plays more variations and prints the same tables.\n\n\
         A simulation proves no detector: shapes, noise and habits are ours (`tests/tests/scenarios`). What it shows is what\n\
         delays, deadbands, windows and doubt are worth, and what they cost. Rules as of {library}.\n\n\
         ## Hazards\n\n\
         Seconds from the moment at which the quantity begins to move, which is long before any limit: median / 95 % / most.\n\
         *Later* is the most by which the rules came after the first touch of a plain threshold in one variation, be it noise;\n\
         negative means that they were always earlier. No more than a rule takes to make sure (*confirm*, its `on_delay`) is\n\
         allowed but in one variation of 500: noise that goes beyond the deadband is a spike like others.\n\n\
         | story | played | rules: missed | seconds | plain: missed | seconds | later, s | confirm, s |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|\n",
        outcomes.len()
    );
    for (story, endings) in &hazards {
        let (rules, plain) = (delays(endings, |it| &it.rules), delays(endings, |it| &it.plain));
        let later = endings.iter().filter_map(late).reduce(|a, b| (a.0.max(b.0), a.1.max(b.1)));
        let say =
            |seconds: Option<f64>| seconds.map_or("–".to_owned(), |seconds| format!("{:.0}", seconds.round() + 0.0));
        // Writing into a text does not fail.
        let _ = writeln!(
            out,
            "| **{}**: {} | {} | {} | {} | {} | {} | {} | {} |",
            story.name,
            story.what,
            endings.len(),
            endings.len() - rules.len(),
            quantiles(&rules),
            endings.len() - plain.len(),
            quantiles(&plain),
            say(later.map(|(late, _)| late)),
            say(later.map(|(_, confirm)| confirm)),
        );
    }
    out += "\n## Days without a hazard\n\n\
         False alarms, and in brackets occasions: what came within half an hour of the one before counts once. The last line\n\
         holds also what was told too early in the stories above.\n\n\
         | story | device-days | rules | a device-month | plain | a device-month |\n\
         |---|--:|--:|--:|--:|--:|\n";
    for (story, endings) in &calm {
        let days = device_days(endings);
        let ((rules, seldom), (plain, often)) = (falsely(endings, |it| &it.rules), falsely(endings, |it| &it.plain));
        let _ = writeln!(
            out,
            "| **{}**: {} | {days:.0} | {rules} ({seldom}) | {} | {plain} ({often}) | {} |",
            story.name,
            story.what,
            a_month(rules, days),
            a_month(plain, days)
        );
    }
    let days: f64 = outcomes.iter().map(|(_, endings)| device_days(endings)).sum();
    let all: Vec<Ending> = outcomes.iter().flat_map(|(_, endings)| endings).cloned().collect();
    let ((rules, seldom), (plain, often)) = (falsely(&all, |it| &it.rules), falsely(&all, |it| &it.plain));
    let _ = writeln!(
        out,
        "| all | {days:.0} | {rules} ({seldom}) | {} | {plain} ({often}) | {} |",
        a_month(rules, days),
        a_month(plain, days)
    );
    out
}
