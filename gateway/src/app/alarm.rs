//! `anmin alarm`, `anmin call` and `anmin order`: what an officer does with alarms, calls and what could not be delivered,
//! from a terminal.
//!
//! A client of the running daemon, nothing more: it decides nothing, and what it does is in the journal like what is
//! done on the page. Exit codes: 0 done, 1 refused, 2 used wrongly, 3 the daemon cannot be reached.

use std::env;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anmin_rules::alarm::AlarmState;
use anmin_rules::order::CallState;
use anmin_rules::rule::Level;
use anmin_sensors::document::parse_duration;
use clap::{Args, Subcommand};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::explain;
use super::table::Table;
use crate::config;
use crate::report;
use crate::web::client::{Client, ClientError, Problem, url_of};
use crate::web::stations::{CrewLinkWire, NextWire};
use crate::web::wire::{
    AlarmViewWire, AlarmWire, AlarmsWire, ByWire, CallWire, DeadLetterWire, EvidenceWire, IncidentWire, ResentWire,
    TextWire, ValueWire,
};

const REFUSED: u8 = 1;
const USAGE: u8 = 2;
const UNREACHABLE: u8 = 3;

/// Where nobody says another.
const USUAL_URL: &str = "http://127.0.0.1:8420";

pub(super) const EXIT_CODES: &str = "Exit codes: 0 done, 1 refused or failed, 2 used wrongly, 3 the daemon cannot be reached.\n\
    The daemon is found by --url, else by --site, else by ANMIN_URL, else at http://127.0.0.1:8420.";

/// Which daemon, and how to show what it says.
#[derive(Debug, Args)]
pub struct Desk {
    /// Where the daemon listens, such as http://127.0.0.1:8420.
    #[arg(long, global = true)]
    url: Option<String>,
    /// The site's folder or configuration file: it says where the daemon listens and which token it asks for.
    #[arg(long, global = true)]
    pub(super) site: Option<PathBuf>,
    /// The file that holds the daemon's token.
    #[arg(long, global = true, env = "ANMIN_TOKEN_FILE", hide_env_values = true)]
    token_file: Option<PathBuf>,
    /// The API's JSON on one line instead of text for people; a refusal too, on standard error.
    #[arg(long, global = true)]
    json: bool,
}

impl Desk {
    /// The daemon of the site at `site`, unless `url` says where it is.
    pub fn of_site(site: &Path, url: Option<String>) -> Self {
        Self { url, site: Some(site.to_owned()), token_file: None, json: false }
    }
}

/// Who gives a command.
#[derive(Debug, Args)]
pub struct Who {
    /// Your name, as the journal will keep it; by default the login name.
    #[arg(long)]
    who: Option<String>,
}

/// `anmin alarm`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct AlarmOptions {
    #[command(flatten)]
    desk: Desk,
    #[command(subcommand)]
    command: AlarmCommand,
}

#[derive(Debug, Subcommand)]
enum AlarmCommand {
    /// Open alarms, the gravest first.
    List {
        /// Only from this level on.
        #[arg(long, value_name = "LEVEL", value_parser = ["blue", "yellow", "orange", "red"])]
        min_level: Option<String>,
        /// Only of this class: gas, fire, power, flood, ground, care, device or system.
        #[arg(long)]
        class: Option<String>,
        /// Only in this building.
        #[arg(long)]
        building: Option<String>,
    },
    /// One alarm with its calls and all that has happened to it; a closed one by its whole id.
    Show {
        #[command(flatten)]
        alarm: Alarm,
    },
    /// Say that you have seen it and take care of it.
    #[command(visible_alias = "acknowledge")]
    Ack {
        #[command(flatten)]
        alarm: Alarm,
        #[command(flatten)]
        who: Who,
    },
    /// Silence it for a while, with a reason.
    Shelve {
        #[command(flatten)]
        alarm: Alarm,
        /// How long, such as 30m or 2h; the site sets the most.
        #[arg(long = "for", value_name = "DURATION", value_parser = minutes)]
        minutes: u32,
        /// Why, for those who come after you.
        #[arg(long)]
        why: String,
        #[command(flatten)]
        who: Who,
    },
    /// End the silence early.
    Unshelve {
        #[command(flatten)]
        alarm: Alarm,
        #[command(flatten)]
        who: Who,
    },
    /// Take its escalation one step up now, without waiting for the clock.
    Escalate {
        #[command(flatten)]
        alarm: Alarm,
        /// Why, for those who are told and those who come after you.
        #[arg(long)]
        why: String,
        #[command(flatten)]
        who: Who,
    },
    /// Release the latch when the danger is over.
    Reset {
        #[command(flatten)]
        alarm: Alarm,
        #[command(flatten)]
        who: Who,
    },
    /// Take what it watches out of service, for repair, until somebody returns it.
    OutOfService {
        #[command(flatten)]
        alarm: Alarm,
        /// Why, for those who come after you.
        #[arg(long)]
        why: String,
        #[command(flatten)]
        who: Who,
    },
    /// Return it to service.
    ReturnToService {
        #[command(flatten)]
        alarm: Alarm,
        #[command(flatten)]
        who: Who,
    },
}

