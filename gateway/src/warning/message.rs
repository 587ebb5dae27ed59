//! CAP 1.2 messages and feeds of others, read with distrust.
//!
//! A message is refused whole, with everything that is wrong with it, unless it is CAP 1.2 by the schema and by the rules that
//! a schema cannot say: times, references, shapes, what goes with which scope. Document types are refused, so there are no
//! entities but the five of XML and numbered characters; encodings other than UTF-8, too; size, depth and number of elements
//! are bounded. Signatures are not checked: a source is believed for the way by which it comes.

use std::fmt;

use anmin_sensors::time::Wall;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::{BytesStart, Event};
use quick_xml::name::ResolveResult;
use quick_xml::reader::NsReader;

const CAP: &str = "urn:oasis:names:tc:emergency:cap:1.2";
/// Any CAP: of another version it is told so.
const ANY_CAP: &str = "urn:oasis:names:tc:emergency:cap:";
const SIGNATURE: &str = "http://www.w3.org/2000/09/xmldsig#";

/// Largest message and largest feed, in bytes.
pub const MOST_MESSAGE: usize = 256 << 10;
pub const MOST_FEED: usize = 1 << 20;
const MOST_DEPTH: usize = 32;
const MOST_ELEMENTS: usize = 20_000;
/// Corners of one shape: a country's coast has fewer.
const MOST_CORNERS: usize = 2_000;
/// Faults that are told one by one.
const MOST_FAULTS: usize = 10;

/// Who said what when: what tells two messages apart (CAP 1.2 section 3.2.1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub identifier: String,
    pub sender: String,
    pub sent: Wall,
}

/// As `references` writes it.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{},{}", self.sender, self.identifier, self.sent.millis())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Actual,
    Exercise,
    System,
    Test,
    Draft,
}

impl Status {
    const ALL: [(&'static str, Self); 5] = [
        ("Actual", Self::Actual),
        ("Exercise", Self::Exercise),
        ("System", Self::System),
        ("Test", Self::Test),
        ("Draft", Self::Draft),
    ];

    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, one)| *one == self).map_or("", |(word, _)| word)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Alert,
    Update,
    Cancel,
    Ack,
    Error,
}

impl Kind {
    const ALL: [(&'static str, Self); 5] = [
        ("Alert", Self::Alert),
        ("Update", Self::Update),
        ("Cancel", Self::Cancel),
        ("Ack", Self::Ack),
        ("Error", Self::Error),
    ];
}

/// From the least to the gravest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Unknown,
    Minor,
    Moderate,
    Severe,
    Extreme,
}

impl Severity {
    const ALL: [(&'static str, Self); 5] = [
        ("Extreme", Self::Extreme),
        ("Severe", Self::Severe),
        ("Moderate", Self::Moderate),
        ("Minor", Self::Minor),
        ("Unknown", Self::Unknown),
    ];
}

/// One message, sound.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub key: Key,
    /// The time of `key` as it was written: what refers to this message repeats it.
    pub sent: String,
    pub status: Status,
    pub kind: Kind,
    /// For everybody (`scope` Public), not for those alone whom it names.
    pub public: bool,
    pub note: String,
    /// The messages that it is about.
    pub references: Vec<Key>,
    pub infos: Vec<Info>,
}

/// What is said in one language.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Info {
    /// `en-US` where it says none.
    pub language: String,
    pub categories: Vec<String>,
    pub event: String,
    pub severity: Option<Severity>,
    pub event_codes: Vec<(String, String)>,
    pub expires: Option<Wall>,
    pub sender_name: String,
    pub headline: String,
    pub description: String,
    pub instruction: String,
    pub areas: Vec<Area>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Area {
    pub desc: String,
    /// Corners in degrees, latitude first; the last is the first.
    pub polygons: Vec<Vec<(f64, f64)>>,
    /// Centre, and radius in kilometres.
    pub circles: Vec<((f64, f64), f64)>,
    pub geocodes: Vec<(String, String)>,
}

/// Reads one message; the error lists what is wrong with it.
pub fn read(bytes: &[u8]) -> Result<Message, String> {
    let root = tree(bytes, MOST_MESSAGE)?;
    message(&root)
}

/// What a feed holds: whole messages, and where others are found.
#[derive(Debug, Default)]
pub struct Feed {
    pub messages: Vec<Result<Message, String>>,
    pub links: Vec<String>,
}

