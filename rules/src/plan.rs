//! Plans (处置预案): what to do, in order, by whom and in what time; and the checklist that an incident makes of them.
//!
//! A plan is for one hazard or for one kind of case, from a level on, everywhere or in the places that it names. The most specific one wins: one
//! that names the place before one that does not, the site's own before a shipped one, a higher level before a lower. When
//! an incident grows, the plan of the new level adds the steps that are not there yet; what was done stays done. This module
//! does not know who ticks a step, nor how a late one is told.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anmin_sensors::document::{Document, Faults, Reader};
use anmin_sensors::point::Hazard;
use anmin_sensors::time::Wall;

use crate::casework::CaseKind;
use crate::rule::{ContentHash, Level, Text};

/// The plans that anmin ships.
const SHIPPED: &str = include_str!("../plans/plans.toml");

/// How faults name the file.
pub const FILE: &str = "rules/plans/plans.toml";

/// Steps of one plan: what a person can still follow.
const MOST_STEPS: usize = 30;

/// Who sees to a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Owner {
    #[default]
    Officer,
    Crew,
    Property,
    Grid,
    Utility,
}

impl Owner {
    pub const CHOICES: [(&'static str, Self); 5] = [
        ("officer", Self::Officer),
        ("crew", Self::Crew),
        ("property", Self::Property),
        ("grid", Self::Grid),
        ("utility", Self::Utility),
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Officer => "officer",
            Self::Crew => "crew",
            Self::Property => "property",
            Self::Grid => "grid",
            Self::Utility => "utility",
        }
    }

    pub const fn zh(self) -> &'static str {
        match self {
            Self::Officer => "值班员",
            Self::Crew => "微型消防站",
            Self::Property => "物业",
            Self::Grid => "网格员",
            Self::Utility => "专业单位",
        }
    }

    pub fn named(word: &str) -> Option<Self> {
        Self::CHOICES.into_iter().find(|(name, _)| *name == word).map(|(_, owner)| owner)
    }
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub id: String,
    pub text: Text,
    pub owner: Owner,
    /// Of the moment at which the plan comes into force.
    pub within: Option<Duration>,
}

/// What a plan is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    Hazard(Hazard),
    Case(CaseKind),
}

impl Subject {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hazard(hazard) => hazard.as_str(),
            Self::Case(kind) => kind.as_str(),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub id: String,
    pub title: Text,
    pub subject: Subject,
    /// From this level on.
    pub level: Level,
    /// Areas that it is for; none: everywhere.
    pub places: Vec<String>,
    pub version: String,
    pub approved_by: Option<String>,
    /// `2026-03-01`.
    pub approved_on: Option<String>,
    /// What it rests on.
    pub source: String,
    pub steps: Vec<Step>,
    /// Written by the site.
    pub own: bool,
}

impl Plan {
    /// Reads one `[[plan]]` of the site.
    pub fn read(r: &Reader<'_>) -> Option<Self> {
        let id: Option<String> = r.required("id");
        let hazards = Hazard::ALL.map(|hazard| (hazard.as_str(), hazard));
        let subject = match (r.has("hazard"), r.has("case")) {
            (false, true) => Subject::Case(r.choice("case", &CaseKind::CHOICES).unwrap_or(CaseKind::Report)),
            (true, true) => {
                r.fault("case", "a plan is for a `hazard` or for a `case`, not for both", None);
                r.choice("case", &CaseKind::CHOICES);
                Subject::Hazard(r.choice("hazard", &hazards).unwrap_or(Hazard::Fire))
            }
            (true, false) => Subject::Hazard(r.choice("hazard", &hazards).unwrap_or(Hazard::Fire)),
            (false, false) => {
                r.required::<String>("hazard");
                Subject::Hazard(Hazard::Fire)
            }
        };
        let approved_on: Option<String> = r.optional("approved_on");
        if let Some(day) = approved_on.as_deref().filter(|day| !is_day(day)) {
            let hint = Some("such as \"2026-03-01\"".to_owned());
            r.fault("approved_on", format!("`approved_on` is {day:?}, expected a day"), hint);
        }
        let steps = r.tables("step");
        if steps.is_empty() {
            r.fault("step", "the plan has no `[[plan.step]]`", None);
        }
        if steps.len() > MOST_STEPS {
            let message = format!("the plan has {} steps, expected {MOST_STEPS} at most", steps.len());
            r.fault("step", message, Some("what is more nobody follows in an emergency".to_owned()));
        }
        let mut seen = BTreeSet::new();
        let read = |r: &Reader<'_>| {
            let id: Option<String> = r.required("id");
            if let Some(twice) = id.as_ref().filter(|id| !seen.insert((*id).clone())) {
                r.fault("id", format!("step {twice:?} is there twice"), None);
            }
            let text = text(r, "do", true);
            let step = Step {
                text: text.unwrap_or_default(),
                owner: r.choice("owner", &Owner::CHOICES).unwrap_or_default(),
                within: r.optional("within"),
                id: id?,
            };
            r.finish();
            Some(step)
        };
        let steps: Vec<Step> = steps.iter().filter_map(read).collect();
        let plan = Self {
            title: text(r, "title", false).or_else(|| id.clone().map(Text::both)).unwrap_or_default(),
            subject,
            level: r.choice("level", &Level::CHOICES).unwrap_or(Level::Blue),
            places: r.or("places", Vec::new()),
            version: r.or("version", "1".to_owned()),
            approved_by: r.optional("approved_by"),
            approved_on,
            source: r.or("source", String::new()),
            steps,
            own: true,
            id: id.clone().unwrap_or_default(),
        };
        r.finish();
        id.map(|_| plan)
    }
}

