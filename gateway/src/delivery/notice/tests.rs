use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anmin_rules::alarm::{Alarm, AlarmState, Cause, Class, Subject};
use anmin_rules::broadcast::BroadcastState;
use anmin_rules::order::{CallCause, CallState, OnCall, OrderBody, OrderId};
use anmin_sensors::document::{Document, Faults};
use anmin_sensors::point::Place;
use bytes::Bytes;
use serde_json::{Value, json};

use super::robot::{Robot, form_urlencoded, judge, sign_for_dingtalk, sign_for_feishu};
use super::*;
use crate::credentials::Secret;
use crate::crew_link::LinkKey;
use crate::delivery::http::Answer;
use crate::delivery::http::tests::{Answer as Says, Server};
use crate::samples::{self, RAISED, alarm, call_change, check_golden, closed, text, transition};

fn words(languages: &[Language], page: Option<&str>) -> Words {
    by(Manner::Robot, Robot::WeCom.most_bytes(), languages, page)
}

fn by(manner: Manner, most: usize, languages: &[Language], page: Option<&str>) -> Words {
    Words {
        links: None,
        site: samples::site(),
        languages: languages.iter().map(|language| (*language, template::shipped(manner, *language))).collect(),
        page: page.map(str::to_owned),
        manner,
        most,
    }
}

fn change(cause: Cause, alarm: Alarm) -> Order {
    let id = OrderId::new(format!("{}/{}/duty", alarm.id, alarm.seq));
    Order { id, channel: "duty".into(), body: OrderBody::Event(transition(AlarmState::Unacknowledged, cause, alarm)) }
}

fn call() -> Order {
    Order { id: OrderId::new("call/1"), channel: "duty".into(), body: OrderBody::Call(call_change()) }
}

/// The same alarm somewhere else.
fn at(building: &str, room: &str, level: Level) -> Order {
    let place = Place { building: building.to_owned(), room: room.to_owned(), ..(*alarm().place).clone() };
    change(Cause::Raised, Alarm { place: Arc::new(place), level, peak: level, ..alarm() })
}

/// 2 of one kind in one place, 40 in 40 places, and one that is over.
fn storm() -> Vec<Order> {
    let mut orders = vec![at("3", "501", Level::Orange), at("3", "501", Level::Orange)];
    orders.extend((1..=40).map(|n| at("7", &format!("{}01", n), Level::Red)));
    orders.push(change(Cause::Returned, Alarm { level: Level::Yellow, peak: Level::Yellow, ..closed() }));
    orders
}

