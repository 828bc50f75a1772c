//! Rows of a table looked up by number, and the gradient of the table.

#[cfg(feature = "cuda")]
mod cuda;

use crate::check::n_elements;
use crate::error::{Error, Result, check_len};
use crate::memory::{Accumulate, Real, View, ViewMut};
use crate::parallel::{CHUNK, for_each_chunk_mut};
use crate::simd::multiversion;
use rayon::prelude::*;

/// The sizes of an embedding, as `torch.nn.Embedding` names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmbeddingShape {
    /// Tokens, of all sequences.
    pub n_tokens: usize,
    /// Rows of the table.
    pub num_embeddings: usize,
    /// Numbers of a row.
    pub embedding_dim: usize,
}

impl EmbeddingShape {
    /// Elements of the table and of the rows looked up.
    fn lengths(&self, op: &'static str) -> Result<[usize; 2]> {
        let Self { n_tokens, num_embeddings, embedding_dim } = *self;
        Ok([n_elements(op, &[num_embeddings, embedding_dim])?, n_elements(op, &[n_tokens, embedding_dim])?])
    }

    /// The row of each token.
    fn rows<T: Real>(&self, op: &'static str, tokens: &[T]) -> Result<Vec<usize>> {
        let row = |(position, token): (usize, &T)| {
            let (value, num_embeddings) = (token.to_f64(), self.num_embeddings);
            // A saturating cast and back: equal for whole numbers alone.
            let row = value as usize;
            if row as f64 == value && row < num_embeddings { Ok(row) } else { Err(Error::Token { op, position, value, num_embeddings }) }
        };
        tokens.iter().enumerate().map(row).collect()
    }
}

/// y_i = the row of `weight` that token i names. Tokens are whole numbers that are stored as the scalar.
///
/// On a GPU the row of a token that names none is NaN: numbers there cannot be told without waiting for them.
///
/// # Shapes
/// `tokens` `[n_tokens]`; `weight` `[num_embeddings, embedding_dim]`; `y` `[n_tokens, embedding_dim]`.
///
/// # Errors
/// [`crate::Error::Length`] where a length does not fit, [`crate::Error::Shape`] if a product of sizes overflows, and on the processor
/// [`crate::Error::Token`] for the first token that names no row.
///
/// # Source
/// `torch.nn.functional.embedding`.
///
/// ```
/// use landscape_kernels::{View, embedding::{EmbeddingShape, forward}};
/// let shape = EmbeddingShape { n_tokens: 2, num_embeddings: 3, embedding_dim: 1 };
/// let mut y = [0.0_f32; 2];
/// forward(&shape, View::Host(&[2.0, 0.0]), View::Host(&[5.0, 6.0, 7.0]), (&mut y[..]).into())?;
/// assert_eq!(y, [7.0, 5.0]);
/// # Ok::<(), landscape_kernels::Error>(())
/// ```
pub fn forward<T: Real>(shape: &EmbeddingShape, tokens: View<'_, T>, weight: View<'_, T>, y: ViewMut<'_, T>) -> Result<()> {
    const OP: &str = "embedding_forward";
    let [n_weights, n] = shape.lengths(OP)?;
    check_len(OP, "tokens", shape.n_tokens, tokens.len())?;
    check_len(OP, "weight", n_weights, weight.len())?;
    check_len(OP, "y", n, y.len())?;
    on_device!(OP, [tokens, weight, y], gpu => cuda::forward(gpu, shape, tokens, weight, y));
    let rows = shape.rows(OP, tokens.host())?;
    let (weight, dim) = (weight.host(), shape.embedding_dim);
    let per_task = (CHUNK / dim.max(1)).max(1);
    for_each_chunk_mut(y.host(), per_task * dim, |idx, y| {
        for (y, &row) in y.chunks_exact_mut(dim).zip(&rows[idx * per_task..]) {
            y.copy_from_slice(&weight[row * dim..][..dim]);
        }
    });
    Ok(())
}

