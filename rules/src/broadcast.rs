//! Whether a warning may leave the community: the yes of two people.
//!
//! A warning that is sent outward as real, orange or red, waits until enough people have said yes, each signed in with an
//! account of their own. In time or not at all: a question that nobody answers expires, and is put again only by a person.
//! A yes is good for the level that was asked about and those below; a higher one is another question. What takes a
//! warning back never waits.
//!
//! This file knows neither messages nor ways out nor clocks: it is told what an alarm wants to say, who says what, and
//! what time it is.

use std::time::Duration;

use anmin_sensors::time::Wall;

use crate::alarm::Refusal;
use crate::rule::{Level, Text};

/// From this level on people are asked.
pub const ASKED_FROM: Level = Level::Orange;

/// How many people a warning needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Approval {
    #[default]
    TwoPeople,
    /// For a site where nobody else could say yes: one person, who types what the broadcast is about.
    OnePerson,
    /// The rules decide alone.
    None,
}

impl Approval {
    pub const CHOICES: [(&'static str, Self); 3] =
        [("two_people", Self::TwoPeople), ("one_person", Self::OnePerson), ("none", Self::None)];

    /// How many must say yes.
    pub const fn people(self) -> usize {
        match self {
            Self::TwoPeople => 2,
            Self::OnePerson => 1,
            Self::None => 0,
        }
    }
}

/// `[broadcast]`: who decides, how fast, and what they type.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    pub approval: Approval,
    /// So long a question stands.
    pub within: Duration,
    /// The community's name: whoever says yes types it, or the alarm's number.
    pub name: Text,
}

impl Default for Policy {
    fn default() -> Self {
        Self { approval: Approval::default(), within: Duration::from_secs(120), name: Text::default() }
    }
}

/// Where the question about one alarm stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BroadcastState {
    /// Nothing has left: people are asked.
    Waiting,
    /// Enough people have said yes, and it has left.
    Approved,
    /// Somebody has said no.
    Refused,
    /// Nobody, or not enough people, said yes in time: nothing has left.
    Expired,
    /// A person has taken back what had left.
    TakenBack,
    /// The danger was over, or there was nothing to send any more, and nobody is asked.
    Over,
}

impl BroadcastState {
    pub const ALL: [Self; 6] =
        [Self::Waiting, Self::Approved, Self::Refused, Self::Expired, Self::TakenBack, Self::Over];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Approved => "approved",
            Self::Refused => "refused",
            Self::Expired => "expired",
            Self::TakenBack => "taken_back",
            Self::Over => "over",
        }
    }

    pub const fn zh(self) -> &'static str {
        match self {
            Self::Waiting => "待批准",
            Self::Approved => "已批准",
            Self::Refused => "已否决",
            Self::Expired => "超时未批准",
            Self::TakenBack => "已撤回",
            Self::Over => "已结束",
        }
    }
}

/// The question about one alarm, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broadcast {
    pub state: BroadcastState,
    /// What was asked about: an answer holds for it and for what is below.
    pub level: Level,
    pub asked_at: Wall,
    /// By then enough people must have said yes.
    pub until: Wall,
    /// How many must.
    pub people: usize,
    /// Who has, in order, each with another account.
    pub yes: Vec<Yes>,
    /// Who has said no, or has taken it back.
    pub no: Option<No>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Yes {
    /// What makes one person another: the account that they signed in with.
    pub account: String,
    pub who: String,
    pub at: Wall,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct No {
    pub who: String,
    pub at: Wall,
    pub why: String,
}

/// What a person says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BroadcastAction {
    /// Yes. `typed` is the community's name or the alarm's number; `account` is the one that the person signed in with.
    Approve { account: Option<String>, typed: String, seen: Seen },
    /// No.
    Refuse { why: String },
    /// Take back what has left.
    TakeBack { why: String },
}

/// What stood before whoever says yes: a yes is good for no more than that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub state: BroadcastState,
    pub level: Level,
}

/// What happened to a broadcast: the cause of a transition of its alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BroadcastStep {
    /// A yes that is not enough alone.
    Seconded,
    Approved,
    Refused,
    Expired,
    TakenBack,
    /// A way out has not taken it in time: another gets it, too.
    Rerouted,
    /// What is in force outside would expire while the alarm stands: it is said again.
    Renewed,
    /// A siren has sounded for its longest time and is switched off.
    Ended,
}

