//! Drawings of the site: a map as GeoJSON, floor plans as images. They are judged once, when the site is read, so that whoever
//! looks at night is shown what was judged by day. It takes bytes, never paths; what is on a drawing is known by the names of
//! the configuration and nothing is asked of anybody outside.
//!
//! Bounds: [`MOST_DRAWINGS`] a site, [`MOST_MAP_BYTES`] with [`MOST_FEATURES`] and [`MOST_POSITIONS`] a map,
//! [`MOST_IMAGE_BYTES`], [`MOST_SIDE`] and [`MOST_PIXELS`] an image, [`MOST_MARKS`] places on it.

use std::path::PathBuf;
use std::sync::Arc;

use anmin_rules::rule::Text;
use anmin_sensors::point::Place;
use serde_json::{Map as Object, Value, json};

pub const MOST_DRAWINGS: usize = 500;
pub const MOST_MAP_BYTES: u64 = 2 << 20;
/// A browser draws each as a shape of its own.
pub const MOST_FEATURES: usize = 5_000;
pub const MOST_POSITIONS: usize = 50_000;
pub const MOST_IMAGE_BYTES: u64 = 4 << 20;
/// Pixels.
pub const MOST_SIDE: u32 = 10_000;
/// Four bytes each in the memory of a phone.
pub const MOST_PIXELS: u64 = 24_000_000;
pub const MOST_MARKS: usize = 2_000;

/// What the desk may look at.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawing {
    pub id: Arc<str>,
    pub name: Text,
    /// Empty: of the whole site.
    pub building: String,
    /// Empty: of the whole building.
    pub floor: String,
    pub sheet: Sheet,
}

/// What it is drawn on.
#[derive(Clone, Debug, PartialEq)]
pub enum Sheet {
    Map(Map),
    Image(Image),
}

/// The features of a GeoJSON document (RFC 7946), of each only what is drawn.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Map {
    pub features: Vec<Feature>,
    /// South, west, north, east, in degrees.
    pub bounds: Bounds,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Feature {
    pub name: Option<Text>,
    /// Id of the `[[place]]` whose outline it is.
    pub place: Option<String>,
    /// How it is drawn: one of [`KINDS`].
    pub kind: Option<&'static str>,
    /// `type` and `coordinates` alone, positions without altitude.
    pub geometry: Value,
    pub bounds: Bounds,
}

/// What a feature's `kind` may be; anything else is a plain outline.
pub const KINDS: [&str; 4] = ["building", "road", "green", "water"];

/// A box in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    pub south: f64,
    pub west: f64,
    pub north: f64,
    pub east: f64,
}

impl Default for Bounds {
    /// Of nothing: it grows to what it takes in.
    fn default() -> Self {
        Self { south: f64::INFINITY, west: f64::INFINITY, north: f64::NEG_INFINITY, east: f64::NEG_INFINITY }
    }
}

impl Bounds {
    fn take(&mut self, lat: f64, lon: f64) {
        self.south = self.south.min(lat);
        self.north = self.north.max(lat);
        self.west = self.west.min(lon);
        self.east = self.east.max(lon);
    }

    fn join(&mut self, other: &Self) {
        self.take(other.south, other.west);
        self.take(other.north, other.east);
    }

    /// Latitude and longitude of its middle.
    pub fn centre(&self) -> (f64, f64) {
        ((self.south + self.north) / 2.0, (self.west + self.east) / 2.0)
    }

    pub fn holds(&self, (lat, lon): (f64, f64)) -> bool {
        (self.south..=self.north).contains(&lat) && (self.west..=self.east).contains(&lon)
    }
}

/// A picture whose file was judged; the file itself is read when somebody looks.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    pub path: PathBuf,
    /// Of the file as it was judged, in hexadecimal digits.
    pub sha256: String,
    pub form: ImageForm,
    pub width: u32,
    pub height: u32,
    pub marks: Vec<Mark>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageForm {
    Png,
    Jpeg,
}

impl ImageForm {
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
        }
    }
}

/// Something with a place on an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    pub spot: Spot,
    /// From the left and from the top, as parts of width and height.
    pub at: (f64, f64),
    pub name: Text,
    /// Where in the site it is, as far as is known: who may see it follows from that.
    pub place: Place,
}

