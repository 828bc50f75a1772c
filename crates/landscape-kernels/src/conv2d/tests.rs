//! Every way of computing a convolution against the seven loops, its gradients, and its bits on pools of threads.

use super::*;
use crate::naive::conv2d as naive;
use crate::naive::tools::{assert_close, bits, check_gradient, dot, on_pools, values};
use crate::precision::Precision;
use crate::simd::tests::at_every_level;
use proptest::prelude::*;

pub(super) const BASE: Conv2dShape = Conv2dShape {
    n: 2,
    in_channels: 3,
    in_size: [6, 5],
    out_channels: 4,
    kernel_size: [3, 3],
    stride: [1, 1],
    padding: [1, 1],
    dilation: [1, 1],
    groups: 1,
    precision: Precision::F32,
};

/// Input, weight, bias and output gradient.
pub(super) fn operands<T: Real>(s: &Conv2dShape) -> [Vec<T>; 4] {
    [values(s.in_len(), 1), values(s.weight_len(), 2), values(s.out_channels, 3), values(s.out_len(), 4)]
}

/// Scratch memory full of NaN: nothing may depend on what it held.
fn scratch<T: Real>(s: &Conv2dShape) -> Vec<T> {
    vec![T::from_f64(f64::NAN); s.scratch_len()]
}

/// y, dx, dweight and dbias; the gradients are added to 0.5.
fn all<T: Real>(s: &Conv2dShape) -> [Vec<T>; 4] {
    let [x, w, b, g] = operands::<T>(s);
    let half = |n| vec![T::from_f64(0.5); n];
    let (mut y, mut dx, mut dw, mut db) = (half(g.len()), half(x.len()), half(w.len()), half(b.len()));
    let (mut packed, mut dpacked) = (half(w.len()), half(w.len()));
    pack_weight(s, (&w).into(), (&mut packed).into()).unwrap();
    forward(s, (&x).into(), (&packed).into(), Some((&b).into()), (&mut y).into(), (&mut scratch(s)).into()).unwrap();
    backward_input(s, (&packed).into(), (&g).into(), (&mut dx).into(), Accumulate::Add, (&mut scratch(s)).into()).unwrap();
    let db_view = Some((&mut db).into());
    backward_weight(s, (&x).into(), (&g).into(), (&mut dpacked).into(), db_view, Accumulate::Add, (&mut scratch(s)).into()).unwrap();
    unpack_gradient(s, (&dpacked).into(), (&mut dw).into(), Accumulate::Add).unwrap();

    // Overwriting, and no bias, are the same numbers without what was there.
    let mut again = vec![T::from_f64(f64::NAN); dx.len()];
    backward_input(s, (&packed).into(), (&g).into(), (&mut again).into(), Accumulate::Overwrite, (&mut scratch(s)).into()).unwrap();
    assert_close(&dx, &again.iter().map(|&v| v + T::from_f64(0.5)).collect::<Vec<_>>(), 500.0);
    let mut plain = vec![T::from_f64(f64::NAN); y.len()];
    forward(s, (&x).into(), (&packed).into(), None, (&mut plain).into(), (&mut scratch(s)).into()).unwrap();
    let with_bias: Vec<T> = plain.iter().enumerate().map(|(i, &v)| v + b[i % b.len()]).collect();
    assert_close(&y, &with_bias, 500.0);
    [y, dx, dw, db]
}

fn expected(s: &Conv2dShape, [x, w, b, g]: &[Vec<f64>; 4]) -> [Vec<f64>; 4] {
    let half = |v: Vec<f64>| v.into_iter().map(|v| v + 0.5).collect::<Vec<f64>>();
    let db = (0..s.out_channels).map(|o| g.iter().skip(o).step_by(s.out_channels).sum()).collect();
    [naive::forward(s, x, w, Some(b)), half(naive::backward_input(s, w, g)), half(naive::backward_weight(s, x, g)), half(db)]
}

fn matches_naive<T: Real>(s: &Conv2dShape) {
    s.check().unwrap();
    let wide = operands::<T>(s).map(|v| v.iter().map(|v| v.to_f64()).collect::<Vec<_>>());
    for (got, expected) in all::<T>(s).iter().zip(expected(s, &wide)) {
        // Sums of k terms of size 1: the error grows with √k, the tolerance with its largest value here.
        assert_close(got, &expected.into_iter().map(T::from_f64).collect::<Vec<_>>(), 500.0);
    }
}

