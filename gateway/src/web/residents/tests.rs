use std::net::{Ipv4Addr, Ipv6Addr};

use anmin_rules::broadcast::Broadcast;
use anmin_rules::drill::DrillId;
use anmin_rules::order::{OrderId, Voice};
use anmin_sensors::document::{Document, Faults};

use super::*;
use crate::samples;

fn known() -> Known {
    let shelter = |id: &str, name: &str, state: &str, building: &str, grid: &str| {
        let cells =
            [("id", id), ("name", name), ("state", state), ("building", building), ("grid", grid), ("capacity", "9")];
        let cells = cells.into_iter().map(|(name, cell)| (name.to_owned(), cell.to_owned())).collect();
        Row::read(Kind::Shelters, &cells).expect("it is sound")
    };
    let grids = |grids: &[&str]| grids.iter().map(|grid| (*grid).to_owned()).collect();
    Known {
        notices: Vec::new(),
        over: Vec::new(),
        alarms: BTreeSet::new(),
        lapsed: Vec::new(),
        shelters: vec![
            shelter("1", "a far one", "open", "", "W09"),
            shelter("2", "the school", "open", "4", ""),
            shelter("3", "the cellar", "full", "3", "W01"),
            shelter("4", "the hall", "open", "3", "W01"),
        ],
        buildings: BTreeMap::from([
            ("3".to_owned(), grids(&["W01"])),
            ("4".to_owned(), grids(&["W01"])),
            ("9".to_owned(), grids(&["W09"])),
        ]),
        areas: BTreeMap::from([("b3".to_owned(), "3".to_owned())]),
        calls: HashMap::new(),
    }
}

