//! The page of the duty desk, built into the binary: it needs nothing from anywhere else.
//!
//! `make web` builds it from `gateway/web/`. A binary built without it works all the same and says how to get it.

use std::path::Path;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use include_dir::{Dir, DirEntry, include_dir};

/// `page/` inside is there once it has been built.
static DIST: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/web/dist");

const WITHOUT: &str = include_str!("without.html");

/// One route for each file of the page, and the page itself at `/`.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let mut routes = Router::new();
    let mut open: Vec<&DirEntry<'static>> = DIST.get_entry("page").into_iter().collect();
    while let Some(entry) = open.pop() {
        match entry {
            DirEntry::Dir(dir) => open.extend(dir.entries()),
            DirEntry::File(file) => {
                let name = file.path().strip_prefix("page").ok().and_then(Path::to_str).unwrap_or_default();
                routes = routes.route(&format!("/{name}"), get(move || answer(name, file.contents())));
            }
        }
    }
    let index = DIST.get_file("page/index.html").map_or(WITHOUT.as_bytes(), |file| file.contents());
    routes.route("/", get(move || answer("index.html", index)))
}

async fn answer(name: &'static str, bytes: &'static [u8]) -> Response {
    let kind = match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    };
    // The names of assets carry a hash of what is in them.
    let keep = if name.starts_with("assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
    let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, keep)];
    (headers.map(|(name, value)| (name, HeaderValue::from_static(value))), Body::from(bytes)).into_response()
}
