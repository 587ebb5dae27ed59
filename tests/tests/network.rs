//! A network that loses, refuses, holds up and turns around what is sent between anmin, its broker, its database and the receiver
//! of its broadcasts: real packets in a network of the test's own, by the kernel's own tools.
//!
//! Every port is on one loopback, so a fault is told by ports whom it is between. Devices have a way into the broker that stays
//! open: what they say while anmin is cut off waits there.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anmin_tests::daemon::Daemon;
use anmin_tests::mqtt::Mqtt;
use anmin_tests::peers::{CapReceiver, Mosquitto, Peer, VictoriaMetrics};
use anmin_tests::site::Site;
use anmin_tests::storm;
use serde_json::{Value, json};

/// Set in the network of the test's own.
const INSIDE: &str = "ANMIN_TEST_NETWORK";

fn run(line: &str) {
    let done = Command::new("sh").args(["-c", line]).output().expect("there is a shell");
    assert!(done.status.success(), "{line}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Something that is wrong with the network until it is dropped.
struct Fault {
    mend: String,
}

impl Fault {
    /// What becomes of packets from and to these ports.
    fn at(ports: &[u16], target: &str) -> Self {
        let ports = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
        let rule = format!("OUTPUT -p tcp -m multiport --ports {ports} {target}");
        run(&format!("iptables -A {rule}"));
        Self { mend: format!("iptables -D {rule}") }
    }

    /// All of loopback is a line of so many bits a second, and what waits for it for too long is lost.
    fn narrow(rate: &str) -> Self {
        // As much in one packet as in one on a real line.
        run(&format!("ip link set lo mtu 1500 && tc qdisc add dev lo root tbf rate {rate} burst 4k latency 400ms"));
        Self { mend: "tc qdisc del dev lo root && ip link set lo mtu 65536".to_owned() }
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            run(&self.mend);
        }
    }
}

struct World {
    devices: Mqtt,
    said: usize,
    /// Of the last reading: no two have the same.
    time: u128,
}

impl World {
    fn say(&mut self, device: &str, value: f64) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_millis();
        (self.said, self.time) = (self.said + 1, now.max(self.time + 1));
        let payload = json!({ "v": value, "ts": self.time as u64 }).to_string();
        self.devices.publish(&format!("acceptance/{device}/up"), payload);
    }
}

