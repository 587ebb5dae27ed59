//! Plans: what is to be done in which incident, who approved it, and what was in force before.

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::Serialize;

use super::api::{Answer, Desk};
use super::wire::{TextWire, Writer};
use crate::main_loop::Query;
use crate::store::plans::Revision;

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PlansWire {
    pub plans: Vec<PlanWire>,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PlanWire {
    pub id: String,
    pub title: TextWire,
    /// A hazard, or a kind of case.
    pub subject: String,
    /// From this level on.
    pub level: String,
    /// Areas that it is for; none: everywhere.
    pub places: Vec<String>,
    pub version: String,
    pub approved_by: Option<String>,
    pub approved_on: Option<String>,
    /// What it rests on.
    pub source: String,
    /// Written by the site.
    pub own: bool,
    /// Since when it is in force as it stands.
    pub since: Option<String>,
    pub steps: Vec<PlanStepWire>,
    /// When it came into force, changed, or went; the newest first.
    pub history: Vec<RevisionWire>,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PlanStepWire {
    pub id: String,
    pub text: TextWire,
    pub owner: String,
    /// Of the moment at which the plan comes into force.
    pub within_s: Option<u64>,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RevisionWire {
    pub at: String,
    pub by: String,
    pub version: String,
    pub approved_by: Option<String>,
    pub approved_on: Option<String>,
    /// Of its content; `null`: it went.
    pub hash: Option<String>,
}

impl Writer<'_> {
    fn revision(&self, revision: &Revision) -> RevisionWire {
        let Revision { at, by, version, approved_by, approved_on, hash, .. } = revision.clone();
        RevisionWire { at: self.at(at), by, version, approved_by, approved_on, hash }
    }
}

pub(super) async fn list(State(desk): State<Desk>) -> Answer<PlansWire> {
    let plans = desk.ask(|reply| Query::Plans { reply }).await?;
    let past = desk.archive(|archive| archive.plans()).await?;
    let writer = desk.writer();
    let wire = |plan: &std::sync::Arc<anmin_rules::plan::Plan>| {
        let of_it = past.iter().rev().filter(|revision| revision.plan == plan.id);
        let history: Vec<RevisionWire> = of_it.map(|revision| writer.revision(revision)).collect();
        let hash = Some(plan.content_hash().to_string());
        let since = history.first().filter(|newest| newest.hash == hash).map(|newest| newest.at.clone());
        let steps = plan.steps.iter().map(|step| PlanStepWire {
            id: step.id.clone(),
            text: (&step.text).into(),
            owner: step.owner.as_str().to_owned(),
            within_s: step.within.map(|within| within.as_secs()),
        });
        PlanWire {
            id: plan.id.clone(),
            title: (&plan.title).into(),
            subject: plan.subject.as_str().to_owned(),
            level: plan.level.as_str().to_owned(),
            places: plan.places.clone(),
            version: plan.version.clone(),
            approved_by: plan.approved_by.clone(),
            approved_on: plan.approved_on.clone(),
            source: plan.source.clone(),
            own: plan.own,
            since,
            steps: steps.collect(),
            history,
        }
    };
    Ok(Json(PlansWire { plans: plans.all().iter().map(wire).collect() }))
}
