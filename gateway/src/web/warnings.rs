//! Warnings from above: what is in force, and where offices post them.
//!
//! An office shows the token of its source and reaches nothing else with it; where a source has none, nobody can post.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;

use super::api::{Answer, Desk, short, whole};
use super::guard::offered;
use super::people::no_token;
use super::problem::Problem;
use super::wire::{TakenWire, WarningWire, Writer};
use crate::warning::Refused;
use crate::warning::message::MOST_MESSAGE;

pub(super) async fn all(State(desk): State<Desk>) -> Answer<Vec<WarningWire>> {
    let writer = Writer { zone: &desk.link.site.time_zone };
    Ok(Json(desk.link.warnings.in_force().iter().map(|warning| writer.warning(warning)).collect()))
}

pub(super) async fn post(State(desk): State<Desk>, Path(source): Path<String>, request: Request) -> Answer<TakenWire> {
    let may = desk.link.warnings.find(&source).is_some_and(|known| known.may_post(offered(request.headers())));
    if !may {
        return Err(no_token());
    }
    let bytes = whole(request, MOST_MESSAGE).await?;
    let warnings = desk.link.warnings.clone();
    let taken = tokio::task::spawn_blocking(move || {
        let known = warnings.find(&source)?;
        Some(warnings.accept(&known, &bytes))
    });
    match taken.await {
        Ok(Some(Ok((key, taken)))) => {
            let taken = TakenWire { identifier: key.identifier, sender: key.sender, taken: taken.as_str().to_owned() };
            Ok(Json(taken))
        }
        Ok(Some(Err(Refused::NotKept(why)))) => Err(Problem::archive(&why)),
        Ok(Some(Err(refused))) => {
            let why = short(&refused.to_string());
            Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "not_cap",
                format!("不是可接收的 CAP 1.2 消息：{why}"),
                format!("this is no CAP 1.2 message that can be taken: {why}"),
            ))
        }
        Ok(None) | Err(_) => Err(Problem::busy()),
    }
}
