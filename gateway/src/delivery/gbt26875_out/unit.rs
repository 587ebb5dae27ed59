//! What a transmission device says, as application units: type, number of objects, the objects (GB/T 26875.3-2011, table 3 and
//! clause 8). It knows bytes and nothing of alarms.

use anmin_sensors::decode::gbt26875::{LONGEST_UNIT, TimeTag};
use encoding_rs::GB18030;

/// Types that go up. A centre asks for one of them by its number and [`ASKED`] more.
pub const SYSTEM_STATE: u8 = 1;
pub const PART_STATE: u8 = 2;
pub const PART_ANALOG: u8 = 3;
pub const OPERATION: u8 = 4;
pub const VERSION: u8 = 5;
pub const SYSTEM_TEXT: u8 = 6;
pub const PART_TEXT: u8 = 7;
pub const SYSTEM_TIME: u8 = 8;
pub const OWN_STATE: u8 = 21;
pub const OWN_OPERATION: u8 = 24;
pub const OWN_VERSION: u8 = 25;
pub const OWN_TEXT: u8 = 26;
pub const OWN_TIME: u8 = 28;
pub const ASKED: u8 = 60;
/// Types that come down.
pub const INITIALISE: u8 = 89;
pub const SET_TIME: u8 = 90;
pub const DUTY_CHECK: u8 = 91;

/// Bits of the state of a part (figure 7); those of a system (figure 6) are the same as far as they go.
pub const NORMAL: u16 = 1;
pub const FIRE: u16 = 1 << 1;
pub const FAULT: u16 = 1 << 2;
pub const SHIELDED: u16 = 1 << 3;
pub const SUPERVISED: u16 = 1 << 4;
/// Of the transmission device itself (figure 13), beside the first three.
pub const LINE_FAULT: u8 = 1 << 6;

/// Bits of what somebody did.
pub const RESET: u8 = 1;
pub const MUTED: u8 = 1 << 1;
/// Of a facility: an alarm was acknowledged; of the transmission device: a duty check was answered.
pub const ANSWERED: u8 = 1 << 5;
/// The number of whoever did it. The standard has room for one byte and knows no names; the journal has them.
const OPERATOR: u8 = 0;

/// Bytes of a text about a part.
pub const PART_TEXT_BYTES: usize = 31;
/// Longest text about a system; its length is one byte.
const TEXT_BYTES: usize = 255;

/// What a part is called: type and number of its system, its own type and number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartAddress {
    pub system_type: u8,
    pub system: u8,
    pub part_type: u8,
    pub part: u32,
}

impl std::fmt::Display for PartAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}-{}-{}", self.system_type, self.system, self.part_type, self.part)
    }
}

impl PartAddress {
    fn bytes(self) -> Vec<u8> {
        let mut bytes = vec![self.system_type, self.system, self.part_type];
        bytes.extend(self.part.to_le_bytes());
        bytes
    }
}

/// A unit of as many of these objects as it holds.
pub fn of(kind: u8, objects: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut unit = vec![kind, 0];
    for object in objects {
        if unit.len() + object.len() > LONGEST_UNIT || unit[1] == u8::MAX {
            break;
        }
        unit[1] += 1;
        unit.extend(object);
    }
    unit
}

pub fn system_state((kind, number): (u8, u8), state: u16, at: TimeTag) -> Vec<u8> {
    let [low, high] = state.to_le_bytes();
    [&[kind, number, low, high][..], &at].concat()
}

pub fn part_state(part: PartAddress, state: u16, text: &str, at: TimeTag) -> Vec<u8> {
    [&part.bytes()[..], &state.to_le_bytes(), &padded(text), &at].concat()
}

/// `raw` in steps of the analog type (table 6).
pub fn part_analog(part: PartAddress, kind: u8, raw: i16, at: TimeTag) -> Vec<u8> {
    [&part.bytes()[..], &[kind], &raw.to_le_bytes(), &at].concat()
}

pub fn operation((kind, number): (u8, u8), what: u8, at: TimeTag) -> Vec<u8> {
    [&[kind, number, what, OPERATOR][..], &at].concat()
}

