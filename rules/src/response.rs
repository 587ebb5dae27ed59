//! From transitions to orders: station calls with their clocks, events and CAP messages for the ways out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::order::{Channel, Station};
use crate::rule::Level;

/// Everything about people and ways out that the engine must know.
#[derive(Clone, Debug, PartialEq)]
pub struct DeskSettings {
    /// The site's id: the first part of every CAP identifier.
    pub site: String,
    /// In the order of the configuration: who is called where a place names no station.
    pub stations: Vec<Station>,
    /// For each `Place.area` the ids of its stations in the order in which they are called: its own, then neighbours.
    pub areas: BTreeMap<String, Vec<Arc<str>>>,
    /// A hazard at or above this level calls the station.
    pub call_level: Level,
    pub channels: Vec<Channel>,
    /// Longest time on the shelf; half an hour at most is the practice for red.
    pub max_shelve: Duration,
    pub max_shelve_red: Duration,
    /// A point may give unusable values for so long before anybody is told.
    pub bad_grace: Duration,
    /// A system alarm of orange or red that nobody acknowledges escalates after so long.
    pub system_escalate_after: Option<Duration>,
}

impl Default for DeskSettings {
    fn default() -> Self {
        Self {
            site: "site".to_owned(),
            stations: Vec::new(),
            areas: BTreeMap::new(),
            call_level: Level::Orange,
            channels: Vec::new(),
            max_shelve: Duration::from_secs(4 * 3600),
            max_shelve_red: Duration::from_secs(1800),
            bad_grace: Duration::from_secs(60),
            system_escalate_after: Some(Duration::from_secs(300)),
        }
    }
}