/// Reads an Atom feed (RFC 4287), an RSS 2.0 channel, or one message by itself.
pub fn read_feed(bytes: &[u8]) -> Result<Feed, String> {
    let root = tree(bytes, MOST_FEED)?;
    let mut feed = Feed::default();
    match root.name.as_str() {
        "alert" => feed.messages.push(message(&root)),
        "feed" | "rss" | "RDF" => {
            let mut entries = Vec::new();
            root.find_all(&["entry", "item"], &mut entries);
            for entry in entries {
                let mut alerts = Vec::new();
                entry.find_all(&["alert"], &mut alerts);
                if alerts.is_empty() {
                    feed.links.extend(link(entry));
                }
                feed.messages.extend(alerts.into_iter().map(message));
            }
        }
        other => return Err(format!("the root element is {other:?}, expected a feed or a CAP message")),
    }
    Ok(feed)
}

/// Where an entry's message is: the link of CAP's media type, else the first that is an alternate.
fn link(entry: &Node) -> Option<String> {
    let links: Vec<&Node> = entry.children.iter().filter(|child| child.name == "link").collect();
    let is_cap = |link: &&&Node| {
        let kind = link.attribute("type").unwrap_or_default();
        kind.starts_with("application/cap+xml") || kind.starts_with("application/common-alerting-protocol+xml")
    };
    let is_alternate = |link: &&&Node| link.attribute("rel").is_none_or(|rel| rel == "alternate");
    let found = links.iter().find(is_cap).or_else(|| links.iter().find(is_alternate))?;
    let address = found.attribute("href").map_or_else(|| found.text.trim().to_owned(), str::to_owned);
    (!address.is_empty()).then_some(address)
}

// ---------- the tree ----------

/// An element with its own text; nothing of it is kept that no schema of ours knows.
#[derive(Debug, Default)]
struct Node {
    space: String,
    name: String,
    attributes: Vec<(String, String)>,
    text: String,
    children: Vec<Node>,
}

impl Node {
    fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// All of these names below, but none inside another.
    fn find_all<'n>(&'n self, names: &[&str], found: &mut Vec<&'n Node>) {
        for child in &self.children {
            if names.contains(&child.name.as_str()) {
                found.push(child);
            } else {
                child.find_all(names, found);
            }
        }
    }
}

fn tree(bytes: &[u8], most: usize) -> Result<Node, String> {
    if bytes.len() > most {
        return Err(format!("it has {} bytes, at most {most} are read", bytes.len()));
    }
    if bytes.starts_with(&[0xfe, 0xff]) || bytes.starts_with(&[0xff, 0xfe]) {
        return Err("it is UTF-16, expected UTF-8".to_owned());
    }
    let text = std::str::from_utf8(bytes).map_err(|error| format!("it is not UTF-8: {error}"))?;
    let mut reader = NsReader::from_str(text.strip_prefix('\u{feff}').unwrap_or(text));
    let mut open: Vec<Node> = Vec::new();
    let mut root = None;
    let mut elements = 0;
    loop {
        let (space, event) = reader.read_resolved_event().map_err(|error| format!("it is not XML: {error}"))?;
        let mut begin = |start: &BytesStart<'_>, depth: usize| -> Result<Node, String> {
            elements += 1;
            if elements > MOST_ELEMENTS {
                return Err(format!("it has more than {MOST_ELEMENTS} elements"));
            }
            if depth >= MOST_DEPTH {
                return Err(format!("its elements stand in one another more than {MOST_DEPTH} deep"));
            }
            let space = match space {
                ResolveResult::Bound(space) => space.as_ref().to_owned(),
                _ => String::new(),
            };
            element(start, space)
        };
        match event {
            Event::Decl(declaration) => {
                if let Some(Ok(encoding)) = declaration.encoding()
                    && !encoding.eq_ignore_ascii_case("utf-8")
                {
                    return Err(format!("it says that it is {encoding}, expected UTF-8"));
                }
            }
            Event::DocType(_) => return Err("it has a document type, which is refused".to_owned()),
            Event::Start(start) => {
                if root.is_some() {
                    return Err("something stands behind the root element".to_owned());
                }
                let node = begin(&start, open.len())?;
                open.push(node);
            }
            Event::Empty(start) => {
                let node = begin(&start, open.len())?;
                close(node, &mut open, &mut root)?;
            }
            Event::End(_) => match open.pop() {
                Some(node) => close(node, &mut open, &mut root)?,
                None => return Err("an element ends that has not begun".to_owned()),
            },
            Event::Text(text) => {
                if let Some(node) = open.last_mut() {
                    node.text.push_str(&text.xml10_content());
                }
            }
            Event::CData(text) => {
                if let Some(node) = open.last_mut() {
                    node.text.push_str(&text.xml10_content());
                }
            }
            Event::GeneralRef(reference) => {
                let name = reference.xml10_content();
                let number = reference.resolve_char_ref().map_err(|error| format!("it is not XML: {error}"))?;
                let Some(node) = open.last_mut() else { continue };
                match (number, resolve_xml_entity(&name)) {
                    (Some(character), _) => node.text.push(character),
                    (None, Some(known)) => node.text.push_str(known),
                    (None, None) => return Err(format!("it has the entity {name:?}, which nobody has declared")),
                }
            }
            Event::Eof => break,
            Event::Comment(_) | Event::PI(_) => {}
        }
    }
    root.filter(|_| open.is_empty()).ok_or_else(|| "it breaks off".to_owned())
}

