//! Devices over HTTP: one of them with what is known of it, those in the quarantine taken in, and the list out to a spreadsheet and
//! back.
//!
//! The site's own files are never written. What is taken in here stands in a list of anmin's own ([`crate::config::adopted`]); it
//! is judged together with the whole site before it is written, and taken in force at once as far as a running daemon can. Nothing
//! half is taken, and nothing over what somebody else has written meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;

use anmin_rules::rule::Text;
use anmin_rules::walk::{self, Tick, Walk};
use anmin_sensors::document::Fault;
use anmin_sensors::guess::{self, MessageFit};
use anmin_sensors::point::{DeviceId, Kind, PointId};
use anmin_sensors::profile::Profile;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::api::{Answer, Asked, Desk, MOST_WHY, Told, rows, short, words};
use super::guard::Caller;
use super::problem::Problem;
use super::wire::{PlaceWire, PointWire, ReloadedWire, TextWire, ValueWire, Writer};
use crate::config::adopted::Change;
use crate::config::list_faults::{self, Words};
use crate::config::sheet::{About, Row, Sheet};
use crate::main_loop::Query;
use crate::main_loop::query::{DeviceView, Stranger};
use crate::register;
use crate::spreadsheet::{self, Encoding};
use crate::store::audit::Deed;

/// A sheet in base64, and what is around it.
const MOST_BODY: usize = register::MOST_BYTES * 4 / 3 + (64 << 10);
/// Longest cell of a device that is taken in.
const MOST_CELL: usize = 64;
/// Devices, points and faults that one answer names; the counts are of all.
const MOST_NAMED: usize = 200;

/// The list of devices behind the desk, with the site's files. Called on blocking threads, from several at once; errors are shown
/// to the asker.
pub trait Lister: Send + Sync + 'static {
    fn list(&self) -> Result<Listed, NotListed>;

    /// What a change would make of the list; writes nothing.
    fn plan(&self, change: &Change) -> Result<Planned, NotListed>;

    /// Writes a change down if what is kept is still of this version, where one is named, and the whole site is sound with it; the
    /// site has to be read anew. Gives what stood there before; `None` where nothing was written.
    fn keep(&self, change: &Change, version: Option<&str>) -> Result<(Planned, Option<String>), NotListed>;

    /// Undoes [`Lister::keep`].
    fn put_back(&self, text: &str) -> Result<(), NotListed>;
}

/// Why nothing was listed or written.
#[derive(Clone, Debug)]
pub enum NotListed {
    /// Somebody has written since.
    Changed,
    /// What is kept is not sound as it stands.
    Faults(Vec<Text>),
    /// A file cannot be read or written.
    Failed(String),
}

impl From<NotListed> for Problem {
    fn from(not: NotListed) -> Self {
        match not {
            NotListed::Changed => Self::changed_meanwhile(),
            NotListed::Faults(faults) => refused(&faults),
            NotListed::Failed(why) => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "not_listed",
                format!("设备清单无法读写：{why}"),
                format!("the list of devices cannot be read or written: {why}"),
            ),
        }
    }
}

fn refused(faults: &[Text]) -> Problem {
    let told = |of: fn(&Text) -> &str| faults.iter().take(20).map(of).collect::<Vec<_>>().join("\n");
    let count = faults.len();
    Problem::new(
        StatusCode::CONFLICT,
        "devices_refused",
        format!("有 {count} 处错误，未作任何改动：\n{}", told(|text| &text.zh)),
        format!("{count} faults, nothing was changed:\n{}", told(|text| &text.en)),
    )
}

/// The list as it stands.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    pub version: String,
    /// What was taken in here.
    pub sheet: Sheet,
    /// The same with the devices of the site's own files.
    pub whole: Sheet,
}

