//! Rows of `devices.rs`: pointwise activations, broadcasts, permutations, slices, means, embeddings, changes of size, losses of tokens.

use crate::devices::{Case, both_modes, case, everywhere, fresh, narrow, put};
use crate::values;
use landscape_kernels::activation::{Pointwise, pointwise_backward, pointwise_forward};
use landscape_kernels::broadcast::{self, BroadcastShape, Side};
use landscape_kernels::embedding::{self, EmbeddingShape};
use landscape_kernels::loss::{self, IGNORED, N_SUMS};
use landscape_kernels::shape::{self, SliceShape};
use landscape_kernels::upsample::{self, UpsampleShape, Upsampling};
use landscape_kernels::{Accumulate, Device, Error, Memory, Real, pool};

fn pointwise<T: Real>() -> Vec<Case<T>> {
    let n = 1333;
    let power = |exponent| Pointwise::Power { exponent };
    // How far apart exponentials may lie, and nothing else.
    let kinds = [
        (Pointwise::Silu, 16.0),
        (Pointwise::Sigmoid, 8.0),
        (Pointwise::HardSwish, 0.0),
        (Pointwise::HardSigmoid, 0.0),
        (Pointwise::Tanh, 8.0),
        (Pointwise::LeakyRelu { negative_slope: 0.1 }, 0.0),
        (Pointwise::HardTanh { min_val: -1.0, max_val: 6.0 }, 0.0),
        (Pointwise::Elu { alpha: 1.5 }, 8.0),
        (Pointwise::Softplus, 8.0),
        (Pointwise::Exp, 8.0),
        (Pointwise::Affine { scale: 0.3, shift: -2.0 }, 0.0),
        (power(2.0), 0.0),
        (power(3.0), 0.0),
        (power(0.5), 0.0),
        (power(-0.5), 0.0),
        (power(-1.0), 0.0),
        (power(0.0), 8.0),
        (power(1.7), 8.0),
    ];
    let each = kinds.into_iter().map(|(kind, n_ulps)| {
        case(format!("{kind:?}"), n_ulps, move |d| {
            let mut x: Vec<f64> = values(n, 1).iter().map(|v| 8.0 * v).collect();
            if matches!(kind, Pointwise::Power { .. }) {
                x.iter_mut().for_each(|x| *x = x.abs() + 0.1);
            }
            x[..8].copy_from_slice(&[0.0, 3.0, -3.0, 20.5, 6.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY]);
            let (x, dy, mut y) = (Memory::from_host(d, narrow::<T>(&x)), put::<T>(d, n, 2), fresh(d, n));
            pointwise_forward(kind, x.view(), y.view_mut())?;
            let mut all = both_modes(d, n, |dx, mode| pointwise_backward(kind, x.view(), dy.view(), dx.view_mut(), mode))?;
            all.push(y.to_host()?);
            Ok(all)
        })
    });
    each.collect()
}

fn broadcasts<T: Real>() -> Vec<Case<T>> {
    let shapes: [[&[usize]; 3]; 9] = [
        [&[3, 35, 16], &[3, 35, 16], &[3, 1, 16]],
        [&[3, 7, 19], &[3, 7, 19], &[1, 7, 19]],
        [&[30, 17, 40], &[1, 1, 40], &[30, 17, 40]],
        [&[4, 5, 6], &[4, 5, 6], &[4, 5, 6]],
        [&[3, 10, 4], &[3, 10, 4], &[3, 1, 1]],
        [&[7, 5], &[7, 1], &[1, 5]],
        [&[2, 3, 4, 5, 6], &[2, 1, 4, 1, 6], &[1, 3, 4, 5, 1]],
        [&[1], &[1], &[1]],
        [&[0, 3], &[0, 3], &[1, 3]],
    ];
    let each = shapes.map(|[dims, a, b]| {
        let shape = BroadcastShape { dims: dims.to_vec(), a: a.to_vec(), b: b.to_vec() };
        case(format!("broadcast {dims:?} {a:?} {b:?}"), 512.0, move |d| {
            let len = |sizes: &[usize]| sizes.iter().product::<usize>();
            let (n, n_a, n_b) = (len(&shape.dims), len(&shape.a), len(&shape.b));
            let (a, b, dy) = (put::<T>(d, n_a, 1), put::<T>(d, n_b, 2), put::<T>(d, n, 3));
            let (mut sum, mut product) = (fresh::<T>(d, n), fresh::<T>(d, n));
            broadcast::add(&shape, a.view(), b.view(), sum.view_mut())?;
            broadcast::multiply(&shape, a.view(), b.view(), product.view_mut())?;
            let mut all = vec![sum.to_host()?, product.to_host()?];
            for (side, n, other) in [(Side::A, n_a, &b), (Side::B, n_b, &a)] {
                all.extend(both_modes(d, n, |dx, mode| broadcast::add_backward(&shape, side, dy.view(), dx.view_mut(), mode))?);
                all.extend(both_modes(d, n, |dx, mode| {
                    broadcast::multiply_backward(&shape, side, other.view(), dy.view(), dx.view_mut(), mode)
                })?);
            }
            Ok(all)
        })
    });
    each.into_iter().collect()
}

