//! Spreadsheets of devices and places: as Python writes them in GBK, taken in whole or not at all, and taken back. And devices that
//! are taken in at the duty desk, from the quarantine and from a spreadsheet, while the daemon watches.

use std::process::Output;

use anmin_tests::daemon::{Daemon, anmin, pause};
use anmin_tests::http;
use anmin_tests::mqtt::Mqtt;
use anmin_tests::people::Person;
use anmin_tests::site::Site;
use serde_json::{Value, json};

struct Ran {
    is_ok: bool,
    said: String,
}

fn run(site: &Site, arguments: &[&str]) -> Ran {
    let folder = site.folder().display().to_string();
    let words: Vec<String> = arguments.iter().map(|word| word.replace("SITE", &folder)).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let Output { status, stdout, stderr } = anmin(&[&["devices"], &words[..]].concat());
    let text = [stdout, stderr].concat();
    Ran { is_ok: status.success(), said: String::from_utf8(text).expect("output is UTF-8") }
}

fn write(site: &Site, name: &str, bytes: &[u8]) {
    std::fs::write(site.path(name), bytes).expect("the target folder can be written");
}

/// `编号,名称,型号,位置,房号` and two devices, in the bytes that Excel in China writes.
const GBK: &[u8] = b"\xb1\xe0\xba\xc5,\xc3\xfb\xb3\xc6,\xd0\xcd\xba\xc5,\xce\xbb\xd6\xc3,\xb7\xbf\xba\xc5\r\n\
    g1,\xb3\xf8\xb7\xbf,anmin-json-gas,b1,501\r\ng2,\xbf\xcd\xcc\xfc,anmin-json-gas,b1,502\r\n";

#[test]
fn a_sheet_is_previewed_taken_in_exported_and_taken_back() {
    let site = Site::new("devices", "");
    write(&site, "sheet.csv", GBK);
    let preview = run(&site, &["import", "SITE/sheet.csv", "SITE", "--preview"]);
    assert!(preview.is_ok && preview.said.contains("+ g1") && preview.said.contains("new 2"), "{}", preview.said);
    assert!(!site.path("devices.csv").exists() && !site.path("anmin.d").exists());
    // Nobody is there to say yes.
    let unasked = run(&site, &["import", "SITE/sheet.csv", "SITE"]);
    assert!(unasked.is_ok && unasked.said.contains("nothing was written"), "{}", unasked.said);
    assert!(!site.path("devices.csv").exists() && !site.path("anmin.d").exists());
    let taken = run(&site, &["import", "SITE/sheet.csv", "SITE", "--yes"]);
    assert!(taken.is_ok, "{}", taken.said);
    let checked = anmin(&["check", &site.folder().display().to_string()]);
    assert!(String::from_utf8_lossy(&checked.stdout).contains("2 devices"), "{checked:?}");
    let text = std::fs::read_to_string(site.path("devices.csv")).expect("the list");
    assert!(text.starts_with("\u{feff}id,profile,name,place,room\r\ng1,anmin-json-gas,厨房,"), "{text}");

    // Export, then import: the same, in both encodings.
    for encoding in ["utf8", "gbk"] {
        let exported = run(&site, &["export", "SITE", "--encoding", encoding, "--output", "SITE/out.csv"]);
        assert!(exported.is_ok, "{}", exported.said);
        let again = run(&site, &["import", "SITE/out.csv", "SITE", "--yes", "--replace"]);
        assert!(again.is_ok && again.said.contains("nothing changes"), "{}", again.said);
    }
    assert_eq!(
        std::fs::read(site.path("out.csv"))
            .expect("it was written")
            .windows(4)
            .filter(|w| w == b"\xb3\xf8\xb7\xbf")
            .count(),
        1
    );

    // Some of the rows, some of the columns; what they do not say stays.
    write(&site, "some.csv", "id,profile,room\ng2,anmin-json-gas,503\ng3,anmin-json-smoke,504\n".as_bytes());
    let taken = run(&site, &["import", "SITE/some.csv", "SITE", "--yes"]);
    assert!(taken.said.contains("~ g2  room: 502 -> 503") && taken.said.contains("+ g3"), "{}", taken.said);
    let text = std::fs::read_to_string(site.path("devices.csv")).expect("the list");
    assert!(text.contains("g2,anmin-json-gas,客厅,b1,503") && text.contains("g1,anmin-json-gas,厨房,b1,501"), "{text}");
    let undone = run(&site, &["undo", "SITE"]);
    assert!(
        undone.is_ok && undone.said.contains("- g3") && undone.said.contains("room: 503 -> 502"),
        "{}",
        undone.said
    );
    assert!(run(&site, &["undo", "SITE"]).said.contains("+ g3"), "a second time puts it back");
    let whole = run(&site, &["import", "SITE/sheet.csv", "SITE", "--yes", "--replace"]);
    assert!(whole.said.contains("- g3"), "{}", whole.said);
}

