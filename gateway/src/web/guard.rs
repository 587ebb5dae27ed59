//! Who may ask at all: our own page, our own command line, and programs that hold the token.
//!
//! Closed here: requests that another site makes a browser send (Origin, Sec-Fetch-Site, JSON only), another name bound
//! to our address (Host), and, where a token is configured, everybody without it. Accounts and roles come later.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ring::digest::{Digest, SHA256, digest};

use super::Settings;
use super::problem::Problem;
use crate::clock::Clock;
use crate::store::audit::{Through, Way};
use crate::telemetry::{Repeats, quoted};

/// A bearer token, kept as its digest: neither a log nor a dump can show it.
#[derive(Clone, Debug)]
pub struct Token(Digest);

impl Token {
    /// Shortest token that is taken.
    const SHORTEST: usize = 16;

    pub fn new(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.len() < Self::SHORTEST {
            return Err(format!("the token has {} characters, expected {} or more", text.len(), Self::SHORTEST));
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("the token has characters that a header cannot carry".to_owned());
        }
        Ok(Self(digest(&SHA256, text.as_bytes())))
    }

    pub fn load(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Self::new(&text).map_err(|why| format!("{}: {why}", path.display()))
    }

    /// Takes as long for a near miss as for a far one: digests are compared, whole.
    pub(super) fn is(&self, offered: &str) -> bool {
        let offered = digest(&SHA256, offered.as_bytes());
        let differ = self.0.as_ref().iter().zip(offered.as_ref()).fold(0, |differ, (a, b)| differ | (a ^ b));
        differ == 0
    }
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub SocketAddr);

/// Where a command comes from, for the audit: whose name it bears its body says.
pub(super) struct Caller(pub Way);

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    /// A browser says that a page sent it, `anmin` on a terminal who it is; what says neither is another program.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let header = |name: header::HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let through = if header(header::ORIGIN).is_some() || parts.headers.contains_key("sec-fetch-site") {
            Through::Page
        } else if header(header::USER_AGENT).is_some_and(|agent| agent.starts_with("anmin/")) {
            Through::CommandLine
        } else {
            Through::Api
        };
        let address = parts.extensions.get::<Peer>().map(|peer| peer.0.ip());
        Ok(Self(Way { through, address }))
    }
}

#[derive(Clone)]
pub(super) struct Guard {
    settings: Arc<Settings>,
    refused: Arc<Mutex<Repeats>>,
    clock: Clock,
}

impl Guard {
    pub fn new(settings: Settings) -> Self {
        Self { settings: Arc::new(settings), refused: Arc::default(), clock: Clock::system() }
    }

