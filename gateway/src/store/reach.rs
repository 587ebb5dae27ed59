//! What became of a message: taken, there, answered. Nothing here guesses: that somebody has read it no receiver tells.

use std::collections::BTreeMap;

use anmin_rules::alarm::{AlarmId, Cause};
use anmin_rules::order::{CallCause, CallState, OrderBody};
use anmin_sensors::time::Wall;

use super::state::{Entry, Journaled, Sent};

/// How the receipt ends of a receiver that has named what it took.
pub const NAMED: &str = ", names it";

/// How far a message has come. That a receiver has taken a request says nothing of people, nor of where it goes from there;
/// only one that names the message, a file, and a relay that shows it prove that it is there.
pub fn reached(sent: &Sent) -> &'static str {
    let is_there = || match &sent.body {
        Some(OrderBody::Cap(_)) => [NAMED, ".xml", ".tar"].iter().any(|end| sent.detail.ends_with(end)),
        Some(OrderBody::Siren(_)) => sent.detail.ends_with("read back"),
        _ => false,
    };
    match sent.state {
        "delivered" if !is_there() => "accepted",
        state => state,
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
                body: Some(body.clone()),
            };
            assert_eq!(reached(&sent), reach, "{state} {detail}");
            assert_eq!(answers.to(&sent).map(|(by, _)| by.as_str()), answered, "{state} {detail} {taken:?}");
        }
    }
}
