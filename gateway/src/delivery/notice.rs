//! Notices to people: to a group of WeCom (企业微信), DingTalk (钉钉) or Feishu (飞书), by its robot.
//!
//! What a notice says is in [`words`]; when it leaves, in [`super::courier`]: the robots take so many messages a minute, so
//! what comes too fast goes together in one, and nothing grave waits behind what is less. The address that a group gives out
//! for its robot holds the key, so it stands in a file and in no log.
//!
//! ```toml
//! [[notice]]
//! id           = "duty-group"
//! robot        = "wecom"                  # wecom | dingtalk | feishu
//! address_file = "secrets/duty-group"     # what the group shows as the robot's webhook address
//! stations     = []                       # a station's own group: its calls alone, with the links to answer them
//! ```
//!
//! A robot answers 200 whatever it thinks of a message: `errcode`, with Feishu `code`, says whether it took it. That is
//! "accepted", not "read": nobody is told here who has seen it.

mod words;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anmin_rules::duty::Zone;
use anmin_rules::order::{Channel, ChannelForm, Order};
use anmin_rules::rule::Level;
use anmin_sensors::document::Reader;
use anmin_sensors::time::Wall;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ring::hmac;
use serde_json::{Value, json};

use super::courier::Pace;
use super::hours::{Hours, Quiet};
use super::http::{Answer, Http, Target};
use super::{Carrier, DeliveryError, Receipt, Secret, Site, excerpt, read_channel, read_file, read_spares};
use crate::clock::Clock;
use crate::config;
use crate::credentials::ClientTls;
use crate::crew_link::Links;
use crate::outgoing::Outgoing;
use words::{Language, Said, Words};

const LIMIT: Duration = Duration::from_secs(10);

/// The least that a group must take in a minute, so that some is left for what is grave.
const SLOWEST: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Robot {
    WeCom,
    DingTalk,
    Feishu,
}

