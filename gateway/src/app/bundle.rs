//! `anmin support-bundle`: what somebody far away needs to know, and nothing that is nobody's business.
//!
//! No device lists, no alarms and no people are in it. Secrets are kept out twice: what the configuration must not hold is
//! cut from it, and whatever any secret file of the site says is cut from everything.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anmin_rules::rule::Text;
use anmin_sensors::document::Faults;
use clap::Args;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use super::doctor;
use super::keep::{Problem, end, say};
use crate::clock::Clock;
use crate::config;
use crate::config::files::SiteFiles;
use crate::config::outside::outside;
use crate::web::people::CODE_FILE;

/// `anmin support-bundle`.
#[derive(Debug, Args)]
pub struct Options {
    /// The file to make, such as anmin-support.tar.gz; it must not be there.
    to: PathBuf,
    /// The site's folder, or its configuration file.
    #[arg(default_value = "/etc/anmin")]
    site: PathBuf,
}

/// Lines of the log that are taken.
const LINES: &str = "5000";
/// What stands where a secret stood.
const REMOVED: &str = "(removed)";

pub fn run(options: &Options) -> ExitCode {
    end(|| {
        let files = gather(&options.site);
        let secrets = secrets_of(&options.site);
        let taken_at = Clock::system().now().wall;
        let mut zip = GzEncoder::new(Vec::new(), Compression::default());
        let packed = files.iter().try_for_each(|(name, text)| {
            let text = cut(text, &secrets);
            println!("{:>8}  {name}", text.len());
            entry(&mut zip, &format!("anmin-support/{name}"), text.as_bytes(), taken_at.micros() / 1_000_000)
        });
        let written = packed.and_then(|()| {
            // Two empty blocks end a tape.
            zip.write_all(&[0; 1_024])?;
            let bytes = zip.finish()?;
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&options.to)?.write_all(&bytes)
        });
        let shown = options.to.display();
        written.map_err(|error| Problem {
            text: Text {
                zh: format!("无法写入 {shown}：{error}"), en: format!("{shown} cannot be written: {error}")
            },
            hint: None,
        })?;
        say(
            format!("已写入 {shown}；不含密码和设备清单，日志中有报警及其地点，发送前请查看一遍"),
            format!(
                "written: {shown}; no secrets and no device lists are in it, alarms with their places are in the log. Look at it \
                 before you send it"
            ),
        );
        Ok(())
    })
}

/// Names and texts, as they are.
fn gather(site: &Path) -> Vec<(String, String)> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let about = json!({
        "anmin": env!("CARGO_PKG_VERSION"),
        "taken_at": jiff::Timestamp::from_microsecond(Clock::system().now().wall.micros()).unwrap_or_default().to_string(),
        "system": read("/etc/os-release").lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")),
        "kernel": read("/proc/version").trim(),
        "uptime_seconds": read("/proc/uptime").split(' ').next(),
        "memory": read("/proc/meminfo").lines().take(3).collect::<Vec<_>>(),
        "processors": std::thread::available_parallelism().map(usize::from).ok(),
    });
    let mut files = vec![("about.json".to_owned(), format!("{about:#}\n"))];
    let texts = SiteFiles::configuration(site, &Faults::default());
    for source in &texts.config {
        let name = Path::new(&source.name).strip_prefix(site).ok().filter(|name| !name.as_os_str().is_empty());
        let name = name.or_else(|| Path::new(&source.name).file_name().map(Path::new)).unwrap_or(site);
        files.push((format!("site/{}", name.display()), without_secrets(&source.text)));
    }
    let mut listed = String::new();
    list(site, &mut listed);
    if let Ok((storage, _)) = config::storage_of(site) {
        list(&storage, &mut listed);
    }
    files.push(("files.txt".to_owned(), listed));
    files.push(("doctor.json".to_owned(), format!("{:#}\n", doctor::json_of(site))));
    if let Ok((listen, token_file)) = config::desk_of(site) {
        let token = token_file.and_then(|file| fs::read_to_string(file).ok());
        for (name, path) in [("status.json", "/api/v1/status"), ("metrics.txt", "/metrics")] {
            let said = ask(doctor::local(listen), path, token.as_deref());
            files.push((name.to_owned(), said.unwrap_or_else(|error| format!("{error}\n"))));
        }
    }
    let log = Command::new("journalctl")
        .args(["--unit=anmin", "--no-pager", "--lines", LINES, "--output=short-iso"])
        .output();
    let log = match log {
        Ok(log) if log.status.success() => String::from_utf8_lossy(&log.stdout).into_owned(),
        Ok(log) => String::from_utf8_lossy(&log.stderr).into_owned(),
        Err(error) => format!("journalctl: {error}\n"),
    };
    files.push(("log.txt".to_owned(), log));
    files
}

