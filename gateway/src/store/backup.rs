//! Backups: both databases and the site's files in a folder, with a manifest that says what they must be.
//!
//! ```text
//! anmin-backup.json    format, version of anmin, when, and of each file its size, SHA-256 and mode
//! state.db             the journal as of one moment, also while the daemon writes it
//! readings.db          history and queue, a moment earlier; left out where they cannot be read
//! warnings/…           what the offices above have said and is in force
//! crew-link.key        what signs the links of crews, where the site names no key of its own
//! site/…               the site's folder, secrets included
//! ```
//!
//! A backup is whole or not there: it is made under another name and renamed when everything is on disk. The folder may
//! be read by its owner only.
//!
//! **Going back in time.** A restored journal knows nothing of what happened after the backup, but receivers do: they
//! remember the ids of orders and CAP messages and take a repeat for one. So the restored file gets a `numbers_from`
//! (see [`super::state`]) that no transition of either past has reached, and counts more starts than both.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use anmin_rules::rule::Text;
use anmin_sensors::time::Wall;
use ring::digest;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};
use serde::{Deserialize, Serialize};

use super::audit::{Deed, Through, Way};
use super::{DirLock, StoreError, beside, facts, pending, people, put_aside, readings, stamp, state};
use crate::config::{adopted, tuned};
use crate::crew_link;

/// The name of the manifest.
pub const MANIFEST: &str = "anmin-backup.json";
/// The folder of the site's files within a backup.
const SITE: &str = "site";
/// The folder of warnings from above, beside the databases and within a backup.
pub const WARNINGS: &str = "warnings";
/// The format that this anmin writes.
const FORMAT: u32 = 1;
/// No file of a site is larger; one that is has not been put there by hand.
const MOST_SITE_FILE: u64 = 64 << 20;

/// Why there is no backup, or why one is not restored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{path}: {why}")]
    Io { path: String, why: String },
    /// A backup never overwrites.
    #[error("{path} is there already and not empty")]
    Occupied { path: String },
    /// Nothing to keep.
    #[error("there is no state.db in {dir}: no anmin has run on it")]
    Nothing { dir: String },
    #[error("{path} is no backup: {why}")]
    NoBackup { path: String, why: String },
    /// The backup was changed or damaged since it was made.
    #[error("{path} is not what was saved: {why}")]
    Differs { path: String, why: String },
}

impl BackupError {
    pub fn text(&self) -> Text {
        let zh = match self {
            Self::Store(error) => return error.text(),
            Self::Io { path, why } => format!("{path} 读写失败：{why}"),
            Self::Occupied { path } => format!("{path} 已存在且不为空"),
            Self::Nothing { dir } => format!("{dir} 中没有 state.db：安民尚未在此运行过"),
            Self::NoBackup { path, why } => format!("{path} 不是备份：{why}"),
            Self::Differs { path, why } => format!("{path} 与备份时不一致：{why}"),
        };
        Text { zh, en: self.to_string() }
    }

    fn io(path: &Path, error: &io::Error) -> Self {
        Self::Io { path: path.display().to_string(), why: error.to_string() }
    }
}

type Result<T> = std::result::Result<T, BackupError>;

/// What stands in `anmin-backup.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    /// The version that made it.
    pub anmin: String,
    /// RFC 3339.
    pub taken_at: String,
    pub files: Vec<Kept>,
}

/// One file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Within the backup, with `/` between its parts.
    pub path: String,
    pub bytes: u64,
    /// Lower-case hexadecimal.
    pub sha256: String,
    /// Permissions as `chmod` takes them, in octal.
    pub mode: String,
}

/// What was saved, and what was not.
#[derive(Clone, Debug)]
pub struct Taken {
    pub manifest: Manifest,
    /// What a person should know.
    pub notes: Vec<Text>,
}

/// Saves the databases in `storage` and the files of the site at `site` to the new folder `to`. The daemon may run.
pub fn take(storage: &Path, site: &Path, to: &Path, now: Wall) -> Result<Taken> {
    if fs::read_dir(to).is_ok_and(|mut entries| entries.next().is_some()) || to.is_file() {
        return Err(BackupError::Occupied { path: to.display().to_string() });
    }
    if !storage.join(state::FILE).is_file() {
        return Err(BackupError::Nothing { dir: storage.display().to_string() });
    }
    let part = beside(to, &format!(".part-{}", std::process::id()));
    let made = fill(storage, site, &part, to, now);
    let done = made.and_then(|taken| {
        // An empty folder of this name may be there; a full one is not overwritten.
        fs::rename(&part, to).map_err(|error| BackupError::io(to, &error))?;
        if let Some(parent) = to.parent() {
            sync_dir(parent);
        }
        Ok(taken)
    });
    if done.is_err() {
        let _ = fs::remove_dir_all(&part);
    }
    done
}

