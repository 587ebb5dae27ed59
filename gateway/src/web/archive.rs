//! An incident as one package that proves itself: `GET /api/v1/incidents/{id}/archive`, `anmin incident export`.
//!
//! Everything in it is made from records: the same records give the same bytes. `masked` leaves out people's names and phone
//! numbers, before anything is hashed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anmin_rules::alarm::{Alarm, AlarmId};
use anmin_rules::casework::{CaseKind, Stage};
use anmin_rules::incident::IncidentId;
use anmin_rules::order::{CapMessage, Order, OrderBody};
use anmin_rules::rule::{Origin, Text};
use anmin_sensors::point::PointId;
use anmin_sensors::time::Wall;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Archive;
use super::api::{Answer, Asked, Desk, incident_id};
use super::authority::{Right, allows};
use super::guard::Caller;
use super::problem::Problem;
use super::wire::{ByWire, TextWire, Writer, stamp};
use crate::main_loop::Query;
use crate::package::{self, Entry};
use crate::report::{self, Cell, Language, Page, cause};
use crate::store::audit::Deed;
use crate::store::reach::{Answers, Standing, reached};
use crate::store::state::{self, Journaled, Sent};
use crate::store::view::Raw;

/// Readings from so long before the first alarm to so long after the last change.
const AROUND: Duration = Duration::from_secs(15 * 60);
/// Rows of the journal in one package; the newest go in where there are more, and the package says so.
const MOST_ROWS: usize = 20_000;
const PAGE: usize = 1_000;
/// Messages of one incident that are told of.
const MOST_TOLD: usize = 2_000;
/// Readings of one point in one package, and of all its points: the first of each, and the package says how many it has left out.
const MOST_READINGS: usize = 20_000;
const MOST_READINGS_OF_ALL: usize = 400_000;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ExportParameters {
    masked: Option<String>,
    who: Option<String>,
}

pub(super) async fn export(
    State(desk): State<Desk>,
    caller: Caller,
    Path(id): Path<String>,
    Asked(ExportParameters { masked, who }): Asked<ExportParameters>,
) -> Result<Response, Problem> {
    let id = incident_id(&id)?;
    let masked = match masked.as_deref() {
        None | Some("no") => false,
        Some("yes") => true,
        Some(_) => return Err(Problem::bad_request("masked is neither yes nor no")),
    };
    // Names and telephone numbers are for those who handle incidents or answer for the record.
    let masked = masked || ![Right::Handle, Right::Audit].iter().any(|right| allows(&caller.principal, *right));
    let who = caller.name(who.or_else(|| Some("-".to_owned())))?;
    let Ok(_alone) = desk.exports.try_acquire() else {
        return Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "export_busy",
            "正在导出另一个档案包",
            "another package is being made",
        )
        .hint("请稍后再试", "try again in a moment"));
    };
    let records = gather(&desk, &caller, id).await?;
    let (file, seal) = pack(&records, &desk.link.site.time_zone, masked);
    let detail = json!({ "seal": seal, "masked": masked, "bytes": file.len() });
    let at = desk.link.clock.now().wall;
    let deed = Deed {
        at,
        who,
        from: caller.way,
        what: "incident.export".into(),
        about: id.to_string(),
        refused: None,
        detail,
    };
    desk.note(deed).await?;
    let name = format!("attachment; filename=\"incident-{id}.tar\"");
    Ok(([(header::CONTENT_TYPE, "application/x-tar".to_owned()), (header::CONTENT_DISPOSITION, name)], file)
        .into_response())
}

/// What has left, or is to leave, about one incident.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct MessagesWire {
    pub messages: Vec<MessageWire>,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct MessageWire {
    /// When it was taken or given up; `null` while it waits.
    pub at: Option<String>,
    pub way_out: String,
    /// `event`, `call` or `cap`; `damaged` where its bytes are.
    pub form: &'static str,
    /// What it is about, in the officer's words.
    pub what: TextWire,
    pub level: Option<String>,
    /// `waiting`, `accepted` (the receiver has taken the request), `delivered` (it has named the message, the file is written, or
    /// its gateway says that somebody has it), `read`, `answered` (by telephone, as the gateway says), `failed` (taken, and it
    /// reaches nobody) or `dead`.
    pub state: &'static str,
    /// How it stands with each of several recipients, where the way out tells.
    pub recipients: Vec<RecipientWire>,
    /// What the receiver said, or why it was given up.
    pub receipt: String,
    /// The first person who answered after that: acknowledged the alarm, or said of this call whether the crew comes.
    pub answered: Option<ByWire>,
}

/// One of those whom a message is for. Who that is the site's own list says: numbers and addresses are people's own.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RecipientWire {
    /// Their place in the list, from 1 on.
    pub n: u32,
    /// `left_out` (not taken for them), `failed` (taken, and cannot be delivered), `accepted`, `delivered`, `read`, `answered`.
    pub state: &'static str,
    pub at: String,
    /// Why it came no further.
    pub why: String,
}

