//! `adopted.csv` beside the databases: devices that people have taken in at the duty desk, out of the quarantine or from a spreadsheet.
//!
//! A device list like those of the site's own files, of all columns, and read after them: a device that stands there, too, is what
//! they say. anmin writes the file whole and never the site's own files, which it need not be able to. A site whose last device was
//! taken out of it again has a file with its columns alone.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use anmin_sensors::document::{Fault, parse_duration};

use super::devices::Entry;
use super::list_faults;
use super::sheet::{About, Row, Sheet};
use super::tuned;

pub const FILE: &str = "adopted.csv";

/// The text that is kept; empty while nobody has taken in a device.
pub fn read(storage: &Path) -> io::Result<String> {
    tuned::read_own(storage, FILE)
}

/// Puts another text in its place, whole or not at all.
pub fn write(storage: &Path, text: &str) -> io::Result<()> {
    tuned::write_own(storage, FILE, text)
}

/// What shall become of the list.
#[derive(Clone, Debug)]
pub enum Change {
    /// One device more, by the columns of a list.
    Adopt(BTreeMap<&'static str, String>),
    /// The rows of a sheet; with `whole` they are the whole list.
    Import {
        sheet: Sheet,
        whole: bool,
    },
    Remove(String),
}

/// The list, with what stands in the site's own files.
#[derive(Clone, Debug, Default)]
pub struct List {
    pub sheet: Sheet,
    /// Where the entries of the site's own files stand, and what they say.
    by_hand: BTreeMap<String, (String, Vec<String>)>,
}

/// The list as it would be.
#[derive(Clone, Debug, Default)]
pub struct Changed {
    pub sheet: Sheet,
    /// Rows of the sheet that say what holds already.
    pub unchanged: usize,
}

fn columns() -> impl Iterator<Item = &'static str> {
    About::Devices.keys()
}

/// Every device of these entries, in the columns of a list.
pub fn sheet_of<'e>(entries: impl IntoIterator<Item = &'e Entry>) -> Sheet {
    let row = |entry: &Entry| Row { cells: cells(entry), line: 0 };
    Sheet { columns: columns().map(str::to_owned).collect(), rows: entries.into_iter().map(row).collect() }
}

fn cells(entry: &Entry) -> Vec<String> {
    let cell = |key: &str| {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let wait = |wait: Option<Duration>| wait.map(written).unwrap_or_default();
        match key {
            "id" => entry.id.clone(),
            "name" => text(&entry.name),
            "name_en" => text(&entry.name_en),
            "profile" => text(&entry.profile),
            "place" => text(&entry.place),
            "unit" => text(&entry.unit),
            "floor" => text(&entry.floor),
            "room" => text(&entry.room),
            "bus" => text(&entry.bus),
            "unit_id" => entry.unit_id.map(|unit| unit.to_string()).unwrap_or_default(),
            "interval" => wait(entry.interval),
            _ => wait(entry.silent_after),
        }
    };
    columns().map(cell).collect()
}

/// As a list says it: whole seconds, or milliseconds.
fn written(wait: Duration) -> String {
    match wait.subsec_millis() {
        0 => format!("{}s", wait.as_secs()),
        _ => format!("{}ms", wait.as_millis()),
    }
}

/// `60s` and `1m` say the same.
fn normal(key: &str, cell: &str) -> String {
    let wait = ["interval", "silent_after"].contains(&key).then(|| parse_duration(cell)).flatten();
    wait.map_or_else(|| cell.to_owned(), written)
}

impl List {
    /// `text` is what is kept, `by_hand` what stands in the site's own files.
    pub fn new(text: &str, by_hand: &[Entry]) -> Result<Self, Vec<Fault>> {
        let sheet = match text {
            "" => sheet_of([]),
            text => Sheet::parse_as(Some(About::Devices), FILE, text)?.1,
        };
        let entry = |entry: &Entry| (entry.id.clone(), (entry.place(), cells(entry)));
        Ok(Self { sheet, by_hand: by_hand.iter().map(entry).collect() })
    }

    pub fn has(&self, id: &str) -> bool {
        self.sheet.rows.iter().any(|row| self.sheet.id(row) == id)
    }

    /// Where a device stands in the site's own files.
    pub fn by_hand(&self, id: &str) -> Option<&str> {
        self.by_hand.get(id).map(|(place, _)| place.as_str())
    }

    /// Every device of the site, those of its own files first.
    pub fn whole(&self) -> Sheet {
        let of_files = self.by_hand.values().map(|(_, cells)| Row { cells: cells.clone(), line: 0 });
        let here = self.sheet.rows.iter().filter(|row| !self.by_hand.contains_key(self.sheet.id(row)));
        let here =
            here.map(|row| Row { cells: columns().map(|key| self.sheet.cell(row, key).to_owned()).collect(), line: 0 });
        Sheet { columns: columns().map(str::to_owned).collect(), rows: of_files.chain(here).collect() }
    }

