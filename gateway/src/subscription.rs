//! Who follows from outside what happens here: an emergency office, a property company, any program of theirs.
//!
//! A subscription is a view of the journal: the transitions of alarms and the changes of calls that its [`Filter`] takes, in
//! the order in which they were written down, each told by the number of its row. So it survives a restart, and whoever was
//! away goes on where they were, with nothing missing. It comes in five forms, all of the same events: posted to the
//! subscriber or to a broker ([`push`]), as a live stream ([`stream`]), page by page, and as an Atom feed of CAP messages
//! ([`feed`]).
//!
//! What it promises:
//! - In order, nothing left out, at least once: each event has the id `alarm/seq/subscriber` in `order`, the same on every
//!   attempt, so that a receiver that remembers ids acts once.
//! - What a filter takes of an alarm it takes from the moment on at which the alarm is grave enough, to its end.
//! - Nothing here is waited for by the main loop: everything is read from the journal after it is durable, on other threads.
//! - Rows whose hash fails are no events: they are never served as good.
//!
//! ```toml
//! [[subscriber]]
//! id          = "office"
//! areas       = ["b3", "G-07"]                 # places, grids or buildings; default: all
//! classes     = ["gas", "fire"]                # default: all
//! min_level   = "yellow"                       # default: blue
//! system      = false                          # alarms about anmin itself, too
//! languages   = ["zh-CN", "en-US"]
//! token_file  = "secrets/office-token"         # what the subscriber shows when it comes by itself
//! url         = "https://office.example.cn/anmin"   # where to post to, or mqtt_out = "city"; neither: it comes by itself
//! secret_file = "secrets/office"
//! [subscriber.cap]                             # the words of its Atom feed
//! sender      = "anmin.shequ001.example.cn"
//! ```

pub mod feed;
pub mod push;
pub mod stream;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use anmin_rules::alarm::Alarm;
use anmin_rules::order::{Channel, ChannelForm, OrderId};
use anmin_rules::rule::{Level, Text};
use anmin_sensors::document::Reader;
use anmin_sensors::time::Wall;
use bytes::Bytes;
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot, watch};

use crate::clock::Clock;
use crate::credentials::Secret;
use crate::delivery::cap::{self, Language};
use crate::delivery::heartbeat::Heartbeat;
use crate::delivery::{self, Site, event};
use crate::outgoing::Outgoing;
use crate::store::state::{Entry, Journaled};
use crate::store::{StateReader, StoreError};
use crate::telemetry::Figures;

/// Rows that are read from the journal at once.
const ROWS_AT_ONCE: usize = 500;
/// Rows that one question looks through at most: a subscriber of little finds little, and asks again.
const MOST_ROWS: usize = 20_000;
/// Events in one page or post.
pub const MOST_EVENTS: usize = 500;
/// Bytes of events in one page or post, but for one that is larger alone.
const MOST_BYTES: usize = 1 << 20;

/// `[[subscriber]]`.
#[derive(Clone, Debug)]
pub struct Settings {
    pub id: Arc<str>,
    filter: Filter,
    languages: Vec<Language>,
    token_file: Option<PathBuf>,
    push: Option<push::Settings>,
    cap: Option<cap::Settings>,
}

impl Settings {
    /// `known` are the words that an area may be named by: places, grids and buildings of the site.
    pub fn read(r: &Reader<'_>, base: &Path, known: &BTreeSet<String>) -> Option<Self> {
        let id: Option<String> = r.required("id");
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if let Some(id) = id.as_deref().filter(|id| !(1..=64).contains(&id.len()) || !id.chars().all(plain)) {
            r.fault("id", format!("`id` is {id:?}, expected 1 to 64 letters, digits, `-`, `_` or `.`"), None);
        }
        let filter = Filter::read(r, known);
        let languages = cap::languages(r);
        let token_file = crate::delivery::read_file(r, "token_file", base, Secret::read);
        let push = push::Settings::read(r, base);
        let cap = r.table("cap").and_then(|words| {
            let read = cap::Settings::read(&words)
                .map(|read| if words.has("languages") { read } else { read.in_languages(&languages) });
            words.finish();
            read
        });
        r.finish();
        (!r.is_faulty()).then_some(())?;
        Some(Self { id: id?.into(), filter, languages, token_file, push, cap })
    }