pub(super) async fn messages(State(desk): State<Desk>, caller: Caller, Path(id): Path<String>) -> Answer<MessagesWire> {
    let id = incident_id(&id)?;
    desk.find_incident(&caller, id).await?;
    let within = caller.within();
    let (sent, answers) = desk
        .archive(move |archive| {
            let rows = rows_of(archive, id)?;
            let answers = Answers::of(&rows);
            let alarm = |row: &Journaled| match &row.entry {
                state::Entry::Transition(transition) if within.takes(&transition.alarm.place) => {
                    Some(transition.alarm.id)
                }
                _ => None,
            };
            let alarms: BTreeSet<AlarmId> = rows.iter().filter_map(alarm).collect();
            Ok((archive.messages(&alarms.into_iter().collect::<Vec<_>>())?, answers))
        })
        .await?;
    let writer = desk.writer();
    // The last ones, as of a timeline.
    let last = sent.len().saturating_sub(MOST_TOLD);
    let wire = |sent: &Sent| {
        let (form, what, level) = match &sent.body {
            None => ("damaged", TextWire::from(Text::default()), None),
            Some(OrderBody::Event(transition)) => {
                ("event", (&transition.alarm.message).into(), Some(transition.alarm.level))
            }
            Some(OrderBody::Call(change)) => ("call", (&change.message).into(), Some(change.alarm.level)),
            Some(OrderBody::Cap(cap)) => ("cap", (&cap.alarm.message).into(), Some(cap.alarm.level)),
            Some(OrderBody::Siren(siren)) => ("siren", (&siren.alarm.message).into(), Some(siren.alarm.level)),
        };
        MessageWire {
            at: sent.at.map(|at| writer.at(at)),
            way_out: sent.channel.to_string(),
            form,
            what,
            level: level.map(|level| level.as_str().to_owned()),
            state: reached(sent),
            recipients: recipients_of(sent, writer),
            receipt: sent.detail.clone(),
            answered: answers.to(sent).map(|(by, at)| ByWire { by: by.clone(), at: writer.at(*at) }),
        }
    };
    Ok(Json(MessagesWire { messages: sent[last..].iter().map(wire).collect() }))
}

fn recipients_of(sent: &Sent, writer: Writer<'_>) -> Vec<RecipientWire> {
    let of = |(recipient, standing): (&u32, &Standing)| RecipientWire {
        n: recipient + 1,
        state: standing.reach.as_str(),
        at: writer.at(standing.since()),
        why: standing.why.clone(),
    };
    sent.recipients.iter().map(of).collect()
}

/// A point and what it read.
struct Measured {
    point: PointId,
    unit: String,
    /// In the order of time.
    samples: Vec<Raw>,
    /// Later ones that the package has no room for.
    left_out: u64,
}

/// All that is known of an incident, in the words of the API.
struct Records {
    id: IncidentId,
    site: Value,
    incident: Value,
    /// The oldest first.
    timeline: Value,
    left_out: bool,
    dispatch: Value,
    messages: Value,
    /// Each CAP message as it was sent.
    caps: Vec<Entry>,
    rules: Value,
    readings: Vec<Measured>,
}

/// What the journal says of an incident, the oldest first.
pub(super) fn rows_of(archive: &dyn Archive, id: IncidentId) -> Result<Vec<Journaled>, String> {
    let mut rows: Vec<Journaled> = Vec::new();
    loop {
        let page = archive.timeline(id, PAGE, rows.last().map(|row| row.n))?;
        let last = page.len() < PAGE;
        rows.extend(page);
        if last || rows.len() >= MOST_ROWS {
            rows.reverse();
            return Ok(rows);
        }
    }
}

