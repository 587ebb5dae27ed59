//! What is real leaves the community by two people and in time, or not at all; what does not arrive goes another way; what
//! was wrong is taken back from all who were told.

use std::net::SocketAddr;
use std::process::{Command, Output};

use anmin_tests::daemon::{DEADLINE, Daemon, anmin, pause};
use anmin_tests::http;
use anmin_tests::mqtt::Mqtt;
use anmin_tests::peers::{CapReceiver, EbPlatform, Hook, Mosquitto, eb_signer, free_port};
use anmin_tests::site::{GAS_AS_IT_SPEAKS, Site};
use serde_json::{Value, json};

/// At once, and one alarm a detector.
const AT_ONCE: &str = "[[override]]\nrule = \"gas/leak\"\non_delay = \"0s\"\n\
    [[override]]\nrule = \"gas/several_rooms\"\nenabled = false\n\
    [[override]]\nrule = \"gas/rising\"\nenabled = false\n";

const PASSWORD: &str = "correct horse battery staple";

/// A site that means what it says, with people.
fn site(name: &str, more: &str) -> Site {
    let site = Site::new(name, "");
    let head = std::fs::read_to_string(site.path("anmin.toml")).expect("it was written");
    site.write(
        "anmin.toml",
        &head.replace("exercise = true", "exercise = false\n").replace("[web]", "[web]\ntoken_file = \"token\""),
    );
    site.write("token", "a-token-of-the-test-0123\n");
    site.write("password", PASSWORD);
    site.write("anmin.d/all.toml", &format!("{GAS_AS_IT_SPEAKS}{AT_ONCE}{more}"));
    site
}

/// Adds these people to a daemon, each with a password of their own choice.
fn people(daemon: &Daemon, site: &Site) {
    for (name, role) in [("chen", "administrator"), ("li", "officer"), ("wang", "officer")] {
        let said = run(daemon, site, &["account", "add", name, "--role", role, "--json"]);
        let first = json_of(&said)["password"].as_str().expect("it opens the account once").to_owned();
        let (cookie, _) = ask(daemon.web, "/api/v1/session", None, &json!({ "account": name, "password": first }));
        let change = json!({ "old": first, "new": PASSWORD });
        ask(daemon.web, "/api/v1/session/password", Some(&cookie.expect("it signs in")), &change);
    }
}

/// Posts as a page does; gives the cookie that comes with the answer.
fn ask(web: SocketAddr, path: &str, cookie: Option<&str>, body: &Value) -> (Option<String>, Value) {
    use std::io::{Read as _, Write as _};
    let (body, cookie) = (body.to_string(), cookie.map(|cookie| format!("Cookie: {cookie}\r\n")).unwrap_or_default());
    let mut stream = std::net::TcpStream::connect(web).expect("the desk listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket takes it");
    write!(
        stream,
        "POST {path} HTTP/1.0\r\nHost: {web}\r\nSec-Fetch-Site: same-origin\r\nX-Anmin: test\r\n{cookie}Content-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("the desk reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the desk answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.contains(" 200 "), "POST {path}: {answer}");
    let cookie = head.lines().find_map(|line| line.strip_prefix("set-cookie: ")?.split(';').next());
    (cookie.map(str::to_owned), serde_json::from_str(body).expect("JSON"))
}

/// A command as who holds the shared token gives it.
fn run(daemon: &Daemon, site: &Site, words: &[&str]) -> Output {
    let (url, token) = (format!("http://{}", daemon.web), site.path("token").display().to_string());
    anmin(&[words, &["--url", &url, "--token-file", &token]].concat())
}

fn json_of(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Says yes; gives whether it was taken, and what was said.
fn approve(daemon: &Daemon, site: &Site, alarm: &str, account: &str, confirm: &str) -> (bool, String) {
    let password = site.path("password").display().to_string();
    let words =
        ["broadcast", "approve", alarm, "--account", account, "--password-file", &password, "--confirm", confirm];
    let said = run(daemon, site, &words);
    (said.status.success(), String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned())
}

/// The alarms of this rule, as soon as there are any that are as wanted.
fn alarms(daemon: &Daemon, site: &Site, rule: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let until = std::time::Instant::now() + DEADLINE;
    loop {
        let said = json_of(&run(daemon, site, &["alarm", "list", "--json"]));
        let mut all = said["alarms"].as_array().into_iter().flatten();
        if let Some(found) = all.find(|alarm| alarm["rule"] == rule && wanted(alarm)) {
            return found.clone();
        }
        assert!(std::time::Instant::now() < until, "no alarm of {rule} is as wanted: {said:#}");
        pause();
    }
}

fn raise(daemon: &Daemon, device: &str) {
    let mut mqtt = Mqtt::connect(daemon.broker.expect("it has a broker").port(), "device");
    mqtt.publish_all([(format!("acceptance/{device}/up"), json!({ "v": 60.0, "seq": 1 }).to_string().into_bytes())]);
}

fn target(id: &str, url: &str, more: &str) -> String {
    format!("[[cap]]\nid = \"{id}\"\nurl = \"{url}\"\nsender = \"anmin.test.example\"\n{more}\n")
}

/// The only one of these elements in there.
fn only<'v>(node: &'v Value, name: &str) -> &'v Value {
    match node[name].as_array().map(Vec::as_slice) {
        Some([one]) => one,
        other => panic!("{name} is there {} times in {node:#}", other.map_or(0, <[Value]>::len)),
    }
}

