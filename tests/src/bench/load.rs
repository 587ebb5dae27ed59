//! The load: many devices' messages as fast as the other side takes them, or at an even rate with some that cross the
//! limit. Plain sockets and packets made beforehand, so that it costs little beside what it loads.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What is published, by whom, and how.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub port: u16,
    pub qos: u8,
    pub devices: u32,
    pub connections: u32,
}

/// Messages that a connection has in flight at most.
const WINDOW: u64 = 1_000;
/// Below the yardstick's limit, and above it.
const QUIET: &str = "12.5";
/// One round after the other, so that whoever looks now and then sees a change.
const QUIETS: [&str; 7] = [QUIET, "12.6", "12.4", "12.7", "12.3", "12.8", "12.2"];
const CROSSES: &str = "60.0";
/// Readings that cross the limit in one second of [`paced`], whatever the rate.
pub const CROSSINGS: u64 = 50;

/// A device's id. All are of one length: what a longer name costs is not what more devices cost.
pub fn device(n: u32) -> String {
    format!("d{n:06}")
}

pub fn topic(n: u32) -> String {
    format!("bench/{}/up", device(n))
}

/// A 3.1.1 PUBLISH of about 110 bytes of payload.
fn packet(out: &mut Vec<u8>, qos: u8, id: u16, device: u32, value: &str, ts: u64, seq: u64) {
    let topic = topic(device);
    let payload = format!(
        r#"{{"v":{value},"ts":{ts},"seq":{seq},"battery":87,"rssi":-71,"fw":"1.4.2","model":"bench detector","n":1}}"#
    );
    let length = 2 + topic.len() + if qos > 0 { 2 } else { 0 } + payload.len();
    out.push(0x30 | qos << 1);
    out.extend([(length & 0x7F) as u8 | 0x80, (length >> 7) as u8]);
    out.extend((topic.len() as u16).to_be_bytes());
    out.extend(topic.as_bytes());
    if qos > 0 {
        out.extend(id.to_be_bytes());
    }
    out.extend(payload.as_bytes());
}

/// A clean 3.1.1 session.
pub fn connect(port: u16, id: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the broker listens");
    stream.set_nodelay(true).expect("a TCP socket has this option");
    let mut packet = vec![0x10, 12 + id.len() as u8, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, id.len() as u8];
    packet.extend(id.as_bytes());
    stream.write_all(&packet).expect("the broker reads");
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).expect("the broker answers");
    assert_eq!(connack[3], 0, "the broker takes the load");
    stream
}

pub fn wall_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| now.as_millis() as u64)
}

/// Sends `count` messages as fast as they are taken; with QoS 1 returns when all are acknowledged.
pub fn flood(load: Load, count: u64) {
    Flood::connect(load).send(count);
}

/// The connections of a flood. They stay when all has been sent, and the next flood goes on where it ended: what the broker
/// knows of a connection it still knows, and no device counts on without having been heard.
pub struct Flood {
    load: Load,
    /// With how many messages each has sent.
    connections: Vec<(TcpStream, u64)>,
    /// Where time stamps and counts began.
    start: u64,
}

impl Flood {
    pub fn connect(load: Load) -> Self {
        let id = |n| format!("bench-{n}-{}", std::process::id());
        let connections = (0..load.connections).map(|n| (connect(load.port, &id(n)), 0)).collect();
        Self { load, connections, start: wall_ms() }
    }

    /// As [`flood`].
    pub fn send(&mut self, count: u64) {
        let (load, start) = (self.load, self.start);
        std::thread::scope(|scope| {
            for (n, (stream, sent)) in (0..).zip(&mut self.connections) {
                let until = *sent + count / u64::from(load.connections);
                scope.spawn(move || send_on(stream, load, n, start, sent, until));
            }
        });
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        for (stream, _) in &mut self.connections {
            // In order, so that the broker reads all before the end of the connection. It may have gone before.
            let _ = stream.write_all(&[0xE0, 0]);
        }
    }
}

fn send_on(stream: &mut TcpStream, load: Load, connection: u32, start: u64, sent: &mut u64, until: u64) {
    let devices = (load.devices / load.connections).max(1);
    let mut acknowledged = *sent;
    let mut acks = vec![0; 64 << 10];
    let mut odd = 0;
    let mut out = Vec::with_capacity(64 << 10);
    while acknowledged < until {
        let room = if load.qos == 0 { 500 } else { (WINDOW - (*sent - acknowledged)).min(500) };
        out.clear();
        for _ in 0..room.min(until - *sent) {
            let device = connection * devices + (*sent % u64::from(devices)) as u32;
            let id = (*sent % 60_000) as u16 + 1;
            let round = *sent / u64::from(devices);
            packet(&mut out, load.qos, id, device, QUIET, start + round, start + round);
            *sent += 1;
        }
        stream.write_all(&out).expect("the broker reads");
        if load.qos == 0 {
            acknowledged = *sent;
        } else if *sent > acknowledged {
            let read = stream.read(&mut acks).expect("the broker answers");
            assert!(read > 0, "the broker keeps the connection");
            acknowledged += (odd + read as u64) / 4;
            odd = (odd + read as u64) % 4;
        }
    }
}

/// From the publish of a reading that crosses the limit to the alarm message about it, in milliseconds, sorted.
#[derive(Debug, Default)]
pub struct Latencies {
    pub ms: Vec<f64>,
    /// Readings that crossed.
    pub crossed: usize,
}

