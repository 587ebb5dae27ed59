//! The live stream: server-sent events with resume.
//!
//! | event | data | id |
//! |---|---|---|
//! | `hello` | version, time, site | none |
//! | `transition` | one change of one alarm, the alarm whole | yes |
//! | `call` | one change of one station's call | yes |
//! | `incident` | one change of one incident | yes |
//! | `readings` | changed points, at most every 250 ms; only with `?readings=yes` | none |
//! | `status` | how anmin stands, every five seconds, answered by the main loop itself | none |
//! | `resync` | something was missed: ask for everything again | none |
//!
//! A listener that comes back with `Last-Event-ID` gets what it missed, from the last [`REMEMBERED`] events; where they
//! do not reach back far enough, or anmin has been started again, it gets `resync`. One that reads too slowly gets
//! `resync` and is let go. Who sees some places only hears of these. No `status` for twelve seconds means that nothing on the screen can be relied on.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anmin_sensors::point::Place;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, broadcast};
use tokio::task::yield_now;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::api::{ask, status_wire};
use super::guard::Caller;
use super::problem::Problem;
use super::wire::{ChangedPointWire, ChangedPointsWire, Writer};
use super::{Site, WebLink};
use crate::main_loop::feed::{Readings, WantReadings};
use crate::main_loop::{FeedEvent, Query};
use crate::store::people::Places;

/// Listeners at once; one more is told to come again.
pub const MOST_CLIENTS: usize = 200;
/// Events kept for those who come back.
pub const REMEMBERED: usize = 1_000;
/// Frames that wait for the slowest listener.
const QUEUE: usize = 256;
/// What happens within so long of one event is told with it: each screen is woken once, and while many look an alarm on its way
/// out does not wait for what each is told of the one before. Nobody sees so short a while.
const GATHER: Duration = Duration::from_millis(100);
/// Of what was gathered, so much is told at a time.
const TOLD_AT_ONCE: usize = QUEUE / 2;
/// How often the main loop is asked how it stands.
const BEAT: Duration = Duration::from_secs(5);
/// What happens so long after events were missed is not told one by one either.
const LET_PASS: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(super) struct Hub(Arc<Shared>);

struct Shared {
    site: Site,
    /// Tells this start from all others.
    epoch: String,
    past: Mutex<Past>,
    frames: broadcast::Sender<Frame>,
    places: Arc<Semaphore>,
    /// Somebody new listens: a status is due at once.
    arrived: Notify,
    /// How much those see who listen, and how many of them.
    listening: Mutex<BTreeMap<Places, usize>>,
}

/// What has been, so that a listener gets each event once: pushed and sent under one lock.
#[derive(Default)]
struct Past {
    /// Number of the newest event; the first is 1.
    last: u64,
    frames: VecDeque<Frame>,
}

#[derive(Clone, Debug)]
struct Frame {
    whom: Whom,
    bytes: Bytes,
}

/// Whom a frame is for.
#[derive(Clone, Debug)]
enum Whom {
    Everybody,
    /// Who sees this place.
    Place(Arc<Place>),
    /// Who may see just this much: a status is made for each.
    Within(Places),
    /// Who sees some places alone.
    Bound,
    /// Who wants readings; those who see only some of them get these in words of their own.
    Readings(Arc<Readings>),
}

fn seen_at(place: &Arc<Place>) -> Whom {
    Whom::Place(Arc::clone(place))
}

fn frame(id: Option<&str>, event: &str, data: &impl Serialize) -> Bytes {
    // Plain structs of text and finite numbers; JSON has no raw line break that could end the field.
    let data = serde_json::to_string(data).expect("plain structs become JSON");
    match id {
        Some(id) => format!("id: {id}\nevent: {event}\ndata: {data}\n\n").into(),
        None => format!("event: {event}\ndata: {data}\n\n").into(),
    }
}

/// What of an incident is theirs who do not see where it began, the list says to each: here it would have to be made for each.
fn reaching() -> Bytes {
    Bytes::from_static(b"event: incidents\ndata: {}\n\n")
}

fn resync() -> Bytes {
    Bytes::from_static(b"event: resync\ndata: {}\n\n")
}

impl Hub {
    pub fn new(link: &WebLink) -> Self {
        Self::with(link.site.clone(), format!("{:x}", link.clock.now().wall.micros()))
    }

