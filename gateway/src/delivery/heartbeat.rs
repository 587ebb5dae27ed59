//! The dead man's message upstream: what tells the emergency office that the box itself has gone silent.
//!
//! A heartbeat leaves with every third beat of the self-test that came through ([`crate::pulse`]), so every
//! [`EVERY`]; no timer sends it. It carries a sequence number, the alarms in force and what is in trouble. A receiver that
//! has heard none for 100 s must take the box for dead (the longest that a fault of a fire alarm system may stay unknown,
//! GB 16806). It is no order: it is not written down, and never sent again.

use std::sync::Arc;
use std::time::Duration;

use anmin_sensors::time::Wall;
use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::{Carrier, Site, event};
use crate::clock::Clock;
use crate::main_loop::query::Status;
use crate::pulse;
use crate::telemetry::Figures;

/// Beats of the self-test to one heartbeat.
const BEATS: u64 = 3;

/// Whether a heartbeat is due with this beat of the self-test.
pub fn is_due(beat: u64) -> bool {
    beat % BEATS == 1
}

/// From heartbeat to heartbeat.
pub const EVERY: Duration = Duration::from_secs(BEATS * pulse::EVERY.as_secs());

/// One may take so long; the next is due soon.
pub const LIMIT: Duration = Duration::from_secs(10);

/// What a heartbeat says.
#[derive(Debug)]
pub struct Heartbeat<'a> {
    /// Counts from 1 at each start; with `started` it tells a gap from a restart.
    pub sequence: u64,
    pub at: Wall,
    pub started: Wall,
    pub status: &'a Status,
    /// Where it is one of a subscription: whose, and the id of the last event that was told.
    pub told: Option<(&'a str, String)>,
}

/// Sends heartbeats by one way out. `beats` is what [`pulse::Watch`] counts; the task ends with it.
pub fn spawn<C: Carrier>(
    carrier: Arc<C>,
    channel: Arc<str>,
    site: Site,
    clock: Clock,
    figures: Figures,
    mut beats: watch::Receiver<u64>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let started = clock.now().wall;
        let (mut sequence, mut is_well) = (0, true);
        while beats.changed().await.is_ok() {
            if !is_due(*beats.borrow_and_update()) {
                continue;
            }
            sequence += 1;
            let status = figures.status();
            let beat = Heartbeat { sequence, at: clock.now().wall, started, status: &status, told: None };
            let document = Bytes::from(event::heartbeat(&site, &beat));
            let id = format!("{}/{}/heartbeat/{sequence}", site.id, started.micros());
            let told = tokio::time::timeout(LIMIT, carrier.tell_alive(&id, document)).await;
            let failure = match told {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some(format!("no answer within {LIMIT:?}")),
            };
            match &failure {
                Some(why) if is_well => warn!(way_out = &*channel, "no heartbeat gets out: {why}"),
                None if !is_well => info!(way_out = &*channel, "heartbeats get out again"),
                _ => {}
            }
            is_well = failure.is_none();
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use anmin_rules::order::Order;

    use super::*;
    use crate::delivery::{DeliveryError, Receipt};
    use crate::samples;

    struct Told(Mutex<Vec<(String, serde_json::Value)>>);

    impl Carrier for Told {
        async fn carry(&self, _: &Order) -> Result<Receipt, DeliveryError> {
            Err(DeliveryError::Never("this one takes no orders".to_owned()))
        }

        async fn tell_alive(&self, id: &str, document: Bytes) -> Result<(), DeliveryError> {
            let json = serde_json::from_slice(&document).expect("it is JSON");
            let mut told = self.0.lock().expect("nobody panics with it");
            told.push((id.to_owned(), json));
            // The second gets lost: the third goes out all the same.
            if told.len() == 2 { Err(DeliveryError::Retry("away".to_owned())) } else { Ok(()) }
        }
    }

    #[tokio::test]
    async fn every_third_beat_that_came_through_is_told_and_nothing_without_one() {
        let carrier = Arc::new(Told(Mutex::default()));
        let (count, beats) = watch::channel(0);
        let clock = Clock::manual(samples::RAISED);
        let task = spawn(Arc::clone(&carrier), "office".into(), samples::site(), clock, Figures::default(), beats);
        for beat in 1..=9_usize {
            count.send_replace(beat as u64);
            // Until it has taken this one: on the one thread of this test a few turns are enough, and more do no harm.
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            assert_eq!(carrier.0.lock().expect("nobody panics with it").len(), beat.div_ceil(3), "after beat {beat}");
        }
        drop(count);
        task.await.expect("it ends with the beats");
        let told = carrier.0.lock().expect("nobody panics with it");
        let sequences: Vec<_> = told.iter().map(|(_, json)| json["sequence"].as_u64()).collect();
        assert_eq!(sequences, [Some(1), Some(2), Some(3)]);
        let ids: std::collections::BTreeSet<_> = told.iter().map(|(id, _)| id).collect();
        assert_eq!(ids.len(), 3, "no id twice: {ids:?}");
    }
}
