//! TLS where anmin serves and where it sends: what is over, of another name or of nobody's authority is not believed, and what is
//! renewed is in force without a restart.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use anmin_tests::daemon::Daemon;
use anmin_tests::mqtt::Mqtt;
use anmin_tests::peers::{Peer, free_port};
use anmin_tests::site::{GAS_AS_IT_SPEAKS, Site};
use serde_json::json;

/// What a strict client makes of a page.
fn get(url: &str, ca: &str) -> String {
    Peer::python("https.py", &["get", url, ca]).until("done ")
}

#[test]
fn the_desk_speaks_tls_to_who_is_not_on_the_box_and_takes_a_renewed_certificate_at_once() {
    let port = free_port();
    let site = Site::new("desk-tls", "[broker]\nlisten = \"127.0.0.1:0\"\n");
    for (name, days) in [("desk", 300), ("next", 300)] {
        site.certificate(name, days);
    }
    let head = std::fs::read_to_string(site.path("anmin.toml")).expect("it was just written");
    let tls = format!("[web]\ntls_cert = \"desk.pem\"\ntls_key = \"desk.key\"\ntls_listen = \"127.0.0.1:{port}\"\n");
    site.write("anmin.toml", &head.replace("[web]\n", &tls));
    let mut daemon = Daemon::start(site.folder());
    let [desk, next] = ["desk.pem", "next.pem"].map(|name| site.path(name).display().to_string());
    let [named, numbered] = ["localhost", "127.0.0.1"].map(|host| format!("https://{host}:{port}/healthz"));
    assert_eq!(get(&named, &desk), "done 200");
    let other = get(&numbered, &desk);
    assert!(other.contains("IP address mismatch"), "the certificate is of a name and not of this address: {other}");
    assert!(get(&named, &next).contains("certificate verify failed"), "it is of another authority");

    // Who speaks no TLS, or nothing at all, gets nothing and holds up nobody.
    let _silent = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    let mut plain = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    plain.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("it reads");
    let mut said = Vec::new();
    // It may reset the connection.
    let _ = plain.read_to_end(&mut said);
    assert!(!said.starts_with(b"HTTP/"), "{said:?}");
    assert_eq!(get(&named, &desk), "done 200");

    for (from, to) in [("next.key", "desk.key"), ("next.pem", "desk.pem")] {
        std::fs::copy(site.path(from), site.path(to)).expect("both are ours");
    }
    assert_eq!(get(&named, &next), "done 200", "what was renewed is in force");
    // A slip of whoever renews: the last that was sound goes on.
    site.write("desk.pem", "not a certificate\n");
    assert_eq!(get(&named, &next), "done 200");
    daemon.until("cannot be used");
    assert_eq!(daemon.terminate(), Some(0));
}

