//! Registers: lists that people keep beside what anmin measures. Stock, shelters, outside teams, heads of buildings, households
//! that need help; and what residents thought of how an incident was dealt with.
//!
//! A register is a table of columns, and this module is all that there is of it: what a column takes, how rows come from a
//! spreadsheet and go into one, and what of the stock is low or past its date. Rows are text in the order of the columns; what a
//! cell takes is what it gives back, to the letter. Files, databases and sockets are not known here.

use std::collections::BTreeMap;

use anmin_rules::rule::Text;
use anmin_sensors::document::did_you_mean;
use anmin_sensors::point::Place;
use anmin_sensors::time::Wall;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::spreadsheet::{Encoding, Lines, decode, encode};

/// Rows of one register at most.
pub const MOST_ROWS: usize = 20_000;
/// Bytes of a spreadsheet at most.
pub const MOST_BYTES: usize = 8 << 20;
/// Faults that are named one by one.
pub const MOST_FAULTS: usize = 200;

/// Which register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Stock,
    Shelters,
    Teams,
    Heads,
    Households,
    /// One mark for each incident that has closed; its rows are given one by one.
    Satisfaction,
    /// Who asks for help or says to be safe, by the residents' page or at the desk.
    Help,
}

/// What a column takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// At most so many signs.
    Text(usize),
    /// A number from 0 on.
    Number,
    /// A whole number from the first to the second.
    Whole(u32, u32),
    /// `2026-11-30`.
    Date,
    /// Digits, blanks and `+-*#()` around them.
    Phone,
    /// One of these words; each with its Chinese, which is taken, too.
    Word(&'static [(&'static str, &'static str)]),
}

/// One column.
#[derive(Debug)]
pub struct Column {
    pub name: &'static str,
    pub zh: &'static str,
    pub form: Form,
    pub required: bool,
    pub shown: Shown,
}

/// Who is shown the cells of a column; each is shown what those before it are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shown {
    Everybody,
    /// Who goes there, too.
    Crews,
    /// Only those who may handle what happens there.
    Officers,
}

const fn column(name: &'static str, zh: &'static str, form: Form) -> Column {
    Column { name, zh, form, required: false, shown: Shown::Everybody }
}

const fn needed(name: &'static str, zh: &'static str, form: Form) -> Column {
    Column { required: true, ..column(name, zh, form) }
}

const fn masked(name: &'static str, zh: &'static str, form: Form) -> Column {
    Column { shown: Shown::Officers, ..column(name, zh, form) }
}

const ID: Column = needed("id", "编号", Form::Text(64));
const NAME: Column = needed("name", "名称", Form::Text(64));
const BUILDING: Column = column("building", "楼栋", Form::Text(32));
const GRID: Column = column("grid", "网格", Form::Text(32));
const PHONE: Column = column("phone", "电话", Form::Phone);
const NOTE: Column = column("note", "备注", Form::Text(200));

static STOCK: [Column; 12] = [
    ID,
    NAME,
    needed("quantity", "数量", Form::Number),
    column("unit", "单位", Form::Text(16)),
    column("minimum", "最低数量", Form::Number),
    column("expires", "有效期", Form::Date),
    BUILDING,
    GRID,
    column("where", "存放位置", Form::Text(64)),
    column("keeper", "保管人", Form::Text(32)),
    PHONE,
    NOTE,
];

static SHELTERS: [Column; 10] = [
    ID,
    NAME,
    needed("capacity", "容纳人数", Form::Whole(0, 1_000_000)),
    needed("state", "状态", Form::Word(&[("open", "开放"), ("full", "已满"), ("closed", "关闭")])),
    column("people", "现有人数", Form::Whole(0, 1_000_000)),
    BUILDING,
    GRID,
    column("address", "地址", Form::Text(100)),
    PHONE,
    NOTE,
];

