//! `anmin replay`: rules on what was measured, thousands of times faster than life.
//!
//! Reads the history beside the running daemon, or a file; the rules run in threads of their own, one for each rule set.

pub mod readings;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use anmin_rules::library;
use anmin_rules::replay::{self, Differences, Occurrence, Pair, Replay, Run, Total, compare, differences};
use anmin_rules::rule::{Level, Text};
use anmin_rules::set::{BrokenRule, RuleSet};
use anmin_sensors::document::{Fault, Faults};
use anmin_sensors::point::{DeviceId, Kind, Place, PointIx, PointSpec, Points};
use anmin_sensors::reading::Sample;
use anmin_sensors::time::{Mono, Wall};
use clap::Args;
use jiff::tz::TimeZone;
use serde_json::{Value as Json, json};

use super::alarm;
use super::export::moment;
use super::keep::{Problem, end};
use super::table::Table;
use crate::clock::Clock;
use crate::config::files::{SiteFiles, rules_below};
use crate::config::{self, Config};
use crate::store::{History, Label, StoredSample};
use crate::web::wire;
use readings::{BadLine, Readings, Site};

/// `anmin replay`.
#[derive(Debug, Args)]
#[command(
    after_help = "The rules in force are those of the site's files. Without --rules or --site they are replayed; with one of\n\
    them the rules to try are, and --diff says what they would have changed.\n\
    Readings count at their own time with the quality that was written down, also those that came late. Windows and delays\n\
    are empty at the first. Nobody is called, and whoever is told acknowledges at once.\n\
    A moment is RFC 3339, such as 2026-01-31T08:00:00+08:00; or a day or a day and a time of the site's clocks, such as\n\
    2026-01-31 or 2026-01-31T08:00; or so long ago, such as 6h or 7d."
)]
pub struct Options {
    /// The site whose history is replayed and whose rules are in force: its folder or configuration file; /etc/anmin where
    /// nobody says, and no site at all beside --input.
    #[arg(value_name = "SITE")]
    of: Option<PathBuf>,
    /// Rules to try, over those in force: a folder of areas with rules, as a site's `rules`.
    #[arg(long, value_name = "DIR", conflicts_with = "site")]
    rules: Option<PathBuf>,
    /// A site to try: its rules and its overrides.
    #[arg(long, value_name = "DIR")]
    site: Option<PathBuf>,
    /// Compare with the rules in force: alarms gained, lost, earlier, later and of another level.
    #[arg(long)]
    diff: bool,
    /// Readings of this file in place of history: CSV or line protocol as `anmin export` writes them; - is standard input.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// The first moment; 7d for history and the beginning for a file where nobody says.
    #[arg(long, value_name = "MOMENT")]
    from: Option<String>,
    /// The first moment that is not replayed any more; now, or the last of a file, where nobody says.
    #[arg(long, value_name = "MOMENT")]
    to: Option<String>,
    /// Only totals, without each alarm.
    #[arg(long)]
    totals: bool,
    /// One object of JSON in place of text for people.
    #[arg(long)]
    json: bool,
}

pub fn run(options: &Options) -> ExitCode {
    end(|| {
        let past = Past::open(options)?;
        let tried = tried(options, past.site.as_deref())?;
        let clock = Clock::system();
        let began = clock.now().mono;
        let rules = tried.rules().len();
        // Two threads: one a rule set, or the two halves of the site.
        let other =
            if options.diff { in_force(past.site.as_deref()) } else { self::tried(options, past.site.as_deref()) }?;
        let (mut run, mut other, points) = past.replay([tried, other], !options.diff)?;
        if !options.diff {
            run.join(std::mem::take(&mut other));
        }
        let took = clock.now().mono.since(began);
        let in_force = options.diff.then_some(&other);
        let report = Report { run: &run, in_force, points, rules, took, past: &past };
        let said = if options.json { format!("{}\n", report.json()) } else { report.text(options.totals) };
        // A reader that has seen enough, such as `head`, is no failure of the command.
        let _ = io::stdout().write_all(said.as_bytes());
        Ok(())
    })
}

/// Where the readings come from.
pub(super) struct Past {
    zone: TimeZone,
    from: Wall,
    to: Wall,
    /// The site, where there is one.
    site: Option<PathBuf>,
    /// The site's own points; the files name others.
    points: Points,
    source: Source,
    /// By which clock until when; what is not replayed by then never is.
    pub(super) until: Option<(Clock, Mono)>,
}

