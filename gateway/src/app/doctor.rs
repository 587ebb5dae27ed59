//! `anmin doctor`: what is wrong, or will be, before anybody asks; each finding with the next step.
//!
//! It looks with the eyes of whoever starts it, at best root's, beside a daemon that runs or before it does. It changes
//! nothing: at the databases' disk it writes one small file and takes it away.

mod certificate;
mod reach;
mod serial;
mod unit;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant, SystemTime};

use anmin_rules::rule::Text;
use anmin_sensors::document::Faults;
use anmin_sensors::time::Wall;
use clap::Args;
use serde_json::{Value, json};

use super::daemon;
use super::table::Table;
use crate::clock::Clock;
use crate::config::files::SiteFiles;
use crate::config::outside::{Named, outside};
use crate::config::{self, Config};
use crate::intake::modbus::Transport;
use crate::store::fsck::{self, Glance};
use crate::store::last_backup::LastBackup;
use crate::store::{StoreError, backup};
use crate::web::client::{Client, ClientError};
use crate::web::wire::StatusWire;

/// `anmin doctor`.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 nothing is ill, 1 something is, 2 used wrongly.")]
pub struct Options {
    /// The site's folder, or its configuration file.
    #[arg(default_value = "/etc/anmin")]
    site: PathBuf,
    /// The findings as JSON instead of text for people.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Grade {
    Well,
    /// It works, and somebody should look.
    Doubtful,
    /// It does not work, or will not for long.
    Ill,
}

impl Grade {
    /// For people, and for programs.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Well => ("正常", "well"),
            Self::Doubtful => ("注意", "doubtful"),
            Self::Ill => ("故障", "ill"),
        }
    }
}

/// What was found, and what to do about it.
#[derive(Clone, Debug)]
struct Finding {
    /// `clock`, `disk`, `[[mqtt]] zigbee`.
    about: String,
    grade: Grade,
    text: Text,
    next: Option<Text>,
}

impl Finding {
    fn new(about: impl Into<String>, grade: Grade, zh: impl Into<String>, en: impl Into<String>) -> Self {
        Self { about: about.into(), grade, text: Text { zh: zh.into(), en: en.into() }, next: None }
    }

    fn next(self, zh: impl Into<String>, en: impl Into<String>) -> Self {
        Self { next: Some(Text { zh: zh.into(), en: en.into() }), ..self }
    }
}

use Grade::{Doubtful, Ill, Well};
use unit::Unit;

