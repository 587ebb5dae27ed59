//! What people do, in the words of the audit.

use anmin_rules::alarm::{Action, Command, Refusal};
use anmin_rules::broadcast::BroadcastAction;
use anmin_rules::change::{NumberChange, RulesChange};
use anmin_rules::drill::{DrillAction, DrillAlarm, DrillCommand, Scope, Target};
use anmin_rules::duty::StationAction;
use anmin_rules::incident::{IncidentAction, Outcome};
use anmin_rules::order::{CallStep, OrderId};
use anmin_rules::rule::{Level, RuleId, Text};
use anmin_rules::walk::{Tick, WalkAction, WalkCause, WalkChange, WalkCommand};
use anmin_sensors::time::Wall;
use serde_json::{Value, json};

use super::{Reloaded, Resend, Resent};
use crate::store::StoreError;
use crate::store::audit::{Deed, Way};
use crate::store::plans::Revision;

/// A command about an alarm, and what came of it.
pub fn of_command(at: Wall, command: &Command, from: Way, result: &Result<(), Refusal>) -> Deed {
    let (what, alarm, detail) = match &command.what {
        Action::Acknowledge { alarm } => ("alarm.acknowledge", alarm, Value::Null),
        Action::Reset { alarm } => ("alarm.reset", alarm, Value::Null),
        Action::Shelve { alarm, until, why } => {
            ("alarm.shelve", alarm, json!({ "until_ms": until.millis(), "why": why }))
        }
        Action::Unshelve { alarm } => ("alarm.unshelve", alarm, Value::Null),
        Action::TakeOutOfService { alarm, why } => ("alarm.out_of_service", alarm, json!({ "why": why })),
        Action::ReturnToService { alarm } => ("alarm.return_to_service", alarm, Value::Null),
        Action::Escalate { alarm, step, why } => ("alarm.escalate", alarm, json!({ "step": step, "why": why })),
        Action::CallStation { alarm, station, insist, why } => {
            ("call.by_hand", alarm, json!({ "station": station, "insist": insist, "why": why }))
        }
        Action::Broadcast { alarm, what } => {
            let (what, detail) = match what {
                BroadcastAction::Approve { account, .. } => ("broadcast.approve", json!({ "account": account })),
                BroadcastAction::Refuse { why } => ("broadcast.refuse", json!({ "why": why })),
                BroadcastAction::TakeBack { why } => ("broadcast.take_back", json!({ "why": why })),
            };
            (what, alarm, detail)
        }
        Action::Incident { incident, what } => {
            let (what, detail) = of_incident(what);
            let refused = result.as_ref().err().map(Refusal::text);
            let (who, about) = (command.who.clone(), incident.to_string());
            return Deed { at, who, from, what: what.into(), about, refused, detail };
        }
        Action::OpenCase { incident, what } => {
            let refused = result.as_ref().err().map(Refusal::text);
            let (who, about) = (command.who.clone(), incident.to_string());
            let detail = json!({ "kind": what.kind.as_str(), "title": what.title, "owner": what.owner });
            return Deed { at, who, from, what: "incident.open".into(), about, refused, detail };
        }
        Action::Station { station, what } => {
            let (what, detail) = of_station(what);
            let refused = result.as_ref().err().map(Refusal::text);
            return Deed {
                at,
                who: command.who.clone(),
                from,
                what: what.into(),
                about: station.clone(),
                refused,
                detail,
            };
        }
        Action::Call { alarm, station, step } => {
            let (what, why) = match step {
                CallStep::Accept => ("call.accept", None),
                CallStep::OnTheWay => ("call.on_the_way", None),
                CallStep::OnScene => ("call.on_scene", None),
                CallStep::UnderControl => ("call.under_control", None),
                CallStep::StandDown => ("call.stand_down", None),
                CallStep::Decline { why } => ("call.decline", Some(why)),
            };
            let mut detail = json!({ "station": station });
            if let Some(why) = why {
                detail["why"] = why.as_str().into();
            }
            (what, alarm, detail)
        }
    };
    Deed {
        at,
        who: command.who.clone(),
        from,
        what: what.into(),
        about: alarm.to_string(),
        refused: result.as_ref().err().map(Refusal::text),
        detail,
    }
}

