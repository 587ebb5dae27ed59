//! Notices to mailboxes, by SMTP (RFC 5321).
//!
//! One connection a message. It is encrypted from the first byte (`smtps://`, RFC 8314) or before anything is said that matters
//! (`smtp://`, RFC 3207): a server that offers no STARTTLS gets nothing. `plain = true` speaks without, to loopback and private
//! addresses alone. Each recipient is a matter of its own: a mailbox that the server refuses is left out and said, one that it cannot
//! take now is tried again, and whoever has the message gets no second one.
//!
//! Messages are written and the dialogue is spoken by `lettre`. Dialling, TLS and the way into it are here: so that the list of whom
//! anmin may dial and its own certificates hold as everywhere, and that nothing which was said before TLS is taken for an answer
//! after it.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use anmin_rules::order::{Order, OrderBody};
use anmin_rules::rule::Level;
use anmin_sensors::document::Reader;
use hyper::Uri;
use lettre::message::header::{ContentType, HeaderName, HeaderValue, MIME_VERSION_1_0};
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, AsyncTokioStream};
use lettre::transport::smtp::commands::{Data, Mail as MailFrom, Rcpt};
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::response::Response;
use ring::digest;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::super::http::Guard;
use super::super::{DeliveryError, Receipt, Secret, excerpt, read_file};
use super::told::{Share, Told};
use super::words::{Letter, Words};
use crate::clock::Clock;
use crate::credentials::ClientTls;
use crate::outgoing::Outgoing;

/// Messages a minute, where nothing else is said: what providers of mailboxes bear.
pub(super) const PER_MINUTE: usize = 20;
/// Bytes of text in one message: more than a person reads.
pub(super) const MOST_BYTES: usize = 16 << 10;
/// Mailboxes of one way out.
const MOST_RECIPIENTS: usize = 100;
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// Bytes of an answer before TLS.
const ANSWER_LIMIT: usize = 8 << 10;

/// How a connection is kept from being read and changed on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Secure {
    /// From its first byte.
    Tls,
    /// After a word in the clear.
    StartTls,
    /// Not at all.
    Plain,
}

/// The words of a `[[notice]]` with `mail`.
#[derive(Clone, Debug)]
pub struct Settings {
    host: String,
    port: u16,
    secure: Secure,
    tls: ClientTls,
    user: Option<(String, PathBuf)>,
    from: Mailbox,
    to: Vec<Mailbox>,
    outgoing: Outgoing,
}

impl Settings {
    pub(super) fn read(r: &Reader<'_>, base: &Path) -> Option<Self> {
        let url: Option<String> = r.required("mail");
        let plain = r.or("plain", false);
        let tls = ClientTls::read(r, base);
        let user: Option<String> = r.optional("user");
        let password_file = read_file(r, "password_file", base, Secret::read);
        if user.is_some() != r.has("password_file") {
            let (given, lacks) = if user.is_some() { ("user", "password_file") } else { ("password_file", "user") };
            r.fault(given, format!("`{given}` without `{lacks}`"), None);
        }
        let from = r.required::<String>("from").and_then(|text| mailbox(r, "from", &text));
        let mut to: Vec<Mailbox> = Vec::new();
        for text in r.required::<Vec<String>>("to").unwrap_or_default() {
            let Some(found) = mailbox(r, "to", &text) else { continue };
            if to.iter().any(|known| known.email == found.email) {
                r.fault("to", format!("`to` names {} twice", found.email), None);
            }
            to.push(found);
        }
        if r.has("to") && (to.is_empty() || to.len() > MOST_RECIPIENTS) {
            r.fault("to", format!("`to` has {} mailboxes, expected 1 to {MOST_RECIPIENTS}", to.len()), None);
        }
        let (host, port, secure) = match server(&url?, plain) {
            Ok(server) => server,
            Err((message, hint)) => {
                r.fault("mail", message, hint);
                return None;
            }
        };
        let settings = Self {
            host,
            port,
            secure,
            tls,
            user: user.zip(password_file),
            from: from?,
            to,
            outgoing: Outgoing::default(),
        };
        // A literal address is judged here; a name when it is dialled.
        if let Ok(address) = settings.host.parse()
            && let Err(why) = settings.guard().admit(address)
        {
            r.fault("mail", format!("`mail` leads to {}, but {why}", settings.host), None);
        }
        Some(settings)
    }

