//! `Accumulate`: overwriting does not read what was there, adding adds exactly what overwriting would have written.

use crate::{BATCH_NORM_BACKWARD, values};
use landscape_kernels::activation::{Gelu, Pointwise, gelu_backward, pointwise_backward, relu_backward};
use landscape_kernels::batch_norm::BatchNormShape;
use landscape_kernels::broadcast::{self, BroadcastShape, Side};
use landscape_kernels::conv2d::{self, Conv2dShape};
use landscape_kernels::dropout::{self, DropoutMask};
use landscape_kernels::embedding::{self, EmbeddingShape};
use landscape_kernels::linear::{self, LinearShape};
use landscape_kernels::pool::{
    AdaptiveShape, Padding, PoolShape, adaptive_average_backward, average_backward, max_backward, max_forward, mean_backward,
};
use landscape_kernels::shape::{SliceShape, concat_backward, flatten_backward, permute, repeat_backward, slice_backward};
use landscape_kernels::upsample::{self, UpsampleShape, Upsampling};
use landscape_kernels::{Accumulate, Result, ViewMut, blend};

/// Writes one gradient, in either mode.
type Run = Box<dyn Fn(ViewMut<'_, f64>, Accumulate) -> Result<()>>;

/// An op that writes one gradient in either mode.
struct Op {
    name: String,
    /// Elements of the gradient.
    len: usize,
    run: Run,
}

fn op(name: impl Into<String>, len: usize, run: impl Fn(ViewMut<'_, f64>, Accumulate) -> Result<()> + 'static) -> Op {
    Op { name: name.into(), len, run: Box::new(run) }
}

fn element_wise() -> Vec<Op> {
    let n = 20_000;
    let (x, dy) = (values(n, 1), values(n, 2));
    let (a, b, c, d) = (x.clone(), dy.clone(), x.clone(), dy.clone());
    let (e, f, g, h) = (x.clone(), dy.clone(), dy.clone(), dy.clone());
    let mask = DropoutMask { p: 0.5, seed: 3, first_idx: 4 };
    vec![
        op("relu", n, move |dx, mode| relu_backward((&a).into(), (&b).into(), dx, mode)),
        op("gelu erf", n, move |dx, mode| gelu_backward(Gelu::Erf, (&c).into(), (&d).into(), dx, mode)),
        op("gelu tanh", n, move |dx, mode| gelu_backward(Gelu::Tanh, (&e).into(), (&f).into(), dx, mode)),
        op("dropout", n, move |dx, mode| dropout::backward(&mask, (&g).into(), dx, mode)),
        op("spread", n, move |row, mode| blend::spread(&[0.25, 0.5], (&h).into(), &mut [None, Some(row)], mode)),
        op("flatten", n, move |dx, mode| flatten_backward(5, 40, 10, 10, (&x).into(), dx, mode)),
        op("concat", n / 4, move |dx, mode| concat_backward(500, &[20, 10, 10], 1, (&dy).into(), dx, mode)),
    ]
}

fn pools() -> Vec<Op> {
    // Windows that overlap and are clipped, and windows that leave pixels out.
    let overlapping = PoolShape { n: 3, channels: 5, in_size: [9, 8], kernel_size: [3, 3], stride: [2, 1], padding: [1, 1] };
    let gaps = PoolShape { n: 3, channels: 5, in_size: [9, 8], kernel_size: [1, 2], stride: [3, 3], padding: [0, 0] };
    let len = 3 * 5 * 72;
    let mut ops = Vec::new();
    for (label, s) in [("overlapping", overlapping), ("gaps", gaps)] {
        let [h, w] = s.out_size();
        let dy = values(15 * h * w, 5);
        let (mut y, mut argmax) = (vec![0.0; dy.len()], vec![0; dy.len()]);
        max_forward(&s, (&values(len, 6)).into(), (&mut y).into(), (&mut argmax).into()).expect("a good call");
        let (a, b) = (dy.clone(), dy.clone());
        ops.push(op(format!("max {label}"), len, move |dx, mode| max_backward(&s, (&argmax).into(), (&a).into(), dx, mode)));
        ops.push(op(format!("average {label}"), len, move |dx, mode| average_backward(&s, Padding::Counted, (&b).into(), dx, mode)));
        ops.push(op(format!("average without padding {label}"), len, move |dx, mode| {
            average_backward(&s, Padding::NotCounted, (&dy).into(), dx, mode)
        }));
    }
    for out_size in [[1, 1], [4, 3], [11, 2]] {
        let s = AdaptiveShape { n: 3, channels: 5, in_size: [9, 8], out_size };
        let dy = values(15 * out_size[0] * out_size[1], 7);
        ops.push(op(format!("adaptive {out_size:?}"), len, move |dx, mode| adaptive_average_backward(&s, (&dy).into(), dx, mode)));
    }
    ops
}

fn moves() -> Vec<Op> {
    let dy = values(6000, 1);
    let [a, b, c, d, e, f, g] = [(); 7].map(|()| dy.clone());
    let x = values(6000, 2);
    let b_shape = || BroadcastShape { dims: vec![5, 40, 30], a: vec![5, 40, 30], b: vec![5, 1, 30] };
    let slice = SliceShape { outer: 5, axis: 90, inner: 30, start: 3, step: 2, len: 40 };
    let table = EmbeddingShape { n_tokens: 60, num_embeddings: 70, embedding_dim: 100 };
    let tokens: Vec<f64> = (0..60).map(|i| f64::from(i * i % 70)).collect();
    let method = Upsampling::Bilinear { align_corners: false };
    let larger = UpsampleShape { n: 2, channels: 30, in_size: [4, 5], out_size: [10, 10], method };
    let silu = x.clone();
    vec![
        op("silu", 6000, move |dx, mode| pointwise_backward(Pointwise::Silu, (&silu).into(), (&a).into(), dx, mode)),
        op("broadcast add", 150, move |dx, mode| broadcast::add_backward(&b_shape(), Side::B, (&b).into(), dx, mode)),
        op("broadcast multiply", 150, move |dx, mode| {
            broadcast::multiply_backward(&b_shape(), Side::B, (&x).into(), (&c).into(), dx, mode)
        }),
        op("permute", 6000, move |dx, mode| permute(&[5, 40, 30], &[1, 0, 2], (&d).into(), dx, mode)),
        op("slice", 13_500, move |dx, mode| slice_backward(&slice, (&e).into(), dx, mode)),
        op("repeat", 1200, move |dx, mode| repeat_backward(5, (&f).into(), dx, mode)),
        op("mean", 12_000, move |dx, mode| mean_backward(200, 2, 30, (&g).into(), dx, mode)),
        op("embedding", 7000, move |dw, mode| embedding::backward_weight(&table, (&tokens).into(), (&dy).into(), dw, mode)),
        op("upsample", 1200, move |dx, mode| upsample::backward(&larger, (&values(6000, 3)).into(), dx, mode)),
    ]
}

fn linears() -> Vec<Op> {
    let s = LinearShape { n_rows: 37, in_features: 70, out_features: 53, precision: landscape_kernels::Precision::F32 };
    let (x, weight, dy) = (values(37 * 70, 1), values(53 * 70, 2), values(37 * 53, 3));
    let (x2, dy2, dy3) = (x.clone(), dy.clone(), dy.clone());
    vec![
        op("linear input", x.len(), move |dx, mode| linear::backward_input(&s, (&weight).into(), (&dy).into(), dx, mode)),
        op("linear weight", 53 * 70, move |dw, mode| linear::backward_weight(&s, (&x).into(), (&dy2).into(), dw, None, mode)),
        op("linear bias", 53, move |db, mode| {
            let mut dw = vec![0.0; 53 * 70];
            linear::backward_weight(&s, (&x2).into(), (&dy3).into(), (&mut dw).into(), Some(db), mode)
        }),
    ]
}

fn convolutions() -> Vec<Op> {
    let base = Conv2dShape {
        n: 3,
        in_channels: 8,
        in_size: [9, 7],
        out_channels: 16,
        kernel_size: [3, 3],
        stride: [1, 1],
        padding: [1, 1],
        dilation: [1, 1],
        groups: 1,
        precision: landscape_kernels::Precision::F32,
    };
    let mut ops = Vec::new();
    for (label, s) in [
        ("3x3", base),
        ("strided", Conv2dShape { stride: [2, 2], ..base }),
        ("dilated", Conv2dShape { dilation: [2, 1], padding: [2, 0], ..base }),
        ("pointwise", Conv2dShape { kernel_size: [1, 1], padding: [0, 0], ..base }),
        ("grouped", Conv2dShape { groups: 4, ..base }),
        ("depthwise", Conv2dShape { groups: 8, out_channels: 8, ..base }),
        ("depthwise, two each", Conv2dShape { groups: 8, ..base }),
        ("5x3 without padding", Conv2dShape { kernel_size: [5, 3], padding: [0, 0], ..base }),
    ] {
        let (x, packed, dy) = (values(s.in_len(), 1), values(s.weight_len(), 2), values(s.out_len(), 3));
        // The weight gradient is always overwritten; unpacking it is what adds.
        let (dy2, gradient) = (dy.clone(), packed.clone());
        let scratch = move || vec![f64::NAN; s.scratch_len()];
        ops.push(op(format!("conv2d input {label}"), s.in_len(), move |dx, mode| {
            conv2d::backward_input(&s, (&packed).into(), (&dy).into(), dx, mode, (&mut scratch()).into())
        }));
        ops.push(op(format!("conv2d bias {label}"), s.out_channels, move |db, mode| {
            let mut dw = vec![0.0; s.weight_len()];
            conv2d::backward_weight(&s, (&x).into(), (&dy2).into(), (&mut dw).into(), Some(db), mode, (&mut scratch()).into())
        }));
        ops.push(op(format!("conv2d unpack {label}"), s.weight_len(), move |oihw, mode| {
            conv2d::unpack_gradient(&s, (&gradient).into(), oihw, mode)
        }));
    }
    ops
}

/// Which gradient of a batch normalisation is looked at.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    Input,
    Weight,
    Bias,
}

fn batch_norms() -> Vec<Op> {
    let s = BatchNormShape { n_rows: 45, channels: 6 };
    let mut ops = Vec::new();
    for (label, backward) in BATCH_NORM_BACKWARD {
        for wanted in [Wanted::Input, Wanted::Weight, Wanted::Bias] {
            let (x, dy, weight, mean) = (values(270, 1), values(270, 2), values(6, 3), values(6, 4));
            let var: Vec<f64> = values(6, 5).iter().map(|v| v + 1.5).collect();
            let len = if matches!(wanted, Wanted::Input) { 270 } else { 6 };
            ops.push(op(format!("batch_norm {label} {wanted:?}"), len, move |into, mode| {
                let (mut dx, mut dw, mut db) = (vec![0.0; 270], vec![0.0; 6], vec![0.0; 6]);
                let (mut dx, mut dw, mut db): (ViewMut<'_, f64>, ViewMut<'_, f64>, ViewMut<'_, f64>) =
                    ((&mut dx).into(), (&mut dw).into(), (&mut db).into());
                match wanted {
                    Wanted::Input => dx = into,
                    Wanted::Weight => dw = into,
                    Wanted::Bias => db = into,
                }
                let (mean, var, weight) = ((&mean).into(), (&var).into(), Some((&weight).into()));
                backward(&s, (&x).into(), mean, var, 1e-5, weight, (&dy).into(), dx, mode, Some(dw), Some(db), mode)
            }));
        }
    }
    ops
}

#[test]
fn overwriting_and_adding_mean_the_same_everywhere() {
    let ops = [element_wise(), pools(), linears(), convolutions(), batch_norms(), moves()];
    for Op { name, len, run } in ops.into_iter().flatten() {
        let after = |start: &[f64], mode| {
            let mut gradient = start.to_vec();
            run((&mut gradient).into(), mode).unwrap_or_else(|error| panic!("{name}: {error}"));
            gradient
        };
        let zeros = vec![0.0; len];
        let gradient = after(&zeros, Accumulate::Overwrite);
        assert!(gradient.iter().all(|g| g.is_finite()), "{name}: a number that is none");
        assert!(gradient.iter().any(|g| *g != 0.0), "{name}: nothing was written");
        assert!(after(&vec![f64::NAN; len], Accumulate::Overwrite) == gradient, "{name}: overwriting reads what was there");
        let close = |a: &[f64], factor: f64, start: &[f64]| {
            a.iter().zip(start).zip(&gradient).all(|((a, start), g)| {
                let expected = start + factor * g;
                (a - expected).abs() <= 1e-12 * (1.0 + expected.abs())
            })
        };
        let start = values(len, 9);
        assert!(close(&after(&zeros, Accumulate::Add), 1.0, &zeros), "{name}: adding to zeros is not overwriting");
        assert!(close(&after(&start, Accumulate::Add), 1.0, &start), "{name}: adding does not add");
        assert!(close(&after(&after(&start, Accumulate::Add), Accumulate::Add), 2.0, &start), "{name}: adding twice is not twice");
    }
}