prop_compose! {
    pub(super) fn any_shape()(
        groups in 1_usize..4, inputs in 1_usize..5, outputs in 1_usize..20,
        n in 1_usize..4, h in 1_usize..12, w in 1_usize..12, kh in 1_usize..5, kw in 1_usize..5,
        sh in 1_usize..4, sw in 1_usize..4, ph in 0_usize..4, pw in 0_usize..4, dh in 1_usize..3, dw in 1_usize..3,
        ungrouped in any::<bool>(), unit_stride in any::<bool>(),
    ) -> Conv2dShape {
        let groups = if ungrouped { 1 } else { groups };
        Conv2dShape {
            n, in_channels: groups * inputs, in_size: [h, w], out_channels: groups * outputs, kernel_size: [kh, kw],
            stride: if unit_stride { [1, 1] } else { [sh, sw] }, padding: [ph, pw], dilation: [dh, dw], groups,
            precision: Precision::F32,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn equals_naive(s in any_shape()) {
        prop_assume!(s.check().is_ok());
        at_every_level(|| matches_naive::<f32>(&s));
        at_every_level(|| matches_naive::<f64>(&s));
    }

    #[test]
    fn depthwise_equals_naive(s in any_shape(), channels in 2_usize..40) {
        let s = Conv2dShape { in_channels: channels, out_channels: channels, groups: channels, ..s };
        prop_assume!(s.check().is_ok());
        at_every_level(|| matches_naive::<f32>(&s));
        at_every_level(|| matches_naive::<f64>(&s));
    }
}

/// Shapes at which blocks of pixels, of channels and of images meet.
pub(super) fn edges() -> Vec<Conv2dShape> {
    let square = |n, c, o, size, k, stride, padding| Conv2dShape {
        n,
        in_channels: c,
        in_size: [size, size],
        out_channels: o,
        kernel_size: [k, k],
        stride: [stride, stride],
        padding: [padding, padding],
        ..BASE
    };
    vec![
        square(20, 16, 16, 8, 3, 1, 1),
        square(3, 3, 16, 13, 3, 1, 1),
        square(5, 16, 32, 9, 3, 2, 1),
        square(5, 16, 32, 9, 1, 2, 0),
        square(40, 24, 17, 3, 3, 1, 1),
        square(3, 130, 48, 4, 3, 1, 1),
        square(2, 70, 33, 5, 2, 1, 0),
        square(7, 20, 40, 6, 1, 1, 0),
        square(4, 40, 24, 7, 1, 2, 0),
        square(6, 70, 8, 7, 1, 3, 0),
        square(9, 3, 64, 7, 3, 1, 1),
        square(9, 160, 16, 2, 3, 1, 1),
        square(9, 4, 12, 9, 3, 2, 1),
        Conv2dShape { dilation: [2, 2], ..square(3, 10, 18, 9, 3, 1, 2) },
        Conv2dShape { groups: 2, ..square(3, 12, 20, 7, 3, 1, 1) },
        // One output, so columns; its input gradient has two, so the direct kernel.
        Conv2dShape { n: 1, in_size: [2, 1], kernel_size: [1, 3], padding: [0, 2], ..square(1, 2, 1, 2, 3, 1, 1) },
    ]
}

#[test]
fn equals_naive_where_blocks_meet() {
    at_every_level(|| {
        for s in edges() {
            matches_naive::<f32>(&s);
            matches_naive::<f64>(&s);
        }
    });
}

#[test]
fn columns_and_direct_kernel_agree() {
    for s in edges().into_iter().filter(choice::is_direct) {
        let [x, w, b, g] = operands::<f32>(&s);
        let mut packed = vec![0.0; w.len()];
        pack_weight(&s, (&w).into(), (&mut packed).into()).unwrap();
        let [mut y, mut y_direct] = [(); 2].map(|()| vec![0.5; s.out_len()]);
        column::forward(&s, &x, None, &packed, Some(&b), &mut y, Accumulate::Overwrite, &mut scratch(&s));
        let weights = direct::Weights::Packed(&packed[..]);
        let call = direct::Forward { s: &s, x: &x, normalizer: None, weights, bias: Some(&b), mode: Accumulate::Overwrite };
        let note = |starts: &mut Vec<_>, start, y: &mut [f32]| starts.push((start, y.len()));
        let starts = direct::forward(&call, &mut y_direct, &mut scratch(&s), note);
        assert_close(&y_direct, &y, 500.0);
        // Every part of the result is seen once, in order.
        assert_eq!(starts.iter().flatten().fold(0, |end, &(start, len)| if start == end { start + len } else { usize::MAX }), y.len());
        let [mut dw, mut dw_direct] = [(); 2].map(|()| vec![0.5; s.weight_len()]);
        column::backward_weight(&s, &x, None, &g, &mut dw, &mut scratch(&s));
        direct::backward_weight(&direct::BackwardWeight { s: &s, x: &x, normalizer: None, dy: &g }, &mut dw_direct, &mut scratch(&s));
        assert_close(&dw_direct, &dw, 500.0);
        if s.is_pointwise() {
            continue;
        }
        let [mut dx, mut dx_scattered] = [(); 2].map(|()| vec![0.5; s.in_len()]);
        column::backward_input(&s, &packed, &g, &mut dx_scattered, Accumulate::Add, &mut scratch(&s));
        if let Some(transposed) = s.transposed() {
            column::backward_input_stride_one(&s, &transposed, &packed, &g, &mut dx, Accumulate::Add, &mut scratch(&s));
            assert_close(&dx, &dx_scattered, 500.0);
        }
    }
}

/// Input, weight and bias gradient against central differences of the forward pass, in double precision.
fn check_gradients(s: &Conv2dShape) {
    let [x, w, b, g] = operands::<f64>(s);
    let y = |x: &[f64], w: &[f64], b: &[f64]| {
        let (mut packed, mut y) = (vec![0.0; w.len()], vec![0.0; s.out_len()]);
        pack_weight(s, w.into(), (&mut packed).into()).unwrap();
        forward(s, x.into(), (&packed).into(), Some(b.into()), (&mut y).into(), (&mut scratch(s)).into()).unwrap();
        dot(&y, &g)
    };
    let [_, dx, dw, db] = all::<f64>(s).map(|v| v.iter().map(|v| v - 0.5).collect::<Vec<_>>());
    check_gradient(&x, &dx, |x| y(x, &w, &b));
    check_gradient(&w, &dw, |w| y(&x, w, &b));
    check_gradient(&b, &db, |b| y(&x, &w, b));
}

#[test]
fn gradients_are_those_of_the_forward_pass() {
    let shapes = [
        BASE,
        Conv2dShape { stride: [2, 1], dilation: [1, 2], ..BASE },
        Conv2dShape { in_channels: 4, groups: 2, kernel_size: [2, 3], padding: [0, 2], ..BASE },
        Conv2dShape { in_channels: 4, groups: 4, stride: [1, 2], ..BASE },
        Conv2dShape { kernel_size: [1, 1], padding: [0, 0], ..BASE },
    ];
    shapes.iter().for_each(check_gradients);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn gradients_are_those_of_the_forward_pass_at_any_shape(s in any_shape(), channels in 1_usize..4, depthwise: bool) {
        // Few channels: every element is moved twice.
        let (groups, outputs) = if depthwise { (channels + 1, channels + 1) } else { (1, channels) };
        let s = Conv2dShape { n: 2, in_channels: outputs, out_channels: outputs, groups, in_size: s.in_size.map(|d| d.min(7)), ..s };
        prop_assume!(s.check().is_ok());
        check_gradients(&s);
    }
}

#[test]
fn an_example_does_not_depend_on_its_batch() {
    at_every_level(|| {
        for s in edges().into_iter().flat_map(|s| [s, Conv2dShape { precision: Precision::Bf16, ..s }]) {
            let [x, w, _, _] = operands::<f32>(&s);
            let mut packed = vec![0.0; w.len()];
            pack_weight(&s, (&w).into(), (&mut packed).into()).unwrap();
            let mut y = vec![0.0; s.out_len()];
            forward(&s, (&x).into(), (&packed).into(), None, (&mut y).into(), (&mut scratch(&s)).into()).unwrap();
            let one = Conv2dShape { n: 1, ..s };
            let mut last = vec![0.0; one.out_len()];
            let x_last = &x[s.in_len() - one.in_len()..];
            forward(&one, x_last.into(), (&packed).into(), None, (&mut last).into(), (&mut scratch(&one)).into()).unwrap();
            let in_batch = &y[s.out_len() - one.out_len()..];
            if choice::is_direct(&s) && choice::is_direct(&one) {
                assert_eq!(bits(&last), bits(in_batch), "{s:?}");
            } else {
                assert_close(&last, in_batch, 50.0);
            }
        }
    });
}

#[test]
fn threads_do_not_change_bits() {
    at_every_level(|| {
        for s in edges() {
            on_pools(|| all::<f32>(&s).map(|v| bits(&v)));
        }
    });
    let depthwise = Conv2dShape { n: 5, in_channels: 37, out_channels: 37, groups: 37, in_size: [40, 40], ..BASE };
    at_every_level(|| on_pools(|| all::<f32>(&depthwise).map(|v| bits(&v))));
    on_pools(|| all::<f64>(&Conv2dShape { n: 9, in_size: [30, 30], in_channels: 16, ..BASE }).map(|v| bits(&v)));
}

#[test]
fn packing_is_undone_by_unpacking() {
    for s in edges().into_iter().chain([Conv2dShape { in_channels: 4, groups: 4, ..BASE }]) {
        let w: Vec<f64> = values(s.weight_len(), 2);
        let (mut packed, mut back) = (vec![0.0; w.len()], vec![1.0; w.len()]);
        pack_weight(&s, (&w).into(), (&mut packed).into()).unwrap();
        unpack_gradient(&s, (&packed).into(), (&mut back).into(), Accumulate::Overwrite).unwrap();
        assert_eq!(w, back);
        unpack_gradient(&s, (&packed).into(), (&mut back).into(), Accumulate::Add).unwrap();
        assert!(back.iter().zip(&w).all(|(b, w)| *b == 2.0 * w));
    }
}

#[test]
fn an_empty_batch_has_a_zero_gradient() {
    for s in [BASE, Conv2dShape { out_channels: 16, ..BASE }, Conv2dShape { in_channels: 4, groups: 4, ..BASE }] {
        let s = Conv2dShape { n: 0, ..s };
        let [y, dx, dw, db] = all::<f32>(&s);
        assert!(y.is_empty() && dx.is_empty());
        assert!(dw.iter().chain(&db).all(|&v| v == 0.5));
    }
}

#[test]
fn wrong_shapes_and_lengths_are_errors() {
    let reason = |s: Conv2dShape| s.check().unwrap_err().to_string();
    assert_eq!(reason(Conv2dShape { stride: [0, 1], ..BASE }), "`conv2d`: `stride` must be at least 1, got 0x1");
    assert_eq!(reason(Conv2dShape { groups: 2, ..BASE }), "`conv2d`: `in_channels` must be a multiple of `groups` = 2, got 3");
    assert_eq!(
        reason(Conv2dShape { kernel_size: [9, 3], ..BASE }),
        "`conv2d`: the kernel must fit in the padded input: it reaches over 9, got 8"
    );
    for huge in [
        Conv2dShape { padding: [usize::MAX, 0], ..BASE },
        Conv2dShape { n: usize::MAX / 2, ..BASE },
        Conv2dShape { dilation: [usize::MAX, 1], ..BASE },
        Conv2dShape { in_size: [1 << 40, 1 << 40], ..BASE },
        Conv2dShape { in_channels: 1 << 40, out_channels: 1 << 40, ..BASE },
    ] {
        assert_eq!(reason(huge), "`conv2d`: the product of the sizes must fit in memory");
    }
    let s = BASE;
    let [x, w, b, mut y] = operands::<f32>(&s);
    let mut room = scratch(&s);
    let short = s.scratch_len() - 1;
    assert!(forward(&s, (&x[1..]).into(), (&w).into(), None, (&mut y).into(), (&mut room).into()).is_err());
    assert!(forward(&s, (&x).into(), (&w[1..]).into(), None, (&mut y).into(), (&mut room).into()).is_err());
    assert!(forward(&s, (&x).into(), (&w).into(), Some((&b[1..]).into()), (&mut y).into(), (&mut room).into()).is_err());
    assert!(forward(&s, (&x).into(), (&w).into(), None, (&mut y[1..]).into(), (&mut room).into()).is_err());
    let err = forward(&s, (&x).into(), (&w).into(), None, (&mut y).into(), (&mut room[..short]).into()).unwrap_err();
    assert!(matches!(err, Error::Length { operand: "scratch", .. }));
    let mut d = vec![0.0; w.len() + 1];
    assert!(pack_weight(&s, (&w).into(), (&mut d).into()).is_err());
    assert!(unpack_gradient(&s, (&w).into(), (&mut d).into(), Accumulate::Add).is_err());
}