/// The folder within `all` that a backup of this moment gets: no two of one second, and in the order of time by name.
pub fn dated(all: &Path, now: Wall) -> PathBuf {
    all.join(format!("anmin-{}", stamp(now)))
}

/// Removes the oldest backups in `all` but the newest `keep`, never `made`: a clock that stands in 1970 must not cost the
/// only good one. What anmin has not made there is left alone. Gives what is gone.
pub fn prune(all: &Path, keep: usize, made: &Path) -> Result<Vec<PathBuf>> {
    let taken_at = |folder: &Path| -> Option<String> {
        let text = fs::read_to_string(folder.join(MANIFEST)).ok()?;
        serde_json::from_str::<Manifest>(&text).ok().map(|manifest| manifest.taken_at)
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(all).map_err(|error| BackupError::io(all, &error))?.flatten() {
        let path = entry.path();
        let ours = entry.file_name().to_string_lossy().starts_with("anmin-") && path != made && !path.is_symlink();
        if let Some(at) = ours.then(|| taken_at(&path)).flatten() {
            found.push((at, path));
        }
    }
    found.sort();
    let many = (found.len() + 1).saturating_sub(keep.max(1));
    let gone: Vec<PathBuf> = found.into_iter().take(many).map(|(_, path)| path).collect();
    for path in &gone {
        fs::remove_dir_all(path).map_err(|error| BackupError::io(path, &error))?;
    }
    Ok(gone)
}

fn fill(storage: &Path, site: &Path, part: &Path, to: &Path, now: Wall) -> Result<Taken> {
    let _ = fs::remove_dir_all(part);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(part).map_err(|error| BackupError::io(part, &error))?;
    let mut notes = Vec::new();
    let mut files = Vec::new();
    // The readings first: then the journal knows at least as much as they do.
    if storage.join(readings::FILE).is_file() {
        match copy_database(storage, readings::FILE, part) {
            Ok(()) => files.push(describe(part, readings::FILE, 0o600)?),
            Err(error) if matches!(error, StoreError::Damaged { .. }) => {
                let _ = fs::remove_file(part.join(readings::FILE));
                notes.push(Text {
                    zh: format!("{} 已损坏，未包含在备份中：{error}", readings::FILE),
                    en: format!("{} is damaged and not in the backup: {error}", readings::FILE),
                });
            }
            Err(error) => return Err(error.into()),
        }
    }
    copy_database(storage, state::FILE, part)?;
    files.push(describe(part, state::FILE, 0o600)?);
    for file in [tuned::FILE, adopted::FILE, crew_link::FILE] {
        if storage.join(file).is_file() {
            copy_file(&storage.join(file), &part.join(file), 0o600)?;
            files.push(describe(part, file, 0o600)?);
        }
    }
    let warnings = storage.join(WARNINGS);
    if warnings.is_dir() {
        for (from, path) in site_files(&warnings, &[], &mut notes)? {
            let name = format!("{WARNINGS}/{path}");
            match copy_file(&from, &part.join(&name), 0o600) {
                Ok(_) => files.push(describe(part, &name, 0o600)?),
                // One that is over goes while the daemon runs.
                Err(_) if !from.exists() => drop(fs::remove_file(part.join(&name))),
                Err(error) => return Err(error),
            }
        }
    }
    let away = [storage, part, to].map(|path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()));
    for (from, path) in site_files(site, &away, &mut notes)? {
        let name = format!("{SITE}/{path}");
        let target = part.join(&name);
        let mode = copy_file(&from, &target, 0o600)?;
        files.push(describe(part, &name, mode)?);
    }
    if !site.is_dir() {
        notes.push(Text {
            zh: format!("站点为单个文件 {}：备份只含该文件，其中提到的其他文件请另行保存", site.display()),
            en: format!(
                "the site is the single file {}: only it is saved, not the files that it names",
                site.display()
            ),
        });
    }
    let taken_at = jiff::Timestamp::from_microsecond(now.micros()).map_or_else(|_| String::new(), |at| at.to_string());
    let manifest = Manifest { format: FORMAT, anmin: env!("CARGO_PKG_VERSION").to_owned(), taken_at, files };
    let path = part.join(MANIFEST);
    let text = serde_json::to_string_pretty(&manifest).map_err(|error| BackupError::io(&path, &error.into()))?;
    fs::write(&path, text + "\n").map_err(|error| BackupError::io(&path, &error))?;
    sync(&path)?;
    sync_dir(part);
    Ok(Taken { manifest, notes })
}

