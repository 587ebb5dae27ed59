//! GB/T 26875.3-2011, the protocol of user information transmission devices (用户信息传输装置): frames out of a stream of
//! bytes, and what the objects in them say, as the messages that mappings and profiles read.
//!
//! A frame (6.6) is `@@`, serial number, version, time, source and destination address, length, command, application unit,
//! checksum, `##`; numbers are little-endian. `@@` and `##` may stand inside a unit, so nothing is split at them. A frame that
//! is damaged costs one byte: what it swallowed may be the next one.
//!
//! Device addresses are written as the decimal number of their six bytes, which is what panels print on their labels. Each part
//! of a facility becomes a device of its own, `PANEL-SYSTEMTYPE-SYSTEM-PART`. Times have no zone (profiles say +08:00).

use std::fmt::{self, Write as _};

use serde_json::{Map, Value, json};

/// Bytes before the application unit, and behind it.
const HEAD: usize = 27;
const TAIL: usize = 3;
/// Longest application unit (6.6).
pub const LONGEST_UNIT: usize = 1_024;
pub const LONGEST_FRAME: usize = HEAD + LONGEST_UNIT + TAIL;

pub const CONTROL: u8 = 1;
pub const SEND: u8 = 2;
pub const CONFIRM: u8 = 3;
pub const REQUEST: u8 = 4;
pub const RESPONSE: u8 = 5;
pub const DENY: u8 = 6;

/// Six bytes, as a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(u64);

impl Address {
    /// `None` above 2⁴⁸ - 1 and for what is no decimal number.
    pub fn parse(text: &str) -> Option<Self> {
        let number = text.parse().ok().filter(|number| *number < 1 << 48)?;
        text.bytes().all(|byte| byte.is_ascii_digit()).then_some(Self(number))
    }

    fn read(bytes: &[u8]) -> Self {
        Self(number(bytes))
    }

    fn bytes(self) -> [u8; 6] {
        let [a, b, c, d, e, f, ..] = self.0.to_le_bytes();
        [a, b, c, d, e, f]
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Second, minute, hour, day, month, year - 2000: the time of whoever wrote it, without a zone.
pub type TimeTag = [u8; 6];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub serial: u16,
    pub version: [u8; 2],
    pub time: TimeTag,
    pub source: Address,
    pub destination: Address,
    pub command: u8,
    pub unit: Vec<u8>,
}

/// What stands at the start of the bytes that have come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// A whole frame, and its length.
    Frame(Frame, usize),
    /// So many bytes are nobody's. Where they look like a frame, it is answered with a deny: with what it says of itself, and
    /// nothing in it.
    Skip(usize, Option<Frame>),
    /// Not all there yet.
    More,
}

/// Looks at the start of what has come. To be called again behind what it took.
pub fn next(bytes: &[u8]) -> Next {
    let Some(start) = bytes.windows(2).position(|pair| pair == b"@@") else {
        // The last byte may be the first half of a start.
        return match bytes.len() - usize::from(bytes.last() == Some(&b'@')) {
            0 => Next::More,
            nobodys => Next::Skip(nobodys, None),
        };
    };
    if start > 0 {
        return Next::Skip(start, None);
    }
    if bytes.len() < HEAD {
        return Next::More;
    }
    let length = usize::from(u16::from_le_bytes([bytes[24], bytes[25]]));
    let mut frame = Frame {
        serial: u16::from_le_bytes([bytes[2], bytes[3]]),
        version: [bytes[4], bytes[5]],
        time: [bytes[6], bytes[7], bytes[8], bytes[9], bytes[10], bytes[11]],
        source: Address::read(&bytes[12..18]),
        destination: Address::read(&bytes[18..24]),
        command: bytes[26],
        unit: Vec::new(),
    };
    let total = HEAD + length + TAIL;
    if length > LONGEST_UNIT {
        return Next::Skip(1, Some(frame));
    }
    if bytes.len() < total {
        return Next::More;
    }
    let sum = bytes[2..HEAD + length].iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    if bytes[HEAD + length] != sum || &bytes[total - 2..total] != b"##" {
        return Next::Skip(1, Some(frame));
    }
    frame.unit.extend_from_slice(&bytes[HEAD..HEAD + length]);
    Next::Frame(frame, total)
}

