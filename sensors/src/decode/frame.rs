//! Binary frames: a device's bytes, as they are, as hexadecimal text, or in Base64 inside a JSON document.
//!
//! A layout says at which byte a point stands, or behind which tag: many radio sensors send a row of entries, each a tag
//! of a byte or two and its value. Promises that a frame whose start, length or checksum is wrong gives nothing at all, and
//! that what stands behind an unknown tag is not guessed. It does not know how the frame travelled.

use crate::decode::binary::{ByteOrder, Field, Room, Type, crc16, parse_hex};
use crate::decode::json::Scalar;
use crate::decode::value::Word;
use crate::document::Reader;
use crate::point::Form;
use crate::reading::{Fault, Value};

/// The longest text in a frame, in bytes.
const LONGEST_TEXT: u16 = 64;

/// How bytes are written as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// RFC 4648, either alphabet, with or without padding.
    Base64,
    Hex,
}

impl Encoding {
    pub const CHOICES: [(&'static str, Self); 2] = [("base64", Self::Base64), ("hex", Self::Hex)];

    /// `None` for text that is not so written.
    pub fn decode(self, text: &str) -> Option<Vec<u8>> {
        match self {
            Self::Base64 => base64(text.trim()),
            Self::Hex => {
                let text = text.trim();
                parse_hex(text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text))
            }
        }
    }
}

/// Messages that carry another frame than the one that the profile describes: a JSON path, and what stands there in those
/// that are meant.
#[derive(Clone, Debug)]
pub struct Only {
    pub path: String,
    pub words: Vec<Word>,
}

impl Only {
    pub fn read(r: &Reader<'_>) -> Option<Self> {
        let (path, words) = (r.required("path"), r.required("words"));
        r.finish();
        Some(Self { path: path?, words: words? })
    }

    pub fn is(&self, scalar: &Scalar<'_>) -> bool {
        let text = match scalar {
            Scalar::Number(text) => text,
            Scalar::Text(text) => text.trim(),
            _ => return false,
        };
        self.words.iter().any(|word| word.is(text))
    }
}

/// How the check at the end of a frame is made of all bytes before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checksum {
    /// As Modbus makes it, low byte first.
    Crc16,
    /// The lowest byte of the sum.
    Sum8,
    Xor8,
}

impl Checksum {
    const CHOICES: [(&'static str, Self); 3] = [("crc16", Self::Crc16), ("sum8", Self::Sum8), ("xor8", Self::Xor8)];

    /// The frame without its check; `None` when that is wrong.
    fn strip(self, frame: &[u8]) -> Option<&[u8]> {
        let (body, check) =
            frame.split_at_checked(frame.len().checked_sub(if self == Self::Crc16 { 2 } else { 1 })?)?;
        let fits = match self {
            Self::Crc16 => crc16(body).to_le_bytes() == check,
            Self::Sum8 => body.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)) == check[0],
            Self::Xor8 => body.iter().fold(0, |sum, byte| sum ^ byte) == check[0],
        };
        fits.then_some(body)
    }
}

/// Where one point stands.
#[derive(Clone, Debug, PartialEq)]
struct Place {
    /// Empty: counted from the frame's first byte; else from the first byte behind the tag.
    tag: Vec<u8>,
    at: usize,
    field: Field,
}

/// The frames of one model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Layout {
    /// One for each point of the profile, in its order; `None` for a point that no frame carries.
    places: Vec<Option<Place>>,
    /// Tags and the length of what stands behind each.
    tags: Vec<(Vec<u8>, usize)>,
    starts_with: Vec<u8>,
    length: Option<usize>,
    checksum: Option<Checksum>,
}

/// Why nothing of a frame may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// It does not begin as the profile says.
    #[error("begins otherwise than the profile says")]
    Start,
    /// It is longer or shorter than the profile says.
    #[error("has {0} bytes, another length than the profile says")]
    Length(usize),
    /// It was damaged on its way.
    #[error("is damaged: its checksum is wrong")]
    Checksum,
}

impl Layout {
    /// Whether a point of a profile says where it stands in a frame.
    pub fn is_in(point: &Reader<'_>) -> bool {
        point.has("at") || point.has("tag")
    }

