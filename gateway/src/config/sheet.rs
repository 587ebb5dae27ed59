//! Spreadsheets of devices, places and points as text: reading what WPS and Excel write, joining two, writing one back.
//!
//! Promises that a sheet that is written and read again is the same sheet, in UTF-8 and in GBK, whatever its cells hold; and
//! that a fault names the row and column of the file that a person has before them. What the cells mean is
//! [`super::devices`]'s and [`super::site`]'s.

use std::collections::{HashMap, HashSet};

use anmin_sensors::document::{Fault, nearest};

use super::list_faults::{self, Words};
use crate::spreadsheet::Lines;

/// What a list is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    Devices,
    Places,
    /// The points of one device model, by their Modbus registers.
    Points,
}

impl About {
    /// The keys of a list, each with the Chinese names that head its column.
    pub const fn columns(self) -> &'static [(&'static str, &'static [&'static str])] {
        match self {
            Self::Devices => &[
                ("id", &["编号", "设备编号"]),
                ("name", &["名称", "设备名称"]),
                ("name_en", &["英文名称"]),
                ("profile", &["型号文件", "型号"]),
                ("place", &["位置", "地点"]),
                ("unit", &["单元"]),
                ("floor", &["楼层"]),
                ("room", &["房间", "房号"]),
                ("bus", &["总线"]),
                ("unit_id", &["从站地址", "站号"]),
                ("interval", &["采集间隔"]),
                ("silent_after", &["静默时限"]),
            ],
            Self::Places => &[
                ("id", &["编号", "地点编号"]),
                ("grid", &["网格"]),
                ("building", &["楼栋", "楼号"]),
                ("unit", &["单元"]),
                ("floor", &["楼层"]),
                ("room", &["房间", "房号"]),
                ("latitude", &["纬度"]),
                ("longitude", &["经度"]),
                ("polygon", &["范围", "边界"]),
                ("stations", &["微型消防站", "消防站"]),
            ],
            Self::Points => &[
                ("id", &["编号", "测点"]),
                ("kind", &["类别", "测点类别"]),
                ("register", &["寄存器", "寄存器类型"]),
                ("address", &["地址", "寄存器地址"]),
                ("type", &["数据类型"]),
                ("length", &["长度"]),
                ("bit", &["位"]),
                ("byte_order", &["字节序"]),
                ("scale", &["倍率", "系数"]),
                ("offset", &["偏移"]),
                ("unit", &["单位"]),
                ("lowest", &["下限"]),
                ("highest", &["上限"]),
                ("silent_after", &["静默时限"]),
                ("alarm_point", &["报警点"]),
            ],
        }
    }

    /// Its columns as files name them.
    pub fn keys(self) -> impl Iterator<Item = &'static str> {
        self.columns().iter().map(|(key, _)| *key)
    }

    /// Its columns as somebody calls them who writes such words: in Chinese, or as files name them.
    fn called_like(self, word: &str) -> impl Iterator<Item = &'static str> {
        let in_chinese = !word.is_ascii();
        let name = move |(key, words): &(&'static str, &[&'static str])| match words.first() {
            Some(first) if in_chinese => *first,
            _ => *key,
        };
        self.columns().iter().map(name)
    }

    /// The table of the configuration that names such lists.
    pub const fn table(self) -> &'static str {
        match self {
            Self::Devices => "device_list",
            Self::Places => "place_list",
            // Points are in force by where they lie.
            Self::Points => "",
        }
    }

    /// Without these a list is none.
    pub const fn required(self) -> &'static [&'static str] {
        match self {
            Self::Devices => &["id", "profile"],
            Self::Places => &["id"],
            Self::Points => &["id", "kind", "register", "address"],
        }
    }

    /// The list of a site that has none yet.
    pub const fn usual_file(self) -> &'static str {
        match self {
            Self::Devices => "devices.csv",
            Self::Places => "places.csv",
            Self::Points => "points.csv",
        }
    }
}

/// A list: rows of cells below the names of its columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sheet {
    pub columns: Vec<String>,
    pub rows: Vec<Row>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// As many as the sheet has columns.
    pub cells: Vec<String>,
    /// Its line in the file.
    pub line: usize,
}

