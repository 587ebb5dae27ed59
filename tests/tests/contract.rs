//! The OpenAPI document against the running daemon: schemathesis asks for everything that it names, with every role.
//!
//! Method: made-up and broken requests of each operation, some of them about alarms, points and accounts that are there. No
//! answer is a 5xx, or a media type or body that the document does not have. `ANMIN_CONTRACT_EXAMPLES` requests for
//! each operation and role, 2 where nobody says; the administrator's also cover every boundary of every parameter.

use std::process::Command;

use anmin_tests::daemon::Daemon;
use anmin_tests::http;
use anmin_tests::mqtt::Mqtt;
use anmin_tests::site::{GAS_AS_IT_SPEAKS, Site};
use serde_json::{Value, json};

const ROLES: [&str; 7] = ["administrator", "officer", "crew", "manager", "office", "auditor", "device"];

/// What never ends is no answer.
const LEFT_OUT: [&str; 2] = ["/api/v1/events", "/api/v1/subscriptions/{subscriber}/events"];

#[test]
fn no_role_gets_an_answer_that_the_document_does_not_have() {
    let more = format!("{GAS_AS_IT_SPEAKS}\n[[override]]\nrule = \"gas/leak\"\non_delay = \"0s\"\n");
    let site = Site::new("contract", &more);
    let daemon = Daemon::start(site.folder());
    let mut device = Mqtt::connect(daemon.broker.expect("the site has a broker").port(), "devices");
    for _ in 0..2 {
        device.publish("acceptance/g1/up", json!({ "v": 60.0 }).to_string());
    }
    let alarm = daemon.alarm("gas/leak", "g1/lel", "red", |alarm| alarm["level"] == "red");
    let known = json!({
        "alarms": alarm["id"], "incidents": alarm["incident"], "device": "g1", "points": "lel", "station": "st-1",
        "stations": "st-1", "month": "2026-01",
    });
    let tokens: Vec<String> = ROLES
        .iter()
        .map(|role| {
            let places: &[&str] = if *role == "manager" { &["1"] } else { &[] };
            let asked = json!({ "name": format!("t-{role}"), "role": role, "places": places, "days": 1 });
            let made = http::post(daemon.web, "/api/v1/tokens", &asked);
            assert_eq!(made.status, 200, "{}", made.body);
            made.json()["token"].as_str().expect("a token").to_owned()
        })
        .collect();
    let examples = std::env::var("ANMIN_CONTRACT_EXAMPLES").unwrap_or_else(|_| "2".to_owned());
    let python = std::env::var("ANMIN_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    for (role, token) in ROLES.iter().zip(&tokens) {
        let phases = if *role == "administrator" { "coverage,fuzzing" } else { "fuzzing" };
        let mut run = Command::new(&python);
        run.args(["-m", "schemathesis.cli", "run", &format!("http://{}/api/v1/openapi.json", daemon.web)])
            .args(["--header", &format!("Authorization: Bearer {token}")])
            .args(["--checks", CHECKS, "--phases", phases, "--max-examples", &examples])
            .args(["--seed", "7", "--no-color", "--request-timeout", "20", "--suppress-health-check", "all"])
            .env("SCHEMATHESIS_HOOKS", "contract_hooks")
            .env("PYTHONPATH", concat!(env!("CARGO_MANIFEST_DIR"), "/peers"))
            .env("ANMIN_KNOWN", known.to_string())
            .current_dir(site.folder());
        for path in LEFT_OUT {
            run.args(["--exclude-path", path]);
        }
        let ran = run.output().expect("python runs; see tests/setup.sh");
        let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert!(ran.status.success(), "{role}:\n{said}");
    }
    let status: Value = http::get(daemon.web, "/api/v1/status").json();
    assert!(status["open_alarms"].is_u64(), "{status}");
}

const CHECKS: &str = "not_a_server_error,content_type_conformance,response_schema_conformance";
