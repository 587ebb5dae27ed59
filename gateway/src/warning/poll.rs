//! Asks a source's addresses for what is new, and tells it what was acknowledged here.
//!
//! A feed that says by its `ETag` that nothing is new is not read again. Messages that a feed only links to are fetched once
//! each, from the feed's own host and no other. A source that has not answered well for [`PATIENCE`] is the alarm
//! `warning-source:<id>`: no warning is then no good sign.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anmin_rules::rule::{Finding, Level, Text};
use anmin_sensors::time::{Mono, Wall};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use url::Url;

use super::book::Warning;
use super::message::{self, Feed, MOST_FEED, Message};
use super::{Refused, Warnings, mark};
use crate::delivery::cap::stamp;
use crate::delivery::http::{Http, Target};
use crate::delivery::{DeliveryError, Site, excerpt};
use crate::main_loop::{Input, PartState, PartTrouble};
use crate::telemetry::{More, Repeats};

/// A source that fails for so long is told.
const PATIENCE: Duration = Duration::from_secs(600);
/// Messages that one feed links to at most; more are of an archive.
const MOST_LINKS: usize = 200;
/// An acknowledgement is tried again so often, with pauses that double from a second to five minutes.
const MOST_TRIES: u32 = 20;

impl Warnings {
    /// The addresses that are polled: the source and the number of its address.
    pub fn addresses(&self) -> Vec<(Arc<str>, usize)> {
        let all = self.sources();
        let of = |source: &Arc<super::Source>| {
            (0..source.settings.urls.len()).map(|n| (Arc::clone(source.id()), n)).collect()
        };
        all.values().flat_map(|source| -> Vec<_> { of(source) }).collect()
    }

    /// Polls one of [`Warnings::addresses`] until the main loop has ended.
    pub async fn poll(self, source: Arc<str>, n: usize, inputs: mpsc::Sender<Input>) {
        let target = self.find(&source).and_then(|source| source.settings.urls.get(n).cloned());
        let Some(target) = target else { return };
        let poll = Poll {
            part: match n {
                0 => format!("warning-source:{source}").into(),
                n => format!("warning-source:{source}/{}", n + 1).into(),
            },
            well_at: self.0.clock.now().mono,
            all: self,
            source,
            target,
            inputs,
            etag: None,
            fetched: BTreeSet::new(),
            told: None,
            repeats: Repeats::default(),
        };
        poll.run().await;
    }

    /// Tells the source by a CAP Ack (CAP 1.2 section 3.2.1: receipt and acceptance) that its warning was acknowledged; gives
    /// whether it has heard.
    pub(super) async fn acknowledge(&self, warning: &Warning, by: &str) -> bool {
        let Some(source) = self.find(&warning.source) else { return false };
        let Some((http, sender)) = &source.ack else { return false };
        let xml = ack(&self.0.site, sender, warning, by, self.0.clock.now().wall);
        let authorization = source.authorization();
        let id = format!("{}-ack-{}", self.0.site.id, mark(&warning.message.key));
        let mut headers = vec![("content-type", "application/cap+xml"), ("idempotency-key", id.as_str())];
        headers.extend(authorization.as_deref().map(|value| ("authorization", value)));
        for n in 0..MOST_TRIES {
            match http.post(&headers, Bytes::from(xml.clone())).await {
                Ok(receipt) => {
                    tracing::info!(
                        source = &**source.id(),
                        identifier = id,
                        "acknowledged upstream: {}",
                        receipt.detail
                    );
                    return true;
                }
                Err(DeliveryError::Never(why)) => {
                    tracing::error!(
                        source = &**source.id(),
                        identifier = id,
                        why,
                        "the acknowledgement is refused upstream"
                    );
                    return false;
                }
                Err(DeliveryError::RetryAfter { wait, .. }) => sleep(wait.min(Duration::from_secs(600))).await,
                Err(DeliveryError::Retry(_)) => sleep(Duration::from_secs((1 << n.min(9)).min(300))).await,
            }
            if warning.until <= self.0.clock.now().wall {
                break;
            }
        }
        tracing::error!(source = &**source.id(), identifier = id, "the acknowledgement did not reach the source");
        false
    }
}

/// A CAP message of type Ack, to the sender alone.
fn ack(site: &Site, sender: &str, warning: &Warning, by: &str, now: Wall) -> String {
    let key = &warning.message.key;
    let escape = |text: &str| quick_xml::escape::escape(text).into_owned();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<alert xmlns=\"urn:oasis:names:tc:emergency:cap:1.2\">\n\
         <identifier>{}-ack-{}</identifier>\n<sender>{}</sender>\n<sent>{}</sent>\n<status>{}</status>\n\
         <msgType>Ack</msgType>\n<scope>Private</scope>\n<addresses>{}</addresses>\n<note>{}</note>\n\
         <references>{},{},{}</references>\n</alert>\n",
        escape(&site.id),
        mark(key),
        escape(sender),
        stamp(now, &site.time_zone),
        warning.message.status.as_str(),
        escape(&key.sender),
        escape(&format!("已由 {by} 确认 / acknowledged by {by}")),
        escape(&key.sender),
        escape(&key.identifier),
        escape(&warning.message.sent),
    )
}

struct Poll {
    all: Warnings,
    source: Arc<str>,
    target: Target,
    inputs: mpsc::Sender<Input>,
    part: Arc<str>,
    etag: Option<String>,
    /// Messages that the feed links to and that were fetched.
    fetched: BTreeSet<String>,
    well_at: Mono,
    told: Option<String>,
    repeats: Repeats,
}

