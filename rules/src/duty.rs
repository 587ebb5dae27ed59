//! Who of a micro fire station is on duty, and whether the station can respond.
//!
//! Crew, shifts and equipment stand in the configuration. What people say, that a shift was handed over, a piece of
//! equipment checked, the station taken off duty, is its [`Duty`], which outlives a restart. Both together and the time give
//! [`Station::unready`]: why it cannot respond, known when the shift begins and not when it is called. It reads no clock,
//! and of time zones knows only how far the site's clocks are ahead.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anmin_sensors::time::Wall;

use crate::alarm::Refusal;
use crate::order::Station;
use crate::rule::Text;

/// What a member of the crew does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    Head,
    #[default]
    Member,
    Driver,
    Communicator,
    Safety,
}

impl Role {
    pub const CHOICES: [(&'static str, Self); 5] = [
        ("head", Self::Head),
        ("member", Self::Member),
        ("driver", Self::Driver),
        ("communicator", Self::Communicator),
        ("safety", Self::Safety),
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Member => "member",
            Self::Driver => "driver",
            Self::Communicator => "communicator",
            Self::Safety => "safety",
        }
    }
}

/// One of a station's crew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: Arc<str>,
    pub name: String,
    pub role: Role,
    pub phone: String,
}

/// A pattern of hours; one that ends at or before its beginning goes over midnight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shift {
    pub name: String,
    /// On which it begins, from Monday.
    pub days: [bool; 7],
    /// Minutes after midnight.
    pub from: u16,
    pub to: u16,
    /// Ids of those who are on duty.
    pub crew: Vec<Arc<str>>,
}

/// What must be looked at now and then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Equipment {
    pub id: Arc<str>,
    pub name: Text,
    pub check_every: Duration,
}

/// What people have said of a station; whole, and the newest in force.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Duty {
    /// The last hand-over.
    pub handed_over: Option<HandOver>,
    pub off_duty: Option<OffDuty>,
    /// The last check of each piece of equipment.
    pub checks: BTreeMap<Arc<str>, Check>,
    /// Number of its changes so far.
    pub seq: u32,
}

/// Who took over, as ids of the crew; nobody is an answer too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandOver {
    pub at: Wall,
    pub by: String,
    pub crew: Vec<Arc<str>>,
    pub note: String,
}

/// The station was taken off duty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffDuty {
    pub at: Wall,
    pub by: String,
    pub why: String,
}

/// Somebody looked at a piece of equipment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub at: Wall,
    pub by: String,
    pub fit: bool,
    pub note: String,
}

/// One change of one station's duty.
#[derive(Clone, Debug, PartialEq)]
pub struct DutyChange {
    pub station: Arc<str>,
    /// As it stands after the change.
    pub duty: Arc<Duty>,
}

/// What people say of a station.
#[derive(Clone, Debug, PartialEq)]
pub enum StationAction {
    /// These are on duty from now on, until a shift begins or ends, or the next hand-over.
    HandOver {
        crew: Vec<String>,
        note: String,
    },
    /// These pieces of equipment were looked at, all of them where none is named.
    Check {
        items: Vec<String>,
        fit: bool,
        note: String,
    },
    OffDuty {
        why: String,
    },
    OnDuty,
}

/// Why a station cannot respond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unready {
    OffDuty {
        why: String,
    },
    NobodyOnDuty,
    /// Not looked at for longer than it may be; or never.
    CheckOverdue(Vec<Text>),
    /// Found unfit when it was looked at last.
    Unfit(Vec<Text>),
}

