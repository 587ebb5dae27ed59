//! `anmin drill`: a drill for an area, from a terminal. A client like [`super::alarm`].

use std::path::PathBuf;

use anmin_rules::drill::Scenario;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::alarm::{Desk, EXIT_CODES, Failure, Said, Who, level, minutes, moment, read, run};
use super::table::Table;
use crate::web::client::{Client, ClientError};
use crate::web::drills::{ClockWire, DrillViewWire, DrillWire, DrillsWire};

/// `anmin drill`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct DrillOptions {
    #[command(flatten)]
    desk: Desk,
    #[command(subcommand)]
    command: DrillCommand,
}

#[derive(Debug, Subcommand)]
enum DrillCommand {
    /// Start a drill. All that it raises is marked as a drill; what is real in its area stays real.
    Start {
        /// The id of a `[[place]]`; without area, grid and building it is the whole site.
        #[arg(long, default_value = "")]
        area: String,
        #[arg(long, default_value = "")]
        grid: String,
        #[arg(long, default_value = "")]
        building: String,
        /// How long, such as 30m or 2h; 4 h at most. It ends by itself.
        #[arg(long = "for", value_name = "DURATION", value_parser = minutes, default_value = "60m")]
        minutes: u32,
        /// What it is called.
        #[arg(long, default_value = "")]
        name: String,
        /// Those who will be called know of it.
        #[arg(long)]
        announced: bool,
        #[command(flatten)]
        alarms: Alarms,
        #[command(flatten)]
        who: Who,
    },
    /// Raise an alarm in a drill that is on.
    Raise {
        #[command(flatten)]
        drill: Drill,
        #[command(flatten)]
        alarms: Alarms,
        #[command(flatten)]
        who: Who,
    },
    /// End a drill: its alarms are closed, crews stood down.
    End {
        #[command(flatten)]
        drill: Drill,
        #[command(flatten)]
        who: Who,
    },
    /// Drills, the last first.
    List,
    /// The score sheet of a drill: who was how fast.
    Report {
        #[command(flatten)]
        drill: Drill,
        /// Write the report that prints, in Chinese and English, to this file.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

/// Which alarms.
#[derive(Debug, Args)]
struct Alarms {
    /// A story with a name.
    #[arg(long, value_parser = Scenario::ALL.map(|scenario| scenario.name))]
    scenario: Option<String>,
    /// Where the story plays: this floor.
    #[arg(long, default_value = "")]
    floor: String,
    /// Where the story plays: this room.
    #[arg(long, default_value = "")]
    room: String,
    /// An alarm of this point, such as g-302/lel or g-302/lel:orange; may be given again.
    #[arg(long = "alarm", value_name = "POINT[:LEVEL]")]
    alarms: Vec<String>,
}

impl Alarms {
    fn put(self, body: &mut Value) {
        let alarm = |given: &String| match given.rsplit_once(':') {
            Some((point, level)) => json!({ "point": point, "level": level }),
            None => json!({ "point": given }),
        };
        body["alarms"] = self.alarms.iter().map(alarm).collect();
        body["floor"] = self.floor.into();
        body["room"] = self.room.into();
        if let Some(scenario) = self.scenario {
            body["scenario"] = scenario.into();
        }
    }
}

/// Which drill.
#[derive(Debug, Args)]
struct Drill {
    /// The drill's id; by default the one that is on, or else the last.
    #[arg(value_name = "DRILL")]
    id: Option<String>,
}

pub fn drill(options: DrillOptions) -> std::process::ExitCode {
    run(&options.desk, |client| obey(client, options.command))
}

async fn obey(client: Client, command: DrillCommand) -> Result<Said, Failure> {
    let json = match command {
        DrillCommand::List => return list(&client).await,
        DrillCommand::Report { drill, out } => return report(&client, drill, out).await,
        DrillCommand::Start { area, grid, building, minutes, name, announced, alarms, who } => {
            let mut body = json!({
                "who": who.name()?, "area": area, "grid": grid, "building": building,
                "minutes": minutes, "name": name, "announced": announced,
            });
            alarms.put(&mut body);
            client.post("/drills", &body).await?
        }
        DrillCommand::Raise { drill, alarms, who } => {
            let mut body = json!({ "who": who.name()? });
            alarms.put(&mut body);
            client.post(&format!("/drills/{}/raise", drill.resolve(&client).await?), &body).await?
        }
        DrillCommand::End { drill, who } => {
            let id = drill.resolve(&client).await?;
            client.post(&format!("/drills/{id}/end"), &json!({ "who": who.name()? })).await?
        }
    };
    let lines = head(&read(&json)?);
    Ok(Said { json, lines })
}

async fn list(client: &Client) -> Result<Said, Failure> {
    let json = client.get("/drills?limit=1000").await?;
    let found: DrillsWire = read(&json)?;
    if found.drills.is_empty() {
        return Ok(Said { json, lines: vec!["没有演练记录 · no drills".to_owned()] });
    }
    let mut table = Table::default();
    table.row(["编号 ID", "开始 STARTED", "结束 ENDED", "报警 ALARMS", "范围 AREA"].map(str::to_owned));
    for drill in &found.drills {
        let ended = drill.ended_at.as_deref().map_or_else(|| "进行中 on".to_owned(), moment);
        let area = format!("{} {}\n{}", drill.scope.zh, drill.name, drill.scope.en);
        table.row([drill.id.clone(), moment(&drill.started_at), ended, drill.alarms.to_string(), area]);
    }
    Ok(Said { json, lines: table.lines() })
}

async fn report(client: &Client, drill: Drill, out: Option<PathBuf>) -> Result<Said, Failure> {
    let id = drill.resolve(client).await?;
    let json = client.get(&format!("/drills/{id}")).await?;
    let view: DrillViewWire = read(&json)?;
    let mut lines = head(&view.drill);
    lines.push(format!("达标时限 clocks kept {} / {}", view.score.kept, view.score.of));
    for scored in &view.score.alarms {
        lines.extend([
            String::new(),
            format!(
                "{} · {} {} · {}",
                level(&scored.level),
                scored.title.zh,
                scored.place.zh,
                moment(&scored.raised_at)
            ),
            format!("  {}, {}", scored.title.en, scored.place.en),
        ]);
        let mut table = Table::default();
        scored.clocks.iter().for_each(|clock| table.row(row(clock)));
        lines.extend(table.lines().iter().map(|line| format!("  {line}")));
    }
    if let Some(path) = out {
        let html = client.fetch(&format!("/drills/{id}/report")).await?;
        super::alarm::save(&path, &html)?;
        lines.push(format!("报告已写入 · the report is in {}", path.display()));
    }
    Ok(Said { json, lines })
}

fn head(drill: &DrillWire) -> Vec<String> {
    let state = match (&drill.ended_at, &drill.ended_by) {
        (Some(at), Some(by)) => format!("已结束 ended {}，{by}", moment(at)),
        _ => format!("演练进行中，{} 自动结束 · on, ends by itself", moment(&drill.ends_at)),
    };
    let announced = if drill.announced { "已事先通知 announced" } else { "未事先通知 not announced" };
    vec![
        format!("【演练】{} {} · {}", drill.scope.zh, drill.name, drill.id),
        format!("[DRILL] {}", drill.scope.en),
        format!(
            "{state}；开始 started {}，{}；{announced}；报警 alarms {}",
            moment(&drill.started_at),
            drill.by,
            drill.alarms
        ),
    ]
}

/// A clock's word in both languages.
pub(super) fn stage(word: &str) -> &str {
    match word {
        "notified" => "通知送达 notified",
        "acknowledged" => "值班确认 acknowledged",
        "accepted" => "应答 accepted",
        "on_scene" => "到场 on scene",
        "under_control" => "处置完毕 under control",
        other => other,
    }
}

fn row(clock: &ClockWire) -> [String; 4] {
    let what = stage(&clock.what);
    let took = clock.took_seconds.map_or_else(|| "–".to_owned(), |took| format!("{took:.1} s"));
    let kept = match (clock.kept, clock.took_seconds) {
        (true, _) => "达标 kept",
        (false, Some(_)) => "超时 late",
        (false, None) => "未完成 not done",
    };
    let who = clock.station.as_ref().map_or_else(String::new, |station| format!("{} ", station.zh));
    [what.to_owned(), format!("{who}{}", clock.by), format!("{took} / {} s", clock.within_seconds), kept.to_owned()]
}

impl Drill {
    async fn resolve(self, client: &Client) -> Result<String, Failure> {
        if let Some(id) = self.id {
            return Ok(super::alarm::segment(id.trim()));
        }
        let found: DrillsWire = read(&client.get("/drills").await?)?;
        let on = found.drills.iter().find(|drill| drill.on).or(found.drills.first());
        on.map(|drill| drill.id.clone())
            .ok_or_else(|| Failure::Client(ClientError::Unusable("没有演练记录 · there has been no drill".to_owned())))
    }
}