/// The value of this name in a list of `valueName` and `value`.
fn value_of<'v>(named: &'v Value, name: &str) -> &'v str {
    let one = named.as_array().into_iter().flatten().find(|one| *only(one, "valueName") == name);
    only(one.unwrap_or_else(|| panic!("no {name} in {named:#}")), "value").as_str().expect("text")
}

/// From the reading of a detector to the end of its alarm, with a restart that corrects where the detector is; what left is judged
/// by xmllint, and compared field by field with what the site and its rules say.
#[test]
fn each_message_reads_back_field_by_field_and_a_wrong_place_is_corrected() {
    let site = Site::new("cap-read-back", "");
    let kept = site.path("kept");
    let mut cap = CapReceiver::start(&["--save", &kept.display().to_string()]);
    let target = target(
        "town",
        &cap.url,
        "status = \"exercise\"\nexercise = \"D-7\"\ncontact = \"0000-0000000\"\narea_code = \"620102001001\"\n\
         sender_name = { zh = \"验收社区\", en = \"Acceptance Community\" }",
    );
    let place = "[[place]]\nid = \"b3\"\nbuilding = \"3\"\nposition = [36.0611, 103.8343]\n\
                 polygon = [[36.06, 103.83], [36.06, 103.84], [36.07, 103.84]]\n";
    let at_once = AT_ONCE.replacen("on_delay = \"0s\"", "on_delay = \"0s\"\noff_delay = \"0s\"", 1);
    let all = format!("{GAS_AS_IT_SPEAKS}{at_once}{target}{place}");
    site.write("anmin.d/all.toml", &all);
    let daemon = Daemon::start(site.folder());
    let say = |daemon: &Daemon, value: f64, seq: u32| {
        let mut mqtt = Mqtt::connect(daemon.broker.expect("it has a broker").port(), "device");
        mqtt.publish_all([("acceptance/g1/up".to_owned(), json!({ "v": value, "seq": seq }).to_string().into_bytes())]);
    };
    say(&daemon, 30.0, 1);
    let orange = cap.next("Alert");
    say(&daemon, 60.0, 2);
    let red = cap.next("Update");
    assert_eq!(daemon.terminate(), Some(0));
    site.write("anmin.d/all.toml", &all.replace("location = { place = \"b1\" }", "location = { place = \"b3\" }"));
    let daemon = Daemon::start(site.folder());
    say(&daemon, 60.0, 3);
    let elsewhere = cap.next("Update");
    let alarm = daemon.alarm("gas/leak", "g1/lel", "it has moved", |alarm| alarm["place"]["area"] == "b3");
    let id = alarm["id"].as_str().expect("an id");
    let changes = daemon.get(&format!("/api/v1/alarms/{id}/transitions"));
    let why: Vec<&Value> = changes.as_array().into_iter().flatten().map(|one| &one["transition"]["cause"]).collect();
    assert!(why.contains(&&json!("moved")), "{changes:#}");
    say(&daemon, 0.0, 4);
    daemon.alarm("gas/leak", "g1/lel", "the gas is gone", |alarm| alarm["active"] == false);
    for step in ["ack", "reset"] {
        let said = anmin(&["alarm", step, id, "--who", "li", "--url", &format!("http://{}", daemon.web)]);
        assert!(said.status.success(), "{said:?}");
    }
    let end = cap.next("Cancel");

    let circle = ("circle", "36.061100,103.834300 0.05");
    let outline = "36.060000,103.830000 36.060000,103.840000 36.070000,103.840000 36.060000,103.830000";
    let (first, then) = ((circle, ["1号楼", "Building 1"]), (("polygon", outline), ["3号楼", "Building 3"]));
    let mut references: Vec<String> = Vec::new();
    for (message, seq, kind, ((shape, corners), place), level, value, tails) in [
        (&orange, 1, "Alert", first, "orange", "30", [" 橙色预警", ": ORANGE"]),
        (&red, 2, "Update", first, "red", "60", [" 更新为红色预警", ": now RED"]),
        (&elsewhere, 3, "Update", then, "red", "60", [" 位置更正，红色预警", ": place corrected, RED"]),
        (&end, 6, "Cancel", then, "red", "60", [" 预警解除", ": all clear"]),
    ] {
        assert_eq!(message["faults"], json!([]), "{message:#}");
        let (read, over) = (&message["read"], kind == "Cancel");
        let (sent, expires) = (only(read, "sent"), only(&read["info"][0], "expires"));
        let parameters = read["info"][0]["parameter"].clone();
        assert_eq!(value_of(&parameters, "anmin:subject"), "g1/lel");
        assert_eq!(value_of(&parameters, "anmin:alarm"), format!("{id}/{seq}"));
        assert_eq!(value_of(&parameters, "anmin:level"), level);
        let info = |n: usize, language: &str, mark: &str| {
            let (limit, color) = if value == "30" { (25, ["橙色", "orange"][n]) } else { (50, ["红色", "red"][n]) };
            let description = [
                format!("{}可燃气体浓度{value} %LEL，达到{color}限值{limit} %LEL。", place[0]),
                format!("Combustible gas at {}: {value} %LEL, {color} limit {limit} %LEL.", place[1]),
            ];
            let clear = if over { ["预警解除。", "All clear. "][n] } else { "" };
            let headline = [
                format!("{}可燃气体泄漏{}", place[0], tails[0]),
                format!("Combustible gas leak, {}{}", place[1], tails[1]),
            ];
            let sender_name = ["验收社区", "Acceptance Community"][n];
            let mut info = json!({
                "language": [language],
                "category": ["Fire", "Infra"],
                "event": [format!("{mark}{}", ["燃气泄漏", "Gas leak"][n])],
                "responseType": [if over { "AllClear" } else { "Evacuate" }],
                "urgency": [if over { "Past" } else { "Immediate" }],
                "severity": [if over { "Minor" } else if level == "red" { "Extreme" } else { "Severe" }],
                "certainty": ["Observed"],
                "eventCode": [{ "valueName": ["cn:event"], "value": ["12P09"] }],
                "effective": [sent],
                "expires": [expires],
                "senderName": [sender_name],
                "headline": [format!("{mark}{}", headline[n])],
                "description": [format!("{mark}{clear}{}", description[n])],
                "contact": ["0000-0000000"],
                "parameter": parameters,
                "area": [{
                    "areaDesc": [place[n]],
                    shape: [corners],
                    "geocode": [{ "valueName": ["cn:gbt2260-ext12"], "value": ["620102001001"] }],
                }],
            });
            if !over {
                info["instruction"] =
                    json!([format!("{mark}{}", alarm["advice"][["zh", "en"][n]].as_str().expect("advice"))]);
            }
            info
        };
        let identifier = format!("acceptance-{id}-{seq}-town");
        let mut expected = json!({
            "identifier": [identifier],
            "sender": ["anmin.test.example"],
            "sent": [sent],
            "status": ["Exercise"],
            "msgType": [kind],
            "source": ["rule:gas/leak"],
            "scope": ["Restricted"],
            "restriction": ["仅限本社区处置人员 / community responders only"],
            "code": ["anmin:profile:1"],
            "note": [format!(
                "演练消息，没有真实险情 / Exercise, nobody is in danger; 演练编号 D-7 / exercise D-7{}",
                if over { "; 预警解除 / All clear" } else { "" }
            )],
            "incidents": [id],
            "info": [info(0, "zh-CN", "【演练】"), info(1, "en-US", "EXERCISE: ")],
        });
        if !references.is_empty() {
            expected["references"] = json!([references.join(" ")]);
        }
        assert_eq!(*read, expected, "what left as {kind} of transition {seq}");
        references.push(format!("anmin.test.example,{identifier},{}", sent.as_str().expect("a time")));
    }
    let mut files: Vec<_> =
        std::fs::read_dir(&kept).expect("it keeps them").map(|file| file.expect("a file").path()).collect();
    files.sort();
    assert!(files.len() >= 4, "{files:?}");
    let judged = Command::new("xmllint").args(["--noout", "--nonet", "--schema", &cap.schema]).args(&files).output();
    let judged = judged.expect("tests/setup.sh installs xmllint");
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stderr));
    // A judge that lets everything pass is none.
    let sound = std::fs::read_to_string(&files[0]).expect("it was kept");
    std::fs::write(&files[0], sound.replace("<scope>Restricted</scope>", "")).expect("the folder is ours");
    let judged = Command::new("xmllint").args(["--noout", "--nonet", "--schema", &cap.schema]).arg(&files[0]).status();
    assert!(!judged.expect("it is there").success(), "a message without a scope is none");
}

