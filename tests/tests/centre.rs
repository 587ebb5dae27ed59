//! A city's monitoring centre takes anmin as one of its devices (GB/T 26875.3 northwards): the centre is a second implementation of
//! the standard's tables (`peers/city.py`), the panel behind anmin another (`peers/panel.py`).

use anmin_tests::daemon::Daemon;
use anmin_tests::http;
use anmin_tests::peers::{Peer, free_port};
use anmin_tests::site::Site;
use serde_json::{Value, json};

const CONFIRM: u8 = 3;
const RESPONSE: u8 = 5;
const DENY: u8 = 6;
/// States of a part.
const NORMAL: u64 = 1;
const FIRE: u64 = 2;
const FAULT: u64 = 4;

struct City {
    peer: Peer,
    port: u16,
}

impl City {
    fn start() -> Self {
        let mut peer = Peer::python("city.py", &["0", "1"]);
        let said: Value = serde_json::from_str(&peer.until("listening")).expect("a line of JSON");
        let port = said["listening"].as_u64().expect("a port") as u16;
        Self { peer, port }
    }

    fn until(&mut self, text: &str) -> Value {
        let line = self.peer.until(text);
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}"));
        assert_eq!(said["sound"], true, "{said}");
        assert_eq!((&said["source"], &said["destination"]), (&json!(620_102), &json!(1)), "{said}");
        said
    }

    /// The next data of this type.
    fn data(&mut self, kind: u8) -> Value {
        self.until(&format!("\"command\": 2, \"type\": {kind},"))
    }

    /// Its one object.
    fn told(&mut self, kind: u8) -> Value {
        let said = self.data(kind);
        assert_eq!(said["objects"].as_array().map(Vec::len), Some(1), "{said}");
        said["objects"][0].clone()
    }

    /// The next frame of this command.
    fn answer(&mut self, command: u8) -> Value {
        self.until(&format!("\"command\": {command},"))
    }

    /// What it answers to a request.
    fn asks(&mut self, kind: u8, objects: &str) -> Value {
        self.peer.tell(&format!("request {kind} {objects}"));
        let said = self.answer(RESPONSE);
        assert_eq!(said["type"], kind - 60, "{said}");
        said["objects"].clone()
    }
}

struct Panel(Peer);

impl Panel {
    fn dial(port: u16) -> Self {
        let mut peer = Peer::python("panel.py", &["127.0.0.1", &port.to_string(), "889"]);
        peer.until("connected");
        Self(peer)
    }

    fn says(&mut self, what: &str) {
        self.0.tell(what);
        self.0.until(&format!("\"command\": {CONFIRM},"));
    }
}

/// A site with a panel and a centre, and no exercise unless `exercise`.
fn site(name: &str, city: &City, exercise: bool) -> (Site, u16) {
    let port = free_port();
    let site = Site::new(name, "");
    let head = r#"
[site]
id = "centre"
name = { zh = "春晖社区", en = "Chunhui" }
exercise = EXERCISE
[web]
listen = "127.0.0.1:0"
[storage]
dir = "state"
[broker]
listen = "127.0.0.1:0"
[[place]]
id = "b1"
building = "1"
[[gbt26875]]
id = "panels"
listen = "127.0.0.1:PORT"
  [[gbt26875.mapping]]
  preset = "gbt26875"
  unknown = "provision"
  location = { place = "b1", unit = "2", floor = "3", room = "301" }
[[override]]
rule = "fire/smoke"
off_delay = "1s"
[[override]]
rule = "device/fault"
on_delay = "0s"
off_delay = "1s"
[[gbt26875_out]]
id = "city"
url = "tcp://127.0.0.1:CITY"
source = "620102"
centre = "1"
panel = "889"
keep_alive = "KEEP"
"#;
    // A beat now and then would keep a test that waits for something else from ever giving up.
    let head = head.replace("KEEP", if name == "centre" { "5s" } else { "1h" });
    let head = head.replace("EXERCISE", &exercise.to_string());
    let head = head.replace("PORT", &port.to_string()).replace("CITY", &city.port.to_string());
    site.write("anmin.toml", &head);
    (site, port)
}

fn act(daemon: &Daemon, alarm: &Value, what: &str) {
    let id = alarm["id"].as_str().expect("an id");
    let answer = http::post(daemon.web, &format!("/api/v1/alarms/{id}/{what}"), &json!({ "who": "李值班" }));
    assert_eq!(answer.status, 200, "{}", answer.body);
}

