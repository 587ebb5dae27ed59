//! Where gateways report what has become of messages: `/reports/WAY-OUT/SECRET`, see [`crate::delivery_report`].
//!
//! The address is the authority, and good for nothing else. Who asks at another learns nothing, and leaves one line in the log once
//! in a while. A gateway that cannot be answered for now is told so and tries again.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::api::{Desk, send};
use super::authority::{Right, Routes, post};
use super::guard::Visitor;
use super::meanwhile::Against;
use super::problem::Problem;
use crate::main_loop::Input;
use crate::telemetry::quoted;

/// Bytes of a request.
const MOST: usize = 256 << 10;
const WITHIN: Duration = Duration::from_secs(10);

pub(super) fn routes() -> Routes<Desk> {
    let take = post(Right::Anybody, Against::Repeats, take).takes("application/json").gives("application/json");
    Routes::new().route("/reports/{way_out}/{secret}", take)
}

async fn take(
    State(desk): State<Desk>,
    Visitor(from): Visitor,
    Path((way_out, secret)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    let now = desk.link.clock.now().mono;
    let found = desk.link.in_force().reports.get_key_value(way_out.as_str()).map(|(id, of)| (id.clone(), of.clone()));
    let Some((channel, settings)) = found.filter(|(_, settings)| settings.is_secret(&secret)) else {
        desk.counted.say("a delivery report", "no such address", from, now);
        return Err(Problem::not_found("没有这个地址", "there is nothing at this address"));
    };
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let is_form = kind.to_ascii_lowercase().starts_with("application/x-www-form-urlencoded");
    let body = tokio::time::timeout(WITHIN, axum::body::to_bytes(request.into_body(), MOST)).await;
    let Ok(Ok(body)) = body else {
        let (zh, en) = ("回执内容不完整或过大", "the report is not whole, or too large");
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", zh, en));
    };
    let reports = settings.parse(is_form, &body).map_err(|why| {
        tracing::warn!(way_out = &*channel, "a delivery report cannot be read: {}", quoted(&why));
        Problem::bad_request(why)
    })?;
    let (sent, others, unusable) = (reports.reports.len(), reports.others, reports.unusable);
    let known =
        send(&desk.link.inputs, |reply| Input::Reported { channel: channel.clone(), reports: reports.reports, reply })
            .await?
            .map_err(|why| Problem::archive(&why.to_string()))?;
    tracing::debug!(way_out = &*channel, sent, known, others, unusable, "delivery reports");
    if unusable > 0 {
        desk.counted.say("a delivery report", "a message or number that is not ours", from, now);
    }
    let reply = settings.reply().to_owned();
    let kind = if reply.starts_with(['{', '[']) { "application/json" } else { "text/plain; charset=utf-8" };
    Ok(([(header::CONTENT_TYPE, kind)], Body::from(reply)).into_response())
}
