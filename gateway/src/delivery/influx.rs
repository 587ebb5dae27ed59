//! Readings to a time-series database that speaks InfluxDB's v2 write API.
//!
//! ```toml
//! [[influx]]
//! id             = "tsdb"                    # way-out:tsdb in alarms; default "influx"
//! url            = "http://tsdb.local:8086"
//! org            = "shequ"                   # empty for databases without
//! bucket         = "anmin"
//! token_file     = "secrets/influx"          # none for databases without
//! timeout        = "5s"
//! batch_max      = 5000                      # readings in one request
//! flush_interval = "1s"                      # longest wait for a batch to fill
//! measurement    = "readings"                # instead of the point's kind
//! tags           = { site = "spring" }       # on every line
//! ```
//!
//! One task per stanza takes readings from the queue on disk behind its own cursor, encodes ([`line`]), compresses and
//! posts them, and moves the cursor once a whole batch is through. So readings arrive at least once; a repeat carries
//! the same time stamps and overwrites itself. It holds one batch in memory whatever the database does, and nothing
//! waits for it.
//!
//! They go in the order of the queue, but where much waits, as after days without the database, what is measured now goes
//! before it ([`Progress`]): every `flush_interval`, with the backlog in the requests between. The cursor stays with the
//! backlog, so a crash in the middle repeats and loses nothing.
//!
//! | answer | what it does |
//! |---|---|
//! | 2xx | next |
//! | 400, 422 | part of the batch may be stored: halve until the poison line stands alone, set it aside, count it |
//! | 413 | halve, and send less at once from now on |
//! | 429, 503 with `Retry-After` | wait so long (at most 5 minutes), then the same again |
//! | 408, 5xx, no answer, half an answer | the same again, full jitter between nothing and 0.5, 1, 2 ... 30 s |
//! | 401, 403, 404, anything else | system alarm at once with what the database says about bucket and token; the same again |
//!
//! Writes do not go through the influxdb2 crate, which sees no `Retry-After`; it is asked what is wrong when a write is
//! denied. See `gateway/docs/decisions/0005-influx.md`.

pub mod line;

use std::collections::HashMap;
use std::io::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anmin_rules::rule::{Finding, Level, Text};
use anmin_sensors::document::Reader as TomlReader;
use anmin_sensors::time::Mono;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::http::{Answer, Http, Target};
use super::{Secret, excerpt, read_file};
use crate::chance::Chance;
use crate::clock::Clock;
use crate::main_loop::{Input, PartState, PartTrouble};
use crate::outgoing::Outgoing;
use crate::store::{Reader, StoreError, StoredSample};
use line::Naming;

const BACKOFF_FIRST: Duration = Duration::from_millis(500);
const BACKOFF_LONGEST: Duration = Duration::from_secs(30);
const LONGEST_ASKED_WAIT: Duration = Duration::from_secs(300);

/// Failing for so long is a system alarm; a denial is one at once.
const TROUBLE_AFTER: Duration = Duration::from_secs(30);

/// Requests about one batch after which poison is no longer looked for line by line.
const MOST_REQUESTS: u32 = 256;

/// Lines that are tried alone, spread over the batch, before the database is said to refuse everything.
const PROBES: usize = 8;

/// `[[influx]]`.
#[derive(Clone, Debug)]
pub struct Settings {
    pub id: Arc<str>,
    target: Target,
    org: String,
    bucket: String,
    token_file: Option<PathBuf>,
    timeout: Duration,
    batch_max: usize,
    flush_interval: Duration,
    naming: Naming,
}

