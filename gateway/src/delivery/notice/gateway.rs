//! Short messages and calls by telephone, through whatever HTTP gateway a site has a contract with.
//!
//! What is sent is a template: an address, headers and a body of JSON or a form, in which `{{name}}` stands for what differs. Each value is
//! escaped for where it stands: a body is read as JSON or as a form when the configuration is, and filled in value by value, so that
//! no word of a device becomes a field. A value that is JSON itself, as some gateways want the parameters of their templates, is filled
//! in as JSON, too; an array with one element that holds `{{number}}` has one for each number.
//!
//! Telephone numbers are people's own: they stand in a file, and in no log, receipt or message of a fault; a recipient is its place in
//! the file. Each is told once (see [`super::told`]). How it goes on with a message the gateway may report, see
//! [`crate::delivery_report`].

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anmin_rules::order::Order;
use anmin_sensors::document::Reader;
use bytes::Bytes;
use futures_util::future::join_all;
use hyper::Method;
use ring::digest;
use serde_json::Value;
use url::form_urlencoded;

use super::super::courier::PARALLEL;
use super::super::http::{Answer, Http, Target};
use super::super::{DeliveryError, Receipt, Secret, excerpt, read_file};
use super::told::{Share, Told};
use super::words::{Fields, Language, Manner, Words};
use crate::clock::Clock;
use crate::credentials::ClientTls;
use crate::delivery_report::{self, plain};
use crate::outgoing::Outgoing;

/// Requests a minute for each message, where nothing else is said.
const MESSAGES_PER_MINUTE: usize = 20;
const LIMIT: Duration = Duration::from_secs(8);
const MOST_NUMBERS: usize = 100;
/// So often a number is tried that the gateway refuses while it takes others.
const REFUSALS: u32 = 3;
/// Units in a message of one part, and in each part of a longer one: of UCS-2, and of the alphabet of 7 bits that does for plain
/// English (3GPP TS 23.038; TS 23.040 section 9.2.3.24.1).
const UCS2: (usize, usize) = (70, 67);
const SEVEN_BITS: (usize, usize) = (160, 153);
/// Three parts in Chinese; twice as much in English.
const SMS_CHARS: usize = 3 * UCS2.1;
/// About a minute of speech in Chinese.
const VOICE_CHARS: usize = 240;

/// What can stand in a template.
const NAMES: [&str; 9] = ["id", "level", "number", "numbers", "place", "secret", "text", "time", "title"];
/// What may stand in a header: nothing that people or devices have written.
const IN_HEADERS: [&str; 3] = ["id", "secret", "time"];

#[derive(Clone, Debug, PartialEq)]
enum Body {
    Nothing,
    Json(Value),
    Form(Vec<(String, String)>),
}

/// What an answer must say beyond its status.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Success {
    /// JSON pointer (RFC 6901).
    pointer: String,
    value: String,
}

/// The words of a `[[notice]]` with `gateway`.
#[derive(Clone, Debug)]
pub struct Settings {
    pub(super) manner: Manner,
    most_chars: Option<usize>,
    /// Requests for one message.
    pub(super) requests: usize,
    target: Target,
    address: String,
    method: Method,
    headers: Vec<(String, String)>,
    body: Body,
    secret_file: Option<PathBuf>,
    numbers_file: PathBuf,
    together: usize,
    success: Option<Success>,
    /// `[notice.report]`.
    pub(super) report: Option<delivery_report::Settings>,
}

