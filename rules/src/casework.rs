//! Casework: incidents that are no emergency. A quarrel about noise, what a resident asks for, something to be repaired:
//! the same object, its notes, checklist and record, but with states of its own that a person moves it through.
//!
//! A rule may say that what it finds is a case (`opens = "mediation"`); faults of devices are maintenance orders by
//! themselves; anybody at the desk opens one by hand. A case that somebody has taken on stays open until that person says
//! how it ended: nothing closes it in silence. This module does not know alarms, clocks or stations.

use crate::incident::Outcome;

/// What it is, if no emergency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CaseKind {
    /// Neighbours who disturb one another (调解).
    Mediation,
    /// What a resident says or asks for (居民诉求).
    Report,
    /// Something to be repaired (维修工单).
    Maintenance,
    /// What is to be made ready because an office warns (预警响应).
    Precaution,
}

impl CaseKind {
    pub const ALL: [Self; 4] = [Self::Mediation, Self::Report, Self::Maintenance, Self::Precaution];

    /// For `Reader::choice`.
    pub const CHOICES: [(&'static str, Self); 4] = [
        ("mediation", Self::Mediation),
        ("report", Self::Report),
        ("maintenance", Self::Maintenance),
        ("precaution", Self::Precaution),
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mediation => "mediation",
            Self::Report => "report",
            Self::Maintenance => "maintenance",
            Self::Precaution => "precaution",
        }
    }

    pub const fn zh(self) -> &'static str {
        match self {
            Self::Mediation => "矛盾调解",
            Self::Report => "居民诉求",
            Self::Maintenance => "维修工单",
            Self::Precaution => "预警响应",
        }
    }

    pub const fn en(self) -> &'static str {
        match self {
            Self::Mediation => "mediation",
            Self::Report => "resident's report",
            Self::Maintenance => "maintenance order",
            Self::Precaution => "response to a warning",
        }
    }

    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// Its states, in the order in which one comes after the other; a person may go back.
    pub const fn stages(self) -> &'static [Stage] {
        match self {
            Self::Mediation => &[Stage::New, Stage::Dissuading, Stage::Mediating, Stage::FollowUp],
            Self::Report => &[Stage::New, Stage::Accepted, Stage::Handling, Stage::FollowUp],
            Self::Maintenance => &[Stage::New, Stage::Assigned, Stage::Repairing, Stage::Waiting, Stage::Inspecting],
            Self::Precaution => &[Stage::New, Stage::Accepted, Stage::Handling, Stage::FollowUp],
        }
    }

    /// How a person may say that it ended.
    pub const fn outcomes(self) -> &'static [Outcome] {
        match self {
            Self::Mediation => &[Outcome::Quiet, Outcome::Agreed, Outcome::Referred, Outcome::Unfounded, Outcome::Test],
            Self::Report => &[Outcome::Resolved, Outcome::Referred, Outcome::Unfounded, Outcome::Test],
            Self::Maintenance => {
                &[Outcome::Repaired, Outcome::Replaced, Outcome::NoFault, Outcome::Referred, Outcome::Test]
            }
            Self::Precaution => &[Outcome::Resolved, Outcome::Unfounded, Outcome::Test],
        }
    }
}

/// How far a case has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Nobody has taken it on.
    New,
    /// The neighbours are asked for quiet.
    Dissuading,
    /// Both sides and a mediator.
    Mediating,
    /// Asked again whether all is well.
    FollowUp,
    Accepted,
    Handling,
    Assigned,
    Repairing,
    /// For parts or for somebody else.
    Waiting,
    /// The repair is looked at.
    Inspecting,
}

impl Stage {
    pub const ALL: [Self; 10] = [
        Self::New,
        Self::Dissuading,
        Self::Mediating,
        Self::FollowUp,
        Self::Accepted,
        Self::Handling,
        Self::Assigned,
        Self::Repairing,
        Self::Waiting,
        Self::Inspecting,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Dissuading => "dissuading",
            Self::Mediating => "mediating",
            Self::FollowUp => "follow_up",
            Self::Accepted => "accepted",
            Self::Handling => "handling",
            Self::Assigned => "assigned",
            Self::Repairing => "repairing",
            Self::Waiting => "waiting",
            Self::Inspecting => "inspecting",
        }
    }

    pub const fn zh(self) -> &'static str {
        match self {
            Self::New => "待受理",
            Self::Dissuading => "劝阻中",
            Self::Mediating => "调解中",
            Self::FollowUp => "待回访",
            Self::Accepted => "已受理",
            Self::Handling => "办理中",
            Self::Assigned => "已派单",
            Self::Repairing => "维修中",
            Self::Waiting => "等待配件",
            Self::Inspecting => "待验收",
        }
    }

    pub const fn en(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Dissuading => "asking for quiet",
            Self::Mediating => "in mediation",
            Self::FollowUp => "to be asked again",
            Self::Accepted => "accepted",
            Self::Handling => "being dealt with",
            Self::Assigned => "assigned",
            Self::Repairing => "under repair",
            Self::Waiting => "waiting for parts",
            Self::Inspecting => "to be inspected",
        }
    }

    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.as_str() == word)
    }
}

/// What an incident is that is no emergency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    pub kind: CaseKind,
    pub stage: Stage,
    /// Who sees to it; `None` while nobody has taken on what a rule has opened.
    pub owner: Option<String>,
    /// A person has opened it, in words of that person.
    pub by_hand: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_begins_new_and_every_word_stands_for_one_thing() {
        for kind in CaseKind::ALL {
            assert_eq!(kind.stages()[0], Stage::New, "{kind:?}");
            assert_eq!(CaseKind::named(kind.as_str()), Some(kind));
            assert!(CaseKind::CHOICES.contains(&(kind.as_str(), kind)));
            for outcome in kind.outcomes() {
                assert_eq!(Outcome::named(outcome.as_str()), Some(*outcome), "a person can say {outcome:?}");
            }
        }
        for stage in Stage::ALL {
            assert_eq!(Stage::named(stage.as_str()), Some(stage));
            assert!(CaseKind::ALL.iter().any(|kind| kind.stages().contains(&stage)), "{stage:?} belongs to a kind");
        }
    }
}
