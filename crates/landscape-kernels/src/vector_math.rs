//! Exponentials and what is made of them, in single precision as straight lines of products and sums that a compiler turns into vectors.
//!
//! The argument is reduced, and the polynomial is, as in `exp.rs`, whose exponential is for loops over rows and for arguments of at most zero.
//! Nothing here fuses a product and a sum, so loops under `multiversion!` have the same bits at every level. Double precision is that of
//! the standard library.

use crate::exp::{LN_2, P, WHOLE};

/// e^x and its kin for one number; in single precision to about two units in the last place.
pub trait VectorMath: Sized {
    /// e^x over the whole range, NaN for NaN.
    fn exp_lane(self) -> Self;
    /// e^x − 1 for x ≤ 0, precise near zero.
    fn exp_m1_lane(self) -> Self;
    /// ln(1 + x) for 0 ≤ x ≤ 1, precise near zero.
    fn ln_1p_lane(self) -> Self;
}

/// The value of a polynomial, coefficients from the constant on.
#[inline(always)]
pub(crate) fn polynomial<const N: usize>(coefficients: &[f32; N], x: f32) -> f32 {
    let mut value = coefficients[N - 1];
    for idx in (0..N - 1).rev() {
        value = value * x + coefficients[idx];
    }
    value
}

/// 2^exponent for −126 ≤ exponent ≤ 127.
#[inline(always)]
fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits((exponent.wrapping_add(127) << 23) as u32)
}

/// n and r of x = n·ln 2 + r, |r| ≤ ln(2)/2, n also as a number of the type.
#[inline(always)]
fn reduce(x: f32) -> (i32, f32, f32) {
    let sum = x * std::f32::consts::LOG2_E + WHOLE;
    let n = sum - WHOLE;
    ((sum.to_bits() as i32).wrapping_sub(WHOLE.to_bits() as i32), n, (x - n * LN_2[0]) - n * LN_2[1])
}

/// e^r − 1 for |r| ≤ ln(2)/2.
#[inline(always)]
fn small_exp_m1(r: f32) -> f32 {
    polynomial(&P, r) * (r * r) + r
}

/// e^(high + low) for −103 ≤ high ≤ 0 and a small low, which is what `high` was rounded by: precise where the argument needs more digits
/// than a number has.
#[inline(always)]
pub(crate) fn exp_of_sum(high: f32, low: f32) -> f32 {
    // Past 2^−126 the last factor makes the result subnormal.
    const SHIFT: i32 = 24;
    const BACK: f32 = 1.0 / (1_u32 << SHIFT) as f32;
    let (n, _, r) = reduce(high);
    (small_exp_m1(r + low) + 1.0) * power_of_two(n.wrapping_add(SHIFT)) * BACK
}

impl VectorMath for f32 {
    #[inline(always)]
    fn exp_lane(self) -> Self {
        let x = if self < -104.0 { -104.0 } else { self };
        let (n, _, r) = reduce(if x > 89.0 { 89.0 } else { x });
        // In two factors, so that the smallest and the largest results need no exponent that is none.
        let first = n >> 1;
        (small_exp_m1(r) + 1.0) * power_of_two(first) * power_of_two(n.wrapping_sub(first))
    }

    #[inline(always)]
    fn exp_m1_lane(self) -> Self {
        let (n, _, r) = reduce(if self < -30.0 { -30.0 } else { self });
        let power = power_of_two(n);
        small_exp_m1(r) * power + (power - 1.0)
    }

    #[inline(always)]
    fn ln_1p_lane(self) -> Self {
        // 2·artanh(s) = 2s + s·R with s = x/(2 + x) ≤ 1/3, R a series in s²; 2s = x − s·x leaves the leading term exact.
        const ARTANH: [f32; 7] = [2.0 / 3.0, 2.0 / 5.0, 2.0 / 7.0, 2.0 / 9.0, 2.0 / 11.0, 2.0 / 13.0, 2.0 / 15.0];
        let s = self / (2.0 + self);
        let square = s * s;
        self - s * (self - square * polynomial(&ARTANH, square))
    }
}

impl VectorMath for f64 {
    #[inline(always)]
    fn exp_lane(self) -> Self {
        self.exp()
    }

    #[inline(always)]
    fn exp_m1_lane(self) -> Self {
        self.exp_m1()
    }

    #[inline(always)]
    fn ln_1p_lane(self) -> Self {
        self.ln_1p()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// |got − expected| in units of the last place of `expected`, at least the smallest normal number's.
    fn ulps(got: f32, expected: f64) -> f64 {
        let size = (expected.abs().max(f64::from(f32::MIN_POSITIVE))).log2().floor();
        (f64::from(got) - expected).abs() / (size - 23.0).exp2()
    }

    #[test]
    fn single_precision_is_right_to_two_units_in_the_last_place() {
        for i in 0..400_000 {
            let x = (i as f32 - 205_000.0) * 5e-4;
            if x <= 88.7 {
                assert!(ulps(x.exp_lane(), f64::from(x).exp()) <= 2.0, "exp {x}: {}", x.exp_lane());
            }
            if x <= 0.0 {
                assert!(ulps(x.exp_m1_lane(), f64::from(x).exp_m1()) <= 2.5, "exp_m1 {x}: {}", x.exp_m1_lane());
                let e = x.exp_lane();
                assert!(ulps(e.ln_1p_lane(), f64::from(e).ln_1p()) <= 2.5, "ln_1p {e}: {}", e.ln_1p_lane());
            }
        }
    }

    #[test]
    fn sums_keep_the_digits_of_both_parts() {
        for i in 0..200_000 {
            let exact = -f64::from(i) * 5.15e-4 - 1e-9;
            let high = exact as f32;
            let (low, expected) = ((exact - f64::from(high)) as f32, exact.exp());
            let smallest = f64::from(f32::MIN_POSITIVE);
            let error = (f64::from(exp_of_sum(high, low)) - expected).abs() / f64::from(f32::EPSILON);
            assert!(error <= 2.0 * expected.max(smallest), "{exact}: {error}");
        }
    }

    #[test]
    fn the_ends() {
        assert_eq!(
            [0.0_f32, -0.0, 1e9, f32::INFINITY, f32::NEG_INFINITY, -104.0].map(VectorMath::exp_lane),
            [1.0, 1.0, f32::INFINITY, f32::INFINITY, 0.0, 0.0]
        );
        assert_eq!([0.0_f32, f32::NEG_INFINITY, -1e-20].map(VectorMath::exp_m1_lane), [0.0, -1.0, -1e-20]);
        assert_eq!([0.0_f32, 1e-20].map(VectorMath::ln_1p_lane), [0.0, 1e-20]);
        assert!(f32::NAN.exp_lane().is_nan() && f32::NAN.exp_m1_lane().is_nan() && f32::NAN.ln_1p_lane().is_nan());
    }
}