impl Settings {
    pub(super) fn read(r: &Reader<'_>, base: &Path) -> Option<Self> {
        let address: Option<String> = r.required("gateway");
        let manner = r.choice("speaks", &[("sms", Manner::Sms), ("voice", Manner::Voice)]);
        if !r.has("speaks") {
            r.required::<String>("speaks");
        }
        let methods = [("POST", Method::POST), ("PUT", Method::PUT), ("GET", Method::GET)];
        let names = methods.each_ref().map(|(name, _)| (*name, *name));
        let method = r.choice("method", &names).or((!r.has("method")).then_some("POST"));
        let method = methods.into_iter().find(|(name, _)| Some(*name) == method).map(|(_, method)| method);
        let tls = ClientTls::read(r, base);
        let allow_http = r.or("allow_http", false);
        let together = r.or("together", 1_usize);
        if !(1..=MOST_NUMBERS).contains(&together) {
            r.fault("together", format!("`together` is {together}, expected 1 to {MOST_NUMBERS}"), None);
        }
        let secret_file = read_file(r, "secret_file", base, Secret::read);
        let (mut shown, mut all_known): (Vec<&'static str>, bool) = (Vec::new(), true);
        let mut used = |key: &'static str, text: &str, known: &[&'static str]| match names_in(text, known) {
            Ok(names) => shown.extend(names),
            Err(why) => {
                all_known = false;
                r.fault(key, format!("`{key}`: {why}"), None);
            }
        };
        let headers: Vec<(String, String)> = r
            .or("headers", Vec::<String>::new())
            .iter()
            .filter_map(|line| {
                let header = header(line);
                match &header {
                    Some((_, value)) => used("headers", value, &IN_HEADERS),
                    None => r.fault("headers", "`headers` has a line that is no `Name: value`", None),
                }
                header
            })
            .collect();
        let form = r.choice("body_type", &[("json", false), ("form", true)]).or((!r.has("body_type")).then_some(false));
        let body = r.optional::<String>("body");
        if let Some(body) = &body {
            used("body", body, &NAMES);
        }
        if let Some(address) = &address {
            used("gateway", address, &NAMES);
        }
        let read = match (&body, method.as_ref() == Some(&Method::GET)) {
            (Some(_), true) => Err("`body` is given, but what is asked by GET has none".to_owned()),
            (None, false) => Err("`body` is missing: what the gateway is to be sent".to_owned()),
            (None, true) => Ok(Body::Nothing),
            (Some(text), false) if form == Some(true) => read_form(text).map(Body::Form),
            (Some(text), false) => serde_json::from_str(text)
                .map(Body::Json)
                .map_err(|error| format!("`body` is not JSON: {error}; a place in it stands within quotes")),
        };
        let read = read.map_err(|why| r.fault("body", why, None)).ok();
        let says = |names: &[&str]| shown.iter().any(|name| names.contains(name));
        if address.is_some() && read.is_some() && all_known {
            if !says(&["text", "title"]) {
                r.fault("body", "neither `{{text}}` nor `{{title}}` is sent: nobody would be told anything", None);
            }
            if !says(&["number", "numbers"]) {
                r.fault("body", "neither `{{number}}` nor `{{numbers}}` is sent: nobody would be reached", None);
            }
        }
        if says(&["secret"]) != r.has("secret_file") {
            let what = if r.has("secret_file") {
                "`secret_file` is given, and `{{secret}}` stands nowhere"
            } else {
                "`{{secret}}` is sent, but `secret_file` is missing"
            };
            r.fault("secret_file", what, None);
        }
        let numbers = read_file(r, "numbers_file", base, |path| numbers(path).map(|_| ()));
        if !r.has("numbers_file") {
            r.required::<String>("numbers_file");
        }
        let most_chars = r.optional::<usize>("most_chars");
        if let Some(few) = most_chars.filter(|most| !(UCS2.0..=2_000).contains(most)) {
            r.fault("most_chars", format!("`most_chars` is {few}, expected {} to 2000", UCS2.0), None);
        }
        let success = r.optional::<String>("success").and_then(|text| {
            let read = text.split_once('=').map(|(pointer, value)| (pointer.trim(), value.trim()));
            let sound = read.filter(|(pointer, value)| pointer.starts_with('/') && !value.is_empty());
            if sound.is_none() {
                let hint = "such as \"/code = 0\", a place in its JSON and what stands there".to_owned();
                r.fault("success", format!("`success` is {text:?}, expected `/pointer = value`"), Some(hint));
            }
            sound.map(|(pointer, value)| Success { pointer: pointer.to_owned(), value: value.to_owned() })
        });
        let report = r.table("report").and_then(|r| delivery_report::Settings::read(&r, base));
        if report.as_ref().is_some_and(|report| !report.names_number()) && together > 1 {
            let hint = Some("give `number` in [notice.report], or leave `together` out".to_owned());
            r.fault("together", "of several numbers in one request a report must say whose it is", hint);
        }
        if report.as_ref().is_some_and(|report| report.named.is_none()) && !says(&["id"]) {
            let hint =
                Some("send `{{id}}`, or say by `named` where the gateway's own name is in its answer".to_owned());
            r.fault("report", "a report could name no message", hint);
        }
        let address = address?;
        // What stands in its places changes nothing of where it leads.
        let host = address.split(['?', '#']).next().unwrap_or_default();
        let authority = host.split_once("://").map_or(host, |(_, rest)| rest).split('/').next().unwrap_or_default();
        if authority.contains("{{") {
            r.fault("gateway", "`gateway` has a place in the name of its host", None);
            return None;
        }
        let target = match Target::new(&fill(&address, &|_| "0".to_owned()), tls, allow_http) {
            Ok(target) => target,
            Err((message, hint)) => {
                // It may hold what is a secret, so it is not repeated.
                let why = message.rsplit_once(", ").map_or("which is no address", |(_, why)| why).to_owned();
                r.fault("gateway", format!("`gateway` leads nowhere: {why}"), hint);
                return None;
            }
        };
        let numbers_file = numbers?;
        let numbers = self::numbers(&numbers_file).unwrap_or_default();
        let count = numbers.len().max(1);
        Some(Self {
            manner: manner?,
            most_chars,
            requests: count.div_ceil(together.max(1)),
            target,
            address,
            method: method?,
            headers,
            body: read?,
            secret_file,
            numbers_file,
            together,
            success,
            report: report.map(|report| report.with_numbers(&numbers)),
        })
    }