/// What stands there: one point, one device, or all in a place, whose empty parts are any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Spot {
    pub place: String,
    pub unit: String,
    pub floor: String,
    pub room: String,
    pub device: String,
    pub point: String,
}

impl Spot {
    /// Whether something at this place is meant, where no device and no point is.
    pub fn takes(&self, place: &Place) -> bool {
        [(&self.place, &place.area), (&self.unit, &place.unit), (&self.floor, &place.floor), (&self.room, &place.room)]
            .into_iter()
            .all(|(wanted, is)| wanted.is_empty() || wanted == is)
    }
}

impl Drawing {
    /// Whether a place is on it, as far as it says of what it is.
    pub fn is_of(&self, place: &Place) -> bool {
        (self.building.is_empty() || self.building == place.building)
            && (self.floor.is_empty() || self.floor == place.floor)
    }
}

/// Why a file is no drawing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// In the file, from 1; 0 where it has no place there.
    pub line: usize,
    pub column: usize,
    pub message: String,
    pub hint: Option<String>,
}

fn flaw(message: impl Into<String>, hint: Option<&str>) -> Flaw {
    Flaw { line: 0, column: 0, message: message.into(), hint: hint.map(str::to_owned) }
}

impl Map {
    /// Reads a FeatureCollection, a Feature or a bare geometry.
    pub fn parse(text: &str) -> Result<Self, Flaw> {
        let document: Value = serde_json::from_str(text).map_err(|error| Flaw {
            line: error.line(),
            column: error.column(),
            message: format!("not JSON: {}", without_place(&error.to_string())),
            hint: None,
        })?;
        let features: Vec<&Value> = match document["type"].as_str() {
            Some("FeatureCollection") => match &document["features"] {
                Value::Array(features) => features.iter().collect(),
                _ => return Err(flaw("not GeoJSON: a FeatureCollection without a list `features`", None)),
            },
            Some(_) => vec![&document],
            None => {
                let hint = "a FeatureCollection as map editors save it (RFC 7946)";
                return Err(flaw("not GeoJSON: there is no `type`", Some(hint)));
            }
        };
        if features.len() > MOST_FEATURES {
            return Err(flaw(format!("{} features, expected {MOST_FEATURES} at most", features.len()), None));
        }
        let mut map = Self::default();
        let mut positions = 0;
        for (n, feature) in features.into_iter().enumerate() {
            let at = |found: Flaw| Flaw { message: format!("feature {}: {}", n + 1, found.message), ..found };
            let Some(feature) = Feature::read(feature, &mut positions).map_err(at)? else { continue };
            map.bounds.join(&feature.bounds);
            map.features.push(feature);
        }
        if map.features.is_empty() {
            return Err(flaw("there is nothing to draw in it", None));
        }
        Ok(map)
    }

    /// Where a place stands whose own position nobody has said: in the middle of its outline.
    pub fn position_of(&self, area: &str) -> Option<(f64, f64)> {
        let outline = self.features.iter().find(|feature| feature.place.as_deref() == Some(area))?;
        Some(outline.bounds.centre())
    }

    /// GeoJSON of the features that `shown` lets through.
    pub fn geojson(&self, shown: impl Fn(&Feature) -> bool) -> Value {
        let feature = |feature: &Feature| {
            let name = feature.name.as_ref().map(|name| json!({ "zh": name.zh, "en": name.en }));
            json!({
                "type": "Feature",
                "properties": { "name": name, "place": feature.place, "kind": feature.kind },
                "geometry": feature.geometry,
            })
        };
        let features: Vec<Value> = self.features.iter().filter(|one| shown(one)).map(feature).collect();
        json!({ "type": "FeatureCollection", "features": features })
    }
}

/// The error of the JSON reader names its place, and so does the fault.
fn without_place(error: &str) -> &str {
    error.split(" at line ").next().unwrap_or(error)
}

