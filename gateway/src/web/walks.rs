//! Walk tests over HTTP: start, end, what has answered, and which detectors nobody has tested for long.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anmin_rules::alarm::Refusal;
use anmin_rules::drill::Scope;
use anmin_rules::walk::{self, Tick, Walk, WalkAction, WalkChange, WalkCommand, WalkId};
use anmin_sensors::point::{Kind, Place};
use anmin_sensors::time::Wall;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::api::{Answer, Asked, Desk, PlainBody, Told, USUAL_ROWS, moment, rows, send, short, words};
use super::guard::Caller;
use super::paging;
use super::problem::Problem;
use super::wire::{PlaceWire, TextWire, Writer};
use crate::main_loop::query::{Testable, TestablePoint};
use crate::main_loop::{Input, Query};
use crate::spreadsheet::tame;

/// Longest name of a walk.
const MOST_NAME: usize = 64;
/// Points that are due, in one answer.
const MOST_DUE: usize = 1_000;

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct WalkWire {
    pub id: String,
    pub seq: u32,
    pub name: String,
    /// What of the site it is about; empty is not asked for.
    pub area: String,
    pub grid: String,
    pub building: String,
    pub scope: TextWire,
    /// Empty: all that can be tested.
    pub kinds: Vec<String>,
    pub by: String,
    pub started_at: String,
    pub ends_at: String,
    pub points: u32,
    pub ticked: u32,
    pub on: bool,
    pub ended_at: Option<String>,
    pub ended_by: Option<String>,
}

/// A point that has spoken in a walk.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TickWire {
    pub walk: String,
    pub point: String,
    pub kind: String,
    pub kind_title: TextWire,
    pub place: PlaceWire,
    pub rule: String,
    pub level: String,
    pub value: Option<f64>,
    pub unit: String,
    pub at: String,
    /// `speaking`, `returned`, `real`, or `lost` where anmin ended meanwhile.
    pub state: String,
    pub ended_at: Option<String>,
    /// While it speaks: when it is real.
    pub real_at: Option<String>,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct WalkChangeWire {
    pub at: String,
    pub cause: &'static str,
    pub walk: WalkWire,
    pub tick: Option<TickWire>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct WalksWire {
    pub walks: Vec<WalkWire>,
    /// `before` of the next page; `null` on the last.
    pub next: Option<String>,
    /// What speaks now and is taken for tested.
    pub speaking: Vec<TickWire>,
}

/// A walk with all that has spoken in it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct WalkViewWire {
    pub walk: WalkWire,
    pub ticks: Vec<TickWire>,
}

/// Which detectors were tested when.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CoverageWire {
    /// How often each is to be tested.
    pub every_days: u64,
    pub points: usize,
    pub tested: usize,
    pub overdue: usize,
    pub never: usize,
    pub rows: Vec<CoverageRowWire>,
    /// Those that are not tested, the longest ago first; at most 1,000 of `overdue` and `never`.
    pub due: Vec<DueWire>,
}

/// Of one kind in one building.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CoverageRowWire {
    pub building: String,
    pub kind: String,
    pub kind_title: TextWire,
    pub points: usize,
    pub tested: usize,
    pub overdue: usize,
    pub never: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DueWire {
    pub point: String,
    pub label: TextWire,
    pub kind: String,
    pub kind_title: TextWire,
    pub place: PlaceWire,
    /// `null`: never.
    pub last_tested: Option<String>,
}

fn title(kind: Kind) -> TextWire {
    TextWire { zh: kind.info().zh.to_owned(), en: kind.info().en.to_owned() }
}