static TEAMS: [Column; 7] = [
    ID,
    NAME,
    needed(
        "serves",
        "类别",
        Form::Word(&[
            ("fire", "消防"),
            ("medical", "医疗"),
            ("police", "公安"),
            ("gas", "燃气"),
            ("power", "供电"),
            ("water", "供水"),
            ("lift", "电梯"),
            ("flood", "防汛"),
            ("property", "物业"),
            ("volunteers", "志愿者"),
            ("other", "其他"),
        ]),
    ),
    column("contact", "联系人", Form::Text(32)),
    needed("phone", "电话", Form::Phone),
    column("arrives_in", "到达分钟", Form::Whole(0, 1_440)),
    NOTE,
];

static HEADS: [Column; 7] = [
    ID,
    needed("name", "姓名", Form::Text(32)),
    needed("role", "职务", Form::Word(&[("head", "楼栋长"), ("grid", "网格员")])),
    BUILDING,
    GRID,
    needed("phone", "电话", Form::Phone),
    NOTE,
];

/// No names, no illness: what the crew must know at the door, and whom to phone.
static HOUSEHOLDS: [Column; 8] = [
    Column { shown: Shown::Officers, ..ID },
    needed("building", "楼栋", Form::Text(32)),
    GRID,
    masked("unit", "单元", Form::Text(32)),
    masked("room", "房号", Form::Text(32)),
    Column {
        required: true,
        ..masked(
            "need",
            "需要",
            Form::Word(&[
                ("walk", "行动不便"),
                ("see", "视力障碍"),
                ("hear", "听力障碍"),
                ("alone", "独居老人"),
                ("oxygen", "用氧"),
                ("children", "儿童独处"),
                ("other", "其他"),
            ]),
        )
    },
    masked("phone", "联系电话", Form::Phone),
    masked("helper", "帮扶人", Form::Text(64)),
];

/// The id is the incident's.
static SATISFACTION: [Column; 5] = [
    ID,
    needed("mark", "评分", Form::Whole(1, 5)),
    needed("at", "日期", Form::Date),
    column("by", "登记人", Form::Text(64)),
    NOTE,
];

/// What somebody needs who asks for help, the gravest first; `safe` needs nothing.
pub const NEEDS: &[(&str, &str)] = &[
    ("trapped", "被困"),
    ("hurt", "受伤或急病"),
    ("move", "行动不便，需要转移"),
    ("other", "其他帮助"),
    ("safe", "报平安"),
];

/// One of [`NEEDS`] for people; the word itself where it is none.
pub fn need_text(word: &str) -> Text {
    let en = match word {
        "hurt" => "hurt or taken ill",
        "move" => "cannot leave without help",
        "other" => "asks for help",
        "safe" => "is safe",
        word => word,
    };
    let zh = NEEDS.iter().find(|(known, _)| *known == word).map_or(word, |(_, zh)| zh);
    Text { zh: zh.to_owned(), en: en.to_owned() }
}

/// How far it has come. What is `new` nobody has taken on.
pub const HELP_STATES: &[(&str, &str)] = &[("new", "待受理"), ("taken", "处理中"), ("done", "已解决")];

/// The building is one of the site's own or empty: it stands in alarms. Where exactly and what is needed is for those who go
/// there, what was written and the telephone for the desk.
static HELP: [Column; 11] = [
    ID,
    needed("state", "状态", Form::Word(HELP_STATES)),
    Column { shown: Shown::Crews, ..needed("need", "需要", Form::Word(NEEDS)) },
    BUILDING,
    GRID,
    Column { shown: Shown::Crews, ..column("room", "具体位置", Form::Text(64)) },
    masked("said", "说明", Form::Text(200)),
    masked("phone", "联系电话", Form::Phone),
    column("at", "收到时间", Form::Text(19)),
    column("by", "受理人", Form::Text(64)),
    masked("note", "处理情况", Form::Text(200)),
];

