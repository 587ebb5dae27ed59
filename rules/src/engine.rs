//! The facade that composes rule set, alarm book and response desk.

use std::collections::VecDeque;
use std::sync::Arc;

use anmin_sensors::point::Points;
use anmin_sensors::reading::Sample;
use anmin_sensors::time::{Mono, Now};

use crate::alarm::{Alarm, AlarmId, Command, Refusal, Transition};
use crate::order::{Call, CallChange, Order};
use crate::response::DeskSettings;
use crate::rule::{Finding, Level, Text};
use crate::set::{Bound, RuleSet};

/// What the engine wants done, in the order in which it must become durable: an order never comes before the
/// transition or call change that it speaks of.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    Transition(Arc<Transition>),
    Call(Arc<CallChange>),
    Order(Order),
}

/// How many alarms stand how, for screens and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub open: usize,
    /// Alarms in force (neither shelved nor out of service) by level: blue, yellow, orange, red.
    pub by_level: [usize; 4],
    /// By state, in the order of `AlarmState::ALL`.
    pub by_state: [usize; 8],
    /// Conditions that wait for their on-delay.
    pub pending: usize,
    /// Calls that are not over.
    pub live_calls: usize,
}

impl Counts {
    pub fn at(&self, level: Level) -> usize {
        self.by_level[level as usize]
    }
}

/// Rules, alarms and orders behind one door. It reads no clock: every call says what time it is, and the caller comes
/// back with [`Engine::handle_timeout`] at [`Engine::poll_timeout`]. Coming too early is harmless.
pub struct Engine {
    rules: RuleSet,
    effects: VecDeque<Effect>,
}

impl Engine {
    /// `seed` must differ from start to start: it goes into the alarms' ids.
    pub fn new(rules: RuleSet, _desk: DeskSettings, _seed: u64) -> Self {
        Self { rules, effects: VecDeque::new() }
    }

    /// Takes up what the journal holds: the last state of every open alarm and of their calls. Once, before anything
    /// is handled.
    pub fn restore(&mut self, _now: Now, _alarms: Vec<Arc<Alarm>>, _calls: Vec<Call>) {}

    /// Binds rules to points that were added since the last time.
    pub fn bind(&mut self, points: &Points) -> Bound {
        self.rules.bind(points)
    }

    pub fn handle_samples(&mut self, _now: Now, _points: &Points, _samples: &[Sample]) {}

    /// A part of anmin or of its surroundings fell ill (`Some`) or is well (`None`).
    pub fn handle_part(&mut self, _now: Now, _part: &str, _trouble: Option<(Finding, Text)>) {}

    pub fn handle_command(&mut self, _now: Now, command: Command) -> Result<(), Refusal> {
        let _ = command;
        Err(Refusal::not_allowed("", ""))
    }

    /// Fires every timer that is due. Harmless when none is.
    pub fn handle_timeout(&mut self, _now: Now, _points: &Points) {}

    /// Takes new rules; call [`Engine::bind`] afterwards with all points. Alarms stay; one whose rule is gone stays
    /// until a person resets it.
    pub fn replace_rules(&mut self, _now: Now, _points: &Points, rules: RuleSet) -> Bound {
        self.rules = rules;
        Bound::default()
    }

    /// Takes new stations and channels; alarms and calls stay.
    pub fn replace_desk(&mut self, _now: Now, _desk: DeskSettings) {}

    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    pub fn poll_timeout(&self) -> Option<Mono> {
        None
    }

    pub fn rules(&self) -> &RuleSet {
        &self.rules
    }

    /// One open alarm.
    pub fn alarm(&self, _id: AlarmId) -> Option<&Arc<Alarm>> {
        None
    }

    /// All open alarms, gravest first, then oldest first.
    pub fn alarms(&self) -> Vec<Arc<Alarm>> {
        Vec::new()
    }

    /// The calls for one alarm in the order in which they were made.
    pub fn calls_of(&self, _alarm: AlarmId) -> Vec<Call> {
        Vec::new()
    }

    /// All calls for open alarms.
    pub fn calls(&self) -> Vec<Call> {
        Vec::new()
    }

    pub fn counts(&self) -> Counts {
        Counts::default()
    }
}