#[test]
fn who_posts_readings_by_tls_must_show_a_certificate_where_the_site_wants_one() {
    let port = free_port();
    let site = Site::new("http-tls", "");
    for name in ["gate", "cloud", "stranger"] {
        site.certificate(name, 300);
    }
    std::fs::copy(site.path("cloud.pem"), site.path("cloud-ca.pem")).expect("both are ours");
    site.write("token", "a-token-of-the-cloud\n");
    let gate = format!(
        "[broker]\nlisten = \"127.0.0.1:0\"\n[[http]]\nid = \"cloud\"\nlisten = \"127.0.0.1:{port}\"\ntoken_file = \"token\"\n\
         tls_cert = \"gate.pem\"\ntls_key = \"gate.key\"\ntls_client_ca = \"cloud-ca.pem\"\n"
    );
    site.write("anmin.d/gate.toml", &gate);
    let mut daemon = Daemon::start(site.folder());
    let file = |name: &str| site.path(name).display().to_string();
    let post = |own: &[&str]| {
        let own: Vec<String> = own.iter().map(|name| file(name)).collect();
        let url = format!("https://localhost:{port}/v1/g1/up");
        let fixed = ["get".to_owned(), url, file("gate.pem")];
        let arguments: Vec<&str> = fixed.iter().chain(&own).map(String::as_str).collect();
        Peer::python("https.py", &arguments).until("done ")
    };
    // It is let in as far as HTTP, which wants another method.
    assert_eq!(post(&["cloud.pem", "cloud.key"]), "done 405");
    for (who, own) in [("nobody", &[][..]), ("a stranger", &["stranger.pem", "stranger.key"])] {
        let said = post(own);
        assert!(said.starts_with("done failed: "), "{who}: {said}");
    }
    daemon.until("speaks no TLS with us");

    // Another authority is copied in: from now on the stranger is expected, and who was is one.
    std::fs::copy(site.path("stranger.pem"), site.path("cloud-ca.pem")).expect("both are ours");
    assert_eq!(post(&["stranger.pem", "stranger.key"]), "done 405");
    daemon.until("the authorities of clients in");
    let said = post(&["cloud.pem", "cloud.key"]);
    assert!(said.starts_with("done failed: "), "{said}");
    // A slip of whoever renews: the last that was sound goes on.
    site.write("cloud-ca.pem", "not a certificate\n");
    assert_eq!(post(&["stranger.pem", "stranger.key"]), "done 405");
    daemon.until("cannot be used");
    assert_eq!(daemon.terminate(), Some(0));
}

/// The four peers of a story: whose certificate is over, who is called by another name, who is sound, and who was renewed by another
/// authority, of which the site does not know yet. Each with its host, the name of its certificate, and the authority that the site
/// has in its file.
const PEERS: [(&str, &str, &str, &str); 4] = [
    ("over", "localhost", "ended", "ended"),
    ("named", "127.0.0.1", "sound", "sound"),
    ("sound", "localhost", "sound", "sound"),
    ("office", "localhost", "next", "office"),
];

/// Why three of them are not believed, as a line of the log has it.
const NOT_BELIEVED: [(&str, &str); 3] =
    [("over", "expired"), ("named", "not valid for name"), ("office", "invalid peer certificate")];

/// A site with the certificates of these peers and what raises an alarm by the first reading.
fn site_of_four(name: &str) -> Site {
    let site = Site::new(name, "");
    for (name, days) in [("ended", -5), ("sound", 300), ("next", 300)] {
        site.certificate(name, days);
    }
    std::fs::copy(site.path("sound.pem"), site.path("office.pem")).expect("both are ours");
    site
}

const QUICK: &str = "[[override]]\nrule = \"gas/leak\"\non_delay = \"0s\"\n";

