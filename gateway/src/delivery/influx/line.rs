//! Readings as InfluxDB line protocol.
//!
//! `measurement,tag=value,... field=value,... nanoseconds`, one line a reading:
//!
//! ```text
//! gas.lel,building=3,device=b3-2-gas,grid=G-07,point=b3-2-gas/lel,quality=good value=12.5 1772328600000000000
//! fire.smoke,device=b1-1,point=b1-1/smoke,quality=uncertain value=true,reason="unconfirmed" 1772328600000000000
//! device.text,device=d1,point=d1/state,quality=good text="open" 1772328600000000000
//! power.voltage,device=m1,point=m1/u,quality=bad reason="comms" 1772328600000000000
//! ```
//!
//! A text is in the field `text`: databases that keep numbers only make 0 of a string, which must not look measured.
//!
//! What it promises: a line never holds NaN, an infinity, an empty tag, a control character or a backslash outside a
//! quoted string, so every parser of the protocol reads the same from it. In names and tags the protocol has no way to
//! write a backslash before a comma or at the end, so a backslash becomes its full-width twin `＼`; control characters
//! become spaces. Time stamps differ within a series: readings of one point at one microsecond get 1 ns more each.

use std::fmt::Write as _;

use anmin_sensors::reading::Value;
use anmin_sensors::time::Wall;

use crate::store::{Label, StoredSample};

/// Times that are sent: 2000 to 2100. Outside it a clock was wrong, and databases drop or misplace such points silently.
const EARLIEST: Wall = Wall::from_millis(946_684_800_000);
const LATEST: Wall = Wall::from_millis(4_102_444_800_000);

/// Texts are cut to so many characters.
const LONGEST_TEXT: usize = 1_024;

/// Why a reading is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// NaN or infinite.
    NotFinite,
    /// Outside the years that are sent.
    Time,
}

/// What is the same in all lines of a site.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Naming {
    /// In place of the point's kind.
    pub measurement: Option<String>,
    /// Tags on every line.
    pub tags: Vec<(String, String)>,
}

/// The head of a point's lines up to the quality: measurement and tags in the order of their names.
pub fn head(label: &Label, naming: &Naming) -> String {
    let mut tags: Vec<(&str, &str)> = vec![
        ("area", &label.area),
        ("building", &label.building),
        ("device", &label.device),
        ("floor", &label.floor),
        ("grid", &label.grid),
        ("kind", if naming.measurement.is_some() { &label.kind } else { "" }),
        ("point", &label.point),
        ("room", &label.room),
        ("unit", &label.unit),
    ];
    for (key, value) in &naming.tags {
        // The site's own word never replaces what names the point.
        if !tags.iter().any(|(known, value)| known == key && !value.is_empty()) {
            tags.push((key, value));
        }
    }
    tags.sort_by_key(|(key, _)| *key);
    let mut head = String::with_capacity(128);
    escape(&mut head, naming.measurement.as_deref().unwrap_or(&label.kind), false);
    for (key, value) in tags.iter().filter(|(_, value)| !value.trim().is_empty()) {
        head.push(',');
        escape(&mut head, key, true);
        head.push('=');
        escape(&mut head, value, true);
    }
    head
}

/// Appends one line with its newline; `tie` nanoseconds are added to the time. Appends nothing when it is skipped.
pub fn push(lines: &mut String, head: &str, sample: &StoredSample, tie: u16) -> Result<(), Skip> {
    if sample.time < EARLIEST || sample.time >= LATEST {
        return Err(Skip::Time);
    }
    if let Some(Value::Number(number)) = &sample.value
        && !number.is_finite()
    {
        return Err(Skip::NotFinite);
    }
    lines.push_str(head);
    lines.push_str(",quality=");
    lines.push_str(sample.quality.as_str());
    lines.push(' ');
    // Writing into a String cannot fail.
    match &sample.value {
        Some(Value::Number(number)) => {
            let _ = write!(lines, "value={number:?}");
        }
        Some(Value::Flag(flag)) => {
            let _ = write!(lines, "value={flag}");
        }
        Some(Value::Text(text)) => {
            lines.push_str("text=\"");
            for c in text.chars().take(LONGEST_TEXT) {
                match c {
                    '"' | '\\' => lines.extend(['\\', c]),
                    c if c.is_control() => lines.push(' '),
                    c => lines.push(c),
                }
            }
            lines.push('"');
        }
        None => {}
    }
    let reason = sample.quality.reason();
    match (&sample.value, reason) {
        (Some(_), "") => {}
        (Some(_), reason) => {
            let _ = write!(lines, ",reason=\"{reason}\"");
        }
        (None, reason) => {
            let _ = write!(lines, "reason=\"{}\"", if reason.is_empty() { "no_value" } else { reason });
        }
    }
    let nanos = sample.time.micros() * 1_000 + i64::from(tie);
    let _ = writeln!(lines, " {nanos}");
    Ok(())
}