    pub(super) fn heed(&mut self, outgoing: &Outgoing, r: &Reader<'_>) {
        self.target.heed(outgoing, r, "gateway");
    }

    /// The longest message, as [`Manner::measure`] counts.
    pub(super) fn most(&self, languages: impl Iterator<Item = Language>) -> usize {
        let of_one = if self.manner == Manner::Voice { VOICE_CHARS } else { SMS_CHARS };
        self.most_chars.unwrap_or_else(|| self.manner.room(of_one, languages))
    }

    /// Requests a minute, where nothing else is said.
    pub(super) const fn per_minute(&self) -> usize {
        self.requests * MESSAGES_PER_MINUTE
    }
}

/// `Name: value` of a header.
fn header(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    let name = hyper::header::HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
    let value = value.trim();
    hyper::header::HeaderValue::from_str(value).ok()?;
    Some((name.as_str().to_owned(), value.to_owned()))
}

/// A form as it is written in an address, but with its words as they are.
fn read_form(text: &str) -> Result<Vec<(String, String)>, String> {
    let pair = |part: &str| {
        let (name, value) = part.split_once('=').filter(|(name, _)| !name.trim().is_empty())?;
        Some((name.trim().to_owned(), value.trim().to_owned()))
    };
    text.trim()
        .split('&')
        .map(|part| pair(part).ok_or_else(|| format!("`body` has {part:?}, expected name=value")))
        .collect()
}

/// The places in a text; an error where one has no such name.
fn names_in(text: &str, known: &[&'static str]) -> Result<Vec<&'static str>, String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").ok_or("`{{` is not closed by `}}`")?;
        let name = name.trim();
        let name = known
            .iter()
            .find(|known| **known == name)
            .ok_or_else(|| format!("there is no `{{{{{name}}}}}` here; known are {}", known.join(", ")))?;
        found.push(*name);
        rest = after;
    }
    Ok(found)
}

/// With each place filled; what is filled in is not read again.
fn fill(text: &str, value: &dyn Fn(&str) -> String) -> String {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((name, after)) = after.split_once("}}") else { break };
        filled.push_str(before);
        filled.push_str(&value(name.trim()));
        rest = after;
    }
    filled + rest
}

