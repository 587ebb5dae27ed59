//! The connection to a monitoring centre: frames out, each with a serial number, and what the centre says to them.
//!
//! What it promises: a frame that is sent again has the serial number that it had, over connections too, so that a centre that
//! remembers serial numbers knows it; and an answer belongs to the frame whose number it has. It does not know what is in them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anmin_rules::order::OrderId;
use anmin_sensors::decode::gbt26875::{Address, Frame, SEND, TimeTag};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::timeout;

use crate::delivery::DeliveryError;

/// After so many frames without an answer the connection is given up (6.5).
const UNANSWERED_MOST: u32 = 3;
/// Frames that wait to be written.
const WAITING_MOST: usize = 64;

/// One frame of one order: what keeps its serial number.
type Key = (OrderId, usize);

/// What the centre said to a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    Confirmed,
    Denied,
}

pub struct Link {
    /// `city.example.cn:7799`, for people.
    peer: String,
    source: Address,
    centre: Address,
    /// How long a frame waits for its answer.
    limit: Duration,
    state: Mutex<State>,
    /// Woken when the connection is to be given up.
    pub given_up: Notify,
}

#[derive(Default)]
struct State {
    out: Option<mpsc::Sender<Vec<u8>>>,
    /// Why there is none.
    down: String,
    serial: u16,
    waiting: HashMap<u16, oneshot::Sender<Said>>,
    kept: HashMap<Key, u16>,
    /// Frames in a row that found no answer.
    unanswered: u32,
}

/// A frame on its way, and the answer that is to come. Forgotten when it is dropped.
pub struct Asked {
    link: Arc<Link>,
    serial: u16,
    key: Option<Key>,
    answer: oneshot::Receiver<Said>,
}

