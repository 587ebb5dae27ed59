//! Modbus: the register keys of a profile, registers to values, and the frames of the sample cases.
//!
//! Promises that nothing that fails becomes a number; what the bits of a register mean is [`Field`]'s. It does not know sockets, serial lines or when to ask; that is `poll` and the
//! gateway. Word and byte order are those of the Modbus Application Protocol v1.1b3 where it has any, else the profile's.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::decode::binary::{ByteOrder, Field, Room, Type, parse_hex};
use crate::document::Reader;
use crate::point::Form;
use crate::reading::{Fault, Value};

pub use crate::decode::binary::crc16;

/// Most registers that one request may ask for (function codes 03 and 04).
pub const MAX_WORDS: u16 = 125;
/// Most coils or discrete inputs that one request may ask for (function codes 01 and 02).
pub const MAX_BITS: u16 = 2_000;

/// The four tables of a Modbus unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    Coil,
    Discrete,
    Input,
    Holding,
}

impl Table {
    const CHOICES: [(&'static str, Self); 4] =
        [("coil", Self::Coil), ("discrete", Self::Discrete), ("input", Self::Input), ("holding", Self::Holding)];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Coil => "coil",
            Self::Discrete => "discrete",
            Self::Input => "input",
            Self::Holding => "holding",
        }
    }

    /// The function code that reads it.
    pub const fn function(self) -> u8 {
        match self {
            Self::Coil => 1,
            Self::Discrete => 2,
            Self::Holding => 3,
            Self::Input => 4,
        }
    }

    pub const fn of_function(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Coil),
            2 => Some(Self::Discrete),
            3 => Some(Self::Holding),
            4 => Some(Self::Input),
            _ => None,
        }
    }

    /// Single bits rather than 16-bit registers.
    pub const fn is_bits(self) -> bool {
        matches!(self, Self::Coil | Self::Discrete)
    }

    /// The first digit of the `40001` way of writing addresses.
    const fn digit(self) -> char {
        match self {
            Self::Coil => '0',
            Self::Discrete => '1',
            Self::Input => '3',
            Self::Holding => '4',
        }
    }
}

/// Where one point stands in a unit and what its bits mean.
#[derive(Clone, Debug, PartialEq)]
pub struct Register {
    pub table: Table,
    /// As on the wire, from 0.
    pub address: u16,
    /// Registers, or 1 for a coil or discrete input.
    pub count: u16,
    field: Field,
}

/// Bytes that wake a unit before every request, and the pause that it needs after them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wake {
    pub bytes: Vec<u8>,
    pub pause: Duration,
}

/// A run of registers that must not be read, even as filler; both ends belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forbidden {
    /// `None`: in every table.
    pub table: Option<Table>,
    pub first: u16,
    pub last: u16,
}

/// The `[modbus]` table of a profile: what holds for all its registers.
#[derive(Clone, Debug, PartialEq)]
pub struct Unit {
    pub byte_order: ByteOrder,
    /// 0: addresses as on the wire; 1: the manual counts from 1.
    pub address_base: u16,
    pub max_word_registers_per_request: u16,
    pub max_bit_registers_per_request: u16,
    /// Registers of a gap that may be read to join two blocks; 0 never joins over a gap.
    pub max_register_fill: u16,
    pub forbidden_registers: Vec<Forbidden>,
    /// Each point has a request of its own; bits of one register share it.
    pub one_point_per_request: bool,
    /// Serial lines only.
    pub wake: Option<Arc<Wake>>,
    /// Between an answer of the unit, or the wait for one, and the next request to it; others may be asked meanwhile.
    pub pause_between_requests: Duration,
    /// How often the unit is read where the device does not say.
    pub interval: Duration,
    /// One for each point of the profile, in its order; `None` for a point that no register carries.
    pub registers: Vec<Option<Register>>,
}

impl Default for Unit {
    fn default() -> Self {
        Self {
            byte_order: ByteOrder::Abcd,
            address_base: 0,
            max_word_registers_per_request: MAX_WORDS,
            max_bit_registers_per_request: MAX_BITS,
            max_register_fill: 16,
            forbidden_registers: Vec::new(),
            one_point_per_request: false,
            wake: None,
            pause_between_requests: Duration::ZERO,
            interval: Duration::from_secs(2),
            registers: Vec::new(),
        }
    }
}

