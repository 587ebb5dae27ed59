//! `[[device]]` and device lists in CSV: what hangs on the wall and where.
//!
//! Property companies keep spreadsheets, so a list is a CSV file whose first line names the columns; the names are the
//! keys of `[[device]]`. An empty cell is an absent key. UTF-8, with or without the mark that Excel puts in front. The
//! column of a fault in it is the number of the cell.

use std::sync::Arc;
use std::time::Duration;

use anmin_rules::rule::Text;
use anmin_sensors::document::{Fault, Faults, Reader, parse_duration};
use anmin_sensors::point::Name;

use super::list_faults::{self, Form, Words};
use super::sheet::About;
use super::site::text;
use crate::spreadsheet::Lines;

/// One device as it was written down, not yet tied to profile, place and bus.
#[derive(Clone, Debug)]
pub struct Entry {
    pub id: String,
    pub name: Option<String>,
    /// What people call it in English, where that is another name.
    pub name_en: Option<String>,
    pub profile: Option<String>,
    /// Id of a `[[place]]`.
    pub place: Option<String>,
    pub unit: Option<String>,
    pub floor: Option<String>,
    pub room: Option<String>,
    /// Id of a `[[bus]]`; absent for devices that speak MQTT.
    pub bus: Option<String>,
    /// Modbus unit, 1 to 247 on a serial line.
    pub unit_id: Option<u8>,
    /// How often a bus device is read.
    pub interval: Option<Duration>,
    /// Overrides the profile's: without a reading for so long the device is silent.
    pub silent_after: Option<Duration>,
    at: At,
}

/// Where an entry stands, for faults that show only beside the rest of the site.
#[derive(Clone, Debug)]
struct At {
    source: Arc<str>,
    /// Line and column of each of [`At::KEYS`].
    spots: [(usize, usize); 5],
}

impl At {
    const KEYS: [&str; 5] = ["id", "profile", "place", "bus", "unit_id"];
}

impl Entry {
    pub fn read(r: &Reader<'_>) -> Option<Self> {
        let id: Option<String> = r.required("id");
        let at = At {
            source: Arc::from(r.place("id").source),
            spots: At::KEYS.map(|key| {
                let Fault { line, column, .. } = r.place(key);
                (line, column)
            }),
        };
        let location = r.table("location");
        let part = |key: &'static str| match &location {
            Some(table) => table.optional(key),
            None => r.optional(key),
        };
        let (name, name_en) = match text(r, "name") {
            Some(Text { zh, en }) => (Some(zh), Some(en)),
            None => (None, None),
        };
        let entry = Self {
            id: id.clone().unwrap_or_default(),
            name_en: name_en.filter(|en| name.as_ref() != Some(en)),
            name,
            profile: r.required("profile"),
            place: r.optional("place"),
            unit: part("unit"),
            floor: part("floor"),
            room: part("room"),
            bus: r.optional("bus"),
            unit_id: r.optional("unit_id"),
            interval: r.optional("interval"),
            silent_after: r.optional("silent_after"),
            at,
        };
        if let Some(table) = &location {
            table.finish();
        }
        for (key, wait) in [("interval", entry.interval), ("silent_after", entry.silent_after)] {
            if wait == Some(Duration::ZERO) {
                r.fault(key, format!("`{key}` is zero"), None);
            }
        }
        r.finish();
        id.map(|_| entry)
    }

    /// A fault at the value of `key`; at the id where the entry does not have that.
    pub fn fault(&self, key: &str, words: Words) -> Fault {
        let spot = At::KEYS.iter().position(|known| *known == key).unwrap_or(0);
        let (line, column) = self.at.spots[spot];
        words.at(&self.at.source, line, column)
    }

    pub fn label(&self) -> Option<Name> {
        Name::of(self.name.clone(), self.name_en.clone())
    }

    /// All that it says, wherever it stands: equal words, equal devices.
    pub fn words(&self) -> String {
        let Self { id, name, name_en, profile, place, unit, floor, room, bus, unit_id, interval, silent_after, at: _ } =
            self;
        format!("{:?}", (id, name, name_en, profile, place, unit, floor, (room, bus, unit_id, interval, silent_after)))
    }

    /// `devices.csv:12`: where another entry may be found.
    pub fn place(&self) -> String {
        format!("{}:{}", self.at.source, self.at.spots[0].0)
    }
}

