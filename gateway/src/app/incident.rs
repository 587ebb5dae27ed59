//! `anmin incident`: what an officer does with an incident, from a terminal. A client like [`super::alarm`].

use std::path::{Path, PathBuf};

use anmin_rules::casework::{CaseKind, Stage};
use anmin_rules::incident::{FalseCause, IncidentState, Outcome};
use anmin_rules::plan::Owner;
use anmin_rules::rule::Text;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::alarm::{Desk, EXIT_CODES, Failure, Row, Said, Who, level, moment, read, run, save, segment, short, state};
use super::table::Table;
use crate::package;
use crate::web::client::{Client, ClientError, Problem};
use crate::web::wire::{
    AlarmsWire, EndWire, IncidentViewWire, IncidentsWire, ItemWire, OutcomeWire, SituationWire, TextWire,
};

/// `anmin incident`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct IncidentOptions {
    #[command(flatten)]
    desk: Desk,
    #[command(subcommand)]
    command: IncidentCommand,
}

/// Where a case is that is opened by hand.
#[derive(Debug, Args)]
struct Where {
    #[arg(long, default_value = "")]
    area: String,
    #[arg(long, default_value = "")]
    building: String,
    #[arg(long, default_value = "")]
    unit: String,
    #[arg(long, default_value = "")]
    floor: String,
    #[arg(long, default_value = "")]
    room: String,
}

#[derive(Debug, Subcommand)]
enum IncidentCommand {
    /// Open incidents, the gravest first; with --closed those that have ended, the last first.
    List {
        /// Those that have ended.
        #[arg(long)]
        closed: bool,
        /// Ended ones in this building.
        #[arg(long, requires = "closed")]
        building: Option<String>,
        /// Ended ones that were this.
        #[arg(long, requires = "closed", value_parser = outcomes_of_all())]
        outcome: Option<String>,
        /// At most so many ended ones.
        #[arg(long, requires = "closed", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
    },
    /// One incident: what to do, its open alarms, and all that has happened.
    Show {
        #[command(flatten)]
        incident: Incident,
    },
    /// Acknowledge all its alarms that nobody has acknowledged.
    #[command(visible_alias = "acknowledge")]
    Ack {
        #[command(flatten)]
        incident: Incident,
        #[command(flatten)]
        who: Who,
    },
    /// Write something down for those who come after you.
    Note {
        #[command(flatten)]
        incident: Incident,
        text: String,
        /// Where a photo of it is: an address, or the name of a file in whatever keeps them. As often as needed.
        #[arg(long, value_name = "WHERE")]
        photo: Vec<String>,
        #[command(flatten)]
        who: Who,
    },
    /// A step of its checklist is done.
    Tick {
        #[command(flatten)]
        incident: Incident,
        /// The step's id, as `anmin incident show` tells it.
        step: String,
        #[command(flatten)]
        who: Who,
    },
    /// A step of its checklist need not be done.
    Skip {
        #[command(flatten)]
        incident: Incident,
        /// The step's id, as `anmin incident show` tells it.
        step: String,
        /// Why, for those who come after you.
        #[arg(long)]
        why: String,
        #[command(flatten)]
        who: Who,
    },
    /// Write down that you have called 119.
    #[command(name = "called-119")]
    Called119 {
        #[command(flatten)]
        incident: Incident,
        /// What matters of it, such as the number of the report.
        #[arg(default_value = "")]
        text: String,
        #[command(flatten)]
        who: Who,
    },
    /// Open a case that no alarm has opened: a quarrel, what a resident asks for, something to be repaired.
    Open {
        #[arg(value_parser = CaseKind::ALL.map(CaseKind::as_str))]
        kind: String,
        /// What it is about, in a line that names no resident.
        title: String,
        #[command(flatten)]
        place: Where,
        /// What was said; becomes its first note.
        #[arg(long, default_value = "")]
        text: String,
        /// Who sees to it; you, where nobody is named.
        #[arg(long)]
        owner: Option<String>,
        #[command(flatten)]
        who: Who,
    },
    /// Say how far a case has come.
    Stage {
        #[command(flatten)]
        incident: Incident,
        #[arg(value_parser = Stage::ALL.map(Stage::as_str))]
        stage: String,
        /// Who sees to it from now on.
        #[arg(long)]
        owner: Option<String>,
        /// For its notes.
        #[arg(long, default_value = "")]
        text: String,
        #[command(flatten)]
        who: Who,
    },
    /// Make it a part of another: its alarms and notes go there.
    Merge {
        #[command(flatten)]
        incident: Incident,
        /// The incident that takes them; an id like the first.
        into: String,
        #[command(flatten)]
        who: Who,
    },
    /// Make an incident of its own out of some of its open alarms.
    Split {
        #[command(flatten)]
        incident: Incident,
        /// The alarms to take out, by id or the beginning of it.
        #[arg(required = true, value_name = "ALARM")]
        alarms: Vec<String>,
        #[command(flatten)]
        who: Who,
    },
    /// Say what it was; what is over is acknowledged and reset with it. Refused while an alarm of it is active.
    Close {
        #[command(flatten)]
        incident: Incident,
        /// Of an emergency real, false_alarm, test or maintenance; of a case one that fits its kind.
        #[arg(value_parser = outcomes_of_people())]
        outcome: String,
        /// Of a false alarm: what gave it.
        #[arg(long, value_parser = FalseCause::ALL.map(FalseCause::as_str), required_if_eq("outcome", "false_alarm"))]
        cause: Option<String>,
        /// In your own words.
        #[arg(long, default_value = "")]
        why: String,
        #[command(flatten)]
        who: Who,
    },
    /// Write one incident with all its records into a package that proves itself: `anmin verify` checks it anywhere.
    Export {
        #[command(flatten)]
        incident: Incident,
        /// The package, a tar file that is not there yet.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Leave out people's names, telephone numbers and notes.
        #[arg(long)]
        masked: bool,
        #[command(flatten)]
        who: Who,
    },
    /// How incidents ended in a stretch of time: false alarms by their cause.
    Outcomes {
        /// From this moment on, such as 2026-01-01T00:00:00+08:00.
        #[arg(long)]
        from: Option<String>,
        /// Up to this moment.
        #[arg(long)]
        to: Option<String>,
    },
}