    /// The list with a change in it, or what is wrong with that. Whether profiles, places and buses exist only the whole site can
    /// tell. `name` is what faults call the sheet.
    pub fn changed(&self, name: &str, change: &Change) -> Result<Changed, Vec<Fault>> {
        let (new, whole) = match change {
            Change::Remove(id) => {
                let rows = self.sheet.rows.iter().filter(|row| self.sheet.id(row) != id).cloned().collect();
                return Ok(Changed { sheet: Sheet { rows, ..self.sheet.clone() }, unchanged: 0 });
            }
            Change::Adopt(device) => {
                if let Some(id) = device.get("id").filter(|id| self.has(id)) {
                    return Err(vec![list_faults::in_the_list_already(id).at(name, 0, 0)]);
                }
                let cells = columns().map(|key| device.get(key).cloned().unwrap_or_default()).collect();
                let row = Row { cells, line: 1 };
                (&Sheet { columns: columns().map(str::to_owned).collect(), rows: vec![row] }, false)
            }
            Change::Import { sheet, whole } => (sheet, *whole),
        };
        let (mut faults, mut rows, mut unchanged) = (Vec::new(), Vec::new(), 0);
        for row in &new.rows {
            let id = new.id(row);
            let Some((place, known)) = self.by_hand.get(id) else {
                rows.push(row.clone());
                continue;
            };
            let other = columns().zip(known).find_map(|(key, known)| {
                let column = new.columns.iter().position(|column| column == key)?;
                (normal(key, &row.cells[column]) != *known).then_some((key, column, known))
            });
            match other {
                None => unchanged += 1,
                Some((key, column, known)) => {
                    faults.push(list_faults::kept_by_hand(id, place, key, known).at(name, row.line, column + 1));
                }
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let sheet = self.sheet.joined(&Sheet { columns: new.columns.clone(), rows }, whole);
        let olds = self.sheet.by_id();
        let same = |row: &&Row| {
            let old = olds.get(sheet.id(row));
            old.is_some_and(|old| sheet.columns.iter().all(|key| self.sheet.cell(old, key) == sheet.cell(row, key)))
        };
        let unchanged = unchanged + sheet.rows.iter().filter(|row| row.line > 0).filter(same).count();
        Ok(Changed { sheet, unchanged })
    }
}

#[cfg(test)]
mod tests {
    use anmin_sensors::document::Faults;

    use super::super::devices::read_csv;
    use super::*;

    fn list(text: &str) -> List {
        let faults = Faults::default();
        let by_hand = "id,name,profile,silent_after\nh1,厨房,gas,60s\n";
        let entries = read_csv("devices.csv", by_hand, &faults);
        List::new(text, &entries).expect("it is sound")
    }

    fn import(text: &str, whole: bool) -> Change {
        Change::Import { sheet: Sheet::parse("s.csv", text).expect("a list").1, whole }
    }

    #[test]
    fn a_sheet_changes_what_was_taken_in_here_and_never_what_is_kept_by_hand() {
        let kept = "id,profile,room\na1,gas,501\na2,gas,502\n";
        let list = list(kept);
        // What the site's files say, in other words, is no change of them.
        let sheet = "id,name,profile,silent_after,room\nh1,厨房,gas,1m,\na1,,gas,,501\na3,,gas,,503\n";
        let changed = list.changed("s.csv", &import(sheet, false)).expect("it is sound");
        assert_eq!(changed.sheet.changes(&list.sheet), ["+ a3"]);
        assert_eq!(changed.unchanged, 2);
        // The whole list is that of the desk: what is kept by hand stays.
        let changed = list.changed("s.csv", &import(sheet, true)).expect("it is sound");
        assert_eq!(changed.sheet.changes(&list.sheet), ["+ a3", "- a2"]);
        let faults = list.changed("s.csv", &import("profile,id\ngas,a1\nsmoke,h1\n", false)).expect_err("by hand");
        assert_eq!(
            faults.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "s.csv:3:1: device \"h1\" stands in devices.csv:2, where `profile` is \"gas\"\n  hint: the site's own files \
              are changed by hand; leave the row as it is, or out"
            ]
        );
        let gone = list.changed("", &Change::Remove("a1".to_owned())).expect("it is there");
        assert_eq!(gone.sheet.changes(&list.sheet), ["- a1"]);
    }

    #[test]
    fn the_sites_own_sheet_is_no_change_of_it_whichever_name_a_device_has() {
        for names in ["厨房,kitchen", "厨房,", ",kitchen", "kitchen,kitchen"] {
            let sheet = format!("id,name,name_en,profile\nh1,{names},gas\n");
            let list = List::new("", &read_csv("devices.csv", &sheet, &Faults::default())).expect("it is sound");
            let changed = list.changed("s.csv", &import(&sheet, false));
            assert_eq!(changed.map(|changed| changed.unchanged), Ok(1), "{names}");
        }
    }

    #[test]
    fn the_whole_list_goes_out_and_comes_back_without_a_change() {
        let list = list("id,name,profile,silent_after\na1,\"=1+1\",gas,90s\n");
        let whole = list.whole();
        let (text, _) = whole.guarded().text();
        assert!(text.contains("'=1+1"), "{text}");
        let back = Sheet::parse("s.csv", &text).expect("it was just written").1.unguarded();
        let changed = list.changed("s.csv", &Change::Import { sheet: back, whole: true }).expect("it is sound");
        assert_eq!((changed.sheet.changes(&list.sheet), changed.unchanged), (Vec::new(), 2));
    }
}
