//! Chance for jitter: never the same wait for a thousand boxes that lost the same broker.

use std::time::Duration;

/// SplitMix64: enough for jitter, the same numbers for the same seed.
#[derive(Debug)]
pub struct Chance(pub u64);

impl Chance {
    /// A time between nothing and `most`.
    pub fn up_to(&mut self, most: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(z % nanos.saturating_add(1).max(1))
    }
}
