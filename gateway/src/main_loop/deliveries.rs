//! Which messages were judged before. A broker delivers again what it has no acknowledgement of, also after a crash of
//! ours, and a message without time and count does not tell by itself that it is old.
//!
//! MQTT marks what is delivered again (DUP) and gives it the packet identifier that it had. A marked message with the
//! identifier, topic and payload of one that was judged is a repeat: it is acknowledged and decides nothing. The last
//! [`MOST`] messages are known; over a crash those are that were judged, or were lately judged, when alarms were
//! written down, in the same commit. What was judged without consequence may be judged again after a crash.
//!
//! In doubt a message is judged: one alarm too many is better than one too few. So it is where its topic has since
//! said something that was itself delivered again and not known, since then the order in which things were judged
//! has been lost; and where it is much older than the last word of its topic, since a broker may use an identifier
//! again, and the first attempt to deliver a new message may have failed.

use std::collections::VecDeque;
use std::time::Duration;

use anmin_sensors::time::Mono;

use crate::intake::Message;
use crate::store::facts::Mark;

/// Messages that are known, 16 bytes each: more than brokers have in flight.
pub const MOST: usize = 16_384;
/// Between a message and the last word of its topic, if it is to be a repeat. Also for so long a message can be without
/// its acknowledgement, as far as the journal is concerned.
const LATELY: Duration = Duration::from_secs(10);

/// A message that was judged.
#[derive(Clone, Copy, Debug)]
struct Judged {
    what: u64,
    topic: u32,
    /// Second of the monotonic clock, or [`BEFORE`], or [`AGAIN`].
    at: u32,
}

impl Judged {
    fn new(Mark { what, topic }: Mark, at: u32) -> Self {
        Self { what, topic, at }
    }

    fn mark(self) -> Mark {
        Mark { what: self.what, topic: self.topic }
    }
}

/// In the last run. What was not in the database of readings by its end must go there now.
const BEFORE: u32 = 0;
/// Was marked as delivered again, and not known.
const AGAIN: u32 = u32::MAX;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// To be judged.
    New,
    /// Judged in this run: its readings are on their way to the disk, if not there.
    Repeat,
    /// Judged in the last run: it is to be stored, since that may not have happened, and not to be judged.
    InLastRun,
}

/// What was judged lately, the oldest first.
#[derive(Debug, Default)]
pub struct Deliveries {
    judged: VecDeque<Judged>,
    /// How many of the newest are not written down.
    unwritten: usize,
    repeats: u64,
}

impl Deliveries {
    /// `marks` are what the last run wrote down, the oldest first.
    pub fn restore(&mut self, marks: Vec<Mark>) {
        self.judged = marks.into_iter().map(|mark| Judged::new(mark, BEFORE)).collect();
        self.make_room();
    }

    /// Repeats since the start.
    pub fn repeats(&self) -> u64 {
        self.repeats
    }

    /// What a message is. A new one is known from now on.
    pub fn handle(&mut self, now: Mono, message: &Message) -> Heard {
        let Some(delivery) = message.delivery else { return Heard::New };
        let topic = hash(0, message.topic.as_bytes());
        let what = hash(topic ^ delivery.key, &message.payload);
        let mark = Mark { what, topic: topic as u32 };
        if let Some(known) = delivery.again.then(|| self.find(mark)).flatten() {
            self.repeats += 1;
            let at = &mut self.judged[known].at;
            if *at != BEFORE {
                return Heard::Repeat;
            }
            *at = second(now);
            return Heard::InLastRun;
        }
        self.judged.push_back(Judged::new(mark, if delivery.again { AGAIN } else { second(now) }));
        self.unwritten += 1;
        self.make_room();
        Heard::New
    }

    fn find(&self, mark: Mark) -> Option<usize> {
        let mut of_topic = self.judged.iter().enumerate().rev().filter(|(_, judged)| judged.topic == mark.topic);
        let (newest, last) = of_topic.next()?;
        if last.what == mark.what {
            return Some(newest);
        }
        let lately = |judged: &Judged| {
            let before = Duration::from_secs(last.at.saturating_sub(judged.at).into());
            last.at != AGAIN && judged.at != AGAIN && before <= LATELY
        };
        of_topic.take_while(|(_, judged)| lately(judged)).find(|(_, judged)| judged.what == mark.what).map(|(at, _)| at)
    }

    fn make_room(&mut self) {
        while self.judged.len() > MOST {
            self.judged.pop_front();
        }
        self.unwritten = self.unwritten.min(self.judged.len());
    }

    /// What a turn with alarms must write down beside them: what was judged since the last such turn and may lack its
    /// acknowledgement.
    pub fn take_marks(&mut self, now: Mono) -> Vec<Mark> {
        let since = second(now).saturating_sub(second(Mono::default().plus(LATELY)));
        let new = self.judged.len() - self.unwritten;
        self.unwritten = 0;
        self.judged.range(new..).filter(|judged| judged.at >= since).map(|judged| judged.mark()).collect()
    }
}