    pub(super) fn heed(&mut self, outgoing: &Outgoing, r: &Reader<'_>) {
        outgoing.check(r, "mail", &self.host);
        self.outgoing = outgoing.clone();
    }

    fn guard(&self) -> Guard {
        Guard { only_private: self.secure == Secure::Plain, outgoing: self.outgoing.clone() }
    }
}

/// Host, port and protection that an address such as `smtp://mail.example.cn:587` stands for.
fn server(url: &str, plain: bool) -> Result<(String, u16, Secure), (String, Option<String>)> {
    let wrong = |why: &str| {
        let hint = "such as \"smtps://mail.example.cn\" or \"smtp://mail.example.cn:587\"".to_owned();
        (format!("`mail` is {url:?}, {why}"), Some(hint))
    };
    let uri: Uri = url.parse().map_err(|_| wrong("which is no address of a server"))?;
    let (secure, usual) = match (uri.scheme_str(), plain) {
        (Some("smtps"), false) => (Secure::Tls, 465),
        (Some("smtps"), true) => return Err(wrong("which is encrypted, but `plain` is true")),
        (Some("smtp"), false) => (Secure::StartTls, 587),
        (Some("smtp"), true) => (Secure::Plain, 25),
        _ => return Err(wrong("expected smtps:// or smtp://")),
    };
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        let hint = "`user` names the account, `password_file` the file with its password".to_owned();
        return Err(("`mail` carries a user name or password".to_owned(), Some(hint)));
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(wrong("which has more than a host and a port"));
    }
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err(wrong("which names no host"));
    }
    Ok((host.to_owned(), uri.port_u16().unwrap_or(usual), secure))
}

/// A mailbox that any server takes: its address in ASCII.
fn mailbox(r: &Reader<'_>, key: &'static str, text: &str) -> Option<Mailbox> {
    let found = text.parse::<Mailbox>().ok().filter(|found| found.email.to_string().is_ascii());
    if found.is_none() {
        let hint = "such as \"duty@example.cn\" or \"值班室 <duty@example.cn>\"".to_owned();
        r.fault(key, format!("`{key}` has {text:?}, which is no mailbox"), Some(hint));
    }
    found
}

/// The mailboxes of one `[[notice]]`, and the server that takes messages for them.
pub(super) struct Mail {
    host: String,
    port: u16,
    secure: Secure,
    tls: TlsConnector,
    guard: Guard,
    login: Option<(String, Secret)>,
    from: Mailbox,
    to: Vec<Mailbox>,
    pub(super) told: Told,
    clock: Clock,
}

impl Mail {
    pub(super) fn new(settings: &Settings, clock: &Clock) -> Result<Self, String> {
        let Settings { host, port, secure, tls, user, from, to, outgoing } = settings;
        outgoing.may_dial(host)?;
        let login = match user {
            Some((user, password)) => Some((user.clone(), Secret::read(password)?)),
            None => None,
        };
        Ok(Self {
            host: host.clone(),
            port: *port,
            secure: *secure,
            tls: TlsConnector::from(Arc::new(tls.config(*secure != Secure::Plain)?)),
            guard: settings.guard(),
            login,
            from: from.clone(),
            to: to.clone(),
            // What a server says for good holds at once (RFC 5321 section 4.2.1).
            told: Told::new(to.len(), 1),
            clock: clock.clone(),
        })
    }

