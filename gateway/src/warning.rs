//! Warnings from above: what weather, flood, earthquake and geological offices say, in CAP 1.2.
//!
//! They come by polled feeds (Atom, RSS, or a message by itself) and by posts to `/api/v1/warnings/<source>`. Each is held to
//! the rules of CAP ([`message`]), taken once, matched against where we are, and followed through Update and Cancel
//! ([`book`]). A warning in force is an alarm `system/warning` at its level: it is a notice like any other, somebody
//! acknowledges it, it escalates where nobody does, and it leaves by itself when its time is over. When it is acknowledged, the
//! office hears so by a CAP Ack, where it has an address for that, be it after a restart. From yellow on a case is opened for the
//! community, with the steps of the plan for warnings (`case = "precaution"`), once for each warning with all its updates.
//! **Nothing here ever broadcasts**: what a warning leads to, people decide.
//!
//! A warning is on disk before its sender is told that it was taken, one file each, and is taken up again after a restart.
//!
//! ```toml
//! [[warning_source]]
//! id              = "county"
//! urls            = ["https://warn.example.cn/cap.atom"]   # polled
//! every           = "60s"
//! token_file      = "secrets/county"        # sent with each poll and Ack: Authorization: Bearer
//! post_token_file = "secrets/county-posts"  # what the office shows when it posts to us; without it nobody can
//! senders         = ["county@warn.example.cn"]   # whose messages are taken; default: everybody's
//! ack_url         = "https://warn.example.cn/ack"
//! ack_sender      = "anmin.shequ001.example.cn"
//! ```

pub mod book;
pub mod message;
mod poll;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use anmin_rules::alarm::{Action, By, Cause, Command, Subject, Transition};
use anmin_rules::casework::CaseKind;
use anmin_rules::engine::WARNING;
use anmin_rules::incident::{IncidentId, NewCase};
use anmin_rules::rule::{Finding, Level, Text};
use anmin_sensors::document::Reader;
use anmin_sensors::point::Place;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::sleep;

use crate::clock::Clock;
use crate::credentials::{ClientTls, Secret};
use crate::delivery::http::{Http, Target};
use crate::delivery::{Site, read_file};
use crate::main_loop::query::{AlarmFilter, AlarmPage};
use crate::main_loop::{Feed, FeedEvent, Input, PartState, PartTrouble, Query};
use crate::outgoing::Outgoing;
use crate::store::audit::{Through, Way};
use crate::store::backup::WARNINGS as FOLDER;

use book::{Book, Here, Taken, Warning};
use message::{Key, Message};

/// From this level on there is something to make ready.
const PREPARED_FROM: Level = Level::Yellow;
/// Ends of the names of notes beside the warnings.
const CASE: &str = ".case";
const ANSWERED: &str = ".answered";
/// How often what is over is looked for, at most.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// `[[warning_source]]`.
#[derive(Clone, Debug)]
pub struct Settings {
    pub id: Arc<str>,
    urls: Vec<Target>,
    every: Duration,
    token_file: Option<PathBuf>,
    post_token_file: Option<PathBuf>,
    senders: Vec<String>,
    ack: Option<(Target, String)>,
}