pub fn run(options: &Options) -> ExitCode {
    let findings = look(&options.site);
    let worst = findings.iter().map(|finding| finding.grade).max().unwrap_or(Well);
    if options.json {
        println!("{}", as_json(&findings));
    } else {
        let mut table = Table::default();
        for Finding { about, grade, text, next } in &findings {
            let (zh, en) = grade.words();
            let mut said = format!("{}\n{}", text.zh, text.en);
            if let Some(next) = next {
                said.push_str(&format!("\n→ {}\n→ {}", next.zh, next.en));
            }
            table.row([format!("{zh} {en}"), about.clone(), said]);
        }
        table.lines().iter().for_each(|line| println!("{line}"));
    }
    if worst == Ill { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// All findings as JSON, also for a support bundle.
pub fn json_of(site: &Path) -> Value {
    as_json(&look(site))
}

fn as_json(findings: &[Finding]) -> Value {
    let text = |text: &Text| json!({ "zh": text.zh, "en": text.en });
    let worst = findings.iter().map(|finding| finding.grade).max().unwrap_or(Well);
    let one = |finding: &Finding| {
        json!({
            "about": finding.about,
            "grade": finding.grade.words().1,
            "finding": text(&finding.text),
            "next": finding.next.as_ref().map(text),
        })
    };
    json!({ "worst": worst.words().1, "findings": findings.iter().map(one).collect::<Vec<_>>() })
}

fn look(site: &Path) -> Vec<Finding> {
    let mut findings = vec![clock()];
    let runs = desk(site, &mut findings);
    let files = SiteFiles::configuration(site, &Faults::default());
    let (peers, named) = outside(&files);
    let config = self::site(site, &mut findings);
    if let Ok((storage, _)) = config::storage_of(site) {
        let owner = fs::metadata(&storage).ok().map(|meta| (meta.uid(), meta.gid())).or_else(user);
        disk(&storage, config.as_ref().map(|config| config.limits.max_bytes), &mut findings);
        secrets(&named, owner, &mut findings);
        databases(&storage, owner, &mut findings);
        if let Some(config) = &config {
            folders(config, owner, site.starts_with("/etc/anmin"), &mut findings);
            buses(config, owner, &mut findings);
        }
        let all = site.starts_with("/etc/anmin").then_some(Path::new("/var/backups/anmin"));
        findings.extend(backups(&storage, all, site, Clock::system().now().wall));
    }
    for named in named.iter().filter(|named| named.is_certificate()) {
        findings.push(certificate::file(named, Clock::system().now().wall));
    }
    if let Some(config) = config.as_ref().filter(|_| !runs) {
        ports(config, &mut findings);
    }
    let databases = config.as_ref().map_or(&[][..], |config| &config.influx);
    findings.extend(reach::all(&peers, databases, &config::outgoing_of(&files)));
    findings
}

/// A community's past cannot be told by a clock that nobody sets.
fn clock() -> Finding {
    let now = jiff::Timestamp::from_microsecond(Clock::system().now().wall.micros()).unwrap_or_default();
    if now.as_second() < EARLIEST {
        return Finding::new("clock", Ill, format!("系统时间为 {now}"), format!("it is set to {now}")).next(
            "timedatectl set-ntp true，并更换时钟电池",
            "timedatectl set-ntp true, and a new battery for the clock",
        );
    }
    let asked = Command::new("timedatectl").args(["show", "--property=NTPSynchronized", "--value"]).output();
    match asked.ok().filter(|asked| asked.status.success()).map(|asked| asked.stdout) {
        Some(said) if said.starts_with(b"yes") => Finding::new("clock", Well, "时间已同步", "it is synchronised"),
        Some(_) => Finding::new("clock", Ill, "时间未同步", "it is not synchronised").next(
            "timedatectl set-ntp true；检查 NTP 服务器是否可达",
            "timedatectl set-ntp true; see whether its server can be reached",
        ),
        None => Finding::new("clock", Doubtful, "无法得知时间是否同步", "nobody could tell whether it is synchronised")
            .next("用 chronyc tracking 或 timedatectl 查看", "look with chronyc tracking or timedatectl"),
    }
}

/// 2025-01-01: a clock before it was never set.
const EARLIEST: i64 = 1_735_689_600;

/// What the daemon says of itself. Whether there is one, even one that tells us nothing.
fn desk(site: &Path, findings: &mut Vec<Finding>) -> bool {
    let Ok((listen, token_file)) = config::desk_of(site) else { return false };
    let asked = Client::new(&format!("http://{}", local(listen)), token_file.as_deref()).and_then(|client| {
        let runtime = daemon::runtime().map_err(ClientError::Unusable)?;
        runtime.block_on(client.get("/status"))
    });
    let status = match asked.map(serde_json::from_value::<StatusWire>) {
        Ok(Ok(status)) => status,
        Ok(Err(error)) => {
            let (zh, en) = ("守护进程的版本不同", "the daemon is of another version");
            findings.push(Finding::new("daemon", Doubtful, format!("{zh}：{error}"), format!("{en}: {error}")));
            return true;
        }
        Err(ClientError::Unreachable { .. }) => {
            findings.push(
                Finding::new("daemon", Doubtful, "没有运行", "it does not run")
                    .next("systemctl enable --now anmin", "systemctl enable --now anmin"),
            );
            return false;
        }
        Err(error) => {
            let next = (
                "以能读取 [web] token_file 的用户执行；没有该文件时用 anmin account token new 新建令牌并存入文件",
                "run it as somebody who may read [web] token_file; where there is none, put a token of `anmin account token new` into one",
            );
            let finding =
                Finding::new("daemon", Doubtful, format!("无法询问：{error}"), format!("it cannot be asked: {error}"));
            findings.push(finding.next(next.0, next.1));
            return true;
        }
    };
    findings.push(Finding::new(
        "daemon",
        Well,
        format!("运行中，版本 {}", status.version),
        format!("it runs, version {}", status.version),
    ));
    for trouble in &status.troubles {
        let grade = if trouble.level == "blue" { Doubtful } else { Ill };
        let finding = Finding::new(trouble.part.clone(), grade, trouble.message.zh.clone(), trouble.message.en.clone());
        findings.push(finding.next("anmin status，journalctl -u anmin", "anmin status, journalctl -u anmin"));
    }
    true
}

/// Where one that listens everywhere is found from here.
pub fn local(listen: SocketAddr) -> SocketAddr {
    if listen.ip().is_unspecified() { SocketAddr::from(([127, 0, 0, 1], listen.port())) } else { listen }
}

fn site(site: &Path, findings: &mut Vec<Finding>) -> Option<Config> {
    let about = "site";
    let shown = site.display();
    let check = || format!("anmin check {shown}");
    match Config::load(site) {
        Ok(config) => {
            if config.broken_rules.is_empty() {
                let devices = config.points.devices().len();
                findings.push(Finding::new(
                    about,
                    Well,
                    format!("配置正确，设备 {devices}"),
                    format!("it is sound, with {devices} devices"),
                ));
            } else {
                let count = config.broken_rules.len();
                findings.push(
                    Finding::new(about, Ill, format!("{count} 条规则失效"), format!("{count} rules cannot be loaded"))
                        .next(check(), check()),
                );
            }
            if config.site.exercise {
                findings.push(
                    Finding::new(
                        "exercise",
                        Doubtful,
                        "对外发送的内容均标为演习",
                        "everything that leaves is marked as an exercise",
                    )
                    .next(
                        "正式启用前把 [site] exercise 改为 false",
                        "before it counts, set exercise = false in [site]",
                    ),
                );
            }
            Some(config)
        }
        Err(faults) => {
            let first = faults.first().map(|fault| fault.to_string().replace('\n', " ")).unwrap_or_default();
            let count = faults.len();
            findings.push(
                Finding::new(about, Ill, format!("配置有 {count} 处错误：{first}"), format!("{count} faults: {first}"))
                    .next(check(), check()),
            );
            None
        }
    }
}

/// Below it the journal itself is in danger.
const LEAST_ROOM: u64 = 64 << 20;
/// An alarm waits for so many of these before it goes out.
const SLOW_SYNC: Duration = Duration::from_millis(100);
const NO_SYNC: Duration = Duration::from_secs(1);

fn disk(storage: &Path, limit: Option<u64>, findings: &mut Vec<Finding>) {
    let there = storage.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/"));
    let shown = storage.display();
    match room(there) {
        Some((free, files)) => {
            let mib = free >> 20;
            let used = ["readings.db", "readings.db-wal"]
                .iter()
                .filter_map(|name| Some(fs::metadata(storage.join(name)).ok()?.len()));
            let wanted = limit.unwrap_or(0).saturating_sub(used.sum());
            let (grade, zh, en) = if free < LEAST_ROOM || files == Some(0) {
                (Ill, "空间将尽", "it is as good as full")
            } else if free < wanted {
                (Doubtful, "空间少于 [readings] max_bytes", "there is less room than [readings] max_bytes may take")
            } else {
                (Well, "空间足够", "there is room")
            };
            let finding =
                Finding::new("disk", grade, format!("{shown} {zh}：{mib} MiB"), format!("{shown}: {en}, {mib} MiB"));
            findings.push(if grade == Well {
                finding
            } else {
                finding.next("清理磁盘，或调小 [readings] max_bytes", "make room, or a smaller [readings] max_bytes")
            });
        }
        None => findings.push(Finding::new(
            "disk",
            Doubtful,
            format!("无法得知 {shown} 的剩余空间"),
            format!("nobody could tell the room at {shown}"),
        )),
    }
    if there != storage {
        let finding = Finding::new("disk", Doubtful, format!("{shown} 尚不存在"), format!("{shown} is not there yet"));
        findings.push(finding.next("首次启动时创建", "it is made at the first start"));
        return;
    }
    match speed(storage) {
        Ok(longest) => {
            let ms = longest.as_millis();
            let grade = if longest >= NO_SYNC {
                Ill
            } else if longest >= SLOW_SYNC {
                Doubtful
            } else {
                Well
            };
            let finding = Finding::new(
                "disk speed",
                grade,
                format!("落盘最长 {ms} ms"),
                format!("the slowest of {SYNCS} syncs took {ms} ms"),
            );
            findings.push(if grade == Well {
                finding
            } else {
                finding.next(
                    "更换存储卡或硬盘；报警要等落盘才发出",
                    "another card or disk: an alarm waits for it before it goes out",
                )
            });
        }
        Err(error) => findings.push(
            Finding::new(
                "disk speed",
                Doubtful,
                format!("无法写入 {shown}：{error}"),
                format!("{shown} cannot be written: {error}"),
            )
            .next("以 root 身份执行", "run it as root"),
        ),
    }
}

/// Free bytes and files for those who are not root.
fn room(folder: &Path) -> Option<(u64, Option<u64>)> {
    let asked = Command::new("df").args(["--block-size=1", "--output=avail,iavail"]).arg(folder).output().ok()?;
    let said = String::from_utf8(asked.stdout).ok()?;
    let mut numbers = said.lines().nth(1)?.split_whitespace();
    // A file system without a number of files says `-`.
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()))
}