impl Feature {
    /// `None`: it has no geometry, which RFC 7946, 3.2, allows.
    fn read(value: &Value, positions: &mut usize) -> Result<Option<Self>, Flaw> {
        let nothing = Value::Object(Object::new());
        let (geometry, properties) = match value["type"].as_str() {
            Some("Feature") => (&value["geometry"], &value["properties"]),
            _ => (value, &nothing),
        };
        if geometry.is_null() {
            return Ok(None);
        }
        let mut bounds = Bounds::default();
        let geometry = shape(geometry, positions, &mut bounds)?;
        if bounds.south > bounds.north {
            return Ok(None);
        }
        let name = match &properties["name"] {
            Value::String(name) => Some(Text::both(name.as_str())),
            Value::Object(both) => {
                let word = |key: &str| both.get(key).and_then(Value::as_str).map(str::to_owned);
                let (zh, en) = (word("zh"), word("en"));
                let zh = zh.or_else(|| en.clone());
                zh.map(|zh| Text { en: en.unwrap_or_else(|| zh.clone()), zh })
            }
            _ => None,
        };
        let kind = properties["kind"].as_str();
        Ok(Some(Self {
            name,
            place: properties["place"].as_str().map(str::to_owned),
            kind: KINDS.into_iter().find(|known| Some(*known) == kind),
            geometry,
            bounds,
        }))
    }
}

/// A geometry with what is drawn of it (RFC 7946, 3.1).
fn shape(value: &Value, positions: &mut usize, bounds: &mut Bounds) -> Result<Value, Flaw> {
    let Some(kind) = value["type"].as_str() else { return Err(flaw("not GeoJSON: a geometry without `type`", None)) };
    let depth = match kind {
        "Point" => 0,
        "MultiPoint" | "LineString" => 1,
        "MultiLineString" | "Polygon" => 2,
        "MultiPolygon" => 3,
        "GeometryCollection" => {
            let Value::Array(parts) = &value["geometries"] else {
                return Err(flaw("not GeoJSON: a GeometryCollection without a list `geometries`", None));
            };
            let parts: Vec<Value> =
                parts.iter().map(|part| shape(part, positions, bounds)).collect::<Result<_, _>>()?;
            return Ok(json!({ "type": kind, "geometries": parts }));
        }
        other => return Err(flaw(format!("not GeoJSON: {other:?} is no geometry"), None)),
    };
    let coordinates = coordinates(&value["coordinates"], depth, positions, bounds)?;
    Ok(json!({ "type": kind, "coordinates": coordinates }))
}

/// Lists in lists, `depth` of them around the positions.
fn coordinates(value: &Value, depth: u8, positions: &mut usize, bounds: &mut Bounds) -> Result<Value, Flaw> {
    let Value::Array(list) = value else {
        return Err(flaw("not GeoJSON: coordinates that are no list", None));
    };
    if depth > 0 {
        let inner = list.iter().map(|inner| coordinates(inner, depth - 1, positions, bounds));
        return Ok(Value::Array(inner.collect::<Result<_, _>>()?));
    }
    let numbers: Vec<f64> = list.iter().filter_map(Value::as_f64).collect();
    let (&[lon, lat], true) = (numbers.get(..2).unwrap_or_default(), numbers.len() == list.len()) else {
        return Err(flaw("not GeoJSON: a position that is not a longitude and a latitude", None));
    };
    if !(-180.0..=180.0).contains(&lon) || !(-90.0..=90.0).contains(&lat) {
        let swapped = (-180.0..=180.0).contains(&lat) && (-90.0..=90.0).contains(&lon);
        let hint = if swapped {
            "GeoJSON has the longitude first: these two stand the other way round"
        } else {
            "save it in WGS-84 degrees, not in metres of a projection"
        };
        let message = format!("[{lon}, {lat}] is out of range, expected [longitude, latitude] in degrees");
        return Err(flaw(message, Some(hint)));
    }
    *positions += 1;
    if *positions > MOST_POSITIONS {
        return Err(flaw(format!("more than {MOST_POSITIONS} positions"), Some("simplify the map")));
    }
    bounds.take(lat, lon);
    Ok(json!([lon, lat]))
}