    /// Tells whoever has not been told, once.
    pub(super) async fn send(&self, words: &Words, orders: &[&Order]) -> Result<Receipt, DeliveryError> {
        let text = words.letter(orders)?.as_sent();
        let (mut detail, mut later) = (String::new(), None);
        for Share { orders, recipients } in self.told.shares(orders) {
            let letter = words.letter(&orders)?;
            let message = self.compose(&letter, &orders)?;
            match self.hand_over(&message, &orders, &recipients).await {
                Ok(said) => detail = said,
                Err(reason) => {
                    later = Some(DeliveryError::Retry(self.without_addresses(&reason)));
                    break;
                }
            }
        }
        let verdict = self.told.verdict(orders, &detail, later)?;
        if verdict.detail.contains("not taken for") {
            tracing::warn!(order = %orders[0].id, "{}", verdict.detail);
        }
        Ok(verdict.with_text(text))
    }

    /// The message as it is handed over. Its `Message-ID` follows from the orders alone, so that one that comes twice is known; all
    /// that is said of one alarm refers to the alarm's own id, and so stands in one thread.
    fn compose(&self, letter: &Letter, orders: &[&Order]) -> Result<Vec<u8>, DeliveryError> {
        let domain = self.from.email.domain();
        let hash = name_of(orders);
        let about = |order: &Order| match &order.body {
            OrderBody::Event(transition) => Some(transition.alarm.id),
            OrderBody::Call(change) => Some(change.alarm.id),
            OrderBody::Cap(_) | OrderBody::Siren(_) => None,
        };
        let alarm = about(orders[0]).filter(|alarm| orders.iter().all(|order| about(order) == Some(*alarm)));
        let mut builder = Message::builder()
            .from(self.from.clone())
            .subject(&letter.subject)
            .date(self.now())
            .header(MIME_VERSION_1_0)
            .header(ContentType::TEXT_PLAIN)
            // RFC 3834: nobody's absence is to be announced to it.
            .raw_header(plain_header("Auto-Submitted", "auto-generated"));
        for to in &self.to {
            builder = builder.to(to.clone());
        }
        builder = match alarm {
            Some(alarm) => {
                let thread = format!("<{alarm}@{domain}>");
                builder
                    .message_id(Some(format!("<{alarm}.{hash}@{domain}>")))
                    .in_reply_to(thread.clone())
                    .references(thread)
            }
            None => builder.message_id(Some(format!("<{hash}@{domain}>"))),
        };
        if letter.level >= Some(Level::Red) {
            builder =
                builder.raw_header(plain_header("X-Priority", "1")).raw_header(plain_header("Importance", "high"));
        }
        let message = builder
            .body(format!("{}{}\n", letter.text, letter.links))
            .map_err(|error| DeliveryError::Never(format!("the message cannot be written: {error}")))?;
        Ok(message.formatted())
    }

