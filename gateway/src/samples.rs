//! Alarms and orders for the tests of all rooms.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anmin_rules::alarm::{
    Alarm, AlarmId, AlarmState, By, CapRef, Cause, Class, Condition, Pending, Subject, Transition,
};
use anmin_rules::broadcast::{Broadcast, BroadcastState, Yes};
use anmin_rules::incident::{Incident, IncidentCause, IncidentChange, IncidentId, Note};
use anmin_rules::order::{
    Call, CallCause, CallChange, CallStamp, CallState, CapMessage, CapOrder, Order, OrderBody, OrderId,
};
use anmin_rules::rule::{
    ContentHash, Evidence, Finding, Grounds, InputSeen, Level, LimitUsed, Measure, Origin, RuleId, Said, Text,
    WindowSeen,
};
use anmin_sensors::point::{Hazard, Name, Place, PointId};
use anmin_sensors::reading::{Fault, Quality, Value};
use anmin_sensors::time::{Mono, Now, Wall};
use jiff::tz::{Offset, TimeZone};

use crate::delivery::Site;

/// 2026-03-01T09:30:00+08:00.
pub const RAISED: Wall = Wall::from_millis(1_772_328_600_000);

pub fn site() -> Site {
    Site {
        id: "shequ-001".into(),
        name: text("示例社区居民委员会", "Example residents' committee"),
        area_code: Some("620102001001".to_owned()),
        time_zone: TimeZone::fixed(Offset::constant(8)),
        exercise: true,
    }
}

pub fn text(zh: &str, en: &str) -> Text {
    Text { zh: zh.to_owned(), en: en.to_owned() }
}

/// A gas alarm just raised, orange.
pub fn alarm() -> Alarm {
    Alarm {
        id: AlarmId("0195506b-f3c0-7000-8000-000000000001".parse().expect("a UUID")),
        rule: RuleId::new("gas/leak"),
        subject: Subject::Point(PointId::new("b3-2-gas/lel")),
        class: Class::Hazard(Hazard::Gas),
        title: text("燃气泄漏", "Gas leak"),
        place: Arc::new(Place {
            area: "spring".to_owned(),
            grid: "G-07".to_owned(),
            building: "3".to_owned(),
            unit: "2".to_owned(),
            floor: "5".to_owned(),
            room: "501".to_owned(),
            position: Some((36.0611, 103.8343)),
            polygon: Vec::new(),
        }),
        case: None,
        incident: Some(IncidentId("0195506b-f3c0-7000-8000-0000000000a1".parse().expect("a UUID"))),
        drill: None,
        level: Level::Orange,
        peak: Level::Orange,
        condition: Condition::Active,
        acknowledged: None,
        latched: false,
        shelved: None,
        out_of_service: None,
        escalation: 0,
        peak_escalation: 0,
        escalate_at: Some(RAISED.plus(Duration::from_secs(120))),
        realarm_at: None,
        raised_at: RAISED,
        changed_at: RAISED,
        clock_doubtful: false,
        seq: 1,
        evidence: Evidence {
            point: Some(PointId::new("b3-2-gas/lel")),
            value: Some(Value::Number(26.5)),
            unit: "%LEL".to_owned(),
            limit: Some(("high".to_owned(), 25.0)),
            source_time: Some(Wall::from_millis(1_772_328_599_250)),
            sequence: Some(4_711),
            received: Wall::from_millis(1_772_328_599_400),
            grounds: None,
        },
        message: text(
            "3号楼2单元5层501可燃气体浓度26.5 %LEL，超过25 %LEL",
            "Combustible gas 26.5 %LEL above 25 %LEL at Building 3, Unit 2, Floor 5, 501",
        ),
        advice: text(
            "请勿开关电器，关闭燃气总阀，开窗通风，沿楼梯撤离。",
            "Do not operate switches. Close the gas valve, open windows, leave by the stairs.",
        ),
        cap_log: Vec::new(),
        broadcast: None,
        rerouted: Vec::new(),
        sirens: Vec::new(),
        moved: 0,
    }
}

