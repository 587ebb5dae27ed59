//! Who may ask at all: our own page, our own command line, and programs.
//!
//! Closed here: requests that another site makes a browser send (Origin, Sec-Fetch-Site, JSON only) and another name bound
//! to our address (Host). Who it is that asks, [`super::people`] says, and what they may, [`super::authority`].

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use anmin_sensors::point::Place;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ring::digest::{Digest, SHA256, digest};

use super::Settings;
use super::api::person;
use super::authority::Right;
use super::meanwhile;
use super::people::{Pass, People};
use super::problem::Problem;
use crate::clock::Clock;
use crate::store::audit::{Through, Way};
use crate::store::people::{Places, Principal};
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

/// Which way a request came: a browser says that a page sent it, `anmin` on a terminal who it is; what says neither is
/// another program.
pub(super) fn way_of(request: &Request) -> Way {
    let headers = request.headers();
    let header = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let through = if header(header::USER_AGENT).is_some_and(|agent| agent.starts_with("anmin/")) {
        Through::CommandLine
    } else if header(header::ORIGIN).is_some() || headers.contains_key("sec-fetch-site") {
        Through::Page
    } else {
        Through::Api
    };
    let address = request.extensions().get::<Peer>().map(|peer| peer.0.ip());
    Way { through, address, principal: None }
}

/// Who asks, once they have been let in; see [`People::admit`].
#[derive(Clone)]
pub(crate) struct Caller {
    pub way: Way,
    pub principal: Arc<Principal>,
    pub pass: Pass,
    pub people: People,
    /// The `seq` that a command names in `If-Match`.
    pub seen: Option<u32>,
}

impl Caller {
    /// Whoever works on the files of a box on which no daemon runs.
    pub fn at_the_box(people: &People) -> Self {
        let principal = Arc::new(Principal::unnamed(Principal::AT_THE_BOX));
        Self { way: Way::of(Through::CommandLine), principal, pass: Pass::Box, people: people.clone(), seen: None }
    }

    /// The name that journal and audit keep: that of the account or token. Only where there is none, the one that the
    /// command says.
    pub fn name(&self, said: Option<String>) -> Result<String, Problem> {
        if self.principal.shown.is_empty() { person(said) } else { Ok(self.principal.shown.clone()) }
    }

    /// Empty where neither account nor token has one.
    pub fn shown(&self) -> String {
        self.principal.shown.clone()
    }

    pub fn shown_or(&self, usual: &str) -> String {
        if self.principal.shown.is_empty() { usual.to_owned() } else { self.shown() }
    }

    /// What of the site there is for them.
    pub fn within(&self) -> Places {
        self.principal.places.clone()
    }

    pub fn sees(&self, place: &Place) -> bool {
        self.principal.places.takes(place)
    }

    /// For what several commands share a route: each needs its own right.
    pub fn may(&self, right: Right) -> Result<(), Problem> {
        self.people.may(self, right)
    }

    /// Whether what they came in with still gives what it gave.
    pub fn is_still(&self) -> bool {
        self.people.is_still(&self.pass, &self.principal)
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // Every route is made with a right, behind which it is there.
        let caller = parts.extensions.get::<Self>().cloned().ok_or_else(Problem::busy)?;
        Ok(Self { seen: meanwhile::seen(&parts.headers)?, ..caller })
    }
}

/// Who need not say who they are.
pub(super) struct Visitor(pub Way);

impl<S: Sync> FromRequestParts<S> for Visitor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Way>().cloned().map(Self).ok_or_else(Problem::busy)
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
        let path = request.uri().path();
        // Offices post CAP, and show a token of their own where it is known whose it is.
        let warning = path.starts_with("/api/v1/warnings/") && *request.method() == Method::POST;
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            same_origin(headers, host)?;
            // The crew's page has forms and no script; its address is its authority, which no other site knows. The residents'
            // has forms, too, and no authority. Where gateways report, the address is the authority, too.
            if !warning && !path.starts_with(CREW) && !path.starts_with(REPORTS) && path != RESIDENTS {
                json_only(headers)?;
            }
        }
        Ok(())
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

    /// Who stands behind a proxy of ours, by what it says: the last address that is no proxy. What anybody else says is nothing.
    fn behind_proxy(&self, request: &Request) -> Option<Peer> {
        let Peer(peer) = *request.extensions().get::<Peer>()?;
        let is_proxy = |address: &IpAddr| self.settings.proxies.contains(&address.to_canonical());
        if !is_proxy(&peer.ip()) {
            return None;
        }
        let said = request.headers().get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
        let all: Vec<&str> = said.flat_map(|value| value.split(',')).map(str::trim).collect();
        // One that cannot be read hides those before it: the proxy itself is counted then.
        let mut clients = all.into_iter().rev().map(IpAddr::from_str).take_while(Result::is_ok).flatten();
        let client = clients.find(|address| !is_proxy(address))?;
        Some(Peer(SocketAddr::new(client, peer.port())))
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
                quoted(without_secret(request.uri().path())),
                problem.error.en,
            );
        }
    }
}

/// A crew's link lets in whoever has it, as a gateway's address does, and a log is read by many.
fn without_secret(path: &str) -> &str {
    match path {
        crew if crew.starts_with(CREW) => "/crew/…",
        gateway if gateway.starts_with(REPORTS) => "/reports/…",
        path => path,
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

/// Our own page says so with each command; no form and no plain request of another site can.
pub(super) fn same_origin_is_said(headers: &HeaderMap) -> bool {
    headers.contains_key("x-anmin")
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

/// Runs around every request.
pub(super) async fn guard(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    if let Some(client) = guard.behind_proxy(&request) {
        request.extensions_mut().insert(client);
    }
    let mut response = match guard.check(&request) {
        Ok(()) => next.run(request).await,
        Err(problem) => {
            guard.note(&problem, &request);
            problem.into_response()
        }
    };
    let unauthorized = response.status() == StatusCode::UNAUTHORIZED;
    let headers = response.headers_mut();
    // A report says itself what it may do, which is less.
    let own = headers.remove(header::CONTENT_SECURITY_POLICY);
    for (name, value) in HEADERS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if let Some(own) = own {
        headers.insert(header::CONTENT_SECURITY_POLICY, own);
    }
    if unauthorized {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// What proxies name their clients in; the last address is the one that the last of them saw.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// Where crews answer by signed links.
const CREW: &str = "/crew/";

/// Where gateways report.
const REPORTS: &str = "/reports/";

/// Where residents say how they are.
const RESIDENTS: &str = "/residents";

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