impl BroadcastStep {
    pub const ALL: [Self; 8] = [
        Self::Seconded,
        Self::Approved,
        Self::Refused,
        Self::Expired,
        Self::TakenBack,
        Self::Rerouted,
        Self::Renewed,
        Self::Ended,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Seconded => "broadcast_seconded",
            Self::Approved => "broadcast_approved",
            Self::Refused => "broadcast_refused",
            Self::Expired => "broadcast_expired",
            Self::TakenBack => "broadcast_taken_back",
            Self::Rerouted => "broadcast_rerouted",
            Self::Renewed => "broadcast_renewed",
            Self::Ended => "broadcast_ended",
        }
    }

    /// For people.
    pub const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Seconded => ("对外播报获一人同意，待第二人批准", "broadcast: one yes, a second person is needed"),
            Self::Approved => ("对外播报已批准并发出", "broadcast approved and sent"),
            Self::Refused => ("对外播报被否决", "broadcast refused"),
            Self::Expired => ("对外播报超时未获批准，未发出", "broadcast not approved in time, not sent"),
            Self::TakenBack => ("对外播报已撤回", "broadcast taken back"),
            Self::Rerouted => (
                "未按时接收、送达或应答，已转发下一出口",
                "not taken, not reached or not answered in time; the next way out gets it, too",
            ),
            Self::Renewed => ("对外播报到期前已续发", "broadcast said again before it expires"),
            Self::Ended => {
                ("警报器已到最长鸣响时间，停止鸣响", "a siren has sounded for its longest time and is switched off")
            }
        }
    }
}

impl Broadcast {
    /// What a person has taken back without having been asked before.
    pub(crate) fn taken_back(now: Wall, level: Level) -> Self {
        let (state, yes, no) = (BroadcastState::TakenBack, Vec::new(), None);
        Self { state, level, asked_at: now, until: now, people: 0, yes, no }
    }

    fn ask(now: Wall, policy: &Policy, level: Level) -> Self {
        Self {
            state: BroadcastState::Waiting,
            level,
            asked_at: now,
            until: now.plus(policy.within),
            people: policy.approval.people(),
            yes: Vec::new(),
            no: None,
        }
    }

    /// Whether a warning of this level may leave.
    pub fn allows(&self, level: Level) -> bool {
        self.state == BroadcastState::Approved && level <= self.level
    }

    /// Whether a person has taken the warning back, and it has not become worse since.
    pub fn holds_back(&self, level: Level) -> bool {
        self.state == BroadcastState::TakenBack && level <= self.level
    }

    pub fn is_waiting(&self) -> bool {
        self.state == BroadcastState::Waiting
    }
}

impl Policy {
    /// What is asked now. `wanted` is the level of a warning that must not leave without a yes, `in_force` the level at which
    /// one has left and stands; a yes for more than stands is used up.
    pub fn review(
        &self,
        now: Wall,
        before: Option<&Broadcast>,
        wanted: Option<Level>,
        in_force: Option<Level>,
    ) -> Option<Broadcast> {
        use BroadcastState::{Approved, Expired, Over, Refused, TakenBack, Waiting};
        let ask = |level| Some(Broadcast::ask(now, self, level));
        let Some(before) = before else { return wanted.and_then(ask) };
        let with = |state| Some(Broadcast { state, ..before.clone() });
        match (before.state, wanted) {
            // Who said yes to more said yes to this.
            (Waiting, Some(level)) if level <= before.level => Some(Broadcast { level, ..before.clone() }),
            (Approved | Refused | Expired | TakenBack, Some(level)) if level <= before.level => with(before.state),
            (_, Some(level)) => ask(level),
            (Waiting, None) => with(Over),
            (Approved, None) => match in_force {
                Some(level) => Some(Broadcast { level: before.level.min(level), ..before.clone() }),
                None => with(Over),
            },
            (state, None) => with(state),
        }
    }