/// The residents' page, as soon as there is a notice on it or none.
fn residents(daemon: &Daemon, noticed: bool) -> String {
    let until = std::time::Instant::now() + DEADLINE;
    loop {
        let page = http::get(daemon.web, "/residents?lang=en").body;
        // What is over stands there for a while, too.
        if page.replace("<article class=\"over\"", "").contains("<article") == noticed {
            return page;
        }
        assert!(std::time::Instant::now() < until, "there should be {noticed} a notice: {page}");
        pause();
    }
}

#[test]
fn a_real_broadcast_waits_for_two_people_finds_another_way_and_is_taken_back_by_one() {
    let town = free_port();
    let (mut county, mut drills) = (CapReceiver::start(&[]), CapReceiver::start(&[]));
    let real = "status = \"actual\"\n";
    let site = site(
        "two-people",
        &[
            target(
                "town",
                &format!("http://127.0.0.1:{town}/cap"),
                &format!("{real}then = [\"county\"]\ndeliver_within = \"5s\""),
            ),
            target("county", &county.url, real),
            target("drills", &drills.url, ""),
            "[broadcast]\napprove_within = \"5m\"\n[residents]\nenabled = true\n".to_owned(),
        ]
        .concat(),
    );
    let daemon = Daemon::start(site.folder());
    people(&daemon, &site);
    raise(&daemon, "g1");
    // What says in every text that it is an exercise waits for nobody.
    let told = drills.next("Alert");
    assert_eq!((&told["ok"], &told["status"]), (&json!(true), &json!("Exercise")), "{told:#}");
    let alarm = alarms(&daemon, &site, "gas/leak", |alarm| alarm["broadcast"]["state"] == "waiting");
    assert_eq!((&alarm["broadcast"]["people"], &alarm["told_outside"]), (&json!(2), &json!(["drills"])), "{alarm:#}");
    let id = alarm["id"].as_str().expect("text");

    let (done, said) = approve(&daemon, &site, id, "li", "yes");
    assert!(!done && said.contains("Acceptance"), "a yes is typed: {said}");
    let (done, said) = approve(&daemon, &site, id, "li", "验收社区");
    assert!(done && said.contains("1/2"), "{said}");
    let (done, said) = approve(&daemon, &site, id, "li", "acceptance");
    assert!(!done && said.contains("another person"), "the same account twice is one person: {said}");
    // The shared token is nobody's.
    let token = format!(
        "/api/v1/alarms/{id}/approve-broadcast HTTP/1.0\r\nAuthorization: Bearer a-token-of-the-test-0123\r\nX-Rest: "
    );
    let answer = http::request(
        daemon.web,
        "POST",
        &token,
        &json!({ "who": "x", "typed": "Acceptance", "level": "red", "state": "waiting" }).to_string(),
    );
    assert_eq!(answer.expect("the desk answers").status, 409);

    assert!(residents(&daemon, false).contains("There are no notices now."), "what waits for a yes is not public");

    // A restart forgets neither the question nor the first yes.
    daemon.kill();
    let daemon = Daemon::start(site.folder());
    let (done, said) = approve(&daemon, &site, id, "wang", id);
    assert!(done && said.contains("approved 2/2"), "{said}");

    // The town does not listen: the county is told in its place, and the town when it listens again.
    let told = county.next("Alert");
    assert_eq!((&told["ok"], &told["status"]), (&json!(true), &json!("Actual")), "{told:#}");
    let page = residents(&daemon, true);
    assert!(page.contains("Building 1") && !page.contains("Exercise"), "{page}");
    let mut town = CapReceiver::start(&["--port", &town.to_string()]);
    let late = town.next("Alert");
    assert_eq!((&late["ok"], &late["status"]), (&json!(true), &json!("Actual")), "{late:#}");
    assert_ne!(late["identifier"], told["identifier"]);

    // One person takes it back, from all who were told.
    let said = run(&daemon, &site, &["broadcast", "cancel", id, "--why", "误报", "--who", "chen"]);
    assert!(said.status.success(), "{said:?}");
    for receiver in [&mut town, &mut county, &mut drills] {
        let told = receiver.next("Cancel");
        assert_eq!((&told["ok"], &told["references"]), (&json!(true), &json!(1)), "{told:#}");
    }
    let over = |page: &str| page.contains("This notice was taken back") && !page.contains("All clear");
    let page = residents(&daemon, false);
    assert!(over(&page), "the alarm stands: {page}");
    let pending = json_of(&run(&daemon, &site, &["broadcast", "pending", "--json"]));
    assert_eq!(pending["alarms"][0]["broadcast"]["state"], "taken_back", "{pending:#}");
    assert_eq!(pending["alarms"][0]["told_outside"], json!([]), "{pending:#}");

    let audit = json_of(&run(&daemon, &site, &["audit", "list", "--json"]));
    let rows = audit["rows"].as_array().expect("a list").iter();
    let mut said: Vec<String> = rows
        .filter(|row| row["what"].as_str().is_some_and(|what| what.starts_with("broadcast.")))
        .map(|row| {
            let refused = if row["refused"].is_null() { "" } else { " refused" };
            format!("{} {}{refused}", row["who"].as_str().unwrap_or_default(), row["what"].as_str().unwrap_or_default())
        })
        .collect();
    // What the power cut may have taken: a refusal waits a moment for its commit.
    said.retain(|row| !row.starts_with("x "));
    said.sort();
    let wanted = [
        "chen broadcast.take_back",
        "li broadcast.approve",
        "li broadcast.approve refused",
        "li broadcast.approve refused",
        "wang broadcast.approve",
    ];
    assert_eq!(said, wanted, "{audit:#}");

    // A power cut later it is still said.
    daemon.kill();
    let daemon = Daemon::start(site.folder());
    let page = residents(&daemon, false);
    assert!(over(&page), "{page}");
}

