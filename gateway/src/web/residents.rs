//! The residents' page: what is public, in large plain words, and where somebody may say "I am safe" or "I need help".
//!
//! No sign-in, no script, no cookie, and nothing that is not public: warnings of offices above whose scope is Public, and what of
//! this community has really left it after people have said yes; for two hours that it is over. A home is never named, a drill
//! always is. Where `[residents]` is not switched on there is nothing here.
//!
//! What somebody says becomes a row of the register `help` and nothing else: it raises no alarm about a hazard, calls no station
//! and broadcasts nothing. Anybody can send it, so it is bounded: by address, altogether, and by how much waits for an answer.
//! What was sent is shown to nobody here but how far it has come, by an address that nobody can guess.
//!
//! ```toml
//! [residents]
//! enabled = true
//! areas   = ["b1"]               # places, grids or buildings; none means the whole site
//! title   = { zh = "春晖社区", en = "Chunhui Community" }
//! phone   = "0571-00000000"      # of the duty desk
//! help    = true                 # whether residents may say how they are
//! kept    = "30d"                # for how long what they said is kept once it is done with
//! ```

mod html;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anmin_rules::alarm::{Alarm, AlarmId, Transition};
use anmin_rules::broadcast::BroadcastState;
use anmin_rules::drill::unmarked;
use anmin_rules::order::{CapMessage, CapOrder, OrderBody};
use anmin_rules::rule::{Level, Text};
use anmin_sensors::document::{Reader, did_you_mean};
use anmin_sensors::point::Place;
use anmin_sensors::time::{Mono, Wall};
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::api::Desk;
use super::authority::{Right, Routes, get, post};
use super::guard::Visitor;
use super::meanwhile::Against;
use super::problem::Problem;
use super::{Archive, registers, secret};
use crate::config::site::text;
use crate::main_loop::Query;
use crate::main_loop::query::{AlarmFilter, AlarmPage};
use crate::register::{Kind, NEEDS, Row, moment};
use crate::store::audit::{Deed, Through, Way};
use crate::store::registers::Change;
use crate::store::state::{Entry, Sent};
use crate::warning::book::Warning;

/// What was found out is shown to everybody for so long.
const FRESH: Duration = Duration::from_secs(2);
/// In which messages are counted.
const WITHIN: Duration = Duration::from_secs(600);
/// Messages of one address: a whole building may speak by one.
const MOST_BY_ADDRESS: u32 = 30;
/// Messages of all.
const MOST_AT_ALL: u32 = 300;
/// Addresses that are counted at once; beyond it the oldest are forgotten first.
const MOST_ADDRESSES: usize = 1_000;
/// Calls for help that nobody has dealt with yet.
const MOST_OPEN: usize = 500;
/// Residents who said that they are safe.
const MOST_SAFE: usize = 5_000;
/// For how long the page says that something is over.
const OVER_SHOWN: Duration = Duration::from_secs(2 * 3_600);
/// Rows of the journal that are looked through for it after a start.
const MOST_ROWS: usize = 5_000;
const ROWS: usize = 500;
/// Alarms that are looked at.
const MOST_ALARMS: usize = 200;
/// Bytes of a form.
const MOST_FORM: usize = 4 << 10;
const FORM_WITHIN: Duration = Duration::from_secs(10);
/// Hexadecimal digits of the mark of a form.
const ONCE: usize = 32;
const PHONE_MOST: usize = 40;
const KEPT: Duration = Duration::from_secs(30 * 86_400);
const KEPT_WITHIN: std::ops::RangeInclusive<Duration> = Duration::from_secs(3_600)..=Duration::from_secs(365 * 86_400);

const STYLE: &str = include_str!("residents.css");

/// No script, no picture, no frame; forms go home.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// `[residents]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub enabled: bool,
    /// Whether residents may say how they are.
    pub help: bool,
    /// Places, grids or buildings; none means everywhere.
    pub areas: Vec<String>,
    /// `None`: the site's name.
    pub title: Option<Text>,
    /// Of the duty desk.
    pub phone: Option<String>,
    /// For how long what they said is kept once it is done with.
    pub kept: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { enabled: false, help: true, areas: Vec::new(), title: None, phone: None, kept: KEPT }
    }
}

