//! `anmin walk`: walk tests and their coverage, from a terminal. A client like [`super::alarm`].

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::alarm::{Desk, EXIT_CODES, Failure, Said, Who, level, minutes, moment, read, run, save, segment};
use super::table::Table;
use crate::web::client::{Client, ClientError};
use crate::web::walks::{CoverageWire, TickWire, WalkViewWire, WalkWire, WalksWire};

/// `anmin walk`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct WalkOptions {
    #[command(flatten)]
    desk: Desk,
    #[command(subcommand)]
    command: WalkCommand,
}

#[derive(Debug, Subcommand)]
enum WalkCommand {
    /// Start a walk test: the first alarm of each detector in its area is taken for a test, for three minutes.
    #[command(
        after_help = "Real at once, and called as ever: what speaks for longer than three minutes or when the walk ends, a detector that is pressed a second time, a second device or another danger in the same room, whatever lies outside."
    )]
    Start {
        /// The id of a `[[place]]`; without area, grid and building it is the whole site.
        #[arg(long, default_value = "")]
        area: String,
        #[arg(long, default_value = "")]
        grid: String,
        #[arg(long, default_value = "")]
        building: String,
        /// Only points of this kind, such as fire.smoke; may be given again. All that can be tested where nobody says.
        #[arg(long = "kind", value_name = "KIND")]
        kinds: Vec<String>,
        /// How long, such as 30m or 2h; 8 h at most. It ends by itself.
        #[arg(long = "for", value_name = "DURATION", value_parser = minutes, default_value = "2h")]
        minutes: u32,
        /// What it is called.
        #[arg(long, default_value = "")]
        name: String,
        #[command(flatten)]
        who: Who,
    },
    /// End a walk test. A detector that still speaks is real from then on.
    End {
        #[command(flatten)]
        walk: Walk,
        #[command(flatten)]
        who: Who,
    },
    /// Walk tests, the last first, and what speaks now.
    List,
    /// What has answered in a walk test.
    Show {
        #[command(flatten)]
        walk: Walk,
    },
    /// Which detectors were never tested, or not for a year: by building and kind, and one by one.
    Coverage {
        /// Only this building.
        #[arg(long)]
        building: Option<String>,
        /// Only points of this kind.
        #[arg(long)]
        kind: Option<String>,
        /// Write every point with its last test to this file, as CSV.
        #[arg(long, value_name = "FILE")]
        csv: Option<PathBuf>,
    },
}

/// Which walk test.
#[derive(Debug, Args)]
struct Walk {
    /// The walk's id; by default the one that is on, or else the last.
    #[arg(value_name = "WALK")]
    id: Option<String>,
}

pub fn walk(options: WalkOptions) -> std::process::ExitCode {
    run(&options.desk, |client| obey(client, options.command))
}

async fn obey(client: Client, command: WalkCommand) -> Result<Said, Failure> {
    let json = match command {
        WalkCommand::List => return list(&client).await,
        WalkCommand::Show { walk } => return show(&client, walk).await,
        WalkCommand::Coverage { building, kind, csv } => return coverage(&client, building, kind, csv).await,
        WalkCommand::Start { area, grid, building, kinds, minutes, name, who } => {
            let body = json!({
                "who": who.name()?, "area": area, "grid": grid, "building": building,
                "kinds": kinds, "minutes": minutes, "name": name,
            });
            client.post("/walks", &body).await?
        }
        WalkCommand::End { walk, who } => {
            let id = walk.resolve(&client).await?;
            client.post(&format!("/walks/{id}/end"), &json!({ "who": who.name()? })).await?
        }
    };
    let lines = head(&read(&json)?);
    Ok(Said { json, lines })
}

async fn list(client: &Client) -> Result<Said, Failure> {
    let json = client.get("/walks?limit=1000").await?;
    let found: WalksWire = read(&json)?;
    if found.walks.is_empty() {
        return Ok(Said { json, lines: vec!["没有巡检测试记录 · no walk tests".to_owned()] });
    }
    let mut table = Table::default();
    table.row(["编号 ID", "开始 STARTED", "结束 ENDED", "已测 TESTED", "范围 AREA"].map(str::to_owned));
    for walk in &found.walks {
        let ended = walk.ended_at.as_deref().map_or_else(|| "进行中 on".to_owned(), moment);
        let area = format!("{} {}\n{}", walk.scope.zh, walk.name, walk.scope.en);
        let tested = format!("{} / {}", walk.ticked, walk.points);
        table.row([walk.id.clone(), moment(&walk.started_at), ended, tested, area]);
    }
    let mut lines = table.lines();
    if !found.speaking.is_empty() {
        lines.extend([String::new(), "正在测试 · being tested".to_owned()]);
        lines.extend(ticks(&found.speaking));
    }
    Ok(Said { json, lines })
}

