//! `anmin export`: the history of points, one reading a line, as a stream.
//!
//! Reads beside the running daemon and holds one block of history in memory, however much is written.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anmin_rules::rule::Text;
use anmin_sensors::document::parse_duration;
use anmin_sensors::point::Kind;
use anmin_sensors::reading::Value;
use anmin_sensors::time::Wall;
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::keep::{Problem, end, storage_of};
use crate::clock::Clock;
use crate::delivery::influx::line::{self, Naming};
use crate::store::{History, Label, StoredSample};
use crate::web::audit::cell_of;

/// `anmin export`.
#[derive(Debug, Args)]
#[command(
    after_help = "A moment is RFC 3339, such as 2026-01-31T08:00:00+08:00; or a day or a day and a time of the site's \
    clocks, such as 2026-01-31 or 2026-01-31T08:00; or so long ago, such as 6h or 7d.\n\
    Columns of CSV: time, point, device, kind, building, unit, floor, room, value, value_unit, quality, reason."
)]
pub struct Options {
    /// The site's folder, or its configuration file.
    #[arg(default_value = "/etc/anmin")]
    site: PathBuf,
    /// Only this point, such as 101-smoke/smoke.
    #[arg(long)]
    point: Option<String>,
    /// Only this device's points.
    #[arg(long)]
    device: Option<String>,
    /// Only points of this kind, such as gas.lel.
    #[arg(long, value_parser = kind)]
    kind: Option<String>,
    /// The first moment.
    #[arg(long, default_value = "1d", value_name = "MOMENT")]
    from: String,
    /// The first moment that is not written any more; now where nobody says.
    #[arg(long, value_name = "MOMENT")]
    to: Option<String>,
    #[arg(long, value_enum, default_value_t = Format::Csv)]
    format: Format,
    /// The file to write; standard output where nobody says.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For spreadsheets; text that a spreadsheet would take for a formula begins with an apostrophe.
    Csv,
    /// InfluxDB line protocol, as the ways out to databases write it.
    Lines,
}

fn kind(word: &str) -> Result<String, String> {
    Kind::named(word).map(|kind| kind.as_str().to_owned()).ok_or_else(|| "not a kind of point".to_owned())
}

