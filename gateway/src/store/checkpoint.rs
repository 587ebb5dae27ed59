//! Moves what the log of a database holds into its file, on a thread of its own.
//!
//! SQLite would do it inside the commit that fills the log: that commit, and the alarm in it, would wait for some hundred
//! pages and two more syncs. A passive checkpoint on another connection holds no writer up.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;

/// The thread beside one open database. Ends, with what it is at, when this is dropped: before the file is set aside
/// nobody else may have it open, or the last one to close it would take the log of its successor away.
#[derive(Debug)]
pub(super) struct Checkpoints {
    path: PathBuf,
    every: usize,
    entries: usize,
    thread: Option<(SyncSender<()>, JoinHandle<()>)>,
}

impl Checkpoints {
    /// One checkpoint each `every` entries. The thread starts with the first.
    pub fn new(path: &Path, every: usize) -> Self {
        Self { path: path.to_owned(), every, entries: 0, thread: None }
    }

    /// So many entries have been committed.
    pub fn count(&mut self, entries: usize) {
        self.entries += entries;
        if self.entries < self.every {
            return;
        }
        self.entries = 0;
        if self.thread.is_none() {
            // One that waits is enough: it moves everything that is there by then.
            let (wake, woken) = sync_channel(1);
            let path = self.path.clone();
            let named = std::thread::Builder::new().name("anmin-checkpoint".to_owned());
            // Without a thread commits do it themselves, when the log is long.
            self.thread = named.spawn(move || run(&path, &woken)).ok().map(|thread| (wake, thread));
        }
        if let Some((wake, _)) = &self.thread {
            // Full: it is about to begin anyway.
            let _ = wake.try_send(());
        }
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        if let Some((wake, thread)) = self.thread.take() {
            drop(wake);
            // It has logged why, should it have panicked.
            let _ = thread.join();
        }
    }
}

fn run(path: &Path, woken: &Receiver<()>) {
    let mut conn = None;
    let mut ill = false;
    while woken.recv().is_ok() {
        let result = checkpoint(path, &mut conn);
        if let Err(error) = &result
            && !ill
        {
            tracing::warn!(file = %path.display(), %error, "The log of a database cannot be moved into its file; it grows until it can.");
        }
        ill = result.is_err();
    }
}

fn checkpoint(path: &Path, conn: &mut Option<Connection>) -> rusqlite::Result<()> {
    let conn = match conn {
        Some(conn) => conn,
        none => {
            let new = Connection::open(path)?;
            new.busy_timeout(Duration::from_secs(2))?;
            none.insert(new)
        }
    };
    conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::TestDir;

    /// What the file holds without its log.
    fn rows_in_file(path: &Path, beside: &Path) -> rusqlite::Result<i64> {
        std::fs::copy(path, beside).unwrap();
        Connection::open(beside)?.query_row("SELECT count(*) FROM t", [], |row| row.get(0))
    }

    #[test]
    fn what_was_committed_is_moved_into_the_file_without_the_writer_doing_it() {
        let dir = TestDir::new("checkpoint");
        let (path, copy) = (dir.path().join("a.db"), dir.path().join("copy.db"));
        let writer = Connection::open(&path).unwrap();
        let pragmas = "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (n INTEGER);
                       PRAGMA wal_checkpoint;";
        writer.execute_batch(pragmas).unwrap();
        let mut checkpoints = Checkpoints::new(&path, 10);
        let mut commit = |rows: usize| {
            for _ in 0..rows {
                writer.execute("INSERT INTO t VALUES (1)", []).unwrap();
            }
            checkpoints.count(rows);
        };
        commit(9);
        assert_eq!(rows_in_file(&path, &copy).unwrap(), 0, "too few to be worth it");
        commit(1);
        // Ends when the thread has done what it was woken for. A commit meanwhile may keep it from moving all, until the next time.
        drop(checkpoints);
        assert_eq!(rows_in_file(&path, &copy).unwrap(), 10);
    }
}
