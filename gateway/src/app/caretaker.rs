//! What has to be renewed in time: the certificates that the site names, and its backup.
//!
//! It looks at the start, after each new site and every hour, and says a month before what would be ill then. It reads files
//! and nothing else; what it finds goes to the main loop as any other part, and to `/metrics`. Certificates that only
//! peers show are looked at by `anmin doctor`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anmin_rules::rule::{Finding, Level, Text};
use anmin_sensors::time::Wall;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::certificate::{Ends, Standing};
use crate::clock::Clock;
use crate::config::outside::Named;
use crate::main_loop::clock_trust::EARLIEST;
use crate::main_loop::{Input, PartState, PartTrouble};
use crate::store::last_backup::LastBackup;
use crate::telemetry::{Figures, Upkeep};

const LOOK_EVERY: Duration = Duration::from_secs(3_600);

/// While the clock cannot be believed nothing is known of any end.
const CLOCK_AGAIN: Duration = Duration::from_secs(60);

/// A newest backup that is older says that none is made any more.
const BACKUP_OLD: Duration = Duration::from_secs(3 * 86_400);

/// The part of what is said of backups.
const BACKUP: &str = "backup";

/// What there is to say of a part.
type Said = Option<(Level, Text)>;

/// What was said in this run.
#[derive(Debug)]
pub struct Caretaker {
    /// Where the databases are.
    storage: PathBuf,
    zone: TimeZone,
    told: BTreeMap<Arc<str>, Said>,
}

impl Caretaker {
    pub fn new(storage: PathBuf, zone: TimeZone) -> Self {
        Self { storage, zone, told: BTreeMap::new() }
    }

    /// Reads what there is, and gives what is to be said of it by now.
    pub fn look(&mut self, named: &[Named], now: Wall) -> (Vec<PartState>, Upkeep) {
        let mut found = BTreeMap::new();
        let mut upkeep = Upkeep::default();
        for named in named {
            let ends = Ends::of_file(&named.path);
            if let Ok(ends) = &ends {
                upkeep.certificates.push((named.path.display().to_string(), ends.first.as_second()));
            }
            found.insert(format!("certificate:{}", named.path.display()).into(), self.certificate(named, ends, now));
        }
        let last = LastBackup::read(&self.storage);
        upkeep.backup = last.taken.as_ref().map(|(at, _)| *at);
        found.insert(Arc::from(BACKUP), self.backup(&last, now));
        (self.tell(found), upkeep)
    }

    /// Each once: what is new, what has become otherwise, and what is over. What the last run has said may be over, too.
    fn tell(&mut self, found: BTreeMap<Arc<str>, Said>) -> Vec<PartState> {
        let gone = self.told.iter().filter(|(part, said)| said.is_some() && !found.contains_key(*part));
        let mut news: Vec<PartState> =
            gone.map(|(part, _)| PartState { part: Arc::clone(part), trouble: None }).collect();
        for (part, said) in &found {
            if self.told.get(part) != Some(said) {
                let trouble = said.clone().map(|(level, message)| {
                    let finding = Finding { level, limit: None, note: None };
                    PartTrouble { finding, message }
                });
                news.push(PartState { part: Arc::clone(part), trouble });
            }
        }
        self.told = found;
        news
    }

    fn certificate(&self, named: &Named, ends: Result<Ends, String>, now: Wall) -> Said {
        let (file, key) = (named.path.display(), &named.key);
        let ends = match ends {
            Ok(ends) => ends,
            Err(why) => {
                let zh = format!("证书文件 {file}（{key}）无法读取：{why}；请更换");
                let en = format!("certificates in {file} ({key}) cannot be read: {why}; put a sound file there");
                return Some((Level::Yellow, Text { zh, en }));
            }
        };
        let day = self.day(ends.first);
        let (level, zh, en) = match ends.standing(named.is_authority(), now) {
            Standing::Holds => return None,
            Standing::EndsSoon => (
                Level::Blue,
                format!("证书 {file}（{key}）将于 {day} 到期，请及时更换"),
                format!("the certificate in {file} ({key}) ends on {day}: renew it"),
            ),
            Standing::OneHasEnded => (
                Level::Blue,
                format!("{file}（{key}）中有一个颁发机构证书已于 {day} 过期；其余有效，请移除或更换"),
                format!(
                    "one of the authorities in {file} ({key}) has ended on {day}, the others hold: take it out or renew it"
                ),
            ),
            Standing::HasEnded => (
                Level::Orange,
                format!("证书 {file}（{key}）已于 {day} 过期，依靠它的加密连接无法建立；请立即更换"),
                format!(
                    "the certificate in {file} ({key}) has ended on {day}, connections that rest on it fail: renew it at once"
                ),
            ),
        };
        Some((level, Text { zh, en }))
    }

