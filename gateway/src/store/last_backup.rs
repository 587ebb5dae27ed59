//! What came of the last backups, beside the databases: whoever watches the site may not look where its backups are.
//!
//! ```text
//! last-backup.json    {"taken_at": RFC 3339, "to": folder, "failed_at": RFC 3339, "why": {"zh": …, "en": …}}
//! ```
//!
//! `taken_at` and `to` are those of the last that was made; `failed_at` and `why` are there from one that was not made to the
//! next that is. The file is replaced as a whole, and belongs to whom the folder belongs to, also where root makes a backup.
//! One that cannot be read counts as none.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anmin_rules::rule::Text;
use anmin_sensors::time::Wall;
use serde::{Deserialize, Serialize};

use super::{backup, beside};

/// The name of the file.
pub const FILE: &str = "last-backup.json";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastBackup {
    /// When the last was made, and where.
    pub taken: Option<(Wall, PathBuf)>,
    /// When one after it was not made, and why.
    pub failed: Option<(Wall, Text)>,
}

#[derive(Default, Deserialize, Serialize)]
struct Wire {
    taken_at: Option<String>,
    to: Option<PathBuf>,
    failed_at: Option<String>,
    why: Option<Words>,
}

#[derive(Deserialize, Serialize)]
struct Words {
    zh: String,
    en: String,
}

impl LastBackup {
    /// What stands beside the databases in `storage`.
    pub fn read(storage: &Path) -> Self {
        let text = fs::read_to_string(storage.join(FILE)).unwrap_or_default();
        let Wire { taken_at, to, failed_at, why } = serde_json::from_str(&text).unwrap_or_default();
        let at = |text: Option<String>| {
            let at = text?.parse::<jiff::Timestamp>().ok()?;
            Some(Wall::from_micros(at.as_microsecond()))
        };
        let why = why.map(|Words { zh, en }| Text { zh, en });
        Self { taken: at(taken_at).zip(to), failed: at(failed_at).zip(why) }
    }

    /// One was made.
    pub fn note_taken(storage: &Path, to: &Path, now: Wall) -> io::Result<()> {
        // By hand a folder is named from where one stands.
        let to = fs::canonicalize(to).unwrap_or_else(|_| to.to_owned());
        Self { taken: Some((now, to)), failed: None }.write(storage)
    }

    /// One was to be made, and was not.
    pub fn note_failed(storage: &Path, why: Text, now: Wall) -> io::Result<()> {
        Self { failed: Some((now, why)), ..Self::read(storage) }.write(storage)
    }

    fn write(self, storage: &Path) -> io::Result<()> {
        let at = |at: Wall| jiff::Timestamp::from_microsecond(at.micros()).unwrap_or_default().to_string();
        let (taken_at, to) = self.taken.map(|(wall, to)| (at(wall), to)).unzip();
        let (failed_at, why) = self.failed.map(|(wall, Text { zh, en })| (at(wall), Words { zh, en })).unzip();
        let text = serde_json::to_string(&Wire { taken_at, to, failed_at, why })?;
        let path = storage.join(FILE);
        let new = beside(&path, ".new");
        let mut file = File::create(&new)?;
        file.write_all(format!("{text}\n").as_bytes())?;
        file.sync_all()?;
        backup::own_like(&new, storage);
        fs::rename(&new, &path)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::TestDir;
    use super::*;

    #[test]
    fn the_last_backup_stays_known_through_those_that_fail() {
        let dir = TestDir::new("last-backup");
        let read = || LastBackup::read(dir.path());
        let at = |day: i64| Wall::from_micros(day * 86_400_000_000);
        let why = Text { zh: "磁盘已满".to_owned(), en: "the disk is full".to_owned() };
        assert_eq!(read(), LastBackup::default());
        LastBackup::note_failed(dir.path(), why.clone(), at(20_000)).unwrap();
        assert_eq!(read(), LastBackup { taken: None, failed: Some((at(20_000), why.clone())) });
        LastBackup::note_taken(dir.path(), dir.path(), at(20_001)).unwrap();
        let taken = Some((at(20_001), dir.path().canonicalize().unwrap()));
        assert_eq!(read(), LastBackup { taken: taken.clone(), failed: None });
        LastBackup::note_failed(dir.path(), why.clone(), at(20_002)).unwrap();
        assert_eq!(read(), LastBackup { taken, failed: Some((at(20_002), why)) });
        fs::write(dir.path().join(FILE), "{").unwrap();
        assert_eq!(read(), LastBackup::default(), "half of it is none");
    }
}