#[test]
fn a_way_out_believes_no_certificate_that_is_over_or_of_another_name_and_takes_a_new_authority_at_once() {
    // What a stanza of each kind needs besides, and what the log says before the id of one whose peer is not believed; of a database
    // that is away it says nothing for half a minute.
    let kinds = [
        ("webhook", "", Some("probed one at a time way_out=")),
        (
            "cap",
            "min_level = \"orange\"\nsender = \"acceptance.anmin.example.cn\"\nstatus = \"exercise\"\n",
            Some("probed one at a time way_out="),
        ),
        ("influx", "bucket = \"b\"\nflush_interval = \"100ms\"\n", None),
    ];
    let site = site_of_four("out-tls");
    let serve = |name: &str| {
        let file = |end: &str| site.path(&format!("{name}.{end}")).display().to_string();
        let mut peer = Peer::python("https.py", &["serve", &file("pem"), &file("key")]);
        let port = peer.until("ready ").trim_start_matches("ready ").trim().to_owned();
        (peer, port)
    };
    let ((mut over, ended), (mut sound, right), (mut renewed, after)) = (serve("ended"), serve("sound"), serve("next"));
    let port = |certificate: &str| match certificate {
        "ended" => &ended,
        "sound" => &right,
        _ => &after,
    };
    let mut text = format!("{GAS_AS_IT_SPEAKS}{QUICK}");
    for (kind, more, _) in kinds {
        for (id, host, certificate, ca) in PEERS {
            let port = port(certificate);
            text.push_str(&format!(
                "[[{kind}]]\nid = \"{kind}-{id}\"\nurl = \"https://{host}:{port}/{kind}\"\ntls_ca = \"{ca}.pem\"\n{more}"
            ));
        }
    }
    site.write("anmin.d/out.toml", &text);
    // In whatever order.
    let each_comes = |peer: &mut Peer| {
        let mut left: Vec<String> = kinds.iter().map(|(kind, ..)| format!("at /{kind}")).collect();
        while !left.is_empty() {
            let line = peer.until("got ");
            left.retain(|path| !line.contains(path));
        }
    };
    let mut daemon = Daemon::start(site.folder());
    let mut device = Mqtt::connect(daemon.broker.expect("the site has a broker").port(), "devices");
    for _ in 0..2 {
        device.publish("acceptance/g1/up", json!({ "v": 60.0 }).to_string());
    }
    each_comes(&mut sound);
    for (kind, said) in kinds.into_iter().filter_map(|(kind, _, said)| Some((kind, said?))) {
        for (id, why) in NOT_BELIEVED {
            let line = daemon.until(&format!("{said}{kind}-{id} "));
            assert!(line.contains(why), "{kind}: expected {why:?} in {line}");
        }
    }
    for peer in [&mut over, &mut renewed] {
        assert!(peer.said().iter().all(|line| !line.starts_with("got ")), "nothing has left yet");
    }
    // The new authority is copied in: nobody restarts anything.
    std::fs::copy(site.path("next.pem"), site.path("office.pem")).expect("both are ours");
    each_comes(&mut renewed);
    assert_eq!(daemon.terminate(), Some(0));
}

#[test]
fn a_broker_whose_certificate_is_over_or_of_another_name_is_not_believed_and_a_new_authority_is_taken_at_once() {
    let site = site_of_four("brokers-tls");
    let ports = ["ended", "sound", "next"].map(|name| (name, free_port()));
    let mut broker = "per_listener_settings true\nuser root\nlog_dest stderr\n".to_owned();
    for (name, port) in ports {
        let file = |end: &str| site.path(&format!("{name}.{end}")).display().to_string();
        broker.push_str(&format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\ncertfile {}\nkeyfile {}\n",
            file("pem"),
            file("key")
        ));
    }
    site.write("mosquitto.conf", &broker);
    let configuration = site.path("mosquitto.conf").display().to_string();
    let mut broker = Peer::start("/usr/sbin/mosquitto", &["-c", &configuration]);
    broker.until(" running");
    let url = |host: &str, certificate: &str| {
        let port = ports.iter().find(|(name, _)| *name == certificate).map(|(_, port)| *port);
        format!("mqtts://{host}:{}", port.expect("each has a listener"))
    };
    let mut text = QUICK.to_owned();
    let mapping = GAS_AS_IT_SPEAKS.split_once("[[broker.mapping]]").expect("it has a mapping").1;
    for (id, host, certificate, ca) in PEERS {
        let peer = format!("url = \"{}\"\ntls_ca = \"{ca}.pem\"\n", url(host, certificate));
        text.push_str(&format!("[[mqtt]]\nid = \"{id}\"\n{peer}[[mqtt.mapping]]{mapping}"));
        text.push_str(&format!("[[mqtt_out]]\nid = \"out-{id}\"\n{peer}"));
    }
    site.write("anmin.d/brokers.toml", &text);
    let mut daemon = Daemon::start(site.folder());
    daemon.until("anmin-acceptance-sound-in is subscribed to");
    daemon.until("connected way_out=out-sound ");
    for (id, why) in NOT_BELIEVED {
        let (_, host, certificate, _) = PEERS.into_iter().find(|(name, ..)| *name == id).expect("it is one of them");
        let read = daemon.until(&format!("cannot connect to MQTT broker {}", url(host, certificate)));
        let told = daemon.until(&format!("way_out=out-{id} "));
        for line in [read, told] {
            assert!(line.contains(why), "expected {why:?} in {line}");
        }
    }
    // The new authority is copied in: nobody restarts anything.
    std::fs::copy(site.path("next.pem"), site.path("office.pem")).expect("both are ours");
    daemon.until("anmin-acceptance-office-in is subscribed to");
    daemon.until("connected way_out=out-office ");
    // Those who are not believed are not of a sudden.
    for id in ["over", "named"] {
        let believed = daemon.log.iter().find(|line| {
            line.contains(&format!("acceptance-{id}-in is subscribed to"))
                || line.contains(&format!("connected way_out=out-{id} "))
        });
        assert_eq!(believed, None);
    }
    assert_eq!(daemon.terminate(), Some(0));
}

