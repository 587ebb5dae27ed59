//! Whether what a command is about is still as the person saw it. Held against the engine in the turn in which the command is
//! carried out: nothing comes between.

use anmin_rules::alarm::{Action, Refusal};
use anmin_rules::engine::Engine;

/// Refuses what is about something that has changed since. What is not there any more the engine itself refuses.
pub fn of_command(engine: &Engine, what: &Action, seen: Option<u32>) -> Result<(), Refusal> {
    let stands = match what {
        Action::Call { alarm, station, .. } => {
            engine.calls_of(*alarm).iter().find(|call| *call.station == **station).map(|call| call.seq)
        }
        Action::Incident { incident, .. } => engine.situation(*incident).map(|situation| situation.incident.seq),
        Action::Station { station, .. } => Some(engine.duty_of(station).0.seq),
        other => other.alarm().and_then(|alarm| engine.alarm(alarm)).map(|alarm| alarm.seq),
    };
    check(seen, stands)
}

pub fn check(seen: Option<u32>, stands: Option<u32>) -> Result<(), Refusal> {
    match (seen, stands) {
        (Some(seen), Some(stands)) if seen != stands => Err(Refusal::ChangedMeanwhile),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use anmin_rules::alarm::{AlarmId, Command};
    use anmin_rules::casework::{CaseKind, Stage};
    use anmin_rules::incident::{IncidentAction, IncidentId, NewCase};
    use anmin_rules::response::DeskSettings;
    use anmin_rules::rule::{Finding, Level, Text};
    use anmin_rules::set::RuleSet;
    use anmin_sensors::document::Faults;
    use anmin_sensors::point::Place;
    use anmin_sensors::time::{Mono, Now, Wall};
    use uuid::Uuid;

    use super::*;

    fn now(seconds: u64) -> Now {
        Now { mono: Mono::from_nanos(1), wall: Wall::from_millis(1_800_000_000_000) }.plus(Duration::from_secs(seconds))
    }

    /// What the main loop does with a command.
    fn give(engine: &mut Engine, seconds: u64, seen: Option<u32>, what: Action) -> Result<(), Refusal> {
        of_command(engine, &what, seen)?;
        engine.handle_command(now(seconds), Command { who: "li".to_owned(), what })
    }

    #[test]
    fn a_second_word_on_an_alarm_or_a_case_is_not_taken_over_a_first_that_its_speaker_has_not_seen() {
        let rules = RuleSet::load(Vec::new(), Vec::new(), &Faults::default());
        let mut engine = Engine::new(rules, DeskSettings::default(), 1);
        let finding = Finding { level: Level::Yellow, limit: None, note: None };
        engine.handle_part(now(1), "broker:site", Some((finding, Text::both("ill"))));
        let alarm = engine.alarms()[0].id;
        let seq = |engine: &Engine, alarm: AlarmId| engine.alarm(alarm).map(|alarm| alarm.seq);
        let out = |why: &str| Action::TakeOutOfService { alarm, why: why.to_owned() };
        let seen = seq(&engine, alarm);
        assert_eq!(give(&mut engine, 2, seen, out("li's")), Ok(()));
        assert_eq!(give(&mut engine, 3, seen, out("wang's")), Err(Refusal::ChangedMeanwhile));
        assert_eq!(
            give(&mut engine, 4, None, Action::ReturnToService { alarm }),
            Ok(()),
            "who names nothing is not held to it"
        );
        let seen = seq(&engine, alarm);
        assert_eq!(give(&mut engine, 5, seen, out("zhao's")), Ok(()));

        let incident = IncidentId(Uuid::from_u128(7));
        let what = NewCase {
            kind: CaseKind::Report,
            title: "a lamp".to_owned(),
            place: Place::default(),
            text: String::new(),
            owner: None,
        };
        assert_eq!(give(&mut engine, 6, None, Action::OpenCase { incident, what: Box::new(what) }), Ok(()));
        let seen = engine.situation(incident).map(|situation| situation.incident.seq);
        let stage = |stage: Stage| {
            let what = IncidentAction::Stage { stage, owner: None, text: String::new() };
            Action::Incident { incident, what }
        };
        assert_eq!(give(&mut engine, 7, seen, stage(Stage::Accepted)), Ok(()));
        assert_eq!(give(&mut engine, 8, seen, stage(Stage::FollowUp)), Err(Refusal::ChangedMeanwhile));
        // What is gone is refused as that, not as another.
        let gone = Action::Reset { alarm: AlarmId(Uuid::from_u128(9)) };
        assert!(matches!(give(&mut engine, 9, Some(1), gone), Err(Refusal::NoSuchAlarm(_))));
    }
}
