//! Scaled dot-product attention with several heads: y = softmax(scale·q·kᵀ)·v, head by head, without the matrix of all weights.
//!
//! Blocks of query rows see all their keys at once, so a row's softmax is taken about its largest score, and nothing is saved for the
//! way back, which takes the weights again. Keys that a causal mask hides from a whole block are not computed.

#[cfg(feature = "cuda")]
mod cuda;
mod blocks;

use crate::check::{n_elements, shape_error};
use crate::error::{Result, check_len};
use crate::memory::{Real, View, ViewMut};

const OP: &str = "attention";

/// Which keys a query sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mask {
    /// All.
    None,
    /// Query i those with j ≤ i, as PyTorch's `is_causal`.
    Causal,
}

/// The sizes of an attention.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionShape {
    /// Examples.
    pub n: usize,
    /// Queries.
    pub q_len: usize,
    /// Keys, and values.
    pub kv_len: usize,
    /// Heads of the queries.
    pub heads: usize,
    /// Heads of the keys and values: head h reads number h / (heads/kv_heads).
    pub kv_heads: usize,
    /// Numbers of a query and of a key.
    pub head_dim: usize,
    /// Numbers of a value.
    pub v_dim: usize,
    /// Which keys a query sees.
    pub mask: Mask,
    /// What scores are multiplied with, as a rule 1/√head_dim.
    pub scale: f64,
}

/// Elements of the operands.
struct Lens {
    q: usize,
    k: usize,
    v: usize,
    y: usize,
}

impl AttentionShape {
    fn check(&self) -> Result<Lens> {
        let &AttentionShape { n, q_len, kv_len, heads, kv_heads, head_dim, v_dim, .. } = self;
        if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            return Err(shape_error(OP, format!("`kv_heads` must divide {heads} heads, got {kv_heads}")));
        }
        Ok(Lens {
            q: n_elements(OP, &[n, q_len, heads, head_dim])?,
            k: n_elements(OP, &[n, kv_len, kv_heads, head_dim])?,
            v: n_elements(OP, &[n, kv_len, kv_heads, v_dim])?,
            y: n_elements(OP, &[n, q_len, heads, v_dim])?,
        })
    }

    /// How many keys the query of row `row` sees, at least one if there is any.
    fn n_seen(&self, row: usize) -> usize {
        match self.mask {
            Mask::None => self.kv_len,
            Mask::Causal => self.kv_len.min(row + 1),
        }
    }
}

/// y = softmax(scale·q·kᵀ)·v for every head; without keys y is zero.
///
/// # Shapes
/// `q` `[n, q_len, heads, head_dim]`, `k` `[n, kv_len, kv_heads, head_dim]`, `v` `[n, kv_len, kv_heads, v_dim]`,
/// `y` `[n, q_len, heads, v_dim]`.
///
/// # Errors
/// [`crate::Error::Length`] where an operand does not fit; [`crate::Error::Shape`] if `kv_heads` does not divide `heads` or the sizes
/// overflow.
///
/// # Source
/// Vaswani et al. 2017; PyTorch `scaled_dot_product_attention`; grouped queries: Ainslie et al. 2023.
///
/// ```
/// use landscape_kernels::attention::{AttentionShape, Mask, forward};
/// let (heads, mask) = (1, Mask::Causal);
/// let shape = AttentionShape { n: 1, q_len: 2, kv_len: 2, heads, kv_heads: 1, head_dim: 1, v_dim: 1, mask, scale: 1.0 };
/// let mut y = [0.0_f64; 2];
/// forward(&shape, (&[5.0, 0.0][..]).into(), (&[1.0, 2.0][..]).into(), (&[3.0, 4.0][..]).into(), (&mut y[..]).into())?;
/// assert_eq!(y, [3.0, 3.5]);
/// # Ok::<(), landscape_kernels::Error>(())
/// ```
pub fn forward<T: Real>(shape: &AttentionShape, q: View<'_, T>, k: View<'_, T>, v: View<'_, T>, y: ViewMut<'_, T>) -> Result<()> {
    let lens = shape.check()?;
    check_len(OP, "q", lens.q, q.len())?;
    check_len(OP, "k", lens.k, k.len())?;
    check_len(OP, "v", lens.v, v.len())?;
    check_len(OP, "y", lens.y, y.len())?;
    on_device!(OP, [q, k, v, y], gpu => cuda::forward(gpu, shape, q, k, v, y));
    blocks::forward(shape, q.host(), k.host(), v.host(), y.host());
    Ok(())
}