#[test]
fn faults_are_told_by_row_and_column_of_the_sheet_and_nothing_is_half_applied() {
    let site = Site::new("devices-faults", "");
    write(&site, "sheet.csv", GBK);
    assert!(run(&site, &["import", "SITE/sheet.csv", "SITE", "--yes"]).is_ok);
    let before = std::fs::read(site.path("devices.csv")).expect("the list");
    for (sheet, wanted) in [
        ("id,place,profile\ng7,b1,anmin-json-gas\ng8,b9,anmin-json-gas\n", "bad.csv:3:2: "),
        ("id,place,profile\ng7,b1,anmin-json-gaz\n", "bad.csv:2:3: "),
        // Rows are counted as an editor counts them: CRLF, empty lines, line breaks in cells.
        (
            "\u{feff}id,name,profile\r\n\r\ng7,\"厨房\r\n阳台\",anmin-json-gas\r\ng8,,anmin-json-gaz\r\n",
            "bad.csv:5:3: ",
        ),
        ("id,profile,interval\ng7,anmin-json-gas,soon\n", "bad.csv:2:3: `interval` is \"soon\""),
        ("id,profile\ng7,anmin-json-gas\ng7,anmin-json-gas\n", "bad.csv:3:1: \"g7\" is there twice"),
        ("id,profile,colour\ng7,anmin-json-gas,red\n", "bad.csv:1:3: column \"colour\" is not known"),
        ("id;profile\n", "expected commas"),
        ("", "the file is empty"),
    ] {
        write(&site, "bad.csv", sheet.as_bytes());
        let ran = run(&site, &["import", "SITE/bad.csv", "SITE", "--yes"]);
        assert!(!ran.is_ok && ran.said.contains(wanted), "{sheet}: {}", ran.said);
        assert_eq!(std::fs::read(site.path("devices.csv")).expect("the list"), before, "{sheet}");
    }
    write(&site, "bad.csv", b"PK\x03\x04");
    assert!(run(&site, &["import", "SITE/bad.csv", "SITE", "--yes"]).said.contains("save the sheet as CSV"));
}

#[test]
fn places_come_from_a_sheet_of_their_own_and_devices_may_be_there() {
    let site = Site::new("places", "");
    let places = "编号,网格,楼栋,纬度,经度,微型消防站\nb7,W03,7,36.06,103.83,st-1 st-2\nb8,W03,8,,,\n";
    write(&site, "places.csv.in", places.as_bytes());
    let taken = run(&site, &["import", "SITE/places.csv.in", "SITE", "--yes"]);
    assert!(taken.is_ok && taken.said.contains("new 2"), "{}", taken.said);
    write(&site, "sheet.csv", "id,profile,place\ng1,anmin-json-gas,b7\n".as_bytes());
    assert!(run(&site, &["import", "SITE/sheet.csv", "SITE", "--yes"]).is_ok);
    // A place that a device is at cannot be taken away, nor one come twice, nor a station that is not there.
    for (places, wanted) in [
        ("id,grid\nb9,W01\n", "g1"),
        ("id,grid\nb1,W01\nb7,W03\n", "place \"b1\" is there already"),
        ("id,stations\nb7,st-9\n", "st-9"),
        ("id,latitude,longitude\nb7,96,103\n", "bad.csv:2:2: `latitude` is \"96\""),
        ("id,latitude,longitude\nb7,36,\n", "belong together"),
    ] {
        write(&site, "bad.csv", places.as_bytes());
        let ran = run(&site, &["import", "SITE/bad.csv", "SITE", "--yes", "--replace"]);
        assert!(!ran.is_ok && ran.said.contains(wanted), "{places}: {}", ran.said);
    }
    let exported = run(&site, &["export", "SITE", "--places"]);
    assert!(exported.said.contains("b7,W03,7,36.06,103.83,st-1 st-2"), "{}", exported.said);
    assert!(run(&site, &["undo", "SITE", "--places"]).said.contains("g1"), "its place would be gone");
}

