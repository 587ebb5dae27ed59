//! `[site]`, `[[place]]`, `[desk]`, `[storage]`: what the community is and how it is kept.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anmin_rules::broadcast::{Approval, Policy};
use anmin_rules::order::Station;
use anmin_rules::rule::{Level, Text};
use anmin_sensors::document::{Fault, Faults, Form, Reader, did_you_mean};
use anmin_sensors::point::Place;
use jiff::tz::TimeZone;

use super::sheet::{About, Row, Sheet};
use crate::delivery::Site;
use crate::store::audit;

/// `[site]`: the community itself.
pub fn site(r: &Reader<'_>) -> Option<Site> {
    let id: Option<String> = r.required("id");
    if let Some(id) = &id
        && (id.is_empty() || !id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_'))
    {
        r.fault(
            "id",
            format!("`site.id` is {id:?}, expected letters, digits, - and _"),
            Some("it becomes part of topics and CAP identifiers; the name may be Chinese".to_owned()),
        );
    }
    let plain = id.clone().unwrap_or_default();
    let name = text(r, "name").unwrap_or_else(|| Text { zh: plain.clone(), en: plain });
    let area_code: Option<String> = r.optional("area_code");
    if let Some(code) = &area_code
        && (code.len() != 12 || !code.bytes().all(|b| b.is_ascii_digit()))
    {
        r.fault("area_code", format!("`site.area_code` is {code:?}, expected 12 digits"), None);
    }
    let time_zone = time_zone(r);
    let exercise = r.or("exercise", false);
    r.finish();
    Some(Site { id: Arc::from(id?), name, area_code, time_zone, exercise })
}

/// `[site] time_zone`.
pub fn time_zone(r: &Reader<'_>) -> TimeZone {
    let zone: String = r.or("time_zone", "Asia/Shanghai".to_owned());
    TimeZone::get(&zone).unwrap_or_else(|_| {
        r.fault(
            "time_zone",
            format!("`site.time_zone` is {zone:?}, which is not a zone of the IANA database"),
            Some("such as \"Asia/Shanghai\"".to_owned()),
        );
        TimeZone::UTC
    })
}

/// `name = "春晖社区"` or `name = { zh = "春晖社区", en = "Chunhui" }`.
pub fn text(r: &Reader<'_>, key: &'static str) -> Option<Text> {
    r.takes(key, Form::Text);
    r.takes(key, Form::Table);
    if r.is_table(key) {
        let both = r.table(key)?;
        let (zh, en): (Option<String>, Option<String>) = (both.optional("zh"), both.optional("en"));
        both.finish();
        let zh = zh.or_else(|| en.clone()).unwrap_or_default();
        return Some(Text { en: en.unwrap_or_else(|| zh.clone()), zh });
    }
    r.optional(key).map(|one: String| Text::both(one))
}

/// `[[place]]`: a building or another area, and the stations that answer for it, nearest first.
#[derive(Clone, Debug)]
pub struct Area {
    pub place: Place,
    /// The responsible station, then its neighbours of the joint defence (联防).
    pub stations: Vec<String>,
    /// Where it stands in the file, for faults found later.
    pub stations_at: Fault,
}

impl Area {
    pub fn read(r: &Reader<'_>) -> Option<Self> {
        let area: Option<String> = r.required("id");
        let place = Place {
            area: area.clone().unwrap_or_default(),
            grid: r.or("grid", String::new()),
            building: r.or("building", String::new()),
            unit: r.or("unit", String::new()),
            floor: r.or("floor", String::new()),
            room: r.or("room", String::new()),
            position: position(r),
            polygon: polygon(r),
        };
        let stations = r.or("stations", Vec::new());
        let stations_at = r.place("stations");
        r.finish();
        area?;
        Some(Self { place, stations, stations_at })
    }
}

/// Reads a list of places, a CSV file as [`sheet`](super::sheet) understands it; every faulty row is noted and left out.
pub fn read_places(source: &str, text: &str, faults: &Faults) -> Vec<Area> {
    let sheet = match Sheet::parse_as(Some(About::Places), source, text) {
        Ok((About::Places, sheet)) => sheet,
        Ok((about @ (About::Devices | About::Points), _)) => {
            let message = match about {
                About::Points => "this is a table of points: it has a column `kind`".to_owned(),
                _ => "this is a list of devices: it has a column `profile`".to_owned(),
            };
            faults.note(Fault { source: source.to_owned(), line: 1, column: 1, message, hint: None, zh: None });
            return Vec::new();
        }
        Err(found) => {
            found.into_iter().for_each(|fault| faults.note(fault));
            return Vec::new();
        }
    };
    let area = |row: &Row| {
        let cell = |key: &str| sheet.cell(row, key).to_owned();
        let at = |key: &str, message: String| {
            let column = sheet.columns.iter().position(|column| column == key).map_or(1, |n| n + 1);
            Fault { source: source.to_owned(), line: row.line, column, message, hint: None, zh: None }
        };
        let degrees = |key: &str, most: f64| match cell(key) {
            text if text.is_empty() => Ok(None),
            text => match text.parse::<f64>() {
                Ok(number) if (-most..=most).contains(&number) => Ok(Some(number)),
                _ => Err(at(key, format!("`{key}` is {text:?}, expected degrees from -{most} to {most}"))),
            },
        };
        let position = match (degrees("latitude", 90.0)?, degrees("longitude", 180.0)?) {
            (None, None) => None,
            (Some(latitude), Some(longitude)) => Some((latitude, longitude)),
            _ => return Err(at("latitude", "`latitude` and `longitude` belong together".to_owned())),
        };
        // Corners as in the file, such as `36.06 103.83; 36.06 103.84; 36.07 103.84`.
        let corner = |text: &str| {
            let mut numbers = text.split_whitespace().map(str::parse::<f64>);
            match (numbers.next(), numbers.next(), numbers.next()) {
                (Some(Ok(lat)), Some(Ok(lon)), None) if on_earth(lat, lon) => Ok((lat, lon)),
                _ => Err(at("polygon", format!("`polygon` holds {text:?}, expected a latitude and a longitude"))),
            }
        };
        let polygon = match cell("polygon") {
            text if text.is_empty() => Vec::new(),
            text => {
                let corners = text.split([';', '；']).map(str::trim).filter(|text| !text.is_empty());
                let corners = corners.map(corner).collect::<Result<_, _>>()?;
                closed(corners).ok_or_else(|| at("polygon", BAD_POLYGON.to_owned()))?
            }
        };
        let place = Place {
            area: cell("id"),
            grid: cell("grid"),
            building: cell("building"),
            unit: cell("unit"),
            floor: cell("floor"),
            room: cell("room"),
            position,
            polygon,
        };
        let stations = cell("stations").split([';', '；', '、', ' ']).map(str::trim).map(str::to_owned).collect();
        Ok(Area { place, stations, stations_at: at("stations", String::new()) })
    };
    let read = sheet.rows.iter().map(area).filter_map(|area| area.map_err(|fault| faults.note(fault)).ok());
    read.map(|area| Area { stations: area.stations.into_iter().filter(|id: &String| !id.is_empty()).collect(), ..area })
        .collect()
}

/// `position = [36.0611, 103.8343]`: WGS-84 latitude and longitude.
fn position(r: &Reader<'_>) -> Option<(f64, f64)> {
    let numbers: Vec<f64> = r.optional("position")?;
    match numbers[..] {
        [lat, lon] if (-90.0..=90.0).contains(&lat) && (-180.0..=180.0).contains(&lon) => Some((lat, lon)),
        _ => {
            let hint = match numbers[..] {
                [lon, lat] if (-90.0..=90.0).contains(&lat) && (-180.0..=180.0).contains(&lon) => {
                    Some(format!("did you mean [{lat}, {lon}]?"))
                }
                _ => Some("such as [36.0611, 103.8343], WGS-84".to_owned()),
            };
            r.fault("position", format!("`position` is {numbers:?}, expected [latitude, longitude] in degrees"), hint);
            None
        }
    }
}

/// `polygon = [[36.06, 103.83], [36.06, 103.84], [36.07, 103.84]]`, closed by us where it is not.
pub fn polygon(r: &Reader<'_>) -> Vec<(f64, f64)> {
    let Some(corners) = r.optional::<Vec<Vec<f64>>>("polygon") else { return Vec::new() };
    let mut points = Vec::new();
    for corner in &corners {
        match corner[..] {
            [lat, lon] if on_earth(lat, lon) => points.push((lat, lon)),
            _ => r.fault("polygon", format!("`polygon` holds {corner:?}, expected [latitude, longitude]"), None),
        }
    }
    closed(points).unwrap_or_else(|| {
        r.fault("polygon", BAD_POLYGON, None);
        Vec::new()
    })
}

const BAD_POLYGON: &str = "`polygon` needs at least three corners and may not cross itself";

/// The corners with the first again at the end; `None` where they are no outline.
fn closed(mut points: Vec<(f64, f64)>) -> Option<Vec<(f64, f64)>> {
    if points.first() != points.last() {
        points.extend(points.first().copied());
    }
    (points.len() >= 4 && !crosses_itself(&points)).then_some(points)
}

pub fn on_earth(lat: f64, lon: f64) -> bool {
    (-90.0..=90.0).contains(&lat) && (-180.0..=180.0).contains(&lon)
}

/// Whether two sides that are not neighbours meet.
fn crosses_itself(points: &[(f64, f64)]) -> bool {
    let side = |p: (f64, f64), q: (f64, f64), r: (f64, f64)| (q.0 - p.0) * (r.1 - p.1) - (q.1 - p.1) * (r.0 - p.0);
    let sides: Vec<_> = points.windows(2).map(|pair| (pair[0], pair[1])).collect();
    sides.iter().enumerate().any(|(n, &(a, b))| {
        sides.iter().enumerate().skip(n + 2).any(|(m, &(c, d))| {
            let neighbours = n == 0 && m == sides.len() - 1;
            !neighbours && side(a, b, c) * side(a, b, d) < 0.0 && side(c, d, a) * side(c, d, b) < 0.0
        })
    })
}

/// `[desk]`: how alarms are handled.
#[derive(Clone, Copy, Debug)]
pub struct Desk {
    /// From this level on a station is called.
    pub call_level: Level,
    /// More alarms than so many in ten minutes are a storm.
    pub storm_alarms: usize,
    pub max_shelve: Duration,
    pub max_shelve_red: Duration,
}

/// Beyond it nobody would call it anything else than a storm.
const MOST_STORM_ALARMS: u32 = 10_000;

impl Default for Desk {
    fn default() -> Self {
        Self {
            call_level: Level::Orange,
            storm_alarms: 10,
            max_shelve: Duration::from_secs(4 * 3_600),
            max_shelve_red: Duration::from_secs(30 * 60),
        }
    }
}

impl Desk {
    pub fn read(r: &Reader<'_>) -> Self {
        let usual = Self::default();
        let storm_alarms = r.or("storm_alarms", usual.storm_alarms as u32);
        if !(1..=MOST_STORM_ALARMS).contains(&storm_alarms) {
            r.fault(
                "storm_alarms",
                format!("`desk.storm_alarms` is {storm_alarms}, expected 1 to {MOST_STORM_ALARMS}"),
                Some("alarms within ten minutes that one person can still look at one by one".to_owned()),
            );
        }
        let desk = Self {
            storm_alarms: storm_alarms as usize,
            call_level: r.choice("call_level", &Level::CHOICES).unwrap_or(usual.call_level),
            max_shelve: r.or("max_shelve", usual.max_shelve),
            max_shelve_red: r.or("max_shelve_red", usual.max_shelve_red),
        };
        r.finish();
        desk
    }
}

/// `[broadcast]`: who lets a warning leave the community.
pub fn broadcast(r: Option<&Reader<'_>>, name: &Text) -> Policy {
    let usual = Policy { name: name.clone(), ..Policy::default() };
    let Some(r) = r else { return usual };
    let within = r.or("approve_within", usual.within);
    if !APPROVE_WITHIN.contains(&within) {
        r.fault("approve_within", "`broadcast.approve_within` must lie between ten seconds and one hour", None);
    }
    let policy =
        Policy { approval: r.choice("approval", &Approval::CHOICES).unwrap_or(usual.approval), within, ..usual };
    r.finish();
    policy
}

const APPROVE_WITHIN: std::ops::RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(3_600);
/// `[log] level`: the least grave line that is said.
pub fn log_level(r: &Reader<'_>) -> Option<&'static str> {
    let level = r.choice("level", &["error", "warn", "info", "debug"].map(|word| (word, word)));
    r.finish();
    level
}

/// `[storage]`: where the two databases live, `data` beside the configuration unless said otherwise, and for how long the
/// audit is kept.
pub fn storage(r: Option<&Reader<'_>>, base: &Path) -> (PathBuf, Duration) {
    let mut audit_kept = audit::KEPT;
    let dir = r.and_then(|r| {
        let dir: Option<String> = r.optional("dir");
        if let Some(days) = r.optional::<u32>("audit_days") {
            if days > MOST_AUDIT_DAYS {
                let message =
                    format!("`storage.audit_days` is {days}, expected {LEAST_AUDIT_DAYS} to {MOST_AUDIT_DAYS}");
                r.fault("audit_days", message, None);
            } else if days < LEAST_AUDIT_DAYS {
                // A house goes on being watched, whatever the length of its log.
                let message = format!("`storage.audit_days` is {days}: {LEAST_AUDIT_DAYS} days are kept instead");
                let hint =
                    "logs of a network are kept for six months or more (网络安全法, on the keeping of network logs)";
                r.warn(Fault { message, hint: Some(hint.to_owned()), ..r.place("audit_days") });
            }
            audit_kept = Duration::from_secs(u64::from(days.max(LEAST_AUDIT_DAYS)) * 86_400);
        }
        r.finish();
        dir
    });
    (base.join(dir.unwrap_or_else(|| "data".to_owned())), audit_kept)
}

/// Six months: the Cybersecurity Law (网络安全法; article 21 (3) of the text of 2017, which the amendment in force since 2026
/// numbers anew) has whoever runs a network keep its logs for no less.
const LEAST_AUDIT_DAYS: u32 = 180;
/// A hundred years: what is for ever.
const MOST_AUDIT_DAYS: u32 = 36_525;

/// Areas by id, and the stations of each checked to exist. Faults go where the place was read.
pub fn station_lists(
    areas: &BTreeMap<String, Area>,
    stations: &[Station],
    mut fault: impl FnMut(Fault),
) -> BTreeMap<String, Vec<Arc<str>>> {
    let known = |id: &str| stations.iter().find(|station| &*station.id == id).map(|station| Arc::clone(&station.id));
    areas
        .iter()
        .map(|(id, area)| {
            let list = area
                .stations
                .iter()
                .filter_map(|name| {
                    known(name).or_else(|| {
                        fault(Fault {
                            message: format!("place {id:?} names station {name:?}, which does not exist"),
                            hint: did_you_mean(name, stations.iter().map(|station| &*station.id)),
                            ..area.stations_at.clone()
                        });
                        None
                    })
                })
                .collect();
            (id.clone(), list)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_places_tells_each_broken_outline_with_its_line_and_takes_the_others() {
        let text = "编号,楼栋,边界\n\
            b1,1,36.06 103.83; 36.06 103.84；36.07 103.84\n\
            b2,2,\n\
            b3,3,36.06 103.83; 36.06 103.84\n\
            b4,4,0 0; 1 1; 0 1; 1 0\n\
            b5,5,36.06 103.83; 36.06; 36.07 103.84\n\
            b6,6,96.06 103.83; 36.06 103.84; 36.07 103.84\n";
        let faults = Faults::default();
        let places = read_places("places.csv", text, &faults);
        let found: Vec<(&str, usize)> =
            places.iter().map(|area| (area.place.area.as_str(), area.place.polygon.len())).collect();
        assert_eq!(found, [("b1", 4), ("b2", 0)], "closed by us");
        let said: Vec<String> =
            faults.take().iter().map(|fault| format!("{}: {}", fault.line, fault.message)).collect();
        let shape = "`polygon` needs at least three corners and may not cross itself";
        let corner = |text: &str| format!("`polygon` holds {text:?}, expected a latitude and a longitude");
        assert_eq!(
            said,
            [
                format!("4: {shape}"),
                format!("5: {shape}"),
                format!("6: {}", corner("36.06")),
                format!("7: {}", corner("96.06 103.83"))
            ]
        );
    }
}
