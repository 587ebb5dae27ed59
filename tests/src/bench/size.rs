//! Memory, and how long it takes from nothing to the first judged reading.

use std::time::Instant;

use super::load::{Load, flood};
use super::median;
use super::subject::{Shape, Subject, site};
use crate::daemon::anmin;

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}

/// Resident memory idle and with many devices that have all spoken; start; check.
pub fn run() {
    println!("\nSize and start");
    let mut resident = Vec::new();
    for devices in [100, 100_000] {
        let mut subject = Subject::anmin(Shape { rules: 1, devices, broker: None, qos: 1 });
        let daemon = subject.daemon().expect("it is anmin");
        let idle = daemon.resident();
        let port = daemon.broker.expect("it has a broker").port();
        // As many readings for few devices as for many: what readings cost is not what a device costs.
        let count = 200_000;
        flood(Load { port, qos: 1, devices, connections: 4 }, count);
        // All of it judged, on the disk and forwarded: what is under way is no device's.
        subject.settle(count);
        let spoken = subject.daemon().expect("it is anmin").resident();
        println!(
            "{devices:>8} devices: {:>7.1} MiB idle, {:>7.1} MiB when all have spoken",
            mebibytes(idle),
            mebibytes(spoken)
        );
        resident.push((devices, spoken));
    }
    let [(few, small), (many, large)] = resident[..] else { return };
    println!("         a device: {:>7.0} bytes", (large.saturating_sub(small)) as f64 / f64::from(many - few));

    let mut first = Vec::new();
    for _ in 0..5 {
        let start = Instant::now();
        let mut subject = Subject::anmin(Shape { rules: 1, devices: 1_000, broker: None, qos: 1 });
        let port = subject.daemon().and_then(|daemon| daemon.broker).expect("it has a broker").port();
        flood(Load { port, qos: 1, devices: 1, connections: 1 }, 1);
        subject.wait(1);
        first.push(start.elapsed().as_secs_f64() * 1e3);
    }
    println!(
        "start of the process to the first judged reading, 1,000 devices: {:.0} ms (site files written included)",
        median(first)
    );

    let ten_thousand = site(Shape { rules: 10, devices: 10_000, broker: None, qos: 1 });
    let path = ten_thousand.folder().display().to_string();
    let checks = (0..5).map(|_| {
        let start = Instant::now();
        let output = anmin(&["check", &path]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        start.elapsed().as_secs_f64() * 1e3
    });
    println!("check of 10,000 devices: {:.0} ms", median(checks.collect()));

    println!("wanted: idle at most 25 MB, at most 1 KB a device, first judged reading within 1 s, check within 1 s");
}
