//! The emergency broadcast (应急广播): one package a message, after GD/J 082 practice, to a platform or into a folder.
//!
//! Which messages there are, and what each takes the place of, follows as for `[[cap]]`; here stand how they are numbered, packed,
//! signed and carried, and what the platform's answer means. A platform takes `POST` of `multipart/form-data` with the package in the
//! field `file`, and answers with an `EBDResponse` in a tar or bare: 0 and 1 are taken, 2 to 5 refused.
//!
//! ```toml
//! [[ebm]]
//! id     = "town-eb"
//! url    = "https://eb.example.cn/ebd"          # or: folder = "ebm"
//! source = "66201020010010314000001"            # this site's resource code (EBRID)
//! dest   = "46201020000000314000001"            # the platform's
//! status = "exercise"                           # exercise | actual
//! ```

pub mod numbers;
pub mod package;
pub mod sign;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anmin_rules::order::{CapOrder, Channel, ChannelForm, Order, OrderBody};
use anmin_rules::rule::Level;
use anmin_sensors::document::{Reader, did_you_mean};
use anmin_sensors::time::Wall;
use bytes::Bytes;

use super::broadcast::write_whole;
use super::cap::{self, Status};
use super::http::{Http, Target};
use super::{Carrier, DeliveryError, Receipt, Site, read_public_channel, read_spares};
use crate::clock::Clock;
use crate::outgoing::Outgoing;
use crate::store::reach::NAMED;
use numbers::Numbers;
use package::{Answered, Document, EVENTS};
use sign::Signer;

/// `[[ebm]]`: where the packages go and what they say.
#[derive(Clone, Debug)]
pub struct Settings {
    pub channel: Channel,
    /// Tells the platform that the connection is there.
    pub heartbeat: bool,
    /// A message that is not taken by then is late.
    deliver_within: Duration,
    to: To,
    dest: String,
    drill: u8,
    codes: Vec<(&'static str, String)>,
    signer: Option<Signer>,
    words: cap::Settings,
}

#[derive(Clone, Debug)]
enum To {
    Platform(Target),
    Folder(PathBuf),
}

impl Settings {
    /// `site_has_area`: the site names a code of its area that serves here.
    pub fn read(r: &Reader<'_>, base: &Path, site_has_area: bool) -> Option<Self> {
        let channel = read_public_channel(r, ChannelForm::Cap, Level::Orange);
        let folder: Option<String> = r.optional("folder");
        let heartbeat = r.or("heartbeat", false);
        if heartbeat && folder.is_some() {
            r.fault("heartbeat", "`heartbeat` belongs to `url`", None);
        }
        let to = match (r.has("url"), folder) {
            (true, None) => Target::read(r, base).map(To::Platform),
            (false, Some(folder)) => Some(To::Folder(base.join(folder))),
            _ => {
                let hint = "where the platform takes packages, or a folder that somebody empties".to_owned();
                r.fault("url", "an [[ebm]] stanza needs one of `url` and `folder`", Some(hint));
                r.optional::<String>("url");
                None
            }
        };
        let [source, dest] = ["source", "dest"].map(|key| resource(r, key));
        let drills = [("platform", 3), ("front_end", 4), ("terminal", 5)];
        let drill = r.choice("drill", &drills).unwrap_or(3);
        let codes = event_codes(r);
        let signer = Signer::read(r);
        let statuses = [("exercise", Status::Exercise), ("actual", Status::Actual)];
        let words = cap::Settings::of_another_form(r, source.clone().unwrap_or_default(), &statuses, package::zone());
        if !r.has("area_code") && !site_has_area {
            let hint = "12 digits, such as area_code = \"620102001001\"; or give [site] an `area_code`".to_owned();
            r.fault("area_code", "an [[ebm]] needs `area_code`: the area that the message is for", Some(hint));
        }
        let (then, deliver_within) = read_spares(r);
        r.finish();
        let channel = Channel { then, ..channel? };
        source?;
        Some(Self { channel, heartbeat, deliver_within, to: to?, dest: dest?, drill, codes, signer, words: words? })
    }

    pub fn heed(&mut self, outgoing: &Outgoing, r: &Reader<'_>) {
        if let To::Platform(target) = &mut self.to {
            target.heed(outgoing, r, "url");
        }
    }

    /// The way out as the desk sees it: people say yes to what is meant for real.
    pub fn channel(&self, site: &Site) -> Channel {
        let words = cap::Words::new(&self.words, site);
        let renew_after = Some(words.expires() / 2);
        Channel { outward: words.is_for_real(), voice: Arc::new(words.voice()), renew_after, ..self.channel.clone() }
    }