/// Goal: what people read and hear is reviewed. Method: each kind of message in each language, a file that has it in all four forms.
#[test]
fn notices_stand_as_reviewed() {
    let by_whom = anmin_rules::alarm::By { who: "李明".to_owned(), at: RAISED };
    let red = Alarm { level: Level::Red, peak: Level::Red, seq: 2, ..alarm() };
    let later = RAISED.plus(Duration::from_secs(120));
    let system = Alarm {
        class: Class::System,
        subject: Subject::Part("way-out:office".into()),
        title: text("告警出口故障", "Way out failing"),
        advice: text("查看出口的地址和网络。", "Look at its address and the network."),
        clock_doubtful: true,
        ..alarm()
    };
    let asked = Alarm { broadcast: Some(samples::broadcast(BroadcastState::Waiting)), ..alarm() };
    let drill = Alarm {
        drill: Some(anmin_rules::drill::DrillId(uuid::Uuid::nil())),
        title: text("【演练】燃气泄漏", "[DRILL] Gas leak"),
        ..alarm()
    };
    let acknowledged = Alarm { acknowledged: Some(by_whom), changed_at: later, seq: 2, ..alarm() };
    let escalated = Alarm { escalation: 1, changed_at: later, seq: 2, ..alarm() };
    let calls = |state: CallState, cause: CallCause, zh: &str, en: &str| {
        let mut change = (*call_change()).clone();
        change.call.state = state;
        change.call.late = cause == CallCause::Late;
        change.cause = cause;
        change.message = text(zh, en);
        let id = OrderId::new("call/1");
        vec![Order { id, channel: "duty".into(), body: OrderBody::Call(Arc::new(change)) }]
    };
    let cases: Vec<(&str, Vec<Order>)> = vec![
        ("raised", vec![change(Cause::Raised, alarm())]),
        ("exercise", vec![change(Cause::Raised, alarm())]),
        ("drill", vec![change(Cause::Raised, drill)]),
        ("worse", vec![change(Cause::LevelChanged(Level::Orange), red)]),
        ("escalated", vec![change(Cause::Escalated { step: 1, by: None, why: String::new() }, escalated)]),
        ("acknowledged", vec![change(Cause::Acknowledged { by: "李明".to_owned() }, acknowledged)]),
        ("over", vec![change(Cause::Returned, closed())]),
        ("system", vec![change(Cause::Raised, system)]),
        ("asked", vec![change(Cause::Raised, asked)]),
        (
            "called",
            calls(CallState::Called, CallCause::Called, "已呼叫示例社区微型消防站", "The example station is called"),
        ),
        ("call", vec![call()]),
        (
            "late",
            calls(
                CallState::OnTheWay,
                CallCause::Late,
                "示例社区微型消防站未在3分钟内到场",
                "The example station is not there within 3 minutes",
            ),
        ),
        (
            "not-controlled",
            calls(
                CallState::OnScene,
                CallCause::NotControlled,
                "5分钟内未控制，请拨打119",
                "Not under control within 5 minutes: call 119",
            ),
        ),
        (
            "unanswered",
            calls(
                CallState::Unanswered,
                CallCause::Unanswered,
                "示例社区微型消防站无人应答，已呼叫邻站",
                "Nobody answers at the example station; the neighbour is called",
            ),
        ),
        ("storm", storm()),
    ];
    for (name, orders) in cases {
        let orders: Vec<&Order> = orders.iter().collect();
        for (language, languages) in
            [("zh", [Language::Zh].as_slice()), ("en", &[Language::En]), ("both", &[Language::Zh, Language::En])]
        {
            let mut forms = String::new();
            for (manner, most) in
                [(Manner::Robot, 2_048), (Manner::Mail, mail::MOST_BYTES), (Manner::Sms, 201), (Manner::Voice, 240)]
            {
                let most = manner.room(most, languages.iter().copied());
                let page = Some("http://192.168.1.9:8420/");
                let mut words = by(manner, most, languages, page);
                words.site.exercise = name == "exercise";
                let text = words.as_sent(&orders).expect("events");
                let size = manner.measure(&text);
                forms.push_str(&format!("== {} ({size})\n{text}\n", manner.as_str()));
            }
            check_golden(&format!("notices/{name}.{language}.txt"), &forms);
        }
    }
}

