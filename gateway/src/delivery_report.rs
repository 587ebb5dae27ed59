//! What a gateway reports of a message after it has taken it: there, read, answered, or not to be delivered (a delivery report).
//!
//! A gateway sends its reports to an address of ours, `/reports/WAY-OUT/SECRET`, as JSON or as a form, one or several at once. Each
//! names the message as it was named to it (`{{id}}`), or as the gateway named it when it took it, and says by a word how it stands.
//! Which word means what every gateway has its own way, so the site says it:
//!
//! ```toml
//! [notice.report]
//! secret_file = "secrets/duty-sms-report"  # one line of 32 characters or more: the last part of the address
//! list        = "/list"                    # where the reports are, if not the whole body; RFC 6901
//! message     = "/out_id"                  # the message's name, within one report; of a form `/name` of a field
//! number      = "/phone"                   # whose report it is, where one request has several numbers
//! status      = "/status"
//! delivered   = ["DELIVRD"]
//! read        = ["READ"]
//! answered    = ["1"]                      # a key was pressed, a message came back
//! failed      = ["UNDELIV", "EXPIRED"]
//! why         = "/err_code"                # shown with a failure
//! named       = "/data/bizId"              # in the answer to what is sent: the gateway's own name for it
//! reply       = '{"code": 0}'              # what the gateway wants to hear
//! ```
//!
//! Whoever knows the address can say that somebody has been reached, and nothing else: a report acknowledges no alarm.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use anmin_sensors::document::Reader;
use ring::digest::{Digest, SHA256, digest};
use serde_json::{Map, Value};
use url::form_urlencoded;

use crate::credentials::{Secret, named_file};
use crate::store::reach::Reach;

/// Characters of a secret at least.
const SHORTEST: usize = 32;
/// Reports of one request that are looked at.
const MOST: usize = 1_000;
/// Characters of a message's name.
const LONGEST_NAME: usize = 128;
/// Characters of what is said of a failure.
const LONGEST_WHY: usize = 120;

/// `[notice.report]`.
#[derive(Clone, Debug)]
pub struct Settings {
    secret: Arc<Digest>,
    list: Option<String>,
    message: String,
    number: Option<String>,
    status: String,
    why: Option<String>,
    /// What each word of `status` means.
    words: HashMap<String, Reach>,
    /// Where in the answer to what is sent the gateway names it.
    pub named: Option<String>,
    reply: String,
    /// Digits of those who are told, by their place in the file; see [`Settings::with_numbers`].
    numbers: Vec<String>,
}

/// One report, as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The message.
    pub key: String,
    /// Whose it is, by the place in the list; `None`: everybody's to whom this message went.
    pub recipient: Option<u32>,
    pub reach: Reach,
    pub why: String,
}

/// What one request holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reports {
    pub reports: Vec<Report>,
    /// Those whose word nobody has said the meaning of, such as that a message is on its way.
    pub others: usize,
    /// Those that name no message, or somebody who is not told.
    pub unusable: usize,
}