impl Plan {
    /// What tells one version of it from another, whatever its author calls it: of everything that people read in it.
    pub fn content_hash(&self) -> ContentHash {
        let mut text =
            format!("{}\n{}\n{}\n{}\n", self.title.zh, self.title.en, self.subject.as_str(), self.level.as_str());
        for word in
            self.places.iter().chain([&self.version, &self.source]).chain(&self.approved_by).chain(&self.approved_on)
        {
            let _ = writeln!(text, "{word}");
        }
        for Step { id, text: words, owner, within } in &self.steps {
            let within = within.map(|within| within.as_millis());
            let _ = writeln!(text, "{id}\n{}\n{}\n{}\n{within:?}", words.zh, words.en, owner.as_str());
        }
        ContentHash::of(&text, "")
    }
}

/// Both languages, or one for both.
fn text(r: &Reader<'_>, key: &'static str, required: bool) -> Option<Text> {
    if r.is_table(key) {
        let both = r.table(key)?;
        let (zh, en): (Option<String>, Option<String>) = (both.required("zh"), both.required("en"));
        both.finish();
        return Some(Text { zh: zh?, en: en? });
    }
    let one: Option<String> = if required { r.required(key) } else { r.optional(key) };
    one.map(Text::both)
}

fn is_day(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let number = |part: &str, digits: usize| {
        (part.len() == digits && part.bytes().all(|b| b.is_ascii_digit())).then(|| part.parse::<u32>().ok()).flatten()
    };
    matches!(parts[..], [year, month, day] if number(year, 4).is_some()
        && number(month, 2).is_some_and(|month| (1..=12).contains(&month))
        && number(day, 2).is_some_and(|day| (1..=31).contains(&day)))
}

/// All plans of a site.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plans(Vec<Arc<Plan>>);

impl Plans {
    /// The site's own and the shipped ones; one of the site's takes the place of a shipped one with its id.
    pub fn with_shipped(own: Vec<Plan>) -> Self {
        let mut plans = Self::shipped().0;
        plans.retain(|shipped| own.iter().all(|plan| plan.id != shipped.id));
        plans.extend(own.into_iter().map(Arc::new));
        Self(plans)
    }

    /// These and no others.
    pub fn only(plans: Vec<Plan>) -> Self {
        Self(plans.into_iter().map(Arc::new).collect())
    }

    pub fn shipped() -> Self {
        let faults = Faults::default();
        let plans = Self::read_shipped(SHIPPED, &faults);
        debug_assert!(faults.is_empty(), "a test reads the shipped plans");
        plans
    }

    fn read_shipped(text: &str, faults: &Faults) -> Self {
        let document = Document::parse(FILE, text, faults);
        let tables = document.iter().flat_map(|document| {
            let root = document.root(faults);
            let plans: Vec<Plan> = root.tables("plan").iter().filter_map(Plan::read).collect();
            root.finish();
            plans
        });
        Self(tables.map(|plan| Arc::new(Plan { own: false, ..plan })).collect())
    }

    pub fn all(&self) -> &[Arc<Plan>] {
        &self.0
    }

    /// The most specific one for a hazard, or a case, of this level in this area.
    pub fn choose(&self, subject: Subject, level: Level, area: &str) -> Option<&Arc<Plan>> {
        let there = |plan: &Plan| plan.places.is_empty() || plan.places.iter().any(|place| place == area);
        let fits = |plan: &&Arc<Plan>| plan.subject == subject && plan.level <= level && there(plan);
        self.0.iter().filter(fits).max_by_key(|plan| (!plan.places.is_empty(), plan.own, plan.level))
    }
}

/// One step of an incident's checklist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The hazard or kind of case and the step's id, `gas/ventilate`: unique within the incident.
    pub id: String,
    /// Where it comes from.
    pub plan: String,
    pub version: String,
    pub text: Text,
    pub owner: Owner,
    pub added_at: Wall,
    pub due: Option<Wall>,
    /// Not done in time: said once.
    pub late: bool,
    pub done: Option<Done>,
}