impl Frame {
    pub fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD + self.unit.len() + TAIL);
        bytes.extend(b"@@");
        bytes.extend(self.serial.to_le_bytes());
        bytes.extend(self.version);
        bytes.extend(self.time);
        bytes.extend(self.source.bytes());
        bytes.extend(self.destination.bytes());
        bytes.extend((self.unit.len() as u16).to_le_bytes());
        bytes.push(self.command);
        bytes.extend(&self.unit);
        let sum = bytes[2..].iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        bytes.push(sum);
        bytes.extend(b"##");
        bytes
    }

    /// The answer to it: its serial number, the other way round, an empty unit.
    pub fn answer(&self, command: u8, time: TimeTag) -> Self {
        let (source, destination) = (self.destination, self.source);
        Self { command, time, source, destination, unit: Vec::new(), ..self.clone() }
    }

    /// Tells the peer of this frame what time it is (type 90).
    pub fn set_time(&self, serial: u16, time: TimeTag) -> Self {
        let mut unit = vec![90, 1];
        unit.extend(time);
        Self { serial, unit, ..self.answer(CONTROL, time) }
    }
}

/// One message for the mappings.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// `DEVICE/part`, `DEVICE/system` or `DEVICE/panel`.
    pub topic: String,
    pub payload: Value,
}

/// Why a unit cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    #[error("a unit of {0} bytes holds no object")]
    Short(usize),
    #[error("type {kind}: {count} objects of {each} bytes do not fit into {left}")]
    Length { kind: u8, count: u8, each: usize, left: usize },
}

/// What the objects of a data or response frame say about points; empty for what says nothing about any, such as versions,
/// texts and who has pressed which key.
pub fn told(frame: &Frame) -> Result<Vec<Told>, UnitError> {
    let panel = frame.source;
    let (kind, count, objects) = match frame.unit.as_slice() {
        // The heartbeat of practice.
        [] => return Ok(Vec::new()),
        [kind, count, objects @ ..] => (*kind, *count, objects),
        short => return Err(UnitError::Short(short.len())),
    };
    // Bytes of an object with its time (table 3 and 8.2).
    let each = match kind {
        1 => 10,
        2 => 46,
        3 => 16,
        21 => 7,
        _ => return Ok(Vec::new()),
    };
    if usize::from(count) * each != objects.len() {
        return Err(UnitError::Length { kind, count, each, left: objects.len() });
    }
    let read = |object: &[u8]| {
        let (object, time) = object.split_at(each - 6);
        let mut payload = Map::new();
        payload.insert("time".to_owned(), iso8601(time).map_or(Value::Null, Value::String));
        let topic = match kind {
            1 => {
                let state = u16::from_le_bytes([object[2], object[3]]);
                payload.insert("class".to_owned(), json!({ "system": object[0] }));
                flags(&mut payload, state, &STATES);
                flags(&mut payload, state, &SYSTEM);
                format!("{panel}-{}-{}/system", object[0], object[1])
            }
            2 => {
                let state = u16::from_le_bytes([object[7], object[8]]);
                payload.insert("class".to_owned(), class(object[2]));
                payload.insert("state".to_owned(), state.into());
                flags(&mut payload, state, &STATES);
                flags(&mut payload, state, &[(8, "power_fault")]);
                format!("{}/part", part(panel, object))
            }
            3 => {
                payload.insert("class".to_owned(), class(object[2]));
                let raw = i16::from_le_bytes([object[8], object[9]]);
                match ANALOGS.iter().find(|(kind, ..)| *kind == object[7]) {
                    Some((_, name, per_unit)) => payload.insert((*name).to_owned(), json!(f64::from(raw) / per_unit)),
                    None => payload.insert(format!("analog_{}", object[7]), raw.into()),
                };
                format!("{}/part", part(panel, object))
            }
            _ => {
                payload.insert("class".to_owned(), json!({ "panel": 1 }));
                flags(&mut payload, object[0].into(), &PANEL);
                format!("{panel}/panel")
            }
        };
        Told { topic, payload: Value::Object(payload) }
    };
    Ok(objects.chunks_exact(each).map(read).collect())
}

