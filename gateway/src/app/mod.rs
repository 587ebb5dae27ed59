//! Composition root: the subcommands. The only place that knows all rooms.

mod account;
mod adopted;
mod alarm;
mod audit;
mod broadcast;
mod broker;
mod bundle;
mod caretaker;
mod check;
mod daemon;
mod demo;
mod devices;
mod doctor;
mod drill;
mod explain;
mod export;
mod incident;
mod init;
mod install;
mod keep;
mod output;
mod probe;
mod quarantine;
mod refill;
mod register;
mod reload;
pub mod replay;
mod report;
mod rules;
mod running;
mod station;
mod status;
mod subscription;
mod supervisor;
mod table;
mod trial;
mod verify;
mod walk;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::telemetry;

/// Smart-community IoT gateway and safety-monitoring daemon.
#[derive(Debug, Parser)]
#[command(name = "anmin", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Play a sample community on this machine and show an alarm from sensor to station.
    Demo(demo::Options),
    /// Write the files of a new site, by flags or by questions.
    Init(init::Options),
    /// Run the daemon for a site.
    Run {
        /// The site's folder, or its configuration file.
        #[arg(default_value = "/etc/anmin")]
        site: PathBuf,
    },
    /// Read a site as `run` would and report every fault at once.
    Check(check::Options),
    /// Run the test cases that stand beside rules and in device profiles: the shipped ones and a site's own.
    Test {
        /// The site's folder; without it only what is shipped.
        site: Option<PathBuf>,
    },
    /// How a running daemon stands: alarms, what is ill, what waits to be sent, its self-test.
    Status(status::Options),
    /// List open alarms, look at one, acknowledge, shelve or reset it.
    Alarm(alarm::AlarmOptions),
    /// Say what an alarm rests on, and whether the rules in force say the same of what history kept.
    Explain(explain::Options),
    /// List incidents, look at one, note, merge, split or close it.
    Incident(incident::IncidentOptions),
    /// Start a drill for an area, raise alarms in it, end it, and see how fast people were.
    Drill(drill::DrillOptions),
    /// What waits for two people before it is broadcast outside; say yes or no, take back what has left.
    Broadcast(broadcast::BroadcastOptions),
    /// Test detectors one by one while alarms stay real; which were never tested, or not for a year.
    Walk(walk::WalkOptions),
    /// Stock, shelters, outside teams, heads of buildings and households: list, import and export as CSV.
    Register(register::RegisterOptions),
    /// Say for a station how far its crew is, or show the links by which its crew answers.
    Call(alarm::CallOptions),
    /// Who is on duty in the micro fire stations; hand over, check equipment, take one off duty.
    Station(station::StationOptions),
    /// List what may be switched out there, and switch it in two steps.
    Output(output::OutputOptions),
    /// List what a way out has refused for good, and send it again.
    Order(alarm::OrderOptions),
    /// List the rules in force, have them read anew, or begin one of your own.
    Rules(rules::RulesOptions),
    /// List who did what and when, and prove that nobody changed that list.
    Audit(audit::AuditOptions),
    /// Who may sign in and what they may do; tokens for programs; the code for the first administrator.
    Account(account::AccountOptions),
    /// Have an outside broker forget what it keeps for anmin.
    Broker(broker::BrokerOptions),
    /// List who follows from outside what happens, and try the way to them.
    Subscription(subscription::SubscriptionOptions),
    /// The month's ledger: incidents, false alarms by cause, response clocks, drills.
    Report(report::ReportOptions),
    /// Check an incident's package to the last byte, on any machine.
    Verify(verify::Options),
    /// Save both databases and the site's files in a new folder, also while the daemon runs.
    Backup(keep::BackupOptions),
    /// Put a backup in the place of the databases; what was there is kept under a name with its time.
    Restore(keep::RestoreOptions),
    /// Check both databases to the last byte, and mend them where that is asked for.
    Fsck(keep::FsckOptions),
    /// Write what was measured in a stretch of time, as CSV or line protocol.
    Export(export::Options),
    /// Try rules on what was measured: which alarms they would have raised, and what other rules would have changed.
    Replay(replay::Options),
    /// Take devices and places from spreadsheets, and write them for spreadsheets.
    Devices(devices::DevicesOptions),
    /// Look what is on a bus or at a broker that nobody has described yet, and propose its configuration.
    Probe(probe::ProbeOptions),
    /// List devices that nobody registered and messages that nobody can read, or take a device in.
    Quarantine(quarantine::QuarantineOptions),
    /// Look at clock, disk, permissions, ports, peers and certificates, and say what to do next.
    Doctor(doctor::Options),
    /// Pack configuration, findings, figures and log for somebody far away, without secrets.
    SupportBundle(bundle::Options),
    /// Put this program, its units, manual and completions where this machine looks for them.
    Install(install::Options),
    /// Play scenarios as MQTT devices and Modbus slaves of a site, before its sensors arrive.
    Sim(crate::sim::Options),
}

/// The whole tree of commands, for those who write it down elsewhere.
fn command() -> clap::Command {
    Cli::command()
}

/// Parses the command line and runs it.
pub fn main() -> ExitCode {
    // One TLS provider for the whole process. It can only be there already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match Cli::parse().command {
        Command::Demo(options) => demo::run(options),
        Command::Init(options) => init::run(options),
        Command::Run { site } => {
            telemetry::start_log();
            daemon::run(&site)
        }
        Command::Check(options) => check::check(options),
        Command::Test { site } => check::test(site.as_deref()),
        Command::Status(options) => status::run(&options),
        Command::Alarm(options) => alarm::alarm(options),
        Command::Explain(options) => explain::run(&options),
        Command::Incident(options) => incident::incident(options),
        Command::Drill(options) => drill::drill(options),
        Command::Broadcast(options) => broadcast::broadcast(options),
        Command::Walk(options) => walk::walk(options),
        Command::Register(options) => register::register(options),
        Command::Call(options) => alarm::call(options),
        Command::Station(options) => station::station(options),
        Command::Output(options) => output::output(options),
        Command::Order(options) => alarm::order(options),
        Command::Rules(options) => rules::rules(options),
        Command::Audit(options) => audit::audit(options),
        Command::Account(options) => account::account(options),
        Command::Broker(options) => broker::broker(options),
        Command::Subscription(options) => subscription::subscription(options),
        Command::Report(options) => report::report(options),
        Command::Verify(options) => verify::verify(&options),
        Command::Backup(options) => keep::backup(&options),
        Command::Restore(options) => keep::restore(&options),
        Command::Fsck(options) => keep::fsck(&options),
        Command::Export(options) => export::run(&options),
        Command::Replay(options) => replay::run(&options),
        Command::Devices(options) => devices::devices(options),
        Command::Probe(options) => probe::probe(options),
        Command::Quarantine(options) => quarantine::quarantine(options),
        Command::Doctor(options) => doctor::run(&options),
        Command::SupportBundle(options) => bundle::run(&options),
        Command::Install(options) => install::run(&options),
        Command::Sim(options) => crate::sim::run(options),
    }
}