enum Source {
    History { dir: PathBuf, points: Vec<(u32, Label)> },
    File(Readings),
}

impl Past {
    fn open(options: &Options) -> Result<Self, Problem> {
        let named = options.of.clone();
        let site = named.or_else(|| options.input.is_none().then(|| PathBuf::from("/etc/anmin")));
        let config = site.as_deref().map(load).transpose()?;
        if let (Some(site), Some(config)) = (&site, &config)
            && !config.broken_rules.is_empty()
        {
            eprintln!("{}", config::report_rules(site, &config.broken_rules, &config.rules));
        }
        let zone = config.as_ref().map_or(TimeZone::UTC, |config| config.site.time_zone.clone());
        let now = Clock::system().now().wall;
        let from = match (options.from.as_deref(), &options.input) {
            (Some(text), _) => moment(text, now, &zone)?,
            (None, None) => moment("7d", now, &zone)?,
            (None, Some(_)) => Wall::from_micros(i64::MIN),
        };
        let mut to = match (options.to.as_deref(), &options.input) {
            (Some(text), _) => moment(text, now, &zone)?,
            (None, None) => now,
            (None, Some(_)) => Wall::from_micros(i64::MAX),
        };
        let (storage, points) = config.map_or_else(Default::default, |config| (config.storage, config.points));
        let source = match &options.input {
            None => {
                let points = History::open(&storage)?.points(None, None, None)?;
                Source::History { dir: storage, points }
            }
            Some(path) => {
                let kind_of = |id: &str| points.find(id).map(|point| points.point(point).spec.kind);
                let site = Site { zone: &zone, kind_of: &kind_of, from, to };
                let readings = read(path, &site).map_err(|error| unreadable(path, &error))?;
                // A file ends with its last reading: what came after it nobody has written down.
                if options.to.is_none() {
                    to = readings.samples.last().map_or(now, |sample| sample.time);
                }
                Source::File(readings)
            }
        };
        Ok(Self { zone, from, to, site, points, source, until: None })
    }

    /// The history of a site.
    pub(super) fn of_history(config: Config, from: Wall, to: Wall) -> Result<Self, Problem> {
        let Config { site, storage, points, .. } = config;
        let known = History::open(&storage)?.points(None, None, None)?;
        let source = Source::History { dir: storage, points: known };
        Ok(Self { zone: site.time_zone, from, to, site: None, points, source, until: None })
    }

    /// Whether time has run out.
    pub(super) fn is_late(&self) -> bool {
        self.until.as_ref().is_some_and(|(clock, until)| clock.now().mono >= *until)
    }

    fn bad(&self) -> (&[BadLine], u64) {
        match &self.source {
            Source::History { .. } => (&[], 0),
            Source::File(readings) => (&readings.bad.0, readings.bad.1),
        }
    }

