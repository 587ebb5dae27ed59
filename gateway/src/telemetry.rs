//! How anmin speaks to its operator: the log, and the figures at `/metrics`.

mod log;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anmin_rules::alarm::AlarmState;
use anmin_rules::rule::Level;
use anmin_sensors::poll::Counters;
use anmin_sensors::time::{Mono, Wall};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use tracing_subscriber::EnvFilter;

use crate::delivery::courier::Tally;
use crate::delivery::influx::Stats;
use crate::main_loop::query::{Database, Status};
use crate::pulse::Seen;

pub use log::{set_log_level, start_log};

/// Starts the log in a file, for a run whose terminal tells a story of its own.
pub fn start_log_in(path: &Path) -> Result<(), String> {
    let file = File::create(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Mutex::new(file))
        .with_ansi(false)
        .with_target(false)
        .try_init()
        .map_err(|error| format!("cannot start the log: {error}"))
}

/// Text from outside, made fit for one line of the log: escaped, at most 256 characters.
pub fn quoted(text: &str) -> String {
    let short: String = text.chars().take(256).collect();
    if short.len() < text.len() { format!("{short:?}…") } else { format!("{short:?}") }
}

/// Parts in trouble that `/metrics` names; a bus that is away makes every device on it ill.
const MOST_PARTS: usize = 100;

/// Where the main loop leaves its figures once a second for `/metrics`.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    status: Arc<Mutex<Status>>,
    buses: Arc<Mutex<BTreeMap<Arc<str>, BusCounters>>>,
    pulse: Arc<Mutex<Seen>>,
    ways_out: Arc<Mutex<BTreeMap<Arc<str>, Arc<Tally>>>>,
    databases: Arc<Mutex<BTreeMap<Arc<str>, Arc<Stats>>>>,
    upkeep: Arc<Mutex<Upkeep>>,
}

/// What has to be renewed in time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upkeep {
    /// Files with the second since 1970 at which the first certificate in them ends.
    pub certificates: Vec<(String, i64)>,
    /// When there was a backup last.
    pub backup: Option<Wall>,
}

/// Where one Modbus bus leaves what it has done.
#[derive(Clone, Debug, Default)]
pub struct BusCounters(Arc<Mutex<Counters>>);