async fn gather(desk: &Desk, caller: &Caller, id: IncidentId) -> Result<Records, Problem> {
    let writer = desk.writer();
    let incident = desk.incident(caller, id).await?.0.incident;
    let rows = desk.archive(move |archive| rows_of(archive, id)).await?;
    let left_out = rows.len() >= MOST_ROWS;
    let (mut alarms, mut points, mut hashes) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
    let (mut from, mut to) = (None::<Wall>, None::<Wall>);
    let mut calls = BTreeMap::new();
    for row in &rows {
        let mut look = |alarm: &Alarm, at: Wall| {
            alarms.insert(alarm.id);
            from = Some(from.map_or(alarm.raised_at, |from| from.min(alarm.raised_at)));
            to = Some(to.map_or(at, |to| to.max(at)));
            let seen: &mut BTreeSet<String> = hashes.entry(alarm.rule.to_string()).or_default();
            let grounds = alarm.evidence.grounds.as_deref();
            seen.extend(grounds.map(|grounds| grounds.rule.to_string()));
            for input in grounds.into_iter().flat_map(|grounds| &grounds.inputs) {
                points.insert(input.point.clone(), input.unit.to_string());
            }
            points.extend(alarm.evidence.point.clone().map(|point| (point, alarm.evidence.unit.clone())));
        };
        match &row.entry {
            state::Entry::Transition(transition) => look(&transition.alarm, transition.at.wall),
            state::Entry::Call(change) => {
                look(&change.alarm, change.at);
                calls.insert((change.call.alarm, change.call.station.to_string()), change.call.clone());
            }
            state::Entry::Incident(_) | state::Entry::Damaged(_) => {}
        }
    }
    let calls: Vec<_> = calls.into_values().collect();
    let wanted: Vec<AlarmId> = alarms.into_iter().collect();
    let sent = desk.archive(move |archive| archive.messages(&wanted)).await?;
    let span =
        from.zip(to).map(|(from, to)| (Wall::from_micros(from.micros() - AROUND.as_micros() as i64), to.plus(AROUND)));
    let readings = desk
        .archive(move |archive| {
            let Some((from, to)) = span else { return Ok(Vec::new()) };
            let mut room = MOST_READINGS_OF_ALL;
            let read = |(point, unit): (PointId, String)| {
                let (samples, left_out) = archive.first_samples(&point, from, to, room.min(MOST_READINGS))?;
                room -= samples.len();
                Ok(Measured { point, unit, samples, left_out })
            };
            points.into_iter().map(read).collect()
        })
        .await?;
    let in_force = desk.ask(|reply| Query::Rules { reply }).await?;
    let rule = |(id, seen): (String, BTreeSet<String>)| {
        let now = in_force.iter().find(|row| row.spec.id.as_str() == id);
        json!({
            "rule": id,
            "hashes_when_judged": seen,
            "in_force": now.map(|row| json!({
                "hash": row.hash.to_string(), "toml": row.source.toml, "script": row.source.script,
            })),
        })
    };
    // As it left; of what has not left, or left before that was kept, as it would leave now.
    let texts: Vec<Option<String>> = {
        let in_force = desk.link.in_force();
        let text = |sent: &Sent| {
            if sent.text.is_some() {
                return sent.text.clone();
            }
            let order = Order { id: sent.id.clone(), channel: Arc::clone(&sent.channel), body: sent.body.clone()? };
            in_force.texts.get(&sent.channel)?(&order)
        };
        sent.iter().map(text).collect()
    };
    let (begin, over) = (rows.first().map(at_of), rows.last().map(at_of));
    let span = begin.flatten().zip(over.flatten());
    let configurations = desk
        .archive(move |archive| span.map_or_else(|| Ok(Vec::new()), |(from, to)| archive.configurations(from, to)))
        .await?;
    let configurations: Vec<Value> = configurations
        .into_iter()
        .map(|(since, sha256)| json!({ "since": writer.at(since), "sha256": sha256 }))
        .collect();
    let site = &desk.link.site;
    Ok(Records {
        id,
        site: json!({
            "site": site.id, "name": { "zh": site.name.zh, "en": site.name.en }, "exercise": site.exercise,
            "anmin": env!("CARGO_PKG_VERSION"), "configuration_sha256": &*desk.link.in_force().configuration,
            "configurations_then": configurations,
        }),
        incident: value(&incident),
        timeline: value(&writer.history(&rows)),
        left_out,
        dispatch: value(&writer.calls(&calls)),
        messages: sent.iter().zip(&texts).map(|(sent, text)| message(writer, sent, text.as_deref())).collect(),
        caps: sent.iter().zip(texts).filter_map(|(sent, text)| cap_entry(sent, text?)).collect(),
        rules: hashes.into_iter().map(rule).collect(),
        readings,
    })
}

fn at_of(row: &Journaled) -> Option<Wall> {
    match &row.entry {
        state::Entry::Transition(transition) => Some(transition.at.wall),
        state::Entry::Call(change) => Some(change.at),
        state::Entry::Incident(change) => Some(change.at),
        state::Entry::Damaged(_) => None,
    }
}

fn value(of: &impl Serialize) -> Value {
    // Wire types are plain structs of text and finite numbers.
    serde_json::to_value(of).expect("wire types become JSON")
}

/// Under the name of its order, which has no letter that a file may not have.
fn cap_entry(sent: &Sent, xml: String) -> Option<Entry> {
    let Some(OrderBody::Cap(_)) = &sent.body else { return None };
    let name: String = sent.id.as_str().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    Some(Entry { name: format!("cap/{}.xml", name.get(..80).unwrap_or(&name)), bytes: xml.into_bytes() })
}