    /// Of a site that never had one nothing is said here: whether it shall have any is for people to decide.
    fn backup(&self, last: &LastBackup, now: Wall) -> Said {
        let day_of = |at: Wall| self.day(Timestamp::from_microsecond(at.micros()).unwrap_or_default());
        let taken = last.taken.as_ref().map(|(at, _)| *at);
        let day = taken.map(day_of);
        let mut text = Text::default();
        if let Some((at, why)) = &last.failed {
            text.zh = format!("{} 备份失败：{}；", day_of(*at), why.zh);
            text.en = format!("the backup of {} failed: {}; ", day_of(*at), why.en);
        }
        let is_old = taken.is_some_and(|at| now.since(at) > BACKUP_OLD);
        let level = match (is_old, &last.failed) {
            (true, _) => Level::Yellow,
            (false, Some(_)) => Level::Blue,
            (false, None) => return None,
        };
        let newest = day.map(|day| (format!("最近一次备份在 {day}"), format!("the newest is of {day}")));
        let (zh, en) = newest.unwrap_or_else(|| ("还没有备份".to_owned(), "there is none".to_owned()));
        text.zh.push_str(&format!("{zh}，请检查 anmin-backup.timer 和存放备份的磁盘"));
        text.en.push_str(&format!("{en}: look at anmin-backup.timer and at the disk of the backups"));
        Some((level, text))
    }

    fn day(&self, at: Timestamp) -> String {
        self.zone.to_datetime(at).date().to_string()
    }
}