impl Item {
    pub fn is_open(&self) -> bool {
        self.done.is_none()
    }
}

/// A step that was done, or skipped with a reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    pub at: Wall,
    pub by: String,
    pub skipped: Option<String>,
}

/// Adds the steps of the plans that are in force for these subjects and are not in the checklist yet.
pub(crate) fn grow(checklist: &mut Vec<Item>, plans: &Plans, subjects: &[Subject], level: Level, area: &str, at: Wall) {
    for subject in subjects {
        let Some(plan) = plans.choose(*subject, level, area) else { continue };
        for step in &plan.steps {
            let id = format!("{}/{}", subject.as_str(), step.id);
            if checklist.iter().any(|item| item.id == id) {
                continue;
            }
            checklist.push(Item {
                id,
                plan: plan.id.clone(),
                version: plan.version.clone(),
                text: step.text.clone(),
                owner: step.owner,
                added_at: at,
                due: step.within.map(|within| at.plus(within)),
                late: false,
                done: None,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_plans_are_sound_and_say_what_they_rest_on() {
        let faults = Faults::default();
        let plans = Plans::read_shipped(SHIPPED, &faults);
        assert_eq!(faults.take(), []);
        for hazard in [Hazard::Gas, Hazard::Fire, Hazard::Power, Hazard::Flood] {
            for level in [Level::Yellow, Level::Red] {
                assert!(plans.choose(Subject::Hazard(hazard), level, "anywhere").is_some(), "{hazard:?} {level:?}");
            }
        }
        for kind in CaseKind::ALL {
            assert!(plans.choose(Subject::Case(kind), Level::Blue, "anywhere").is_some(), "{kind:?}");
        }
        for plan in plans.all() {
            assert!(!plan.source.is_empty() && plan.approved_by.is_none(), "{}: the site approves, not we", plan.id);
            for step in &plan.steps {
                let Text { zh, en } = &step.text;
                assert!(!zh.is_ascii() && en.is_ascii(), "{}: {}: both languages", plan.id, step.id);
            }
        }
    }

    #[test]
    fn the_most_specific_plan_wins() {
        let plan = |id: &str, level, places: &[&str], own| {
            Arc::new(Plan {
                id: id.to_owned(),
                title: Text::both(id),
                subject: Subject::Hazard(Hazard::Gas),
                level,
                places: places.iter().map(|place| (*place).to_owned()).collect(),
                version: "1".to_owned(),
                approved_by: None,
                approved_on: None,
                source: String::new(),
                steps: Vec::new(),
                own,
            })
        };
        let plans = Plans(vec![
            plan("shipped", Level::Blue, &[], false),
            plan("shipped-red", Level::Red, &[], false),
            plan("own", Level::Orange, &[], true),
            plan("b1", Level::Yellow, &["b1"], true),
            plan("b1-red", Level::Red, &["b1", "b2"], true),
        ]);
        for (level, area, expected) in [
            (Level::Blue, "b1", "shipped"),
            (Level::Yellow, "b1", "b1"),
            (Level::Red, "b1", "b1-red"),
            (Level::Orange, "b2", "own"),
            (Level::Red, "b2", "b1-red"),
            (Level::Red, "b3", "own"),
        ] {
            let found = plans.choose(Subject::Hazard(Hazard::Gas), level, area).map(|plan| plan.id.as_str());
            assert_eq!(found, Some(expected), "{level:?} in {area}");
        }
        assert!(plans.choose(Subject::Hazard(Hazard::Fire), Level::Red, "b1").is_none());
    }

    #[test]
    fn what_is_wrong_with_a_plan_is_said_with_its_place() {
        let text = "[[plan]]\nid = \"p\"\nhazard = \"gass\"\napproved_on = \"March\"\nstepp = 1\n  [[plan.step]]\n  id = \"a\"\n  \
                    do = { zh = \"做\" }\n  owner = \"nobody\"\n  [[plan.step]]\n  id = \"a\"\n";
        let faults = Faults::default();
        Plans::read_shipped(text, &faults);
        let found: Vec<String> = faults.take().iter().map(ToString::to_string).collect();
        for expected in [
            "plans.toml:3:10: `plan[0].hazard` is \"gass\", expected one of gas",
            "plans.toml:4:15: `approved_on` is \"March\", expected a day",
            "plans.toml:5:1: ",
            "`plan[0].step[0].do.en` is missing",
            "`plan[0].step[0].owner` is \"nobody\", expected one of officer",
            "step \"a\" is there twice",
            "`plan[0].step[1].do` is missing",
        ] {
            assert!(found.iter().any(|fault| fault.contains(expected)), "{expected} is not in {found:#?}");
        }
    }
}
