//! The only source of chance of a run: the same seed, the same run.

/// A xorshift generator.
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// Neighbouring seeds give unrelated runs.
    pub fn new(seed: u64) -> Self {
        let mut z = seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Self((z ^ (z >> 31)) | 1)
    }

    /// Another run of the same seed: the first goes on as it is.
    pub(crate) fn vary(&mut self, variant: u64) {
        if variant > 0 {
            *self = Self::new(self.0 ^ variant.rotate_left(32));
        }
    }

    /// Any number.
    #[inline]
    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `n`.
    #[inline]
    pub fn below(&mut self, n: usize) -> usize {
        ((self.draw() >> 11) % n as u64) as usize
    }

    /// True in `some` of `all` cases.
    #[inline]
    pub fn odds(&mut self, some: usize, all: usize) -> bool {
        self.below(all) < some
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}