/// Names, modes, owners and sizes below a folder, and nothing of what the files say.
fn list(folder: &Path, listed: &mut String) {
    let mut open = vec![folder.to_owned()];
    while let Some(path) = open.pop() {
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        // Writing into a text does not fail.
        let _ =
            writeln!(listed, "{:o} {}:{} {:>12} {}", meta.mode(), meta.uid(), meta.gid(), meta.len(), path.display());
        if meta.is_dir() {
            open.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
    }
}

/// A configuration without what is nobody's business: values of keys that sound like secrets, what addresses carry beside host
/// and path, people and their telephones, and the devices. Comments are no part of it: anything may stand there. A text that is
/// no TOML is left out whole, for nobody can tell what in it is a secret.
fn without_secrets(text: &str) -> String {
    match toml::from_str::<toml::Table>(text) {
        Ok(mut table) => {
            clean(&mut table);
            table.to_string()
        }
        Err(error) => {
            let line = error.span().map_or(0, |span| text[..span.start].lines().count());
            format!("# no TOML from line {line} on, so that it is left out; `anmin check` says why\n")
        }
    }
}

/// Words of keys whose values are secrets, and keys of what concerns people.
const SECRET: [&str; 8] = ["password", "passwd", "secret", "token", "credential", "api_key", "apikey", "private"];
const PEOPLE: [&str; 4] = ["phone", "mobile", "contact", "crew"];

fn clean(table: &mut toml::Table) {
    for (key, value) in table.iter_mut() {
        let word = key.to_lowercase();
        let hidden = !word.ends_with("_file") && SECRET.iter().any(|part| word.contains(part));
        // The list of devices says who lives where; the device of a serial line or of an output does not.
        let lists_devices = word == "device" && value.is_array();
        let of_people = PEOPLE.contains(&word.as_str()) || word.ends_with("phone") || lists_devices;
        match value {
            // How many is no secret, and is needed to understand anything.
            toml::Value::Array(list) if of_people => *value = format!("{REMOVED}: {}", list.len()).into(),
            _ if hidden || (of_people && !value.is_table()) => *value = REMOVED.into(),
            _ => clean_value(value),
        }
    }
}

fn clean_value(value: &mut toml::Value) {
    match value {
        toml::Value::String(text) => *text = without_credentials(text),
        toml::Value::Array(list) => list.iter_mut().for_each(clean_value),
        toml::Value::Table(table) => clean(table),
        _ => {}
    }
}

/// Every address in a text without user, password and query.
fn without_credentials(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        let length = after.find(['"', '\'', ' ', ',', ']']).unwrap_or(after.len());
        let (address, behind) = after.split_at(length);
        let (authority, path) = address.split_at(address.find(['/', '?']).unwrap_or(address.len()));
        let host = authority.rsplit('@').next().unwrap_or_default();
        kept.push_str(before);
        kept.push_str("://");
        if host.len() < authority.len() {
            kept.push_str(&format!("{REMOVED}@"));
        }
        kept.push_str(host);
        match path.split_once('?') {
            Some((path, _)) => kept.push_str(&format!("{path}?{REMOVED}")),
            None => kept.push_str(path),
        }
        rest = behind;
    }
    kept.push_str(rest);
    kept
}

/// Shorter pieces of a secret file would cut words that are none.
const SHORTEST: usize = 6;