impl Settings {
    pub fn read(r: &Reader<'_>, base: &Path) -> Option<Self> {
        let id: Option<String> = r.required("id");
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if let Some(id) = id.as_deref().filter(|id| !(1..=64).contains(&id.len()) || !id.chars().all(plain)) {
            r.fault("id", format!("`id` is {id:?}, expected 1 to 64 letters, digits, `-`, `_` or `.`"), None);
        }
        let tls = ClientTls::read(r, base);
        let allow_http = r.or("allow_http", false);
        let target = |key: &'static str, url: &str| {
            let found = Target::new(url, tls.clone(), allow_http);
            found.map_err(|(message, hint)| r.fault(key, message.replace("`url`", &format!("`{key}`")), hint)).ok()
        };
        let urls: Vec<Target> =
            r.or::<Vec<String>>("urls", Vec::new()).iter().filter_map(|url| target("urls", url)).collect();
        let every = r.or("every", Duration::from_secs(60));
        if !(Duration::from_secs(5)..=Duration::from_secs(3_600)).contains(&every) {
            r.fault("every", "`every` must lie between 5 seconds and one hour", None);
        }
        let token_file = read_file(r, "token_file", base, Secret::read);
        let post_token_file = read_file(r, "post_token_file", base, Secret::read);
        if !r.has("urls") && !r.has("post_token_file") {
            let hint = "`urls` are polled; with `post_token_file` the office posts to us".to_owned();
            r.fault("urls", "a [[warning_source]] needs `urls`, or `post_token_file`, or both", Some(hint));
        }
        let senders = r.or("senders", Vec::new());
        let ack_url: Option<String> = r.optional("ack_url");
        let ack_sender: Option<String> = r.optional("ack_sender");
        let named = |text: &str| !text.chars().any(|c| c.is_whitespace() || matches!(c, ',' | '<' | '&'));
        let ack = match (ack_url.and_then(|url| target("ack_url", &url)), ack_sender) {
            (Some(target), Some(sender)) if !sender.is_empty() && named(&sender) => Some((target, sender)),
            (None, None) => None,
            _ if r.is_faulty() => None,
            _ => {
                r.fault(
                    "ack_sender",
                    "`ack_url` and `ack_sender`, a name without blanks, comma, `<` and `&`, go together",
                    None,
                );
                None
            }
        };
        r.finish();
        (!r.is_faulty()).then_some(())?;
        Some(Self { id: id?.into(), urls, every, token_file, post_token_file, senders, ack })
    }

    pub fn heed(&mut self, outgoing: &Outgoing, r: &Reader<'_>) {
        self.urls.iter_mut().for_each(|url| url.heed(outgoing, r, "urls"));
        if let Some((target, _)) = &mut self.ack {
            target.heed(outgoing, r, "ack_url");
        }
    }
}

/// One source while anmin runs.
pub struct Source {
    settings: Settings,
    token: Option<Secret>,
    post_token: Option<Secret>,
    ack: Option<(Http, String)>,
}

impl Source {
    pub fn id(&self) -> &Arc<str> {
        &self.settings.id
    }

    /// Whether somebody who posts may; nobody may where no token is set.
    pub fn may_post(&self, offered: Option<&str>) -> bool {
        let digest = |text: &str| ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        self.post_token.as_ref().zip(offered).is_some_and(|(token, offered)| {
            let (own, offered) = (digest(token.reveal().trim()), digest(offered));
            own.as_ref().iter().zip(offered.as_ref()).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
        })
    }

    fn authorization(&self) -> Option<String> {
        self.token.as_ref().map(|token| format!("Bearer {}", token.reveal()))
    }
}

/// Why a message was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is not CAP 1.2, or breaks its rules.
    #[error("{0}")]
    Unsound(String),
    /// `senders` does not name who sent it.
    #[error("the sender {0:?} is not one of this source's `senders`")]
    Stranger(String),
    /// It could not be kept: to be sent again.
    #[error("it cannot be kept: {0}")]
    NotKept(String),
}

/// All sources and what they have said. Cheap to clone.
#[derive(Clone)]
pub struct Warnings(Arc<Shared>);

struct Shared {
    site: Site,
    folder: PathBuf,
    clock: Clock,
    sources: RwLock<BTreeMap<Arc<str>, Arc<Source>>>,
    book: Mutex<Book>,
    /// In force and not on the disk yet.
    unkept: Mutex<BTreeSet<Key>>,
    /// Notes of this run, should the disk not take them.
    noted: Mutex<BTreeSet<String>>,
    changed: Notify,
}

impl Warnings {
    /// Reads the secrets, and what the last run knew.
    pub fn open(settings: &[Settings], site: &Site, here: Here, storage: &Path, clock: &Clock) -> Result<Self, String> {
        let shared = Shared {
            site: site.clone(),
            folder: storage.join(FOLDER),
            clock: clock.clone(),
            sources: RwLock::default(),
            book: Mutex::new(Book::new(here)),
            unkept: Mutex::default(),
            noted: Mutex::default(),
            changed: Notify::new(),
        };
        let warnings = Self(Arc::new(shared));
        warnings.replace(&[], Self::prepare(settings)?);
        warnings.take_up();
        Ok(warnings)
    }

