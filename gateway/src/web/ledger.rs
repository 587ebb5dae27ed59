//! The month's ledger: what happened, what it was, how fast people were, and what was drilled.
//!
//! Counted from closed incidents; drills are counted apart and never among what was real.

use std::collections::BTreeMap;
use std::time::Duration;

use anmin_rules::alarm::AlarmId;
use anmin_rules::casework::CaseKind;
use anmin_rules::incident::{Incident, Outcome};
use anmin_rules::rule::Text;
use anmin_rules::walk::Walk;
use anmin_sensors::time::Wall;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Archive;
use super::api::{Answer, Desk, short};
use super::archive::{name, rows_of};
use super::drills::{DrillWire, Drilled, ScoreSheet, Stage};
use super::problem::Problem;
use super::walks::WalkWire;
use super::wire::{OutcomeWire, PlaceWire, TextWire, Writer};
use crate::register::{Kind, Row, day, shortage};
use crate::report::{self, Cell, Language, Page};
use crate::store::incidents::{ClosedCursor, ClosedFilter};

/// Incidents and drills of one ledger; where there are more it says so.
const MOST: usize = 2_000;
/// What was noisy, in one ledger.
const MOST_NOISY: usize = 10;

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LedgerWire {
    pub month: String,
    pub from: String,
    pub to: String,
    /// The first to close first.
    pub incidents: Vec<LedgerIncidentWire>,
    /// More closed than stand here.
    pub left_out: bool,
    pub outcomes: Vec<OutcomeWire>,
    pub clocks: Vec<LedgerClockWire>,
    pub drills: Vec<LedgerDrillWire>,
    /// What gave the most incidents, and how many of them were false: at most ten.
    pub noisy: Vec<NoisyWire>,
    /// Walk tests that began in it.
    pub walks: Vec<WalkWire>,
    pub satisfaction: SatisfactionWire,
    /// What the stock lacks on the last day of the month, or today.
    pub short: Vec<TextWire>,
}

/// Incidents of one name at one place.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct NoisyWire {
    pub title: TextWire,
    pub place: TextWire,
    pub incidents: usize,
    pub false_alarms: usize,
}

/// Residents' marks for the incidents of the month.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct SatisfactionWire {
    pub marks: usize,
    pub mean: Option<f64>,
    /// How many gave 1, 2, 3, 4 and 5.
    pub by_mark: [usize; 5],
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LedgerIncidentWire {
    pub incident: String,
    /// `mediation`, `report` or `maintenance`, if it was no emergency.
    #[serde(default)]
    pub case: Option<String>,
    pub title: TextWire,
    pub place: PlaceWire,
    pub peak: String,
    pub alarms: u32,
    pub opened_at: String,
    pub closed_at: String,
    pub outcome: String,
    pub cause: Option<String>,
    pub why: String,
    /// Seconds from the first alarm's beginning, or from the call; `null`: it did not come to it.
    pub acknowledged_seconds: Option<f64>,
    pub accepted_seconds: Option<f64>,
    pub on_scene_seconds: Option<f64>,
}

/// All clocks of one kind.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LedgerClockWire {
    pub what: String,
    pub kept: usize,
    pub of: usize,
    /// Of those that it came to.
    pub median_seconds: Option<f64>,
    pub longest_seconds: Option<f64>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LedgerDrillWire {
    pub drill: DrillWire,
    pub kept: usize,
    pub of: usize,
}

/// What a month's ledger is made of.
struct Month {
    /// `2026-11`.
    name: String,
    from: Wall,
    to: Wall,
    incidents: Vec<(Incident, ScoreSheet)>,
    left_out: bool,
    drills: Vec<Drilled>,
    walks: Vec<Walk>,
    /// By incident.
    marks: BTreeMap<String, u8>,
    stock: Vec<Row>,
    /// The day on which the stock is looked at.
    today: Date,
}