/// Reads a device list; every faulty line is noted and left out, the others are taken.
pub fn read_csv(source: &str, text: &str, faults: &Faults) -> Vec<Entry> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = Lines::of(text);
    let fault = |line: usize, column: usize, words: Words| faults.note(words.at(source, line, column));
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).flexible(true).from_reader(text.as_bytes());
    let headers = match reader.headers() {
        Ok(headers) => headers.clone(),
        Err(error) => {
            fault(1, 1, list_faults::not_csv(&error));
            return Vec::new();
        }
    };
    if headers.iter().all(str::is_empty) {
        fault(1, 1, list_faults::no_head());
        return Vec::new();
    }
    if let (1, Some(other)) = (headers.len(), headers[0].find([';', '\t'])) {
        fault(1, 1, list_faults::separators(&headers[0][other..=other]));
        return Vec::new();
    }
    for (n, header) in headers.iter().enumerate() {
        if About::Devices.keys().all(|key| key != header) {
            fault(1, n + 1, list_faults::unknown_column(header, About::Devices.keys()));
        }
        if headers.iter().take(n).any(|earlier| earlier == header) {
            fault(1, n + 1, list_faults::column_twice(header));
        }
    }
    let missing = ["id", "profile"].into_iter().filter(|wanted| !headers.iter().any(|header| header == *wanted));
    // Said once, not for every line.
    if missing.map(|column| fault(1, 1, list_faults::no_column(column))).count() > 0 {
        return Vec::new();
    }
    let mut entries = Vec::new();
    let name: Arc<str> = Arc::from(source);
    let columns = At::KEYS.map(|key| headers.iter().position(|header| header == key).unwrap_or(0) + 1);
    for record in reader.records() {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                fault(lines.of_record(error.position()), 1, list_faults::not_csv(&error));
                continue;
            }
        };
        let line = lines.of_record(record.position());
        if record.len() != headers.len() {
            fault(line, 1, list_faults::cells(record.len(), headers.len()));
            continue;
        }
        let column = |name: &str| headers.iter().position(|header| header == name);
        let cell =
            |name: &str| column(name).and_then(|n| record.get(n)).filter(|cell| !cell.is_empty()).map(str::to_owned);
        let mut sound = true;
        let mut parsed = |name: &str, wanted: &Form, good: &dyn Fn(&str) -> bool| {
            let text = cell(name)?;
            if good(&text) {
                return Some(text);
            }
            sound = false;
            fault(line, column(name).unwrap_or(0) + 1, list_faults::not_it(name, &text, wanted));
            None
        };
        let is_duration = |text: &str| parse_duration(text).is_some_and(|wait| !wait.is_zero());
        let entry = Entry {
            id: cell("id").unwrap_or_default(),
            name: cell("name"),
            name_en: cell("name_en"),
            profile: cell("profile"),
            place: cell("place"),
            unit: cell("unit"),
            floor: cell("floor"),
            room: cell("room"),
            bus: cell("bus"),
            unit_id: parsed("unit_id", &list_faults::UNIT_ID, &|text| text.parse::<u8>().is_ok())
                .and_then(|text| text.parse().ok()),
            interval: parsed("interval", &list_faults::DURATION, &is_duration).as_deref().and_then(parse_duration),
            silent_after: parsed("silent_after", &list_faults::DURATION, &is_duration)
                .as_deref()
                .and_then(parse_duration),
            at: At { source: Arc::clone(&name), spots: columns.map(|column| (line, column)) },
        };
        for (name, absent) in [("id", entry.id.is_empty()), ("profile", entry.profile.is_none())] {
            if absent {
                sound = false;
                fault(line, column(name).unwrap_or(0) + 1, list_faults::missing(name));
            }
        }
        if sound {
            entries.push(entry);
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spreadsheet_gives_devices_and_names_every_faulty_cell() {
        let text = "\u{feff}id,name,profile,place,unit,bus,unit_id,interval\n\
            a1,一号柜,sdm630,b1,1,bus-a,7,2s\n\
            a2,,sdm630,b1,,bus-a,700,2s\n\
            ,x,sdm630,b1,,bus-a,8,2\n\
            a4,short\n\
            a5,\"含,逗号\",sdm630,,,,,\n";
        let faults = Faults::default();
        let entries = read_csv("devices.csv", text, &faults);
        assert_eq!(entries.iter().map(|e| e.id.as_str()).collect::<Vec<_>>(), ["a1", "a5"]);
        assert_eq!(entries[0].interval, Some(Duration::from_secs(2)));
        assert_eq!(entries[1].label(), Some(Name::both("含,逗号")));
        let found: Vec<String> = faults.take().iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "devices.csv:3:7: `unit_id` is \"700\", expected a whole number from 0 to 255",
                "devices.csv:4:1: `id` is missing",
                "devices.csv:4:8: `interval` is \"2\", expected a duration such as \"2s\"",
                "devices.csv:5:1: 2 cells, the first line has 8",
            ]
        );
    }

    #[test]
    fn a_device_is_called_by_its_own_name_in_each_language_and_by_the_only_one_in_both() {
        let text = "id,name,name_en,profile\na,厨房,kitchen,p\nb,厨房,,p\nc,,kitchen,p\nd,,,p\n";
        let faults = Faults::default();
        let names: Vec<_> = read_csv("d.csv", text, &faults).into_iter().map(|entry| entry.label()).collect();
        let (zh, en) = (|| Arc::from("厨房"), || Arc::from("kitchen"));
        let wanted = [(zh(), en()), (zh(), zh()), (en(), en())].map(|(zh, en)| Some(Name { zh, en }));
        assert_eq!(names[..3], wanted);
        assert_eq!((&names[3], faults.take().len()), (&None, 0));
    }

    #[test]
    fn rows_are_numbered_as_the_spreadsheet_numbers_them_whatever_ends_its_lines() {
        for end in ["\n", "\r\n"] {
            let text = ["id,profile,unit_id", "a1,sdm630,7", "", "a2,sdm630,700", "a3,sdm630"].join(end);
            let faults = Faults::default();
            read_csv("devices.csv", &text, &faults);
            let found: Vec<String> = faults.take().iter().map(ToString::to_string).collect();
            let wanted = [
                "devices.csv:4:3: `unit_id` is \"700\", expected a whole number from 0 to 255",
                "devices.csv:5:1: 2 cells, the first line has 3",
            ];
            assert_eq!(found, wanted, "{end:?}");
        }
    }

    #[test]
    fn an_unknown_column_names_the_nearest() {
        let faults = Faults::default();
        read_csv("d.csv", "id,profile,palce\n", &faults);
        let found: Vec<String> = faults.take().iter().map(ToString::to_string).collect();
        assert_eq!(found, ["d.csv:1:3: column \"palce\" is not known\n  hint: did you mean `place`?"]);
    }
}