impl Writer<'_> {
    pub fn walk(self, walk: &Walk) -> WalkWire {
        let Scope { area, grid, building } = walk.scope.clone();
        WalkWire {
            id: walk.id.to_string(),
            seq: walk.seq,
            name: walk.name.clone(),
            area,
            grid,
            building,
            scope: walk.scope.text().into(),
            kinds: walk.kinds.iter().map(|kind| kind.as_str().to_owned()).collect(),
            by: walk.by.clone(),
            started_at: self.at(walk.started_at),
            ends_at: self.at(walk.ends_at),
            points: walk.points,
            ticked: walk.ticked,
            on: walk.is_on(),
            ended_at: walk.end.as_ref().map(|(at, _)| self.at(*at)),
            ended_by: walk.end.as_ref().map(|(_, by)| by.clone()),
        }
    }

    /// `on`: whether it is still taken for a test.
    fn tick(self, tick: &Tick, on: bool) -> TickWire {
        let state = match &tick.end {
            Some((_, end)) => end.as_str(),
            None if on => "speaking",
            None => "lost",
        };
        TickWire {
            walk: tick.walk.to_string(),
            point: tick.point.to_string(),
            kind: tick.kind.as_str().to_owned(),
            kind_title: title(tick.kind),
            place: (&*tick.place).into(),
            rule: tick.rule.to_string(),
            level: tick.level.as_str().to_owned(),
            value: tick.value,
            unit: tick.kind.info().unit.to_owned(),
            at: self.at(tick.at),
            state: state.to_owned(),
            ended_at: tick.end.map(|(at, _)| self.at(at)),
            // It began its rule's on-delay earlier, so this is the latest.
            real_at: (state == "speaking").then(|| self.at(tick.at.plus(walk::REAL_AFTER))),
        }
    }

    pub fn walk_change(self, change: &WalkChange) -> WalkChangeWire {
        let tick = change.tick.as_ref().map(|tick| self.tick(tick, true));
        WalkChangeWire { at: self.at(change.at), cause: change.cause.as_str(), walk: self.walk(&change.walk), tick }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListParameters {
    limit: Option<usize>,
    after: Option<String>,
    /// The same, by its earlier name.
    before: Option<String>,
}

pub(super) async fn list(
    State(desk): State<Desk>,
    Asked(ListParameters { limit, after, before }): Asked<ListParameters>,
) -> Answer<WalksWire> {
    let limit = rows(limit, USUAL_ROWS)?;
    let before: Option<String> = paging::after(after.as_deref(), before.as_deref())?;
    let before = before.as_deref().map(|text| moment("after", text)).transpose()?;
    let mut found = desk.archive(move |archive| archive.walks(limit + 1, before)).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let (_, speaking) = desk.ask(|reply| Query::Walks { reply }).await?;
    let writer = desk.writer();
    Ok(Json(WalksWire {
        walks: found.iter().map(|walk| writer.walk(walk)).collect(),
        next: found.last().filter(|_| more).map(|last| last.started_at.millis().to_string()),
        speaking: speaking.iter().map(|tick| writer.tick(tick, true)).collect(),
    }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StartBody {
    who: Option<String>,
    #[serde(default)]
    area: String,
    #[serde(default)]
    grid: String,
    #[serde(default)]
    building: String,
    #[serde(default)]
    kinds: Vec<String>,
    minutes: Option<u32>,
    #[serde(default)]
    name: String,
}

pub(super) async fn start(State(desk): State<Desk>, caller: Caller, Told(start): Told<StartBody>) -> Answer<WalkWire> {
    let kind = |word: &String| {
        Kind::named(word).ok_or_else(|| Problem::bad_request(format_args!("{:?} is not a kind of point", short(word))))
    };
    let kinds = start.kinds.iter().map(kind).collect::<Result<Vec<_>, _>>()?;
    let lasts = start.minutes.map_or(walk::USUAL, |minutes| Duration::from_secs(u64::from(minutes) * 60));
    let name = if start.name.trim().is_empty() { String::new() } else { words("name", &start.name, MOST_NAME)? };
    let scope = Scope { area: start.area, grid: start.grid, building: start.building };
    let what = WalkAction::Start { scope, kinds, lasts, name };
    let walk = WalkId(Uuid::now_v7());
    command(&desk, WalkCommand { who: caller.name(start.who)?, walk, what }, caller).await
}

pub(super) async fn end(
    State(desk): State<Desk>,
    caller: Caller,
    Path(id): Path<String>,
    Told(PlainBody { who }): Told<PlainBody>,
) -> Answer<WalkWire> {
    let walk = walk_id(&id)?;
    command(&desk, WalkCommand { who: caller.name(who)?, walk, what: WalkAction::End }, caller).await
}

async fn command(desk: &Desk, command: WalkCommand, caller: Caller) -> Answer<WalkWire> {
    let id = command.walk;
    let Caller { way: from, seen, .. } = caller;
    match send(&desk.link.inputs, |reply| Input::Walk { command, from, seen, reply }).await? {
        Ok(()) => Ok(Json(find(desk, id).await?.walk)),
        Err(Refusal::ChangedMeanwhile) => {
            Err(desk.changed_by(|deed| deed.about == id.to_string(), None).await.precondition())
        }
        Err(refusal) => Err(Problem::refused(&refusal)),
    }
}

fn walk_id(text: &str) -> Result<WalkId, Problem> {
    text.parse().map(WalkId).map_err(|_| {
        Problem::bad_request(format_args!("{:?} is not a walk's id", short(text)))
            .hint("巡检测试编号见 GET /api/v1/walks", "ids stand in GET /api/v1/walks")
    })
}

/// One that is on by the main loop, else as it ended.
async fn find(desk: &Desk, id: WalkId) -> Result<WalkViewWire, Problem> {
    let (on, speaking) = desk.ask(|reply| Query::Walks { reply }).await?;
    let kept = desk.archive(move |archive| archive.walk(id)).await?;
    let on = on.into_iter().find(|walk| walk.id == id);
    let ticks = kept.as_ref().map_or(&[][..], |(_, ticks)| ticks);
    // What spoke when anmin was started again is no test any more.
    let speaks = |tick: &Tick| speaking.iter().any(|other| other.walk == tick.walk && other.point == tick.point);
    let writer = desk.writer();
    let ticks = ticks.iter().map(|tick| writer.tick(tick, speaks(tick))).collect();
    let walk = on.or(kept.map(|(walk, _)| Arc::new(walk)));
    let walk =
        walk.ok_or_else(|| Problem::not_found(format!("没有巡检测试 {id}"), format!("there is no walk test {id}")))?;
    Ok(WalkViewWire { walk: writer.walk(&walk), ticks })
}

pub(super) async fn one(State(desk): State<Desk>, Path(id): Path<String>) -> Answer<WalkViewWire> {
    Ok(Json(find(&desk, walk_id(&id)?).await?))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CoverageParameters {
    building: Option<String>,
    kind: Option<String>,
}

async fn testable(desk: &Desk, caller: &Caller, wanted: CoverageParameters) -> Result<Testable, Problem> {
    let CoverageParameters { building, kind } = wanted;
    let within = caller.within();
    let mut found = desk.ask(|reply| Query::Testable { within, reply }).await?;
    found.points.retain(|point| {
        building.as_ref().is_none_or(|building| point.place.building == *building)
            && kind.as_ref().is_none_or(|kind| point.kind.as_str() == kind)
    });
    // Never before long ago, and then by where one walks.
    let way = |place: &Place| (place.building.clone(), place.unit.clone(), place.floor.clone(), place.room.clone());
    found.points.sort_by_cached_key(|point| (point.last, way(&point.place), point.id.as_str().to_owned()));
    Ok(found)
}

pub(super) async fn coverage(
    State(desk): State<Desk>,
    caller: Caller,
    Asked(wanted): Asked<CoverageParameters>,
) -> Answer<CoverageWire> {
    let found = testable(&desk, &caller, wanted).await?;
    Ok(Json(desk.writer().coverage(&found, desk.link.clock.now().wall)))
}

impl Writer<'_> {
    pub(super) fn coverage(self, found: &Testable, now: Wall) -> CoverageWire {
        let mut rows: BTreeMap<(String, &str), CoverageRowWire> = BTreeMap::new();
        let mut due = Vec::new();
        for point in &found.points {
            let building = point.place.building.clone();
            let row = rows.entry((building.clone(), point.kind.as_str())).or_insert_with(|| CoverageRowWire {
                building,
                kind: point.kind.as_str().to_owned(),
                kind_title: title(point.kind),
                points: 0,
                tested: 0,
                overdue: 0,
                never: 0,
            });
            row.points += 1;
            match found.standing(point, now) {
                "tested" => row.tested += 1,
                word => {
                    if word == "never" {
                        row.never += 1;
                    } else {
                        row.overdue += 1;
                    }
                    if due.len() < MOST_DUE {
                        due.push(self.due(point));
                    }
                }
            }
        }
        let rows: Vec<CoverageRowWire> = rows.into_values().collect();
        let sum = |of: fn(&CoverageRowWire) -> usize| rows.iter().map(of).sum();
        CoverageWire {
            every_days: found.every.as_secs() / 86_400,
            points: sum(|row| row.points),
            tested: sum(|row| row.tested),
            overdue: sum(|row| row.overdue),
            never: sum(|row| row.never),
            rows,
            due,
        }
    }

    fn due(self, point: &TestablePoint) -> DueWire {
        DueWire {
            point: point.id.to_string(),
            label: (&point.label).into(),
            kind: point.kind.as_str().to_owned(),
            kind_title: title(point.kind),
            place: (&*point.place).into(),
            last_tested: point.last.map(|at| self.at(at)),
        }
    }
}

/// Every point with when it was last tested, for a spreadsheet: UTF-8 with the mark by which Excel knows it.
pub(super) async fn coverage_csv(
    State(desk): State<Desk>,
    caller: Caller,
    Asked(wanted): Asked<CoverageParameters>,
) -> Result<Response, Problem> {
    let found = testable(&desk, &caller, wanted).await?;
    let now = desk.link.clock.now().wall;
    let writer = desk.writer();
    let mut sheet = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(b"\xef\xbb\xbf".to_vec());
    let mut put = || -> Result<(), csv::Error> {
        sheet.write_record(["测点", "名称", "类型", "楼栋", "单元", "楼层", "房号", "上次测试", "状态"])?;
        found.points.iter().try_for_each(|point| {
            let Place { building, unit, floor, room, .. } = &*point.place;
            let state = match found.standing(point, now) {
                "tested" => "已测试",
                "overdue" => "超期",
                _ => "从未测试",
            };
            let last = point.last.map_or_else(String::new, |at| writer.at(at));
            let cells =
                [point.id.as_str(), &point.label.zh, point.kind.info().zh, building, unit, floor, room, &last, state];
            sheet.write_record(cells.map(|cell| tame(cell).into_owned()))
        })
    };
    put().expect("memory takes what it is given");
    let bytes = sheet.into_inner().expect("memory takes what it is given");
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"coverage.csv\""),
    ];
    Ok((headers, bytes).into_response())
}