pub fn own_operation(what: u8, at: TimeTag) -> Vec<u8> {
    [&[what, OPERATOR][..], &at].concat()
}

pub fn part_text(part: PartAddress, text: &str) -> Vec<u8> {
    [&part.bytes()[..], &padded(text)].concat()
}

/// Its length and the text, behind what it is about.
pub fn text(about: &[u8], text: &str) -> Vec<u8> {
    let text = encoded(text, TEXT_BYTES);
    [about, &[text.len() as u8], &text].concat()
}

/// GB 18030, cut at a whole letter.
fn encoded(text: &str, most: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut letter = [0; 4];
    for one in text.chars().filter(|letter| !letter.is_control()) {
        let (encoded, ..) = GB18030.encode(one.encode_utf8(&mut letter));
        if bytes.len() + encoded.len() > most {
            break;
        }
        bytes.extend_from_slice(&encoded);
    }
    bytes
}

fn padded(text: &str) -> [u8; PART_TEXT_BYTES] {
    let mut bytes = [0; PART_TEXT_BYTES];
    let text = encoded(text, PART_TEXT_BYTES);
    bytes[..text.len()].copy_from_slice(&text);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: TimeTag = [2, 58, 9, 26, 9, 12];
    const SMOKE: PartAddress = PartAddress { system_type: 1, system: 1, part_type: 40, part: 131_082 };

    /// The units of the frames that public descriptions print, but for the text, which is blanks there.
    #[test]
    fn units_are_those_of_the_printed_examples() {
        let fire = of(PART_STATE, [part_state(SMOKE, FIRE, &" ".repeat(30), AT)]);
        let blanks = [&[0x20; 30][..], &[0]].concat();
        let wanted = [&[2, 1, 1, 1, 0x28, 0x0A, 0, 2, 0, 2, 0][..], &blanks, &AT].concat();
        assert_eq!(fire, wanted);
        assert_eq!(of(OWN_OPERATION, [own_operation(ANSWERED, AT)]), [&[0x18, 1, 0x20, 0][..], &AT].concat());
        assert_eq!(of(OWN_TIME, [AT.to_vec()]), [&[0x1C, 1][..], &AT].concat());
        let gas = PartAddress { part_type: 74, part: 1, ..SMOKE };
        let lel = [&[3, 1, 1, 1, 0x4A, 1, 0, 0, 0, 6, 0xFD, 0][..], &AT].concat();
        assert_eq!(of(PART_ANALOG, [part_analog(gas, 6, 253, AT)]), lel);
        assert_eq!(of(SYSTEM_STATE, [system_state((1, 1), 0x0103, AT)]), [&[1, 1, 1, 1, 3, 1][..], &AT].concat());
    }

    /// Table 3 says how many objects of each type a unit holds.
    #[test]
    fn a_unit_holds_as_many_objects_as_the_standard_says_and_no_half_letter() {
        let part = || part_state(SMOKE, NORMAL, "三楼走廊", AT);
        for (object, most) in [
            (system_state((1, 1), 1, AT), 102),
            (part(), 22),
            (part_analog(SMOKE, 3, -55, AT), 63),
            (part_text(SMOKE, "三楼走廊"), 26),
        ] {
            let unit = of(1, std::iter::repeat_n(object, 200));
            assert_eq!(usize::from(unit[1]), most);
            assert!(unit.len() <= LONGEST_UNIT);
        }
        // Sixteen letters of two bytes: the last finds one byte and stays away.
        let bytes = padded("一二三四五六七八九十一二三四五六");
        assert_eq!(bytes[30], 0);
        let (back, _, faulty) = GB18030.decode(&bytes[..30]);
        assert_eq!((back.as_ref(), faulty), ("一二三四五六七八九十一二三四五", false));
        assert_eq!(text(&[1, 1], "安民"), [1, 1, 4, 0xB0, 0xB2, 0xC3, 0xF1]);
        assert_eq!(text(&[], &"安".repeat(200))[0], 254);
    }
}
