//! Offices above warn: by posts and by a feed. What they say is checked, taken once, told like an alarm, acknowledged upstream,
//! and leads to no broadcast.

use std::net::SocketAddr;
use std::process::Command;

use anmin_tests::daemon::{DEADLINE, Daemon, pause};
use anmin_tests::http;
use anmin_tests::peers::{CapReceiver, Peer, free_port, listening};
use anmin_tests::site::{GAS_AS_IT_SPEAKS, Site};
use serde_json::{Value, json};

const TOKEN: &str = "posts-of-the-county";

/// `minutes` after now, as CAP writes it.
fn stamp(minutes: i64) -> String {
    let when = format!("{minutes} minutes");
    let said = Command::new("date").env("TZ", "Asia/Shanghai").args(["-d", &when, "+%Y-%m-%dT%H:%M:%S%:z"]).output();
    String::from_utf8(said.expect("every machine has a date").stdout).expect("plain text").trim().to_owned()
}

/// A message of the county's office about a rainstorm.
fn message(identifier: &str, sent: &str, kind: &str, severity: &str, references: &str) -> String {
    let references =
        if references.is_empty() { String::new() } else { format!("<references>{references}</references>") };
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><alert xmlns=\"urn:oasis:names:tc:emergency:cap:1.2\">\
         <identifier>{identifier}</identifier><sender>qx@warn.example.cn</sender><sent>{sent}</sent>\
         <status>Actual</status><msgType>{kind}</msgType><scope>Public</scope>{references}<info><language>zh-CN</language>\
         <category>Met</category><event>暴雨预警</event><urgency>Expected</urgency><severity>{severity}</severity>\
         <certainty>Likely</certainty><expires>{}</expires><senderName>示例县气象台</senderName>\
         <headline>暴雨预警 &lt;b&gt;</headline><instruction>检查地下车库挡水板</instruction>\
         <area><areaDesc>示例县</areaDesc></area></info></alert>",
        stamp(60)
    )
}

fn post(address: SocketAddr, token: &str, body: &str) -> (u16, Value) {
    // The client says JSON of every body; the address takes CAP whatever it is called.
    let path = format!("/api/v1/warnings/county HTTP/1.0\r\nAuthorization: Bearer {token}\r\nX-Rest: ");
    let answer = http::request(address, "POST", &path, body).expect("the desk answers");
    (answer.status, answer.json())
}

/// The open cases of what is to be made ready.
fn precautions(incidents: &Value) -> Vec<Value> {
    let all = incidents["incidents"].as_array().into_iter().flatten();
    all.filter(|one| one["case"]["kind"] == "precaution").cloned().collect()
}

