//! `anmin broker`: what a person may do about the session that an outside broker keeps.

use clap::{Args, Subcommand};
use serde_json::json;
use std::process::ExitCode;

use super::alarm::{self, Desk, EXIT_CODES, Said, Who};
use crate::web::wire::DiscardedWire;

/// `anmin broker`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct BrokerOptions {
    #[command(flatten)]
    desk: Desk,
    #[command(subcommand)]
    command: BrokerCommand,
}

#[derive(Debug, Subcommand)]
enum BrokerCommand {
    /// Have the broker forget our session, where a message in it stops those behind it. What it kept for anmin is lost.
    DiscardSession {
        /// Id of the `[[mqtt]]` in the configuration.
        broker: String,
        #[command(flatten)]
        who: Who,
    },
}

pub fn broker(options: BrokerOptions) -> ExitCode {
    let BrokerCommand::DiscardSession { broker, who } = options.command;
    alarm::run(&options.desk, |client| async move {
        let body = json!({"who": who.name()?});
        let json = client.post(&format!("/brokers/{}/discard-session", alarm::segment(&broker)), &body).await?;
        let broker = alarm::read::<DiscardedWire>(&json)?.broker;
        let line = format!("已要求代理 {broker} 丢弃会话 · broker {broker} is told to discard the session");
        Ok(Said { json, lines: vec![line] })
    })
}
