//! CAP 1.2 documents.
//!
//! [`compose`] builds a typed tree, writes it as XML, reads the XML back and compares the two field by field before it
//! lets it out; [`check`] holds the tree to the rules of CAP 1.2 that a schema cannot say. Text from devices and people is
//! cleaned of what XML cannot carry and of what turns writing around. Nothing here knows how a message travels.
//!
//! The messages are notices of a community to those whom it names: `scope` is Restricted or Private, never Public,
//! because only a government office issues public warnings and a broadcast needs a second person's approval.
//! `status` is Exercise unless the configuration says otherwise, and always for a drill's alarm; an exercise says so in every
//! text, at its beginning.

use std::borrow::Cow;
use std::time::Duration;

use anmin_rules::alarm::{Alarm, Class};
use anmin_rules::drill::unmarked;
use anmin_rules::order::{CapMessage, CapOrder, Voice};
use anmin_rules::response::OVER;
use anmin_rules::rule::{Level, Text};
use anmin_sensors::document::Reader;
use anmin_sensors::point::{Hazard, Place};
use anmin_sensors::time::Wall;
use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};

use super::xml::{self, Children, Node, branch, leaf};
use super::{Site, event};
use crate::config::site::{on_earth, polygon, text};

const NAMESPACE: &str = "urn:oasis:names:tc:emergency:cap:1.2";
/// Characters; CAP advises 160, some receivers show 140.
const HEADLINE_MOST: usize = 140;
const LINE_MOST: usize = 200;
const PROSE_MOST: usize = 2_000;
/// A home and its neighbours.
const CIRCLE_KM: &str = "0.05";

/// CAP `status`, as far as anmin sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Exercise,
    Test,
    System,
    Actual,
}

impl Status {
    const ALL: [Self; 4] = [Self::Exercise, Self::Test, Self::System, Self::Actual];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Exercise => "Exercise",
            Self::Test => "Test",
            Self::System => "System",
            Self::Actual => "Actual",
        }
    }

    /// What stands at the beginning of every text, and what the note says.
    fn mark(self, language: Language) -> &'static str {
        match (self, language) {
            (Self::Exercise, Language::Zh) => EXERCISE_ZH,
            (Self::Exercise, Language::En) => "EXERCISE: ",
            (Self::Test, Language::Zh) => "【测试】",
            (Self::Test, Language::En) => "TEST: ",
            (Self::System | Self::Actual, _) => "",
        }
    }
}

/// CAP `scope`, as far as anmin sends it, with whom it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    Restricted { restriction: String },
    Private { addresses: Vec<String> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    Zh,
    En,
}

impl Language {
    const CHOICES: [(&'static str, Self); 2] = [("zh-CN", Self::Zh), ("en-US", Self::En)];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Zh => "zh-CN",
            Self::En => "en-US",
        }
    }

    /// Without a drill's mark: the status sets one of its own before every text.
    fn of(self, text: &Text) -> &str {
        unmarked(match self {
            Self::Zh => &text.zh,
            Self::En => &text.en,
        })
    }
}

/// The site's own words in a `[[cap]]` stanza.
#[derive(Clone, Debug)]
pub struct Settings {
    sender: String,
    sender_name: Option<Text>,
    status: Status,
    /// Number of the exercise, for the note.
    exercise: Option<String>,
    scope: Scope,
    contact: Option<String>,
    languages: Vec<Language>,
    area_code: Option<String>,
    area_name: Option<Text>,
    /// Closed; used where the place has no position of its own.
    polygon: Vec<(f64, f64)>,
    expires: Duration,
    time_zone: Option<TimeZone>,
}

impl Settings {
    /// Reads the words out of a stanza that has others too; the caller finishes it.
    pub fn read(r: &Reader<'_>) -> Option<Self> {
        let sender: Option<String> = r.required("sender");
        if let Some(sender) = &sender
            && !is_name(sender)
        {
            r.fault(
                "sender",
                format!("`sender` is {sender:?}, expected a name without white space, comma, `<` and `&`"),
                Some("it must be unique in the world, such as anmin.shequ001.example.cn".to_owned()),
            );
        }
        let statuses = [
            ("exercise", Status::Exercise),
            ("test", Status::Test),
            ("system", Status::System),
            ("actual", Status::Actual),
        ];
        let time_zone = r.optional::<String>("time_zone").and_then(|name| {
            let zone = time_zone(&name);
            if zone.is_none() {
                let hint = "write a name such as \"Asia/Shanghai\" or an offset such as \"+08:00\"".to_owned();
                r.fault("time_zone", format!("`time_zone` is {name:?}, which this machine does not know"), Some(hint));
            }
            zone
        });
        let area_code = area_code(r);
        let settings = Self {
            sender: sender.unwrap_or_default(),
            sender_name: text(r, "sender_name"),
            status: r.choice("status", &statuses).unwrap_or(Status::Exercise),
            exercise: r.optional("exercise"),
            scope: scope(r)?,
            contact: r.optional("contact"),
            languages: languages(r),
            area_code,
            area_name: text(r, "area_name"),
            polygon: polygon(r),
            expires: expires(r),
            time_zone,
        };
        (!r.is_faulty()).then_some(settings)
    }

    /// The words of a stanza whose messages have another form and one language: the sender is theirs, and so are the times, in
    /// this zone.
    pub(super) fn of_another_form(
        r: &Reader<'_>,
        sender: String,
        statuses: &[(&'static str, Status)],
        time_zone: TimeZone,
    ) -> Option<Self> {
        let settings = Self {
            sender,
            sender_name: text(r, "sender_name"),
            status: r.choice("status", statuses).unwrap_or(Status::Exercise),
            exercise: None,
            scope: Scope::Private { addresses: Vec::new() },
            contact: None,
            languages: vec![Language::Zh],
            area_code: area_code(r),
            area_name: text(r, "area_name"),
            polygon: Vec::new(),
            expires: expires(r),
            time_zone: Some(time_zone),
        };
        (!r.is_faulty()).then_some(settings)
    }

    /// The same words in these languages.
    pub fn in_languages(self, languages: &[Language]) -> Self {
        Self { languages: languages.to_vec(), ..self }
    }
}

fn area_code(r: &Reader<'_>) -> Option<String> {
    let code: String = r.optional("area_code")?;
    if !is_area_code(&code) {
        r.fault("area_code", format!("`area_code` is {code:?}, expected 12 digits"), None);
    }
    Some(code)
}

fn expires(r: &Reader<'_>) -> Duration {
    let expires = r.or("expires", Duration::from_secs(3_600));
    if expires < Duration::from_secs(60) || expires > Duration::from_secs(7 * 86_400) {
        r.fault("expires", "`expires` must lie between one minute and seven days", None);
    }
    expires
}

fn scope(r: &Reader<'_>) -> Option<Scope> {
    let word: Option<String> = r.optional("scope");
    let restriction: Option<String> = r.optional("restriction");
    let addresses: Option<Vec<String>> = r.optional("addresses");
    match word.as_deref().unwrap_or("restricted") {
        "restricted" => {
            if addresses.is_some() {
                r.fault("addresses", "`addresses` belongs to scope = \"private\"", None);
            }
            let everyone = || "仅限本社区处置人员 / community responders only".to_owned();
            let restriction = restriction.filter(|text| !line(text).is_empty());
            Some(Scope::Restricted { restriction: restriction.unwrap_or_else(everyone) })
        }
        "private" => {
            if restriction.is_some() {
                r.fault("restriction", "`restriction` belongs to scope = \"restricted\"", None);
            }
            let addresses = addresses.unwrap_or_default();
            if addresses.is_empty() || addresses.iter().any(|address| line(address).is_empty() || address.contains('"'))
            {
                r.fault(
                    "addresses",
                    "scope = \"private\" needs `addresses`, a list of recipients without quotes",
                    None,
                );
            }
            Some(Scope::Private { addresses })
        }
        "public" => {
            r.fault(
                "scope",
                "`scope` is \"public\", which this version does not send",
                Some(
                    "a public broadcast needs a second person's approval and is issued by the responsible office; use \
                     \"restricted\" or \"private\""
                        .to_owned(),
                ),
            );
            None
        }
        other => {
            r.fault("scope", format!("`scope` is {other:?}, expected restricted or private"), None);
            None
        }
    }
}

/// `languages`, both where nobody says.
pub fn languages(r: &Reader<'_>) -> Vec<Language> {
    let Some(names) = r.optional::<Vec<String>>("languages") else { return vec![Language::Zh, Language::En] };
    let mut found = Vec::new();
    for name in &names {
        match Language::CHOICES.iter().find(|(known, _)| known == name) {
            Some((_, language)) if !found.contains(language) => found.push(*language),
            _ => r.fault("languages", format!("`languages` holds {name:?}, expected zh-CN and en-US, each once"), None),
        }
    }
    if names.is_empty() {
        r.fault("languages", "`languages` is empty", None);
    }
    found
}

fn time_zone(name: &str) -> Option<TimeZone> {
    if let Some(rest) = name.strip_prefix(['+', '-']) {
        let (hours, minutes) = rest.split_once(':')?;
        let seconds = hours.parse::<i32>().ok()? * 3_600 + minutes.parse::<i32>().ok().filter(|m| *m < 60)? * 60;
        let offset = Offset::from_seconds(if name.starts_with('-') { -seconds } else { seconds }).ok()?;
        return Some(TimeZone::fixed(offset));
    }
    TimeZone::get(name).ok()
}

/// As [`time_zone`] reads it.
fn zone_name(zone: &TimeZone) -> String {
    match (zone.iana_name(), zone.to_fixed_offset()) {
        (Some(name), _) => name.to_owned(),
        (None, Ok(offset)) => {
            let (sign, minutes) = (if offset.is_negative() { '-' } else { '+' }, offset.seconds().abs() / 60);
            format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60)
        }
        (None, Err(_)) => String::new(),
    }
}

/// Settings and site, made into what every message of one way out has in common.
#[derive(Clone, Debug)]
pub struct Words {
    settings: Settings,
    status: Status,
    sender_name: Text,
    area_code: Option<String>,
    zone: TimeZone,
}

impl Words {
    /// A site that runs as an exercise makes every message one, whatever the stanza says; a drill's alarm makes its own.
    pub fn new(settings: &Settings, site: &Site) -> Self {
        Self {
            status: if site.exercise { Status::Exercise } else { settings.status },
            sender_name: settings.sender_name.clone().unwrap_or_else(|| site.name.clone()),
            area_code: settings.area_code.clone().or_else(|| site.area_code.clone()),
            zone: settings.time_zone.clone().unwrap_or_else(|| site.time_zone.clone()),
            settings: settings.clone(),
        }
    }

