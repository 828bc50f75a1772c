use super::*;
use crate::naive::broadcast as naive;
use crate::naive::tools::{assert_close, bits, check_gradient, dot, on_pools, values};
use crate::simd::Level;
use crate::simd::tests::{at_every_level, at_level};

const MODES: [Accumulate; 2] = [Accumulate::Overwrite, Accumulate::Add];
const SIDES: [Side; 2] = [Side::A, Side::B];

fn shape(dims: &[usize], a: &[usize], b: &[usize]) -> BroadcastShape {
    BroadcastShape { dims: dims.to_vec(), a: a.to_vec(), b: b.to_vec() }
}

fn shapes() -> Vec<BroadcastShape> {
    vec![
        shape(&[3, 35, 16], &[3, 35, 16], &[3, 1, 16]),
        shape(&[40, 9, 5], &[40, 9, 5], &[40, 1, 5]),
        shape(&[3, 7, 19], &[3, 7, 19], &[1, 7, 19]),
        shape(&[3, 7, 19], &[1, 1, 19], &[3, 7, 19]),
        shape(&[300, 17, 19], &[300, 17, 19], &[1, 1, 19]),
        shape(&[500, 19, 11], &[500, 19, 11], &[1, 19, 11]),
        shape(&[3, 900, 7], &[3, 900, 7], &[3, 1, 7]),
        shape(&[2, 500, 40], &[1, 1, 40], &[2, 500, 40]),
        shape(&[5, 70, 130], &[5, 70, 130], &[1, 70, 130]),
        shape(&[4, 5, 6], &[4, 5, 6], &[4, 5, 6]),
        shape(&[3, 1000, 40], &[3, 1000, 40], &[3, 1, 1]),
        shape(&[2, 40000], &[2, 40000], &[2, 1]),
        shape(&[70000], &[1], &[70000]),
        shape(&[7, 5], &[7, 1], &[1, 5]),
        shape(&[2, 3, 4, 5, 6], &[2, 1, 4, 1, 6], &[1, 3, 4, 5, 1]),
        shape(&[1, 1], &[1, 1], &[1, 1]),
        shape(&[], &[], &[]),
        shape(&[4, 1, 3], &[4, 1, 3], &[1, 1, 1]),
        shape(&[0, 3], &[0, 3], &[1, 3]),
    ]
}

fn len(dims: &[usize]) -> usize {
    dims.iter().product()
}

