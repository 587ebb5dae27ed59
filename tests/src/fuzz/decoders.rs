//! One target for each module of `sensors/src/decode` that reads.

use std::sync::Arc;

use anmin_sensors::decode::binary::{crc16, parse_hex};
use anmin_sensors::decode::gbt26875::{self as gbt, Next, told};
use anmin_sensors::decode::json::{JsonError, Paths, Scalar};
use anmin_sensors::decode::modbus::Pdu;
use anmin_sensors::decode::modbus_ascii as ascii;
use anmin_sensors::decode::properties::{Properties, Property, Told};
use anmin_sensors::decode::sparkplug as spb;
use anmin_sensors::decode::stamp::{TimeFormat, Zone, iso8601};
use anmin_sensors::decode::topic::{Pattern, Template};
use anmin_sensors::decode::value::{Conversion, decimal};
use anmin_sensors::decode::{homeassistant as hass, zigbee2mqtt as z2m};
use anmin_sensors::document::{Document, Faults};
use anmin_sensors::point::Kind;
use anmin_sensors::profile::Profile;
use anmin_sensors::reading::{Fault, Value};
use serde_json::Value as Json;

use super::{Read, choice, hashed, hex, own_profile, place, profiles, samples, seeds, text};

/// What every decoder promises of a number.
fn must_be_finite(value: &Result<Value, Fault>) {
    if let Ok(Value::Number(number)) = value {
        assert!(number.is_finite(), "{number} is no value");
    }
}

/// Every type in every order, scaled, bounded and with sentinels.
fn every_type() -> Arc<Profile> {
    let mut points = String::new();
    let types = [
        "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64", "bcd16",
        "bcd32",
    ];
    for (n, kind) in types.into_iter().enumerate() {
        for order in ["ABCD", "CDAB", "BADC", "DCBA"] {
            let more = match n % 3 {
                0 => "scale = 0.1\noffset = -40.0\ninvalid_raw = [1]",
                1 => "raw_range = [0.0, 1000.0]",
                _ => "",
            };
            points += &format!(
                "[[point]]\nname = \"{kind}_{}\"\nkind = \"device.state\"\nat = {n}\ntype = \"{kind}\"\n\
                 byte_order = \"{order}\"\n{more}\n",
                order.to_ascii_lowercase()
            );
        }
    }
    points += "[[point]]\nname = \"flag\"\nkind = \"device.fault\"\nat = 0\ntype = \"bool\"\nbit = 7\n";
    points += "[[point]]\nname = \"word\"\nkind = \"device.fault\"\nat = 3\ntype = \"uint16\"\nequals = [3, 5]\n";
    points += "[[point]]\nname = \"text\"\nkind = \"device.text\"\nat = 2\ntype = \"string\"\nlength = 9\n";
    points += "[[point]]\nname = \"gbk\"\nkind = \"device.text\"\nat = 1\ntype = \"string\"\nlength = 4\nbyte_order = \"BADC\"\n";
    own_profile(&format!(
        "id = \"fuzz-binary\"\nmodel = \"f\"\ntitle = {{ zh = \"甲\", en = \"a\" }}\n[mqtt]\npayload = \"bytes\"\n{points}"
    ))
}

pub fn binary_seeds() -> Vec<Vec<u8>> {
    let mut seeds = seeds(["01 03 04 00 0a", "01030401080001BBCD", "\u{1}\u{2}\u{3}\u{4}燃气报警器ok"]);
    let floats = [0.0_f64, 21.5, f64::NAN, f64::INFINITY, f64::MAX, -1e300];
    seeds.extend(floats.map(|number| [number.to_be_bytes(), number.to_le_bytes()].concat()));
    seeds.push(hex("43 66 33 33 7F C0 00 00 99 99 12 34 FF FF FF FF 80 00 00 00"));
    seeds
}

