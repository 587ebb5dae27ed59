//! How readings lie on disk: columns of varints, checked and compressed.
//!
//! A *body* is `crc32 (4, LE, over the rest) | form (1) | ...`; form 0 is followed by the payload, form 1 by its length
//! (4, LE) and its LZ4 block. A body that fails its CRC is never decoded.
//!
//! Payload of a **batch** (queue; many points, in order of arrival): count; points, each the difference to the one before;
//! times in microseconds likewise; qualities as runs; values. Payload of a **chunk** (history): count; times as
//! differences of differences; qualities as runs; form of the numbers; numbers. Where a chunk holds more than one point,
//! its readings stand point by point, and its **members** say whose they are: for each point the difference to the one
//! before (the first in full) and how many readings.
//!
//! Whole numbers are LEB128, signed ones zigzag. A run is `length, code`; code is the place in [`Quality::ALL`], plus 16
//! in a chunk where there is no value, plus 32 where the value is a flag. A value of a batch is one varint whose low
//! three bits are its form:
//!
//! | form | upper bits | follows |
//! |---|---|---|
//! | 0..=4 | the number times 10^form, zigzag | |
//! | 5 | 0 | the 8 bytes of the number, LE |
//! | 6 | 0 no value, 1 false, 2 true | |
//! | 7 | length of the text | the text |
//!
//! Sensors send decimals of few places, so form 0..=4 holds nearly all of them in one to three bytes, and gives the same
//! bits back: it is used only where dividing gives exactly the number again. The numbers of a chunk share one such form
//! and are differences; where one does not fit (form 5) each is XORed with the one before.

use std::sync::Arc;

use anmin_sensors::reading::{Quality, Value};
use anmin_sensors::time::Wall;

/// Why bytes of the database were not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ColumnError {
    #[error("the bytes fail their checksum")]
    Checksum,
    #[error("the bytes end too early or hold what cannot be")]
    Form,
}

/// One reading as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredSample {
    /// The point's number in this database; stable over restarts.
    pub point: u32,
    pub time: Wall,
    /// `None` exactly when the quality is bad and no plausible value was there.
    pub value: Option<Value>,
    pub quality: Quality,
}

/// One number of a chunk; flags count as 0 and 1, texts do not enter history.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    pub time: i64,
    pub value: f64,
    /// Place in [`Quality::ALL`], with [`NO_VALUE`] and [`FLAG`].
    pub code: u8,
}

pub const NO_VALUE: u8 = 16;
pub const FLAG: u8 = 32;

const POWERS: [f64; 5] = [1.0, 1e1, 1e2, 1e3, 1e4];
/// Below 2^48 a number times 10^4 and its zigzag with three form bits fit into 64.
const LARGEST: f64 = 281_474_976_710_656.0;

/// Collects one batch column by column. Reused from batch to batch, so that a reading allocates nothing.
#[derive(Debug, Default)]
pub struct BatchEncoder {
    count: u64,
    last_point: u32,
    last_time: i64,
    run: (u64, u8),
    points: Vec<u8>,
    times: Vec<u8>,
    runs: Vec<u8>,
    values: Vec<u8>,
    payload: Vec<u8>,
}

