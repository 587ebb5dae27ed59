//! What keeps a command from undoing, unseen, what somebody else has done since its sender looked. A route that changes
//! something cannot be made without saying which of these it is.

use anmin_rules::alarm::{Action, Refusal};
use anmin_sensors::time::Wall;
use axum::http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};

use super::api::Desk;
use super::authority::Right;
use super::problem::Problem;
use crate::main_loop::Query;
use crate::store::audit::{Deed, Wanted};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    /// The header `If-Match` may name the `seq` of what was seen.
    IfMatch,
    /// The body names what was seen, or proves it: a version, a moment, a code, the old password.
    Seen,
    /// It makes something under a name that may be there once.
    Name,
    /// It makes something new or only adds; `Idempotency-Key` tells a second one from the first again.
    Key,
    /// Done twice it is as done once.
    Repeats,
}

impl Against {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IfMatch => "if_match",
            Self::Seen => "seen",
            Self::Name => "name",
            Self::Key => "key",
            Self::Repeats => "repeats",
        }
    }

    /// The headers that a route takes, for the OpenAPI document.
    pub(super) fn headers(self, right: Right) -> Vec<Value> {
        let header = |name: &str, words: &str, schema: Value| json!({ "name": name, "in": "header", "required": false, "description": words, "schema": schema });
        let mut found = Vec::new();
        if self == Self::IfMatch {
            let schema = json!({ "type": "string", "pattern": "^\"[0-9]+\"$" });
            found.push(header("If-Match", "The `seq` of what was seen, in quotes.", schema));
        }
        if right.keeps_keys() {
            let schema = json!({ "type": "string", "minLength": 1, "maxLength": 64 });
            found.push(header("Idempotency-Key", "The same again under the same key is done once.", schema));
        }
        found
    }
}

/// The `seq` that a command names.
pub(super) fn seen(headers: &HeaderMap) -> Result<Option<u32>, Problem> {
    let mut named = headers.get_all(header::IF_MATCH).iter();
    let Some(value) = named.next() else { return Ok(None) };
    let seq = value.to_str().ok().and_then(|value| value.strip_prefix('"')?.strip_suffix('"')?.parse().ok());
    match (seq, named.next()) {
        (Some(seq), None) => Ok(Some(seq)),
        _ => Err(Problem::bad_request("If-Match is not the `seq` of what was seen, in quotes, such as \"7\"")),
    }
}

/// Nobody may rely on a condition that is not looked at.
pub(super) fn refuse_unheeded(against: Option<Against>, headers: &HeaderMap) -> Result<(), Problem> {
    if against.is_some_and(|against| against != Against::IfMatch) && headers.contains_key(header::IF_MATCH) {
        return Err(Problem::bad_request("this command takes no If-Match; its reference says how it is guarded"));
    }
    Ok(())
}

/// Rows of the audit that are looked through for who it was.
const MOST_READ: usize = 500;

impl Desk {
    /// What a command was refused for; where something has changed since it was seen, with who changed it, as far as known.
    pub(super) async fn refused(&self, what: &Action, refusal: &Refusal) -> Problem {
        if *refusal != Refusal::ChangedMeanwhile {
            return Problem::refused(refusal);
        }
        let (about, at) = match (what, what.alarm()) {
            (Action::Incident { incident, .. }, _) => {
                let id = *incident;
                let view = self.ask(|reply| Query::Incident { id, reply }).await.ok().flatten();
                (vec![id.to_string()], view.map(|view| view.situation.incident.changed_at))
            }
            (Action::Station { station, .. }, _) => (vec![station.clone()], None),
            (_, None) => (Vec::new(), None),
            (_, Some(id)) => {
                let view = self.ask(|reply| Query::Alarm { id, reply }).await.ok().flatten();
                let mut about = vec![id.to_string()];
                about.extend(view.as_ref().and_then(|view| Some(view.alarm.incident?.to_string())));
                // Calls go on while the alarm stays as it is.
                let is_call = matches!(what, Action::Call { .. });
                (about, view.filter(|_| !is_call).map(|view| view.alarm.changed_at))
            }
        };
        self.changed_by(|deed| about.contains(&deed.about), at).await.precondition()
    }

    /// Something has changed since it was seen: the last one who did what `is` it. `at`: when it changed, where that is known;
    /// for what changed by itself then nobody is named.
    pub(super) async fn changed_by(&self, is: impl Fn(&Deed) -> bool, at: Option<Wall>) -> Problem {
        // Whoever did it a moment ago is named, and not the one before; where that cannot be known, nobody.
        if self.ask(|reply| Query::Audited { reply }).await.is_err() {
            return Problem::changed_meanwhile();
        }
        let read = self.archive(|archive| archive.audit(&Wanted::default(), MOST_READ)).await;
        let rows = read.unwrap_or_default();
        let deeds = rows.iter().filter_map(|row| row.deed.as_ref().ok());
        let last = deeds
            .filter(|deed| deed.refused.is_none() && is(deed) && !deed.what.ends_with(".read"))
            .find(|deed| at.is_none_or(|at| deed.at == at));
        match last {
            Some(deed) if deed.who != "anmin" => {
                // `2026-01-31T08:00:00.000+08:00`: of the day.
                let at = self.writer().at(deed.at);
                Problem::changed_by(&deed.who, at.get(11..19).unwrap_or(&at))
            }
            _ => Problem::changed_meanwhile(),
        }
    }
}

impl Problem {
    /// As of `If-Match` (RFC 9110, 13.1.1).
    pub(super) fn precondition(self) -> Self {
        Self { status: StatusCode::PRECONDITION_FAILED, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_match_is_one_number_in_quotes() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::IF_MATCH, value.parse().expect("plain text"));
            }
            seen(&headers).map_err(|problem| problem.code)
        };
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&["\"7\""]), Ok(Some(7)));
        for odd in [&["7"][..], &["*"], &["\"7\", \"8\""], &["W/\"7\""], &["\"-1\""], &["\"7\"", "\"7\""]] {
            assert_eq!(read(odd), Err("bad_request"), "{odd:?}");
        }
    }
}