    /// Reads the secrets of sources that are new or have changed, and changes nothing.
    pub fn prepare(settings: &[Settings]) -> Result<Vec<Source>, String> {
        let prepared = settings.iter().map(|settings| {
            let named = |why: String| format!("warning source {}: {why}", settings.id);
            let secret = |file: &Option<PathBuf>| file.as_deref().map(Secret::read).transpose();
            let ack = settings.ack.as_ref().map(|(target, sender)| Ok((Http::new(target)?, sender.clone())));
            Ok(Source {
                token: secret(&settings.token_file).map_err(&named)?,
                post_token: secret(&settings.post_token_file).map_err(&named)?,
                ack: ack.transpose().map_err(&named)?,
                settings: settings.clone(),
            })
        });
        prepared.collect()
    }

    /// From now on this is where we are: for what comes, not for what was judged.
    pub fn settle(&self, here: Here) {
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner).settle(here);
    }

    /// Lets sources that are `gone` go and takes the others in, also in the place of one with their id. What they have warned of
    /// stays in force for its time.
    pub fn replace(&self, gone: &[Arc<str>], new: Vec<Source>) {
        let mut sources = self.0.sources.write().unwrap_or_else(PoisonError::into_inner);
        sources.retain(|id, _| !gone.contains(id));
        sources.extend(new.into_iter().map(|source| (Arc::clone(source.id()), Arc::new(source))));
    }

    pub fn is_empty(&self) -> bool {
        self.sources().is_empty()
    }

    pub fn find(&self, source: &str) -> Option<Arc<Source>> {
        self.sources().get(source).cloned()
    }

    fn sources(&self) -> RwLockReadGuard<'_, BTreeMap<Arc<str>, Arc<Source>>> {
        self.0.sources.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// In force now, the gravest first.
    pub fn in_force(&self) -> Vec<Warning> {
        let now = self.0.clock.now().wall;
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner).in_force(now)
    }

    /// What the last run knew. A file that cannot be read is left where it is, and said.
    fn take_up(&self) {
        let now = self.0.clock.now().wall;
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.0.folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
            let source = name.rsplit_once('-').and_then(|(source, _)| self.find(source));
            let Some(source) = source.filter(|_| path.extension().is_some_and(|ending| ending == "xml")) else {
                continue;
            };
            let read = std::fs::read(&path).map_err(|error| error.to_string());
            match read.and_then(|bytes| message::read_feed(&bytes)) {
                // A feed that held it stands for it.
                Ok(feed) => {
                    let of_file = |message: &Message| name.ends_with(&mark(&message.key));
                    found.extend(
                        feed.messages
                            .into_iter()
                            .flatten()
                            .filter(of_file)
                            .map(|one| (one, Arc::clone(source.id()), path.clone())),
                    );
                }
                Err(why) => tracing::warn!(file = %path.display(), why, "a warning of the last run cannot be read"),
            }
        }
        found.sort_by_key(|(message, ..)| message.key.sent);
        let mut book = self.0.book.lock().unwrap_or_else(PoisonError::into_inner);
        for (message, source, path) in found {
            if book.take(now, &source, message) == Taken::Over {
                // Nobody asks for what is over.
                let _ = std::fs::remove_file(path);
            }
        }
    }

    /// Takes what a source has sent. It waits for the disk: call it on a thread that may.
    pub fn accept(&self, source: &Source, bytes: &[u8]) -> Result<(Key, Taken), Refused> {
        self.take(source, message::read(bytes).map_err(Refused::Unsound)?, bytes)
    }

    /// The same of a message that is read already; `document` holds it.
    fn take(&self, source: &Source, message: Message, document: &[u8]) -> Result<(Key, Taken), Refused> {
        let senders = &source.settings.senders;
        if !senders.is_empty() && !senders.contains(&message.key.sender) {
            return Err(Refused::Stranger(message.key.sender));
        }
        let key = message.key.clone();
        let now = self.0.clock.now().wall;
        let (taken, unkept) = {
            let mut book = self.0.book.lock().unwrap_or_else(PoisonError::into_inner);
            let taken = book.take(now, source.id(), message);
            let mut unkept = self.unkept();
            // While the book is held, so that nobody who repeats it is told sooner than it is on the disk.
            if taken == Taken::New {
                unkept.insert(key.clone());
            }
            (taken, unkept.contains(&key))
        };
        if taken == Taken::New {
            self.0.changed.notify_one();
        }
        if unkept {
            if let Err(error) = self.keep(source, &key, document) {
                // It counts all the same, and is tried again when it is sent again.
                tracing::error!(source = &**source.id(), %error, "a warning cannot be kept");
                return Err(Refused::NotKept(error.to_string()));
            }
            self.unkept().remove(&key);
        }
        tracing::info!(
            source = &**source.id(),
            identifier = key.identifier,
            sender = key.sender,
            taken = taken.as_str(),
            "a warning from above"
        );
        Ok((key, taken))
    }

    fn unkept(&self) -> MutexGuard<'_, BTreeSet<Key>> {
        self.0.unkept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Written beside its place, synced and renamed.
    fn keep(&self, source: &Source, key: &Key, bytes: &[u8]) -> std::io::Result<()> {
        std::fs::create_dir_all(&self.0.folder)?;
        let name = format!("{}-{}.xml", source.id(), mark(key));
        let beside = self.0.folder.join(format!(".{name}.part"));
        let mut file = std::fs::File::create(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&beside, self.0.folder.join(name))?;
        std::fs::File::open(&self.0.folder)?.sync_all()
    }

    /// Has the duty desk hear of what comes into force and what is over, until the main loop has ended.
    pub async fn run(self, feed: Feed, inputs: mpsc::Sender<Input>) {
        let mut news = feed.listen();
        let standing = left_standing(&inputs).await;
        self.answer_late(&standing);
        let mut told: BTreeMap<Arc<str>, Option<(Level, Text)>> =
            standing.into_iter().map(|(part, _)| (part, None)).collect();
        // Alarms come by the thousand; what is to be made ready changes with the warnings alone.
        let mut look = true;
        loop {
            if self.tell(&mut told, &inputs).await.is_none() {
                return;
            }
            if look && self.make_ready(&inputs).await.is_none() {
                return;
            }
            look = false;
            let now = self.0.clock.now().wall;
            let due = self.0.book.lock().unwrap_or_else(PoisonError::into_inner).poll_timeout();
            let wait = due.map_or(LOOK_EVERY, |due| due.since(now).min(LOOK_EVERY)).max(Duration::from_millis(100));
            tokio::select! {
                () = self.0.changed.notified() => look = true,
                () = sleep(wait) => {
                    self.clear_up();
                    look = true;
                }
                said = news.recv() => match said {
                    Ok(FeedEvent::Transition(transition)) => self.answer(&transition),
                    Err(RecvError::Closed) => return,
                    Err(RecvError::Lagged(_)) => self.answer_late(&left_standing(&inputs).await),
                    Ok(_) => {}
                },
            }
        }
    }

    /// Says what is not as it was told; `None` when the main loop has ended.
    async fn tell(
        &self,
        told: &mut BTreeMap<Arc<str>, Option<(Level, Text)>>,
        inputs: &mpsc::Sender<Input>,
    ) -> Option<()> {
        let mut now: BTreeMap<Arc<str>, (Level, Text)> = BTreeMap::new();
        for warning in self.in_force() {
            // Where two of one chain hold, the graver comes first.
            now.entry(subject(&warning)).or_insert_with(|| (warning.level, words(&warning)));
        }
        let over: Vec<Arc<str>> = told.keys().filter(|part| !now.contains_key(*part)).cloned().collect();
        for part in over {
            told.remove(&part);
            inputs.send(Input::Part(PartState { part, trouble: None })).await.ok()?;
        }
        for (part, said) in now {
            if told.get(&part) != Some(&Some(said.clone())) {
                let (level, message) = said.clone();
                let finding = Finding { level, limit: None, note: None };
                let trouble = Some(PartTrouble { finding, message });
                inputs.send(Input::Part(PartState { part: Arc::clone(&part), trouble })).await.ok()?;
                told.insert(part, Some(said));
            }
        }
        Some(())
    }

    /// Opens a case with the steps of the plan for what is in force, was not there before, and is no exercise; `None` when the main
    /// loop has ended.
    async fn make_ready(&self, inputs: &mpsc::Sender<Input>) -> Option<()> {
        for warning in self.in_force() {
            if warning.level < PREPARED_FROM || warning.is_exercise() || self.is_noted(&warning, CASE) {
                continue;
            }
            let headline = warning.headline();
            let both = |text: Text| if text.zh == text.en { text.zh } else { format!("{} / {}", text.zh, text.en) };
            let what = NewCase {
                kind: CaseKind::Precaution,
                title: cut(&both(headline)),
                place: Place::default(),
                text: both(words(&warning)),
                owner: Some("值班员 / duty officer".to_owned()),
            };
            // The same whenever it is tried, so that it is opened once.
            let hash = ring::digest::digest(&ring::digest::SHA256, subject(&warning).as_bytes());
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&hash.as_ref()[..16]);
            let incident = IncidentId(uuid::Builder::from_custom_bytes(bytes).into_uuid());
            let command =
                Command { who: "anmin".to_owned(), what: Action::OpenCase { incident, what: Box::new(what) } };
            let (reply, answer) = oneshot::channel();
            inputs.send(Input::Command { command, from: Way::of(Through::Anmin), seen: None, reply }).await.ok()?;
            match answer.await.ok()? {
                Ok(()) => self.note(&warning, CASE),
                Err(refusal) => tracing::warn!(
                    source = &*warning.source,
                    identifier = warning.message.key.identifier,
                    why = %refusal,
                    "no case with what to make ready could be opened for a warning; it is tried again"
                ),
            }
        }
        Some(())
    }

    /// Whether something was done about the warning, in all its updates, be it in another run.
    fn is_noted(&self, warning: &Warning, what: &str) -> bool {
        let name = note_of(warning, what);
        self.0.noted.lock().unwrap_or_else(PoisonError::into_inner).contains(&name) || self.0.folder.join(name).exists()
    }

    fn note(&self, warning: &Warning, what: &str) {
        let name = note_of(warning, what);
        if let Err(error) = std::fs::create_dir_all(&self.0.folder)
            .and_then(|()| std::fs::File::create(self.0.folder.join(&name)))
            .and_then(|file| file.sync_all())
        {
            // For this run it is known.
            tracing::warn!(%error, name, "what was done about a warning cannot be noted");
        }
        self.0.noted.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
    }

    /// Files of what is over, and notes about it.
    fn clear_up(&self) {
        let now = self.0.clock.now().wall;
        let holds: BTreeSet<String> =
            self.in_force().iter().flat_map(|warning| [CASE, ANSWERED].map(|what| note_of(warning, what))).collect();
        for entry in std::fs::read_dir(&self.0.folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if [CASE, ANSWERED].iter().any(|what| name.ends_with(what)) && !holds.contains(&name) {
                // It may be gone already.
                let _ = std::fs::remove_file(entry.path());
            }
        }
        let mut book = self.0.book.lock().unwrap_or_else(PoisonError::into_inner);
        for (source, key) in book.forget(now) {
            self.unkept().remove(&key);
            // It may be gone already.
            let _ = std::fs::remove_file(self.0.folder.join(format!("{source}-{}.xml", mark(&key))));
        }
    }

    /// Somebody has acknowledged the alarm of a warning: its sender hears so.
    fn answer(&self, transition: &Transition) {
        let (Cause::Acknowledged { by }, Subject::Part(part)) = (&transition.cause, &transition.alarm.subject) else {
            return;
        };
        for warning in self.in_force().into_iter().filter(|warning| *subject(warning) == **part) {
            self.tell_upstream(warning, by);
        }
    }

    fn tell_upstream(&self, warning: Warning, by: &str) {
        let (all, by) = (self.clone(), by.to_owned());
        tokio::spawn(async move {
            if all.acknowledge(&warning, &by).await {
                all.note(&warning, ANSWERED);
            }
        });
    }

    /// What was acknowledged and its sender has not heard of: the last run ended before, or this task was late.
    fn answer_late(&self, standing: &[(Arc<str>, Option<By>)]) {
        for warning in self.in_force() {
            let part = subject(&warning);
            let by = standing.iter().find(|(known, _)| *known == part).and_then(|(_, by)| by.as_ref());
            // What came after that nobody has seen yet.
            let Some(by) = by.filter(|by| warning.message.key.sent <= by.at) else { continue };
            let asks = self.find(&warning.source).is_some_and(|source| source.ack.is_some());
            if asks && !self.is_noted(&warning, ANSWERED) {
                self.tell_upstream(warning, &by.who);
            }
        }
    }
}