impl BatchEncoder {
    pub fn len(&self) -> usize {
        self.count as usize
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn push(&mut self, point: u32, time: i64, value: Option<&Value>, quality: Quality) {
        put_signed(&mut self.points, i64::from(point) - i64::from(self.last_point));
        put_signed(&mut self.times, time.wrapping_sub(self.last_time));
        (self.last_point, self.last_time) = (point, time);
        let code = quality_code(quality);
        if self.run.1 == code {
            self.run.0 += 1;
        } else {
            put_run(&mut self.runs, self.run);
            self.run = (1, code);
        }
        match value {
            Some(Value::Number(number)) => put_number(&mut self.values, *number),
            Some(Value::Flag(flag)) => put(&mut self.values, (1 + u64::from(*flag)) << 3 | 6),
            Some(Value::Text(text)) => {
                put(&mut self.values, (text.len() as u64) << 3 | 7);
                self.values.extend_from_slice(text.as_bytes());
            }
            None => put(&mut self.values, 6),
        }
        self.count += 1;
    }

    /// The body of what was pushed since the last call.
    pub fn finish(&mut self) -> Vec<u8> {
        put_run(&mut self.runs, self.run);
        self.payload.clear();
        put(&mut self.payload, self.count);
        for column in [&mut self.points, &mut self.times, &mut self.runs, &mut self.values] {
            self.payload.append(column);
        }
        (self.count, self.last_point, self.last_time, self.run) = (0, 0, 0, (0, 0));
        seal(&self.payload)
    }
}

pub fn decode_batch(body: &[u8]) -> Result<Vec<StoredSample>, ColumnError> {
    let mut unpacked = Vec::new();
    let mut from = Source(unseal(body, &mut unpacked)?);
    let count = from.count()?;
    let mut samples = Vec::with_capacity(count);
    let mut point = 0_i64;
    for _ in 0..count {
        point = point.checked_add(from.signed()?).ok_or(ColumnError::Form)?;
        let point = u32::try_from(point).map_err(|_| ColumnError::Form)?;
        samples.push(StoredSample { point, time: Wall::default(), value: None, quality: Quality::Good });
    }
    let mut time = 0_i64;
    for sample in &mut samples {
        time = time.wrapping_add(from.signed()?);
        sample.time = Wall::from_micros(time);
    }
    let mut runs = Runs::default();
    for sample in &mut samples {
        sample.quality = quality_of(runs.next(&mut from)?)?;
    }
    for sample in &mut samples {
        sample.value = from.value()?;
    }
    Ok(samples)
}

/// Whose the readings of a chunk are, which are sorted by point.
pub fn encode_members(cells: &[(u32, Cell)]) -> Vec<u8> {
    let mut payload = Vec::new();
    let mut before = 0;
    for run in cells.chunk_by(|(a, _), (b, _)| a == b) {
        put(&mut payload, u64::from(run[0].0 - before));
        put(&mut payload, run.len() as u64);
        before = run[0].0;
    }
    seal(&payload)
}

/// Reads a chunk into `cells` and gives whose they are, one point behind the other: as its members say, or all of them
/// the only `point`'s.
pub fn decode_shared(
    body: &[u8],
    members: Option<&[u8]>,
    point: u32,
    cells: &mut Vec<Cell>,
) -> Result<Vec<(u32, usize)>, ColumnError> {
    cells.clear();
    decode_chunk(body, cells)?;
    let Some(members) = members else { return Ok(vec![(point, cells.len())]) };
    let mut unpacked = Vec::new();
    let mut from = Source(unseal(members, &mut unpacked)?);
    let (mut owners, mut owner, mut all) = (Vec::new(), 0_u32, 0_usize);
    while !from.0.is_empty() {
        let step = u32::try_from(from.number()?).map_err(|_| ColumnError::Form)?;
        let count = usize::try_from(from.number()?).map_err(|_| ColumnError::Form)?;
        owner = owner.checked_add(step).ok_or(ColumnError::Form)?;
        all = all.checked_add(count).ok_or(ColumnError::Form)?;
        owners.push((owner, count));
    }
    if all == cells.len() { Ok(owners) } else { Err(ColumnError::Form) }
}

pub fn encode_chunk(cells: &[(u32, Cell)]) -> Vec<u8> {
    let cells = || cells.iter().map(|(_, cell)| cell);
    let mut payload = Vec::with_capacity(16 + cells().len() * 6);
    put(&mut payload, cells().len() as u64);
    let (mut time, mut step) = (0_i64, 0_i64);
    for cell in cells() {
        let next = cell.time.wrapping_sub(time);
        put_signed(&mut payload, next.wrapping_sub(step));
        (time, step) = (cell.time, next);
    }
    let mut run = (0, 0);
    for cell in cells() {
        if run.1 == cell.code {
            run.0 += 1;
        } else {
            put_run(&mut payload, run);
            run = (1, cell.code);
        }
    }
    put_run(&mut payload, run);
    let numbers = || cells().filter(|cell| cell.code & NO_VALUE == 0).map(|cell| cell.value);
    let form = (0..POWERS.len()).find(|form| numbers().all(|number| scaled(number, *form).is_some()));
    payload.push(form.unwrap_or(POWERS.len()) as u8);
    let (mut whole, mut bits) = (0_i64, 0_u64);
    for number in numbers() {
        match form.and_then(|form| scaled(number, form)) {
            Some(next) => {
                put_signed(&mut payload, next - whole);
                whole = next;
            }
            None => {
                put(&mut payload, number.to_bits() ^ bits);
                bits = number.to_bits();
            }
        }
    }
    seal(&payload)
}

pub(super) fn decode_chunk(body: &[u8], cells: &mut Vec<Cell>) -> Result<(), ColumnError> {
    let mut unpacked = Vec::new();
    let mut from = Source(unseal(body, &mut unpacked)?);
    let count = from.count()?;
    let start = cells.len();
    let (mut time, mut step) = (0_i64, 0_i64);
    for _ in 0..count {
        step = step.wrapping_add(from.signed()?);
        time = time.wrapping_add(step);
        cells.push(Cell { time, value: 0.0, code: 0 });
    }
    let cells = &mut cells[start..];
    let mut runs = Runs::default();
    for cell in cells.iter_mut() {
        cell.code = runs.next(&mut from)?;
    }
    let form = usize::from(from.byte()?);
    let (mut whole, mut bits) = (0_i64, 0_u64);
    for cell in cells.iter_mut().filter(|cell| cell.code & NO_VALUE == 0) {
        cell.value = match POWERS.get(form) {
            Some(power) => {
                whole = whole.wrapping_add(from.signed()?);
                whole as f64 / power
            }
            None => {
                bits ^= from.number()?;
                f64::from_bits(bits)
            }
        };
    }
    Ok(())
}

pub(super) fn quality_code(quality: Quality) -> u8 {
    // `Quality::ALL` names every quality, which a test of this room checks against each variant.
    Quality::ALL.iter().position(|known| *known == quality).unwrap_or(0) as u8
}

pub(super) fn quality_of(code: u8) -> Result<Quality, ColumnError> {
    Quality::ALL.get(usize::from(code & 15)).copied().ok_or(ColumnError::Form)
}

/// The number times 10^form when that is whole and gives the same bits back.
#[inline]
fn scaled(number: f64, form: usize) -> Option<i64> {
    let product = number * POWERS[form];
    if product.abs() >= LARGEST || product.is_nan() {
        return None;
    }
    let whole = (product + 0.5_f64.copysign(product)) as i64;
    (((whole as f64) / POWERS[form]).to_bits() == number.to_bits()).then_some(whole)
}

#[inline]
fn put_number(to: &mut Vec<u8>, number: f64) {
    for form in 0..POWERS.len() {
        if let Some(whole) = scaled(number, form) {
            return put(to, zigzag(whole) << 3 | form as u64);
        }
    }
    put(to, 5);
    to.extend_from_slice(&number.to_le_bytes());
}

#[inline]
const fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

#[inline]
fn put(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

#[inline]
fn put_signed(to: &mut Vec<u8>, number: i64) {
    put(to, zigzag(number));
}

fn put_run(to: &mut Vec<u8>, (length, code): (u64, u8)) {
    if length > 0 {
        put(to, length);
        to.push(code);
    }
}

#[derive(Default)]
struct Runs {
    left: u64,
    code: u8,
}

impl Runs {
    #[inline]
    fn next(&mut self, from: &mut Source<'_>) -> Result<u8, ColumnError> {
        if self.left == 0 {
            self.left = from.number()?;
            self.code = from.byte()?;
        }
        self.left = self.left.checked_sub(1).ok_or(ColumnError::Form)?;
        Ok(self.code)
    }
}

/// Bytes still to be read.
struct Source<'b>(&'b [u8]);

impl<'b> Source<'b> {
    #[inline]
    fn byte(&mut self) -> Result<u8, ColumnError> {
        let (first, rest) = self.0.split_first().ok_or(ColumnError::Form)?;
        self.0 = rest;
        Ok(*first)
    }