impl Settings {
    pub fn read(r: &TomlReader<'_>, base: &Path) -> Option<Self> {
        let id = r.or("id", "influx".to_owned());
        let target = Target::read(r, base);
        let org = r.or("org", String::new());
        let bucket: Option<String> = r.required("bucket");
        let token_file = read_file(r, "token_file", base, Secret::read);
        let timeout = r.or("timeout", Duration::from_secs(5));
        let batch_max = r.or("batch_max", 5_000_usize);
        let flush_interval = r.or("flush_interval", Duration::from_secs(1));
        let measurement: Option<String> = r.optional("measurement");
        let tags = r.table("tags").map(|tags| tags.values::<String>()).unwrap_or_default();
        r.finish();
        let plain = |id: &str| id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        if id.is_empty() || id.len() > 64 || !plain(&id) {
            r.fault("id", format!("`id` is {id:?}, expected 1 to 64 letters, digits, `-`, `_` or `.`"), None);
        }
        if !(1..=50_000).contains(&batch_max) {
            r.fault("batch_max", format!("`batch_max` is {batch_max}, expected 1 to 50000"), None);
        }
        if timeout.is_zero() {
            r.fault("timeout", "`timeout` is nothing, expected at least \"100ms\"", None);
        }
        for name in measurement.iter().map(String::as_str).chain(tags.iter().map(|(key, _)| *key)) {
            // A line that begins with # is a comment, one that begins with _ belongs to the database.
            if name.trim().is_empty() || name.starts_with(['#', '_']) || name == "quality" {
                let key = if measurement.as_deref() == Some(name) { "measurement" } else { "tags" };
                r.fault(key, format!("{name:?} cannot name a measurement or tag of ours"), None);
            }
        }
        if r.is_faulty() {
            return None;
        }
        let tags = tags.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        Some(Self {
            id: id.into(),
            target: target?,
            org,
            bucket: bucket?,
            token_file,
            timeout,
            batch_max,
            flush_interval,
            naming: Naming { measurement, tags },
        })
    }

    pub fn heed(&mut self, outgoing: &Outgoing, r: &TomlReader<'_>) {
        self.target.heed(outgoing, r, "url");
    }
}

/// What became of the readings of one `[[influx]]` in this run.
#[derive(Debug, Default)]
pub struct Stats {
    /// Readings that waited in the queue when this run began.
    pub before: u64,
    /// Lines that the database took.
    pub sent: AtomicU64,
    /// Lines that it refused for ever.
    pub refused: AtomicU64,
    /// Readings that no line was made of: not finite, a time out of bounds, a point without a name.
    pub skipped: AtomicU64,
    pub requests: AtomicU64,
    pub failures: AtomicU64,
    /// Bytes of bodies, compressed.
    pub bytes: AtomicU64,
}

/// A running forwarder. Abort the task to end it: what was not confirmed goes out after the next start.
#[derive(Debug)]
pub struct Forwarder {
    pub task: JoinHandle<()>,
    pub stats: Arc<Stats>,
}

/// Starts forwarding. Call it inside a Tokio runtime. The task ends by itself when the main loop is gone.
pub fn spawn(
    settings: &Settings,
    mut reader: Reader,
    clock: Clock,
    inputs: mpsc::Sender<Input>,
) -> Result<Forwarder, String> {
    let http = Http::new(&target(settings)?)?;
    let before = reader.cursor().and_then(|taken| reader.behind(taken)).map_err(|problem| problem.to_string())?;
    let stats = Arc::new(Stats { before, ..Stats::default() });
    let seed = clock.now().wall.micros() as u64;
    let committed = reader.committed();
    let source = Source {
        reader,
        naming: settings.naming.clone(),
        heads: String::new(),
        points: Vec::new(),
        live_ties: HashMap::new(),
    };
    let post = Post { http, settings: settings.clone(), token: read_token(settings)?, stats: Arc::clone(&stats) };
    let lane = Lane {
        post,
        report: Report {
            part: format!("way-out:{}", settings.id).into(),
            bucket: settings.bucket.clone(),
            clock,
            inputs,
            failing_since: None,
            told: false,
        },
        chance: Chance(seed),
        limit: settings.batch_max,
        failures: 0,
        trusted: false,
    };
    let main_loop = lane.report.inputs.clone();
    let task = tokio::spawn(async move {
        tokio::select! {
            () = lane.run(source, committed) => {}
            () = main_loop.closed() => {}
        }
    });
    Ok(Forwarder { task, stats })
}

/// Where readings are written to.
fn target(settings: &Settings) -> Result<Target, String> {
    let mut query = format!("bucket={}&precision=ns", percent(&settings.bucket));
    if !settings.org.is_empty() {
        query = format!("org={}&{query}", percent(&settings.org));
    }
    settings.target.at("/api/v2/write", &query)
}

fn read_token(settings: &Settings) -> Result<Option<Secret>, String> {
    settings.token_file.as_deref().map(Secret::read).transpose()
}

/// What an answer means for the lines that were sent.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Taken,
    /// At least one of the lines will never be taken.
    Poison(String),
    TooLarge,
    /// The same again: after this time, or when backoff says.
    Later(Option<Duration>, String),
    /// The same again, but a person must do something first.
    Denied(String),
}