    /// One more yes. A question that was refused, has expired or was taken back is put anew by it, where the person knew that.
    pub fn approve(
        &self,
        now: Wall,
        before: &Broadcast,
        level: Level,
        seen: Seen,
        account: &str,
        who: &str,
    ) -> Result<(Broadcast, BroadcastStep), Refusal> {
        let asked = if before.is_waiting() { before.level } else { level };
        if seen.state != before.state || seen.level < asked {
            return Err(Refusal::not_allowed(
                format!("情况已变化：现为{}，{}。请核对后再次确认", asked.zh(), before.state.zh()),
                format!(
                    "it has changed: it is {} now, and {}. Look at it again before you say yes",
                    asked.as_str(),
                    before.state.as_str().replace('_', " ")
                ),
            ));
        }
        let mut broadcast = match before.state {
            BroadcastState::Waiting => before.clone(),
            BroadcastState::Refused | BroadcastState::Expired | BroadcastState::TakenBack => {
                Broadcast::ask(now, self, level)
            }
            BroadcastState::Approved => {
                return Err(Refusal::not_allowed("该播报已批准并发出", "the broadcast is approved and has left"));
            }
            BroadcastState::Over => return Err(nothing_to_send()),
        };
        if broadcast.yes.iter().any(|yes| yes.account == account) {
            return Err(Refusal::not_allowed(
                "您已同意；须由另一人用其本人账号批准",
                "you have said yes already: the second yes must come from another person with another account",
            ));
        }
        broadcast.yes.push(Yes { account: account.to_owned(), who: who.to_owned(), at: now });
        if broadcast.yes.len() < broadcast.people {
            return Ok((broadcast, BroadcastStep::Seconded));
        }
        broadcast.state = BroadcastState::Approved;
        Ok((broadcast, BroadcastStep::Approved))
    }

    /// Whether what was typed shows that the person knows what this is about.
    pub fn check_typed(&self, typed: &str, alarm: &str) -> Result<(), Refusal> {
        let same = |wanted: &str| {
            let plain = |text: &str| text.split_whitespace().collect::<String>().to_lowercase();
            !wanted.trim().is_empty() && plain(typed) == plain(wanted)
        };
        if [&*self.name.zh, &*self.name.en, alarm].into_iter().any(same) {
            return Ok(());
        }
        Err(Refusal::not_allowed(
            format!("请输入社区名称“{}”或报警编号，以确认这是真实的对外播报", self.name.zh),
            format!("type the community's name, {:?}, or the alarm's number: this is a real broadcast", self.name.en),
        ))
    }
}