fn message(writer: Writer<'_>, sent: &Sent, text: Option<&str>) -> Value {
    let body = match &sent.body {
        None => json!({ "damaged": true }),
        Some(OrderBody::Event(transition)) => json!({ "event": value(&writer.transition(transition)) }),
        Some(OrderBody::Call(change)) => json!({ "call": value(&writer.call_change(change)) }),
        Some(OrderBody::Cap(cap)) => json!({ "cap": {
            "msgType": match cap.message {
                CapMessage::Alert => "Alert",
                CapMessage::Update => "Update",
                CapMessage::Cancel => "Cancel",
            },
            "identifier": cap.identifier,
            "sent": writer.at(cap.sent),
            "references": cap.references.iter().map(|earlier| &earlier.identifier).collect::<Vec<_>>(),
            "alarm": value(&writer.alarm(&cap.alarm)),
        }}),
        Some(OrderBody::Siren(siren)) => json!({ "siren": {
            "on": siren.on,
            "at": writer.at(siren.at),
            "until": writer.at(siren.until),
            "alarm": value(&writer.alarm(&siren.alarm)),
        }}),
    };
    let as_sent = text.is_some().then_some(sent.text.is_some());
    // A CAP message is a file of its own.
    let text = text.filter(|_| !matches!(sent.body, Some(OrderBody::Cap(_))));
    json!({
        "order": sent.id.as_str(), "way_out": &*sent.channel, "state": reached(sent),
        "at": sent.at.map(|at| writer.at(at)), "receipt": sent.detail, "text": text, "as_sent": as_sent,
        "recipients": recipients_of(sent, writer),
        "body": body,
    })
}

/// The package and its seal.
fn pack(records: &Records, zone: &TimeZone, masked: bool) -> (Vec<u8>, String) {
    let hide = |of: &Value| {
        let mut of = of.clone();
        if masked {
            mask(&mut of);
        }
        of
    };
    let [incident, timeline, dispatch, messages] =
        [&records.incident, &records.timeline, &records.dispatch, &records.messages].map(hide);
    let html = written(records, [&incident, &timeline, &dispatch, &messages], zone, masked);
    let json = |name: &str, of: &Value| {
        let mut bytes = serde_json::to_vec_pretty(of).expect("it is JSON already");
        bytes.push(b'\n');
        Entry { name: name.to_owned(), bytes }
    };
    let about = json!({
        "kind": "incident", "incident": records.id.to_string(), "site": records.site["site"], "masked": masked,
        "older_rows_left_out": records.left_out,
        "readings_left_out": records.readings.iter().map(|of| of.left_out).sum::<u64>(),
    });
    let mut entries = vec![
        Entry { name: "report.html".to_owned(), bytes: html.into_bytes() },
        json("incident.json", &incident),
        json("timeline.json", &timeline),
        json("dispatch.json", &dispatch),
        json("messages.json", &messages),
        Entry { name: "readings.csv".to_owned(), bytes: csv(&records.readings, zone).into_bytes() },
        json("rules.json", &records.rules),
        json("site.json", &records.site),
    ];
    // Their text names people and telephones as they were sent; what is masked elsewhere is not given away by them.
    if !masked {
        entries.extend(records.caps.iter().cloned());
    }
    package::write(about, &entries)
}

fn csv(readings: &[Measured], zone: &TimeZone) -> String {
    let mut out = "point,unit,time,value,quality,reason\r\n".to_owned();
    let quoted = |text: &str| match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    };
    for Measured { point, unit, samples, .. } in readings {
        for (at, number, quality) in samples {
            let number = number.map_or_else(String::new, |number| number.to_string());
            let (quality, reason) = (quality.as_str(), quality.reason());
            let at = stamp(*at, zone);
            // Writing into a String does not fail.
            let _ = write!(out, "{},{},{at},{number},{quality},{reason}\r\n", quoted(point.as_str()), quoted(unit));
        }
    }
    out
}

/// Leaves out people's names, and what looks like a telephone number in anybody's words.
fn mask(of: &mut Value) {
    const NAMES: [&str; 4] = ["by", "who", "people", "photos"];
    const WORDS: [&str; 6] = ["text", "why", "zh", "en", "receipt", "detail"];
    match of {
        Value::Array(all) => all.iter_mut().for_each(mask),
        Value::Object(fields) => {
            // What somebody has called a case.
            let by_hand = fields.get("case").filter(|case| case["by_hand"] == true);
            if let Some(kind) = by_hand.and_then(|case| CaseKind::named(case["kind"].as_str()?)) {
                fields.insert("title".to_owned(), json!({ "zh": kind.zh(), "en": kind.en() }));
            }
            for (key, field) in fields {
                match field {
                    Value::Object(case) if key == "case" => {
                        case.entry("owner").and_modify(|owner| {
                            if owner.is_string() {
                                *owner = hidden();
                            }
                        });
                    }
                    Value::Array(crew) if key == "crew" => {
                        let said = crew.iter_mut().filter_map(Value::as_object_mut).flat_map(|one| one.values_mut());
                        said.for_each(|said| *said = hidden());
                    }
                    Value::String(name) if NAMES.contains(&key.as_str()) && name != "anmin" => *field = hidden(),
                    Value::Array(names) if NAMES.contains(&key.as_str()) => {
                        names.iter_mut().for_each(|name| *name = hidden());
                    }
                    // What people wrote down may name anybody.
                    Value::String(words) if ["text", "why", "skipped"].contains(&key.as_str()) && !words.is_empty() => {
                        *field = hidden();
                    }
                    Value::String(words) if WORDS.contains(&key.as_str()) => *words = without_phones(words),
                    other => mask(other),
                }
            }
        }
        _ => {}
    }
}

