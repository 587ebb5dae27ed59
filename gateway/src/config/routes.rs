//! Who hears of what: that spare ways out are some, and that nothing grave goes past everybody.

use std::collections::HashMap;

use anmin_rules::order::Channel;
use anmin_sensors::document::{Reader, did_you_mean};
use anmin_sensors::point::{Hazard, Place};

use crate::output;

/// Whether another hands on to it.
pub fn is_spare<'c>(channel: &Channel, mut others: impl Iterator<Item = &'c Channel>) -> bool {
    others.any(|other| other.then.contains(&channel.id))
}

/// That what `then` names is another way out of the same kind, with no `then` of its own.
pub fn check_spares(table: &str, tables: &[Reader<'_>], channels: &[&Channel]) {
    for r in tables {
        let id: String = r.optional("id").unwrap_or_default();
        for spare in r.or("then", Vec::<String>::new()) {
            let found = channels.iter().find(|channel| *channel.id == *spare);
            if spare == id || found.is_none() {
                let others = channels.iter().map(|channel| &*channel.id).filter(|other| *other != id);
                let message = format!("`then` names {spare:?}, which is no other [[{table}]]");
                r.fault("then", message, did_you_mean(&spare, others));
            } else if found.is_some_and(|channel| !channel.then.is_empty()) {
                let hint = "write all spares into the list of the first, in order".to_owned();
                r.fault("then", format!("`then` names {spare:?}, which has a `then` of its own"), Some(hint));
            }
        }
    }
}

/// That what is not reached or not answered in time can be handed on to somebody.
pub fn check_times(tables: &[Reader<'_>], channels: &[&Channel]) {
    for r in tables {
        let id: String = r.optional("id").unwrap_or_default();
        let Some(channel) = channels.iter().find(|channel| *channel.id == *id) else { continue };
        let hands_on = !channel.then.is_empty() || is_spare(channel, channels.iter().copied());
        for key in ["reached_within", "answered_within"] {
            if r.has(key) && !hands_on {
                let hint = "say by `then` who gets it instead".to_owned();
                r.fault(key, format!("`{key}` without `then`: nobody would get what is late"), Some(hint));
            }
        }
    }
}

/// That each siren's `output` is one that nothing keeps from sounding and falling silent, and no other siren's.
pub fn check_outputs<'o>(tables: &[Reader<'_>], outputs: impl Iterator<Item = &'o output::Settings> + Clone) {
    let mut taken: HashMap<String, String> = HashMap::new();
    for r in tables {
        let Some(name) = r.optional::<String>("output") else { continue };
        let fault = |message: String, hint: Option<String>| r.fault("output", message, hint);
        let Some(found) = outputs.clone().find(|output| *output.id == *name) else {
            let hint = did_you_mean(&name, outputs.clone().map(|output| &*output.id));
            fault(format!("`output` names {name:?}, which is no [[output]]"), hint);
            continue;
        };
        if found.may.len() < output::Action::ALL.len() {
            let hint = "an output without `may` can be switched both on and off".to_owned();
            fault(format!("`output` names {name:?}, which may not be switched both on and off"), Some(hint));
        }
        if !found.interlocks.is_empty() {
            let hint = "a siren that waits for a reading is silent when the sensor burns; give it an output of its own";
            fault(format!("`output` names {name:?}, which has an interlock"), Some(hint.to_owned()));
        }
        let id: String = r.optional("id").unwrap_or_default();
        if let Some(other) = taken.insert(name.clone(), id) {
            fault(format!("`output` names {name:?}, which siren {other:?} switches"), None);
        }
    }
}

/// Red dangers of which, as things are, people hear at the desk alone: none of these ways out is told when they begin. One line
/// for each hazard, with the places.
pub fn gaps<'p>(channels: &[&Channel], places: impl Iterator<Item = &'p Place> + Clone) -> Vec<String> {
    let general: Vec<&&Channel> = channels.iter().filter(|channel| channel.stations.is_empty()).collect();
    if general.is_empty() {
        return Vec::new();
    }
    let at_once = |channel: &&&Channel| channel.from_escalation == 0 && !is_spare(channel, channels.iter().copied());
    let first: Vec<&Channel> = general.into_iter().filter(at_once).copied().collect();
    let dangers = Hazard::ALL.into_iter().filter(|hazard| !matches!(hazard, Hazard::Care | Hazard::Device));
    let gap = |hazard: Hazard| {
        let goes_past = |place: &&Place| !first.iter().any(|channel| channel.reaches(hazard, place));
        let names: Vec<&str> = places.clone().filter(goes_past).map(|place| place.area.as_str()).collect();
        let places = match names.as_slice() {
            [] => return None,
            [some @ .., _] if some.len() >= 5 => format!("{} and {} more", names[..5].join(", "), names.len() - 5),
            _ => names.join(", "),
        };
        Some(format!("no [[notice]] or [[webhook]] is told at once of a red alarm ({}) at {places}", hazard.as_str()))
    };
    dangers.filter_map(gap).collect()
}

#[cfg(test)]
mod tests {
    use anmin_rules::order::ChannelForm;
    use anmin_rules::rule::Level;

    use super::*;

    #[test]
    fn a_danger_of_which_nobody_would_be_told_is_found() {
        let place = |area: &str, grid: &str| Place { area: area.into(), grid: grid.into(), ..Place::default() };
        let places = [place("b1", "G-1"), place("b2", "G-1"), place("b3", "G-2")];
        let channel = |id: &str| Channel::new(id, ChannelForm::Events, Level::Yellow);
        let with = |id: &str, areas: &[&str], classes: &[Hazard]| Channel {
            areas: areas.iter().map(|area| (*area).into()).collect(),
            classes: classes.to_vec(),
            ..channel(id)
        };
        let all = [Hazard::Gas, Hazard::Fire, Hazard::Power, Hazard::Flood, Hazard::Ground];
        for (channels, wanted) in [
            (vec![channel("duty")], vec![]),
            (vec![with("a", &["G-1"], &[]), with("b", &["b3"], &[])], vec![]),
            (vec![with("a", &["b1", "b3"], &[])], all.map(|hazard| (hazard, "b2")).to_vec()),
            (vec![with("a", &[], &all[..4]), with("b", &["G-2"], &[])], vec![(Hazard::Ground, "b1, b2")]),
            // Who is told later, or in another's place, or of calls alone, is not told at once.
            (
                vec![
                    with("a", &[], &all[1..]),
                    Channel { from_escalation: 1, ..channel("late") },
                    Channel { then: vec!["spare".into()], ..with("b", &["b1", "b2"], &[]) },
                    channel("spare"),
                    Channel { stations: vec!["st-1".into()], ..channel("crew") },
                ],
                vec![(Hazard::Gas, "b3")],
            ),
        ] {
            let found = gaps(&channels.iter().collect::<Vec<_>>(), places.iter());
            let wanted: Vec<String> =
                wanted.iter().map(|(hazard, at)| format!("({}) at {at}", hazard.as_str())).collect();
            assert_eq!(found.len(), wanted.len(), "{found:?}");
            for (found, wanted) in found.iter().zip(wanted) {
                assert!(found.ends_with(&wanted), "{found}, expected {wanted}");
            }
        }
    }
}
