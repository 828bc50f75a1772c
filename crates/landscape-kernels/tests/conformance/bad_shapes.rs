//! Whatever the shape and the lengths, a call returns: it never panics, and refuses what does not fit.

use crate::{BATCH_NORM_BACKWARD, values};
use landscape_kernels::activation::{self, Gelu, Pointwise};
use landscape_kernels::attention::{self, AttentionShape, Mask};
use landscape_kernels::batch_norm::{self, BatchNormShape};
use landscape_kernels::broadcast::{self, BroadcastShape, Side};
use landscape_kernels::conv2d::{self, Conv2dShape};
use landscape_kernels::dropout::{self, DropoutMask};
use landscape_kernels::embedding::{self, EmbeddingShape};
use landscape_kernels::group_norm::{self, GroupNormShape};
use landscape_kernels::layer_norm::{self, LayerNormShape};
use landscape_kernels::linear::{self, LinearShape};
use landscape_kernels::loss;
use landscape_kernels::matmul::{self, MatmulShape};
use landscape_kernels::pool::{self, AdaptiveShape, Padding, PoolShape};
use landscape_kernels::rope::{self, RopeShape, RopeStyle};
use landscape_kernels::step::{self, Adam, Decay, Nesterov, Sgd};
use landscape_kernels::upsample::{self, UpsampleShape, Upsampling};
use landscape_kernels::{Accumulate, Result, View, ViewMut, blend, rms_norm, shape, softmax};
use proptest::prelude::*;

/// Small sizes, zero, and sizes whose products overflow.
fn size() -> impl Strategy<Value = usize> {
    prop_oneof![6 => 0_usize..4, 1 => Just(1 << 33), 1 => Just(usize::MAX / 2 + 1), 1 => Just(usize::MAX)]
}

/// Slices of independent small lengths.
struct Slices {
    lens: Vec<usize>,
    next: usize,
    numbers: Vec<f64>,
}

impl Slices {
    fn new(lens: &[usize]) -> Self {
        Slices { lens: lens.to_vec(), next: 0, numbers: values(64, 1) }
    }

    fn len(&mut self) -> usize {
        self.next += 1;
        self.lens[self.next % self.lens.len()]
    }

    fn read(&mut self) -> Vec<f64> {
        let n = self.len();
        self.numbers[..n].to_vec()
    }
}

const ADD: Accumulate = Accumulate::Add;

