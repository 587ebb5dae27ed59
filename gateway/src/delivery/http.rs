//! One HTTP request, and what its answer means for the courier.
//!
//! Connects within 3 s and is done within 10 s; follows no redirect, heeds no proxy of the environment, reads at most
//! 64 KiB of an answer. Every address that a name resolves to is checked by the connector that then connects to it, so
//! that a name cannot point elsewhere between the check and the connection. It does not retry: the courier does.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use anmin_sensors::document::Reader;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{DATE, ETAG, HeaderMap, LOCATION, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::{DeliveryError, Receipt, excerpt};
use crate::credentials::ClientTls;
use crate::outgoing::Outgoing;
use crate::store::reach::NAMED;

const CONNECT_LIMIT: Duration = Duration::from_secs(3);
const TOTAL_LIMIT: Duration = Duration::from_secs(10);
const ANSWER_LIMIT: usize = 64 << 10;

/// Where to post, as configured: `url`, `allow_http`, and what goes with TLS.
#[derive(Clone, Debug)]
pub struct Target {
    uri: Uri,
    tls: ClientTls,
    allow_http: bool,
    outgoing: Outgoing,
}

impl Target {
    pub fn read(r: &Reader<'_>, base: &Path) -> Option<Self> {
        let url: Option<String> = r.required("url");
        let allow_http = r.or("allow_http", false);
        let tls = ClientTls::read(r, base);
        match Self::new(&url?, tls, allow_http) {
            Ok(target) => Some(target),
            Err((message, hint)) => {
                r.fault("url", message, hint);
                None
            }
        }
    }

    pub fn new(url: &str, tls: ClientTls, allow_http: bool) -> Result<Self, (String, Option<String>)> {
        let wrong = |why: String| (format!("`url` is {url:?}, {why}"), None);
        let uri: Uri = url.parse().map_err(|error| wrong(format!("which is not a URL: {error}")))?;
        let plain = match uri.scheme_str() {
            Some("https") => false,
            Some("http") => true,
            _ => return Err(wrong("expected http:// or https://".to_owned())),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| wrong("which names no host".to_owned()))?;
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err((
                "`url` carries a user name or password".to_owned(),
                Some("put the secret into a file and name it here".to_owned()),
            ));
        }
        let target = Self { tls, allow_http, outgoing: Outgoing::default(), uri: uri.clone() };
        // A literal address never passes the resolver.
        if let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            target.guard().admit(address).map_err(|why| {
                let hint = plain.then(|| "use https, or set allow_http = true if you trust the network".to_owned());
                (format!("`url` is {url:?}, but {why}"), hint)
            })?;
        }
        Ok(target)
    }

    /// Goes only where `outgoing` lets it; a fault at `key` where that is nowhere.
    pub fn heed(&mut self, outgoing: &Outgoing, r: &Reader<'_>, key: &'static str) {
        outgoing.check(r, key, self.host());
        self.outgoing = outgoing.clone();
    }

    /// As [`Target::heed`], for a target whose address no message shows.
    pub fn heeding(self, outgoing: &Outgoing) -> Self {
        Self { outgoing: outgoing.clone(), ..self }
    }

    /// Whether there is a list of those whom anmin may dial.
    pub fn is_bound(&self) -> bool {
        !self.outgoing.is_open()
    }

    pub fn host(&self) -> &str {
        self.uri.host().unwrap_or_default()
    }

    /// `scheme://host:port`, without a path.
    pub fn origin(&self) -> String {
        let authority = self.uri.authority().map_or("", |authority| authority.as_str());
        format!("{}://{authority}", self.uri.scheme_str().unwrap_or("http"))
    }

    /// The whole address.
    pub fn url(&self) -> String {
        self.uri.to_string()
    }

    /// The same peer at `path`, below the path that was configured unless that ends with it already.
    pub fn at(&self, path: &str, query: &str) -> Result<Self, String> {
        let below = self.uri.path().trim_end_matches('/');
        let path = if below.ends_with(path) { below.to_owned() } else { format!("{below}{path}") };
        let url = format!("{}{path}?{query}", self.origin());
        let uri = url.parse().map_err(|error| format!("{url:?} is not a URL: {error}"))?;
        Ok(Self { uri, ..self.clone() })
    }

    fn guard(&self) -> Guard {
        let only_private = self.uri.scheme_str() == Some("http") && !self.allow_http;
        Guard { only_private, outgoing: self.outgoing.clone() }
    }
}

