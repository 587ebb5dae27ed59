//! What became of a message: taken, there, read, answered. Nothing here guesses: how far it has come with one of several recipients
//! is what the server or gateway has said of them, when it took the message and in its reports afterwards (see
//! [`crate::delivery_report`]).
//!
//! In the table of [`super::registers`]: what is known of a message under its way out and name, and under each order which messages
//! it became. A file that is made anew out of a damaged one goes without, as of [`super::sent`].

use std::collections::BTreeMap;
use std::sync::Arc;

use anmin_rules::alarm::{AlarmId, Cause};
use anmin_rules::order::{CallCause, CallState, OrderBody, OrderId};
use anmin_sensors::time::Wall;
use rusqlite::{Connection, OptionalExtension as _};
use serde::{Deserialize, Serialize};

use super::registers;
use super::state::{Entry, Journaled, Sent};

pub(super) const ADDRESSED: &str = "addressed";
pub(super) const BECAME: &str = "became";

/// How far a message has come with one recipient, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// The server or gateway would not take it for them.
    LeftOut,
    /// It was taken, and cannot be delivered.
    Failed,
    /// Taken by the server or gateway.
    Accepted,
    /// On their telephone or in their mailbox, as the gateway says.
    Delivered,
    Read,
    /// They have answered the telephone by a key, or written back.
    Answered,
}

impl Reach {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LeftOut => "left_out",
            Self::Failed => "failed",
            Self::Accepted => "accepted",
            Self::Delivered => "delivered",
            Self::Read => "read",
            Self::Answered => "answered",
        }
    }
}

/// How a message stands with one recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    pub reach: Reach,
    /// Since when, in microseconds of the wall clock.
    pub at: i64,
    /// Why it came no further.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

impl Standing {
    pub fn new(reach: Reach, at: Wall, why: &str) -> Self {
        Self { reach, at: at.micros(), why: why.to_owned() }
    }

    pub fn since(&self) -> Wall {
        Wall::from_micros(self.at)
    }

    /// Takes up what is said now; whether that is news. Reports come late, twice and in any order: who has been reached stays so.
    pub fn take(&mut self, new: Self) -> bool {
        let news = new.reach > self.reach || (new.reach < self.reach && self.reach == Reach::Accepted);
        if news {
            *self = new;
        }
        news
    }
}

/// One message as a way out has sent it, and how it stands with each of its recipients, by their places in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addressed {
    pub channel: Arc<str>,
    /// Its name, which is never another's of this way out.
    pub key: Arc<str>,
    pub orders: Vec<OrderId>,
    pub recipients: BTreeMap<u32, Standing>,
}

/// Version 1 of a record.
#[derive(Serialize, Deserialize)]
struct AddressedV1 {
    v: u32,
    orders: Vec<String>,
    recipients: BTreeMap<u32, Standing>,
}

fn id(channel: &str, key: &str) -> String {
    format!("{channel}/{key}")
}

pub(super) fn write(tx: &Connection, heard: &Addressed) -> rusqlite::Result<()> {
    let Addressed { channel, key, orders, recipients } = heard;
    let orders: Vec<String> = orders.iter().map(|order| order.as_str().to_owned()).collect();
    let id = id(channel, key);
    for order in &orders {
        let mut became: Vec<String> = messages_of(tx, order)?;
        if !became.contains(&id) {
            became.push(id.clone());
            registers::put(tx, BECAME, order, &serde_json::to_string(&became).expect("texts are JSON"))?;
        }
    }
    let record = AddressedV1 { v: 1, orders, recipients: recipients.clone() };
    registers::put(tx, ADDRESSED, &id, &serde_json::to_string(&record).expect("texts and numbers are JSON"))
}

fn messages_of(conn: &Connection, order: &str) -> rusqlite::Result<Vec<String>> {
    let record = registers::record(conn, BECAME, order).optional()?.flatten();
    Ok(record.and_then(|record| serde_json::from_str(&record).ok()).unwrap_or_default())
}

/// `None` too where the record is damaged.
pub(super) fn read(conn: &Connection, channel: &str, key: &str) -> rusqlite::Result<Option<Addressed>> {
    let record = registers::record(conn, ADDRESSED, &id(channel, key)).optional()?.flatten();
    let read = |record: String| -> Option<Addressed> {
        let AddressedV1 { orders, recipients, .. } = serde_json::from_str(&record).ok()?;
        let orders = orders.into_iter().map(OrderId::new).collect();
        Some(Addressed { channel: channel.into(), key: key.into(), orders, recipients })
    };
    Ok(record.and_then(read))
}

/// How an order stands with each recipient, whatever messages it became.
pub(super) fn of_order(conn: &Connection, order: &str) -> rusqlite::Result<BTreeMap<u32, Standing>> {
    let mut all: BTreeMap<u32, Standing> = BTreeMap::new();
    for id in messages_of(conn, order)? {
        let Some((channel, key)) = id.split_once('/') else { continue };
        for (recipient, standing) in read(conn, channel, key)?.into_iter().flat_map(|heard| heard.recipients) {
            all.entry(recipient).and_modify(|known| _ = known.take(standing.clone())).or_insert(standing);
        }
    }
    Ok(all)
}