impl Settings {
    /// `known`: what places, grids and buildings of the site are called.
    pub fn read(r: &Reader<'_>, known: &BTreeSet<String>) -> Self {
        let usual = Self::default();
        let areas: Vec<String> = r.or("areas", Vec::new());
        for area in areas.iter().filter(|area| !known.contains(*area)) {
            let hint = did_you_mean(area, known.iter().map(String::as_str));
            r.fault("areas", format!("`areas` holds {area:?}, which is no place, grid or building of the site"), hint);
        }
        let phone: Option<String> = r.optional("phone");
        let is_phone = |phone: &String| {
            let known = |c: char| c.is_ascii_digit() || " +-*#()".contains(c);
            phone.len() <= PHONE_MOST && phone.chars().any(|c| c.is_ascii_digit()) && phone.chars().all(known)
        };
        if let Some(phone) = phone.as_ref().filter(|phone| !is_phone(phone)) {
            let hint = Some("such as \"0571-00000000\"".to_owned());
            r.fault("phone", format!("`phone` is {phone:?}, expected a telephone number"), hint);
        }
        let kept = r.or("kept", usual.kept);
        if !KEPT_WITHIN.contains(&kept) {
            r.fault("kept", "`residents.kept` must lie between one hour and 365 days", None);
        }
        let settings = Self {
            enabled: r.or("enabled", usual.enabled),
            help: r.or("help", usual.help),
            areas,
            title: text(r, "title"),
            phone,
            kept,
        };
        r.finish();
        settings
    }

    fn takes(&self, place: &Place) -> bool {
        let here = |area: &String| [&place.area, &place.grid, &place.building].contains(&area);
        self.areas.is_empty() || self.areas.iter().any(here)
    }
}

/// What is public now.
#[derive(Clone, Debug, PartialEq)]
struct Notice {
    exercise: bool,
    level: Level,
    headline: Text,
    place: Text,
    since: Wall,
    /// Of a warning of an office: until when it holds.
    until: Option<Wall>,
    said: Text,
    to_do: Text,
    by: Text,
}

impl Notice {
    fn of_warning(warning: &Warning) -> Self {
        let (said, to_do) = (warning.description(), warning.instruction());
        Self {
            exercise: warning.is_exercise(),
            level: warning.level,
            headline: warning.headline(),
            place: warning.area(),
            since: warning.message.key.sent,
            until: Some(warning.until),
            said,
            to_do,
            by: warning.sender_name(),
        }
    }

    /// What of an alarm has left the community, if it has: a message that was sent in earnest after people have said yes and has
    /// arrived, or that of a drill; and that was not taken back.
    fn of_alarm(alarm: &Alarm, sent: &[Sent], by: &Text) -> Option<Self> {
        if alarm.is_open() { Public::of(alarm.id, sent).notice(by) } else { None }
    }
}

/// What of an alarm has left the community, as its messages tell.
struct Public<'s> {
    /// By target: since when, and the last word.
    standing: BTreeMap<&'s str, (Wall, &'s CapOrder)>,
    /// The last word of one that was ended, and what ended it.
    ended: Option<(&'s CapOrder, &'s CapOrder)>,
}

impl<'s> Public<'s> {
    fn of(alarm: AlarmId, sent: &'s [Sent]) -> Self {
        // As the alarm was when the message left: while people are asked about more, what they have let out stands.
        let is_public = |cap: &CapOrder| {
            let earnest = cap.voice.as_ref().is_some_and(|voice| &*voice.status == "Actual");
            let asked = cap.alarm.broadcast.as_ref();
            cap.alarm.drill.is_some() || (earnest && asked.is_some_and(|asked| asked.state == BroadcastState::Approved))
        };
        let mut standing: BTreeMap<&str, (Wall, &CapOrder)> = BTreeMap::new();
        let mut ended: Option<(&CapOrder, &CapOrder)> = None;
        for one in sent {
            let Some(OrderBody::Cap(cap)) = one.body.as_ref().filter(|body| is_about(body, alarm)) else { continue };
            match cap.message {
                // Also where it has not arrived: what is no more is shown no more.
                CapMessage::Cancel => {
                    if let Some((_, last)) = standing.remove(&*one.channel)
                        && ended.is_none_or(|(_, end)| cap.sent >= end.sent)
                    {
                        ended = Some((last, cap));
                    }
                }
                CapMessage::Alert | CapMessage::Update if one.state == "delivered" && is_public(cap) => {
                    let since = standing.get(&*one.channel).map_or(cap.sent, |(since, _)| *since);
                    standing.insert(&one.channel, (since, cap));
                }
                CapMessage::Alert | CapMessage::Update => {}
            }
        }
        Self { standing, ended }
    }