fn hidden() -> Value {
    "***".into()
}

/// Seven digits or more in a row, with blanks and dashes between them, that are neither a day nor the number of a standard.
fn without_phones(text: &str) -> String {
    /// `2026-01-31`, and `50493-2019` behind the letters of `GB/T`.
    fn is_no_phone(word: &str, before: &str) -> bool {
        let parts: Vec<&str> = word.split('-').collect();
        match *parts {
            [number, year] => is_standard(before) && number.len() <= 6 && is_year(year),
            [year, month, day] => is_year(year) && within(month, 12) && within(day, 31),
            _ => false,
        }
    }
    /// Behind the letters of a body that issues standards.
    fn is_standard(before: &str) -> bool {
        const BODIES: [&str; 10] = ["AQ", "CJ", "CJJ", "DB", "GA", "GB", "IEC", "ISO", "JGJ", "XF"];
        let before = before.trim_end().trim_end_matches("/T");
        BODIES.iter().any(|body| {
            let rest = before.strip_suffix(body);
            rest.is_some_and(|rest| !rest.ends_with(|c: char| c.is_ascii_alphanumeric()))
        })
    }
    fn is_year(word: &str) -> bool {
        word.len() == 4 && (word.starts_with("19") || word.starts_with("20"))
    }
    fn within(word: &str, most: u32) -> bool {
        word.len() == 2 && word.parse::<u32>().is_ok_and(|n| (1..=most).contains(&n))
    }
    fn put(out: &mut String, run: &str) {
        let (word, rest) = run.split_at(run.find(' ').unwrap_or(run.len()));
        if is_no_phone(word, out) {
            out.push_str(word);
            let blanks = rest.len() - rest.trim_start_matches(' ').len();
            out.push_str(&rest[..blanks]);
            if !rest[blanks..].is_empty() {
                put(out, &rest[blanks..]);
            }
        } else if run.chars().filter(char::is_ascii_digit).count() >= 7 {
            out.push_str("***");
            out.push_str(&run[run.trim_end_matches([' ', '-']).len()..]);
        } else {
            out.push_str(run);
        }
    }
    let mut out = String::new();
    let mut run = String::new();
    let end = |out: &mut String, run: &mut String| {
        put(out, run);
        run.clear();
    };
    for letter in text.chars() {
        if letter.is_ascii_digit() || (!run.is_empty() && matches!(letter, '-' | ' ')) {
            run.push(letter);
        } else {
            end(&mut out, &mut run);
            out.push(letter);
        }
    }
    end(&mut out, &mut run);
    out
}

