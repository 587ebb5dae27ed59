//! Who did what and when, for who has to answer for it: pages, whether the chain is whole, and all of it as a table.

use std::fmt::Write as _;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::api::{Answer, Asked, Desk, USUAL_ROWS, moment, rows};
use super::guard::Caller;
use super::paging;
use super::problem::Problem;
use super::wire::{AuditWire, ChainWire, DeedWire, Writer};
use crate::spreadsheet::tame;
use crate::store::audit::{Deed, Wanted};

/// Rows of one table; what is older goes with an earlier `until`.
const MOST_EXPORTED: usize = 20_000;
const PAGE: usize = 1_000;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditParameters {
    limit: Option<usize>,
    after: Option<String>,
    /// The same, by its earlier name.
    before: Option<i64>,
    since: Option<String>,
    until: Option<String>,
    who: Option<String>,
}

fn wanted(
    before: Option<i64>,
    since: Option<&str>,
    until: Option<&str>,
    who: Option<String>,
) -> Result<Wanted, Problem> {
    let at = |name: &str, text: Option<&str>| text.map(|text| moment(name, text)).transpose();
    Ok(Wanted { before, since: at("since", since)?, until: at("until", until)?, who })
}

pub(super) async fn audit(
    State(desk): State<Desk>,
    Asked(AuditParameters { limit, after, before, since, until, who }): Asked<AuditParameters>,
) -> Answer<AuditWire> {
    let limit = rows(limit, USUAL_ROWS)?;
    let before = before.map(|before| before.to_string());
    let before = paging::after(after.as_deref(), before.as_deref())?;
    let wanted = wanted(before, since.as_deref(), until.as_deref(), who)?;
    // One more than is told shows whether there are more.
    let mut found = desk.archive(move |archive| archive.audit(&wanted, limit + 1)).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|last| last.n);
    Ok(Json(AuditWire { rows: desk.writer().audit(&found), next }))
}

pub(super) async fn verify(State(desk): State<Desk>) -> Answer<ChainWire> {
    let chain = desk.archive(|archive| archive.verify_audit()).await?;
    Ok(Json(desk.writer().chain(&chain)))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TableParameters {
    since: Option<String>,
    until: Option<String>,
    who: Option<String>,
}

pub(super) async fn table(
    State(desk): State<Desk>,
    caller: Caller,
    Asked(TableParameters { since, until, who }): Asked<TableParameters>,
) -> Result<Response, Problem> {
    let of = who.clone();
    let mut wanted = wanted(None, since.as_deref(), until.as_deref(), who)?;
    let zone = desk.link.site.time_zone.clone();
    let written = desk.archive(move |archive| {
        let (mut text, mut count) = (HEAD.to_owned(), 0);
        while count < MOST_EXPORTED {
            let found = archive.audit(&wanted, PAGE)?;
            wanted.before = found.last().map(|last| last.n);
            Writer { zone: &zone }.audit(&found).iter().for_each(|row| put(&mut text, row));
            count += found.len();
            if found.len() < PAGE {
                break;
            }
        }
        if count >= MOST_EXPORTED {
            let more = format!(
                "{MOST_EXPORTED} 行为上限，更早的记录不在此表：请用 until 参数继续导出 · no more than {MOST_EXPORTED} rows: earlier \
                 ones are not in this table, export them with `until`"
            );
            let _ = write!(text, ",,{}\r\n", cell_of(&more));
        }
        Ok((text, count))
    });
    let (text, count) = written.await?;
    let deed = Deed {
        at: desk.link.clock.now().wall,
        who: caller.shown_or("-"),
        from: caller.way,
        what: "audit.export".into(),
        about: String::new(),
        refused: None,
        detail: json!({ "since": since, "until": until, "who": of, "rows": count }),
    };
    desk.note(deed).await?;
    let name = "attachment; filename=\"audit.csv\"";
    Ok(([(header::CONTENT_TYPE, "text/csv; charset=utf-8"), (header::CONTENT_DISPOSITION, name)], text).into_response())
}

/// With the mark by which spreadsheets know UTF-8.
const HEAD: &str =
    "\u{feff}n,at,who,through,address,account,role,what,about,done,refused_zh,refused_en,detail,damaged,hash\r\n";

fn put(text: &mut String, row: &DeedWire) {
    let word = |word: &Option<String>| cell_of(word.as_deref().unwrap_or_default());
    let refused = row.refused.as_ref();
    let detail = if row.detail.is_null() { String::new() } else { row.detail.to_string() };
    let cells = [
        row.n.to_string(),
        word(&row.at),
        word(&row.who),
        word(&row.through),
        word(&row.address),
        word(&row.account),
        word(&row.role),
        word(&row.what),
        word(&row.about),
        row.done.map(|done| done.to_string()).unwrap_or_default(),
        cell_of(refused.map_or("", |refused| &refused.zh)),
        cell_of(refused.map_or("", |refused| &refused.en)),
        cell_of(&detail),
        word(&row.damaged),
        row.hash.clone(),
    ];
    // A String takes everything.
    let _ = write!(text, "{}\r\n", cells.join(","));
}

/// Text as one cell: quoted where it must be (RFC 4180), and nothing that a spreadsheet would compute.
pub(crate) fn cell_of(text: &str) -> String {
    let tame = tame(text);
    if tame.contains([',', '"', '\n', '\r']) { format!("\"{}\"", tame.replace('"', "\"\"")) } else { tame.into_owned() }
}