impl Kind {
    pub const ALL: [Self; 7] =
        [Self::Stock, Self::Shelters, Self::Teams, Self::Heads, Self::Households, Self::Satisfaction, Self::Help];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stock => "stock",
            Self::Shelters => "shelters",
            Self::Teams => "teams",
            Self::Heads => "heads",
            Self::Households => "households",
            Self::Satisfaction => "satisfaction",
            Self::Help => "help",
        }
    }

    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    pub const fn text(self) -> (&'static str, &'static str) {
        match self {
            Self::Stock => ("应急物资", "Stock"),
            Self::Shelters => ("避难场所", "Shelters"),
            Self::Teams => ("外部力量", "Outside teams"),
            Self::Heads => ("楼栋长与网格员", "Heads of buildings and grid staff"),
            Self::Households => ("重点关照住户", "Households that need help"),
            Self::Satisfaction => ("居民满意度", "Residents' marks"),
            Self::Help => ("居民求助与报平安", "Residents who ask for help or are safe"),
        }
    }

    pub fn columns(self) -> &'static [Column] {
        match self {
            Self::Stock => &STOCK,
            Self::Shelters => &SHELTERS,
            Self::Teams => &TEAMS,
            Self::Heads => &HEADS,
            Self::Households => &HOUSEHOLDS,
            Self::Satisfaction => &SATISFACTION,
            Self::Help => &HELP,
        }
    }

    fn position(self, name: &str) -> Option<usize> {
        self.columns().iter().position(|column| column.name == name)
    }
}

/// One row: a cell for each column, empty where nobody said. The first is its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub kind: Kind,
    pub cells: Vec<String>,
}

impl Row {
    pub fn id(&self) -> &str {
        &self.cells[0]
    }

    /// Empty where the register has no such column.
    pub fn cell(&self, name: &str) -> &str {
        self.kind.position(name).map_or("", |n| &self.cells[n])
    }

    /// Where it lies, as far as it says.
    pub fn place(&self) -> Place {
        let cell = |name| self.cell(name).to_owned();
        Place {
            building: cell("building"),
            grid: cell("grid"),
            unit: cell("unit"),
            room: cell("room"),
            ..Place::default()
        }
    }

    /// With another cell; one that its register does not have is left out.
    #[must_use]
    pub fn with(mut self, name: &str, cell: &str) -> Self {
        if let Some(n) = self.kind.position(name) {
            cell.clone_into(&mut self.cells[n]);
        }
        self
    }

    /// For those who are shown no more than this.
    pub fn masked(mut self, for_whom: Shown) -> Self {
        for (cell, column) in self.cells.iter_mut().zip(self.kind.columns()) {
            if column.shown > for_whom && !cell.is_empty() {
                "***".clone_into(cell);
            }
        }
        self
    }

    /// A row from cells by name, each as a person or a spreadsheet has it.
    pub fn read(kind: Kind, cells: &BTreeMap<String, String>) -> Result<Self, Vec<CellFault>> {
        let mut faults: Vec<CellFault> = Vec::new();
        for name in cells.keys().filter(|name| kind.position(name).is_none()) {
            let known = kind.columns().iter().map(|column| column.name);
            faults.push(CellFault::new(name, "没有这一列", "there is no such column").hint(did_you_mean(name, known)));
        }
        let mut read = Vec::new();
        for column in kind.columns() {
            match column.take(cells.get(column.name).map_or("", String::as_str)) {
                Ok(cell) => read.push(cell),
                Err(text) => faults.push(CellFault { column: column.name.to_owned(), text, hint: None }),
            }
        }
        if faults.is_empty() { Ok(Self { kind, cells: read }) } else { Err(faults) }
    }
}

/// What is wrong with one cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CellFault {
    pub column: String,
    pub text: Text,
    pub hint: Option<String>,
}

impl CellFault {
    fn new(column: &str, zh: impl Into<String>, en: impl Into<String>) -> Self {
        Self { column: column.to_owned(), text: Text { zh: zh.into(), en: en.into() }, hint: None }
    }

