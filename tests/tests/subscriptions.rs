//! An emergency office follows from outside: by signed webhook, live stream, pages and a feed of CAP messages. Whatever is
//! away, it gets every event in order.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};

use anmin_tests::daemon::{DEADLINE, Daemon, anmin};
use anmin_tests::http;
use anmin_tests::mqtt::Mqtt;
use anmin_tests::peers::{Mosquitto, Office, Peer, free_port};
use anmin_tests::site::{GAS_AS_IT_SPEAKS, Site};
use serde_json::{Value, json};

/// At once, and one alarm a detector.
const AT_ONCE: &str = "[[override]]\nrule = \"gas/leak\"\non_delay = \"0s\"\n\
    [[override]]\nrule = \"gas/several_rooms\"\nenabled = false\n\
    [[override]]\nrule = \"gas/rising\"\nenabled = false\n";

fn site(name: &str, more: &str) -> Site {
    let site = Site::new(name, "");
    site.write("office-secret", "office-secret-0123456789\n");
    site.write("office-token", "a-token-of-the-office\n");
    site.write("anmin.d/all.toml", &format!("{GAS_AS_IT_SPEAKS}{AT_ONCE}{more}"));
    site
}

fn device(daemon: &Daemon) -> Mqtt {
    Mqtt::connect(daemon.broker.expect("it has a broker").port(), "device")
}

/// Raises an alarm for each of these devices, one after the other.
fn raise(device: &mut Mqtt, devices: std::ops::Range<u32>) {
    device.publish_all(
        devices.map(|n| (format!("acceptance/g{n}/up"), json!({ "v": 60.0, "seq": 1 }).to_string().into_bytes())),
    );
}

/// The orders of all that the journal holds for the office, by its pages.
fn pages(daemon: &Daemon) -> Vec<String> {
    let (mut after, mut orders) = ("beginning".to_owned(), Vec::new());
    loop {
        let page = get(daemon.web, &format!("/api/v1/subscriptions/office/page?limit=7&after={after}"), TOKEN).json();
        let events = page["events"].as_array().expect("a list");
        orders.extend(events.iter().map(|event| event["event"]["order"].as_str().expect("text").to_owned()));
        after = page["next"].as_str().expect("a position").to_owned();
        if page["more"] == false {
            return orders;
        }
    }
}

const TOKEN: &str = "a-token-of-the-office";

fn get(address: SocketAddr, path: &str, token: &str) -> http::Answer {
    let path = format!("{path} HTTP/1.0\r\nAuthorization: Bearer {token}\r\nX-Rest: ");
    http::request(address, "GET", &path, "").unwrap_or_else(|error| panic!("GET {path}: {error}"))
}

/// A live stream of the office.
struct Stream(BufReader<TcpStream>);

impl Stream {
    fn open(daemon: &Daemon, last: Option<&str>) -> Self {
        let mut stream = TcpStream::connect(daemon.web).expect("the desk listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a socket takes it");
        let last = last.map(|last| format!("Last-Event-ID: {last}\r\n")).unwrap_or_default();
        write!(
            stream,
            "GET /api/v1/subscriptions/office/events HTTP/1.0\r\nHost: {}\r\nAuthorization: Bearer {TOKEN}\r\n{last}\r\n",
            daemon.web
        )
        .expect("the desk reads");
        Self(BufReader::new(stream))
    }

    /// The next event of this name: its id and data.
    fn next(&mut self, name: &str) -> (String, Value) {
        let (mut id, mut event) = (String::new(), String::new());
        loop {
            let mut line = String::new();
            assert_ne!(self.0.read_line(&mut line).expect("the stream goes on"), 0, "it has ended before {name}");
            if let Some(text) = line.strip_prefix("id: ") {
                text.trim().clone_into(&mut id);
            } else if let Some(text) = line.strip_prefix("event: ") {
                text.trim().clone_into(&mut event);
            } else if let Some(data) = line.strip_prefix("data: ")
                && event == name
            {
                return (id, serde_json::from_str(data).expect("JSON"));
            }
        }
    }