impl Settings {
    pub fn read(r: &Reader<'_>, base: &Path) -> Option<Self> {
        let secret = r.required::<String>("secret_file").map(|file| named_file(base, file)).and_then(|path| {
            let read = Secret::read(&path).and_then(|secret| {
                let text = secret.reveal();
                let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
                match plain && text.len() >= SHORTEST {
                    true => Ok(Arc::new(digest(&SHA256, text.as_bytes()))),
                    false => {
                        let of = format!("expected {SHORTEST} or more letters, digits, `-` or `_`");
                        Err(format!("{}: {of}", path.display()))
                    }
                }
            });
            let hint = || Some("one line, such as `openssl rand -hex 32` prints".to_owned());
            read.map_err(|why| r.fault("secret_file", format!("`secret_file`: {why}"), hint())).ok()
        });
        let pointer = |key: &'static str| {
            let text = r.optional::<String>(key);
            if let Some(text) = text.as_ref().filter(|text| !text.starts_with('/')) {
                let hint = Some("such as \"/status\", a place in JSON (RFC 6901) or a field of a form".to_owned());
                r.fault(key, format!("`{key}` is {text:?}, expected `/` and a name"), hint);
            }
            text
        };
        let (list, number, why, named) = (pointer("list"), pointer("number"), pointer("why"), pointer("named"));
        let (message, status) = (pointer("message"), pointer("status"));
        for key in ["message", "status"] {
            if !r.has(key) {
                r.required::<String>(key);
            }
        }
        let mut words: HashMap<String, Reach> = HashMap::new();
        let meant = [
            ("delivered", Reach::Delivered),
            ("read", Reach::Read),
            ("answered", Reach::Answered),
            ("failed", Reach::Failed),
        ];
        for (key, reach) in meant {
            for word in r.or::<Vec<String>>(key, Vec::new()) {
                if *words.entry(word.clone()).or_insert(reach) != reach {
                    r.fault(key, format!("`{key}` has {word:?}, which has another meaning, too"), None);
                }
            }
        }
        if !words.values().any(|reach| *reach > Reach::Accepted) {
            let hint = Some("such as delivered = [\"DELIVRD\"]".to_owned());
            r.fault("delivered", "no word means that somebody is reached", hint);
        }
        let reply = r.or("reply", r#"{"code":0,"msg":"ok"}"#.to_owned());
        r.finish();
        Some(Self {
            secret: secret?,
            list,
            message: message?,
            number,
            status: status?,
            why,
            words,
            named,
            reply,
            numbers: Vec::new(),
        })
    }

    /// The numbers of those who are told, in the order in which they stand in their file.
    pub fn with_numbers(self, numbers: &[String]) -> Self {
        Self { numbers: numbers.iter().map(|number| digits(number)).collect(), ..self }
    }

    /// Whether each report must say whose it is.
    pub fn names_number(&self) -> bool {
        self.number.is_some()
    }

    /// Takes as long for a near miss as for a far one.
    pub fn is_secret(&self, offered: &str) -> bool {
        let offered = digest(&SHA256, offered.as_bytes());
        self.secret.as_ref().as_ref().iter().zip(offered.as_ref()).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    }

    /// What the gateway wants to hear.
    pub fn reply(&self) -> &str {
        &self.reply
    }

    /// A body as it came. The error says why none of it can be read.
    pub fn parse(&self, is_form: bool, body: &[u8]) -> Result<Reports, String> {
        let body =
            if is_form { of_form(body) } else { serde_json::from_slice(body).map_err(|e| format!("no JSON: {e}"))? };
        let found = match &self.list {
            Some(list) => body.pointer(list).ok_or_else(|| format!("nothing is at {list}"))?,
            None => &body,
        };
        let found = match found {
            Value::Array(several) => several.as_slice(),
            one @ Value::Object(_) => std::slice::from_ref(one),
            _ => return Err("neither an object nor a list of them".to_owned()),
        };
        let mut reports = Reports::default();
        for one in found.iter().take(MOST) {
            match self.report(one) {
                Some(Some(report)) => reports.reports.push(report),
                Some(None) => reports.others += 1,
                None => reports.unusable += 1,
            }
        }
        reports.unusable += found.len().saturating_sub(MOST);
        Ok(reports)
    }

    /// `None`: not to be used; `Some(None)`: its word means nothing here.
    fn report(&self, one: &Value) -> Option<Option<Report>> {
        let at = |pointer: &String| one.pointer(pointer).and_then(plain);
        let key = name(&at(&self.message)?)?;
        let Some(reach) = self.words.get(at(&self.status)?.trim()).copied() else { return Some(None) };
        let recipient = match &self.number {
            Some(number) => {
                let number = digits(&at(number)?);
                Some(self.numbers.iter().position(|known| is_same(known, &number))? as u32)
            }
            None => None,
        };
        let why = self.why.as_ref().filter(|_| reach < Reach::Accepted).and_then(at).unwrap_or_default();
        // It may repeat the number.
        let why = why.chars().filter(|c| !c.is_control()).take(LONGEST_WHY).collect::<String>();
        let why = if digits(&why).len() >= 7 { String::new() } else { why };
        Some(Some(Report { key, recipient, reach, why }))
    }
}