    fn hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }
}

/// What is wrong with a spreadsheet: its row as the spreadsheet numbers it, the first line being 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub row: usize,
    /// Empty: the whole row.
    pub column: String,
    pub text: Text,
    pub hint: Option<String>,
}

impl Column {
    /// The cell as it is kept, or what is wrong with it.
    fn take(&self, cell: &str) -> Result<String, Text> {
        let cell = cell.trim();
        let wrong = |zh: String, en: String| Err(Text { zh, en });
        if cell.is_empty() {
            return match self.required {
                true => wrong("必填".to_owned(), "it is missing".to_owned()),
                false => Ok(String::new()),
            };
        }
        if cell.chars().any(char::is_control) {
            return wrong("含有换行或控制字符".to_owned(), "it holds a line break or a control character".to_owned());
        }
        let mut signs = cell.chars();
        let (first, second) = (signs.next(), signs.next());
        // A telephone may begin with + and a digit; text that did would be computed.
        let plain = !matches!(self.form, Form::Text(_));
        let signed = plain && matches!(first, Some('+' | '-')) && second.is_some_and(|sign| sign.is_ascii_digit());
        if matches!(first, Some('=' | '@' | '+' | '-' | '＝' | '＠' | '＋' | '－')) && !signed {
            return wrong(
                format!("以 {:?} 开头，像是公式", first.unwrap_or_default()),
                "it begins as a formula does".to_owned(),
            );
        }
        let fits = match self.form {
            Form::Text(most) => {
                return match cell.chars().count() <= most {
                    true => Ok(cell.to_owned()),
                    false => wrong(format!("超过 {most} 个字"), format!("it has more than {most} signs")),
                };
            }
            Form::Word(words) => {
                return match words.iter().find(|(word, zh)| *word == cell || *zh == cell) {
                    Some((word, _)) => Ok((*word).to_owned()),
                    None => {
                        let zh = words.iter().map(|(_, zh)| *zh).collect::<Vec<_>>().join("、");
                        let en = words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
                        wrong(format!("{cell:?} 不是 {zh} 之一"), format!("{cell:?} is not one of {en}"))
                    }
                };
            }
            Form::Number => cell.parse::<f64>().is_ok_and(|number| number.is_finite() && number >= 0.0),
            Form::Whole(least, most) => cell.parse::<u32>().is_ok_and(|number| (least..=most).contains(&number)),
            Form::Date => cell.len() == 10 && cell.parse::<Date>().is_ok(),
            Form::Phone => {
                cell.chars().count() <= 40
                    && cell.chars().any(|sign| sign.is_ascii_digit())
                    && cell.chars().all(|sign| sign.is_ascii_digit() || " +-*#(),/".contains(sign))
            }
        };
        if fits {
            return Ok(cell.to_owned());
        }
        let (zh, en) = match self.form {
            Form::Number => ("不是数字，或小于零".to_owned(), "is no number from 0 on".to_owned()),
            Form::Whole(least, most) => {
                (format!("不是 {least} 到 {most} 的整数"), format!("is no whole number from {least} to {most}"))
            }
            Form::Date => ("不是日期，应如 2026-11-30".to_owned(), "is no date such as 2026-11-30".to_owned()),
            _ => ("不是电话号码".to_owned(), "is no phone number".to_owned()),
        };
        wrong(format!("{cell:?} {zh}"), format!("{cell:?} {en}"))
    }

    /// The cell for people who read Chinese.
    pub fn zh_of<'c>(&self, cell: &'c str) -> &'c str {
        match self.form {
            Form::Word(words) => words.iter().find(|(word, _)| *word == cell).map_or(cell, |(_, zh)| zh),
            _ => cell,
        }
    }
}

