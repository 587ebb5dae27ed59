//! When each area must be drilled again. An overdue drill is a system notice, like a device that is silent.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use anmin_rules::drill::{Drill, Scope};
use anmin_rules::rule::{Finding, Level, Text};
use anmin_sensors::document::Reader;
use anmin_sensors::time::{Mono, Now, Wall};

use super::{PartState, PartTrouble};

/// How often somebody looks; a drill is planned by the day.
const LOOK_EVERY: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// `[[drill]]`: an area that is to be drilled every so often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub id: Arc<str>,
    pub scope: Scope,
    pub every: Duration,
}

impl Plan {
    pub fn read(r: &Reader<'_>) -> Option<Self> {
        let id: Option<String> = r.required("id");
        let scope = Scope {
            area: r.or("area", String::new()),
            grid: r.or("grid", String::new()),
            building: r.or("building", String::new()),
        };
        let every: Option<Duration> = r.required("every");
        if let Some(every) = every
            && !(DAY..=DAY * 3_660).contains(&every)
        {
            r.fault(
                "every",
                "`drill.every` must lie between one day and ten years",
                Some("such as \"90d\"".to_owned()),
            );
        }
        r.finish();
        Some(Self { id: id?.into(), scope, every: every? })
    }
}

/// The plans, and when each was last fulfilled.
#[derive(Debug, Default)]
pub struct DrillCalendar {
    /// Each with the last time, and what was said of it in this run.
    plans: Vec<(Plan, Wall, Option<bool>)>,
    look_at: Option<Mono>,
    parts: VecDeque<PartState>,
}

impl DrillCalendar {
    /// `since`: an area that was never drilled is due one period after that.
    pub fn new(plans: Vec<Plan>, since: Wall, drills: &[Drill]) -> Self {
        let plans = plans.into_iter().map(|plan| (plan, since, None)).collect();
        let mut calendar = Self { plans, look_at: None, parts: VecDeque::new() };
        drills.iter().for_each(|drill| calendar.handle_drill(drill));
        calendar
    }

    /// Each plan with when it was last fulfilled, or is counted from.
    pub fn standing(&self) -> Vec<(Plan, Wall)> {
        self.plans.iter().map(|(plan, last, _)| (plan.clone(), *last)).collect()
    }

    /// A drill of an area counts for all that lies in it, once an alarm was raised in it.
    pub fn handle_drill(&mut self, drill: &Drill) {
        let of = |wider: &str, plan: &str| wider.is_empty() || wider == plan;
        let Scope { area, grid, building } = &drill.scope;
        for (plan, last, _) in &mut self.plans {
            let covers = of(area, &plan.scope.area) && of(grid, &plan.scope.grid) && of(building, &plan.scope.building);
            if covers && drill.alarms > 0 {
                *last = (*last).max(drill.started_at);
                self.look_at = None;
            }
        }
    }

    /// What has become overdue, or is no longer.
    pub fn poll_part(&mut self, now: Now) -> Option<PartState> {
        if self.look_at.is_none_or(|at| at <= now.mono) {
            self.look_at = Some(now.mono.plus(LOOK_EVERY));
            for (plan, last, told) in &mut self.plans {
                let overdue = now.wall > last.plus(plan.every);
                // What the last run has said may be over: each is said once.
                if told.replace(overdue) != Some(overdue) {
                    let Text { zh, en } = plan.scope.text();
                    let (days, every) = (now.wall.since(*last).as_secs() / 86_400, plan.every.as_secs() / 86_400);
                    let message = Text {
                        zh: format!("{zh}已 {days} 天没有演练，计划每 {every} 天一次"),
                        en: format!("no drill in {en} for {days} days; one is planned every {every}"),
                    };
                    let finding = Finding { level: Level::Blue, limit: None, note: None };
                    self.parts.push_back(PartState {
                        part: format!("drill:{}", plan.id).into(),
                        trouble: overdue.then_some(PartTrouble { finding, message }),
                    });
                }
            }
        }
        self.parts.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use anmin_rules::drill::DrillId;

    use super::*;

    fn at(days: u64) -> Now {
        let start = Now { mono: Mono::from_nanos(1), wall: Wall::from_millis(1_800_000_000_000) };
        start.plus(DAY * u32::try_from(days).expect("few days"))
    }

    fn drilled(day: u64, building: &str, alarms: u32) -> Drill {
        Drill {
            id: DrillId(uuid::Uuid::from_u128(u128::from(day))),
            seq: 1,
            name: String::new(),
            scope: Scope { building: building.to_owned(), ..Scope::default() },
            announced: true,
            by: "li".to_owned(),
            started_at: at(day).wall,
            ends_at: at(day).wall,
            alarms,
            end: None,
        }
    }

    #[test]
    fn an_area_is_overdue_until_it_or_all_around_it_is_drilled() {
        let plan = |id: &str, building: &str| Plan {
            id: id.into(),
            scope: Scope { building: building.to_owned(), ..Scope::default() },
            every: DAY * 90,
        };
        let past = [drilled(0, "3", 1)];
        let mut calendar = DrillCalendar::new(vec![plan("b3", "3"), plan("b4", "4")], at(0).wall, &past);
        let told = |calendar: &mut DrillCalendar, day| {
            let parts = std::iter::from_fn(|| calendar.poll_part(at(day)));
            parts.map(|state| (state.part.to_string(), state.trouble.is_some())).collect::<Vec<_>>()
        };
        let [b3, b4] = ["drill:b3", "drill:b4"].map(str::to_owned);
        assert_eq!(told(&mut calendar, 90), [(b3.clone(), false), (b4.clone(), false)], "whatever the last run said");
        assert_eq!(told(&mut calendar, 91), [(b3.clone(), true), (b4.clone(), true)]);
        assert_eq!(told(&mut calendar, 92), [], "said once");
        calendar.handle_drill(&drilled(92, "4", 0));
        assert_eq!(told(&mut calendar, 92), [], "a drill without an alarm is none");
        calendar.handle_drill(&drilled(92, "4", 2));
        assert_eq!(told(&mut calendar, 92), [(b4.clone(), false)]);
        calendar.handle_drill(&drilled(93, "", 1));
        assert_eq!(told(&mut calendar, 93), [(b3, false)], "the whole site counts for its buildings");
        assert_eq!(told(&mut calendar, 184).len(), 2, "and again");
    }
}
