use std::sync::Mutex;

use anmin_rules::alarm::{Alarm, AlarmState, Cause};
use anmin_rules::order::OrderId;
use anmin_rules::rule::Text;
use anmin_sensors::document::{Document, Faults};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;

use super::super::template::shipped;
use super::super::words::{Language, Manner, Words};
use super::*;
use crate::samples::{self, RAISED, alarm, transition};

fn read(text: &str) -> (Option<Settings>, Vec<String>) {
    let faults = Faults::default();
    let doc = Document::parse("t.toml", text, &faults).expect("TOML");
    let found = Settings::read(&doc.root(&faults), Path::new("/nowhere"));
    (found, faults.take().iter().map(|fault| fault.message.clone()).collect())
}

fn mail(text: &str) -> Mail {
    let (settings, faults) = read(text);
    assert_eq!(faults, Vec::<String>::new(), "{text}");
    Mail::new(&settings.expect("settings"), &Clock::manual(RAISED)).expect("a carrier")
}

fn words() -> Words {
    Words {
        links: None,
        site: samples::site(),
        languages: [Language::Zh, Language::En].map(|language| (language, shipped(Manner::Mail, language))).into(),
        page: None,
        manner: Manner::Mail,
        most: MOST_BYTES,
    }
}

fn order(seq: u32, cause: Cause, alarm: Alarm) -> Order {
    let id = OrderId::new(format!("{}/{seq}/mail", alarm.id));
    let alarm = Alarm { seq, ..alarm };
    Order { id, channel: "mail".into(), body: OrderBody::Event(transition(AlarmState::Normal, cause, alarm)) }
}

const PEOPLE: &str =
    "from = '安民 <anmin@example.cn>'\nto = ['值班室 <a@example.cn>', 'b@example.cn', 'c@example.cn']\n";

#[test]
fn an_address_says_host_port_and_whether_it_is_encrypted() {
    for (url, plain, wanted) in [
        ("smtps://mail.example.cn", false, Ok(("mail.example.cn", 465, Secure::Tls))),
        ("smtp://mail.example.cn", false, Ok(("mail.example.cn", 587, Secure::StartTls))),
        ("smtp://[::1]:2525", false, Ok(("::1", 2525, Secure::StartTls))),
        ("smtp://10.0.0.9", true, Ok(("10.0.0.9", 25, Secure::Plain))),
        ("smtps://mail.example.cn", true, Err("`plain` is true")),
        ("mail.example.cn:25", false, Err("expected smtps:// or smtp://")),
        ("https://mail.example.cn", false, Err("expected smtps:// or smtp://")),
        ("smtp://li:hush@mail.example.cn", false, Err("carries a user name or password")),
        ("smtp://mail.example.cn/x", false, Err("more than a host and a port")),
    ] {
        match (server(url, plain), wanted) {
            (Ok((host, port, secure)), Ok(wanted)) => assert_eq!((host.as_str(), port, secure), wanted, "{url}"),
            (Err((why, _)), Err(wanted)) => assert!(why.contains(wanted) && !why.contains("hush"), "{url}: {why}"),
            (found, _) => panic!("{url}: {found:?}"),
        }
    }
}

#[test]
fn settings_tell_all_faults() {
    let (_, faults) = read(
        "mail = 'smtp://8.8.8.8'\nplain = true\nuser = 'li'\nfrom = 'nobody'\nto = ['a@b.cn', 'a@b.cn', '甲@b.cn']\n",
    );
    for wanted in
        ["`user` without `password_file`", "`from` has \"nobody\"", "names a@b.cn twice", "`to` has \"甲@b.cn\""]
    {
        assert!(faults.iter().any(|fault| fault.contains(wanted)), "{wanted}: {faults:#?}");
    }
    let (_, faults) = read(&format!("mail = 'smtp://8.8.8.8'\nplain = true\n{PEOPLE}"));
    assert!(faults.len() == 1 && faults[0].contains("8.8.8.8 is a public address"), "{faults:?}");
    let (_, faults) = read("mail = 'smtp://127.0.0.1'\nfrom = 'a@b.cn'\nto = []\n");
    assert!(faults.len() == 1 && faults[0].contains("expected 1 to 100"), "{faults:?}");
}

fn headers(message: &[u8]) -> Vec<(String, String)> {
    let text = std::str::from_utf8(message).expect("7 bits");
    let head = text.split_once("\r\n\r\n").expect("a head").0.replace("\r\n ", " ");
    head.split("\r\n")
        .map(|line| {
            let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("no header: {line}"));
            (name.to_owned(), value.to_owned())
        })
        .collect()
}

fn header(message: &[u8], name: &str) -> Option<String> {
    headers(message).into_iter().find(|(found, _)| found == name).map(|(_, value)| value)
}