/// A maker's table of registers becomes a device model, and goes the way of every other list.
#[test]
fn a_makers_table_of_points_becomes_a_profile_is_exported_and_taken_back() {
    let site = Site::new("points", "[[bus]]\nid = \"a\"\ntransport = \"tcp\"\nhost = \"127.0.0.1\"\n");
    let table = "测点,类别,寄存器,地址,数据类型,倍率,单位\nu1,power.voltage,保持寄存器,0,uint16,0.1,V\n\
        i1,power.current,03,1,uint16,0.01,A\n";
    write(&site, "table.csv", table.as_bytes());
    assert!(run(&site, &["import", "SITE/table.csv", "SITE"]).said.contains("--profile"), "whose points are they?");
    let import = ["import", "SITE/table.csv", "SITE", "--profile", "my-meter"];
    let preview = run(&site, &[&import[..], &["--preview"]].concat());
    assert!(preview.is_ok && preview.said.contains("+ u1") && preview.said.contains("new 2"), "{}", preview.said);
    assert!(!site.path("profiles").exists());
    let taken = run(&site, &[&import[..], &["--yes"]].concat());
    assert!(taken.is_ok && site.path("profiles/my-meter.csv").exists(), "{}", taken.said);
    write(&site, "sheet.csv", "id,profile,place,bus,unit_id\nm1,my-meter,b1,a,7\n".as_bytes());
    assert!(run(&site, &["import", "SITE/sheet.csv", "SITE", "--yes"]).is_ok);
    let check = || {
        let ran = anmin(&["check", &site.folder().display().to_string()]);
        String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned()
    };
    assert!(check().contains("1 devices") || check().contains("1 device"), "{}", check());

    for encoding in ["utf8", "gbk"] {
        let out = ["export", "SITE", "--profile", "my-meter", "--encoding", encoding, "-o", "SITE/out.csv"];
        assert!(run(&site, &out).is_ok);
        let again = run(&site, &["import", "SITE/out.csv", "SITE", "--profile", "my-meter", "--yes", "--replace"]);
        assert!(again.is_ok && again.said.contains("nothing changes"), "{}", again.said);
    }
    // Faults by row and column; nothing is half applied.
    let before = std::fs::read(site.path("profiles/my-meter.csv")).expect("the table");
    for (rows, wanted) in [
        ("id,kind,register,address\nu2,power.volt,3,4\n", "bad.csv:2:2: "),
        ("id,kind,address,register\nu2,power.voltage,4,3\nu3,power.voltage,x,3\n", "bad.csv:3:3: "),
        ("id,kind,register,address,colour\nu2,power.voltage,3,4,red\n", "bad.csv:1:5: column \"colour\""),
    ] {
        write(&site, "bad.csv", rows.as_bytes());
        let ran = run(&site, &["import", "SITE/bad.csv", "SITE", "--profile", "my-meter", "--yes"]);
        assert!(!ran.is_ok && ran.said.contains(wanted), "{rows}: {}", ran.said);
        assert_eq!(std::fs::read(site.path("profiles/my-meter.csv")).expect("the table"), before, "{rows}");
    }
    write(&site, "more.csv", "id,kind,register,address,scale\nu1,power.voltage,3,10,0.1\n".as_bytes());
    let taken = run(&site, &["import", "SITE/more.csv", "SITE", "--profile", "my-meter", "--yes"]);
    assert!(taken.is_ok && taken.said.contains("address: 0 -> 10"), "{}", taken.said);
    let undone = run(&site, &["undo", "SITE", "--profile", "my-meter"]);
    assert!(undone.is_ok && undone.said.contains("address: 10 -> 0"), "{}", undone.said);
    // Neither a profile that is written by hand, nor one whose devices would lose it.
    site.write("profiles/own.toml", "");
    let own = run(&site, &["import", "SITE/table.csv", "SITE", "--profile", "own", "--yes"]);
    assert!(!own.is_ok && own.said.contains("is there already"), "{}", own.said);
    std::fs::remove_file(site.path("profiles/own.toml")).expect("it is ours");
    write(&site, "none.csv", b"id,kind,register,address\n");
    let gone = run(&site, &["import", "SITE/none.csv", "SITE", "--profile", "my-meter", "--yes", "--replace"]);
    assert!(!gone.is_ok && gone.said.contains("my-meter"), "{}", gone.said);
}

