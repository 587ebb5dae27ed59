//! The provider over the wire: what it says of itself (OpenID Connect Discovery 1.0), its keys, and a code for a token.
//!
//! What is found out is kept for an hour; keys are looked up anew once a minute at most when a token names one that is not known.
//! A provider that did not answer is asked again after three seconds. At most eight people are waited for at once.

use std::sync::Arc;
use std::time::Duration;

use anmin_sensors::time::{Mono, Now};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::{Mutex, Semaphore};
use url::Url;
use url::form_urlencoded::{Serializer, byte_serialize};

use super::token::{self, Expected, Fault, Keys};
use super::{Named, Settings};
use crate::clock::Clock;
use crate::delivery::http::Http;

const KEPT: Duration = Duration::from_secs(3_600);
/// Between two looks for a key that nobody knows.
const KEYS_EVERY: Duration = Duration::from_secs(60);
/// Between a failure and the next try.
const AGAIN_AFTER: Duration = Duration::from_secs(3);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Largest answer about itself that is read.
const MOST_ANSWER: usize = 256 << 10;
const AT_ONCE: usize = 8;

/// Why somebody could not be signed in by the provider. The text goes into the log and holds no secret.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Trouble {
    /// Nobody answers, or nothing that can be used; it may pass.
    #[error("the provider cannot be asked: {0}")]
    Away(String),
    /// What it says of itself is not what the site says of it.
    #[error("the provider is not as it must be: {0}")]
    Unsound(String),
    /// It does not take the code, or does not take us.
    #[error("the provider refuses: {0}")]
    Refused(String),
    #[error("the ID token is not believed: {0}")]
    Token(#[from] Fault),
    #[error("too many people sign in at this moment")]
    Busy,
}

/// One person on their way to the provider and back. It is used up with its end.
pub struct Flow {
    /// Where the browser goes.
    pub address: String,
    /// Comes back with the browser.
    pub state: String,
    nonce: String,
    /// Of PKCE: shows that who fetches the token is who has asked.
    verifier: String,
    began: Now,
}

impl Flow {
    pub fn began(&self) -> Mono {
        self.began.mono
    }
}

