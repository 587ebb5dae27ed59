//! What the MQTT tests speak with: a client that writes any bytes, Mosquitto's programs, a broker of Mosquitto.
#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anmin::intake::Message;
use anmin::main_loop::{Input, PartState, SessionStart};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Nothing in these tests takes so long unless it never happens.
pub const SOON: Duration = Duration::from_secs(20);

pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    timeout(SOON, future).await.unwrap_or_else(|_| panic!("{what}: not within {SOON:?}"))
}

/// A log that is kept, for the writer of a subscriber.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("nobody panics while writing")).into_owned()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        std::io::Write::write(&mut *self.0.lock().expect("nobody panics while writing"), bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The receiving end of the main loop's channel.
pub struct Intake {
    pub inputs: mpsc::Receiver<Input>,
    waiting: std::collections::VecDeque<Message>,
    pub parts: Vec<PartState>,
    pub sessions: std::collections::VecDeque<SessionStart>,
}

impl Intake {
    pub fn new(room: usize) -> (mpsc::Sender<Input>, Self) {
        let (send, inputs) = mpsc::channel(room);
        (send, Self { inputs, waiting: Default::default(), parts: Vec::new(), sessions: Default::default() })
    }

    /// The next publish.
    pub async fn message(&mut self) -> Message {
        loop {
            if let Some(message) = self.waiting.pop_front() {
                return message;
            }
            match soon("a message", self.inputs.recv()).await {
                Some(input) => self.keep(input),
                None => panic!("the intake has ended"),
            }
        }
    }

    fn keep(&mut self, input: Input) {
        match input {
            Input::Messages { messages, .. } => self.waiting.extend(messages),
            Input::Part(part) => self.parts.push(part),
            Input::Session(start) => self.sessions.push_back(start),
            other => panic!("unexpected input {other:?}"),
        }
    }

    /// How the next connection to an outside broker began.
    pub async fn session(&mut self) -> SessionStart {
        loop {
            if let Some(start) = self.sessions.pop_front() {
                return start;
            }
            match soon("a connection", self.inputs.recv()).await {
                Some(input) => self.keep(input),
                None => panic!("the intake has ended"),
            }
        }
    }

    /// The next publish, acknowledged; its topic and payload.
    pub async fn take(&mut self) -> (String, String) {
        let message = self.message().await;
        let text = (message.topic.to_string(), String::from_utf8_lossy(&message.payload).into_owned());
        if let Some(ack) = message.ack {
            ack.done();
        }
        text
    }

    /// Waits until `part` says that it is well (`false`) or in trouble (`true`); gives its words.
    pub async fn part(&mut self, part: &str, in_trouble: bool) -> String {
        let wanted = |state: &PartState| &*state.part == part && state.trouble.is_some() == in_trouble;
        loop {
            if let Some(at) = self.parts.iter().position(wanted) {
                let state = self.parts.remove(at);
                return state.trouble.map(|trouble| trouble.message.en).unwrap_or_default();
            }
            match soon(&format!("{part} in trouble: {in_trouble}"), self.inputs.recv()).await {
                Some(input) => self.keep(input),
                None => panic!("the intake has ended"),
            }
        }
    }
}

/// A client that says exactly what it is told to.
pub struct Raw(pub TcpStream);

impl Raw {
    pub async fn dial(port: u16) -> Self {
        let stream = soon("TCP connect", TcpStream::connect(("127.0.0.1", port))).await.expect("the broker listens");
        stream.set_nodelay(true).expect("a TCP socket has this option");
        Self(stream)
    }

    /// 3.1.1, and CONNACK checked; says whether a session was present.
    pub async fn connect(port: u16, id: &str, clean: bool) -> (Self, bool) {
        let mut raw = Self::dial(port).await;
        raw.send(&connect_v4(id, clean, None)).await;
        let connack = raw.packet().await;
        assert_eq!((connack[0], connack[3]), (0x20, 0), "{connack:02x?}");
        (raw, connack[2] == 1)
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        soon("write", self.0.write_all(bytes)).await.expect("the broker reads");
    }

    /// The next whole packet.
    pub async fn packet(&mut self) -> Vec<u8> {
        self.packet_or_end().await.expect("a packet, not the end of the connection")
    }

    /// `None` at the end of the connection.
    pub async fn byte(&mut self) -> Option<u8> {
        soon("read", self.0.read_u8()).await.ok()
    }

    /// `None` at the end of the connection.
    pub async fn packet_or_end(&mut self) -> Option<Vec<u8>> {
        let mut packet = vec![0; 2];
        if let Err(error) = soon("read", self.0.read_exact(&mut packet)).await {
            assert!(
                matches!(error.kind(), std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset),
                "{error}"
            );
            return None;
        }
        let mut remaining = usize::from(packet[1] & 0x7F);
        let mut shift = 7;
        while packet[packet.len() - 1] & 0x80 != 0 {
            let byte = soon("read", self.0.read_u8()).await.expect("the rest of the length");
            packet.push(byte);
            remaining |= usize::from(byte & 0x7F) << shift;
            shift += 7;
        }
        let start = packet.len();
        packet.resize(start + remaining, 0);
        soon("read", self.0.read_exact(&mut packet[start..])).await.expect("the rest of the packet");
        Some(packet)
    }
}

fn text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend((text.len() as u16).to_be_bytes());
    out.extend(text);
}

pub fn frame(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut length = body.len();
    loop {
        let byte = (length & 0x7F) as u8;
        length >>= 7;
        packet.push(if length == 0 { byte } else { byte | 0x80 });
        if length == 0 {
            break;
        }
    }
    packet.extend(body);
    packet
}