    fn with(site: Site, epoch: String) -> Self {
        Self(Arc::new(Shared {
            site,
            epoch,
            past: Mutex::default(),
            frames: broadcast::Sender::new(QUEUE),
            places: Arc::new(Semaphore::new(MOST_CLIENTS)),
            arrived: Notify::new(),
            listening: Mutex::default(),
        }))
    }

    /// Passes on what the main loop says, each event put into words once, whoever listens.
    pub async fn run(self, link: WebLink) {
        let mut feed = link.feed.listen();
        let beat = self.clone().beat(link.clone());
        tokio::pin!(beat);
        let mut missed = 0_u64;
        loop {
            let told = tokio::select! {
                told = self.tell(&mut feed) => told,
                () = &mut beat => return,
            };
            match told {
                Ok(()) => {}
                Err(RecvError::Lagged(_)) => {
                    // A storm that is too quick to be told is let pass: screens that load afresh over and over show less
                    // than those that do so once.
                    tokio::select! {
                        () = sleep(LET_PASS) => {}
                        () = &mut beat => return,
                    }
                    feed = feed.resubscribe();
                    missed += 1;
                    // The first, then whenever they have doubled: a storm may last.
                    if missed.is_power_of_two() {
                        tracing::warn!(
                            missed,
                            "web: more happens than the live stream can tell; screens were told to load afresh"
                        );
                    }
                    self.forget();
                }
                // The main loop has stopped; so will we.
                Err(RecvError::Closed) => beat.as_mut().await,
            }
        }
    }

    /// Waits for an event and tells it with those that come soon after it.
    async fn tell(&self, feed: &mut broadcast::Receiver<FeedEvent>) -> Result<(), RecvError> {
        let first = feed.recv().await?;
        sleep(GATHER).await;
        let mut incidents = false;
        let mut publish = |event: &FeedEvent| {
            incidents |= matches!(event, FeedEvent::Incident(_));
            self.publish(event);
        };
        publish(&first);
        for told in 1.. {
            match feed.try_recv() {
                Ok(event) => publish(&event),
                Err(TryRecvError::Lagged(n)) => return Err(RecvError::Lagged(n)),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
            if told % TOLD_AT_ONCE == 0 {
                yield_now().await;
            }
        }
        if incidents {
            // An error says that nobody listens.
            let _ = self.0.frames.send(Frame { whom: Whom::Bound, bytes: reaching() });
        }
        Ok(())
    }

    /// Sends the main loop's own status while anybody listens. No answer, no beat: screens then say so.
    async fn beat(self, link: WebLink) {
        let mut ticks = interval(BEAT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.0.arrived.notified() => {}
            }
            if self.0.frames.receiver_count() == 0 {
                continue;
            }
            let wanted: Vec<Places> = self.listening().keys().cloned().collect();
            for within in wanted {
                let whom = Whom::Within(within.clone());
                if let Ok(status) = ask(&link.inputs, |reply| Query::Status { within, reply }).await {
                    let bytes = frame(None, "status", &status_wire(&link, &status));
                    // An error says that nobody listens.
                    let _ = self.0.frames.send(Frame { whom, bytes });
                }
            }
        }
    }

    fn publish(&self, event: &FeedEvent) {
        let writer = Writer { zone: &self.0.site.time_zone };
        match event {
            FeedEvent::Transition(transition) => {
                self.remember(seen_at(&transition.alarm.place), "transition", &writer.transition(transition));
            }
            FeedEvent::Call(change) => self.remember(seen_at(&change.alarm.place), "call", &writer.call_change(change)),
            FeedEvent::Incident(change) => {
                self.remember(seen_at(&change.incident.place), "incident", &writer.incident_change(change));
            }
            FeedEvent::Walk(change) => {
                let whom = change.tick.as_ref().map_or(Whom::Everybody, |tick| seen_at(&tick.place));
                self.remember(whom, "walk", &writer.walk_change(change));
            }
            // That it is a drill is for everybody to know.
            FeedEvent::Drill(change) => self.remember(Whom::Everybody, "drill", &writer.drill_change(change)),
            FeedEvent::Readings(readings) => {
                if self.0.frames.receiver_count() == 0 {
                    return;
                }
                let bytes = changed_points(writer, readings, &Places::EVERYWHERE);
                let _ = self.0.frames.send(Frame { whom: Whom::Readings(Arc::clone(readings)), bytes });
            }
        }
    }