/// Alarms of warnings that stand in the book of alarms, as after a restart, and who has acknowledged each.
async fn left_standing(inputs: &mpsc::Sender<Input>) -> Vec<(Arc<str>, Option<By>)> {
    let (reply, answer) = oneshot::channel();
    let filter = AlarmFilter { class: Some("system".to_owned()), ..AlarmFilter::default() };
    let page = AlarmPage { after: None, limit: usize::MAX };
    if inputs.send(Input::Query(Query::Alarms { filter, page, reply })).await.is_err() {
        return Vec::new();
    }
    let alarms = answer.await.map(|list| list.alarms).unwrap_or_default();
    let of_warnings = alarms.iter().filter_map(|alarm| match &alarm.subject {
        Subject::Part(part) if part.starts_with(WARNING) => Some((Arc::from(&**part), alarm.acknowledged.clone())),
        _ => None,
    });
    of_warnings.collect()
}

/// The file that says that something was done: of a case for all updates, of an answer for each.
fn note_of(warning: &Warning, what: &str) -> String {
    let of = if what == CASE { &warning.root } else { &warning.message.key };
    format!("{}-{}{what}", warning.source, mark(of))
}

/// Subject of the alarm: the same through all updates.
pub fn subject(warning: &Warning) -> Arc<str> {
    format!("{WARNING}{}/{}", warning.source, mark(&warning.root)).into()
}