pub fn binary() -> Read {
    let profile = every_type();
    Box::new(move |bytes| {
        let shape = profile.mqtt.as_ref().expect("it is read from frames");
        let (mut good, mut why) = (0_u64, 0_u64);
        let read = shape.decode("", bytes, |n, value| {
            must_be_finite(&value);
            match value {
                Ok(_) => good |= 1 << (n % 64),
                Err(fault) => why = why.wrapping_mul(31) + fault as u64 + 1,
            }
        });
        let hexed = parse_hex(&text(bytes)).map(|bytes| bytes.len().min(4));
        // Low byte first, a sum with its own check is 0.
        let check = crc16(bytes);
        assert_eq!(crc16(&[bytes, &check.to_le_bytes()].concat()), 0);
        hashed((good, why, hexed, read.is_ok()))
    })
}

/// A byte for the profile, then a frame whose checksum is put right.
pub fn frame_seeds() -> Vec<Vec<u8>> {
    let all = frames();
    let mut seeds = Vec::new();
    for (id, payload) in samples("payload") {
        if let (Some(place), Some(frame)) = (place(&all, &id), parse_hex(&payload)) {
            seeds.push([&[place], &frame[..]].concat());
        }
    }
    let own = all.len() as u8 - 1;
    seeds.push([&[own], &hex("AA 01 67 00 EA 02 75 64 09 00 00 00 03 00 01 00 00")[..]].concat());
    seeds.push([&[own], &hex("AA 02 75 01 01 67 80 00")[..]].concat());
    seeds.push([&[own], &hex("AA")[..]].concat());
    seeds
}

/// What sends frames, and one profile with tags of every sort.
fn frames() -> Vec<Arc<Profile>> {
    let mut all = profiles(|profile| {
        let payload = profile.mqtt.as_ref().map(|shape| shape.payload);
        use anmin_sensors::decode::message::Payload::{Bytes, Hex};
        matches!(payload, Some(Hex | Bytes))
    });
    all.push(own_profile(
        r#"
        id = "fuzz-frame"
        model = "f"
        title = { zh = "甲", en = "a" }
        [mqtt]
        payload = "bytes"
        frame = { starts_with = "AA", checksum = "sum8", skip = { "09" = 3, "03 00" = 2, "75 00" = 0 } }
        [[point]]
        name = "temperature"
        kind = "env.temperature"
        tag = "01 67"
        type = "int16"
        byte_order = "DCBA"
        scale = 0.1
        [[point]]
        name = "battery"
        kind = "device.battery"
        tag = "02 75"
        type = "uint8"
        [[point]]
        name = "fault"
        kind = "device.fault"
        at = 1
        type = "bool"
        bit = 0
        "#,
    ));
    all
}

pub fn frame() -> Read {
    let all = frames();
    Box::new(move |bytes| {
        let (which, frame) = choice(bytes);
        let profile = &all[which % all.len()];
        let shape = profile.mqtt.as_ref().expect("only those that have one are here");
        let mut good = 0_u64;
        let mut look = |frame: &[u8]| {
            let text: String;
            let payload = if shape.payload == anmin_sensors::decode::message::Payload::Hex {
                text = frame.iter().map(|byte| format!("{byte:02X}")).collect();
                text.as_bytes()
            } else {
                frame
            };
            let read = shape.decode("", payload, |n, value| {
                must_be_finite(&value);
                good |= u64::from(value.is_ok()) << (n % 64);
            });
            read.map_err(|why| std::mem::discriminant(&why)).err()
        };
        let as_it_is = look(frame);
        // With whatever check it may need: most frames would go no further.
        let crc = crc16(frame).to_le_bytes();
        let sum = frame.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        let checked = [look(&[frame, &crc].concat()), look(&[frame, &[sum]].concat())];
        hashed((which % all.len(), good, as_it_is, checked))
    })
}

pub fn gbt26875_seeds() -> Vec<Vec<u8>> {
    let fire = hex(
        "40 40 01 00 01 01 20 3A 09 1A 09 0C 79 03 00 00 00 00 38 5B 01 00 00 00 30 00 02 02 01 01 01 28 0A 00 02 00 02 00 \
         20 20 20 20 20 20 20 20 20 20 20 20 20 20 20 20 20 20 20 20 20 20 20 20 20 20 20 20 20 20 20 00 02 3A 09 1A 09 0C 46 23 23",
    );
    let units = [
        "01 01 01 00 03 00 3A 09 1A 09 0C 18",
        "03 02 01 00 28 01 00 00 00 03 E8 03 3A 09 1A 09 0C 18 01 00 10 01 00 00 00 63 00 80 3A 09 1A 09 0C 18",
        "15 01 FF 3A 09 1A 09 0C 18",
        "5A 01 3A 09 1A 09 0C 18",
        "",
    ];
    let mut all = units.map(|unit| sealed(&[&hex(HEAD)[..], &hex(unit)].concat())).to_vec();
    let stream = [&fire[..], &all[0], b"@@nothing", &all[1]].concat();
    all.extend([stream, fire]);
    all
}