impl Unit {
    /// Reads the profile's `[modbus]` table and the register keys of its points. `None` when it has neither.
    pub fn read(root: &Reader<'_>, points: &[(Reader<'_>, Form)]) -> Option<Self> {
        let table = root.table("modbus");
        if table.is_none() && !points.iter().any(|(point, _)| Register::is_in(point)) {
            return None;
        }
        let mut unit = Self::default();
        if let Some(table) = &table {
            unit.read_table(table);
        }
        unit.registers = points
            .iter()
            .map(|(point, form)| if Register::is_in(point) { Register::read(point, &unit, *form) } else { None })
            .collect();
        Some(unit)
    }

    fn read_table(&mut self, r: &Reader<'_>) {
        if let Some(order) = ByteOrder::read(r) {
            self.byte_order = order;
        }
        self.address_base = r.choice_number("address_base", &[0, 1]).unwrap_or(0);
        for (key, most, field) in [
            ("max_word_registers_per_request", MAX_WORDS, &mut self.max_word_registers_per_request),
            ("max_bit_registers_per_request", MAX_BITS, &mut self.max_bit_registers_per_request),
        ] {
            match r.optional::<u16>(key) {
                Some(found) if (1..=most).contains(&found) => *field = found,
                Some(found) => r.fault(key, format!("`{key}` is {found}, expected 1 to {most}"), None),
                None => {}
            }
        }
        self.max_register_fill = r.or("max_register_fill", self.max_register_fill);
        for text in r.or::<Vec<String>>("forbidden_registers", Vec::new()) {
            match parse_forbidden(&text, self.address_base) {
                Some(forbidden) => self.forbidden_registers.push(forbidden),
                None => r.fault(
                    "forbidden_registers",
                    format!(
                        "`forbidden_registers` holds {text:?}, expected such as \"200-219\" or \"holding:200-219\""
                    ),
                    None,
                ),
            }
        }
        self.one_point_per_request = r.or("one_point_per_request", false);
        self.pause_between_requests = r.or("pause_between_requests", Duration::ZERO);
        if let Some(text) = r.optional::<String>("wake_bytes") {
            match parse_hex(&text) {
                Some(bytes) if (1..=16).contains(&bytes.len()) => {
                    let pause = r.or("wake_pause", Duration::from_millis(30));
                    self.wake = Some(Arc::new(Wake { bytes, pause }));
                }
                _ => r.fault(
                    "wake_bytes",
                    format!("`wake_bytes` is {text:?}, expected 1 to 16 bytes such as \"8F\""),
                    None,
                ),
            }
        }
        match r.optional::<Duration>("interval") {
            Some(Duration::ZERO) => r.fault("interval", "`interval` is zero", None),
            Some(interval) => self.interval = interval,
            None => {}
        }
        r.finish();
    }

    /// Whether a run of registers touches a forbidden one.
    pub fn is_forbidden(&self, table: Table, first: u16, count: u16) -> bool {
        let last = first.saturating_add(count.max(1) - 1);
        self.forbidden_registers
            .iter()
            .any(|no| no.table.is_none_or(|of| of == table) && no.first <= last && first <= no.last)
    }

    /// Values of all points that a request and its answer carry, by their place in the profile. Both frames are RTU
    /// (unit to CRC) or TCP (transaction to data). `earlier` is the answer before, from which counters have risen. This
    /// is how the sample frames of a profile are checked.
    pub fn decode_frames(
        &self,
        request: &[u8],
        earlier: Option<&[u8]>,
        answer: &[u8],
    ) -> Result<Vec<Decoded>, FrameError> {
        let before = earlier.map(|earlier| self.decode_frames(request, None, earlier).map(|_| earlier)).transpose()?;
        let before = before.map(Pdu::unpack).transpose()?.map(|pdu| words_of(pdu.data.get(1..).unwrap_or_default()));
        let request = Pdu::unpack(request)?;
        let answer = Pdu::unpack(answer)?;
        let table = Table::of_function(request.function).ok_or(FrameError::NotARead(request.function))?;
        let [a, b, c, d] = request.data[..] else { return Err(FrameError::Length) };
        let (first, count) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        if answer.unit != request.unit || answer.transaction != request.transaction {
            return Err(FrameError::Foreign);
        }
        if answer.function == request.function | 0x80 {
            let faults = self.inside(table, first, count).map(|(n, _)| (n, Err(Fault::Comms)));
            return Ok(faults.collect());
        }
        if answer.function != request.function {
            return Err(FrameError::Foreign);
        }
        let Some((bytes, data)) = answer.data.split_first() else { return Err(FrameError::Length) };
        let wanted = if table.is_bits() { usize::from(count).div_ceil(8) } else { usize::from(count) * 2 };
        if usize::from(*bytes) != data.len() || data.len() != wanted {
            return Err(FrameError::Length);
        }
        let words = words_of(data);
        let values = self.inside(table, first, count).map(|(n, register)| {
            let at = usize::from(register.address - first);
            let value = if table.is_bits() {
                register.decode_bit(data[at / 8] >> (at % 8) & 1 == 1)
            } else {
                let place = at..at + usize::from(register.count);
                let now = &words[place.clone()];
                let counted = register.is_counter().then(|| register.count(now));
                match counted {
                    Some(now) => now.and_then(|now| {
                        let before = before.as_ref().and_then(|before| register.count(before.get(place)?).ok());
                        register.rise(before.unwrap_or(now), now)
                    }),
                    None => register.decode(now),
                }
            };
            (n, value)
        });
        Ok(values.collect())
    }

    /// The registers that lie wholly inside a request.
    fn inside(&self, table: Table, first: u16, count: u16) -> impl Iterator<Item = (usize, &Register)> {
        let end = u32::from(first) + u32::from(count);
        self.registers.iter().enumerate().filter_map(move |(n, register)| {
            let register = register.as_ref()?;
            let within = register.address >= first && u32::from(register.address) + u32::from(register.count) <= end;
            (register.table == table && within).then_some((n, register))
        })
    }
}

