//! Chance from a seed: SplitMix64, the same throws for the same seed and stream on every machine.

pub struct Dice(u64);

impl Dice {
    /// Streams of one seed are independent: what one part of the world throws moves nothing in another.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut dice = Self(seed ^ stream.wrapping_mul(0xd134_2543_de82_ef95));
        dice.throw();
        dice
    }

    pub fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `least` up to, not including, `end`.
    pub fn from(&mut self, least: u64, end: u64) -> u64 {
        least + self.throw() % (end - least).max(1)
    }

    pub fn percent(&mut self, chance: u64) -> bool {
        self.throw() % 100 < chance
    }

    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[(self.throw() % choices.len() as u64) as usize]
    }
}