/// Which incident.
#[derive(Debug, Args)]
struct Incident {
    /// The incident's id, or as much of its beginning as no other open incident shares.
    #[arg(value_name = "INCIDENT")]
    id: String,
}

pub fn incident(options: IncidentOptions) -> std::process::ExitCode {
    run(&options.desk, |client| obey(client, options.command))
}

async fn obey(client: Client, command: IncidentCommand) -> Result<Said, Failure> {
    let (incident, action, body) = match command {
        IncidentCommand::List { closed: false, .. } => return list_open(&client).await,
        IncidentCommand::List { building, outcome, limit, .. } => {
            return list_closed(&client, &[("building", building), ("outcome", outcome)], limit).await;
        }
        IncidentCommand::Outcomes { from, to } => return outcomes(&client, &[("from", from), ("to", to)]).await,
        IncidentCommand::Show { incident } => return show(&client, &incident).await,
        IncidentCommand::Export { incident, out, masked, who } => {
            return export(&client, &incident, &out, masked, &who.name()?).await;
        }
        IncidentCommand::Ack { incident, who } => (incident, "acknowledge", json!({"who": who.name()?})),
        IncidentCommand::Note { incident, text, photo, who } => {
            (incident, "note", json!({"who": who.name()?, "text": text, "photos": photo}))
        }
        IncidentCommand::Tick { incident, step, who } => (incident, "tick", json!({"who": who.name()?, "step": step})),
        IncidentCommand::Skip { incident, step, why, who } => {
            (incident, "skip", json!({"who": who.name()?, "step": step, "why": why}))
        }
        IncidentCommand::Called119 { incident, text, who } => {
            (incident, "called-119", json!({"who": who.name()?, "text": text}))
        }
        IncidentCommand::Open { kind, title, place, text, owner, who } => {
            let Where { area, building, unit, floor, room } = place;
            let place = json!({"area": area, "building": building, "unit": unit, "floor": floor, "room": room});
            let who = who.name()?;
            let body = json!({"who": who, "kind": kind, "title": title, "place": place, "text": text, "owner": owner});
            return told(client.post("/incidents", &body).await?);
        }
        IncidentCommand::Stage { incident, stage, owner, text, who } => {
            (incident, "stage", json!({"who": who.name()?, "stage": stage, "owner": owner, "text": text}))
        }
        IncidentCommand::Merge { incident, into, who } => {
            let into = Incident { id: into }.resolve(&client).await?;
            (incident, "merge", json!({"who": who.name()?, "into": into}))
        }
        IncidentCommand::Split { incident, alarms, who } => {
            let open: AlarmsWire = read(&super::alarm::open_alarms(&client, &[]).await?)?;
            let ids: Vec<String> = open.alarms.into_iter().map(|alarm| alarm.id).collect();
            let alarms: Vec<String> =
                alarms.iter().map(|given| one_of(given, &ids, ALARM)).collect::<Result<_, _>>()?;
            (incident, "split", json!({"who": who.name()?, "alarms": alarms}))
        }
        IncidentCommand::Close { incident, outcome, cause, why, who } => {
            let mut body = json!({"who": who.name()?, "outcome": outcome, "why": why});
            if let Some(cause) = cause {
                body["cause"] = cause.into();
            }
            (incident, "close", body)
        }
    };
    let id = incident.resolve(&client).await?;
    told(client.post(&format!("/incidents/{id}/{action}"), &body).await?)
}

