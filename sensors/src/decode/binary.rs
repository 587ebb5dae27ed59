//! Numbers, flags and text in bytes: what a Modbus register and a field of a binary frame have in common.
//!
//! Promises that nothing that fails becomes a number: a wrong count of bytes, a maker's "no value", NaN, infinity and
//! digits that are none each give a [`Fault`]. It does not know where the bytes come from.

use std::sync::Arc;

use crate::document::Reader;
use crate::point::Form;
use crate::reading::{Fault, Value};

/// Which bytes of a value stand where on the wire: `ABCD` is the highest byte first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteOrder {
    Abcd,
    Cdab,
    Badc,
    Dcba,
    /// Any order of eight bytes, for 64-bit values only: the value's byte at each place on the wire.
    Eight([u8; 8]),
}

impl ByteOrder {
    const WORDS: [(&'static str, Self); 4] =
        [("ABCD", Self::Abcd), ("CDAB", Self::Cdab), ("BADC", Self::Badc), ("DCBA", Self::Dcba)];

    /// One of the four, or eight letters `A` to `H`, each once.
    pub fn named(name: &str) -> Option<Self> {
        if let Some((_, order)) = Self::WORDS.iter().find(|(word, _)| *word == name) {
            return Some(*order);
        }
        let letters: [u8; 8] = name.as_bytes().try_into().ok()?;
        let places = letters.map(|letter| letter.wrapping_sub(b'A'));
        (0..8).all(|place| places.contains(&place)).then_some(Self::Eight(places))
    }

    /// Reads `byte_order`; `None` when it is absent or, with a fault noted, no order.
    pub fn read(r: &Reader<'_>) -> Option<Self> {
        let word: String = r.optional("byte_order")?;
        Self::named(&word).or_else(|| {
            let message = format!("`byte_order` is {word:?}, expected ABCD, CDAB, BADC, DCBA or eight letters A to H");
            r.fault("byte_order", message, None);
            None
        })
    }

    fn swaps_bytes(self) -> bool {
        matches!(self, Self::Badc | Self::Dcba)
    }

    /// The value's bytes, highest first, from `wire`, which has one, two, four or eight.
    fn arrange(self, wire: &[u8]) -> [u8; 8] {
        let n = wire.len();
        let mut value = [0; 8];
        for (at, byte) in wire.iter().enumerate() {
            let place = match self {
                _ if n == 1 => at,
                Self::Abcd => at,
                // Words backwards, the bytes of each word in order.
                Self::Cdab => n - 2 - (at & !1) + (at & 1),
                Self::Badc => at ^ 1,
                Self::Dcba => n - 1 - at,
                Self::Eight(places) if n == 8 => usize::from(places[at]),
                // Refused when the profile is read; plain order is the harmless reading of it.
                Self::Eight(_) => at,
            };
            value[8 - n + place] = *byte;
        }
        value
    }
}

/// How bits are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Bool,
    Int8,
    Uint8,
    Int16,
    Uint16,
    Int32,
    Uint32,
    Int64,
    Uint64,
    Float32,
    Float64,
    /// Four or eight decimal digits, one in each half of a byte.
    Bcd16,
    Bcd32,
    /// Characters, ended by a zero byte or the last place.
    String,
}

impl Type {
    pub(crate) const CHOICES: [(&'static str, Self); 14] = [
        ("bool", Self::Bool),
        ("int8", Self::Int8),
        ("uint8", Self::Uint8),
        ("int16", Self::Int16),
        ("uint16", Self::Uint16),
        ("int32", Self::Int32),
        ("uint32", Self::Uint32),
        ("int64", Self::Int64),
        ("uint64", Self::Uint64),
        ("float32", Self::Float32),
        ("float64", Self::Float64),
        ("bcd16", Self::Bcd16),
        ("bcd32", Self::Bcd32),
        ("string", Self::String),
    ];

    pub(crate) fn word(self) -> &'static str {
        Self::CHOICES.iter().find(|(_, of)| *of == self).map_or("", |(word, _)| word)
    }

