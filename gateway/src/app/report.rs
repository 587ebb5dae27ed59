//! `anmin report`: the month's ledger. A client like [`super::alarm`].

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::alarm::{Desk, EXIT_CODES, Failure, Said, level, moment, read, run, save, segment};
use super::incident::ending_of;
use super::table::Table;
use crate::web::client::{Client, ClientError};
use crate::web::ledger::LedgerWire;

/// `anmin report`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct ReportOptions {
    #[command(flatten)]
    desk: Desk,
    #[command(subcommand)]
    command: ReportCommand,
}

#[derive(Debug, Subcommand)]
enum ReportCommand {
    /// The incidents that closed in a month, false alarms by cause, response clocks, drills.
    Month {
        /// Such as 2026-11, by the site's clock.
        month: String,
        /// The incidents as CSV instead of text for people.
        #[arg(long)]
        csv: bool,
        /// Write the report that prints, in Chinese and English, to this file.
        #[arg(long, value_name = "FILE", conflicts_with = "csv")]
        out: Option<PathBuf>,
    },
}

pub fn report(options: ReportOptions) -> std::process::ExitCode {
    run(&options.desk, |client| obey(client, options.command))
}

async fn obey(client: Client, ReportCommand::Month { month, csv, out }: ReportCommand) -> Result<Said, Failure> {
    let path = format!("/reports/month/{}", segment(&month));
    let unreadable = |error: serde_json::Error| ClientError::Unusable(error.to_string());
    // A month may take longer than a question.
    let json: Value = serde_json::from_slice(&client.fetch(&path).await?).map_err(unreadable)?;
    let ledger: LedgerWire = read(&json)?;
    if csv {
        let lines = rows(&ledger).map_err(|error| ClientError::Unusable(error.to_string()))?;
        return Ok(Said { json, lines });
    }
    let mut lines = vec![format!("{}：结案事件 incidents closed {}", ledger.month, ledger.incidents.len())];
    let mut table = Table::default();
    for one in &ledger.outcomes {
        table.row([ending_of(&one.outcome, one.cause.as_deref()), one.incidents.to_string()]);
    }
    lines.extend(table.lines());
    let mut table = Table::default();
    table.row(["环节 STAGE", "达标 KEPT", "中位 MEDIAN", "最长 LONGEST"].map(str::to_owned));
    let seconds = |took: Option<f64>| took.map_or_else(|| "–".to_owned(), |took| format!("{took:.1} s"));
    for clock in &ledger.clocks {
        let kept = format!("{} / {}", clock.kept, clock.of);
        let what = super::drill::stage(&clock.what);
        table.row([what.to_owned(), kept, seconds(clock.median_seconds), seconds(clock.longest_seconds)]);
    }
    lines.push(String::new());
    lines.extend(table.lines());
    let mut table = Table::default();
    for one in &ledger.incidents {
        let words = format!("{} {}\n{}, {}", one.title.zh, one.place.zh, one.title.en, one.place.en);
        table.row([moment(&one.opened_at), level(&one.peak), ending_of(&one.outcome, one.cause.as_deref()), words]);
    }
    lines.push(String::new());
    lines.extend(table.lines());
    for one in &ledger.drills {
        let (zh, kept) = (&one.drill.scope.zh, format!("{} / {}", one.kept, one.of));
        lines.push(format!(
            "演练 drill {} {zh} {}，达标 kept {kept}",
            moment(&one.drill.started_at),
            one.drill.scope.en
        ));
    }
    if let Some(file) = out {
        save(&file, &client.fetch(&format!("{path}/report")).await?)?;
        lines.push(format!("报告已写入 · the report is in {}", file.display()));
    }
    Ok(Said { json, lines })
}

fn rows(ledger: &LedgerWire) -> Result<Vec<String>, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record([
        "incident",
        "opened_at",
        "closed_at",
        "title_zh",
        "title_en",
        "place_zh",
        "place_en",
        "building",
        "peak",
        "alarms",
        "outcome",
        "cause",
        "why",
        "acknowledged_seconds",
        "accepted_seconds",
        "on_scene_seconds",
    ])?;
    let number = |took: Option<f64>| took.map_or_else(String::new, |took| took.to_string());
    for one in &ledger.incidents {
        writer.write_record([
            &one.incident,
            &one.opened_at,
            &one.closed_at,
            &one.title.zh,
            &one.title.en,
            &one.place.zh,
            &one.place.en,
            &one.place.building,
            &one.peak,
            &one.alarms.to_string(),
            &one.outcome,
            one.cause.as_ref().unwrap_or(&String::new()),
            &one.why,
            &number(one.acknowledged_seconds),
            &number(one.accepted_seconds),
            &number(one.on_scene_seconds),
        ])?;
    }
    let bytes = writer.into_inner().map_err(|error| error.into_error())?;
    Ok(String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect())
}
