//! `anmin backup`, `restore` and `fsck`: looking after the databases of a site, from the machine that they are on.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anmin_rules::rule::Text;
use anmin_sensors::time::Wall;
use clap::Args;
use jiff::tz::TimeZone;

use super::alarm::Who;
use crate::clock::Clock;
use crate::config;
use crate::store::backup::{self, Backup, BackupError};
use crate::store::last_backup::LastBackup;
use crate::store::{StoreError, fsck};

/// `anmin backup`.
#[derive(Debug, Args)]
pub struct BackupOptions {
    /// The folder to make; it must not be there, or be empty. With --keep: the folder to make a dated one in.
    to: PathBuf,
    /// The site's folder, or its configuration file.
    #[arg(default_value = "/etc/anmin")]
    site: PathBuf,
    /// Make it in TO under a name with its time, then remove the oldest there but this many.
    #[arg(long, value_name = "BACKUPS", value_parser = clap::value_parser!(u16).range(1..))]
    keep: Option<u16>,
}

/// `anmin restore`.
#[derive(Debug, Args)]
pub struct RestoreOptions {
    /// The folder of the backup.
    from: PathBuf,
    /// The site's folder, or its configuration file.
    #[arg(default_value = "/etc/anmin")]
    site: PathBuf,
    /// Put the site's files back, too; one that is there and differs is kept.
    #[arg(long)]
    with_site: bool,
    #[command(flatten)]
    who: Who,
}

/// `anmin fsck`.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 sound, or mended; 1 damaged, or it could not be checked; 2 used wrongly.")]
pub struct FsckOptions {
    /// The site's folder, or its configuration file.
    #[arg(default_value = "/etc/anmin")]
    site: PathBuf,
    /// Mend what is damaged: set the file aside and carry everything sound over into a new one. The daemon must not run.
    #[arg(long)]
    repair: bool,
    #[command(flatten)]
    who: Who,
}

pub fn backup(options: &BackupOptions) -> ExitCode {
    end(|| {
        let (storage, _) = storage_of(&options.site)?;
        let now = now();
        let to = match options.keep {
            Some(_) => backup::dated(&options.to, now),
            None => options.to.clone(),
        };
        let taken = backup::take(&storage, &options.site, &to, now).inspect_err(|error| {
            // One by hand is told to whoever stands there; nobody reads what a timer is told.
            if options.keep.is_some() {
                unnoted(LastBackup::note_failed(&storage, error.text(), now));
            }
        })?;
        unnoted(LastBackup::note_taken(&storage, &to, now));
        for kept in &taken.manifest.files {
            println!("{}  {}", size(kept.bytes), kept.path);
        }
        taken.notes.iter().for_each(warn);
        let bytes: u64 = taken.manifest.files.iter().map(|kept| kept.bytes).sum();
        let shown = to.display();
        say(
            format!(
                "已备份 {} 个文件，共 {}，至 {shown}；其中含密码等机密，请妥善保管",
                taken.manifest.files.len(),
                size(bytes).trim_start()
            ),
            format!(
                "{} files of {} saved in {shown}; secrets are among them: keep it safe",
                taken.manifest.files.len(),
                size(bytes).trim_start()
            ),
        );
        if let Some(keep) = options.keep {
            for gone in backup::prune(&options.to, keep.into(), &to)? {
                say(format!("已删除旧备份 {}", gone.display()), format!("removed the old backup {}", gone.display()));
            }
        }
        Ok(())
    })
}

/// That nobody will know of it later does not undo a backup.
fn unnoted(noted: std::io::Result<()>) {
    if let Err(error) = noted {
        warn(&Text {
            zh: format!("无法在数据库旁记下此次备份：{error}"),
            en: format!("it cannot be noted beside the databases: {error}"),
        });
    }
}

pub fn restore(options: &RestoreOptions) -> ExitCode {
    end(|| {
        let backup = Backup::open(&options.from)?;
        let now = now();
        if let Ok((storage, _)) = config::storage_of(&options.site) {
            backup::must_be_free(&storage)?;
        }
        let mut returned = Vec::new();
        if options.with_site {
            returned.push(backup.restore_site(&options.site, now)?);
        }
        let (storage, _) = storage_of(&options.site).map_err(|mut problem| {
            if !options.with_site {
                problem.hint = Some(Text {
                    zh: "用 --with-site 一并恢复站点文件".to_owned(),
                    en: "--with-site puts the site's files back, too".to_owned(),
                });
            }
            problem
        })?;
        let databases = backup.restore(&storage, now, &options.who.name_or_unknown())?;
        let from = databases.numbers_from;
        let revoked = databases.revoked.clone();
        returned.push(databases);
        for kept in returned.iter().flat_map(|returned| &returned.kept) {
            say(format!("原文件保留为 {}", kept.display()), format!("what was there is kept as {}", kept.display()));
        }
        for file in returned.iter().flat_map(|returned| &returned.files) {
            say(format!("已恢复 {}", file.display()), format!("restored {}", file.display()));
        }
        say(
            format!("备份时间 {}；报警编号自 {from} 续接，不会与此前发出的重复", backup.manifest.taken_at),
            format!(
                "as of {}; alarms count on from {from}, so that nothing that was sent before is sent under the same id",
                backup.manifest.taken_at
            ),
        );
        say(
            "所有登录均已失效，请重新登录；密码、角色和可见范围恢复为备份时的内容，请核对（anmin account list）"
                .to_owned(),
            "everybody is signed out; passwords, roles and places are those of then: look at `anmin account list`"
                .to_owned(),
        );
        if !revoked.named.is_empty() {
            let named = revoked.named.join(", ");
            say(
                format!("备份之后已撤销或停用的仍然无效：{named}"),
                format!("what was revoked or disabled since stays so: {named}"),
            );
        }
        if revoked.unknown > 0 {
            say(
                format!(
                    "现有数据库无法说明备份之后撤销了什么：恢复了 {} 个令牌和账号，请逐一核对（anmin account list）",
                    revoked.unknown
                ),
                format!(
                    "the database in place cannot say what was revoked since: {} tokens and accounts are as they were then; \
                     look through them (anmin account list)",
                    revoked.unknown
                ),
            );
        }
        Ok(())
    })
}

