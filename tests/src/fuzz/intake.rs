//! What comes over a wire: messages of brokers and platforms, lines, callers, feeds.

use std::net::SocketAddr;
use std::sync::Arc;

use anmin::clock::Clock;
use anmin::intake::broker::wire::{self, Packet, Version};
use anmin::intake::modbus::dial_in::{Who, who};
use anmin::intake::modbus::line::untangled;
use anmin::intake::{Message, http as push};
use anmin::main_loop::Input;
use anmin::subscription::{Position, Since};
use anmin::warning::book::{Book, Here};
use anmin::warning::message::read_feed;
use anmin_sensors::decode::modbus_ascii;
use anmin_sensors::document::{Document, Faults};
use anmin_sensors::point::Points;
use anmin_sensors::profile::Profiles;
use anmin_sensors::reading::Value;
use anmin_sensors::router::Mapping;
use anmin_sensors::survey::{Survey, apart};
use anmin_sensors::time::{Now, Wall};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::decoders::sparkplug_messages;
use super::{Read, choice, files, fresh_router, hashed, hex, mappings, plain, root, samples, seeds, text};

/// A mapping of each shape.
const EVERY_PRESET: &str = r#"
    [[mapping]]
    topic = "json/{device}"
    profile = "anmin-json-gas"
    unknown = "provision"
    [[mapping]]
    topic = "hex/{device}"
    profile = "generic-dtu-gas-hex"
    unknown = "provision"
    [[mapping]]
    topic = "value/{device}/#"
    unknown = "provision"
    payload = "value"
    availability = { topic = "there/{device}", path = "/is", online = "yes", offline = ["no", "lost"] }
    [[mapping.points]]
    name = "leak"
    kind = "flood.leak"
    topic = "leak"
    [[mapping]]
    preset = "zigbee2mqtt"
    unknown = "provision"
    [[mapping]]
    preset = "homeassistant"
    [[mapping]]
    preset = "tasmota"
    profile = "tasmota-ds18b20"
    unknown = "provision"
    [[mapping]]
    preset = "shelly"
    base_topic = "shelly"
    unknown = "provision"
    [[mapping]]
    preset = "chirpstack"
    profile = "generic-lorawan-level-raw"
    unknown = "provision"
    [[mapping]]
    preset = "gbt26875"
    base_topic = "panels"
    unknown = "provision"
    [[mapping]]
    preset = "huawei"
    unknown = "provision"
"#;

/// Topics with their payloads, one a line behind a blank.
pub fn router_seeds() -> Vec<Vec<u8>> {
    let topic = |id: &str| match id {
        "anmin-json-gas" => Some("json/g1"),
        "generic-dtu-gas-hex" => Some("hex/g1"),
        "alink-gas" => Some("$oc/devices/d/sys/properties/report"),
        "tasmota-ds18b20" => Some("tele/t1/SENSOR"),
        "generic-lorawan-level-raw" => Some("application/a/device/d/event/up"),
        "shelly-smoke" | "shelly-flood" => Some("shelly/s1/events/rpc"),
        "gbt26875-smoke" | "gbt26875-gas" | "gbt26875-part" => Some("panels/889-1-1-1/part"),
        id if id.starts_with("zigbee2mqtt-") => Some("zigbee2mqtt/厨房"),
        _ => None,
    };
    let seed = |(id, payload): (String, String)| Some(format!("{} {payload}", topic(&id)?).into_bytes());
    let mut all: Vec<Vec<u8>> = samples("payload").into_iter().filter_map(seed).collect();
    all.extend(seeds([
        "value/v1/leak ON\nthere/v1 {\"is\":\"no\"}\nvalue/v1/leak OFF\nthere/v1 {\"is\":\"yes\"}",
        "zigbee2mqtt/bridge/devices [{\"friendly_name\":\"厨房/一\",\"type\":\"EndDevice\",\"definition\":{\"exposes\":[{\"property\":\"gas\"}]}}]\n\
         zigbee2mqtt/厨房/一 {\"gas\":true}\nzigbee2mqtt/厨房/一/availability offline\nzigbee2mqtt/bridge/state {\"state\":\"offline\"}",
        "homeassistant/binary_sensor/x/config {\"state_topic\":\"a/b\",\"device_class\":\"gas\"}\nnobody/knows x",
        "tele/t1/LWT Offline\njson/g1 {}\njson/g1 {\"lel\":1}\njson/g1 {\"lel\":1}",
    ]));
    all
}

