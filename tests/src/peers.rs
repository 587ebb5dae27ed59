//! The world around anmin, started for real: brokers, databases, buses, receivers. Each ends with its test.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde_json::Value;

use crate::daemon::{DEADLINE, pause};
use crate::http;
use crate::site::Site;

/// A process whose output is read line by line, killed when dropped.
pub struct Peer {
    child: Child,
    lines: Receiver<String>,
    commands: ChildStdin,
}

impl Peer {
    pub fn start(program: &str, arguments: &[&str]) -> Self {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {program}: {error}; see tests/setup.sh"));
        let (send, lines) = channel();
        let out = BufReader::new(child.stdout.take().expect("it is piped"));
        let err = BufReader::new(child.stderr.take().expect("it is piped"));
        let other = send.clone();
        // Both pipes are read to their end, so that the peer never waits for a reader.
        std::thread::spawn(move || out.lines().map_while(Result::ok).for_each(|line| drop(send.send(line))));
        std::thread::spawn(move || err.lines().map_while(Result::ok).for_each(|line| drop(other.send(line))));
        Self { commands: child.stdin.take().expect("it is piped"), child, lines }
    }

    /// A script of `tests/peers`.
    pub fn python(script: &str, arguments: &[&str]) -> Self {
        let python = std::env::var("ANMIN_PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let script = format!("{}/peers/{script}", env!("CARGO_MANIFEST_DIR"));
        Self::start(&python, &[&[script.as_str()], arguments].concat())
    }

    /// A script of `tests/peers`, and what it says after "ready": its port.
    pub fn ready(script: &str, arguments: &[&str]) -> (Self, String) {
        let mut peer = Self::python(script, arguments);
        let port = peer.until("ready").trim_start_matches("ready").trim().to_owned();
        (peer, port)
    }

    /// The next line that holds `text`.
    pub fn until(&mut self, text: &str) -> String {
        let deadline = Instant::now() + DEADLINE;
        let mut said = Vec::new();
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(text) => return line,
                Ok(line) => said.push(line),
                Err(why) => panic!("a peer did not say {text:?} ({why}; see tests/setup.sh):\n{}", said.join("\n")),
            }
        }
    }

    /// The next line that holds `text`, of a peer that speaks JSON.
    pub fn tells(&mut self, text: &str) -> Value {
        parsed(&self.until(text))
    }

    /// Where a peer listens, which is what each of ours says first: an address or a port.
    fn listening(&mut self) -> Value {
        self.tells("listening")["listening"].take()
    }

    /// The same, of those that have an address.
    fn url(&mut self) -> String {
        self.listening().as_str().expect("it says where").to_owned()
    }

    /// What it has said and nobody has read.
    pub fn said(&mut self) -> Vec<String> {
        self.lines.try_iter().collect()
    }

    /// The same, of a peer that speaks JSON.
    pub fn told(&mut self) -> Vec<Value> {
        self.said().iter().map(|line| parsed(line)).collect()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn tell(&mut self, command: &str) {
        writeln!(self.commands, "{command}").expect("the peer listens");
    }

    /// As systemd would, and waits for its end.
    pub fn terminate(&mut self) {
        let asked = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(asked.is_ok_and(|status| status.success()));
        self.child.wait().expect("the child is ours");
    }

    /// At once; nothing is said to whom it speaks with.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An OpenID provider, panva's oidc-provider, on a port that stays when it starts anew. Its pages are for the browser of `page`.
pub struct Provider {
    pub port: u16,
    pub page: String,
    peer: Peer,
}

impl Provider {
    pub fn run(port: u16, page: &str) -> Self {
        let web = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gateway/web");
        let there = web.join("node_modules/oidc-provider").exists();
        assert!(there, "the provider is not there: run `make web`");
        let script = web.join("e2e/provider.mjs").display().to_string();
        let mut peer = Peer::start("node", &[&script, &port.to_string(), page]);
        peer.until("listening");
        Self { port, page: page.to_owned(), peer }
    }

    /// With a new key.
    pub fn again(&mut self) {
        self.peer.kill();
        *self = Self::run(self.port, &self.page);
    }

    pub fn kill(&mut self) {
        self.peer.kill();
    }

    pub fn roles(&mut self, name: &str, words: &str) {
        self.peer.tell(&format!("roles {name} {words}"));
        self.peer.until(&format!("{{\"roles\":\"{name}\"}}"));
    }

    /// `[oidc]` of a site with a building 3 that calls the provider's host so.
    pub fn table(&self, host: &str) -> String {
        format!(
            r#"
[oidc]
issuer = "http://{host}:{}"
client_id = "anmin"
client_secret_file = "oidc-secret"
page = "{}"
name = {{ zh = "政务统一认证", en = "the county's sign-in" }}
scopes = ["openid", "profile", "roles"]

[[oidc.role]]
value = "duty-lead"
role = "administrator"

[[oidc.role]]
value = "duty"
role = "officer"

[[oidc.role]]
value = "building-3"
role = "manager"
places = ["3"]
"#,
            self.port, self.page
        )
    }

    /// The secret of the site, and its page where the provider knows it.
    pub fn write(&self, site: &Site) {
        site.write("oidc-secret", "a secret/of anmin:1\n");
        let text = std::fs::read_to_string(site.path("anmin.toml")).expect("the site has a configuration");
        let (usual, listen) = ("127.0.0.1:0", self.page.trim_start_matches("http://"));
        site.write(
            "anmin.toml",
            &text.replacen(&format!("listen = \"{usual}\""), &format!("listen = \"{listen}\""), 1),
        );
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
    listener.local_addr().expect("it is bound").port()
}

/// Waits until somebody listens on the port.
pub fn listening(port: u16, what: &str) {
    let deadline = Instant::now() + DEADLINE;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "{what} does not listen on {port}");
        pause();
    }
}