/// The gradients of [`forward`], which replace what was there; the weights are computed again.
///
/// With P = softmax(scale·q·kᵀ): dv = Pᵀ·dy, dP = dy·vᵀ, dS = scale·P∘(dP − Σ_j P·dP), dq = dS·k, dk = dSᵀ·q; a key's gradients are sums
/// over the heads that read it.
///
/// # Shapes
/// As [`forward`]; `dy` like `y`, and every gradient like its operand.
///
/// # Errors
/// As [`forward`].
#[allow(clippy::too_many_arguments)]
pub fn backward<T: Real>(
    shape: &AttentionShape,
    q: View<'_, T>,
    k: View<'_, T>,
    v: View<'_, T>,
    dy: View<'_, T>,
    dq: ViewMut<'_, T>,
    dk: ViewMut<'_, T>,
    dv: ViewMut<'_, T>,
) -> Result<()> {
    let lens = shape.check()?;
    check_len(OP, "q", lens.q, q.len())?;
    check_len(OP, "k", lens.k, k.len())?;
    check_len(OP, "v", lens.v, v.len())?;
    check_len(OP, "dy", lens.y, dy.len())?;
    check_len(OP, "dq", lens.q, dq.len())?;
    check_len(OP, "dk", lens.k, dk.len())?;
    check_len(OP, "dv", lens.v, dv.len())?;
    on_device!(OP, [q, k, v, dy, dq, dk, dv], gpu => cuda::backward(gpu, shape, q, k, v, dy, dq, dk, dv));
    blocks::backward(shape, q.host(), k.host(), v.host(), dy.host(), dq.host(), dk.host(), dv.host());
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::naive::attention as naive;
    use crate::naive::tools::{assert_close, bits, check_gradient, dot, on_pools, values};
    use crate::simd::tests::at_every_level;
    use proptest::prelude::*;

    fn shape([n, q_len, kv_len, heads, kv_heads, head_dim, v_dim]: [usize; 7], mask: Mask) -> AttentionShape {
        AttentionShape { n, q_len, kv_len, heads, kv_heads, head_dim, v_dim, mask, scale: 1.7 }
    }

    /// q, k, v and dy.
    fn operands<T: Real>(s: &AttentionShape) -> [Vec<T>; 4] {
        let Lens { q, k, v, y } = s.check().unwrap();
        [values(q, 1), values(k, 2), values(v, 3), values(y, 4)]
    }

    /// y, dq, dk and dv, over NaN.
    fn run<T: Real>(s: &AttentionShape) -> [Vec<T>; 4] {
        let [q, k, v, dy] = operands::<T>(s);
        let [mut dq, mut dk, mut dv, mut y] = [&q, &k, &v, &dy].map(|v| vec![T::from_f64(f64::NAN); v.len()]);
        forward(s, (&q).into(), (&k).into(), (&v).into(), (&mut y).into()).unwrap();
        let gradients = [(&mut dq).into(), (&mut dk).into(), (&mut dv).into()];
        let [into_q, into_k, into_v] = gradients;
        backward(s, (&q).into(), (&k).into(), (&v).into(), (&dy).into(), into_q, into_k, into_v).unwrap();
        [y, dq, dk, dv]
    }

    fn matches_naive<T: Real>(s: &AttentionShape) {
        let [q, k, v, dy] = operands::<T>(s).map(|v| v.iter().map(|v| v.to_f64()).collect::<Vec<_>>());
        let [dq, dk, dv] = naive::backward(s, &q, &k, &v, &dy);
        for (got, expected) in run::<T>(s).iter().zip([naive::forward(s, &q, &k, &v), dq, dk, dv]) {
            assert_close(got, &expected.into_iter().map(T::from_f64).collect::<Vec<_>>(), 300.0);
        }
    }

    const MASKS: [Mask; 2] = [Mask::None, Mask::Causal];

    #[test]
    fn equals_naive() {
        let sizes = [
            [1, 1, 1, 1, 1, 1, 1],
            [2, 70, 70, 2, 2, 8, 8],
            [1, 130, 130, 4, 2, 16, 5],
            [2, 3, 9, 6, 1, 4, 7],
            [1, 90, 20, 2, 1, 3, 3],
            [1, 20, 300, 1, 1, 40, 40],
            [0, 3, 3, 2, 2, 4, 4],
            [2, 3, 0, 2, 2, 4, 4],
            [2, 0, 3, 2, 2, 4, 4],
            [1, 3, 4, 2, 2, 0, 3],
            [1, 3, 4, 2, 2, 3, 0],
        ];
        for mask in MASKS {
            at_every_level(|| {
                for s in sizes.map(|sizes| shape(sizes, mask)) {
                    matches_naive::<f32>(&s);
                    matches_naive::<f64>(&s);
                }
            });
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn gradients_are_those_of_the_forward_pass(
            q_len in 1_usize..5, kv_len in 1_usize..5, kv_heads in 1_usize..3, group in 1_usize..3, dims in [1_usize..4, 1_usize..4],
        ) {
            for mask in MASKS {
                let s = shape([2, q_len, kv_len, kv_heads * group, kv_heads, dims[0], dims[1]], mask);
                let [q, k, v, dy] = operands::<f64>(&s);
                let [_, dq, dk, dv] = run::<f64>(&s);
                check_gradient(&q, &dq, |q| dot(&naive::forward(&s, q, &k, &v), &dy));
                check_gradient(&k, &dk, |k| dot(&naive::forward(&s, &q, k, &v), &dy));
                check_gradient(&v, &dv, |v| dot(&naive::forward(&s, &q, &k, v), &dy));
            }
        }
    }

    #[test]
    fn threads_do_not_change_bits() {
        for mask in MASKS {
            at_every_level(|| {
                for sizes in [[2, 150, 150, 4, 2, 32, 32], [1, 700, 40, 1, 1, 8, 8]] {
                    on_pools(|| run::<f32>(&shape(sizes, mask)).map(|v| bits(&v)));
                }
            });
        }
    }

    /// Scores far beyond what an exponential can hold, and a scale below zero.
    #[test]
    fn large_scores_do_not_overflow() {
        for scale in [1e4, -1e4] {
            let s = AttentionShape { scale, ..shape([1, 3, 5, 1, 1, 4, 4], Mask::None) };
            let [q, k, v, _] = operands::<f32>(&s);
            let wide = [&q, &k, &v].map(|v| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>());
            let [y, dq, dk, dv] = run::<f32>(&s);
            let expected: Vec<f32> = naive::forward(&s, &wide[0], &wide[1], &wide[2]).into_iter().map(|v| v as f32).collect();
            assert_close(&y, &expected, 16.0);
            assert!([dq, dk, dv].iter().flatten().all(|v| v.is_finite()));
        }
    }

    #[test]
    fn wrong_shapes_are_errors() {
        let s = shape([1, 2, 2, 2, 2, 1, 1], Mask::None);
        let (x, mut y) = ([0.0_f32; 4], [0.0_f32; 4]);
        let mut error =
            |s, n| forward(&s, (&x[..]).into(), (&x[..n]).into(), (&x[..]).into(), (&mut y[..]).into()).unwrap_err().to_string();
        assert_eq!(error(s, 3), "`attention`: `k` must have 4 elements, got 3");
        assert_eq!(error(AttentionShape { kv_heads: 3, ..s }, 4), "`attention`: `kv_heads` must divide 2 heads, got 3");
        assert_eq!(error(AttentionShape { kv_heads: 0, ..s }, 4), "`attention`: `kv_heads` must divide 2 heads, got 0");
        assert!(error(AttentionShape { q_len: usize::MAX, ..s }, 4).contains("does not fit in memory"));
    }
}