    /// Its feed as the desk sees it, where what stands there is taken for real: people are asked first.
    pub fn channel(&self, site: &Site) -> Option<Channel> {
        let words = cap::Words::new(self.cap.as_ref()?, site);
        words.is_for_real().then(|| Channel { outward: true, ..self.filter.channel(format!("subscriber:{}", self.id)) })
    }

    pub fn heed(&mut self, outgoing: &Outgoing, r: &Reader<'_>) {
        if let Some(push) = &mut self.push {
            push.heed(outgoing, r);
        }
    }
}

/// Which events a subscriber hears of.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter(Channel);

impl Filter {
    fn read(r: &Reader<'_>, known: &BTreeSet<String>) -> Self {
        let (areas, classes) = delivery::read_scope(r);
        delivery::check_areas(r, known);
        let min_level = r.choice("min_level", &Level::CHOICES).unwrap_or(Level::Blue);
        let system = r.or("system", false);
        Self(Channel { areas, classes, system, ..Channel::new("", ChannelForm::Feed, min_level) })
    }

    /// Whether the alarm, as it stands, is one that the subscriber has heard of or hears of now.
    pub fn takes(&self, alarm: &Alarm) -> bool {
        self.0.wants(alarm, alarm.peak)
    }

    /// A way out that hears of the same, by this name.
    fn channel(&self, id: impl Into<Arc<str>>) -> Channel {
        Channel { id: id.into(), ..self.0.clone() }
    }
}

/// A place in the journal, as subscribers write it: `1f0c4d2ab3e95877-4711`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Of the file whose rows are numbered so; see [`StateReader::lineage`].
    pub lineage: u64,
    pub n: i64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.lineage, self.n)
    }
}

impl FromStr for Position {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (lineage, n) = text.split_once('-').ok_or(())?;
        let n: i64 = n.parse().map_err(|_| ())?;
        let lineage = u64::from_str_radix(lineage, 16).map_err(|_| ())?;
        (n >= 0).then_some(Self { lineage, n }).ok_or(())
    }
}

/// From where on somebody wants to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// From the first row that there is.
    Beginning,
    /// Only what comes from now on.
    Now,
    /// What comes behind this.
    Behind(Position),
}

impl Since {
    /// A position, or `beginning`.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "beginning" { Some(Self::Beginning) } else { text.parse().ok().map(Self::Behind) }
    }
}

/// One event for one subscriber.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The row of the journal.
    pub n: i64,
    /// `alarm.event` or `call.event`.
    pub kind: &'static str,
    pub json: Vec<u8>,
}

/// Some events in order, and how far they reach.
#[derive(Clone, Debug)]
pub struct Stretch {
    pub events: Vec<Event>,
    /// Everything up to here is in `events`, or not for this subscriber.
    pub upto: Position,
    /// More may lie behind.
    pub more: bool,
    /// The position that was asked for is of another file: what came between cannot be told. `upto` is the end of this one.
    pub lost: bool,
}

/// What the listeners of one subscription are told as it happens.
#[derive(Clone, Debug)]
enum Live {
    Event {
        at: Position,
        frame: Bytes,
    },
    /// Everything up to here has been told.
    Reached(Position),
    /// It may be that not everything was told: read the journal.
    Look,
    Test(Bytes),
    /// The subscription is gone, or another.
    Over,
}

/// One subscription while anmin runs.
pub struct Subscriber {
    settings: Settings,
    token: Option<Secret>,
    words: Option<cap::Words>,
    live: broadcast::Sender<Live>,
    tests: Option<mpsc::Sender<Test>>,
    standing: Mutex<Standing>,
}