/// `@@` to the command, of no length.
const HEAD: &str = "40 40 01 00 01 01 3A 09 1A 09 0C 18 79 03 00 00 00 00 38 5B 01 00 00 00 00 00 02";

/// A head and a unit as a frame: with its length, its sum and its end.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut frame = bytes.to_vec();
    if let Some(unit) = frame.len().checked_sub(27).and_then(|length| u16::try_from(length).ok()) {
        frame[..2].copy_from_slice(b"@@");
        frame[24..26].copy_from_slice(&unit.to_le_bytes());
        frame.push(frame[2..].iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)));
        frame.extend(b"##");
    }
    frame
}

/// A stream as it came, and the same bytes as one frame whose length and sum are right.
pub fn gbt26875(bytes: &[u8]) -> u64 {
    let mut said = Vec::new();
    for stream in [bytes, &sealed(bytes)] {
        let mut rest = stream;
        loop {
            let (frame, length) = match gbt::next(rest) {
                Next::More => break,
                Next::Skip(length, denied) => {
                    assert!((1..=rest.len()).contains(&length), "{length} bytes of {}", rest.len());
                    said.push(u64::from(denied.is_some()));
                    rest = &rest[length..];
                    continue;
                }
                Next::Frame(frame, length) => (frame, length),
            };
            assert_eq!(frame.write(), rest[..length], "what was read is written alike");
            let answer = frame.answer(gbt::CONFIRM, frame.time).write();
            assert!(matches!(gbt::next(&answer), Next::Frame(_, end) if end == answer.len()));
            said.push(match told(&frame) {
                Ok(told) => {
                    for one in &told {
                        assert!(!one.topic.contains(['+', '#']) && one.payload.is_object());
                    }
                    2 + hashed((told.len().min(4), frame.unit.first().copied()))
                }
                Err(_) => 3,
            });
            rest = &rest[length..];
        }
        // Where more is awaited, no more is kept than a frame may have.
        assert!(rest.len() < gbt::LONGEST_FRAME, "{} bytes wait", rest.len());
    }
    said.truncate(8);
    hashed(said)
}

/// A component, a line break, a document.
pub fn homeassistant_seeds() -> Vec<Vec<u8>> {
    seeds([
        "binary_sensor\n{\"name\":\"x\",\"state_topic\":\"a/b\",\"device_class\":\"gas\",\"value_template\":\"{{ value_json.gas }}\"}",
        "sensor\n{\"~\":\"home/k\",\"stat_t\":\"~/t\",\"dev_cla\":\"temperature\",\"unit_of_meas\":\"°C\",\"exp_aft\":600,\"dev\":{\"name\":\"厨房\"}}",
        "device\n{\"dev\":{\"ids\":\"a\",\"name\":\"n\"},\"o\":{\"name\":\"o\"},\"stat_t\":\"s/t\",\"avty\":[{\"t\":\"s/a\",\"pl_avail\":\"on\"}],\
         \"cmps\":{\"a\":{\"p\":\"binary_sensor\",\"dev_cla\":\"smoke\",\"val_tpl\":\"{{value_json['smoke:0']['alarm']}}\",\"pl_on\":\"1\",\"pl_off\":\"0\"},\
         \"b\":{\"p\":\"sensor\",\"dev_cla\":\"power\",\"unit_of_meas\":\"kW\",\"val_tpl\":\"{{ value_json.p }}\"}}}",
    ])
}

