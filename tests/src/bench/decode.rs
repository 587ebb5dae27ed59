//! What a message costs from its payload to its readings, by format: nanoseconds and allocations a reading.
//!
//! The subject is the way that every message takes in anmin, from a known topic to readings; of a panel from the bytes of its frame, and
//! of a Modbus unit from the frames of one cycle. The yardstick is the least that a program in Rust does with it: serde_json makes a tree
//! of the payload and looks nothing up; for what is no JSON, of the same values written as JSON. Both run in turn in one process.
//! Allocations are counted in a process of their own, since counting slows.

use std::hint::black_box;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anmin_sensors::decode::binary::parse_hex;
use anmin_sensors::decode::gbt26875::{self, Address, Frame, SEND};
use anmin_sensors::decode::modbus::{Pdu, crc16};
use anmin_sensors::decode::modbus_ascii;
use anmin_sensors::document::{Document, Faults};
use anmin_sensors::point::{DeviceId, Place, Points};
use anmin_sensors::poll::{Answer, Next, Poller, Request, Timing, UnitPlan};
use anmin_sensors::profile::Profiles;
use anmin_sensors::reading::Reading;
use anmin_sensors::router::{Limits, Mapping, Router};
use anmin_sensors::time::{Mono, Now, Wall};
use serde_json::Value;

use super::median;

/// Messages of one round, of so many rounds.
const MESSAGES: usize = 20_000;
const ROUNDS: usize = 7;
/// A unit of the bench always answers within it.
const LIMIT: Duration = Duration::from_secs(1);

/// One format: what reads its messages one after the other and tells how many readings each gave, and what the yardstick parses.
pub struct Format {
    pub name: &'static str,
    decode: Box<dyn FnMut() -> usize>,
    yardstick: Vec<u8>,
}

/// Name, keys of the mapping, profile, topic, payload (hexadecimal behind `0x`), and what the yardstick parses where that is no
/// JSON.
type Row = (&'static str, &'static str, &'static str, &'static str, &'static str, &'static str);

const ROWS: [Row; 14] = [
    (
        "JSON",
        "topic = 'a/{device}/up'",
        "anmin-json-gas",
        "a/g1/up",
        r#"{"v":12.5,"ts":1772328600000,"seq":17,"battery":80,"fault":false}"#,
        "",
    ),
    (
        "Zigbee2MQTT",
        "preset = 'zigbee2mqtt'",
        "zigbee2mqtt-gas",
        "zigbee2mqtt/g1",
        r#"{"gas":true,"battery":null,"linkquality":112,"tamper":false,"last_seen":"2026-03-01T09:30:00+08:00"}"#,
        "",
    ),
    (
        "Tasmota",
        "preset = 'tasmota'",
        "tasmota-ds18b20",
        "tele/g1/SENSOR",
        r#"{"Time":"2026-03-01T09:30:00","DS18B20":{"Temperature":20.6},"TempUnit":"C"}"#,
        "",
    ),
    (
        "Shelly",
        "preset = 'shelly'",
        "shelly-smoke",
        "g1/events/rpc",
        r#"{"src":"g1","dst":"g1/events","method":"NotifyStatus","params":{"ts":1772328600.42,"smoke:0":{"id":0,"alarm":true,"mute":false}}}"#,
        "",
    ),
    (
        "ChirpStack, decoded object",
        "preset = 'chirpstack'",
        "generic-lorawan-level",
        "application/a/device/g1/event/up",
        r#"{"time":"2026-03-01T01:30:00.433+00:00","deviceInfo":{"deviceName":"b1-sump","devEui":"g1"},"fPort":2,"data":"AAoBLA==","object":{"level_mm":300},"rxInfo":[{"gatewayId":"0016c001f153a14c","rssi":-36,"snr":10.5}]}"#,
        "",
    ),
    (
        "ChirpStack, raw payload",
        "preset = 'chirpstack'",
        "milesight-em500-swl",
        "application/a/device/g1/event/up",
        r#"{"time":"2026-03-01T01:30:00.433+00:00","deviceInfo":{"deviceName":"b1-sump","devEui":"g1"},"fPort":85,"data":"AXVkA3cCAA==","rxInfo":[{"gatewayId":"0016c001f153a14c","rssi":-36,"snr":10.5}]}"#,
        "",
    ),
    (
        "Alibaba Cloud, properties",
        "preset = 'aliyun'",
        "alink-gas",
        "/sys/pk/g1/thing/event/property/post",
        r#"{"id":"123","version":"1.0","sys":{"ack":0},"params":{"GasConcentration":{"value":12.6,"time":1772328600000},"GasState":1},"method":"thing.event.property.post"}"#,
        "",
    ),
    (
        "Alibaba Cloud, event",
        "preset = 'aliyun'",
        "alink-gas",
        "/sys/pk/g1/thing/event/GasAlarm/post",
        r#"{"id":"124","version":"1.0","params":{"value":{"GasConcentration":55.0},"time":1772328600000},"method":"thing.event.GasAlarm.post"}"#,
        "",
    ),
    (
        "OneNET",
        "preset = 'onenet'",
        "alink-gas",
        "$sys/pid/g1/thing/property/post",
        r#"{"id":"17","version":"1.0","params":{"GasConcentration":{"value":0.31,"time":1772328600000},"GasState":{"value":0}}}"#,
        "",
    ),
    (
        "Huawei Cloud",
        "preset = 'huawei'",
        "alink-gas",
        "$oc/devices/g1/sys/properties/report",
        r#"{"services":[{"service_id":"Gas","properties":{"GasConcentration":12.6,"GasState":0},"event_time":"20260301T013000Z"}]}"#,
        "",
    ),
    (
        "Tencent Cloud",
        "preset = 'tencent'",
        "alink-gas",
        "$thing/up/property/pid/g1",
        r#"{"method":"report","clientToken":"1","timestamp":1772328600000,"params":{"GasConcentration":55.0,"BatteryPercentage":80}}"#,
        "",
    ),
    ("one value a topic", "topic = 's/{device}/#'", "shelly-gas", "s/g1/sensor/concentration", "5000", "5000"),
    (
        "frame in hexadecimal digits",
        "topic = 'h/{device}'",
        "generic-dtu-gas-hex",
        "h/g1",
        "01 03 04 00 00 00 00 FA 33",
        r#"{"lel":26.4,"detected":true,"fault":false}"#,
    ),
    (
        "Sparkplug B, data by number",
        "preset = 'sparkplug'\nprofile = 'generic-sparkplug'\nunknown = 'provision'",
        "",
        "spBv1.0/g/DDATA/n/g1",
        "0x0888f795ffbc31121010011888f795ffbc3120096500004c42",
        r#"{"timestamp":1700000001000,"metrics":[{"alias":1,"timestamp":1700000001000,"dataType":9,"value":51.0}],"seq":2}"#,
    ),
];

