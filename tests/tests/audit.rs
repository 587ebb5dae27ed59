//! Who did what and when: by every way in, refused or not, over restarts, and through the mending of the journal.

use anmin_tests::daemon::{Daemon, anmin};
use anmin_tests::http;
use anmin_tests::mqtt::Mqtt;
use anmin_tests::site::{GAS_AS_IT_SPEAKS, Site};
use serde_json::{Value, json};

fn run(arguments: &[&str], code: i32) -> String {
    let ran = anmin(arguments);
    let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert_eq!(ran.status.code(), Some(code), "{arguments:?}: {said}");
    said
}

/// Waits until as many rows are there; gives them, the oldest first, as `who through what outcome`.
fn rows(daemon: &Daemon, count: usize) -> Vec<String> {
    let found = daemon.wait("/api/v1/audit?limit=1000", &format!("{count} rows"), |found| {
        found["rows"].as_array().is_some_and(|rows| rows.len() >= count)
    });
    let rows = found["rows"].as_array().expect("checked above").iter().rev();
    let word = |row: &Value, key: &str| row[key].as_str().unwrap_or("-").to_owned();
    let outcome = |row: &Value| if row["done"] == true { "done" } else { "refused" };
    rows.map(|row| format!("{} {} {} {}", word(row, "who"), word(row, "through"), word(row, "what"), outcome(row)))
        .collect()
}

/// What is refused is written down, too, and whoever tries it again and again does not make the disk sync for each.
#[test]
fn refused_commands_cost_no_sync_of_their_own() {
    let site = Site::new("audit-refused", GAS_AS_IT_SPEAKS);
    let daemon = Daemon::start(site.folder());
    let commits = || daemon.figure("anmin_journal_commits_total");
    let before = commits();
    let nobody = "/api/v1/alarms/01900000-0000-7000-8000-000000000001/acknowledge";
    for _ in 0..200 {
        assert_eq!(http::post(daemon.web, nobody, &json!({ "who": "wang" })).status, 404);
    }
    let all = rows(&daemon, 201);
    assert!(all[1..].iter().all(|row| row == "wang api alarm.acknowledge refused"), "{all:#?}");
    let commits = commits() - before;
    assert!(commits < 100, "{commits} commits for 200 refused commands");
}

#[test]
fn what_people_do_is_kept_and_nobody_can_change_it_unseen() {
    let more = format!("{GAS_AS_IT_SPEAKS}\n[[override]]\nrule = \"gas/leak\"\non_delay = \"0s\"\n");
    let site = Site::new("audit", &more);
    let folder = site.folder().to_str().expect("a plain name");
    let daemon = Daemon::start(site.folder());
    let mut device = Mqtt::connect(daemon.broker.expect("the site has a broker").port(), "devices");
    for _ in 0..2 {
        device.publish("acceptance/g1/up", json!({ "v": 60.0 }).to_string());
    }
    let alarm = daemon.alarm("gas/leak", "g1/lel", "red", |alarm| alarm["level"] == "red");
    let id = alarm["id"].as_str().expect("an id");
    let url = format!("http://{}", daemon.web);
    run(&["alarm", "ack", id, "--who", "李值班", "--url", &url], 0);
    let at = format!("/api/v1/alarms/{id}");
    assert_eq!(http::post(daemon.web, &format!("{at}/reset"), &json!({ "who": "wang" })).status, 409);
    assert_eq!(http::post(daemon.web, &format!("{at}/calls/st-1/accept"), &json!({ "who": "crew" })).status, 200);
    let discard = "/api/v1/brokers/nowhere/discard-session";
    assert_eq!(http::post(daemon.web, discard, &json!({ "who": "wang" })).status, 404);
    let resend = json!({ "who": "wang", "way_out": "nowhere" });
    assert_eq!(http::post(daemon.web, "/api/v1/dead-letters/resend", &resend).status, 404);
    let first = [
        "anmin anmin system.start done",
        "李值班 command_line alarm.acknowledge done",
        "wang api alarm.reset refused",
        "crew api call.accept done",
        "wang api broker.discard_session refused",
        "wang api order.resend done",
    ];
    assert_eq!(rows(&daemon, first.len()), first);
    let listed = run(&["audit", "list", "--url", &url, "--who", "wang"], 0);
    for part in ["alarm.reset", "不能复位", "cannot be reset", "api 127.0.0.1", id] {
        assert!(listed.contains(part), "no {part:?} in\n{listed}");
    }
    let json: Value =
        serde_json::from_str(&run(&["audit", "list", "--url", &url, "--limit", "2", "--json"], 0)).expect("JSON");
    assert_eq!(
        (&json["rows"][1]["n"], &json["rows"][1]["about"], &json["next"]),
        (&json!(5), &json!("nowhere"), &json!(5))
    );
    let page = daemon.get("/api/v1/audit?limit=2&before=3");
    assert_eq!(
        (&page["rows"][0]["n"], &page["rows"][0]["about"], &page["next"]),
        (&json!(2), &json!(id), &Value::Null)
    );
    assert!(run(&["audit", "verify", folder], 0).contains("完整"));
    let backup = site.path("backup");
    let backup = backup.to_str().expect("a plain name");
    run(&["backup", backup, folder], 0);
    assert!(run(&["audit", "verify", backup], 0).contains("6 rows: 1 ("));
    assert_eq!(daemon.terminate(), Some(0));

    let daemon = Daemon::start(site.folder());
    let both = [&first[..], &["anmin anmin system.stop done", "anmin anmin system.start done"]].concat();
    assert_eq!(rows(&daemon, both.len()), both);
    assert_eq!(daemon.get("/api/v1/audit?limit=1")["rows"][0]["detail"]["start"], json!(2));
    assert_eq!(daemon.terminate(), Some(0));

    // A journal that was damaged elsewhere is mended, which is in it.
    let journal = site.path("data/state.db");
    let edit = |sql: &str| {
        let conn = rusqlite::Connection::open(&journal).expect("it is there");
        conn.execute_batch(sql).expect("it can be written");
    };
    edit("UPDATE journal SET record = '{}' WHERE n = 1");
    run(&["fsck", folder, "--repair", "--who", "陈工"], 0);
    assert!(run(&["audit", "verify", folder], 0).contains("10 rows: 1 ("), "eight, the stop, and the mending");

    edit("UPDATE audit SET who = 'wang' WHERE n = 2");
    let said = run(&["audit", "verify", folder], 1);
    assert!(said.contains("审计链已断开：第 2 条") && said.contains("row 2 is not what was written"), "{said}");
    let daemon = Daemon::start(site.folder());
    let all = rows(&daemon, 11);
    assert_eq!(all[9], "陈工 command_line system.repair done", "{all:#?}");
    assert_eq!(all[10], "anmin anmin system.start done", "and it goes on");
}