    fn bytes(&mut self, count: usize) -> Result<&'b [u8], ColumnError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(ColumnError::Form)?;
        self.0 = rest;
        Ok(taken)
    }

    #[inline]
    fn number(&mut self) -> Result<u64, ColumnError> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(ColumnError::Form)
    }

    #[inline]
    fn signed(&mut self) -> Result<i64, ColumnError> {
        let number = self.number()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    /// A count of items that take a byte each at least: no allocation that the bytes cannot back.
    fn count(&mut self) -> Result<usize, ColumnError> {
        usize::try_from(self.number()?).ok().filter(|count| *count <= self.0.len()).ok_or(ColumnError::Form)
    }

    #[inline]
    fn value(&mut self) -> Result<Option<Value>, ColumnError> {
        let head = self.number()?;
        let upper = head >> 3;
        Ok(match head & 7 {
            form @ 0..=4 => {
                let whole = (upper >> 1) as i64 ^ -((upper & 1) as i64);
                Some(Value::Number(whole as f64 / POWERS[form as usize]))
            }
            5 => {
                let mut bytes = [0; 8];
                bytes.copy_from_slice(self.bytes(8)?);
                Some(Value::Number(f64::from_le_bytes(bytes)))
            }
            6 => match upper {
                0 => None,
                1 => Some(Value::Flag(false)),
                2 => Some(Value::Flag(true)),
                _ => return Err(ColumnError::Form),
            },
            _ => {
                let length = usize::try_from(upper).map_err(|_| ColumnError::Form)?;
                let text = std::str::from_utf8(self.bytes(length)?).map_err(|_| ColumnError::Form)?;
                Some(Value::Text(Arc::from(text)))
            }
        })
    }
}