    /// Whether a message is meant for real, as far as its words go.
    pub fn is_for_real(&self) -> bool {
        matches!(self.status, Status::System | Status::Actual)
    }

    /// As whom a message speaks that is made now.
    pub fn voice(&self) -> Voice {
        let (sender, status) = (self.settings.sender.as_str().into(), self.status.as_str().into());
        Voice { sender, status, zone: zone_name(&self.zone).into() }
    }

    /// The words of a message that was made with this voice: of all that may have changed since, who speaks and in which
    /// earnest stay.
    fn speaking(&self, voice: Option<&Voice>) -> Cow<'_, Self> {
        let Some(voice) = voice.filter(|voice| **voice != self.voice()) else { return Cow::Borrowed(self) };
        let mut words = self.clone();
        words.settings.sender = voice.sender.to_string();
        words.status = Status::ALL.into_iter().find(|one| *one.as_str() == *voice.status).unwrap_or(self.status);
        words.zone = time_zone(&voice.zone).unwrap_or_else(|| self.zone.clone());
        Cow::Owned(words)
    }

    /// Who a message names as its sender that was made with this voice.
    pub(super) fn sender(&self, voice: Option<&Voice>) -> String {
        self.speaking(voice).settings.sender.clone()
    }

    /// For how long a message holds.
    pub fn expires(&self) -> Duration {
        self.settings.expires
    }

    /// A drill's is an exercise and nothing else, and what is real is never made one by a drill.
    fn status(&self, alarm: &Alarm) -> Status {
        if alarm.drill.is_some() { Status::Exercise } else { self.status }
    }
}

/// What a message says to people in Chinese, for messages of another form.
#[derive(Clone, Debug)]
pub(super) struct Spoken {
    pub sender: String,
    pub sender_name: String,
    /// Then each text begins with [`EXERCISE_ZH`].
    pub is_exercise: bool,
    pub headline: String,
    pub description: String,
    /// What to do, while the danger lasts.
    pub instruction: Option<String>,
    /// Event code of the national emergency broadcast, where there is a fitting one.
    pub code: Option<&'static str>,
    pub area_code: Option<String>,
    /// Until when it holds.
    pub until: Wall,
}

pub(super) const EXERCISE_ZH: &str = "【演练】";

/// The words of an order, as it was said.
pub(super) fn spoken(words: &Words, order: &CapOrder) -> Spoken {
    let words = words.speaking(order.voice.as_deref());
    let info = info(&words, order, Language::Zh);
    Spoken {
        sender: words.settings.sender.clone(),
        sender_name: info.sender_name.unwrap_or_default(),
        is_exercise: words.status(&order.alarm) == Status::Exercise,
        headline: info.headline.unwrap_or_default(),
        description: info.description.unwrap_or_default(),
        instruction: info.instruction,
        code: kind(&order.alarm).code,
        area_code: words.area_code.clone(),
        until: order.sent.plus(words.settings.expires),
    }
}

/// A message that has passed every check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    pub identifier: String,
    /// In which earnest it is said, such as `Exercise`.
    pub status: String,
    /// Of each language, one after the other.
    pub headline: String,
    pub description: String,
    pub xml: String,
}

/// Makes the message, checks it, writes it, reads it back and compares. An error is a defect of anmin or of the site's
/// words and names what is wrong; the message must not leave.
pub fn compose(words: &Words, order: &CapOrder) -> Result<Document, String> {
    let alert = build(&words.speaking(order.voice.as_deref()), order);
    let xml = xml::write(&alert.node(), Some(NAMESPACE));
    check(&xml)?;
    if parse(&xml)? != alert {
        return Err("the written message does not read back as it was meant".to_owned());
    }
    let all = |text: fn(&Info) -> &Option<String>| {
        alert.infos.iter().filter_map(|info| text(info).clone()).collect::<Vec<_>>().join(" / ")
    };
    let (headline, description) = (all(|info| &info.headline), all(|info| &info.description));
    Ok(Document { identifier: alert.identifier, status: alert.status, headline, description, xml })
}

/// Reads a message and holds it to the rules that a schema cannot say; the error lists all that is broken.
pub fn check(xml: &str) -> Result<(), String> {
    let faults = faults(&parse(xml)?);
    if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) }
}

/// `alert`, in the order of the schema. Text is clean; times and coordinates are text already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Alert {
    identifier: String,
    sender: String,
    sent: String,
    status: String,
    msg_type: String,
    source: Option<String>,
    scope: String,
    restriction: Option<String>,
    addresses: Option<String>,
    codes: Vec<String>,
    note: Option<String>,
    references: Option<String>,
    incidents: Option<String>,
    infos: Vec<Info>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Info {
    language: String,
    categories: Vec<String>,
    event: String,
    response_types: Vec<String>,
    urgency: String,
    severity: String,
    certainty: String,
    event_codes: Vec<Named>,
    effective: Option<String>,
    expires: Option<String>,
    sender_name: Option<String>,
    headline: Option<String>,
    description: Option<String>,
    instruction: Option<String>,
    contact: Option<String>,
    parameters: Vec<Named>,
    areas: Vec<Area>,
}

/// `valueName` and `value`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Named {
    name: String,
    value: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Area {
    desc: String,
    polygons: Vec<String>,
    circles: Vec<String>,
    geocodes: Vec<Named>,
}

