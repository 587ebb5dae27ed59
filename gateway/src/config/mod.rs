//! Text to configuration: all faults at once, with file, line, column and hint.
//!
//! `run` and `check` share this parser, so what `check` accepts `run` starts with. A key that is not known is a fault;
//! so is a name that leads nowhere. Each room reads its own settings; this one reads what ties them together.

pub mod adopted;
pub mod devices;
pub mod drawings;
pub mod files;
pub mod list_faults;
pub mod outside;
pub mod parts;
mod routes;
pub mod sheet;
pub mod site;
pub mod stations;
pub mod tuned;

use std::collections::btree_map::{BTreeMap, Entry};
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anmin_rules::cases::{CaseOutcome, run_cases};
use anmin_rules::duty::Zone;
use anmin_rules::library;
use anmin_rules::order::{Channel, Station};
use anmin_rules::plan::{Plan, Plans};
use anmin_rules::response::DeskSettings;
use anmin_rules::rule::RuleId;
use anmin_rules::set::{BrokenRule, Override, RuleSet};
use anmin_sensors::document::{Document, Fault, Faults, Reader, did_you_mean};
use anmin_sensors::point::{DeviceId, Form, Place, Points};
use anmin_sensors::poll::UnitPlan;
use anmin_sensors::profile::{Profile, Profiles};
use anmin_sensors::router::Mapping;
use anmin_sensors::time::Wall;
use anmin_sensors::validator;

use crate::clock;
use crate::credentials::named_file;
use crate::delivery::{Site, broadcast, ebm, gbt26875_out, influx, mqtt_out, notice, siren, webhook};
use crate::drawing::Drawing;
use crate::intake::{broker, gbt26875, http, modbus, mqtt};
use crate::main_loop::drill_calendar;
use crate::main_loop::test_calendar::TestPlan;
use crate::outgoing::Outgoing;
use crate::store::readings::Limits;
use crate::{oidc, output, subscription, warning, web};

use files::{Look, SiteFiles};
use jiff::tz::TimeZone;
use list_faults::Words;
use outside::Named;
use parts::Parts;
use site::{Area, Desk};
use stations::Crew;

/// A JSON schema of a site's files, for editors, made by the parser while it reads the reference's examples.
pub const SCHEMA: &str = include_str!("../../schema/site.schema.json");

/// A whole site, sound.
pub struct Config {
    pub site: Site,
    /// Where the two databases live.
    pub storage: PathBuf,
    /// For how long it is kept who did what.
    pub audit_kept: Duration,
    pub limits: Limits,
    pub validation: validator::Settings,
    /// `[log] level`.
    pub log_level: Option<&'static str>,
    pub desk: DeskSettings,
    pub crew: Crew,
    pub places: HashMap<String, Arc<Place>>,
    /// Maps and floor plans, in the order of the files.
    pub drawings: Arc<[Drawing]>,
    pub profiles: Profiles,
    pub points: Points,
    /// By broker: the id of its `[[mqtt]]`, or `broker` for the embedded one.
    pub mappings: Vec<(Arc<str>, Vec<Mapping>)>,
    pub gbt26875: Vec<gbt26875::Settings>,
    pub http: Vec<http::Settings>,
    /// The embedded broker: on where the site names no outside one.
    pub broker: Option<broker::Settings>,
    pub mqtt: Vec<mqtt::Settings>,
    pub buses: Vec<Bus>,
    pub mqtt_out: Vec<mqtt_out::Settings>,
    pub webhooks: Vec<webhook::Settings>,
    pub notices: Vec<notice::Settings>,
    pub caps: Vec<broadcast::Settings>,
    pub gbt26875_out: Vec<gbt26875_out::Settings>,
    pub ebms: Vec<ebm::Settings>,
    pub sirens: Vec<siren::Settings>,
    pub influx: Vec<influx::Settings>,
    /// Whom anmin may dial.
    pub outgoing: Outgoing,
    pub outputs: Vec<Output>,
    pub subscribers: Vec<subscription::Settings>,
    pub drills: Vec<drill_calendar::Plan>,
    pub tests: TestPlan,
    pub warning_sources: Vec<warning::Settings>,
    pub web: web::Settings,
    pub rules: RuleSet,
    /// Rules of the site's own that cannot be loaded. `check` refuses them; `run` starts without them and says so.
    pub broken_rules: Vec<BrokenRule>,
    /// What works and should be written otherwise: old names of keys.
    pub warnings: Vec<Fault>,
    pub base: PathBuf,
    /// Where the site was read from: its folder, or its one file.
    pub path: PathBuf,
    /// Its files as they were before they were read.
    pub look: Look,
    /// Files that hold certificates.
    pub certificates: Vec<Named>,
    /// What they say, to be compared when they are read anew.
    pub parts: Parts,
    /// SHA-256 of all its files, in hexadecimal digits.
    pub sha256: String,
}