/// A client for one target; keeps its connection open between posts.
#[derive(Debug)]
pub struct Http {
    client: Client<HttpsConnector<HttpConnector<Guard>>, Full<Bytes>>,
    uri: Uri,
}

impl Http {
    pub fn new(target: &Target) -> Result<Self, String> {
        // A literal address never passes the resolver.
        target.outgoing.may_dial(target.host())?;
        let secure = target.uri.scheme_str() == Some("https");
        let tls = target.tls.config(secure)?;
        let mut tcp = HttpConnector::new_with_resolver(target.guard());
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT_LIMIT));
        tcp.set_nodelay(true);
        let https =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(super::courier::PARALLEL)
            .build(https);
        Ok(Self { client, uri: target.uri.clone() })
    }

    /// Posts once.
    pub async fn post(&self, headers: &[(&str, &str)], body: Bytes) -> Result<Receipt, DeliveryError> {
        self.post_naming(headers, body, None).await
    }

    /// The same; where a name is given, only an answer that has it says that the peer has taken it.
    pub async fn post_naming(
        &self,
        headers: &[(&str, &str)],
        body: Bytes,
        name: Option<&str>,
    ) -> Result<Receipt, DeliveryError> {
        let Some(name) = name else { return self.post_read(headers, body, None).await };
        let read = |detail: &str, words: &[u8]| match words.windows(name.len()).any(|part| part == name.as_bytes()) {
            true => Ok(Receipt::of(format!("{detail}{NAMED}"))),
            false => Err(DeliveryError::Retry(format!("{detail}, but the answer does not name the message"))),
        };
        self.post_read(headers, body, Some(&read)).await
    }

    /// The same; where the receipt is in the answer, it is what `read` makes of it.
    pub async fn post_read(
        &self,
        headers: &[(&str, &str)],
        body: Bytes,
        read: Option<&ReadReceipt<'_>>,
    ) -> Result<Receipt, DeliveryError> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(self.uri.clone())
            .header("user-agent", concat!("anmin/", env!("CARGO_PKG_VERSION")));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| DeliveryError::Never(format!("the request cannot be written: {error}")))?;
        let answered = tokio::time::timeout(TOTAL_LIMIT, async {
            let response = self.client.request(request).await.map_err(|error| chain(&error))?;
            Ok(judge(response, read).await)
        });
        match answered.await {
            Ok(Ok(result)) => result,
            Ok(Err(reason)) => Err(DeliveryError::Retry(reason)),
            Err(_) => Err(DeliveryError::Retry(format!("no answer within {TOTAL_LIMIT:?}"))),
        }
    }
}

/// Makes a receipt of the whole body of an answer that is called so, such as `HTTP 200`.
pub type ReadReceipt<'a> = dyn Fn(&str, &[u8]) -> Result<Receipt, DeliveryError> + Send + Sync + 'a;

/// An answer as it came, for a carrier that has a reading of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub retry_after: Option<Duration>,
    /// Empty where it did not come within a second.
    pub body: Bytes,
}

impl Answer {
    /// The peer's words, cut.
    pub fn words(&self) -> String {
        excerpt(String::from_utf8_lossy(&self.body).trim())
    }
}

/// A document that was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    pub status: u16,
    pub etag: Option<String>,
    pub body: Bytes,
}