    /// The orders of the next so many events about alarms, and the id of the last.
    fn orders(&mut self, count: usize) -> (Vec<String>, String) {
        let mut last = String::new();
        let orders = (0..count).map(|_| {
            let (id, data) = self.next("alarm.event");
            last = id;
            data["order"].as_str().expect("text").to_owned()
        });
        (orders.collect(), last)
    }
}

/// The office listens at a broker of its own, by a client that none of us wrote; the broker is away while alarms come and anmin is
/// killed in the middle.
#[test]
fn an_office_at_a_broker_gets_everything_in_order_over_an_outage_and_a_kill() {
    let site = site("subscription-mqtt", "");
    let mut broker = Mosquitto::start(&site);
    let all = std::fs::read_to_string(site.path("anmin.d/all.toml")).expect("it was written");
    let more = format!(
        "[[mqtt_out]]\nid = \"city\"\nurl = \"mqtt://127.0.0.1:{}\"\nmin_level = \"red\"\nclasses = [\"flood\"]\n\
         [[subscriber]]\nid = \"office\"\nmqtt_out = \"city\"\ntoken_file = \"office-token\"\n",
        broker.port
    );
    site.write("anmin.d/all.toml", &format!("{all}{more}"));
    let mut office = Listener::start(&broker, "anmin/v1/acceptance/subscription/office");
    let daemon = Daemon::start(site.folder());
    raise(&mut device(&daemon), 0..10);
    daemon.wait("/api/v1/status", "the alarms", |status| status["open_alarms"].as_u64() >= Some(10));
    let mut told = Vec::new();
    while told.len() < 10 {
        told.extend(office.orders());
    }
    broker.kill();
    raise(&mut device(&daemon), 10..40);
    daemon.wait("/api/v1/status", "the alarms", |status| status["open_alarms"].as_u64() >= Some(40));
    daemon.kill();
    let daemon = Daemon::start(site.folder());
    raise(&mut device(&daemon), 40..150);
    daemon.wait("/api/v1/status", "the alarms", |status| status["open_alarms"].as_u64() >= Some(150));
    let wanted = pages(&daemon);
    assert!(wanted.len() >= 150, "{wanted:#?}");
    broker.run();
    let mut seen: std::collections::HashSet<String> = told.iter().cloned().collect();
    while told.len() < wanted.len() {
        // At least once: what the broker had not acknowledged is told again.
        told.extend(office.orders().into_iter().filter(|order| seen.insert(order.clone())));
    }
    // Calls go on meanwhile: more may have come behind what the pages held.
    told.truncate(wanted.len());
    assert_eq!(told, wanted);

    let tried =
        anmin(&["subscription", "test", "office", "--who", "李值班", "--url", &format!("http://{}", daemon.web)]);
    let said = String::from_utf8_lossy(&tried.stdout).into_owned();
    assert!(tried.status.success() && said.contains("acknowledged by the broker"), "{said} {tried:?}");
    let test = office.next("test");
    assert!(test["message"]["zh"].as_str().is_some_and(|zh| zh.starts_with("【测试】李值班")), "{test}");
    let beat = office.next("heartbeat");
    assert!(beat["sequence"].as_u64() >= Some(1) && beat["last"].is_string(), "{beat}");
}

/// An office at a broker: what mosquitto_sub prints, a document a line, in a session that lasts over outages.
struct Listener(Peer);

impl Listener {
    fn start(broker: &Mosquitto, topic: &str) -> Self {
        let port = broker.port.to_string();
        let subscribed = ["-p", &port, "-i", "office", "-c", "-q", "1", "-t", topic];
        let peer = Peer::start("mosquitto_sub", &subscribed);
        broker.keeps(topic);
        Self(peer)
    }