impl BusCounters {
    pub fn set(&self, counters: Counters) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = counters;
    }

    pub fn get(&self) -> Counters {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Figures {
    pub fn set(&self, status: Status) {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }

    /// What the main loop left last.
    pub fn status(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the self-test has seen.
    pub fn set_pulse(&self, seen: Seen) {
        *self.pulse.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }

    pub fn pulse(&self) -> Seen {
        *self.pulse.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The counters of a bus, which `/metrics` will show.
    pub fn bus(&self, id: &Arc<str>) -> BusCounters {
        self.buses.lock().unwrap_or_else(PoisonError::into_inner).entry(Arc::clone(id)).or_default().clone()
    }

    /// `/metrics` will show what becomes of the orders of a way out.
    pub fn way_out(&self, id: &Arc<str>, tally: &Arc<Tally>) {
        self.ways_out.lock().unwrap_or_else(PoisonError::into_inner).insert(Arc::clone(id), Arc::clone(tally));
    }

    /// `/metrics` shows it no more.
    pub fn no_way_out(&self, id: &str) {
        self.ways_out.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// `/metrics` will show what becomes of the readings for a database.
    pub fn database(&self, id: &Arc<str>, stats: &Arc<Stats>) {
        self.databases.lock().unwrap_or_else(PoisonError::into_inner).insert(Arc::clone(id), Arc::clone(stats));
    }

    /// What was seen of certificates and backups.
    pub fn set_upkeep(&self, upkeep: Upkeep) {
        *self.upkeep.lock().unwrap_or_else(PoisonError::into_inner) = upkeep;
    }

    /// Readings that each database has taken since its forwarder began.
    pub fn sent(&self) -> BTreeMap<Arc<str>, u64> {
        let databases = self.databases.lock().unwrap_or_else(PoisonError::into_inner);
        databases.iter().map(|(id, stats)| (Arc::clone(id), stats.sent.load(Ordering::Relaxed))).collect()
    }

    /// The text that Prometheus scrapes.
    pub fn text(&self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self.clone()));
        let mut text = String::new();
        // Writing to a String cannot fail; a name that the library refuses would show in the test below.
        let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        text
    }
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let status = self.status();
        let readings = status.readings;
        for (name, help, count) in [
            ("anmin_readings_received", "Readings that came in, and messages that gave none", readings.received),
            ("anmin_readings_evaluated", "Readings that were validated and handed to the rules", readings.evaluated),
            ("anmin_readings_duplicate", "Readings that repeated one before and changed nothing", readings.duplicate),
            ("anmin_messages_quarantined", "Messages of devices that the site does not know", readings.quarantined),
            ("anmin_messages_rejected", "Messages that could not be understood", readings.rejected),
            ("anmin_readings_silent", "Readings made here because a point fell silent", readings.silent),
            ("anmin_readings_stored", "Readings written to disk", status.stored.stored),
            (
                "anmin_readings_shed",
                "Readings given up because the disk was away or could not follow",
                status.stored.shed,
            ),
            (
                "anmin_readings_dropped",
                "Readings given up on disk, for want of room, before every database had them",
                status.stored.dropped,
            ),
            ("anmin_readings_syncs", "Commits of readings that waited for the disk", status.stored.synced),
            ("anmin_journal_commits", "Commits of the journal; each waits for the disk", status.journal.commits),
            ("anmin_journal_dropped", "Entries that never reached the journal", status.journal.dropped),
            ("anmin_messages_missing", "Messages that devices have counted and that did not come", readings.missing),
            ("anmin_messages_repeated", "Messages that were delivered again and had been judged", readings.repeated),
            ("anmin_possible_losses", "Times that a broker had lost our session", status.possible_losses),
        ] {
            let counter = ConstCounter::new(count);
            let metric = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            counter.encode(metric)?;
        }
        for (name, help, value) in [
            ("anmin_points", "Points of the site", status.points),
            ("anmin_devices", "Devices of the site", status.devices),
            ("anmin_rules", "Rules in force", status.rules),
            ("anmin_alarms_pending", "Conditions that wait for their on-delay", status.counts.pending),
            ("anmin_calls_live", "Calls of stations that are not over", status.counts.live_calls),
            ("anmin_readings_waiting", "Readings that the database has not taken yet", status.readings_waiting),
            ("anmin_orders_waiting", "Orders that no way out has taken yet", status.orders_waiting),
            (
                "anmin_clock_doubtful",
                "1 while the wall clock is behind what has been already",
                usize::from(status.clock_doubtful),
            ),
            ("anmin_readings_bytes", "Bytes in use in readings.db", status.stored.bytes as usize),
            ("anmin_journal_unwritten", "Entries in memory that the journal could not take", status.journal.unwritten),
            (
                "anmin_journal_reserve",
                "1 while there is room kept for a full disk",
                usize::from(status.journal.reserve),
            ),
            ("anmin_parts_in_trouble", "Parts of anmin or of its surroundings that are ill", status.troubles.len()),
        ] {
            let gauge = ConstGauge::new(value as i64);
            let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(metric)?;
        }
        let gauge = ConstGauge::new(0_i64);
        let (name, help) = ("anmin_part_in_trouble", "1 for each part that is ill, the gravest of them");
        let mut parts = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
        for trouble in status.troubles.iter().take(MOST_PARTS) {
            let labels = [("part", &*trouble.part), ("level", trouble.level.as_str())];
            ConstGauge::new(1_i64).encode(parts.encode_family(&labels)?)?;
        }
        let mut levels =
            encoder.encode_descriptor("anmin_alarms", "Alarms in force by level", None, gauge.metric_type())?;
        for level in Level::ALL {
            let labels = [("level", level.as_str())];
            ConstGauge::new(status.counts.at(level) as i64).encode(levels.encode_family(&labels)?)?;
        }
        let mut states =
            encoder.encode_descriptor("anmin_alarms_by_state", "Alarms by state", None, gauge.metric_type())?;
        for (state, count) in AlarmState::ALL.iter().zip(status.counts.by_state) {
            let labels = [("state", state.as_str())];
            ConstGauge::new(count as i64).encode(states.encode_family(&labels)?)?;
        }
        self.encode_pulse(&mut encoder)?;
        self.encode_upkeep(&mut encoder)?;
        self.encode_buses(&mut encoder)?;
        self.encode_orders(&mut encoder)?;
        self.encode_databases(&mut encoder, status.stored.stored)?;
        self.encode_backlogs(&mut encoder, &status)
    }
}

impl Figures {
    fn encode_pulse(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let seen = self.pulse();
        let failed = ConstCounter::new(seen.failed);
        let help = "Beats of the self-test that did not come through";
        failed.encode(encoder.encode_descriptor("anmin_pulse_failed", help, None, failed.metric_type())?)?;
        // Nothing until the first has come through: a zero would be a time and a speed that never were.
        let Some((at, took)) = seen.last else { return Ok(()) };
        for (name, help, seconds) in [
            ("anmin_pulse_last_success_timestamp", "When the self-test last came through", at.micros() as f64 / 1e6),
            ("anmin_pulse_latency", "How long it took from the queue to the end of the path", took.as_secs_f64()),
        ] {
            let gauge = ConstGauge::new(seconds);
            let metric = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), gauge.metric_type())?;
            gauge.encode(metric)?;
        }
        Ok(())
    }

    fn encode_upkeep(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Upkeep { certificates, backup } = self.upkeep.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let kind = ConstGauge::new(0.0).metric_type();
        let (name, help) = ("anmin_certificate_expiry_timestamp", "When the first certificate of a file ends");
        let mut family = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), kind)?;
        for (file, end) in certificates {
            ConstGauge::new(end as f64).encode(family.encode_family(&[("file", &*file)])?)?;
        }
        let (name, help) =
            ("anmin_backup_last_success_timestamp", "When a backup was last made; absent before the first");
        let metric = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), kind)?;
        match backup {
            Some(at) => ConstGauge::new(at.micros() as f64 / 1e6).encode(metric),
            None => Ok(()),
        }
    }

    fn encode_orders(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let ways_out = self.ways_out.lock().unwrap_or_else(PoisonError::into_inner).clone();
        type Count = fn(&Tally) -> &AtomicU64;
        let figures: [(&str, &str, Count); 3] = [
            ("anmin_orders_created", "Orders for a way out, those that the last run left included", |tally| {
                &tally.created
            }),
            ("anmin_orders_accepted", "Orders that the peer has taken", |tally| &tally.accepted),
            ("anmin_orders_dead_lettered", "Orders given up and kept", |tally| &tally.dead),
        ];
        for (name, help, count) in figures {
            let mut family = encoder.encode_descriptor(name, help, None, ConstCounter::new(0_u64).metric_type())?;
            for (id, tally) in &ways_out {
                let count = count(tally).load(Ordering::Relaxed);
                ConstCounter::new(count).encode(family.encode_family(&[("way_out", &**id)])?)?;
            }
        }
        let (name, help) = ("anmin_orders_pending", "Orders that the peer has not taken yet");
        let mut family = encoder.encode_descriptor(name, help, None, ConstGauge::new(0_i64).metric_type())?;
        for (id, tally) in &ways_out {
            let pending = tally.pending.load(Ordering::Relaxed) as i64;
            ConstGauge::new(pending).encode(family.encode_family(&[("way_out", &**id)])?)?;
        }
        Ok(())
    }

    fn encode_databases(&self, encoder: &mut DescriptorEncoder<'_>, stored: u64) -> Result<(), fmt::Error> {
        let databases = self.databases.lock().unwrap_or_else(PoisonError::into_inner).clone();
        type Count = fn(&Stats) -> u64;
        let figures: [(&str, &str, Count); 4] = [
            ("anmin_forward_created", "Readings for a database, those that the last run left included", |stats| {
                stats.before
            }),
            ("anmin_forward_accepted", "Readings that the database has taken", |stats| {
                stats.sent.load(Ordering::Relaxed)
            }),
            ("anmin_forward_refused", "Readings that the database refused for ever", |stats| {
                stats.refused.load(Ordering::Relaxed)
            }),
            ("anmin_forward_skipped", "Readings that cannot be said to a database", |stats| {
                stats.skipped.load(Ordering::Relaxed)
            }),
        ];
        for (n, (name, help, count)) in figures.into_iter().enumerate() {
            let mut family = encoder.encode_descriptor(name, help, None, ConstCounter::new(0_u64).metric_type())?;
            for (id, stats) in &databases {
                // What was stored in this run came on top of what waited.
                let count = count(stats) + if n == 0 { stored } else { 0 };
                ConstCounter::new(count).encode(family.encode_family(&[("database", &**id)])?)?;
            }
        }
        Ok(())
    }

    fn encode_backlogs(&self, encoder: &mut DescriptorEncoder<'_>, status: &Status) -> Result<(), fmt::Error> {
        let kind = ConstGauge::new(0.0).metric_type();
        type Gauge<'a> = (&'a str, &'a str, Option<&'a Unit>, &'a dyn Fn(&Database) -> Option<f64>);
        let age =
            |database: &Database| Some(database.oldest.map_or(0.0, |oldest| status.now.since(oldest).as_secs_f64()));
        let gauges: [Gauge<'_>; 5] = [
            ("anmin_forward_waiting", "Readings that the database has not taken yet", None, &|database| {
                Some(database.waiting as f64)
            }),
            ("anmin_forward_queue", "What is kept on disk for the database", Some(&Unit::Bytes), &|database| {
                Some(database.bytes as f64)
            }),
            ("anmin_forward_oldest_age", "Age of the oldest reading that waits", Some(&Unit::Seconds), &age),
            ("anmin_forward_rate", "Readings a second that the database has taken lately", None, &|database| {
                Some(database.rate)
            }),
            (
                "anmin_forward_catch_up",
                "How long until nothing old waits; absent while what waits does not grow less",
                Some(&Unit::Seconds),
                &|database| database.catch_up.map(|wait| wait.as_secs_f64()),
            ),
        ];
        for (name, help, unit, value) in gauges {
            let mut family = encoder.encode_descriptor(name, help, unit, kind)?;
            for database in &status.databases {
                let Some(value) = value(database) else { continue };
                ConstGauge::new(value).encode(family.encode_family(&[("database", &*database.id)])?)?;
            }
        }
        let (name, help) = ("anmin_forward_dropped", "Readings given up for want of room before the database had them");
        let mut family = encoder.encode_descriptor(name, help, None, ConstCounter::new(0_u64).metric_type())?;
        for database in &status.databases {
            ConstCounter::new(database.dropped).encode(family.encode_family(&[("database", &*database.id)])?)?;
        }
        let gaps = ConstGauge::new(status.gaps as i64);
        let help = "Unbroken stretches that were given up before every database had them";
        gaps.encode(encoder.encode_descriptor("anmin_forward_gaps", help, None, gaps.metric_type())?)
    }

    fn encode_buses(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let buses = self.buses.lock().unwrap_or_else(PoisonError::into_inner);
        let buses: Vec<(&str, Counters)> = buses.iter().map(|(id, counters)| (&**id, counters.get())).collect();
        let kind = ConstCounter::new(0_u64).metric_type();
        type Count = fn(&Counters) -> u64;
        let figures: [(&str, &str, Count); 8] = [
            ("anmin_modbus_requests", "Requests sent", |bus| bus.requests),
            ("anmin_modbus_answers", "Requests answered with values", |bus| bus.answers),
            ("anmin_modbus_silent", "Requests that nobody answered in time", |bus| bus.silent),
            ("anmin_modbus_garbled", "Damaged, wrong or foreign answers", |bus| bus.garbled),
            ("anmin_modbus_lost", "Requests whose connection broke", |bus| bus.lost),
            ("anmin_modbus_exceptions", "Requests answered with an exception", |bus| bus.exceptions),
            ("anmin_modbus_spikes", "Leaps of alarm points that a second look took back", |bus| bus.spikes),
            ("anmin_modbus_late_cycles", "Turns that came late because the bus was busy", |bus| bus.late_cycles),
        ];
        for (name, help, count) in figures {
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for (id, counters) in &buses {
                ConstCounter::new(count(counters)).encode(family.encode_family(&[("bus", *id)])?)?;
            }
        }
        Ok(())
    }
}

