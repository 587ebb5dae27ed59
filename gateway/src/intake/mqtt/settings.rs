//! `[[mqtt]]`: which broker, as whom, and within which limits.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anmin_sensors::document::{ByteSize, Reader};
use rumqttc::QoS;

use crate::credentials::{ClientTls, named_file};
use crate::outgoing::Outgoing;

/// One `[[mqtt]]` table, without its mappings: those belong to the router.
#[derive(Clone, Debug)]
pub struct Settings {
    pub id: Arc<str>,
    pub host: String,
    pub port: u16,
    /// `mqtts://`: how to speak TLS.
    pub tls: Option<ClientTls>,
    /// Stable, since the broker keeps our session under it. Where the file has none, [`Settings::or_client_id`] gives one.
    pub client_id: Option<String>,
    pub protocol: Protocol,
    pub clean_session: bool,
    /// For subscriptions that do not say otherwise: 0 or 1.
    pub qos: QoS,
    pub keep_alive: Duration,
    pub max_reconnect_interval: Duration,
    pub username: Option<String>,
    pub password_file: Option<PathBuf>,
    /// MQTT 5: told to the broker, which leaves out what is larger. 3.1.1 knows no such thing: a larger packet is read all
    /// the same, once, so that what stands behind it is heard.
    pub max_packet_size: usize,
    /// MQTT 5: how many messages the broker may have in flight to us without our acknowledgement.
    pub receive_maximum: u16,
    /// Whom anmin may dial.
    pub outgoing: Outgoing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    V311,
    V5,
}

impl Settings {
    /// Reads one `[[mqtt]]` table; `mapping` counts as asked for and is left to the router.
    pub fn read(r: &Reader<'_>, base: &Path) -> Option<Self> {
        let id: Option<String> = r.required("id");
        let url: Option<String> = r.required("url");
        let address = url.as_deref().and_then(|url| match parse_url(url) {
            Ok(address) => Some(address),
            Err(why) => {
                r.fault("url", why, Some("such as \"mqtt://192.168.1.5:1883\" or \"mqtts://broker.local\"".to_owned()));
                None
            }
        });
        let client_id: Option<String> = r.optional("client_id");
        if client_id.as_deref().is_some_and(|id| id.is_empty() || id.chars().any(char::is_control)) {
            r.fault("client_id", "`client_id` is empty or holds control characters", None);
        }
        let protocol =
            r.choice("protocol_version", &[("3.1.1", Protocol::V311), ("5", Protocol::V5)]).unwrap_or(Protocol::V311);
        let clean_session = r.or("clean_session", false);
        let qos = match r.or("qos", 1_u8) {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            other => {
                r.fault(
                    "qos",
                    format!("`qos` is {other}, expected 0 or 1"),
                    Some("anmin recognises repeated readings itself: 1 loses nothing".to_owned()),
                );
                QoS::AtLeastOnce
            }
        };
        let keep_alive = r.or("keep_alive", Duration::from_secs(20));
        if !(Duration::from_secs(5)..=Duration::from_secs(3_600)).contains(&keep_alive) {
            r.fault("keep_alive", "`keep_alive` must lie between 5s and 1h", None);
        }
        let max_reconnect_interval = r.or("max_reconnect_interval", Duration::from_secs(30));
        if max_reconnect_interval < Duration::from_secs(1) {
            r.fault("max_reconnect_interval", "`max_reconnect_interval` must be 1s or more", None);
        }
        let username: Option<String> = r.optional("username");
        let password_file = r.optional::<String>("password_file").map(|file| named_file(base, file));
        if let Some(path) = &password_file
            && let Err(error) = std::fs::read_to_string(path)
        {
            r.fault("password_file", format!("cannot read {}: {error}", path.display()), None);
        }
        if password_file.is_some() && username.is_none() {
            r.fault("password_file", "`password_file` without `username`", None);
        }
        let tls = ClientTls::read(r, base);
        if let Some(key) = ["tls_ca", "tls_cert"].into_iter().find(|key| r.has(key))
            && address.as_ref().is_some_and(|(secure, ..)| !secure)
        {
            let hint = Some("write mqtts:// in `url`".to_owned());
            r.fault(key, format!("`{key}` is given, but `url` does not ask for TLS"), hint);
        }
        let ByteSize(max_packet_size) = r.or("max_packet_size", ByteSize(256 * 1024));
        if !(1_024..=PACKET_LIMIT as u64).contains(&max_packet_size) {
            r.fault("max_packet_size", "`max_packet_size` must lie between 1KiB and 16MiB", None);
        }
        let receive_maximum = r.or("receive_maximum", 4_096_u16);
        if receive_maximum == 0 {
            r.fault("receive_maximum", "`receive_maximum` must be 1 or more", None);
        }
        r.tables("mapping");
        r.finish();
        let (secure, host, port) = address?;
        if r.is_faulty() {
            return None;
        }
        Some(Self {
            id: id?.into(),
            host,
            port,
            tls: secure.then_some(tls),
            client_id,
            protocol,
            clean_session,
            qos,
            keep_alive,
            max_reconnect_interval,
            username,
            password_file,
            max_packet_size: max_packet_size as usize,
            receive_maximum,
            outgoing: Outgoing::default(),
        })
    }

    pub fn heed(&mut self, outgoing: &Outgoing, r: &Reader<'_>) {
        outgoing.check(r, "url", &self.host);
        self.outgoing = outgoing.clone();
    }