/// Goal: what is said of one alarm stands in one thread, what is sent again is known, and what is grave looks so.
#[test]
fn a_message_has_a_lasting_id_and_the_thread_of_its_alarm() {
    let mail = mail(&format!("mail = 'smtps://mail.example.cn'\n{PEOPLE}"));
    let red = Alarm { level: Level::Red, peak: Level::Red, ..alarm() };
    let (raised, over) = (order(1, Cause::Raised, red), order(4, Cause::Returned, samples::closed()));
    let write = |orders: &[&Order]| {
        let letter = words().letter(orders).expect("events");
        mail.compose(&letter, orders).expect("a message")
    };
    let (first, again, last) = (write(&[&raised]), write(&[&raised]), write(&[&over]));
    let id = header(&first, "Message-ID");
    assert!(id.is_some() && id == header(&again, "Message-ID") && id != header(&last, "Message-ID"));
    let thread = "<0195506b-f3c0-7000-8000-000000000001@example.cn>";
    for message in [&first, &last] {
        assert_eq!(header(message, "References").as_deref(), Some(thread));
        assert_eq!(header(message, "In-Reply-To").as_deref(), Some(thread));
        assert_eq!(header(message, "Auto-Submitted").as_deref(), Some("auto-generated"));
        assert_eq!(header(message, "Date").as_deref(), Some("Sun, 01 Mar 2026 01:30:00 +0000"));
        assert_eq!(header(message, "Content-Type").as_deref(), Some("text/plain; charset=utf-8"));
    }
    assert_eq!(header(&first, "X-Priority").as_deref(), Some("1"));
    assert_eq!(header(&last, "X-Priority"), None);
    // What tells of several alarms belongs to no thread.
    let other = samples::order("d7", 1, Level::Red);
    let mut elsewhere = (*samples::transition(AlarmState::Normal, Cause::Raised, alarm())).clone();
    elsewhere.alarm =
        std::sync::Arc::new(Alarm { id: anmin_rules::alarm::AlarmId(uuid::Uuid::from_u128(7)), ..alarm() });
    let other = Order { body: OrderBody::Event(std::sync::Arc::new(elsewhere)), ..other };
    assert_eq!(header(&write(&[&raised, &other]), "References"), None);
}

#[test]
fn words_of_devices_and_people_are_no_headers() {
    let mail = mail(&format!("mail = 'smtps://mail.example.cn'\n{PEOPLE}"));
    let evil = "x\r\nBcc: all@example.cn\r\n\r\n.\r\nMAIL FROM:<a@b.cn>\u{2028}\0";
    let place = anmin_sensors::point::Place { room: evil.to_owned(), ..(*alarm().place).clone() };
    let evil_alarm = Alarm {
        title: Text { zh: evil.to_owned(), en: evil.to_owned() },
        message: Text { zh: evil.to_owned(), en: evil.to_owned() },
        place: std::sync::Arc::new(place),
        ..alarm()
    };
    let order = order(1, Cause::Raised, evil_alarm);
    let letter = words().letter(&[&order]).expect("an event");
    assert!(!letter.subject.chars().any(char::is_control), "{:?}", letter.subject);
    let message = mail.compose(&letter, &[&order]).expect("a message");
    let names: Vec<String> = headers(&message).into_iter().map(|(name, _)| name).collect();
    assert!(!names.iter().any(|name| name == "Bcc"), "{names:?}");
    assert_eq!(names.len(), 11, "{names:?}");
}

/// A server that answers each line as it is told to, and remembers what it was told.
async fn serve(answers: impl Fn(&str) -> &'static str + Send + 'static) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (read, mut write) = stream.into_split();
            let mut lines = BufReader::new(read).lines();
            let mut in_message = false;
            let greeting = answers("");
            if greeting.is_empty() || write.write_all(greeting.as_bytes()).await.is_err() {
                continue;
            }
            while let Ok(Some(line)) = lines.next_line().await {
                if in_message && line != "." {
                    continue;
                }
                seen.lock().expect("nobody panics with it").push(line.clone());
                let said = answers(&line);
                in_message = line == "DATA" && said.starts_with("354");
                if said.is_empty() || write.write_all(said.as_bytes()).await.is_err() {
                    break;
                }
            }
        }
    });
    (port, heard)
}

fn usual(line: &str) -> &'static str {
    match line.split(' ').next().unwrap_or_default() {
        "" => "220 mail.example.cn\r\n",
        "EHLO" => "250-mail.example.cn\r\n250 AUTH PLAIN\r\n",
        "AUTH" => "235 in\r\n",
        "DATA" => "354 go on\r\n",
        "." => "250 queued as 7\r\n",
        "QUIT" => "221 bye\r\n",
        _ => "250 OK\r\n",
    }
}

