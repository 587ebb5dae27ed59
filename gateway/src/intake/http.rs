//! Readings by HTTP: platforms that push (webhooks) post what their devices say.
//!
//! What is promised:
//!
//! - The path is the topic, and what MQTT mappings take in these take in: `POST /v1/dev7/up` has the topic `v1/dev7/up`.
//! - 200 is answered when the readings are safe on disk, and not before: the moment at which MQTT has its PUBACK. What cannot
//!   be read is kept with what nobody can read, and the answer says what is wrong with it.
//! - Nobody speaks without proof: a token, or a signature over time, path and body, which is good once and for a while.
//! - Every wait has an end, and everything that callers make grow has a bound: beyond it 503 with `Retry-After`.
//!
//! It does not encrypt: let it listen in a network of its own, behind a tunnel, or behind a proxy that does. What is known of
//! signatures does not outlive a restart: within `window` after one, a request may be played again, and is recognised by the
//! time and sequence of its readings, where they have them.
//!
//! ```toml
//! [[http]]
//! id       = "cloud"
//! listen   = "192.168.7.1:8430"
//! allow    = ["192.168.7.9"]
//! key_file = "secrets/cloud"
//!   [[http.mapping]]
//!   topic = "v1/{device}/up"
//! ```

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anmin_sensors::document::Reader;
use anmin_sensors::time::{Now, Wall};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use ring::hmac;
use rumqttc::tokio_rustls::TlsAcceptor;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::gbt26875::Net;
use super::{Ack, Message};
use crate::accept::Entrance;
use crate::clock::Clock;
use crate::credentials::{self, Secret};
use crate::main_loop::Input;

/// The longest body.
pub const MAX_BODY: usize = 256 * 1024;
/// A longer one is read to its end all the same, up to this: who is still sending hears no answer.
const MOST_HEARD: usize = 4 * 1024 * 1024;
/// For the head of a request, the wait for it included.
const HEAD_WITHIN: Duration = Duration::from_secs(30);
/// For the body of a request.
const BODY_WITHIN: Duration = Duration::from_secs(10);
/// For readings to become safe. Then the caller is told to come again.
const SAFE_WITHIN: Duration = Duration::from_secs(30);
/// Bodies that are read or not yet safe: 16 MiB.
const MOST_UNDER_WAY: usize = 64;
/// Signatures that are known again.
const MOST_SEEN: usize = 65_536;
/// Fewer characters are guessed.
const SHORTEST_SECRET: usize = 16;

/// `[[http]]`.
#[derive(Clone, Debug)]
pub struct Settings {
    pub id: Arc<str>,
    pub listen: SocketAddr,
    pub allow: Vec<Net>,
    proof: Proof,
    pub max_connections: usize,
    tls: Option<Arc<rustls::ServerConfig>>,
}

/// How a caller shows who it is.
#[derive(Clone, Debug)]
enum Proof {
    /// `Authorization: Bearer TOKEN`. Kept as its own signature, so that comparing takes as long for a near miss as for a
    /// far one.
    Token {
        key: hmac::Key,
        tag: hmac::Tag,
    },
    Signature {
        key: hmac::Key,
        header: HeaderName,
        time_header: HeaderName,
        window: Duration,
    },
}