/// What a change makes of the list.
#[derive(Clone, Debug, Default)]
pub struct Planned {
    /// Of the list that the change was held against.
    pub version: String,
    pub unchanged: usize,
    pub changes: Vec<RowChange>,
    /// The points of the devices that are new.
    pub points: Vec<NewPoint>,
    /// With any of them nothing is written.
    pub faults: Vec<Fault>,
    /// Columns of the sheet, by which a fault says where it is.
    pub columns: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct RowChange {
    pub id: String,
    /// `added`, `changed` or `removed`.
    pub change: &'static str,
    /// Column, what it was, what it shall be.
    pub cells: Vec<(String, String, String)>,
}

#[derive(Clone, Debug)]
pub struct NewPoint {
    pub id: PointId,
    pub kind: Kind,
    pub alarm_point: bool,
}

/// One device with what is known of it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct DeviceViewWire {
    pub id: String,
    pub label: TextWire,
    pub profile: String,
    /// What it is; `null` for a device that its mapping says how to read.
    pub title: Option<TextWire>,
    pub place: PlaceWire,
    pub points: Vec<PointWire>,
    pub heard: Option<String>,
    /// Its points can be tested on a walk.
    pub testable: bool,
    /// The last walk test in which one of its points spoke and fell silent again; `null`: never.
    pub tested: Option<TestedWire>,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct TestedWire {
    pub point: String,
    pub at: String,
    pub walk: String,
    /// Empty where nobody knows any more.
    pub name: String,
    pub by: String,
}

/// What a device in the quarantine may be.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct GuessesWire {
    pub source: String,
    pub device: String,
    pub topic: String,
    /// Every profile that reads such messages, the likeliest first.
    pub profiles: Vec<GuessWire>,
    pub places: Vec<PlaceChoiceWire>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct GuessWire {
    pub profile: String,
    pub title: TextWire,
    /// 0 to 1; 0 where it reads nothing of the last message.
    pub score: f64,
    /// Its mapping would take it for this.
    pub named: bool,
    /// What the last message says by it.
    pub points: Vec<GuessedPointWire>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct GuessedPointWire {
    pub name: String,
    pub title: TextWire,
    /// `null`: what stands there is no value.
    pub value: Option<ValueWire>,
    pub unit: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PlaceChoiceWire {
    /// Of its `[[place]]`.
    pub id: String,
    pub place: PlaceWire,
}

/// What was taken in, or would be.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AdoptedWire {
    pub applied: bool,
    /// The row of the list, by its columns.
    pub row: BTreeMap<String, String>,
    pub points: Vec<NewPointWire>,
    pub faults: Vec<TextWire>,
    pub version: String,
    /// What was taken at once, and what waits for a restart; `null` before it is applied.
    pub reloaded: Option<ReloadedWire>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct NewPointWire {
    pub id: String,
    pub kind: String,
    pub title: TextWire,
    pub alarm_point: bool,
}

/// What an import has done, or would do.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct DevicesImportedWire {
    /// Whether anything was written.
    pub applied: bool,
    pub added: usize,
    pub changed: usize,
    pub removed: usize,
    pub unchanged: usize,
    /// The first 200.
    pub changes: Vec<RowChangeWire>,
    /// Points of the devices that are new.
    pub points: usize,
    pub faults: Vec<SheetFaultWire>,
    /// Of the list that the sheet was held against.
    pub version: String,
    /// What was taken at once, and what waits for a restart; `null` before it is applied.
    pub reloaded: Option<ReloadedWire>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RowChangeWire {
    pub id: String,
    /// `added`, `changed` or `removed`.
    pub change: String,
    /// Of one that is changed.
    pub cells: Vec<CellChangeWire>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CellChangeWire {
    pub column: String,
    pub from: String,
    pub to: String,
}

/// What is wrong with a sheet; its first line is row 1.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SheetFaultWire {
    /// 0: it is not about one row.
    pub row: usize,
    /// Empty: the whole row.
    pub column: String,
    /// And what to do.
    pub text: TextWire,
}

/// What was taken in at the duty desk.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DeviceListWire {
    pub version: String,
    pub columns: Vec<String>,
    /// By their ids.
    pub rows: Vec<BTreeMap<String, String>>,
    /// `after` of the next page; `null` on the last.
    pub next: Option<String>,
}

fn title(kind: Kind) -> TextWire {
    TextWire { zh: kind.info().zh.to_owned(), en: kind.info().en.to_owned() }
}

fn cells(sheet: &Sheet, row: &Row) -> BTreeMap<String, String> {
    let cells = sheet.columns.iter().zip(&row.cells);
    cells.filter(|(_, cell)| !cell.is_empty()).map(|(key, cell)| (key.clone(), cell.clone())).collect()
}

impl Writer<'_> {
    fn device(self, view: &DeviceView, tested: Option<&(Tick, Option<Walk>)>) -> DeviceViewWire {
        let DeviceView { row, points, profile } = view;
        let tested = tested.map(|(tick, walk)| TestedWire {
            point: tick.point.to_string(),
            at: self.at(tick.at),
            walk: tick.walk.to_string(),
            name: walk.as_ref().map(|walk| walk.name.clone()).unwrap_or_default(),
            by: walk.as_ref().map(|walk| walk.by.clone()).unwrap_or_default(),
        });
        DeviceViewWire {
            id: row.id.to_string(),
            label: (&row.label).into(),
            profile: row.profile.as_ref().to_owned(),
            title: profile.as_ref().map(|profile| profile_title(profile)),
            place: row.place.as_ref().into(),
            points: points.iter().map(|point| self.point(point)).collect(),
            heard: row.heard.map(|at| self.at(at)),
            testable: points.iter().any(|point| walk::is_testable(point.kind)),
            tested,
        }
    }
}

fn profile_title(profile: &Profile) -> TextWire {
    TextWire { zh: profile.zh.clone(), en: profile.en.clone() }
}

fn guess(fit: &MessageFit, named: bool) -> GuessWire {
    let specs = fit.profile.specs();
    let points = fit.values.iter().filter_map(|(n, value)| {
        let spec = specs.get(*n)?;
        Some(GuessedPointWire {
            name: spec.name.to_string(),
            title: title(spec.kind),
            value: value.as_ref().ok().map(Into::into),
            unit: spec.kind.info().unit.to_owned(),
        })
    });
    GuessWire {
        profile: fit.profile.id.to_string(),
        title: profile_title(&fit.profile),
        score: (fit.score * 100.0).round() / 100.0,
        named,
        points: points.collect(),
    }
}

impl Desk {
    async fn lister<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Lister) -> Result<T, NotListed> + Send + 'static,
    ) -> Result<T, Problem> {
        let lister = Arc::clone(&self.link.lister);
        match tokio::task::spawn_blocking(move || work(&*lister)).await {
            Ok(done) => Ok(done?),
            Err(_) => Err(Problem::busy()),
        }
    }

    async fn stranger(&self, device: &str, source: Option<String>) -> Result<Stranger, Problem> {
        let asked = device.to_owned();
        let found = self.ask(|reply| Query::Stranger { device: asked, source, reply }).await?;
        found.ok_or_else(|| {
            let device = short(device);
            Problem::not_found(
                format!("隔离区中没有设备 {device}"),
                format!("there is no device {device} in the quarantine"),
            )
            .hint("见 GET /api/v1/quarantine", "they stand in GET /api/v1/quarantine")
        })
    }

    /// Writes a change of the list down and has the site read anew; where that is refused the list is as it was before. `deed` says
    /// what it was, and is in the audit whatever came of it.
    async fn write(
        self,
        caller: Caller,
        mut deed: Deed,
        change: Change,
        version: Option<String>,
    ) -> Result<(Planned, Option<ReloadedWire>), Problem> {
        // Who hangs up in the middle must not leave a file that is written and not in force.
        let work = tokio::spawn(async move {
            let who = deed.who.clone();
            // Until it is noted: who comes next is told of it.
            let _only = self.setting.lock().await;
            let done = async {
                let kept = self.lister(move |lister| lister.keep(&change, version.as_deref())).await;
                let kept = match kept {
                    Err(problem) if problem.code == "changed_meanwhile" => {
                        return Err(self.changed_by(|deed| deed.what.starts_with("devices."), None).await);
                    }
                    kept => kept?,
                };
                let (planned, Some(was)) = kept else { return Ok((kept.0, None)) };
                match self.reload(who.clone(), caller.way.clone(), false).await {
                    Ok(reloaded) => Ok((planned, Some(reloaded))),
                    Err(problem) => {
                        if let Err(problem) = self.lister(move |lister| lister.put_back(&was)).await {
                            tracing::error!("the list of devices could not be put back: {}", problem.error.en);
                        }
                        // One that was slow may have read the new list: what is in force is what the list says.
                        let _ = self.reload(who.clone(), caller.way.clone(), false).await;
                        Err(problem)
                    }
                }
            };
            let done = done.await;
            deed.refused = match &done {
                Err(problem) => Some(problem.error.clone()),
                Ok((planned, _)) if !planned.faults.is_empty() => Some(faulty(planned.faults.len())),
                Ok(_) => None,
            };
            let is_news = !matches!(&done, Ok((planned, None)) if planned.faults.is_empty());
            let about = deed.about.clone();
            if is_news && self.note(deed).await.is_err() {
                // Whoever did it must hear what came of it all the same.
                tracing::error!(%about, %who, "devices were changed at the desk, and it could not be written into the audit");
            }
            done
        });
        work.await.unwrap_or_else(|_| Err(Problem::busy()))
    }

    fn deed(&self, caller: &Caller, who: String, what: &'static str, about: &str, detail: Value) -> Deed {
        let (from, about) = (caller.way.clone(), about.to_owned());
        Deed { who, from, about, ..Deed::of_anmin(self.link.clock.now().wall, what, detail) }
    }
}