/// A test message that is to be posted, and where the result goes.
struct Test {
    id: String,
    document: Bytes,
    reply: oneshot::Sender<Result<String, String>>,
}

/// How the posting to one subscriber stands.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// Everything up to this row has been taken.
    pub told: i64,
    pub taken_at: Option<Wall>,
    /// Why the last attempt failed.
    pub failing: Option<String>,
    /// Events that the receiver has refused and that were left out.
    pub left_out: u64,
}

impl Subscriber {
    pub fn id(&self) -> &Arc<str> {
        &self.settings.id
    }

    /// Whether it has a token of its own.
    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Takes as long for a near miss as for a far one: digests are compared, whole.
    pub fn is_token(&self, offered: &str) -> bool {
        let digest = |text: &str| ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        self.token.as_ref().is_some_and(|token| {
            let (own, offered) = (digest(token.reveal().trim()), digest(offered));
            own.as_ref().iter().zip(offered.as_ref()).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
        })
    }

    pub fn is_posted_to(&self) -> bool {
        self.tests.is_some()
    }

    /// Live streams that are open.
    pub fn listeners(&self) -> usize {
        self.live.receiver_count()
    }

    pub fn standing(&self) -> Standing {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the row is to this subscriber.
    fn event(&self, site: &Site, row: Journaled) -> Option<Event> {
        let (n, id) = (row.n, &self.settings.id);
        match row.entry {
            Entry::Transition(mut transition) => {
                self.settings.filter.takes(&transition.alarm).then_some(())?;
                self.in_its_languages(Arc::make_mut(&mut transition.alarm));
                let order = OrderId::new(format!("{}/{}/{id}", transition.alarm.id, transition.alarm.seq));
                Some(Event { n, kind: "alarm.event", json: event::alarm_event(site, &order, &transition) })
            }
            Entry::Call(mut change) => {
                self.settings.filter.takes(&change.alarm).then_some(())?;
                self.in_its_languages(Arc::make_mut(&mut change.alarm));
                self.words(&mut change.message);
                self.words(&mut change.call.station_name);
                let call = &change.call;
                let order = OrderId::new(format!("{}/call-{}-{}/{id}", call.alarm, call.station, call.seq));
                Some(Event { n, kind: "call.event", json: event::call_event(site, &order, &change) })
            }
            Entry::Incident(_) | Entry::Damaged(_) => None,
        }
    }

    fn in_its_languages(&self, alarm: &mut Alarm) {
        [&mut alarm.title, &mut alarm.message, &mut alarm.advice].into_iter().for_each(|text| self.words(text));
    }

    /// A text in a language that nobody asked for is empty.
    fn words(&self, text: &mut Text) {
        if !self.settings.languages.contains(&Language::Zh) {
            text.zh.clear();
        }
        if !self.settings.languages.contains(&Language::En) {
            text.en.clear();
        }
    }
}

/// A subscriber that is sound and not yet told anything.
pub struct Prepared {
    subscriber: Arc<Subscriber>,
    outbox: Option<push::Outbox>,
}

/// All subscriptions. Cheap to clone.
#[derive(Clone)]
pub struct Subscriptions(Arc<Shared>);

struct Shared {
    site: Site,
    /// Whether people are asked before anything is said for real.
    asks: bool,
    /// Where the journal is. Opened for each question: it may have been replaced, or be away for a while.
    dir: PathBuf,
    clock: Clock,
    figures: Figures,
    /// What [`crate::pulse::Watch`] counts: no heartbeat without one.
    beats: watch::Receiver<u64>,
    started: Wall,
    all: RwLock<BTreeMap<Arc<str>, Arc<Subscriber>>>,
    /// The end of the journal as it was seen last.
    end: watch::Sender<Option<Position>>,
    places: Arc<Semaphore>,
}

impl Subscriptions {
    /// Reads the tokens. Gives what the tasks that post need, too.
    pub fn new(
        settings: &[Settings],
        site: &Site,
        asks: bool,
        dir: &Path,
        clock: &Clock,
        figures: &Figures,
        beats: watch::Receiver<u64>,
    ) -> Result<(Self, Vec<push::Outbox>), String> {
        let shared = Shared {
            site: site.clone(),
            asks,
            dir: dir.to_owned(),
            clock: clock.clone(),
            figures: figures.clone(),
            beats,
            started: clock.now().wall,
            all: RwLock::default(),
            end: watch::Sender::new(None),
            places: Arc::new(Semaphore::new(stream::MOST_LISTENERS)),
        };
        let all = Self(Arc::new(shared));
        let outboxes = all.replace(&[], all.prepare(settings)?);
        Ok((all, outboxes))
    }

