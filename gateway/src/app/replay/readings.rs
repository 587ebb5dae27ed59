//! Readings from a file: CSV with the columns of `anmin export`, or line protocol as it writes it.
//!
//! A line that cannot be read is counted and said with its line and column, and costs no other. Everything is held in
//! memory, about fifty bytes a reading, because an export stands point by point and rules want the order of time.

use std::collections::HashMap;
use std::io::{self, BufRead, Read};

use anmin_sensors::document::did_you_mean;
use anmin_sensors::point::{DeviceId, Form, Kind};
use anmin_sensors::reading::{Doubt, Fault, Quality, Value};
use anmin_sensors::time::Wall;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::store::{Label, StoredSample};

/// A line that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    pub line: u64,
    /// Of CSV the number of the cell, else of the character.
    pub column: usize,
    pub why: String,
}

/// Bad lines that are named; the others are counted.
const NAMED: usize = 20;

/// What a file holds.
#[derive(Debug, Default)]
pub struct Readings {
    /// A sample's point is the place of its label.
    pub labels: Vec<Label>,
    /// In the order of their times.
    pub samples: Vec<StoredSample>,
    /// The first of them, and how many there are.
    pub bad: (Vec<BadLine>, u64),
    numbers: HashMap<String, u32>,
}

/// What is known beside the file.
pub struct Site<'s> {
    /// The zone of moments that name none.
    pub zone: &'s TimeZone,
    /// The kind of a point that the site has.
    pub kind_of: &'s dyn Fn(&str) -> Option<Kind>,
    /// Readings outside it are left out.
    pub from: Wall,
    pub to: Wall,
}