fn judge(answer: Result<Answer, String>) -> Verdict {
    let answer = match answer {
        Ok(answer) => answer,
        Err(why) => return Verdict::Later(None, why),
    };
    let said = said(&answer);
    match answer.status {
        200..=299 => Verdict::Taken,
        400 | 422 => Verdict::Poison(said),
        413 => Verdict::TooLarge,
        408 | 425 | 429 | 500..=599 => Verdict::Later(answer.retry_after, said),
        _ => Verdict::Denied(said),
    }
}

fn said(answer: &Answer) -> String {
    match without_home(&answer.words()) {
        words if words.is_empty() => format!("HTTP {}", answer.status),
        words => format!("HTTP {}: {words}", answer.status),
    }
}

/// So many full requests that wait are a backlog.
const BACKLOG: u64 = 4;

/// What a database says to a request that writes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tried {
    /// It would have taken readings, as far as it can be told without any.
    Taken,
    /// The token is none that may write there.
    Denied(String),
    /// There is no such bucket, or no such organisation.
    Unknown(String),
    /// It answers, and otherwise than a database does.
    Odd(String),
    /// The wire failed, or no answer came in time.
    Silent(String),
}

/// Posts no line at all to where readings would go: address, token and bucket are tried, and nothing is written. The error
/// says why nothing could be sent.
pub async fn probe(settings: &Settings) -> Result<Tried, String> {
    let http = Http::new(&target(settings)?)?;
    let post = Post { http, settings: settings.clone(), token: read_token(settings)?, stats: Arc::default() };
    Ok(tried(post.exchange(Bytes::new(), &[]).await))
}

fn tried(answer: Result<Answer, String>) -> Tried {
    match answer {
        // A body without a line is a fault of the line protocol to some, and nothing to others.
        Ok(Answer { status: 200..=299 | 400, .. }) => Tried::Taken,
        Ok(answer) if matches!(answer.status, 401 | 403) => Tried::Denied(said(&answer)),
        Ok(answer) if answer.status == 404 => Tried::Unknown(said(&answer)),
        Ok(answer) => Tried::Odd(said(&answer)),
        Err(why) => Tried::Silent(why),
    }
}

/// Which stretch of the queue a batch is from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Track {
    /// All of it, in order.
    #[default]
    Whole,
    /// What has come since the backlog was seen.
    Live,
    Backlog,
}

/// How far the queue has been sent. Ids of rows.
#[derive(Debug)]
struct Progress {
    /// Everything up to here has arrived: the cursor.
    through: i64,
    ahead: Option<Ahead>,
}

/// While a backlog waits.
#[derive(Debug)]
struct Ahead {
    /// The last row of the backlog.
    backlog: i64,
    /// From the one behind it up to here all has arrived.
    live: i64,
    /// ... so many readings.
    readings: u64,
    /// What is said now goes next from here on, the backlog before.
    due: Mono,
}

impl Progress {
    /// The stretch to take the next batch from: its track, behind which row, and the last row.
    fn next(&self, now: Mono, committed: i64) -> (Track, i64, i64) {
        match &self.ahead {
            None => (Track::Whole, self.through, i64::MAX),
            Some(ahead) if now >= ahead.due && committed > ahead.live => (Track::Live, ahead.live, i64::MAX),
            Some(ahead) => (Track::Backlog, self.through, ahead.backlog),
        }
    }

    /// Much waits: from the row behind `committed` on, readings go before it.
    fn handle_backlog(&mut self, now: Mono, committed: i64) {
        self.ahead = Some(Ahead { backlog: committed, live: committed, readings: 0, due: now });
    }

    /// A batch of so many readings up to this row has arrived. Live data come next after `pause`.
    fn handle_arrived(&mut self, now: Mono, track: Track, up_to: i64, readings: u64, pause: Duration) {
        match (&mut self.ahead, track) {
            (Some(ahead), Track::Live) => {
                (ahead.live, ahead.due) = (up_to, now.plus(pause));
                ahead.readings += readings;
            }
            _ => self.through = up_to,
        }
    }

    /// Readings behind the cursor that have arrived.
    fn ahead(&self) -> u64 {
        self.ahead.as_ref().map_or(0, |ahead| ahead.readings)
    }

    /// Nothing is left of the stretch, which was looked for when `committed` was the last row.
    fn handle_empty(&mut self, track: Track, committed: i64) {
        match (&mut self.ahead, track) {
            (Some(ahead), Track::Backlog) => {
                self.through = ahead.live;
                self.ahead = None;
            }
            (Some(ahead), Track::Live) => ahead.live = committed,
            _ => {}
        }
    }
}