const SYNCS: usize = 20;

/// The longest of some writes as the journal makes them.
fn speed(folder: &Path) -> std::io::Result<Duration> {
    let path = folder.join(format!(".doctor-{}", std::process::id()));
    let write = || {
        let mut file = File::create_new(&path)?;
        let mut longest = Duration::ZERO;
        for _ in 0..SYNCS {
            let start = Instant::now();
            file.write_all(&[0; 4_096])?;
            file.sync_data()?;
            longest = longest.max(start.elapsed());
        }
        Ok(longest)
    };
    let written = write();
    let _ = fs::remove_file(&path);
    written
}

/// The user that the unit runs anmin as, and its group.
fn user() -> Option<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let line = users.lines().find(|line| line.starts_with("anmin:"))?;
    let mut parts = line.split(':').skip(2);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

const READ: u32 = 4;
const WRITE: u32 = 2;

/// Whether the daemon may do so with it; one that nobody knows of may.
fn may(meta: &fs::Metadata, owner: Option<(u32, u32)>, what: u32) -> bool {
    owner.is_none_or(|(uid, gid)| {
        let whose = if meta.uid() == uid {
            6
        } else if meta.gid() == gid {
            3
        } else {
            0
        };
        uid == 0 || meta.mode() & (what << whose) != 0
    })
}

