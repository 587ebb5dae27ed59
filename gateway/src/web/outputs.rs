//! Outputs over HTTP: which there are, and the two steps by which a person switches one. Each step is a row of the audit, done or
//! refused.

use std::sync::Arc;

use anmin_sensors::point::PointId;
use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::api::{Answer, Desk, MOST_WHY, PlainBody, body, words};
use super::guard::Caller;
use super::problem::Problem;
use super::wire::TextWire;
use crate::main_loop::Query;
use crate::output::{Action, Armed, By, Look, Refused, Settings};
use crate::store::audit::Deed;
use crate::store::people::Role;

/// An output and what is armed.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct OutputWire {
    pub id: String,
    pub name: TextWire,
    pub device: String,
    /// `on`, `off`.
    pub may: Vec<String>,
    pub roles: Vec<String>,
    /// What must hold, such as `b1-gas/lel < 25`.
    pub interlocks: Vec<String>,
    pub armed: Option<ArmedWire>,
}

/// What may be done next, and by whom.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ArmedWire {
    pub action: String,
    pub who: String,
    pub why: String,
    /// How long it may still be done.
    pub seconds_left: u64,
    /// To be said with the second step; only whoever armed it is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

impl ArmedWire {
    fn of(armed: &Armed, desk: &Desk) -> Self {
        Self {
            action: armed.action.as_str().to_owned(),
            who: armed.by.who.clone(),
            why: armed.why.clone(),
            seconds_left: armed.until.since(desk.link.clock.now().mono).as_secs(),
            code: None,
        }
    }
}

impl OutputWire {
    fn of(settings: &Settings, armed: Option<&Armed>, desk: &Desk) -> Self {
        Self {
            id: settings.id.to_string(),
            name: (&settings.name).into(),
            device: settings.device.clone(),
            may: settings.may.iter().map(|action| action.as_str().to_owned()).collect(),
            roles: settings.roles.iter().map(|role: &Role| role.as_str().to_owned()).collect(),
            interlocks: settings.interlocks.iter().map(|lock| format!("{} {}", lock.point, lock.wanted)).collect(),
            armed: armed.map(|armed| ArmedWire::of(armed, desk)),
        }
    }
}

impl Problem {
    fn of_output(refused: &Refused) -> Self {
        let status = match refused {
            Refused::NoSuchOutput(_) => StatusCode::NOT_FOUND,
            Refused::NotYourRole => StatusCode::FORBIDDEN,
            _ => StatusCode::CONFLICT,
        };
        Self { status, code: refused.as_str(), error: refused.text(), hint: None, retry_after: 0 }
    }
}

