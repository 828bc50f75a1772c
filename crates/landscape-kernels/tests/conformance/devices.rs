//! Every op on every device: the same bodies run on the processor and on a GPU, and must agree, element-wise ops to the bit.
//!
//! Where there is no GPU the test says so and passes; `without_gpu.rs` then runs it on the processor behind the driver's interface.

use crate::{moves as more_moves, transformers, values, weight_space};
use landscape_kernels::activation::{self, Gelu};
use landscape_kernels::batch_norm::{self, BatchNormShape, Share};
use landscape_kernels::conv2d::{self, Conv2dShape};
use landscape_kernels::dropout::{self, DropoutMask};
use landscape_kernels::linear::{self, LinearShape};
use landscape_kernels::loss::{self, N_SUMS};
use landscape_kernels::pool::{self, AdaptiveShape, Padding, PoolShape};
use landscape_kernels::{Accumulate, Device, Error, Memory, Precision, Real, Result, shape};

const MODES: [Accumulate; 2] = [Accumulate::Overwrite, Accumulate::Add];

/// What a body computes on a device, as runs of numbers on the host.
type Body<T> = Box<dyn Fn(&Device) -> Result<Vec<Vec<T>>>>;

/// A body and how far devices may lie apart, in units of the scalar's rounding; 0 wants the same bits.
pub struct Case<T> {
    name: String,
    n_ulps: f64,
    body: Body<T>,
}

pub fn case<T>(name: impl Into<String>, n_ulps: f64, body: impl Fn(&Device) -> Result<Vec<Vec<T>>> + 'static) -> Case<T> {
    Case { name: name.into(), n_ulps, body: Box::new(body) }
}

/// `n` values by a formula, on a device.
pub fn put<T: Real>(device: &Device, n: usize, seed: u64) -> Memory<T> {
    Memory::from_host(device, narrow(&values(n, seed)))
}

pub fn narrow<T: Real>(values: &[f64]) -> Vec<T> {
    values.iter().map(|v| T::from_f64(*v)).collect()
}

/// Runs `op` in both modes on a run that holds values already; overwriting must not read them, so they are NaN.
pub fn both_modes<T: Real>(device: &Device, n: usize, mut op: impl FnMut(&mut Memory<T>, Accumulate) -> Result<()>) -> Result<Vec<Vec<T>>> {
    let mut results = Vec::new();
    for mode in MODES {
        let start = match mode {
            Accumulate::Overwrite => vec![T::from_f64(f64::NAN); n],
            Accumulate::Add => narrow(&values(n, 99)),
        };
        let mut into = Memory::from_host(device, start);
        op(&mut into, mode)?;
        results.push(into.to_host()?);
    }
    Ok(results)
}

/// A fresh run that the op must fill.
pub fn fresh<T: Real>(device: &Device, n: usize) -> Memory<T> {
    Memory::from_host(device, vec![T::from_f64(f64::NAN); n])
}

fn element_wise<T: Real>() -> Vec<Case<T>> {
    let n = 1333;
    let mut cases = vec![
        case("relu", 0.0, move |d| {
            let mut x = values(n, 1);
            x[..4].copy_from_slice(&[-0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY]);
            let (x, dy, mut y) = (Memory::from_host(d, narrow::<T>(&x)), put::<T>(d, n, 2), fresh(d, n));
            activation::relu_forward(x.view(), y.view_mut())?;
            let mut all = both_modes(d, n, |dx, mode| activation::relu_backward(y.view(), dy.view(), dx.view_mut(), mode))?;
            all.push(y.to_host()?);
            Ok(all)
        }),
        case("add and accumulate", 0.0, move |d| {
            let (a, b, mut y) = (put::<T>(d, n, 1), put::<T>(d, n, 2), fresh(d, n));
            activation::add(a.view(), b.view(), y.view_mut())?;
            activation::accumulate(a.view(), y.view_mut())?;
            Ok(vec![y.to_host()?])
        }),
        case("dropout", 0.0, move |d| {
            let mask = DropoutMask { p: 0.4, seed: 12, first_idx: u64::MAX - 600 };
            let (x, mut y) = (put::<T>(d, n, 1), fresh(d, n));
            dropout::forward(&mask, x.view(), y.view_mut())?;
            let mut all = both_modes(d, n, |dx, mode| dropout::backward(&mask, x.view(), dx.view_mut(), mode))?;
            all.push(y.to_host()?);
            Ok(all)
        }),
    ];
    for kind in [Gelu::Erf, Gelu::Tanh] {
        cases.push(case(format!("gelu {kind:?}"), 16.0, move |d| {
            let wide: Vec<f64> = values(n, 1).iter().map(|v| 6.0 * v).collect();
            let (x, dy, mut y) = (Memory::from_host(d, narrow::<T>(&wide)), put::<T>(d, n, 2), fresh(d, n));
            activation::gelu_forward(kind, x.view(), y.view_mut())?;
            let mut all = both_modes(d, n, |dx, mode| activation::gelu_backward(kind, x.view(), dy.view(), dx.view_mut(), mode))?;
            all.push(y.to_host()?);
            Ok(all)
        }));
    }
    cases
}