    /// Reads the profile's `frame` table and the places of its points; `wanted` tells those that a frame carries.
    pub fn read(r: &Reader<'_>, points: &[(&Reader<'_>, Form)], wanted: impl Fn(usize) -> bool) -> Self {
        let mut layout = Self::default();
        let mut order = ByteOrder::Abcd;
        let table = r.table("frame");
        if let Some(table) = &table {
            order = ByteOrder::read(table).unwrap_or(order);
            layout.starts_with = hex(table, "starts_with").unwrap_or_default();
            layout.length = table.optional("length");
            layout.checksum = table.choice("checksum", &Checksum::CHOICES);
        }
        let room = Room { usual: Type::Uint8, grain: 1, piece: "byte", longest: LONGEST_TEXT, order, counters: false };
        for (n, (point, form)) in points.iter().enumerate() {
            let place = if wanted(n) { Place::read(point, *form, room) } else { None };
            if let Some(place) = place.as_ref().filter(|place| !place.tag.is_empty()) {
                layout.note_tag(&place.tag, place.at + place.field.size());
            }
            layout.places.push(place);
        }
        if let Some(table) = &table {
            if let Some(skip) = table.table("skip") {
                for (tag, length) in skip.values::<usize>() {
                    match parse_hex(tag).filter(|tag| !tag.is_empty()) {
                        Some(tag) => layout.note_tag(&tag, length),
                        None => skip.fault(tag, format!("{tag:?} is not pairs of hexadecimal digits"), None),
                    }
                }
            }
            table.finish();
        }
        layout
    }

    fn note_tag(&mut self, tag: &[u8], length: usize) {
        match self.tags.iter_mut().find(|(known, _)| known == tag) {
            Some((_, known)) => *known = length.max(*known),
            None => self.tags.push((tag.to_vec(), length)),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.places.iter().all(Option::is_none)
    }

    /// Hands the value of each point that the frame carries to `found`, by the point's place in the profile.
    pub fn decode(&self, frame: &[u8], found: &mut impl FnMut(usize, Result<Value, Fault>)) -> Result<(), FrameError> {
        if !frame.starts_with(&self.starts_with) {
            return Err(FrameError::Start);
        }
        if self.length.is_some_and(|length| length != frame.len()) {
            return Err(FrameError::Length(frame.len()));
        }
        let body = match self.checksum {
            Some(checksum) => checksum.strip(frame).ok_or(FrameError::Checksum)?,
            None => frame,
        };
        let mut take = |tag: &[u8], part: &[u8]| {
            for (n, place) in self.places.iter().enumerate() {
                if let Some(place) = place
                    && place.tag == tag
                    && let Some(own) = part.get(place.at..place.at + place.field.size())
                {
                    found(n, place.field.decode(own));
                }
            }
        };
        take(&[], body);
        let mut rest = body.get(self.starts_with.len()..).unwrap_or_default();
        while let Some((tag, length)) = self.tags.iter().find(|(tag, _)| rest.starts_with(tag)) {
            // An entry that breaks off has no value.
            let Some(part) = rest.get(tag.len()..tag.len() + length) else { break };
            take(tag, part);
            rest = &rest[tag.len() + length..];
        }
        Ok(())
    }
}

impl Place {
    fn read(r: &Reader<'_>, form: Form, room: Room) -> Option<Self> {
        let tag = if r.has("tag") { hex(r, "tag")? } else { Vec::new() };
        let at = if tag.is_empty() { r.required::<u16>("at")? } else { r.or("at", 0) };
        let field = Field::read(r, form, room)?;
        Some(Self { tag, at: usize::from(at), field })
    }
}

fn hex(r: &Reader<'_>, key: &'static str) -> Option<Vec<u8>> {
    let text: String = r.optional(key)?;
    parse_hex(&text).filter(|bytes| !bytes.is_empty()).or_else(|| {
        r.fault(key, format!("`{key}` is {text:?}, expected bytes such as \"01 75\""), None);
        None
    })
}

