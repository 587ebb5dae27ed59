//! The page of the duty desk, built into the binary: it needs nothing from anywhere else.

use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;

pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let asset = |kind: &'static str, text: &'static str| {
        get(move || async move {
            ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")], text).into_response()
        })
    };
    Router::new()
        .route("/", asset("text/html; charset=utf-8", include_str!("../../web/index.html")))
        .route("/app.js", asset("text/javascript; charset=utf-8", include_str!("../../web/app.js")))
        .route("/words.js", asset("text/javascript; charset=utf-8", include_str!("../../web/words.js")))
        .route("/style.css", asset("text/css; charset=utf-8", include_str!("../../web/style.css")))
        .route("/icon.svg", asset("image/svg+xml", include_str!("../../web/icon.svg")))
}
