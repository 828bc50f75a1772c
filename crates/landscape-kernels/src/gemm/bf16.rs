//! Products in a [`Precision`].

use super::{Dims, Fused, Strides, tiled};
use crate::memory::Real;
use crate::precision::{Precision, round_all};

/// [`tiled`] in `precision`; sums of rows are not taken in bf16, where they would be of rounded numbers.
pub(crate) fn tiled_in<T: Real>(
    precision: Precision,
    dims: Dims,
    a: (&[T], Strides),
    b: (&[T], Strides),
    c: &mut [T],
    fused: Fused<'_, T>,
) {
    match precision {
        Precision::F32 => tiled(dims, a, b, c, fused),
        Precision::Bf16 => {
            assert!(fused.row_sums.is_none(), "sums of rows are taken before their rounding");
            let rounded = |values: &[T]| {
                let mut copy = vec![T::ZERO; values.len()];
                round_all(values, &mut copy);
                copy
            };
            tiled(dims, (&rounded(a.0), a.1), (&rounded(b.0), b.1), c, fused);
        }
    }
}