fn moves<T: Real>() -> Vec<Case<T>> {
    let mut cases = Vec::new();
    for [n, c, h, w] in [[2, 3, 5, 7], [1, 40, 6, 11], [3, 1, 4, 4], [2, 70, 1, 1]] {
        cases.push(case(format!("layouts {n}x{c}x{h}x{w}"), 0.0, move |d| {
            let len = n * c * h * w;
            let (x, mut y, mut back, mut flat) = (put::<T>(d, len, 1), fresh(d, len), fresh(d, len), fresh(d, len));
            shape::nchw_to_nhwc(n, c, h, w, x.view(), y.view_mut())?;
            shape::nhwc_to_nchw(n, c, h, w, y.view(), back.view_mut())?;
            shape::flatten_forward(n, c, h, w, y.view(), flat.view_mut())?;
            let mut all = both_modes(d, len, |dx, mode| shape::flatten_backward(n, c, h, w, x.view(), dx.view_mut(), mode))?;
            all.extend([y.to_host()?, back.to_host()?, flat.to_host()?]);
            Ok(all)
        }));
    }
    cases.push(case("concat", 0.0, |d| {
        let (n_rows, widths) = (37, [5, 0, 9, 1]);
        let inputs: Vec<Memory<T>> = widths.iter().zip(1..).map(|(w, seed)| put(d, n_rows * w, seed)).collect();
        let mut y = fresh::<T>(d, n_rows * 15);
        let views: Vec<_> = inputs.iter().map(Memory::view).collect();
        shape::concat_forward(n_rows, &widths, &views, y.view_mut())?;
        let mut all = vec![y.to_host()?];
        for (idx, width) in widths.iter().enumerate() {
            let back = |dx: &mut Memory<T>, mode| shape::concat_backward(n_rows, &widths, idx, y.view(), dx.view_mut(), mode);
            all.extend(both_modes(d, n_rows * width, back)?);
        }
        Ok(all)
    }));
    cases
}