pub fn run(options: &Options) -> ExitCode {
    end(|| {
        let (storage, zone) = storage_of(&options.site)?;
        let now = Clock::system().now().wall;
        let from = moment(&options.from, now, &zone)?;
        let to = options.to.as_deref().map_or(Ok(now), |text| moment(text, now, &zone))?;
        let mut history = History::open(&storage)?;
        let filters = [&options.point, &options.device, &options.kind].map(Option::as_deref);
        let points = history.points(filters[0], filters[1], filters[2])?;
        if points.is_empty() && filters.iter().any(Option::is_some) {
            return Err(Problem {
                text: Text {
                    zh: "没有这样的测点，或尚无读数".to_owned(),
                    en: "there is no such point, or nothing was ever heard of it".to_owned(),
                },
                hint: None,
            });
        }
        let failed = |error: io::Error| Problem {
            text: Text { zh: format!("写入失败：{error}"), en: format!("it cannot be written: {error}") },
            hint: None,
        };
        let out: Box<dyn Write> = match &options.output {
            Some(path) => Box::new(File::create(path).map_err(failed)?),
            None => Box::new(io::stdout().lock()),
        };
        let mut out = BufWriter::with_capacity(64 << 10, out);
        match write(&mut history, &points, from, to, options.format, &zone, &mut out) {
            // A reader that has seen enough, such as `head`, is no failure of the command.
            Err(Failure::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(Failure::Write(error)) => Err(failed(error)),
            Err(Failure::Read(problem)) => Err(problem),
            Ok(()) => Ok(()),
        }
    })
}

enum Failure {
    Write(io::Error),
    Read(Problem),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

fn write(
    history: &mut History,
    points: &[(u32, Label)],
    from: Wall,
    to: Wall,
    format: Format,
    zone: &TimeZone,
    out: &mut impl Write,
) -> Result<(), Failure> {
    if format == Format::Csv {
        writeln!(out, "time,point,device,kind,building,unit,floor,room,value,value_unit,quality,reason")?;
    }
    for (number, label) in points {
        let mut result = Ok(());
        let head = match format {
            Format::Csv => csv_head(label),
            Format::Lines => line::head(label, &Naming::default()),
        };
        let unit = Kind::named(&label.kind).map_or("", |kind| kind.info().unit);
        let mut text = String::new();
        let (mut last, mut tie) = (None, 0);
        let each = |sample: StoredSample| {
            text.clear();
            match format {
                Format::Csv => csv_row(&mut text, &head, unit, &sample, zone),
                Format::Lines => {
                    // Readings of one moment get a nanosecond more each, as on the way to a database.
                    tie = if last == Some(sample.time) { (tie + 1).min(999) } else { 0 };
                    last = Some(sample.time);
                    // A time or a number that no database takes is left out, as there.
                    let _ = line::push(&mut text, &head, &sample, tie);
                }
            }
            result = out.write_all(text.as_bytes());
            result.is_ok()
        };
        history.stream(*number, from, to, each).map_err(|error| Failure::Read(error.into()))?;
        result?;
    }
    Ok(out.flush()?)
}

/// The cells between time and value.
fn csv_head(label: &Label) -> String {
    let cells = [&label.point, &label.device, &label.kind, &label.building, &label.unit, &label.floor, &label.room];
    cells.map(|cell| cell_of(cell)).join(",")
}

fn csv_row(text: &mut String, head: &str, unit: &str, sample: &StoredSample, zone: &TimeZone) {
    let time = Timestamp::from_microsecond(sample.time.micros()).map_or_else(
        |_| sample.time.micros().to_string(),
        |at| at.to_zoned_datetime(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%.6f%:z").to_string(),
    );
    let value = match &sample.value {
        Some(Value::Number(number)) => format!("{number}"),
        Some(Value::Flag(flag)) => flag.to_string(),
        Some(Value::Text(words)) => cell_of(words),
        None => String::new(),
    };
    let (unit, reason) = (cell_of(unit), sample.quality.reason());
    text.push_str(&format!("{time},{head},{value},{unit},{},{reason}\n", sample.quality.as_str()));
}

/// A moment as people write it.
pub(super) fn moment(text: &str, now: Wall, zone: &TimeZone) -> Result<Wall, Problem> {
    let ago = || {
        parse_duration(text).map(|ago| now.micros().saturating_sub(i64::try_from(ago.as_micros()).unwrap_or(i64::MAX)))
    };
    let absolute = || text.parse::<Timestamp>().ok().map(Timestamp::as_microsecond);
    let local = || {
        let day = text.parse::<DateTime>().ok()?;
        Some(zone.to_ambiguous_zoned_datetime(day).compatible().ok()?.timestamp().as_microsecond())
    };
    ago().or_else(absolute).or_else(local).map(Wall::from_micros).ok_or_else(|| Problem {
        text: Text { zh: format!("{text:?} 不是时间"), en: format!("{text:?} is no moment") },
        hint: Some(Text {
            zh: "例如 2026-01-31T08:00:00+08:00、2026-01-31 或 6h（六小时前）".to_owned(),
            en: "such as 2026-01-31T08:00:00+08:00, 2026-01-31, or 6h for six hours ago".to_owned(),
        }),
    })
}

#[cfg(test)]
mod tests {
    use anmin_sensors::reading::{Fault, Quality};

    use super::*;

    #[test]
    fn no_cell_of_text_is_a_formula_and_every_cell_is_one_cell() {
        for (text, cell) in [
            ("101-smoke/smoke", "101-smoke/smoke"),
            ("=HYPERLINK(\"http://x\")", "\"'=HYPERLINK(\"\"http://x\"\")\""),
            ("+1", "'+1"),
            ("-2楼", "'-2楼"),
            ("@sum", "'@sum"),
            ("\t=1", "'\t=1"),
            ("a,b", "\"a,b\""),
            ("a\nb", "\"a\nb\""),
            ("", ""),
        ] {
            assert_eq!(cell_of(text), cell, "{text:?}");
        }
    }

    #[test]
    fn a_row_says_what_was_measured_by_the_sites_clocks() {
        let zone = TimeZone::fixed(jiff::tz::offset(8));
        let time = Wall::from_micros(1_772_328_600_250_001);
        let row = |value, quality| {
            let mut text = String::new();
            csv_row(&mut text, "p", "°C", &StoredSample { point: 1, time, value, quality }, &zone);
            text
        };
        let at = "2026-03-01T09:30:00.250001+08:00";
        assert_eq!(row(Some(Value::Number(-3.5)), Quality::Good), format!("{at},p,-3.5,°C,good,\n"));
        assert_eq!(row(Some(Value::Flag(true)), Quality::Good), format!("{at},p,true,°C,good,\n"));
        assert_eq!(row(None, Quality::Bad(Fault::Comms)), format!("{at},p,,°C,bad,comms\n"));
    }

    #[test]
    fn moments_are_read_as_people_write_them() {
        let zone = TimeZone::fixed(jiff::tz::offset(8));
        let now = Wall::from_millis(1_772_328_600_000);
        for (text, millis) in [
            ("2026-03-01T09:30:00+08:00", Some(1_772_328_600_000)),
            ("2026-03-01T01:30:00Z", Some(1_772_328_600_000)),
            ("2026-03-01T09:30", Some(1_772_328_600_000)),
            ("2026-03-01 09:30:00", Some(1_772_328_600_000)),
            ("2026-03-01", Some(1_772_294_400_000)),
            ("90s", Some(1_772_328_510_000)),
            ("1d", Some(1_772_242_200_000)),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(moment(text, now, &zone).ok().map(Wall::millis), millis, "{text}");
        }
    }
}
