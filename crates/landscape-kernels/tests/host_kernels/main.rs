//! The `.cu` files on the host driver, against the functions of the CPU: element by element the same bits, sums within rounding.
//!
//! Threads run in two orders, which must not matter. Without a C++ compiler the tests say so and pass.
#![allow(clippy::unwrap_used)]

#[path = "../host_driver/mod.rs"]
mod host_driver;
mod driver;

use driver::{Arg, Driver, on_driver};
use landscape_kernels::activation::{self, Gelu};
use landscape_kernels::dropout::{self, DropoutMask};
use landscape_kernels::loss::{self, N_SUMS};
use landscape_kernels::{Accumulate, Real, View, shape};

/// `n` values in [-1, 1) by a formula.
fn values<T: Real>(n: usize, seed: u64) -> Vec<T> {
    (0..n as u64).map(|i| T::from_f64(((i * 2_654_435_761 + seed * 40_503) % 100_003) as f64 / 50_001.5 - 1.0)).collect()
}

fn bits<T: Real>(values: &[T]) -> Vec<u64> {
    values.iter().map(|v| v.to_f64().to_bits()).collect()
}

fn close<T: Real>(got: &[T], expected: &[T], n_ulps: f64) {
    assert_eq!(got.len(), expected.len());
    for (i, (a, b)) in got.iter().zip(expected).enumerate() {
        let (a, b) = (a.to_f64(), b.to_f64());
        assert!((a - b).abs() <= n_ulps * T::EPSILON.to_f64() * (1.0 + b.abs()), "element {i}: {a} for {b}");
    }
}

fn name<T: Real>(kernel: &str) -> String {
    format!("{kernel}_{}", T::NAME)
}

fn activations<T: Real>(driver: &Driver) {
    let n = 1000;
    let mut x: Vec<T> = values::<T>(n, 1).into_iter().map(|v| v * T::from_f64(4.0)).collect();
    x[..3].copy_from_slice(&[T::from_f64(f64::NAN), T::from_f64(-0.0), T::NEG_INFINITY]);
    let (dy, start) = (values::<T>(n, 2), values::<T>(n, 3));
    let threads = ([3, 1, 1], [64, 1, 1]);
    let count = || Arg::I64(n as i64);

    let mut y = vec![T::ONE; n];
    activation::relu_forward((&x).into(), (&mut y).into()).unwrap();
    let got = driver.run::<T>(&name::<T>("relu_forward"), threads, vec![count(), driver.put(&x), driver.out(&vec![T::ONE; n])]);
    assert_eq!(bits(&got), bits(&y));

    for (add, mode) in [(0, Accumulate::Overwrite), (1, Accumulate::Add)] {
        let mut dx = start.clone();
        activation::relu_backward((&y).into(), (&dy).into(), (&mut dx).into(), mode).unwrap();
        let args = vec![count(), driver.put(&y), driver.put(&dy), driver.out(&start), Arg::I32(add)];
        let got = driver.run::<T>(&name::<T>("relu_backward"), threads, args);
        assert_eq!(bits(&got), bits(&dx));
        for (idx, kind) in [Gelu::Erf, Gelu::Tanh].into_iter().enumerate() {
            let mut y = vec![T::ONE; n];
            activation::gelu_forward(kind, (&x[3..]).into(), (&mut y[3..]).into()).unwrap();
            let args = vec![count(), Arg::I32(idx as i32), driver.put(&x), driver.out(&y)];
            let got = driver.run::<T>(&name::<T>("gelu_forward"), threads, args);
            close(&got[3..], &y[3..], 4.0);
            let mut dx = start.clone();
            activation::gelu_backward(kind, (&x[3..]).into(), (&dy[3..]).into(), (&mut dx[3..]).into(), mode).unwrap();
            let args = vec![count(), Arg::I32(idx as i32), driver.put(&x), driver.put(&dy), driver.out(&start), Arg::I32(add)];
            let got = driver.run::<T>(&name::<T>("gelu_backward"), threads, args);
            close(&got[3..], &dx[3..], 16.0);
        }
        let mask = DropoutMask { p: 0.3, seed: 11, first_idx: u64::MAX - 100 };
        let mut dx = start.clone();
        dropout::backward(&mask, (&dy).into(), (&mut dx).into(), mode).unwrap();
        let [state, first, threshold] = mask.words();
        let args = vec![
            count(),
            Arg::U64(state),
            Arg::U64(first),
            Arg::U64(threshold),
            Arg::F64(1.0 / (1.0 - mask.p)),
            driver.put(&dy),
            driver.out(&start),
            Arg::I32(add),
        ];
        let got = driver.run::<T>(&name::<T>("dropout"), threads, args);
        assert_eq!(bits(&got), bits(&dx));
    }
}

#[test]
fn element_wise_kernels_have_the_bits_of_the_cpu() {
    on_driver(|driver| {
        activations::<f32>(driver);
        activations::<f64>(driver);
    });
}