pub fn connect_v4(id: &str, clean: bool, will: Option<(&str, &str)>) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, b"MQTT");
    let flags = if clean { 2 } else { 0 } | if will.is_some() { 0x04 | 0x08 } else { 0 };
    body.extend([4, flags, 0, 60]);
    text(&mut body, id.as_bytes());
    if let Some((topic, payload)) = will {
        text(&mut body, topic.as_bytes());
        text(&mut body, payload.as_bytes());
    }
    frame(0x10, &body)
}

pub fn connect_v5(id: &str, clean: bool, properties: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, b"MQTT");
    body.extend([5, if clean { 2 } else { 0 }, 0, 60, properties.len() as u8]);
    body.extend(properties);
    text(&mut body, id.as_bytes());
    frame(0x10, &body)
}

/// 3.1.1.
pub fn publish(topic: &str, payload: &[u8], qos: u8, id: u16, dup: bool) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, topic.as_bytes());
    if qos > 0 {
        body.extend(id.to_be_bytes());
    }
    body.extend(payload);
    frame(0x30 | qos << 1 | u8::from(dup) << 3, &body)
}

pub fn subscribe(id: u16, filter: &str, qos: u8) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    text(&mut body, filter.as_bytes());
    body.push(qos);
    frame(0x82, &body)
}

/// Topic and payload of a 3.1.1 publish.
pub fn published(packet: &[u8]) -> (String, String) {
    assert_eq!(packet[0] >> 4, 3, "{packet:02x?}");
    let start = 1 + packet[1..].iter().position(|byte| byte & 0x80 == 0).expect("a length has an end") + 1;
    let topic = usize::from(u16::from_be_bytes([packet[start], packet[start + 1]]));
    let payload = start + 2 + topic + if packet[0] & 0x06 == 0 { 0 } else { 2 };
    (
        String::from_utf8_lossy(&packet[start + 2..start + 2 + topic]).into_owned(),
        String::from_utf8_lossy(&packet[payload..]).into_owned(),
    )
}

/// A program of Mosquitto that is killed when it is dropped.
pub struct Program {
    pub child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Program {
    pub fn start(program: &str, arguments: &[&str]) -> Self {
        // Its output line by line, though it is not a terminal.
        let mut child = Command::new("stdbuf")
            .args(["-oL", program])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{program} (Debian: mosquitto, mosquitto-clients): {error}"));
        let lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        Self { child, lines }
    }

    pub async fn line(&mut self) -> Option<String> {
        soon("a line of output", self.lines.next_line()).await.expect("output is text")
    }

    /// Reads on until a line holds `text`.
    pub async fn until(&mut self, text: &str) -> String {
        while let Some(line) = self.line().await {
            if line.contains(text) {
                return line;
            }
        }
        panic!("the program ended without saying {text:?}");
    }

    pub async fn exit(mut self) -> i32 {
        soon("exit", self.child.wait()).await.expect("the child is ours").code().unwrap_or(-1)
    }
}

/// A folder of its own, removed with it.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the target folder can be written");
        Self(path)
    }

    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("the folder can be written");
        path.to_string_lossy().into_owned()
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_string_lossy().into_owned()
    }

    /// A CA, and a certificate of it for 127.0.0.1: `ca.pem`, `server.pem`, `server.key`.
    pub async fn certificates(&self) {
        let run = |arguments: String| {
            let folder = self.0.clone();
            async move {
                let output = Command::new("openssl")
                    .args(arguments.split_whitespace())
                    .current_dir(folder)
                    .output()
                    .await
                    .expect("openssl is installed");
                assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
            }
        };
        self.write("ext", "subjectAltName=IP:127.0.0.1,DNS:localhost\n");
        run("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=test-ca".into()).await;
        run("req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout server.key -out server.csr -subj /CN=localhost".into()).await;
        run("x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 -extfile ext"
            .into())
        .await;
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Mosquitto itself, on a port of its own.
pub struct Mosquitto {
    pub port: u16,
    configuration: String,
    child: Option<Child>,
}

impl Mosquitto {
    /// `more` are lines of its configuration; a `listener` is made for it.
    pub async fn start(folder: &Folder, more: &str) -> Self {
        let port = free_port();
        let configuration = folder.write(
            &format!("mosquitto-{port}.conf"),
            &format!("listener {port} 127.0.0.1\npersistence false\nuser root\nlog_dest stderr\nset_tcp_nodelay true\n{more}\n"),
        );
        let mut mosquitto = Self { port, configuration, child: None };
        mosquitto.run().await;
        mosquitto
    }

    /// Starts it (again) and waits until it listens.
    pub async fn run(&mut self) {
        let child = Command::new("/usr/sbin/mosquitto")
            .args(["-c", &self.configuration])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("mosquitto is installed (Debian: mosquitto)");
        self.child = Some(child);
        let stderr = self.child.as_mut().and_then(|child| child.stderr.take()).expect("stderr is piped");
        let mut lines = BufReader::new(stderr).lines();
        let mut said = String::new();
        while let Some(line) = soon("mosquitto starts", lines.next_line()).await.expect("its log is text") {
            said.push_str(&line);
            said.push('\n');
            if line.contains(" running") {
                // Somebody must go on reading, or mosquitto stops when the pipe is full.
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                return;
            }
        }
        panic!("mosquitto did not start:\n{said}");
    }

    /// Ends it as a service manager does: it writes down what it is told to keep.
    pub async fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let pid = child.id().expect("it runs").to_string();
            let told = Command::new("kill").arg(&pid).status().await.expect("kill is a program");
            assert!(told.success());
            soon("mosquitto ends", child.wait()).await.expect("the child is ours");
        }
    }

    /// Ends it at once: nothing is said to its clients.
    pub async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.expect("the child is ours");
        }
    }
}

pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
    listener.local_addr().expect("it is bound").port()
}
