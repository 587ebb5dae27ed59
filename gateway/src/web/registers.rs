//! Registers over HTTP: what each holds, spreadsheets in and out, single rows.
//!
//! Everybody sees the rows that lie within their places. What is masked in a column (households, calls for help) is shown only to
//! those who may handle what happens there, some of it to crews, and each time that it is shown the audit says to whom. Nothing half is taken: a sheet with one
//! fault changes nothing. Nor is anything written over what somebody else has written meanwhile: who names the version that
//! was seen is refused when another stands there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anmin_rules::incident::IncidentId;
use anmin_sensors::point::Place;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::OwnedMutexGuard;
use uuid::Uuid;

use super::api::{Answer, Asked, Desk, Told, rows, send, short};
use super::authority::Right;
use super::guard::Caller;
use super::problem::Problem;
use super::wire::TextWire;
use crate::main_loop::Input;
use crate::register::{self, CellFault, Fault, Form, Kind, Row, Shown};
use crate::spreadsheet::Encoding;
use crate::store::audit::Deed;
use crate::store::registers::Change;

/// A sheet in base64, and what is around it.
const MOST_BODY: usize = register::MOST_BYTES * 4 / 3 + (64 << 10);
/// Rows that are changed at one time without a sheet.
const MOST_CHANGES: usize = 500;
/// Ids that the audit names one by one.
const MOST_NAMED: usize = 50;

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RegisterWire {
    pub kind: String,
    pub title: TextWire,
    pub columns: Vec<ColumnWire>,
    /// Of the register as far as the asker sees it.
    pub rows: Vec<BTreeMap<String, String>>,
    /// Some cells are not shown.
    pub masked: bool,
    /// Of all rows that the asker sees, on whichever page. A change that names it is refused when somebody has written there
    /// since.
    pub version: String,
    /// `after` of the next page; `null` on the last.
    pub next: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ColumnWire {
    pub name: String,
    pub title: TextWire,
    /// `text`, `number`, `whole`, `date`, `phone` or `word`.
    pub form: String,
    pub required: bool,
    /// Of a `word`: those that it takes.
    pub words: Vec<WordWire>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct WordWire {
    pub word: String,
    pub zh: String,
}

/// A register by name.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RegisterNameWire {
    pub kind: String,
    pub title: TextWire,
}

/// What an import has done, or would do.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct ImportedWire {
    /// Whether anything was written.
    pub applied: bool,
    pub added: usize,
    pub changed: usize,
    pub removed: usize,
    pub unchanged: usize,
    pub faults: Vec<FaultWire>,
    /// Of the register that the sheet was held against; empty where the sheet has faults.
    pub version: String,
}

/// What is wrong with a sheet; its first line is row 1.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct FaultWire {
    pub row: usize,
    /// Empty: the whole row.
    pub column: String,
    pub text: TextWire,
    pub hint: Option<String>,
}

impl From<Fault> for FaultWire {
    fn from(Fault { row, column, text, hint }: Fault) -> Self {
        Self { row, column, text: text.into(), hint }
    }
}

fn title(kind: Kind) -> TextWire {
    let (zh, en) = kind.text();
    TextWire { zh: zh.to_owned(), en: en.to_owned() }
}

fn columns(kind: Kind) -> Vec<ColumnWire> {
    let column = |column: &register::Column| {
        let (form, words) = match column.form {
            Form::Text(_) => ("text", &[][..]),
            Form::Number => ("number", &[][..]),
            Form::Whole(..) => ("whole", &[][..]),
            Form::Date => ("date", &[][..]),
            Form::Phone => ("phone", &[][..]),
            Form::Word(words) => ("word", words),
        };
        let word = |(word, zh): &(&str, &str)| WordWire { word: (*word).to_owned(), zh: (*zh).to_owned() };
        ColumnWire {
            name: column.name.to_owned(),
            title: TextWire { zh: column.zh.to_owned(), en: column.name.replace('_', " ") },
            form: form.to_owned(),
            required: column.required,
            words: words.iter().map(word).collect(),
        }
    };
    kind.columns().iter().map(column).collect()
}

fn cells(row: &Row) -> BTreeMap<String, String> {
    let named = row.kind.columns().iter().map(|column| column.name.to_owned()).zip(row.cells.iter().cloned());
    named.filter(|(_, cell)| !cell.is_empty()).collect()
}

fn kind(word: &str) -> Result<Kind, Problem> {
    Kind::named(word).ok_or_else(|| {
        let known = Kind::ALL.map(Kind::as_str).join(", ");
        Problem::not_found(format!("没有登记表 {:?}", short(word)), format!("there is no register {:?}", short(word)))
            .hint(format!("可用：{known}"), format!("there are {known}"))
    })
}

