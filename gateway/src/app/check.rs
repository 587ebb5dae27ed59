//! `anmin check` and `anmin test`: what is wrong with a site, before the night it matters.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anmin_rules::cases::run_cases;
use anmin_rules::library;
use anmin_sensors::document::Faults;
use anmin_sensors::profile::{self, Profile, Profiles};
use clap::Args;

use super::alarm::{Desk, run};
use super::rules;
use crate::config::files::SiteFiles;
use crate::config::{self, Config};

/// `anmin check`.
#[derive(Debug, Args)]
pub struct Options {
    /// The site's folder, or its configuration file.
    #[arg(default_value = "/etc/anmin")]
    site: PathBuf,
    /// Also ask the daemon of this site what it would take of it now, and what only after a restart. Changes nothing.
    #[arg(long)]
    against_running: bool,
    /// Where that daemon listens, if the site's files do not say it any more.
    #[arg(long, requires = "against_running")]
    url: Option<String>,
}

/// Reads the site with the parser of `run`.
pub fn check(Options { site, against_running, url }: Options) -> ExitCode {
    let site = &*site;
    let read = Config::load(site);
    for warning in read.iter().flat_map(|config| &config.warnings) {
        eprintln!("warning: {warning}");
    }
    match read {
        Ok(config) if !config.broken_rules.is_empty() => {
            eprintln!("{}", config::report_rules(site, &config.broken_rules, &config.rules));
            ExitCode::FAILURE
        }
        Ok(config) => {
            println!(
                "{}: sound. {} devices with {} points, {} rules, {} buses, {} stations.",
                site.display(),
                config.points.devices().len(),
                config.points.len(),
                config.rules.rules().len(),
                config.buses.len(),
                config.desk.stations.len()
            );
            config.sirens.iter().for_each(|siren| println!("  {siren}"));
            if against_running {
                return run(&Desk::of_site(site, url), rules::would_change);
            }
            ExitCode::SUCCESS
        }
        Err(faults) => {
            eprintln!("{}", config::report(site, &faults));
            ExitCode::FAILURE
        }
    }
}

/// Runs the cases of the shipped rules and profiles and, where a site is named, of its own.
pub fn test(site: Option<&Path>) -> ExitCode {
    let faults = Faults::default();
    let files = site.map(|site| SiteFiles::gather(site, &faults)).unwrap_or_default();
    let mut profiles = Profiles::shipped();
    for source in &files.profiles {
        if let Some(profile) = Profile::parse(&source.name, &source.text, &faults) {
            profiles.add(profile);
        }
    }
    let mut tally = Tally::default();
    for source in library::shipped().iter().chain(&files.rules) {
        for outcome in run_cases(source) {
            tally.count(&outcome.rule, &outcome.case, outcome.failure.map(|fault| fault.to_string()));
        }
    }
    for profile in profiles.iter() {
        for result in profile::run_cases(profile) {
            tally.count(&profile.id, &result.case, result.outcome.err().map(|differences| differences.join("; ")));
        }
    }
    files.broken_rules.iter().flat_map(|rule| &rule.faults).for_each(|fault| faults.note(fault.clone()));
    let faults = faults.take();
    for fault in &faults {
        println!("error: {fault}");
    }
    println!("{} cases passed, {} failed, {} files could not be read", tally.passed, tally.failed, faults.len());
    if tally.failed == 0 && faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
}

impl Tally {
    fn count(&mut self, of: &str, case: &str, failure: Option<String>) {
        match failure {
            None => self.passed += 1,
            Some(why) => {
                self.failed += 1;
                println!("failed: {of}: {case}\n  {why}");
            }
        }
    }
}