/// Settings that were read from `r`, once they heed what the whole site says.
fn heeding<S>(r: &Reader<'_>, settings: Option<S>, heed: impl FnOnce(&mut S, &Reader<'_>)) -> Option<S> {
    let mut settings = settings?;
    heed(&mut settings, r);
    Some(settings)
}

/// How many seconds the clocks of a zone are ahead of UTC.
pub fn ahead(zone: &TimeZone) -> impl Fn(Wall) -> i32 + Clone + Send + Sync + 'static {
    let zone = zone.clone();
    move |at| jiff::Timestamp::from_microsecond(at.micros()).map_or(0, |at| zone.to_offset(at).seconds())
}

/// A bus with the devices on it.
pub struct Bus {
    pub settings: modbus::Settings,
    pub units: Vec<UnitPlan>,
}

/// An output with the unit that it hangs on.
pub struct Output {
    pub settings: output::Settings,
    /// Id of a `[[bus]]`.
    pub bus: Arc<str>,
    pub unit: u8,
}

impl Config {
    /// Reads the site at `path`; on any fault nothing but the faults. Rules that cannot be loaded are no fault as long as
    /// everything else is sound: they are left out, and told in `broken_rules`.
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
        let (storage, audit_kept) = site::storage(one(&roots, "storage").as_ref(), base);
        let limits = one(&roots, "readings").map_or(Some(Limits::default()), |r| Limits::read(&r));
        let validation = one(&roots, "validation").map(|r| validator::Settings::read(&r)).unwrap_or_default();
        let web = one(&roots, "web").map_or(Some(web::Settings::default()), |r| web::Settings::read(&r, base));
        let residents = one(&roots, "residents");
        let log_level = one(&roots, "log").and_then(|r| site::log_level(&r));
        let desk = one(&roots, "desk").map_or_else(Desk::default, |r| Desk::read(&r));

        let name = site.as_ref().map(|site| site.name.clone()).unwrap_or_default();
        let broadcast = site::broadcast(one(&roots, "broadcast").as_ref(), &name);

        let crew = one(&roots, "crew").map_or_else(Crew::default, |r| Crew::read(&r, base));
        let stations: Vec<(Station, Fault)> = all("station").iter().filter_map(stations::station).collect();
        stations::check_neighbours(&stations, |fault| faults.note(fault));
        let stations: Vec<Station> = stations.into_iter().map(|(station, _)| station).collect();
        let mut areas: BTreeMap<String, Area> = BTreeMap::new();
        for area in all("place").iter().filter_map(Area::read) {
            areas.insert(area.place.area.clone(), area);
        }
        for list in all("place_list") {
            let Some(source) = named(&list, files, faults) else { continue };
            for area in site::read_places(&source.name, &source.text, faults) {
                match areas.entry(area.place.area.clone()) {
                    Entry::Vacant(place) => drop(place.insert(area)),
                    Entry::Occupied(place) => {
                        let message = format!("place {:?} is there already", place.key());
                        faults.note(Fault { message, column: 1, ..area.stations_at });
                    }
                }
            }
        }
        let lists = site::station_lists(&areas, &stations, |fault| faults.note(fault));

        let plans: Vec<Plan> = all("plan")
            .iter()
            .filter_map(|r| {
                let plan = Plan::read(r)?;
                for place in plan.places.iter().filter(|place| !areas.contains_key(*place)) {
                    let hint = did_you_mean(place, areas.keys().map(String::as_str));
                    r.fault("places", format!("plan {:?}: there is no place {place:?}", plan.id), hint);
                }
                Some(plan)
            })
            .collect();