/// The same for a value that may be JSON itself.
fn fill_value(text: &str, values: &Values<'_>) -> String {
    match serde_json::from_str::<Value>(text) {
        Ok(json @ (Value::Object(_) | Value::Array(_))) => fill_json(&json, values).to_string(),
        _ => fill(text, &|name| values.get(name)),
    }
}

fn fill_json(json: &Value, values: &Values<'_>) -> Value {
    match json {
        Value::String(text) => Value::String(fill_value(text, values)),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(key, value)| (key.clone(), fill_json(value, values))).collect())
        }
        Value::Array(items) => match items.as_slice() {
            [each] if holds_number(each) => {
                let of = |number| fill_json(each, &Values { numbers: std::slice::from_ref(number), ..*values });
                Value::Array(values.numbers.iter().map(of).collect())
            }
            items => Value::Array(items.iter().map(|item| fill_json(item, values)).collect()),
        },
        other => other.clone(),
    }
}

fn holds_number(json: &Value) -> bool {
    names_in(&json.to_string(), &NAMES).is_ok_and(|names| names.contains(&"number"))
}

/// What is filled in for one request.
#[derive(Clone, Copy)]
struct Values<'a> {
    text: &'a str,
    fields: &'a Fields,
    id: &'a str,
    seconds: i64,
    secret: &'a str,
    numbers: &'a [String],
}

impl Values<'_> {
    fn get(&self, name: &str) -> String {
        match name {
            "text" => self.text.to_owned(),
            "title" => self.fields.title.clone(),
            "place" => self.fields.place.clone(),
            "level" => self.fields.level.clone(),
            "id" => self.id.to_owned(),
            "time" => self.seconds.to_string(),
            "secret" => self.secret.to_owned(),
            // One of several stands where it is repeated.
            "number" | "numbers" => self.numbers.join(","),
            _ => String::new(),
        }
    }
}

/// Telephone numbers, one a line; blank lines and what follows `#` are remarks. No error shows one.
fn numbers(path: &Path) -> Result<Vec<String>, String> {
    let name = path.display();
    let text = fs::read_to_string(path).map_err(|error| format!("{name} cannot be read: {error}"))?;
    let mut found: Vec<String> = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let number: String = line.chars().filter(|c| !c.is_whitespace() && !matches!(c, '-' | '(' | ')')).collect();
        if number.is_empty() {
            continue;
        }
        let digits = number.strip_prefix('+').unwrap_or(&number);
        // E.164: 15 digits at most; short ones are of the site's own exchange.
        if !(3..=15).contains(&digits.len()) || !digits.chars().all(|c| c.is_ascii_digit()) {
            return Err(format!("{name}:{}: not a telephone number", n + 1));
        }
        if found.contains(&number) {
            return Err(format!("{name}:{}: a number that was there already", n + 1));
        }
        found.push(number);
    }
    match found.len() {
        1..=MOST_NUMBERS => Ok(found),
        0 => Err(format!("{name} holds no number")),
        many => Err(format!("{name} holds {many} numbers, expected at most {MOST_NUMBERS}")),
    }
}

/// Those who are reached by telephone.
pub(super) struct Telephones {
    http: Http,
    settings: Settings,
    secret: Option<Secret>,
    numbers: Vec<String>,
    pub(super) told: Told,
    clock: Clock,
}

impl Telephones {
    pub(super) fn new(settings: &Settings, clock: &Clock) -> Result<Self, String> {
        let numbers = numbers(&settings.numbers_file)?;
        Ok(Self {
            http: Http::new(&settings.target)?,
            secret: settings.secret_file.as_deref().map(Secret::read).transpose()?,
            told: Told::new(numbers.len(), REFUSALS),
            numbers,
            settings: settings.clone(),
            clock: clock.clone(),
        })
    }