fn base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=').as_bytes();
    if text.len() - digits.len() > 2 || digits.len() % 4 == 1 {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    let (mut bits, mut count) = (0_u32, 0);
    for digit in digits {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{Document, Faults};

    #[test]
    fn bytes_come_out_of_text() {
        for (encoding, text, wanted) in [
            (Encoding::Base64, "AAoBLA==", Some(&[0, 0x0A, 1, 0x2C][..])),
            (Encoding::Base64, "AAoBLA", Some(&[0, 0x0A, 1, 0x2C])),
            (Encoding::Base64, "-_8=", Some(&[0xFB, 0xFF])),
            (Encoding::Base64, "+/8", Some(&[0xFB, 0xFF])),
            (Encoding::Base64, "", Some(&[])),
            (Encoding::Base64, "AAoBL", None),
            (Encoding::Base64, "AAo*", None),
            (Encoding::Base64, "AA======", None),
            (Encoding::Hex, " 0x01a0\n", Some(&[0x01, 0xA0])),
            (Encoding::Hex, "01 A0", Some(&[0x01, 0xA0])),
            (Encoding::Hex, "01A", None),
            (Encoding::Hex, "+1-2", None),
            (Encoding::Hex, "气体", None),
        ] {
            assert_eq!(encoding.decode(text).as_deref(), wanted, "{text}");
        }
    }

    /// Points `(form, keys)` behind the keys of a `frame` table.
    fn layout(frame: &str, points: &[(Form, &str)]) -> Result<Layout, Vec<String>> {
        let body: String = points.iter().map(|(_, keys)| format!("[[point]]\n{keys}\n")).collect();
        let text = format!("frame = {{ {frame} }}\n{body}");
        let faults = Faults::default();
        let doc = Document::parse("p.toml", &text, &faults).expect("the test writes TOML");
        let root = doc.root(&faults);
        let readers = root.tables("point");
        let forms: Vec<_> = readers.iter().zip(points.iter().map(|(form, _)| *form)).collect();
        let layout = Layout::read(&root, &forms, |_| true);
        readers.iter().for_each(Reader::finish);
        root.finish();
        match faults.take() {
            found if found.is_empty() => Ok(layout),
            found => Err(found.iter().map(ToString::to_string).collect()),
        }
    }

    fn read(layout: &Layout, frame: &str) -> Result<String, FrameError> {
        let mut words = Vec::new();
        let frame = parse_hex(frame).expect("the test writes hex");
        layout.decode(&frame, &mut |n, value| {
            words.push(match value {
                Ok(value) => format!("{n}={value}"),
                Err(fault) => format!("{n}={fault:?}"),
            });
        })?;
        Ok(words.join(" "))
    }

    #[test]
    fn a_frame_is_read_at_its_places_or_refused_whole() {
        let points = [
            (Form::Number, "at = 1\ntype = 'int16'\nscale = 0.1\ninvalid_raw = [-32768]"),
            (Form::Number, "at = 3\ntype = 'uint32'\nbyte_order = 'DCBA'"),
            (Form::Flag, "at = 7\ntype = 'bool'\nbit = 1"),
            (Form::Number, "at = 8\ntype = 'int8'"),
        ];
        let frame = |keys: &str| layout(keys, &points).expect("sound");
        let plain = frame("starts_with = '68'");
        for (bytes, wanted) in [
            ("68 00 7E 04 03 02 01 02 FE", Ok("0=12.6 1=16909060 2=true 3=-2")),
            ("68 80 00 04 03 02 01 FD 7F 99", Ok("0=Sentinel 1=16909060 2=false 3=127")),
            // What is missing at the end is not there.
            ("68 FF FB 04 03", Ok("0=-0.5")),
            ("67 00 7E", Err(FrameError::Start)),
            ("", Err(FrameError::Start)),
        ] {
            assert_eq!(read(&plain, bytes).as_deref(), wanted.as_ref().map(|text| &**text), "{bytes}");
        }
        assert_eq!(read(&frame("length = 3"), "68 00 7E 00"), Err(FrameError::Length(4)));
        for (keys, sound, damaged) in [
            ("checksum = 'sum8'", "68 00 7E E6", "68 00 7E E5"),
            ("checksum = 'xor8'", "68 00 7E 16", "68 00 7F 16"),
            ("checksum = 'crc16'", "68 00 7E 70 3C", "68 00 7E 3C 70"),
        ] {
            assert_eq!(read(&frame(keys), sound).as_deref(), Ok("0=12.6"), "{keys}");
            assert_eq!(read(&frame(keys), damaged), Err(FrameError::Checksum), "{keys}");
        }
        assert_eq!(read(&frame("checksum = 'crc16'"), "68"), Err(FrameError::Checksum));
    }

    #[test]
    fn entries_behind_tags_come_in_any_order_and_an_unknown_one_ends_the_frame() {
        let points = [
            (Form::Number, "tag = '01 75'"),
            (Form::Number, "tag = '03 67'\ntype = 'int16'\nbyte_order = 'DCBA'\nscale = 0.1"),
            (Form::Flag, "tag = '05 00'"),
            (Form::Number, "tag = '83 D7'\nat = 2\ntype = 'int16'\nbyte_order = 'DCBA'\nscale = 0.1"),
        ];
        let layout = layout("skip = { 'FF 0B' = 1 }", &points).expect("sound");
        for (bytes, wanted) in [
            ("01 75 64 03 67 19 01 05 00 00", "0=100 1=28.1 2=false"),
            ("05 00 01 FF 0B FF 01 75 5C", "2=true 0=92"),
            ("83 D7 19 01 0A 00 05 00 01", "3=1 2=true"),
            ("05 00 01 77 77 01 75 5C", "2=true"),
            ("01 75 5C 03 67 19", "0=92"),
            ("01 75 5C 01 75 5B", "0=92 0=91"),
            ("", ""),
        ] {
            assert_eq!(read(&layout, bytes).as_deref(), Ok(wanted), "{bytes}");
        }
    }

    #[test]
    fn a_faulty_layout_says_what_is_wrong_with_it() {
        for (frame, keys, wanted) in [
            ("", "type = 'uint8'", "`point[0].at` is missing"),
            ("", "at = 1\ntype = 'bool'", "8-bit byte, so `bit` must say which, 0 to 7"),
            ("", "at = 1\ncounter = true", "`point[0].counter` is not a known key"),
            ("", "tag = '0'", "expected bytes such as"),
            ("starts_with = 'x'", "at = 1", "expected bytes such as"),
            ("checksum = 'crc8'", "at = 1", "expected one of crc16, sum8, xor8"),
            ("skip = { zz = 1 }", "at = 1", "is not pairs of hexadecimal digits"),
            ("lenght = 1", "at = 1", "did you mean `length`?"),
        ] {
            let form = if keys.contains("bool") { Form::Flag } else { Form::Number };
            let faults = layout(frame, &[(form, keys)]).expect_err(keys);
            assert!(faults.iter().any(|fault| fault.contains(wanted)), "{frame} {keys}: {faults:?}");
        }
    }
}