/// How the incident stands after it.
fn told(json: Value) -> Result<Said, Failure> {
    let view: IncidentViewWire = read(&json)?;
    let lines = head(&view.incident);
    Ok(Said { json, lines })
}

fn outcomes_of_all() -> Vec<&'static str> {
    let mut words = outcomes_of_people();
    words.extend(["drill", "unexplained"]);
    words
}

fn outcomes_of_people() -> Vec<&'static str> {
    let of_cases = CaseKind::ALL.iter().flat_map(|kind| kind.outcomes()).map(|outcome| outcome.as_str());
    let mut words = vec!["real", "false_alarm", "test", "maintenance"];
    for word in of_cases {
        if !words.contains(&word) {
            words.push(word);
        }
    }
    words
}

async fn export(client: &Client, incident: &Incident, out: &Path, masked: bool, who: &str) -> Result<Said, Failure> {
    let id = incident.resolve(client).await?;
    let masked = if masked { "yes" } else { "no" };
    let file = client.fetch(&format!("/incidents/{id}/archive?masked={masked}&who={}", segment(who))).await?;
    let found = package::verify(&file)
        .map_err(|damage| Failure::Client(ClientError::Unusable(format!("what came is not whole: {damage}"))))?;
    save(out, &file)?;
    let json = json!({ "file": out.display().to_string(), "incident": id, "seal": found.seal, "bytes": file.len() });
    let lines = vec![
        format!("已写入 written: {}", out.display()),
        format!("封印 seal: {}", found.seal),
        "请另行记下封印；审计记录中也有 · keep the seal apart from the file; it is in the audit, too".to_owned(),
    ];
    Ok(Said { json, lines })
}

async fn list_open(client: &Client) -> Result<Said, Failure> {
    let json = open(client).await?;
    let found: IncidentsWire = read(&json)?;
    if found.incidents.is_empty() {
        return Ok(Said { json, lines: vec!["没有未结案的事件 · no open incidents".to_owned()] });
    }
    let ids: Vec<String> = found.incidents.iter().map(|one| one.incident.id.clone()).collect();
    let mut table = Table::default();
    table.row(
        [
            "编号 ID",
            "级别 LEVEL",
            "状态 STATE",
            "开始 OPENED",
            "未结束/总数 OPEN/ALL",
            "未确认 UNSEEN",
            "事件 INCIDENT",
        ]
        .map(str::to_owned),
    );
    for one in &found.incidents {
        let incident = &one.incident;
        table.row([
            short(&incident.id, &ids),
            one.level.as_deref().map_or_else(|| format!("曾 was {}", level(&incident.peak)), level),
            incident_state(&incident.state),
            moment(&incident.opened_at),
            format!("{}/{}", one.open_alarms, incident.alarms),
            one.unacknowledged.to_string(),
            named(one),
        ]);
    }
    Ok(Said { json, lines: table.lines() })
}

