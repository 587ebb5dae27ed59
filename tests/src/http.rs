//! The smallest HTTP client: one request, one answer, connection closed. For loopback only.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Status and body.
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.body))
    }
}

pub fn get(address: SocketAddr, path: &str) -> Answer {
    request(address, "GET", path, "").unwrap_or_else(|error| panic!("GET {path}: {error}"))
}

pub fn post(address: SocketAddr, path: &str, body: &Value) -> Answer {
    request(address, "POST", path, &body.to_string()).unwrap_or_else(|error| panic!("POST {path}: {error}"))
}

/// A form as a browser sends it.
pub fn form(address: SocketAddr, path: &str, body: &str) -> Answer {
    let kind = "application/x-www-form-urlencoded";
    send(address, "POST", path, kind, body).unwrap_or_else(|error| panic!("POST {path}: {error}"))
}

pub fn request(address: SocketAddr, method: &str, path: &str, body: &str) -> std::io::Result<Answer> {
    send(address, method, path, "application/json", body)
}

/// HTTP/1.0, so that no peer answers in chunks.
fn send(address: SocketAddr, method: &str, path: &str, kind: &str, body: &str) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let kind = if body.is_empty() { String::new() } else { format!("Content-Type: {kind}\r\n") };
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\n{kind}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let broken = || std::io::Error::other(format!("not an answer: {answer:?}"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(broken)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(broken)?;
    Ok(Answer { status, body: body.to_owned() })
}