/// Mosquitto on a port of its own, persistent, as `gateway/docs` advises for sites.
pub struct Mosquitto {
    pub port: u16,
    /// Another way in, for those who shall not share a fault of the first.
    pub beside: u16,
    configuration: PathBuf,
    peer: Option<Peer>,
    /// What it has said and somebody has asked about.
    log: Vec<String>,
}

impl Mosquitto {
    pub fn start(site: &Site) -> Self {
        let (port, beside) = (free_port(), free_port());
        let name = format!("mosquitto-{port}");
        site.write(&format!("{name}/kept"), "");
        let folder = site.path(&name);
        let text = format!(
            "listener {port} 127.0.0.1\nlistener {beside} 127.0.0.1\nallow_anonymous true\nuser root\npersistence true\npersistence_location {}/\n\
             autosave_on_changes true\nautosave_interval 1\nmax_queued_messages 0\nmax_inflight_messages 1000\n\
             message_size_limit 8388608\nset_tcp_nodelay true\nlog_dest stderr\n",
            folder.display()
        );
        site.write(&format!("{name}/mosquitto.conf"), &text);
        let configuration = folder.join("mosquitto.conf");
        let mut mosquitto = Self { port, beside, configuration, peer: None, log: Vec::new() };
        mosquitto.run();
        mosquitto
    }

    /// Starts it (again) and waits until it listens.
    pub fn run(&mut self) {
        let mut peer = Peer::start("/usr/sbin/mosquitto", &["-c", &self.configuration.display().to_string()]);
        peer.until(" running");
        self.peer = Some(peer);
    }

    pub fn kill(&mut self) {
        self.peer = None;
    }

    /// Waits until it has written down that a session listens to this topic.
    pub fn keeps(&self, topic: &str) {
        let memory = self.configuration.with_file_name("mosquitto.db");
        let deadline = Instant::now() + DEADLINE;
        let holds = |bytes: Vec<u8>| bytes.windows(topic.len()).any(|part| part == topic.as_bytes());
        while !std::fs::read(&memory).is_ok_and(holds) {
            assert!(Instant::now() < deadline, "mosquitto keeps no session that listens to {topic}");
            pause();
        }
    }