    /// Bytes of a value; of a flag and of text the fewest.
    pub(crate) const fn size(self) -> usize {
        match self {
            Self::Bool | Self::Int8 | Self::Uint8 | Self::String => 1,
            Self::Int16 | Self::Uint16 | Self::Bcd16 => 2,
            Self::Int32 | Self::Uint32 | Self::Float32 | Self::Bcd32 => 4,
            Self::Int64 | Self::Uint64 | Self::Float64 => 8,
        }
    }

    const fn is_integer(self) -> bool {
        matches!(
            self,
            Self::Int8
                | Self::Uint8
                | Self::Int16
                | Self::Uint16
                | Self::Int32
                | Self::Uint32
                | Self::Int64
                | Self::Uint64
        )
    }
}

/// From what is written to the kind's unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    factor: Factor,
    offset: f64,
}

/// `0.1` has no exact binary form: 126 * 0.1 is 12.600000000000001, 126 / 10 is 12.6.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Factor {
    Times(f64),
    Over(f64),
    /// The line through two pairs of raw number and value.
    Line {
        raw: [f64; 2],
        value: [f64; 2],
    },
}

impl Scale {
    pub const NONE: Self = Self { factor: Factor::Times(1.0), offset: 0.0 };

    pub fn new(scale: f64, offset: f64) -> Self {
        let over = (1.0 / scale).round();
        let exact = scale.abs() < 1.0 && (over * scale - 1.0).abs() < 1e-12;
        Self { factor: if exact { Factor::Over(over) } else { Factor::Times(scale) }, offset }
    }

    /// Reads `scale` and `offset`, or `span`.
    pub fn read(r: &Reader<'_>) -> Self {
        let (scale, offset) = (r.or("scale", 1.0), r.or("offset", 0.0));
        if scale == 0.0 {
            r.fault("scale", "`scale` is 0, which makes every value the same", None);
            return Self::NONE;
        }
        let Some(span) = r.table("span") else { return Self::new(scale, offset) };
        let pair = |key: &'static str| match span.required::<Vec<f64>>(key)?[..] {
            [first, last] if first != last => Some([first, last]),
            _ => {
                span.fault(key, format!("`span.{key}` is not two numbers that differ"), None);
                None
            }
        };
        let (raw, value) = (pair("raw"), pair("value"));
        span.finish();
        if r.has("scale") || r.has("offset") {
            r.fault("span", "`span` says what `scale` and `offset` would; leave those out", None);
        }
        match (raw, value) {
            (Some(raw), Some(value)) => Self { factor: Factor::Line { raw, value }, offset: 0.0 },
            _ => Self::NONE,
        }
    }

    pub fn apply(self, raw: f64) -> f64 {
        let value = match self.factor {
            Factor::Times(scale) => raw * scale,
            Factor::Over(over) => raw / over,
            Factor::Line { raw: [r0, r1], value: [v0, v1] } => v0 + (raw - r0) * (v1 - v0) / (r1 - r0),
        };
        value + self.offset
    }

    /// The raw number behind a value.
    pub fn undo(self, value: f64) -> f64 {
        let value = value - self.offset;
        match self.factor {
            Factor::Times(scale) => value / scale,
            Factor::Over(over) => value * over,
            Factor::Line { raw: [r0, r1], value: [v0, v1] } => r0 + (value - v0) * (r1 - r0) / (v1 - v0),
        }
    }
}

/// What the bytes of one point mean.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    kind: Type,
    /// Bytes.
    size: usize,
    order: ByteOrder,
    bit: Option<u8>,
    form: Form,
    scale: Scale,
    /// Raw values that the maker uses for "no value", in the width of the type.
    invalid_raw: Vec<u64>,
    /// Raw numbers outside are no value either.
    raw_range: Option<(f64, f64)>,
    /// Raw values that make a flag true; empty: every value but 0.
    equals: Vec<u64>,
    /// The raw number counts up; the value is what it rose by.
    counter: bool,
}

/// What a [`Field`] is read for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// The type where the file names none.
    pub usual: Type,
    /// Bytes of the smallest piece: 2 in registers, 1 in frames, 0 where a piece is a bit.
    pub grain: usize,
    /// What the pieces are called, for messages.
    pub piece: &'static str,
    /// The longest text, in pieces.
    pub longest: u16,
    pub order: ByteOrder,
    /// Whether they are read again and again, so that a counter rises from one look to the next.
    pub counters: bool,
}

