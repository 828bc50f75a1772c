//! Which examples belong to a stratified part: counts by largest remainder, members by a seeded shuffle per class.

use landscape_core::Seed;
use std::collections::BTreeMap;

/// Shares `total` among classes of sizes `counts`: floor(counts·total/n) each, and what is left one by one to the largest
/// remainders, the lower class first among equals. `total` must not exceed the sum of `counts`.
pub(crate) fn largest_remainder(counts: &[usize], total: usize) -> Vec<usize> {
    let n: u128 = counts.iter().map(|&c| c as u128).sum::<u128>().max(1);
    let product = |c: usize| counts[c] as u128 * total as u128;
    let mut shares: Vec<usize> = (0..counts.len()).map(|c| (product(c) / n) as usize).collect();
    let mut classes: Vec<usize> = (0..counts.len()).collect();
    classes.sort_by_key(|&c| (std::cmp::Reverse(product(c) % n), c));
    let left = total - shares.iter().sum::<usize>();
    classes.iter().take(left).for_each(|&c| shares[c] += 1);
    shares
}

/// `total` of the examples with these labels, ascending: of each class the first of a shuffle by `seed`'s child of that class.
pub(crate) fn choose(labels: &[u32], total: usize, seed: Seed) -> Vec<usize> {
    let mut members: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    labels.iter().enumerate().for_each(|(idx, &label)| members.entry(label).or_default().push(idx));
    let shares = largest_remainder(&members.values().map(Vec::len).collect::<Vec<_>>(), total);
    let mut chosen = Vec::with_capacity(total);
    for ((class, mut members), share) in members.into_iter().zip(shares) {
        seed.child_idx(u64::from(class)).stream().shuffle(&mut members);
        chosen.extend_from_slice(&members[..share]);
    }
    chosen.sort_unstable();
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shares_by_hand() {
        assert_eq!(largest_remainder(&[10, 10, 10], 10), [4, 3, 3]);
        assert_eq!(largest_remainder(&[5, 3, 2], 5), [3, 1, 1]);
        assert_eq!(largest_remainder(&[7, 0, 1], 8), [7, 0, 1]);
        assert_eq!(largest_remainder(&[], 0), [0usize; 0]);
    }

    proptest! {
        #[test]
        fn shares_add_up_and_stay_within_one_of_the_quota(counts in proptest::collection::vec(0usize..50, 1..8), part in 0.0f64..=1.0) {
            let n: usize = counts.iter().sum();
            let total = (n as f64 * part) as usize;
            let shares = largest_remainder(&counts, total);
            prop_assert_eq!(shares.iter().sum::<usize>(), total);
            for (share, count) in shares.iter().zip(&counts) {
                prop_assert!(share <= count);
                prop_assert!((*share as f64 - *count as f64 * total as f64 / n.max(1) as f64).abs() < 1.0);
            }
        }
    }
}