#[test]
fn over_a_bad_network_alarms_go_out_late_at_worst_and_nothing_is_lost() {
    if std::env::var_os(INSIDE).is_some() {
        return story();
    }
    let own = ["-rn", "sh", "-c"];
    let tried = Command::new("unshare").args(own).arg("ip link set lo up && iptables -L -n").output();
    match tried {
        Ok(tried) if tried.status.success() => {}
        Ok(tried) => return println!("left out: the kernel gives us no network: {tried:?}"),
        Err(why) => return println!("left out: {why}"),
    }
    let me = std::env::current_exe().expect("it runs");
    let story = "over_a_bad_network_alarms_go_out_late_at_worst_and_nothing_is_lost";
    let line = format!("ip link set lo up && exec '{}' --exact {story} --nocapture", me.display());
    let told = Command::new("unshare").args(own).arg(line).env(INSIDE, "yes").output().expect("it ran just now");
    let text = [told.stdout, told.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    // A name that is no test's would run nothing, and succeed.
    assert!(told.status.success() && text.contains("1 passed"), "{text}");
}

fn story() {
    let site = Site::new("network", "");
    let (broker, database) = (Mosquitto::start(&site), VictoriaMetrics::start(&site));
    let mut office = CapReceiver::start(&[]);
    let office_port = office.url.rsplit(':').next().and_then(|rest| rest.split('/').next()?.parse().ok());
    let office_port: u16 = office_port.expect("it says its port");
    site.write("rules/storm/gas.toml", storm::RULE_TOML);
    site.write("rules/storm/gas.rhai", storm::RULE_RHAI);
    site.write(
        "anmin.d/all.toml",
        &format!(
            r#"{}
[[override]]
rule = "gas/several_rooms"
enabled = false
[[mqtt]]
id = "site"
url = "mqtt://127.0.0.1:{broker}"
keep_alive = "5s"
max_reconnect_interval = "1s"
  [[mqtt.mapping]]
  topic = "acceptance/{{device}}/up"
  payload = "json"
  device = "{{device}}"
  unknown = "provision"
  profile = "anmin-json-gas"
  location = {{ place = "b1" }}
[[influx]]
id = "history"
url = "http://127.0.0.1:{database}"
bucket = "anmin"
flush_interval = "100ms"
[[cap]]
id = "office"
url = "{office}"
min_level = "orange"
sender = "acceptance.anmin.example.cn"
status = "exercise"
"#,
            storm::ONLY_THE_STORM,
            broker = broker.port,
            database = database.port,
            office = office.url,
        ),
    );
    let mut daemon = Daemon::start(site.folder());
    daemon.until("is subscribed to");
    let mut world = World { devices: Mqtt::connect(broker.beside, "devices"), said: 0, time: 0 };
    let ill = |status: &Value, part: &str| {
        status["troubles"].as_array().is_some_and(|all| all.iter().any(|trouble| trouble["part"] == part))
    };
    let stored = |count: usize| {
        database.wait("gas.lel_value", |stored| stored.values().map(Vec::len).sum::<usize>() >= count);
    };
    let raised = |device: &str| daemon.alarm(storm::RULE, &format!("{device}/lel"), "raised", |_| true);

    for (cut, target) in [("gone", "-j DROP"), ("closed", "-j REJECT --reject-with tcp-reset")] {
        // Nobody can be told, and nothing stored: it is an alarm at the desk at once, and goes out when the way is free.
        {
            let _fault = Fault::at(&[database.port, office_port], target);
            world.say(&format!("{cut}1"), 30.0);
            raised(&format!("{cut}1"));
            daemon.wait("/api/v1/status", "the office is owed", |status| status["orders_waiting"].as_u64() >= Some(1));
        }
        assert_eq!(office.next("Alert")["ok"], true);
        stored(world.said);
        // One is away, and the other knows nothing of it.
        {
            let _fault = Fault::at(&[database.port], target);
            world.say(&format!("{cut}3"), 30.0);
            assert_eq!(office.next("Alert")["ok"], true);
        }
        stored(world.said);
        {
            let _fault = Fault::at(&[office_port], target);
            world.say(&format!("{cut}4"), 30.0);
            stored(world.said);
            daemon.wait("/api/v1/status", "the office is owed", |status| status["orders_waiting"].as_u64() >= Some(1));
        }
        assert_eq!(office.next("Alert")["ok"], true);
        // The broker is away: that is said, and what devices told it meanwhile is heard.
        {
            let _fault = Fault::at(&[broker.port], target);
            daemon.wait("/api/v1/status", "the broker is away", |status| ill(status, "mqtt:site"));
            world.say(&format!("{cut}2"), 30.0);
        }
        raised(&format!("{cut}2"));
        assert_eq!(office.next("Alert")["ok"], true);
        daemon.wait("/api/v1/status", "it is back", |status| !ill(status, "mqtt:site"));
        stored(world.said);
    }

    // Bad, but there: everything goes its way while it lasts.
    let mut late = Peer::python("late.py", &["7"]);
    late.until("listening");
    let all = [broker.port, database.port, office_port];
    for (how, fault) in [
        (
            "lossy",
            (|all| Fault::at(all, "-m statistic --mode random --probability 0.2 -j DROP")) as fn(&[u16]) -> Fault,
        ),
        ("late", |all| Fault::at(all, "-j NFQUEUE --queue-num 7")),
        ("narrow", |_| Fault::narrow("256kbit")),
    ] {
        let _fault = fault(&all);
        for n in 0..20 {
            world.say(&format!("{how}{}", n % 5), f64::from(n) / 10.0);
        }
        world.say(&format!("{how}0"), 30.0);
        raised(&format!("{how}0"));
        assert_eq!(office.next("Alert")["ok"], true, "{how}");
        stored(world.said);
    }
    late.tell("");
    let told: Value = serde_json::from_str(&late.until("packets")).expect("it speaks JSON");
    assert!(told["turned"].as_u64() > Some(0), "nothing was turned around: {told}");

    daemon.wait("/api/v1/status", "nobody is owed anything", |status| status["orders_waiting"] == 0);
    let points = database.deduplicated("gas.lel_value");
    assert_eq!(points.values().map(Vec::len).sum::<usize>(), world.said, "each reading once: {points:?}");
    assert_eq!(office.taken().len(), 0, "each alarm was told once");
    assert_eq!(daemon.terminate(), Some(0));
}
