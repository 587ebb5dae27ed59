//! The daily serials of emergency broadcast messages: none is given twice, over restarts too.
//!
//! A message keeps the number that it got first, so that it goes out again as what it was, and a later one names it. The numbers
//! stand in one file beside the databases, for all targets of the site, because several may hear of one sender. A line each, written
//! and synced before the message leaves:
//!
//! ```text
//! <CRC-32 of the rest, 8 digits> <yyyymmdd> <serial> <CAP identifier of the message>
//! ```
//!
//! A serial is the next one of its day, and never behind the clock: each 17.28 s of the day have one. So a file that is lost, or older
//! than it should be, costs no second use of a number, unless more messages had left than the clock has gone since. A day that has no
//! more (9,999) borrows from the day after. The day is that of China (UTC+8), as it is in the identifiers.
//!
//! What cannot be read in the file is left out and said; what cannot be written is said and kept in memory: a full disk silences
//! no warning.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anmin_sensors::time::Wall;
use jiff::civil::Date;

use super::package::{self, Number};

/// Lines in the file beyond which its older half goes: of what is in force the last message is half of `expires` old at most.
const MOST: usize = 20_000;
/// Of a day: four digits (GD/J 082 practice), the first is 1.
const LAST: u16 = 9_999;
/// Milliseconds of a day that have one serial.
const TICK: i64 = 17_280;

/// Shared by all who need numbers.
#[derive(Debug)]
pub struct Numbers {
    path: PathBuf,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    /// In the order in which they were given.
    given: Vec<(String, Number)>,
    by_identifier: HashMap<String, Number>,
    /// The last one of each day.
    last: BTreeMap<Date, u16>,
    /// Lines that the disk has not.
    unwritten: String,
    trouble_is_said: bool,
}

impl Numbers {
    /// Reads what earlier runs have given. The file is made with the first number.
    pub fn open(folder: &Path) -> Self {
        let path = folder.join("ebm.numbers");
        let mut book = Book::default();
        let (text, mut lost) = match fs::read(&path) {
            Ok(bytes) => (String::from_utf8_lossy(&bytes).into_owned(), 0),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (String::new(), 0),
            Err(error) => {
                tracing::error!(file = %path.display(), %error, "the numbers of emergency broadcast messages cannot be read");
                (String::new(), 0)
            }
        };
        for line in text.lines() {
            match read_line(line) {
                Some((identifier, number)) => book.take(identifier, number),
                None => lost += 1,
            }
        }
        if lost > 0 {
            tracing::warn!(file = %path.display(), lines = lost, "lines that cannot be read are left out");
        }
        if !text.is_empty() && !text.ends_with('\n') {
            // What comes next is no part of a line that was broken off.
            book.unwritten.push('\n');
        }
        Self { path, book: Mutex::new(book) }
    }

    /// The number of a message: the one that it has, or a new one, which is on the disk when this returns. Blocks.
    pub fn give(&self, identifier: &str, now: Wall) -> Number {
        let mut book = self.book();
        if let Some(number) = book.by_identifier.get(identifier) {
            return *number;
        }
        let number = book.next(now);
        book.take(identifier.to_owned(), number);
        book.unwritten.push_str(&written(identifier, number));
        let kept = if book.given.len() > MOST { self.shorten(&mut book, number) } else { self.append(&mut book) };
        match kept {
            Ok(()) => book.trouble_is_said = false,
            Err(error) if !book.trouble_is_said => {
                book.trouble_is_said = true;
                tracing::error!(file = %self.path.display(), %error,
                    "numbers of emergency broadcast messages cannot be written down; they stay in memory");
            }
            Err(_) => {}
        }
        number
    }

