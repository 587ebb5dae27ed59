//! Which warnings of others are in force for this place: a pure book of messages.
//!
//! A message is known by (identifier, sender, sent) and taken once. Update and Cancel end what they refer to, in whatever
//! order the two arrive: a message stays known until its time is over, so that one that comes late does not come back to
//! life. What a message says counts for us when an area of it holds our area code, or one of our places; where it names
//! neither shape nor code that we understand, we cannot say that it is not for us, and it is taken.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anmin_rules::rule::{Level, Text};
use anmin_sensors::point::{Hazard, Place};
use anmin_sensors::time::Wall;

use super::message::{Area, Info, Key, Kind, Message, Severity, Status};

/// For a message that says no end of its own (CAP 1.2: the receiver's policy).
const HOLDS: Duration = Duration::from_secs(86_400);
/// A message of the future by more than this is of a wrong clock.
const AHEAD: Duration = Duration::from_secs(3_600);
/// Messages that are known at most. When it is full one goes that is ended already, then the least grave, then the one that
/// ends first: what floods us with small talk hides nothing grave.
const MOST: usize = 1_000;

/// Where we are.
#[derive(Clone, Debug, Default)]
pub struct Here {
    /// 12 digits (GB/T 2260 and its extension).
    pub area_code: Option<String>,
    /// Latitude and longitude of our places, in degrees.
    pub places: Vec<(f64, f64)>,
}

impl Here {
    pub fn new<'p>(area_code: Option<&str>, places: impl IntoIterator<Item = &'p Arc<Place>>) -> Self {
        let ours = |place: &Place| place.position.into_iter().chain(place.polygon.iter().copied()).collect::<Vec<_>>();
        let places = places.into_iter().flat_map(|place| ours(place)).collect();
        Self { area_code: area_code.map(str::to_owned), places }
    }

    fn is_in(&self, message: &Message) -> bool {
        let areas: Vec<&Area> = message.infos.iter().flat_map(|info| &info.areas).collect();
        let mut understood = false;
        for area in &areas {
            for (_, code) in &area.geocodes {
                let Some((ours, theirs)) = self.area_code.as_deref().zip(stem(code)) else { continue };
                understood = true;
                if ours.starts_with(theirs) || theirs.starts_with(ours) {
                    return true;
                }
            }
            let shapes = !area.polygons.is_empty() || !area.circles.is_empty();
            understood |= shapes && !self.places.is_empty();
            let inside = |place: &(f64, f64)| {
                area.polygons.iter().any(|corners| is_within(*place, corners))
                    || area.circles.iter().any(|(centre, km)| distance_km(*place, *centre) <= *km)
            };
            if self.places.iter().any(inside) {
                return true;
            }
        }
        !understood
    }
}

/// The digits of a Chinese area code that say something: province 2, prefecture 4, county 6, township 9, village 12.
fn stem(code: &str) -> Option<&str> {
    let digits = [2, 4, 6, 9, 12, 14].contains(&code.len()) && code.bytes().all(|b| b.is_ascii_digit());
    if !digits {
        return None;
    }
    let code = code.get(..12).unwrap_or(code);
    let ends = [2, 4, 6, 9, 12].into_iter().filter(|end| *end <= code.len());
    let end = ends.into_iter().find(|end| code[*end..].bytes().all(|b| b == b'0'))?;
    Some(&code[..end])
}

/// Whether a ray to the east crosses the sides an odd number of times.
fn is_within((lat, lon): (f64, f64), corners: &[(f64, f64)]) -> bool {
    let crossed = |pair: &[(f64, f64)]| {
        let ((lat_a, lon_a), (lat_b, lon_b)) = (pair[0], pair[1]);
        (lat_a > lat) != (lat_b > lat) && lon < (lon_b - lon_a) * (lat - lat_a) / (lat_b - lat_a) + lon_a
    };
    corners.windows(2).filter(|pair| crossed(pair)).count() % 2 == 1
}