fn pools<T: Real>() -> Vec<Case<T>> {
    let overlapping = PoolShape { n: 2, channels: 5, in_size: [9, 8], kernel_size: [3, 3], stride: [2, 1], padding: [1, 1] };
    let gaps = PoolShape { n: 2, channels: 3, in_size: [9, 8], kernel_size: [1, 2], stride: [3, 3], padding: [0, 0] };
    let halves = PoolShape { n: 3, channels: 16, in_size: [6, 6], kernel_size: [2, 2], stride: [2, 2], padding: [0, 0] };
    let mut cases = Vec::new();
    for s in [overlapping, gaps, halves] {
        let [h, w] = s.out_size();
        let (in_len, out_len) = (s.n * s.channels * s.in_size[0] * s.in_size[1], s.n * s.channels * h * w);
        cases.push(case(format!("max {s:?}"), 0.0, move |d| {
            // Few different values, so that there are ties; a NaN in one window.
            let mut x: Vec<f64> = values(in_len, 1).iter().map(|v| (3.0 * v).round()).collect();
            x[in_len / 2] = f64::NAN;
            let (x, dy, mut y) = (Memory::from_host(d, narrow::<T>(&x)), put::<T>(d, out_len, 2), fresh::<T>(d, out_len));
            let mut argmax = Memory::from_host(d, vec![u32::MAX; out_len]);
            pool::max_forward(&s, x.view(), y.view_mut(), argmax.view_mut())?;
            let mut all = both_modes(d, in_len, |dx, mode| pool::max_backward(&s, argmax.view(), dy.view(), dx.view_mut(), mode))?;
            all.push(y.to_host()?);
            all.push(argmax.to_host()?.into_iter().map(|place| T::from_f64(f64::from(place))).collect());
            Ok(all)
        }));
        for padding in [Padding::Counted, Padding::NotCounted] {
            cases.push(case(format!("average {padding:?} {s:?}"), 0.0, move |d| {
                let (x, dy, mut y) = (put::<T>(d, in_len, 1), put::<T>(d, out_len, 2), fresh::<T>(d, out_len));
                pool::average_forward(&s, padding, x.view(), y.view_mut())?;
                let mut all = both_modes(d, in_len, |dx, mode| pool::average_backward(&s, padding, dy.view(), dx.view_mut(), mode))?;
                all.push(y.to_host()?);
                Ok(all)
            }));
        }
    }
    for out_size in [[1, 1], [4, 3], [11, 2]] {
        let s = AdaptiveShape { n: 2, channels: 5, in_size: [9, 8], out_size };
        let (in_len, out_len) = (2 * 5 * 72, 2 * 5 * out_size[0] * out_size[1]);
        cases.push(case(format!("adaptive {out_size:?}"), 0.0, move |d| {
            let (x, dy, mut y) = (put::<T>(d, in_len, 1), put::<T>(d, out_len, 2), fresh::<T>(d, out_len));
            pool::adaptive_average_forward(&s, x.view(), y.view_mut())?;
            let mut all = both_modes(d, in_len, |dx, mode| pool::adaptive_average_backward(&s, dy.view(), dx.view_mut(), mode))?;
            all.push(y.to_host()?);
            Ok(all)
        }));
    }
    cases
}

/// What products are computed in, for a scalar.
fn precisions<T: Real>() -> Vec<Precision> {
    Precision::ALL.into_iter().filter(|precision| T::NAME == "f32" || *precision == Precision::F32).collect()
}

/// TF32 is of GPUs alone: the processor computes in f32, and rounding TF32 is 2¹³ times as coarse.
fn on(device: &Device, precision: Precision) -> Precision {
    if *device == Device::Cpu && precision == Precision::Tf32 { Precision::F32 } else { precision }
}

fn slack(precision: Precision) -> f64 {
    if precision == Precision::Tf32 { 8192.0 } else { 1.0 }
}

fn linears<T: Real>() -> Vec<Case<T>> {
    let mut cases = Vec::new();
    for [n, i, o] in [[37, 70, 53], [1, 1, 1], [130, 3, 10], [0, 3, 2]] {
        for precision in precisions::<T>() {
            cases.push(case(format!("linear {n}x{i}x{o} {precision}"), 100.0 * slack(precision), move |d| {
                let s = LinearShape { n_rows: n, in_features: i, out_features: o, precision: on(d, precision) };
                let (x, weight, bias, dy) = (put::<T>(d, n * i, 1), put::<T>(d, o * i, 2), put::<T>(d, o, 3), put::<T>(d, n * o, 4));
                let (mut y, mut without) = (fresh::<T>(d, n * o), fresh::<T>(d, n * o));
                linear::forward(&s, x.view(), weight.view(), Some(bias.view()), y.view_mut())?;
                linear::forward(&s, x.view(), weight.view(), None, without.view_mut())?;
                let mut all = both_modes(d, n * i, |dx, mode| linear::backward_input(&s, weight.view(), dy.view(), dx.view_mut(), mode))?;
                let mut dbias = fresh::<T>(d, o);
                all.extend(both_modes(d, o * i, |dweight, mode| {
                    linear::backward_weight(&s, x.view(), dy.view(), dweight.view_mut(), Some(dbias.view_mut()), mode)
                })?);
                all.extend([y.to_host()?, without.to_host()?, dbias.to_host()?]);
                Ok(all)
            }));
        }
    }
    cases
}

/// A small convolution with a border.
pub const CONVOLUTION: Conv2dShape = Conv2dShape {
    n: 2,
    in_channels: 8,
    in_size: [9, 7],
    out_channels: 16,
    kernel_size: [3, 3],
    stride: [1, 1],
    padding: [1, 1],
    dilation: [1, 1],
    groups: 1,
    precision: Precision::F32,
};