/// The same alarm with all that its verdict rests on: the room's second detector, a window, limits of several origins.
pub fn explained() -> Alarm {
    let mut alarm = alarm();
    let evidence = &mut alarm.evidence;
    let input = |role: &str, point: &str, value, quality, age| InputSeen {
        role: role.into(),
        point: PointId::new(point),
        value,
        unit: "%LEL".into(),
        quality,
        time: Wall::from_millis(1_772_328_599_250),
        age: Duration::from_millis(age),
    };
    let limit = |name: &str, value, origin, source: &str| LimitUsed {
        name: name.to_owned(),
        value,
        unit: "%LEL".to_owned(),
        origin,
        source: Text::both(source),
    };
    evidence.grounds = Some(Arc::new(Grounds {
        at: RAISED,
        rule: ContentHash(0x0123_4567_89ab_cdef),
        said: Said::Abnormal(Level::Orange),
        held: Some(Level::Yellow),
        inputs: vec![
            input("gas", "b3-2-gas/lel", Some(Value::Number(26.5)), Quality::Good, 600),
            input("other", "b3-3-gas/lel", None, Quality::Bad(Fault::Comms), 9_000),
        ],
        windows: vec![
            WindowSeen {
                name: "rise".into(),
                measure: Measure::Slope,
                over: Duration::from_secs(300),
                value: Some(1.0 / 3.0),
                unit: "%LEL/min".into(),
            },
            WindowSeen {
                name: "above".into(),
                measure: Measure::Difference,
                over: Duration::ZERO,
                value: None,
                unit: "%LEL".into(),
            },
        ],
        limits: Arc::new([
            limit("high", 25.0, Origin::Library, "GB 15322.1-2019"),
            limit("low", 8.5, Origin::Device, "local practice"),
        ]),
    }));
    alarm
}

/// What it is part of, when all its alarms are over; every field filled.
pub fn incident_change() -> IncidentChange {
    let alarm = alarm();
    let at = RAISED.plus(Duration::from_secs(1_400));
    IncidentChange {
        at,
        cause: IncidentCause::Settled,
        incident: Arc::new(Incident {
            id: alarm.incident.expect("the sample has one"),
            seq: 3,
            case: None,
            title: alarm.title,
            place: alarm.place,
            drill: None,
            hazards: vec![Hazard::Gas, Hazard::Fire],
            peak: Level::Red,
            storm: false,
            alarms: 2,
            opened_at: RAISED,
            changed_at: at,
            settled_at: Some(at),
            closes_at: Some(at.plus(Duration::from_secs(24 * 3_600))),
            checklist: Vec::new(),
            called_119: None,
            notes: vec![Note {
                at: RAISED,
                by: "li".to_owned(),
                text: "阀门已关 valve closed".to_owned(),
                photos: vec!["https://photos.example.cn/7".to_owned()],
            }],
            end: None,
        }),
    }
}

/// The condition before that alarm, while its delay runs.
pub fn pending() -> Pending {
    let Alarm { rule, subject, class, place, evidence, .. } = alarm();
    let finding = Finding { level: Level::Orange, limit: evidence.limit.clone(), note: Some("上升".to_owned()) };
    let (label, above) = (Name { zh: "厨房".into(), en: "kitchen".into() }, Some(Level::Orange));
    Pending { rule, subject, class, place, label, above, below: None, finding: Some(finding), evidence }
}

/// The same alarm, acknowledged, over and closed a little later.
pub fn closed() -> Alarm {
    let at = RAISED.plus(Duration::from_secs(1_330));
    Alarm {
        condition: Condition::Normal,
        acknowledged: Some(By { who: "li".to_owned(), at: RAISED.plus(Duration::from_secs(45)) }),
        escalate_at: None,
        changed_at: at,
        seq: 4,
        evidence: Evidence {
            value: Some(Value::Number(0.3)),
            source_time: None,
            sequence: None,
            received: at,
            ..alarm().evidence
        },
        message: text(
            "3号楼2单元5层501可燃气体浓度0.3 %LEL",
            "Combustible gas 0.3 %LEL at Building 3, Unit 2, Floor 5, 501",
        ),
        ..alarm()
    }
}

pub fn transition(from: AlarmState, cause: Cause, alarm: Alarm) -> Arc<Transition> {
    let at = Now { mono: Mono::from_nanos(1_000_000_000), wall: alarm.changed_at };
    Arc::new(Transition { from, to: alarm.state(), cause, at, alarm: Arc::new(alarm) })
}

/// An order about another subject for every `device`.
pub fn order(device: &str, seq: u32, level: Level) -> Order {
    let alarm =
        Alarm { subject: Subject::Point(PointId::new(format!("{device}/lel"))), seq, level, peak: level, ..alarm() };
    Order {
        id: OrderId::new(format!("{device}/{seq}/office")),
        channel: "office".into(),
        body: OrderBody::Event(transition(AlarmState::Normal, Cause::Raised, alarm)),
    }
}