/// Whatever comes, each input at a router that has heard nothing yet.
pub fn router() -> Read {
    let profiles = Profiles::shipped();
    let mappings = mappings(EVERY_PRESET, &profiles);
    Box::new(move |bytes| {
        let mut router = fresh_router(&mappings, &profiles);
        let (mut points, mut out, mut said) = (Points::default(), Vec::new(), Vec::new());
        for (n, line) in bytes.split(|byte| *byte == b'\n').take(16).enumerate() {
            let at = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
            let topic = text(&line[..at]);
            if !is_topic(&topic) {
                continue;
            }
            let topic: Arc<str> = topic.into();
            let payload = line.get(at + 1..).unwrap_or_default();
            let read = router.decode(&mut points, "fuzz", &topic, payload, n % 5 == 4, Now::default(), &mut out);
            said.push(read.map_err(|rejected| rejected.why.as_str()));
        }
        for reading in &out {
            let Ok(Value::Number(number)) = &reading.value else { continue };
            assert!(number.is_finite(), "{reading:?}");
        }
        said.truncate(6);
        hashed((format!("{said:?}"), out.len().min(16), points.len().min(16), router.quarantined().len().min(4)))
    })
}

/// What a broker delivers.
fn is_topic(topic: &str) -> bool {
    !topic.is_empty() && !topic.contains(['+', '#']) && !topic.chars().any(char::is_control)
}

/// Messages of Sparkplug nodes, each behind a byte for its topic and one for its length.
pub fn sparkplug_node_seeds() -> Vec<Vec<u8>> {
    let [birth, device, data, death] = sparkplug_messages();
    let seed = |messages: &[(u8, &[u8])]| -> Vec<u8> {
        messages.iter().flat_map(|(topic, payload)| [&[*topic, payload.len() as u8], *payload].concat()).collect()
    };
    vec![
        seed(&[(0, &birth), (3, &device), (5, &data), (1, &death), (5, &data)]),
        seed(&[(3, &device), (5, &data), (5, &data), (4, &data), (5, &data)]),
        seed(&[(0, &device), (2, &data), (0, &birth), (2, &data)]),
    ]
}

/// Births, data and deaths in any order: the router remembers what they said from message to message, and each input
/// meets a node of its own.
pub fn sparkplug_node() -> Read {
    let profiles = Profiles::shipped();
    let mappings = mappings(
        "[[mapping]]\npreset = \"sparkplug\"\nprofile = \"generic-sparkplug\"\nunknown = \"provision\"\ndevice = \"{name}\"\n",
        &profiles,
    );
    Box::new(move |bytes| {
        let mut router = fresh_router(&mappings, &profiles);
        let (mut points, mut out, mut said, mut rest) = (Points::default(), Vec::new(), Vec::new(), bytes);
        while let [topic, length, behind @ ..] = rest {
            let kind =
                ["NBIRTH/n", "NDEATH/n", "NDATA/n", "DBIRTH/n/d", "DDEATH/n/d", "DDATA/n/d"][usize::from(*topic) % 6];
            let (payload, behind) = behind.split_at(usize::from(*length).min(behind.len()));
            rest = behind;
            let topic: Arc<str> = format!("spBv1.0/g/{kind}").into();
            let read = router.decode(&mut points, "fuzz", &topic, payload, *length > 250, Now::default(), &mut out);
            said.push(read.map_err(|rejected| rejected.why.as_str()));
        }
        hashed((format!("{said:?}"), out.len().min(16), router.take_asks().len(), router.take_news().len()))
    })
}

pub fn mqtt_seeds() -> Vec<Vec<u8>> {
    let frames: [&[u8]; 9] = [
        b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c",
        b"\x10\x0f\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x01c",
        b"\x10\x2d\x00\x04MQTT\x05\xee\x00\x0a\x05\x11\x00\x00\x00\x10\x00\x01c\x05\x18\x00\x00\x00\x01\x00\x01w\x00\x02no\x00\x01u\x00\x01p",
        b"\x32\x17\x00\x03a/b\x00\x0a\x0b\x01\x01\x02\x00\x00\x00\x09\x23\x00\x01x{}",
        b"\x30\x07\x00\x03a/b{}",
        b"\x82\x0d\x00\x01\x02\x0b\x01\x00\x01a\x01\x00\x01#",
        b"\xa2\x05\x00\x01\x00\x01a",
        b"\x40\x02\x00\x01\x62\x02\x00\x01\xc0\x00",
        b"\xe0\x07\x04\x05\x11\x00\x00\x00\x00",
    ];
    let mut seeds: Vec<Vec<u8>> = frames.iter().map(|frame| frame.to_vec()).collect();
    seeds.push(frames.concat());
    seeds
}

