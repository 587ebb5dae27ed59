//! `[[drawing]]`: maps and floor plans of the site, each with its file judged.

use std::collections::{HashMap, HashSet};
use std::path::Component;
use std::path::Path;
use std::sync::Arc;

use anmin_rules::rule::Text;
use anmin_sensors::document::{Fault, Faults, Reader, did_you_mean};
use anmin_sensors::point::{Place, Points};
use ring::digest::{SHA256, digest};

use super::{files, site};
use crate::drawing::{
    self, Drawing, Flaw, Image, MOST_DRAWINGS, MOST_IMAGE_BYTES, MOST_MAP_BYTES, MOST_MARKS, Map, Mark, Sheet, Spot,
};

/// What a drawing may name.
pub struct Known<'k> {
    pub places: &'k HashMap<String, Arc<Place>>,
    pub points: &'k Points,
    /// Devices may come that the site does not list: what is not there yet is no fault then.
    pub open: bool,
}

/// The drawings of a site whose folder is `base`; what is wrong with one is noted where it stands.
pub fn read(tables: &[Reader<'_>], base: &Path, known: &Known<'_>, faults: &Faults) -> Arc<[Drawing]> {
    if let Some(r) = tables.get(MOST_DRAWINGS) {
        r.fault("id", format!("there are {} drawings, expected {MOST_DRAWINGS} at most", tables.len()), None);
    }
    tables.iter().take(MOST_DRAWINGS).filter_map(|r| one(r, base, known, faults)).collect()
}

fn one(r: &Reader<'_>, base: &Path, known: &Known<'_>, faults: &Faults) -> Option<Drawing> {
    let id: Option<String> = r.required("id");
    let plain = |id: &String| id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if let Some(id) = id.as_ref().filter(|id| id.is_empty() || !plain(id)) {
        let hint = Some("it becomes part of an address; the name may be Chinese".to_owned());
        r.fault("id", format!("`drawing.id` is {id:?}, expected letters, digits, - and _"), hint);
    }
    let name = site::text(r, "name").unwrap_or_else(|| Text::both(id.clone().unwrap_or_default()));
    let (building, floor): (String, String) = (r.or("building", String::new()), r.or("floor", String::new()));
    let buildings = || known.places.values().map(|place| &*place.building).filter(|building| !building.is_empty());
    if !building.is_empty() && buildings().all(|known| known != building) {
        let message = format!("no [[place]] is in building {building:?}");
        known.missing(r, "building", message, did_you_mean(&building, buildings()));
    }
    if building.is_empty() && !floor.is_empty() {
        r.fault("floor", "`floor` without `building`: every building may have such a floor", None);
    }
    let (geojson, image): (Option<String>, Option<String>) = (r.optional("geojson"), r.optional("image"));
    let marks = r.tables("mark");
    let sheet = match (geojson, image) {
        (Some(file), None) => {
            if let Some(mark) = marks.first() {
                let hint = "give the [[place]] a `position`, or a feature of the map its id as `place`".to_owned();
                mark.fault("x", "a map of GeoJSON has no marks", Some(hint));
            }
            map(r, &file, base, known, faults).map(Sheet::Map)
        }
        (None, Some(file)) => {
            let image = image_of(r, &file, base);
            let on = On { building: &building, floor: &floor, known };
            let size = image.as_ref().map(|image| (f64::from(image.width), f64::from(image.height)));
            let marks = on.marks(&marks, size);
            image.map(|image| Sheet::Image(Image { marks, ..image }))
        }
        (Some(_), Some(_)) => {
            r.fault("image", "a drawing has a `geojson` or an `image`, not both", None);
            None
        }
        (None, None) => {
            let hint = "geojson = \"plans/site.geojson\" or image = \"plans/b3-f1.png\"".to_owned();
            r.fault("id", "a drawing needs a `geojson` or an `image`", Some(hint));
            None
        }
    };
    r.finish();
    Some(Drawing { id: Arc::from(id?), name, building, floor, sheet: sheet? })
}

impl Known<'_> {
    /// Notes what is not there, as a fault only where nothing can bring it.
    fn missing(&self, r: &Reader<'_>, key: &'static str, message: String, hint: Option<String>) {
        if self.open {
            r.warn(Fault { message, hint, ..r.place(key) });
        } else {
            r.fault(key, message, hint);
        }
    }
}