/// The report, in both languages.
fn written(
    records: &Records,
    [incident, timeline, dispatch, messages]: [&Value; 4],
    zone: &TimeZone,
    masked: bool,
) -> String {
    let both = |of: &Value| anmin_rules::rule::Text { zh: words(&of["zh"]), en: words(&of["en"]) };
    let title = both(&incident["title"]);
    let title = anmin_rules::rule::Text {
        zh: format!("事件报告：{}", title.zh),
        en: format!("Incident report: {}", title.en),
    };
    report::document(&title, |language, page| {
        let say = |of: &Value| words(&of[language.pick("zh", "en")]);
        let pick = |zh: &'static str, en: &'static str| language.pick(zh, en).to_owned();
        let named = |word: &Value| name(&words(word), language);
        if !incident["drill"].is_null() || records.site["exercise"] == true {
            page.mark(language.pick("演练，没有真实险情", "DRILL, nobody was in danger"));
        }
        page.title(language.of(&title));
        let end = &incident["end"];
        let outcome = match end.is_null() {
            true => pick("未结案", "not closed"),
            false => format!("{} {}", named(&end["outcome"]), named(&end["cause"])).trim().to_owned(),
        };
        let case = incident["case"]["kind"].as_str().and_then(CaseKind::named).map(|kind| {
            let stage = incident["case"]["stage"].as_str().and_then(Stage::named);
            let stage = stage.map_or("", |stage| language.pick(stage.zh(), stage.en()));
            let owner = words(&incident["case"]["owner"]);
            let all = [language.pick(kind.zh(), kind.en()), stage, &owner];
            let said = all.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" · ");
            (language.pick("类别", "Kind"), said)
        });
        page.facts(case.into_iter().chain([
            (language.pick("社区", "Community"), say(&records.site["name"])),
            (language.pick("地点", "Place"), say(&incident["place"])),
            (language.pick("最高级别", "Highest level"), named(&incident["peak"])),
            (language.pick("开始", "Began"), moment(&incident["opened_at"])),
            (language.pick("结案", "Closed"), moment(&end["at"])),
            (language.pick("性质", "It was"), outcome),
            (language.pick("说明", "In words"), words(&end["why"])),
            (language.pick("结案人", "Closed by"), words(&end["by"])),
            (language.pick("报警数", "Alarms"), incident["alarms"].to_string()),
            (language.pick("编号", "Id"), records.id.to_string()),
        ]));
        if masked {
            page.fine(
                language.pick("人员姓名、电话和书面记录已隐去。", "Names, telephone numbers and notes are left out."),
            );
        }
        if records.left_out {
            page.fine(language.pick("较早的记录未列入。", "Older records are left out."));
        }
        let notes = incident["notes"].as_array().filter(|notes| !notes.is_empty());
        if let Some(notes) = notes {
            page.heading(language.pick("记录", "Notes"));
            let heads = [language.pick("时刻", "At"), language.pick("人员", "By"), language.pick("内容", "Words")];
            page.table(
                &heads,
                notes.iter().map(|note| {
                    let photos = note["photos"].as_array().into_iter().flatten().map(words);
                    let photos = photos.map(|photo| format!("{}{photo}", language.pick("照片：", "photo: ")));
                    let said: Vec<String> = std::iter::once(words(&note["text"])).chain(photos).collect();
                    [moment(&note["at"]), words(&note["by"]), said.join("; ")].map(Cell::Words)
                }),
            );
        }
        let steps = incident["checklist"].as_array().filter(|steps| !steps.is_empty());
        if let Some(steps) = steps {
            page.heading(language.pick("处置清单", "Checklist"));
            let heads = [
                language.pick("步骤", "Step"),
                language.pick("责任方", "Owner"),
                language.pick("时限", "Due"),
                language.pick("完成", "Done"),
                language.pick("人员", "By"),
                language.pick("结果", "Result"),
            ];
            page.table(
                &heads,
                steps.iter().map(|step| {
                    let skipped = words(&step["skipped"]);
                    let result = match (step["done_at"].is_null(), skipped.is_empty(), step["late"] == true) {
                        (false, true, _) => Cell::Verdict(true, pick("已完成", "done")),
                        (_, false, _) => Cell::Words(format!("{}{skipped}", pick("无需：", "not needed: "))),
                        (true, _, true) => Cell::Verdict(false, pick("超时未完成", "late")),
                        (true, _, false) => Cell::Words(pick("未完成", "not done")),
                    };
                    [
                        Cell::Words(say(&step["text"])),
                        Cell::Words(name(&words(&step["owner"]), language)),
                        Cell::Words(moment(&step["due"])),
                        Cell::Words(moment(&step["done_at"])),
                        Cell::Words(words(&step["by"])),
                        result,
                    ]
                }),
            );
        }
        let called = &incident["called_119"];
        if !called.is_null() {
            page.line(&format!(
                "{} {} {} {}",
                language.pick("已拨打 119：", "119 was called:"),
                moment(&called["at"]),
                words(&called["by"]),
                words(&called["text"])
            ));
        }
        page.heading(language.pick("经过", "What happened"));
        history(language, page, timeline);
        page.heading(language.pick("判定依据", "What the verdicts rest on"));
        grounds(language, page, timeline);
        page.heading(language.pick("调派", "Stations"));
        let heads = [
            language.pick("消防站", "Station"),
            language.pick("状态", "State"),
            language.pick("时刻", "At"),
            language.pick("人员", "By"),
            language.pick("原因", "Why"),
        ];
        let steps = dispatch
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|call| call["steps"].as_array().into_iter().flatten().map(move |step| (call, step)));
        page.table(
            &heads,
            steps.map(|(call, step)| {
                [
                    say(&call["station_names"]),
                    named(&step["state"]),
                    moment(&step["at"]),
                    words(&step["by"]),
                    words(&step["why"]),
                ]
                .map(Cell::Words)
            }),
        );
        page.heading(language.pick("发出的消息及回执", "Messages and their receipts"));
        let heads = [
            language.pick("通道", "Way out"),
            language.pick("消息", "Message"),
            language.pick("状态", "State"),
            language.pick("时刻", "At"),
            language.pick("回执", "Receipt"),
        ];
        let receipt = |of: &Value| match (language, words(of)) {
            (Language::Zh, said) if said == "acknowledged by the broker" => "消息服务器已确认".to_owned(),
            (_, said) => said,
        };
        page.table(
            &heads,
            messages.as_array().into_iter().flatten().map(|sent| {
                let body = &sent["body"];
                let said =
                    [&body["event"]["alarm"]["message"], &body["call"]["message"], &body["cap"]["alarm"]["message"]];
                let said = said.into_iter().map(say).find(|said| !said.is_empty()).unwrap_or_default();
                let kind = words(&body["cap"]["msgType"]);
                let said = if kind.is_empty() { said } else { format!("CAP {kind}: {said}") };
                [words(&sent["way_out"]), said, named(&sent["state"]), moment(&sent["at"]), receipt(&sent["receipt"])]
                    .map(Cell::Words)
            }),
        );
        page.heading(language.pick("前后读数", "Readings around it"));
        let heads = [
            language.pick("测点", "Point"),
            language.pick("读数", "Readings"),
            language.pick("未列入", "Left out"),
            language.pick("最小", "Least"),
            language.pick("最大", "Most"),
            language.pick("单位", "Unit"),
            language.pick("起", "From"),
            language.pick("止", "To"),
        ];
        page.table(
            &heads,
            records.readings.iter().map(|Measured { point, unit, samples, left_out }| {
                let numbers = || samples.iter().filter_map(|(_, number, _)| *number);
                let number =
                    |found: Option<f64>| Cell::Number(found.map_or_else(String::new, |number| number.to_string()));
                let at = |sample: Option<&Raw>| {
                    Cell::Words(sample.map_or_else(String::new, |(at, ..)| report::moment(*at, zone)))
                };
                [
                    Cell::from(point.as_str()),
                    Cell::Number(samples.len().to_string()),
                    Cell::Number(left_out.to_string()),
                    number(numbers().reduce(f64::min)),
                    number(numbers().reduce(f64::max)),
                    Cell::from(unit.as_str()),
                    at(samples.first()),
                    at(samples.last()),
                ]
            }),
        );
        page.heading(language.pick("规则与配置", "Rules and configuration"));
        let heads = [
            language.pick("规则", "Rule"),
            language.pick("判定时的版本", "Version when judged"),
            language.pick("现行版本", "Version now"),
        ];
        page.table(
            &heads,
            records.rules.as_array().into_iter().flatten().map(|rule| {
                let seen: Vec<String> =
                    rule["hashes_when_judged"].as_array().into_iter().flatten().map(words).collect();
                [words(&rule["rule"]), seen.join(" "), words(&rule["in_force"]["hash"])].map(Cell::Words)
            }),
        );
        page.fine(&format!(
            "anmin {} · SHA-256 {}",
            words(&records.site["anmin"]),
            words(&records.site["configuration_sha256"])
        ));
        page.fine(language.pick(
            "本报告是事件档案包的一部分；用 anmin verify 可在任何机器上核对整个档案包。",
            "This report is part of the incident's package; `anmin verify` checks the whole package on any machine.",
        ));
    })
}

