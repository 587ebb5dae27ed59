//! Lists page by page, and what has not changed said in a word.
//!
//! A page begins behind a place, never at a count: whatever comes or goes while somebody turns the pages, nothing that was there
//! when they began comes twice or is left out. `after` is `next` of the page before; where the answer is a bare list, which has
//! no room for `next`, the header `Link` leads on (RFC 8288).

use std::fmt::Display;
use std::str::FromStr;

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

use super::api::short;
use super::openapi::{Answers, Said};
use super::problem::Problem;
use crate::config::drawings::sha256;

/// A bare list.
pub(super) type Leaf<T> = Result<(HeaderMap, Json<Vec<T>>), Problem>;

/// Where a page begins: `after`, or by the name that the route had for it before.
pub(super) fn after<C: FromStr>(after: Option<&str>, earlier: Option<&str>) -> Result<Option<C>, Problem> {
    let named = match (after, earlier) {
        (Some(_), Some(_)) => return Err(Problem::bad_request("a page begins at one place, and this names two")),
        (named, None) | (None, named) => named,
    };
    let read = |text: &str| {
        text.parse().map_err(|_| {
            Problem::bad_request(format_args!("after is {:?}, expected `next` of the page before", short(text)))
        })
    };
    named.map(read).transpose()
}

/// The first `limit` of a list of which one more was read where there is one, and where it goes on.
pub(super) fn leaf<T, C: Display>(rows: &mut Vec<T>, limit: usize, cursor: impl Fn(&T) -> C) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if rows.len() > limit {
        rows.truncate(limit);
        let next = rows.last().map(|last| format!("<?limit={limit}&after={}>; rel=\"next\"", escaped(&cursor(last))));
        if let Some(next) = next.and_then(|next| HeaderValue::try_from(next).ok()) {
            headers.insert(header::LINK, next);
        }
    }
    headers
}

/// As it stands in a query.
fn escaped(cursor: &impl Display) -> String {
    let mut text = String::new();
    for byte in cursor.to_string().bytes() {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' | b'~' => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// JSON with the hash of what it says, for those who have it already.
pub(super) struct Tagged<T>(Response, std::marker::PhantomData<T>);

impl<T: Serialize> Tagged<T> {
    pub fn new(asked: &HeaderMap, wire: &T) -> Result<Self, Problem> {
        Self::but_for(asked, wire, wire)
    }

    /// `told` is the answer without what is another each time, such as the moment at which it was given.
    pub fn but_for(asked: &HeaderMap, wire: &T, told: &impl Serialize) -> Result<Self, Problem> {
        let unfit = |error: serde_json::Error| Problem::archive(&error.to_string());
        let hash = sha256(&serde_json::to_vec(told).map_err(unfit)?);
        let bytes = if has_already(asked, &hash) { Vec::new() } else { serde_json::to_vec(wire).map_err(unfit)? };
        Ok(Self(tagged(asked, "application/json", &hash, bytes), std::marker::PhantomData))
    }
}

impl<T: JsonSchema> Answers for Tagged<T> {
    fn tell(said: &mut Said) {
        Json::<T>::tell(said);
        said.tagged();
    }
}

impl<T> IntoResponse for Tagged<T> {
    fn into_response(self) -> Response {
        self.0
    }
}

/// Whether the asker holds what has this hash (RFC 9110, 13.1.2; a weak comparison).
pub(super) fn has_already(headers: &HeaderMap, hash: &str) -> bool {
    let named = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    named
        .flat_map(|value| value.split(','))
        .map(|tag| tag.trim().trim_start_matches("W/"))
        .any(|tag| tag == "*" || tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')) == Some(hash))
}

/// An answer that a browser keeps and asks about each time: whoever may no longer look is not shown what was kept.
pub(super) fn tagged(asked: &HeaderMap, kind: &'static str, hash: &str, bytes: Vec<u8>) -> Response {
    let tag = HeaderValue::try_from(format!("\"{hash}\"")).expect("digits are fit for a header");
    let mut response = match has_already(asked, hash) {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => ([(header::CONTENT_TYPE, kind)], Body::from(bytes)).into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::ETAG, tag);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.insert(header::VARY, HeaderValue::from_static("Authorization, Cookie"));
    response
}
