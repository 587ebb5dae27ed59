//! The JSON of alarm events and states, version 1: what MQTT and webhooks carry.
//!
//! The schema is published as `gateway/schema/alarm-event-v1.json` and embedded as [`SCHEMA`]. Within version 1 fields
//! may be added, never removed or given another meaning. Five documents share it, told apart by `type`:
//!
//! - `alarm.event`: one transition. `order` is the idempotency key: a receiver that remembers it acts once.
//! - `alarm.state`: the alarm as it stands, for whoever comes later; the same fields without what changed.
//! - `call.event`: one change of one call of a micro fire station.
//! - `status`: whether anmin is there.
//! - `heartbeat`: that it is alive, how its alarms stand and what is in trouble; see [`super::heartbeat`].
//! - `events`: several `alarm.event` and `call.event` in order, as subscribers get them.
//! - `test`: a person tries the way to a subscriber; nobody is in danger.
//!
//! Every moment is given twice: RFC 3339 with the site's offset for people, milliseconds since 1970 for machines.
//! `reading` names the point, the source time and the sequence of the reading that an alarm rests on, so that any tool
//! can match the two.

use anmin_rules::alarm::{Alarm, By, Cause, Subject, Transition};
use anmin_rules::broadcast::BroadcastStep;
use anmin_rules::order::{Call, CallChange, OrderId};
use anmin_rules::rule::{Level, Text};
use anmin_sensors::point::Place;
use anmin_sensors::reading::Value;
use anmin_sensors::time::Wall;
use jiff::tz::{Offset, TimeZone};
use jiff::{Timestamp, ZonedDateTime};
use serde::Serialize;

use super::Site;
use super::heartbeat::{self, Heartbeat};

/// Version of the documents, in each as `schema`.
pub const VERSION: &str = "1";

/// The JSON Schema of all of them.
pub const SCHEMA: &str = include_str!("../../schema/alarm-event-v1.json");

/// One transition as `alarm.event`.
pub fn alarm_event(site: &Site, order: &OrderId, transition: &Transition) -> Vec<u8> {
    let zone = &site.time_zone;
    encode(&AlarmDocument {
        kind: "alarm.event",
        order: Some(order.as_str()),
        change: Some(ChangeDocument {
            cause: transition.cause.as_str(),
            by: by_of(&transition.cause),
            why: why_of(transition),
            from: transition.from.as_str(),
            from_level: match &transition.cause {
                Cause::LevelChanged(level) => Some(level.as_str()),
                _ => None,
            },
            escalation_step: match &transition.cause {
                Cause::Escalated { step, .. } => Some(*step),
                _ => None,
            },
            at: Moment::new(transition.at.wall, zone),
        }),
        ..AlarmDocument::new(site, &transition.alarm)
    })
}

/// The alarm as it stands as `alarm.state`.
pub fn alarm_state(site: &Site, alarm: &Alarm) -> Vec<u8> {
    encode(&AlarmDocument::new(site, alarm))
}

/// One change of one call as `call.event`.
pub fn call_event(site: &Site, order: &OrderId, change: &CallChange) -> Vec<u8> {
    let zone = &site.time_zone;
    let Call {
        alarm: _,
        station,
        station_name,
        state,
        stamps,
        respond_by,
        arrive_by,
        control_by,
        late,
        not_controlled,
        crew,
        round: _,
        seq,
    } = &change.call;
    encode(&CallDocument {
        schema: VERSION,
        kind: "call.event",
        site: &site.id,
        exercise: site.exercise || change.alarm.drill.is_some(),
        order: order.as_str(),
        seq: *seq,
        cause: change.cause.as_str(),
        at: Moment::new(change.at, zone),
        message: (&change.message).into(),
        station,
        station_name: &station_name.zh,
        station_names: station_name.into(),
        state: state.as_str(),
        late: *late,
        respond_by: Moment::new(*respond_by, zone),
        arrive_by: Moment::new(*arrive_by, zone),
        control_by: Moment::new(*control_by, zone),
        not_controlled: *not_controlled,
        crew: crew.iter().map(|member| CrewDocument { id: &member.id, name: &member.name }).collect(),
        steps: stamps
            .iter()
            .map(|stamp| StepDocument {
                state: stamp.state.as_str(),
                at: Moment::new(stamp.at, zone),
                by: &stamp.by,
                why: &stamp.why,
            })
            .collect(),
        alarm: AlarmDocument::new(site, &change.alarm),
    })
}