        let outgoing = one(&roots, "outgoing").map(|r| Outgoing::read(&r)).unwrap_or_default();
        let profiles = profiles(files, faults);
        let mqtt_tables = all("mqtt");
        let mqtt: Vec<mqtt::Settings> = mqtt_tables
            .iter()
            .filter_map(|r| heeding(r, mqtt::Settings::read(r, base), |settings, r| settings.heed(&outgoing, r)))
            .collect();
        let mappings_of = |r: &Reader<'_>| -> Vec<Mapping> {
            let mappings = r.tables("mapping").iter().filter_map(|r| Mapping::read(r, &profiles)).collect::<Vec<_>>();
            Mapping::check_overlaps(&mappings, faults);
            mappings
        };
        let mut mappings: Vec<(Arc<str>, Vec<Mapping>)> = mqtt_tables
            .iter()
            .map(|r| (Arc::from(r.optional::<String>("id").unwrap_or_default()), mappings_of(r)))
            .collect();
        let gbt26875_tables = all("gbt26875");
        let gbt26875: Vec<_> = gbt26875_tables.iter().filter_map(gbt26875::Settings::read).collect();
        for r in &gbt26875_tables {
            mappings.push((Arc::from(r.optional::<String>("id").unwrap_or_default()), mappings_of(r)));
            r.finish();
        }
        let http_tables = all("http");
        let http: Vec<_> = http_tables.iter().filter_map(|r| http::Settings::read(r, base)).collect();
        for r in &http_tables {
            mappings.push((Arc::from(r.optional::<String>("id").unwrap_or_default()), mappings_of(r)));
            r.finish();
        }
        let broker_table = one(&roots, "broker");
        let broker = match &broker_table {
            Some(r) => {
                mappings.push((Arc::from("broker"), mappings_of(r)));
                broker::Settings::read(r, base)
            }
            None => mqtt_tables.is_empty().then(broker::Settings::default),
        };
        if broker_table.is_none() && !mqtt_tables.is_empty() {
            for r in all("mqtt_out").iter().filter(|r| r.has("broker")) {
                let hint = "add a [broker] table: beside [[mqtt]] there is none unless the site says so".to_owned();
                r.fault("broker", "`broker` is \"embedded\", but the site has no embedded broker", Some(hint));
            }
        }

        let bus_settings: Vec<(modbus::Settings, Fault)> = all("bus")
            .iter()
            .filter_map(|r| {
                let settings = heeding(r, modbus::Settings::read(r, base), |bus, r| bus.heed(&outgoing, r));
                Some((settings?, r.place("listen")))
            })
            .collect();
        modbus::dial_in::check_apart(bus_settings.iter(), |fault| faults.note(fault));
        let bus_settings: Vec<modbus::Settings> = bus_settings.into_iter().map(|(settings, _)| settings).collect();
        let mut entries = by_hand(&roots, files, faults);
        entries.extend(adopted(files, &entries, faults));

        let overrides: Vec<Override> = all("override").iter().filter_map(Override::read).collect();
        let mqtt_out: Vec<_> = all("mqtt_out")
            .iter()
            .filter_map(|r| heeding(r, mqtt_out::Settings::read(r, base), |out, r| out.heed(&outgoing, r)))
            .collect();
        let webhooks: Vec<_> = all("webhook")
            .iter()
            .filter_map(|r| heeding(r, webhook::Settings::read(r, base), |out, r| out.heed(&outgoing, r)))
            .collect();
        let notices: Vec<_> = all("notice")
            .iter()
            .filter_map(|r| heeding(r, notice::Settings::read(r, base), |out, r| out.heed(&outgoing, r)))
            .collect();
        let caps: Vec<_> = all("cap")
            .iter()
            .filter_map(|r| heeding(r, broadcast::Settings::read(r, base), |out, r| out.heed(&outgoing, r)))
            .collect();
        let site_has_area = site.as_ref().is_some_and(|site| site.area_code.is_some());
        let ebms: Vec<_> = all("ebm")
            .iter()
            .filter_map(|r| {
                let settings = ebm::Settings::read(r, base, site_has_area);
                let settings = heeding(r, settings, |out, r| out.heed(&outgoing, r))?;
                if let Some(why) = settings.signer_trouble() {
                    let hint = "until it can be, nothing leaves by this way out".to_owned();
                    let message = format!("`sign_command`: {why}");
                    faults.warn(Fault { message, hint: Some(hint), ..r.place("sign_command") });
                }
                Some(settings)
            })
            .collect();
        let gbt26875_out: Vec<_> = all("gbt26875_out")
            .iter()
            .filter_map(|r| heeding(r, gbt26875_out::Settings::read(r), |out, r| out.heed(&outgoing, r)))
            .collect();
        let sirens: Vec<_> = all("siren").iter().filter_map(siren::Settings::read).collect();
        let drills: Vec<drill_calendar::Plan> = all("drill").iter().filter_map(drill_calendar::Plan::read).collect();
        let tests = one(&roots, "walk").map_or_else(TestPlan::default, |r| TestPlan::read(&r));
        let influx: Vec<_> = all("influx")
            .iter()
            .filter_map(|r| heeding(r, influx::Settings::read(r, base), |out, r| out.heed(&outgoing, r)))
            .collect();
        let places_named: BTreeSet<String> = areas
            .values()
            .flat_map(|area| [&area.place.area, &area.place.grid, &area.place.building])
            .filter(|name| !name.is_empty())
            .cloned()
            .collect();
        let subscribers: Vec<_> = all("subscriber")
            .iter()
            .filter_map(|r| {
                heeding(r, subscription::Settings::read(r, base, &places_named), |to, r| to.heed(&outgoing, r))
            })
            .collect();
        let residents = residents.map(|r| web::residents::Settings::read(&r, &places_named)).unwrap_or_default();
        let bound_to: BTreeSet<String> = areas
            .values()
            .flat_map(|area| [("", &area.place.building), ("area:", &area.place.area), ("grid:", &area.place.grid)])
            .filter(|(_, name)| !name.is_empty())
            .map(|(before, name)| format!("{before}{name}"))
            .collect();
        let oidc = one(&roots, "oidc").and_then(|r| {
            let hosts = web.as_ref().map(|web| &*web.hosts).unwrap_or_default();
            heeding(&r, oidc::Settings::read(&r, base, &bound_to, hosts), |oidc, r| oidc.heed(&outgoing, r))
        });
        let web = web.map(|web| web::Settings { residents, oidc, ..web });
        let outputs: Vec<(output::Settings, [Fault; 2])> = all("output")
            .iter()
            .filter_map(|r| Some((output::Settings::read(r)?, ["device", "interlock"].map(|key| r.place(key)))))
            .collect();
        let warning_sources: Vec<_> = all("warning_source")
            .iter()
            .filter_map(|r| heeding(r, warning::Settings::read(r, base), |from, r| from.heed(&outgoing, r)))
            .collect();
        for (table, channels) in [
            ("cap", caps.iter().map(|out| &out.channel).collect::<Vec<_>>()),
            ("ebm", ebms.iter().map(|out| &out.channel).collect()),
            ("notice", notices.iter().map(|out| &out.channel).collect()),
            ("siren", sirens.iter().map(|out| &out.channel).collect()),
        ] {
            routes::check_spares(table, &all(table), &channels);
            routes::check_times(&all(table), &channels);
        }
        for r in ["cap", "siren", "subscriber"].into_iter().flat_map(all) {
            let lines = || mqtt_out.iter().map(|out| &*out.channel.id);
            if let Some(line) = r.optional::<String>("mqtt_out").filter(|line| lines().all(|known| known != line)) {
                let message = format!("`mqtt_out` names {line:?}, which is no [[mqtt_out]]");
                r.fault("mqtt_out", message, did_you_mean(&line, lines()));
            }
        }
        routes::check_outputs(&all("siren"), outputs.iter().map(|(output, _)| output));
        for r in ["mqtt_out", "webhook", "notice", "cap", "ebm", "siren"].into_iter().flat_map(all) {
            crate::delivery::check_areas(&r, &places_named);
        }
        if let Some(first) = all("notice").first() {
            let told = notices.iter().map(|out| &out.channel);
            let told: Vec<&Channel> = told.chain(webhooks.iter().map(|out| &out.channel)).collect();
            for gap in routes::gaps(&told, areas.values().map(|area| &area.place)) {
                let hint = "give one [[notice]] neither `areas` nor `classes`, or let one name it".to_owned();
                faults.warn(Fault { message: gap, hint: Some(hint), ..first.place("id") });
            }
        }
        for r in all("notice") {
            let known = |id: &String| stations.iter().any(|station| *station.id == **id);
            for id in r.or("stations", Vec::new()).iter().filter(|id| !known(id)) {
                let hint = did_you_mean(id, stations.iter().map(|station| &*station.id));
                r.fault("stations", format!("there is no station {id:?}"), hint);
            }
        }
        for (what, keys) in [
            ("place", ["place"].as_slice()),
            ("drawing", &["drawing"]),
            ("plan", &["plan"]),
            ("station", &["station"]),
            ("broker", &["mqtt", "gbt26875", "http"]),
            ("bus", &["bus"]),
            ("output", &["output"]),
            ("subscriber", &["subscriber"]),
            ("drill", &["drill"]),
            ("warning source", &["warning_source"]),
            ("way out", &["mqtt_out", "webhook", "notice", "cap", "ebm", "gbt26875_out", "siren", "influx"]),
        ] {
            unique(what, keys.iter().flat_map(|key| all(key)));
        }
        let drawing_tables = all("drawing");
        for root in &roots {
            root.finish();
        }

        let places: HashMap<String, Arc<Place>> =
            areas.into_iter().map(|(id, area)| (id, Arc::new(area.place))).collect();
        let mut points = Points::default();
        let buses = hang(&entries, &profiles, &places, bus_settings, &mut points, faults);

        let open = mappings.iter().flat_map(|(_, mappings)| mappings).any(Mapping::provisions);
        let known = drawings::Known { places: &places, points: &points, open };
        let drawings = drawings::read(&drawing_tables, base, &known, faults);

        let outputs = bind(outputs, &points, &buses, faults);

        // What a broker may drop unseen is not for what may have to raise an alarm.
        let listed = entries.iter().filter(|entry| entry.bus.is_none()).any(|entry| {
            let device = points.find_device(&entry.id);
            device.is_some_and(|ix| points.device(ix).points().any(|point| points.point(point).spec.alarm_point))
        });
        for (r, (_, mappings)) in mqtt_tables.iter().zip(&mappings) {
            let alarming = mappings.iter().any(|mapping| mapping.has_alarm_points().unwrap_or(listed));
            if r.optional::<u8>("qos") == Some(0) && alarming {
                let hint = "qos = 1; or give what may be lost an [[mqtt]] of its own, with mappings for it alone";
                let message =
                    "`qos` is 0, but its mappings bring alarm points: a message could be lost and nobody would know";
                r.fault("qos", message, Some(hint.to_owned()));
            }
        }

        let mut sources = library::shipped();
        sources.extend(files.rules.iter().cloned());
        let mut rules = RuleSet::load(sources, overrides, faults);
        let broken_rules: Vec<BrokenRule> = files.broken_rules.iter().chain(rules.broken()).cloned().collect();
        if !faults.is_empty() {
            // Nothing will start, so what is wrong with the rules is told with the rest.
            broken_rules.iter().flat_map(|rule| &rule.faults).for_each(|fault| faults.note(fault.clone()));
        }

        rules.set_stopwatch(Arc::new(clock::computing_time));
        let site = site?;
        let ahead = ahead(&site.time_zone);
        rules.set_zone(ahead.clone());
        let parts = Parts::of(files, &entries, &points);
        let mut config = Self {
            storage,
            audit_kept,
            limits: limits?,
            validation,
            log_level,
            desk: DeskSettings {
                site: site.id.to_string(),
                stations,
                areas: lists,
                call_level: desk.call_level,
                storm_alarms: desk.storm_alarms,
                max_shelve: desk.max_shelve,
                max_shelve_red: desk.max_shelve_red,
                zone: Zone::new(ahead),
                plans: Arc::new(Plans::with_shipped(plans)),
                broadcast,
                ..DeskSettings::default()
            },
            crew,
            site,
            places,
            drawings,
            profiles,
            points,
            mappings,
            gbt26875,
            http,
            broker,
            mqtt,
            buses,
            mqtt_out,
            webhooks,
            notices,
            caps,
            gbt26875_out,
            ebms,
            sirens,
            influx,
            outgoing,
            outputs,
            subscribers,
            drills,
            tests,
            warning_sources,
            web: web?,
            rules,
            broken_rules,
            warnings: faults.warnings(),
            base: base.to_owned(),
            path: files.path.clone(),
            look: files.look.clone(),
            certificates: outside::certificates(files),
            parts,
            sha256: files.sha256(),
        };
        config.desk.channels = config.channels(&config.site);
        Some(config)
    }

    /// The monitoring centres that a site speaks with: none at an exercise, which they could not tell from what is real.
    pub fn centres(&self, site: &Site) -> &[gbt26875_out::Settings] {
        if site.exercise { &[] } else { &self.gbt26875_out }
    }

    /// The ways out as the desk sees them, at a site that is one.
    pub fn channels(&self, site: &Site) -> Vec<Channel> {
        let caps = self.caps.iter().map(|out| Channel {
            spare: routes::is_spare(&out.channel, self.caps.iter().map(|other| &other.channel)),
            ..out.channel(site)
        });
        let ebms = self.ebms.iter().map(|out| Channel {
            spare: routes::is_spare(&out.channel, self.ebms.iter().map(|other| &other.channel)),
            ..out.channel(site)
        });
        let mqtt_out = self.mqtt_out.iter().map(|out| out.channel.clone());
        let webhooks = self.webhooks.iter().map(|out| out.channel.clone());
        let notices = self.notices.iter().map(|out| Channel {
            spare: routes::is_spare(&out.channel, self.notices.iter().map(|other| &other.channel)),
            ..out.channel.clone()
        });
        let feeds = self.subscribers.iter().filter_map(|one| one.channel(site));
        let centres = self.centres(site).iter().map(|out| out.channel.clone());
        let sirens = self.sirens.iter().filter_map(|out| out.channel(site)).map(|channel| Channel {
            spare: routes::is_spare(channel, self.sirens.iter().map(|other| &other.channel)),
            ..channel.clone()
        });
        let caps = caps.chain(ebms);
        mqtt_out.chain(webhooks).chain(notices).chain(caps).chain(centres).chain(sirens).chain(feeds).collect()
    }
}