    /// Reads the secrets of subscribers that are new or have changed, and changes nothing.
    pub fn prepare(&self, settings: &[Settings]) -> Result<Vec<Prepared>, String> {
        let Shared { site, clock, .. } = &*self.0;
        let prepared = settings.iter().map(|settings| {
            let named = |why: String| format!("subscriber {}: {why}", settings.id);
            let (tests, received) = mpsc::channel(4);
            let posted = settings.push.as_ref().map(|push| push.way(clock)).transpose().map_err(&named)?;
            let subscriber = Arc::new(Subscriber {
                token: settings.token_file.as_deref().map(Secret::read).transpose().map_err(&named)?,
                words: settings.cap.as_ref().map(|words| cap::Words::new(words, site)),
                live: broadcast::Sender::new(stream::QUEUE),
                tests: posted.is_some().then_some(tests),
                standing: Mutex::default(),
                settings: settings.clone(),
            });
            let outbox = posted.map(|posted| push::Outbox::new(Arc::clone(&subscriber), posted, received));
            Ok(Prepared { subscriber, outbox })
        });
        prepared.collect()
    }

    /// Lets those that are `gone` go and takes the others in, also in the place of one with their id; live streams of both end
    /// and come again. Gives what the tasks that post need. How far a subscriber was told stands in the journal.
    pub fn replace(&self, gone: &[Arc<str>], new: Vec<Prepared>) -> Vec<push::Outbox> {
        let mut all = self.0.all.write().unwrap_or_else(PoisonError::into_inner);
        let mut over: Vec<Arc<Subscriber>> = gone.iter().filter_map(|id| all.remove(id)).collect();
        let mut outboxes = Vec::new();
        for Prepared { subscriber, outbox } in new {
            over.extend(all.insert(Arc::clone(subscriber.id()), subscriber));
            outboxes.extend(outbox);
        }
        // An error says that nobody listens.
        over.iter().for_each(|one| drop(one.live.send(Live::Over)));
        outboxes
    }

    pub fn is_empty(&self) -> bool {
        self.known().is_empty()
    }

    /// By their ids.
    pub fn all(&self) -> impl Iterator<Item = Arc<Subscriber>> + use<> {
        self.known().values().cloned().collect::<Vec<_>>().into_iter()
    }

    pub fn find(&self, id: &str) -> Option<Arc<Subscriber>> {
        self.known().get(id).cloned()
    }

    fn known(&self) -> RwLockReadGuard<'_, BTreeMap<Arc<str>, Arc<Subscriber>>> {
        self.0.all.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The end of the journal as it was seen last.
    pub fn end(&self) -> Option<Position> {
        *self.0.end.borrow()
    }

