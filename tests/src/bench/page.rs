//! The page of points with 5,000 points whose values stream in: the longest that Debian's Chromium was busy at a stretch while they
//! did, and while an officer scrolls, filters and opens one. More than [`LONGEST_MS`] is a failure.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::load::{Load, evenly};
use super::subject::{Shape, Subject, site};

const POINTS: u32 = 5_000;
const READINGS_A_SECOND: u64 = 5_000;
/// Longer, and a person notices.
const LONGEST_MS: u32 = 200;
const SHAPE: Shape = Shape { rules: 1, devices: POINTS, broker: None, qos: 0 };

pub fn run() {
    println!(
        "\nThe page with {POINTS} points, each with a value a second: the longest task of the browser, wanted: {LONGEST_MS} ms"
    );
    let subject = Subject::anmin_on(site(SHAPE), SHAPE);
    let daemon = subject.daemon().expect("it is anmin");
    let port = daemon.broker.expect("it has a broker").port();
    let over = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&over);
    let load = std::thread::spawn(move || {
        let load = Load { port, qos: 0, devices: POINTS, connections: 1 };
        let goes_on = |_| !ended.load(Ordering::Relaxed);
        drop(evenly(load, READINGS_A_SECOND, goes_on, |_, _| false, |_| {}));
    });
    let web = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gateway/web");
    let told = Command::new("node")
        .arg(web.join("node_modules/vitest/vitest.mjs"))
        .args(["run", "--config", "e2e/vitest.config.ts", "points"])
        .current_dir(&web)
        .env("ANMIN_URL", format!("http://{}", daemon.web))
        .env("ANMIN_LONGEST_MS", LONGEST_MS.to_string())
        .stdin(Stdio::null())
        .status();
    over.store(true, Ordering::Relaxed);
    load.join().expect("nobody panics in it");
    assert!(told.is_ok_and(|status| status.success()), "the page is not smooth, or was not looked at");
}
