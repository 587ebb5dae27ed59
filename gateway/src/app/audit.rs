//! `anmin audit`: who did what and when.
//!
//! `list` asks the running daemon. `verify` reads the journal's file itself, whether a daemon runs or not: what is to prove
//! something must not depend on the word of the program that wrote it.

use std::path::PathBuf;
use std::process::ExitCode;

use anmin_rules::rule::Text;
use anmin_sensors::time::Wall;
use clap::{Args, Subcommand};
use jiff::tz::TimeZone;
use serde_json::Value;

use super::alarm::{Desk, EXIT_CODES, Failure, Said, moment, read, run, segment};
use super::keep::{Problem, end, storage_of};
use super::table::Table;
use crate::store::StateReader;
use crate::store::audit::{Chain, hex};
use crate::store::backup::MANIFEST;
use crate::web::client::Client;
use crate::web::wire::{AuditWire, DeedWire, stamp};

/// `anmin audit`.
#[derive(Debug, Args)]
pub struct AuditOptions {
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// What people and anmin itself did, the newest first; refused commands, too.
    #[command(after_help = EXIT_CODES)]
    List(ListOptions),
    /// Walk the chain of all rows and name the first that is not what was written. The daemon may run.
    #[command(after_help = "Exit codes: 0 whole, 1 broken, or it could not be read; 2 used wrongly.")]
    Verify {
        /// The site's folder, its configuration file, or the folder of a backup.
        #[arg(default_value = "/etc/anmin")]
        site: PathBuf,
    },
}

#[derive(Debug, Args)]
struct ListOptions {
    #[command(flatten)]
    desk: Desk,
    /// Only from this moment on, such as 2026-01-31T08:00:00+08:00.
    #[arg(long, value_name = "MOMENT")]
    since: Option<String>,
    /// Only before this moment.
    #[arg(long, value_name = "MOMENT")]
    until: Option<String>,
    /// Only of this person, by the name that was given.
    #[arg(long)]
    who: Option<String>,
    /// Rows at most.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

pub fn audit(options: AuditOptions) -> ExitCode {
    match options.command {
        AuditCommand::List(ListOptions { desk, since, until, who, limit }) => run(&desk, |client| {
            let asked = [("since", since), ("until", until), ("who", who)];
            list(client, asked, limit as usize)
        }),
        AuditCommand::Verify { site } => end(|| {
            // A backup holds the journal itself, and no configuration where one is looked for.
            let is_backup = site.join(MANIFEST).is_file();
            let (storage, zone) = if is_backup { (site, TimeZone::UTC) } else { storage_of(&site)? };
            let chain = StateReader::open(&storage).and_then(|journal| journal.verify_audit())?;
            tell(&chain, &zone)
        }),
    }
}

/// Page after page until there are `limit` rows, or all.
async fn list(client: Client, asked: [(&str, Option<String>); 3], limit: usize) -> Result<Said, Failure> {
    const PAGE: usize = 1_000;
    let asked: Vec<String> =
        asked.iter().filter_map(|(key, word)| Some(format!("{key}={}", segment(word.as_deref()?)))).collect();
    let mut rows: Vec<Value> = Vec::new();
    let mut next = None;
    loop {
        let mut query = vec![format!("limit={}", (limit - rows.len()).min(PAGE))];
        query.extend(next.map(|n: i64| format!("before={n}")));
        query.extend_from_slice(&asked);
        let mut page = client.get(&format!("/audit?{}", query.join("&"))).await?;
        next = page["next"].as_i64();
        rows.append(page["rows"].as_array_mut().unwrap_or(&mut Vec::new()));
        if next.is_none() || rows.len() >= limit {
            break;
        }
    }
    let json = serde_json::json!({ "rows": rows, "next": next });
    let AuditWire { rows, .. } = read(&json)?;
    if rows.is_empty() {
        return Ok(Said { json, lines: vec!["没有记录 · nothing is recorded".to_owned()] });
    }
    let mut table = Table::default();
    table.row(
        ["序号 N", "时间 AT", "操作人 WHO", "途径 FROM", "操作 WHAT", "对象 ABOUT", "结果 OUTCOME"].map(str::to_owned),
    );
    rows.iter().for_each(|row| put(row, &mut table));
    Ok(Said { json, lines: table.lines() })
}

fn put(row: &DeedWire, table: &mut Table) {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let from = [&row.through, &row.address].into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join(" ");
    let outcome = match (&row.damaged, &row.refused) {
        (Some(why), _) => format!("损坏 damaged: {why}"),
        (None, Some(why)) => format!("拒绝：{}\nrefused: {}", why.zh, why.en),
        (None, None) if row.detail.is_null() => "完成 done".to_owned(),
        (None, None) => format!("完成 done\n{}", row.detail),
    };
    let at = row.at.as_deref().map(moment).unwrap_or_default();
    table.row([row.n.to_string(), at, text(&row.who), from, text(&row.what), text(&row.about), outcome]);
}

/// Says how the chain stands; an error where it is broken.
fn tell(chain: &Chain, zone: &TimeZone) -> Result<(), Problem> {
    let at = |end: Option<(i64, Wall)>| {
        end.map_or_else(|| ("-".to_owned(), "-".to_owned()), |(n, at)| (n.to_string(), stamp(at, zone)))
    };
    let ((first, since), (last, until)) = (at(chain.first), at(chain.last));
    println!(
        "审计记录 {} 条：第 {first} 条（{since}）至第 {last} 条（{until}）· {} rows: {first} ({since}) to {last} ({until})",
        chain.rows, chain.rows
    );
    match &chain.broken {
        None => {
            println!("完整；末条哈希 {head} · whole; the hash of the last row is {head}", head = hex(&chain.head));
            Ok(())
        }
        Some((_, Text { zh, en })) => Err(Problem {
            text: Text {
                zh: format!("审计链已断开：{zh}"),
                en: format!("the chain of the audit is broken: {en}"),
            },
            hint: Some(Text {
                zh: "与备份中的审计记录比对；数据库曾损坏修复时，原文件以 .bad- 开头的后缀保存在同一目录".to_owned(),
                en: "compare with the audit in a backup; where the database was damaged and mended, the old file lies beside it with .bad- in its name"
                    .to_owned(),
            }),
        }),
    }
}