/// Keeps a repeated fault from filling the log: says it at once, then at most once a minute with the number in between.
#[derive(Debug, Default)]
pub struct Repeats {
    seen: HashMap<String, (Mono, u64)>,
}

/// How many like it were kept back; a field of the log that is left out where there were none.
pub type More = Option<u64>;

impl Repeats {
    const EVERY: Duration = Duration::from_secs(60);
    /// Bound of faults that are told apart. Whoever comes from another address each time is one of the others beyond it, and these
    /// are said together: however many there are, so many lines a minute and one.
    const MOST: usize = 1_000;
    const OTHERS: &'static str = "";

    /// `Some`: say it now, with how many more were kept back since it was last said, if any. `None`: keep it back.
    pub fn say(&mut self, key: &str, now: Mono) -> Option<More> {
        if let Some((last, held)) = self.seen.get_mut(key) {
            if now.since(*last) < Self::EVERY {
                *held += 1;
                return None;
            }
            *last = now;
            let held = std::mem::take(held);
            return Some((held > 0).then_some(held));
        }
        if self.seen.len() >= Self::MOST && key != Self::OTHERS {
            self.seen.retain(|key, (last, _)| key == Self::OTHERS || now.since(*last) < Self::EVERY);
            if self.seen.len() >= Self::MOST {
                return self.say(Self::OTHERS, now);
            }
        }
        self.seen.insert(key.to_owned(), (now, 0));
        Some(None)
    }
}