/// There is no question, and there would be no message.
pub(crate) fn nothing_to_send() -> Refusal {
    Refusal::not_allowed("该报警没有需要对外播报的内容", "there is nothing to broadcast about this alarm")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Wall {
        Wall::from_millis(1_800_000_000_000 + seconds * 1_000)
    }

    /// As it stood.
    fn seen(of: &Broadcast) -> Seen {
        Seen { state: of.state, level: of.level }
    }

    fn policy(approval: Approval) -> Policy {
        Policy {
            approval,
            name: Text { zh: "春晖社区".to_owned(), en: "Chunhui Estate".to_owned() },
            ..Policy::default()
        }
    }

    /// `level` of what is wanted and of what is in force, `-` for none; then what stands after it.
    #[test]
    fn what_is_asked_follows_what_the_alarm_wants_to_say() {
        let level = |word: &str| Level::named(word);
        for (before, wanted, in_force, after) in [
            ("-", "-", "-", "-"),
            ("-", "red", "-", "waiting red"),
            ("waiting orange", "red", "-", "waiting red anew"),
            ("waiting red", "orange", "-", "waiting orange"),
            ("waiting red", "-", "-", "over red"),
            ("waiting red", "-", "orange", "over red"),
            ("approved red", "red", "-", "approved red"),
            ("approved red", "-", "red", "approved red"),
            ("approved red", "-", "orange", "approved orange"),
            ("approved red", "-", "-", "over red"),
            ("approved orange", "red", "orange", "waiting red anew"),
            ("refused red", "red", "-", "refused red"),
            ("refused orange", "red", "-", "waiting red anew"),
            ("refused red", "-", "-", "refused red"),
            ("expired red", "orange", "-", "expired red"),
            ("expired orange", "red", "-", "waiting red anew"),
            ("taken_back red", "red", "-", "taken_back red"),
            ("taken_back orange", "red", "-", "waiting red anew"),
            ("over red", "orange", "-", "waiting orange anew"),
            ("over red", "-", "-", "over red"),
        ] {
            let before = before.split_once(' ').map(|(state, word)| Broadcast {
                state: BroadcastState::ALL.into_iter().find(|each| each.as_str() == state).expect("a state"),
                yes: vec![Yes { account: "li".to_owned(), who: "Li".to_owned(), at: at(1) }],
                ..Broadcast::ask(at(0), &policy(Approval::TwoPeople), level(word).expect("a level"))
            });
            let found = policy(Approval::TwoPeople).review(at(60), before.as_ref(), level(wanted), level(in_force));
            let shown = found.map_or("-".to_owned(), |found| {
                let anew = if found.asked_at == at(60) && before.is_some() { " anew" } else { "" };
                assert_eq!(anew.is_empty(), before.is_none() || !found.yes.is_empty(), "a new question has no yes");
                format!("{} {}{anew}", found.state.as_str(), found.level.as_str())
            });
            assert_eq!(shown, after, "{before:?} wanted {wanted} in force {in_force}");
        }
    }

    #[test]
    fn two_accounts_make_a_broadcast_and_one_twice_does_not() {
        let (two, one) = (policy(Approval::TwoPeople), policy(Approval::OnePerson));
        let asked = two.review(at(0), None, Some(Level::Red), None).expect("it is asked");
        let (first, step) = two.approve(at(10), &asked, Level::Red, seen(&asked), "li", "Li").expect("a yes");
        assert_eq!((step, first.state), (BroadcastStep::Seconded, BroadcastState::Waiting));
        assert!(!first.allows(Level::Blue));
        two.approve(at(11), &first, Level::Red, seen(&first), "li", "Another name").expect_err("the same account");
        let (second, step) = two.approve(at(12), &first, Level::Red, seen(&first), "wang", "Li").expect("a yes");
        assert_eq!((step, second.state), (BroadcastStep::Approved, BroadcastState::Approved));
        assert!(second.allows(Level::Red) && second.allows(Level::Orange));
        two.approve(at(13), &second, Level::Red, seen(&second), "chen", "Chen").expect_err("it has left");
        let asked = one.review(at(0), None, Some(Level::Red), None).expect("it is asked");
        let (alone, _) = one.approve(at(10), &asked, Level::Red, seen(&asked), "li", "Li").expect("a yes");
        assert_eq!(alone.state, BroadcastState::Approved);
    }

    #[test]
    fn a_late_yes_puts_the_question_anew_and_old_ones_do_not_count() {
        let policy = policy(Approval::TwoPeople);
        let asked = policy.review(at(0), None, Some(Level::Red), None).expect("it is asked");
        let (first, _) = policy.approve(at(10), &asked, Level::Red, seen(&asked), "li", "Li").expect("a yes");
        for state in [BroadcastState::Expired, BroadcastState::Refused, BroadcastState::TakenBack] {
            let ended = Broadcast { state, ..first.clone() };
            let (anew, step) =
                policy.approve(at(500), &ended, Level::Red, seen(&ended), "wang", "Wang").expect("a yes");
            assert_eq!((step, anew.state, anew.until), (BroadcastStep::Seconded, BroadcastState::Waiting, at(620)));
            assert_eq!(anew.yes.iter().map(|yes| &*yes.account).collect::<Vec<_>>(), ["wang"]);
        }
        let over = Broadcast { state: BroadcastState::Over, ..first };
        policy.approve(at(500), &over, Level::Red, seen(&over), "wang", "Wang").expect_err("there is nothing to send");
    }

    #[test]
    fn a_yes_is_good_for_no_more_than_stood_before_who_says_it() {
        use BroadcastState::{Expired, Refused, Waiting};
        let policy = policy(Approval::OnePerson);
        for (state, level, alarm, seen, good) in [
            (Waiting, Level::Red, Level::Red, (Waiting, Level::Red), true),
            (Waiting, Level::Red, Level::Red, (Waiting, Level::Orange), false),
            (Waiting, Level::Orange, Level::Orange, (Waiting, Level::Red), true),
            (Refused, Level::Red, Level::Red, (Waiting, Level::Red), false),
            (Refused, Level::Red, Level::Red, (Refused, Level::Red), true),
            (Expired, Level::Orange, Level::Red, (Expired, Level::Orange), false),
        ] {
            let before = Broadcast { state, ..Broadcast::ask(at(0), &policy, level) };
            let seen = Seen { state: seen.0, level: seen.1 };
            let found = policy.approve(at(10), &before, alarm, seen, "li", "Li");
            assert_eq!(found.is_ok(), good, "{state:?} {level:?} {alarm:?} {seen:?}");
        }
    }

    #[test]
    fn only_the_name_or_the_number_confirms() {
        let policy = policy(Approval::TwoPeople);
        for (typed, good) in [
            ("春晖社区", true),
            (" 春晖 社区 ", true),
            ("chunhui estate", true),
            ("0190-ab", true),
            ("", false),
            ("yes", false),
            ("春晖", false),
        ] {
            assert_eq!(policy.check_typed(typed, "0190-AB").is_ok(), good, "{typed:?}");
        }
        Policy::default().check_typed("", "x").expect_err("a site without a name is not confirmed by nothing");
    }
}
