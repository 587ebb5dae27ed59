//! `anmin probe mqtt`: what is published at a broker, and the mappings that would take it in.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anmin_sensors::document::{Document, Faults, parse_duration};
use anmin_sensors::profile::Profiles;
use anmin_sensors::survey::{Proposal as Mapping, Survey, apart, quoted};
use clap::Args;
use rumqttc::QoS;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::Proposal;
use crate::app::daemon::runtime;
use crate::app::table::Table;
use crate::clock::Clock;
use crate::intake::mqtt::{Discard, Outbox, Settings, spawn};
use crate::main_loop::Input;

/// `#` leaves out what begins with `$`, and these platforms begin with it.
const FILTERS: [&str; 4] = ["#", "$sys/#", "$oc/#", "$thing/#"];
/// Characters of a payload in one line.
const SHOWN: usize = 60;
/// Batches that wait while one is looked at; then the broker is not read.
const WAITING: usize = 64;

/// `anmin probe mqtt`.
#[derive(Debug, Args)]
#[command(
    after_help = "Subscribes to everything that its account may read, with a session of its own that the broker does not keep, and \
    publishes nothing. Devices that speak seldom need a longer --for."
)]
pub struct Options {
    /// mqtt://HOST[:PORT] or mqtts://HOST[:PORT].
    url: String,
    /// How long to listen.
    #[arg(long = "for", default_value = "30s", value_parser = duration, value_name = "DURATION")]
    listen: Duration,
    /// Only these topics, instead of all.
    #[arg(long, value_name = "FILTER")]
    topic: Vec<String>,
    #[arg(long, requires = "password_file")]
    username: Option<String>,
    #[arg(long, requires = "username", value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// The authorities to trust with mqtts, in PEM; those of this machine where nobody says.
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// The name of the broker in the proposal.
    #[arg(long, default_value = "site", value_parser = super::id)]
    id: String,
    /// Write the proposal into this site, once you have said yes.
    #[arg(long, value_name = "SITE")]
    write: Option<PathBuf>,
}

fn duration(text: &str) -> Result<Duration, String> {
    let range = Duration::from_secs(1)..=Duration::from_secs(24 * 3_600);
    parse_duration(text).filter(|wait| range.contains(wait)).ok_or_else(|| format!("{text:?} is not from 1s to 24h"))
}

impl Options {
    /// The `[[mqtt]]` of the proposal, without its mappings. Paths stand from the root, wherever it is written.
    fn broker(&self) -> Result<String, String> {
        let mut text = format!("[[mqtt]]\nid = {}\nurl = {}\n", quoted(&self.id), quoted(&self.url));
        let mut put = |key: &str, value: &str| text.push_str(&format!("{key} = {}\n", quoted(value)));
        if let Some(username) = &self.username {
            put("username", username);
        }
        for (key, path) in [("password_file", &self.password_file), ("tls_ca", &self.tls_ca)] {
            let Some(path) = path else { continue };
            let whole = std::fs::canonicalize(path).map_err(|error| format!("{}: {error}", path.display()))?;
            put(key, &whole.display().to_string());
        }
        Ok(text)
    }

    fn settings(&self, broker: &str) -> Result<Settings, String> {
        let text = format!("{}clean_session = true\n", broker.trim_start_matches("[[mqtt]]\n"));
        let faults = Faults::default();
        let settings = Document::parse("the command line", &text, &faults)
            .and_then(|document| Settings::read(&document.root(&faults), Path::new("/")));
        settings.map(|settings| settings.or_client_id(&format!("probe-{}", std::process::id()))).ok_or_else(|| {
            let found: Vec<String> = faults.take().into_iter().map(|fault| fault.message).collect();
            found.join("; ")
        })
    }
}