/// Bits of figures 6 and 7 that systems and parts share. Bit 0 is the other way round: clear is a test. The standard's own
/// example of a fire says "test", so nobody may take it for a reason to keep quiet.
const STATES: [(u8, &str); 8] = [
    (0, "in_service"),
    (1, "fire"),
    (2, "fault"),
    (3, "shielded"),
    (4, "supervised"),
    (5, "started"),
    (6, "feedback"),
    (7, "delayed"),
];

/// Figure 6, a system's own.
const SYSTEM: [(u8, &str); 6] = [
    (8, "mains_fault"),
    (9, "backup_fault"),
    (10, "bus_fault"),
    (11, "manual"),
    (12, "configuration_changed"),
    (13, "reset"),
];

/// Figure 13, of the transmission device itself.
const PANEL: [(u8, &str); 7] = [
    (0, "in_service"),
    (1, "fire"),
    (2, "fault"),
    (3, "mains_fault"),
    (4, "backup_fault"),
    (5, "link_fault"),
    (6, "line_fault"),
];

/// Table 6: the type, our name with its unit, raw steps in one of that unit. Height comes in centimetres.
const ANALOGS: [(u8, &str, f64); 12] = [
    (1, "count", 1.0),
    (2, "height_cm", 1.0),
    (3, "temperature", 10.0),
    (4, "pressure_mpa", 10.0),
    (5, "pressure_kpa", 10.0),
    (6, "lel", 10.0),
    (7, "seconds", 1.0),
    (8, "voltage", 10.0),
    (9, "current", 10.0),
    (10, "flow_l_per_s", 10.0),
    (11, "air_m3_per_min", 10.0),
    (12, "wind_m_per_s", 1.0),
];

fn flags(payload: &mut Map<String, Value>, state: u16, names: &[(u8, &str)]) {
    for (bit, name) in names {
        payload.insert((*name).to_owned(), (state >> bit & 1 == 1).into());
    }
}

/// By the type of a part (table 5) what profile fits; each message of the part has it.
fn class(part_type: u8) -> Value {
    let class = match part_type {
        10..=13 | 74 => "gas",
        16..=18 => "electrical",
        23 | 24 => "call_point",
        30..=37 => "heat",
        40..=44 => "smoke",
        _ => "part",
    };
    json!({ class: part_type })
}