fn distance_km((lat_a, lon_a): (f64, f64), (lat_b, lon_b): (f64, f64)) -> f64 {
    let (a, b) = (lat_a.to_radians(), lat_b.to_radians());
    let (lat, lon) = ((b - a) / 2.0, (lon_b - lon_a).to_radians() / 2.0);
    let half = lat.sin().powi(2) + a.cos() * b.cos() * lon.sin().powi(2);
    2.0 * 6_371.0 * half.sqrt().min(1.0).asin()
}

/// A warning in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Warning {
    /// The id of the source by which it came.
    pub source: Arc<str>,
    /// Of the first message of the chain: stays while it is updated.
    pub root: Key,
    pub message: Message,
    pub level: Level,
    pub until: Wall,
    pub hazards: Vec<Hazard>,
}

impl Warning {
    /// A field in both languages, the one for the other where only one is given.
    fn text(&self, field: impl Fn(&Info) -> &str) -> Text {
        let of = |zh: bool| {
            let infos = self.message.infos.iter().filter(|info| info.language.starts_with("zh") == zh);
            infos.map(&field).find(|text| !text.is_empty()).map(str::to_owned)
        };
        match (of(true), of(false)) {
            (Some(zh), Some(en)) => Text { zh, en },
            (Some(one), None) | (None, Some(one)) => Text::both(one),
            (None, None) => Text::default(),
        }
    }

    pub fn event(&self) -> Text {
        self.text(|info| &info.event)
    }

    /// The headline, or what it is about where it has none.
    pub fn headline(&self) -> Text {
        self.text(|info| if info.headline.is_empty() { &info.event } else { &info.headline })
    }

    pub fn description(&self) -> Text {
        self.text(|info| &info.description)
    }

    pub fn instruction(&self) -> Text {
        self.text(|info| &info.instruction)
    }

    pub fn sender_name(&self) -> Text {
        let named = self.text(|info| &info.sender_name);
        if named == Text::default() { Text::both(self.message.key.sender.clone()) } else { named }
    }

    pub fn area(&self) -> Text {
        self.text(|info| info.areas.first().map_or("", |area| &area.desc))
    }

    pub fn is_exercise(&self) -> bool {
        self.message.status == Status::Exercise
    }
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is in force, or has ended what it refers to.
    New,
    /// It is known.
    Repeated,
    /// Its area is not ours.
    Elsewhere,
    /// Its time is over, or another has taken its place before it came.
    Over,
    /// A test, a draft, or talk of the network: nothing follows from it.
    NotForPeople,
    /// It was sent in the future: the clock of its sender or ours is wrong.
    FromTheFuture,
}

impl Taken {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Repeated => "repeated",
            Self::Elsewhere => "elsewhere",
            Self::Over => "over",
            Self::NotForPeople => "not_for_people",
            Self::FromTheFuture => "from_the_future",
        }
    }
}

/// All messages that are known.
#[derive(Debug, Default)]
pub struct Book {
    here: Here,
    known: BTreeMap<Key, Entry>,
    /// Had to go although their time was not over, and not told yet.
    pushed_out: Vec<(Arc<str>, Key)>,
}

#[derive(Debug)]
struct Entry {
    warning: Warning,
    /// Another message has taken its place.
    ended: bool,
}

impl Book {
    pub fn new(here: Here) -> Self {
        Self { here, ..Self::default() }
    }

    /// From now on this is where we are.
    pub fn settle(&mut self, here: Here) {
        self.here = here;
    }