/// `anmin call`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct CallOptions {
    #[command(flatten)]
    desk: Desk,
    #[command(subcommand)]
    command: CallCommand,
}

#[derive(Debug, Subcommand)]
enum CallCommand {
    /// The stations that can be called for an alarm, in the order in which they would be, and whether they can respond.
    Stations {
        #[command(flatten)]
        alarm: Alarm,
    },
    /// Call a station by hand: one more, or one that anmin has not called by itself.
    New {
        #[command(flatten)]
        alarm: Alarm,
        /// The station's id.
        station: String,
        /// Why, for the crew and for those who come after you.
        #[arg(long)]
        why: String,
        /// Call it though it is off duty or not ready.
        #[arg(long)]
        insist: bool,
        #[command(flatten)]
        who: Who,
    },
    /// The station has heard it and comes.
    Accept(Called),
    /// The crew has set out.
    OnTheWay(Called),
    /// The crew is there.
    OnScene(Called),
    /// The danger is under control.
    UnderControl(Called),
    /// Nobody need come any more.
    StandDown(Called),
    /// The links by which the crew answers from a phone, one for each who was on duty when the station was called.
    Link {
        #[command(flatten)]
        alarm: Alarm,
        /// The station's id; needed where several stations are called for the alarm.
        station: Option<String>,
        /// Only of this member of the crew.
        #[arg(long)]
        member: Option<String>,
    },
    /// The station cannot come; the next one is called.
    Decline {
        #[command(flatten)]
        called: Called,
        /// Why, for those who come after you.
        #[arg(long)]
        why: String,
    },
}

/// `anmin order`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct OrderOptions {
    #[command(flatten)]
    desk: Desk,
    #[command(subcommand)]
    command: OrderCommand,
}

#[derive(Debug, Subcommand)]
enum OrderCommand {
    /// Dead letters: orders that their way out has refused and anmin has given up.
    List,
    /// Send one dead letter again, or all of a way out; under the ids that they had.
    Resend {
        /// The order's id, as `anmin order list` shows it.
        #[arg(required_unless_present = "way_out", conflicts_with = "way_out")]
        order: Option<String>,
        /// All dead letters of this way out.
        #[arg(long, value_name = "ID")]
        way_out: Option<String>,
        #[command(flatten)]
        who: Who,
    },
}

/// Which alarm.
#[derive(Debug, Args)]
pub(super) struct Alarm {
    /// The alarm's id, or as much of its beginning as no other open alarm shares.
    #[arg(value_name = "ALARM")]
    id: String,
}

/// Which call.
#[derive(Debug, Args)]
struct Called {
    #[command(flatten)]
    alarm: Alarm,
    /// The station's id; needed where several stations are called for the alarm.
    station: Option<String>,
    #[command(flatten)]
    who: Who,
}

pub(super) fn minutes(text: &str) -> Result<u32, String> {
    match parse_duration(text) {
        // A minute that has begun counts, so that nothing is shelved for no time at all.
        Some(wait) if !wait.is_zero() => u32::try_from(wait.as_nanos().div_ceil(Duration::from_secs(60).as_nanos()))
            .map_err(|error| error.to_string()),
        _ => Err("expected a duration such as 30m or 2h".to_owned()),
    }
}

pub fn alarm(options: AlarmOptions) -> ExitCode {
    run(&options.desk, |client| obey_alarm(client, options.command))
}

pub fn call(options: CallOptions) -> ExitCode {
    run(&options.desk, |client| obey_call(client, options.command))
}

pub fn order(options: OrderOptions) -> ExitCode {
    run(&options.desk, |client| obey_order(client, options.command))
}

/// What is said on standard output: the API's own words and, for people, lines.
pub(super) struct Said {
    pub json: Value,
    pub lines: Vec<String>,
}

/// Why a command failed.
pub(super) enum Failure {
    Client(ClientError),
    /// The configuration that `--site` names cannot be read.
    Site(String),
    /// Nothing, or more than one thing, is called so.
    Name {
        problem: Box<Problem>,
        candidates: Vec<String>,
    },
    /// Nobody says who gives the command.
    Nobody,
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

pub(super) fn run<'d, F>(desk: &'d Desk, obey: impl FnOnce(Client) -> F) -> ExitCode
where
    F: Future<Output = Result<Said, Failure>> + 'd,
{
    let done = connect(desk).and_then(|client| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::Site(format!("cannot start the runtime: {error}")))?;
        runtime.block_on(obey(client))
    });
    let said = match done {
        Ok(said) if desk.json => format!("{}\n", said.json),
        Ok(said) => said.lines.join("\n") + "\n",
        Err(failure) => return failure.tell(desk.json),
    };
    // A reader that has seen enough, such as `head`, is no failure of the command.
    let _ = io::stdout().write_all(said.as_bytes());
    ExitCode::SUCCESS
}

