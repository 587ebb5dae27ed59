//! The crews, end to end with the real binary: a kitchen's gas to the closed incident by the links on their phones; a station
//! off duty, one that declines, one that does not answer; and what was said of stations after a power cut.

use anmin_tests::daemon::{Daemon, anmin, binary};
use anmin_tests::http;
use anmin_tests::mqtt::Mqtt;
use anmin_tests::peers::{Peer, Robots, free_port};
use anmin_tests::site::{GAS_AS_IT_SPEAKS, Site};
use serde_json::{Value, json};

/// Three stations that answer for building 1, in this order; each with a group of its own.
fn community(name: &str, robots: &Robots, port: u16) -> Site {
    let site = Site::new(name, "");
    site.write("robot", &format!("{}/cgi-bin/webhook/send?key=KEY\n", robots.url));
    let mut toml = format!(
        r#"{GAS_AS_IT_SPEAKS}
[site]
id = "acceptance"
name = {{ zh = "验收社区", en = "Acceptance" }}
[web]
listen = "127.0.0.1:{port}"
[[place]]
id = "b1"
grid = "W01"
building = "1"
stations = ["st-a"]
[[device]]
id = "kitchen"
profile = "anmin-json-gas"
place = "b1"
floor = "5"
room = "501"
# So little gas that the simulator's leak comes to red within seconds.
[[override]]
rule = "gas/leak"
on_delay = "0s"
off_delay = "0s"
limit = {{ orange = 6.0, red = 8.0 }}
[[override]]
rule = "gas/rising"
enabled = false
"#
    );
    for (id, member, name) in [("a", "wang", "王强"), ("b", "zhao", "赵敏"), ("c", "li", "李勇")] {
        toml.push_str(&format!(
            r#"
[[station]]
id = "st-{id}"
name = "{id}站"
respond_within = "{}"
arrive_within = "2m"
neighbours = [{}]
  [[station.crew]]
  id = "{member}"
  name = "{name}"
  [[station.equipment]]
  id = "hose"
[[notice]]
id = "group-{id}"
robot = "wecom"
address_file = "robot"
stations = ["st-{id}"]
page = "http://127.0.0.1:{port}/"
"#,
            if id == "c" { "500ms" } else { "1m" },
            if id == "a" { r#""st-b", "st-c""# } else { "" },
        ));
    }
    site.write("anmin.toml", &toml);
    site
}

/// The path of the link in what a group was told.
fn link(said: &Value) -> String {
    let text = said["text"].as_str().expect("a notice is text");
    let at = text.find("/crew/").unwrap_or_else(|| panic!("no link in {text}"));
    text[at..].split_whitespace().next().expect("a link ends").to_owned()
}

fn check_all(daemon: &Daemon) {
    for id in ["st-a", "st-b", "st-c"] {
        let said = http::post(daemon.web, &format!("/api/v1/stations/{id}/check"), &json!({ "who": "陈值班" }));
        assert_eq!(said.status, 200, "{}", said.body);
    }
}

#[test]
fn from_a_kitchens_gas_to_the_closed_incident_by_the_crews_links() {
    let mut robots = Robots::start();
    let port = free_port();
    let site = community("crew-links", &robots, port);
    let mut daemon = Daemon::start(site.folder());
    // Nobody has looked at the equipment yet: known before anything happens.
    let notice =
        daemon.alarm("system/readiness", "station:st-a", "that it cannot respond", |alarm| alarm["active"] == true);
    assert!(
        notice["message"]["en"].as_str().is_some_and(|text| text.contains("equipment check overdue")),
        "{notice:#}"
    );
    check_all(&daemon);
    daemon.alarm("system/readiness", "station:st-a", "that it can", |alarm| alarm["active"] == false);

    let port = daemon.broker.expect("it has a broker").port();
    let (folder, broker) = (site.folder().display().to_string(), format!("127.0.0.1:{port}"));
    let line = ["sim", "gas-leak", "--site", &folder, "--broker", &broker, "--interval-ms", "200"];
    let leak = Peer::start(&binary().display().to_string(), &line);
    let said = robots.next("/crew/");
    assert!(said["text"].as_str().is_some_and(|text| text.contains("王强 http://")), "{said:#}");
    let path = link(&said);
    let page = http::get(daemon.web, &path);
    assert_eq!(page.status, 200);
    for words in ["可燃气体泄漏", "接警，马上到", "Accept, we come", "不能出动", "1号楼"] {
        assert!(page.body.contains(words), "the page lacks {words}: {}", page.body);
    }
    assert!(!page.body.contains("<script"), "{}", page.body);

    let other = if path.as_bytes()[20] == b'A' { 'B' } else { 'A' };
    let forged = format!("{}{other}{}", &path[..20], &path[21..]);
    for (path, status, words) in [(forged.as_str(), 403, "链接无效"), ("/crew/x", 403, "not valid")] {
        let answer = http::get(daemon.web, path);
        assert_eq!((answer.status, answer.body.contains(words)), (status, true), "{}", answer.body);
    }
    daemon.until("a crew's link from 127.0.0.1 opens nothing: forged or cut");
    assert_eq!(http::form(daemon.web, &path, "step=decline&why=").status, 400, "a reason must be given");
    assert_eq!(http::form(daemon.web, &path, "step=fly").status, 400);

    let alarm = daemon.alarm("gas/leak", "kitchen/lel", "the leak", |alarm| alarm["level"] == "red");
    let (id, incident) = (alarm["id"].as_str().unwrap().to_owned(), alarm["incident"].as_str().unwrap().to_owned());
    for (step, state) in [
        ("accept", "accepted"),
        ("on-the-way", "on_the_way"),
        ("on-scene", "on_scene"),
        ("under-control", "under_control"),
    ] {
        assert_eq!(http::form(daemon.web, &path, &format!("step={step}")).status, 303);
        let view = http::get(daemon.web, &format!("/api/v1/alarms/{id}")).json();
        let call = &view["calls"][0];
        let last = call["steps"].as_array().and_then(|steps| steps.last()).expect("it has steps");
        assert_eq!((&call["state"], &last["by"]), (&json!(state), &json!("王强")), "{call:#}");
    }
    let shown = anmin(&["call", "link", &id, "--url", &format!("http://{}", daemon.web)]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains(&path), "{}", String::from_utf8_lossy(&shown.stdout));

    // The plan of a red leak is its checklist; the officer works through it.
    let at = format!("/api/v1/incidents/{incident}");
    let steps: Vec<String> = http::get(daemon.web, &at).json()["incident"]["checklist"]
        .as_array()
        .expect("a checklist")
        .iter()
        .filter_map(|item| item["id"].as_str().map(str::to_owned))
        .collect();
    assert!(steps.contains(&"gas/evacuate".to_owned()) && steps.contains(&"gas/call-119".to_owned()), "{steps:?}");
    for step in &steps {
        let (what, body) = match step.as_str() {
            "gas/call-119" => ("skip", json!({ "who": "陈值班", "step": step, "why": "已控制" })),
            _ => ("tick", json!({ "who": "陈值班", "step": step })),
        };
        assert_eq!(http::post(daemon.web, &format!("{at}/{what}"), &body).status, 200, "{step}");
    }
    let called = http::post(daemon.web, &format!("{at}/called-119"), &json!({ "who": "陈值班", "text": "已报告" }));
    assert_eq!(called.json()["incident"]["called_119"]["by"], "陈值班");

    // The valve is closed. Twice: when the broker has taken the first, it has read the last word of the simulator.
    drop(leak);
    let mut device = Mqtt::connect(port, "device");
    for _ in 0..2 {
        device.publish("acceptance/kitchen/up", r#"{"v":0.0}"#);
    }
    daemon.wait(&format!("/api/v1/alarms/{id}"), "the danger is over", |view| view["alarm"]["active"] == false);
    let body = json!({ "who": "陈值班", "outcome": "real", "why": "灶具软管脱落" });
    let closed = http::post(daemon.web, &format!("{at}/close"), &body);
    assert_eq!(closed.json()["incident"]["state"], "closed", "{}", closed.body);
    let gone = http::get(daemon.web, &path);
    assert_eq!((gone.status, gone.body.contains("本次呼叫已结束")), (410, true), "{}", gone.body);
    daemon.until("opens nothing: for a call that is over");

    let audit = http::get(daemon.web, "/api/v1/audit?limit=200").json();
    let by_link =
        |row: &&Value| row["through"] == "crew_link" && row["what"] == "call.on_scene" && row["who"] == "王强";
    assert_eq!(audit["rows"].as_array().expect("rows").iter().filter(by_link).count(), 1, "{audit:#}");
    let timeline = http::get(daemon.web, &format!("{at}/timeline?limit=1000")).json();
    for cause in ["ticked", "skipped", "called_119", "closed"] {
        let found = timeline.as_array().expect("rows").iter().any(|row| row["incident"]["cause"] == cause);
        assert!(found, "the history lacks {cause}");
    }
}

#[test]
fn a_station_off_duty_one_that_declines_and_one_that_does_not_answer() {
    let mut robots = Robots::start();
    let port = free_port();
    let site = community("crew-away", &robots, port);
    let daemon = Daemon::start(site.folder());
    check_all(&daemon);
    let off = http::post(daemon.web, "/api/v1/stations/st-a/off-duty", &json!({ "who": "陈值班", "why": "外出训练" }));
    assert_eq!((&off.json()["ready"], &off.json()["unready"][0]["code"]), (&json!(false), &json!("off_duty")));
    let said = anmin(&["station", "list", "--url", &format!("http://{}", daemon.web)]);
    assert!(
        String::from_utf8_lossy(&said.stdout).contains("已停勤（外出训练）"),
        "{}",
        String::from_utf8_lossy(&said.stdout)
    );
    let hand_over = http::post(
        daemon.web,
        "/api/v1/stations/st-b/hand-over",
        &json!({ "who": "陈值班", "crew": ["zhao"], "note": "水带少一根" }),
    );
    assert_eq!(hand_over.json()["on_duty"][0]["name"], "赵敏");

    let mut device = Mqtt::connect(daemon.broker.expect("it has a broker").port(), "device");
    device.publish("acceptance/kitchen/up", r#"{"v":60.0,"seq":1}"#);
    // The first is passed over, the second declines by its link, the third does not answer: then the first is called after all.
    let said = robots.next("/crew/");
    let text = said["text"].as_str().unwrap_or_default();
    assert!(text.contains("赵敏 http://") && text.contains("a站不能出动：已停勤（外出训练）"), "{text}");
    let path = link(&said);
    assert_eq!(http::form(daemon.web, &path, "step=decline&reason=%E4%BA%BA%E5%91%98%E4%B8%8D%E8%B6%B3").status, 303);
    let alarm = daemon.alarm("gas/leak", "kitchen/lel", "the leak", |alarm| alarm["active"] == true);
    let at = format!("/api/v1/alarms/{}", alarm["id"].as_str().unwrap_or_default());
    let state = |view: &Value, station: &str| {
        let calls = view["calls"].as_array().cloned().unwrap_or_default();
        calls.iter().find(|call| call["station"] == station).map_or(Value::Null, |call| call["state"].clone())
    };
    let view = daemon.wait(&at, "the last one is called", |view| state(view, "st-a") == "called");
    assert_eq!((state(&view, "st-b"), state(&view, "st-c")), (json!("declined"), json!("unanswered")), "{view:#}");
    daemon.kill();

    // A power cut: the off duty, the hand-over and the call are as they were, and a late answer still counts.
    let daemon = Daemon::start(site.folder());
    let stations = http::get(daemon.web, "/api/v1/stations").json();
    assert_eq!(
        (&stations[0]["off_duty"]["why"], &stations[1]["handed_over"]["note"]),
        (&json!("外出训练"), &json!("水带少一根"))
    );
    assert_eq!(stations[2]["ready"], true, "the check is known, too: {stations:#}");
    let view = http::get(daemon.web, &at).json();
    assert_eq!((state(&view, "st-a"), state(&view, "st-b")), (json!("called"), json!("declined")), "{view:#}");
    assert_eq!(http::form(daemon.web, &path, "step=on-the-way").status, 303, "the link holds over a restart");
    let view = http::get(daemon.web, &at).json();
    assert_eq!(state(&view, "st-b"), "on_the_way");
}

/// What need not wait for a clock: another station by hand, by page and terminal, and one step up; each once, and all of it
/// written down with who and why.
#[test]
fn an_officer_calls_another_station_and_escalates_without_waiting_for_a_clock() {
    let mut robots = Robots::start();
    let port = free_port();
    let site = community("by-hand", &robots, port);
    let daemon = Daemon::start(site.folder());
    check_all(&daemon);
    let off = http::post(daemon.web, "/api/v1/stations/st-c/off-duty", &json!({ "who": "陈值班", "why": "外出训练" }));
    assert_eq!(off.status, 200, "{}", off.body);
    let mut device = Mqtt::connect(daemon.broker.expect("it has a broker").port(), "device");
    device.publish("acceptance/kitchen/up", r#"{"v":60.0,"seq":1}"#);
    let first = link(&robots.next("王强 http://"));
    let alarm = daemon.alarm("gas/leak", "kitchen/lel", "the leak", |alarm| alarm["active"] == true);
    let id = alarm["id"].as_str().expect("it has an id");
    let at = format!("/api/v1/alarms/{id}");
    let say = |what: &str, body: Value| http::post(daemon.web, &format!("{at}/{what}"), &body);

    let url = format!("http://{}", daemon.web);
    let run = |line: &[&str]| {
        let said = anmin(&[line, &["--url", &url]].concat());
        (said.status.code(), String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned())
    };
    let (code, stations) = run(&["call", "stations", id]);
    assert_eq!(code, Some(0), "{stations}");
    for words in ["st-a  a站", "已呼叫", "st-b  b站", "能出动 ready", "off duty (外出训练)", "升级 escalation: 0 / 1"]
    {
        assert!(stations.contains(words), "no {words} in {stations}");
    }
    let (code, said) = run(&["call", "new", id, "st-b", "--why", "火势扩大", "--who", "陈值班"]);
    assert_eq!((code, said.contains("st-b")), (Some(0), true), "{said}");
    let path = link(&robots.next("赵敏 http://"));
    let again = say("call-station", json!({ "who": "陈值班", "station": "st-b", "why": "x" }));
    assert_eq!((again.status, &again.json()["code"]), (409, &json!("not_allowed")), "{}", again.body);
    assert_eq!(http::form(daemon.web, &path, "step=reinforce").status, 409, "it has not said that it comes");
    assert_eq!(http::form(daemon.web, &path, "step=accept").status, 303, "its links are those of every call");
    let asked = http::form(daemon.web, &path, "step=reinforce&why=%E6%B0%B4%E5%B8%A6%E4%B8%8D%E5%A4%9F");
    assert_eq!(
        asked.status, 303,
        "the first station has not answered yet, and nobody is called besides: {}",
        asked.body
    );

    let body = |insist: bool| json!({ "who": "陈值班", "station": "st-c", "why": "就近", "insist": insist });
    let refused = say("call-station", body(false));
    assert_eq!((refused.status, &refused.json()["code"]), (409, &json!("station_unready")), "{}", refused.body);
    assert_eq!(say("call-station", body(true)).status, 200);
    // It does not answer within its half a second: one step up, as for every call.
    daemon.wait(&at, "one step up", |view| view["alarm"]["escalation"] == 1);
    let slow = say("escalate", json!({ "who": "陈值班", "step": 1, "why": "x" }));
    assert_eq!((slow.status, &slow.json()["alarm"]["escalation"]), (200, &json!(1)), "the clock was faster");
    let beyond = say("escalate", json!({ "who": "陈值班", "step": 2, "why": "x" }));
    assert_eq!((beyond.status, &beyond.json()["code"]), (409, &json!("not_allowed")), "{}", beyond.body);

    let timeline = http::get(daemon.web, &format!("{at}/transitions")).json();
    let called = timeline.as_array().expect("rows").iter().find(|row| row["call"]["call"]["station"] == "st-b");
    let step = &called.expect("the call")["call"]["call"]["steps"][0];
    assert_eq!((&step["state"], &step["by"], &step["why"]), (&json!("called"), &json!("陈值班"), &json!("火势扩大")));
    let of = |audit: &Value, what: &str| {
        let rows = audit["rows"].as_array().expect("rows").iter();
        rows.filter(|row| row["what"] == what).cloned().collect::<Vec<_>>()
    };
    // What changes nothing waits a moment for its commit.
    let audit = daemon.wait("/api/v1/audit?limit=200", "all that was said, what was refused too", |audit| {
        (of(audit, "call.by_hand").len(), of(audit, "alarm.escalate").len()) == (4, 2)
    });
    let insisted =
        of(&audit, "call.by_hand").into_iter().find(|row| row["detail"]["insist"] == true).expect("insisted");
    assert_eq!((&insisted["who"], &insisted["detail"]["why"]), (&json!("陈值班"), &json!("就近")));

    // The first has answered by now, and the third is back: the crew that is there asks for one more, and gets it.
    assert_eq!(http::form(daemon.web, &first, "step=accept").status, 303);
    let none = http::form(daemon.web, &path, "step=reinforce");
    assert_eq!((none.status, none.body.contains("no other station can respond")), (409, true), "{}", none.body);
    assert_eq!(http::post(daemon.web, "/api/v1/stations/st-c/on-duty", &json!({ "who": "陈值班" })).status, 200);
    let asked = http::form(daemon.web, &path, "step=reinforce&why=%E6%B0%B4%E5%B8%A6%E4%B8%8D%E5%A4%9F");
    assert_eq!(asked.status, 303, "{}", asked.body);
    let audit = http::get(daemon.web, "/api/v1/audit?limit=200").json();
    let by_crew = |row: &&Value| row["through"] == "crew_link" && row["what"] == "call.by_hand";
    let row = audit["rows"].as_array().expect("rows").iter().find(by_crew).expect("it is written down");
    assert_eq!(
        (&row["who"], &row["detail"]["station"], &row["detail"]["why"]),
        (&json!("赵敏"), &json!("st-c"), &json!("b站请求增援：水带不够"))
    );
}
