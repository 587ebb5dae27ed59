//! Each way out fails without touching the others, and says so; what was due goes out when its peer is back.

use anmin_tests::daemon::Daemon;
use anmin_tests::mqtt::Mqtt;
use anmin_tests::peers::{CapReceiver, VictoriaMetrics, free_port};
use anmin_tests::site::{GAS_AS_IT_SPEAKS, Site};
use serde_json::{Value, json};

#[test]
fn a_way_out_without_its_peer_holds_up_no_other() {
    let site = Site::new("ways-out", "");
    let mut database = VictoriaMetrics::start(&site);
    let office = free_port();
    site.write(
        "anmin.d/all.toml",
        &format!(
            r#"{GAS_AS_IT_SPEAKS}
[[mqtt_out]]
id = "alarms"
broker = "embedded"
[[mqtt_out]]
id = "gone"
url = "mqtt://127.0.0.1:{}"
[[webhook]]
id = "nobody"
url = "http://127.0.0.1:{}/hook"
[[cap]]
id = "office"
url = "http://127.0.0.1:{office}/cap"
min_level = "orange"
sender = "acceptance.anmin.example.cn"
status = "exercise"
[[influx]]
id = "tsdb"
url = "http://127.0.0.1:{}"
bucket = "anmin"
flush_interval = "100ms"
[[override]]
rule = "gas/leak"
on_delay = "0s"
"#,
            free_port(),
            free_port(),
            database.port
        ),
    );
    let mut daemon = Daemon::start(site.folder());
    let port = daemon.broker.expect("it has a broker").port();
    let (mut device, mut officer) = (Mqtt::connect(port, "device"), Mqtt::connect(port, "officer"));
    officer.subscribe("anmin/v1/acceptance/alarm/#");
    device.publish("acceptance/g0/up", r#"{"v":1.5,"seq":1}"#);
    database.wait("gas.lel_value", |stored| stored.len() == 1);
    database.stop();

    // Database, office, webhook and one broker are away; the alarms go out by the other one, gravest level and all.
    for n in 0..50 {
        for seq in 2..4 {
            device.publish(
                &format!("acceptance/g{n}/up"),
                json!({ "v": 30.0 + f64::from(n) / 10.0, "seq": seq }).to_string(),
            );
        }
        let topic = format!("anmin/v1/acceptance/alarm/gas/leak/g{n}/lel/event");
        officer.next("the event", |publish| publish.topic == topic);
    }
    let status = daemon.wait("/api/v1/status", "what waits", |status| status["orders_waiting"].as_u64() >= Some(150));
    assert!(status["readings_waiting"].as_u64() >= Some(100), "{status:#}");

    // The peers come back: everything that was due arrives.
    let mut cap = CapReceiver::start(&["--port", &office.to_string()]);
    let mut told: Vec<Value> = (0..50).map(|_| cap.next("Alert")).collect();
    assert!(told.iter().all(|alert| alert["ok"] == true && alert["repeated"] == false), "{told:#?}");
    told.sort_by_key(|alert| alert["identifier"].to_string());
    told.dedup_by_key(|alert| alert["identifier"].to_string());
    assert_eq!(told.len(), 50, "each alarm once");
    database.run();
    let stored = database.wait("gas.lel_value", |stored| stored.values().map(Vec::len).sum::<usize>() >= 101);
    assert_eq!(stored.values().map(Vec::len).sum::<usize>(), 101, "no reading is lost and none is there twice");
    daemon.wait("/api/v1/status", "the database has all", |status| status["readings_waiting"] == 0);

    let said = daemon.until("way_out=nobody");
    assert!(said.contains("WARN"), "{said}");
}
