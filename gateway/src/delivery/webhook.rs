//! Alarm events to a webhook.
//!
//! Posts the JSON of [`event`](super::event) and signs it as Standard Webhooks does: `webhook-id` is the order's id,
//! `webhook-timestamp` the time of the attempt in seconds, `webhook-signature` is `v1,` and the base64 of the HMAC-SHA256
//! over `id.timestamp.body`. `Idempotency-Key` repeats the order's id: the same on every attempt, so that a receiver that
//! remembers ids acts once.
//!
//! ```toml
//! [[webhook]]
//! id          = "office"
//! url         = "https://office.example.cn/hooks/anmin"
//! secret_file = "secrets/office"      # whsec_… or plain text of at least 16 bytes; no file, no signature
//! min_level   = "yellow"
//! heartbeat   = true                  # a `heartbeat` every 30 s; default false
//! ```

use std::path::{Path, PathBuf};

use anmin_rules::order::{Channel, ChannelForm, Order, OrderBody};
use anmin_rules::rule::Level;
use anmin_sensors::document::Reader;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ring::hmac;

use super::http::{Http, Target};
use super::{Carrier, DeliveryError, Receipt, Secret, Site, event, read_channel, read_file};
use crate::clock::Clock;
use crate::outgoing::Outgoing;

/// `[[webhook]]`.
#[derive(Clone, Debug)]
pub struct Settings {
    pub channel: Channel,
    /// Whether it tells every 30 s that anmin is alive.
    pub heartbeat: bool,
    to: Receiver,
}

impl Settings {
    pub fn read(r: &Reader<'_>, base: &Path) -> Option<Self> {
        let channel = read_channel(r, ChannelForm::Events, Level::Blue, true);
        let heartbeat = r.or("heartbeat", false);
        let to = Receiver::read(r, base);
        r.finish();
        Some(Self { channel: channel?, heartbeat, to: to? })
    }

    pub fn heed(&mut self, outgoing: &Outgoing, r: &Reader<'_>) {
        self.to.heed(outgoing, r);
    }
}

/// Where signed JSON is posted to, as configured: `url` and what goes with it, `secret_file`.
#[derive(Clone, Debug)]
pub struct Receiver {
    target: Target,
    secret_file: Option<PathBuf>,
}

impl Receiver {
    /// Reads its words out of a table that has others too; the caller finishes it.
    pub fn read(r: &Reader<'_>, base: &Path) -> Option<Self> {
        let target = Target::read(r, base);
        let secret_file = read_file(r, "secret_file", base, read_key);
        Some(Self { target: target?, secret_file })
    }

    pub fn heed(&mut self, outgoing: &Outgoing, r: &Reader<'_>) {
        self.target.heed(outgoing, r, "url");
    }
}

/// Posts JSON and signs it.
pub struct Signer {
    http: Http,
    key: Option<hmac::Key>,
    clock: Clock,
}

/// The carrier of one `[[webhook]]`.
pub struct Webhook {
    signer: Signer,
    site: Site,
}

/// Reads the secret and prepares the client; connects only when there is something to carry.
pub fn carrier(settings: &Settings, site: &Site, clock: &Clock) -> Result<Webhook, String> {
    Ok(Webhook { signer: Signer::new(&settings.to, clock)?, site: site.clone() })
}

fn read_key(path: &Path) -> Result<hmac::Key, String> {
    key(&Secret::read(path)?).map_err(|why| format!("{}: {why}", path.display()))
}

fn key(secret: &Secret) -> Result<hmac::Key, String> {
    let bytes = match secret.reveal().strip_prefix("whsec_") {
        Some(encoded) => {
            STANDARD.decode(encoded).map_err(|error| format!("what follows whsec_ is not base64: {error}"))?
        }
        None => secret.reveal().as_bytes().to_vec(),
    };
    if bytes.len() < 16 {
        return Err(format!("the secret has {} bytes, expected at least 16", bytes.len()));
    }
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
}

fn signature(key: &hmac::Key, id: &str, timestamp: &str, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(key);
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        context.update(part);
    }
    format!("v1,{}", STANDARD.encode(context.sign()))
}

impl Carrier for Webhook {
    async fn carry(&self, order: &Order) -> Result<Receipt, DeliveryError> {
        let body = match &order.body {
            OrderBody::Event(transition) => event::alarm_event(&self.site, &order.id, transition),
            OrderBody::Call(change) => event::call_event(&self.site, &order.id, change),
            OrderBody::Cap(_) | OrderBody::Siren(_) => {
                return Err(DeliveryError::Never("a webhook carries events, not CAP".to_owned()));
            }
        };
        self.signer.post(order.id.as_str(), body.into()).await
    }

    async fn tell_alive(&self, id: &str, document: Bytes) -> Result<(), DeliveryError> {
        self.signer.post(id, document).await.map(|_receipt| ())
    }
}