/// Writes what was asked for into a file that is not there yet.
pub(super) fn save(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let written = fs::File::create_new(path).and_then(|mut file| file.write_all(bytes));
    written.map_err(|error| Failure::Client(ClientError::Unusable(format!("{}: {error}", path.display()))))
}

fn connect(desk: &Desk) -> Result<Client, Failure> {
    let (site_url, site_token) = match &desk.site {
        Some(site) => {
            let (listen, token_file) = config::desk_of(site)
                .map_err(|faults| Failure::Site(faults.iter().map(|fault| format!("{fault}\n")).collect()))?;
            (Some(url_of(listen)), token_file)
        }
        None => (None, None),
    };
    let url = desk.url.clone().or(site_url).or_else(|| env::var("ANMIN_URL").ok().filter(|url| !url.is_empty()));
    let token_file = desk.token_file.clone().or(site_token);
    Ok(Client::new(url.as_deref().unwrap_or(USUAL_URL), token_file.as_deref())?)
}

async fn obey_alarm(client: Client, command: AlarmCommand) -> Result<Said, Failure> {
    let (alarm, action, mut body) = match command {
        AlarmCommand::List { min_level, class, building } => {
            return list(&client, &[("min_level", min_level), ("class", class), ("building", building)]).await;
        }
        AlarmCommand::Show { alarm } => return show(&client, &alarm).await,
        AlarmCommand::Ack { alarm, who } => (alarm, "acknowledge", json!({"who": who.name()?})),
        AlarmCommand::Unshelve { alarm, who } => (alarm, "unshelve", json!({"who": who.name()?})),
        AlarmCommand::Reset { alarm, who } => (alarm, "reset", json!({"who": who.name()?})),
        AlarmCommand::ReturnToService { alarm, who } => (alarm, "return-to-service", json!({"who": who.name()?})),
        AlarmCommand::OutOfService { alarm, why, who } => {
            (alarm, "out-of-service", json!({"who": who.name()?, "why": why}))
        }
        AlarmCommand::Escalate { alarm, why, who } => (alarm, "escalate", json!({"who": who.name()?, "why": why})),
        AlarmCommand::Shelve { alarm, minutes, why, who } => {
            (alarm, "shelve", json!({"who": who.name()?, "minutes": minutes, "why": why}))
        }
    };
    let id = alarm.resolve(&client).await?;
    if action == "escalate" {
        let next: NextWire = read(&client.get(&format!("/alarms/{id}/next")).await?)?;
        body["step"] = (next.escalation + 1).into();
    }
    let json = client.post(&format!("/alarms/{id}/{action}"), &body).await?;
    let view: AlarmViewWire = read(&json)?;
    let line = match &view.alarm {
        Some(alarm) => format!("{}：{} · {}", state(&alarm.state), alarm.message.zh, alarm.message.en),
        None => format!("报警已关闭 · the alarm is closed: {id}"),
    };
    Ok(Said { json, lines: vec![line] })
}

async fn obey_call(client: Client, command: CallCommand) -> Result<Said, Failure> {
    let (called, step, why) = match command {
        CallCommand::Link { alarm, station, member } => {
            return links(&client, &alarm, station, member.as_deref()).await;
        }
        CallCommand::Stations { alarm } => return callable(&client, &alarm).await,
        CallCommand::New { alarm, station, why, insist, who } => {
            let body = json!({"who": who.name()?, "station": station, "why": why, "insist": insist});
            let id = alarm.resolve(&client).await?;
            let json = client.post(&format!("/alarms/{id}/call-station"), &body).await?;
            let view: AlarmViewWire = read(&json)?;
            return Ok(Said { json, lines: calls(&view.calls) });
        }
        CallCommand::UnderControl(called) => (called, "under-control", None),
        CallCommand::Accept(called) => (called, "accept", None),
        CallCommand::OnTheWay(called) => (called, "on-the-way", None),
        CallCommand::OnScene(called) => (called, "on-scene", None),
        CallCommand::StandDown(called) => (called, "stand-down", None),
        CallCommand::Decline { called, why } => (called, "decline", Some(why)),
    };
    let mut body = json!({"who": called.who.name()?});
    if let Some(why) = why {
        body["why"] = why.into();
    }
    let id = called.alarm.resolve(&client).await?;
    let station = match called.station {
        Some(station) => station,
        None => only_station(&client, &id).await?,
    };
    let json = client.post(&format!("/alarms/{id}/calls/{}/{step}", segment(&station)), &body).await?;
    let view: AlarmViewWire = read(&json)?;
    Ok(Said { json, lines: calls(&view.calls) })
}