/// Reads the site at `path` anew as `run` would at the start, and runs the cases of its own rules; the shipped ones are what
/// they were. A site with any fault is none: the one in force is better than half of a new one. `storage` is where the databases
/// of this run lie, and what was set at the duty desk: another folder in the files waits for the next start.
pub fn reload(path: &Path, storage: &Path) -> Result<Config, Vec<Fault>> {
    let faults = Faults::default();
    let mut files = SiteFiles::gather(path, &faults);
    files.tuned_in(storage, &faults);
    let config = Config::parse(&files, &faults);
    let mut found = faults.take();
    let Some(config) = config.filter(|_| found.is_empty()) else { return Err(found) };
    found.extend(config.broken_rules.iter().flat_map(|rule| rule.faults.iter().cloned()));
    if found.is_empty() {
        found.extend(files.rules.iter().flat_map(run_cases).filter_map(|CaseOutcome { rule, case, failure }| {
            let fault = failure?;
            Some(Fault { message: format!("rule {rule} fails its case {case:?}: {}", fault.message), ..fault })
        }));
    }
    if found.is_empty() { Ok(config) } else { Err(found) }
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
    let token_file =
        web.as_ref().and_then(|r| r.optional::<String>("token_file")).map(|file| named_file(&files.base, file));
    match faults.take() {
        found if found.is_empty() => Ok((listen, token_file)),
        found => Err(found),
    }
}

