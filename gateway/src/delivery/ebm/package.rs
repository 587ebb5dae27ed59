//! The package of one emergency broadcast message, after GD/J 082 practice: which fields it has and in which order was learned from
//! platforms that are in use; the text of GD/J 082-2018 and of GY/T 385-2023, which takes its place, was not read.
//!
//! [`compose`] builds a typed tree, writes it as XML, reads it back, compares the two field by field and holds it to the rules that
//! stand in [`faults`] before it lets it out. [`pack`] puts it into a tar with its signature, where there is one. [`read_answer`]
//! reads what a platform answers. Nothing here knows how a package travels, nor who signs.
//!
//! Times and days are those of China (UTC+8), wherever the site is.

use std::io::Read as _;
use std::path::Path;

use anmin_rules::order::{CapMessage, CapOrder};
use anmin_rules::rule::Level;
use anmin_sensors::time::Wall;
use jiff::civil::Date;
use jiff::tz::{Offset, TimeZone};

use super::super::cap::{self, EXERCISE_ZH, clean, cut, is_area_code, is_clean};
use super::super::xml::{self, Children, Node, branch, leaf};
use super::super::{event, excerpt};

/// Characters of a text.
const TEXT_MOST: usize = 2_000;
/// Of one file in an answer, in bytes.
const ANSWER_FILE_MOST: u64 = 64 << 10;
/// Files in an answer.
const ANSWER_FILES_MOST: usize = 16;
/// A resource's code: level, 12 digits of the area, 10 of type and serial.
const RESOURCE_DIGITS: usize = 23;
/// An emergency (突发事件), where no code of the table fits better.
const ANY_EVENT: &str = "10000";

/// The zone that all times and days of a package are in.
pub fn zone() -> TimeZone {
    TimeZone::fixed(Offset::constant(8))
}

/// The day in China, and how many milliseconds of it have gone.
pub fn day(at: Wall) -> (Date, i64) {
    let local = event::local(at, &zone());
    let (date, midnight) = (local.date(), event::local(at, &zone()).start_of_day());
    let gone =
        midnight.map_or(0, |midnight| local.timestamp().as_millisecond() - midnight.timestamp().as_millisecond());
    (date, gone)
}

/// A message's serial, and of which day it is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Number {
    pub day: Date,
    /// 1 to 9,999.
    pub serial: u16,
}

/// EBMID: 35 digits.
fn message_id(sender: &str, number: Number) -> String {
    format!("{sender}{}{:04}", number.day.strftime("%Y%m%d"), number.serial)
}

/// EBDID: 41 digits. A message has one package, so one serial serves both.
fn package_id(sender: &str, number: Number) -> String {
    format!("10{sender}{}{:08}", number.day.strftime("%Y%m%d"), number.serial)
}

/// What all packages of one way out have in common.
#[derive(Clone, Debug)]
pub struct Words {
    pub cap: cap::Words,
    /// Whom it is for: 23 digits.
    pub dest: String,
    /// MsgType of an exercise: 3, 4 or 5.
    pub drill: u8,
    /// Event codes of the table and what the site sends in their place.
    pub codes: Vec<(&'static str, String)>,
}

/// Events of the table (GB/T 35561 as used by platforms) by the word that a site gives another code for.
pub const EVENTS: [(&str, &str); 7] = [
    ("gas", "12P09"),
    ("co", "13C03"),
    ("fire", "12G00"),
    ("power", "12P08"),
    ("rain", "11B03"),
    ("flood", "11A02"),
    ("ground", "11D01"),
];

/// A package that has passed every check, without its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// EBDID.
    pub id: String,
    /// The file `EBDB_<EBDID>.xml`.
    pub xml: String,
}