    /// Tells whoever has not been told, once.
    pub(super) async fn send(&self, words: &Words, orders: &[&Order]) -> Result<Receipt, DeliveryError> {
        let text = words.as_sent(orders)?;
        let mut requests = Vec::new();
        for Share { orders, recipients } in self.told.shares(orders) {
            let (text, fields) = (words.message(&orders)?.text, words.fields(&orders)?);
            for recipients in recipients.chunks(self.settings.together) {
                requests.push(self.request(&text, &fields, &orders, recipients)?);
            }
        }
        let many = requests.len();
        let mut said = Vec::new();
        // Several at once, so that a number that costs the gateway its time holds up no other.
        for now in requests.chunks(PARALLEL) {
            said.extend(join_all(now.iter().map(|request| self.attempt(request))).await);
            // One that wants to be left alone is asked nothing more.
            if said.iter().any(|said| matches!(said, Said::Later { leave: true, .. })) {
                break;
            }
        }
        let (mut detail, mut later) = (String::new(), None);
        for said in said {
            match said {
                Said::Taken { how, .. } => detail = how,
                Said::Refused(_) => {}
                Said::Later { wait, why, .. } => {
                    let reason = self.without_people(&why);
                    later = Some(match wait {
                        Some(wait) => DeliveryError::RetryAfter { wait, reason },
                        None => DeliveryError::Retry(reason),
                    });
                }
            }
        }
        if self.settings.manner == Manner::Sms {
            detail = format!("{detail}, {}", parts(&text));
        }
        if many > 1 {
            detail = format!("{detail}, {many} requests");
        }
        let receipt = self.told.verdict(orders, &detail, later)?;
        if receipt.detail.contains("not taken for") {
            tracing::warn!(order = %orders[0].id, "{}", receipt.detail);
        }
        Ok(receipt.with_text(text))
    }

    fn request<'o>(
        &self,
        text: &str,
        fields: &Fields,
        orders: &[&'o Order],
        recipients: &[usize],
    ) -> Result<Request<'o>, DeliveryError> {
        let numbers: Vec<String> = recipients.iter().map(|recipient| self.numbers[*recipient].clone()).collect();
        // The same whenever the same is sent to the same: a gateway that remembers ids sends once.
        let mut of_all = digest::Context::new(&digest::SHA256);
        for part in orders.iter().map(|order| order.id.as_str()).chain(numbers.iter().map(String::as_str)) {
            of_all.update(part.as_bytes());
            of_all.update(b"\n");
        }
        let id: String = of_all.finish().as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        let values = Values {
            text,
            fields,
            id: &id,
            seconds: self.clock.now().wall.millis().div_euclid(1_000),
            secret: self.secret.as_ref().map_or("", Secret::reveal),
            numbers: &numbers,
        };
        let url = fill(&self.settings.address, &|name| percent(&values.get(name)));
        let uri: hyper::Uri =
            url.parse().map_err(|_| DeliveryError::Never("the address takes no such words".to_owned()))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let (kind, body) = match &self.settings.body {
            Body::Nothing => (None, String::new()),
            Body::Json(json) => (Some("application/json; charset=utf-8"), fill_json(json, &values).to_string()),
            Body::Form(pairs) => {
                let mut form = form_urlencoded::Serializer::new(String::new());
                for (name, value) in pairs {
                    form.append_pair(name, &fill_value(value, &values));
                }
                (Some("application/x-www-form-urlencoded"), form.finish())
            }
        };
        let mut headers: Vec<(String, String)> = self
            .settings
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), fill(value, &|name| values.get(name))))
            .collect();
        if let Some(kind) = kind
            && headers.iter().all(|(name, _)| name != "content-type")
        {
            headers.push(("content-type".to_owned(), kind.to_owned()));
        }
        Ok(Request { id, orders: orders.to_vec(), recipients: recipients.to_vec(), path, headers, body: body.into() })
    }

    /// Asks once, and notes what becomes of each recipient.
    async fn attempt(&self, request: &Request<'_>) -> Said {
        let headers: Vec<(&str, &str)> =
            request.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let Settings { method, success, report, .. } = &self.settings;
        let answer = self.http.ask(method.clone(), &request.path, &headers, request.body.clone(), LIMIT).await;
        let named = report.as_ref().and_then(|report| report.named.as_deref());
        let said = judge(answer, success.as_ref(), named);
        for recipient in &request.recipients {
            match &said {
                Said::Taken { named, .. } => {
                    self.told.handle_taken(&request.orders, *recipient, named.as_ref().unwrap_or(&request.id));
                }
                Said::Refused(why) => {
                    let why = self.without_people(why);
                    self.told.handle_refused(&request.orders, *recipient, &request.id, &why);
                }
                Said::Later { .. } => {}
            }
        }
        said
    }

    /// A gateway repeats what it was sent; logs and screens do not.
    fn without_people(&self, said: &str) -> String {
        let mut text = said.to_owned();
        if let Some(secret) = &self.secret {
            text = text.replace(secret.reveal(), "(secret)");
        }
        for (n, number) in self.numbers.iter().enumerate() {
            text = text.replace(number.as_str(), &format!("(recipient {})", n + 1));
        }
        // In whatever form it has made of a number.
        let mut masked = String::new();
        let mut digits = String::new();
        for c in text.chars().chain(std::iter::once('\0')) {
            if c.is_ascii_digit() {
                digits.push(c);
                continue;
            }
            masked.push_str(if digits.len() < 7 { &digits } else { "(number)" });
            digits.clear();
            if c != '\0' {
                masked.push(c);
            }
        }
        masked
    }
}