impl Poll {
    async fn run(mut self) {
        let every = self.all.find(&self.source).map_or(PATIENCE, |source| source.settings.every);
        while !self.inputs.is_closed() {
            let result = self.once().await;
            self.judge(result).await;
            sleep(every).await;
        }
    }

    async fn judge(&mut self, result: Result<(), String>) {
        let now = self.all.0.clock.now().mono;
        let trouble = match result {
            Ok(()) => {
                self.well_at = now;
                if self.told.take().is_none() {
                    return;
                }
                None
            }
            Err(why) if self.told.is_some() || now.since(self.well_at) < PATIENCE => {
                tracing::debug!(part = &*self.part, why, "a source of warnings cannot be read");
                return;
            }
            Err(why) => {
                let source = &self.source;
                self.told = Some(why.clone());
                let message = Text {
                    zh: format!(
                        "上级预警来源 {source} 已超过十分钟无法读取（{why}），没有预警不代表没有险情，请电话核实"
                    ),
                    en: format!(
                        "source of warnings {source} cannot be read for over ten minutes ({why}); no warning is no \
                         good sign: ask by phone"
                    ),
                };
                let finding = Finding { level: Level::Yellow, limit: None, note: Some(why) };
                Some(PartTrouble { finding, message })
            }
        };
        // Fails only when the main loop has ended.
        let _ = self.inputs.send(Input::Part(PartState { part: Arc::clone(&self.part), trouble })).await;
    }

    /// One look. What is unsound is said and costs nothing else.
    async fn once(&mut self) -> Result<(), String> {
        let all = self.all.clone();
        let Some(source) = all.find(&self.source) else { return Ok(()) };
        let http = Http::new(&self.target)?;
        let authorization = source.authorization();
        let mut headers: Vec<(&str, &str)> =
            authorization.as_deref().map(|value| ("authorization", value)).into_iter().collect();
        let etag = self.etag.clone();
        headers.extend(etag.as_deref().map(|tag| ("if-none-match", tag)));
        let answer = http.get(None, &headers, MOST_FEED).await?;
        match answer.status {
            304 => return Ok(()),
            200 => {}
            other => return Err(format!("HTTP {other}")),
        }
        let body = answer.body.clone();
        let Feed { messages, links } = spawn_blocking(move || message::read_feed(&body))
            .await
            .map_err(|error| error.to_string())?
            .map_err(|why| excerpt(&why))?;
        for message in messages {
            match message {
                Ok(message) => drop(self.take(Ok(message), answer.body.clone()).await),
                Err(why) => {
                    if let Some(more) = self.say("unsound") {
                        tracing::warn!(
                            source = &*self.source,
                            why = excerpt(&why),
                            more,
                            "a message in the feed is not sound"
                        );
                    }
                }
            }
        }
        let own = Url::parse(&self.target.url()).map_err(|error| error.to_string())?;
        let mut named = BTreeSet::new();
        let mut missed = None;
        for link in links.iter().take(MOST_LINKS) {
            let Ok(address) = own.join(link) else { continue };
            if address.origin() != own.origin() {
                if let Some(more) = self.say("another host") {
                    tracing::warn!(
                        source = &*self.source,
                        host = address.host_str(),
                        more,
                        "a feed links to another host; not fetched"
                    );
                }
                continue;
            }
            let path = address[url::Position::BeforePath..url::Position::AfterQuery].to_owned();
            named.insert(path.clone());
            if self.fetched.contains(&path) {
                continue;
            }
            let headers: Vec<(&str, &str)> =
                headers.iter().filter(|(name, _)| *name == "authorization").copied().collect();
            match http.get(Some(&path), &headers, message::MOST_MESSAGE).await {
                Ok(answer) if answer.status == 200 => {
                    if self.take(Err(()), answer.body).await {
                        self.fetched.insert(path);
                    }
                }
                Ok(answer) => missed = Some(format!("HTTP {} for a message", answer.status)),
                Err(why) => missed = Some(why),
            }
        }
        self.fetched.retain(|path| named.contains(path));
        match missed {
            // The next look fetches it.
            Some(why) => Err(why),
            None => {
                self.etag = answer.etag;
                Ok(())
            }
        }
    }

    /// A feed brings the same again with every look, and two hundred at once: each kind is said once a minute.
    fn say(&mut self, kind: &str) -> Option<More> {
        self.repeats.say(kind, self.all.0.clock.now().mono)
    }

    /// A message, read already or not, with the document that holds it. Whether it need not be fetched again.
    async fn take(&mut self, message: Result<Message, ()>, document: Bytes) -> bool {
        let (all, id) = (self.all.clone(), Arc::clone(&self.source));
        let taken = spawn_blocking(move || {
            let source = all.find(&id)?;
            Some(match message {
                Ok(message) => all.take(&source, message, &document),
                Err(()) => all.accept(&source, &document),
            })
        });
        match taken.await {
            Ok(Some(Err(Refused::NotKept(_)))) | Err(_) => false,
            Ok(Some(Err(refused))) => {
                if let Some(more) = self.say("not taken") {
                    let why = excerpt(&refused.to_string());
                    tracing::warn!(source = &*self.source, why, more, "a message is not taken");
                }
                true
            }
            Ok(_) => true,
        }
    }
}
