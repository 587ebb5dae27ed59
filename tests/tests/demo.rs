//! A newcomer's first minute: `anmin demo` as it is typed.

use std::path::Path;

use anmin_tests::daemon::binary;
use anmin_tests::http;
use anmin_tests::peers::{Peer, text};
use anmin_tests::site::Site;
use serde_json::json;

#[test]
fn the_demo_goes_from_leak_to_station_and_broadcast_and_leaves_nothing_outside_its_folder() {
    let site = Site::new("demo", "");
    let dir = site.path("anmin-demo");
    let demo = binary().display().to_string();
    let mut demo = Peer::start(&demo, &["demo", "--dir", &dir.display().to_string()]);
    let said = demo.until("duty desk: http://");
    let web = said.rsplit("http://").next().and_then(|rest| rest.trim_end_matches('/').parse().ok());
    let web = web.unwrap_or_else(|| panic!("no address in {said:?}"));
    let said = demo.until("CAP exercise files:");
    assert!(said.contains(&*dir.join("cap").to_string_lossy()), "{said}");

    let status = http::get(web, "/api/v1/status").json();
    assert!(status["devices"].as_u64() >= Some(60), "{status:#}");
    assert_eq!((&status["exercise"], &status["broken_rules"]), (&json!(true), &json!([])), "{status:#}");
    assert_eq!(http::get(web, "/").status, 200);

    for (zh, en) in [("黄色", "yellow limit"), ("橙色", "orange limit")] {
        let said = demo.until(en);
        assert!(said.contains(zh), "{said}");
    }
    let said = demo.until("is called");
    assert!(said.contains("已呼叫"), "{said}");
    demo.until("`anmin alarm list`");
    demo.until("accepts");
    demo.until("red limit");
    // The next message may be on its way into the folder, under another name.
    let files = std::fs::read_dir(dir.join("cap")).expect("the folder is there").flatten();
    let files: Vec<_> = files.filter(|file| file.path().extension().is_some_and(|name| name == "xml")).collect();
    assert!(!files.is_empty(), "the order of the orange alarm lies in the folder before the red one is told");
    assert!(text(&files[0].path()).contains("<status>Exercise</status>"));

    let list = http::get(web, "/api/v1/alarms").json();
    let id = list["alarms"][0]["id"].as_str().expect("there is an alarm").to_owned();
    let answer = http::post(web, &format!("/api/v1/alarms/{id}/acknowledge"), &json!({ "who": "visitor" }));
    assert_eq!((answer.status, &answer.json()["alarm"]["acknowledged"]["by"]), (200, &json!("visitor")));
    demo.terminate();
    assert!(Path::new(&dir).join("anmin.log").is_file());
    let around: Vec<_> =
        std::fs::read_dir(site.folder()).expect("it is there").flatten().map(|e| e.file_name()).collect();
    assert_eq!(around.len(), 2, "anmin.toml of the test and the demo's folder: {around:?}");
}
