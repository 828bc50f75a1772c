//! Numbers where they stand in a file's bytes.

use crate::memory::Real;
use half::bf16;

/// Bytes as little-endian floats, if this processor can read them there: they must be whole and aligned.
///
/// ```
/// use landscape_kernels::bytes::as_floats;
/// let numbers = [1.0_f32, -2.0];
/// let bytes: Vec<u8> = numbers.iter().flat_map(|v| v.to_le_bytes()).collect();
/// assert!(as_floats::<f32>(&bytes).is_none_or(|found| found == numbers));
/// assert!(as_floats::<f32>(&bytes[1..]).is_none());
/// ```
pub fn as_floats<T: Real>(bytes: &[u8]) -> Option<&[T]> {
    // SAFETY: `Real` is sealed to `f32` and `f64`, of which every pattern of bits is a number.
    unsafe { aligned(bytes) }
}

/// The same for bf16.
pub fn as_bf16(bytes: &[u8]) -> Option<&[bf16]> {
    // SAFETY: a `bf16` is a `u16`, of which every pattern of bits is one.
    unsafe { aligned(bytes) }
}

/// # Safety
/// Every pattern of bits is a `T`.
unsafe fn aligned<T>(bytes: &[u8]) -> Option<&[T]> {
    // SAFETY: asked of the caller; `align_to` sees to the alignment.
    let (before, values, after) = unsafe { bytes.align_to::<T>() };
    (cfg!(target_endian = "little") && before.is_empty() && after.is_empty()).then_some(values)
}