/// What a kind of event is called and what one does about it.
struct Kind {
    zh: &'static str,
    en: &'static str,
    categories: &'static [&'static str],
    /// Event code of the national emergency broadcast, where there is a fitting one.
    code: Option<&'static str>,
    /// From blue to red.
    responses: [&'static str; 4],
}

fn kind(alarm: &Alarm) -> Kind {
    let rule = alarm.rule.as_str();
    let plain = |zh, en, categories, code, responses| Kind { zh, en, categories, code, responses };
    match alarm.class {
        Class::Hazard(Hazard::Gas)
            if rule == "gas/co" || rule.starts_with("gas/co_") || rule.starts_with("gas/co-") =>
        {
            let responses = ["Monitor", "Prepare", "Evacuate", "Evacuate"];
            plain("一氧化碳超限", "Carbon monoxide", &["Health", "Safety"], Some("13C03"), responses)
        }
        Class::Hazard(Hazard::Gas) => {
            let responses = ["Monitor", "Prepare", "Evacuate", "Evacuate"];
            plain("燃气泄漏", "Gas leak", &["Fire", "Infra"], Some("12P09"), responses)
        }
        Class::Hazard(Hazard::Fire) => {
            plain("火灾", "Fire", &["Fire"], Some("12G00"), ["Monitor", "Prepare", "Evacuate", "Evacuate"])
        }
        Class::Hazard(Hazard::Power) => {
            let responses = ["Monitor", "Prepare", "Avoid", "Evacuate"];
            plain("电气火灾隐患", "Electrical fire hazard", &["Fire", "Infra"], Some("12P08"), responses)
        }
        Class::Hazard(Hazard::Flood) if rule.starts_with("flood/rain") => {
            plain("暴雨", "Rainstorm", &["Met"], Some("11B03"), ["Monitor", "Prepare", "Avoid", "Shelter"])
        }
        Class::Hazard(Hazard::Flood) => {
            let responses = ["Monitor", "Prepare", "Avoid", "Evacuate"];
            plain("积水内涝", "Flooding", &["Met", "Infra"], Some("11A02"), responses)
        }
        Class::Hazard(Hazard::Ground) => {
            let responses = ["Monitor", "Prepare", "Avoid", "Evacuate"];
            plain("地质灾害隐患", "Unstable ground", &["Geo", "Safety"], Some("11D01"), responses)
        }
        Class::Hazard(Hazard::Care) => {
            let responses = ["Monitor", "Monitor", "Prepare", "Avoid"];
            plain("环境异常", "Indoor environment", &["Health"], None, responses)
        }
        Class::Hazard(Hazard::Device) => {
            plain("设备故障", "Device fault", &["Infra"], None, ["None", "Assess", "Assess", "Assess"])
        }
        Class::System => {
            plain("监测系统故障", "Monitoring system fault", &["Infra"], None, ["None", "Assess", "Assess", "Assess"])
        }
    }
}

/// Why a message cancels.
#[derive(Clone, Copy)]
enum End {
    /// The condition is gone: all clear.
    Over,
    /// It lasts, but below the level of this way out.
    Below,
    /// A person has silenced it.
    Silenced,
    /// A person has taken the message back.
    TakenBack,
    /// It stands, and is said in another earnest now: what began as an exercise has become real, or the other way round.
    Anew,
}

fn end_of(order: &CapOrder) -> Option<End> {
    (order.message == CapMessage::Cancel).then(|| match &order.alarm {
        alarm if !alarm.is_active() => End::Over,
        alarm if alarm.is_silenced() => End::Silenced,
        alarm if alarm.broadcast.as_ref().is_some_and(|broadcast| broadcast.holds_back(alarm.level)) => End::TakenBack,
        _ if order.identifier.ends_with(OVER) => End::Anew,
        _ => End::Below,
    })
}

fn build(words: &Words, order: &CapOrder) -> Alert {
    let (settings, alarm) = (&words.settings, &order.alarm);
    let sent = stamp(order.sent, &words.zone);
    let triples: Vec<String> = order
        .references
        .iter()
        .map(|earlier| {
            let then = words.speaking(earlier.voice.as_deref());
            format!("{},{},{}", then.settings.sender, earlier.identifier, stamp(earlier.sent, &then.zone))
        })
        .collect();
    let (scope, restriction, addresses) = match &settings.scope {
        Scope::Restricted { restriction } => ("Restricted", Some(line(restriction)), None),
        Scope::Private { addresses } => {
            let quoted = |address: &String| {
                let address = line(address);
                if address.contains(' ') { format!("\"{address}\"") } else { address }
            };
            ("Private", None, Some(addresses.iter().map(quoted).collect::<Vec<_>>().join(" ")))
        }
    };
    Alert {
        identifier: order.identifier.clone(),
        sender: settings.sender.clone(),
        sent,
        status: words.status(alarm).as_str().to_owned(),
        msg_type: match order.message {
            CapMessage::Alert => "Alert",
            CapMessage::Update => "Update",
            CapMessage::Cancel => "Cancel",
        }
        .to_owned(),
        source: Some(format!("rule:{}", line(alarm.rule.as_str()))),
        scope: scope.to_owned(),
        restriction,
        addresses,
        codes: vec!["anmin:profile:1".to_owned()],
        note: note(words, order),
        references: (!triples.is_empty()).then(|| triples.join(" ")),
        incidents: Some(alarm.id.to_string()),
        infos: settings.languages.iter().map(|language| info(words, order, *language)).collect(),
    }
}

