//! The package of an incident, from the daemon's records to another machine that has nothing but the file.

use std::fs;

use anmin_tests::daemon::{Daemon, anmin};
use anmin_tests::http;
use anmin_tests::mqtt::Mqtt;
use anmin_tests::peers::Robots;
use anmin_tests::site::{GAS_AS_IT_SPEAKS, Site};
use serde_json::{Value, json};

#[test]
fn an_incident_leaves_the_box_whole_and_a_changed_byte_is_named() {
    let more = "[[mqtt_out]]\nid = \"office\"\nbroker = \"embedded\"\n\
                [[cap]]\nid = \"public\"\nfolder = \"cap\"\nmin_level = \"orange\"\n\
                sender = \"acceptance.anmin.example.cn\"\nstatus = \"actual\"\n\
                [[notice]]\nid = \"duty\"\nrobot = \"feishu\"\naddress_file = \"feishu\"\nsecret_file = \"sign\"\neverybody_from = \"never\"\n\
                [[override]]\nrule = \"gas/leak\"\non_delay = \"0s\"\noff_delay = \"0s\"\n";
    let site = Site::new("archive", &format!("{GAS_AS_IT_SPEAKS}{more}"));
    let mut robots = Robots::start();
    site.write("feishu", &format!("{}/open-apis/bot/v2/hook/1\n", robots.url));
    site.write("sign", "demo-secret\n");
    let daemon = Daemon::start(site.folder());
    let mut device = Mqtt::connect(daemon.broker.expect("the site has a broker").port(), "devices");
    for value in [3.5, 60.0, 61.5] {
        device.publish("acceptance/g1/up", json!({ "v": value }).to_string());
    }
    let alarm = daemon.alarm("gas/leak", "g1/lel", "red", |alarm| alarm["level"] == "red");
    let told = robots.next("【红色】")["text"].as_str().expect("text").to_owned();
    let id = |of: &Value| of.as_str().expect("an id is text").to_owned();
    let incident = id(&alarm["incident"]);
    let act = |path: String, body: Value| {
        let answer = http::post(daemon.web, &path, &body);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    };
    act(format!("/api/v1/alarms/{}/acknowledge", id(&alarm["id"])), json!({ "who": "李值班" }));
    act(format!("/api/v1/alarms/{}/calls/st-1/on-scene", id(&alarm["id"])), json!({ "who": "王队员" }));
    act(
        format!("/api/v1/incidents/{incident}/note"),
        json!({ "who": "李值班", "text": "住户电话 13812345678", "photos": ["https://photos.example.cn/501"] }),
    );
    let many = json!({ "who": "李值班", "text": "照片太多", "photos": vec!["p.jpg"; 11] });
    let refused = http::post(daemon.web, &format!("/api/v1/incidents/{incident}/note"), &many);
    assert!(refused.status == 400 && refused.body.contains("`photos` names more than 10"), "{}", refused.body);
    for _ in 0..2 {
        device.publish("acceptance/g1/up", json!({ "v": 0.1 }).to_string());
    }
    daemon.alarm("gas/leak", "g1/lel", "over", |alarm| alarm["state"] == "latched");
    act(
        format!("/api/v1/incidents/{incident}/close"),
        json!({ "who": "李值班", "outcome": "real", "why": "阀门未关" }),
    );
    // A receipt is written a moment after its order was taken.
    daemon.wait(&format!("/api/v1/incidents/{incident}/messages"), "every receipt", |told| {
        let told = told["messages"].as_array().expect("a list");
        let taken = |message: &Value| message["state"] == "accepted" || message["state"] == "delivered";
        !told.is_empty() && told.iter().all(taken)
    });

    // Words that change afterwards change nothing of what was said.
    let path = site.path("anmin.toml");
    let text = fs::read_to_string(&path).expect("the site has a configuration");
    let other = text
        .replacen("everybody_from = \"never\"", "everybody_from = \"never\"\nlanguages = [\"en-US\"]", 1)
        .replacen("sender = \"acceptance.anmin.example.cn\"", "sender = \"other.anmin.example.cn\"", 1);
    site.write("anmin.toml", &other);
    act("/api/v1/rules/reload".to_owned(), json!({ "who": "李值班" }));
    let in_force = |of: &Value| of["rows"].to_string().contains("[[notice]] duty");
    daemon.wait("/api/v1/audit", "the other words are in force", in_force);

    let url = format!("http://{}", daemon.web);
    let export = |name: &str, more: &[&str]| {
        let out = site.path(name).display().to_string();
        let line = ["incident", "export", &incident, "--url", &url, "--who", "li", "--out", &out];
        let told = anmin(&[&line[..], more].concat());
        assert!(told.status.success(), "{told:?}");
        (fs::read(site.path(name)).expect("it was written"), String::from_utf8_lossy(&told.stdout).into_owned())
    };
    let (whole, said) = export("incident.tar", &[]);
    let seal = said.lines().find_map(|line| line.strip_prefix("封印 seal: ")).expect("it says the seal").to_owned();
    assert_eq!(export("again.tar", &[]).0, whole, "the same records, the same bytes");
    let text = String::from_utf8_lossy(&whole).into_owned();
    assert!(text.contains("\"as_sent\": true") && !text.contains("\"as_sent\": false"), "all of it left");
    assert!(text.contains("configurations_then"), "by which configuration it was judged");
    for part in [
        "事件报告：",
        "Incident report: ",
        "李值班",
        "王队员",
        "13812345678; 照片：https://photos.example.cn/501",
        "阀门未关",
        "g1/lel,%LEL,",
        ",61.5,good",
        "rule_hash",
        "on_scene",
        // What each limit rests on, in words that a reader of the report has.
        "红色 50 %LEL (规则库, GB/T 50493-2019",
        "red 50 %LEL (library, GB/T 50493-2019",
        "<td>事件开始</td>",
        "<td>incident: opened</td>",
    ] {
        assert!(text.contains(part), "no {part:?} in the package");
    }
    // Each CAP message to the letter, as it lies in the folder.
    let folder = fs::read_dir(site.path("cap")).expect("the folder is there").flatten();
    let xml = folder.filter(|file| file.file_name().to_string_lossy().ends_with(".xml"));
    let messages: Vec<Vec<u8>> = xml.map(|file| fs::read(file.path()).expect("it can be read")).collect();
    assert!(messages.len() >= 2, "an alert and its end");
    for message in &messages {
        assert!(whole.windows(message.len()).any(|part| part == message), "{}", String::from_utf8_lossy(message));
    }
    // A notice to the letter, as the group had it.
    let told = serde_json::to_string(&told).expect("text is JSON");
    assert!(text.contains(&told), "no {told} in the package");
    let (masked, _) = export("masked.tar", &["--masked"]);
    let text = String::from_utf8_lossy(&masked).into_owned();
    for part in ["李值班", "王队员", "13812345678", "photos.example.cn", "阀门未关", told.as_str()] {
        assert!(!text.contains(part), "{part:?} in the masked package");
    }
    daemon.wait("/api/v1/audit", "the audit knows the seal", |audit| audit["rows"].to_string().contains(&seal));
    daemon.kill();

    // Another machine: no site, no daemon.
    let elsewhere = site.path("elsewhere.tar");
    let verify = |bytes: &[u8], more: &[&str]| {
        fs::write(&elsewhere, bytes).expect("the folder can be written");
        let told = anmin(&[&["verify", &elsewhere.display().to_string()][..], more].concat());
        let text = [told.stdout, told.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        (told.status.code(), text)
    };
    let (code, said) = verify(&whole, &["--seal", &seal]);
    assert!(code == Some(0) && said.contains("完好") && said.contains(&seal), "{said}");
    assert_eq!(verify(&masked, &[]).0, Some(0));
    let (code, said) = verify(&masked, &["--seal", &seal]);
    assert!(code == Some(1) && said.contains("not the package of then"), "{said}");
    let place = |of: &[u8]| whole.windows(of.len()).position(|window| window == of).expect("it is there");
    for (at, entry) in [(place(b"61.5,good"), "readings.csv"), (place(b"<!doctype"), "report.html")] {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        let (code, said) = verify(&changed, &[]);
        assert!(code == Some(1) && said.contains(entry) && said.contains("已被改动"), "{entry}: {said}");
    }
    assert_eq!(anmin(&["verify", "/nowhere/x.tar"]).status.code(), Some(1));
    assert_eq!(anmin(&["verify"]).status.code(), Some(2));
}
