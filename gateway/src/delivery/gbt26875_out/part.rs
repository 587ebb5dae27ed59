//! Which part of which facility a device is for the centre, and how it stands. It knows no connection.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;

use anmin_rules::alarm::{Alarm, Class, Subject};
use anmin_rules::rule::Level;
use anmin_sensors::decode::gbt26875::Address;
use anmin_sensors::document::Reader;
use anmin_sensors::point::{Hazard, Kind, Place};

use super::unit::{FAULT, FIRE, PartAddress, SHIELDED, SUPERVISED};

/// A fire alarm system (table 4).
const FIRE_ALARM: u8 = 1;
/// Numbers that anmin makes up have this bit, so that they never are one that a panel gave.
const MADE_UP: u32 = 1 << 31;

/// The part type (table 5) of a device that has a point of such a kind; of several the first.
const PART_TYPES: [(&str, u8); 11] = [
    ("fire.smoke", 40),
    ("fire.smoke_density", 40),
    ("fire.call_point", 23),
    ("fire.temperature", 30),
    ("gas.detected", 10),
    ("gas.lel", 10),
    ("gas.co", 74),
    ("power.residual_current", 17),
    ("power.cable_temperature", 18),
    ("power.arc", 16),
    ("fire.alarm", 25),
];

/// The analog type (table 6) of a kind, and its steps in one of the kind's unit. Milliamperes and ppm have none.
const ANALOGS: [(&str, u8, f64); 6] = [
    ("gas.lel", 6, 10.0),
    ("fire.temperature", 3, 10.0),
    ("power.cable_temperature", 3, 10.0),
    ("power.voltage", 8, 10.0),
    ("power.current", 9, 10.0),
    ("flood.level", 2, 1.0),
];

/// `[[gbt26875_out.part]]`: what a device is called instead.
#[derive(Clone, Copy, Debug, Default)]
struct Given {
    system_type: Option<u8>,
    system: Option<u8>,
    part_type: Option<u8>,
    part: Option<u32>,
}

/// How devices are numbered northwards.
#[derive(Clone, Debug)]
pub struct Numbering {
    /// The panel whose parts keep the numbers that they have there.
    panel: Option<Address>,
    /// Number of the system of all others.
    system: u8,
    given: HashMap<String, Given>,
}

impl Numbering {
    /// Reads `panel`, `system` and the tables `part`.
    pub fn read(r: &Reader<'_>) -> Self {
        let panel = r.optional::<String>("panel").and_then(|text| {
            let panel = Address::parse(&text);
            if panel.is_none() {
                let hint = Some("the decimal number of its six bytes, such as \"889\"".to_owned());
                r.fault("panel", format!("`panel` is {text:?}, which is no address of a device"), hint);
            }
            panel
        });
        let system = r.or("system", 1);
        let mut given = HashMap::new();
        for part in r.tables("part") {
            let device = part.required::<String>("device");
            let one = Given {
                system_type: part.optional("system_type"),
                system: part.optional("system"),
                part_type: part.optional("part_type"),
                part: part.optional("part"),
            };
            part.finish();
            if let Some(device) = device
                && given.insert(device.clone(), one).is_some()
            {
                part.fault("device", format!("`device` is {device:?}, which has a part already"), None);
            }
        }
        Self { panel, system, given }
    }

    /// The part that a device with points of these kinds is; `None` where it is none of a fire facility.
    pub fn of(&self, device: &str, kinds: impl Iterator<Item = Kind> + Clone) -> Option<PartAddress> {
        let has = |kind: &str| kinds.clone().any(|one| one.as_str() == kind);
        let usual = PART_TYPES.iter().find(|(kind, _)| has(kind)).map(|(_, part_type)| *part_type);
        let given = self.given.get(device).copied().unwrap_or_default();
        Some(self.at(device, given.part_type.or(usual)?))
    }

    /// The same for a device that is known to be of this part type.
    pub fn at(&self, device: &str, part_type: u8) -> PartAddress {
        let given = self.given.get(device).copied().unwrap_or_default();
        let (system_type, system, part) = self.own(device).unwrap_or((FIRE_ALARM, self.system, made_up(device)));
        PartAddress {
            system_type: given.system_type.unwrap_or(system_type),
            system: given.system.unwrap_or(system),
            part_type,
            part: given.part.unwrap_or(part),
        }
    }

