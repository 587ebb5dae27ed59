//! The two databases: the journal of transitions and orders, the queue and history of readings.
//!
//! `state.db` is small and precious: every commit is synced, it is never pruned by itself and never shed. `readings.db`
//! is large and bounded: it may be lost without losing an alarm. A damaged file is set aside under a name with its
//! time and a new one is started, so damage never keeps the daemon from starting. A file of a newer anmin is refused.
//! This room knows neither sockets nor the alarm rules: it keeps what it is given and gives it back.

pub mod audit;
pub mod backup;
mod checkpoint;
pub mod column;
mod cursors;
mod drills;
mod duty;
pub mod facts;
pub mod fsck;
pub mod incidents;
pub mod last_backup;
mod pending;
pub mod people;
pub mod plans;
pub mod reach;
pub mod readings;
pub mod record;
pub mod registers;
mod salvage;
mod sent;
pub mod state;
pub mod suspects;
pub mod unusable;
pub mod view;
mod walks;

use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anmin_rules::rule::Text;
use anmin_sensors::time::Wall;
use rusqlite::{Connection, ErrorCode};

pub use crate::intake::Ack;
pub use column::StoredSample;
pub use cursors::Told;
pub use facts::{Fact, KeptSession};
pub use readings::{Backlog, Counts, Forwarding, Limits, NewPoint, OnHealth, Readings, ReadingsBatch, Writer};
pub use state::{DeadLetter, OrderOutcome, Restored, StateReader, StateStore, Turn};
pub use view::{Bucket, Gap, History, Label, Reader, Taken};

/// Why a database could not be opened, read or written. The names are those of the files' states, so that a log line
/// and a system alarm can say what a person must do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No room on the disk, or the file's own limit is reached. Goes away when there is room.
    #[error("{file}: the disk is full")]
    Full { file: String },
    /// The file system or the file refuses writes.
    #[error("{file}: the file system is read-only or the file may not be written")]
    ReadOnly { file: String },
    /// Reading or writing failed below SQLite.
    #[error("{file}: input or output failed: {why}")]
    Io { file: String, why: String },
    /// The bytes are not what was written.
    #[error("{file}: the file is damaged: {why}")]
    Damaged { file: String, why: String },
    /// Written by a newer anmin. Nothing was changed.
    #[error(
        "{file}: has schema {found}, this anmin knows up to {known}\n  hint: install the anmin that wrote it, or put a backup of before in its place: anmin restore"
    )]
    Newer { file: String, found: i64, known: i64 },
    /// Another anmin works in this directory.
    #[error("{dir}: another anmin is running on this directory")]
    InUse { dir: String },
    /// Anything else SQLite says; a defect of ours more often than of the disk.
    #[error("{file}: {why}")]
    Other { file: String, why: String },
}

impl StoreError {
    /// Whether the same write can succeed later without a person or a new file.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Io { .. } | Self::ReadOnly { .. })
    }

    /// For the duty desk.
    pub fn text(&self) -> Text {
        let zh = match self {
            Self::Full { file } => format!("磁盘已满，无法写入 {file}"),
            Self::ReadOnly { file } => format!("文件系统只读，无法写入 {file}"),
            Self::Io { file, .. } => format!("{file} 读写失败"),
            Self::Damaged { file, .. } => format!("{file} 已损坏"),
            Self::Newer { file, .. } => format!("{file} 由更新版本的安民写入"),
            Self::InUse { dir } => format!("目录 {dir} 已被另一个安民进程使用"),
            Self::Other { file, .. } => format!("{file} 出错"),
        };
        Text { zh, en: self.to_string() }
    }

    pub(crate) fn sqlite(file: &str, error: rusqlite::Error) -> Self {
        let file = file.to_owned();
        let why = error.to_string();
        // What comes back is not of the form in which it was written, or the file does not fit our own words.
        if matches!(
            error,
            rusqlite::Error::SqlInputError { .. }
                | rusqlite::Error::Utf8Error(..)
                | rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
        ) {
            return Self::Damaged { file, why };
        }
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full { file },
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => Self::ReadOnly { file },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged { file, why },
            Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::FileLockingProtocolFailed) => {
                Self::Io { file, why }
            }
            _ => Self::Other { file, why },
        }
    }

    pub(crate) fn io(file: &str, error: &io::Error) -> Self {
        let file = file.to_owned();
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { file },
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => Self::ReadOnly { file },
            _ => Self::Io { file, why: error.to_string() },
        }
    }
}

/// What the disk does, asked before each commit: the seam through which tests make it full, read-only or slow.
///
/// [`Disk::real`] asks nothing. A scripted one is called on the writer's thread with the file's name and may also wait.
#[derive(Clone, Default)]
pub struct Disk(Option<Arc<DiskScript>>);

type DiskScript = dyn Fn(&str) -> Result<(), StoreError> + Send + Sync;

impl Disk {
    pub fn real() -> Self {
        Self(None)
    }

    pub fn scripted(script: impl Fn(&str) -> Result<(), StoreError> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(script)))
    }

    /// Whether a test plays it. Then nothing is written but by the steps that it takes.
    pub(crate) fn is_scripted(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn before_commit(&self, file: &str) -> Result<(), StoreError> {
        self.0.as_ref().map_or(Ok(()), |script| script(file))
    }
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Disk(scripted)" } else { "Disk(real)" })
    }
}

