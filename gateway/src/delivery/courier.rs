//! The courier around a carrier: order, retry, backoff, dead letters, receipts.
//!
//! [`Backlog`] is the policy and knows no clock, socket or carrier: `now` comes in, attempts and reports go out.
//! [`spawn`] is the plain loop around it.
//!
//! What it promises:
//! - Orders about one rule and subject go out one after the other, across the occurrences of its alarm too; others do
//!   not wait for them. Whatever holds up the gravest level goes first, then the oldest.
//! - A way out to people has a [`Pace`]. One message at a time; what comes while it is on its way, or must wait for the pace,
//!   goes together in the next, and what is blue and yellow leaves room for what is orange and red. Of one incident at one level
//!   people hear at once, and of more alarms like it ten seconds later, in one message: a storm is a handful of messages.
//! - It may have hours: outside of them what is less grave than it says is kept, and goes together when they begin.
//! - A failed order is tried again until it is delivered or refused: full jitter between nothing and 0.5, 1, 2 … 30 s,
//!   or when the peer asked to be left alone, after that time (at most ten minutes).
//! - After three failures in a row the whole way out counts as down: one attempt at a time, spaced by the same backoff,
//!   each time with the order that was tried least, so that one poisoned order cannot hold the others. An order that
//!   was never tried may go half a second after the last attempt. The first success lets everything go.
//! - An order that the peer refuses is tried three times, then given up: [`Outcome::Dead`] and a system alarm, which stands
//!   until orders were taken for ten minutes and none was refused. What says that the way out is well again goes out by it, too:
//!   one that came and went with each order would feed itself.
//! - When something has been failing for a minute, `way-out:<id>` is in trouble until all of it is through.
//! - Where a peer must take an order within a time, [`Input::Overdue`] says once of each that it has not; then that time
//!   stands in place of the minute, if it is shorter. The order goes on being tried.
//!
//! The bound: orders about hazards are never refused or dropped here. They are in the journal already, each is about a
//! kilobyte and shared with it, and there are no more of them than the open alarms have transitions. Orders about anmin
//! itself beyond [`SYSTEM_BOUND`] waiting ones are given up at once and said to be.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anmin_rules::alarm::{Alarm, Cause, Class, Subject};
use anmin_rules::incident::IncidentId;
use anmin_rules::order::{Order, OrderBody, OrderId};
use anmin_rules::rule::{Finding, Level, RuleId, Text};
use anmin_sensors::time::{Mono, Wall};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use super::{Carrier, DeliveryError, Outcome, Receipt, excerpt};
use crate::chance::Chance;
use crate::clock::Clock;
use crate::main_loop::{Input, PartState, PartTrouble};

/// One attempt may take so long before it counts as failed.
pub const ATTEMPT_LIMIT: Duration = Duration::from_secs(15);
/// Attempts at once while the peer is well.
pub const PARALLEL: usize = 8;
/// Waiting orders beyond which those about anmin itself are given up.
pub const SYSTEM_BOUND: usize = 20_000;
/// Tries of an order that the peer refuses.
pub const REFUSALS: u32 = 3;
/// Failures in a row after which the way out counts as down.
const DOWN_AFTER: u32 = 3;
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
const BACKOFF_LONGEST: Duration = Duration::from_secs(30);
const LONGEST_ASKED_WAIT: Duration = Duration::from_secs(600);
/// Failing for so long is a system alarm.
const TROUBLE_AFTER: Duration = Duration::from_secs(60);
/// How long it is said that orders were refused.
const REFUSED_STANDS: Duration = Duration::from_secs(600);
const ASK_REACHABLE_EVERY: Duration = Duration::from_secs(5);

/// A grave message may follow the one before at once, so many times a minute; a lesser one half as often.
const FREE: usize = 5;
/// Orders in one message at most. It has a line for each kind of them, so what bounds it is the time to put it together.
const MOST_GATHERED: usize = 1_000;
const MINUTE: Duration = Duration::from_secs(60);
/// More of an incident at a level of which people were told a moment ago goes together after so long.
const TOGETHER: Duration = Duration::from_secs(10);

/// How many messages a peer takes: no minute, whenever it begins, sees more. Blue and yellow have half of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// 10 or more.
    pub per_minute: usize,
}

/// What became of the orders of one way out in this run: at any quiet moment `created = accepted + dead + pending`.
#[derive(Debug, Default)]
pub struct Tally {
    /// Handed in: those that the last run left, and new ones.
    pub created: AtomicU64,
    /// Taken by the peer.
    pub accepted: AtomicU64,
    /// Given up and kept as dead letters.
    pub dead: AtomicU64,
    /// Not through yet, as the courier itself counts them.
    pub pending: AtomicU64,
}

/// Where the main loop hands in orders. Cheap to clone; the courier ends when the last one is gone and its backlog empty.
#[derive(Clone, Debug)]
pub struct CourierHandle {
    channel: Arc<str>,
    /// Unbounded because the main loop must neither wait nor drop; [`Backlog`] says what bounds it.
    orders: mpsc::UnboundedSender<Order>,
    tally: Arc<Tally>,
    renewed: Arc<Notify>,
}

impl CourierHandle {
    /// The main loop's end and the courier's end.
    pub fn pair(channel: Arc<str>) -> (Self, mpsc::UnboundedReceiver<Order>) {
        let (orders, queue) = mpsc::unbounded_channel();
        (Self { channel, orders, tally: Arc::default(), renewed: Arc::default() }, queue)
    }

    /// The carrier is another by now: what failed with the one before is tried at once.
    pub fn renew(&self) {
        self.renewed.notify_one();
    }

    /// Whether both lead to the same courier.
    pub fn is(&self, other: &Self) -> bool {
        self.orders.same_channel(&other.orders)
    }

    /// Orders that were handed in and have not ended.
    pub fn waiting(&self) -> usize {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let ended = read(&self.tally.accepted) + read(&self.tally.dead);
        usize::try_from(read(&self.tally.created).saturating_sub(ended)).unwrap_or(usize::MAX)
    }

    /// Id of the way out.
    pub fn channel(&self) -> &Arc<str> {
        &self.channel
    }

    pub fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    fn clone_ends(&self) -> (Arc<Tally>, Arc<Notify>) {
        (Arc::clone(&self.tally), Arc::clone(&self.renewed))
    }

    /// Never waits. An order sent to a courier that has ended stays in the journal and goes out after the next start.
    pub fn send(&self, order: Order) {
        self.tally.created.fetch_add(1, Ordering::Relaxed);
        if let Err(lost) = self.orders.send(order) {
            tracing::error!(way_out = %self.channel, order = %lost.0.id,
                "the courier has ended; the order stays in the journal until the next start");
        }
    }
}

/// Starts the courier of one way out. Call it inside a Tokio runtime. The task ends when every handle is dropped and
/// nothing waits, or when the main loop is gone; abort it to end it sooner: what is left stays in the journal.
pub fn spawn<C: Carrier>(
    carrier: C,
    channel: Arc<str>,
    clock: Clock,
    inputs: mpsc::Sender<Input>,
) -> (CourierHandle, JoinHandle<()>) {
    let (handle, queue) = CourierHandle::pair(Arc::clone(&channel));
    let seed =
        channel.bytes().fold(clock.now().wall.micros() as u64, |seed, byte| seed.rotate_left(7) ^ u64::from(byte));
    let mut backlog = Backlog::new(channel, seed);
    backlog.spacing = carrier.pace().map(Spacing::new);
    backlog.trouble_after = trouble_after(&carrier);
    let task = tokio::spawn(run(Arc::new(carrier), backlog, handle.clone_ends(), clock, queue, inputs));
    (handle, task)
}

/// A target that is promised sooner is missed sooner.
fn trouble_after<C: Carrier>(carrier: &C) -> Duration {
    carrier.deliver_within().map_or(TROUBLE_AFTER, |within| within.min(TROUBLE_AFTER))
}