/// A message's name as it is kept.
pub fn name(text: &str) -> Option<String> {
    let text = text.trim();
    let plain = !text.is_empty() && text.len() <= LONGEST_NAME && text.bytes().all(|b| b.is_ascii_graphic());
    plain.then(|| text.to_owned())
}

/// A value of JSON as a word.
pub fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

fn of_form(body: &[u8]) -> Value {
    let fields =
        form_urlencoded::parse(body).map(|(name, value)| (name.into_owned(), Value::String(value.into_owned())));
    Value::Object(fields.collect::<Map<_, _>>())
}

fn digits(text: &str) -> String {
    text.chars().filter(char::is_ascii_digit).collect()
}

/// With or without the code of the country, which gateways add or leave out.
fn is_same(known: &str, reported: &str) -> bool {
    let (long, short) = if known.len() >= reported.len() { (known, reported) } else { (reported, known) };
    long == short || (short.len() >= 7 && long.len() - short.len() <= 4 && long.ends_with(short))
}

#[cfg(test)]
mod tests {
    use anmin_sensors::document::{Document, Faults};

    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    const KEYS: &str = r#"
        message = "/out_id"
        status = "/status"
        delivered = ["DELIVRD", "true"]
        read = ["READ"]
        answered = ["1"]
        failed = ["UNDELIV", "false"]
        why = "/err"
    "#;