async fn callable(client: &Client, alarm: &Alarm) -> Result<Said, Failure> {
    let id = alarm.resolve(client).await?;
    let json = client.get(&format!("/alarms/{id}/next")).await?;
    let next: NextWire = read(&json)?;
    let mut table = Table::default();
    for station in &next.stations {
        let stands = match (&station.called, &station.unready) {
            (Some(state), _) => call_state(state),
            (None, Some(why)) => format!("{}\n{}", why.zh, why.en),
            (None, None) if station.elsewhere => "正在处置另一事件 at another incident".to_owned(),
            (None, None) => "能出动 ready".to_owned(),
        };
        table.row([station.id.clone(), both(&station.name), station.phone.clone(), stands]);
    }
    let mut lines = table.lines();
    let NextWire { escalation, last_escalation, .. } = next;
    lines.push(format!("升级 escalation: {escalation} / {last_escalation}"));
    Ok(Said { json, lines })
}

async fn links(client: &Client, alarm: &Alarm, station: Option<String>, member: Option<&str>) -> Result<Said, Failure> {
    let id = alarm.resolve(client).await?;
    let station = match station {
        Some(station) => station,
        None => only_station(client, &id).await?,
    };
    let json = client.get(&format!("/alarms/{id}/calls/{}/links", segment(&station))).await?;
    let links: Vec<CrewLinkWire> = read(&json)?;
    let mut table = Table::default();
    for link in links.iter().filter(|link| member.is_none_or(|member| link.member == member)) {
        let until = format!("有效至 good until {}", moment(&link.expires_at));
        table.row([link.name.clone(), format!("{}{}", client.url(), link.path), until]);
    }
    let lines = table.lines();
    if lines.is_empty() {
        let asked = member.unwrap_or_default();
        return Err(Failure::no_such(
            format!("呼叫时 {asked:?} 不在该站当班人员中"),
            format!("{asked:?} was not on duty when the station was called"),
        ));
    }
    Ok(Said { json, lines })
}

async fn obey_order(client: Client, command: OrderCommand) -> Result<Said, Failure> {
    match command {
        OrderCommand::List => {
            let json = client.get("/dead-letters").await?;
            let letters: Vec<DeadLetterWire> = read(&json)?;
            if letters.is_empty() {
                return Ok(Said { json, lines: vec!["没有死信 · no dead letters".to_owned()] });
            }
            let mut table = Table::default();
            table.row(["编号 ID", "级别 LEVEL", "时间 SINCE", "原因 WHY", "内容 MESSAGE"].map(str::to_owned));
            for letter in letters {
                let message = letter.message.map_or_else(
                    || "内容已损坏，无法重发\ndamaged, cannot be sent again".to_owned(),
                    |message| format!("{}\n{}", message.zh, message.en),
                );
                let level = letter.level.as_deref().map_or_else(String::new, level);
                table.row([letter.order, level, moment(&letter.at), letter.why, message]);
            }
            Ok(Said { json, lines: table.lines() })
        }
        OrderCommand::Resend { order, way_out, who } => {
            let body = match (order, way_out) {
                (Some(order), _) => json!({"who": who.name()?, "order": order}),
                (None, way_out) => json!({"who": who.name()?, "way_out": way_out}),
            };
            let json = client.post("/dead-letters/resend", &body).await?;
            let ResentWire { sent, over } = read(&json)?;
            let sent = sent.iter().map(|order| format!("已重新发送 · sent again: {order}"));
            let over = over.iter().map(|order| format!("已不再有效，未发送 · holds no longer, not sent: {order}"));
            let lines = sent.chain(over).collect();
            Ok(Said { json, lines })
        }
    }
}

async fn list(client: &Client, filter: &[(&str, Option<String>)]) -> Result<Said, Failure> {
    let asked: Vec<String> =
        filter.iter().filter_map(|(key, word)| Some(format!("{key}={}", segment(word.as_deref()?)))).collect();
    let json = open_alarms(client, &asked).await?;
    let found: AlarmsWire = read(&json)?;
    // A short id must do among all open alarms, not only among those that are shown.
    let ids: Vec<String> = if asked.is_empty() { ids(&found) } else { ids(&read(&open_alarms(client, &[]).await?)?) };
    let mut lines = table(&found, &ids).lines();
    if found.alarms.is_empty() {
        lines = vec!["没有未结束的报警 · no open alarms".to_owned()];
    }
    Ok(Said { json, lines })
}

