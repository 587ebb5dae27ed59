//! What a device claims ([`Reading`]), what anmin thinks of it ([`Quality`]), what rules may see ([`Sample`]).

use std::fmt;
use std::sync::Arc;

use crate::point::PointIx;
use crate::time::{Now, Wall};

/// A value in the unit of its point's kind. A number is always finite.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Number(f64),
    Flag(bool),
    Text(Arc<str>),
}

impl Value {
    /// The number behind a number or a flag (false 0, true 1); `None` for text.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Flag(flag) => Some(f64::from(u8::from(*flag))),
            Self::Text(_) => None,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Three decimals at most and no trailing zeros: what a person reads out loud.
            Self::Number(number) => write!(f, "{}", (number * 1e3).round() / 1e3),
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// Why a value cannot be used at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Outside the point's plausible range.
    OutOfRange,
    /// The device sent the value that its maker uses for "no value", or null.
    Sentinel,
    /// NaN, infinite, or text where a number or flag was due.
    NotAValue,
    /// The device could not be read: time-out, CRC, exception.
    Comms,
    /// Nothing came within the point's `silent_after`.
    Silent,
    /// The device itself, its availability topic or its will says that it is offline.
    Offline,
}

/// Why a value is used with care: it may raise an alarm, it never clears one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Doubt {
    /// Further from the last value than the point's `max_jump`.
    Jump,
    /// Has not moved for the point's `stuck_after`.
    Stuck,
    /// The device's clock differs from ours by more than the allowed skew; the receive time is used.
    ClockSkew,
    /// Retained by the broker or restored after a restart: the last known state, not news.
    Unconfirmed,
    /// The device says that it is warming up.
    WarmingUp,
}

/// How far a value can be believed, with the reason inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Quality {
    Good,
    Uncertain(Doubt),
    Bad(Fault),
}

impl Quality {
    /// `good`, `uncertain` or `bad`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Uncertain(_) => "uncertain",
            Self::Bad(_) => "bad",
        }
    }

    /// The reason's name as in API, database and log; empty for good.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Good => "",
            Self::Uncertain(doubt) => match doubt {
                Doubt::Jump => "jump",
                Doubt::Stuck => "stuck",
                Doubt::ClockSkew => "clock_skew",
                Doubt::Unconfirmed => "unconfirmed",
                Doubt::WarmingUp => "warming_up",
            },
            Self::Bad(fault) => match fault {
                Fault::OutOfRange => "out_of_range",
                Fault::Sentinel => "sentinel",
                Fault::NotAValue => "not_a_value",
                Fault::Comms => "comms",
                Fault::Silent => "silent",
                Fault::Offline => "offline",
            },
        }
    }

    /// Every quality there is, for tables and tests.
    pub const ALL: [Self; 12] = [
        Self::Good,
        Self::Uncertain(Doubt::Jump),
        Self::Uncertain(Doubt::Stuck),
        Self::Uncertain(Doubt::ClockSkew),
        Self::Uncertain(Doubt::Unconfirmed),
        Self::Uncertain(Doubt::WarmingUp),
        Self::Bad(Fault::OutOfRange),
        Self::Bad(Fault::Sentinel),
        Self::Bad(Fault::NotAValue),
        Self::Bad(Fault::Comms),
        Self::Bad(Fault::Silent),
        Self::Bad(Fault::Offline),
    ];
}

/// What a device claims about one point.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    pub point: PointIx,
    /// The value after scaling, or why there is none.
    pub value: Result<Value, Fault>,
    /// When the device says it measured.
    pub source_time: Option<Wall>,
    /// When it reached us.
    pub received: Now,
    /// The device's own count of its readings, where it has one.
    pub sequence: Option<u64>,
    /// The broker kept it for us: state, never news.
    pub retained: bool,
    /// Its message came before, and whoever sent it never heard that it was safe: MQTT's DUP flag.
    pub redelivered: bool,
    /// Was kept while its sender had no connection, as that says itself: to be stored under its own time, never news.
    pub historical: bool,
    /// The device says that it is warming up.
    pub warming_up: bool,
}

/// A reading after validation: the only form that rules and storage see.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub point: PointIx,
    /// `None` exactly when the quality is bad and no plausible value was there.
    pub value: Option<Value>,
    pub quality: Quality,
    /// The time it counts for: the device's where it is believed, else the receive time.
    pub time: Wall,
    pub source_time: Option<Wall>,
    pub received: Now,
    pub sequence: Option<u64>,
    /// False for retained, restored, late and repeated readings: they are stored and shown, they never raise or clear.
    pub news: bool,
}
