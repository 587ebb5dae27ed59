//! Sparkplug B 3.0: its topics, and its payloads.
//!
//! `<base>/<group>/<type>/<edge node>[/<device>]` carries a protobuf `Payload` (Eclipse Sparkplug 3.0, section 6.4). Of its
//! fields nine matter here, so they are read by hand, without a copy of the payload: a generated reader would bring its
//! own runtime and build step for the other forty. Fields that are not known are passed over, as protobuf wants it;
//! what is no protobuf is damaged as a whole. Which metric an alias stands for only the birth of its node says:
//! [`crate::router`] remembers that.

use std::fmt;

use crate::decode::json::{Scalar, quoted};
use crate::time::Wall;

/// More metrics than this in one payload are nobody's sensor.
pub const MOST_METRICS: usize = 10_000;

/// The node's own metric that a host sets to have everything said again (section 6.4.18).
const REBIRTH: &str = "Node Control/Rebirth";
/// The number that binds a death to its birth.
const BD_SEQ: &str = "bdSeq";

/// What a topic below the base is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    NodeBirth,
    NodeDeath,
    NodeData,
    DeviceBirth,
    DeviceDeath,
    DeviceData,
    /// What hosts tell nodes, and what hosts say of themselves.
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topic<'t> {
    pub group: &'t str,
    pub kind: Type,
    pub node: &'t str,
    /// `None` where the node speaks of itself.
    pub device: Option<&'t str>,
}

/// Takes a topic apart; `None` when it does not lie below `base` or is none of Sparkplug's.
pub fn topic<'t>(base: &str, topic: &'t str) -> Option<Topic<'t>> {
    let mut levels = topic.strip_prefix(base)?.strip_prefix('/')?.split('/');
    let (group, word) = (levels.next()?, levels.next()?);
    let (node, device, more) = (levels.next(), levels.next(), levels.next());
    let (kind, of_device) = match word {
        "NBIRTH" => (Type::NodeBirth, false),
        "NDEATH" => (Type::NodeDeath, false),
        "NDATA" => (Type::NodeData, false),
        "DBIRTH" => (Type::DeviceBirth, true),
        "DDEATH" => (Type::DeviceDeath, true),
        "DDATA" => (Type::DeviceData, true),
        _ => return Some(Topic { group, kind: Type::Other, node: node.unwrap_or_default(), device }),
    };
    let node = node.filter(|node| !node.is_empty() && !group.is_empty())?;
    (device.is_some_and(|device| !device.is_empty()) == of_device && more.is_none()).then_some(Topic {
        group,
        kind,
        node,
        device,
    })
}

/// `<base>/<group>/NCMD/<node>`.
pub fn command_topic(base: &str, group: &str, node: &str) -> String {
    format!("{base}/{group}/NCMD/{node}")
}

/// What asks a node for its births.
pub fn rebirth(now: Wall) -> Vec<u8> {
    let mut metric = Vec::new();
    put_bytes(&mut metric, 1, REBIRTH.as_bytes());
    put_number(&mut metric, 4, u64::from(BOOLEAN));
    put_number(&mut metric, 14, 1);
    let mut payload = Vec::new();
    put_number(&mut payload, 1, now.millis().unsigned_abs());
    put_bytes(&mut payload, 2, &metric);
    payload
}

fn put_number(into: &mut Vec<u8>, field: u64, value: u64) {
    put_varint(into, field << 3);
    put_varint(into, value);
}

fn put_bytes(into: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(into, field << 3 | 2);
    put_varint(into, bytes.len() as u64);
    into.extend_from_slice(bytes);
}