#[tokio::test]
async fn a_mailbox_that_is_refused_is_left_out_and_one_that_is_busy_is_told_later_and_alone() {
    let tries = std::sync::atomic::AtomicUsize::new(0);
    let (port, heard) = serve(move |line| match line {
        "RCPT TO:<b@example.cn>" => "550 no <b@example.cn> here\r\n",
        "RCPT TO:<c@example.cn>" if tries.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0 => "451 later\r\n",
        line => usual(line),
    })
    .await;
    let mail = mail(&format!("mail = 'smtp://127.0.0.1:{port}'\nplain = true\n{PEOPLE}"));
    let order = order(1, Cause::Raised, alarm());
    let first = mail.send(&words(), &[&order]).await;
    assert_eq!(first, Err(DeliveryError::Retry("recipient 3: 451 later".to_owned())));
    let receipt = mail.send(&words(), &[&order]).await.expect("two have it");
    assert_eq!(
        receipt.detail, "250 queued as 7, accepted; not taken for recipient 2: 550 no <(recipient 2)> here",
        "no address in a log"
    );
    assert!(receipt.text.is_some_and(|text| text.starts_with("【演练】【橙色】燃气泄漏，3号楼2单元5层501\n\n")));
    let heard = heard.lock().expect("nobody panics with it").clone();
    let asked = |who: &str| heard.iter().filter(|line| line.contains(who)).count();
    assert_eq!([asked("<a@"), asked("<b@"), asked("<c@")], [1, 1, 2], "{heard:#?}");
}

#[tokio::test]
async fn an_answer_means_what_the_standard_says() {
    #[derive(Debug, PartialEq)]
    enum Is {
        Taken,
        Retry,
        Never,
    }
    // What is answered to which line, what becomes of the message, and whether it left before.
    for (to, with, wanted, left) in [
        ("", "421 too busy\r\n", Is::Retry, false),
        ("", "554 go away\r\n", Is::Retry, false),
        ("", "HTTP/1.1 400 Bad Request\r\n\r\n", Is::Retry, false),
        ("", "", Is::Retry, false),
        ("AUTH", "535 wrong password\r\n", Is::Retry, false),
        ("MAIL", "452 full\r\n", Is::Retry, false),
        ("MAIL", "550 not you\r\n", Is::Never, false),
        ("RCPT", "421 going down\r\n", Is::Retry, false),
        ("RCPT", "550 nobody\r\n", Is::Never, false),
        ("RCPT", "251 he has moved\r\n", Is::Taken, true),
        ("DATA", "451 not now\r\n", Is::Retry, false),
        ("DATA", "554 never\r\n", Is::Never, false),
        ("DATA", "250 OK\r\n", Is::Retry, false),
        (".", "250 queued\r\n", Is::Taken, true),
        (".", "451 not now\r\n", Is::Retry, true),
        (".", "552 too large\r\n", Is::Never, true),
        (".", "354 once more\r\n", Is::Retry, true),
        (".", "", Is::Retry, true),
    ] {
        let (port, heard) = serve(move |line| {
            let verb = line.split(' ').next().unwrap_or_default();
            if verb == to { with } else { usual(line) }
        })
        .await;
        let mut mail = mail(&format!("mail = 'smtp://127.0.0.1:{port}'\nplain = true\n{PEOPLE}"));
        mail.login = Some(("li".to_owned(), Secret("hush-hush".to_owned())));
        let sent = mail.send(&words(), &[&order(1, Cause::Raised, alarm())]).await;
        let found = match &sent {
            Ok(_) => Is::Taken,
            Err(DeliveryError::Never(_)) => Is::Never,
            Err(_) => Is::Retry,
        };
        assert_eq!(found, wanted, "{to:?} {with:?}: {sent:?}");
        assert!(!format!("{sent:?}").contains("hush"), "{sent:?}");
        let heard = heard.lock().expect("nobody panics with it").clone();
        assert_eq!(heard.iter().any(|line| line == "."), left, "{to:?} {with:?}: {heard:?}");
    }
}

/// Goal: neither password nor message is ever in the clear where that was not asked for. Method: servers that offer no TLS, that
/// refuse it, and one that says something before TLS that would be read as the first answer after it.
#[tokio::test]
async fn a_server_without_tls_gets_neither_password_nor_message() {
    for (ehlo, starttls, wanted) in [
        ("250 AUTH PLAIN\r\n", "220 go\r\n", "offers no STARTTLS"),
        ("250-STARTTLSX\r\n250 AUTH PLAIN\r\n", "220 go\r\n", "offers no STARTTLS"),
        ("250-STARTTLS\r\n250 AUTH PLAIN\r\n", "454 not now\r\n", "454 not now"),
        ("250-STARTTLS\r\n250 OK\r\n", "220 go\r\n250 AUTH PLAIN\r\n", "more than it was asked"),
        ("250-STARTTLS\r\n250 OK\r\n", "220 go\r\n250-", "more than it was asked"),
    ] {
        let (port, heard) = serve(move |line| match line.split(' ').next().unwrap_or_default() {
            "EHLO" => ehlo,
            "STARTTLS" => starttls,
            _ => usual(line),
        })
        .await;
        let mut mail = mail(&format!("mail = 'smtp://127.0.0.1:{port}'\n{PEOPLE}"));
        mail.login = Some(("li".to_owned(), Secret("hush-hush".to_owned())));
        match mail.send(&words(), &[&order(1, Cause::Raised, alarm())]).await {
            Err(DeliveryError::Retry(why)) => assert!(why.contains(wanted), "{ehlo:?}: {why}"),
            other => panic!("{ehlo:?} {starttls:?}: {other:?}"),
        }
        let heard = heard.lock().expect("nobody panics with it").join("\n");
        assert!(!heard.contains("AUTH") && !heard.contains("MAIL"), "{heard}");
    }
}