/// Names, tag keys and tag values; `=` is special in the latter two only.
fn escape(to: &mut String, text: &str, equals: bool) {
    for c in text.trim().chars() {
        match c {
            ',' | ' ' => to.extend(['\\', c]),
            '=' if equals => to.push_str("\\="),
            '\\' => to.push('＼'),
            // A control character, escaped like the space that it becomes.
            c if c.is_control() => to.push_str("\\ "),
            c => to.push(c),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use anmin_sensors::reading::{Doubt, Fault, Quality};

    use super::*;
    use crate::samples::check_golden;

    pub fn label(point: &str) -> Label {
        Label {
            point: point.to_owned(),
            kind: "gas.lel".to_owned(),
            device: point.split('/').next().unwrap_or_default().to_owned(),
            area: String::new(),
            grid: "G-07".to_owned(),
            building: "3".to_owned(),
            unit: String::new(),
            floor: String::new(),
            room: String::new(),
        }
    }

    fn sample(value: Option<Value>, quality: Quality) -> StoredSample {
        StoredSample { point: 1, time: Wall::from_millis(1_772_328_600_000), value, quality }
    }

    fn hostile() -> Vec<&'static str> {
        vec![
            "plain",
            "3号楼",
            "with space",
            "comma,comma",
            "equals=sign",
            "back\\slash",
            "ends in\\",
            "\\",
            "quote\"",
            "new\nline",
            "cr\r\nlf",
            "tab\ttab",
            "nul\0nul",
            " leading",
            "trailing ",
            ",",
            "=",
            " ",
            "#hash",
            "a\\,b",
            "a\\ b",
            "a\\\\",
            "\u{85}next",
            "emoji🔥",
            "日本 , = \\ \"",
        ]
    }

    /// The golden file shows how each kind of reading and each awkward name looks on the wire.
    #[test]
    fn lines_look_as_reviewed() {
        let mut lines = String::new();
        let plain = Naming::default();
        let good = |value| sample(Some(value), Quality::Good);
        for sample in [
            good(Value::Number(12.5)),
            good(Value::Number(-0.0)),
            good(Value::Number(0.1 + 0.2)),
            good(Value::Number(1e300)),
            good(Value::Number(5e-324)),
            good(Value::Number(20.0)),
            good(Value::Flag(true)),
            good(Value::Flag(false)),
            good(Value::Text("open \"now\" \\ here\nnext".into())),
            good(Value::Text("".into())),
            sample(Some(Value::Number(99.0)), Quality::Uncertain(Doubt::Jump)),
            sample(Some(Value::Number(999.0)), Quality::Bad(Fault::OutOfRange)),
            sample(None, Quality::Bad(Fault::Comms)),
        ] {
            push(&mut lines, &head(&label("b3-2-gas/lel"), &plain), &sample, 0).unwrap();
        }
        for name in hostile() {
            let label = Label { room: name.to_owned(), device: name.to_owned(), ..label("b3-2-gas/lel") };
            push(&mut lines, &head(&label, &plain), &good(Value::Number(1.0)), 7).unwrap();
        }
        let named = Naming {
            measurement: Some("readings of spring".to_owned()),
            tags: vec![
                ("site".to_owned(), "shequ-001".to_owned()),
                ("device".to_owned(), "not mine".to_owned()),
                ("empty".to_owned(), " ".to_owned()),
            ],
        };
        push(&mut lines, &head(&label("b3-2-gas/lel"), &named), &good(Value::Number(1.0)), 0).unwrap();
        check_golden("influx/lines.txt", &lines);
    }

    #[test]
    fn what_no_database_should_see_is_skipped() {
        let mut lines = String::new();
        let at = |millis| StoredSample {
            time: Wall::from_millis(millis),
            ..sample(Some(Value::Number(1.0)), Quality::Good)
        };
        for (sample, why) in [
            (sample(Some(Value::Number(f64::NAN)), Quality::Good), Skip::NotFinite),
            (sample(Some(Value::Number(f64::NEG_INFINITY)), Quality::Good), Skip::NotFinite),
            (at(0), Skip::Time),
            (at(946_684_799_999), Skip::Time),
            (at(4_102_444_800_000), Skip::Time),
            (at(i64::MIN), Skip::Time),
            (at(i64::MAX), Skip::Time),
        ] {
            assert_eq!(push(&mut lines, "m,point=a", &sample, 0), Err(why));
        }
        assert_eq!(lines, "");
    }

    /// One line as a strict parser of the protocol reads it. Written from the description of the protocol, apart from
    /// the encoder above: a backslash takes the next character with it whichever that is, as InfluxDB scans.
    #[derive(Debug, PartialEq)]
    pub struct Line {
        pub measurement: String,
        pub tags: Vec<(String, String)>,
        pub fields: Vec<(String, String)>,
        pub nanos: i64,
    }

    pub fn parse(line: &str) -> Result<Line, String> {
        let chars: Vec<char> = line.chars().collect();
        let mut at = 0;
        let mut word = |stops: &[char]| -> Result<(String, Option<char>), String> {
            let mut word = String::new();
            while let Some(&c) = chars.get(at) {
                at += 1;
                if c == '\\' {
                    let next = *chars.get(at).ok_or("ends in a backslash")?;
                    at += 1;
                    if !matches!(next, ',' | ' ' | '=') {
                        return Err(format!("backslash before {next:?}"));
                    }
                    word.push(next);
                } else if stops.contains(&c) {
                    return Ok((word, Some(c)));
                } else if c.is_control() {
                    return Err(format!("control character {c:?}"));
                } else {
                    word.push(c);
                }
            }
            Ok((word, None))
        };
        let (measurement, mut stop) = word(&[',', ' '])?;
        let mut tags = Vec::new();
        while stop == Some(',') {
            let (key, equals) = word(&['=', ',', ' '])?;
            let (value, next) = word(&[',', ' ', '='])?;
            if equals != Some('=') || key.is_empty() || value.is_empty() || next == Some('=') {
                return Err(format!("tag {key:?}={value:?}"));
            }
            tags.push((key, value));
            stop = next;
        }
        if measurement.is_empty() || measurement.starts_with('#') || stop != Some(' ') {
            return Err(format!("measurement {measurement:?}"));
        }
        let mut fields = Vec::new();
        loop {
            let from = chars[at..].iter().position(|c| *c == '=').ok_or("no field")? + at;
            let key: String = chars[at..from].iter().collect();
            at = from + 1;
            let mut value = String::new();
            if chars.get(at) == Some(&'"') {
                at += 1;
                loop {
                    match chars.get(at).ok_or("string without end")? {
                        '"' => break,
                        '\\' => {
                            at += 1;
                            value.push(*chars.get(at).ok_or("string without end")?);
                        }
                        c if c.is_control() => return Err(format!("control character {c:?}")),
                        c => value.push(*c),
                    }
                    at += 1;
                }
                at += 1;
            } else {
                while let Some(c) = chars.get(at).filter(|c| !matches!(c, ',' | ' ')) {
                    value.push(*c);
                    at += 1;
                }
                let number = value.parse::<f64>().is_ok_and(f64::is_finite);
                if !number && value != "true" && value != "false" {
                    return Err(format!("field {key}={value}"));
                }
            }
            fields.push((key, value));
            at += 1;
            match chars.get(at - 1) {
                Some(',') => {}
                Some(' ') => break,
                other => return Err(format!("after a field: {other:?}")),
            }
        }
        let nanos: String = chars[at..].iter().collect();
        let nanos = nanos.parse().map_err(|_| format!("time {nanos:?}"))?;
        Ok(Line { measurement, tags, fields, nanos })
    }

    /// Goal: what a parser reads is what was meant, for any names, values and texts.
    #[test]
    fn a_strict_parser_reads_back_what_was_meant() {
        let meant = |text: &str| -> String {
            text.trim().replace('\\', "＼").chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
        };
        let values = [0.0, -1.5, 1.0 / 3.0, 1e300, 5e-324, f64::MAX, 123_456_789.123];
        for (n, device) in hostile().into_iter().enumerate() {
            for (m, building) in hostile().into_iter().enumerate() {
                let label = Label { building: building.to_owned(), device: device.to_owned(), ..label("p") };
                let value = match (n + m) % 3 {
                    0 => Value::Number(values[(n + m) % values.len()]),
                    1 => Value::Flag(n % 2 == 0),
                    _ => Value::Text(building.into()),
                };
                let quality = Quality::ALL[(n * 7 + m) % Quality::ALL.len()];
                let sample = sample(Some(value.clone()), quality);
                let mut lines = String::new();
                push(&mut lines, &head(&label, &Naming::default()), &sample, m as u16).unwrap();
                let text = lines.strip_suffix('\n').unwrap();
                let line = parse(text).unwrap_or_else(|why| panic!("{text:?}: {why}"));
                let mut tags = vec![("building", meant(building)), ("device", meant(device))];
                tags.extend([
                    ("grid", "G-07".to_owned()),
                    ("point", "p".to_owned()),
                    ("quality", quality.as_str().to_owned()),
                ]);
                tags.retain(|(_, value)| !value.is_empty());
                let tags: Vec<(String, String)> =
                    tags.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
                assert_eq!(line.tags, tags);
                assert_eq!(line.nanos, 1_772_328_600_000_000_000 + m as i64);
                match value {
                    Value::Number(number) => {
                        assert_eq!(line.fields[0].1.parse::<f64>().unwrap().to_bits(), number.to_bits())
                    }
                    Value::Flag(flag) => assert_eq!(line.fields[0].1, flag.to_string()),
                    Value::Text(text) => {
                        let meant: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
                        assert_eq!(line.fields[0].1, meant);
                    }
                }
                let reason = line.fields.iter().find(|(key, _)| key == "reason").map_or("", |(_, reason)| reason);
                assert_eq!(reason, quality.reason());
            }
        }
    }
}
