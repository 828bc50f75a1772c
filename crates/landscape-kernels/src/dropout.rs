//! Dropout with a counter-based mask: element i is kept or not by a hash of (seed, first_idx + i) alone.
//!
//! Nothing is drawn in order and nothing is stored: the backward pass makes the same mask again, and a batch cut in parts, at any
//! `first_idx`, gets the mask of the whole.

#[cfg(feature = "cuda")]
mod cuda;

use crate::check::shape_error;
use crate::error::{Result, check_len};
use crate::memory::{Accumulate, Real, View, ViewMut};
use crate::parallel::{CHUNK, for_each_chunk_mut};
use crate::simd::multiversion;

/// Which elements survive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DropoutMask {
    /// The probability that an element is set to zero, from 0 to 1.
    pub p: f64,
    /// The seed of this layer and step.
    pub seed: u64,
    /// Counter of the first element.
    pub first_idx: u64,
}

impl DropoutMask {
    /// What a kernel works with: the state that counters are added to, the first counter, and the least 53-bit number that is kept.
    pub fn words(&self) -> [u64; 3] {
        // u ≥ p with u = bits/2⁵³ says the same as bits ≥ ⌈p·2⁵³⌉, exactly: the product with a power of two does not round.
        let threshold = (self.p * (1_u64 << 53) as f64).ceil() as u64;
        [mix(self.seed), self.first_idx, threshold]
    }
}

/// y_i = x_i/(1 − p) where kept, else exactly 0.
///
/// Element i is kept iff u_i ≥ p, with u_i in [0, 1) the top 53 bits of the SplitMix64 output number first_idx + i + 1 from the state
/// mix(seed), mix being SplitMix64's own finaliser: so that nearby seeds do not give shifted copies of one sequence.
///
/// # Shapes
/// Both of any equal length.
///
/// # Errors
/// [`crate::Error::Length`] where lengths differ, [`crate::Error::Shape`] if p is not in [0, 1].
///
/// # Source
/// Steele, Lea and Flood 2014 for SplitMix64. Semantics of `torch.nn.functional.dropout`; the masks are ours, PyTorch's generator is
/// sequential. Where PyTorch multiplies by 0 we write 0, also for NaN and infinite `x`.
///
/// ```
/// use landscape_kernels::{View, dropout::{self, DropoutMask}};
/// let mask = DropoutMask { p: 0.5, seed: 7, first_idx: 0 };
/// let mut y = [0.0_f32; 4];
/// dropout::forward(&mask, View::Host(&[1.0; 4]), (&mut y[..]).into())?;
/// assert!(y.iter().all(|&y| y == 0.0 || y == 2.0));
/// # Ok::<(), landscape_kernels::Error>(())
/// ```
pub fn forward<T: Real>(mask: &DropoutMask, x: View<'_, T>, y: ViewMut<'_, T>) -> Result<()> {
    check_len("dropout::forward", "x", y.len(), x.len())?;
    apply("dropout::forward", mask, x, y, Accumulate::Overwrite)
}

/// dx_i = dy_i/(1 − p) where kept, else 0: the same mask again.
///
/// # Shapes
/// Both of any equal length.
///
/// # Errors
/// As [`forward`].
pub fn backward<T: Real>(mask: &DropoutMask, dy: View<'_, T>, dx: ViewMut<'_, T>, mode: Accumulate) -> Result<()> {
    check_len("dropout::backward", "dy", dx.len(), dy.len())?;
    apply("dropout::backward", mask, dy, dx, mode)
}

/// x ← x/(1 − p) where kept, else 0: [`forward`] and [`backward`] alike, where nobody needs what was there.
///
/// # Errors
/// [`crate::Error::Shape`] if p is not in [0, 1].
pub fn in_place<T: Real>(mask: &DropoutMask, x: ViewMut<'_, T>) -> Result<()> {
    let scale = factor("dropout::in_place", mask)?;
    let [state, first_idx, threshold] = mask.words();
    for_each_chunk_mut(x.host(), CHUNK, |idx, x| {
        mask_chunk_in_place(state, first_idx.wrapping_add((idx * CHUNK) as u64), threshold, scale, x);
    });
    Ok(())
}

