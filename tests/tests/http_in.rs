//! Readings that a platform posts, by Python's `requests` (`peers/poster.py`), which signs as the documentation says.

use anmin_tests::daemon::Daemon;
use anmin_tests::peers::{Peer, free_port};
use anmin_tests::site::Site;
use serde_json::{Value, json};

const KEY: &str = "0123456789abcdef";

struct Platform(Peer);

impl Platform {
    fn of(port: u16) -> Self {
        Self(Peer::python("poster.py", &[&format!("http://127.0.0.1:{port}"), KEY]))
    }

    fn ask(&mut self, command: &str) -> Value {
        self.0.tell(command);
        self.heard()
    }

    fn heard(&mut self) -> Value {
        let line = self.0.until("\"status\"");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}"))
    }

    /// Status and code.
    fn refused(&mut self, command: &str) -> (u64, String) {
        let said = self.ask(command);
        let code = said["body"]["code"].as_str().unwrap_or_default().to_owned();
        (said["status"].as_u64().expect("a number"), code)
    }
}

fn site(name: &str, proof: &str) -> (Site, u16) {
    let port = free_port();
    let site = Site::new(name, "[storage]\ndir = \"state\"\n");
    site.write("secrets/cloud", &format!("{KEY}\n"));
    site.write(
        "anmin.d/cloud.toml",
        &format!(
            r#"
[broker]
listen = "127.0.0.1:0"

[[http]]
id = "cloud"
listen = "127.0.0.1:{port}"
{proof}
  [[http.mapping]]
  topic = "v1/{{device}}/up"
  unknown = "provision"
  profile = "anmin-json-gas"
  location = {{ place = "b1" }}

  [[http.mapping]]
  topic = "listed/{{device}}"

[[override]]
rule = "gas/leak"
on_delay = "0s"
off_delay = "0s"
"#
        ),
    );
    (site, port)
}

#[test]
fn what_is_posted_becomes_an_alarm_and_is_answered_when_it_is_safe() {
    let (site, port) = site("http-in", "key_file = \"secrets/cloud\"");
    let mut daemon = Daemon::start(site.folder());
    let mut cloud = Platform::of(port);
    let taken = cloud.ask("post /v1/g1/up {\"v\":60,\"seq\":1}");
    assert_eq!((&taken["status"], &taken["body"]), (&json!(200), &json!({ "safe": true, "again": false })));
    // Nothing else was waited for: what has its 200 outlives a crash.
    daemon.kill();
    daemon = Daemon::start(site.folder());
    daemon.alarm("gas/leak", "g1/lel", "the leak", |alarm| alarm["level"] == "red");

    // To the byte what came before: a retry whose answer was lost, or somebody who has listened.
    cloud.ask("post /v1/g1/up {\"v\":1,\"seq\":2}");
    daemon.alarm("gas/leak", "g1/lel", "its end", |alarm| alarm["active"] == false);
    cloud.ask("post /v1/g2/up {\"v\":60}");
    daemon.alarm("gas/leak", "g2/lel", "another leak", |alarm| alarm["active"] == true);
    cloud.ask("post /v1/g2/up {\"v\":1}");
    daemon.alarm("gas/leak", "g2/lel", "its end", |alarm| alarm["active"] == false);
    let before = daemon.get("/api/v1/status")["readings"]["evaluated"].clone();
    assert_eq!(cloud.ask("again")["body"], json!({ "safe": true, "again": true }));
    assert_eq!(daemon.get("/api/v1/status")["readings"]["evaluated"], before);

    // Who is not believed, and why.
    for (command, status, code) in [
        ("forged /v1/g1/up {\"v\":99}", 401, "forged"),
        ("late 301 /v1/g1/up {\"v\":99}", 401, "stale"),
        ("late -301 /v1/g1/up {\"v\":99}", 401, "stale"),
        ("plain /v1/g1/up {\"v\":99}", 401, "no_time"),
        ("token 0123456789abcdef /v1/g1/up {\"v\":99}", 401, "no_time"),
        ("get /v1/g1/up", 405, "method"),
        ("post / {\"v\":1}", 400, "path"),
        ("post /v2/g1/up {\"v\":1}", 404, "no_mapping"),
        ("post /v1/g1/up {\"v\":", 422, "not_json"),
        ("post /v1/g1/up {\"w\":1}", 422, "nothing_known"),
        ("post /listed/x1 {\"v\":1}", 202, ""),
    ] {
        assert_eq!(cloud.refused(command), (status, code.to_owned()), "{command}");
    }
    assert!(cloud.ask("post /v1/g1/up [").to_string().contains("not JSON at byte"), "the answer says what is wrong");
    for size in [256 * 1024 + 1, 2 << 20] {
        assert_eq!(cloud.refused(&format!("large /v1/g1/up {size}")), (413, "too_long".to_owned()));
        assert_eq!(cloud.heard()["status"], 413, "in chunks");
    }
    assert_eq!(cloud.refused("slow /v1/g1/up").0, 408);
    assert_eq!(daemon.get("/api/v1/status")["readings"]["evaluated"], before, "none of that is a reading");
    let waits = daemon.get("/api/v1/quarantine");
    assert!(waits.to_string().contains("x1"), "{waits:#}");
    assert_eq!(cloud.ask("post /v1/g1/up {\"v\":2,\"seq\":3}")["status"], 200, "and it goes on");
}

