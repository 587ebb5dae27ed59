//! What anmin is held against: the least that a program must do to take readings from a broker, and the least that it must
//! do to raise an alarm. They remember nothing and run no rule, and store nothing but, where asked to, the alarm itself.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::time::{Duration, Instant};

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use serde::Deserialize;

use super::cpu_seconds;

/// What a yardstick does with each message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    Count,
    /// Parse, and keep the last of each topic. What it costs is counted once a topic comes for the second time.
    Keep,
    /// Parse, compare, publish an alarm where the limit is crossed.
    Alarm,
    /// The same, with the alarm safe on the disk before it is published: what a durable alarm costs at least here.
    SafeAlarm,
}

impl Work {
    const WORDS: [(&'static str, Self); 4] =
        [("count", Self::Count), ("keep", Self::Keep), ("alarm", Self::Alarm), ("safe-alarm", Self::SafeAlarm)];

    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, work)| *work == self).expect("each has its word").0
    }

    pub fn named(word: &str) -> Self {
        Self::WORDS.iter().find(|(other, _)| *other == word).expect("a known word").1
    }
}

const LIMIT: f64 = 50.0;

#[derive(Deserialize)]
struct Message {
    v: f64,
    ts: i64,
    seq: u64,
}

/// Takes messages until `count` have come; prints "up", then seconds from the first to the last and CPU seconds.
pub fn run(port: u16, qos: u8, work: Work, count: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut options = MqttOptions::new(format!("yardstick-{work:?}"), "127.0.0.1", port);
        options.set_keep_alive(Duration::from_secs(20)).set_max_packet_size(1 << 20, 1 << 20).set_inflight(60_000);
        let (client, mut events) = AsyncClient::new(options, 10_000);
        let qos = if qos == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
        client.subscribe("bench/+/up", qos).await.expect("the client lives");
        let (mut taken, mut first) = (0_u64, None);
        let mut cpu = 0.0;
        let pid = std::process::id();
        let mut kept: HashMap<String, Message> = HashMap::new();
        let mut journal = (work == Work::SafeAlarm).then(journal);
        while taken < count {
            match events.poll().await.expect("the broker stays") {
                Event::Incoming(Packet::SubAck(_)) => println!("up"),
                Event::Incoming(Packet::Publish(publish)) => {
                    if first.is_none() && (work != Work::Keep || kept.contains_key(&publish.topic)) {
                        (first, cpu) = (Some(Instant::now()), cpu_seconds(pid));
                    }
                    taken += 1;
                    match work {
                        Work::Count => {}
                        Work::Keep => keep(&mut kept, publish),
                        Work::Alarm | Work::SafeAlarm => alarm(&client, &publish, journal.as_mut()),
                    }
                }
                _ => {}
            }
        }
        let seconds = first.map_or(0.0, |first| first.elapsed().as_secs_f64());
        println!("done {seconds} {}", cpu_seconds(pid) - cpu);
    });
}

/// Beside the bench, where the sites of the bench lie too. Gone as soon as nobody has it open.
fn journal() -> File {
    let own = std::env::current_exe().expect("a program knows where it lies");
    let path = own.with_file_name(format!("yardstick-{}.journal", std::process::id()));
    let file = File::options().create_new(true).append(true).open(&path).expect("the folder can be written");
    std::fs::remove_file(&path).expect("it was made just now");
    file
}

fn keep(kept: &mut HashMap<String, Message>, publish: rumqttc::Publish) {
    if let Ok(message) = serde_json::from_slice(&publish.payload) {
        kept.insert(publish.topic, message);
    }
}

fn alarm(client: &AsyncClient, publish: &rumqttc::Publish, journal: Option<&mut File>) {
    let Ok(message) = serde_json::from_slice::<Message>(&publish.payload) else { return };
    if message.v <= LIMIT {
        return;
    }
    let Some(device) = publish.topic.split('/').nth(1) else { return };
    let text = format!(
        r#"{{"type":"alarm","device":"{device}","point":"{device}/v","value":{},"source_time":{},"sequence":{}}}"#,
        message.v, message.ts, message.seq
    );
    if let Some(journal) = journal {
        journal.write_all(text.as_bytes()).and_then(|()| journal.sync_data()).expect("the disk takes it");
    }
    // A full queue would show as an alarm that never comes.
    let _ = client.try_publish(format!("yardstick/alarm/{device}"), QoS::AtLeastOnce, false, text);
}