fn places<T: Real>() -> Vec<Case<T>> {
    let orders: [[&[usize]; 2]; 5] = [
        [&[2, 37, 4, 8], &[0, 2, 1, 3]],
        [&[2, 37, 4, 8], &[0, 2, 3, 1]],
        [&[3, 40, 50], &[0, 2, 1]],
        [&[2, 3, 4, 5, 6], &[4, 3, 2, 1, 0]],
        [&[5, 7], &[0, 1]],
    ];
    let mut cases: Vec<Case<T>> = Vec::new();
    for [dims, order] in orders {
        cases.push(case(format!("permute {dims:?} {order:?}"), 0.0, move |d| {
            let n = dims.iter().product();
            let x = put::<T>(d, n, 1);
            both_modes(d, n, |y, mode| shape::permute(dims, order, x.view(), y.view_mut(), mode))
        }));
    }
    for (start, step, len) in [(2, 1, 4), (1, 3, 2), (0, 1, 7), (7, 1, 0), (5, usize::MAX, 1)] {
        let s = SliceShape { outer: 3, axis: 7, inner: 5, start, step, len };
        cases.push(case(format!("{s:?}"), 0.0, move |d| {
            let (x, dy, mut y) = (put::<T>(d, 105, 1), put::<T>(d, 15 * len, 2), fresh::<T>(d, 15 * len));
            shape::slice_forward(&s, x.view(), y.view_mut())?;
            let mut all = both_modes(d, 105, |dx, mode| shape::slice_backward(&s, dy.view(), dx.view_mut(), mode))?;
            all.push(y.to_host()?);
            Ok(all)
        }));
    }
    for [outer, len, inner] in [[3, 49, 33], [5, 65, 1], [1, 300, 2], [0, 2, 3]] {
        cases.push(case(format!("mean and repeat {outer}x{len}x{inner}"), 16.0, move |d| {
            let n = outer * len * inner;
            let (x, dy, mut y) = (put::<T>(d, n, 1), put::<T>(d, outer * inner, 2), fresh::<T>(d, outer * inner));
            pool::mean_forward(outer, len, inner, x.view(), y.view_mut())?;
            let mut all = both_modes(d, n, |dx, mode| pool::mean_backward(outer, len, inner, dy.view(), dx.view_mut(), mode))?;
            let (row, mut rows) = (put::<T>(d, len * inner, 3), fresh::<T>(d, n));
            shape::repeat_forward(outer, row.view(), rows.view_mut())?;
            all.extend(both_modes(d, len * inner, |dx, mode| shape::repeat_backward(outer, x.view(), dx.view_mut(), mode))?);
            all.extend([y.to_host()?, rows.to_host()?]);
            Ok(all)
        }));
    }
    for method in [Upsampling::Nearest, Upsampling::Bilinear { align_corners: false }, Upsampling::Bilinear { align_corners: true }] {
        for (in_size, out_size) in [([3, 4], [6, 8]), ([5, 3], [7, 7]), ([6, 5], [2, 3])] {
            let s = UpsampleShape { n: 2, channels: 5, in_size, out_size, method };
            cases.push(case(format!("{s:?}"), 0.0, move |d| {
                let (in_len, out_len) = (10 * in_size[0] * in_size[1], 10 * out_size[0] * out_size[1]);
                let (x, dy, mut y) = (put::<T>(d, in_len, 1), put::<T>(d, out_len, 2), fresh::<T>(d, out_len));
                upsample::forward(&s, x.view(), y.view_mut())?;
                let mut all = both_modes(d, in_len, |dx, mode| upsample::backward(&s, dy.view(), dx.view_mut(), mode))?;
                all.push(y.to_host()?);
                Ok(all)
            }));
        }
    }
    cases
}

/// Whole numbers below `below`, with repetitions.
fn tokens<T: Real>(device: &Device, n: usize, below: usize) -> Memory<T> {
    let whole: Vec<f64> = values(n, 7).iter().map(|v| ((v + 1.0) / 2.0 * below as f64).floor()).collect();
    Memory::from_host(device, narrow(&whole))
}