/// Sixty-four bodies may be under way. Who shows no proof takes none of their places; who does fills them, and the next is told when
/// to come again.
#[test]
fn a_crowd_without_a_token_takes_nobodys_place_and_one_with_it_is_told_to_come_again() {
    let (site, port) = site("http-crowd", "token_file = \"secrets/cloud\"");
    let daemon = Daemon::start(site.folder());
    let mut cloud = Platform::of(port);
    let strangers = cloud.ask("crowd 100 100 /v1/g1/up 0123456789abcdee");
    assert_eq!(strangers["status"], json!([401]), "{strangers}");
    assert_eq!(cloud.ask("token 0123456789abcdef /v1/g1/up {\"v\":1}")["status"], 200, "there is room");
    cloud.ask("leave");
    let crowd = cloud.ask("crowd 66 2 /v1/g1/up 0123456789abcdef");
    assert_eq!((&crowd["status"], &crowd["refused"]), (&json!([503]), &json!(2)), "{crowd}");
    let refused = cloud.ask("token 0123456789abcdef /v1/g1/up {\"v\":2}");
    assert_eq!((&refused["status"], &refused["body"]["code"]), (&json!(503), &json!("busy")), "{refused}");
    assert_eq!(refused["retry"], "2", "{refused}");
    cloud.ask("leave");
    let deadline = std::time::Instant::now() + anmin_tests::daemon::DEADLINE;
    while cloud.ask("token 0123456789abcdef /v1/g1/up {\"v\":3}")["status"] != 200 {
        assert!(std::time::Instant::now() < deadline, "it goes on once the crowd has left");
    }
    drop(daemon);
}

#[test]
fn a_token_is_enough_where_the_site_says_so_and_a_strange_address_hears_nothing() {
    let (first, port) = site("http-token", "token_file = \"secrets/cloud\"");
    let daemon = Daemon::start(first.folder());
    let mut cloud = Platform::of(port);
    assert_eq!(cloud.ask("token 0123456789abcdef /v1/g1/up {\"v\":1}")["status"], 200);
    assert_eq!(cloud.refused("token 0123456789abcdee /v1/g1/up {\"v\":1}"), (401, "wrong_token".to_owned()));
    assert_eq!(cloud.refused("plain /v1/g1/up {\"v\":1}"), (401, "no_token".to_owned()));
    drop(daemon);

    let (second, port) = site("http-strange", "token_file = \"secrets/cloud\"\nallow = [\"10.0.0.0/8\"]");
    let mut daemon = Daemon::start(second.folder());
    let mut cloud = Platform::of(port);
    cloud.0.tell("plain /v1/g1/up {\"v\":1}");
    cloud.0.until("ConnectionError");
    daemon.until("is in no allowed network");
    assert_eq!(daemon.get("/api/v1/points")["points"], json!([]));
}