/// Tells messages apart in names of files and alarms, whatever their identifiers hold.
fn mark(key: &Key) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, key.to_string().as_bytes());
    hash.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the officer reads: what, from whom, where, until when, what to do.
fn words(warning: &Warning) -> Text {
    let exercise = if warning.is_exercise() { ("【演练】", "EXERCISE: ") } else { ("", "") };
    let (headline, sender, area) = (warning.headline(), warning.sender_name(), warning.area());
    let advice = warning.instruction();
    let part = |lead: &str, text: &str, end: &str| {
        if text.is_empty() { String::new() } else { format!("{lead}{}{end}", cut(text)) }
    };
    Text {
        zh: format!(
            "{}{}（{}发布{}）{}",
            exercise.0,
            cut(&headline.zh),
            cut(&sender.zh),
            part("，范围：", &area.zh, ""),
            part("。处置：", &advice.zh, "")
        ),
        en: format!(
            "{}{} (from {}{}){}",
            exercise.1,
            cut(&headline.en),
            cut(&sender.en),
            part(", for ", &area.en, ""),
            part(". What to do: ", &advice.en, "")
        ),
    }
}

fn cut(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= 200 { line } else { format!("{}…", line.chars().take(199).collect::<String>()) }
}

#[cfg(test)]
mod tests {
    use super::message::tests::RAIN;
    use super::*;
    use crate::samples::{RAISED, site};

