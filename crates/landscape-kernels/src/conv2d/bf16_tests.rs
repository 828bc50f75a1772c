//! Convolution in bf16 against the seven loops on rounded operands in double precision, its adjoints, and its bits.
//!
//! Products of rounded operands are exact in `f32`. A sum of n terms in `f32`, in whatever order, is off by at most n·u·Σ|terms| with
//! u = 2⁻²⁴ (Higham 2002, section 4.2), and by 2⁻¹²⁶ for each sum that is taken for zero; that is what is allowed.

use super::tests::{BASE, edges, operands};
use super::*;
use crate::naive::conv2d as naive;
use crate::naive::tools::{assert_sums, bits, dot, on_pools, values};
use crate::precision::{Precision, round};
use crate::simd::tests::at_every_level;
use proptest::prelude::*;

fn in_bf16(s: &Conv2dShape) -> Conv2dShape {
    Conv2dShape { precision: Precision::Bf16, ..*s }
}

fn scratch(s: &Conv2dShape) -> Vec<f32> {
    vec![f32::NAN; s.fused_scratch_len()]
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

fn rounded(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(round(v))).collect()
}

fn magnitudes(values: &[f64]) -> Vec<f64> {
    values.iter().map(|v| v.abs()).collect()
}

/// y, dx, dw and db by the kernels; the gradients are added to 0.5.
fn all(s: &Conv2dShape) -> [Vec<f32>; 4] {
    let [x, w, b, g] = operands::<f32>(s);
    let (mut packed, mut dpacked, mut y) = (vec![0.0; w.len()], vec![0.5; w.len()], vec![f32::NAN; g.len()]);
    let (mut dx, mut dw, mut db) = (vec![0.5; x.len()], vec![0.5; w.len()], vec![0.5; b.len()]);
    pack_weight(s, (&w).into(), (&mut packed).into()).unwrap();
    forward(s, (&x).into(), (&packed).into(), Some((&b).into()), (&mut y).into(), (&mut scratch(s)).into()).unwrap();
    backward_input(s, (&packed).into(), (&g).into(), (&mut dx).into(), Accumulate::Add, (&mut scratch(s)).into()).unwrap();
    let db_view = Some((&mut db).into());
    backward_weight(s, (&x).into(), (&g).into(), (&mut dpacked).into(), db_view, Accumulate::Add, (&mut scratch(s)).into()).unwrap();
    unpack_gradient(s, (&dpacked).into(), (&mut dw).into(), Accumulate::Overwrite).unwrap();
    [y, dx, dw, db]
}

fn matches_naive(s: &Conv2dShape) {
    let s = &in_bf16(s);
    let [x, w, b, g] = operands::<f32>(s);
    let [y, dx, dw, db] = all(s);
    let ([rx, rw, rg], wb) = ([&x, &w, &g].map(|v| rounded(v)), wide(&b));
    let ([ax, aw, ag], ab) = ([&rx, &rw, &rg].map(|v| magnitudes(v)), magnitudes(&wb));
    let half = |v: Vec<f64>| v.into_iter().map(|v| v + 0.5).collect::<Vec<_>>();
    let [oh, ow] = s.out_size();
    assert_sums(&y, &naive::forward(s, &rx, &rw, Some(&wb)), &naive::forward(s, &ax, &aw, Some(&ab)), s.k() + 1);
    let of_input = s.n_taps() * s.out_group() + 1;
    assert_sums(&dx, &half(naive::backward_input(s, &rw, &rg)), &half(naive::backward_input(s, &aw, &ag)), of_input);
    assert_sums(&dw, &naive::backward_weight(s, &rx, &rg), &naive::backward_weight(s, &ax, &ag), s.n * oh * ow);
    // The gradient of the bias is a sum of gradients that nobody rounds.
    let sums = |g: &[f64]| (0..s.out_channels).map(|o| 0.5 + g.iter().skip(o).step_by(s.out_channels).sum::<f64>()).collect::<Vec<_>>();
    assert_sums(&db, &sums(&wide(&g)), &sums(&magnitudes(&wide(&g))), s.n * oh * ow + 1);
}

/// [`edges`] and what they have no example of.
fn shapes() -> Vec<Conv2dShape> {
    let wide = Conv2dShape { in_channels: 64, out_channels: 128, in_size: [8, 8], ..BASE };
    let odd = Conv2dShape { in_channels: 65, out_channels: 33, in_size: [9, 6], n: 5, ..BASE };
    let depthwise = Conv2dShape { in_channels: 6, out_channels: 6, groups: 6, ..BASE };
    let first = Conv2dShape { in_channels: 3, out_channels: 16, in_size: [16, 16], n: 3, ..BASE };
    edges().into_iter().chain([BASE, wide, odd, depthwise, first]).collect()
}

#[test]
fn equals_naive_on_rounded_operands() {
    at_every_level(|| shapes().iter().for_each(matches_naive));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn equals_naive_at_any_shape(s in tests::any_shape()) {
        prop_assume!(s.check().is_ok());
        at_every_level(|| matches_naive(&s));
    }
}