fn note(words: &Words, order: &CapOrder) -> Option<String> {
    let mut parts = Vec::new();
    let status = words.status(&order.alarm);
    match status {
        Status::Exercise => parts.push("演练消息，没有真实险情 / Exercise, nobody is in danger".to_owned()),
        Status::Test => parts.push("技术测试，请忽略 / Technical test, disregard".to_owned()),
        Status::System | Status::Actual => {}
    }
    let number = words.settings.exercise.as_deref().map(line).filter(|number| !number.is_empty());
    if let Some(number) = number
        && status == Status::Exercise
    {
        parts.push(format!("演练编号 {number} / exercise {number}"));
    }
    if let Some(drill) = order.alarm.drill {
        parts.push(format!("演练 {drill} / drill {drill}"));
    }
    if let Some(end) = end_of(order) {
        parts.push(
            match end {
                End::Over => "预警解除 / All clear",
                End::Below => "预警撤销：级别已降低 / Withdrawn: the level has dropped",
                End::Silenced => "预警撤销：告警已由人员搁置或停用 / Withdrawn: silenced by a person",
                End::TakenBack => "预警撤回：由值班人员撤回，请以后续通知为准 / Withdrawn: taken back by the duty desk",
                End::Anew => {
                    "预警撤销：消息性质已变更，请以后续通知为准 / Withdrawn: it is said with another status from now on"
                }
            }
            .to_owned(),
        );
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

fn info(words: &Words, order: &CapOrder, language: Language) -> Info {
    let (settings, alarm) = (&words.settings, &order.alarm);
    let kind = kind(alarm);
    let end = end_of(order);
    let zh = language == Language::Zh;
    let mark = words.status(alarm).mark(language);
    let marked = |text: String| match without_marks(&text) {
        "" => None,
        text => Some(format!("{mark}{text}")),
    };
    let sent = stamp(order.sent, &words.zone);
    let (response, urgency, severity) = match (end, alarm.level) {
        (Some(End::Over), _) => ("AllClear", "Past", "Minor"),
        (Some(End::Below | End::Silenced | End::TakenBack | End::Anew), level) => ("Monitor", "Past", severity(level)),
        (None, level) => {
            let response = kind.responses[match level {
                Level::Blue => 0,
                Level::Yellow => 1,
                Level::Orange => 2,
                Level::Red => 3,
            }];
            let urgency = match level {
                Level::Blue => "Future",
                Level::Yellow => "Expected",
                Level::Orange | Level::Red => "Immediate",
            };
            (response, urgency, severity(level))
        }
    };
    let message = prose(language.of(&alarm.message));
    // A rule without words still says what it is about.
    let message = [message, line(language.of(&alarm.title)), (if zh { kind.zh } else { kind.en }).to_owned()]
        .iter()
        .map(|text| without_marks(text).to_owned())
        .find(|text| !text.is_empty())
        .unwrap_or_default();
    let level = if zh { alarm.level.zh() } else { alarm.level.as_str() };
    let why = match (end, zh) {
        (None, _) => String::new(),
        (Some(End::Over), true) => "预警解除。".to_owned(),
        (Some(End::Over), false) => "All clear. ".to_owned(),
        (Some(End::Below), true) => format!("本预警撤销：级别已降为{level}。"),
        (Some(End::Below), false) => format!("This warning is withdrawn: the level has dropped to {level}. "),
        (Some(End::Silenced), true) => "本预警撤销：告警已由人员搁置或停用。".to_owned(),
        (Some(End::Silenced), false) => "This warning is withdrawn: a person has silenced the alarm. ".to_owned(),
        (Some(End::TakenBack), true) => "本预警撤回：由值班人员撤回，请以后续通知为准。".to_owned(),
        (Some(End::TakenBack), false) => "This warning is withdrawn: the duty desk has taken it back. ".to_owned(),
        (Some(End::Anew), true) => "本消息撤销：消息性质已变更，请以后续通知为准。".to_owned(),
        (Some(End::Anew), false) => {
            "This message is withdrawn: it is said with another status from now on. ".to_owned()
        }
    };
    let advice = prose(language.of(&alarm.advice));
    Info {
        language: language.as_str().to_owned(),
        categories: kind.categories.iter().map(|name| (*name).to_owned()).collect(),
        event: format!("{mark}{}", if zh { kind.zh } else { kind.en }),
        response_types: vec![response.to_owned()],
        urgency: urgency.to_owned(),
        severity: severity.to_owned(),
        // One smoke detector or one pressed button is no fire that somebody has seen.
        certainty: match alarm.rule.as_str() {
            "fire/smoke" | "fire/call_point" if end.is_none() => "Likely",
            _ if alarm.evidence.value.is_some() => "Observed",
            _ => "Likely",
        }
        .to_owned(),
        event_codes: kind.code.map(|code| named("cn:event", code)).into_iter().collect(),
        effective: Some(sent),
        expires: Some(stamp(order.sent.plus(settings.expires), &words.zone)),
        sender_name: Some(line(language.of(&words.sender_name))).filter(|name| !name.is_empty()),
        headline: Some(headline(words, order, end, language)),
        description: marked(cut(&format!("{why}{message}"), PROSE_MOST)),
        instruction: if end.is_none() { marked(advice) } else { None },
        contact: settings.contact.as_deref().map(line).filter(|contact| !contact.is_empty()),
        parameters: parameters(words, alarm),
        areas: vec![area(words, alarm, language)],
    }
}

const fn severity(level: Level) -> &'static str {
    match level {
        Level::Blue => "Minor",
        Level::Yellow => "Moderate",
        Level::Orange => "Severe",
        Level::Red => "Extreme",
    }
}

/// What and where, then how grave; only the first part is ever shortened.
fn headline(words: &Words, order: &CapOrder, end: Option<End>, language: Language) -> String {
    let (alarm, mark) = (&order.alarm, words.status(&order.alarm).mark(language));
    let zh = language == Language::Zh;
    let title = line(language.of(&alarm.title));
    let (title, place) = (without_marks(&title), where_it_is(words, alarm, language));
    let what = if zh { format!("{place}{title}") } else { format!("{title}, {place}") };
    let is_elsewhere = order.references.last().is_some_and(|last| last.moved != alarm.moved);
    let tail = match (end, order.message, zh) {
        (Some(End::Over), _, true) => " 预警解除".to_owned(),
        (Some(End::Over), _, false) => ": all clear".to_owned(),
        (Some(_), _, true) => " 预警撤销".to_owned(),
        (Some(_), _, false) => ": warning withdrawn".to_owned(),
        (None, CapMessage::Update, true) if is_elsewhere => format!(" 位置更正，{}预警", alarm.level.zh()),
        (None, CapMessage::Update, false) if is_elsewhere => {
            format!(": place corrected, {}", alarm.level.as_str().to_uppercase())
        }
        (None, CapMessage::Update, true) => format!(" 更新为{}预警", alarm.level.zh()),
        (None, CapMessage::Update, false) => format!(": now {}", alarm.level.as_str().to_uppercase()),
        (None, _, true) => format!(" {}预警", alarm.level.zh()),
        (None, _, false) => format!(": {}", alarm.level.as_str().to_uppercase()),
    };
    let room = HEADLINE_MOST.saturating_sub(mark.chars().count() + tail.chars().count());
    format!("{mark}{}", format!("{}{tail}", cut(without_marks(&what), room)).trim_start())
}

/// What is left of a text that says by itself that it is an exercise: only the status says so, and a device's words may neither
/// make one of a real danger nor keep its warning from leaving.
fn without_marks(text: &str) -> &str {
    let mut text = text.trim_start();
    loop {
        let bare = [Language::Zh, Language::En]
            .into_iter()
            .fold(unmarked(text), |text, language| text.strip_prefix(Status::Exercise.mark(language)).unwrap_or(text));
        let shorter = bare.trim_start();
        if shorter.len() == text.len() {
            return text;
        }
        text = shorter;
    }
}

fn parameters(words: &Words, alarm: &Alarm) -> Vec<Named> {
    let evidence = &alarm.evidence;
    let with_unit = |value: String| format!("{value} {}", evidence.unit);
    let found = [
        ("anmin:level", Some(alarm.level.as_str().to_owned())),
        ("anmin:rule", Some(alarm.rule.to_string())),
        ("anmin:subject", Some(alarm.subject.as_str().to_owned())),
        ("anmin:alarm", Some(format!("{}/{}", alarm.id, alarm.seq))),
        ("anmin:reading", evidence.value.as_ref().map(|value| with_unit(value.to_string()))),
        ("anmin:limit", evidence.limit.as_ref().map(|(_, limit)| with_unit(limit.to_string()))),
        ("anmin:source_time", evidence.source_time.map(|at| event::rfc3339(at, &words.zone))),
        ("anmin:sequence", evidence.sequence.map(|sequence| sequence.to_string())),
    ];
    let clean = |(name, value): (&str, Option<String>)| value.map(|value| named(name, &line(&value)));
    found.into_iter().filter_map(clean).filter(|parameter| !parameter.value.is_empty()).collect()
}

/// The place within the community.
fn where_it_is(words: &Words, alarm: &Alarm, language: Language) -> String {
    let around = words.settings.area_name.as_ref().map(|name| line(language.of(name))).unwrap_or_default();
    let place = match language {
        Language::Zh => line(&alarm.place.zh()),
        Language::En => line(&alarm.place.en()),
    };
    match (place.is_empty(), around.is_empty(), language) {
        (true, _, _) => around,
        (_, true, _) => place,
        (_, _, Language::Zh) => cut(&format!("{around}{place}"), LINE_MOST),
        (_, _, Language::En) => cut(&format!("{place}, {around}"), LINE_MOST),
    }
}

fn area(words: &Words, alarm: &Alarm, language: Language) -> Area {
    let (settings, place) = (&words.settings, &alarm.place);
    let desc = where_it_is(words, alarm, language);
    let pair = |(lat, lon): (f64, f64)| format!("{lat:.6},{lon:.6}");
    let position = place.position.filter(|(lat, lon)| on_earth(*lat, *lon));
    // What is drawn is where it is; a point has a circle around it, and without either it is somewhere in the community.
    let drawn: &[(f64, f64)] = match (place.polygon.is_empty(), position) {
        (false, _) => &place.polygon,
        (true, None) => &settings.polygon,
        (true, Some(_)) => &[],
    };
    Area {
        desc: if desc.is_empty() { Place::default().en() } else { desc },
        polygons: (!drawn.is_empty())
            .then(|| drawn.iter().map(|corner| pair(*corner)).collect::<Vec<_>>().join(" "))
            .into_iter()
            .collect(),
        circles: position
            .filter(|_| place.polygon.is_empty())
            .map(|position| format!("{} {CIRCLE_KM}", pair(position)))
            .into_iter()
            .collect(),
        geocodes: words.area_code.iter().map(|code| named("cn:gbt2260-ext12", code)).collect(),
    }
}

fn named(name: &str, value: &str) -> Named {
    Named { name: name.to_owned(), value: value.to_owned() }
}

/// `YYYY-MM-DDThh:mm:ss±hh:mm`, never `Z`; UTC is `-00:00` (CAP 1.2 section 3.3.2).
pub(crate) fn stamp(at: Wall, zone: &TimeZone) -> String {
    let local = event::local(at, zone);
    if local.offset().seconds() == 0 {
        local.strftime("%Y-%m-%dT%H:%M:%S-00:00").to_string()
    } else {
        local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
    }
}

/// One line: white space runs become one blank.
fn line(text: &str) -> String {
    cut(&clean(text).split_whitespace().collect::<Vec<_>>().join(" "), LINE_MOST)
}

/// Several lines.
fn prose(text: &str) -> String {
    cut(clean(text).trim(), PROSE_MOST)
}

/// What is left of a text when all is gone that XML 1.0 cannot carry, that shows nothing, or that turns writing around.
pub(super) fn clean(text: &str) -> String {
    text.replace("\r\n", "\n")
        .chars()
        .map(|c| if matches!(c, '\t' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}') { '\n' } else { c })
        .filter(|c| is_clean(*c))
        .collect()
}

pub(super) fn is_clean(c: char) -> bool {
    let noncharacter = matches!(c, '\u{fdd0}'..='\u{fdef}') || (c as u32) & 0xfffe == 0xfffe;
    let turning = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let invisible = matches!(c, '\u{200b}' | '\u{feff}');
    c == '\n' || !(c.is_control() || noncharacter || turning || invisible)
}

pub(super) fn cut(text: &str, most: usize) -> String {
    if text.chars().nth(most).is_none() {
        return text.to_owned();
    }
    let short: String = text.chars().take(most.saturating_sub(1)).collect();
    format!("{}…", short.trim_end())
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| is_clean(c) && !c.is_whitespace() && !matches!(c, ',' | '<' | '&'))
}

pub(super) fn is_area_code(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

// ---------- the rules beyond the schema ----------

fn faults(alert: &Alert) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut must = |holds: bool, what: &str| {
        if !holds {
            found.push(what.to_owned());
        }
    };
    must(is_name(&alert.identifier), "identifier is empty or holds white space, comma, < or &");
    must(is_name(&alert.sender), "sender is empty or holds white space, comma, < or &");
    must(moment(&alert.sent).is_some(), "sent is not a CAP time");
    must(
        ["Exercise", "Test", "System", "Actual"].contains(&alert.status.as_str()),
        "status is not one that anmin sends",
    );
    must(["Restricted", "Private"].contains(&alert.scope.as_str()), "scope is not one that anmin sends");
    must(
        (alert.scope == "Restricted") == alert.restriction.is_some(),
        "restriction belongs to Restricted and only there",
    );
    must((alert.scope == "Private") == alert.addresses.is_some(), "addresses belong to Private and only there");
    must(alert.status != "Exercise" || alert.note.is_some(), "an exercise has no note");
    let references: Vec<&str> = alert.references.as_deref().map(|text| text.split(' ').collect()).unwrap_or_default();
    match alert.msg_type.as_str() {
        "Alert" => must(references.is_empty(), "an Alert refers to earlier messages"),
        "Update" | "Cancel" => must(!references.is_empty(), "an Update or Cancel refers to nothing"),
        _ => must(false, "msgType is not one that anmin sends"),
    }
    for reference in references {
        match reference.split(',').collect::<Vec<_>>()[..] {
            [sender, identifier, sent] => {
                must(is_name(sender) && is_name(identifier), "a reference holds no name");
                must(moment(sent).is_some(), "a reference holds no CAP time");
                must((sender, identifier) != (&*alert.sender, &*alert.identifier), "the message refers to itself");
            }
            _ => must(false, "a reference is not sender,identifier,sent"),
        }
    }
    must(!alert.infos.is_empty(), "there is no info");
    for (n, info) in alert.infos.iter().enumerate() {
        must(alert.infos[..n].iter().all(|other| other.language != info.language), "two infos in one language");
        let first = &alert.infos[0];
        must(
            info.categories == first.categories && info.event_codes == first.event_codes,
            "the infos differ in category or eventCode",
        );
        must(!info.categories.is_empty(), "an info has no category");
        must(
            one_of(&info.urgency, &["Immediate", "Expected", "Future", "Past"]),
            "urgency is not one that anmin sends",
        );
        must(
            one_of(&info.severity, &["Extreme", "Severe", "Moderate", "Minor"]),
            "severity is not one that anmin sends",
        );
        must(one_of(&info.certainty, &["Observed", "Likely"]), "certainty is not one that anmin sends");
        let (sent, expires) = (moment(&alert.sent), info.expires.as_deref().and_then(moment));
        must(expires.is_some() && expires >= sent, "expires is missing or before sent");
        must(info.effective.as_deref().and_then(moment) >= sent, "effective is missing or before sent");
        let headline = info.headline.as_deref().unwrap_or_default();
        must((1..=HEADLINE_MOST).contains(&headline.chars().count()), "the headline is empty or too long");
        must(info.description.is_some(), "there is no description");
        let exercise = match info.language.as_str() {
            "zh-CN" => Status::Exercise.mark(Language::Zh),
            _ => Status::Exercise.mark(Language::En),
        };
        let texts = [Some(&info.event), info.headline.as_ref(), info.description.as_ref(), info.instruction.as_ref()];
        for text in texts.into_iter().flatten() {
            must(
                text.starts_with(exercise) == (alert.status == "Exercise"),
                "a text and the status differ about the exercise",
            );
        }
        must(!info.areas.is_empty(), "there is no area");
        for area in &info.areas {
            must(!area.desc.is_empty(), "an area has no description");
            must(
                area.geocodes.iter().all(|code| code.name != "cn:gbt2260-ext12" || is_area_code(&code.value)),
                "an area code has not 12 digits",
            );
            for polygon in &area.polygons {
                let corners: Vec<&str> = polygon.split(' ').collect();
                let closed = corners.len() >= 4 && corners.first() == corners.last();
                must(
                    closed && corners.iter().all(|corner| is_pair(corner)),
                    "a polygon is not closed or not of corners",
                );
            }
            for circle in &area.circles {
                let whole = circle.split_once(' ').is_some_and(|(centre, radius)| {
                    is_pair(centre) && radius.parse::<f64>().is_ok_and(|radius| radius >= 0.0)
                });
                must(whole, "a circle is not of a centre and a radius");
            }
        }
    }
    for text in texts_of(alert) {
        must(text.chars().all(is_clean), "a text holds characters that may not be sent");
        must(text.trim() == text && !text.is_empty(), "a text is empty or has blanks around it");
    }
    found
}

fn one_of(text: &str, known: &[&str]) -> bool {
    known.contains(&text)
}

fn is_pair(text: &str) -> bool {
    let numbers = text.split_once(',').map(|(lat, lon)| (lat.parse::<f64>(), lon.parse::<f64>()));
    matches!(numbers, Some((Ok(lat), Ok(lon))) if on_earth(lat, lon))
}

/// The moment of a CAP time; `None` when the form is not CAP's, which is narrower than the schema's pattern.
fn moment(text: &str) -> Option<Timestamp> {
    let form: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let fits = form == "0000-00-00T00:00:00+00:00" || form == "0000-00-00T00:00:00-00:00";
    if fits && !text.ends_with("+00:00") { text.parse().ok() } else { None }
}

fn texts_of(alert: &Alert) -> Vec<&str> {
    let mut found: Vec<&str> = Vec::new();
    let optional =
        [&alert.source, &alert.restriction, &alert.addresses, &alert.note, &alert.references, &alert.incidents];
    found.extend(optional.into_iter().flatten().map(String::as_str));
    found.extend(alert.codes.iter().map(String::as_str));
    for info in &alert.infos {
        found.push(&info.event);
        let optional = [&info.sender_name, &info.headline, &info.description, &info.instruction, &info.contact];
        found.extend(optional.into_iter().flatten().map(String::as_str));
        let named = info.parameters.iter().chain(&info.event_codes);
        found.extend(named.flat_map(|named| [named.name.as_str(), named.value.as_str()]));
        found.extend(info.areas.iter().map(|area| area.desc.as_str()));
    }
    found
}

// ---------- XML ----------

impl Named {
    fn node(&self, name: &str) -> Node {
        branch(name, vec![leaf("valueName", &self.name), leaf("value", &self.value)])
    }

    fn take(children: &mut Children) -> Result<Self, String> {
        Ok(Self { name: children.one("valueName")?, value: children.one("value")? })
    }
}

impl Alert {
    fn node(&self) -> Node {
        let mut nodes = vec![
            leaf("identifier", &self.identifier),
            leaf("sender", &self.sender),
            leaf("sent", &self.sent),
            leaf("status", &self.status),
            leaf("msgType", &self.msg_type),
        ];
        nodes.extend(self.source.as_ref().map(|text| leaf("source", text)));
        nodes.push(leaf("scope", &self.scope));
        nodes.extend(self.restriction.as_ref().map(|text| leaf("restriction", text)));
        nodes.extend(self.addresses.as_ref().map(|text| leaf("addresses", text)));
        nodes.extend(self.codes.iter().map(|text| leaf("code", text)));
        nodes.extend(self.note.as_ref().map(|text| leaf("note", text)));
        nodes.extend(self.references.as_ref().map(|text| leaf("references", text)));
        nodes.extend(self.incidents.as_ref().map(|text| leaf("incidents", text)));
        nodes.extend(self.infos.iter().map(Info::node));
        branch("alert", nodes)
    }

    fn take(children: &mut Children) -> Result<Self, String> {
        Ok(Self {
            identifier: children.one("identifier")?,
            sender: children.one("sender")?,
            sent: children.one("sent")?,
            status: children.one("status")?,
            msg_type: children.one("msgType")?,
            source: children.maybe("source")?,
            scope: children.one("scope")?,
            restriction: children.maybe("restriction")?,
            addresses: children.maybe("addresses")?,
            codes: children.many("code")?,
            note: children.maybe("note")?,
            references: children.maybe("references")?,
            incidents: children.maybe("incidents")?,
            infos: children.branches("info", Info::take)?,
        })
    }
}

impl Info {
    fn node(&self) -> Node {
        let mut nodes = vec![leaf("language", &self.language)];
        nodes.extend(self.categories.iter().map(|text| leaf("category", text)));
        nodes.push(leaf("event", &self.event));
        nodes.extend(self.response_types.iter().map(|text| leaf("responseType", text)));
        nodes.push(leaf("urgency", &self.urgency));
        nodes.push(leaf("severity", &self.severity));
        nodes.push(leaf("certainty", &self.certainty));
        nodes.extend(self.event_codes.iter().map(|code| code.node("eventCode")));
        for (name, text) in [
            ("effective", &self.effective),
            ("expires", &self.expires),
            ("senderName", &self.sender_name),
            ("headline", &self.headline),
            ("description", &self.description),
            ("instruction", &self.instruction),
            ("contact", &self.contact),
        ] {
            nodes.extend(text.as_ref().map(|text| leaf(name, text)));
        }
        nodes.extend(self.parameters.iter().map(|parameter| parameter.node("parameter")));
        nodes.extend(self.areas.iter().map(Area::node));
        branch("info", nodes)
    }

    fn take(children: &mut Children) -> Result<Self, String> {
        Ok(Self {
            language: children.one("language")?,
            categories: children.many("category")?,
            event: children.one("event")?,
            response_types: children.many("responseType")?,
            urgency: children.one("urgency")?,
            severity: children.one("severity")?,
            certainty: children.one("certainty")?,
            event_codes: children.branches("eventCode", Named::take)?,
            effective: children.maybe("effective")?,
            expires: children.maybe("expires")?,
            sender_name: children.maybe("senderName")?,
            headline: children.maybe("headline")?,
            description: children.maybe("description")?,
            instruction: children.maybe("instruction")?,
            contact: children.maybe("contact")?,
            parameters: children.branches("parameter", Named::take)?,
            areas: children.branches("area", Area::take)?,
        })
    }
}

impl Area {
    fn node(&self) -> Node {
        let mut nodes = vec![leaf("areaDesc", &self.desc)];
        nodes.extend(self.polygons.iter().map(|text| leaf("polygon", text)));
        nodes.extend(self.circles.iter().map(|text| leaf("circle", text)));
        nodes.extend(self.geocodes.iter().map(|code| code.node("geocode")));
        branch("area", nodes)
    }

    fn take(children: &mut Children) -> Result<Self, String> {
        Ok(Self {
            desc: children.one("areaDesc")?,
            polygons: children.many("polygon")?,
            circles: children.many("circle")?,
            geocodes: children.branches("geocode", Named::take)?,
        })
    }
}

/// Reads what we write and no more.
fn parse(xml: &str) -> Result<Alert, String> {
    let root = xml::parse(xml, Some(NAMESPACE))?;
    let mut children = Children::below(root, "alert")?;
    let alert = Alert::take(&mut children)?;
    children.end()?;
    Ok(alert)
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use anmin_rules::broadcast::BroadcastState;
    use anmin_sensors::document::{Document as Toml, Faults};
    use anmin_sensors::reading::Value;

    use super::*;
    use crate::samples::{self, RAISED, check_golden, site};

    pub const STANZA: &str = "sender = 'anmin.shequ001.example.cn'\n\
        exercise = 'DRILL-2026-03-01-A'\n\
        contact = '0000-0000000'\n\
        area_name = { zh = '示例社区', en = 'Example Community' }\n\
        polygon = [[36.06, 103.83], [36.06, 103.84], [36.07, 103.84]]\n";

    fn settings(text: &str) -> Result<Settings, Vec<String>> {
        let faults = Faults::default();
        let doc = Toml::parse("t.toml", text, &faults).expect("TOML");
        let root = doc.root(&faults);
        let found = Settings::read(&root);
        root.finish();
        let faults = faults.take();
        match found {
            Some(settings) if faults.is_empty() => Ok(settings),
            _ => Err(faults.iter().map(ToString::to_string).collect()),
        }
    }

    pub fn words(more: &str) -> Words {
        Words::new(&settings(&format!("{STANZA}{more}")).expect("settings"), &site())
    }

    /// Goal: what waits for a target that is away does not become real, nor another sender's, by what is configured meanwhile.
    #[test]
    fn a_message_leaves_as_whoever_it_was_said_by_and_refers_to_what_was_sent() {
        let voice = |sender: &str, status: &str, zone: &str| {
            Some(Arc::new(Voice { sender: sender.into(), status: status.into(), zone: zone.into() }))
        };
        let [_, (_, update), _] = samples::cap_orders();
        let mut references = update.references.clone();
        references[0].voice = voice("anmin.before.example.cn", "Exercise", "+00:00");
        let order = CapOrder { voice: voice("anmin.then.example.cn", "Exercise", "+05:30"), references, ..update };
        let now = real_words("status = 'actual'\ntime_zone = 'Asia/Shanghai'");
        assert!(now.is_for_real());
        let xml = compose(&now, &order).expect("it is sound").xml;
        let of = |name: &str| {
            let (_, rest) = xml.split_once(&format!("<{name}>")).unwrap_or_else(|| panic!("no {name} in {xml}"));
            rest.split('<').next().unwrap_or_default().to_owned()
        };
        assert_eq!((of("status"), of("sender")), ("Exercise".to_owned(), "anmin.then.example.cn".to_owned()));
        assert!(of("sent").ends_with("+05:30"), "{xml}");
        let earlier = of("references");
        assert!(earlier.starts_with("anmin.before.example.cn,") && earlier.ends_with("-00:00"), "{earlier}");
        // Of a journal of before nobody knows better than the configuration.
        let unknown = CapOrder { voice: None, ..order.clone() };
        assert!(compose(&now, &unknown).expect("it is sound").xml.contains("<status>Actual</status>"));
        // A name of a way out is no reason to withdraw.
        for (identifier, says) in [("s-1-2-left-over", "level has dropped"), ("s-1-2-town~over", "with another status")]
        {
            let over = CapOrder { message: CapMessage::Cancel, identifier: identifier.to_owned(), ..order.clone() };
            assert!(compose(&now, &over).expect("it is sound").xml.contains(says), "{identifier}");
        }
        for zone in ["Asia/Shanghai", "+05:30", "-03:00", "UTC"] {
            let zone = time_zone(zone).expect("a zone");
            assert_eq!(time_zone(&zone_name(&zone)), Some(zone), "a zone is found again by its name");
        }
    }

    /// As a site that is not an exercise as a whole.
    fn real_words(more: &str) -> Words {
        Words::new(&settings(&format!("{STANZA}{more}")).expect("settings"), &Site { exercise: false, ..site() })
    }

    #[test]
    fn messages_stand_as_reviewed() {
        for (name, order) in samples::cap_orders() {
            check_golden(&format!("cap/{name}.xml"), &compose(&words(""), &order).expect(name).xml);
        }
    }

    /// Outline and position of the alarm's place, polygon of the stanza or none; then what the area holds.
    #[test]
    fn the_area_is_the_outline_of_the_place_else_a_circle_around_it_else_the_whole_community() {
        let outline = vec![(36.0, 103.0), (36.0, 103.5), (36.5, 103.5), (36.0, 103.0)];
        let drawn =
            "<polygon>36.000000,103.000000 36.000000,103.500000 36.500000,103.500000 36.000000,103.000000</polygon>";
        let circle = "<circle>36.061100,103.834300 0.05</circle>";
        let around =
            "<polygon>36.060000,103.830000 36.060000,103.840000 36.070000,103.840000 36.060000,103.830000</polygon>";
        let nowhere = Words::new(&settings("sender = 'a'").expect("settings"), &site());
        let [(_, order), ..] = samples::cap_orders();
        for (polygon, position, words, wanted) in [
            (outline.clone(), Some((36.0611, 103.8343)), words(""), vec![drawn]),
            (outline, None, words(""), vec![drawn]),
            (Vec::new(), Some((36.0611, 103.8343)), words(""), vec![circle]),
            (Vec::new(), None, words(""), vec![around]),
            (Vec::new(), None, nowhere, vec![]),
        ] {
            let place = Arc::new(Place { polygon, position, ..(*order.alarm.place).clone() });
            let alarm = Arc::new(Alarm { place, ..(*order.alarm).clone() });
            let xml = compose(&words, &CapOrder { alarm, ..order.clone() }).expect("it is sound").xml;
            let (_, area) = xml.split_once("</areaDesc>").expect("an area");
            let shapes: Vec<&str> = area
                .lines()
                .map(str::trim)
                .take_while(|line| *line != "</area>")
                .filter(|line| line.starts_with("<polygon") || line.starts_with("<circle"))
                .collect();
            assert_eq!(shapes, wanted);
        }
    }

    #[test]
    fn an_update_for_another_place_says_so() {
        let [_, (_, update), _] = samples::cap_orders();
        let alarm = Arc::new(Alarm { moved: 1, ..(*update.alarm).clone() });
        let made = compose(&words(""), &CapOrder { alarm, ..update }).expect("it is sound");
        assert!(
            made.headline.contains("位置更正，红色预警") && made.headline.contains(": place corrected, RED"),
            "{made:?}"
        );
    }

    #[test]
    fn every_level_hazard_and_status_gives_a_message_that_passes() {
        let classes = Hazard::ALL.into_iter().map(Class::Hazard).chain([Class::System]);
        for class in classes {
            for level in Level::ALL {
                for status in ["exercise", "test", "system", "actual"] {
                    for (name, mut order) in samples::cap_orders() {
                        order.alarm = Arc::new(Alarm { class, level, ..(*order.alarm).clone() });
                        let words =
                            real_words(&format!("status = '{status}'\nscope = 'private'\naddresses = ['a b', 'c']\n"));
                        let made = compose(&words, &order);
                        assert!(made.is_ok(), "{class:?} {level:?} {status} {name}: {made:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_cancel_says_all_clear_only_when_it_is() {
        let [_, _, (_, over)] = samples::cap_orders();
        let said = |alarm: Alarm| {
            let order = CapOrder { alarm: Arc::new(alarm), ..over.clone() };
            let alert = build(&words(""), &order);
            (alert.infos[0].response_types[0].clone(), alert.infos[1].headline.clone().expect("a headline"))
        };
        let closed = samples::closed();
        let below = Alarm { level: Level::Yellow, ..samples::alarm() };
        let mut shelved = samples::alarm();
        shelved.out_of_service = closed.acknowledged.clone();
        let mut taken_back = samples::alarm();
        taken_back.broadcast = Some(samples::broadcast(BroadcastState::TakenBack));
        assert_eq!(said(closed).0, "AllClear");
        for alarm in [below, shelved, taken_back] {
            let (response, headline) = said(alarm);
            assert_eq!(response, "Monitor");
            assert!(headline.contains("withdrawn") && !headline.contains("clear"), "{headline}");
        }
    }

    #[test]
    fn a_drill_is_an_exercise_and_what_is_real_never_is() {
        let drill = anmin_rules::drill::DrillId(uuid::Uuid::from_u128(7));
        for status in ["actual", "test", "system", "exercise"] {
            let words = real_words(&format!("status = '{status}'\n"));
            for (name, order) in samples::cap_orders() {
                let mut alarm = (*order.alarm).clone();
                let mark =
                    |text: &Text| Text { zh: format!("【演练】{}", text.zh), en: format!("[DRILL] {}", text.en) };
                (alarm.title, alarm.message) = (mark(&alarm.title), mark(&alarm.message));
                (alarm.advice, alarm.drill) = (mark(&alarm.advice), Some(drill));
                let played = CapOrder { alarm: Arc::new(alarm), ..order.clone() };
                let xml = compose(&words, &played).expect(name).xml;
                assert!(xml.contains("<status>Exercise</status>") && xml.contains(&drill.to_string()), "{xml}");
                assert!(xml.contains("<headline>【演练】") && xml.contains("<headline>EXERCISE: "), "{xml}");
                assert!(!xml.contains("[DRILL]") && !xml.contains("【演练】【演练】"), "marked once: {xml}");
                let real = compose(&words, &order).expect(name).xml;
                assert_eq!(real.contains("<status>Exercise</status>"), status == "exercise", "{real}");
            }
        }
    }

    #[test]
    fn a_site_that_is_an_exercise_sends_nothing_actual() {
        let [(_, order), ..] = samples::cap_orders();
        let xml = compose(&words("status = 'actual'\n"), &order).expect("a message").xml;
        assert!(xml.contains("<status>Exercise</status>") && xml.contains("<note>演练消息"), "{xml}");
        let xml = compose(&real_words("status = 'actual'\n"), &order).expect("a message").xml;
        assert!(xml.contains("<status>Actual</status>") && !xml.contains("演练"), "{xml}");
    }

    #[test]
    fn times_are_caps_own() {
        for (zone, wanted) in [
            ("Asia/Shanghai", "2026-03-01T09:30:00+08:00"),
            ("+08:00", "2026-03-01T09:30:00+08:00"),
            ("UTC", "2026-03-01T01:30:00-00:00"),
            ("-03:30", "2026-02-28T22:00:00-03:30"),
        ] {
            let found = stamp(RAISED, &time_zone(zone).expect(zone));
            assert_eq!(found, wanted);
            assert!(moment(&found).is_some(), "{found}");
        }
        for wrong in [
            "2026-03-01T09:30:00Z",
            "2026-03-01T09:30:00,08:00",
            "2026-03-01T09:30:00.5+08:00",
            "2026-02-30T09:30:00+08:00",
            "2026-03-01T01:30:00+00:00",
            "2026-03-01 09:30:00+08:00",
        ] {
            assert!(moment(wrong).is_none(), "{wrong}");
        }
        for wrong in ["", "Mars/Olympus", "+99:00", "+8"] {
            assert!(time_zone(wrong).is_none(), "{wrong}");
        }
    }

    /// Goal: nothing that a device, a rule or a person writes breaks a message or escapes from its element. Method: each
    /// hostile text in each field, at once and alone; every message must pass our own reader and rules.
    pub fn hostile() -> Vec<(&'static str, String)> {
        vec![
            ("cdata end", "]]>".to_owned()),
            ("doctype", "<!DOCTYPE alert [<!ENTITY x SYSTEM \"file:///etc/passwd\">]>&x;".to_owned()),
            ("element", "</description><status>Actual</status><description>".to_owned()),
            ("references", "&#x1; &amp;amp; &lt; &unknown;".to_owned()),
            ("controls", (0..0x20_u8).map(char::from).chain(['\u{7f}', '\u{80}', '\u{9f}']).collect()),
            ("noncharacters", "\u{fffe}\u{ffff}\u{fdd0}\u{1ffff}\u{10ffff}\u{feff}".to_owned()),
            ("right to left", "\u{202e}evacuate\u{202c}\u{200f}\u{2066}x\u{2069}\u{61c}".to_owned()),
            ("line ends", "a\r\nb\rc\u{85}d\u{2028}e\n\n\nf".to_owned()),
            ("blanks", " \t \u{3000} \n ".to_owned()),
            ("empty", String::new()),
            ("quotes", "\"'`,;<>&=".to_owned()),
            ("marks of an exercise", "【演练】EXERCISE: 【演练】 x".to_owned()),
            ("a mark alone", "【演练】".to_owned()),
            ("a mark behind what shows nothing", "\u{200b}【演练】\u{feff}EXERCISE: x".to_owned()),
            ("wide", "🚒火🔥".repeat(40)),
            ("64 KiB", "燃".repeat(64 * 1024 / 3)),
            ("64 KiB of markup", "<&>\"'".repeat(64 * 1024 / 5)),
        ]
    }

    /// Alarms with one hostile text in one field each, and in all.
    pub fn hostile_orders() -> Vec<(String, CapOrder)> {
        type Put = fn(&mut Alarm, &str);
        let fields: [(&str, Put); 8] = [
            ("title", |alarm, text| alarm.title = samples::text(text, text)),
            ("message", |alarm, text| alarm.message = samples::text(text, text)),
            ("advice", |alarm, text| alarm.advice = samples::text(text, text)),
            ("place", |alarm, text| {
                alarm.place = Arc::new(Place {
                    area: text.to_owned(),
                    building: text.to_owned(),
                    room: text.to_owned(),
                    position: Some((f64::NAN, 1e9)),
                    ..Place::default()
                });
            }),
            ("rule", |alarm, text| alarm.rule = anmin_rules::rule::RuleId::new(text)),
            ("subject", |alarm, text| alarm.subject = anmin_rules::alarm::Subject::Part(text.into())),
            ("value", |alarm, text| alarm.evidence.value = Some(Value::Text(text.into()))),
            ("unit", |alarm, text| alarm.evidence.unit = text.to_owned()),
        ];
        let mut orders = Vec::new();
        for (name, text) in hostile() {
            for (kind, order) in samples::cap_orders() {
                let mut all = (*order.alarm).clone();
                for (field, put) in fields {
                    put(&mut all, &text);
                    let mut alone = (*order.alarm).clone();
                    put(&mut alone, &text);
                    orders.push((
                        format!("{name} in {field} of {kind}"),
                        CapOrder { alarm: Arc::new(alone), ..order.clone() },
                    ));
                }
                orders.push((format!("{name} everywhere in {kind}"), CapOrder { alarm: Arc::new(all), ..order }));
            }
        }
        orders
    }

    #[test]
    fn hostile_text_stays_text() {
        for (name, order) in hostile_orders() {
            let real = compose(&real_words("status = 'actual'"), &order).unwrap_or_else(|why| panic!("{name}: {why}"));
            assert!(!real.headline.starts_with(EXERCISE_ZH), "{name}: {}", real.headline);
            let made = compose(&words(""), &order).unwrap_or_else(|why| panic!("{name}: {why}"));
            assert!(made.xml.len() < 64 * 1024, "{name}: {} bytes", made.xml.len());
            assert_eq!(made.xml.matches("<status>").count(), 1, "{name}");
        }
    }

    #[test]
    fn hostile_settings_give_faults_or_sound_messages() {
        for (name, text) in hostile() {
            let quoted = serde_json::to_string(&text).expect("JSON, which TOML reads too").replace('\u{7f}', "\\u007f");
            let stanza = format!(
                "sender = 'a'\nsender_name = {quoted}\nrestriction = {quoted}\ncontact = {quoted}\nexercise = {quoted}\n\
                 area_name = {quoted}\n"
            );
            let Ok(settings) = settings(&stanza) else { continue };
            for (kind, order) in samples::cap_orders() {
                let made = compose(&Words::new(&settings, &site()), &order);
                assert!(made.is_ok(), "{name} in {kind}: {made:?}");
            }
        }
    }

    #[test]
    fn broken_messages_are_found() {
        let [(_, order), ..] = samples::cap_orders();
        let good = compose(&words(""), &order).expect("a message").xml;
        for (from, to, wanted) in [
            ("<status>Exercise", "<status>Actual", "differ about the exercise"),
            ("<scope>Restricted", "<scope>Public", "scope"),
            ("+08:00</sent>", "Z</sent>", "sent is not a CAP time"),
            ("+08:00</sent>", ",08:00</sent>", "sent is not a CAP time"),
            ("<msgType>Alert", "<msgType>Cancel", "refers to nothing"),
            ("<language>en-US", "<language>zh-CN", "two infos in one language"),
            ("<headline>【演练】", "<headline>", "differ about the exercise"),
            ("<sender>", "<sender>x y", "sender"),
            ("620102001001</value>", "62010200100</value>", "12 digits"),
            ("<sender>", "<!-- hi --><sender>", "no message of ours"),
            ("<alert", "<!DOCTYPE alert><alert", "no message of ours"),
            ("<event>", "<event>&xxe;", "entity"),
            ("</scope>", "</scope><extra>1</extra>", "not known"),
            ("<scope>", "<scope a=\"1\">", "attributes"),
            ("</alert>", "", "no message of ours"),
            ("</alert>", "</alert><alert/>", "no message of ours"),
        ] {
            assert!(good.contains(from), "{from}");
            let found = check(&good.replacen(from, to, 1)).expect_err(to);
            assert!(found.contains(wanted), "{to}: {found}");
        }
        assert_eq!(check(&good), Ok(()));
    }

    #[test]
    fn settings_are_refused_with_a_reason() {
        for (text, wanted) in [
            ("", "`sender` is missing"),
            ("sender = 'a b'", "white space"),
            ("sender = 'a'\nscope = 'public'", "second person"),
            ("sender = 'a'\nscope = 'private'", "needs `addresses`"),
            ("sender = 'a'\naddresses = ['x']", "belongs to scope"),
            ("sender = 'a'\narea_code = '1234'", "12 digits"),
            ("sender = 'a'\ntime_zone = 'Mars/Olympus'", "does not know"),
            ("sender = 'a'\nlanguages = ['zh-CN', 'fr-FR']", "fr-FR"),
            ("sender = 'a'\npolygon = [[1, 1], [2, 2]]", "three corners"),
            ("sender = 'a'\npolygon = [[0, 0], [1, 1], [0, 1], [1, 0]]", "cross itself"),
            ("sender = 'a'\nexpires = '10s'", "one minute"),
            ("sender = 'a'\nstatus = 'draft'", "expected one of"),
        ] {
            let found = settings(text).expect_err(text).join("\n");
            assert!(found.contains(wanted), "{text}: {found}");
        }
    }
}
