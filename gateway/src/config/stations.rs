//! `[[station]]` and `[crew]`: the micro fire stations (微型消防站), their crews, shifts and equipment, and the crews' links.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anmin_rules::duty::{Equipment, Member, Role, Shift};
use anmin_rules::order::Station;
use anmin_rules::rule::Text;
use anmin_sensors::document::{Fault, Reader, did_you_mean};

use super::site::text;
use crate::credentials::named_file;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// A station, and its neighbours with their place in the file, for faults found later.
pub fn station(r: &Reader<'_>) -> Option<(Station, Fault)> {
    let id: Option<String> = r.required("id");
    let name = text(r, "name");
    let usual = Station::default();
    let crew: Vec<Member> = r.tables("crew").iter().filter_map(member).collect();
    unique(r, "crew", crew.iter().map(|member| &*member.id));
    let equipment: Vec<Equipment> = r.tables("equipment").iter().filter_map(equipment).collect();
    unique(r, "equipment", equipment.iter().map(|item| &*item.id));
    let station = Station {
        name: name.or_else(|| id.clone().map(Text::both)).unwrap_or_default(),
        phone: r.or("phone", String::new()),
        respond_within: r.or("respond_within", usual.respond_within),
        arrive_within: r.or("arrive_within", usual.arrive_within),
        control_within: r.or("control_within", usual.control_within),
        neighbours: r.or("neighbours", Vec::<String>::new()).into_iter().map(Arc::from).collect(),
        shifts: r.tables("shift").iter().filter_map(|shift_at| shift(shift_at, &crew)).collect(),
        crew,
        equipment,
        id: Arc::from(id.as_deref().unwrap_or_default()),
    };
    if station.respond_within > station.arrive_within || station.arrive_within > station.control_within {
        r.fault(
            "respond_within",
            format!(
                "the clocks of station {:?} are {:?}, {:?} and {:?}, expected each no shorter than the one before",
                station.id, station.respond_within, station.arrive_within, station.control_within
            ),
            Some("practice: to answer within 60s, on the scene within 3m, under control within 5m".to_owned()),
        );
    }
    let neighbours_at = r.place("neighbours");
    r.finish();
    id.map(|_| (station, neighbours_at))
}

fn unique<'i>(r: &Reader<'_>, key: &str, ids: impl Iterator<Item = &'i str>) {
    let mut seen = BTreeSet::new();
    for id in ids.filter(|id| !seen.insert(*id)) {
        r.fault(key, format!("`{key}` has {id:?} twice"), None);
    }
}

fn member(r: &Reader<'_>) -> Option<Member> {
    let id: Option<String> = r.required("id");
    let member = Member {
        name: r.or("name", id.clone().unwrap_or_default()),
        role: r.choice("role", &Role::CHOICES).unwrap_or_default(),
        phone: r.or("phone", String::new()),
        id: Arc::from(id.as_deref().unwrap_or_default()),
    };
    r.finish();
    id.map(|_| member)
}

fn equipment(r: &Reader<'_>) -> Option<Equipment> {
    let id: Option<String> = r.required("id");
    let equipment = Equipment {
        name: text(r, "name").or_else(|| id.clone().map(Text::both)).unwrap_or_default(),
        check_every: r.or("check_every", Duration::from_secs(7 * 86_400)),
        id: Arc::from(id.as_deref().unwrap_or_default()),
    };
    r.finish();
    id.map(|_| equipment)
}

fn shift(r: &Reader<'_>, crew: &[Member]) -> Option<Shift> {
    let pattern = pattern(r);
    let mut ids: Vec<Arc<str>> = Vec::new();
    for id in r.or("crew", Vec::<String>::new()) {
        match crew.iter().find(|member| *member.id == *id) {
            Some(member) => ids.push(Arc::clone(&member.id)),
            None => {
                let hint = did_you_mean(&id, crew.iter().map(|member| &*member.id));
                r.fault(
                    "crew",
                    format!("`crew` has {id:?}, which is nobody of the station's `[[station.crew]]`"),
                    hint,
                );
            }
        }
    }
    let name = r.or("name", String::new());
    r.finish();
    Some(Shift { name, crew: ids, ..pattern? })
}

/// Hours of nobody in particular.
pub(crate) fn hours(r: &Reader<'_>) -> Option<Shift> {
    let pattern = pattern(r);
    r.finish();
    pattern
}

/// `from`, `to`, `days`.
fn pattern(r: &Reader<'_>) -> Option<Shift> {
    let time = |key: &'static str| {
        let text: String = r.required(key)?;
        let minutes = minutes(&text);
        if minutes.is_none() {
            let hint = Some("such as \"08:00\"".to_owned());
            r.fault(key, format!("`{key}` is {text:?}, expected a time of day"), hint);
        }
        minutes
    };
    let (from, to) = (time("from"), time("to"));
    let mut days = [!r.has("days"); 7];
    for word in r.or("days", Vec::<String>::new()) {
        match DAYS.iter().position(|day| *day == word) {
            Some(day) => days[day] = true,
            None => {
                let hint = did_you_mean(&word, DAYS);
                r.fault("days", format!("`days` has {word:?}, expected one of {}", DAYS.join(", ")), hint);
            }
        }
    }
    Some(Shift { name: String::new(), days, from: from?, to: to?, crew: Vec::new() })
}

/// Minutes after midnight; `24:00` is the end of the day.
fn minutes(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |part: &str| (part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit())).then(|| part.parse().ok());
    let (hours, minutes): (u16, u16) = (number(hours)??, number(minutes)??);
    let total = hours * 60 + minutes;
    (minutes < 60 && total <= 24 * 60).then_some(total)
}

/// Notes each neighbour that is no station, or the station itself.
pub fn check_neighbours(stations: &[(Station, Fault)], mut fault: impl FnMut(Fault)) {
    let ids = || stations.iter().map(|(station, _)| &*station.id);
    for (station, at) in stations {
        for name in &station.neighbours {
            if *name == station.id || ids().all(|id| *id != **name) {
                fault(Fault {
                    message: format!("station {:?} names neighbour {name:?}, which is no other station", station.id),
                    hint: did_you_mean(name, ids().filter(|id| **id != *station.id)),
                    ..at.clone()
                });
            }
        }
    }
}

/// `[crew]`: the links by which crews answer from their phones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crew {
    /// The file of the key that signs them; without one a key is made once beside the databases.
    pub key_file: Option<PathBuf>,
    /// How long after its call a link is good.
    pub link_valid: Duration,
}

impl Default for Crew {
    fn default() -> Self {
        Self { key_file: None, link_valid: Duration::from_secs(12 * 3_600) }
    }
}

impl Crew {
    pub fn read(r: &Reader<'_>, base: &Path) -> Self {
        let usual = Self::default();
        let key_file = r.optional::<String>("link_key_file").map(|file| named_file(base, file));
        if let Some(why) = key_file.as_deref().and_then(|file| crate::crew_link::LinkKey::load(file).err()) {
            let hint = "32 characters or more on one line, such as `openssl rand -hex 32` prints".to_owned();
            r.fault("link_key_file", format!("`crew.link_key_file`: {why}"), Some(hint));
        }
        let link_valid = r.or("link_valid", usual.link_valid);
        if !(Duration::from_secs(600)..=Duration::from_secs(7 * 86_400)).contains(&link_valid) {
            r.fault("link_valid", format!("`crew.link_valid` is {link_valid:?}, expected 10m to 7d"), None);
        }
        r.finish();
        Self { key_file, link_valid }
    }
}
