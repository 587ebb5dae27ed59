//! Nothing is lost when the power goes at any instant.
//!
//! Goal: anmin under load, killed at random instants and started again, loses no reading that the broker acknowledged
//! to its device, no alarm and no end of an alarm, sends nothing twice under two ids, and keeps the order of each alarm.
//!
//! Method: detectors publish with QoS 1 through Mosquitto and cross their limit all the time. [`Ledger`] knows what
//! they published and is never killed. `kill -9` comes at instants that a seed chooses: in every second round counted
//! from the launch, so that starting and recovering are hit, too, else from the subscription, so that full work is. In
//! the end the ledger is held against VictoriaMetrics (read back by export), the alarm stream over MQTT and the
//! CAP receiver, and anmin's own figures against each other.
//!
//! `ANMIN_KILL_ROUNDS` (50) and `ANMIN_KILL_SEED` (a new one, printed) choose; `make torture ROUNDS=1000` is a night.
//! The seed gives the instants and the load, not the scheduler's mind: a failing seed fails often, not always.

use std::time::{Duration, Instant};

use anmin_tests::daemon::{DEADLINE, Daemon, pause};
use anmin_tests::mqtt::Mqtt;
use anmin_tests::peers::{CapReceiver, Mosquitto, VictoriaMetrics};
use anmin_tests::site::Site;
use anmin_tests::storm::{self, Chance, Ledger, Load, Office, Officer};

const DETECTORS: usize = 16;
const PACE: Duration = Duration::from_millis(20);
/// Latest instant of a kill, in milliseconds.
const LATEST_KILL: u64 = 500;
/// The books are compared after so many rounds.
const ROUNDS_A_STORM: usize = 50;

#[test]
fn nothing_acknowledged_is_lost_by_kills_at_random_instants() {
    let rounds = std::env::var("ANMIN_KILL_ROUNDS").map_or(50, |text| text.parse().expect("a number of rounds"));
    let mut chance = Chance::from_environment("ANMIN_KILL_SEED");
    let site = Site::new("kill", "");
    let broker = Mosquitto::start(&site);
    let database = VictoriaMetrics::start(&site);
    let mut receiver = CapReceiver::start(&[]);
    site.write("rules/storm/gas.toml", storm::RULE_TOML);
    site.write("rules/storm/gas.rhai", storm::RULE_RHAI);
    site.write(
        "anmin.d/all.toml",
        &format!(
            r#"{}
[desk]
call_level = "red"
[[mqtt]]
id = "site"
url = "mqtt://127.0.0.1:{port}"
max_reconnect_interval = "1s"
  [[mqtt.mapping]]
  topic = "acceptance/{{device}}/up"
  payload = "json"
  device = "{{device}}"
  unknown = "provision"
  profile = "anmin-json-gas"
  location = {{ place = "b1" }}
  [[mqtt.mapping]]
  topic = "{{device}}/up"
  payload = "json"
  device = "{{device}}"
  unknown = "quarantine"
[[mqtt_out]]
id = "alarms"
url = "mqtt://127.0.0.1:{port}"
[[cap]]
id = "office"
url = "{}"
min_level = "orange"
sender = "acceptance.anmin.example.cn"
status = "exercise"
[[influx]]
id = "tsdb"
url = "http://127.0.0.1:{}"
bucket = "anmin"
flush_interval = "100ms"
"#,
            storm::ONLY_THE_STORM,
            receiver.url,
            database.port,
            port = broker.port,
        ),
    );
    // The broker keeps messages for a session that is there.
    let mut daemon = Daemon::start(site.folder());
    daemon.until("is subscribed to");
    daemon.kill();

    let mut officer = Officer::listen(broker.port);
    let mut office = Office::default();
    let mut ledger = Ledger::new(DETECTORS, chance.clone());
    let mut done = 0;
    while done < rounds {
        let load = Load::start(ledger, broker.port, PACE);
        for round in 0..ROUNDS_A_STORM.min(rounds - done) {
            let mut daemon = Daemon::launch(site.folder());
            let mut desk = None;
            if round % 2 == 0 {
                daemon.ready();
                daemon.until("is subscribed to");
                desk = Some(daemon.web);
            }
            // A wait by the clock and not for an event: the instant of the kill is what chance chooses here.
            officer.watch(Instant::now() + Duration::from_millis(chance.below(LATEST_KILL)), desk);
            daemon.kill();
            office.take(&mut receiver);
        }
        done += ROUNDS_A_STORM.min(rounds - done);
        ledger = load.stop();

        let daemon = Daemon::start(site.folder());
        let stored = database.wait("gas.lel_value", |stored| ledger.is_in(stored));
        all_is_told(&daemon);
        officer.settle(daemon.web);
        all_is_told(&daemon);
        office.take(&mut receiver);
        ledger.audit_readings(&database.deduplicated("gas.lel_value"));
        officer.audit(&ledger);
        office.audit(&officer);
        println!(
            "{done} kills: {} readings, {} alarms, {} CAP messages; again under their ids: {} readings, {} events, {} CAP messages",
            ledger.readings(),
            ledger.onsets(),
            office.messages(),
            stored.values().map(Vec::len).sum::<usize>() - ledger.readings(),
            officer.repeats,
            office.repeats,
        );
        if done == rounds {
            every_reading_and_order_is_accounted_for(&daemon, broker.port);
        }
        daemon.kill();
    }
}

