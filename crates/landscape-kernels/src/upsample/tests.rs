use super::*;
use crate::naive::tools::{assert_close, bits, check_gradient, dot, on_pools, values};
use crate::simd::Level;
use crate::simd::tests::{at_every_level, at_level};

const MODES: [Accumulate; 2] = [Accumulate::Overwrite, Accumulate::Add];
const METHODS: [Upsampling; 3] =
    [Upsampling::Nearest, Upsampling::Bilinear { align_corners: false }, Upsampling::Bilinear { align_corners: true }];

fn shapes() -> Vec<UpsampleShape> {
    let sizes =
        [([3, 4], [6, 8]), ([5, 3], [7, 7]), ([4, 4], [4, 4]), ([6, 5], [2, 3]), ([1, 1], [3, 2]), ([2, 3], [1, 9]), ([7, 1], [1, 1])];
    let mut shapes = Vec::new();
    for (in_size, out_size) in sizes {
        for method in METHODS {
            shapes.push(UpsampleShape { n: 2, channels: 5, in_size, out_size, method });
            shapes.push(UpsampleShape { n: 1, channels: 17, in_size, out_size, method });
        }
    }
    shapes
}

fn up<T: Real>(s: &UpsampleShape, x: &[T]) -> Vec<T> {
    let mut y = vec![T::ONE; s.n * s.channels * s.out_size[0] * s.out_size[1]];
    forward(s, x.into(), (&mut y).into()).expect("lengths agree");
    y
}

fn back<T: Real>(s: &UpsampleShape, dy: &[T], start: &[T], mode: Accumulate) -> Vec<T> {
    let mut dx = start.to_vec();
    backward(s, dy.into(), (&mut dx).into(), mode).expect("lengths agree");
    dx
}

/// The weight of an input place in an output place, from the definition: a hat over each input pixel.
fn weight(method: Upsampling, [input, output]: [usize; 2], i: usize, out: usize) -> f64 {
    match method {
        Upsampling::Nearest => f64::from(u8::from(out * input / output == i)),
        Upsampling::Bilinear { align_corners } => {
            let last = (input - 1) as f64;
            let at = match align_corners {
                true if output == 1 => 0.0,
                true => out as f64 * last / (output - 1) as f64,
                false => (out as f64 + 0.5) * input as f64 / output as f64 - 0.5,
            };
            (1.0 - (at.clamp(0.0, last) - i as f64).abs()).max(0.0)
        }
    }
}

/// Every input element, output element and the weight between them.
fn pairs(s: &UpsampleShape) -> Vec<(usize, usize, f64)> {
    let ([h, w], [p, q]) = (s.in_size, s.out_size);
    let mut pairs = Vec::new();
    for image in 0..s.n {
        for (i, j) in (0..h).flat_map(|i| (0..w).map(move |j| (i, j))) {
            for (k, l) in (0..p).flat_map(|k| (0..q).map(move |l| (k, l))) {
                let weight = weight(s.method, [h, p], i, k) * weight(s.method, [w, q], j, l);
                for c in (0..s.channels).filter(|_| weight != 0.0) {
                    pairs.push((((image * h + i) * w + j) * s.channels + c, ((image * p + k) * q + l) * s.channels + c, weight));
                }
            }
        }
    }
    pairs
}

fn same_as_naive<T: Real>(s: &UpsampleShape) {
    let (x, dy) =
        (values::<T>(s.n * s.channels * s.in_size[0] * s.in_size[1], 1), values::<T>(s.n * s.channels * s.out_size[0] * s.out_size[1], 2));
    let (mut y, mut dx) = (vec![0.0; dy.len()], vec![0.0; x.len()]);
    for (from, to, weight) in pairs(s) {
        y[to] += weight * x[from].to_f64();
        dx[from] += weight * dy[to].to_f64();
    }
    assert_close(&up(s, &x), &y.iter().map(|&v| T::from_f64(v)).collect::<Vec<_>>(), 4.0);
    for mode in MODES {
        let before = |i: usize| if mode == Accumulate::Add { x[i].to_f64() } else { 0.0 };
        let expected: Vec<T> = dx.iter().enumerate().map(|(i, v)| T::from_f64(before(i) + v)).collect();
        assert_close(&back(s, &dy, &x, mode), &expected, 8.0);
    }
}

#[test]
fn equal_naive_at_every_level_on_any_number_of_threads() {
    for s in shapes() {
        at_every_level(|| {
            same_as_naive::<f32>(&s);
            same_as_naive::<f64>(&s);
        });
        let dy = values::<f32>(s.n * s.channels * s.out_size[0] * s.out_size[1], 2);
        let zero = vec![0.0; s.n * s.channels * s.in_size[0] * s.in_size[1]];
        let all = || bits(&up(&s, &back(&s, &dy, &zero, Accumulate::Overwrite)));
        let portable = at_level(Level::Portable, all);
        at_every_level(|| assert!(all() == portable));
        on_pools(all);
    }
}

#[test]
fn gradients_equal_finite_differences() {
    for method in METHODS {
        let s = UpsampleShape { n: 1, channels: 2, in_size: [3, 2], out_size: [5, 5], method };
        let (x, dy) = (values::<f64>(12, 1), values::<f64>(50, 2));
        check_gradient(&x, &back(&s, &dy, &[0.0; 12], Accumulate::Overwrite), |x| dot(&up(&s, x), &dy));
    }
}

/// `F.interpolate(torch.arange(3.), size=5)` and friends of PyTorch 2.15.
#[test]
fn values_are_those_of_pytorch() {
    let s = |method| UpsampleShape { n: 1, channels: 1, in_size: [1, 3], out_size: [1, 5], method };
    let x = [0.0_f64, 1.0, 2.0];
    assert_eq!(up(&s(METHODS[0]), &x), [0.0, 0.0, 1.0, 1.0, 2.0]);
    let close = |got: Vec<f64>, expected: [f64; 5]| assert_close(&got, &expected, 2.0);
    close(up(&s(METHODS[1]), &x), [0.0, 0.4, 1.0, 1.6, 2.0]);
    close(up(&s(METHODS[2]), &x), [0.0, 0.5, 1.0, 1.5, 2.0]);
}

#[test]
fn what_does_not_fit_is_an_error() {
    let s = UpsampleShape { n: 1, channels: 1, in_size: [1, 3], out_size: [1, 5], method: Upsampling::Nearest };
    let (x, mut y) = ([0.0_f32; 5], [0.0_f32; 5]);
    assert!(forward(&s, View::Host(&x), (&mut y[..]).into()).is_err());
    assert!(backward(&s, View::Host(&x), (&mut y[..]).into(), Accumulate::Add).is_err());
    for bad in [UpsampleShape { in_size: [0, 3], ..s }, UpsampleShape { out_size: [0, 3], ..s }, UpsampleShape { n: usize::MAX, ..s }] {
        assert!(bad.check().is_err());
        assert!(forward(&bad, View::Host(&x[..3]), (&mut y[..]).into()).is_err());
    }
    let empty = UpsampleShape { n: 0, ..s };
    forward(&empty, View::Host(&x[..0]), (&mut y[..0]).into()).expect("nothing to do");
}
