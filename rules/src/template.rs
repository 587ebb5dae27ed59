//! A rule to begin with: two files that load, and cases that pass.

use anmin_sensors::document::did_you_mean;
use anmin_sensors::point::{Form, KINDS, Kind};

use crate::library;
use crate::rule::Text;
use crate::set::{RuleSource, is_rule_name};

/// The rule `name`, `area/name`: as it is shipped where it is, else one that judges points of `kind` by two limits, or by
/// whether they are on. The error says what is wrong with the name or the kind.
pub fn of(name: &str, kind: &str) -> Result<RuleSource, Text> {
    if !is_rule_name(name) {
        let zh = format!("规则不能命名为 {name:?}：请写成“区域/名称”，只用小写字母、数字和下划线，区域不能是 system");
        let en = format!(
            "a rule cannot be named {name:?}: write area/name, small letters, digits and underscores; the area system is anmin's own"
        );
        return Err(Text { zh, en });
    }
    if let Some(shipped) = library::shipped().into_iter().find(|shipped| shipped.name == name) {
        return Ok(shipped);
    }
    let Some(known) = Kind::named(kind).filter(|kind| kind.info().form != Form::Text) else {
        let near = KINDS.iter().filter(|info| info.form != Form::Text).map(|info| info.name);
        let hint = did_you_mean(kind, near).unwrap_or_default();
        let en = format!("there is no kind {kind:?} of numbers or flags; {hint}");
        return Err(Text {
            zh: format!("没有名为 {kind:?} 的数值或开关量类型，见配置说明中的“kinds”；{hint}"),
            en: en.trim_end_matches("; ").to_owned(),
        });
    };
    let info = known.info();
    let (toml, script) = match info.form {
        Form::Flag => (FLAG, FLAG_SCRIPT),
        _ => (NUMBER, NUMBER_SCRIPT),
    };
    let fill = |text: &str| {
        text.replace("KIND", info.name).replace("UNIT", info.unit).replace("名称", info.zh).replace("TITLE", info.en)
    };
    Ok(RuleSource { folder: "rules".to_owned(), name: name.to_owned(), toml: fill(toml), script: script.to_owned() })
}

const NUMBER: &str = r#"#:schema ../rule.schema.json
# What this rule is for, and where it holds: one or two sentences for whoever reads it in ten years.
title = { zh = "名称过高", en = "TITLE too high" }
on_delay = "10s"
off_delay = "1m"
deadband = 1.0
latch = false
on_bad = "fault"
escalate_after = "10m"

[[input]]
role = "value"
kind = "KIND"

[limit.yellow]
value = 10.0
unit = "UNIT"
source = "local practice: who decided it, when, and why"

[limit.red]
value = 20.0
unit = "UNIT"
source = "local practice: who decided it, when, and why"

[message]
zh = "{place}名称达到{value} {unit}，超过限值{limit} {unit}。"
en = "TITLE at {place}: {value} {unit}, limit {limit} {unit}."

[advice]
zh = "派人到现场查看，并报告值班负责人。"
en = "Send somebody to look, and tell the officer in charge."

[[case]]
name = "the hazard is seen, stage by stage"
steps = [
  { at = "0s", value = 2.0, expect = "normal" },
  { at = "10s", value = 10.0, expect = "yellow", limit = "yellow" },
  { at = "20s", value = 20.0, expect = "red", limit = "red" },
]

[[case]]
name = "just below the limit"
steps = [{ at = "0s", value = 9.9, expect = "normal" }]

[[case]]
name = "noise around the limit is one alarm"
steps = [{ at = "0s", for = "10m", every = "10s", value = 10.2, jitter = 0.4, alarm = "yellow", raised = 1 }]

[[case]]
name = "a short spike raises nothing"
steps = [
  { at = "0s", value = 2.0, alarm = "normal" },
  { at = "10s", value = 25.0, alarm = "normal" },
  { at = "15s", value = 2.0, alarm = "normal", raised = 0 },
]

[[case]]
name = "bad data in the middle clears nothing"
steps = [
  { at = "0s", for = "1m", every = "10s", value = 12.0, alarm = "yellow" },
  { at = "70s", value = "comms", expect = "undetermined", alarm = "yellow" },
  { at = "10m", value = 12.0, alarm = "yellow", raised = 1 },
]

