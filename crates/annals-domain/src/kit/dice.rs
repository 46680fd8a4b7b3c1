//! Random choices that a seed repeats exactly.

use std::ops::RangeInclusive;

/// A source of choices for generated tests. The same seed makes the same choices.
///
/// **Source:** SplitMix64, from Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Dice with this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from the range, both ends included.
    ///
    /// # Panics
    /// If the range is empty.
    pub fn number(&mut self, range: RangeInclusive<i64>) -> i64 {
        let (first, last) = range.into_inner();
        assert!(first <= last, "nothing lies between {first} and {last}");
        let width = last.abs_diff(first);
        let step = match width.checked_add(1) {
            Some(width) => self.bits() % width,
            None => self.bits(),
        };
        first.wrapping_add_unsigned(step)
    }

    /// True once in `n` throws.
    ///
    /// # Panics
    /// If `n` is 0.
    pub fn one_in(&mut self, n: u32) -> bool {
        assert!(n > 0, "once in none is never");
        self.bits().is_multiple_of(u64::from(n))
    }

    /// One of these.
    ///
    /// # Panics
    /// If there are none.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        let last = i64::try_from(of.len()).unwrap_or(i64::MAX) - 1;
        let index = usize::try_from(self.number(0..=last)).expect("an index is not negative");
        &of[index]
    }
}
