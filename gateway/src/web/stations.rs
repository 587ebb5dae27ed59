//! The micro fire stations over HTTP: how each stands, hand-over, checks, off duty, and the links to answer a call.

use anmin_rules::alarm::{Action, Command, Refusal};
use anmin_rules::duty::{HandOver, Member, StationAction};
use anmin_rules::response::Callable;
use axum::Json;
use axum::extract::{Path, Request, State};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::api::{Answer, Desk, MOST_WHY, PlainBody, WhyBody, alarm_id, body, words};
use super::guard::Caller;
use super::problem::Problem;
use super::wire::{CallWire, TextWire, Writer};
use crate::crew_link::Link;
use crate::main_loop::Query;
use crate::main_loop::query::{Next, StationView};

/// A micro fire station as it stands.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct StationWire {
    pub id: String,
    /// Number of what people have said of it so far.
    pub seq: u32,
    pub name: TextWire,
    pub phone: String,
    pub respond_seconds: u64,
    pub arrive_seconds: u64,
    pub control_seconds: u64,
    pub neighbours: Vec<String>,
    /// It can respond.
    pub ready: bool,
    /// Why it cannot.
    pub unready: Vec<UnreadyWire>,
    pub on_duty: Vec<MemberWire>,
    pub crew: Vec<MemberWire>,
    /// Names of the shifts that run.
    pub shifts: Vec<String>,
    pub handed_over: Option<HandOverWire>,
    pub off_duty: Option<OffDutyWire>,
    pub equipment: Vec<EquipmentWire>,
    /// Its calls that are not over.
    pub calls: Vec<CallWire>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct UnreadyWire {
    pub code: String,
    pub text: TextWire,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct MemberWire {
    pub id: String,
    pub name: String,
    pub role: String,
    pub phone: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct HandOverWire {
    pub at: String,
    pub by: String,
    pub note: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct OffDutyWire {
    pub at: String,
    pub by: String,
    pub why: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct EquipmentWire {
    pub id: String,
    pub name: TextWire,
    /// When it was looked at last; `null` where nobody has.
    pub checked_at: Option<String>,
    pub by: Option<String>,
    pub fit: Option<bool>,
    pub note: Option<String>,
    /// When it must be looked at again.
    pub due: Option<String>,
}

/// The link of one member of the crew.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CrewLinkWire {
    /// Empty where the station lists no crew.
    pub member: String,
    pub name: String,
    /// To be put behind the address by which phones reach anmin.
    pub path: String,
    pub expires_at: String,
}

fn member(member: &Member) -> MemberWire {
    MemberWire {
        id: member.id.to_string(),
        name: member.name.clone(),
        role: member.role.as_str().to_owned(),
        phone: member.phone.clone(),
    }
}

impl StationWire {
    fn of(writer: Writer<'_>, view: &StationView) -> Self {
        let StationView { station, duty, unready, on_duty, shifts, handed_over, calls } = view;
        let equipment = station.equipment.iter().map(|item| {
            let check = duty.checks.get(&item.id);
            EquipmentWire {
                id: item.id.to_string(),
                name: (&item.name).into(),
                checked_at: check.map(|check| writer.at(check.at)),
                by: check.map(|check| check.by.clone()),
                fit: check.map(|check| check.fit),
                note: check.map(|check| check.note.clone()),
                due: check.map(|check| writer.at(check.at.plus(item.check_every))),
            }
        });
        Self {
            id: station.id.to_string(),
            seq: duty.seq,
            name: (&station.name).into(),
            phone: station.phone.clone(),
            respond_seconds: station.respond_within.as_secs(),
            arrive_seconds: station.arrive_within.as_secs(),
            control_seconds: station.control_within.as_secs(),
            neighbours: station.neighbours.iter().map(ToString::to_string).collect(),
            ready: unready.is_empty(),
            unready: unready
                .iter()
                .map(|why| UnreadyWire { code: why.as_str().to_owned(), text: (&why.text()).into() })
                .collect(),
            on_duty: on_duty.iter().map(member).collect(),
            crew: station.crew.iter().map(member).collect(),
            shifts: shifts.clone(),
            handed_over: handed_over.as_ref().map(|HandOver { at, by, note, .. }| HandOverWire {
                at: writer.at(*at),
                by: by.clone(),
                note: note.clone(),
            }),
            off_duty: duty.off_duty.as_ref().map(|off| OffDutyWire {
                at: writer.at(off.at),
                by: off.by.clone(),
                why: off.why.clone(),
            }),
            equipment: equipment.collect(),
            calls: writer.calls(calls),
        }
    }
}

pub(super) async fn stations(State(desk): State<Desk>) -> Answer<Vec<StationWire>> {
    let views = desk.ask(|reply| Query::Stations { reply }).await?;
    let writer = desk.writer();
    Ok(Json(views.iter().map(|view| StationWire::of(writer, view)).collect()))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct HandOverBody {
    who: Option<String>,
    crew: Vec<String>,
    #[serde(default)]
    note: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckBody {
    who: Option<String>,
    #[serde(default)]
    items: Vec<String>,
    #[serde(default = "yes")]
    fit: bool,
    #[serde(default)]
    note: String,
}

fn yes() -> bool {
    true
}

/// Words that may be left out.
fn note(text: &str) -> Result<String, Problem> {
    if text.trim().is_empty() { Ok(String::new()) } else { words("note", text, MOST_WHY) }
}

pub(super) async fn act(
    State(desk): State<Desk>,
    caller: Caller,
    Path((id, action)): Path<(String, String)>,
    request: Request,
) -> Answer<StationWire> {
    let (who, what) = match action.as_str() {
        "hand-over" => {
            let HandOverBody { who, crew, note: text } = body(request).await?;
            (who, StationAction::HandOver { crew, note: note(&text)? })
        }
        "check" => {
            let CheckBody { who, items, fit, note: text } = body(request).await?;
            (who, StationAction::Check { items, fit, note: note(&text)? })
        }
        "off-duty" => {
            let WhyBody { who, why } = body(request).await?;
            (who, StationAction::OffDuty { why: words("why", &why, MOST_WHY)? })
        }
        "on-duty" => (body::<PlainBody>(request).await?.who, StationAction::OnDuty),
        _ => {
            return Err(Problem::not_found("没有这个操作", "there is no such command").hint(
                "可用：hand-over、check、off-duty、on-duty",
                "there are hand-over, check, off-duty and on-duty",
            ));
        }
    };
    let command = Command { who: caller.name(who)?, what: Action::Station { station: id.clone(), what } };
    desk.give(caller, command).await?;
    let views = desk.ask(|reply| Query::Stations { reply }).await?;
    let found = views.iter().find(|view| *view.station.id == *id);
    found.map(|view| Json(StationWire::of(desk.writer(), view))).ok_or_else(Problem::busy)
}

/// Who can be called and told next about an alarm.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct NextWire {
    /// In the order in which they would be called.
    pub stations: Vec<CallableWire>,
    pub escalation: u32,
    /// After this step nobody new hears of it.
    pub last_escalation: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CallableWire {
    pub id: String,
    pub name: TextWire,
    pub phone: String,
    /// Why it cannot respond; `null` where it can.
    pub unready: Option<TextWire>,
    /// It comes for another incident.
    pub elsewhere: bool,
    /// How far its call for this alarm or its incident is, which has not ended: it is not called again.
    pub called: Option<String>,
}

impl From<Callable> for CallableWire {
    fn from(station: Callable) -> Self {
        Self {
            id: station.station.to_string(),
            name: (&station.name).into(),
            phone: station.phone,
            unready: station.unready.as_ref().map(Into::into),
            elsewhere: station.elsewhere,
            called: station.called.map(|state| state.as_str().to_owned()),
        }
    }
}

pub(super) async fn next(State(desk): State<Desk>, caller: Caller, Path(id): Path<String>) -> Answer<NextWire> {
    let id = alarm_id(&id)?;
    let next = desk.ask(|reply| Query::Next { id, reply }).await?.filter(|next| caller.sees(&next.alarm.place));
    let Some(Next { alarm, stations, last_escalation }) = next else {
        return Err(Problem::refused(&Refusal::NoSuchAlarm(id)));
    };
    let stations = stations.into_iter().map(Into::into).collect();
    Ok(Json(NextWire { stations, escalation: alarm.escalation, last_escalation }))
}

/// The links to answer one call, one for each who was on duty when the station was called.
pub(super) async fn links(
    State(desk): State<Desk>,
    caller: Caller,
    Path((id, station)): Path<(String, String)>,
) -> Answer<Vec<CrewLinkWire>> {
    let id = alarm_id(&id)?;
    let view = desk.ask(|reply| Query::Alarm { id, reply }).await?.filter(|view| caller.sees(&view.alarm.place));
    let call = view.and_then(|view| view.calls.into_iter().find(|call| *call.station == *station));
    let Some(call) = call else {
        return Err(Problem::not_found(
            format!("没有就未结束的报警 {id} 呼叫过该站"),
            format!("that station has not been called for an open alarm {id}"),
        ));
    };
    let writer = desk.writer();
    let crew = &desk.link.crew;
    let wire = |(link, name): (Link, String)| CrewLinkWire {
        path: format!("/crew/{}", crew.key.token(&link)),
        expires_at: writer.at(link.expires),
        member: link.member,
        name,
    };
    Ok(Json(Link::of_call(&call, crew.valid).into_iter().map(wire).collect()))
}