/// All pages of the list as one.
pub(super) async fn open_alarms(client: &Client, asked: &[String]) -> Result<Value, Failure> {
    let mut whole: Option<Value> = None;
    let mut query = [&["limit=1000".to_owned()], asked].concat();
    loop {
        let mut page = client.get(&format!("/alarms?{}", query.join("&"))).await?;
        let next = page["next"].as_str().map(|next| format!("after={}", segment(next)));
        match &mut whole {
            None => whole = Some(page),
            Some(whole) => {
                for list in ["alarms", "calls"] {
                    if let (Some(all), Some(more)) = (whole[list].as_array_mut(), page[list].as_array_mut()) {
                        all.append(more);
                    }
                }
            }
        }
        let Some(next) = next else { break };
        query.truncate(1 + asked.len());
        query.push(next);
    }
    let mut whole = whole.unwrap_or_default();
    whole["next"] = Value::Null;
    Ok(whole)
}

fn ids(found: &AlarmsWire) -> Vec<String> {
    found.alarms.iter().map(|alarm| alarm.id.clone()).collect()
}

fn table(found: &AlarmsWire, ids: &[String]) -> Table {
    let mut table = Table::default();
    table.row(
        ["编号 ID", "级别 LEVEL", "状态 STATE", "发生 RAISED", "消防站 STATION", "内容 MESSAGE"].map(str::to_owned),
    );
    for alarm in &found.alarms {
        let station: Vec<String> = found
            .calls
            .iter()
            .filter(|call| call.alarm == alarm.id && (call.live || call.state == CallState::Unanswered.as_str()))
            .map(|call| format!("{} {}", call.station, call_state(&call.state)))
            .collect();
        table.row([
            short(&alarm.id, ids),
            level(&alarm.level),
            state(&alarm.state),
            moment(&alarm.raised_at),
            station.join("\n"),
            format!("{}\n{}", alarm.message.zh, alarm.message.en),
        ]);
    }
    table
}

/// As much of the beginning of `id` as tells it from the others, eight characters or more.
pub(super) fn short(id: &str, ids: &[String]) -> String {
    let shared = |other: &String| id.chars().zip(other.chars()).take_while(|(a, b)| a == b).count();
    let longest = ids.iter().filter(|other| *other != id).map(shared).max().unwrap_or(0);
    // Not to end at a dash, which looks as if more were to come.
    let wanted = (longest + 1).max(8);
    let end = if id.as_bytes().get(wanted - 1) == Some(&b'-') { wanted + 1 } else { wanted };
    id.chars().take(end).collect()
}

impl Alarm {
    /// The whole id. A whole one is believed, so that a closed alarm can be spoken of, too.
    pub(super) async fn resolve(&self, client: &Client) -> Result<String, Failure> {
        let given = self.id.trim().to_ascii_lowercase().replace('-', "");
        let named = |zh: String, en: String, candidates: Vec<String>| Failure::Name {
            problem: Box::new(Problem {
                code: if candidates.is_empty() { "no_such_alarm" } else { "ambiguous_id" }.to_owned(),
                error: TextWire { zh, en },
                hint: Some(TextWire {
                    zh: "所有编号见 `anmin alarm list`".to_owned(),
                    en: "`anmin alarm list` shows all ids".to_owned(),
                }),
            }),
            candidates,
        };
        if let Ok(id) = uuid::Uuid::try_parse(&given) {
            return Ok(id.to_string());
        }
        let shown = &self.id;
        if given.is_empty() || !given.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let zh = format!("{shown:?} 不是报警编号");
            return Err(named(zh, format!("{shown:?} is not the beginning of an alarm's id"), Vec::new()));
        }
        let open: AlarmsWire = read(&open_alarms(client, &[]).await?)?;
        let fits = |alarm: &&AlarmWire| alarm.id.replace('-', "").starts_with(&given);
        match open.alarms.iter().filter(fits).collect::<Vec<_>>()[..] {
            [one] => Ok(one.id.clone()),
            [] => Err(named(
                format!("没有编号以 {shown} 开头的未结束报警"),
                format!("there is no open alarm whose id begins with {shown}"),
                Vec::new(),
            )),
            ref several => {
                let ids: Vec<String> = several.iter().map(|alarm| alarm.id.clone()).collect();
                let alarms = several.iter().copied().cloned().collect();
                let found = AlarmsWire { alarms, ..open.clone() };
                Err(named(
                    format!("编号以 {shown} 开头的报警有 {} 个，请多写几位", several.len()),
                    format!("{} open alarms have ids that begin with {shown}; write more of it", several.len()),
                    table(&found, &ids).lines(),
                ))
            }
        }
    }
}