fn faulty(count: usize) -> Text {
    Text {
        zh: format!("有 {count} 处错误，未作任何改动"), en: format!("{count} faults, nothing was changed")
    }
}

pub(super) async fn one(State(desk): State<Desk>, caller: Caller, Path(id): Path<String>) -> Answer<DeviceViewWire> {
    let asked = id.clone();
    let found = desk.ask(|reply| Query::Device { id: asked, reply }).await?;
    let Some(view) = found.filter(|view| caller.sees(&view.row.place)) else {
        let id = short(&id);
        return Err(Problem::not_found(format!("没有设备 {id}"), format!("there is no device {id}")));
    };
    let points = view.row.points.clone();
    let tested = desk.archive(move |archive| archive.last_test(&points)).await?;
    Ok(Json(desk.writer().device(&view, tested.as_ref())))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GuessParameters {
    device: String,
    source: Option<String>,
}

pub(super) async fn guesses(
    State(desk): State<Desk>,
    Asked(GuessParameters { device, source }): Asked<GuessParameters>,
) -> Answer<GuessesWire> {
    let Stranger { row, profile, profiles } = desk.stranger(&device, source).await?;
    let fits = guess::message_fits(&profiles, &row.topic, &row.device, row.excerpt.as_bytes());
    let is_named = |fit: &MessageFit| profile.as_deref() == Some(&*fit.profile.id);
    let mut guesses: Vec<GuessWire> = fits.iter().map(|fit| guess(fit, is_named(fit))).collect();
    // What the mapping says counts before what a message looks like; the others stay as they are.
    guesses.sort_by_key(|guess| !guess.named);
    let mut places: Vec<PlaceChoiceWire> = {
        let in_force = desk.link.in_force();
        let choice = |place: &Arc<_>| {
            let place = PlaceWire::from(&**place);
            PlaceChoiceWire { id: place.area.clone(), place }
        };
        in_force.places.iter().map(choice).collect()
    };
    places.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(Json(GuessesWire {
        source: row.source.to_string(),
        device: row.device,
        topic: row.topic,
        profiles: guesses,
        places,
    }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AdoptBody {
    who: Option<String>,
    device: String,
    profile: String,
    /// What people call it; its id where nobody says.
    #[serde(default)]
    name: String,
    /// The same in English; as `name` where nobody says.
    #[serde(default)]
    name_en: String,
    /// Of a `[[place]]`.
    #[serde(default)]
    place: String,
    #[serde(default)]
    unit: String,
    #[serde(default)]
    floor: String,
    #[serde(default)]
    room: String,
    #[serde(default)]
    preview: bool,
    /// Of the list as it was seen, from a preview.
    version: Option<String>,
}

pub(super) async fn adopt(
    State(desk): State<Desk>,
    caller: Caller,
    Told(AdoptBody { who, device, profile, name, name_en, place, unit, floor, room, preview, version }): Told<
        AdoptBody,
    >,
) -> Answer<AdoptedWire> {
    let who = caller.name(who)?;
    DeviceId::parse(&device).map_err(|why| Problem::bad_request(format_args!("`device`: {why}")))?;
    let mut row = BTreeMap::from([("id", device.clone())]);
    let name = [("name", name), ("name_en", name_en)];
    let place = [("place", place), ("unit", unit), ("floor", floor), ("room", room)];
    for (key, cell) in [("profile", profile)].into_iter().chain(name).chain(place) {
        let cell = if cell.trim().is_empty() { String::new() } else { words(key, &cell, MOST_CELL)? };
        row.insert(key, cell);
    }
    desk.stranger(&device, None).await?;
    let told = row.iter().filter(|(_, cell)| !cell.is_empty());
    let told = told.map(|(key, cell)| ((*key).to_owned(), cell.clone())).collect();
    let detail = json!({ "profile": row["profile"], "place": row["place"] });
    let change = Change::Adopt(row);
    let (planned, reloaded) = if preview {
        (desk.lister(move |lister| lister.plan(&change)).await?, None)
    } else {
        let deed = desk.deed(&caller, who, "devices.adopt", &device, detail);
        let (planned, reloaded) = desk.write(caller, deed, change, version).await?;
        if !planned.faults.is_empty() {
            return Err(refused(&planned.faults.iter().map(said).collect::<Vec<_>>()));
        }
        (planned, reloaded)
    };
    let point = |NewPoint { id, kind, alarm_point }: &NewPoint| NewPointWire {
        id: id.to_string(),
        kind: kind.as_str().to_owned(),
        title: title(*kind),
        alarm_point: *alarm_point,
    };
    Ok(Json(AdoptedWire {
        applied: reloaded.is_some(),
        row: told,
        points: planned.points.iter().take(MOST_NAMED).map(point).collect(),
        faults: planned.faults.iter().map(|fault| said(fault).into()).collect(),
        version: planned.version,
        reloaded,
    }))
}

/// What is wrong and what to do, without where it stands.
fn said(fault: &Fault) -> Text {
    let en = match &fault.hint {
        Some(hint) => format!("{}; {hint}", fault.message),
        None => fault.message.clone(),
    };
    Text { zh: fault.zh.clone().unwrap_or_else(|| en.clone()), en }
}

/// The same with where it stands, of another file than the sheet that somebody has before them.
pub fn said_where(fault: &Fault) -> Text {
    let Fault { source, line, column, .. } = fault;
    let at = if *line == 0 { source.clone() } else { format!("{source}:{line}:{column}") };
    let Text { zh, en } = said(fault);
    Text { zh: format!("{at}：{zh}"), en: format!("{at}: {en}") }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListParameters {
    /// Only the row of this one.
    device: Option<String>,
    /// All that there are where nobody says.
    limit: Option<usize>,
    /// The id behind which the page begins.
    after: Option<String>,
}

pub(super) async fn list(
    State(desk): State<Desk>,
    Asked(ListParameters { device, limit, after }): Asked<ListParameters>,
) -> Answer<DeviceListWire> {
    let limit = rows(limit, usize::MAX)?;
    let Listed { version, sheet, .. } = desk.lister(|lister| lister.list()).await?;
    let wanted = |row: &&Row| {
        device.as_deref().is_none_or(|device| sheet.id(row) == device)
            && after.as_deref().is_none_or(|after| sheet.id(row) > after)
    };
    let mut found: Vec<&Row> = sheet.rows.iter().filter(wanted).collect();
    found.sort_by_key(|row| sheet.id(row));
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|row| sheet.id(row).to_owned());
    let rows = found.into_iter().map(|row| cells(&sheet, row)).collect();
    Ok(Json(DeviceListWire { version, columns: sheet.columns, rows, next }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SheetParameters {
    encoding: Option<String>,
}

pub(super) async fn sheet(
    State(desk): State<Desk>,
    Asked(SheetParameters { encoding }): Asked<SheetParameters>,
) -> Result<Response, Problem> {
    let encoding = match encoding.as_deref() {
        None => Encoding::Utf8,
        Some(word) => Encoding::named(word)
            .ok_or_else(|| Problem::bad_request(format_args!("{:?} is not one of utf-8, gbk", short(word))))?,
    };
    let Listed { whole, .. } = desk.lister(|lister| lister.list()).await?;
    let sheet = spreadsheet::encode(&whole.guarded().text().0, encoding).map_err(Problem::bad_request)?;
    let headers = [
        (header::CONTENT_TYPE, format!("text/csv; charset={}", encoding.as_str())),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"devices.csv\"".to_owned()),
    ];
    Ok((headers, sheet).into_response())
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ImportBody {
    who: Option<String>,
    /// The bytes of the sheet in base64, in whatever encoding it is.
    sheet: String,
    /// The sheet is the whole list: what was taken in here and does not stand in it goes.
    #[serde(default)]
    replace: bool,
    #[serde(default)]
    preview: bool,
    /// Of the list as it was seen, from a preview.
    version: Option<String>,
}

pub(super) async fn import(
    State(desk): State<Desk>,
    caller: Caller,
    Told(body): Told<ImportBody, MOST_BODY>,
) -> Answer<DevicesImportedWire> {
    let who = caller.name(body.who)?;
    let bytes = STANDARD.decode(body.sheet).map_err(|error| Problem::bad_request(format_args!("`sheet`: {error}")))?;
    let (sheet, columns) = match read(&bytes) {
        Ok(sheet) => (sheet.unguarded(), sheet.columns),
        Err(faults) => {
            let planned = Planned { faults, ..Planned::default() };
            return Ok(Json(imported(&planned, None)));
        }
    };
    if body.replace && sheet.rows.is_empty() {
        return Err(Problem::bad_request("the sheet has no rows, and nobody empties a list by mistake"));
    }
    let change = Change::Import { sheet, whole: body.replace };
    if body.preview {
        let planned = desk.lister(move |lister| lister.plan(&change)).await?;
        return Ok(Json(imported(&Planned { columns, ..planned }, None)));
    }
    let detail = json!({ "replace": body.replace });
    let deed = desk.deed(&caller, who, "devices.import", "", detail);
    let (planned, reloaded) = desk.write(caller, deed, change, body.version).await?;
    Ok(Json(imported(&Planned { columns, ..planned }, reloaded)))
}

fn read(bytes: &[u8]) -> Result<Sheet, Vec<Fault>> {
    let fault = |words: Words| vec![words.at(SHEET, 1, 1)];
    if bytes.len() > register::MOST_BYTES {
        return Err(fault(list_faults::too_large(register::MOST_BYTES >> 20)));
    }
    let (_, text) = spreadsheet::decode(bytes).map_err(|why| fault(list_faults::not_text(why)))?;
    match Sheet::parse(SHEET, &text)? {
        (About::Devices, sheet) => Ok(sheet),
        _ => Err(fault(list_faults::no_column("profile"))),
    }
}

/// What faults call a sheet.
pub const SHEET: &str = "sheet";

fn imported(planned: &Planned, reloaded: Option<ReloadedWire>) -> DevicesImportedWire {
    let count = |word: &str| planned.changes.iter().filter(|change| change.change == word).count();
    let cell = |(column, from, to): &(String, String, String)| CellChangeWire {
        column: column.clone(),
        from: from.clone(),
        to: to.clone(),
    };
    let change = |change: &RowChange| RowChangeWire {
        id: change.id.clone(),
        change: change.change.to_owned(),
        cells: change.cells.iter().map(cell).collect(),
    };
    let fault = |fault: &Fault| {
        let of_sheet = fault.source == SHEET;
        let column = of_sheet.then(|| planned.columns.get(fault.column.saturating_sub(1))).flatten();
        SheetFaultWire {
            row: if of_sheet { fault.line } else { 0 },
            column: column.cloned().unwrap_or_default(),
            text: if of_sheet { said(fault) } else { said_where(fault) }.into(),
        }
    };
    DevicesImportedWire {
        applied: reloaded.is_some(),
        added: count("added"),
        changed: count("changed"),
        removed: count("removed"),
        unchanged: planned.unchanged,
        changes: planned.changes.iter().take(MOST_NAMED).map(change).collect(),
        points: planned.points.len(),
        faults: planned.faults.iter().take(MOST_NAMED).map(fault).collect(),
        version: planned.version.clone(),
        reloaded,
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RemoveBody {
    who: Option<String>,
    why: String,
    device: String,
    /// Of the list as it was seen.
    version: Option<String>,
}

pub(super) async fn remove(
    State(desk): State<Desk>,
    caller: Caller,
    Told(RemoveBody { who, why, device, version }): Told<RemoveBody>,
) -> Answer<ReloadedWire> {
    let who = caller.name(who)?;
    let why = words("why", &why, MOST_WHY)?;
    let deed = desk.deed(&caller, who, "devices.remove", &device, json!({ "why": why }));
    let (planned, reloaded) = desk.write(caller, deed, Change::Remove(device.clone()), version).await?;
    if !planned.faults.is_empty() {
        return Err(refused(&planned.faults.iter().map(said).collect::<Vec<_>>()));
    }
    reloaded.map(Json).ok_or_else(|| {
        let device = short(&device);
        Problem::not_found(
            format!("值班台接纳的设备清单中没有 {device}"),
            format!("{device} is not among the devices that were taken in at the desk"),
        )
        .hint("站点自有文件中的设备请在文件中修改", "devices of the site's own files are changed there")
    })
}