impl Http {
    /// Fetches once: what was configured, or another path and query of the same host. A body larger than `most` bytes is an
    /// error, and so is one that does not come in time. The error says how the wire failed.
    pub async fn get(&self, path: Option<&str>, headers: &[(&str, &str)], most: usize) -> Result<Fetched, String> {
        let mut uri = self.uri.clone();
        if let Some(path) = path {
            let mut parts = uri.into_parts();
            parts.path_and_query = Some(path.parse().map_err(|_| format!("{path:?} is no path"))?);
            uri = Uri::from_parts(parts).map_err(|error| error.to_string())?;
        }
        let mut request = Request::builder()
            .method(Method::GET)
            .uri(uri)
            .header("user-agent", concat!("anmin/", env!("CARGO_PKG_VERSION")));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::default()).map_err(|error| error.to_string())?;
        let answered = tokio::time::timeout(TOTAL_LIMIT, async {
            let (head, body) = self.client.request(request).await.map_err(|error| chain(&error))?.into_parts();
            let body =
                Limited::new(body, most).collect().await.map_err(|error| format!("the body: {error}"))?.to_bytes();
            let etag = head.headers.get(ETAG).and_then(|value| value.to_str().ok()).map(str::to_owned);
            Ok(Fetched { status: head.status.as_u16(), etag, body })
        });
        answered.await.unwrap_or_else(|_| Err(format!("no answer within {TOTAL_LIMIT:?}")))
    }

    /// Posts once, with `query` added to the address, and gives the answer unread. The error says how the wire failed.
    pub async fn exchange(
        &self,
        query: &str,
        headers: &[(&str, &str)],
        body: Bytes,
        limit: Duration,
    ) -> Result<Answer, String> {
        let mut uri = self.uri.clone();
        if !query.is_empty() {
            let between = if uri.query().is_some() { '&' } else { '?' };
            uri = format!("{uri}{between}{query}").parse().map_err(|_| "the address takes no query".to_owned())?;
        }
        self.request(Method::POST, uri, headers, body, limit).await
    }

    /// Asks once for a path and query of the same host, and gives the answer unread. The error says how the wire failed.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
        limit: Duration,
    ) -> Result<Answer, String> {
        let mut parts = self.uri.clone().into_parts();
        parts.path_and_query = Some(path.parse().map_err(|_| "the address takes no such words".to_owned())?);
        let uri = Uri::from_parts(parts).map_err(|error| error.to_string())?;
        self.request(method, uri, headers, body, limit).await
    }

    async fn request(
        &self,
        method: Method,
        uri: Uri,
        headers: &[(&str, &str)],
        body: Bytes,
        limit: Duration,
    ) -> Result<Answer, String> {
        let mut request = Request::builder()
            .method(method)
            .uri(uri)
            .header("user-agent", concat!("anmin/", env!("CARGO_PKG_VERSION")));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
        let answered = tokio::time::timeout(limit, async {
            let (head, body) = self.client.request(request).await.map_err(|error| chain(&error))?.into_parts();
            let limited = Limited::new(body, ANSWER_LIMIT).collect();
            let body = match tokio::time::timeout(Duration::from_secs(1), limited).await {
                Ok(Ok(body)) => body.to_bytes(),
                _ => Bytes::new(),
            };
            Ok(Answer { status: head.status.as_u16(), retry_after: asked_wait(&head.headers), body })
        });
        answered.await.unwrap_or_else(|_| Err(format!("no answer within {limit:?}")))
    }
}

