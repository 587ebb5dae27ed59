//! Messages: what an officer reads, in both languages.

use anmin_sensors::point::{Name, Place};
use anmin_sensors::reading::Value;

use crate::rule::{Evidence, Finding, Level, Text};

/// What the placeholders of a rule's message stand for.
pub(crate) struct Fields<'a> {
    pub place: &'a Place,
    /// What people call the device.
    pub label: &'a Name,
    pub level: Level,
    pub finding: Option<&'a Finding>,
    pub evidence: &'a Evidence,
}

/// Fills `{value}`, `{unit}`, `{place}`, `{limit}`, `{level}`, `{point}` (the device's label), `{id}` (the point's id)
/// and `{note}`. A value that is not there is a dash; a placeholder that nobody knows stays as it is written.
pub(crate) fn render(template: &Text, fields: &Fields<'_>) -> Text {
    Text { zh: fill(&template.zh, fields, true), en: fill(&template.en, fields, false) }
}

fn fill(template: &str, fields: &Fields<'_>, zh: bool) -> String {
    let mut out = String::with_capacity(template.len() + 32);
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        let Some(close) = rest[open..].find('}').map(|at| open + at) else { break };
        out.push_str(&rest[..open]);
        match field(&rest[open + 1..close], fields, zh) {
            Some(text) => out.push_str(&text),
            None => out.push_str(&rest[open..=close]),
        }
        rest = &rest[close + 1..];
    }
    out.push_str(rest);
    out
}

fn field(name: &str, fields: &Fields<'_>, zh: bool) -> Option<String> {
    let dash = || "—".to_owned();
    Some(match name {
        "value" => fields.evidence.value.as_ref().map_or_else(dash, |value| shown(value, zh)),
        "unit" => fields.evidence.unit.clone(),
        "place" if zh => fields.place.zh(),
        "place" => fields.place.en(),
        "limit" => {
            let limit = fields.finding.and_then(|finding| finding.limit.as_ref()).or(fields.evidence.limit.as_ref());
            limit.map_or_else(dash, |(_, number)| Value::Number(*number).to_string())
        }
        "level" if zh => fields.level.zh().to_owned(),
        "level" => fields.level.as_str().to_owned(),
        "point" if zh => fields.label.zh.to_string(),
        "point" => fields.label.en.to_string(),
        "id" => fields.evidence.point.as_ref().map_or_else(dash, |point| point.as_str().to_owned()),
        "note" => fields.finding.and_then(|finding| finding.note.clone()).unwrap_or_default(),
        _ => return None,
    })
}

fn shown(value: &Value, zh: bool) -> String {
    match (value, zh) {
        (Value::Flag(true), true) => "是".to_owned(),
        (Value::Flag(false), true) => "否".to_owned(),
        (Value::Flag(true), false) => "yes".to_owned(),
        (Value::Flag(false), false) => "no".to_owned(),
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_in_both_languages() {
        let place = Place { building: "3".to_owned(), floor: "5".to_owned(), ..Place::default() };
        let evidence =
            Evidence { value: Some(Value::Number(25.123_456)), unit: "%LEL".to_owned(), ..Evidence::default() };
        let finding = Finding { level: Level::Orange, limit: Some(("high".to_owned(), 25.0)), note: None };
        let label = Name { zh: "厨房".into(), en: "kitchen".into() };
        let fields =
            Fields { place: &place, label: &label, level: Level::Orange, finding: Some(&finding), evidence: &evidence };
        let template = Text {
            zh: "{place}{point} {value}{unit}，{level}限值 {limit}{note}".to_owned(),
            en: "{point}, {place}: {value} {unit}, {level} limit {limit} {what} {".to_owned(),
        };
        let text = render(&template, &fields);
        assert_eq!(text.zh, "3号楼5层厨房 25.123%LEL，橙色限值 25");
        assert_eq!(text.en, "kitchen, Building 3, Floor 5: 25.123 %LEL, orange limit 25 {what} {");
    }
}