/// One database as of one moment, without holding its writer up.
fn copy_database(storage: &Path, file: &str, to: &Path) -> std::result::Result<(), StoreError> {
    let err = |error| StoreError::sqlite(file, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(storage.join(file), flags).map_err(err)?;
    conn.busy_timeout(std::time::Duration::from_secs(10)).map_err(err)?;
    let target = to.join(file);
    conn.execute("VACUUM INTO ?1", [target.to_string_lossy()]).map_err(err)?;
    fs::set_permissions(&target, fs::Permissions::from_mode(0o600))
        .and_then(|()| File::open(&target)?.sync_all())
        .map_err(|error| StoreError::io(file, &error))
}

/// Every plain file of the site with its path within it, in the order of the names.
fn site_files(site: &Path, away: &[PathBuf], notes: &mut Vec<Text>) -> Result<Vec<(PathBuf, String)>> {
    if !site.is_dir() {
        let name = site.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        return Ok(vec![(site.to_owned(), name)]);
    }
    let mut found = Vec::new();
    let mut folders = vec![(site.to_owned(), String::new())];
    while let Some((folder, within)) = folders.pop() {
        let entries = fs::read_dir(&folder).map_err(|error| BackupError::io(&folder, &error))?;
        for entry in entries {
            let entry = entry.map_err(|error| BackupError::io(&folder, &error))?;
            let path = entry.path();
            let name = format!("{within}{}", entry.file_name().to_string_lossy());
            // What a link leads to is kept, so that the backup needs nothing else; a link to a folder may lead in circles.
            let Ok(meta) = fs::metadata(&path) else { continue };
            let real = fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
            if away.contains(&real) || (meta.is_dir() && path.join(MANIFEST).is_file()) {
                continue;
            }
            if meta.is_dir() && !path.is_symlink() {
                folders.push((path, format!("{name}/")));
            } else if meta.is_file() && meta.len() <= MOST_SITE_FILE {
                found.push((path, name));
            } else if meta.is_file() || meta.is_dir() {
                notes.push(Text {
                    zh: format!("未备份 {}：大于 64 MiB 或为指向文件夹的链接", path.display()),
                    en: format!("{} is not saved: larger than 64 MiB, or a link to a folder", path.display()),
                });
            }
        }
    }
    found.sort_by(|one, other| one.1.cmp(&other.1));
    Ok(found)
}

/// Copies and syncs one file; gives the mode that it has.
fn copy_file(from: &Path, to: &Path, mode: u32) -> Result<u32> {
    if let Some(parent) = to.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .map_err(|error| BackupError::io(parent, &error))?;
    }
    let mut source = File::open(from).map_err(|error| BackupError::io(from, &error))?;
    let meta = source.metadata().map_err(|error| BackupError::io(from, &error))?;
    File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(to)
        .and_then(|mut target| {
            io::copy(&mut source, &mut target)?;
            target.sync_all()
        })
        .map_err(|error| BackupError::io(to, &error))?;
    Ok(meta.permissions().mode() & 0o777)
}

fn describe(folder: &Path, name: &str, mode: u32) -> Result<Kept> {
    let path = folder.join(name);
    let (bytes, sha256) = digest_of(&path).map_err(|error| BackupError::io(&path, &error))?;
    Ok(Kept { path: name.to_owned(), bytes, sha256, mode: format!("{mode:o}") })
}

fn digest_of(path: &Path) -> io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let mut context = digest::Context::new(&digest::SHA256);
    let mut block = vec![0_u8; 256 << 10];
    let mut bytes = 0;
    loop {
        let read = file.read(&mut block)?;
        if read == 0 {
            let sum = context.finish();
            return Ok((bytes, sum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()));
        }
        context.update(&block[..read]);
        bytes += read as u64;
    }
}

fn sync(path: &Path) -> Result<()> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|error| BackupError::io(path, &error))
}

/// Makes names durable; a file system that cannot do it keeps them by itself.
fn sync_dir(path: &Path) {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let _ = File::open(path).and_then(|dir| dir.sync_all());
}

/// A backup that has been read to the last byte and is what was saved.
#[derive(Debug)]
pub struct Backup {
    folder: PathBuf,
    pub manifest: Manifest,
}

/// What restoring did.
#[derive(Clone, Debug)]
pub struct Returned {
    /// Where what was there is kept now.
    pub kept: Vec<PathBuf>,
    /// Files that were put in place.
    pub files: Vec<PathBuf>,
    /// Every alarm counts on from here; see [`super::state`].
    pub numbers_from: u32,
    pub revoked: Revoked,
}

/// What was taken from people after the backup was made, and stays taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revoked {
    /// Tokens that were revoked and accounts that were disabled: `token:office`, `account:li`.
    pub named: Vec<String>,
    /// Where the journal in place cannot say so, the tokens and accounts that the backup brings back as they were.
    pub unknown: usize,
}

