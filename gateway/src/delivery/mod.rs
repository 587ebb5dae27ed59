//! Everything that leaves. One [`Carrier`] a way out; the courier around it retries, backs off and reports.

pub mod broadcast;
pub mod cap;
pub mod courier;
pub mod ebm;
pub mod event;
pub mod gbt26875_out;
pub mod heartbeat;
pub mod hours;
pub(crate) mod http;

pub mod influx;
pub mod mqtt_out;
pub mod notice;
pub mod siren;
pub mod webhook;
mod xml;

use std::collections::BTreeSet;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anmin_rules::order::{Channel, ChannelForm, Order};
use anmin_rules::rule::{Level, Text};
use anmin_sensors::document::{Reader, did_you_mean};
use anmin_sensors::point::Hazard;
use anmin_sensors::time::Wall;
use bytes::Bytes;
use jiff::tz::TimeZone;

use crate::credentials::{Secret, named_file};

/// A way out. One courier owns it and calls it for several orders at once, never for two of one rule and subject.
pub trait Carrier: Send + Sync + 'static {
    /// Carries one order, once: no retry inside. The courier cuts it off after [`courier::ATTEMPT_LIMIT`], so it must
    /// be safe to drop at any await; on an error the courier does what the [`DeliveryError`] says.
    fn carry(&self, order: &Order) -> impl Future<Output = Result<Receipt, DeliveryError>> + Send;

    /// How many messages the peer takes, where it is one for people. Asked once, and when the carrier was replaced.
    fn pace(&self) -> Option<courier::Pace> {
        None
    }

    /// Outside of the hours in which its people are told. Asked before each message.
    fn quiet_at(&self, at: Wall) -> Option<hours::Quiet> {
        let _ = at;
        None
    }

    /// By when after it was said a CAP message, or what is orange or red, must be taken, where a spare way out waits for that
    /// or somebody is promised it. Asked with each order.
    fn deliver_within(&self) -> Option<Duration> {
        None
    }

    /// Carries several orders in one message, once: asked of a carrier with a pace. The order that answers for all comes first.
    fn carry_all(&self, order: &Order, with: &[Order]) -> impl Future<Output = Result<Receipt, DeliveryError>> + Send {
        let (_, _) = (order, with);
        std::future::ready(Err(DeliveryError::Never("takes one order a message".to_owned())))
    }

    /// Whether the peer can be reached, where the carrier knows it without an order. Asked every few seconds.
    fn reachable(&self) -> Option<bool> {
        None
    }

    /// Tells the peer once that anmin is alive, where it takes such news; `id` is never used twice.
    fn tell_alive(&self, id: &str, document: Bytes) -> impl Future<Output = Result<(), DeliveryError>> + Send {
        let (_, _) = (id, document);
        std::future::ready(Ok(()))
    }
}

/// A carrier that can be replaced while its courier runs: what waits there goes on by the new one.
pub struct Replaceable<C>(RwLock<Arc<C>>);

impl<C> Replaceable<C> {
    pub fn new(carrier: C) -> Self {
        Self(RwLock::new(Arc::new(carrier)))
    }

    /// Gives the one before. What is under way with it comes to its end, or fails and is tried again.
    pub fn replace(&self, carrier: C) -> Arc<C> {
        std::mem::replace(&mut *self.0.write().unwrap_or_else(PoisonError::into_inner), Arc::new(carrier))
    }

    pub fn now(&self) -> Arc<C> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<C: Carrier> Carrier for Replaceable<C> {
    async fn carry(&self, order: &Order) -> Result<Receipt, DeliveryError> {
        self.now().carry(order).await
    }

    fn pace(&self) -> Option<courier::Pace> {
        self.now().pace()
    }

    fn quiet_at(&self, at: Wall) -> Option<hours::Quiet> {
        self.now().quiet_at(at)
    }

    fn deliver_within(&self) -> Option<Duration> {
        self.now().deliver_within()
    }

    async fn carry_all(&self, order: &Order, with: &[Order]) -> Result<Receipt, DeliveryError> {
        self.now().carry_all(order, with).await
    }

    fn reachable(&self) -> Option<bool> {
        self.now().reachable()
    }

    async fn tell_alive(&self, id: &str, document: Bytes) -> Result<(), DeliveryError> {
        self.now().tell_alive(id, document).await
    }
}

impl<C: Carrier> Carrier for Arc<C> {
    fn carry(&self, order: &Order) -> impl Future<Output = Result<Receipt, DeliveryError>> + Send {
        (**self).carry(order)
    }

    fn pace(&self) -> Option<courier::Pace> {
        (**self).pace()
    }

    fn quiet_at(&self, at: Wall) -> Option<hours::Quiet> {
        (**self).quiet_at(at)
    }

    fn deliver_within(&self) -> Option<Duration> {
        (**self).deliver_within()
    }

    fn carry_all(&self, order: &Order, with: &[Order]) -> impl Future<Output = Result<Receipt, DeliveryError>> + Send {
        (**self).carry_all(order, with)
    }

    fn reachable(&self) -> Option<bool> {
        (**self).reachable()
    }

    fn tell_alive(&self, id: &str, document: Bytes) -> impl Future<Output = Result<(), DeliveryError>> + Send {
        (**self).tell_alive(id, document)
    }
}

/// What the peer said when it took the order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// For the record, such as `HTTP 204` or the file's name.
    pub detail: String,
    /// What people were told, as it left: a CAP message, the text of a notice without the links of a crew. `None` where the
    /// order says it all.
    pub text: Option<Arc<str>>,
}