/// What a client sends to the broker, in both versions; a publish is the same when it is passed on and read again.
pub fn mqtt(bytes: &[u8]) -> u64 {
    let mut said = Vec::new();
    for version in [Version::V3, Version::V5] {
        let mut rest = bytes;
        let end = loop {
            let header = match wire::header(rest) {
                Ok(Some(header)) => header,
                Ok(None) => break 0,
                Err(fault) => break u64::from(fault.reason()),
            };
            // Of what is too long only the start is looked at.
            let _ = wire::publish_start(header, rest);
            let Some(frame) = rest.get(..header.total()) else { break 1 };
            match wire::read(header, frame, version) {
                Ok(Packet::Publish(publish)) => {
                    passed_on(&publish, frame, version);
                    said.push((3, usize::from(publish.qos)));
                }
                Ok(Packet::Connect(connect)) => said.push((1, usize::from(connect.will.is_some()))),
                Ok(Packet::Subscribe(asked)) => said.push((8, asked.filters.len().min(4))),
                Ok(Packet::Unsubscribe(_, filters)) => said.push((10, filters.len().min(4))),
                Ok(_) => said.push((usize::from(header.first >> 4), 0)),
                Err(fault) => break hashed(fault.words()),
            }
            rest = &rest[header.total()..];
        };
        said.truncate(12);
        said.push((usize::MAX, end as usize));
    }
    hashed(said)
}

fn passed_on(publish: &wire::Publish<'_>, frame: &[u8], version: Version) {
    if publish.topic.is_empty() {
        // An alias stands for it.
        return;
    }
    let message = wire::Outgoing {
        dup: publish.dup,
        qos: publish.qos,
        retain: publish.retain,
        id: publish.id,
        topic: publish.topic,
        payload: &frame[publish.payload.clone()],
        properties: &publish.properties,
        expiry: publish.expiry,
    };
    let mut out = bytes::BytesMut::new();
    message.write(&mut out, version);
    assert_eq!(out.len(), message.size(version), "its size is known beforehand");
    let header = wire::header(&out).expect("what we write is well-formed").expect("and whole");
    let Ok(Packet::Publish(again)) = wire::read(header, &out, version) else { panic!("it is no publish any more") };
    assert_eq!((again.topic, &out[again.payload.clone()]), (publish.topic, message.payload));
    assert_eq!((again.qos, again.id, again.expiry), (publish.qos, publish.id, publish.expiry));
    assert_eq!(again.properties, publish.properties);
}

const ASK: [u8; 8] = [1, 3, 0xF0, 0x15, 0, 1, 0xA6, 0xCE];
const ANSWER: [u8; 7] = [1, 3, 2, 0, 7, 0xF9, 0x86];

/// A byte for the pieces in which it comes and whether it is in digits, then what comes.
pub fn modbus_line_seeds() -> Vec<Vec<u8>> {
    let digits = modbus_ascii::write(&ANSWER[..5]);
    let echo = modbus_ascii::write(&ASK[..6]);
    vec![
        [&[0][..], &ASK, &ANSWER].concat(),
        [&[2][..], b"HBDTU-7", &ANSWER].concat(),
        [&[1][..], &echo, &digits].concat(),
        [&[3][..], b"HB", &digits, b"HB"].concat(),
    ]
}

/// What comes over a line after a request, however it is cut into pieces.
pub fn modbus_line(bytes: &[u8]) -> u64 {
    let (form, bytes) = choice(bytes);
    let (is_ascii, piece) = (form & 1 == 1, (form >> 1) % 16 + 1);
    let beats: Arc<[Vec<u8>]> = [b"HB".to_vec(), b"DTU-7".to_vec(), vec![1, 3, 9, 9]].into();
    let read = untangled(bytes.chunks(piece), is_ascii, &beats, &ASK);
    let whole = untangled([bytes], is_ascii, &beats, &ASK);
    assert_eq!(read, whole, "in pieces of {piece}");
    let (read, beaten) = read;
    assert!(read.len() <= bytes.len().max(2) * 2);
    hashed((is_ascii, read.len().min(32), beaten.min(8), read.first().copied()))
}

pub fn dial_in_seeds() -> Vec<Vec<u8>> {
    seeds(["DTU-0007", "DTU-00", "DTU-8\u{1}\u{3}", "\u{7e}\u{1}\u{7}", "GET / HTTP/1.1\r\n"])
}