/// Whom anmin may dial by these texts. Faults elsewhere in them do not matter.
pub fn outgoing_of(files: &SiteFiles) -> Outgoing {
    let faults = Faults::default();
    let documents = documents(files, &faults);
    let roots: Vec<Reader<'_>> = documents.iter().map(|document| document.root(&faults)).collect();
    one(&roots, "outgoing").map(|r| Outgoing::read(&r)).unwrap_or_default()
}

/// Where the site at `path` keeps its databases, and the time zone of its clocks: all that is needed to look after them.
/// Faults elsewhere in the site do not matter.
pub fn storage_of(path: &Path) -> Result<(PathBuf, TimeZone), Vec<Fault>> {
    let faults = Faults::default();
    let files = SiteFiles::configuration(path, &faults);
    let documents = documents(&files, &faults);
    let roots: Vec<Reader<'_>> = documents.iter().map(|document| document.root(&faults)).collect();
    let (storage, _) = site::storage(one(&roots, "storage").as_ref(), &files.base);
    let zone = one(&roots, "site").map_or(TimeZone::UTC, |r| site::time_zone(&r));
    match faults.take() {
        found if found.is_empty() => Ok((storage, zone)),
        found => Err(found),
    }
}

/// All faults, each with its place and hint, and their number last, where the eye ends.
pub fn report(site: &Path, faults: &[Fault]) -> String {
    let mut text = String::new();
    for fault in faults {
        text.push_str(&format!("error: {fault}\n"));
    }
    text.push_str(&format!("{}: {}; nothing was started", site.display(), count(faults.len(), "fault")));
    text
}