fn convolutions<T: Real>() -> Vec<Case<T>> {
    let base = CONVOLUTION;
    let shapes = [
        ("3x3", base),
        ("many outputs", Conv2dShape { n: 1, in_channels: 40, out_channels: 70, in_size: [5, 4], ..base }),
        ("partial sums", Conv2dShape { n: 3, in_channels: 2, out_channels: 3, in_size: [21, 20], ..base }),
        ("strided", Conv2dShape { stride: [2, 2], ..base }),
        ("dilated", Conv2dShape { dilation: [2, 1], padding: [2, 0], ..base }),
        ("pointwise", Conv2dShape { kernel_size: [1, 1], padding: [0, 0], ..base }),
        ("strided pointwise", Conv2dShape { kernel_size: [1, 1], padding: [0, 0], stride: [2, 3], ..base }),
        ("grouped", Conv2dShape { groups: 4, ..base }),
        ("depthwise", Conv2dShape { groups: 8, out_channels: 8, ..base }),
        (
            "depthwise, strided, partial sums",
            Conv2dShape { groups: 40, in_channels: 40, out_channels: 40, in_size: [33, 34], stride: [1, 2], ..base },
        ),
        ("depthwise, two each", Conv2dShape { groups: 8, ..base }),
        ("no examples", Conv2dShape { n: 0, ..base }),
    ];
    let mut cases = Vec::new();
    for (name, s) in shapes {
        for precision in precisions::<T>() {
            cases.push(case(format!("conv2d {name} {precision}"), 400.0 * slack(precision), move |d| {
                let s = Conv2dShape { precision: on(d, precision), ..s };
                let (x, oihw, bias, dy) = (
                    put::<T>(d, s.in_len(), 1),
                    put::<T>(d, s.weight_len(), 2),
                    put::<T>(d, s.out_channels, 3),
                    put::<T>(d, s.out_len(), 4),
                );
                let mut scratch = fresh::<T>(d, s.scratch_len());
                let mut packed = fresh::<T>(d, s.weight_len());
                conv2d::pack_weight(&s, oihw.view(), packed.view_mut())?;
                let (mut y, mut without) = (fresh::<T>(d, s.out_len()), fresh::<T>(d, s.out_len()));
                conv2d::forward(&s, x.view(), packed.view(), Some(bias.view()), y.view_mut(), scratch.view_mut())?;
                conv2d::forward(&s, x.view(), packed.view(), None, without.view_mut(), scratch.view_mut())?;
                let mut all = both_modes(d, s.in_len(), |dx, mode| {
                    conv2d::backward_input(&s, packed.view(), dy.view(), dx.view_mut(), mode, scratch.view_mut())
                })?;
                let mut dpacked = fresh::<T>(d, s.weight_len());
                all.extend(both_modes(d, s.out_channels, |dbias, mode| {
                    let dbias = Some(dbias.view_mut());
                    conv2d::backward_weight(&s, x.view(), dy.view(), dpacked.view_mut(), dbias, mode, scratch.view_mut())
                })?);
                all.extend(both_modes(d, s.weight_len(), |oihw, mode| conv2d::unpack_gradient(&s, dpacked.view(), oihw.view_mut(), mode))?);
                all.extend([packed.to_host()?, y.to_host()?, without.to_host()?]);
                Ok(all)
            }));
        }
    }
    cases
}