/// Whether anmin is there as `status`; the broker says the other one when the connection breaks.
pub fn status(site: &Site, online: bool) -> Vec<u8> {
    encode(&StatusDocument {
        schema: VERSION,
        kind: "status",
        site: &site.id,
        exercise: site.exercise,
        online,
        version: env!("CARGO_PKG_VERSION"),
    })
}

/// That anmin is alive, as `heartbeat`.
pub fn heartbeat(site: &Site, beat: &Heartbeat<'_>) -> Vec<u8> {
    let Heartbeat { sequence, at, started, status, told } = beat;
    let at_level = |level| status.counts.at(level);
    encode(&HeartbeatDocument {
        schema: VERSION,
        kind: "heartbeat",
        site: &site.id,
        exercise: site.exercise,
        version: env!("CARGO_PKG_VERSION"),
        sequence: *sequence,
        at: Moment::new(*at, &site.time_zone),
        started: Moment::new(*started, &site.time_zone),
        every_seconds: heartbeat::EVERY.as_secs(),
        alarms: AlarmsDocument {
            open: status.counts.open,
            red: at_level(Level::Red),
            orange: at_level(Level::Orange),
            yellow: at_level(Level::Yellow),
            blue: at_level(Level::Blue),
        },
        orders_waiting: status.orders_waiting,
        troubles: status
            .troubles
            .iter()
            .map(|trouble| TroubleDocument {
                part: &trouble.part,
                level: trouble.level.as_str(),
                message: (&trouble.message).into(),
            })
            .collect(),
        subscriber: told.as_ref().map(|told| told.0),
        last: told.as_ref().map(|told| told.1.as_str()),
    })
}

/// Events of a subscription, each with its id and its document, as `events`. `next` is the position behind them.
pub fn events(site: &Site, subscriber: &str, events: &[(String, &[u8])], next: &str, more: bool) -> Vec<u8> {
    let head = encode(&EventsDocument { schema: VERSION, kind: "events", site: &site.id, subscriber, next, more });
    // The documents are JSON already: they go into the list as they are.
    let mut body = head.strip_suffix(b"}").map(<[u8]>::to_vec).unwrap_or_default();
    body.extend_from_slice(b",\"events\":[");
    for (n, (id, document)) in events.iter().enumerate() {
        body.extend_from_slice(if n == 0 { b"{\"id\":" } else { b",{\"id\":" });
        body.extend(encode(&id));
        body.extend_from_slice(b",\"event\":");
        body.extend_from_slice(document);
        body.push(b'}');
    }
    body.extend_from_slice(b"]}");
    body
}

/// A person tries the way to a subscriber, as `test`.
pub fn test(site: &Site, subscriber: &str, id: &str, by: &str, at: Wall) -> Vec<u8> {
    let message = Text {
        zh: format!("【测试】{by} 正在测试到 {subscriber} 的通道，没有真实险情，请忽略"),
        en: format!("TEST: {by} tries the way to {subscriber}; nobody is in danger, disregard"),
    };
    encode(&TestDocument {
        schema: VERSION,
        kind: "test",
        site: &site.id,
        exercise: site.exercise,
        subscriber,
        id,
        by,
        at: Moment::new(at, &site.time_zone),
        message: (&message).into(),
    })
}

/// RFC 3339 with milliseconds and the zone's offset; years before 1 and after 9999 become the ends of the calendar.
pub fn rfc3339(at: Wall, zone: &TimeZone) -> String {
    local(at, zone).strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string()
}