type Forward<T> = fn(&BroadcastShape, View<'_, T>, View<'_, T>, ViewMut<'_, T>) -> Result<()>;

fn run<T: Real>(op: Forward<T>, s: &BroadcastShape, a: &[T], b: &[T]) -> Vec<T> {
    let mut y = vec![T::ONE; len(&s.dims)];
    op(s, a.into(), b.into(), (&mut y).into()).expect("lengths agree");
    y
}

fn back<T: Real>(s: &BroadcastShape, side: Side, other: Option<&[T]>, dy: &[T], start: &[T], mode: Accumulate) -> Vec<T> {
    let mut dx = start.to_vec();
    match other {
        None => add_backward(s, side, dy.into(), (&mut dx).into(), mode).expect("lengths agree"),
        Some(other) => multiply_backward(s, side, other.into(), dy.into(), (&mut dx).into(), mode).expect("lengths agree"),
    }
    dx
}

fn operands<T: Real>(s: &BroadcastShape) -> [Vec<T>; 3] {
    [values(len(&s.a), 1), values(len(&s.b), 2), values(len(&s.dims), 3)]
}

fn same_as_naive<T: Real>() {
    for s in shapes() {
        let [a, b, dy] = operands::<T>(&s);
        assert_eq!(bits(&run(add, &s, &a, &b)), bits(&naive::forward(&s, &a, &b, |a, b| a + b)), "{s:?}");
        assert_eq!(bits(&run(multiply, &s, &a, &b)), bits(&naive::forward(&s, &a, &b, |a, b| a * b)), "{s:?}");
        for (side, own, other) in [(Side::A, &a, &b), (Side::B, &b, &a)] {
            for mode in MODES {
                let start = values::<T>(own.len(), 4);
                for other in [None, Some(&other[..])] {
                    let expected = naive::backward(&s, side, other, &dy, &start, mode);
                    // Sums of up to 40,000 terms; in single precision their own rounding is nothing beside that of the result.
                    let n_ulps = if T::NAME == "f64" { 512.0 } else { 2.0 };
                    assert_close(&back(&s, side, other, &dy, &start, mode), &expected, n_ulps);
                }
            }
        }
    }
}

#[test]
fn equal_naive_at_every_level() {
    at_every_level(same_as_naive::<f32>);
    at_every_level(same_as_naive::<f64>);
}

#[test]
fn levels_and_threads_give_the_same_bits() {
    for s in shapes() {
        let [a, b, dy] = operands::<f32>(&s);
        let all = || {
            let mut all = vec![bits(&run(multiply, &s, &a, &b))];
            for (side, own, other) in [(Side::A, &a, &b), (Side::B, &b, &a)] {
                all.push(bits(&back(&s, side, None, &dy, own, Accumulate::Add)));
                all.push(bits(&back(&s, side, Some(other), &dy, own, Accumulate::Add)));
            }
            all
        };
        let portable = at_level(Level::Portable, all);
        at_every_level(|| assert!(all() == portable));
        on_pools(all);
    }
}

#[test]
fn gradients_equal_finite_differences() {
    for s in [shape(&[2, 3, 4], &[2, 3, 4], &[2, 1, 4]), shape(&[2, 3, 4], &[1, 3, 1], &[2, 1, 4]), shape(&[5, 3], &[5, 3], &[1, 1])] {
        let [a, b, dy] = operands::<f64>(&s);
        for side in SIDES {
            let (own, other) = if side == Side::A { (&a, &b) } else { (&b, &a) };
            let zero = vec![0.0; own.len()];
            let both = |own: &[f64], op: Forward<f64>| match side {
                Side::A => dot(&run(op, &s, own, &b), &dy),
                Side::B => dot(&run(op, &s, &a, own), &dy),
            };
            check_gradient(own, &back(&s, side, None, &dy, &zero, Accumulate::Overwrite), |own| both(own, add));
            check_gradient(own, &back(&s, side, Some(other), &dy, &zero, Accumulate::Overwrite), |own| both(own, multiply));
        }
    }
}

#[test]
fn sums_are_taken_in_double_precision() {
    let s = shape(&[1 << 20], &[1 << 20], &[1]);
    let mut dy = vec![1.0_f32; 1 << 20];
    dy[0] = 2.0_f32.powi(24);
    assert_eq!(back(&s, Side::B, None, &dy, &[0.0], Accumulate::Overwrite), [2.0_f32.powi(24) + 2.0_f32.powi(20)]);
}

#[test]
fn what_does_not_fit_is_an_error() {
    let (x, mut y) = ([0.0_f32; 6], [0.0_f32; 6]);
    let view = View::Host(&x[..]);
    let mut fails = |s: &BroadcastShape, n: usize| {
        let short = view.slice(0..n);
        assert!(add(s, view, short, (&mut y[..]).into()).is_err(), "{s:?}");
        assert!(multiply(s, view, short, (&mut y[..]).into()).is_err(), "{s:?}");
        assert!(add_backward(s, Side::B, view, (&mut y[..n]).into(), Accumulate::Add).is_err(), "{s:?}");
        assert!(multiply_backward(s, Side::A, short, view, (&mut y[..]).into(), Accumulate::Add).is_err(), "{s:?}");
    };
    fails(&shape(&[2, 3], &[2, 3], &[1, 3]), 2);
    fails(&shape(&[2, 3], &[2, 3], &[3]), 3);
    fails(&shape(&[2, 3], &[2, 3], &[1, 2]), 2);
    fails(&shape(&[usize::MAX, 3], &[usize::MAX, 3], &[1, 3]), 3);
    let ones: Vec<usize> = (0..20).map(|i| 1 + i % 2).collect();
    let twos = vec![2; 20];
    assert!(shape(&twos, &ones, &twos).walk("add").is_err());
    assert_eq!(
        shape(&[2, 3], &[2, 3], &[1, 2]).check().expect_err("2 is not 3").to_string(),
        "`broadcast`: the axes of `b` must each be that of [2, 3] or 1, got [1, 2]"
    );
}
