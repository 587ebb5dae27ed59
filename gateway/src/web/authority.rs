//! Who may do what: one table of rights and roles, and one of commands. Every request passes [`check`], by the right that
//! its route was made with; nothing else decides. A route cannot be made without one.
//!
//! A right says what; a principal's places say where. What concerns the whole site is only for those whose places are
//! everywhere; the rest is looked at and done within them, and what lies elsewhere is not there at all.

use axum::Router;
use axum::extract::Request;
use axum::handler::Handler;
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse as _;
use axum::routing::{self, MethodRouter};
use schemars::JsonSchema;

use super::meanwhile::{self, Against};
use super::once::Once;
use super::openapi::{Operation, Said, Tells};
use super::people::People;
use super::problem::Problem;
use crate::store::people::{Principal, Role};

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Nobody need say who they are.
    Anybody,
    /// What concerns one's own signing in.
    Own,
    /// See alarms, incidents, readings and devices.
    Look,
    /// See rules, statistics, dead letters, unknown devices.
    LookBehind,
    /// Read what a subscriber is told.
    Subscribe,
    /// Say that somebody takes care.
    Acknowledge,
    /// Say for a station how far its crew is.
    Call,
    /// Hand a station over, check what it has, take it off duty.
    Station,
    /// Switch what the site names as an output, where that lets the role.
    Output,
    /// Start a drill, raise alarms in it, end it.
    Drill,
    /// Reset, shelve, take out of service, call a station, escalate, merge, split, close.
    Handle,
    /// Send again what was given up.
    Resend,
    /// Try other numbers for rules on the past.
    Try,
    /// Have rules read anew and set numbers for them, sessions at brokers discarded.
    Operate,
    /// Figures for a monitor.
    Measure,
    /// Read who did what.
    Audit,
    /// See who may do what.
    LookPeople,
    /// Change who may do what.
    ChangePeople,
}

impl Right {
    pub const ALL: [Self; 18] = [
        Self::Anybody,
        Self::Own,
        Self::Look,
        Self::LookBehind,
        Self::Subscribe,
        Self::Acknowledge,
        Self::Call,
        Self::Station,
        Self::Output,
        Self::Drill,
        Self::Handle,
        Self::Resend,
        Self::Try,
        Self::Operate,
        Self::Measure,
        Self::Audit,
        Self::LookPeople,
        Self::ChangePeople,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Anybody => "anybody",
            Self::Own => "own",
            Self::Look => "look",
            Self::LookBehind => "look_behind",
            Self::Subscribe => "subscribe",
            Self::Acknowledge => "acknowledge",
            Self::Call => "call",
            Self::Station => "station",
            Self::Output => "output",
            Self::Drill => "drill",
            Self::Handle => "handle",
            Self::Resend => "resend",
            Self::Try => "try",
            Self::Operate => "operate",
            Self::Measure => "measure",
            Self::Audit => "audit",
            Self::LookPeople => "look_people",
            Self::ChangePeople => "change_people",
        }
    }

    /// Whether it can be had for some places alone.
    const fn has_places(self) -> bool {
        matches!(self, Self::Anybody | Self::Own | Self::Look | Self::Acknowledge | Self::Call | Self::Handle)
    }

    /// Whether commands under it may bear an `Idempotency-Key`. What concerns sign-ins, accounts and tokens has secrets in its
    /// answers, which nobody keeps.
    pub(super) const fn keeps_keys(self) -> bool {
        !matches!(self, Self::Anybody | Self::Own | Self::ChangePeople)
    }

    /// Whether a locked screen still has it: it shows and sounds what happens, and does nothing.
    pub const fn outlasts_lock(self) -> bool {
        matches!(self, Self::Anybody | Self::Own | Self::Look | Self::LookBehind | Self::Subscribe | Self::Measure)
    }
}

const X: bool = true;
const O: bool = false;

