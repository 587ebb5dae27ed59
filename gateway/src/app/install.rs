//! `anmin install`: the program, its units, manual and completions, each where Debian looks for it.
//!
//! The one list of what belongs where: the package is made of it, too. The site is not in it: that is for `anmin init`.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, ExitCode};

use anmin_rules::rule::Text;
use clap::{Args, Command};
use clap_complete::Shell;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::command;
use super::keep::{Problem, end, say};
use crate::config;

/// `anmin install`.
#[derive(Debug, Args)]
pub struct Options {
    /// Put everything below this folder and start nothing, for packages and images.
    #[arg(long, value_name = "FOLDER")]
    root: Option<PathBuf>,
}

/// Where, and what it says. Drop-ins are examples: they are in force only where somebody copies them.
const FILES: [(&str, &str); 13] = [
    ("usr/lib/systemd/system/anmin.service", include_str!("../../../systemd/anmin.service")),
    ("usr/lib/systemd/system/anmin-backup.service", include_str!("../../../systemd/anmin-backup.service")),
    ("usr/lib/systemd/system/anmin-backup.timer", include_str!("../../../systemd/anmin-backup.timer")),
    ("usr/lib/sysusers.d/anmin.conf", include_str!("../../../systemd/anmin.sysusers")),
    ("usr/lib/tmpfiles.d/anmin.conf", include_str!("../../../systemd/anmin.tmpfiles")),
    ("usr/share/anmin/drop-ins/serial.conf", include_str!("../../../systemd/drop-ins/serial.conf")),
    ("usr/share/anmin/drop-ins/credentials.conf", include_str!("../../../systemd/drop-ins/credentials.conf")),
    ("usr/share/anmin/drop-ins/peers.conf", include_str!("../../../systemd/drop-ins/peers.conf")),
    ("usr/share/anmin/drop-ins/storage.conf", include_str!("../../../systemd/drop-ins/storage.conf")),
    ("usr/share/anmin/site.schema.json", config::SCHEMA),
    ("usr/share/anmin/monitoring/alerts.yml", include_str!("../../docs/monitoring/alerts.yml")),
    ("usr/share/anmin/monitoring/dashboard.json", include_str!("../../docs/monitoring/dashboard.json")),
    ("usr/share/anmin/rule.schema.json", include_str!("../../../rules/rule.schema.json")),
];

/// What dpkg has installed is dpkg's to replace.
const PACKAGED: &str = "/var/lib/dpkg/info/anmin.list";

pub fn run(options: &Options) -> ExitCode {
    end(|| {
        let root = options.root.as_deref();
        if root.is_none() && Path::new(PACKAGED).exists() {
            return Err(Problem {
                text: Text {
                    zh: "安民由 Debian 软件包安装".to_owned(),
                    en: "anmin is installed by its Debian package".to_owned(),
                },
                hint: Some(Text {
                    zh: "用 apt 或 dpkg 升级".to_owned(), en: "upgrade it by apt or dpkg".to_owned()
                }),
            });
        }
        let at = |path: &str| root.unwrap_or(Path::new("/")).join(path);
        let own = std::env::current_exe().and_then(fs::read).map_err(|error| failed(Path::new("anmin"), &error))?;
        place(&at("usr/bin/anmin"), &own, 0o755)?;
        for (path, text) in FILES {
            place(&at(path), text.as_bytes(), 0o644)?;
        }
        for (name, page) in manual(&command()) {
            place(&at(&format!("usr/share/man/man1/{name}.1.gz")), &zipped(page.as_bytes()), 0o644)?;
        }
        for (shell, path) in [
            (Shell::Bash, "usr/share/bash-completion/completions/anmin"),
            (Shell::Zsh, "usr/share/zsh/vendor-completions/_anmin"),
            (Shell::Fish, "usr/share/fish/vendor_completions.d/anmin.fish"),
        ] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command(), "anmin", &mut script);
            place(&at(path), &script, 0o644)?;
        }
        if root.is_none() {
            for line in [
                ["systemd-sysusers", "anmin.conf"].as_slice(),
                &["systemd-tmpfiles", "--create", "anmin.conf"],
                &["systemctl", "daemon-reload"],
                &["systemctl", "try-restart", "anmin.service"],
            ] {
                carry_out(line)?;
            }
            let next = "systemctl enable --now anmin anmin-backup.timer";
            match Path::new("/etc/anmin/anmin.toml").exists() {
                true => say(format!("下一步：{next}"), format!("next: {next}")),
                false => say(format!("下一步：anmin init，然后 {next}"), format!("next: anmin init, then {next}")),
            }
        }
        Ok(())
    })
}

/// Under another name first: a program that runs cannot be written over, and nobody sees half of a file.
fn place(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Problem> {
    let written = || {
        let folder = path.parent().unwrap_or(path);
        fs::create_dir_all(folder)?;
        let new = path.with_extension("anmin-new");
        fs::write(&new, bytes)?;
        fs::set_permissions(&new, fs::Permissions::from_mode(mode))?;
        fs::rename(&new, path)
    };
    written().map_err(|error| failed(path, &error))?;
    println!("{}", path.display());
    Ok(())
}

fn carry_out(line: &[&str]) -> Result<(), Problem> {
    let shown = line.join(" ");
    let problem = |zh: String, en: String| Problem { text: Text { zh, en }, hint: None };
    match Process::new(line[0]).args(&line[1..]).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(problem(format!("{shown} 失败：{status}"), format!("{shown} failed: {status}"))),
        Err(error) => {
            Err(problem(format!("无法执行 {shown}：{error}"), format!("{shown} cannot be carried out: {error}")))
        }
    }
}

fn failed(path: &Path, error: &std::io::Error) -> Problem {
    let shown = path.display();
    let hint = (error.kind() == std::io::ErrorKind::PermissionDenied)
        .then(|| Text { zh: "请以 root 身份执行".to_owned(), en: "run it as root".to_owned() });
    Problem {
        text: Text { zh: format!("无法写入 {shown}：{error}"), en: format!("{shown} cannot be written: {error}") },
        hint,
    }
}

/// A page of the manual for the program and each of its commands: `anmin`, `anmin-alarm`, `anmin-alarm-ack`.
fn manual(command: &Command) -> Vec<(String, String)> {
    fn add(command: &Command, pages: &mut Vec<(String, String)>) {
        command.get_subcommands().filter(|below| below.get_name() != "help").for_each(|below| add(below, pages));
        let mut page = Vec::new();
        // Writing to memory does not fail.
        let _ = clap_mangen::Man::new(command.clone()).render(&mut page);
        let name = command.get_display_name().unwrap_or(command.get_name());
        pages.push((name.to_owned(), String::from_utf8_lossy(&page).into_owned()));
    }
    let mut command = command.clone();
    command.build();
    let mut pages = Vec::new();
    add(&command, &mut pages);
    pages
}

/// The same bytes every time: no name and no time in it.
fn zipped(bytes: &[u8]) -> Vec<u8> {
    let mut zip = GzEncoder::new(Vec::new(), Compression::best());
    // Writing to memory does not fail.
    zip.write_all(bytes).and_then(|()| zip.finish()).unwrap_or_default()
}