#[test]
fn what_nobody_lets_out_in_time_stays_and_the_officers_are_told() {
    let mut town = CapReceiver::start(&[]);
    let site = site(
        "nobody-says-yes",
        &[target("town", &town.url, "status = \"actual\""), "[broadcast]\napprove_within = \"10s\"\n".to_owned()]
            .concat(),
    );
    let daemon = Daemon::start(site.folder());
    people(&daemon, &site);
    raise(&daemon, "g1");
    let told = alarms(&daemon, &site, "system/broadcast", |alarm| alarm["active"] == true);
    assert_eq!(told["level"], "orange");
    let alarm = alarms(&daemon, &site, "gas/leak", |alarm| alarm["broadcast"]["state"] == "expired");
    let id = alarm["id"].as_str().expect("text");
    // A station was called all the same, and a no is written down with its reason.
    let list = json_of(&run(&daemon, &site, &["alarm", "list", "--json"]));
    assert_eq!(list["calls"][0]["alarm"], id, "{list:#}");
    let (done, said) = approve(&daemon, &site, id, "li", "Acceptance");
    assert!(done && said.contains("waiting 1/2"), "a late yes asks anew: {said}");
    let said = run(&daemon, &site, &["broadcast", "refuse", id, "--why", "burnt toast", "--who", "chen"]);
    assert!(said.status.success(), "{said:?}");
    let settled = alarms(&daemon, &site, "gas/leak", |alarm| alarm["broadcast"]["state"] == "refused");
    assert_eq!(settled["broadcast"]["no"]["why"], "burnt toast");
    alarms(&daemon, &site, "system/broadcast", |alarm| alarm["active"] == false);
    assert_eq!(town.taken(), Vec::<Value>::new(), "nothing has left");
}