impl Field {
    /// Reads `type`, `length`, `bit`, `byte_order`, `scale`, `offset`, `span`, `invalid_raw`, `raw_range`, `equals` and
    /// `counter`.
    pub(crate) fn read(r: &Reader<'_>, form: Form, room: Room) -> Option<Self> {
        let kind = r.choice("type", &Type::CHOICES).or_else(|| (!r.has("type")).then_some(room.usual))?;
        let length = r.optional::<u16>("length");
        let bit = r.optional::<u8>("bit");
        let order = if r.has("byte_order") { ByteOrder::read(r)? } else { room.order };
        let scale = Scale::read(r);
        let invalid = r.or::<Vec<i64>>("invalid_raw", Vec::new());
        let raw_range = r.optional::<Vec<f64>>("raw_range");
        let equals = if r.has("equals") { r.optional::<Vec<i64>>("equals")? } else { Vec::new() };
        let counter = room.counters && r.or("counter", false);

        let wrong = |key: &str, message: String| {
            r.fault(key, message, None);
            None::<Self>
        };
        let word = kind.word();
        if room.grain == 0 && kind != Type::Bool {
            return wrong("type", format!("`type` is {word:?}, but a {} is one bit: \"bool\"", room.piece));
        }
        if kind.size() == 1 && room.grain == 2 && !matches!(kind, Type::Bool | Type::String) {
            return wrong("type", format!("`type` is {word:?}, but a {} has 16 bits", room.piece));
        }
        if kind == Type::Bool && room.grain > 0 && bit.is_none() {
            let last = room.grain * 8 - 1;
            let message = format!(
                "`type` is \"bool\" in a {}-bit {}, so `bit` must say which, 0 to {last}",
                last + 1,
                room.piece
            );
            return wrong("type", message);
        }
        let size = kind.size().next_multiple_of(room.grain.max(1));
        if let Some(bit) = bit
            && (room.grain == 0 || !(kind.is_integer() || kind == Type::Bool) || usize::from(bit) >= size * 8)
        {
            let message = format!("`bit` is {bit}, which type {word:?} in a {} does not have", room.piece);
            return wrong("bit", message);
        }
        if (kind == Type::String) != (form == Form::Text) {
            let message = match form {
                Form::Text => format!("`type` is {word:?}, but the point's kind is text: \"string\""),
                _ => "`type` is \"string\", but the point's kind is not text".to_owned(),
            };
            return wrong("type", message);
        }
        match (kind, length) {
            (Type::String, None) => {
                return wrong("length", format!("`length` is missing: {}s of the string", room.piece));
            }
            (Type::String, Some(n)) if !(1..=room.longest).contains(&n) => {
                return wrong("length", format!("`length` is {n}, expected 1 to {} {}s", room.longest, room.piece));
            }
            (Type::String, Some(_)) | (_, None) => {}
            (_, Some(_)) => return wrong("length", format!("`length` is for strings; type {word:?} has its own")),
        }
        if matches!(order, ByteOrder::Eight(_)) && size != 8 {
            return wrong("byte_order", format!("an order of eight letters does not fit type {word:?}"));
        }
        if !equals.is_empty() && (form != Form::Flag || bit.is_some()) {
            return wrong("equals", "`equals` is for whole numbers whose point is a flag".to_owned());
        }
        let raw_range = match raw_range.as_deref() {
            None => None,
            Some(&[low, high]) if low < high => Some((low, high)),
            Some(_) => return wrong("raw_range", "`raw_range` is not [lowest, highest]".to_owned()),
        };
        if counter && (form != Form::Number || bit.is_some() || !kind.is_integer()) {
            return wrong("counter", "`counter` is for whole numbers whose point is a number".to_owned());
        }
        let raw = |key: &str, values: Vec<i64>| {
            values.into_iter().map(|value| width(kind, value)).collect::<Option<Vec<u64>>>().or_else(|| {
                r.fault(key, format!("`{key}` holds a value that type {word:?} cannot have"), None);
                None
            })
        };
        Some(Self {
            kind,
            size: length.map_or(size, |pieces| usize::from(pieces) * room.grain),
            order,
            bit,
            form,
            scale,
            invalid_raw: raw("invalid_raw", invalid)?,
            raw_range,
            equals: raw("equals", equals)?,
            counter,
        })
    }