/// First moment of the month and of the next.
fn span(name: &str, zone: &TimeZone) -> Option<(Wall, Wall)> {
    let (year, month) = name.split_once('-').filter(|(year, month)| year.len() == 4 && month.len() == 2)?;
    let first = Date::new(year.parse().ok()?, month.parse().ok()?, 1).ok()?;
    let next = first.checked_add(jiff::Span::new().months(1)).ok()?;
    let moment = |date: Date| {
        date.to_zoned_datetime(zone.clone()).ok().map(|at| Wall::from_micros(at.timestamp().as_microsecond()))
    };
    Some((moment(first)?, moment(next)?))
}

fn gather(archive: &dyn Archive, name: String, (from, to): (Wall, Wall), today: Date) -> Result<Month, String> {
    let filter = ClosedFilter { from: Some(from), to: Some(to), ..ClosedFilter::default() };
    let mut closed: Vec<Incident> = Vec::new();
    let mut after = None;
    let left_out = loop {
        let page = archive.closed_incidents(&filter, after, 500)?;
        after = page.last().and_then(|last| Some(ClosedCursor(last.end.as_ref()?.at, last.id)));
        let last = page.len() < 500;
        closed.extend(page.into_iter().filter(|incident| incident.drill.is_none()));
        if last || closed.len() >= MOST {
            break !last;
        }
    };
    closed.reverse();
    let mut incidents = Vec::with_capacity(closed.len());
    for incident in closed {
        let rows = rows_of(archive, incident.id)?;
        let sheet = ScoreSheet::of(&rows, |alarm| delivered(archive, alarm))?;
        incidents.push((incident, sheet));
    }
    let mut drills = Vec::new();
    for drill in archive.drills(MOST, Some(to))?.into_iter().filter(|drill| drill.started_at >= from).rev() {
        drills.extend(archive.drill(drill.id)?);
    }
    let mut walks: Vec<Walk> = archive.walks(MOST, Some(to))?;
    walks.retain(|walk| walk.started_at >= from);
    walks.reverse();
    let mark = |row: Row| Some((row.id().to_owned(), row.cell("mark").parse().ok()?));
    let marks = archive.register(Kind::Satisfaction)?.into_iter().filter_map(mark).collect();
    let stock = archive.register(Kind::Stock)?;
    Ok(Month { name, from, to, incidents, left_out, drills, walks, marks, stock, today })
}

fn delivered(archive: &dyn Archive, alarm: AlarmId) -> Result<Vec<(std::sync::Arc<str>, Wall)>, String> {
    let sent = archive.messages(&[alarm])?.into_iter().filter(|sent| sent.state == "delivered");
    Ok(sent.filter_map(|sent| Some((sent.channel, sent.at?))).collect())
}

impl Month {
    fn outcomes(&self) -> Vec<OutcomeWire> {
        let mut counts: BTreeMap<(String, Option<String>), u64> = BTreeMap::new();
        for (incident, _) in &self.incidents {
            let Some(end) = &incident.end else { continue };
            let cause = match end.outcome {
                Outcome::FalseAlarm(cause) => Some(cause.as_str().to_owned()),
                _ => None,
            };
            *counts.entry((end.outcome.as_str().to_owned(), cause)).or_default() += 1;
        }
        let mut all: Vec<OutcomeWire> =
            counts.into_iter().map(|((outcome, cause), incidents)| OutcomeWire { outcome, cause, incidents }).collect();
        all.sort_by_key(|one| std::cmp::Reverse(one.incidents));
        all
    }

    fn clocks(&self) -> Vec<LedgerClockWire> {
        let of_stage = |stage: Stage| {
            let sheets = self.incidents.iter().flat_map(|(_, sheet)| &sheet.alarms);
            let clocks: Vec<_> = sheets.flat_map(|scored| &scored.clocks).filter(|clock| clock.what == stage).collect();
            let mut took: Vec<Duration> = clocks.iter().filter_map(|clock| clock.took()).collect();
            took.sort_unstable();
            LedgerClockWire {
                what: stage.as_str().to_owned(),
                kept: clocks.iter().filter(|clock| clock.is_kept()).count(),
                of: clocks.len(),
                median_seconds: took.get(took.len() / 2).map(Duration::as_secs_f64),
                longest_seconds: took.last().map(Duration::as_secs_f64),
            }
        };
        Stage::ALL.map(of_stage).into()
    }

