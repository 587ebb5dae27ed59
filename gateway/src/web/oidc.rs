//! The way to the provider of `[oidc]` and back: one page sends the browser off, one address takes it in again.
//!
//! A browser that leaves has a cookie of its own for ten minutes, and only that browser can come back, once. It comes back by a
//! link of another site, with which the cookie of a sign-in (`SameSite=Strict`) is not sent: so which sign-in it had is remembered
//! when it leaves. Where it goes then is always our own first page, with one of a few words ([`Word`]) when it was not let in; what
//! the provider says of a failure is in the log and never on a page.
//!
//! Bounds: [`MOST_FLOWS`] on their way, [`MOST_BY_ADDRESS`] of them from one address, whose oldest goes for one more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anmin_rules::rule::Text;
use anmin_sensors::time::Mono;
use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse as _, Response};
use tracing::warn;
use url::form_urlencoded;

use super::api::{Desk, Told};
use super::authority::{Right, Routes, get};
use super::guard::Visitor;
use super::people::{Door as Entrance, NotAdmitted, address_key};
use super::problem::Problem;
use super::secret;
use super::sign_in::{NothingBody, agent};
use super::wire::AddressWire;
use crate::clock::Clock;
use crate::oidc::{CALLBACK, Flow, Provider, Settings, Trouble};
use crate::store::audit::Way;
use crate::telemetry::Repeats;

/// For somebody to find their password at the provider.
const LASTS: Duration = Duration::from_secs(600);
const MOST_FLOWS: usize = 1_000;
const MOST_BY_ADDRESS: usize = 32;
/// Longest code, state or word of the provider that is looked at.
const MOST_WORD: usize = 2_048;

/// Why somebody was not let in, as the page is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    /// The provider did not answer.
    Away,
    /// It is not as it must be, or says what is not believed.
    Unsound,
    /// It did not let them in, or they turned back.
    Refused,
    /// Too late, from another browser, or a second time.
    Late,
    NoRole,
    Disabled,
    Full,
    Busy,
}

impl Word {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Away => "away",
            Self::Unsound => "unsound",
            Self::Refused => "refused",
            Self::Late => "late",
            Self::NoRole => "no_role",
            Self::Disabled => "disabled",
            Self::Full => "full",
            Self::Busy => "busy",
        }
    }

    fn of(trouble: &Trouble) -> Self {
        match trouble {
            Trouble::Away(_) => Self::Away,
            Trouble::Unsound(_) | Trouble::Token(_) => Self::Unsound,
            Trouble::Refused(_) => Self::Refused,
            Trouble::Busy => Self::Busy,
        }
    }
}

/// Somebody on their way.
struct Gone {
    flow: Flow,
    /// SHA-256 of what only that browser holds.
    browser: String,
    address: String,
    /// The id of the sign-in that it had.
    before: Option<String>,
}

/// Those on their way, by the SHA-256 of the state that comes back.
#[derive(Default)]
struct Ways(HashMap<String, Gone>);

impl Ways {
    /// `false`: there are too many.
    fn leave(&mut self, gone: Gone, now: Mono) -> bool {
        self.0.retain(|_, gone| now.since(gone.flow.began()) < LASTS);
        let own: Vec<(&String, &Gone)> = self.0.iter().filter(|(_, other)| other.address == gone.address).collect();
        if own.len() >= MOST_BY_ADDRESS
            && let Some(oldest) = own.iter().min_by_key(|(_, gone)| gone.flow.began()).map(|(key, _)| (*key).clone())
        {
            self.0.remove(&oldest);
        }
        let has_place = self.0.len() < MOST_FLOWS;
        if has_place {
            self.0.insert(secret::sum(&gone.flow.state), gone);
        }
        has_place
    }