/// The readings of a few rows of the queue as lines.
#[derive(Debug, Default)]
struct Batch {
    track: Track,
    /// The last row once all lines are through.
    up_to: i64,
    text: String,
    /// Where each line ends.
    ends: Vec<usize>,
    skipped: u64,
    /// What [`Source::tie`] was before, to make the same lines again.
    ties: Vec<(u32, Option<Tie>)>,
}

impl Batch {
    fn bytes(&self, lines: Range<usize>) -> &[u8] {
        let from = lines.start.checked_sub(1).map_or(0, |before| self.ends[before]);
        let to = lines.end.checked_sub(1).map_or(0, |last| self.ends[last]);
        &self.text.as_bytes()[from..to]
    }

    fn gzip(&self, lines: Range<usize>) -> Bytes {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        // Writing into a Vec cannot fail.
        let _ = encoder.write_all(self.bytes(lines));
        encoder.finish().unwrap_or_default().into()
    }
}

/// The queue's side: reads and encodes, on a thread that may wait for the disk.
struct Source {
    reader: Reader,
    naming: Naming,
    /// Heads of lines, one behind the other: one text instead of a hundred thousand small ones.
    heads: String,
    /// By the point's number.
    points: Vec<Known>,
    /// [`Known::tie`] for live data that go before a backlog.
    live_ties: HashMap<u32, Tie>,
}

/// A time in microseconds, and how many readings of a point had it before.
type Tie = (i64, u16);

/// What is known of a point that is forwarded.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// Where its head stands in [`Source::heads`]; empty while it is not loaded.
    from: u32,
    to: u32,
    tie: Option<Tie>,
}

impl Source {
    fn known(&mut self, point: u32) -> &mut Known {
        let number = point as usize;
        if self.points.len() <= number {
            self.points.resize(number + 1, Known::default());
        }
        &mut self.points[number]
    }

    fn tie(&self, track: Track, point: u32) -> Option<Tie> {
        match track {
            Track::Live => self.live_ties.get(&point).copied(),
            _ => self.points.get(point as usize)?.tie,
        }
    }

    fn set_tie(&mut self, track: Track, point: u32, tie: Option<Tie>) {
        match (track, tie) {
            (Track::Live, Some(tie)) => drop(self.live_ties.insert(point, tie)),
            (Track::Live, None) => drop(self.live_ties.remove(&point)),
            _ => self.known(point).tie = tie,
        }
    }

    /// Where the point's head stands, loaded once; `None` for one that the store does not know.
    fn head(&mut self, point: u32) -> Result<Option<Range<usize>>, StoreError> {
        if self.known(point).to == 0 {
            let Some(label) = self.reader.label(point)? else { return Ok(None) };
            let from = self.heads.len() as u32;
            self.heads.push_str(&line::head(&label, &self.naming));
            let to = self.heads.len() as u32;
            let known = self.known(point);
            (known.from, known.to) = (from, to);
        }
        let Known { from, to, .. } = *self.known(point);
        Ok(Some(from as usize..to as usize))
    }

    /// The next batch by `known`, which is found out first where it is not; `looks`: whether there may be a backlog.
    fn take_next(
        &mut self,
        known: &mut Option<Progress>,
        now: Mono,
        committed: i64,
        limit: usize,
        looks: bool,
    ) -> Result<(Track, Option<Batch>), StoreError> {
        let progress = match known {
            Some(progress) => progress,
            None => known.insert(Progress { through: self.reader.cursor()?, ahead: None }),
        };
        if looks && progress.ahead.is_none() && self.reader.behind(progress.through)? > limit as u64 * BACKLOG {
            progress.handle_backlog(now, committed);
        }
        let stretch = progress.next(now, committed);
        Ok((stretch.0, self.take(stretch, limit)?))
    }

    fn take(&mut self, (track, after, last): (Track, i64, i64), limit: usize) -> Result<Option<Batch>, StoreError> {
        let Some(taken) = self.reader.next_within(after, last, limit)? else {
            if track == Track::Backlog {
                for (point, tie) in std::mem::take(&mut self.live_ties) {
                    self.set_tie(track, point, Some(tie));
                }
            }
            return Ok(None);
        };
        let mut batch = Batch { track, up_to: taken.up_to, ..Batch::default() };
        batch.text.reserve(taken.samples.len() * 128);
        for sample in &taken.samples {
            if self.encode(sample, &mut batch)? {
                batch.ends.push(batch.text.len());
            } else {
                batch.skipped += 1;
            }
        }
        Ok(Some(batch))
    }