    /// Bytes of the value.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether the value is what a count rose by: [`Field::count`] and [`Field::rise`] then take the place of
    /// [`Field::decode`].
    pub fn is_counter(&self) -> bool {
        self.counter
    }

    /// The value of `wire`, which must be exactly [`Field::size`] bytes.
    pub fn decode(&self, wire: &[u8]) -> Result<Value, Fault> {
        if wire.len() != self.size {
            return Err(Fault::Comms);
        }
        if self.kind == Type::String {
            return self.text(wire);
        }
        let Some(raw) = self.raw(wire) else { return Err(Fault::Comms) };
        if self.invalid_raw.contains(&raw) {
            return Err(Fault::Sentinel);
        }
        if let Some(bit) = self.bit {
            return self.flag_or_number(raw >> bit & 1);
        }
        let number = match self.kind {
            Type::Int8 => f64::from(raw as u8 as i8),
            Type::Int16 => f64::from(raw as u16 as i16),
            Type::Int32 => f64::from(raw as u32 as i32),
            Type::Int64 => raw as i64 as f64,
            Type::Float32 => f64::from(f32::from_bits(raw as u32)),
            Type::Float64 => f64::from_bits(raw),
            Type::Bcd16 | Type::Bcd32 => bcd(raw).ok_or(Fault::NotAValue)?,
            _ => raw as f64,
        };
        if !number.is_finite() {
            return Err(Fault::NotAValue);
        }
        if self.raw_range.is_some_and(|(low, high)| number < low || number > high) {
            return Err(Fault::Sentinel);
        }
        if self.form == Form::Flag {
            let on = if self.equals.is_empty() { number != 0.0 } else { self.equals.contains(&raw) };
            return Ok(Value::Flag(on));
        }
        self.scaled(number)
    }

    /// The value of a single bit that is no part of a number.
    pub fn decode_bit(&self, bit: bool) -> Result<Value, Fault> {
        let raw = u64::from(bit);
        if self.invalid_raw.contains(&raw) { Err(Fault::Sentinel) } else { self.flag_or_number(raw) }
    }

    /// Where a counter stands.
    pub fn count(&self, wire: &[u8]) -> Result<u64, Fault> {
        self.decode(wire)?;
        self.raw(wire).ok_or(Fault::Comms)
    }

    /// What a counter rose by. One that stands lower than before has run over where it was near its end, else it has
    /// begun again from 0 and rose by what it shows.
    pub fn rise(&self, before: u64, now: u64) -> Result<Value, Fault> {
        let highest = u64::MAX >> (64 - self.size.clamp(1, 8) * 8);
        let by = if now >= before {
            now - before
        } else if before > highest / 4 * 3 && now < highest / 4 {
            highest - before + now + 1
        } else {
            now
        };
        self.scaled(by as f64)
    }

    fn flag_or_number(&self, raw: u64) -> Result<Value, Fault> {
        match self.form {
            Form::Flag if self.equals.is_empty() => Ok(Value::Flag(raw != 0)),
            Form::Flag => Ok(Value::Flag(self.equals.contains(&raw))),
            _ => self.scaled(raw as f64),
        }
    }

    fn scaled(&self, raw: f64) -> Result<Value, Fault> {
        let value = self.scale.apply(raw);
        if value.is_finite() { Ok(Value::Number(value)) } else { Err(Fault::NotAValue) }
    }

