//! Walk tests and registers in the running daemon: what is pressed calls nobody, what is no test does, and what people keep comes
//! back from a spreadsheet as it went in.

use std::fs;

use anmin_tests::daemon::{Daemon, anmin};
use anmin_tests::http;
use anmin_tests::mqtt::Mqtt;
use anmin_tests::site::{GAS_AS_IT_SPEAKS, Site};
use serde_json::{Value, json};

fn speak(device: &mut Mqtt, value: f64) {
    device.publish("acceptance/g1/up", json!({ "v": value }).to_string());
}

fn post(daemon: &Daemon, path: &str, body: Value) -> Value {
    let answer = http::post(daemon.web, path, &body);
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    answer.json()
}

/// Whether a tick of the walk is in this state.
fn ticked(view: &Value, state: &str) -> bool {
    view["ticks"].as_array().into_iter().flatten().any(|tick| tick["state"] == state && tick["point"] == "g1/lel")
}

fn command(daemon: &Daemon, words: &[&str]) -> (bool, String) {
    let url = format!("http://{}", daemon.web);
    let told = anmin(&[words, &["--url", &url]].concat());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (told.status.success(), format!("{}{}", text(&told.stdout), text(&told.stderr)))
}

#[test]
fn a_detector_is_ticked_off_once_and_its_second_alarm_calls_the_station() {
    let site = Site::new(
        "walk",
        &format!(
            r#"{GAS_AS_IT_SPEAKS}
[[mqtt_out]]
id = "alarms"
broker = "embedded"

[[override]]
rule = "gas/leak"
on_delay = "0s"
off_delay = "0s"
"#
        ),
    );
    let daemon = Daemon::start(site.folder());
    let mut device = Mqtt::connect(daemon.broker.expect("the site has a broker").port(), "devices");
    let mut office = Mqtt::connect(daemon.broker.expect("the site has a broker").port(), "office");
    office.subscribe("anmin/v1/acceptance/#");
    speak(&mut device, 0.1);
    daemon.wait("/api/v1/points", "the detector is known", |found| found["of"].as_u64().is_some_and(|of| of > 0));
    let never = daemon.get("/api/v1/coverage");
    assert_eq!(
        (&never["points"], &never["never"], &never["due"][0]["point"]),
        (&json!(1), &json!(1), &json!("g1/lel"))
    );

    let (done, said) = command(&daemon, &["walk", "start", "--building", "1", "--for", "1h", "--who", "li"]);
    assert!(done && said.contains("【测试】1号楼") && said.contains("[TEST] Building 1"), "{said}");
    let walk = daemon.get("/api/v1/walks")["walks"][0]["id"].as_str().expect("one is on").to_owned();
    assert_eq!(daemon.get("/api/v1/status")["walks"][0]["id"], json!(walk));
    let view = format!("/api/v1/walks/{walk}");
    speak(&mut device, 60.0);
    let speaking = daemon.wait("/api/v1/walks", "it speaks", |found| found["speaking"][0]["point"] == "g1/lel");
    assert_eq!((&speaking["speaking"][0]["level"], &speaking["speaking"][0]["value"]), (&json!("red"), &json!(60.0)));
    speak(&mut device, 0.1);
    daemon.wait(&view, "it works", |view| ticked(view, "returned"));
    assert_eq!(daemon.get("/api/v1/alarms")["of"], json!(0), "nobody is told of a test");
    let covered = daemon.get("/api/v1/coverage");
    assert_eq!((&covered["tested"], &covered["never"]), (&json!(1), &json!(0)));

    // The walk outlives the daemon, and so does what was tested in it.
    daemon.kill();
    let daemon = Daemon::start(site.folder());
    assert_eq!(daemon.get(&view)["walk"]["on"], json!(true));
    let mut device = Mqtt::connect(daemon.broker.expect("the site has a broker").port(), "devices");
    speak(&mut device, 60.0);
    let alarm = daemon.alarm("gas/leak", "g1/lel", "raised", |alarm| alarm["level"] == "red");
    let id = alarm["id"].as_str().expect("an alarm has an id");
    let detail = daemon.get(&format!("/api/v1/alarms/{id}"));
    assert_eq!(detail["calls"][0]["state"], json!("called"), "{detail:#}");
    assert_eq!(daemon.get("/api/v1/coverage")["tested"], json!(1));

    let (done, said) = command(&daemon, &["walk", "end", "--who", "li"]);
    assert!(done && said.contains("已测 tested 1 / 1"), "{said}");
    let again = http::post(daemon.web, &format!("{view}/end"), &json!({ "who": "li" }));
    assert_eq!((again.status, &again.json()["code"]), (404, &json!("no_such_walk")));
    let out = site.path("coverage.csv");
    let (done, said) = command(&daemon, &["walk", "coverage", "--csv", &out.display().to_string()]);
    assert!(done && said.contains("1 / 1"), "{said}");
    let sheet = fs::read_to_string(out).expect("it was written");
    assert!(sheet.starts_with('\u{feff}') && sheet.contains("g1/lel") && sheet.contains("已测试"), "{sheet}");
    // The second end was refused, and that stands there, too.
    let wanted = ["walk.start", "walk.tick", "walk.returned", "walk.end", "walk.end"];
    daemon.wait("/api/v1/audit?limit=1000", "the audit has all of it in order", |audit| {
        let rows = audit["rows"].as_array().into_iter().flatten().rev();
        rows.filter_map(|row| row["what"].as_str()).filter(|what| what.starts_with("walk.")).eq(wanted)
    });
}

