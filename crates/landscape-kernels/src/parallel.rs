//! Fixed splits over rayon: the cuts depend on lengths alone, so results have the same bits for any number of threads.

use rayon::prelude::*;

/// Elements that one task of an element-wise kernel works on: large enough to hide the cost of a task, small enough for L1/L2.
pub const CHUNK: usize = 16 * 1024;

/// How many partial results a reduction over `n_items` is cut into: at most 16, at least `min_items` items each.
///
/// A function of the problem alone: the number of threads never enters.
pub fn n_splits(n_items: usize, min_items: usize) -> usize {
    n_items.div_ceil(min_items.max(1)).clamp(1, 16)
}

/// The half-open range of split `idx` of `n_splits` over `n_items`, as even as possible.
pub fn split_range(n_items: usize, n_splits: usize, idx: usize) -> std::ops::Range<usize> {
    let (base, rest) = (n_items / n_splits, n_items % n_splits);
    let start = idx * base + idx.min(rest);
    start..start + base + usize::from(idx < rest)
}

/// Runs `f(chunk_idx, chunk)` over pieces of `out` of `chunk` elements, in parallel where there is more than one.
pub fn for_each_chunk_mut<T: Send>(out: &mut [T], chunk: usize, f: impl Fn(usize, &mut [T]) + Sync + Send) {
    let chunk = chunk.max(1);
    if out.len() <= chunk {
        if !out.is_empty() {
            f(0, out);
        }
    } else {
        out.par_chunks_mut(chunk).enumerate().for_each(|(idx, piece)| f(idx, piece));
    }
}

/// Maps each of `n_splits` fixed ranges of `n_items` to a partial result, in parallel, and returns them in order.
pub fn map_splits<R: Send>(n_items: usize, n_splits: usize, f: impl Fn(std::ops::Range<usize>) -> R + Sync + Send) -> Vec<R> {
    if n_splits <= 1 {
        return vec![f(0..n_items)];
    }
    (0..n_splits).into_par_iter().map(|idx| f(split_range(n_items, n_splits, idx))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_cover_every_item_once() {
        for n_items in [0, 1, 7, 16, 1000] {
            for n in 1..=17 {
                let mut next = 0;
                for idx in 0..n {
                    let range = split_range(n_items, n, idx);
                    assert_eq!(range.start, next);
                    next = range.end;
                }
                assert_eq!(next, n_items);
            }
        }
    }
}