    fn listening(&self) -> MutexGuard<'_, BTreeMap<Places, usize>> {
        self.0.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, whom: Whom, event: &str, data: &impl Serialize) {
        let mut past = self.0.past.lock().unwrap_or_else(PoisonError::into_inner);
        past.last += 1;
        let bytes = frame(Some(&format!("{}-{}", self.0.epoch, past.last)), event, data);
        if past.frames.len() == REMEMBERED {
            past.frames.pop_front();
        }
        let frame = Frame { whom, bytes };
        past.frames.push_back(frame.clone());
        let _ = self.0.frames.send(frame);
    }

    /// Events are missing: whoever listens or comes back from before starts afresh.
    fn forget(&self) {
        let mut past = self.0.past.lock().unwrap_or_else(PoisonError::into_inner);
        past.last += 1;
        past.frames.clear();
        let _ = self.0.frames.send(Frame { whom: Whom::Everybody, bytes: resync() });
    }

    /// One listener's stream. `last` is what it says it saw last.
    pub fn stream(
        &self,
        link: &WebLink,
        caller: Caller,
        last: Option<&str>,
        readings: bool,
    ) -> Result<Response, Problem> {
        let Ok(place) = Arc::clone(&self.0.places).try_acquire_owned() else {
            return Err(Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "too_many_listeners",
                format!("实时连接已达上限（{MOST_CLIENTS} 个）"),
                format!("{MOST_CLIENTS} live streams are open, which is as many as there can be"),
            )
            .hint("请关闭不用的页面", "close pages that nobody looks at"));
        };
        let now = super::wire::stamp(link.clock.now().wall, &self.0.site.time_zone);
        let wants = readings.then(|| link.feed.want_readings());
        let within = caller.within();
        let lasts = Box::new(move || caller.is_still());
        let listener = self.listener(&now, last, wants, place, within, lasts);
        self.0.arrived.notify_one();
        let body = Body::from_stream(stream::unfold(listener, |mut listener| async move {
            let bytes = listener.next().await?;
            Some((Ok::<_, Infallible>(bytes), listener))
        }));
        let mut response = body.into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // For a proxy in front that would gather the stream before passing it on.
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        Ok(response)
    }

    fn listener(
        &self,
        now: &str,
        last: Option<&str>,
        wants: Option<WantReadings>,
        place: OwnedSemaphorePermit,
        within: Places,
        lasts: Box<dyn Fn() -> bool + Send>,
    ) -> Listener {
        let past = self.0.past.lock().unwrap_or_else(PoisonError::into_inner);
        let live = self.0.frames.subscribe();
        let newest = format!("{}-{}", self.0.epoch, past.last);
        let missed = last.map(|last| self.missed(&past, last, &within));
        drop(past);

        let hello = Hello { version: env!("CARGO_PKG_VERSION"), site: &self.0.site.id, now };
        // The id of `hello` makes the first reconnect resume from here, even when nothing has happened in between.
        let mut waiting = VecDeque::from([Bytes::from_static(b"retry: 2000\n\n")]);
        match missed {
            None => waiting.push_back(frame(Some(&newest), "hello", &hello)),
            Some(missed) => {
                waiting.push_back(frame(None, "hello", &hello));
                waiting.extend(missed.unwrap_or_else(|| vec![resync(), frame(Some(&newest), "hello", &hello)]));
                if !within.is_everywhere() {
                    waiting.push_back(reaching());
                }
            }
        }
        *self.listening().entry(within.clone()).or_default() += 1;
        Listener { hub: self.clone(), waiting, live, ended: false, wants, within, lasts, _place: place }
    }

    /// What came after `last`; `None` when we cannot tell.
    fn missed(&self, past: &Past, last: &str, within: &Places) -> Option<Vec<Bytes>> {
        let (epoch, number) = last.rsplit_once('-')?;
        let number: u64 = number.parse().ok()?;
        let behind = usize::try_from(past.last.checked_sub(number)?).ok()?;
        let skip = past.frames.len().checked_sub(behind)?;
        let seen = past.frames.iter().skip(skip).filter(|frame| frame.is_for(within));
        (epoch == self.0.epoch).then(|| seen.map(|frame| frame.bytes.clone()).collect())
    }
}