struct Request<'o> {
    id: String,
    orders: Vec<&'o Order>,
    recipients: Vec<usize>,
    path: String,
    headers: Vec<(String, String)>,
    body: Bytes,
}

/// All but what RFC 3986 section 2.3 leaves as it is.
fn percent(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

/// How many parts a short message has, as networks count and bill it.
fn parts(text: &str) -> String {
    // The letters of ASCII that the alphabet of 7 bits has, and those that cost two places in it.
    let places = |c: char| match c {
        '[' | ']' | '{' | '}' | '\\' | '^' | '~' | '|' => Some(2),
        '`' => None,
        ' '..='~' | '\n' | '\r' => Some(1),
        _ => None,
    };
    let (units, (single, part)) = match text.chars().map(places).sum::<Option<usize>>() {
        Some(units) => (units, SEVEN_BITS),
        None => (Manner::Sms.measure(text), UCS2),
    };
    if units <= single { "1 part".to_owned() } else { format!("{} parts", units.div_ceil(part)) }
}

enum Said {
    Taken {
        how: String,
        /// The gateway's own name for the message.
        named: Option<String>,
    },
    /// This number, or this text, it will not have.
    Refused(String),
    /// `leave`: it is to be left alone.
    Later { wait: Option<Duration>, leave: bool, why: String },
}

/// What an answer means: as with every HTTP peer, and where `success` is given a 2xx must say so, too. One that breaks off says
/// neither.
fn judge(answer: Result<Answer, String>, success: Option<&Success>, named: Option<&str>) -> Said {
    let answer = match answer {
        Ok(answer) => answer,
        Err(why) => return Said::Later { wait: None, leave: false, why },
    };
    let status = answer.status;
    let said = excerpt(&format!("HTTP {status}: {}", answer.words()));
    match status {
        200..=299 => {}
        429 | 503 => return Said::Later { wait: answer.retry_after, leave: true, why: said },
        401 | 403 | 408 | 425 | 500.. => return Said::Later { wait: answer.retry_after, leave: false, why: said },
        300..=399 => return Said::Refused(format!("HTTP {status}, which is not followed")),
        _ => return Said::Refused(said),
    }
    let json = serde_json::from_slice::<Value>(&answer.body);
    let taken = |json: Option<&Value>| {
        let named = named.zip(json).and_then(|(named, json)| json.pointer(named)).and_then(plain);
        Said::Taken {
            how: format!("HTTP {status}, accepted"),
            named: named.and_then(|text| delivery_report::name(&text)),
        }
    };
    let Some(Success { pointer, value }) = success else { return taken(json.as_ref().ok()) };
    let Ok(json) = json else {
        return Said::Later { wait: None, leave: false, why: format!("not the answer of the gateway: {said}") };
    };
    let found = match json.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    if found == *value { taken(Some(&json)) } else { Said::Refused(said) }
}

#[cfg(test)]
mod tests;