    /// How often this client has connected, as the broker tells it.
    pub fn connects(&mut self, client: &str) -> usize {
        self.log.extend(self.peer.iter_mut().flat_map(Peer::said));
        let named = format!(" as {client} ");
        self.log.iter().filter(|line| line.contains("New client connected") && line.contains(&named)).count()
    }

    /// While it is down: it loses its memory, sessions and all.
    pub fn forget(&self) {
        let memory = self.configuration.with_file_name("mosquitto.db");
        // It may not have written anything yet.
        let _ = std::fs::remove_file(memory);
    }
}

/// Stands between anmin and a broker on the way of their packets.
pub struct Proxy {
    pub port: u16,
    swallow: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    pub fn start(to: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let proxy = Self { port, swallow: Arc::default(), streams: Arc::default() };
        let (swallow, streams) = (Arc::clone(&proxy.swallow), Arc::clone(&proxy.streams));
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let Ok(far) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                let copy = |stream: &TcpStream| stream.try_clone().expect("a socket can be held twice");
                let (up, down) = ((copy(&near), copy(&far)), (copy(&far), copy(&near)));
                let mut streams = streams.lock().expect("nobody panics with it");
                streams.extend([near, far]);
                let swallow = Arc::clone(&swallow);
                std::thread::spawn(move || carry(up.0, up.1, |first| first >> 4 == 4 && swallow.load(Relaxed)));
                std::thread::spawn(move || carry(down.0, down.1, |_| false));
            }
        });
        proxy
    }

    /// From now on the broker gets no PUBACK from anmin, or gets them again.
    pub fn swallow_acknowledgements(&self, swallow: bool) {
        self.swallow.store(swallow, Relaxed);
    }

    /// Ends every connection.
    pub fn cut(&self) {
        for stream in self.streams.lock().expect("nobody panics with it").drain(..) {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn parsed(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?}"))
}

/// Carries whole MQTT packets, but for those whose first byte is `left_out`.
fn carry(mut from: TcpStream, mut to: TcpStream, left_out: impl Fn(u8) -> bool) {
    let mut next = || -> std::io::Result<()> {
        let mut packet = vec![0; 2];
        from.read_exact(&mut packet)?;
        let mut remaining = usize::from(packet[1] & 0x7F);
        let mut shift = 7;
        while packet[packet.len() - 1] & 0x80 != 0 {
            let mut byte = [0];
            from.read_exact(&mut byte)?;
            packet.push(byte[0]);
            remaining |= usize::from(byte[0] & 0x7F) << shift;
            shift += 7;
        }
        let start = packet.len();
        packet.resize(start + remaining, 0);
        from.read_exact(&mut packet[start..])?;
        if left_out(packet[0]) { Ok(()) } else { to.write_all(&packet) }
    };
    while next().is_ok() {}
    // The end of the one is the end of the other.
    for stream in [from, to] {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// VictoriaMetrics on a port of its own, with its data in the site's folder.
pub struct VictoriaMetrics {
    pub port: u16,
    data: PathBuf,
    peer: Option<Peer>,
}

impl VictoriaMetrics {
    pub fn start(site: &Site) -> Self {
        let mut database = Self { port: free_port(), data: site.path("victoria-metrics"), peer: None };
        database.run();
        database
    }

    pub fn run(&mut self) {
        let listen = format!("-httpListenAddr=127.0.0.1:{}", self.port);
        let data = format!("-storageDataPath={}", self.data.display());
        // Ten years, so that no test's time is too old; repeats within a millisecond are one.
        let more = ["-retentionPeriod=10y", "-dedup.minScrapeInterval=1ms", "-memory.allowedBytes=64MB"];
        self.peer = Some(Peer::start("victoria-metrics", &[&[listen.as_str(), data.as_str()], &more[..]].concat()));
        listening(self.port, "victoria-metrics");
    }

    /// Stops it in order: it keeps what it has taken.
    pub fn stop(&mut self) {
        if let Some(mut peer) = self.peer.take() {
            peer.terminate();
        }
    }

    fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// Everything that is stored of one field, by point: milliseconds and value. Repeats are there as often as they came.
    pub fn stored(&self, field: &str) -> BTreeMap<String, Vec<(i64, f64)>> {
        self.export(field, "&reduce_mem_usage=1").unwrap_or_else(|error| panic!("{field}: {error}"))
    }

    /// As [`VictoriaMetrics::stored`], as a chart sees it: what came again under its series and time is there once.
    pub fn deduplicated(&self, field: &str) -> BTreeMap<String, Vec<(i64, f64)>> {
        self.export(field, "").unwrap_or_else(|error| panic!("{field}: {error}"))
    }

    fn export(&self, field: &str, how: &str) -> std::io::Result<BTreeMap<String, Vec<(i64, f64)>>> {
        http::request(self.address(), "GET", "/internal/force_flush", "")?;
        let path = format!("/api/v1/export?match%5B%5D=%7B__name__%3D%22{field}%22%7D&start=1{how}");
        let mut found: BTreeMap<String, Vec<(i64, f64)>> = BTreeMap::new();
        for line in http::request(self.address(), "GET", &path, "")?.body.lines() {
            let series = parsed(line);
            let point = series["metric"]["point"].as_str().expect("every series has a point").to_owned();
            let times = series["timestamps"].as_array().into_iter().flatten().filter_map(Value::as_i64);
            let values = series["values"].as_array().into_iter().flatten().filter_map(Value::as_f64);
            found.entry(point).or_default().extend(times.zip(values));
        }
        found.values_mut().for_each(|rows| rows.sort_by_key(|row| row.0));
        Ok(found)
    }

    /// Waits until what is stored of a field is as wanted. A test that makes the network bad looks through it too: an answer that
    /// got lost is asked for again.
    pub fn wait(
        &self,
        field: &str,
        wanted: impl Fn(&BTreeMap<String, Vec<(i64, f64)>>) -> bool,
    ) -> BTreeMap<String, Vec<(i64, f64)>> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let stored = self.export(field, "&reduce_mem_usage=1");
            match stored {
                Ok(stored) if wanted(&stored) => return stored,
                _ => assert!(Instant::now() < deadline, "the database holds of {field}: {stored:?}"),
            }
            pause();
        }
    }
}

/// A receiver of CAP 1.2 by lxml and the OASIS schema.
pub struct CapReceiver {
    pub url: String,
    /// The schema of OASIS that it judges by.
    pub schema: String,
    peer: Peer,
}

impl CapReceiver {
    pub fn start(arguments: &[&str]) -> Self {
        let mut peer = Peer::python("cap_receiver.py", arguments);
        let mut said = peer.tells("listening");
        let mut of = |key: &str| said[key].take().as_str().expect("it says so").to_owned();
        Self { url: of("listening"), schema: of("schema"), peer }
    }

    /// What it says of the next message of this type.
    pub fn next(&mut self, kind: &str) -> Value {
        self.peer.tells(&format!("\"msgType\": \"{kind}\""))
    }

    /// What it says of every message that nobody has asked about.
    pub fn taken(&mut self) -> Vec<Value> {
        self.peer.told()
    }
}

/// A platform of the emergency broadcast: `tests/peers/eb_platform.py`.
pub struct EbPlatform {
    pub url: String,
    peer: Peer,
}

impl EbPlatform {
    pub fn start(arguments: &[&str]) -> Self {
        let mut peer = Peer::python("eb_platform.py", arguments);
        Self { url: peer.url(), peer }
    }

    /// Answers the next messages so, each by one word of the list, and those behind them with 1.
    pub fn answer(&mut self, answers: &str) {
        self.peer.tell(answers);
    }

    /// What it says of the next message of this MsgType, in which it finds no fault.
    pub fn next(&mut self, msg_type: u8) -> Value {
        let said = self.peer.tells(&format!("\"msg_type\": \"{msg_type}\""));
        assert_eq!(said["faults"], Value::Array(Vec::new()), "{said:#}");
        said
    }

    /// What it says of the next heartbeat.
    pub fn heartbeat(&mut self) -> Value {
        self.peer.tells("ConnectionCheck")
    }

    /// What it says of every package that nobody has asked about.
    pub fn taken(&mut self) -> Vec<Value> {
        self.peer.told()
    }
}

/// The program that signs for it with this key: `tests/peers/eb_sign.py`.
pub fn eb_signer() -> String {
    format!("{}/peers/eb_sign.py", env!("CARGO_MANIFEST_DIR"))
}

/// An emergency office that is told by signed webhook.
pub struct Office {
    pub url: String,
    peer: Peer,
}

impl Office {
    pub fn start(arguments: &[&str]) -> Self {
        let mut peer = Peer::python("office.py", &[&["serve"], arguments].concat());
        Self { url: peer.url(), peer }
    }

    /// What it says of the next post of this type.
    pub fn next(&mut self, kind: &str) -> Value {
        self.peer.tells(&format!("\"type\": \"{kind}\""))
    }

    /// The orders of the next so many events, as they came.
    pub fn orders(&mut self, most: usize) -> Vec<String> {
        let mut orders = Vec::new();
        while orders.len() < most {
            let said = self.next("events");
            orders.extend(said["orders"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned));
        }
        orders
    }

    /// What a reader of Atom feeds makes of the one at `url`.
    pub fn reads_feed(url: &str, token: &str) -> Value {
        Peer::python("office.py", &["feed", url, token]).tells("\"entries\"")
    }

    pub fn stop(&mut self) {
        self.peer.kill();
    }
}

/// A server of mailboxes: `tests/peers/mailbox.py`.
pub struct Mailboxes {
    pub port: u16,
    peer: Peer,
}

impl Mailboxes {
    /// `how`: `plain`, `starttls` or `tls`, with the certificate `name` of the site; port 0 is a free one.
    pub fn start(site: &Site, how: &str, port: u16, name: &str) -> Self {
        let [certificate, key] = ["pem", "key"].map(|end| site.path(&format!("{name}.{end}")).display().to_string());
        let mut peer = Peer::python("mailbox.py", &[how, &port.to_string(), &certificate, &key]);
        let port = peer.listening().as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port");
        Self { port, peer }
    }

    /// The next message that holds `text`.
    pub fn next(&mut self, text: &str) -> Value {
        self.peer.tells(text)
    }

    /// Answers the next `count` of `verb` with `reply`.
    pub fn answer(&mut self, verb: &str, count: usize, reply: &str) {
        self.peer.tell(&format!("{verb} {count} {reply}"));
    }

    /// What it says that nobody has asked about.
    pub fn said(&mut self) -> Vec<Value> {
        self.peer.said().iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

/// A gateway for short messages and calls: `tests/peers/telephones.py`.
pub struct Telephones {
    pub url: String,
    peer: Peer,
}

impl Telephones {
    pub fn start() -> Self {
        let mut peer = Peer::python("telephones.py", &[]);
        Self { url: peer.url(), peer }
    }

    /// What it says of the next request that holds `text`.
    pub fn next(&mut self, text: &str) -> Value {
        self.peer.tells(text)
    }

    /// Answers the next `count` requests so, and does not take them.
    pub fn answer(&mut self, count: usize, how: &str) {
        self.peer.tell(&format!("{count} {how}"));
    }

    /// Has it post a delivery report. Gives the status of the answer and the answer.
    pub fn report(&mut self, url: &str, report: &Value) -> (u64, String) {
        self.peer.tell(&format!("report {url} {report}"));
        let said = self.peer.tells("\"report\"");
        (said["report"].as_u64().expect("a status"), said["body"].as_str().expect("a text").to_owned())
    }

    /// What it says that nobody has asked about.
    pub fn said(&mut self) -> Vec<Value> {
        self.peer.said().iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

/// The robots of three group chats, by their makers' words.
pub struct Robots {
    pub url: String,
    peer: Peer,
}

impl Robots {
    pub fn start() -> Self {
        let mut peer = Peer::python("robot.py", &[]);
        Self { url: peer.url(), peer }
    }

    /// What it says of the next message that holds `text`.
    pub fn next(&mut self, text: &str) -> Value {
        self.peer.tells(text)
    }

    /// What it says of every message that nobody has asked about.
    pub fn told(&mut self) -> Vec<Value> {
        self.peer.told()
    }
}

/// A pair of joined pseudo-terminals by socat: a serial line without wires.
pub struct Line {
    pub ends: [String; 2],
    _peer: Peer,
}

impl Line {
    pub fn start() -> Self {
        let mut peer = Peer::start("socat", &["-d", "-d", "pty,raw,echo=0", "pty,raw,echo=0"]);
        let mut end = || peer.until("PTY is ").rsplit(' ').next().expect("socat names the end").to_owned();
        Self { ends: [end(), end()], _peer: peer }
    }
}

/// A receiver of webhooks that answers 204 and keeps the bodies, unless it was told to refuse them.
pub struct Hook {
    pub url: String,
    posts: Receiver<Value>,
    refuses: Arc<AtomicBool>,
}

impl Hook {
    pub fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
        let url = format!("http://{}/hook", listener.local_addr().expect("it is bound"));
        let (send, posts) = channel();
        let refuses = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&refuses);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (send, told) = (send.clone(), Arc::clone(&told));
                std::thread::spawn(move || {
                    while let Some(body) = post(&stream, &told)
                        && body.is_none_or(|body| send.send(body).is_ok())
                    {}
                });
            }
        });
        Self { url, posts, refuses }
    }

    /// Whether everything is answered with 400 from now on.
    pub fn refuse(&self, refuse: bool) {
        self.refuses.store(refuse, Relaxed);
    }

    /// The next body that is as wanted.
    pub fn next(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.posts.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(body) if wanted(&body) => return body,
                Ok(_) => {}
                Err(why) => panic!("the webhook did not get {what}: {why}"),
            }
        }
    }
}