/// Publishes `rate` readings a second for `length`; [`CROSSINGS`] of them cross the limit, each device is back with its
/// next. Alarm messages are looked for on `alarms`.
pub fn paced(load: Load, rate: u64, length: Duration, alarms: &str) -> Latencies {
    type Sent = Arc<Mutex<HashMap<(u32, u64), Instant>>>;
    let sent: Sent = Arc::default();
    let found: Arc<Mutex<Vec<f64>>> = Arc::default();
    let mut listener = subscribe(load.port, alarms);
    let (known, times) = (Arc::clone(&sent), Arc::clone(&found));
    let listening = std::thread::spawn(move || {
        let mut buffer = Vec::new();
        let mut chunk = vec![0; 256 << 10];
        while let Ok(read) = listener.read(&mut chunk) {
            if read == 0 {
                break;
            }
            let now = Instant::now();
            buffer.extend_from_slice(&chunk[..read]);
            let used = publishes(&buffer, |payload| {
                if let Some(key) = about(payload)
                    && let Some(at) = known.lock().expect("nobody panics with it").remove(&key)
                {
                    times.lock().expect("nobody panics with it").push((now - at).as_secs_f64() * 1e3);
                }
            });
            buffer.drain(..used);
        }
    });
    let every = rate / CROSSINGS;
    let mut crossed = 0;
    // Devices take turns, so that alarms come evenly.
    let crosses = |device: u32, round: u64| (round + u64::from(device)) % every == every / 2;
    let stream = evenly(
        load,
        rate,
        |so_far| so_far < length,
        crosses,
        |crossing| {
            let now = Instant::now();
            crossed += crossing.len();
            sent.lock().expect("nobody panics with it").extend(crossing.into_iter().map(|key| (key, now)));
        },
    );
    // The last alarms may still be on their way.
    let deadline = Instant::now() + Duration::from_secs(3);
    while found.lock().expect("nobody panics with it").len() < crossed && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = stream.shutdown(std::net::Shutdown::Both);
    drop(listening);
    let mut ms = std::mem::take(&mut *found.lock().expect("nobody panics with it"));
    ms.sort_by(f64::total_cmp);
    Latencies { ms, crossed }
}

/// Publishes `rate` readings a second while `goes_on`: device after device, round after round. `crosses` says which cross the
/// limit; `sending` hears of those, by device and count, just before they go. Gives the connection, still open.
pub fn evenly(
    load: Load,
    rate: u64,
    goes_on: impl Fn(Duration) -> bool,
    crosses: impl Fn(u32, u64) -> bool,
    mut sending: impl FnMut(Vec<(u32, u64)>),
) -> TcpStream {
    let mut stream = connect(load.port, &format!("bench-paced-{}", std::process::id()));
    let mut acks = stream.try_clone().expect("a socket can be read elsewhere");
    std::thread::spawn(move || {
        let mut chunk = vec![0; 64 << 10];
        while acks.read(&mut chunk).is_ok_and(|read| read > 0) {
            // Many at once: woken by each, it would take the place of what is measured.
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    // Counts go on from one load to the next.
    let first = wall_ms();
    let start = Instant::now();
    let mut n = 0_u64;
    let mut out = Vec::new();
    loop {
        let elapsed = start.elapsed();
        if !goes_on(elapsed) {
            break;
        }
        // What is due by now, in one write: the load never falls behind by waiting for itself.
        let due = (elapsed.as_secs_f64() * rate as f64) as u64;
        out.clear();
        let mut crossing = Vec::new();
        let ts = wall_ms();
        while n < due {
            let (device, round) = ((n % u64::from(load.devices)) as u32, n / u64::from(load.devices));
            let grave = crosses(device, round);
            let quiet = QUIETS[(round % QUIETS.len() as u64) as usize];
            let value = if grave { CROSSES } else { quiet };
            packet(&mut out, load.qos, (n % 60_000) as u16 + 1, device, value, ts, first + round);
            if grave {
                crossing.push((device, first + round));
            }
            n += 1;
        }
        sending(crossing);
        stream.write_all(&out).expect("the broker reads");
        std::thread::sleep(Duration::from_micros(500));
    }
    stream
}

fn subscribe(port: u16, filter: &str) -> TcpStream {
    let mut stream = connect(port, &format!("bench-alarms-{}", std::process::id()));
    let mut packet = vec![0x82, 5 + filter.len() as u8, 0, 1, 0, filter.len() as u8];
    packet.extend(filter.as_bytes());
    packet.push(0);
    stream.write_all(&packet).expect("the broker reads");
    let mut suback = [0; 5];
    stream.read_exact(&mut suback).expect("the broker answers");
    assert_eq!(suback[0], 0x90, "nothing comes before the SUBACK");
    stream
}

/// Hands each whole QoS 0 publish's payload to `take`; gives how many bytes were used.
fn publishes(buffer: &[u8], mut take: impl FnMut(&[u8])) -> usize {
    let mut used = 0;
    while let Some(rest) = buffer.get(used..)
        && rest.len() >= 2
    {
        let (mut length, mut at) = (0, 1);
        loop {
            let Some(byte) = rest.get(at) else { return used };
            length |= usize::from(byte & 0x7F) << (7 * (at - 1));
            at += 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let Some(body) = rest.get(at..at + length) else { return used };
        if rest[0] >> 4 == 3 {
            let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
            take(&body[2 + topic..]);
        }
        used += at + length;
    }
    used
}

/// Device and sequence that an alarm message names; the first time it does.
fn about(payload: &[u8]) -> Option<(u32, u64)> {
    let text = std::str::from_utf8(payload).ok()?;
    let after = |key: &str| text.split_once(key).map(|(_, rest)| rest);
    let device = after("\"device\":\"d")?.split('"').next()?.parse().ok()?;
    let sequence = after("\"sequence\":")?.split([',', '}']).next()?.parse().ok()?;
    Some((device, sequence))
}
