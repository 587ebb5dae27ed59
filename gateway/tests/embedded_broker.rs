//! The embedded broker against clients that it does not know: Mosquitto's, rumqttc's, and one that writes any bytes.

mod peers;

use anmin::clock::Clock;
use anmin::intake::broker::{Broker, Settings};
use anmin_sensors::document::{Document, Faults};
use bytes::Bytes;
use peers::{Folder, Intake, Log, Program, Raw, connect_v4, connect_v5, frame, publish, published, soon, subscribe};
use rumqttc::QoS;

const PINGREQ: [u8; 2] = [0xC0, 0];
const PINGRESP: [u8; 2] = [0xD0, 0];

async fn broker(mut settings: Settings) -> (Broker, Intake, u16) {
    let (inputs, intake) = Intake::new(64);
    settings.listen = ([127, 0, 0, 1], 0).into();
    let broker = Broker::new(settings, Clock::system(), inputs);
    let port = broker.clone().listen().await.expect("loopback has a free port").0.port();
    (broker, intake, port)
}

fn read_settings(text: &str, base: &std::path::Path) -> Result<Settings, Vec<String>> {
    let faults = Faults::default();
    let settings = Document::parse("site.toml", text, &faults).and_then(|doc| Settings::read(&doc.root(&faults), base));
    let faults = faults.take();
    if faults.is_empty() {
        Ok(settings.expect("settings without a fault"))
    } else {
        Err(faults.iter().map(ToString::to_string).collect())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_mosquitto_publishes_arrives_with_every_version_and_qos() {
    let (_broker, mut intake, port) = broker(Settings::default()).await;
    let port = port.to_string();
    for version in ["mqttv31", "mqttv311", "mqttv5"] {
        for qos in ["0", "1", "2"] {
            let payload = format!("{version} {qos}");
            let program = Program::start(
                "mosquitto_pub",
                &["-h", "127.0.0.1", "-p", &port, "-V", version, "-q", qos, "-t", "楼3/gas", "-m", &payload],
            );
            let message = intake.message().await;
            assert_eq!((&*message.topic, &*message.payload), ("楼3/gas", payload.as_bytes()));
            assert_eq!(message.ack.is_some(), qos != "0");
            assert!(!message.retained);
            if let Some(ack) = message.ack {
                ack.done();
            }
            assert_eq!(program.exit().await, 0, "{payload}");
        }
    }
}

/// Goal: whoever can reach the broker fills no log, by any of the ways there are, and by none hides another. Method: each thirty
/// times within the minute in which its kind is said once.
#[tokio::test]
async fn what_clients_do_again_and_again_is_said_once_a_minute_by_each_kind() {
    let log = Log::default();
    let own = log.clone();
    let to_log = tracing_subscriber::fmt().with_writer(move || own.clone()).with_ansi(false).finish();
    // For this thread alone, on which everything here runs.
    let _log = tracing::subscriber::set_default(to_log);
    let (_broker, _intake, port) = broker(Settings::default()).await;
    let folder = Folder::new("broker-noise");
    folder.certificates().await;
    let settings = read_settings("tls_cert = 'server.pem'\ntls_key = 'server.key'\n", &folder.0).expect("settings");
    let (_by_tls, _, tls_port) = broker(settings).await;
    for n in 0..30 {
        // A client that calls itself differently each time is still one kind.
        let mut first = Raw::dial(port).await;
        first.send(&connect_v4(&format!("twin-{n}"), true, None)).await;
        first.packet().await;
        first.send(&subscribe(1, &format!("$share/{n}/x"), 1)).await;
        first.packet().await;
        let mut second = Raw::dial(port).await;
        second.send(&connect_v4(&format!("twin-{n}"), true, None)).await;
        second.packet().await;
        let mut stranger = Raw::dial(tls_port).await;
        stranger.send(b"this is no TLS").await;
        while stranger.byte().await.is_some() {}
    }
    let said = log.text();
    for kind in ["broker refuses a subscription", "a client connects again", "TLS failed"] {
        assert_eq!(said.matches(kind).count(), 1, "{kind}:\n{said}");
    }
}

/// Devices made for a cloud platform report below a dollar sign; the broker's own topics stay its own.
#[tokio::test(flavor = "multi_thread")]
async fn the_topics_of_cloud_platforms_are_taken_and_the_brokers_own_are_not() {
    let (_broker, mut intake, port) = broker(Settings::default()).await;
    let port = port.to_string();
    for topic in [
        "$SYS/broker/uptime",
        "$share/g/a",
        "$sys/pid/g1/thing/property/post",
        "$oc/devices/g1/sys/properties/report",
        "$thing/up/property/pid/g1",
        "/sys/pk/g1/thing/event/property/post",
    ] {
        let arguments = ["-h", "127.0.0.1", "-p", &port, "-V", "mqttv311", "-q", "0", "-t", topic, "-m", topic];
        assert_eq!(Program::start("mosquitto_pub", &arguments).exit().await, 0, "{topic}");
        // What is refused is followed by what is not: nothing of it came before.
        if !topic.starts_with("$S") && !topic.starts_with("$share") {
            assert_eq!(intake.take().await, (topic.into(), topic.into()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mosquitto_subscribes_with_wildcards_and_gets_retained_live_and_last_words() {
    let (broker, mut intake, port) = broker(Settings::default()).await;
    let text = port.to_string();
    broker.publish("anmin/v1/alarm/7", Bytes::from_static(b"red"), QoS::AtLeastOnce, true).expect("a topic");
    broker.publish("anmin/v1/alarm/8", Bytes::from_static(b"gone"), QoS::AtLeastOnce, true).expect("a topic");
    broker.publish("anmin/v1/alarm/8", Bytes::new(), QoS::AtLeastOnce, true).expect("a topic");
    for version in ["mqttv311", "mqttv5"] {
        for qos in ["0", "1", "2"] {
            let mut program = Program::start(
                "mosquitto_sub",
                &[
                    "-h",
                    "127.0.0.1",
                    "-p",
                    &text,
                    "-V",
                    version,
                    "-q",
                    qos,
                    "-t",
                    "anmin/+/alarm/#",
                    "-t",
                    "d/#",
                    "-F",
                    "%t=%p,%r,%q",
                    "-d",
                ],
            );
            program.until("Subscribed").await;
            let granted = if qos == "0" { "0" } else { "1" };
            program.until(&format!("anmin/v1/alarm/7=red,1,{granted}")).await;
            let reached = broker.publish("anmin/v1/alarm/9", Bytes::from_static(b"blue"), QoS::AtLeastOnce, false);
            assert_eq!(reached.expect("a topic"), 1);
            program.until(&format!("anmin/v1/alarm/9=blue,0,{granted}")).await;
            // From another client, retained, but live for this one; and a will.
            let mut raw = Raw::dial(port).await;
            raw.send(&connect_v4("dying", true, Some(("d/will", "help")))).await;
            raw.packet().await;
            raw.send(&publish("d/1", b"on", 1, 1, false)).await;
            assert_eq!(intake.take().await, ("d/1".into(), "on".into()));
            assert_eq!(raw.packet().await, [0x40, 2, 0, 1]);
            program.until(&format!("d/1=on,0,{granted}")).await;
            drop(raw);
            assert_eq!(intake.take().await, ("d/will".into(), "help".into()));
            program.until(&format!("d/will=help,0,{granted}")).await;
        }
    }
    assert!(broker.publish("a/+", Bytes::new(), QoS::AtMostOnce, false).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn puback_is_held_back_until_the_message_is_safe() {
    let (_broker, mut intake, port) = broker(Settings::default()).await;
    let (mut raw, _) = Raw::connect(port, "gas-1", true).await;
    raw.send(&publish("a", b"1", 1, 10, false)).await;
    raw.send(&publish("a", b"2", 1, 11, false)).await;
    let first = intake.message().await;
    let second = intake.message().await;
    // Answers come in order: had one of the two been acknowledged, its PUBACK would stand before this.
    raw.send(&PINGREQ).await;
    assert_eq!(raw.packet().await, PINGRESP);
    second.ack.expect("QoS 1 has a token").done();
    assert_eq!(raw.packet().await, [0x40, 2, 0, 11]);
    let delivery = first.delivery.expect("QoS 1 has an identifier");
    first.ack.expect("QoS 1 has a token").done();
    assert_eq!(raw.packet().await, [0x40, 2, 0, 10]);
    // Sent again on the next connection it is known by its identifier and its mark.
    let (mut raw, _) = Raw::connect(port, "gas-1", true).await;
    raw.send(&publish("a", b"1", 1, 10, true)).await;
    let again = intake.message().await.delivery.expect("QoS 1 has an identifier");
    assert_eq!((again.key, again.again, delivery.again), (delivery.key, true, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_dropped_ends_the_connection_without_an_acknowledgement() {
    let (_broker, mut intake, port) = broker(Settings::default()).await;
    let (mut raw, _) = Raw::connect(port, "gas-1", true).await;
    raw.send(&publish("a", b"1", 1, 10, false)).await;
    drop(intake.message().await);
    assert_eq!(raw.packet_or_end().await, None);
    // A token of the old connection acknowledges nothing on the new one.
    let (mut raw, _) = Raw::connect(port, "gas-1", true).await;
    raw.send(&publish("a", b"1", 1, 10, false)).await;
    let old = intake.message().await;
    drop(raw);
    let (mut raw, _) = Raw::connect(port, "gas-1", true).await;
    raw.send(&publish("b", b"2", 1, 10, false)).await;
    let new = intake.message().await;
    old.ack.expect("QoS 1 has a token").done();
    raw.send(&PINGREQ).await;
    assert_eq!(raw.packet().await, PINGRESP);
    new.ack.expect("QoS 1 has a token").done();
    assert_eq!(raw.packet().await, [0x40, 2, 0, 10]);
}

#[tokio::test(flavor = "multi_thread")]
async fn qos_2_is_delivered_once_across_a_reconnect() {
    let (_broker, mut intake, port) = broker(Settings::default()).await;
    let (mut raw, _) = Raw::connect(port, "meter", false).await;
    raw.send(&publish("m", b"kWh", 2, 7, false)).await;
    let message = intake.message().await;
    raw.send(&PINGREQ).await;
    assert_eq!(raw.packet().await, PINGRESP);
    // Repeated before it is safe: neither delivered again nor answered.
    raw.send(&publish("m", b"kWh", 2, 7, true)).await;
    raw.send(&PINGREQ).await;
    assert_eq!(raw.packet().await, PINGRESP);
    drop(raw);
    let (mut raw, present) = Raw::connect(port, "meter", false).await;
    assert!(present);
    // Safe only now, by the connection of today.
    message.ack.expect("QoS 2 has a token").done();
    assert_eq!(raw.packet().await, [0x50, 2, 0, 7]);
    raw.send(&publish("m", b"kWh", 2, 7, true)).await;
    assert_eq!(raw.packet().await, [0x50, 2, 0, 7]);
    raw.send(&[0x62, 2, 0, 7]).await;
    assert_eq!(raw.packet().await, [0x70, 2, 0, 7]);
    raw.send(&publish("m", b"next", 0, 0, false)).await;
    assert_eq!(intake.take().await.1, "next");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_keeps_what_its_subscriber_missed_and_has_not_acknowledged() {
    let (broker, _intake, port) = broker(Settings::default()).await;
    let (mut raw, present) = Raw::connect(port, "desk", false).await;
    assert!(!present);
    raw.send(&subscribe(1, "alarm/#", 1)).await;
    assert_eq!(raw.packet().await, [0x90, 3, 0, 1, 1]);
    // A second filter that overlaps does not double the message.
    raw.send(&subscribe(2, "alarm/+", 0)).await;
    assert_eq!(raw.packet().await, [0x90, 3, 0, 2, 0]);
    raw.send(&[0xE0, 0]).await;
    assert_eq!(raw.packet_or_end().await, None);
    let say = |text: &'static str, qos| {
        broker.publish("alarm/1", Bytes::from_static(text.as_bytes()), qos, false).expect("a topic")
    };
    assert_eq!(say("fire", QoS::AtLeastOnce), 1);
    assert_eq!(say("chatter", QoS::AtMostOnce), 0);
    let (mut raw, present) = Raw::connect(port, "desk", false).await;
    assert!(present);
    let first = raw.packet().await;
    assert_eq!((first[0], published(&first).1), (0x32, "fire".into()));
    drop(raw);
    let (mut raw, _) = Raw::connect(port, "desk", false).await;
    let again = raw.packet().await;
    assert_eq!((again[0], published(&again).1), (0x3A, "fire".into()), "repeated, and marked so");
    raw.send(&[0x40, 2, again[11], again[12]]).await;
    say("next", QoS::AtLeastOnce);
    assert_eq!(published(&raw.packet().await).1, "next");
    // A clean connection ends the session.
    drop(raw);
    let (raw, present) = Raw::connect(port, "desk", true).await;
    assert!(!present);
    assert_eq!(say("nobody", QoS::AtLeastOnce), 0);
    drop(raw);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_connection_takes_over_and_the_old_will_comes_before_its_first_word() {
    let (_broker, mut intake, port) = broker(Settings::default()).await;
    let mut old = Raw::dial(port).await;
    old.send(&connect_v4("pump", true, Some(("pump/state", "offline")))).await;
    old.packet().await;
    let (mut new, _) = Raw::connect(port, "pump", true).await;
    assert_eq!(old.packet_or_end().await, None);
    new.send(&publish("pump/state", b"online", 0, 0, false)).await;
    assert_eq!(intake.take().await.1, "offline");
    assert_eq!(intake.take().await.1, "online");
    // A proper goodbye has no will.
    let mut other = Raw::dial(port).await;
    other.send(&connect_v4("valve", true, Some(("valve/state", "offline")))).await;
    other.packet().await;
    other.send(&[0xE0, 0]).await;
    assert_eq!(other.packet_or_end().await, None);
    new.send(&publish("pump/state", b"still", 0, 0, false)).await;
    assert_eq!(intake.take().await.1, "still");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_behind_an_oversized_publish_gets_through() {
    for v5 in [false, true] {
        let (broker, mut intake, port) = broker(Settings::default()).await;
        let mut raw = Raw::dial(port).await;
        raw.send(&if v5 { connect_v5("cam", true, &[]) } else { connect_v4("cam", true, None) }).await;
        raw.packet().await;
        // Each size once whole in the same write as what follows, once in pieces.
        let properties: &[u8] = if v5 { &[0] } else { &[] };
        let with_id = |topic: &str, id: u16, payload: &[u8], qos: u8| {
            let mut body = (topic.len() as u16).to_be_bytes().to_vec();
            body.extend(topic.as_bytes());
            body.extend(id.to_be_bytes());
            body.extend(properties);
            body.extend(payload);
            frame(0x30 | qos << 1, &body)
        };
        let big = with_id("cam/picture", 1, &vec![b'x'; 300 * 1024], 1);
        let bigger = with_id("cam/picture", 2, &vec![b'x'; 5 * 1024 * 1024], 1);
        let fire = with_id("t/fire", 3, b"1", 1);
        for chunk in [big, bigger, fire].concat().chunks(70_001) {
            raw.send(chunk).await;
        }
        let ack = |id: u8| if v5 { vec![0x40, 3, 0, id, 0x97] } else { vec![0x40, 2, 0, id] };
        assert_eq!(raw.packet().await, ack(1));
        assert_eq!(raw.packet().await, ack(2));
        // The start of each goes to the quarantine, and nowhere is it read as a reading.
        for _ in 0..2 {
            let cut = intake.message().await;
            assert!(cut.cut && cut.ack.is_none() && (1..=4_096).contains(&cut.payload.len()), "{cut:?}");
            assert_eq!(&*cut.topic, "cam/picture");
        }
        assert_eq!(intake.take().await, ("t/fire".into(), "1".into()));
        assert_eq!(raw.packet().await, [0x40, 2, 0, 3]);
        assert_eq!(broker.stats().oversized, 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_ends_the_connection_that_brought_it_and_no_other() {
    let (_broker, mut intake, port) = broker(Settings::default()).await;
    let (mut good, _) = Raw::connect(port, "good", true).await;
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("topic not UTF-8", vec![0x30, 5, 0, 3, b'a', 0xC3, 0x28]),
        ("topic with U+0000", vec![0x30, 4, 0, 2, b'a', 0]),
        ("topic with a wildcard", publish("a/#", b"x", 0, 0, false)),
        ("QoS 3", vec![0x36, 5, 0, 1, b'a', 0, 1]),
        ("packet identifier 0", publish("a", b"x", 1, 0, false)),
        ("second CONNECT", connect_v4("bad", true, None)),
        ("length without end", vec![0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F]),
        ("a packet of 200 MB", vec![0x30, 0x80, 0x80, 0x80, 0x60, 0, 1, b'a']),
        ("packet type 15", vec![0xF0, 0]),
        ("empty subscription", vec![0x82, 2, 0, 1]),
        ("garbage", (0..=255).rev().collect()),
        ("PUBREL without its flag", vec![0x60, 2, 0, 1]),
    ];
    for (what, bytes) in cases {
        let (mut bad, _) = Raw::connect(port, "bad", true).await;
        bad.send(&bytes).await;
        assert_eq!(bad.packet_or_end().await, None, "{what}");
        good.send(&publish("still", what.as_bytes(), 1, 9, false)).await;
        assert_eq!(intake.take().await, ("still".into(), what.into()));
        assert_eq!(good.packet().await, [0x40, 2, 0, 9]);
    }
    // Before CONNECT: HTTP, a TLS hello, a version of the future.
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 3, 1, 2, 0, 1, 0, 1], &publish("a", b"x", 0, 0, false)] {
        let mut bad = Raw::dial(port).await;
        bad.send(bytes).await;
        assert_eq!(bad.packet_or_end().await, None);
    }
    let mut future = Raw::dial(port).await;
    let mut hello = connect_v4("x", true, None);
    hello[8] = 6;
    future.send(&hello).await;
    assert_eq!(future.packet().await[0], 0x20);
    assert_eq!(future.packet_or_end().await, None);
    // Byte by byte is slow, not wrong.
    let (mut slow, _) = Raw::connect(port, "slow", true).await;
    for byte in publish("half", b"packet", 1, 3, false) {
        slow.send(&[byte]).await;
    }
    assert_eq!(intake.take().await, ("half".into(), "packet".into()));
    assert_eq!(slow.packet().await, [0x40, 2, 0, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_does_not_read_loses_its_oldest_and_holds_up_nobody() {
    let mut settings = Settings::default();
    settings.max_queued_messages = 1_000;
    let (broker, mut intake, port) = broker(settings).await;
    let (mut deaf, _) = Raw::connect(port, "deaf", true).await;
    deaf.send(&subscribe(1, "#", 0)).await;
    assert_eq!(deaf.packet().await[0], 0x90);
    let payload = Bytes::from(vec![b'x'; 8 * 1024]);
    let mut sent = 0_u64;
    // More than all socket buffers and the queue hold together.
    while broker.stats().dropped == 0 {
        broker.publish("flood", payload.clone(), QoS::AtMostOnce, false).expect("a topic");
        sent += 1;
        assert!(sent < 1_000_000, "the queue of a deaf subscriber has no end");
        tokio::task::yield_now().await;
    }
    let (mut raw, _) = Raw::connect(port, "gas", true).await;
    raw.send(&publish("gas", b"1", 1, 1, false)).await;
    assert_eq!(intake.take().await.0, "gas");
    assert_eq!(raw.packet().await, [0x40, 2, 0, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn publishers_wait_while_the_main_loop_has_no_room_and_nothing_is_lost() {
    let (inputs, mut intake) = Intake::new(1);
    let mut settings = Settings::default();
    settings.listen = ([127, 0, 0, 1], 0).into();
    let broker = Broker::new(settings, Clock::system(), inputs);
    let port = broker.clone().listen().await.expect("loopback has a free port").0.port();
    let (mut raw, _) = Raw::connect(port, "fast", true).await;
    const COUNT: u32 = 60_000;
    let writer = tokio::spawn(async move {
        for n in 0..COUNT {
            let id = u16::try_from(n % 60_000 + 1).expect("an identifier");
            raw.send(&publish("n", n.to_string().as_bytes(), 1, id, false)).await;
        }
        for _ in 0..COUNT {
            assert_eq!(raw.packet().await[0], 0x40);
        }
    });
    for n in 0..COUNT {
        assert_eq!(intake.take().await.1, n.to_string());
    }
    soon("all PUBACKs", writer).await.expect("each publish has its PUBACK");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_passwords_and_topics_are_checked_where_files_say_so() {
    let folder = Folder::new("broker-accounts");
    let passwords = folder.path("passwords");
    for (n, (name, password)) in [("office", "right"), ("gas-1", "g")].into_iter().enumerate() {
        let create: &[&str] = if n == 0 { &["-c"] } else { &[] };
        let arguments = [&["-b"], create, &[&passwords, name, password]].concat();
        assert_eq!(Program::start("mosquitto_passwd", &arguments).exit().await, 0);
    }
    folder.write("topics", "user office\ntopic read alarm/#\npattern write site/%u/up\n");
    let settings =
        read_settings("password_file = 'passwords'\nacl_file = 'topics'\n", &folder.0).expect("settings are right");
    let (broker, mut intake, port) = broker(settings).await;
    let port = port.to_string();
    let publish = |user: &'static str, password: &'static str, topic: &'static str, version: &'static str| {
        let mut arguments = vec!["-h", "127.0.0.1", "-p", &port, "-q", "1", "-t", topic, "-m", "x", "-V", version];
        if !user.is_empty() {
            arguments.extend(["-u", user, "-P", password]);
        }
        Program::start("mosquitto_pub", &arguments)
    };
    for version in ["mqttv311", "mqttv5"] {
        assert_ne!(publish("", "", "site/gas-1/up", version).exit().await, 0, "nameless");
        assert_ne!(publish("gas-1", "wrong", "site/gas-1/up", version).exit().await, 0, "wrong password");
        assert_ne!(publish("nobody", "g", "site/nobody/up", version).exit().await, 0, "unknown name");
        let refused = broker.stats().refused;
        publish("gas-1", "g", "site/gas-2/up", version).exit().await;
        assert_eq!(broker.stats().refused, refused + 1, "another's topic");
        let right = publish("gas-1", "g", "site/gas-1/up", version);
        assert_eq!(intake.take().await.0, "site/gas-1/up");
        assert_eq!(right.exit().await, 0);
        let subscribe = |filter: &'static str| {
            let arguments = ["-h", "127.0.0.1", "-p", &port, "-u", "office", "-P", "right", "-V", version, "-d"];
            Program::start("mosquitto_sub", &[&arguments[..], &["-t", filter]].concat())
        };
        subscribe("alarm/+").until("Subscribed (mid: 1): 0").await;
        let refusal = if version == "mqttv5" { "135" } else { "128" };
        subscribe("#").until(&format!("Subscribed (mid: 1): {refusal}")).await;
    }
    // What is ours stays ours, whatever a list says.
    broker.reserve("site/");
    let refused = broker.stats().refused;
    publish("gas-1", "g", "site/gas-1/up", "mqttv5").exit().await;
    assert_eq!(broker.stats().refused, refused + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_where_a_certificate_is_given() {
    let folder = Folder::new("broker-tls");
    folder.certificates().await;
    let settings = read_settings("tls_cert = 'server.pem'\ntls_key = 'server.key'\n", &folder.0).expect("settings");
    let (_broker, mut intake, port) = broker(settings).await;
    let ca = folder.path("ca.pem");
    let port = port.to_string();
    let arguments = ["-h", "127.0.0.1", "-p", &port, "--cafile", &ca, "-q", "1", "-t", "tls", "-m", "x"];
    let program = Program::start("mosquitto_pub", &arguments);
    assert_eq!(intake.take().await.0, "tls");
    assert_eq!(program.exit().await, 0);
}

/// Goal: who renews a certificate restarts nothing, and who spoils one shuts nobody out.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_renewed_is_in_force_at_once_and_a_spoiled_one_never() {
    let (folder, next) = (Folder::new("broker-renewed"), Folder::new("broker-renewal"));
    folder.certificates().await;
    next.certificates().await;
    let settings = read_settings("tls_cert = 'server.pem'\ntls_key = 'server.key'\n", &folder.0).expect("settings");
    let (_broker, mut intake, port) = broker(settings).await;
    let port = port.to_string();
    let publish = |authority: &Folder| {
        let ca = authority.path("ca.pem");
        let arguments = ["-h", "127.0.0.1", "-p", &port, "--cafile", &ca, "-q", "1", "-t", "tls", "-m", "x"];
        Program::start("mosquitto_pub", &arguments)
    };
    // It is acknowledged when it has been taken.
    let mut is_trusted_by = async |authority: &Folder| {
        let client = publish(authority);
        assert_eq!(intake.take().await.0, "tls");
        assert_eq!(client.exit().await, 0);
    };
    let take = |name: &str| std::fs::copy(next.path(name), folder.path(name)).expect("the folders are ours");
    is_trusted_by(&folder).await;
    // The certificate alone does not fit the key.
    take("server.pem");
    // So the last one stays in force.
    is_trusted_by(&folder).await;
    take("server.key");
    is_trusted_by(&next).await;
    assert_ne!(publish(&folder).exit().await, 0, "the old authority has not signed the new one");
    folder.write("server.key", "nothing\n");
    is_trusted_by(&next).await;
}

#[test]
fn settings_say_all_that_is_wrong_with_them() {
    let folder = Folder::new("broker-settings");
    folder.write("bad", "zhao:geheim\n");
    let text =
        "listen = '0.0.0.0:1883'\nmax_packet_size = '1B'\nacl_file = 'bad'\ntls_cert = 'none'\nmax_conections = 5\n";
    let faults = read_settings(text, &folder.0).expect_err("settings are wrong");
    let folder = folder.0.display();
    assert_eq!(
        faults,
        [
            "site.toml:1:10: `listen` is 0.0.0.0:1883: open to the network, but without `password_file`\n  hint: make one with `mosquitto_passwd -c <file> <name>`, or listen on 127.0.0.1".to_owned(),
            "site.toml:2:19: `max_packet_size` must lie between 1KiB and 16MiB".to_owned(),
            format!("site.toml:3:12: {folder}/bad: line 1: \"zhao:geheim\" is not `user <name>`, `topic` or `pattern`"),
            format!("site.toml:4:12: cannot read {folder}/none: No such file or directory (os error 2)"),
            "site.toml:5:1: `max_conections` is not a known key\n  hint: did you mean `max_connections`?".to_owned(),
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn mqtt_5_clients_get_what_they_asked_for() {
    let (broker, mut intake, port) = broker(Settings::default()).await;
    let mut raw = Raw::dial(port).await;
    // Session for an hour, at most two unacknowledged deliveries, nothing above 64 bytes; no id of its own.
    raw.send(&connect_v5("", true, &[0x11, 0, 0, 0x0E, 0x10, 0x21, 0, 2, 0x27, 0, 0, 0, 64])).await;
    let connack = raw.packet().await;
    assert_eq!((connack[0], connack[2], connack[3]), (0x20, 0, 0));
    assert!(connack.windows(6).any(|bytes| bytes == b"anmin-"), "an assigned client id");
    // No local, retain as published, no retained messages at subscribe.
    broker.publish("r", Bytes::from_static(b"kept"), QoS::AtLeastOnce, true).expect("a topic");
    raw.send(&frame(0x82, &[0, 1, 0, 0, 1, b'r', 0x01 | 0x08 | 0x20, 0, 3, b'm', b'/', b'#', 0x01 | 0x04])).await;
    assert_eq!(raw.packet().await, [0x90, 5, 0, 1, 0, 1, 1]);
    raw.send(&PINGREQ).await;
    assert_eq!(raw.packet().await, PINGRESP);
    // Its own message is not for it, though the intake gets it; by an alias, the second time.
    raw.send(&frame(0x32, &[&[0, 3, b'm', b'/', b'1', 0, 5, 3, 0x23, 0, 1][..], b"own"].concat())).await;
    assert_eq!(intake.take().await, ("m/1".into(), "own".into()));
    assert_eq!(raw.packet().await, [0x40, 2, 0, 5]);
    raw.send(&frame(0x32, &[&[0, 0, 0, 6, 3, 0x23, 0, 1][..], b"alias"].concat())).await;
    assert_eq!(intake.take().await, ("m/1".into(), "alias".into()));
    assert_eq!(raw.packet().await, [0x40, 2, 0, 6]);
    // The window of two holds back the third; what is too large is left out; properties travel.
    for text in ["one", "two", "three"] {
        broker.publish("r", Bytes::from_static(text.as_bytes()), QoS::AtLeastOnce, true).expect("a topic");
    }
    broker.publish("r", Bytes::from(vec![b'x'; 100]), QoS::AtLeastOnce, false).expect("a topic");
    let mut other = Raw::dial(port).await;
    other.send(&connect_v5("other", true, &[])).await;
    other.packet().await;
    let user = [0x26, 0, 1, b'k', 0, 1, b'v'];
    let head = [0, 3, b'm', b'/', b'2', 12, 0x02, 0, 0, 0, 60];
    other.send(&frame(0x30, &[&head[..], &user, b"props"].concat())).await;
    assert_eq!(intake.take().await.1, "props");
    let one = raw.packet().await;
    assert_eq!((one[0], &one[one.len() - 3..]), (0x33, &b"one"[..]), "retain as published");
    let two = raw.packet().await;
    raw.send(&PINGREQ).await;
    assert_eq!(raw.packet().await, PINGRESP);
    raw.send(&[0x40, 2, one[5], one[6]]).await;
    let three = raw.packet().await;
    assert_eq!(&three[three.len() - 5..], b"three");
    raw.send(&[0x40, 2, two[5], two[6]]).await;
    let props = raw.packet().await;
    assert_eq!(props[0], 0x30);
    assert!(props.windows(7).any(|bytes| bytes == user), "{props:02x?}");
    assert!(props.windows(4).any(|bytes| bytes == [0x02, 0, 0, 0]), "what is left of its expiry: {props:02x?}");
    // Taken over: told so.
    let (mut first, mut second) = (Raw::dial(port).await, Raw::dial(port).await);
    first.send(&connect_v5("same", true, &[])).await;
    first.packet().await;
    second.send(&connect_v5("same", true, &[])).await;
    second.packet().await;
    assert_eq!(first.packet().await, [0xE0, 1, 0x8E]);
    // And when the broker stops.
    broker.stop().await;
    assert_eq!(second.packet().await, [0xE0, 1, 0x8B]);
    assert_eq!(second.packet_or_end().await, None);
}

/// Goal: a delayed will is dropped when its client is back. Method: a will with a longer delay, lost later, is the clock.
#[tokio::test(flavor = "multi_thread")]
async fn a_will_with_a_delay_is_not_said_when_its_client_is_back_in_time() {
    let (_broker, mut intake, port) = broker(Settings::default()).await;
    let dial = async |id: u8, delay: u8, payload: &[u8; 4]| {
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 5, 0x04, 0, 60, 5, 0x11, 0, 0, 0, 60, 0, 1, id];
        body.extend([5, 0x18, 0, 0, 0, delay, 0, 1, b't', 0, 4]);
        body.extend(payload);
        let mut raw = Raw::dial(port).await;
        raw.send(&frame(0x10, &body)).await;
        let present = raw.packet().await[2] == 1;
        (raw, present)
    };
    // Either the old connection's end was seen, and its will waits, or the new one took its place, and it was said: which,
    // is up to the threads. Some time it is the first.
    let mut said = Vec::new();
    for id in b'a'..b'f' {
        drop(dial(id, 1, b"lost").await);
        let (back, present) = dial(id, 0, b"gone").await;
        drop(dial(b'z', 2, b"tick").await);
        let mut before = 0;
        while intake.take().await.1 != "tick" {
            before += 1;
        }
        if present && before == 0 {
            return;
        }
        said.push(before);
        std::mem::forget(back);
    }
    panic!("wills that were said although their client was back: {said:?}");
}
