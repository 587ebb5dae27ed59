//! Text to configuration: all faults at once, with file, line, column and hint.
//!
//! `run` and `check` share this parser, so what `check` accepts `run` starts with. A key that is not known is a fault;
//! so is a name that leads nowhere. Each room reads its own settings; this one reads what ties them together.

pub mod devices;
pub mod files;
pub mod site;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anmin_rules::library;
use anmin_rules::order::{Channel, Station};
use anmin_rules::response::DeskSettings;
use anmin_rules::set::{Override, RuleSet};
use anmin_sensors::document::{Document, Fault, Faults, Reader, did_you_mean};
use anmin_sensors::point::{DeviceId, Place, Points};
use anmin_sensors::poll::UnitPlan;
use anmin_sensors::profile::{Profile, Profiles};
use anmin_sensors::router::Mapping;
use anmin_sensors::validator;

use crate::delivery::{Site, broadcast, influx, mqtt_out, webhook};
use crate::intake::{broker, modbus, mqtt};
use crate::store::readings::Limits;
use crate::web;

use files::SiteFiles;
use site::{Area, Desk};

/// A whole site, sound.
pub struct Config {
    pub site: Site,
    /// Where the two databases live.
    pub storage: PathBuf,
    pub limits: Limits,
    pub validation: validator::Settings,
    pub desk: DeskSettings,
    pub places: HashMap<String, Arc<Place>>,
    pub profiles: Profiles,
    pub points: Points,
    /// By broker: the id of its `[[mqtt]]`, or `broker` for the embedded one.
    pub mappings: Vec<(Arc<str>, Vec<Mapping>)>,
    /// The embedded broker: on where the site names no outside one.
    pub broker: Option<broker::Settings>,
    pub mqtt: Vec<mqtt::Settings>,
    pub buses: Vec<Bus>,
    pub mqtt_out: Vec<mqtt_out::Settings>,
    pub webhooks: Vec<webhook::Settings>,
    pub caps: Vec<broadcast::Settings>,
    pub influx: Vec<influx::Settings>,
    pub web: web::Settings,
    pub rules: RuleSet,
    /// Rules of the site's own that are not sound; a sound configuration has none.
    pub base: PathBuf,
}

/// A bus with the devices on it.
pub struct Bus {
    pub settings: modbus::Settings,
    pub units: Vec<UnitPlan>,
}

impl Config {
    /// Reads the site at `path`; on any fault nothing but the faults.
    pub fn load(path: &Path) -> Result<Self, Vec<Fault>> {
        let faults = Faults::default();
        let files = SiteFiles::gather(path, &faults);
        let config = Self::parse(&files, &faults);
        let found = faults.take();
        match config {
            Some(config) if found.is_empty() => Ok(config),
            _ => Err(found),
        }
    }

    /// Reads the texts of a site. Every fault is noted; `None` where too little is left to go on.
    pub fn parse(files: &SiteFiles, faults: &Faults) -> Option<Self> {
        let base = files.base.as_path();
        let documents = documents(files, faults);
        let roots: Vec<Reader<'_>> = documents.iter().map(|document| document.root(faults)).collect();
        let all = |key: &'static str| roots.iter().flat_map(move |root| root.tables(key)).collect::<Vec<_>>();

        let site = one(&roots, "site");
        if site.is_none() && !roots.is_empty() {
            roots[0].fault("site", "`[site]` is missing", Some("[site] id = \"my-community\"".to_owned()));
        }
        let site = site.as_ref().and_then(site::site);
        let storage = site::storage(one(&roots, "storage").as_ref(), base);
        let limits = one(&roots, "readings").map_or(Some(Limits::default()), |r| Limits::read(&r));
        let validation = one(&roots, "validation").map(|r| validator::Settings::read(&r)).unwrap_or_default();
        let web = one(&roots, "web").map_or(Some(web::Settings::default()), |r| web::Settings::read(&r, base));
        let desk = one(&roots, "desk").map_or_else(Desk::default, |r| Desk::read(&r));

        let stations: Vec<Station> = all("station").iter().filter_map(site::station).collect();
        let mut areas: BTreeMap<String, Area> = BTreeMap::new();
        for area in all("place").iter().filter_map(Area::read) {
            if let Some(twice) = areas.insert(area.place.area.clone(), area) {
                let message = format!("place {:?} is there twice", twice.place.area);
                faults.note(Fault { message, ..twice.stations_at });
            }
        }
        let lists = site::station_lists(&areas, &stations, |fault| faults.note(fault));

        let profiles = profiles(files, faults);
        let mqtt_tables = all("mqtt");
        let mqtt: Vec<mqtt::Settings> = mqtt_tables.iter().filter_map(|r| mqtt::Settings::read(r, base)).collect();
        let mappings_of = |r: &Reader<'_>| -> Vec<Mapping> {
            let mappings = r.tables("mapping").iter().filter_map(|r| Mapping::read(r, &profiles)).collect::<Vec<_>>();
            Mapping::check_overlaps(&mappings, faults);
            mappings
        };
        let mut mappings: Vec<(Arc<str>, Vec<Mapping>)> = mqtt_tables
            .iter()
            .map(|r| (Arc::from(r.optional::<String>("id").unwrap_or_default()), mappings_of(r)))
            .collect();
        let broker_table = one(&roots, "broker");
        let broker = match &broker_table {
            Some(r) => {
                mappings.push((Arc::from("broker"), mappings_of(r)));
                broker::Settings::read(r, base)
            }
            None => mqtt_tables.is_empty().then(broker::Settings::default),
        };