fn close(node: Node, open: &mut [Node], root: &mut Option<Node>) -> Result<(), String> {
    match (open.last_mut(), &root) {
        (Some(parent), _) => parent.children.push(node),
        (None, None) => *root = Some(node),
        (None, Some(_)) => return Err("something stands behind the root element".to_owned()),
    }
    Ok(())
}

fn element(start: &BytesStart<'_>, space: String) -> Result<Node, String> {
    let name = start.local_name().as_ref().to_owned();
    let mut attributes = Vec::new();
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|error| format!("it is not XML: {error}"))?;
        let key = attribute.key.local_name().as_ref().to_owned();
        let value = quick_xml::escape::unescape(&attribute.value).map_err(|error| format!("it is not XML: {error}"))?;
        attributes.push((key, value.into_owned()));
    }
    Ok(Node { space, name, attributes, ..Node::default() })
}

// ---------- CAP ----------

/// Reads fields of an element and notes what is wrong.
struct Fields<'n> {
    node: &'n Node,
    of: &'static str,
    faults: &'n mut Vec<String>,
}

impl<'n> Fields<'n> {
    fn all(&self, name: &str) -> Vec<&'n Node> {
        self.node.children.iter().filter(|child| child.name == name && child.space == self.node.space).collect()
    }

    fn maybe(&mut self, name: &str) -> Option<String> {
        let found = self.all(name);
        if found.len() > 1 {
            self.faults.push(format!("{} has {} times {name}", self.of, found.len()));
        }
        found.first().map(|node| clean(&node.text))
    }

    fn one(&mut self, name: &str) -> String {
        let found = self.maybe(name);
        if found.as_ref().is_none_or(String::is_empty) {
            self.faults.push(format!("{} has no {name}", self.of));
        }
        found.unwrap_or_default()
    }

    fn choice<T: Copy>(&mut self, name: &str, choices: &[(&'static str, T)]) -> Option<T> {
        let word = self.one(name);
        let found = choices.iter().find(|(known, _)| *known == word).map(|(_, value)| *value);
        if found.is_none() && !word.is_empty() {
            self.faults.push(format!("{name} is {:?}, which CAP does not know", short(&word)));
        }
        found
    }

    fn words(&mut self, name: &str, known: &[&str]) -> Vec<String> {
        let found: Vec<String> = self.all(name).iter().map(|node| clean(&node.text)).collect();
        for word in found.iter().filter(|word| !known.contains(&word.as_str())) {
            self.faults.push(format!("{name} is {:?}, which CAP does not know", short(word)));
        }
        found
    }

    fn moment(&mut self, name: &str) -> Option<Wall> {
        let text = self.maybe(name)?;
        let found = moment(&text);
        if found.is_none() {
            self.faults.push(format!("{name} is {:?}, which is no time of CAP", short(&text)));
        }
        found
    }

    fn named(&mut self, name: &str) -> Vec<(String, String)> {
        let nodes = self.all(name);
        nodes
            .into_iter()
            .map(|node| {
                let mut own = Fields { node, of: "a named value", faults: &mut *self.faults };
                // A value may be empty: that of a layer which says nothing of this area.
                (own.one("valueName"), own.maybe("value").unwrap_or_default())
            })
            .collect()
    }

    fn must(&mut self, holds: bool, what: &str) {
        if !holds {
            self.faults.push(what.to_owned());
        }
    }
}

const CATEGORIES: [&str; 12] =
    ["Geo", "Met", "Safety", "Security", "Rescue", "Fire", "Health", "Env", "Transport", "Infra", "CBRNE", "Other"];
const RESPONSES: [&str; 9] =
    ["Shelter", "Evacuate", "Prepare", "Execute", "Avoid", "Monitor", "Assess", "AllClear", "None"];

fn message(root: &Node) -> Result<Message, String> {
    if root.name != "alert" {
        return Err(format!("the root element is {:?}, expected alert", short(&root.name)));
    }
    if root.space != CAP {
        let what = if root.space.starts_with(ANY_CAP) { "another version of CAP" } else { "no CAP" };
        return Err(format!("its namespace is {:?}, {what}: expected CAP 1.2", short(&root.space)));
    }
    let mut faults = Vec::new();
    let mut r = Fields { node: root, of: "alert", faults: &mut faults };
    let (identifier, sender) = (r.one("identifier"), r.one("sender"));
    let named = |text: &str| !text.chars().any(|c| c.is_whitespace() || matches!(c, ',' | '<' | '&'));
    r.must(named(&identifier), "identifier holds white space, comma, < or &");
    r.must(named(&sender), "sender holds white space, comma, < or &");
    let written = r.one("sent");
    let sent = r.moment("sent");
    let status = r.choice("status", &Status::ALL);
    let kind = r.choice("msgType", &Kind::ALL);
    let scope = r.choice("scope", &[("Public", 'p'), ("Restricted", 'r'), ("Private", 'v')]);
    // Real messages carry them empty, which says nothing.
    let said = |text: &String| !text.is_empty();
    let (restriction, addresses) = (r.maybe("restriction").filter(said), r.maybe("addresses").filter(said));
    r.must(restriction.is_none() || scope == Some('r'), "restriction goes with scope Restricted");
    r.must(addresses.is_none() || scope == Some('v'), "addresses go with scope Private");
    r.must(scope != Some('v') || addresses.is_some(), "scope Private has no addresses");
    let note = r.maybe("note").unwrap_or_default();
    let mut references = Vec::new();
    for text in r.maybe("references").unwrap_or_default().split_whitespace() {
        match reference(text) {
            Some(earlier) => references.push(earlier),
            None => r.must(false, "a reference is not sender,identifier,sent"),
        }
    }
    let about_others = matches!(kind, Some(Kind::Update | Kind::Cancel | Kind::Ack | Kind::Error));
    r.must(!about_others || !references.is_empty(), "an Update, Cancel, Ack or Error refers to nothing");
    for earlier in &references {
        r.must((&earlier.sender, &earlier.identifier) != (&sender, &identifier), "it refers to itself");
        r.must(sent.is_none_or(|sent| earlier.sent <= sent), "it refers to a message that was sent later");
    }
    for child in &root.children {
        let own = child.space == CAP || child.space == SIGNATURE;
        r.must(own, "alert holds an element of another namespace than CAP and XML signatures");
    }
    let nodes = r.all("info");
    let mut infos: Vec<Info> = Vec::new();
    for node in nodes {
        infos.push(info(node, sent, r.faults));
    }
    let new = matches!(kind, Some(Kind::Alert | Kind::Update));
    r.must(!new || status == Some(Status::Draft) || !infos.is_empty(), "an Alert or Update has no info");
    if !faults.is_empty() {
        faults.truncate(MOST_FAULTS);
        return Err(faults.join("; "));
    }
    let (Some(sent), Some(status), Some(kind)) = (sent, status, kind) else { return Err("it is not whole".to_owned()) };
    let (key, public) = (Key { identifier, sender, sent }, scope == Some('p'));
    Ok(Message { key, sent: written, status, kind, public, note, references, infos })
}

fn reference(text: &str) -> Option<Key> {
    match text.split(',').collect::<Vec<_>>()[..] {
        [sender, identifier, sent] if !sender.is_empty() && !identifier.is_empty() => {
            let sent = moment(sent)?;
            Some(Key { identifier: identifier.to_owned(), sender: sender.to_owned(), sent })
        }
        _ => None,
    }
}

fn info(node: &Node, sent: Option<Wall>, faults: &mut Vec<String>) -> Info {
    let mut r = Fields { node, of: "info", faults };
    let categories = r.words("category", &CATEGORIES);
    r.must(!categories.is_empty(), "info has no category");
    r.words("responseType", &RESPONSES);
    let times = ["effective", "onset", "expires"].map(|name| r.moment(name));
    let [_effective, _onset, expires] = times;
    r.must(expires.is_none_or(|expires| Some(expires) >= sent), "it expires before it was sent");
    let known = |words: &'static [&'static str]| words.iter().map(|word| (*word, ())).collect::<Vec<_>>();
    r.choice("urgency", &known(&["Immediate", "Expected", "Future", "Past", "Unknown"]));
    // CAP 1.0 called it so; it is to be read as Likely.
    r.choice("certainty", &known(&["Observed", "Likely", "Very Likely", "Possible", "Unlikely", "Unknown"]));
    if let Some(web) = r.maybe("web") {
        r.must(web.contains("://"), "web is no whole address");
    }
    r.named("parameter");
    for resource in r.all("resource") {
        resource_of(resource, r.faults);
    }
    let areas = r.all("area");
    Info {
        language: r.maybe("language").filter(|word| !word.is_empty()).unwrap_or_else(|| "en-US".to_owned()),
        categories,
        event: r.one("event"),
        severity: r.choice("severity", &Severity::ALL),
        event_codes: r.named("eventCode"),
        expires,
        sender_name: r.maybe("senderName").unwrap_or_default(),
        headline: r.maybe("headline").unwrap_or_default(),
        description: r.maybe("description").unwrap_or_default(),
        instruction: r.maybe("instruction").unwrap_or_default(),
        areas: areas.into_iter().map(|node| area(node, r.faults)).collect(),
    }
}