/// The bytes of a file that lies in the site's folder, links followed.
fn within(base: &Path, file: &str, most: u64) -> Result<Vec<u8>, Flaw> {
    let flaw =
        |message: String, hint: Option<&str>| Flaw { line: 0, column: 0, message, hint: hint.map(str::to_owned) };
    let outside =
        || flaw("lies outside of the site's folder".to_owned(), Some("copy it into the folder, such as plans/"));
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if file.is_empty() || !Path::new(file).components().all(plain) {
        return Err(outside());
    }
    let base = if base.as_os_str().is_empty() { Path::new(".") } else { base };
    let path = base.join(file);
    let bytes = files::bytes(&path, most).map_err(|why| flaw(format!("cannot be read: {why}"), None))?;
    match (base.canonicalize(), path.canonicalize()) {
        (Ok(base), Ok(path)) if path.starts_with(&base) => Ok(bytes),
        _ => Err(outside()),
    }
}

fn map(r: &Reader<'_>, file: &str, base: &Path, known: &Known<'_>, faults: &Faults) -> Option<Map> {
    let source = base.join(file).display().to_string();
    // Its own place, where it has one, else that of its name.
    let note = |flaw: Flaw| match flaw.line {
        0 => r.fault("geojson", format!("{source}: {}", flaw.message), flaw.hint),
        line => faults.note(Fault {
            source: source.clone(),
            line,
            column: flaw.column,
            message: flaw.message,
            hint: flaw.hint,
            zh: None,
        }),
    };
    let bytes = within(base, file, MOST_MAP_BYTES).map_err(note).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let map = Map::parse(text.trim_start_matches('\u{FEFF}')).map_err(note).ok()?;
    for (n, feature) in map.features.iter().enumerate() {
        let Some(place) = feature.place.as_ref().filter(|place| !known.places.contains_key(*place)) else { continue };
        let hint = did_you_mean(place, known.places.keys().map(String::as_str));
        r.fault("geojson", format!("{source}: feature {}: there is no place {place:?}", n + 1), hint);
    }
    let mut positions = known.places.values().filter_map(|place| place.position).peekable();
    if positions.peek().is_some() && !positions.any(|at| map.bounds.holds(at)) {
        let (lat, lon) = map.bounds.centre();
        let message =
            format!("{source}: no [[place]] with a `position` lies on this map, whose middle is [{lat:.4}, {lon:.4}]");
        let hint = "both in WGS-84, and `position` as [latitude, longitude]".to_owned();
        r.warn(Fault { message, hint: Some(hint), ..r.place("geojson") });
    }
    Some(map)
}

/// The image without what is marked on it.
fn image_of(r: &Reader<'_>, file: &str, base: &Path) -> Option<Image> {
    let path = base.join(file);
    let note = |flaw: Flaw| r.fault("image", format!("{}: {}", path.display(), flaw.message), flaw.hint);
    let bytes = within(base, file, MOST_IMAGE_BYTES).map_err(note).ok()?;
    let (form, width, height) = drawing::judge_image(&bytes).map_err(note).ok()?;
    Some(Image { sha256: sha256(&bytes), path: path.clone(), form, width, height, marks: Vec::new() })
}

/// In hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An image that things are marked on.
struct On<'o> {
    building: &'o str,
    floor: &'o str,
    known: &'o Known<'o>,
}

