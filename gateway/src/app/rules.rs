//! `anmin rules`: which rules are in force, new ones without a restart, and a beginning for one of your own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anmin_rules::rule::Text;
use anmin_rules::{schema, template};
use clap::{Args, Subcommand};
use serde_json::json;

use super::alarm::{Desk, EXIT_CODES, Failure, Said, Who, read, run};
use super::keep::{Problem, end};
use super::table::Table;
use crate::web::client::Client;
use crate::web::wire::{NumberWire, ReloadedWire, RuleWire};

/// `anmin rules`.
#[derive(Debug, Args)]
pub struct RulesOptions {
    #[command(subcommand)]
    command: RulesCommand,
}

#[derive(Debug, Subcommand)]
enum RulesCommand {
    /// The rules in force: limits and the site's own numbers, where each comes from, its hash, subjects and open alarms.
    #[command(after_help = EXIT_CODES)]
    List {
        #[command(flatten)]
        desk: Desk,
    },
    /// Have the daemon read the site anew, rules and all else, and take what is sound; says what waits for a restart.
    #[command(after_help = EXIT_CODES)]
    Reload {
        /// Only say what would be taken.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        desk: Desk,
        #[command(flatten)]
        who: Who,
    },
    /// Write a rule of the site's own, with cases that pass, to go on from.
    #[command(after_help = "Exit codes: 0 written, 1 refused or failed, 2 used wrongly.")]
    New {
        /// The rule's id, such as gas/kitchen; one that is shipped begins as it is shipped, and takes its place.
        #[arg(value_name = "AREA/NAME")]
        name: String,
        /// The site's folder.
        #[arg(default_value = "/etc/anmin")]
        site: PathBuf,
        /// What it judges: a kind of the reference, such as gas.lel or flood.leak.
        #[arg(long, default_value = "gas.lel")]
        kind: String,
    },
}

pub fn rules(options: RulesOptions) -> ExitCode {
    match options.command {
        RulesCommand::List { desk } => run(&desk, list),
        RulesCommand::Reload { dry_run, desk, who } => run(&desk, |client| reload(client, who, dry_run)),
        RulesCommand::New { name, site, kind } => end(|| new(&name, &site, &kind)),
    }
}

async fn list(client: Client) -> Result<Said, Failure> {
    let json = client.get("/rules").await?;
    let rules: Vec<RuleWire> = read(&json)?;
    let mut table = Table::default();
    table.row(
        ["规则 RULE", "来源 FROM", "哈希 HASH", "限值 LIMITS", "测点 POINTS", "报警 ALARMS", "名称 TITLE"]
            .map(str::to_owned),
    );
    for rule in &rules {
        let mut limits: Vec<String> =
            rule.limits.iter().map(|limit| format!("{} {} {}", limit.name, limit.value, limit.unit)).collect();
        for over in &rule.overrides {
            let numbers: Vec<String> =
                over.numbers.iter().map(|number| format!("{} {}", number.name, number.value)).collect();
            limits.push(format!("{}: {}", over.of, numbers.join(", ")));
        }
        let origin = if rule.origin == "site" { "本站 site" } else { "自带 library" };
        let broken = if rule.broken { "\n失效 broken" } else { "" };
        table.row([
            rule.id.clone(),
            format!("{origin}{broken}"),
            rule.hash.clone(),
            limits.join("\n"),
            rule.subjects.to_string(),
            rule.open_alarms.to_string(),
            format!("{}\n{}", rule.title.zh, rule.title.en),
        ]);
    }
    Ok(Said { json, lines: table.lines() })
}

async fn reload(client: Client, who: Who, only_tell: bool) -> Result<Said, Failure> {
    let json = client.post_and_wait("/rules/reload", &json!({ "who": who.name()?, "only_tell": only_tell })).await?;
    told(json)
}

/// What the daemon would take of its site as it stands now.
pub async fn would_change(client: Client) -> Result<Said, Failure> {
    told(client.post_and_wait("/rules/reload", &json!({ "who": "anmin check", "only_tell": true })).await?)
}

fn told(json: serde_json::Value) -> Result<Said, Failure> {
    let ReloadedWire { rules, added, removed, changed, numbers, taken, waits_for_restart } = read(&json)?;
    let mut lines: Vec<String> = taken.iter().map(|part| format!("即时生效 at once: {part}")).collect();
    for (word, ids) in [("新增 added", added), ("删除 removed", removed), ("修改 changed", changed)] {
        lines.extend(ids.iter().map(|id| format!("{word} {id}")));
    }
    for NumberWire { rule, of, name, from, to } in numbers {
        let number = |number: Option<f64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let of = if of.is_empty() { String::new() } else { format!(" ({of})") };
        lines.push(format!("{rule}{of} {name}: {} → {}", number(from), number(to)));
    }
    lines.extend(waits_for_restart.iter().map(|part| format!("重启后才生效 only after a restart: {part}")));
    if lines.is_empty() {
        lines.push("没有变化 · everything is what it was".to_owned());
    }
    lines.push(format!("{rules} 条规则有效 · {rules} rules are in force"));
    Ok(Said { json, lines })
}

fn new(name: &str, site: &Path, kind: &str) -> Result<(), Problem> {
    let problem = |zh: String, en: String| Problem { text: Text { zh, en }, hint: None };
    let rule = template::of(name, kind).map_err(|text| Problem { text, hint: None })?;
    if !site.is_dir() {
        let shown = site.display();
        return Err(problem(format!("{shown} 不是站点文件夹"), format!("{shown} is no site's folder")));
    }
    let files = [("toml", &rule.toml), ("rhai", &rule.script)]
        .map(|(ending, text)| (site.join("rules").join(format!("{name}.{ending}")), text));
    if let Some((there, _)) = files.iter().find(|(path, _)| path.exists()) {
        let shown = there.display();
        return Err(problem(format!("{shown} 已存在"), format!("{shown} is there already")));
    }
    let failed = |path: &Path, error: std::io::Error| {
        let shown = path.display();
        problem(format!("无法写入 {shown}：{error}"), format!("{shown} cannot be written: {error}"))
    };
    let schema = (site.join("rules").join(schema::FILE), &schema::schema());
    for (path, text) in files.iter().map(|(path, text)| (path, *text)).chain([(&schema.0, schema.1)]) {
        let folder = path.parent().unwrap_or(site);
        fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
        fs::write(path, text).map_err(|error| failed(path, error))?;
        println!("已写入 {path} · written: {path}", path = path.display());
    }
    let shown = site.display();
    println!(
        "先改限值、文字和用例，再试：anmin test {shown} · set limits, words and cases, then try it: anmin test {shown}"
    );
    Ok(())
}
