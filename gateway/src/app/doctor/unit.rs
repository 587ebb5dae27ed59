//! What systemd lets the daemon do: its unit with the drop-ins, as far as it is asked for here (systemd.unit(5)).

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

const NAME: &str = "anmin.service";

/// Where units lie; the first that has one is in force.
const FOLDERS: [&str; 3] = ["etc/systemd/system", "run/systemd/system", "usr/lib/systemd/system"];

/// The settings of `[Service]`, in the order in which they are read.
#[derive(Clone, Debug, Default)]
pub struct Unit(Vec<(String, String)>);

impl Unit {
    /// That of the machine whose root this is; `None` where it has none.
    pub fn below(root: &Path) -> Option<Self> {
        let unit = FOLDERS.iter().map(|folder| root.join(folder).join(NAME)).find(|path| path.is_file())?;
        // By name; one in /etc hides one of the same name elsewhere.
        let mut drop_ins: BTreeMap<_, PathBuf> = BTreeMap::new();
        for folder in FOLDERS.iter().rev() {
            let entries = fs::read_dir(root.join(folder).join(format!("{NAME}.d"))).into_iter().flatten().flatten();
            let paths = entries.map(|entry| entry.path());
            let read = paths.filter(|path| path.extension().is_some_and(|ending| ending == "conf"));
            drop_ins.extend(read.filter_map(|path| Some((path.file_name()?.to_owned(), path))));
        }
        let mut found = Self::default();
        for path in std::iter::once(&unit).chain(drop_ins.values()) {
            found.add(&fs::read_to_string(path).unwrap_or_default());
        }
        Some(found)
    }

    #[cfg(test)]
    pub fn of_text(text: &str) -> Self {
        let mut unit = Self::default();
        unit.add(text);
        unit
    }

    fn add(&mut self, text: &str) {
        let mut is_service = false;
        let mut begun = String::new();
        for line in text.lines().map(str::trim) {
            if line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(part) = line.strip_suffix('\\') {
                begun.push_str(part);
                begun.push(' ');
                continue;
            }
            let line = std::mem::take(&mut begun) + line;
            if line.starts_with('[') {
                is_service = line == "[Service]";
            } else if let Some((key, value)) = line.split_once('=').filter(|_| is_service) {
                self.0.push((key.trim().to_owned(), value.trim().to_owned()));
            }
        }
    }

    /// All values of a setting that may be given often; an empty one takes back those before it.
    fn all(&self, key: &str) -> Vec<&str> {
        let mut all = Vec::new();
        for (_, value) in self.0.iter().filter(|(of, _)| of == key) {
            match value.as_str() {
                "" => all.clear(),
                value => all.push(value),
            }
        }
        all
    }

    /// The groups that the daemon is in beside its own.
    pub fn groups(&self) -> Vec<&str> {
        self.all("SupplementaryGroups").into_iter().flat_map(str::split_whitespace).collect()
    }

    /// Whether it may read and write a character device. `drivers` is what `/proc/devices` says.
    pub fn allows(&self, device: &Path, drivers: &str) -> bool {
        let last = |key: &str| self.0.iter().rev().find(|(of, _)| of == key).map_or("", |(_, value)| value.as_str());
        if ["yes", "true", "on", "1"].contains(&last("PrivateDevices")) {
            return false;
        }
        let allowed = self.all("DeviceAllow");
        if allowed.is_empty() && ["", "auto"].contains(&last("DevicePolicy")) {
            return true;
        }
        let number = |path: &Path| fs::metadata(path).ok().map(|meta| meta.rdev());
        let Some(wanted) = number(device) else { return false };
        allowed.into_iter().any(|allowed| {
            let (which, what) = allowed.split_once(char::is_whitespace).unwrap_or((allowed, "rwm"));
            let is_it = match which.strip_prefix("char-") {
                Some(driver) => is_of(driver, major(wanted), drivers),
                None => number(Path::new(which)) == Some(wanted),
            };
            is_it && what.contains('r') && what.contains('w')
        })
    }
}