impl Unready {
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::OffDuty { .. } => "off_duty",
            Self::NobodyOnDuty => "nobody_on_duty",
            Self::CheckOverdue(_) => "check_overdue",
            Self::Unfit(_) => "equipment_unfit",
        }
    }

    pub fn text(&self) -> Text {
        let zh = |names: &[Text]| names.iter().map(|name| name.zh.as_str()).collect::<Vec<_>>().join("、");
        let en = |names: &[Text]| names.iter().map(|name| name.en.as_str()).collect::<Vec<_>>().join(", ");
        match self {
            Self::OffDuty { why } => Text { zh: format!("已停勤（{why}）"), en: format!("off duty ({why})") },
            Self::NobodyOnDuty => Text { zh: "当前无人值班".to_owned(), en: "nobody is on duty".to_owned() },
            Self::CheckOverdue(names) => Text {
                zh: format!("器材检查已过期（{}）", zh(names)),
                en: format!("equipment check overdue ({})", en(names)),
            },
            Self::Unfit(names) => Text {
                zh: format!("器材不可用（{}）", zh(names)),
                en: format!("equipment unfit ({})", en(names)),
            },
        }
    }

    /// Several reasons as one.
    pub fn texts(reasons: &[Self]) -> Text {
        let texts: Vec<Text> = reasons.iter().map(Self::text).collect();
        Text {
            zh: texts.iter().map(|text| text.zh.as_str()).collect::<Vec<_>>().join("；"),
            en: texts.iter().map(|text| text.en.as_str()).collect::<Vec<_>>().join("; "),
        }
    }
}

/// How far the site's clocks are ahead of UTC.
#[derive(Clone)]
pub struct Zone(Arc<dyn Fn(Wall) -> i32 + Send + Sync>);

impl Zone {
    /// `ahead` gives seconds.
    pub fn new(ahead: impl Fn(Wall) -> i32 + Send + Sync + 'static) -> Self {
        Self(Arc::new(ahead))
    }

    /// Minutes of the site's own clock since 1970.
    fn minute(&self, at: Wall) -> i64 {
        (at.micros().div_euclid(1_000_000) + i64::from((self.0)(at))).div_euclid(60)
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self::new(|_| 0)
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Zone")
    }
}

/// Settings are compared for what people wrote down.
impl PartialEq for Zone {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

const DAY: i64 = 24 * 60;
/// A hand-over so long before a shift begins is already its own.
const EARLY: i64 = 60;

impl Shift {
    /// Minutes at which it begins and ends where it begins on this day since 1970.
    fn on(&self, day: i64) -> Option<(i64, i64)> {
        // 1970 began on a Thursday.
        let weekday = (day + 3).rem_euclid(7) as usize;
        let end = if self.to <= self.from { DAY } else { 0 } + i64::from(self.to);
        self.days[weekday].then_some((day * DAY + i64::from(self.from), day * DAY + end))
    }

    /// When it began, where it runs.
    fn began(&self, minute: i64) -> Option<i64> {
        let today = minute.div_euclid(DAY);
        let runs = |(from, to): &(i64, i64)| (*from..*to).contains(&minute);
        [today, today - 1].into_iter().filter_map(|day| self.on(day)).find(runs).map(|(from, _)| from)
    }
}

/// How long until hours of one of these patterns begin: nothing while they run, `None` where they never do.
pub fn begins_in(shifts: &[Shift], zone: &Zone, at: Wall) -> Option<Duration> {
    let minute = zone.minute(at);
    if shifts.iter().any(|shift| shift.began(minute).is_some()) {
        return Some(Duration::ZERO);
    }
    let today = minute.div_euclid(DAY);
    let begin = shifts.iter().flat_map(|shift| (today..=today + 7).filter_map(|day| shift.on(day)));
    let next = begin.map(|(from, _)| from).filter(|from| *from > minute).min()?;
    Some(Duration::from_secs(60 * u64::try_from(next - minute).unwrap_or(0)))
}

impl Station {
    /// The shifts that run.
    pub fn shifts_at<'s>(&'s self, zone: &Zone, at: Wall) -> impl Iterator<Item = &'s Shift> + 's {
        let minute = zone.minute(at);
        self.shifts.iter().filter(move |shift| shift.began(minute).is_some())
    }

    /// Who is on duty: whom the last hand-over names, else whom the shift does; without shifts the whole crew.
    pub fn on_duty(&self, zone: &Zone, duty: &Duty, at: Wall) -> Vec<&Member> {
        if duty.off_duty.is_some() {
            return Vec::new();
        }
        let ids = match self.hand_over_in_force(zone, duty, at) {
            Some(handed_over) => handed_over.crew.clone(),
            None if self.shifts.is_empty() => return self.crew.iter().collect(),
            None => self.shifts_at(zone, at).flat_map(|shift| shift.crew.iter().cloned()).collect(),
        };
        self.crew.iter().filter(|member| ids.contains(&member.id)).collect()
    }