/// The station of an alarm's only call that is not over.
async fn only_station(client: &Client, id: &str) -> Result<String, Failure> {
    let view: AlarmViewWire = read(&client.get(&format!("/alarms/{id}")).await?)?;
    let live: Vec<&CallWire> = view.calls.iter().filter(|call| call.live).collect();
    let failure = |code: &str, zh: &str, en: &str, hint: Option<(&str, &str)>| Failure::Name {
        problem: Box::new(Problem {
            code: code.to_owned(),
            error: TextWire { zh: zh.to_owned(), en: en.to_owned() },
            hint: hint.map(|(zh, en)| TextWire { zh: zh.to_owned(), en: en.to_owned() }),
        }),
        candidates: calls(&view.calls),
    };
    match live[..] {
        [one] => Ok(one.station.clone()),
        [] => Err(failure("no_such_call", "该报警没有进行中的呼叫", "no station is on call for this alarm", None)),
        _ => Err(failure(
            "ambiguous_station",
            "就该报警呼叫了多个消防站",
            "several stations are called for this alarm",
            Some(("请在报警编号后写明消防站编号", "name the station after the alarm")),
        )),
    }
}

fn calls(calls: &[CallWire]) -> Vec<String> {
    let mut table = Table::default();
    for call in calls {
        let by = call.steps.last().map(|step| step.by.as_str()).unwrap_or_default();
        let late = if call.late { "超时 late" } else { "" };
        table.row([
            call.station.clone(),
            both(&call.station_names),
            call_state(&call.state),
            by.to_owned(),
            format!("应到场 due {}", moment(&call.arrive_by)),
            late.to_owned(),
        ]);
    }
    table.lines()
}

async fn show(client: &Client, alarm: &Alarm) -> Result<Said, Failure> {
    let id = alarm.resolve(client).await?;
    let history = client.get(&format!("/alarms/{id}/transitions")).await;
    let (mut json, closed) = match client.get(&format!("/alarms/{id}")).await {
        Ok(view) => (view, false),
        // Closed: what is left is its history, where there is one.
        Err(ClientError::Refused { status: 404, .. }) if history.is_ok() => (json!({"alarm": null, "calls": []}), true),
        Err(error) => return Err(error.into()),
    };
    let history = history.unwrap_or_else(|_| json!([]));
    let view: AlarmViewWire = read(&json)?;
    let rows: Vec<Row> = read(&history)?;
    json["history"] = history;

    let newest = rows.iter().rev().find_map(|row| row.transition.as_ref()).map(|change| &change.alarm);
    let mut lines = Vec::new();
    if let Some(alarm) = view.alarm.as_ref().or(newest) {
        lines.push(if closed {
            format!("{} · 已关闭 closed", level(&alarm.level))
        } else {
            format!("{} · {}", level(&alarm.level), state(&alarm.state))
        });
        lines.extend([alarm.message.zh.clone(), alarm.message.en.clone(), String::new()]);
        lines.extend(details(alarm).lines());
    }
    let of_last_verdict = || rows.iter().rev().find_map(|row| row.transition.as_ref()?.evidence.as_ref());
    if let Some(evidence) = view.evidence.as_ref().or_else(of_last_verdict) {
        lines.extend([String::new(), "依据 evidence".to_owned()]);
        lines.extend(explain::evidence(evidence).iter().map(|line| format!("  {line}")));
    }
    if !view.calls.is_empty() {
        lines.extend([String::new(), "呼叫 calls".to_owned()]);
        lines.extend(calls(&view.calls).iter().map(|line| format!("  {line}")));
    }
    if !rows.is_empty() {
        let mut table = Table::default();
        rows.iter().for_each(|row| row.put(&mut table));
        lines.extend([String::new(), "经过 history".to_owned()]);
        lines.extend(table.lines().iter().map(|line| format!("  {line}")));
    }
    Ok(Said { json, lines })
}

/// One row of the journal, as far as it is shown.
#[derive(Deserialize)]
pub(super) struct Row {
    transition: Option<TransitionRow>,
    call: Option<CallRow>,
    incident: Option<IncidentRow>,
    damaged: Option<String>,
}

#[derive(Deserialize)]
struct TransitionRow {
    at: String,
    cause: String,
    by: Option<String>,
    why: Option<String>,
    to: String,
    alarm: AlarmWire,
    evidence: Option<EvidenceWire>,
}

#[derive(Deserialize)]
struct CallRow {
    at: String,
    message: TextWire,
}

#[derive(Deserialize)]
struct IncidentRow {
    at: String,
    cause: String,
    by: Option<String>,
    step: Option<String>,
    incident: IncidentWire,
}

fn cause_of(word: &str) -> String {
    let zh = report::CAUSES.iter().find(|(known, _)| *known == word).map_or("", |(_, zh)| zh);
    format!("{zh} {}", word.replace('_', " ")).trim_start().to_owned()
}