fn put_varint(into: &mut Vec<u8>, mut value: u64) {
    while value > 0x7F {
        into.push(value as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

/// What is wrong with a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damaged {
    /// Not protobuf from the field at this byte of the message, or of the metric, on.
    #[error("is no Sparkplug payload: broken off or damaged at byte {0}")]
    At(usize),
    #[error("holds more than {MOST_METRICS} metrics")]
    TooMany,
}

/// A payload, borrowed from its bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Payload<'p> {
    pub time: Option<Wall>,
    pub sequence: Option<u64>,
    pub metrics: Vec<Metric<'p>>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metric<'p> {
    pub name: Option<&'p str>,
    pub alias: Option<u64>,
    pub time: Option<Wall>,
    /// By the table of section 6.4.16; births have it, data may leave it out.
    pub datatype: Option<u32>,
    /// Was kept while the node had no connection: it is how things stood then.
    pub is_historical: bool,
    is_null: bool,
    value: Option<Raw<'p>>,
}

/// A value before its datatype says what the bits mean.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Raw<'p> {
    Int(u32),
    Long(u64),
    Float(f32),
    Double(f64),
    Flag(bool),
    Text(&'p str),
    /// Bytes, data sets, templates: nothing that a point can be.
    Other,
}

const INT8: u32 = 1;
const INT16: u32 = 2;
const INT32: u32 = 3;
const INT64: u32 = 4;
const BOOLEAN: u32 = 11;

impl<'p> Payload<'p> {
    pub fn read(bytes: &'p [u8]) -> Result<Self, Damaged> {
        let mut payload = Self::default();
        let mut fields = Fields::of(bytes);
        while let Some((field, value)) = fields.next()? {
            match (field, value) {
                (1, Field::Number(millis)) => payload.time = wall(millis),
                (2, Field::Bytes(_)) if payload.metrics.len() == MOST_METRICS => return Err(Damaged::TooMany),
                (2, Field::Bytes(bytes)) => payload.metrics.push(Metric::read(bytes)?),
                (3, Field::Number(sequence)) => payload.sequence = Some(sequence),
                _ => {}
            }
        }
        Ok(payload)
    }

    /// The number that ties a node's death to its birth.
    pub fn bd_seq(&self) -> Option<u64> {
        let metric = self.metrics.iter().find(|metric| metric.name == Some(BD_SEQ))?;
        match metric.value? {
            Raw::Int(number) => Some(u64::from(number)),
            Raw::Long(number) => Some(number),
            _ => None,
        }
    }

    pub fn has(&self, name: &str) -> bool {
        self.metrics.iter().any(|metric| metric.name == Some(name))
    }
}

/// `gas/lel=25.5 smoke/alarm=false`: for a list of what unknown devices send.
impl fmt::Display for Payload<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, metric) in self.metrics.iter().enumerate() {
            if n > 0 {
                f.write_str(" ")?;
            }
            match (metric.name, metric.alias) {
                (Some(name), _) => f.write_str(name)?,
                (None, Some(alias)) => write!(f, "#{alias}")?,
                (None, None) => f.write_str("?")?,
            }
            metric.read_as(None, |scalar| match scalar {
                Scalar::Flag(flag) => write!(f, "={flag}"),
                Scalar::Number(number) => write!(f, "={number}"),
                Scalar::Text(text) => write!(f, "={}", quoted(text)),
                Scalar::Null | Scalar::NoNumber | Scalar::Compound => f.write_str("=null"),
            })?;
        }
        Ok(())
    }
}

impl<'p> Metric<'p> {
    fn read(bytes: &'p [u8]) -> Result<Self, Damaged> {
        let mut metric = Self::default();
        let mut fields = Fields::of(bytes);
        while let Some((field, value)) = fields.next()? {
            let at = fields.at;
            match (field, value) {
                (1, Field::Bytes(name)) => metric.name = Some(std::str::from_utf8(name).map_err(|_| Damaged::At(at))?),
                (2, Field::Number(alias)) => metric.alias = Some(alias),
                (3, Field::Number(millis)) => metric.time = wall(millis),
                (4, Field::Number(datatype)) => metric.datatype = u32::try_from(datatype).ok(),
                (5, Field::Number(is)) => metric.is_historical = is != 0,
                (7, Field::Number(is)) => metric.is_null = is != 0,
                // Written as 32 bits, or as a negative number of 64: the low half is the same.
                (10, Field::Number(int)) => metric.value = Some(Raw::Int(int as u32)),
                (11, Field::Number(long)) => metric.value = Some(Raw::Long(long)),
                (12, Field::Fixed32(bits)) => metric.value = Some(Raw::Float(f32::from_bits(bits))),
                (13, Field::Fixed64(bits)) => metric.value = Some(Raw::Double(f64::from_bits(bits))),
                (14, Field::Number(flag)) => metric.value = Some(Raw::Flag(flag != 0)),
                (15, Field::Bytes(text)) => {
                    let text = std::str::from_utf8(text).map_err(|_| Damaged::At(at))?;
                    metric.value = Some(Raw::Text(text));
                }
                (16..=18, Field::Bytes(_)) => metric.value = Some(Raw::Other),
                _ => {}
            }
        }
        Ok(metric)
    }