impl Receipt {
    pub fn of(detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), text: None }
    }

    pub fn with_text(self, text: impl Into<Arc<str>>) -> Self {
        Self { text: Some(text.into()), ..self }
    }
}

/// Why an order was not delivered, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// The wire failed or the peer is busy: the same again later.
    #[error("{0}")]
    Retry(String),
    /// The peer said when to come back.
    #[error("{reason}, asked to wait {wait:?}")]
    RetryAfter { wait: Duration, reason: String },
    /// The peer will never take this one: dead letter and system alarm.
    #[error("{0}")]
    Never(String),
}

/// How an order ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Delivered(Receipt),
    /// Given up; kept and listed.
    Dead(String),
}

/// What every message that leaves says about the site.
#[derive(Clone, Debug)]
pub struct Site {
    /// Stands in topics and events.
    pub id: Arc<str>,
    /// Who speaks, where a CAP stanza names nobody.
    pub name: Text,
    /// 12 digits; a CAP stanza may name another.
    pub area_code: Option<String>,
    /// Offsets of the time stamps.
    pub time_zone: TimeZone,
    /// The whole site runs as an exercise, as the demo does: every event says so.
    pub exercise: bool,
}

/// Places, grids or buildings, and kinds of hazard, that somebody wants to hear of; none means all.
pub(crate) fn read_scope(r: &Reader<'_>) -> (Vec<Arc<str>>, Vec<Hazard>) {
    let areas: Vec<String> = r.or("areas", Vec::new());
    let mut classes = Vec::new();
    for word in r.or::<Vec<String>>("classes", Vec::new()) {
        match Hazard::ALL.into_iter().find(|hazard| hazard.as_str() == word) {
            Some(hazard) => classes.push(hazard),
            None => {
                let words = Hazard::ALL.map(Hazard::as_str);
                let message = format!("`classes` holds {word:?}, expected some of {}", words.join(", "));
                r.fault("classes", message, did_you_mean(&word, words));
            }
        }
    }
    (areas.into_iter().map(Arc::from).collect(), classes)
}

/// That the site has each of the `areas`.
pub(crate) fn check_areas(r: &Reader<'_>, known: &BTreeSet<String>) {
    for area in r.or::<Vec<String>>("areas", Vec::new()).iter().filter(|area| !known.contains(*area)) {
        let hint = did_you_mean(area, known.iter().map(String::as_str));
        r.fault("areas", format!("`areas` holds {area:?}, which is no place, grid or building of the site"), hint);
    }
}

/// The words that every way out has: `id`, `min_level`, `system`, `drills`, `areas`, `classes`, `from_escalation`.
fn read_channel(r: &Reader<'_>, form: ChannelForm, min_level: Level, system: bool) -> Option<Channel> {
    let system = r.or("system", system);
    read_public_channel(r, form, min_level).map(|channel| Channel { system, ..channel })
}

/// The same of a way out that is never told of what is about anmin itself.
fn read_public_channel(r: &Reader<'_>, form: ChannelForm, min_level: Level) -> Option<Channel> {
    let id = read_id(r);
    let min_level = r.choice("min_level", &Level::CHOICES).or((!r.has("min_level")).then_some(min_level));
    let drills = r.or("drills", true);
    let (areas, classes) = read_scope(r);
    let from_escalation = r.or("from_escalation", 0);
    let id = id?;
    Some(Channel { drills, areas, classes, from_escalation, ..Channel::new(id, form, min_level?) })
}

/// The `id` of a way out.
fn read_id(r: &Reader<'_>) -> Option<String> {
    r.required("id").filter(|id: &String| {
        let plain = !id.is_empty()
            && id.len() <= 64
            && id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        if !plain {
            r.fault("id", format!("`id` is {id:?}, expected 1 to 64 letters, digits, `-`, `_` or `.`"), None);
        }
        plain
    })
}

/// Where nobody says otherwise, a message is late after this.
const DELIVER_WITHIN: Duration = Duration::from_secs(60);
const DELIVER_WITHIN_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_secs(3_600);

/// `then` and `deliver_within`: who gets what is not taken, and when it counts as such.
fn read_spares(r: &Reader<'_>) -> (Vec<Arc<str>>, Duration) {
    let then: Vec<String> = r.or("then", Vec::new());
    let deliver_within = r.or("deliver_within", DELIVER_WITHIN);
    if !DELIVER_WITHIN_RANGE.contains(&deliver_within) {
        r.fault("deliver_within", "`deliver_within` must lie between five seconds and one hour", None);
    }
    (then.into_iter().map(Arc::from).collect(), deliver_within)
}

/// A file named in the configuration, resolved against `base`; it is a fault when there is none, or when `check` finds
/// that it does not serve, so that what is accepted here does not fail at the start.
pub(crate) fn read_file<T>(
    r: &Reader<'_>,
    key: &'static str,
    base: &Path,
    check: impl FnOnce(&Path) -> Result<T, String>,
) -> Option<PathBuf> {
    let path = named_file(base, r.optional::<String>(key)?);
    if !path.is_file() {
        let what = if path.is_dir() { "is a folder" } else { "is not there" };
        r.fault(key, format!("`{key}` names {}, which {what}", path.display()), None);
        return None;
    }
    match check(&path) {
        Ok(_) => Some(path),
        Err(why) => {
            r.fault(key, format!("`{key}`: {why}"), None);
            None
        }
    }
}

/// A peer's words, safe and short enough for a log line, a screen and the journal.
pub(crate) fn excerpt(text: &str) -> String {
    let mut short: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
    if text.chars().nth(200).is_some() {
        short.push('…');
    }
    short
}
