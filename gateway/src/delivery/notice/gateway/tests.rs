use std::sync::Arc;

use anmin_rules::alarm::{Alarm, AlarmState, Cause};
use anmin_rules::order::{OrderBody, OrderId};
use anmin_rules::rule::{Level, Text};
use anmin_sensors::document::{Document, Faults};
use serde_json::json;

use super::super::template::shipped;
use super::*;
use crate::delivery::http::tests::{Answer as Says, Server};
use crate::samples::{self, RAISED, alarm, transition};

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str, numbers: &str) -> Self {
        let path = std::env::temp_dir().join(format!("anmin-gateway-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("the folder for temporary files can be written");
        fs::write(path.join("numbers"), numbers).expect("the same");
        fs::write(path.join("secret"), "hush-hush\n").expect("the same");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn read(folder: &Folder, text: &str) -> (Option<Settings>, Vec<String>) {
    let faults = Faults::default();
    let doc = Document::parse("t.toml", text, &faults).expect("TOML");
    let found = Settings::read(&doc.root(&faults), &folder.0);
    (found, faults.take().iter().map(|fault| fault.message.clone()).collect())
}

fn telephones(folder: &Folder, text: &str) -> Telephones {
    let (settings, faults) = read(folder, text);
    assert_eq!(faults, Vec::<String>::new(), "{text}");
    Telephones::new(&settings.expect("settings"), &Clock::manual(RAISED)).expect("a carrier")
}

fn words() -> Words {
    Words {
        links: None,
        site: samples::site(),
        languages: vec![(Language::Zh, shipped(Manner::Sms, Language::Zh))],
        page: None,
        manner: Manner::Sms,
        most: SMS_CHARS,
    }
}

fn order(alarm: Alarm) -> Order {
    let id = OrderId::new(format!("{}/{}/sms", alarm.id, alarm.seq));
    Order { id, channel: "sms".into(), body: OrderBody::Event(transition(AlarmState::Normal, Cause::Raised, alarm)) }
}

const NUMBERS: &str = "# the duty desk\n138 0000 0001\n+86-13800000002 # 李\n";
const JSON: &str = "speaks = 'sms'\nnumbers_file = 'numbers'\nbody = '{\"to\": \"{{number}}\", \"text\": \"{{text}}\", \"id\": \"{{id}}\"}'\n";

#[test]
fn settings_tell_all_faults_and_neither_secret_nor_number() {
    let folder = Folder::new("faults", NUMBERS);
    let url = "gateway = 'https://sms.example.cn/send'\nspeaks = 'sms'\nnumbers_file = 'numbers'\n";
    let body = "body = '{\"to\": \"{{number}}\", \"text\": \"{{text}}\"}'\n";
    for (text, wanted) in [
        (format!("gateway = 'https://sms.example.cn/send'\nnumbers_file = 'numbers'\n{body}"), "`speaks` is missing"),
        (format!("gateway = 'https://sms.example.cn/send'\nspeaks = 'sms'\n{body}"), "`numbers_file` is missing"),
        (url.to_owned(), "`body` is missing"),
        (format!("{url}body = '{{\"to\": {{{{number}}}}, \"text\": \"{{{{text}}}}\"}}'\n"), "`body` is not JSON"),
        (
            format!("{url}body = '{{\"to\": \"{{{{number}}}}\", \"text\": \"{{{{words}}}}\"}}'\n"),
            "there is no `{{words}}` here",
        ),
        (format!("{url}body = '{{\"to\": \"{{{{number}}}}\"}}'\n"), "nobody would be told"),
        (format!("{url}body = '{{\"text\": \"{{{{text}}}}\"}}'\n"), "nobody would be reached"),
        (format!("{url}body_type = 'form'\nbody = 'to={{{{number}}}}&{{{{text}}}}'\n"), "expected name=value"),
        (format!("{url}{body}method = 'GET'\n"), "GET has none"),
        (format!("{url}{body}headers = ['X-Text: {{{{text}}}}']\n"), "there is no `{{text}}` here"),
        (format!("{url}{body}headers = ['no header']\n"), "no `Name: value`"),
        (format!("{url}{body}headers = ['X-Key: {{{{secret}}}}']\n"), "`secret_file` is missing"),
        (format!("{url}{body}secret_file = 'secret'\n"), "stands nowhere"),
        (format!("{url}{body}success = 'code'\n"), "expected `/pointer = value`"),
        (format!("{url}{body}most_chars = 10\n"), "expected 70 to 2000"),
        (format!("{url}{body}together = 0\n"), "expected 1 to 100"),
        (
            format!(
                "gateway = 'http://8.8.8.8/?key={{{{secret}}}}'\nspeaks = 'sms'\nsecret_file = 'secret'\nnumbers_file = 'numbers'\n{body}"
            ),
            "8.8.8.8 is a public address",
        ),
        (
            format!("gateway = 'https://{{{{place}}}}.example.cn/'\nspeaks = 'sms'\nnumbers_file = 'numbers'\n{body}"),
            "in the name of its host",
        ),
    ] {
        let (_, faults) = read(&folder, &text);
        assert!(faults.len() == 1 && faults[0].contains(wanted), "{text}: {faults:#?}");
    }
    for (numbers, wanted) in [
        ("", "holds no number"),
        ("13800000001\n138-0000-0001\n", ":2: a number that was there already"),
        ("\n1380000000x\n", ":2: not a telephone number"),
        ("1234567890123456\n", ":1: not a telephone number"),
    ] {
        let folder = Folder::new("numbers", numbers);
        let (_, faults) = read(&folder, &format!("gateway = 'https://sms.example.cn/'\n{JSON}"));
        assert!(faults.len() == 1 && faults[0].contains(wanted) && !faults[0].contains("1380"), "{faults:?}");
    }
}

/// Goal: whatever a device or a person has written stays in its place. Method: words that would end a string, a pair, a header or a
/// query, in each context, read again by other parsers.
#[test]
fn each_value_is_escaped_for_where_it_stands() {
    let folder = Folder::new("escape", NUMBERS);
    let evil = "a\"},{\"to\":\"1\"&to=2&x=%26\\ {{secret}} 楼#?";
    let fields = Fields { level: "红色".to_owned(), title: evil.to_owned(), place: "3号楼".to_owned() };
    let written = |gateway: &str, more: &str| {
        let telephones =
            telephones(&folder, &format!("gateway = '{gateway}'\nspeaks = 'sms'\nnumbers_file = 'numbers'\n{more}"));
        let order = order(alarm());
        let request = telephones.request(evil, &fields, &[&order], &[0, 1]).expect("a request");
        (request.path, request.headers, String::from_utf8(request.body.to_vec()).expect("UTF-8"))
    };
    let to = "https://sms.example.cn/send";
    let (_, headers, body) = written(
        to,
        r#"together = 2
secret_file = 'secret'
headers = ['Authorization: APPCODE {{secret}}', 'X-Kind: 1']
body = '{"all": "{{numbers}}", "each": ["{{number}}"], "objects": [{"to": "{{number}}"}], "text": "{{text}}", "n": 7, "param": "{\"t\": \"{{title}}\", \"p\": \"{{place}}\"}"}'
"#,
    );
    assert_eq!(
        headers,
        [("authorization", "APPCODE hush-hush"), ("x-kind", "1"), ("content-type", "application/json; charset=utf-8")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
    );
    let json: Value = serde_json::from_str(&body).expect("JSON");
    let (one, other) = ("13800000001", "+8613800000002");
    assert_eq!(json["all"], format!("{one},{other}"));
    assert_eq!(json["each"], json!([one, other]));
    assert_eq!(json["objects"], json!([{"to": one}, {"to": other}]));
    assert_eq!((&json["text"], &json["n"]), (&json!(evil), &json!(7)));
    let inner: Value = serde_json::from_str(json["param"].as_str().expect("text")).expect("JSON in it");
    assert_eq!(inner, json!({"t": evil, "p": "3号楼"}));

    let (_, headers, body) = written(
        to,
        "together = 2\nbody_type = 'form'\nbody = 'mobile={{numbers}}&content=【安民】{{text}}&param={\"t\": \"{{title}}\"}'\n",
    );
    assert_eq!(headers[0].1, "application/x-www-form-urlencoded");
    let pairs: Vec<(String, String)> = form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    assert_eq!(pairs[0], ("mobile".to_owned(), format!("{one},{other}")));
    assert_eq!(pairs[1], ("content".to_owned(), format!("【安民】{evil}")));
    assert_eq!(serde_json::from_str::<Value>(&pairs[2].1).expect("JSON in it"), json!({"t": evil}));
    assert_eq!(pairs.len(), 3);

    let (path, headers, body) = written(
        "https://sms.example.cn/v1/{{level}}/send?to={{numbers}}&text={{text}}&id={{id}}",
        "together = 2\nmethod = 'GET'\n",
    );
    assert!(headers.is_empty() && body.is_empty());
    let url = url::Url::parse(&format!("https://sms.example.cn{path}")).expect("a URL");
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    assert_eq!((pairs.len(), pairs[1].1.as_str(), url.fragment()), (3, evil, None), "{path}");
    assert_eq!(url.path(), "/v1/%E7%BA%A2%E8%89%B2/send");
    assert_eq!(pairs[2].1.len(), 32);
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\n{\"code\":0}";
const BUSY: &str = "HTTP/1.1 500 Broken\r\nContent-Length: 19\r\nConnection: close\r\n\r\n13800000001 failed.";

/// Goal: on a retry only those are told who were not, with the same id as before; and a number that fails holds up no other.
#[tokio::test]
async fn each_number_is_told_once() {
    let server = Server::start([OK, BUSY, OK, OK, OK].map(Says::Says).into()).await;
    let folder = Folder::new("once", NUMBERS);
    let telephones = telephones(&folder, &format!("gateway = '{}'\nsuccess = '/code = 0'\n{JSON}", server.url()));
    let (first, second) = (order(alarm()), order(Alarm { seq: 2, ..alarm() }));
    match telephones.send(&words(), &[&first]).await {
        Err(DeliveryError::Retry(why)) => assert_eq!(why, "HTTP 500: (recipient 1) failed."),
        other => panic!("{other:?}"),
    }
    let receipt = telephones.send(&words(), &[&first]).await.expect("now both have it");
    assert_eq!(receipt.detail, "HTTP 200, accepted, 2 parts");
    assert!(receipt.text.is_some_and(|text| text.starts_with("【演练】【橙色】燃气泄漏，3号楼2单元5层501")));
    telephones.send(&words(), &[&second]).await.expect("both have it");
    let seen = server.seen.lock().expect("nobody panics with it").clone();
    let bodies: Vec<Value> = seen
        .iter()
        .map(|request| serde_json::from_str(request.split_once("\r\n\r\n").expect("a body").1).expect("JSON"))
        .collect();
    assert_eq!(bodies.len(), 5, "{bodies:#?}");
    assert_eq!(bodies[1], bodies[2], "the same once more, and nothing else");
    let ids: std::collections::BTreeSet<String> = bodies.iter().map(|body| body["id"].to_string()).collect();
    assert_eq!(ids.len(), 4, "each message to each number has an id of its own: {ids:?}");
}

#[tokio::test]
async fn a_gateway_that_asks_for_time_is_left_alone_and_a_number_that_it_refuses_is_left_out() {
    let busy = "HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let no = "HTTP/1.1 200 OK\r\nContent-Length: 38\r\nConnection: close\r\n\r\n{\"code\":9,\"msg\":\"no such 13800000001\"}";
    let server = Server::start([busy, OK, no, no, no, no, no].map(Says::Says).into()).await;
    let folder = Folder::new("left-out", "13800000001\n");
    let telephones = telephones(&folder, &format!("gateway = '{}'\nsuccess = '/code = 0'\n{JSON}", server.url()));
    let one = order(alarm());
    let wait = telephones.send(&words(), &[&one]).await;
    assert_eq!(wait, Err(DeliveryError::RetryAfter { wait: Duration::from_secs(7), reason: "HTTP 429: ".to_owned() }));
    telephones.send(&words(), &[&one]).await.expect("now it is taken");
    // The only one refuses: for the courier to try again, and to give up.
    for _ in 0..3 {
        match telephones.send(&words(), &[&one]).await {
            Err(DeliveryError::Never(why)) => assert!(!why.contains("1380"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_answer_is_judged_by_status_and_by_what_it_says() {
    #[derive(Debug, PartialEq)]
    enum Is {
        Taken,
        Refused,
        Later,
        Left(u64),
    }
    let success = Success { pointer: "/SendStatusSet/0/Code".to_owned(), value: "Ok".to_owned() };
    let code = Success { pointer: "/code".to_owned(), value: "0".to_owned() };
    for (status, wait, body, success, wanted) in [
        (200, None, "", None, Is::Taken),
        (204, None, "", None, Is::Taken),
        (200, None, "{\"code\":0}", Some(&code), Is::Taken),
        (200, None, "{\"code\":\"0\"}", Some(&code), Is::Taken),
        (200, None, "{\"code\":22}", Some(&code), Is::Refused),
        (200, None, "{\"ok\":true}", Some(&code), Is::Refused),
        (200, None, "{\"SendStatusSet\":[{\"Code\":\"Ok\"}]}", Some(&success), Is::Taken),
        (200, None, "{\"SendStatusSet\":[]}", Some(&success), Is::Refused),
        // Half an answer, and a portal's.
        (200, None, "{\"code\":", Some(&code), Is::Later),
        (200, None, "", Some(&code), Is::Later),
        (200, None, "<html>", Some(&code), Is::Later),
        (302, None, "", Some(&code), Is::Refused),
        (400, None, "{\"code\":0}", Some(&code), Is::Refused),
        (413, None, "", None, Is::Refused),
        (401, None, "", None, Is::Later),
        (500, None, "", None, Is::Later),
        (429, Some(30), "", None, Is::Left(30)),
        (503, Some(5), "", None, Is::Left(5)),
    ] {
        let answer =
            Answer { status, retry_after: wait.map(Duration::from_secs), body: Bytes::from_static(body.as_bytes()) };
        let found = match judge(Ok(answer), success, None) {
            Said::Taken { .. } => Is::Taken,
            Said::Refused(_) => Is::Refused,
            Said::Later { wait: Some(wait), leave: true, .. } => Is::Left(wait.as_secs()),
            Said::Later { .. } => Is::Later,
        };
        assert_eq!(found, wanted, "HTTP {status} {body}");
    }
    assert!(matches!(judge(Err("broken".to_owned()), None, None), Said::Later { .. }));
}

#[test]
fn a_number_is_shown_in_no_form() {
    let folder = Folder::new("mask", NUMBERS);
    let telephones = telephones(&folder, &format!("gateway = 'https://sms.example.cn/'\n{JSON}"));
    for (said, wanted) in [
        ("no 13800000001", "no (recipient 1)"),
        ("0086 13800000002 or 8613800000002", "0086 (number) or (number)"),
        ("code 200417, 7 left", "code 200417, 7 left"),
        ("1234567", "(number)"),
    ] {
        assert_eq!(telephones.without_people(said), wanted);
    }
}

#[test]
fn a_long_message_keeps_what_to_do_whole_and_its_parts_are_counted() {
    let wordy = |advice: &str| {
        let text = |zh: &str| Text { zh: zh.to_owned(), en: zh.to_owned() };
        let place = anmin_sensors::point::Place { room: "长".repeat(20), ..(*alarm().place).clone() };
        Alarm {
            message: text(&"细节".repeat(100)),
            advice: text(advice),
            place: Arc::new(place),
            level: Level::Red,
            ..alarm()
        }
    };
    let advice = "请勿开关电器。关闭燃气总阀。开窗通风。沿楼梯撤离，不要乘坐电梯，到小区东门集合点名。";
    let whole = words().message(&[&order(wordy(advice))]).expect("an event").text;
    assert!(whole.contains(advice) && whole.contains("细节……"), "{whole}");
    for most in [201, 134, 120, 100, 70] {
        let words = Words { most, ..words() };
        let text = words.message(&[&order(wordy(advice))]).expect("an event").text;
        assert!(Manner::Sms.measure(&text) <= most, "{most}: {text}");
        assert!(text.starts_with("【演练】【红色】燃气泄漏，"), "{text}");
        let (_, told) = text.split_once("处置：").unwrap_or_else(|| panic!("{most}: {text}"));
        let told = told.split("……").next().expect("a beginning");
        assert!(
            told.starts_with(advice) || told.is_empty() || advice.starts_with(told) && told.ends_with('。'),
            "{most}: {text}"
        );
    }
    for (units, wanted) in
        [(1, "1 part"), (70, "1 part"), (71, "2 parts"), (134, "2 parts"), (135, "3 parts"), (201, "3 parts")]
    {
        assert_eq!(parts(&"警".repeat(units)), wanted, "{units}");
    }
    for (text, wanted) in [
        ("😀".repeat(36), "2 parts"),
        ("a".repeat(160), "1 part"),
        ("a".repeat(161), "2 parts"),
        ("[".repeat(81), "2 parts"),
        ("`".repeat(71), "2 parts"),
    ] {
        assert_eq!(parts(&text), wanted, "{text}");
    }
}