/// Databases that the daemon may not write, most often because somebody has restored them as root; and what is in them.
fn databases(storage: &Path, owner: Option<(u32, u32)>, findings: &mut Vec<Finding>) {
    let files = ["state.db", "state.db-wal", "state.db-shm", "readings.db", "readings.db-wal", "readings.db-shm"];
    let barred = files.iter().map(|name| storage.join(name)).find(|path| {
        // What is not there yet is made at the first start.
        fs::metadata(path).is_ok_and(|meta| !may(&meta, owner, READ) || !may(&meta, owner, WRITE))
    });
    if let Some(path) = barred {
        let (shown, folder) = (path.display(), storage.display());
        let next = format!("chown --reference={folder} {folder}/*");
        findings.push(
            Finding::new(
                "databases",
                Ill,
                format!("守护进程不能写入 {shown}"),
                format!("the daemon may not write {shown}"),
            )
            .next(next.clone(), next),
        );
    }
    for file in fsck::FILES {
        let next = ("anmin fsck 逐条检查并说明如何修复", "anmin fsck reads all of it, and says how it is mended");
        let finding = match fsck::glance(storage, file, GLANCE) {
            Ok(Glance::Absent) => continue,
            Ok(Glance::Sound) => Finding::new(file, Well, "快速检查未见损坏", "a quick check finds it sound"),
            Ok(Glance::SoundSoFar) => {
                let seconds = GLANCE.as_secs();
                Finding::new(
                    file,
                    Well,
                    format!("文件较大，检查 {seconds} 秒未见损坏；全部检查用 anmin fsck"),
                    format!("sound as far as {seconds} s have reached; anmin fsck reads all of it"),
                )
            }
            Err(error @ StoreError::Newer { found, known, .. }) => Finding::new(
                file,
                Ill,
                format!("{}：结构版本 {found}，本程序最高支持 {known}", error.text().zh),
                format!("a newer anmin wrote it: it has schema {found}, this one knows up to {known}"),
            )
            .next(
                "安装写入它的版本，或用 anmin restore 恢复升级前的备份；anmin fsck 复查",
                "install the anmin that wrote it, or put a backup of before in its place (anmin restore); anmin fsck looks again",
            ),
            Err(error @ StoreError::Damaged { .. }) => {
                Finding::new(file, Ill, error.text().zh, error.to_string()).next(next.0, next.1)
            }
            Err(error) => Finding::new(file, Doubtful, error.text().zh, error.to_string())
                .next("以 root 身份执行；再用 anmin fsck 检查", "run it as root; then anmin fsck"),
        };
        findings.push(finding);
    }
}