    /// Once: whoever comes with the same again is late.
    fn back(&mut self, state: &str, browser: &str, now: Mono) -> Option<Gone> {
        let key = secret::sum(state);
        self.0.get(&key).filter(|gone| secret::same(&gone.browser, &secret::sum(browser)))?;
        self.0.remove(&key).filter(|gone| now.since(gone.flow.began()) < LASTS)
    }
}

/// The way in by the provider. Cheap to clone; every clone is the same one.
#[derive(Clone)]
pub(super) struct Door(Arc<Shared>);

struct Shared {
    provider: Provider,
    clock: Clock,
    cookie: String,
    ways: Mutex<Ways>,
    said: Mutex<Repeats>,
}

impl Door {
    pub fn new(settings: Settings, port: u16, clock: &Clock) -> Self {
        Self(Arc::new(Shared {
            provider: Provider::new(settings, clock.clone()),
            clock: clock.clone(),
            cookie: format!("anmin-{port}-oidc"),
            ways: Mutex::default(),
            said: Mutex::default(),
        }))
    }

    pub fn name(&self) -> &Text {
        &self.0.provider.settings().name
    }

    fn ways(&self) -> MutexGuard<'_, Ways> {
        self.0.ways.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, kind: &str, why: &str) {
        let now = self.0.clock.now().mono;
        if let Some(more) = self.0.said.lock().unwrap_or_else(PoisonError::into_inner).say(kind, now) {
            warn!(more, "web: signing in by {}: {why}", self.0.provider.settings().issuer);
        }
    }

    /// The cookie of a browser on its way; an empty one ends it. It comes along with the link by which the provider sends it back.
    fn set_cookie(&self, secret: &str) -> Result<HeaderValue, Problem> {
        let secure = if self.0.provider.settings().page.starts_with("https://") { "; Secure" } else { "" };
        let seconds = if secret.is_empty() { 0 } else { LASTS.as_secs() };
        let cookie =
            format!("{}={secret}; Path={CALLBACK}; HttpOnly; SameSite=Lax; Max-Age={seconds}{secure}", self.0.cookie);
        HeaderValue::from_str(&cookie).map_err(|_| Problem::busy())
    }

    fn browser<'h>(&self, headers: &'h HeaderMap) -> Option<&'h str> {
        let pairs = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs = pairs.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(name, _)| *name == self.0.cookie).map(|(_, value)| value)
    }

    /// What could not be done for somebody who came back is in the log, and in the audit.
    async fn refuse(&self, desk: &Desk, way: &Way, trouble: Trouble) -> Word {
        let word = Word::of(&trouble);
        self.tell(word.as_str(), &trouble.to_string());
        // A provider that is away is nobody's failure.
        if matches!(trouble, Trouble::Away(_) | Trouble::Busy) {
            return word;
        }
        match desk.people.not_admitted("?", "", &trouble_words(&trouble), way).await {
            Ok(()) => word,
            Err(_) => Word::Busy,
        }
    }

    /// Of somebody who came back: the cookie of a new sign-in, or none where the one that they had goes on.
    async fn admit(&self, desk: &Desk, way: &Way, headers: &HeaderMap, said: &Said) -> Result<Option<String>, Word> {
        let now = self.0.clock.now().mono;
        let state = said.state.as_deref().unwrap_or_default();
        let gone = self.browser(headers).and_then(|browser| self.ways().back(state, browser, now)).ok_or(Word::Late)?;
        let code = match (&said.code, &said.error) {
            (Some(code), None) => code,
            (_, error) => {
                let error = error.as_deref().unwrap_or("it sent no code");
                let error: String = error.chars().filter(char::is_ascii_graphic).take(40).collect();
                return Err(self.refuse(desk, way, Trouble::Refused(error)).await);
            }
        };
        let named = match self.0.provider.finish(&gone.flow, code, said.issuer.as_deref()).await {
            Ok(named) => named,
            Err(trouble) => return Err(self.refuse(desk, way, trouble).await),
        };
        match desk.people.admit_named(named, gone.before, way, &agent(headers)).await {
            Ok(signed_in) => {
                let secure = self.0.provider.settings().page.starts_with("https://");
                Ok(signed_in.map(|signed_in| desk.people.set_cookie(&signed_in.secret, secure)))
            }
            Err(NotAdmitted::NoRole) => Err(Word::NoRole),
            Err(NotAdmitted::Disabled) => Err(Word::Disabled),
            Err(NotAdmitted::Full) => Err(Word::Full),
            Err(NotAdmitted::Problem(_)) => Err(Word::Busy),
        }
    }
}

