//! The only reader of the operating system's clocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anmin_sensors::decode::gbt26875::TimeTag;
use anmin_sensors::time::{Mono, Now, Wall};
use jiff::civil;
use jiff::tz::TimeZone;
use nix::time::{ClockId, clock_gettime};

/// The monotonic clock of a process begins with so much behind it: what was measured before the start has its moment, too.
const BEHIND: Duration = Duration::from_secs(400 * 86_400);

/// Cheap to clone; every clone reads the same clock.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System {
        start: Instant,
    },
    /// Moved by hand: nanoseconds since start, added to a wall time in microseconds.
    Manual {
        elapsed: Arc<AtomicU64>,
        wall_at_start: Arc<AtomicI64>,
    },
}

/// What the calling thread has computed so far; zero where the system does not say.
pub fn computing_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// A moment as GB/T 26875.3 writes it: the zone's local time, from 2000 on and before 2256.
pub fn time_tag(at: Wall, zone: &TimeZone) -> TimeTag {
    let stamp = jiff::Timestamp::from_microsecond(at.micros()).unwrap_or_default();
    let local = zone.to_datetime(stamp);
    let year = local.year().clamp(2_000, 2_255) - 2_000;
    let (date, time) = (local.date(), local.time());
    [time.second() as u8, time.minute() as u8, time.hour() as u8, date.day() as u8, date.month() as u8, year as u8]
}

/// The moment that a time tag means; `None` where it is no time, such as month 0.
pub fn tagged(&[second, minute, hour, day, month, year]: &TimeTag, zone: &TimeZone) -> Option<Wall> {
    let small = |byte: u8| i8::try_from(byte).ok();
    let (month, day) = (small(month)?, small(day)?);
    let (hour, minute, second) = (small(hour)?, small(minute)?, small(second)?);
    let local = civil::DateTime::new(2_000 + i16::from(year), month, day, hour, minute, second, 0).ok()?;
    let stamp = zone.to_ambiguous_timestamp(local).compatible().ok()?;
    Some(Wall::from_micros(stamp.as_microsecond()))
}

impl Clock {
    pub fn system() -> Self {
        Self(Source::System { start: Instant::now() })
    }

    /// A clock for tests that stands still until [`Clock::advance`].
    pub fn manual(wall_at_start: Wall) -> Self {
        let wall_at_start = Arc::new(AtomicI64::new(wall_at_start.micros()));
        Self(Source::Manual { elapsed: Arc::default(), wall_at_start })
    }

    pub fn now(&self) -> Now {
        match &self.0 {
            Source::System { start } => {
                let wall = match SystemTime::now().duration_since(UNIX_EPOCH) {
                    Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
                    Err(before) => -i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX),
                };
                Now { mono: Mono::default().plus(BEHIND + start.elapsed()), wall: Wall::from_micros(wall) }
            }
            Source::Manual { elapsed, wall_at_start } => {
                let wait = Duration::from_nanos(elapsed.load(Ordering::SeqCst));
                let wall = Wall::from_micros(wall_at_start.load(Ordering::SeqCst));
                Now { mono: Mono::default().plus(wait), wall: wall.plus(wait) }
            }
        }
    }

    /// Moves a manual clock; a system clock goes by itself and ignores this.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual { elapsed, .. } = &self.0 {
            elapsed.fetch_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX), Ordering::SeqCst);
        }
    }
    /// Steps a manual clock's wall time, as NTP or a person would; delays must not notice.
    pub fn step_wall(&self, micros: i64) {
        if let Source::Manual { wall_at_start, .. } = &self.0 {
            wall_at_start.fetch_add(micros, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::Offset;

    use super::*;

    #[test]
    fn a_time_tag_is_the_local_time_to_the_second() {
        let shanghai = TimeZone::fixed(Offset::constant(8));
        // 2026-03-01T09:30:00+08:00.
        let at = Wall::from_millis(1_772_328_600_000);
        assert_eq!(time_tag(at, &shanghai), [0, 30, 9, 1, 3, 26]);
        assert_eq!(tagged(&[0, 30, 9, 1, 3, 26], &shanghai), Some(at));
        for none in [
            [60, 0, 0, 1, 1, 26],
            [0, 0, 24, 1, 1, 26],
            [0, 0, 0, 0, 1, 26],
            [0, 0, 0, 1, 0, 26],
            [0, 0, 0, 30, 2, 26],
            [200; 6],
        ] {
            assert_eq!(tagged(&none, &shanghai), None, "{none:?}");
        }
    }
}