#[test]
fn a_register_comes_from_a_spreadsheet_and_goes_into_one_and_low_stock_is_a_notice() {
    let site = Site::new("registers", GAS_AS_IT_SPEAKS);
    let daemon = Daemon::start(site.folder());
    let file = |name: &str| site.path(name).display().to_string();
    site.write("bad.csv", "编号,名称,数量,最低数量\r\nW-1,灭火毯,三,5\r\nW-2,,4,\r\n");
    let (done, said) = command(&daemon, &["register", "import", "stock", &file("bad.csv"), "--who", "li"]);
    assert!(
        !done && said.contains("row 2 quantity: \"三\" is no number") && said.contains("row 3 name: it is missing"),
        "{said}"
    );
    assert_eq!(daemon.get("/api/v1/registers/stock")["rows"], json!([]), "nothing half is taken");

    site.write("good.csv", "id,name,quantity,minimum\nW-1,灭火毯,3,5\nW-2,沙袋,400,200\n");
    let (done, said) =
        command(&daemon, &["register", "import", "stock", &file("good.csv"), "--who", "li", "--preview"]);
    assert!(done && said.contains("新增 added 2"), "{said}");
    assert_eq!(daemon.get("/api/v1/registers/stock")["rows"], json!([]), "it was only looked at");
    let (done, said) = command(&daemon, &["register", "import", "stock", &file("good.csv"), "--who", "li"]);
    assert!(done && said.contains("已导入 imported"), "{said}");
    daemon.wait("/api/v1/status", "the blankets are low", |status| {
        status["troubles"].as_array().into_iter().flatten().any(|trouble| trouble["part"] == "stock:W-1")
    });
    for encoding in ["utf8", "gbk"] {
        let out = file(&format!("{encoding}.csv"));
        let (done, said) = command(&daemon, &["register", "export", "stock", &out, "--encoding", encoding]);
        assert!(done, "{said}");
        let (done, said) = command(&daemon, &["register", "import", "stock", &out, "--who", "li", "--replace"]);
        assert!(done && said.contains("新增 added 0，修改 changed 0，删除 removed 0，不变 unchanged 2"), "{said}");
    }
    let blankets = json!({ "id": "W-1", "name": "灭火毯", "quantity": "8", "minimum": "5" });
    post(&daemon, "/api/v1/registers/stock/rows", json!({ "who": "li", "rows": [blankets], "remove": ["W-2"] }));
    daemon.wait("/api/v1/status", "they are not low any more", |status| {
        status["troubles"].as_array().into_iter().flatten().all(|trouble| trouble["part"] != "stock:W-1")
    });
    daemon.kill();
    let daemon = Daemon::start(site.folder());
    assert_eq!(
        daemon.get("/api/v1/registers/stock")["rows"],
        json!([{ "id": "W-1", "name": "灭火毯", "quantity": "8", "minimum": "5" }])
    );

    // Two officers have seen the same register; the second is not to write over what the first has written.
    let seen = daemon.get("/api/v1/registers/stock")["version"].clone();
    let rope = json!({ "id": "W-3", "name": "绳", "quantity": "2" });
    let first = json!({ "who": "li", "rows": [rope], "version": seen });
    let written = post(&daemon, "/api/v1/registers/stock/rows", first);
    // `id,name,quantity`, with a row and without one.
    let (a_row, heading) = ("aWQsbmFtZSxxdWFudGl0eQpXLTksc3BhZGUsMQo=", "aWQsbmFtZSxxdWFudGl0eQo=");
    for (path, body) in [
        ("rows", json!({ "who": "wang", "remove": ["W-1"], "version": seen })),
        ("import", json!({ "who": "wang", "sheet": a_row, "replace": true, "version": seen })),
    ] {
        let refused = http::post(daemon.web, &format!("/api/v1/registers/stock/{path}"), &body);
        assert_eq!((refused.status, &refused.json()["code"]), (409, &json!("changed_meanwhile")), "{path}");
    }
    let now = daemon.get("/api/v1/registers/stock");
    assert_eq!((now["rows"].as_array().map(Vec::len), &now["version"]), (Some(2), &written["version"]));
    let heading = json!({ "who": "li", "sheet": heading, "replace": true });
    let refused = http::post(daemon.web, "/api/v1/registers/stock/import", &heading);
    assert_eq!(refused.status, 400, "a sheet without rows empties no register");

    let home = json!({ "id": "h1", "building": "1", "room": "501", "need": "oxygen", "phone": "0571-1" });
    post(&daemon, "/api/v1/registers/households/rows", json!({ "who": "li", "rows": [home] }));
    let seen = daemon.get("/api/v1/registers/households");
    assert_eq!((&seen["masked"], &seen["rows"][0]["need"]), (&json!(false), &json!("oxygen")));
    daemon.wait("/api/v1/audit?limit=50", "the audit says that it was read", |audit| {
        audit["rows"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|row| row["what"] == "register.read" && row["about"] == "households")
    });
}