impl Sheet {
    /// Reads a list of whatever kind its columns say. `name` is what faults call the file.
    pub fn parse(name: &str, text: &str) -> Result<(About, Self), Vec<Fault>> {
        Self::parse_as(None, name, text)
    }

    /// The same where one kind is looked for: another it is only by a column that no other kind has.
    pub fn parse_as(wanted: Option<About>, name: &str, text: &str) -> Result<(About, Self), Vec<Fault>> {
        // One kind of line break, also inside cells, so that what is written reads back.
        let text = &text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n").replace('\r', "\n");
        let mut lines = Lines::of(text);
        let fault = |line: usize, column: usize, words: Words| words.at(name, line, column);
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .trim(csv::Trim::All)
            .flexible(true)
            .from_reader(text.as_bytes());
        let mut records = reader.records();
        let header = match records.next() {
            Some(Ok(header)) => header,
            Some(Err(error)) => return Err(vec![fault(1, 1, list_faults::not_csv(&error))]),
            None => return Err(vec![fault(1, 1, list_faults::empty())]),
        };
        let top = lines.of_record(header.position());
        if let (1, Some(other)) = (header.len(), header.get(0).and_then(|only| only.find([';', '\t']))) {
            return Err(vec![fault(top, 1, list_faults::separators(&header[0][other..=other]))]);
        }
        // Spreadsheets leave empty columns at the end.
        let mut width = header.len();
        while width > 0 && header.get(width - 1).is_some_and(str::is_empty) {
            width -= 1;
        }
        let known = |about: About, word: &str| {
            let is = |(key, words): &&(&'static str, &[&str])| key.eq_ignore_ascii_case(word) || words.contains(&word);
            about.columns().iter().find(is).map(|(key, _)| *key)
        };
        // Its own column decides, then what is looked for, then how many of the columns it has, be they misspelt. A place comes first
        // where all is equal: what it has a device has, too.
        let about = [(About::Points, Some("kind")), (About::Devices, Some("profile")), (About::Places, None)]
            .into_iter()
            .max_by_key(|(about, own)| {
                let has = |key: &str| header.iter().any(|word| known(*about, word) == Some(key));
                let nearly =
                    |word: &&str| known(*about, word).or_else(|| nearest(word, about.called_like(word))).is_some();
                (own.is_some_and(has), wanted == Some(*about), header.iter().filter(nearly).count())
            })
            .map_or(About::Places, |(about, _)| about);
        let (mut faults, mut columns) = (Vec::new(), Vec::new());
        for (n, word) in header.iter().take(width).enumerate() {
            match known(about, word) {
                None => {
                    faults.push(fault(top, n + 1, list_faults::unknown_column(word, about.called_like(word))));
                }
                Some(key) if columns.iter().any(|other| other == key) => {
                    faults.push(fault(top, n + 1, list_faults::column_twice(word)));
                }
                Some(_) => {}
            }
            columns.push(known(about, word).unwrap_or(word).to_owned());
        }
        if !columns.iter().any(|column| column == "id") {
            faults.push(fault(top, 1, list_faults::no_column("id")));
        }
        let mut rows: Vec<Row> = Vec::new();
        for record in records {
            let record = match record {
                Ok(record) => record,
                Err(error) => {
                    let line = lines.of_record(error.position());
                    faults.push(fault(line, 1, list_faults::not_csv(&error)));
                    continue;
                }
            };
            let line = lines.of_record(record.position());
            let mut cells: Vec<String> = record.iter().map(str::to_owned).collect();
            // Rows that somebody emptied, and cells behind the last column.
            if cells.iter().all(String::is_empty) {
                continue;
            }
            while cells.len() > width && cells.last().is_some_and(String::is_empty) {
                cells.pop();
            }
            if cells.len() > width {
                faults.push(fault(line, width + 1, list_faults::cells(cells.len(), width)));
            }
            cells.resize(width, String::new());
            rows.push(Row { cells, line });
        }
        let sheet = Self { columns, rows };
        let column = sheet.column("id").unwrap_or(0) + 1;
        let mut first: HashMap<&str, usize> = HashMap::new();
        for row in &sheet.rows {
            match sheet.id(row) {
                "" => faults.push(fault(row.line, column, list_faults::missing("id"))),
                id => {
                    let line = *first.entry(id).or_insert(row.line);
                    if line != row.line {
                        faults.push(fault(row.line, column, list_faults::id_twice(id, line)));
                    }
                }
            }
        }
        if faults.is_empty() { Ok((about, sheet)) } else { Err(faults) }
    }

    fn column(&self, key: &str) -> Option<usize> {
        self.columns.iter().position(|column| column == key)
    }

    pub fn id<'r>(&self, row: &'r Row) -> &'r str {
        self.cell(row, "id")
    }

    /// Rows by their ids.
    pub fn by_id(&self) -> HashMap<&str, &Row> {
        self.rows.iter().map(|row| (self.id(row), row)).collect()
    }

    /// Empty where the sheet has no such column.
    pub fn cell<'r>(&self, row: &'r Row, key: &str) -> &'r str {
        self.column(key).and_then(|n| row.cells.get(n)).map_or("", String::as_str)
    }

    /// As a spreadsheet may be given it: what it would take for a formula has an apostrophe in front.
    #[must_use]
    pub fn guarded(&self) -> Self {
        self.with_cells(|cell| match cell.starts_with(FORMULA) && cell.parse::<f64>().is_err() {
            true => format!("'{cell}"),
            false => cell.to_owned(),
        })
    }

    /// What was [guarded](Self::guarded) as it is.
    #[must_use]
    pub fn unguarded(&self) -> Self {
        let guarded = |cell: &str| cell.strip_prefix('\'').filter(|rest| rest.starts_with(FORMULA)).map(str::to_owned);
        self.with_cells(|cell| guarded(cell).unwrap_or_else(|| cell.to_owned()))
    }

    fn with_cells(&self, change: impl Fn(&str) -> String) -> Self {
        let cells = |row: &Row| row.cells.iter().map(|cell| change(cell)).collect();
        let rows = self.rows.iter().map(|row| Row { cells: cells(row), line: row.line }).collect();
        Self { columns: self.columns.clone(), rows }
    }

    /// A list of points as the device profile that it is, each row at the line where it stands in the list, so that a fault of the
    /// one is at the line of the other. `id` is the profile's.
    pub fn as_profile(&self, id: &str) -> String {
        let mut text = String::from("point = [");
        let mut line = 1;
        for row in &self.rows {
            while line < row.line {
                text.push('\n');
                line += 1;
            }
            let mut keys = vec![format!("name = {}", toml_text(self.id(row)))];
            for (key, _) in &About::Points.columns()[1..] {
                let cell = self.cell(row, key);
                keys.extend(match (*key, cell) {
                    (_, "") | ("lowest" | "highest", _) => None,
                    ("register", word) => Some(format!("register = {}", toml_text(register(word)))),
                    ("alarm_point", "是" | "yes" | "1") => Some("alarm_point = true".to_owned()),
                    ("alarm_point", "否" | "no" | "0") => Some("alarm_point = false".to_owned()),
                    ("alarm_point", "true" | "false") | ("address" | "length" | "bit" | "scale" | "offset", _)
                        if is_toml(cell) =>
                    {
                        Some(format!("{key} = {cell}"))
                    }
                    (key, text) => Some(format!("{key} = {}", toml_text(text))),
                });
            }
            let (lowest, highest) = (self.cell(row, "lowest"), self.cell(row, "highest"));
            if !lowest.is_empty() || !highest.is_empty() {
                let end = |cell: &str| if is_toml(cell) { cell.to_owned() } else { toml_text(cell) };
                keys.push(format!("range = [{}, {}]", end(lowest), end(highest)));
            }
            text.push_str(&format!("{{ {} }},", keys.join(", ")));
        }
        let title = toml_text(id);
        text.push_str(&format!("]\nid = {title}\ntitle = {{ zh = {title}, en = {title} }}\n[modbus]\n"));
        text
    }

    /// Whether it is a list of points.
    pub fn is_of_points(&self) -> bool {
        self.column("kind").is_some()
    }

    /// The column of a list of points that a fault of its profile is about, from 1, by the key that it names.
    pub fn column_of_fault(&self, message: &str) -> usize {
        let key = message.split('`').nth(1).unwrap_or_default();
        let key = match key {
            "name" => "id",
            "range" => "lowest",
            key => key.rsplit('.').next().unwrap_or(key),
        };
        self.column(key).map_or(1, |n| n + 1)
    }

    /// CSV, and the line at which each row begins.
    pub fn text(&self) -> (String, Vec<usize>) {
        let (mut out, mut line, mut lines) = (String::new(), 1, Vec::new());
        for cells in std::iter::once(&self.columns).chain(self.rows.iter().map(|row| &row.cells)) {
            lines.push(line);
            let cells: Vec<String> = cells.iter().map(|cell| quoted(cell)).collect();
            let cells = cells.join(",");
            line += cells.matches('\n').count() + 1;
            out.push_str(&cells);
            out.push_str("\r\n");
        }
        lines.remove(0);
        (out, lines)
    }

    /// This list with the rows of another: those with an id that is there take its place, others stand behind them. With
    /// `whole` the other is the whole list. Columns that only one has are kept; a column that the other does not have says
    /// nothing of its rows. Row numbers are those of the other, 0 for what only this has.
    pub fn joined(&self, other: &Self, whole: bool) -> Self {
        let mut columns = self.columns.clone();
        columns.extend(other.columns.iter().filter(|column| self.column(column).is_none()).cloned());
        let cells = |old: Option<&Row>, new: Option<&Row>| -> Vec<String> {
            let cell = |key: &String| match new.filter(|_| other.column(key).is_some()) {
                Some(new) => other.cell(new, key).to_owned(),
                None => old.map_or("", |old| self.cell(old, key)).to_owned(),
            };
            columns.iter().map(cell).collect()
        };
        let (olds, news) = (self.by_id(), other.by_id());
        let mut rows = Vec::new();
        for old in &self.rows {
            let new = news.get(self.id(old)).copied();
            if new.is_some() || !whole {
                rows.push(Row { cells: cells(Some(old), new), line: new.map_or(0, |new| new.line) });
            }
        }
        let is_new = |row: &&Row| !olds.contains_key(other.id(row));
        rows.extend(other.rows.iter().filter(is_new).map(|new| Row { cells: cells(None, Some(new)), line: new.line }));
        Self { columns, rows }
    }

    /// What differs from `before`, one line each: `+ g7`, `- g3`, `~ g5  room: 501 -> 502`.
    pub fn changes(&self, before: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        let olds = before.by_id();
        for row in &self.rows {
            let id = self.id(row);
            let Some(old) = olds.get(id) else {
                lines.push(format!("+ {id}"));
                continue;
            };
            let differ = self.columns.iter().filter(|key| self.cell(row, key) != before.cell(old, key));
            let words: Vec<String> =
                differ.map(|key| format!("{key}: {} -> {}", before.cell(old, key), self.cell(row, key))).collect();
            if !words.is_empty() {
                lines.push(format!("~ {id}  {}", words.join(", ")));
            }
        }
        let ids: HashSet<&str> = self.rows.iter().map(|row| self.id(row)).collect();
        let gone = before.rows.iter().map(|old| before.id(old)).filter(|id| !ids.contains(id));
        lines.extend(gone.map(|id| format!("- {id}")));
        lines
    }
}

