//! Memory with many user information transmission devices (GB/T 26875.3) connected at once, beside the least loop that accepts
//! them and confirms what they say. `make bench BENCH=panels`.
//!
//! Each device dials in, sends the state of one part of its own, and has its confirm before it counts; then it stays and says
//! nothing. Subject, yardstick and devices are processes of their own.

use std::time::{Duration, Instant};

use anmin_sensors::decode::gbt26875::{Address, CONFIRM, Frame, Next, SEND, next};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::task::JoinSet;

use super::cpu_seconds;
use crate::daemon::{Daemon, resident};
use crate::peers::{Peer, free_port, listening};
use crate::site::Site;

const DEVICES: u64 = 10_000;
/// Connections that are made at once.
const AT_ONCE: u64 = 100;
/// Words by which the bench runs itself.
pub const LOAD: &str = "panels-load";
pub const YARDSTICK: &str = "panels-yardstick";

/// Resident memory before and with all of them, of the subject and of the yardstick.
pub fn run() {
    println!("\n{DEVICES} transmission devices connected at once, each with one part that has spoken");
    println!(
        "{:<12}{:>14}{:>14}{:>16}{:>14}{:>12}",
        "", "before, MiB", "with all, MiB", "bytes a device", "connected, s", "CPU, s"
    );
    let own = std::env::current_exe().expect("the bench knows where it lies").display().to_string();
    let port = free_port();
    let yardstick = Peer::start(&own, &[YARDSTICK, &port.to_string(), "0"]);
    listening(port, "the yardstick");
    measure("yardstick", &own, port, yardstick.pid());
    drop(yardstick);

    let port = free_port();
    let site = Site::new("bench-panels", "");
    site.write(
        "anmin.d/panels.toml",
        &format!(
            "[storage]\ndir = \"state\"\n[broker]\nlisten = \"127.0.0.1:0\"\n[[gbt26875]]\nid = \"panels\"\n\
             listen = \"127.0.0.1:{port}\"\nmax_connections = 11000\nsilent_after = \"1h\"\n  [[gbt26875.mapping]]\n  \
             preset = \"gbt26875\"\n  unknown = \"provision\"\n  location = {{ place = \"b1\" }}\n"
        ),
    );
    let daemon = Daemon::start(site.folder());
    listening(port, "anmin");
    measure("anmin", &own, port, daemon.pid());
    println!("wanted: anmin with all of them at most 200 MiB");
}

fn measure(name: &str, own: &str, port: u16, pid: u32) {
    let mebibytes = |bytes: u64| bytes as f64 / 1_048_576.0;
    let (before, cpu, start) = (resident(pid), cpu_seconds(pid), Instant::now());
    let mut load = Peer::start(own, &[LOAD, &port.to_string(), &DEVICES.to_string()]);
    load.until("all are confirmed");
    let (took, with_all) = (start.elapsed(), resident(pid));
    println!(
        "{name:<12}{:>14.1}{:>14.1}{:>16.0}{:>14.1}{:>12.1}",
        mebibytes(before),
        mebibytes(with_all),
        (with_all.saturating_sub(before)) as f64 / DEVICES as f64,
        took.as_secs_f64(),
        cpu_seconds(pid) - cpu,
    );
}

/// The devices: prints a line when each of them has its confirm, and keeps them connected until it is ended.
pub fn load(port: u16, count: u64) {
    Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(async {
        let mut connected = Vec::new();
        for first in (0..count).step_by(AT_ONCE as usize) {
            let devices: JoinSet<TcpStream> = (first..count.min(first + AT_ONCE)).map(|n| device(port, n)).collect();
            connected.extend(devices.join_all().await);
        }
        println!("all are confirmed: {}", connected.len());
        tokio::time::sleep(Duration::from_secs(3_600)).await;
    });
}

async fn device(port: u16, n: u64) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("somebody listens");
    // Type 2, one object: part 1 of system 1-1, an optical smoke detector, that is well; no text, no time of its own.
    let mut unit = vec![2, 1, 1, 1, 42, 1, 0, 0, 0, 1, 0];
    unit.resize(unit.len() + 31, 0);
    unit.extend([0, 30, 9, 1, 3, 26]);
    let address = |number: u64| Address::parse(&number.to_string()).expect("six bytes");
    let (source, destination) = (address(100_000 + n), address(1));
    let frame =
        Frame { serial: 0, version: [1, 1], time: [0, 30, 9, 1, 3, 26], source, destination, command: SEND, unit };
    stream.write_all(&frame.write()).await.expect("it takes a frame");
    let mut input = Vec::new();
    loop {
        assert!(stream.read_buf(&mut input).await.expect("it stays") > 0, "device {n} was let go");
        match next(&input) {
            Next::Frame(frame, _) if frame.command == CONFIRM => return stream,
            Next::Frame(_, length) | Next::Skip(length, _) => drop(input.drain(..length)),
            Next::More => {}
        }
    }
}

/// Accepts, confirms, remembers nothing; until it is ended.
pub fn yardstick(port: u16) {
    Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("the port is free");
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(confirm(stream));
        }
    });
}

async fn confirm(mut stream: TcpStream) {
    let mut input = Vec::new();
    while stream.read_buf(&mut input).await.is_ok_and(|read| read > 0) {
        while let Next::Frame(frame, length) = next(&input) {
            input.drain(..length);
            if stream.write_all(&frame.answer(CONFIRM, frame.time).write()).await.is_err() {
                return;
            }
        }
    }
}
