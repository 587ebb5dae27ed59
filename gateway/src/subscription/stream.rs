//! The live form of a subscription: server-sent events that go on where a listener was, over restarts, too.
//!
//! | event | data | id |
//! |---|---|---|
//! | `hello` | version, site, subscriber, time | yes |
//! | `alarm.event`, `call.event` | the documents of [`crate::delivery::event`] | yes |
//! | `heartbeat` | every 30 s, as long as the self-test comes through | yes |
//! | `test` | a person tries the way | no |
//! | `resync` | the id that the listener came with is of another journal: what came between cannot be told | yes |
//!
//! One task reads each new row once, puts it into words once for each subscription that has listeners, and hands it to all
//! of them. A listener that is behind reads by itself until it has caught up, and one that is too slow for what is handed out
//! does so again: nobody is told less, and what waits for anybody is bounded by [`QUEUE`] and one stretch of the journal.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{OwnedSemaphorePermit, broadcast, watch};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::{Event, Live, MOST_EVENTS, Position, ROWS_AT_ONCE, Since, Stretch, Subscriber, Subscriptions};
use crate::delivery::event::rfc3339;
use crate::delivery::heartbeat;
use crate::main_loop::{Feed, FeedEvent};
use crate::store::{StateReader, StoreError};

/// Listeners of all subscriptions together; one more is told to come again.
pub const MOST_LISTENERS: usize = 256;
/// Events that wait for the slowest listener before it reads the journal by itself.
pub(super) const QUEUE: usize = 256;
/// The journal is looked at once in this time although nothing was said, and at most once in the other.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOK_AT_MOST_EVERY: Duration = Duration::from_millis(20);

pub(super) fn frame(id: Option<Position>, event: &str, data: &[u8]) -> Bytes {
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    // JSON has no raw line break that could end the field.
    Bytes::from([id.as_bytes(), b"event: ", event.as_bytes(), b"\ndata: ", data, b"\n\n"].concat())
}

fn frame_of(event: &Event, at: Position) -> Bytes {
    frame(Some(at), event.kind, &event.json)
}

impl Subscriptions {
    /// Hands on what is written into the journal, until the main loop has ended.
    pub async fn follow(self, feed: Feed) {
        let mut news = feed.listen();
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failed = false;
        loop {
            tokio::select! {
                _ = look.tick() => {}
                said = news.recv() => match said {
                    Ok(FeedEvent::Transition(_) | FeedEvent::Call(_)) | Err(RecvError::Lagged(_)) => {}
                    Ok(_) => continue,
                    Err(RecvError::Closed) => return,
                },
            }
            // Whatever else was said by now stands in the journal, too.
            while !matches!(news.try_recv(), Err(TryRecvError::Empty | TryRecvError::Closed)) {}
            let before = self.end();
            let own = self.clone();
            let read = spawn_blocking(move || own.look(before)).await;
            // Said once until a look comes to its end again.
            let failed_before = std::mem::replace(&mut failed, read.is_err());
            match read {
                Ok(Ok(end)) => {
                    self.0.end.send_if_modified(|known| known.replace(end) != Some(end));
                }
                // The main loop says what the journal suffers from; the next look finds what this one did not.
                Ok(Err(error)) => tracing::debug!(%error, "subscriptions: the journal cannot be read now"),
                Err(error) if !failed_before => tracing::error!(%error, "subscriptions: a look at the journal failed"),
                Err(_) => {}
            }
            sleep(LOOK_AT_MOST_EVERY).await;
        }
    }

    /// Tells the listeners all that lies behind `before`; gives the end.
    fn look(&self, before: Option<Position>) -> Result<Position, StoreError> {
        let journal = StateReader::open(&self.0.dir)?;
        let lineage = journal.lineage()?;
        let end = Position { lineage, n: journal.end()? };
        // Who listens is asked after each read: whoever comes later finds what was read in the journal.
        let heard = || self.all().filter(|one| one.listeners() > 0).collect::<Vec<_>>();
        let mut at = match before {
            Some(before) if before.lineage == lineage => before,
            _ => {
                heard().iter().for_each(|one| drop(one.live.send(Live::Look)));
                end
            }
        };
        if heard().is_empty() {
            return Ok(end);
        }
        loop {
            let rows = journal.after(at.n, ROWS_AT_ONCE)?;
            let Some(last) = rows.last() else { break };
            at.n = last.n;
            let heard = heard();
            for row in rows {
                for one in &heard {
                    if let Some(event) = one.event(&self.0.site, row.clone()) {
                        let at = Position { lineage, n: event.n };
                        // An error says that the last listener has gone meanwhile.
                        let _ = one.live.send(Live::Event { at, frame: frame_of(&event, at) });
                    }
                }
            }
            for one in heard {
                let _ = one.live.send(Live::Reached(at));
            }
        }
        Ok(at)
    }

