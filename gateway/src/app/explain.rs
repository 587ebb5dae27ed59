//! `anmin explain`: what an alarm rests on, and whether it is the same when it is judged again.

use std::process::ExitCode;

use anmin_rules::rule::Origin;
use clap::Args;

use super::alarm::{Alarm, Desk, EXIT_CODES, Said, both, level, moment, read};
use super::table::Table;
use crate::web::wire::{AgainWire, EvidenceWire, ExplanationWire, LimitUsedWire, ValueWire};

/// `anmin explain`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct Options {
    #[command(flatten)]
    desk: Desk,
    #[command(flatten)]
    alarm: Alarm,
    /// Which of its transitions, by number; the last that a verdict caused where nobody says.
    #[arg(long, value_name = "NUMBER")]
    seq: Option<u32>,
}

pub fn run(options: &Options) -> ExitCode {
    super::alarm::run(&options.desk, async |client| {
        let id = options.alarm.resolve(&client).await?;
        let seq = options.seq.map_or(String::new(), |seq| format!("?seq={seq}"));
        let json = client.get(&format!("/alarms/{id}/explanation{seq}")).await?;
        let explanation: ExplanationWire = read(&json)?;
        Ok(Said { json, lines: lines(&explanation) })
    })
}

fn lines(of: &ExplanationWire) -> Vec<String> {
    let mut lines = vec![
        of.message.zh.clone(),
        of.message.en.clone(),
        format!("{} {}，{} #{}", of.rule, of.subject, moment(&of.at), of.seq),
    ];
    let mut section = |title: &str, part: Vec<String>| {
        lines.extend([String::new(), title.to_owned()]);
        lines.extend(part.iter().map(|line| format!("  {line}")));
    };
    if let Some(kept) = &of.evidence {
        section("当时依据 what it rested on", evidence(kept));
    }
    match (&of.again, &of.why_not) {
        (Some(now), _) => {
            section("按现行规则重新判定 judged again by the rules in force", again(of.evidence.as_ref(), now))
        }
        (None, Some(why)) => section("未重新判定 not judged again", vec![why.zh.clone(), why.en.clone()]),
        (None, None) => {}
    }
    lines
}

/// The verdict of now, and what is otherwise.
fn again(then: Option<&EvidenceWire>, now: &AgainWire) -> Vec<String> {
    let was = then.map_or(String::new(), |then| said(&then.said));
    let is = said(&now.evidence.said);
    let mut lines = vec![if now.same {
        format!("结论相同 the same: {is}")
    } else {
        format!("结论不同 not the same: 当时 then {was}，现在 now {is}")
    }];
    let mut table = Table::default();
    if now.rule_changed {
        let was = then.map_or("", |then| then.rule_hash.as_str());
        table.row(["规则已修改 the rule has changed".to_owned(), was.to_owned(), now.evidence.rule_hash.clone()]);
    }
    let limit = |limit: &Option<LimitUsedWire>| match limit {
        Some(limit) => format!("{} {} {}", limit.value, limit.unit, origin(&limit.origin)),
        None => "—".to_owned(),
    };
    for changed in &now.limits {
        let name = changed.was.as_ref().or(changed.is.as_ref()).map_or("", |limit| limit.name.as_str());
        table.row([format!("限值 limit {name}"), limit(&changed.was), limit(&changed.is)]);
    }
    let value = |value: &Option<ValueWire>| value.as_ref().map_or("—".to_owned(), shown);
    for changed in &now.inputs {
        table.row([format!("输入 input {}", changed.role), value(&changed.was), value(&changed.is)]);
    }
    let number = |number: Option<f64>| number.map_or("—".to_owned(), rounded);
    for changed in &now.windows {
        table.row([format!("窗口 window {}", changed.name), number(changed.was), number(changed.is)]);
    }
    let rows = table.lines();
    if !rows.is_empty() {
        lines.push("不同之处（当时、现在） what is otherwise (then, now):".to_owned());
        lines.extend(rows.iter().map(|line| format!("  {line}")));
    }
    lines.push(format!("依据历史读数 on readings of history: {}", now.readings));
    lines
}

/// Inputs, windows and limits as the rule saw them.
pub(super) fn evidence(evidence: &EvidenceWire) -> Vec<String> {
    let mut table = Table::default();
    for input in &evidence.inputs {
        let value = input.value.as_ref().map_or("—".to_owned(), |value| format!("{} {}", shown(value), input.unit));
        let quality = match input.quality.as_str() {
            "good" => "正常 good".to_owned(),
            "uncertain" => format!("存疑 uncertain: {}", input.reason),
            _ => format!("不可用 bad: {}", input.reason),
        };
        let age = format!("{quality}，时龄 age {} s", rounded(input.age_seconds));
        table.row([
            format!("输入 input {}", input.role),
            value.trim_end().to_owned(),
            format!("{}，{age}", input.point),
        ]);
    }
    for window in &evidence.windows {
        let value = window.value.map_or("数据不足 too little known".to_owned(), |value| {
            format!("{} {}", rounded(value), window.unit).trim_end().to_owned()
        });
        let over = if window.over_seconds > 0.0 { format!(" {} s", window.over_seconds) } else { String::new() };
        table.row([format!("窗口 window {}", window.name), value, format!("{}{over}", window.measure)]);
    }
    for limit in &evidence.limits {
        let value = format!("{} {}", limit.value, limit.unit).trim_end().to_owned();
        table.row([
            format!("限值 limit {}", limit.name),
            value,
            format!("{}\n{}", origin(&limit.origin), both(&limit.source)),
        ]);
    }
    let held = evidence.held.as_deref().map_or(String::new(), |held| format!("，此前 alarm stood at {}", level(held)));
    let mut lines = vec![format!(
        "{} {}{held}，规则版本 version of the rule {}",
        moment(&evidence.at),
        said(&evidence.said),
        evidence.rule_hash
    )];
    lines.extend(table.lines());
    lines
}

fn origin(word: &str) -> String {
    format!("{} {word}", Origin::named(word).map_or("", |origin| origin.zh())).trim_start().to_owned()
}

/// A verdict's word in both languages.
fn said(word: &str) -> String {
    match word {
        "normal" => "正常 normal".to_owned(),
        "undetermined" => "无法判断 undetermined".to_owned(),
        other => level(other),
    }
}

fn shown(value: &ValueWire) -> String {
    match value {
        ValueWire::Number(number) => rounded(*number),
        ValueWire::Flag(flag) => flag.to_string(),
        ValueWire::Text(text) => text.clone(),
    }
}

/// Three decimals at most.
fn rounded(number: f64) -> String {
    ((number * 1e3).round() / 1e3).to_string()
}
