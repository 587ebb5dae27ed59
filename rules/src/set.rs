//! All rules of a site, bound to its points, judged when something they read has changed.

use std::time::Duration;

use anmin_sensors::document::{Faults, Reader};
use anmin_sensors::point::{PointIx, Points};
use anmin_sensors::reading::Sample;
use anmin_sensors::time::{Mono, Now};

use crate::rule::{Judged, Level, RuleId, RuleIx, RuleSpec, Tuning};

/// The two files of one rule as text, with the names that faults give them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSource {
    /// Where the files lie, as faults shall say it: `rules/library`.
    pub folder: String,
    /// `area/name`: the rule's id, and the files' path in the folder without their endings.
    pub name: String,
    pub toml: String,
    pub script: String,
}

/// A site's own numbers for a rule, for all its subjects or for some.
#[derive(Clone, Debug, PartialEq)]
pub struct Override {
    pub rule: String,
}

impl Override {
    /// Reads one `[[override]]`.
    pub fn read(r: &Reader<'_>) -> Option<Self> {
        let rule = r.required("rule");
        Some(Self { rule: rule? })
    }
}

/// What [`RuleSet::bind`] has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bound {
    /// Rule instances added.
    pub instances: usize,
    /// Points that are too many for one role of one instance and are not read by it.
    pub left_out: usize,
}

/// All rules of a site.
#[derive(Default)]
pub struct RuleSet {
    rules: Vec<(RuleSpec, Tuning)>,
}

impl RuleSet {
    /// Rules that cannot be read or compiled are left out with a fault; the others stay in force.
    pub fn load(_sources: Vec<RuleSource>, _overrides: Vec<Override>, _faults: &Faults) -> Self {
        Self::default()
    }

    /// Panics on an index that did not come from this set, which is a defect of the caller.
    pub fn spec(&self, rule: RuleIx) -> &RuleSpec {
        &self.rules[rule.0 as usize].0
    }

    /// The rule's numbers as they hold for this subject.
    pub fn tuning(&self, rule: RuleIx, _subject: PointIx) -> &Tuning {
        &self.rules[rule.0 as usize].1
    }

    pub fn rules(&self) -> impl ExactSizeIterator<Item = (RuleIx, &RuleSpec)> {
        self.rules.iter().enumerate().map(|(n, (spec, _))| (RuleIx(n as u32), spec))
    }

    pub fn find(&self, id: &RuleId) -> Option<RuleIx> {
        self.rules.iter().position(|(spec, _)| spec.id == *id).map(|n| RuleIx(n as u32))
    }

    /// Binds the rules to the points that were added since the last time.
    pub fn bind(&mut self, _points: &Points) -> Bound {
        Bound::default()
    }

    /// Judges what the samples change.
    ///
    /// `active` is the level at which the alarm's condition stands now (`Active` or `Clearing`), `None` while it is
    /// normal or pending; a latched alarm whose condition has ended is `None` too. Emitted into `out`: the first
    /// verdict of each instance, every verdict that is not normal, every change, and every verdict while `active` says
    /// so. A normal verdict that nobody waits for is not emitted.
    pub fn handle_samples(
        &mut self,
        _now: Now,
        _points: &Points,
        _samples: &[Sample],
        _active: &impl Fn(RuleIx, PointIx) -> Option<Level>,
        _out: &mut Vec<Judged>,
    ) {
    }

    /// When [`RuleSet::handle_timeout`] is due: a window loses something that it had summed.
    pub fn poll_timeout(&self) -> Option<Mono> {
        let _ = Duration::ZERO;
        None
    }

    /// Judges again what the passing of time has changed; harmless when nothing is due.
    pub fn handle_timeout(
        &mut self,
        _now: Now,
        _points: &Points,
        _active: &impl Fn(RuleIx, PointIx) -> Option<Level>,
        _out: &mut Vec<Judged>,
    ) {
    }
}