/// What the provider lets the browser bring.
#[derive(Default)]
struct Said {
    code: Option<String>,
    state: Option<String>,
    error: Option<String>,
    issuer: Option<String>,
}

impl Said {
    fn read(query: &str) -> Self {
        let mut said = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()).filter(|(_, value)| value.len() <= MOST_WORD) {
            let field = match &*name {
                "code" => &mut said.code,
                "state" => &mut said.state,
                "error" => &mut said.error,
                "iss" => &mut said.issuer,
                _ => continue,
            };
            *field = Some(value.into_owned());
        }
        said
    }
}

/// For the audit.
fn trouble_words(trouble: &Trouble) -> Text {
    let zh = match trouble {
        Trouble::Away(_) => "统一认证没有应答",
        Trouble::Unsound(_) => "统一认证的信息与配置不符",
        Trouble::Refused(_) => "统一认证未予通过",
        Trouble::Token(_) => "统一认证的令牌不可信",
        Trouble::Busy => "同时登录的人太多",
    };
    let en = match trouble {
        Trouble::Token(_) => trouble.to_string(),
        // Addresses and words of others stand in the log.
        Trouble::Away(_) => "the provider did not answer".to_owned(),
        Trouble::Unsound(_) => "the provider is not as it must be".to_owned(),
        Trouble::Refused(_) => "the provider refused".to_owned(),
        Trouble::Busy => "too many people sign in at this moment".to_owned(),
    };
    Text { zh: zh.to_owned(), en }
}

pub(super) fn routes() -> Routes<Desk> {
    Routes::new().route(CALLBACK, get(Right::Anybody, back))
}

type Leaves = Result<(AppendHeaders<[(HeaderName, HeaderValue); 1]>, Json<AddressWire>), Problem>;

/// Sends a browser off: the address, and the cookie by which it comes back.
pub(super) async fn begin(
    State(desk): State<Desk>,
    Visitor(way): Visitor,
    headers: HeaderMap,
    Told(NothingBody {}): Told<NothingBody>,
) -> Leaves {
    // The first administrator has a password: who makes one must be at the box.
    let door = desk.oidc.as_ref().filter(|_| desk.people.door() == Entrance::SignIn);
    let door = door.ok_or_else(|| Problem::not_found("未配置统一认证", "there is no provider to sign in with"))?;
    let page = &door.0.provider.settings().page;
    if headers.get(header::ORIGIN).is_some_and(|origin| origin.as_bytes() != page.as_bytes()) {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "other_address",
            format!("统一认证只能从 {page} 登录"),
            format!("by the provider one signs in at {page} alone"),
        )
        .hint("请打开该地址，或用本地账号登录", "open that address, or sign in with an account of anmin"));
    }
    desk.people.may_try(&way)?;
    let flow = door.0.provider.begin().await.map_err(|trouble| {
        door.tell(Word::of(&trouble).as_str(), &trouble.to_string());
        let words = trouble_words(&trouble);
        let (status, code) = match trouble {
            Trouble::Busy => (StatusCode::SERVICE_UNAVAILABLE, "too_many_sign_ins"),
            Trouble::Away(_) => (StatusCode::BAD_GATEWAY, "provider_away"),
            _ => (StatusCode::BAD_GATEWAY, "provider_unsound"),
        };
        Problem::new(status, code, words.zh, words.en).hint(
            "可用本地账号登录；原因见日志",
            "an account of anmin opens the desk all the same; the log has the reason",
        )
    })?;
    let (browser, address) = (secret::token(), flow.address.clone());
    let gone = Gone {
        browser: secret::sum(&browser),
        address: address_key(way.address),
        before: desk.people.shown_sign_in(&headers),
        flow,
    };
    if !door.ways().leave(gone, door.0.clock.now().mono) {
        return Err(secret::too_many());
    }
    Ok((AppendHeaders([(header::SET_COOKIE, door.set_cookie(&browser)?)]), Json(AddressWire { address })))
}