    /// `889-1-1-131082`, as devices behind a panel are called here, where its parts keep their numbers. Parts of two panels may
    /// have the same numbers, and one that is well would then end the fire of the other: so it is one panel alone.
    fn own(&self, device: &str) -> Option<(u8, u8, u32)> {
        let mut words = device.split('-');
        let panel = Address::parse(words.next()?)?;
        let number = (words.next()?.parse().ok()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        (Some(panel) == self.panel && words.next().is_none()).then_some(number)
    }
}

/// FNV-1a, 32 bits: the same after each restart, whatever other devices come and go.
fn made_up(device: &str) -> u32 {
    let hash = device.bytes().fold(0x811C_9DC5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    hash | MADE_UP
}

/// Of a value its analog type and steps; `None` where table 6 has no type for it, or no room.
pub fn analog(kind: Kind, value: f64) -> Option<(u8, i16)> {
    let (_, analog, steps) = ANALOGS.iter().find(|(name, ..)| *name == kind.as_str())?;
    let raw = (value * steps).round();
    (f64::from(i16::MIN)..=f64::from(i16::MAX)).contains(&raw).then_some((*analog, raw as i16))
}

/// Where it is, without who lives there.
pub fn text(place: &Place) -> String {
    Place { room: String::new(), ..place.clone() }.zh()
}

/// The device that an alarm is about.
pub fn device(subject: &Subject) -> Option<&str> {
    match subject {
        Subject::Point(id) => id.as_str().split_once('/').map(|(device, _)| device),
        Subject::Device(id) => Some(id.as_str()),
        Subject::Part(_) => None,
    }
}

/// The part type of a device of which nothing is known but its alarm.
pub fn usual(class: Class) -> Option<u8> {
    match class {
        Class::Hazard(Hazard::Fire) => Some(25),
        Class::Hazard(Hazard::Gas) => Some(10),
        Class::Hazard(Hazard::Power) => Some(16),
        Class::Hazard(_) | Class::System => None,
    }
}

/// Part types by device, kept beside the databases, one a line: `40 889-1-1-131082`. A device that was taken in as it spoke is not
/// known after a restart before it speaks again, and its alarm has to go north as what it was all the same.
pub struct Remembered {
    file: PathBuf,
    types: HashMap<String, u8>,
}

impl Remembered {
    /// What the last run knew; nothing where that cannot be read.
    pub fn open(file: PathBuf) -> Self {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let read = |line: &str| {
            let (part_type, device) = line.split_once(' ')?;
            Some((device.to_owned(), part_type.parse().ok()?))
        };
        Self { types: text.lines().filter_map(read).collect(), file }
    }

    pub fn get(&self, device: &str) -> Option<u8> {
        self.types.get(device).copied()
    }

    /// Writes what is new at the end of the file. Where it cannot be written it holds for this run.
    pub fn put(&mut self, device: &str, part_type: u8) {
        if self.types.insert(device.to_owned(), part_type) == Some(part_type) {
            return;
        }
        let file = OpenOptions::new().create(true).append(true).open(&self.file);
        if let Err(error) = file.and_then(|mut file| file.write_all(format!("{part_type} {device}\n").as_bytes())) {
            tracing::warn!("{}: {error}", self.file.display());
        }
    }
}

/// What an alarm adds to the state of its part. Orange and red of fire and gas are a fire alarm; what is only to be watched,
/// and what is electrical, is supervised: a centre sends engines for the first.
pub fn state(alarm: &Alarm) -> u16 {
    if alarm.drill.is_some() {
        return 0;
    }
    let what = match alarm.class {
        Class::Hazard(Hazard::Fire | Hazard::Gas) if alarm.level >= Level::Orange => FIRE,
        Class::Hazard(Hazard::Fire | Hazard::Gas | Hazard::Power) => SUPERVISED,
        Class::Hazard(Hazard::Device) | Class::System => FAULT,
        Class::Hazard(_) => 0,
    };
    let lasts = if alarm.is_active() || alarm.latched { what } else { 0 };
    lasts | if alarm.is_silenced() { SHIELDED } else { 0 }
}

#[cfg(test)]
mod tests {
    use anmin_rules::alarm::{By, Condition};
    use anmin_sensors::document::{Document, Faults};

    use super::*;
    use crate::samples::{self, RAISED};

    fn read(text: &str) -> (Numbering, usize) {
        let faults = Faults::default();
        let document = Document::parse("t.toml", text, &faults).expect("the test writes TOML");
        let root = document.root(&faults);
        let numbering = Numbering::read(&root);
        root.finish();
        (numbering, faults.len())
    }

    fn kinds(names: &[&str]) -> Vec<Kind> {
        names.iter().map(|name| Kind::named(name).expect("a kind")).collect()
    }

    #[test]
    fn a_part_keeps_the_numbers_of_its_panel_or_has_the_ones_that_it_was_given() {
        let (numbering, faults) = read(
            "panel = \"889\"\nsystem = 3\n[[part]]\ndevice = \"kitchen\"\npart_type = 11\npart = 7\n[[part]]\ndevice = \"pump\"\npart_type = 91",
        );
        assert_eq!(faults, 0);
        let of = |device: &str, names: &[&str]| numbering.of(device, kinds(names).into_iter());
        let at = |system_type, system, part_type, part| Some(PartAddress { system_type, system, part_type, part });
        assert_eq!(of("889-1-2-131082", &["fire.smoke", "device.fault"]), at(1, 2, 40, 131_082));
        assert_eq!(of("889-11-2-5", &["device.fault", "fire.call_point"]), at(11, 2, 23, 5));
        assert_eq!(of("kitchen", &["gas.lel"]), at(1, 3, 11, 7));
        assert_eq!(of("pump", &["device.output"]), at(1, 3, 91, made_up("pump")));
        // Another panel has a part of the same number: it is another part.
        let other = of("890-1-2-131082", &["fire.smoke"]).expect("a part");
        assert_eq!((other.system, other.part_type), (3, 40));
        assert!(other.part >= MADE_UP);
        assert_ne!(of("890-1-2-131083", &["fire.smoke"]), Some(other));
        for (device, names) in
            [("meter", &["power.energy", "power.voltage"][..]), ("lift", &["care.lift_trapped"]), ("", &[])]
        {
            assert_eq!(of(device, names), None, "{device}");
        }
        for wrong in [
            "panel = \"x\"",
            "system = 256",
            "[[part]]\npart = 1",
            "[[part]]\ndevice = \"a\"\n[[part]]\ndevice = \"a\"",
        ] {
            assert_eq!(read(wrong).1, 1, "{wrong}");
        }
    }

    #[test]
    fn a_state_is_a_fire_only_where_something_burns_or_may_explode() {
        let mut alarm = samples::alarm();
        assert_eq!(state(&alarm), FIRE);
        alarm.level = Level::Yellow;
        assert_eq!(state(&alarm), SUPERVISED);
        alarm.level = Level::Red;
        for (class, wanted) in [
            (Class::Hazard(Hazard::Fire), FIRE),
            (Class::Hazard(Hazard::Power), SUPERVISED),
            (Class::Hazard(Hazard::Device), FAULT),
            (Class::System, FAULT),
            (Class::Hazard(Hazard::Flood), 0),
        ] {
            alarm.class = class;
            assert_eq!(state(&alarm), wanted, "{class:?}");
        }
        alarm.class = Class::Hazard(Hazard::Fire);
        alarm.condition = Condition::Normal;
        assert_eq!(state(&alarm), 0);
        alarm.latched = true;
        assert_eq!(state(&alarm), FIRE, "until somebody has reset it");
        alarm.out_of_service = Some(By { who: "li".to_owned(), at: RAISED });
        assert_eq!(state(&alarm), FIRE | SHIELDED);
        alarm.drill = Some(anmin_rules::drill::DrillId(alarm.id.0));
        assert_eq!(state(&alarm), 0, "a drill burns nowhere");
    }

    #[test]
    fn a_value_is_told_where_the_standard_has_a_type_for_it() {
        let of = |kind: &str, value| analog(Kind::named(kind).expect("a kind"), value);
        assert_eq!(of("gas.lel", 25.3), Some((6, 253)));
        assert_eq!(of("power.cable_temperature", -5.5), Some((3, -55)));
        assert_eq!(of("fire.temperature", 4_000.0), None);
        assert_eq!(of("fire.temperature", f64::NAN), None);
        assert_eq!(of("power.residual_current", 300.0), None);
        assert_eq!(text(&samples::alarm().place), "3号楼2单元5层");
    }

    #[test]
    fn part_types_outlive_a_restart_and_the_last_one_holds() {
        let file = std::env::temp_dir().join(format!("anmin-parts-{}", std::process::id()));
        let mut remembered = Remembered::open(file.clone());
        assert_eq!(remembered.get("889-1-1-5"), None);
        for (device, part_type) in [("889-1-1-5", 40), ("b1 kitchen", 10), ("889-1-1-5", 42), ("889-1-1-5", 42)] {
            remembered.put(device, part_type);
        }
        let again = Remembered::open(file.clone());
        assert_eq!((again.get("889-1-1-5"), again.get("b1 kitchen")), (Some(42), Some(10)));
        let lines = std::fs::read_to_string(&file).expect("it is there").lines().count();
        std::fs::remove_file(&file).expect("it is ours");
        assert_eq!(lines, 3, "what is known already is not written again");
        assert_eq!(usual(Class::Hazard(Hazard::Fire)), Some(25));
        assert_eq!(usual(Class::System), None);
    }
}