/// A broker on which nobody is known who is not written down, and a list that is kept by hand.
const QUIET: &str = r#"
[broker]
listen = "127.0.0.1:0"
  [[broker.mapping]]
  topic = "acceptance/{device}/up"
  payload = "json"
  device = "{device}"

[[device_list]]
file = "devices.csv"

[[override]]
rule = "gas/leak"
on_delay = "0s"
"#;

const BY_HAND: &str = "id,name,profile,place\nhand-1,厨房,anmin-json-gas,b1\n";

fn quiet(name: &str) -> Site {
    let site = Site::new(name, QUIET);
    site.write("devices.csv", BY_HAND);
    site
}

fn say(daemon: &Daemon, device: &str, value: f64) {
    let mut devices = Mqtt::connect(daemon.broker.expect("the site has a broker").port(), "devices");
    for _ in 0..2 {
        devices.publish(&format!("acceptance/{device}/up"), json!({ "v": value }).to_string());
    }
}

fn quarantined(found: &Value) -> Vec<&str> {
    found.as_array().into_iter().flatten().filter_map(|row| row["device"].as_str()).collect()
}

fn post(daemon: &Daemon, path: &str, body: Value) -> (u16, Value) {
    let answer = http::post(daemon.web, &format!("/api/v1{path}"), &body);
    (answer.status, answer.json())
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let letters = |three: &[u8]| {
        let bits = three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        (0..4)
            .map(move |n| if n > three.len() { '=' } else { char::from(LETTERS[(bits >> (18 - 6 * n)) as usize & 63]) })
            .collect::<String>()
    };
    bytes.chunks(3).map(letters).collect()
}

fn deeds(daemon: &Daemon, count: usize) -> Vec<(String, String, bool)> {
    let of = |found: &Value| -> Vec<(String, String, bool)> {
        let rows = found["rows"].as_array().into_iter().flatten();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        rows.filter(|row| text(&row["what"]).starts_with("devices."))
            .map(|row| (text(&row["what"]), text(&row["about"]), row["done"] == true))
            .collect()
    };
    of(&daemon.wait("/api/v1/audit?limit=1000", "what became of devices", |found| of(found).len() >= count))
}