/// The moment in the zone, in whole milliseconds. Offsets of the nineteenth century had seconds, which neither RFC 3339
/// nor CAP can write: they are cut to minutes, the moment stays the same.
pub(super) fn local(at: Wall, zone: &TimeZone) -> ZonedDateTime {
    // 0001-01-02 UTC, so that no offset reaches the year 0; the other end lies as far inside by jiff's own limit.
    const FIRST_MS: i64 = -62_135_510_400_000;
    let stamp = Timestamp::from_millisecond(at.millis().max(FIRST_MS)).unwrap_or(Timestamp::MAX);
    let offset = zone.to_offset(stamp).seconds();
    let whole = Offset::from_seconds(offset - offset % 60).unwrap_or(Offset::UTC);
    stamp.to_zoned_datetime(TimeZone::fixed(whole))
}

fn encode(document: &impl Serialize) -> Vec<u8> {
    // Serde fails on maps with odd keys and on broken `Serialize`s; these are plain structs of text and finite numbers.
    serde_json::to_vec(document).expect("plain structs become JSON")
}

fn by_of(cause: &Cause) -> Option<&str> {
    match cause {
        Cause::Acknowledged { by }
        | Cause::Reset { by }
        | Cause::Shelved { by }
        | Cause::TakenOutOfService { by, .. }
        | Cause::ReturnedToService { by } => Some(by),
        Cause::Unshelved { by }
        | Cause::Regrouped { by }
        | Cause::Escalated { by, .. }
        | Cause::Broadcast { by, .. } => by.as_deref(),
        _ => None,
    }
}

fn why_of(transition: &Transition) -> Option<&str> {
    match &transition.cause {
        Cause::TakenOutOfService { why, .. } | Cause::Escalated { by: Some(_), why, .. } => Some(why),
        Cause::Shelved { .. } => transition.alarm.shelved.as_ref().map(|shelf| shelf.why.as_str()),
        Cause::Broadcast { step: BroadcastStep::Refused | BroadcastStep::TakenBack, .. } => {
            transition.alarm.broadcast.as_ref().and_then(|broadcast| broadcast.no.as_ref()).map(|no| no.why.as_str())
        }
        _ => None,
    }
}

#[derive(Serialize)]
struct Moment {
    time: String,
    unix_ms: i64,
}

impl Moment {
    fn new(at: Wall, zone: &TimeZone) -> Self {
        Self { time: rfc3339(at, zone), unix_ms: at.millis() }
    }
}

#[derive(Serialize)]
struct TextDocument<'a> {
    zh: &'a str,
    en: &'a str,
}

impl<'a> From<&'a Text> for TextDocument<'a> {
    fn from(text: &'a Text) -> Self {
        Self { zh: &text.zh, en: &text.en }
    }
}

#[derive(Serialize)]
struct AlarmDocument<'a> {
    schema: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    site: &'a str,
    exercise: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    drill: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    order: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    change: Option<ChangeDocument<'a>>,
    alarm: String,
    seq: u32,
    rule: &'a str,
    subject: &'a str,
    subject_type: &'static str,
    device: Option<&'a str>,
    point: Option<&'a str>,
    class: &'static str,
    incident: Option<String>,
    level: &'static str,
    peak: &'static str,
    state: &'static str,
    open: bool,
    active: bool,
    latched: bool,
    title: TextDocument<'a>,
    message: TextDocument<'a>,
    advice: TextDocument<'a>,
    place: PlaceDocument<'a>,
    reading: ReadingDocument<'a>,
    raised_at: Moment,
    changed_at: Moment,
    clock_doubtful: bool,
    acknowledged: Option<ByDocument<'a>>,
    shelved: Option<ShelfDocument<'a>>,
    out_of_service: Option<ByDocument<'a>>,
    escalation: u32,
}