/// Largest payload that is believed: a batch has at most 4,096 readings, texts are cut by the decoders long before.
const LARGEST_PAYLOAD: usize = 64 << 20;
/// LZ4 makes no more bytes of one: nothing is allocated that the block cannot fill.
const MOST_OF_ONE: usize = 255;

fn seal(payload: &[u8]) -> Vec<u8> {
    let mut body = vec![0; 9 + lz4_flex::block::get_maximum_output_size(payload.len())];
    // The buffer has the size that LZ4 asks for, so this cannot fail; if it did, the payload is kept as it is.
    let packed = lz4_flex::block::compress_into(payload, &mut body[9..]).unwrap_or(usize::MAX);
    if packed < payload.len().saturating_sub(4) {
        body[4] = 1;
        body[5..9].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        body.truncate(9 + packed);
    } else {
        body.truncate(5);
        body[4] = 0;
        body.extend_from_slice(payload);
    }
    let crc = crc32fast::hash(&body[4..]);
    body[..4].copy_from_slice(&crc.to_le_bytes());
    body.shrink_to_fit();
    body
}

fn unseal<'b>(body: &'b [u8], unpacked: &'b mut Vec<u8>) -> Result<&'b [u8], ColumnError> {
    let (crc, rest) = body.split_first_chunk::<4>().ok_or(ColumnError::Form)?;
    if crc32fast::hash(rest) != u32::from_le_bytes(*crc) {
        return Err(ColumnError::Checksum);
    }
    match rest.split_first() {
        Some((0, payload)) => Ok(payload),
        Some((1, rest)) => {
            let (length, packed) = rest.split_first_chunk::<4>().ok_or(ColumnError::Form)?;
            let length = u32::from_le_bytes(*length) as usize;
            if length > LARGEST_PAYLOAD.min(packed.len().saturating_mul(MOST_OF_ONE)) {
                return Err(ColumnError::Form);
            }
            unpacked.resize(length, 0);
            let got = lz4_flex::block::decompress_into(packed, unpacked).map_err(|_| ColumnError::Form)?;
            unpacked.get(..got).filter(|payload| payload.len() == length).ok_or(ColumnError::Form)
        }
        _ => Err(ColumnError::Form),
    }
}

