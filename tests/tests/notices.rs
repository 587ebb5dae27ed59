//! Notices to people by mail and by telephone, against servers that anmin did not write.

use std::collections::BTreeMap;

use anmin_tests::daemon::Daemon;
use anmin_tests::http;
use anmin_tests::mqtt::Mqtt;
use anmin_tests::peers::{Mailboxes, Telephones, free_port};
use anmin_tests::site::{GAS_AS_IT_SPEAKS, Site};
use serde_json::{Value, json};

/// An alarm of one rule, and at once.
const AT_ONCE: &str = r#"
[[override]]
rule = "gas/leak"
on_delay = "0s"
[[override]]
rule = "gas/several_rooms"
enabled = false
[[override]]
rule = "gas/rising"
enabled = false
"#;

fn raise(device: &mut Mqtt, name: &str, value: f64) {
    device.publish(&format!("acceptance/{name}/up"), json!({ "v": value, "seq": 1 }).to_string());
}

fn text(of: &Value) -> &str {
    of.as_str().unwrap_or_else(|| panic!("no text: {of}"))
}

/// Goal: an alarm reaches every mailbox that its server has, once, by TLS that the site's own authority vouches for, whatever the
/// server says first. Method: aiosmtpd by STARTTLS and by TLS from the first byte, each with a password; refusals for now and for
/// good, a busy server, one that is away and comes back; and one that is called by another name, which gets nothing.
#[test]
fn an_alarm_reaches_every_mailbox_once_whatever_its_server_says_first() {
    let site = Site::new("mail", "");
    for name in ["mail", "other"] {
        site.certificate(name, 300);
    }
    site.write("password", "demo-secret\n");
    site.write("wrong", "not-the-secret\n");
    let mut office = Mailboxes::start(&site, "starttls", 0, "mail");
    let away = free_port();
    let mut strange = Mailboxes::start(&site, "tls", 0, "other");
    let stanza = |id: &str, url: String, more: &str| {
        format!(
            "[[notice]]\nid = \"{id}\"\nmail = \"{url}\"\nfrom = \"安民 <anmin@example.cn>\"\nsystem = false\n{more}\n"
        )
    };
    let by_tls = "user = \"anmin\"\npassword_file = \"password\"\ntls_ca = \"mail.pem\"";
    site.write(
        "anmin.d/all.toml",
        &[
            GAS_AS_IT_SPEAKS,
            AT_ONCE,
            &stanza(
                "office",
                format!("smtp://localhost:{}", office.port),
                &format!("to = [\"duty@example.cn\", \"nobody@example.cn\"]\nlanguages = [\"zh-CN\", \"en-US\"]\npage = \"https://desk.example.cn\"\n{by_tls}"),
            ),
            &stanza("away", format!("smtps://localhost:{away}"), &format!("to = [\"duty@example.cn\"]\n{by_tls}")),
            &stanza("strange", format!("smtps://localhost:{}", strange.port), &format!("to = [\"duty@example.cn\"]\n{by_tls}")),
        ]
        .concat(),
    );
    let mut daemon = Daemon::start(site.folder());
    let mut device = Mqtt::connect(daemon.broker.expect("it has a broker").port(), "device");
    office.answer("RCPT", 1, "451 4.7.1 greylisted");
    office.answer("MAIL", 1, "421 4.3.2 too busy");
    office.answer("DATA", 1, "452 4.3.1 no space");
    raise(&mut device, "first", 60.0);
    let told = office.next("message_id");
    assert_eq!(told["for"], json!(["duty@example.cn"]), "{told:#}");
    assert_eq!((&told["account"], &told["defects"]), (&json!("anmin"), &json!([])), "{told:#}");
    let subject = text(&told["subject"]);
    assert!(subject.starts_with("【演练】【红色】"), "{subject}");
    let body = text(&told["text"]);
    for wanted in ["处置：", "[Exercise] [Red]", "Do: ", "https://desk.example.cn/#/now/"] {
        assert!(body.contains(wanted), "{wanted}: {body}");
    }
    for (name, value) in
        [("auto-submitted", "auto-generated"), ("x-priority", "1"), ("to", "duty@example.cn, nobody@example.cn")]
    {
        assert_eq!(told["headers"][name], value, "{told:#}");
    }
    // Whom the server does not know is said, and holds up nobody; the receipt says accepted, and not read.
    let said = daemon.until("not taken for recipient 2: 550");
    assert!(!said.contains("nobody@"), "{said}");
    let answered: Vec<Value> = office.said();
    assert!(answered.iter().all(|said| said.get("message_id").is_none()), "once: {answered:#?}");

    // Acknowledged at the desk: the same thread, another message.
    let alarm = daemon.alarm("gas/leak", "first/lel", "raised", |_| true);
    let web = daemon.web;
    let path = format!("/api/v1/alarms/{}/acknowledge", text(&alarm["id"]));
    let answer = anmin_tests::http::post(web, &path, &json!({ "who": "李明" }));
    assert!(answer.status < 300, "{}", answer.body);
    let next = office.next("已确认");
    assert_eq!(next["thread"], told["thread"], "{next:#}");
    assert_ne!(next["message_id"], told["message_id"], "{next:#}");
    assert!(text(&next["text"]).contains("处理人：李明"), "{next:#}");

    // The server that was away comes back and has all of it; the one of another authority never got a word.
    daemon.until("way_out=away");
    let mut back = Mailboxes::start(&site, "tls", away, "mail");
    let first = back.next("message_id");
    assert!(text(&first["subject"]).starts_with("【演练】"), "{first:#}");
    daemon.until("invalid peer certificate");
    assert_eq!(strange.said(), Vec::<Value>::new());
}