    /// The events of a stretch, `most` at most. Waits for the disk: call it on a thread that may.
    pub fn read(&self, subscriber: &Subscriber, from: Since, most: usize) -> Result<Stretch, StoreError> {
        let journal = StateReader::open(&self.0.dir)?;
        let lineage = journal.lineage()?;
        let at = |n| Position { lineage, n };
        let nothing = |n, lost| Stretch { events: Vec::new(), upto: at(n), more: false, lost };
        let mut upto = match from {
            Since::Beginning => 0,
            Since::Now => return Ok(nothing(journal.end()?, false)),
            Since::Behind(position) if position.lineage == lineage => position.n,
            Since::Behind(_) => return Ok(nothing(journal.end()?, true)),
        };
        let (mut events, mut bytes) = (Vec::new(), 0);
        for _ in 0..MOST_ROWS / ROWS_AT_ONCE {
            let rows = journal.after(upto, ROWS_AT_ONCE)?;
            if rows.is_empty() {
                return Ok(Stretch { events, upto: at(upto), more: false, lost: false });
            }
            for row in rows {
                let n = row.n;
                if let Some(event) = subscriber.event(&self.0.site, row) {
                    bytes += event.json.len();
                    if events.len() == most || (bytes > MOST_BYTES && !events.is_empty()) {
                        return Ok(Stretch { events, upto: at(upto), more: true, lost: false });
                    }
                    events.push(event);
                }
                upto = n;
            }
        }
        Ok(Stretch { events, upto: at(upto), more: true, lost: false })
    }

    /// A stretch as the document that pages and posts have in common.
    pub fn document(&self, subscriber: &Subscriber, stretch: &Stretch) -> Vec<u8> {
        let id = |event: &Event| Position { n: event.n, ..stretch.upto }.to_string();
        let events: Vec<(String, &[u8])> = stretch.events.iter().map(|event| (id(event), &*event.json)).collect();
        event::events(&self.0.site, subscriber.id(), &events, &stretch.upto.to_string(), stretch.more)
    }

    /// Tells a subscriber that somebody tries the way to it: everybody who listens, and where it is posted to the receiver,
    /// whose answer is given.
    pub async fn test(&self, subscriber: &Subscriber, by: &str) -> Tested {
        let at = self.0.clock.now().wall;
        let id = format!("{}/{}/test/{}", self.0.site.id, subscriber.id(), at.micros());
        let document = Bytes::from(event::test(&self.0.site, subscriber.id(), &id, by, at));
        // An error says that nobody listens.
        let listeners = subscriber.live.send(Live::Test(stream::frame(None, "test", &document))).unwrap_or(0);
        let posted = match &subscriber.tests {
            None => None,
            Some(tests) => {
                let (reply, answer) = oneshot::channel();
                let sent = tests.send(Test { id, document, reply }).await.is_ok();
                let ended = || Err("the task that posts has ended".to_owned());
                Some(if sent { answer.await.unwrap_or_else(|_| ended()) } else { ended() })
            }
        };
        Tested { listeners, posted }
    }

    fn heartbeat(&self, subscriber: &Subscriber, sequence: u64, last: Position) -> Vec<u8> {
        let Shared { site, clock, figures, started, .. } = &*self.0;
        let status = figures.status();
        let told = Some((&**subscriber.id(), last.to_string()));
        event::heartbeat(site, &Heartbeat { sequence, at: clock.now().wall, started: *started, status: &status, told })
    }
}

/// What became of a test message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tested {
    /// Live streams that were told.
    pub listeners: usize,
    /// What the receiver said, where there is one to post to.
    pub posted: Option<Result<String, String>>,
}

#[cfg(test)]
pub(crate) mod tests {
    use anmin_rules::alarm::Class;

    use std::sync::Arc;

    use anmin_rules::alarm::{AlarmId, AlarmState, Cause, Transition};
    use anmin_rules::order::CallChange;
    use anmin_sensors::document::{Document, Faults};
    use anmin_sensors::point::Place;
    use serde_json::Value;

    use super::*;
    use crate::samples::{self, RAISED, call_change, transition};
    use crate::store::tests::TestDir;
    use crate::store::{StateStore, Turn};

    pub fn settings(text: &str) -> Result<Settings, Vec<String>> {
        let faults = Faults::default();
        let doc = Document::parse("t.toml", text, &faults).expect("TOML");
        let known = ["b3", "G-07", "3"].map(str::to_owned).into();
        let found = Settings::read(&doc.root(&faults), Path::new("/nowhere"), &known);
        let faults = faults.take();
        match found {
            Some(settings) if faults.is_empty() => Ok(settings),
            _ => Err(faults.iter().map(ToString::to_string).collect()),
        }
    }

