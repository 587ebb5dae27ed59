//! People at the duty desk's page, each signed in with an account of their own, as their browsers do.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use serde_json::{Value, json};

use crate::daemon::{DEADLINE, anmin, pause};
use crate::site::Site;

/// Somebody who is signed in.
pub struct Person {
    web: SocketAddr,
    cookie: String,
}

impl Person {
    /// What everybody here has chosen.
    pub const PASSWORD: &str = "correct horse battery staple";

    /// Whoever comes to a desk where nobody has an account.
    pub fn unnamed(web: SocketAddr) -> Self {
        Self { web, cookie: String::new() }
    }

    /// The first administrator, by the code that is shown on the box alone. From then on everybody signs in.
    pub fn set_up(web: SocketAddr, site: &Site, account: &str, shown: &str) -> Self {
        let told = anmin(&["account", "setup-code", &site.folder().display().to_string()]);
        assert!(told.status.success(), "{told:?}");
        let code = String::from_utf8_lossy(&told.stdout).trim().to_owned();
        let body = json!({ "code": code, "account": account, "shown": shown, "password": Self::PASSWORD });
        Self::opened(web, "/api/v1/session/set-up", &body)
    }

    /// Adds an account and gives who has signed in with it and set a password of their own choice.
    pub fn add(&self, account: &str, shown: &str, role: &str, places: &[&str]) -> Self {
        let body = json!({ "name": account, "shown": shown, "role": role, "places": places });
        let added = self.post("/api/v1/accounts", &body);
        let once = added["password"].as_str().unwrap_or_else(|| panic!("no password for {account}: {added:#}"));
        let person = Self::opened(self.web, "/api/v1/session", &json!({ "account": account, "password": once }));
        person.post("/api/v1/session/password", &json!({ "old": once, "new": Self::PASSWORD }));
        person
    }

    /// What a door answers by which one comes in.
    fn opened(web: SocketAddr, path: &str, body: &Value) -> Self {
        let (status, head, answer) = exchange(web, "POST", path, "", body.to_string().as_bytes());
        assert_eq!(status, 200, "POST {path}: {}", String::from_utf8_lossy(&answer));
        let cookie = head.lines().find_map(|line| line.strip_prefix("set-cookie: ")?.split(';').next());
        Self { web, cookie: cookie.expect("who comes in gets a cookie").to_owned() }
    }

    /// Status and body, whatever they are.
    pub fn ask(&self, path: &str) -> (u16, Vec<u8>) {
        let (status, _, body) = exchange(self.web, "GET", path, &self.cookie, &[]);
        (status, body)
    }

    pub fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask(path);
        let text = String::from_utf8_lossy(&body);
        assert_eq!(status, 200, "GET {path}: {text}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("GET {path}: {error} in {text:?}"))
    }

    /// Asks `path` until the answer is as wanted; gives that answer.
    pub fn wait(&self, path: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let answer = self.get(path);
            if wanted(&answer) {
                return answer;
            }
            assert!(Instant::now() < deadline, "{what} did not come; GET {path} says {answer:#}");
            pause();
        }
    }

    /// A command, whatever is answered: status and body.
    pub fn try_to(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, _, answer) = exchange(self.web, "POST", path, &self.cookie, body.to_string().as_bytes());
        (status, serde_json::from_slice(&answer).unwrap_or_default())
    }

    /// A command that is taken; gives its answer.
    pub fn post(&self, path: &str, body: &Value) -> Value {
        let (status, _, body) = exchange(self.web, "POST", path, &self.cookie, body.to_string().as_bytes());
        let text = String::from_utf8_lossy(&body);
        assert_eq!(status, 200, "POST {path}: {text}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("POST {path}: {error} in {text:?}"))
    }
}

/// One request and its answer: status, head, body. HTTP/1.0, so that nothing comes in chunks.
fn exchange(web: SocketAddr, method: &str, path: &str, cookie: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
    let cookie = if cookie.is_empty() { String::new() } else { format!("Cookie: {cookie}\r\n") };
    let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: {web}\r\nSec-Fetch-Site: same-origin\r\nX-Anmin: page\r\n{cookie}{kind}\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    let ask = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(web)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.write_all(&[head.as_bytes(), body].concat())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    };
    let mut answer = ask().unwrap_or_else(|error| panic!("{method} {path}: {error}"));
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("{method} {path}: not an answer: {:?}", String::from_utf8_lossy(&answer)));
    let body = answer.split_off(end + 4);
    let head = String::from_utf8_lossy(&answer).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("{method} {path}: no status in {head:?}")), head, body)
}