    pub fn take(&mut self, now: Wall, source: &Arc<str>, message: Message) -> Taken {
        if self.known.contains_key(&message.key) {
            return Taken::Repeated;
        }
        if message.key.sent > now.plus(AHEAD) {
            return Taken::FromTheFuture;
        }
        let people = matches!(message.status, Status::Actual | Status::Exercise);
        if !people || matches!(message.kind, Kind::Ack | Kind::Error) {
            return Taken::NotForPeople;
        }
        let until = message.infos.iter().filter_map(|info| info.expires).max();
        let until = until.unwrap_or_else(|| message.key.sent.plus(HOLDS));
        // A Cancel is remembered as long as what it cancels may come late.
        let until = if message.kind == Kind::Cancel { until.max(message.key.sent.plus(HOLDS)) } else { until };
        if until <= now {
            return Taken::Over;
        }
        if message.kind != Kind::Cancel && !self.here.is_in(&message) {
            // An Update may take a warning away from here.
            self.end(source, &message);
            return Taken::Elsewhere;
        }
        let ended = message.kind == Kind::Cancel || self.is_ended(source, &message);
        let root = self.root_of(&message);
        self.end(source, &message);
        let kind = message.kind;
        let warning = Warning {
            source: Arc::clone(source),
            root,
            level: level(&message),
            until,
            hazards: hazards(&message),
            message,
        };
        self.known.insert(warning.message.key.clone(), Entry { warning, ended });
        if self.known.len() > MOST
            && let Some(least) = self.known.values().min_by_key(|entry| {
                let Entry { warning, ended } = entry;
                (!ended, warning.level, warning.until)
            })
        {
            let (source, key) = (Arc::clone(&least.warning.source), least.warning.message.key.clone());
            self.known.remove(&key);
            self.pushed_out.push((source, key));
        }
        if ended && kind != Kind::Cancel { Taken::Over } else { Taken::New }
    }

    fn end(&mut self, source: &Arc<str>, by: &Message) {
        for earlier in &by.references {
            if let Some(entry) = self.known.get_mut(earlier).filter(|entry| {
                entry.warning.message.status == by.status && may_end(source, by, &entry.warning.source, earlier)
            }) {
                entry.ended = true;
            }
        }
    }

    /// Whether a message that came before it has taken its place.
    fn is_ended(&self, source: &Arc<str>, message: &Message) -> bool {
        self.known.values().any(|entry| {
            let later = &entry.warning.message;
            later.status == message.status
                && later.references.contains(&message.key)
                && may_end(&entry.warning.source, later, source, &message.key)
        })
    }

    fn root_of(&self, message: &Message) -> Key {
        let known = message.references.iter().filter_map(|earlier| self.known.get(earlier));
        let oldest = known.map(|entry| &entry.warning.root).min_by_key(|root| root.sent);
        let named = message.references.iter().min_by_key(|earlier| earlier.sent);
        oldest.or(named).unwrap_or(&message.key).clone()
    }

    /// In force at this moment, the gravest first.
    pub fn in_force(&self, now: Wall) -> Vec<Warning> {
        let holds = |entry: &&Entry| !entry.ended && entry.warning.until > now;
        let mut found: Vec<Warning> = self.known.values().filter(holds).map(|entry| entry.warning.clone()).collect();
        found.sort_by_key(|warning| (std::cmp::Reverse(warning.level), warning.message.key.sent));
        found
    }

    /// Forgets what is over; gives the source and key of each, and of what had to go before.
    pub fn forget(&mut self, now: Wall) -> Vec<(Arc<str>, Key)> {
        let is_over = |entry: &Entry| entry.warning.until <= now;
        let over = self.known.iter().filter(|(_, entry)| is_over(entry));
        let mut gone = std::mem::take(&mut self.pushed_out);
        gone.extend(over.map(|(key, entry)| (Arc::clone(&entry.warning.source), key.clone())));
        self.known.retain(|_, entry| !is_over(entry));
        gone
    }

    /// When the next one is over.
    pub fn poll_timeout(&self) -> Option<Wall> {
        self.known.values().map(|entry| entry.warning.until).min()
    }
}