#[derive(Serialize)]
struct Hello<'a> {
    version: &'static str,
    site: &'a str,
    now: &'a str,
}

impl Frame {
    /// Of readings it says nothing.
    fn is_for(&self, within: &Places) -> bool {
        match &self.whom {
            Whom::Everybody => true,
            Whom::Place(place) => within.takes(place),
            Whom::Within(places) => places == within,
            Whom::Bound => !within.is_everywhere(),
            Whom::Readings(_) => false,
        }
    }
}

fn changed_points(writer: Writer<'_>, readings: &Readings, within: &Places) -> Bytes {
    let seen = readings.rows.iter().filter(|row| within.takes(&row.place));
    let points = seen.map(|row| ChangedPointWire { id: row.id.to_string(), sample: writer.sample(&row.sample) });
    frame(None, "readings", &ChangedPointsWire { points: points.collect(), truncated: readings.truncated })
}

struct Listener {
    hub: Hub,
    waiting: VecDeque<Bytes>,
    live: broadcast::Receiver<Frame>,
    ended: bool,
    wants: Option<WantReadings>,
    within: Places,
    /// Whether what the stream was opened with still gives what it gave then.
    lasts: Box<dyn Fn() -> bool + Send>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut listening = self.hub.listening();
        if let Some(count) = listening.get_mut(&self.within) {
            *count -= 1;
            if *count == 0 {
                listening.remove(&self.within);
            }
        }
    }
}

impl Listener {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(bytes) = self.waiting.pop_front() {
            return Some(bytes);
        }
        while !self.ended {
            match self.live.recv().await {
                Ok(frame) => {
                    // Before anything more is told: who has signed out, or has another role now, begins anew.
                    if !(self.lasts)() {
                        self.ended = true;
                        return None;
                    }
                    match &frame.whom {
                        Whom::Readings(_) if self.wants.is_none() => {}
                        Whom::Readings(_) if self.within.is_everywhere() => return Some(frame.bytes),
                        Whom::Readings(readings) => {
                            let writer = Writer { zone: &self.hub.0.site.time_zone };
                            return Some(changed_points(writer, readings, &self.within));
                        }
                        _ if frame.is_for(&self.within) => return Some(frame.bytes),
                        _ => {}
                    }
                }
                Err(RecvError::Lagged(_)) => {
                    self.ended = true;
                    return Some(resync());
                }
                Err(RecvError::Closed) => self.ended = true,
            }
        }
        None
    }
}

/// What a listener saw last: the header that browsers send, or the parameter that scripts can.
pub(super) fn last_event_id(headers: &HeaderMap, parameter: Option<&str>) -> Option<String> {
    let named = headers.get("last-event-id").and_then(|value| value.to_str().ok()).or(parameter)?;
    (!named.is_empty()).then(|| named.to_owned())
}

#[cfg(test)]
mod tests {
    use anmin_rules::rule::Text;
    use jiff::tz::TimeZone;

    use super::*;
    use crate::main_loop::feed::Feed;
    use crate::samples::incident_change;

    fn hub() -> Hub {
        let site = Site { id: "s".to_owned(), name: Text::default(), exercise: false, time_zone: TimeZone::UTC };
        Hub::with(site, "e".to_owned())
    }

    fn listener(hub: &Hub, last: Option<&str>) -> Listener {
        within(hub, Places::EVERYWHERE, last)
    }

    fn within(hub: &Hub, places: Places, last: Option<&str>) -> Listener {
        let place = Arc::clone(&hub.0.places).try_acquire_owned().expect("a free place");
        hub.listener("", last, None, place, places, Box::new(|| true))
    }

    async fn next(listener: &mut Listener) -> Option<String> {
        listener.next().await.map(|bytes| String::from_utf8_lossy(&bytes).trim_end().replace('\n', " | "))
    }

    #[test]
    fn resume_reaches_back_as_far_as_memory_does() {
        let hub = hub();
        for n in 1..=REMEMBERED + 5 {
            hub.remember(seen_at(&Arc::default()), "call", &n);
        }
        let past = hub.0.past.lock().expect("no test panics with it");
        for (last, missed) in [
            ("e-1005", Some(0)),
            ("e-1004", Some(1)),
            ("e-5", Some(REMEMBERED)),
            ("e-4", None),
            ("e-1006", None),
            ("f-1004", None),
            ("e-", None),
            ("1004", None),
        ] {
            assert_eq!(hub.missed(&past, last, &Places::EVERYWHERE).map(|frames| frames.len()), missed, "{last}");
        }
    }