fn of_station(what: &StationAction) -> (&'static str, Value) {
    match what {
        StationAction::HandOver { crew, note } => ("station.hand_over", json!({ "crew": crew, "note": note })),
        StationAction::Check { items, fit, note } => {
            ("station.check", json!({ "items": items, "fit": fit, "note": note }))
        }
        StationAction::OffDuty { why } => ("station.off_duty", json!({ "why": why })),
        StationAction::OnDuty => ("station.on_duty", Value::Null),
    }
}

fn of_incident(what: &IncidentAction) -> (&'static str, Value) {
    match what {
        IncidentAction::Acknowledge { newest } => {
            ("incident.acknowledge", json!({ "newest": newest.map(|alarm| alarm.to_string()) }))
        }
        IncidentAction::Note { text, photos } if photos.is_empty() => ("incident.note", json!({ "text": text })),
        IncidentAction::Note { text, photos } => ("incident.note", json!({ "text": text, "photos": photos })),
        IncidentAction::Tick { step } => ("incident.tick", json!({ "step": step })),
        IncidentAction::Skip { step, why } => ("incident.skip", json!({ "step": step, "why": why })),
        IncidentAction::Called119 { text } => ("incident.called_119", json!({ "text": text })),
        IncidentAction::Stage { stage, owner, text } => {
            ("incident.stage", json!({ "stage": stage.as_str(), "owner": owner, "text": text }))
        }
        IncidentAction::MergeInto { into } => ("incident.merge", json!({ "into": into.to_string() })),
        IncidentAction::Split { alarms } => {
            let named: Vec<String> = alarms.iter().take(MOST_NAMED).map(ToString::to_string).collect();
            ("incident.split", json!({ "alarms": named }))
        }
        IncidentAction::Close { outcome, why } => {
            let cause = match outcome {
                Outcome::FalseAlarm(cause) => Some(cause.as_str()),
                _ => None,
            };
            ("incident.close", json!({ "outcome": outcome.as_str(), "cause": cause, "why": why }))
        }
    }
}

/// A plan that is in force from now on, or no longer.
pub fn of_plan(at: Wall, who: &str, from: Way, revision: &Revision) -> Deed {
    let Revision { plan, hash, version, approved_by, approved_on, .. } = revision;
    let detail = json!({ "hash": hash, "version": version, "approved_by": approved_by, "approved_on": approved_on });
    let (who, about) = (who.to_owned(), plan.clone());
    Deed { at, who, from, what: "plan.change".into(), about, refused: None, detail }
}

/// What was done with a drill, and what came of it.
pub fn of_drill(at: Wall, command: &DrillCommand, from: Way, result: &Result<(), Refusal>) -> Deed {
    let alarm = |alarm: &DrillAlarm| {
        let mut named = match &alarm.target {
            Target::Point(id) => json!({ "point": id.as_str() }),
            Target::Kind { kind, floor, room } => json!({ "kind": kind.as_str(), "floor": floor, "room": room }),
        };
        named["level"] = json!(alarm.level.map(Level::as_str));
        named
    };
    let alarms = |all: &[DrillAlarm]| all.iter().take(MOST_NAMED).map(alarm).collect::<Vec<_>>();
    let (what, detail) = match &command.what {
        DrillAction::Start { scope: Scope { area, grid, building }, lasts, name, announced, alarms: raised } => {
            let detail = json!({
                "name": name, "area": area, "grid": grid, "building": building,
                "minutes": lasts.as_secs() / 60, "announced": announced, "alarms": alarms(raised),
            });
            ("drill.start", detail)
        }
        DrillAction::Raise { alarms: raised } => ("drill.raise", json!({ "alarms": alarms(raised) })),
        DrillAction::End => ("drill.end", Value::Null),
    };
    let refused = result.as_ref().err().map(Refusal::text);
    Deed { at, who: command.who.clone(), from, what: what.into(), about: command.drill.to_string(), refused, detail }
}