#[test]
fn the_nearest_shelter_that_takes_somebody_in_comes_first() {
    let known = known();
    let near = |at: &str| {
        let spot = known.spot(at);
        known.shelters_near(spot.as_ref()).into_iter().map(|row| row.id().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(near("3"), ["4", "2", "1", "3"], "by building, then grid; the full one last");
    assert_eq!(near("b3"), near("3"), "a place's id stands for its building");
    assert_eq!(near("W09"), ["1", "4", "2", "3"]);
    assert_eq!(near("no such"), ["1", "4", "2", "3"], "by name");
}

type Told = fn(&mut Alarm, &mut CapOrder, &mut Sent);

/// What is public of an alarm whose CAP messages came to this.
fn notice(change: impl Fn(&mut Alarm, &mut CapOrder, &mut Sent)) -> Option<Notice> {
    let mut alarm = samples::alarm();
    let at = alarm.raised_at;
    let mut cap = CapOrder {
        message: CapMessage::Alert,
        identifier: "anmin-1".to_owned(),
        sent: at,
        voice: Some(Arc::new(Voice { status: "Actual".into(), ..Voice::default() })),
        references: Vec::new(),
        alarm: Arc::new(alarm.clone()),
    };
    alarm.broadcast = Some(Broadcast {
        state: BroadcastState::Approved,
        level: alarm.level,
        asked_at: at,
        until: at,
        people: 2,
        yes: Vec::new(),
        no: None,
    });
    let mut sent = Sent {
        id: OrderId::new(format!("{}/1/town", alarm.id)),
        channel: "town".into(),
        state: "delivered",
        at: None,
        detail: String::new(),
        recipients: std::collections::BTreeMap::new(),
        text: None,
        body: None,
    };
    let mut all = Vec::new();
    change(&mut alarm, &mut cap, &mut sent);
    cap.alarm = Arc::new(alarm.clone());
    let cancel = sent.detail == "cancelled";
    sent.body = Some(OrderBody::Cap(Arc::new(cap.clone())));
    all.push(sent.clone());
    if cancel {
        sent.body = Some(OrderBody::Cap(Arc::new(CapOrder { message: CapMessage::Cancel, ..cap })));
        sent.state = "waiting";
        all.push(sent);
    }
    Notice::of_alarm(&alarm, &all, &Text::both("site"))
}

#[test]
fn only_what_really_went_out_after_a_yes_is_public_and_no_home_is_named() {
    let found = notice(|_, _, _| {}).expect("it went out");
    assert!(!found.exercise);
    let words = format!("{found:?}");
    for home in ["501", "单元", "Unit", "Floor", "b3-2"] {
        assert!(!words.contains(home), "{home} in {words}");
    }
    let state = |alarm: &mut Alarm, state| alarm.broadcast.as_mut().expect("it is there").state = state;
    let hidden: [(&str, Told); 6] = [
        ("nobody was asked", |alarm, _, _| alarm.broadcast = None),
        ("it has not arrived", |_, _, sent| sent.state = "waiting"),
        ("it was given up", |_, _, sent| sent.state = "dead"),
        ("it left as an exercise", |_, cap, _| {
            cap.voice = Some(Arc::new(Voice { status: "Exercise".into(), ..Voice::default() }));
        }),
        ("nobody knows in which earnest", |_, cap, _| cap.voice = None),
        ("it was taken back, and that has not even arrived", |_, _, sent| sent.detail = "cancelled".to_owned()),
    ];
    for (why, change) in hidden {
        assert_eq!(notice(change), None, "{why}");
    }
    for other in BroadcastState::ALL.into_iter().filter(|state| *state != BroadcastState::Approved) {
        assert_eq!(notice(|alarm, _, _| state(alarm, other)), None, "{other:?}");
    }
    let drill = |alarm: &mut Alarm, cap: &mut CapOrder, _: &mut Sent| {
        alarm.drill = Some(DrillId(uuid::Uuid::from_u128(7)));
        alarm.broadcast = None;
        alarm.title = Text { zh: "【演练】燃气".to_owned(), en: "[DRILL] gas".to_owned() };
        cap.voice = None;
    };
    let drill = notice(drill).expect("a drill is shown");
    assert_eq!((drill.exercise, &*drill.headline.zh), (true, "燃气"), "and marked as one");
}

/// Goal: nobody reads that all is clear while it may not be. Method: an alarm's messages after its end, by how the alarm stood
/// when they were ended, and what else stands at the same place.
#[test]
fn what_is_over_is_said_for_two_hours_and_all_is_clear_only_when_the_alarm_is_closed() {
    let mut alarm = samples::alarm();
    alarm.broadcast = Some(Broadcast {
        state: BroadcastState::Approved,
        level: alarm.level,
        asked_at: alarm.raised_at,
        until: alarm.raised_at,
        people: 2,
        yes: Vec::new(),
        no: None,
    });
    let at = alarm.raised_at;
    let end = at.plus(Duration::from_secs(60));
    let message = |message, sent, alarm: &Alarm, state| Sent {
        id: OrderId::new(format!("{}/1/town", alarm.id)),
        channel: "town".into(),
        state,
        at: None,
        detail: String::new(),
        text: None,
        recipients: std::collections::BTreeMap::new(),
        body: Some(OrderBody::Cap(Arc::new(CapOrder {
            message,
            identifier: "anmin-1".to_owned(),
            sent,
            voice: Some(Arc::new(Voice { status: "Actual".into(), ..Voice::default() })),
            references: Vec::new(),
            alarm: Arc::new(alarm.clone()),
        }))),
    };
    let closed = Alarm {
        condition: anmin_rules::alarm::Condition::Normal,
        latched: false,
        acknowledged: Some(anmin_rules::alarm::By { who: "li".to_owned(), at: end }),
        ..alarm.clone()
    };
    assert!(!closed.is_open() && alarm.is_open());
    let alert = message(CapMessage::Alert, at, &alarm, "delivered");
    let over = |sent: &[Sent]| Public::of(alarm.id, sent).over();
    assert_eq!(over(std::slice::from_ref(&alert)), None, "it stands");
    let clear = over(&[alert.clone(), message(CapMessage::Cancel, end, &closed, "waiting")]).expect("it is over");
    assert_eq!((clear.how, clear.at, clear.exercise), (End::Clear, end, false));
    assert!(!format!("{clear:?}").contains("501"), "no home is named: {clear:?}");
    let back = over(&[alert.clone(), message(CapMessage::Cancel, end, &alarm, "delivered")]).expect("it is over");
    assert_eq!(back.how, End::Withdrawn, "the alarm stands");
    let never =
        [message(CapMessage::Alert, at, &alarm, "dead"), message(CapMessage::Cancel, end, &closed, "delivered")];
    assert_eq!(over(&never), None, "what nobody was told ends without a word");
    let again = [
        alert.clone(),
        message(CapMessage::Cancel, end, &closed, "delivered"),
        message(CapMessage::Alert, end, &alarm, "delivered"),
    ];
    assert_eq!(over(&again), None, "it stands anew");

    let stands = Public::of(alarm.id, std::slice::from_ref(&alert)).notice(&Text::default()).expect("it stands");
    let shown = |after: u64, notices: &[Notice]| {
        over_now(vec![clear.clone(), clear.clone()], notices, end.plus(Duration::from_secs(after))).len()
    };
    assert_eq!((shown(0, &[]), shown(7_199, &[]), shown(7_200, &[])), (1, 1, 0), "once, and for two hours");
    let other = Notice { headline: Text::both("fire"), ..stands.clone() };
    assert_eq!(shown(0, &[other]), 0, "something else stands at the same place");
    let elsewhere = Notice { place: Text::both("9"), ..stands.clone() };
    let drill = Notice { exercise: true, ..stands };
    assert_eq!(shown(0, &[elsewhere, drill]), 1);
}

#[test]
fn what_is_real_and_grave_comes_first_and_one_thing_is_said_once() {
    let one = |headline: &str, level, exercise, since| Notice {
        exercise,
        level,
        headline: Text::both(headline),
        place: Text::default(),
        since: Wall::from_millis(since),
        until: None,
        said: Text::default(),
        to_do: Text::default(),
        by: Text::default(),
    };
    let notices = vec![
        one("drill", Level::Red, true, 9),
        one("rain", Level::Blue, false, 1),
        one("gas", Level::Orange, false, 2),
        one("gas", Level::Red, false, 1),
        one("fire", Level::Red, false, 3),
    ];
    let order: Vec<String> = in_order(notices).into_iter().map(|one| one.headline.en).collect();
    assert_eq!(order, ["fire", "gas", "rain", "drill"]);
}

#[test]
fn messages_are_counted_by_address_and_altogether_and_memory_is_bounded() {
    let at = |seconds: u64| Mono::from_nanos(seconds * 1_000_000_000);
    let mut spent = Spent::default();
    for _ in 0..MOST_BY_ADDRESS {
        assert!(spent.takes("one", at(1)));
    }
    for _ in 0..1_000 {
        assert!(!spent.takes("one", at(2)));
    }
    assert!(spent.takes("other", at(2)), "whoever is refused takes nothing from the others");
    let taken = (0..1_000).filter(|n| spent.takes(&n.to_string(), at(3))).count();
    assert_eq!(taken as u32, MOST_AT_ALL - MOST_BY_ADDRESS - 1);
    assert!(spent.takes("one", at(601)), "ten minutes later");
    for n in 0..3 * MOST_ADDRESSES {
        spent.takes(&format!("x{n}"), at(700));
    }
    assert!(spent.by_address.len() <= MOST_ADDRESSES);
    let v6 = |last| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 0, 0, 0, last));
    assert_eq!(counted_as(Some(v6(1))), counted_as(Some(v6(2))), "a house has one network");
    let four = Ipv4Addr::new(192, 0, 2, 7);
    assert_eq!(counted_as(Some(IpAddr::V6(four.to_ipv6_mapped()))), counted_as(Some(IpAddr::V4(four))));
}

