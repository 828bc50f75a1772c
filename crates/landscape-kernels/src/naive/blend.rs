//! Twins of `blend` and `spread`, element by element.

use crate::memory::{Accumulate, Real};

pub(crate) fn blend<T: Real>(c: &[f64], rows: &[Vec<T>], n: usize) -> Vec<T> {
    (0..n)
        .map(|i| {
            let terms = c.iter().zip(rows).filter(|(c, _)| **c != 0.0).map(|(&c, row)| T::from_f64(c) * row[i]);
            terms.reduce(|sum, term| sum + term).unwrap_or(T::ZERO)
        })
        .collect()
}

pub(crate) fn spread<T: Real>(c: &[f64], g: &[T], rows: &[Option<Vec<T>>], mode: Accumulate) -> Vec<Option<Vec<T>>> {
    let scaled = |c: f64, g: T| if c == 0.0 { T::ZERO } else { T::from_f64(c) * g };
    c.iter()
        .zip(rows)
        .map(|(&c, row)| {
            row.as_ref().map(|row| {
                row.iter()
                    .zip(g)
                    .map(|(&row, &g)| match mode {
                        Accumulate::Overwrite => scaled(c, g),
                        Accumulate::Add => row + scaled(c, g),
                    })
                    .collect()
            })
        })
        .collect()
}
