use anmin_rules::alarm::{AlarmState, By, Condition};
use anmin_sensors::document::{Document, Faults};

use super::*;
use crate::samples::{self, RAISED};

const GOOD: &str = "id = 'city'\nurl = 'tcp://10.20.0.5:7799'\nsource = '889'\ncentre = '1'\n";

fn settings(text: &str) -> Result<Settings, Vec<String>> {
    let faults = Faults::default();
    let document = Document::parse("t.toml", text, &faults).expect("the test writes TOML");
    let found = Settings::read(&document.root(&faults));
    let faults = faults.take();
    match found {
        Some(settings) if faults.is_empty() => Ok(settings),
        _ => Err(faults.iter().map(|fault| fault.message.clone()).collect()),
    }
}

#[test]
fn settings_tell_all_faults() {
    let found = settings("id = 'ci ty'\nurl = 'city:7799'\nsource = 'x'\nkeep_alive = '1s'\nmin_level = 'red'\n");
    assert_eq!(
        found.expect_err("six faults"),
        [
            "`centre` is missing",
            "`id` is \"ci ty\", expected 1 to 64 letters, digits, `-`, `_` or `.`",
            "`url` is \"city:7799\", which is no address of a monitoring centre",
            "`source` is \"x\", which is no address of a device or centre",
            "`keep_alive` must be 5s to 1h",
            "`min_level` is not a known key",
        ]
    );
    for (url, wanted) in [
        ("tcp://10.20.0.5:7799", Some(("10.20.0.5", 7_799))),
        ("tcp://city.example.cn:9000", Some(("city.example.cn", 9_000))),
        ("tcp://[fd00::5]:7799", Some(("fd00::5", 7_799))),
        ("tcp://fd00::5:7799", None),
        ("tcp://city", None),
        ("tcp://:7799", None),
        ("tcp://city:0", None),
        ("tcp://city/x:1", None),
        ("http://city:7799", None),
    ] {
        let found = address(url);
        assert_eq!(found.as_ref().map(|(host, port)| (host.as_str(), *port)), wanted, "{url}");
    }
}

/// A carrier whose main loop is this test.
fn desk() -> (Gbt26875Out, mpsc::Receiver<Input>, Clock) {
    let (inputs, heard) = mpsc::channel(16);
    let clock = Clock::manual(RAISED);
    let settings = settings(GOOD).expect("settings");
    (carrier(&settings, &samples::site(), Path::new("/nowhere"), &clock, &inputs), heard, clock)
}

fn wish(serial: u16, command: u8, unit: &[u8]) -> Frame {
    let address = |text| Address::parse(text).expect("an address");
    let (source, destination) = (address("1"), address("889"));
    Frame { serial, version: [1, 1], time: [0; 6], source, destination, command, unit: unit.to_vec() }
}

/// What the main loop was told: the part, and whether it is in trouble.
fn told(heard: &mut mpsc::Receiver<Input>) -> Vec<(String, bool)> {
    let mut told = Vec::new();
    while let Ok(input) = heard.try_recv() {
        match input {
            Input::Part(state) => told.push((state.part.to_string(), state.trouble.is_some())),
            other => panic!("{other:?}"),
        }
    }
    told
}

async fn command_of(answer: impl Future<Output = Option<Frame>>) -> Option<u8> {
    answer.await.map(|frame| frame.command)
}

#[tokio::test]
async fn a_duty_check_waits_for_a_person_as_long_as_it_says() {
    let (out, mut heard, clock) = desk();
    let check = |serial, minutes| wish(serial, CONTROL, &[unit::DUTY_CHECK, 1, minutes]);
    let (well, asked) = (("duty-check:city".to_owned(), false), ("duty-check:city".to_owned(), true));
    let answer = out.inner.handle(&check(7, 10)).await.expect("an answer");
    assert_eq!((answer.command, answer.serial, answer.unit), (CONFIRM, 7, vec![]));
    assert_eq!(told(&mut heard), [well.clone(), asked.clone()]);
    // Its confirm was lost: the same frame is the same question.
    assert_eq!(command_of(out.inner.handle(&check(7, 10))).await, Some(CONFIRM));
    assert_eq!(told(&mut heard), []);
    clock.advance(Duration::from_secs(599));
    out.inner.look().await;
    assert_eq!(told(&mut heard), []);
    // Another is another question, with a time of its own.
    assert_eq!(command_of(out.inner.handle(&check(8, 1))).await, Some(CONFIRM));
    assert_eq!(told(&mut heard), [well.clone(), asked]);
    clock.advance(Duration::from_secs(59));
    out.inner.look().await;
    assert_eq!(told(&mut heard), []);
    clock.advance(Duration::from_secs(1));
    out.inner.look().await;
    out.inner.look().await;
    assert_eq!(told(&mut heard), [well], "nobody has answered, and nothing was sent");
}

