//! The two linear maps between control points and the point: `blend` and its transpose `spread`, each one pass over memory.
//!
//! Results that no cache would hold until they are read are stored past the caches; which ones, their length alone says.

#[cfg(target_arch = "x86_64")]
mod lines;

#[cfg(feature = "cuda")]
pub(crate) mod cuda;

use crate::check::shape_error;
use crate::error::{Result, check_len};
use crate::memory::{Accumulate, Real, View, ViewMut};
use crate::parallel::{CHUNK, for_each_chunk_mut};
use crate::simd::multiversion;
#[cfg(target_arch = "x86_64")]
use crate::simd::{Level, as_f32, as_f32_mut, level};
use half::bf16;
use rayon::prelude::*;

/// Elements of the output that are finished before the next ones are begun, so that they stay in L1 when there are many rows.
const TILE: usize = 2048;
/// Rows added in one pass over a tile.
const GROUP: usize = 4;
/// Outputs of this size and more are stored past the caches: the first pass over a network's weights comes too late to find them there.
const STREAMED_BYTES: usize = 16 << 20;

/// One row of a [`blend_rows`]: numbers of the working type, or half as many bytes of bf16, which is widened on the way (exactly).
#[derive(Debug, Clone, Copy)]
pub enum Row<'a, T> {
    /// In the working type.
    Plain(View<'a, T>),
    /// In bf16: for rows that do not move.
    Bf16(View<'a, bf16>),
}

impl<T: Real> Row<'_, T> {
    /// How many numbers there are.
    pub fn len(self) -> usize {
        match self {
            Row::Plain(row) => row.len(),
            Row::Bf16(row) => row.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// Whether results go to the caches or past them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stores {
    Cached,
    Streamed,
}

impl Stores {
    /// For an output of `n` elements.
    fn of<T>(n: usize) -> Self {
        if n * size_of::<T>() < STREAMED_BYTES { Stores::Cached } else { Stores::Streamed }
    }
}

/// w = Σ_k c_k θ_k.
///
/// Rows whose coefficient is zero are not read, so a NaN in them does not matter; a one-hot `c` copies its row bit for bit. The sum
/// is taken in the order of k, in the type of the rows, with coefficients rounded to that type.
///
/// # Shapes
/// `c` `[K]`; `rows` K times `[P]`; `out` `[P]`.
///
/// # Errors
/// [`crate::Error::Shape`] if K is zero or the numbers of coefficients and rows differ, [`crate::Error::Length`] if a row is not as long as `out`.
///
/// # Complexity
/// (K' + 1)·P elements of memory traffic, K' the number of coefficients that are not zero.
///
/// ```
/// use landscape_kernels::{View, blend::blend};
/// let (a, b, mut w) = ([0.0_f32, 2.0], [4.0_f32, 4.0], [0.0_f32; 2]);
/// blend(&[0.75, 0.25], &[View::Host(&a), View::Host(&b)], (&mut w[..]).into())?;
/// assert_eq!(w, [1.0, 2.5]);
/// # Ok::<(), landscape_kernels::Error>(())
/// ```
pub fn blend<T: Real>(c: &[f64], rows: &[View<'_, T>], out: ViewMut<'_, T>) -> Result<()> {
    let rows: Vec<Row<'_, T>> = rows.iter().map(|row| Row::Plain(*row)).collect();
    blend_rows(c, &rows, out)
}

/// [`blend`] of rows that may be of bf16: the bits of blending the widened rows.
///
/// # Shapes
/// As [`blend`].
///
/// # Errors
/// As [`blend`].
///
/// ```
/// use half::bf16;
/// use landscape_kernels::{View, blend::{Row, blend_rows}};
/// let (a, b, mut w) = ([bf16::from_f32(1.0), bf16::from_f32(-2.0)], [3.0_f32, 4.0], [0.0_f32; 2]);
/// blend_rows(&[0.5, 0.5], &[Row::Bf16(View::Host(&a)), Row::Plain(View::Host(&b))], (&mut w[..]).into())?;
/// assert_eq!(w, [2.0, 1.0]);
/// # Ok::<(), landscape_kernels::Error>(())
/// ```
pub fn blend_rows<T: Real>(c: &[f64], rows: &[Row<'_, T>], out: ViewMut<'_, T>) -> Result<()> {
    check_counts("blend", c.len(), rows.len())?;
    for row in rows {
        check_len("blend", "row", out.len(), row.len())?;
        on_device!("blend", [row, out], gpu => cuda::blend(gpu, c, rows, out));
    }
    let (c, rows): (Vec<f64>, Vec<Piece<'_, T>>) =
        c.iter().zip(rows).filter(|(c, _)| **c != 0.0).map(|(c, row)| (*c, Piece::of(*row))).unzip();
    let out = out.host();
    match (c.as_slice(), rows.as_slice()) {
        ([], _) => out.fill(T::ZERO),
        ([1.0], [Piece::Plain(row)]) => for_each_chunk_mut(out, CHUNK, |idx, out| out.copy_from_slice(&row[idx * CHUNK..][..out.len()])),
        _ => {
            let c: Vec<T> = c.into_iter().map(T::from_f64).collect();
            let stores = Stores::of::<T>(out.len());
            for_each_chunk_mut(out, CHUNK, |idx, out| blend_chunk(&c, &rows, idx * CHUNK, out, stores));
        }
    }
    Ok(())
}

/// ∂L/∂θ_k = c_k·g: the transpose of [`blend`], for every row that is there.
///
/// A row whose coefficient is zero gets exactly zero, also where `g` is NaN or infinite.
///
/// # Shapes
/// `c` `[K]`; `g` `[P]`; `rows` K times `[P]` or nothing.
///
/// # Errors
/// As [`blend`].
///
/// ```
/// use landscape_kernels::{Accumulate, View, blend::spread};
/// let (g, mut first) = ([2.0_f64, -4.0], [0.0_f64; 2]);
/// spread(&[0.25, 0.75], View::Host(&g), &mut [Some((&mut first[..]).into()), None], Accumulate::Overwrite)?;
/// assert_eq!(first, [0.5, -1.0]);
/// # Ok::<(), landscape_kernels::Error>(())
/// ```
pub fn spread<T: Real>(c: &[f64], g: View<'_, T>, rows: &mut [Option<ViewMut<'_, T>>], mode: Accumulate) -> Result<()> {
    check_counts("spread", c.len(), rows.len())?;
    for row in rows.iter().flatten() {
        check_len("spread", "row", g.len(), row.len())?;
    }
    on_device!("spread", [g, rows], gpu => cuda::spread(gpu, c, g, rows, mode));
    let g = g.host();
    // Chunk by chunk, with all the rows of a chunk together, so that `g` is read from memory once.
    let mut chunks: Vec<Vec<(T, &mut [T])>> = g.chunks(CHUNK).map(|_| Vec::new()).collect();
    for (&c, row) in c.iter().zip(rows) {
        if let Some(row) = row {
            for (chunk, piece) in chunks.iter_mut().zip(row.reborrow().host().chunks_mut(CHUNK)) {
                chunk.push((T::from_f64(c), piece));
            }
        }
    }
    let stores = Stores::of::<T>(g.len());
    chunks.par_iter_mut().zip(g.par_chunks(CHUNK)).for_each(|(rows, g)| {
        for (tile_idx, g) in g.chunks(TILE).enumerate() {
            for (c, row) in rows.iter_mut() {
                let row = &mut row[tile_idx * TILE..][..g.len()];
                match mode {
                    Accumulate::Overwrite if *c == T::ZERO => row.fill(T::ZERO),
                    Accumulate::Add if *c == T::ZERO => {}
                    _ => add_group(&[*c], &[Piece::Plain(g)], mode, row, stores),
                }
            }
        }
    });
    Ok(())
}

fn check_counts(op: &'static str, n_coefficients: usize, n_rows: usize) -> Result<()> {
    if n_coefficients == 0 || n_coefficients != n_rows {
        return Err(shape_error(op, format!("there must be as many rows as coefficients, at least 1, got {n_rows} and {n_coefficients}")));
    }
    Ok(())
}

/// A row on the host.
#[derive(Clone, Copy)]
enum Piece<'a, T> {
    Plain(&'a [T]),
    Bf16(&'a [bf16]),
}

impl<'a, T: Real> Piece<'a, T> {
    fn of(row: Row<'a, T>) -> Self {
        match row {
            Row::Plain(row) => Piece::Plain(row.host()),
            Row::Bf16(row) => Piece::Bf16(row.host()),
        }
    }

    fn slice(self, range: std::ops::Range<usize>) -> Self {
        match self {
            Piece::Plain(row) => Piece::Plain(&row[range]),
            Piece::Bf16(row) => Piece::Bf16(&row[range]),
        }
    }
}

/// out = Σ_k c_k row_k, in order; `out` is what the rows have from `start` on.
fn blend_chunk<T: Real>(c: &[T], rows: &[Piece<'_, T>], start: usize, out: &mut [T], stores: Stores) {
    #[cfg(target_arch = "x86_64")]
    if let (Some(c), Some(_)) = (as_f32(c), as_f32(&*out)) {
        let level = level();
        if level != Level::Portable {
            let out = as_f32_mut(out).expect("the type was asked for above");
            return blend_lines(level, c, rows, start, out, stores);
        }
    }
    for (tile_idx, tile) in out.chunks_mut(TILE).enumerate() {
        let start = start + tile_idx * TILE;
        let mut mode = Accumulate::Overwrite;
        for (c, rows) in c.chunks(GROUP).zip(rows.chunks(GROUP)) {
            // No group has more than GROUP rows; the rest of the array is never read.
            let mut pieces = [Piece::Plain(&[][..]); GROUP];
            for (piece, row) in pieces.iter_mut().zip(rows) {
                *piece = row.slice(start..start + tile.len());
            }
            add_group(c, &pieces[..rows.len()], mode, tile, stores);
            mode = Accumulate::Add;
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn f32_piece<'a, T: Real>(row: Piece<'a, T>) -> lines::Piece<'a> {
    match row {
        Piece::Plain(row) => lines::Piece::F32(as_f32(row).expect("rows have the type of the output")),
        Piece::Bf16(row) => lines::Piece::Bf16(row),
    }
}

/// [`blend_chunk`] with registers named: up to [`lines::GROUP`] rows in one pass, more of them through a sum that stays in L1.
#[cfg(target_arch = "x86_64")]
fn blend_lines<T: Real>(level: Level, c: &[f32], rows: &[Piece<'_, T>], start: usize, out: &mut [f32], stores: Stores) {
    let n_groups = c.len().div_ceil(lines::GROUP);
    let groups = || c.chunks(lines::GROUP).zip(rows.chunks(lines::GROUP)).enumerate();
    let add = |c: &[f32], rows: &[Piece<'_, T>], at: usize, from: lines::Start<'_>, out: &mut [f32], stores: Stores| {
        // No group has more rows; the rest of the array is never read.
        let mut pieces = [lines::Piece::F32(&[]); lines::GROUP];
        pieces.iter_mut().zip(rows).for_each(|(piece, row)| *piece = f32_piece(row.slice(at..at + out.len())));
        add_lines(level, c, &pieces[..rows.len()], from, out, stores);
    };
    if stores == Stores::Cached || n_groups == 1 {
        for (idx, (c, rows)) in groups() {
            add(c, rows, start, if idx == 0 { lines::Start::FirstTerm } else { lines::Start::Output }, out, stores);
        }
        return;
    }
    for (tile_idx, tile) in out.chunks_mut(TILE).enumerate() {
        let mut sum = [0.0; TILE];
        let sum = &mut sum[..tile.len()];
        for (idx, (c, rows)) in groups() {
            let at = start + tile_idx * TILE;
            if idx + 1 == n_groups {
                add(c, rows, at, lines::Start::From(sum), tile, stores);
            } else {
                add(c, rows, at, if idx == 0 { lines::Start::FirstTerm } else { lines::Start::Output }, sum, Stores::Cached);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn add_lines(level: Level, c: &[f32], rows: &[lines::Piece<'_>], start: lines::Start<'_>, out: &mut [f32], stores: Stores) {
    // SAFETY: the level says that the processor has these instructions.
    unsafe {
        match level {
            Level::Avx512 => lines::add_rows_avx512(c, rows, start, out, stores),
            _ => lines::add_rows_avx2(c, rows, start, out, stores),
        }
    }
}

/// out = Σ_k c_k row_k, or that added to what it holds, for at most [`GROUP`] rows of at most [`TILE`] elements.
fn add_group<T: Real>(c: &[T], rows: &[Piece<'_, T>], mode: Accumulate, out: &mut [T], stores: Stores) {
    #[cfg(target_arch = "x86_64")]
    if let (Some(c), Some(_)) = (as_f32(c), as_f32(&*out)) {
        let level = level();
        if level != Level::Portable {
            let mut pieces = [lines::Piece::F32(&[]); GROUP];
            pieces.iter_mut().zip(rows).for_each(|(piece, row)| *piece = f32_piece(*row));
            let (start, stores) = match mode {
                Accumulate::Overwrite => (lines::Start::FirstTerm, stores),
                // What is read first is in the caches.
                Accumulate::Add => (lines::Start::Output, Stores::Cached),
            };
            let out = as_f32_mut(out).expect("the type was asked for above");
            return add_lines(level, c, &pieces[..rows.len()], start, out, stores);
        }
    }
    // No group has more rows; the rest of the array is never read.
    let mut plain = [&[][..]; GROUP];
    let mut n_plain = 0;
    for (plain, row) in plain.iter_mut().zip(rows) {
        if let Piece::Plain(row) = row {
            (*plain, n_plain) = (*row, n_plain + 1);
        }
    }
    if n_plain == rows.len() {
        return add_plain(c, &plain[..n_plain], out, mode);
    }
    let mut mode = mode;
    for (c, row) in c.iter().zip(rows) {
        match row {
            Piece::Plain(row) => add_plain(std::slice::from_ref(c), &[row], out, mode),
            Piece::Bf16(row) => {
                let mut wide = [T::ZERO; TILE];
                wide.iter_mut().zip(*row).for_each(|(wide, v)| *wide = T::from_f64(v.to_f64()));
                add_plain(std::slice::from_ref(c), &[&wide[..row.len()]], out, mode);
            }
        }
        mode = Accumulate::Add;
    }
}

multiversion! {
    fn add_plain<T>(c: &[T], rows: &[&[T]], out: &mut [T], mode: Accumulate) {
        match rows.len() {
            1 => add_rows::<T, 1>(c, rows, out, mode),
            2 => add_rows::<T, 2>(c, rows, out, mode),
            3 => add_rows::<T, 3>(c, rows, out, mode),
            _ => add_rows::<T, GROUP>(c, rows, out, mode),
        }
    }
}

#[inline(always)]
fn add_rows<T: Real, const N: usize>(c: &[T], rows: &[&[T]], out: &mut [T], mode: Accumulate) {
    let n = out.len();
    let c: [T; N] = std::array::from_fn(|k| c[k]);
    let rows: [&[T]; N] = std::array::from_fn(|k| &rows[k][..n]);
    // The first term starts the sum: adding it to zero would turn -0 into 0.
    match mode {
        Accumulate::Overwrite => {
            for i in 0..n {
                let mut sum = c[0] * rows[0][i];
                for k in 1..N {
                    sum += c[k] * rows[k][i];
                }
                out[i] = sum;
            }
        }
        Accumulate::Add => {
            for i in 0..n {
                let mut sum = out[i];
                for k in 0..N {
                    sum += c[k] * rows[k][i];
                }
                out[i] = sum;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::naive::blend as naive;
    use crate::naive::tools::{LENGTHS, bits, on_pools, values};
    use crate::simd::tests::at_every_level;
    use proptest::prelude::*;

    fn coefficients(n_points: usize, seed: u64) -> Vec<f64> {
        values::<f64>(n_points, seed).iter().enumerate().map(|(k, v)| if (seed + k as u64).is_multiple_of(5) { 0.0 } else { *v }).collect()
    }

    fn run<T: Real>(c: &[f64], rows: &[Vec<T>], n: usize) -> Vec<T> {
        let mut out = vec![T::ONE; n];
        let views: Vec<View<'_, T>> = rows.iter().map(View::from).collect();
        blend(c, &views, (&mut out).into()).expect("lengths agree");
        out
    }

    fn run_spread<T: Real>(c: &[f64], g: &[T], start: &[Option<Vec<T>>], mode: Accumulate) -> Vec<Option<Vec<T>>> {
        let mut rows = start.to_vec();
        let mut views: Vec<_> = rows.iter_mut().map(|row| row.as_mut().map(ViewMut::from)).collect();
        spread(c, g.into(), &mut views, mode).expect("lengths agree");
        rows
    }

    fn same_as_naive<T: Real>(n_points: usize, n: usize, seed: u64) {
        let c = coefficients(n_points, seed);
        let rows: Vec<Vec<T>> = (0..n_points).map(|k| values(n, seed + 1 + k as u64)).collect();
        assert_eq!(bits(&run(&c, &rows, n)), bits(&naive::blend(&c, &rows, n)));
        let start: Vec<Option<Vec<T>>> = rows.iter().enumerate().map(|(k, row)| (k % 3 != 1).then(|| row.clone())).collect();
        let g: Vec<T> = values(n, seed + 99);
        for mode in [Accumulate::Overwrite, Accumulate::Add] {
            let (fast, slow) = (run_spread(&c, &g, &start, mode), naive::spread(&c, &g, &start, mode));
            for (fast, slow) in fast.iter().zip(&slow) {
                assert_eq!(fast.as_deref().map(bits), slow.as_deref().map(bits));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn equals_naive_at_odd_sizes(n_points in 1_usize..33, n in prop::sample::select(LENGTHS.to_vec()), seed in 0_u64..1000) {
            at_every_level(|| {
                same_as_naive::<f32>(n_points, n, seed);
                same_as_naive::<f64>(n_points, n, seed);
            });
        }

        #[test]
        fn rows_of_bf16_give_the_bits_of_the_widened_rows(n_points in 1_usize..20, n in prop::sample::select(LENGTHS.to_vec()), seed in 0_u64..1000) {
            at_every_level(|| {
                narrow_equals_widened::<f32>(n_points, n, seed);
                narrow_equals_widened::<f64>(n_points, n, seed);
            });
        }
    }

    fn narrow_equals_widened<T: Real>(n_points: usize, n: usize, seed: u64) {
        let c = coefficients(n_points, seed);
        let narrow: Vec<Vec<bf16>> =
            (0..n_points).map(|k| values::<f64>(n, seed + 1 + k as u64).into_iter().map(bf16::from_f64).collect()).collect();
        let wide: Vec<Vec<T>> = narrow.iter().map(|row| row.iter().map(|v| T::from_f64(v.to_f64())).collect()).collect();
        // Every third row stands there widened already.
        let rows: Vec<Row<'_, T>> = (0..n_points)
            .map(|k| if (k as u64 + seed).is_multiple_of(3) { Row::Plain((&wide[k]).into()) } else { Row::Bf16((&narrow[k]).into()) })
            .collect();
        let mut out = vec![T::ONE; n];
        blend_rows(&c, &rows, (&mut out).into()).expect("lengths agree");
        assert_eq!(bits(&out), bits(&naive::blend(&c, &wide, n)));
    }

    /// An output that is stored past the caches, from and to places that are no multiple of a line.
    #[test]
    fn large_outputs_have_the_bits_of_small_ones() {
        let n = STREAMED_BYTES / size_of::<f32>() + 77;
        for (n_points, offset) in [(3, 1), (11, 3)] {
            let c = values::<f64>(n_points, 5);
            let rows: Vec<Vec<f32>> = (0..n_points).map(|k| (0..n + offset).map(|i| (i % (1013 + k)) as f32 - 400.5).collect()).collect();
            at_every_level(|| {
                let mut out = vec![0.0_f32; n + offset];
                let views: Vec<View<'_, f32>> = rows.iter().enumerate().map(|(k, row)| View::Host(&row[k % 2 * offset..][..n])).collect();
                blend(&c, &views, (&mut out[offset..]).into()).expect("lengths agree");
                let part = 4099;
                let mut small = vec![0.0_f32; part];
                for start in (0..n).step_by(part) {
                    let len = part.min(n - start);
                    let views: Vec<View<'_, f32>> = views.iter().map(|row| row.slice(start..start + len)).collect();
                    blend(&c, &views, (&mut small[..len]).into()).expect("lengths agree");
                    assert!(small[..len].iter().zip(&out[offset + start..]).all(|(a, b)| a.to_bits() == b.to_bits()));
                }
                let g = views[0];
                let mut spread_out = vec![0.0_f32; n];
                spread(&[0.3], g, &mut [Some((&mut spread_out).into())], Accumulate::Overwrite).expect("lengths agree");
                assert!(spread_out.iter().zip(g.host()).all(|(a, b)| a.to_bits() == (0.3_f32 * b).to_bits()));
            });
        }
    }

    #[test]
    fn one_hot_coefficients_copy_bits() {
        // -0, subnormals, infinity and a NaN with a payload, beside rows full of NaN.
        let row = vec![-0.0_f32, 0.0, f32::from_bits(1), f32::INFINITY, f32::from_bits(0x7fc0_1234), -1.5];
        for n_points in [1, 2, 3, 4, 5, 32] {
            for k in 0..n_points {
                let mut rows = vec![vec![f32::NAN; row.len()]; n_points];
                rows[k] = row.clone();
                let mut c = vec![0.0; n_points];
                c[k] = 1.0;
                assert_eq!(bits(&run(&c, &rows, row.len())), bits(&row));
            }
        }
        assert_eq!(run(&[0.0, 0.0], &[vec![f64::NAN], vec![1.0]], 1), [0.0]);
    }

    /// ⟨blend(c, θ), g⟩ = Σ_k ⟨θ_k, spread(c, g)_k⟩.
    #[test]
    fn spread_is_the_transpose_of_blend() {
        for n_points in [1, 2, 3, 4, 6, 9] {
            let n = 1000;
            let c = values::<f64>(n_points, 3);
            let rows: Vec<Vec<f64>> = (0..n_points).map(|k| values(n, 10 + k as u64)).collect();
            let g = values::<f64>(n, 7);
            let spread = run_spread(&c, &g, &vec![Some(vec![0.0; n]); n_points], Accumulate::Overwrite);
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let left = dot(&run(&c, &rows, n), &g);
            let right: f64 = rows.iter().zip(spread.iter().flatten()).map(|(row, s)| dot(row, s)).sum();
            assert!((left - right).abs() <= 1e-11 * n as f64, "{left} {right}");
        }
    }

    #[test]
    fn a_zero_coefficient_spreads_zero() {
        let rows = run_spread(&[0.0, 1.0], &[f32::NAN, -1.0], &[Some(vec![5.0; 2]), None], Accumulate::Overwrite);
        assert_eq!(bits(rows[0].as_deref().expect("a row")), bits(&[0.0, 0.0]));
        let rows = run_spread(&[0.0], &[f32::NAN], &[Some(vec![5.0])], Accumulate::Add);
        assert_eq!(rows[0].as_deref(), Some(&[5.0][..]));
    }

    #[test]
    fn bits_do_not_depend_on_the_thread_count() {
        let n = 3 * CHUNK + 17;
        let rows: Vec<Vec<f32>> = (0..6).map(|k| values(n, k)).collect();
        let c = values::<f64>(6, 8);
        on_pools(|| bits(&run(&c, &rows, n)));
        let start: Vec<Option<Vec<f32>>> = rows.iter().cloned().map(Some).collect();
        on_pools(|| run_spread(&c, &rows[0], &start, Accumulate::Add).iter().flatten().map(|row| bits(row)).collect::<Vec<_>>());
    }

    #[test]
    fn wrong_lengths_are_errors() {
        let (a, mut out) = ([1.0_f32; 3], [0.0_f32; 3]);
        assert!(blend(&[1.0], &[View::Host(&a[..2])], (&mut out[..]).into()).is_err());
        assert!(blend(&[1.0, 1.0], &[View::Host(&a)], (&mut out[..]).into()).is_err());
        assert!(blend::<f32>(&[], &[], (&mut out[..]).into()).is_err());
        assert!(spread(&[1.0], View::Host(&a[..2]), &mut [Some((&mut out[..]).into())], Accumulate::Add).is_err());
        assert!(spread(&[1.0, 0.0], View::Host(&a), &mut [Some((&mut out[..]).into())], Accumulate::Add).is_err());
        assert_eq!(out, [0.0; 3]);
    }
}
