//! A small seeded generator (SplitMix64): jitter, ids of sends and the dice of tests.
//!
//! Good enough to spread reconnects and to keep keys apart; nothing here is a secret.

/// A generator whose whole future follows from its seed.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Starts a sequence.
    pub const fn from_seed(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next 64 bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below the bound; 0 for the bound 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        // The bias of a modulus is below bound / 2^64.
        if bound == 0 { 0 } else { self.bits() % bound }
    }

    /// Returns a number in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        // 53 bits fit an f64 exactly.
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
        let bits = (self.bits() >> 11) as f64;
        bits / 9_007_199_254_740_992.0
    }

    /// Tells whether an event of this probability happens.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Returns a generator of its own, so that two users of one seed do not disturb each other.
    #[must_use]
    pub const fn fork(&mut self) -> Self {
        Self(self.bits())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_sequence_and_values_stay_in_range() {
        let (mut one, mut other) = (Random::from_seed(7), Random::from_seed(7));
        for _ in 0..1_000 {
            assert_eq!(one.bits(), other.bits());
            assert!((0.0..1.0).contains(&one.unit()));
            other.unit();
            assert!(one.below(10) < 10);
            other.below(10);
        }
        assert_eq!(one.below(0), 0);
        assert_ne!(Random::from_seed(1).bits(), Random::from_seed(2).bits());
    }
}