/// The gradient of [`forward`] with respect to the table: for each row the sum of dy over the tokens that name it, in their order and in
/// double precision.
///
/// On a GPU a token that names no row goes nowhere.
///
/// # Shapes
/// `tokens` `[n_tokens]`; `dy` `[n_tokens, embedding_dim]`; `dweight` `[num_embeddings, embedding_dim]`.
///
/// # Errors
/// As [`forward`]; the gradient is then untouched.
pub fn backward_weight<T: Real>(
    shape: &EmbeddingShape,
    tokens: View<'_, T>,
    dy: View<'_, T>,
    dweight: ViewMut<'_, T>,
    mode: Accumulate,
) -> Result<()> {
    const OP: &str = "embedding_backward_weight";
    let [n_weights, n] = shape.lengths(OP)?;
    check_len(OP, "tokens", shape.n_tokens, tokens.len())?;
    check_len(OP, "dy", n, dy.len())?;
    check_len(OP, "dweight", n_weights, dweight.len())?;
    on_device!(OP, [tokens, dy, dweight], gpu => cuda::backward_weight(gpu, shape, tokens, dy, dweight, mode));
    let rows = shape.rows(OP, tokens.host())?;
    let (dy, dweight, dim) = (dy.host(), dweight.host(), shape.embedding_dim);
    if dim == 0 {
        return Ok(());
    }
    if mode == Accumulate::Overwrite {
        for_each_chunk_mut(dweight, CHUNK, |_, dweight| dweight.fill(T::ZERO));
    }
    // Positions in the order of their rows; equal rows stay in the order of the tokens.
    let mut positions: Vec<usize> = (0..rows.len()).collect();
    positions.sort_by_key(|&position| rows[position]);
    let mut tasks = Vec::new();
    let (mut rest, mut first_row) = (dweight, 0);
    for group in positions.chunk_by(|&a, &b| rows[a] == rows[b]) {
        let row = rows[group[0]];
        let (into, after) = std::mem::take(&mut rest).split_at_mut((row + 1 - first_row) * dim);
        tasks.push((group, &mut into[(row - first_row) * dim..]));
        (rest, first_row) = (after, row + 1);
    }
    let add = |(group, into): &mut (&[usize], &mut [T]), sums: &mut Vec<f64>| {
        if let [one] = group {
            into.iter_mut().zip(&dy[*one * dim..]).for_each(|(into, &dy)| *into += dy);
            return;
        }
        sums.clear();
        sums.resize(dim, 0.0);
        for &position in *group {
            add_row(&dy[position * dim..][..dim], sums);
        }
        into.iter_mut().zip(&*sums).for_each(|(into, &sum)| *into += T::from_f64(sum));
    };
    let tasks_per_chunk = (CHUNK * tasks.len() / dy.len().max(1)).max(1);
    tasks.par_iter_mut().with_min_len(tasks_per_chunk).for_each_init(Vec::new, |sums, task| add(task, sums));
    Ok(())
}