pub fn run(options: &Options) -> Result<(), String> {
    let broker = options.broker()?;
    let settings = options.settings(&broker)?;
    let survey = runtime()?.block_on(listen(options, settings))?;
    let proposals = survey.proposals(&Profiles::shipped());
    if proposals.is_empty() {
        return Err(format!("nothing was published within {} s; listen longer with --for", options.listen.as_secs()));
    }
    say(&survey, &proposals);
    let mut text = String::new();
    for (n, group) in apart(proposals).into_iter().enumerate() {
        if n == 0 {
            text.push_str(&format!("{broker}\n"));
        } else {
            // Mappings of one broker may not share topics: what would goes over a connection of its own.
            let named = |id: &str| format!("id = {}\n", quoted(id));
            let other = format!("{}-{}", options.id, n + 1);
            text.push_str(&format!("{}\n", broker.replacen(&named(&options.id), &named(&other), 1)));
        }
        for Mapping { topics, keys, example, profile, alike, .. } in &group {
            let first = example.0.replace(char::is_control, " ");
            text.push_str(&format!("  # {topics} topics such as {first}\n"));
            if !alike.is_empty() && !keys.contains("points") {
                text.push_str(&format!("  # read alike by {}: name the right one as `profile`\n", alike.join(", ")));
            } else if profile.is_none() && !keys.contains("points") && !keys.contains("preset") {
                text.push_str(
                    "  # nothing here reads it: give it a `profile` of yours; until then its devices are listed\n",
                );
            }
            text.push_str("  [[mqtt.mapping]]\n");
            keys.lines().for_each(|line| text.push_str(&format!("  {line}\n")));
            text.push('\n');
        }
    }
    let proposal = Proposal { files: vec![(format!("anmin.d/{}.toml", options.id).into(), text)] };
    proposal.show();
    match &options.write {
        Some(site) => proposal.write(site),
        None => Ok(()),
    }
}

async fn listen(options: &Options, settings: Settings) -> Result<Survey, String> {
    let filters: Vec<(String, QoS)> = if options.topic.is_empty() {
        FILTERS.map(|filter| (filter.to_owned(), QoS::AtMostOnce)).to_vec()
    } else {
        options.topic.iter().map(|filter| (filter.clone(), QoS::AtMostOnce)).collect()
    };
    let (inputs, mut heard) = mpsc::channel(WAITING);
    let task = spawn(settings, filters, Clock::system(), inputs, Discard::default(), Outbox::default());
    let until = Instant::now() + options.listen;
    let (mut survey, mut reached, mut trouble) = (Survey::default(), false, None);
    while let Ok(Some(input)) = timeout(until.saturating_duration_since(Instant::now()), heard.recv()).await {
        match input {
            Input::Messages { messages, .. } => {
                reached = true;
                for message in messages {
                    survey.handle(&message.topic, &message.payload);
                    if let Some(ack) = message.ack {
                        ack.done();
                    }
                }
            }
            Input::Session(_) => reached = true,
            Input::Part(state) => trouble = state.trouble.map(|trouble| trouble.message.en),
            _ => {}
        }
        if !reached && let Some(trouble) = trouble {
            task.abort();
            return Err(trouble);
        }
    }
    task.abort();
    if reached { Ok(survey) } else { Err(format!("{} does not answer", options.url)) }
}

fn say(survey: &Survey, proposals: &[Mapping]) {
    println!("{} 个主题 topics", survey.len());
    if survey.left_out > 0 {
        println!("另有 {} 条消息的主题未计入 · messages of further topics are left out", survey.left_out);
    }
    let mut rows = Table::default();
    let head = ["格式 FORMAT", "主题 TOPICS", "消息 MESSAGES", "型号文件 PROFILE", "例 EXAMPLE", "内容 PAYLOAD"];
    rows.row(head.map(str::to_owned));
    for Mapping { what, topics, messages, example: (topic, payload), profile, .. } in proposals {
        // Escaped: whatever a device sends must not reach the terminal as it is.
        let start: String = payload.chars().take(SHOWN).collect();
        let topic: String = topic.chars().take(SHOWN).flat_map(char::escape_debug).collect();
        let profile = profile.clone().unwrap_or_default();
        rows.row([(*what).to_owned(), topics.to_string(), messages.to_string(), profile, topic, format!("{start:?}")]);
    }
    rows.lines().iter().for_each(|line| println!("{line}"));
}