/// The births before the Sparkplug data above.
const BIRTHS: [(&str, &str); 2] = [
    (
        "spBv1.0/g/NBIRTH/n",
        "0880d095ffbc3112120a0562645365711880d095ffbc312008580012210a144e6f646520436f6e74726f6c2f526562697274681880d095ffbc31200b70001800",
    ),
    (
        "spBv1.0/g/DBIRTH/n/g1",
        "0880d095ffbc3112190a076761732f6c656c10011880d095ffbc312009650000cc41121a0a0b736d6f6b652f616c61726d10021880d095ffbc31200b70001801",
    ),
];

fn hex(text: &str) -> Vec<u8> {
    parse_hex(text).expect("pairs of digits")
}

/// Every format, each with its site.
pub fn formats() -> Vec<Format> {
    let mut all: Vec<Format> = ROWS.iter().map(of_message).collect();
    all.extend([of_panel(), of_unit("Modbus RTU", false), of_unit("Modbus ASCII", true)]);
    all
}

impl Format {
    fn new(name: &'static str, yardstick: Vec<u8>, decode: impl FnMut() -> usize + 'static) -> Self {
        let mut format = Self { name, decode: Box::new(decode), yardstick };
        assert!(format.decode() > 0, "{name} gives readings");
        format
    }

    /// One message; gives its readings.
    pub fn decode(&mut self) -> usize {
        black_box((self.decode)())
    }

    /// What the yardstick does with one message.
    pub fn parse(&self) {
        black_box(serde_json::from_slice::<Value>(black_box(&self.yardstick)).expect("it is JSON"));
    }
}

/// A site that takes in messages.
struct Intake {
    name: &'static str,
    router: Router,
    points: Points,
    out: Vec<Reading>,
}

