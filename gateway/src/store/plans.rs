//! What plans, and which configurations, have been in force, in state.db: one record of the table of [`super::registers`] for each
//! time at which one began, changed or went, under the plan's id and the moment.

use anmin_sensors::time::Wall;
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::registers;

const KIND: &str = "plan";
const CONFIGURATION: &str = "config";

/// A plan as it came into force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    pub plan: String,
    #[serde(with = "micros")]
    pub at: Wall,
    /// Of its content; `None`: it went.
    pub hash: Option<String>,
    /// Whoever had the site read anew; `anmin` at a start.
    pub by: String,
    pub version: String,
    pub approved_by: Option<String>,
    pub approved_on: Option<String>,
}

impl Revision {
    /// The plan's id, which holds no line break, and the moment in digits that sort.
    pub(super) fn key(&self) -> String {
        format!("{}\n{:020}", self.plan, self.at.micros())
    }
}

pub(super) fn write(tx: &Connection, revision: &Revision) -> rusqlite::Result<()> {
    let cells = serde_json::to_string(revision).expect("texts and numbers are JSON");
    registers::put(tx, KIND, &revision.key(), &cells)
}

pub(super) fn write_configuration(tx: &Connection, at: Wall, sha256: &str) -> rusqlite::Result<()> {
    registers::put(tx, CONFIGURATION, &format!("{:020}", at.micros()), sha256)
}

/// The configurations that were in force between two moments, each with since when, the oldest first.
pub(super) fn configurations(conn: &Connection, from: Wall, to: Wall) -> rusqlite::Result<Vec<(Wall, String)>> {
    let mut found: Vec<(Wall, String)> = Vec::new();
    for (id, sha256) in registers::records(conn, CONFIGURATION, "")? {
        let Some(at) = id.parse().ok().map(Wall::from_micros).filter(|at| *at <= to) else { continue };
        if at <= from {
            found.clear();
        }
        // A start that changed nothing is no other configuration.
        if found.last().is_none_or(|(_, last)| *last != sha256) {
            found.push((at, sha256));
        }
    }
    Ok(found)
}

mod micros {
    use super::{Deserialize as _, Wall};

    pub fn serialize<S: serde::Serializer>(at: &Wall, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_i64(at.micros())
    }

    pub fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Wall, D::Error> {
        i64::deserialize(from).map(Wall::from_micros)
    }
}

/// All of them, of each plan the oldest first.
pub(super) fn all(conn: &Connection) -> rusqlite::Result<Vec<Revision>> {
    let records = registers::records(conn, KIND, "")?.into_iter();
    Ok(records.filter_map(|(_, cells)| serde_json::from_str(&cells).ok()).collect())
}