    /// The number under which a message left, if it did.
    pub fn known(&self, identifier: &str) -> Option<Number> {
        self.book().by_identifier.get(identifier).copied()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, book: &mut Book) -> io::Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        file.write_all(book.unwritten.as_bytes())?;
        file.sync_data()?;
        book.unwritten.clear();
        Ok(())
    }

    /// Writes the newer half into a new file, and of what is older the last one of a day that is not over.
    fn shorten(&self, book: &mut Book, newest: Number) -> io::Result<()> {
        let old = book.given.len() - MOST / 2;
        let given = std::mem::take(&mut book.given);
        let stays = |(n, (_, number)): &(usize, (String, Number))| {
            *n >= old || (number.day >= newest.day && book.last.get(&number.day) == Some(&number.serial))
        };
        let kept: Vec<(String, Number)> = given.into_iter().enumerate().filter(stays).map(|(_, one)| one).collect();
        let text: String = kept.iter().map(|(identifier, number)| written(identifier, *number)).collect();
        book.by_identifier = kept.iter().cloned().collect();
        book.last.retain(|day, _| *day >= newest.day || kept.iter().any(|(_, number)| number.day == *day));
        book.given = kept;
        let beside = self.path.with_extension("part");
        let mut file = File::create(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)?;
        book.unwritten.clear();
        self.path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    }
}

impl Book {
    fn take(&mut self, identifier: String, number: Number) {
        let last = self.last.entry(number.day).or_default();
        *last = number.serial.max(*last);
        self.by_identifier.insert(identifier.clone(), number);
        self.given.push((identifier, number));
    }

    fn next(&self, now: Wall) -> Number {
        let (mut day, millis) = package::day(now);
        // At most 5,000: a day has room for as many that run ahead of the clock.
        let mut floor = u16::try_from(1 + millis / TICK).unwrap_or(LAST);
        loop {
            let after = self.last.get(&day).map_or(1, |last| last.saturating_add(1));
            let serial = after.max(floor);
            if serial <= LAST {
                return Number { day, serial };
            }
            (day, floor) = (day.tomorrow().unwrap_or(day), 1);
        }
    }
}

fn written(identifier: &str, number: Number) -> String {
    let rest = format!("{} {:04} {identifier}", number.day.strftime("%Y%m%d"), number.serial);
    format!("{:08x} {rest}\n", crc32fast::hash(rest.as_bytes()))
}