impl On<'_> {
    /// `size` in pixels, where the image itself is sound.
    fn marks(&self, tables: &[Reader<'_>], size: Option<(f64, f64)>) -> Vec<Mark> {
        if let Some(r) = tables.get(MOST_MARKS) {
            r.fault("x", format!("there are {} marks, expected {MOST_MARKS} at most", tables.len()), None);
        }
        let mut seen: HashSet<Spot> = HashSet::new();
        let mark = |r: &Reader<'_>| {
            let spot = Spot {
                place: r.or("place", String::new()),
                unit: r.or("unit", String::new()),
                floor: r.or("floor", String::new()),
                room: r.or("room", String::new()),
                device: r.or("device", String::new()),
                point: r.or("point", String::new()),
            };
            let at = at(r, size);
            let what = self.what(r, &spot);
            if !seen.insert(spot.clone()) {
                r.fault("x", "the same is marked twice on this drawing", None);
            }
            r.finish();
            let (name, place) = what?;
            Some(Mark { spot, at: at?, name, place })
        };
        tables.iter().take(MOST_MARKS).filter_map(mark).collect()
    }

    /// What people call it, and where it is.
    fn what(&self, r: &Reader<'_>, spot: &Spot) -> Option<(Text, Place)> {
        let points = self.known.points;
        let here = Place { building: self.building.to_owned(), floor: self.floor.to_owned(), ..Place::default() };
        let named = [&spot.place, &spot.unit, &spot.floor, &spot.room].into_iter().any(|part| !part.is_empty());
        let found = match (&*spot.device, &*spot.point, named) {
            ("", "", true) => return self.place(r, spot, here),
            (id, "", false) if !id.is_empty() => ("device", id, points.find_device(id)),
            ("", id, false) if !id.is_empty() => ("point", id, points.find(id).map(|ix| points.point(ix).device)),
            _ => {
                let hint = "device = \"b3-1-101-gas\", or room = \"101\"".to_owned();
                r.fault("x", "a mark is of a `device`, of a `point`, or of a place, room or floor", Some(hint));
                return None;
            }
        };
        match found {
            (key, id, None) => {
                let device = id.split('/').next().unwrap_or_default();
                let hint = did_you_mean(device, points.devices().map(|(_, device)| device.id.as_str()));
                self.known.missing(r, key, format!("there is no {key} {id:?}"), hint);
                Some((Text::both(id), here))
            }
            (key, id, Some(ix)) => {
                let device = points.device(ix);
                let is_here = [(self.building, &*device.place.building), (self.floor, &*device.place.floor)]
                    .into_iter()
                    .all(|(wanted, is)| wanted.is_empty() || wanted == is);
                if !is_here {
                    let message = format!("{key} {id:?} is not on this drawing: it is in {}", device.place.en());
                    r.fault(key, message, None);
                }
                Some(((&device.label()).into(), Place::clone(&device.place)))
            }
        }
    }

    /// A place, a floor or a room, in which something must be.
    fn place(&self, r: &Reader<'_>, spot: &Spot, here: Place) -> Option<(Text, Place)> {
        let Known { places, points, .. } = self.known;
        let mut of = here;
        if !spot.place.is_empty() {
            let Some(place) = places.get(&spot.place) else {
                let hint = did_you_mean(&spot.place, places.keys().map(String::as_str));
                r.fault("place", format!("there is no place {:?}", spot.place), hint);
                return None;
            };
            if !self.building.is_empty() && place.building != self.building {
                r.fault(
                    "place",
                    format!("place {:?} is not on this drawing: it is in {}", spot.place, place.en()),
                    None,
                );
            }
            let floor = std::mem::take(&mut of.floor);
            of = Place::clone(place);
            if !floor.is_empty() {
                of.floor = floor;
            }
        }
        for (part, said) in [(&mut of.unit, &spot.unit), (&mut of.floor, &spot.floor), (&mut of.room, &spot.room)] {
            if !said.is_empty() {
                part.clone_from(said);
            }
        }
        if !self.floor.is_empty() && of.floor != self.floor {
            r.fault(
                "floor",
                format!("floor {:?} is not on this drawing: it is of floor {:?}", of.floor, self.floor),
                None,
            );
        }
        let on_it = |place: &Place| {
            (self.building.is_empty() || place.building == self.building)
                && (self.floor.is_empty() || place.floor == self.floor)
        };
        let there = || points.devices().map(|(_, device)| &device.place).filter(|place| on_it(place));
        // A place may be without devices; a room that nobody lists is one that was written otherwise.
        let inside = [&spot.unit, &spot.floor, &spot.room].into_iter().any(|part| !part.is_empty());
        if inside && !there().any(|place| spot.takes(place)) {
            let (key, word) = match (&*spot.room, &*spot.floor) {
                ("", "") => ("unit", &spot.unit),
                ("", _) => ("floor", &spot.floor),
                _ => ("room", &spot.room),
            };
            let names = there().map(|place| match key {
                "unit" => &*place.unit,
                "floor" => &*place.floor,
                _ => &*place.room,
            });
            let hint = did_you_mean(word, names.collect::<HashSet<&str>>());
            self.known.missing(r, key, format!("no device is in {}", of.en()), hint);
        }
        Some((Text { zh: of.zh(), en: of.en() }, of))
    }
}