impl Row {
    pub(super) fn put(&self, table: &mut Table) {
        if let Some(TransitionRow { at, cause, by, why, to, alarm, .. }) = &self.transition {
            let who = [by, why].into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join("：");
            table.row([moment(at), cause_of(cause), format!("{} · {}", level(&alarm.level), state(to)), who]);
        } else if let Some(CallRow { at, message }) = &self.call {
            table.row([moment(at), "呼叫 call".to_owned(), format!("{}\n{}", message.zh, message.en), String::new()]);
        } else if let Some(IncidentRow { at, cause, by, step, incident }) = &self.incident {
            let item = incident.checklist.iter().find(|item| Some(&item.id) == step.as_ref());
            let what = match item {
                Some(item) => both(&item.text),
                None => format!("{} · {}", level(&incident.peak), incident.title.zh),
            };
            table.row([moment(at), cause_of(cause), what, by.clone().unwrap_or_default()]);
        } else if let Some(damaged) = &self.damaged {
            table.row([String::new(), "损坏 damaged".to_owned(), damaged.clone(), String::new()]);
        }
    }
}

fn details(alarm: &AlarmWire) -> Table {
    let mut table = Table::default();
    let mut put = |name: &str, text: String| table.row([name.to_owned(), text]);
    put("编号 id", alarm.id.clone());
    put("规则 rule", format!("{}（{} · {}）", alarm.rule, alarm.title.zh, alarm.title.en));
    put("对象 subject", alarm.subject.clone());
    put("地点 place", format!("{} · {}", alarm.place.zh, alarm.place.en));
    if let Some(value) = &alarm.reading.value {
        let value = match value {
            ValueWire::Number(number) => number.to_string(),
            ValueWire::Flag(flag) => flag.to_string(),
            ValueWire::Text(text) => text.clone(),
        };
        let limit = alarm.reading.limit.as_ref();
        let limit = limit.map_or(String::new(), |limit| format!("，限值 limit {} {}", limit.name, limit.value));
        let at = alarm.reading.source_time.as_ref().unwrap_or(&alarm.reading.received);
        put("读数 reading", format!("{value} {}{limit}，{}", alarm.reading.unit, moment(at)));
    }
    let doubt =
        if alarm.clock_doubtful { "，当时本机时钟不可信 the clock of the box was in doubt" } else { "" };
    put("发生 raised", format!("{}{doubt}", moment(&alarm.raised_at)));
    let by = |by: &ByWire| format!("{}，{}", by.by, moment(&by.at));
    if let Some(who) = &alarm.acknowledged {
        put("确认 acknowledged", by(who));
    }
    if let Some(shelf) = &alarm.shelved {
        put("搁置 shelved", format!("至 until {}，{}：{}", moment(&shelf.until), shelf.by, shelf.why));
    }
    if let Some(who) = &alarm.out_of_service {
        put("停用 out of service", by(who));
    }
    if alarm.escalation > 0 {
        put("升级 escalated", alarm.escalation.to_string());
    }
    put("处置 advice", format!("{}\n{}", alarm.advice.zh, alarm.advice.en));
    table
}

impl Who {
    /// The person behind `sudo` rather than root.
    pub(super) fn name(self) -> Result<String, Failure> {
        self.known().ok_or(Failure::Nobody)
    }

    /// For what must be possible on a machine that knows nobody.
    pub(super) fn name_or_unknown(&self) -> String {
        self.known().unwrap_or_else(|| "unknown".to_owned())
    }

    fn known(&self) -> Option<String> {
        let login = || ["SUDO_USER", "LOGNAME", "USER"].iter().find_map(|name| env::var(name).ok());
        self.who.clone().or_else(login).filter(|who| !who.trim().is_empty())
    }
}

impl Failure {
    /// There is nothing of that name.
    pub(super) fn no_such(zh: String, en: String) -> Self {
        let problem = Problem { code: "not_found".to_owned(), error: TextWire { zh, en }, hint: None };
        Self::Name { problem: Box::new(problem), candidates: Vec::new() }
    }

