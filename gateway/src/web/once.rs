//! A command that comes twice under one `Idempotency-Key` is done once: who did not hear the answer may send it again.
//!
//! A key belongs to who sends it and to one route, and what it stands for is kept in memory for [`KEPT_FOR`], at most
//! [`MOST_KEPT`] of them and [`MOST_BYTES`]. A command that has begun goes on when its sender hangs up: only then can the second one be told
//! what became of the first.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anmin_sensors::time::Mono;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use ring::digest::{Context, SHA256, digest};

use super::api::{MOST_BODY, whole};
use super::guard::Caller;
use super::problem::Problem;
use crate::clock::Clock;

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Says of an answer that the command was not done again.
const REPEATED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// A key's longest form.
const MOST_KEY: usize = 64;
const KEPT_FOR: Duration = Duration::from_secs(600);
/// When full, the oldest goes: a command under its key would be done anew.
const MOST_KEPT: usize = 1_000;
/// What all answers take together; the oldest go.
const MOST_BYTES: usize = 16 << 20;

type Hash = [u8; 32];

#[derive(Clone)]
struct Kept {
    status: StatusCode,
    kind: Option<HeaderValue>,
    body: Bytes,
}

struct Entry {
    began: Mono,
    /// Of the command's body: another one under the same key is a mistake.
    body: Hash,
    /// `None` until it is done.
    answer: Option<Kept>,
}

#[derive(Default)]
struct Book {
    entries: HashMap<Hash, Entry>,
    /// The oldest first.
    order: VecDeque<Hash>,
    /// What the answers take.
    bytes: usize,
}

impl Book {
    fn forget_oldest(&mut self) {
        let oldest = self.order.pop_front().and_then(|oldest| self.entries.remove(&oldest));
        let answer = oldest.and_then(|entry| entry.answer);
        self.bytes -= answer.map_or(0, |kept| kept.body.len());
    }
}

#[derive(Clone)]
pub(super) struct Once {
    book: Arc<Mutex<Book>>,
    clock: Clock,
}

impl Once {
    pub fn new(clock: Clock) -> Self {
        Self { book: Arc::default(), clock }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes a command on, or answers as it was answered before. What has no key, and what only reads, passes.
    pub async fn run(&self, request: Request, next: Next) -> Response {
        match self.keyed(&request) {
            Ok(None) => next.run(request).await,
            Ok(Some(name)) => self.run_keyed(name, request, next).await.unwrap_or_else(Problem::into_response),
            Err(problem) => problem.into_response(),
        }
    }

    /// Under which name the command is kept.
    fn keyed(&self, request: &Request) -> Result<Option<Hash>, Problem> {
        let mut keys = request.headers().get_all(KEY).iter();
        let (Some(key), Some(caller)) = (keys.next(), request.extensions().get::<Caller>()) else { return Ok(None) };
        if request.method().is_safe() {
            return Ok(None);
        }
        let key = key.as_bytes();
        let is_good = (1..=MOST_KEY).contains(&key.len()) && key.iter().all(u8::is_ascii_graphic);
        if !is_good || keys.next().is_some() {
            let why = format!("Idempotency-Key is not one word of 1 to {MOST_KEY} plain characters");
            return Err(Problem::bad_request(why));
        }
        let mut name = Context::new(&SHA256);
        for part in [caller.principal.account.as_bytes(), request.uri().path().as_bytes(), key] {
            name.update(&(part.len() as u64).to_be_bytes());
            name.update(part);
        }
        Ok(Some(hash(name.finish())))
    }

    async fn run_keyed(&self, name: Hash, request: Request, next: Next) -> Result<Response, Problem> {
        let (parts, body) = request.into_parts();
        let bytes = whole(Request::from_parts(parts.clone(), body), MOST_BODY).await?;
        if let Some(answer) = self.begin(name, hash(digest(&SHA256, &bytes)))? {
            return Ok(answer);
        }
        let once = self.clone();
        let request = Request::from_parts(parts, Body::from(bytes));
        let work = tokio::spawn(async move {
            // Held until the answer is kept, so that a command that panics leaves no key behind.
            let begun = Begun { once: &once, name };
            let response = next.run(request).await;
            begun.done(response).await
        });
        work.await.unwrap_or_else(|_| Err(Problem::busy()))
    }

    /// The answer of the first, if it was one; else notes that it begins.
    fn begin(&self, name: Hash, body: Hash) -> Result<Option<Response>, Problem> {
        let now = self.clock.now().mono;
        let mut book = self.book();
        while let Some(oldest) = book.order.front().copied() {
            let is_old = book.entries.get(&oldest).is_none_or(|entry| now.since(entry.began) >= KEPT_FOR);
            if !is_old && book.order.len() < MOST_KEPT {
                break;
            }
            book.forget_oldest();
        }
        match book.entries.get(&name) {
            None => {
                book.entries.insert(name, Entry { began: now, body, answer: None });
                book.order.push_back(name);
                Ok(None)
            }
            Some(entry) if entry.body != body => Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "key_reused",
                "该 Idempotency-Key 已用于另一条命令",
                "this Idempotency-Key stands for another command already",
            )),
            Some(Entry { answer: None, .. }) => Err(Problem {
                retry_after: 1,
                ..Problem::new(
                    StatusCode::CONFLICT,
                    "in_progress",
                    "同一命令正在执行",
                    "the same command is being done",
                )
            }),
            Some(Entry { answer: Some(kept), .. }) => {
                let mut response = (kept.status, kept.body.clone()).into_response();
                let headers = response.headers_mut();
                headers.remove(header::CONTENT_TYPE);
                headers.extend(kept.kind.clone().map(|kind| (header::CONTENT_TYPE, kind)));
                headers.insert(REPEATED, HeaderValue::from_static("true"));
                Ok(Some(response))
            }
        }
    }
}

/// A command that has begun under a key. Dropped without an answer it never was.
struct Begun<'o> {
    once: &'o Once,
    name: Hash,
}

impl Begun<'_> {
    /// Keeps the answer. After a failure of ours, or what asks to come again, the next one tries anew.
    async fn done(self, response: Response) -> Result<Response, Problem> {
        let (parts, body) = response.into_parts();
        // Our own answers, in memory already.
        let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else { return Err(Problem::busy()) };
        if !parts.status.is_server_error() && !parts.headers.contains_key(header::RETRY_AFTER) {
            let kept = Kept {
                status: parts.status,
                kind: parts.headers.get(header::CONTENT_TYPE).cloned(),
                body: body.clone(),
            };
            let mut book = self.once.book();
            if let Some(entry) = book.entries.get_mut(&self.name) {
                entry.answer = Some(kept);
                book.bytes += body.len();
            }
            while book.bytes > MOST_BYTES && book.order.len() > 1 {
                book.forget_oldest();
            }
        }
        Ok(Response::from_parts(parts, Body::from(body)))
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        let mut book = self.once.book();
        if book.entries.get(&self.name).is_some_and(|entry| entry.answer.is_none()) {
            book.entries.remove(&self.name);
            book.order.retain(|name| *name != self.name);
        }
    }
}

fn hash(digest: ring::digest::Digest) -> Hash {
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}