/// What is announced becomes a mapping that people put into their file.
pub fn homeassistant(bytes: &[u8]) -> u64 {
    let (component, payload) = apart(bytes);
    let component = text(component);
    let _ = hass::component("homeassistant", &component);
    let Some(entities) = hass::entities(&component, payload) else { return 0 };
    let mut said = Vec::new();
    for entity in &entities {
        let of_one_topic: Vec<_> = entities.iter().filter(|other| other.topic == entity.topic).cloned().collect();
        let toml = hass::mapping("mapping", "fuzz", &of_one_topic);
        let faults = Faults::default();
        assert!(Document::parse("fuzz", &toml, &faults).is_some(), "{:?} of\n{toml}", faults.take());
        said.push((toml.lines().count(), toml.contains("path"), toml.contains("scale"), toml.contains("true_words")));
    }
    said.truncate(6);
    hashed(said)
}

/// The first line, and what stands behind it.
fn apart(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, &[]),
    }
}

pub fn json_seeds() -> Vec<Vec<u8>> {
    seeds([
        "{\"a\":1,\"b\":{\"c\":[true,null,-1.5e3,\"x\\u5b57\\n\"]},\"list\":[{\"v\":1},{\"v\":2}],\"a/b\":0,\"m~n\":1e400}",
        "[1,2,{\"c\":NaN},\"\\ud83d\\ude92\",Infinity,-Infinity,{}]",
        "{\"a\":[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]}",
        " {\"b\" : { \"c\" : [ ] } , \"a\" : \"\" , \"a\" : false } ",
    ])
}

const POINTERS: [&str; 10] = ["", "/a", "/b/c", "/b/c/0", "/list/1/v", "/0", "/2/c", "/a~1b", "/m~0n", "/b"];

/// Against serde_json: what that takes is taken, and the last value at each path is the same.
pub fn json() -> Read {
    let paths = Paths::new(POINTERS.into_iter().chain(["/list/*/v", "/*"])).expect("sound pointers");
    Box::new(move |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return 0 };
        let mut last: [Option<Scalar<'_>>; POINTERS.len()] = Default::default();
        let mut found = 0_u64;
        let read = paths.read(text, &mut |slot, scalar| {
            found = found.wrapping_mul(31) + slot as u64 + 1;
            if let Some(place) = last.get_mut(slot) {
                *place = Some(scalar);
            }
        });
        let strict: Result<Json, _> = serde_json::from_str(text);
        match (&read, strict) {
            (Err(JsonError::TooDeep), _) | (_, Err(_)) => {}
            (Err(why), Ok(_)) => panic!("{why} of {text:?}, which serde_json reads"),
            (Ok(()), Ok(document)) => {
                for (pointer, ours) in POINTERS.iter().zip(&last) {
                    let theirs = document.pointer(pointer);
                    let same = match (theirs, ours) {
                        // A key that stands twice: serde_json forgets the first with all that is in it.
                        (None, _) => true,
                        (Some(_), None) => false,
                        (Some(Json::Null), Some(ours)) => *ours == Scalar::Null,
                        (Some(Json::Bool(flag)), Some(ours)) => *ours == Scalar::Flag(*flag),
                        (Some(Json::Number(number)), Some(Scalar::Number(text))) => {
                            let (theirs, ours) = (number.as_f64(), text.parse::<f64>().ok());
                            // serde_json does not round to the nearest in the last place.
                            theirs.zip(ours).is_some_and(|(a, b)| (a - b).abs() <= b.abs() * 1e-12)
                        }
                        (Some(Json::String(text)), Some(Scalar::Text(ours))) => text == ours,
                        (Some(Json::Array(_) | Json::Object(_)), Some(ours)) => *ours == Scalar::Compound,
                        _ => false,
                    };
                    assert!(same, "{pointer}: {theirs:?} and {ours:?} of {text:?}");
                }
            }
        }
        hashed((found, read.map_err(|why| std::mem::discriminant(&why))))
    })
}

/// What speaks MQTT; the seeds are the samples of the profiles.
fn speakers() -> Vec<Arc<Profile>> {
    profiles(|profile| profile.mqtt.is_some())
}

/// A byte for the profile, then a payload.
pub fn message_seeds() -> Vec<Vec<u8>> {
    let all = speakers();
    let seed = |(id, payload): (String, String)| Some([&[place(&all, &id)?], payload.as_bytes()].concat());
    samples("payload").into_iter().filter_map(seed).collect()
}

