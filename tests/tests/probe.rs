//! `anmin probe` against what nobody has described: units by pymodbus in several orders, and a broker full of messages.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anmin_tests::daemon::{anmin, binary};
use anmin_tests::mqtt::Mqtt;
use anmin_tests::peers::{Mosquitto, Peer};
use anmin_tests::site::Site;

struct Ran {
    is_ok: bool,
    out: String,
    err: String,
}

/// Runs the binary to its end, with `answer` typed where it asks.
fn probe(arguments: &[&str], answer: &str) -> Ran {
    let mut child = Command::new(binary())
        .arg("probe")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary can be started");
    // One that does not ask has closed its end.
    let _ = child.stdin.take().expect("it is piped").write_all(answer.as_bytes());
    let output = child.wait_with_output().expect("the child is ours");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
    Ran { is_ok: output.status.success(), out: text(output.stdout), err: text(output.stderr) }
}

/// The rows of the output that begin with this word.
fn row<'o>(ran: &'o Ran, unit: u8, start: &str) -> &'o str {
    let (_, of_unit) =
        ran.out.split_once(&format!("unit {unit}:")).unwrap_or_else(|| panic!("{}\n{}", ran.out, ran.err));
    of_unit.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("no {start}: {of_unit}"))
}

fn checked(site: &Site) -> bool {
    let output = anmin(&["check", &site.folder().display().to_string()]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    output.status.success()
}

#[test]
fn units_are_found_with_what_reads_them_and_nothing_is_written_without_a_yes() {
    let (mut wall, port) = Peer::ready("modbus_wall.py", &[]);
    let bus = format!("tcp://127.0.0.1:{port}");
    let site = Site::new("probe", "");
    let folder = site.folder().display().to_string();
    let command =
        ["modbus", &bus, "--units", "1-12", "--kind", "power.voltage", "--timeout", "300ms", "--write", &folder];

    let ran = probe(&command, "no\n");
    assert!(ran.is_ok && ran.out.contains("nothing was written"), "{}{}", ran.out, ran.err);
    assert!(!site.path("anmin.d/bus-1.toml").exists());
    assert!(row(&ran, 3, "yaoan-ya-k300").contains("lel=12.6 %LEL"));
    assert!(row(&ran, 11, "eastron-sdm120").contains("voltage=230.2 V"));
    for (unit, place, written) in
        [(5, "holding 20", "float32 CDAB"), (7, "input 10", "float32 BADC"), (9, "holding 40", "int32 DCBA ×0.001")]
    {
        let found = row(&ran, unit, place);
        assert!(found.contains(written), "{found}");
    }
    assert!(ran.out.contains("one cycle"), "{}", ran.out);

    // What nobody answers is no yes either.
    assert!(probe(&command, "").out.contains("nothing was written"));
    let ran = probe(&command, "yes\n");
    assert!(ran.is_ok, "{}{}", ran.out, ran.err);
    assert!(checked(&site));
    let text = std::fs::read_to_string(site.path("anmin.d/bus-1.toml")).expect("it was written");
    assert_eq!(text.matches("[[device]]").count(), 5, "{text}");
    assert!(std::fs::read_to_string(site.path("profiles/bus-1-u7.toml")).expect("a made profile").contains("BADC"));

    // Twice is refused, and so is what would break the site.
    let ran = probe(&command, "yes\n");
    assert!(!ran.is_ok && ran.err.contains("is there already"), "{}", ran.err);
    let other = [&command[..], &["--id", "bus-2"]].concat();
    site.write("anmin.d/own.toml", "[[device]]\nid = \"bus-2-u3\"\nprofile = \"anmin-json-gas\"\n");
    let ran = probe(&other, "yes\n");
    assert!(!ran.is_ok && ran.err.contains("bus-2-u3") && !site.path("anmin.d/bus-2.toml").exists(), "{}", ran.err);

    let written: Vec<String> = wall.said().into_iter().filter(|line| line.contains("WRITTEN")).collect();
    assert_eq!(written, Vec::<String>::new(), "a probe only reads");
}

#[test]
fn a_bus_on_which_nobody_answers_is_said() {
    let port = anmin_tests::peers::free_port();
    let ran = probe(&["modbus", &format!("tcp://127.0.0.1:{port}"), "--units", "1"], "");
    assert!(!ran.is_ok && ran.err.contains("broke or is refused"), "{}", ran.err);
    let (_wall, port) = Peer::ready("modbus_wall.py", &[]);
    let ran = probe(&["modbus", &format!("tcp://127.0.0.1:{port}"), "--units", "1-2", "--timeout", "200ms"], "");
    assert!(!ran.is_ok && ran.err.contains("no unit answers"), "{}", ran.err);
    for (arguments, wanted) in [
        (&["modbus", "plc"][..], "is not tcp://HOST"),
        (&["modbus", "tcp://x", "--units", "9-1"], "is not such as 1-32"),
        (&["modbus", "tcp://x", "--kind", "fire.smoke"], "is no number"),
        (&["modbus", "tcp://x", "--kind", "gas"], "is not a kind of point"),
        (&["modbus", "tcp://x", "--timeout", "1ms"], "is not from 10ms to 60s"),
    ] {
        let ran = probe(arguments, "");
        assert!(!ran.is_ok && ran.err.contains(wanted), "{arguments:?}: {}", ran.err);
    }
}

/// Goal: whatever is published, the proposal is a sound site. Method: Mosquitto with one captured message of each format.
#[test]
fn what_is_published_is_listed_and_its_proposal_is_a_sound_site() {
    let site = Site::new("probe-mqtt", "");
    let broker = Mosquitto::start(&site);
    let mut devices = Mqtt::connect(broker.port, "devices");
    for (topic, payload) in [
        ("zigbee2mqtt/bridge/state", r#"{"state":"online"}"#),
        ("zigbee2mqtt/厨房", r#"{"gas":true,"battery":null,"linkquality":112,"tamper":false}"#),
        ("tele/panji-3/SENSOR", r#"{"Time":"2026-03-01T09:30:00","DS18B20":{"Temperature":20.6},"TempUnit":"C"}"#),
        (
            "shellyplussmoke-a1b2/events/rpc",
            r#"{"method":"NotifyStatus","params":{"ts":1772328600.42,"smoke:0":{"id":0,"alarm":true}}}"#,
        ),
        (
            "application/17c8/device/0101010101010101/event/up",
            r#"{"time":"2026-03-01T01:30:00.433+00:00","fPort":2,"data":"AAoBLA==","object":{"level_mm":300}}"#,
        ),
        ("/sys/pk/dn/thing/event/property/post", r#"{"params":{"GasConcentration":12.6}}"#),
        ("$oc/devices/d1/sys/properties/report", r#"{"services":[{"service_id":"Gas","properties":{"lel":1}}]}"#),
        ("$thing/up/property/P/D", r#"{"method":"report","params":{"lel":12.6}}"#),
        ("shequ/3/g1/up", r#"{"v":1.5,"ts":1772328600000}"#),
        ("house/k1/temperature", "21.5"),
        ("house/k2/leak", "OFF"),
        ("lab/box/status", "\u{1b}[2J"),
    ] {
        devices.retain(topic, payload);
    }
    let url = format!("mqtt://127.0.0.1:{}", broker.port);
    let folder = site.folder().display().to_string();
    let command = ["mqtt", &url, "--for", "4s", "--write", &folder];
    let ran = probe(&command, "\n");
    assert!(ran.is_ok && ran.out.contains("nothing was written"), "{}{}", ran.out, ran.err);
    for wanted in [
        "preset = \"zigbee2mqtt\"",
        "profile = \"tasmota-ds18b20\"",
        "preset = \"shelly\"",
        "profile = \"generic-lorawan-level\"",
        "preset = \"aliyun\"",
        "preset = \"huawei\"",
        "preset = \"tencent\"",
        "topic = \"shequ/3/{device}/up\"",
        "# read alike by anmin-json-co, anmin-json-gas",
        "topic = \"house/{device}/#\"",
    ] {
        assert!(ran.out.contains(wanted), "no {wanted}:\n{}", ran.out);
    }
    assert!(!ran.out.contains('\u{1b}'), "nothing that a device sends reaches the terminal as it is");
    let ran = probe(&command, "yes\n");
    assert!(ran.is_ok, "{}{}", ran.out, ran.err);
    checked(&site);

    let nobody = format!("mqtt://127.0.0.1:{}", anmin_tests::peers::free_port());
    let ran = probe(&["mqtt", &nobody, "--for", "20s"], "");
    assert!(!ran.is_ok && ran.err.contains("is away"), "{}", ran.err);
    let quiet = Mosquitto::start(&site);
    let ran = probe(&["mqtt", &format!("mqtt://127.0.0.1:{}", quiet.port), "--for", "1s"], "");
    assert!(!ran.is_ok && ran.err.contains("nothing was published"), "{}", ran.err);
}