fn resource_of(node: &Node, faults: &mut Vec<String>) {
    let mut r = Fields { node, of: "resource", faults };
    r.one("resourceDesc");
    let kind = r.one("mimeType");
    r.must(kind.split_once('/').is_some_and(|(a, b)| !a.is_empty() && !b.is_empty()), "mimeType is not type/subtype");
    let (address, inside) = (r.maybe("uri"), r.maybe("derefUri"));
    let whole = address.as_ref().is_none_or(|address| address.contains("://"));
    r.must(whole || inside.is_some(), "a resource has a relative uri and no derefUri");
    if let Some(inside) = inside {
        let packed: String = inside.split_whitespace().collect();
        r.must(STANDARD.decode(packed).is_ok(), "derefUri is not base64");
    }
}

fn area(node: &Node, faults: &mut Vec<String>) -> Area {
    let mut r = Fields { node, of: "area", faults };
    let desc = r.one("areaDesc");
    let (mut polygons, mut circles) = (Vec::new(), Vec::new());
    for node in r.all("polygon") {
        match polygon(&node.text) {
            Ok(corners) => polygons.push(corners),
            Err(what) => r.must(false, what),
        }
    }
    for node in r.all("circle") {
        let found = node.text.trim().split_once(' ').and_then(|(centre, radius)| {
            let radius: f64 = radius.trim().parse().ok().filter(|radius| (0.0..=40_000.0).contains(radius))?;
            Some((pair(centre)?, radius))
        });
        r.must(found.is_some(), "a circle is not latitude,longitude and a radius");
        circles.extend(found);
    }
    let number = |text: Option<String>| text.map(|text| text.parse::<f64>().ok());
    let (altitude, ceiling) = (number(r.maybe("altitude")), number(r.maybe("ceiling")));
    r.must(altitude != Some(None) && ceiling != Some(None), "altitude or ceiling is no number");
    if let Some(Some(ceiling)) = ceiling {
        let altitude = altitude.flatten();
        r.must(altitude.is_some_and(|altitude| ceiling >= altitude), "ceiling has no altitude, or is below it");
    }
    Area { desc, polygons, circles, geocodes: r.named("geocode") }
}

