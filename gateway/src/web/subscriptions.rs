//! What subscribers from outside ask: their stream, their pages, their feed. What each of them hears of is decided in
//! [`crate::subscription`].
//!
//! A subscriber with a token of its own shows that, and reaches nothing else with it; who has the right to, reads any of
//! them.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use ring::digest::{SHA256, digest};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::api::{Answer, Asked, Desk, PlainBody, Told, rows, short};
use super::events::last_event_id;
use super::guard::Caller;
use super::people::{Pass, no_token};
use super::problem::Problem;
use super::wire::{SubscriptionWire, TestedWire, Writer};
use crate::store::audit::Deed;
use crate::subscription::stream::MOST_LISTENERS;
use crate::subscription::{MOST_EVENTS, Since, Subscriber, Tested};

impl Desk {
    /// The subscription, for who may read it. A subscriber reads its own; where it has a token, being at the box is not
    /// enough.
    fn subscriber(&self, id: &str, caller: &Caller) -> Result<Arc<Subscriber>, Problem> {
        let found = self.link.subscriptions.find(id);
        let may = match &caller.pass {
            Pass::Subscriber(own) => own == id,
            Pass::Box => !found.is_some_and(|one| one.has_token()),
            Pass::TokenFile | Pass::Token(_) | Pass::SignIn(_) => true,
        };
        if may { self.named(id) } else { Err(no_token()) }
    }

    fn named(&self, id: &str) -> Result<Arc<Subscriber>, Problem> {
        self.link.subscriptions.find(id).ok_or_else(|| {
            Problem::not_found(format!("没有订阅方 {}", short(id)), format!("there is no subscriber {}", short(id)))
                .hint("订阅方在配置 [[subscriber]] 中登记", "subscribers stand in [[subscriber]] of the configuration")
        })
    }
}

pub(super) async fn all(State(desk): State<Desk>) -> Answer<Vec<SubscriptionWire>> {
    let writer = Writer { zone: &desk.link.site.time_zone };
    let end = desk.link.subscriptions.end();
    Ok(Json(desk.link.subscriptions.all().map(|one| writer.subscription(&one, end)).collect()))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StreamParameters {
    last_event_id: Option<String>,
}

fn since(name: &str, text: &str) -> Result<Since, Problem> {
    Since::parse(text).ok_or_else(|| {
        Problem::bad_request(format_args!("{name} is {:?}, expected an event's id or `beginning`", short(text)))
    })
}

pub(super) async fn stream(
    State(desk): State<Desk>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    Asked(StreamParameters { last_event_id: parameter }): Asked<StreamParameters>,
) -> Result<Response, Problem> {
    let subscriber = desk.subscriber(&id, &caller)?;
    let last = last_event_id(&headers, parameter.as_deref());
    let since = last.map_or(Ok(Since::Now), |last| since("last_event_id", &last))?;
    let listener = desk.link.subscriptions.listen(&subscriber, since).ok_or_else(|| {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too_many_listeners",
            format!("订阅连接已达上限（{MOST_LISTENERS} 个）"),
            format!("{MOST_LISTENERS} subscribers listen, which is as many as there can be"),
        )
    })?;
    let body = Body::from_stream(stream::unfold((listener, caller), |(mut listener, caller)| async move {
        let bytes = listener.next().await.filter(|_| caller.is_still())?;
        Some((Ok::<_, Infallible>(bytes), (listener, caller)))
    }));
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // For a proxy in front that would gather the stream before passing it on.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PageParameters {
    after: Option<String>,
    limit: Option<usize>,
}

