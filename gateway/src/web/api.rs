//! The routes under `/api/v1`, and what machines ask: `/healthz`, `/readyz`, `/metrics`.

use std::collections::HashSet;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anmin_rules::alarm::{Action, AlarmId, Command, Refusal};
use anmin_rules::broadcast::{BroadcastAction, BroadcastState, Seen};
use anmin_rules::casework::{CaseKind, Stage};
use anmin_rules::incident::{FalseCause, Incident, IncidentAction, IncidentId, NewCase, Outcome, Situation};
use anmin_rules::order::{CallStep, OrderId};
use anmin_rules::rule::Level;
use anmin_sensors::point::{DeviceId, Kind, Place, PointId};
use anmin_sensors::time::Wall;
use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, middleware};
use bytes::Bytes;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use uuid::Uuid;

use super::authority::{Right, RouteRow, Routes, get, post, right_of};
use super::crew::Counted;
use super::events::{Hub, last_event_id};
use super::explain::explanation;
use super::guard::{Caller, Guard, guard};
use super::meanwhile::Against;
use super::once::Once;
use super::openapi::{self, Operation};
use super::paging::{self, Leaf, Tagged};
use super::people::People;
use super::problem::Problem;
use super::wire::{
    AlarmViewWire, AlarmsWire, BucketWire, DeadLetterWire, DevicesWire, DiscardedWire, HeldRuleWire, IncidentViewWire,
    IncidentsWire, JournalWire, OutcomeWire, PointChoicesWire, PointWire, PointsWire, QuarantinedWire, ReloadedWire,
    ResentWire, RuleWire, StatusWire, UnusableWire, Writer,
};
use super::{
    Archive, WebLink, archive, audit, crew, delivery_reports, devices, drawings, drills, ledger, oidc, outputs, page,
    plans, registers, residents, sign_in, stations, subscriptions, tuning, walks, warnings,
};
use crate::main_loop::query::{AlarmFilter, AlarmPage, IncidentPage, Page, PointFilter, QualityIs, Status, is_class};
use crate::main_loop::{Input, Query, ReloadAsked, Reloaded, Resend, Resent};
use crate::store::audit::{Deed, Way};
use crate::store::incidents::{ClosedCursor, ClosedFilter};
use crate::store::people::Places;
use crate::store::state::{Entry, Journaled};
use crate::store::unusable::KeptCursor;

/// Largest body of a request.
pub(super) const MOST_BODY: usize = 1 << 20;
const BODY_WITHIN: Duration = Duration::from_secs(30);
/// For the main loop to take a question, and again to answer it.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// For the site to be read, and the cases of its rules to be run.
const RELOAD_WITHIN: Duration = Duration::from_secs(60);
/// Rows in one answer, and when nobody says how many.
const MOST_ROWS: usize = 1_000;
pub(super) const USUAL_ROWS: usize = 200;

#[derive(Clone)]
pub(super) struct Desk {
    pub link: WebLink,
    pub hub: Hub,
    pub people: People,
    pub counted: Counted,
    pub residents: residents::Page,
    /// Where people sign in by a provider.
    pub oidc: Option<oidc::Door>,
    /// Limits are set one after the other, from the file to the rules in force.
    pub setting: Arc<tokio::sync::Mutex<()>>,
    /// Registers are written one after the other, from what stands there to what shall.
    pub keeping: Arc<tokio::sync::Mutex<()>>,
    /// An incident's package is made in memory: one at a time.
    pub exports: Arc<Semaphore>,
}

pub(super) type Answer<T> = Result<Json<T>, Problem>;