fn polygon(text: &str) -> Result<Vec<(f64, f64)>, &'static str> {
    let corners: Option<Vec<(f64, f64)>> = text.split_whitespace().map(pair).collect();
    let corners = corners.ok_or("a polygon is not of latitude,longitude")?;
    if corners.len() < 4 || corners.first() != corners.last() {
        return Err("a polygon has less than four corners or is not closed");
    }
    if corners.len() > MOST_CORNERS {
        return Err("a polygon has too many corners");
    }
    Ok(corners)
}

fn pair(text: &str) -> Option<(f64, f64)> {
    let (lat, lon) = text.split_once(',')?;
    let (lat, lon) = (lat.parse().ok()?, lon.parse().ok()?);
    ((-90.0..=90.0).contains(&lat) && (-180.0..=180.0).contains(&lon)).then_some((lat, lon))
}

/// `YYYY-MM-DDThh:mm:ss±hh:mm`; a blank for the `T`, as GB/T 35965.1 writes it. Neither `Z` nor fractions, and no comma
/// before the offset though the schema's pattern lets one pass.
fn moment(text: &str) -> Option<Wall> {
    let form: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let known = ["0000-00-00T00:00:00+00:00", "0000-00-00T00:00:00-00:00", "0000-00-00 00:00:00+00:00"];
    if !known.contains(&form.as_str()) {
        return None;
    }
    let at: jiff::Timestamp = text.replace(' ', "T").parse().ok()?;
    Some(Wall::from_micros(at.as_microsecond()))
}