#[test]
fn anmin_shows_a_certificate_of_its_own_to_a_broker_and_a_receiver_that_want_one_and_the_renewed_one_at_once() {
    let site = Site::new("own-tls", "");
    for name in ["peer", "box", "next"] {
        site.certificate(name, 300);
    }
    let file = |name: &str| site.path(name).display().to_string();
    // Readings come in beside, where nobody is asked who they are.
    let (port, beside) = (free_port(), free_port());
    let broker = format!(
        "per_listener_settings true\nuser root\nlog_dest stderr\nlistener {beside} 127.0.0.1\nallow_anonymous true\n\
         listener {port} 127.0.0.1\nallow_anonymous true\nrequire_certificate true\ncafile {}\ncertfile {}\nkeyfile {}\n",
        file("box.pem"),
        file("peer.pem"),
        file("peer.key")
    );
    site.write("mosquitto.conf", &broker);
    let mut broker = Peer::start("/usr/sbin/mosquitto", &["-c", &file("mosquitto.conf")]);
    broker.until(" running");
    let serve = |clients: &str| {
        let mut peer = Peer::python("https.py", &["serve", &file("peer.pem"), &file("peer.key"), &file(clients)]);
        let port = peer.until("ready ").trim_start_matches("ready ").trim().to_owned();
        (peer, port)
    };
    let (mut office, port_of_office) = serve("box.pem");
    let (mut county, port_of_county) = serve("next.pem");
    let own = "tls_cert = \"box.pem\"\ntls_key = \"box.key\"\n";
    let hook = |id: &str, port: &str, own: &str| {
        format!("[[webhook]]\nid = \"{id}\"\nurl = \"https://localhost:{port}/\"\ntls_ca = \"peer.pem\"\n{own}")
    };
    let gas = GAS_AS_IT_SPEAKS.replace("broker.mapping", "mqtt.mapping").replace(
        "[broker]\nlisten = \"127.0.0.1:0\"\n",
        &format!("[[mqtt]]\nid = \"site\"\nurl = \"mqtts://localhost:{port}\"\ntls_ca = \"peer.pem\"\n{own}"),
    );
    let quick = "[[override]]\nrule = \"gas/leak\"\non_delay = \"0s\"\n";
    let out = [
        hook("office", &port_of_office, own),
        hook("nameless", &port_of_office, ""),
        // It believes the certificate that the box will have tomorrow.
        hook("county", &port_of_county, own),
    ];
    site.write("anmin.d/out.toml", &format!("{gas}{quick}{}", out.concat()));
    let mut daemon = Daemon::start(site.folder());
    daemon.until("is subscribed to");
    let mut device = Mqtt::connect(beside, "devices");
    for _ in 0..2 {
        device.publish("acceptance/g1/up", json!({ "v": 60.0 }).to_string());
    }
    office.until("got ");
    for id in ["nameless", "county"] {
        daemon.until(&format!("probed one at a time way_out={id} "));
    }
    for (from, to) in [("next.key", "box.key"), ("next.pem", "box.pem")] {
        std::fs::copy(site.path(from), site.path(to)).expect("both are ours");
    }
    county.until("got ");
    assert_eq!(daemon.terminate(), Some(0));
}