fn languages<T: Real>() -> Vec<Case<T>> {
    let mut cases: Vec<Case<T>> = Vec::new();
    for (n_tokens, num_embeddings, embedding_dim) in [(90, 11, 7), (5, 1000, 33), (0, 3, 2)] {
        let s = EmbeddingShape { n_tokens, num_embeddings, embedding_dim };
        // Equal sums in equal order, added to zeros or to what was there.
        cases.push(case(format!("{s:?}"), 0.0, move |d| {
            let (n, n_weights) = (n_tokens * embedding_dim, num_embeddings * embedding_dim);
            let tokens = tokens::<T>(d, n_tokens, num_embeddings);
            let (weight, dy, mut y) = (put::<T>(d, n_weights, 1), put::<T>(d, n, 2), fresh::<T>(d, n));
            embedding::forward(&s, tokens.view(), weight.view(), y.view_mut())?;
            let mut all = both_modes(d, n_weights, |dweight, mode| {
                embedding::backward_weight(&s, tokens.view(), dy.view(), dweight.view_mut(), mode)
            })?;
            all.push(y.to_host()?);
            Ok(all)
        }));
    }
    for (n_rows, n) in [(300, 10), (7, 1), (20, 77), (0, 3)] {
        cases.push(case(format!("losses with questions and ignored rows {n_rows}x{n}"), 64.0, move |d| {
            let z: Vec<f64> = values(n_rows * n, 1).iter().map(|v| 9.0 * v).collect();
            let yes: Vec<f64> = values(n_rows * n, 2).iter().map(|v| f64::from(u8::from(*v > 0.0))).collect();
            let (z, targets) = (Memory::from_host(d, narrow::<T>(&z)), Memory::from_host(d, narrow::<T>(&yes)));
            let (mut dz, mut dy) = (fresh::<T>(d, n_rows * n), fresh::<T>(d, n_rows * n));
            let sums = loss::binary_cross_entropy(n_rows, n, z.view(), targets.view(), Some((dz.view_mut(), 0.5)))?;
            let mut added = Memory::<f64>::zeros(d, N_SUMS);
            loss::add_binary_cross_entropy(n_rows, n, z.view(), targets.view(), None, added.view_mut())?;
            assert_eq!(loss::read_sums(0, added.view())?, sums);
            let labels = (0..n_rows).map(|i| if i % 3 == 1 { IGNORED } else { (i * 7 % n) as u32 }).collect::<Vec<_>>();
            let labels = Memory::from_host(d, labels);
            let some = loss::cross_entropy(n_rows, n, z.view(), labels.view(), Some((dy.view_mut(), 0.5)))?;
            let numbers = [sums, some].map(|s| [s.loss_nats_sum, s.n_wrong as f64, s.n_rows as f64]).concat();
            Ok(vec![dz.to_host()?, dy.to_host()?, narrow(&numbers)])
        }));
    }
    cases
}

pub fn all<T: Real>() -> Vec<Case<T>> {
    [pointwise(), broadcasts(), places(), languages()].into_iter().flatten().collect()
}

/// The processor says which token names no row; an accelerator gives NaN for it and adds its gradient nowhere.
#[test]
fn a_token_that_names_no_row_reads_nothing() {
    let s = EmbeddingShape { n_tokens: 5, num_embeddings: 2, embedding_dim: 3 };
    let tokens = [1.0_f32, 2.0, -1.0, 0.5, f32::NAN];
    for device in everywhere() {
        let (tokens, weight) = (Memory::from_host(&device, tokens.to_vec()), put::<f32>(&device, 6, 1));
        let (dy, mut y, mut dweight) = (put::<f32>(&device, 15, 2), fresh::<f32>(&device, 15), fresh::<f32>(&device, 6));
        let forward = embedding::forward(&s, tokens.view(), weight.view(), y.view_mut());
        let backward = embedding::backward_weight(&s, tokens.view(), dy.view(), dweight.view_mut(), Accumulate::Overwrite);
        if device == Device::Cpu {
            for error in [forward, backward] {
                assert!(matches!(error, Err(Error::Token { position: 1, num_embeddings: 2, .. })), "{error:?}");
            }
            continue;
        }
        forward.and(backward).expect("an accelerator does not look");
        let (weight, dy) = (weight.to_host().expect("a copy"), dy.to_host().expect("a copy"));
        let (y, dweight) = (y.to_host().expect("a copy"), dweight.to_host().expect("a copy"));
        assert_eq!(y[..3], weight[3..]);
        assert!(y[3..].iter().all(|v| v.is_nan()));
        assert_eq!(dweight, [&[0.0; 3], &dy[..3]].concat());
    }
}