/// Who calls, however slowly it says so.
pub fn dial_in() -> Read {
    let registrations = [b"DTU-0007".to_vec(), b"DTU-8".to_vec(), hex("7E 01 07")];
    Box::new(move |bytes| {
        let all = || registrations.iter().map(Vec::as_slice);
        let mut known = None;
        let mut said = 0;
        for end in 0..=bytes.len() {
            match (who(all(), &bytes[..end]), known) {
                (Who::Bus(bus), None) => known = Some(bus),
                // What comes behind its registration is for its bus.
                (Who::Bus(bus), Some(before)) => assert_eq!(bus, before),
                (Who::Nobody | Who::Unsaid, Some(_)) => panic!("it was known after fewer bytes"),
                (Who::Nobody, None) => return 1,
                (Who::Unsaid, None) => said = end as u64,
            }
        }
        2 + said.min(16) + 32 * known.map_or(0, |bus| bus as u64 + 1)
    })
}

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A byte for the sort of proof, then requests as they stand on the wire.
pub fn http_seeds() -> Vec<Vec<u8>> {
    let body = "{\"lel\":12.5}";
    let post = |head: &str| {
        format!("POST /v1/dev7/up HTTP/1.1\r\nHost: a\r\n{head}Content-Length: {}\r\n\r\n{body}", body.len())
    };
    let token = format!("Authorization: Bearer {TOKEN}\r\n");
    let signed = "X-Timestamp: 1772328600\r\nX-Signature: sha256=0000000000000000000000000000000000000000000000000000000000000000\r\n";
    let chunked = format!(
        "PUT /%E6%A5%BC/1?x=y HTTP/1.1\r\nHost: a\r\n{token}Transfer-Encoding: chunked\r\n\r\n5\r\n{{\"a\":\r\n2\r\n1}}\r\n0\r\n\r\n"
    );
    [
        format!("\u{0}{}", post(&token)),
        format!("\u{0}{}{}", post(&token), post(&token)),
        format!("\u{1}{}", post(signed)),
        format!("\u{0}{chunked}"),
        format!("\u{0}{}", post("")),
        "\u{0}GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
    ]
    .map(String::into_bytes)
    .to_vec()
}

