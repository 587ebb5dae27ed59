//! Whom anmin may dial: `[outgoing] allow`. Without it whoever is configured.
//!
//! What it promises: where a list is given, no connection begins to an address that the list does not hold, unless the name that was
//! asked for stands in the list itself. A name is judged by what it resolves to when it is dialled, so that one that is turned
//! elsewhere leads nowhere. It knows nothing of what is spoken on a connection, nor of who dials in.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anmin_sensors::document::Reader;
use tokio::net::{TcpStream, lookup_host};

use crate::intake::gbt26875::Net;

/// The list, shared by all who dial.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outgoing(Option<Arc<Allowed>>);

#[derive(Debug, PartialEq, Eq)]
struct Allowed {
    nets: Vec<Net>,
    /// Whatever they resolve to.
    names: Vec<String>,
}

impl Outgoing {
    /// Reads `[outgoing]`.
    pub fn read(r: &Reader<'_>) -> Self {
        let texts = r.optional::<Vec<String>>("allow");
        r.finish();
        let Some(texts) = texts else { return Self::default() };
        let (mut nets, mut names) = (Vec::new(), Vec::new());
        for text in texts {
            match Net::parse(&text) {
                Some(net) => nets.push(net),
                None if is_name(&text) => names.push(text),
                None => {
                    let hint = "such as \"10.8.0.0/16\", \"192.168.7.9\" or \"eb.example.gov.cn\"; a name stands for itself alone";
                    let message = format!("`allow` has {text:?}, which is no network, address or name of a host");
                    r.fault("allow", message, Some(hint.to_owned()));
                }
            }
        }
        Self(Some(Arc::new(Allowed { nets, names })))
    }

    /// Whether there is no list.
    pub fn is_open(&self) -> bool {
        self.0.is_none()
    }

    /// Whether `host`, a name or an address as it stands in a URL, may be dialled at all: an address for good, a name as far as
    /// nobody has resolved it yet.
    pub fn may_dial(&self, host: &str) -> Result<(), String> {
        let Some(allowed) = &self.0 else { return Ok(()) };
        match bare(host).parse::<IpAddr>() {
            Ok(address) => self.admit(host, address),
            Err(_) if allowed.has_name(host) || !allowed.nets.is_empty() => Ok(()),
            Err(_) => Err(format!("{host}, which `[outgoing] allow` does not list")),
        }
    }

    /// A fault at `key` where a peer can never be dialled.
    pub fn check(&self, r: &Reader<'_>, key: &'static str, host: &str) {
        if let Err(why) = self.may_dial(host) {
            let hint = format!("add {:?} to `allow` of [outgoing] if anmin is to speak with it", bare(host));
            r.fault(key, format!("`{key}` leads to {why}"), Some(hint));
        }
    }

    /// Whether `address`, to which `host` has been resolved, may be dialled.
    pub fn admit(&self, host: &str, address: IpAddr) -> Result<(), String> {
        let Some(allowed) = &self.0 else { return Ok(()) };
        if allowed.has_name(host) || allowed.nets.iter().any(|net| net.holds(address)) {
            return Ok(());
        }
        let of = if bare(host).parse::<IpAddr>().is_ok() { String::new() } else { format!("{host} is ") };
        Err(format!("{of}{address}, which `[outgoing] allow` does not list"))
    }

    /// Of what `host` resolves to, what may be dialled; an error where nothing may.
    pub fn keep(&self, host: &str, found: impl Iterator<Item = SocketAddr>) -> io::Result<Vec<SocketAddr>> {
        let mut refused = None;
        let kept: Vec<SocketAddr> =
            found.filter(|address| self.admit(host, address.ip()).map_err(|why| refused = Some(why)).is_ok()).collect();
        match refused {
            Some(why) if kept.is_empty() => Err(io::Error::new(io::ErrorKind::PermissionDenied, why)),
            _ => Ok(kept),
        }
    }

    /// Resolves and connects; the caller limits the time.
    pub async fn connect(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let found = lookup_host((host, port)).await?;
        TcpStream::connect(&*self.keep(host, found)?).await
    }

    /// What to give a client for `host` that resolves by itself and cannot be told how; the caller limits the time. Where an address
    /// decides it is given that address. By TLS it keeps the name, which the peer must prove: then every address of it must be
    /// listed, and one that is turned between this look and the client's own gets a handshake and nothing more.
    pub async fn name_for_client(&self, host: &str, port: u16, secure: bool) -> io::Result<String> {
        let decides = self.0.as_ref().is_some_and(|allowed| !allowed.has_name(host));
        if !decides {
            return Ok(host.to_owned());
        }
        let found: Vec<SocketAddr> = lookup_host((bare(host), port)).await?.collect();
        let kept = self.keep(host, found.iter().copied())?;
        if secure {
            for other in found.iter().filter(|address| !kept.contains(address)) {
                self.admit(host, other.ip()).map_err(|why| io::Error::new(io::ErrorKind::PermissionDenied, why))?;
            }
            return Ok(host.to_owned());
        }
        match kept.first().map(SocketAddr::ip) {
            Some(IpAddr::V6(address)) => Ok(format!("[{address}]")),
            Some(address) => Ok(address.to_string()),
            None => Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address")),
        }
    }
}

impl Allowed {
    fn has_name(&self, host: &str) -> bool {
        let plain = |name: &str| name.trim_end_matches('.').to_ascii_lowercase();
        self.names.iter().any(|name| plain(name) == plain(host))
    }
}

