//! The API from the command line: `anmin alarm` and `anmin call`.
//!
//! One request, one answer, within 10 s, or 70 s where the daemon has something to do. It keeps nothing and tries nothing twice: a person sees at once what became of
//! their command. The answer is handed on as JSON, so that what a newer daemon adds reaches programs that know it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HeaderMap, SET_COOKIE, USER_AGENT};
use hyper::{Method, Request, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::wire::TextWire;

const CONNECT_WITHIN: Duration = Duration::from_secs(3);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// For what the daemon itself takes its time for.
const DONE_WITHIN: Duration = Duration::from_secs(70);
/// Largest answer that is read; ten thousand alarms take a tenth of it.
const MOST_ANSWER: usize = 256 << 20;

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address or the token cannot be used at all.
    #[error("{0}")]
    Unusable(String),
    /// Nobody answered, or somebody who is not anmin.
    #[error("{url}: {why}")]
    Unreachable { url: String, why: String },
    /// anmin answered that it does not do this, and why.
    #[error("{url}: HTTP {status}: {}", .problem.error.en)]
    Refused { url: String, status: u16, problem: Box<Problem> },
}

/// What the API answers when it does not do what it was asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// A word for programs.
    pub code: String,
    pub error: TextWire,
    pub hint: Option<TextWire>,
}

/// Speaks with one daemon.
pub struct Client {
    http: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    base: String,
    token: Option<String>,
    /// Of a person who has signed in.
    cookie: Option<String>,
}

impl Client {
    /// Where the daemon is, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.base
    }

    /// `url` is `http://host:port`, or `https://` and a path where a proxy stands in front.
    pub fn new(url: &str, token_file: Option<&Path>) -> Result<Self, ClientError> {
        let unusable = |why: String| ClientError::Unusable(format!("{url:?} is no address of anmin: {why}"));
        let uri: Uri = url.parse().map_err(|error| unusable(format!("{error}")))?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(unusable("expected such as http://127.0.0.1:8420".to_owned())),
        };
        if uri.query().is_some() || uri.authority().is_none_or(|authority| authority.as_str().contains('@')) {
            return Err(unusable("expected a host, and neither a user's name nor `?`".to_owned()));
        }
        let provider = rustls::crypto::ring::default_provider();
        let tls = rustls::ClientConfig::builder_with_provider(provider.into()).with_safe_default_protocol_versions();
        let tls = tls.map_err(|error| unusable(format!("TLS cannot start: {error}")))?;
        let tls = if secure {
            use hyper_rustls::ConfigBuilderExt as _;
            let roots = tls.with_native_roots();
            roots
                .map_err(|error| unusable(format!("this machine's certificate authorities cannot be read: {error}")))?
        } else {
            tls.with_root_certificates(rustls::RootCertStore::empty())
        };
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT_WITHIN));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls.with_no_client_auth())
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        Ok(Self {
            http: legacy::Client::builder(TokioExecutor::new()).build(https),
            base: url.trim_end_matches('/').to_owned(),
            token: token_file.map(read_token).transpose()?,
            cookie: None,
        })
    }

    /// Signs a person in: from now on it is they who ask, and no token.
    pub async fn sign_in(&mut self, account: &str, password: &str, code: Option<&str>) -> Result<(), ClientError> {
        self.token = None;
        let body = json!({ "account": account, "password": password, "code": code }).to_string();
        let (head, _) = self.exchange_whole(Method::POST, "/session", body, ANSWER_WITHIN).await?;
        let cookie = head.get(SET_COOKIE).and_then(|cookie| cookie.to_str().ok()?.split(';').next());
        self.cookie =
            Some(cookie.ok_or_else(|| self.unreachable("it signs in, but gives no cookie".to_owned()))?.to_owned());
        Ok(())
    }

    /// Asks; `path` begins with `/` and lies below `/api/v1`.
    pub async fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.exchange(Method::GET, path, String::new(), ANSWER_WITHIN).await
    }

    /// Commands. When no answer comes the error says that nobody knows whether it was carried out.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.exchange(Method::POST, path, body.to_string(), ANSWER_WITHIN).await
    }

    /// Commands something that takes its time.
    pub async fn post_and_wait(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.exchange(Method::POST, path, body.to_string(), DONE_WITHIN).await
    }

    /// Asks for a document, as it is.
    pub async fn fetch(&self, path: &str) -> Result<Bytes, ClientError> {
        self.exchange_bytes(Method::GET, path, String::new(), DONE_WITHIN).await
    }

    async fn exchange(&self, method: Method, path: &str, body: String, within: Duration) -> Result<Value, ClientError> {
        let bytes = self.exchange_bytes(method, path, body, within).await?;
        serde_json::from_slice(&bytes)
            .map_err(|_| self.unreachable("it answers, but not in the words of anmin".to_owned()))
    }

    fn unreachable(&self, why: String) -> ClientError {
        ClientError::Unreachable { url: self.base.clone(), why }
    }

    async fn exchange_bytes(
        &self,
        method: Method,
        path: &str,
        body: String,
        within: Duration,
    ) -> Result<Bytes, ClientError> {
        self.exchange_whole(method, path, body, within).await.map(|(_, bytes)| bytes)
    }

    async fn exchange_whole(
        &self,
        method: Method,
        path: &str,
        body: String,
        within: Duration,
    ) -> Result<(HeaderMap, Bytes), ClientError> {
        let url = format!("{}/api/v1{path}", self.base);
        let command = method == Method::POST;
        let mut request = Request::builder()
            .method(method)
            .uri(&url)
            .header(USER_AGENT, concat!("anmin/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(cookie) = &self.cookie {
            // What a page of the same address would say: that no other site has made us send this.
            request = request
                .header(COOKIE, cookie)
                .header("sec-fetch-site", "same-origin")
                .header("x-anmin", "command-line");
        }
        let request = request
            .body(Full::from(body))
            .map_err(|error| ClientError::Unusable(format!("{url:?} cannot be asked: {error}")))?;
        let unreachable = |why: String| self.unreachable(why);
        let answered = tokio::time::timeout(within, async {
            let response = self.http.request(request).await.map_err(|error| root_cause(&error))?;
            let (head, body) = response.into_parts();
            let bytes = Limited::new(body, MOST_ANSWER).collect().await.map_err(|error| error.to_string())?.to_bytes();
            Ok::<_, String>((head, bytes))
        });
        let (head, bytes) = match answered.await {
            Ok(answer) => answer.map_err(unreachable)?,
            Err(_) if command => {
                let why = format!("no answer within {within:?}; nobody knows whether it was carried out");
                return Err(unreachable(why));
            }
            Err(_) => return Err(unreachable(format!("no answer within {within:?}"))),
        };
        let status = head.status;
        let foreign = || unreachable(format!("HTTP {}, but not in the words of anmin", status.as_u16()));
        if status.is_success() {
            Ok((head.headers, bytes))
        } else {
            let problem = serde_json::from_slice(&bytes).map_err(|_| foreign())?;
            Err(ClientError::Refused { url, status: status.as_u16(), problem })
        }
    }
}