        let bus_settings: Vec<modbus::Settings> =
            all("bus").iter().filter_map(|r| modbus::Settings::read(r, base)).collect();
        let mut entries: Vec<devices::Entry> = all("device").iter().filter_map(devices::Entry::read).collect();
        for list in all("device_list") {
            if let Some(file) = list.required::<String>("file")
                && let Some(source) = files::read(&base.join(file), faults)
            {
                entries.extend(devices::read_csv(&source.name, &source.text, faults));
            }
            list.finish();
        }

        let overrides: Vec<Override> = all("override").iter().filter_map(Override::read).collect();
        let mqtt_out: Vec<_> = all("mqtt_out").iter().filter_map(|r| mqtt_out::Settings::read(r, base)).collect();
        let webhooks: Vec<_> = all("webhook").iter().filter_map(|r| webhook::Settings::read(r, base)).collect();
        let caps: Vec<_> = all("cap").iter().filter_map(|r| broadcast::Settings::read(r, base)).collect();
        let influx: Vec<_> = all("influx").iter().filter_map(|r| influx::Settings::read(r, base)).collect();
        for root in &roots {
            root.finish();
        }

        let channels: Vec<Channel> = mqtt_out
            .iter()
            .map(|out| out.channel.clone())
            .chain(webhooks.iter().map(|out| out.channel.clone()))
            .chain(caps.iter().map(|out| out.channel.clone()))
            .collect();

        let places: HashMap<String, Arc<Place>> =
            areas.into_iter().map(|(id, area)| (id, Arc::new(area.place))).collect();
        let mut points = Points::default();
        let buses = hang(&entries, &profiles, &places, bus_settings, &mut points, faults);

        let mut sources = library::shipped();
        sources.extend(files.rules.iter().cloned());
        let rules = RuleSet::load(sources, overrides, faults);

        let site = site?;
        Some(Self {
            storage,
            limits: limits?,
            validation,
            desk: DeskSettings {
                site: site.id.to_string(),
                stations,
                areas: lists,
                call_level: desk.call_level,
                channels,
                max_shelve: desk.max_shelve,
                max_shelve_red: desk.max_shelve_red,
                ..DeskSettings::default()
            },
            site,
            places,
            profiles,
            points,
            mappings,
            broker,
            mqtt,
            buses,
            mqtt_out,
            webhooks,
            caps,
            influx,
            web: web?,
            rules,
            base: base.to_owned(),
        })
    }
}

/// Where the duty desk of the site at `path` listens, and the file of the token that it asks for: all that a client on
/// the same machine needs to know. Faults elsewhere in the site do not matter.
pub fn desk_of(path: &Path) -> Result<(SocketAddr, Option<PathBuf>), Vec<Fault>> {
    let faults = Faults::default();
    let files = SiteFiles::configuration(path, &faults);
    let documents = documents(&files, &faults);
    let roots: Vec<Reader<'_>> = documents.iter().map(|document| document.root(&faults)).collect();
    let web = one(&roots, "web");
    let listen = web.as_ref().map_or(web::Settings::default().listen, web::Settings::read_listen);
    let token_file = web.as_ref().and_then(|r| r.optional::<String>("token_file")).map(|file| files.base.join(file));
    match faults.take() {
        found if found.is_empty() => Ok((listen, token_file)),
        found => Err(found),
    }
}

/// All faults, each with its place and hint, and their number last, where the eye ends.
pub fn report(site: &Path, faults: &[Fault]) -> String {
    let mut text = String::new();
    for fault in faults {
        text.push_str(&format!("error: {fault}\n"));
    }
    let number = if faults.len() == 1 { "1 fault".to_owned() } else { format!("{} faults", faults.len()) };
    text.push_str(&format!("{}: {number}; nothing was started", site.display()));
    text
}

fn documents<'t>(files: &'t SiteFiles, faults: &Faults) -> Vec<Document<'t>> {
    let parse = |source: &'t files::Source| Document::parse(source.name.as_str(), &source.text, faults);
    files.config.iter().filter_map(parse).collect()
}