pub fn message() -> Read {
    let all = speakers();
    Box::new(move |bytes| {
        let (which, payload) = choice(bytes);
        let profile = &all[which % all.len()];
        let shape = profile.mqtt.as_ref().expect("only those that have one are here");
        let (mut good, mut bad) = (0_u64, 0_u64);
        let read = shape.decode("", payload, |n, value| {
            must_be_finite(&value);
            if value.is_ok() { good |= 1 << (n % 64) } else { bad |= 1 << (n % 64) }
        });
        let said =
            read.map(|stamp| (stamp.time.is_some(), stamp.sequence.is_some(), stamp.warming_up, stamp.times.len()));
        let why = said.as_ref().err().map(std::mem::discriminant);
        hashed((which % all.len(), good, bad, said.ok(), why, shape.is_signed("", payload)))
    })
}

/// What speaks Modbus, and one with counters of all widths.
fn units() -> Vec<Arc<Profile>> {
    let mut all = profiles(|profile| profile.modbus.is_some());
    let counter = |n: usize, kind: &str| {
        format!(
            "[[point]]\nname = \"c{n}\"\nkind = \"power.energy\"\nregister = \"input\"\naddress = {}\ntype = \"{kind}\"\n\
             counter = true\nbyte_order = \"CDAB\"\n",
            n * 4
        )
    };
    let kinds = ["uint16", "int16", "uint32", "int32", "uint64", "int64"];
    let points: String = kinds.into_iter().enumerate().map(|(n, kind)| counter(n, kind)).collect();
    all.push(own_profile(&format!(
        "id = \"fuzz-counters\"\nmodel = \"f\"\ntitle = {{ zh = \"甲\", en = \"a\" }}\n[modbus]\ninterval = \"2s\"\n{points}"
    )));
    all
}

/// A byte for the profile; a request, an earlier answer and an answer, each behind a byte for its length.
pub fn modbus_seeds() -> Vec<Vec<u8>> {
    let all = units();
    let seed = |place: u8, parts: [&[u8]; 3]| {
        let mut seed = vec![place];
        for part in parts {
            seed.push(part.len() as u8);
            seed.extend(part);
        }
        seed
    };
    let mut seeds = Vec::new();
    for ((id, request), (_, answer)) in samples("request").into_iter().zip(samples("answer")) {
        let (Some(request), Some(answer)) = (parse_hex(&request), parse_hex(&answer)) else { continue };
        seeds.extend(place(&all, &id).map(|place| seed(place, [&request, &answer, &answer])));
    }
    let own = all.len() as u8 - 1;
    let answer = |byte: u8| [&[1, 4, 48], &[byte; 48][..], &[0, 0]].concat();
    seeds.push(seed(own, [&hex("01 04 00 00 00 18 00 00"), &answer(0xFF), &answer(1)]));
    seeds.push(seed(own, [&hex("01 04 00 00 00 18 00 00"), &answer(1), &answer(2)]));
    seeds
}

/// Answers to the registers of every profile: as they came, and with checks that fit whatever was changed.
pub fn modbus() -> Read {
    let all = units();
    Box::new(move |bytes| {
        let (which, mut rest) = choice(bytes);
        let mut part = || {
            let (length, behind) = choice(rest);
            let (part, behind) = behind.split_at(length.min(behind.len()));
            rest = behind;
            part
        };
        let parts = [part(), part(), part()];
        let profile = &all[which % all.len()];
        let unit = profile.modbus.as_ref().expect("only those that have one are here");
        let look = |[request, earlier, answer]: [&[u8]; 3]| {
            let read = unit.decode_frames(request, Some(earlier), answer);
            let alone = unit.decode_frames(request, None, answer);
            let mut good = 0_u64;
            for (n, value) in read.iter().chain(&alone).flatten() {
                must_be_finite(value);
                good = (good << 1) ^ (u64::from(value.is_ok()) + 2 * *n as u64);
            }
            (good, read.err(), alone.err())
        };
        let checked = parts.map(|part| {
            let mut frame = part.to_vec();
            if let Some(end) = frame.len().checked_sub(2) {
                let crc = crc16(&frame[..end]).to_le_bytes();
                frame[end..].copy_from_slice(&crc);
            }
            frame
        });
        let _ = Pdu::unpack(bytes);
        let (as_they_are, checked) = (look(parts), look(checked.each_ref().map(Vec::as_slice)));
        hashed((which % all.len(), format!("{as_they_are:?}"), format!("{checked:?}")))
    })
}