/// What was done with a walk test, and what came of it.
pub fn of_walk(at: Wall, command: &WalkCommand, from: Way, result: &Result<(), Refusal>) -> Deed {
    let (what, detail) = match &command.what {
        WalkAction::Start { scope: Scope { area, grid, building }, kinds, lasts, name } => {
            let kinds: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
            let minutes = lasts.as_secs() / 60;
            let detail = json!({
                "name": name, "area": area, "grid": grid, "building": building, "kinds": kinds, "minutes": minutes,
            });
            ("walk.start", detail)
        }
        WalkAction::End => ("walk.end", Value::Null),
    };
    let refused = result.as_ref().err().map(Refusal::text);
    Deed { at, who: command.who.clone(), from, what: what.into(), about: command.walk.to_string(), refused, detail }
}

/// What a point has said in a walk test, so that it stands in the chain.
pub fn of_tick(change: &WalkChange, tick: &Tick) -> Deed {
    let what = match change.cause {
        WalkCause::Ticked => "walk.tick",
        WalkCause::Real => "walk.real",
        _ => "walk.returned",
    };
    let detail = json!({
        "point": tick.point.as_str(), "rule": tick.rule.as_str(), "level": tick.level.as_str(), "value": tick.value,
    });
    Deed { about: tick.walk.to_string(), ..Deed::of_anmin(change.at, what, detail) }
}

/// Dead letters that were to be sent again, and which were.
pub fn of_resend(at: Wall, who: String, from: Way, which: &Resend, sent: &Result<Resent, StoreError>) -> Deed {
    let (about, asked) = match which {
        Resend::Order(id) => (id.to_string(), "order"),
        Resend::WayOut(id) => (id.to_string(), "way_out"),
    };
    let ids = |sent: &[OrderId]| sent.iter().take(MOST_NAMED).map(ToString::to_string).collect::<Vec<_>>();
    let detail = match sent {
        Ok(Resent { sent, over }) => {
            let mut detail = json!({ "asked": asked, "sent": sent.len(), "orders": ids(sent) });
            if !over.is_empty() {
                detail["over"] = json!(ids(over));
            }
            detail
        }
        Err(_) => json!({ "asked": asked }),
    };
    let refused = sent.as_ref().err().map(StoreError::text);
    Deed { at, who, from, what: "order.resend".into(), about, refused, detail }
}

/// A site that was read anew, and what is different now: rules by their numbers, all else by part and key.
pub fn of_reload(at: Wall, who: String, from: Way, reloaded: &Reloaded) -> Deed {
    let named = |parts: &[String]| json!(parts.iter().take(MOST_NAMED).collect::<Vec<_>>());
    let (refused, mut detail) = match &reloaded.change {
        Ok(change) => (None, of_change(change)),
        Err(faults) => {
            let named: Vec<&String> = faults.iter().take(MOST_NAMED).collect();
            (Some(not_taken(faults)), json!({ "faults": named }))
        }
    };
    for (key, parts) in [("taken", &reloaded.taken), ("waits_for_restart", &reloaded.waits)] {
        if !parts.is_empty() {
            detail[key] = named(parts);
        }
    }
    Deed { at, who, from, what: "rules.reload".into(), about: String::new(), refused, detail }
}

/// Why a new site is not in force.
pub fn not_taken(faults: &[String]) -> Text {
    let (count, first) = (faults.len(), faults.first().map_or("", |fault| fault));
    Text {
        zh: format!("新的配置和规则有 {count} 处错误，未采用，原有配置和规则继续有效：{first}"),
        en: format!("the new configuration has {count} faults and is not taken, what is in force stays: {first}"),
    }
}

/// The difference in the words of the audit.
pub fn of_change(change: &RulesChange) -> Value {
    let ids = |rules: &[RuleId]| rules.iter().take(MOST_NAMED).map(ToString::to_string).collect::<Vec<_>>();
    let number = |NumberChange { rule, of, name, from, to }: &NumberChange| json!({ "rule": rule.as_str(), "of": of, "name": name, "from": from, "to": to });
    json!({
        "added": ids(&change.added),
        "removed": ids(&change.removed),
        "changed": ids(&change.changed),
        "numbers": change.numbers.iter().take(MOST_NAMED).map(number).collect::<Vec<_>>(),
    })
}

/// Orders, rules, numbers and faults that are named one by one.
const MOST_NAMED: usize = 100;