/// What lies under `/api/v1`, each route with the right that it needs.
fn api() -> Routes<Desk> {
    Routes::new()
        .route("/openapi.json", get(Right::Anybody, openapi::openapi).gives("application/json"))
        .route("/session", get(Right::Anybody, sign_in::myself))
        .route("/session", post(Right::Anybody, Against::Repeats, sign_in::sign_in))
        .route("/session/set-up", post(Right::Anybody, Against::Name, sign_in::set_up))
        .route("/session/oidc", post(Right::Anybody, Against::Repeats, oidc::begin))
        .route("/session/sign-out", post(Right::Own, Against::Repeats, sign_in::sign_out))
        .route("/session/touch", post(Right::Own, Against::Repeats, sign_in::touch))
        .route("/session/lock", post(Right::Own, Against::Repeats, sign_in::lock))
        .route("/session/unlock", post(Right::Own, Against::Repeats, sign_in::unlock))
        .route("/session/password", post(Right::Own, Against::Seen, sign_in::own_password))
        .route("/session/totp", post(Right::Own, Against::Repeats, sign_in::totp_offer))
        .route("/session/totp/confirm", post(Right::Own, Against::Repeats, sign_in::totp_confirm))
        .route("/session/totp/remove", post(Right::Own, Against::Repeats, sign_in::totp_remove))
        .route("/session/sign-ins", get(Right::Own, sign_in::own_sign_ins).bounded("20 for an account"))
        .route("/session/sign-ins/end", post(Right::Own, Against::Repeats, sign_in::end_own))
        .route("/accounts", get(Right::LookPeople, sign_in::accounts).bounded("1,000"))
        .route("/accounts", post(Right::ChangePeople, Against::Name, sign_in::add_account))
        .route("/accounts/{name}/edit", post(Right::ChangePeople, Against::Seen, sign_in::edit_account))
        .route("/accounts/{name}/disable", post(Right::ChangePeople, Against::Seen, sign_in::disable_account))
        .route("/accounts/{name}/enable", post(Right::ChangePeople, Against::Seen, sign_in::enable_account))
        .route("/accounts/{name}/reset", post(Right::ChangePeople, Against::Seen, sign_in::reset_account))
        .route("/accounts/{name}/sign-ins", get(Right::LookPeople, sign_in::sign_ins_of).bounded("20 for an account"))
        .route("/accounts/{name}/sign-ins/end", post(Right::ChangePeople, Against::Repeats, sign_in::end_of))
        .route("/tokens", get(Right::LookPeople, sign_in::tokens).bounded("1,000"))
        .route("/tokens", post(Right::ChangePeople, Against::Name, sign_in::new_token))
        .route("/tokens/{name}/revoke", post(Right::ChangePeople, Against::Seen, sign_in::revoke_token))
        .route(
            "/status",
            get(Right::Look, status).bounded("what the site's files name, drills and walk tests that are on, ten gaps"),
        )
        .route("/alarms", get(Right::Look, alarms).pages())
        .route(
            "/alarms/{id}",
            get(Right::Look, alarm).bounded("the points that its rule reads, the stations of the site"),
        )
        .route("/alarms/{id}/transitions", get(Right::Look, alarm_history).pages())
        .route("/alarms/{id}/next", get(Right::Handle, stations::next).bounded("the stations of the site"))
        .route("/alarms/{id}/explanation", get(Right::Look, explanation))
        .route(
            "/alarms/{id}/{action}",
            post(Right::Acknowledge, Against::IfMatch, act)
                .command::<PlainBody>("acknowledge")
                .command::<PlainBody>("reset")
                .command::<ShelveBody>("shelve")
                .command::<PlainBody>("unshelve")
                .command::<WhyBody>("out-of-service")
                .command::<PlainBody>("return-to-service")
                .command::<EscalateBody>("escalate")
                .command::<CallStationBody>("call-station")
                .command::<ApproveBody>("approve-broadcast")
                .command::<WhyBody>("refuse-broadcast")
                .command::<WhyBody>("take-back-broadcast"),
        )
        .route(
            "/alarms/{id}/calls/{station}/links",
            get(Right::Handle, stations::links).bounded("the crew of the station"),
        )
        .route(
            "/alarms/{id}/calls/{station}/{step}",
            post(Right::Call, Against::IfMatch, call_step)
                .command::<PlainBody>("accept")
                .command::<PlainBody>("on-the-way")
                .command::<PlainBody>("on-scene")
                .command::<PlainBody>("under-control")
                .command::<PlainBody>("stand-down")
                .command::<WhyBody>("decline"),
        )
        .route("/stations", get(Right::LookBehind, stations::stations).bounded("what the site's files name"))
        .route(
            "/stations/{id}/{action}",
            post(Right::Station, Against::IfMatch, stations::act)
                .command::<stations::HandOverBody>("hand-over")
                .command::<stations::CheckBody>("check")
                .command::<PlainBody>("on-duty")
                .command::<WhyBody>("off-duty"),
        )
        .route("/outputs", get(Right::LookBehind, outputs::all).bounded("what the site's files name"))
        .route(
            "/outputs/{id}/{step}",
            post(Right::Output, Against::Seen, outputs::act)
                .command::<outputs::ArmBody>("arm")
                .command::<outputs::DoBody>("do")
                .command::<PlainBody>("disarm"),
        )
        .route("/incidents", get(Right::Look, incidents).pages())
        .route("/incidents", post(Right::Acknowledge, Against::Key, open_case))
        .route("/incidents/outcomes", get(Right::LookBehind, outcomes).bounded("outcomes and causes that there are"))
        .route("/incidents/{id}", get(Right::Look, incident).bounded("its open alarms and their calls"))
        .route("/incidents/{id}/timeline", get(Right::Look, timeline).pages())
        .route("/incidents/{id}/messages", get(Right::LookBehind, archive::messages).bounded("the last 2,000"))
        .route("/incidents/{id}/archive", get(Right::LookBehind, archive::export).gives("application/x-tar"))
        .route(
            "/incidents/{id}/{action}",
            post(Right::Acknowledge, Against::IfMatch, act_on_incident)
                .command::<SeenBody>("acknowledge")
                .command::<NoteBody>("note")
                .command::<StepBody>("tick")
                .command::<SkipBody>("skip")
                .command::<SaidBody>("called-119")
                .command::<StageBody>("stage")
                .command::<MergeBody>("merge")
                .command::<SplitBody>("split")
                .command::<CloseBody>("close"),
        )
        .route("/plans", get(Right::LookBehind, plans::list).bounded("what the site's files name"))
        .route("/drawings", get(Right::Look, drawings::list).bounded("what the site's files name"))
        .route("/drawings/{id}/map", get(Right::Look, drawings::map).gives("application/geo+json"))
        .route("/drawings/{id}/image", get(Right::Look, drawings::image).gives("image/png"))
        .route("/drills", get(Right::LookBehind, drills::list).pages())
        .route("/drills", post(Right::Drill, Against::Key, drills::start))
        .route("/drills/{id}", get(Right::LookBehind, drills::one))
        .route("/drills/{id}/report", get(Right::LookBehind, drills::report).gives("text/html"))
        .route(
            "/drills/{id}/{action}",
            post(Right::Drill, Against::IfMatch, drills::act)
                .command::<drills::RaiseBody>("raise")
                .command::<PlainBody>("end"),
        )
        .route("/walks", get(Right::LookBehind, walks::list).pages())
        .route("/walks", post(Right::Drill, Against::Key, walks::start))
        .route("/walks/{id}", get(Right::LookBehind, walks::one).bounded("one for each of its points"))
        .route("/walks/{id}/end", post(Right::Drill, Against::IfMatch, walks::end))
        .route(
            "/coverage",
            get(Right::Look, walks::coverage).bounded("buildings and kinds; of what is due the first 1,000"),
        )
        .route("/coverage.csv", get(Right::Look, walks::coverage_csv).gives("text/csv"))
        .route("/registers", get(Right::Look, registers::all).bounded("kinds that there are"))
        .route("/registers/{kind}", get(Right::Look, registers::one).pages())
        .route("/registers/{kind}/sheet", get(Right::Look, registers::sheet).gives("text/csv"))
        .route("/registers/{kind}/import", post(Right::Handle, Against::Seen, registers::import))
        .route("/registers/{kind}/rows", post(Right::Handle, Against::Seen, registers::change))
        .route(
            "/reports/month/{month}",
            get(Right::LookBehind, ledger::one).bounded("2,000 incidents, and it says where there were more"),
        )
        .route("/reports/month/{month}/report", get(Right::LookBehind, ledger::report).gives("text/html"))
        .route("/journal", get(Right::Look, journal).pages())
        .route("/audit", get(Right::Audit, audit::audit).pages())
        .route("/audit/chain", get(Right::Audit, audit::verify))
        .route("/audit/table", get(Right::Audit, audit::table).gives("text/csv"))
        .route("/dead-letters", get(Right::LookBehind, dead_letters).pages())
        .route("/dead-letters/resend", post(Right::Resend, Against::Repeats, resend))
        .route("/rules", get(Right::LookBehind, rules).bounded("what the site's files name"))
        .route("/rules/reload", post(Right::Operate, Against::Repeats, reload))
        .route("/rules/tuned", get(Right::LookBehind, tuning::tuned).bounded("rules and their overrides"))
        .route("/rules/try", post(Right::Try, Against::Repeats, tuning::try_out))
        .route("/rules/set", post(Right::Operate, Against::Seen, tuning::set))
        .route("/points", get(Right::Look, points).pages())
        .route("/points/choices", get(Right::Look, point_choices).bounded("buildings and kinds"))
        .route("/points/{device}/{name}", get(Right::Look, point))
        .route(
            "/points/{device}/{name}/limits",
            get(Right::Look, point_limits).bounded("rules that are about such a point"),
        )
        .route("/points/{device}/{name}/history", get(Right::Look, point_history).bounded("`buckets`, 1,000 at most"))
        .route("/devices", get(Right::Look, device_page).pages())
        .route("/devices/{id}", get(Right::Look, devices::one).bounded("its points"))
        .route("/device-list", get(Right::LookBehind, devices::list).pages())
        .route("/device-list/sheet", get(Right::LookBehind, devices::sheet).gives("text/csv"))
        .route("/device-list/import", post(Right::Operate, Against::Seen, devices::import))
        .route("/device-list/remove", post(Right::Operate, Against::Seen, devices::remove))
        .route("/brokers/{id}/discard-session", post(Right::Operate, Against::Key, discard_session))
        .route("/quarantine", get(Right::LookBehind, quarantine).bounded("1,000"))
        .route(
            "/quarantine/guess",
            get(Right::LookBehind, devices::guesses).bounded("profiles and places that there are"),
        )
        .route("/quarantine/adopt", post(Right::Operate, Against::Seen, devices::adopt))
        .route("/quarantine/messages", get(Right::LookBehind, quarantined_messages).pages())
        .route("/events", get(Right::Look, events).gives("text/event-stream"))
        .route("/warnings", get(Right::Look, warnings::all).bounded("1,000"))
        // An office shows the token of its source, which is known there.
        .route(
            "/warnings/{source}",
            post(Right::Anybody, Against::Repeats, warnings::post).takes("application/cap+xml"),
        )
        .route("/subscriptions", get(Right::LookBehind, subscriptions::all).bounded("what the site's files name"))
        .route(
            "/subscriptions/{subscriber}/events",
            get(Right::Subscribe, subscriptions::stream).gives("text/event-stream"),
        )
        .route(
            "/subscriptions/{subscriber}/page",
            get(Right::Subscribe, subscriptions::page).pages().gives("application/json"),
        )
        .route(
            "/subscriptions/{subscriber}/feed.atom",
            get(Right::Subscribe, subscriptions::feed).gives("application/atom+xml"),
        )
        .route(
            "/subscriptions/{subscriber}/cap/{identifier}",
            get(Right::Subscribe, subscriptions::cap).gives("application/cap+xml"),
        )
        .route("/subscriptions/{subscriber}/test", post(Right::Operate, Against::Key, subscriptions::test))
}

/// What machines ask.
fn machines() -> Routes<Desk> {
    Routes::new()
        .route("/healthz", get(Right::Anybody, || async { "ok\n" }))
        .route("/readyz", get(Right::Anybody, readyz).gives("text/plain"))
        .route("/metrics", get(Right::Measure, metrics).gives("application/openmetrics-text"))
}

/// Every route for programs: what the OpenAPI document tells of.
pub(super) fn operations() -> Vec<Operation> {
    [api().operations("/api/v1"), machines().operations(""), delivery_reports::routes().operations("")].concat()
}

/// Every route but the page's own files, as the router has it.
pub(super) fn table() -> Vec<RouteRow> {
    let people = [crew::routes().rows(""), oidc::routes().rows(""), residents::routes().rows("")].concat();
    [api().rows("/api/v1"), machines().rows(""), delivery_reports::routes().rows(""), people].concat()
}

pub(super) fn router(desk: Desk, watch: Guard) -> Router {
    let once = Once::new(desk.link.clock.clone());
    Router::new()
        .nest("/api/v1", api().guarded(&desk.people, &once))
        .merge(machines().guarded(&desk.people, &once))
        .merge(page::routes())
        .merge(crew::routes().guarded(&desk.people, &once))
        .merge(oidc::routes().guarded(&desk.people, &once))
        .merge(residents::routes().guarded(&desk.people, &once))
        .merge(delivery_reports::routes().guarded(&desk.people, &once))
        .fallback(|| async { Problem::not_found("没有这个地址", "there is nothing at this address") })
        .method_not_allowed_fallback(|| async {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "wrong_method",
                "该地址不支持此方法",
                "this address does not take this method",
            )
        })
        .layer(middleware::from_fn_with_state(watch, guard))
        .with_state(desk)
}