async fn show(client: &Client, walk: Walk) -> Result<Said, Failure> {
    let json = client.get(&format!("/walks/{}", walk.resolve(client).await?)).await?;
    let view: WalkViewWire = read(&json)?;
    let mut lines = head(&view.walk);
    lines.extend(ticks(&view.ticks));
    Ok(Said { json, lines })
}

async fn coverage(
    client: &Client,
    building: Option<String>,
    kind: Option<String>,
    csv: Option<PathBuf>,
) -> Result<Said, Failure> {
    let asked = [("building", building), ("kind", kind)];
    let asked: Vec<String> =
        asked.iter().filter_map(|(key, word)| Some(format!("{key}={}", segment(word.as_deref()?)))).collect();
    let query = if asked.is_empty() { String::new() } else { format!("?{}", asked.join("&")) };
    let json = client.get(&format!("/coverage{query}")).await?;
    let found: CoverageWire = read(&json)?;
    let mut lines = vec![format!(
        "{} 天内已测试 tested within {} days {} / {}；超期 overdue {}；从未 never {}",
        found.every_days, found.every_days, found.tested, found.points, found.overdue, found.never
    )];
    let mut table = Table::default();
    table.row(
        ["楼栋 BUILDING", "类型 KIND", "测点 POINTS", "已测 TESTED", "超期 OVERDUE", "从未 NEVER"].map(str::to_owned),
    );
    for row in &found.rows {
        let numbers = [row.points, row.tested, row.overdue, row.never].map(|n| n.to_string());
        let [points, tested, overdue, never] = numbers;
        let kind = format!("{} {}", row.kind_title.zh, row.kind);
        table.row([row.building.clone(), kind, points, tested, overdue, never]);
    }
    lines.extend(table.lines());
    if !found.due.is_empty() {
        let mut table = Table::default();
        table.row(["测点 POINT", "类型 KIND", "上次 LAST", "地点 PLACE"].map(str::to_owned));
        for due in &found.due {
            let last = due.last_tested.as_deref().map_or_else(|| "从未 never".to_owned(), moment);
            let place = format!("{}\n{}", due.place.zh, due.place.en);
            table.row([due.point.clone(), format!("{} {}", due.kind_title.zh, due.kind), last, place]);
        }
        lines.push(String::new());
        lines.extend(table.lines());
    }
    if let Some(path) = csv {
        save(&path, &client.fetch(&format!("/coverage.csv{query}")).await?)?;
        lines.push(format!("清单已写入 · the list is in {}", path.display()));
    }
    Ok(Said { json, lines })
}

fn head(walk: &WalkWire) -> Vec<String> {
    let state = match (&walk.ended_at, &walk.ended_by) {
        (Some(at), Some(by)) => format!("已结束 ended {}，{by}", moment(at)),
        _ => format!("测试进行中，{} 自动结束 · on, ends by itself", moment(&walk.ends_at)),
    };
    let kinds = if walk.kinds.is_empty() { "全部 all".to_owned() } else { walk.kinds.join(", ") };
    vec![
        format!("【测试】{} {} · {}", walk.scope.zh, walk.name, walk.id),
        format!("[TEST] {}", walk.scope.en),
        format!(
            "{state}；开始 started {}，{}；类型 kinds {kinds}；已测 tested {} / {}",
            moment(&walk.started_at),
            walk.by,
            walk.ticked,
            walk.points
        ),
    ]
}

fn ticks(ticks: &[TickWire]) -> Vec<String> {
    let mut table = Table::default();
    for tick in ticks {
        let state = match tick.state.as_str() {
            "speaking" => "正在报警 speaking",
            "returned" => "正常 works",
            "real" => "真实报警 real",
            _ => "未确认 not known",
        };
        let value = tick.value.map_or_else(String::new, |value| format!("{value} {}", tick.unit));
        let place = format!("{}\n{}", tick.place.zh, tick.place.en);
        table.row([moment(&tick.at), tick.point.clone(), level(&tick.level), value, state.to_owned(), place]);
    }
    table.lines()
}

impl Walk {
    async fn resolve(self, client: &Client) -> Result<String, Failure> {
        if let Some(id) = self.id {
            return Ok(segment(id.trim()));
        }
        let found: WalksWire = read(&client.get("/walks").await?)?;
        let on = found.walks.iter().find(|walk| walk.on).or(found.walks.first());
        let none =
            || Failure::Client(ClientError::Unusable("没有巡检测试记录 · there has been no walk test".to_owned()));
        on.map(|walk| walk.id.clone()).ok_or_else(none)
    }
}