pub fn modbus_ascii_seeds() -> Vec<Vec<u8>> {
    let frames = [&[1, 3, 0, 0x6B, 0, 3][..], &[1, 3, 2, 0, 7], &[1, 0x83, 2], &[0; 255]].map(ascii::write);
    frames.iter().cloned().chain([frames.concat()]).collect()
}

/// Characters of a line; a frame that is read is the same when it is written and read again.
pub fn modbus_ascii(bytes: &[u8]) -> u64 {
    let mut reader = ascii::Reader::default();
    let frames: Vec<_> = bytes.iter().filter_map(|character| reader.take(*character)).collect();
    for frame in frames.iter().flatten() {
        let mut reader = ascii::Reader::default();
        let again: Vec<_> = ascii::write(frame).iter().filter_map(|character| reader.take(*character)).collect();
        assert_eq!(again, [Ok(frame.clone())]);
    }
    hashed((frames.len().min(8), frames.iter().filter(|frame| frame.is_ok()).count().min(8), reader.is_inside()))
}

pub fn properties_seeds() -> Vec<Vec<u8>> {
    let of_cloud = |(id, payload): (String, String)| (id == "alink-gas").then(|| payload.into_bytes());
    samples("payload").into_iter().filter_map(of_cloud).collect()
}

pub fn properties() -> Read {
    let of = |name: &str, service: Option<&str>| Property {
        name: (!name.is_empty()).then(|| name.to_owned()),
        service: service.map(str::to_owned),
        ..Property::default()
    };
    let told_by_events = Property {
        events: vec!["LeakAlarm".to_owned(), "a/b~c".to_owned()],
        over: vec!["LeakOver".to_owned()],
        output: Some("GasConcentration".to_owned()),
        ..of("", None)
    };
    let model = [
        Some(of("GasConcentration", None)),
        None,
        Some(of("GasState", Some("Gas"))),
        Some(of("a/b~c", Some("Power"))),
        Some(told_by_events),
    ];
    let properties = Properties::new(&model, Some("GasConcentration"));
    Box::new(move |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return 0 };
        // What the topic says of the report: nothing, what it is, or which event.
        hashed(["", "property", "event", "LeakAlarm"].map(|key| {
            let (mut found, mut timed) = (0_u64, 0_u64);
            let read = properties.read(
                key,
                text,
                |n, told| {
                    assert!(model[n].is_some(), "point {n} is none of the model");
                    let kind = match told {
                        Told::Happened(raises) => 2 + u64::from(raises),
                        Told::Value(scalar) => u64::from(matches!(scalar, Scalar::Number(_))),
                    };
                    found = found.wrapping_mul(31) + n as u64 + 1 + kind * 8;
                },
                |n, _| timed |= 1 << n,
            );
            let read = read.map(|report| (report.time.is_some(), report.is_housekeeping)).ok();
            (found, timed, properties.is_signed(key, text), read)
        }))
    })
}

const BIRTH: &str = "0880d095ffbc3112120a0562645365711880d095ffbc312008580012210a144e6f646520436f6e74726f6c2f526562697274681880d095ffbc31200b70001800";
const DEVICE: &str = "0880d095ffbc3112190a076761732f6c656c10011880d095ffbc312009650000cc41121a0a0b736d6f6b652f616c61726d10021880d095ffbc31200b70001801";
const DATA: &str = "0888f795ffbc31121010011888f795ffbc3120096500004c421802";
const DEATH: &str = "0880d095ffbc31120b0a05626453657120085800";

/// A birth, a device's birth, data and a death.
pub fn sparkplug_messages() -> [Vec<u8>; 4] {
    [BIRTH, DEVICE, DATA, DEATH].map(hex)
}