    fn now(&self) -> SystemTime {
        let millis = self.clock.now().wall.millis();
        SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap_or_default())
    }

    /// Hands one message over for these recipients and notes what becomes of each. Gives what the server said; the error says why
    /// somebody must wait.
    async fn hand_over(&self, message: &[u8], orders: &[&Order], recipients: &[usize]) -> Result<String, String> {
        let mut server = self.connect().await?;
        let key = name_of(orders);
        let refuse_all = |why: &str| {
            recipients.iter().for_each(|recipient| self.told.handle_refused(orders, *recipient, &key, why));
            why.to_owned()
        };
        match judge(server.command(MailFrom::new(Some(self.from.email.clone()), Vec::new())).await, &[250]) {
            Said::Taken(_) => {}
            Said::Refused(why) => return Ok(refuse_all(&self.without_addresses(&why))),
            Said::Later(why) => return Err(why),
        }
        let (mut accepted, mut later, mut refusal) = (Vec::new(), None, String::new());
        for recipient in recipients {
            let to = self.to[*recipient].email.clone();
            match judge(server.command(Rcpt::new(to, Vec::new())).await, &[250, 251]) {
                Said::Taken(_) => accepted.push(*recipient),
                Said::Refused(why) => {
                    refusal = self.without_addresses(&why);
                    self.told.handle_refused(orders, *recipient, &key, &refusal);
                }
                Said::Later(why) => later = Some(format!("recipient {}: {why}", recipient + 1)),
            }
        }
        if accepted.is_empty() {
            quit(server).await;
            return later.map_or(Ok(refusal), Err);
        }
        match judge(server.command(Data).await, &[354]) {
            Said::Taken(_) => {}
            Said::Refused(why) => return Ok(refuse_all(&self.without_addresses(&why))),
            Said::Later(why) => return Err(why),
        }
        let said = match judge(server.message(message).await, &[250]) {
            Said::Taken(said) => {
                accepted.iter().for_each(|recipient| self.told.handle_taken(orders, *recipient, &key));
                said
            }
            Said::Refused(why) => {
                let why = self.without_addresses(&why);
                accepted.iter().for_each(|recipient| self.told.handle_refused(orders, *recipient, &key, &why));
                why
            }
            Said::Later(why) => return Err(why),
        };
        quit(server).await;
        later.map_or(Ok(self.without_addresses(&format!("{said}, accepted"))), Err)
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, String> {
        let dial = async {
            let addresses = self.guard.resolve(&self.host, self.port).await?;
            TcpStream::connect(addresses.as_slice()).await
        };
        let mut stream = match timeout(CONNECT_LIMIT, dial).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(format!("{}:{}: {error}", self.host, self.port)),
            Err(_) => return Err(format!("{}:{}: no connection within {CONNECT_LIMIT:?}", self.host, self.port)),
        };
        // RFC 5321 section 4.1.4: who has no name that others know says its address.
        let hello = match stream.local_addr().map(|address| address.ip().to_canonical()) {
            Ok(std::net::IpAddr::V4(address)) => ClientId::Ipv4(address),
            Ok(std::net::IpAddr::V6(address)) => ClientId::Ipv6(address),
            Err(error) => return Err(error.to_string()),
        };
        let stream: Box<dyn AsyncTokioStream> = match self.secure {
            Secure::Plain => Box::new(stream),
            Secure::Tls => Box::new(Encrypted { before: b"", stream: self.encrypt(stream).await? }),
            Secure::StartTls => {
                ask_for_tls(&mut stream, &hello).await?;
                // The server greets once, and has: whoever speaks with it from here on waits for a greeting.
                Box::new(Encrypted { before: b"220 TLS\r\n", stream: self.encrypt(stream).await? })
            }
        };
        let mut server = AsyncSmtpConnection::connect_with_transport(stream, &hello)
            .await
            .map_err(|error| excerpt(&error.to_string()))?;
        if let Some((user, password)) = &self.login {
            let credentials = Credentials::new(user.clone(), password.reveal().to_owned());
            let said = server.auth(&[Mechanism::Plain, Mechanism::Login], &credentials).await;
            // A password is mended by a person, and the message is not at fault.
            match judge(said, &[235]) {
                Said::Taken(_) => {}
                Said::Refused(why) | Said::Later(why) => return Err(format!("signing in: {why}")),
            }
        }
        Ok(server)
    }

    async fn encrypt(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, String> {
        let name = ServerName::try_from(self.host.clone()).map_err(|error| format!("{}: {error}", self.host))?;
        self.tls.connect(name, stream).await.map_err(|error| format!("{}: TLS: {error}", self.host))
    }

    /// A server names whom it means; logs and other people's screens do not.
    fn without_addresses(&self, said: &str) -> String {
        let mut text = said.to_owned();
        for (n, to) in self.to.iter().enumerate() {
            text = text.replace(to.email.to_string().as_str(), &format!("(recipient {})", n + 1));
        }
        text
    }
}

/// What an answer means (RFC 5321 section 4.2.1).
enum Said {
    Taken(String),
    /// 5yz, for good.
    Refused(String),
    /// 4yz, an answer to something else, or none.
    Later(String),
}