fn apply<T: Real>(op: &'static str, mask: &DropoutMask, x: View<'_, T>, y: ViewMut<'_, T>, mode: Accumulate) -> Result<()> {
    let scale = factor(op, mask)?;
    on_device!(op, [x, y], gpu => cuda::apply(gpu, mask, x, y, mode));
    let [state, first_idx, threshold] = mask.words();
    let x = x.host();
    for_each_chunk_mut(y.host(), CHUNK, |idx, y| {
        let start = idx * CHUNK;
        let first = first_idx.wrapping_add(start as u64);
        mask_chunk(state, first, threshold, scale, &x[start..start + y.len()], y, mode);
    });
    Ok(())
}

/// What is kept is multiplied with this; with p = 1 nothing is kept and it is never used.
fn factor<T: Real>(op: &'static str, mask: &DropoutMask) -> Result<T> {
    if !(0.0..=1.0).contains(&mask.p) {
        return Err(shape_error(op, format!("`p` must be at least 0 and at most 1, got {}", mask.p)));
    }
    Ok(T::from_f64(1.0 / (1.0 - mask.p)))
}

/// SplitMix64's increment: 2⁶⁴ divided by the golden ratio.
const INCREMENT: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's finaliser.
#[inline(always)]
fn mix(state: u64) -> u64 {
    let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

multiversion! {
    fn mask_chunk<T>(state: u64, first: u64, threshold: u64, scale: T, x: &[T], y: &mut [T], mode: Accumulate) {
        let mut counter = state.wrapping_add(first.wrapping_mul(INCREMENT));
        for (y, &x) in y.iter_mut().zip(x) {
            counter = counter.wrapping_add(INCREMENT);
            let kept = if mix(counter) >> 11 >= threshold { scale * x } else { T::ZERO };
            *y = match mode {
                Accumulate::Overwrite => kept,
                Accumulate::Add => *y + kept,
            };
        }
    }
}

multiversion! {
    fn mask_chunk_in_place<T>(state: u64, first: u64, threshold: u64, scale: T, x: &mut [T]) {
        let mut counter = state.wrapping_add(first.wrapping_mul(INCREMENT));
        for x in x {
            counter = counter.wrapping_add(INCREMENT);
            *x = if mix(counter) >> 11 >= threshold { scale * *x } else { T::ZERO };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::naive::dropout as naive;
    use crate::naive::tools::{LENGTHS, bits, check_gradient, dot, on_pools, values};
    use proptest::prelude::*;

    fn run<T: Real>(mask: &DropoutMask, x: &[T]) -> Vec<T> {
        let mut y = vec![T::ONE; x.len()];
        forward(mask, x.into(), (&mut y).into()).expect("lengths agree");
        y
    }

    fn run_back<T: Real>(mask: &DropoutMask, dy: &[T], start: &[T], mode: Accumulate) -> Vec<T> {
        let mut dx = start.to_vec();
        backward(mask, dy.into(), (&mut dx).into(), mode).expect("lengths agree");
        dx
    }

    fn same_as_naive<T: Real>(mask: &DropoutMask, n: usize) {
        let (x, start) = (values::<T>(n, 1), values::<T>(n, 2));
        assert_eq!(bits(&run(mask, &x)), bits(&naive::apply(mask, &x, None)));
        assert_eq!(bits(&run_back(mask, &x, &start, Accumulate::Overwrite)), bits(&naive::apply(mask, &x, None)));
        assert_eq!(bits(&run_back(mask, &x, &start, Accumulate::Add)), bits(&naive::apply(mask, &x, Some(&start))));
        let mut y = x.clone();
        in_place(mask, (&mut y).into()).expect("p is a probability");
        assert_eq!(bits(&y), bits(&naive::apply(mask, &x, None)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn equals_naive(n in prop::sample::select(LENGTHS.to_vec()), p in 0.0_f64..=1.0, seed: u64, first_idx: u64) {
            let mask = DropoutMask { p, seed, first_idx };
            same_as_naive::<f32>(&mask, n);
            same_as_naive::<f64>(&mask, n);
        }

        #[test]
        fn a_part_has_the_mask_of_the_whole(cut in 0_usize..3000, seed: u64, first_idx: u64) {
            let mask = DropoutMask { p: 0.3, seed, first_idx };
            let x = values::<f32>(3000, 1);
            let head = run(&mask, &x[..cut]);
            let tail = run(&DropoutMask { first_idx: first_idx.wrapping_add(cut as u64), ..mask }, &x[cut..]);
            assert_eq!(run(&mask, &x), [head, tail].concat());
        }
    }

    #[test]
    fn gradient_equals_finite_differences() {
        let mask = DropoutMask { p: 0.4, seed: 3, first_idx: 9 };
        let (x, dy) = (values::<f64>(50, 1), values::<f64>(50, 2));
        check_gradient(&x, &run_back(&mask, &dy, &[0.0; 50], Accumulate::Overwrite), |x| dot(&run(&mask, x), &dy));
    }

    /// The sequence is SplitMix64's: its published outputs from state 0 are made here from counters.
    #[test]
    fn the_hash_is_splitmix64() {
        assert_eq!(mix(INCREMENT), 0xe220_a839_7b1d_cdaf);
        assert_eq!(mix(INCREMENT.wrapping_mul(2)), 0x6e78_9e6a_a1b9_65f4);
        assert_eq!(mix(INCREMENT.wrapping_mul(3)), 0x06c4_5d18_8009_454f);
    }

    /// Shares of kept elements are binomial: over seeds, neighbours and nearby seeds, within five standard errors.
    #[test]
    fn masks_are_independent_and_fair() {
        let n = 100_000;
        let ones = vec![1.0_f32; n];
        for p in [0.1, 0.5, 0.9] {
            let kept = |seed| run(&DropoutMask { p, seed, first_idx: 0 }, &ones).iter().map(|&y| y != 0.0).collect::<Vec<_>>();
            let within = |count: usize, n: usize, q: f64| {
                let (mean, sd) = (n as f64 * q, (n as f64 * q * (1.0 - q)).sqrt());
                assert!((count as f64 - mean).abs() < 5.0 * sd, "{count} of {n} for {q}");
            };
            let (a, b) = (kept(1), kept(2));
            let q = 1.0 - p;
            within(a.iter().filter(|k| **k).count(), n, q);
            within(a.iter().zip(&b).filter(|(a, b)| **a && **b).count(), n, q * q);
            within(a.windows(2).step_by(2).filter(|w| w[0] && w[1]).count(), n / 2, q * q);
        }
    }

    #[test]
    fn the_ends_of_p_are_identity_and_zero() {
        let x = [1.5_f32, -2.0, f32::NAN, f32::INFINITY];
        assert_eq!(bits(&run(&DropoutMask { p: 0.0, seed: 1, first_idx: 0 }, &x)), bits(&x));
        assert_eq!(run(&DropoutMask { p: 1.0, seed: 1, first_idx: 0 }, &x), [0.0; 4]);
        assert_eq!(run_back(&DropoutMask { p: 1.0, seed: 1, first_idx: 0 }, &x, &[2.0; 4], Accumulate::Add), [2.0; 4]);
    }

    #[test]
    fn bits_do_not_depend_on_the_thread_count() {
        let x = values::<f32>(3 * CHUNK + 7, 1);
        let mask = DropoutMask { p: 0.5, seed: 4, first_idx: u64::MAX - 5 };
        on_pools(|| bits(&run_back(&mask, &run(&mask, &x), &x, Accumulate::Add)));
    }

    #[test]
    fn bad_arguments_are_errors() {
        let (x, mut y) = ([1.0_f32; 3], [5.0_f32; 2]);
        let mask = DropoutMask { p: 0.5, seed: 4, first_idx: 0 };
        assert!(forward(&mask, (&x[..]).into(), (&mut y[..]).into()).is_err());
        assert!(backward(&mask, (&x[..]).into(), (&mut y[..]).into(), Accumulate::Add).is_err());
        for p in [-0.1, 1.1, f64::NAN] {
            let error = forward(&DropoutMask { p, ..mask }, (&x[..2]).into(), (&mut y[..]).into()).expect_err("p is no probability");
            assert!(error.to_string().starts_with("`dropout::forward`: `p` must be at least 0 and at most 1, got "));
        }
        assert_eq!(y, [5.0; 2]);
    }
}
