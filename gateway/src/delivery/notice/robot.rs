//! The robots of group chats: WeCom, DingTalk, Feishu.
//!
//! A robot answers 200 whatever it thinks of a message: `errcode`, with Feishu `code`, says whether it took it. The address that a
//! group gives out for its robot holds the key, so it stands in a file and in no log.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anmin_rules::rule::Level;
use anmin_sensors::document::Reader;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ring::hmac;
use serde_json::{Value, json};

use super::super::http::{Answer, Http, Target};
use super::super::{DeliveryError, Receipt, Secret, excerpt, read_file};
use super::words::Said;
use crate::clock::Clock;
use crate::credentials::ClientTls;
use crate::outgoing::Outgoing;

const LIMIT: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Robot {
    WeCom,
    DingTalk,
    Feishu,
}

impl Robot {
    pub(super) const CHOICES: [(&'static str, Self); 3] =
        [("wecom", Self::WeCom), ("dingtalk", Self::DingTalk), ("feishu", Self::Feishu)];

    /// Messages a minute, as the makers say.
    pub(super) const fn per_minute(self) -> usize {
        match self {
            Self::WeCom | Self::DingTalk => 20,
            Self::Feishu => 100,
        }
    }

    /// Bytes of text in one message: 2,048 with WeCom; the others' 20,000 are more than a person reads.
    pub(super) const fn most_bytes(self) -> usize {
        match self {
            Self::WeCom => 2_048,
            Self::DingTalk | Self::Feishu => 4_096,
        }
    }

    pub(super) fn body(self, text: &str, everybody: bool) -> Value {
        match self {
            Self::WeCom => {
                let mentioned: &[&str] = if everybody { &["@all"] } else { &[] };
                json!({ "msgtype": "text", "text": { "content": text, "mentioned_list": mentioned } })
            }
            Self::DingTalk => {
                json!({ "msgtype": "text", "text": { "content": text }, "at": { "isAtAll": everybody } })
            }
            Self::Feishu => {
                let text = if everybody { format!("<at user_id=\"all\"></at> {text}") } else { text.to_owned() };
                json!({ "msg_type": "text", "content": { "text": text } })
            }
        }
    }

    /// The code by which it says that it was spoken to too often.
    const fn too_often(self) -> i64 {
        match self {
            Self::WeCom => 45_009,
            Self::DingTalk => 130_101,
            Self::Feishu => 11_232,
        }
    }
}

/// The words of a `[[notice]]` with `robot`.
#[derive(Clone, Debug)]
pub struct Settings {
    pub(super) robot: Robot,
    address_file: PathBuf,
    tls: ClientTls,
    allow_http: bool,
    secret_file: Option<PathBuf>,
    everybody_from: Option<Level>,
    outgoing: Outgoing,
}

impl Settings {
    pub(super) fn read(r: &Reader<'_>, base: &Path) -> Option<Self> {
        let robot = r.choice("robot", &Robot::CHOICES);
        let allow_http = r.or("allow_http", false);
        let tls = ClientTls::read(r, base);
        let address_file = read_file(r, "address_file", base, |path| address(path, tls.clone(), allow_http));
        if !r.has("address_file") {
            r.required::<String>("address_file");
        }
        let secret_file = read_file(r, "secret_file", base, Secret::read);
        if secret_file.is_some() && robot == Some(Robot::WeCom) {
            r.fault("secret_file", "`secret_file` is given, but the robots of WeCom sign nothing", None);
        }
        let everybody = [
            ("red", Some(Level::Red)),
            ("orange", Some(Level::Orange)),
            ("yellow", Some(Level::Yellow)),
            ("blue", Some(Level::Blue)),
            ("never", None),
        ];
        let everybody_from =
            r.choice("everybody_from", &everybody).or((!r.has("everybody_from")).then_some(Some(Level::Red)));
        Some(Self {
            robot: robot?,
            address_file: address_file?,
            tls,
            allow_http,
            secret_file,
            everybody_from: everybody_from?,
            outgoing: Outgoing::default(),
        })
    }

    pub(super) fn heed(&mut self, outgoing: &Outgoing, r: &Reader<'_>) {
        let target = address(&self.address_file, self.tls.clone(), self.allow_http);
        if target.is_ok_and(|target| outgoing.may_dial(target.host()).is_err()) {
            let hint = "add its host to `allow` of [outgoing] if anmin is to speak with it".to_owned();
            r.fault("address_file", "`address_file` leads to a host that `[outgoing] allow` does not list", Some(hint));
        }
        self.outgoing = outgoing.clone();
    }
}

/// The robot's address, which no message shows.
fn address(path: &Path, tls: ClientTls, allow_http: bool) -> Result<Target, String> {
    let secret = Secret::read(path)?;
    Target::new(secret.reveal().trim(), tls, allow_http).map_err(|_| {
        format!("{} holds no address of a robot: expected https://…, or http:// to a private address", path.display())
    })
}

/// One group's robot.
pub(super) struct Group {
    http: Http,
    robot: Robot,
    key: Option<Secret>,
    everybody_from: Option<Level>,
    clock: Clock,
}

impl Group {
    pub(super) fn new(settings: &Settings, clock: &Clock) -> Result<Self, String> {
        let target =
            address(&settings.address_file, settings.tls.clone(), settings.allow_http)?.heeding(&settings.outgoing);
        Ok(Self {
            http: Http::new(&target)?,
            robot: settings.robot,
            key: settings.secret_file.as_deref().map(Secret::read).transpose()?,
            everybody_from: settings.everybody_from,
            clock: clock.clone(),
        })
    }

    pub(super) async fn say(&self, said: Said) -> Result<Receipt, DeliveryError> {
        let Said { text, links, level } = said;
        let everybody = level.zip(self.everybody_from).is_some_and(|(level, from)| level >= from);
        let mut body = self.robot.body(&format!("{text}{links}"), everybody);
        let mut query = String::new();
        if let Some(key) = &self.key {
            let millis = self.clock.now().wall.millis();
            match self.robot {
                Robot::WeCom => {}
                Robot::DingTalk => {
                    let sign = form_urlencoded(&sign_for_dingtalk(key, millis));
                    query = format!("timestamp={millis}&sign={sign}");
                }
                Robot::Feishu => {
                    let seconds = millis.div_euclid(1_000);
                    body["timestamp"] = json!(seconds.to_string());
                    body["sign"] = json!(sign_for_feishu(key, seconds));
                }
            }
        }
        let headers = [("content-type", "application/json; charset=utf-8")];
        let body = Bytes::from(body.to_string());
        let taken = judge(self.robot, self.http.exchange(&query, &headers, body, LIMIT).await);
        taken.map(|receipt| receipt.with_text(text))
    }
}

/// Base64 of HMAC-SHA256 under the secret over the time and the secret.
pub(super) fn sign_for_dingtalk(secret: &Secret, millis: i64) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes());
    STANDARD.encode(hmac::sign(&key, format!("{millis}\n{}", secret.reveal()).as_bytes()))
}