    /// The folder where one is written to.
    pub fn folder(&self) -> Option<&Path> {
        match &self.to {
            To::Folder(folder) => Some(folder),
            To::Platform(_) => None,
        }
    }

    /// Why packages cannot be signed, as far as that is known before.
    pub fn signer_trouble(&self) -> Option<String> {
        self.signer.as_ref().and_then(Signer::trouble)
    }

    /// What all its packages have in common.
    pub fn words(&self, site: &Site) -> package::Words {
        let cap = cap::Words::new(&self.words, site);
        package::Words { cap, dest: self.dest.clone(), drill: self.drill, codes: self.codes.clone() }
    }
}

fn resource(r: &Reader<'_>, key: &'static str) -> Option<String> {
    let code: String = r.required(key)?;
    if !package::is_resource(&code) {
        let hint = "level 1 to 6, 12 digits of the area, 10 of type and serial, as the platform's operator gave it";
        r.fault(key, format!("`{key}` is {code:?}, expected an EBRID of 23 digits"), Some(hint.to_owned()));
        return None;
    }
    Some(code)
}

/// `event_codes = { gas = "12D02" }`: by the code of the table that it takes the place of.
fn event_codes(r: &Reader<'_>) -> Vec<(&'static str, String)> {
    let Some(table) = r.table("event_codes") else { return Vec::new() };
    let mut codes = Vec::new();
    for (word, of) in EVENTS {
        let Some(code) = table.optional::<String>(word) else { continue };
        if !package::is_event(&code) {
            let hint = did_you_mean(&code, EVENTS.map(|(_, code)| code));
            table.fault(word, format!("`{word}` is {code:?}, expected an event code such as \"{of}\""), hint);
        }
        codes.push((of, code));
    }
    table.finish();
    codes
}

/// The carrier of one `[[ebm]]`.
pub struct Ebm {
    words: package::Words,
    source: String,
    deliver_within: Duration,
    way: Way,
    signer: Option<Signer>,
    numbers: Arc<Numbers>,
    clock: Clock,
}

enum Way {
    Platform(Box<Http>),
    Folder(PathBuf),
}

/// Makes the folder; connects only when there is something to carry.
pub fn carrier(settings: &Settings, site: &Site, numbers: &Arc<Numbers>, clock: &Clock) -> Result<Ebm, String> {
    let way = match &settings.to {
        To::Platform(target) => Way::Platform(Box::new(Http::new(target)?)),
        To::Folder(folder) => {
            std::fs::create_dir_all(folder)
                .map_err(|error| format!("the folder {} cannot be made: {error}", folder.display()))?;
            Way::Folder(folder.clone())
        }
    };
    let words = settings.words(site);
    Ok(Ebm {
        source: words.cap.sender(None),
        words,
        deliver_within: settings.deliver_within,
        way,
        signer: settings.signer.clone(),
        numbers: Arc::clone(numbers),
        clock: clock.clone(),
    })
}

/// The message of an order as it has left or is on its way; `None` where it has no number yet.
pub fn teller(words: package::Words, numbers: Arc<Numbers>) -> impl Fn(&Order) -> Option<String> {
    move |order| match &order.body {
        OrderBody::Cap(cap) => {
            let number = numbers.known(&cap.identifier)?;
            Some(package::compose(&words, cap, number, |earlier| numbers.known(earlier)).ok()?.xml)
        }
        OrderBody::Event(_) | OrderBody::Call(_) | OrderBody::Siren(_) => None,
    }
}

impl Carrier for Ebm {
    fn deliver_within(&self) -> Option<Duration> {
        Some(self.deliver_within)
    }

    async fn carry(&self, order: &Order) -> Result<Receipt, DeliveryError> {
        let OrderBody::Cap(cap) = &order.body else {
            return Err(DeliveryError::Never("this way out carries messages for the public, not events".to_owned()));
        };
        let document = self.compose(cap).await?;
        let text: Arc<str> = document.xml.as_str().into();
        let package = self.pack(&document, cap.sent).await?;
        let taken = match &self.way {
            Way::Platform(http) => post(http, &document.id, package).await,
            Way::Folder(folder) => {
                let (folder, name) = (folder.clone(), package::file_name(&document.id));
                match tokio::task::spawn_blocking(move || write_whole(&folder, &name, &package)).await {
                    Ok(Ok(path)) => Ok(Receipt::of(path.display().to_string())),
                    Ok(Err(error)) => Err(DeliveryError::Retry(format!("the package cannot be written: {error}"))),
                    Err(error) => Err(DeliveryError::Retry(format!("the writing task failed: {error}"))),
                }
            }
        };
        taken.map(|receipt| receipt.with_text(text))
    }

