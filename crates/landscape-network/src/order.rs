//! In which order the axes of an activation stand in memory.
//!
//! An example has logical axes, PyTorch's, and is stored with them in some order, the slowest first: images and signals with their
//! channels last, `[1, 2, 0]`, everything else mostly as it is, `[0, 1, …]`. Another order of the logical axes is then no work: a
//! permutation changes what the axes are called, and the ops that need a certain order get it by a copy in front of them, which
//! networks written for PyTorch hardly ever need. Axes of length 1 stand anywhere.

/// Which logical axis stands at each place in memory.
pub(crate) type Order = Vec<usize>;

/// The axes as they are.
pub(crate) fn row_major(rank: usize) -> Order {
    (0..rank).collect()
}

/// The first axis last.
pub(crate) fn channels_last(rank: usize) -> Order {
    (1..rank).chain(0..rank.min(1)).collect()
}

/// The lengths of the axes as they are stored.
pub(crate) fn stored(dims: &[usize], order: &[usize]) -> Vec<usize> {
    order.iter().map(|&axis| dims[axis]).collect()
}

/// Whether numbers under both orders stand at the same places.
pub(crate) fn is_same(dims: &[usize], a: &[usize], b: &[usize]) -> bool {
    let long = |order: &[usize]| order.iter().copied().filter(|&axis| dims[axis] != 1).collect::<Vec<_>>();
    long(a) == long(b)
}

/// Whether numbers stand in the order of the axes.
pub(crate) fn is_row_major(dims: &[usize], order: &[usize]) -> bool {
    is_same(dims, order, &row_major(dims.len()))
}

/// The order of an operand with axes `dims`, aligned at the last axis with a result that is stored in `result`: its own if its long axes
/// follow one another as the result's do, else the result's.
pub(crate) fn beside(dims: &[usize], own: &[usize], result: &[usize]) -> Order {
    let new_axes = result.len() - dims.len();
    let mut wanted: Order = row_major(dims.len());
    wanted.sort_by_key(|axis| result.iter().position(|at| *at == axis + new_axes));
    if is_same(dims, own, &wanted) { own.to_vec() } else { wanted }
}

/// The lengths of an operand's axes at the places of a result that is stored in `result`; 1 where it has none.
pub(crate) fn aligned(dims: &[usize], result: &[usize]) -> Vec<usize> {
    let new_axes = result.len() - dims.len();
    result.iter().map(|axis| axis.checked_sub(new_axes).map_or(1, |axis| dims[axis])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_axes_stand_anywhere() {
        assert_eq!(channels_last(3), [1, 2, 0]);
        assert_eq!(channels_last(1), [0]);
        assert!(is_row_major(&[5, 1, 1], &channels_last(3)));
        assert!(is_row_major(&[1, 3, 2], &channels_last(3)));
        assert!(!is_row_major(&[2, 1, 3], &channels_last(3)));
        assert_eq!(stored(&[4, 5, 6], &channels_last(3)), [5, 6, 4]);
    }

    #[test]
    fn an_operand_follows_the_result() {
        // A factor per channel of an image that is stored channels last stands there as it is.
        assert_eq!(beside(&[4, 1, 1], &[0, 1, 2], &[1, 2, 0]), [0, 1, 2]);
        assert_eq!(aligned(&[4, 1, 1], &[1, 2, 0]), [1, 1, 4]);
        // An image does not.
        assert_eq!(beside(&[4, 5, 6], &[0, 1, 2], &[1, 2, 0]), [1, 2, 0]);
        // A row of positions beside heads that are stored behind them.
        assert_eq!(beside(&[5, 6], &[0, 1], &[1, 0, 2]), [0, 1]);
        assert_eq!(aligned(&[5, 6], &[1, 0, 2]), [5, 1, 6]);
    }
}