fn judge(answer: Result<Response, lettre::transport::smtp::Error>, expected: &[u16]) -> Said {
    match answer {
        Ok(response) => {
            let text = excerpt(&format!("{} {}", response.code(), response.first_line().unwrap_or_default()));
            if expected.iter().any(|code| response.has_code(*code)) {
                Said::Taken(text)
            } else {
                Said::Later(format!("an answer out of turn: {text}"))
            }
        }
        Err(error) => {
            let words = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            match error.status() {
                Some(code) if error.is_permanent() => Said::Refused(excerpt(&format!("{code} {words}"))),
                Some(code) => Said::Later(excerpt(&format!("{code} {words}"))),
                None => Said::Later(excerpt(&error.to_string())),
            }
        }
    }
}

/// What a message about these orders is called, always the same.
fn name_of(orders: &[&Order]) -> String {
    let of_all = orders.iter().map(|order| order.id.as_str()).collect::<Vec<_>>().join("\n");
    let hash = digest::digest(&digest::SHA256, of_all.as_bytes());
    hash.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Says good-bye; whoever has gone already was polite enough.
async fn quit(mut server: AsyncSmtpConnection) {
    let _ = timeout(Duration::from_secs(1), server.quit()).await;
}

/// A header whose value is ours and needs no encoding.
fn plain_header(name: &'static str, value: &str) -> HeaderValue {
    HeaderValue::new(HeaderName::new_from_ascii_str(name), value.to_owned())
}

/// Greets, and has the server begin with TLS (RFC 3207). What it says beyond its answer before TLS was not said by it for certain, and
/// ends the connection.
async fn ask_for_tls(stream: &mut TcpStream, hello: &ClientId) -> Result<(), String> {
    answer(stream, "220").await?;
    let offers = say(stream, &format!("EHLO {hello}"), "250").await?;
    let offered = |line: &str| line.get(4..).is_some_and(|word| word.trim().eq_ignore_ascii_case("STARTTLS"));
    if !offers.lines().any(offered) {
        return Err("the server offers no STARTTLS, and gets nothing without".to_owned());
    }
    say(stream, "STARTTLS", "220").await.map(|_| ())
}

async fn say(stream: &mut TcpStream, line: &str, expected: &str) -> Result<String, String> {
    stream.write_all(format!("{line}\r\n").as_bytes()).await.map_err(|error| error.to_string())?;
    answer(stream, expected).await
}

/// One answer, and nothing behind it.
async fn answer(stream: &mut TcpStream, expected: &str) -> Result<String, String> {
    let mut came = Vec::new();
    loop {
        let mut more = [0; 1_024];
        let read = stream.read(&mut more).await.map_err(|error| error.to_string())?;
        came.extend_from_slice(&more[..read]);
        if read == 0 || came.len() > ANSWER_LIMIT {
            return Err("the server broke off, or speaks no SMTP".to_owned());
        }
        let text = String::from_utf8_lossy(&came);
        let mut lines = text.split_inclusive("\r\n");
        let Some(last) = lines.find(|line| line.ends_with("\r\n") && line.as_bytes().get(3) != Some(&b'-')) else {
            continue;
        };
        if lines.next().is_some() {
            return Err("the server said more than it was asked before TLS".to_owned());
        }
        if !last.starts_with(expected) {
            return Err(excerpt(last.trim_end()));
        }
        return Ok(text.into_owned());
    }
}

/// An encrypted connection, before which something is read.
#[derive(Debug)]
struct Encrypted {
    before: &'static [u8],
    stream: TlsStream<TcpStream>,
}

impl AsyncTokioStream for Encrypted {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.get_ref().0.peer_addr()
    }
}

impl AsyncRead for Encrypted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.before.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, into);
        }
        let (now, then) = self.before.split_at(self.before.len().min(into.remaining()));
        into.put_slice(now);
        self.before = then;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