impl Link {
    pub fn new(peer: String, source: Address, centre: Address, limit: Duration) -> Self {
        let state = State { down: "not connected yet".to_owned(), ..State::default() };
        Self { peer, source, centre, limit, state: Mutex::new(state), given_up: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_up(&self) -> bool {
        self.state().out.is_some()
    }

    /// A connection is there: what is to be written comes out here.
    pub fn up(&self) -> mpsc::Receiver<Vec<u8>> {
        let (out, written) = mpsc::channel(WAITING_MOST);
        let mut state = self.state();
        state.out = Some(out);
        state.unanswered = 0;
        written
    }

    /// It is gone. What waits for an answer gets none.
    pub fn down(&self, why: &str) {
        let mut state = self.state();
        state.out = None;
        state.down = why.to_owned();
        state.waiting.clear();
    }

    /// Hands in a frame; those handed in one after the other go in this order.
    pub fn ask(self: &Arc<Self>, unit: Vec<u8>, time: TimeTag, key: Option<Key>) -> Result<Asked, DeliveryError> {
        let mut state = self.state();
        let Some(out) = state.out.clone() else {
            return Err(DeliveryError::Retry(format!("{}: {}", self.peer, state.down)));
        };
        let held = key.as_ref().and_then(|key| state.kept.get(key).copied());
        let serial = held.unwrap_or_else(|| state.next_serial());
        let frame =
            Frame { serial, version: [1, 1], time, source: self.source, destination: self.centre, command: SEND, unit };
        let (said, answer) = oneshot::channel();
        // Bounded: a peer that takes nothing gives the order back instead.
        if out.try_send(frame.write()).is_err() {
            return Err(DeliveryError::Retry(format!("{}: takes no more frames at the moment", self.peer)));
        }
        state.waiting.insert(serial, said);
        if let Some(key) = &key {
            state.kept.insert(key.clone(), serial);
        }
        drop(state);
        Ok(Asked { link: Arc::clone(self), serial, key, answer })
    }

    /// What the centre says to the frame of this number.
    pub fn handle_answer(&self, serial: u16, said: Said) {
        let mut state = self.state();
        state.unanswered = 0;
        if let Some(waiter) = state.waiting.remove(&serial) {
            // Whoever asked may have stopped waiting.
            let _ = waiter.send(said);
        }
    }
}

impl State {
    /// Counts on, past those that are still somebody's.
    fn next_serial(&mut self) -> u16 {
        let kept: HashSet<u16> = self.kept.values().chain(self.waiting.keys()).copied().collect();
        let free = (0..=u16::MAX).map(|n| self.serial.wrapping_add(n)).find(|serial| !kept.contains(serial));
        let serial = free.unwrap_or(self.serial);
        self.serial = serial.wrapping_add(1);
        serial
    }
}

impl Asked {
    /// Waits as long as the standard says. With `counts` no answer is one of the three that end the connection.
    pub async fn answer(mut self, counts: bool) -> Result<Said, DeliveryError> {
        let peer = &self.link.peer;
        let limit = self.link.limit;
        match timeout(limit, &mut self.answer).await {
            Ok(Ok(said)) => {
                if let Some(key) = &self.key {
                    self.link.state().kept.remove(key);
                }
                Ok(said)
            }
            Ok(Err(_)) => Err(DeliveryError::Retry(format!("{peer}: the connection broke before its answer"))),
            Err(_) => {
                let mut state = self.link.state();
                state.unanswered += u32::from(counts);
                if state.unanswered >= UNANSWERED_MOST {
                    state.unanswered = 0;
                    self.link.given_up.notify_one();
                }
                Err(DeliveryError::Retry(format!("{peer}: no answer within {limit:?}")))
            }
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.link.state().waiting.remove(&self.serial);
    }
}

#[cfg(test)]
mod tests {
    use anmin_sensors::decode::gbt26875::{Next, next};

    use super::*;

    const AT: TimeTag = [0, 30, 9, 1, 3, 26];

    fn link() -> Arc<Link> {
        let address = |text| Address::parse(text).expect("an address");
        Arc::new(Link::new("city:7799".to_owned(), address("889"), address("1"), Duration::ZERO))
    }

    fn serial(written: &mut mpsc::Receiver<Vec<u8>>) -> u16 {
        let bytes = written.try_recv().expect("a frame");
        match next(&bytes) {
            Next::Frame(frame, _) => frame.serial,
            other => panic!("{other:?}"),
        }
    }

    fn key(n: usize) -> Option<Key> {
        Some((OrderId::new("a/1/city"), n))
    }

    #[tokio::test]
    async fn a_frame_that_is_sent_again_has_its_number_until_it_is_answered() {
        let link = link();
        assert!(
            matches!(link.ask(vec![], AT, key(0)), Err(DeliveryError::Retry(why)) if why.contains("not connected"))
        );
        let mut written = link.up();
        let first = link.ask(vec![1], AT, key(0)).expect("handed in");
        assert_eq!(serial(&mut written), 0);
        let _beat = link.ask(vec![], AT, None).expect("handed in");
        assert_eq!(serial(&mut written), 1);
        link.down("closed");
        assert!(matches!(first.answer(true).await, Err(DeliveryError::Retry(why)) if why.contains("broke")));
        let mut written = link.up();
        let again = link.ask(vec![1], AT, key(0)).expect("handed in");
        assert_eq!(serial(&mut written), 0, "over connections too");
        link.handle_answer(7, Said::Confirmed);
        link.handle_answer(0, Said::Confirmed);
        assert_eq!(again.answer(true).await, Ok(Said::Confirmed));
        let _next = link.ask(vec![1], AT, key(0)).expect("handed in");
        assert_eq!(serial(&mut written), 2);
    }

    #[tokio::test]
    async fn a_number_that_still_waits_is_given_to_no_other() {
        let link = link();
        let mut written = link.up();
        let _waits = link.ask(vec![1], AT, key(0)).expect("handed in");
        serial(&mut written);
        link.state().serial = u16::MAX;
        for wanted in [u16::MAX, 1] {
            drop(link.ask(vec![], AT, None).expect("handed in"));
            assert_eq!(serial(&mut written), wanted);
        }
    }

    #[tokio::test]
    async fn three_frames_without_an_answer_end_the_connection_and_one_with_it_does_not() {
        let link = link();
        let _written = link.up();
        let silent = |counts| {
            let asked = link.ask(vec![1], AT, None).expect("handed in");
            async move { asked.answer(counts).await.expect_err("nobody answers") }
        };
        for _ in 0..2 {
            silent(true).await;
        }
        link.handle_answer(0, Said::Denied);
        for _ in 0..2 {
            silent(true).await;
        }
        silent(false).await;
        let woken = timeout(Duration::ZERO, link.given_up.notified()).await;
        assert!(woken.is_err(), "two in a row, and one that need not be answered");
        silent(true).await;
        timeout(Duration::from_secs(5), link.given_up.notified()).await.expect("given up");
    }
}
