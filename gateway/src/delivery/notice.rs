//! Notices to people: to a group chat by its robot, to mailboxes, and to telephones.
//!
//! What a notice says is in [`words`]; when it leaves, in [`super::courier`]: a way out to people takes so many messages a
//! minute, so what comes too fast goes together in one, and nothing grave waits behind what is less. [`robot`], [`mail`] and
//! [`gateway`] know how each is spoken to, and nothing of what is said; [`told`] remembers who of several has a message already.
//!
//! ```toml
//! [[notice]]
//! id           = "duty-group"
//! robot        = "wecom"                  # wecom | dingtalk | feishu
//! address_file = "secrets/duty-group"     # what the group shows as the robot's webhook address
//! stations     = []                       # a station's own group: its calls alone, with the links to answer them
//!
//! [[notice]]
//! id           = "property-mail"
//! mail         = "smtps://mail.example.cn"
//! from         = "anmin@example.cn"
//! to           = ["duty@example.cn"]
//!
//! [[notice]]
//! id           = "duty-sms"
//! gateway      = "https://sms.example.cn/send"
//! speaks       = "sms"                    # sms | voice
//! body         = '{"to": "{{number}}", "text": "{{text}}", "id": "{{id}}"}'
//! numbers_file = "secrets/duty-numbers"
//! ```
//!
//! "Accepted" is not "read": that somebody is reached only a report of the gateway says, see [`crate::delivery_report`].

mod gateway;
mod mail;
mod robot;
mod template;
mod told;
mod words;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anmin_rules::duty::Zone;
use anmin_rules::order::{Channel, ChannelForm, Order};
use anmin_rules::rule::Level;
use anmin_sensors::document::{Fault, Reader};
use anmin_sensors::time::Wall;

use tokio::sync::mpsc;

use super::courier::Pace;
use super::hours::{Hours, Quiet};
use super::{Carrier, DeliveryError, Receipt, Site, read_channel, read_spares};
use crate::clock::Clock;
use crate::config;
use crate::credentials::named_file;
use crate::crew_link::Links;
use crate::delivery_report;
use crate::main_loop::Input;
use crate::outgoing::Outgoing;
use gateway::Telephones;
use mail::Mail;
use robot::Group;
use template::Template;
use words::{Language, Manner, Words};

/// The least that a way out to people must take in a minute, so that some is left for what is grave.
const SLOWEST: usize = 10;

const WITHIN_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(3_600);

/// `[[notice]]`.
#[derive(Clone, Debug)]
pub struct Settings {
    pub channel: Channel,
    by: Form,
    languages: Vec<(Language, Arc<Template>)>,
    /// Messages.
    per_minute: usize,
    page: Option<String>,
    hours: Hours,
    deliver_within: Duration,
}

/// How people are reached.
#[derive(Clone, Debug)]
enum Form {
    Robot(robot::Settings),
    Mail(mail::Settings),
    Gateway(Box<gateway::Settings>),
}