/// Each broken rule with its faults and what judges in its place, and last how many rules are in force all the same.
pub fn report_rules(site: &Path, broken: &[BrokenRule], rules: &RuleSet) -> String {
    let mut text = String::new();
    for BrokenRule { name, faults } in broken {
        text.push_str(&format!("error: rule {name} cannot be loaded\n"));
        for fault in faults {
            text.push_str(&format!("  {}\n", fault.to_string().replace('\n', "\n  ")));
        }
        if rules.find(&RuleId::new(name.as_str())).is_some() {
            text.push_str("  the shipped rule of this name stays in force\n");
        }
    }
    let (ill, well) = (count(broken.len(), "broken rule"), rules.rules().len());
    text.push_str(&format!("{}: {ill}; the other {well} rules stay in force", site.display()));
    text
}

fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

fn documents<'t>(files: &'t SiteFiles, faults: &Faults) -> Vec<Document<'t>> {
    let parse = |source: &'t files::Source| Document::parse(source.name.as_str(), &source.text, faults);
    files.config.iter().filter_map(parse).collect()
}

/// The devices of the site's own files. Faults elsewhere in them do not matter.
pub fn devices_by_hand(files: &SiteFiles) -> Vec<devices::Entry> {
    let faults = Faults::default();
    let documents = documents(files, &faults);
    let roots: Vec<Reader<'_>> = documents.iter().map(|document| document.root(&faults)).collect();
    by_hand(&roots, files, &faults)
}