#[cfg(test)]
mod tests {
    use anmin_sensors::reading::{Doubt, Fault};

    use super::*;

    fn numbers() -> Vec<f64> {
        let mut numbers = vec![
            0.0,
            -0.0,
            1.0,
            -1.0,
            21.5,
            0.1,
            0.2 + 0.1,
            -40.25,
            1e-7,
            1e300,
            -1e300,
            f64::MIN_POSITIVE,
            f64::MAX,
            f64::MIN,
            LARGEST,
            LARGEST - 1.0,
            281_474_976_710.655_5,
            9_007_199_254_740_993.0,
        ];
        let mut seed = 1_u64;
        for n in 0..2_000_u32 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let any = f64::from_bits(seed);
            if any.is_finite() {
                numbers.push(any);
            }
            numbers.push(f64::from(n) / 100.0);
        }
        numbers
    }

    #[test]
    fn a_batch_comes_back_bit_for_bit() {
        let values = numbers().into_iter().map(|number| Some(Value::Number(number))).chain([
            None,
            Some(Value::Flag(true)),
            Some(Value::Flag(false)),
            Some(Value::Text("门\n开".into())),
        ]);
        let samples: Vec<StoredSample> = values
            .enumerate()
            .map(|(n, value)| StoredSample {
                point: (n as u32).wrapping_mul(2_654_435_761) >> (n % 20),
                time: Wall::from_micros(match n % 5 {
                    0 => i64::MIN,
                    1 => i64::MAX,
                    _ => 1_700_000_000_000_000 + n as i64 * 1_003,
                }),
                value,
                quality: Quality::ALL[n / 7 % Quality::ALL.len()],
            })
            .collect();
        let mut encoder = BatchEncoder::default();
        for _ in 0..2 {
            for sample in &samples {
                encoder.push(sample.point, sample.time.micros(), sample.value.as_ref(), sample.quality);
            }
            let back = decode_batch(&encoder.finish()).unwrap();
            assert_eq!(back.len(), samples.len());
            for (back, sample) in back.iter().zip(&samples) {
                assert_eq!(format!("{back:?}"), format!("{sample:?}"), "Debug tells -0.0 from 0.0");
            }
        }
    }

    #[test]
    fn a_chunk_comes_back_bit_for_bit() {
        let decimal = (0..500).map(|n| f64::from(n % 37) / 10.0).collect::<Vec<_>>();
        for values in [decimal, numbers(), Vec::new(), vec![7.0]] {
            let cells: Vec<Cell> = values
                .iter()
                .enumerate()
                .map(|(n, value)| {
                    let code = if n % 11 == 3 { NO_VALUE | 6 } else { u8::from(n % 50 == 0) };
                    let value = if code & NO_VALUE == 0 { *value } else { 0.0 };
                    Cell { time: 1_700_000_000_000_000 + n as i64 * 1_000_000 + (n as i64 % 7) * 913, value, code }
                })
                .collect();
            let mut back = Vec::new();
            let of_one: Vec<(u32, Cell)> = cells.iter().map(|cell| (3, *cell)).collect();
            decode_chunk(&encode_chunk(&of_one), &mut back).unwrap();
            assert_eq!(format!("{back:?}"), format!("{cells:?}"));
        }
    }

    #[test]
    fn a_shared_chunk_says_whose_its_readings_are() {
        let cell = Cell { time: 0, value: 1.0, code: 0 };
        let cells: Vec<(u32, Cell)> =
            [(70, 3), (71, 1), (100, 200)].iter().flat_map(|(point, count)| vec![(*point, cell); *count]).collect();
        let (body, members) = (encode_chunk(&cells), encode_members(&cells));
        let mut back = Vec::new();
        assert_eq!(decode_shared(&body, Some(&members), 70, &mut back), Ok(vec![(70, 3), (71, 1), (100, 200)]));
        assert_eq!(
            decode_shared(&body, None, 70, &mut back),
            Ok(vec![(70, 204)]),
            "a chunk of one point names it elsewhere"
        );
        let fewer = encode_members(&cells[1..]);
        assert_eq!(decode_shared(&body, Some(&fewer), 70, &mut back), Err(ColumnError::Form));
        for at in 0..members.len() {
            let mut bad = members.clone();
            bad[at] ^= 0x10;
            assert_eq!(decode_shared(&body, Some(&bad), 70, &mut back), Err(ColumnError::Checksum), "byte {at}");
        }
    }

    #[test]
    fn a_second_of_jittery_decimals_takes_less_than_eight_bytes() {
        let cells: Vec<(u32, Cell)> = (0..150_i64)
            .map(|n| Cell { time: n * 1_000_000 + n * 7_919 % 20_000, value: (220 + n % 9) as f64 + 0.3, code: 0 })
            .map(|cell| (3, cell))
            .collect();
        let body = encode_chunk(&cells);
        assert!(body.len() < 150 * 6, "{} bytes", body.len());
    }

    #[test]
    fn any_damaged_byte_is_refused_and_none_panics() {
        let mut encoder = BatchEncoder::default();
        for n in 0..100_u32 {
            encoder.push(n % 7, i64::from(n) * 1_000_000, Some(&Value::Number(f64::from(n) / 3.0)), Quality::Good);
        }
        let body = encoder.finish();
        for at in 0..body.len() {
            let mut bad = body.clone();
            bad[at] ^= 0x10;
            assert_eq!(decode_batch(&bad), Err(ColumnError::Checksum), "byte {at}");
            assert!(decode_batch(&body[..at]).is_err(), "cut at {at}");
            // With a checksum that fits, what lies behind it still must not be believed blindly.
            let crc = crc32fast::hash(&bad[4..]).to_le_bytes();
            bad[..4].copy_from_slice(&crc);
            let _ = decode_batch(&bad);
            let _ = decode_chunk(&bad, &mut Vec::new());
        }
    }

    /// With checksums that fit; the first was found by reading, for the fuzzer's seeds.
    #[test]
    fn what_no_batch_can_hold_is_refused_however_sound_its_checksum() {
        let furthest = [0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01];
        for (what, rest) in [
            ("a point beyond all numbers", [&[0, 2, 0x0A], &furthest[..]].concat()),
            ("a point below 0", vec![0, 1, 0x01, 0, 1, 0, 6]),
            ("64 MiB out of four bytes", vec![1, 0, 0, 0, 4, 0x1F, 0, 1, 0]),
            ("more readings than bytes", vec![0, 0x7F, 0]),
            ("a form of nobody", vec![9, 0]),
        ] {
            let body = [&crc32fast::hash(&rest).to_le_bytes()[..], &rest].concat();
            assert_eq!(decode_batch(&body), Err(ColumnError::Form), "{what}");
        }
    }

    #[test]
    fn every_quality_has_a_code() {
        for quality in [Quality::Uncertain(Doubt::WarmingUp), Quality::Bad(Fault::Offline)].iter().chain(&Quality::ALL)
        {
            assert_eq!(quality_of(quality_code(*quality)), Ok(*quality));
        }
    }
}
