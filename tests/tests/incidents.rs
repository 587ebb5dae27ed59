//! Incidents, end to end with the real binary: a rain night whose forty alarms are three of them, two far apart at the same
//! time, and the package of one that shows to each role what it may see.

use std::collections::BTreeSet;
use std::fs;
use std::time::Instant;

use anmin_tests::daemon::{DEADLINE, Daemon, anmin, binary, pause};
use anmin_tests::http;
use anmin_tests::mqtt::Mqtt;
use anmin_tests::peers::{Mosquitto, Peer, Robots, free_port};
use anmin_tests::people::Person;
use anmin_tests::site::Site;
use serde_json::{Value, json};

fn text(of: &Value) -> String {
    of.as_str().unwrap_or_else(|| panic!("{of} is no text")).to_owned()
}

fn rows(of: &Value) -> &[Value] {
    of.as_array().unwrap_or_else(|| panic!("{of} is no list"))
}

/// A command that is taken; gives its answer.
fn act(daemon: &Daemon, path: &str, body: &Value) -> Value {
    let answer = http::post(daemon.web, path, body);
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    answer.json()
}

/// A command that is refused; gives status and code of the refusal.
fn refused(daemon: &Daemon, path: &str, body: &Value) -> (u16, String) {
    let answer = http::post(daemon.web, path, body);
    (answer.status, text(&answer.json()["code"]))
}

/// Devices in words of their own, on whatever broker stands before it; those that nobody has named are not judged.
fn mapping(table: &str) -> String {
    format!(
        "  [[{table}.mapping]]\n  topic = \"acceptance/{{device}}/up\"\n  payload = \"json\"\n  device = \"{{device}}\"\n"
    )
}

fn device(id: &str, profile: &str, place: &str, unit: &str, floor: &str, room: &str) -> String {
    format!(
        "[[device]]\nid = \"{id}\"\nprofile = \"{profile}\"\nplace = \"{place}\"\nunit = \"{unit}\"\nfloor = \"{floor}\"\n\
         room = \"{room}\"\n"
    )
}

/// Water gauges: in each building five in the garage under it and on the ground above, and more in the cellars of its other
/// stairs, one flight lower and another unit, which are nobody's neighbours.
fn gauges() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (building, cellars) in [("1", 9), ("2", 8), ("3", 8)] {
        let place = format!("b{building}");
        for n in 1..=5 {
            let (id, floor) = (format!("b{building}-garage-{n}"), if n == 1 { "1" } else { "B1" });
            let toml = device(&id, "anmin-json-level", &place, "", floor, &format!("G{n}"));
            all.push((id, toml));
        }
        for n in 1..=cellars {
            let id = format!("b{building}-cellar-{n}");
            let toml = device(&id, "anmin-json-level", &place, &format!("{n}"), "B3", "");
            all.push((id, toml));
        }
    }
    all
}

/// How deep the water must be, in cm: so little that the simulator's rain reaches it within seconds. Building 3 comes to
/// red, 2 to orange, 1 no further than yellow; the cellars follow when the garages have made a storm of it.
const SHALLOW: &str = r#"
[[override]]
rule = "flood/level"
on_delay = "0s"
off_delay = "0s"
deadband = 0.5
[[override]]
rule = "flood/level"
place = "b1"
limit = { blue = 2.0, yellow = 3.0, orange = 500.0, red = 600.0 }
[[override]]
rule = "flood/level"
place = "b2"
limit = { blue = 2.0, yellow = 3.0, orange = 4.0, red = 600.0 }
[[override]]
rule = "flood/level"
place = "b3"
limit = { blue = 2.0, yellow = 3.0, orange = 4.0, red = 5.0 }
[[override]]
rule = "flood/level"
device = "*-cellar-*"
limit = { blue = 5.0, yellow = 400.0, orange = 500.0, red = 600.0 }
[[override]]
rule = "flood/rising"
enabled = false
"#;