fn read_line(line: &str) -> Option<(String, Number)> {
    let (sum, rest) = line.split_once(' ')?;
    if u32::from_str_radix(sum, 16) != Ok(crc32fast::hash(rest.as_bytes())) {
        return None;
    }
    let mut words = rest.splitn(3, ' ');
    let day = Date::strptime("%Y%m%d", words.next()?).ok()?;
    let serial = words.next()?.parse().ok().filter(|serial| (1..=LAST).contains(serial))?;
    Some((words.next()?.to_owned(), Number { day, serial }))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use super::super::tests::Folder;
    use super::*;
    use crate::chance::Chance;
    use crate::samples::RAISED;

    fn after(seconds: u64) -> Wall {
        RAISED.plus(Duration::from_secs(seconds))
    }

    /// Goal: no two messages ever have one number, and each keeps its own. Method: seeded days of messages, some again, restarts in
    /// between, a clock that stands, goes on and is set back, bursts over midnight, and a file that is shortened.
    #[test]
    fn no_number_is_given_twice_and_each_message_keeps_its_own_over_restarts() {
        for seed in 1..=20 {
            let mut chance = Chance(seed);
            let mut below = |end: u64| chance.up_to(Duration::from_nanos(end - 1)).as_nanos() as u64;
            let folder = Folder::new(&format!("ebm-numbers-{seed}"));
            let (mut numbers, mut now) = (Numbers::open(&folder.0), after(seed * 3_600));
            let mut given: HashMap<String, Number> = HashMap::new();
            let mut seen: HashSet<Number> = HashSet::new();
            for n in 0..400 {
                match below(12) {
                    0 => numbers = Numbers::open(&folder.0),
                    1 => now = now.plus(Duration::from_secs(below(90_000))),
                    2 => now = Wall::from_millis(now.micros() / 1_000 - below(7_200_000) as i64),
                    3 if !given.is_empty() => {
                        let (identifier, number) = given.iter().next().expect("there is one");
                        assert_eq!(numbers.give(identifier, now), *number, "seed {seed}: {identifier} has another");
                    }
                    _ => {
                        let identifier = format!("site-{seed}-{n}-town");
                        let number = numbers.give(&identifier, now);
                        assert!(seen.insert(number), "seed {seed}: {number:?} is given twice, to {identifier}");
                        assert!((1..=LAST).contains(&number.serial), "{number:?}");
                        given.insert(identifier, number);
                    }
                }
            }
            let again = Numbers::open(&folder.0);
            for (identifier, number) in &given {
                assert_eq!(again.known(identifier), Some(*number), "seed {seed}: {identifier} after a restart");
            }
        }
    }

    #[test]
    fn a_day_without_numbers_borrows_from_the_next_and_a_new_day_begins_anew() {
        let folder = Folder::new("ebm-numbers-day");
        let numbers = Numbers::open(&folder.0);
        let day = |number: Number| number.day.to_string();
        // 2026-03-01 23:59:59 in China.
        let late = after(14 * 3_600 + 29 * 60 + 59);
        let first = numbers.give("first", late);
        assert_eq!((day(first), first.serial), ("2026-03-01".to_owned(), 5_000), "it is not behind the clock");
        numbers.book().last.insert(first.day, LAST);
        let next = numbers.give("next", late);
        assert_eq!((day(next), next.serial), ("2026-03-02".to_owned(), 1));
        let then = numbers.give("then", late.plus(Duration::from_secs(2)));
        assert_eq!((day(then), then.serial), ("2026-03-02".to_owned(), 2));
    }

    #[test]
    fn what_is_broken_in_the_file_is_left_out_and_a_lost_file_gives_no_number_again_after_a_while() {
        let folder = Folder::new("ebm-numbers-broken");
        let (path, numbers) = (folder.0.join("ebm.numbers"), Numbers::open(&folder.0));
        let first = numbers.give("first", after(0));
        let second = numbers.give("second", after(0));
        assert_eq!(second.serial, first.serial + 1);
        let text = fs::read_to_string(&path).expect("it is written with the first number");
        for (broken, known) in [
            (text.replace("second", "secund"), [true, false]),
            (text[..text.len() - 4].to_owned(), [true, false]),
            (format!("\u{0}\u{0}\n{text}"), [true, true]),
            (text.replacen(' ', "", 1), [false, true]),
            (String::new(), [false, false]),
        ] {
            fs::write(&path, &broken).expect("it can be written");
            let numbers = Numbers::open(&folder.0);
            assert_eq!(["first", "second"].map(|one| numbers.known(one).is_some()), known, "{broken:?}");
            // Two ticks later, as many as were given before.
            let third = numbers.give("third", after(35));
            assert!(![first, second].contains(&third), "{broken:?}: {third:?}");
            assert_eq!(
                Numbers::open(&folder.0).known("third"),
                Some(third),
                "{broken:?}: it stands on a line of its own"
            );
        }
    }

    #[test]
    fn numbers_go_on_where_the_disk_takes_none_and_are_written_when_it_does() {
        let folder = Folder::new("ebm-numbers-full");
        let path = folder.0.join("ebm.numbers");
        fs::create_dir(&path).expect("a folder where the file belongs");
        let numbers = Numbers::open(&folder.0);
        let first = numbers.give("first", after(0));
        assert_ne!(numbers.give("second", after(0)), first);
        fs::remove_dir(&path).expect("it goes again");
        numbers.give("third", after(0));
        let again = Numbers::open(&folder.0);
        assert_eq!(again.known("first"), Some(first));
        assert!(again.known("second").is_some() && again.known("third").is_some());
    }

    #[test]
    fn a_long_file_keeps_its_newer_half_and_gives_nothing_again() {
        let folder = Folder::new("ebm-numbers-long");
        let path = folder.0.join("ebm.numbers");
        let day: Date = "2026-02-01".parse().expect("a day");
        let number = |n: usize| {
            let days = jiff::Span::new().days((n / 5_000) as i64);
            Number { day: day.saturating_add(days), serial: (n % 5_000 + 1) as u16 }
        };
        let text: String = (0..MOST).map(|n| written(&format!("m{n}"), number(n))).collect();
        fs::write(&path, text).expect("it can be written");
        let numbers = Numbers::open(&folder.0);
        let newest = numbers.give("newest", after(0));
        let kept = fs::read_to_string(&path).expect("it is there").lines().count();
        assert_eq!(kept, MOST / 2);
        let again = Numbers::open(&folder.0);
        assert_eq!((again.known("m0"), again.known("newest")), (None, Some(newest)));
        assert_eq!(again.known(&format!("m{}", MOST - 1)), Some(number(MOST - 1)));
        assert_ne!(again.give("after", after(0)), newest);
    }
}
