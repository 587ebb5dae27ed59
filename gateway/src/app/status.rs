//! `anmin status`: how a running daemon stands, from a terminal. Exit codes as those of `anmin alarm`.

use std::process::ExitCode;
use std::time::Duration;

use anmin_rules::rule::Level;
use clap::Args;
use jiff::Timestamp;

use super::alarm::{Desk, EXIT_CODES, Failure, Said, level, moment, read, run as ask};
use super::table::Table;
use crate::web::client::Client;
use crate::web::wire::{DatabaseWire, StatusWire};

/// `anmin status`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct Options {
    #[command(flatten)]
    desk: Desk,
}

pub fn run(options: &Options) -> ExitCode {
    ask(&options.desk, look)
}

async fn look(client: Client) -> Result<Said, Failure> {
    let json = client.get("/status").await?;
    let lines = lines(&read(&json)?);
    Ok(Said { json, lines })
}

fn lines(status: &StatusWire) -> Vec<String> {
    let mut table = Table::default();
    let mut put = |name: &str, text: String| table.row([name.to_owned(), text]);
    let exercise = if status.exercise { "，演练 exercise" } else { "" };
    put("站点 site", format!("{} · {}（{}）{exercise}", status.name.zh, status.name.en, status.site));
    put("运行 uptime", format!("{}，anmin {}", span(Duration::from_secs(status.uptime_seconds)), status.version));
    put("报警 alarms", alarms(status));
    put("出动 calls", status.live_calls.to_string());
    put("自检 self-test", self_test(status));
    for trouble in &status.troubles {
        let (level, message) = (level(&trouble.level), &trouble.message);
        put("异常 trouble", format!("{level}，{}\n{}\n{}", trouble.part, message.zh, message.en));
    }
    for rule in &status.broken_rules {
        put("规则失效 broken rule", rule.clone());
    }
    put("待送消息 orders waiting", status.orders_waiting.to_string());
    if status.databases.is_empty() {
        put("转存 forwarding", "未配置数据库 no database is configured".to_owned());
    }
    for database in &status.databases {
        put(&format!("转存 forwarding {}", database.id), forwarding(database, &status.now));
    }
    let gaps = &status.gaps;
    for gap in &gaps.newest {
        let stretch = format!("{} – {}", moment(&gap.from), moment(&gap.to));
        put("缺口 gap", format!("{stretch}，{} 条 readings", gap.readings));
    }
    if gaps.count > gaps.newest.len() as u64 {
        put("缺口 gaps", format!("共 in all {}", gaps.count));
    }
    table.lines()
}

fn alarms(status: &StatusWire) -> String {
    let by_level = &status.by_level;
    let levels = [
        (Level::Red, by_level.red),
        (Level::Orange, by_level.orange),
        (Level::Yellow, by_level.yellow),
        (Level::Blue, by_level.blue),
    ];
    let levels: Vec<String> = levels.map(|(of, count)| format!("{} {count}", level(of.as_str()))).into();
    let silenced = status.open_alarms.saturating_sub(by_level.red + by_level.orange + by_level.yellow + by_level.blue);
    format!("{}，搁置与停用 silenced {silenced}", levels.join("，"))
}

fn self_test(status: &StatusWire) -> String {
    let test = &status.self_test;
    let last = match (&test.last, test.took_ms) {
        (Some(at), Some(took)) => format!("{} 通过 passed，{took} ms", moment(at)),
        _ => "尚未通过 not passed yet".to_owned(),
    };
    format!("{last}，失败 failed {}", test.failed)
}

/// What waits for a database, and when it will have it.
fn forwarding(database: &DatabaseWire, now: &str) -> String {
    let catch_up = match database.catch_up_seconds {
        Some(0) => "及时 keeps up".to_owned(),
        Some(seconds) => format!("约 {} 后赶上 catches up", span(Duration::from_secs(seconds))),
        None => "没有减少 not catching up".to_owned(),
    };
    let mut lines = vec![format!(
        "{catch_up}，待转存 waiting {}（{}），速度 rate {}/s",
        database.waiting,
        bytes(database.bytes),
        database.rate_per_second
    )];
    if let Some(oldest) = &database.oldest {
        let age = age(oldest, now).map(span).unwrap_or_default();
        lines.push(format!("最早 oldest {}，{age}", moment(oldest)));
    }
    if database.dropped > 0 {
        lines.push(format!("已丢弃 dropped {}", database.dropped));
    }
    lines.join("\n")
}

fn age(at: &str, now: &str) -> Option<Duration> {
    let (at, now): (Timestamp, Timestamp) = (at.parse().ok()?, now.parse().ok()?);
    Some(now.duration_since(at).try_into().unwrap_or_default())
}

/// The two largest parts: `45 s`, `3 min 12 s`, `2 h 5 min`, `3 d 4 h`.
fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let parts = [(seconds / 86_400, "d"), (seconds / 3_600 % 24, "h"), (seconds / 60 % 60, "min"), (seconds % 60, "s")];
    let first = parts.iter().position(|(count, _)| *count > 0).unwrap_or(3);
    let shown: Vec<String> = parts[first..].iter().take(2).map(|(count, unit)| format!("{count} {unit}")).collect();
    shown.join(" ")
}

fn bytes(count: u64) -> String {
    match count {
        0..1_024 => format!("{count} B"),
        1_024..1_048_576 => format!("{:.1} KiB", count as f64 / 1_024.0),
        _ => format!("{:.1} MiB", count as f64 / 1_048_576.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_said_as_people_say_them() {
        for (seconds, wanted) in
            [(0, "0 s"), (45, "45 s"), (192, "3 min 12 s"), (7_500, "2 h 5 min"), (273_600, "3 d 4 h")]
        {
            assert_eq!(span(Duration::from_secs(seconds)), wanted);
        }
        for (count, wanted) in [(0, "0 B"), (1_023, "1023 B"), (1_536, "1.5 KiB"), (9_871_360, "9.4 MiB")] {
            assert_eq!(bytes(count), wanted);
        }
    }

    #[test]
    fn an_age_is_between_two_moments_and_never_negative() {
        let now = "2026-01-31T08:00:00.000+08:00";
        for (at, wanted) in
            [("2026-01-30T23:59:00.000+00:00", Some(60)), ("2026-01-31T09:00:00+08:00", Some(0)), ("x", None)]
        {
            assert_eq!(age(at, now).map(|age| age.as_secs()), wanted, "{at}");
        }
    }
}
