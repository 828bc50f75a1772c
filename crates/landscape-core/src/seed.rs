//! Seeds by name: adding a consumer never shifts another's stream.
//!
//! A child's seed is a written-out 64-bit hash of the parent and a name (FNV-1a over both, then the SplitMix64 finaliser, so that
//! near names give far seeds); streams are ChaCha8, whose output is specified and the same on every machine.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// A seed, from which seeds and streams with names descend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seed(u64);

impl Seed {
    /// The root of a family.
    pub const fn new(value: u64) -> Self {
        Seed(value)
    }

    /// The number itself.
    pub const fn value(self) -> u64 {
        self.0
    }

    /// The seed of that name below this one.
    ///
    /// ```
    /// use landscape_core::Seed;
    /// let seed = Seed::new(1);
    /// assert_eq!(seed.child("init"), seed.child("init"));
    /// assert_ne!(seed.child("init"), seed.child("batches"));
    /// ```
    pub fn child(self, name: &str) -> Seed {
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        for byte in self.0.to_le_bytes().into_iter().chain(name.bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        Seed(mix(hash))
    }

    /// The seed of that number below this one.
    pub fn child_idx(self, idx: u64) -> Seed {
        Seed(mix(self.0 ^ mix(idx.wrapping_add(0x9e37_79b9_7f4a_7c15))))
    }

    /// The stream of this seed.
    pub fn stream(self) -> Stream {
        Stream(ChaCha8Rng::seed_from_u64(self.0))
    }
}

/// The finaliser of SplitMix64.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A stream of random numbers.
#[derive(Debug, Clone)]
pub struct Stream(ChaCha8Rng);

impl Stream {
    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform in [0, 1), on the 2⁵³ multiples of 2⁻⁵³.
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Standard normal, by Box and Muller.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Uniform below `n`, which must not be zero (multiply-shift of 64 bits: the bias is below n/2⁶⁴).
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.bits()) * n as u128) >> 64) as usize
    }

    /// Puts `items` in a uniformly random order (Fisher and Yates).
    pub fn shuffle<I>(&mut self, items: &mut [I]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_do_not_depend_on_their_siblings_and_streams_are_fixed() {
        let seed = Seed::new(7);
        assert_ne!(seed.child("a").value(), seed.child("b").value());
        assert_ne!(seed.child_idx(0).value(), seed.child_idx(1).value());
        // Written out, so that an upgrade of a dependency cannot shift every result in silence; by an independent program that knows
        // FNV-1a, SplitMix64's finaliser, and the eight rounds of ChaCha keyed by PCG32.
        assert_eq!((seed.child("init").value(), seed.child_idx(3).value()), (0xf200_1b89_3a84_3926, 0x59f0_a990_a364_d3fd));
        let mut stream = seed.stream();
        assert_eq!([stream.bits(), stream.bits()], [0x2865_5334_23d7_43bb, 0x2b01_59d3_2e9b_293a]);
        let mut stream = seed.stream();
        let mean = (0..20_000).map(|_| stream.uniform()).sum::<f64>() / 20_000.0;
        assert!((mean - 0.5).abs() < 4.0 * (1.0f64 / 12.0 / 20_000.0).sqrt());
        let normals: Vec<f64> = (0..20_000).map(|_| stream.normal()).collect();
        let variance = normals.iter().map(|v| v * v).sum::<f64>() / 20_000.0;
        assert!((variance - 1.0).abs() < 4.0 * (2.0f64 / 20_000.0).sqrt());
    }

    #[test]
    fn a_shuffle_is_a_permutation() {
        let mut items: Vec<usize> = (0..100).collect();
        Seed::new(3).stream().shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}