#[test]
fn a_fire_goes_north_as_its_panel_said_it_and_ends_there_when_it_ends_here() {
    let mut city = City::start();
    let (site, port) = site("centre", &city, false);
    let daemon = Daemon::start(site.folder());
    // How it stands itself comes first.
    assert_eq!(city.told(21)["state"].as_u64().map(|state| state & 3), Some(1));
    let mut panel = Panel::dial(port);
    panel.says("part 42 1 131082 2");
    let fire = city.told(2);
    assert_eq!((&fire["system"], &fire["part"]), (&json!([1, 1]), &json!([40, 131_082])));
    assert_eq!((&fire["state"], &fire["text"]), (&json!(NORMAL | FIRE), &json!("1号楼2单元3层")), "and no flat");
    while city.told(21)["state"].as_u64().map(|state| state & FIRE) != Some(FIRE) {}

    let smoke = daemon.alarm("fire/smoke", "889-1-1-131082/smoke", "smoke", |_| true);
    act(&daemon, &smoke, "acknowledge");
    let did = city.told(4);
    assert_eq!((&did["system"], &did["did"]), (&json!([1, 1]), &json!(1 << 5)));
    assert_eq!(city.told(2)["state"], NORMAL | FIRE);
    // A fault of the same detector comes and goes: it burns all the while.
    panel.says("part 42 1 131082 6");
    assert_eq!(city.told(2)["state"], NORMAL | FIRE | FAULT);
    panel.says("part 42 1 131082 2");
    assert_eq!(city.told(2)["state"], NORMAL | FIRE);
    panel.says("analog 74 1 7 6 253");
    assert_eq!(city.told(2)["part"], json!([10, 7]));
    let measured = city.told(3);
    assert_eq!((&measured["part"], &measured["analog"], &measured["raw"]), (&json!([10, 7]), &json!(6), &json!(253)));

    // A beat with nothing in it.
    assert_eq!(city.until("\"command\": 2, \"type\": null,")["objects"], json!([]));

    // What the centre asks for by itself.
    let state = |objects: &Value| objects[0]["state"].clone();
    let part = "01010a000200";
    let objects = city.asks(62, part);
    assert_eq!((state(&objects), &objects[0]["text"]), (json!(NORMAL | FIRE), &json!("1号楼2单元3层")));
    assert_eq!(state(&city.asks(61, "0101")), NORMAL | FIRE);
    assert_eq!(city.asks(63, "010107000000")[0]["raw"], 253);
    assert_eq!(city.asks(67, part)[0]["part"], json!([40, 131_082]));
    assert_eq!(state(&city.asks(81, "00")).as_u64().map(|state| state & 3), Some(3));
    assert!(city.asks(66, "0101")[0]["text"].as_str().is_some_and(|text| text.starts_with("春晖社区")));
    assert!(city.asks(86, "00")[0]["text"].as_str().is_some_and(|text| text.starts_with("anmin ")));
    assert_eq!(city.asks(65, "0101")[0]["version"], city.asks(85, "00")[0]["version"]);
    assert_eq!(city.asks(68, "0101")[0]["time"].as_str().map(str::len), Some(19));
    assert_eq!(city.asks(88, "00")[0]["time"].as_str().map(str::len), Some(19));
    // Nine at most, from the beginning of 2026 on.
    assert_eq!(city.asks(64, "01010900000001011a")[0]["did"], 1 << 5);
    for unknown in [
        "request 84 0900000001011a",
        "request 62 010163000000",
        "request 61 0909",
        "request 70 00",
        "control 89 00",
        "clock 600",
    ] {
        city.peer.tell(unknown);
        city.answer(DENY);
    }
    city.peer.tell("clock 0");
    city.answer(CONFIRM);

    // The smoke is gone, and somebody resets the alarm: then it is over there, too.
    panel.says("part 42 1 131082 1");
    daemon.alarm("fire/smoke", "889-1-1-131082/smoke", "it is over", |alarm| alarm["state"] == "latched");
    act(&daemon, &smoke, "reset");
    assert_eq!(city.told(4)["did"], 1);
    let over = city.told(2);
    assert_eq!((&over["part"], &over["state"]), (&json!([40, 131_082]), &json!(NORMAL)));
}

#[test]
fn a_duty_check_is_answered_by_whoever_is_on_duty_and_by_nobody_else() {
    let mut city = City::start();
    let (site, _) = site("centre-check", &city, false);
    let daemon = Daemon::start(site.folder());
    city.told(21);
    city.peer.tell("control 91 0a");
    city.answer(CONFIRM);
    let check = daemon.alarm("system/duty_check", "duty-check:city", "it is put to people", |_| true);
    assert!(check["message"]["zh"].as_str().is_some_and(|text| text.contains("10 分钟")), "{check:#}");
    let troubles = daemon.get("/api/v1/status")["troubles"].to_string();
    assert!(!troubles.contains("duty-check"), "nothing of anmin is ill: {troubles}");
    act(&daemon, &check, "acknowledge");
    let answer = city.told(24);
    assert_eq!((&answer["did"], &answer["operator"]), (&json!(1 << 5), &json!(0)));
    daemon.wait("/api/v1/alarms", "it is over", |list| !list.to_string().contains("duty-check"));
    assert_eq!(city.asks(84, "0900000001011a")[0]["did"], 1 << 5);
    // It is kept who has answered; the centre is told nobody's name.
    let id = check["id"].as_str().expect("an id");
    let kept = daemon.get(&format!("/api/v1/alarms/{id}/transitions")).to_string();
    assert!(kept.contains("李值班"), "{kept}");

    // Damaged, in pieces, several at once: what is whole is answered, what is not is denied, and nobody is asked twice.
    city.peer.tell("slowly");
    city.peer.tell("control 91 01");
    city.answer(CONFIRM);
    city.peer.tell("quickly");
    city.peer.tell("damaged");
    city.answer(DENY);
    city.peer.tell("again");
    city.answer(CONFIRM);
    city.peer.tell("bytes 40402323ffff");
    city.peer.tell("wish 4 81 00 1 89 00 4 85 00");
    assert_eq!(city.answer(RESPONSE)["type"], 21);
    city.answer(DENY);
    assert_eq!(city.answer(RESPONSE)["type"], 25);
    let again = daemon.alarm("system/duty_check", "duty-check:city", "asked anew", |alarm| alarm["id"] != check["id"]);
    assert!(again["message"]["zh"].as_str().is_some_and(|text| text.contains("1 分钟")), "{again:#}");
}