    /// What it is told next of this type.
    fn next(&mut self, kind: &str) -> Value {
        self.0.tells(&format!("\"type\":\"{kind}\""))
    }

    /// The orders of the next document of events.
    fn orders(&mut self) -> Vec<String> {
        let document = self.next("events");
        let events = document["events"].as_array().expect("a list");
        assert!((1..=100).contains(&events.len()), "{} at once", events.len());
        events.iter().map(|event| event["event"]["order"].as_str().expect("text").to_owned()).collect()
    }
}

/// The receiver is away while alarms come and anmin is killed in the middle; it breaks off every second answer afterwards.
#[test]
fn an_office_that_was_away_gets_everything_in_order_over_a_kill() {
    let port = free_port();
    let site = site(
        "subscription-away",
        &format!(
            "[[subscriber]]\nid = \"office\"\nurl = \"http://127.0.0.1:{port}/in\"\nsecret_file = \"office-secret\"\n\
             token_file = \"office-token\"\n"
        ),
    );
    let daemon = Daemon::start(site.folder());
    raise(&mut device(&daemon), 0..40);
    daemon.wait("/api/v1/status", "the alarms", |status| status["open_alarms"].as_u64() >= Some(40));
    daemon.kill();
    let daemon = Daemon::start(site.folder());
    raise(&mut device(&daemon), 40..60);
    daemon.wait("/api/v1/status", "the alarms", |status| status["open_alarms"].as_u64() >= Some(60));
    let wanted = pages(&daemon);
    assert!(wanted.len() >= 60, "{wanted:#?}");

    let mut office = Office::start(&["--port", &port.to_string(), "--half"]);
    let mut told = office.orders(wanted.len());
    // At least once: what was broken off is told again, as a whole.
    let mut seen = std::collections::HashSet::new();
    told.retain(|order| seen.insert(order.clone()));
    while told.len() < wanted.len() {
        told.extend(office.orders(1).into_iter().filter(|order| seen.insert(order.clone())));
    }
    // Calls go on meanwhile: more may have come behind what the pages held.
    told.truncate(wanted.len());
    assert_eq!(told, wanted);
    office.stop();
    // While it is away again: only what comes from now on is told by the next run.
    raise(&mut device(&daemon), 60..61);
    daemon.wait("/api/v1/status", "the alarm", |status| status["open_alarms"].as_u64() >= Some(61));
    daemon.terminate();
    let mut office = Office::start(&["--port", &port.to_string()]);
    let daemon = Daemon::start(site.folder());
    let mut last = office.orders(1);
    let wanted = pages(&daemon);
    while last.last() != wanted.last() {
        last.extend(office.orders(1));
    }
    assert!(wanted.ends_with(&last), "{last:#?} is not the end of {wanted:#?}");

    let tried =
        anmin(&["subscription", "test", "office", "--who", "李值班", "--url", &format!("http://{}", daemon.web)]);
    let said = String::from_utf8_lossy(&tried.stdout).into_owned();
    assert!(tried.status.success() && said.contains("taken by the receiver: HTTP 204"), "{said} {tried:?}");
    let test = office.next("test");
    assert!(test["message"]["zh"].as_str().is_some_and(|zh| zh.starts_with("【测试】李值班")), "{test}");
    let listed = anmin(&["subscription", "list", "--json", "--url", &format!("http://{}", daemon.web)]);
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    assert_eq!(
        (&listed[0]["posted"]["behind"], &listed[0]["posted"]["failing"]),
        (&json!(0), &Value::Null),
        "{listed}"
    );
}

