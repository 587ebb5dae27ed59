//! What a site's texts name outside of themselves: peers and files. Read without judging it: that is for the parser.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::files::SiteFiles;
use crate::credentials::{ClientTls, named_file};

/// A peer that something of the site speaks with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// `[[mqtt]] zigbee`.
    pub of: String,
    /// As it stands there; of a robot's group what its file holds, which is a secret.
    pub url: String,
    pub tls: ClientTls,
}

/// A file that the site names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// `mqtt.password_file`.
    pub key: String,
    pub path: PathBuf,
}

impl Named {
    /// Whether nobody but anmin may read it.
    pub fn is_secret(&self) -> bool {
        self.key.ends_with("_file") && !self.key.ends_with("acl_file") || self.key.ends_with("tls_key")
    }

    /// Whether certificates stand in it.
    pub fn is_certificate(&self) -> bool {
        ["tls_cert", "tls_ca", "tls_client_ca"].iter().any(|key| self.key.ends_with(key))
    }

    /// Whether they are those of authorities.
    pub fn is_authority(&self) -> bool {
        self.key.ends_with("_ca")
    }
}

/// The files of certificates, each once, under the first key that names it.
pub fn certificates(files: &SiteFiles) -> Vec<Named> {
    let mut named = Vec::new();
    for source in &files.config {
        if let Ok(root) = toml::from_str::<toml::Table>(&source.text) {
            walk("", &root, &files.base, &mut named);
        }
    }
    let mut seen = BTreeSet::new();
    named.retain(|named| named.is_certificate() && seen.insert(named.path.clone()));
    named
}

/// Tables whose `url` is a peer.
const WITH_PEERS: [&str; 8] = ["mqtt", "mqtt_out", "webhook", "cap", "ebm", "gbt26875_out", "influx", "subscriber"];

/// All peers and files, in the order of the texts.
pub fn outside(files: &SiteFiles) -> (Vec<Peer>, Vec<Named>) {
    let (mut peers, mut named) = (Vec::new(), Vec::new());
    for source in &files.config {
        named.push(Named { key: "site".to_owned(), path: PathBuf::from(&source.name) });
        let Ok(root) = toml::from_str::<toml::Table>(&source.text) else { continue };
        walk("", &root, &files.base, &mut named);
        for (key, value) in &root {
            let tables = value.as_array().into_iter().flatten().filter_map(toml::Value::as_table);
            for table in tables.chain(value.as_table()) {
                let word = |key: &str| table.get(key).and_then(toml::Value::as_str);
                let file = |key: &str| word(key).map(|file| named_file(&files.base, file));
                let urls: Vec<String> = match key.as_str() {
                    "notice" => {
                        let read = |file| std::fs::read_to_string(named_file(&files.base, file)).ok();
                        let robot = word("address_file").and_then(read);
                        let other = word("mail").or(word("gateway")).map(|url| url.replace("{{", "").replace("}}", ""));
                        robot.or(other).into_iter().collect()
                    }
                    "warning_source" => {
                        let polled = table.get("urls").and_then(toml::Value::as_array).into_iter().flatten();
                        let polled = polled.filter_map(toml::Value::as_str);
                        polled.chain(word("ack_url")).map(str::to_owned).collect()
                    }
                    "oidc" => word("issuer").map(str::to_owned).into_iter().collect(),
                    key if WITH_PEERS.contains(&key) => word("url").map(str::to_owned).into_iter().collect(),
                    _ => Vec::new(),
                };
                for url in urls {
                    peers.push(Peer {
                        of: if key == "oidc" {
                            "[oidc]".to_owned()
                        } else {
                            format!("[[{key}]] {}", word("id").unwrap_or(key))
                        },
                        url: url.trim().to_owned(),
                        tls: ClientTls { ca: file("tls_ca"), own: file("tls_cert").zip(file("tls_key")) },
                    });
                }
            }
        }
    }
    (peers, named)
}

fn walk(path: &str, table: &toml::Table, base: &Path, named: &mut Vec<Named>) {
    for (key, value) in table {
        let own = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match value {
            toml::Value::String(file)
                if key.ends_with("_file")
                    || own == "device_list.file"
                    || ["tls_cert", "tls_key", "tls_ca", "tls_client_ca"].contains(&&**key) =>
            {
                named.push(Named { key: own, path: named_file(base, file) });
            }
            toml::Value::Table(below) => walk(&own, below, base, named),
            toml::Value::Array(list) => {
                list.iter().filter_map(toml::Value::as_table).for_each(|below| walk(&own, below, base, named));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::files::Source;
    use super::*;

    #[test]
    fn every_peer_and_every_file_is_found_where_it_stands() {
        let text = r#"
            [web]
            token_file = "secrets/web"
            [broker]
            tls_cert = "tls/server.pem"
            tls_key = "tls/server.key"
            acl_file = "acl"
            [[mqtt]]
            id = "zigbee"
            url = "mqtts://a"
            tls_ca = "/etc/ssl/own.pem"
            password_file = "secrets/zigbee"
            [[cap]]
            id = "drills"
            folder = "cap"
            [[notice]]
            id = "post"
            mail = "smtps://m"
            [[influx]]
            url = "http://127.0.0.1:8428"
            tls_ca = "/etc/ssl/own.pem"
            [[device_list]]
            file = "devices.csv"
            [[subscriber]]
            id = "county"
            url = "https://c"
            [oidc]
            issuer = "https://sso"
            [[warning_source]]
            id = "weather"
            urls = ["https://w/1", "https://w/2"]
            ack_url = "https://w/ack"
        "#;
        let source = Source { name: "anmin.toml".to_owned(), text: text.to_owned() };
        let files = SiteFiles { base: "/site".into(), config: vec![source], ..SiteFiles::default() };
        let (peers, named) = outside(&files);
        let shown: Vec<(&str, &str)> = peers.iter().map(|peer| (&*peer.of, &*peer.url)).collect();
        let weather = ["https://w/1", "https://w/2", "https://w/ack"].map(|url| ("[[warning_source]] weather", url));
        let others = [
            ("[[influx]] influx", "http://127.0.0.1:8428"),
            ("[[mqtt]] zigbee", "mqtts://a"),
            ("[[notice]] post", "smtps://m"),
            ("[oidc]", "https://sso"),
            ("[[subscriber]] county", "https://c"),
        ];
        assert_eq!(shown, [others.as_slice(), &weather].concat());
        let of = |which: fn(&Named) -> bool| -> Vec<String> {
            let mut keys: Vec<String> =
                named.iter().filter(|named| which(named)).map(|named| named.key.clone()).collect();
            keys.sort();
            keys
        };
        assert_eq!(of(Named::is_secret), ["broker.tls_key", "mqtt.password_file", "web.token_file"]);
        assert_eq!(of(Named::is_certificate), ["broker.tls_cert", "influx.tls_ca", "mqtt.tls_ca"]);
        let files: Vec<PathBuf> = certificates(&files).into_iter().map(|named| named.path).collect();
        assert_eq!(files, ["/site/tls/server.pem", "/etc/ssl/own.pem"].map(PathBuf::from));
        assert!(named.iter().any(|named| named.path == Path::new("/site/secrets/zigbee")), "{named:?}");
        assert!(named.iter().any(|named| named.path == Path::new("/etc/ssl/own.pem")), "{named:?}");
    }
}