/// From the first message that nobody knew to an alarm, without a restart and without a file of the site being touched; then over
/// a restart, and back out.
#[test]
fn a_device_is_taken_out_of_the_quarantine_at_the_desk_and_judged_from_then_on() {
    let site = quiet("adopt");
    let mut daemon = Daemon::start(site.folder());
    let before = std::fs::read_to_string(site.path("anmin.toml")).expect("it is there");
    say(&daemon, "gas-502", 55.0);
    daemon.wait("/api/v1/quarantine", "the stranger", |found| quarantined(found) == ["gas-502"]);
    let guesses = daemon.get("/api/v1/quarantine/guess?device=gas-502");
    let best = &guesses["profiles"][0];
    assert_eq!((&best["profile"], &best["points"][0]["value"]), (&json!("anmin-json-gas"), &json!(55.0)), "{best}");
    assert_eq!(guesses["places"][0]["id"], "b1", "{guesses}");

    let adopt = |more: Value| {
        let mut body =
            json!({ "who": "li", "device": "gas-502", "profile": "anmin-json-gas", "place": "b1", "room": "502" });
        more.as_object().expect("an object").iter().for_each(|(key, value)| body[key] = value.clone());
        body
    };
    let (status, planned) = post(
        &daemon,
        "/quarantine/adopt",
        adopt(json!({ "preview": true, "name": "厨房燃气", "name_en": "kitchen gas" })),
    );
    assert_eq!((status, &planned["applied"], &planned["faults"]), (200, &json!(false), &json!([])), "{planned}");
    assert_eq!(planned["row"]["name"], "厨房燃气", "{planned}");
    let ids: Vec<&str> = planned["points"].as_array().into_iter().flatten().filter_map(|p| p["id"].as_str()).collect();
    assert_eq!(ids, ["gas-502/lel", "gas-502/fault", "gas-502/battery"]);
    assert!(!site.path("data/adopted.csv").exists(), "a preview writes nothing");

    // What is not sound is told before, and refused.
    for (more, zh, en) in [
        (json!({ "profile": "anmin-json-gsa" }), "没有型号“anmin-json-gsa”", "there is no profile \"anmin-json-gsa\""),
        (json!({ "place": "b7" }), "没有地点“b7”", "there is no place \"b7\""),
    ] {
        let mut body = adopt(more);
        let (status, refused) = post(&daemon, "/quarantine/adopt", body.clone());
        assert_eq!((status, &refused["code"]), (409, &json!("devices_refused")), "{refused}");
        assert!(refused.to_string().contains(zh), "{refused}");
        assert!(refused["detail"].as_str().is_some_and(|why| why.contains(en)), "{refused}");
        body["preview"] = json!(true);
        let (_, told) = post(&daemon, "/quarantine/adopt", body);
        assert!(told["faults"][0]["zh"].as_str().is_some_and(|why| why.contains(zh)), "{told}");
        assert!(told["faults"][0]["en"].as_str().is_some_and(|why| why.contains(en)), "{told}");
    }
    assert!(!site.path("data/adopted.csv").exists());
    let (status, unknown) = post(&daemon, "/quarantine/adopt", adopt(json!({ "device": "nobody" })));
    assert_eq!((status, &unknown["code"]), (404, &json!("not_found")));

    let (status, done) = post(
        &daemon,
        "/quarantine/adopt",
        adopt(json!({ "name": "厨房燃气", "name_en": "kitchen gas", "version": planned["version"] })),
    );
    assert_eq!((status, &done["applied"]), (200, &json!(true)), "{done}");
    assert_eq!(done["reloaded"]["taken"], json!(["[[device]] gas-502"]), "{done}");
    assert_eq!(done["reloaded"]["waits_for_restart"], json!([]), "{done}");
    assert_eq!(
        quarantined(&daemon.get("/api/v1/quarantine")),
        Vec::<&str>::new(),
        "it is known before it speaks again"
    );
    // What it said before it was known is not judged; what it says now is, at once.
    assert_eq!(daemon.get("/api/v1/points/gas-502/lel")["sample"], Value::Null);
    say(&daemon, "gas-502", 55.0);
    let alarm = daemon.alarm("gas/leak", "gas-502/lel", "red", |alarm| alarm["level"] == "red");
    assert_eq!(alarm["place"]["room"], "502", "{alarm}");
    // The same from a terminal.
    say(&daemon, "gas-505", 2.0);
    daemon.wait("/api/v1/quarantine", "another", |found| quarantined(found) == ["gas-505"]);
    let url = format!("http://{}", daemon.web);
    let terminal = |more: &[&str]| {
        let ran = anmin(&[&["quarantine", "adopt", "gas-505", "--url", &url], more].concat());
        (ran.status.code(), String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned())
    };
    let (code, said) = terminal(&[]);
    assert!(code == Some(0) && said.contains("anmin-json-gas") && said.contains("lel = 2.0"), "{said}");
    let sound = ["--profile", "anmin-json-gas", "--place", "b1", "--who", "li"];
    let (code, said) = terminal(&[&sound[..], &["--preview"]].concat());
    assert!(code == Some(0) && said.contains("+ gas-505/lel") && said.contains("nothing was changed"), "{said}");
    let (code, said) = terminal(&["--profile", "anmin-json-gas", "--place", "b9", "--who", "li"]);
    assert!(code == Some(1) && said.contains("there is no place"), "{said}");
    let (code, said) = terminal(&sound);
    assert!(code == Some(0) && said.contains("is judged"), "{said}");
    assert_eq!(daemon.get("/api/v1/points/gas-505/lel")["label"], json!({ "zh": "gas-505", "en": "gas-505" }));

    let (_, again) = post(&daemon, "/quarantine/adopt", adopt(json!({})));
    assert_eq!(again["code"], "not_found", "it is in the quarantine no more: {again}");
    let view = daemon.get("/api/v1/devices/gas-502");
    let named = json!({ "zh": "厨房燃气", "en": "kitchen gas" });
    assert_eq!((&view["label"], &view["testable"], &view["tested"]), (&named, &json!(true), &Value::Null));

    // The site's own files are as they were, and `check` knows the device.
    assert_eq!(std::fs::read_to_string(site.path("anmin.toml")).expect("it is there"), before);
    assert_eq!(std::fs::read_to_string(site.path("devices.csv")).expect("it is there"), BY_HAND);
    let check = || {
        let checked = anmin(&["check", &site.folder().display().to_string()]);
        (checked.status.success(), String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat()).into_owned())
    };
    let (sound, said) = check();
    assert!(sound && said.contains("3 devices"), "{said}");
    let told = deeds(&daemon, 5);
    assert_eq!(told.iter().filter(|(.., done)| *done).count(), 2, "{told:?}");
    assert!(told.iter().all(|(what, ..)| what == "devices.adopt"), "{told:?}");

    // The power goes; half of another list lies there, as a write that broke off would leave it.
    daemon.kill();
    site.write("data/adopted.csv.new", "id,profile\nhalf");
    daemon = Daemon::start(site.folder());
    assert_eq!(daemon.get("/api/v1/points/gas-502/lel")["label"], named);
    // Somebody writes it down by hand, too: that counts, and nothing is kept from starting.
    site.write("devices.csv", &format!("{BY_HAND}gas-502,南厨房,anmin-json-gas,b1\n"));
    let (sound, said) = check();
    assert!(sound && said.contains("devices.csv:3, too") && said.contains("3 devices"), "{said}");
    site.write("devices.csv", BY_HAND);

    // A list that is not sound is refused with its place.
    let kept = std::fs::read_to_string(site.path("data/adopted.csv")).expect("it was written");
    site.write("data/adopted.csv", &kept.replace("anmin-json-gas", "anmin-json-gsa"));
    let (sound, said) = check();
    assert!(!sound && said.contains("adopted.csv:2:4: device gas-502: there is no profile"), "{said}");
    site.write("data/adopted.csv", &kept);

    // And back out: in force after a restart, as for a device of the files.
    let (status, other) =
        post(&daemon, "/device-list/remove", json!({ "who": "li", "why": "moved", "device": "hand-1" }));
    assert_eq!((status, &other["code"]), (404, &json!("not_found")), "{other}");
    let (status, gone) =
        post(&daemon, "/device-list/remove", json!({ "who": "li", "why": "moved", "device": "gas-502" }));
    assert_eq!((status, &gone["waits_for_restart"]), (200, &json!(["[[device]] gas-502"])), "{gone}");
    drop(daemon);
    daemon = Daemon::start(site.folder());
    assert_eq!(http::get(daemon.web, "/api/v1/devices/gas-502").status, 404);
    let rows = &daemon.get("/api/v1/device-list")["rows"];
    assert_eq!((rows[0]["id"].as_str(), &rows[1]), (Some("gas-505"), &Value::Null), "{rows}");
}

