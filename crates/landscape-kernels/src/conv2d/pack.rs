//! Weights in the order that the kernels read: `[group][tap][in channel of the group][out channel of the group]`, so that the
//! output channels, the innermost dimension of an activation, are innermost here too. Depthwise weights are `[tap][channel]`.

use super::shape::{Conv2dShape, OP};
use crate::error::{Result, check_len};
use crate::memory::{Accumulate, Real, View, ViewMut};
use crate::parallel::for_each_chunk_mut;
use rayon::prelude::*;

/// Outputs that are exchanged with inputs and taps at a time: a line of the cache.
const OUTPUTS: usize = 16;
/// Inputs times taps that are exchanged at a time.
const COLUMNS: usize = 144;
/// The distance of a tile's rows: not a power of two, so that a column's numbers do not evict each other.
const ROW: usize = COLUMNS + 16;

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
    if shape.is_depthwise() || shape.n_taps() > COLUMNS {
        for_each_pair(shape, |o, p| packed[p] = oihw[o]);
    } else {
        let group = shape.weight_len() / shape.groups;
        oihw.chunks_exact(group).zip(packed.chunks_exact_mut(group)).for_each(|(oihw, packed)| pack_group(shape, oihw, packed));
    }
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
    if shape.is_depthwise() || shape.n_taps() > COLUMNS {
        match mode {
            Accumulate::Overwrite => for_each_pair(shape, |o, p| oihw[o] = packed[p]),
            Accumulate::Add => for_each_pair(shape, |o, p| oihw[o] += packed[p]),
        }
    } else {
        let group = shape.weight_len() / shape.groups;
        packed.chunks_exact(group).zip(oihw.chunks_exact_mut(group)).for_each(|(packed, oihw)| unpack_group(shape, packed, oihw, mode));
    }
    Ok(())
}

/// Inputs that are exchanged at a time.
fn inputs_at_once(shape: &Conv2dShape) -> usize {
    (COLUMNS / shape.n_taps()).max(1)
}

/// One group: some inputs per task, whose rows lie in as many places as there are taps.
fn pack_group<T: Real>(shape: &Conv2dShape, oihw: &[T], packed: &mut [T]) {
    let (n_taps, in_group, out_group) = (shape.n_taps(), shape.in_group(), shape.out_group());
    let (at_once, k) = (inputs_at_once(shape), in_group * n_taps);
    let mut tasks: Vec<Vec<&mut [T]>> = (0..in_group.div_ceil(at_once)).map(|_| Vec::with_capacity(n_taps)).collect();
    for tap in packed.chunks_exact_mut(in_group * out_group) {
        tap.chunks_mut(at_once * out_group).zip(&mut tasks).for_each(|(rows, task)| task.push(rows));
    }
    tasks.into_par_iter().enumerate().for_each(|(idx, mut taps)| {
        let columns = idx * at_once * n_taps..k.min((idx + 1) * at_once * n_taps);
        let mut tile = [T::ZERO; OUTPUTS * ROW];
        for first in (0..out_group).step_by(OUTPUTS) {
            let n = OUTPUTS.min(out_group - first);
            for (o, row) in tile.chunks_exact_mut(ROW).take(n).enumerate() {
                row[..columns.len()].copy_from_slice(&oihw[(first + o) * k..][columns.clone()]);
            }
            for (tap, rows) in taps.iter_mut().enumerate() {
                for (i, row) in rows.chunks_exact_mut(out_group).enumerate() {
                    let column = tile[i * n_taps + tap..].iter().step_by(ROW);
                    row[first..first + n].iter_mut().zip(column).for_each(|(to, from)| *to = *from);
                }
            }
        }
    });
}

/// One group: some outputs per task, whose rows lie behind each other.
fn unpack_group<T: Real>(shape: &Conv2dShape, packed: &[T], oihw: &mut [T], mode: Accumulate) {
    let (n_taps, in_group, out_group) = (shape.n_taps(), shape.in_group(), shape.out_group());
    let (at_once, k) = (inputs_at_once(shape), in_group * n_taps);
    for_each_chunk_mut(oihw, OUTPUTS * k, |idx, out| {
        let (first, n) = (idx * OUTPUTS, out.len() / k);
        let mut tile = [T::ZERO; OUTPUTS * ROW];
        for first_input in (0..in_group).step_by(at_once) {
            let inputs = first_input..in_group.min(first_input + at_once);
            for tap in 0..n_taps {
                for (i, input) in inputs.clone().enumerate() {
                    let row = &packed[(tap * in_group + input) * out_group + first..][..n];
                    let column = tile[i * n_taps + tap..].iter_mut().step_by(ROW);
                    column.zip(row).for_each(|(to, from)| *to = *from);
                }
            }
            let columns = inputs.start * n_taps..inputs.end * n_taps;
            for (out, row) in out.chunks_exact_mut(k).zip(tile.chunks_exact(ROW)) {
                let (out, row) = (&mut out[columns.clone()], &row[..columns.len()]);
                match mode {
                    Accumulate::Overwrite => out.copy_from_slice(row),
                    Accumulate::Add => out.iter_mut().zip(row).for_each(|(o, r)| *o += *r),
                }
            }
        }
    });
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn tiles_put_every_weight_where_it_belongs() {
        let base = Conv2dShape {
            n: 1,
            in_channels: 40,
            in_size: [16, 16],
            out_channels: 33,
            kernel_size: [3, 3],
            stride: [1, 1],
            padding: [0, 0],
            dilation: [1, 1],
            groups: 1,
            precision: crate::Precision::F32,
        };
        let others = [
            Conv2dShape { kernel_size: [1, 1], in_channels: 300, ..base },
            Conv2dShape { kernel_size: [13, 12], in_channels: 2, out_channels: 3, ..base },
            Conv2dShape { kernel_size: [5, 7], out_channels: 66, groups: 2, ..base },
            Conv2dShape { in_channels: 33, groups: 33, ..base },
        ];
        for s in std::iter::once(base).chain(others) {
            let oihw: Vec<f32> = (0..s.weight_len()).map(|i| i as f32).collect();
            let (mut packed, mut expected) = (vec![-1.0; oihw.len()], vec![-1.0; oihw.len()]);
            pack_weight(&s, (&oihw).into(), (&mut packed).into()).unwrap();
            for_each_pair(&s, |o, p| expected[p] = oihw[o]);
            assert_eq!(packed, expected, "{s:?}");
            let mut back = vec![1.0; oihw.len()];
            unpack_gradient(&s, (&packed).into(), (&mut back).into(), Accumulate::Add).unwrap();
            assert!(back.iter().zip(&oihw).all(|(b, w)| *b == 1.0 + w), "{s:?}");
        }
    }
}