/// Takes a browser in again: to our first page, whatever has become of it.
async fn back(State(desk): State<Desk>, Visitor(way): Visitor, headers: HeaderMap, request: Request) -> Response {
    let Some(door) = &desk.oidc else {
        return Problem::not_found("未配置统一认证", "there is no provider to sign in with").into_response();
    };
    let said = Said::read(request.uri().query().unwrap_or_default());
    drop(request);
    let (to, cookie) = match door.admit(&desk, &way, &headers, &said).await {
        Ok(cookie) => ("/".to_owned(), cookie),
        Err(word) => (format!("/?oidc={}", word.as_str()), None),
    };
    let mut response = (StatusCode::SEE_OTHER, [(header::LOCATION, to)]).into_response();
    let ours = cookie.and_then(|cookie| HeaderValue::from_str(&cookie).ok());
    for cookie in ours.into_iter().chain(door.set_cookie("").ok()) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

#[cfg(test)]
mod tests {
    use anmin_sensors::time::Wall;

    use super::*;

    #[test]
    fn who_is_on_the_way_is_bounded_comes_back_once_in_the_same_browser_and_in_time() {
        let clock = Clock::manual(Wall::from_millis(0));
        let mut ways = Ways::default();
        let leave = |ways: &mut Ways, state: &str, address: &str| {
            let flow = Flow::of(state, clock.now());
            let gone = Gone { flow, browser: secret::sum("mine"), address: address.to_owned(), before: None };
            clock.advance(Duration::from_millis(1));
            ways.leave(gone, clock.now().mono)
        };
        assert!(leave(&mut ways, "first", "a"));
        let now = clock.now().mono;
        assert!(ways.back("first", "another's", now).is_none(), "another browser");
        assert!(ways.back("second", "mine", now).is_none(), "another state");
        assert!(ways.back("first", "mine", now).is_some());
        assert!(ways.back("first", "mine", now).is_none(), "once");

        // One address pushes out its own, and nobody else's.
        assert!(leave(&mut ways, "of b", "b"));
        for n in 0..=MOST_BY_ADDRESS {
            assert!(leave(&mut ways, &format!("a {n}"), "a"));
        }
        let now = clock.now().mono;
        let mut is_back = |state: &str| ways.back(state, "mine", now).is_some();
        assert_eq!(["a 0", "a 1", "of b"].map(&mut is_back), [false, true, true]);

        let mut n = 0;
        while leave(&mut ways, &format!("{n}"), &format!("address {n}")) {
            n += 1;
        }
        assert_eq!(ways.0.len(), MOST_FLOWS);
        assert!(ways.back("0", "mine", clock.now().mono.plus(LASTS)).is_none(), "too late");
        clock.advance(LASTS);
        assert!(leave(&mut ways, "next", "a"), "those who are late have gone");
        assert_eq!(ways.0.len(), 1);
    }

    #[test]
    fn of_what_comes_back_only_plain_words_of_a_bounded_length_are_taken() {
        let long = "x".repeat(MOST_WORD + 1);
        let said = Said::read(&format!("code={long}&state=a%20b&session_state=1&iss=https%3A%2F%2Fsso&error=no"));
        assert_eq!(said.code, None);
        assert_eq!(
            (said.state.as_deref(), said.issuer.as_deref(), said.error.as_deref()),
            (Some("a b"), Some("https://sso"), Some("no"))
        );
    }
}