/// An address without the brackets that it has in a URL.
fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Labels of letters, digits, `-` and `_`; what ends in a number would be an address that is none.
fn is_name(text: &str) -> bool {
    let labels: Vec<&str> = text.trim_end_matches('.').split('.').collect();
    let plain = |label: &&str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let ends_in_number = labels.last().is_some_and(|last| last.starts_with(|c: char| c.is_ascii_digit()));
    text.len() <= 253 && labels.iter().all(plain) && !ends_in_number
}

#[cfg(test)]
mod tests {
    use anmin_sensors::document::{Document, Faults};

    use super::*;

    fn read(allow: &str) -> (Outgoing, Vec<String>) {
        let faults = Faults::default();
        let document = Document::parse("t.toml", allow, &faults).expect("the test writes TOML");
        let outgoing = Outgoing::read(&document.root(&faults));
        (outgoing, faults.take().iter().map(|fault| fault.message.clone()).collect())
    }

    #[test]
    fn a_peer_is_dialled_where_the_list_has_its_network_or_its_name() {
        let list = "allow = [\"10.8.0.0/16\", \"192.168.7.9\", \"fd00::/8\", \"eb.example.gov.cn\"]";
        let (some, names, nobody) = (list, "allow = [\"eb.example.gov.cn\"]", "allow = []");
        // The host, what it resolves to, whether it may be configured, whether it is dialled.
        for (allow, host, address, configured, dialled) in [
            ("", "anybody.example.cn", "8.8.8.8", true, true),
            (some, "10.8.3.4", "10.8.3.4", true, true),
            (some, "10.9.3.4", "10.9.3.4", false, false),
            (some, "192.168.7.9", "192.168.7.9", true, true),
            (some, "192.168.7.10", "192.168.7.10", false, false),
            (some, "[fd00::5]", "fd00::5", true, true),
            (some, "[2001:db8::1]", "2001:db8::1", false, false),
            (some, "[::ffff:10.8.0.1]", "::ffff:10.8.0.1", true, true),
            (some, "eb.example.gov.cn", "8.8.8.8", true, true),
            (some, "EB.example.gov.cn.", "8.8.8.8", true, true),
            (some, "x.eb.example.gov.cn", "8.8.8.8", true, false),
            (some, "tsdb.local", "10.8.0.7", true, true),
            (some, "tsdb.local", "10.7.0.7", true, false),
            (some, "localhost", "127.0.0.1", true, false),
            // What the system's resolver takes for an address of another kind.
            (some, "0x08080808", "8.8.8.8", true, false),
            (names, "tsdb.local", "10.8.0.7", false, false),
            (names, "10.8.0.7", "10.8.0.7", false, false),
            (names, "eb.example.gov.cn", "8.8.8.8", true, true),
            (nobody, "127.0.0.1", "127.0.0.1", false, false),
        ] {
            let (outgoing, faults) = read(allow);
            assert_eq!(faults, Vec::<String>::new(), "{allow}");
            assert_eq!(outgoing.may_dial(host).is_ok(), configured, "{allow}: {host}");
            let admitted = outgoing.admit(host, address.parse().expect("an address"));
            assert_eq!(admitted.is_ok(), dialled, "{allow}: {host} at {address}: {admitted:?}");
        }
        let (outgoing, _) = read(some);
        let refused = outgoing.admit("tsdb.local", [10, 7, 0, 7].into()).expect_err("another network");
        assert_eq!(refused, "tsdb.local is 10.7.0.7, which `[outgoing] allow` does not list");
    }

    #[test]
    fn what_is_no_network_address_or_name_is_a_fault() {
        for wrong in ["10.0.0.0/33", "192.168.7", "*.example.cn", "http://eb.example.cn", "a:80", "", "-a.cn", "a b"] {
            let (_, faults) = read(&format!("allow = [{wrong:?}]"));
            assert!(faults.len() == 1 && faults[0].contains(&format!("{wrong:?}")), "{wrong}: {faults:?}");
        }
    }

    #[tokio::test]
    async fn a_client_that_resolves_by_itself_is_given_what_was_judged() {
        let (here, elsewhere) = ("allow = [\"127.0.0.0/8\", \"::1\"]", "allow = [\"10.8.0.0/16\"]");
        for (allow, host, secure, wanted) in [
            ("", "localhost", false, Ok(&["localhost"][..])),
            ("allow = [\"localhost\"]", "localhost", false, Ok(&["localhost"])),
            (here, "localhost", false, Ok(&["127.0.0.1", "[::1]"])),
            (here, "localhost", true, Ok(&["localhost"])),
            (here, "127.0.0.1", false, Ok(&["127.0.0.1"])),
            (here, "[::1]", false, Ok(&["[::1]"])),
            (elsewhere, "localhost", false, Err(())),
            (elsewhere, "localhost", true, Err(())),
        ] {
            let given = read(allow).0.name_for_client(host, 1, secure).await;
            match (&given, wanted) {
                (Ok(given), Ok(wanted)) => assert!(wanted.contains(&&**given), "{allow} {host}: {given}"),
                (Err(error), Err(())) => assert!(error.to_string().contains("localhost is"), "{error}"),
                _ => panic!("{allow} {host}: {given:?}"),
            }
        }
    }
}