/// The rows of a spreadsheet, or all that is wrong with it.
pub fn read(kind: Kind, bytes: &[u8]) -> Result<Vec<Row>, Vec<Fault>> {
    let whole = |row, zh: String, en: String| Fault { row, column: String::new(), text: Text { zh, en }, hint: None };
    let text = match decode(bytes) {
        Ok((_, text)) => text,
        Err(Text { zh, en }) => return Err(vec![whole(1, zh, en)]),
    };
    let mut places = Lines::of(&text);
    let mut reader =
        csv::ReaderBuilder::new().trim(csv::Trim::All).flexible(true).has_headers(false).from_reader(text.as_bytes());
    let mut records = reader.records();
    let heads = match records.next() {
        Some(Ok(heads)) => heads,
        _ => return Err(vec![whole(1, "文件是空的".into(), "the file is empty".into())]),
    };
    let mut faults = Vec::new();
    let columns = kind.columns();
    let mut named: Vec<Option<&Column>> = Vec::new();
    for head in &heads {
        let found = columns.iter().find(|column| column.name == head || column.zh == head);
        let twice = found.is_some_and(|found| named.iter().flatten().any(|other| other.name == found.name));
        if found.is_none() || twice {
            let what = if twice { ("重复出现", "is there twice") } else { ("不认识", "is not known") };
            let known: Vec<&str> = columns.iter().flat_map(|column| [column.name, column.zh]).collect();
            let hint = did_you_mean(head, known.iter().copied()).or_else(|| Some(known.join(", ")));
            let text = Text { zh: format!("列 {head:?} {}", what.0), en: format!("column {head:?} {}", what.1) };
            faults.push(Fault { row: 1, column: head.to_owned(), text, hint });
        }
        named.push(found);
    }
    for column in columns.iter().filter(|column| column.required) {
        if !named.iter().flatten().any(|other| other.name == column.name) {
            let text = Text {
                zh: format!("缺少列“{}”", column.zh),
                en: format!("there is no column `{}`", column.name),
            };
            faults.push(Fault { row: 1, column: column.name.to_owned(), text, hint: None });
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let mut rows: Vec<Row> = Vec::new();
    let mut lines: BTreeMap<String, usize> = BTreeMap::new();
    for record in records {
        if faults.len() >= MOST_FAULTS || rows.len() > MOST_ROWS {
            break;
        }
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                let row = places.of_record(error.position());
                faults.push(whole(row, format!("不是 CSV：{error}"), format!("not CSV: {error}")));
                continue;
            }
        };
        let row = places.of_record(record.position());
        if record.iter().all(str::is_empty) {
            continue;
        }
        if record.len() != heads.len() {
            let (has, wanted) = (record.len(), heads.len());
            faults.push(whole(
                row,
                format!("有 {has} 格，首行有 {wanted} 格"),
                format!("{has} cells, the first line has {wanted}"),
            ));
            continue;
        }
        let cells = named
            .iter()
            .zip(&record)
            .filter_map(|(column, cell)| Some((column.as_ref()?.name.to_owned(), cell.to_owned())));
        match Row::read(kind, &cells.collect()) {
            Ok(read) => {
                if let Some(first) = lines.insert(read.id().to_owned(), row) {
                    let text = Text {
                        zh: format!("编号 {:?} 与第 {first} 行重复", read.id()),
                        en: format!("id {:?} stands in row {first} already", read.id()),
                    };
                    faults.push(Fault { row, column: "id".to_owned(), text, hint: None });
                }
                rows.push(read);
            }
            Err(found) => {
                faults.extend(found.into_iter().map(|CellFault { column, text, hint }| Fault {
                    row,
                    column,
                    text,
                    hint,
                }));
            }
        }
    }
    if rows.len() > MOST_ROWS {
        faults.push(whole(0, format!("超过 {MOST_ROWS} 行"), format!("more than {MOST_ROWS} rows")));
    }
    faults.truncate(MOST_FAULTS);
    if faults.is_empty() { Ok(rows) } else { Err(faults) }
}