    /// Gives a batch back that is to be taken anew: the same readings then get the same time stamps.
    fn put_back(&mut self, batch: &Batch) {
        for (point, before) in batch.ties.iter().rev() {
            self.set_tie(batch.track, *point, *before);
        }
    }

    fn encode(&mut self, sample: &StoredSample, batch: &mut Batch) -> Result<bool, StoreError> {
        let head = self.head(sample.point)?;
        let time = sample.time.micros();
        let before = self.tie(batch.track, sample.point);
        // A thousand readings in one microsecond would run into the next one.
        let tie = before.filter(|(last, _)| *last == time).map_or(0, |(_, tie)| (tie + 1).min(999));
        self.set_tie(batch.track, sample.point, Some((time, tie)));
        batch.ties.push((sample.point, before));
        let Some(head) = head else { return Ok(false) };
        Ok(line::push(&mut batch.text, &self.heads[head], sample, tie).is_ok())
    }
}

/// Which lines of a batch to send next, and what is known about the rest.
#[derive(Debug)]
struct Parts {
    /// The next is the last.
    open: Vec<Part>,
    lines: usize,
    accepted: usize,
    /// The database took a line not long ago, so a few that it refuses are the fault of the lines.
    trusted: bool,
    /// Single lines that were refused before any was accepted: set aside only once the database is known to take others.
    suspects: Vec<usize>,
    refused: Vec<usize>,
    probes: Vec<usize>,
    probed: bool,
    requests: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    lines: Range<usize>,
    /// The part before it came out of the same refused part: if that one is accepted, the poison is in here.
    other_half: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Go,
    /// Single lines from all over the batch are refused: it is not the lines.
    RefusesAll,
}

impl Parts {
    fn new(lines: usize, limit: usize, trusted: bool) -> Self {
        let open = (0..lines)
            .step_by(limit.max(1))
            .map(|from| Part { lines: from..(from + limit.max(1)).min(lines), other_half: false })
            .rev()
            .collect();
        Self {
            open,
            lines,
            accepted: 0,
            trusted,
            suspects: Vec::new(),
            refused: Vec::new(),
            probes: Vec::new(),
            probed: false,
            requests: 0,
        }
    }

    fn next(&self) -> Option<Range<usize>> {
        self.probes.last().map(|line| *line..line + 1).or_else(|| self.open.last().map(|part| part.lines.clone()))
    }

    fn handle_taken(&mut self) {
        if self.probes.pop().is_some() {
            self.accepted += 1;
            self.probes.clear();
        } else if let Some(part) = self.open.pop() {
            self.accepted += part.lines.len();
            if self.open.last().is_some_and(|next| next.other_half && next.lines.start == part.lines.end) {
                self.halve();
            }
        }
        if self.accepted > 0 {
            self.refused.append(&mut self.suspects);
        }
    }

    fn handle_poison(&mut self) -> Step {
        if self.probes.pop().is_some() {
            return if self.probes.is_empty() { Step::RefusesAll } else { Step::Go };
        }
        self.know_nothing_of_the_other_half();
        let tired = self.requests > MOST_REQUESTS;
        match self.open.last() {
            Some(part) if part.lines.len() == 1 || (tired && part.lines.len() <= 64 && self.accepted > 0) => {
                let lines = part.lines.clone();
                self.open.pop();
                let aside = if self.accepted > 0 { &mut self.refused } else { &mut self.suspects };
                aside.extend(lines);
            }
            _ => self.halve(),
        }
        if self.accepted > 0 || self.probed {
            return Step::Go;
        }
        let many = self.suspects.len() >= PROBES / 2;
        if self.open.is_empty() && self.trusted && !many {
            self.refused.append(&mut self.suspects);
        } else if self.open.is_empty() || many {
            self.probed = true;
            let count = PROBES.min(self.lines);
            self.probes = (0..count).map(|n| n * self.lines / count).collect();
            self.probes.retain(|line| !self.suspects.contains(line));
            if self.probes.is_empty() {
                return Step::RefusesAll;
            }
        }
        Step::Go
    }