    fn settings() -> Settings {
        Settings {
            id: "county".into(),
            urls: Vec::new(),
            every: LOOK_EVERY,
            token_file: None,
            post_token_file: None,
            senders: Vec::new(),
            ack: None,
        }
    }

    /// The office hears "taken" only once a warning is on the disk, however often it sends it; people hear of it at once.
    #[test]
    fn a_warning_that_could_not_be_kept_is_kept_when_it_is_sent_again() {
        let storage = std::env::temp_dir().join(format!("anmin-warnings-{}", std::process::id()));
        std::fs::create_dir_all(&storage).expect("a folder of ours");
        // Where the folder should be there is a file.
        std::fs::write(storage.join(FOLDER), "").expect("it can be written");
        let here = Here { area_code: Some("620102001001".to_owned()), places: Vec::new() };
        let clock = Clock::manual(RAISED.plus(Duration::from_secs(300)));
        let warnings = Warnings::open(&[settings()], &site(), here, &storage, &clock).expect("it names no files");
        let source = warnings.find("county").expect("it is configured");
        let accept = || warnings.accept(&source, RAIN.as_bytes()).map(|(_, taken)| taken);
        for _ in 0..2 {
            assert!(matches!(accept(), Err(Refused::NotKept(_))));
            assert_eq!(warnings.in_force().len(), 1, "it counts all the same");
        }
        std::fs::remove_file(storage.join(FOLDER)).expect("it is ours");
        assert_eq!(accept(), Ok(Taken::Repeated));
        let kept = std::fs::read_dir(storage.join(FOLDER)).expect("it was made").count();
        assert_eq!((kept, accept()), (1, Ok(Taken::Repeated)));
        std::fs::remove_dir_all(storage).expect("it is ours");
    }
}
