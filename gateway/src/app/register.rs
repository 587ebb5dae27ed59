//! `anmin register`: stock, shelters, teams, heads of buildings and households, in and out of spreadsheets. A client like
//! [`super::alarm`].

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::alarm::{Desk, EXIT_CODES, Failure, Said, Who, read, run, save};
use super::table::Table;
use crate::register::{Kind, MOST_BYTES};
use crate::spreadsheet::Encoding;
use crate::web::client::{Client, ClientError};
use crate::web::registers::{ImportedWire, RegisterWire};

/// `anmin register`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct RegisterOptions {
    #[command(flatten)]
    desk: Desk,
    #[command(subcommand)]
    command: RegisterCommand,
}

#[derive(Debug, Subcommand)]
enum RegisterCommand {
    /// The rows of a register.
    List {
        /// Which register.
        #[arg(value_parser = Kind::ALL.map(Kind::as_str))]
        kind: String,
    },
    /// Take rows from a CSV file, UTF-8 or GBK. A file with one fault changes nothing.
    Import {
        /// Which register.
        #[arg(value_parser = Kind::ALL.map(Kind::as_str))]
        kind: String,
        file: PathBuf,
        /// The file is the whole register: rows that it does not have go.
        #[arg(long)]
        replace: bool,
        /// Say what would change, and change nothing.
        #[arg(long)]
        preview: bool,
        #[command(flatten)]
        who: Who,
    },
    /// Write a register as CSV, with Chinese heads, for a spreadsheet.
    Export {
        /// Which register.
        #[arg(value_parser = Kind::ALL.map(Kind::as_str))]
        kind: String,
        /// A new file.
        file: PathBuf,
        #[arg(long, value_enum, default_value_t = Written::Utf8)]
        encoding: Written,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Written {
    /// With the mark by which Excel knows it.
    Utf8,
    Gbk,
}

pub fn register(options: RegisterOptions) -> std::process::ExitCode {
    run(&options.desk, |client| obey(client, options.command))
}

async fn obey(client: Client, command: RegisterCommand) -> Result<Said, Failure> {
    match command {
        RegisterCommand::List { kind } => list(&client, &kind).await,
        RegisterCommand::Export { kind, file, encoding } => {
            let encoding = match encoding {
                Written::Utf8 => Encoding::Utf8,
                Written::Gbk => Encoding::Gbk,
            };
            let bytes = client.fetch(&format!("/registers/{kind}/sheet?encoding={}", encoding.as_str())).await?;
            save(&file, &bytes)?;
            let shown = file.display();
            let lines = vec![format!("已写入 · written to {shown}")];
            Ok(Said { json: json!({ "file": file, "bytes": bytes.len() }), lines })
        }
        RegisterCommand::Import { kind, file, replace, preview, who } => {
            let unreadable = |why: String| Failure::Client(ClientError::Unusable(format!("{}: {why}", file.display())));
            let size = std::fs::metadata(&file).map_err(|error| unreadable(error.to_string()))?.len();
            if size > MOST_BYTES as u64 {
                return Err(unreadable(format!("it has {size} bytes, {MOST_BYTES} are the most")));
            }
            let bytes = std::fs::read(&file).map_err(|error| unreadable(error.to_string()))?;
            let body = json!({
                "who": who.name()?, "sheet": STANDARD.encode(bytes), "replace": replace, "preview": preview,
            });
            let json = client.post_and_wait(&format!("/registers/{kind}/import"), &body).await?;
            let said: ImportedWire = read(&json)?;
            if !said.faults.is_empty() {
                let faults = said.faults.iter().map(|fault| {
                    let hint = fault.hint.as_ref().map_or_else(String::new, |hint| format!("\n  hint: {hint}"));
                    format!(
                        "第 {} 行 {}：{}\nrow {} {}: {}{hint}",
                        fault.row, fault.column, fault.text.zh, fault.row, fault.column, fault.text.en
                    )
                });
                let faults = faults.collect::<Vec<_>>().join("\n");
                return Err(unreadable(format!("没有写入任何内容 · nothing was taken\n{faults}")));
            }
            let done = if said.applied { "已导入 imported" } else { "将会 would be" };
            let lines = vec![format!(
                "{done}：新增 added {}，修改 changed {}，删除 removed {}，不变 unchanged {}",
                said.added, said.changed, said.removed, said.unchanged
            )];
            Ok(Said { json, lines })
        }
    }
}

async fn list(client: &Client, kind: &str) -> Result<Said, Failure> {
    let json = client.get(&format!("/registers/{kind}")).await?;
    let found: RegisterWire = read(&json)?;
    let mut lines = vec![format!("{} · {}：{}", found.title.zh, found.title.en, found.rows.len())];
    if found.masked {
        lines.push("部分内容已隐去 · some cells are not shown to you".to_owned());
    }
    let mut table = Table::default();
    table.row(found.columns.iter().map(|column| format!("{} {}", column.title.zh, column.name)));
    for row in &found.rows {
        table.row(found.columns.iter().map(|column| row.get(&column.name).cloned().unwrap_or_default()));
    }
    lines.extend(table.lines());
    Ok(Said { json, lines })
}