/// The table of registers, as manuals call it, by words or function code.
fn register(word: &str) -> &str {
    match word {
        "线圈" | "01" | "1" => "coil",
        "离散输入" | "离散量" | "02" | "2" => "discrete",
        "保持寄存器" | "03" | "3" => "holding",
        "输入寄存器" | "04" | "4" => "input",
        other => other,
    }
}

/// Whether a cell is a number or a truth value as it stands.
fn is_toml(cell: &str) -> bool {
    let is_plain = cell.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+'));
    is_plain && toml::from_str::<toml::Table>(&format!("x = {cell}")).is_ok()
}

fn toml_text(text: &str) -> String {
    toml::Value::from(text.replace(['\n', '\r'], " ")).to_string()
}

/// What a spreadsheet takes for the start of a formula, and the apostrophe that keeps it from doing so.
const FORMULA: [char; 9] = ['=', '+', '-', '@', '\'', '＝', '＋', '－', '＠'];

fn quoted(cell: &str) -> String {
    // Quotes around what a reader would otherwise cut, join or trim.
    if cell.contains([',', '"', '\n', '\r']) || cell.trim() != cell {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::chance::Chance;
    use crate::spreadsheet::{Encoding, decode, encode};

    fn sheet(text: &str) -> Sheet {
        Sheet::parse("d.csv", text).unwrap_or_else(|faults| panic!("{faults:?}")).1
    }

    /// Any cells, also such as nobody should write, come back as they were; blanks at their ends are nobody's intent.
    #[test]
    fn what_is_written_reads_back_in_both_encodings() {
        let alphabet: Vec<char> = "abz09 ,\"'\n;=+-@#%3号楼厨房—".chars().collect();
        let mut chance = Chance(7);
        for round in 0..300 {
            let mut below = |end: usize| chance.up_to(Duration::from_nanos(end as u64 - 1)).as_nanos() as usize;
            let mut cell = || -> String {
                let text: String = (0..below(8)).map(|_| alphabet[below(alphabet.len())]).collect();
                text.trim().to_owned()
            };
            let columns = ["id", "profile", "name", "room"].map(str::to_owned).to_vec();
            let rows = (0..round % 9).map(|n| Row { cells: vec![format!("d{n}"), cell(), cell(), cell()], line: 0 });
            let written = Sheet { columns, rows: rows.collect() };
            let (text, lines) = written.text();
            for encoding in [Encoding::Utf8, Encoding::Gbk] {
                let bytes = encode(&text, encoding).expect("GBK has all of the alphabet");
                let (_, read) = decode(&bytes).expect("it was just written");
                let (about, read) = Sheet::parse("d.csv", &read).unwrap_or_else(|faults| panic!("{faults:?}\n{text}"));
                assert_eq!(about, About::Devices);
                assert_eq!(read.rows.iter().map(|row| row.line).collect::<Vec<_>>(), lines, "{text:?}");
                assert_eq!(read.changes(&written), Vec::<String>::new(), "{text:?}");
                assert_eq!(written.joined(&read, true).text(), written.text());
                let guarded = written.guarded();
                let is_formula = |cell: &String| cell.starts_with(&FORMULA[..4]) && cell.parse::<f64>().is_err();
                assert!(!guarded.rows.iter().flat_map(|row| &row.cells).any(is_formula));
                assert_eq!(guarded.unguarded(), written);
            }
        }
    }

    #[test]
    fn sheets_as_spreadsheets_in_china_write_them_are_understood() {
        let text = "编号,名称,型号,房号,,\r\ng1,厨房,anmin-json-gas,501,,\r\n,,,,,\r\ng2,客厅,anmin-json-gas,502,,\r\n";
        let bytes = encode(text, Encoding::Gbk).expect("GBK has them");
        assert!(std::str::from_utf8(&bytes).is_err());
        let (encoding, text) = decode(&bytes).expect("GBK");
        assert_eq!(encoding, "GBK");
        let sheet = sheet(&text);
        assert_eq!(sheet.columns, ["id", "name", "profile", "room"]);
        assert_eq!(sheet.rows.iter().map(|row| sheet.cell(row, "room")).collect::<Vec<_>>(), ["501", "502"]);
        for (bytes, wanted) in [
            (&b"\xFF\xFEi\0d\0"[..], "UTF-16"),
            (b"PK\x03\x04", "a workbook"),
            (b"id\n\xFF\xFF\xFF\n", "neither UTF-8 nor GBK"),
        ] {
            assert!(decode(bytes).is_err_and(|why| why.en.contains(wanted)), "{wanted}");
        }
        assert!(encode("🚒", Encoding::Gbk).is_err_and(|why| why.contains("GBK has no '🚒'")));
        assert_eq!(encode("id", Encoding::Utf8).expect("UTF-8 has all"), b"\xEF\xBB\xBFid");
    }

    #[test]
    fn every_fault_names_its_row_and_column() {
        for (text, wanted) in [
            ("", "d.csv:1:1: the file is empty"),
            ("id;profile", "d.csv:1:1: cells are separated by \";\", expected commas"),
            ("id,profile,palce", "d.csv:1:3: column \"palce\" is not known"),
            ("id,profile,编号", "d.csv:1:3: column \"编号\" is there twice"),
            ("name,profile", "d.csv:1:1: there is no column `id`"),
            ("id,profile\na,x,y", "d.csv:2:3: 3 cells, the first line has 2"),
            ("profile,id\nx,a\nx,\n", "d.csv:3:2: `id` is missing"),
            ("id,profile\na,\"x\ny\"\nb,x\na,x", "d.csv:5:1: \"a\" is there twice"),
            ("id,profile\r\na,\"x\r\ny\"\r\nb,x\r\na,x\r\n", "d.csv:5:1: \"a\" is there twice"),
            ("\r\nid,profile\r\n\r\n\r\na,x\r\n,x", "d.csv:6:1: `id` is missing"),
            ("id,profile\ra,x\ra,x", "d.csv:3:1: \"a\" is there twice"),
        ] {
            let faults = Sheet::parse("d.csv", text).expect_err(text);
            let said: Vec<String> = faults.iter().map(ToString::to_string).collect();
            assert!(said.iter().any(|fault| fault.starts_with(wanted)), "{text}: {said:?}");
            assert!(faults.iter().all(|fault| fault.zh.is_some()), "the desk says it in Chinese, too: {text}");
        }
    }

    #[test]
    fn a_list_is_of_the_kind_that_its_columns_fit_though_one_is_misspelt() {
        for (text, hint) in [
            ("id,porfile,room", "did you mean `profile`?"),
            ("id,name,profil", "did you mean `profile`?"),
            ("编号,名称,设备型号", "known columns: 编号, 名称, 英文名称, 型号文件"),
            ("编号,名称,型号,房间号", "did you mean `房间`?"),
            ("id,knid,unit", "did you mean `kind`?"),
            ("id,bulding,room", "did you mean `building`?"),
        ] {
            let faults = Sheet::parse("d.csv", text).expect_err(text);
            let [fault] = &faults[..] else { panic!("{text}: {faults:?}") };
            assert!(fault.hint.as_ref().is_some_and(|said| said.starts_with(hint)), "{text}: {fault}");
        }
        for (text, kind) in [
            ("id,name", About::Devices),
            ("id,unit,floor,room", About::Places),
            ("id", About::Places),
            ("id,register,address", About::Points),
        ] {
            assert_eq!(Sheet::parse("d.csv", text).expect(text).0, kind, "{text}");
        }
        let faults = Sheet::parse_as(Some(About::Places), "d.csv", "id,name,unit").expect_err("a place has no name");
        assert!(faults[0].hint.as_ref().is_some_and(|said| said.contains("building")), "{faults:?}");
        let devices = Sheet::parse_as(Some(About::Devices), "d.csv", "id,room").expect("of those that are listed");
        assert_eq!(devices.0, About::Devices);
    }

    #[test]
    fn lists_are_joined_by_id_and_cells_that_were_not_said_stay() {
        let old = sheet("id,profile,room,bus\na,x,501,b1\nb,x,502,b1\n");
        let new = sheet("id,profile,room,name\nb,x,503,厨房\nc,y,504,\n");
        let joined = old.joined(&new, false);
        assert_eq!(joined.text().0, "id,profile,room,bus,name\r\na,x,501,b1,\r\nb,x,503,b1,厨房\r\nc,y,504,,\r\n");
        assert_eq!(joined.changes(&old), ["~ b  room: 502 -> 503, name:  -> 厨房", "+ c"]);
        assert_eq!(joined.rows.iter().map(|row| row.line).collect::<Vec<_>>(), [0, 2, 3]);
        assert_eq!(old.joined(&new, true).changes(&old), ["~ b  room: 502 -> 503, name:  -> 厨房", "+ c", "- a"]);
    }

    /// Goal: what a maker's table of points says is what the profile reads. Method: the table becomes a profile, and a fault in it is
    /// at the row of the table.
    #[test]
    fn a_table_of_points_is_a_profile_row_by_row() {
        use anmin_sensors::decode::modbus::Table;
        use anmin_sensors::document::Faults;
        use anmin_sensors::profile::Profile;

        let text = "测点,类别,寄存器,地址,数据类型,字节序,倍率,单位,下限,上限,报警点\r\n\r\n\
            voltage,power.voltage,保持寄存器,20,float32,CDAB,,V,0,300,\r\n\
            leak,power.residual_current,04,0x15,uint16,,0.1,mA,0,3000,是\r\n\
            trip,device.fault,discrete,3,,,,,,,否\r\n";
        let (about, sheet) = Sheet::parse("p.csv", text).expect("it is sound");
        assert_eq!(about, About::Points);
        let faults = Faults::default();
        let profile = Profile::parse("p.csv", &sheet.as_profile("my-meter"), &faults);
        let profile = profile.unwrap_or_else(|| panic!("{:?}\n{}", faults.take(), sheet.as_profile("my-meter")));
        assert_eq!((&*profile.id, profile.specs().len()), ("my-meter", 3));
        assert!(profile.specs()[1].alarm_point && !profile.specs()[2].alarm_point);
        assert_eq!(profile.specs()[1].range, Some((0.0, 3_000.0)));
        let registers = &profile.modbus.as_ref().expect("it speaks Modbus").registers;
        let at = |n: usize| registers[n].as_ref().map(|register| (register.table, register.address));
        assert_eq!(
            [at(0), at(1), at(2)],
            [Some((Table::Holding, 20)), Some((Table::Input, 0x15)), Some((Table::Discrete, 3))]
        );
        let words = registers[0].as_ref().map(|register| register.decode(&[0x3333, 0x4366]));
        assert!(
            matches!(words, Some(Ok(anmin_sensors::reading::Value::Number(volts))) if (volts - 230.2).abs() < 1e-3)
        );

        for (row, key, line, column) in [
            ("a,power.volt,3,1,,,,,,,", "kind", 2, 2),
            ("a,power.voltage,5,1,,,,,,,", "register", 2, 3),
            ("a,power.voltage,3,many,,,,,,,", "address", 2, 4),
            ("a,power.voltage,3,70000,,,,,,,", "address", 2, 4),
            ("a,power.voltage,3,1,double,,,,,,", "type", 2, 5),
            ("a,power.voltage,3,1,,ABDC,,,,,", "byte_order", 2, 6),
            ("a,power.voltage,3,1,,,\"1,5\",,,,", "scale", 2, 7),
            ("a,power.voltage,3,1,,,,kV,,,", "unit", 2, 8),
            ("a,power.voltage,3,1,,,,,9,1,", "range", 2, 9),
            ("a,power.voltage,3,1,,,,,,,maybe", "alarm_point", 2, 11),
            ("b,power.voltage,3,1,,,,,,,\r\na/b,power.voltage,3,2,,,,,,,", "name", 3, 1),
        ] {
            let header = text.split_once("\r\n").expect("a header").0;
            let (_, sheet) = Sheet::parse("p.csv", &format!("{header}\r\n{row}\r\n")).expect(row);
            let faults = Faults::default();
            Profile::parse("p.csv", &sheet.as_profile("my-meter"), &faults);
            let found = faults.take();
            let first = found.first().unwrap_or_else(|| panic!("{row} is sound"));
            assert!(first.message.contains(key), "{row}: {first}");
            assert_eq!((first.line, sheet.column_of_fault(&first.message)), (line, column), "{row}: {first}");
        }
    }
}