/// A database of some years is read to its end by `anmin fsck` alone.
const GLANCE: Duration = Duration::from_secs(10);

/// Folders that messages for the public are written to.
fn folders(config: &Config, owner: Option<(u32, u32)>, by_unit: bool, findings: &mut Vec<Finding>) {
    let caps = config.caps.iter().map(|out| ("cap", &out.channel.id, out.folder()));
    let ebms = config.ebms.iter().map(|out| ("ebm", &out.channel.id, out.folder()));
    for (table, id, folder) in caps.chain(ebms) {
        let Some(folder) = folder else { continue };
        let (about, shown) = (format!("[[{table}]] {id}"), folder.display());
        let there = folder.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/"));
        if by_unit && !folder.starts_with("/var/lib/anmin") {
            findings.push(
                Finding::new(
                    about,
                    Doubtful,
                    format!("{shown} 不在 /var/lib/anmin 之内，服务默认不能写入"),
                    format!("{shown} is not below /var/lib/anmin, where alone the service may write"),
                )
                .next(
                    format!("systemctl edit anmin，加入 ReadWritePaths={shown}"),
                    format!("systemctl edit anmin, and put ReadWritePaths={shown} there"),
                ),
            );
        } else if !fs::metadata(there).is_ok_and(|meta| may(&meta, owner, WRITE)) {
            findings.push(
                Finding::new(
                    about,
                    Ill,
                    format!("守护进程不能写入 {}", there.display()),
                    format!("the daemon may not write into {}", there.display()),
                )
                .next(format!("chown anmin {}", there.display()), format!("chown anmin {}", there.display())),
            );
        } else {
            findings.push(Finding::new(about, Well, format!("{shown} 可写入"), format!("{shown} can be written")));
        }
    }
}

