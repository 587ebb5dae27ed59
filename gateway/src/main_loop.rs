//! The one owner of domain state: one closed [`Input`] enum in, transitions and orders out.

pub mod clock_trust;
pub mod deeds;
pub mod deliveries;
pub mod drill_calendar;
pub mod feed;
pub mod losses;
mod pace;
pub mod query;
pub mod run;

use std::sync::Arc;

use anmin_rules::alarm::{Command, Refusal};
use anmin_rules::change::RulesChange;
use anmin_rules::drill::DrillCommand;
use anmin_rules::order::OrderId;
use anmin_rules::rule::{Finding, Text};
use anmin_rules::set::{Past, RuleSet};
use anmin_sensors::document::Fault;
use anmin_sensors::reading::Reading;
use anmin_sensors::time::Wall;
use tokio::sync::oneshot;

use crate::delivery::Outcome;
use crate::intake::Message;
use crate::store::audit::{Deed, Way};
use crate::store::people::Person;
use crate::store::{StoreError, Told};

pub use feed::{Feed, FeedEvent};
pub use query::Query;

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
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    /// What somebody does with a drill.
    Drill {
        command: DrillCommand,
        from: Way,
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
    /// Send dead letters again, under their ids. Answers which were.
    Resend {
        who: String,
        from: Way,
        which: Resend,
        reply: oneshot::Sender<Result<Vec<OrderId>, StoreError>>,
    },
    /// The site's rules were read anew.
    Rules(Box<NewRules>),
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

/// Somebody wants the site's rules read anew.
#[derive(Debug)]
pub struct ReloadAsked {
    pub who: String,
    pub from: Way,
    /// Where somebody waits for what became of it.
    pub reply: Option<oneshot::Sender<Reloaded>>,
}

/// Rules that were read, compiled and tried off the main loop, or what is wrong with them.
#[derive(Debug)]
pub struct NewRules {
    pub asked: ReloadAsked,
    pub rules: Result<RuleSet, Vec<Fault>>,
    /// Other parts of the site's files that are not what they were at the start.
    pub waits: Vec<String>,
}

/// What became of new rules.
#[derive(Clone, Debug, PartialEq)]
pub struct Reloaded {
    /// The faults, each with its place and hint, where the rules in force stay.
    pub change: Result<RulesChange, Vec<String>>,
    /// Rules in force now.
    pub rules: usize,
    /// As in [`NewRules`].
    pub waits: Vec<String>,
}

/// Which dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resend {
    Order(OrderId),
    /// All of one way out.
    WayOut(Arc<str>),
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
    /// `mqtt:site`, `gbt26875:panels/889`, `sparkplug:site/group/node`, `bus:bus-a`, `unit:bus-a/7`, `way-out:office`, `store:readings`, `loss:site`, `gap:g-302`, `suspects`,
    /// `drill:building-3`.
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
