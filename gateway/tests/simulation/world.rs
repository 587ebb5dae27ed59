//! What stands around the box and survives its crashes: devices, the broker's session, the receivers.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anmin::delivery::{DeliveryError, Receipt};
use anmin::intake::{Ack, Delivery, Message};
use anmin_rules::order::{CapMessage, Order, OrderBody};
use anmin_sensors::time::Now;

use crate::dice::Dice;
use crate::run::Scale;
use crate::site::{LIMITS, MINUTE, SECOND, SOURCE};

/// The true time at the start: 2026-03-01T01:30:00Z in microseconds. Devices know it; the box may not.
pub const TRUE_START: i64 = 1_772_328_600_000_000;

/// What a device puts into its messages besides the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamp {
    /// A count and the time.
    Both,
    Count,
    /// Nothing: a repeat of it is a new reading to whoever remembers nothing.
    None,
}

/// What a message says, as its device meant it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Said {
    Value(f64),
    /// Readable, but no usable value.
    NoValue,
    /// Not even readable.
    Junk,
}

#[derive(Clone, Debug)]
pub struct Msg {
    pub id: u64,
    pub device: usize,
    pub stamp: Stamp,
    /// Counts up with each thing measured.
    pub n: u64,
    pub said: Said,
    pub retained: bool,
    /// The packet identifier, once it was sent.
    pub packet: Option<u16>,
    /// Goes with the one behind it in one batch: a reading that comes late comes in the life of its successor.
    with_next: bool,
    topic: Arc<str>,
    payload: String,
}

impl Msg {
    pub fn deliver(&self, received: Now, delivery: Option<Delivery>, ack: Option<Ack>) -> Message {
        let payload = self.payload.clone().into_bytes().into();
        Message {
            topic: Arc::clone(&self.topic),
            payload,
            retained: self.retained,
            cut: false,
            received,
            delivery,
            ack,
        }
    }

    /// Whether nobody but the sender could tell the two apart.
    pub fn looks_like(&self, other: &Self) -> bool {
        (self.packet, &self.topic, &self.payload) == (other.packet, &other.topic, &other.payload)
    }
}

/// A device that lives its own life: crosses limits and comes back, falls silent, sends junk, repeats, reorders.
pub struct Device {
    pub id: String,
    pub point: String,
    pub rule: usize,
    pub stamp: Stamp,
    ix: usize,
    scale: Scale,
    dice: Dice,
    n: u64,
    level: f64,
    /// When it has risen lately.
    rises: VecDeque<u64>,
    /// Sent after its successor.
    held: Option<Msg>,
    topic: Arc<str>,
}

impl Device {
    pub fn new(ix: usize, seed: u64, stamps: &[Stamp], scale: Scale) -> Self {
        let mut dice = Dice::new(seed, 1_000 + ix as u64);
        let rule = ix % 2;
        let id = format!("d{ix}");
        let topic = format!("{}/{id}", ["prompt", "patient"][rule]).into();
        let stamp = dice.pick(stamps);
        let point = format!("{id}/v");
        // A count of 1 would say that the device has started again.
        Self { id, point, rule, stamp, ix, scale, dice, n: 1, level: 1.0, rises: VecDeque::new(), held: None, topic }
    }