/// One person may send a dead letter again, and by that alone nobody outside is told of what is over.
#[test]
fn a_warning_that_was_refused_is_not_sent_again_once_it_is_over() {
    let office = Hook::start();
    office.refuse(true);
    let site = site("over", &target("town", &office.url, "status = \"exercise\""));
    let daemon = Daemon::start(site.folder());
    people(&daemon, &site);
    raise(&daemon, "g1");
    let letters = |count: usize| {
        let until = std::time::Instant::now() + DEADLINE;
        loop {
            let said = json_of(&run(&daemon, &site, &["order", "list", "--json"]));
            let letters = said.as_array().cloned().unwrap_or_default();
            if letters.len() == count {
                return letters;
            }
            assert!(std::time::Instant::now() < until, "there are not {count} dead letters: {said:#}");
            pause();
        }
    };
    let alert = letters(1)[0]["order"].as_str().expect("text").to_owned();
    let resend = || {
        let said = run(&daemon, &site, &["order", "resend", "--way-out", "town", "--who", "chen"]);
        assert!(said.status.success(), "{said:?}");
        String::from_utf8_lossy(&said.stdout).into_owned()
    };
    // While it holds it may be tried as often as anybody likes.
    assert_eq!(resend(), format!("已重新发送 · sent again: {alert}\n"));
    letters(1);
    let alarm = alarms(&daemon, &site, "gas/leak", |_| true);
    let why = ["--why", "burnt toast", "--who", "chen"];
    let id = alarm["id"].as_str().expect("text");
    assert!(run(&daemon, &site, &[&["broadcast", "cancel", id], &why[..]].concat()).status.success());
    let cancel = letters(2).iter().find(|letter| letter["order"] != *alert).expect("another").clone();
    let mut said: Vec<String> = resend().lines().map(str::to_owned).collect();
    said.sort();
    let cancel = cancel["order"].as_str().expect("text");
    assert_eq!(
        said,
        [
            format!("已不再有效，未发送 · holds no longer, not sent: {alert}"),
            format!("已重新发送 · sent again: {cancel}"),
        ]
    );
}