/// One line before it is understood; each cell with its column.
struct Row<'r> {
    label: Label,
    time: (usize, Result<Wall, String>),
    point: usize,
    kind: usize,
    value: (usize, Option<Raw<'r>>),
    unit: (usize, &'r str),
    quality: (usize, &'r str, &'r str),
}

/// A value as it is written.
enum Raw<'r> {
    /// In a cell, where only the kind says what it is.
    Cell(&'r str),
    Number(f64),
    Flag(bool),
    Text(String),
}

impl Readings {
    fn bad(&mut self, line: u64, column: usize, why: String) {
        self.bad.1 += 1;
        if self.bad.0.len() < NAMED {
            self.bad.0.push(BadLine { line, column, why });
        }
    }

    fn take(&mut self, row: Row<'_>, site: &Site<'_>) -> Result<(), (usize, String)> {
        let (column, time) = row.time;
        let time = time.map_err(|why| (column, why))?;
        let known = self.numbers.get(&row.label.point).copied();
        let kind = match known {
            Some(number) => Kind::named(&self.labels[number as usize].kind),
            None => (site.kind_of)(&row.label.point).or_else(|| Kind::named(&row.label.kind)),
        };
        let Some(kind) = kind else {
            let kinds = anmin_sensors::point::KINDS.iter().map(|info| info.name);
            let hint = did_you_mean(&row.label.kind, kinds).map_or(String::new(), |hint| format!("; {hint}"));
            return Err((row.kind, format!("there is no kind {:?}{hint}", row.label.kind)));
        };
        let (column, unit) = row.unit;
        if !unit.is_empty() && unit != kind.info().unit {
            return Err((
                column,
                format!("the value is in {unit:?}, but {} is in {:?}", kind.as_str(), kind.info().unit),
            ));
        }
        let quality = quality(row.quality.1, row.quality.2).map_err(|why| (row.quality.0, why))?;
        let (column, value) = row.value;
        let value = value.map(|raw| value_of(raw, kind.info().form)).transpose().map_err(|why| (column, why))?;
        if value.is_none() && !matches!(quality, Quality::Bad(_)) {
            return Err((column, "there is no value, and the quality is not bad".to_owned()));
        }
        let number = match known {
            Some(number) => number,
            None => {
                let number = self.labels.len() as u32;
                let mut label = row.label;
                let named = label.point.split_once('/').filter(|(_, name)| !name.is_empty());
                let Some((device, _)) = named else {
                    return Err((row.point, format!("the point is {:?}, expected device/name", label.point)));
                };
                if label.device.is_empty() {
                    label.device = device.to_owned();
                }
                if DeviceId::parse(&label.device).is_err() || !label.point.starts_with(&format!("{}/", label.device)) {
                    return Err((row.point, format!("{:?} is no point of a device {:?}", label.point, label.device)));
                }
                label.kind = kind.as_str().to_owned();
                self.numbers.insert(label.point.clone(), number);
                self.labels.push(label);
                number
            }
        };
        if time >= site.from && time < site.to {
            self.samples.push(StoredSample { point: number, time, value, quality });
        }
        Ok(())
    }

    fn sorted(mut self) -> Self {
        self.samples.sort_by_key(|sample| sample.time);
        self
    }
}

fn value_of(raw: Raw<'_>, form: Form) -> Result<Value, String> {
    let number = |number: f64| {
        if number.is_finite() { Ok(Value::Number(number)) } else { Err(format!("{number} is not a number to measure")) }
    };
    match (raw, form) {
        (Raw::Cell(cell), Form::Number) => {
            cell.parse().map_err(|_| format!("{cell:?} is not a number")).and_then(number)
        }
        (Raw::Cell(cell), Form::Flag) => match cell.to_ascii_lowercase().as_str() {
            "true" | "1" => Ok(Value::Flag(true)),
            "false" | "0" => Ok(Value::Flag(false)),
            _ => Err(format!("{cell:?} is neither true nor false")),
        },
        (Raw::Cell(cell), Form::Text) => Ok(Value::Text(cell.into())),
        (Raw::Number(value), Form::Number) => number(value),
        (Raw::Number(value), Form::Flag) if value == 0.0 || value == 1.0 => Ok(Value::Flag(value == 1.0)),
        (Raw::Flag(flag), Form::Flag) => Ok(Value::Flag(flag)),
        (Raw::Text(text), Form::Text) => Ok(Value::Text(text.into())),
        (_, form) => Err(format!(
            "the value is not {}",
            match form {
                Form::Number => "a number",
                Form::Flag => "true or false",
                Form::Text => "a text",
            }
        )),
    }
}

/// Nothing said is good; a reason that is not known leaves the word that is.
fn quality(word: &str, reason: &str) -> Result<Quality, String> {
    let exact = |quality: &Quality| quality.as_str() == word && quality.reason() == reason;
    match (Quality::ALL.into_iter().find(exact), word) {
        (Some(quality), _) => Ok(quality),
        (None, "" | "good") => Ok(Quality::Good),
        (None, "uncertain") => Ok(Quality::Uncertain(Doubt::Stuck)),
        (None, "bad") => Ok(Quality::Bad(Fault::NotAValue)),
        (None, _) => Err(format!("the quality is {word:?}, expected good, uncertain or bad")),
    }
}

/// RFC 3339, or a day and time of the site's clocks.
fn moment(text: &str, zone: &TimeZone) -> Result<Wall, String> {
    let absolute = text.parse::<Timestamp>().ok();
    let local =
        || Some(zone.to_ambiguous_zoned_datetime(text.parse::<DateTime>().ok()?).compatible().ok()?.timestamp());
    let at =
        absolute.or_else(local).ok_or_else(|| format!("{text:?} is no moment such as 2026-01-31T08:00:00+08:00"))?;
    Ok(Wall::from_micros(at.as_microsecond()))
}

/// Reads CSV. The first line names the columns: `time`, `point` and `value` must be there, `kind` for points that the
/// site does not have; others than those of `anmin export` are passed over.
pub fn csv(from: impl Read, site: &Site<'_>) -> io::Result<Readings> {
    let mut all = Readings::default();
    let mut reader = csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::All).from_reader(from);
    let columns = match reader.headers() {
        Ok(headers) => headers.clone(),
        Err(error) => {
            all.bad(1, 1, csv_error(error)?);
            return Ok(all);
        }
    };
    let place = |name: &str| columns.iter().position(|column| column.trim_start_matches('\u{feff}') == name);
    for name in ["time", "point", "value"] {
        if place(name).is_none() {
            all.bad(1, 1, format!("there is no column `{name}`"));
        }
    }
    if all.bad.1 > 0 {
        return Ok(all);
    }
    let places = [
        "time",
        "point",
        "value",
        "kind",
        "device",
        "area",
        "grid",
        "building",
        "unit",
        "floor",
        "room",
        "value_unit",
        "quality",
        "reason",
    ]
    .map(place);
    let mut record = csv::StringRecord::new();
    loop {
        match reader.read_record(&mut record) {
            Ok(false) => return Ok(all.sorted()),
            Ok(true) => {}
            Err(error) => {
                let line = error.position().map_or(0, csv::Position::line);
                all.bad(line, 1, csv_error(error)?);
                continue;
            }
        }
        let line = record.position().map_or(0, csv::Position::line);
        let cell = |n: usize| places[n].and_then(|place| record.get(place)).unwrap_or_default();
        let column = |n: usize| places[n].unwrap_or(0) + 1;
        // What an export has made harmless to a spreadsheet.
        let own = |n: usize| {
            let cell = cell(n);
            let tame = cell.strip_prefix('\'').filter(|rest| rest.starts_with(['=', '+', '-', '@']));
            tame.unwrap_or(cell)
        };
        let name = |n: usize| own(n).to_owned();
        let row = Row {
            time: (column(0), moment(cell(0), site.zone)),
            point: column(1),
            value: (column(2), Some(own(2)).filter(|cell| !cell.is_empty()).map(Raw::Cell)),
            kind: column(3),
            label: Label {
                point: name(1),
                kind: name(3),
                device: name(4),
                area: name(5),
                grid: name(6),
                building: name(7),
                unit: name(8),
                floor: name(9),
                room: name(10),
            },
            unit: (column(11), cell(11)),
            quality: (column(12), cell(12), cell(13)),
        };
        if let Err((column, why)) = all.take(row, site) {
            all.bad(line, column, why);
        }
    }
}