/// The URL at which this machine reaches a daemon that listens on `listen`.
pub fn url_of(listen: SocketAddr) -> String {
    let ip = match listen.ip() {
        IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, listen.port()))
}

fn read_token(path: &Path) -> Result<String, ClientError> {
    let unusable = |why: String| ClientError::Unusable(format!("token file {}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| unusable(error.to_string()))?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(unusable("it does not hold one line of plain characters".to_owned()));
    }
    Ok(token.to_owned())
}

/// The innermost reason: those around it say only "client error (Connect)".
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_listens_everywhere_is_asked_on_this_machine() {
        for (listen, url) in [
            ("127.0.0.1:8420", "http://127.0.0.1:8420"),
            ("0.0.0.0:80", "http://127.0.0.1:80"),
            ("[::]:8420", "http://[::1]:8420"),
            ("10.0.0.7:8420", "http://10.0.0.7:8420"),
        ] {
            assert_eq!(url_of(listen.parse().expect("an address")), url);
        }
    }

    #[test]
    fn what_is_no_address_is_said() {
        for (url, words) in [
            ("127.0.0.1:8420", "no address of anmin"),
            ("ftp://box", "expected such as"),
            ("http://li:secret@box", "neither a user's name"),
            ("http://box/?x", "neither a user's name nor `?`"),
            ("http:// box", "no address of anmin"),
        ] {
            let said = Client::new(url, None).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(said.contains(words), "{url}: {said}");
        }
        assert!(Client::new("https://box/anmin/", None).is_ok());
    }
}