/// What the secret files of a site say: every line, and every piece of one that could be told alone.
fn secrets_of(site: &Path) -> BTreeSet<String> {
    let files = SiteFiles::configuration(site, &Faults::default());
    let mut paths: Vec<PathBuf> =
        outside(&files).1.into_iter().filter(|named| named.is_secret()).map(|named| named.path).collect();
    paths.extend(fs::read_dir(files.base.join("secrets")).into_iter().flatten().flatten().map(|entry| entry.path()));
    // Of a text that is no TOML nobody knows the keys: whatever a word of it names counts.
    for source in files.config.iter().filter(|source| toml::from_str::<toml::Table>(&source.text).is_err()) {
        let words = source.text.split(['"', '\'']).filter(|word| !word.is_empty() && word.len() < 4_096);
        paths.extend(words.map(|word| files.base.join(word)).filter(|path| path.is_file()));
    }
    // Whoever has it becomes the first administrator, and the log of an earlier version shows it.
    paths.extend(config::storage_of(site).ok().map(|(storage, _)| storage.join(CODE_FILE)));
    let mut secrets = BTreeSet::new();
    for text in paths.iter().filter_map(|path| fs::read_to_string(path).ok()) {
        for line in text.lines().map(str::trim) {
            secrets.insert(line.to_owned());
            // The host of an address is no secret, and is needed to understand anything.
            let apart = match line.split_once("://") {
                Some((_, address)) => address.split_once(['/', '?']).map_or("", |(_, behind)| behind),
                None => line,
            };
            secrets.extend(apart.split([':', '=', '&', '?', '/', ' ', '"', '$']).map(str::to_owned));
        }
    }
    secrets.retain(|secret| secret.len() >= SHORTEST);
    secrets
}

/// The longest first, so that no piece of one is left.
fn cut(text: &str, secrets: &BTreeSet<String>) -> String {
    let mut longest: Vec<&String> = secrets.iter().collect();
    longest.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    longest.into_iter().fold(text.to_owned(), |text, secret| match text.contains(secret.as_str()) {
        true => text.replace(secret.as_str(), REMOVED),
        false => text,
    })
}

/// One answer of the daemon, of at most a few megabytes.
fn ask(address: SocketAddr, path: &str, token: Option<&str>) -> io::Result<String> {
    let within = Duration::from_secs(5);
    let mut stream = TcpStream::connect_timeout(&address, within)?;
    stream.set_read_timeout(Some(within))?;
    stream.set_write_timeout(Some(within))?;
    let bearer = token.map(|token| format!("Authorization: Bearer {}\r\n", token.trim())).unwrap_or_default();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n{bearer}\r\n")?;
    let mut answer = Vec::new();
    stream.take(16 << 20).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    Ok(answer.split_once("\r\n\r\n").map_or_else(|| answer.clone(), |(_, body)| body.to_owned()))
}

/// One file of a tape archive (POSIX.1-1988 ustar): a head of 512 bytes, the content, zeros up to the next 512.
fn entry(to: &mut impl io::Write, name: &str, content: &[u8], seconds: i64) -> io::Result<()> {
    let mut head = [0_u8; 512];
    let mut put = |at: usize, text: &str| head[at..at + text.len()].copy_from_slice(text.as_bytes());
    // A longer name has no place in it.
    put(0, name.get(..name.len().min(100)).unwrap_or("anmin-support/unnamed"));
    put(100, "0000600\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{:011o}\0", content.len()));
    put(136, &format!("{:011o}\0", seconds.max(0)));
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\u{0}00");
    let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
    head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    to.write_all(&head)?;
    to.write_all(content)?;
    to.write_all(&vec![0; content.len().next_multiple_of(512) - content.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_nobody_s_business_is_cut_from_a_configuration() {
        for (text, kept) in [
            ("password = \"hunter2\"", "password = \"(removed)\""),
            ("# api_token = 'x'", ""),
            ("password_file = \"secrets/a\"", "password_file = \"secrets/a\""),
            ("x = { user = \"u\", password = \"hunter2\" }", "[x]\npassword = \"(removed)\"\nuser = \"u\""),
            ("url = \"mqtt://u:p@h:1/x\" # https://b", "url = \"mqtt://(removed)@h:1/x\""),
            ("a = [\"https://h/x?key=1\", \"http://i\"]", "a = [\"https://h/x?(removed)\", \"http://i\"]"),
            ("topic = \"a/{device}/up\"", "topic = \"a/{device}/up\""),
            ("[[device]]\nid = \"b3-401-gas\"\n[[device]]\nid = \"b\"", "device = \"(removed): 2\""),
            (
                "[[station]]\nid = \"st\"\nphone = \"139\"\n[[station.crew]]\nname = \"李\"\nphone = \"138\"",
                "[[station]]\ncrew = \"(removed): 1\"\nid = \"st\"\nphone = \"(removed)\"",
            ),
            ("a = 1\npassword = hunter2", "# no TOML from line 2 on, so that it is left out; `anmin check` says why"),
        ] {
            assert_eq!(without_secrets(text).trim(), kept, "{text}");
        }
    }
}