fn transposed<T: Real>(driver: &Driver) {
    for (n, c, h, w) in [(2, 3, 5, 7), (1, 40, 6, 11), (3, 1, 4, 4)] {
        let (x, start) = (values::<T>(n * c * h * w, 1), values::<T>(n * c * h * w, 2));
        let mut y = start.clone();
        shape::flatten_backward(n, c, h, w, (&x).into(), (&mut y).into(), Accumulate::Add).unwrap();
        let sizes = [n, c, h * w].map(|v| Arg::I64(v as i64));
        let args = sizes.into_iter().chain([driver.put(&x), driver.out(&start), Arg::I32(1)]).collect();
        let got = driver.run::<T>(&name::<T>("transpose"), ([2, 1, 1], [32, 8, 1]), args);
        assert_eq!(bits(&got), bits(&y));
    }
}

#[test]
fn threads_of_a_block_meet_at_barriers() {
    on_driver(|driver| {
        transposed::<f32>(driver);
        transposed::<f64>(driver);
    });
}

fn cross_entropies<T: Real>(driver: &Driver) {
    for (n_rows, n_classes) in [(37, 10), (5, 1), (9, 100)] {
        let mut z: Vec<T> = values::<T>(n_rows * n_classes, 4).into_iter().map(|v| v * T::from_f64(6.0)).collect();
        let labels: Vec<u32> = (0..n_rows).map(|i| (i * 7 % n_classes) as u32).collect();
        // Ties: the first of the largest counts.
        z[..n_classes].fill(T::ONE);
        let mut gradient = vec![T::ZERO; z.len()];
        let expected =
            loss::cross_entropy(n_rows, n_classes, (&z).into(), View::Host(&labels), Some(((&mut gradient).into(), 0.25))).unwrap();
        let sizes = [n_rows, n_classes].map(|v| Arg::I64(v as i64));
        let (losses, flags) = (driver.put(&vec![f64::NAN; n_rows]), driver.put(&vec![u32::MAX; n_rows]));
        let labels = driver.put(&labels);
        let args = vec![driver.put(&z), labels.clone(), driver.out(&gradient), Arg::F64(0.25), losses.clone(), flags.clone()];
        let got = driver.run::<T>(&name::<T>("cross_entropy"), ([2, 1, 1], [32, 8, 1]), sizes.into_iter().chain(args).collect());
        close(&got, &gradient, 4.0);
        let args = vec![Arg::I64(n_rows as i64), losses, flags, labels, driver.out(&[1.0_f64, 2.0, 0.0, 0.0, 3.0])];
        let sums = driver.run::<f64>("loss_sums", ([1, 1, 1], [256, 1, 1]), args);
        let expected = [1.0 + expected.loss_nats_sum, 2.0 + expected.n_wrong as f64, 0.0, 0.0, 3.0 + n_rows as f64];
        close(&sums, &expected, 64.0);
    }
}

#[test]
fn threads_of_a_warp_shuffle() {
    on_driver(|driver| {
        cross_entropies::<f32>(driver);
        cross_entropies::<f64>(driver);
    });
}

/// A label that is no class is told by its row, and NaN makes a row wrong and its loss NaN.
#[test]
fn bad_labels_and_nan_are_seen() {
    on_driver(|driver| {
        let z = [0.0, 1.0, f32::NAN, 1.0, 2.0, 1.0];
        let mut gradient = [0.0_f32; 6];
        let expected = loss::cross_entropy(3, 2, View::Host(&z), View::Host(&[1, 1, 0]), Some(((&mut gradient[..]).into(), 1.0))).unwrap();
        for (labels, bad) in [([1_u32, 1, 0], [0.0, 0.0]), ([1, 2, 5], [2.0, 2.0])] {
            let labels = driver.put(&labels);
            let (losses, flags) = (driver.put(&[0.0_f64; 3]), driver.put(&[0_u32; 3]));
            let args = vec![Arg::I64(3), Arg::I64(2), driver.put(&z), labels.clone(), driver.out(&[0.0_f32; 6])];
            let args = args.into_iter().chain([Arg::F64(1.0), losses.clone(), flags.clone()]).collect();
            let got = driver.run::<f32>("cross_entropy_f32", ([1, 1, 1], [32, 8, 1]), args);
            let args = vec![Arg::I64(3), losses, flags, labels, driver.out(&[0.0_f64; N_SUMS])];
            let sums = driver.run::<f64>("loss_sums", ([1, 1, 1], [256, 1, 1]), args);
            assert_eq!(sums[2..4], bad);
            if bad[0] == 0.0 {
                assert!(expected.loss_nats_sum.is_nan() && sums[0].is_nan());
                assert_eq!(sums[1], expected.n_wrong as f64);
                assert_eq!(got.iter().map(|g| g.is_nan()).collect::<Vec<_>>(), gradient.iter().map(|g| g.is_nan()).collect::<Vec<_>>());
            }
        }
    });
}