pub(super) async fn all() -> Answer<Vec<RegisterNameWire>> {
    let name = |kind: Kind| RegisterNameWire { kind: kind.as_str().to_owned(), title: title(kind) };
    Ok(Json(Kind::ALL.map(name).into()))
}

/// The rows that lie within the caller's places, and of which register they are.
struct Seen {
    rows: Vec<Row>,
    masked: bool,
    version: String,
}

impl Seen {
    /// Whose version follows from what is shown, and tells nothing else.
    fn of(rows: Vec<Row>, masked: bool) -> Self {
        Self { version: register::version(&rows), rows, masked }
    }
}

/// Says in the audit that they were read.
async fn seen(desk: &Desk, caller: &Caller, kind: Kind) -> Result<Seen, Problem> {
    let mut rows = desk.archive(move |archive| archive.register(kind)).await?;
    rows.retain(|row| caller.sees(&row.place()));
    let whom = if caller.may(Right::Handle).is_ok() {
        Shown::Officers
    } else if caller.may(Right::Call).is_ok() {
        Shown::Crews
    } else {
        Shown::Everybody
    };
    let masked = kind.columns().iter().any(|column| column.shown > whom);
    let is_told = kind.columns().iter().any(|column| (Shown::Crews..=whom).contains(&column.shown));
    if is_told && !rows.is_empty() {
        let who = caller.shown_or("unknown");
        let detail = json!({ "rows": rows.len() });
        let deed = Deed {
            who,
            from: caller.way.clone(),
            about: kind.as_str().to_owned(),
            ..Deed::of_anmin(desk.link.clock.now().wall, "register.read", detail)
        };
        desk.note(deed).await?;
    }
    Ok(Seen::of(rows.into_iter().map(|row| row.masked(whom)).collect(), masked))
}