/// Goal: each number is told each alarm once, whatever the gateway says first, and no number is in log or journal. Method: a gateway that
/// answers the requests of one alarm after the other in every way that is no yes, then a number that it refuses for good.
#[test]
fn each_telephone_is_told_once_whatever_the_gateway_says_first_and_its_number_is_nowhere() {
    let mut telephones = Telephones::start();
    let site = Site::new("telephones", "");
    site.write("numbers", "# duty\n13800000001\n138-0000-0002\n");
    site.write("one", "13900000009\n");
    site.write("key", "demo-secret\n");
    site.write(
        "anmin.d/all.toml",
        &format!(
            r#"{GAS_AS_IT_SPEAKS}{AT_ONCE}
[[notice]]
id = "sms"
gateway = "{url}/sms?ref={{{{id}}}}"
speaks = "sms"
secret_file = "key"
headers = ["Authorization: APPCODE {{{{secret}}}}"]
body = '{{"to": "{{{{number}}}}", "text": "{{{{text}}}}", "id": "{{{{id}}}}"}}'
success = "/code = 0"
numbers_file = "numbers"
per_minute = 2000
system = false
page = "https://desk.example.cn"
[[notice]]
id = "voice"
gateway = "{url}/voice"
speaks = "voice"
body_type = "form"
body = 'to={{{{numbers}}}}&text={{{{text}}}}&id={{{{id}}}}'
numbers_file = "one"
min_level = "red"
system = false
"#,
            url = telephones.url
        ),
    );
    let mut daemon = Daemon::start(site.folder());
    let mut device = Mqtt::connect(daemon.broker.expect("it has a broker").port(), "device");

    // One yellow alarm after the other, each taken by one number and not by the other at first.
    for (n, how) in ["500", "none", "half", "401", "429 1", "302", "400", "413", "refuse"].iter().enumerate() {
        telephones.answer(1, how);
        raise(&mut device, &format!("g{n}"), 12.0);
        let answered = telephones.next("answered");
        assert_eq!(answered["answered"], *how);
        let both: Vec<Value> = (0..2).map(|_| telephones.next("\"repeated\"")).collect();
        let mut to: Vec<&str> = both.iter().map(|said| text(&said["to"])).collect();
        to.sort_unstable();
        assert_eq!(to, ["13800000001", "13800000002"], "{how}: each once: {both:#?}");
        assert!(both.iter().all(|said| said["repeated"] == false), "{how}: {both:#?}");
        for said in both.iter().map(|said| text(&said["text"])) {
            assert!(said.starts_with("【演练】【黄色】") && said.contains("处置："), "{said}");
            assert!(said.contains("https://desk.example.cn/#/now/") && said.encode_utf16().count() <= 201, "{said}");
        }
        daemon.wait("/api/v1/status", "it is through", |status| status["orders_waiting"] == 0);
        assert_eq!(telephones.said(), Vec::<Value>::new(), "{how}: and no more");
    }

    // A red one goes to everybody; with it, or after it, what is said of its station.
    raise(&mut device, "last", 60.0);
    let mut heard: BTreeMap<String, Value> = BTreeMap::new();
    while heard.len() < 3 {
        let said = telephones.next("\"repeated\"");
        heard.entry(text(&said["to"]).to_owned()).or_insert(said);
    }
    for number in ["13800000001", "13800000002"] {
        let sms = &heard[number];
        assert_eq!(sms["authorization"], "APPCODE demo-secret");
        assert_eq!(sms["path"], format!("/sms?ref={}", text(&sms["id"])));
    }
    let spoken = text(&heard["13900000009"]["text"]);
    assert!(spoken.starts_with("演练通知，这是演练。") && spoken.contains("红色"), "{spoken}");
    assert!(!spoken.contains("http") && !spoken.contains('【'), "{spoken}");
    daemon.wait("/api/v1/status", "all is through", |status| status["orders_waiting"] == 0);

    // Everything that a run leaves behind: its log, its journal, and whatever else it writes.
    let (folder, log) = (site.folder().to_owned(), daemon.said());
    assert_eq!(daemon.terminate(), Some(0));
    for number in ["13800000001", "13800000002", "13900000009", "demo-secret"] {
        let found = std::process::Command::new("grep")
            .args(["-rlaF", number, "--exclude=numbers", "--exclude=one", "--exclude=key"])
            .arg(&folder)
            .output()
            .expect("grep runs");
        assert_eq!(String::from_utf8_lossy(&found.stdout), "", "{number} is in a file of the site");
        assert!(!log.contains(number), "{log}");
    }
}