impl Form {
    /// The keys that choose it.
    const KEYS: [&'static str; 3] = ["robot", "mail", "gateway"];

    fn read(r: &Reader<'_>, base: &Path) -> Option<Self> {
        let given: Vec<&str> = Self::KEYS.into_iter().filter(|key| r.has(key)).collect();
        match given.as_slice() {
            ["robot"] => robot::Settings::read(r, base).map(Self::Robot),
            ["mail"] => mail::Settings::read(r, base).map(Self::Mail),
            ["gateway"] => gateway::Settings::read(r, base).map(Box::new).map(Self::Gateway),
            [] => {
                r.fault("id", "`robot`, `mail` or `gateway` is missing: it says how people are reached", None);
                None
            }
            [first, ..] => {
                r.fault(first, format!("`{}` are given, expected one of them", given.join("` and `")), None);
                None
            }
        }
    }

    fn manner(&self) -> Manner {
        match self {
            Self::Robot(_) => Manner::Robot,
            Self::Mail(_) => Manner::Mail,
            Self::Gateway(telephones) => telephones.manner,
        }
    }

    /// Requests a minute, where nothing else is said.
    fn per_minute(&self) -> usize {
        match self {
            Self::Robot(group) => group.robot.per_minute(),
            Self::Mail(_) => mail::PER_MINUTE,
            Self::Gateway(telephones) => telephones.per_minute(),
        }
    }

    /// Requests that one message costs.
    fn requests(&self) -> usize {
        match self {
            Self::Robot(_) | Self::Mail(_) => 1,
            Self::Gateway(telephones) => telephones.requests,
        }
    }

    /// The longest message, as [`Manner::measure`] counts.
    fn most(&self, languages: impl Iterator<Item = Language>) -> usize {
        match self {
            Self::Robot(group) => group.robot.most_bytes(),
            Self::Mail(_) => mail::MOST_BYTES,
            Self::Gateway(telephones) => telephones.most(languages),
        }
    }
}

/// How long somebody has to be reached or to answer.
fn read_within(r: &Reader<'_>, key: &'static str) -> Option<Duration> {
    let within = r.optional::<Duration>(key);
    if within.is_some_and(|within| !WITHIN_RANGE.contains(&within)) {
        r.fault(key, format!("`{key}` must lie between ten seconds and one hour"), None);
    }
    within
}

/// The template of a language: the site's own where it has one that can be used, and says why where it cannot.
fn template(r: &Reader<'_>, folder: Option<&Path>, manner: Manner, language: Language) -> Arc<Template> {
    match folder.and_then(|folder| template::own(folder, manner, language)) {
        Some((_, Ok(own))) => Arc::new(own),
        Some((source, Err(unusable))) => {
            let hint = Some("the one that anmin is shipped with is used".to_owned());
            let column = usize::from(unusable.line > 0);
            r.warn(Fault { source, line: unusable.line, column, message: unusable.why, hint, zh: None });
            template::shipped(manner, language)
        }
        None => template::shipped(manner, language),
    }
}

impl Settings {
    pub fn read(r: &Reader<'_>, base: &Path) -> Option<Self> {
        let channel = read_channel(r, ChannelForm::Events, Level::Yellow, true);
        let stations: Vec<String> = r.or("stations", Vec::new());
        let (then, deliver_within) = read_spares(r);
        let (reached_within, answered_within) = (read_within(r, "reached_within"), read_within(r, "answered_within"));
        let hours = Hours::read(r);
        let by = Form::read(r, base);
        let mut languages: Vec<Language> = Vec::new();
        for word in r.or("languages", vec!["zh-CN".to_owned()]) {
            match Language::CHOICES.iter().find(|(name, _)| *name == word) {
                Some((_, language)) if !languages.contains(language) => languages.push(*language),
                Some(_) => r.fault("languages", format!("`languages` names {word:?} twice"), None),
                None => {
                    r.fault("languages", format!("`languages` has {word:?}, expected \"zh-CN\" or \"en-US\""), None)
                }
            }
        }
        if languages.is_empty() {
            r.fault("languages", "`languages` names none", Some("languages = [\"zh-CN\"]".to_owned()));
        }
        let folder = r.optional::<String>("templates").map(|folder| named_file(base, folder));
        if let Some(folder) = folder.as_deref().filter(|folder| !folder.is_dir()) {
            r.fault("templates", format!("`templates` names {}, which is no folder", folder.display()), None);
        }
        let per_minute = r.optional::<usize>("per_minute").or(by.as_ref().map(Form::per_minute));
        let requests = by.as_ref().map_or(1, Form::requests);
        if let Some(few) = per_minute.filter(|per_minute| !(SLOWEST * requests..=1_000 * requests).contains(per_minute))
        {
            let (least, most) = (SLOWEST * requests, 1_000 * requests);
            let hint = (requests > 1).then(|| format!("one message is {requests} requests"));
            r.fault("per_minute", format!("`per_minute` is {few}, expected {least} to {most}"), hint);
        }
        let page: Option<String> = r.optional("page");
        if let Some(page) = page.as_deref().filter(|page| !page.starts_with("https://") && !page.starts_with("http://"))
        {
            r.fault("page", format!("`page` is {page:?}, expected http:// or https://"), None);
        }
        // Without its form nobody can say which of the other keys belong to it.
        let by = by?;
        let reports = matches!(&by, Form::Gateway(telephones) if telephones.report.is_some());
        if reached_within.is_some() && !reports {
            let hint = Some("`answered_within` needs none".to_owned());
            r.fault(
                "reached_within",
                "`reached_within` without [notice.report]: nobody would say who is reached",
                hint,
            );
        }
        r.finish();
        let stations = stations.into_iter().map(Into::into).collect();
        let of = |language| (language, template(r, folder.as_deref(), by.manner(), language));
        Some(Self {
            channel: Channel { stations, then, reached_within, answered_within, ..channel? },
            languages: languages.into_iter().map(of).collect(),
            per_minute: per_minute? / by.requests(),
            by,
            page,
            hours,
            deliver_within,
        })
    }