/// Asks the main loop. Never waits long: a screen that hangs is worse than one that says so.
pub(super) async fn ask<T>(
    inputs: &mpsc::Sender<Input>,
    question: impl FnOnce(oneshot::Sender<T>) -> Query,
) -> Result<T, Problem> {
    send(inputs, |reply| Input::Query(question(reply))).await
}

pub(super) async fn send<T>(
    inputs: &mpsc::Sender<Input>,
    input: impl FnOnce(oneshot::Sender<T>) -> Input,
) -> Result<T, Problem> {
    send_within(ANSWER_WITHIN, inputs, input).await
}

async fn send_within<T>(
    within: Duration,
    inputs: &mpsc::Sender<Input>,
    input: impl FnOnce(oneshot::Sender<T>) -> Input,
) -> Result<T, Problem> {
    let (reply, answer) = oneshot::channel();
    let asked = timeout(within, inputs.send(input(reply))).await;
    if !matches!(asked, Ok(Ok(()))) {
        return Err(Problem::busy());
    }
    match timeout(within, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        _ => Err(Problem::busy()),
    }
}

pub(super) fn status_wire(link: &WebLink, status: &Status) -> StatusWire {
    Writer { zone: &link.site.time_zone }.status(&link.site, status)
}

impl Desk {
    pub(super) fn writer(&self) -> Writer<'_> {
        Writer { zone: &self.link.site.time_zone }
    }

    pub(super) async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Query) -> Result<T, Problem> {
        ask(&self.link.inputs, question).await
    }

    /// Asks the databases, off the threads that serve.
    pub(super) async fn archive<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Archive) -> Result<T, String> + Send + 'static,
    ) -> Result<T, Problem> {
        let archive = Arc::clone(&self.link.archive);
        match tokio::task::spawn_blocking(move || read(&*archive)).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(why)) => Err(Problem::archive(&why)),
            Err(_) => Err(Problem::archive("the reader failed")),
        }
    }

    async fn view(&self, id: AlarmId) -> Result<AlarmViewWire, Problem> {
        let view = self.ask(|reply| Query::Alarm { id, reply }).await?;
        let writer = self.writer();
        Ok(AlarmViewWire {
            alarm: view.as_ref().map(|view| writer.alarm(&view.alarm)),
            evidence: view
                .as_ref()
                .and_then(|view| view.alarm.evidence.grounds.as_deref().map(|grounds| writer.evidence(grounds))),
            calls: view.map(|view| writer.calls(&view.calls)).unwrap_or_default(),
        })
    }

    /// Has the site read anew and taken, or told what would be.
    pub(super) async fn reload(&self, who: String, from: Way, only_tell: bool) -> Result<ReloadedWire, Problem> {
        let (reply, answer) = oneshot::channel();
        let asked = ReloadAsked { who, from, only_tell, reply: Some(reply) };
        if !matches!(timeout(ANSWER_WITHIN, self.link.reload.send(asked)).await, Ok(Ok(()))) {
            return Err(Problem::busy());
        }
        let Ok(Ok(Reloaded { change, rules, taken, waits })) = timeout(RELOAD_WITHIN, answer).await else {
            return Err(Problem::busy());
        };
        match change {
            Ok(change) => Ok(ReloadedWire::new(rules, &change, taken, waits)),
            Err(faults) => Err(Problem::rules_refused(&faults)),
        }
    }

    /// Tells the audit.
    pub(super) async fn note(&self, deed: Deed) -> Result<(), Problem> {
        match timeout(ANSWER_WITHIN, self.link.inputs.send(Input::Did(deed))).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Problem::busy()),
        }
    }

    /// One that is open by the main loop, else as it ended; what lies elsewhere is not there.
    pub(super) async fn incident(&self, caller: &Caller, id: IncidentId) -> Answer<IncidentViewWire> {
        let writer = self.writer();
        if let Some(view) = self.ask(|reply| Query::Incident { id, reply }).await? {
            let situation = view.situation.seen(|place| caller.sees(place)).ok_or_else(|| no_incident(id))?;
            let ids: HashSet<_> = situation.alarms.iter().map(|alarm| alarm.id).collect();
            let calls: Vec<_> = view.calls.iter().filter(|call| ids.contains(&call.alarm)).cloned().collect();
            return Ok(Json(IncidentViewWire {
                incident: writer.situation(&situation),
                alarms: situation.alarms.iter().map(|alarm| writer.alarm(alarm)).collect(),
                calls: writer.calls(&calls),
            }));
        }
        match self.archive(move |archive| archive.incident(id)).await? {
            Some(incident) if caller.sees(&incident.place) => {
                let incident = writer.past(&incident);
                Ok(Json(IncidentViewWire { incident, alarms: Vec::new(), calls: Vec::new() }))
            }
            _ => Err(no_incident(id)),
        }
    }

    /// Answers `gone` for an alarm that lies elsewhere, as for one that never was.
    pub(super) async fn find_alarm(
        &self,
        caller: &Caller,
        id: AlarmId,
        gone: impl FnOnce() -> Problem,
    ) -> Result<(), Problem> {
        let within = caller.within();
        if within.is_everywhere() {
            return Ok(());
        }
        let seen = match self.ask(|reply| Query::Alarm { id, reply }).await? {
            Some(view) => within.takes(&view.alarm.place),
            None => {
                let rows = self.archive(move |archive| archive.history(id)).await?;
                rows.last().is_some_and(|row| lies_within(&within, row))
            }
        };
        if seen { Ok(()) } else { Err(gone()) }
    }

    /// The same for an incident.
    pub(super) async fn find_incident(&self, caller: &Caller, id: IncidentId) -> Result<(), Problem> {
        let within = caller.within();
        if within.is_everywhere() {
            return Ok(());
        }
        let sees = |place: &Place| within.takes(place);
        let seen = match self.ask(|reply| Query::Incident { id, reply }).await? {
            Some(view) => view.situation.seen(sees).is_some(),
            None => {
                self.archive(move |archive| archive.incident(id)).await?.is_some_and(|incident| sees(&incident.place))
            }
        };
        if seen { Ok(()) } else { Err(no_incident(id)) }
    }

    /// Refuses what is done to an incident that is not the caller's, and what would change alarms of it that the caller does
    /// not even see (`whole`).
    async fn is_theirs(&self, caller: &Caller, id: IncidentId, whole: bool) -> Result<(), Problem> {
        let Some(view) = self.ask(|reply| Query::Incident { id, reply }).await? else { return Ok(()) };
        let Situation { incident, alarms, .. } = view.situation;
        let all = || alarms.iter().all(|alarm| caller.sees(&alarm.place));
        if caller.sees(&incident.place) && (!whole || all()) { Ok(()) } else { Err(beyond()) }
    }

    /// Has the main loop carry it out, if what it is about is as the caller saw it.
    pub(super) async fn give(&self, Caller { way: from, seen, .. }: Caller, command: Command) -> Result<(), Problem> {
        let what = command.what.clone();
        match send(&self.link.inputs, |reply| Input::Command { command, from, seen, reply }).await? {
            Ok(()) => Ok(()),
            Err(refusal) => Err(self.refused(&what, &refusal).await),
        }
    }

    async fn command(
        &self,
        caller: Caller,
        who: Option<String>,
        alarm: AlarmId,
        what: Action,
    ) -> Answer<AlarmViewWire> {
        let command = Command { who: caller.name(who)?, what };
        self.find_alarm(&caller, alarm, || Problem::refused(&Refusal::NoSuchAlarm(alarm))).await?;
        self.give(caller, command).await?;
        Ok(Json(self.view(alarm).await?))
    }
}

/// The parameters after `?`; one that is not known is a fault.
pub(super) struct Asked<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match axum::extract::Query::<T>::try_from_uri(&parts.uri) {
            Ok(found) => Ok(Self(found.0)),
            Err(error) => Err(Problem::bad_request(error.body_text())),
        }
    }
}

/// The body as strict JSON: bounded, in time, and with no field that nobody knows.
pub(super) struct Told<T, const MOST: usize = MOST_BODY>(pub T);