    /// Hands the value to `take`. `datatype` is the one of its birth, for data that leaves it out.
    pub fn read_as<T>(&self, datatype: Option<u32>, take: impl FnOnce(&Scalar<'_>) -> T) -> T {
        let datatype = self.datatype.filter(|of| *of != 0).or(datatype).unwrap_or(0);
        let number = match self.value {
            Some(_) if self.is_null => return take(&Scalar::Null),
            None => return take(&Scalar::Null),
            Some(Raw::Int(int)) => match datatype {
                INT8 => (int as u8 as i8).to_string(),
                INT16 => (int as u16 as i16).to_string(),
                INT32 | INT64 => (int as i32).to_string(),
                BOOLEAN => return take(&Scalar::Flag(int != 0)),
                _ => int.to_string(),
            },
            Some(Raw::Long(long)) => match datatype {
                INT8..=INT64 => (long as i64).to_string(),
                _ => long.to_string(),
            },
            // The shortest decimal that is this number: a float of 0.1 says 0.1.
            Some(Raw::Float(float)) if float.is_finite() => float.to_string(),
            Some(Raw::Double(double)) if double.is_finite() => double.to_string(),
            Some(Raw::Float(_) | Raw::Double(_)) => return take(&Scalar::NoNumber),
            Some(Raw::Flag(flag)) => return take(&Scalar::Flag(flag)),
            Some(Raw::Text(text)) => return take(&Scalar::Text(text.into())),
            Some(Raw::Other) => return take(&Scalar::Compound),
        };
        take(&Scalar::Number(&number))
    }
}

fn wall(millis: u64) -> Option<Wall> {
    // 0 is what a node without a clock writes.
    i64::try_from(millis).ok().filter(|millis| *millis > 0).map(Wall::from_millis)
}

/// The fields of one protobuf message, in their order.
struct Fields<'p> {
    bytes: &'p [u8],
    at: usize,
}

enum Field<'p> {
    Number(u64),
    Fixed64(u64),
    Bytes(&'p [u8]),
    Fixed32(u32),
}

impl<'p> Fields<'p> {
    fn of(bytes: &'p [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn next(&mut self) -> Result<Option<(u32, Field<'p>)>, Damaged> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        let start = self.at;
        let damaged = Damaged::At(start);
        let key = self.varint().ok_or(damaged)?;
        let field = u32::try_from(key >> 3).ok().filter(|field| *field != 0).ok_or(damaged)?;
        let value = match key & 7 {
            0 => Field::Number(self.varint().ok_or(damaged)?),
            1 => Field::Fixed64(u64::from_le_bytes(self.take().ok_or(damaged)?)),
            2 => {
                let length = self.varint().and_then(|length| usize::try_from(length).ok()).ok_or(damaged)?;
                let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len()).ok_or(damaged)?;
                let bytes = &self.bytes[self.at..end];
                self.at = end;
                Field::Bytes(bytes)
            }
            5 => Field::Fixed32(u32::from_le_bytes(self.take().ok_or(damaged)?)),
            // Groups, which nobody has written since 2008, and what is no wire type.
            _ => return Err(damaged),
        };
        Ok(Some((field, value)))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            number |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let bytes = self.bytes.get(self.at..self.at + N)?.try_into().ok()?;
        self.at += N;
        Some(bytes)
    }
}