    fn notice(&self, by: &Text) -> Option<Notice> {
        let since = self.standing.values().map(|(since, _)| *since).min()?;
        let said =
            self.standing.values().max_by_key(|(_, cap)| (cap.alarm.seq, cap.sent)).map(|(_, cap)| &cap.alarm)?;
        Some(Notice {
            exercise: said.drill.is_some(),
            level: said.level,
            headline: plain(&said.title),
            place: public_place(said),
            since,
            until: None,
            said: Text::default(),
            to_do: plain(&said.advice),
            by: by.clone(),
        })
    }

    /// That nothing stands any more of what did.
    fn over(&self) -> Option<Over> {
        let (last, end) = self.ended.filter(|_| self.standing.is_empty())?;
        // While an alarm is open nobody says that all is clear: it was taken back, or is less grave by now.
        let how = if end.alarm.is_open() { End::Withdrawn } else { End::Clear };
        let (exercise, headline) = (last.alarm.drill.is_some(), plain(&last.alarm.title));
        Some(Over { exercise, how, headline, place: public_place(&last.alarm), at: end.sent })
    }
}

fn plain(text: &Text) -> Text {
    Text { zh: unmarked(&text.zh).to_owned(), en: unmarked(&text.en).to_owned() }
}

/// Who lives where in it is nobody's business.
fn public_place(alarm: &Alarm) -> Text {
    let place = alarm.place.to_building();
    Text { zh: place.zh(), en: place.en() }
}

/// What was public a while ago, so that nothing vanishes without a word.
#[derive(Clone, Debug, PartialEq)]
struct Over {
    exercise: bool,
    how: End,
    headline: Text,
    place: Text,
    at: Wall,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The alarm is closed: the danger is over and people have said so.
    Clear,
    /// The notice holds no more, and the alarm is not closed.
    Withdrawn,
    /// An office's warning is in force no more.
    Lapsed,
}

/// Those of a while ago, the newest first. Where something stands at the same place nobody reads that all is clear there.
fn over_now(mut all: Vec<Over>, notices: &[Notice], now: Wall) -> Vec<Over> {
    all.retain(|one| {
        let stands = |notice: &Notice| notice.exercise == one.exercise && notice.place == one.place;
        now.since(one.at) < OVER_SHOWN && !notices.iter().any(stands)
    });
    all.sort_by_key(|one| (one.exercise, std::cmp::Reverse(one.at)));
    let mut seen = HashSet::new();
    all.retain(|one| seen.insert((one.exercise, one.headline.zh.clone(), one.place.zh.clone())));
    all
}

fn is_about(body: &OrderBody, alarm: AlarmId) -> bool {
    matches!(body, OrderBody::Cap(cap) if cap.alarm.id == alarm)
}

/// What is real before what is not, the graver first, then the newer; what two alarms of a building say alike stands once.
fn in_order(mut notices: Vec<Notice>) -> Vec<Notice> {
    notices.sort_by(|a, b| {
        let rank = |one: &Notice| (one.exercise, std::cmp::Reverse(one.level), std::cmp::Reverse(one.since));
        rank(a).cmp(&rank(b))
    });
    let mut seen = HashSet::new();
    notices.retain(|one| seen.insert((one.exercise, one.headline.zh.clone(), one.place.zh.clone())));
    notices
}

/// All that the page shows, as it was a moment ago.
#[derive(Debug)]
struct Known {
    notices: Vec<Notice>,
    over: Vec<Over>,
    /// Alarms of which something is public, or was a while ago.
    alarms: BTreeSet<AlarmId>,
    /// Warnings of offices that are no more in force.
    lapsed: Vec<Over>,
    shelters: Vec<Row>,
    /// Buildings with their grids.
    buildings: BTreeMap<String, BTreeSet<String>>,
    /// Ids of places, and their buildings.
    areas: BTreeMap<String, String>,
    /// How far calls have come, by their ids.
    calls: HashMap<String, String>,
}

