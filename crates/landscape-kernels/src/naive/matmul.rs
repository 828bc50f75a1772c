//! Batched products entry by entry, in double precision.

use crate::matmul::MatmulShape;

/// y, da and db.
pub(crate) fn all(s: &MatmulShape, a: &[f64], b: &[f64], dy: &[f64]) -> [Vec<f64>; 3] {
    let &MatmulShape { n, m, k, cols } = s;
    let (mut y, mut da, mut db) = (vec![0.0; n * m * cols], vec![0.0; n * m * k], vec![0.0; n * k * cols]);
    for i in 0..n {
        for row in 0..m {
            for l in 0..k {
                for col in 0..cols {
                    let (at_a, at_b, at_y) = ((i * m + row) * k + l, (i * k + l) * cols + col, (i * m + row) * cols + col);
                    y[at_y] += a[at_a] * b[at_b];
                    da[at_a] += dy[at_y] * b[at_b];
                    db[at_b] += dy[at_y] * a[at_a];
                }
            }
        }
    }
    [y, da, db]
}