    /// The last hand-over as long as no shift has begun or ended since.
    pub fn hand_over_in_force<'d>(&self, zone: &Zone, duty: &'d Duty, at: Wall) -> Option<&'d HandOver> {
        let minute = zone.minute(at);
        let last = duty.handed_over.as_ref().filter(|last| last.at <= at)?;
        if self.shifts.is_empty() {
            return Some(last);
        }
        let bound = self.bounds(minute).filter(|bound| *bound <= minute).max();
        bound.is_none_or(|bound| zone.minute(last.at) >= bound - EARLY).then_some(last)
    }

    /// Why it cannot respond; nothing where it can. A station that lists no crew is taken at its word: it is manned.
    pub fn unready(&self, zone: &Zone, duty: &Duty, at: Wall) -> Vec<Unready> {
        let mut reasons = Vec::new();
        if let Some(OffDuty { why, .. }) = &duty.off_duty {
            reasons.push(Unready::OffDuty { why: why.clone() });
        } else if !self.crew.is_empty() && self.on_duty(zone, duty, at).is_empty() {
            reasons.push(Unready::NobodyOnDuty);
        }
        let (mut overdue, mut unfit) = (Vec::new(), Vec::new());
        for item in &self.equipment {
            match duty.checks.get(&item.id) {
                Some(check) if !check.fit => unfit.push(item.name.clone()),
                Some(check) if at < check.at.plus(item.check_every) => {}
                _ => overdue.push(item.name.clone()),
            }
        }
        reasons.extend((!overdue.is_empty()).then_some(Unready::CheckOverdue(overdue)));
        reasons.extend((!unfit.is_empty()).then_some(Unready::Unfit(unfit)));
        reasons
    }

    /// Minutes at which shifts begin and end, for more than a week before and after this one.
    fn bounds(&self, minute: i64) -> impl Iterator<Item = i64> {
        let today = minute.div_euclid(DAY);
        let of = move |shift| (today - 8..=today + 8).filter_map(move |day| Shift::on(shift, day));
        self.shifts.iter().flat_map(of).flat_map(|(from, to)| [from, to])
    }

    /// How long until the answer to [`Station::unready`] may be another one by time alone.
    pub fn changes_in(&self, zone: &Zone, duty: &Duty, at: Wall) -> Option<Duration> {
        let minute = zone.minute(at);
        let bounds = self.bounds(minute).filter(|bound| *bound > minute);
        // The minute that has begun counts: a look too early is looked again.
        let shift =
            bounds.min().map(|bound| Duration::from_secs((bound - minute) as u64 * 60).saturating_sub(into(at)));
        let due = self.equipment.iter().filter_map(|item| {
            let due = duty.checks.get(&item.id)?.at.plus(item.check_every);
            (due > at).then(|| due.since(at))
        });
        due.chain(shift).min()
    }

    /// What a person says of it, taken into its duty.
    pub fn take(&self, at: Wall, who: &str, duty: &Duty, what: &StationAction) -> Result<Duty, Refusal> {
        let mut duty = duty.clone();
        let by = who.to_owned();
        match what {
            StationAction::HandOver { crew, note } => {
                let named = crew.iter().map(|id| {
                    let found = self.crew.iter().find(|member| *member.id == **id).map(|member| Arc::clone(&member.id));
                    found.ok_or_else(|| self.unknown("队员", "member", id, self.crew.iter().map(|m| &*m.id)))
                });
                let crew = named.collect::<Result<Vec<_>, _>>()?;
                duty.handed_over = Some(HandOver { at, by, crew, note: note.clone() });
            }
            StationAction::Check { items, fit, note } => {
                if !fit && note.trim().is_empty() {
                    return Err(Refusal::not_allowed("请说明器材的问题", "say what is wrong with the equipment"));
                }
                let known = || self.equipment.iter().map(|item| &*item.id);
                if let Some(id) = items.iter().find(|id| known().all(|known| known != id.as_str())) {
                    return Err(self.unknown("器材", "piece of equipment", id, known()));
                }
                if self.equipment.is_empty() {
                    return Err(Refusal::not_allowed("该站没有登记器材", "the station lists no equipment"));
                }
                for item in
                    self.equipment.iter().filter(|item| items.is_empty() || items.iter().any(|id| **id == *item.id))
                {
                    let check = Check { at, by: by.clone(), fit: *fit, note: note.clone() };
                    duty.checks.insert(Arc::clone(&item.id), check);
                }
            }
            StationAction::OffDuty { why } if why.trim().is_empty() => {
                return Err(Refusal::not_allowed("请说明停勤的原因", "say why the station is off duty"));
            }
            StationAction::OffDuty { why } => duty.off_duty = Some(OffDuty { at, by, why: why.clone() }),
            StationAction::OnDuty if duty.off_duty.is_none() => {
                return Err(Refusal::not_allowed("该站未停勤", "the station is not off duty"));
            }
            StationAction::OnDuty => duty.off_duty = None,
        }
        duty.seq += 1;
        Ok(duty)
    }

    fn unknown<'k>(&self, zh: &str, en: &str, id: &str, known: impl Iterator<Item = &'k str>) -> Refusal {
        let known: Vec<&str> = known.collect();
        let (name, known) = (&self.name, if known.is_empty() { "-".to_owned() } else { known.join(", ") });
        Refusal::not_allowed(
            format!("{}没有登记{zh} {id:?}，已登记：{known}", name.zh),
            format!("{} lists no {en} {id:?}; it lists: {known}", name.en),
        )
    }
}