/// Base64 of HMAC-SHA256 under the time and the secret over nothing.
pub(super) fn sign_for_feishu(secret: &Secret, seconds: i64) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, format!("{seconds}\n{}", secret.reveal()).as_bytes());
    STANDARD.encode(hmac::sign(&key, b""))
}

/// The three signs of base64 that mean something else in a query.
pub(super) fn form_urlencoded(base64: &str) -> String {
    base64.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D")
}

/// What an answer means. Whatever a robot dislikes is tried again: a wrong key, keyword or clock is mended by a person, and
/// the notice is not at fault; only a message that is no message to HTTP never will be.
pub(super) fn judge(robot: Robot, answer: Result<Answer, String>) -> Result<Receipt, DeliveryError> {
    let answer = answer.map_err(DeliveryError::Retry)?;
    let status = answer.status;
    let said = excerpt(&format!("HTTP {status}: {}", String::from_utf8_lossy(&answer.body).trim()));
    let later = |wait: Option<Duration>, reason: String| match wait {
        Some(wait) => DeliveryError::RetryAfter { wait, reason },
        None => DeliveryError::Retry(reason),
    };
    match status {
        200..=299 => {}
        400 | 413 => return Err(DeliveryError::Never(said)),
        _ => return Err(later(answer.retry_after, said)),
    }
    let json: Value = serde_json::from_slice(&answer.body)
        .map_err(|_| DeliveryError::Retry(format!("not the answer of a robot: {said}")))?;
    let code = ["errcode", "code"].iter().find_map(|name| json.get(name)?.as_i64());
    match code {
        Some(0) => Ok(Receipt::of(format!("HTTP {status}, accepted"))),
        Some(code) if code == robot.too_often() => {
            Err(later(answer.retry_after.or(Some(Duration::from_secs(60))), said))
        }
        Some(_) => Err(DeliveryError::Retry(said)),
        None => Err(DeliveryError::Retry(format!("not the answer of a robot: {said}"))),
    }
}