/// What an answer means: 2xx is taken; 408, 425, 429 and 5xx ask for another try, later where they say so; 401 and 403
/// too, because a person can mend a credential on either side and the order is not at fault; anything else is refused.
async fn judge(
    response: Response<hyper::body::Incoming>,
    read: Option<&ReadReceipt<'_>>,
) -> Result<Receipt, DeliveryError> {
    let (head, body) = response.into_parts();
    let status = head.status;
    let body = Limited::new(body, ANSWER_LIMIT).collect();
    if status.is_success() {
        let detail = format!("HTTP {}", status.as_u16());
        let Some(read) = read else {
            // The verdict stands; the rest of the answer frees the connection, or costs it.
            let _ = tokio::time::timeout(Duration::from_secs(1), body).await;
            return Ok(Receipt::of(detail));
        };
        // The receipt is in the body: it has as long as the whole exchange.
        let words = body.await.map_err(|_| {
            DeliveryError::Retry(format!(
                "{detail}, but its receipt broke off, or has more than {} KiB",
                ANSWER_LIMIT >> 10
            ))
        })?;
        return read(&detail, &words.to_bytes());
    }
    // The verdict stands already; a slow or endless body may not change it, only cost its connection.
    let words = match tokio::time::timeout(Duration::from_secs(1), body).await {
        Ok(Ok(words)) => excerpt(String::from_utf8_lossy(&words.to_bytes()).trim()),
        _ => String::new(),
    };
    let mut reason = format!("HTTP {}", status.as_u16());
    if !words.is_empty() {
        reason = format!("{reason}: {words}");
    }
    match status {
        StatusCode::REQUEST_TIMEOUT
        | StatusCode::TOO_EARLY
        | StatusCode::TOO_MANY_REQUESTS
        | StatusCode::UNAUTHORIZED
        | StatusCode::FORBIDDEN => Err(later(&head.headers, reason)),
        _ if status.is_server_error() => Err(later(&head.headers, reason)),
        _ if status.is_redirection() => {
            let to = head.headers.get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or("nowhere");
            Err(DeliveryError::Never(format!("HTTP {} to {to:?}, which is not followed", status.as_u16())))
        }
        _ => Err(DeliveryError::Never(reason)),
    }
}

fn later(headers: &HeaderMap, reason: String) -> DeliveryError {
    match asked_wait(headers) {
        Some(wait) => DeliveryError::RetryAfter { wait, reason },
        None => DeliveryError::Retry(reason),
    }
}

/// `Retry-After` in seconds, or as a date seen from the peer's own `Date`, so that its clock need not be ours.
fn asked_wait(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let after = text(RETRY_AFTER)?.trim();
    if let Ok(seconds) = after.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let moment = |text: &str| jiff::fmt::rfc2822::parse(text.trim()).ok().map(|zoned| zoned.timestamp());
    let wait = moment(after)?.duration_since(moment(text(DATE)?)?);
    Some(Duration::try_from(wait).unwrap_or_default())
}

/// An error with its causes: the outer ones of hyper alone say only "client error (Connect)".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut inner = error.source();
    while let Some(cause) = inner {
        text = format!("{text}: {cause}");
        inner = cause.source();
    }
    text
}

/// The resolver: the system's, and of what it says only addresses that may be connected to.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    /// What is spoken is not encrypted: only loopback and private addresses.
    pub(super) only_private: bool,
    pub(super) outgoing: Outgoing,
}

impl Guard {
    /// The addresses of `host` that may be connected to; an error where there is none.
    pub(super) async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let mut refused = None;
        let mut admitted = Vec::new();
        for address in tokio::net::lookup_host((host, port)).await? {
            match self.admit(address.ip()).and_then(|()| self.outgoing.admit(host, address.ip())) {
                Ok(()) => admitted.push(address),
                Err(why) => refused = Some(why),
            }
        }
        match (admitted.is_empty(), refused) {
            (true, Some(why)) => Err(io::Error::new(io::ErrorKind::PermissionDenied, why)),
            _ => Ok(admitted),
        }
    }

    pub(super) fn admit(&self, address: IpAddr) -> Result<(), String> {
        let address = address.to_canonical();
        let (strange, private) = match address {
            IpAddr::V4(v4) => {
                // 100.64.0.0/10 is shared address space (RFC 6598), as private as a carrier's network gets.
                let shared = v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64;
                let strange = v4.is_unspecified()
                    || v4.is_multicast()
                    || v4.is_link_local()
                    || v4 == Ipv4Addr::BROADCAST
                    || v4.octets()[0] == 0;
                (strange, v4.is_loopback() || v4.is_private() || shared)
            }
            IpAddr::V6(v6) => {
                let strange = v6.is_unspecified() || v6.is_multicast() || v6.is_unicast_link_local();
                (strange, v6.is_loopback() || v6.is_unique_local())
            }
        };
        if strange {
            Err(format!("{address} is no address of a receiver"))
        } else if self.only_private && !private {
            Err(format!("{address} is a public address and would be spoken to without encryption"))
        } else {
            Ok(())
        }
    }
}