/// How the receipt ends of a receiver that has named what it took.
pub const NAMED: &str = ", names it";

/// How far a message has come; with the one of several recipients with whom it came furthest. That a receiver has taken a request says nothing of people, nor of where it goes from there;
/// only one that names the message, a file, and a relay that shows it prove that it is there.
pub fn reached(sent: &Sent) -> &'static str {
    let is_there = || match &sent.body {
        Some(OrderBody::Cap(_)) => [NAMED, ".xml", ".tar"].iter().any(|end| sent.detail.ends_with(end)),
        Some(OrderBody::Siren(_)) => sent.detail.ends_with("read back"),
        _ => false,
    };
    match (sent.state, sent.recipients.values().map(|standing| standing.reach).max()) {
        ("delivered", Some(best)) => best.as_str(),
        ("delivered", None) if !is_there() => "accepted",
        (state, _) => state,
    }
}

/// Who answered when, the oldest first: by alarm, and by the station of a call.
#[derive(Default)]
pub struct Answers(BTreeMap<About, Vec<(String, Wall)>>);

/// An alarm, and of a call the station.
type About = (AlarmId, Option<String>);

impl Answers {
    pub fn of(rows: &[Journaled]) -> Self {
        let mut answers = Self::default();
        for row in rows {
            let (key, who, at) = match &row.entry {
                Entry::Transition(transition) => match &transition.cause {
                    Cause::Acknowledged { by } => ((transition.alarm.id, None), by, transition.at.wall),
                    _ => continue,
                },
                Entry::Call(change) if change.cause == CallCause::Said => match change.call.stamps.last() {
                    Some(stamp) => ((change.call.alarm, Some(change.call.station.to_string())), &stamp.by, stamp.at),
                    None => continue,
                },
                _ => continue,
            };
            answers.0.entry(key).or_default().push((who.clone(), at));
        }
        answers
    }