/// Secrets that others may read, and files that the daemon may not.
fn secrets(named: &[Named], owner: Option<(u32, u32)>, findings: &mut Vec<Finding>) {
    let mut sound = 0;
    for Named { key, path } in named {
        let shown = path.display();
        let meta = match fs::metadata(path) {
            Ok(meta) => meta,
            Err(error) => {
                findings.push(Finding::new(
                    key.clone(),
                    Ill,
                    format!("无法读取 {shown}：{error}"),
                    format!("{shown}: {error}"),
                ));
                continue;
            }
        };
        let secret = named.iter().any(|named| named.path == *path && named.is_secret());
        if secret && meta.mode() & 0o007 != 0 {
            let next = format!("chmod o= {shown}");
            let finding = Finding::new(
                key.clone(),
                Ill,
                format!("其他用户可读取 {shown}"),
                format!("everybody may read {shown}"),
            );
            findings.push(finding.next(next.clone(), next));
            continue;
        }
        if may(&meta, owner, READ) {
            sound += 1;
        } else {
            let next = format!("chgrp anmin {shown} && chmod g+r {shown}");
            let finding = Finding::new(
                key.clone(),
                Ill,
                format!("守护进程不能读取 {shown}"),
                format!("the daemon may not read {shown}"),
            );
            findings.push(finding.next(next.clone(), next));
        }
    }
    if sound == named.len() && sound > 0 {
        findings.push(Finding::new(
            "secrets",
            Well,
            format!("{sound} 个文件权限正确"),
            format!("{sound} files have the permissions that they need"),
        ));
    }
}

/// Where the daemon will listen, and somebody else does.
fn ports(config: &Config, findings: &mut Vec<Finding>) {
    let broker = config.broker.iter().map(|broker| ("[broker]".to_owned(), broker.listen));
    let panels = config.gbt26875.iter().map(|panel| (format!("[[gbt26875]] {}", panel.id), panel.listen));
    let posts = config.http.iter().map(|http| (format!("[[http]] {}", http.id), http.listen));
    let modems = config.buses.iter().filter_map(|bus| match &bus.settings.transport {
        Transport::DialIn(dial_in) => Some((dial_in.listen, format!("[[bus]] {}", bus.settings.id))),
        _ => None,
    });
    // Several buses may share an address.
    let modems: BTreeMap<_, _> = modems.collect();
    let modems = modems.into_iter().map(|(listen, of)| (of, listen));
    let web = std::iter::once(("[web]".to_owned(), config.web.listen));
    let tls = config.web.tls.iter().map(|tls| ("[web] tls_listen".to_owned(), tls.listen));
    let all = web.chain(tls).chain(broker).chain(panels).chain(posts).chain(modems);
    for (of, listen) in all {
        let found = match TcpListener::bind(listen) {
            Ok(_) if (1..1_024).contains(&listen.port()) => Finding::new(
                of,
                Ill,
                format!("{listen}：服务无权使用 1024 以下端口"),
                format!("{listen}: the unit may not listen below 1024"),
            )
            .next("改用 1024 以上端口", "take a port above"),
            Ok(_) => Finding::new(of, Well, format!("{listen} 可用"), format!("{listen} is free")),
            Err(error) => {
                let next = format!("ss -ltnp sport = :{}", listen.port());
                Finding::new(of, Ill, format!("{listen} 不可用：{error}"), format!("{listen}: {error}"))
                    .next(next.clone(), next)
            }
        };
        findings.push(found);
    }
}

fn buses(config: &Config, owner: Option<(u32, u32)>, findings: &mut Vec<Finding>) {
    let unit = Unit::below(Path::new("/"));
    let mut barred = Vec::new();
    for bus in &config.buses {
        let of = format!("[[bus]] {}", bus.settings.id);
        let found = match &bus.settings.transport {
            Transport::Tcp { host, port } | Transport::OverTcp { host, port, .. } => {
                reach::tcp(&of, host, *port, &config.outgoing)
            }
            // Its device calls us: whether one has is what the daemon knows.
            Transport::DialIn(_) => continue,
            Transport::Serial(_, line) => {
                let found = serial::line(&of, &line.device, unit.as_ref(), owner);
                if unit.as_ref().is_some_and(|unit| serial::is_barred(&line.device, unit)) {
                    barred.push(line.device.display().to_string());
                }
                found
            }
        };
        findings.push(found);
    }
    if !barred.is_empty() {
        let barred = barred.join(", ");
        findings.push(
            Finding::new(
                "serial",
                Ill,
                format!("服务单元不允许使用 {barred}"),
                format!("the unit does not let anmin reach {barred}"),
            )
            .next(serial::DROP_IN, serial::DROP_IN),
        );
    }
}

