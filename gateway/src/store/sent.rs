//! What people were told, as it left, in the table of [`super::registers`]: each text once, under its hash, and which of them an
//! order became. Of many orders that went together in one message each names the same text. A file that is made anew out of a
//! damaged one goes without: a start must not wait for what only a package shows.

use anmin_rules::order::OrderId;
use rusqlite::{Connection, OptionalExtension as _};

use super::audit::hex;
use super::registers;
use super::state::sha256;

pub(super) const TEXT: &str = "text";
pub(super) const SENT: &str = "sent";

pub(super) fn write(tx: &Connection, order: &OrderId, text: &str) -> rusqlite::Result<()> {
    let hash = hex(&sha256(&[text.as_bytes()])[..16]);
    if registers::record(tx, TEXT, &hash).optional()?.is_none() {
        registers::put(tx, TEXT, &hash, text)?;
    }
    registers::put(tx, SENT, order.as_str(), &hash)
}

/// `None` too where the record is damaged.
pub(super) fn read(conn: &Connection, order: &str) -> rusqlite::Result<Option<String>> {
    let Some(hash) = registers::record(conn, SENT, order).optional()?.flatten() else { return Ok(None) };
    Ok(registers::record(conn, TEXT, &hash).optional()?.flatten())
}

#[cfg(test)]
mod tests {
    use super::super::state::{StateReader, StateStore, Turn};
    use super::super::tests::TestDir;
    use super::super::{Fact, OrderOutcome};
    use super::*;
    use crate::delivery::{Outcome, Receipt};
    use crate::samples::{RAISED, alarm, cap_orders, transition};
    use anmin_rules::alarm::{AlarmState, Cause};
    use anmin_rules::order::{Order, OrderBody};
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn what_left_is_read_back_word_for_word_and_each_text_is_kept_once() {
        let dir = TestDir::new("sent");
        let (mut store, _) = StateStore::open(dir.path(), RAISED).expect("an empty folder");
        let raised = transition(AlarmState::Normal, Cause::Raised, alarm());
        let order = |n: u32, body| Order {
            id: OrderId::new(format!("{}/{n}/group", raised.alarm.id)),
            channel: "group".into(),
            body,
        };
        let orders = [
            order(1, OrderBody::Event(Arc::clone(&raised))),
            order(2, OrderBody::Event(Arc::clone(&raised))),
            order(3, OrderBody::Cap(Arc::new(cap_orders()[0].1.clone()))),
            order(4, OrderBody::Event(Arc::clone(&raised))),
        ];
        let taken = |text: Option<&str>| {
            let receipt = Receipt::of("HTTP 200");
            Outcome::Delivered(text.map_or(receipt.clone(), |text| receipt.with_text(text)))
        };
        let outcomes = [
            taken(Some("两条报警 two alarms")),
            taken(Some("两条报警 two alarms")),
            taken(Some("<alert/>")),
            Outcome::Dead("HTTP 400".to_owned()),
        ];
        let ended = orders.iter().zip(outcomes).map(|(order, outcome)| OrderOutcome {
            order: order.id.clone(),
            outcome,
            at: RAISED,
        });
        let ended: Vec<OrderOutcome> = ended.collect();
        let transitions = [Arc::clone(&raised)];
        store
            .commit(&Turn { transitions: &transitions, orders: &orders, outcomes: &ended, ..Turn::default() })
            .expect("there is room");
        drop(store);
        let reader = StateReader::open(dir.path()).expect("it is there");
        let texts = || {
            let sent = reader.messages(&[raised.alarm.id]).expect("it can be read");
            let mut sent: Vec<_> = sent.into_iter().map(|sent| (sent.id.to_string(), sent.text)).collect();
            sent.sort();
            sent.into_iter().map(|(_, text)| text).collect::<Vec<_>>()
        };
        let both = Some("两条报警 two alarms".to_owned());
        assert_eq!(texts(), [both.clone(), both, Some("<alert/>".to_owned()), None]);
        let conn = Connection::open(dir.path().join(super::super::state::FILE)).expect("it is there");
        let kept: i64 = conn.query_row("SELECT count(*) FROM kept WHERE kind = 'text'", [], |row| row.get(0)).unwrap();
        assert_eq!(kept, 2, "the message of two orders is kept once");
        conn.execute("UPDATE kept SET cells = '<other/>' WHERE cells = '<alert/>'", []).expect("it can be written");
        assert_eq!(texts()[2], None, "what is not as it was written is not shown");
    }

    #[test]
    fn configurations_are_those_in_force_then_and_a_start_without_change_is_none() {
        let dir = TestDir::new("configurations");
        let (mut store, _) = StateStore::open(dir.path(), RAISED).expect("an empty folder");
        let at = |minutes: u64| RAISED.plus(Duration::from_secs(60 * minutes));
        for (minutes, sha256) in [(1, "a"), (2, "b"), (3, "b"), (5, "c"), (9, "a")] {
            let facts = [Fact::Configuration(at(minutes), sha256.into())];
            store.commit(&Turn { facts: &facts, ..Turn::default() }).expect("there is room");
        }
        drop(store);
        let reader = StateReader::open(dir.path()).expect("it is there");
        for (from, to, expected) in [
            (4, 8, &[(3, "b"), (5, "c")][..]),
            (2, 4, &[(2, "b")]),
            (0, 0, &[]),
            (0, 1, &[(1, "a")]),
            (9, 20, &[(9, "a")]),
        ] {
            let found = reader.configurations(at(from), at(to)).expect("it can be read");
            let expected: Vec<_> = expected.iter().map(|(minutes, of)| (at(*minutes), (*of).to_owned())).collect();
            assert_eq!(found, expected, "from {from} to {to}");
        }
    }
}