/// What an image is, by its first bytes and never by its name; width and height in pixels.
pub fn judge_image(bytes: &[u8]) -> Result<(ImageForm, u32, u32), Flaw> {
    let (form, size) = if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        (ImageForm::Png, png_size(bytes))
    } else if bytes.starts_with(&[0xFF, 0xD8, 0xFF]) {
        (ImageForm::Jpeg, jpeg_size(bytes))
    } else {
        let is_text = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'<');
        let hint = if is_text {
            "save a drawing that is SVG or PDF as PNG: an SVG may carry programs"
        } else {
            "save it as PNG"
        };
        return Err(flaw("neither PNG nor JPEG by its first bytes", Some(hint)));
    };
    let Some((width, height)) = size else {
        return Err(flaw("the image is damaged: it does not say how large it is", None));
    };
    if width == 0 || height == 0 {
        return Err(flaw(format!("the image has {width} × {height} pixels"), None));
    }
    if width.max(height) > MOST_SIDE || u64::from(width) * u64::from(height) > MOST_PIXELS {
        let message = format!(
            "the image has {width} × {height} pixels, expected {} million at most and no side over {MOST_SIDE}",
            MOST_PIXELS / 1_000_000
        );
        return Err(flaw(message, Some("a width of 2000 pixels shows a floor well")));
    }
    Ok((form, width, height))
}

/// The first chunk is IHDR (PNG, third edition, 11.2.1).
fn png_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let number = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    (bytes.get(12..16)? == b"IHDR").then_some(())?;
    Some((number(16)?, number(20)?))
}