/// A byte for a datatype, then a payload.
pub fn sparkplug_seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = sparkplug_messages().iter().map(|message| [&[9], &message[..]].concat()).collect();
    // A name, a datatype and a value of each sort; then one that is historical and null.
    let values = ["5001", "58FFFFFFFFFFFFFFFFFF01", "650000C07F", "69000000000000F07F", "7001", "7A0161", "820100"];
    for (n, value) in values.into_iter().enumerate() {
        let metric = hex(&format!("0A026C6520{:02X}{value}", n + 1));
        seeds.push([&[n as u8, 0x12, metric.len() as u8], &metric[..]].concat());
    }
    seeds.push(hex("0A 12 08 0A 01 61 28 01 38 01 58"));
    seeds
}

pub fn sparkplug(bytes: &[u8]) -> u64 {
    let (datatype, bytes) = choice(bytes);
    let _ = spb::topic("spBv1.0", &text(&bytes[..bytes.len().min(24)]));
    let payload = match spb::Payload::read(bytes) {
        Ok(payload) => payload,
        Err(spb::Damaged::At(at)) => return hashed((at.min(16), bytes.len().min(16))),
        Err(spb::Damaged::TooMany) => return 1,
    };
    assert!(payload.metrics.len() <= bytes.len());
    let said: Vec<_> = payload
        .metrics
        .iter()
        .take(8)
        .map(|metric| {
            let read = |scalar: &Scalar<'_>| {
                if let Scalar::Number(text) = scalar {
                    assert!(text.parse::<f64>().is_ok_and(f64::is_finite), "{text} is no number");
                }
                matches!(scalar, Scalar::Number(_) | Scalar::Flag(_))
            };
            (metric.read_as(Some(datatype as u32), read), metric.read_as(None, read), metric.is_historical)
        })
        .collect();
    hashed((said, payload.to_string().is_empty(), payload.bd_seq().is_some(), payload.time.is_some()))
}

pub fn stamp_seeds() -> Vec<Vec<u8>> {
    seeds([
        "2026-03-01T09:30:00.123+08:00",
        "2026-03-01 09:30Z",
        "20260301T013000Z",
        "2024-02-29T23:59:60-0330",
        "1772328600.42",
        "1772328600000",
        "+08:00",
        "-0330",
        "+08",
    ])
}

pub fn stamp(bytes: &[u8]) -> u64 {
    let text = text(bytes);
    let zone = Zone::parse(&text);
    let east = Zone::parse("+08:00");
    let read = TimeFormat::CHOICES.map(|(_, format)| {
        let scalars = [Scalar::Number(&text), Scalar::Text((&*text).into())];
        scalars.map(|scalar| format.read(&scalar, east).is_some())
    });
    hashed((zone.is_some(), iso8601(&text, None).is_some(), iso8601(&text, zone).is_some(), read))
}

/// Two patterns, a template and a topic, each in its line.
pub fn topic_seeds() -> Vec<Vec<u8>> {
    seeds([
        "zigbee2mqtt/{device}/+/#\nzigbee2mqtt/#\nb{building}-{device}\nzigbee2mqtt/厨房/lel/x",
        "b{building}-{device}\na/+\n{device}\na/b",
        "shequ/{building}/{device}/up\nshequ/+/{x}/up\nb{building}\nshequ/3/k1/up",
        "/{a}//+\n//\n\n/a//b",
    ])
}

pub fn topic(bytes: &[u8]) -> u64 {
    let text = text(bytes);
    let mut lines = text.split('\n');
    let mut next = || lines.next().unwrap_or_default();
    let (one, other, template, topic) = (Pattern::parse(next()), Pattern::parse(next()), next(), next());
    let mut said = Vec::new();
    if let (Ok(one), Ok(other)) = (&one, &other) {
        assert_eq!(one.overlaps(other), other.overlaps(one), "{one} and {other}");
        let both = one.find(topic).is_some() && other.find(topic).is_some();
        assert!(!both || one.overlaps(other), "{topic:?} is of {one} and of {other}");
        said.push(one.overlaps(other));
    }
    let Ok(pattern) = one else { return hashed(said) };
    assert_eq!(Pattern::parse(&pattern.to_string()).as_ref(), Ok(&pattern));
    let captures: Vec<&str> = pattern.captures().collect();
    let template = Template::parse(template, &captures);
    if let Some(found) = pattern.find(topic) {
        assert_eq!(found.captures.len(), captures.len());
        if let Ok(template) = &template {
            said.push(template.fill(&found).is_empty());
        }
        if let [name] = captures[..]
            && let Some(composed) = found.get(name).and_then(|word| pattern.compose(name, word))
        {
            assert_eq!(composed, topic, "composed by {pattern}");
        }
        said.push(found.rest.is_some());
    }
    hashed((said, pattern.filter().len().min(16), captures.len(), template.is_ok()))
}

