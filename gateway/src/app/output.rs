//! `anmin output`: which outputs there are, and switching one in two steps. A client like [`super::alarm`].

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::alarm::{Desk, EXIT_CODES, Failure, Said, Who, read, run, segment};
use super::table::Table;
use crate::web::client::Client;
use crate::web::outputs::OutputWire;

/// `anmin output`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct OutputOptions {
    #[command(flatten)]
    desk: Desk,
    #[command(subcommand)]
    command: OutputCommand,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Action {
    On,
    Off,
}

impl Action {
    const fn as_str(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
        }
    }
}

#[derive(Debug, Subcommand)]
enum OutputCommand {
    /// All outputs, what must hold for them, and what is armed.
    List,
    /// The first step: say what is to be done and why. Nothing is switched; you are told a code.
    Arm {
        /// Id of the `[[output]]` in the configuration.
        output: String,
        action: Action,
        /// Why, for those who come after you.
        #[arg(long)]
        why: String,
        #[command(flatten)]
        who: Who,
    },
    /// The second step, soon after: switch it, and look whether it is.
    Do {
        /// Id of the `[[output]]` in the configuration.
        output: String,
        action: Action,
        /// As the first step has told it.
        #[arg(long)]
        code: String,
        #[command(flatten)]
        who: Who,
    },
    /// Take the first step back.
    Disarm {
        /// Id of the `[[output]]` in the configuration.
        output: String,
        #[command(flatten)]
        who: Who,
    },
}

pub fn output(options: OutputOptions) -> ExitCode {
    run(&options.desk, |client| async move {
        match options.command {
            OutputCommand::List => list(&client).await,
            OutputCommand::Arm { output, action, why, who } => {
                let body = json!({ "who": who.name()?, "action": action.as_str(), "why": why });
                let json = step(&client, &output, "arm", &body).await?;
                let wire: OutputWire = read(&json)?;
                let armed = wire.armed.as_ref();
                let (code, left) =
                    armed.map_or(("", 0), |armed| (armed.code.as_deref().unwrap_or_default(), armed.seconds_left));
                let again = format!("anmin output do {output} {} --code {code}", action.as_str());
                let lines = vec![
                    format!("已预备，未动作：{} · armed, nothing is switched: {}", wire.name.zh, wire.name.en),
                    format!("请在 {left} 秒内执行 · within {left} s: {again}"),
                ];
                Ok(Said { json, lines })
            }
            OutputCommand::Do { output, action, code, who } => {
                let body = json!({ "who": who.name()?, "action": action.as_str(), "code": code });
                let json = step(&client, &output, "do", &body).await?;
                let wire: OutputWire = read(&json)?;
                let (zh, en) = match action {
                    Action::On => ("已接通并已回读确认", "is on, and shows it"),
                    Action::Off => ("已断开并已回读确认", "is off, and shows it"),
                };
                Ok(Said { json, lines: vec![format!("{zh}：{} · {} {en}", wire.name.zh, wire.name.en)] })
            }
            OutputCommand::Disarm { output, who } => {
                let json = step(&client, &output, "disarm", &json!({ "who": who.name()? })).await?;
                Ok(Said { json, lines: vec![format!("已取消预备：{output} · no longer armed")] })
            }
        }
    })
}

async fn step(client: &Client, output: &str, step: &str, body: &Value) -> Result<Value, Failure> {
    Ok(client.post_and_wait(&format!("/outputs/{}/{step}", segment(output)), body).await?)
}

async fn list(client: &Client) -> Result<Said, Failure> {
    let json = client.get("/outputs").await?;
    let found: Vec<OutputWire> = read(&json)?;
    if found.is_empty() {
        return Ok(Said { json, lines: vec!["没有输出 · no outputs".to_owned()] });
    }
    let mut table = Table::default();
    let heads = ["输出 ID", "名称 NAME", "设备 DEVICE", "可 MAY", "联锁 INTERLOCKS", "预备 ARMED"];
    table.row(heads.map(str::to_owned));
    for OutputWire { id, name, device, may, interlocks, armed, .. } in &found {
        let armed = armed.as_ref().map_or_else(
            || "-".to_owned(),
            |armed| format!("{} {}，{} s：{}", armed.action, armed.who, armed.seconds_left, armed.why),
        );
        let name = format!("{} · {}", name.zh, name.en);
        table.row([id.clone(), name, device.clone(), may.join(" "), interlocks.join("\n"), armed]);
    }
    Ok(Said { lines: table.lines(), json })
}