impl Register {
    /// Whether a point of a profile says where it stands on Modbus.
    pub fn is_in(point: &Reader<'_>) -> bool {
        point.has("register") || point.has("entity")
    }

    /// Reads the register keys of one point; the caller calls `finish`.
    fn read(r: &Reader<'_>, unit: &Unit, form: Form) -> Option<Self> {
        let (table, address) = Self::read_place(r, unit)?;
        let room = Room {
            usual: if table.is_bits() { Type::Bool } else { Type::Uint16 },
            grain: if table.is_bits() { 0 } else { 2 },
            piece: if table.is_bits() { table.as_str() } else { "register" },
            longest: MAX_WORDS,
            order: unit.byte_order,
            counters: true,
        };
        let field = Field::read(r, form, room)?;
        let count = if table.is_bits() { 1 } else { field.size().div_ceil(2) as u16 };
        let wrong = |key: &str, message: String| {
            r.fault(key, message, None);
            None::<Self>
        };
        if u32::from(address) + u32::from(count) > 0x1_0000 {
            return wrong("address", format!("{count} registers from {address} go beyond 65535"));
        }
        if unit.is_forbidden(table, address, count) {
            return wrong("address", "the register stands in `forbidden_registers`".to_owned());
        }
        if count > unit.max_word_registers_per_request && !table.is_bits() {
            return wrong("type", format!("{count} registers are more than `max_word_registers_per_request`"));
        }
        Some(Self { table, address, count, field })
    }

    fn read_place(r: &Reader<'_>, unit: &Unit) -> Option<(Table, u16)> {
        if r.has("entity") {
            let text: String = r.optional("entity")?;
            if r.has("register") || r.has("address") {
                r.fault("entity", "`entity` says register and address; leave those out", None);
                // Asked for, so that they are not called unknown as well.
                let _ = (r.optional::<String>("register"), r.optional::<u16>("address"));
                return None;
            }
            return parse_entity(&text).or_else(|| {
                let message = format!("`entity` is {text:?}, expected five or six digits such as \"40001\"");
                r.fault("entity", message, None);
                None
            });
        }
        let table = r.choice("register", &Table::CHOICES);
        let address = r.required::<u16>("address")?;
        match address.checked_sub(unit.address_base) {
            Some(address) => Some((table?, address)),
            None => {
                r.fault("address", "`address` is 0, but `address_base` says that it counts from 1", None);
                None
            }
        }
    }

    /// `holding 39 (40040)`: both ways of writing the address, for people with a manual in hand.
    pub fn describe(&self) -> String {
        format!("{} {} ({}{:04})", self.table.as_str(), self.address, self.table.digit(), u32::from(self.address) + 1)
    }

    /// The value of `words`, which must be exactly this register's `count`.
    pub fn decode(&self, words: &[u16]) -> Result<Value, Fault> {
        if self.table.is_bits() { Err(Fault::Comms) } else { on_wire(words, |bytes| self.field.decode(bytes)) }
    }

    /// The value of a coil or discrete input.
    pub fn decode_bit(&self, bit: bool) -> Result<Value, Fault> {
        if self.table.is_bits() { self.field.decode_bit(bit) } else { Err(Fault::Comms) }
    }

    /// Whether the value is what a count rose by since the answer before.
    pub fn is_counter(&self) -> bool {
        self.field.is_counter()
    }

    /// Where a counter stands.
    pub fn count(&self, words: &[u16]) -> Result<u64, Fault> {
        on_wire(words, |bytes| self.field.count(bytes))
    }

    /// What a counter rose by.
    pub fn rise(&self, before: u64, now: u64) -> Result<Value, Fault> {
        self.field.rise(before, now)
    }

    /// The registers that decode to `value`, rounded to what they can hold; for simulators. `None` where the register
    /// cannot carry such a value. `shared` is what the registers hold now: a bit leaves the others as they are.
    pub fn encode(&self, value: &Value, shared: &[u16]) -> Option<Vec<u16>> {
        if self.table.is_bits() {
            return self.field.encode(value, &[0]).map(|bytes| bytes.into_iter().map(u16::from).collect());
        }
        let bytes = on_wire(shared, |now| self.field.encode(value, now))?;
        Some(bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect())
    }
}

