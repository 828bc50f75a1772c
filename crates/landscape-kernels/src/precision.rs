//! In what matrix products and convolutions are computed, and what rounding to bf16 means here.
//!
//! In [`Precision::Bf16`] the operands of matrix products and convolutions, forward and backward, are rounded to bf16 on the way in and
//! their products are added up in f32. Everything else stays f32: the weights that are trained and their momentum, bias, statistics, norms,
//! losses, activations in memory and whatever is done to them one by one.
//!
//! Rounding is to nearest, ties to even; NaN stays NaN; what is too large becomes infinite; numbers below 2^-126 become zero of their sign.
//! A product of two such numbers is exact in f32, so only sums round: on processors with AVX512-BF16 `vdpbf16ps` adds pairs of products,
//! the second of a pair before the first, each sum rounded to nearest, and takes sums below 2^-126 for zero; elsewhere the kernels for f32
//! run on rounded operands. Both are fixed by the shape, so bits depend on the processor's instructions and not on threads.

#[cfg(feature = "cuda")]
pub(crate) mod cuda;

use crate::error::{Error, Result};
use crate::memory::{Device, Real};
use crate::parallel::{CHUNK, for_each_chunk_mut};
use crate::simd::{as_f32, as_f32_mut};
use std::any::{TypeId, type_name};
use std::fmt;
use std::str::FromStr;

/// Why casts to `f32` succeed.
const CHECKED: &str = "the precision was checked against the scalar";

/// In what the products of matrices and convolutions are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// In the scalar of the operands.
    #[default]
    F32,
    /// On operands rounded to bf16, summed in f32.
    Bf16,
    /// On GPUs alone: cuBLAS and cuDNN may round operands to TF32 (10 bits of fraction) on the way in, and sum in f32; own kernels, where
    /// those are not there, compute in f32.
    Tf32,
}

impl Precision {
    /// All of them.
    pub const ALL: [Precision; 3] = [Precision::F32, Precision::Bf16, Precision::Tf32];

    /// Its name: `f32`, `bf16` or `tf32`.
    pub const fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
            Precision::Tf32 => "tf32",
        }
    }

    /// Whether there are kernels for scalars `T` on `device`.
    ///
    /// # Errors
    /// [`Error::NoPrecision`] where there are none.
    ///
    /// ```
    /// use landscape_kernels::{Device, Precision};
    /// assert!(Precision::Bf16.check::<f32>(&Device::Cpu).is_ok());
    /// assert!(Precision::Bf16.check::<f64>(&Device::Cpu).is_err());
    /// assert!(Precision::Tf32.check::<f32>(&Device::Cpu).is_err());
    /// ```
    pub fn check<T: Real>(self, device: &Device) -> Result<()> {
        if self == Precision::Tf32 && *device == Device::Cpu {
            return Err(Error::NoPrecision { precision: self, what: format!("device `{device}`") });
        }
        self.check_scalar::<T>()
    }

    /// The same as [`Precision::check`] for the scalar alone.
    pub(crate) fn check_scalar<T: Real>(self) -> Result<()> {
        if self != Precision::F32 && TypeId::of::<T>() != TypeId::of::<f32>() {
            return Err(Error::NoPrecision { precision: self, what: format!("`{}`", type_name::<T>()) });
        }
        Ok(())
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Precision::ALL.into_iter().find(|p| p.name() == name).ok_or_else(|| Error::UnknownPrecision(name.to_owned()))
    }
}

/// `value` rounded to bf16, by its bits.
#[inline(always)]
pub(crate) fn round_to_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
    let kept = if bits & 0x7f80_0000 == 0 {
        bits & 0x8000_0000
    } else if value.is_nan() {
        bits | 0x0040_0000
    } else {
        rounded
    };
    (kept >> 16) as u16
}

/// `value` rounded to bf16.
#[inline(always)]
pub(crate) fn round(value: f32) -> f32 {
    f32::from_bits(u32::from(round_to_bits(value)) << 16)
}

/// out = values rounded to bf16, in parallel; for `f32`.
pub(crate) fn round_all<T: Real>(values: &[T], out: &mut [T]) {
    let values = as_f32(values).expect(CHECKED);
    for_each_chunk_mut(as_f32_mut(out).expect(CHECKED), CHUNK, |idx, out| round_slice(&values[idx * CHUNK..idx * CHUNK + out.len()], out));
}

/// The same where they stand.
pub(crate) fn round_in_place<T: Real>(values: &mut [T]) {
    for_each_chunk_mut(as_f32_mut(values).expect(CHECKED), CHUNK, |_, values| values.iter_mut().for_each(|v| *v = round(*v)));
}

fn round_slice(values: &[f32], out: &mut [f32]) {
    for (out, &value) in out.iter_mut().zip(values) {
        *out = round(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;

    #[test]
    fn names_are_read_back() {
        for precision in Precision::ALL {
            assert_eq!(precision.to_string().parse::<Precision>().ok(), Some(precision));
        }
        let err = "f16".parse::<Precision>().err().map(|e| e.to_string());
        assert_eq!(err.as_deref(), Some("precision must be `f32`, `bf16` or `tf32`, got `f16`"));
    }

    #[test]
    fn rounding_is_that_of_bf16_with_small_numbers_as_zero() {
        let mut bits = 0_u32;
        for step in 0..400_000_u32 {
            bits = bits.wrapping_add(10_737 + step % 7);
            for value in [f32::from_bits(bits), f32::from_bits(bits & 0xffff_0000 | 0x8000), f32::from_bits(bits | 0xffff)] {
                let got = round(value);
                if value.is_nan() {
                    assert!(got.is_nan());
                } else if value.is_subnormal() {
                    assert_eq!(got.to_bits(), value.to_bits() & 0x8000_0000);
                } else {
                    assert_eq!(got.to_bits(), bf16::from_f32(value).to_f32().to_bits(), "{value:e}");
                }
            }
        }
    }
}
