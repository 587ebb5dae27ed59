//! Lives of the box that no dice would throw: a message that makes anmin panic again and again, a journal that stays away.

use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anmin::intake::{Ack, Delivery, Message};
use anmin::main_loop::query::{AlarmFilter, AlarmPage};
use anmin::main_loop::{Input, Query};
use anmin::store::suspects::Suspects;
use anmin_sensors::time::Wall;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::dice::Dice;
use crate::gateway::{Birth, DiskState, Life, Weather};
use crate::site::{self, RulePlan};

const POISON: &str = "prompt/poison";

/// A defect of ours, planted where anmin writes its log, so that no line of the product knows of it: whoever logs that the
/// message cannot be used panics, in the middle of the turn that holds it.
struct Defect;

impl Subscriber for Defect {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        struct Words(String);
        impl Visit for Words {
            fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
                self.0.push_str(&format!("{field}={value:?} "));
            }
        }
        let mut words = Words(String::new());
        event.record(&mut words);
        assert!(!words.0.contains(POISON) || words.0.contains("set aside"), "planted: {}", words.0);
    }

    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Packet identifier, topic, payload.
type Sent = (u16, &'static str, &'static str);

/// A broker's session: what has not been acknowledged comes again.
struct Session {
    open: Arc<Mutex<Vec<Sent>>>,
}

impl Session {
    fn new(messages: &[Sent]) -> Self {
        Self { open: Arc::new(Mutex::new(messages.to_vec())) }
    }

    fn deliver(&self, life: &Life, again: bool) -> Vec<Input> {
        let open = self.open.lock().expect("nobody panics with it").clone();
        let messages = open.into_iter().map(|(packet, topic, payload)| {
            let session = Arc::clone(&self.open);
            Message {
                topic: topic.into(),
                payload: payload.into(),
                retained: false,
                cut: false,
                received: life.now(),
                delivery: Some(Delivery::new(site::SOURCE, "anmin", packet, again)),
                ack: Some(Ack::new(move || {
                    session.lock().expect("nobody panics with it").retain(|(other, ..)| *other != packet);
                })),
            }
        });
        vec![Input::Messages { source: site::SOURCE.into(), messages: messages.collect() }]
    }

    fn waits(&self) -> Vec<&'static str> {
        self.open.lock().expect("nobody panics with it").iter().map(|(_, topic, _)| *topic).collect()
    }
}

fn life(dir: &Path, number: u64) -> Life {
    let wall = Wall::from_millis(1_800_000_000_000 + number as i64 * 1_000);
    let plans = RulePlan::both(&mut Dice::new(1, 1));
    let birth = Birth {
        number,
        t: 0,
        wall,
        seed: number,
        plans: &plans,
        points: site::points([("a", 0), ("b", 0)].into_iter()),
        disk: DiskState::default(),
        suspects: Suspects::open(dir, wall),
    };
    Life::begin(dir.to_owned(), birth)
}