    /// False when it is one line already.
    fn handle_too_large(&mut self) -> bool {
        self.know_nothing_of_the_other_half();
        let single = self.open.last().is_some_and(|part| part.lines.len() == 1) || !self.probes.is_empty();
        if single {
            let lines = match self.probes.pop() {
                Some(_) => None,
                None => self.open.pop().map(|part| part.lines),
            };
            self.refused.extend(lines.into_iter().flatten());
        } else if let Some(part) = self.open.pop() {
            let middle = part.lines.start + part.lines.len() / 2;
            self.open.push(Part { lines: middle..part.lines.end, other_half: false });
            self.open.push(Part { lines: part.lines.start..middle, other_half: false });
        }
        !single
    }

    /// The last part is not accepted whole, so what made its sibling suspicious may lie in it.
    fn know_nothing_of_the_other_half(&mut self) {
        if let [.., other, part] = self.open.as_mut_slice()
            && other.lines.start == part.lines.end
        {
            other.other_half = false;
        }
    }

    fn halve(&mut self) {
        if let Some(part) = self.open.pop() {
            if part.lines.len() < 2 {
                // Never set aside by inference alone: it is sent once by itself.
                self.open.push(Part { other_half: false, ..part });
                return;
            }
            let middle = part.lines.start + part.lines.len() / 2;
            self.open.push(Part { lines: middle..part.lines.end, other_half: true });
            self.open.push(Part { lines: part.lines.start..middle, other_half: false });
        }
    }
}

/// One request and its verdict.
struct Post {
    http: Http,
    settings: Settings,
    token: Option<Secret>,
    stats: Arc<Stats>,
}

impl Post {
    async fn send(&self, body: Bytes) -> Verdict {
        self.stats.requests.fetch_add(1, Ordering::Relaxed);
        self.stats.bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
        let verdict = judge(self.exchange(body, &[("content-encoding", "gzip")]).await);
        if verdict != Verdict::Taken {
            self.stats.failures.fetch_add(1, Ordering::Relaxed);
        }
        verdict
    }

    async fn exchange(&self, body: Bytes, more: &[(&str, &str)]) -> Result<Answer, String> {
        let token = self.token.as_ref().map(|token| format!("Token {}", token.reveal()));
        let mut headers = vec![("content-type", "text/plain; charset=utf-8"), ("accept", "application/json")];
        headers.extend(more);
        if let Some(token) = &token {
            headers.push(("authorization", token));
        }
        self.http.exchange("", &headers, body, self.settings.timeout).await
    }

    /// What the database itself says about its health, our token and the bucket, where it can be asked.
    async fn diagnose(&self) -> Option<String> {
        let settings = &self.settings;
        // The client below resolves by itself and follows redirects: nobody could say where it goes.
        if settings.target.is_bound() {
            return None;
        }
        let origin = settings.target.origin();
        // influxdb2 panics on a URL that this cannot parse.
        url::Url::parse(&origin).ok()?;
        let token = self.token.as_ref().map_or("", |token| token.reveal());
        let client = influxdb2::Client::new(origin, &settings.org, token);
        let ask = async {
            let healthy = client.health().await;
            let request = influxdb2::api::buckets::ListBucketsRequest {
                name: Some(settings.bucket.clone()),
                org: (!settings.org.is_empty()).then(|| settings.org.clone()),
                ..Default::default()
            };
            (healthy, client.list_buckets(Some(request)).await)
        };
        let (healthy, buckets) = tokio::time::timeout(settings.timeout, ask).await.ok()?;
        let mut words = Vec::new();
        if let Ok(health) = healthy
            && health.status != influxdb2::models::health::Status::Pass
        {
            words.push(format!("the database says it is not well: {}", health.message.unwrap_or_default()));
        }
        match buckets {
            Ok(found) if found.buckets.is_empty() => {
                words.push(format!("there is no bucket {:?} in organization {:?}", settings.bucket, settings.org));
            }
            Ok(_) => words.push("the bucket is there, but this token may not write to it".to_owned()),
            Err(influxdb2::RequestError::Http { status, .. }) if status.as_u16() == 401 => {
                words.push("the token is not accepted".to_owned());
            }
            Err(_) => {}
        }
        (!words.is_empty()).then(|| excerpt(&words.join("; ")))
    }
}

/// Tells the main loop when forwarding fails and when it goes on.
struct Report {
    part: Arc<str>,
    bucket: String,
    clock: Clock,
    inputs: mpsc::Sender<Input>,
    failing_since: Option<Mono>,
    told: bool,
}

