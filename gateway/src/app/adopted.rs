//! The list of devices that were taken in at the duty desk, with the site's files around it: judged by the parser of `run` and
//! `check`, and written beside the databases.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anmin_sensors::document::{Fault, Faults};

use super::devices::in_the_file;
use crate::config::adopted::{self, Change, Changed, List};
use crate::config::files::SiteFiles;
use crate::config::sheet::{Row, Sheet};
use crate::config::{self, Config, tuned};
use crate::web::devices::{Listed, Lister, NewPoint, NotListed, Planned, RowChange, SHEET, said_where};

/// The site's files and what is kept beside its databases.
pub struct Desk {
    pub site: PathBuf,
    pub storage: PathBuf,
    /// Held while the list is written.
    pub writing: Mutex<()>,
}

/// The site with its list as it stands.
struct Stand {
    files: SiteFiles,
    /// Of its files.
    faults: Vec<Fault>,
    text: String,
    list: List,
}

impl Desk {
    fn stand(&self) -> Result<Stand, NotListed> {
        let faults = Faults::default();
        let mut files = SiteFiles::gather(&self.site, &faults);
        files.tuned_in(&self.storage, &faults);
        let by_hand = config::devices_by_hand(&files);
        let text = adopted::read(&self.storage).map_err(|error| NotListed::Failed(error.to_string()))?;
        let list =
            List::new(&text, &by_hand).map_err(|faults| NotListed::Faults(faults.iter().map(said_where).collect()))?;
        Ok(Stand { files, faults: faults.take(), text, list })
    }

    /// What a change would make of it, and the text that would be kept.
    fn planned(&self, stand: Stand, change: &Change) -> (Planned, String) {
        let Stand { mut files, faults: mut found, text, list } = stand;
        let before = Planned { version: tuned::version(&text), ..Planned::default() };
        let Changed { sheet, unchanged } = match list.changed(SHEET, change) {
            Ok(changed) => changed,
            Err(faults) => return (Planned { faults, ..before }, text),
        };
        let changes = changes(&sheet, &list.sheet);
        if changes.is_empty() {
            return (Planned { unchanged, ..before }, text);
        }
        let (new, lines) = sheet.text();
        files.adopt(&self.storage, &new);
        let faults = Faults::default();
        let config = Config::parse(&files, &faults);
        let path = self.storage.join(adopted::FILE);
        let own = match change {
            Change::Import { sheet, .. } => sheet.clone(),
            Change::Adopt(_) | Change::Remove(_) => Sheet { columns: sheet.columns.clone(), rows: Vec::new() },
        };
        found.extend(faults.take());
        let found = found.into_iter().map(|fault| in_the_file(fault, SHEET, &path, (&sheet, &own), &lines));
        let faults: Vec<Fault> = found.collect();
        let points = config.as_ref().map(|config| new_points(config, &changes)).unwrap_or_default();
        (Planned { unchanged, changes, points, faults, ..before }, new)
    }
}

/// What differs from `before`, in the order of the list; what is gone stands last.
fn changes(sheet: &Sheet, before: &Sheet) -> Vec<RowChange> {
    let (olds, news) = (before.by_id(), sheet.by_id());
    let mut changes = Vec::new();
    for row in &sheet.rows {
        let id = sheet.id(row);
        let Some(old) = olds.get(id) else {
            changes.push(RowChange { id: id.to_owned(), change: "added", cells: Vec::new() });
            continue;
        };
        let pair = |key: &String| (key.clone(), before.cell(old, key).to_owned(), sheet.cell(row, key).to_owned());
        let cells: Vec<_> = sheet.columns.iter().map(pair).filter(|(_, from, to)| from != to).collect();
        if !cells.is_empty() {
            changes.push(RowChange { id: id.to_owned(), change: "changed", cells });
        }
    }
    let gone = |row: &&Row| !news.contains_key(before.id(row));
    let gone = before.rows.iter().filter(gone).map(|row| before.id(row).to_owned());
    changes.extend(gone.map(|id| RowChange { id, change: "removed", cells: Vec::new() }));
    changes
}

fn new_points(config: &Config, changes: &[RowChange]) -> Vec<NewPoint> {
    let points = &config.points;
    let added = changes.iter().filter(|change| change.change == "added");
    let devices = added.filter_map(|change| points.find_device(&change.id));
    devices
        .flat_map(|device| points.device(device).points())
        .map(|ix| points.point(ix))
        .map(|point| NewPoint { id: point.id.clone(), kind: point.spec.kind, alarm_point: point.spec.alarm_point })
        .collect()
}

impl Lister for Desk {
    fn list(&self) -> Result<Listed, NotListed> {
        let Stand { text, list, .. } = self.stand()?;
        Ok(Listed { version: tuned::version(&text), whole: list.whole(), sheet: list.sheet })
    }

    fn plan(&self, change: &Change) -> Result<Planned, NotListed> {
        Ok(self.planned(self.stand()?, change).0)
    }

    fn keep(&self, change: &Change, version: Option<&str>) -> Result<(Planned, Option<String>), NotListed> {
        let _only = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let stand = self.stand()?;
        let was = stand.text.clone();
        if version.is_some_and(|version| version != tuned::version(&was)) {
            return Err(NotListed::Changed);
        }
        let (planned, text) = self.planned(stand, change);
        if !planned.faults.is_empty() || planned.changes.is_empty() {
            return Ok((planned, None));
        }
        adopted::write(&self.storage, &text).map_err(|error| NotListed::Failed(error.to_string()))?;
        Ok((planned, Some(was)))
    }

    fn put_back(&self, text: &str) -> Result<(), NotListed> {
        let _only = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        adopted::write(&self.storage, text).map_err(|error| NotListed::Failed(error.to_string()))
    }
}