impl Intake {
    fn new(name: &'static str, keys: &str, profile: &str) -> Self {
        let faults = Faults::default();
        let text = format!("[[mapping]]\n{keys}\n");
        let document = Document::parse("bench.toml", &text, &faults).expect("it is TOML");
        let profiles = Profiles::shipped();
        let mappings: Vec<Mapping> =
            document.root(&faults).tables("mapping").iter().filter_map(|r| Mapping::read(r, &profiles)).collect();
        assert!(mappings.len() == 1, "{name}: {:?}", faults.take());
        let mut points = Points::default();
        if let Some(profile) = profiles.get(profile) {
            let id = DeviceId::new("g1");
            points.add(id, None, &profile.id, &Arc::new(Place::default()), profile.specs()).expect("the only one");
        }
        let router = Router::new(vec![("site".into(), mappings)], profiles, Default::default(), Limits::default());
        Self { name, router, points, out: Vec::new() }
    }

    fn take(&mut self, topic: &Arc<str>, payload: &[u8]) -> usize {
        self.out.clear();
        let (points, out) = (&mut self.points, &mut self.out);
        let done = self.router.decode(points, "site", topic, payload, false, at(0), out);
        done.unwrap_or_else(|why| panic!("{}: {why}", self.name));
        self.out.len()
    }
}

/// So many seconds after a moment in spring.
fn at(seconds: u64) -> Now {
    let wall = Wall::from_millis(1_772_328_600_000 + 1_000 * seconds as i64);
    Now { mono: Mono::from_nanos(1 + 1_000_000_000 * seconds), wall }
}

fn of_message(&(name, keys, profile, topic, payload, yardstick): &Row) -> Format {
    let mut intake = Intake::new(name, keys, profile);
    // In turn: what counts itself must go on counting.
    let payloads = match payload.strip_prefix("0x") {
        None => vec![payload.as_bytes().to_vec()],
        // Field 3, the sequence: 2 to 255 and on from 0, as the births before had 0 and 1.
        Some(start) => (2..258_u16)
            .map(|n| (n % 256) as u8)
            .map(|n| [hex(start), if n < 128 { vec![0x18, n] } else { vec![0x18, n, 1] }].concat())
            .collect(),
    };
    if topic.starts_with("spBv1.0") {
        for (topic, birth) in BIRTHS {
            intake.take(&topic.into(), &hex(birth));
        }
    }
    let yardstick = if yardstick.is_empty() { payload } else { yardstick }.as_bytes().to_vec();
    let (topic, mut turn) = (Arc::from(topic), 0);
    Format::new(name, yardstick, move || {
        let readings = intake.take(&topic, &payloads[turn]);
        turn = (turn + 1) % payloads.len();
        readings
    })
}

/// A frame of a user information transmission device with the states of four smoke detectors (GB/T 26875.3-2011, type 2).
fn of_panel() -> Format {
    let name = "GB/T 26875.3, four parts";
    let mut intake = Intake::new(name, "preset = 'gbt26875'\nunknown = 'provision'", "");
    let part = |n: u8| {
        let text = [b' '; 31];
        let time = [0, 30, 9, 1, 3, 26];
        [&[1, 1, 40, n, 0, 2, 0, 2, 0][..], &text, &time].concat()
    };
    let unit = [vec![2, 4], (1..=4).flat_map(part).collect()].concat();
    let address = |text| Address::parse(text).expect("an address");
    let (source, destination) = (address("889"), address("23352"));
    let time = [0, 30, 9, 1, 3, 26];
    let frame = Frame { serial: 1, version: [1, 1], time, source, destination, command: SEND, unit }.write();
    let parts = [r#"{"time":"2026-03-01T09:30:00","class":{"smoke":1},"fire":true,"fault":false,"state":2}"#; 4];
    Format::new(name, format!("[{}]", parts.join(",")).into_bytes(), move || {
        let next = gbt26875::next(black_box(&frame));
        let gbt26875::Next::Frame(frame, _) = next else { panic!("a whole frame and not {next:?}") };
        let told = gbt26875::told(&frame).expect("it can be read").into_iter();
        told.map(|told| intake.take(&told.topic.into(), told.payload.to_string().as_bytes())).sum()
    })
}

/// One cycle of a three-phase meter: each of its answers from the bytes on the line to the readings.
fn of_unit(name: &'static str, is_ascii: bool) -> Format {
    let profiles = Profiles::shipped();
    let profile = profiles.get("generic-energy-meter-3p").expect("it is shipped");
    let mut points = Points::default();
    let place = Arc::new(Place::default());
    let device = points.add(DeviceId::new("m1"), None, &profile.id, &place, profile.specs()).expect("the only one");
    let plan = UnitPlan::new(1, profile.modbus.as_ref().expect("it is read by Modbus"), &points, device);
    let answer = |request: &Request| {
        let bytes = request.count * 2;
        let mut frame = vec![1, request.table.function(), u8::try_from(bytes).expect("at most 250")];
        frame.extend((0..request.count).flat_map(|n| (230 + n).to_be_bytes()));
        if is_ascii {
            return modbus_ascii::write(&frame);
        }
        frame.extend(crc16(&frame).to_le_bytes());
        frame
    };
    let answers: Vec<(Request, Vec<u8>)> =
        plan.requests().into_iter().map(|request| (request, answer(&request))).collect();
    let values = (0..points.device(device).points().count()).map(|n| format!("\"point_{n}\":23.{n}"));
    let yardstick = format!("{{{}}}", values.collect::<Vec<_>>().join(",")).into_bytes();
    let interval = plan.interval.as_secs().max(1);
    let timing = Timing { timeout: LIMIT, retries: 0, late_window: Duration::ZERO, repeat_window: Duration::ZERO };
    let mut poller = Poller::new(timing, vec![plan], at(0).mono);
    let (mut out, mut second, mut words, mut line) = (Vec::new(), 0, Vec::new(), modbus_ascii::Reader::default());
    Format::new(name, yardstick, move || {
        second += interval;
        let now = at(second);
        out.clear();
        while let Next::Ask(ask) = poller.poll_request(now.mono) {
            let (_, bytes) = answers.iter().find(|(request, _)| *request == ask.request).expect("it is of the plan");
            let mut read = |registers: &[u8]| {
                words.clear();
                words.extend(registers.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])));
            };
            if is_ascii {
                let frame = bytes.iter().find_map(|character| line.take(*character)).expect("a frame").expect("whole");
                read(&frame[3..]);
            } else {
                read(&Pdu::unpack_rtu(black_box(bytes)).expect("its check fits").data[1..]);
            }
            poller.handle_answer(ask.ticket, Ok(Answer::Words(&words)), now, &mut out);
        }
        out.len()
    })
}