async fn list_closed(client: &Client, filter: &[(&str, Option<String>)], limit: u16) -> Result<Said, Failure> {
    let json = client.get(&format!("/incidents?state=closed&limit={limit}{}", asked(filter))).await?;
    let found: IncidentsWire = read(&json)?;
    if found.incidents.is_empty() {
        return Ok(Said { json, lines: vec!["没有已结案的事件 · no closed incidents".to_owned()] });
    }
    let mut table = Table::default();
    table.row(
        ["编号 ID", "最高 PEAK", "结案 CLOSED", "性质 OUTCOME", "报警 ALARMS", "事件 INCIDENT"].map(str::to_owned),
    );
    for one in &found.incidents {
        let incident = &one.incident;
        let (at, how) = incident.end.as_ref().map_or_else(Default::default, |end| (moment(&end.at), ending(end)));
        table.row([incident.id.clone(), level(&incident.peak), at, how, incident.alarms.to_string(), named(one)]);
    }
    Ok(Said { json, lines: table.lines() })
}

async fn outcomes(client: &Client, span: &[(&str, Option<String>)]) -> Result<Said, Failure> {
    let json = client.get(&format!("/incidents/outcomes?{}", asked(span).trim_start_matches('&'))).await?;
    let found: Vec<OutcomeWire> = read(&json)?;
    if found.is_empty() {
        return Ok(Said {
            json, lines: vec!["该时段没有已结案的事件 · no incident closed in that time".to_owned()]
        });
    }
    let mut table = Table::default();
    table.row(["性质 OUTCOME", "原因 CAUSE", "事件 INCIDENTS"].map(str::to_owned));
    for one in found {
        table.row([
            outcome(&one.outcome),
            one.cause.as_deref().map_or_else(String::new, cause),
            one.incidents.to_string(),
        ]);
    }
    Ok(Said { json, lines: table.lines() })
}

async fn show(client: &Client, incident: &Incident) -> Result<Said, Failure> {
    let id = incident.resolve(client).await?;
    let mut json = client.get(&format!("/incidents/{id}")).await?;
    let view: IncidentViewWire = read(&json)?;
    let timeline = client.get(&format!("/incidents/{id}/timeline?limit=1000")).await?;
    let rows: Vec<Row> = read(&timeline)?;
    json["timeline"] = timeline;
    let mut lines = head(&view.incident);
    if !view.incident.advice.is_empty() {
        lines.extend([String::new(), "处置 what to do".to_owned()]);
        for (n, step) in view.incident.advice.iter().enumerate() {
            lines.extend([format!("  {}. {}", n + 1, step.zh), format!("     {}", step.en)]);
        }
    }
    if !view.alarms.is_empty() {
        let ids: Vec<String> = view.alarms.iter().map(|alarm| alarm.id.clone()).collect();
        let mut table = Table::default();
        for alarm in &view.alarms {
            let message = format!("{}\n{}", alarm.message.zh, alarm.message.en);
            table.row([short(&alarm.id, &ids), level(&alarm.level), state(&alarm.state), message]);
        }
        lines.extend([String::new(), "未结束报警 open alarms".to_owned()]);
        lines.extend(table.lines().iter().map(|line| format!("  {line}")));
    }
    let checklist = &view.incident.incident.checklist;
    if !checklist.is_empty() {
        let mut table = Table::default();
        for item in checklist {
            table.row([stand_of(item), item.id.clone(), owner_of(item), format!("{}\n{}", item.text.zh, item.text.en)]);
        }
        lines.extend([String::new(), "处置清单 checklist".to_owned()]);
        lines.extend(table.lines().iter().map(|line| format!("  {line}")));
    }
    let notes = &view.incident.incident.notes;
    if !notes.is_empty() {
        lines.extend([String::new(), "记录 notes".to_owned()]);
        for note in notes {
            lines.push(format!("  {}  {}：{}", moment(&note.at), note.by, note.text));
            lines.extend(note.photos.iter().map(|photo| format!("    照片 photo: {photo}")));
        }
    }
    let mut table = Table::default();
    rows.iter().rev().for_each(|row| row.put(&mut table));
    lines.extend([String::new(), "经过 history".to_owned()]);
    lines.extend(table.lines().iter().map(|line| format!("  {line}")));
    Ok(Said { json, lines })
}