/// The rows as a spreadsheet, with Chinese heads and words: whoever keeps it reads Chinese. The error names what GBK cannot say.
pub fn write(kind: Kind, rows: &[Row], encoding: Encoding) -> Result<Vec<u8>, String> {
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    let columns = kind.columns();
    let heads = columns.iter().map(|column| column.zh);
    let put = || -> Result<(), csv::Error> {
        writer.write_record(heads)?;
        rows.iter()
            .try_for_each(|row| writer.write_record(row.cells.iter().zip(columns).map(|(cell, of)| of.zh_of(cell))))
    };
    put().expect("memory takes what it is given");
    let bytes = writer.into_inner().expect("memory takes what it is given");
    let text = String::from_utf8(bytes).expect("only text was written");
    encode(&text, encoding)
}

/// Tells a register as it stands from the same register with anything else in it.
pub fn version<'r>(rows: impl IntoIterator<Item = &'r Row>) -> String {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    for cell in rows.into_iter().flat_map(|row| &row.cells) {
        hash.update(&(cell.len() as u64).to_le_bytes());
        hash.update(cell.as_bytes());
    }
    hash.finish().as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The day at this moment by the site's clock.
pub fn day(at: Wall, zone: &TimeZone) -> Date {
    let at = jiff::Timestamp::from_microsecond(at.micros()).unwrap_or_default();
    at.to_zoned_datetime(zone.clone()).date()
}

/// `2026-11-30 08:15:00` by the site's clock.
pub fn moment(at: Wall, zone: &TimeZone) -> String {
    let at = jiff::Timestamp::from_microsecond(at.micros()).unwrap_or_default();
    zone.to_datetime(at).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// When [`moment`] was; `None` of any other text.
pub fn moment_of(text: &str, zone: &TimeZone) -> Option<Wall> {
    let at = jiff::civil::DateTime::strptime("%Y-%m-%d %H:%M:%S", text).ok()?;
    let at = zone.to_ambiguous_timestamp(at).compatible().ok()?;
    Some(Wall::from_micros(at.as_microsecond()))
}

/// What is to be said of an item of the stock on this day: that there is too little of it, or that its date has passed.
pub fn shortage(row: &Row, today: Date) -> Option<Text> {
    let number = |name| row.cell(name).parse::<f64>().ok();
    let low = number("minimum").zip(number("quantity")).filter(|(minimum, quantity)| quantity < minimum);
    let expired = row.cell("expires").parse::<Date>().ok().filter(|date| *date < today);
    let (name, unit) = (row.cell("name"), row.cell("unit"));
    let [mut zh, mut en] = [Vec::new(), Vec::new()];
    if let Some((minimum, quantity)) = low {
        zh.push(format!("现有 {quantity}{unit}，低于最低数量 {minimum}{unit}"));
        en.push(format!("{quantity} left, {minimum} at least"));
    }
    if let Some(date) = expired {
        zh.push(format!("已于 {date} 过期"));
        en.push(format!("expired on {date}"));
    }
    (!zh.is_empty()).then(|| {
        let place = row.cell("where");
        let (at_zh, at_en) =
            if place.is_empty() { Default::default() } else { (format!("（{place}）"), format!(" ({place})")) };
        Text {
            zh: format!("应急物资“{name}”{at_zh}{}", zh.join("，")),
            en: format!("stock {name:?}{at_en}: {}", en.join(", ")),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(kind: Kind, bytes: &[u8]) -> Vec<String> {
        let found = read(kind, bytes).expect_err("something is wrong with it");
        found.iter().map(|fault| format!("{}:{}: {}", fault.row, fault.column, fault.text.en)).collect()
    }

    fn row(kind: Kind, cells: &[(&str, &str)]) -> Result<Row, Vec<CellFault>> {
        Row::read(kind, &cells.iter().map(|(name, cell)| ((*name).to_owned(), (*cell).to_owned())).collect())
    }

    #[test]
    fn a_spreadsheet_of_either_encoding_and_language_is_read() {
        let zh = "编号,名称,数量,最低数量,有效期\r\nW-1,灭火毯,3,5,2027-01-31\r\n";
        let en = "id,name,quantity,minimum,expires\nW-1,灭火毯,3,5,2027-01-31\n";
        let gbk = encoding_rs::GBK.encode(zh).0;
        let all = [zh.as_bytes(), en.as_bytes(), &gbk, &[b"\xef\xbb\xbf", zh.as_bytes()].concat()]
            .map(|bytes| read(Kind::Stock, bytes).expect("it is sound"));
        let wanted = row(
            Kind::Stock,
            &[("id", "W-1"), ("name", "灭火毯"), ("quantity", "3"), ("minimum", "5"), ("expires", "2027-01-31")],
        );
        for rows in all {
            assert_eq!(rows, [wanted.clone().expect("it is sound")]);
        }
    }

    #[test]
    fn every_fault_is_named_by_row_and_column() {
        let sheet = "id,name,capacity,state,people\r\n\
            S1,广场,200,开放,\r\n\
            ,地下室,many,open,1\r\n\
            S3,\"体育馆\",300,half,1\r\n\
            S1,操场,1,full,2\r\n\
            S5,short\r\n\
            \r\n\
            S6,=1+1,5,closed,-1\r\n";
        assert_eq!(
            faults(Kind::Shelters, sheet.as_bytes()),
            [
                "3:id: it is missing",
                "3:capacity: \"many\" is no whole number from 0 to 1000000",
                "4:state: \"half\" is not one of open, full, closed",
                "5:id: id \"S1\" stands in row 2 already",
                "6:: 2 cells, the first line has 5",
                "8:name: it begins as a formula does",
                "8:people: \"-1\" is no whole number from 0 to 1000000",
            ]
        );
        for (bytes, wanted) in [
            (&b"\xff\xff\xff"[..], "1:: it is neither UTF-8 nor GBK"),
            (b"", "1:: the file is empty"),
            (b"id,nmae,capacity,state", "1:nmae: column \"nmae\" is not known"),
            (b"id,name,name,capacity,state", "1:name: column \"name\" is there twice"),
            (b"id,name,capacity", "1:state: there is no column `state`"),
        ] {
            assert_eq!(faults(Kind::Shelters, bytes)[0], wanted);
        }
        let many = (0..=MOST_ROWS).map(|n| format!("{n},x,1,open\n")).collect::<String>();
        let found = faults(Kind::Shelters, format!("id,name,capacity,state\n{many}").as_bytes());
        assert_eq!(found, ["0:: more than 20000 rows"]);
    }

    /// Over random rows of every register: what was written is read back to the letter, in both encodings.
    #[test]
    fn export_and_import_give_the_same_rows() {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut roll = move |of: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % of as u64) as usize
        };
        let signs: Vec<char> = "aZ09 ,;\"'#·（）-_+龘㐀𠮷é😀楼栋物资、，。丂鈥".chars().collect();
        let mut seen = 0;
        for kind in Kind::ALL {
            for _ in 0..200 {
                let mut rows: Vec<Row> = Vec::new();
                for n in 0..roll(6) {
                    let mut cells: BTreeMap<String, String> = BTreeMap::new();
                    for column in kind.columns() {
                        if !column.required && roll(3) == 0 {
                            continue;
                        }
                        let cell = match column.form {
                            Form::Text(most) => (0..=roll(most.min(12))).map(|_| signs[roll(signs.len())]).collect(),
                            Form::Number => ["0", "3", "2.50", "1e3"][roll(4)].to_owned(),
                            Form::Whole(least, most) => [least, most][roll(2)].to_string(),
                            Form::Date => ["2026-02-28", "1999-12-31"][roll(2)].to_owned(),
                            Form::Phone => ["0571-8888 6666", "+86 (571) 1", "119"][roll(3)].to_owned(),
                            Form::Word(words) => words[roll(words.len())].0.to_owned(),
                        };
                        cells.insert(column.name.to_owned(), cell);
                    }
                    cells.insert("id".to_owned(), format!("r{n}"));
                    // A cell may begin as a formula does, or be all blanks where something is needed.
                    rows.extend(Row::read(kind, &cells));
                }
                seen += rows.len();
                for encoding in Encoding::ALL {
                    let bytes = match write(kind, &rows, encoding) {
                        Ok(bytes) => bytes,
                        Err(why) => {
                            assert!(encoding == Encoding::Gbk && why.starts_with("GBK has no"), "{why}");
                            continue;
                        }
                    };
                    assert_eq!(
                        read(kind, &bytes),
                        Ok(rows.clone()),
                        "{encoding:?} {:?}",
                        String::from_utf8_lossy(&bytes)
                    );
                }
            }
        }
        assert!(seen > 1_000, "{seen} rows are too few");
    }

    #[test]
    fn a_moment_is_read_back_as_it_was_written() {
        let zone = TimeZone::fixed(jiff::tz::offset(8));
        let at = Wall::from_millis(1_800_000_000_000);
        assert_eq!(moment(at, &zone), "2027-01-15 16:00:00");
        assert_eq!(moment_of("2027-01-15 16:00:00", &zone), Some(at));
        assert_eq!(["", "2027-01-15", "soon"].map(|text| moment_of(text, &zone)), [None; 3]);
    }

    #[test]
    fn stock_is_short_below_its_minimum_and_after_its_date() {
        let today: Date = "2026-11-27".parse().expect("a date");
        for (quantity, minimum, expires, wanted) in [
            ("3", "5", "", Some("stock \"毯\" (1号柜): 3 left, 5 at least")),
            ("5", "5", "2026-11-27", None),
            ("5", "5", "2026-11-26", Some("stock \"毯\" (1号柜): expired on 2026-11-26")),
            ("0", "1", "2026-11-26", Some("stock \"毯\" (1号柜): 0 left, 1 at least, expired on 2026-11-26")),
            ("0", "", "", None),
        ] {
            let cells = [
                ("id", "a"),
                ("name", "毯"),
                ("quantity", quantity),
                ("minimum", minimum),
                ("expires", expires),
                ("where", "1号柜"),
            ];
            let row = row(Kind::Stock, &cells).expect("it is sound");
            assert_eq!(shortage(&row, today).map(|text| text.en).as_deref(), wanted);
        }
    }

    #[test]
    fn a_household_is_masked_but_for_its_building() {
        let cells = [("id", "h1"), ("building", "3"), ("room", "501"), ("need", "oxygen"), ("phone", "110")];
        let row = row(Kind::Households, &cells).expect("it is sound");
        assert_eq!(row.place().room, "501");
        let masked = row.masked(Shown::Crews);
        assert_eq!((masked.cell("building"), masked.cell("unit")), ("3", ""));
        assert!(["id", "room", "need", "phone"].iter().all(|name| masked.cell(name) == "***"), "{masked:?}");
    }

    #[test]
    fn who_goes_there_sees_where_and_what_is_needed_and_nobody_but_the_desk_whom_to_phone() {
        let cells = [
            ("id", "r1"),
            ("state", "new"),
            ("need", "trapped"),
            ("building", "3"),
            ("room", "501"),
            ("said", "门打不开"),
            ("phone", "110"),
        ];
        let row = row(Kind::Help, &cells).expect("it is sound");
        for (whom, hidden) in [
            (Shown::Everybody, &["need", "room", "said", "phone"][..]),
            (Shown::Crews, &["said", "phone"]),
            (Shown::Officers, &[]),
        ] {
            let seen = row.clone().masked(whom);
            let masked: Vec<&str> =
                cells.iter().map(|(name, _)| *name).filter(|name| seen.cell(name) == "***").collect();
            assert_eq!(masked, hidden, "{whom:?}");
        }
    }
}