impl Backup {
    /// Reads the manifest in `folder` and checks every file against it, and that the databases are sound and not newer
    /// than this anmin.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(MANIFEST);
        let no_backup = |why: String| BackupError::NoBackup { path: folder.display().to_string(), why };
        let text = fs::read_to_string(&path).map_err(|error| no_backup(format!("{MANIFEST}: {error}")))?;
        let manifest: Manifest =
            serde_json::from_str(&text).map_err(|error| no_backup(format!("{MANIFEST} cannot be read: {error}")))?;
        if manifest.format > FORMAT {
            let why = format!("{MANIFEST} has format {}, this anmin knows up to {FORMAT}", manifest.format);
            return Err(no_backup(why));
        }
        for kept in &manifest.files {
            let within = Path::new(&kept.path);
            if within.components().any(|part| !matches!(part, Component::Normal(_))) {
                return Err(no_backup(format!("{MANIFEST} names {:?}, which leads out of it", kept.path)));
            }
            let path = folder.join(within);
            let differs = |why: String| BackupError::Differs { path: path.display().to_string(), why };
            let (bytes, sha256) = digest_of(&path).map_err(|error| differs(error.to_string()))?;
            if (bytes, &sha256) != (kept.bytes, &kept.sha256) {
                return Err(differs(format!(
                    "{bytes} bytes with SHA-256 {sha256}, expected {} with {}",
                    kept.bytes, kept.sha256
                )));
            }
        }
        if !manifest.files.iter().any(|kept| kept.path == state::FILE) {
            return Err(no_backup(format!("there is no {} in it", state::FILE)));
        }
        let backup = Self { folder: folder.to_owned(), manifest };
        for (file, known) in [(state::FILE, state::MIGRATIONS.len()), (readings::FILE, readings::MIGRATIONS.len())] {
            if backup.has(file) {
                sound(&backup.folder.join(file), file, known as i64)?;
            }
        }
        Ok(backup)
    }

    /// Puts the databases in the place of those in `storage`, which are kept under a name with their time. Refuses while
    /// a daemon runs there. That `who` did it is in the audit of the restored journal.
    pub fn restore(&self, storage: &Path, now: Wall, who: &str) -> Result<Returned> {
        let _lock = DirLock::take(storage)?;
        let all = [state::FILE, readings::FILE, tuned::FILE, adopted::FILE, crew_link::FILE];
        let files: Vec<&str> = all.into_iter().filter(|file| self.has(file)).collect();
        let staged = |file: &str| storage.join(format!("{file}.restoring"));
        let restored = files
            .iter()
            .try_for_each(|file| copy_file(&self.folder.join(file), &staged(file), 0o600).map(|_| ()))
            // Before anything is replaced: they come beside what is there.
            .and_then(|()| self.restore_warnings(storage))
            .and_then(|added| Ok((added, move_on(&staged(state::FILE), &storage.join(state::FILE), now)?)))
            .and_then(|(added, (from, revoked))| {
                let taken_at = &self.manifest.taken_at;
                let detail =
                    serde_json::json!({ "taken_at": taken_at, "numbers_from": from, "stay_revoked": revoked.named });
                let (who, way) = (who.to_owned(), Way::of(Through::CommandLine));
                let deed = Deed { who, from: way, ..Deed::of_anmin(now, "system.restore", detail) };
                state::note(&staged(state::FILE), &deed)?;
                sync(&staged(state::FILE))?;
                Ok((added, from, revoked))
            });
        let (added, numbers_from, revoked) = match restored {
            Ok(restored) => restored,
            Err(error) => {
                files.iter().for_each(|file| {
                    let _ = fs::remove_file(staged(file));
                });
                return Err(error);
            }
        };
        let mut returned = Returned { kept: Vec::new(), files: added, numbers_from, revoked };
        // All go, also where the backup holds fewer: what is of another time does not belong to this journal. But the key of a
        // box that the backup does not know stays.
        for file in all.into_iter().filter(|file| *file != crew_link::FILE || self.has(file)) {
            let path = storage.join(file);
            if path.exists() {
                let kept = put_aside(&path, &format!("before-restore-{}", stamp(now)));
                returned.kept.push(kept.map_err(|error| BackupError::io(&path, &error))?);
            }
        }
        for file in files {
            let path = storage.join(file);
            own_like(&staged(file), storage);
            fs::rename(staged(file), &path).map_err(|error| BackupError::io(&path, &error))?;
            returned.files.push(path);
        }
        sync_dir(storage);
        Ok(returned)
    }

    /// What offices had said and is not there; the name of each file says which message it is.
    fn restore_warnings(&self, storage: &Path) -> Result<Vec<PathBuf>> {
        let mut added = Vec::new();
        let all = self.manifest.files.iter().filter(|kept| Path::new(&kept.path).starts_with(WARNINGS));
        for kept in all {
            let path = storage.join(&kept.path);
            if digest_of(&path).is_ok_and(|(_, sha256)| sha256 == kept.sha256) {
                continue;
            }
            let staged = beside(&path, ".restoring");
            copy_file(&self.folder.join(&kept.path), &staged, 0o600)?;
            fs::rename(&staged, &path).map_err(|error| BackupError::io(&path, &error))?;
            path.parent().into_iter().chain([&*path]).for_each(|new| own_like(new, storage));
            added.push(path);
        }
        Ok(added)
    }

    /// Puts the site's files into the folder `site`. One that is there and differs is kept under a name with its time.
    pub fn restore_site(&self, site: &Path, now: Wall) -> Result<Returned> {
        let mut returned =
            Returned { kept: Vec::new(), files: Vec::new(), numbers_from: 0, revoked: Revoked::default() };
        for kept in &self.manifest.files {
            let Some(name) = kept.path.strip_prefix("site/") else { continue };
            let path = site.join(name);
            if digest_of(&path).is_ok_and(|(_, sha256)| sha256 == kept.sha256) {
                continue;
            }
            let staged = beside(&path, ".restoring");
            let mode = u32::from_str_radix(&kept.mode, 8).unwrap_or(0o600) & 0o777;
            copy_file(&self.folder.join(&kept.path), &staged, 0o600)?;
            fs::set_permissions(&staged, fs::Permissions::from_mode(mode))
                .map_err(|error| BackupError::io(&path, &error))?;
            own_like(&staged, site);
            if path.exists() {
                let kept = put_aside(&path, &format!("before-restore-{}", stamp(now)));
                returned.kept.push(kept.map_err(|error| BackupError::io(&path, &error))?);
            }
            fs::rename(&staged, &path).map_err(|error| BackupError::io(&path, &error))?;
            returned.files.push(path);
        }
        Ok(returned)
    }

    fn has(&self, file: &str) -> bool {
        self.manifest.files.iter().any(|kept| kept.path == file)
    }
}

