//! Which plans came into force when, and who approved them: a plan that people follow in an emergency is a document with
//! versions, and its record outlives the files.

use std::collections::BTreeMap;
use std::sync::Arc;

use anmin_rules::plan::Plans;
use anmin_sensors::time::Wall;

use crate::store::plans::Revision;

/// The last revision of each plan that there ever was.
#[derive(Debug, Default)]
pub struct PlanHistory {
    last: BTreeMap<String, Revision>,
    seen: Option<Arc<Plans>>,
}

impl PlanHistory {
    /// `past` of each plan the oldest first.
    pub fn new(past: Vec<Revision>) -> Self {
        let last = past.into_iter().map(|revision| (revision.plan.clone(), revision)).collect();
        Self { last, seen: None }
    }

    /// There never was one.
    pub fn is_empty(&self) -> bool {
        self.last.is_empty()
    }

    /// These very plans were compared last.
    pub fn has_seen(&self, plans: &Arc<Plans>) -> bool {
        self.seen.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, plans))
    }

    /// What of these plans is new, otherwise, or gone since they were looked at last.
    pub fn compare(&mut self, at: Wall, by: &str, plans: &Arc<Plans>) -> Vec<Revision> {
        self.seen = Some(Arc::clone(plans));
        let now = plans.all().iter().map(|plan| Revision {
            plan: plan.id.clone(),
            at,
            hash: Some(plan.content_hash().to_string()),
            by: by.to_owned(),
            version: plan.version.clone(),
            approved_by: plan.approved_by.clone(),
            approved_on: plan.approved_on.clone(),
        });
        let gone = self.last.values().filter(|last| plans.all().iter().all(|plan| plan.id != last.plan));
        let gone = gone.map(|last| Revision { at, hash: None, by: by.to_owned(), ..last.clone() });
        let is_new = |revision: &Revision| {
            let before = self.last.get(&revision.plan);
            before.map_or(revision.hash.is_some(), |before| before.hash != revision.hash)
        };
        let changed: Vec<Revision> = now.chain(gone).filter(is_new).collect();
        for revision in &changed {
            self.last.insert(revision.plan.clone(), revision.clone());
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use anmin_rules::plan::Plan;
    use anmin_rules::rule::Text;

    use super::*;

    fn plans(of: &[(&str, &str, Option<&str>)]) -> Arc<Plans> {
        let template = Plans::shipped().all()[0].clone();
        let own = of.iter().map(|(id, words, approved_by)| Plan {
            id: (*id).to_owned(),
            title: Text::both(*words),
            approved_by: approved_by.map(str::to_owned),
            own: true,
            ..Plan::clone(&template)
        });
        Arc::new(Plans::only(own.collect()))
    }

    #[test]
    fn a_revision_is_written_when_a_plan_begins_changes_goes_or_comes_back_and_never_else() {
        let mut history = PlanHistory::default();
        let mut told = Vec::new();
        for (at, of) in [
            (1, plans(&[("gas", "first", None), ("fire", "first", None)])),
            (2, plans(&[("gas", "first", None), ("fire", "first", None)])),
            (3, plans(&[("gas", "first", Some("wang")), ("fire", "first", None)])),
            (4, plans(&[("gas", "first", Some("wang"))])),
            (5, plans(&[("gas", "first", Some("wang"))])),
            (6, plans(&[("gas", "first", None), ("fire", "first", None)])),
        ] {
            let found = history.compare(Wall::from_millis(at), "li", &of);
            told.extend(found.iter().map(|one| format!("{at} {} {}", one.plan, one.hash.is_some())));
            assert_eq!(history.compare(Wall::from_millis(at), "li", &of), [], "the same plans say nothing new");
            // A restart knows what was.
            history = PlanHistory::new(history.last.into_values().collect());
        }
        assert_eq!(told, ["1 gas true", "1 fire true", "3 gas true", "4 fire false", "6 gas true", "6 fire true"]);
    }
}