/// Rights, and which roles have them.
#[rustfmt::skip]
const TABLE: [(Right, [bool; Role::ALL.len()]); Right::ALL.len()] = [
    //                     officer crew manager office administrator auditor device
    (Right::Anybody,      [X,      X,   X,      X,     X,            X,      X]),
    (Right::Own,          [X,      X,   X,      X,     X,            X,      X]),
    (Right::Look,         [X,      X,   X,      X,     X,            X,      O]),
    (Right::LookBehind,   [X,      X,   O,      X,     X,            X,      O]),
    (Right::Subscribe,    [O,      O,   O,      X,     X,            O,      O]),
    (Right::Acknowledge,  [X,      X,   X,      O,     X,            O,      O]),
    (Right::Call,         [X,      X,   O,      O,     X,            O,      O]),
    (Right::Station,      [X,      X,   O,      O,     X,            O,      O]),
    (Right::Output,       [X,      X,   O,      O,     X,            O,      O]),
    (Right::Drill,        [X,      O,   O,      O,     X,            O,      O]),
    (Right::Handle,       [X,      O,   O,      O,     X,            O,      O]),
    (Right::Resend,       [X,      O,   O,      O,     X,            O,      O]),
    (Right::Try,          [X,      O,   O,      O,     X,            O,      O]),
    (Right::Operate,      [O,      O,   O,      O,     X,            O,      O]),
    (Right::Measure,      [O,      O,   O,      O,     X,            X,      O]),
    (Right::Audit,        [O,      O,   O,      O,     X,            X,      O]),
    (Right::LookPeople,   [O,      O,   O,      O,     X,            X,      O]),
    (Right::ChangePeople, [O,      O,   O,      O,     X,            O,      O]),
];

/// Commands whose route is shared by several: what about, which, and the right that it needs.
pub const COMMANDS: [(&str, &str, Right); 26] = [
    ("alarms", "acknowledge", Right::Acknowledge),
    ("alarms", "reset", Right::Handle),
    ("alarms", "shelve", Right::Handle),
    ("alarms", "unshelve", Right::Handle),
    ("alarms", "out-of-service", Right::Handle),
    ("alarms", "return-to-service", Right::Handle),
    ("alarms", "escalate", Right::Handle),
    ("alarms", "call-station", Right::Handle),
    ("alarms", "approve-broadcast", Right::Handle),
    ("alarms", "refuse-broadcast", Right::Handle),
    ("alarms", "take-back-broadcast", Right::Handle),
    ("calls", "accept", Right::Call),
    ("calls", "on-the-way", Right::Call),
    ("calls", "on-scene", Right::Call),
    ("calls", "under-control", Right::Call),
    ("calls", "stand-down", Right::Call),
    ("calls", "decline", Right::Call),
    ("incidents", "acknowledge", Right::Acknowledge),
    ("incidents", "note", Right::Acknowledge),
    ("incidents", "tick", Right::Acknowledge),
    ("incidents", "skip", Right::Acknowledge),
    ("incidents", "called-119", Right::Acknowledge),
    ("incidents", "stage", Right::Acknowledge),
    ("incidents", "merge", Right::Handle),
    ("incidents", "split", Right::Handle),
    ("incidents", "close", Right::Handle),
];

/// The right that one of [`COMMANDS`] needs; a word that is none asks for the least, and is not found then.
pub(super) fn right_of(about: &str, command: &str) -> Right {
    let known = COMMANDS.iter().find(|(of, named, _)| (*of, *named) == (about, command));
    known.map_or(Right::Acknowledge, |(.., right)| *right)
}

/// The right of a command by the pattern of its route, `/alarms/{id}/{action}`; `None` where the route's own is meant.
pub(super) fn command_right(pattern: &str, command: &str) -> Option<Right> {
    let about = pattern.rsplit('/').nth(2)?;
    COMMANDS.iter().find(|(of, named, _)| (*of, *named) == (about, command)).map(|(.., right)| *right)
}

/// Whether the table gives it.
pub fn allows(principal: &Principal, right: Right) -> bool {
    let column = Role::ALL.iter().position(|role| *role == principal.role);
    let row = TABLE.iter().find(|(each, _)| *each == right);
    let given = row.zip(column).is_some_and(|((_, row), column)| row[column]);
    given && (right.has_places() || principal.places.is_everywhere())
}

/// The rights that somebody has, as words.
pub fn rights_of(principal: &Principal) -> Vec<String> {
    let given = Right::ALL.into_iter().filter(|right| allows(principal, *right));
    given.map(|right| right.as_str().to_owned()).collect()
}

/// Refuses what the table does not give.
pub(super) fn check(principal: &Principal, right: Right) -> Result<(), Problem> {
    if allows(principal, right) {
        return Ok(());
    }
    let (zh, en) = role_words(principal.role);
    Err(Problem::new(
        StatusCode::FORBIDDEN,
        "not_your_role",
        format!("您的角色（{zh}）无权进行此操作"),
        format!("your role ({en}) does not include this"),
    )
    .hint("需要时请联系管理员调整角色或范围", "an administrator can change your role or your places"))
}

/// For people.
pub fn role_words(role: Role) -> (&'static str, &'static str) {
    match role {
        Role::Officer => ("值班员", "officer"),
        Role::Crew => ("微站队员", "station crew"),
        Role::Manager => ("物业经理", "property manager"),
        Role::Office => ("应急办", "emergency office"),
        Role::Administrator => ("管理员", "administrator"),
        Role::Auditor => ("审计员", "auditor"),
        Role::Device => ("设备", "device"),
    }
}