    /// One listener's stream, from where it wants to hear; `None` while there are as many as there can be.
    pub fn listen(&self, subscriber: &Arc<Subscriber>, from: Since) -> Option<Listener> {
        let place = Arc::clone(&self.0.places).try_acquire_owned().ok()?;
        Some(Listener {
            // Before anything is read: what is written in between comes by both ways and is told once.
            live: subscriber.live.subscribe(),
            all: self.clone(),
            subscriber: Arc::clone(subscriber),
            from,
            at: None,
            last: None,
            waiting: VecDeque::new(),
            caught_up: false,
            beats: self.0.beats.clone(),
            sequence: 0,
            _place: place,
        })
    }
}

/// One open stream.
pub struct Listener {
    all: Subscriptions,
    subscriber: Arc<Subscriber>,
    from: Since,
    /// Everything up to here was told; `None` before the first look.
    at: Option<Position>,
    /// The last event that was told, or where it began.
    last: Option<Position>,
    waiting: VecDeque<Bytes>,
    caught_up: bool,
    live: broadcast::Receiver<Live>,
    beats: watch::Receiver<u64>,
    sequence: u64,
    _place: OwnedSemaphorePermit,
}

impl Listener {
    /// The next bytes of the stream; `None` when anmin stops, or the subscription is another by now. Is asked only when the peer has taken what it was given.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.waiting.pop_front() {
                return Some(bytes);
            }
            if !self.caught_up {
                self.catch_up().await;
                continue;
            }
            tokio::select! {
                biased;
                live = self.live.recv() => match live {
                    Ok(Live::Event { at, frame }) => {
                        if self.is_news(at) {
                            (self.at, self.last) = (Some(at), Some(at));
                            return Some(frame);
                        }
                    }
                    Ok(Live::Reached(at)) => {
                        if self.is_news(at) {
                            self.at = Some(at);
                        }
                    }
                    Ok(Live::Test(frame)) => return Some(frame),
                    Ok(Live::Look) | Err(RecvError::Lagged(_)) => self.caught_up = false,
                    Ok(Live::Over) | Err(RecvError::Closed) => return None,
                },
                changed = self.beats.changed() => {
                    changed.ok()?;
                    if heartbeat::is_due(*self.beats.borrow_and_update()) {
                        return self.heartbeat();
                    }
                }
            }
        }
    }

    /// Whether it lies behind all that was told. Of another journal it is for [`Listener::catch_up`] to say so.
    fn is_news(&mut self, at: Position) -> bool {
        let same = self.at.is_some_and(|known| known.lineage == at.lineage);
        self.caught_up &= same;
        same && self.at.is_some_and(|known| at.n > known.n)
    }

    fn heartbeat(&mut self) -> Option<Bytes> {
        self.sequence += 1;
        let document = self.all.heartbeat(&self.subscriber, self.sequence, self.last?);
        Some(frame(self.at, "heartbeat", &document))
    }

    /// Reads the next stretch behind what was told.
    async fn catch_up(&mut self) {
        let (all, subscriber) = (self.all.clone(), Arc::clone(&self.subscriber));
        let from = self.at.map_or(self.from, Since::Behind);
        let read = spawn_blocking(move || all.read(&subscriber, from, MOST_EVENTS)).await;
        let Ok(Ok(Stretch { events, upto, more, lost })) = read else {
            // The journal is away for a moment; the stream goes on when it is back.
            return sleep(LOOK_EVERY).await;
        };
        if self.at.is_none() {
            self.waiting.push_back(Bytes::from_static(b"retry: 2000\n\n"));
            let began = match from {
                Since::Behind(position) if !lost => position,
                Since::Beginning => Position { n: 0, ..upto },
                _ => upto,
            };
            self.last = Some(began);
            self.waiting.push_back(frame(Some(began), "hello", self.hello().as_bytes()));
        }
        if lost {
            self.last = Some(upto);
            self.waiting.push_back(frame(Some(upto), "resync", b"{}"));
        }
        for event in &events {
            let at = Position { n: event.n, ..upto };
            self.last = Some(at);
            self.waiting.push_back(frame_of(event, at));
        }
        self.at = Some(upto);
        self.caught_up = !more;
    }

    fn hello(&self) -> String {
        let site = &self.all.0.site;
        let now = rfc3339(self.all.0.clock.now().wall, &site.time_zone);
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "site": &*site.id,
            "exercise": site.exercise,
            "subscriber": &**self.subscriber.id(),
            "now": now,
        })
        .to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::super::tests::Office;
    use super::*;

    /// The first line of each of the next frames: an event's id, or else its name.
    async fn next(listener: &mut Listener, frames: usize) -> Vec<String> {
        let mut seen = Vec::new();
        while seen.len() < frames {
            let bytes = timeout(Duration::from_secs(20), listener.next()).await.expect("a frame in time");
            let text = String::from_utf8(bytes.expect("the stream goes on").to_vec()).expect("text");
            let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
            match line("event: ") {
                Some(event) if event == "alarm.event" => {
                    let id = line("id: ").expect("an event has an id");
                    seen.push(id.split_once('-').expect("lineage and number").1.to_owned());
                }
                Some(event) => seen.push(event),
                None => {}
            }
        }
        seen
    }

    fn numbers(range: std::ops::RangeInclusive<i64>) -> Vec<String> {
        range.map(|n| n.to_string()).collect()
    }

    #[tokio::test]
    async fn a_listener_gets_what_it_missed_then_what_comes_and_nothing_twice() {
        let mut office = Office::new("stream", "id = 'office'\n");
        (0..700).for_each(|n| office.raise(n, |_| {}));
        let lineage = office.all.read(&office.one, Since::Now, 1).expect("it can be read").upto.lineage;
        let feed = Feed::new();
        tokio::spawn(office.all.clone().follow(feed.clone()));
        let since = Since::Behind(Position { lineage, n: 10 });
        let mut behind = office.all.listen(&office.one, since).expect("there is room");
        let mut fresh = office.all.listen(&office.one, Since::Now).expect("there is room");
        assert_eq!(next(&mut behind, 1).await, ["hello"]);
        assert_eq!(next(&mut behind, 300).await, numbers(11..=310));
        assert_eq!(next(&mut fresh, 1).await, ["hello"]);
        // What is written while one of them still catches up.
        (700..720).for_each(|n| office.raise(n, |_| {}));
        assert_eq!(next(&mut behind, 410).await, numbers(311..=720));
        assert_eq!(next(&mut fresh, 20).await, numbers(701..=720));
        // More than waits for anybody: whoever did not look reads the journal.
        (720..1_400).for_each(|n| office.raise(n, |_| {}));
        assert_eq!(next(&mut fresh, 680).await, numbers(721..=1_400));
        assert_eq!(next(&mut behind, 680).await, numbers(721..=1_400));
    }

    #[tokio::test]
    async fn a_listener_of_another_journal_is_told_so_and_goes_on_from_here() {
        let mut office = Office::new("stream-other", "id = 'office'\n");
        (0..3).for_each(|n| office.raise(n, |_| {}));
        tokio::spawn(office.all.clone().follow(Feed::new()));
        let other = Since::Behind(Position { lineage: 1, n: 1 });
        let mut listener = office.all.listen(&office.one, other).expect("there is room");
        assert_eq!(next(&mut listener, 2).await, ["hello", "resync"]);
        office.raise(3, |_| {});
        assert_eq!(next(&mut listener, 1).await, ["4"]);
    }

    /// By it a listener notices that it is cut off, and that it lacks what was told last.
    #[tokio::test]
    async fn heartbeats_count_and_name_the_last_event() {
        let mut office = Office::new("stream-beat", "id = 'office'\n");
        tokio::spawn(office.all.clone().follow(Feed::new()));
        office.raise(1, |_| {});
        let mut listener = office.all.listen(&office.one, Since::Beginning).expect("there is room");
        assert_eq!(next(&mut listener, 2).await, ["hello", "1"]);
        for beat in [1, 4] {
            office.beats.send_replace(beat);
            let bytes = timeout(Duration::from_secs(20), listener.next()).await.expect("in time").expect("a frame");
            let text = String::from_utf8(bytes.to_vec()).expect("text");
            let data = text.lines().find_map(|line| line.strip_prefix("data: ")).expect("data");
            let json: serde_json::Value = serde_json::from_str(data).expect("JSON");
            assert_eq!((json["type"].as_str(), json["sequence"].as_u64()), (Some("heartbeat"), Some(beat / 3 + 1)));
            assert!(json["last"].as_str().is_some_and(|last| last.ends_with("-1")), "{json}");
        }
    }
}