fn second(now: Mono) -> u32 {
    u32::try_from(now.nanos() / 1_000_000_000).unwrap_or(AGAIN).clamp(BEFORE + 1, AGAIN - 1)
}

/// The same in every run, since it is written down. Tells accidents apart, not malice: whoever may publish can say
/// anything anyway.
fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let mix = |hash: u64, word: u64| {
        let mixed = (hash ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        mixed ^ (mixed >> 29)
    };
    let (words, rest) = bytes.as_chunks::<8>();
    let hash = words.iter().fold(mix(seed, bytes.len() as u64), |hash, word| mix(hash, u64::from_le_bytes(*word)));
    mix(rest.iter().fold(hash, |hash, byte| mix(hash, u64::from(*byte))), seed)
}

#[cfg(test)]
mod tests {
    use anmin_sensors::time::Now;

    use super::*;
    use crate::intake::Delivery;

    fn message(topic: &str, payload: &str, id: u16, again: bool) -> Message {
        Message {
            topic: topic.into(),
            payload: payload.to_owned().into(),
            retained: false,
            cut: false,
            received: Now::default(),
            delivery: Some(Delivery::new("site", "anmin", id, again)),
            ack: None,
        }
    }

    fn at(seconds: u64) -> Mono {
        Mono::default().plus(Duration::from_secs(seconds))
    }

    /// Second, topic, payload, packet identifier, whether it is delivered again, and what it is.
    type Line<'l> = (u64, &'l str, &'l str, u16, bool, Heard);

    fn play(deliveries: &mut Deliveries, story: &[Line<'_>]) {
        for (n, (second, topic, payload, id, again, wanted)) in story.iter().enumerate() {
            let message = message(topic, payload, *id, *again);
            assert_eq!(deliveries.handle(at(*second), &message), *wanted, "line {n}, at {second} s");
        }
    }

    #[test]
    fn what_is_delivered_again_is_known_and_what_only_looks_so_is_judged() {
        play(
            &mut Deliveries::default(),
            &[
                (1, "gas", "1", 1, false, Heard::New),
                (1, "gas", "0", 2, false, Heard::New),
                (1, "smoke", "1", 3, false, Heard::New),
                // A reconnection, and another long after it.
                (2, "gas", "1", 1, true, Heard::Repeat),
                (2, "gas", "0", 2, true, Heard::Repeat),
                (900, "smoke", "1", 3, true, Heard::Repeat),
                // New messages: not marked, another identifier, another payload, another topic.
                (901, "gas", "1", 1, false, Heard::New),
                (902, "gas", "1", 9, true, Heard::New),
                (903, "smoke", "2", 3, true, Heard::New),
                (904, "heat", "1", 3, true, Heard::New),
            ],
        );
    }

    #[test]
    fn in_doubt_a_message_is_judged() {
        // The identifier is used again, and the first attempt to deliver the new message failed.
        play(
            &mut Deliveries::default(),
            &[
                (1, "fire", "1", 1, false, Heard::New),
                (30, "fire", "0", 2, false, Heard::New),
                (60, "fire", "1", 1, true, Heard::New),
            ],
        );
        // A message before it was not known, so this one must be judged after it.
        play(
            &mut Deliveries::default(),
            &[
                (1, "fire", "1", 2, false, Heard::New),
                (2, "fire", "0", 1, true, Heard::New),
                (2, "fire", "1", 2, true, Heard::New),
                (3, "fire", "1", 2, true, Heard::Repeat),
            ],
        );
    }

    #[test]
    fn what_was_written_down_is_known_in_the_next_run() {
        let mut before = Deliveries::default();
        play(&mut before, &[(1, "gas", "5", 1, false, Heard::New), (50, "gas", "0", 2, false, Heard::New)]);
        play(&mut before, &[(51, "gas", "60", 3, false, Heard::New)]);
        let marks = before.take_marks(at(52));
        assert_eq!(marks.len(), 2, "the first is long acknowledged");
        assert_eq!(before.take_marks(at(53)), []);
        let mut after = Deliveries::default();
        after.restore(marks);
        let redelivered =
            |what| [(8, "gas", "0", 2, true, what), (8, "gas", "60", 3, true, what)] as [Line<'static>; 2];
        play(&mut after, &redelivered(Heard::InLastRun));
        play(&mut after, &redelivered(Heard::Repeat));
        play(&mut after, &[(9, "gas", "5", 1, true, Heard::New)]);
        assert_eq!(after.repeats(), 4);
    }

    #[test]
    fn what_is_known_is_bounded() {
        let mut deliveries = Deliveries::default();
        for n in 0..3 * MOST {
            deliveries.handle(at(1), &message("gas", &n.to_string(), n as u16, false));
        }
        assert_eq!((deliveries.judged.len(), size_of::<Judged>()), (MOST, 16));
        assert_eq!(deliveries.take_marks(at(1)).len(), MOST);
    }
}