/// How a step of the checklist stands.
fn stand_of(item: &ItemWire) -> String {
    let by = item.by.as_deref().unwrap_or_default();
    match (&item.done_at, &item.skipped, &item.due) {
        (Some(at), None, _) => format!("✓ {} {by}", moment(at)),
        (Some(at), Some(why), _) => format!("跳过 skipped {} {by}：{why}", moment(at)),
        (None, _, Some(due)) if item.late => format!("超时 late {}", moment(due)),
        (None, _, Some(due)) => format!("至 until {}", moment(due)),
        (None, _, None) => "待办 open".to_owned(),
    }
}

fn owner_of(item: &ItemWire) -> String {
    Owner::named(&item.owner).map_or_else(|| item.owner.clone(), |owner| format!("{} {}", owner.zh(), item.owner))
}

/// What it is and how it stands.
fn head(one: &SituationWire) -> Vec<String> {
    let incident = &one.incident;
    let worst = one.level.as_deref().unwrap_or(&incident.peak);
    let mut lines = vec![
        format!("{} · {} · {}", level(worst), incident_state(&incident.state), incident.id),
        format!("{} {}", incident.title.zh, incident.place.zh),
        format!("{}, {}", incident.title.en, incident.place.en),
        format!(
            "报警 alarms {}，未结束 open {}，未确认 unacknowledged {}",
            incident.alarms, one.open_alarms, one.unacknowledged
        ),
    ];
    if let Some(case) = &incident.case {
        let kind = CaseKind::named(&case.kind)
            .map_or_else(|| case.kind.clone(), |kind| format!("{} {}", kind.zh(), kind.en()));
        let stage = Stage::named(&case.stage)
            .map_or_else(|| case.stage.clone(), |stage| format!("{} {}", stage.zh(), stage.en()));
        lines.push(format!("{kind}：{stage}；经办 owner {}", case.owner.as_deref().unwrap_or("—")));
        lines.push(format!("阶段 stages {}；结案 outcomes {}", case.stages.join(", "), case.outcomes.join(", ")));
    }
    if let Some(note) = &incident.called_119 {
        lines.push(format!("已拨打119 119 called {}，{}：{}", moment(&note.at), note.by, note.text));
    }
    if let Some(at) = &incident.closes_at {
        lines.push(format!("自动结案 closes by itself {}", moment(at)));
    }
    if let Some(end) = &incident.end {
        lines.push(format!("{}，{}，{}", ending(end), end.by, moment(&end.at)));
    }
    lines
}

fn named(one: &SituationWire) -> String {
    let incident = &one.incident;
    let storm = if incident.storm { "（报警风暴 storm）" } else { "" };
    format!("{} {}{storm}\n{}, {}", incident.title.zh, incident.place.zh, incident.title.en, incident.place.en)
}

fn ending(end: &EndWire) -> String {
    let cause = end.cause.as_deref().map_or_else(String::new, |word| format!("：{}", cause(word)));
    let why = if end.why.is_empty() { String::new() } else { format!("（{}）", end.why) };
    format!("{}{cause}{why}", outcome(&end.outcome))
}

/// How an incident ended, and what gave a false alarm.
pub(super) fn ending_of(word: &str, because: Option<&str>) -> String {
    let because = because.map_or_else(String::new, |word| format!("：{}", cause(word)));
    format!("{}{because}", outcome(word))
}

fn outcome(word: &str) -> String {
    let zh = match (word, Outcome::named(word)) {
        (_, Some(outcome)) => outcome.zh(),
        ("false_alarm", _) => Outcome::FalseAlarm(FalseCause::Other).zh(),
        ("unexplained", _) => Outcome::Unexplained.zh(),
        ("drill", _) => Outcome::Drill.zh(),
        _ => return word.to_owned(),
    };
    format!("{zh} {}", word.replace('_', " "))
}

fn cause(word: &str) -> String {
    FalseCause::named(word).map_or_else(|| word.to_owned(), |cause| format!("{} {word}", cause.zh()))
}