fn wire(kind: Kind, Seen { rows, masked, version }: Seen) -> RegisterWire {
    RegisterWire {
        kind: kind.as_str().to_owned(),
        title: title(kind),
        columns: columns(kind),
        rows: rows.iter().map(cells).collect(),
        masked,
        version,
        next: None,
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PageParameters {
    /// All that there are where nobody says.
    limit: Option<usize>,
    /// The id behind which the page begins.
    after: Option<String>,
}

pub(super) async fn one(
    State(desk): State<Desk>,
    caller: Caller,
    Path(word): Path<String>,
    Asked(PageParameters { limit, after }): Asked<PageParameters>,
) -> Answer<RegisterWire> {
    let kind = kind(&word)?;
    let limit = rows(limit, usize::MAX)?;
    let mut seen = seen(&desk, &caller, kind).await?;
    seen.rows.retain(|row| after.as_deref().is_none_or(|after| row.id() > after));
    let more = seen.rows.len() > limit;
    seen.rows.truncate(limit);
    let next = seen.rows.last().filter(|_| more).map(|row| row.id().to_owned());
    Ok(Json(RegisterWire { next, ..wire(kind, seen) }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SheetParameters {
    encoding: Option<String>,
}

pub(super) async fn sheet(
    State(desk): State<Desk>,
    caller: Caller,
    Path(word): Path<String>,
    Asked(SheetParameters { encoding }): Asked<SheetParameters>,
) -> Result<Response, Problem> {
    let kind = kind(&word)?;
    let encoding = match encoding.as_deref() {
        None => Encoding::Utf8,
        Some(word) => Encoding::named(word)
            .ok_or_else(|| Problem::bad_request(format_args!("{:?} is not one of utf-8, gbk", short(word))))?,
    };
    if kind.columns().iter().any(|column| column.shown > Shown::Everybody) {
        // A sheet with masked cells would be taken for the register when it comes back.
        caller.may(Right::Handle)?;
    }
    let Seen { rows, .. } = seen(&desk, &caller, kind).await?;
    let headers = [
        (header::CONTENT_TYPE, format!("text/csv; charset={}", encoding.as_str())),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{}.csv\"", kind.as_str())),
    ];
    let sheet = register::write(kind, &rows, encoding).map_err(Problem::bad_request)?;
    Ok((headers, sheet).into_response())
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ImportBody {
    who: Option<String>,
    /// The bytes of the sheet in base64, in whatever encoding it is.
    sheet: String,
    /// The sheet is the whole register: what it does not have goes.
    #[serde(default)]
    replace: bool,
    #[serde(default)]
    preview: bool,
    /// Of the register as it was seen, from the register or from a preview.
    version: Option<String>,
}

pub(super) async fn import(
    State(desk): State<Desk>,
    caller: Caller,
    Path(word): Path<String>,
    Told(body): Told<ImportBody, MOST_BODY>,
) -> Answer<ImportedWire> {
    let kind = kind(&word)?;
    if kind == Kind::Satisfaction {
        return Err(Problem::bad_request("marks are given one by one, each to an incident that has closed"));
    }
    if kind == Kind::Help {
        return Err(Problem::bad_request("calls for help are taken down one by one"));
    }
    let who = caller.name(body.who)?;
    if !caller.within().is_everywhere() {
        return Err(elsewhere());
    }
    let bytes = STANDARD.decode(body.sheet).map_err(|error| Problem::bad_request(format_args!("`sheet`: {error}")))?;
    let rows = match register::read(kind, &bytes) {
        Ok(rows) => rows,
        Err(faults) => {
            let faults = faults.into_iter().map(Into::into).collect();
            return Ok(Json(ImportedWire { faults, ..ImportedWire::default() }));
        }
    };
    if body.replace && rows.is_empty() {
        return Err(Problem::bad_request("the sheet has no rows, and nobody empties a register by mistake"));
    }
    let only = Arc::clone(&desk.keeping).lock_owned().await;
    let before = as_seen(&desk, &caller, kind, body.version).await?;
    let version = register::version(&before);
    let before: BTreeMap<String, Row> = before.into_iter().map(|row| (row.id().to_owned(), row)).collect();
    let ids: BTreeSet<String> = rows.iter().map(|row| row.id().to_owned()).collect();
    let mut said = ImportedWire { applied: !body.preview, version, ..ImportedWire::default() };
    let mut changes = Vec::new();
    for row in rows {
        match before.get(row.id()) {
            Some(old) if *old == row => {
                said.unchanged += 1;
                continue;
            }
            Some(_) => said.changed += 1,
            None => said.added += 1,
        }
        changes.push(Change::Row(row));
    }
    if body.replace {
        let gone = before.keys().filter(|id| !ids.contains(*id)).map(|id| Change::Gone(kind, id.clone()));
        let rest = changes.len();
        changes.extend(gone);
        said.removed = changes.len() - rest;
    }
    has_room(before.len() + said.added - said.removed)?;
    if said.applied && !changes.is_empty() {
        let detail = json!({ "added": said.added, "changed": said.changed, "removed": said.removed });
        let deed = deed(&desk, &caller, who, kind, "register.import", detail);
        commit(&desk, only, deed, changes).await?;
    }
    Ok(Json(said))
}

/// Of the rows that lie within the caller's places.
fn version_for(caller: &Caller, rows: &[Row]) -> String {
    register::version(rows.iter().filter(|row| caller.sees(&row.place())))
}

/// The register as it stands, if it is as it was seen.
async fn as_seen(desk: &Desk, caller: &Caller, kind: Kind, version: Option<String>) -> Result<Vec<Row>, Problem> {
    let rows = desk.archive(move |archive| archive.register(kind)).await?;
    match version {
        Some(seen) if seen != version_for(caller, &rows) => {
            Err(desk.changed_by(|deed| deed.about == kind.as_str(), None).await)
        }
        _ => Ok(rows),
    }
}

fn has_room(rows: usize) -> Result<(), Problem> {
    if rows <= register::MOST_ROWS {
        return Ok(());
    }
    Err(Problem::bad_request(format_args!("a register has {} rows at most, this would be {rows}", register::MOST_ROWS)))
}

fn elsewhere() -> Problem {
    Problem::new(
        axum::http::StatusCode::FORBIDDEN,
        "not_your_places",
        "该登记表含有您范围以外的内容",
        "the register holds what lies outside your places",
    )
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangeBody {
    who: Option<String>,
    #[serde(default)]
    rows: Vec<BTreeMap<String, String>>,
    #[serde(default)]
    remove: Vec<String>,
    /// Of the register as it was seen.
    version: Option<String>,
}

pub(super) async fn change(
    State(desk): State<Desk>,
    caller: Caller,
    Path(word): Path<String>,
    Told(ChangeBody { who, mut rows, remove, version }): Told<ChangeBody, MOST_BODY>,
) -> Answer<RegisterWire> {
    let kind = kind(&word)?;
    let who = caller.name(who)?;
    if rows.len() + remove.len() > MOST_CHANGES {
        return Err(Problem::bad_request(format_args!("{MOST_CHANGES} rows at most at one time; import a sheet")));
    }
    if kind == Kind::Satisfaction {
        for id in &remove {
            marks_closed(&desk, &caller, id).await?;
        }
        for row in &mut rows {
            let today = register::day(desk.link.clock.now().wall, &desk.link.site.time_zone);
            row.insert("at".to_owned(), today.to_string());
            row.insert("by".to_owned(), who.chars().take(64).collect());
            marks_closed(&desk, &caller, row.get("id").map_or("", String::as_str)).await?;
        }
    }
    let rows = rows.iter().map(|cells| Row::read(kind, cells)).collect::<Result<Vec<Row>, _>>().map_err(|faults| {
        let [mut zh, mut en] = [Vec::new(), Vec::new()];
        for CellFault { column, text, .. } in faults {
            zh.push(format!("{column}：{}", text.zh));
            en.push(format!("{column}: {}", text.en));
        }
        Problem::new(axum::http::StatusCode::BAD_REQUEST, "bad_request", zh.join("；"), en.join("; "))
    })?;
    let only = Arc::clone(&desk.keeping).lock_owned().await;
    let before = as_seen(&desk, &caller, kind, version).await?;
    let rows = if kind == Kind::Help { answered(&desk, &who, &before, rows) } else { rows };
    let touched = |id: &str| before.iter().find(|row| row.id() == id).map(Row::place);
    let places: Vec<Place> = rows
        .iter()
        .flat_map(|row| [Some(row.place()), touched(row.id())])
        .chain(remove.iter().map(|id| touched(id)))
        .flatten()
        .collect();
    if kind != Kind::Satisfaction && !places.iter().all(|place| caller.sees(place)) {
        return Err(elsewhere());
    }
    let added = rows.iter().filter(|row| touched(row.id()).is_none()).count();
    has_room(before.len() + added)?;
    let ids = rows.iter().map(Row::id).chain(remove.iter().map(String::as_str)).take(MOST_NAMED);
    // Who reads the audit need not be one of those who may read these rows.
    let ids: Vec<&str> = ids.filter(|_| kind.columns()[0].shown == Shown::Everybody).collect();
    let detail = json!({ "rows": ids, "written": rows.len(), "removed": remove.len() });
    let changes: Vec<Change> =
        rows.iter().cloned().map(Change::Row).chain(remove.iter().map(|id| Change::Gone(kind, id.clone()))).collect();
    if !changes.is_empty() {
        let deed = deed(&desk, &caller, who, kind, "register.change", detail);
        commit(&desk, only, deed, changes).await?;
    }
    let version = version_for(&caller, &desk.archive(move |archive| archive.register(kind)).await?);
    Ok(Json(wire(kind, Seen { rows, masked: false, version })))
}

/// Calls for help as somebody at the desk leaves them: when it came stays, and whose word its state is is kept.
fn answered(desk: &Desk, who: &str, before: &[Row], rows: Vec<Row>) -> Vec<Row> {
    let now = register::moment(desk.link.clock.now().wall, &desk.link.site.time_zone);
    let answered = |row: Row| {
        let old = before.iter().find(|old| old.id() == row.id());
        let cell = |name| old.map(|old| old.cell(name)).filter(|cell| !cell.is_empty());
        let by = match old {
            Some(old) if old.cell("state") == row.cell("state") => old.cell("by"),
            None if row.cell("state") == "new" => "",
            _ => who,
        };
        let by: String = by.chars().take(64).collect();
        row.with("at", cell("at").unwrap_or(&now)).with("by", &by)
    };
    rows.into_iter().map(answered).collect()
}

/// Only what is over can be marked, and only what was real.
async fn marks_closed(desk: &Desk, caller: &Caller, id: &str) -> Result<(), Problem> {
    let id = id.parse::<Uuid>().map(IncidentId);
    let id = id.map_err(|_| Problem::bad_request("`id` is not an incident's id"))?;
    let found = desk.archive(move |archive| archive.incident(id)).await?;
    let found = found.filter(|incident| caller.sees(&incident.place));
    match found {
        None => Err(Problem::not_found(format!("没有事件 {id}"), format!("there is no incident {id}"))),
        Some(incident) if incident.is_open() || incident.drill.is_some() => {
            Err(Problem::bad_request("only an incident that has closed, and was no drill, gets a mark"))
        }
        Some(_) => Ok(()),
    }
}

fn deed(desk: &Desk, caller: &Caller, who: String, kind: Kind, what: &'static str, detail: Value) -> Deed {
    let about = kind.as_str().to_owned();
    Deed { who, from: caller.way.clone(), about, ..Deed::of_anmin(desk.link.clock.now().wall, what, detail) }
}

/// Whoever hangs up in the middle changes nothing about it: the next may write when this is written.
pub(super) async fn commit(
    desk: &Desk,
    only: OwnedMutexGuard<()>,
    deed: Deed,
    changes: Vec<Change>,
) -> Result<(), Problem> {
    let inputs = desk.link.inputs.clone();
    let written = tokio::spawn(async move {
        let _only = only;
        send(&inputs, |reply| Input::Register { changes, deed: Box::new(deed), reply }).await
    });
    let done = written.await.map_err(|_| Problem::busy())??;
    done.map_err(|refusal| Problem::refused(&refusal))
}
