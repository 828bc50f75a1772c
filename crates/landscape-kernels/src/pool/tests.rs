use super::*;
use crate::memory::{Accumulate, Real, View};
use crate::naive::pool as naive;
use crate::naive::tools::{assert_close, bits, check_gradient, dot, on_pools, values};
use proptest::prelude::*;

const MODES: [Accumulate; 2] = [Accumulate::Overwrite, Accumulate::Add];

fn shapes() -> impl Strategy<Value = PoolShape> {
    let axis = || (1_usize..12, 1_usize..5, 1_usize..4, 0_usize..3);
    (0_usize..4, 1_usize..19, axis(), axis()).prop_map(|(n, channels, a, b)| {
        // The window is cut to what fits, so that every drawn shape is a good one.
        let fit = |(size, kernel, stride, padding): (usize, usize, usize, usize)| {
            let padding = padding.min(kernel / 2);
            if kernel > size + 2 * padding { (size, size, stride, 0) } else { (size, kernel, stride, padding) }
        };
        let (a, b) = (fit(a), fit(b));
        PoolShape { n, channels, in_size: [a.0, b.0], kernel_size: [a.1, b.1], stride: [a.2, b.2], padding: [a.3, b.3] }
    })
}

fn adaptive_shapes() -> impl Strategy<Value = AdaptiveShape> {
    let size = || [1_usize..12, 1_usize..12];
    (0_usize..4, 1_usize..19, size(), size()).prop_map(|(n, channels, in_size, out_size)| AdaptiveShape { n, channels, in_size, out_size })
}

fn max<T: Real>(s: &PoolShape, x: &[T]) -> (Vec<T>, Vec<u32>) {
    let n = s.lengths("test").expect("a good shape")[1];
    let (mut y, mut argmax) = (vec![T::ONE; n], vec![u32::MAX; n]);
    max_forward(s, x.into(), (&mut y).into(), (&mut argmax).into()).expect("a good call");
    (y, argmax)
}

fn max_back<T: Real>(s: &PoolShape, argmax: &[u32], dy: &[T], start: &[T], mode: Accumulate) -> Vec<T> {
    let mut dx = start.to_vec();
    max_backward(s, argmax.into(), dy.into(), (&mut dx).into(), mode).expect("a good call");
    dx
}

fn average<T: Real>(s: &PoolShape, padding: Padding, x: &[T]) -> Vec<T> {
    let mut y = vec![T::ONE; s.lengths("test").expect("a good shape")[1]];
    average_forward(s, padding, x.into(), (&mut y).into()).expect("a good call");
    y
}

fn average_back<T: Real>(s: &PoolShape, padding: Padding, dy: &[T], start: &[T], mode: Accumulate) -> Vec<T> {
    let mut dx = start.to_vec();
    average_backward(s, padding, dy.into(), (&mut dx).into(), mode).expect("a good call");
    dx
}

fn adaptive<T: Real>(s: &AdaptiveShape, x: &[T]) -> Vec<T> {
    let mut y = vec![T::ONE; s.n * s.channels * s.out_size[0] * s.out_size[1]];
    adaptive_average_forward(s, x.into(), (&mut y).into()).expect("a good call");
    y
}

fn adaptive_back<T: Real>(s: &AdaptiveShape, dy: &[T], start: &[T], mode: Accumulate) -> Vec<T> {
    let mut dx = start.to_vec();
    adaptive_average_backward(s, dy.into(), (&mut dx).into(), mode).expect("a good call");
    dx
}

/// Σ over pairs of x/divisor, per output.
fn means<T: Real>(pairs: &[(usize, usize, f64)], n_out: usize, x: &[T]) -> Vec<T> {
    let mut y = vec![0.0; n_out];
    for &(out, input, divisor) in pairs {
        y[out] += x[input].to_f64() / divisor;
    }
    y.into_iter().map(T::from_f64).collect()
}

/// Its transpose, into `start` or into zeros.
fn means_back<T: Real>(pairs: &[(usize, usize, f64)], dy: &[T], start: &[T], mode: Accumulate) -> Vec<T> {
    let mut dx: Vec<f64> = start.iter().map(|v| if mode == Accumulate::Add { v.to_f64() } else { 0.0 }).collect();
    for &(out, input, divisor) in pairs {
        dx[input] += dy[out].to_f64() / divisor;
    }
    dx.into_iter().map(T::from_f64).collect()
}

fn in_len(n: usize, channels: usize, in_size: [usize; 2]) -> usize {
    n * channels * in_size[0] * in_size[1]
}