/// Without what shows nothing or turns writing around, and without blanks at the ends.
fn clean(text: &str) -> String {
    let safe = |c: &char| {
        !matches!(c, '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
            && (!c.is_control() || *c == '\n' || *c == '\t')
    };
    text.replace("\r\n", "\n").chars().filter(safe).collect::<String>().trim().to_owned()
}

fn short(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A rainstorm warning of a made-up county, in both languages.
    pub const RAIN: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<alert xmlns="urn:oasis:names:tc:emergency:cap:1.2">
  <identifier>62010241600000_20260301093000_1</identifier>
  <sender>qx@warn.example.cn</sender>
  <sent>2026-03-01T09:30:00+08:00</sent>
  <status>Actual</status>
  <msgType>Alert</msgType>
  <scope>Public</scope>
  <info>
    <language>zh-CN</language>
    <category>Met</category>
    <event>暴雨橙色预警</event>
    <responseType>Prepare</responseType>
    <urgency>Expected</urgency>
    <severity>Severe</severity>
    <certainty>Likely</certainty>
    <eventCode><valueName>cn:event</valueName><value>11B0303</value></eventCode>
    <expires>2026-03-01T15:30:00+08:00</expires>
    <senderName>示例县气象台</senderName>
    <headline>示例县气象台发布暴雨橙色预警</headline>
    <description>预计未来6小时降雨量 &gt; 50 毫米 &amp; 局地更大。</description>
    <instruction>检查地下车库挡水板，转移低洼处人员。</instruction>
    <area>
      <areaDesc>示例县</areaDesc>
      <polygon>36.0,103.7 36.2,103.7 36.2,103.9 36.0,103.9 36.0,103.7</polygon>
      <geocode><valueName>cn:gbt2260</valueName><value>620102</value></geocode>
    </area>
  </info>
  <info>
    <language>en-US</language>
    <category>Met</category>
    <event>Rainstorm, orange</event>
    <urgency>Expected</urgency>
    <severity>Severe</severity>
    <certainty>Likely</certainty>
    <expires>2026-03-01T15:30:00+08:00</expires>
    <headline>Orange rainstorm warning for Example County</headline>
    <area><areaDesc>Example County</areaDesc><circle>36.06,103.83 12.5</circle></area>
  </info>
</alert>"#;

    #[test]
    fn a_sound_message_is_read_field_by_field() {
        let message = read(RAIN.as_bytes()).expect("it is sound");
        assert_eq!(message.key.to_string(), "qx@warn.example.cn,62010241600000_20260301093000_1,1772328600000");
        assert_eq!((message.status, message.kind, message.references.len()), (Status::Actual, Kind::Alert, 0));
        let [zh, en] = &message.infos[..] else { panic!("{message:?}") };
        assert_eq!(zh.description, "预计未来6小时降雨量 > 50 毫米 & 局地更大。");
        assert_eq!((zh.severity, zh.expires), (Some(Severity::Severe), Some(Wall::from_millis(1_772_350_200_000))));
        assert_eq!(zh.event_codes, [("cn:event".to_owned(), "11B0303".to_owned())]);
        assert_eq!((zh.areas[0].polygons[0].len(), &*zh.areas[0].geocodes[0].1), (5, "620102"));
        assert_eq!(en.areas[0].circles, [((36.06, 103.83), 12.5)]);
    }

    /// What is put in the place of what, and what is said of it.
    #[test]
    fn each_trap_of_cap_is_told() {
        let reference = "<msgType>Update</msgType><scope>Public</scope><references>";
        for (what, by, words) in [
            ("cap:1.2", "cap:1.1", "another version of CAP"),
            ("urn:oasis:names:tc:emergency:cap:1.2", "urn:x", "no CAP"),
            ("<sent>2026-03-01T09:30:00+08:00", "<sent>2026-03-01T01:30:00Z", "no time of CAP"),
            ("<sent>2026-03-01T09:30:00+08:00", "<sent>2026-03-01T09:30:00.5+08:00", "no time of CAP"),
            ("<sent>2026-03-01T09:30:00+08:00", "<sent>2026-03-01T09:30:00,08:00", "no time of CAP"),
            ("<sent>2026-03-01T09:30:00+08:00", "<sent>2026-13-01T09:30:00+08:00", "no time of CAP"),
            ("62010241600000_2", "62010241600000 2", "identifier holds white space"),
            ("qx@warn", "qx,warn", "sender holds white space, comma"),
            ("<status>Actual", "<status>Real", "status is \"Real\", which CAP does not know"),
            ("<scope>Public</scope>", "", "alert has no scope"),
            ("<scope>Public</scope>", "<scope>Public</scope><restriction>x</restriction>", "restriction goes with"),
            ("<scope>Public</scope>", "<scope>Private</scope>", "scope Private has no addresses"),
            ("<msgType>Alert", "<msgType>Cancel", "refers to nothing"),
            ("<scope>Public</scope>", "<scope>Public</scope><scope>Public</scope>", "alert has 2 times scope"),
            (
                "<msgType>Alert</msgType>\n  <scope>Public</scope>",
                &format!(
                    "{reference}qx@warn.example.cn,62010241600000_20260301093000_1,2026-03-01T09:30:00+08:00</references>"
                ),
                "it refers to itself",
            ),
            (
                "<msgType>Alert</msgType>\n  <scope>Public</scope>",
                &format!("{reference}a,b,2026-03-01T09:30:01+08:00</references>"),
                "was sent later",
            ),
            (
                "<msgType>Alert</msgType>\n  <scope>Public</scope>",
                &format!("{reference}a b</references>"),
                "is not sender,identifier,sent",
            ),
            ("<category>Met</category>\n    <event>暴雨", "<event>暴雨", "info has no category"),
            ("<category>Met", "<category>Weather", "category is \"Weather\""),
            ("<severity>Severe", "<severity>Orange", "severity is \"Orange\""),
            ("<expires>2026-03-01T15:30", "<expires>2026-03-01T08:30", "expires before it was sent"),
            ("36.0,103.7</polygon>", "36.0,103.8</polygon>", "not closed"),
            ("36.2,103.9", "96.2,103.9", "a polygon is not of latitude,longitude"),
            ("36.06,103.83 12.5", "36.06,103.83", "a circle is not"),
            ("<areaDesc>示例县</areaDesc>", "", "area has no areaDesc"),
            ("<areaDesc>示例县</areaDesc>", "<areaDesc>x</areaDesc><ceiling>3</ceiling>", "ceiling has no altitude"),
            ("<senderName>", "<web>index.html</web><senderName>", "web is no whole address"),
            (
                "<area>\n",
                "<resource><resourceDesc>x</resourceDesc><mimeType>jpeg</mimeType><uri>a.jpg</uri></resource><area>\n",
                "mimeType is not type/subtype; a resource has a relative uri and no derefUri",
            ),
            ("<info>", "<x:evil xmlns:x='urn:x'/><info>", "another namespace"),
        ] {
            let text = RAIN.replacen(what, by, 1);
            assert_ne!(text, RAIN, "{what} is not in the sample");
            let why = read(text.as_bytes()).expect_err(words);
            assert!(why.contains(words), "{words} is not in {why}");
        }
        // What looks odd and is allowed: the form of GB/T 35965.1, and a signature.
        for (what, by) in [
            ("<sent>2026-03-01T09:30:00+08:00", "<sent>2026-03-01 09:30:00+08:00"),
            ("<scope>Public</scope>", "<scope>Public</scope><restriction/><addresses/>"),
            ("<value>11B0303</value>", "<value/>"),
            ("</alert>", "<Signature xmlns='http://www.w3.org/2000/09/xmldsig#'><SignedInfo/></Signature></alert>"),
        ] {
            assert!(read(RAIN.replacen(what, by, 1).as_bytes()).is_ok(), "{by}");
        }
    }

    #[test]
    fn hostile_documents_are_refused_soon() {
        let laughs = RAIN.replacen(
            "<alert",
            "<!DOCTYPE alert [<!ENTITY a \"ha\"><!ENTITY b \"&a;&a;&a;\"><!ENTITY f SYSTEM \"file:///etc/passwd\">]><alert",
            1,
        );
        let utf16: Vec<u8> = [0xff, 0xfe].into_iter().chain(RAIN.encode_utf16().flat_map(u16::to_le_bytes)).collect();
        let gbk =
            [&b"<?xml version=\"1.0\" encoding=\"GBK\"?><alert>"[..], &[0xb1, 0xa9, 0xd3, 0xea], b"</alert>"].concat();
        let many = format!("<alert xmlns='{CAP}'>{}</alert>", "<a/>".repeat(MOST_ELEMENTS + 1));
        for (bytes, words) in [
            (laughs.into_bytes(), "document type"),
            (utf16, "UTF-16"),
            (gbk, "not UTF-8"),
            (RAIN.replacen("UTF-8", "GB18030", 1).into_bytes(), "says that it is GB18030"),
            (RAIN.replacen("暴雨", "&rain;", 1).into_bytes(), "entity \"rain\""),
            (RAIN.as_bytes()[..900].to_vec(), "breaks off"),
            (format!("{RAIN}<alert/>").into_bytes(), "behind the root"),
            ("<a>".repeat(100).into_bytes(), "deep"),
            (many.into_bytes(), "elements"),
            (vec![b' '; MOST_MESSAGE + 1], "at most"),
            (b"<alert><x></alert>".to_vec(), "not XML"),
            (Vec::new(), "breaks off"),
        ] {
            let why = read(&bytes).expect_err(words);
            assert!(why.contains(words), "{words} is not in {why}");
        }
        // Markup in a text is text.
        let marked = RAIN.replacen("示例县气象台发布", "<![CDATA[<script>]]>\u{202e}发布", 1);
        assert_eq!(read(marked.as_bytes()).expect("it is sound").infos[0].headline, "<script>发布暴雨橙色预警");
    }

    #[test]
    fn feeds_hold_messages_or_say_where_they_are() {
        let alert = RAIN.split_once("?>").expect("a declaration").1;
        let fat = format!(
            "<feed xmlns='http://www.w3.org/2005/Atom'><entry><id>1</id><content type='text/xml'>{alert}</content></entry>\
             <entry><content>{}</content></entry></feed>",
            alert.replace("Actual", "Real")
        );
        let feed = read_feed(fat.as_bytes()).expect("it is a feed");
        assert_eq!(feed.messages.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false]);
        let thin = "<feed xmlns='http://www.w3.org/2005/Atom' xmlns:cap='urn:oasis:names:tc:emergency:cap:1.1'>\
             <link href='self'/><entry><link rel='self' href='x'/><link href='page.html'/>\
             <link type='application/cap+xml' href='one.xml?a=1&amp;b=2'/><cap:event>Flood</cap:event></entry>\
             <entry><link href='two.xml'/></entry><entry><title>no link</title></entry></feed>";
        assert_eq!(read_feed(thin.as_bytes()).expect("it is a feed").links, ["one.xml?a=1&b=2", "two.xml"]);
        let rss =
            "<rss version='2.0'><channel><link>http://x/</link><item><link> three.xml </link></item></channel></rss>";
        assert_eq!(read_feed(rss.as_bytes()).expect("it is a feed").links, ["three.xml"]);
        assert_eq!(read_feed(RAIN.as_bytes()).expect("it is a message").messages.len(), 1);
        assert!(read_feed(b"<html/>").is_err_and(|why| why.contains("expected a feed")));
    }
}