    /// A journal, and one subscriber of it.
    pub struct Office {
        _dir: TestDir,
        pub store: StateStore,
        pub all: Subscriptions,
        pub one: Arc<Subscriber>,
        pub clock: Clock,
        pub beats: watch::Sender<u64>,
    }

    impl Office {
        pub fn new(name: &str, text: &str) -> Self {
            let dir = TestDir::new(name);
            let store = StateStore::open(dir.path(), RAISED).expect("the folder can be written").0;
            let settings = settings(text).expect("good settings");
            let (clock, beats) = (Clock::manual(RAISED), watch::Sender::new(0));
            let figures = Figures::default();
            let all = Subscriptions::new(
                &[settings],
                &samples::site(),
                true,
                dir.path(),
                &clock,
                &figures,
                beats.subscribe(),
            );
            let (all, _) = all.expect("no files are named");
            let one = all.all().next().expect("there is one");
            Self { _dir: dir, store, all, one, clock, beats }
        }

        /// Writes an alarm of this number down as raised.
        pub fn raise(&mut self, n: u128, change: impl FnOnce(&mut Alarm)) {
            let mut alarm = Alarm { id: AlarmId(uuid::Uuid::from_u128(n)), ..samples::alarm() };
            change(&mut alarm);
            self.write(&transition(AlarmState::Normal, Cause::Raised, alarm));
        }

        pub fn write(&mut self, transition: &Arc<Transition>) {
            self.write_all(std::slice::from_ref(transition));
        }

        pub fn write_all(&mut self, transitions: &[Arc<Transition>]) {
            let turn = Turn { transitions, ..Turn::default() };
            self.store.commit(&turn).expect("the disk takes it");
        }
    }

    fn alarms(all: &Subscriptions, one: &Subscriber, stretch: &Stretch) -> Vec<String> {
        let document: Value = serde_json::from_slice(&all.document(one, stretch)).expect("JSON");
        let events = document["events"].as_array().expect("a list");
        events.iter().map(|event| event["event"]["order"].as_str().expect("text").to_owned()).collect()
    }

    #[test]
    fn a_filter_takes_what_it_says_and_whoever_heard_of_an_alarm_hears_how_it_ends() {
        let place = |area: &str, grid: &str, building: &str| {
            let (area, grid, building) = (area.to_owned(), grid.to_owned(), building.to_owned());
            Arc::new(Place { area, grid, building, ..Place::default() })
        };
        let gas = |level, peak, place: &Arc<Place>| Alarm { level, peak, place: Arc::clone(place), ..samples::alarm() };
        let (here, there) = (place("b3", "G-07", "3"), place("b9", "G-08", "9"));
        let own = Alarm { class: Class::System, place: place("", "", ""), ..samples::alarm() };
        for (text, alarm, takes) in [
            ("", gas(Level::Blue, Level::Blue, &there), true),
            ("areas = ['b3']", gas(Level::Blue, Level::Blue, &here), true),
            ("areas = ['G-07']", gas(Level::Blue, Level::Blue, &here), true),
            ("areas = ['3']", gas(Level::Blue, Level::Blue, &here), true),
            ("areas = ['b3', 'G-07', '3']", gas(Level::Red, Level::Red, &there), false),
            ("min_level = 'orange'", gas(Level::Yellow, Level::Yellow, &here), false),
            ("min_level = 'orange'", gas(Level::Yellow, Level::Orange, &here), true),
            ("classes = ['fire', 'flood']", gas(Level::Red, Level::Red, &here), false),
            ("classes = ['fire', 'gas']", gas(Level::Red, Level::Red, &here), true),
            ("", own.clone(), false),
            ("areas = ['b3']\nclasses = ['gas']\nsystem = true", own.clone(), true),
        ] {
            let filter = settings(&format!("id = 'office'\n{text}")).expect("good settings").filter;
            assert_eq!(filter.takes(&alarm), takes, "{text}: {:?}", alarm.place);
        }
    }