fn batch_norms<T: Real>() -> Vec<Case<T>> {
    let mut cases = Vec::new();
    for (n_rows, channels) in [(45, 6), (1, 3), (700, 33), (300, 64)] {
        let s = BatchNormShape { n_rows, channels };
        let len = n_rows * channels;
        for affine in [true, false] {
            cases.push(case(format!("batch_norm {n_rows}x{channels}, affine {affine}"), 100.0, move |d| {
                let x: Vec<f64> = values(len, 1).iter().map(|v| 50.0 + 3.0 * v).collect();
                let (x, dy) = (Memory::from_host(d, narrow::<T>(&x)), put::<T>(d, len, 2));
                let (weight, bias) = (put::<T>(d, channels, 3), put::<T>(d, channels, 4));
                let (weight, bias) = (affine.then_some(weight.view()), affine.then_some(bias.view()));
                let (mut mean, mut var, mut y) = (fresh::<T>(d, channels), fresh::<T>(d, channels), fresh::<T>(d, len));
                batch_norm::statistics(&s, x.view(), mean.view_mut(), var.view_mut())?;
                // Both devices go on from the same statistics, so that differences do not grow through 1/σ.
                let (mean_there, var_there) = (mean.to_host()?, var.to_host()?);
                let stored = put::<T>(d, channels, 5);
                let var_stored = Memory::from_host(d, narrow::<T>(&values(channels, 6).iter().map(|v| v + 1.5).collect::<Vec<_>>()));
                batch_norm::normalize(&s, x.view(), stored.view(), var_stored.view(), 1e-5, weight, bias, y.view_mut())?;
                let mut all = vec![mean_there, var_there, y.to_host()?];
                let mut kept = [7, 8].map(|seed| put::<f64>(d, channels, seed));
                for momentum in [0.1, 0.7] {
                    batch_norm::update_running(momentum, 1.25, stored.view(), kept[0].view_mut())?;
                    let share = Share { share: momentum, factor: 1.25, between: momentum };
                    let [mean, var] = &mut kept;
                    batch_norm::merge_moments(share, stored.view(), var_stored.view(), mean.view_mut(), var.view_mut())?;
                }
                for kept in &kept {
                    all.push(narrow(&kept.to_host()?));
                }
                for through_batch in [true, false] {
                    let backward = if through_batch { batch_norm::backward_batch } else { batch_norm::backward_stored };
                    let mut gradients = vec![fresh::<T>(d, channels), fresh::<T>(d, channels)];
                    all.extend(both_modes(d, len, |dx, mode| {
                        let (dweight, dbias) = gradients.split_at_mut(1);
                        let (dweight, dbias) = (Some(dweight[0].view_mut()), Some(dbias[0].view_mut()));
                        let (mean, var) = (stored.view(), var_stored.view());
                        let (x, dy) = (y.view(), dy.view());
                        let overwrite = Accumulate::Overwrite;
                        backward(&s, x, mean, var, 1e-5, weight, dy, dx.view_mut(), mode, dweight, dbias, overwrite)
                    })?);
                    for gradient in &gradients {
                        all.push(gradient.to_host()?);
                    }
                }
                Ok(all)
            }));
        }
    }
    cases
}

fn losses<T: Real>() -> Vec<Case<T>> {
    let mut cases = Vec::new();
    for (n_rows, n_classes) in [(300, 10), (7, 1), (20, 77), (0, 3)] {
        cases.push(case(format!("losses {n_rows}x{n_classes}"), 64.0, move |d| {
            let len = n_rows * n_classes;
            let mut z: Vec<f64> = values(len, 1).iter().map(|v| (20.0 * v).round() / 4.0).collect();
            if n_rows > 1 {
                // Ties, of which the first counts.
                z[..n_classes].fill(1.0);
            }
            let (z, targets) = (Memory::from_host(d, narrow::<T>(&z)), put::<T>(d, len, 2));
            let labels = Memory::from_host(d, (0..n_rows).map(|i| (i * 7 % n_classes) as u32).collect::<Vec<_>>());
            let (mut dz, mut dy) = (fresh::<T>(d, len), fresh::<T>(d, len));
            let mut sums = Memory::<f64>::zeros(d, N_SUMS);
            let once = loss::cross_entropy(n_rows, n_classes, z.view(), labels.view(), None)?;
            for _ in 0..2 {
                let into = Some((dz.view_mut(), 0.25));
                loss::add_cross_entropy(n_rows, n_classes, z.view(), labels.view(), into, sums.view_mut())?;
            }
            let twice = loss::read_sums(n_classes, sums.view())?;
            assert_eq!(twice.n_wrong, 2 * once.n_wrong);
            let squared = loss::squared_error(n_rows, n_classes, z.view(), targets.view(), Some((dy.view_mut(), 0.5)))?;
            let mut also = Memory::<f64>::zeros(d, N_SUMS);
            loss::add_squared_error(n_rows, n_classes, z.view(), targets.view(), None, also.view_mut())?;
            assert_eq!(loss::read_sums(0, also.view())?, squared);
            let numbers = [once.loss_nats_sum, twice.loss_nats_sum, once.n_wrong as f64, squared.loss_nats_sum];
            Ok(vec![dz.to_host()?, dy.to_host()?, narrow(&numbers)])
        }));
    }
    cases
}