/// Goal: who subscribes to what is real hears no exercise, and hears the end. Method: Debian's Mosquitto between, and a target over it.
#[test]
fn over_a_broker_a_broadcast_comes_under_the_topic_of_its_status() {
    let site = site("over-a-broker", "");
    let broker = Mosquitto::start(&site);
    site.write(
        "anmin.d/broker.toml",
        &format!(
            "[[mqtt_out]]\nid = \"office\"\nurl = \"mqtt://127.0.0.1:{}\"\n\
             [[cap]]\nid = \"town\"\nmqtt_out = \"office\"\nsender = \"acceptance.anmin.example.cn\"\nstatus = \"test\"\n",
            broker.port
        ),
    );
    let mut office = Mqtt::connect(broker.port, "emergency-office");
    office.subscribe("anmin/v1/acceptance/cap/#");
    let daemon = Daemon::start(site.folder());
    raise(&daemon, "g1");
    let alert = office.next("the alert", |_| true);
    let text = String::from_utf8_lossy(&alert.payload).into_owned();
    assert_eq!((alert.topic.as_str(), alert.retain), ("anmin/v1/acceptance/cap/test", false));
    assert!(text.contains("<status>Test</status>") && text.contains("<msgType>Alert</msgType>"), "{text}");
    let id =
        text.split_once("<identifier>").and_then(|(_, rest)| rest.split('<').next()).expect("it has one").to_owned();
    let alarm = alarms(&daemon, &site, "gas/leak", |alarm| alarm["active"] == true);
    let out = ["alarm", "out-of-service", alarm["id"].as_str().expect("text"), "--why", "painting", "--who", "chen"];
    let said = run(&daemon, &site, &out);
    assert!(said.status.success(), "{said:?}");
    let end = office.next("the end", |publish| String::from_utf8_lossy(&publish.payload).contains("<msgType>Cancel<"));
    let references = String::from_utf8_lossy(&end.payload).into_owned();
    assert!(references.contains(&id), "it refers to the alert: {references}");
}

/// Goal: nobody in the yard hears anything before two people have said yes. Method: a speaker at the site's own broker, told by a
/// siren that the public hears; whoever is on duty acknowledges first, as they do.
#[test]
fn a_siren_that_the_public_hears_waits_for_two_people_and_is_taken_back() {
    let speaker = "[[mqtt_out]]\nid = \"here\"\nbroker = \"embedded\"\n[[siren]]\nid = \"yard\"\npublic = true\nmqtt_out = \"here\"\n\
        topic = \"yard/speaker\"\npayload_on = \"evacuate\"\npayload_off = \"quiet\"\n";
    let site = site("broadcast-siren", speaker);
    let daemon = Daemon::start(site.folder());
    people(&daemon, &site);
    let mut yard = Mqtt::connect(daemon.broker.expect("it has a broker").port(), "speaker");
    yard.subscribe("yard/speaker");
    raise(&daemon, "g1");
    let alarm = alarms(&daemon, &site, "gas/leak", |alarm| alarm["broadcast"]["state"] == "waiting");
    let id = alarm["id"].as_str().expect("it has an id").to_owned();
    assert!(run(&daemon, &site, &["alarm", "ack", &id, "--who", "li"]).status.success());
    assert!(approve(&daemon, &site, &id, "li", "Acceptance").0);
    let said = yard.take(std::time::Duration::from_secs(2));
    assert!(said.iter().all(|publish| publish.payload[..] == *b"quiet"), "{said:?}");
    assert!(approve(&daemon, &site, &id, "wang", "Acceptance").0);
    yard.next("it sounds", |publish| publish.payload[..] == *b"evacuate");
    let told = alarms(&daemon, &site, "gas/leak", |alarm| alarm["broadcast"]["state"] == "approved");
    assert_eq!(told["told_outside"], json!(["yard"]), "{told:#}");
    assert!(run(&daemon, &site, &["broadcast", "cancel", &id, "--why", "mistake", "--who", "li"]).status.success());
    yard.next("it is quiet", |publish| publish.payload[..] == *b"quiet");
}