pub(super) async fn page(
    State(desk): State<Desk>,
    caller: Caller,
    Path(id): Path<String>,
    Asked(PageParameters { after, limit }): Asked<PageParameters>,
) -> Result<Response, Problem> {
    let subscriber = desk.subscriber(&id, &caller)?;
    let since = after.map_or(Ok(Since::Beginning), |after| since("after", &after))?;
    let limit = rows(limit, MOST_EVENTS)?;
    let all = desk.link.subscriptions.clone();
    let read = blocking(move || {
        let stretch = all.read(&subscriber, since, limit).map_err(|error| error.to_string())?;
        Ok((stretch.lost, all.document(&subscriber, &stretch)))
    });
    let (lost, document) = read.await?;
    if lost {
        return Err(Problem::new(
            StatusCode::GONE,
            "other_journal",
            "该位置属于另一份报警记录（从备份恢复或重建前），无法据此续读",
            "this position is of another journal, before a backup was restored or the file made anew",
        )
        .hint(
            "请以 after=beginning 重新读取，按 order 去重",
            "read again with after=beginning and drop by `order` what you have",
        ));
    }
    Ok(([(header::CONTENT_TYPE, "application/json")], document).into_response())
}

pub(super) async fn feed(
    State(desk): State<Desk>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let subscriber = desk.subscriber(&id, &caller)?;
    let all = desk.link.subscriptions.clone();
    let xml = blocking(move || all.feed(&subscriber)).await?.ok_or_else(|| no_cap(&id))?;
    let hash = digest(&SHA256, xml.as_bytes());
    let tag = format!("\"{}\"", hash.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let is_known = known.is_some_and(|known| known.split(',').any(|one| one.trim().trim_start_matches("W/") == tag));
    let mut response = if is_known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, "application/atom+xml; charset=utf-8")], xml).into_response()
    };
    let headers = response.headers_mut();
    headers.extend(HeaderValue::from_str(&tag).ok().map(|tag| (header::ETAG, tag)));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=10"));
    Ok(response)
}

pub(super) async fn cap(
    State(desk): State<Desk>,
    caller: Caller,
    Path((id, identifier)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let subscriber = desk.subscriber(&id, &caller)?;
    let all = desk.link.subscriptions.clone();
    let asked = identifier.clone();
    match blocking(move || all.cap(&subscriber, &asked)).await? {
        Some(document) => {
            Ok(([(header::CONTENT_TYPE, "application/cap+xml; charset=utf-8")], document.xml).into_response())
        }
        None => {
            let shown = short(&identifier);
            Err(Problem::not_found(format!("没有 CAP 消息 {shown}"), format!("there is no CAP message {shown}")))
        }
    }
}

fn no_cap(id: &str) -> Problem {
    Problem::not_found(
        format!("订阅方 {} 没有配置 CAP 订阅源", short(id)),
        format!("subscriber {} has no feed of CAP messages", short(id)),
    )
    .hint("请在配置中为其填写 [subscriber.cap]", "give it [subscriber.cap] in the configuration")
}

/// Asks the journal, off the threads that serve.
async fn blocking<T: Send + 'static>(read: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(why)) => Err(Problem::archive(&why)),
        Err(_) => Err(Problem::archive("the reader failed")),
    }
}

pub(super) async fn test(
    State(desk): State<Desk>,
    caller: Caller,
    Path(id): Path<String>,
    Told(PlainBody { who }): Told<PlainBody>,
) -> Answer<TestedWire> {
    let subscriber = desk.named(&id)?;
    let (who, from) = (caller.name(who)?, caller.way);
    let Tested { listeners, posted } = desk.link.subscriptions.test(&subscriber, &who).await;
    let refused = posted.as_ref().and_then(|posted| posted.as_ref().err().cloned());
    let detail = json!({ "listeners": listeners, "posted": posted.as_ref().map(Result::is_ok), "why": refused });
    let deed = Deed {
        at: desk.link.clock.now().wall,
        who,
        from,
        what: "subscription.test".into(),
        about: id.clone(),
        refused: None,
        detail,
    };
    desk.note(deed).await?;
    match posted.transpose() {
        Ok(answer) => Ok(Json(TestedWire { subscriber: id, listeners, answer })),
        Err(why) => Err(Problem::new(
            StatusCode::BAD_GATEWAY,
            "not_taken",
            format!("订阅方 {id} 没有接收测试消息：{why}"),
            format!("subscriber {id} has not taken the test message: {why}"),
        )),
    }
}