impl Known {
    /// `before`: what was found the last time; `None` after a start.
    async fn find(desk: &Desk, before: Option<&Self>) -> Result<Self, Problem> {
        let settings = desk.residents.settings().clone();
        let now = desk.link.clock.now().wall;
        let filter = AlarmFilter { asked: true, ..AlarmFilter::default() };
        let page = AlarmPage { after: None, limit: MOST_ALARMS };
        let open = desk.ask(|reply| Query::Alarms { filter, page, reply }).await?.alarms;
        let open: Vec<Arc<Alarm>> = open.into_iter().filter(|alarm| settings.takes(&alarm.place)).collect();
        let opened: BTreeSet<AlarmId> = open.iter().map(|alarm| alarm.id).collect();
        let known = before.map(|before| before.alarms.clone());
        let (ids, sent, shelters, calls) = desk
            .archive(move |archive| {
                let known = match known {
                    Some(known) => known,
                    None => lately_public(archive, &settings, now)?,
                };
                let ids: Vec<AlarmId> = opened.union(&known).copied().collect();
                let sent = if ids.is_empty() { Vec::new() } else { archive.messages(&ids)? };
                Ok((ids, sent, archive.register(Kind::Shelters)?, archive.register(Kind::Help)?))
            })
            .await?;
        let site = &desk.link.site;
        let settings = desk.residents.settings();
        let own = open.iter().filter_map(|alarm| Notice::of_alarm(alarm, &sent, &site.name));
        let ended: Vec<(AlarmId, Over)> =
            ids.iter().filter_map(|id| Some((*id, Public::of(*id, &sent).over()?))).collect();
        let is_fresh = |over: &Over| now.since(over.at) < OVER_SHOWN;
        let fresh = ended.iter().filter(|(_, over)| is_fresh(over)).map(|(id, _)| *id);
        let alarms = open.iter().map(|alarm| alarm.id).chain(fresh).collect();
        let warnings = desk.link.warnings.in_force();
        let above = warnings.iter().filter(|warning| warning.message.public).map(Notice::of_warning);
        let mut buildings: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut areas: BTreeMap<String, String> = BTreeMap::new();
        for place in desk.link.in_force().places.iter().filter(|place| settings.takes(place)) {
            if !place.building.is_empty() {
                let grids = buildings.entry(place.building.clone()).or_default();
                grids.extend((!place.grid.is_empty()).then(|| place.grid.clone()));
                areas.insert(place.area.clone(), place.building.clone());
            }
        }
        let notices = in_order(above.chain(own).collect());
        let gone = before.into_iter().flat_map(|before| &before.notices).filter(|one| one.until.is_some());
        let gone =
            gone.filter(|one| !notices.iter().any(|now| (&now.headline, now.since) == (&one.headline, one.since)));
        let gone = gone.map(|one| Over {
            exercise: one.exercise,
            how: End::Lapsed,
            headline: one.headline.clone(),
            place: one.place.clone(),
            at: one.until.map_or(now, |until| until.min(now)),
        });
        let mut lapsed: Vec<Over> =
            before.into_iter().flat_map(|before| before.lapsed.iter().cloned()).chain(gone).collect();
        lapsed.retain(is_fresh);
        let all = ended.into_iter().map(|(_, over)| over).chain(lapsed.iter().cloned()).collect();
        Ok(Self {
            over: over_now(all, &notices, now),
            alarms,
            lapsed,
            notices,
            shelters,
            buildings,
            areas,
            calls: calls.iter().map(|row| (row.id().to_owned(), row.cell("state").to_owned())).collect(),
        })
    }

    /// A building, a grid or the id of a place, as it stands in a link or was chosen.
    fn spot(&self, at: &str) -> Option<Spot> {
        let building = self.buildings.contains_key(at).then_some(at);
        if let Some(building) = building.or_else(|| self.areas.get(at).map(String::as_str)) {
            let grids = self.buildings.get(building).cloned().unwrap_or_default();
            return Some(Spot { building: building.to_owned(), grids });
        }
        let grid = self.buildings.values().any(|grids| grids.contains(at));
        grid.then(|| Spot { building: String::new(), grids: BTreeSet::from([at.to_owned()]) })
    }

    /// Those that take somebody in first; among them the nearest to this spot, as far as the register says where they are.
    fn shelters_near(&self, spot: Option<&Spot>) -> Vec<&Row> {
        let far = |row: &Row| {
            let Some(spot) = spot else { return 2 };
            let building = row.cell("building");
            let mut grids = self.buildings.get(building).into_iter().flatten().map(String::as_str);
            if !building.is_empty() && building == spot.building {
                0
            } else if spot.grids.contains(row.cell("grid")) || grids.any(|grid| spot.grids.contains(grid)) {
                1
            } else {
                2
            }
        };
        let mut rows: Vec<&Row> = self.shelters.iter().collect();
        rows.sort_by_key(|row| (row.cell("state") != "open", far(row), row.cell("name")));
        rows
    }
}