    fn check(&self, request: &Request) -> Result<(), Problem> {
        let headers = request.headers();
        let host = self.host(request)?;
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            same_origin(headers, host)?;
            // The crew's page has forms and no script; its address is its authority, which no other site knows.
            if !request.uri().path().starts_with(CREW) {
                json_only(headers)?;
            }
        }
        let path = request.uri().path();
        match &self.settings.token {
            // Subscribers have tokens of their own, which are asked for where it is known whose they are.
            Some(_) if path.starts_with("/api/v1/subscriptions/") && *request.method() == Method::GET => Ok(()),
            Some(token) if path.starts_with("/api/") || path == "/metrics" => bearer(headers, token),
            _ => Ok(()),
        }
    }

    /// The name that the browser believes to speak with. Only addresses and names of ours: a page of another site that
    /// binds its own name to our address is turned away.
    fn host<'r>(&self, request: &'r Request) -> Result<&'r str, Problem> {
        let mut named = request.headers().get_all(header::HOST).iter();
        let host = match (named.next().map(HeaderValue::to_str), named.next()) {
            (Some(Ok(host)), None) => host,
            _ => return Err(Problem::bad_request("exactly one Host header is needed")),
        };
        let asked = [Some(host), request.uri().authority().map(|authority| authority.as_str())];
        for name in asked.into_iter().flatten() {
            if !self.is_ours(name) {
                return Err(Problem::new(
                    StatusCode::MISDIRECTED_REQUEST,
                    "unknown_host",
                    format!("不认识主机名 {}", quoted(name)),
                    format!("the host name {} is not one of ours", quoted(name)),
                )
                .hint(
                    "请用 IP 地址访问，或把该名称写入配置 [web] hosts",
                    "use the IP address, or add the name to `hosts` in [web]",
                ));
            }
        }
        Ok(host)
    }

    fn is_ours(&self, host: &str) -> bool {
        if SocketAddr::from_str(host).is_ok() || IpAddr::from_str(host.trim_matches(['[', ']'])).is_ok() {
            return true;
        }
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            _ => host,
        };
        IpAddr::from_str(name).is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || self.settings.hosts.iter().any(|ours| name.eq_ignore_ascii_case(ours))
    }

    fn note(&self, problem: &Problem, request: &Request) {
        let peer =
            request.extensions().get::<Peer>().map_or_else(|| "unknown".to_owned(), |peer| peer.0.ip().to_string());
        let key = format!("{peer} {}", problem.code);
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(more) = refused.say(&key, self.clock.now().mono) {
            tracing::warn!(
                more,
                "web: turned away {} {} from {peer}: {}",
                request.method(),
                quoted(request.uri().path()),
                problem.error.en,
            );
        }
    }
}

/// A browser names the page that sends a request; a program names none, and no page can make a browser leave it out.
fn same_origin(headers: &HeaderMap, host: &str) -> Result<(), Problem> {
    let foreign = || {
        Problem::new(
            StatusCode::FORBIDDEN,
            "foreign_origin",
            "拒绝其他网站发起的操作",
            "commands are only taken from our own page",
        )
    };
    for origin in headers.get_all(header::ORIGIN) {
        let ours = origin
            .to_str()
            .ok()
            .and_then(|origin| origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")));
        if !ours.is_some_and(|origin| origin.eq_ignore_ascii_case(host)) {
            return Err(foreign());
        }
    }
    match headers.get("sec-fetch-site").map(HeaderValue::as_bytes) {
        None | Some(b"same-origin" | b"none") => Ok(()),
        Some(_) => Err(foreign()),
    }
}

/// A form of another site cannot send this type without asking first, and we never answer that question.
fn json_only(headers: &HeaderMap) -> Result<(), Problem> {
    let named = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let plain = named.split(';').next().unwrap_or("").trim();
    if plain.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "not_json",
        "请求须为 JSON（Content-Type: application/json）",
        "the body must be JSON, said by `Content-Type: application/json`",
    ))
}

fn bearer(headers: &HeaderMap, token: &Token) -> Result<(), Problem> {
    match offered(headers) {
        Some(offered) if token.is(offered) => Ok(()),
        _ => Err(no_token()),
    }
}

/// The token that a request shows.
pub(super) fn offered(headers: &HeaderMap) -> Option<&str> {
    headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
}

pub(super) fn no_token() -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "no_token", "需要访问口令", "the access token is missing or wrong")
        .hint("口令在配置 [web] token_file 所指的文件里", "it stands in the file that `token_file` in [web] names")
}

/// Runs around every request.
pub(super) async fn guard(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let mut response = match guard.check(&request) {
        Ok(()) => next.run(request).await,
        Err(problem) => {
            guard.note(&problem, &request);
            let unauthorized = problem.status == StatusCode::UNAUTHORIZED;
            let mut response = problem.into_response();
            if unauthorized {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            response
        }
    };
    let headers = response.headers_mut();
    // A report says itself what it may do, which is less.
    let own = headers.remove(header::CONTENT_SECURITY_POLICY);
    for (name, value) in HEADERS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if let Some(own) = own {
        headers.insert(header::CONTENT_SECURITY_POLICY, own);
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Where crews answer by signed links.
const CREW: &str = "/crew/";

/// On every response that does not say another.
const HEADERS: [(header::HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];