#[derive(Debug, Deserialize)]
struct Metadata {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    userinfo_endpoint: Option<String>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    /// RFC 9207.
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

#[derive(Default)]
struct Known {
    metadata: Option<(Mono, Arc<Metadata>)>,
    keys: Option<(Mono, Arc<Keys>)>,
    /// When an unknown key was last looked for.
    sought: Option<Mono>,
    failed: Option<(Mono, Trouble)>,
}

/// Cheap to clone; every clone is the same one.
#[derive(Clone)]
pub struct Provider(Arc<Shared>);

struct Shared {
    settings: Settings,
    clock: Clock,
    known: Mutex<Known>,
    at_once: Semaphore,
}

#[derive(Deserialize)]
struct Tokens {
    id_token: String,
    access_token: Option<String>,
}

impl Provider {
    pub fn new(settings: Settings, clock: Clock) -> Self {
        Self(Arc::new(Shared { settings, clock, known: Mutex::default(), at_once: Semaphore::new(AT_ONCE) }))
    }

    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// Where the browser goes to have somebody sign in.
    pub async fn begin(&self) -> Result<Flow, Trouble> {
        let _place = self.0.at_once.try_acquire().map_err(|_| Trouble::Busy)?;
        let metadata = self.metadata().await?;
        let settings = &self.0.settings;
        let [state, nonce, verifier] = [(); 3].map(|()| random());
        let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()));
        let unsound = |error: url::ParseError| Trouble::Unsound(format!("authorization_endpoint: {error}"));
        let mut address = Url::parse(&metadata.authorization_endpoint).map_err(unsound)?;
        address
            .query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &settings.client)
            .append_pair("redirect_uri", &settings.redirect())
            .append_pair("scope", &settings.scopes.join(" "))
            .append_pair("state", &state)
            .append_pair("nonce", &nonce)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256")
            .append_pair("prompt", "login")
            .append_pair("max_age", "0");
        Ok(Flow { address: address.into(), state, nonce, verifier, began: self.0.clock.now() })
    }

    /// Whom the provider names for the code that came back, with the issuer that may have come with it (RFC 9207).
    pub async fn finish(&self, flow: &Flow, code: &str, issuer: Option<&str>) -> Result<Named, Trouble> {
        let _place = self.0.at_once.try_acquire().map_err(|_| Trouble::Busy)?;
        let settings = &self.0.settings;
        let metadata = self.metadata().await?;
        if issuer.is_none() && metadata.authorization_response_iss_parameter_supported
            || issuer.is_some_and(|issuer| issuer != settings.issuer)
        {
            return Err(Trouble::Unsound("the browser comes back from another provider (iss)".to_owned()));
        }
        let Tokens { id_token, access_token } = self.exchange(&metadata, flow, code).await?;
        let expected = Expected {
            issuer: &settings.issuer,
            client: &settings.client,
            nonce: &flow.nonce,
            access_token: access_token.as_deref(),
            since: flow.began.wall,
        };
        let now = || self.0.clock.now();
        let keys = self.keys(&metadata, None).await?;
        let claims = match token::judge(&id_token, &keys, &expected, now().wall) {
            Err(fault @ (Fault::UnknownKey(_) | Fault::Signature)) => {
                let fresh = self.keys(&metadata, Some(fault)).await?;
                token::judge(&id_token, &fresh, &expected, now().wall)?
            }
            judged => judged?,
        };
        let mut all = claims.all;
        // Many say in the token only who it is, and the rest where they are asked for it (section 5.4).
        if let (Some(address), Some(token)) = (&metadata.userinfo_endpoint, &access_token)
            && (settings.claim(&all).is_none() || !all.contains_key("name"))
        {
            let more = self.user_info(address, token).await?;
            if more.get("sub").and_then(Value::as_str) != Some(&claims.sub) {
                return Err(Trouble::Unsound("what it tells of the person is about another one (sub)".to_owned()));
            }
            for (name, value) in more {
                all.entry(name).or_insert(value);
            }
        }
        Ok(settings.named(claims.sub, &all))
    }

    async fn get(&self, url: &str, headers: &[(&str, &str)]) -> Result<Bytes, Trouble> {
        let target = self.0.settings.target(url).map_err(Trouble::Unsound)?;
        let http = Http::new(&target).map_err(Trouble::Away)?;
        let fetched = http.get(None, headers, MOST_ANSWER).await;
        let fetched = fetched.map_err(|why| Trouble::Away(format!("{url}: {why}")))?;
        match fetched.status {
            200 => Ok(fetched.body),
            status => Err(Trouble::Away(format!("{url}: HTTP {status}"))),
        }
    }

    async fn metadata(&self) -> Result<Arc<Metadata>, Trouble> {
        let mut known = self.0.known.lock().await;
        let now = self.0.clock.now().mono;
        if let Some((_, metadata)) = known.metadata.as_ref().filter(|(at, _)| now.since(*at) < KEPT) {
            return Ok(Arc::clone(metadata));
        }
        if let Some((_, trouble)) = known.failed.as_ref().filter(|(at, _)| now.since(*at) < AGAIN_AFTER) {
            return Err(trouble.clone());
        }
        let found = self.discover().await;
        let now = self.0.clock.now().mono;
        match found {
            Ok(metadata) => {
                let metadata = Arc::new(metadata);
                (known.metadata, known.failed) = (Some((now, Arc::clone(&metadata))), None);
                Ok(metadata)
            }
            Err(trouble) => {
                known.failed = Some((now, trouble.clone()));
                Err(trouble)
            }
        }
    }

    async fn discover(&self) -> Result<Metadata, Trouble> {
        let issuer = &self.0.settings.issuer;
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let body = self.get(&url, &[]).await?;
        let metadata: Metadata =
            serde_json::from_slice(&body).map_err(|error| Trouble::Unsound(format!("{url}: {error}")))?;
        if metadata.issuer != *issuer {
            let other: String = metadata.issuer.chars().take(200).collect();
            return Err(Trouble::Unsound(format!("it calls itself {other:?}, and `issuer` in [oidc] is {issuer:?}")));
        }
        for url in [&metadata.authorization_endpoint, &metadata.token_endpoint, &metadata.jwks_uri] {
            self.0.settings.target(url).map_err(Trouble::Unsound)?;
        }
        Ok(metadata)
    }

    /// What is known, or, where that did not do, what there is now.
    async fn keys(&self, metadata: &Metadata, wanting: Option<Fault>) -> Result<Arc<Keys>, Trouble> {
        let mut known = self.0.known.lock().await;
        let now = self.0.clock.now().mono;
        match (&known.keys, wanting) {
            (Some((at, keys)), None) if now.since(*at) < KEPT => return Ok(Arc::clone(keys)),
            (_, Some(fault)) => {
                if known.sought.is_some_and(|at| now.since(at) < KEYS_EVERY) {
                    return Err(fault.into());
                }
                known.sought = Some(now);
            }
            _ => {}
        }
        let body = self.get(&metadata.jwks_uri, &[]).await?;
        let keys = Keys::read(&body).map_err(|why| Trouble::Unsound(format!("{}: {why}", metadata.jwks_uri)))?;
        if keys.is_empty() {
            return Err(Trouble::Unsound(format!("{} has no key for RS256, PS256 or ES256", metadata.jwks_uri)));
        }
        let keys = Arc::new(keys);
        known.keys = Some((self.0.clock.now().mono, Arc::clone(&keys)));
        Ok(keys)
    }

    /// The form by which a code becomes a token, and the header that shows who we are, where it is by one.
    fn asking(&self, metadata: &Metadata, flow: &Flow, code: &str) -> (Bytes, Option<String>) {
        let Settings { client, secret, .. } = &self.0.settings;
        let mut form = Serializer::new(String::new());
        form.append_pair("grant_type", "authorization_code")
            .append_pair("code", code)
            .append_pair("redirect_uri", &self.0.settings.redirect())
            .append_pair("code_verifier", &flow.verifier);
        // Without a word of the provider it is the header (section 9).
        let methods = metadata.token_endpoint_auth_methods_supported.as_deref().unwrap_or_default();
        let named = |way: &str| methods.iter().any(|method| method == way);
        let in_body = named("client_secret_post") && !named("client_secret_basic");
        let basic = match secret {
            Some(secret) if !in_body => {
                // RFC 6749 section 2.3.1 has both escaped first.
                let escaped = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
                let both = format!("{}:{}", escaped(client), escaped(secret.reveal()));
                Some(format!("Basic {}", STANDARD.encode(both)))
            }
            secret => {
                form.append_pair("client_id", client);
                if let Some(secret) = secret {
                    form.append_pair("client_secret", secret.reveal());
                }
                None
            }
        };
        (form.finish().into(), basic)
    }

    async fn exchange(&self, metadata: &Metadata, flow: &Flow, code: &str) -> Result<Tokens, Trouble> {
        let settings = &self.0.settings;
        let (form, basic) = self.asking(metadata, flow, code);
        let mut headers = vec![("content-type", "application/x-www-form-urlencoded"), ("accept", "application/json")];
        headers.extend(basic.as_deref().map(|basic| ("authorization", basic)));
        let target = settings.target(&metadata.token_endpoint).map_err(Trouble::Unsound)?;
        let http = Http::new(&target).map_err(Trouble::Away)?;
        let answer = http.exchange("", &headers, form, ANSWER_WITHIN).await;
        let answer = answer.map_err(|why| Trouble::Away(format!("{}: {why}", metadata.token_endpoint)))?;
        match answer.status {
            // Its words may hold the token: they are not said.
            200 => serde_json::from_slice(&answer.body)
                .map_err(|_| Trouble::Unsound(format!("{}: no ID token in the answer", metadata.token_endpoint))),
            status @ 400..=499 => {
                let said: Map<String, Value> = serde_json::from_slice(&answer.body).unwrap_or_default();
                let error = said.get("error").and_then(Value::as_str).unwrap_or("no reason");
                let error: String = error.chars().filter(char::is_ascii_graphic).take(40).collect();
                Err(Trouble::Refused(format!("{}: HTTP {status}: {error}", metadata.token_endpoint)))
            }
            status => Err(Trouble::Away(format!("{}: HTTP {status}", metadata.token_endpoint))),
        }
    }

    async fn user_info(&self, url: &str, token: &str) -> Result<Map<String, Value>, Trouble> {
        let bearer = format!("Bearer {token}");
        let body = self.get(url, &[("authorization", &bearer), ("accept", "application/json")]).await?;
        serde_json::from_slice(&body).map_err(|_| Trouble::Unsound(format!("{url}: no JSON object")))
    }
}

