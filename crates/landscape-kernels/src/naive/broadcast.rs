//! Twins of the broadcasts, index by index.

use crate::broadcast::{BroadcastShape, Side};
use crate::memory::{Accumulate, Real};

/// The index of every element of the result, and its places in both operands.
fn places(s: &BroadcastShape) -> Vec<[usize; 2]> {
    let n: usize = s.dims.iter().product();
    (0..n)
        .map(|flat| {
            let (mut rest, mut index) = (flat, vec![0; s.dims.len()]);
            for axis in (0..s.dims.len()).rev() {
                index[axis] = rest % s.dims[axis];
                rest /= s.dims[axis];
            }
            [&s.a, &s.b].map(|sizes| {
                let mut place = 0;
                for (axis, &size) in sizes.iter().enumerate() {
                    place = place * size + if size == 1 { 0 } else { index[axis] };
                }
                place
            })
        })
        .collect()
}

pub(crate) fn forward<T: Real>(s: &BroadcastShape, a: &[T], b: &[T], f: impl Fn(T, T) -> T) -> Vec<T> {
    places(s).into_iter().map(|[i, j]| f(a[i], b[j])).collect()
}

pub(crate) fn backward<T: Real>(s: &BroadcastShape, side: Side, other: Option<&[T]>, dy: &[T], start: &[T], mode: Accumulate) -> Vec<T> {
    let mut sums = vec![0.0; start.len()];
    for ([i, j], dy) in places(s).into_iter().zip(dy) {
        let (own, theirs) = if side == Side::A { (i, j) } else { (j, i) };
        sums[own] += dy.to_f64() * other.map_or(1.0, |other| other[theirs].to_f64());
    }
    sums.iter().zip(start).map(|(sum, s)| T::from_f64(if mode == Accumulate::Add { s.to_f64() + sum } else { *sum })).collect()
}