impl Report {
    /// False when the main loop is gone.
    async fn handle_failure(&mut self, why: &str, at_once: bool) -> bool {
        let now = self.clock.now().mono;
        let since = *self.failing_since.get_or_insert(now);
        if self.told || !(at_once || now.since(since) >= TROUBLE_AFTER) {
            return true;
        }
        self.told = true;
        tracing::error!(way_out = %self.part, why, "Readings cannot be forwarded. They are kept on disk and go out when it is possible again; alarms are not affected.");
        let trouble = PartTrouble {
            finding: Finding { level: Level::Blue, limit: None, note: None },
            message: Text {
                zh: format!("读数无法转发到时序数据库（{}）：{why}。读数暂存于本机，报警不受影响。", self.bucket),
                en: format!(
                    "Readings cannot be forwarded to the time-series database ({}): {why}. They are kept on this machine; alarms are not affected.",
                    self.bucket
                ),
            },
        };
        self.tell(Some(trouble)).await
    }

    async fn handle_success(&mut self) -> bool {
        self.failing_since = None;
        if !std::mem::take(&mut self.told) {
            return true;
        }
        tracing::info!(way_out = %self.part, "Readings are forwarded again.");
        self.tell(None).await
    }

    async fn tell(&self, trouble: Option<PartTrouble>) -> bool {
        self.inputs.send(Input::Part(PartState { part: Arc::clone(&self.part), trouble })).await.is_ok()
    }
}

/// The loop: wait for readings, take a batch, bring it through, move the cursor.
struct Lane {
    post: Post,
    report: Report,
    chance: Chance,
    /// Lines in one request; less than configured after a 413.
    limit: usize,
    failures: u32,
    /// It took a line since it last refused all of them.
    trusted: bool,
}

/// How far a batch came.
enum Carried {
    Through,
    /// Refused line by line: to be taken anew together with what has come since.
    Again,
    /// The main loop is gone.
    Gone,
}

impl Lane {
    async fn run(mut self, source: Source, mut committed: watch::Receiver<i64>) {
        let mut idle = Some(source);
        let mut known: Option<Progress> = None;
        // The last batch was a full request: much more may wait.
        let mut full = false;
        while let Some(mut source) = idle.take() {
            let limit = self.post.settings.batch_max;
            let (now, last) = (self.report.clock.now().mono, *committed.borrow());
            let looks = full;
            let taken = tokio::task::spawn_blocking(move || {
                let taken = source.take_next(&mut known, now, last, limit, looks);
                (source, known, taken)
            });
            // A panic in there is a defect; the batch is still on disk, the task ends and says so through its handle.
            let Ok((mut source, progress, taken)) = taken.await else { return };
            known = progress;
            full = false;
            match (taken, &mut known) {
                (Ok((track, Some(batch))), Some(progress)) => {
                    full = batch.ends.len() >= limit;
                    let batch = Arc::new(batch);
                    match self.carry(&batch).await {
                        Carried::Through => {
                            let (now, pause) = (self.report.clock.now().mono, self.post.settings.flush_interval);
                            let readings = batch.ends.len() as u64 + batch.skipped;
                            progress.handle_arrived(now, track, batch.up_to, readings, pause);
                            source.reader.forwarded_with(progress.through, progress.ahead());
                            if !full && track == Track::Whole {
                                tokio::time::sleep(pause).await;
                            }
                        }
                        Carried::Again => source.put_back(&batch),
                        Carried::Gone => return,
                    }
                }
                (Ok((Track::Whole, None)), Some(progress)) => {
                    let through = progress.through;
                    if committed.wait_for(|last| *last > through).await.is_err() {
                        return;
                    }
                }
                (Ok((track, None)), Some(progress)) => {
                    progress.handle_empty(track, last);
                    source.reader.forwarded_with(progress.through, progress.ahead());
                }
                (Ok(_), None) => {}
                (Err(error), _) => {
                    if !self.report.handle_failure(&error.to_string(), false).await {
                        return;
                    }
                    let wait = self.backoff();
                    tokio::time::sleep(wait).await;
                }
            }
            idle = Some(source);
        }
    }