/// The colours of the four levels stand for these severities, by common practice. An exercise calls nobody out.
fn level(message: &Message) -> Level {
    let severity = message.infos.iter().filter_map(|info| info.severity).max().unwrap_or(Severity::Unknown);
    match severity {
        _ if message.status == Status::Exercise => Level::Blue,
        Severity::Extreme => Level::Red,
        Severity::Severe => Level::Orange,
        Severity::Moderate => Level::Yellow,
        Severity::Minor | Severity::Unknown => Level::Blue,
    }
}

/// Words of events, and what may happen here because of them.
const WORDS: [(&[&str], &[Hazard]); 6] = [
    (&["雨", "洪", "涝", "积水", "台风", "rain", "flood", "typhoon", "storm surge"], &[Hazard::Flood]),
    (&["滑坡", "泥石流", "地质", "地震", "崩塌", "landslide", "earthquake", "mudslide"], &[Hazard::Ground]),
    (&["地震", "earthquake", "燃气", "gas"], &[Hazard::Gas]),
    (&["火", "干旱", "fire"], &[Hazard::Fire]),
    (&["雷", "大风", "冰", "停电", "thunder", "lightning", "wind", "power", "ice storm"], &[Hazard::Power]),
    (&["高温", "寒潮", "低温", "霾", "heat", "cold", "smog"], &[Hazard::Care]),
];