    fn wire(&self, writer: Writer<'_>) -> LedgerWire {
        let row = |(incident, sheet): &(Incident, ScoreSheet)| {
            let end = incident.end.as_ref();
            let first = |stage: Stage| {
                let clocks = sheet.alarms.iter().flat_map(|scored| &scored.clocks);
                let took = clocks.filter(|clock| clock.what == stage).filter_map(|clock| clock.took());
                took.min().map(|took| took.as_secs_f64())
            };
            LedgerIncidentWire {
                incident: incident.id.to_string(),
                case: incident.case_kind().map(|kind| kind.as_str().to_owned()),
                title: (&incident.title).into(),
                place: (&*incident.place).into(),
                peak: incident.peak.as_str().to_owned(),
                alarms: incident.alarms,
                opened_at: writer.at(incident.opened_at),
                closed_at: end.map_or_else(String::new, |end| writer.at(end.at)),
                outcome: end.map_or("", |end| end.outcome.as_str()).to_owned(),
                cause: end.and_then(|end| match end.outcome {
                    Outcome::FalseAlarm(cause) => Some(cause.as_str().to_owned()),
                    _ => None,
                }),
                why: end.map_or_else(String::new, |end| end.why.clone()),
                acknowledged_seconds: first(Stage::Acknowledged),
                accepted_seconds: first(Stage::Accepted),
                on_scene_seconds: first(Stage::OnScene),
            }
        };
        let drill = |drilled: &Drilled| {
            let (kept, of) = drilled.sheet.kept();
            LedgerDrillWire { drill: writer.drill(&drilled.drill), kept, of }
        };
        LedgerWire {
            month: self.name.clone(),
            from: writer.at(self.from),
            to: writer.at(self.to),
            incidents: self.incidents.iter().map(row).collect(),
            left_out: self.left_out,
            outcomes: self.outcomes(),
            clocks: self.clocks(),
            drills: self.drills.iter().map(drill).collect(),
            noisy: self.noisy(),
            walks: self.walks.iter().map(|walk| writer.walk(walk)).collect(),
            satisfaction: self.satisfaction(),
            short: self.stock.iter().filter_map(|row| shortage(row, self.today)).map(Into::into).collect(),
        }
    }

    fn noisy(&self) -> Vec<NoisyWire> {
        let mut all: BTreeMap<(&str, String), NoisyWire> = BTreeMap::new();
        // What people open by hand says nothing of alarms.
        for (incident, _) in self.incidents.iter().filter(|(incident, _)| !is_by_hand(incident)) {
            let (title, place) = (&incident.title, &incident.place);
            let one = all.entry((&title.en, place.en())).or_insert_with(|| NoisyWire {
                title: title.into(),
                place: TextWire { zh: place.zh(), en: place.en() },
                incidents: 0,
                false_alarms: 0,
            });
            one.incidents += 1;
            let outcome = incident.end.as_ref().map(|end| end.outcome);
            one.false_alarms += usize::from(matches!(outcome, Some(Outcome::FalseAlarm(_))));
        }
        let mut all: Vec<NoisyWire> = all.into_values().collect();
        all.sort_by_key(|one| std::cmp::Reverse((one.false_alarms, one.incidents)));
        all.truncate(MOST_NOISY);
        all
    }

    fn satisfaction(&self) -> SatisfactionWire {
        let of = |(incident, _): &(Incident, ScoreSheet)| self.marks.get(&incident.id.to_string()).copied();
        let marks: Vec<u8> = self.incidents.iter().filter_map(of).collect();
        let sum: u32 = marks.iter().map(|mark| u32::from(*mark)).sum();
        SatisfactionWire {
            marks: marks.len(),
            mean: (!marks.is_empty()).then(|| f64::from(sum) / marks.len() as f64),
            by_mark: [1, 2, 3, 4, 5].map(|wanted| marks.iter().filter(|mark| **mark == wanted).count()),
        }
    }
}

