//! `anmin broadcast`: whether warnings leave the community. A client like [`super::alarm`].
//!
//! Yes is said by a person who signs in with an account of their own: a token opens nothing here.

use std::path::PathBuf;
use std::process::ExitCode;

use anmin_rules::broadcast::BroadcastState;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::alarm::{Alarm, Desk, EXIT_CODES, Failure, Said, Who, both, level, moment, open_alarms, read, run, short};
use super::table::Table;
use crate::web::client::{Client, ClientError};
use crate::web::wire::{AlarmViewWire, AlarmWire, AlarmsWire, BroadcastWire};

/// `anmin broadcast`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct BroadcastOptions {
    #[command(flatten)]
    desk: Desk,
    #[command(subcommand)]
    command: BroadcastCommand,
}

#[derive(Debug, Subcommand)]
enum BroadcastCommand {
    /// Alarms about whose broadcast people are asked, or that were broadcast: how each stands.
    Pending,
    /// Say yes. It leaves when enough people have, each with an account of their own.
    Approve {
        #[command(flatten)]
        alarm: Alarm,
        /// The community's name, or the alarm's whole number: this is a real broadcast.
        #[arg(long, value_name = "TEXT")]
        confirm: String,
        #[command(flatten)]
        person: Person,
    },
    /// Say no, with a reason. Nothing leaves unless it gets worse.
    Refuse {
        #[command(flatten)]
        alarm: Alarm,
        /// Why, for those who come after you.
        #[arg(long)]
        why: String,
        #[command(flatten)]
        who: Who,
    },
    /// Take back what has left: one person, at once, from all who were told.
    Cancel {
        #[command(flatten)]
        alarm: Alarm,
        /// Why, for those who come after you.
        #[arg(long)]
        why: String,
        #[command(flatten)]
        who: Who,
    },
}

/// Who says yes.
#[derive(Debug, Args)]
struct Person {
    /// Your account.
    #[arg(long, value_name = "NAME")]
    account: String,
    /// The file that holds your password; read from standard input where there is none.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// The one-time password, where your account has them.
    #[arg(long)]
    code: Option<String>,
}

impl Person {
    async fn sign_in(&self, client: &mut Client) -> Result<(), Failure> {
        let text = match &self.password_file {
            Some(path) => std::fs::read_to_string(path),
            None => {
                eprint!("密码 · password: ");
                let mut line = String::new();
                std::io::stdin().read_line(&mut line).map(|_| line)
            }
        };
        let text = text
            .map_err(|error| ClientError::Unusable(format!("无法读取密码 · the password cannot be read: {error}")))?;
        Ok(client.sign_in(&self.account, text.trim_end_matches(['\r', '\n']), self.code.as_deref()).await?)
    }
}

pub fn broadcast(options: BroadcastOptions) -> ExitCode {
    run(&options.desk, |client| obey(client, options.command))
}

async fn obey(mut client: Client, command: BroadcastCommand) -> Result<Said, Failure> {
    let (alarm, action, body) = match command {
        BroadcastCommand::Pending => return pending(&client).await,
        BroadcastCommand::Approve { alarm, confirm, person } => {
            person.sign_in(&mut client).await?;
            return approve(&client, &alarm, &confirm).await;
        }
        BroadcastCommand::Refuse { alarm, why, who } => {
            (alarm, "refuse-broadcast", json!({ "who": who.name()?, "why": why }))
        }
        BroadcastCommand::Cancel { alarm, why, who } => {
            (alarm, "take-back-broadcast", json!({ "who": who.name()?, "why": why }))
        }
    };
    let id = alarm.resolve(&client).await?;
    give(&client, &id, action, &body).await
}

/// Says yes to what stands now, and signs out again.
async fn approve(client: &Client, alarm: &Alarm, typed: &str) -> Result<Said, Failure> {
    let said = async {
        let id = alarm.resolve(client).await?;
        let view: AlarmViewWire = read(&client.get(&format!("/alarms/{id}")).await?)?;
        let alarm = view.alarm.as_ref();
        let level = alarm.map_or_else(String::new, |alarm| alarm.level.clone());
        let broadcast = alarm.and_then(|alarm| alarm.broadcast.as_ref());
        // Without a question the desk says that there is none.
        let state = broadcast.map_or(BroadcastState::Waiting.as_str(), |broadcast| &broadcast.state);
        give(client, &id, "approve-broadcast", &json!({ "typed": typed, "level": level, "state": state })).await
    };
    let said = said.await;
    // The sign-in was for this alone; one that cannot be ended ends by itself.
    let _ = client.post("/session/sign-out", &json!({})).await;
    said
}

async fn give(client: &Client, id: &str, action: &str, body: &Value) -> Result<Said, Failure> {
    let json = client.post(&format!("/alarms/{id}/{action}"), body).await?;
    let view: AlarmViewWire = read(&json)?;
    let line = view.alarm.as_ref().and_then(|alarm| alarm.broadcast.as_ref()).map_or_else(String::new, stands);
    Ok(Said { json, lines: vec![line] })
}

async fn pending(client: &Client) -> Result<Said, Failure> {
    let mut json = open_alarms(client, &[]).await?;
    let found: AlarmsWire = read(&json)?;
    let about = |alarm: &&AlarmWire| alarm.broadcast.is_some() || !alarm.told_outside.is_empty();
    let ids: Vec<String> = found.alarms.iter().map(|alarm| alarm.id.clone()).collect();
    let mut table = Table::default();
    table.row(
        ["编号 ID", "级别 LEVEL", "播报 BROADCAST", "截止 UNTIL", "已发往 TOLD", "内容 MESSAGE"].map(str::to_owned),
    );
    for alarm in found.alarms.iter().filter(about) {
        let until = |broadcast: &BroadcastWire| {
            if broadcast.state == BroadcastState::Waiting.as_str() { moment(&broadcast.until) } else { String::new() }
        };
        table.row([
            short(&alarm.id, &ids),
            level(&alarm.level),
            alarm.broadcast.as_ref().map_or_else(String::new, stands),
            alarm.broadcast.as_ref().map_or_else(String::new, until),
            alarm.told_outside.join("\n"),
            both(&alarm.message),
        ]);
    }
    let mut lines = table.lines();
    if lines.len() < 2 {
        lines = vec!["没有待批准或已发出的对外播报 · no broadcasts wait or have left".to_owned()];
    }
    if let Some(alarms) = json["alarms"].as_array_mut() {
        alarms.retain(|alarm| {
            !alarm["broadcast"].is_null() || alarm["told_outside"].as_array().is_some_and(|told| !told.is_empty())
        });
    }
    Ok(Said { json, lines })
}

/// `待批准 waiting 1/2: 李`.
fn stands(broadcast: &BroadcastWire) -> String {
    let known = BroadcastState::ALL.into_iter().find(|state| state.as_str() == broadcast.state);
    let state = known.map_or_else(|| broadcast.state.clone(), |state| format!("{} {}", state.zh(), state.as_str()));
    let names: Vec<&str> = broadcast.yes.iter().map(|yes| yes.by.as_str()).collect();
    let who = if names.is_empty() { String::new() } else { format!(": {}", names.join(", ")) };
    format!("{state} {}/{}{who}", broadcast.yes.len(), broadcast.people)
}