#[test]
fn the_language_is_the_chosen_one_or_the_one_that_the_browser_likes_better() {
    for (chosen, liked, wanted) in [
        (None, "", Lang::Zh),
        (None, "zh-CN,zh;q=0.9,en;q=0.8", Lang::Zh),
        (None, "en-GB,en;q=0.9,zh;q=0.5", Lang::En),
        (None, "en;q=0.3, zh-TW;q=0.7", Lang::Zh),
        (None, "fr-FR,fr;q=0.9", Lang::En),
        (None, "zh;q=0,en", Lang::En),
        (None, "*", Lang::Zh),
        (Some("en"), "zh-CN", Lang::En),
        (Some("tlh"), "zh-CN", Lang::Zh),
    ] {
        let mut headers = HeaderMap::new();
        if !liked.is_empty() {
            headers.insert(header::ACCEPT_LANGUAGE, HeaderValue::from_static(liked));
        }
        assert_eq!(Lang::of(chosen, &headers), wanted, "{chosen:?} {liked}");
    }
}

#[test]
fn a_form_becomes_a_row_or_says_what_is_wrong_with_each_field() {
    let known = known();
    let sent = |form: &str| {
        let (form, ..) = Form::read(format!("once={}&{form}", "a".repeat(ONCE)).as_bytes());
        form.row(&known, "2026-11-28 04:00:00")
            .map_err(|faults| faults.into_iter().map(|(field, _)| field).collect::<Vec<_>>())
    };
    let row = sent("need=trapped&building=3&room=-1%E5%B1%82&said=a%0Ab&phone=110").expect("it is sound");
    assert_eq!(row.cells[1..], ["new", "trapped", "3", "W01", "(-1层)", "a b", "110", "2026-11-28 04:00:00", "", ""]);
    assert_eq!(sent("need=safe&room=gate").expect("it is sound").cell("state"), "done", "nobody need answer");
    for (form, wanted) in [
        ("", &["need", "room"][..]),
        ("need=fly&building=3", &["need"]),
        ("need=safe&building=77", &["building"]),
        ("need=other&building=3&phone=call+me", &["phone"]),
        (&format!("need=other&room={}&said={}", "x".repeat(65), "y".repeat(201)), &["room", "said"]),
    ] {
        assert_eq!(sent(form), Err(wanted.to_vec()), "{form}");
    }
    assert!(is_once(&new_once()) && new_once() != new_once());
    assert!(!["", "A", &"A".repeat(ONCE), &"a".repeat(ONCE + 1)].into_iter().any(is_once));
}