/// A table that a site has once, in whichever file.
fn one<'d>(roots: &[Reader<'d>], key: &'static str) -> Option<Reader<'d>> {
    let mut found = None;
    for root in roots {
        if let Some(table) = root.table(key) {
            if found.is_some() {
                root.fault(key, format!("`[{key}]` is there twice"), Some("one file may say it".to_owned()));
            }
            found.get_or_insert(table);
        }
    }
    found
}

/// The shipped profiles and the site's own; one of the site's own takes the place of a shipped one with its id.
fn profiles(files: &SiteFiles, faults: &Faults) -> Profiles {
    let mut profiles = Profiles::shipped();
    for source in &files.profiles {
        if let Some(profile) = Profile::parse(&source.name, &source.text, faults) {
            profiles.add(profile);
        }
    }
    profiles
}

/// Ties each device to its profile, its place and its bus.
fn hang(
    entries: &[devices::Entry],
    profiles: &Profiles,
    places: &HashMap<String, Arc<Place>>,
    buses: Vec<modbus::Settings>,
    points: &mut Points,
    faults: &Faults,
) -> Vec<Bus> {
    let mut buses: Vec<Bus> = buses.into_iter().map(|settings| Bus { settings, units: Vec::new() }).collect();
    // Devices in one room share one place; a hundred thousand devices do not bring as many.
    let mut rooms: HashMap<(&str, &str, &str, &str), Arc<Place>> = HashMap::new();
    for entry in entries {
        let fault = |message: String, hint: Option<String>| {
            faults.note(Fault { message, hint, ..entry.at.clone() });
        };
        let id = match DeviceId::parse(&entry.id) {
            Ok(id) => id,
            Err(why) => {
                fault(format!("device {:?}: {why}", entry.id), None);
                continue;
            }
        };
        let wanted = entry.profile.as_deref().unwrap_or_default();
        let Some(profile) = profiles.get(wanted) else {
            fault(format!("device {id}: there is no profile {wanted:?}"), profiles.hint(wanted));
            continue;
        };
        let area = entry.place.as_deref().unwrap_or_default();
        if !area.is_empty() && !places.contains_key(area) {
            fault(
                format!("device {id}: there is no place {area:?}"),
                did_you_mean(area, places.keys().map(String::as_str)),
            );
        }
        let part = |part: &'_ Option<String>| -> String { part.clone().unwrap_or_default() };
        let room = (
            area,
            entry.unit.as_deref().unwrap_or_default(),
            entry.floor.as_deref().unwrap_or_default(),
            entry.room.as_deref().unwrap_or_default(),
        );
        let place = rooms.entry(room).or_insert_with(|| {
            let mut place = places.get(area).map(|place| Place::clone(place)).unwrap_or_default();
            for (name, own) in
                [(&mut place.unit, &entry.unit), (&mut place.floor, &entry.floor), (&mut place.room, &entry.room)]
            {
                if own.is_some() {
                    *name = part(own);
                }
            }
            Arc::new(place)
        });
        let own_specs = entry.silent_after.map(|silent_after| profile.specs_silent_after(silent_after));
        let specs = own_specs.as_deref().unwrap_or(profile.specs());
        let device = match points.add(id.clone(), entry.name.as_deref(), &profile.id, place, specs) {
            Ok(device) => device,
            Err(error) => {
                fault(error.to_string(), None);
                continue;
            }
        };
        match (&entry.bus, entry.unit_id, &profile.modbus) {
            (None, None, _) => {}
            (None, Some(_), _) => fault(format!("device {id} has a `unit_id` and no `bus`"), None),
            (Some(_), None, _) => fault(format!("device {id} has a `bus` and no `unit_id`"), None),
            (Some(_), Some(_), None) => {
                fault(format!("device {id}: profile {wanted} says nothing about Modbus registers"), None);
            }
            (Some(bus), Some(unit), Some(registers)) => {
                let known: Vec<String> = buses.iter().map(|bus| bus.settings.id.to_string()).collect();
                let Some(bus) = buses.iter_mut().find(|known| &*known.settings.id == bus.as_str()) else {
                    fault(
                        format!("device {id}: there is no bus {bus:?}"),
                        did_you_mean(bus, known.iter().map(String::as_str)),
                    );
                    continue;
                };
                if let Some(other) = bus.units.iter().find(|other| other.unit == unit) {
                    fault(
                        format!("device {id}: unit {unit} of bus {} is device {}", bus.settings.id, other.device),
                        None,
                    );
                }
                let mut plan = UnitPlan::new(unit, registers, points, device);
                plan.interval = entry.interval.unwrap_or(plan.interval);
                bus.units.push(plan);
            }
        }
    }
    buses
}