fn fixed_windows_equal_naive<T: Real>(s: &PoolShape, seed: u64) {
    let n_in = in_len(s.n, s.channels, s.in_size);
    let (x, start) = (values::<T>(n_in, seed), values::<T>(n_in, seed + 1));
    let (y, argmax) = max(s, &x);
    let (expected, places) = naive::max(s, &x);
    assert_eq!((bits(&y), &argmax), (bits(&expected), &places));
    let dy = values::<T>(y.len(), seed + 2);
    for mode in MODES {
        let mut dx = if mode == Accumulate::Add { start.clone() } else { vec![T::ZERO; n_in] };
        for (out, &dy) in dy.iter().enumerate() {
            dx[naive::max_source(s, out, argmax[out])] += dy;
        }
        assert_eq!(bits(&max_back(s, &argmax, &dy, &start, mode)), bits(&dx));
    }
    for padding in [Padding::Counted, Padding::NotCounted] {
        let pairs = naive::average_pairs(s, padding);
        assert_close(&average(s, padding, &x), &means(&pairs, y.len(), &x), 4.0);
        for mode in MODES {
            assert_close(&average_back(s, padding, &dy, &start, mode), &means_back(&pairs, &dy, &start, mode), 32.0);
        }
    }
}

fn adaptive_windows_equal_naive<T: Real>(s: &AdaptiveShape, seed: u64) {
    let n_in = in_len(s.n, s.channels, s.in_size);
    let (x, start) = (values::<T>(n_in, seed), values::<T>(n_in, seed + 1));
    let pairs = naive::adaptive_pairs(s);
    let y = adaptive(s, &x);
    assert_close(&y, &means(&pairs, y.len(), &x), 4.0);
    let dy = values::<T>(y.len(), seed + 2);
    for mode in MODES {
        assert_close(&adaptive_back(s, &dy, &start, mode), &means_back(&pairs, &dy, &start, mode), 256.0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn fixed_windows(s in shapes(), seed in 0_u64..1000) {
        fixed_windows_equal_naive::<f32>(&s, seed);
        fixed_windows_equal_naive::<f64>(&s, seed);
    }

    #[test]
    fn adaptive_windows(s in adaptive_shapes(), seed in 0_u64..1000) {
        adaptive_windows_equal_naive::<f32>(&s, seed);
        adaptive_windows_equal_naive::<f64>(&s, seed);
    }

    /// No shape, however wild, panics: it is refused, or the lengths are found wrong.
    #[test]
    fn wild_shapes_are_errors(sizes in prop::collection::vec(prop_oneof![0_usize..4, Just(usize::MAX), Just(usize::MAX / 2)], 12)) {
        let s = PoolShape {
            n: sizes[0], channels: sizes[1], in_size: [sizes[2], sizes[3]], kernel_size: [sizes[4], sizes[5]],
            stride: [sizes[6], sizes[7]], padding: [sizes[8], sizes[9]],
        };
        let a = AdaptiveShape { n: sizes[0], channels: sizes[1], in_size: [sizes[2], sizes[3]], out_size: [sizes[10], sizes[11]] };
        let (x, mut y, mut argmax) = ([0.0_f32; 5], [0.0_f32; 5], [0; 5]);
        let x = View::Host(&x[..]);
        prop_assert!(max_forward(&s, x, (&mut y[..]).into(), (&mut argmax[..]).into()).is_err());
        prop_assert!(max_backward(&s, (&argmax[..]).into(), x, (&mut y[..]).into(), Accumulate::Add).is_err());
        prop_assert!(average_forward(&s, Padding::Counted, x, (&mut y[..]).into()).is_err());
        prop_assert!(average_backward(&s, Padding::NotCounted, x, (&mut y[..]).into(), Accumulate::Add).is_err());
        prop_assert!(adaptive_average_forward(&a, x, (&mut y[..]).into()).is_err());
        prop_assert!(adaptive_average_backward(&a, x, (&mut y[..]).into(), Accumulate::Add).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn gradients_equal_finite_differences(s in shapes(), a in adaptive_shapes(), seed in 0_u64..1000) {
        let (s, a) = (PoolShape { n: 1, channels: 3, ..s }, AdaptiveShape { n: 1, channels: 3, ..a });
        let n_in = in_len(1, 3, s.in_size);
        let x = values::<f64>(n_in, seed);
        let (y, argmax) = max(&s, &x);
        let (dy, zero) = (values::<f64>(y.len(), seed + 1), vec![0.0; n_in]);
        check_gradient(&x, &max_back(&s, &argmax, &dy, &zero, Accumulate::Overwrite), |x| dot(&max(&s, x).0, &dy));
        for padding in [Padding::Counted, Padding::NotCounted] {
            check_gradient(&x, &average_back(&s, padding, &dy, &zero, Accumulate::Overwrite), |x| dot(&average(&s, padding, x), &dy));
        }
        let n_in = in_len(1, 3, a.in_size);
        let (x, dy) = (values::<f64>(n_in, seed + 2), values::<f64>(in_len(1, 3, a.out_size), seed + 3));
        check_gradient(&x, &adaptive_back(&a, &dy, &vec![0.0; n_in], Accumulate::Overwrite), |x| dot(&adaptive(&a, x), &dy));
    }
}

#[test]
fn sizes_are_pytorchs() {
    let s = PoolShape { n: 1, channels: 1, in_size: [7, 8], kernel_size: [3, 2], stride: [2, 3], padding: [1, 0] };
    assert_eq!(s.out_size(), [4, 3]);
    assert!(s.check().is_ok());
    let reason = |s: PoolShape| s.check().expect_err("a bad shape").to_string();
    assert_eq!(reason(PoolShape { padding: [2, 0], ..s }), "`pool`: `padding` must be at most half of `kernel_size` [3, 2], got [2, 0]");
    assert_eq!(reason(PoolShape { stride: [2, 0], ..s }), "`pool`: `stride` must be at least 1 on both axes, got [2, 0]");
    assert_eq!(
        reason(PoolShape { kernel_size: [10, 2], ..s }),
        "`pool`: `kernel_size` [10, 2] must fit the input [7, 8] with `padding` [1, 0]"
    );
}

#[test]
fn nan_minus_infinity_and_ties() {
    let s = PoolShape { n: 1, channels: 1, in_size: [1, 4], kernel_size: [1, 4], stride: [1, 1], padding: [0, 0] };
    let places = |x: [f32; 4]| max(&s, &x);
    assert_eq!(places([1.0, 3.0, 3.0, 2.0]), (vec![3.0], vec![1]));
    assert_eq!(places([f32::NEG_INFINITY; 4]), (vec![f32::NEG_INFINITY], vec![0]));
    let (y, argmax) = places([1.0, f32::NAN, f32::NAN, 9.0]);
    assert!(y[0].is_nan());
    // A comparison with NaN is false, so nothing after it is larger; another NaN replaces it.
    assert_eq!(argmax, [2]);
}

#[test]
fn bits_do_not_depend_on_the_thread_count() {
    let s = PoolShape { n: 7, channels: 16, in_size: [9, 9], kernel_size: [3, 3], stride: [2, 2], padding: [1, 1] };
    let x = values::<f32>(7 * 16 * 81, 1);
    on_pools(|| {
        let (y, argmax) = max(&s, &x);
        let means = average(&s, Padding::Counted, &x);
        let back = [max_back(&s, &argmax, &means, &x, Accumulate::Add), average_back(&s, Padding::Counted, &y, &x, Accumulate::Add)];
        (bits(&y), argmax, bits(&means), bits(&back.concat()))
    });
    let s = AdaptiveShape { n: 7, channels: 16, in_size: [9, 9], out_size: [4, 2] };
    on_pools(|| bits(&adaptive_back(&s, &adaptive(&s, &x), &x, Accumulate::Add)));
}

#[test]
fn wrong_lengths_are_errors() {
    let s = PoolShape { n: 1, channels: 1, in_size: [2, 2], kernel_size: [1, 1], stride: [1, 1], padding: [0, 0] };
    let a = AdaptiveShape { n: 1, channels: 1, in_size: [2, 2], out_size: [2, 2] };
    let x = [1.0_f32; 4];
    for (n_x, n_y, n_argmax) in [(3, 4, 4), (4, 3, 4), (4, 4, 3)] {
        let (mut y, mut argmax, x) = (vec![0.0_f32; n_y], vec![0; n_argmax], View::Host(&x[..n_x]));
        assert!(max_forward(&s, x, (&mut y).into(), (&mut argmax).into()).is_err());
        assert!(max_backward(&s, (&argmax).into(), x, (&mut y).into(), Accumulate::Add).is_err());
        if n_argmax == 4 {
            assert!(average_forward(&s, Padding::Counted, x, (&mut y).into()).is_err());
            assert!(average_backward(&s, Padding::Counted, x, (&mut y).into(), Accumulate::Add).is_err());
            assert!(adaptive_average_forward(&a, x, (&mut y).into()).is_err());
            assert!(adaptive_average_backward(&a, x, (&mut y).into(), Accumulate::Add).is_err());
        }
    }
    let error = max_backward(&s, View::Host(&[0, 1, 2, 4]), View::Host(&x), (&mut [0.0; 4][..]).into(), Accumulate::Add)
        .expect_err("4 is no pixel");
    assert_eq!(error.to_string(), "`max_backward`: `argmax` must be below 4, got 4");
}