/// `EBD`, in the order in which platforms read it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ebd {
    id: String,
    kind: String,
    source: String,
    dest: String,
    time: String,
    body: Body,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Body {
    Message(Box<Ebm>),
    /// That the connection is there: when it is said.
    Check(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Ebm {
    id: String,
    /// EBMID of the message that this one takes the place of, or takes back.
    related: Option<String>,
    msg_type: String,
    sender_name: String,
    sender_code: String,
    send_time: String,
    event_type: String,
    severity: String,
    start_time: String,
    end_time: String,
    title: String,
    desc: String,
    area_code: String,
}

/// Makes the body of the message with this number; `known` gives the numbers of earlier ones. An error names what is wrong; the
/// message must not leave.
pub fn compose(
    words: &Words,
    order: &CapOrder,
    number: Number,
    known: impl Fn(&str) -> Option<Number>,
) -> Result<Document, String> {
    let ebd = build(words, order, number, known)?;
    let document = write(&ebd)?;
    Ok(document)
}

/// A heartbeat's body.
pub fn connection_check(source: &str, dest: &str, now: Wall) -> Result<Document, String> {
    write(&Ebd {
        id: format!("01{source}{:016}", 0),
        kind: "ConnectionCheck".to_owned(),
        source: source.to_owned(),
        dest: dest.to_owned(),
        time: stamp(now),
        body: Body::Check(stamp(now)),
    })
}

fn write(ebd: &Ebd) -> Result<Document, String> {
    let xml = xml::write(&ebd.node(), None);
    if read(&xml)? != *ebd {
        return Err("the written message does not read back as it was meant".to_owned());
    }
    let faults = faults(ebd);
    if faults.is_empty() { Ok(Document { id: ebd.id.clone(), xml }) } else { Err(faults.join("; ")) }
}

fn read(xml: &str) -> Result<Ebd, String> {
    let mut children = Children::below(xml::parse(xml, None)?, "EBD")?;
    let ebd = Ebd::take(&mut children)?;
    children.end()?;
    Ok(ebd)
}

fn build(
    words: &Words,
    order: &CapOrder,
    number: Number,
    known: impl Fn(&str) -> Option<Number>,
) -> Result<Ebd, String> {
    let spoken = cap::spoken(&words.cap, order);
    // What it takes the place of is what was said last, of what has left.
    let earlier = order.references.iter().rev().find_map(|sent| Some((sent, known(&sent.identifier)?)));
    if order.message == CapMessage::Cancel && earlier.is_none() {
        return Err(
            "nothing that has left under a known number is to be taken back; where the platform holds a message \
                    of this alarm, tell the platform by telephone"
                .to_owned(),
        );
    }
    let msg_type = match (order.message, spoken.is_exercise) {
        (CapMessage::Cancel, _) => 2,
        (_, true) => words.drill,
        (_, false) => 1,
    };
    // The end goes to whom the beginning went.
    let level = match (order.message, earlier) {
        (CapMessage::Cancel, Some((sent, _))) => sent.level,
        _ => order.alarm.level,
    };
    let severity = match level {
        Level::Red => 1,
        Level::Orange => 2,
        Level::Yellow => 3,
        Level::Blue => 4,
    };
    let event = spoken.code.unwrap_or(ANY_EVENT);
    let event = words.codes.iter().find(|(of, _)| *of == event).map_or(event, |(_, own)| own);
    let sent = stamp(order.sent);
    let ebm = Ebm {
        id: message_id(&spoken.sender, number),
        related: earlier.map(|(sent, number)| message_id(&words.cap.sender(sent.voice.as_deref()), number)),
        msg_type: msg_type.to_string(),
        sender_name: spoken.sender_name.clone(),
        sender_code: spoken.sender.clone(),
        send_time: sent.clone(),
        event_type: event.to_owned(),
        severity: severity.to_string(),
        start_time: sent.clone(),
        end_time: stamp(spoken.until),
        title: one_line(&spoken.headline),
        desc: told(&spoken),
        area_code: spoken.area_code.clone().unwrap_or_default(),
    };
    Ok(Ebd {
        id: package_id(&spoken.sender, number),
        kind: "EBM".to_owned(),
        source: spoken.sender,
        dest: words.dest.clone(),
        time: sent,
        body: Body::Message(Box::new(ebm)),
    })
}

/// What happened and what to do, as one text: it is read out.
fn told(spoken: &cap::Spoken) -> String {
    let what = one_line(&spoken.description);
    let Some(advice) = spoken.instruction.as_deref() else { return what };
    let advice = one_line(advice.strip_prefix(EXERCISE_ZH).unwrap_or(advice));
    let between = if what.ends_with(['。', '！', '？', '.', '!', '?', '；', ';']) { "" } else { "。" };
    cut(&format!("{what}{between}{advice}"), TEXT_MOST)
}

fn one_line(text: &str) -> String {
    cut(&clean(text).split_whitespace().collect::<Vec<_>>().join(" "), TEXT_MOST)
}

/// `yyyy-MM-dd HH:mm:ss`.
fn stamp(at: Wall) -> String {
    event::local(at, &zone()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// Whether it may be a resource's code (EBRID), as far as its form tells.
pub fn is_resource(code: &str) -> bool {
    has_digits(code, RESOURCE_DIGITS) && matches!(code.as_bytes()[0], b'1'..=b'6')
}

/// Whether it may be an event's code: five characters, for the weather two more for the colour.
pub fn is_event(code: &str) -> bool {
    matches!(code.len(), 5 | 7) && code.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase())
}

fn has_digits(text: &str, count: usize) -> bool {
    text.len() == count && text.bytes().all(|b| b.is_ascii_digit())
}

/// What the tree itself does not hold.
fn faults(ebd: &Ebd) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut must = |holds: bool, what: &str| {
        if !holds {
            found.push(what.to_owned());
        }
    };
    must(is_resource(&ebd.source) && is_resource(&ebd.dest), "an EBRID is not of 23 digits");
    must(has_digits(&ebd.id, 41), "the EBDID is not of 41 digits");
    must(ebd.id.get(2..25) == Some(&ebd.source), "the EBDID is not of the sender");
    must(is_time(&ebd.time), "EBDTime is no time");
    let ebm = match &ebd.body {
        Body::Message(ebm) => ebm,
        Body::Check(at) => {
            must(ebd.kind == "ConnectionCheck" && is_time(at), "a heartbeat has another type or no time");
            return found;
        }
    };
    must(ebd.kind == "EBM" && ebd.id.starts_with("10"), "a message has another type");
    must(has_digits(&ebm.id, 35) && ebm.id.starts_with(&ebd.source), "the EBMID is not of the sender and 35 digits");
    must(ebm.id.get(23..31) == ebd.id.get(25..33), "EBMID and EBDID are of different days");
    must(ebm.related.as_ref().is_none_or(|id| has_digits(id, 35)), "a related EBMID is not of 35 digits");
    must(ebm.related.as_ref() != Some(&ebm.id), "the message is related to itself");
    must(["1", "2", "3", "4", "5"].contains(&ebm.msg_type.as_str()), "MsgType is not 1 to 5");
    must(ebm.msg_type != "2" || ebm.related.is_some(), "a cancel is related to nothing");
    let exercise = [&ebm.title, &ebm.desc].map(|text| text.starts_with(EXERCISE_ZH));
    must(exercise[0] == exercise[1], "title and text differ about the exercise");
    must(
        ebm.msg_type == "2" || (ebm.msg_type != "1") == exercise[0],
        "MsgType and the texts differ about the exercise",
    );
    must(ebm.sender_code == ebd.source, "SenderCode is not the source");
    must(is_event(&ebm.event_type), "EventType is no event code");
    must(["1", "2", "3", "4"].contains(&ebm.severity.as_str()), "Severity is not 1 to 4");
    let times = [&ebm.send_time, &ebm.start_time, &ebm.end_time];
    must(times.iter().all(|time| is_time(time)), "a time is none");
    must(ebm.start_time < ebm.end_time, "it ends before it begins");
    must(is_area_code(&ebm.area_code), "AreaCode is not of 12 digits");
    for text in [&ebm.sender_name, &ebm.title, &ebm.desc] {
        must(!text.is_empty() && text.trim() == text, "a text is empty or has blanks around it");
        must(text.chars().all(|c| c != '\n' && is_clean(c)), "a text holds characters that may not be sent");
    }
    found
}

fn is_time(text: &str) -> bool {
    let form: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    form == "0000-00-00 00:00:00" && jiff::civil::DateTime::strptime("%Y-%m-%d %H:%M:%S", text).is_ok()
}

impl Ebd {
    fn node(&self) -> Node {
        let resource = |name: &str, code: &str| branch(name, vec![leaf("EBRID", code)]);
        branch(
            "EBD",
            vec![
                leaf("EBDVersion", "1"),
                leaf("EBDID", &self.id),
                leaf("EBDType", &self.kind),
                resource("SRC", &self.source),
                resource("DEST", &self.dest),
                leaf("EBDTime", &self.time),
                match &self.body {
                    Body::Message(ebm) => ebm.node(),
                    Body::Check(at) => branch("ConnectionCheck", vec![leaf("RptTime", at)]),
                },
            ],
        )
    }

    fn take(children: &mut Children) -> Result<Self, String> {
        version(children, "EBDVersion")?;
        let resource = |children: &mut Children, name: &str| {
            let code = children.branch(name, |children| children.one("EBRID"))?;
            code.ok_or_else(|| format!("{name} is missing or not in its place"))
        };
        Ok(Self {
            id: children.one("EBDID")?,
            kind: children.one("EBDType")?,
            source: resource(children, "SRC")?,
            dest: resource(children, "DEST")?,
            time: children.one("EBDTime")?,
            body: match children.branch("EBM", Ebm::take)? {
                Some(ebm) => Body::Message(Box::new(ebm)),
                None => children
                    .branch("ConnectionCheck", |children| children.one("RptTime"))?
                    .map(Body::Check)
                    .ok_or("it has no body")?,
            },
        })
    }
}

fn version(children: &mut Children, name: &str) -> Result<(), String> {
    match children.one(name)?.as_str() {
        "1" => Ok(()),
        other => Err(format!("{name} is {other:?}")),
    }
}

impl Ebm {
    fn node(&self) -> Node {
        let mut nodes = vec![leaf("EBMVersion", "1"), leaf("EBMID", &self.id)];
        nodes.extend(self.related.as_ref().map(|id| branch("RelatedInfo", vec![leaf("EBMID", id)])));
        nodes.push(branch(
            "MsgBasicInfo",
            vec![
                leaf("MsgType", &self.msg_type),
                leaf("SenderName", &self.sender_name),
                leaf("SenderCode", &self.sender_code),
                leaf("SendTime", &self.send_time),
                leaf("EventType", &self.event_type),
                leaf("Severity", &self.severity),
                leaf("StartTime", &self.start_time),
                leaf("EndTime", &self.end_time),
            ],
        ));
        nodes.push(branch(
            "MsgContent",
            vec![
                leaf("LanguageCode", "zho"),
                leaf("MsgTitle", &self.title),
                leaf("MsgDesc", &self.desc),
                leaf("AreaCode", &self.area_code),
            ],
        ));
        branch("EBM", nodes)
    }

    fn take(children: &mut Children) -> Result<Self, String> {
        type Basic = [String; 8];
        version(children, "EBMVersion")?;
        let id = children.one("EBMID")?;
        let related = children.branch("RelatedInfo", |children| children.one("EBMID"))?;
        let basic = |children: &mut Children| -> Result<Basic, String> {
            Ok([
                children.one("MsgType")?,
                children.one("SenderName")?,
                children.one("SenderCode")?,
                children.one("SendTime")?,
                children.one("EventType")?,
                children.one("Severity")?,
                children.one("StartTime")?,
                children.one("EndTime")?,
            ])
        };
        let content = |children: &mut Children| -> Result<[String; 3], String> {
            match children.one("LanguageCode")?.as_str() {
                "zho" => {}
                other => return Err(format!("LanguageCode is {other:?}")),
            }
            Ok([children.one("MsgTitle")?, children.one("MsgDesc")?, children.one("AreaCode")?])
        };
        let [msg_type, sender_name, sender_code, send_time, event_type, severity, start_time, end_time] =
            children.branch("MsgBasicInfo", basic)?.ok_or("there is no MsgBasicInfo")?;
        let [title, desc, area_code] = children.branch("MsgContent", content)?.ok_or("there is no MsgContent")?;
        Ok(Self {
            id,
            related,
            msg_type,
            sender_name,
            sender_code,
            send_time,
            event_type,
            severity,
            start_time,
            end_time,
            title,
            desc,
            area_code,
        })
    }
}

/// What the file `EBDS_EBDB_<EBDID>.xml` says, in the form of 2018: a signature made elsewhere, in base64.
pub fn signature(id: &str, certificate: &str, value: &str) -> String {
    let node = branch(
        "Signature",
        vec![
            leaf("Version", "1"),
            branch("RelatedEBD", vec![leaf("EBDID", id)]),
            leaf("CertSN", certificate),
            leaf("SignatureAlgorithm", "SM2-SM3"),
            leaf("SignatureValue", value),
        ],
    );
    xml::write(&node, None)
}

/// Name of the package's file.
pub fn file_name(id: &str) -> String {
    format!("EBDT_{id}.tar")
}

/// The tar. The same message gives the same bytes, but for what signs it.
pub fn pack(document: &Document, signature: Option<&str>, at: Wall) -> std::io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut put = |name: String, text: &str| {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(u64::try_from(at.micros() / 1_000_000).unwrap_or(0));
        tar.append_data(&mut header, name, text.as_bytes())
    };
    let body = format!("EBDB_{}.xml", document.id);
    put(body.clone(), &document.xml)?;
    if let Some(signature) = signature {
        put(format!("EBDS_{body}"), signature)?;
    }
    tar.into_inner()
}

/// What a platform has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// EBDID of the package that it is about, where it says so.
    pub of: Option<String>,
    pub code: String,
    pub desc: String,
}