    /// What it sends at `t`, and when it speaks next.
    pub fn speak(&mut self, t: u64, next_id: &mut u64) -> (Vec<Msg>, u64) {
        let dice = &mut self.dice;
        let (chance, of) = self.scale.moves;
        if dice.from(0, of) < chance {
            // Each stands clear of the limits and within one of the stretches that a deadband cuts.
            let level = dice.pick(&[1.0, 1.0, 1.0, 6.0, 12.0, 17.0, 21.0, 30.0, 46.0, 60.0]);
            self.rises.retain(|at| t - at < 10 * MINUTE);
            let over = |level: f64| LIMITS.iter().filter(|limit| level >= **limit).count();
            if over(level) > over(self.level) {
                // One that came five times in ten minutes would chatter.
                if self.rises.len() < 4 {
                    self.rises.push_back(t);
                    self.level = level;
                }
            } else {
                self.level = level;
            }
        }
        let said = match dice.from(0, 100) {
            0..2 => Said::Junk,
            2..6 => Said::NoValue,
            // No value comes twice soon, so that what was stored can be told.
            _ => Said::Value(self.level + (self.n % 10_000) as f64 / 10_001.0),
        };
        let nothing = dice.pick(&["null", "\"NaN\"", "9999.5", "-3.25"]);
        let (repeat, reorder) = (dice.percent(4), dice.percent(4));
        let Scale { period, grid, rests: (chance, of), .. } = self.scale;
        let rest = dice.from(0, of) < chance;
        let pause = if rest { dice.from(60, 300) * SECOND } else { dice.from(period / 2, period * 3 / 2) };
        self.n += 1;
        let value = match said {
            Said::Value(value) => format!("{value:?}"),
            _ => nothing.to_owned(),
        };
        let count = format!(",\"n\":{}", self.n);
        let time = format!(",\"t\":{}", (TRUE_START + t as i64) / 1_000);
        let payload = match (said, self.stamp) {
            (Said::Junk, _) => "{\"v\":".to_owned(),
            (_, Stamp::Both) => format!("{{\"v\":{value}{count}{time}}}"),
            (_, Stamp::Count) => format!("{{\"v\":{value}{count}}}"),
            (_, Stamp::None) => format!("{{\"v\":{value}}}"),
        };
        *next_id += 1;
        let msg = Msg {
            id: *next_id,
            device: self.ix,
            stamp: self.stamp,
            n: self.n,
            said,
            retained: false,
            packet: None,
            with_next: false,
            topic: Arc::clone(&self.topic),
            payload,
        };
        let mut out = Vec::new();
        let countable = matches!(self.stamp, Stamp::Both | Stamp::Count);
        if reorder && countable && said != Said::Junk && self.held.is_none() {
            self.held = Some(msg);
        } else {
            if repeat {
                *next_id += 1;
                out.push(Msg { id: *next_id, ..msg.clone() });
            }
            out.push(msg);
            out.extend(self.held.take());
            let pairs = out.len() - 1;
            out[..pairs].iter_mut().for_each(|msg| msg.with_next = true);
        }
        (out, (t + pause.max(SECOND / 10)) / grid * grid)
    }
}

/// What happened to the rights to acknowledge that the box was given, in order: (connection, message, whether it was
/// used or dropped).
pub type Acks = Arc<Mutex<Vec<(u64, u64, bool)>>>;

struct Token(Option<(u64, u64)>, Acks);

impl Drop for Token {
    fn drop(&mut self) {
        if let Some((connection, id)) = self.0.take() {
            self.1.lock().expect("nobody panics with it").push((connection, id, false));
        }
    }
}

/// A broker that keeps the session: what was not acknowledged on the connection that delivered it comes again on the
/// next one, in order, before anything newer.
pub struct Broker {
    pub connection: u64,
    pub connected: bool,
    pub was_connected: bool,
    pub acks: Acks,
    queue: VecDeque<Msg>,
    in_flight: VecDeque<(Msg, bool)>,
    window: usize,
    /// Packet identifiers are used again soon.
    next_packet: u16,
    used_packets: HashSet<u16>,
    /// What is kept retained of each device, and since when.
    last_of: BTreeMap<usize, (u64, Msg)>,
}

impl Broker {
    pub fn new(window: usize) -> Self {
        Self {
            connection: 0,
            connected: false,
            was_connected: false,
            acks: Acks::default(),
            queue: VecDeque::new(),
            in_flight: VecDeque::new(),
            window,
            next_packet: 0,
            used_packets: HashSet::new(),
            last_of: BTreeMap::new(),
        }
    }

    pub fn publish(&mut self, t: u64, msg: Msg) {
        if msg.n.is_multiple_of(7) && msg.said != Said::Junk {
            self.last_of.insert(msg.device, (t, msg.clone()));
        }
        self.queue.push_back(msg);
    }

