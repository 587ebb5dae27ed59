//! The log in the form that its reader wants, chosen by `ANMIN_LOG`.
//!
//! | word | what |
//! |---|---|
//! | `plain` | sentences on standard error, with time and level; so it is unless something else is asked for |
//! | `json` | one JSON object a line on standard error: `time`, `severity`, `message`, and the fields of what happened |
//! | `journal` | to journald in its own words, each field as `ANMIN_RULE`, `ANMIN_LEVEL`, ...; `journal:PATH` for another socket |
//!
//! A word that is none of these, or a journal that is not there, gives `plain` and a line that says so.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::OnceLock;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber, warn};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::clock::Clock;

/// Where journald listens (systemd.io, "Native Journal Protocol").
const JOURNAL: &str = "/run/systemd/journal/socket";

/// What is said where neither `RUST_LOG` nor `[log]` says otherwise.
const USUAL_LEVEL: &str = "info";

/// Where what is said is chosen anew.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// From now on says what `[log] level` asks for. `RUST_LOG` comes first: it is for who looks for a fault.
pub fn set_log_level(level: Option<&str>) {
    if EnvFilter::try_from_default_env().is_err()
        && let Some(filter) = FILTER.get()
        && let Err(problem) = filter.reload(EnvFilter::new(level.unwrap_or(USUAL_LEVEL)))
    {
        warn!("the log says what it said before: {problem}");
    }
}

/// Starts the log. `RUST_LOG` chooses what is said; colours only on a terminal.
pub fn start_log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(USUAL_LEVEL));
    let (filter, chosen) = reload::Layer::new(filter);
    let asked = std::env::var("ANMIN_LOG").unwrap_or_default();
    let (layer, problem): (Box<dyn Layer<Registry> + Send + Sync>, Option<String>) = match Form::of(&asked) {
        Ok(form) => (Box::new(form), None),
        Err(problem) => {
            let plain = tracing_subscriber::fmt::layer()
                .with_writer(io::stderr)
                .with_ansi(io::stderr().is_terminal())
                .with_target(false);
            (Box::new(plain), problem)
        }
    };
    if tracing_subscriber::registry().with(layer.with_filter(filter)).try_init().is_err() {
        // A second start in one process (tests) keeps the first log.
        tracing::debug!("the log runs already");
    } else {
        // The first start, as the line above has found.
        let _ = FILTER.set(chosen);
    }
    if let Some(problem) = problem {
        warn!("{problem}; the log goes to standard error as sentences");
    }
}

/// For programs.
#[derive(Debug)]
enum Form {
    Json,
    Journal(UnixDatagram),
}

impl Form {
    /// What the word asks for; `Err` where it is plain, with the reason where somebody wanted something else.
    fn of(asked: &str) -> Result<Self, Option<String>> {
        let (word, path) = asked.split_once(':').unwrap_or((asked, JOURNAL));
        match word {
            "" | "plain" => Err(None),
            "json" => Ok(Self::Json),
            "journal" => {
                let path = PathBuf::from(path);
                let socket = UnixDatagram::unbound().and_then(|socket| socket.connect(&path).map(|()| socket));
                let why =
                    |error| Some(format!("ANMIN_LOG is {asked:?}, and {} cannot be reached: {error}", path.display()));
                socket.map(Self::Journal).map_err(why)
            }
            _ => Err(Some(format!("ANMIN_LOG is {asked:?}, expected plain, json or journal"))),
        }
    }
}

impl<S: Subscriber> Layer<S> for Form {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut said = Said::default();
        event.record(&mut said);
        let level = *event.metadata().level();
        match self {
            Self::Json => {
                let line = said.json(level);
                // Nobody can be told that standard error is closed.
                let _ = io::stderr().lock().write_all(line.as_bytes());
            }
            Self::Journal(socket) => {
                let entry = said.journal(level);
                if socket.send(&entry).is_err() {
                    // journald is started again, or the entry is larger than it takes: better a plain line than none.
                    let _ = io::stderr().lock().write_all(said.json(level).as_bytes());
                }
            }
        }
    }
}

/// One event: its sentence and its fields.
#[derive(Debug, Default)]
struct Said {
    message: String,
    fields: Map<String, Value>,
}

impl Said {
    fn json(&self, level: Level) -> String {
        let now = jiff::Timestamp::from_microsecond(Clock::system().now().wall.micros()).unwrap_or_default();
        let mut line = Map::new();
        line.insert("time".to_owned(), now.to_string().into());
        line.insert("severity".to_owned(), level.as_str().to_lowercase().into());
        line.insert("message".to_owned(), self.message.clone().into());
        line.extend(self.fields.clone());
        format!("{}\n", Value::Object(line))
    }

    fn journal(&self, level: Level) -> Vec<u8> {
        let priority = match level {
            Level::ERROR => "3",
            Level::WARN => "4",
            Level::INFO => "6",
            _ => "7",
        };
        let mut entry = Vec::new();
        let mut put = |key: &str, value: &str| {
            entry.extend_from_slice(key.as_bytes());
            // A value of one line follows the sign; any other has its length in front.
            if value.contains('\n') {
                entry.push(b'\n');
                entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
            } else {
                entry.push(b'=');
            }
            entry.extend_from_slice(value.as_bytes());
            entry.push(b'\n');
        };
        put("MESSAGE", &self.sentence());
        put("PRIORITY", priority);
        put("SYSLOG_IDENTIFIER", "anmin");
        for (name, value) in &self.fields {
            let name: String =
                name.to_uppercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
            match value {
                Value::String(text) => put(&format!("ANMIN_{name}"), text),
                other => put(&format!("ANMIN_{name}"), &other.to_string()),
            }
        }
        entry
    }

    /// As `plain` says it: who reads the journal as text sees the fields, too.
    fn sentence(&self) -> String {
        let mut sentence = self.message.clone();
        for (name, value) in &self.fields {
            // Writing into a text does not fail.
            let _ = write!(sentence, " {name}={value}");
        }
        sentence
    }

    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            (name, value) => drop(self.fields.insert(name.to_owned(), value)),
        }
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, Value::String(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_several_lines_has_its_length_in_front() {
        let mut said = Said { message: "it is raised".to_owned(), ..Said::default() };
        said.fields.insert("why".to_owned(), "a\nb".into());
        said.fields.insert("points".to_owned(), 7.into());
        let wanted = b"MESSAGE=it is raised points=7 why=\"a\\nb\"\nPRIORITY=4\nSYSLOG_IDENTIFIER=anmin\nANMIN_POINTS=7\nANMIN_WHY\n\x03\0\0\0\0\0\0\0a\nb\n";
        assert_eq!(String::from_utf8_lossy(&said.journal(Level::WARN)), String::from_utf8_lossy(wanted));
    }

    #[test]
    fn what_cannot_be_had_is_plain_and_said() {
        for (asked, part) in [
            ("", None),
            ("plain", None),
            ("xml", Some("expected plain, json or journal")),
            ("journal:/nowhere/x", Some("/nowhere/x")),
        ] {
            let problem = Form::of(asked).expect_err(asked);
            assert_eq!(problem.is_some(), part.is_some(), "{asked}: {problem:?}");
            assert!(problem.unwrap_or_default().contains(part.unwrap_or_default()), "{asked}");
        }
        assert!(matches!(Form::of("json"), Ok(Form::Json)));
    }
}