impl tower_service::Service<Name> for Guard {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let guard = self.clone();
        Box::pin(async move { guard.resolve(name.as_str(), 0).await.map(Vec::into_iter) })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// What a scripted server does with one request.
    pub enum Answer {
        Says(&'static str),
        /// Closes the connection in the middle of its answer.
        Breaks,
    }

    /// A server that answers by script, one connection after the other, and keeps the requests it saw.
    pub struct Server {
        pub address: SocketAddr,
        pub seen: Arc<Mutex<Vec<String>>>,
    }

    impl Server {
        pub async fn start(script: Vec<Answer>) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port on loopback");
            let address = listener.local_addr().expect("it is bound");
            let seen = Arc::new(Mutex::new(Vec::new()));
            let kept = Arc::clone(&seen);
            tokio::spawn(async move {
                for answer in script {
                    let Ok((mut socket, _)) = listener.accept().await else { return };
                    let request = read_request(&mut socket).await;
                    kept.lock().expect("no test panics with it").push(request);
                    match answer {
                        Answer::Says(text) => {
                            let _ = socket.write_all(text.as_bytes()).await;
                        }
                        Answer::Breaks => {
                            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Le").await;
                        }
                    }
                }
                std::future::pending::<()>().await;
            });
            Self { address, seen }
        }

        pub fn url(&self) -> String {
            format!("http://{}/in", self.address)
        }

        pub fn http(&self) -> Http {
            Http::new(&Target::new(&self.url(), ClientTls::default(), false).expect("a URL")).expect("a client")
        }
    }

