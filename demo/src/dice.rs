//! Chance that a seed decides.

/// Numbers that a seed decides (SplitMix64), for each person by themselves.
pub(crate) struct Dice(u64);

impl Dice {
    /// Numbers of a person under a seed.
    pub(crate) fn new(seed: u64, who: &str) -> Self {
        // FNV-1a: any mixing of a person's number with the seed will do.
        let mixed = who.bytes().fold(seed ^ 0xcbf2_9ce4_8422_2325, |mixed, byte| {
            (mixed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(mixed)
    }

    /// The next number, below an end.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    /// Whether the next thing happens that happens once in so many times.
    pub(crate) fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }
}
