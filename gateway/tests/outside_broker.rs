//! The intake from outside brokers: against Mosquitto, and against a broker that follows a script where Mosquitto cannot
//! be made to misbehave.

mod peers;

use std::path::Path;
use std::time::Duration;

use anmin::clock::Clock;
use anmin::intake::Message;
use anmin::intake::mqtt::{Discard, Outbox, Settings, spawn};
use anmin::main_loop::Input;
use anmin_sensors::document::{Document, Faults};
use peers::{Folder, Intake, Mosquitto, Program, Raw, frame, free_port, publish, soon};
use rumqttc::QoS;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const VERSIONS: [&str; 2] = ["3.1.1", "5"];
const PINGREQ: [u8; 2] = [0xC0, 0];
const PINGRESP: [u8; 2] = [0xD0, 0];
const PART: &str = "mqtt:site";

/// The intake under test; it ends with the test.
struct Outside {
    intake: Intake,
    discard: Discard,
    task: JoinHandle<()>,
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn settings(port: u16, more: &str, base: &Path) -> Settings {
    let scheme = if more.contains("tls_ca") { "mqtts" } else { "mqtt" };
    let text = format!("id = 'site'\nurl = '{scheme}://127.0.0.1:{port}'\nmax_reconnect_interval = '1s'\n{more}\n");
    let faults = Faults::default();
    let settings =
        Document::parse("site.toml", &text, &faults).and_then(|doc| Settings::read(&doc.root(&faults), base));
    // Each version has a session of its own.
    let site = if more.contains("'5'") { "five" } else { "three" };
    settings.unwrap_or_else(|| panic!("{:?}", faults.take())).or_client_id(site)
}

impl Outside {
    /// `room`: inputs that may wait for the main loop.
    fn with_room(room: usize, settings: Settings, filters: &[&str]) -> Self {
        let (inputs, intake) = Intake::new(room);
        let filters = filters.iter().map(|filter| ((*filter).to_owned(), QoS::AtLeastOnce)).collect();
        let discard = Discard::default();
        Self {
            intake,
            task: spawn(settings, filters, Clock::system(), inputs, discard.clone(), Outbox::default()),
            discard,
        }
    }

    fn start(settings: Settings, filters: &[&str]) -> Self {
        Self::with_room(64, settings, filters)
    }

    /// Of a `[[mqtt]]` that says `version` and `more`, with all topics.
    fn of(port: u16, version: &str, more: &str) -> Self {
        Self::start(settings(port, &format!("protocol_version = '{version}'\n{more}"), Path::new(".")), &["#"])
    }

    /// Started, and its subscription answered by Mosquitto: the retained message `ready` has come.
    async fn ready(mosquitto: &Mosquitto, version: &str, more: &str) -> Self {
        say(mosquitto.port, "ready", b"", 0x31).await;
        say(mosquitto.port, "ready", b"1", 0x31).await;
        let mut outside = Self::of(mosquitto.port, version, more);
        outside.until("ready").await;
        outside
    }

    /// The next message with this payload or topic, acknowledged together with all before it.
    async fn until(&mut self, text: &str) -> Message {
        let found = async {
            loop {
                let mut message = self.intake.message().await;
                if let Some(ack) = message.ack.take() {
                    ack.done();
                }
                if is(&message, text) {
                    return message;
                }
            }
        };
        soon(text, found).await
    }

