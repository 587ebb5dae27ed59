//! The residents' page, end to end with the real binary: what is public and what is not, the nearest shelter, and a call for help
//! from the form to the desk and the crew.

use anmin_tests::daemon::{Daemon, anmin};
use anmin_tests::http;
use anmin_tests::mqtt::Mqtt;
use anmin_tests::peers::CapReceiver;
use anmin_tests::site::{GAS_AS_IT_SPEAKS, Site};
use serde_json::{Value, json};

const AT_ONCE: &str = "[[override]]\nrule = \"gas/leak\"\non_delay = \"0s\"\noff_delay = \"0s\"\n";

const FLAT: &str =
    "[[device]]\nid = \"flat-501\"\nprofile = \"anmin-json-gas\"\nplace = \"b1\"\nfloor = \"5\"\nroom = \"501\"\n";

fn shelter(id: &str, name: &str, building: &str, state: &str) -> Value {
    json!({ "id": id, "name": name, "capacity": "200", "state": state, "building": building })
}

fn leak(daemon: &Daemon, device: &str) {
    let mut mqtt = Mqtt::connect(daemon.broker.expect("it has a broker").port(), "device");
    mqtt.publish(&format!("acceptance/{device}/up"), r#"{"v":60.0,"seq":1}"#);
}

/// The mark that stands in a form.
fn once(form: &str) -> &str {
    let (_, rest) = form.split_once("name=\"once\" value=\"").expect("the form has a mark");
    rest.split('"').next().expect("it ends")
}

#[test]
fn where_it_is_not_switched_on_there_is_nothing() {
    let site = Site::new("residents-off", "");
    let daemon = Daemon::start(site.folder());
    for path in ["/residents", "/residents.css", "/residents/say", "/residents/sent/0123456789abcdef0123456789abcdef"] {
        assert_eq!(http::get(daemon.web, path).status, 404, "{path}");
    }
    assert_eq!(http::form(daemon.web, "/residents", "need=safe&room=x").status, 404);
}

#[test]
fn a_call_for_help_reaches_the_desk_and_the_crew_and_is_told_nobody_else() {
    let page = "[residents]\nenabled = true\nphone = \"0571-00000000\"\n";
    let site = Site::new("residents", &format!("{page}{GAS_AS_IT_SPEAKS}{AT_ONCE}{FLAT}"));
    let daemon = Daemon::start(site.folder());
    let rows = json!([
        shelter("a", "远处学校", "9", "open"),
        shelter("b", "一号楼大厅", "1", "open"),
        shelter("c", "车库", "1", "closed")
    ]);
    let said = http::post(daemon.web, "/api/v1/registers/shelters/rows", &json!({ "who": "li", "rows": rows }));
    assert_eq!(said.status, 200, "{}", said.body);

    // An alarm in a flat, and nobody has let it out.
    leak(&daemon, "flat-501");
    let alarm = daemon.alarm("gas/leak", "flat-501/lel", "the leak", |alarm| alarm["active"] == true);
    let quiet = http::get(daemon.web, "/residents?at=b1").body;
    assert!(quiet.contains("目前没有通知") && quiet.contains("0571-00000000") && quiet.contains("tel:119"), "{quiet}");
    for hidden in ["燃气", "501", "flat", "<script", "http://", "https://"] {
        assert!(!quiet.contains(hidden), "{hidden} is on the page: {quiet}");
    }
    let order = ["一号楼大厅", "远处学校", "车库"].map(|name| quiet.find(name).expect("it is listed"));
    assert!(order.is_sorted(), "the nearest that is open comes first: {quiet}");
    let en = http::get(daemon.web, "/residents?lang=en&at=1").body;
    assert!(en.contains("There are no notices now.") && en.contains("room for 200"), "{en}");

    // Another site cannot have a browser send it, and what is wrong is said.
    let form = http::get(daemon.web, "/residents/say?at=b1").body;
    let mark = once(&form).to_owned();
    let foreign = "/residents HTTP/1.0\r\nOrigin: https://evil.example\r\nX-Rest: ";
    let body = format!("once={mark}&need=trapped&building=1&room=east-501&phone=13800000000&said=%E9%97%A8");
    assert_eq!(http::form(daemon.web, foreign, &body).status, 403);
    assert_eq!(http::form(daemon.web, "/residents", "need=trapped&building=1").status, 400);
    let wrong = http::form(daemon.web, "/residents", &body.replace("need=trapped", "need=fly"));
    assert!(
        wrong.status == 400 && wrong.body.contains("请选择需要什么帮助") && wrong.body.contains("east-501"),
        "{}",
        wrong.body
    );
    assert_eq!(http::form(daemon.web, "/residents", &format!("{body}&x={}", "x".repeat(5_000))).status, 400);

    // Sent twice it is one.
    for _ in 0..2 {
        assert_eq!(http::form(daemon.web, "/residents", &body).status, 303);
    }
    let sent = format!("/residents/sent/{mark}");
    assert!(http::get(daemon.web, &sent).body.contains("等待值班员受理"));
    let id = format!("r-{mark}");
    let notice =
        daemon.alarm("system/help", &format!("help:{id}"), "the desk is told", |alarm| alarm["active"] == true);
    let told = notice.to_string();
    assert!(told.contains("被困") && !told.contains("east-501") && !told.contains("1380000"), "{notice:#}");
    let kept = daemon.get("/api/v1/registers/help");
    let row = &kept["rows"][0];
    assert_eq!(kept["rows"].as_array().map(Vec::len), Some(1), "{kept:#}");
    assert_eq!(
        (&row["room"], &row["phone"], &row["state"]),
        (&json!("east-501"), &json!("13800000000"), &json!("new"))
    );

    // The crew that was called to this building sees where and what, and no telephone.
    let said =
        anmin(&["call", "link", alarm["id"].as_str().expect("text"), "--url", &format!("http://{}", daemon.web)]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let at = said.find("/crew/").unwrap_or_else(|| panic!("no link in {said}"));
    let crew = http::get(daemon.web, said[at..].split_whitespace().next().expect("a link ends")).body;
    assert!(crew.contains("被困") && crew.contains("east-501") && !crew.contains("1380000"), "{crew}");

    // A cut, and it is all still there; an officer takes it on and the resident sees so.
    daemon.kill();
    let mut daemon = Daemon::start(site.folder());
    let mut row = daemon.get("/api/v1/registers/help")["rows"][0].clone();
    row["state"] = json!("taken");
    let taken = http::post(daemon.web, "/api/v1/registers/help/rows", &json!({ "who": "陈值班", "rows": [row] }));
    assert_eq!((taken.status, &taken.json()["rows"][0]["by"]), (200, &json!("陈值班")), "{}", taken.body);
    daemon.alarm("system/help", &format!("help:{id}"), "it has an answer", |alarm| alarm["active"] == false);
    assert!(http::get(daemon.web, &sent).body.contains("已受理"));
    let audit = daemon.get("/api/v1/audit?limit=1000");
    let helped: Vec<&Value> =
        audit["rows"].as_array().into_iter().flatten().filter(|row| row["what"] == "residents.help").collect();
    assert_eq!((helped.len(), &helped[0]["address"]), (1, &Value::Null), "{audit:#}");
    let audit = audit.to_string();
    assert!(!audit.contains("1380000") && !audit.contains("east-501"), "{audit}");
    let log = daemon.said();
    assert!(!log.contains("east-501") && !log.contains("1380000") && !log.contains("trapped"), "{log}");

    // A flood is turned away, raises nothing about a hazard, and says whom to phone.
    let before = daemon.get("/api/v1/alarms")["of"].as_u64().unwrap_or_default();
    let mut last = 303;
    for n in 0..40 {
        let body = format!("once={n:032x}&need=other&building=1");
        let answer = http::form(daemon.web, "/residents", &body);
        assert!([303, 429].contains(&answer.status), "{}", answer.body);
        assert!(answer.status == 303 || answer.body.contains("tel:119"), "{}", answer.body);
        last = answer.status;
    }
    assert_eq!(last, 429);
    let after = daemon
        .wait("/api/v1/alarms", "the flood is few notices", |list| list["alarms"].to_string().contains("help:rest"));
    assert!(after["of"].as_u64().unwrap_or_default() <= before + 11, "{after:#}");
}

#[test]
fn a_drill_is_shown_as_one_when_its_message_has_gone_out() {
    let mut town = CapReceiver::start(&[]);
    let cap = format!("[[cap]]\nid = \"town\"\nurl = \"{}\"\nsender = \"anmin.test.example\"\n", town.url);
    let site =
        Site::new("residents-drill", &format!("[residents]\nenabled = true\n{cap}{GAS_AS_IT_SPEAKS}{AT_ONCE}{FLAT}"));
    let daemon = Daemon::start(site.folder());
    let start = json!({ "who": "li", "name": "演习", "building": "1" });
    let drill = http::post(daemon.web, "/api/v1/drills", &start);
    assert_eq!(drill.status, 200, "{}", drill.body);
    let id = drill.json()["id"].as_str().expect("a drill has an id").to_owned();
    let leak = json!({ "kind": "gas.lel", "level": "red", "floor": "5", "room": "501" });
    let raise = json!({ "who": "li", "alarms": [leak] });
    let raised = http::post(daemon.web, &format!("/api/v1/drills/{id}/raise"), &raise);
    assert_eq!(raised.status, 200, "{}", raised.body);
    assert_eq!(town.next("Alert")["status"], "Exercise");
    let until = std::time::Instant::now() + anmin_tests::daemon::DEADLINE;
    let page = loop {
        let page = http::get(daemon.web, "/residents").body;
        if page.contains("<article") {
            break page;
        }
        assert!(std::time::Instant::now() < until, "the drill is not shown: {page}");
        anmin_tests::daemon::pause();
    };
    assert!(page.contains("演练，不是真的") && page.contains("1号楼") && !page.contains("501"), "{page}");
}