    /// Says that the connection is there, unsigned, as platforms have it.
    async fn tell_alive(&self, _: &str, _: Bytes) -> Result<(), DeliveryError> {
        let Way::Platform(http) = &self.way else { return Ok(()) };
        let now = self.clock.now().wall;
        let document = package::connection_check(&self.source, &self.words.dest, now)
            .map_err(|why| DeliveryError::Never(format!("the heartbeat is not fit to leave: {why}")))?;
        let package = packed(&document, None, now)?;
        post(http, &document.id, package).await.map(|_| ())
    }
}

impl Ebm {
    async fn compose(&self, cap: &Arc<CapOrder>) -> Result<Document, DeliveryError> {
        let (numbers, identifier, now) = (Arc::clone(&self.numbers), cap.identifier.clone(), self.clock.now().wall);
        let number = tokio::task::spawn_blocking(move || numbers.give(&identifier, now))
            .await
            .map_err(|error| DeliveryError::Retry(format!("the message has no number: {error}")))?;
        package::compose(&self.words, cap, number, |earlier| self.numbers.known(earlier))
            .map_err(|why| DeliveryError::Never(format!("the message is not fit to leave: {why}")))
    }

    async fn pack(&self, document: &Document, at: Wall) -> Result<Vec<u8>, DeliveryError> {
        let Some(signer) = &self.signer else { return packed(document, None, at) };
        let signed = signer.sign(document.xml.as_bytes()).await;
        // Unsigned it would be refused, or worse: taken from anybody.
        let value = signed.map_err(|why| DeliveryError::Retry(format!("the package is not signed: {why}")))?;
        let signature = package::signature(&document.id, &signer.certificate, &value);
        packed(document, Some(&signature), at)
    }
}

fn packed(document: &Document, signature: Option<&str>, at: Wall) -> Result<Vec<u8>, DeliveryError> {
    package::pack(document, signature, at)
        .map_err(|error| DeliveryError::Never(format!("the package cannot be made: {error}")))
}

async fn post(http: &Http, id: &str, package: Vec<u8>) -> Result<Receipt, DeliveryError> {
    let (kind, body) = form(id, &package);
    let headers = [("content-type", kind.as_str()), ("idempotency-key", id)];
    let read = |detail: &str, bytes: &[u8]| judge(detail, id, package::read_answer(bytes));
    http.post_read(&headers, body.into(), Some(&read)).await
}

/// The package as the field `file` of a form, and the form's type.
fn form(id: &str, package: &[u8]) -> (String, Vec<u8>) {
    let mut boundary = format!("anmin-{id}");
    while memchr::memmem::find(package, boundary.as_bytes()).is_some() {
        boundary.push('-');
    }
    let name = package::file_name(id);
    let mut body = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
         Content-Type: application/x-tar\r\n\r\n"
    )
    .into_bytes();
    body.extend_from_slice(package);
    body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    (format!("multipart/form-data; boundary={boundary}"), body)
}

/// What the answer to this package means.
fn judge(detail: &str, id: &str, answered: Result<Answered, String>) -> Result<Receipt, DeliveryError> {
    let answered = answered.map_err(|why| DeliveryError::Retry(format!("{detail}, but no EBDResponse: {why}")))?;
    if answered.of.as_ref().is_some_and(|of| of != id) {
        return Err(DeliveryError::Retry(format!("{detail}, but the EBDResponse is about another package")));
    }
    let Some((zh, en)) = answered.meaning() else {
        let code = super::excerpt(&answered.code);
        return Err(DeliveryError::Retry(format!("{detail}, but the EBDResponse has the code {code:?}")));
    };
    let said = format!("{detail}, EBDResponse {} ({zh}, {en}): {}", answered.code, answered.desc);
    let said = said.trim_end_matches([':', ' ']).to_owned();
    match (answered.is_taken(), answered.of) {
        (true, Some(_)) => Ok(Receipt::of(format!("{said}{NAMED}"))),
        (true, None) => Ok(Receipt::of(said)),
        (false, _) => Err(DeliveryError::Never(said)),
    }
}

#[cfg(test)]
mod tests;