#[test]
fn gradients_are_adjoint_to_the_forward_pass() {
    at_every_level(|| {
        for s in shapes().iter().map(in_bf16) {
            // What is rounded already is not changed by rounding: all three are the same sum over all products, in other orders.
            let [x, w, g] = [(s.in_len(), 1), (s.weight_len(), 2), (s.out_len(), 4)]
                .map(|(n, seed)| values::<f32>(n, seed).into_iter().map(round).collect::<Vec<_>>());
            let (mut packed, mut dpacked, mut y) = (w.clone(), w.clone(), g.clone());
            let (mut dx, mut dw) = (x.clone(), w.clone());
            pack_weight(&s, (&w).into(), (&mut packed).into()).unwrap();
            let mode = Accumulate::Overwrite;
            forward(&s, (&x).into(), (&packed).into(), None, (&mut y).into(), (&mut scratch(&s)).into()).unwrap();
            backward_input(&s, (&packed).into(), (&g).into(), (&mut dx).into(), mode, (&mut scratch(&s)).into()).unwrap();
            backward_weight(&s, (&x).into(), (&g).into(), (&mut dpacked).into(), None, mode, (&mut scratch(&s)).into()).unwrap();
            unpack_gradient(&s, (&dpacked).into(), (&mut dw).into(), mode).unwrap();
            let [x, w, g, y, dx, dw] = [x, w, g, y, dx, dw].map(|v| wide(&v));
            let all_terms = dot(&naive::forward(&s, &magnitudes(&x), &magnitudes(&w), None), &magnitudes(&g));
            let longest = s.k().max(s.n_taps() * s.out_group()).max(s.out_len() / s.out_channels);
            let tolerance = 2.0 * longest as f64 * 2.0_f64.powi(-24) * all_terms;
            for other in [dot(&x, &dx), dot(&w, &dw)] {
                assert!((dot(&y, &g) - other).abs() <= tolerance, "{} and {other} at {s:?}", dot(&y, &g));
            }
        }
    });
}

#[test]
fn threads_do_not_change_bits() {
    at_every_level(|| {
        for s in shapes().iter().map(in_bf16) {
            on_pools(|| all(&s).map(|v| bits(&v)));
        }
    });
}

#[test]
fn an_empty_batch_has_a_zero_gradient() {
    for s in [BASE, Conv2dShape { out_channels: 16, ..BASE }] {
        let [y, dx, dw, db] = all(&in_bf16(&Conv2dShape { n: 0, ..s }));
        assert!(y.is_empty() && dx.is_empty());
        assert!(dw.iter().all(|&v| v == 0.0) && db.iter().all(|&v| v == 0.5));
    }
}

/// The largest number of `f32` is infinite in bf16.
#[test]
fn what_is_no_number_comes_through() {
    at_every_level(|| {
        for s in [BASE, Conv2dShape { in_channels: 16, out_channels: 16, ..BASE }].iter().map(in_bf16) {
            for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
                let came = |v: f32| if value.is_nan() { v.is_nan() } else { v.is_infinite() };
                let [mut x, w, _, mut g] = operands::<f32>(&s);
                let (mut packed, mut y, mut dx, mut dpacked) = (w.clone(), vec![0.0; g.len()], vec![0.0; x.len()], w.clone());
                let mode = Accumulate::Overwrite;
                pack_weight(&s, (&w).into(), (&mut packed).into()).unwrap();
                g[0] = value;
                backward_input(&s, (&packed).into(), (&g).into(), (&mut dx).into(), mode, (&mut scratch(&s)).into()).unwrap();
                backward_weight(&s, (&x).into(), (&g).into(), (&mut dpacked).into(), None, mode, (&mut scratch(&s)).into()).unwrap();
                assert!(dx[..s.in_channels].iter().all(|&v| came(v)) && dx[dx.len() - 1].is_finite(), "{dx:?}");
                // Of the first output, at the last tap: the one above and to the left of the first pixel's is in the border.
                let last_tap = dpacked.len() - s.in_channels * s.out_channels;
                assert!(came(dpacked[last_tap]) && dpacked[last_tap + 1].is_finite(), "{dpacked:?}");
                x[0] = value;
                forward(&s, (&x).into(), (&packed).into(), None, (&mut y).into(), (&mut scratch(&s)).into()).unwrap();
                assert!(y[..s.out_channels].iter().all(|&v| came(v)) && y[y.len() - 1].is_finite(), "{y:?}");
            }
        }
    });
}

#[test]
fn double_precision_is_refused() {
    let s = in_bf16(&BASE);
    let [x, w, _, mut y] = operands::<f64>(&s);
    let mut room = vec![0.0; s.fused_scratch_len()];
    let err = forward(&s, (&x).into(), (&w).into(), None, (&mut y).into(), (&mut room).into()).unwrap_err();
    assert_eq!(err.to_string(), "there are no kernels in `bf16` for `f64`");
}