/// Why a line is not CSV; that the file cannot be read is another matter.
fn csv_error(error: csv::Error) -> io::Result<String> {
    let why = format!("not CSV: {error}");
    match error.into_kind() {
        csv::ErrorKind::Io(error) => Err(error),
        _ => Ok(why),
    }
}

/// Reads line protocol: the measurement is the kind unless a tag `kind` says it, the fields are `value` or `text`, and
/// `reason`; the time is in nanoseconds.
pub fn lines(mut from: impl BufRead, site: &Site<'_>) -> io::Result<Readings> {
    let mut all = Readings::default();
    let (mut bytes, mut number) = (Vec::new(), 0);
    loop {
        bytes.clear();
        if from.read_until(b'\n', &mut bytes)? == 0 {
            return Ok(all.sorted());
        }
        number += 1;
        let read = match std::str::from_utf8(&bytes) {
            Ok(line) => line_of(line.trim_end_matches(['\n', '\r']), &mut all, site),
            Err(error) => Err((error.valid_up_to() + 1, "not UTF-8".to_owned())),
        };
        if let Err((column, why)) = read {
            all.bad(number, column, why);
        }
    }
}

/// A line as it is read from left to right.
struct Cursor<'l> {
    line: &'l str,
    at: usize,
}

impl<'l> Cursor<'l> {
    fn column(&self) -> usize {
        self.line[..self.at].chars().count() + 1
    }

    fn fault<T>(&self, why: impl Into<String>) -> Result<T, (usize, String)> {
        Err((self.column(), why.into()))
    }