    /// Brings one batch through, however long it takes.
    async fn carry(&mut self, batch: &Arc<Batch>) -> Carried {
        let mut parts = Parts::new(batch.ends.len(), self.limit, self.trusted);
        while let Some(lines) = parts.next() {
            let count = lines.len();
            let packing = Arc::clone(batch);
            let range = lines.clone();
            let Ok(body) = tokio::task::spawn_blocking(move || packing.gzip(range)).await else { return Carried::Gone };
            parts.requests += 1;
            match self.post.send(body).await {
                Verdict::Taken => {
                    parts.handle_taken();
                    self.failures = 0;
                    self.trusted = true;
                    self.limit = (self.limit + self.limit / 8 + 1).min(self.post.settings.batch_max);
                    if !self.report.handle_success().await {
                        return Carried::Gone;
                    }
                }
                Verdict::Poison(why) => {
                    let before = parts.refused.len();
                    match parts.handle_poison() {
                        Step::Go => {
                            for line in &parts.refused[before..] {
                                self.say_refused(batch, *line, &why);
                            }
                        }
                        Step::RefusesAll => {
                            self.trusted = false;
                            let words = format!("every line is refused: {why}");
                            if !self.wait_for_person(&words).await {
                                return Carried::Gone;
                            }
                            return Carried::Again;
                        }
                    }
                }
                Verdict::TooLarge => {
                    let before = parts.refused.len();
                    if parts.handle_too_large() {
                        self.limit = (count / 2).max(1);
                    }
                    for line in &parts.refused[before..] {
                        self.say_refused(batch, *line, "HTTP 413: too large");
                    }
                }
                Verdict::Later(asked, why) => {
                    let wait = asked.map_or_else(|| self.backoff(), |asked| asked.min(LONGEST_ASKED_WAIT));
                    tracing::debug!(way_out = %self.report.part, why, ?wait, "A batch of readings was not taken; the same again.");
                    if !self.report.handle_failure(&why, false).await {
                        return Carried::Gone;
                    }
                    tokio::time::sleep(wait).await;
                }
                Verdict::Denied(why) => {
                    if !self.wait_for_person(&why).await {
                        return Carried::Gone;
                    }
                }
            }
        }
        self.post.stats.skipped.fetch_add(batch.skipped, Ordering::Relaxed);
        let refused = parts.refused.len() as u64;
        self.post.stats.sent.fetch_add(batch.ends.len() as u64 - refused, Ordering::Relaxed);
        self.post.stats.refused.fetch_add(refused, Ordering::Relaxed);
        Carried::Through
    }

    async fn wait_for_person(&mut self, why: &str) -> bool {
        let said = match self.post.diagnose().await {
            Some(more) if !self.report.told => format!("{why} ({more})"),
            _ => why.to_owned(),
        };
        if !self.report.handle_failure(&said, true).await {
            return false;
        }
        tokio::time::sleep(self.backoff()).await;
        // The token may have been changed meanwhile; an unreadable file leaves the old one in force.
        if let Ok(token) = read_token(&self.post.settings) {
            self.post.token = token;
        }
        true
    }

    /// Full jitter: anything from nothing to the ceiling, which doubles from 0.5 s to 30 s.
    fn backoff(&mut self) -> Duration {
        let ceiling = BACKOFF_FIRST.saturating_mul(1 << self.failures.min(6)).min(BACKOFF_LONGEST);
        self.failures = self.failures.saturating_add(1);
        self.chance.up_to(ceiling)
    }

    /// The first of each run in full, then only every hundredth, so that a poisoned device does not fill the log.
    fn say_refused(&self, batch: &Batch, line: usize, why: &str) {
        let count = self.post.stats.refused.load(Ordering::Relaxed);
        if count < 10 || count.is_multiple_of(100) {
            let text = String::from_utf8_lossy(batch.bytes(line..line + 1));
            let line = without_home(&excerpt(text.trim_end()));
            tracing::error!(way_out = %self.report.part, why, ?line, refused = count + 1,
                "The database refuses a reading for ever. anmin sets it aside and sends the others.");
        }
    }
}

/// Percent-encoding for a query value (RFC 3986 section 2.3: unreserved characters stay).
fn percent(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

/// A line, or what a database says of one, without unit, floor and room and without texts of devices: this is for the log.
fn without_home(text: &str) -> String {
    let mut rest = text;
    let mut kept = String::with_capacity(text.len());
    while let Some((at, key)) =
        [",unit=", ",floor=", ",room=", " text="].iter().filter_map(|key| Some((rest.find(key)?, key))).min()
    {
        let (before, value) = rest.split_at(at + key.len());
        kept.push_str(before);
        kept.push('…');
        let ends = |c: char| if *key == " text=" { false } else { c == ',' || c == ' ' };
        // What is escaped belongs to the value.
        let mut escaped = false;
        let end = value.find(|c: char| !std::mem::replace(&mut escaped, c == '\\') && ends(c));
        rest = &value[end.unwrap_or(value.len())..];
    }
    kept + rest
}

#[cfg(test)]
mod tests;
