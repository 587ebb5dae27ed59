//! Each way out fails without touching the others, and says so; what was due goes out when its peer is back.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::time::Instant;

use anmin_tests::daemon::{DEADLINE, Daemon, anmin, binary, pause};
use anmin_tests::http;
use anmin_tests::mqtt::Mqtt;
use anmin_tests::peers::{
    CapReceiver, Mailboxes, Mosquitto, Office, Peer, Robots, Telephones, VictoriaMetrics, free_port,
};
use anmin_tests::site::{GAS_AS_IT_SPEAKS, Site};
use serde_json::{Value, json};

#[test]
fn a_way_out_without_its_peer_holds_up_no_other() {
    let site = Site::new("ways-out", "");
    let mut database = VictoriaMetrics::start(&site);
    let office = free_port();
    site.write(
        "anmin.d/all.toml",
        &format!(
            r#"{GAS_AS_IT_SPEAKS}
[[mqtt_out]]
id = "alarms"
broker = "embedded"
[[mqtt_out]]
id = "gone"
url = "mqtt://127.0.0.1:{}"
[[webhook]]
id = "nobody"
url = "http://127.0.0.1:{}/hook"
[[cap]]
id = "office"
url = "http://127.0.0.1:{office}/cap"
min_level = "orange"
sender = "acceptance.anmin.example.cn"
status = "exercise"
[[influx]]
id = "tsdb"
url = "http://127.0.0.1:{}"
bucket = "anmin"
flush_interval = "100ms"
[[override]]
rule = "gas/leak"
on_delay = "0s"
"#,
            free_port(),
            free_port(),
            database.port
        ),
    );
    let mut daemon = Daemon::start(site.folder());
    let port = daemon.broker.expect("it has a broker").port();
    let (mut device, mut officer) = (Mqtt::connect(port, "device"), Mqtt::connect(port, "officer"));
    officer.subscribe("anmin/v1/acceptance/alarm/#");
    device.publish("acceptance/g0/up", r#"{"v":1.5,"seq":1}"#);
    database.wait("gas.lel_value", |stored| stored.len() == 1);
    database.stop();

    // Database, office, webhook and one broker are away; the alarms go out by the other one, gravest level and all.
    for n in 0..50 {
        for seq in 2..4 {
            device.publish(
                &format!("acceptance/g{n}/up"),
                json!({ "v": 30.0 + f64::from(n) / 10.0, "seq": seq }).to_string(),
            );
        }
        let topic = format!("anmin/v1/acceptance/alarm/gas/leak/g{n}/lel/event");
        officer.next("the event", |publish| publish.topic == topic);
    }
    let status = daemon.wait("/api/v1/status", "what waits", |status| status["orders_waiting"].as_u64() >= Some(150));
    assert!(status["readings_waiting"].as_u64() >= Some(100), "{status:#}");

    // The peers come back: everything that was due arrives.
    let mut cap = CapReceiver::start(&["--port", &office.to_string()]);
    let mut told: Vec<Value> = (0..50).map(|_| cap.next("Alert")).collect();
    assert!(told.iter().all(|alert| alert["ok"] == true && alert["repeated"] == false), "{told:#?}");
    told.sort_by_key(|alert| alert["identifier"].to_string());
    told.dedup_by_key(|alert| alert["identifier"].to_string());
    assert_eq!(told.len(), 50, "each alarm once");
    database.run();
    let stored = database.wait("gas.lel_value", |stored| stored.values().map(Vec::len).sum::<usize>() >= 101);
    assert_eq!(stored.values().map(Vec::len).sum::<usize>(), 101, "no reading is lost and none is there twice");
    daemon.wait("/api/v1/status", "the database has all", |status| status["readings_waiting"] == 0);

    let said = daemon.until("way_out=nobody");
    assert!(said.contains("WARN"), "{said}");
}

/// Three groups hear of the same alarm, each in its own way; then three hundred alarms come within seconds.
#[test]
fn groups_are_told_of_each_alarm_and_a_storm_comes_in_few_messages_the_grave_first() {
    let mut robots = Robots::start();
    let site = Site::new("notices", "");
    for (file, path) in [
        ("wecom", "/cgi-bin/webhook/send?key=KEY"),
        ("dingtalk", "/robot/send?access_token=1"),
        ("feishu", "/open-apis/bot/v2/hook/1"),
    ] {
        site.write(file, &format!("{}{path}\n", robots.url));
    }
    site.write("sign", "demo-secret\n");
    site.write(
        "anmin.d/all.toml",
        &format!(
            r#"{GAS_AS_IT_SPEAKS}
[[notice]]
id = "duty"
robot = "wecom"
address_file = "wecom"
system = false
[[notice]]
id = "property"
robot = "dingtalk"
address_file = "dingtalk"
secret_file = "sign"
min_level = "red"
languages = ["zh-CN", "en-US"]
[[notice]]
id = "town"
robot = "feishu"
address_file = "feishu"
secret_file = "sign"
min_level = "red"
everybody_from = "never"
[[override]]
rule = "gas/leak"
on_delay = "0s"
"#
        ),
    );
    let daemon = Daemon::start(site.folder());
    let mut device = Mqtt::connect(daemon.broker.expect("it has a broker").port(), "device");
    device.publish("acceptance/first/up", r#"{"v":60.0,"seq":1}"#);
    let mut heard: Vec<Value> = (0..3).map(|_| robots.next("【红色】")).collect();
    heard.sort_by_key(|said| said["robot"].to_string());
    for (said, robot, everybody) in
        [(&heard[0], "dingtalk", true), (&heard[1], "feishu", false), (&heard[2], "wecom", true)]
    {
        assert_eq!((&said["robot"], &said["code"], &said["everybody"]), (&json!(robot), &json!(0), &json!(everybody)));
        let text = said["text"].as_str().expect("text");
        assert!(text.contains("【演练】【红色】") && text.contains("处置："), "{text}");
        assert_eq!(text.contains("[Exercise] [Red]"), robot == "dingtalk", "{text}");
    }

    device.publish_all((0..300).map(|n| {
        let value = if n % 10 == 9 { 60.0 } else { 12.0 };
        (format!("acceptance/g{n}/up"), json!({ "v": value, "seq": 1 }).to_string().into_bytes())
    }));
    daemon.wait("/api/v1/status", "the alarms", |status| status["open_alarms"].as_u64() >= Some(301));
    daemon.wait("/api/v1/status", "everybody is told", |status| status["orders_waiting"] == 0);
    let told = robots.told();
    assert!(told.iter().all(|said| said["code"] == 0), "nobody is spoken to too often: {told:#?}");
    let duty: Vec<&str> =
        told.iter().filter(|said| said["robot"] == "wecom").filter_map(|said| said["text"].as_str()).collect();
    assert!(duty.len() <= 12, "{} messages: {duty:#?}", duty.len());
    let red = duty.iter().position(|text| text.contains("【红色】可燃气体泄漏 ×"));
    let yellow = duty.iter().position(|text| text.contains("【黄色】可燃气体泄漏 ×"));
    assert!(red.is_some() && red < yellow, "{duty:#?}");
}

/// Goal: each hears of what is theirs: by kind, by what nobody acts on, and of what another group has not taken. Method: four groups
/// of one robot, one of whose addresses leads nowhere, and an alarm that nobody acknowledges at first.
#[test]
fn each_group_hears_of_what_is_its_own_the_next_when_nobody_acts_and_the_reserve_when_one_is_not_reached() {
    let mut robots = Robots::start();
    let site = Site::new("routes", "");
    site.write("wecom", &format!("{}/cgi-bin/webhook/send?key=KEY\n", robots.url));
    site.write("dingtalk", &format!("{}/robot/send?access_token=1\n", robots.url));
    site.write("feishu", &format!("{}/open-apis/bot/v2/hook/1\n", robots.url));
    site.write("gone", &format!("http://127.0.0.1:{}/\n", free_port()));
    site.write("sign", "demo-secret\n");
    site.write(
        "anmin.d/all.toml",
        &format!(
            r#"{GAS_AS_IT_SPEAKS}
[[notice]]
id = "electricians"
robot = "wecom"
address_file = "wecom"
system = false
classes = ["power"]
[[notice]]
id = "away"
robot = "wecom"
address_file = "gone"
system = false
then = ["reserve"]
deliver_within = "5s"
[[notice]]
id = "reserve"
robot = "feishu"
address_file = "feishu"
secret_file = "sign"
system = false
[[notice]]
id = "manager"
robot = "dingtalk"
address_file = "dingtalk"
secret_file = "sign"
system = false
from_escalation = 1
[[override]]
rule = "gas/leak"
on_delay = "0s"
escalate_after = "2s"
[[override]]
rule = "gas/several_rooms"
enabled = false
"#
        ),
    );
    let checked = anmin(&["check", &site.folder().display().to_string()]);
    let said = format!("{}{}", String::from_utf8_lossy(&checked.stdout), String::from_utf8_lossy(&checked.stderr));
    assert!(!said.contains("is told at once of a red alarm"), "the group that is away is told at once: {said}");
    let daemon = Daemon::start(site.folder());
    let mut device = Mqtt::connect(daemon.broker.expect("it has a broker").port(), "device");
    device.publish("acceptance/g1/up", r#"{"v":60.0,"seq":1}"#);
    let first = robots.next("无人处置");
    assert_eq!(first["robot"], "dingtalk", "the manager, and not before nobody acts: {first}");
    let reserve = robots.next("\"feishu\"");
    assert!(reserve["text"].as_str().is_some_and(|text| text.contains("已转发下一出口")), "{reserve}");
    let alarm = daemon.alarm("gas/leak", "g1/lel", "stands", |alarm| alarm["active"] == true);
    let path = format!("/api/v1/alarms/{}/acknowledge", alarm["id"].as_str().expect("text"));
    assert_eq!(http::post(daemon.web, &path, &json!({ "who": "李值班" })).status, 200);
    let both: Vec<Value> = (0..2).map(|_| robots.next("已确认")).collect();
    let mut names: Vec<&str> = both.iter().filter_map(|said| said["robot"].as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["dingtalk", "feishu"], "who was told hears who is on it");
    let others = robots.told();
    assert!(others.iter().all(|said| said["robot"] != "wecom"), "gas is not theirs: {others:#?}");
}

/// Goal: a list of those whom anmin may dial holds for every kind of peer, also where its name is sound and leads elsewhere. Method:
/// `localhost`, which the list does not have, for one of each kind, until each has been said to be out of reach; its ports then
/// have seen nobody, while a receiver at an address that is listed has.
#[test]
fn a_peer_that_the_list_does_not_have_gets_not_one_connection() {
    let forbidden = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").expect("loopback has a free port"));
    let listed = TcpListener::bind("127.0.0.2:0").expect("all of 127.0.0.0/8 is this machine");
    let port = |of: &TcpListener| of.local_addr().expect("it is bound").port();
    let ([elsewhere, other], here) = (forbidden.each_ref().map(port), port(&listed));
    let site = Site::new("outgoing", GAS_AS_IT_SPEAKS);
    site.certificate("ca", 300);
    site.write("robot", &format!("http://localhost:{elsewhere}/hook\n"));
    site.write("numbers", "13800000001\n");
    site.write(
        "anmin.d/out.toml",
        &format!(
            r#"
[outgoing]
allow = ["10.8.0.0/16", "127.0.0.2"]
[[webhook]]
id = "listed"
url = "http://127.0.0.2:{here}/hook"
[[webhook]]
id = "hook"
url = "http://localhost:{elsewhere}/hook"
[[notice]]
id = "duty"
robot = "feishu"
address_file = "robot"
[[notice]]
id = "mail"
mail = "smtp://localhost:{elsewhere}"
plain = true
from = "anmin@example.cn"
to = ["duty@example.cn"]
[[notice]]
id = "sms"
gateway = "http://localhost:{elsewhere}/sms"
speaks = "sms"
body = '{{"to": "{{{{number}}}}", "text": "{{{{text}}}}"}}'
numbers_file = "numbers"
[[cap]]
id = "county"
url = "http://localhost:{elsewhere}/cap"
min_level = "orange"
sender = "acceptance.anmin.example.cn"
status = "exercise"
[[mqtt_out]]
id = "plain"
url = "mqtt://localhost:{elsewhere}"
[[mqtt_out]]
id = "by-tls"
url = "mqtts://localhost:{elsewhere}"
tls_ca = "ca.pem"
protocol_version = "3.1.1"
[[mqtt]]
id = "in-three"
url = "mqtt://localhost:{elsewhere}"
  [[mqtt.mapping]]
  topic = "three/{{device}}"
[[mqtt]]
id = "in-five"
url = "mqtts://localhost:{other}"
tls_ca = "ca.pem"
protocol_version = "5"
  [[mqtt.mapping]]
  topic = "five/{{device}}"
[[bus]]
id = "plant"
transport = "tcp"
host = "localhost"
port = {elsewhere}
[[bus]]
id = "server"
transport = "rtu_over_tcp"
host = "localhost"
port = {elsewhere}
[[device]]
id = "a"
profile = "yaoan-ya-k300"
bus = "plant"
unit_id = 1
[[device]]
id = "b"
profile = "yaoan-ya-k300"
bus = "server"
unit_id = 1
[[influx]]
id = "tsdb"
url = "http://localhost:{elsewhere}"
bucket = "anmin"
flush_interval = "100ms"
[[subscriber]]
id = "screen"
url = "http://localhost:{elsewhere}/in"
[[warning_source]]
id = "weather"
urls = ["http://localhost:{elsewhere}/feed"]
every = "5s"
[[override]]
rule = "gas/leak"
on_delay = "0s"
"#
        ),
    );
    let mut daemon = Daemon::start(site.folder());
    let mut device = Mqtt::connect(daemon.broker.expect("it has a broker").port(), "device");
    for _ in 0..2 {
        device.publish("acceptance/g1/up", json!({ "v": 60.0 }).to_string());
    }
    listed.set_nonblocking(true).expect("a socket has this option");
    let deadline = Instant::now() + DEADLINE;
    while let Err(error) = listed.accept() {
        assert!(
            error.kind() == ErrorKind::WouldBlock && Instant::now() < deadline,
            "who is listed is dialled: {error}"
        );
        pause();
    }
    let mut said = Vec::new();
    for way_out in ["hook", "duty", "mail", "sms", "county"] {
        said.push(daemon.until(&format!("probed one at a time way_out={way_out} ")));
    }
    for way_out in ["plain", "by-tls"] {
        said.push(daemon.until(&format!("way_out={way_out} peer=localhost")));
    }
    for bus in ["plant", "server"] {
        said.push(daemon.until(&format!("bus {bus}: cannot reach")));
    }
    for (scheme, port) in [("mqtt", elsewhere), ("mqtts", other)] {
        said.push(daemon.until(&format!("cannot connect to MQTT broker {scheme}://localhost:{port}")));
    }
    for line in said {
        assert!(line.contains("localhost is 127.0.0.1") || line.contains("localhost is ::1"), "{line}");
        assert!(line.contains("which `[outgoing] allow` does not list"), "{line}");
    }
    for forbidden in forbidden {
        forbidden.set_nonblocking(true).expect("a socket has this option");
        let nobody = forbidden.accept().map_err(|error| error.kind());
        assert!(matches!(nobody, Err(ErrorKind::WouldBlock)), "{nobody:?} has dialled in");
    }
    assert_eq!(daemon.terminate(), Some(0));
}

/// Goal: what the simulator plays reaches every kind of receiver, in the shape that its maker wants. Method: `anmin sim` against one
/// site with a Mosquitto, aiosmtpd, a gateway of short messages, the robots of three groups, a receiver of CAP that judges by the
/// schema of OASIS, and a reader of feeds. Limits are so low that the first breath of each danger is red.
#[test]
fn each_danger_that_the_simulator_plays_reaches_every_kind_of_receiver() {
    let site = Site::new("receivers", "");
    let mosquitto = Mosquitto::start(&site);
    let (mut robots, mut telephones) = (Robots::start(), Telephones::start());
    let (mut mailboxes, mut cap) = (Mailboxes::start(&site, "plain", 0, "none"), CapReceiver::start(&[]));
    let groups = [
        ("wecom", "/cgi-bin/webhook/send?key=KEY"),
        ("dingtalk", "/robot/send?access_token=1"),
        ("feishu", "/open-apis/bot/v2/hook/1"),
    ];
    let mut ways = String::new();
    for (robot, path) in groups {
        site.write(robot, &format!("{}{path}\n", robots.url));
        let signed = if robot == "wecom" { "" } else { "secret_file = \"sign\"\n" };
        ways += &format!(
            "[[notice]]\nid = \"{robot}\"\nrobot = \"{robot}\"\naddress_file = \"{robot}\"\nsystem = false\n{signed}"
        );
    }
    site.write("sign", "demo-secret\n");
    site.write("numbers", "13800000001\n");
    site.write("office-token", "a-token-of-the-office\n");
    let devices: String = [("cooker", "gas"), ("hall-smoke", "smoke"), ("hall", "heat"), ("garage", "level")]
        .map(|(id, kind)| {
            format!("[[device]]\nid = \"{id}\"\nprofile = \"anmin-json-{kind}\"\nplace = \"b1\"\nfloor = \"2\"\n")
        })
        .concat();
    let low = [
        ("gas/leak", "yellow = 3.0, orange = 4.0, red = 5.0"),
        ("fire/heat", "yellow = 27.0, orange = 28.0, red = 30.0"),
        ("flood/level", "blue = 2.0, yellow = 3.0, orange = 4.0, red = 5.0"),
    ];
    let limits = low.map(|(rule, limit)| {
        format!("[[override]]\nrule = \"{rule}\"\non_delay = \"0s\"\ndeadband = 0.1\nlimit = {{ {limit} }}\n")
    });
    let alone = ["gas/rising", "fire/rate_of_rise", "flood/rising"]
        .map(|rule| format!("[[override]]\nrule = \"{rule}\"\nenabled = false\n"));
    let rules = [limits.concat(), alone.concat()].concat();
    site.write(
        "anmin.d/all.toml",
        &format!(
            r#"{GAS_AS_IT_SPEAKS}{devices}{rules}{ways}
[[mqtt_out]]
id = "city"
url = "mqtt://127.0.0.1:{mqtt}"
[[notice]]
id = "mail"
mail = "smtp://127.0.0.1:{smtp}"
plain = true
from = "anmin@example.cn"
to = ["duty@example.cn"]
languages = ["zh-CN", "en-US"]
system = false
[[notice]]
id = "sms"
gateway = "{sms}/sms"
speaks = "sms"
body = '{{"to": "{{{{number}}}}", "text": "{{{{text}}}}", "id": "{{{{id}}}}"}}'
numbers_file = "numbers"
system = false
[[cap]]
id = "town"
url = "{town}"
sender = "acceptance.anmin.example.cn"
[[subscriber]]
id = "office"
token_file = "office-token"
min_level = "orange"
[subscriber.cap]
sender = "acceptance.anmin.example.cn"
"#,
            mqtt = mosquitto.port,
            smtp = mailboxes.port,
            sms = telephones.url,
            town = cap.url,
        ),
    );
    let daemon = Daemon::start(site.folder());
    let mut city = Mqtt::connect(mosquitto.port, "city");
    city.subscribe("anmin/v1/acceptance/alarm/#");
    let broker = format!("127.0.0.1:{}", daemon.broker.expect("it has a broker").port());
    let (program, folder) = (binary().display().to_string(), site.folder().display().to_string());
    for (scenario, rule, subject, zh, en) in [
        ("gas-leak", "gas/leak", "cooker/lel", "可燃气体", "Combustible gas"),
        ("fire", "fire/heat", "hall/temperature", "温度", "Heat"),
        ("rain-flood", "flood/level", "garage/level", "积水", "Water"),
    ] {
        let arguments =
            ["sim", scenario, "--site", &folder, "--broker", &broker, "--interval-ms", "200", "--no-modbus"];
        let _played = Peer::start(&program, &arguments);
        let alarm = daemon.alarm(rule, subject, "it is red", |alarm| alarm["level"] == "red");
        let topic = format!("anmin/v1/acceptance/alarm/{rule}/{subject}/event");
        let event = city.next("the event", |publish| publish.topic == topic);
        let event: Value = serde_json::from_slice(&event.payload).expect("JSON");
        assert_eq!((&event["rule"], &event["subject"]), (&json!(rule), &json!(subject)), "{event:#}");
        let mut alerts = std::iter::repeat_with(|| cap.next("Alert")).inspect(|alert| {
            assert_eq!((&alert["ok"], &alert["faults"]), (&json!(true), &json!([])), "{alert:#}");
        });
        alerts.find(|alert| alert.to_string().contains(zh)).expect("it goes on until there is none");
        drop(alerts);
        let mut groups: Vec<String> = Vec::new();
        while groups.len() < 3 {
            let said = robots.next(zh);
            assert_eq!(said["code"], 0, "taken by its shape and signature: {said:#}");
            let robot = said["robot"].as_str().expect("a name").to_owned();
            if !groups.contains(&robot) {
                groups.push(robot);
            }
        }
        let letter = mailboxes.next(zh);
        let text = letter["text"].as_str().expect("text");
        assert!(text.contains(en), "in both languages: {letter:#}");
        assert!(telephones.next(zh)["text"].as_str().is_some_and(|text| text.starts_with("【演练】")));
        let at = format!("/api/v1/alarms/{}/acknowledge", alarm["id"].as_str().expect("an id"));
        assert_eq!(http::post(daemon.web, &at, &json!({ "who": "li" })).status, 200);
    }
    let url = format!("http://{}/api/v1/subscriptions/office/feed.atom", daemon.web);
    let read = Office::reads_feed(&url, "a-token-of-the-office");
    assert_eq!(read["bozo"], false, "{read:#}");
    let entries = read["entries"].as_array().expect("a list");
    assert!(entries.len() >= 3 && entries.iter().all(|entry| entry["faults"] == json!([])), "{read:#}");
}
