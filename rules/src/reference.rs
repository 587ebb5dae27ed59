//! The reference of the rule language, made from the tables that the code itself goes by.

use std::fmt::Write;
use std::time::Duration;

use anmin_sensors::point::{Form, KINDS, Kind};
use anmin_sensors::reading::Quality;

use crate::cases;
use crate::rule::{Level, Measure, Scope, Steady};
use crate::script::{MAX_CALL_TIME, MAX_OPERATIONS, PROPERTIES, VOCABULARY, WINDOW_PROPERTIES};
use crate::window::MAX_STEPS;

/// The whole reference as Markdown, for `rules/REFERENCE.md`.
pub fn reference() -> String {
    let mut out = String::from(
        "# Reference of the rule language\n\n\
         Made from the code by `cargo run -p anmin-rules --example reference > rules/REFERENCE.md`; a test holds it. How a\n\
         rule is written stands in [README.md](README.md).\n",
    );
    let mut table = |title: &str, before: &str, heads: [&str; 2], rows: Vec<(String, String)>| {
        // Writing into a text does not fail.
        let _ = write!(out, "\n## {title}\n\n{before}| {} | {} |\n|---|---|\n", heads[0], heads[1]);
        for (word, meaning) in rows {
            let _ = writeln!(out, "| {word} | {meaning} |");
        }
    };
    let code = |word: &str| format!("`{word}`");
    let pairs = |rows: &[(&str, &str)]| rows.iter().map(|(word, what)| (code(word), (*what).to_owned())).collect();

    let words = VOCABULARY.iter().map(|(_, usage, what)| {
        let usage: Vec<String> = usage.split(" or ").map(code).collect();
        (usage.join(" or "), (*what).to_owned())
    });
    let before = format!(
        "A script is `fn judge(...)` of the inputs' roles in their order. It may take {MAX_OPERATIONS} operations and, in the\n\
         daemon, {} ms of computing time a call, has no state, reads no file, clock or network, and cannot divide by zero unseen.\n\n",
        MAX_CALL_TIME.as_millis()
    );
    table("What a script may call", &before, ["word", "meaning"], words.collect());
    table("What an input has", "As in `gas.value`.\n\n", ["property", "meaning"], pairs(PROPERTIES));
    table(
        "What a window has",
        "As in `window(\"rise\").value`.\n\n",
        ["property", "meaning"],
        pairs(WINDOW_PROPERTIES),
    );
    table(
        "Scopes of an input",
        "Which points an input after the first reads, seen from the first: `scope = \"room\"`. With `points = [\"pump-*/run\"]`\n\
         an input takes only points of these ids, `*` standing for any letters; with `scope = \"site\"` that names them\n\
         wherever they are.\n\n",
        ["scope", "points of the kind"],
        Scope::CHOICES.iter().map(|(word, scope)| (code(word), scope.what().to_owned())).collect(),
    );
    let before = format!(
        "`measure` of a `[[window]]`. Between two readings a value holds; a bad or missing one ends it, and what follows is\n\
         unknown and counts as no time. Where an input stands for several points its greatest counts, and a sum adds all.\n\
         All is exact while at most {MAX_STEPS} changes lie within; beyond, what is closer than 1/{} of the window is taken\n\
         together, to the full side. A window takes 16 bytes a change, and its points are visited at every reading, which costs\n\
         0.1 to 0.3 microseconds with up to thirty changes within and about one with {MAX_STEPS}, where a plain limit costs\n\
         0.01; the script is called only when a value leaves its range, by a reading or by time alone. After a restart windows\n\
         are refilled from the site's history, as far as it reaches; the time for which nobody listened is unknown. Until they\n\
         are full they may raise an alarm, and clear none that stood.\n\n",
        MAX_STEPS / 2
    );
    let measures = Measure::CHOICES.iter().map(|(word, measure)| {
        let (what, unit, keys) = measure.what();
        (code(word), format!("{what}; in {unit}; {keys}"))
    });
    table("Windows", &before, ["measure", "meaning"], measures.collect());
    let occupancy = [
        (
            "care.home",
            "an input of this kind: `home.on`, somebody is there; `home.present && home.ok`, and somebody or something says so",
        ),
        ("time_above", "a window of it: for how long somebody has been there, as `care/inactive` asks"),
        ("between", "where only the hours are known: `between(\"08:00\", \"18:00\")`, by the site's clock"),
    ];
    table(
        "Occupancy",
        "Whether people are there is said by a switch at the door, a lock, an app or a calendar of the house, as a point like any\n\
         other; in the cases, too. What says nothing, or cannot be believed, must count as people being there.\n\n",
        ["word", "meaning"],
        pairs(&occupancy),
    );
    let levels = Level::ALL.iter().map(|level| (code(level.as_str()), level.zh().to_owned()));
    table("Levels", "", ["level", "on screens"], levels.collect());
    let before = "What keeps an alarm from fluttering where a rule's file does not say `on_delay`, `off_delay` or `deadband` itself:\n\
        by the kind of its first input. A higher level never waits longer than the on-delay. An alarm that comes five times\n\
        within ten minutes is held until all has been well for ten, and a blue notice says so.\n\n";
    let steady = KINDS.iter().filter(|info| info.form != Form::Text).filter_map(|info| {
        let Steady { on_s, off_s, deadband } = Steady::of(Kind::named(info.name)?);
        let time = |seconds| format!("{:?}", Duration::from_secs(seconds));
        let band = match info.form {
            Form::Number => format!(", deadband {deadband} {}", info.unit),
            _ => String::new(),
        };
        Some((code(info.name), format!("on {}, off {}{}", time(on_s), time(off_s), band.trim_end())))
    });
    table("Delays and deadbands by kind", before, ["kind", "unless the file says otherwise"], steady.collect());
    table(
        "Cases",
        "What a step of a `[[case]]` may say besides its inputs. A case begins at eight in the morning by the site's clock.\n\n",
        ["key", "meaning"],
        pairs(cases::KEYS),
    );
    let qualities = Quality::ALL.iter().filter(|quality| **quality != Quality::Good);
    table(
        "Qualities",
        "What a case may give an input instead of a value (bad), or beside it (uncertain).\n\n",
        ["quality", "is"],
        qualities.map(|quality| (code(quality.reason()), quality.as_str().to_owned())).collect(),
    );
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_reference_is_what_the_code_says() {
        let (written, made) = (include_str!("../REFERENCE.md"), super::reference());
        let other = made.lines().zip(written.lines()).find(|(made, written)| made != written);
        assert!(
            made == written,
            "rules/REFERENCE.md is out of date: {other:?}; make it anew by \
             cargo run -p anmin-rules --example reference > rules/REFERENCE.md"
        );
    }
}
