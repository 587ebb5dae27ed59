//! Sirens: for which alarms each of them sounds, and when it must end.
//!
//! A siren inside a building sounds at once and is silenced by whoever acknowledges the alarm; one that the public hears begins as
//! any broadcast does, with the yes of people, goes on when somebody has acknowledged, and is taken back. Each ends by itself after
//! its longest time. What it has sounded for stands in the alarm, so that a restart neither forgets it nor begins again.
//!
//! This file knows neither clocks nor ways out: it is told how the alarm stands and why it has changed.

use std::sync::Arc;

use anmin_sensors::time::Wall;

use crate::alarm::{Alarm, AlarmState, Cause, Class};
use crate::broadcast::BroadcastStep;
use crate::order::Channel;
use crate::response::is_for_the_desk;
use crate::rule::Level;

/// That a siren sounds, or has sounded, for an alarm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sounding {
    /// Id of the way out.
    pub siren: Arc<str>,
    /// How bad the alarm was when it began.
    pub level: Level,
    pub since: Wall,
    /// Then it ends, whatever comes.
    pub until: Wall,
    /// The public hears it.
    pub outward: bool,
    /// It has ended.
    pub ended: bool,
}

/// What a siren does because an alarm has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It sounds for its whole time from now on.
    Begin,
    End,
    /// As before.
    Stay,
}

/// Whether a siren has reason to sound for an alarm as it stands, once it does.
fn goes_on(channel: &Channel, alarm: &Alarm) -> bool {
    let is_danger = alarm.class != Class::System && !is_for_the_desk(alarm);
    let silenced = match channel.outward {
        true => alarm.broadcast.as_ref().is_some_and(|broadcast| broadcast.holds_back(alarm.level)),
        false => alarm.acknowledged.is_some(),
    };
    alarm.is_open() && is_danger && !silenced && !alarm.is_silenced() && channel.wants(alarm, alarm.level)
}

/// Whether it would begin now, had it not sounded for this alarm before.
pub fn may_begin(channel: &Channel, alarm: &Alarm) -> bool {
    alarm.is_active() && goes_on(channel, alarm)
}

/// What comes of a change of the alarm. `before` is what the siren has sounded for it, `from` how the alarm stood. Whether people
/// must let it begin the caller knows.
pub fn step(channel: &Channel, alarm: &Alarm, cause: &Cause, from: AlarmState, before: Option<&Sounding>) -> Step {
    let Some(before) = before else {
        return if may_begin(channel, alarm) { Step::Begin } else { Step::Stay };
    };
    if !goes_on(channel, alarm) {
        return if before.ended { Step::Stay } else { Step::End };
    }
    let again = match cause {
        // A reminder of what somebody has acknowledged wakes the duty desk and not the house.
        Cause::Realarmed => from != AlarmState::Acknowledged,
        Cause::LevelChanged(level) => alarm.level > *level,
        Cause::Unshelved { .. } | Cause::ReturnedToService { .. } => true,
        Cause::Broadcast { step: BroadcastStep::Approved, .. } => channel.outward,
        // People are asked whether it shall.
        _ => channel.outward && alarm.broadcast.as_ref().is_some_and(|broadcast| broadcast.is_waiting()),
    };
    if alarm.is_active() && (alarm.level > before.level || before.ended && again) { Step::Begin } else { Step::Stay }
}
