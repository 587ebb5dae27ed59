//! The one owner of domain state: one closed [`Input`] enum in, transitions and orders out.

pub mod clock_trust;
pub mod deeds;
pub mod deliveries;
pub mod drill_calendar;
pub mod feed;
pub mod hearing;
pub mod help;
pub mod losses;
mod pace;
pub mod plan_history;
pub mod query;
pub mod run;
mod seen;
pub mod stock;
pub mod test_calendar;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use anmin_rules::alarm::{Command, Refusal};
use anmin_rules::change::RulesChange;
use anmin_rules::drill::DrillCommand;
use anmin_rules::order::OrderId;
use anmin_rules::response::DeskSettings;
use anmin_rules::rule::{Finding, Text};
use anmin_rules::set::{Past, RuleSet};
use anmin_rules::walk::WalkCommand;
use anmin_sensors::document::Fault;
use anmin_sensors::point::{Place, Points, TakenIn};
use anmin_sensors::profile::Profiles;
use anmin_sensors::reading::Reading;
use anmin_sensors::router::Mapping;
use anmin_sensors::time::Wall;
use anmin_sensors::validator;
use tokio::sync::oneshot;

use crate::delivery::Outcome;
use crate::delivery::courier::CourierHandle;
use crate::delivery_report::Report;
use crate::intake::Message;
use crate::store::audit::{Deed, Way};
use crate::store::people::Person;
use crate::store::reach::Addressed;
use crate::store::readings::Limits;
use crate::store::{StoreError, Told, registers};

use drill_calendar::DrillCalendar;
pub use feed::{Feed, FeedEvent};
pub use query::Query;
use run::Say;

