//! Looking after the databases: a backup of a daemon at work and what comes back of it, a journal that is away for a while,
//! orders that nobody would take.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;

use anmin_tests::daemon::{DEADLINE, Daemon, anmin};
use anmin_tests::http;
use anmin_tests::mqtt::Mqtt;
use anmin_tests::peers::CapReceiver;
use anmin_tests::site::{GAS_AS_IT_SPEAKS, Site};
use serde_json::{Value, json};

fn devices(daemon: &Daemon) -> Mqtt {
    Mqtt::connect(daemon.broker.expect("the site has a broker").port(), "devices")
}

fn say(device: &mut Mqtt, value: f64) {
    for _ in 0..2 {
        device.publish("acceptance/g1/up", json!({ "v": value }).to_string());
    }
}

fn run(arguments: &[&str], code: i32, parts: &[&str]) {
    let ran = anmin(arguments);
    let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert_eq!(ran.status.code(), Some(code), "{arguments:?}: {said}");
    for part in parts {
        assert!(said.contains(part), "{arguments:?}: no {part:?} in\n{said}");
    }
}

/// Goal: after an old backup has come back, the office hears everything anew that happens from then on, nothing of it
/// under an identifier that it knows. Method: one past goes on behind the backup and is thrown away; another begins at
/// the backup; the office keeps what it was sent by both.
#[test]
fn an_old_backup_comes_back_and_no_identifier_is_used_twice() {
    let mut cap = CapReceiver::start(&[]);
    let more = format!(
        r#"{GAS_AS_IT_SPEAKS}
[[cap]]
id = "office"
url = "{}"
min_level = "yellow"
sender = "acceptance.anmin.example.cn"
status = "exercise"

[[override]]
rule = "gas/leak"
on_delay = "0s"
off_delay = "0s"
"#,
        cap.url
    );
    let site = Site::new("keeping", &more);
    let folder = site.folder().to_str().expect("a plain name");
    let backup = site.path("backup");
    let backup = backup.to_str().expect("a plain name");

    let daemon = Daemon::start(site.folder());
    let mut device = devices(&daemon);
    let mut known = BTreeSet::new();
    let mut new = |message: &Value| {
        let identifier = message["identifier"].as_str().expect("a message has an identifier").to_owned();
        assert_eq!(message["repeated"], json!(false), "{message}");
        assert!(known.insert(identifier), "sent twice: {message}");
    };
    say(&mut device, 12.0);
    let alarm = daemon.alarm("gas/leak", "g1/lel", "yellow", |alarm| alarm["level"] == "yellow");
    new(&cap.next("Alert"));
    daemon.wait("/api/v1/status", "the office has taken it", |status| status["orders_waiting"] == 0);
    run(
        &["backup", backup, folder],
        0,
        &["state.db", "readings.db", "site/anmin.toml", "已备份", "secrets are among them"],
    );
    run(&["backup", backup, folder], 1, &["已存在且不为空", "is there already and not empty"]);
    run(
        &["restore", backup, folder],
        1,
        &["已被另一个安民进程使用", "another anmin is running", "systemctl stop anmin"],
    );
    run(&["fsck", folder], 0, &["完好 · sound", "open alarms 1", "未关闭报警 1"]);
    run(&["fsck", folder, "--repair"], 0, &["sound"]);

    // The past that will be forgotten.
    say(&mut device, 30.0);
    new(&cap.next("Update"));
    say(&mut device, 60.0);
    new(&cap.next("Update"));
    let acknowledge = format!("/api/v1/alarms/{}/acknowledge", alarm["id"].as_str().expect("an id"));
    assert_eq!(http::post(daemon.web, &acknowledge, &json!({ "who": "li" })).status, 200);
    daemon.wait("/api/v1/status", "the office has taken it", |status| status["orders_waiting"] == 0);
    assert_eq!(daemon.terminate(), Some(0));

    run(
        &["restore", backup, folder],
        0,
        &["state.db.before-restore-", "kept as", "报警编号自", "alarms count on from"],
    );
    run(&["fsck", folder], 0, &["sound"]);
    let daemon = Daemon::start(site.folder());
    let back = daemon.alarm("gas/leak", "g1/lel", "as it was", |_| true);
    assert_eq!((&back["id"], &back["level"], &back["acknowledged"]), (&alarm["id"], &json!("yellow"), &Value::Null));
    let mut device = devices(&daemon);
    say(&mut device, 30.0);
    new(&cap.next("Update"));
    say(&mut device, 60.0);
    new(&cap.next("Update"));
    say(&mut device, 0.1);
    assert_eq!(http::post(daemon.web, &acknowledge, &json!({ "who": "li" })).status, 200);
    daemon.wait("/api/v1/status", "the office has taken it", |status| status["orders_waiting"] == 0);
    assert_eq!(daemon.terminate(), Some(0));

    // A damaged database is found, and mended.
    let journal = site.path("data/state.db");
    let mut bytes = std::fs::read(&journal).expect("it is there");
    bytes[4_096 * 2..4_096 * 3].fill(0);
    std::fs::write(&journal, bytes).expect("it can be written");
    run(&["fsck", folder], 1, &["损坏：", "damaged: SQLite", "--repair", "nothing was changed"]);
    run(&["fsck", folder, "--repair"], 0, &["已损坏，已另存为 state.db.bad-", "mended"]);
    run(&["fsck", folder], 0, &["sound"]);

    // To a machine that has nothing yet.
    let other = Site::new("keeping-elsewhere", "");
    std::fs::remove_file(other.path("anmin.toml")).expect("it is there");
    let other = other.folder().to_str().expect("a plain name");
    run(&["restore", backup, other], 1, &["站点配置有误", "--with-site puts the site's files back"]);
    run(&["restore", backup, other, "--with-site"], 0, &["restored", "anmin.toml", "state.db"]);
    run(&["fsck", other], 0, &["open alarms 1"]);
}