impl Answered {
    /// What the code means, where it is one that platforms use.
    pub fn meaning(&self) -> Option<(&'static str, &'static str)> {
        Some(match self.code.as_str() {
            "0" => ("已接收未处理", "received, not processed yet"),
            "1" => ("接收解析及数据校验成功", "received, parsed, valid"),
            "2" => ("解析失败", "not parsed"),
            "3" => ("内容缺失", "content is missing"),
            "4" => ("签名验证失败", "the signature does not verify"),
            "5" => ("其他错误", "another error"),
            _ => return None,
        })
    }

    pub fn is_taken(&self) -> bool {
        matches!(self.code.as_str(), "0" | "1")
    }
}

/// Reads an `EBDResponse` out of a tar or out of bare XML, in whatever order its elements stand.
pub fn read_answer(bytes: &[u8]) -> Result<Answered, String> {
    let start = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    if start.is_empty() {
        return Err("the answer is empty".to_owned());
    }
    let text = if start.starts_with(b"<") { start.to_vec() } else { body_of(bytes)? };
    // Of another encoding only what is told to people suffers: the code is a digit.
    let text = String::from_utf8_lossy(&text);
    let root = xml::parse_foreign(text.trim_start_matches('\u{feff}'))?;
    let response = root.find("EBDResponse").filter(|_| root.name == "EBD").ok_or("it holds no EBDResponse")?;
    let word = |node: &Node, name: &str| node.find(name).map(|found| found.text.trim().to_owned());
    Ok(Answered {
        of: root.find("RelatedEBD").and_then(|related| word(related, "EBDID")),
        code: word(response, "ResultCode").ok_or("its EBDResponse has no ResultCode")?,
        desc: excerpt(&word(response, "ResultDesc").unwrap_or_default()),
    })
}

/// The first `EBDB_….xml` of a tar: nothing of it touches the disk.
fn body_of(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let wrong = |error: std::io::Error| {
        format!("it is neither XML nor a tar that can be read: {}", excerpt(&error.to_string()))
    };
    let mut tar = tar::Archive::new(bytes);
    for entry in tar.entries().map_err(wrong)?.take(ANSWER_FILES_MOST) {
        let entry = entry.map_err(wrong)?;
        let name = entry.path().map_err(wrong)?.into_owned();
        let name = name.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("EBDB_") && Path::new(&*name).extension().is_some_and(|end| end == "xml") {
            let mut text = Vec::new();
            // A tar may say that it holds more than it does.
            entry.take(ANSWER_FILE_MOST).read_to_end(&mut text).map_err(wrong)?;
            return Ok(text);
        }
    }
    Err("its tar holds no EBDB_….xml".to_owned())
}