    /// The client id of the file, or one that is stable for this site and this `[[mqtt]]`.
    pub fn or_client_id(mut self, site: &str) -> Self {
        self.client_id.get_or_insert_with(|| format!("anmin-{site}-{}-in", self.id));
        self
    }
}

/// A packet may grow to this when the broker's queue holds one that is larger than `max_packet_size`.
pub const PACKET_LIMIT: usize = 16 * 1024 * 1024;

/// `mqtt://host[:port]` or `mqtts://host[:port]` to (TLS, host, port).
fn parse_url(url: &str) -> Result<(bool, String, u16), String> {
    let (tls, rest) = if let Some(rest) = url.strip_prefix("mqtts://") {
        (true, rest)
    } else if let Some(rest) = url.strip_prefix("mqtt://") {
        (false, rest)
    } else {
        return Err(format!("`url` is {url:?}, expected mqtt://host:port or mqtts://host:port"));
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains('@') {
        return Err("`url` holds a user name: write `username` and `password_file` instead".to_owned());
    }
    // The colons of an IPv6 address stand in brackets: the port begins after the last one.
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => {
            (host, port.parse().map_err(|_| format!("`url` has {port:?} for a port"))?)
        }
        _ => (rest, if tls { 8_883 } else { 1_883 }),
    };
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if host.is_empty() || host.contains(['/', '?', '#', ' ']) || port == 0 || (address.is_none() && host.contains(':'))
    {
        return Err(format!("`url` is {url:?}, expected a host and a port and nothing after them"));
    }
    // rumqttc hands the host to the resolver with brackets and to the certificate check as it stands.
    if tls && address.is_some() {
        return Err(format!("`url` is {url:?}: TLS needs a host name or an IPv4 address"));
    }
    Ok((tls, host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use anmin_sensors::document::{Document, Faults};

    use super::*;

    fn read(text: &str) -> Result<Settings, Vec<String>> {
        let faults = Faults::default();
        let doc = Document::parse("site.toml", text, &faults).expect("the test writes TOML");
        let settings = Settings::read(&doc.root(&faults), Path::new("/nowhere"));
        let faults = faults.take();
        match settings {
            Some(settings) if faults.is_empty() => Ok(settings),
            _ => Err(faults.iter().map(ToString::to_string).collect()),
        }
    }

    #[test]
    fn a_broker_is_read_with_its_defaults() {
        let settings = read("id = 'site'\nurl = 'mqtt://192.168.1.5'").expect("sound").or_client_id("garden");
        assert_eq!((&*settings.host, settings.port, settings.tls), ("192.168.1.5", 1_883, None));
        assert_eq!(settings.client_id.as_deref(), Some("anmin-garden-site-in"));
        assert_eq!((settings.protocol, settings.clean_session), (Protocol::V311, false));
        assert_eq!((settings.qos, settings.keep_alive), (QoS::AtLeastOnce, Duration::from_secs(20)));
    }

    #[test]
    fn addresses_are_understood_or_refused() {
        for (url, wanted) in [
            ("mqtt://broker.local:1884/", Ok((false, "broker.local", 1_884))),
            ("mqtts://broker.local", Ok((true, "broker.local", 8_883))),
            ("mqtt://[fe80::1]:1883", Ok((false, "[fe80::1]", 1_883))),
            ("mqtt://[fe80::1]", Ok((false, "[fe80::1]", 1_883))),
            ("mqtts://[fe80::1]", Err("TLS needs a host name")),
            ("mqtt://fe80::1:1883", Err("expected a host and a port")),
            ("mqtt://:1883", Err("expected a host and a port")),
            ("mqtt://a:0", Err("expected a host and a port")),
            ("mqtt://a:65536", Err("for a port")),
            ("mqtt://a/b", Err("expected a host and a port")),
            ("mqtt://me:secret@a", Err("holds a user name")),
            ("ws://a", Err("expected mqtt://")),
        ] {
            match (parse_url(url), wanted) {
                (Ok((tls, host, port)), Ok(wanted)) => assert_eq!((tls, host.as_str(), port), wanted, "{url}"),
                (Err(why), Err(wanted)) => assert!(why.contains(wanted), "{url}: {why}"),
                (found, _) => panic!("{url}: {found:?}"),
            }
        }
    }

    #[test]
    fn a_faulty_broker_says_what_is_wrong_with_it() {
        for (more, wanted) in [
            ("client_id = ''", "`client_id` is empty"),
            ("protocol_version = '4'", "expected one of 3.1.1, 5"),
            ("qos = 2", "1 loses nothing"),
            ("keep_alive = '1s'", "between 5s and 1h"),
            ("max_reconnect_interval = '10ms'", "must be 1s or more"),
            ("password_file = 'none'", "cannot read /nowhere/none"),
            ("tls_ca = 'none'", "/nowhere/none cannot be read"),
            ("tls_ca = 'none'", "does not ask for TLS"),
            ("tls_cert = 'none'\ntls_key = 'none'", "`tls_cert` is given, but `url` does not ask for TLS"),
            ("tls_key = 'none'", "cannot read /nowhere/none"),
            ("max_packet_size = '17MiB'", "between 1KiB and 16MiB"),
            ("receive_maximum = 0", "must be 1 or more"),
            ("keepalive = '20s'", "did you mean `keep_alive`?"),
        ] {
            let found = read(&format!("id = 'a'\nurl = 'mqtt://a'\n{more}")).expect_err(more).join("\n");
            assert!(found.contains(wanted), "{more}: {found}");
        }
    }
}