multiversion! {
    fn add_row<T>(dy: &[T], sums: &mut [f64]) {
        for (sum, dy) in sums.iter_mut().zip(dy) {
            *sum += dy.to_f64();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::naive::tools::{assert_close, bits, check_gradient, dot, on_pools, values};

    const SHAPES: [EmbeddingShape; 4] = [
        EmbeddingShape { n_tokens: 9, num_embeddings: 5, embedding_dim: 3 },
        EmbeddingShape { n_tokens: 2000, num_embeddings: 65, embedding_dim: 16 },
        EmbeddingShape { n_tokens: 0, num_embeddings: 5, embedding_dim: 3 },
        EmbeddingShape { n_tokens: 7, num_embeddings: 1000, embedding_dim: 33 },
    ];

    fn tokens<T: Real>(s: &EmbeddingShape) -> Vec<T> {
        values::<f64>(s.n_tokens, 7).iter().map(|v| T::from_f64(((v + 1.0) / 2.0 * s.num_embeddings as f64).floor())).collect()
    }

    fn looked_up<T: Real>(s: &EmbeddingShape, tokens: &[T], weight: &[T]) -> Vec<T> {
        let mut y = vec![T::ONE; s.n_tokens * s.embedding_dim];
        forward(s, tokens.into(), weight.into(), (&mut y).into()).expect("a good call");
        y
    }

    fn back<T: Real>(s: &EmbeddingShape, tokens: &[T], dy: &[T], start: &[T], mode: Accumulate) -> Vec<T> {
        let mut dweight = start.to_vec();
        backward_weight(s, tokens.into(), dy.into(), (&mut dweight).into(), mode).expect("a good call");
        dweight
    }

    fn same_as_naive<T: Real>(s: &EmbeddingShape) {
        let (tokens, dim) = (tokens::<T>(s), s.embedding_dim);
        let (weight, dy) = (values::<T>(s.num_embeddings * dim, 1), values::<T>(s.n_tokens * dim, 2));
        let place = |i: usize| tokens[i / dim].to_f64() as usize * dim + i % dim;
        let expected: Vec<T> = (0..dy.len()).map(|i| weight[place(i)]).collect();
        assert_eq!(bits(&looked_up(s, &tokens, &weight)), bits(&expected));
        for mode in [Accumulate::Overwrite, Accumulate::Add] {
            let mut sums = vec![0.0; weight.len()];
            dy.iter().enumerate().for_each(|(i, dy)| sums[place(i)] += dy.to_f64());
            let before = |i: usize| if mode == Accumulate::Add { weight[i].to_f64() } else { 0.0 };
            let expected: Vec<T> = sums.iter().enumerate().map(|(i, sum)| T::from_f64(before(i) + sum)).collect();
            assert_close(&back(s, &tokens, &dy, &weight, mode), &expected, 4.0);
        }
    }

    #[test]
    fn equal_naive_on_any_number_of_threads() {
        for s in SHAPES {
            same_as_naive::<f32>(&s);
            same_as_naive::<f64>(&s);
            let (tokens, dy) = (tokens::<f32>(&s), values::<f32>(s.n_tokens * s.embedding_dim, 2));
            let start = values::<f32>(s.num_embeddings * s.embedding_dim, 3);
            on_pools(|| [bits(&looked_up(&s, &tokens, &start)), bits(&back(&s, &tokens, &dy, &start, Accumulate::Add))]);
        }
    }

    #[test]
    fn gradients_equal_finite_differences() {
        let s = SHAPES[0];
        let (tokens, weight, dy) = (tokens::<f64>(&s), values::<f64>(15, 1), values::<f64>(27, 2));
        let gradient = back(&s, &tokens, &dy, &[0.0; 15], Accumulate::Overwrite);
        check_gradient(&weight, &gradient, |weight| dot(&looked_up(&s, &tokens, weight), &dy));
    }

    #[test]
    fn a_token_that_names_no_row_is_told() {
        let s = EmbeddingShape { n_tokens: 3, num_embeddings: 5, embedding_dim: 1 };
        let (weight, mut y) = ([0.0_f32; 5], [7.0_f32; 3]);
        for bad in [5.0, -1.0, 0.5, f32::NAN, f32::INFINITY, 1e30] {
            let tokens = [0.0, 1.0, bad];
            let error = forward(&s, View::Host(&tokens), View::Host(&weight), (&mut y[..]).into()).expect_err("no row");
            assert!(matches!(error, Error::Token { position: 2, num_embeddings: 5, .. }), "{error}");
            let mut dweight = [7.0_f32; 5];
            assert!(backward_weight(&s, View::Host(&tokens), View::Host(&y), (&mut dweight[..]).into(), Accumulate::Overwrite).is_err());
            assert_eq!((y, dweight), ([7.0; 3], [7.0; 5]));
        }
        let error = forward(&s, View::Host(&[0.0, 5.0, 0.5]), View::Host(&weight), (&mut y[..]).into()).expect_err("no row");
        assert_eq!(error.to_string(), "`embedding_forward`: token 5 at position 1 must be a whole number below 5");
    }

    #[test]
    fn wrong_lengths_are_errors() {
        let s = EmbeddingShape { n_tokens: 2, num_embeddings: 2, embedding_dim: 2 };
        let x = [0.0_f32; 4];
        for (n_tokens, n_weights, n) in [(1, 4, 4), (2, 3, 4), (2, 4, 3)] {
            let (mut y, tokens) = (vec![0.0_f32; n], View::Host(&x[..n_tokens]));
            assert!(forward(&s, tokens, View::Host(&x[..n_weights]), (&mut y).into()).is_err());
            let mut dweight = vec![0.0_f32; n_weights];
            assert!(backward_weight(&s, tokens, View::Host(&x[..n]), (&mut dweight).into(), Accumulate::Add).is_err());
        }
        let large = EmbeddingShape { num_embeddings: usize::MAX, ..s };
        assert!(forward(&large, View::Host(&x[..2]), View::Host(&x), (&mut [0.0; 4][..]).into()).is_err());
    }
}