/// Refuses while a daemon runs on `storage`.
pub fn must_be_free(storage: &Path) -> Result<()> {
    if storage.is_dir() {
        DirLock::take(storage)?;
    }
    Ok(())
}

/// The daemon runs as another user than who restores: its files are its own.
pub(super) fn own_like(file: &Path, folder: &Path) {
    if let Ok(meta) = fs::metadata(folder) {
        // Not allowed to anybody but root, for whom alone it matters.
        let _ = std::os::unix::fs::chown(file, Some(meta.uid()), Some(meta.gid()));
    }
}

fn sound(path: &Path, file: &str, known: i64) -> Result<()> {
    let err = |error| StoreError::sqlite(file, error);
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(err)?;
    let found: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(err)?;
    if found > known {
        return Err(StoreError::Newer { file: file.to_owned(), found, known }.into());
    }
    let verdict: String = conn.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(err)?;
    if verdict != "ok" {
        return Err(StoreError::Damaged { file: file.to_owned(), why: verdict }.into());
    }
    Ok(())
}

/// Lets a restored journal count on behind everything that the one in its place, or a clock, may have reached.
fn move_on(staged: &Path, replaced: &Path, now: Wall) -> Result<(u32, Revoked)> {
    let err = |error| BackupError::Store(StoreError::sqlite(state::FILE, error));
    let number = |conn: &Connection, sql: &str| -> Option<u64> {
        let value = conn.query_row(sql, [], |row| row.get::<_, Option<String>>(0)).optional().ok()??;
        value?.parse().ok()
    };
    const EPOCH: &str = "SELECT value FROM meta WHERE key = 'epoch'";
    const NUMBERS_FROM: &str = "SELECT value FROM meta WHERE key = 'numbers_from'";
    const NEWEST: &str = "SELECT CAST(max(at) / 1000000 AS TEXT) FROM journal";
    let conn = Connection::open(staged).map_err(err)?;
    let before = Connection::open_with_flags(replaced, OpenFlags::SQLITE_OPEN_READ_ONLY).ok();
    let both = |sql: &str| {
        let known = before.as_ref().and_then(|conn| number(conn, sql)).unwrap_or(0);
        number(&conn, sql).unwrap_or(0).max(known)
    };
    let epoch = both(EPOCH);
    // The clock of a box without a battery may stand in 1970: then later than everything that is written down.
    let from = u64::from(state::second(now)).max(both(NEWEST) + 1).max(both(NUMBERS_FROM) + 1);
    let from = u32::try_from(from).unwrap_or(u32::MAX);
    for (key, value) in [("epoch", epoch.to_string()), ("numbers_from", from.to_string())] {
        conn.execute(
            "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            params![key, value],
        )
        .map_err(err)?;
    }
    facts::forget_judged(&conn).map_err(err)?;
    pending::forget(&conn).map_err(err)?;
    people::forget_sign_ins(&conn).map_err(err)?;
    let revoked = people::keep_revoked(&conn, before.as_ref()).map_err(err)?;
    drop(conn);
    sync(staged)?;
    Ok((from, revoked))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use anmin_rules::alarm::{Alarm, AlarmId, AlarmState, Cause, Transition};
    use anmin_rules::duty::{Duty, DutyChange};

    use super::super::facts::{Fact, KeptSession, Mark};
    use super::super::tests::TestDir;
    use super::super::{Limits, Readings, StateStore, Turn};
    use super::*;
    use crate::samples::{RAISED, alarm, call_change, transition};

    fn raised(n: u128, seq: u32) -> Arc<Transition> {
        let alarm = Alarm { id: AlarmId(uuid::Uuid::from_u128(n)), seq, ..alarm() };
        transition(AlarmState::Normal, Cause::Raised, alarm)
    }

    fn commit(store: &mut StateStore, transitions: &[Arc<Transition>]) {
        store.commit(&Turn { transitions, ..Turn::default() }).unwrap();
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// A site with one alarm and one call in its journal, and its backup; the daemon went on after it.
    fn site_with_backup(name: &str) -> (TestDir, PathBuf, PathBuf) {
        let dir = TestDir::new(name);
        let (site, storage) = (dir.path().join("site"), dir.path().join("site/data"));
        fs::create_dir_all(site.join("anmin.d")).unwrap();
        fs::write(site.join("anmin.toml"), "[site]\nid = \"one\"\n").unwrap();
        fs::write(site.join("anmin.d/more.toml"), "# more\n").unwrap();
        fs::write(site.join("token"), "correct-horse-battery\n").unwrap();
        fs::set_permissions(site.join("token"), fs::Permissions::from_mode(0o600)).unwrap();
        let (mut store, _) = StateStore::open(&storage, RAISED).unwrap();
        let (readings, _) =
            Readings::open(&storage, Limits::default(), &["influx".into()], RAISED, Box::new(|_| ())).unwrap();
        commit(&mut store, &[raised(1, 1)]);
        store.commit(&Turn { calls: &[call_change()], ..Turn::default() }).unwrap();
        fs::create_dir_all(storage.join(WARNINGS)).unwrap();
        fs::write(storage.join("warnings/county-1.xml"), "<alert/>\n").unwrap();
        let to = site.join("backups/monday");
        fs::create_dir_all(site.join("backups")).unwrap();
        let taken = take(&storage, &site, &to, RAISED).unwrap();
        assert_eq!(taken.notes, []);
        // What receivers hear of and the backup does not know.
        commit(&mut store, &[raised(1, 2), raised(1, 3), raised(2, 1)]);
        assert!(matches!(
            Backup::open(&to).unwrap().restore(&storage, RAISED, "li"),
            Err(BackupError::Store(StoreError::InUse { .. }))
        ));
        drop((store, readings));
        (dir, site, to)
    }

    /// Which backups are kept: a day's name, what is made on it, what is there after it.
    #[test]
    fn the_oldest_backups_go_and_never_the_one_just_made_nor_what_is_none() {
        let (dir, site, _) = site_with_backup("backup-prune");
        let all = dir.path().join("all");
        fs::create_dir_all(all.join("anmin-notes")).unwrap();
        fs::write(all.join("anmin-list.txt"), "by hand\n").unwrap();
        let day = |n: i64| Wall::from_micros(n * 86_400_000_000);
        // The fourth time the clock stands in 1970.
        for (made, kept) in [
            (20_000, &["20241004"][..]),
            (20_001, &["20241004", "20241005"]),
            (20_002, &["20241005", "20241006"]),
            (0, &["19700101", "20241006"]),
            (20_003, &["20241006", "20241007"]),
        ] {
            let to = dated(&all, day(made));
            take(&site.join("data"), &site, &to, day(made)).unwrap();
            prune(&all, 2, &to).unwrap();
            let mut wanted: Vec<String> = kept.iter().map(|day| format!("anmin-{day}T000000Z")).collect();
            wanted.extend(["anmin-list.txt", "anmin-notes"].map(str::to_owned));
            assert_eq!(names(&all), wanted, "after day {made}");
        }
    }

    #[test]
    fn a_backup_of_a_store_at_work_holds_one_moment_of_it_and_the_site() {
        let (_dir, site, to) = site_with_backup("backup-take");
        let backup = Backup::open(&to).unwrap();
        let paths: Vec<(&str, &str)> =
            backup.manifest.files.iter().map(|kept| (kept.path.as_str(), kept.mode.as_str())).collect();
        let mode = |name: &str| format!("{:o}", fs::metadata(site.join(name)).unwrap().permissions().mode() & 0o777);
        assert_eq!(
            paths,
            [
                ("readings.db", "600"),
                ("state.db", "600"),
                ("warnings/county-1.xml", "600"),
                ("site/anmin.d/more.toml", &*mode("anmin.d/more.toml")),
                ("site/anmin.toml", &*mode("anmin.toml")),
                ("site/token", "600"),
            ]
        );
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(names(&site.join("backups")), ["monday"], "no half-made folder is left");
        let again = take(&site.join("data"), &site, &to, RAISED);
        assert_eq!(again.unwrap_err(), BackupError::Occupied { path: to.display().to_string() });
        let tuesday = take(&site.join("data"), &site, &site.join("backups/tuesday"), RAISED).unwrap();
        assert_eq!(tuesday.manifest.files.len(), 6, "no backup is in a backup");
        let nothing = take(&site.join("anmin.d"), &site, &site.join("x"), RAISED).unwrap_err();
        assert!(matches!(nothing, BackupError::Nothing { .. }), "{nothing}");
    }

    #[test]
    fn what_was_set_at_the_desk_comes_back_with_the_backup() {
        let (_dir, site, _) = site_with_backup("backup-tuned");
        let storage = site.join("data");
        let both = |text: &str| {
            for file in [tuned::FILE, adopted::FILE] {
                fs::write(storage.join(file), text).unwrap();
            }
        };
        both("# then\n");
        let to = site.join("backups/tuesday");
        take(&storage, &site, &to, RAISED).unwrap();
        both("# now\n");
        Backup::open(&to).unwrap().restore(&storage, RAISED, "li").unwrap();
        for file in [tuned::FILE, adopted::FILE] {
            assert_eq!(fs::read_to_string(storage.join(file)).unwrap(), "# then\n", "{file}");
        }
    }

    /// Whatever the clock says when it is restored: no alarm and no call gets a number that was given out before.
    #[test]
    fn what_comes_back_counts_on_behind_everything_that_was_sent() {
        for (what, now) in [
            ("a clock that goes right", RAISED.plus(Duration::from_secs(86_400))),
            ("a clock that begins anew", Wall::from_micros(0)),
            ("a clock before its time", Wall::from_micros(-5_000_000)),
        ] {
            let (_dir, site, to) = site_with_backup("backup-restore");
            let storage = site.join("data");
            let mut before = 3;
            for round in 1..=3_u64 {
                let returned = Backup::open(&to).unwrap().restore(&storage, now, "li").unwrap();
                assert_eq!(returned.kept.len(), 2, "{what}");
                let (mut store, back) = StateStore::open(&storage, now).unwrap();
                assert_eq!((back.alarms.len(), back.calls.len(), back.notes.len()), (1, 1, 0), "{what}");
                let (seq, call) = (back.alarms[0].seq, back.calls[0].call.seq);
                assert!(seq > before && call >= seq, "{what}, round {round}: {seq} and {call} after {before}");
                assert_eq!(seq, returned.numbers_from);
                // The restored past goes on, and is undone again.
                commit(&mut store, &[raised(1, seq + 1)]);
                assert_eq!(back.epoch, round + 1, "{what}");
                before = seq;
            }
            let names = names(&storage);
            let kept = |name: &&String| {
                name.starts_with("state.db.before-restore-") && !name.ends_with("-wal") && !name.ends_with("-shm")
            };
            assert_eq!(names.iter().filter(kept).count(), 3, "{names:?}");
            assert!(!names.iter().any(|name| name.contains("restoring")), "{names:?}");
        }
    }

    /// A broker may still keep the session; messages judged and delays that ran on that day are of that day.
    #[test]
    fn a_restored_past_knows_its_sessions_and_forgets_what_was_under_way() {
        let (_dir, site, _) = site_with_backup("backup-facts");
        let storage = site.join("data");
        let (mut store, _) = StateStore::open(&storage, RAISED).unwrap();
        let session = KeptSession { source: "site".into(), client_id: "anmin".into(), heard: RAISED };
        let duty = Arc::new(DutyChange { station: "st-1".into(), duty: Arc::new(Duty { seq: 3, ..Duty::default() }) });
        let facts = [
            Fact::Session(session.clone()),
            Fact::Judged(vec![Mark { what: 1, topic: 2 }]),
            Fact::Duty(Arc::clone(&duty)),
        ];
        let pending = [Arc::new(crate::samples::pending())];
        store.commit(&Turn { facts: &facts, pending: &pending, ..Turn::default() }).unwrap();
        let to = site.join("backups/tuesday");
        take(&storage, &site, &to, RAISED).unwrap();
        drop(store);
        let (store, running) = StateStore::open(&storage, RAISED).unwrap();
        assert_eq!((running.judged.len(), running.pending.len(), &running.duty), (1, 1, &vec![Arc::clone(&duty)]));
        drop(store);
        Backup::open(&to).unwrap().restore(&storage, RAISED, "li").unwrap();
        let back = StateStore::open(&storage, RAISED).unwrap().1;
        assert_eq!((back.sessions, back.judged, back.pending, back.duty), (vec![session], vec![], vec![], vec![duty]));
    }

    #[test]
    fn a_backup_that_is_not_what_was_saved_is_refused_and_nothing_is_touched() {
        let change = |file: &'static str, change: fn(&mut Vec<u8>)| {
            move |to: &Path| {
                let mut bytes = fs::read(to.join(file)).unwrap();
                change(&mut bytes);
                fs::write(to.join(file), bytes).unwrap();
            }
        };
        let manifest = |from: &'static str, into: &'static str| {
            move |to: &Path| {
                let text = fs::read_to_string(to.join(MANIFEST)).unwrap();
                assert!(text.contains(from));
                fs::write(to.join(MANIFEST), text.replace(from, into)).unwrap();
            }
        };
        let newer = |to: &Path| {
            Connection::open(to.join(state::FILE)).unwrap().pragma_update(None, "user_version", 99).unwrap();
            let mut manifest: Manifest = serde_json::from_slice(&fs::read(to.join(MANIFEST)).unwrap()).unwrap();
            manifest.files[1] = describe(to, state::FILE, 0o600).unwrap();
            fs::write(to.join(MANIFEST), serde_json::to_vec(&manifest).unwrap()).unwrap();
        };
        type Damage<'d> = (&'d str, Box<dyn Fn(&Path) + 'd>, &'d str);
        let cases: [Damage<'_>; 9] = [
            ("a byte", Box::new(change("state.db", |bytes| bytes[5_000] ^= 1)), "is not what was saved"),
            ("an end", Box::new(change("readings.db", |bytes| bytes.truncate(4_096))), "is not what was saved"),
            ("a line", Box::new(change("site/anmin.toml", |bytes| bytes.push(b'\n'))), "is not what was saved"),
            ("a file", Box::new(|to| fs::remove_file(to.join("site/token")).unwrap()), "is not what was saved"),
            ("no manifest", Box::new(|to| fs::remove_file(to.join(MANIFEST)).unwrap()), "is no backup"),
            ("no JSON", Box::new(change(MANIFEST, |bytes| bytes.truncate(20))), "cannot be read"),
            ("a newer format", Box::new(manifest("\"format\": 1", "\"format\": 2")), "knows up to 1"),
            ("a way out", Box::new(manifest("site/anmin.toml", "../anmin.toml")), "leads out of it"),
            ("a newer journal", Box::new(newer), "has schema 99"),
        ];
        for (what, damage, said) in cases {
            let (_dir, site, to) = site_with_backup("backup-changed");
            damage(&to);
            let error = Backup::open(&to).unwrap_err();
            assert!(error.to_string().contains(said), "{what}: {error}");
            assert!(!error.text().zh.is_empty());
            let (_, back) = StateStore::open(&site.join("data"), RAISED).unwrap();
            assert_eq!(back.alarms.len(), 2, "{what}");
        }
    }

    #[test]
    fn the_sites_files_come_back_and_what_differs_is_kept() {
        let (_dir, site, to) = site_with_backup("backup-site");
        let backup = Backup::open(&to).unwrap();
        fs::write(site.join("anmin.toml"), "# changed\n").unwrap();
        fs::remove_file(site.join("token")).unwrap();
        let returned = backup.restore_site(&site, RAISED).unwrap();
        assert_eq!(returned.files, [site.join("anmin.toml"), site.join("token")]);
        assert_eq!(returned.kept, [site.join("anmin.toml.before-restore-20260301T013000Z")]);
        assert_eq!(fs::read_to_string(&returned.kept[0]).unwrap(), "# changed\n");
        assert_eq!(fs::read_to_string(site.join("anmin.toml")).unwrap(), "[site]\nid = \"one\"\n");
        assert_eq!(fs::metadata(site.join("token")).unwrap().permissions().mode() & 0o777, 0o600);
        // On a machine where nothing is yet.
        let new = to.join("../elsewhere");
        assert_eq!(backup.restore_site(&new, RAISED).unwrap().files.len(), 3);
        backup.restore(&new.join("data"), RAISED, "li").unwrap();
        let (_, back) = StateStore::open(&new.join("data"), RAISED).unwrap();
        assert_eq!(back.alarms.len(), 1);
        assert_eq!(fs::read_to_string(new.join("data/warnings/county-1.xml")).unwrap(), "<alert/>\n");
    }
}