    /// Says it on standard error, in both languages, with what to do next.
    fn tell(self, json: bool) -> ExitCode {
        let said = |zh: String, en: String| TextWire { zh, en };
        let (code, problem, lines) = match self {
            Self::Client(ClientError::Refused { url, status, problem }) => {
                (REFUSED, *problem, vec![format!("{url}: HTTP {status}")])
            }
            Self::Name { problem, candidates } => (REFUSED, *problem, candidates),
            Self::Client(ClientError::Unreachable { url, why }) => {
                let hint = said(
                    "anmin 是否在运行（systemctl status anmin）？其他地址用 --url 或 --site 指明".to_owned(),
                    "is anmin running (systemctl status anmin)? another address goes with --url or --site".to_owned(),
                );
                let error = said(format!("无法连接 {url}：{why}"), format!("cannot reach anmin at {url}: {why}"));
                (UNREACHABLE, Problem { code: "unreachable".to_owned(), error, hint: Some(hint) }, Vec::new())
            }
            Self::Client(ClientError::Unusable(why)) => {
                let error = said(format!("无法使用：{why}"), why);
                (USAGE, Problem { code: "usage".to_owned(), error, hint: None }, Vec::new())
            }
            Self::Site(why) => {
                let why = why.trim_end().to_owned();
                let error = said("站点配置有误".to_owned(), format!("the site's configuration cannot be used\n{why}"));
                (USAGE, Problem { code: "site".to_owned(), error, hint: None }, Vec::new())
            }
            Self::Nobody => {
                let error = said("不知道操作人是谁".to_owned(), "nobody says who gives the command".to_owned());
                let hint = said("请用 --who 写明姓名".to_owned(), "give your name with --who".to_owned());
                (USAGE, Problem { code: "usage".to_owned(), error, hint: Some(hint) }, Vec::new())
            }
        };
        if json {
            // Plain text in a plain struct: it becomes JSON.
            eprintln!("{}", serde_json::to_string(&problem).unwrap_or_default());
        } else {
            eprintln!("错误：{}", problem.error.zh);
            eprintln!("error: {}", problem.error.en);
            if let Some(hint) = &problem.hint {
                eprintln!("  提示：{}", hint.zh);
                eprintln!("  hint: {}", hint.en);
            }
            lines.iter().for_each(|line| eprintln!("  {line}"));
        }
        ExitCode::from(code)
    }
}

pub(super) fn read<T: DeserializeOwned>(json: &Value) -> Result<T, Failure> {
    T::deserialize(json).map_err(|error| {
        let why = format!("its answer cannot be read: {error}; is it of another version?");
        Failure::Client(ClientError::Unreachable { url: "the daemon".to_owned(), why })
    })
}

pub(super) fn level(word: &str) -> String {
    Level::named(word).map_or_else(|| word.to_owned(), |level| format!("{} {word}", level.zh()))
}

pub(super) fn state(word: &str) -> String {
    let known = AlarmState::ALL.into_iter().find(|state| state.as_str() == word);
    known.map_or_else(|| word.to_owned(), |state| format!("{} {}", state.zh(), word.replace('_', " ")))
}

fn call_state(word: &str) -> String {
    let known = CallState::ALL.into_iter().find(|state| state.as_str() == word);
    known.map_or_else(|| word.to_owned(), |state| format!("{} {}", state.zh(), word.replace('_', " ")))
}

/// One line where the words are the same in both languages.
pub(super) fn both(text: &TextWire) -> String {
    if text.zh == text.en { text.zh.clone() } else { format!("{}\n{}", text.zh, text.en) }
}

/// Month, day and time of day of an RFC 3339 moment, as the site's clocks show it.
pub(super) fn moment(text: &str) -> String {
    match (text.get(5..10), text.get(11..19)) {
        (Some(day), Some(time)) => format!("{day} {time}"),
        _ => text.to_owned(),
    }
}

/// One segment of a path, or a value of a query.
pub(super) fn segment(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_id_is_as_long_as_it_must_be() {
        let ids = ["0197b3c2-1a2b-7000", "0197b3c2-1a2c-7000", "0197b3c9-0000-7000", "0197c000-0000-7000"];
        let ids: Vec<String> = ids.map(str::to_owned).into();
        let shorts: Vec<String> = ids.iter().map(|id| short(id, &ids)).collect();
        assert_eq!(shorts, ["0197b3c2-1a2b", "0197b3c2-1a2c", "0197b3c9", "0197c000"]);
        let near = ["0197b3c2-1a2b", "0197b3c2-2a2b"].map(str::to_owned);
        assert_eq!(short(&near[0], &near), "0197b3c2-1");
        assert_eq!(short(&near[0], &near[..1]), "0197b3c2");
    }

    #[test]
    fn a_shelf_is_counted_in_minutes_begun() {
        for (text, wanted) in
            [("30m", Some(30)), ("2h", Some(120)), ("90s", Some(2)), ("1s", Some(1)), ("0s", None), ("30", None)]
        {
            assert_eq!(minutes(text).ok(), wanted, "{text}");
        }
    }

    #[test]
    fn a_name_is_made_fit_for_a_path() {
        for (text, wanted) in [("st-1", "st-1"), ("a/../b", "a%2F..%2Fb"), ("东", "%E4%B8%9C"), ("?x=1", "%3Fx%3D1")] {
            assert_eq!(segment(text), wanted);
        }
    }
}