/// Alarms that were public within the last while, by the journal: a start forgets nothing of it.
fn lately_public(archive: &dyn Archive, settings: &Settings, now: Wall) -> Result<BTreeSet<AlarmId>, String> {
    let (mut found, mut before) = (BTreeSet::new(), None);
    for _ in 0..MOST_ROWS / ROWS {
        let rows = archive.recent(ROWS, before)?;
        for row in &rows {
            let Entry::Transition(Transition { alarm, .. }) = &row.entry else { continue };
            if (alarm.broadcast.is_some() || alarm.drill.is_some()) && settings.takes(&alarm.place) {
                found.insert(alarm.id);
            }
        }
        let last = rows.iter().rev().find_map(|row| match &row.entry {
            Entry::Transition(transition) => Some(transition.at.wall),
            _ => None,
        });
        before = rows.last().map(|row| row.n);
        if rows.len() < ROWS || last.is_some_and(|at| now.since(at) >= OVER_SHOWN) {
            break;
        }
    }
    Ok(found)
}

/// Where the reader is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Spot {
    /// Empty where only the grid is known.
    building: String,
    grids: BTreeSet<String>,
}

/// The page while anmin runs. Cheap to clone.
#[derive(Clone)]
pub(super) struct Page(Arc<Inner>);

/// The status where it could not be found out.
type Found = Result<Arc<Known>, StatusCode>;

#[derive(Default)]
struct Cache {
    found: Option<(Mono, Found)>,
    /// What was found last, when it could be.
    last: Option<Arc<Known>>,
}

struct Inner {
    settings: Settings,
    /// One reader finds out for all.
    known: tokio::sync::Mutex<Cache>,
    spent: Mutex<Spent>,
}

/// How many messages came lately.
#[derive(Debug, Default)]
struct Spent {
    by_address: HashMap<String, (Mono, u32)>,
    all: Option<(Mono, u32)>,
}

impl Spent {
    /// Whether one more may come from here.
    fn takes(&mut self, from: &str, now: Mono) -> bool {
        let is_old = |since: Mono| now.since(since) >= WITHIN;
        if self.by_address.len() >= MOST_ADDRESSES && !self.by_address.contains_key(from) {
            self.by_address.retain(|_, (since, _)| !is_old(*since));
            let oldest = self.by_address.iter().min_by_key(|(_, (since, _))| *since).map(|(from, _)| from.clone());
            if let Some(oldest) = oldest.filter(|_| self.by_address.len() >= MOST_ADDRESSES) {
                self.by_address.remove(&oldest);
            }
        }
        let counted = |(since, count): &mut (Mono, u32), most: u32| {
            if is_old(*since) {
                (*since, *count) = (now, 0);
            }
            *count = count.saturating_add(1);
            *count <= most
        };
        // Whoever is refused takes nothing from the others.
        counted(self.by_address.entry(from.to_owned()).or_insert((now, 0)), MOST_BY_ADDRESS)
            && counted(self.all.get_or_insert((now, 0)), MOST_AT_ALL)
    }
}

/// An address as it is counted: of IPv6 the network that one house has.
fn counted_as(address: Option<IpAddr>) -> String {
    match address {
        Some(IpAddr::V6(address)) => {
            let [a, b, c, d, ..] = address.segments();
            address.to_ipv4_mapped().map_or_else(|| format!("{a:x}:{b:x}:{c:x}:{d:x}"), |address| address.to_string())
        }
        Some(address) => address.to_string(),
        None => String::new(),
    }
}

impl Page {
    pub fn new(settings: Settings) -> Self {
        Self(Arc::new(Inner { settings, known: tokio::sync::Mutex::default(), spent: Mutex::default() }))
    }

    fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// What is to be shown now.
    async fn known(&self, desk: &Desk) -> Found {
        let mut cache = self.0.known.lock().await;
        let now = desk.link.clock.now().mono;
        if let Some((at, found)) = &cache.found
            && now.since(*at) < FRESH
        {
            return found.clone();
        }
        let last = cache.last.clone();
        let found = Known::find(desk, last.as_deref()).await.map(Arc::new).map_err(|problem| problem.status);
        if let Ok(known) = &found {
            cache.last = Some(Arc::clone(known));
        }
        cache.found = Some((desk.link.clock.now().mono, found.clone()));
        found
    }

    /// Somebody has said something: the next reader sees it.
    async fn forget(&self) {
        self.0.known.lock().await.found = None;
    }

    fn takes(&self, from: &Way, now: Mono) -> bool {
        let mut spent = self.0.spent.lock().unwrap_or_else(PoisonError::into_inner);
        spent.takes(&counted_as(from.address), now)
    }
}

