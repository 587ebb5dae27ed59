//! `anmin quarantine`: what speaks and is not used, from a terminal.

use clap::Args;
use std::process::ExitCode;

use super::alarm::{self, Desk, EXIT_CODES, Said};
use super::table::Table;
use crate::web::wire::{QuarantinedWire, UnusableWire};

/// Characters of a payload in one line.
const SHOWN: usize = 60;

/// `anmin quarantine`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct QuarantineOptions {
    #[command(flatten)]
    desk: Desk,
    /// Payloads at most, the newest first.
    #[arg(long, default_value_t = 20)]
    limit: u16,
}

pub fn quarantine(options: QuarantineOptions) -> ExitCode {
    let limit = options.limit;
    alarm::run(&options.desk, |client| async move {
        let devices = client.get("/quarantine").await?;
        let messages = client.get(&format!("/quarantine/messages?limit={limit}")).await?;
        let (found, kept): (Vec<QuarantinedWire>, Vec<UnusableWire>) =
            (alarm::read(&devices)?, alarm::read(&messages)?);
        let mut lines = Vec::new();
        if !found.is_empty() {
            lines.push("没有登记的设备 · devices that nobody registered".to_owned());
            let mut table = Table::default();
            table.row(["设备 DEVICE", "代理 BROKER", "消息 MESSAGES", "最近 LAST", "主题 TOPIC"].map(str::to_owned));
            for row in &found {
                let last = alarm::moment(&row.last);
                table.row([row.device.clone(), row.source.clone(), row.messages.to_string(), last, row.topic.clone()]);
            }
            lines.extend(table.lines());
        }
        if !kept.is_empty() {
            lines.push("无法识别的消息 · messages that nobody can read".to_owned());
            let mut table = Table::default();
            table.row(["主题 TOPIC", "原因 WHY", "消息 MESSAGES", "最近 LAST", "内容 PAYLOAD"].map(str::to_owned));
            for row in &kept {
                // Escaped: whatever a device sends must not reach the terminal as it is.
                let start: String = row.excerpt.chars().take(SHOWN).collect();
                let last = alarm::moment(&row.last);
                table.row([row.topic.clone(), row.why.clone(), row.messages.to_string(), last, format!("{start:?}")]);
            }
            lines.extend(table.lines());
        }
        if lines.is_empty() {
            lines.push("隔离区为空 · the quarantine is empty".to_owned());
        }
        let json = serde_json::json!({ "devices": devices, "messages": messages });
        Ok(Said { json, lines })
    })
}
