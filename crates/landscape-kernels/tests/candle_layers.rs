//! The layers against candle's own forward passes, which are right, and against finite differences.
#![cfg(feature = "candle")]
#![allow(clippy::unwrap_used)]

use candle_core::{D, DType, Device, Result, Tensor, Var};
use landscape_kernels::candle::rotary_emb::{rope, rope_i, rope_thd};
use landscape_kernels::candle::*;

const CPU: Device = Device::Cpu;

/// `n` values in [-1, 1), by a hash of `seed` and the position.
fn values(n: usize, seed: u64) -> Vec<f64> {
    let value = |i: u64| {
        let mut z = (seed << 32 | i).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z ^= z >> 32;
        (z >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    };
    (0..n as u64).map(value).collect()
}

/// Fails unless `gradient` is that of `f` at `x`, by central differences.
fn check_gradient(x: &[f64], gradient: &[f64], f: impl Fn(&[f64]) -> f64) {
    assert_eq!(x.len(), gradient.len());
    let h = 1e-5;
    for i in 0..x.len() {
        let at = |d: f64| {
            let mut moved = x.to_vec();
            moved[i] += d;
            f(&moved)
        };
        let expected = (at(h) - at(-h)) / (2.0 * h);
        let tolerance = 1e-7 * (1.0 + expected.abs());
        assert!((expected - gradient[i]).abs() <= tolerance, "element {i}: {} for {expected}", gradient[i]);
    }
}

fn var(dims: &[usize], seed: u64) -> Var {
    Var::from_vec(values(dims.iter().product(), seed), dims, &CPU).unwrap()
}

fn vars(dims: &[&[usize]]) -> Vec<Var> {
    dims.iter().zip(1..).map(|(dims, seed)| var(dims, seed)).collect()
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn assert_near(found: &Tensor, expected: &Tensor, tolerance: f64, what: &str) {
    assert_eq!(found.dims(), expected.dims(), "{what}");
    for (found, expected) in numbers(found).iter().zip(numbers(expected)) {
        assert!((found - expected).abs() <= tolerance * (1.0 + expected.abs()), "{what}: {found} for {expected}");
    }
}

/// An op of a list of tensors.
type Op<'a> = &'a dyn Fn(&[Tensor]) -> Result<Tensor>;

/// Σ w·f(inputs) with fixed weights.
fn root(f: Op<'_>, inputs: &[Tensor]) -> Tensor {
    let y = f(inputs).unwrap();
    let w = Tensor::from_vec(values(y.elem_count(), 77), y.shape(), &CPU).unwrap().to_dtype(y.dtype()).unwrap();
    y.mul(&w).unwrap().sum_all().unwrap()
}

fn tensors(inputs: &[Var]) -> Vec<Tensor> {
    inputs.iter().map(|v| v.as_tensor().clone()).collect()
}

/// Fails unless f has the right gradient for every input, twice as large where it is used twice.
fn check_gradients(what: &str, f: Op<'_>, inputs: &[Var]) {
    let all = tensors(inputs);
    let once = root(f, &all).backward().unwrap();
    let twice = (root(f, &all) + root(f, &all)).unwrap().backward().unwrap();
    for (k, input) in inputs.iter().enumerate() {
        let Some(gradient) = once.get(input) else { panic!("{what}: no gradient of input {k}") };
        assert_eq!(gradient.dims(), input.dims(), "{what}");
        assert_near(twice.get(input).unwrap(), &(gradient * 2.0).unwrap(), 1e-14, what);
        check_gradient(&numbers(input), &numbers(gradient), |moved| {
            let mut all = all.clone();
            all[k] = Tensor::from_slice(moved, input.shape(), &CPU).unwrap();
            root(f, &all).to_scalar().unwrap()
        });
    }
}

/// Fails unless f is g in f64 and f32, for inputs that are contiguous and for such that are not, and has the right gradients in f64.
fn check(what: &str, f: Op<'_>, g: Op<'_>, inputs: &[Var]) {
    let all = tensors(inputs);
    assert_near(&f(&all).unwrap(), &g(&all).unwrap(), 1e-12, what);
    let narrow: Vec<Tensor> = all.iter().map(|t| t.to_dtype(DType::F32).unwrap()).collect();
    let y = f(&narrow).unwrap();
    assert_eq!(y.dtype(), DType::F32);
    assert_near(&y, &f(&all).unwrap(), 1e-5, what);
    // The same numbers, the last two axes the other way round in memory.
    let turned = |t: &Tensor| match t.rank() {
        0 | 1 => t.clone(),
        _ => t.t().unwrap().contiguous().unwrap().t().unwrap(),
    };
    let strided: Vec<Tensor> = all.iter().map(turned).collect();
    assert_near(&f(&strided).unwrap(), &f(&all).unwrap(), 1e-15, what);
    check_gradients(what, f, inputs);
    check_gradients(what, &|all| f(&all.iter().map(turned).collect::<Vec<_>>()), inputs);
}

fn conv2d_config(padding: usize, stride: usize, dilation: usize, groups: usize) -> Conv2dConfig {
    Conv2dConfig { padding, stride, dilation, groups, cudnn_fwd_algo: None }
}

#[test]
fn conv2d_is_candles() {
    let cases: [([usize; 4], [usize; 4], Conv2dConfig); 6] = [
        ([2, 3, 5, 5], [4, 3, 3, 3], conv2d_config(1, 1, 1, 1)),
        ([2, 2, 7, 7], [3, 2, 3, 3], conv2d_config(1, 2, 1, 1)),
        ([1, 4, 6, 6], [6, 2, 3, 3], conv2d_config(2, 1, 2, 2)),
        ([2, 4, 5, 5], [4, 1, 3, 3], conv2d_config(1, 1, 1, 4)),
        ([3, 3, 4, 4], [5, 3, 1, 1], conv2d_config(0, 1, 1, 1)),
        ([1, 1, 6, 4], [2, 1, 3, 2], conv2d_config(0, 1, 1, 1)),
    ];
    for (x, w, config) in cases {
        let what = format!("conv2d {x:?} {w:?} {config:?}");
        let with_bias = vars(&[&x, &w, &w[..1]]);
        let ours = |t: &[Tensor]| Conv2d::new(t[1].clone(), t.get(2).cloned(), config).forward(&t[0]);
        let candles = |t: &[Tensor]| candle_nn::Conv2d::new(t[1].clone(), t.get(2).cloned(), config).forward(&t[0]);
        check(&what, &ours, &candles, &with_bias);
        check(&what, &ours, &candles, &with_bias[..2]);
        let (a, b) = (root(&ours, &tensors(&with_bias)).backward().unwrap(), root(&candles, &tensors(&with_bias)).backward().unwrap());
        for input in &with_bias {
            assert_near(a.get(input).unwrap(), b.get(input).unwrap(), 1e-12, &what);
        }
    }
}

#[test]
fn conv1d_is_candles_with_a_right_gradient() {
    for (x, w, padding, stride, dilation, groups) in [
        ([2, 3, 9], [4, 3, 3], 1, 1, 1, 1),
        ([2, 4, 10], [6, 2, 3], 2, 2, 2, 2),
        ([1, 2, 8], [3, 2, 3], 0, 3, 1, 1),
        ([2, 3, 5], [3, 1, 2], 0, 1, 1, 3),
    ] {
        let config = Conv1dConfig { padding, stride, dilation, groups, cudnn_fwd_algo: None };
        let ours = |t: &[Tensor]| Conv1d::new(t[1].clone(), t.get(2).cloned(), config).forward(&t[0]);
        let candles = |t: &[Tensor]| candle_nn::Conv1d::new(t[1].clone(), t.get(2).cloned(), config).forward(&t[0]);
        let inputs = vars(&[&x, &w, &w[..1]]);
        let what = format!("conv1d {x:?} {w:?} {config:?}");
        check(&what, &ours, &candles, &inputs);
        check(&what, &ours, &candles, &inputs[..2]);
        // Of a type that there is no kernel for; candle's convolutions on the processor have no bf16.
        check_fallback_in(DType::F16, &what, &ours, &inputs, 0.1);
    }
}

/// Fails unless f in bf16 is about f in f64, forward and backward: the way that other types and devices go.
fn check_fallback(what: &str, f: Op<'_>, inputs: &[Var], tolerance: f64) {
    check_fallback_in(DType::BF16, what, f, inputs, tolerance);
}

fn check_fallback_in(dtype: DType, what: &str, f: Op<'_>, inputs: &[Var], tolerance: f64) {
    // Values that bf16 has, and f16.
    let rounded = |v: &Var, dtype| Var::from_tensor(&v.to_dtype(DType::BF16).unwrap().to_dtype(dtype).unwrap()).unwrap();
    let [narrow, wide] = [dtype, DType::F64].map(|dtype| inputs.iter().map(|v| rounded(v, dtype)).collect::<Vec<_>>());
    assert_near(&f(&tensors(&narrow)).unwrap(), &f(&tensors(&wide)).unwrap(), tolerance, what);
    let [a, b] = [&narrow, &wide].map(|inputs| root(f, &tensors(inputs)).backward().unwrap());
    for (narrow, wide) in narrow.iter().zip(&wide) {
        let Some(gradient) = a.get(narrow) else { panic!("{what}: no gradient in {dtype:?}") };
        assert_near(gradient, b.get(wide).unwrap(), tolerance, what);
    }
}

#[test]
fn pooling_is_candles_with_a_right_gradient() {
    for (dims, kernel, stride) in
        [([2, 3, 4, 4], (2, 2), (2, 2)), ([2, 2, 7, 7], (2, 2), (2, 2)), ([1, 3, 8, 7], (3, 3), (2, 2)), ([2, 1, 6, 6], (2, 3), (2, 1))]
    {
        let what = format!("pooling {dims:?} {kernel:?} {stride:?}");
        let inputs = vars(&[&dims]);
        let max = |t: &[Tensor]| max_pool2d_with_stride(&t[0], kernel, stride);
        let mean = |t: &[Tensor]| avg_pool2d_with_stride(&t[0], kernel, stride);
        check(&what, &max, &|t| t[0].max_pool2d_with_stride(kernel, stride), &inputs);
        check(&what, &mean, &|t| t[0].avg_pool2d_with_stride(kernel, stride), &inputs);
        check_fallback(&what, &max, &inputs, 0.02);
        check_fallback(&what, &mean, &inputs, 0.02);
    }
    let x = var(&[1, 2, 6, 6], 1);
    assert_near(&max_pool2d(&x, 3).unwrap(), &x.max_pool2d(3).unwrap(), 0.0, "max_pool2d");
    assert_near(&avg_pool2d(&x, (2, 3)).unwrap(), &x.avg_pool2d((2, 3)).unwrap(), 1e-15, "avg_pool2d");
    for dtype in [DType::F64, DType::BF16] {
        // Of equals the first gets all.
        let x = Var::from_tensor(&Tensor::ones((1, 1, 2, 2), dtype, &CPU).unwrap()).unwrap();
        let gradient = max_pool2d(&x, 2).unwrap().sum_all().unwrap().backward().unwrap();
        assert_eq!(numbers(gradient.get(&x).unwrap()), [1.0, 0.0, 0.0, 0.0]);
        assert!(max_pool2d(&x, 3).is_err() && avg_pool2d(&x.flatten_all().unwrap(), 2).is_err());
    }
}

#[test]
fn norms_are_candles_slow_ones() {
    let inputs = vars(&[&[2, 3, 5], &[5], &[5]]);
    let slow = |t: &[Tensor]| candle_nn::ops::layer_norm_slow(&t[0], &t[1], &t[2], 1e-5);
    // candle's epsilon is of f32.
    let eps = f64::from(1e-5_f32);
    let module = |t: &[Tensor]| LayerNorm::new(t[1].clone(), t[2].clone(), eps).forward(&t[0]);
    check("LayerNorm", &module, &slow, &inputs);
    check("layer_norm", &|t| ops::layer_norm(&t[0], &t[1], &t[2], 1e-5), &slow, &inputs);
    check_fallback("LayerNorm", &module, &inputs, 0.1);
    check_fallback("layer_norm", &|t| ops::layer_norm(&t[0], &t[1], &t[2], 1e-5), &inputs, 0.1);
    let slow = |t: &[Tensor]| candle_nn::ops::layer_norm_slow(&t[0], &t[1], &t[1].zeros_like()?, 1e-5);
    check("LayerNorm without bias", &|t| LayerNorm::new_no_bias(t[1].clone(), eps).forward(&t[0]), &slow, &inputs[..2]);

    let slow = |t: &[Tensor]| candle_nn::ops::rms_norm_slow(&t[0], &t[1], 1e-5);
    let module = |t: &[Tensor]| RmsNorm::new(t[1].clone(), eps).forward(&t[0]);
    check("RmsNorm", &module, &slow, &inputs[..2]);
    check("rms_norm", &|t| ops::rms_norm(&t[0], &t[1], 1e-5), &slow, &inputs[..2]);
    check_fallback("RmsNorm", &module, &inputs[..2], 0.1);
    check_fallback("rms_norm", &|t| ops::rms_norm(&t[0], &t[1], 1e-5), &inputs[..2], 0.1);

    // The constructors name and begin parameters as candle does.
    let names = |build: &dyn Fn(VarBuilder) -> Result<()>| {
        let map = VarMap::new();
        build(VarBuilder::from_varmap(&map, DType::F32, &CPU)).unwrap();
        let mut names: Vec<String> = map.data().lock().unwrap().keys().cloned().collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(names(&|vb| layer_norm(4, 1e-5, vb).map(|_| ())), "bias weight");
    assert_eq!(names(&|vb| layer_norm_no_bias(4, 1e-5, vb).map(|_| ())), "weight");
    assert_eq!(names(&|vb| rms_norm(4, 1e-5, vb).map(|norm| assert!(!norm.into_inner().remove_mean()))), "weight");
    let config = LayerNormConfig { eps: 1e-5, remove_mean: false, affine: true };
    let map = VarMap::new();
    let norm = layer_norm(5, config, VarBuilder::from_varmap(&map, DType::F64, &CPU)).unwrap();
    let x = &inputs[0];
    assert_near(
        &norm.forward(x).unwrap(),
        &candle_nn::ops::rms_norm_slow(x, norm.weight(), 1e-5).unwrap(),
        1e-8,
        "layer_norm of length alone",
    );
    assert!(ops::layer_norm(x, &inputs[1], &x.flatten_all().unwrap(), 1e-5).is_err());
}

#[test]
fn softmax_is_candles_slow_one() {
    for dims in [&[7][..], &[2, 3, 4], &[1, 2, 3, 5]] {
        let inputs = vars(&[dims]);
        let slow = |t: &[Tensor]| candle_nn::ops::softmax(&t[0], D::Minus1);
        check("softmax_last_dim", &|t| ops::softmax_last_dim(&t[0]), &slow, &inputs);
        check("softmax", &|t| ops::softmax(&t[0], D::Minus1), &slow, &inputs);
        check("softmax of the first", &|t| ops::softmax(&t[0], 0), &|t| candle_nn::ops::softmax(&t[0], 0), &inputs);
        check_fallback("softmax_last_dim", &|t| ops::softmax_last_dim(&t[0]), &inputs, 0.03);
    }
}

#[test]
fn rotary_embeddings_are_candles_with_gradients() {
    let (b, h, t, d) = (2, 3, 4, 6);
    type Turn = fn(&Tensor, &Tensor, &Tensor) -> Result<Tensor>;
    let ops: [(&str, Turn, Turn, [usize; 4]); 3] = [
        ("rope", rope, candle_nn::rotary_emb::rope, [b, h, t, d]),
        ("rope_i", rope_i, candle_nn::rotary_emb::rope_i, [b, h, t, d]),
        ("rope_thd", rope_thd, candle_nn::rotary_emb::rope_thd, [b, t, h, d]),
    ];
    for (what, ours, candles, dims) in ops {
        for table in [&[t + 2, d / 2][..], &[b, t, d / 2]] {
            let inputs = vars(&[&dims, table, table]);
            check(what, &|t| ours(&t[0], &t[1], &t[2]), &|t| candles(&t[0], &t[1], &t[2]), &inputs);
            check_fallback(what, &|t| ours(&t[0], &t[1], &t[2]), &inputs, 0.06);
        }
        let inputs = tensors(&vars(&[&dims, &[t - 1, d / 2], &[t, d / 2], &[b + 1, t, d / 2]]));
        for (cos, sin) in [(1, 2), (2, 1), (3, 3), (0, 2)] {
            assert!(ours(&inputs[0], &inputs[cos], &inputs[sin]).is_err(), "{what}");
        }
    }
}

#[test]
fn batch_norm_is_candles() {
    for dims in [&[6, 3][..], &[3, 2, 4], &[2, 3, 3, 2]] {
        let c = dims[1];
        let statistics = || (var(&[c], 8), Var::from_tensor(&(var(&[c], 9).abs().unwrap() + 0.5).unwrap()).unwrap());
        for affine in [true, false] {
            let inputs = if affine { vars(&[dims, &[c], &[c]]) } else { vars(&[dims]) };
            for train in [true, false] {
                let what = format!("batch norm {dims:?} affine {affine} train {train}");
                let ((mean, var), (mean_too, var_too)) = (statistics(), statistics());
                let ours = |t: &[Tensor]| {
                    // candle takes the statistics of a batch of bf16 in f32.
                    let dtype = if train && t[0].dtype() == DType::BF16 { DType::F32 } else { t[0].dtype() };
                    let [m, v] = [&mean, &var].map(|s| s.as_tensor().to_dtype(dtype).unwrap());
                    let norm = match affine {
                        true => BatchNorm::new(c, m, v, t[1].clone(), t[2].clone(), 1e-5)?,
                        false => BatchNorm::new_no_bias(c, m, v, 1e-5)?,
                    };
                    norm.forward_t(&t[0], train)
                };
                let candles = |t: &[Tensor]| {
                    let (m, v) = (mean_too.as_tensor().clone(), var_too.as_tensor().clone());
                    let norm = match affine {
                        true => candle_nn::BatchNorm::new(c, m, v, t[1].clone(), t[2].clone(), 1e-5)?,
                        false => candle_nn::BatchNorm::new_no_bias(c, m, v, 1e-5)?,
                    };
                    norm.forward_t(&t[0], train)
                };
                assert_near(&ours(&tensors(&inputs)).unwrap(), &candles(&tensors(&inputs)).unwrap(), 1e-12, &what);
                assert_near(&mean, &mean_too, 1e-14, &what);
                assert_near(&var, &var_too, 1e-14, &what);
                assert_eq!(numbers(&mean) == numbers(&statistics().0), !train, "{what}");
                // Statistics stand still for what follows, or evaluation would be another function each time.
                check_gradients(&what, &ours, &inputs);
                check_fallback(&what, &ours, &inputs, 0.15);
            }
        }
    }
    // What the builder hands out is what moves.
    let map = VarMap::new();
    let config = BatchNormConfig { momentum: 0.5, ..Default::default() };
    let norm = batch_norm(3, config, VarBuilder::from_varmap(&map, DType::F64, &CPU)).unwrap();
    norm.forward_train(&var(&[4, 3], 1)).unwrap();
    let moved = numbers(&map.data().lock().unwrap()["running_mean"]);
    assert_eq!(moved, numbers(norm.running_mean()));
    assert!(moved.iter().all(|m| *m != 0.0));
    // A batch of one has no variance, and says so.
    norm.forward_train(&var(&[1, 3], 1)).unwrap();
    assert!(numbers(norm.running_var()).iter().all(|v| v.is_nan()));
}

#[test]
fn constants_get_no_gradient() {
    let (x, w) = (var(&[2, 3, 4, 4], 1), var(&[5, 3, 3, 3], 2));
    let y = Conv2d::new(w.as_tensor().clone(), None, Conv2dConfig::default()).forward(&x.detach()).unwrap();
    let gradients = y.sum_all().unwrap().backward().unwrap();
    assert!(gradients.get(&w).is_some() && gradients.get_ids().count() < 4);
}

#[test]
fn a_normalisation_is_absorbed() {
    let (x, w) = (var(&[2, 3, 4, 4], 1), var(&[5, 3, 3, 3], 2));
    let [mean, weight, bias] = [3, 4, 5].map(|seed| var(&[5], seed).as_tensor().clone());
    let bn = BatchNorm::new(5, mean, Tensor::ones(5, DType::F64, &CPU).unwrap(), weight, bias, 1e-5).unwrap();
    let conv = Conv2d::new(w.as_tensor().clone(), None, Conv2dConfig::default());
    let two = bn.forward_t(&conv.forward(&x).unwrap(), false).unwrap();
    assert_near(&conv.absorb_bn(&bn).unwrap().forward(&x).unwrap(), &two, 1e-12, "absorb_bn");
}
