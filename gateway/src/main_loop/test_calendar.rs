//! When each detector was last tested by somebody who walked there. Detectors that are overdue are a system notice.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use anmin_rules::rule::{Finding, Level, Text};
use anmin_rules::walk::{Tick, TickEnd, is_testable};
use anmin_sensors::document::Reader;
use anmin_sensors::point::{PointId, Points};
use anmin_sensors::time::{Mono, Now, Wall};

use super::{PartState, PartTrouble};

/// How often somebody looks at all points; a test is planned by the month.
const LOOK_EVERY: Duration = Duration::from_secs(3_600);
/// And how long after a test.
const LOOK_AFTER: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// `[walk]`: how often each detector is to be tested. Practice: GB 25201-2010, 6.3: every one within a year.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TestPlan {
    pub every: Duration,
}

impl Default for TestPlan {
    fn default() -> Self {
        Self { every: DAY * 365 }
    }
}

impl TestPlan {
    pub fn read(r: &Reader<'_>) -> Self {
        let every = r.or("every", Self::default().every);
        if !(DAY..=DAY * 3_660).contains(&every) {
            let hint = Some("such as \"365d\"".to_owned());
            r.fault("every", "`walk.every` must lie between one day and ten years", hint);
        }
        r.finish();
        Self { every }
    }
}

/// When each point was last tested.
#[derive(Debug, Default)]
pub struct TestCalendar {
    plan: TestPlan,
    /// What was never tested is due one period after this.
    since: Wall,
    tested: HashMap<PointId, Wall>,
    look_at: Option<Mono>,
    /// How many were overdue when that was last said.
    told: Option<usize>,
}

impl TestCalendar {
    pub fn new(plan: TestPlan, since: Wall, tested: BTreeMap<PointId, Wall>) -> Self {
        Self { plan, since, tested: tested.into_iter().collect(), look_at: None, told: None }
    }

    /// When somebody last tested it.
    pub fn last(&self, point: &PointId) -> Option<Wall> {
        self.tested.get(point).copied()
    }

    pub fn every(&self) -> Duration {
        self.plan.every
    }

    pub fn handle_tick(&mut self, now: Now, tick: &Tick) {
        if matches!(tick.end, Some((_, TickEnd::Returned))) {
            let last = self.tested.entry(tick.point.clone()).or_insert(tick.at);
            *last = (*last).max(tick.at);
            let soon = now.mono.plus(LOOK_AFTER);
            self.look_at = self.look_at.map(|at| at.min(soon));
        }
    }

    /// That detectors are overdue, or that none is any more; the number of them, where it changes.
    pub fn poll_part(&mut self, now: Now, points: &Points) -> Option<PartState> {
        if self.look_at.is_some_and(|at| at > now.mono) {
            return None;
        }
        self.look_at = Some(now.mono.plus(LOOK_EVERY));
        let is_overdue = |id: &PointId| {
            // What was tested tomorrow was tested by a wrong clock.
            let past = |at: &Wall| *at <= now.wall;
            let since = self.since.min(now.wall);
            let last = self.tested.get(id).copied().filter(past).map_or(since, |tested| tested.max(since));
            now.wall > last.plus(self.plan.every)
        };
        let testable = points.iter().filter(|(_, point)| is_testable(point.spec.kind));
        let overdue: Vec<&PointId> = testable.map(|(_, point)| &point.id).filter(|id| is_overdue(id)).collect();
        if self.told.replace(overdue.len()) == Some(overdue.len()) {
            return None;
        }
        let days = self.plan.every.as_secs() / 86_400;
        let first: Vec<&str> = overdue.iter().take(3).map(|id| id.as_str()).collect();
        let message = Text {
            zh: format!("{} 个探测器或按钮超过 {days} 天没有测试，例如 {}", overdue.len(), first.join("、")),
            en: format!(
                "{} detectors or buttons have not been tested for {days} days, such as {}",
                overdue.len(),
                first.join(", ")
            ),
        };
        let finding = Finding { level: Level::Blue, limit: None, note: None };
        Some(PartState {
            part: Arc::from("walk"),
            trouble: (!overdue.is_empty()).then_some(PartTrouble { finding, message }),
        })
    }
}

#[cfg(test)]
mod tests {
    use anmin_rules::rule::RuleId;
    use anmin_rules::walk::WalkId;
    use anmin_sensors::point::{DeviceId, Kind, Place, PointSpec};

    use super::*;

    fn at(days: u32, seconds: u64) -> Now {
        let start = Now { mono: Mono::from_nanos(1), wall: Wall::from_millis(1_800_000_000_000) };
        start.plus(DAY * days + Duration::from_secs(seconds))
    }

    fn tick(days: u32, point: &str, how: TickEnd) -> Tick {
        Tick {
            walk: WalkId(uuid::Uuid::from_u128(1)),
            point: PointId::new(point),
            kind: Kind::named("fire.smoke").expect("a kind of the table"),
            place: Arc::default(),
            rule: RuleId::new("fire/smoke"),
            level: Level::Red,
            value: None,
            at: at(days, 0).wall,
            end: Some((at(days, 40).wall, how)),
        }
    }

    #[test]
    fn what_nobody_has_tested_for_a_year_is_said_until_somebody_has() {
        let mut points = Points::default();
        for device in ["s-1", "s-2"] {
            let specs = ["fire.smoke", "device.battery"].map(|kind| {
                Arc::new(PointSpec::plain(&kind.replace('.', "_"), Kind::named(kind).expect("a kind of the table")))
            });
            let place = Arc::new(Place::default());
            points.add(DeviceId::new(device), None, &"test".into(), &place, &specs).expect("each id is new");
        }
        let past = [(PointId::new("s-1/fire_smoke"), at(100, 0).wall)].into();
        let mut calendar = TestCalendar::new(TestPlan::default(), at(0, 0).wall, past);
        let told = |calendar: &mut TestCalendar, now| {
            let said = calendar.poll_part(now, &points)?;
            Some(said.trouble.map_or(String::new(), |trouble| trouble.message.en))
        };
        assert_eq!(told(&mut calendar, at(365, 0)).as_deref(), Some(""), "whatever the last run said");
        let one = "1 detectors or buttons have not been tested for 365 days, such as s-2/fire_smoke";
        assert_eq!(told(&mut calendar, at(366, 0)).as_deref(), Some(one));
        assert_eq!(told(&mut calendar, at(367, 0)), None, "said once");
        assert!(told(&mut calendar, at(466, 0)).is_some_and(|said| said.starts_with("2 ")));
        calendar.handle_tick(at(466, 50), &tick(466, "s-1/fire_smoke", TickEnd::Real));
        assert_eq!(told(&mut calendar, at(466, 200)), None, "what was real is no test");
        calendar.handle_tick(at(466, 250), &tick(466, "s-1/fire_smoke", TickEnd::Returned));
        assert_eq!(told(&mut calendar, at(466, 300)), None, "not with every tick");
        assert_eq!(told(&mut calendar, at(466, 320)).as_deref(), Some(one));
        calendar.handle_tick(at(466, 400), &tick(466, "s-2/fire_smoke", TickEnd::Returned));
        assert_eq!(told(&mut calendar, at(466, 500)).as_deref(), Some(""));
    }
}
