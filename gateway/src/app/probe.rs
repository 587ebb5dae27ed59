//! `anmin probe`: what is on a bus or at a broker that nobody has described yet, and the configuration that would take it in.
//!
//! Looks, and changes nothing out there: on a bus it only reads. What it proposes it prints; it writes only where `--write` names
//! a site, and then only after a yes.

mod modbus;
mod mqtt;

use std::io::{self, BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::config::{self, Config};

/// `anmin probe`.
#[derive(Debug, Args)]
pub struct ProbeOptions {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Find the units of a Modbus bus and what their registers mean, and propose a bus and its devices.
    Modbus(modbus::Options),
    /// Listen what is published at a broker, and propose the mappings that take it in.
    Mqtt(mqtt::Options),
}

pub fn probe(options: ProbeOptions) -> ExitCode {
    let ended = match options.what {
        What::Modbus(options) => modbus::run(&options),
        What::Mqtt(options) => mqtt::run(&options),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("错误：{problem}\nerror: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// A name in the proposal, which also names its file.
pub fn id(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !text.is_empty() && text.chars().all(plain) {
        Ok(text.to_owned())
    } else {
        Err("expected small letters, digits and -".to_owned())
    }
}

/// Whether the person at the terminal says yes.
pub fn says_yes() -> bool {
    print!("yes / no: ");
    // A terminal that cannot be written to has nobody before it who could say yes.
    let _ = io::stdout().flush();
    let mut said = String::new();
    let heard = io::stdin().lock().read_line(&mut said);
    heard.is_ok() && matches!(said.trim(), "yes" | "y" | "是")
}

/// Files that a probe proposes, by their place in a site.
#[derive(Debug, Default)]
struct Proposal {
    /// In the order in which a person reads them.
    files: Vec<(PathBuf, String)>,
}

impl Proposal {
    /// Shows every file.
    fn show(&self) {
        for (path, text) in &self.files {
            println!("\n# {}\n{text}", path.display());
        }
    }

    /// Writes the files into a site once somebody says yes. Nothing is overwritten, and a site that is not sound with them is left
    /// as it was.
    fn write(&self, site: &Path) -> Result<(), String> {
        if !site.is_dir() {
            return Err(format!("{} is no folder of a site", site.display()));
        }
        let paths: Vec<PathBuf> = self.files.iter().map(|(path, _)| site.join(path)).collect();
        if let Some(there) = paths.iter().find(|path| path.exists()) {
            return Err(format!("{} is there already; move it away, or name another --id", there.display()));
        }
        println!("\n写入以下文件？ · write these files?");
        paths.iter().for_each(|path| println!("  {}", path.display()));
        if !says_yes() {
            println!("未写入 · nothing was written");
            return Ok(());
        }
        let before = Config::load(site).is_ok();
        let written = paths.iter().zip(&self.files).try_for_each(|(path, (_, text))| {
            let folder = path.parent().unwrap_or(site);
            std::fs::create_dir_all(folder)
                .and_then(|()| std::fs::write(path, text))
                .map_err(|error| format!("{}: {error}", path.display()))
        });
        let sound = written.and_then(|()| match Config::load(site) {
            Err(faults) if before => Err(config::report(site, &faults)),
            _ => Ok(()),
        });
        if let Err(problem) = sound {
            // What is not there cannot be removed, and need not.
            paths.iter().for_each(|path| drop(std::fs::remove_file(path)));
            return Err(format!("{problem}\nnothing was written"));
        }
        println!("已写入；重启安民后生效 · written; in force after a restart of anmin");
        Ok(())
    }
}
