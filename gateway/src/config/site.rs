//! `[site]`, `[[place]]`, `[[station]]`, `[desk]`, `[storage]`: what the community is and who answers for it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anmin_rules::order::Station;
use anmin_rules::rule::{Level, Text};
use anmin_sensors::document::{ByteSize, Fault, Reader, did_you_mean};
use anmin_sensors::point::Place;

/// `[site]`: the community itself.
#[derive(Clone, Debug)]
pub struct Site {
    /// Part of topics, CAP identifiers and the database's tags: letters, digits, `-` and `_`.
    pub id: String,
    pub name: Text,
    /// 12-digit code of the village or residents' committee (GB/T 10114 extension of GB/T 2260).
    pub area_code: Option<String>,
    /// Everything that leaves is marked as an exercise.
    pub exercise: bool,
}

impl Site {
    pub fn read(r: &Reader<'_>) -> Option<Self> {
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
        let name = text(r, "name").unwrap_or_default();
        let area_code: Option<String> = r.optional("area_code");
        if let Some(code) = &area_code
            && (code.len() != 12 || !code.bytes().all(|b| b.is_ascii_digit()))
        {
            r.fault("area_code", format!("`site.area_code` is {code:?}, expected 12 digits"), None);
        }
        let exercise = r.or("exercise", false);
        r.finish();
        Some(Self { id: id?, name, area_code, exercise })
    }
}

/// `name = "春晖社区"` or `name = { zh = "春晖社区", en = "Chunhui" }`.
pub fn text(r: &Reader<'_>, key: &'static str) -> Option<Text> {
    if !r.has(key) {
        return None;
    }
    if r.is_table(key) {
        let both = r.table(key)?;
        let (zh, en): (Option<String>, Option<String>) = (both.optional("zh"), both.optional("en"));
        both.finish();
        let zh = zh.or_else(|| en.clone()).unwrap_or_default();
        return Some(Text { en: en.unwrap_or_else(|| zh.clone()), zh });
    }
    let one: String = r.optional(key)?;
    Some(Text { zh: one.clone(), en: one })
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
        };
        let stations = r.or("stations", Vec::new());
        let stations_at = r.place("stations");
        r.finish();
        area?;
        Some(Self { place, stations, stations_at })
    }
}

/// `position = [36.0611, 103.8343]`: WGS-84 latitude and longitude.
fn position(r: &Reader<'_>) -> Option<(f64, f64)> {
    let numbers: Vec<f64> = r.optional("position")?;
    match numbers[..] {
        [lat, lon] if (-90.0..=90.0).contains(&lat) && (-180.0..=180.0).contains(&lon) => Some((lat, lon)),
        _ => {
            r.fault("position", "`position` is not [latitude, longitude] in degrees", None);
            None
        }
    }
}

/// `[[station]]`: a micro fire station (微型消防站).
pub fn station(r: &Reader<'_>) -> Option<Station> {
    let id: Option<String> = r.required("id");
    let name: Option<String> = r.optional("name");
    let station = Station {
        name: name.or_else(|| id.clone()).unwrap_or_default(),
        phone: r.or("phone", String::new()),
        respond_within: r.or("respond_within", Duration::from_secs(60)),
        arrive_within: r.or("arrive_within", Duration::from_secs(180)),
        id: Arc::from(id.as_deref().unwrap_or_default()),
    };
    r.finish();
    id.map(|_| station)
}

/// `[desk]`: how alarms are handled.
#[derive(Clone, Copy, Debug)]
pub struct Desk {
    /// From this level on a station is called.
    pub call_level: Level,
    pub max_shelve: Duration,
    pub max_shelve_red: Duration,
}

impl Default for Desk {
    fn default() -> Self {
        Self {
            call_level: Level::Orange,
            max_shelve: Duration::from_secs(4 * 3_600),
            max_shelve_red: Duration::from_secs(30 * 60),
        }
    }
}

impl Desk {
    pub fn read(r: &Reader<'_>) -> Self {
        let usual = Self::default();
        let desk = Self {
            call_level: r.choice("call_level", &Level::CHOICES).unwrap_or(usual.call_level),
            max_shelve: r.or("max_shelve", usual.max_shelve),
            max_shelve_red: r.or("max_shelve_red", usual.max_shelve_red),
        };
        r.finish();
        desk
    }
}

/// `[storage]`: where the two databases live and how large the readings may grow.
#[derive(Clone, Debug)]
pub struct Storage {
    pub dir: PathBuf,
    pub max_bytes: u64,
    pub max_age: Duration,
}

impl Storage {
    pub fn usual(base: &Path) -> Self {
        Self { dir: base.join("data"), max_bytes: 2 << 30, max_age: Duration::from_secs(30 * 86_400) }
    }

    pub fn read(r: &Reader<'_>, base: &Path) -> Self {
        let usual = Self::usual(base);
        let storage = Self {
            dir: r.optional::<String>("dir").map_or(usual.dir, |dir| base.join(dir)),
            max_bytes: r.or("max_bytes", ByteSize(usual.max_bytes)).0,
            max_age: r.or("max_age", usual.max_age),
        };
        r.finish();
        storage
    }
}

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