/// Everything that can happen to the main loop.
#[derive(Debug)]
pub enum Input {
    /// MQTT publishes in the order they came; `source` is the `[[mqtt]]` id, or `broker` for the embedded one.
    Messages {
        source: Arc<str>,
        messages: Vec<Message>,
    },
    /// Readings that are decoded already: polled buses.
    Readings(Vec<Reading>),
    /// An outside broker let us in. Comes before the messages of its connection.
    Session(SessionStart),
    /// A supervised part changed: `part` such as `mqtt:site`, `bus:bus-a/7`, `way-out:office`.
    Part(PartState),
    Command {
        command: Command,
        from: Way,
        /// The `seq` of what it is about, as the person saw it: where another stands there, nothing is done.
        seen: Option<u32>,
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    /// What somebody does with a drill.
    Drill {
        command: DrillCommand,
        from: Way,
        seen: Option<u32>,
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    /// What somebody does with a walk test.
    Walk {
        command: WalkCommand,
        from: Way,
        seen: Option<u32>,
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    /// Rows of registers have changed. Answered when it is durable.
    Register {
        changes: Vec<registers::Change>,
        deed: Box<Deed>,
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    /// A courier's result for one order.
    Outcome {
        order: OrderId,
        outcome: Outcome,
    },
    /// A CAP message has not been taken in the time that its way out gives it. It goes on being tried.
    Overdue {
        order: OrderId,
    },
    /// A way out has sent a message, or could not, to some of those whom it is for.
    Addressed(Box<Addressed>),
    /// A gateway says what has become of messages that a way out has sent. Answers how many of them are known.
    Reported {
        channel: Arc<str>,
        reports: Vec<Report>,
        reply: oneshot::Sender<Result<usize, StoreError>>,
    },
    /// Send dead letters again, under their ids. Answers which were.
    Resend {
        who: String,
        from: Way,
        which: Resend,
        reply: oneshot::Sender<Result<Resent, StoreError>>,
    },
    /// The site's files were read anew.
    Site(Box<NewSite>),
    /// Something was done, or refused, elsewhere: for the audit.
    Did(Deed),
    /// A subscriber has taken what it was told.
    Told(Told),
    Query(Query),
    /// Who may do what has changed. Answered when it is durable.
    People {
        people: Vec<Person>,
        /// `None` where it is no news: that a browser is still used.
        deed: Option<Box<Deed>>,
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    /// What history has for the windows of one rule and point.
    Past(Box<Past>),
    /// A beat of the self-test, by its number.
    Pulse(u64),
    Stop,
}

/// Somebody wants the site's files read anew.
#[derive(Debug)]
pub struct ReloadAsked {
    pub who: String,
    pub from: Way,
    /// Only to say what would come of it.
    pub only_tell: bool,
    /// Where somebody waits for what became of it.
    pub reply: Option<oneshot::Sender<Reloaded>>,
}

/// A site that was read, compiled and tried off the main loop, or what is wrong with it.
#[derive(Debug)]
pub struct NewSite {
    pub asked: ReloadAsked,
    /// Without a change where it is only to be told what would come of it.
    pub site: Result<(RuleSet, Option<Box<Change>>), Vec<Fault>>,
    /// What of it is in force with this, and what only after a restart, each by its part and keys.
    pub taken: Vec<String>,
    pub waits: Vec<String>,
}

/// What the main loop takes of a new site beside its rules. What did not change is as it was.
pub struct Change {
    pub desk: DeskSettings,
    pub validation: validator::Settings,
    pub audit_kept: Option<Duration>,
    pub limits: Limits,
    /// Where the plans of drills have changed.
    pub drill_calendar: Option<DrillCalendar>,
    /// The devices of the files, where they have changed or buses have: those that are not there yet are added. Answered with
    /// where each point is.
    pub devices: Option<(Points, oneshot::Sender<TakenIn>)>,
    /// Where what devices rest on has not to wait for a restart.
    pub router: Option<Routes>,
    /// All ways out.
    pub couriers: BTreeMap<Arc<str>, CourierHandle>,
    /// How devices at the outside brokers are spoken to, for brokers that are new.
    pub says: Vec<(Arc<str>, Say)>,
    /// Parts that have gone, as [`PartState::part`] names them: their troubles are over, and those of what hangs on them.
    pub gone: Vec<String>,
    /// SHA-256 of the files, in hexadecimal digits.
    pub configuration: Arc<str>,
}

/// How messages are read from now on.
pub struct Routes {
    pub profiles: Profiles,
    pub places: HashMap<String, Arc<Place>>,
    /// The sources whose mappings have changed; one without any is not read at all.
    pub sources: Vec<(Arc<str>, Vec<Mapping>)>,
}

impl std::fmt::Debug for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Change").field("gone", &self.gone).finish_non_exhaustive()
    }
}

/// What became of a new site.
#[derive(Clone, Debug, PartialEq)]
pub struct Reloaded {
    /// The faults, each with its place and hint, where what is in force stays.
    pub change: Result<RulesChange, Vec<String>>,
    /// Rules in force now.
    pub rules: usize,
    /// As in [`NewSite`].
    pub taken: Vec<String>,
    pub waits: Vec<String>,
}

/// Which dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resend {
    Order(OrderId),
    /// All of one way out.
    WayOut(Arc<str>),
}

/// What became of dead letters that somebody wanted sent again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resent {
    pub sent: Vec<OrderId>,
    /// CAP messages that hold no longer: what they said was taken back, or is over.
    pub over: Vec<OrderId>,
}

/// How a connection to an outside broker began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionStart {
    /// The id of the `[[mqtt]]`.
    pub source: Arc<str>,
    pub client_id: Arc<str>,
    /// Whether the broker is to keep our session while we are away.
    pub kept: bool,
    /// Whether it had kept it until now.
    pub present: bool,
    /// When it was last heard, if it was in this run.
    pub heard: Option<Wall>,
}

/// Health of one part of anmin or its surroundings.
#[derive(Clone, Debug)]
pub struct PartState {
    /// `mqtt:site`, `web`, `web:tls`, `broker`, `http:cloud`, `gbt26875:panels`, `gbt26875:panels/889`, `sparkplug:site/group/node`, `bus:bus-a`, `unit:bus-a/7`, `way-out:office`, `store:readings`, `loss:site`, `gap:g-302`, `double:g-302`, `suspects`,
    /// `drill:building-3`, `walk`, `stock:w-1`, `help:r-1`, `certificate:/etc/anmin/tls/server.pem`, `backup`,
    /// `duty-check:city`, `centre-clock:city`.
    pub part: Arc<str>,
    /// `None` when it is well again.
    pub trouble: Option<PartTrouble>,
}

#[derive(Clone, Debug)]
pub struct PartTrouble {
    pub finding: Finding,
    /// What is the matter, for the officer.
    pub message: Text,
}