/// `x` and `y` as parts of width and height: so are numbers up to 1, larger ones are pixels.
fn at(r: &Reader<'_>, size: Option<(f64, f64)>) -> Option<(f64, f64)> {
    let (x, y): (Option<f64>, Option<f64>) = (r.required("x"), r.required("y"));
    let (x, y) = (x?, y?);
    let is_part = |number: f64| (0.0..=1.0).contains(&number);
    if is_part(x) && is_part(y) {
        return Some((x, y));
    }
    let (width, height) = size?;
    if (0.0..=width).contains(&x) && (0.0..=height).contains(&y) {
        return Some((x / width, y / height));
    }
    let message = format!("x = {x}, y = {y} lies outside of the image, which has {width} × {height} pixels");
    r.fault("x", message, Some("from its upper left corner, in pixels or as parts from 0 to 1".to_owned()));
    None
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::Config;
    use super::super::files::{SiteFiles, Source};
    use super::*;

    const SITE: &str = "[site]\nid = \"s\"\n[[place]]\nid = \"b3\"\nbuilding = \"3\"\nposition = [36.1, 103.8]\n\
                        [[place]]\nid = \"b4\"\nbuilding = \"4\"\n\
                        [[device]]\nid = \"gas\"\nprofile = \"anmin-json-gas\"\nplace = \"b3\"\nunit = \"1\"\nfloor = \"1\"\nroom = \"101\"\n\
                        [[device]]\nid = \"far\"\nprofile = \"anmin-json-gas\"\nplace = \"b4\"\nfloor = \"1\"\nroom = \"102\"\n";

    /// A folder of this test's own, gone when it is dropped.
    struct Folder(std::path::PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("anmin-drawings-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(path.join("site/plans")).expect("a folder for the test");
            let size = [1000_u32.to_be_bytes(), 500_u32.to_be_bytes()].concat();
            let png = [b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".as_slice(), &size].concat();
            fs::write(path.join("site/plans/f1.png"), &png).expect("a file of the test");
            fs::write(path.join("secret.png"), &png).expect("a file of the test");
            std::os::unix::fs::symlink(path.join("secret.png"), path.join("site/plans/link.png")).expect("a link");
            Self(path)
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.0.join("site").join(name), text).expect("a file of the test");
        }

        /// The drawings of the site with this text at its end, and its faults and warnings without the folder's name.
        fn read(&self, text: &str) -> (Vec<Drawing>, String, String) {
            let source = Source { name: "anmin.toml".to_owned(), text: format!("{text}\n{SITE}") };
            let files = SiteFiles { base: self.0.join("site"), config: vec![source], ..SiteFiles::default() };
            let faults = Faults::default();
            let config = Config::parse(&files, &faults);
            let told = |all: &[Fault]| {
                let all: Vec<String> = all.iter().map(ToString::to_string).collect();
                all.join("\n").replace(&format!("{}/site/", self.0.display()), "")
            };
            let (drawings, warnings) = match &config {
                Some(config) => (config.drawings.to_vec(), told(&config.warnings)),
                None => Default::default(),
            };
            (drawings, told(&faults.take()), warnings)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn whatever_is_wrong_with_a_drawing_is_told_with_its_line_and_reason() {
        let folder = Folder::new("faults");
        folder.write("plans/site.geojson", "{\"type\":\"Point\",\"coordinates\":[103.8,36.1]}");
        folder.write("plans/far.geojson", "{\"type\":\"Point\",\"coordinates\":[116.4,39.9]}");
        folder.write("plans/no-place.geojson", "{\"type\":\"Feature\",\"properties\":{\"place\":\"b33\"},\"geometry\":{\"type\":\"Point\",\"coordinates\":[103.8,36.1]}}");
        folder.write("plans/broken.geojson", "{\n\"type\": ]");
        folder.write("plans/f1.svg", "<svg onload=\"alert(1)\"/>");
        folder.write("plans/large.geojson", &" ".repeat((2 << 20) + 1));
        let on_floor = |marks: &str| {
            format!("id = \"f\"\nbuilding = \"3\"\nfloor = \"1\"\nimage = \"plans/f1.png\"\nmark = [{marks}]")
        };
        for (drawing, fault) in [
            ("id = \"a b\"\ngeojson = \"plans/site.geojson\"", "anmin.toml:2:6: `drawing.id` is \"a b\""),
            ("id = \"a\"", "anmin.toml:2:6: a drawing needs a `geojson` or an `image`"),
            (
                "id = \"a\"\ngeojson = \"plans/site.geojson\"\nimage = \"plans/f1.png\"",
                "anmin.toml:4:9: a drawing has a `geojson` or an `image`, not both",
            ),
            (
                "id = \"a\"\ngeojson = \"plans/site.geojson\"\nfloor = \"1\"",
                "anmin.toml:4:9: `floor` without `building`",
            ),
            (
                "id = \"a\"\ngeojson = \"plans/site.geojson\"\nbuilding = \"33\"",
                "anmin.toml:4:12: no [[place]] is in building \"33\"\n  hint: did you mean `3`?",
            ),
            (
                "id = \"a\"\ngeojson = \"plans/nowhere.geojson\"",
                "anmin.toml:3:11: plans/nowhere.geojson: cannot be read: there is no such file",
            ),
            ("id = \"a\"\ngeojson = \"plans\"", "plans: cannot be read: it is a folder, expected a file"),
            (
                "id = \"a\"\ngeojson = \"plans/large.geojson\"",
                "plans/large.geojson: cannot be read: it is larger than 2 MiB",
            ),
            ("id = \"a\"\ngeojson = \"plans/broken.geojson\"", "plans/broken.geojson:2:9: not JSON: expected value"),
            ("id = \"a\"\ngeojson = \"plans/f1.png\"", "not JSON"),
            (
                "id = \"a\"\ngeojson = \"plans/no-place.geojson\"",
                "feature 1: there is no place \"b33\"\n  hint: did you mean `b3`?",
            ),
            (
                "id = \"a\"\ngeojson = \"plans/site.geojson\"\nmark = [{ device = \"gas\", x = 0, y = 0 }]",
                "a map of GeoJSON has no marks",
            ),
            (
                "id = \"a\"\nimage = \"plans/f1.svg\"",
                "anmin.toml:3:9: plans/f1.svg: neither PNG nor JPEG by its first bytes\n  hint: save a drawing that is SVG",
            ),
            ("id = \"a\"\nimage = \"../secret.png\"", "lies outside of the site's folder"),
            ("id = \"a\"\nimage = \"/etc/passwd\"", "lies outside of the site's folder"),
            ("id = \"a\"\nimage = \"plans/link.png\"", "lies outside of the site's folder"),
            ("id = \"a\"\nimage = \"plans/f1.png\"\npicture = 1", "`drawing[0].picture` is not a known key"),
            (
                &on_floor("{ device = \"gsa\", x = 0, y = 0 }"),
                "anmin.toml:6:20: there is no device \"gsa\"\n  hint: did you mean `gas`?",
            ),
            (
                &on_floor("{ device = \"far\", x = 0, y = 0 }"),
                "device \"far\" is not on this drawing: it is in Building 4, Floor 1, 102",
            ),
            (&on_floor("{ point = \"gas/lle\", x = 0, y = 0 }"), "there is no point \"gas/lle\""),
            (&on_floor("{ place = \"b5\", x = 0, y = 0 }"), "there is no place \"b5\""),
            (&on_floor("{ place = \"b4\", x = 0, y = 0 }"), "place \"b4\" is not on this drawing: it is in Building 4"),
            (
                &on_floor("{ room = \"110\", x = 0, y = 0 }"),
                "no device is in Building 3, Floor 1, 110\n  hint: did you mean `101`?",
            ),
            (
                &on_floor("{ unit = \"2\", room = \"101\", x = 0, y = 0 }"),
                "no device is in Building 3, Unit 2, Floor 1, 101",
            ),
            (&on_floor("{ floor = \"2\", room = \"101\", x = 0, y = 0 }"), "floor \"2\" is not on this drawing"),
            (&on_floor("{ x = 0, y = 0 }"), "a mark is of a `device`, of a `point`, or of a place, room or floor"),
            (&on_floor("{ device = \"gas\", room = \"101\", x = 0, y = 0 }"), "a mark is of a `device`, of a `point`"),
            (
                &on_floor("{ room = \"101\", x = 1001, y = 20 }"),
                "anmin.toml:6:29: x = 1001, y = 20 lies outside of the image, which has 1000 × 500 pixels",
            ),
            (&on_floor("{ room = \"101\", x = -0.1, y = 0.2 }"), "lies outside of the image"),
            (&on_floor("{ room = \"101\", x = 0.1 }"), "`drawing[0].mark[0].y` is missing"),
            (
                &on_floor("{ room = \"101\", x = 0, y = 0 }, { room = \"101\", x = 1, y = 1 }"),
                "the same is marked twice on this drawing",
            ),
        ] {
            let (_, faults, _) = folder.read(&format!("[[drawing]]\n{drawing}"));
            assert!(faults.contains(fault), "{drawing}\nsays {faults}\nand not {fault}");
        }
        let twice = "[[drawing]]\nid = \"a\"\nimage = \"plans/f1.png\"\n".repeat(2);
        assert!(folder.read(&twice).1.contains("drawing \"a\" is there already"));

        let (_, faults, warnings) = folder.read("[[drawing]]\nid = \"a\"\ngeojson = \"plans/far.geojson\"");
        assert!(
            faults.is_empty() && warnings.contains("no [[place]] with a `position` lies on this map"),
            "{warnings}"
        );
        let open = "[[broker.mapping]]\ntopic = \"s/{device}\"\nunknown = \"provision\"\nprofile = \"anmin-json-gas\"\n[broker]\n";
        let later = format!("[[drawing]]\n{}\n{open}", on_floor("{ device = \"new\", x = 0, y = 0 }"));
        let (_, faults, warnings) = folder.read(&later);
        assert!(faults.is_empty() && warnings.contains("there is no device \"new\""), "{faults} {warnings}");
    }

    #[test]
    fn what_is_marked_has_a_name_a_place_and_a_spot_on_the_image() {
        let folder = Folder::new("marks");
        let (drawings, faults, warnings) = folder.read(
            "[[drawing]]\nid = \"f1\"\nname = { zh = \"一层\", en = \"Floor 1\" }\nbuilding = \"3\"\nfloor = \"1\"\nimage = \"plans/f1.png\"\n\
             mark = [{ room = \"101\", x = 0.25, y = 1 }, { device = \"gas\", x = 500, y = 100 }, { point = \"gas/lel\", x = 0, y = 0.5 }]\n\
             [[drawing]]\nid = \"all\"\nimage = \"plans/f1.png\"\nmark = [{ place = \"b4\", x = 0.5, y = 0.5 }]",
        );
        assert!(faults.is_empty() && warnings.is_empty(), "{faults}{warnings}");
        let Sheet::Image(image) = &drawings[0].sheet else { panic!("{:?}", drawings[0]) };
        assert_eq!((image.width, image.height, image.sha256.len()), (1000, 500, 64));
        let marks: Vec<_> = image.marks.iter().map(|mark| (&*mark.name.en, &*mark.place.building, mark.at)).collect();
        assert_eq!(
            marks,
            [("Building 3, Floor 1, 101", "3", (0.25, 1.0)), ("gas", "3", (0.5, 0.2)), ("gas", "3", (0.0, 0.5))]
        );
        let Sheet::Image(all) = &drawings[1].sheet else { panic!("{:?}", drawings[1]) };
        assert_eq!((&*all.marks[0].name.zh, &*all.marks[0].place.area), ("4号楼", "b4"));
    }
}