/// Looks for as long as there is somebody to tell.
pub fn spawn(
    mut caretaker: Caretaker,
    mut named: watch::Receiver<Vec<Named>>,
    clock: Clock,
    figures: Figures,
    inputs: mpsc::Sender<Input>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let now = clock.now().wall;
            let is_doubtful = now < EARLIEST || figures.status().clock_doubtful;
            if !is_doubtful {
                let files = named.borrow_and_update().clone();
                let looked = spawn_blocking(move || {
                    let found = caretaker.look(&files, now);
                    (caretaker, found)
                });
                // Fails only when looking has panicked: who watches this task starts it anew.
                let (back, (news, upkeep)) = looked.await.expect("looking at files does not panic");
                caretaker = back;
                figures.set_upkeep(upkeep);
                for state in news {
                    if inputs.send(Input::Part(state)).await.is_err() {
                        return;
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(if is_doubtful { CLOCK_AGAIN } else { LOOK_EVERY }) => {}
                changed = named.changed() => if changed.is_err() { return },
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::certificate::pem;

    fn wall(text: &str) -> Wall {
        Wall::from_micros(text.parse::<Timestamp>().expect("a time").as_microsecond())
    }

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("anmin-caretaker-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("the folder takes a folder");
        folder
    }

    fn caretaker(storage: &Path) -> Caretaker {
        Caretaker::new(storage.to_owned(), TimeZone::fixed(jiff::tz::offset(8)))
    }

    fn told(news: &[PartState]) -> Vec<(String, Option<Level>)> {
        let name = |part: &str| part.rsplit('/').next().unwrap_or(part).to_owned();
        news.iter().map(|said| (name(&said.part), said.trouble.as_ref().map(|trouble| trouble.finding.level))).collect()
    }

    #[test]
    fn a_certificate_is_said_a_month_before_its_end_and_until_it_is_renewed() {
        let folder = folder("certificates");
        let (server, authorities) = (folder.join("server.pem"), folder.join("authorities.pem"));
        let write = |file: &Path, text: String| std::fs::write(file, text).expect("the folder is ours");
        write(&server, pem(&["260301000000Z"]));
        write(&authorities, pem(&["260110000000Z", "300301000000Z"]));
        let named = [("broker.tls_cert", &server), ("mqtt.tls_ca", &authorities)];
        let named = named.map(|(key, path)| Named { key: key.to_owned(), path: path.clone() });
        let mut caretaker = caretaker(&folder);
        let mut look = |now: &str| caretaker.look(&named, wall(now)).0;
        let says = |name: &str, level: Option<Level>| (format!("{name}.pem"), level);

        let first = look("2025-12-01T00:00:00Z");
        assert_eq!(
            told(&first),
            [("backup".to_owned(), None), says("authorities", None), says("server", None)],
            "whatever the last run said"
        );
        assert_eq!(told(&look("2025-12-02T00:00:00Z")), []);
        assert_eq!(told(&look("2025-12-20T00:00:00Z")), [says("authorities", Some(Level::Blue))]);
        let second = look("2026-02-01T00:00:00Z");
        let blue = Some(Level::Blue);
        assert_eq!(told(&second), [says("authorities", blue), says("server", blue)], "one of two has ended, one ends");
        let said = second[1].trouble.as_ref().map(|trouble| trouble.message.clone()).expect("it is said");
        assert!(
            said.zh.contains("2026-03-01 到期") && said.en.contains("(broker.tls_cert) ends on 2026-03-01"),
            "{said:?}"
        );
        assert_eq!(told(&look("2026-02-20T00:00:00Z")), [], "said once");
        assert_eq!(told(&look("2026-03-02T00:00:00Z")), [says("server", Some(Level::Orange))], "worse");
        write(&server, "half of a file".to_owned());
        assert_eq!(told(&look("2026-03-02T01:00:00Z")), [says("server", Some(Level::Yellow))]);
        write(&server, pem(&["270301000000Z"]));
        assert_eq!(told(&look("2026-03-02T02:00:00Z")), [says("server", None)]);

        let (news, upkeep) = caretaker.look(&named[..1], wall("2026-03-03T00:00:00Z"));
        assert_eq!(told(&news), [says("authorities", None)], "the site names it no more");
        let end = "2027-03-01T00:00:00Z".parse::<Timestamp>().expect("a time").as_second();
        assert_eq!(upkeep.certificates, [(server.display().to_string(), end)]);
        std::fs::remove_dir_all(&folder).expect("it is ours");
    }

    #[test]
    fn a_backup_that_is_old_or_failed_is_said_once_there_was_any() {
        let folder = folder("backups");
        let mut caretaker = caretaker(&folder);
        let day = |n: u32| wall(&format!("2026-03-{n:02}T03:00:00Z"));
        let why = Text { zh: "磁盘已满".to_owned(), en: "the disk is full".to_owned() };
        let made = |n: u32| LastBackup::note_taken(&folder, &folder, day(n)).expect("the folder is ours");
        let failed = |n: u32| LastBackup::note_failed(&folder, why.clone(), day(n)).expect("the folder is ours");
        let mut look = |n: u32| {
            let news = caretaker.look(&[], day(n)).0;
            let said = news
                .first()
                .map(|said| said.trouble.as_ref().map(|said| (said.finding.level, said.message.en.clone())));
            said.map(|said| said.map_or((None, String::new()), |(level, text)| (Some(level), text)))
        };
        let said = |level: Level, text: &str| {
            let after = ": look at anmin-backup.timer and at the disk of the backups";
            Some((Some(level), format!("{text}{after}")))
        };
        let well = Some((None, String::new()));
        assert_eq!(look(1), well, "whatever the last run said");
        assert_eq!(look(9), None, "there never was one");
        failed(10);
        assert_eq!(look(10), said(Level::Blue, "the backup of 2026-03-10 failed: the disk is full; there is none"));
        made(11);
        assert_eq!(look(11), well);
        assert_eq!(look(14), None);
        assert_eq!(look(15), said(Level::Yellow, "the newest is of 2026-03-11"));
        assert_eq!(look(16), None, "said once");
        failed(17);
        let both = "the backup of 2026-03-17 failed: the disk is full; the newest is of 2026-03-11";
        assert_eq!(look(17), said(Level::Yellow, both));
        made(18);
        assert_eq!(look(18), well);
        assert_eq!(caretaker.look(&[], day(18)).1.backup, Some(day(18)));
        std::fs::remove_dir_all(&folder).expect("it is ours");
    }

    /// Method: the clock of the test stands in 1970, then somebody sets it; each new site has the caretaker look again.
    #[tokio::test]
    async fn nothing_is_said_of_any_end_by_a_clock_that_nobody_has_set_and_a_new_site_is_looked_at_at_once() {
        let folder = folder("clock");
        let file = folder.join("web.pem");
        std::fs::write(&file, pem(&["260301000000Z"])).expect("the folder is ours");
        let clock = Clock::manual(Wall::from_micros(0));
        let (inputs, mut said) = mpsc::channel(8);
        let figures = Figures::default();
        let (sites, named) = watch::channel(vec![Named { key: "web.tls_cert".to_owned(), path: file.clone() }]);
        let task = spawn(caretaker(&folder), named, clock.clone(), figures.clone(), inputs);
        tokio::task::yield_now().await;
        assert!(said.try_recv().is_err());
        clock.step_wall(wall("2026-02-15T00:00:00Z").micros());
        sites.send_modify(|_| ());
        let Some(Input::Part(PartState { trouble: None, .. })) = said.recv().await else { panic!("of the backup") };
        let Some(Input::Part(PartState { part, trouble: Some(_) })) = said.recv().await else {
            panic!("it says nothing")
        };
        assert_eq!(*part, *format!("certificate:{}", file.display()));
        let line = format!("anmin_certificate_expiry_timestamp_seconds{{file=\"{}\"}} 1772323200.0", file.display());
        assert!(figures.text().lines().any(|found| found == line), "no {line} in\n{}", figures.text());
        sites.send_replace(Vec::new());
        let Some(Input::Part(PartState { trouble: None, .. })) = said.recv().await else { panic!("it says nothing") };
        drop(sites);
        task.await.expect("it ends with what it looks after");
        std::fs::remove_dir_all(&folder).expect("it is ours");
    }
}
