//! Convolutions in bf16 where there is no kernel for it: copies of the operands, rounded, for the kernels of `f32`.

use super::rows::{Normalizer, normalize_all};
use super::shape::Conv2dShape;
use crate::memory::Real;
use crate::precision::{Precision, round_all, round_in_place};

/// Elements that the copies take at most.
pub(super) fn scratch_len(s: &Conv2dShape) -> usize {
    let (x, dy, weight) = (s.in_len(), s.out_len(), s.weight_len());
    (x + dy).max(x + weight).max(dy + weight)
}

/// The shape as the kernels of `f32` have it.
pub(super) fn plain(s: &Conv2dShape) -> Conv2dShape {
    Conv2dShape { precision: Precision::F32, ..*s }
}

/// Rounded copies of two operands at the end of `scratch`, the first read through the prologue, and what is left of `scratch`.
pub(super) fn copies<'a, T: Real>(
    s: &Conv2dShape,
    first: &[T],
    normalizer: Option<&Normalizer<T>>,
    second: &[T],
    scratch: &'a mut [T],
) -> (&'a [T], &'a [T], &'a mut [T]) {
    let len = scratch.len();
    let (scratch, copy) = scratch.split_at_mut(len - first.len() - second.len());
    let (copy, other) = copy.split_at_mut(first.len());
    match normalizer {
        None => round_all(first, copy),
        Some(normalizer) => {
            normalize_all(normalizer, s.in_channels, first, copy);
            round_in_place(copy);
        }
    }
    round_all(second, other);
    (copy, other, scratch)
}