fn words_of(data: &[u8]) -> Vec<u16> {
    data.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect()
}

/// Hands over registers as they stand on the wire; numbers without an allocation.
fn on_wire<T>(words: &[u16], take: impl FnOnce(&[u8]) -> T) -> T {
    let mut short = [0; 8];
    if let Some(bytes) = short.get_mut(..words.len() * 2) {
        bytes.chunks_exact_mut(2).zip(words).for_each(|(pair, word)| pair.copy_from_slice(&word.to_be_bytes()));
        return take(bytes);
    }
    take(&words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>())
}

/// A point by its place in the profile, and what its register says.
pub type Decoded = (usize, Result<Value, Fault>);

/// `40001` and `400001`: the first digit is the table, the rest counts from 1.
fn parse_entity(text: &str) -> Option<(Table, u16)> {
    if !matches!(text.len(), 5 | 6) || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (_, table) = Table::CHOICES.into_iter().find(|(_, table)| text.starts_with(table.digit()))?;
    let number: u32 = text[1..].parse().ok()?;
    Some((table, u16::try_from(number.checked_sub(1)?).ok()?))
}

fn parse_forbidden(text: &str, base: u16) -> Option<Forbidden> {
    let (table, run) = match text.split_once(':') {
        Some((word, run)) => (Some(Table::CHOICES.into_iter().find(|(name, _)| *name == word)?.1), run),
        None => (None, text),
    };
    let (first, last) = run.split_once('-').unwrap_or((run, run));
    let number = |text: &str| {
        let text = text.trim();
        let number = match text.strip_prefix("0x") {
            Some(hex) => u16::from_str_radix(hex, 16).ok()?,
            None => text.parse::<u16>().ok()?,
        };
        number.checked_sub(base)
    };
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some(Forbidden { table, first, last })
}

/// Why sample frames do not make sense together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Neither the CRC of a serial frame nor the header of a TCP frame fits.
    #[error("the frame is neither RTU (its CRC does not fit) nor TCP (its header does not fit)")]
    NeitherRtuNorTcp,
    /// The request does not read.
    #[error("function code {0} does not read a table")]
    NotARead(u8),
    /// Byte count, frame and request do not fit together.
    #[error("the answer's length does not fit the request")]
    Length,
    /// Another unit, function or transaction.
    #[error("the answer belongs to another request")]
    Foreign,
}

/// What both framings carry.
#[derive(Debug, PartialEq, Eq)]
pub struct Pdu<'f> {
    pub unit: u8,
    /// With the high bit set in an exception answer.
    pub function: u8,
    pub data: &'f [u8],
    /// TCP only.
    pub transaction: Option<u16>,
}

impl<'f> Pdu<'f> {
    /// Unpacks a whole frame, RTU if its CRC fits, else TCP.
    pub fn unpack(frame: &'f [u8]) -> Result<Self, FrameError> {
        if let Some(pdu) = Self::unpack_rtu(frame) {
            return Ok(pdu);
        }
        match frame {
            [t1, t2, 0, 0, l1, l2, unit, function, data @ ..]
                if usize::from(u16::from_be_bytes([*l1, *l2])) == data.len() + 2 =>
            {
                Ok(Self { unit: *unit, function: *function, data, transaction: Some(u16::from_be_bytes([*t1, *t2])) })
            }
            _ => Err(FrameError::NeitherRtuNorTcp),
        }
    }