    /// A new connection of the same session: what it keeps retained comes first, then what was not acknowledged. What was
    /// measured a moment ago counts as live by design, so only what is old is kept here.
    pub fn connect(&mut self, t: u64) -> Vec<Msg> {
        self.disconnect();
        self.connected = true;
        let old = self.last_of.values().filter(|(since, _)| t - since > 5 * MINUTE);
        old.map(|(_, msg)| Msg { retained: true, packet: None, ..msg.clone() }).collect()
    }

    pub fn disconnect(&mut self) {
        self.connection += 1;
        self.connected = false;
        while let Some((msg, _)) = self.in_flight.pop_back() {
            self.queue.push_front(msg);
        }
        self.used_packets.clear();
    }

    fn free_packet(&mut self) -> u16 {
        let used = |packet: u16| self.used_packets.contains(&packet);
        let most = u16::try_from(4 * self.window).unwrap_or(u16::MAX);
        let next = (0..most).map(|n| (self.next_packet + n) % most + 1).find(|packet| !used(*packet));
        self.next_packet = next.expect("more identifiers than the window holds");
        self.next_packet
    }

    /// What fits into the window; and whether each was sent before.
    pub fn deliver(&mut self, now: Now) -> Vec<((Msg, bool), Message)> {
        let mut out = Vec::new();
        let mut with_next = false;
        while self.connected
            && (self.in_flight.len() < self.window || with_next)
            && let Some(mut msg) = self.queue.pop_front()
        {
            let again = msg.packet.is_some();
            let packet = msg.packet.unwrap_or_else(|| self.free_packet());
            msg.packet = Some(packet);
            self.used_packets.insert(packet);
            let mut token = Token(Some((self.connection, msg.id)), Arc::clone(&self.acks));
            let ack = Ack::new(move || {
                if let Some((connection, id)) = token.0.take() {
                    token.1.lock().expect("nobody panics with it").push((connection, id, true));
                }
            });
            with_next = msg.with_next;
            let delivery = Delivery::new(SOURCE, "anmin", packet, again);
            out.push(((msg.clone(), again), msg.deliver(now, Some(delivery), Some(ack))));
            self.in_flight.push_back((msg, false));
        }
        out
    }

    /// Takes in what the box acknowledged. Gives the messages that are gone from the session now; and whether the box
    /// let go of one, upon which the intake ends the connection.
    pub fn settle(&mut self) -> (Vec<Msg>, bool) {
        let acks = std::mem::take(&mut *self.acks.lock().expect("nobody panics with it"));
        let (mut forsaken, mut next) = (false, 0);
        for (connection, id, used) in acks {
            if connection != self.connection {
                continue;
            }
            // Mostly they come in order.
            let (passed, ahead) = (0..next.min(self.in_flight.len()), next..self.in_flight.len());
            match ahead.chain(passed).find(|at| self.in_flight[*at].0.id == id) {
                Some(at) if used => {
                    self.in_flight[at].1 = true;
                    next = at + 1;
                }
                _ => forsaken = true,
            }
        }
        let mut gone = Vec::new();
        while self.in_flight.front().is_some_and(|(_, safe)| *safe) {
            gone.extend(self.in_flight.pop_front().map(|(msg, _)| msg));
        }
        for msg in &gone {
            msg.packet.map(|packet| self.used_packets.remove(&packet));
        }
        (gone, forsaken)
    }

    /// The box is gone: what it said and nobody heard yet is lost on the wire.
    pub fn lose_acks(&mut self) {
        self.acks.lock().expect("nobody panics with it").clear();
    }

    /// Delivered on this connection and not acknowledged.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    pub fn waiting(&self) -> usize {
        self.queue.len() + self.in_flight.len()
    }
}

/// How a receiver treats what comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Well,
    /// Says 503.
    Busy,
    /// Does not answer and has not taken it.
    Away,
    /// Takes it and does not answer.
    Mute,
    /// Says when to come back.
    Later,
}

/// How one attempt will end: whether the receiver takes the order, and what the courier hears.
pub struct Fate {
    pub takes: bool,
    pub after: u64,
    pub answer: Result<Receipt, DeliveryError>,
}