/// The part of a device's number that says which driver it is of, makedev(3).
fn major(device: u64) -> u64 {
    device >> 8 & 0xFFF | device >> 32 & !0xFFF
}

/// Whether a device with this number is of a driver; a `*` at the end stands for any others.
fn is_of(driver: &str, major: u64, drivers: &str) -> bool {
    let characters = drivers.lines().skip_while(|line| !line.starts_with("Character")).take_while(|line| {
        // The drivers of block devices come after them.
        !line.starts_with("Block")
    });
    characters.filter_map(|line| line.trim().split_once(' ')).any(|(number, name)| {
        let is_named = driver.strip_suffix('*').map_or(name == driver, |beginning| name.starts_with(beginning));
        is_named && number.parse() == Ok(major)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRIVERS: &str =
        "Character devices:\n  1 mem\n  5 /dev/tty\n188 ttyUSB\n\nBlock devices:\n  1 ramdisk\n  7 null\n";

    /// The drop-in that is shipped, and what people make of it: what the unit then lets anmin do with a device of the driver `mem`.
    #[test]
    fn a_device_may_be_used_that_the_unit_and_its_drop_ins_name() {
        let shipped = include_str!("../../../../systemd/drop-ins/serial.conf");
        for (name, drop_in, allowed, groups) in [
            ("none", String::new(), false, &[][..]),
            ("shipped", shipped.replace("char-ttyS rw", "char-mem rw"), true, &["dialout"]),
            ("another-driver", shipped.to_owned(), false, &["dialout"]),
            ("commented-out", "[Service]\nPrivateDevices=no\n#DeviceAllow=char-mem rw\n".to_owned(), false, &[]),
            ("private", "[Service]\nDeviceAllow=/dev/null rw\n".to_owned(), false, &[]),
            ("by-path", "[Service]\nPrivateDevices=no\nDeviceAllow=/dev/null rw\n".to_owned(), true, &[]),
            ("by-glob", "[Service]\nPrivateDevices=no\nDeviceAllow=char-m*\n".to_owned(), true, &[]),
            ("read-alone", "[Service]\nPrivateDevices=no\nDeviceAllow=/dev/null r\n".to_owned(), false, &[]),
            (
                "taken-back",
                "[Service]\nPrivateDevices=no\nDeviceAllow=/dev/null rw\nDeviceAllow=\n".to_owned(),
                false,
                &[],
            ),
            (
                "of-another-part",
                "[Unit]\nDeviceAllow=/dev/null rw\n[Service]\nSupplementaryGroups=a \\\n b\n".to_owned(),
                false,
                &["a", "b"],
            ),
        ] {
            let root = std::env::temp_dir().join(format!("anmin-unit-{name}-{}", std::process::id()));
            let (units, own) = (root.join(FOLDERS[2]), root.join(FOLDERS[0]).join("anmin.service.d"));
            [&units, &own].into_iter().for_each(|folder| fs::create_dir_all(folder).expect("it is ours"));
            let write = |path: &Path, text: &str| fs::write(path, text).expect("it is ours");
            write(&units.join(NAME), include_str!("../../../../systemd/anmin.service"));
            write(&own.join("serial.conf"), &drop_in);
            write(&own.join("serial.conf.old"), "[Service]\nPrivateDevices=no\nDeviceAllow=/dev/null rw\n");
            let unit = Unit::below(&root).expect("it is there");
            assert_eq!(unit.allows(Path::new("/dev/null"), DRIVERS), allowed, "{name}");
            assert_eq!(unit.groups(), groups, "{name}");
            fs::remove_dir_all(&root).expect("it is ours");
        }
        assert!(Unit::below(Path::new("/nowhere")).is_none());
        assert!(Unit::default().allows(Path::new("/dev/null"), DRIVERS), "a unit that bars nothing");
    }
}
