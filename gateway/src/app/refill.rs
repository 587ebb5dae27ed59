//! What windows knew before a restart, from history: read by a thread of its own, so that neither the start nor the main
//! loop waits for it.
//!
//! Those of a start come with the longest first. Reading ends for good when it has taken [`MOST_TIME`] in all: on a site where that is not
//! enough the others fill by themselves, as they would without it.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use anmin_rules::set::{Past, Refill};
use anmin_sensors::time::{Now, Wall};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::main_loop::Input;
use crate::store::{History, StoreError};

const MOST_TIME: Duration = Duration::from_secs(30);

/// Readings of one point at most, the newest.
const MOST_READINGS: usize = 50_000;

/// Starts the thread. `alive` is when the run before this one was last known to live. It ends when the main loop has.
pub fn start(
    mut history: History,
    alive: Option<Wall>,
    clock: Clock,
    inputs: mpsc::Sender<Input>,
) -> Result<Sender<Vec<Refill>>, String> {
    let (ask, asked) = channel();
    let work = move || work(&mut history, alive, &clock, &inputs, &asked);
    let thread = thread::Builder::new().name("anmin-refill".to_owned()).spawn(work);
    thread.map(|_| ask).map_err(|error| format!("cannot start the thread that refills windows: {error}"))
}

fn work(
    history: &mut History,
    alive: Option<Wall>,
    clock: &Clock,
    inputs: &mpsc::Sender<Input>,
    asked: &Receiver<Vec<Refill>>,
) {
    let (mut spent, mut refilled, mut left) = (Duration::ZERO, 0_usize, 0_usize);
    for refills in asked {
        for refill in refills {
            if spent >= MOST_TIME {
                left += 1;
                if left == 1 {
                    warn!(
                        "windows of {refilled} rules and points were refilled from history; the others fill by themselves"
                    );
                }
                continue;
            }
            let now = clock.now();
            match past(history, refill, alive, now) {
                Ok(past) if past.readings.is_empty() => {}
                Ok(past) => {
                    refilled += 1;
                    if inputs.blocking_send(Input::Past(Box::new(past))).is_err() {
                        return;
                    }
                }
                Err(problem) => {
                    info!("windows cannot be refilled from history and fill by themselves: {problem}");
                    return;
                }
            }
            spent += clock.now().mono.since(now.mono);
        }
    }
}

fn past(history: &mut History, of: Refill, alive: Option<Wall>, now: Now) -> Result<Past, StoreError> {
    // What held when the window began was said before.
    let back = of.over + of.over.min(Duration::from_secs(3_600));
    let from = Wall::from_micros(now.wall.micros().saturating_sub_unsigned(back.as_micros() as u64));
    let mut readings = Vec::new();
    for (n, point) in of.points.iter().enumerate() {
        let all = history.raw(point.as_str(), from, now.wall)?;
        let newest = all.len().saturating_sub(MOST_READINGS);
        readings.extend(all.into_iter().skip(newest).map(|(at, value, quality)| (n, at, value, quality)));
    }
    readings.sort_by_key(|(_, at, ..)| *at);
    let until = alive.unwrap_or(from);
    Ok(Past { of, readings, until })
}
