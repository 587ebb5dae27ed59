//! Numbers for rules, set at the duty desk: what has been set, what another number would have changed in the last days, and
//! setting it. Nothing is set blind, and nothing over what somebody else has set meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anmin_rules::rule::{Level, Text};
use anmin_sensors::time::Wall;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::api::{Answer, Desk, MOST_WHY, Told, words};
use super::guard::Caller;
use super::problem::Problem;
use super::wire::{LimitWire, ReloadedWire, TextWire, Writer};
use crate::config::tuned::{Change, SELECTORS};
use crate::store::audit::Deed;

/// Of how many days a trial may be, and of how many where nobody says.
const MOST_DAYS: u32 = 30;
const USUAL_DAYS: u32 = 7;

/// The site's files behind the desk. Called on blocking threads, from several at once; errors are shown to the asker.
pub trait Tuner: Send + Sync + 'static {
    /// What has been set at the desk.
    fn kept(&self) -> Result<Kept, NotTuned>;

    /// What the rule would have said otherwise over the last `span`.
    fn try_out(&self, change: &Change, span: Duration) -> Result<Trial, NotTuned>;

    /// Writes a change down if what is kept is still of this version and the whole site is sound with it; the rules in force
    /// have to be read anew. Gives what stood there before.
    fn keep(&self, change: &Change, version: &str) -> Result<String, NotTuned>;

    /// Undoes [`Tuner::keep`].
    fn put_back(&self, text: &str) -> Result<(), NotTuned>;
}

/// Why nothing was tried or set.
#[derive(Clone, Debug)]
pub enum NotTuned {
    /// The number or the site is not sound.
    Faults(Vec<String>),
    /// Somebody has set something since.
    Changed,
    /// Another trial runs.
    Busy,
    /// The trial took too long.
    TooMuch,
    /// A file cannot be read or written.
    Failed(String),
}

impl From<NotTuned> for Problem {
    fn from(not: NotTuned) -> Self {
        match not {
            NotTuned::Faults(faults) => Self::rules_refused(&faults),
            NotTuned::Changed => Self::new(
                StatusCode::CONFLICT,
                "changed_meanwhile",
                "限值已被他人修改，本次未采用",
                "somebody else has set limits meanwhile; nothing was set",
            )
            .hint("请重新载入并再次试算", "load them again, and try it out again"),
            NotTuned::Busy => Self {
                retry_after: 5,
                ..Self::new(StatusCode::CONFLICT, "in_progress", "另一次试算正在进行", "another trial is running")
            },
            NotTuned::TooMuch => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "too_much",
                "试算超过 60 秒，已停止",
                "the trial took longer than 60 s and was stopped",
            )
            .hint("请缩短天数", "try fewer days"),
            NotTuned::Failed(why) => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "not_tuned",
                format!("限值文件或历史数据无法读写：{why}"),
                format!("the file of limits, or the history, cannot be read or written: {why}"),
            ),
        }
    }
}

/// What has been set at the desk.
#[derive(Clone, Debug)]
pub struct Kept {
    pub version: String,
    pub overrides: Vec<TunedRule>,
}

/// Numbers of one rule, and for whom.
#[derive(Clone, Debug)]
pub struct TunedRule {
    pub rule: String,
    pub of: String,
    pub numbers: Vec<(String, f64)>,
}

/// What a change would have meant.
#[derive(Clone, Debug)]
pub struct Trial {
    pub from: Wall,
    pub to: Wall,
    pub readings: u64,
    /// The same, gained, lost, earlier, later, of another level.
    pub counts: [u64; 6],
    pub changed: Vec<Changed>,
}

#[derive(Clone, Debug)]
pub struct Changed {
    pub change: &'static str,
    pub subject: String,
    pub before: Option<Standing>,
    pub after: Option<Standing>,
}

#[derive(Clone, Debug)]
pub struct Standing {
    pub from: Wall,
    pub to: Option<Wall>,
    pub level: Level,
    pub message: Text,
}

/// What has been set at the desk.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TunedWire {
    /// Goes with the next change.
    pub version: String,
    pub overrides: Vec<TunedRuleWire>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TunedRuleWire {
    pub rule: String,
    pub of: String,
    pub numbers: Vec<LimitWire>,
}

/// What a change would have meant for the alarms of its rule.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TrialWire {
    pub from: String,
    pub to: String,
    pub readings: u64,
    pub same: u64,
    pub gained: u64,
    pub lost: u64,
    pub earlier: u64,
    pub later: u64,
    pub other_level: u64,
    /// The first 200.
    pub changed: Vec<TriedWire>,
    /// The version of what was set when it was tried: setting it wants that.
    pub version: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TriedWire {
    /// `gained`, `lost`, `earlier`, `later` or `other_level`.
    pub change: String,
    pub subject: String,
    /// `null` for one that is gained.
    pub before: Option<StandingWire>,
    /// `null` for one that is lost.
    pub after: Option<StandingWire>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct StandingWire {
    pub from: String,
    /// `null`: it stood to the end.
    pub to: Option<String>,
    pub level: String,
    pub message: TextWire,
}

impl TrialWire {
    fn new(writer: Writer<'_>, trial: &Trial, version: String) -> Self {
        let [same, gained, lost, earlier, later, other_level] = trial.counts;
        let standing = |each: &Standing| StandingWire {
            from: writer.at(each.from),
            to: each.to.map(|at| writer.at(at)),
            level: each.level.as_str().to_owned(),
            message: (&each.message).into(),
        };
        let tried = |each: &Changed| TriedWire {
            change: each.change.to_owned(),
            subject: each.subject.clone(),
            before: each.before.as_ref().map(standing),
            after: each.after.as_ref().map(standing),
        };
        Self {
            from: writer.at(trial.from),
            to: writer.at(trial.to),
            readings: trial.readings,
            same,
            gained,
            lost,
            earlier,
            later,
            other_level,
            changed: trial.changed.iter().map(tried).collect(),
            version,
        }
    }
}

/// Which rule, for whom, and which numbers.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangeBody {
    rule: String,
    /// `point`, `device`, `place`, `profile` or `kind`, and which; `*` stands for any letters. None: all that it judges.
    #[serde(default)]
    of: BTreeMap<String, String>,
    /// `limit.red`, `on_delay_s`, `off_delay_s`, `deadband`; `null` takes back what was set here.
    numbers: BTreeMap<String, Option<f64>>,
}