#[test]
fn settings_tell_all_faults_and_the_page_is_off_unless_it_is_switched_on() {
    let read = |text: &str| {
        let faults = Faults::default();
        let document = Document::parse("anmin.toml", text, &faults).expect("it is TOML");
        let settings = Settings::read(&document.root(&faults), &BTreeSet::from(["b1".to_owned()]));
        (settings, faults.take().iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    assert_eq!(read(""), (Settings::default(), Vec::new()));
    assert!(!Settings::default().enabled);
    let (settings, faults) =
        read("enabled = true\nareas = ['b1']\ntitle = 'Home'\nphone = '0571-1'\nhelp = false\nkept = '1d'");
    assert_eq!(faults, Vec::<String>::new());
    assert_eq!((settings.enabled, settings.help, settings.kept), (true, false, Duration::from_secs(86_400)));
    let (_, faults) = read("areas = ['b2']\nphone = 'call'\nkept = '1s'\nenable = true");
    assert_eq!(faults.len(), 4, "{faults:#?}");
    for (line, words) in
        [(1, "`areas` holds \"b2\""), (2, "`phone` is \"call\""), (3, "one hour and 365 days"), (4, "enable")]
    {
        assert!(
            faults.iter().any(|fault| fault.contains(&format!("anmin.toml:{line}:")) && fault.contains(words)),
            "{faults:#?}"
        );
    }
}