/// One connection of a platform that pushes, from its first byte to its last.
pub fn http() -> Read {
    let folder = root("target/fuzz/http");
    std::fs::create_dir_all(&folder).expect("target can be written");
    std::fs::write(folder.join("secret"), TOKEN).expect("target can be written");
    let settings = ["token_file", "key_file"].map(|proof| {
        let toml = format!("id = \"fuzz\"\nlisten = \"127.0.0.1:1\"\n{proof} = \"secret\"\n");
        let faults = Faults::default();
        let document = Document::parse("fuzz", &toml, &faults).expect("it is TOML");
        push::Settings::read(&document.root(&faults), &folder).unwrap_or_else(|| panic!("{:?}", faults.take()))
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime needs nothing");
    let clock = Clock::manual(Wall::from_millis(1_772_328_600_000));
    let peer: SocketAddr = ([127, 0, 0, 1], 9).into();
    Box::new(move |bytes| {
        let (proof, requests) = choice(bytes);
        let settings = settings[proof % 2].clone();
        runtime.block_on(async {
            let (inputs, mut came) = mpsc::channel(16);
            let (mut theirs, ours) = tokio::io::duplex(64 * 1_024);
            let serve = push::converse(settings, clock.clone(), inputs, ours, peer);
            let speak = async {
                // It may have hung up already.
                let _ = theirs.write_all(requests).await;
                let _ = theirs.shutdown().await;
                let mut answers = Vec::new();
                let _ = theirs.read_to_end(&mut answers).await;
                answers
            };
            let keep = async {
                let mut topics = 0;
                while let Some(input) = came.recv().await {
                    let Input::Messages { messages, .. } = input else { continue };
                    for Message { topic, payload, ack, .. } in messages {
                        assert!(!topic.is_empty() && payload.len() <= requests.len());
                        topics += 1;
                        if let Some(ack) = ack {
                            ack.done();
                        }
                    }
                }
                topics
            };
            let ((), answers, topics) = tokio::join!(serve, speak, keep);
            let statuses: Vec<&[u8]> =
                answers.split(|byte| *byte == b'\n').filter(|l| l.starts_with(b"HTTP/")).collect();
            for status in &statuses {
                // Defects of ours would be 500.
                assert!(!status.starts_with(b"HTTP/1.1 500"), "{}", text(&answers));
            }
            hashed((statuses, topics))
        })
    })
}

/// Our own CAP messages, each by itself, inside a feed, and beside a feed that only links.
pub fn warning_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for file in files(&root("gateway/tests/golden/cap"), "xml") {
        let message = std::fs::read_to_string(file).expect("a golden file can be read");
        let body = message.split_once("?>").map_or(&*message, |(_, body)| body);
        seeds.push(
            format!(
                "<feed xmlns=\"http://www.w3.org/2005/Atom\"><entry><content>{body}</content></entry>\
                 <entry><link type=\"application/cap+xml\" href=\"a.xml?b&amp;c\"/></entry></feed>"
            )
            .into_bytes(),
        );
        seeds.push(message.into_bytes());
    }
    seeds
}

/// What is sound is taken, and is over in the end.
pub fn warning(bytes: &[u8]) -> u64 {
    let feed = match read_feed(bytes) {
        Ok(feed) => feed,
        Err(why) => return hashed(plain(&why)),
    };
    let source: Arc<str> = "office".into();
    let mut book = Book::new(Here { area_code: Some("620102001001".to_owned()), places: vec![(36.06, 103.83)] });
    let now = Wall::from_millis(1_772_328_600_000);
    let mut said = vec![feed.links.len().to_string()];
    for message in feed.messages {
        said.push(match message {
            Ok(message) => book.take(now, &source, message).as_str().to_owned(),
            Err(why) => plain(&why),
        });
    }
    let in_force = book.in_force(now);
    assert!(in_force.iter().all(|warning| warning.until > now), "{in_force:?}");
    book.forget(Wall::from_micros(i64::MAX));
    assert_eq!(book.in_force(now), [], "all of it is over in the end");
    hashed(said)
}

/// Topics with their payloads, one a line behind a blank.
pub fn survey_seeds() -> Vec<Vec<u8>> {
    seeds([
        "zigbee2mqtt/bridge/state {\"state\":\"online\"}\nzigbee2mqtt/a {\"gas\":true}",
        "tele/p/SENSOR {\"DS18B20\":{\"Temperature\":20.6}}\nhouse/k1/leak ON\nhouse/k2/temperature 21.5",
        "a/1/x/data {\"h\":{\"temperature\":20.5},\"battery\":80}\na/2/y/data {}\n$oc/devices/d/sys/properties/report {}",
    ])
}

/// Whatever is published, the proposed mappings are sound together.
pub fn survey() -> Read {
    let profiles = Profiles::shipped();
    Box::new(move |bytes| {
        let mut survey = Survey::default();
        for line in bytes.split(|byte| *byte == b'\n') {
            let at = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
            let topic = text(&line[..at]);
            if is_topic(&topic) {
                survey.handle(&topic, line.get(at + 1..).unwrap_or_default());
            }
        }
        let proposals = survey.proposals(&profiles);
        let said: Vec<_> = proposals.iter().map(|proposal| (proposal.what, proposal.profile.is_some())).collect();
        for group in apart(proposals) {
            let text: String = group.iter().map(|proposal| format!("[[mapping]]\n{}", proposal.keys)).collect();
            let faults = Faults::default();
            if let Some(document) = Document::parse("fuzz", &text, &faults) {
                let root = document.root(&faults);
                let read: Vec<Mapping> =
                    root.tables("mapping").iter().filter_map(|r| Mapping::read(r, &profiles)).collect();
                Mapping::check_overlaps(&read, &faults);
            }
            assert_eq!(faults.take(), [], "{text}");
        }
        hashed(said)
    })
}

pub fn position_seeds() -> Vec<Vec<u8>> {
    let link = kept_link();
    let mut seeds = seeds(["1f0c4d2ab3e95877-4711", "beginning", "-1", "+f-0", "ffffffffffffffff-9223372036854775807"]);
    seeds.push(link.into_bytes());
    seeds
}

fn kept_link() -> String {
    use anmin::crew_link::{Link, LinkKey};
    let link = Link {
        alarm: anmin_rules::alarm::AlarmId(uuid::Uuid::nil()),
        station: "st-1".to_owned(),
        member: "li".to_owned(),
        expires: Wall::from_millis(1_772_328_600_000),
    };
    LinkKey::of(b"fuzz").token(&link)
}

/// What strangers show: a place in the journal, and the token of a crew's link.
pub fn position() -> Read {
    let key = anmin::crew_link::LinkKey::of(b"fuzz");
    let whole = kept_link();
    Box::new(move |bytes| {
        let text = text(bytes);
        let position: Option<Position> = text.parse().ok();
        if let Some(position) = position {
            assert_eq!(position.to_string().parse(), Ok(position), "written and read again");
        }
        let opened = key.open(&text, Wall::from_millis(1_772_328_500_000));
        assert!(opened.is_err() || text == whole.as_str(), "{text:?} opens a call and is no token of ours");
        hashed((position.is_some(), Since::parse(&text).is_some(), opened.map(|link| link.station).ok()))
    })
}