fn of_check(cause: Cause, condition: Condition) -> Transition {
    let mut alarm = samples::alarm();
    alarm.subject = Subject::Part("duty-check:city".into());
    alarm.class = anmin_rules::alarm::Class::System;
    alarm.condition = condition;
    alarm.acknowledged = Some(By { who: "li".to_owned(), at: RAISED });
    Arc::unwrap_or_clone(samples::transition(AlarmState::Unacknowledged, cause, alarm))
}

#[test]
fn only_what_a_person_says_in_time_answers_a_duty_check() {
    let (out, ..) = desk();
    let by_li = || Cause::Acknowledged { by: "li".to_owned() };
    let says = out.inner.says_of_check(&of_check(by_li(), Condition::Active));
    let (unit, needed) = &says.units[0];
    assert_eq!((says.units.len(), *needed, says.ends_check), (1, true, true));
    // Type 24, bit 5, at the time of the acknowledgement: nobody's name.
    assert_eq!(unit[..4], [24, 1, 0x20, 0]);
    assert_eq!(unit.len(), 10);
    for (cause, condition) in [
        (by_li(), Condition::Normal),
        (Cause::Raised, Condition::Active),
        (Cause::Escalated { step: 1, by: None, why: String::new() }, Condition::Active),
        (Cause::Returned, Condition::Normal),
        (Cause::Shelved { by: "li".to_owned() }, Condition::Active),
    ] {
        let says = out.inner.says_of_check(&of_check(cause.clone(), condition));
        assert!(says.units.is_empty() && !says.ends_check, "{cause:?}");
    }
    let mut other = of_check(by_li(), Condition::Active);
    let mut alarm = (*other.alarm).clone();
    alarm.subject = Subject::Part("duty-check:county".into());
    other.alarm = Arc::new(alarm);
    assert!(out.inner.says_of_check(&other).units.is_empty());
}

#[tokio::test]
async fn a_drill_is_never_told_even_where_an_order_asks_for_it() {
    let (out, ..) = desk();
    let mut alarm = samples::alarm();
    alarm.drill = Some(anmin_rules::drill::DrillId(alarm.id.0));
    let drilled = samples::transition(AlarmState::Normal, Cause::Raised, alarm);
    assert!(matches!(out.inner.says(&drilled).await, Err(DeliveryError::Never(_))));
    let channel = &out.inner.settings.channel;
    assert!(!channel.drills && channel.system && channel.min_level == Level::Blue);
}

#[tokio::test]
async fn the_clock_of_the_centre_is_compared_and_never_taken() {
    let (out, mut heard, clock) = desk();
    let set = |tag: TimeTag| wish(1, CONTROL, &[&[unit::SET_TIME, 1][..], &tag].concat());
    let part = |ill| ("centre-clock:city".to_owned(), ill);
    for (tag, command, wanted) in [
        ([59, 30, 9, 1, 3, 26], CONFIRM, vec![]),
        ([0, 35, 9, 1, 3, 26], DENY, vec![part(true)]),
        ([0, 25, 9, 1, 3, 26], DENY, vec![]),
        ([0, 30, 9, 0, 3, 26], DENY, vec![]),
        ([0, 30, 9, 1, 3, 26], CONFIRM, vec![part(false)]),
    ] {
        let before = clock.now();
        assert_eq!(command_of(out.inner.handle(&set(tag))).await, Some(command), "{tag:?}");
        assert_eq!(told(&mut heard), wanted, "{tag:?}");
        assert_eq!(clock.now(), before);
    }
}

/// Whatever a centre says that is not for us, not in the standard, or nobody's to do from afar.
#[tokio::test]
async fn what_is_no_wish_of_the_standard_is_denied() {
    let (out, mut heard, _) = desk();
    let mut elsewhere = wish(1, REQUEST, &[81, 1, 0]);
    elsewhere.destination = Address::default();
    for (frame, wanted) in [
        (wish(1, CONTROL, &[unit::INITIALISE, 1, 0]), Some(DENY)),
        (wish(1, CONTROL, &[]), Some(DENY)),
        (wish(1, CONTROL, &[unit::DUTY_CHECK]), Some(DENY)),
        (wish(1, CONTROL, &[unit::SET_TIME, 1, 0]), Some(DENY)),
        (wish(1, REQUEST, &[70, 1, 0]), Some(DENY)),
        (wish(1, REQUEST, &[64, 1, 1, 1, 9]), Some(DENY)),
        (wish(1, SEND, &[1, 1, 0]), Some(DENY)),
        (wish(1, SEND, &[]), Some(CONFIRM)),
        (wish(1, 7, &[]), Some(DENY)),
        (wish(1, RESPONSE, &[1, 1, 0]), None),
        (elsewhere, Some(DENY)),
        (wish(1, REQUEST, &[85, 1, 0]), Some(RESPONSE)),
        (wish(1, REQUEST, &[88, 1, 0]), Some(RESPONSE)),
    ] {
        assert_eq!(command_of(out.inner.handle(&frame)).await, wanted, "{frame:?}");
    }
    assert_eq!(told(&mut heard), []);
}