/// Nobody need sign in; where the page is off there is nothing.
pub(super) fn routes() -> Routes<Desk> {
    Routes::new()
        .route("/residents", get(Right::Anybody, show).gives("text/html"))
        .route(
            "/residents",
            post(Right::Anybody, Against::Repeats, take).takes("application/x-www-form-urlencoded").gives("text/html"),
        )
        .route("/residents.css", get(Right::Anybody, style).gives("text/css"))
        .route("/residents/say", get(Right::Anybody, say).gives("text/html"))
        .route("/residents/sent/{once}", get(Right::Anybody, sent).gives("text/html"))
}

/// As an address at which nothing is.
fn nothing() -> Problem {
    Problem::not_found("没有这个地址", "there is nothing at this address")
}

fn open(desk: &Desk) -> Result<(), Problem> {
    if desk.residents.settings().enabled { Ok(()) } else { Err(nothing()) }
}

fn open_for_help(desk: &Desk) -> Result<(), Problem> {
    if desk.residents.settings().help { open(desk) } else { Err(nothing()) }
}

async fn style(State(desk): State<Desk>) -> Result<Response, Problem> {
    open(&desk)?;
    Ok(([(header::CONTENT_TYPE, "text/css; charset=utf-8")], STYLE).into_response())
}

/// In which language the page speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lang {
    Zh,
    En,
}

impl Lang {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Zh => "zh",
            Self::En => "en",
        }
    }

    fn named(word: &str) -> Option<Self> {
        match word {
            "zh" => Some(Self::Zh),
            "en" => Some(Self::En),
            _ => None,
        }
    }

    /// As chosen, else the one of both that the browser likes better (RFC 9110 section 12.5.4); English for who reads neither.
    fn of(chosen: Option<&str>, headers: &HeaderMap) -> Self {
        if let Some(chosen) = chosen.and_then(Self::named) {
            return chosen;
        }
        let liked = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let mut best: Option<(f32, Self)> = None;
        for range in liked.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let tag = parts.next().unwrap_or_default().to_ascii_lowercase();
            let q = parts.find_map(|part| part.strip_prefix("q=")?.parse().ok()).unwrap_or(1.0_f32);
            let lang = match tag.split('-').next() {
                Some("zh" | "*") => Self::Zh,
                Some("en") => Self::En,
                _ => continue,
            };
            if q > 0.0 && best.is_none_or(|(least, _)| q > least) {
                best = Some((q, lang));
            }
        }
        let usual = if liked.trim().is_empty() { Self::Zh } else { Self::En };
        best.map_or(usual, |(_, lang)| lang)
    }

    fn say<'t>(self, zh: &'t str, en: &'t str) -> &'t str {
        match self {
            Self::Zh => zh,
            Self::En => en,
        }
    }

    fn text(self, text: &Text) -> &str {
        self.say(&text.zh, &text.en)
    }
}

/// What stands behind the address.
#[derive(Debug, Default)]
struct Asked {
    lang: Option<String>,
    at: String,
    still: bool,
    safe: bool,
}

impl Asked {
    fn of(uri: &Uri) -> Self {
        let mut asked = Self::default();
        for (key, value) in url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            match &*key {
                "lang" => asked.lang = Some(value.into_owned()),
                "at" => asked.at = value.chars().take(64).collect(),
                "still" => asked.still = true,
                "safe" => asked.safe = true,
                _ => {}
            }
        }
        asked
    }
}

async fn show(State(desk): State<Desk>, request: Request) -> Result<Response, Problem> {
    open(&desk)?;
    let asked = Asked::of(request.uri());
    let lang = Lang::of(asked.lang.as_deref(), request.headers());
    let writer = html::Writer::new(&desk, lang, asked.at);
    let known = desk.residents.known(&desk).await;
    let status = known.as_ref().err().copied().unwrap_or(StatusCode::OK);
    let mut response = answer(status, &writer.notices(known.as_deref().ok(), asked.still));
    if !asked.still {
        // As a header, so that whoever wants it to stand still can have it so by the link.
        let again = format!("{}; url={}", html::EVERY.as_secs(), writer.address("/residents"));
        let again = HeaderValue::from_str(&again).expect("an address is encoded");
        response.headers_mut().insert(header::REFRESH, again);
    }
    Ok(response)
}