    #[test]
    fn settings_tell_all_faults() {
        let text = "id = 'of fice'\nareas = ['b4']\nclasses = ['gaz']\nlanguages = ['fr']\nsecret_file = 'x'\n\
                    token_file = 'gone'\nmin_levle = 'red'\n[cap]\nscope = 'public'\n";
        let found = settings(text).expect_err("many faults").join("\n");
        for part in [
            "t.toml:1:6: `id` is \"of fice\"",
            "t.toml:2:9: `areas` holds \"b4\", which is no place, grid or building of the site\n  hint: did you mean `b3`?",
            "t.toml:3:11: `classes` holds \"gaz\", expected some of gas, fire, power, flood, ground, care, device\n  hint: did you mean `gas`?",
            "t.toml:4:13: `languages` holds \"fr\"",
            "`secret_file` goes with `url`, and there is none",
            "`token_file` names /nowhere/gone, which is not there",
            "`min_levle` is not a known key",
            "`cap.sender` is missing",
            "`scope` is \"public\"",
        ] {
            assert!(found.contains(part), "{part} is not in\n{found}");
        }
    }

    #[test]
    fn a_position_is_read_as_it_is_written() {
        let position = Position { lineage: 0x1f0c, n: 4_711 };
        assert_eq!(position.to_string(), "0000000000001f0c-4711");
        assert_eq!(Since::parse(&position.to_string()), Some(Since::Behind(position)));
        assert_eq!(Since::parse("beginning"), Some(Since::Beginning));
        for text in ["", "4711", "1f0c-", "1f0c--1", "xyz-1", "1f0c-1 "] {
            assert_eq!(Since::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn pages_follow_one_another_with_nothing_between_and_nothing_twice() {
        let mut office = Office::new("pages", "id = 'office'\nmin_level = 'orange'\nlanguages = ['en-US']\n");
        for n in 0..1_200 {
            let level = if n % 3 == 0 { Level::Orange } else { Level::Yellow };
            office.raise(n, |alarm| (alarm.level, alarm.peak) = (level, level));
        }
        let calls = [Arc::new(CallChange { alarm: Arc::new(samples::alarm()), ..CallChange::clone(&call_change()) })];
        office.store.commit(&Turn { calls: &calls, ..Turn::default() }).expect("the disk takes it");
        let Office { all, one, .. } = &office;
        let (mut since, mut told, mut pages) = (Since::Beginning, Vec::new(), 0);
        loop {
            let stretch = all.read(one, since, 150).expect("it can be read");
            assert!(stretch.events.len() <= 150 && !stretch.lost);
            told.extend(alarms(all, one, &stretch));
            since = Since::Behind(stretch.upto);
            pages += 1;
            if !stretch.more {
                break;
            }
        }
        let mut wanted: Vec<String> =
            (0..1_200).step_by(3).map(|n| format!("{}/1/office", uuid::Uuid::from_u128(n))).collect();
        wanted.push(format!("{}/call-{}-{}/office", calls[0].call.alarm, calls[0].call.station, calls[0].call.seq));
        assert_eq!((told, pages), (wanted, 3));

        let event = &all.read(one, Since::Beginning, 1).expect("it can be read").events[0];
        let document: Value = serde_json::from_slice(&event.json).expect("JSON");
        assert_eq!(document["title"], serde_json::json!({ "zh": "", "en": "Gas leak" }), "one language was asked for");

        let Since::Behind(end) = since else { panic!("there was a page") };
        let other = Since::Behind(Position { lineage: end.lineage ^ 1, ..end });
        let lost = all.read(one, other, 10).expect("it can be read");
        assert!(lost.lost && lost.upto == end && lost.events.is_empty(), "{lost:?}");
        let now = all.read(one, Since::Now, 10).expect("it can be read");
        assert!(!now.lost && now.upto == end && now.events.is_empty(), "{now:?}");
    }
}
