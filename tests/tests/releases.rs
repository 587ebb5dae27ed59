//! Two releases against one state: what an earlier one left goes on under this one, and what a later one has written this one
//! refuses, with the way back.

use std::process::Command;

use anmin_tests::daemon::{Daemon, anmin, earlier};
use anmin_tests::mqtt::Mqtt;
use anmin_tests::peers::Hook;
use anmin_tests::site::{GAS_AS_IT_SPEAKS, Site};
use rusqlite::Connection;
use serde_json::json;

/// Journals as binaries of those days left them, not made for this test: the number of the schema, and a dump.
const EARLIER: [(u32, &str); 6] = [
    (1, include_str!("../fixtures/state/schema-1.sql")),
    (3, include_str!("../fixtures/state/schema-3.sql")),
    (4, include_str!("../fixtures/state/schema-4.sql")),
    (5, include_str!("../fixtures/state/schema-5.sql")),
    (6, include_str!("../fixtures/state/schema-6.sql")),
    (10, include_str!("../fixtures/state/schema-10.sql")),
];

fn of<T: rusqlite::types::FromSql>(journal: &Connection, sql: &str) -> Vec<T> {
    let mut sql = journal.prepare(sql).expect("it is SQL");
    let rows = sql.query_map([], |row| row.get(0)).expect("it has no arguments");
    rows.collect::<Result<_, _>>().expect("it can be read")
}

fn schema(journal: &Connection) -> u32 {
    journal.pragma_query_value(None, "user_version", |row| row.get(0)).expect("every file has a number")
}

/// A site with the ways out of those days, and the journal.
fn site(schema: u32, dump: &str, hook: &Hook) -> Site {
    let office = match schema {
        10 => format!("[[webhook]]\nid = \"office\"\nurl = \"{}\"\n", hook.url),
        _ => "[[cap]]\nid = \"office\"\nfolder = \"cap\"\nsender = \"acceptance.anmin.example.cn\"\nstatus = \"exercise\"\n".into(),
    };
    let alarms = format!("[[webhook]]\nid = \"alarms\"\nurl = \"{}\"\n", hook.url);
    let site = Site::new("releases", &format!("{GAS_AS_IT_SPEAKS}{office}{alarms}"));
    site.write("data/here", "");
    let journal = Connection::open(site.path("data/state.db")).expect("the folder is ours");
    journal.execute_batch(dump).expect("sqlite3 has written it");
    site
}

#[test]
fn what_an_earlier_release_left_goes_on_under_this_one() {
    let new = Site::new("releases-new", "");
    assert_eq!(Daemon::start(new.folder()).terminate(), Some(0));
    let newest = schema(&Connection::open(new.path("data/state.db")).expect("it was made"));
    for (number, dump) in EARLIER {
        let hook = Hook::start();
        let site = site(number, dump, &hook);
        let file = site.path("data/state.db");
        let journal = Connection::open(&file).expect("it was made");
        assert_eq!(schema(&journal), number);
        let open: Vec<Vec<u8>> = of(&journal, "SELECT alarm FROM heads");
        let open: Vec<String> =
            open.iter().map(|id| uuid::Uuid::from_slice(id).expect("16 bytes").to_string()).collect();
        let rows: Vec<i64> = of(&journal, "SELECT count(*) FROM journal");
        let owed: Vec<String> = of(&journal, "SELECT id FROM orders WHERE state = 0");
        drop(journal);
        assert!(!open.is_empty(), "schema {number}: a state that says nothing shows nothing");

        let daemon = Daemon::start(site.folder());
        let listed = daemon.get("/api/v1/alarms?limit=1000").to_string();
        for id in &open {
            assert!(listed.contains(id), "schema {number}: alarm {id} is not in {listed}");
            let url = format!("http://{}", daemon.web);
            let ran = anmin(&["alarm", "ack", id, "--who", "li", "--url", &url]);
            // One that has returned and is acknowledged closes: then there is nothing left to acknowledge.
            assert!(ran.status.success(), "schema {number}: {}", String::from_utf8_lossy(&ran.stderr));
        }
        let status = daemon.wait("/api/v1/status", "what was owed is sent", |status| status["orders_waiting"] == 0);
        let troubles = status["troubles"].to_string();
        assert!(!troubles.contains("\"store:"), "schema {number}: {troubles}");
        assert_eq!(daemon.terminate(), Some(0));

        let journal = Connection::open(&file).expect("it is there");
        assert_eq!(schema(&journal), newest, "schema {number} has become this one's");
        let now: Vec<i64> = of(&journal, "SELECT count(*) FROM journal");
        assert!(now[0] > rows[0], "schema {number}: nothing was written behind it");
        for id in owed {
            let sent: Vec<i64> = of(&journal, &format!("SELECT state FROM orders WHERE id = '{id}'"));
            assert_eq!(sent, [1], "schema {number}: order {id}");
        }
        drop(journal);
        let folder = site.folder().to_str().expect("a plain name");
        let checked = anmin(&["fsck", folder]);
        assert!(checked.status.success(), "schema {number}: {}", String::from_utf8_lossy(&checked.stdout));
    }
}