fn is_by_hand(incident: &Incident) -> bool {
    incident.case.as_ref().is_some_and(|case| case.by_hand)
}

async fn month(desk: &Desk, name: String) -> Result<Month, Problem> {
    let Some(span) = span(&name, &desk.link.site.time_zone) else {
        return Err(Problem::bad_request(format_args!("{:?} is not a month such as 2026-11", short(&name))));
    };
    let now = desk.link.clock.now().wall.min(Wall::from_micros(span.1.micros() - 1));
    let today = day(now, &desk.link.site.time_zone);
    desk.archive(move |archive| gather(archive, name, span, today)).await
}

pub(super) async fn one(State(desk): State<Desk>, Path(name): Path<String>) -> Answer<LedgerWire> {
    let month = month(&desk, name).await?;
    Ok(Json(month.wire(desk.writer())))
}

pub(super) async fn report(State(desk): State<Desk>, Path(name): Path<String>) -> Result<Response, Problem> {
    let ledger = month(&desk, name).await?.wire(desk.writer());
    let title = Text { zh: format!("{} 月报", ledger.month), en: format!("Ledger of {}", ledger.month) };
    let html = report::document(&title, |language, page| write(language, page, &title, &desk.link.site.name, &ledger));
    let headers =
        [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, report::POLICY)];
    Ok((headers, html).into_response())
}

