//! `anmin quarantine`: what speaks and is not used, from a terminal, and taking it in.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::alarm::{self, Desk, EXIT_CODES, Failure, Said, Who, segment};
use super::table::Table;
use crate::web::client::Client;
use crate::web::devices::{AdoptedWire, GuessesWire};
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
    #[command(subcommand)]
    command: Option<QuarantineCommand>,
}

#[derive(Debug, Subcommand)]
enum QuarantineCommand {
    /// Take a device in, as the duty desk's page does; what it may be where no profile is named.
    #[command(after_help = EXIT_CODES)]
    Adopt(Adopt),
}

#[derive(Debug, Args)]
struct Adopt {
    /// What it calls itself.
    device: String,
    /// What it is. Where nobody says, the likeliest are listed and nothing is written.
    #[arg(long, value_name = "ID")]
    profile: Option<String>,
    /// What people call it.
    #[arg(long, default_value = "")]
    name: String,
    /// The same in English; as `--name` where nobody says.
    #[arg(long, default_value = "")]
    name_en: String,
    /// The id of a `[[place]]`.
    #[arg(long, default_value = "")]
    place: String,
    #[arg(long, default_value = "")]
    unit: String,
    #[arg(long, default_value = "")]
    floor: String,
    #[arg(long, default_value = "")]
    room: String,
    /// Only say what would be written.
    #[arg(long)]
    preview: bool,
    #[command(flatten)]
    who: Who,
}

async fn adopt(client: Client, options: Adopt) -> Result<Said, Failure> {
    let Adopt { device, profile, name, name_en, place, unit, floor, room, preview, who } = options;
    let Some(profile) = profile else { return guesses(client, &device).await };
    let body = json!({
        "who": who.name()?, "device": device, "profile": profile, "name": name, "name_en": name_en, "place": place,
        "unit": unit, "floor": floor, "room": room, "preview": preview,
    });
    let json = client.post_and_wait("/quarantine/adopt", &body).await?;
    let AdoptedWire { applied, row, points, faults, reloaded, .. } = alarm::read(&json)?;
    let mut lines: Vec<String> = faults.iter().map(|fault| format!("error: {} · {}", fault.zh, fault.en)).collect();
    let cells: Vec<String> = row.iter().map(|(key, cell)| format!("{key} {cell}")).collect();
    lines.push(cells.join(", "));
    lines.extend(points.iter().map(|point| format!("+ {}  {} · {}", point.id, point.title.zh, point.title.en)));
    let part = format!("[[device]] {device}");
    let waits = reloaded.is_some_and(|reloaded| reloaded.waits_for_restart.contains(&part));
    lines.push(match (applied, waits) {
        (false, _) => "预览，未作改动 · a preview: nothing was changed".to_owned(),
        (true, false) => "已接纳，现在起的数据立即判断 · taken in; what it says from now on is judged".to_owned(),
        (true, true) => "已写入，重启安民后生效 · written; in force after a restart of anmin".to_owned(),
    });
    Ok(Said { json, lines })
}

/// What a device may be, the likeliest first.
async fn guesses(client: Client, device: &str) -> Result<Said, Failure> {
    let json = client.get(&format!("/quarantine/guess?device={}", segment(device))).await?;
    let GuessesWire { profiles, places, .. } = alarm::read(&json)?;
    let mut table = Table::default();
    table.row(["型号 PROFILE", "可能 LIKELY", "名称 TITLE", "读出 READS"].map(str::to_owned));
    for guess in profiles.iter().filter(|guess| guess.score > 0.0 || guess.named) {
        let reads: Vec<String> = guess.points.iter().map(|point| read_as(&point.name, &json!(point.value))).collect();
        let title = format!("{}\n{}", guess.title.zh, guess.title.en);
        table.row([guess.profile.clone(), format!("{:.2}", guess.score), title, reads.join("\n")]);
    }
    let mut lines = table.lines();
    let places: Vec<&str> = places.iter().map(|place| place.id.as_str()).collect();
    lines.push(format!("地点 places: {}", places.join(", ")));
    lines.push("用 --profile 指定型号 · name one with --profile".to_owned());
    Ok(Said { json, lines })
}

fn read_as(name: &str, value: &Value) -> String {
    format!("{name} = {value}")
}

pub fn quarantine(options: QuarantineOptions) -> ExitCode {
    let limit = options.limit;
    if let Some(QuarantineCommand::Adopt(adopting)) = options.command {
        return alarm::run(&options.desk, |client| adopt(client, adopting));
    }
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