pub(super) async fn all(State(desk): State<Desk>) -> Answer<Vec<OutputWire>> {
    let now = desk.link.clock.now().mono;
    let wire = |(settings, armed): (&Settings, Option<Armed>)| OutputWire::of(settings, armed.as_ref(), &desk);
    Ok(Json(desk.link.outputs.all(now).into_iter().map(wire).collect()))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ArmBody {
    who: Option<String>,
    action: String,
    why: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DoBody {
    who: Option<String>,
    action: String,
    code: String,
}

fn action(word: &str) -> Result<Action, Problem> {
    Action::named(word).ok_or_else(|| Problem::bad_request("`action` is neither `on` nor `off`"))
}

pub(super) async fn act(
    State(desk): State<Desk>,
    caller: Caller,
    Path((id, step)): Path<(String, String)>,
    request: Request,
) -> Answer<OutputWire> {
    let outputs = desk.link.outputs.clone();
    let by = |who: Option<String>| {
        let principal = &caller.principal;
        caller.name(who).map(|who| By { who, principal: principal.account.clone(), role: principal.role })
    };
    let (by, what, detail, result) = match step.as_str() {
        "arm" => {
            let ArmBody { who, action: word, why } = body(request).await?;
            let (by, action, why) = (by(who)?, action(&word)?, words("why", &why, MOST_WHY)?);
            let detail = json!({ "action": word, "why": why });
            let armed = outputs.arm(&id, action, by.clone(), why, desk.link.clock.now().mono);
            (by, "output.arm", detail, armed.map(Some))
        }
        "do" => {
            let DoBody { who, action: word, code } = body(request).await?;
            let (by, action) = (by(who)?, action(&word)?);
            let now = desk.link.clock.now().mono;
            let look = look(desk.clone());
            // On its own, so that it ends and is written down also when whoever asked hangs up.
            let (own, to) = (desk.clone(), id.clone());
            let (doer, way) = (by.clone(), caller.way.clone());
            let done = tokio::spawn(async move {
                let done = own.link.outputs.carry_out(&to, action, &doer, &code, look, now).await;
                let mut detail = json!({ "action": word });
                if let Ok(armed) = &done {
                    detail["why"] = armed.why.as_str().into();
                }
                let who = doer.who.clone();
                if note(&own, doer, way, "output.do", &to, detail, done.as_ref().err()).await.is_err() {
                    // Whoever did it must hear what came of it all the same.
                    let came = done.as_ref().map_or_else(|refused| refused.text().en, |_| "done".to_owned());
                    tracing::error!(output = %to, %who, "switched {word}, and it could not be written into the audit: {came}");
                }
                done
            });
            // It does not panic; where it did, nobody knows what was done.
            let done = done.await.map_err(|_| Problem::busy())?;
            return answer(&desk, &id, done.map(|_| None));
        }
        "disarm" => {
            let by = by(body::<PlainBody>(request).await?.who)?;
            let disarmed = outputs.disarm(&id, &by);
            (by, "output.disarm", serde_json::Value::Null, disarmed.map(|()| None))
        }
        _ => {
            return Err(Problem::not_found("没有这个操作", "there is no such step")
                .hint("可用：arm、do、disarm", "there are arm, do and disarm"));
        }
    };
    if let Err(problem) = note(&desk, by.clone(), caller.way, what, &id, detail, result.as_ref().err()).await {
        // What is not written down is not armed; what another has armed stays so.
        if what == "output.arm" && result.is_ok() {
            let _ = outputs.disarm(&id, &by);
        }
        return Err(problem);
    }
    answer(&desk, &id, result)
}

/// Asks the main loop, whose readings are the newest.
fn look(desk: Desk) -> Look {
    Arc::new(move |points: Vec<PointId>| {
        let desk = desk.clone();
        Box::pin(async move {
            let mut samples = Vec::new();
            for id in points {
                let row = desk.ask(|reply| Query::Point { id, reply }).await.ok()?;
                samples.push(row.and_then(|row| row.sample));
            }
            Some((samples, desk.link.clock.now().mono))
        })
    })
}

async fn note(
    desk: &Desk,
    by: By,
    from: crate::store::audit::Way,
    what: &'static str,
    id: &str,
    detail: serde_json::Value,
    refused: Option<&Refused>,
) -> Result<(), Problem> {
    let (at, refused) = (desk.link.clock.now().wall, refused.map(Refused::text));
    desk.note(Deed { at, who: by.who, from, what: what.into(), about: id.to_owned(), refused, detail }).await
}

/// The output as it is now, with the code for whoever has just armed it.
fn answer(desk: &Desk, id: &str, result: Result<Option<Armed>, Refused>) -> Answer<OutputWire> {
    let armed = result.map_err(|refused| Problem::of_output(&refused))?;
    let all = desk.link.outputs.all(desk.link.clock.now().mono);
    let found = all.iter().find(|(settings, _)| *settings.id == *id);
    let (settings, now_armed) = found.ok_or_else(|| Problem::of_output(&Refused::NoSuchOutput(id.to_owned())))?;
    let mut wire = OutputWire::of(settings, now_armed.as_ref(), desk);
    if let (Some(armed), Some(shown)) = (armed, &mut wire.armed) {
        shown.code = Some(armed.code);
    }
    Ok(Json(wire))
}