/// How much of its minute has gone.
fn into(at: Wall) -> Duration {
    Duration::from_micros(at.micros().rem_euclid(60_000_000) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Thursday, the first of January 1970, in a zone eight hours ahead.
    fn at(day: i64, time: &str) -> Wall {
        let (hours, minutes) = time.split_once(':').expect("a time of day");
        let minutes = hours.parse::<i64>().unwrap() * 60 + minutes.parse::<i64>().unwrap();
        Wall::from_millis((day * DAY + minutes - 8 * 60) * 60_000)
    }

    fn zone() -> Zone {
        Zone::new(|_| 8 * 3600)
    }

    fn station() -> Station {
        let member = |id: &str| Member { id: id.into(), name: id.to_owned(), role: Role::Member, phone: String::new() };
        let shift = |days: &str, from, to, crew: &[&str]| Shift {
            name: String::new(),
            days: std::array::from_fn(|day| days.as_bytes()[day] == b'x'),
            from,
            to,
            crew: crew.iter().map(|id| Arc::from(*id)).collect(),
        };
        Station {
            crew: ["li", "wang", "zhao"].map(member).into(),
            // Weekdays from eight to eight; each night from twenty to eight, but not from Saturday to Sunday.
            shifts: vec![shift("xxxxx--", 480, 1200, &["li"]), shift("xxxxx-x", 1200, 480, &["wang", "zhao"])],
            equipment: vec![Equipment {
                id: "hose".into(),
                name: Text::both("hose"),
                check_every: Duration::from_secs(86_400),
            }],
            ..Station::default()
        }
    }

    #[test]
    fn a_shift_goes_over_midnight_and_a_hand_over_holds_until_the_next_begins() {
        let handed = |day, time: &str, crew: &[&str]| Duty {
            handed_over: Some(HandOver {
                at: at(day, time),
                by: "chen".to_owned(),
                crew: crew.iter().map(|id| Arc::from(*id)).collect(),
                note: String::new(),
            }),
            ..Duty::default()
        };
        let none = Duty::default;
        let off = Duty {
            off_duty: Some(OffDuty { at: at(0, "09:00"), by: "chen".to_owned(), why: "x".to_owned() }),
            ..Duty::default()
        };
        // Day 0 is a Thursday, day 2 a Saturday, day 3 a Sunday.
        for (duty, day, time, expected) in [
            (none(), 0, "07:59", "wang zhao"),
            (none(), 0, "08:00", "li"),
            (none(), 0, "19:59", "li"),
            (none(), 0, "20:00", "wang zhao"),
            (none(), 1, "03:00", "wang zhao"),
            (none(), 2, "07:59", "wang zhao"),
            (none(), 2, "08:00", ""),
            (none(), 3, "07:00", ""),
            (none(), 3, "20:00", "wang zhao"),
            (handed(0, "12:00", &["zhao"]), 0, "13:00", "zhao"),
            (handed(0, "12:00", &["zhao"]), 0, "11:00", "li"),
            (handed(0, "12:00", &["zhao"]), 0, "20:00", "wang zhao"),
            // A quarter of an hour early: at once, and for the shift that begins.
            (handed(0, "19:45", &["zhao"]), 0, "19:50", "zhao"),
            (handed(0, "19:45", &["zhao"]), 1, "07:59", "zhao"),
            (handed(0, "19:45", &["zhao"]), 1, "08:00", "li"),
            (handed(0, "12:00", &[]), 0, "13:00", ""),
            (off, 0, "13:00", ""),
        ] {
            let station = station();
            let found: Vec<&str> = station.on_duty(&zone(), &duty, at(day, time)).iter().map(|m| &*m.id).collect();
            assert_eq!(found.join(" "), expected, "day {day} at {time}, {duty:?}");
        }
    }

    #[test]
    fn why_a_station_cannot_respond_and_when_that_may_change() {
        let station = station();
        let words =
            |duty: &Duty, at| -> Vec<&str> { station.unready(&zone(), duty, at).iter().map(Unready::as_str).collect() };
        let mut duty = Duty::default();
        let mut said = |at: Wall, what: StationAction| {
            duty = station.take(at, "chen", &duty, &what).expect("it may be said");
            (words(&duty, at).join(" "), station.changes_in(&zone(), &duty, at).map(|wait| wait.as_secs()))
        };
        let check = |fit, note: &str| StationAction::Check { items: Vec::new(), fit, note: note.to_owned() };
        assert_eq!(words(&Duty::default(), at(0, "09:00")), ["check_overdue"], "nobody ever looked");
        assert_eq!(said(at(0, "09:00"), check(true, "")), (String::new(), Some(11 * 3600)));
        assert_eq!(said(at(0, "09:30"), check(false, "leaks")), ("equipment_unfit".to_owned(), Some(37_800)));
        assert_eq!(said(at(0, "10:00"), check(true, "")), (String::new(), Some(36_000)));
        let off = StationAction::OffDuty { why: "training".to_owned() };
        assert_eq!(said(at(0, "11:00"), off).0, "off_duty");
        assert_eq!(said(at(0, "12:00"), StationAction::OnDuty).0, "");
        let nobody = StationAction::HandOver { crew: Vec::new(), note: String::new() };
        assert_eq!(said(at(0, "13:00"), nobody).0, "nobody_on_duty");
        assert_eq!(
            said(at(1, "09:00"), StationAction::HandOver { crew: vec!["li".to_owned()], note: String::new() }).0,
            ""
        );
        assert_eq!(words(&duty, at(1, "10:00")), ["check_overdue"]);
        assert_eq!(words(&duty, at(2, "12:00")), ["nobody_on_duty", "check_overdue"], "Saturday");
    }

    #[test]
    fn what_a_station_does_not_list_is_refused_by_name() {
        for (what, expected) in [
            (
                StationAction::HandOver { crew: vec!["chen".to_owned()], note: String::new() },
                "it lists: li, wang, zhao",
            ),
            (StationAction::Check { items: vec!["axe".to_owned()], fit: true, note: String::new() }, "it lists: hose"),
            (StationAction::Check { items: Vec::new(), fit: false, note: " ".to_owned() }, "say what is wrong"),
            (StationAction::OffDuty { why: String::new() }, "say why"),
            (StationAction::OnDuty, "not off duty"),
        ] {
            let refusal = station().take(at(0, "09:00"), "chen", &Duty::default(), &what).expect_err("it is refused");
            assert!(refusal.text().en.contains(expected), "{what:?}: {refusal}");
        }
    }
}