/// Nanoseconds of one of them.
fn nanos(mut once: impl FnMut()) -> f64 {
    let began = Instant::now();
    (0..MESSAGES).for_each(|_| once());
    began.elapsed().as_nanos() as f64 / MESSAGES as f64
}

/// `name<TAB>allocations a message<TAB>those of the yardstick`, by the binary beside this one that counts them.
fn allocations() -> Vec<(String, f64, f64)> {
    let own = std::env::current_exe().expect("a program knows where it lies");
    let counter: PathBuf = own.with_file_name("allocations");
    let ran =
        Command::new(&counter).output().unwrap_or_else(|why| panic!("{}: {why}; run make bench", counter.display()));
    let text = String::from_utf8(ran.stdout).expect("it is UTF-8");
    let line = |line: &str| {
        let mut words = line.split('\t');
        let name = words.next().unwrap_or_default().to_owned();
        let mut number = || words.next().and_then(|word| word.parse().ok()).unwrap_or(f64::NAN);
        (name, number(), number())
    };
    text.lines().map(line).collect()
}

/// Prints a line for each format.
pub fn run() {
    println!("\nDecoding: from the payload of a known topic to its readings, beside serde_json making a tree of it");
    println!(
        "{:<30}{:>10}{:>12}{:>12}{:>9}{:>16}{:>16}",
        "format", "readings", "ns/reading", "yardstick", "ratio", "allocs/reading", "of yardstick"
    );
    let counted = allocations();
    for mut format in formats() {
        let readings = format.decode() as f64;
        let rounds: Vec<(f64, f64)> = (0..ROUNDS)
            .map(|_| {
                let ours = nanos(|| {
                    black_box(format.decode());
                });
                (ours, nanos(|| format.parse()))
            })
            .collect();
        let ours = median(rounds.iter().map(|(ours, _)| *ours).collect()) / readings;
        let theirs = median(rounds.iter().map(|(_, theirs)| *theirs).collect()) / readings;
        let (_, own, of_tree) = counted.iter().find(|(name, ..)| name == format.name).cloned().unwrap_or_default();
        println!(
            "{:<30}{readings:>10}{ours:>12.0}{theirs:>12.0}{:>9.2}{:>16.2}{:>16.2}",
            format.name,
            ours / theirs,
            own / readings,
            of_tree / readings
        );
    }
}

#[cfg(test)]
mod tests {
    /// A format that no row of the bench reads any more would be found out at night only.
    #[test]
    fn every_format_of_the_bench_is_read_again_and_again() {
        for mut format in super::formats() {
            for _ in 0..600 {
                assert!(format.decode() > 0, "{}", format.name);
            }
            format.parse();
        }
    }
}
