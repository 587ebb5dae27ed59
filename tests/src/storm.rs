//! Load that keeps books of its own, and witnesses at the far end of every way out: what a kill test compares.
//!
//! The books are kept here and never killed: what was published and acknowledged by the broker, how often each detector
//! went over its limit. Whatever happens to anmin in between, in the end the database, the alarm stream and the
//! emergency office must agree with them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::daemon::DEADLINE;
use crate::http;
use crate::mqtt::Mqtt;
use crate::peers::CapReceiver;

/// SplitMix64: the same numbers for the same seed.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The seed in the environment variable, else a new one; printed, so that a failure can be played again.
    pub fn from_environment(variable: &str) -> Self {
        let given = std::env::var(variable).ok();
        let seed = given.map_or_else(
            || now_ms() as u64 % 1_000_000,
            |text| text.parse().unwrap_or_else(|error| panic!("{variable} is {text:?}: {error}")),
        );
        println!("{variable}={seed}");
        Self(seed)
    }

    /// A number from 0 to below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

/// Now, in milliseconds since 1970.
pub fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(now.expect("it is after 1970").as_millis()).expect("it is before the year 292 million")
}

/// The rule of storms: one limit, no delay, no latch, so that every crossing of the limit is one alarm and one return.
pub const RULE: &str = "storm/gas";
pub const RULE_TOML: &str = r#"
title = { zh = "风暴", en = "storm" }
on_delay = "0s"
off_delay = "0s"
[[input]]
role = "gas"
kind = "gas.lel"
[limit.orange]
value = 25.0
unit = "%LEL"
source = "made up for this test"
[message]
zh = "{value} %LEL"
en = "{value} %LEL"
[advice]
zh = "无"
en = "none"
[[case]]
name = "over and under"
steps = [{ at = "0s", gas = 26.0, expect = "orange" }, { at = "1s", gas = 1.0, expect = "normal" }]
"#;
pub const RULE_RHAI: &str = "fn judge(gas) { if above(gas, \"orange\") { return orange(); } normal() }\n";
/// The shipped rule about the same points rests.
pub const ONLY_THE_STORM: &str = "[[override]]\nrule = \"gas/leak\"\nenabled = false\n";

/// One detector and everything that it said.
#[derive(Clone, Debug)]
struct Detector {
    name: String,
    /// Each reading: its own time in milliseconds, and its value.
    said: Vec<(i64, f64)>,
    high: bool,
    /// Readings until it crosses the limit again.
    left: u64,
    /// How often it went over the limit.
    onsets: usize,
}

/// What was published.
#[derive(Clone, Debug)]
pub struct Ledger {
    chance: Chance,
    detectors: Vec<Detector>,
}

impl Ledger {
    pub fn new(detectors: usize, mut chance: Chance) -> Self {
        let detectors = (0..detectors)
            .map(|n| Detector {
                name: format!("g{n}"),
                said: Vec::new(),
                high: false,
                left: 1 + chance.below(30),
                onsets: 0,
            })
            .collect();
        Self { chance, detectors }
    }

    /// The next reading of every detector.
    pub fn speak(&mut self) -> Vec<(String, Vec<u8>)> {
        let Self { chance, detectors } = self;
        let mut messages = Vec::with_capacity(detectors.len());
        for detector in detectors {
            detector.left -= 1;
            if detector.left == 0 {
                // Some excursions are a single reading, some last.
                detector.left = 1 + chance.below(25);
                detector.high = !detector.high;
                detector.onsets += usize::from(detector.high);
            }
            messages.push(detector.say());
        }
        messages
    }

    /// A reading below the limit from every detector.
    pub fn calm(&mut self) -> Vec<(String, Vec<u8>)> {
        let calm = |detector: &mut Detector| {
            detector.high = false;
            detector.left = 5;
            detector.say()
        };
        self.detectors.iter_mut().map(calm).collect()
    }

    pub fn readings(&self) -> usize {
        self.detectors.iter().map(|detector| detector.said.len()).sum()
    }

    pub fn onsets(&self) -> usize {
        self.detectors.iter().map(|detector| detector.onsets).sum()
    }

    /// Whether the database has as much as was published, repeats left out.
    pub fn is_in(&self, stored: &BTreeMap<String, Vec<(i64, f64)>>) -> bool {
        self.detectors.iter().all(|detector| {
            let found = stored.get(&format!("{}/lel", detector.name)).map_or(&[][..], Vec::as_slice);
            found.iter().map(|row| row.0).collect::<BTreeSet<_>>().len() >= detector.said.len()
        })
    }