#[test]
fn what_happens_while_the_centre_is_away_is_told_in_order_when_it_is_back() {
    let mut city = City::start();
    let (site, port) = site("centre-away", &city, false);
    let mut daemon = Daemon::start(site.folder());
    city.told(21);
    city.peer.tell("away");
    city.peer.until("away");
    let mut panel = Panel::dial(port);
    panel.says("part 42 1 5 3");
    let smoke = daemon.alarm("fire/smoke", "889-1-1-5/smoke", "smoke", |_| true);
    act(&daemon, &smoke, "acknowledge");
    // Not even a crash makes it forget.
    daemon.kill();
    daemon = Daemon::start(site.folder());
    let mut panel = Panel::dial(port);
    panel.says("part 23 1 6 3");
    daemon.alarm("fire/call_point", "889-1-1-6/pressed", "a button", |_| true);
    city.peer.tell("back");
    city.peer.until("listening");
    let mut of_smoke = Vec::new();
    let mut of_button = 0;
    while of_smoke.len() < 3 || of_button == 0 {
        let said = city.until("\"command\": 2,");
        let one = &said["objects"][0];
        match (said["type"].as_u64(), one["part"][1].as_u64()) {
            (Some(2), Some(5)) => of_smoke.push(format!("state {}", one["state"])),
            (Some(4), _) => of_smoke.push(format!("did {}", one["did"])),
            (Some(2), Some(6)) => of_button += 1,
            _ => {}
        }
    }
    assert_eq!(of_smoke, ["state 3", "did 32", "state 3"]);

    // It refuses one kind of thing: what it has denied three times is a dead letter, and the connection stays.
    city.peer.tell("deny 2");
    panel.says("part 30 1 7 3");
    daemon.wait("/api/v1/dead-letters", "it is given up", |list| {
        list.as_array().is_some_and(|list| list.iter().any(|one| one.to_string().contains("denied by the centre")))
    });
    // It says nothing at all: the same frame again, with its number, until it is taken.
    city.peer.tell("silent");
    panel.says("part 31 1 8 3");
    let first = city.until("\"part\": [30, 8]");
    let second = city.until("\"part\": [30, 8]");
    assert_eq!(first["serial"], second["serial"]);
    city.peer.tell("confirm");
    daemon.wait("/api/v1/status", "all is delivered", |status| status["orders_waiting"] == 0);
}

#[test]
fn nothing_goes_north_from_an_exercise_and_no_drill_does() {
    let mut city = City::start();
    let (played, port) = site("centre-exercise", &city, true);
    let daemon = Daemon::start(played.folder());
    let mut panel = Panel::dial(port);
    panel.says("part 42 1 5 3");
    daemon.alarm("fire/smoke", "889-1-1-5/smoke", "smoke", |_| true);
    daemon.kill();
    assert_eq!(city.peer.said(), Vec::<String>::new(), "not even a connection");

    let (site, port) = site("centre-drill", &city, false);
    let daemon = Daemon::start(site.folder());
    city.told(21);
    let mut panel = Panel::dial(port);
    panel.says("part 42 1 5 1");
    daemon.wait("/api/v1/points", "the detector is known", |found| found["of"].as_u64().is_some_and(|of| of > 0));
    let drill = json!({ "who": "li", "building": "1", "alarms": [{ "point": "889-1-1-5/smoke" }] });
    let begun = http::post(daemon.web, "/api/v1/drills", &drill);
    assert_eq!(begun.status, 200, "{}", begun.body);
    daemon.alarm("fire/smoke", "889-1-1-5/smoke", "a played one", |alarm| !alarm["drill"].is_null());
    // A real one behind it is the first that is told.
    panel.says("part 23 1 6 3");
    assert_eq!(city.told(2)["part"], json!([23, 6]));
}