/// One forward step of a schema: SQL that brings `user_version` from its index to the next.
type Migrations = &'static [&'static str];

/// No anmin has so many schemas: a larger number was never written by one.
const MOST_SCHEMAS: i64 = 1_000;

/// Brings a connection to the newest schema, each step in a transaction of its own.
fn migrate(db: &mut Connection, file: &str, steps: Migrations) -> Result<(), StoreError> {
    let err = |error| StoreError::sqlite(file, error);
    let damaged = |why: String| StoreError::Damaged { file: file.to_owned(), why };
    let found: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(err)?;
    let known = steps.len() as i64;
    if !(0..=MOST_SCHEMAS).contains(&found) {
        return Err(damaged(format!("its schema has the number {found}")));
    }
    if found > known {
        return Err(StoreError::Newer { file: file.to_owned(), found, known });
    }
    for (at, step) in steps.iter().enumerate().skip(found as usize) {
        let tx = db.transaction().map_err(err)?;
        // Every step fits what the steps before it have made: what it does not fit is not what its number says.
        tx.execute_batch(step).map_err(|error| match err(error) {
            StoreError::Other { why, .. } | StoreError::Damaged { why, .. } => {
                damaged(format!("schema {at} does not hold what it should: {why}"))
            }
            other => other,
        })?;
        tx.pragma_update(None, "user_version", at as i64 + 1).map_err(err)?;
        tx.commit().map_err(err)?;
    }
    Ok(())
}

/// Renames a damaged database and what SQLite keeps beside it to `<name>.bad-<time>`; gives the new path.
fn set_aside(path: &Path, now: Wall) -> io::Result<PathBuf> {
    put_aside(path, &format!("bad-{}", stamp(now)))
}

/// Renames a file and what SQLite keeps beside it to `<name>.<word>`, a name that nothing has yet.
fn put_aside(path: &Path, word: &str) -> io::Result<PathBuf> {
    let aside = (0..)
        .map(|n| if n == 0 { format!(".{word}") } else { format!(".{word}-{n}") })
        .map(|ending| beside(path, &ending))
        .find(|candidate| !candidate.exists())
        .unwrap_or_else(|| path.with_extension(word));
    for suffix in ["-wal", "-shm", ""] {
        let from = beside(path, suffix);
        match fs::rename(&from, beside(&aside, suffix)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(aside)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// `20261124T042331Z`.
fn stamp(now: Wall) -> String {
    jiff::Timestamp::from_microsecond(now.micros())
        .map_or_else(|_| now.micros().to_string(), |at| at.strftime("%Y%m%dT%H%M%SZ").to_string())
}

/// The right to work in a directory, held while the value lives; the system gives it back even after a crash.
#[derive(Debug)]
struct DirLock {
    _file: File,
}

impl DirLock {
    fn take(dir: &Path) -> Result<Self, StoreError> {
        let shown = dir.display().to_string();
        fs::create_dir_all(dir).map_err(|error| StoreError::io(&shown, &error))?;
        let path = dir.join("anmin.lock");
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| StoreError::io(&path.display().to_string(), &error))?;
        match file.try_lock() {
            Ok(()) => {
                // Only for people who look into the directory; the lock does not depend on it.
                let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
                Ok(Self { _file: file })
            }
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse { dir: shown }),
            Err(TryLockError::Error(error)) => Err(StoreError::io(&path.display().to_string(), &error)),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicU32, Ordering};

    use rusqlite::Connection;

    /// A directory of its own for one test, gone with it.
    pub(crate) struct TestDir(PathBuf);

    impl TestDir {
        pub(crate) fn new(name: &str) -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let n = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("anmin-{name}-{}-{n}", std::process::id()));
            std::fs::create_dir_all(&path).expect("the temporary directory can be written");
            Self(path)
        }

        pub(crate) fn path(&self) -> &Path {
            &self.0
        }
    }

    impl TestDir {
        /// Takes its journal back to what an anmin left whose newest schema was this one: whatever came later is dropped, and
        /// the tables that are left are word for word those of then.
        pub(crate) fn back_to_schema(&self, schema: usize) {
            let tables = |conn: &Connection| -> BTreeMap<String, (String, String)> {
                let sql = "SELECT name, type, sql FROM sqlite_schema WHERE sql IS NOT NULL";
                let mut sql = conn.prepare(sql).expect("every database has it");
                let rows =
                    sql.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?)))).expect("no arguments");
                rows.collect::<Result<_, _>>().expect("it can be read")
            };
            let then = Connection::open_in_memory().expect("there is memory");
            super::state::MIGRATIONS[..schema].iter().for_each(|step| then.execute_batch(step).expect("it is SQL"));
            let now = Connection::open(self.0.join(super::state::FILE)).expect("the file is there");
            for (name, (kind, _)) in tables(&now) {
                if !tables(&then).contains_key(&name) {
                    // An index goes with its table.
                    now.execute_batch(&format!("DROP {kind} IF EXISTS {name}")).expect("it is there");
                }
            }
            assert_eq!(tables(&now), tables(&then), "a later step has changed what was there");
            now.pragma_update(None, "user_version", schema as i64).expect("the file can be written");
        }
    }

    impl Drop for TestDir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}