    /// Holds what the database has against what was published: each reading once, with its time and value.
    pub fn audit_readings(&self, stored: &BTreeMap<String, Vec<(i64, f64)>>) {
        for detector in &self.detectors {
            let point = format!("{}/lel", detector.name);
            let found = stored.get(&point).map_or(&[][..], Vec::as_slice);
            // Values have three digits; VictoriaMetrics keeps ten to twelve, not always all bits.
            let key = |(at, value): &(i64, f64)| (*at, (value * 1e6).round() as i64);
            let (sent, kept): (BTreeSet<_>, BTreeSet<_>) =
                (detector.said.iter().map(key).collect(), found.iter().map(key).collect());
            let lost: Vec<i64> = sent.difference(&kept).map(|row| row.0).collect();
            let strange: Vec<i64> = kept.difference(&sent).map(|row| row.0).collect();
            assert!(
                lost.is_empty() && strange.is_empty() && found.len() == sent.len(),
                "{point}: {} sent, {} stored; lost, by their time: {lost:?}; never sent: {strange:?}",
                sent.len(),
                found.len()
            );
        }
    }
}

impl Detector {
    fn say(&mut self) -> (String, Vec<u8>) {
        // A device's own time, never twice the same.
        let at = self.said.last().map_or(0, |last| last.0 + 1).max(now_ms());
        let seq = self.said.len();
        let value = if self.high { 30.0 } else { 1.0 } + (seq % 1_000) as f64 / 1_000.0;
        self.said.push((at, value));
        let payload = json!({ "v": value, "ts": at, "seq": seq + 1 });
        (format!("acceptance/{}/up", self.name), payload.to_string().into_bytes())
    }
}

/// A thread that publishes on and on with QoS 1 and enters nothing that the broker has not acknowledged.
pub struct Load {
    stop: Sender<()>,
    thread: JoinHandle<Ledger>,
}

impl Load {
    /// The pace is part of the load: each detector speaks every `pace`, as detectors do.
    pub fn start(mut ledger: Ledger, port: u16, pace: Duration) -> Self {
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || {
            let mut devices = Mqtt::connect(port, "detectors");
            loop {
                devices.publish_all(ledger.speak());
                if stopped.recv_timeout(pace) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
            devices.publish_all(ledger.calm());
            ledger
        });
        Self { stop, thread }
    }

    /// Every detector says once more that all is well; then silence.
    pub fn stop(self) -> Ledger {
        drop(self.stop);
        self.thread.join().expect("the broker acknowledged everything")
    }
}

/// One thing that the alarm stream said, in the order in which it first came.
#[derive(Clone, Debug)]
struct Event {
    cause: String,
    to: String,
    point: String,
    rule: String,
}

/// Who listens to the alarm stream, remembers the ids that it has seen, and acknowledges what it hears of.
pub struct Officer {
    stream: Mqtt,
    orders: BTreeSet<String>,
    alarms: BTreeMap<String, Vec<Event>>,
    /// Events that came again under their id.
    pub repeats: usize,
}

impl Officer {
    pub fn listen(port: u16) -> Self {
        let mut stream = Mqtt::connect(port, "officer");
        stream.subscribe("anmin/v1/acceptance/alarm/+/+/#");
        Self { stream, orders: BTreeSet::new(), alarms: BTreeMap::new(), repeats: 0 }
    }