pub fn value_seeds() -> Vec<Vec<u8>> {
    seeds([
        "-12.5e3",
        "12,5",
        "0x1F",
        "1e400",
        "9007199254740993",
        "on",
        "报警",
        "OFF ",
        "nan",
        "-",
        ".5",
        "5.",
        "+1",
        "25.5 %LEL",
        "null",
        "--",
        "1_000",
        "１２",
    ])
}

/// One value, as text and as a number, for points of every form.
pub fn value() -> Read {
    let reading = |kind: &str, toml: &str| {
        let faults = Faults::default();
        let document = Document::parse("fuzz", toml, &faults).expect("it is TOML");
        let conversion = Conversion::read(&document.root(&faults), Kind::named(kind).expect("a kind of the table"));
        assert_eq!(faults.take(), []);
        conversion
    };
    let conversions = [
        reading("gas.lel", ""),
        reading("gas.lel", "scale = 0.1\noffset = -40.0\nsentinels = [-1, \"--\"]\nnumbers_in_text = true"),
        reading("gas.detected", ""),
        reading("gas.detected", "true_words = [\"auf\", 2, \"报\"]\nfalse_words = [\"zu\", 3]"),
        reading("device.text", "sentinels = [\"-\"]"),
    ];
    Box::new(move |bytes| {
        let text = text(bytes);
        let number = decimal(&text);
        assert!(number.is_none_or(f64::is_finite), "{number:?}");
        let said = conversions.each_ref().map(|conversion| {
            let scalars = [
                conversion.plain_text(&text),
                conversion.scalar(&Scalar::Text((&*text).into())),
                conversion.scalar(&Scalar::Number(&text)),
            ];
            scalars.map(|value| {
                must_be_finite(&value);
                match value {
                    Ok(value) => {
                        let _ = conversion.compose(&value);
                        (Some(std::mem::discriminant(&value)), None)
                    }
                    Err(fault) => (None, Some(fault)),
                }
            })
        });
        hashed((number.is_some(), said))
    })
}

/// A topic, a line break, a list of devices.
pub fn zigbee2mqtt_seeds() -> Vec<Vec<u8>> {
    seeds([
        "zigbee2mqtt/bridge/devices\n[{\"friendly_name\":\"厨房/一\",\"ieee_address\":\"0x01\",\"type\":\"EndDevice\",\
         \"definition\":{\"vendor\":\"v\",\"model\":\"m\",\"description\":\"d\",\"exposes\":[{\"property\":\"gas\"},\
         {\"features\":[{\"property\":\"smoke\"}]}]}},{\"type\":\"Coordinator\"}]",
        "zigbee2mqtt/厨房%/一+\n[]",
        "zigbee2mqtt/a/availability\n[{\"definition\":null,\"disabled\":true}]",
        "zigbee2mqtt/a%2Fb/set/x\n{}",
    ])
}

pub fn zigbee2mqtt(bytes: &[u8]) -> u64 {
    let (topic, payload) = apart(bytes);
    let topic = text(topic);
    let id = z2m::device_id(&topic);
    assert_eq!(z2m::friendly_name(&id), topic, "by way of {id:?}");
    assert!(!id.contains(['/', '+', '#']) && !id.chars().any(|c| c.is_ascii_control()), "{id:?}");
    let _ = z2m::friendly_name(&topic);
    let about = z2m::topic("zigbee2mqtt", &topic).map(|about| match about {
        z2m::Topic::State(name) => (0, name.len()),
        z2m::Topic::Availability(name) => (1, name.len()),
        z2m::Topic::Bridge => (2, 0),
        z2m::Topic::Devices => (3, 0),
        z2m::Topic::Other => (4, 0),
    });
    let listed = z2m::devices(payload)
        .map(|devices| devices.iter().take(4).map(|device| device.properties.len().min(4)).collect::<Vec<_>>());
    hashed((about.map(|(sort, _)| sort), id == topic, listed))
}