/// The far end of a way out. Remembers what it took; checks that it never gets what it must not.
pub struct Receiver {
    pub mood: Mood,
    /// Refuses one order in so many for ever; 0: none.
    refuses_one_in: u64,
    dice: Dice,
    pub taken: BTreeSet<String>,
    /// How often something came that it had taken.
    pub repeats: u64,
    /// Alarms of which something was refused for ever, or was sent from memory by a run that then forgot it.
    pub broken: BTreeSet<String>,
    /// The CAP messages in force by alarm.
    pub in_force: BTreeMap<String, Vec<String>>,
    cap_names: BTreeMap<String, String>,
    /// What the last event about each alarm said: its number and state.
    pub last_said: BTreeMap<String, (u32, String)>,
}

impl Receiver {
    pub fn new(seed: u64, stream: u64, refuses_one_in: u64) -> Self {
        Self {
            mood: Mood::Well,
            refuses_one_in,
            dice: Dice::new(seed, stream),
            taken: BTreeSet::new(),
            repeats: 0,
            broken: BTreeSet::new(),
            in_force: BTreeMap::new(),
            cap_names: BTreeMap::new(),
            last_said: BTreeMap::new(),
        }
    }

    pub fn refuses(&self, order: &Order) -> bool {
        let sum = order.id.as_str().bytes().fold(7_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
        self.refuses_one_in > 0 && sum.is_multiple_of(self.refuses_one_in)
    }

    pub fn fate(&mut self, order: &Order) -> Fate {
        let soon = self.dice.from(SECOND / 1_000, SECOND / 2);
        let retry = |why: &str| Err(DeliveryError::Retry(why.to_owned()));
        let (takes, after, answer) = match self.mood {
            Mood::Away => (false, 15 * SECOND, retry("no answer")),
            Mood::Mute => (true, 15 * SECOND, retry("no answer")),
            Mood::Busy => (false, soon, retry("HTTP 503")),
            Mood::Later => {
                let wait = Duration::from_micros(self.dice.from(SECOND, 60 * SECOND));
                (false, soon, Err(DeliveryError::RetryAfter { wait, reason: "HTTP 429".to_owned() }))
            }
            Mood::Well if self.refuses(order) => {
                self.broken.insert(alarm_of(order));
                (false, soon, Err(DeliveryError::Never("HTTP 400".to_owned())))
            }
            Mood::Well => (true, soon, Ok(Receipt::of("HTTP 204"))),
        };
        Fate { takes, after, answer }
    }

    /// Takes an order; true when it is new. A receiver that remembers ids acts only then.
    pub fn take(&mut self, order: &Order) -> bool {
        if let OrderBody::Cap(cap) = &order.body {
            let known = self.cap_names.insert(cap.identifier.clone(), order.id.to_string());
            assert!(
                known.as_ref().is_none_or(|known| *known == order.id.to_string()),
                "G8: CAP identifier {} was used for {known:?} and for {}",
                cap.identifier,
                order.id
            );
        }
        if !self.taken.insert(order.id.to_string()) {
            self.repeats += 1;
            return false;
        }
        match &order.body {
            OrderBody::Event(transition) => {
                let alarm = &transition.alarm;
                self.last_said.insert(alarm.id.to_string(), (alarm.seq, transition.to.as_str().to_owned()));
            }
            OrderBody::Call(_) | OrderBody::Siren(_) => {}
            OrderBody::Cap(cap) => {
                let chain = self.in_force.entry(cap.alarm.id.to_string()).or_default();
                let names: Vec<String> = cap.references.iter().map(|sent| sent.identifier.clone()).collect();
                // Who refuses a message breaks its chain.
                assert!(
                    *chain == names || self.broken.contains(&cap.alarm.id.to_string()),
                    "G8: {:?} {} refers to {names:?}, in force are {chain:?}",
                    cap.message,
                    order.id
                );
                match cap.message {
                    CapMessage::Cancel => chain.clear(),
                    CapMessage::Alert | CapMessage::Update => chain.push(cap.identifier.clone()),
                }
            }
        }
        true
    }
}

pub fn alarm_of(order: &Order) -> String {
    order.id.as_str().split('/').next().expect("an id starts with its alarm").to_owned()
}
