//! Numbers for rules, from the duty desk: tried on the history of the last days, and kept for the site.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError, TryLockError};
use std::time::Duration;

use anmin_rules::replay::{Differences, Occurrence, compare, differences};
use anmin_rules::rule::RuleId;
use anmin_rules::set::{Override, RuleSet};
use anmin_sensors::document::Faults;
use anmin_sensors::time::Wall;

use super::replay::{Past, change_of};
use crate::clock::Clock;
use crate::config::files::SiteFiles;
use crate::config::tuned::{self, Change};
use crate::config::{self, Config};
use crate::web::tuning::{Changed, Kept, NotTuned, Standing, Trial, TunedRule, Tuner};

/// A trial that takes longer is given up.
const TRIED_WITHIN: Duration = Duration::from_secs(60);
/// Alarms that one trial names; the counts are of all.
const MOST_CHANGED: usize = 200;

/// The site's files and what is kept beside its databases.
pub struct Desk {
    pub site: PathBuf,
    pub storage: PathBuf,
    pub clock: Clock,
    /// Held while one trial runs: it takes two processors.
    pub trying: Mutex<()>,
    /// Held while the file is written.
    pub writing: Mutex<()>,
}

impl Desk {
    /// The site with this text in place of what was set before.
    fn with(&self, text: &str) -> Result<Config, NotTuned> {
        let faults = Faults::default();
        let mut files = SiteFiles::gather(&self.site, &faults);
        files.tune(text);
        let config = Config::parse(&files, &faults);
        match (config, faults.take()) {
            (Some(config), faults) if faults.is_empty() => Ok(config),
            (_, faults) => Err(NotTuned::Faults(faults.iter().map(ToString::to_string).collect())),
        }
    }

    fn text(&self) -> Result<String, NotTuned> {
        tuned::read(&self.storage).map_err(|error| NotTuned::Failed(error.to_string()))
    }

    fn changed(text: &str, change: &Change) -> Result<String, NotTuned> {
        tuned::changed(text, change).map_err(|why| NotTuned::Faults(vec![why]))
    }
}

/// That rule of a site and no other.
fn alone(config: &Config, rule: &str) -> Option<RuleSet> {
    let set = &config.rules;
    let source = set.source(set.find(&RuleId::new(rule))?);
    let overrides = set.overrides().iter().filter(|over| over.rule == rule).cloned().collect();
    let mut alone = RuleSet::load(vec![(**source).clone()], overrides, &Faults::default());
    alone.set_zone(config::ahead(&config.site.time_zone));
    Some(alone)
}

impl Tuner for Desk {
    fn kept(&self) -> Result<Kept, NotTuned> {
        let text = self.text()?;
        let config = self.with(&text)?;
        let own = config.rules.overrides().iter().filter(|over| over.is_from(tuned::FILE));
        let rule = |over: &Override| TunedRule { rule: over.rule.clone(), of: over.whom(), numbers: over.numbers() };
        let overrides = own.map(rule).collect();
        Ok(Kept { version: tuned::version(&text), overrides })
    }

    fn try_out(&self, change: &Change, span: Duration) -> Result<Trial, NotTuned> {
        let _only = match self.trying.try_lock() {
            Ok(only) => only,
            Err(TryLockError::Poisoned(only)) => only.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(NotTuned::Busy),
        };
        let text = self.text()?;
        let (now, then) = (self.with(&text)?, self.with(&Self::changed(&text, change)?)?);
        let rules = alone(&now, &change.rule).zip(alone(&then, &change.rule));
        let (now_rules, then_rules) =
            rules.ok_or_else(|| NotTuned::Faults(vec![format!("there is no rule {:?}", change.rule)]))?;
        let to = self.clock.now();
        let from = Wall::from_micros(to.wall.micros().saturating_sub_unsigned(span.as_micros() as u64));
        let failed = |problem: super::keep::Problem| NotTuned::Failed(problem.text.en);
        let mut past = Past::of_history(now, from, to.wall).map_err(failed)?;
        past.until = Some((self.clock.clone(), to.mono.plus(TRIED_WITHIN)));
        let (after, before, _) = past.replay([then_rules, now_rules], false).map_err(failed)?;
        if past.is_late() {
            return Err(NotTuned::TooMuch);
        }
        let pairs = compare(&before, &after);
        let Differences { same, gained, lost, earlier, later, other_level } =
            differences(&pairs, |_| ()).remove(&()).unwrap_or_default();
        let standing = |each: &Occurrence| Standing {
            from: each.from,
            to: each.to,
            level: each.peak,
            message: each.message.clone(),
        };
        let changed = pairs.iter().filter(|pair| !pair.is_same()).take(MOST_CHANGED).map(|pair| Changed {
            change: change_of(pair),
            subject: pair.any().subject.as_str().to_owned(),
            before: pair.before.map(standing),
            after: pair.after.map(standing),
        });
        Ok(Trial {
            from,
            to: to.wall,
            readings: after.samples,
            counts: [same, gained, lost, earlier, later, other_level],
            changed: changed.collect(),
        })
    }

    fn keep(&self, change: &Change, version: &str) -> Result<String, NotTuned> {
        let _only = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let was = self.text()?;
        if tuned::version(&was) != version {
            return Err(NotTuned::Changed);
        }
        let text = Self::changed(&was, change)?;
        self.with(&text)?;
        tuned::write(&self.storage, &text).map_err(|error| NotTuned::Failed(error.to_string()))?;
        Ok(was)
    }

    fn put_back(&self, text: &str) -> Result<(), NotTuned> {
        let _only = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        tuned::write(&self.storage, text).map_err(|error| NotTuned::Failed(error.to_string()))
    }
}
