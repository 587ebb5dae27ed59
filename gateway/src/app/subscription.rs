//! `anmin subscription`: who follows from outside what happens, and whether the way to them is open. A client like
//! [`super::alarm`].

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::alarm::{Desk, EXIT_CODES, Failure, Said, Who, moment, read, run, segment};
use super::table::Table;
use crate::web::client::Client;
use crate::web::wire::{SubscriptionWire, TestedWire};

/// `anmin subscription`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct SubscriptionOptions {
    #[command(flatten)]
    desk: Desk,
    #[command(subcommand)]
    command: SubscriptionCommand,
}

#[derive(Debug, Subcommand)]
enum SubscriptionCommand {
    /// All subscribers: how many of them listen, and how far those are that are posted to.
    List,
    /// Send a test message, which says that nobody is in danger, and say what the receiver answers.
    Test {
        /// Id of the `[[subscriber]]` in the configuration.
        subscriber: String,
        #[command(flatten)]
        who: Who,
    },
}

pub fn subscription(options: SubscriptionOptions) -> ExitCode {
    run(&options.desk, |client| async move {
        match options.command {
            SubscriptionCommand::List => list(&client).await,
            SubscriptionCommand::Test { subscriber, who } => test(&client, &subscriber, who).await,
        }
    })
}

async fn list(client: &Client) -> Result<Said, Failure> {
    let json = client.get("/subscriptions").await?;
    let found: Vec<SubscriptionWire> = read(&json)?;
    if found.is_empty() {
        return Ok(Said { json, lines: vec!["没有订阅方 · no subscribers".to_owned()] });
    }
    let mut table = Table::default();
    let heads = ["订阅方 ID", "实时 listeners", "待推送 behind", "最近送达 taken", "跳过 left out", "故障 failing"];
    table.row(heads.map(str::to_owned));
    for SubscriptionWire { id, listeners, posted } in &found {
        let (behind, taken, left_out, failing) = match posted {
            None => ("-".to_owned(), "-".to_owned(), "-".to_owned(), String::new()),
            Some(posted) => (
                posted.behind.to_string(),
                posted.taken_at.as_deref().map_or_else(|| "-".to_owned(), moment),
                posted.left_out.to_string(),
                posted.failing.clone().unwrap_or_default(),
            ),
        };
        table.row([id.clone(), listeners.to_string(), behind, taken, left_out, failing]);
    }
    Ok(Said { lines: table.lines(), json })
}

async fn test(client: &Client, subscriber: &str, who: Who) -> Result<Said, Failure> {
    let body = json!({"who": who.name()?});
    let json = client.post_and_wait(&format!("/subscriptions/{}/test", segment(subscriber)), &body).await?;
    let TestedWire { subscriber, listeners, answer } = read(&json)?;
    let mut lines = vec![format!(
        "测试消息已发给 {subscriber} 的 {listeners} 个实时连接 · the test message went to {listeners} live streams of {subscriber}"
    )];
    lines.extend(answer.map(|answer| format!("推送已被接收 · taken by the receiver: {answer}")));
    Ok(Said { json, lines })
}