pub fn fsck(options: &FsckOptions) -> ExitCode {
    end(|| {
        let (storage, _) = storage_of(&options.site)?;
        let found = fsck::check(&storage)?;
        tell(&storage, &found);
        if found.iter().all(fsck::Checked::is_sound) {
            say("完好".to_owned(), "sound".to_owned());
            return Ok(());
        }
        if !options.repair {
            return Err(Problem {
                text: Text {
                    zh: "数据库有损坏；未作任何改动".to_owned(),
                    en: "damaged; nothing was changed".to_owned(),
                },
                hint: Some(Text {
                    zh: "停止安民后用 --repair 修复".to_owned(),
                    en: "stop the daemon, then mend it with --repair".to_owned(),
                }),
            });
        }
        for Text { zh, en } in fsck::repair(&storage, &found, now(), &options.who.name_or_unknown())? {
            say(zh, en);
        }
        let again = fsck::check(&storage)?;
        if again.iter().all(fsck::Checked::is_sound) {
            say("已修复".to_owned(), "mended".to_owned());
            return Ok(());
        }
        tell(&storage, &again);
        Err(Problem { text: Text { zh: "仍有损坏".to_owned(), en: "it is still damaged".to_owned() }, hint: None })
    })
}

fn tell(storage: &Path, found: &[fsck::Checked]) {
    for checked in found {
        let holds = |pick: fn(&Text) -> &String| {
            let words: Vec<String> = checked.holds.iter().map(|(word, n)| format!("{} {n}", pick(word))).collect();
            words.join(", ")
        };
        println!("{}", storage.join(checked.file).display());
        if !checked.holds.is_empty() {
            println!("  {}\n  {}", holds(|text| &text.zh), holds(|text| &text.en));
        }
        for fault in &checked.faults {
            println!("  损坏：{}\n  damaged: {}", fault.zh, fault.en);
        }
    }
}

/// Why a command did not do what it was asked.
pub struct Problem {
    pub text: Text,
    pub hint: Option<Text>,
}

impl From<BackupError> for Problem {
    fn from(error: BackupError) -> Self {
        let hint = match &error {
            BackupError::Store(store) => hint_of(store),
            _ => None,
        };
        Self { text: error.text(), hint }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self { text: error.text(), hint: hint_of(&error) }
    }
}

fn hint_of(error: &StoreError) -> Option<Text> {
    match error {
        StoreError::InUse { .. } => Some(Text {
            zh: "先停止安民（systemctl stop anmin）".to_owned(),
            en: "stop the daemon first (systemctl stop anmin)".to_owned(),
        }),
        StoreError::Damaged { .. } => Some(Text {
            zh: "`anmin fsck` 说明损坏情况".to_owned(),
            en: "`anmin fsck` says what is damaged".to_owned(),
        }),
        _ => None,
    }
}

pub fn end(work: impl FnOnce() -> Result<(), Problem>) -> ExitCode {
    match work() {
        Ok(()) => ExitCode::SUCCESS,
        Err(Problem { text, hint }) => {
            eprintln!("错误：{}\nerror: {}", text.zh, text.en);
            if let Some(hint) = hint {
                eprintln!("  提示：{}\n  hint: {}", hint.zh, hint.en);
            }
            ExitCode::FAILURE
        }
    }
}

pub fn storage_of(site: &Path) -> Result<(PathBuf, TimeZone), Problem> {
    config::storage_of(site).map_err(|faults| {
        let why: Vec<String> = faults.iter().map(ToString::to_string).collect();
        let why = why.join("\n");
        Problem {
            text: Text {
                zh: "站点配置有误".to_owned(), en: format!("the site's configuration cannot be used\n{why}")
            },
            hint: None,
        }
    })
}

fn now() -> Wall {
    Clock::system().now().wall
}

pub fn say(zh: String, en: String) {
    println!("{zh} · {en}");
}

fn warn(note: &Text) {
    eprintln!("注意：{}\nnote: {}", note.zh, note.en);
}

/// A size as people read it, in the width of one column.
fn size(bytes: u64) -> String {
    match bytes {
        0..10_240 => format!("{bytes:>6} B"),
        10_240..10_485_760 => format!("{:>4} KiB", bytes >> 10),
        _ => format!("{:>4} MiB", bytes >> 20),
    }
}