async fn say(State(desk): State<Desk>, request: Request) -> Result<Response, Problem> {
    open_for_help(&desk)?;
    let asked = Asked::of(request.uri());
    let lang = Lang::of(asked.lang.as_deref(), request.headers());
    let writer = html::Writer::new(&desk, lang, asked.at);
    let known = desk.residents.known(&desk).await;
    let spot = known.as_ref().ok().and_then(|known| known.spot(&writer.at));
    let form = Form {
        once: new_once(),
        need: if asked.safe { "safe".to_owned() } else { String::new() },
        building: spot.map(|spot| spot.building).unwrap_or_default(),
        ..Form::default()
    };
    Ok(answer(StatusCode::OK, &writer.form(known.as_deref().ok(), &form, asked.safe, &[])))
}

/// What somebody fills in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Form {
    /// Made with the form: the same form sent twice is one message.
    once: String,
    need: String,
    building: String,
    room: String,
    said: String,
    phone: String,
}

impl Form {
    /// Also says in which language, and whether it was the form of those who are safe.
    fn read(bytes: &[u8]) -> (Self, Option<String>, bool) {
        let (mut form, mut lang, mut safe) = (Self::default(), None, false);
        for (key, value) in url::form_urlencoded::parse(bytes) {
            // On one line; what would be a formula in a spreadsheet is put in brackets.
            let value = value.replace(char::is_control, " ");
            let value = value.trim();
            let free = match value.chars().next() {
                Some('=' | '@' | '+' | '-' | '＝' | '＠' | '＋' | '－') => format!("({value})"),
                _ => value.to_owned(),
            };
            match &*key {
                "once" => form.once = value.to_owned(),
                "need" => form.need = value.to_owned(),
                "building" => form.building = value.to_owned(),
                "room" => form.room = free,
                "said" => form.said = free,
                "phone" => form.phone = value.to_owned(),
                "lang" => lang = Some(value.to_owned()),
                "safe" => safe = true,
                _ => {}
            }
        }
        (form, lang, safe)
    }

    /// The row of the register, or what is wrong, each for a field.
    fn row(&self, known: &Known, at: &str) -> Result<Row, Vec<(&'static str, Text)>> {
        let text = |zh: &str, en: &str| Text { zh: zh.to_owned(), en: en.to_owned() };
        let mut faults = Vec::new();
        if !NEEDS.iter().any(|(word, _)| *word == self.need) {
            faults.push(("need", text("请选择需要什么帮助", "Choose what help you need")));
        }
        if !self.building.is_empty() && !known.buildings.contains_key(&self.building) {
            faults.push(("building", text("请从列表中选择楼栋", "Choose a building of the list")));
        }
        if self.building.is_empty() && self.room.is_empty() {
            faults.push(("room", text("请写明您在哪里", "Say where you are")));
        }
        let grid = known.buildings.get(&self.building).and_then(|grids| grids.first()).cloned().unwrap_or_default();
        let state = if self.need == "safe" { "done" } else { "new" };
        let cells = [
            ("id", id_of(&self.once)),
            ("state", state.to_owned()),
            ("need", self.need.clone()),
            ("building", self.building.clone()),
            ("grid", grid),
            ("room", self.room.clone()),
            ("said", self.said.clone()),
            ("phone", self.phone.clone()),
            ("at", at.to_owned()),
        ];
        let read = Row::read(Kind::Help, &cells.into_iter().map(|(name, cell)| (name.to_owned(), cell)).collect());
        for fault in read.as_ref().err().into_iter().flatten() {
            match &*fault.column {
                "room" => faults
                    .push(("room", text("位置太长：最多 64 个字", "The place is too long: 64 characters at most"))),
                "said" => {
                    faults.push(("said", text("说明太长：最多 200 个字", "That is too long: 200 characters at most")))
                }
                "phone" => faults.push(("phone", text("电话只能是数字", "A telephone number has digits only"))),
                _ => {}
            }
        }
        match read {
            Ok(row) if faults.is_empty() => Ok(row),
            _ => Err(faults),
        }
    }
}

fn id_of(once: &str) -> String {
    format!("r-{once}")
}

/// The mark of a new form: nobody can guess another's.
fn new_once() -> String {
    let mut once = secret::token();
    once.truncate(ONCE);
    once
}