/// Calls `f` with a slice to write of the next length; what it returns does not matter here, that it returns does.
fn call(slices: &mut Slices, f: impl FnOnce(&mut Slices, ViewMut<'_, f64>) -> Result<()>) {
    let mut out = slices.read();
    let _ = f(slices, (&mut out).into());
}

fn heavy_ops(s: &[usize], slices: &mut Slices) {
    let l = LinearShape { n_rows: s[0], in_features: s[1], out_features: s[2], precision: landscape_kernels::Precision::F32 };
    call(slices, |i, y| linear::forward(&l, (&i.read()).into(), (&i.read()).into(), Some((&i.read()).into()), y));
    call(slices, |i, dx| linear::backward_input(&l, (&i.read()).into(), (&i.read()).into(), dx, ADD));
    call(slices, |i, dw| linear::backward_weight(&l, (&i.read()).into(), (&i.read()).into(), dw, Some((&mut i.read()).into()), ADD));

    let b = BatchNormShape { n_rows: s[0], channels: s[1] };
    call(slices, |i, y| batch_norm::statistics(&b, (&i.read()).into(), y, (&mut i.read()).into()));
    call(slices, |i, y| {
        let (mean, var, weight, bias) = (i.read(), i.read(), i.read(), i.read());
        batch_norm::normalize(&b, (&i.read()).into(), (&mean).into(), (&var).into(), 1e-5, Some((&weight).into()), Some((&bias).into()), y)
    });
    for (_, backward) in BATCH_NORM_BACKWARD {
        call(slices, |i, dx| {
            let (x, mean, var, weight, dy) = (i.read(), i.read(), i.read(), i.read(), i.read());
            let (mut dw, mut db) = (i.read(), i.read());
            let (mean, var, weight) = ((&mean).into(), (&var).into(), Some((&weight).into()));
            backward(&b, (&x).into(), mean, var, 1e-5, weight, (&dy).into(), dx, ADD, Some((&mut dw).into()), Some((&mut db).into()), ADD)
        });
    }
}

fn convolution(s: &[usize], slices: &mut Slices) {
    let c = Conv2dShape {
        n: s[0],
        in_channels: s[1],
        in_size: [s[2], s[3]],
        out_channels: s[4],
        kernel_size: [s[5], s[6]],
        stride: [s[7], s[8]],
        padding: [s[9], s[10]],
        dilation: [s[11], s[12]],
        groups: s[13],
        precision: landscape_kernels::Precision::F32,
    };
    if c.check().is_ok() {
        let _ = (c.out_size(), c.weight_len(), c.in_len(), c.out_len(), c.scratch_len());
    }
    call(slices, |i, packed| conv2d::pack_weight(&c, (&i.read()).into(), packed));
    call(slices, |i, oihw| conv2d::unpack_gradient(&c, (&i.read()).into(), oihw, ADD));
    call(slices, |i, y| conv2d::forward(&c, (&i.read()).into(), (&i.read()).into(), Some((&i.read()).into()), y, (&mut i.read()).into()));
    call(slices, |i, dx| conv2d::backward_input(&c, (&i.read()).into(), (&i.read()).into(), dx, ADD, (&mut i.read()).into()));
    call(slices, |i, dw| {
        let mut db = i.read();
        conv2d::backward_weight(&c, (&i.read()).into(), (&i.read()).into(), dw, Some((&mut db).into()), ADD, (&mut i.read()).into())
    });
}

fn pools(s: &[usize], slices: &mut Slices) {
    let p = PoolShape {
        n: s[0],
        channels: s[1],
        in_size: [s[2], s[3]],
        kernel_size: [s[4], s[5]],
        stride: [s[6], s[7]],
        padding: [s[8], s[9]],
    };
    let a = AdaptiveShape { n: s[0], channels: s[1], in_size: [s[2], s[3]], out_size: [s[4], s[5]] };
    let _ = (p.check(), p.out_size());
    call(slices, |i, y| pool::max_forward(&p, (&i.read()).into(), y, (&mut vec![0; i.len()]).into()));
    call(slices, |i, dx| pool::max_backward(&p, (&vec![u32::MAX; i.len()]).into(), (&i.read()).into(), dx, ADD));
    call(slices, |i, y| pool::average_forward(&p, Padding::Counted, (&i.read()).into(), y));
    call(slices, |i, dx| pool::average_backward(&p, Padding::NotCounted, (&i.read()).into(), dx, ADD));
    call(slices, |i, y| pool::adaptive_average_forward(&a, (&i.read()).into(), y));
    call(slices, |i, dx| pool::adaptive_average_backward(&a, (&i.read()).into(), dx, ADD));
}

fn row_norms(s: &[usize], slices: &mut Slices) {
    let l = LayerNormShape { n_rows: s[0], len: s[1] };
    let g = GroupNormShape { n: s[0], pixels: s[1], channels: s[2], groups: s[3] };
    call(slices, |i, y| layer_norm::forward(&l, 1e-5, (&i.read()).into(), Some((&i.read()).into()), Some((&i.read()).into()), y));
    call(slices, |i, y| rms_norm::forward(&l, 1e-5, (&i.read()).into(), None, y));
    call(slices, |i, y| group_norm::forward(&g, 1e-5, (&i.read()).into(), None, Some((&i.read()).into()), y));
    call(slices, |i, dx| {
        let (x, w, dy, mut dw, mut db) = (i.read(), i.read(), i.read(), i.read(), i.read());
        let (dw, db) = (Some((&mut dw).into()), Some((&mut db).into()));
        layer_norm::backward(&l, 1e-5, (&x).into(), Some((&w).into()), (&dy).into(), Some((dx, ADD)), dw, db, ADD)
    });
    call(slices, |i, dx| rms_norm::backward(&l, 1e-5, (&i.read()).into(), None, (&i.read()).into(), Some((dx, ADD)), None, ADD));
    call(slices, |i, dx| {
        let (x, w, dy, mut dw) = (i.read(), i.read(), i.read(), i.read());
        group_norm::backward(&g, 1e-5, (&x).into(), Some((&w).into()), (&dy).into(), Some((dx, ADD)), Some((&mut dw).into()), None, ADD)
    });
    // Without any row whatever length a row has fits.
    call(slices, |_, y| layer_norm::backward(&l, 1e-5, (&[][..]).into(), None, (&[][..]).into(), Some((y, ADD)), None, None, ADD));
    call(slices, |i, y| softmax::forward(s[0], s[1], (&i.read()).into(), y));
    call(slices, |i, dx| softmax::backward(s[0], s[1], (&i.read()).into(), (&i.read()).into(), dx, ADD));
}

fn tokens(s: &[usize], slices: &mut Slices) {
    for (mask, style) in [(Mask::None, RopeStyle::Half), (Mask::Causal, RopeStyle::Interleaved)] {
        let [heads, kv_heads, head_dim, v_dim] = [s[3], s[4], s[5], s[6]];
        let a = AttentionShape { n: s[0], q_len: s[1], kv_len: s[2], heads, kv_heads, head_dim, v_dim, mask, scale: 0.5 };
        let r = RopeShape { n_rows: s[0], len: s[1], heads, head_dim, rotary_dim: s[7], base: 1e4, style };
        call(slices, |i, y| attention::forward(&a, (&i.read()).into(), (&i.read()).into(), (&i.read()).into(), y));
        call(slices, |i, dq| {
            let (q, k, v, dy, mut dk, mut dv) = (i.read(), i.read(), i.read(), i.read(), i.read(), i.read());
            attention::backward(&a, (&q).into(), (&k).into(), (&v).into(), (&dy).into(), dq, (&mut dk).into(), (&mut dv).into())
        });
        call(slices, |i, y| rope::forward(&r, (&i.read()).into(), y));
        call(slices, |i, dx| rope::backward(&r, (&i.read()).into(), dx, ADD));
    }
    let m = MatmulShape { n: s[0], m: s[1], k: s[2], cols: s[3] };
    call(slices, |i, y| matmul::forward(&m, (&i.read()).into(), (&i.read()).into(), y));
    call(slices, |i, da| matmul::backward_a(&m, (&i.read()).into(), (&i.read()).into(), da, ADD));
    call(slices, |i, db| matmul::backward_b(&m, (&i.read()).into(), (&i.read()).into(), db, ADD));
}

fn moves_and_losses(s: &[usize], slices: &mut Slices) {
    call(slices, |i, y| shape::nchw_to_nhwc(s[0], s[1], s[2], s[3], (&i.read()).into(), y));
    call(slices, |i, y| shape::nhwc_to_nchw(s[0], s[1], s[2], s[3], (&i.read()).into(), y));
    call(slices, |i, y| shape::flatten_forward(s[0], s[1], s[2], s[3], (&i.read()).into(), y));
    call(slices, |i, dx| shape::flatten_backward(s[0], s[1], s[2], s[3], (&i.read()).into(), dx, ADD));
    call(slices, |i, y| shape::concat_forward(s[0], &s[1..3], &[(&i.read()).into(), (&i.read()).into()], y));
    call(slices, |i, dx| shape::concat_backward(s[0], &s[1..3], s[3], (&i.read()).into(), dx, ADD));
    call(slices, |i, g| {
        let labels = vec![s[2] as u32; i.len()];
        loss::cross_entropy(s[0], s[1], (&i.read()).into(), (&labels).into(), Some((g, 1.0))).map(|_| ())
    });
    call(slices, |i, g| loss::squared_error(s[0], s[1], (&i.read()).into(), (&i.read()).into(), Some((g, 1.0))).map(|_| ()));
}

fn repeated_and_taken(s: &[usize], slices: &mut Slices) {
    // Axes that fit more often than any would.
    let side = |from: usize| (0..3).map(|axis| if s[from + axis].is_multiple_of(2) { s[axis] } else { s[3 + axis] }).collect();
    let b = BroadcastShape { dims: s[..3].to_vec(), a: side(6), b: side(9) };
    call(slices, |i, y| broadcast::add(&b, (&i.read()).into(), (&i.read()).into(), y));
    call(slices, |i, y| broadcast::multiply(&b, (&i.read()).into(), (&i.read()).into(), y));
    call(slices, |i, dx| broadcast::add_backward(&b, Side::A, (&i.read()).into(), dx, ADD));
    call(slices, |i, dx| broadcast::multiply_backward(&b, Side::B, (&i.read()).into(), (&i.read()).into(), dx, ADD));
    call(slices, |i, y| shape::permute(&s[..3], &s[3..6], (&i.read()).into(), y, ADD));
    call(slices, |i, y| shape::permute(&s[..3], &[2, 0, 1], (&i.read()).into(), y, ADD));
    assert_eq!(shape::inverse(s).len(), s.len());
    let t = shape::SliceShape { outer: s[0], axis: s[1], inner: s[2], start: s[3], step: s[4], len: s[5] };
    call(slices, |i, y| shape::slice_forward(&t, (&i.read()).into(), y));
    call(slices, |i, dx| shape::slice_backward(&t, (&i.read()).into(), dx, ADD));
    call(slices, |i, y| shape::repeat_forward(s[0], (&i.read()).into(), y));
    call(slices, |i, dx| shape::repeat_backward(s[0], (&i.read()).into(), dx, ADD));
    call(slices, |i, y| pool::mean_forward(s[0], s[1], s[2], (&i.read()).into(), y));
    call(slices, |i, dx| pool::mean_backward(s[0], s[1], s[2], (&i.read()).into(), dx, ADD));
    let e = EmbeddingShape { n_tokens: s[0], num_embeddings: s[1], embedding_dim: s[2] };
    call(slices, |i, y| embedding::forward(&e, (&vec![0.0; i.len()]).into(), (&i.read()).into(), y));
    call(slices, |i, dw| embedding::backward_weight(&e, (&vec![0.0; i.len()]).into(), (&i.read()).into(), dw, ADD));
    for method in [Upsampling::Nearest, Upsampling::Bilinear { align_corners: s[6].is_multiple_of(2) }] {
        let u = UpsampleShape { n: s[0], channels: s[1], in_size: [s[2], s[3]], out_size: [s[4], s[5]], method };
        call(slices, |i, y| upsample::forward(&u, (&i.read()).into(), y));
        call(slices, |i, dx| upsample::backward(&u, (&i.read()).into(), dx, ADD));
    }
    call(slices, |i, g| loss::binary_cross_entropy(s[0], s[1], (&i.read()).into(), (&i.read()).into(), Some((g, 1.0))).map(|_| ()));
}

fn element_wise(slices: &mut Slices) {
    call(slices, |i, y| activation::relu_forward((&i.read()).into(), y));
    call(slices, |i, dx| activation::relu_backward((&i.read()).into(), (&i.read()).into(), dx, ADD));
    call(slices, |i, y| activation::gelu_forward(Gelu::Erf, (&i.read()).into(), y));
    call(slices, |i, dx| activation::gelu_backward(Gelu::Tanh, (&i.read()).into(), (&i.read()).into(), dx, ADD));
    let hard = Pointwise::HardTanh { min_val: f64::NAN, max_val: -1.0 };
    call(slices, |i, y| activation::pointwise_forward(hard, (&i.read()).into(), y));
    call(slices, |i, dx| activation::pointwise_backward(Pointwise::Silu, (&i.read()).into(), (&i.read()).into(), dx, ADD));
    call(slices, |i, y| activation::add((&i.read()).into(), (&i.read()).into(), y));
    call(slices, |i, into| activation::accumulate((&i.read()).into(), into));
    let mask = DropoutMask { p: 0.5, seed: 1, first_idx: u64::MAX };
    call(slices, |i, y| dropout::forward(&mask, (&i.read()).into(), y));
    call(slices, |i, dx| dropout::backward(&mask, (&i.read()).into(), dx, ADD));
    call(slices, |i, w| blend::blend(&i.read(), &[(&i.read()).into(), (&i.read()).into()], w));
    call(slices, |i, row| blend::spread(&i.read(), (&i.read()).into(), &mut [Some(row), None], ADD));
    let sgd = Sgd { lr: 0.1, momentum: 0.9, dampening: 0.0, weight_decay: 0.1, nesterov: Nesterov::On };
    call(slices, |i, w| step::sgd_step(&sgd, 1, (&i.read()).into(), w, Some((&mut i.read()).into())));
    call(slices, |i, w| {
        let point: Vec<f64> = i.read();
        step::spread_sgd_step(&sgd, 0, 0.5, (&i.read()).into(), Some((View::from(&point), 0.1)), w, Some((&mut i.read()).into()))
    });
    let adam = Adam { lr: 0.1, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.1, decay: Decay::Decoupled };
    call(slices, |i, w| step::adam_step(&adam, u64::MAX, (&i.read()).into(), w, (&mut i.read()).into(), (&mut i.read()).into()));
    call(slices, |i, w| {
        let point: Vec<f64> = i.read();
        let point = Some((View::from(&point), 0.1));
        step::spread_adam_step(&adam, 1, 0.5, (&i.read()).into(), point, w, (&mut i.read()).into(), (&mut i.read()).into())
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_shape_panics(sizes in prop::collection::vec(size(), 14), lens in prop::collection::vec(0_usize..20, 1..8)) {
        let slices = &mut Slices::new(&lens);
        heavy_ops(&sizes, slices);
        convolution(&sizes, slices);
        pools(&sizes, slices);
        row_norms(&sizes, slices);
        tokens(&sizes, slices);
        moves_and_losses(&sizes, slices);
        repeated_and_taken(&sizes, slices);
        element_wise(slices);
    }
}

fn zeros(n: usize) -> Vec<f64> {
    vec![0.0; n]
}

/// Empty activations, with lengths that fit: the calls succeed, and what depends on nothing is zero or the bias.
#[test]
fn empty_shapes_are_no_special_case() {
    const OVERWRITE: Accumulate = Accumulate::Overwrite;
    for (n_rows, in_features, out_features) in [(0, 2, 3), (2, 0, 3), (2, 3, 0), (0, 0, 0)] {
        let l = LinearShape { n_rows, in_features, out_features, precision: landscape_kernels::Precision::F32 };
        let (x, weight, dy) = (zeros(n_rows * in_features), zeros(out_features * in_features), values(n_rows * out_features, 1));
        let (bias, mut y) = (values(out_features, 2), values(dy.len(), 3));
        linear::forward(&l, (&x).into(), (&weight).into(), Some((&bias).into()), (&mut y).into()).unwrap();
        assert_eq!(y, bias.repeat(n_rows));
        let mut dx = values(x.len(), 4);
        linear::backward_input(&l, (&weight).into(), (&dy).into(), (&mut dx).into(), OVERWRITE).unwrap();
        assert_eq!(dx, x);
        let (mut dw, mut db) = (values(weight.len(), 5), values(out_features, 6));
        linear::backward_weight(&l, (&x).into(), (&dy).into(), (&mut dw).into(), Some((&mut db).into()), OVERWRITE).unwrap();
        assert_eq!(dw, weight);
        assert!(n_rows > 0 || db == zeros(out_features));
    }
    for (n, channels) in [(0, 3), (2, 0)] {
        let p = PoolShape { n, channels, in_size: [4, 4], kernel_size: [2, 2], stride: [2, 2], padding: [0, 0] };
        let a = AdaptiveShape { n, channels, in_size: [4, 4], out_size: [1, 1] };
        let (x, mut y) = (zeros(0), zeros(0));
        pool::max_forward(&p, (&x).into(), (&mut y).into(), (&mut [][..]).into()).unwrap();
        pool::max_backward(&p, (&[][..]).into(), (&x).into(), (&mut y).into(), OVERWRITE).unwrap();
        pool::average_forward(&p, Padding::Counted, (&x).into(), (&mut y).into()).unwrap();
        pool::average_backward(&p, Padding::NotCounted, (&x).into(), (&mut y).into(), OVERWRITE).unwrap();
        pool::adaptive_average_forward(&a, (&x).into(), (&mut y).into()).unwrap();
        pool::adaptive_average_backward(&a, (&x).into(), (&mut y).into(), OVERWRITE).unwrap();
        shape::flatten_forward(n, channels, 4, 4, (&x).into(), (&mut y).into()).unwrap();
        shape::concat_forward(n, &[channels, 0], &[(&x).into(), (&x).into()], (&mut y).into()).unwrap();
    }
    let b = BatchNormShape { n_rows: 2, channels: 0 };
    let (none, mut y) = (zeros(0), zeros(0));
    batch_norm::normalize(&b, (&none).into(), (&none).into(), (&none).into(), 1e-5, None, None, (&mut y).into()).unwrap();
    let c = Conv2dShape {
        n: 0,
        in_channels: 2,
        in_size: [3, 3],
        out_channels: 4,
        kernel_size: [3, 3],
        stride: [1, 1],
        padding: [1, 1],
        dilation: [1, 1],
        groups: 1,
        precision: landscape_kernels::Precision::F32,
    };
    let (packed, mut dw, mut scratch) = (values(c.weight_len(), 1), values(c.weight_len(), 2), zeros(c.scratch_len()));
    conv2d::forward(&c, (&none).into(), (&packed).into(), None, (&mut y).into(), (&mut scratch).into()).unwrap();
    conv2d::backward_input(&c, (&packed).into(), (&none).into(), (&mut y).into(), OVERWRITE, (&mut scratch).into()).unwrap();
    conv2d::backward_weight(&c, (&none).into(), (&none).into(), (&mut dw).into(), None, OVERWRITE, (&mut scratch).into()).unwrap();
    assert_eq!(dw, zeros(c.weight_len()));
    assert_eq!(loss::cross_entropy(0, 3, (&none).into(), (&[][..]).into(), None).unwrap(), loss::LossSums::default());
}