/// One route, as the router has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteRow {
    pub method: Method,
    pub path: String,
    pub right: Right,
}

/// A handler with the right that it needs.
pub(super) struct Route<S> {
    method: Method,
    right: Right,
    handler: MethodRouter<S>,
    /// Of one that changes something.
    against: Option<Against>,
    said: Said,
}

impl<S> Route<S> {
    /// One of several commands that share the route, with the body that it takes.
    pub fn command<B: JsonSchema>(mut self, word: &'static str) -> Self {
        self.said.command::<B>(word);
        self
    }

    /// It answers a list that has pages: `limit` and `after` are among its parameters.
    pub fn pages(mut self) -> Self {
        self.said.list("pages");
        self
    }

    /// It answers a list that cannot grow without bound; the words say why.
    pub fn bounded(mut self, by: &'static str) -> Self {
        self.said.list(by);
        self
    }

    /// The media type of an answer that is no typed JSON.
    pub fn gives(mut self, kind: &'static str) -> Self {
        self.said.gives(kind);
        self
    }

    /// The media type of a body that is no typed JSON.
    pub fn takes(mut self, kind: &'static str) -> Self {
        self.said.takes(kind);
        self
    }
}

pub(super) fn get<H, T, S>(right: Right, handler: H) -> Route<S>
where
    H: Handler<T, S> + Tells<T>,
    T: 'static,
    S: Clone + Send + Sync + 'static,
{
    Route { method: Method::GET, right, handler: routing::get(handler), against: None, said: Said::of::<H, T>() }
}

pub(super) fn post<H, T, S>(right: Right, against: Against, handler: H) -> Route<S>
where
    H: Handler<T, S> + Tells<T>,
    T: 'static,
    S: Clone + Send + Sync + 'static,
{
    let mut said = Said::of::<H, T>();
    said.against(against);
    Route { method: Method::POST, right, handler: routing::post(handler), against: Some(against), said }
}

/// Routes, each behind its right.
pub(super) struct Routes<S>(Vec<(&'static str, Route<S>)>);

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    pub fn new() -> Self {
        Self(Vec::new())
    }

    pub fn route(mut self, path: &'static str, route: Route<S>) -> Self {
        self.0.push((path, route));
        self
    }

    /// As the table has them, below `base`.
    pub fn rows(&self, base: &str) -> Vec<RouteRow> {
        let row = |(path, route): &(&'static str, Route<S>)| RouteRow {
            method: route.method.clone(),
            path: format!("{base}{path}"),
            right: route.right,
        };
        self.0.iter().map(row).collect()
    }

    /// What each takes and answers, below `base`.
    pub fn operations(&self, base: &str) -> Vec<Operation> {
        let operation = |(row, (_, route)): (RouteRow, &(&'static str, Route<S>))| (row, route.said.clone());
        self.rows(base).into_iter().zip(&self.0).map(operation).collect()
    }

    /// The router, in which nobody comes to a handler without its right.
    pub fn guarded(self, people: &People, once: &Once) -> Router<S> {
        let mut router = Router::new();
        for (path, Route { right, handler, against, .. }) in self.0 {
            let (people, once) = (people.clone(), once.clone());
            let is_kept = right.keeps_keys();
            let admit = from_fn(move |request: Request, next: Next| {
                let (people, once) = (people.clone(), once.clone());
                async move {
                    if let Err(problem) = meanwhile::refuse_unheeded(against, request.headers()) {
                        return problem.into_response();
                    }
                    match people.admit(request, right) {
                        Ok(request) if is_kept => once.run(request, next).await,
                        Ok(request) => next.run(request).await,
                        Err(problem) => problem.into_response(),
                    }
                }
            });
            router = router.route(path, handler.route_layer(admit));
        }
        router
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::people::Places;

    #[test]
    fn every_right_has_a_row_and_what_concerns_the_whole_site_needs_all_of_it() {
        for right in Right::ALL {
            assert_eq!(TABLE.iter().filter(|(each, _)| *each == right).count(), 1, "{right:?}");
            for role in Role::ALL {
                let whole = Principal { role, ..Principal::unnamed("li") };
                let some = Principal { places: Places::of(["3".to_owned()]), ..whole.clone() };
                assert_eq!(allows(&some, right), allows(&whole, right) && right.has_places(), "{role:?} {right:?}");
            }
        }
        let changes = |role| allows(&Principal { role, ..Principal::unnamed("li") }, Right::ChangePeople);
        assert_eq!(Role::ALL.into_iter().filter(|role| changes(*role)).collect::<Vec<_>>(), [Role::Administrator]);
    }
}