/// A payload by its words, for tests: `t=MILLIS`, `seq=N`, and metrics as `NAME:ALIAS=VALUE@MILLIS` of which all but the value
/// may be left out; `~` behind it is historical.
#[cfg(test)]
pub(crate) fn written(words: &str) -> Vec<u8> {
    let mut payload = Vec::new();
    for word in words.split_whitespace() {
        let (word, is_historical) = word.strip_suffix('~').map_or((word, false), |word| (word, true));
        let (word, millis) = word.split_once('@').map_or((word, None), |(word, millis)| (word, Some(millis)));
        let (key, value) = word.split_once('=').expect("a word is KEY=VALUE");
        let number = |text: &str| text.parse::<u64>().expect("a whole number");
        match key {
            "t" => put_number(&mut payload, 1, number(value)),
            "seq" => put_number(&mut payload, 3, number(value)),
            _ => {
                let mut metric = Vec::new();
                let (name, alias) = key.split_once(':').map_or((key, None), |(name, alias)| (name, Some(alias)));
                if !name.is_empty() {
                    put_bytes(&mut metric, 1, name.as_bytes());
                }
                alias.into_iter().for_each(|alias| put_number(&mut metric, 2, number(alias)));
                millis.into_iter().for_each(|millis| put_number(&mut metric, 3, number(millis)));
                if is_historical {
                    put_number(&mut metric, 5, 1);
                }
                match value {
                    "true" | "false" => put_number(&mut metric, 14, u64::from(value == "true")),
                    _ if name == BD_SEQ => put_number(&mut metric, 11, number(value)),
                    _ => {
                        put_varint(&mut metric, 13 << 3 | 1);
                        metric.extend(value.parse::<f64>().expect("a number").to_le_bytes());
                    }
                }
                put_bytes(&mut payload, 2, &metric);
            }
        }
    }
    payload
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::binary::parse_hex;

    fn bytes(hex: &str) -> Vec<u8> {
        parse_hex(hex).expect("hexadecimal digits")
    }

    const NBIRTH: &str = "0880d095ffbc3112120a0562645365711880d095ffbc312008580012210a144e6f646520436f6e74726f6c2f526562697274681880d095ffbc31200b70001800";
    const DBIRTH: &str = "0880d095ffbc3112190a076761732f6c656c10011880d095ffbc312009650000cc41121a0a0b736d6f6b652f616c61726d10021880d095ffbc31200b70001801";
    const DDATA: &str = "0888f795ffbc31121010011888f795ffbc3120096500004c421802";
    const NDEATH: &str = "0880d095ffbc31120b0a05626453657120085800";

    #[test]
    fn births_deaths_and_data_read_as_they_were_written() {
        for (hex, said, millis, sequence, bd_seq) in [
            (NBIRTH, "bdSeq=0 Node Control/Rebirth=false", 1_700_000_000_000, Some(0), Some(0)),
            (DBIRTH, "gas/lel=25.5 smoke/alarm=false", 1_700_000_000_000, Some(1), None),
            (DDATA, "#1=51", 1_700_000_005_000, Some(2), None),
            (NDEATH, "bdSeq=0", 1_700_000_000_000, None, Some(0)),
        ] {
            let bytes = bytes(hex);
            let payload = Payload::read(&bytes).expect("a sound payload");
            assert_eq!(payload.to_string(), said);
            assert_eq!(payload.time, Some(Wall::from_millis(millis)), "{said}");
            assert_eq!((payload.sequence, payload.bd_seq()), (sequence, bd_seq), "{said}");
        }
    }

    #[test]
    fn values_read_by_their_datatype() {
        // One metric without a name: field and value, then what it reads as, by itself and as of its birth.
        for (hex, of_birth, wanted) in [
            ("20 01 50 FF 01", None, "-1"),
            ("50 FF 01", Some(INT8), "-1"),
            ("50 FF FF FF FF 0F", Some(INT8), "-1"),
            ("50 FF FF FF FF FF FF FF FF FF 01", Some(INT32), "-1"),
            ("50 FF FF 03", Some(INT16), "-1"),
            ("50 FF FF FF FF 0F", None, "4294967295"),
            ("58 FF FF FF FF FF FF FF FF FF 01", Some(INT64), "-1"),
            ("58 FF FF FF FF FF FF FF FF FF 01", Some(8), "18446744073709551615"),
            ("50 01", Some(BOOLEAN), "true"),
            ("70 01", None, "true"),
            ("65 CD CC CC 3D", None, "0.1"),
            ("65 00 00 C0 7F", None, "no number"),
            ("69 00 00 00 00 00 00 F0 7F", None, "no number"),
            ("69 9A 99 99 99 99 99 B9 3F", None, "0.1"),
            ("7A 02 4F 4B", None, "OK"),
            ("82 01 01 00", None, "compound"),
            ("38 01 50 07", None, "null"),
            ("", Some(9), "null"),
            // A field that this version does not know, of each wire type.
            ("F8 07 01 F9 07 00 00 00 00 00 00 00 00 FA 07 01 00 FD 07 00 00 00 00 70 00", None, "false"),
        ] {
            let metric = bytes(hex);
            let mut payload = vec![0x12, metric.len() as u8];
            payload.extend(metric);
            let payload = Payload::read(&payload).expect(hex);
            let said = payload.metrics[0].read_as(of_birth, |scalar| match scalar {
                Scalar::Number(number) => (*number).to_owned(),
                Scalar::Flag(flag) => flag.to_string(),
                Scalar::Text(text) => text.to_string(),
                Scalar::NoNumber => "no number".to_owned(),
                Scalar::Null => "null".to_owned(),
                Scalar::Compound => "compound".to_owned(),
            });
            assert_eq!(said, wanted, "{hex} {of_birth:?}");
        }
    }

    #[test]
    fn what_is_damaged_says_where() {
        for (hex, wanted) in [
            ("08", Damaged::At(0)),
            ("08 80", Damaged::At(0)),
            ("08 FF FF FF FF FF FF FF FF FF FF 01", Damaged::At(0)),
            ("18 01 12 05 10", Damaged::At(2)),
            ("12 02 0A 05", Damaged::At(0)),
            ("12 04 0A 02 C4 E3", Damaged::At(4)),
            ("12 03 65 00 00", Damaged::At(0)),
            ("0B", Damaged::At(0)),
            ("07", Damaged::At(0)),
            ("00 00", Damaged::At(0)),
        ] {
            assert_eq!(Payload::read(&bytes(hex)), Err(wanted), "{hex}");
        }
        assert_eq!(Payload::read(&b"\x12\x00".repeat(MOST_METRICS + 1)), Err(Damaged::TooMany));
        assert_eq!(Payload::read(b"{\"v\":1}"), Err(Damaged::At(0)));
        // Broken off anywhere it is damaged, or what is there is whole.
        let whole = bytes(DBIRTH);
        for end in 0..whole.len() {
            if let Ok(payload) = Payload::read(&whole[..end]) {
                assert!(payload.metrics.len() <= 2 && payload.sequence.is_none(), "{end}");
            }
        }
    }

    #[test]
    fn topics_are_taken_apart() {
        let of = |kind, node, device| Some(Topic { group: "社区", kind, node, device });
        for (text, wanted) in [
            ("spBv1.0/社区/NBIRTH/b1", of(Type::NodeBirth, "b1", None)),
            ("spBv1.0/社区/NDEATH/b1", of(Type::NodeDeath, "b1", None)),
            ("spBv1.0/社区/NDATA/b1", of(Type::NodeData, "b1", None)),
            ("spBv1.0/社区/DBIRTH/b1/厨房", of(Type::DeviceBirth, "b1", Some("厨房"))),
            ("spBv1.0/社区/DDEATH/b1/厨房", of(Type::DeviceDeath, "b1", Some("厨房"))),
            ("spBv1.0/社区/DDATA/b1/厨房", of(Type::DeviceData, "b1", Some("厨房"))),
            ("spBv1.0/社区/NCMD/b1", of(Type::Other, "b1", None)),
            ("spBv1.0/社区/DCMD/b1/厨房", of(Type::Other, "b1", Some("厨房"))),
            ("spBv1.0/社区/NBIRTH/b1/厨房", None),
            ("spBv1.0/社区/DDATA/b1", None),
            ("spBv1.0/社区/DDATA/b1/", None),
            ("spBv1.0/社区/DDATA/b1/a/b", None),
            ("spBv1.0/社区/NDATA/", None),
            ("spBv1.0//NDATA/b1", None),
            ("spBv1.0/社区", None),
            ("spBv1.01/社区/NDATA/b1", None),
        ] {
            assert_eq!(topic("spBv1.0", text), wanted, "{text}");
        }
        let host = topic("spBv1.0", "spBv1.0/STATE/anmin");
        assert_eq!(host.map(|host| host.kind), Some(Type::Other));
    }

    #[test]
    fn a_rebirth_is_asked_for_in_a_payload_that_reads_back() {
        let asked = rebirth(Wall::from_millis(1_772_328_600_000));
        let payload = Payload::read(&asked).expect("ours");
        assert_eq!(payload.to_string(), "Node Control/Rebirth=true");
        assert_eq!(payload.time, Some(Wall::from_millis(1_772_328_600_000)));
        assert_eq!(payload.metrics[0].datatype, Some(BOOLEAN));
        assert_eq!(command_topic("spBv1.0", "g", "n"), "spBv1.0/g/NCMD/n");
    }
}