    fn rest(&self) -> &'l str {
        &self.line[self.at..]
    }

    fn eat(&mut self, c: char) -> bool {
        let there = self.rest().starts_with(c);
        self.at += if there { c.len_utf8() } else { 0 };
        there
    }

    /// Up to one of `ends` that no backslash stands before.
    fn name(&mut self, ends: &[char]) -> String {
        let mut name = String::new();
        let mut rest = self.rest().chars();
        while let Some(c) = rest.next() {
            if ends.contains(&c) {
                break;
            }
            self.at += c.len_utf8();
            let mut next = rest.clone();
            match next.next() {
                Some(escaped @ (',' | '=' | ' ')) if c == '\\' => {
                    name.push(escaped);
                    self.at += escaped.len_utf8();
                    rest = next;
                }
                _ => name.push(c),
            }
        }
        name
    }

    /// A field's value.
    fn value(&mut self) -> Result<Raw<'l>, (usize, String)> {
        if !self.eat('"') {
            let begin = self.at;
            let end = self.rest().find([',', ' ']).map_or(self.line.len(), |end| begin + end);
            let word = &self.line[begin..end];
            let value = match word {
                "t" | "T" | "true" | "True" | "TRUE" => Raw::Flag(true),
                "f" | "F" | "false" | "False" | "FALSE" => Raw::Flag(false),
                _ => match word.trim_end_matches(['i', 'u']).parse() {
                    Ok(number) => Raw::Number(number),
                    Err(_) => return self.fault(format!("{word:?} is no value")),
                },
            };
            self.at = end;
            return Ok(value);
        }
        let mut text = String::new();
        let mut rest = self.rest().chars();
        while let Some(c) = rest.next() {
            self.at += c.len_utf8();
            match c {
                '"' => return Ok(Raw::Text(text)),
                '\\' => match rest.clone().next() {
                    Some(escaped @ ('"' | '\\')) => {
                        text.push(escaped);
                        self.at += 1;
                        rest.next();
                    }
                    _ => text.push(c),
                },
                c => text.push(c),
            }
        }
        self.fault("a text has no end")
    }
}

