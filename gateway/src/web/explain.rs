//! Explains an alarm: what its last verdict rested on, and whether the rules in force say the same of what history kept.

use std::sync::Arc;
use std::time::Duration;

use anmin_rules::alarm::{Class, Subject, Transition};
use anmin_rules::replay::{self, Otherwise};
use anmin_rules::rule::{Grounds, LimitUsed, RuleId};
use anmin_rules::set::InForce;
use anmin_sensors::point::{Form, PointId};
use anmin_sensors::reading::{Sample, Value};
use anmin_sensors::time::Wall;
use axum::Json;
use axum::extract::{Path, State};
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::Deserialize;

use super::Archive;
use super::api::{Answer, Asked, Desk, alarm_id, lies_within};
use super::guard::Caller;
use super::problem::Problem;
use super::wire::{
    AgainWire, ChangedInputWire, ChangedLimitWire, ChangedWindowWire, ExplanationWire, TextWire, Writer, limit_used,
};
use crate::config;
use crate::main_loop::Query;
use crate::store::state::Entry;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Parameters {
    seq: Option<u32>,
}

pub(super) async fn explanation(
    State(desk): State<Desk>,
    caller: Caller,
    Path(id): Path<String>,
    Asked(Parameters { seq }): Asked<Parameters>,
) -> Answer<ExplanationWire> {
    let id = alarm_id(&id)?;
    let mut rows = desk.archive(move |archive| archive.history(id)).await?;
    rows.retain(|row| lies_within(&caller.within(), row));
    let verdicts = rows.into_iter().filter_map(|row| match row.entry {
        Entry::Transition(transition) if transition.cause.is_verdict() => Some(transition),
        _ => None,
    });
    let found = verdicts.filter(|transition| seq.is_none_or(|seq| transition.alarm.seq == seq)).last();
    let Some(transition) = found else {
        return Err(Problem::not_found(
            format!("没有报警 {id} 的判定记录"),
            format!("no verdict about alarm {id} is recorded"),
        ));
    };
    let (zone, again) = (desk.link.site.time_zone.clone(), again(&desk, &transition).await?);
    let (again, why_not) = match again {
        Ok(again) => (Some(again), None),
        Err(why) => (None, Some(why)),
    };
    let writer = Writer { zone: &zone };
    let alarm = &transition.alarm;
    Ok(Json(ExplanationWire {
        alarm: alarm.id.to_string(),
        rule: alarm.rule.to_string(),
        subject: alarm.subject.as_str().to_owned(),
        seq: alarm.seq,
        cause: transition.cause.as_str().to_owned(),
        at: writer.at(transition.at.wall),
        message: (&alarm.message).into(),
        evidence: alarm.evidence.grounds.as_deref().map(|grounds| writer.evidence(grounds)),
        again,
        why_not,
    }))
}

/// Judges it again, or says why it cannot be.
async fn again(desk: &Desk, transition: &Transition) -> Result<Result<AgainWire, TextWire>, Problem> {
    let why = |zh: &str, en: &str| Ok(Err(TextWire { zh: zh.to_owned(), en: en.to_owned() }));
    let alarm = &transition.alarm;
    let (Subject::Point(subject), Some(then)) = (&alarm.subject, alarm.evidence.grounds.clone()) else {
        return match alarm.class {
            Class::System => {
                why("这是安民自身监测的情况，不由规则判定", "anmin watches this by itself; no rule has judged it")
            }
            Class::Hazard(_) => why("该记录早于依据的保存", "it was recorded before evidence was kept"),
        };
    };
    let (rule, point) = (alarm.rule.clone(), subject.clone());
    let Some(in_force) = desk.ask(|reply| Query::InForce { rule, subject: point, reply }).await? else {
        return why("现行规则不再判定该测点", "no rule in force judges this point by that name any more");
    };
    let (zone, subject, rule) = (desk.link.site.time_zone.clone(), subject.clone(), alarm.rule.clone());
    let judged = desk
        .archive(move |archive| judge_again(archive, &in_force, &rule, &subject, &then, &zone).map(|now| (now, then)))
        .await?;
    let (Some((now, readings)), then) = judged else {
        return why("历史中已没有当时的读数", "history no longer has what was measured then");
    };
    Ok(Ok(compared(desk, &then, &now, readings)))
}

/// The grounds of now, and on how many readings they rest.
fn judge_again(
    archive: &dyn Archive,
    in_force: &InForce,
    rule: &RuleId,
    subject: &PointId,
    then: &Grounds,
    zone: &TimeZone,
) -> Result<Option<(Arc<Grounds>, usize)>, String> {
    let times = || then.inputs.iter().map(|input| input.time);
    let (Some(first), Some(last)) = (times().min(), times().max()) else { return Ok(None) };
    // A window needs also what held when it began.
    let back = in_force.longest * 2 + Duration::from_secs(3_600);
    let from = Wall::from_micros(first.micros().saturating_sub_unsigned(back.as_micros() as u64));
    let to = last.plus(Duration::from_micros(1));
    let points = &in_force.points;
    let mut samples: Vec<Sample> = Vec::new();
    for (ix, point) in points.iter() {
        let is_flag = point.spec.kind.info().form == Form::Flag;
        let value = |number: f64| if is_flag { Value::Flag(number != 0.0) } else { Value::Number(number) };
        let kept = archive.samples(&point.id, from, to)?;
        samples
            .extend(kept.into_iter().map(|(at, number, quality)| replay::sample(ix, at, number.map(value), quality)));
    }
    samples.sort_by_key(|sample| sample.time);
    let count = samples.len();
    let mut rules = in_force.rule_set();
    rules.set_zone(config::ahead(zone));
    let Some((rule, subject)) = rules.find(rule).zip(points.find(subject.as_str())) else { return Ok(None) };
    let judged = replay::judge_again(&mut rules, points, rule, subject, then, samples);
    Ok(judged.and_then(|judged| judged.evidence.grounds).map(|grounds| (grounds, count)))
}

fn compared(desk: &Desk, then: &Grounds, now: &Grounds, readings: usize) -> AgainWire {
    let mut again = AgainWire {
        same: true,
        rule_changed: false,
        readings,
        limits: Vec::new(),
        inputs: Vec::new(),
        windows: Vec::new(),
        evidence: Writer { zone: &desk.link.site.time_zone }.evidence(now),
    };
    let limit = |limit: Option<LimitUsed>| limit.as_ref().map(limit_used);
    for each in replay::otherwise(then, now) {
        match each {
            Otherwise::Rule => again.rule_changed = true,
            Otherwise::Limit { was, is } => {
                again.limits.push(ChangedLimitWire { was: limit(was), is: limit(is) });
            }
            Otherwise::Input { role, was, is } => again.inputs.push(ChangedInputWire {
                role: role.as_ref().to_owned(),
                was: was.as_ref().map(Into::into),
                is: is.as_ref().map(Into::into),
            }),
            Otherwise::Window { name, was, is } => {
                again.windows.push(ChangedWindowWire { name: name.as_ref().to_owned(), was, is });
            }
            Otherwise::Said => again.same = false,
        }
    }
    again
}