/// The first frame header, SOF0 to SOF15 without DHT, JPG and DAC (ITU-T T.81, table B.1 and B.2.2).
fn jpeg_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let number = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let mut at = 2;
    loop {
        if *bytes.get(at)? != 0xFF {
            return None;
        }
        match *bytes.get(at + 1)? {
            // Fill bytes before a marker.
            0xFF => at += 1,
            0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF => {
                return Some((number(at + 7)?.into(), number(at + 5)?.into()));
            }
            // Markers without a segment.
            0x01 | 0xD0..=0xD7 => at += 2,
            // The image begins, or ends, before it has said its size.
            0xD9 | 0xDA => return None,
            _ => at += 2 + usize::from(number(at + 2)?).max(2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png(width: u32, height: u32) -> Vec<u8> {
        let head = [b"\x89PNG\r\n\x1a\n".as_slice(), &13_u32.to_be_bytes(), b"IHDR"].concat();
        [head, width.to_be_bytes().into(), height.to_be_bytes().into(), vec![8, 6, 0, 0, 0]].concat()
    }

    /// As cameras write it: an application's segment with bytes of its own before the frame header.
    fn jpeg(width: u16, height: u16) -> Vec<u8> {
        let mut bytes = vec![0xFF, 0xD8, 0xFF, 0xE1, 0, 6, 0xFF, 0xC0, 1, 2, 0xFF, 0xFF, 0xC2, 0, 11, 8];
        bytes.extend(height.to_be_bytes());
        bytes.extend(width.to_be_bytes());
        bytes
    }

    #[test]
    fn an_image_is_what_its_bytes_say_and_not_what_its_name_says() {
        for (bytes, found) in [
            (png(1200, 800), Ok((ImageForm::Png, 1200, 800))),
            (jpeg(640, 480), Ok((ImageForm::Jpeg, 640, 480))),
            (b"<svg xmlns='x'/>".to_vec(), Err("neither PNG nor JPEG")),
            (b"GIF89a".to_vec(), Err("neither PNG nor JPEG")),
            (Vec::new(), Err("neither PNG nor JPEG")),
            (png(0, 3), Err("0 × 3 pixels")),
            (png(10_001, 3), Err("10001 × 3 pixels")),
            (png(6_000, 6_000), Err("24 million")),
            (png(3, 3)[..20].to_vec(), Err("damaged")),
            (vec![0xFF, 0xD8, 0xFF, 0xDA, 0, 2], Err("damaged")),
            (vec![0xFF, 0xD8, 0xFF], Err("damaged")),
            // Segments of no length, and one that leads beyond the end, do not hold anybody up.
            ([vec![0xFF, 0xD8], [0xFF, 0xE0, 0, 0].repeat(3)].concat(), Err("damaged")),
            (vec![0xFF, 0xD8, 0xFF, 0xE0, 0xFF, 0xFF], Err("damaged")),
        ] {
            match (judge_image(&bytes), found) {
                (Ok(is), Ok(wanted)) => assert_eq!(is, wanted),
                (Err(flaw), Err(words)) => assert!(flaw.message.contains(words), "{flaw:?}"),
                (is, wanted) => panic!("{is:?} and not {wanted:?}"),
            }
        }
    }

    #[test]
    fn what_is_no_map_is_told_with_its_reason() {
        let feature = |geometry: &str| format!("{{\"type\":\"Feature\",\"properties\":null,\"geometry\":{geometry}}}");
        let point = |at: &str| feature(&format!("{{\"type\":\"Point\",\"coordinates\":{at}}}"));
        for (text, line, words) in [
            ("{\n \"type\": \"Feature\",\n oops", 3, "not JSON: key must be a string"),
            ("[]", 0, "there is no `type`"),
            ("{\"type\":\"FeatureCollection\"}", 0, "without a list `features`"),
            ("{\"type\":\"FeatureCollection\",\"features\":[]}", 0, "nothing to draw"),
            ("{\"type\":\"Circle\"}", 0, "feature 1: not GeoJSON: \"Circle\" is no geometry"),
            (&point("[103.8]"), 0, "not a longitude and a latitude"),
            (&point("[\"103\", 36]"), 0, "not a longitude and a latitude"),
            (&point("[36.1, 103.8]"), 0, "[36.1, 103.8] is out of range"),
            (&point("[11559000, 4312000]"), 0, "out of range"),
            (&feature("{\"type\":\"Polygon\",\"coordinates\":[[1,2],[3,4]]}"), 0, "coordinates that are no list"),
            (&feature("{\"coordinates\":[1,2]}"), 0, "a geometry without `type`"),
        ] {
            let found = Map::parse(text).expect_err(text);
            assert!(found.message.contains(words) && found.line == line, "{text}: {found:?}");
        }
        let hint = |at: &str| Map::parse(&point(at)).expect_err("out of range").hint.unwrap_or_default();
        assert!(hint("[36.1, 103.8]").contains("longitude first") && hint("[1e6, 1e6]").contains("projection"));
        let many = format!("{{\"type\":\"LineString\",\"coordinates\":[{}[1,2]]}}", "[1,2],".repeat(MOST_POSITIONS));
        assert!(Map::parse(&many).expect_err("too many").message.contains("more than 50000 positions"));
    }

    #[test]
    fn a_map_keeps_what_is_drawn_and_nothing_else() {
        let map = Map::parse(
            r#"{"type":"FeatureCollection","crs":"x","features":[
                {"type":"Feature","id":7,"properties":{"name":{"zh":"3号楼","en":"Building 3"},"place":"b3","kind":"building","owner":"x"},
                 "geometry":{"type":"Polygon","coordinates":[[[103.0,36.0,1500],[103.2,36.0],[103.2,36.4],[103.0,36.0]]]}},
                {"type":"Feature","properties":{"name":"东门","kind":"gate"},"geometry":{"type":"Point","coordinates":[103.5,36.1]}},
                {"type":"Feature","properties":{},"geometry":null}]}"#,
        )
        .expect("it is a map");
        assert_eq!(map.bounds, Bounds { south: 36.0, west: 103.0, north: 36.4, east: 103.5 });
        let (lat, lon) = map.position_of("b3").expect("it has an outline");
        assert!((lat - 36.2).abs() < 1e-9 && (lon - 103.1).abs() < 1e-9, "{lat} {lon}");
        assert_eq!(map.position_of("b4"), None);
        let whole = map.geojson(|_| true);
        assert_eq!(
            whole["features"][0],
            json!({
                "type": "Feature",
                "properties": { "name": { "zh": "3号楼", "en": "Building 3" }, "place": "b3", "kind": "building" },
                "geometry": { "type": "Polygon", "coordinates": [[[103.0, 36.0], [103.2, 36.0], [103.2, 36.4], [103.0, 36.0]]] },
            })
        );
        assert_eq!(
            whole["features"][1]["properties"],
            json!({ "name": { "zh": "东门", "en": "东门" }, "place": null, "kind": null })
        );
        let some = map.geojson(|feature| feature.place.is_none());
        assert_eq!(some["features"].as_array().map(Vec::len), Some(1));
        assert_eq!(Map::parse(&whole.to_string()), Ok(map), "what was given out is read as it was");
    }
}