#[test]
fn one_event_that_the_office_refuses_is_left_out_and_told_and_holds_up_no_other() {
    let mut office = Office::start(&["--refuse", "g7/lel"]);
    let site = site(
        "subscription-refused",
        &format!(
            "[[subscriber]]\nid = \"office\"\nurl = \"{}\"\nsecret_file = \"office-secret\"\nclasses = [\"gas\"]\n\
             token_file = \"office-token\"\n",
            office.url
        ),
    );
    let daemon = Daemon::start(site.folder());
    raise(&mut device(&daemon), 0..20);
    daemon.wait("/api/v1/status", "the alarms", |status| status["open_alarms"].as_u64() >= Some(20));
    daemon.alarm("system/part", "subscriber:office", "told", |alarm| {
        alarm["message"]["zh"].as_str().is_some_and(|zh| zh.contains("拒收事件"))
    });
    let told = office.orders(19);
    let wanted = pages(&daemon);
    let refused: Vec<&String> = wanted.iter().filter(|order| !told.contains(order)).collect();
    assert!(told.iter().all(|order| wanted.contains(order)), "{told:#?} {wanted:#?}");
    assert!(!refused.is_empty() && refused.len() <= wanted.len() - 19, "{refused:#?}");
}

#[test]
fn a_live_stream_goes_on_where_it_was_over_a_restart_and_asks_for_its_token() {
    let site = site(
        "subscription-stream",
        "[[subscriber]]\nid = \"office\"\ntoken_file = \"office-token\"\nmin_level = \"red\"\n",
    );
    let daemon = Daemon::start(site.folder());
    for path in ["events", "page", "feed.atom", "cap/x"] {
        let path = format!("/api/v1/subscriptions/office/{path}");
        assert_eq!(get(daemon.web, &path, "another-token-of-somebody").status, 401, "{path}");
        assert_eq!(http::get(daemon.web, &path).status, 401, "{path}");
    }
    let mut live = Stream::open(&daemon, None);
    live.next("hello");
    raise(&mut device(&daemon), 0..10);
    let (first, last) = live.orders(10);
    raise(&mut device(&daemon), 10..20);
    daemon.wait("/api/v1/status", "the alarms", |status| status["open_alarms"].as_u64() >= Some(20));
    daemon.kill();
    let daemon = Daemon::start(site.folder());
    let mut back = Stream::open(&daemon, Some(&last));
    back.next("hello");
    let (second, _) = back.orders(10);
    let (third, _) = {
        raise(&mut device(&daemon), 20..30);
        back.orders(10)
    };
    let mut wanted = pages(&daemon);
    wanted.retain(|order| !order.contains("/call-"));
    assert_eq!([first, second, third].concat(), wanted);
    let other = get(daemon.web, "/api/v1/subscriptions/office/page?after=00000000000000ff-3", TOKEN);
    assert_eq!((other.status, &other.json()["code"]), (410, &json!("other_journal")));
}

#[test]
fn the_feed_is_read_by_readers_of_others_and_each_message_is_sound() {
    let site = site(
        "subscription-feed",
        "[[subscriber]]\nid = \"office\"\ntoken_file = \"office-token\"\nmin_level = \"orange\"\n[subscriber.cap]\n\
         sender = \"acceptance.anmin.example.cn\"\n",
    );
    let daemon = Daemon::start(site.folder());
    let mut device = device(&daemon);
    raise(&mut device, 0..3);
    daemon.wait("/api/v1/status", "the alarms", |status| status["open_alarms"].as_u64() >= Some(3));
    let url = format!("http://{}/api/v1/subscriptions/office/feed.atom", daemon.web);
    let read = Office::reads_feed(&url, TOKEN);
    assert_eq!(
        (&read["bozo"], &read["version"], &read["again"]),
        (&json!(false), &json!("atom10"), &json!(304)),
        "{read:#}"
    );
    let entries = read["entries"].as_array().expect("a list");
    assert_eq!(entries.len(), 3, "{read:#}");
    for entry in entries {
        assert_eq!((&entry["faults"], &entry["msgType"]), (&json!([]), &json!("Alert")), "{entry:#}");
        assert!(entry["title"].as_str().is_some_and(|title| title.starts_with("【演练】")), "{entry:#}");
        assert_eq!(entry["tags"], json!(["Alert", "red"]));
    }
}