pub fn call_change() -> Arc<CallChange> {
    let at = RAISED.plus(Duration::from_secs(20));
    Arc::new(CallChange {
        at,
        cause: CallCause::Said,
        call: Call {
            alarm: alarm().id,
            station: "station-1".into(),
            station_name: text("示例社区微型消防站", "Example micro fire station"),
            state: CallState::Accepted,
            stamps: vec![
                CallStamp { state: CallState::Called, at: RAISED, by: "anmin".to_owned(), why: String::new() },
                CallStamp { state: CallState::Accepted, at, by: "wang".to_owned(), why: String::new() },
            ],
            respond_by: RAISED.plus(Duration::from_secs(60)),
            arrive_by: RAISED.plus(Duration::from_secs(180)),
            control_by: RAISED.plus(Duration::from_secs(300)),
            late: false,
            not_controlled: false,
            crew: Vec::new(),
            round: 0,
            seq: 2,
        },
        alarm: Arc::new(alarm()),
        message: text("示例社区微型消防站已接警", "The example station has accepted the call"),
    })
}

/// Alert, Update to red, Cancel after it is over: one incident.
pub fn cap_orders() -> [(&'static str, CapOrder); 3] {
    let first = CapRef {
        channel: "town".to_owned(),
        identifier: "anmin-shequ-001-0195506bf3c070008000000000000001-1-town".to_owned(),
        sent: RAISED,
        level: Level::Orange,
        moved: 0,
        voice: None,
    };
    let second = CapRef {
        identifier: "anmin-shequ-001-0195506bf3c070008000000000000001-2-town".to_owned(),
        sent: RAISED.plus(Duration::from_secs(75)),
        level: Level::Red,
        ..first.clone()
    };
    let red = Alarm {
        level: Level::Red,
        peak: Level::Red,
        seq: 2,
        changed_at: second.sent,
        evidence: Evidence {
            value: Some(Value::Number(51.0)),
            limit: Some(("critical".to_owned(), 50.0)),
            ..alarm().evidence
        },
        message: text(
            "3号楼2单元5层501可燃气体浓度51 %LEL，超过50 %LEL",
            "Combustible gas 51 %LEL above 50 %LEL at Building 3, Unit 2, Floor 5, 501",
        ),
        ..alarm()
    };
    let over = Alarm { peak: Level::Red, ..closed() };
    [
        (
            "alert",
            CapOrder {
                message: CapMessage::Alert,
                identifier: first.identifier.clone(),
                sent: first.sent,
                voice: None,
                references: Vec::new(),
                alarm: Arc::new(alarm()),
            },
        ),
        (
            "update",
            CapOrder {
                message: CapMessage::Update,
                identifier: second.identifier.clone(),
                sent: second.sent,
                voice: None,
                references: vec![first.clone()],
                alarm: Arc::new(red),
            },
        ),
        (
            "cancel",
            CapOrder {
                message: CapMessage::Cancel,
                identifier: "anmin-shequ-001-0195506bf3c070008000000000000001-4-town".to_owned(),
                sent: over.changed_at,
                voice: None,
                references: vec![first, second],
                alarm: Arc::new(over),
            },
        ),
    ]
}

/// A question about a broadcast of the highest level to which one person has said yes.
pub fn broadcast(state: BroadcastState) -> Broadcast {
    Broadcast {
        state,
        level: Level::Red,
        asked_at: RAISED,
        until: RAISED.plus(Duration::from_secs(120)),
        people: 2,
        yes: vec![Yes { account: "li".to_owned(), who: "李明".to_owned(), at: RAISED }],
        no: None,
    }
}

/// Compares with a reviewed file under `gateway/tests/golden`. `UPDATE_GOLDEN=1 cargo test -p anmin delivery` writes
/// them anew; look at the difference before you commit it.
pub fn check_golden(name: &str, text: &str) {
    check_text(&format!("tests/golden/{name}"), text);
}

/// The same with any file under `gateway`.
pub fn check_text(file: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().expect("a file in a folder")).expect("the folder can be made");
        std::fs::write(&path, text).expect("the golden file can be written");
        return;
    }
    let golden = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; UPDATE_GOLDEN=1 writes it", path.display()));
    assert_eq!(text, golden, "{} differs; UPDATE_GOLDEN=1 writes it anew", path.display());
}