[[case]]
name = "silence is not normal"
steps = [
  { at = "0s", value = 2.0, expect = "normal" },
  { at = "10m", value = "silent", expect = "undetermined" },
]

[[case]]
name = "a restart in the middle forgets no alarm"
steps = [
  { at = "0s", for = "1m", every = "10s", value = 12.0, alarm = "yellow" },
  { at = "2m", restart = true, value = 12.0, alarm = "yellow", raised = 1 },
]

[[case]]
name = "it ends behind the deadband"
steps = [
  { at = "0s", value = 12.0, expect = "yellow" },
  { at = "10s", value = 9.5, expect = "yellow" },
  { at = "20s", value = 8.9, expect = "normal" },
]
"#;

const NUMBER_SCRIPT: &str = "\
fn judge(value) {
    if above(value, \"red\") { return red(); }
    if above(value, \"yellow\") { return yellow(); }
    normal()
}
";

const FLAG: &str = r#"#:schema ../rule.schema.json
# What this rule is for, and where it holds: one or two sentences for whoever reads it in ten years.
title = { zh = "名称", en = "TITLE" }
on_delay = "5s"
off_delay = "1m"
latch = false
on_bad = "fault"
escalate_after = "10m"

[[input]]
role = "flag"
kind = "KIND"

[message]
zh = "{place}：名称。"
en = "TITLE at {place}."

[advice]
zh = "派人到现场查看，并报告值班负责人。"
en = "Send somebody to look, and tell the officer in charge."

[[case]]
name = "the hazard is seen, and its end"
steps = [
  { at = "0s", flag = false, expect = "normal" },
  { at = "10s", flag = true, expect = "yellow" },
  { at = "1m", flag = false, expect = "normal" },
]

[[case]]
name = "a short spike raises nothing"
steps = [
  { at = "0s", flag = false, alarm = "normal" },
  { at = "10s", flag = true, alarm = "normal" },
  { at = "12s", flag = false, alarm = "normal", raised = 0 },
]

[[case]]
name = "bad data in the middle clears nothing"
steps = [
  { at = "0s", for = "1m", every = "10s", flag = true, alarm = "yellow" },
  { at = "70s", flag = "comms", expect = "undetermined", alarm = "yellow" },
  { at = "10m", flag = true, alarm = "yellow", raised = 1 },
]

[[case]]
name = "silence is not normal"
steps = [
  { at = "0s", flag = false, expect = "normal" },
  { at = "10m", flag = "silent", expect = "undetermined" },
]

[[case]]
name = "a restart in the middle forgets no alarm"
steps = [
  { at = "0s", for = "1m", every = "10s", flag = true, alarm = "yellow" },
  { at = "2m", restart = true, flag = true, alarm = "yellow", raised = 1 },
]
"#;

const FLAG_SCRIPT: &str = "\
fn judge(flag) {
    if on(flag) { yellow() } else { normal() }
}
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::run_cases;

    #[test]
    fn for_every_kind_there_is_a_rule_whose_cases_pass() {
        for info in KINDS.iter().filter(|info| info.form != Form::Text) {
            let rule = of("ours/new_one", info.name).unwrap_or_else(|text| panic!("{}: {}", info.name, text.en));
            let outcomes = run_cases(&rule);
            assert!(outcomes.len() > 4, "{}", info.name);
            for outcome in outcomes {
                assert_eq!(outcome.failure, None, "{}: {}", info.name, outcome.case);
            }
        }
    }

    #[test]
    fn a_shipped_rule_begins_as_it_is_shipped_and_what_cannot_be_is_said() {
        let shipped = library::shipped().into_iter().find(|rule| rule.name == "gas/leak");
        assert_eq!(of("gas/leak", "flood.leak").ok(), shipped);
        for (name, kind, words) in [
            ("leak", "gas.lel", "write area/name"),
            ("system/x", "gas.lel", "the area system"),
            ("gas/../x", "gas.lel", "write area/name"),
            ("gas/Kitchen", "gas.lel", "small letters"),
            ("gas/ours", "gas.lell", "did you mean `gas.lel`?"),
        ] {
            let said = of(name, kind).err().map(|text| text.en).unwrap_or_default();
            assert!(said.contains(words), "{name} {kind}: {said}");
        }
    }
}