impl Signer {
    /// Reads the secret and prepares the client; connects only when there is something to post.
    pub fn new(to: &Receiver, clock: &Clock) -> Result<Self, String> {
        let key = to.secret_file.as_deref().map(read_key).transpose()?;
        Ok(Self { http: Http::new(&to.target)?, key, clock: clock.clone() })
    }

    /// Posts once. `id` tells the receiver whether it has this already.
    pub async fn post(&self, id: &str, body: Bytes) -> Result<Receipt, DeliveryError> {
        let timestamp = self.clock.now().wall.millis().div_euclid(1_000).to_string();
        let mut headers = vec![
            ("content-type", "application/json"),
            ("idempotency-key", id),
            ("webhook-id", id),
            ("webhook-timestamp", timestamp.as_str()),
        ];
        let signature = self.key.as_ref().map(|key| signature(key, id, &timestamp, &body));
        if let Some(signature) = &signature {
            headers.push(("webhook-signature", signature));
        }
        self.http.post(&headers, body).await
    }
}

#[cfg(test)]
mod tests {
    use anmin_sensors::document::{Document, Faults};

    use super::*;
    use crate::delivery::http::tests::{Answer, Server};
    use crate::samples::{self, RAISED};

    fn settings(text: &str) -> Result<Settings, Vec<String>> {
        let faults = Faults::default();
        let doc = Document::parse("t.toml", text, &faults).expect("TOML");
        let found = Settings::read(&doc.root(&faults), Path::new("/nowhere"));
        let faults = faults.take();
        match found {
            Some(settings) if faults.is_empty() => Ok(settings),
            _ => Err(faults.iter().map(ToString::to_string).collect()),
        }
    }

    /// The example of the Standard Webhooks text, so that its libraries take what we sign.
    #[test]
    fn signs_as_standard_webhooks_does() {
        let key = key(&Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned())).expect("a key");
        let found = signature(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", br#"{"test": 2432232314}"#);
        assert_eq!(found, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_weak_secret_is_refused_and_never_shown() {
        for text in ["short", "whsec_!!!", "whsec_AAAA"] {
            let why = key(&Secret(text.to_owned())).expect_err(text);
            assert!(!why.contains("AAAA"), "{why}");
        }
        assert_eq!(format!("{:?}", Secret("hush".to_owned())), "(secret)");
    }

    #[test]
    fn settings_tell_all_faults() {
        let found = settings("id = 'of fice'\nurl = 'http://8.8.8.8/'\nsecret_file = 'gone'\nmin_levle = 'red'\n");
        assert_eq!(
            found.expect_err("four faults"),
            [
                "t.toml:1:6: `id` is \"of fice\", expected 1 to 64 letters, digits, `-`, `_` or `.`",
                "t.toml:2:7: `url` is \"http://8.8.8.8/\", but 8.8.8.8 is a public address and would be spoken to without \
                 encryption\n  hint: use https, or set allow_http = true if you trust the network",
                "t.toml:3:15: `secret_file` names /nowhere/gone, which is not there",
                "t.toml:4:1: `min_levle` is not a known key\n  hint: did you mean `min_level`?",
            ]
        );
    }

    #[tokio::test]
    async fn posts_the_event_with_its_key_again_and_again() {
        let ok = "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
        let server = Server::start(vec![Answer::Breaks, Answer::Says(ok)]).await;
        let settings = settings(&format!("id = 'office'\nurl = '{}'\n", server.url())).expect("settings");
        let mut webhook = carrier(&settings, &samples::site(), &Clock::manual(RAISED)).expect("a carrier");
        webhook.signer.key = Some(key(&Secret("0123456789abcdef".to_owned())).expect("a key"));
        let order = samples::order("b3-2-gas", 1, Level::Orange);
        assert!(matches!(webhook.carry(&order).await, Err(DeliveryError::Retry(_))));
        assert_eq!(webhook.carry(&order).await, Ok(Receipt::of("HTTP 204")));
        let seen = server.seen.lock().expect("nobody panics with it");
        assert_eq!(seen.len(), 2);
        assert_eq!(seen[0], seen[1], "the same bytes at the same time: the same request");
        let (head, body) = seen[0].split_once("\r\n\r\n").expect("a head and a body");
        let head = head.to_ascii_lowercase();
        for wanted in [
            "post /in http/1.1",
            "content-type: application/json",
            "idempotency-key: b3-2-gas/1/office",
            "webhook-id: b3-2-gas/1/office",
            "webhook-timestamp: 1772328600",
            "webhook-signature: v1,",
        ] {
            assert!(head.contains(wanted), "{wanted} is not in {head}");
        }
        let json: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(json["order"], "b3-2-gas/1/office");
    }
}
