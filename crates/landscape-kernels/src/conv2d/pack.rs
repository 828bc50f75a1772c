//! Weights in the order that the kernels read: `[group][tap][in channel of the group][out channel of the group]`, so that the
//! output channels, the innermost dimension of an activation, are innermost here too. Depthwise weights are `[tap][channel]`.

use super::shape::{Conv2dShape, OP};
use crate::error::{Result, check_len};
use crate::memory::{Accumulate, Real, View, ViewMut};

/// Brings PyTorch's `[out, in/groups, kh, kw]` into the order of the kernels.
///
/// # Shapes
/// Both have `weight_len` elements.
///
/// # Errors
/// As [`Conv2dShape::check`]; [`crate::Error::Length`] where an operand does not fit.
pub fn pack_weight<T: Real>(shape: &Conv2dShape, oihw: View<'_, T>, packed: ViewMut<'_, T>) -> Result<()> {
    shape.check()?;
    check_len(OP, "weight", shape.weight_len(), oihw.len())?;
    check_len(OP, "packed weight", shape.weight_len(), packed.len())?;
    on_device!(OP, [oihw, packed], gpu => super::cuda::pack_weight(gpu, shape, oihw, packed));
    let (oihw, packed) = (oihw.host(), packed.host());
    for_each_pair(shape, |o, p| packed[p] = oihw[o]);
    Ok(())
}

/// Brings a gradient in the order of the kernels back to `[out, in/groups, kh, kw]`.
///
/// # Shapes
/// Both have `weight_len` elements.
///
/// # Errors
/// As [`pack_weight`].
pub fn unpack_gradient<T: Real>(shape: &Conv2dShape, packed: View<'_, T>, oihw: ViewMut<'_, T>, mode: Accumulate) -> Result<()> {
    shape.check()?;
    check_len(OP, "packed gradient", shape.weight_len(), packed.len())?;
    check_len(OP, "gradient", shape.weight_len(), oihw.len())?;
    on_device!(OP, [packed, oihw], gpu => super::cuda::unpack_gradient(gpu, shape, packed, oihw, mode));
    let (packed, oihw) = (packed.host(), oihw.host());
    match mode {
        Accumulate::Overwrite => for_each_pair(shape, |o, p| oihw[o] = packed[p]),
        Accumulate::Add => for_each_pair(shape, |o, p| oihw[o] += packed[p]),
    }
    Ok(())
}

/// Calls `f` with the two places of every weight: in `[out, in/groups, kh, kw]`, and packed.
fn for_each_pair(shape: &Conv2dShape, mut f: impl FnMut(usize, usize)) {
    let (n_taps, in_group, out_group) = (shape.n_taps(), shape.in_group(), shape.out_group());
    if shape.is_depthwise() {
        for c in 0..shape.out_channels {
            for tap in 0..n_taps {
                f(c * n_taps + tap, tap * shape.out_channels + c);
            }
        }
        return;
    }
    for g in 0..shape.groups {
        for o in 0..out_group {
            let from = (g * out_group + o) * in_group * n_taps;
            let into = g * in_group * n_taps * out_group + o;
            for i in 0..in_group {
                for tap in 0..n_taps {
                    f(from + i * n_taps + tap, into + (tap * in_group + i) * out_group);
                }
            }
        }
    }
}