impl<'a> AlarmDocument<'a> {
    fn new(site: &'a Site, alarm: &'a Alarm) -> Self {
        let zone = &site.time_zone;
        let (subject_type, device, point) = match &alarm.subject {
            // A point's id is `device/name`, and a device's id holds no slash.
            Subject::Point(id) => ("point", id.as_str().split_once('/').map(|(device, _)| device), Some(id.as_str())),
            Subject::Device(id) => ("device", Some(id.as_str()), None),
            Subject::Part(_) => ("part", None, None),
        };
        let by = |by: &'a By| ByDocument { by: &by.who, at: Moment::new(by.at, zone) };
        Self {
            schema: VERSION,
            kind: "alarm.state",
            site: &site.id,
            exercise: site.exercise || alarm.drill.is_some(),
            drill: alarm.drill.map(|drill| drill.to_string()),
            order: None,
            change: None,
            alarm: alarm.id.to_string(),
            seq: alarm.seq,
            rule: alarm.rule.as_str(),
            subject: alarm.subject.as_str(),
            subject_type,
            device,
            point,
            class: alarm.class.as_str(),
            incident: alarm.incident.map(|incident| incident.to_string()),
            level: alarm.level.as_str(),
            peak: alarm.peak.as_str(),
            state: alarm.state().as_str(),
            open: alarm.is_open(),
            active: alarm.is_active(),
            latched: alarm.latched,
            title: (&alarm.title).into(),
            message: (&alarm.message).into(),
            advice: (&alarm.advice).into(),
            place: PlaceDocument::new(&alarm.place),
            reading: ReadingDocument {
                point: alarm.evidence.point.as_ref().map(|point| point.as_str()),
                value: alarm.evidence.value.as_ref().map(ValueDocument::from),
                unit: &alarm.evidence.unit,
                limit: alarm.evidence.limit.as_ref().map(|(name, value)| LimitDocument { name, value: *value }),
                source_time: alarm.evidence.source_time.map(|at| Moment::new(at, zone)),
                sequence: alarm.evidence.sequence,
                received: Moment::new(alarm.evidence.received, zone),
            },
            raised_at: Moment::new(alarm.raised_at, zone),
            changed_at: Moment::new(alarm.changed_at, zone),
            clock_doubtful: alarm.clock_doubtful,
            acknowledged: alarm.acknowledged.as_ref().map(by),
            shelved: alarm.shelved.as_ref().map(|shelf| ShelfDocument {
                until: Moment::new(shelf.until, zone),
                by: &shelf.by,
                why: &shelf.why,
            }),
            out_of_service: alarm.out_of_service.as_ref().map(by),
            escalation: alarm.escalation,
        }
    }
}

#[derive(Serialize)]
struct ChangeDocument<'a> {
    cause: &'static str,
    by: Option<&'a str>,
    why: Option<&'a str>,
    from: &'static str,
    from_level: Option<&'static str>,
    escalation_step: Option<u32>,
    at: Moment,
}

#[derive(Serialize)]
struct PlaceDocument<'a> {
    area: &'a str,
    grid: &'a str,
    building: &'a str,
    unit: &'a str,
    floor: &'a str,
    room: &'a str,
    position: Option<PositionDocument>,
    zh: String,
    en: String,
}

#[derive(Serialize)]
struct PositionDocument {
    latitude: f64,
    longitude: f64,
}

impl<'a> PlaceDocument<'a> {
    fn new(place: &'a Place) -> Self {
        Self {
            area: &place.area,
            grid: &place.grid,
            building: &place.building,
            unit: &place.unit,
            floor: &place.floor,
            room: &place.room,
            position: place.position.map(|(latitude, longitude)| PositionDocument { latitude, longitude }),
            zh: place.zh(),
            en: place.en(),
        }
    }
}

#[derive(Serialize)]
struct ReadingDocument<'a> {
    point: Option<&'a str>,
    value: Option<ValueDocument<'a>>,
    unit: &'a str,
    limit: Option<LimitDocument<'a>>,
    source_time: Option<Moment>,
    sequence: Option<u64>,
    received: Moment,
}

#[derive(Serialize)]
struct LimitDocument<'a> {
    name: &'a str,
    value: f64,
}

#[derive(Serialize)]
#[serde(untagged)]
enum ValueDocument<'a> {
    Number(f64),
    Flag(bool),
    Text(&'a str),
}

