//! Walks over the axes of arrays with strides: what broadcasts, reductions and permutations share.

/// At most this many axes are left after neighbours that move alike were merged; tables of GPU kernels have as many places.
pub(crate) const MAX_AXES: usize = 8;

/// One axis of a walk over `K` arrays at once: its size, and by how much each of their positions moves (0: it stays).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Axis<const K: usize> {
    pub size: usize,
    pub strides: [usize; K],
}

/// The same walk with as few axes as there can be: those of size 1 are left out, neighbours that are one for every array are merged.
pub(crate) fn merged<const K: usize>(axes: impl IntoIterator<Item = Axis<K>>) -> Vec<Axis<K>> {
    let mut merged: Vec<Axis<K>> = Vec::new();
    for axis in axes.into_iter().filter(|axis| axis.size != 1) {
        match merged.last_mut() {
            Some(outer) if (0..K).all(|k| outer.strides[k] == axis.strides[k].wrapping_mul(axis.size)) => {
                *outer = Axis { size: outer.size.wrapping_mul(axis.size), strides: axis.strides };
            }
            _ => merged.push(axis),
        }
    }
    merged
}

/// The strides of an array whose axes have these sizes, outermost first; an axis of size 1 has none.
pub(crate) fn strides(sizes: &[usize]) -> Vec<usize> {
    let mut strides = vec![0; sizes.len()];
    let mut stride = 1_usize;
    for (out, &size) in strides.iter_mut().zip(sizes).rev() {
        *out = if size == 1 { 0 } else { stride };
        // Only an array without elements can wrap, and nobody walks over that.
        stride = stride.wrapping_mul(size);
    }
    strides
}

/// The positions of `K` arrays on a walk over some axes, the last moving fastest.
pub(crate) struct Walk<'a, const K: usize> {
    axes: &'a [Axis<K>],
    indices: [usize; MAX_AXES],
    at: [usize; K],
}

impl<'a, const K: usize> Walk<'a, K> {
    /// A walk that begins with its `start`-th place. There may be at most [`MAX_AXES`].
    #[inline]
    pub fn new(axes: &'a [Axis<K>], start: usize) -> Self {
        let (mut indices, mut at, mut rest) = ([0; MAX_AXES], [0; K], start);
        for (index, axis) in indices.iter_mut().zip(axes).rev() {
            *index = rest % axis.size;
            rest /= axis.size;
            for (at, stride) in at.iter_mut().zip(axis.strides) {
                *at += *index * stride;
            }
        }
        Walk { axes, indices, at }
    }

    /// Where the arrays are.
    #[inline(always)]
    pub fn at(&self) -> [usize; K] {
        self.at
    }

    /// Goes to the next place; after the last comes the first.
    #[inline(always)]
    pub fn step(&mut self) {
        for (index, axis) in self.indices.iter_mut().zip(self.axes).rev() {
            *index += 1;
            for k in 0..K {
                self.at[k] += axis.strides[k];
            }
            if *index < axis.size {
                return;
            }
            *index = 0;
            for k in 0..K {
                self.at[k] -= axis.size * axis.strides[k];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merged_walk_is_the_same_walk() {
        let sizes = [2, 3, 1, 4];
        for kept in 0..16_usize {
            let others: Vec<usize> = (0..4).map(|i| if kept >> i & 1 == 1 { sizes[i] } else { 1 }).collect();
            let (a, b) = (strides(&sizes), strides(&others));
            let axes: Vec<Axis<2>> = (0..4).map(|i| Axis { size: sizes[i], strides: [a[i], b[i]] }).collect();
            let short = merged(axes.clone());
            assert!(short.len() <= 3);
            let mut walk = Walk::new(&short, 0);
            for idx in 0..24 {
                let expected = Walk::new(&axes, idx).at();
                assert_eq!(expected[0], idx);
                assert_eq!((walk.at(), Walk::new(&short, idx).at()), (expected, expected));
                walk.step();
            }
            assert_eq!(walk.at(), [0, 0]);
        }
    }
}