fn ebm(id: &str, url: &str, more: &str) -> String {
    format!(
        "[[ebm]]\nid = \"{id}\"\nurl = \"{url}\"\nsource = \"66201020010010314000001\"\n\
         dest = \"46201020000000314000001\"\narea_code = \"620102001001\"\n{more}\n"
    )
}

/// The messages about the alarms of an incident, by way out, as an officer sees them.
fn receipts(daemon: &Daemon, site: &Site, way_out: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let incident = alarms(daemon, site, "gas/leak", |alarm| alarm["incident"].is_string())["incident"].clone();
    let path = format!(
        "/api/v1/incidents/{}/messages HTTP/1.0\r\nAuthorization: Bearer a-token-of-the-test-0123\r\nX-Rest: ",
        incident.as_str().expect("text")
    );
    let until = std::time::Instant::now() + DEADLINE;
    loop {
        let said = http::request(daemon.web, "GET", &path, "").expect("the desk answers").json();
        let mut all = said["messages"].as_array().into_iter().flatten();
        if let Some(found) = all.find(|message| message["way_out"] == way_out && wanted(message)) {
            return found.clone();
        }
        assert!(std::time::Instant::now() < until, "no message by {way_out} is as wanted: {said:#}");
        pause();
    }
}

/// Goal: what a platform may send to every loudspeaker of a town leaves as real after two people and never otherwise, is signed, goes
/// to the spare platform where it is refused, and is taken back under the number that it had, over a restart. Method: two platforms in
/// Python, one of which refuses the signature, and a third that hears exercises.
#[test]
fn a_real_emergency_broadcast_waits_for_two_people_is_signed_and_taken_back_by_its_number() {
    let (mut town, mut county) = (EbPlatform::start(&["--key", "k1"]), EbPlatform::start(&["--key", "k2"]));
    let mut drills = EbPlatform::start(&[]);
    let signed = |key: &str| {
        format!("status = \"actual\"\nsign_command = [\"{}\", \"{key}\"]\ncert_sn = \"0A1B2C\"\n", eb_signer())
    };
    let site = site(
        "emergency-broadcast",
        &[
            ebm("town", &town.url, &format!("{}then = [\"county\"]\ndeliver_within = \"30s\"", signed("k1"))),
            ebm("county", &county.url, &signed("k2")),
            ebm("drills", &drills.url, "heartbeat = true"),
            "[broadcast]\napprove_within = \"5m\"\n".to_owned(),
        ]
        .concat(),
    );
    let daemon = Daemon::start(site.folder());
    people(&daemon, &site);
    raise(&daemon, "g1");
    // An exercise says so three times and waits for nobody.
    let drill = drills.next(3);
    assert_eq!((&drill["severity"], &drill["event"]), (&json!("1"), &json!("12P09")), "{drill:#}");
    let alarm = alarms(&daemon, &site, "gas/leak", |alarm| alarm["broadcast"]["state"] == "waiting");
    let id = alarm["id"].as_str().expect("text");
    assert!(approve(&daemon, &site, id, "li", "Acceptance").0);
    assert_eq!((town.taken(), county.taken()), (Vec::new(), Vec::new()), "one yes is none");

    town.answer("4 4 4");
    let (done, said) = approve(&daemon, &site, id, "wang", "Acceptance");
    assert!(done, "{said}");
    let refused = [town.next(1), town.next(1), town.next(1)];
    assert!(
        refused.iter().all(|told| told["ebdid"] == refused[0]["ebdid"] && told["cert"] == "0A1B2C"),
        "{refused:#?}"
    );
    let why = receipts(&daemon, &site, "town", |message| message["state"] == "dead");
    assert_eq!(
        why["receipt"],
        "HTTP 200, EBDResponse 4 (签名验证失败, the signature does not verify): 签名验证失败：证书未登记"
    );
    let trouble = alarms(&daemon, &site, "system/part", |alarm| alarm["subject"] == "way-out:town");
    assert!(trouble["message"]["zh"].as_str().is_some_and(|said| said.contains("签名验证失败")), "{trouble:#}");
    let told = county.next(1);
    assert_ne!(told["ebmid"], refused[0]["ebmid"], "a message of its own");
    let taken = receipts(&daemon, &site, "county", |message| message["state"] == "delivered");
    assert!(taken["receipt"].as_str().is_some_and(|said| said.contains("EBDResponse 1")), "{taken:#}");

    daemon.kill();
    let daemon = Daemon::start(site.folder());
    let said = run(&daemon, &site, &["broadcast", "cancel", id, "--why", "误报", "--who", "chen"]);
    assert!(said.status.success(), "{said:?}");
    let mut numbers = vec![refused[0]["ebmid"].clone(), told["ebmid"].clone(), drill["ebmid"].clone()];
    for (platform, before) in [(&mut town, &refused[0]), (&mut county, &told), (&mut drills, &drill)] {
        let end = platform.next(2);
        assert_eq!((&end["related"], &end["severity"]), (&before["ebmid"], &before["severity"]), "{end:#}");
        assert_eq!(end["text"].as_str().map(|text| text.contains("由值班人员撤回")), Some(true), "{end:#}");
        numbers.push(end["ebmid"].clone());
    }
    numbers.sort_by_key(ToString::to_string);
    numbers.dedup();
    assert_eq!(numbers.len(), 6, "no number is given twice, over a restart and several platforms of one sender");
    // The heartbeat follows the self-test.
    assert_eq!(drills.heartbeat()["faults"], json!([]));
}