#[test]
fn a_warning_is_taken_once_told_acknowledged_upstream_and_never_broadcast() {
    let mut receiver = CapReceiver::start(&[]);
    let site = Site::new("warnings", "");
    site.write("posts", &format!("{TOKEN}\n"));
    let feeds = free_port();
    site.write(
        "anmin.d/all.toml",
        &format!(
            r#"{GAS_AS_IT_SPEAKS}
[[warning_source]]
id = "county"
urls = ["http://127.0.0.1:{feeds}/feed.atom"]
every = "5s"
post_token_file = "posts"
senders = ["qx@warn.example.cn"]
ack_url = "{}"
ack_sender = "acceptance.anmin.example.cn"
[[cap]]
id = "town"
folder = "cap"
system = true
min_level = "blue"
sender = "acceptance.anmin.example.cn"
"#,
            receiver.url
        ),
    );
    let daemon = Daemon::start(site.folder());
    let (first, sent) = ("W1", stamp(-5));
    let alert = message(first, &sent, "Alert", "Severe", "");
    assert_eq!(post(daemon.web, "another-token-of-theirs", &alert).0, 401);
    let (status, problem) = post(daemon.web, TOKEN, &alert.replace("Severe", "Orange"));
    assert_eq!((status, &problem["code"]), (422, &json!("not_cap")), "{problem}");
    let (status, problem) = post(daemon.web, TOKEN, &alert.replace("qx@", "zz@"));
    assert_eq!((status, &problem["code"]), (422, &json!("not_cap")), "{problem}");
    assert_eq!(
        post(daemon.web, TOKEN, &alert),
        (200, json!({"identifier": "W1", "sender": "qx@warn.example.cn", "taken": "new"}))
    );
    assert_eq!(post(daemon.web, TOKEN, &alert).1["taken"], "repeated");

    let shown = daemon.get("/api/v1/warnings");
    assert_eq!((&shown[0]["level"], &shown[0]["hazards"]), (&json!("orange"), &json!(["flood"])), "{shown:#}");
    assert_eq!(shown[0]["headline"]["zh"], "暴雨预警 <b>");
    let subject = shown[0]["subject"].as_str().expect("text").to_owned();
    let alarm = daemon.alarm("system/warning", &subject, "it is told", |alarm| alarm["level"] == "orange");
    let words = alarm["message"]["zh"].as_str().expect("text");
    assert!(words.contains("示例县气象台") && words.contains("检查地下车库挡水板"), "{words}");
    let acknowledge = format!("/api/v1/alarms/{}/acknowledge", alarm["id"].as_str().expect("text"));
    assert_eq!(http::post(daemon.web, &acknowledge, &json!({"who": "李值班"})).status, 200);
    let told = receiver.next("Ack");
    assert_eq!(
        (&told["ok"], &told["references"], &told["status"]),
        (&json!(true), &json!(1), &json!("Actual")),
        "{told}"
    );

    let ready = daemon.wait("/api/v1/incidents", "what is to be made ready", |all| precautions(all).len() == 1);
    let case = &precautions(&ready)[0];
    assert!(case["title"]["zh"].as_str().is_some_and(|title| title.contains("暴雨预警")), "{case:#}");
    let steps = case["checklist"].as_array().expect("steps");
    assert!(steps.len() >= 5 && steps.iter().all(|step| step["plan"] == "precaution"), "{case:#}");

    // The power fails; a feed says that it has become worse.
    daemon.kill();
    let update = message("W2", &stamp(-4), "Update", "Extreme", &format!("qx@warn.example.cn,W1,{sent}"));
    site.write("feeds/messages/two.xml", &update);
    site.write(
        "feeds/feed.atom",
        "<feed xmlns=\"http://www.w3.org/2005/Atom\"><entry><link type=\"application/cap+xml\" \
         href=\"messages/two.xml\"/></entry></feed>",
    );
    let folder = site.path("feeds");
    let arguments = [&feeds.to_string(), "--bind", "127.0.0.1", "--directory", folder.to_str().expect("plain text")];
    let _office = Peer::start("python3", &[&["-m", "http.server"], &arguments.map(|text| text as &str)[..]].concat());
    listening(feeds, "the feed");
    let daemon = Daemon::start(site.folder());
    let red = daemon.alarm("system/warning", &subject, "it is worse", |alarm| alarm["level"] == "red");
    assert_eq!(red["id"], alarm["id"], "the same alarm through all updates");
    let shown = daemon.wait("/api/v1/warnings", "the update", |shown| shown[0]["identifier"] == "W2");
    assert_eq!(shown.as_array().map(Vec::len), Some(1), "{shown:#}");

    let still = daemon.get("/api/v1/incidents");
    assert_eq!(precautions(&still).len(), 1, "one case for a warning with all its updates: {still:#}");

    let cancel = message("W3", &stamp(-3), "Cancel", "Extreme", &shown_reference(&update));
    assert_eq!(post(daemon.web, TOKEN, &cancel).1["taken"], "new");
    daemon.wait("/api/v1/warnings", "nothing is in force", |shown| shown == &json!([]));
    let over = |list: &Value| {
        let all = list["alarms"].as_array().into_iter().flatten();
        all.filter(|alarm| alarm["subject"] == *subject).all(|alarm| alarm["active"] == false)
    };
    daemon.wait("/api/v1/alarms?limit=1000", "its alarm is over", over);
    pause();
    let broadcast = std::fs::read_dir(site.path("cap")).map_or(0, |files| {
        let texts = files.flatten().filter_map(|file| std::fs::read_to_string(file.path()).ok());
        texts.filter(|text| text.contains("system/warning")).count()
    });
    assert_eq!(broadcast, 0, "what others warn of is theirs to broadcast");
}