    /// The next message with this payload or topic that came with QoS 0; the tokens of others are dropped.
    async fn until_without_token(&mut self, text: &str) -> Message {
        let found = async {
            loop {
                let message = self.intake.message().await;
                if message.ack.is_none() && is(&message, text) {
                    return message;
                }
            }
        };
        soon(text, found).await
    }
}

fn is(message: &Message, text: &str) -> bool {
    *message.topic == *text || message.payload == text.as_bytes()
}

/// Publishes at a broker, with the first byte of PUBLISH as given, and waits until the broker has taken it.
async fn say(port: u16, topic: &str, payload: &[u8], first: u8) {
    let (mut raw, _) = Raw::connect(port, &format!("say-{topic}"), true).await;
    let qos = (first >> 1) & 3;
    let mut packet = publish(topic, payload, qos, 1, false);
    packet[0] = first;
    raw.send(&packet).await;
    if qos == 0 {
        raw.send(&PINGREQ).await;
        assert_eq!(raw.packet().await, PINGRESP);
    } else {
        assert_eq!(raw.packet().await[0], 0x40);
    }
}

const QOS_1: u8 = 0x32;

/// A broker that does as the test says.
struct Fake {
    listener: TcpListener,
    version: &'static str,
}

impl Fake {
    async fn listen(version: &'static str) -> Self {
        Self { listener: TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port"), version }
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().expect("it is bound").port()
    }

    /// The next connection, and its CONNECT.
    async fn accept(&self) -> (Raw, Vec<u8>) {
        let (stream, _) = soon("a connection", self.listener.accept()).await.expect("the listener works");
        let mut raw = Raw(stream);
        let connect = raw.packet().await;
        assert_eq!(connect[0], 0x10);
        (raw, connect)
    }

    /// The next connection, let in, and its subscription granted if it asks for one.
    async fn serve(&self, session_present: bool) -> Raw {
        let (mut raw, _) = self.accept().await;
        raw.send(&self.connack(session_present, &[])).await;
        if !session_present {
            self.grant(&mut raw).await;
        }
        raw
    }

    fn connack(&self, session_present: bool, properties: &[u8]) -> Vec<u8> {
        let mut body = vec![u8::from(session_present), 0];
        if self.version == "5" {
            body.push(properties.len() as u8);
            body.extend(properties);
        }
        frame(0x20, &body)
    }

    /// Answers the next SUBSCRIBE, of one filter.
    async fn grant(&self, raw: &mut Raw) {
        let asked = raw.packet().await;
        assert_eq!(asked[0], 0x82);
        let body = if self.version == "5" { vec![asked[2], asked[3], 0, 1] } else { vec![asked[2], asked[3], 1] };
        raw.send(&frame(0x90, &body)).await;
    }

    fn publish(&self, topic: &str, payload: &[u8], qos: u8, id: u16) -> Vec<u8> {
        if self.version != "5" {
            return publish(topic, payload, qos, id, false);
        }
        let mut body = (topic.len() as u16).to_be_bytes().to_vec();
        body.extend(topic.as_bytes());
        if qos > 0 {
            body.extend(id.to_be_bytes());
        }
        body.push(0);
        body.extend(payload);
        frame(0x30 | qos << 1, &body)
    }
}

const fn puback(id: u8) -> [u8; 4] {
    [0x40, 2, 0, id]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_is_one_batch() {
    for version in VERSIONS {
        let fake = Fake::listen(version).await;
        let mut outside = Outside::of(fake.port(), version, "");
        let mut broker = fake.serve(false).await;
        let burst: Vec<u8> = (0..300).flat_map(|n: u16| fake.publish("t/n", n.to_string().as_bytes(), 0, 0)).collect();
        assert!(burst.len() < 8 * 1024, "one write, one read");
        outside.intake.session().await;
        outside.intake.part(PART, false).await;
        broker.send(&burst).await;
        let Some(Input::Messages { source, messages }) = soon("the burst", outside.intake.inputs.recv()).await else {
            panic!("messages")
        };
        assert_eq!((&*source, messages.len()), ("site", 300), "{version}");
        for (n, message) in messages.iter().enumerate() {
            assert_eq!((&*message.topic, &*message.payload), ("t/n", n.to_string().as_bytes()));
            assert!(message.ack.is_none() && !message.retained);
            assert_eq!(message.received, messages[0].received);
        }
        // A batch has an end, so that the main loop's turn has one.
        let large = fake.publish("t/n", &[b'x'; 2_000], 0, 0);
        broker.send(&large.repeat(300)).await;
        let mut sizes = Vec::new();
        while sizes.iter().sum::<usize>() < 300 {
            match soon("the next batch", outside.intake.inputs.recv()).await {
                Some(Input::Messages { messages, .. }) => sizes.push(messages.len()),
                other => panic!("{other:?}"),
            }
        }
        assert!(sizes.iter().all(|size| *size <= 130), "{sizes:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_is_asked_for_and_the_limits_are_told() {
    let fake = Fake::listen("3.1.1").await;
    let _outside = Outside::of(fake.port(), "3.1.1", "client_id = 'box'\nkeep_alive = '9s'");
    let (_broker, connect) = fake.accept().await;
    assert_eq!(connect[2..], [&b"\0\x04MQTT\x04\0\0\x09\0\x03box"[..]].concat());

    let fake = Fake::listen("5").await;
    let _outside = Outside::of(
        fake.port(),
        "5",
        "client_id = 'box'\nreceive_maximum = 258\nmax_packet_size = '64KiB'\nkeep_alive = '9s'",
    );
    let (_broker, connect) = fake.accept().await;
    // Session expiry 2,592,000 s, receive maximum, maximum packet size; no topic aliases.
    let properties = [0x11, 0, 0x27, 0x8D, 0, 0x21, 1, 2, 0x27, 0, 1, 0, 0];
    assert_eq!(connect[2..], [&b"\0\x04MQTT\x05\0\0\x09\x0D"[..], &properties, b"\0\x03box"].concat());

    let fake = Fake::listen("5").await;
    let _outside = Outside::of(fake.port(), "5", "clean_session = true");
    let (_broker, connect) = fake.accept().await;
    assert_eq!((connect[9] & 2, connect.contains(&0x11)), (2, false), "clean start, no session expiry: {connect:02x?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledgements_go_in_the_order_of_the_publishes() {
    for version in VERSIONS {
        let fake = Fake::listen(version).await;
        let mut outside = Outside::of(fake.port(), version, "");
        let mut broker = fake.serve(false).await;
        for id in 1..=3 {
            broker.send(&fake.publish("a", &[b'0' + id], 1, id.into())).await;
        }
        let mut tokens = Vec::new();
        for _ in 0..3 {
            tokens.push(outside.intake.message().await.ack.expect("QoS 1 has a token"));
        }
        // From another thread, the last first.
        std::thread::spawn(move || tokens.into_iter().rev().for_each(anmin::intake::Ack::done)).join().expect("done");
        for id in 1..=3 {
            assert_eq!(broker.packet().await, puback(id), "{version}");
        }
        // QoS 2, should a broker of an old session send it.
        broker.send(&fake.publish("b", b"2", 2, 9)).await;
        outside.until("2").await;
        assert_eq!(broker.packet().await, [0x50, 2, 0, 9]);
        broker.send(&[0x62, 2, 0, 9]).await;
        assert_eq!(broker.packet().await, [0x70, 2, 0, 9]);
    }
}

/// Goal: the message that bears the same identifier on the next connection is not acknowledged by a token of the last.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_acknowledgement_acknowledges_nothing_of_the_next_connection() {
    for version in VERSIONS {
        let fake = Fake::listen(version).await;
        let mut outside = Outside::of(fake.port(), version, "");
        let mut broker = fake.serve(false).await;
        outside.intake.part(PART, false).await;
        broker.send(&fake.publish("a", b"A", 1, 1)).await;
        let late = outside.intake.message().await.ack.expect("QoS 1 has a token");
        drop(broker);
        // The broker comes back without its memory and uses the identifier again.
        let mut broker = fake.serve(false).await;
        broker.send(&fake.publish("b", b"B", 1, 1)).await;
        let new = outside.intake.message().await.ack.expect("QoS 1 has a token");
        late.done();
        broker.send(&fake.publish("c", b"C", 0, 0)).await;
        outside.until("C").await;
        broker.send(&fake.publish("d", b"D", 1, 2)).await;
        let last = outside.intake.message().await.ack.expect("QoS 1 has a token");
        last.done();
        new.done();
        assert_eq!(broker.packet().await, puback(1), "{version}");
        assert_eq!(broker.packet().await, puback(2), "{version}: one acknowledgement of identifier 1, not two");
        let (first, second) = (outside.intake.session().await, outside.intake.session().await);
        assert_eq!((first.present, first.kept, first.heard), (false, true, None), "{version}");
        assert!(!second.present && second.heard.is_some(), "{version}: {second:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_dropped_brings_the_message_again() {
    let folder = Folder::new("outside-dropped");
    let mosquitto = Mosquitto::start(&folder, "allow_anonymous true").await;
    for version in VERSIONS {
        let client_id = format!("client_id = 'dropped-{version}'");
        let mut outside = Outside::ready(&mosquitto, version, &client_id).await;
        outside.intake.part(PART, false).await;
        say(mosquitto.port, "gas", b"1", QOS_1).await;
        say(mosquitto.port, "gas", b"2", QOS_1).await;
        let (one, two) = (outside.intake.message().await, outside.intake.message().await);
        assert_eq!((&*one.payload, &*two.payload), (&b"1"[..], &b"2"[..]));
        two.ack.expect("QoS 1 has a token").done();
        drop(one);
        // Nothing before the dropped one was acknowledged, and the one behind it not before it.
        outside.until("1").await;
        outside.until("2").await;
        // Once acknowledged it does not come again.
        say(mosquitto.port, "gas", b"3", QOS_1).await;
        drop(outside.intake.message().await);
        assert_eq!(&*outside.intake.message().await.payload, b"3");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_made_safe_does_not_stop_what_comes_after() {
    let folder = Folder::new("outside-unsafe");
    let mosquitto = Mosquitto::start(&folder, "allow_anonymous true\nmax_inflight_messages 1").await;
    for version in VERSIONS {
        let client_id = format!("client_id = 'unsafe-{version}'");
        let mut outside = Outside::ready(&mosquitto, version, &client_id).await;
        outside.intake.part(PART, false).await;
        say(mosquitto.port, "gas", b"stuck", QOS_1).await;
        for _ in 0..3 {
            assert_eq!(&*outside.intake.message().await.payload, b"stuck");
        }
        let said = outside.intake.part(PART, true).await;
        assert!(said.contains("cannot be made safe"), "{said}");
        // The stopgap has subscribed when it brings what is retained.
        let retained = outside.until_without_token("ready").await;
        assert!(retained.retained);
        say(mosquitto.port, "fire", b"now", QOS_1).await;
        outside.until_without_token("now").await;
    }
}

/// What it kept is gone, which is said; what comes afterwards is heard and kept again.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_gets_nowhere_can_be_discarded() {
    let folder = Folder::new("outside-discard");
    let mosquitto = Mosquitto::start(&folder, "allow_anonymous true\nmax_inflight_messages 1").await;
    for version in VERSIONS {
        let client_id = format!("client_id = 'discard-{version}'");
        let mut outside = Outside::ready(&mosquitto, version, &client_id).await;
        outside.intake.part(PART, false).await;
        say(mosquitto.port, "gas", b"stuck", QOS_1).await;
        for _ in 0..3 {
            assert_eq!(&*outside.intake.message().await.payload, b"stuck");
        }
        outside.intake.part(PART, true).await;
        outside.discard.order();
        outside.intake.part(PART, false).await;
        let mut sessions = [outside.intake.session().await].to_vec();
        while sessions.last().is_none_or(|session| session.present || session.heard.is_none()) {
            sessions.push(outside.intake.session().await);
        }
        // What is said before the new subscription is said to nobody: a device goes on saying how it is.
        let message = loop {
            say(mosquitto.port, "fire", b"now", QOS_1).await;
            if let Ok(message) = tokio::time::timeout(Duration::from_millis(500), outside.until("now")).await {
                break message;
            }
        };
        assert!(message.delivery.is_some(), "{version}: the new session has QoS 1");
        // It is kept: what is said while nobody listens comes afterwards.
        outside.task.abort();
        say(mosquitto.port, "fire", b"meanwhile", QOS_1).await;
        let mut outside = Outside::of(mosquitto.port, version, &client_id);
        let kept = outside.until("meanwhile").await;
        assert!(kept.delivery.is_some() && !kept.retained, "{version}: {kept:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_with_a_memory_brings_again_what_was_not_acknowledged() {
    for version in VERSIONS {
        let folder = Folder::new(&format!("outside-memory-{version}"));
        let memory = format!("allow_anonymous true\npersistence true\npersistence_location {}/", folder.0.display());
        let mut mosquitto = Mosquitto::start(&folder, &memory).await;
        let mut outside = Outside::ready(&mosquitto, version, "").await;
        outside.intake.part(PART, false).await;
        say(mosquitto.port, "gas", b"1", QOS_1).await;
        let before = outside.intake.message().await;
        mosquitto.stop().await;
        let said = outside.intake.part(PART, true).await;
        assert!(said.contains("is away: "), "{said}");
        mosquitto.run().await;
        outside.intake.part(PART, false).await;
        outside.intake.session().await;
        assert!(outside.intake.session().await.present, "{version}: the session was there");
        let again = outside.intake.message().await;
        assert_eq!((&*again.topic, &*again.payload), ("gas", &b"1"[..]), "{version}");
        let deliveries = [&before, &again].map(|message| message.delivery.expect("QoS 1 has an identifier"));
        assert_eq!((deliveries[0].key, deliveries.map(|delivery| delivery.again)), (deliveries[1].key, [false, true]));
        before.ack.expect("QoS 1 has a token").done();
        drop(again);
        outside.until("1").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_forgets_is_subscribed_again_and_the_main_loop_hears_of_it() {
    let folder = Folder::new("outside-forgets");
    let mut mosquitto = Mosquitto::start(&folder, "allow_anonymous true").await;
    for version in VERSIONS {
        let mut outside = Outside::ready(&mosquitto, version, "").await;
        outside.intake.part(PART, false).await;
        mosquitto.kill().await;
        let said = outside.intake.part(PART, true).await;
        assert!(said.contains("is away: Connection refused"), "{said}");
        mosquitto.run().await;
        let (before, after) = (outside.intake.session().await, outside.intake.session().await);
        assert_eq!((before.heard, after.present, after.kept), (None, false, true), "{version}");
        assert!(after.heard.is_some() && before.client_id == after.client_id, "{version}: {after:?}");
        // Retained, so that it comes whether it was published before the subscription or after.
        say(mosquitto.port, "gas", b"1", 0x33).await;
        outside.until("1").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_message_does_not_stop_the_fire_alarm_behind_it() {
    let folder = Folder::new("outside-large");
    let mosquitto = Mosquitto::start(&folder, "allow_anonymous true").await;
    for version in VERSIONS {
        let mut outside = Outside::ready(&mosquitto, version, "").await;
        say(mosquitto.port, "cam/1", &vec![b'x'; 300 * 1024], QOS_1).await;
        say(mosquitto.port, "cam/2", &vec![b'x'; 5 * 1024 * 1024], QOS_1).await;
        say(mosquitto.port, "t/fire", b"1", QOS_1).await;
        if version == "3.1.1" {
            // It is received, so that it can be counted, and acknowledged.
            assert_eq!(outside.until("cam/1").await.payload.len(), 300 * 1024);
            assert_eq!(outside.until("cam/2").await.payload.len(), 5 * 1024 * 1024);
        }
        outside.until("t/fire").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packet_that_cannot_be_read_does_not_stop_what_is_said_from_then_on() {
    let too_large = [0x32, 0x80, 0x80, 0x80, 0x60, 0, 1, b'a'].to_vec();
    let not_utf8 = frame(0x32, &[0, 2, 0xC3, 0x28, 0, 1, b'x']);
    for poison in [too_large, not_utf8] {
        let fake = Fake::listen("3.1.1").await;
        let mut outside = Outside::of(fake.port(), "3.1.1", "client_id = 'box'");
        for n in 0..3 {
            let mut broker = fake.serve(n > 0).await;
            broker.send(&[fake.publish("gas", b"before", 1, 7), poison.clone()].concat()).await;
            // What stands before it is heard each time, though its token is of no use any more.
            outside.until("before").await;
            assert_eq!(broker.packet_or_end().await, None);
        }
        // The stopgap, without a session; the other goes on trying.
        let (mut broker, connect) = fake.accept().await;
        assert_eq!(connect[2..], [&b"\0\x04MQTT\x04\x02\0\x14\0\x08box-live"[..]].concat());
        broker.send(&fake.connack(false, &[])).await;
        fake.grant(&mut broker).await;
        broker.send(&fake.publish("t/fire", b"now", 0, 0)).await;
        outside.until("now").await;
        let said = outside.intake.part(PART, true).await;
        assert!(said.contains("a packet that cannot be read"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_subscription_is_said_and_the_others_are_heard() {
    let folder = Folder::new("outside-refused");
    folder.write(
        "security.json",
        r#"{"defaultACLAccess": {"publishClientSend": true, "publishClientReceive": true, "subscribe": true, "unsubscribe": true},
            "anonymousGroup": "all", "groups": [{"groupname": "all", "roles": [{"rolename": "some"}]}],
            "roles": [{"rolename": "some", "acls": [{"acltype": "subscribePattern", "topic": "secret/#", "allow": false}]}]}"#,
    );
    let plugin = format!(
        "allow_anonymous true\nplugin /usr/lib/{}-linux-gnu/mosquitto_dynamic_security.so\nplugin_opt_config_file {}",
        std::env::consts::ARCH,
        folder.path("security.json")
    );
    let mosquitto = Mosquitto::start(&folder, &plugin).await;
    for (version, code) in [("3.1.1", "code 128, failure"), ("5", "code 135, not authorized")] {
        say(mosquitto.port, "open/1", b"1", 0x31).await;
        let settings = settings(mosquitto.port, &format!("protocol_version = '{version}'"), Path::new("."));
        let mut outside = Outside::start(settings, &["open/#", "secret/#"]);
        let said = outside.intake.part(PART, true).await;
        assert!(said.contains("secret/#") && said.contains(code), "{said}");
        outside.until("open/1").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_broker_kept_is_marked() {
    let folder = Folder::new("outside-retained");
    let mosquitto = Mosquitto::start(&folder, "allow_anonymous true").await;
    for version in VERSIONS {
        say(mosquitto.port, "smoke", b"old", 0x33).await;
        let mut outside = Outside::of(mosquitto.port, version, "");
        assert!(outside.until("old").await.retained, "{version}");
        say(mosquitto.port, "smoke", b"live", 0x33).await;
        assert!(!outside.until("live").await.retained, "{version}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_trusts_whom_it_is_told_to() {
    let (folder, other) = (Folder::new("outside-tls"), Folder::new("outside-tls-other"));
    folder.certificates().await;
    other.certificates().await;
    let port = free_port();
    let tls = format!(
        "allow_anonymous true\nlistener {port} 127.0.0.1\ncertfile {}\nkeyfile {}",
        folder.path("server.pem"),
        folder.path("server.key")
    );
    let mosquitto = Mosquitto::start(&folder, &tls).await;
    say(mosquitto.port, "ready", b"1", 0x31).await;
    for version in VERSIONS {
        let more = format!("protocol_version = '{version}'\ntls_ca = 'ca.pem'");
        let mut right = Outside::start(settings(port, &more, &folder.0), &["#"]);
        right.until("ready").await;
        let mut wrong = Outside::start(settings(port, &more, &other.0), &["#"]);
        let said = wrong.intake.part(PART, true).await;
        assert!(said.contains("TLS fails") && said.contains("certificate"), "{said}");
        // Mended without a restart: the file is read again for each connection.
        std::fs::copy(folder.path("ca.pem"), other.path("ca.pem")).expect("both folders are ours");
        wrong.until("ready").await;
        wrong.intake.part(PART, false).await;
        other.certificates().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_can_be_changed_without_a_restart() {
    let folder = Folder::new("outside-password");
    let accounts = folder.path("accounts");
    let arguments = ["-b", "-c", &accounts, "anmin", "right"];
    assert_eq!(Program::start("mosquitto_passwd", &arguments).exit().await, 0);
    let mosquitto = Mosquitto::start(&folder, &format!("password_file {accounts}\nallow_anonymous false")).await;
    for (version, code) in [("3.1.1", "NotAuthorized"), ("5", "NotAuthorized")] {
        folder.write("secret", "wrong\n");
        let more = format!("protocol_version = '{version}'\nusername = 'anmin'\npassword_file = 'secret'");
        let mut outside = Outside::start(settings(mosquitto.port, &more, &folder.0), &["#"]);
        let said = outside.intake.part(PART, true).await;
        assert!(said.contains("refuses the login") && said.contains(code), "{version}: {said}");
        folder.write("secret", "right\n");
        outside.intake.part(PART, false).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_client_with_our_id_is_noticed_and_left_alone_for_a_while() {
    let folder = Folder::new("outside-takeover");
    let mosquitto = Mosquitto::start(&folder, "allow_anonymous true").await;
    for version in VERSIONS {
        let mut outside = Outside::ready(&mosquitto, version, "client_id = 'box'").await;
        outside.intake.part(PART, false).await;
        let (mut thief, _) = Raw::connect(mosquitto.port, "box", false).await;
        for _ in 0..2 {
            // Ours comes back and throws it out in turn.
            while thief.packet_or_end().await.is_some() {}
            thief = Raw::connect(mosquitto.port, "box", false).await.0;
        }
        let said = outside.intake.part(PART, true).await;
        assert!(said.contains("likely another client uses the id box"), "{version}: {said}");
        // Without the longer wait ours would be back within a second.
        let undisturbed = timeout(Duration::from_secs(2), thief.packet_or_end()).await;
        assert!(undisturbed.is_err(), "{version}: {undisturbed:02x?}");
    }
}

/// Goal: a peer that takes the connection and says nothing, before CONNACK or after, is left within two keep-alives.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_falls_silent_is_left() {
    let one = |version: &'static str| async move {
        let fake = Fake::listen(version).await;
        let mut outside = Outside::of(fake.port(), version, "keep_alive = '5s'");
        let (mut mute, _) = fake.accept().await;
        assert_eq!(mute.packet_or_end().await, None, "no CONNACK");
        // At first only that there is no connection yet.
        while !outside.intake.part(PART, true).await.contains("it does not answer") {}
        let (mut mute, _) = fake.accept().await;
        mute.send(&fake.connack(false, &[])).await;
        assert_eq!(mute.packet().await[0], 0x82);
        let mut pings = 0;
        while let Some(packet) = mute.packet_or_end().await {
            assert_eq!(packet, PINGREQ);
            pings += 1;
            assert!(pings < 3, "no SUBACK");
            // Ours may be leaving at this very moment.
            let _ = mute.0.try_write(&PINGRESP);
        }
        let mut mute = fake.serve(false).await;
        assert_eq!(mute.packet().await, PINGREQ);
        assert_eq!(mute.packet_or_end().await, None, "no PINGRESP");
        let mut broker = fake.serve(true).await;
        broker.send(&fake.publish("t/fire", b"1", 1, 1)).await;
        outside.until("1").await;
        assert_eq!(broker.packet().await, puback(1));
    };
    tokio::join!(one("3.1.1"), one("5"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_wants_no_keep_alive_is_not_pinged_without_pause() {
    let fake = Fake::listen("5").await;
    let mut outside = Outside::of(fake.port(), "5", "");
    let (mut broker, _) = fake.accept().await;
    broker.send(&fake.connack(false, &[0x13, 0, 0])).await;
    let mut pings = 0;
    for id in 1..=50 {
        broker.send(&fake.publish("a", &[id], 1, id.into())).await;
        outside.intake.take().await;
        while broker.packet().await != puback(id) {
            pings += 1;
            broker.send(&PINGRESP).await;
        }
    }
    // SUBSCRIBE, and one ping that was due before the answer was read.
    assert!(pings <= 2, "{pings}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_main_loop_without_room_is_waited_for_and_nothing_is_lost() {
    for version in VERSIONS {
        let fake = Fake::listen(version).await;
        let settings =
            settings(fake.port(), &format!("protocol_version = '{version}'\nkeep_alive = '5s'"), Path::new("."));
        let mut outside = Outside::with_room(2, settings, &["#"]);
        let mut broker = fake.serve(false).await;
        // The news that the broker is there, and how the connection began, fill both places.
        let all: Vec<Vec<u8>> = (1..=4).map(|id| fake.publish("a", &[b'0' + id], 1, id.into())).collect();
        for packet in &all {
            broker.send(packet).await;
        }
        assert_eq!(broker.packet_or_end().await, None, "{version}: the socket goes unread for a third of a keep-alive");
        let takes = async {
            while let Ok(message) = timeout(Duration::from_millis(300), outside.intake.message()).await {
                drop(message);
            }
        };
        let (mut broker, ()) = tokio::join!(fake.serve(true), takes);
        for packet in &all {
            broker.send(packet).await;
        }
        for id in 1..=4 {
            while outside.intake.take().await.1 != char::from(b'0' + id).to_string() {}
            assert_eq!(broker.packet().await, puback(id));
        }
    }
}