fn write(language: Language, page: &mut Page, title: &Text, site: &Text, ledger: &LedgerWire) {
    let pick = |zh, en| language.pick(zh, en);
    let say = |text: &TextWire| language.pick(&text.zh, &text.en).to_owned();
    let moment = |stamp: &str| stamp.get(..19).unwrap_or(stamp).replace('T', " ");
    let seconds = |took: Option<f64>| Cell::Number(took.map_or_else(|| "–".to_owned(), |took| format!("{took:.1}")));
    let ended = |outcome: &str, cause: Option<&str>| {
        let cause = cause.map_or_else(String::new, |cause| format!(" · {}", name(cause, language)));
        format!("{}{cause}", name(outcome, language))
    };
    page.title(language.of(title));
    page.facts([
        (pick("社区", "Community"), language.of(site).to_owned()),
        (pick("起", "From"), moment(&ledger.from)),
        (pick("止", "To"), moment(&ledger.to)),
        (pick("结案事件", "Incidents closed"), ledger.incidents.len().to_string()),
        (pick("演练", "Drills"), ledger.drills.len().to_string()),
    ]);
    if ledger.left_out {
        page.line(pick("事件过多，只列出其中一部分。", "There were more incidents than are listed."));
    }
    page.heading(pick("性质及误报原因", "What they were, and what gave false alarms"));
    page.table(
        &[pick("性质", "Outcome"), pick("件数", "Incidents")],
        ledger.outcomes.iter().map(|one| {
            [Cell::Words(ended(&one.outcome, one.cause.as_deref())), Cell::Number(one.incidents.to_string())]
        }),
    );
    page.heading(pick("响应时限", "Response clocks"));
    let heads = [
        pick("环节", "Stage"),
        pick("达标", "Kept"),
        pick("次数", "Of"),
        pick("中位（秒）", "Median (s)"),
        pick("最长（秒）", "Longest (s)"),
    ];
    page.table(
        &heads,
        ledger.clocks.iter().map(|clock| {
            let stage =
                Stage::named(&clock.what).map_or_else(|| clock.what.clone(), |stage| stage.text(language).to_owned());
            [
                Cell::Words(stage),
                Cell::Number(clock.kept.to_string()),
                Cell::Number(clock.of.to_string()),
                seconds(clock.median_seconds),
                seconds(clock.longest_seconds),
            ]
        }),
    );
    let kind = |one: &LedgerIncidentWire| {
        let kind = one.case.as_deref().and_then(CaseKind::named);
        kind.map_or_else(String::new, |kind| format!("【{}】", language.pick(kind.zh(), kind.en())))
    };
    page.heading(pick("事件", "Incidents"));
    let heads = [
        pick("开始", "Began"),
        pick("事件", "Incident"),
        pick("级别", "Level"),
        pick("性质", "Outcome"),
        pick("确认（秒）", "Acknowledged (s)"),
        pick("应答（秒）", "Accepted (s)"),
        pick("到场（秒）", "On scene (s)"),
    ];
    page.table(
        &heads,
        ledger.incidents.iter().map(|one| {
            [
                Cell::Words(moment(&one.opened_at)),
                Cell::Words(format!(
                    "{}{} · {}",
                    kind(one),
                    say(&one.title),
                    language.pick(&one.place.zh, &one.place.en)
                )),
                Cell::Words(name(&one.peak, language)),
                Cell::Words(ended(&one.outcome, one.cause.as_deref())),
                seconds(one.acknowledged_seconds),
                seconds(one.accepted_seconds),
                seconds(one.on_scene_seconds),
            ]
        }),
    );
    page.heading(pick("报警质量", "Alarm quality"));
    page.table(
        &[pick("报警及地点", "Alarm and place"), pick("件数", "Incidents"), pick("误报", "False")],
        ledger.noisy.iter().map(|one| {
            [
                Cell::Words(format!("{} · {}", say(&one.title), say(&one.place))),
                Cell::Number(one.incidents.to_string()),
                Cell::Number(one.false_alarms.to_string()),
            ]
        }),
    );
    page.heading(pick("居民满意度", "Residents' marks"));
    match ledger.satisfaction.mean {
        None => page.line(pick("没有评分。", "No marks were given.")),
        Some(mean) => {
            page.line(&format!(
                "{} {}，{} {mean:.1}",
                pick("评分", "Marks"),
                ledger.satisfaction.marks,
                pick("平均", "mean")
            ));
            page.table(&["1", "2", "3", "4", "5"], [ledger.satisfaction.by_mark.map(|n| Cell::Number(n.to_string()))]);
        }
    }
    page.heading(pick("探测器测试", "Tests of detectors"));
    page.table(
        &[pick("开始", "Began"), pick("范围", "Area"), pick("已测", "Tested")],
        ledger.walks.iter().map(|walk| {
            [
                Cell::Words(moment(&walk.started_at)),
                Cell::Words(format!("{} {}", say(&walk.scope), walk.name)),
                Cell::Number(format!("{} / {}", walk.ticked, walk.points)),
            ]
        }),
    );
    page.heading(pick("物资不足或过期", "Stock that is low or past its date"));
    if ledger.short.is_empty() {
        page.line(pick("没有。", "None."));
    }
    ledger.short.iter().for_each(|text| page.line(&say(text)));
    page.heading(pick("演练", "Drills"));
    let heads = [pick("开始", "Began"), pick("范围", "Area"), pick("报警", "Alarms"), pick("达标时限", "Clocks kept")];
    page.table(
        &heads,
        ledger.drills.iter().map(|one| {
            [
                Cell::Words(moment(&one.drill.started_at)),
                Cell::Words(format!("{} {}", say(&one.drill.scope), one.drill.name)),
                Cell::Number(one.drill.alarms.to_string()),
                Cell::Number(format!("{} / {}", one.kept, one.of)),
            ]
        }),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_begins_and_ends_by_the_sites_clock() {
        let zone = TimeZone::fixed(jiff::tz::offset(8));
        let (from, to) = span("2026-11", &zone).expect("a month");
        assert_eq!((from.millis(), to.millis()), (1_793_462_400_000, 1_796_054_400_000));
        assert_eq!(span("2026-12", &zone).expect("the last one").0, to);
        for wrong in ["2026", "2026-13", "2026-1", "26-11", "2026-11-01", "x-y"] {
            assert!(span(wrong, &zone).is_none(), "{wrong}");
        }
    }
}