impl Settings {
    /// Reads one `[[http]]`; its mappings are read by whoever knows the profiles.
    pub fn read(r: &Reader<'_>, base: &Path) -> Option<Self> {
        let id: Option<String> = r.required("id");
        let listen: Option<String> = r.required("listen");
        let listen = listen.and_then(|text| match text.parse::<SocketAddr>() {
            Ok(listen) => Some(listen),
            Err(_) => {
                let hint = Some("such as \"192.168.7.1:8430\"".to_owned());
                r.fault("listen", format!("`listen` is {text:?}, expected an address and a port"), hint);
                None
            }
        });
        let allow = Net::read_allow(r);
        let secret = |key: &'static str| {
            let file = r.optional::<String>(key)?;
            let hint = Some("one line of 16 characters or more, such as `openssl rand -hex 32` prints".to_owned());
            match Secret::read(&credentials::named_file(base, file)) {
                Ok(secret) if secret.reveal().len() >= SHORTEST_SECRET => Some(secret),
                Ok(_) => {
                    r.fault(key, format!("`{key}`: the file holds fewer than {SHORTEST_SECRET} characters"), hint);
                    None
                }
                Err(why) => {
                    r.fault(key, format!("`{key}`: {why}"), hint);
                    None
                }
            }
        };
        let (token, key) = (secret("token_file"), secret("key_file"));
        match (r.has("token_file"), r.has("key_file")) {
            (false, false) => {
                let hint = Some("key_file = \"secrets/cloud\" for signed requests, or token_file".to_owned());
                r.fault("key_file", "neither `key_file` nor `token_file` is there: anybody could raise alarms", hint);
            }
            (true, true) => r.fault("token_file", "`key_file` and `token_file` exclude each other", None),
            _ => {}
        }
        let header = |name: &'static str, usual: &'static str| {
            let text = r.or(name, usual.to_owned());
            let header = HeaderName::try_from(&text);
            if header.is_err() {
                r.fault(name, format!("`{name}` is {text:?}, which is no name of a header"), None);
            }
            header.ok()
        };
        let headers = (header("signature_header", "X-Signature"), header("time_header", "X-Timestamp"));
        let window = r.or("window", Duration::from_secs(300));
        if !(Duration::from_secs(5)..=Duration::from_secs(3_600)).contains(&window) {
            r.fault("window", "`window` must lie between 5s and 1h", None);
        }
        let max_connections = r.or("max_connections", 256);
        if max_connections == 0 {
            r.fault("max_connections", "`max_connections` must be 1 or more", None);
        }
        let tls = credentials::server_tls(r, base);
        let made = |secret: &Secret| hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes());
        let proof = match (token, key) {
            (Some(token), _) => {
                let key = made(&token);
                Proof::Token { tag: hmac::sign(&key, token.reveal().as_bytes()), key }
            }
            (_, key) => {
                let (header, time_header) = (headers.0?, headers.1?);
                Proof::Signature { key: made(&key?), header, time_header, window }
            }
        };
        Some(Self { id: id?.into(), listen: listen?, allow, proof, max_connections, tls })
    }
}

/// What all connections of one stanza share.
struct Desk {
    settings: Settings,
    clock: Clock,
    inputs: mpsc::Sender<Input>,
    room: Semaphore,
    seen: Mutex<Seen>,
    refused: Mutex<u64>,
}

/// Signatures that came within the window.
#[derive(Default)]
struct Seen {
    standing: HashMap<Signature, Standing>,
    /// Until when each is known; the windows of all are as long.
    order: VecDeque<(Wall, Signature)>,
}

type Signature = [u8; 32];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Its readings are not safe yet.
    UnderWay,
    Safe,
}

/// A request from its proof to its answer. Only what is safe is known again: what was refused may be sent as it is once the
/// reason is gone, and so may what its caller did not wait for.
struct UnderWay<'a> {
    seen: &'a Mutex<Seen>,
    signature: Option<Signature>,
    safe: bool,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if let Some(signature) = self.signature {
            locked(self.seen).end(signature, self.safe);
        }
    }
}

fn locked(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a request brings nothing. The words are for whoever set up the caller.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    code: &'static str,
    words: String,
}

fn refusal(status: StatusCode, code: &'static str, words: impl Into<String>) -> Refusal {
    Refusal { status, code, words: words.into() }
}

/// Binds and starts listening. The task ends when it is aborted, and every connection with it.
pub async fn spawn(
    settings: Settings,
    clock: Clock,
    inputs: mpsc::Sender<Input>,
) -> std::io::Result<(SocketAddr, JoinHandle<()>)> {
    let listener = TcpListener::bind(settings.listen).await?;
    let address = listener.local_addr()?;
    tracing::info!(http = &*settings.id, "readings may be posted to http://{address}/");
    let desk = Arc::new(Desk::new(settings, clock, inputs));
    Ok((address, tokio::spawn(listen(desk, listener))))
}