fn by_hand(roots: &[Reader<'_>], files: &SiteFiles, faults: &Faults) -> Vec<devices::Entry> {
    let tables = roots.iter().flat_map(|root| root.tables("device"));
    let mut entries: Vec<devices::Entry> = tables.filter_map(|r| devices::Entry::read(&r)).collect();
    for list in roots.iter().flat_map(|root| root.tables("device_list")) {
        if let Some(source) = named(&list, files, faults) {
            entries.extend(devices::read_csv(&source.name, &source.text, faults));
        }
    }
    entries
}

/// Devices that were taken in at the duty desk. One that the site's own files have by now is what they say: two hands that wrote
/// down one device keep nothing from starting.
fn adopted(files: &SiteFiles, by_hand: &[devices::Entry], faults: &Faults) -> Vec<devices::Entry> {
    let Some(source) = &files.adopted else { return Vec::new() };
    let known: HashMap<&str, &devices::Entry> = by_hand.iter().map(|entry| (entry.id.as_str(), entry)).collect();
    let mut entries = devices::read_csv(&source.name, &source.text, faults);
    entries.retain(|entry| {
        let Some(other) = known.get(entry.id.as_str()) else { return true };
        faults.warn(entry.fault("id", list_faults::kept_by_hand_too(&entry.id, &other.place())));
        false
    });
    entries
}

/// The file that a `[[device_list]]` or `[[place_list]]` names.
fn named(list: &Reader<'_>, files: &SiteFiles, faults: &Faults) -> Option<files::Source> {
    let file = list.required::<String>("file");
    list.finish();
    let own = Faults::default();
    let source = files.list(&file?, &own);
    for fault in own.take() {
        match fault.line {
            // The file has no place to point at, but its name has.
            0 => list.fault("file", format!("{}: {}", fault.source, fault.message), fault.hint),
            _ => faults.note(fault),
        }
    }
    source
}

/// A table that a site has once, in whichever file.
fn one<'d>(roots: &[Reader<'d>], key: &'static str) -> Option<Reader<'d>> {
    let mut found: Option<(Reader<'d>, String)> = None;
    for root in roots {
        let Some(table) = root.table(key) else { continue };
        if let Some((_, first)) = &found {
            root.fault(key, format!("`[{key}]` is there twice"), Some(format!("the other stands at {first}")));
        } else {
            let Fault { source, line, .. } = root.place(key);
            found = Some((table, format!("{source}:{line}")));
        }
    }
    found.map(|(table, _)| table)
}

/// Notes each id that an earlier one of these tables has.
fn unique<'d>(what: &str, tables: impl Iterator<Item = Reader<'d>>) {
    let mut seen: HashMap<String, String> = HashMap::new();
    for r in tables {
        let Some(id) = r.optional::<String>("id") else { continue };
        let Fault { source, line, .. } = r.place("id");
        if what == "broker" && id == "broker" {
            r.fault("id", "`id` is \"broker\", which is the name of the embedded broker", None);
        } else if let Some(first) = seen.get(&id) {
            r.fault("id", format!("{what} {id:?} is there already"), Some(format!("the other stands at {first}")));
        } else {
            seen.insert(id, format!("{source}:{line}"));
        }
    }
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

/// Ties each output to the unit of its device, and looks for the points of its interlocks.
fn bind(outputs: Vec<(output::Settings, [Fault; 2])>, points: &Points, buses: &[Bus], faults: &Faults) -> Vec<Output> {
    let mut taken = HashMap::new();
    let bound = |(settings, [device_at, interlock_at]): (output::Settings, [Fault; 2])| {
        let id = &settings.id;
        for interlock in &settings.interlocks {
            let note = |message: String| faults.note(Fault { message, ..interlock_at.clone() });
            match points.find(interlock.point.as_str()) {
                None => note(format!("output {id}: there is no point {:?}", interlock.point.as_str())),
                Some(ix) => {
                    let form = points.point(ix).spec.kind.info().form;
                    let fits = matches!(
                        (form, interlock.wanted),
                        (Form::Number, output::Wanted::Above(_) | output::Wanted::Below(_))
                            | (Form::Flag, output::Wanted::Is(_))
                    );
                    if !fits {
                        note(format!("output {id}: {} is never {}", interlock.point, interlock.wanted));
                    }
                }
            }
        }
        let device = &settings.device;
        let hangs = |bus: &Bus| {
            let unit = bus.units.iter().find(|unit| *unit.device == **device)?;
            Some((Arc::clone(&bus.settings.id), unit.unit))
        };
        match buses.iter().find_map(hangs) {
            Some((bus, unit)) if (1..=247).contains(&unit) => {
                // Two of one register would be each the way around the other's interlocks.
                let register = (Arc::clone(&bus), unit, settings.register, settings.address);
                let Some(other) = taken.insert(register, Arc::clone(id)) else {
                    return Some(Output { settings, bus, unit });
                };
                let message =
                    format!("output {id}: it switches what output {other} switches, {device} at {}", settings.address);
                faults.note(Fault { message, ..device_at });
            }
            Some((_, unit)) => {
                let message = format!("output {id}: device {device:?} is unit {unit}, and only 1 to 247 is written to");
                faults.note(Fault { message, ..device_at });
            }
            None => {
                let hint = did_you_mean(device, buses.iter().flat_map(|bus| &bus.units).map(|unit| &*unit.device));
                let message = format!("output {id}: there is no device {device:?} on a bus");
                faults.note(Fault { message, hint, ..device_at });
            }
        }
        None
    };
    outputs.into_iter().filter_map(bound).collect()
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
    for (n, entry) in entries.iter().enumerate() {
        let fault = |key: &str, words: Words| faults.note(entry.fault(key, words));
        let id = match DeviceId::parse(&entry.id) {
            Ok(id) => id,
            Err(why) => {
                fault("id", list_faults::bad_id(&entry.id, &why));
                continue;
            }
        };
        let wanted = entry.profile.as_deref().unwrap_or_default();
        let Some(profile) = profiles.get(wanted) else {
            let known: Vec<&str> = profiles.iter().map(|profile| &*profile.id).collect();
            fault("profile", list_faults::no_profile(id.as_str(), wanted, &known));
            continue;
        };
        let area = entry.place.as_deref().unwrap_or_default();
        if !area.is_empty() && !places.contains_key(area) {
            let known: Vec<&str> = places.keys().map(String::as_str).collect();
            fault("place", list_faults::no_place(id.as_str(), area, &known));
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
        let device = match points.add(id.clone(), entry.label().as_ref(), &profile.id, place, specs) {
            Ok(device) => device,
            Err(error) => {
                let first = entries[..n].iter().find(|earlier| earlier.id == entry.id);
                fault("id", list_faults::not_added(&error, first.map(devices::Entry::place)));
                continue;
            }
        };
        match (&entry.bus, entry.unit_id, &profile.modbus) {
            (None, None, _) => {}
            (None, Some(_), _) => fault("unit_id", list_faults::one_without_the_other(id.as_str(), "unit_id", "bus")),
            (Some(_), None, _) => fault("bus", list_faults::one_without_the_other(id.as_str(), "bus", "unit_id")),
            (Some(_), Some(_), None) => fault("profile", list_faults::no_registers(id.as_str(), wanted)),
            (Some(name), Some(unit), Some(registers)) => {
                let Some(bus) = buses.iter_mut().find(|bus| *bus.settings.id == **name) else {
                    let known: Vec<&str> = buses.iter().map(|bus| &*bus.settings.id).collect();
                    fault("bus", list_faults::no_bus(id.as_str(), name, &known));
                    continue;
                };
                if bus.settings.framing().is_some() && !(1..=247).contains(&unit) {
                    fault("unit_id", list_faults::no_unit_id(id.as_str(), unit, name));
                }
                if let Some(other) = bus.units.iter().find(|other| other.unit == unit) {
                    fault("unit_id", list_faults::unit_taken(id.as_str(), unit, name, &other.device));
                }
                let mut plan = UnitPlan::new(unit, registers, points, device);
                plan.interval = entry.interval.unwrap_or(plan.interval);
                bus.units.push(plan);
            }
        }
    }
    points.shrink();
    buses
}