    /// Takes what comes until `until` and acknowledges at `desk` what is raised; a desk that is gone is no matter.
    pub fn watch(&mut self, until: Instant, desk: Option<SocketAddr>) {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            for alarm in self.take(left) {
                if let Some(desk) = desk {
                    acknowledge(desk, &alarm);
                }
            }
            if left.is_zero() {
                return;
            }
        }
    }

    /// Acknowledges whatever is still open until nothing is.
    pub fn settle(&mut self, desk: SocketAddr) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            self.take(Duration::from_millis(100));
            let open: Vec<&String> = self.open().collect();
            if open.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "the stream never said that these closed: {:#?}", {
                let last = |alarm: &String| (alarm.clone(), self.alarms[alarm].last().cloned());
                open.into_iter().map(last).collect::<Vec<_>>()
            });
            open.into_iter().for_each(|alarm| acknowledge(desk, alarm));
        }
    }

    /// Alarms of the storm that the stream has not closed.
    fn open(&self) -> impl Iterator<Item = &String> {
        let is_open = |events: &[Event]| events.last().is_some_and(|last| last.rule == RULE && last.to != "normal");
        self.alarms.iter().filter(move |(_, events)| is_open(events)).map(|(alarm, _)| alarm)
    }

    /// Gives the alarms that want an acknowledgement now.
    fn take(&mut self, wait: Duration) -> Vec<String> {
        let mut raised = Vec::new();
        for publish in self.stream.take(wait) {
            if !publish.topic.ends_with("/event") {
                continue;
            }
            let said: Value = serde_json::from_slice(&publish.payload).unwrap_or_else(|error| panic!("{error}"));
            let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned();
            if !self.orders.insert(text(&said["order"])) {
                self.repeats += 1;
                continue;
            }
            let (alarm, cause) = (text(&said["alarm"]), text(&said["change"]["cause"]));
            let events = self.alarms.entry(alarm.clone()).or_default();
            assert_eq!(said["seq"], events.len() + 1, "out of order, or one is missing: {said:#}");
            events.push(Event {
                to: text(&said["state"]),
                point: said["reading"]["point"].as_str().unwrap_or_default().to_owned(),
                rule: text(&said["rule"]),
                cause: cause.clone(),
            });
            if said["rule"] == RULE && ["raised", "realarmed"].contains(&cause.as_str()) {
                raised.push(alarm);
            }
        }
        raised
    }

    /// Holds the stream against the ledger: each crossing of the limit was told once, and each return.
    pub fn audit(&self, ledger: &Ledger) {
        let mut told: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
        for event in self.alarms.values().flatten().filter(|event| event.rule == RULE) {
            let [onsets, returns] = told.entry(&event.point).or_default();
            match event.cause.as_str() {
                "raised" | "realarmed" => *onsets += 1,
                "returned" => *returns += 1,
                _ => {}
            }
        }
        for detector in &ledger.detectors {
            let point = format!("{}/lel", detector.name);
            let [onsets, returns] = told.get(point.as_str()).copied().unwrap_or_default();
            assert_eq!(
                (onsets, returns),
                (detector.onsets, detector.onsets),
                "{point}: onsets and returns in the alarm stream against those published"
            );
        }
    }

    /// Ids of the storm's alarms.
    fn ids(&self) -> BTreeSet<&str> {
        let ours = self.alarms.iter().filter(|(_, events)| events.iter().all(|event| event.rule == RULE));
        ours.map(|(id, _)| id.as_str()).collect()
    }
}

fn acknowledge(desk: SocketAddr, alarm: &str) {
    // It may have been closed, or the desk killed: the next look tells.
    let _ = http::request(
        desk,
        "POST",
        &format!("/api/v1/alarms/{alarm}/acknowledge"),
        &json!({ "who": "officer" }).to_string(),
    );
}

/// What the emergency office got.
#[derive(Debug, Default)]
pub struct Office {
    identifiers: BTreeSet<String>,
    /// By alarm: kinds of message in the order in which they first came.
    chains: BTreeMap<String, Vec<String>>,
    pub repeats: usize,
}

impl Office {
    pub fn take(&mut self, receiver: &mut CapReceiver) {
        for said in receiver.taken() {
            assert_eq!(said["ok"], true, "{said:#}");
            let text = |key: &str| said[key].as_str().unwrap_or_else(|| panic!("{key} of {said:#}")).to_owned();
            let (identifier, kind) = (text("identifier"), text("msgType"));
            if !self.identifiers.insert(identifier.clone()) {
                self.repeats += 1;
                continue;
            }
            // acceptance-<alarm, a UUID>-<number>-<way out>
            let alarm = identifier.strip_prefix("acceptance-").and_then(|rest| rest.get(..36));
            self.chains.entry(alarm.unwrap_or_else(|| panic!("{identifier}")).to_owned()).or_default().push(kind);
        }
    }

    /// Every alarm that the stream knows was announced and called off, once each and in this order; and no other.
    pub fn audit(&self, officer: &Officer) {
        let ids: BTreeSet<&str> = self.chains.keys().map(String::as_str).collect();
        assert_eq!(ids, officer.ids(), "alarms that the office heard of, against those of the stream");
        for (alarm, kinds) in &self.chains {
            assert_eq!(kinds, &["Alert", "Cancel"], "alarm {alarm}");
        }
    }

    pub fn messages(&self) -> usize {
        self.identifiers.len()
    }
}
