//! `anmin station`: who is on duty in the micro fire stations, hand-over, equipment checks. A client like [`super::alarm`].

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::alarm::{Desk, EXIT_CODES, Failure, Said, Who, moment, read, run, segment};
use super::table::Table;
use crate::web::client::Client;
use crate::web::stations::{MemberWire, StationWire};

/// `anmin station`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct StationOptions {
    #[command(flatten)]
    desk: Desk,
    #[command(subcommand)]
    command: StationCommand,
}

#[derive(Debug, Subcommand)]
enum StationCommand {
    /// All stations: whether each can respond, who is on duty, and its calls.
    List,
    /// One station with its crew and equipment.
    Show {
        /// The station's id.
        station: String,
    },
    /// These take over now, until the next shift begins or ends.
    HandOver {
        /// The station's id.
        station: String,
        /// Ids of those who are on duty from now on; none says that nobody is.
        members: Vec<String>,
        /// What those who take over must know.
        #[arg(long, default_value = "")]
        note: String,
        #[command(flatten)]
        who: Who,
    },
    /// The equipment was looked at.
    Check {
        /// The station's id.
        station: String,
        /// Ids of what was looked at; all of it where none is named.
        items: Vec<String>,
        /// It cannot be used; --note says why.
        #[arg(long, requires = "note")]
        unfit: bool,
        /// What was found.
        #[arg(long)]
        note: Option<String>,
        #[command(flatten)]
        who: Who,
    },
    /// The station cannot respond: its calls go to its neighbours.
    OffDuty {
        /// The station's id.
        station: String,
        /// Why, for those who come after you.
        #[arg(long)]
        why: String,
        #[command(flatten)]
        who: Who,
    },
    /// It can again.
    OnDuty {
        /// The station's id.
        station: String,
        #[command(flatten)]
        who: Who,
    },
}

pub fn station(options: StationOptions) -> ExitCode {
    run(&options.desk, |client| obey(client, options.command))
}

async fn obey(client: Client, command: StationCommand) -> Result<Said, Failure> {
    let (station, action, body) = match command {
        StationCommand::List => return list(&client).await,
        StationCommand::Show { station } => return show(&client, &station).await,
        StationCommand::HandOver { station, members, note, who } => {
            (station, "hand-over", json!({"who": who.name()?, "crew": members, "note": note}))
        }
        StationCommand::Check { station, items, unfit, note, who } => {
            let note = note.unwrap_or_default();
            (station, "check", json!({"who": who.name()?, "items": items, "fit": !unfit, "note": note}))
        }
        StationCommand::OffDuty { station, why, who } => (station, "off-duty", json!({"who": who.name()?, "why": why})),
        StationCommand::OnDuty { station, who } => (station, "on-duty", json!({"who": who.name()?})),
    };
    let json = client.post(&format!("/stations/{}/{action}", segment(&station)), &body).await?;
    let lines = lines(&read::<StationWire>(&json)?);
    Ok(Said { json, lines })
}

async fn list(client: &Client) -> Result<Said, Failure> {
    let json = client.get("/stations").await?;
    let stations: Vec<StationWire> = read(&json)?;
    if stations.is_empty() {
        return Ok(Said { json, lines: vec!["没有微型消防站 · no stations".to_owned()] });
    }
    let mut table = Table::default();
    table.row(["编号 ID", "名称 NAME", "能否出动 READY", "当班 ON DUTY", "呼叫 CALLS"].map(str::to_owned));
    for station in &stations {
        table.row([
            station.id.clone(),
            format!("{}\n{}", station.name.zh, station.name.en),
            readiness(station),
            names(&station.on_duty),
            station.calls.len().to_string(),
        ]);
    }
    Ok(Said { json, lines: table.lines() })
}

async fn show(client: &Client, id: &str) -> Result<Said, Failure> {
    let json = client.get("/stations").await?;
    let stations: Vec<StationWire> = read(&json)?;
    let Some(at) = stations.iter().position(|station| station.id == id) else {
        let known: Vec<&str> = stations.iter().map(|station| station.id.as_str()).collect();
        let known = known.join(", ");
        return Err(Failure::no_such(
            format!("没有微型消防站 {id:?}，已配置：{known}"),
            format!("there is no station {id:?}; configured are: {known}"),
        ));
    };
    Ok(Said { lines: lines(&stations[at]), json: json[at].clone() })
}

fn readiness(station: &StationWire) -> String {
    if station.ready {
        return "能出动 ready".to_owned();
    }
    station.unready.iter().map(|why| format!("{}\n{}", why.text.zh, why.text.en)).collect::<Vec<_>>().join("\n")
}

fn names(members: &[MemberWire]) -> String {
    let names: Vec<String> = members.iter().map(|member| format!("{} {}", member.name, member.phone)).collect();
    if names.is_empty() { "—".to_owned() } else { names.join("\n") }
}

fn lines(station: &StationWire) -> Vec<String> {
    let mut table = Table::default();
    let mut put = |name: &str, text: String| table.row([name.to_owned(), text]);
    put("编号 id", station.id.clone());
    put("名称 name", format!("{} · {}", station.name.zh, station.name.en));
    put("电话 phone", station.phone.clone());
    put("能否出动 ready", readiness(station));
    put("当班 on duty", names(&station.on_duty));
    if !station.shifts.is_empty() {
        put("班次 shift", station.shifts.join("、"));
    }
    if let Some(last) = &station.handed_over {
        put("交接 handed over", format!("{}，{}：{}", moment(&last.at), last.by, last.note));
    }
    if let Some(off) = &station.off_duty {
        put("停勤 off duty", format!("{}，{}：{}", moment(&off.at), off.by, off.why));
    }
    for item in &station.equipment {
        let last = match (&item.checked_at, item.fit) {
            (Some(at), Some(true)) => format!("{} 完好 fit", moment(at)),
            (Some(at), _) => format!("{} 不可用 unfit：{}", moment(at), item.note.as_deref().unwrap_or_default()),
            (None, _) => "从未检查 never checked".to_owned(),
        };
        let due = item.due.as_deref().map_or_else(String::new, |due| format!("，下次 due {}", moment(due)));
        put(&format!("器材 {}", item.id), format!("{} · {}：{last}{due}", item.name.zh, item.name.en));
    }
    table.lines()
}