#[test]
fn a_message_that_ends_every_run_is_given_up_and_those_beside_it_are_judged() {
    let dir = std::env::temp_dir().join(format!("anmin-poison-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("the folder for temporary files can be written");
    let session = Session::new(&[
        (1, "prompt/a", r#"{"v":60.0,"n":1}"#),
        (2, POISON, "rubbish"),
        (3, "prompt/b", r#"{"v":60.0,"n":1}"#),
    ]);
    let _planted = tracing::subscriber::set_default(Defect);
    let run = |number: u64| {
        let mut life = life(&dir, number);
        let mut inputs = session.deliver(&life, number > 1);
        let ended = catch_unwind(AssertUnwindSafe(|| life.turn(&mut inputs))).is_err();
        while life.write_readings() && !ended && !session.waits().is_empty() {}
        (ended, life)
    };

    let (ended, first) = run(1);
    assert!(ended, "the defect is planted");
    assert_eq!(session.waits(), ["prompt/a", POISON, "prompt/b"]);
    drop(first);

    // Each has a turn of its own, in order: what stands before the poison is judged.
    let (ended, second) = run(2);
    assert!(ended);
    drop(second);

    let (ended, mut third) = run(3);
    assert!(!ended, "the third run goes on");
    assert!(session.waits().is_empty(), "everything is acknowledged: {:?}", session.waits());
    let alarms = third.alarms().expect("the turn comes to its end");
    let mut about: Vec<_> = alarms.alarms.iter().map(|alarm| alarm.subject.as_str().to_owned()).collect();
    about.sort();
    assert_eq!(about, ["a/v", "b/v", "suspects"]);
    drop(third);

    // And it is still known when the box is started again.
    session.open.lock().expect("nobody panics with it").push((4, POISON, "rubbish"));
    assert!(!run(4).0);
    std::fs::remove_dir_all(&dir).expect("made above");
}

/// Decision 0010: the order goes out from memory at once, the acknowledgement waits for the journal, ten seconds at most.
#[test]
fn while_the_journal_is_away_an_alarm_goes_out_at_once_and_its_message_is_acknowledged_after_ten_seconds() {
    let dir = std::env::temp_dir().join(format!("anmin-ten-seconds-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("the folder for temporary files can be written");
    let session = Session::new(&[(1, "prompt/a", r#"{"v":60.0,"n":1}"#)]);
    let mut life = life(&dir, 1);
    life.disk.lock().expect("nobody panics with it").state = Weather::ReadOnly;
    let mut inputs = session.deliver(&life, false);
    assert!(life.turn(&mut inputs));
    assert!(life.let_out().iter().any(|order| order.ends_with("/all")), "the order does not wait for the disk");
    // A quiet message behind it has decided nothing, and waits for nothing.
    session.open.lock().expect("nobody panics with it").push((2, "prompt/b", r#"{"v":1.0,"n":1}"#));
    let mut quiet = session.deliver(&life, false);
    if let Some(Input::Messages { messages, .. }) = quiet.first_mut() {
        messages.remove(0);
    }
    for (after, waits) in [(0, &["prompt/a"][..]), (9, &["prompt/a"]), (10, &[])] {
        let elapsed = life.now().mono.nanos() / 1_000_000_000;
        life.clock.advance(Duration::from_secs(after - elapsed.min(after)));
        assert!(life.turn(&mut quiet) && life.write_readings());
        quiet.clear();
        assert_eq!(session.waits(), waits, "after {after} s");
    }
    std::fs::remove_dir_all(&dir).expect("made above");
}

/// What comes a third time is no longer known by its packet identifier. It decides nothing any more: what it decided the
/// second time is in no journal yet, and still waits.
#[test]
fn what_comes_once_more_is_acknowledged_no_sooner_than_what_it_decided_before() {
    let dir = std::env::temp_dir().join(format!("anmin-once-more-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("the folder for temporary files can be written");
    let session = Session::new(&[(1, "prompt/a", r#"{"v":60.0,"n":1}"#), (2, "prompt/a", r#"{"v":61.0,"n":2}"#)]);
    let mut life = life(&dir, 1);
    life.disk.lock().expect("nobody panics with it").state = Weather::ReadOnly;
    for (at, waits) in [(0, 2), (3, 2), (6, 2), (10, 0)] {
        let elapsed = life.now().mono.nanos() / 1_000_000_000;
        life.clock.advance(Duration::from_secs(at - elapsed.min(at)));
        // The line is cut again and again: the broker brings again what it has no acknowledgement of.
        let mut again = if at < 10 { session.deliver(&life, true) } else { Vec::new() };
        assert!(life.turn(&mut again) && life.write_readings());
        assert_eq!(session.waits().len(), waits, "after {at} s");
    }
    std::fs::remove_dir_all(&dir).expect("made above");
}

/// Whoever asks before the reading came, in the same turn, is answered when the turn is in the journal: what an answer shows outlives
/// a power cut in the next moment.
#[test]
fn an_answer_is_as_of_the_end_of_its_turn_and_not_of_its_middle() {
    let dir = std::env::temp_dir().join(format!("anmin-answer-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("the folder for temporary files can be written");
    let session = Session::new(&[(1, "prompt/a", r#"{"v":60.0,"n":1}"#)]);
    let mut life = life(&dir, 1);
    let (reply, mut answer) = tokio::sync::oneshot::channel();
    let page = AlarmPage { after: None, limit: 10 };
    let mut inputs = vec![Input::Query(Query::Alarms { filter: AlarmFilter::default(), page, reply })];
    inputs.append(&mut session.deliver(&life, false));
    assert!(life.turn(&mut inputs));
    let list = answer.try_recv().expect("the turn is over");
    let about: Vec<&str> = list.alarms.iter().map(|alarm| alarm.subject.as_str()).collect();
    assert_eq!(about, ["a/v"]);
    std::fs::remove_dir_all(&dir).expect("made above");
}