impl<T: DeserializeOwned, S: Sync, const MOST: usize> FromRequest<S> for Told<T, MOST> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        read(request, MOST).await.map(Self)
    }
}

/// What [`Told`] takes, where several commands with bodies of their own share a route.
pub(super) async fn body<T: DeserializeOwned>(request: Request) -> Result<T, Problem> {
    read(request, MOST_BODY).await
}

async fn read<T: DeserializeOwned>(request: Request, most: usize) -> Result<T, Problem> {
    serde_json::from_slice(&whole(request, most).await?).map_err(Problem::bad_request)
}

/// The body as it came: at most so many bytes, and in time.
pub(super) async fn whole(request: Request, most: usize) -> Result<Bytes, Problem> {
    let too_large = |length: u64| length > most as u64;
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let read = if announced.is_some_and(too_large) {
        Ok(None)
    } else {
        timeout(BODY_WITHIN, axum::body::to_bytes(request.into_body(), most)).await.map(Result::ok)
    };
    let size = if most < 1 << 20 { format!("{} KiB", most >> 10) } else { format!("{} MiB", most >> 20) };
    match read {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            format!("请求超过 {size} 或传输中断"),
            format!("the body is larger than {size} or broke off"),
        )),
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "too_slow",
            "请求内容没有在 30 秒内传完",
            "the body did not arrive within 30 s",
        )),
    }
}

pub(super) fn alarm_id(text: &str) -> Result<AlarmId, Problem> {
    match Uuid::from_str(text) {
        Ok(id) => Ok(AlarmId(id)),
        Err(_) => Err(Problem::bad_request(format_args!("{:?} is not an alarm's id", short(text)))
            .hint("报警编号见 GET /api/v1/alarms", "ids stand in GET /api/v1/alarms")),
    }
}

pub(super) fn short(text: &str) -> String {
    text.chars().take(64).collect()
}

