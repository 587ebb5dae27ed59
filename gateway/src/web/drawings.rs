//! Maps and floor plans: which there are, what stands where on them, and the files themselves. Everybody is shown what their
//! places take: a drawing of another building is not there, nor is what of it is marked or outlined on one of the whole site.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::Semaphore;

use super::InForce;
use super::api::Desk;
use super::guard::Caller;
use super::paging::{Tagged, has_already, tagged};
use super::problem::Problem;
use super::wire::TextWire;
use crate::config::drawings::sha256;
use crate::config::files;
use crate::drawing::{Drawing, Image, MOST_IMAGE_BYTES, Map, Mark, Sheet};

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct DrawingsWire {
    pub drawings: Vec<DrawingWire>,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct DrawingWire {
    pub id: String,
    pub name: TextWire,
    /// `null`: of the whole site.
    pub building: Option<String>,
    /// `null`: of the whole building.
    pub floor: Option<String>,
    /// `map` or `image`.
    pub form: &'static str,
    /// Where the file is, below `/api/v1`.
    pub file: String,
    /// Pixels; `null` of a map.
    pub width: Option<u32>,
    pub height: Option<u32>,
    pub marks: Vec<MarkWire>,
}

/// What stands at one spot: one point, one device, or all in a place, whose empty parts are any.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct MarkWire {
    pub name: TextWire,
    /// On a map latitude and longitude in degrees; on an image parts of its width from the left and of its height from the top.
    pub at: (f64, f64),
    pub area: String,
    pub building: String,
    pub unit: String,
    pub floor: String,
    pub room: String,
    pub device: String,
    pub point: String,
}

pub(super) async fn list(
    State(desk): State<Desk>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Tagged<DrawingsWire>, Problem> {
    let wire = {
        let in_force = desk.link.in_force();
        let seen = in_force.drawings.iter().filter(|drawing| sees(&caller, &in_force, drawing));
        DrawingsWire { drawings: seen.map(|drawing| wire(&caller, &in_force, drawing)).collect() }
    };
    Tagged::new(&headers, &wire)
}

pub(super) async fn map(
    State(desk): State<Desk>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let bytes = {
        let in_force = desk.link.in_force();
        let Some(Drawing { sheet: Sheet::Map(map), .. }) = find(&caller, &in_force, &id) else {
            return Err(no_drawing());
        };
        let is_seen = |area: &str| in_force.places.iter().any(|place| place.area == area && caller.sees(place));
        map.geojson(|feature| feature.place.as_deref().is_none_or(is_seen)).to_string().into_bytes()
    };
    let hash = sha256(&bytes);
    Ok(tagged(&headers, "application/geo+json", &hash, bytes))
}

/// Files that are in memory at once: what is read is whole, so that it can be held against what was judged.
static READING: Semaphore = Semaphore::const_new(4);

pub(super) async fn image(
    State(desk): State<Desk>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Image { path, sha256: judged, form, .. } = {
        let in_force = desk.link.in_force();
        match find(&caller, &in_force, &id) {
            Some(Drawing { sheet: Sheet::Image(image), .. }) => Image { marks: Vec::new(), ..image.clone() },
            _ => return Err(no_drawing()),
        }
    };
    if has_already(&headers, &judged) {
        return Ok(tagged(&headers, form.media_type(), &judged, Vec::new()));
    }
    let _turn = READING.acquire().await.map_err(|_| Problem::busy())?;
    let read = tokio::task::spawn_blocking(move || files::bytes(&path, MOST_IMAGE_BYTES)).await;
    match read {
        Ok(Ok(bytes)) if sha256(&bytes) == judged => Ok(tagged(&headers, form.media_type(), &judged, bytes)),
        Ok(Ok(_)) => Err(gone("文件已被替换", "the file is not the one that was read")),
        Ok(Err(why)) => Err(gone(&format!("文件无法读取：{why}"), &format!("the file cannot be read: {why}"))),
        Err(_) => Err(Problem::busy()),
    }
}

fn gone(zh: &str, en: &str) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "drawing", format!("图纸不可用：{zh}"), format!("no drawing: {en}"))
        .hint("请运行 anmin check，再重新载入配置", "run `anmin check`, then have the site read anew")
}

/// Says neither whether there is one of another building.
fn no_drawing() -> Problem {
    Problem::not_found("没有这张图", "there is no such drawing")
}

fn find<'f>(caller: &Caller, in_force: &'f InForce, id: &str) -> Option<&'f Drawing> {
    in_force.drawings.iter().find(|drawing| *drawing.id == *id && sees(caller, in_force, drawing))
}

/// One of the whole site is for everybody who may look; what they do not see of it is not on it.
fn sees(caller: &Caller, in_force: &InForce, drawing: &Drawing) -> bool {
    if drawing.building.is_empty() || caller.within().is_everywhere() {
        return true;
    }
    let here = anmin_sensors::point::Place { building: drawing.building.clone(), ..Default::default() };
    caller.sees(&here) || in_force.places.iter().any(|place| place.building == drawing.building && caller.sees(place))
}

fn said(name: &str) -> Option<String> {
    (!name.is_empty()).then(|| name.to_owned())
}

fn wire(caller: &Caller, in_force: &InForce, drawing: &Drawing) -> DrawingWire {
    let base = format!("/drawings/{}", drawing.id);
    let (form, file, size, marks) = match &drawing.sheet {
        Sheet::Map(map) => ("map", format!("{base}/map"), None, placed(caller, in_force, drawing, map)),
        Sheet::Image(image) => {
            let seen = image.marks.iter().filter(|mark| caller.sees(&mark.place));
            ("image", format!("{base}/image"), Some((image.width, image.height)), seen.map(MarkWire::from).collect())
        }
    };
    DrawingWire {
        id: drawing.id.to_string(),
        name: (&drawing.name).into(),
        building: said(&drawing.building),
        floor: said(&drawing.floor),
        form,
        file,
        width: size.map(|(width, _)| width),
        height: size.map(|(_, height)| height),
        marks,
    }
}

/// The places of the site that have a position, of their own or by their outline, in the order of their ids.
fn placed(caller: &Caller, in_force: &InForce, drawing: &Drawing, map: &Map) -> Vec<MarkWire> {
    let seen = in_force.places.iter().filter(|place| caller.sees(place) && drawing.is_of(place));
    let mut marks: Vec<MarkWire> = seen
        .filter_map(|place| {
            let at = place.position.or_else(|| map.position_of(&place.area))?;
            Some(MarkWire {
                name: TextWire { zh: place.zh(), en: place.en() },
                at,
                area: place.area.clone(),
                building: place.building.clone(),
                unit: String::new(),
                floor: String::new(),
                room: String::new(),
                device: String::new(),
                point: String::new(),
            })
        })
        .collect();
    marks.sort_by(|a, b| a.area.cmp(&b.area));
    marks
}

impl From<&Mark> for MarkWire {
    fn from(mark: &Mark) -> Self {
        let spot = mark.spot.clone();
        Self {
            name: (&mark.name).into(),
            at: mark.at,
            area: spot.place,
            building: mark.place.building.clone(),
            unit: spot.unit,
            floor: spot.floor,
            room: spot.room,
            device: spot.device,
            point: spot.point,
        }
    }
}