/// 256 bits that nobody can guess, in characters that an address takes.
fn random() -> String {
    let mut bytes = [0; 32];
    // Linux gives them or waits.
    SystemRandom::new().fill(&mut bytes).expect("the system has random numbers");
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
impl Flow {
    pub(crate) fn of(state: &str, began: Now) -> Self {
        let text = || String::new();
        Self { address: text(), state: state.to_owned(), nonce: text(), verifier: text(), began }
    }
}

#[cfg(test)]
mod tests {
    use anmin_sensors::time::Wall;
    use serde_json::json;

    use super::*;
    use crate::delivery::http::tests::{Answer, Server};
    use crate::oidc::tests::{SOUND, read};
    use crate::oidc::token::tests::Signer;

    fn says(body: &Value) -> Answer {
        let body = body.to_string();
        let text = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        Answer::Says(text.leak())
    }

    fn provider(server: &Server, clock: &Clock) -> (Provider, String) {
        let issuer = server.url();
        let trial = SOUND.replace("https://sso.example.gov.cn/realms/duty", &issuer);
        (Provider::new(read(&trial).0.expect("it is sound"), clock.clone()), issuer)
    }

    fn metadata(issuer: &str) -> Value {
        let at = |path: &str| format!("{issuer}/{path}");
        json!({"issuer": issuer, "authorization_endpoint": at("auth?x=1"), "token_endpoint": at("token"), "jwks_uri": at("keys")})
    }

    /// The address that the browser is sent to is what a provider that was not written for us can be held to.
    #[tokio::test]
    async fn somebody_is_sent_off_with_a_state_a_nonce_and_a_challenge_that_are_new_each_time() {
        let clock = Clock::manual(Wall::from_millis(0));
        let server = Server::start(vec![Answer::Breaks]).await;
        let (away, issuer) = provider(&server, &clock);
        assert!(matches!(away.begin().await, Err(Trouble::Away(_))));
        assert!(matches!(away.begin().await, Err(Trouble::Away(_))), "not asked again at once");
        assert_eq!(server.seen.lock().expect("no test panics with it").len(), 1, "{issuer}");

        let mut seen = Vec::new();
        for _ in 0..2 {
            // A server says what it was told to, and its own address is known only then.
            let (provider, issuer) = provider(&server, &clock);
            let known: Metadata = serde_json::from_value(metadata(&issuer)).expect("it is sound");
            provider.0.known.lock().await.metadata = Some((clock.now().mono, Arc::new(known)));
            let flow = provider.begin().await.expect("it is known");
            let url = Url::parse(&flow.address).expect("an address");
            let pairs: std::collections::BTreeMap<String, String> = url.query_pairs().into_owned().collect();
            let said = |name: &str| pairs.get(name).cloned().unwrap_or_default();
            for (name, wanted) in [
                ("x", "1"),
                ("response_type", "code"),
                ("client_id", "anmin"),
                ("redirect_uri", "https://anmin.lan:8443/oidc/callback"),
                ("scope", "openid profile"),
                ("code_challenge_method", "S256"),
                ("prompt", "login"),
                ("max_age", "0"),
            ] {
                assert_eq!(said(name), wanted, "{name} in {url}");
            }
            let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, flow.verifier.as_bytes()));
            assert_eq!(
                (said("code_challenge"), said("state"), said("nonce")),
                (challenge, flow.state.clone(), flow.nonce.clone())
            );
            assert!(!flow.address.contains(&flow.verifier));
            seen.extend([flow.state, flow.nonce, flow.verifier]);
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 6, "nothing is used twice: {seen:?}");
    }

    #[tokio::test]
    async fn keys_that_nobody_knows_are_looked_up_once_a_minute() {
        let clock = Clock::manual(Wall::from_millis(0));
        let keys = json!({"keys": [Signer::made().jwk("k1")]});
        let server = Server::start((0..3).map(|_| says(&keys)).collect()).await;
        let (provider, issuer) = provider(&server, &clock);
        let metadata: Metadata = serde_json::from_value(metadata(&issuer)).expect("it is sound");
        let asked = || server.seen.lock().expect("no test panics with it").len();
        let unknown = || Some(Fault::UnknownKey("k2".to_owned()));
        for (advance, wanting, found, times) in [
            (0, None, true, 1),
            (0, None, true, 1),
            (0, unknown(), true, 2),
            (59, unknown(), false, 2),
            (0, None, true, 2),
            (1, unknown(), true, 3),
        ] {
            clock.advance(Duration::from_secs(advance));
            let keys = provider.keys(&metadata, wanting.clone()).await;
            assert_eq!((keys.is_ok(), asked()), (found, times), "{advance} {wanting:?}: {keys:?}");
        }
    }
}