/// Goal: what a gateway reports afterwards is known of each person, over a restart, too; and what has reached nobody is told to the
/// next. Method: a gateway that takes everything and reports what it is told to, at the address that the site has given it.
#[test]
fn what_a_gateway_reports_is_known_of_each_person_and_what_reached_nobody_goes_to_the_next() {
    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    let mut telephones = Telephones::start();
    let site = Site::new("reports", "");
    site.write("numbers", "13800000001\n13800000002\n");
    site.write("one", "13900000009\n");
    site.write("report", SECRET);
    let body = r#"body = '{"to": "{{number}}", "text": "{{text}}", "id": "{{id}}"}'"#;
    site.write(
        "anmin.d/all.toml",
        &format!(
            r#"{GAS_AS_IT_SPEAKS}{AT_ONCE}
[[notice]]
id = "sms"
gateway = "{url}/sms"
speaks = "sms"
{body}
numbers_file = "numbers"
system = false
then = ["deputy"]
answered_within = "10m"
[notice.report]
secret_file = "report"
message = "/out_id"
status = "/status"
number = "/phone"
why = "/err"
delivered = ["DELIVRD"]
read = ["READ"]
failed = ["UNDELIV"]
[[notice]]
id = "deputy"
gateway = "{url}/sms"
speaks = "sms"
{body}
numbers_file = "one"
system = false
"#,
            url = telephones.url
        ),
    );
    let mut daemon = Daemon::start(site.folder());
    let mut device = Mqtt::connect(daemon.broker.expect("it has a broker").port(), "device");
    let address = |daemon: &Daemon, rest: &str| format!("http://{}/reports/{rest}", daemon.web);
    let ours = format!("sms/{SECRET}");
    let report = |id: &str, phone: &str, status: &str| json!([{ "out_id": id, "phone": phone, "status": status, "err": "SPEAK" }]);
    // What each number was told first, until every message is through.
    let told = |telephones: &mut Telephones, daemon: &Daemon| {
        let first: Vec<Value> = (0..2).map(|_| telephones.next("\"repeated\"")).collect();
        daemon.wait("/api/v1/status", "it is through", |status| status["orders_waiting"] == 0);
        let all = first.into_iter().chain(telephones.said()).filter(|said| said["to"] != "13900000009");
        all.map(|said| (text(&said["to"]).to_owned(), text(&said["id"]).to_owned())).collect::<Vec<_>>()
    };

    // Two have it, and one of them has read it, which is said after a restart.
    raise(&mut device, "g1", 12.0);
    for (number, id) in told(&mut telephones, &daemon) {
        let said = telephones.report(&address(&daemon, &ours), &report(&id, &format!("86{number}"), "DELIVRD"));
        assert_eq!(said, (200, r#"{"code":0,"msg":"ok"}"#.to_owned()));
    }
    raise(&mut device, "g2", 12.0);
    let second = told(&mut telephones, &daemon);
    assert_eq!(daemon.terminate(), Some(0));
    daemon = Daemon::start(site.folder());
    for (number, id) in &second {
        let reach = if number == "13800000001" { "READ" } else { "UNDELIV" };
        assert_eq!(telephones.report(&address(&daemon, &ours), &report(id, number, reach)).0, 200);
    }
    let standing = |daemon: &Daemon, point: &str, wanted: &Value| {
        let alarms = daemon.get("/api/v1/alarms");
        let alarms = alarms["alarms"].as_array().expect("a list");
        let alarm = alarms.iter().find(|alarm| alarm.to_string().contains(point)).expect("it is open");
        let path = format!("/api/v1/incidents/{}/messages", text(&alarm["incident"]));
        daemon.wait(&path, "the report", |told| {
            let of = told["messages"].as_array().expect("a list").iter().filter(|one| one["way_out"] == "sms");
            let of = of.map(|one| {
                one["recipients"].as_array().expect("a list").iter().map(|of| json!([of["n"], of["state"], of["why"]]))
            });
            of.map(|of| Value::Array(of.collect())).any(|of| of == *wanted)
        });
    };
    standing(&daemon, "g1", &json!([[1, "delivered", ""], [2, "delivered", ""]]));
    standing(&daemon, "g2", &json!([[1, "read", ""], [2, "failed", "SPEAK"]]));
    daemon.alarm("system/part", "way-out:sms/recipient-2", "said", |alarm| alarm["state"] == "unacknowledged");

    // A red one that reaches neither of them is told to the deputy, at once.
    let mut device = Mqtt::connect(daemon.broker.expect("it has a broker").port(), "device");
    raise(&mut device, "g3", 60.0);
    for (number, id) in told(&mut telephones, &daemon) {
        // Not by the gateway, which has the deputy to tell meanwhile.
        let said = http::post(daemon.web, &format!("/reports/{ours}"), &report(&id, &number, "UNDELIV"));
        assert_eq!(said.status, 200, "{}", said.body);
    }
    let deputy = telephones.next("13900000009");
    assert!(text(&deputy["text"]).contains("红色"), "{deputy}");

    // Strangers, and what nobody can read.
    for (rest, of, status) in [
        (format!("sms/{}", SECRET.replace('0', "1")), json!([]), 404),
        (format!("deputy/{SECRET}"), json!([]), 404),
        (format!("none/{SECRET}"), json!([]), 404),
        (ours.clone(), json!(7), 400),
        (ours, report("nobody-knows-it", "13800000001", "READ"), 200),
    ] {
        assert_eq!(telephones.report(&address(&daemon, &rest), &of).0, status, "{rest} {of}");
    }
    let log = daemon.said();
    assert!(!log.contains(SECRET) && !log.contains("13800000002"), "{log}");
}
