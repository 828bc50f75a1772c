//! Twin of dropout: one SplitMix64 generator, jumped to the first element and then run in order.

use crate::dropout::DropoutMask;
use crate::memory::Real;

/// Masked and scaled `x`, added to `start` where there is one.
pub(crate) fn apply<T: Real>(mask: &DropoutMask, x: &[T], start: Option<&[T]>) -> Vec<T> {
    // The state before the first element, by 128-bit arithmetic and a reduction.
    let golden = 0x9e37_79b9_7f4a_7c15_u128;
    let jumped = (u128::from(finalise(mask.seed)) + golden * u128::from(mask.first_idx)) % (1 << 64);
    let mut state = jumped as u64;
    let scale = T::from_f64(1.0 / (1.0 - mask.p));
    x.iter()
        .enumerate()
        .map(|(i, &x)| {
            state = state.wrapping_add(golden as u64);
            let u = (finalise(state) >> 11) as f64 / 2.0_f64.powi(53);
            let kept = if u >= mask.p { x * scale } else { T::ZERO };
            start.map_or(kept, |start| start[i] + kept)
        })
        .collect()
}

fn finalise(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