    /// The bytes that decode to `value`, rounded to what they can hold; for simulators. `None` where they cannot carry
    /// such a value. `shared` is what stands there now: a bit leaves the others as they are, a counter goes on from it.
    pub fn encode(&self, value: &Value, shared: &[u8]) -> Option<Vec<u8>> {
        if let (Type::String, Value::Text(text)) = (self.kind, value) {
            let mut bytes = text.as_bytes().to_vec();
            bytes.resize(self.size, 0);
            if self.order.swaps_bytes() {
                bytes.chunks_exact_mut(2).for_each(|pair| pair.swap(0, 1));
            }
            return Some(bytes);
        }
        let number = match value {
            Value::Flag(on) if self.equals.is_empty() => f64::from(u8::from(*on)),
            Value::Flag(true) => *self.equals.first()? as f64,
            Value::Flag(false) => (0..=self.equals.len() as u64).find(|raw| !self.equals.contains(raw))? as f64,
            Value::Number(number) if self.form == Form::Number => self.scale.undo(*number),
            Value::Number(_) | Value::Text(_) => return None,
        };
        let now = self.raw(shared).unwrap_or(0);
        if let Some(bit) = self.bit {
            let mask = 1_u64 << bit;
            return Some(self.bytes(if number >= 0.5 { now | mask } else { now & !mask }));
        }
        if self.counter {
            return Some(self.bytes(now.wrapping_add(number.round() as u64)));
        }
        let raw = match self.kind {
            Type::Float32 => u64::from((number as f32).to_bits()),
            Type::Float64 => number.to_bits(),
            // `as` stops at the ends of the type.
            Type::Int8 => u64::from(number.round() as i8 as u8),
            Type::Int16 => u64::from(number.round() as i16 as u16),
            Type::Int32 => u64::from(number.round() as i32 as u32),
            Type::Int64 => number.round() as i64 as u64,
            Type::Uint8 => u64::from(number.round() as u8),
            Type::Uint32 => u64::from(number.round() as u32),
            Type::Uint64 => number.round() as u64,
            Type::Bcd16 => to_bcd(number, 4),
            Type::Bcd32 => to_bcd(number, 8),
            Type::Bool => u64::from(number >= 0.5),
            Type::Uint16 | Type::String => u64::from(number.round() as u16),
        };
        Some(self.bytes(raw))
    }

    fn raw(&self, wire: &[u8]) -> Option<u64> {
        (wire.len() == self.size && wire.len() <= 8).then(|| u64::from_be_bytes(self.order.arrange(wire)))
    }

    fn bytes(&self, raw: u64) -> Vec<u8> {
        let n = self.size;
        // Where each byte of the value goes: found by sending the places through the order itself.
        let places: Vec<u8> = (0..n as u8).collect();
        let from = self.order.arrange(&places);
        let value = raw.to_be_bytes();
        let mut wire = vec![0; n];
        for (byte, at) in value[8 - n..].iter().zip(&from[8 - n..]) {
            wire[usize::from(*at)] = *byte;
        }
        wire
    }

    fn text(&self, wire: &[u8]) -> Result<Value, Fault> {
        let mut bytes = wire.to_vec();
        if self.order.swaps_bytes() {
            bytes.chunks_exact_mut(2).for_each(|pair| pair.swap(0, 1));
        }
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        match std::str::from_utf8(&bytes[..end]) {
            Ok(text) if !text.chars().any(char::is_control) => Ok(Value::Text(Arc::from(text.trim_end()))),
            _ => Err(Fault::NotAValue),
        }
    }
}

/// A number of a profile as raw bits in the width of the type; `None` when it does not fit.
fn width(kind: Type, value: i64) -> Option<u64> {
    match (kind, kind.size()) {
        (Type::Bool, _) => (0..=1).contains(&value).then_some(value as u64),
        (_, 1) if (-0x80..=0xFF).contains(&value) => Some(u64::from(value as u8)),
        (_, 2) if (-0x8000..=0xFFFF).contains(&value) => Some(u64::from(value as u16)),
        (_, 4) if (-0x8000_0000..=0xFFFF_FFFF).contains(&value) => Some(u64::from(value as u32)),
        (_, 8) => Some(value as u64),
        _ => None,
    }
}

/// `None` where a half byte is no digit.
fn bcd(raw: u64) -> Option<f64> {
    let mut number = 0;
    for at in (0..16).rev() {
        let digit = raw >> (at * 4) & 0xF;
        number = number * 10 + if digit < 10 { digit } else { return None };
    }
    Some(number as f64)
}

fn to_bcd(number: f64, digits: u32) -> u64 {
    let mut left = (number.round() as u64).min(10_u64.pow(digits) - 1);
    let mut raw = 0;
    for at in 0..digits {
        raw |= (left % 10) << (at * 4);
        left /= 10;
    }
    raw
}

/// Pairs of hexadecimal digits with or without spaces between.
pub fn parse_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    digits.chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

/// CRC-16 of Modbus' serial frames and of many others: polynomial 0xA001, start 0xFFFF; sent low byte first.
pub fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xFFFF, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xA001 } else { crc >> 1 })
    })
}
