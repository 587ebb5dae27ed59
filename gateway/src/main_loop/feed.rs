//! What screens follow live. The main loop speaks, it never waits for a listener.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anmin_rules::alarm::Transition;
use anmin_rules::drill::DrillChange;
use anmin_rules::incident::IncidentChange;
use anmin_rules::order::CallChange;
use anmin_rules::walk::WalkChange;
use anmin_sensors::point::{Place, PointId};
use anmin_sensors::reading::Sample;
use tokio::sync::broadcast;

/// One thing that happened, in the order in which it happened.
#[derive(Clone, Debug)]
pub enum FeedEvent {
    Transition(Arc<Transition>),
    Call(Arc<CallChange>),
    Incident(Arc<IncidentChange>),
    Drill(Arc<DrillChange>),
    Walk(Arc<WalkChange>),
    /// The points that changed since the last of these, each with its latest sample. State, not news: a listener that
    /// missed one asks for the points again.
    Readings(Arc<Readings>),
}

#[derive(Debug)]
pub struct Readings {
    /// At most [`Feed::MOST_ROWS`].
    pub rows: Vec<ChangedPoint>,
    /// More points changed than fit in: a listener that wants them all asks for the points.
    pub truncated: bool,
}

/// A point with its latest sample.
#[derive(Clone, Debug)]
pub struct ChangedPoint {
    pub id: PointId,
    pub place: Arc<Place>,
    pub sample: Sample,
}

/// The main loop's end of the feed. Clones speak on the same feed.
#[derive(Clone, Debug)]
pub struct Feed {
    events: broadcast::Sender<FeedEvent>,
    readers: Arc<AtomicUsize>,
}

impl Feed {
    /// Events that wait for the slowest listener; when full the oldest is overwritten and that listener starts afresh.
    const DEPTH: usize = 4_096;
    /// Changed points in one [`FeedEvent::Readings`].
    pub const MOST_ROWS: usize = 500;
    /// The main loop publishes changed points at most this often.
    pub const READINGS_EVERY: Duration = Duration::from_millis(250);

    pub fn new() -> Self {
        Self { events: broadcast::Sender::new(Self::DEPTH), readers: Arc::default() }
    }

    /// Tells whoever listens; nobody is fine.
    pub fn publish(&self, event: FeedEvent) {
        // An error says that nobody listens.
        let _ = self.events.send(event);
    }

    /// Whether anybody looks at readings now: gather changed points only while this is true.
    pub fn readings_wanted(&self) -> bool {
        self.readers.load(Ordering::Relaxed) > 0
    }

    pub fn listen(&self) -> broadcast::Receiver<FeedEvent> {
        self.events.subscribe()
    }

    /// While the returned guard lives, readings are wanted.
    pub fn want_readings(&self) -> WantReadings {
        self.readers.fetch_add(1, Ordering::Relaxed);
        WantReadings(Arc::clone(&self.readers))
    }
}

impl Default for Feed {
    fn default() -> Self {
        Self::new()
    }
}

/// Held by each listener that shows readings.
#[derive(Debug)]
pub struct WantReadings(Arc<AtomicUsize>);

impl Drop for WantReadings {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_are_wanted_while_somebody_looks() {
        let feed = Feed::new();
        assert!(!feed.readings_wanted());
        let (one, two) = (feed.want_readings(), feed.clone().want_readings());
        drop(one);
        assert!(feed.readings_wanted());
        drop(two);
        assert!(!feed.readings_wanted());
    }
}