async fn run<C: Carrier>(
    carrier: Arc<C>,
    mut backlog: Backlog,
    (tally, renewed): (Arc<Tally>, Arc<Notify>),
    clock: Clock,
    mut queue: mpsc::UnboundedReceiver<Order>,
    inputs: mpsc::Sender<Input>,
) {
    let mut attempts = FuturesUnordered::new();
    let mut reports: VecDeque<Input> = VecDeque::new();
    let mut open = true;
    let mut ask = tokio::time::interval(ASK_REACHABLE_EVERY);
    ask.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let moment = clock.now();
        let now = moment.mono;
        backlog.set_quiet(carrier.quiet_at(moment.wall).map(|quiet| (now.plus(quiet.wait), quiet.but_from)));
        while let Some(attempt) = backlog.poll_attempt(now) {
            attempts.push(try_once(Arc::clone(&carrier), attempt));
        }
        while let Some(report) = backlog.poll_report(now) {
            match &report {
                Input::Outcome { outcome: Outcome::Delivered(_), .. } => tally.accepted.fetch_add(1, Ordering::Relaxed),
                Input::Outcome { outcome: Outcome::Dead(_), .. } => tally.dead.fetch_add(1, Ordering::Relaxed),
                _ => 0,
            };
            reports.push_back(report);
        }
        tally.pending.store(backlog.len() as u64, Ordering::Relaxed);
        if !open && attempts.is_empty() && reports.is_empty() && backlog.is_empty() {
            return;
        }
        let wait = backlog.poll_timeout(now).map_or(Duration::from_secs(3_600), |at| at.since(now));
        tokio::select! {
            biased;
            permit = inputs.reserve(), if !reports.is_empty() => match (permit, reports.pop_front()) {
                (Ok(permit), Some(report)) => permit.send(report),
                // The main loop is gone: nobody could write a receipt, so nothing more may be called delivered.
                _ => return,
            },
            Some((lane, result)) = attempts.next(), if !attempts.is_empty() => {
                backlog.handle_result(clock.now().mono, lane, result);
            }
            order = queue.recv(), if open => match order {
                Some(order) => {
                    let now = clock.now();
                    // What waits for its hour is not late.
                    let expected = expected_since(&order).filter(|_| backlog.lets_go(level_of(&order)));
                    if let Some((within, said)) = carrier.deliver_within().zip(expected) {
                        // What has waited since before a restart has waited.
                        let due = now.mono.plus(within.saturating_sub(now.wall.since(said)));
                        backlog.expect_by(due, order.id.clone());
                    }
                    backlog.handle_order(order);
                }
                None => open = false,
            },
            () = renewed.notified() => {
                backlog.trouble_after = trouble_after(&*carrier);
                backlog.handle_renewed(clock.now().mono, carrier.pace());
            }
            _ = ask.tick() => {
                if let Some(reachable) = carrier.reachable() {
                    backlog.handle_reachable(clock.now().mono, reachable);
                }
            }
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// When what must be taken in time was said: a CAP message, that a siren sounds, and of the rest what is orange or red and no drill.
fn expected_since(order: &Order) -> Option<Wall> {
    let news = match &order.body {
        OrderBody::Cap(cap) => return Some(cap.sent),
        OrderBody::Siren(siren) => return siren.on.then_some(siren.at),
        OrderBody::Event(transition) => transition.at.wall,
        OrderBody::Call(change) => change.at,
    };
    let hazard = matches!(alarm_of(order).class, Class::Hazard(_));
    (hazard && level_of(order) >= Some(Level::Orange)).then_some(news)
}

/// A carrier that panics costs one attempt and not the courier. No task of its own: an alarm would wait for one more
/// thread to wake.
async fn try_once<C: Carrier>(carrier: Arc<C>, attempt: Attempt) -> (Lane, Result<Receipt, DeliveryError>) {
    let Attempt { lane, order, with } = attempt;
    let carried = tokio::time::timeout(ATTEMPT_LIMIT, async {
        if with.is_empty() { carrier.carry(&order).await } else { carrier.carry_all(&order, &with).await }
    });
    let result = match AssertUnwindSafe(carried).catch_unwind().await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(DeliveryError::Retry(format!("no answer within {ATTEMPT_LIMIT:?}"))),
        Err(_) => {
            tracing::error!(order = %order.id, "a carrier panicked; the order is tried again");
            Err(DeliveryError::Retry("the carrier failed inside anmin".to_owned()))
        }
    };
    (lane, result)
}

/// The queue of one rule and subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane(u64);

/// Where a lane stands among those that may go: gravest level of its orders first, then the arrival of its head. Drills have no
/// level here: they stand behind everything that is real.
type Rank = (Reverse<Option<Level>>, u64, Lane);

/// Rule and subject of an alarm, and whether it is real: no drill stands in a real one's way.
type Key = (RuleId, Subject, bool);

/// One order to be tried now; its end comes back by [`Backlog::handle_result`].
#[derive(Clone, Debug)]
pub struct Attempt {
    pub lane: Lane,
    pub order: Order,
    /// What goes in the same message, where the way out has a [`Pace`].
    pub with: Vec<Order>,
}

/// When messages left in the last minute, and so when the next may.
#[derive(Debug)]
struct Spacing {
    pace: Pace,
    left: VecDeque<Mono>,
}

impl Spacing {
    fn new(pace: Pace) -> Self {
        Self { pace, left: VecDeque::new() }
    }

    fn handle_message(&mut self, now: Mono) {
        self.left.push_back(now);
        if self.left.len() > self.pace.per_minute {
            self.left.pop_front();
        }
    }

    /// The first moment, this one or later, at which a message of this weight may leave.
    fn earliest(&self, now: Mono, grave: bool) -> Mono {
        let (free, most) = if grave { (FREE, self.pace.per_minute) } else { (FREE / 2, self.pace.per_minute / 2) };
        let lately = self.left.iter().filter(|at| now.since(**at) < MINUTE).count();
        let gap = MINUTE / (self.pace.per_minute - FREE) as u32;
        let spaced = self.left.back().filter(|_| lately >= free).map(|last| last.plus(gap));
        // The message that must be a minute past.
        let room = self.left.len().checked_sub(most).filter(|_| lately >= most).map(|n| self.left[n].plus(MINUTE));
        spaced.into_iter().chain(room).chain([now]).max().expect("there is now")
    }
}

/// The peer will not have an order.
#[derive(Debug)]
struct Refused {
    order: OrderId,
    reason: String,
    at: Mono,
}

/// All orders of one way out that are not delivered yet, and when to try which.
#[derive(Debug)]
pub struct Backlog {
    channel: Arc<str>,
    part: Arc<str>,
    chance: Chance,
    lanes: BTreeMap<Lane, Queue>,
    by_key: HashMap<Key, Lane>,
    next_lane: u64,
    arrivals: u64,
    count: usize,
    in_flight: usize,
    /// Lanes whose head may be tried: the gravest first, then the oldest.
    ready: BTreeSet<Rank>,
    waiting: BTreeSet<(Mono, Lane)>,
    /// Lanes whose head has failed, by when it first did.
    failing: BTreeSet<(Mono, Lane)>,
    /// Failures of the wire or the peer in a row.
    failures: u32,
    /// While down: no retry before this.
    probe_at: Mono,
    last_failure: Mono,
    asked_to_wait_until: Mono,
    unreachable_since: Option<Mono>,
    reason: String,
    taken_at: Option<Mono>,
    /// The last order given up, not told yet or told, until orders are taken again.
    refused: Option<Refused>,
    told: Option<Told>,
    reports: VecDeque<Input>,
    spacing: Option<Spacing>,
    /// Until then only what is so grave goes.
    quiet: Option<(Mono, Option<Level>)>,
    /// Of which incident, and how bad it is, people were told lately, where the way out has a pace.
    told_of: BTreeMap<(IncidentId, Level), Mono>,
    trouble_after: Duration,
    /// By when orders are to be taken that are not told to be late.
    expected: BTreeSet<(Mono, OrderId)>,
    /// Under way with the order that is tried: lanes, as often as each has an order in it.
    gathered: Vec<Lane>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Failing,
    Refused,
}

#[derive(Debug)]
struct Queue {
    key: Key,
    orders: VecDeque<(u64, Order)>,
    /// Of the head: attempts that failed on the wire, attempts that the peer refused.
    attempts: u32,
    refusals: u32,
    first_failed: Option<Mono>,
    in_flight: bool,
    /// Its place in `ready`, while it is there.
    rank: Option<Rank>,
    /// Its place in `waiting`, where it is there because people know of its like.
    aside: Option<Mono>,
}

impl Queue {
    /// Of the gravest order: it waits for those before it.
    fn level(&self) -> Option<Level> {
        self.orders.iter().filter_map(|(_, order)| level_of(order)).max()
    }
}

impl Backlog {
    /// `seed` decides the jitter and nothing else.
    pub fn new(channel: Arc<str>, seed: u64) -> Self {
        Self {
            part: format!("way-out:{channel}").into(),
            channel,
            chance: Chance(seed),
            lanes: BTreeMap::new(),
            by_key: HashMap::new(),
            next_lane: 0,
            arrivals: 0,
            count: 0,
            in_flight: 0,
            ready: BTreeSet::new(),
            waiting: BTreeSet::new(),
            failing: BTreeSet::new(),
            failures: 0,
            probe_at: Mono::default(),
            last_failure: Mono::default(),
            asked_to_wait_until: Mono::default(),
            unreachable_since: None,
            reason: String::new(),
            refused: None,
            taken_at: None,
            told: None,
            reports: VecDeque::new(),
            spacing: None,
            quiet: None,
            told_of: BTreeMap::new(),
            trouble_after: TROUBLE_AFTER,
            expected: BTreeSet::new(),
            gathered: Vec::new(),
        }
    }

    /// Orders not delivered yet.
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether the whole way out counts as down.
    pub fn is_down(&self) -> bool {
        self.failures >= DOWN_AFTER
    }

    /// An order that comes next is to be taken by then.
    pub fn expect_by(&mut self, due: Mono, order: OrderId) {
        self.expected.insert((due, order));
    }

    /// Outside of the hours of those who are told: until when, and from which level on they are told all the same.
    pub fn set_quiet(&mut self, quiet: Option<(Mono, Option<Level>)>) {
        self.quiet = quiet;
    }

    pub fn handle_order(&mut self, order: Order) {
        let alarm = alarm_of(&order);
        let lesser = alarm.class == Class::System || alarm.drill.is_some();
        if lesser && self.count >= SYSTEM_BOUND {
            let about = if alarm.drill.is_some() { "a drill" } else { "anmin itself" };
            let reason = format!("{SYSTEM_BOUND} orders wait already and this one is about {about}");
            tracing::error!(way_out = %self.channel, order = %order.id, "{reason}; it is given up");
            self.expected.retain(|(_, expected)| *expected != order.id);
            self.reports.push_back(Input::Outcome { order: order.id, outcome: Outcome::Dead(reason) });
            return;
        }
        let level = level_of(&order);
        let key = (alarm.rule.clone(), alarm.subject.clone(), alarm.drill.is_none());
        let lane = match self.by_key.get(&key) {
            Some(lane) => *lane,
            None => {
                let lane = Lane(self.next_lane);
                self.next_lane += 1;
                self.by_key.insert(key.clone(), lane);
                let queue = Queue {
                    key,
                    orders: VecDeque::new(),
                    attempts: 0,
                    refusals: 0,
                    first_failed: None,
                    in_flight: false,
                    rank: None,
                    aside: None,
                };
                self.lanes.insert(lane, queue);
                lane
            }
        };
        let Some(queue) = self.lanes.get_mut(&lane) else { return };
        if queue.orders.iter().any(|(_, other)| other.id == order.id) {
            return;
        }
        self.arrivals += 1;
        let idle = queue.orders.is_empty();
        queue.orders.push_back((self.arrivals, order));
        self.count += 1;
        let aside = queue.aside.take();
        if let Some(until) = aside {
            self.waiting.remove(&(until, lane));
        }
        if idle || aside.is_some() || queue.rank.is_some_and(|(Reverse(before), ..)| level > before) {
            self.make_ready(lane);
        }
    }

    /// Another carrier leads to the peer, or to another: what the one before has failed with, and how long it was asked to
    /// wait, says nothing of this one. The last messages of a paced way out still count.
    pub fn handle_renewed(&mut self, now: Mono, pace: Option<Pace>) {
        self.spacing = pace
            .map(|pace| Spacing { pace, left: self.spacing.take().map(|spacing| spacing.left).unwrap_or_default() });
        (self.failures, self.probe_at, self.asked_to_wait_until) = (0, now, now);
        self.unreachable_since = None;
        for (_, lane) in std::mem::take(&mut self.waiting) {
            if let Some(queue) = self.lanes.get_mut(&lane) {
                (queue.attempts, queue.refusals) = (0, 0);
            }
            self.make_ready(lane);
        }
    }

    /// The next order to be tried at this moment, if any may be.
    pub fn poll_attempt(&mut self, now: Mono) -> Option<Attempt> {
        while let Some(&(at, lane)) = self.waiting.first() {
            if at > now {
                break;
            }
            self.waiting.pop_first();
            self.make_ready(lane);
        }
        if now < self.asked_to_wait_until {
            return None;
        }
        let pick = if self.is_down() {
            if self.in_flight > 0 {
                return None;
            }
            let (attempts, pick) = self.least_tried()?;
            if now < self.earliest_while_down(attempts) {
                return None;
            }
            pick
        } else {
            if self.in_flight >= if self.spacing.is_some() { 1 } else { PARALLEL } {
                return None;
            }
            self.set_known_aside(now);
            let first = *self.ready.first().filter(|first| self.lets_go(first.0.0))?;
            if self.spacing.as_ref().is_some_and(|spacing| spacing.earliest(now, is_grave(&first)) > now) {
                return None;
            }
            first
        };
        let with = match &mut self.spacing {
            None => Vec::new(),
            Some(spacing) => {
                spacing.handle_message(now);
                if self.is_down() { Vec::new() } else { self.gather(&pick) }
            }
        };
        let lane = pick.2;
        let order = self.take(lane)?;
        self.in_flight += 1;
        if self.spacing.is_some() {
            self.told_of.retain(|_, at| now.since(*at) < TOGETHER);
            self.told_of.extend(with.iter().chain([&order]).filter_map(told_of).map(|what| (what, now)));
        }
        Some(Attempt { lane, order, with })
    }

    /// Whether the hour lets go what is so grave.
    fn lets_go(&self, level: Option<Level>) -> bool {
        self.quiet.is_none_or(|(_, but_from)| but_from.is_some_and(|from| level >= Some(from)))
    }

    /// More of an incident at a level of which people were told a moment ago waits for its like.
    fn set_known_aside(&mut self, now: Mono) {
        if self.told_of.is_empty() {
            return;
        }
        while let Some(rank) = self.ready.first().copied() {
            let Some(queue) = self.lanes.get_mut(&rank.2) else { return };
            let said = |(_, order): &(u64, Order)| {
                let at = is_more_of_the_same(order).then(|| self.told_of.get(&told_of(order)?)).flatten()?;
                Some(at.plus(TOGETHER)).filter(|at| *at > now)
            };
            // What waits behind it must be no news either.
            let waits: Option<Vec<Mono>> = queue.orders.iter().map(said).collect();
            let Some(until) = waits.and_then(|waits| waits.into_iter().min()) else { return };
            (queue.rank, queue.aside) = (None, Some(until));
            self.ready.remove(&rank);
            self.waiting.insert((until, rank.2));
        }
    }

    /// The head of a lane, which is under way from now on.
    fn take(&mut self, lane: Lane) -> Option<Order> {
        let queue = self.lanes.get_mut(&lane)?;
        if let Some(rank) = queue.rank.take() {
            self.ready.remove(&rank);
        }
        queue.in_flight = true;
        queue.orders.front().map(|(_, order)| order.clone())
    }

    /// What else may go now and is as grave as the first: the rest of its lane, then the others in their order.
    fn gather(&mut self, first: &Rank) -> Vec<Order> {
        let alike = self.ready.iter().filter(|rank| {
            is_grave(rank) == is_grave(first) && is_real(rank) == is_real(first) && self.lets_go(rank.0.0)
        });
        let lanes: Vec<Lane> = alike.map(|rank| rank.2).take(MOST_GATHERED).collect();
        let mut with = Vec::new();
        for lane in lanes {
            let Some(queue) = self.lanes.get(&lane) else { continue };
            // The first order of all is the one that they go with.
            let rest = queue.orders.iter().skip(usize::from(lane == first.2)).take(MOST_GATHERED - 1 - with.len());
            let before = with.len();
            with.extend(rest.map(|(_, order)| order.clone()));
            self.gathered.extend(std::iter::repeat_n(lane, with.len() - before));
            if with.len() > before {
                self.take(lane);
            }
        }
        with
    }

    /// When to come back, if nothing else happens before.
    pub fn poll_timeout(&self, now: Mono) -> Option<Mono> {
        let mut next: Option<Mono> = None;
        let mut at_latest = |at: Mono| next = Some(next.map_or(at, |before| before.min(at)));
        if let Some((at, _)) = self.waiting.first() {
            at_latest(*at);
        }
        if self.is_down() {
            if self.in_flight == 0
                && let Some((attempts, _)) = self.least_tried()
            {
                at_latest(self.earliest_while_down(attempts).max(self.asked_to_wait_until));
            }
        } else if let Some(first) = self.ready.first() {
            if self.asked_to_wait_until > now {
                at_latest(self.asked_to_wait_until);
            }
            let spacing = self.spacing.as_ref().filter(|_| self.in_flight == 0);
            match (self.quiet.filter(|_| !self.lets_go(first.0.0)), spacing) {
                (Some((until, _)), _) => at_latest(until),
                (None, Some(spacing)) => {
                    at_latest(spacing.earliest(now, is_grave(first)).max(self.asked_to_wait_until));
                }
                (None, None) => {}
            }
        }
        if self.told.is_none()
            && let Some(since) = self.failing_since()
        {
            at_latest(since.plus(self.trouble_after));
        }
        if let Some((due, _)) = self.expected.first() {
            at_latest(*due);
        }
        if let Some(at) = self.well_at() {
            at_latest(at);
        }
        next
    }

    /// How one attempt ended.
    pub fn handle_result(&mut self, now: Mono, lane: Lane, result: Result<Receipt, DeliveryError>) {
        if !self.lanes.get(&lane).is_some_and(|queue| queue.in_flight) {
            return;
        }
        self.in_flight -= 1;
        let gathered = std::mem::take(&mut self.gathered);
        for other in gathered.iter().chain([&lane]) {
            if let Some(queue) = self.lanes.get_mut(other) {
                queue.in_flight = false;
            }
        }
        if result.is_err() {
            self.told_of.clear();
            // The first answers for all: if it is the one that is refused, the others go without it.
            gathered.iter().filter(|other| **other != lane).for_each(|other| self.make_ready(*other));
        }
        let Some(queue) = self.lanes.get_mut(&lane) else { return };
        match result {
            Ok(receipt) => {
                self.peer_answered();
                self.taken_at = Some(now);
                for lane in std::iter::once(lane).chain(gathered) {
                    self.end_head(lane, |_| Outcome::Delivered(receipt.clone()));
                }
            }
            Err(DeliveryError::Never(reason)) => {
                queue.refusals += 1;
                let refusals = queue.refusals;
                let reason = excerpt(&reason);
                self.peer_answered();
                if refusals >= REFUSALS {
                    let channel = Arc::clone(&self.channel);
                    let given_up = self.end_head(lane, |order| {
                        tracing::error!(way_out = %channel, %order, %reason,
                            "refused {REFUSALS} times; given up and kept as a dead letter");
                        Outcome::Dead(reason.clone())
                    });
                    self.refused = given_up.map(|(order, reason)| Refused { order, reason, at: now });
                } else {
                    self.note_failing(now, lane, reason);
                    let wait = self.backoff(refusals);
                    self.waiting.insert((now.plus(wait), lane));
                }
            }
            Err(DeliveryError::Retry(reason)) => self.fail(now, lane, &reason),
            Err(DeliveryError::RetryAfter { wait, reason }) => {
                self.asked_to_wait_until = self.asked_to_wait_until.max(now.plus(wait.min(LONGEST_ASKED_WAIT)));
                self.fail(now, lane, &reason);
            }
        }
    }

    /// What the carrier knows about its peer without an order.
    pub fn handle_reachable(&mut self, now: Mono, reachable: bool) {
        if reachable {
            self.unreachable_since = None;
        } else if self.unreachable_since.is_none() {
            self.unreachable_since = Some(now);
            if self.reason.is_empty() {
                self.reason = "no connection".to_owned();
            }
        }
    }

    /// Outcomes and changes of health, for the main loop.
    pub fn poll_report(&mut self, now: Mono) -> Option<Input> {
        if let Some(report) = self.reports.pop_front() {
            return Some(report);
        }
        if let Some((_, order)) = self.expected.first().filter(|(due, _)| *due <= now).cloned() {
            self.expected.pop_first();
            tracing::error!(way_out = %self.channel, %order, "not taken in time; it goes on being tried");
            return Some(Input::Overdue { order });
        }
        let failing = self.failing_since();
        let due = failing.is_some_and(|since| now >= since.plus(self.trouble_after));
        if self.well_at().is_some_and(|at| at <= now) {
            self.refused = None;
        }
        let trouble = match (&self.told, &self.refused) {
            (Some(Told::Refused), Some(_)) => return None,
            (_, Some(Refused { order, reason, .. })) => {
                self.told = Some(Told::Refused);
                Some(refused_trouble(&self.channel, order, reason))
            }
            (Some(Told::Failing), None) if failing.is_some() => return None,
            (_, None) if due => {
                self.told = Some(Told::Failing);
                Some(failing_trouble(&self.channel, self.trouble_after, self.count, &self.reason))
            }
            (None, None) => return None,
            (Some(_), None) => {
                self.told = None;
                self.reason.clear();
                None
            }
        };
        match &trouble {
            Some(trouble) => tracing::error!(way_out = %self.channel, "{}", trouble.message.en),
            None => tracing::info!(way_out = %self.channel, "well again"),
        }
        Some(Input::Part(PartState { part: Arc::clone(&self.part), trouble }))
    }

    /// When an order that was given up is past, if none is any more.
    fn well_at(&self) -> Option<Mono> {
        let (refused, taken) = (self.refused.as_ref()?, self.taken_at?);
        (taken >= refused.at).then(|| refused.at.plus(REFUSED_STANDS))
    }

    fn failing_since(&self) -> Option<Mono> {
        let head = self.failing.first().map(|(since, _)| *since);
        head.into_iter().chain(self.unreachable_since).min()
    }

    /// The peer spoke to us, whatever it said: it is not down.
    fn peer_answered(&mut self) {
        if self.is_down() {
            tracing::info!(way_out = %self.channel, waiting = self.count, "the peer answers again; sending what waits");
        }
        self.failures = 0;
    }

    fn fail(&mut self, now: Mono, lane: Lane, reason: &str) {
        self.failures = self.failures.saturating_add(1);
        self.last_failure = now;
        let Some(queue) = self.lanes.get_mut(&lane) else { return };
        queue.attempts = queue.attempts.saturating_add(1);
        let attempts = queue.attempts;
        self.note_failing(now, lane, excerpt(reason));
        if self.is_down() {
            if self.failures == DOWN_AFTER {
                tracing::warn!(way_out = %self.channel, waiting = self.count, reason = %self.reason,
                    "down after {DOWN_AFTER} failures in a row; orders wait and are probed one at a time");
                // From now on the probe decides, and the others' own waits mean nothing.
                while let Some((_, lane)) = self.waiting.pop_first() {
                    self.make_ready(lane);
                }
            }
            self.probe_at = now.plus(self.backoff(self.failures - DOWN_AFTER + 1));
            self.make_ready(lane);
        } else {
            let wait = self.backoff(attempts);
            self.waiting.insert((now.plus(wait), lane));
        }
    }

    fn note_failing(&mut self, now: Mono, lane: Lane, reason: String) {
        self.reason = reason;
        if let Some(queue) = self.lanes.get_mut(&lane)
            && queue.first_failed.is_none()
        {
            queue.first_failed = Some(now);
            self.failing.insert((now, lane));
        }
    }

    fn make_ready(&mut self, lane: Lane) {
        let Some(queue) = self.lanes.get_mut(&lane) else { return };
        queue.aside = None;
        if let Some(rank) = queue.rank.take() {
            self.ready.remove(&rank);
        }
        if let Some((arrival, _)) = queue.orders.front() {
            let rank = (Reverse(queue.level()), *arrival, lane);
            queue.rank = Some(rank);
            self.ready.insert(rank);
        }
    }

    /// Takes the head of a lane away for good and lets the next one come up.
    fn end_head(&mut self, lane: Lane, outcome: impl FnOnce(&OrderId) -> Outcome) -> Option<(OrderId, String)> {
        let queue = self.lanes.get_mut(&lane)?;
        let (_, order) = queue.orders.pop_front()?;
        queue.attempts = 0;
        queue.refusals = 0;
        if let Some(since) = queue.first_failed.take() {
            self.failing.remove(&(since, lane));
        }
        self.count -= 1;
        self.expected.retain(|(_, expected)| *expected != order.id);
        if queue.orders.is_empty() {
            if let Some(rank) = queue.rank {
                self.ready.remove(&rank);
            }
            let queue = self.lanes.remove(&lane)?;
            self.by_key.remove(&queue.key);
        } else {
            self.make_ready(lane);
        }
        let outcome = outcome(&order.id);
        let dead = match &outcome {
            Outcome::Dead(reason) => Some((order.id.clone(), reason.clone())),
            Outcome::Delivered(_) => None,
        };
        self.reports.push_back(Input::Outcome { order: order.id, outcome });
        dead
    }

    fn least_tried(&self) -> Option<(u32, Rank)> {
        let tried = |entry: &Rank| self.lanes.get(&entry.2).map_or(0, |queue| queue.attempts);
        let may_go = self.ready.iter().filter(|entry| self.lets_go(entry.0.0));
        let least = may_go.min_by_key(|entry| (!is_real(entry), tried(entry), **entry))?;
        Some((tried(least), *least))
    }

    fn earliest_while_down(&self, attempts: u32) -> Mono {
        if attempts == 0 { self.probe_at.min(self.last_failure.plus(BACKOFF_FIRST)) } else { self.probe_at }
    }

    /// Full jitter: anything from nothing to the ceiling, which doubles from 0.5 s to 30 s.
    fn backoff(&mut self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        let ceiling = BACKOFF_FIRST.saturating_mul(1 << doublings).min(BACKOFF_LONGEST);
        self.chance.up_to(ceiling)
    }
}

/// Orange and red: never behind what is less.
fn is_grave((Reverse(level), ..): &Rank) -> bool {
    *level >= Some(Level::Orange)
}

fn is_real((Reverse(level), ..): &Rank) -> bool {
    level.is_some()
}

/// The incident that it is about, and how bad it is.
fn told_of(order: &Order) -> Option<(IncidentId, Level)> {
    let alarm = alarm_of(order);
    alarm.incident.map(|incident| (incident, alarm.level))
}

/// That one more alarm of an incident comes, goes or changes its level. What asks somebody to act, or says that somebody does,
/// is never that.
fn is_more_of_the_same(order: &Order) -> bool {
    let OrderBody::Event(transition) = &order.body else { return false };
    matches!(
        transition.cause,
        Cause::Raised | Cause::Realarmed | Cause::LevelChanged(_) | Cause::Returned | Cause::Regrouped { .. }
    )
}

fn level_of(order: &Order) -> Option<Level> {
    let alarm = alarm_of(order);
    alarm.drill.is_none().then_some(alarm.level)
}

fn alarm_of(order: &Order) -> &Alarm {
    match &order.body {
        OrderBody::Event(transition) => &transition.alarm,
        OrderBody::Call(change) => &change.alarm,
        OrderBody::Cap(cap) => &cap.alarm,
        OrderBody::Siren(siren) => &siren.alarm,
    }
}

fn failing_trouble(channel: &str, after: Duration, count: usize, reason: &str) -> PartTrouble {
    let seconds = after.as_secs();
    PartTrouble {
        finding: Finding { level: Level::Yellow, limit: None, note: Some(reason.to_owned()) },
        message: Text {
            zh: format!(
                "告警出口 {channel} 已超过 {seconds} 秒无法送达（{reason}）。待发 {count} 条均已保存，持续重试中。"
            ),
            en: format!(
                "Way out {channel} has been failing for over {seconds} seconds ({reason}). {count} waiting orders are kept \
                 and tried again."
            ),
        },
    }
}

fn refused_trouble(channel: &str, order: &OrderId, reason: &str) -> PartTrouble {
    PartTrouble {
        finding: Finding { level: Level::Yellow, limit: None, note: Some(reason.to_owned()) },
        message: Text {
            zh: format!("告警出口 {channel} 的接收方拒收指令 {order}（{reason}）。已停止重试并存为死信，请人工处理。"),
            en: format!(
                "The receiver of way out {channel} refused order {order} ({reason}). It is kept as a dead letter and \
                 needs a person."
            ),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use anmin_rules::alarm::Transition;

    use super::*;
    use crate::samples;

    fn backlog(orders: &[(&str, u32, Level)]) -> Backlog {
        let mut backlog = Backlog::new("office".into(), 7);
        for (device, seq, level) in orders {
            backlog.handle_order(samples::order(device, *seq, *level));
        }
        backlog
    }

    fn at(millis: u64) -> Mono {
        Mono::from_nanos(millis * 1_000_000)
    }

    fn attempts(backlog: &mut Backlog, now: Mono) -> Vec<Attempt> {
        std::iter::from_fn(|| backlog.poll_attempt(now)).collect()
    }

    fn names(attempts: &[Attempt]) -> Vec<&str> {
        attempts.iter().map(|attempt| attempt.order.id.as_str()).collect()
    }

    fn retry() -> Result<Receipt, DeliveryError> {
        Err(DeliveryError::Retry("HTTP 503".to_owned()))
    }

    fn never() -> Result<Receipt, DeliveryError> {
        Err(DeliveryError::Never("HTTP 400".to_owned()))
    }

    fn taken() -> Result<Receipt, DeliveryError> {
        Ok(Receipt::of("HTTP 204"))
    }

    /// All reports so far, in short.
    fn reports(backlog: &mut Backlog, now: Mono) -> Vec<String> {
        std::iter::from_fn(|| backlog.poll_report(now))
            .map(|report| match report {
                Input::Outcome { order, outcome: Outcome::Delivered(_) } => format!("delivered {order}"),
                Input::Outcome { order, outcome: Outcome::Dead(_) } => format!("dead {order}"),
                Input::Part(PartState { part, trouble: Some(_) }) => format!("{part} in trouble"),
                Input::Part(PartState { part, trouble: None }) => format!("{part} well"),
                Input::Overdue { order } => format!("overdue {order}"),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn what_is_not_taken_in_time_is_told_once_and_goes_on_being_tried() {
        let mut backlog = Backlog::new("town".into(), 7);
        backlog.trouble_after = Duration::from_secs(5);
        for (device, due) in [("a", 5_000), ("b", 9_000)] {
            let order = samples::order(device, 1, Level::Red);
            backlog.expect_by(at(due), order.id.clone());
            backlog.handle_order(order);
        }
        let first = attempts(&mut backlog, at(0));
        let [a, b] = [0, 1].map(|n| first[n].order.id.to_string());
        for attempt in &first {
            backlog.handle_result(at(1_000), attempt.lane, retry());
        }
        assert_eq!(reports(&mut backlog, at(4_999)), [] as [&str; 0]);
        assert!(backlog.poll_timeout(at(4_999)).is_some_and(|due| due <= at(5_000)));
        assert_eq!(reports(&mut backlog, at(5_000)), [format!("overdue {a}")]);
        assert_eq!(reports(&mut backlog, at(6_000)), ["way-out:town in trouble"], "sooner than after the usual minute");
        let again = attempts(&mut backlog, at(8_000));
        assert_eq!(again.len(), 2, "both are tried again");
        for attempt in again {
            backlog.handle_result(at(8_000), attempt.lane, taken());
        }
        let said = reports(&mut backlog, at(20_000));
        assert_eq!(said, [format!("delivered {a}"), format!("delivered {b}"), "way-out:town well".to_owned()]);
    }

    /// The same, of a drill.
    fn played(device: &str, seq: u32, level: Level) -> Order {
        let order = samples::order(device, seq, level);
        let OrderBody::Event(transition) = &order.body else { unreachable!("samples are events") };
        let mut transition = (**transition).clone();
        Arc::make_mut(&mut transition.alarm).drill = Some(anmin_rules::drill::DrillId(uuid::Uuid::from_u128(1)));
        let id = OrderId::new(format!("drill-{}", order.id));
        Order { id, body: OrderBody::Event(Arc::new(transition)), ..order }
    }

    #[test]
    fn a_drill_stands_behind_everything_real_and_in_no_ones_way() {
        let mut waiting = Backlog::new("office".into(), 7);
        waiting.handle_order(played("a", 1, Level::Red));
        waiting.handle_order(samples::order("a", 1, Level::Blue));
        waiting.handle_order(samples::order("b", 1, Level::Red));
        // Of the same rule and subject, and yet a lane of its own.
        let first = attempts(&mut waiting, at(0));
        assert_eq!(names(&first), ["b/1/office", "a/1/office", "drill-a/1/office"]);

        let mut paced = paced(20);
        for order in [played("a", 1, Level::Red), played("b", 1, Level::Red), samples::order("c", 1, Level::Blue)] {
            paced.handle_order(order);
        }
        let real = paced.poll_attempt(at(0)).expect("there is room");
        assert_eq!((real.order.id.as_str(), real.with.len()), ("c/1/office", 0), "no drill goes in its message");
        paced.handle_result(at(1), real.lane, taken());
        let drill = paced.poll_attempt(at(60_000)).expect("there is room");
        assert_eq!((drill.order.id.as_str(), drill.with.len()), ("drill-a/1/office", 1));
    }

    /// One more alarm, of an incident.
    fn of_incident(device: &str, seq: u32, level: Level, incident: u128, cause: Cause) -> Order {
        let order = samples::order(device, seq, level);
        let OrderBody::Event(transition) = &order.body else { unreachable!("samples are events") };
        let mut transition = Transition { cause, ..(**transition).clone() };
        Arc::make_mut(&mut transition.alarm).incident = Some(IncidentId(uuid::Uuid::from_u128(incident)));
        Order { body: OrderBody::Event(Arc::new(transition)), ..order }
    }

    /// Goal: in a storm people get at most one message an incident and level while it lasts, what is red waits behind nothing, and
    /// nothing is lost. Method: 1,000 alarms of five incidents in ten seconds, by a made-up clock.
    #[test]
    fn a_thousand_alarms_in_ten_seconds_are_one_message_an_incident_and_level() {
        let levels = [Level::Blue, Level::Yellow, Level::Orange, Level::Red];
        let mut storm = paced(100);
        let (mut messages, mut told) = (Vec::new(), 0);
        let mut first_red: BTreeMap<u128, (Mono, Option<Mono>)> = BTreeMap::new();
        for tick in 0..4_000_u64 {
            let now = at(tick * 10);
            if tick < 1_000 {
                let (incident, level) = (u128::from(tick % 5), levels[(tick / 7 % 4) as usize]);
                if level == Level::Red {
                    first_red.entry(incident).or_insert((now, None));
                }
                storm.handle_order(of_incident(&format!("d{tick}"), 1, level, incident, Cause::Raised));
            }
            while let Some(Attempt { lane, order, with }) = storm.poll_attempt(now) {
                told += 1 + with.len();
                for red in with.iter().chain([&order]).filter(|order| level_of(order) == Some(Level::Red)) {
                    let (_, heard) =
                        first_red.get_mut(&told_of(red).expect("of an incident").0.0.as_u128()).expect("came");
                    heard.get_or_insert(now);
                }
                messages.push(now);
                storm.handle_result(now, lane, taken());
            }
        }
        assert_eq!((told, storm.len()), (1_000, 0), "each is told, once");
        let while_it_lasts = messages.iter().filter(|sent| **sent <= at(10_000)).count();
        assert!(while_it_lasts <= 5 * levels.len(), "{while_it_lasts} messages of five incidents");
        assert!(messages.len() <= 2 * 5 * levels.len(), "{} messages in all", messages.len());
        for (came, heard) in first_red.values() {
            let waited = heard.expect("it is told").since(*came);
            assert!(waited <= MINUTE / (100 - FREE as u32), "a red one waited {waited:?}");
        }
    }

    #[test]
    fn of_an_incident_only_more_of_the_same_waits() {
        for (cause, level, at_once) in [
            (Cause::Raised, Level::Orange, false),
            (Cause::Returned, Level::Orange, false),
            (Cause::Raised, Level::Red, true),
            (Cause::Escalated { step: 1, by: None, why: String::new() }, Level::Orange, true),
            (Cause::Acknowledged { by: "li".to_owned() }, Level::Orange, true),
        ] {
            let mut backlog = paced(20);
            backlog.handle_order(of_incident("a", 1, Level::Orange, 1, Cause::Raised));
            let first = backlog.poll_attempt(at(0)).expect("it is news");
            backlog.handle_result(at(1), first.lane, taken());
            backlog.handle_order(of_incident("b", 1, level, 1, cause.clone()));
            assert_eq!(backlog.poll_attempt(at(2)).is_some(), at_once, "{cause:?} {level:?}");
            if !at_once {
                assert_eq!(backlog.poll_timeout(at(2)), Some(at(10_000)), "and then it goes");
                // Its own alarm gets worse: that is news, and nothing holds it up.
                backlog.handle_order(of_incident("b", 2, Level::Red, 1, Cause::LevelChanged(Level::Orange)));
                let news = backlog.poll_attempt(at(3)).expect("red waits for nothing");
                assert_eq!((news.order.id.as_str(), news.with.len()), ("b/1/office", 1));
            }
        }
        // Where the first has not been taken, nobody knows.
        let mut backlog = paced(20);
        backlog.handle_order(of_incident("a", 1, Level::Orange, 1, Cause::Raised));
        let first = backlog.poll_attempt(at(0)).expect("it is news");
        backlog.handle_result(at(1), first.lane, retry());
        backlog.handle_order(of_incident("b", 1, Level::Orange, 1, Cause::Raised));
        assert!(backlog.poll_attempt(at(2)).is_some());
    }

    #[test]
    fn outside_of_the_hours_what_is_less_is_kept_and_goes_together_when_they_begin() {
        let mut backlog = paced(20);
        let morning = at(3_600_000);
        backlog.set_quiet(Some((morning, Some(Level::Red))));
        for (device, level) in [("a", Level::Orange), ("b", Level::Yellow), ("c", Level::Orange)] {
            backlog.handle_order(samples::order(device, 1, level));
        }
        assert!(backlog.poll_attempt(at(0)).is_none());
        assert_eq!(backlog.poll_timeout(at(0)), Some(morning));
        backlog.handle_order(samples::order("d", 1, Level::Red));
        let red = backlog.poll_attempt(at(1)).expect("red goes at any hour");
        assert_eq!((red.order.id.as_str(), red.with.len()), ("d/1/office", 0), "and takes nothing less along");
        backlog.handle_result(at(2), red.lane, taken());
        assert!(backlog.poll_attempt(at(3)).is_none());
        // Down or not: nobody is disturbed to find out.
        backlog.failures = DOWN_AFTER;
        assert!(backlog.poll_attempt(at(60_000)).is_none());
        backlog.failures = 0;
        backlog.set_quiet(None);
        let kept = backlog.poll_attempt(morning).expect("the hours have begun");
        assert_eq!((kept.order.id.as_str(), kept.with.len()), ("a/1/office", 1), "what is grave first, in one message");
        backlog.handle_result(morning, kept.lane, taken());
        assert_eq!(names(&attempts(&mut backlog, morning)), ["b/1/office"]);
        // Where every hour matters, none is let off.
        let mut strict = paced(20);
        strict.set_quiet(Some((morning, None)));
        strict.handle_order(samples::order("d", 1, Level::Red));
        assert!(strict.poll_attempt(at(0)).is_none());
    }

    #[test]
    fn one_subject_in_order_others_beside_it_gravest_first() {
        let mut backlog =
            backlog(&[("b", 1, Level::Yellow), ("a", 1, Level::Blue), ("a", 2, Level::Red), ("c", 1, Level::Red)]);
        let first = attempts(&mut backlog, at(0));
        // The blue one holds up a red one.
        assert_eq!(names(&first), ["a/1/office", "c/1/office", "b/1/office"]);
        backlog.handle_result(at(5), first[0].lane, taken());
        let next = attempts(&mut backlog, at(5));
        assert_eq!(names(&next), ["a/2/office"]);
        assert_eq!(reports(&mut backlog, at(5)), ["delivered a/1/office"]);
        assert_eq!(backlog.len(), 3);
    }

    #[test]
    fn a_failing_head_holds_its_own_lane_and_no_other() {
        let mut backlog = backlog(&[("a", 1, Level::Red), ("a", 2, Level::Red)]);
        let first = attempts(&mut backlog, at(0));
        backlog.handle_result(at(0), first[0].lane, retry());
        backlog.handle_order(samples::order("b", 1, Level::Blue));
        assert_eq!(names(&attempts(&mut backlog, at(0))), ["b/1/office"]);
        let due = backlog.poll_timeout(at(0)).expect("the head is tried again");
        assert!(due <= at(500), "{due:?}");
        assert_eq!(names(&attempts(&mut backlog, due)), ["a/1/office"]);
    }

    #[test]
    fn the_same_order_handed_in_twice_goes_once() {
        let mut backlog = backlog(&[("a", 1, Level::Red), ("a", 1, Level::Red)]);
        assert_eq!(backlog.len(), 1);
        assert_eq!(attempts(&mut backlog, at(0)).len(), 1);
    }

    #[test]
    fn waits_are_full_jitter_up_to_30_seconds_and_the_same_for_the_same_seed() {
        let waits = |seed| {
            let mut backlog = Backlog::new("office".into(), seed);
            (1..=1_000).map(|n| backlog.backoff(n % 20 + 1)).collect::<Vec<_>>()
        };
        assert_eq!(waits(7), waits(7));
        assert_ne!(waits(7), waits(8));
        let mut backlog = Backlog::new("office".into(), 1);
        for (failures, ceiling) in [(1, 500), (2, 1_000), (3, 2_000), (6, 16_000), (7, 30_000), (u32::MAX, 30_000)] {
            let waits: Vec<u128> = (0..500).map(|_| backlog.backoff(failures).as_millis()).collect();
            let (least, most) = (waits.iter().min().copied(), waits.iter().max().copied());
            assert!(most.is_some_and(|most| most <= ceiling && most > ceiling * 9 / 10), "{failures}: {most:?}");
            assert!(least.is_some_and(|least| least < ceiling / 10), "{failures}: {least:?}");
        }
    }

    #[test]
    fn refused_three_times_is_dead_said_and_lets_the_next_go() {
        let mut backlog = backlog(&[("a", 1, Level::Red), ("a", 2, Level::Red)]);
        let mut now = at(0);
        for _ in 0..REFUSALS {
            let tried = attempts(&mut backlog, now);
            assert_eq!(names(&tried), ["a/1/office"]);
            backlog.handle_result(now, tried[0].lane, never());
            now = backlog.poll_timeout(now).unwrap_or(now);
        }
        assert_eq!(reports(&mut backlog, now), ["dead a/1/office", "way-out:office in trouble"]);
        let next = attempts(&mut backlog, now);
        assert_eq!(names(&next), ["a/2/office"]);
        backlog.handle_result(now, next[0].lane, taken());
        assert_eq!(reports(&mut backlog, now), ["delivered a/2/office"]);
        assert!(backlog.is_empty());
        let well = backlog.poll_timeout(now).expect("it is well again some time");
        assert_eq!(well, now.plus(REFUSED_STANDS));
        assert_eq!(reports(&mut backlog, well), ["way-out:office well"]);
        assert!(backlog.poll_timeout(well).is_none());
    }

    /// What is said of a way out goes out by it, too.
    #[test]
    fn a_peer_that_refuses_now_and_then_is_one_trouble_and_not_one_an_order() {
        let mut backlog = backlog(&[]);
        let mut said = Vec::new();
        for n in 0..40_u32 {
            let mut now = at(u64::from(n) * 30_000);
            backlog.handle_order(samples::order(&format!("d{n}"), 1, Level::Red));
            let refused = n % 4 == 0;
            while !backlog.is_empty() {
                for attempt in attempts(&mut backlog, now) {
                    backlog.handle_result(now, attempt.lane, if refused { never() } else { taken() });
                }
                now = backlog.poll_timeout(now).filter(|_| !backlog.is_empty()).unwrap_or(now);
            }
            said.extend(reports(&mut backlog, now).into_iter().filter(|report| report.starts_with("way-out")));
        }
        assert_eq!(said, ["way-out:office in trouble"]);
    }

    #[test]
    fn a_peer_that_asks_to_wait_is_left_alone() {
        let mut backlog = backlog(&[("a", 1, Level::Red)]);
        let first = attempts(&mut backlog, at(0));
        let wait = Duration::from_secs(20);
        let asked = DeliveryError::RetryAfter { wait, reason: "HTTP 429".to_owned() };
        backlog.handle_result(at(0), first[0].lane, Err(asked));
        backlog.handle_order(samples::order("b", 1, Level::Red));
        assert!(attempts(&mut backlog, at(19_999)).is_empty());
        assert_eq!(attempts(&mut backlog, at(20_000)).len(), 2);
    }

    #[test]
    fn while_down_one_probe_at_a_time_and_a_new_order_soon() {
        let orders: Vec<(String, u32, Level)> = (0..20).map(|n| (format!("d{n:02}"), 1, Level::Yellow)).collect();
        let orders: Vec<_> = orders.iter().map(|(device, seq, level)| (device.as_str(), *seq, *level)).collect();
        let mut backlog = backlog(&orders);
        let first = attempts(&mut backlog, at(0));
        assert_eq!(first.len(), PARALLEL);
        for attempt in &first {
            backlog.handle_result(at(100), attempt.lane, retry());
        }
        assert!(backlog.is_down());
        // Twelve were never tried: each may probe half a second after the last failure, one at a time.
        let mut now = at(100);
        for _ in 0..12 {
            now = backlog.poll_timeout(now).expect("a probe is due");
            let probe = attempts(&mut backlog, now);
            assert_eq!(probe.len(), 1, "one at a time");
            backlog.handle_result(now, probe[0].lane, retry());
        }
        assert!(now <= at(100 + 12 * 500), "{now:?}");
        // From now on the probes are spaced; an order that comes in goes within half a second all the same.
        backlog.handle_order(samples::order("new", 1, Level::Red));
        now = backlog.poll_timeout(now).expect("a probe is due");
        let probe = attempts(&mut backlog, now);
        assert_eq!(names(&probe), ["new/1/office"]);
        // The first success lets everything go.
        backlog.handle_result(now, probe[0].lane, taken());
        assert_eq!(attempts(&mut backlog, now).len(), PARALLEL);
    }

    /// Goal: the promise of a poisoned order. Method: a peer that fails one order for ever and takes all others.
    #[test]
    fn a_poisoned_order_delays_nobody_for_long() {
        let mut backlog = backlog(&[("poison", 1, Level::Red)]);
        let mut now = at(0);
        let mut delivered = 0;
        for step in 0..2_000_u32 {
            if step % 20 == 0 {
                backlog.handle_order(samples::order(&format!("d{step}"), 1, Level::Blue));
                let came = now;
                for attempt in attempts(&mut backlog, now) {
                    delivered += settle(&mut backlog, now, &attempt);
                }
                while delivered * 20 <= step {
                    now = backlog.poll_timeout(now).expect("something waits");
                    for attempt in attempts(&mut backlog, now) {
                        delivered += settle(&mut backlog, now, &attempt);
                    }
                }
                assert!(now.since(came) <= Duration::from_millis(500), "step {step}");
            } else {
                now = now.plus(Duration::from_millis(250));
                for attempt in attempts(&mut backlog, now) {
                    delivered += settle(&mut backlog, now, &attempt);
                }
            }
        }
        assert_eq!(backlog.len(), 1, "only the poisoned one is left");
    }

    fn settle(backlog: &mut Backlog, now: Mono, attempt: &Attempt) -> u32 {
        let poisoned = attempt.order.id.as_str().starts_with("poison");
        backlog.handle_result(now, attempt.lane, if poisoned { retry() } else { taken() });
        u32::from(!poisoned)
    }

    #[test]
    fn a_minute_of_failure_is_trouble_once_and_over_when_all_is_through() {
        let mut backlog = backlog(&[("a", 1, Level::Red), ("b", 1, Level::Red)]);
        let mut now = at(0);
        let mut said = Vec::new();
        while now < at(300_000) {
            for attempt in attempts(&mut backlog, now) {
                backlog.handle_result(now, attempt.lane, retry());
            }
            said.extend(reports(&mut backlog, now).into_iter().map(|report| (now, report)));
            now = backlog.poll_timeout(now).expect("it goes on").max(now.plus(Duration::from_millis(1)));
        }
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].0 >= at(60_000) && said[0].0 <= at(60_001), "{said:?}");
        while !backlog.is_empty() {
            for attempt in attempts(&mut backlog, now) {
                backlog.handle_result(now, attempt.lane, taken());
            }
            now = backlog.poll_timeout(now).unwrap_or(now);
        }
        let last = reports(&mut backlog, now);
        assert_eq!(last.last().map(String::as_str), Some("way-out:office well"), "{last:?}");
    }

    #[test]
    fn a_lost_connection_is_trouble_even_when_nothing_waits() {
        let mut backlog = backlog(&[]);
        backlog.handle_reachable(at(0), false);
        backlog.handle_reachable(at(5_000), false);
        assert_eq!(backlog.poll_timeout(at(5_000)), Some(at(60_000)));
        assert!(reports(&mut backlog, at(59_999)).is_empty());
        assert_eq!(reports(&mut backlog, at(60_000)), ["way-out:office in trouble"]);
        backlog.handle_reachable(at(61_000), true);
        assert_eq!(reports(&mut backlog, at(61_000)), ["way-out:office well"]);
    }

    #[test]
    fn beyond_the_bound_only_orders_about_anmin_itself_are_given_up() {
        let mut backlog = Backlog::new("office".into(), 7);
        for n in 0..SYSTEM_BOUND {
            backlog.handle_order(samples::order(&format!("d{n}"), 1, Level::Blue));
        }
        let mut own = samples::alarm();
        own.class = Class::System;
        own.subject = Subject::Part("bus:a".into());
        let id = OrderId::new("own/1/office");
        backlog.expect_by(at(0), id.clone());
        backlog.handle_order(Order {
            id,
            channel: "office".into(),
            body: OrderBody::Event(samples::transition(
                anmin_rules::alarm::AlarmState::Normal,
                anmin_rules::alarm::Cause::Raised,
                own,
            )),
        });
        backlog.handle_order(samples::order("last", 1, Level::Blue));
        assert_eq!(reports(&mut backlog, at(0)), ["dead own/1/office"]);
        assert_eq!(backlog.len(), SYSTEM_BOUND + 1);
    }

    /// Fails each order's first attempt, panics on the second, takes the third.
    struct Moody {
        tries: AtomicUsize,
        carried: Arc<Mutex<Vec<String>>>,
    }

    impl Carrier for Moody {
        async fn carry(&self, order: &Order) -> Result<Receipt, DeliveryError> {
            match self.tries.fetch_add(1, Ordering::SeqCst) % 3 {
                0 => Err(DeliveryError::Retry("busy".to_owned())),
                1 => panic!("a defect of this carrier, for this test"),
                _ => {
                    self.carried.lock().expect("nobody panics with it").push(order.id.to_string());
                    Ok(Receipt::of("taken"))
                }
            }
        }
    }

    #[tokio::test]
    async fn the_loop_survives_failures_and_panics_and_ends_when_all_is_through() {
        let carried = Arc::new(Mutex::new(Vec::new()));
        let carrier = Moody { tries: AtomicUsize::new(0), carried: Arc::clone(&carried) };
        let (inputs, mut main_loop) = mpsc::channel(1);
        let (handle, task) = spawn(carrier, "office".into(), Clock::system(), inputs);
        for seq in 1..=2 {
            handle.send(samples::order("a", seq, Level::Red));
        }
        drop(handle);
        let mut outcomes = Vec::new();
        while let Some(input) = main_loop.recv().await {
            if let Input::Outcome { order, outcome: Outcome::Delivered(_) } = input {
                outcomes.push(order.to_string());
            }
        }
        task.await.expect("the courier ends by itself");
        assert_eq!(outcomes, ["a/1/office", "a/2/office"]);
        assert_eq!(*carried.lock().expect("nobody panics with it"), outcomes);
    }

    fn paced(per_minute: usize) -> Backlog {
        let mut backlog = Backlog::new("duty".into(), 7);
        backlog.spacing = Some(Spacing::new(Pace { per_minute }));
        backlog
    }

    fn told(attempt: &Attempt) -> usize {
        1 + attempt.with.len()
    }

    /// Plays until nothing waits; each message takes 100 ms. Gives when each left, how many it told, and whether it was grave.
    fn play(
        backlog: &mut Backlog,
        from: u64,
        mut come: impl FnMut(u64, &mut Backlog),
        until: u64,
    ) -> Vec<(u64, usize, bool)> {
        let mut left = Vec::new();
        let mut under_way: Option<(u64, Lane)> = None;
        for now in (from..until).step_by(10) {
            come(now, backlog);
            if let Some((since, lane)) = under_way
                && now >= since + 100
            {
                backlog.handle_result(at(now), lane, taken());
                under_way = None;
            }
            if let Some(attempt) = backlog.poll_attempt(at(now)) {
                left.push((now, told(&attempt), alarm_of(&attempt.order).level >= Level::Orange));
                under_way = Some((now, attempt.lane));
            }
        }
        left
    }

    #[test]
    fn a_storm_is_told_in_few_messages_and_nothing_grave_waits_long() {
        for per_minute in [10, 20, 100] {
            let mut backlog = paced(per_minute);
            // 1,000 alarms in 10 s, nine of ten of them yellow, each a danger of its own.
            let come = |now: u64, backlog: &mut Backlog| {
                if now < 10_000 {
                    let level = if now.is_multiple_of(100) { Level::Red } else { Level::Yellow };
                    let order = of_incident(&format!("d{now}"), 1, level, u128::from(now), Cause::Raised);
                    backlog.handle_order(order);
                }
            };
            let left = play(&mut backlog, 0, come, 600_000);
            assert_eq!(left.iter().map(|(_, told, _)| told).sum::<usize>(), 1_000, "{per_minute}: each is told once");
            assert!(backlog.is_empty());
            // No minute sees more than the robot takes.
            for (n, (at, ..)) in left.iter().enumerate() {
                let within = left[n..].iter().take_while(|(other, ..)| other - at < 60_000).count();
                assert!(within <= per_minute, "{per_minute}: {within} messages from {at} ms on");
            }
            // Red ones come every 100 ms; the longest time between two grave messages is how long one waits.
            let grave: Vec<u64> = left.iter().filter(|(.., grave)| *grave).map(|(at, ..)| *at).collect();
            let gap = 60_000 / (per_minute as u64 - 5);
            let longest = grave.windows(2).map(|pair| pair[1] - pair[0]).max().expect("several");
            assert!(grave[0] == 0 && longest <= gap + 110, "{per_minute}: {longest} ms: {grave:?}");
        }
    }

    #[test]
    fn on_a_quiet_day_each_change_has_a_message_of_its_own_and_leaves_at_once() {
        let mut backlog = paced(20);
        let come = |now: u64, backlog: &mut Backlog| {
            if now.is_multiple_of(30_000) {
                backlog.handle_order(samples::order(&format!("d{now}"), 1, Level::Blue));
            }
        };
        let left = play(&mut backlog, 0, come, 600_000);
        assert_eq!(left, (0..20).map(|n| (n * 30_000, 1, false)).collect::<Vec<_>>());
    }

    #[test]
    fn what_went_together_and_failed_is_told_again_and_a_poisoned_one_holds_nobody() {
        let mut backlog = paced(100);
        for n in 0..10 {
            backlog.handle_order(samples::order(&format!("d{n}"), 1, Level::Red));
        }
        backlog.handle_order(samples::order("d3", 2, Level::Red));
        let first = backlog.poll_attempt(at(0)).expect("nothing left before");
        assert_eq!((told(&first), backlog.len()), (11, 11));
        assert!(backlog.poll_attempt(at(0)).is_none(), "one message at a time");
        backlog.handle_result(at(100), first.lane, never());
        let second = backlog.poll_attempt(at(100)).expect("the others go without the first");
        assert_eq!(told(&second), 10);
        let of_d3 = |attempt: &Attempt| {
            let all = std::iter::once(&attempt.order).chain(&attempt.with);
            all.filter(|order| order.id.as_str().starts_with("d3/"))
                .map(|order| order.id.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(of_d3(&second), ["d3/1/office", "d3/2/office"], "in order");
        backlog.handle_result(at(200), second.lane, taken());
        assert_eq!(backlog.len(), 1);
        assert_eq!(reports(&mut backlog, at(200)).len(), 10);
    }
}