/// One JSON post of a connection, answered; `Some(None)` where it was refused.
fn post(mut stream: &TcpStream, refuses: &AtomicBool) -> Option<Option<Value>> {
    let mut body = Vec::new();
    read_request(stream, &mut body)?;
    if refuses.load(Relaxed) {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").ok()?;
        return Some(None);
    }
    answer(stream)?;
    serde_json::from_slice(&body).ok().map(Some)
}

/// Reads one HTTP request, gives its body to `into` and answers with 204. `None` at the end of the connection.
pub fn take_request(stream: &TcpStream, into: &mut impl std::io::Write) -> Option<()> {
    read_request(stream, into)?;
    answer(stream)
}

/// The same for a robot, which says in JSON that it has accepted.
pub fn take_notice(mut stream: &TcpStream, into: &mut impl std::io::Write) -> Option<()> {
    read_request(stream, into)?;
    let accepted = "{\"errcode\":0}";
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{accepted}", accepted.len());
    stream.write_all(answer.as_bytes()).ok()
}

fn answer(mut stream: &TcpStream) -> Option<()> {
    stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").ok()
}

fn read_request(stream: &TcpStream, into: &mut impl std::io::Write) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line == "\r\n" {
            break;
        }
    }
    std::io::copy(&mut reader.take(length), into).ok().map(drop)
}

/// A file's text, once it is there.
pub fn text(path: &Path) -> String {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match std::fs::read_to_string(path) {
            Ok(text) => return text,
            Err(error) => assert!(Instant::now() < deadline, "{}: {error}", path.display()),
        }
        pause();
    }
}