impl<'a> From<&'a Value> for ValueDocument<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Number(number) => Self::Number(*number),
            Value::Flag(flag) => Self::Flag(*flag),
            Value::Text(text) => Self::Text(text),
        }
    }
}

#[derive(Serialize)]
struct ByDocument<'a> {
    by: &'a str,
    at: Moment,
}

#[derive(Serialize)]
struct ShelfDocument<'a> {
    until: Moment,
    by: &'a str,
    why: &'a str,
}

#[derive(Serialize)]
struct CallDocument<'a> {
    schema: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    site: &'a str,
    exercise: bool,
    order: &'a str,
    seq: u32,
    cause: &'static str,
    at: Moment,
    message: TextDocument<'a>,
    station: &'a str,
    station_name: &'a str,
    station_names: TextDocument<'a>,
    state: &'static str,
    late: bool,
    respond_by: Moment,
    arrive_by: Moment,
    control_by: Moment,
    not_controlled: bool,
    crew: Vec<CrewDocument<'a>>,
    steps: Vec<StepDocument<'a>>,
    alarm: AlarmDocument<'a>,
}

#[derive(Serialize)]
struct CrewDocument<'a> {
    id: &'a str,
    name: &'a str,
}

#[derive(Serialize)]
struct StatusDocument<'a> {
    schema: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    site: &'a str,
    exercise: bool,
    online: bool,
    version: &'static str,
}

#[derive(Serialize)]
struct HeartbeatDocument<'a> {
    schema: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    site: &'a str,
    exercise: bool,
    version: &'static str,
    sequence: u64,
    at: Moment,
    started: Moment,
    every_seconds: u64,
    alarms: AlarmsDocument,
    orders_waiting: usize,
    troubles: Vec<TroubleDocument<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscriber: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<&'a str>,
}

#[derive(Serialize)]
struct EventsDocument<'a> {
    schema: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    site: &'a str,
    subscriber: &'a str,
    next: &'a str,
    more: bool,
}

#[derive(Serialize)]
struct TestDocument<'a> {
    schema: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    site: &'a str,
    exercise: bool,
    subscriber: &'a str,
    id: &'a str,
    by: &'a str,
    at: Moment,
    message: TextDocument<'a>,
}

#[derive(Serialize)]
struct AlarmsDocument {
    open: usize,
    red: usize,
    orange: usize,
    yellow: usize,
    blue: usize,
}

#[derive(Serialize)]
struct TroubleDocument<'a> {
    part: &'a str,
    level: &'static str,
    message: TextDocument<'a>,
}

