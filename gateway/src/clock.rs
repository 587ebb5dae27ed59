//! The only reader of the operating system's clocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anmin_sensors::time::{Mono, Now, Wall};
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