fn all<T: Real>() -> Vec<Case<T>> {
    let groups = [element_wise(), moves(), pools(), linears(), convolutions(), batch_norms(), losses()];
    groups.into_iter().chain([more_moves::all(), transformers::all(), weight_space::all()]).flatten().collect()
}

/// Fails unless the two agree as far as the case wants.
fn agree<T: Real>(case: &Case<T>, device: &Device) {
    let run = |device: &Device| (case.body)(device).unwrap_or_else(|error| panic!("{} on {device}: {error}", case.name));
    let (expected, got) = (run(&Device::Cpu), run(device));
    assert_eq!(expected.len(), got.len());
    for (idx, (expected, got)) in expected.iter().zip(&got).enumerate() {
        assert_eq!(expected.len(), got.len(), "{}: result {idx}", case.name);
        for (i, (a, b)) in got.iter().zip(expected).enumerate() {
            let (a, b) = (a.to_f64(), b.to_f64());
            let equal = a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
            let close = (a - b).abs() <= case.n_ulps * T::EPSILON.to_f64() * (1.0 + b.abs());
            assert!(
                equal || (case.n_ulps > 0.0 && close),
                "{} ({}), result {idx}, element {i}: {a:e} on {device} for {b:e}",
                case.name,
                T::NAME
            );
        }
    }
    // The same bits again: sums have an order.
    let again = run(device);
    let bits = |all: &[Vec<T>]| all.iter().flatten().map(|v| v.to_f64().to_bits()).collect::<Vec<_>>();
    assert!(bits(&again) == bits(&got), "{}: another run gives other bits on {device}", case.name);
}

/// Every device of this machine besides the processor, or the one that `LANDSCAPE_TEST_DEVICE` names, which must be there.
#[allow(clippy::print_stderr)]
fn accelerators() -> Vec<Device> {
    let named = std::env::var("LANDSCAPE_TEST_DEVICE").ok();
    match Device::parse(named.as_deref().unwrap_or("cuda:0")) {
        Ok(device) => vec![device],
        Err(error) if named.is_some() => panic!("{error}"),
        Err(reason @ (Error::NotBuilt(_) | Error::NoDevice { .. })) => {
            eprintln!("skipped: {reason}");
            Vec::new()
        }
        Err(error) => panic!("{error}"),
    }
}

/// The processor and all others.
pub fn everywhere() -> Vec<Device> {
    std::iter::once(Device::Cpu).chain(accelerators()).collect()
}

/// The bodies run on the processor wherever the tests run, so none of them is wrong by itself.
#[test]
fn bodies_run_on_the_processor() {
    for case in all::<f32>() {
        agree(&case, &Device::Cpu);
    }
}

#[test]
fn accelerators_agree_with_the_processor() {
    for device in accelerators() {
        for case in all::<f32>() {
            agree(&case, &device);
        }
        for case in all::<f64>() {
            agree(&case, &device);
        }
        for case in weight_space::all_f32() {
            agree(&case, &device);
        }
    }
}

#[test]
fn what_an_accelerator_cannot_do_is_an_error() {
    for device in accelerators() {
        let (there, mut here) = (Memory::from_host(&device, vec![1.0_f32; 4]), vec![0.0_f32; 4]);
        let error = activation::relu_forward(there.view(), (&mut here).into()).expect_err("operands apart");
        assert!(matches!(error, Error::Place { operand: "y", .. }), "{error}");
        // Labels are seen where the sums are read.
        let labels = Memory::from_host(&device, vec![0_u32, 5]);
        let error = loss::cross_entropy(2, 2, there.view(), labels.view(), None).expect_err("a label that is no class");
        assert!(matches!(error, Error::Label { row: 1, label: 5, n_classes: 2, .. }), "{error}");
        let s = Conv2dShape {
            n: 1,
            in_channels: 1,
            in_size: [2, 2],
            out_channels: 1,
            kernel_size: [2, 2],
            stride: [1, 1],
            padding: [0, 0],
            dilation: [1, 1],
            groups: 1,
            precision: Precision::F32,
        };
        let (mut y, mut scratch) = (Memory::<f32>::zeros(&device, 1), Memory::<f32>::zeros(&device, s.scratch_len()));
        let none = conv2d::Epilogue::None;
        let error = conv2d::forward_fused(&s, there.view(), None, there.view(), None, y.view_mut(), none, scratch.view_mut());
        assert!(matches!(error, Err(Error::Device { .. })));
    }
}
