//! What can be wrong with a list of devices or places, in both languages: whoever imports one at the duty desk reads it there, not in a
//! log.

use std::fmt::Display;

use anmin_rules::rule::Text;
use anmin_sensors::document::{Fault, did_you_mean, nearest};
use anmin_sensors::point::AddError;

/// What a fault says: in English with a hint of its own, in Chinese all in one.
#[derive(Debug, PartialEq, Eq)]
pub struct Words {
    en: String,
    hint: Option<String>,
    zh: String,
}

impl Words {
    pub fn at(self, source: &str, line: usize, column: usize) -> Fault {
        let Self { en, hint, zh } = self;
        Fault { source: source.to_owned(), line, column, message: en, hint, zh: Some(zh) }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

fn words(en: impl Into<String>, zh: impl Into<String>) -> Words {
    Words { en: en.into(), hint: None, zh: zh.into() }
}

/// The same with the nearest of the known words, or with all of them under that name.
fn perhaps(said: Words, word: &str, known: &[&str], all: Option<(&str, &str)>) -> Words {
    match (nearest(word, known.iter().copied()), all) {
        (Some(near), _) => {
            let zh = format!("{}，是否应为“{near}”？", said.zh);
            Words { hint: did_you_mean(word, [near]), zh, ..said }
        }
        (None, Some((en, zh))) => {
            let hint = format!("{en}: {}", known.join(", "));
            Words { zh: format!("{}；{zh}：{}", said.zh, known.join("、")), ..said }.hint(hint)
        }
        (None, None) => said,
    }
}

pub fn not_csv(why: &dyn Display) -> Words {
    words(format!("not CSV: {why}"), format!("不是有效的 CSV：{why}"))
}

/// A file that is no sheet of text at all.
pub fn not_text(why: Text) -> Words {
    words(why.en, why.zh)
}

pub fn too_large(most_mib: usize) -> Words {
    words(format!("the file is larger than {most_mib} MiB"), format!("文件超过 {most_mib} MiB"))
}

pub fn empty() -> Words {
    words("the file is empty", "文件是空的")
}

pub fn no_head() -> Words {
    words("the first line does not name the columns", format!("第一行没有写列名，例如 {HEAD}"))
        .hint(format!("such as {HEAD}"))
}

const HEAD: &str = "id,name,profile,place";

pub fn separators(found: &str) -> Words {
    words(
        format!("cells are separated by {found:?}, expected commas"),
        format!("单元格以 {found:?} 分隔，应为逗号；请另存为“CSV UTF-8（逗号分隔）”"),
    )
    .hint("save it as \"CSV UTF-8 (comma delimited)\"")
}

pub fn unknown_column(word: &str, known: impl Iterator<Item = &'static str>) -> Words {
    let said = words(format!("column {word:?} is not known"), format!("没有“{word}”这一列"));
    perhaps(said, word, &known.collect::<Vec<_>>(), Some(("known columns", "可用的列")))
}

pub fn column_twice(word: &str) -> Words {
    words(format!("column {word:?} is there twice"), format!("列“{word}”重复出现"))
}

pub fn no_column(key: &str) -> Words {
    words(format!("there is no column `{key}`"), format!("缺少列“{key}”；第一行写列名，例如 {HEAD}"))
        .hint(format!("the first line names the columns, such as {HEAD}"))
}

pub fn cells(found: usize, wanted: usize) -> Words {
    words(
        format!("{found} cells, the first line has {wanted}"),
        format!("本行有 {found} 个单元格，第一行有 {wanted} 个"),
    )
}

pub fn missing(key: &str) -> Words {
    words(format!("`{key}` is missing"), format!("缺少“{key}”"))
}

pub fn id_twice(id: &str, row: usize) -> Words {
    words(format!("{id:?} is there twice"), format!("编号“{id}”重复，另一处在第 {row} 行"))
        .hint(format!("the other stands in row {row}"))
}

/// A cell that does not have its form.
pub fn not_it(key: &str, cell: &str, wanted: &Form) -> Words {
    words(format!("`{key}` is {cell:?}, expected {}", wanted.en), format!("“{key}”为“{cell}”，应为{}", wanted.zh))
}

/// What a cell must be.
pub struct Form {
    en: &'static str,
    zh: &'static str,
}

pub const UNIT_ID: Form = Form { en: "a whole number from 0 to 255", zh: " 0 至 255 的整数" };
pub const DURATION: Form = Form { en: "a duration such as \"2s\"", zh: "时长，例如 2s" };

pub fn in_the_list_already(id: &str) -> Words {
    words(format!("device {id:?} is in the list already"), format!("设备“{id}”已在清单中，可能要重启后生效"))
        .hint("it may wait for a restart")
}

/// The site's own files, which nobody changes from the desk, say otherwise.
pub fn kept_by_hand(id: &str, place: &str, key: &str, known: &str) -> Words {
    words(
        format!("device {id:?} stands in {place}, where `{key}` is {known:?}"),
        format!(
            "设备“{id}”写在 {place} 中，那里“{key}”为“{known}”；站点自己的文件只能手工修改，请将该行保持原样或删去"
        ),
    )
    .hint("the site's own files are changed by hand; leave the row as it is, or out")
}

pub fn kept_by_hand_too(id: &str, place: &str) -> Words {
    words(
        format!("device {id:?} stands in {place}, too, and is what that says"),
        format!("设备“{id}”也写在 {place} 中，以那里为准；请在值班台将它从清单中删去"),
    )
    .hint("take it out of the list at the duty desk")
}

pub fn bad_id(id: &str, why: &str) -> Words {
    words(
        format!("device {id:?}: {why}"),
        format!("设备编号“{id}”不可用：须为 1 至 128 个字符，不含 + # / \\ 和控制字符，且不是 . 或 .."),
    )
}

pub fn no_profile(device: &str, wanted: &str, known: &[&str]) -> Words {
    let said =
        words(format!("device {device}: there is no profile {wanted:?}"), format!("设备 {device}：没有型号“{wanted}”"));
    perhaps(said, wanted, known, Some(("known profiles", "可用的型号")))
}

pub fn no_place(device: &str, wanted: &str, known: &[&str]) -> Words {
    let said =
        words(format!("device {device}: there is no place {wanted:?}"), format!("设备 {device}：没有地点“{wanted}”"));
    perhaps(said, wanted, known, None)
}

pub fn no_bus(device: &str, wanted: &str, known: &[&str]) -> Words {
    let said =
        words(format!("device {device}: there is no bus {wanted:?}"), format!("设备 {device}：没有总线“{wanted}”"));
    perhaps(said, wanted, known, None)
}

/// `other` is where the same device stands.
pub fn not_added(error: &AddError, other: Option<String>) -> Words {
    let zh = match error {
        AddError::Duplicate(device) => format!("设备“{device}”重复"),
        AddError::DuplicatePoint { device, name } => format!("设备“{device}”有两个测点都叫“{name}”"),
    };
    let said = words(error.to_string(), zh);
    match other {
        Some(other) => {
            Words { zh: format!("{}，另一处在 {other}", said.zh), ..said }.hint(format!("the other stands at {other}"))
        }
        None => said,
    }
}

/// Of `bus` and `unit_id` one is there.
pub fn one_without_the_other(device: &str, key: &str, other: &str) -> Words {
    words(
        format!("device {device} has a `{key}` and no `{other}`"),
        format!("设备 {device} 写了“{key}”，没有写“{other}”"),
    )
}

pub fn no_registers(device: &str, profile: &str) -> Words {
    words(
        format!("device {device}: profile {profile} says nothing about Modbus registers"),
        format!("设备 {device}：型号 {profile} 没有写明 Modbus 寄存器"),
    )
}

pub fn no_unit_id(device: &str, unit: u8, bus: &str) -> Words {
    words(
        format!("device {device}: `unit_id` is {unit}, expected 1 to 247 on bus {bus}"),
        format!("设备 {device}：“unit_id”为 {unit}，在总线 {bus} 上应为 1 至 247"),
    )
}

pub fn unit_taken(device: &str, unit: u8, bus: &str, other: &dyn Display) -> Words {
    words(
        format!("device {device}: unit {unit} of bus {bus} is device {other}"),
        format!("设备 {device}：总线 {bus} 的 {unit} 号从站已是设备 {other}"),
    )
}