fn line_of(line: &str, all: &mut Readings, site: &Site<'_>) -> Result<(), (usize, String)> {
    if line.trim().is_empty() || line.starts_with('#') {
        return Ok(());
    }
    let mut cursor = Cursor { line, at: 0 };
    let empty = String::new;
    let mut label = Label {
        kind: cursor.name(&[',', ' ']),
        point: empty(),
        device: empty(),
        area: empty(),
        grid: empty(),
        building: empty(),
        unit: empty(),
        floor: empty(),
        room: empty(),
    };
    let (mut quality_word, mut reason) = (empty(), empty());
    let (mut point, mut kind, mut quality_at) = (1, 1, 1);
    while cursor.eat(',') {
        let at = cursor.column();
        let key = cursor.name(&['=', ',', ' ']);
        if !cursor.eat('=') {
            return cursor.fault(format!("tag {key:?} has no value"));
        }
        let value = cursor.name(&[',', ' ']);
        match key.as_str() {
            "point" => (label.point, point) = (value, at),
            "kind" => (label.kind, kind) = (value, at),
            "quality" => (quality_word, quality_at) = (value, at),
            "device" => label.device = value,
            "area" => label.area = value,
            "grid" => label.grid = value,
            "building" => label.building = value,
            "unit" => label.unit = value,
            "floor" => label.floor = value,
            "room" => label.room = value,
            _ => {}
        }
    }
    if !cursor.eat(' ') {
        return cursor.fault("there are no fields");
    }
    let mut value = (cursor.column(), None);
    loop {
        let at = cursor.column();
        let key = cursor.name(&['=', ',', ' ']);
        if !cursor.eat('=') {
            return cursor.fault(format!("field {key:?} has no value"));
        }
        match (key.as_str(), cursor.value()?) {
            ("value" | "text", found) => value = (at, Some(found)),
            ("reason", Raw::Text(found)) => reason = found,
            _ => {}
        }
        if !cursor.eat(',') {
            break;
        }
    }
    let at = cursor.column() + 1;
    let time = if cursor.eat(' ') { cursor.rest().trim() } else { cursor.rest() };
    let nanos = time.parse::<i64>().map_err(|_| match time {
        "" => "there is no time".to_owned(),
        other => format!("the time is {other:?}, expected nanoseconds since 1970"),
    });
    all.take(
        Row {
            label,
            time: (at, nanos.map(|nanos| Wall::from_micros(nanos.div_euclid(1_000)))),
            point,
            kind,
            value,
            unit: (1, ""),
            quality: (quality_at, &quality_word, &reason),
        },
        site,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(zone: &TimeZone) -> Site<'_> {
        let kind_of = &|point: &str| Kind::named("power.voltage").filter(|_| point == "m1/u");
        Site { zone, kind_of, from: Wall::from_micros(i64::MIN), to: Wall::from_micros(i64::MAX) }
    }

    fn shown(readings: &Readings) -> (Vec<String>, Vec<String>) {
        let sample = |sample: &StoredSample| {
            let label = &readings.labels[sample.point as usize];
            let value = sample.value.as_ref().map_or("-".to_owned(), ToString::to_string);
            format!("{} {} {value} {:?}", sample.time.millis() - 1_772_328_600_000, label.point, sample.quality)
        };
        let bad = |BadLine { line, column, why }: &BadLine| format!("{line}:{column}: {why}");
        (readings.samples.iter().map(sample).collect(), readings.bad.0.iter().map(bad).collect())
    }

    #[test]
    fn csv_is_read_in_the_order_of_time_and_a_bad_line_costs_no_other() {
        let zone = TimeZone::fixed(jiff::tz::offset(8));
        let text = "\u{feff}time,point,kind,value,value_unit,quality,reason,whatever\n\
             2026-03-01T09:30:02+08:00,g1/lel,gas.lel,12.5,%LEL,good,,x\n\
             2026-03-01 09:30:01,g1/lel,gas.lel,99,,uncertain,jump\n\
             yesterday,g1/lel,gas.lel,1,,good\n\
             2026-03-01T09:30:00Z,g1/lel,gas.lel,much,,good\n\
             2026-03-01T01:30:00Z,g2/lel,gas.leel,1\n\
             2026-03-01T01:30:00Z,g2,gas.lel,1\n\
             2026-03-01T01:30:00Z,g1/lel,gas.lel,1,ppm\n\
             2026-03-01T01:30:00Z,g1/lel,gas.lel,,,good\n\
             2026-03-01T01:30:00Z,g1/lel,gas.lel,,,bad,comms\n\
             2026-03-01T01:30:00Z,g1/lel,gas.lel,1,,so-so\n\
             2026-03-01T01:30:00Z,m1/u,,231.5\n\
             2026-03-01T01:30:03Z,\"s 1/a,b\",fire.smoke,true\n\
             2026-03-01T01:30:03Z,/x,fire.smoke,true\n\
             2026-03-01T01:30:03Z,s1/smoke,fire.smoke,TRUE\n\
             2026-03-01T01:30:04Z,s1/smoke,fire.smoke,0\n";
        let (samples, bad) = shown(&csv(text.as_bytes(), &site(&zone)).expect("memory can be read"));
        assert_eq!(
            samples,
            [
                "0 g1/lel - Bad(Comms)",
                "0 m1/u 231.5 Good",
                "1000 g1/lel 99 Uncertain(Jump)",
                "2000 g1/lel 12.5 Good",
                "3000 s 1/a,b true Good",
                "3000 s1/smoke true Good",
                "4000 s1/smoke false Good",
            ]
        );
        assert_eq!(
            bad,
            [
                "4:1: \"yesterday\" is no moment such as 2026-01-31T08:00:00+08:00",
                "5:4: \"much\" is not a number",
                "6:3: there is no kind \"gas.leel\"; did you mean `gas.lel`?",
                "7:2: the point is \"g2\", expected device/name",
                "8:5: the value is in \"ppm\", but gas.lel is in \"%LEL\"",
                "9:4: there is no value, and the quality is not bad",
                "11:6: the quality is \"so-so\", expected good, uncertain or bad",
                "14:2: \"/x\" is no point of a device \"\"",
            ]
        );
        let (samples, bad) = shown(&csv("when,what\n1,2\n".as_bytes(), &site(&zone)).expect("memory can be read"));
        assert_eq!((samples.len(), bad.len()), (0, 3));
    }

    #[test]
    fn line_protocol_is_read_and_a_bad_line_costs_no_other() {
        let zone = TimeZone::UTC;
        let text = "# a comment\n\
             gas.lel,building=3,device=g1,point=g1/lel,quality=good value=12.5 1772328601000000001\n\
             fire.smoke,device=s1,point=s1/smoke,quality=uncertain value=true,reason=\"stuck\" 1772328600000000000\n\
             readings,kind=device.text,point=d\\ 1/state,room=\\ \\=\\, text=\"a \\\"b\\\" \\\\\",x=1i 1772328600000000000\n\
             gas.co,point=c1/co,quality=bad reason=\"comms\" 1772328602000000000\n\
             gas.lel,point=g1/lel value=1\n\
             gas.lel,point=g1/lel value=one 1\n\
             gas.lel,point value=1 1\n\
             gas.lel,point=g1/lel\n\
             gas.lel,point=g1/lel text=\"open 1\n\
             gas.lel,point=g1/lel text=\"open\" 1\n\
             gas.lol,point=g3/lel value=1 1\n\
             gas.lel,point=g1/lel value=1 soon\n";
        let (samples, bad) = shown(&lines(text.as_bytes(), &site(&zone)).expect("memory can be read"));
        assert_eq!(
            samples,
            [
                "0 s1/smoke true Uncertain(Stuck)",
                "0 d 1/state a \"b\" \\ Good",
                "1000 g1/lel 12.5 Good",
                "2000 c1/co - Bad(Comms)"
            ]
        );
        let whole = lines(text.as_bytes(), &site(&zone)).expect("memory can be read");
        assert!(whole.labels.iter().any(|label| label.room == " =,"), "{:?}", whole.labels);
        assert_eq!(
            bad,
            [
                "6:30: there is no time",
                "7:28: \"one\" is no value",
                "8:14: tag \"point\" has no value",
                "9:21: there are no fields",
                "10:34: a text has no end",
                "11:22: the value is not a number",
                "12:1: there is no kind \"gas.lol\"; did you mean `gas.lel`?",
                "13:30: the time is \"soon\", expected nanoseconds since 1970",
            ]
        );
    }

    /// Whatever a file holds, it is read to its end: each line is a reading, a fault or nothing.
    #[test]
    fn garbage_is_read_to_its_end() {
        let zone = TimeZone::UTC;
        let pieces = [
            "gas.lel",
            ",",
            "point=g1/lel",
            " ",
            "value=",
            "1",
            "\"",
            "\\",
            "=",
            "1772328600000000000",
            "\n",
            "é",
            "\u{0}",
        ];
        let mut dice = 1_u64;
        for _ in 0..2_000 {
            let mut text = String::new();
            for _ in 0..24 {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                text.push_str(pieces[(dice >> 33) as usize % pieces.len()]);
            }
            let read = lines(text.as_bytes(), &site(&zone)).expect("memory can be read");
            assert!(read.samples.len() as u64 + read.bad.1 <= text.lines().count() as u64, "{text:?}");
            csv(format!("time,point,kind,value\n{text}").as_bytes(), &site(&zone)).expect("memory can be read");
        }
    }
}