async fn status(State(desk): State<Desk>, caller: Caller) -> Answer<StatusWire> {
    let within = caller.within();
    let status = desk.ask(|reply| Query::Status { within, reply }).await?;
    Ok(Json(status_wire(&desk.link, &status)))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AlarmParameters {
    min_level: Option<String>,
    class: Option<String>,
    building: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

async fn alarms(
    State(desk): State<Desk>,
    caller: Caller,
    Asked(AlarmParameters { min_level, class, building, after, limit }): Asked<AlarmParameters>,
) -> Answer<AlarmsWire> {
    let min_level = match min_level.as_deref() {
        None => None,
        Some(word) => Some(Level::named(word).ok_or_else(|| {
            Problem::bad_request(format_args!("{:?} is not one of blue, yellow, orange, red", short(word)))
        })?),
    };
    if let Some(class) = class.as_deref().filter(|class| !is_class(class)) {
        return Err(Problem::bad_request(format_args!(
            "{:?} is not one of gas, fire, power, flood, ground, care, device, system",
            short(class)
        )));
    }
    let after = paging::after(after.as_deref(), None)?;
    let filter = AlarmFilter { min_level, class, building, within: caller.within(), ..AlarmFilter::default() };
    let page = AlarmPage { after, limit: rows(limit, USUAL_ROWS)? };
    let list = desk.ask(|reply| Query::Alarms { filter, page, reply }).await?;
    let writer = desk.writer();
    Ok(Json(AlarmsWire {
        now: writer.at(desk.link.clock.now().wall),
        alarms: list.alarms.iter().map(|alarm| writer.alarm(alarm)).collect(),
        calls: writer.calls(&list.calls),
        next: list.next.map(|next| next.to_string()),
        of: list.of,
    }))
}

async fn alarm(State(desk): State<Desk>, caller: Caller, Path(id): Path<String>) -> Answer<AlarmViewWire> {
    let id = alarm_id(&id)?;
    let gone = || {
        Problem::not_found(format!("没有未结束的报警 {id}"), format!("there is no open alarm {id}"))
            .hint("已结束的报警见其经过", "a closed one is found under its /transitions")
    };
    desk.find_alarm(&caller, id, gone).await?;
    let view = desk.view(id).await?;
    if view.alarm.is_none() {
        return Err(gone());
    }
    Ok(Json(view))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct HistoryPageParameters {
    /// All that there are where nobody says.
    limit: Option<usize>,
    /// Only rows behind this `n`.
    after: Option<String>,
}

async fn alarm_history(
    State(desk): State<Desk>,
    caller: Caller,
    Path(id): Path<String>,
    Asked(HistoryPageParameters { limit, after }): Asked<HistoryPageParameters>,
) -> Leaf<JournalWire> {
    let id = alarm_id(&id)?;
    let (limit, after) = (rows(limit, usize::MAX)?, paging::after::<i64>(after.as_deref(), None)?);
    let mut found = desk.archive(move |archive| archive.history(id)).await?;
    found.retain(|row| lies_within(&caller.within(), row));
    if found.is_empty() {
        return Err(Problem::not_found(format!("没有报警 {id} 的记录"), format!("nothing is recorded of alarm {id}")));
    }
    found.retain(|row| after.is_none_or(|after| row.n > after));
    let headers = paging::leaf(&mut found, limit, |row| row.n);
    Ok((headers, Json(desk.writer().history(&found))))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct JournalParameters {
    limit: Option<usize>,
    /// `n` of the last row of the page before.
    after: Option<String>,
    /// The same, by its earlier name.
    before: Option<i64>,
}

impl JournalParameters {
    fn page(self) -> Result<(usize, Option<i64>), Problem> {
        let before = self.before.map(|before| before.to_string());
        Ok((rows(self.limit, USUAL_ROWS)?, paging::after(self.after.as_deref(), before.as_deref())?))
    }
}

async fn journal(
    State(desk): State<Desk>,
    caller: Caller,
    Asked(asked): Asked<JournalParameters>,
) -> Leaf<JournalWire> {
    let (limit, before) = asked.page()?;
    let within = caller.within();
    let read = move |archive: &dyn Archive| {
        rows_within(&within, limit + 1, before, |limit, before| archive.recent(limit, before))
    };
    let mut found = desk.archive(read).await?;
    let headers = paging::leaf(&mut found, limit, |row| row.n);
    Ok((headers, Json(desk.writer().journal(&found))))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DeadLetterParameters {
    limit: Option<usize>,
    /// `order` of the last one of the page before; empty for the first page.
    after: Option<String>,
}

async fn dead_letters(
    State(desk): State<Desk>,
    Asked(DeadLetterParameters { limit, after }): Asked<DeadLetterParameters>,
) -> Leaf<DeadLetterWire> {
    let most = rows(limit, if after.is_some() { USUAL_ROWS } else { usize::MAX })?;
    let mut letters = match after {
        // Without a place to begin at the newest are meant, as ever.
        None => desk.archive(move |archive| archive.dead_letters(most)).await?,
        Some(after) => {
            let order = (!after.is_empty()).then(|| OrderId::new(after.clone()));
            let read = move |archive: &dyn Archive| archive.dead_letters_after(order.as_ref(), most + 1);
            desk.archive(read).await?.ok_or_else(|| {
                Problem::bad_request(format_args!("after is {:?}, and there is no such order", short(&after)))
            })?
        }
    };
    let headers = paging::leaf(&mut letters, most, |letter| letter.id.clone());
    let writer = desk.writer();
    Ok((headers, Json(letters.iter().map(|letter| writer.dead_letter(letter)).collect())))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ResendBody {
    who: Option<String>,
    order: Option<String>,
    way_out: Option<String>,
}

async fn resend(
    State(desk): State<Desk>,
    caller: Caller,
    Told(ResendBody { who, order, way_out }): Told<ResendBody>,
) -> Answer<ResentWire> {
    let (who, from) = (caller.name(who)?, caller.way);
    let which = match (order, way_out) {
        (Some(order), None) => Resend::Order(OrderId::new(order)),
        (None, Some(way_out)) => Resend::WayOut(way_out.into()),
        _ => return Err(Problem::bad_request("expected either `order` or `way_out`")),
    };
    match send(&desk.link.inputs, |reply| Input::Resend { who, from, which, reply }).await? {
        Ok(Resent { sent, over }) if sent.is_empty() && over.is_empty() => Err(Problem::not_found(
            "没有这样的死信，或其通道已不在配置中",
            "there is no such dead letter, or its way out is no longer configured",
        )
        .hint("死信见 GET /api/v1/dead-letters", "dead letters stand in GET /api/v1/dead-letters")),
        Ok(Resent { sent, over }) => {
            let ids = |orders: &[OrderId]| orders.iter().map(ToString::to_string).collect();
            Ok(Json(ResentWire { sent: ids(&sent), over: ids(&over) }))
        }
        Err(error) => Err(Problem::archive(&error.to_string())),
    }
}

async fn discard_session(
    State(desk): State<Desk>,
    caller: Caller,
    Path(id): Path<String>,
    Told(PlainBody { who }): Told<PlainBody>,
) -> Answer<DiscardedWire> {
    let (who, from) = (caller.name(who)?, caller.way);
    let mut deed = Deed {
        at: desk.link.clock.now().wall,
        who: who.clone(),
        from,
        what: "broker.discard_session".into(),
        about: id.clone(),
        refused: None,
        detail: Value::Null,
    };
    let discard = desk.link.in_force().sessions.get(&*id).map(Arc::clone);
    let Some(discard) = discard else {
        let known: Vec<Arc<str>> = desk.link.in_force().sessions.keys().cloned().collect();
        let known = if known.is_empty() { "-".to_owned() } else { known.join(", ") };
        let problem = Problem::not_found(
            format!("没有名为 {id:?} 的外部代理，已配置：{known}"),
            format!("there is no outside broker {id:?}; configured are: {known}"),
        );
        deed.refused = Some(problem.error.clone());
        desk.note(deed).await?;
        return Err(problem);
    };
    tracing::warn!(broker = %id, who, "the session at an outside broker is to be discarded by command");
    desk.note(deed).await?;
    discard();
    Ok(Json(DiscardedWire { broker: id }))
}

pub(super) fn rows(limit: Option<usize>, usual: usize) -> Result<usize, Problem> {
    match limit {
        None => Ok(usual),
        Some(limit) if (1..=MOST_ROWS).contains(&limit) => Ok(limit),
        Some(limit) => Err(Problem::bad_request(format_args!("limit is {limit}, expected 1 to {MOST_ROWS}"))),
    }
}

async fn rules(State(desk): State<Desk>, headers: HeaderMap) -> Result<Tagged<Vec<RuleWire>>, Problem> {
    let rules = desk.ask(|reply| Query::Rules { reply }).await?;
    Tagged::new(&headers, &rules.iter().map(RuleWire::from).collect())
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ReloadBody {
    who: Option<String>,
    #[serde(default)]
    only_tell: bool,
}

async fn reload(
    State(desk): State<Desk>,
    caller: Caller,
    Told(ReloadBody { who, only_tell }): Told<ReloadBody>,
) -> Answer<ReloadedWire> {
    desk.reload(caller.name(who)?, caller.way, only_tell).await.map(Json)
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PointParameters {
    device: Option<String>,
    kind: Option<String>,
    building: Option<String>,
    quality: Option<String>,
    text: Option<String>,
    after: Option<String>,
    /// The same, by its earlier name.
    from: Option<u32>,
    limit: Option<usize>,
}

/// Points and devices that are taken in while anmin runs come behind those that are there: a number is a place.
fn page(after: Option<&str>, from: Option<u32>, limit: Option<usize>) -> Result<Page, Problem> {
    let from = from.map(|from| from.to_string());
    let from = paging::after(after, from.as_deref())?.unwrap_or(0);
    Ok(Page { from, limit: rows(limit, USUAL_ROWS)? })
}

async fn points(
    State(desk): State<Desk>,
    caller: Caller,
    headers: HeaderMap,
    Asked(PointParameters { device, kind, building, quality, text, after, from, limit }): Asked<PointParameters>,
) -> Result<Tagged<PointsWire>, Problem> {
    let kind = match kind.as_deref() {
        None => None,
        Some(word) => Some(
            Kind::named(word)
                .ok_or_else(|| Problem::bad_request(format_args!("{:?} is not a kind of point", short(word))))?,
        ),
    };
    let quality = match quality.as_deref() {
        None => None,
        Some(word) => Some(QualityIs::named(word).ok_or_else(|| {
            Problem::bad_request(format_args!("{:?} is not one of good, uncertain, bad, not_good", short(word)))
        })?),
    };
    let device = device.map(DeviceId::new);
    let filter = PointFilter { device, kind, building, quality, text, within: caller.within() };
    let page = page(after.as_deref(), from, limit)?;
    let found = desk.ask(|reply| Query::Points { filter, page, reply }).await?;
    let wire = desk.writer().points(desk.link.clock.now().wall, &found);
    Tagged::but_for(&headers, &wire, &(&wire.points, wire.next, wire.of))
}

async fn point_choices(
    State(desk): State<Desk>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Tagged<PointChoicesWire>, Problem> {
    let within = caller.within();
    let choices = desk.ask(|reply| Query::PointChoices { within, reply }).await?;
    Tagged::new(&headers, &desk.writer().point_choices(choices))
}

fn point_id(device: &str, name: &str) -> PointId {
    PointId::new(format!("{device}/{name}"))
}

fn no_point(id: &PointId) -> Problem {
    let id = short(id.as_str());
    Problem::not_found(format!("没有测点 {id}"), format!("there is no point {id}"))
}

async fn point(
    State(desk): State<Desk>,
    caller: Caller,
    Path((device, name)): Path<(String, String)>,
) -> Answer<PointWire> {
    let id = point_id(&device, &name);
    let asked = id.clone();
    match desk.ask(|reply| Query::Point { id: asked, reply }).await? {
        Some(row) if caller.sees(&row.place) => Ok(Json(desk.writer().point(&row))),
        _ => Err(no_point(&id)),
    }
}

async fn point_limits(
    State(desk): State<Desk>,
    caller: Caller,
    Path((device, name)): Path<(String, String)>,
) -> Answer<Vec<HeldRuleWire>> {
    let id = point_id(&device, &name);
    let asked = id.clone();
    match desk.ask(|reply| Query::Held { id: asked, reply }).await? {
        Some(held) if caller.sees(&held.place) => Ok(Json(held.rules.iter().map(Into::into).collect())),
        _ => Err(no_point(&id)),
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct HistoryParameters {
    from: Option<String>,
    to: Option<String>,
    buckets: Option<usize>,
}

/// RFC 3339, or milliseconds since 1970.
pub(super) fn moment(name: &str, text: &str) -> Result<Wall, Problem> {
    if let Ok(millis) = text.parse::<i64>() {
        return Ok(Wall::from_millis(millis));
    }
    match text.parse::<Timestamp>() {
        Ok(at) => Ok(Wall::from_micros(at.as_microsecond())),
        Err(_) => Err(Problem::bad_request(format_args!(
            "{name} is {:?}, expected a moment such as 2026-01-31T08:00:00+08:00 or milliseconds since 1970",
            short(text)
        ))),
    }
}

async fn point_history(
    State(desk): State<Desk>,
    caller: Caller,
    Path((device, name)): Path<(String, String)>,
    Asked(HistoryParameters { from, to, buckets }): Asked<HistoryParameters>,
) -> Answer<Vec<BucketWire>> {
    const DAY_MS: i64 = 86_400_000;
    let to = match to.as_deref() {
        Some(text) => moment("to", text)?,
        None => desk.link.clock.now().wall,
    };
    let from = match from.as_deref() {
        Some(text) => moment("from", text)?,
        None => Wall::from_millis(to.millis().saturating_sub(DAY_MS)),
    };
    if from >= to {
        return Err(Problem::bad_request("from does not lie before to"));
    }
    let buckets = rows(buckets, USUAL_ROWS)?;
    let id = point_id(&device, &name);
    let asked = id.clone();
    let row = desk.ask(|reply| Query::Point { id: asked, reply }).await?;
    if !row.is_some_and(|row| caller.sees(&row.place)) {
        return Err(no_point(&id));
    }
    let found = desk.archive(move |archive| archive.readings(&id, from, to, buckets)).await?;
    let writer = desk.writer();
    Ok(Json(found.iter().map(|bucket| writer.bucket(bucket)).collect()))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PageParameters {
    after: Option<String>,
    /// The same, by its earlier name.
    from: Option<u32>,
    limit: Option<usize>,
}

async fn device_page(
    State(desk): State<Desk>,
    caller: Caller,
    headers: HeaderMap,
    Asked(PageParameters { after, from, limit }): Asked<PageParameters>,
) -> Result<Tagged<DevicesWire>, Problem> {
    let page = page(after.as_deref(), from, limit)?;
    let within = caller.within();
    let found = desk.ask(|reply| Query::Devices { within, page, reply }).await?;
    Tagged::new(&headers, &desk.writer().devices(&found))
}

async fn quarantine(State(desk): State<Desk>) -> Answer<Vec<QuarantinedWire>> {
    let found = desk.ask(|reply| Query::Quarantine { reply }).await?;
    let writer = desk.writer();
    Ok(Json(found.iter().map(|row| writer.quarantined(row)).collect()))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct UnusableParameters {
    limit: Option<usize>,
    /// As the header `Link` of the page before has it.
    after: Option<String>,
}

/// `1772328600000000.12`: when it came last, and its number.
struct UnusableCursor(KeptCursor);

impl FromStr for UnusableCursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (micros, n) = text.split_once('.').ok_or(())?;
        Ok(Self((Wall::from_micros(micros.parse().map_err(drop)?), n.parse().map_err(drop)?)))
    }
}

async fn quarantined_messages(
    State(desk): State<Desk>,
    Asked(UnusableParameters { limit, after }): Asked<UnusableParameters>,
) -> Leaf<UnusableWire> {
    let limit = rows(limit, USUAL_ROWS)?;
    let after = paging::after(after.as_deref(), None)?.map(|UnusableCursor(after)| after);
    let mut found = desk.archive(move |archive| archive.unusable(limit + 1, after)).await?;
    let headers = paging::leaf(&mut found, limit, |kept| format!("{}.{}", kept.last.micros(), kept.n));
    let writer = desk.writer();
    Ok((headers, Json(found.iter().map(|kept| writer.unusable(kept)).collect())))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct EventParameters {
    readings: Option<String>,
    last_event_id: Option<String>,
}

async fn events(
    State(desk): State<Desk>,
    caller: Caller,
    headers: HeaderMap,
    Asked(EventParameters { readings, last_event_id: parameter }): Asked<EventParameters>,
) -> Result<Response, Problem> {
    let readings = match readings.as_deref() {
        None | Some("no") => false,
        Some("yes") => true,
        Some(other) => {
            return Err(Problem::bad_request(format_args!("readings is {:?}, expected yes or no", short(other))));
        }
    };
    let last = last_event_id(&headers, parameter.as_deref());
    desk.hub.stream(&desk.link, caller, last.as_deref(), readings)
}

/// Who gives a command, as the journal will name them.
pub(super) fn person(who: Option<String>) -> Result<String, Problem> {
    let who = who.ok_or_else(|| Problem::bad_request("missing field `who`"));
    who.and_then(|who| words("who", &who, 64))
        .map_err(|problem| problem.hint("who 填操作人的姓名", "`who` is the name of the person who does it"))
}

pub(super) fn words(name: &str, text: &str, most: usize) -> Result<String, Problem> {
    let text = text.trim();
    if text.is_empty() {
        return Err(Problem::bad_request(format_args!("`{name}` is empty")));
    }
    if text.chars().count() > most {
        return Err(Problem::bad_request(format_args!("`{name}` is longer than {most} characters")));
    }
    if text.chars().any(char::is_control) {
        return Err(Problem::bad_request(format_args!("`{name}` holds control characters")));
    }
    Ok(text.to_owned())
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PlainBody {
    pub who: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ShelveBody {
    who: Option<String>,
    minutes: u32,
    why: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WhyBody {
    pub who: Option<String>,
    pub why: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct EscalateBody {
    who: Option<String>,
    /// The step that is meant: one more than the alarm's `escalation` as the person saw it.
    step: u32,
    why: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CallStationBody {
    who: Option<String>,
    station: String,
    /// Also where it cannot respond.
    #[serde(default)]
    insist: bool,
    why: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ApproveBody {
    who: Option<String>,
    /// The community's name or the alarm's number, as the person has typed it.
    typed: String,
    /// The level and state of the broadcast that the person saw.
    level: String,
    state: String,
}

/// Longest reason that is kept.
pub(super) const MOST_WHY: usize = 300;
/// Photos that one note names.
const MOST_PHOTOS: usize = 10;
/// A shelf's longest time here; the desk's own limits are shorter.
const MOST_MINUTES: u32 = 24 * 60;

async fn act(
    State(desk): State<Desk>,
    caller: Caller,
    Path((id, action)): Path<(String, String)>,
    request: Request,
) -> Answer<AlarmViewWire> {
    let alarm = alarm_id(&id)?;
    caller.may(right_of("alarms", &action))?;
    let (who, what) = match action.as_str() {
        "shelve" => {
            let ShelveBody { who, minutes, why } = body(request).await?;
            let why = words("why", &why, MOST_WHY)?;
            if !(1..=MOST_MINUTES).contains(&minutes) {
                return Err(Problem::bad_request(format_args!("`minutes` is {minutes}, expected 1 to {MOST_MINUTES}")));
            }
            let until = desk.link.clock.now().wall.plus(Duration::from_secs(u64::from(minutes) * 60));
            (who, Action::Shelve { alarm, until, why })
        }
        "out-of-service" => {
            let WhyBody { who, why } = body(request).await?;
            (who, Action::TakeOutOfService { alarm, why: words("why", &why, MOST_WHY)? })
        }
        "acknowledge" => (body::<PlainBody>(request).await?.who, Action::Acknowledge { alarm }),
        "reset" => (body::<PlainBody>(request).await?.who, Action::Reset { alarm }),
        "unshelve" => (body::<PlainBody>(request).await?.who, Action::Unshelve { alarm }),
        "return-to-service" => (body::<PlainBody>(request).await?.who, Action::ReturnToService { alarm }),
        "escalate" => {
            let EscalateBody { who, step, why } = body(request).await?;
            (who, Action::Escalate { alarm, step, why: words("why", &why, MOST_WHY)? })
        }
        "call-station" => {
            let CallStationBody { who, station, insist, why } = body(request).await?;
            (who, Action::CallStation { alarm, station, insist, why: words("why", &why, MOST_WHY)? })
        }
        "approve-broadcast" => {
            let ApproveBody { who, typed, level, state } = body(request).await?;
            let seen = BroadcastState::ALL.into_iter().find(|each| each.as_str() == state).zip(Level::named(&level));
            let (state, level) = seen
                .ok_or_else(|| Problem::bad_request("`level` and `state` are those of the broadcast that was seen"))?;
            let account = caller.principal.person().map(str::to_owned);
            (
                who,
                Action::Broadcast {
                    alarm,
                    what: BroadcastAction::Approve { account, typed, seen: Seen { state, level } },
                },
            )
        }
        "refuse-broadcast" => {
            let WhyBody { who, why } = body(request).await?;
            let what = BroadcastAction::Refuse { why: words("why", &why, MOST_WHY)? };
            (who, Action::Broadcast { alarm, what })
        }
        "take-back-broadcast" => {
            let WhyBody { who, why } = body(request).await?;
            let what = BroadcastAction::TakeBack { why: words("why", &why, MOST_WHY)? };
            (who, Action::Broadcast { alarm, what })
        }
        _ => {
            return Err(Problem::not_found("没有这个操作", "there is no such command").hint(
                "可用：acknowledge、reset、shelve、unshelve、out-of-service、return-to-service、escalate、call-station、\
                 approve-broadcast、refuse-broadcast、take-back-broadcast",
                "there are acknowledge, reset, shelve, unshelve, out-of-service, return-to-service, escalate, \
                 call-station, approve-broadcast, refuse-broadcast and take-back-broadcast",
            ));
        }
    };
    desk.command(caller, who, alarm, what).await
}

async fn call_step(
    State(desk): State<Desk>,
    caller: Caller,
    Path((id, station, step)): Path<(String, String, String)>,
    request: Request,
) -> Answer<AlarmViewWire> {
    let alarm = alarm_id(&id)?;
    caller.may(right_of("calls", &step))?;
    let (who, step) = match step.as_str() {
        "decline" => {
            let WhyBody { who, why } = body(request).await?;
            (who, CallStep::Decline { why: words("why", &why, MOST_WHY)? })
        }
        "accept" => (body::<PlainBody>(request).await?.who, CallStep::Accept),
        "on-the-way" => (body::<PlainBody>(request).await?.who, CallStep::OnTheWay),
        "on-scene" => (body::<PlainBody>(request).await?.who, CallStep::OnScene),
        "under-control" => (body::<PlainBody>(request).await?.who, CallStep::UnderControl),
        "stand-down" => (body::<PlainBody>(request).await?.who, CallStep::StandDown),
        _ => {
            return Err(Problem::not_found("没有这个操作", "there is no such step").hint(
                "可用：accept、on-the-way、on-scene、under-control、stand-down、decline",
                "there are accept, on-the-way, on-scene, under-control, stand-down and decline",
            ));
        }
    };
    desk.command(caller, who, alarm, Action::Call { alarm, station, step }).await
}

pub(super) fn incident_id(text: &str) -> Result<IncidentId, Problem> {
    match Uuid::from_str(text) {
        Ok(id) => Ok(IncidentId(id)),
        Err(_) => Err(Problem::bad_request(format_args!("{:?} is not an incident's id", short(text)))
            .hint("事件编号见 GET /api/v1/incidents", "ids stand in GET /api/v1/incidents")),
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct IncidentParameters {
    state: Option<String>,
    building: Option<String>,
    outcome: Option<String>,
    hazard: Option<String>,
    /// `mediation`, `report` or `maintenance`.
    case: Option<String>,
    text: Option<String>,
    from: Option<String>,
    to: Option<String>,
    after: Option<String>,
    /// The same, by its earlier name.
    cursor: Option<String>,
    limit: Option<usize>,
}

async fn incidents(
    State(desk): State<Desk>,
    caller: Caller,
    Asked(asked): Asked<IncidentParameters>,
) -> Answer<IncidentsWire> {
    let IncidentParameters { state, building, outcome, hazard, case, text, from, to, after, cursor, limit } = asked;
    let limit = rows(limit, USUAL_ROWS)?;
    let writer = desk.writer();
    let now = writer.at(desk.link.clock.now().wall);
    match state.as_deref() {
        None | Some("open") => {
            let narrowed = [&building, &outcome, &hazard, &case, &text, &from, &to].into_iter().any(Option::is_some);
            if narrowed {
                return Err(Problem::bad_request(
                    "building, outcome, hazard, case, text, from and to go with state=closed",
                ));
            }
            let after = paging::after(after.as_deref(), cursor.as_deref())?;
            let page = IncidentPage { after, limit };
            let within = caller.within();
            let list = desk.ask(|reply| Query::Incidents { within, page, reply }).await?;
            Ok(Json(IncidentsWire {
                now,
                incidents: list.incidents.iter().map(|situation| writer.situation(situation)).collect(),
                next: list.next.map(|next| next.to_string()),
                of: Some(list.of),
            }))
        }
        Some("closed") => {
            let after = paging::after(after.as_deref(), cursor.as_deref())?.map(|EndedCursor(after)| after);
            let from = from.as_deref().map(|from| moment("from", from)).transpose()?;
            let to = to.as_deref().map(|to| moment("to", to)).transpose()?;
            let text = text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
            let filter = ClosedFilter { building, outcome, hazard, case, text, from, to };
            // One more than is shown tells whether there is another page.
            let within = caller.within();
            let mut found =
                desk.archive(move |archive| closed_within(archive, &within, &filter, after, limit + 1)).await?;
            let more = found.len() > limit;
            found.truncate(limit);
            let next = found.last().filter(|_| more).and_then(|last| Some((last.end.as_ref()?.at, last.id)));
            Ok(Json(IncidentsWire {
                now,
                incidents: found.iter().map(|incident| writer.past(incident)).collect(),
                next: next.map(|(at, id)| format!("{}.{id}", at.micros())),
                of: None,
            }))
        }
        Some(other) => Err(Problem::bad_request(format_args!("state is {:?}, expected open or closed", short(other)))),
    }
}

fn beyond() -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "beyond_your_places",
        "该事件含有您管辖范围以外的报警，不能整体处理",
        "this incident has alarms beyond your places, so it cannot be handled as a whole",
    )
    .hint(
        "请逐条确认您范围内的报警，或联系值班员",
        "acknowledge the alarms of your places one by one, or ask the duty officer",
    )
}

fn beyond_places() -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "beyond_your_places",
        "该位置不在您管辖的范围内",
        "this place lies beyond yours",
    )
    .hint("请写明您范围内的楼栋或区域", "name a building or an area of yours")
}

fn no_incident(id: IncidentId) -> Problem {
    Problem::not_found(format!("没有事件 {id}"), format!("there is no incident {id}"))
}

/// Whether what a row tells lies within; a damaged row lies nowhere.
pub(super) fn lies_within(places: &Places, row: &Journaled) -> bool {
    places.is_everywhere()
        || match &row.entry {
            Entry::Transition(transition) => places.takes(&transition.alarm.place),
            Entry::Call(change) => places.takes(&change.alarm.place),
            Entry::Incident(change) => places.takes(&change.incident.place),
            Entry::Damaged(_) => false,
        }
}

/// Pages that are walked for who sees few of their rows.
const MOST_WALKED: usize = 100;

/// As many rows as are wanted of those that lie within, however many lie between them.
fn rows_within(
    places: &Places,
    limit: usize,
    mut before: Option<i64>,
    read: impl Fn(usize, Option<i64>) -> Result<Vec<Journaled>, String>,
) -> Result<Vec<Journaled>, String> {
    if places.is_everywhere() {
        return read(limit, before);
    }
    let mut found = Vec::new();
    for _ in 0..MOST_WALKED {
        let rows = read(MOST_ROWS, before)?;
        let more = rows.len() == MOST_ROWS;
        before = rows.last().map(|row| row.n);
        found.extend(rows.into_iter().filter(|row| lies_within(places, row)));
        if found.len() >= limit || !more {
            break;
        }
    }
    found.truncate(limit);
    Ok(found)
}

/// The same of incidents that have closed.
fn closed_within(
    archive: &dyn Archive,
    places: &Places,
    filter: &ClosedFilter,
    mut after: Option<ClosedCursor>,
    limit: usize,
) -> Result<Vec<Incident>, String> {
    if places.is_everywhere() {
        return archive.closed_incidents(filter, after, limit);
    }
    let mut found = Vec::new();
    for _ in 0..MOST_WALKED {
        let rows = archive.closed_incidents(filter, after, MOST_ROWS)?;
        let more = rows.len() == MOST_ROWS;
        after = rows.last().and_then(|last| Some(ClosedCursor(last.end.as_ref()?.at, last.id)));
        found.extend(rows.into_iter().filter(|incident| places.takes(&incident.place)));
        if found.len() >= limit || !more {
            break;
        }
    }
    found.truncate(limit);
    Ok(found)
}

/// As the API writes it: `1772328600000000.0195506b-f3c0-7000-8000-000000000001`.
struct EndedCursor(ClosedCursor);

impl FromStr for EndedCursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (micros, id) = text.split_once('.').ok_or(())?;
        let at = Wall::from_micros(micros.parse().map_err(drop)?);
        Ok(Self(ClosedCursor(at, IncidentId(id.parse().map_err(drop)?))))
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SpanParameters {
    from: Option<String>,
    to: Option<String>,
}

async fn outcomes(
    State(desk): State<Desk>,
    Asked(SpanParameters { from, to }): Asked<SpanParameters>,
) -> Answer<Vec<OutcomeWire>> {
    let from = from.as_deref().map_or(Ok(Wall::default()), |from| moment("from", from))?;
    let to = to.as_deref().map_or(Ok(desk.link.clock.now().wall), |to| moment("to", to))?;
    let found = desk.archive(move |archive| archive.outcomes(from, to)).await?;
    let wire = |(outcome, cause, incidents): (String, String, u64)| OutcomeWire {
        outcome,
        cause: (!cause.is_empty()).then_some(cause),
        incidents,
    };
    Ok(Json(found.into_iter().map(wire).collect()))
}

async fn incident(State(desk): State<Desk>, caller: Caller, Path(id): Path<String>) -> Answer<IncidentViewWire> {
    let id = incident_id(&id)?;
    desk.incident(&caller, id).await
}

async fn timeline(
    State(desk): State<Desk>,
    caller: Caller,
    Path(id): Path<String>,
    Asked(asked): Asked<JournalParameters>,
) -> Leaf<JournalWire> {
    let id = incident_id(&id)?;
    let (limit, before) = asked.page()?;
    desk.find_incident(&caller, id).await?;
    let within = caller.within();
    let read = move |archive: &dyn Archive| {
        rows_within(&within, limit + 1, before, |limit, before| archive.timeline(id, limit, before))
    };
    let mut found = desk.archive(read).await?;
    let headers = paging::leaf(&mut found, limit, |row| row.n);
    Ok((headers, Json(desk.writer().journal(&found))))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SeenBody {
    who: Option<String>,
    newest: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SaidBody {
    who: Option<String>,
    text: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NoteBody {
    who: Option<String>,
    text: String,
    #[serde(default)]
    photos: Vec<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct StepBody {
    who: Option<String>,
    step: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SkipBody {
    who: Option<String>,
    step: String,
    why: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct StageBody {
    who: Option<String>,
    stage: String,
    /// Who sees to it from now on.
    owner: Option<String>,
    #[serde(default)]
    text: String,
}

/// A case that is opened by hand: no alarm stands behind it.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OpenBody {
    who: Option<String>,
    /// `mediation`, `report` or `maintenance`.
    kind: String,
    /// What it is about, in a line that names nobody.
    title: String,
    #[serde(default)]
    place: WhereBody,
    /// What was said; becomes its first note.
    #[serde(default)]
    text: String,
    /// Who sees to it; who opens it where nobody is named.
    owner: Option<String>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct WhereBody {
    area: String,
    grid: String,
    building: String,
    unit: String,
    floor: String,
    room: String,
}

impl WhereBody {
    fn place(self) -> Result<Place, Problem> {
        let part = |name: &str, text: String| {
            if text.trim().is_empty() { Ok(String::new()) } else { words(name, &text, drills::MOST_NAME) }
        };
        Ok(Place {
            area: part("area", self.area)?,
            grid: part("grid", self.grid)?,
            building: part("building", self.building)?,
            unit: part("unit", self.unit)?,
            floor: part("floor", self.floor)?,
            room: part("room", self.room)?,
            position: None,
            polygon: Vec::new(),
        })
    }
}

async fn open_case(State(desk): State<Desk>, caller: Caller, Told(open): Told<OpenBody>) -> Answer<IncidentViewWire> {
    let known = || CaseKind::ALL.map(CaseKind::as_str).join(", ");
    let kind = CaseKind::named(&open.kind).ok_or_else(|| {
        Problem::bad_request(format_args!("`kind` is {:?}, expected one of {}", short(&open.kind), known()))
    })?;
    let what = NewCase {
        kind,
        title: words("title", &open.title, MOST_WHY)?,
        place: open.place.place()?,
        text: if open.text.trim().is_empty() { String::new() } else { words("text", &open.text, MOST_WHY)? },
        owner: open.owner.map(|owner| words("owner", &owner, drills::MOST_NAME)).transpose()?,
    };
    if !caller.within().takes_every_part(&what.place) {
        return Err(beyond_places());
    }
    let incident = IncidentId(Uuid::now_v7());
    let command = Command { who: caller.name(open.who)?, what: Action::OpenCase { incident, what: Box::new(what) } };
    desk.give(caller.clone(), command).await?;
    desk.incident(&caller, incident).await
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct MergeBody {
    who: Option<String>,
    into: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SplitBody {
    who: Option<String>,
    alarms: Vec<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CloseBody {
    who: Option<String>,
    outcome: String,
    cause: Option<String>,
    #[serde(default)]
    why: String,
}

impl CloseBody {
    fn outcome(&self) -> Result<Outcome, Problem> {
        match (self.outcome.as_str(), self.cause.as_deref()) {
            ("false_alarm", Some(cause)) => FalseCause::named(cause).map(Outcome::FalseAlarm).ok_or_else(|| {
                let known = FalseCause::ALL.map(FalseCause::as_str).join(", ");
                Problem::bad_request(format_args!("`cause` is {:?}, expected one of {known}", short(cause)))
            }),
            ("false_alarm", None) => Err(Problem::bad_request("a false alarm needs its `cause`")),
            (_, Some(_)) => Err(Problem::bad_request("`cause` goes with the outcome false_alarm")),
            (word, None) => Outcome::named(word).ok_or_else(|| {
                Problem::bad_request(format_args!(
                    "`outcome` is {:?}, expected real, false_alarm, test or maintenance, or of a case one of its `outcomes`",
                    short(word)
                ))
            }),
        }
    }
}

async fn act_on_incident(
    State(desk): State<Desk>,
    caller: Caller,
    Path((id, action)): Path<(String, String)>,
    request: Request,
) -> Answer<IncidentViewWire> {
    let incident = incident_id(&id)?;
    caller.may(right_of("incidents", &action))?;
    // Which one is shown afterwards.
    let mut shown = incident;
    let mut moved = None;
    let (who, what) = match action.as_str() {
        "acknowledge" => {
            let SeenBody { who, newest } = body(request).await?;
            (who, IncidentAction::Acknowledge { newest: newest.as_deref().map(alarm_id).transpose()? })
        }
        "note" => {
            let NoteBody { who, text, photos } = body(request).await?;
            if photos.len() > MOST_PHOTOS {
                return Err(Problem::bad_request(format_args!("`photos` names more than {MOST_PHOTOS}")));
            }
            let photos = photos.iter().map(|photo| words("photos", photo, MOST_WHY)).collect::<Result<_, _>>()?;
            (who, IncidentAction::Note { text: words("text", &text, MOST_WHY)?, photos })
        }
        "tick" => {
            let StepBody { who, step } = body(request).await?;
            (who, IncidentAction::Tick { step })
        }
        "skip" => {
            let SkipBody { who, step, why } = body(request).await?;
            (who, IncidentAction::Skip { step, why: words("why", &why, MOST_WHY)? })
        }
        "called-119" => {
            let SaidBody { who, text } = body(request).await?;
            let text = if text.trim().is_empty() { String::new() } else { words("text", &text, MOST_WHY)? };
            (who, IncidentAction::Called119 { text })
        }
        "stage" => {
            let StageBody { who, stage, owner, text } = body(request).await?;
            let stage = Stage::named(&stage).ok_or_else(|| {
                let known = Stage::ALL.map(Stage::as_str).join(", ");
                Problem::bad_request(format_args!("`stage` is {:?}, expected one of {known}", short(&stage)))
            })?;
            let owner = owner.map(|owner| words("owner", &owner, drills::MOST_NAME)).transpose()?;
            let text = if text.trim().is_empty() { String::new() } else { words("text", &text, MOST_WHY)? };
            (who, IncidentAction::Stage { stage, owner, text })
        }
        "merge" => {
            let MergeBody { who, into } = body(request).await?;
            shown = incident_id(&into)?;
            (who, IncidentAction::MergeInto { into: shown })
        }
        "split" => {
            let SplitBody { who, alarms } = body(request).await?;
            let alarms: Vec<AlarmId> = alarms.iter().map(|alarm| alarm_id(alarm)).collect::<Result<_, _>>()?;
            moved = alarms.first().copied();
            (who, IncidentAction::Split { alarms })
        }
        "close" => {
            let close: CloseBody = body(request).await?;
            let outcome = close.outcome()?;
            let why = if close.why.trim().is_empty() { String::new() } else { words("why", &close.why, MOST_WHY)? };
            (close.who, IncidentAction::Close { outcome, why })
        }
        _ => {
            return Err(Problem::not_found("没有这个操作", "there is no such command").hint(
                "可用：acknowledge、note、tick、skip、called-119、stage、merge、split、close",
                "there are acknowledge, note, tick, skip, called-119, stage, merge, split and close",
            ));
        }
    };
    let command = Command { who: caller.name(who)?, what: Action::Incident { incident, what } };
    for id in [incident, shown] {
        desk.find_incident(&caller, id).await?;
        let whole = ["acknowledge", "merge", "split", "close"].contains(&action.as_str());
        desk.is_theirs(&caller, id, whole).await?;
    }
    desk.give(caller.clone(), command).await?;
    if let Some(alarm) = moved {
        let view = desk.ask(|reply| Query::Alarm { id: alarm, reply }).await?;
        shown = view.and_then(|view| view.alarm.incident).unwrap_or(shown);
    }
    desk.incident(&caller, shown).await
}

/// Ready means that the main loop answers.
async fn readyz(State(desk): State<Desk>) -> Response {
    match desk.ask(|reply| Query::Status { within: Places::EVERYWHERE, reply }).await {
        Ok(_) => "ready\n".into_response(),
        Err(problem) => problem.into_response(),
    }
}

async fn metrics(State(desk): State<Desk>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], Body::from((desk.link.metrics)())).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nobody reads the inputs: the first question is taken and not answered, the second is not even taken.
    #[tokio::test]
    async fn a_main_loop_that_stands_still_is_said_not_waited_for() {
        let (inputs, _received) = mpsc::channel(1);
        for _ in 0..2 {
            let asked = send_within(Duration::from_millis(1), &inputs, |reply| {
                Input::Query(Query::Status { within: Places::EVERYWHERE, reply })
            });
            assert_eq!(asked.await.err().map(|problem| problem.code), Some("busy"));
        }
    }
}