/// Goal: whatever a platform answers, the package goes again as it was until it is taken or refused, and the officer reads why. Method: a
/// site that is an exercise, one alarm that grows, a list of answers, and a power cut in the middle.
#[test]
fn an_emergency_broadcast_goes_again_as_it_was_until_the_platform_has_taken_it() {
    let mut town = EbPlatform::start(&["--key", "k"]);
    let site = Site::new("emergency-answers", "");
    let missing = site.path("no-key");
    site.write("no-key", "");
    // The stanza says that it is meant for real; the site that is an exercise knows better.
    let stanza = format!(
        "status = \"actual\"\ndrill = \"terminal\"\nsign_command = [\"{}\", \"k\", \"{}\"]\ncert_sn = \"1\"",
        eb_signer(),
        missing.display()
    );
    let head = std::fs::read_to_string(site.path("anmin.toml")).expect("it was written");
    site.write("anmin.toml", &head.replace("[web]", "[web]\ntoken_file = \"token\""));
    site.write("token", "a-token-of-the-test-0123\n");
    site.write("anmin.d/all.toml", &format!("{GAS_AS_IT_SPEAKS}{AT_ONCE}{}", ebm("town", &town.url, &stanza)));
    let mut daemon = Daemon::start(site.folder());
    let mut mqtt = Mqtt::connect(daemon.broker.expect("it has a broker").port(), "device");
    let value = |mqtt: &mut Mqtt, device: &str, value: f64, seq: u32| {
        let payload = json!({ "v": value, "seq": seq }).to_string().into_bytes();
        mqtt.publish_all([(format!("acceptance/{device}/up"), payload)]);
    };
    value(&mut mqtt, "g1", 30.0, 1);
    // Without its signature nothing leaves.
    daemon.until("not signed");
    assert_eq!(town.taken(), Vec::<Value>::new());
    town.answer("500 none half silent other 302 bare");
    std::fs::remove_file(&missing).expect("it is there");
    let first = town.next(5);
    assert!(first["title"].as_str().is_some_and(|title| title.starts_with("【演练】")), "{first:#}");
    let again = [town.next(5), town.next(5)];
    daemon.kill();
    let daemon = Daemon::start(site.folder());
    let mut told = again.to_vec();
    while told.last().is_none_or(|last| last["answer"] != "bare") {
        told.push(town.next(5));
    }
    let same = |told: &Value| (&told["ebdid"], &told["ebmid"]) == (&first["ebdid"], &first["ebmid"]);
    assert!(told.iter().all(same), "{told:#?}");
    let taken = receipts(&daemon, &site, "town", |message| message["state"] == "delivered");
    assert!(taken["receipt"].as_str().is_some_and(|said| said.contains("EBDResponse 1")), "{taken:#}");

    // It grows, and the platform will not have it: one package after the other, each with its reason.
    town.answer("302 413 5");
    let mut mqtt = Mqtt::connect(daemon.broker.expect("it has a broker").port(), "device");
    value(&mut mqtt, "g1", 60.0, 2);
    let update = town.next(5);
    assert_eq!((&update["related"], &update["severity"]), (&first["ebmid"], &json!("1")), "{update:#}");
    assert_ne!(update["ebmid"], first["ebmid"]);
    let refused = receipts(&daemon, &site, "town", |message| message["state"] == "dead");
    assert!(refused["receipt"].as_str().is_some_and(|said| said.contains("EBDResponse 5 (其他错误")), "{refused:#}");
    assert_eq!([town.next(5), town.next(5)].map(|told| told["answer"].clone()), [json!("413"), json!("5")]);
}