    /// Unpacks a whole serial frame whose CRC fits.
    pub fn unpack_rtu(frame: &'f [u8]) -> Option<Self> {
        match frame {
            [unit, function, data @ .., low, high]
                if crc16(&frame[..frame.len() - 2]) == u16::from_le_bytes([*low, *high]) =>
            {
                Some(Self { unit: *unit, function: *function, data, transaction: None })
            }
            _ => None,
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

trait ChoiceNumber {
    fn choice_number(&self, key: &'static str, choices: &[u16]) -> Option<u16>;
}

impl ChoiceNumber for Reader<'_> {
    fn choice_number(&self, key: &'static str, choices: &[u16]) -> Option<u16> {
        let found: u16 = self.optional(key)?;
        if choices.contains(&found) {
            return Some(found);
        }
        let words: Vec<String> = choices.iter().map(u16::to_string).collect();
        self.fault(key, format!("`{key}` is {found}, expected {}", words.join(" or ")), None);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{Document, Faults};

    /// Reads a profile of points `(form, keys)`; faults as lines.
    fn unit(table: &str, points: &[(Form, &str)]) -> Result<Unit, Vec<String>> {
        let body: String = points.iter().map(|(_, keys)| format!("[[point]]\n{keys}\n")).collect();
        let text = format!("[modbus]\n{table}\n{body}");
        let faults = Faults::default();
        let doc = Document::parse("p.toml", &text, &faults).expect("the test writes TOML");
        let root = doc.root(&faults);
        let readers: Vec<_> = root.tables("point").into_iter().zip(points.iter().map(|(form, _)| *form)).collect();
        let unit = Unit::read(&root, &readers);
        readers.iter().for_each(|(reader, _)| reader.finish());
        root.finish();
        match faults.take() {
            found if found.is_empty() => Ok(unit.expect("there is a [modbus] table")),
            found => Err(found.iter().map(ToString::to_string).collect()),
        }
    }

    fn register(form: Form, keys: &str) -> Register {
        let mut read = unit("", &[(form, keys)]).unwrap_or_else(|faults| panic!("{keys}: {faults:?}"));
        read.registers.remove(0).expect("the point has a register")
    }

    #[test]
    fn every_type_in_every_order_decodes_to_its_value() {
        let table: &[(&str, &str, &[u16], f64)] = &[
            ("uint16", "ABCD", &[0xFFFE], 65_534.0),
            ("uint16", "CDAB", &[0xFFFE], 65_534.0),
            ("uint16", "BADC", &[0xFEFF], 65_534.0),
            ("uint16", "DCBA", &[0xFEFF], 65_534.0),
            ("int16", "ABCD", &[0xFFFE], -2.0),
            ("int16", "DCBA", &[0xFEFF], -2.0),
            ("int16", "ABCD", &[0x8000], -32_768.0),
            ("uint32", "ABCD", &[0x0102, 0x0304], 16_909_060.0),
            ("uint32", "CDAB", &[0x0304, 0x0102], 16_909_060.0),
            ("uint32", "BADC", &[0x0201, 0x0403], 16_909_060.0),
            ("uint32", "DCBA", &[0x0403, 0x0201], 16_909_060.0),
            ("int32", "ABCD", &[0xFFFF, 0xFFFE], -2.0),
            ("int32", "CDAB", &[0xFFFE, 0xFFFF], -2.0),
            ("uint64", "ABCD", &[0, 1, 0x0203, 0x0405], 4_328_719_365.0),
            ("uint64", "CDAB", &[0x0405, 0x0203, 1, 0], 4_328_719_365.0),
            ("uint64", "BADC", &[0, 0x0100, 0x0302, 0x0504], 4_328_719_365.0),
            ("uint64", "DCBA", &[0x0504, 0x0302, 0x0100, 0], 4_328_719_365.0),
            ("uint64", "CDABGHEF", &[1, 0, 0x0405, 0x0203], 4_328_719_365.0),
            ("uint64", "EFGHABCD", &[0x0203, 0x0405, 0, 1], 4_328_719_365.0),
            ("int64", "ABCD", &[0xFFFF, 0xFFFF, 0xFFFF, 0xFFFE], -2.0),
            ("float32", "ABCD", &[0x4366, 0x3333], f64::from(230.2_f32)),
            ("float32", "CDAB", &[0x3333, 0x4366], f64::from(230.2_f32)),
            ("float32", "BADC", &[0x6643, 0x3333], f64::from(230.2_f32)),
            ("float32", "DCBA", &[0x3333, 0x6643], f64::from(230.2_f32)),
            ("bcd16", "ABCD", &[0x1234], 1_234.0),
            ("bcd32", "CDAB", &[0x5678, 0x1234], 12_345_678.0),
            ("float64", "ABCD", &[0x406C, 0xC666, 0x6666, 0x6666], 230.2),
            ("float64", "CDAB", &[0x6666, 0x6666, 0xC666, 0x406C], 230.2),
            ("float64", "DCBA", &[0x6666, 0x6666, 0x66C6, 0x6C40], 230.2),
        ];
        for (kind, order, words, wanted) in table {
            let keys = format!("register = 'holding'\naddress = 0\ntype = '{kind}'\nbyte_order = '{order}'");
            let register = register(Form::Number, &keys);
            assert_eq!(register.decode(words), Ok(Value::Number(*wanted)), "{kind} {order} {words:04X?}");
            assert_eq!(register.encode(&Value::Number(*wanted), &[]), Some(words.to_vec()), "{kind} {order}, back");
        }
    }

    #[test]
    fn what_is_no_value_becomes_a_fault_and_never_a_number() {
        let table: &[(&str, &[u16], Fault)] = &[
            ("type = 'uint16'\ninvalid_raw = [0xFFFF, 0x7FFF]", &[0xFFFF], Fault::Sentinel),
            ("type = 'uint16'\ninvalid_raw = [0xFFFF, 0x7FFF]", &[0x7FFF], Fault::Sentinel),
            ("type = 'int16'\ninvalid_raw = [-32768]", &[0x8000], Fault::Sentinel),
            ("type = 'int16'\ninvalid_raw = [0x8000]\nscale = 0.1", &[0x8000], Fault::Sentinel),
            ("type = 'uint32'\nbyte_order = 'CDAB'\ninvalid_raw = [0xFFFFFFFE]", &[0xFFFE, 0xFFFF], Fault::Sentinel),
            ("type = 'int64'\ninvalid_raw = [-1]", &[0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF], Fault::Sentinel),
            ("type = 'float32'\ninvalid_raw = [0xFF7FFFFF]", &[0xFF7F, 0xFFFF], Fault::Sentinel),
            ("type = 'float32'", &[0x7FC0, 0], Fault::NotAValue),
            ("type = 'float32'", &[0x7F80, 0], Fault::NotAValue),
            ("type = 'float32'", &[0xFF80, 0], Fault::NotAValue),
            ("type = 'float64'", &[0x7FF8, 0, 0, 0], Fault::NotAValue),
            ("type = 'float64'\nscale = 1e300", &[0x7FE0, 0, 0, 0], Fault::NotAValue),
            ("type = 'bcd16'", &[0x12A4], Fault::NotAValue),
            ("type = 'int16'\nraw_range = [3600, 21000]", &[3_599], Fault::Sentinel),
            ("type = 'int16'\nraw_range = [3600, 21000]", &[21_001], Fault::Sentinel),
            ("type = 'int16'\nraw_range = [-5, 5]", &[0xFFFA], Fault::Sentinel),
            ("type = 'uint16'", &[], Fault::Comms),
            ("type = 'uint16'", &[1, 2], Fault::Comms),
            ("type = 'float32'", &[0x4366], Fault::Comms),
        ];
        for (keys, words, wanted) in table {
            let keys = format!("register = 'input'\naddress = 3\n{keys}");
            assert_eq!(register(Form::Number, &keys).decode(words), Err(*wanted), "{keys} {words:04X?}");
        }
    }

    #[test]
    fn scale_offset_bits_flags_and_text() {
        let number = |keys: &str, words: &[u16]| register(Form::Number, keys).decode(words);
        let flag = |keys: &str, words: &[u16]| register(Form::Flag, keys).decode(words);
        let at = |keys: &str| format!("register = 'holding'\naddress = 1\n{keys}");
        assert_eq!(number(&at("scale = 0.1"), &[126]), Ok(Value::Number(12.6)));
        assert_eq!(number(&at("type = 'int16'\nscale = 0.1\noffset = -40.0"), &[0xFFF6]), Ok(Value::Number(-41.0)));
        assert_eq!(number(&at("scale = 2.5"), &[4]), Ok(Value::Number(10.0)));
        let loop_current = at("raw_range = [3600, 21000]\nspan = { raw = [4000, 20000], value = [0, 500] }");
        for (raw, level) in [(4_000, 0.0), (20_000, 500.0), (12_000, 250.0), (4_800, 25.0), (3_600, -12.5)] {
            assert_eq!(number(&loop_current, &[raw]), Ok(Value::Number(level)));
            let back = register(Form::Number, &loop_current).encode(&Value::Number(level), &[]);
            assert_eq!(back, Some(vec![raw]));
        }
        assert_eq!(number(&at("type = 'bool'\nbit = 15"), &[0x8000]), Ok(Value::Number(1.0)));
        assert_eq!(flag(&at("type = 'bool'\nbit = 3"), &[0x0008]), Ok(Value::Flag(true)));
        assert_eq!(flag(&at("type = 'bool'\nbit = 3"), &[0xFFF7]), Ok(Value::Flag(false)));
        assert_eq!(flag(&at("type = 'uint32'\nbit = 20"), &[0x0010, 0]), Ok(Value::Flag(true)));
        assert_eq!(flag(&at("type = 'bool'\nbit = 0\ninvalid_raw = [1]"), &[1]), Err(Fault::Sentinel));
        assert_eq!(flag(&at(""), &[2]), Ok(Value::Flag(true)));
        assert_eq!(flag(&at("equals = [1]"), &[2]), Ok(Value::Flag(false)));
        assert_eq!(flag(&at("equals = [1, 2]"), &[2]), Ok(Value::Flag(true)));
        let text = |keys: &str, words: &[u16]| register(Form::Text, &at(keys)).decode(words);
        let wanted = Ok(Value::Text(Arc::from("AN-7")));
        assert_eq!(text("type = 'string'\nlength = 3", &[0x414E, 0x2D37, 0x0000]), wanted);
        assert_eq!(text("type = 'string'\nlength = 3\nbyte_order = 'BADC'", &[0x4E41, 0x372D, 0x2020]), wanted);
        assert_eq!(text("type = 'string'\nlength = 1", &[0xFFFE]), Err(Fault::NotAValue));
        let coil = register(Form::Flag, "register = 'coil'\naddress = 9");
        assert_eq!((coil.decode_bit(true), coil.decode(&[1])), (Ok(Value::Flag(true)), Err(Fault::Comms)));
        let bit = register(Form::Flag, &at("type = 'uint32'\nbyte_order = 'CDAB'\nbit = 20"));
        assert_eq!(bit.encode(&Value::Flag(true), &[0x1234, 0x4301]), Some(vec![0x1234, 0x4311]));
        assert_eq!(bit.encode(&Value::Flag(false), &[0x1234, 0x4311]), Some(vec![0x1234, 0x4301]));
        let state = register(Form::Flag, &at("equals = [0, 2]"));
        assert_eq!(state.encode(&Value::Flag(true), &[]), Some(vec![0]));
        assert_eq!(state.encode(&Value::Flag(false), &[]), Some(vec![1]));
        let pulses = register(Form::Number, &at("counter = true\nscale = 0.5"));
        assert_eq!(pulses.encode(&Value::Number(2.0), &[65_535]), Some(vec![3]));
        let tenths = register(Form::Number, &at("type = 'int16'\nscale = 0.1\noffset = -40.0"));
        assert_eq!(tenths.encode(&Value::Number(-41.0), &[]), Some(vec![0xFFF6]));
        let name = register(Form::Text, &at("type = 'string'\nlength = 3\nbyte_order = 'BADC'"));
        assert_eq!(name.encode(&Value::Text(Arc::from("AN-7")), &[]), Some(vec![0x4E41, 0x372D, 0]));
        let closed = register(Form::Flag, "register = 'discrete'\naddress = 9\nequals = [0]");
        assert_eq!(closed.decode_bit(true), Ok(Value::Flag(false)));
        assert_eq!(register(Form::Number, &at("")).decode_bit(true), Err(Fault::Comms));
    }

    #[test]
    fn both_ways_of_writing_an_address_mean_the_same_register() {
        for (table, keys, place) in [
            ("", "register = 'holding'\naddress = 39", (Table::Holding, 39)),
            ("address_base = 1", "register = 'holding'\naddress = 40", (Table::Holding, 39)),
            ("", "entity = '40040'", (Table::Holding, 39)),
            ("", "entity = '400040'", (Table::Holding, 39)),
            ("", "entity = '30001'", (Table::Input, 0)),
            ("", "entity = '10016'", (Table::Discrete, 15)),
            ("", "entity = '00001'", (Table::Coil, 0)),
            ("", "register = 'input'\naddress = 0xF015", (Table::Input, 0xF015)),
        ] {
            let read = unit(table, &[(Form::Number, keys)]).expect(keys);
            let register = read.registers[0].as_ref().expect(keys);
            assert_eq!((register.table, register.address), place, "{table} {keys}");
        }
        assert_eq!(register(Form::Number, "entity = '40040'").describe(), "holding 39 (40040)");
    }

    #[test]
    fn a_faulty_register_says_what_is_wrong_with_it() {
        for (table, form, keys, wanted) in [
            ("", Form::Number, "register = 'holdin'\naddress = 1", "did you mean `holding`?"),
            ("", Form::Number, "register = 'holding'", "`point[0].address` is missing"),
            ("address_base = 1", Form::Number, "register = 'holding'\naddress = 0", "counts from 1"),
            ("", Form::Number, "entity = '50001'", "expected five or six digits"),
            ("", Form::Number, "entity = '40000'", "expected five or six digits"),
            ("", Form::Number, "entity = '40001'\naddress = 0", "leave those out"),
            ("", Form::Number, "register = 'coil'\naddress = 1\ntype = 'int16'", "is one bit"),
            ("", Form::Flag, "register = 'holding'\naddress = 1\ntype = 'bool'", "`bit` must say which"),
            ("", Form::Flag, "register = 'holding'\naddress = 1\nbit = 16", "does not have"),
            ("", Form::Number, "register = 'holding'\naddress = 1\ntype = 'string'\nlength = 2", "kind is not text"),
            ("", Form::Text, "register = 'holding'\naddress = 1", "kind is text"),
            ("", Form::Text, "register = 'holding'\naddress = 1\ntype = 'string'", "`length` is missing"),
            ("", Form::Number, "register = 'holding'\naddress = 1\nbyte_order = 'CDBA'", "expected ABCD, CDAB"),
            (
                "",
                Form::Number,
                "register = 'holding'\naddress = 1\nbyte_order = 'HGFEDCBA'",
                "eight letters does not fit",
            ),
            ("", Form::Number, "register = 'holding'\naddress = 1\nscale = 0", "same"),
            ("", Form::Number, "register = 'holding'\naddress = 1\ninvalid_raw = [70000]", "cannot have"),
            ("", Form::Number, "register = 'holding'\naddress = 1\ntype = 'uint8'", "has 16 bits"),
            ("", Form::Number, "register = 'holding'\naddress = 1\nraw_range = [5, 5]", "[lowest, highest]"),
            ("", Form::Flag, "register = 'holding'\naddress = 1\ncounter = true", "whose point is a number"),
            ("", Form::Number, "register = 'holding'\naddress = 1\ntype = 'float32'\ncounter = true", "whole numbers"),
            (
                "",
                Form::Number,
                "register = 'holding'\naddress = 1\nspan = { raw = [4, 4], value = [0, 5] }",
                "two numbers that differ",
            ),
            (
                "",
                Form::Number,
                "register = 'holding'\naddress = 1\nscale = 2\nspan = { raw = [4, 20], value = [0, 5] }",
                "leave those out",
            ),
            ("", Form::Number, "register = 'holding'\naddress = 1\nequals = [1]", "whose point is a flag"),
            ("", Form::Number, "register = 'holding'\naddress = 65535\ntype = 'int32'", "beyond 65535"),
            ("forbidden_registers = ['0-9']", Form::Number, "register = 'input'\naddress = 9", "forbidden_registers"),
            ("forbidden_registers = ['9-0']", Form::Number, "register = 'input'\naddress = 9", "200-219"),
            (
                "max_word_registers_per_request = 126",
                Form::Number,
                "register = 'input'\naddress = 9",
                "expected 1 to 125",
            ),
            ("wake_bytes = '8'", Form::Number, "register = 'input'\naddress = 9", "bytes such as"),
            ("adress_base = 1", Form::Number, "register = 'input'\naddress = 9", "did you mean `address_base`?"),
        ] {
            let faults = unit(table, &[(form, keys)]).expect_err(keys);
            assert!(faults.iter().any(|fault| fault.contains(wanted)), "{table} {keys}: {faults:?}");
        }
    }

    #[test]
    fn sample_frames_decode_and_damaged_ones_are_refused() {
        let sdm = unit("", &[(Form::Number, "register = 'input'\naddress = 0\ntype = 'float32'")]).expect("sound");
        let frames = |request: &str, answer: &str| {
            sdm.decode_frames(&parse_hex(request).expect("hex"), None, &parse_hex(answer).expect("hex"))
        };
        let ask = "01 04 00 00 00 02 71 CB";
        let volts = Value::Number(f64::from(230.2_f32));
        assert_eq!(frames(ask, "01 04 04 43 66 33 33 5A FA"), Ok(vec![(0, Ok(volts.clone()))]));
        assert_eq!(frames(ask, "01 04 04 7F C0 00 00 E2 6C"), Ok(vec![(0, Err(Fault::NotAValue))]));
        assert_eq!(frames(ask, "01 84 02 C2 C1"), Ok(vec![(0, Err(Fault::Comms))]));
        assert_eq!(frames(ask, "01 04 04 43 66 33 33 5A FB"), Err(FrameError::NeitherRtuNorTcp));
        assert_eq!(frames(ask, "01 83 02 C0 F1"), Err(FrameError::Foreign));
        let tcp = "00 01 00 00 00 06 01 04 00 00 00 02";
        assert_eq!(frames(tcp, "00 01 00 00 00 07 01 04 04 43 66 33 33"), Ok(vec![(0, Ok(volts))]));
        assert_eq!(frames(tcp, "00 02 00 00 00 07 01 04 04 43 66 33 33"), Err(FrameError::Foreign));
        assert_eq!(frames(tcp, "00 01 00 00 00 05 01 04 02 43 66"), Err(FrameError::Length));
    }

    #[test]
    fn a_gas_detector_answers_with_all_its_registers() {
        let points = [
            (Form::Number, "register = 'holding'\naddress = 0\nscale = 0.1"),
            (Form::Flag, "register = 'holding'\naddress = 2\nequals = [1, 2]"),
            (Form::Number, "register = 'holding'\naddress = 3\ntype = 'int16'\nscale = 0.1"),
            (Form::Number, "register = 'input'\naddress = 3"),
        ];
        let request = parse_hex("01 03 00 00 00 08 44 0C").expect("hex");
        let answer = parse_hex("01 03 10 00 7E 00 01 00 01 00 E7 00 01 00 64 00 19 00 32 C2 EA").expect("hex");
        let got = unit("", &points).expect("sound").decode_frames(&request, None, &answer);
        let wanted = vec![(0, Ok(Value::Number(12.6))), (1, Ok(Value::Flag(true))), (2, Ok(Value::Number(23.1)))];
        assert_eq!(got, Ok(wanted));
    }
}