    /// Replays everything for each rule set, side by side; or for each a half of the site. Gives the runs and how many points
    /// there are.
    pub(super) fn replay(&self, rules: [RuleSet; 2], halves: bool) -> Result<(Run, Run, usize), Problem> {
        let labels: Vec<(u32, &Label)> = match &self.source {
            Source::History { points, .. } => points.iter().map(|(number, label)| (*number, label)).collect(),
            Source::File(readings) => (0..).zip(&readings.labels).collect(),
        };
        let (points, numbers) = with_labels(&self.points, &labels);
        let batch_of = |samples: &[StoredSample]| -> Arc<Vec<Sample>> {
            let each = samples.iter().filter_map(|sample| {
                let point = *numbers.get(&sample.point)?;
                Some(replay::sample(point, sample.time, sample.value.clone(), sample.quality))
            });
            Arc::new(each.collect())
        };
        let second = halves.then(|| replay::halves(&rules[0], &points));
        thread::scope(|scope| {
            let points = &points;
            let second = second.as_deref();
            let mut ways: Vec<SyncSender<Arc<Vec<Sample>>>> = Vec::new();
            let judges = rules.into_iter().zip([false, true]).map(|(rules, half)| {
                // A few batches wait; then whoever reads waits.
                let (way, batches) = sync_channel(4);
                ways.push(way);
                let own = move |point: PointIx| second.is_none_or(|second| second[point.0 as usize] == half);
                scope.spawn(move || judge(rules, points, own, &batches, self.to))
            });
            let judges: Vec<_> = judges.collect();
            let mut hand = |samples: &[StoredSample]| {
                let batch = batch_of(samples);
                !self.is_late() && ways.iter().all(|way| way.send(Arc::clone(&batch)).is_ok())
            };
            match &self.source {
                Source::History { dir, .. } => {
                    History::open(dir)?.sweep(self.from, self.to, |samples| hand(&samples))?;
                }
                Source::File(readings) => {
                    readings.samples.chunks(65_536).all(&mut hand);
                }
            }
            drop(ways);
            let mut runs = judges.into_iter().map(|judge| match judge.join() {
                Ok(run) => run,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            Ok((runs.next().unwrap_or_default(), runs.next().unwrap_or_default(), labels.len()))
        })
    }
}

fn judge(
    rules: RuleSet,
    points: &Points,
    own: impl Fn(PointIx) -> bool,
    batches: &Receiver<Arc<Vec<Sample>>>,
    to: Wall,
) -> Run {
    let mut replay = Replay::new(rules, points);
    for batch in batches {
        replay.handle_samples(points, batch.iter().filter(|sample| own(sample.point)), |_| {});
    }
    replay.finish(points, to, |_| {})
}

/// CSV or line protocol: the first line tells which.
fn read(path: &Path, site: &Site<'_>) -> io::Result<Readings> {
    let from: Box<dyn io::Read> =
        if path.as_os_str() == "-" { Box::new(io::stdin().lock()) } else { Box::new(File::open(path)?) };
    let mut from = BufReader::with_capacity(1 << 16, from);
    let mut start = Vec::new();
    io::Read::by_ref(&mut from).take(512).read_to_end(&mut start)?;
    let first = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let first = String::from_utf8_lossy(first);
    let cells: Vec<&str> = first.trim_start_matches('\u{feff}').trim_end().split(',').map(str::trim).collect();
    let whole = BufReader::new(io::Cursor::new(start.clone()).chain(from));
    if ["time", "point", "value"].iter().any(|name| cells.contains(name)) {
        readings::csv(whole, site)
    } else {
        readings::lines(whole, site)
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Problem {
    let path = path.display();
    let text = Text { zh: format!("无法读取 {path}：{error}"), en: format!("{path} cannot be read: {error}") };
    Problem { text, hint: None }
}

/// The site's points and those that only the labels know, and which is which.
fn with_labels(own: &Points, labels: &[(u32, &Label)]) -> (Points, HashMap<u32, PointIx>) {
    let mut points = Points::default();
    for (_, device) in own.devices() {
        let specs: Vec<_> = device.points().map(|point| Arc::clone(&own.point(point).spec)).collect();
        // They are a site's devices already, each with a name of its own.
        let _ = points.add(device.id.clone(), Some(&device.label()), &device.profile, &device.place, &specs);
    }
    let mut devices = BTreeMap::<&str, Vec<&Label>>::new();
    for (_, label) in labels.iter().filter(|(_, label)| own.find_device(&label.device).is_none()) {
        devices.entry(&label.device).or_default().push(label);
    }
    let nobody: Arc<str> = Arc::from("");
    for (device, labels) in devices {
        let place = Place {
            area: labels[0].area.clone(),
            grid: labels[0].grid.clone(),
            building: labels[0].building.clone(),
            unit: labels[0].unit.clone(),
            floor: labels[0].floor.clone(),
            room: labels[0].room.clone(),
            position: None,
            polygon: Vec::new(),
        };
        let spec = |label: &&Label| {
            let name = label.point.strip_prefix(device)?.strip_prefix('/')?;
            Some(Arc::new(PointSpec::plain(name, Kind::named(&label.kind)?)))
        };
        let specs: Vec<_> = labels.iter().filter_map(spec).collect();
        let _ = points.add(DeviceId::new(device), None, &nobody, &Arc::new(place), &specs);
    }
    let numbers = labels.iter().filter_map(|(number, label)| Some((*number, points.find(&label.point)?))).collect();
    (points, numbers)
}

/// The site's rules, or the shipped ones.
fn in_force(site: Option<&Path>) -> Result<RuleSet, Problem> {
    site.map_or_else(|| Ok(shipped(Vec::new())), |site| load(site).map(|config| config.rules))
}

/// The rules that are tried: those in force where none are named.
fn tried(options: &Options, site: Option<&Path>) -> Result<RuleSet, Problem> {
    match (&options.rules, &options.site) {
        (Some(folder), _) => {
            let (sources, broken) = rules_below(folder);
            if sources.is_empty() && broken.is_empty() {
                return Err(Problem {
                    text: Text {
                        zh: format!("{} 中没有规则", folder.display()),
                        en: format!("there are no rules in {}", folder.display()),
                    },
                    hint: Some(Text {
                        zh: "规则文件位于 区域/名称.toml 和 区域/名称.rhai".to_owned(),
                        en: "a rule's files are area/name.toml and area/name.rhai".to_owned(),
                    }),
                });
            }
            sound(&broken)?;
            let rules = match site {
                None => shipped(sources),
                Some(site) => {
                    let faults = Faults::default();
                    let mut files = SiteFiles::gather(site, &faults);
                    files.rules.extend(sources);
                    let config = Config::parse(&files, &faults);
                    match (config, faults.take()) {
                        (Some(config), faults) if faults.is_empty() => config.rules,
                        (_, faults) => return Err(faulty(&faults)),
                    }
                }
            };
            sound(rules.broken())?;
            Ok(rules)
        }
        (None, Some(site)) => {
            let config = load(site)?;
            sound(&config.broken_rules)?;
            Ok(config.rules)
        }
        (None, None) if options.diff => Err(Problem {
            text: Text {
                zh: "没有可与现行规则比较的规则".to_owned(), en: "there are no rules to compare".to_owned()
            },
            hint: Some(Text {
                zh: "用 --rules 或 --site 指明要试的规则".to_owned(),
                en: "name those to try with --rules or --site".to_owned(),
            }),
        }),
        (None, None) => in_force(site),
    }
}

/// The shipped rules and `more`.
fn shipped(more: Vec<anmin_rules::set::RuleSource>) -> RuleSet {
    RuleSet::load(library::shipped().into_iter().chain(more).collect(), Vec::new(), &Faults::default())
}

/// What is tried must be whole: a rule that is left out would look like alarms lost.
fn sound(broken: &[BrokenRule]) -> Result<(), Problem> {
    let faults: Vec<Fault> = broken.iter().flat_map(|rule| rule.faults.iter().cloned()).collect();
    if faults.is_empty() { Ok(()) } else { Err(faulty(&faults)) }
}

fn load(site: &Path) -> Result<Config, Problem> {
    Config::load(site).map_err(|faults| faulty(&faults))
}

fn faulty(faults: &[Fault]) -> Problem {
    let why: Vec<String> = faults.iter().map(ToString::to_string).collect();
    let en = format!("the rules or the site cannot be used\n{}", why.join("\n"));
    Problem { text: Text { zh: "规则或站点配置有误".to_owned(), en }, hint: None }
}

struct Report<'r> {
    run: &'r Run,
    in_force: Option<&'r Run>,
    points: usize,
    rules: usize,
    took: Duration,
    past: &'r Past,
}

/// What a pair is, in one word of JSON.
pub(super) fn change_of(pair: &Pair<'_>) -> &'static str {
    match pair.both() {
        None if pair.before.is_none() => "gained",
        None => "lost",
        Some((before, after)) if after.from < before.from => "earlier",
        Some((before, after)) if after.from > before.from => "later",
        Some(_) if !pair.is_same() => "other_level",
        Some(_) => "same",
    }
}

const CHANGES: [(&str, &str); 5] =
    [("gained", "新增"), ("lost", "消失"), ("earlier", "提前"), ("later", "推迟"), ("other_level", "级别不同")];

impl Report<'_> {
    fn lasted(&self) -> Duration {
        self.run.first.zip(self.run.last).map_or(Duration::ZERO, |(first, last)| last.since(first))
    }

    /// How many times faster than life.
    fn speed(&self) -> f64 {
        (self.lasted().as_secs_f64() / self.took.as_secs_f64().max(1e-6)).round()
    }

    fn at(&self, at: Wall) -> String {
        wire::stamp(at, &self.past.zone)
    }

    fn json(&self) -> Json {
        let (named, bad) = self.past.bad();
        let named: Vec<Json> =
            named.iter().map(|bad| json!({"line": bad.line, "column": bad.column, "why": bad.why})).collect();
        let mut all = json!({
            "from": self.run.first.map(|at| self.at(at)),
            "to": self.run.last.map(|at| self.at(at)),
            "readings": self.run.samples,
            "points": self.points,
            "rules": self.rules,
            "seconds": self.took.as_secs_f64(),
            "times_faster": self.speed(),
            "bad_lines": {"count": bad, "first": named},
            "alarms": self.run.occurrences.iter().map(|each| self.occurrence(self.run, each)).collect::<Vec<_>>(),
            "by_rule": totals(&self.run.totals(|each| each.rule.to_string())),
            "by_point": totals(&self.run.totals(|each| each.subject.as_str().to_owned())),
        });
        if let Some(in_force) = self.in_force {
            let pairs = compare(in_force, self.run);
            let changed: Vec<Json> = pairs
                .iter()
                .filter(|pair| !pair.is_same())
                .map(|pair| {
                    json!({
                        "change": change_of(pair),
                        "in_force": pair.before.map(|each| self.occurrence(in_force, each)),
                        "tried": pair.after.map(|each| self.occurrence(self.run, each)),
                    })
                })
                .collect();
            all["diff"] = json!({
                "total": counts(&differences(&pairs, |_| ()).remove(&()).unwrap_or_default()),
                "changed": changed,
                "by_rule": each_counts(&differences(&pairs, |each| each.rule.to_string())),
                "by_point": each_counts(&differences(&pairs, |each| each.subject.as_str().to_owned())),
            });
        }
        all
    }

    fn occurrence(&self, run: &Run, each: &Occurrence) -> Json {
        let levels = each.levels.iter().map(|(at, level)| json!({"at": self.at(*at), "level": level.as_str()}));
        json!({
            "rule": each.rule.as_str(),
            "subject": each.subject.as_str(),
            "class": each.class.as_str(),
            "level": each.peak.as_str(),
            "from": self.at(each.from),
            "to": each.to.map(|at| self.at(at)),
            "seconds": run.lasted(each).as_secs_f64(),
            "levels": levels.collect::<Vec<_>>(),
            "title": {"zh": each.title.zh, "en": each.title.en},
            "message": {"zh": each.message.zh, "en": each.message.en},
        })
    }

    fn text(&self, only_totals: bool) -> String {
        let Self { run, points, rules, .. } = self;
        let mut lines = Vec::new();
        let (named, bad) = self.past.bad();
        for BadLine { line, column, why } in named {
            lines.push(format!("{line}:{column}: {why}"));
        }
        if bad > 0 {
            lines.push(format!("读不懂的行 {bad} · lines that could not be read: {bad}"));
            lines.push(String::new());
        }
        let (samples, took, speed) = (run.samples, self.took.as_secs_f64(), self.speed());
        lines.push(format!(
            "{rules} 条规则回放 {points} 个测点的 {samples} 条读数，时长 {}，用时 {took:.1} 秒（{speed} 倍速）",
            span(self.lasted(), true)
        ));
        lines.push(format!(
            "{rules} rules on {samples} readings of {points} points over {}, in {took:.1} s: {speed} times faster than life",
            span(self.lasted(), false)
        ));
        match self.in_force {
            None => self.alarms(only_totals, &mut lines),
            Some(in_force) => self.changes(in_force, only_totals, &mut lines),
        }
        lines.join("\n") + "\n"
    }

    fn alarms(&self, only_totals: bool, lines: &mut Vec<String>) {
        let run = self.run;
        if !only_totals && !run.occurrences.is_empty() {
            let mut table = Table::default();
            for each in &run.occurrences {
                table.row([
                    alarm::moment(&self.at(each.from)),
                    alarm::level(each.peak.as_str()),
                    lasted(run, each),
                    each.rule.to_string(),
                    each.subject.as_str().to_owned(),
                ]);
            }
            section(lines, format!("报警 alarms: {}", run.occurrences.len()), &table);
        }
        let rows = |totals: &BTreeMap<String, Total>| {
            let mut table = Table::default();
            for (key, total) in totals {
                let by_level = Level::ALL.into_iter().rev().filter(|level| total.by_level[*level as usize] > 0);
                let by_level = by_level.map(|level| format!("{} {}", level.as_str(), total.by_level[level as usize]));
                table.row([
                    key.clone(),
                    total.raised.to_string(),
                    by_level.collect::<Vec<_>>().join(", "),
                    span(total.lasted, false),
                ]);
            }
            table
        };
        section(lines, "按规则 by rule".to_owned(), &rows(&run.totals(|each| each.rule.to_string())));
        section(lines, "按测点 by point".to_owned(), &rows(&run.totals(|each| each.subject.as_str().to_owned())));
        if run.occurrences.is_empty() {
            lines.extend([String::new(), "没有报警 · no alarms".to_owned()]);
        }
    }

    fn changes(&self, in_force: &Run, only_totals: bool, lines: &mut Vec<String>) {
        let pairs = compare(in_force, self.run);
        let words = |word: &str| {
            let zh = CHANGES.iter().find(|(each, _)| *each == word).map_or("", |(_, zh)| zh);
            format!("{zh} {}", word.replace('_', " "))
        };
        let total = differences(&pairs, |_| ()).remove(&()).unwrap_or_default();
        let Differences { same, gained, lost, earlier, later, other_level } = total;
        lines.push(String::new());
        lines.push(format!(
            "与现行规则相比：新增 {gained}，消失 {lost}，提前 {earlier}，推迟 {later}，级别不同 {other_level}，相同 {same}"
        ));
        lines.push(format!(
            "against the rules in force: gained {gained}, lost {lost}, earlier {earlier}, later {later}, of another level \
             {other_level}, the same {same}"
        ));
        if !only_totals {
            let mut table = Table::default();
            for pair in pairs.iter().filter(|pair| !pair.is_same()) {
                let each = pair.any();
                let (shift, level) = match pair.both() {
                    None => (String::new(), alarm::level(each.peak.as_str())),
                    Some((before, after)) => {
                        let shift = span(before.from.distance(after.from), false);
                        let (from, to) = (alarm::level(before.peak.as_str()), alarm::level(after.peak.as_str()));
                        let level = if from == to { to } else { format!("{from} → {to}") };
                        (if before.from == after.from { String::new() } else { shift }, level)
                    }
                };
                table.row([
                    words(change_of(pair)),
                    alarm::moment(&self.at(each.from)),
                    shift,
                    level,
                    each.rule.to_string(),
                    each.subject.as_str().to_owned(),
                ]);
            }
            section(lines, "变化 changes".to_owned(), &table);
        }
        let rows = |totals: &BTreeMap<String, Differences>| {
            let mut table = Table::default();
            for (key, each) in totals {
                let counts = [each.gained, each.lost, each.earlier, each.later, each.other_level];
                let said = CHANGES.iter().zip(counts).filter(|(_, count)| *count > 0);
                let said = said.map(|((word, _), count)| format!("{} {count}", words(word))).collect::<Vec<_>>();
                if !said.is_empty() {
                    table.row([key.clone(), said.join(", ")]);
                }
            }
            table
        };
        section(lines, "按规则 by rule".to_owned(), &rows(&differences(&pairs, |each| each.rule.to_string())));
        let by_point = differences(&pairs, |each| each.subject.as_str().to_owned());
        section(lines, "按测点 by point".to_owned(), &rows(&by_point));
    }
}

/// Rows under a title; nothing where there are none.
fn section(lines: &mut Vec<String>, title: String, table: &Table) {
    let rows = table.lines();
    if !rows.is_empty() {
        lines.extend([String::new(), title]);
        lines.extend(rows.iter().map(|line| format!("  {line}")));
    }
}

fn lasted(run: &Run, each: &Occurrence) -> String {
    let open = if each.to.is_none() { "+" } else { "" };
    format!("{}{open}", span(run.lasted(each), false))
}

/// The two largest parts of a time.
fn span(time: Duration, zh: bool) -> String {
    let seconds = time.as_secs();
    let units = if zh { ["天", "小时", "分", "秒"] } else { ["d", "h", "min", "s"] };
    let parts = [seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60];
    let first = parts.iter().position(|part| *part > 0).unwrap_or(3);
    let shown = parts.iter().zip(units).skip(first).take(2).map(|(part, unit)| format!("{part} {unit}"));
    shown.collect::<Vec<_>>().join(" ")
}

fn totals(totals: &BTreeMap<String, Total>) -> Json {
    let each = |total: &Total| {
        let levels: serde_json::Map<String, Json> = Level::ALL
            .into_iter()
            .map(|level| (level.as_str().to_owned(), total.by_level[level as usize].into()))
            .collect();
        json!({"raised": total.raised, "by_level": levels, "seconds": total.lasted.as_secs_f64()})
    };
    totals.iter().map(|(key, total)| (key.clone(), each(total))).collect::<serde_json::Map<_, _>>().into()
}

fn counts(each: &Differences) -> Json {
    let Differences { same, gained, lost, earlier, later, other_level } = each;
    json!({"same": same, "gained": gained, "lost": lost, "earlier": earlier, "later": later, "other_level": other_level})
}

fn each_counts(all: &BTreeMap<String, Differences>) -> Json {
    all.iter().map(|(key, each)| (key.clone(), counts(each))).collect::<serde_json::Map<_, _>>().into()
}