    async fn read_request(socket: &mut tokio::net::TcpStream) -> String {
        let mut request = Vec::new();
        let mut part = [0; 4096];
        while let Ok(n @ 1..) = socket.read(&mut part).await {
            request.extend_from_slice(&part[..n]);
            let text = String::from_utf8_lossy(&request);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head
                    .lines()
                    .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok())
                    .unwrap_or(0);
                if body.len() >= length {
                    return text.into_owned();
                }
            }
        }
        String::from_utf8_lossy(&request).into_owned()
    }

    /// Goal: every kind of answer gets its verdict. Method: a scripted server, one case a line.
    #[tokio::test]
    async fn answers_are_judged() {
        let cases = [
            ("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", "taken HTTP 204"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", "taken HTTP 200"),
            ("HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "retry HTTP 408"),
            ("HTTP/1.1 425 Too Early\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "retry HTTP 425"),
            (
                "HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbusy",
                "wait 7s HTTP 429: busy",
            ),
            (
                "HTTP/1.1 503 Down\r\nDate: Sun, 01 Mar 2026 01:30:00 GMT\r\nRetry-After: Sun, 01 Mar 2026 01:32:00 \
                 GMT\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                "wait 120s HTTP 503",
            ),
            ("HTTP/1.1 500 Broken\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "retry HTTP 500"),
            ("HTTP/1.1 401 Who\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "retry HTTP 401"),
            (
                "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                "never HTTP 302 to \"http://127.0.0.1:1/\", which is not followed",
            ),
            (
                "HTTP/1.1 400 Bad\r\nContent-Length: 8\r\nConnection: close\r\n\r\nno\x1b[31m\n",
                "never HTTP 400: no [31m",
            ),
            ("SSH-2.0-OpenSSH_9.2\r\n", "retry"),
            ("", "retry"),
        ];
        let server = Server::start(cases.iter().map(|(says, _)| Answer::Says(says)).collect()).await;
        let http = server.http();
        for (says, wanted) in cases {
            let found = match http.post(&[], Bytes::from_static(b"{}")).await {
                Ok(receipt) => format!("taken {}", receipt.detail),
                Err(DeliveryError::Retry(reason)) => format!("retry {reason}"),
                Err(DeliveryError::RetryAfter { wait, reason }) => format!("wait {wait:?} {reason}"),
                Err(DeliveryError::Never(reason)) => format!("never {reason}"),
            };
            assert!(found.starts_with(wanted), "{says:?}: {found}");
        }
    }

    #[tokio::test]
    async fn a_broken_answer_and_an_absent_server_ask_for_another_try() {
        let server = Server::start(vec![Answer::Breaks]).await;
        let http = server.http();
        assert!(matches!(http.post(&[], Bytes::new()).await, Err(DeliveryError::Retry(_))));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port on loopback");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        drop(listener);
        let http = Http::new(&Target::new(&url, ClientTls::default(), false).expect("a URL")).expect("a client");
        match http.post(&[], Bytes::new()).await {
            Err(DeliveryError::Retry(reason)) => assert!(reason.contains("refused"), "{reason}"),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn an_endless_answer_is_taken_at_its_status() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port on loopback");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.expect("one client");
            read_request(&mut socket).await;
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            while socket.write_all(b"1000\r\n").await.is_ok() && socket.write_all(&[b'x'; 0x1000]).await.is_ok() {
                let _ = socket.write_all(b"\r\n").await;
            }
        });
        let http = Http::new(&Target::new(&url, ClientTls::default(), false).expect("a URL")).expect("a client");
        assert!(http.post(&[], Bytes::new()).await.is_ok());
    }

    #[test]
    fn addresses_are_guarded() {
        for (url, allow_http, wanted) in [
            ("https://eb.example.cn/cap", false, true),
            ("https://8.8.8.8/cap", false, true),
            ("http://127.0.0.1:8080/cap", false, true),
            ("http://[::1]:8080/cap", false, true),
            ("http://192.168.1.5/cap", false, true),
            ("http://10.1.2.3/cap", false, true),
            ("http://100.64.0.9/cap", false, true),
            ("http://[fd00::5]/cap", false, true),
            ("http://8.8.8.8/cap", false, false),
            ("http://8.8.8.8/cap", true, true),
            ("http://[2001:db8::1]/cap", false, false),
            ("http://169.254.169.254/latest", true, false),
            ("http://[::ffff:169.254.169.254]/latest", true, false),
            ("https://0.0.0.0/cap", true, false),
            ("https://224.0.0.1/cap", true, false),
            ("https://[fe80::1]/cap", true, false),
            ("ftp://eb.example.cn/cap", false, false),
            ("https://user:secret@eb.example.cn/cap", false, false),
            ("eb.example.cn", false, false),
            ("not a url", false, false),
        ] {
            let found = Target::new(url, ClientTls::default(), allow_http);
            assert_eq!(found.is_ok(), wanted, "{url}: {found:?}");
        }
    }

    #[tokio::test]
    async fn a_name_is_checked_where_it_is_resolved() {
        use tower_service::Service;
        let mut guard = Guard { only_private: true, outgoing: Outgoing::default() };
        let name = |text: &str| text.parse::<Name>().expect("a name");
        assert!(guard.call(name("localhost")).await.is_ok_and(|mut found| found.next().is_some()));
        // What looks like no address to us may be one to the system's resolver.
        for odd in ["0", "0x08080808"] {
            assert!(guard.call(name(odd)).await.is_err(), "{odd}");
        }
    }
}