fn part(panel: Address, object: &[u8]) -> String {
    format!("{panel}-{}-{}-{}", object[0], object[1], number(&object[3..7]))
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// `None` for what is no time, such as month 0.
fn iso8601(tag: &[u8]) -> Option<String> {
    let &[second, minute, hour, day, month, year] = tag else { return None };
    let sound = second < 60 && minute < 60 && hour < 24 && (1..=31).contains(&day) && (1..=12).contains(&month);
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(text, "20{year:02}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    (sound && year < 100).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::binary::parse_hex;

    fn bytes(hex: &str) -> Vec<u8> {
        parse_hex(hex).expect("hexadecimal digits")
    }

    /// As printed in public descriptions of the protocol, with their checksums.
    const FIRE: &str = "40 40 01 00 01 01 20 3A 09 1A 09 0C 79 03 00 00 00 00 38 5B 01 00 00 00 30 00 02 02 01 01 01 28 0A 00 02 00 02 00 \
        20 20 20 20 20 20 20 20 20 20 20 20 20 20 20 20 20 20 20 20 20 20 20 20 20 20 20 20 20 20 00 02 3A 09 1A 09 0C 46 23 23";
    const MAINS: &str = "40 40 01 00 01 01 20 3A 09 1A 09 0C 79 03 00 00 00 00 38 5B 01 00 00 00 09 00 02 15 01 08 02 3A 09 1A 09 0C 42 23 23";
    const CONFIRMED: &str = "40 40 01 00 01 01 23 3A 09 1A 09 0C 38 5B 01 00 00 00 79 03 00 00 00 00 00 00 03 AB 23 23";
    const CLOCK: &str = "40 40 01 00 01 01 20 3A 09 1A 09 0C 38 5B 01 00 00 00 79 03 00 00 00 00 08 00 01 5A 01 02 3A 09 1A 09 0C 7D 23 23";
    const HEARTBEAT: &str = "40 40 02 00 01 01 20 3A 09 1A 09 0C 79 03 00 00 00 00 38 5B 01 00 00 00 00 00 02 A8 23 23";
    const GAS: &str = "40 40 03 00 01 01 20 3A 09 1A 09 0C 79 03 00 00 00 00 38 5B 01 00 00 00 12 00 02 03 01 01 01 4A 01 00 00 00 06 FD 00 \
        02 3A 09 1A 09 0C 83 23 23";
    const COLD: &str = "40 40 04 00 01 01 20 3A 09 1A 09 0C 79 03 00 00 00 00 38 5B 01 00 00 00 12 00 02 03 01 01 01 12 01 00 00 00 03 C9 FF \
        02 3A 09 1A 09 0C 14 23 23";
    const SYSTEM_FIRE: &str = "40 40 05 00 01 01 20 3A 09 1A 09 0C 79 03 00 00 00 00 38 5B 01 00 00 00 0C 00 02 01 01 01 01 03 01 02 3A 09 1A 09 0C 33 23 23";

    fn whole(hex: &str) -> Frame {
        let bytes = bytes(hex);
        match next(&bytes) {
            Next::Frame(frame, length) if length == bytes.len() => frame,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn frames_are_read_and_written_to_the_byte() {
        for hex in [FIRE, MAINS, CONFIRMED, CLOCK, HEARTBEAT, GAS, COLD, SYSTEM_FIRE] {
            assert_eq!(whole(hex).write(), bytes(hex));
        }
        let fire = whole(FIRE);
        assert_eq!(
            (fire.source.to_string(), fire.destination.to_string(), fire.serial),
            ("889".into(), "88888".into(), 1)
        );
        let time = [0x23, 0x3A, 9, 0x1A, 9, 0x0C];
        assert_eq!(fire.answer(CONFIRM, time).write(), bytes(CONFIRMED));
        assert_eq!(fire.set_time(1, [2, 0x3A, 9, 0x1A, 9, 0x0C]).unit, whole(CLOCK).unit);
        assert_eq!(Address::parse("281474976710655").map(Address::bytes), Some([255; 6]));
        for wrong in ["281474976710656", "", "-1", "+1", "0x1", "1 "] {
            assert_eq!(Address::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn objects_become_messages() {
        let cases = [
            (
                FIRE,
                "889-1-1-131082/part",
                json!({"class": {"smoke": 40}, "fire": true, "in_service": false, "fault": false}),
            ),
            (MAINS, "889/panel", json!({"class": {"panel": 1}, "mains_fault": true, "fire": false})),
            (GAS, "889-1-1-1/part", json!({"class": {"gas": 74}, "lel": 25.3})),
            (COLD, "889-1-1-1/part", json!({"class": {"electrical": 18}, "temperature": -5.5})),
            (
                SYSTEM_FIRE,
                "889-1-1/system",
                json!({"class": {"system": 1}, "fire": true, "in_service": true, "mains_fault": true}),
            ),
        ];
        for (hex, topic, wanted) in cases {
            let found = told(&whole(hex)).expect("a sound unit");
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].topic, topic);
            assert_eq!(found[0].payload["time"], "2012-09-26T09:58:02");
            for (key, value) in wanted.as_object().expect("an object") {
                assert_eq!(&found[0].payload[key], value, "{topic}: {key}");
            }
        }
        for hex in [HEARTBEAT, CLOCK] {
            assert_eq!(told(&whole(hex)), Ok(Vec::new()));
        }
    }

    #[test]
    fn a_unit_that_does_not_add_up_is_refused() {
        let with = |unit: &[u8]| told(&Frame { unit: unit.to_vec(), ..whole(FIRE) });
        assert_eq!(with(&[2]), Err(UnitError::Short(1)));
        assert_eq!(with(&[3, 2, 0]), Err(UnitError::Length { kind: 3, count: 2, each: 16, left: 1 }));
        let mut two = whole(GAS).unit;
        two[1] = 2;
        assert_eq!(with(&two), Err(UnitError::Length { kind: 3, count: 2, each: 16, left: 16 }));
        let again = two[2..].to_vec();
        two.extend(again);
        assert_eq!(with(&two).map(|told| told.len()), Ok(2));
        let mut timeless = whole(MAINS).unit;
        timeless[5] = 0;
        timeless[6] = 0;
        timeless[7] = 0;
        assert_eq!(with(&timeless).expect("sound but for its time")[0].payload["time"], Value::Null);
    }

    /// Everything that a stream does: frames in pieces, joined, damaged at any byte, with rubbish between them.
    #[test]
    fn damage_costs_the_damaged_frame_and_no_other() {
        let good: Vec<Vec<u8>> = [FIRE, MAINS, GAS].map(bytes).to_vec();
        let frames = |mut stream: &[u8]| {
            let mut found = Vec::new();
            loop {
                match next(stream) {
                    Next::Frame(frame, length) => {
                        found.push(frame.write());
                        stream = &stream[length..];
                    }
                    Next::Skip(length, _) => stream = &stream[length..],
                    Next::More => return found,
                }
            }
        };
        let joined: Vec<u8> =
            [b"\0@\x01noise".as_slice(), &good[0], b"@", &good[1], b"@@ half a head", &good[2]].concat();
        assert_eq!(frames(&joined), good);
        // A head that swallows what follows is given up when it is whole and does not add up.
        for damaged in 0..good[1].len() {
            for bit in 0..8 {
                let mut middle = good[1].clone();
                middle[damaged] ^= 1 << bit;
                let stream = [good[0].as_slice(), &middle, &good[2], &vec![0; LONGEST_FRAME]].concat();
                let found = frames(&stream);
                assert!(found.contains(&good[0]) && found.contains(&good[2]), "byte {damaged}, bit {bit}");
                assert!(!found.contains(&middle), "byte {damaged}, bit {bit}");
            }
        }
        for cut in 0..good[0].len() {
            assert_eq!(next(&good[0][..cut]), Next::More, "{cut} bytes");
        }
    }

    #[test]
    fn whatever_comes_is_no_reason_to_panic() {
        let mut seed = 0x2545_F491_4F6C_DD1D_u64;
        let mut throw = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        for _ in 0..20_000 {
            let mut stream = bytes([FIRE, GAS, SYSTEM_FIRE][(throw() % 3) as usize]);
            for _ in 0..throw() % 4 {
                let at = (throw() % stream.len() as u64) as usize;
                stream[at] = throw() as u8;
            }
            let mut left = stream.as_slice();
            while !left.is_empty() {
                match next(left) {
                    Next::Frame(frame, length) => {
                        let _ = told(&frame);
                        left = &left[length..];
                    }
                    Next::Skip(length, _) => left = &left[length..],
                    Next::More => break,
                }
            }
            // Its checksum right, and still nonsense inside.
            let frame = Frame { unit: stream, ..whole(HEARTBEAT) };
            let _ = told(&frame);
        }
    }
}