#[derive(Serialize)]
struct StepDocument<'a> {
    state: &'static str,
    at: Moment,
    by: &'a str,
    why: &'a str,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use anmin_rules::alarm::{AlarmState, Shelf};
    use serde_json::Value as Json;

    use super::*;
    use crate::main_loop::query::{Status, Trouble};
    use crate::samples::{self, RAISED, check_golden, site};

    /// Every document that version 1 knows, in the forms that differ.
    fn documents() -> Vec<(&'static str, Vec<u8>)> {
        let order = |seq: u32| OrderId::new(format!("0195506b-f3c0-7000-8000-000000000001/{seq}/office"));
        let event =
            |seq, from, cause, alarm| alarm_event(&site(), &order(seq), &samples::transition(from, cause, alarm));
        let mut part = samples::alarm();
        part.subject = Subject::Part("way-out:office".into());
        part.class = anmin_rules::alarm::Class::System;
        part.incident = None;
        part.evidence = Default::default();
        part.place = Default::default();
        let mut shelved = samples::alarm();
        shelved.shelved = Some(Shelf { until: RAISED, by: "li".to_owned(), why: "焊接作业".to_owned() });
        let mut red = samples::alarm();
        red.level = Level::Red;
        vec![
            ("raised", event(1, AlarmState::Normal, Cause::Raised, samples::alarm())),
            ("level-changed", event(2, AlarmState::Unacknowledged, Cause::LevelChanged(Level::Orange), red)),
            (
                "acknowledged",
                event(
                    3,
                    AlarmState::ReturnedUnacknowledged,
                    Cause::Acknowledged { by: "li".to_owned() },
                    samples::closed(),
                ),
            ),
            ("heartbeat", {
                let mut status = Status { orders_waiting: 2, ..Status::default() };
                status.counts.open = 3;
                status.counts.by_level = [1, 0, 1, 1];
                status.troubles.push(Trouble {
                    part: "bus:plant".into(),
                    level: Level::Yellow,
                    message: samples::text("总线 plant 无应答", "bus plant does not answer"),
                });
                heartbeat(
                    &site(),
                    &Heartbeat {
                        sequence: 7,
                        at: RAISED,
                        started: Wall::from_millis(RAISED.millis() - 210_000),
                        status: &status,
                        told: None,
                    },
                )
            }),
            ("heartbeat-subscriber", {
                let status = Status::default();
                let told = Some(("office", "1f0c4d2ab3e95877-4711".to_owned()));
                heartbeat(&site(), &Heartbeat { sequence: 1, at: RAISED, started: RAISED, status: &status, told })
            }),
            ("events", {
                let first = event(1, AlarmState::Normal, Cause::Raised, samples::alarm());
                let second = call_event(&site(), &order(6), &samples::call_change());
                let id = |n: u32| format!("1f0c4d2ab3e95877-{n}");
                let both = [(id(17), first.as_slice()), (id(19), second.as_slice())];
                events(&site(), "office", &both, &id(20), true)
            }),
            ("test", test(&site(), "office", "shequ-001/test/1772328600000000", "李值班", RAISED)),
            ("shelved", event(4, AlarmState::Unacknowledged, Cause::Shelved { by: "li".to_owned() }, shelved)),
            ("part", event(5, AlarmState::Normal, Cause::Escalated { step: 2, by: None, why: String::new() }, part)),
            ("state", alarm_state(&site(), &samples::alarm())),
            ("call", call_event(&site(), &order(6), &samples::call_change())),
            ("status", status(&site(), true)),
        ]
    }

    #[test]
    fn documents_stand_as_reviewed() {
        for (name, document) in documents() {
            let json: Json = serde_json::from_slice(&document).expect("JSON");
            let pretty = serde_json::to_string_pretty(&json).expect("JSON again");
            check_golden(&format!("events/{name}.json"), &(pretty + "\n"));
        }
    }

    #[test]
    fn documents_follow_the_published_schema() {
        let schema: Json = serde_json::from_str(SCHEMA).expect("the schema is JSON");
        for (name, document) in documents() {
            let json: Json = serde_json::from_slice(&document).expect("JSON");
            let faults = faults(&schema, &schema, &json);
            assert!(faults.is_empty(), "{name}: {faults:#?}");
        }
    }

    /// What the schema does not name is not said either, so that the published file stays whole.
    #[test]
    fn schema_names_every_field() {
        let schema: Json = serde_json::from_str(SCHEMA).expect("the schema is JSON");
        let mut named = BTreeSet::new();
        property_names(&schema, &mut named);
        for (name, document) in documents() {
            let mut used = BTreeSet::new();
            keys(&serde_json::from_slice(&document).expect("JSON"), &mut used);
            let unknown: Vec<_> = used.difference(&named).collect();
            assert!(unknown.is_empty(), "{name} says {unknown:?}, which the schema does not name");
        }
    }

    #[test]
    fn schema_refuses_what_is_not_an_event() {
        let schema: Json = serde_json::from_str(SCHEMA).expect("the schema is JSON");
        let good = alarm_state(&site(), &samples::alarm());
        for (key, value) in
            [("level", "purple".into()), ("seq", "1".into()), ("reading", Json::Null), ("schema", "2".into())]
        {
            let mut json: Json = serde_json::from_slice(&good).expect("JSON");
            json[key] = value;
            assert!(!faults(&schema, &schema, &json).is_empty(), "{key}");
        }
    }

    #[test]
    fn times_are_rfc3339_whatever_the_clock_says() {
        let shanghai = site().time_zone;
        for (at, zone, wanted) in [
            (RAISED, &shanghai, "2026-03-01T09:30:00.000+08:00"),
            (Wall::from_millis(-1), &TimeZone::UTC, "1969-12-31T23:59:59.999+00:00"),
            (Wall::from_micros(i64::MIN), &shanghai, "0001-01-02T08:00:00.000+08:00"),
            (Wall::from_micros(i64::MAX), &TimeZone::UTC, "9999-12-30T22:00:00.999+00:00"),
            (
                RAISED,
                &TimeZone::fixed(Offset::from_seconds(29_143).expect("an offset")),
                "2026-03-01T09:35:00.000+08:05",
            ),
        ] {
            assert_eq!(rfc3339(at, zone), wanted);
        }
    }

    fn keys(json: &Json, found: &mut BTreeSet<String>) {
        match json {
            Json::Object(object) => {
                for (key, value) in object {
                    found.insert(key.clone());
                    keys(value, found);
                }
            }
            Json::Array(array) => array.iter().for_each(|item| keys(item, found)),
            _ => {}
        }
    }

    fn property_names(schema: &Json, found: &mut BTreeSet<String>) {
        match schema {
            Json::Object(object) => {
                for (key, value) in object {
                    if key == "properties" {
                        found.extend(value.as_object().into_iter().flatten().map(|(name, _)| name.clone()));
                    }
                    property_names(value, found);
                }
            }
            Json::Array(array) => array.iter().for_each(|item| property_names(item, found)),
            _ => {}
        }
    }

    /// As much of JSON Schema as our own file uses.
    fn faults(root: &Json, schema: &Json, json: &Json) -> Vec<String> {
        let mut found = Vec::new();
        for (word, rule) in schema.as_object().expect("a schema is an object") {
            match word.as_str() {
                "$ref" => {
                    let pointer = rule.as_str().and_then(|text| text.strip_prefix('#')).expect("a local reference");
                    found.extend(faults(root, root.pointer(pointer).expect("it points somewhere"), json));
                }
                "type" => {
                    let is = |name: &Json| match name.as_str().expect("a type's name") {
                        "object" => json.is_object(),
                        "array" => json.is_array(),
                        "string" => json.is_string(),
                        "integer" => json.is_i64() || json.is_u64(),
                        "number" => json.is_number(),
                        "boolean" => json.is_boolean(),
                        "null" => json.is_null(),
                        other => panic!("type {other}"),
                    };
                    let fits = rule.as_array().map_or_else(|| is(rule), |types| types.iter().any(is));
                    found.extend((!fits).then(|| format!("{json} is not {rule}")));
                }
                "const" => found.extend((rule != json).then(|| format!("{json} is not {rule}"))),
                "enum" => {
                    let known = rule.as_array().expect("a list").contains(json);
                    found.extend((!known).then(|| format!("{json} is none of {rule}")));
                }
                "required" if json.is_object() => {
                    for key in rule.as_array().expect("a list") {
                        let there = json.get(key.as_str().expect("a name")).is_some();
                        found.extend((!there).then(|| format!("{key} is missing")));
                    }
                }
                "properties" => {
                    for (key, rule) in rule.as_object().expect("properties") {
                        if let Some(value) = json.get(key) {
                            found.extend(faults(root, rule, value).into_iter().map(|fault| format!("{key}: {fault}")));
                        }
                    }
                }
                "items" => {
                    for item in json.as_array().into_iter().flatten() {
                        found.extend(faults(root, rule, item));
                    }
                }
                "allOf" => {
                    for rule in rule.as_array().expect("a list") {
                        found.extend(faults(root, rule, json));
                    }
                }
                "oneOf" => {
                    let all: Vec<_> =
                        rule.as_array().expect("a list").iter().map(|rule| faults(root, rule, json)).collect();
                    if all.iter().filter(|faults| faults.is_empty()).count() != 1 {
                        found.push(format!("not exactly one of: {all:?}"));
                    }
                }
                "required" | "title" | "description" | "$schema" | "$id" | "$defs" => {}
                other => panic!("the schema uses {other}, which this check does not know"),
            }
        }
        found
    }
}