/// G16: at a quiet moment the figures agree with one another in exact integers, after messages of every fate.
fn every_reading_and_order_is_accounted_for(daemon: &Daemon, broker: u16) {
    let before = daemon.figure("anmin_readings_received_total");
    let mut devices = Mqtt::connect(broker, "odd-devices");
    let reading = r#"{"v":2.0,"seq":900000}"#;
    devices.publish_all(
        [
            ("acceptance/g0/up", reading),
            ("acceptance/g0/up", reading),
            ("acceptance/g1/up", "no reading at all"),
            ("stranger/up", reading),
        ]
        .map(|(topic, payload)| (topic.to_owned(), payload.into())),
    );
    let sum = |names: &[&str]| names.iter().map(|name| daemon.figure(name)).sum::<u64>();
    let accounts: [(&[&str], &[&str]); 5] = [
        (
            &["anmin_readings_received_total"],
            &[
                "anmin_readings_evaluated_total",
                "anmin_readings_duplicate_total",
                "anmin_messages_quarantined_total",
                "anmin_messages_rejected_total",
            ],
        ),
        (
            &["anmin_readings_evaluated_total", "anmin_readings_silent_total"],
            &["anmin_readings_stored_total", "anmin_readings_shed_total"],
        ),
        (
            &["anmin_forward_created_total{database=\"tsdb\"}"],
            &[
                "anmin_forward_accepted_total{database=\"tsdb\"}",
                "anmin_forward_refused_total{database=\"tsdb\"}",
                "anmin_forward_skipped_total{database=\"tsdb\"}",
                "anmin_readings_waiting",
                "anmin_readings_dropped_total",
            ],
        ),
        (
            &["anmin_orders_created_total{way_out=\"office\"}"],
            &[
                "anmin_orders_accepted_total{way_out=\"office\"}",
                "anmin_orders_pending{way_out=\"office\"}",
                "anmin_orders_dead_lettered_total{way_out=\"office\"}",
            ],
        ),
        (
            &["anmin_orders_created_total{way_out=\"alarms\"}"],
            &[
                "anmin_orders_accepted_total{way_out=\"alarms\"}",
                "anmin_orders_pending{way_out=\"alarms\"}",
                "anmin_orders_dead_lettered_total{way_out=\"alarms\"}",
            ],
        ),
    ];
    // Figures are fresh once a second, and the last commit may just be on its way: quiet is when they no longer move.
    let quiet = || sum(accounts[0].0) == before + 4 && accounts.iter().all(|(came, became)| sum(came) == sum(became));
    let deadline = Instant::now() + DEADLINE;
    while !quiet() {
        assert!(
            Instant::now() < deadline,
            "of {}: {:#?}",
            before + 4,
            accounts.map(|(came, became)| (
                came,
                sum(came),
                became.iter().map(|name| (*name, sum(&[name]))).collect::<Vec<_>>()
            ))
        );
        pause();
    }
    for fate in ["anmin_readings_duplicate_total", "anmin_messages_quarantined_total", "anmin_messages_rejected_total"]
    {
        assert!(daemon.figure(fate) > 0, "{fate}");
    }
}

/// The ways out have taken all there was.
fn all_is_told(daemon: &Daemon) {
    daemon.wait("/api/v1/status", "everything has left", |status| {
        status["orders_waiting"] == 0 && status["readings_waiting"] == 0
    });
}