fn hazards(message: &Message) -> Vec<Hazard> {
    let texts: Vec<String> = message.infos.iter().map(|info| info.event.to_lowercase()).collect();
    let mut found: Vec<Hazard> = Vec::new();
    for (words, hazards) in WORDS {
        if words.iter().any(|word| texts.iter().any(|text| text.contains(word))) {
            found.extend(hazards);
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// An office ends its own warnings, by whatever way they come, and a source what it has brought; nobody ends another's.
fn may_end(source: &Arc<str>, by: &Message, of: &Arc<str>, earlier: &Key) -> bool {
    source == of || by.key.sender == earlier.sender
}

#[cfg(test)]
mod tests {
    use super::super::message::{self, tests::RAIN};
    use super::*;
    use crate::samples::RAISED;

    fn here() -> Here {
        Here { area_code: Some("620102001001".to_owned()), places: vec![(36.0611, 103.8343)] }
    }

    fn source() -> Arc<str> {
        "county".into()
    }

    fn later(minutes: u64) -> Wall {
        RAISED.plus(Duration::from_secs(60 * minutes))
    }

    fn stamp(minutes: u64) -> String {
        format!("2026-03-01T{:02}:{:02}:00+08:00", 9 + (30 + minutes) / 60, (30 + minutes) % 60)
    }

    /// A message like the sample: its number, minutes after the first, kind, severity, numbers it refers to.
    fn said(n: u64, kind: &str, severity: &str, references: &[u64]) -> Message {
        let id = |n: u64| format!("W{n}");
        let refers = references.iter().map(|n| format!("qx@warn.example.cn,{},{}", id(*n), stamp(*n)));
        let refers = refers.collect::<Vec<_>>().join(" ");
        let refers = if refers.is_empty() { String::new() } else { format!("<references>{refers}</references>") };
        let text = RAIN
            .replace("62010241600000_20260301093000_1", &id(n))
            .replace("<sent>2026-03-01T09:30:00+08:00", &format!("<sent>{}", stamp(n)))
            .replace("Severe", severity)
            .replace("<msgType>Alert", &format!("<msgType>{kind}"))
            .replace("<scope>Public</scope>", &format!("<scope>Public</scope>{refers}"));
        message::read(text.as_bytes()).expect("it is sound")
    }

    fn holds(book: &Book, minutes: u64) -> Vec<(String, Level)> {
        let all = book.in_force(later(minutes)).into_iter();
        all.map(|warning| (warning.message.key.identifier, warning.level)).collect()
    }

    #[test]
    fn a_warning_is_taken_once_updated_cancelled_and_leaves_by_itself() {
        let mut book = Book::new(here());
        let take = |book: &mut Book, message| book.take(later(5), &source(), message);
        assert_eq!(take(&mut book, said(1, "Alert", "Severe", &[])), Taken::New);
        assert_eq!(take(&mut book, said(1, "Alert", "Severe", &[])), Taken::Repeated);
        assert_eq!(holds(&book, 5), [("W1".to_owned(), Level::Orange)]);
        assert_eq!(take(&mut book, said(2, "Update", "Extreme", &[1])), Taken::New);
        assert_eq!(holds(&book, 5), [("W2".to_owned(), Level::Red)]);
        assert_eq!(book.in_force(later(5))[0].root.identifier, "W1", "its alarm stays the same");
        assert_eq!(holds(&book, 359), [("W2".to_owned(), Level::Red)]);
        assert_eq!(holds(&book, 360), [], "it is over");
        assert_eq!(take(&mut book, said(3, "Cancel", "Extreme", &[1, 2])), Taken::New);
        assert_eq!(holds(&book, 5), []);
        assert_eq!(book.forget(later(360)).len(), 2, "a Cancel is known for a day");
    }

    #[test]
    fn nobody_ends_what_another_office_has_said_by_another_source() {
        let stranger = |kind: &str| {
            let mut message = said(2, kind, "Minor", &[1]);
            message.key.sender = "somebody@else.example".to_owned();
            message
        };
        for (source_of_it, message, left) in [
            ("town", stranger("Cancel"), vec!["W1"]),
            ("town", stranger("Update"), vec!["W1", "W2"]),
            // The same office by another way, and the same way by whatever name.
            ("town", said(2, "Cancel", "Minor", &[1]), vec![]),
            ("county", stranger("Cancel"), vec![]),
        ] {
            for comes_first in [true, false] {
                let mut book = Book::new(here());
                let alert = said(1, "Alert", "Severe", &[]);
                let mut both = [(source(), alert), (source_of_it.into(), message.clone())];
                if !comes_first {
                    both.reverse();
                }
                for (source, message) in both {
                    book.take(later(5), &source, message);
                }
                let mut holds: Vec<String> = holds(&book, 5).into_iter().map(|(id, _)| id).collect();
                holds.sort();
                assert_eq!(holds, left, "{source_of_it} {:?} {comes_first}", message.kind);
            }
        }
    }

    #[test]
    fn what_comes_late_does_not_come_back_to_life() {
        let mut book = Book::new(here());
        for (message, taken) in [
            (said(3, "Update", "Moderate", &[1, 2]), Taken::New),
            (said(1, "Alert", "Severe", &[]), Taken::Over),
            (said(2, "Update", "Extreme", &[1]), Taken::Over),
        ] {
            assert_eq!(book.take(later(5), &source(), message), taken);
        }
        assert_eq!(holds(&book, 5), [("W3".to_owned(), Level::Yellow)]);
        let mut book = Book::new(here());
        book.take(later(5), &source(), said(2, "Cancel", "Severe", &[1]));
        assert_eq!(book.take(later(5), &source(), said(1, "Alert", "Severe", &[])), Taken::Over);
        assert_eq!(holds(&book, 5), []);
    }

    #[test]
    fn a_flood_of_small_warnings_pushes_out_none_that_is_grave() {
        let mut book = Book::new(here());
        book.take(later(5), &source(), said(1, "Alert", "Extreme", &[]));
        let small = said(2, "Alert", "Minor", &[]);
        for n in 0..MOST + 5 {
            let mut message = small.clone();
            message.key.identifier = format!("S{n}");
            message.infos.iter_mut().for_each(|info| info.expires = Some(later(1_000)));
            assert_eq!(book.take(later(5), &source(), message), Taken::New);
        }
        let found = holds(&book, 5);
        assert_eq!(
            (found.len(), &found[0]),
            (MOST, &("W1".to_owned(), Level::Red)),
            "although it is the first to be over"
        );
        let gone = book.forget(later(5));
        assert_eq!(gone.len(), 6, "whoever keeps them hears which had to go");
        assert!(gone.iter().all(|(_, key)| key.identifier.starts_with('S')));
        assert_eq!(book.forget(later(5)), []);
    }

    #[test]
    fn tests_exercises_and_wrong_clocks_call_nobody_out() {
        let with = |status: &str| {
            let text = RAIN.replace("<status>Actual", &format!("<status>{status}"));
            message::read(text.as_bytes()).expect("it is sound")
        };
        let mut book = Book::new(here());
        for status in ["Test", "System", "Draft"] {
            assert_eq!(book.take(later(5), &source(), with(status)), Taken::NotForPeople, "{status}");
        }
        let early = Wall::from_millis(RAISED.millis() - 7_200_000);
        assert_eq!(book.take(early, &source(), said(1, "Alert", "Extreme", &[])), Taken::FromTheFuture);
        assert_eq!(book.take(later(5), &source(), with("Exercise")), Taken::New);
        let found = book.in_force(later(5));
        assert_eq!((found[0].level, found[0].is_exercise()), (Level::Blue, true));
        assert_eq!(found[0].hazards, [Hazard::Flood]);
        assert_eq!(found[0].headline().en, "Orange rainstorm warning for Example County");
        assert_eq!(found[0].sender_name(), Text::both("示例县气象台".to_owned()));
    }

    #[test]
    fn a_warning_counts_where_its_codes_or_shapes_hold_us() {
        let elsewhere = "<polygon>30.0,100.0 30.1,100.0 30.1,100.1 30.0,100.0</polygon>";
        let (polygon, circle) = (
            "<polygon>36.0,103.7 36.2,103.7 36.2,103.9 36.0,103.9 36.0,103.7</polygon>",
            "<circle>36.06,103.83 12.5</circle>",
        );
        let code = |value: &str| format!("<geocode><valueName>x</valueName><value>{value}</value></geocode>");
        for (area, ours) in [
            (String::new(), true),
            (polygon.to_owned(), true),
            (circle.to_owned(), true),
            (elsewhere.to_owned(), false),
            ("<circle>30,100 10</circle>".to_owned(), false),
            (code("620000000000"), true),
            (code("620102"), true),
            (code("620102001000"), true),
            (code("620102001001"), true),
            (code("620102002"), false),
            (code("110000"), false),
            // Of a scheme that we do not know: nobody can say that it is not for us.
            (code("OHZ005"), true),
            (format!("{elsewhere}{}", code("OHZ005")), false),
            (format!("{elsewhere}{}", code("62")), true),
        ] {
            let start = RAIN.find("<polygon>").expect("the sample has one");
            let end = RAIN.find("</geocode>").expect("the sample has one") + "</geocode>".len();
            let text = format!("{}{area}{}", &RAIN[..start], &RAIN[end..]).replace(circle, "");
            let text =
                if area == circle { text.replacen("</areaDesc>", &format!("</areaDesc>{circle}"), 1) } else { text };
            let message = message::read(text.as_bytes()).expect("it is sound");
            let taken = Book::new(here()).take(later(5), &source(), message.clone());
            assert_eq!(taken, if ours { Taken::New } else { Taken::Elsewhere }, "{area}");
            let nowhere = Book::new(Here::default()).take(later(5), &source(), message);
            assert_eq!(nowhere, Taken::New, "who does not say where it is hears of all");
        }
    }

    #[test]
    fn a_place_that_is_added_counts_for_what_comes_from_then_on() {
        let place = |position| Arc::new(Place { position: Some(position), ..Place::default() });
        let message = message::read(RAIN.as_bytes()).expect("it is sound");
        let mut book = Book::new(Here::new(None, [&place((20.0, 110.0))]));
        assert_eq!(book.take(later(5), &source(), message.clone()), Taken::Elsewhere);
        book.settle(Here::new(None, [&place((20.0, 110.0)), &place((36.0611, 103.8343))]));
        assert_eq!(book.take(later(6), &source(), message), Taken::New);
    }
}