fn shown_reference(update: &str) -> String {
    let sent = update.split_once("<sent>").and_then(|(_, rest)| rest.split_once("</sent>")).expect("it was sent").0;
    format!("qx@warn.example.cn,W2,{sent}")
}

/// The office's address is away when somebody acknowledges, and anmin is killed before it is back.
#[test]
fn what_was_acknowledged_before_a_power_cut_is_told_upstream_after_it_and_once() {
    let office = free_port();
    let site = Site::new("warnings-late", "");
    site.write("posts", &format!("{TOKEN}\n"));
    site.write(
        "anmin.d/all.toml",
        &format!(
            "{GAS_AS_IT_SPEAKS}[[warning_source]]\nid = \"county\"\npost_token_file = \"posts\"\n\
             ack_url = \"http://127.0.0.1:{office}/cap\"\nack_sender = \"acceptance.anmin.example.cn\"\n"
        ),
    );
    let daemon = Daemon::start(site.folder());
    assert_eq!(post(daemon.web, TOKEN, &message("W1", &stamp(-5), "Alert", "Severe", "")).1["taken"], "new");
    let subject = daemon.get("/api/v1/warnings")[0]["subject"].as_str().expect("text").to_owned();
    let alarm = daemon.alarm("system/warning", &subject, "it is told", |alarm| alarm["level"] == "orange");
    let acknowledge = format!("/api/v1/alarms/{}/acknowledge", alarm["id"].as_str().expect("text"));
    assert_eq!(http::post(daemon.web, &acknowledge, &json!({"who": "李值班"})).status, 200);
    daemon.kill();
    let mut receiver = CapReceiver::start(&["--port", &office.to_string()]);
    let daemon = Daemon::start(site.folder());
    let told = receiver.next("Ack");
    assert_eq!((&told["ok"], &told["read"]["addresses"]), (&json!(true), &json!(["qx@warn.example.cn"])), "{told}");
    assert!(told["read"]["note"][0].as_str().is_some_and(|note| note.contains("李值班")), "{told}");
    // Whoever has heard is not told again by the next run.
    let noted = || {
        std::fs::read_dir(site.path("data/warnings")).is_ok_and(|mut files| {
            files.any(|file| file.is_ok_and(|file| file.file_name().to_string_lossy().ends_with(".answered")))
        })
    };
    let until = std::time::Instant::now() + DEADLINE;
    while !noted() {
        assert!(std::time::Instant::now() < until, "it is not noted");
        pause();
    }
    daemon.kill();
    let daemon = Daemon::start(site.folder());
    // What this run tells upstream is told behind what the run before left.
    assert_eq!(post(daemon.web, TOKEN, &message("W9", &stamp(-4), "Alert", "Extreme", "")).1["taken"], "new");
    let shown = daemon.get("/api/v1/warnings");
    let worse = shown.as_array().into_iter().flatten().find(|one| one["identifier"] == "W9").expect("it is in force");
    let worse = worse["subject"].as_str().expect("text").to_owned();
    let alarm = daemon.alarm("system/warning", &worse, "it is told", |alarm| alarm["level"] == "red");
    let acknowledge = format!("/api/v1/alarms/{}/acknowledge", alarm["id"].as_str().expect("text"));
    assert_eq!(http::post(daemon.web, &acknowledge, &json!({"who": "李值班"})).status, 200);
    let told = receiver.next("Ack");
    assert!(told["read"]["references"][0].as_str().is_some_and(|of| of.contains(",W9,")), "{told}");
}