async fn listen(desk: Arc<Desk>, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(desk.settings.max_connections));
    let tls = desk.settings.tls.clone().map(TlsAcceptor::from);
    let mut connections = JoinSet::new();
    let mut entrance = Entrance::new(listener, format!("http:{}", desk.settings.id));
    loop {
        let (stream, peer) = entrance.next().await;
        while connections.try_join_next().is_some() {}
        if !desk.settings.allow.iter().any(|net| net.holds(peer.ip())) {
            desk.refuse(&format!("{peer} is in no allowed network"));
            continue;
        }
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            desk.refuse(&format!("{peer} finds all {} connections taken", desk.settings.max_connections));
            continue;
        };
        let (desk, tls) = (Arc::clone(&desk), tls.clone());
        connections.spawn(async move {
            let _place = place;
            let Some(tls) = tls else { return serve(desk, stream, peer).await };
            match timeout(HEAD_WITHIN, tls.accept(stream)).await {
                Ok(Ok(stream)) => serve(desk, stream, peer).await,
                Ok(Err(error)) => desk.refuse(&format!("{peer} speaks no TLS with us: {error}")),
                Err(_) => desk.refuse(&format!("{peer} has not spoken TLS in time")),
            }
        });
    }
}

/// One connection of a caller from its first byte to its last, as [`spawn`] serves all of its listener's.
pub async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    settings: Settings,
    clock: Clock,
    inputs: mpsc::Sender<Input>,
    stream: S,
    peer: SocketAddr,
) {
    serve(Arc::new(Desk::new(settings, clock, inputs)), stream, peer).await;
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(desk: Arc<Desk>, stream: S, peer: SocketAddr) {
    let service = service_fn(|request: Request<Incoming>| {
        let desk = Arc::clone(&desk);
        async move {
            let answered = desk.handle(request).await;
            if let Err(refusal) = &answered {
                desk.refuse(&format!("{peer}: {}", refusal.words));
            }
            Ok::<_, Infallible>(answer(answered))
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(http = &*desk.settings.id, %peer, "the connection ended: {error}");
    }
}

/// What a request came to, and whether it came before.
enum Taken {
    Safe {
        again: bool,
    },
    /// The site does not know the device; it is listed.
    Waits(String),
}

fn answer(answered: Result<Taken, Refusal>) -> Response<Full<Bytes>> {
    let (status, body) = match &answered {
        Ok(Taken::Safe { again }) => (StatusCode::OK, json!({ "safe": true, "again": again })),
        Ok(Taken::Waits(words)) => (StatusCode::ACCEPTED, json!({ "safe": false, "error": words })),
        Err(Refusal { status, code, words }) => (*status, json!({ "error": words, "code": code })),
    };
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    match status {
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::CONFLICT => {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("2"));
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            headers.insert(ALLOW, HeaderValue::from_static("POST, PUT"));
        }
        _ => {}
    }
    response
}

impl Desk {
    fn new(settings: Settings, clock: Clock, inputs: mpsc::Sender<Input>) -> Self {
        Self {
            settings,
            clock,
            inputs,
            room: Semaphore::new(MOST_UNDER_WAY),
            seen: Mutex::default(),
            refused: Mutex::default(),
        }
    }

    fn refuse(&self, why: &str) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        *refused += 1;
        // The first, then whenever they have doubled: whoever posts every second fills no log.
        if refused.is_power_of_two() {
            tracing::warn!(http = &*self.settings.id, refused = *refused, "refused: {why}");
        }
    }

    async fn handle(&self, request: Request<Incoming>) -> Result<Taken, Refusal> {
        if !matches!(*request.method(), Method::POST | Method::PUT) {
            let words = format!("readings are posted: {} is neither POST nor PUT", request.method());
            return Err(refusal(StatusCode::METHOD_NOT_ALLOWED, "method", words));
        }
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        let topic = topic(&path)
            .ok_or_else(|| refusal(StatusCode::BAD_REQUEST, "path", "the path is no topic: UTF-8 and not empty"))?;
        if body.size_hint().lower() > MOST_HEARD as u64 {
            return Err(too_long());
        }
        // What the head alone can show comes first: who shows nothing takes nobody's room.
        self.settings.proof.check_head(&head.headers)?;
        let full = || refusal(StatusCode::SERVICE_UNAVAILABLE, "busy", "too much is under way; come again");
        let _room = self.room.try_acquire().map_err(|_| full())?;
        let body = timeout(BODY_WITHIN, whole(body)).await.map_err(|_| {
            let words = format!("the body did not come within {} s", BODY_WITHIN.as_secs());
            refusal(StatusCode::REQUEST_TIMEOUT, "slow", words)
        })??;
        let now = self.clock.now();
        let signature = self.settings.proof.check(&head.headers, &path, &body, now.wall)?;
        if let Some(signature) = signature {
            match self.seen().begin(signature, now.wall, self.settings.proof.window()) {
                Ok(()) => {}
                Err(Some(Standing::Safe)) => return Ok(Taken::Safe { again: true }),
                Err(Some(Standing::UnderWay)) => {
                    return Err(refusal(StatusCode::CONFLICT, "under_way", "this very request is under way already"));
                }
                Err(None) => return Err(full()),
            }
        }
        let mut under_way = UnderWay { seen: &self.seen, signature, safe: false };
        let taken = self.take(topic, body, now).await;
        under_way.safe = matches!(taken, Ok(Taken::Safe { .. }));
        taken
    }

    /// Hands one message to the main loop and waits until it is safe.
    async fn take(&self, topic: String, payload: Bytes, received: Now) -> Result<Taken, Refusal> {
        let (ack, answer) = oneshot::channel();
        let message = Message {
            topic: topic.into(),
            payload,
            retained: false,
            cut: false,
            received,
            delivery: None,
            ack: Some(Ack::answering(ack)),
        };
        let unsafe_ = |words: &str| refusal(StatusCode::SERVICE_UNAVAILABLE, "unsafe", words);
        let input = Input::Messages { source: Arc::clone(&self.settings.id), messages: vec![message] };
        self.inputs
            .try_send(input)
            .map_err(|_| refusal(StatusCode::SERVICE_UNAVAILABLE, "busy", "anmin cannot keep up; come again"))?;
        match timeout(SAFE_WITHIN, answer).await {
            Ok(Ok(None)) => Ok(Taken::Safe { again: false }),
            Ok(Ok(Some(refused))) => match refused.reason {
                "quarantined" => Ok(Taken::Waits(refused.words)),
                code @ ("no_mapping" | "unknown_device") => Err(refusal(StatusCode::NOT_FOUND, code, refused.words)),
                code => Err(refusal(StatusCode::UNPROCESSABLE_ENTITY, code, refused.words)),
            },
            Ok(Err(_)) => Err(unsafe_("the readings could not be made safe; come again")),
            Err(_) => Err(unsafe_("the readings are not safe yet; come again")),
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        locked(&self.seen)
    }
}

async fn whole(mut body: Incoming) -> Result<Bytes, Refusal> {
    let (mut kept, mut length) = (BytesMut::new(), 0);
    while let Some(frame) = body.frame().await {
        let broken = |error| refusal(StatusCode::BAD_REQUEST, "body", format!("the body broke off: {error}"));
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        length += data.len();
        if length > MOST_HEARD {
            break;
        }
        if length <= MAX_BODY {
            kept.extend_from_slice(&data);
        }
    }
    if length > MAX_BODY { Err(too_long()) } else { Ok(kept.freeze()) }
}

fn too_long() -> Refusal {
    refusal(StatusCode::PAYLOAD_TOO_LARGE, "too_long", format!("the body has more than {MAX_BODY} bytes"))
}

impl Proof {
    fn window(&self) -> Duration {
        match self {
            Self::Token { .. } => Duration::ZERO,
            Self::Signature { window, .. } => *window,
        }
    }

    /// What can be known before the body is there: of a token all, of a signature whether there is one. Gives the signature and
    /// the seconds of its time as they stand there.
    fn check_head<'h>(&self, headers: &'h HeaderMap) -> Result<Option<(Signature, &'h str)>, Refusal> {
        let denied = |code, words: String| refusal(StatusCode::UNAUTHORIZED, code, words);
        let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
        match self {
            Self::Token { key, tag } => {
                let offered = text(&AUTHORIZATION)
                    .and_then(|value| value.split_once(' '))
                    .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
                    .map(|(_, token)| token.trim())
                    .ok_or_else(|| denied("no_token", "there is no `Authorization: Bearer TOKEN`".to_owned()))?;
                hmac::verify(key, offered.as_bytes(), tag.as_ref())
                    .map_err(|_| denied("wrong_token", "the token is not ours".to_owned()))?;
                Ok(None)
            }
            Self::Signature { header, time_header, .. } => {
                let stamp =
                    text(time_header).ok_or_else(|| denied("no_time", format!("there is no header {time_header}")))?;
                if seconds(stamp).is_none() {
                    let words = format!("{time_header} is {stamp:?}, expected seconds since 1970");
                    return Err(denied("bad_time", words));
                }
                let offered =
                    text(header).ok_or_else(|| denied("no_signature", format!("there is no header {header}")))?;
                let offered = unhex(offered.strip_prefix("sha256=").unwrap_or(offered))
                    .ok_or_else(|| denied("bad_signature", format!("{header} is not 64 hexadecimal digits")))?;
                Ok(Some((offered, stamp)))
            }
        }
    }

    /// The signature of a request, where there is one; else why it is not believed.
    fn check(&self, headers: &HeaderMap, path: &str, body: &[u8], now: Wall) -> Result<Option<Signature>, Refusal> {
        let denied = |code, words: String| refusal(StatusCode::UNAUTHORIZED, code, words);
        match (self, self.check_head(headers)?) {
            (Self::Signature { key, time_header, window, .. }, Some((offered, stamp))) => {
                let mut context = hmac::Context::with_key(key);
                for part in [stamp.as_bytes(), b"\n", path.as_bytes(), b"\n", body] {
                    context.update(part);
                }
                // Over what only the key's owner knows, so that it may be compared as it stands; ring does it in constant time.
                let wanted = context.sign();
                let same = wanted.as_ref().iter().zip(offered).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0;
                if !same {
                    let words =
                        format!("the signature is not that of \"{time_header}\\n path \\n body\" under our key");
                    return Err(denied("forged", words));
                }
                // After the signature: only its owner hears how our clock stands.
                let at = Wall::from_millis(seconds(stamp).unwrap_or_default().saturating_mul(1_000));
                if at.distance(now) > *window {
                    let (late, most) = (at.distance(now).as_secs(), window.as_secs());
                    return Err(denied(
                        "stale",
                        format!("{time_header} is {late} s away from our clock, more than {most} s"),
                    ));
                }
                Ok(Some(offered))
            }
            _ => Ok(None),
        }
    }
}

fn seconds(stamp: &str) -> Option<i64> {
    stamp.parse().ok().filter(|second| *second > 0)
}

impl Seen {
    /// A request with this signature begins. `Err` says how an earlier one stands; `Err(None)`: there is no room.
    fn begin(&mut self, signature: Signature, now: Wall, window: Duration) -> Result<(), Option<Standing>> {
        while let Some((until, oldest)) = self.order.front()
            && *until < now
        {
            self.standing.remove(oldest);
            self.order.pop_front();
        }
        if let Some(standing) = self.standing.get(&signature) {
            return Err(Some(*standing));
        }
        if self.order.len() >= MOST_SEEN {
            return Err(None);
        }
        self.standing.insert(signature, Standing::UnderWay);
        // A stamp may lie a window ahead, and is good for a window behind.
        self.order.push_back((now.plus(window * 2), signature));
        Ok(())
    }

    fn end(&mut self, signature: Signature, safe: bool) {
        if safe {
            self.standing.insert(signature, Standing::Safe);
        } else {
            self.standing.remove(&signature);
        }
    }
}

fn unhex(text: &str) -> Option<Signature> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (n, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * n..2 * n + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// The topic of a path: without the slash in front, its `%` taken out. `None` for what is no topic.
fn topic(path: &str) -> Option<String> {
    let path = path.strip_prefix('/')?;
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                (digit(rest.next()?)? * 16 + digit(rest.next()?)?) as u8
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok().filter(|topic| !topic.is_empty())
}

#[cfg(test)]
mod tests {
    use anmin_sensors::document::{Document, Faults};

    use super::*;

    fn read(text: &str) -> Result<Settings, Vec<String>> {
        let folder = std::env::temp_dir().join(format!("anmin-http-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for secrets");
        std::fs::write(folder.join("secret"), "0123456789abcdef\n").expect("it can be written");
        std::fs::write(folder.join("short"), "0123\n").expect("it can be written");
        let faults = Faults::default();
        let doc = Document::parse("site.toml", text, &faults).expect("the test writes TOML");
        let r = doc.root(&faults);
        let settings = Settings::read(&r, &folder);
        r.finish();
        match faults.take() {
            found if found.is_empty() => Ok(settings.expect("no fault was noted")),
            found => Err(found.iter().map(|fault| fault.message.clone()).collect()),
        }
    }

    const HEAD: &str = "id = 'a'\nlisten = '127.0.0.1:8430'\n";

    #[test]
    fn settings_say_what_is_wrong_with_them() {
        for (more, wanted) in [
            ("", "neither `key_file` nor `token_file` is there"),
            ("key_file = 'secret'\ntoken_file = 'secret'", "exclude each other"),
            ("key_file = 'none'", "cannot be read"),
            ("token_file = 'short'", "fewer than 16 characters"),
            ("key_file = 'secret'\nwindow = '2s'", "between 5s and 1h"),
            ("key_file = 'secret'\ntime_header = 'a b'", "no name of a header"),
            ("key_file = 'secret'\nallow = ['x']", "which is no network"),
            ("key_file = 'secret'\nmax_connections = 0", "1 or more"),
            ("key_file = 'secret'\nkey = 1", "`key`"),
        ] {
            let said = read(&format!("{HEAD}{more}")).expect_err(more).join("\n");
            assert!(said.contains(wanted), "{more}: {said}");
        }
        assert!(
            read("id = 'a'\nlisten = '8430'\nkey_file = 'secret'").expect_err("no address")[0]
                .contains("an address and a port")
        );
    }

    /// A platform that gives up waiting sends the same signed bytes again; their stamp is good for minutes only.
    #[tokio::test]
    async fn a_caller_that_hangs_up_may_send_the_same_again() {
        let (now, window) = (Wall::from_millis(1_772_328_600_000), Duration::from_secs(300));
        let seen = Mutex::new(Seen::default());
        let begin = || locked(&seen).begin([7; 32], now, window).err();
        assert!(begin().is_none());
        let answer = async {
            let _under_way = UnderWay { seen: &seen, signature: Some([7; 32]), safe: false };
            std::future::pending::<()>().await;
        };
        let hung_up = tokio::select! {
            biased;
            () = answer => false,
            () = async { assert!(matches!(begin(), Some(Some(Standing::UnderWay)))) } => true,
        };
        assert!(hung_up && begin().is_none(), "it is taken again");
        drop(UnderWay { seen: &seen, signature: Some([7; 32]), safe: true });
        assert!(matches!(begin(), Some(Some(Standing::Safe))), "and once it is safe it is known");
    }

    #[test]
    fn a_signature_is_good_once_for_a_while_and_for_its_path_and_body_only() {
        let settings =
            read(&format!("{HEAD}key_file = 'secret'\nsignature_header = 'X-Hub-Signature-256'")).expect("sound");
        let now = Wall::from_millis(1_772_328_600_000);
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"0123456789abcdef");
        let sign = |text: &str| {
            hmac::sign(&key, text.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        // printf '1772328600\n/v1/g1/up\n{"v":1}' | openssl dgst -sha256 -hmac 0123456789abcdef
        let signed = "6118292be996d747b841af01c183b0035f840642e3e56e67f08359d3ce2da558".to_owned();
        let check = |time: Option<&str>, signature: Option<&str>, path: &str, body: &str, now: Wall| {
            let mut headers = HeaderMap::new();
            time.into_iter().for_each(|time| drop(headers.insert("x-timestamp", time.parse().expect("text"))));
            signature
                .into_iter()
                .for_each(|text| drop(headers.insert("x-hub-signature-256", text.parse().expect("text"))));
            settings.proof.check(&headers, path, body.as_bytes(), now).map(|found| found.is_some()).map_err(|r| r.code)
        };
        let (time, body, path) = (Some("1772328600"), "{\"v\":1}", "/v1/g1/up");
        let prefixed = format!("sha256={}", signed.to_uppercase());
        let old = sign("1772328299\n/v1/g1/up\n{\"v\":1}");
        for (time, signature, path, body, wanted) in [
            (time, Some(signed.as_str()), path, body, Ok(true)),
            (time, Some(prefixed.as_str()), path, body, Ok(true)),
            (time, Some(signed.as_str()), "/v1/g2/up", body, Err("forged")),
            (time, Some(signed.as_str()), path, "{\"v\":2}", Err("forged")),
            (Some("1772328601"), Some(signed.as_str()), path, body, Err("forged")),
            (Some("1772328299"), Some(old.as_str()), path, body, Err("stale")),
            (Some("yesterday"), Some(signed.as_str()), path, body, Err("bad_time")),
            (Some("-1"), Some(signed.as_str()), path, body, Err("bad_time")),
            (time, Some("abc"), path, body, Err("bad_signature")),
            (time, None, path, body, Err("no_signature")),
            (None, Some(signed.as_str()), path, body, Err("no_time")),
        ] {
            assert_eq!(check(time, signature, path, body, now), wanted, "{time:?} {signature:?} {path} {body}");
        }
        assert_eq!(check(time, Some(&signed), path, body, now.plus(Duration::from_secs(301))), Err("stale"));

        let (mut seen, window) = (Seen::default(), Duration::from_secs(300));
        assert!(seen.begin([1; 32], now, window).is_ok());
        assert!(seen.begin([1; 32], now, window) == Err(Some(Standing::UnderWay)));
        seen.end([1; 32], false);
        assert!(seen.begin([1; 32], now, window).is_ok(), "what was not safe may come again");
        seen.end([1; 32], true);
        let last = now.plus(window * 2);
        assert!(seen.begin([1; 32], last, window) == Err(Some(Standing::Safe)));
        for n in 0..u16::MAX {
            let mut other = [2; 32];
            other[..2].copy_from_slice(&n.to_be_bytes());
            let _ = seen.begin(other, last, window);
        }
        assert!(seen.begin([3; 32], last, window) == Err(None), "there is no room, and nothing is forgotten early");
        assert!(seen.begin([3; 32], last.plus(window * 3), window).is_ok());
        assert_eq!((seen.order.len(), seen.standing.len()), (1, 1));
    }

    #[test]
    fn a_token_is_compared_whole() {
        let settings = read(&format!("{HEAD}token_file = 'secret'")).expect("sound");
        for (value, wanted) in [
            (Some("Bearer 0123456789abcdef"), Ok(None)),
            (Some("bearer  0123456789abcdef "), Ok(None)),
            (Some("Bearer 0123456789abcdee"), Err("wrong_token")),
            (Some("Bearer "), Err("no_token")),
            (Some("Basic 0123456789abcdef"), Err("no_token")),
            (None, Err("no_token")),
        ] {
            let mut headers = HeaderMap::new();
            value.into_iter().for_each(|value| drop(headers.insert(AUTHORIZATION, value.parse().expect("text"))));
            let found = settings.proof.check(&headers, "/", b"", Wall::default()).map_err(|refusal| refusal.code);
            assert_eq!(found, wanted, "{value:?}");
        }
    }

    #[test]
    fn a_path_is_a_topic() {
        for (path, wanted) in [
            ("/v1/g1/up", Some("v1/g1/up")),
            ("/3%E5%8F%B7%E6%A5%BC/up", Some("3号楼/up")),
            ("/a%2fb", Some("a/b")),
            ("/", None),
            ("*", None),
            ("/%C4%E3", None),
            ("/%", None),
            ("/%4", None),
            ("/%zz", None),
        ] {
            assert_eq!(topic(path).as_deref(), wanted, "{path}");
        }
    }
}