/// Goal: nobody at the desk reads forty alarms one by one. Method: `anmin sim rain-flood` plays the gauges of three buildings
/// over Mosquitto; more than half of the alarms are near no other and come together because it is a storm.
#[test]
fn a_rain_night_of_forty_alarms_is_three_incidents() {
    let site = Site::new("rain-night", "");
    let broker = Mosquitto::start(&site);
    let gauges = gauges();
    assert_eq!(gauges.len(), 40);
    let devices: String = gauges.iter().map(|(_, toml)| toml.as_str()).collect();
    let buildings =
        ["2", "3"].map(|n| format!("[[place]]\nid = \"b{n}\"\nbuilding = \"{n}\"\nstations = [\"st-2\"]\n"));
    site.write(
        "anmin.d/rain.toml",
        &format!(
            "[[mqtt]]\nid = \"site\"\nurl = \"mqtt://127.0.0.1:{}\"\nmax_reconnect_interval = \"1s\"\n{}{}{devices}{SHALLOW}",
            broker.port,
            mapping("mqtt"),
            buildings.concat()
        ),
    );
    let mut daemon = Daemon::start(site.folder());
    daemon.until("is subscribed to");

    let (program, folder) = (binary().display().to_string(), site.folder().display().to_string());
    let mut rain = Peer::start(&program, &["sim", "rain-flood", "--site", &folder, "--interval-ms", "500"]);
    rain.until("40 MQTT devices to");
    let alarms = "/api/v1/alarms?class=flood&limit=1000";
    daemon.wait(alarms, "the garages' alarms", |list| list["of"].as_u64() >= Some(15));
    let list = daemon.wait(alarms, "forty alarms", |list| list["of"] == 40);
    let subjects: BTreeSet<&str> = rows(&list["alarms"]).iter().filter_map(|alarm| alarm["subject"].as_str()).collect();
    assert_eq!(subjects.len(), 40, "one of each gauge: {subjects:?}");
    let levels = |list: &Value| rows(&list["incidents"]).iter().map(|one| text(&one["level"])).collect::<Vec<_>>();
    let board =
        daemon.wait("/api/v1/incidents", "the gravest first", |list| levels(list) == ["red", "orange", "yellow"]);
    assert_eq!(board["of"], 3, "{board:#}");
    let of = |one: &Value| json!([one["place"]["building"], one["alarms"], one["open_alarms"], one["storm"]]);
    let found: Vec<Value> = rows(&board["incidents"]).iter().map(of).collect();
    assert_eq!(found, [json!(["3", 13, 13, true]), json!(["2", 13, 13, true]), json!(["1", 14, 14, true])]);
    let status = daemon.get("/api/v1/status");
    assert_eq!(status["open_incidents"], 3, "{status:#}");
    // Each alarm stands in the incident of its own building.
    for alarm in rows(&list["alarms"]) {
        let mut incidents = rows(&board["incidents"]).iter();
        let own = incidents.find(|one| one["id"] == alarm["incident"]).expect("a hazard's alarm has an open incident");
        assert_eq!(own["place"]["building"], alarm["place"]["building"], "{alarm:#}");
    }

    let incidents: Vec<String> = rows(&board["incidents"]).iter().map(|one| text(&one["id"])).collect();
    let close = |id: &str| format!("/api/v1/incidents/{id}/close");
    let why = |id: &str| format!("雨停，积水已排净 {id}");
    for id in &incidents {
        let body = json!({ "who": "陈值班", "outcome": "real", "why": why(id) });
        assert_eq!(refused(&daemon, &close(id), &body), (409, "alarm_active".to_owned()), "while the water stands");
    }
    // The rain is over. Twice: when the broker has taken the first, it has read the last word of the simulator.
    drop(rain);
    let mut dry = Mqtt::connect(broker.port, "dry");
    for _ in 0..2 {
        dry.publish_all(gauges.iter().map(|(id, _)| (format!("acceptance/{id}/up"), br#"{"v":0.0}"#.to_vec())));
    }
    let over = |list: &Value| rows(&list["alarms"]).iter().all(|alarm| alarm["active"] == false);
    let list = daemon.wait(alarms, "the water is gone", over);
    assert_eq!(list["of"], 40, "nobody has acknowledged any: {list:#}");
    for id in &incidents {
        let body = json!({ "who": "陈值班", "outcome": "real", "why": why(id) });
        assert_eq!(act(&daemon, &close(id), &body)["incident"]["state"], "closed");
    }

    let (list, board) = (daemon.get(alarms), daemon.get("/api/v1/incidents"));
    assert_eq!((&list["of"], &board["of"]), (&json!(0), &json!(0)), "{list:#} {board:#}");
    let status = daemon.get("/api/v1/status");
    assert_eq!((&status["open_incidents"], &status["live_calls"]), (&json!(0), &json!(0)), "{status:#}");
    let closed = daemon.get("/api/v1/incidents?state=closed");
    assert_eq!(rows(&closed["incidents"]).len(), 3, "{closed:#}");
    for one in rows(&closed["incidents"]) {
        let end = &one["end"];
        assert_eq!(
            (&end["by"], &end["outcome"], text(&end["why"])),
            (&json!("陈值班"), &json!("real"), why(&text(&one["id"])))
        );
    }
    // The last to be closed stands first.
    let counts: Vec<u64> = rows(&closed["incidents"]).iter().filter_map(|one| one["alarms"].as_u64()).collect();
    assert_eq!(counts, [14, 13, 13]);
}

/// Building 1 and station A, building 9 and station B, with a group for each station. The flats lie on the same floor of the
/// same unit, so that nothing but the building keeps them apart.
fn two_buildings(name: &str, robots: &Robots, port: u16) -> Site {
    let site = Site::new(name, "");
    site.write("robot", &format!("{}/cgi-bin/webhook/send?key=KEY\n", robots.url));
    let mut toml = format!(
        "[site]\nid = \"acceptance\"\nname = {{ zh = \"验收社区\", en = \"Acceptance\" }}\n\
         [web]\nlisten = \"127.0.0.1:{port}\"\n[broker]\nlisten = \"127.0.0.1:0\"\n{}",
        mapping("broker")
    );
    for (id, name, station, position) in
        [("b1", "1", "st-a", "36.0611, 103.8343"), ("b9", "9", "st-b", "36.0702, 103.8455")]
    {
        toml.push_str(&format!(
            "[[place]]\nid = \"{id}\"\nbuilding = \"{name}\"\nposition = [{position}]\nstations = [\"{station}\"]\n"
        ));
    }
    for (id, member, name, n) in [("a", "wang", "王强", "1"), ("b", "zhao", "赵敏", "2")] {
        toml.push_str(&format!(
            r#"
[[station]]
id = "st-{id}"
name = "{id}站"
phone = "0931-765432{n}"
respond_within = "10m"
arrive_within = "20m"
control_within = "30m"
  [[station.crew]]
  id = "{member}"
  name = "{name}"
  phone = "1380000000{n}"
[[notice]]
id = "group-{id}"
robot = "wecom"
address_file = "robot"
stations = ["st-{id}"]
page = "http://127.0.0.1:{port}/"
"#
        ));
    }
    for (id, profile, place, room) in [
        ("b1-501", "anmin-json-gas", "b1", "501"),
        ("b1-502", "anmin-json-gas", "b1", "502"),
        ("b9-501", "anmin-json-smoke", "b9", "501"),
        ("b9-stairs", "anmin-json-call-point", "b9", ""),
    ] {
        toml.push_str(&device(id, profile, place, "1", "5", room));
    }
    for rule in ["gas/leak", "fire/smoke", "fire/call_point"] {
        toml.push_str(&format!("[[override]]\nrule = \"{rule}\"\non_delay = \"0s\"\noff_delay = \"0s\"\n"));
    }
    // One alarm of each device, and no more.
    for rule in ["gas/several_rooms", "gas/rising"] {
        toml.push_str(&format!("[[override]]\nrule = \"{rule}\"\nenabled = false\n"));
    }
    site.write("anmin.toml", &toml);
    site
}

/// The path of the crew's link in a notice.
fn link(notice: &str) -> String {
    let at = notice.find("/crew/").unwrap_or_else(|| panic!("no link in {notice}"));
    notice[at..].split_whitespace().next().expect("a link ends").to_owned()
}

/// Ids of the alarms in an incident's history, and why the incident changed.
fn history(daemon: &Daemon, incident: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let timeline = daemon.get(&format!("/api/v1/incidents/{incident}/timeline?limit=1000"));
    let (mut alarms, mut causes) = (BTreeSet::new(), BTreeSet::new());
    for row in rows(&timeline) {
        match ["transition", "call", "incident"].map(|kind| !row[kind].is_null()) {
            [true, false, false] => drop(alarms.insert(text(&row["transition"]["alarm"]["id"]))),
            [false, true, false] => drop(alarms.insert(text(&row["call"]["call"]["alarm"]))),
            [false, false, true] => {
                assert_eq!(row["incident"]["incident"]["id"], incident, "{row:#}");
                causes.insert(text(&row["incident"]["cause"]));
            }
            _ => panic!("what is this? {row:#}"),
        }
    }
    (alarms, causes)
}

/// Goal: what happens at the same time in two buildings is handled by two crews, and neither hears of the other. Method: gas
/// and fire, which next to each other would be one incident, and a real end for the one while the other still stands.
#[test]
fn two_incidents_at_once_are_kept_apart_and_each_is_closed() {
    let mut robots = Robots::start();
    let site = two_buildings("two-at-once", &robots, free_port());
    let daemon = Daemon::start(site.folder());
    let mut devices = Mqtt::connect(daemon.broker.expect("it has a broker").port(), "devices");
    let mut speak = |said: &[(&str, &str)]| {
        devices.publish_all(
            said.iter().map(|(id, v)| (format!("acceptance/{id}/up"), format!(r#"{{"v":{v}}}"#).into_bytes())),
        );
    };
    speak(&[("b1-501", "60.0"), ("b9-501", "true"), ("b1-502", "30.0"), ("b9-stairs", "true")]);

    let of = |rule: &str, subject: &str| daemon.alarm(rule, subject, "active", |alarm| alarm["active"] == true);
    let gas = [of("gas/leak", "b1-501/lel"), of("gas/leak", "b1-502/lel")];
    let fire = [of("fire/smoke", "b9-501/smoke"), of("fire/call_point", "b9-stairs/pressed")];
    let board = daemon.wait("/api/v1/incidents", "two alarms each", |list| {
        rows(&list["incidents"]).iter().map(|one| one["alarms"].as_u64()).eq([Some(2), Some(2)])
    });
    let [gas_id, fire_id] = [&gas, &fire].map(|alarms| text(&alarms[0]["incident"]));
    assert_ne!(gas_id, fire_id, "{board:#}");
    for (incident, alarms, hazard, station) in [(&gas_id, &gas, "gas", "st-a"), (&fire_id, &fire, "fire", "st-b")] {
        assert!(alarms.iter().all(|alarm| alarm["incident"] == *incident), "{alarms:#?}");
        let at = format!("/api/v1/incidents/{incident}");
        let view = daemon.wait(&at, "its station is called", |view| rows(&view["calls"]).len() == 2);
        assert_eq!(view["incident"]["hazards"], json!([hazard]), "{view:#}");
        for call in rows(&view["calls"]) {
            assert_eq!((&call["station"], &call["state"]), (&json!(station), &json!("called")), "{view:#}");
        }
    }

    // Each group has the link of its own crew, and hears of its own building alone.
    let mut links = [None, None];
    while links.contains(&None) {
        let notice = text(&robots.next("/crew/")["text"]);
        let [to_a, to_b] = ["王强 http://", "赵敏 http://"].map(|member| notice.contains(member));
        assert!(to_a != to_b && notice.contains("1号楼") == to_a && notice.contains("9号楼") == to_b, "{notice}");
        links[usize::from(to_b)].get_or_insert(link(&notice));
    }
    let [link_a, link_b] = links.map(|link| link.expect("both were told"));
    let calls = |incident: &str| -> Vec<Value> {
        let view = daemon.get(&format!("/api/v1/incidents/{incident}"));
        rows(&view["calls"]).iter().map(|call| json!([call["station"], call["state"]])).collect()
    };
    // The one crew answers by its link, the other's word comes by the officer; turn by turn.
    let at = format!("/api/v1/alarms/{}/calls/st-b", text(&fire[0]["id"]));
    let mut fire_is = "called";
    for (step, state) in [("accept", "accepted"), ("on-the-way", "on_the_way"), ("on-scene", "on_scene")] {
        assert_eq!(http::form(daemon.web, &link_a, &format!("step={step}")).status, 303);
        assert_eq!(calls(&fire_id), [json!(["st-b", fire_is]), json!(["st-b", fire_is])]);
        act(&daemon, &format!("{at}/{step}"), &json!({ "who": "赵敏" }));
        fire_is = state;
        for (incident, station) in [(&gas_id, "st-a"), (&fire_id, "st-b")] {
            assert_eq!(calls(incident), [json!([station, state]), json!([station, state])]);
        }
    }
    // A station does not answer for what it was not called to.
    let foreign = format!("/api/v1/alarms/{}/calls/st-b/accept", text(&gas[0]["id"]));
    assert_eq!(refused(&daemon, &foreign, &json!({ "who": "赵敏" })), (404, "no_such_call".to_owned()));

    // The gas is shut off while it still burns.
    let close = |incident: &str| format!("/api/v1/incidents/{incident}/close");
    let ends = |incident: &str, body: &Value| {
        let closed = act(&daemon, &close(incident), body);
        assert_eq!(closed["incident"]["state"], "closed", "{closed:#}");
    };
    for _ in 0..2 {
        speak(&[("b1-501", "0.0"), ("b1-502", "0.0")]);
    }
    daemon.wait(&format!("/api/v1/incidents/{gas_id}"), "no gas", |view| view["incident"]["level"].is_null());
    let real = json!({ "who": "陈值班", "outcome": "real", "why": "灶具软管脱落" });
    ends(&gas_id, &real);
    assert_eq!(refused(&daemon, &close(&fire_id), &real), (409, "alarm_active".to_owned()));
    let board = daemon.get("/api/v1/incidents");
    assert_eq!((&board["of"], &board["incidents"][0]["id"]), (&json!(1), &json!(fire_id)), "{board:#}");
    assert_eq!([&link_a, &link_b].map(|link| http::get(daemon.web, link).status), [410, 200]);
    assert_eq!(calls(&fire_id), [json!(["st-b", fire_is]), json!(["st-b", fire_is])]);

    for _ in 0..2 {
        speak(&[("b9-501", "false"), ("b9-stairs", "false")]);
    }
    daemon.wait(&format!("/api/v1/incidents/{fire_id}"), "no fire", |view| view["incident"]["level"].is_null());
    ends(&fire_id, &json!({ "who": "陈值班", "outcome": "false_alarm", "cause": "cooking", "why": "炒菜油烟" }));
    assert_eq!(http::get(daemon.web, &link_b).status, 410);

    let closed = daemon.get("/api/v1/incidents?state=closed");
    let ended = |one: &Value| {
        json!([one["id"], one["end"]["outcome"], one["end"]["cause"], one["end"]["why"], one["end"]["into"]])
    };
    assert_eq!(
        rows(&closed["incidents"]).iter().map(ended).collect::<Vec<_>>(),
        [
            json!([fire_id, "false_alarm", "cooking", "炒菜油烟", null]),
            json!([gas_id, "real", null, "灶具软管脱落", null])
        ]
    );
    for (incident, alarms) in [(&gas_id, &gas), (&fire_id, &fire)] {
        let (found, causes) = history(&daemon, incident);
        assert_eq!(found, alarms.iter().map(|alarm| text(&alarm["id"])).collect());
        let moved = ["split_from", "split_into", "absorbed"];
        assert!(causes.contains("closed") && moved.iter().all(|cause| !causes.contains(*cause)), "{causes:?}");
    }
}

/// Goal: who may not know a name does not get it by asking otherwise. Method: the same incident, asked for by each role with
/// every word of the parameter, by page and by program; the packages are compared byte by byte.
#[test]
fn a_package_is_masked_by_role() {
    let mut robots = Robots::start();
    let site = two_buildings("masked", &robots, free_port());
    let daemon = Daemon::start(site.folder());
    let mut devices = Mqtt::connect(daemon.broker.expect("it has a broker").port(), "devices");
    devices.publish("acceptance/b1-501/up", r#"{"v":60.0}"#);
    let alarm = daemon.alarm("gas/leak", "b1-501/lel", "red", |alarm| alarm["level"] == "red");
    let (alarm, incident) = (text(&alarm["id"]), text(&alarm["incident"]));
    let notice = text(&robots.next("王强 http://")["text"]);
    assert_eq!(http::form(daemon.web, &link(&notice), "step=on-scene").status, 303);

    let admin = Person::set_up(daemon.web, &site, "chen", "陈主任");
    assert_eq!(http::get(daemon.web, "/api/v1/alarms").status, 401, "from now on everybody signs in");
    let officer = admin.add("li", "李值班", "officer", &[]);
    let office = admin.add("sun", "孙应急", "office", &[]);
    let crew = admin.add("zhou", "周队员", "crew", &[]);
    let auditor = admin.add("wu", "吴审计", "auditor", &[]);
    let manager = admin.add("zheng", "郑经理", "manager", &["1"]);

    officer.post(&format!("/api/v1/alarms/{alarm}/acknowledge"), &json!({}));
    crew.post(&format!("/api/v1/alarms/{alarm}/calls/st-a/under-control"), &json!({}));
    let at = format!("/api/v1/incidents/{incident}");
    officer.post(
        &format!("{at}/note"),
        &json!({ "text": "住户何女士 13812345678", "photos": ["https://photos.example.cn/501"] }),
    );
    officer.post(&format!("{at}/called-119"), &json!({ "text": "接警员编号 6021" }));
    officer.post(&format!("{at}/skip"), &json!({ "step": "gas/call-119", "why": "何女士家中无人" }));
    for _ in 0..2 {
        devices.publish("acceptance/b1-501/up", r#"{"v":0.0}"#);
    }
    officer.wait(&at, "no gas", |view| view["incident"]["level"].is_null());
    officer.post(&format!("{at}/close"), &json!({ "outcome": "real", "why": "何女士忘关阀门" }));

    let package = |person: &Person, masked: &str| {
        let (status, body) = person.ask(&format!("{at}/archive{masked}"));
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        body
    };
    // Receipts are written down a moment after what they are for; then the same records give the same bytes.
    let deadline = Instant::now() + DEADLINE;
    let whole = loop {
        let package = package(&officer, "?masked=no");
        let text = String::from_utf8_lossy(&package);
        if !text.contains("\"state\": \"waiting\"") {
            break package;
        }
        assert!(Instant::now() < deadline, "a notice was not taken: {text}");
        pause();
    };
    assert!(package(&auditor, "") == whole && package(&admin, "?masked=no") == whole, "who answers for the record");
    let masked = package(&officer, "?masked=yes");
    for (who, person) in [("office", &office), ("crew", &crew)] {
        for asked in ["", "?masked=no", "?masked=yes"] {
            assert!(package(person, asked) == masked, "{who} by {asked:?} gets what is masked, to the byte");
        }
    }
    assert_eq!(manager.ask(&format!("{at}/archive?masked=yes")).0, 403, "who is bound to places");

    // By program, which asks for the whole.
    let made = admin.post("/api/v1/tokens", &json!({ "name": "county", "role": "office", "days": 1 }));
    site.write("county", &text(&made["token"]));
    let [out, token] = ["county.tar", "county"].map(|name| site.path(name).display().to_string());
    let url = format!("http://{}", daemon.web);
    let line =
        ["incident", "export", &incident, "--url", &url, "--token-file", &token, "--out", &out, "--who", "李值班"];
    let told = anmin(&line);
    assert!(told.status.success(), "{told:?}");
    assert!(fs::read(&out).expect("it was written") == masked, "a token has no more than its role");

    let [whole_text, masked_text] = [&whole, &masked].map(|package| String::from_utf8_lossy(package));
    let handled = ["王强", "李值班", "周队员", "0931-7654321"];
    let written = ["何女士", "13812345678", "photos.example.cn", "接警员编号", "忘关阀门"];
    for word in handled.iter().chain(&written) {
        assert!(whole_text.contains(word), "no {word:?} in the whole package");
        assert!(!masked_text.contains(word), "{word:?} in the masked package");
    }
    for word in ["陈主任", "赵敏", "13800000001"] {
        assert!(!masked_text.contains(word), "{word:?} in the masked package");
    }
    // What is left is of use.
    for word in ["可燃气体泄漏", "1号楼", "on_scene", "b1-501/lel,%LEL,", "GB/T 50493-2019", "***"] {
        assert!(masked_text.contains(word), "no {word:?} in the masked package");
    }
    for (bytes, said) in [(&whole, false), (&masked, true)] {
        let file = site.path("elsewhere.tar");
        fs::write(&file, bytes).expect("the folder can be written");
        let told = anmin(&["verify", &file.display().to_string()]);
        let words = String::from_utf8_lossy(&told.stdout);
        assert!(told.status.success() && words.contains(&format!("\"masked\":{said}")), "{told:?}");
    }

    // Who took which is written down, under the name that stands behind the request.
    let expected = [
        ("county", true),
        ("吴审计", false),
        ("周队员", true),
        ("孙应急", true),
        ("李值班", false),
        ("李值班", true),
        ("陈主任", false),
    ];
    let expected: BTreeSet<(String, bool)> = expected.map(|(who, masked)| (who.to_owned(), masked)).into();
    admin.wait("/api/v1/audit?limit=1000", "the audit of each export", |audit| {
        let rows = rows(&audit["rows"]).iter();
        let exports = rows.filter(|row| row["what"] == "incident.export" && row["about"] == *incident);
        exports.map(|row| (text(&row["who"]), row["detail"]["masked"] == true)).collect::<BTreeSet<_>>() == expected
    });
}