    pub fn heed(&mut self, outgoing: &Outgoing, r: &Reader<'_>) {
        match &mut self.by {
            Form::Robot(group) => group.heed(outgoing, r),
            Form::Mail(mail) => mail.heed(outgoing, r),
            Form::Gateway(telephones) => telephones.heed(outgoing, r),
        }
    }

    /// How reports of its gateway are read, where it sends any.
    pub fn report(&self) -> Option<&delivery_report::Settings> {
        match &self.by {
            Form::Gateway(telephones) => telephones.report.as_ref(),
            Form::Robot(_) | Form::Mail(_) => None,
        }
    }

    fn words(&self, site: &Site, links: Option<&Links>) -> Words {
        Words {
            site: site.clone(),
            languages: self.languages.clone(),
            page: self.page.clone(),
            // By telephone there is no room for a link of each.
            links: links.filter(|_| matches!(self.by, Form::Robot(_) | Form::Mail(_))).cloned(),
            manner: self.by.manner(),
            most: self.by.most(self.languages.iter().map(|(language, _)| *language)),
        }
    }

    /// Writes what an order says when it leaves by itself, without the links by which a crew answers: they open doors. `None` of
    /// what is not told.
    pub fn teller(&self, site: &Site) -> impl Fn(&Order) -> Option<String> + use<> {
        let words = self.words(site, None);
        move |order| (!words::is_bookkeeping(order)).then(|| words.as_sent(&[order]).ok()).flatten()
    }
}

/// The carrier of one `[[notice]]`.
pub struct Notice {
    by: By,
    words: Words,
    per_minute: usize,
    hours: Hours,
    zone: Zone,
    /// Where a spare way out waits for what this one does not take.
    deliver_within: Option<Duration>,
    clock: Clock,
    inputs: mpsc::Sender<Input>,
}

enum By {
    Robot(Box<Group>),
    Mail(Box<Mail>),
    Gateway(Box<Telephones>),
}

/// Reads the secrets; connects only when there is something to say.
pub fn carrier(
    settings: &Settings,
    site: &Site,
    links: Option<&Links>,
    clock: &Clock,
    inputs: &mpsc::Sender<Input>,
) -> Result<Notice, String> {
    let by = match &settings.by {
        Form::Robot(group) => By::Robot(Box::new(Group::new(group, clock)?)),
        Form::Mail(mail) => By::Mail(Box::new(Mail::new(mail, clock)?)),
        Form::Gateway(telephones) => By::Gateway(Box::new(Telephones::new(telephones, clock)?)),
    };
    Ok(Notice {
        by,
        // Only a station's own group is given its links.
        words: settings.words(site, links.filter(|_| !settings.channel.stations.is_empty())),
        per_minute: settings.per_minute,
        hours: settings.hours.clone(),
        zone: Zone::new(config::ahead(&site.time_zone)),
        deliver_within: (!settings.channel.then.is_empty()).then_some(settings.deliver_within),
        clock: clock.clone(),
        inputs: inputs.clone(),
    })
}

impl Carrier for Notice {
    async fn carry(&self, order: &Order) -> Result<Receipt, DeliveryError> {
        self.say(&[order]).await
    }

    fn pace(&self) -> Option<Pace> {
        Some(Pace { per_minute: self.per_minute })
    }

    fn quiet_at(&self, at: Wall) -> Option<Quiet> {
        self.hours.quiet_at(&self.zone, at)
    }

    fn deliver_within(&self) -> Option<Duration> {
        self.deliver_within
    }

    async fn carry_all(&self, order: &Order, with: &[Order]) -> Result<Receipt, DeliveryError> {
        let orders: Vec<&Order> = std::iter::once(order).chain(with).collect();
        self.say(&orders).await
    }
}

impl Notice {
    async fn say(&self, orders: &[&Order]) -> Result<Receipt, DeliveryError> {
        // To which incident an alarm belongs is for screens.
        let orders: Vec<&Order> = orders.iter().filter(|order| !words::is_bookkeeping(order)).copied().collect();
        if orders.is_empty() {
            return Ok(Receipt::of("nothing that people need be told"));
        }
        let (result, told) = match &self.by {
            By::Robot(group) => return group.say(self.words.message(&orders)?).await,
            By::Mail(mail) => (mail.send(&self.words, &orders).await, &mail.told),
            By::Gateway(telephones) => (telephones.send(&self.words, &orders).await, &telephones.told),
        };
        for heard in told.take_news(&orders[0].channel, self.clock.now().wall) {
            // It fails only at the very end.
            let _ = self.inputs.send(Input::Addressed(Box::new(heard))).await;
        }
        result
    }
}

#[cfg(test)]
mod tests;