fn is_once(once: &str) -> bool {
    once.len() == ONCE && once.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

async fn take(State(desk): State<Desk>, Visitor(from): Visitor, request: Request) -> Result<Response, Problem> {
    open_for_help(&desk)?;
    let headers = request.headers().clone();
    let read = axum::body::to_bytes(request.into_body(), MOST_FORM);
    let read = tokio::time::timeout(FORM_WITHIN, read).await;
    let bytes = read.ok().and_then(Result::ok);
    let (form, lang, safe) = bytes.as_deref().map(Form::read).unwrap_or_default();
    let writer = html::Writer::new(&desk, Lang::of(lang.as_deref(), &headers), form.building.clone());
    if bytes.is_none() || !is_once(&form.once) {
        return Ok(answer(
            StatusCode::BAD_REQUEST,
            &writer.said("提交的内容不完整，请返回重新填写", "What was sent is not whole: go back and send it again"),
        ));
    }
    let now = desk.link.clock.now();
    if !desk.residents.takes(&from, now.mono) {
        return Ok(too_much(&writer));
    }
    let Ok(known) = desk.residents.known(&desk).await else { return Ok(not_taken(&writer)) };
    let row = match form.row(&known, &moment(now.wall, &desk.link.site.time_zone)) {
        Ok(row) => row,
        Err(faults) => return Ok(answer(StatusCode::BAD_REQUEST, &writer.form(Some(&known), &form, safe, &faults))),
    };
    let only = Arc::clone(&desk.keeping).lock_owned().await;
    let Ok(rows) = desk.archive(|archive| archive.register(Kind::Help)).await else { return Ok(not_taken(&writer)) };
    if !rows.iter().any(|kept| kept.id() == row.id()) {
        let is_safe = |row: &Row| row.cell("need") == "safe";
        let (safe, open) = (
            rows.iter().filter(|row| is_safe(row)).count(),
            rows.iter().filter(|row| !is_safe(row) && row.cell("state") != "done").count(),
        );
        if if is_safe(&row) { safe >= MOST_SAFE } else { open >= MOST_OPEN } {
            return Ok(too_much(&writer));
        }
        let what = if is_safe(&row) { "residents.safe" } else { "residents.help" };
        // Neither who nor from where: whoever reads the audit need not know.
        let deed = Deed {
            who: "resident".to_owned(),
            from: Way::of(Through::Page),
            about: Kind::Help.as_str().to_owned(),
            ..Deed::of_anmin(now.wall, what, json!({ "rows": [row.id()] }))
        };
        if registers::commit(&desk, only, deed, vec![Change::Row(row)]).await.is_err() {
            return Ok(not_taken(&writer));
        }
        desk.residents.forget().await;
    }
    // Behind another address, so that to look again sends nothing again.
    let back = writer.address(&format!("/residents/sent/{}", form.once));
    let back = HeaderValue::from_str(&back).expect("an address is encoded");
    let mut response = answer(StatusCode::SEE_OTHER, "");
    response.headers_mut().insert(header::LOCATION, back);
    Ok(response)
}

fn too_much(writer: &html::Writer<'_>) -> Response {
    let (zh, en) = (
        "收到的消息太多，本条没有记下。有危险请立即打电话。",
        "Too many messages come in: this one was not taken. If you are in danger, phone at once.",
    );
    answer(StatusCode::TOO_MANY_REQUESTS, &writer.said(zh, en))
}

fn not_taken(writer: &html::Writer<'_>) -> Response {
    let (zh, en) = (
        "系统暂时无法记录，本条没有记下。有危险请立即打电话。",
        "It could not be written down just now. If you are in danger, phone at once.",
    );
    answer(StatusCode::SERVICE_UNAVAILABLE, &writer.said(zh, en))
}

async fn sent(State(desk): State<Desk>, Path(once): Path<String>, request: Request) -> Result<Response, Problem> {
    open_for_help(&desk)?;
    let asked = Asked::of(request.uri());
    let lang = Lang::of(asked.lang.as_deref(), request.headers());
    let writer = html::Writer::new(&desk, lang, asked.at);
    let Ok(known) = desk.residents.known(&desk).await else {
        let (zh, en) = ("暂时无法查询，请稍后再看", "It cannot be looked up just now: look again in a moment");
        return Ok(answer(StatusCode::SERVICE_UNAVAILABLE, &writer.said(zh, en)));
    };
    match known.calls.get(&id_of(&once)).filter(|_| is_once(&once)) {
        Some(state) => Ok(answer(StatusCode::OK, &writer.sent(state, &once))),
        None => {
            let (zh, en) = ("没有这条消息，或已处理完并删除", "There is no such message, or it is done with and gone");
            Ok(answer(StatusCode::NOT_FOUND, &writer.said(zh, en)))
        }
    }
}

fn answer(status: StatusCode, html: &str) -> Response {
    let mut response = (status, Body::from(html.to_owned())).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    // A browser names the page that sends a form only where it may name it to its own site.
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(header::VARY, HeaderValue::from_static("Accept-Language"));
    response
}

#[cfg(test)]
mod tests;