    /// The first answer after a message was taken.
    pub fn to(&self, sent: &Sent) -> Option<&(String, Wall)> {
        let (taken, key) = (
            sent.at.filter(|_| sent.state == "delivered")?,
            match sent.body.as_ref()? {
                OrderBody::Event(transition) => (transition.alarm.id, None),
                // What a station has said needs no answer.
                OrderBody::Call(change) if change.call.state != CallState::Called => return None,
                OrderBody::Call(change) => (change.call.alarm, Some(change.call.station.to_string())),
                // Who gets it is no member of this house.
                OrderBody::Cap(_) | OrderBody::Siren(_) => return None,
            },
        );
        self.0.get(&key)?.iter().find(|(_, at)| *at >= taken)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use anmin_rules::alarm::AlarmState;
    use anmin_rules::order::OrderId;

    use super::*;
    use crate::samples::{self, RAISED};

    #[test]
    fn accepted_delivered_and_answered_are_told_apart() {
        let at = |seconds: u64| RAISED.plus(Duration::from_secs(seconds));
        let raised = samples::transition(AlarmState::Normal, Cause::Raised, samples::alarm());
        let acknowledged = |by: &str| {
            let by = by.to_owned();
            let entry = samples::transition(AlarmState::Unacknowledged, Cause::Acknowledged { by }, samples::alarm());
            Entry::Transition((*entry).clone())
        };
        let rows = [
            Entry::Transition((*raised).clone()),
            // Twenty seconds after it was raised.
            Entry::Call((*samples::call_change()).clone()),
            acknowledged("li"),
            acknowledged("chen"),
        ];
        let rows: Vec<Journaled> = (1..).zip(rows).map(|(n, entry)| Journaled { n, entry }).collect();
        let acknowledged_at = match &rows[2].entry {
            Entry::Transition(transition) => transition.at.wall,
            _ => unreachable!("made above"),
        };
        let answers = Answers::of(&rows);
        let [(_, cap), ..] = samples::cap_orders();
        let mut called = (*samples::call_change()).clone();
        called.call.state = CallState::Called;
        let (event, call, cap) =
            (OrderBody::Event(raised), OrderBody::Call(Arc::new(called)), OrderBody::Cap(Arc::new(cap)));
        let said = OrderBody::Call(samples::call_change());
        for (body, state, detail, taken, reach, answered) in [
            (&event, "delivered", "HTTP 200, accepted", at(0), "accepted", Some("li")),
            (&event, "delivered", "puback", acknowledged_at.plus(Duration::from_secs(1)), "accepted", None),
            (&event, "waiting", "", at(0), "waiting", None),
            (&event, "dead", "HTTP 413", at(0), "dead", None),
            (&call, "delivered", "HTTP 204", at(5), "accepted", Some("wang")),
            (&call, "delivered", "HTTP 204", at(21), "accepted", None),
            (&said, "delivered", "HTTP 204", at(5), "accepted", None),
            (&cap, "delivered", "HTTP 204", at(0), "accepted", None),
            (&cap, "delivered", "HTTP 200, names it", at(0), "delivered", None),
            (&cap, "delivered", "anmin-demo/cap/x.xml", at(0), "delivered", None),
            (&cap, "delivered", "anmin/ebm/EBDT_1.tar", at(0), "delivered", None),
        ] {
            let sent = Sent {
                id: OrderId::new("x/1/y"),
                channel: "y".into(),
                state,
                at: Some(taken),
                detail: detail.to_owned(),
                text: None,
                recipients: BTreeMap::new(),
                body: Some(body.clone()),
            };
            assert_eq!(reached(&sent), reach, "{state} {detail}");
            assert_eq!(answers.to(&sent).map(|(by, _)| by.as_str()), answered, "{state} {detail} {taken:?}");
        }
    }

    #[test]
    fn a_report_that_comes_late_twice_or_in_another_order_takes_nothing_back() {
        use Reach::{Accepted, Answered, Delivered, Failed, LeftOut, Read};
        for (said, stands) in [
            (&[Delivered, Read][..], Read),
            (&[Read, Delivered, Delivered], Read),
            (&[Failed], Failed),
            (&[Failed, Delivered], Delivered),
            (&[Delivered, Failed], Delivered),
            (&[Answered, Failed, Read], Answered),
            (&[LeftOut, Accepted], Accepted),
        ] {
            let mut standing = Standing::new(Accepted, RAISED, "");
            let news: Vec<bool> = said.iter().map(|reach| standing.take(Standing::new(*reach, RAISED, ""))).collect();
            assert_eq!(standing.reach, stands, "{said:?}");
            assert!(news[0], "{said:?}");
        }
    }

    #[test]
    fn what_is_known_of_each_recipient_is_kept_with_every_order_of_a_message() {
        use super::super::state::{StateReader, StateStore, Turn};
        use super::super::tests::TestDir;
        use super::super::{Fact, OrderOutcome};
        use crate::delivery::{Outcome, Receipt};
        use anmin_rules::order::Order;

        let dir = TestDir::new("addressed");
        let (mut store, _) = StateStore::open(dir.path(), RAISED).expect("an empty folder");
        let raised = samples::transition(AlarmState::Normal, Cause::Raised, samples::alarm());
        let order = |n: u32| Order {
            id: OrderId::new(format!("{}/{n}/sms", raised.alarm.id)),
            channel: "sms".into(),
            body: OrderBody::Event(Arc::clone(&raised)),
        };
        let orders = [order(1), order(2)];
        let ids: Vec<OrderId> = orders.iter().map(|order| order.id.clone()).collect();
        let outcome = |order: &OrderId| OrderOutcome {
            order: order.clone(),
            outcome: Outcome::Delivered(Receipt::of("HTTP 200, accepted")),
            at: RAISED,
        };
        let heard = |key: &str, orders: &[OrderId], recipients: &[(u32, Reach, &str)]| {
            let standing = |(n, reach, why): &(u32, Reach, &str)| (*n, Standing::new(*reach, RAISED, why));
            Fact::Addressed(Box::new(Addressed {
                channel: "sms".into(),
                key: key.into(),
                orders: orders.to_vec(),
                recipients: recipients.iter().map(standing).collect(),
            }))
        };
        let facts = [
            heard("k1", &ids, &[(0, Reach::Accepted, "")]),
            heard("k2", &ids[1..], &[(1, Reach::LeftOut, "code 7")]),
            heard("k1", &ids, &[(0, Reach::Delivered, "")]),
        ];
        let outcomes: Vec<OrderOutcome> = ids.iter().map(outcome).collect();
        let transitions = [Arc::clone(&raised)];
        let turn =
            Turn { transitions: &transitions, orders: &orders, outcomes: &outcomes, facts: &facts, ..Turn::default() };
        store.commit(&turn).expect("there is room");
        assert_eq!(
            store.addressed("sms", "k2").expect("it can be read").map(|heard| heard.orders),
            Some(ids[1..].to_vec())
        );
        assert_eq!(store.addressed("sms", "k3"), Ok(None));
        drop(store);
        let reader = StateReader::open(dir.path()).expect("it is there");
        let sent = reader.messages(&[raised.alarm.id]).expect("it can be read");
        let standings: Vec<Vec<(u32, &str, &str)>> = sent
            .iter()
            .map(|sent| sent.recipients.iter().map(|(n, of)| (*n, of.reach.as_str(), of.why.as_str())).collect())
            .collect();
        assert_eq!(standings, [vec![(0, "delivered", "")], vec![(0, "delivered", ""), (1, "left_out", "code 7")]]);
        assert_eq!(sent.iter().map(reached).collect::<Vec<_>>(), ["delivered", "delivered"]);
    }
}