fn history(language: Language, page: &mut Page, timeline: &Value) {
    let heads = [
        language.pick("时刻", "At"),
        language.pick("事项", "What"),
        language.pick("内容", "Words"),
        language.pick("人员", "By"),
    ];
    let say = |of: &Value| words(&of[language.pick("zh", "en")]);
    let rows = timeline.as_array().into_iter().flatten().map(|row| {
        let (transition, call, incident) = (&row["transition"], &row["call"], &row["incident"]);
        let cells = if !transition.is_null() {
            let what = cause(&words(&transition["cause"]), language);
            let by = [words(&transition["by"]), words(&transition["why"])].into_iter().filter(|word| !word.is_empty());
            let what = format!("{what} · {}", name(&words(&transition["alarm"]["level"]), language));
            [moment(&transition["at"]), what, say(&transition["alarm"]["message"]), by.collect::<Vec<_>>().join("；")]
        } else if !call.is_null() {
            [moment(&call["at"]), name(&words(&call["call"]["state"]), language), say(&call["message"]), String::new()]
        } else if !incident.is_null() {
            let mut what =
                format!("{}{}", language.pick("", "incident: "), cause(&words(&incident["cause"]), language));
            let stage = incident["incident"]["case"]["stage"].as_str().and_then(Stage::named);
            if let Some(stage) = stage.filter(|_| incident["cause"] == "staged") {
                let _ = write!(what, " · {}", language.pick(stage.zh(), stage.en()));
            }
            [moment(&incident["at"]), what, say(&incident["incident"]["title"]), words(&incident["by"])]
        } else {
            let what = language.pick("记录已损坏", "damaged record").to_owned();
            [String::new(), what, words(&row["damaged"]), String::new()]
        };
        cells.map(Cell::Words)
    });
    page.table(&heads, rows);
}

/// Why each verdict was given: inputs, windows, limits, and the version of the rule.
fn grounds(language: Language, page: &mut Page, timeline: &Value) {
    let heads = [
        language.pick("时刻", "At"),
        language.pick("规则", "Rule"),
        language.pick("判定", "Said"),
        language.pick("输入", "Inputs"),
        language.pick("限值及依据", "Limits and their sources"),
    ];
    let verdicts = timeline.as_array().into_iter().flatten().map(|row| &row["transition"]);
    let judged = verdicts.filter(|transition| transition["evidence"].is_object());
    let shown = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => "–".to_owned(),
        other => other.to_string(),
    };
    page.table(
        &heads,
        judged.map(|transition| {
            let evidence = &transition["evidence"];
            let list = |of: &Value, one: &dyn Fn(&Value) -> String| {
                of.as_array().into_iter().flatten().map(one).collect::<Vec<_>>().join("; ")
            };
            let input = |input: &Value| {
                format!("{} {} {}", words(&input["point"]), shown(&input["value"]), words(&input["unit"]))
            };
            let window = |window: &Value| {
                format!("{} {} {}", words(&window["name"]), shown(&window["value"]), words(&window["unit"]))
            };
            let inputs = [list(&evidence["inputs"], &input), list(&evidence["windows"], &window)];
            let limit = |limit: &Value| {
                let origin = words(&limit["origin"]);
                let origin = Origin::named(&origin).map_or(&*origin, |known| language.pick(known.zh(), known.as_str()));
                let source = words(&limit["source"][language.pick("zh", "en")]);
                let from = [origin, &source].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ");
                let value = limit["value"].as_f64().unwrap_or(f64::NAN);
                format!("{} {value} {} ({from})", name(&words(&limit["name"]), language), words(&limit["unit"]))
            };
            [
                moment(&transition["at"]),
                format!("{} {}", words(&transition["alarm"]["rule"]), words(&evidence["rule_hash"])),
                name(&words(&evidence["said"]), language),
                inputs.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("；"),
                list(&evidence["limits"], &limit),
            ]
            .map(Cell::Words)
        }),
    );
}