#[test]
fn a_template_of_the_sites_own_is_used_where_it_can_be() {
    let folder = Folder::new("templates", "https://robot.example/send?key=1\n");
    let own = folder.0.join("words");
    std::fs::create_dir_all(&own).expect("the folder is ours");
    let stanza =
        "id = 'duty'\nrobot = 'wecom'\naddress_file = 'address'\nlanguages = ['zh-CN', 'en-US']\ntemplates = 'words'\n";
    let read = || {
        let faults = Faults::default();
        let doc = Document::parse("t.toml", stanza, &faults).expect("TOML");
        let found = Settings::read(&doc.root(&faults), &folder.0).expect("a stanza");
        assert!(faults.is_empty(), "a template keeps nothing from starting");
        let order = change(Cause::Raised, alarm());
        let text = found.teller(&samples::site())(&order).expect("an event");
        (text, faults.warnings().iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let (shipped, warnings) = read();
    assert_eq!(warnings, Vec::<String>::new());
    let file = own.join("robot.zh-CN.txt");
    let sound = "{{^several}}{{title}}！！{{level}} {{place}} {{time}} {{advice}} {{who}} {{link}}{{/several}}\n\
                 {{#several}}{{count}} {{levels}}{{#lines}}{{title}}{{/lines}}{{left}}{{/several}}";
    std::fs::write(&file, sound).expect("the folder is ours");
    let (text, warnings) = read();
    assert!(
        text.starts_with("【演练】燃气泄漏！！橙色 3号楼2单元5层501") && text.contains("[Exercise] [Orange]"),
        "{text}"
    );
    assert_eq!(warnings, Vec::<String>::new());
    for (wrong, wanted) in [
        (format!("{sound}\n{{{{plaice}}}}"), "robot.zh-CN.txt:3:1: there is no `plaice`; did you mean `place`?"),
        (sound.replace("{{advice}}", ""), "robot.zh-CN.txt: of one change it does not tell `advice`"),
        (sound.replace("{{left}}", ""), "robot.zh-CN.txt: of several changes it does not tell `left`"),
    ] {
        std::fs::write(&file, wrong).expect("the folder is ours");
        let (text, warnings) = read();
        assert_eq!(text, shipped, "the shipped one is used");
        assert!(warnings.len() == 1 && warnings[0].contains(wanted), "{warnings:?}");
        assert!(warnings[0].contains("shipped with is used"), "{warnings:?}");
    }
}

#[test]
fn a_notice_fits_its_robot_whatever_it_must_say() {
    let long = "楼".repeat(5_000);
    let wordy = Alarm { message: text(&long, &long), advice: text(&long, &long), ..alarm() };
    let one = [change(Cause::Raised, wordy)];
    let many: Vec<Order> = (0..200)
        .map(|n| change(Cause::Raised, Alarm { title: text(&format!("警{n}{}", &long[..60]), "x"), ..alarm() }))
        .collect();
    for orders in [one.as_slice(), &many] {
        let orders: Vec<&Order> = orders.iter().collect();
        for languages in [[Language::Zh].as_slice(), &[Language::Zh, Language::En]] {
            let text = words(languages, None).message(&orders).expect("events").text;
            assert!(text.len() <= Robot::WeCom.most_bytes(), "{}", text.len());
            assert!(text.starts_with("【演练】"), "{text}");
        }
        let text = words(&[Language::Zh], None).message(&orders).expect("events").text;
        assert!(text.contains("……"), "what is left out is said: {text}");
    }
}

#[test]
fn words_of_devices_and_people_begin_no_line_and_mention_nobody() {
    let evil = "a\r\n【红色】假\u{2028}<at user_id=\"all\"></at><@all>\u{202e}x";
    let place = Place { room: evil.to_owned(), ..(*alarm().place).clone() };
    let evil_alarm = Alarm { message: text(evil, evil), title: text(evil, evil), place: Arc::new(place), ..alarm() };
    let orders = [change(Cause::Raised, evil_alarm.clone()), change(Cause::Raised, evil_alarm)];
    for orders in [&orders[..1], &orders[..]] {
        let orders: Vec<&Order> = orders.iter().collect();
        let text = words(&[Language::Zh], None).message(&orders).expect("events").text;
        assert!(!text.contains('<') && !text.contains(['\r', '\u{2028}', '\u{202e}']), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("【红色】")).count(), 0, "{text}");
    }
}

#[test]
fn everybody_is_mentioned_where_somebody_must_act_on_what_is_grave() {
    let red = || Alarm { level: Level::Red, peak: Level::Red, ..alarm() };
    let cases = [
        (change(Cause::Raised, red()), Some(Level::Red)),
        (change(Cause::Returned, red()), None),
        (change(Cause::LevelChanged(Level::Red), alarm()), None),
        (change(Cause::Escalated { step: 1, by: None, why: String::new() }, alarm()), Some(Level::Orange)),
        (call(), None),
    ];
    for (order, level) in &cases {
        assert_eq!(words(&[Language::Zh], None).message(&[order]).expect("events").level, *level, "{}", order.id);
    }
    let all: Vec<&Order> = cases.iter().map(|(order, _)| order).collect();
    assert_eq!(words(&[Language::Zh], None).message(&all).expect("events").level, Some(Level::Red));
    for (robot, wanted) in [
        (Robot::WeCom, json!({"msgtype": "text", "text": {"content": "x", "mentioned_list": ["@all"]}})),
        (Robot::DingTalk, json!({"msgtype": "text", "text": {"content": "x"}, "at": {"isAtAll": true}})),
        (Robot::Feishu, json!({"msg_type": "text", "content": {"text": "<at user_id=\"all\"></at> x"}})),
    ] {
        assert_eq!(robot.body("x", true), wanted);
    }
}

/// Worked out by hand from the makers' words, with another program.
#[test]
fn signs_as_dingtalk_and_feishu_do() {
    let secret = Secret("SEC0123456789abcdef0123456789abcdef".to_owned());
    let sign = sign_for_dingtalk(&secret, 1_700_000_000_000);
    assert_eq!(form_urlencoded(&sign), "hJ95%2FXWePTzrSwXDHEJJY1Ta0B6qiG%2FYMxNzB4v4U2w%3D");
    let sign = sign_for_feishu(&Secret("demo-secret".to_owned()), 1_700_000_000);
    assert_eq!(sign, "mYHw2R2SOm8Rw/sne3lQdmz4sOfntKR+1P/8RKKTwmA=");
}

#[test]
fn an_answer_is_judged_by_its_code() {
    #[derive(Debug, PartialEq)]
    enum Is {
        Taken,
        Retry,
        Wait(u64),
        Never,
    }
    let cases: [(Robot, u16, Option<u64>, &str, Is); 14] = [
        (Robot::WeCom, 200, None, r#"{"errcode":0,"errmsg":"ok"}"#, Is::Taken),
        (Robot::WeCom, 200, None, r#"{"errcode":45009,"errmsg":"api freq out of limit"}"#, Is::Wait(60)),
        (Robot::WeCom, 200, None, r#"{"errcode":93000,"errmsg":"invalid webhook url"}"#, Is::Retry),
        (Robot::DingTalk, 200, None, r#"{"errcode":0,"errmsg":"ok"}"#, Is::Taken),
        (Robot::DingTalk, 200, None, r#"{"errcode":310000,"errmsg":"sign not match"}"#, Is::Retry),
        (Robot::DingTalk, 200, Some(7), r#"{"errcode":130101,"errmsg":"send too fast"}"#, Is::Wait(7)),
        (
            Robot::Feishu,
            200,
            None,
            r#"{"StatusCode":0,"StatusMessage":"success","code":0,"data":{},"msg":"success"}"#,
            Is::Taken,
        ),
        (
            Robot::Feishu,
            200,
            None,
            r#"{"code":19021,"msg":"sign match fail or timestamp is not within one hour"}"#,
            Is::Retry,
        ),
        (Robot::Feishu, 200, None, r#"{"code":11232,"msg":"frequency limited"}"#, Is::Wait(60)),
        (Robot::WeCom, 200, None, "<html>portal</html>", Is::Retry),
        (Robot::WeCom, 200, None, r#"{"ok":true}"#, Is::Retry),
        (Robot::WeCom, 302, None, "", Is::Retry),
        (Robot::WeCom, 413, None, "", Is::Never),
        (Robot::WeCom, 429, Some(30), "", Is::Wait(30)),
    ];
    for (robot, status, wait, body, wanted) in cases {
        let answer =
            Answer { status, retry_after: wait.map(Duration::from_secs), body: Bytes::from_static(body.as_bytes()) };
        let found = match judge(robot, Ok(answer)) {
            Ok(_) => Is::Taken,
            Err(DeliveryError::Retry(_)) => Is::Retry,
            Err(DeliveryError::RetryAfter { wait, .. }) => Is::Wait(wait.as_secs()),
            Err(DeliveryError::Never(_)) => Is::Never,
        };
        assert_eq!(found, wanted, "{robot:?} HTTP {status}: {body}");
    }
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str, address: &str) -> Self {
        let path = std::env::temp_dir().join(format!("anmin-notice-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the folder for temporary files can be written");
        std::fs::write(path.join("address"), address).expect("the same");
        std::fs::write(path.join("secret"), "demo-secret\n").expect("the same");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn settings(folder: &Folder, text: &str) -> Result<Settings, Vec<String>> {
    let faults = Faults::default();
    let doc = Document::parse("t.toml", text, &faults).expect("TOML");
    let found = Settings::read(&doc.root(&faults), &folder.0);
    let faults = faults.take();
    match found {
        Some(settings) if faults.is_empty() => Ok(settings),
        _ => Err(faults.iter().map(ToString::to_string).collect()),
    }
}

#[test]
fn settings_tell_all_faults_and_never_the_address() {
    let folder = Folder::new("faults", "ftp://robot.example/send?key=hush-hush\n");
    let found = settings(
        &folder,
        "id = 'duty'\nrobot = 'wechat'\naddress_file = 'address'\nlanguages = ['zh']\nper_minute = 3\npage = 'desk'\neverybody_from = 'pink'\n",
    );
    let faults = found.expect_err("six faults").join("\n");
    for wanted in [
        "`robot` is",
        "`address_file`",
        "`languages` has \"zh\"",
        "`per_minute` is 3",
        "`page` is",
        "`everybody_from` is",
    ] {
        assert!(faults.contains(wanted), "{wanted}: {faults}");
    }
    assert!(!faults.contains("hush"), "{faults}");
    let folder = Folder::new("wecom", "https://robot.example/send?key=hush-hush\n");
    let found = settings(&folder, "id = 'duty'\nrobot = 'wecom'\naddress_file = 'address'\nsecret_file = 'secret'\n");
    assert_eq!(found.expect_err("one fault").len(), 1);
    for (text, wanted) in [
        ("id = 'duty'\n", "`robot`, `mail` or `gateway` is missing"),
        ("id = 'duty'\nrobot = 'wecom'\nmail = 'smtps://mail.example.cn'\n", "`robot` and `mail` are given"),
        ("id = 'duty'\nrobot = 'wecom'\n", "`address_file`"),
        (
            "id = 'duty'\nmail = 'smtps://mail.example.cn'\nfrom = 'a@b.cn'\nto = ['a@b.cn']\neverybody_from = 'red'\n",
            "`everybody_from` is not a known key",
        ),
    ] {
        let found = settings(&folder, text).expect_err("a fault");
        assert!(found.len() == 1 && found[0].contains(wanted), "{text}: {found:?}");
    }
}

#[test]
fn a_drill_says_so_before_anything_else_and_what_is_real_does_not() {
    let site = Site { exercise: false, ..samples::site() };
    let words = Words { site, ..by(Manner::Robot, 4_096, &[Language::Zh, Language::En], None) };
    let mut alarm = alarm();
    let real = words.message(&[&change(Cause::Raised, alarm.clone())]).expect("it is told").text;
    assert!(real.starts_with("【橙色】") && !real.contains("演练") && !real.contains("DRILL"), "{real}");
    alarm.drill = Some(anmin_rules::drill::DrillId(uuid::Uuid::nil()));
    alarm.title = samples::text("【演练】燃气泄漏", "[DRILL] Gas leak");
    let one = change(Cause::Raised, alarm.clone());
    let other = change(Cause::Acknowledged { by: "li".to_owned() }, alarm);
    for orders in [&[&one][..], &[&one, &other]] {
        let told = words.message(orders).expect("it is told").text;
        assert!(told.starts_with("【演练】") && told.contains("\n\n[DRILL] "), "{told}");
        assert_eq!(told.matches("【演练】").count(), 1, "{told}");
    }
}

#[tokio::test]
async fn a_robot_is_spoken_to_in_its_own_way() {
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 27\r\nConnection: close\r\n\r\n{\"errcode\":0,\"errmsg\":\"ok\"}";
    let feishu = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\n{\"code\":0}";
    for (robot, answer) in [("wecom", ok), ("dingtalk", ok), ("feishu", feishu)] {
        let server = Server::start(vec![Says::Says(answer), Says::Says(answer)]).await;
        let folder = Folder::new(robot, &format!("{}?key=1\n", server.url()));
        let secret = if robot == "wecom" { "" } else { "secret_file = 'secret'\n" };
        let settings =
            settings(&folder, &format!("id = 'duty'\nrobot = '{robot}'\naddress_file = 'address'\n{secret}"));
        let carrier = {
            let (inputs, _) = mpsc::channel(1);
            let settings = settings.expect("settings");
            carrier(&settings, &samples::site(), None, &Clock::manual(RAISED), &inputs).expect("a carrier")
        };
        let orders = storm();
        let alone = carrier.carry(&orders[0]).await.expect("it is accepted");
        let together = carrier.carry_all(&orders[0], &orders[1..]).await.expect("it is accepted");
        for receipt in [&alone, &together] {
            assert_eq!(receipt.detail, "HTTP 200, accepted", "{robot}");
        }
        assert_ne!(alone.text, together.text, "each with the words that left");
        let moved = change(Cause::Regrouped { by: None }, alarm());
        let said = carrier.carry(&moved).await.expect("it has its receipt");
        assert_eq!(said.detail, "nothing that people need be told");
        let seen = server.seen.lock().expect("nobody panics with it").clone();
        assert_eq!(seen.len(), 2);
        let start = match robot {
            "dingtalk" => "POST /in?key=1&timestamp=1772328600000&sign=",
            _ => "POST /in?key=1 HTTP",
        };
        let bodies: Vec<Value> = seen
            .iter()
            .map(|request| {
                assert!(request.starts_with(start), "{request}");
                serde_json::from_str(request.split_once("\r\n\r\n").expect("a body").1).expect("JSON")
            })
            .collect();
        let text =
            |n: usize| bodies[n]["text"]["content"].as_str().or(bodies[n]["content"]["text"].as_str()).expect("text");
        assert!(
            text(0).contains("【演练】【橙色】燃气泄漏") && text(1).contains("43 条消息（红色40，橙色2，黄色1）"),
            "{seen:#?}"
        );
        assert_eq!(bodies[0]["sign"].is_string(), robot == "feishu");
    }
}

/// Goal: whoever is on duty can answer, whatever else a message says. Method: messages of one change and of many, in one
/// language and two, each link taken out of the text and opened.
#[test]
fn a_stations_own_group_is_given_a_whole_link_for_each_who_is_on_duty_and_no_other_is() {
    let key = LinkKey::of(b"crews of the test");
    let change = |station: &str, seq: u32, members: usize| {
        let mut change = (*call_change()).clone();
        change.call.station = station.into();
        change.call.seq = seq;
        change.call.crew =
            (0..members).map(|n| OnCall { id: format!("m{n}").into(), name: format!("队员{n}") }).collect();
        let id = OrderId::new(format!("call/{station}/{seq}"));
        Order { id, channel: "duty".into(), body: OrderBody::Call(Arc::new(change)) }
    };
    for (orders, languages, expected) in [
        (vec![change("a", 1, 2)], &[Language::Zh][..], 2),
        (vec![change("a", 1, 0)], &[Language::Zh], 1),
        (vec![change("a", 1, 40)], &[Language::Zh], 8),
        (vec![change("a", 1, 3)], &[Language::Zh, Language::En], 3),
        (vec![change("a", 1, 2), change("b", 1, 1), change("a", 2, 2)], &[Language::Zh, Language::En], 3),
    ] {
        let mut words = words(languages, Some("https://desk.example.cn/"));
        let plain = words
            .message(&orders.iter().collect::<Vec<_>>())
            .map(|said| said.text + said.links.as_str())
            .expect("it is news");
        assert!(!plain.contains("/crew/"), "{plain}");
        words.links = Some(Links { key: key.clone(), valid: Duration::from_secs(3_600) });
        let said = words
            .message(&orders.iter().collect::<Vec<_>>())
            .map(|said| said.text + said.links.as_str())
            .expect("it is news");
        assert!(said.len() <= words.most, "{} bytes", said.len());
        let opened = said.split_whitespace().filter_map(|word| word.strip_prefix("https://desk.example.cn/crew/"));
        let opened = opened.map(|token| key.open(token, RAISED)).collect::<Vec<_>>();
        assert!(opened.iter().all(Result::is_ok), "{said}");
        assert_eq!(opened.len(), expected, "{said}");
    }
}