/// Goal: an alarm that was raised while the journal was away goes out all the same, keeps no sensor waiting, and is known
/// after a power cut that comes once the journal is back. Method: something stands in the way of the databases' folder.
#[test]
fn what_was_decided_without_a_journal_is_in_it_when_it_comes_back() {
    let mut cap = CapReceiver::start(&[]);
    let more = format!(
        r#"{GAS_AS_IT_SPEAKS}
[[cap]]
id = "office"
url = "{}"
min_level = "yellow"
sender = "acceptance.anmin.example.cn"
status = "exercise"

[[override]]
rule = "gas/leak"
on_delay = "0s"
"#,
        cap.url
    );
    let site = Site::new("keeping-away", &more);
    site.write("data", "in the way of the databases' folder");
    let daemon = Daemon::start(site.folder());
    let part = |part: &'static str| move |alarm: &Value| alarm["subject"] == part;
    for away in ["store:state", "store:readings"] {
        daemon.wait("/api/v1/alarms", away, |list| {
            list["alarms"].as_array().is_some_and(|all| all.iter().any(part(away)))
        });
    }
    let mut device = devices(&daemon);
    // More than a broker sends without an acknowledgement.
    for n in 0..300 {
        device.publish("acceptance/g1/up", json!({ "v": 12.0 + f64::from(n % 2) }).to_string());
    }
    let alarm = daemon.alarm("gas/leak", "g1/lel", "raised", |_| true);
    let alert = cap.next("Alert");
    assert!(alert["identifier"].as_str().is_some_and(|name| name.contains(alarm["id"].as_str().unwrap_or("?"))));
    daemon
        .wait("/api/v1/status", "every reading judged", |status| status["readings"]["received"].as_u64() >= Some(300));

    std::fs::remove_file(site.path("data")).expect("it is there");
    daemon.wait("/api/v1/status", "well again", |status| {
        let troubles = status["troubles"].as_array().expect("a list");
        !troubles.iter().any(|trouble| trouble["part"].as_str().is_some_and(|part| part.starts_with("store:")))
    });
    daemon.wait("/api/v1/journal", "in the journal", |rows| {
        rows.as_array().is_some_and(|rows| rows.iter().any(|row| row["transition"]["alarm"]["id"] == alarm["id"]))
    });
    daemon.kill();

    let daemon = Daemon::start(site.folder());
    let back = daemon.alarm("gas/leak", "g1/lel", "as it was", |_| true);
    assert_eq!((&back["id"], &back["seq"]), (&alarm["id"], &alarm["seq"]));
}

/// A receiver that refuses everything, and one day takes it.
#[test]
fn a_dead_letter_is_listed_and_sent_again_by_command() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/hook", listener.local_addr().expect("it is bound"));
    let takes = Arc::new(AtomicBool::new(false));
    let (flag, (heard, requests)) = (Arc::clone(&takes), channel());
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(&stream);
            let (mut key, mut length, mut line) = (String::new(), 0, String::new());
            while reader.read_line(&mut line).is_ok_and(|n| n > 2) {
                let lower = line.to_ascii_lowercase();
                if let Some(value) = lower.strip_prefix("idempotency-key:") {
                    value.trim().clone_into(&mut key);
                }
                if let Some(value) = lower.strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap_or(0);
                }
                line.clear();
            }
            let _ = reader.read_exact(&mut vec![0; length]);
            let status = if flag.load(Ordering::SeqCst) { "204 No Content" } else { "400 Bad Request" };
            let _ = (&stream)
                .write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").as_bytes());
            if heard.send((key, status)).is_err() {
                return;
            }
        }
    });
    let more = format!(
        "{GAS_AS_IT_SPEAKS}\n[[webhook]]\nid = \"office\"\nurl = \"{url}\"\n[[override]]\nrule = \"gas/leak\"\non_delay = \"0s\"\n"
    );
    let site = Site::new("keeping-dead", &more);
    let daemon = Daemon::start(site.folder());
    say(&mut devices(&daemon), 12.0);
    let listed = daemon.wait("/api/v1/dead-letters", "given up", |letters| {
        letters.as_array().is_some_and(|all| all.iter().any(|letter| letter["level"] == "yellow"))
    });
    let letter = listed[0].clone();
    let order = letter["order"].as_str().expect("an id");
    let at = format!("http://{}", daemon.web);
    run(&["order", "list", "--url", &at], 0, &[order, "400"]);
    run(&["order", "resend", "nothing", "--url", &at, "--who", "li"], 1, &["没有这样的死信"]);
    takes.store(true, Ordering::SeqCst);
    run(&["order", "resend", order, "--url", &at, "--who", "li"], 0, &["已重新发送 · sent again:", order]);
    // What tells of the dead letter goes by the same way out, and may be taken first.
    let mut taken = std::iter::from_fn(|| requests.recv_timeout(DEADLINE).ok());
    assert!(taken.any(|(key, status)| key == order && status.starts_with("204")), "{order}");
    daemon.wait("/api/v1/dead-letters", "gone", |letters| {
        letters.as_array().is_some_and(|all| all.iter().all(|other| other["order"] != letter["order"]))
    });
}