/// A sheet with one fault writes nothing; the mended one is looked at and then taken, as it was looked at or not at all.
#[test]
fn a_spreadsheet_is_taken_at_the_desk_as_it_was_looked_at_or_not_at_all() {
    let site = quiet("desk-import");
    let daemon = Daemon::start(site.folder());
    let import = |sheet: &[u8], more: Value| {
        let mut body = json!({ "who": "li", "sheet": base64(sheet) });
        more.as_object().expect("an object").iter().for_each(|(key, value)| body[key] = value.clone());
        post(&daemon, "/device-list/import", body)
    };
    let faulty = b"id,profile,place,room\r\nn1,anmin-json-gas,b1,501\r\nn2,anmin-json-gsa,b1,502\r\n";
    for preview in [true, false] {
        let (status, told) = import(faulty, json!({ "preview": preview }));
        assert_eq!((status, &told["applied"]), (200, &json!(false)), "{told}");
        let fault = &told["faults"][0];
        assert_eq!((&fault["row"], &fault["column"]), (&json!(3), &json!("profile")), "{told}");
        let why = fault["text"]["en"].as_str().unwrap_or_default();
        assert!(why.contains("there is no profile") && why.contains("did you mean `anmin-json-gas`?"), "{told}");
    }
    assert!(!site.path("data/adopted.csv").exists());
    // One that is kept by hand is not changed here.
    let (_, by_hand) = import(b"id,profile,name\nhand-1,anmin-json-gas,cellar\n", json!({}));
    assert_eq!(by_hand["faults"][0]["row"], 2, "{by_hand}");
    let why = by_hand["faults"][0]["text"]["en"].as_str().unwrap_or_default();
    assert!(why.contains("devices.csv:2") && why.contains("厨房"), "{by_hand}");
    // What is wrong in the site's own files is told with where it stands.
    let own = std::fs::read_to_string(site.path("devices.csv")).expect("the site has a list");
    write(&site, "devices.csv", own.replace("anmin-json-gas", "anmin-json-gsa").as_bytes());
    let (_, told) = import(b"id,profile,place\nn1,anmin-json-gas,b1\n", json!({ "preview": true }));
    let text = &told["faults"][0]["text"];
    assert!(
        text["zh"].as_str().is_some_and(|why| why.contains("devices.csv:2:") && why.contains("没有型号")),
        "{told}"
    );
    assert!(
        text["en"].as_str().is_some_and(|why| why.contains("devices.csv:2:") && why.contains("no profile")),
        "{told}"
    );
    write(&site, "devices.csv", own.as_bytes());
    // Whoever imports reads Chinese or English.
    let device = |cells: &str| format!("id,profile,place,bus,unit_id,interval\n{cells}\n").into_bytes();
    for (sheet, zh, en) in [
        (b"PK\x03\x04".to_vec(), "文件是工作簿；请将工作表另存为 CSV", "it is a workbook; save the sheet as CSV"),
        (b"id,grid\nx,y\n".to_vec(), "缺少列“profile”；", "there is no column `profile`; "),
        (b"id;profile\n".to_vec(), "单元格以 \";\" 分隔", "cells are separated by \";\""),
        (
            b"id,profile\nx,a\nx,a\n".to_vec(),
            "编号“x”重复，另一处在第 2 行",
            "\"x\" is there twice; the other stands in row 2",
        ),
        (
            b"id,profile,plase\nx,a,b\n".to_vec(),
            "没有“plase”这一列，是否应为“place”？",
            "column \"plase\" is not known; did you mean",
        ),
        (device("a/b,anmin-json-gas,b1,,,"), "设备编号“a/b”不可用", "device \"a/b\": "),
        (
            device("n1,anmin-json-gas,b7,,,"),
            "设备 n1：没有地点“b7”，是否应为“b1”？",
            "there is no place \"b7\"; did you mean `b1`?",
        ),
        (device("n1,anmin-json-gas,b1,,7,"), "写了“unit_id”，没有写“bus”", "has a `unit_id` and no `bus`"),
        (
            device("n1,anmin-json-gas,b1,,300,"),
            "“unit_id”为“300”，应为 0 至 255 的整数",
            "`unit_id` is \"300\", expected",
        ),
        (device("n1,anmin-json-gas,b1,,,often"), "“interval”为“often”，应为时长", "`interval` is \"often\", expected"),
        (
            device("n1,anmin-json-gas,b1,rs485,7,"),
            "设备 n1：型号 anmin-json-gas 没有写明 Modbus 寄存器",
            "says nothing about Modbus",
        ),
    ] {
        let (_, told) = import(&sheet, json!({ "preview": true }));
        let text = &told["faults"][0]["text"];
        assert!(text["zh"].as_str().is_some_and(|why| why.contains(zh)), "{zh}: {told}");
        assert!(text["en"].as_str().is_some_and(|why| why.contains(en)), "{en}: {told}");
    }

    // In GBK, as Excel in China writes it.
    let (status, planned) = import(GBK, json!({ "preview": true }));
    let counts =
        |told: &Value| ["added", "changed", "removed", "unchanged"].map(|key| told[key].as_u64().unwrap_or(99));
    assert_eq!((status, counts(&planned), &planned["points"]), (200, [2, 0, 0, 0], &json!(6)), "{planned}");
    assert!(!site.path("data/adopted.csv").exists());
    let (status, done) = import(GBK, json!({ "version": planned["version"] }));
    assert_eq!((status, &done["applied"], counts(&done)), (200, &json!(true), [2, 0, 0, 0]), "{done}");
    assert_eq!(daemon.get("/api/v1/points/g1/lel")["label"]["zh"], "厨房");
    let (status, stale) = import(GBK, json!({ "version": planned["version"] }));
    assert_eq!((status, &stale["code"]), (409, &json!("changed_meanwhile")), "{stale}");

    // What goes out comes back without a change, also what a spreadsheet would take for a formula.
    let odd = "id,profile,name\nn3,anmin-json-gas,=HYPERLINK(1)\n";
    assert_eq!(import(odd.as_bytes(), json!({})).1["added"], 1);
    for encoding in ["utf-8", "gbk"] {
        let (status, bytes) =
            Person::unnamed(daemon.web).ask(&format!("/api/v1/device-list/sheet?encoding={encoding}"));
        assert_eq!(status, 200);
        assert!(bytes.windows(6).any(|six| six == b",'=HYP"), "{}", String::from_utf8_lossy(&bytes));
        let (_, back) = import(&bytes, json!({ "replace": true }));
        assert_eq!((&back["applied"], counts(&back)), (&json!(false), [0, 0, 0, 4]), "{back}");
    }
    // A row that is another, and one that is gone, wait for a restart, and are told as such.
    let other = "id,profile,room\ng1,anmin-json-gas,503\nn3,anmin-json-gas,\n";
    let (_, planned) = import(other.as_bytes(), json!({ "replace": true, "preview": true }));
    assert_eq!(counts(&planned), [0, 1, 1, 1], "{planned}");
    assert_eq!(planned["changes"][0]["cells"], json!([{ "column": "room", "from": "501", "to": "503" }]), "{planned}");
    let (_, done) = import(other.as_bytes(), json!({ "replace": true }));
    let waits = json!(["[[device]] g1", "[[device]] g2"]);
    assert_eq!(done["reloaded"]["waits_for_restart"], waits, "{done}");
    let last = deeds(&daemon, 6);
    assert!(last.iter().all(|(what, ..)| what == "devices.import"), "{last:?}");
}

