//! What screens follow live. The main loop speaks, it never waits for a listener.

use std::collections::BTreeSet;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anmin_rules::alarm::Transition;
use anmin_rules::drill::DrillChange;
use anmin_rules::incident::IncidentChange;
use anmin_rules::order::CallChange;
use anmin_rules::walk::WalkChange;
use anmin_sensors::point::{Place, PointId, PointIx};
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
    /// More points have changed than fit in: they are in the next one.
    pub truncated: bool,
}

/// Points that have changed and of which nobody was told yet. They take turns, so that none waits behind those that change more
/// often.
#[derive(Debug, Default)]
pub struct Changed {
    waiting: BTreeSet<PointIx>,
    last: Option<PointIx>,
}

impl Changed {
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The next in turn, [`Feed::MOST_ROWS`] of them, and whether others follow.
    pub fn take(&mut self) -> (Vec<PointIx>, bool) {
        let after = self.waiting.range((self.last.map_or(Unbounded, Excluded), Unbounded));
        let before = self.last.map(|last| self.waiting.range(..=last)).into_iter().flatten();
        let next: Vec<_> = after.chain(before).take(Feed::MOST_ROWS).copied().collect();
        self.last = next.last().copied().or(self.last);
        for point in &next {
            self.waiting.remove(point);
        }
        (next, !self.waiting.is_empty())
    }
}

impl Extend<PointIx> for Changed {
    fn extend<T: IntoIterator<Item = PointIx>>(&mut self, points: T) {
        self.waiting.extend(points);
    }
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
    pub const DEPTH: usize = 4_096;
    /// Changed points in one [`FeedEvent::Readings`].
    pub const MOST_ROWS: usize = 500;
    /// The main loop publishes changed points at most this often.
    const READINGS_EVERY: Duration = Duration::from_millis(250);
    /// Changed points that all listeners together are told of: the more of them look, the less often they hear.
    const MOST_TOLD_A_SECOND: usize = 100_000;

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

    /// How long the next changed points wait after so many.
    pub fn readings_wait(&self, rows: usize) -> Duration {
        let told = rows * self.readers.load(Ordering::Relaxed);
        Self::READINGS_EVERY.max(Duration::from_secs(1) * told as u32 / Self::MOST_TOLD_A_SECOND as u32)
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
    fn each_point_that_changed_is_told_of_however_often_others_change() {
        let mut changed = Changed::default();
        let busy = || (0..2_000).map(PointIx);
        let told = |changed: &mut Changed| {
            let (turn, others_follow) = changed.take();
            (turn.first().map(|ix| ix.0), turn.last().map(|ix| ix.0), turn.len(), others_follow)
        };
        changed.extend([PointIx(4_999)]);
        let mut turns = Vec::new();
        for _ in 0..5 {
            // All of them again, before each turn.
            changed.extend(busy());
            turns.push(told(&mut changed));
        }
        assert_eq!(
            turns,
            [
                (Some(0), Some(499), 500, true),
                (Some(500), Some(999), 500, true),
                (Some(1_000), Some(1_499), 500, true),
                (Some(1_500), Some(1_999), 500, true),
                // The one that changed once, and from there round again.
                (Some(4_999), Some(498), 500, true),
            ]
        );
        for _ in 0..3 {
            assert!(told(&mut changed).3, "what waits is told without changing again");
        }
        assert_eq!(told(&mut changed), (Some(1_999), Some(1_999), 1, false));
        assert!(changed.is_empty());
        assert_eq!(changed.take(), (Vec::new(), false));
    }

    #[test]
    fn the_more_look_at_readings_the_less_often_they_come() {
        let feed = Feed::new();
        for (listeners, rows, wait) in [(0, 500, 250), (1, 500, 250), (50, 500, 250), (200, 500, 1_000), (200, 3, 250)]
        {
            let _listeners: Vec<_> = (0..listeners).map(|_| feed.want_readings()).collect();
            assert_eq!(feed.readings_wait(rows), Duration::from_millis(wait), "{listeners} listeners, {rows} rows");
        }
    }

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