fn incident_state(word: &str) -> String {
    let all = [IncidentState::Standing, IncidentState::Settled, IncidentState::Closed];
    let known = all.into_iter().find(|state| state.as_str() == word);
    known.map_or_else(|| word.to_owned(), |state| format!("{} {word}", state.zh()))
}

fn asked(filter: &[(&str, Option<String>)]) -> String {
    filter.iter().filter_map(|(key, word)| Some(format!("&{key}={}", segment(word.as_deref()?)))).collect()
}

/// All pages of the open ones as one.
async fn open(client: &Client) -> Result<Value, Failure> {
    let mut whole = client.get("/incidents?limit=1000").await?;
    while let Some(next) = whole["next"].as_str().map(str::to_owned) {
        let mut page = client.get(&format!("/incidents?limit=1000&cursor={}", segment(&next))).await?;
        whole["next"] = page["next"].take();
        if let (Some(all), Some(more)) = (whole["incidents"].as_array_mut(), page["incidents"].as_array_mut()) {
            all.append(more);
        }
    }
    Ok(whole)
}

impl Incident {
    /// The whole id. A whole one is believed, so that a closed incident can be spoken of, too.
    async fn resolve(&self, client: &Client) -> Result<String, Failure> {
        if let Ok(id) = uuid::Uuid::try_parse(self.id.trim()) {
            return Ok(id.to_string());
        }
        let found: IncidentsWire = read(&open(client).await?)?;
        let ids: Vec<String> = found.incidents.into_iter().map(|one| one.incident.id).collect();
        one_of(&self.id, &ids, INCIDENT)
    }
}

/// What an id stands for, and the word for it when there is none.
const INCIDENT: (&str, &str, &str) = ("no_such_incident", "未结案的事件", "open incident");
const ALARM: (&str, &str, &str) = ("no_such_alarm", "未结束的报警", "open alarm");

/// The only one of `ids` that begins with `given`, dashes or not.
fn one_of(given: &str, ids: &[String], (code, zh, en): (&str, &str, &str)) -> Result<String, Failure> {
    let start = given.trim().to_ascii_lowercase().replace('-', "");
    let fits: Vec<&String> =
        ids.iter().filter(|id| !start.is_empty() && id.replace('-', "").starts_with(&start)).collect();
    let text = match fits[..] {
        [one] => return Ok(one.clone()),
        [] => Text {
            zh: format!("没有编号以 {given:?} 开头的{zh}"),
            en: format!("there is no {en} whose id begins with {given:?}"),
        },
        _ => Text {
            zh: format!("编号以 {given:?} 开头的{zh}有 {} 个，请多写几位", fits.len()),
            en: format!("{} ids of an {en} begin with {given:?}; write more of it", fits.len()),
        },
    };
    let code = if fits.is_empty() { code } else { "ambiguous_id" };
    let problem = Problem { code: code.to_owned(), error: TextWire { zh: text.zh, en: text.en }, hint: None };
    Err(Failure::Name { problem: Box::new(problem), candidates: fits.into_iter().cloned().collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_named_by_as_much_of_it_as_no_other_shares() {
        let ids = ["0197b3c2-1a2b-7000", "0197b3c2-1a2c-7000"].map(str::to_owned);
        for (given, wanted) in [
            ("0197b3c2-1a2b", Ok(&ids[0])),
            ("0197B3C21A2C", Ok(&ids[1])),
            ("0197b3c2", Err("ambiguous_id")),
            ("1", Err("no_such_incident")),
            ("", Err("no_such_incident")),
        ] {
            let found = one_of(given, &ids, INCIDENT).map_err(|failure| match failure {
                Failure::Name { problem, .. } => problem.code,
                _ => String::new(),
            });
            assert_eq!(found.as_ref().map_err(String::as_str), wanted, "{given:?}");
        }
    }

    #[test]
    fn every_word_has_both_languages() {
        let words = ["real", "false_alarm", "test", "maintenance", "unexplained"].map(outcome);
        let causes = FalseCause::ALL.map(|known| cause(known.as_str()));
        let states = ["standing", "settled", "closed"].map(incident_state);
        for word in words.iter().chain(&causes).chain(&states) {
            assert!(!word.is_ascii() && word.contains(' '), "{word}");
        }
    }
}