fn words(of: &Value) -> String {
    of.as_str().unwrap_or_default().to_owned()
}

/// `2026-01-31 08:00:00` out of the API's stamp.
fn moment(of: &Value) -> String {
    let stamp = words(of);
    match (stamp.get(..10), stamp.get(11..19)) {
        (Some(day), Some(time)) => format!("{day} {time}"),
        _ => stamp,
    }
}

/// A word of the records in the words of a report.
pub(super) fn name(word: &str, language: Language) -> String {
    use anmin_rules::incident::{FalseCause, Outcome};
    use anmin_rules::order::CallState;
    use anmin_rules::rule::Level;
    let call = CallState::ALL.into_iter().find(|state| state.as_str() == word).map(CallState::zh);
    let zh = Level::named(word).map(Level::zh).or(call).or(match word {
        "false_alarm" => Some(Outcome::FalseAlarm(FalseCause::Other).zh()),
        "unexplained" => Some(Outcome::Unexplained.zh()),
        "drill" => Some(Outcome::Drill.zh()),
        "officer" => Some("值班员"),
        "crew" => Some("微站队员"),
        "property" => Some("物业"),
        "grid" => Some("网格员"),
        "utility" => Some("专业单位"),
        "normal" => Some("正常"),
        "undetermined" => Some("无法判定"),
        "accepted" => Some("已接收"),
        "delivered" => Some("已送达"),
        "read" => Some("已读"),
        "answered" => Some("已接听应答"),
        "failed" => Some("未能送达"),
        "left_out" => Some("未被接收"),
        "waiting" => Some("待发送"),
        "dead" => Some("未能送达"),
        _ => Outcome::named(word).map(Outcome::zh).or(FalseCause::named(word).map(FalseCause::zh)),
    });
    match language {
        Language::Zh => zh.unwrap_or(word).to_owned(),
        Language::En => word.replace('_', " "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masking_leaves_out_names_notes_and_telephones_and_nothing_else() {
        let mut of = json!({
            "id": "0195506b-f3c0-7000-8000-000000000001",
            "at": "2026-01-31T08:00:00.000+08:00",
            "acknowledged": { "by": "李值班", "at": "x" },
            "people": ["李值班", "王"],
            "crew": [{ "id": "wangqiang", "name": "王强", "phone": "139" }],
            "checklist": [{ "skipped": "刘大爷说已关阀" }],
            "end": { "by": "anmin", "why": "李值班到场" },
            "notes": [{ "by": "王", "text": "电话 13812345678", "photos": ["https://photos.example.cn/501"] }],
            "message": { "zh": "已呼叫一号站（电话 0571-88886666），须在 60 秒内应答", "en": "26.5 %LEL above 25" },
            "source": {
                "zh": "GB/T 50493-2019 5.5.2，2026-01-31 起；电话 138 1234 5679，8765-43-21",
                "en": "GB 15322.1-2019; QQ 88886667; TEL 8888-1999",
            },
            "incident": {
                "title": { "zh": "何女士投诉楼上", "en": "何女士投诉楼上" }, "hazards": ["care"],
                "case": { "kind": "mediation", "stage": "mediating", "owner": "赵调解", "by_hand": true },
                "checklist": [{ "owner": "grid" }],
            },
        });
        mask(&mut of);
        let text = of.to_string();
        for gone in [
            "李值班",
            "王",
            "wangqiang",
            "139\"",
            "刘大爷",
            "13812345678",
            "88886666",
            "photos.example.cn",
            "5679",
            "8765",
            "8888-1999",
            "88886667",
            "何女士",
            "赵调解",
        ] {
            assert!(!text.contains(gone), "{gone} in {text}");
        }
        for kept in [
            "0195506b-f3c0",
            "2026-01-31T08:00:00.000",
            "anmin",
            "一号站（电话 ***），须在 60 秒内",
            "26.5 %LEL above 25",
            "GB/T 50493-2019 5.5.2，2026-01-31 起；电话 ***，***",
            "GB 15322.1-2019; QQ ***; TEL ***",
            "矛盾调解",
            "mediating",
            "\"grid\"",
        ] {
            assert!(text.contains(kept), "{kept} not in {text}");
        }
    }
}