impl Robot {
    const CHOICES: [(&'static str, Self); 3] =
        [("wecom", Self::WeCom), ("dingtalk", Self::DingTalk), ("feishu", Self::Feishu)];

    /// Messages a minute, as the makers say.
    const fn per_minute(self) -> usize {
        match self {
            Self::WeCom | Self::DingTalk => 20,
            Self::Feishu => 100,
        }
    }

    /// Bytes of text in one message: 2,048 with WeCom; the others' 20,000 are more than a person reads.
    const fn most_bytes(self) -> usize {
        match self {
            Self::WeCom => 2_048,
            Self::DingTalk | Self::Feishu => 4_096,
        }
    }

    fn body(self, text: &str, everybody: bool) -> Value {
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

/// `[[notice]]`.
#[derive(Clone, Debug)]
pub struct Settings {
    pub channel: Channel,
    robot: Robot,
    address_file: PathBuf,
    tls: ClientTls,
    allow_http: bool,
    secret_file: Option<PathBuf>,
    languages: Vec<Language>,
    per_minute: usize,
    everybody_from: Option<Level>,
    page: Option<String>,
    hours: Hours,
    deliver_within: Duration,
    outgoing: Outgoing,
}

impl Settings {
    pub fn read(r: &Reader<'_>, base: &Path) -> Option<Self> {
        let channel = read_channel(r, ChannelForm::Events, Level::Yellow, true);
        let stations: Vec<String> = r.or("stations", Vec::new());
        let (then, deliver_within) = read_spares(r);
        let hours = Hours::read(r);
        let robot = r.choice("robot", &Robot::CHOICES);
        if !r.has("robot") {
            r.required::<String>("robot");
        }
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
        let mut languages: Vec<Language> = Vec::new();
        for word in r.or("languages", vec!["zh-CN".to_owned()]) {
            match Language::CHOICES.iter().find(|(name, _)| *name == word) {
                Some((_, language)) if !languages.contains(language) => languages.push(*language),
                Some(_) => r.fault("languages", format!("`languages` names {word:?} twice"), None),
                None => {
                    r.fault("languages", format!("`languages` has {word:?}, expected \"zh-CN\" or \"en-US\""), None)
                }
            }
        }
        if languages.is_empty() {
            r.fault("languages", "`languages` names none", Some("languages = [\"zh-CN\"]".to_owned()));
        }
        let per_minute = r.optional::<usize>("per_minute").or(robot.map(Robot::per_minute));
        if let Some(few) = per_minute.filter(|per_minute| !(SLOWEST..=1_000).contains(per_minute)) {
            r.fault("per_minute", format!("`per_minute` is {few}, expected {SLOWEST} to 1000"), None);
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
        let page: Option<String> = r.optional("page");
        if let Some(page) = page.as_deref().filter(|page| !page.starts_with("https://") && !page.starts_with("http://"))
        {
            r.fault("page", format!("`page` is {page:?}, expected http:// or https://"), None);
        }
        r.finish();
        let stations = stations.into_iter().map(Into::into).collect();
        Some(Self {
            channel: Channel { stations, then, ..channel? },
            robot: robot?,
            address_file: address_file?,
            tls,
            allow_http,
            secret_file,
            languages,
            per_minute: per_minute?,
            everybody_from: everybody_from?,
            page,
            hours,
            deliver_within,
            outgoing: Outgoing::default(),
        })
    }

    pub fn heed(&mut self, outgoing: &Outgoing, r: &Reader<'_>) {
        let target = address(&self.address_file, self.tls.clone(), self.allow_http);
        if target.is_ok_and(|target| outgoing.may_dial(target.host()).is_err()) {
            let hint = "add its host to `allow` of [outgoing] if anmin is to speak with it".to_owned();
            r.fault("address_file", "`address_file` leads to a host that `[outgoing] allow` does not list", Some(hint));
        }
        self.outgoing = outgoing.clone();
    }
}

impl Settings {
    fn words(&self, site: &Site, links: Option<&Links>) -> Words {
        Words {
            site: site.clone(),
            languages: self.languages.clone(),
            page: self.page.clone(),
            links: links.cloned(),
            most_bytes: self.robot.most_bytes(),
        }
    }

    /// Writes what an order says when it leaves by itself, without the links by which a crew answers: they open doors. `None` of
    /// what is not told.
    pub fn teller(&self, site: &Site) -> impl Fn(&Order) -> Option<String> + use<> {
        let words = self.words(site, None);
        move |order| {
            (!words::is_bookkeeping(order)).then(|| words.message(&[order]).ok()).flatten().map(|said| said.text)
        }
    }
}

/// The robot's address, which no message shows.
fn address(path: &Path, tls: ClientTls, allow_http: bool) -> Result<Target, String> {
    let secret = Secret::read(path)?;
    Target::new(secret.reveal().trim(), tls, allow_http).map_err(|_| {
        format!("{} holds no address of a robot: expected https://…, or http:// to a private address", path.display())
    })
}

/// The carrier of one `[[notice]]`.
pub struct Notice {
    http: Http,
    robot: Robot,
    key: Option<Secret>,
    words: Words,
    per_minute: usize,
    everybody_from: Option<Level>,
    hours: Hours,
    zone: Zone,
    /// Where a spare way out waits for what this one does not take.
    deliver_within: Option<Duration>,
    clock: Clock,
}

/// Reads the address and the secret; connects only when there is something to say.
pub fn carrier(settings: &Settings, site: &Site, links: Option<&Links>, clock: &Clock) -> Result<Notice, String> {
    let Settings { robot, per_minute, everybody_from, .. } = settings;
    let target =
        address(&settings.address_file, settings.tls.clone(), settings.allow_http)?.heeding(&settings.outgoing);
    Ok(Notice {
        http: Http::new(&target)?,
        robot: *robot,
        key: settings.secret_file.as_deref().map(Secret::read).transpose()?,
        // Only a station's own group is given its links.
        words: settings.words(site, links.filter(|_| !settings.channel.stations.is_empty())),
        per_minute: *per_minute,
        everybody_from: *everybody_from,
        hours: settings.hours.clone(),
        zone: Zone::new(config::ahead(&site.time_zone)),
        deliver_within: (!settings.channel.then.is_empty()).then_some(settings.deliver_within),
        clock: clock.clone(),
    })
}

impl Carrier for Notice {
    async fn carry(&self, order: &Order) -> Result<Receipt, DeliveryError> {
        self.say(&[order]).await
    }

    fn pace(&self) -> Option<Pace> {
        Some(Pace { per_minute: self.per_minute })
    }

    fn quiet_at(&self, at: Wall) -> Option<Quiet> {
        self.hours.quiet_at(&self.zone, at)
    }

    fn deliver_within(&self) -> Option<Duration> {
        self.deliver_within
    }

    async fn carry_all(&self, order: &Order, with: &[Order]) -> Result<Receipt, DeliveryError> {
        let orders: Vec<&Order> = std::iter::once(order).chain(with).collect();
        self.say(&orders).await
    }
}

impl Notice {
    async fn say(&self, orders: &[&Order]) -> Result<Receipt, DeliveryError> {
        // To which incident an alarm belongs is for screens.
        let orders: Vec<&Order> = orders.iter().filter(|order| !words::is_bookkeeping(order)).copied().collect();
        if orders.is_empty() {
            return Ok(Receipt::of("nothing that people need be told"));
        }
        let Said { text, links, level } = self.words.message(&orders)?;
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
fn sign_for_dingtalk(secret: &Secret, millis: i64) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes());
    STANDARD.encode(hmac::sign(&key, format!("{millis}\n{}", secret.reveal()).as_bytes()))
}

/// Base64 of HMAC-SHA256 under the time and the secret over nothing.
fn sign_for_feishu(secret: &Secret, seconds: i64) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, format!("{seconds}\n{}", secret.reveal()).as_bytes());
    STANDARD.encode(hmac::sign(&key, b""))
}

/// The three signs of base64 that mean something else in a query.
fn form_urlencoded(base64: &str) -> String {
    base64.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D")
}

/// What an answer means. Whatever a robot dislikes is tried again: a wrong key, keyword or clock is mended by a person, and
/// the notice is not at fault; only a message that is no message to HTTP never will be.
fn judge(robot: Robot, answer: Result<Answer, String>) -> Result<Receipt, DeliveryError> {
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

#[cfg(test)]
mod tests;
