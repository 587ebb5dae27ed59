//! What anmin was handling when it fell over, so that one message cannot bring it down for ever.
//!
//! A panic in the main loop is a defect of ours; it ends the process, and systemd starts it again. If a message was the
//! occasion, its broker delivers it again, and a bus reads the same value again: without a memory that would never end,
//! and no alarm would be heard any more. So what the turn held is written into `suspects.json` beside the databases
//! before the process ends. The next run takes each of these in a turn of its own. Those that pass are cleared. The one
//! that ends the run again, alone this time, is given up: kept with the unusable messages, acknowledged, and a system
//! alarm says so. The third run goes on.
//!
//! Another version forgets them all, for its defects are others; so does a day.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anmin_sensors::point::PointId;
use anmin_sensors::reading::Reading;
use anmin_sensors::time::Wall;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

const FILE: &str = "suspects.json";
/// More than a turn holds; the rest of a larger one is taken as innocent.
const MOST: usize = 65_536;
const FORGOTTEN_AFTER: Duration = Duration::from_secs(24 * 3_600);

/// The same for the same topic and payload, or the same point and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key([u8; 16]);

impl Key {
    pub fn of_message(source: &str, topic: &str, payload: &[u8]) -> Self {
        Self::of(&[b"message", source.as_bytes(), topic.as_bytes(), payload])
    }

    pub fn of_reading(point: &PointId, reading: &Reading) -> Self {
        Self::of(&[b"reading", point.as_str().as_bytes(), format!("{:?}", reading.value).as_bytes()])
    }

    fn of(parts: &[&[u8]]) -> Self {
        let mut context = Context::new(&SHA256);
        for part in parts {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        let mut key = [0; 16];
        key.copy_from_slice(&context.finish().as_ref()[..16]);
        Self(key)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Clear,
    /// Was there when a run ended: take it alone.
    Suspected,
    /// Ended a run alone: do not take it at all.
    GivenUp,
}

#[derive(Debug, Default)]
pub struct Suspects {
    /// `None`: nothing is kept.
    path: Option<PathBuf>,
    known: HashMap<Key, Suspect>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Suspect {
    given_up: bool,
    /// Microseconds of the wall clock.
    at: i64,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    version: String,
    suspects: Vec<(String, Suspect)>,
}

impl Suspects {
    /// For a life that ends otherwise than by a panic.
    pub fn nobody() -> Self {
        Self::default()
    }

    pub fn open(dir: &Path, now: Wall) -> Self {
        let path = dir.join(FILE);
        let known = std::fs::read(&path).ok().and_then(|json| {
            let kept: Kept = serde_json::from_slice(&json)
                .map_err(|error| tracing::warn!(file = FILE, %error, "what ended the last run cannot be read, so no message is held back"))
                .ok()?;
            (kept.version == env!("CARGO_PKG_VERSION")).then_some(kept.suspects)
        });
        let young = |suspect: &Suspect| Wall::from_micros(suspect.at).distance(now) < FORGOTTEN_AFTER;
        let known: HashMap<_, _> = known
            .into_iter()
            .flatten()
            .filter(|(_, suspect)| young(suspect))
            .filter_map(|(key, suspect)| Some((Key(hex(&key)?), suspect)))
            .collect();
        if !known.is_empty() {
            tracing::warn!(
                "the last run ended in a panic: {} messages and values that it held are taken one by one",
                known.len()
            );
        }
        Self { path: Some(path), known }
    }

    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Whether there are any that are not taken at all.
    pub fn any_given_up(&self) -> bool {
        self.known.values().any(|suspect| suspect.given_up)
    }

    pub fn standing(&self, key: Key) -> Standing {
        match self.known.get(&key) {
            None => Standing::Clear,
            Some(Suspect { given_up: false, .. }) => Standing::Suspected,
            Some(Suspect { given_up: true, .. }) => Standing::GivenUp,
        }
    }

    /// A turn that held these has come to its end.
    pub fn handle_passed(&mut self, held: impl Iterator<Item = Key>) {
        let before = self.known.len();
        for key in held {
            if self.standing(key) == Standing::Suspected {
                self.known.remove(&key);
            }
        }
        if self.known.len() < before {
            self.write();
        }
    }

    /// A turn that held these has panicked.
    pub fn handle_panic(&mut self, now: Wall, held: &[Key]) {
        let alone = held.len() == 1;
        for key in held.iter().take(MOST) {
            let given_up = alone && self.standing(*key) != Standing::Clear;
            self.known.insert(*key, Suspect { given_up, at: now.micros() });
        }
        self.write();
    }

    fn write(&self) {
        let Some(path) = &self.path else { return };
        let mut suspects: Vec<_> = self.known.iter().map(|(key, suspect)| (text(key), suspect.clone())).collect();
        suspects.sort_by(|a, b| a.0.cmp(&b.0));
        let kept = Kept { version: env!("CARGO_PKG_VERSION").to_owned(), suspects };
        let written = || -> std::io::Result<()> {
            // Half a file is none: it is read as nothing, and the suspects are noted again.
            let mut file = File::create(path)?;
            file.write_all(&serde_json::to_vec(&kept)?)?;
            file.sync_all()
        };
        if let Err(error) = written() {
            tracing::error!(file = FILE, %error, "what anmin was handling cannot be written down");
        }
    }
}

fn text(key: &Key) -> String {
    key.0.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hex(text: &str) -> Option<[u8; 16]> {
    Some(u128::from_str_radix(text, 16).ok().filter(|_| text.len() == 32)?.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::super::tests::TestDir;
    use super::*;

    const AT: Wall = Wall::from_millis(1_800_000_000_000);

    fn key(name: &str) -> Key {
        Key::of_message("site", name, b"{}")
    }

    #[test]
    fn who_ends_a_run_alone_is_given_up_and_who_passes_is_cleared() {
        let dir = TestDir::new("suspects");
        let run = || Suspects::open(dir.path(), AT);
        let [a, b, c] = ["a", "b", "c"].map(key);
        run().handle_panic(AT, &[a, b]);
        let mut second = run();
        assert_eq!(
            [a, b, c].map(|key| second.standing(key)),
            [Standing::Suspected, Standing::Suspected, Standing::Clear]
        );
        second.handle_passed([a, c].into_iter());
        second.handle_panic(AT, &[b]);
        let third = run();
        assert_eq!([a, b, c].map(|key| third.standing(key)), [Standing::Clear, Standing::GivenUp, Standing::Clear]);
        // Not the first time, even alone: what else was due in that turn may have been the reason.
        let mut third = third;
        third.handle_panic(AT, &[c]);
        assert_eq!(run().standing(c), Standing::Suspected);
    }

    #[test]
    fn a_day_another_version_and_rubbish_clear_everybody() {
        let dir = TestDir::new("suspects");
        let path = dir.path().join(FILE);
        Suspects::open(dir.path(), AT).handle_panic(AT, &[key("a")]);
        assert!(Suspects::open(dir.path(), AT.plus(FORGOTTEN_AFTER)).is_empty());
        assert!(!Suspects::open(dir.path(), AT).is_empty());
        let json = std::fs::read_to_string(&path).expect("written above");
        for other in [json.replace(env!("CARGO_PKG_VERSION"), "0.0.0"), json[..json.len() / 2].to_owned()] {
            std::fs::write(&path, &other).expect("the folder can be written");
            assert!(Suspects::open(dir.path(), AT).is_empty(), "{other}");
        }
    }
}