/// Numbers that one change may have.
const MOST_NUMBERS: usize = 32;

impl ChangeBody {
    fn read(self) -> Result<Change, Problem> {
        let Self { rule, of, numbers } = self;
        if numbers.is_empty() || numbers.len() > MOST_NUMBERS {
            return Err(Problem::bad_request(format_args!(
                "`numbers` names {}, expected 1 to {MOST_NUMBERS}",
                numbers.len()
            )));
        }
        if let Some(other) = of.keys().find(|key| !SELECTORS.contains(&key.as_str())) {
            let known = SELECTORS.join(", ");
            return Err(Problem::bad_request(format_args!("`of` has {other:?}, expected one of {known}")));
        }
        for word in of.values().chain([&rule]).chain(numbers.keys()) {
            words("change", word, 128)?;
        }
        Ok(Change { rule, of, numbers })
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TryBody {
    change: ChangeBody,
    /// 7 where nobody says, 30 at most.
    days: Option<u32>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SetBody {
    who: Option<String>,
    why: String,
    change: ChangeBody,
    /// Of the trial that was looked at.
    version: String,
}

impl Desk {
    async fn tuner<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Tuner) -> Result<T, NotTuned> + Send + 'static,
    ) -> Result<T, Problem> {
        let tuner = Arc::clone(&self.link.tuner);
        match tokio::task::spawn_blocking(move || work(&*tuner)).await {
            Ok(done) => Ok(done?),
            Err(_) => Err(Problem::busy()),
        }
    }
}

pub(super) async fn tuned(State(desk): State<Desk>) -> Answer<TunedWire> {
    let Kept { version, overrides } = desk.tuner(|tuner| tuner.kept()).await?;
    let wire = |TunedRule { rule, of, numbers }: TunedRule| TunedRuleWire {
        rule,
        of,
        numbers: numbers.into_iter().map(|(name, value)| LimitWire { name, value }).collect(),
    };
    Ok(Json(TunedWire { version, overrides: overrides.into_iter().map(wire).collect() }))
}

pub(super) async fn try_out(
    State(desk): State<Desk>,
    Told(TryBody { change, days }): Told<TryBody>,
) -> Answer<TrialWire> {
    let change = change.read()?;
    let days = days.unwrap_or(USUAL_DAYS);
    if !(1..=MOST_DAYS).contains(&days) {
        return Err(Problem::bad_request(format_args!("`days` is {days}, expected 1 to {MOST_DAYS}")));
    }
    let span = Duration::from_secs(u64::from(days) * 86_400);
    let tried = desk.tuner(move |tuner| Ok((tuner.kept()?.version, tuner.try_out(&change, span)?)));
    let (version, trial) = tried.await?;
    Ok(Json(TrialWire::new(desk.writer(), &trial, version)))
}

pub(super) async fn set(
    State(desk): State<Desk>,
    caller: Caller,
    Told(SetBody { who, why, change, version }): Told<SetBody>,
) -> Answer<ReloadedWire> {
    let (change, who) = (change.read()?, caller.name(who)?);
    let why = words("why", &why, MOST_WHY)?;
    // Who hangs up in the middle must not leave a file that is written and not in force.
    let work = tokio::spawn(async move {
        let numbers = json!(change.numbers);
        let mut deed = Deed {
            at: desk.link.clock.now().wall,
            who: who.clone(),
            from: caller.way.clone(),
            what: "rules.set".into(),
            about: change.rule.clone(),
            refused: None,
            detail: json!({ "of": change.of, "numbers": numbers, "why": why }),
        };
        // Until it is noted: who comes next is told of it.
        let _only = desk.setting.lock().await;
        let done = async {
            let was = match desk.tuner(move |tuner| tuner.keep(&change, &version)).await {
                Err(problem) if problem.code == "changed_meanwhile" => {
                    let by = desk.changed_by(|deed| deed.what == "rules.set", None).await;
                    return Err(Problem { hint: problem.hint, ..by });
                }
                was => was?,
            };
            let reloaded = desk.reload(who.clone(), caller.way.clone(), false).await;
            if reloaded.is_err() {
                let back = desk.tuner(move |tuner| tuner.put_back(&was)).await;
                if let Err(problem) = back {
                    tracing::error!("the file of limits could not be put back: {}", problem.error.en);
                }
                // One that was slow may have read the new file: what is in force is what the file says.
                let _ = desk.reload(who, caller.way, false).await;
            }
            reloaded
        };
        let done = done.await;
        deed.refused = done.as_ref().err().map(|problem| problem.error.clone());
        let (about, who) = (deed.about.clone(), deed.who.clone());
        if desk.note(deed).await.is_err() {
            // Whoever set it must hear what came of it all the same; that the rules were read anew is written by the main loop.
            tracing::error!(rule = %about, %who, "a limit was set at the desk, and it could not be written into the audit");
        }
        done
    });
    work.await.unwrap_or_else(|_| Err(Problem::busy())).map(Json)
}