    #[tokio::test]
    async fn what_happens_in_one_breath_is_told_in_one_and_too_much_for_one_is_said_to_be() {
        let (hub, feed) = (hub(), Feed::new());
        let mut events = feed.listen();
        let mut here = listener(&hub, None);
        let event = || FeedEvent::Incident(Arc::new(incident_change()));
        feed.publish(event());
        let soon = async {
            yield_now().await;
            feed.publish(event());
        };
        assert_eq!(tokio::join!(hub.tell(&mut events), soon).0, Ok(()));
        assert_eq!(events.len(), 0, "both were told");
        for start in ["retry", "id: e-0 | event: hello", "id: e-1 | event: incident", "id: e-2 | event: incident"] {
            let told = next(&mut here).await.expect("more to come");
            assert!(told.starts_with(start), "{told}");
        }
        let flood = || (0..=Feed::DEPTH).for_each(|_| feed.publish(event()));
        flood();
        assert!(matches!(hub.tell(&mut events).await, Err(RecvError::Lagged(_))), "before the first");
        let mut events = feed.listen();
        feed.publish(event());
        let soon = async {
            yield_now().await;
            flood();
        };
        assert!(matches!(tokio::join!(hub.tell(&mut events), soon).0, Err(RecvError::Lagged(_))), "behind it");
    }

    /// An incident that began elsewhere may have reached them: that is all the stream says of it.
    #[tokio::test]
    async fn who_sees_some_places_alone_is_told_that_incidents_have_changed_and_not_how() {
        let (hub, feed) = (hub(), Feed::new());
        let mut events = feed.listen();
        let beyond = || Places::of(["no such building".to_owned()]);
        let (mut elsewhere, mut everywhere) = (within(&hub, beyond(), None), listener(&hub, None));
        for _ in 0..3 {
            feed.publish(FeedEvent::Incident(Arc::new(incident_change())));
        }
        hub.tell(&mut events).await.expect("nothing was missed");
        hub.remember(Whom::Everybody, "drill", &1);
        let hint = "event: incidents | data: {}";
        let mut back = within(&hub, beyond(), Some("e-3"));
        for (who, expected) in [
            (&mut elsewhere, &["retry", "id: e-0 | event: hello", hint, "id: e-4 | event: drill"][..]),
            (&mut back, &["retry", "event: hello", "id: e-4 | event: drill", hint]),
            (&mut everywhere, &["retry", "id: e-0", "id: e-1", "id: e-2", "id: e-3", "id: e-4 | event: drill"]),
        ] {
            for start in expected {
                let told = next(who).await.expect("more to come");
                assert!(told.starts_with(start), "{told}");
            }
        }
    }

    #[tokio::test]
    async fn a_slow_reader_is_told_to_load_afresh_and_let_go() {
        let hub = hub();
        let (mut slow, mut quick) = (listener(&hub, None), listener(&hub, None));
        for _ in 0..2 {
            next(&mut quick).await;
        }
        for n in 1..=QUEUE + 10 {
            hub.remember(seen_at(&Arc::default()), "call", &n);
            assert_eq!(next(&mut quick).await, Some(format!("id: e-{n} | event: call | data: {n}")));
        }
        let mut seen = Vec::new();
        while let Some(event) = next(&mut slow).await {
            seen.push(event);
        }
        assert_eq!(seen[2..], ["event: resync | data: {}"]);
    }

    #[tokio::test]
    async fn events_that_were_never_seen_make_everybody_load_afresh() {
        let hub = hub();
        hub.remember(seen_at(&Arc::default()), "call", &1);
        let mut here = listener(&hub, None);
        hub.forget();
        hub.remember(seen_at(&Arc::default()), "call", &3);
        let mut back = listener(&hub, Some("e-1"));
        for (who, expected) in [
            (&mut here, ["event: resync | data: {}", "id: e-3 | event: call | data: 3"]),
            (&mut back, ["event: resync | data: {}", "id: e-3 | event: hello"]),
        ] {
            for _ in 0..2 {
                next(who).await;
            }
            for start in expected {
                let event = next(who).await.expect("more to come");
                assert!(event.starts_with(start), "{event}");
            }
        }
    }
}