/// A later release was tried, and is taken back: its files are refused and left as they are, and the backup that was made before
/// is the way back.
#[test]
fn what_a_later_release_has_written_is_refused_and_a_backup_is_the_way_back() {
    let hook = Hook::start();
    let (number, dump) = EARLIER[EARLIER.len() - 1];
    let site = site(number, dump, &hook);
    let folder = site.folder().to_str().expect("a plain name");
    assert_eq!(Daemon::start(site.folder()).terminate(), Some(0));
    let before = site.path("before");
    let before = before.to_str().expect("a plain name");
    assert!(anmin(&["backup", before, folder]).status.success());

    let file = site.path("data/state.db");
    let later = {
        let journal = Connection::open(&file).expect("it is there");
        let later = schema(&journal) + 1;
        journal
            .execute_batch(&format!("CREATE TABLE later (n); PRAGMA user_version = {later}"))
            .expect("it can be written");
        later
    };
    let ran = anmin(&["run", folder]);
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(!ran.status.success(), "{said}");
    for part in
        [format!("has schema {later}"), "install the anmin that wrote it".to_owned(), "anmin restore".to_owned()]
    {
        assert!(said.contains(&part), "no {part:?} in {said}");
    }
    assert_eq!(schema(&Connection::open(&file).expect("it is there")), later, "it is left as it was");

    let ran = anmin(&["restore", before, folder, "--who", "li"]);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let daemon = Daemon::start(site.folder());
    assert!(daemon.get("/api/v1/alarms?limit=1000")["alarms"].as_array().is_some_and(|alarms| !alarms.is_empty()));
    assert_eq!(daemon.terminate(), Some(0));
}

/// Goal: an upgrade loses nothing, and the way back that `anmin` offers is one. Method: both binaries, one after the other, on one
/// folder: the earlier raises an alarm, makes a backup, raises another and loses its power.
#[test]
fn two_releases_run_against_the_same_state_and_back_again() {
    let Some(earlier) = earlier() else { return };
    let hook = Hook::start();
    let quick = "[[override]]\nrule = \"gas/leak\"\non_delay = \"0s\"\n[[override]]\nrule = \"gas/several_rooms\"\nenabled = false\n";
    let site = Site::new(
        "releases-two",
        &format!("{GAS_AS_IT_SPEAKS}{quick}[[webhook]]\nid = \"alarms\"\nurl = \"{}\"\n", hook.url),
    );
    let folder = site.folder().to_str().expect("a plain name");
    let before = site.path("before");
    let before = before.to_str().expect("a plain name");
    let file = site.path("data/state.db");
    let version = || schema(&Connection::open(&file).expect("it is there"));
    let start_earlier = || {
        let mut daemon = Daemon::launch_by(&mut Command::new(&earlier), site.folder());
        daemon.ready();
        daemon
    };
    let raise = |daemon: &Daemon, device: &str| {
        let mut mqtt = Mqtt::connect(daemon.broker.expect("it has a broker").port(), "device");
        mqtt.publish(&format!("acceptance/{device}/up"), json!({ "v": 60.0, "seq": 1 }).to_string());
        let alarm = daemon.alarm("gas/leak", &format!("{device}/lel"), "raised", |_| true);
        alarm["id"].as_str().expect("text").to_owned()
    };
    let open = |daemon: &Daemon| daemon.get("/api/v1/alarms?limit=1000").to_string();

    let daemon = start_earlier();
    let first = raise(&daemon, "g1");
    let saved = Command::new(&earlier).args(["backup", before, folder]).output().expect("it can be started");
    assert!(saved.status.success(), "{}", String::from_utf8_lossy(&saved.stderr));
    let second = raise(&daemon, "g2");
    daemon.kill();
    let then = version();

    // The upgrade: the same alarms under the same numbers, and life goes on.
    let daemon = Daemon::start(site.folder());
    let now = version();
    assert!(now > then, "tests/fixtures/earlier-release names one that writes the same state as this one: {now}");
    for id in [&first, &second] {
        let url = format!("http://{}", daemon.web);
        let ran = anmin(&["alarm", "ack", id, "--who", "li", "--url", &url]);
        assert!(ran.status.success(), "alarm {id}: {}", String::from_utf8_lossy(&ran.stderr));
        hook.next("its yes", |event| event["alarm"] == **id && event["change"]["cause"] == "acknowledged");
    }
    let third = raise(&daemon, "g3");
    assert_eq!(daemon.terminate(), Some(0));
    let checked = anmin(&["fsck", folder]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));

    // Back again: the earlier one refuses what it does not know, touches nothing, and its backup is the way.
    let bytes = || std::fs::read(&file).expect("it is there");
    let newer = bytes();
    let ran = Command::new(&earlier).args(["run", folder]).output().expect("it can be started");
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(
        !ran.status.success() && said.contains(&format!("has schema {now}")) && said.contains("anmin restore"),
        "{said}"
    );
    assert!(bytes() == newer, "the file was touched");
    let ran =
        Command::new(&earlier).args(["restore", before, folder, "--who", "li"]).output().expect("it can be started");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let daemon = start_earlier();
    assert_eq!(version(), then);
    let listed = open(&daemon);
    assert!(listed.contains(&first) && !listed.contains(&third), "{listed}");
    assert_eq!(daemon.terminate(), Some(0));
}

/// A schema without a file of its days is one that nobody has tried to open.
#[test]
fn every_earlier_schema_that_a_binary_has_written_is_tried() {
    let new = Site::new("releases-all", "");
    assert_eq!(Daemon::start(new.folder()).terminate(), Some(0));
    let newest = schema(&Connection::open(new.path("data/state.db")).expect("it was made"));
    // These came together with the next one: no binary has ever written them.
    let never = [2, 7, 8, 9];
    let wanted: Vec<u32> = (1..newest).filter(|number| !never.contains(number)).collect();
    assert_eq!(EARLIER.map(|(number, _)| number).to_vec(), wanted);
}