    fn read(name: &str, secret: &str, text: &str) -> (Option<Settings>, Vec<String>) {
        let dir = std::env::temp_dir().join(format!("anmin-report-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("the folder for temporary files can be written");
        std::fs::write(dir.join("secret"), secret).expect("the same");
        let faults = Faults::default();
        let text = format!("secret_file = \"secret\"\n{text}");
        let document = Document::parse("t.toml", &text, &faults).expect("TOML");
        let settings = Settings::read(&document.root(&faults), &dir);
        std::fs::remove_dir_all(&dir).expect("it is there");
        (settings, faults.take().iter().map(|fault| fault.message.clone()).collect())
    }

    fn settings(name: &str, extra: &str) -> Settings {
        let (settings, faults) = read(name, SECRET, &format!("{KEYS}{extra}"));
        assert_eq!(faults, Vec::<String>::new());
        settings.expect("it is sound").with_numbers(&["13800000001".to_owned(), "+8613800000002".to_owned()])
    }

    /// The forms are those in which gateways document their reports: one object, a list, a list within an object, a form.
    #[test]
    fn reports_of_any_gateway_are_read_by_what_the_site_says_of_them() {
        let report = |key: &str, recipient, reach, why: &str| Report {
            key: key.to_owned(),
            recipient,
            reach,
            why: why.to_owned(),
        };
        let (delivered, failed) = (Reach::Delivered, Reach::Failed);
        for (name, extra, is_form, body, expected) in [
            (
                "one",
                "",
                false,
                r#"{"out_id":"a1","status":"DELIVRD","err":"000"}"#,
                vec![report("a1", None, delivered, "")],
            ),
            (
                "several",
                "number = \"/phone\"",
                false,
                r#"[{"out_id":"a1","status":true,"phone":"8613800000001"},{"out_id":"a1","status":false,"phone":13800000002,"err":"SPEAK"}]"#,
                vec![report("a1", Some(0), delivered, ""), report("a1", Some(1), failed, "SPEAK")],
            ),
            (
                "within",
                "list = \"/data/list\"",
                false,
                r#"{"data":{"list":[{"out_id":7,"status":"READ"}]}}"#,
                vec![report("7", None, Reach::Read, "")],
            ),
            ("form", "", true, "out_id=SM12&status=1&x=%E5%AE%89", vec![report("SM12", None, Reach::Answered, "")]),
        ] {
            let found = settings(name, extra).parse(is_form, body.as_bytes()).expect("it can be read");
            assert_eq!(found, Reports { reports: expected, others: 0, unusable: 0 }, "{name}");
        }
    }

    #[test]
    fn what_means_nothing_or_names_nobody_is_counted_and_changes_nothing() {
        let of = settings("odd", "number = \"/phone\"");
        for (body, others, unusable) in [
            (r#"{"out_id":"a","status":"ENROUTE","phone":"13800000001"}"#, 1, 0),
            (r#"{"out_id":"a","status":"DELIVRD","phone":"13900000001"}"#, 0, 1),
            (r#"{"out_id":"a","status":"DELIVRD"}"#, 0, 1),
            (r#"{"status":"DELIVRD","phone":"13800000001"}"#, 0, 1),
            (r#"{"out_id":"a b","status":"DELIVRD","phone":"13800000001"}"#, 0, 1),
            (r#"{"out_id":{"x":1},"status":"DELIVRD","phone":"13800000001"}"#, 0, 1),
            ("[1, null]", 0, 2),
            ("{}", 0, 1),
            ("[]", 0, 0),
        ] {
            let found = of.parse(false, body.as_bytes()).expect("it can be read");
            assert_eq!((found.reports.len(), found.others, found.unusable), (0, others, unusable), "{body}");
        }
        for body in ["", "{", "7", "\u{0}"] {
            assert!(of.parse(false, body.as_bytes()).is_err(), "{body}");
        }
        let many = format!("[{}]", vec![r#"{"out_id":"a","status":"READ","phone":"13800000001"}"#; MOST + 5].join(","));
        let found = of.parse(false, many.as_bytes()).expect("it can be read");
        assert_eq!((found.reports.len(), found.unusable), (MOST, 5));
    }

    #[test]
    fn a_reason_that_holds_a_telephone_number_is_not_repeated() {
        let of = settings("why", "");
        for (why, kept) in [("27: no credit", "27: no credit"), ("138 0000 0001 is off", ""), ("a\nb", "ab")] {
            let body = serde_json::json!({"out_id": "a", "status": "UNDELIV", "err": why}).to_string();
            assert_eq!(of.parse(false, body.as_bytes()).expect("it can be read").reports[0].why, kept, "{why:?}");
        }
    }

    #[test]
    fn a_number_is_the_same_with_and_without_the_code_of_its_country() {
        for (known, reported, same) in [
            ("13800000001", "13800000001", true),
            ("13800000001", "8613800000001", true),
            ("8613800000001", "13800000001", true),
            ("13800000001", "23800000001", false),
            ("120", "8613800000120", false),
            ("0571", "0571", true),
        ] {
            assert_eq!(is_same(known, reported), same, "{known} {reported}");
        }
    }

    #[test]
    fn faults_name_the_key_and_say_what_is_expected() {
        for (name, secret, text, expected) in [
            ("short", "short", KEYS, "`secret_file`: "),
            ("odd", "0123456789abcdef0123456789abcde/", KEYS, "32 or more letters, digits, `-` or `_`"),
            (
                "pointer",
                SECRET,
                "message = \"id\"\nstatus = \"/s\"\ndelivered = [\"D\"]",
                "`message` is \"id\", expected `/` and a name",
            ),
            (
                "no-word",
                SECRET,
                "message = \"/id\"\nstatus = \"/s\"\nfailed = [\"D\"]",
                "no word means that somebody is reached",
            ),
            (
                "two",
                SECRET,
                "message = \"/id\"\nstatus = \"/s\"\ndelivered = [\"D\"]\nfailed = [\"D\"]",
                "`failed` has \"D\", which has another meaning, too",
            ),
            ("missing", SECRET, "status = \"/s\"\ndelivered = [\"D\"]", "message"),
        ] {
            let (_, faults) = read(name, secret, text);
            assert!(faults.len() == 1 && faults[0].contains(expected), "{name}: {faults:?}");
        }
    }

    #[test]
    fn only_the_whole_secret_opens() {
        let of = settings("secret", "");
        for (offered, opens) in
            [(SECRET, true), (&SECRET[1..], false), ("", false), ("0123456789ABCDEF0123456789abcdef", false)]
        {
            assert_eq!(of.is_secret(offered), opens, "{offered}");
        }
    }
}