/// A box without a backup loses the site with its card. `all` is where the timer of the package puts them.
fn backups(storage: &Path, all: Option<&Path>, site: &Path, now: Wall) -> Vec<Finding> {
    let last = LastBackup::read(storage);
    // Those of before it was written down are known by themselves.
    let made = all.into_iter().flat_map(|all| fs::read_dir(all).into_iter().flatten().flatten()).filter_map(|entry| {
        let at = fs::metadata(entry.path().join(backup::MANIFEST)).ok()?.modified().ok()?;
        let since = at.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(Wall::from_micros(i64::try_from(since.as_micros()).ok()?))
    });
    let newest = made.chain(last.taken.map(|(at, _)| at)).max();
    let next = match all {
        Some(_) => "systemctl enable --now anmin-backup.timer".to_owned(),
        None => format!("anmin backup TO {}", site.display()),
    };
    let about = "backup";
    let mut findings = vec![match newest.map(|at| now.since(at)) {
        Some(age) if age < Duration::from_secs(2 * 86_400) => {
            Finding::new(about, Well, "近两天内有备份", "there is one of the last two days")
        }
        Some(age) => {
            let days = age.as_secs() / 86_400;
            Finding::new(about, Doubtful, format!("最近的备份在 {days} 天前"), format!("the newest is {days} days old"))
                .next(next.clone(), next)
        }
        None => Finding::new(about, Doubtful, "没有备份", "there is none").next(next.clone(), next),
    }];
    let next = "journalctl -u anmin-backup";
    if let Some((_, why)) = last.failed {
        let finding = Finding::new("last backup", Ill, format!("失败：{}", why.zh), format!("it failed: {}", why.en));
        findings.push(finding.next(next, next));
    } else if all.is_some() && has_failed("anmin-backup.service") {
        findings
            .push(Finding::new("last backup", Ill, "备份服务失败", "anmin-backup.service has failed").next(next, next));
    }
    findings
}

/// What systemd says of a unit; where there is no systemd nothing has failed by it.
fn has_failed(unit: &str) -> bool {
    Command::new("systemctl").args(["is-failed", "--quiet", unit]).status().is_ok_and(|asked| asked.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_of_a_backup_is_said_of_any_site_and_a_failure_is_ill() {
        let folder = std::env::temp_dir().join(format!("anmin-doctor-backup-{}", std::process::id()));
        let all = folder.join("all");
        fs::create_dir_all(all.join("anmin-x")).expect("the folder is ours");
        let day = |n: i64| Wall::from_micros(n * 86_400_000_000);
        let found = |all: Option<&Path>, now: Wall| {
            let findings = backups(&folder, all, Path::new("/srv/site"), now);
            let shown = findings.into_iter().map(|found| (found.about, found.grade, found.next.map(|next| next.en)));
            shown.filter(|(about, ..)| all.is_none() || about == "backup").collect::<Vec<_>>()
        };
        let by_hand = || Some("anmin backup TO /srv/site".to_owned());
        let of = |grade, next: Option<String>| ("backup".to_owned(), grade, next);
        assert_eq!(found(None, day(20_000)), [of(Doubtful, by_hand())], "there is none");
        LastBackup::note_taken(&folder, &all, day(20_000)).expect("the folder is ours");
        assert_eq!(found(None, day(20_001)), [of(Well, None)]);
        assert_eq!(found(None, day(20_002)), [of(Doubtful, by_hand())]);
        let why = Text { zh: "磁盘已满".to_owned(), en: "the disk is full".to_owned() };
        LastBackup::note_failed(&folder, why, day(20_002)).expect("the folder is ours");
        let failed = ("last backup".to_owned(), Ill, Some("journalctl -u anmin-backup".to_owned()));
        assert_eq!(found(None, day(20_002)), [of(Doubtful, by_hand()), failed]);
        // One that an older anmin has made.
        fs::write(all.join("anmin-x").join(backup::MANIFEST), "{}").expect("the folder is ours");
        assert_eq!(found(Some(&all), Clock::system().now().wall), [of(Well, None)]);
        fs::remove_dir_all(&folder).expect("it is ours");
    }
}