/// Killed between the write and the reading anew: what stands in the list is in force at the next start.
#[test]
fn a_box_that_dies_between_the_write_and_the_reload_has_the_device_when_it_comes_back() {
    let site = quiet("adopt-kill");
    let daemon = Daemon::start(site.folder());
    say(&daemon, "gas-503", 1.0);
    daemon.wait("/api/v1/quarantine", "the stranger", |found| quarantined(found) == ["gas-503"]);
    let (web, file) = (daemon.web, site.path("data/adopted.csv"));
    let asked = std::thread::spawn(move || {
        let body = json!({ "who": "li", "device": "gas-503", "profile": "anmin-json-gas", "place": "b1" });
        // The box dies before it can answer.
        drop(http::request(web, "POST", "/api/v1/quarantine/adopt", &body.to_string()));
    });
    while !file.exists() {
        pause();
    }
    daemon.kill();
    asked.join().expect("it only asks");
    let daemon = Daemon::start(site.folder());
    assert_eq!(daemon.get("/api/v1/devices/gas-503")["place"]["building"], "1");
    say(&daemon, "gas-503", 55.0);
    daemon.alarm("gas/leak", "gas-503/lel", "red", |alarm| alarm["level"] == "red");
}

#[test]
fn only_an_administrator_takes_devices_in_and_who_may_not_look_behind_sees_no_list() {
    let site = quiet("adopt-roles");
    let daemon = Daemon::start(site.folder());
    say(&daemon, "gas-504", 1.0);
    daemon.wait("/api/v1/quarantine", "the stranger", |found| quarantined(found) == ["gas-504"]);
    let li = Person::set_up(daemon.web, &site, "li", "李主管");
    let adopt = json!({ "device": "gas-504", "profile": "anmin-json-gas", "place": "b1" });
    let import = json!({ "sheet": base64(b"id,profile\nx,anmin-json-gas\n") });
    let remove = json!({ "device": "gas-504", "why": "x" });
    for (account, role, looks) in
        [("wang", "manager", false), ("zhao", "auditor", true), ("chen", "officer", true), ("sun", "office", true)]
    {
        let places: &[&str] = if role == "manager" { &["1"] } else { &[] };
        let person = li.add(account, account, role, places);
        for (path, body) in
            [("quarantine/adopt", &adopt), ("device-list/import", &import), ("device-list/remove", &remove)]
        {
            let mut preview = body.clone();
            if path != "device-list/remove" {
                preview["preview"] = json!(true);
            }
            for body in [body, &preview] {
                let (status, refused) = person.try_to(&format!("/api/v1/{path}"), body);
                assert_eq!((status, &refused["code"]), (403, &json!("not_your_role")), "{role} {path}: {refused}");
            }
        }
        for path in ["quarantine/guess?device=gas-504", "device-list", "device-list/sheet"] {
            assert_eq!(person.ask(&format!("/api/v1/{path}")).0, if looks { 200 } else { 403 }, "{role} {path}");
        }
    }
    assert!(!site.path("data/adopted.csv").exists());
    let done = li.post("/api/v1/quarantine/adopt", &adopt);
    assert_eq!(done["applied"], true, "{done}");
    // A manager sees the device where it lies within their places, and elsewhere none.
    let here = li.add("he", "he", "manager", &["1"]);
    let elsewhere = li.add("lu", "lu", "manager", &["2"]);
    assert_eq!(here.ask("/api/v1/devices/gas-504").0, 200);
    assert_eq!(elsewhere.ask("/api/v1/devices/gas-504").0, 404);
}