#[cfg(test)]
mod tests {
    use anmin_rules::rule::Text;

    use super::*;
    use crate::main_loop::query::Trouble;

    #[test]
    fn a_repeated_fault_is_said_once_a_minute_with_its_count() {
        let mut repeats = Repeats::default();
        let at = |seconds: u64| Mono::default().plus(Duration::from_secs(seconds));
        let said: Vec<Option<More>> = [0, 1, 2, 59, 60, 61, 200].map(|s| repeats.say("broker", at(s))).to_vec();
        assert_eq!(said, [Some(None), None, None, None, Some(Some(3)), None, Some(Some(1))]);
        assert_eq!(repeats.say("other", at(61)), Some(None));
    }

    #[test]
    fn who_comes_from_another_address_each_time_fills_no_log() {
        let mut repeats = Repeats::default();
        let mut said = |second: u64| {
            let now = Mono::default().plus(Duration::from_secs(second));
            (0..5_000).filter(|n| repeats.say(&format!("fd00::{second}:{n}"), now).is_some()).count()
        };
        assert_eq!([said(0), said(30), said(59)], [1_001, 0, 0]);
        assert_eq!(said(60), 1_000, "another minute");
    }

    #[test]
    fn figures_read_as_prometheus_text() {
        let figures = Figures::default();
        let mut status = Status { points: 7, ..Status::default() };
        status.readings.received = 42;
        status.stored.stored = 30;
        status.counts.by_level = [0, 1, 0, 2];
        status.databases.push(Database {
            id: Arc::from("tsdb"),
            waiting: 12,
            bytes: 340,
            oldest: Some(Wall::from_millis(-90_000)),
            rate: 2.5,
            catch_up: None,
            dropped: 4,
        });
        status.gaps = 1;
        let part = Arc::from("sparkplug:site/group/a \"b\"");
        status.troubles.push(Trouble { part, level: Level::Yellow, message: Text::default() });
        figures.set(status);
        figures.bus(&Arc::from("plant")).set(Counters { garbled: 3, ..Counters::default() });
        let tally = Arc::new(Tally::default());
        tally.created.store(5, Ordering::Relaxed);
        tally.pending.store(2, Ordering::Relaxed);
        figures.way_out(&Arc::from("office"), &tally);
        figures.database(&Arc::from("tsdb"), &Arc::new(Stats { before: 7, ..Stats::default() }));
        let text = figures.text();
        for line in [
            "# TYPE anmin_readings_received counter",
            "anmin_readings_received_total 42",
            "anmin_points 7",
            "anmin_alarms{level=\"red\"} 2",
            "anmin_modbus_garbled_total{bus=\"plant\"} 3",
            "anmin_orders_created_total{way_out=\"office\"} 5",
            "anmin_orders_pending{way_out=\"office\"} 2",
            "anmin_forward_created_total{database=\"tsdb\"} 37",
            "anmin_forward_waiting{database=\"tsdb\"} 12.0",
            "anmin_forward_queue_bytes{database=\"tsdb\"} 340.0",
            "anmin_forward_oldest_age_seconds{database=\"tsdb\"} 90.0",
            "anmin_forward_rate{database=\"tsdb\"} 2.5",
            "anmin_forward_dropped_total{database=\"tsdb\"} 4",
            "anmin_forward_gaps 1",
            "anmin_part_in_trouble{part=\"sparkplug:site/group/a \\\"b\\\"\",level=\"yellow\"} 1",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("anmin_forward_catch_up_seconds{"), "nobody knows when\n{text}");
    }

    #[test]
    fn text_from_outside_stays_on_its_line() {
        assert_eq!(quoted("a\nb\u{1b}[31m"), "\"a\\nb\\u{1b}[31m\"");
        assert!(quoted(&"长".repeat(1_000)).chars().count() < 300);
    }
}
