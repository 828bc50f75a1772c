//! Convolution on GPUs: by cuDNN where it is there and takes the shape, else by own kernels.

use super::Conv2dShape;
use super::shape::OP;
use crate::cuda::args::Plain;
use crate::cuda::dnn::Product;
use crate::cuda::memory::scratch;
use crate::cuda::{Cuda, Grid, Source, source};
use crate::error::{Result, check_len};
use crate::memory::{Accumulate, Memory, Real, View, ViewMut};
use crate::precision::Precision;
use crate::precision::cuda::rounded;
use crate::reduce::cuda::{RowParts, fill_rows, store_column_sums, sum_partials};
use cudarc::driver::DeviceRepr;

const KERNELS: Source = source!("conv2d/kernels");

/// Blocks that a weight gradient should have, if it takes partial sums to get there.
const WEIGHT_BLOCKS: usize = 512;
/// Pixels below which another partial sum costs more than it saves.
const MIN_PIXELS: usize = 512;

/// `ConvSizes` of the kernels.
#[derive(Clone, Copy)]
#[repr(C)]
struct Sizes {
    n: i64,
    groups: i64,
    in_group: i64,
    out_group: i64,
    in_size: [i64; 2],
    out_size: [i64; 2],
    kernel_size: [i64; 2],
    stride: [i64; 2],
    padding: [i64; 2],
    dilation: [i64; 2],
}

// SAFETY: numbers of eight bytes each in the order that the kernels declare.
unsafe impl DeviceRepr for Sizes {}

fn sizes(s: &Conv2dShape) -> Plain<Sizes> {
    let long = |pair: [usize; 2]| pair.map(|v| v as i64);
    Plain(Sizes {
        n: s.n as i64,
        groups: s.groups as i64,
        in_group: s.in_group() as i64,
        out_group: s.out_group() as i64,
        in_size: long(s.in_size),
        out_size: long(s.out_size()),
        kernel_size: long(s.kernel_size),
        stride: long(s.stride),
        padding: long(s.padding),
        dilation: long(s.dilation),
    })
}

/// The tile of a product: rows and columns.
#[derive(Clone, Copy)]
enum Tile {
    Wide,
    Narrow,
}

impl Tile {
    fn of(n_columns: usize) -> Self {
        if n_columns > 32 { Tile::Wide } else { Tile::Narrow }
    }

    fn blocks(self, n_rows: usize, n_columns: usize) -> [usize; 2] {
        match self {
            Tile::Wide => [n_rows.div_ceil(64), n_columns.div_ceil(64)],
            Tile::Narrow => [n_rows.div_ceil(128), n_columns.div_ceil(16)],
        }
    }

    fn pick(self, wide: &'static str, narrow: &'static str) -> &'static str {
        match self {
            Tile::Wide => wide,
            Tile::Narrow => narrow,
        }
    }
}

fn grid([x, y]: [usize; 2], z: usize) -> Grid {
    Grid { blocks: [x, y, z].map(|v| u32::try_from(v).unwrap_or(u32::MAX)), threads: [256, 1, 1], shared_bytes: 0 }
}

/// Checks the shape and the operands that all three have; there is no scratch memory to check.
fn check<T: Real>(s: &Conv2dShape, input: (&'static str, usize), packed: usize, output: (&'static str, usize)) -> Result<()> {
    s.check()?;
    s.precision.check_scalar::<T>()?;
    check_len(OP, input.0, s.in_len(), input.1)?;
    check_len(OP, "packed weight", s.weight_len(), packed)?;
    check_len(OP, output.0, s.out_len(), output.1)
}

/// In bf16: the convolution of operands that are rounded first. Their products are exact in TF32, with the numbers in f32 on either side.
fn after_rounding(s: &Conv2dShape) -> Option<Conv2dShape> {
    (s.precision == Precision::Bf16).then_some(Conv2dShape { precision: Precision::Tf32, ..*s })
}

/// [group][rows][columns] to [group][columns][rows].
fn transpose<T: Real>(cuda: &Cuda, n_groups: usize, [rows, columns]: [usize; 2], from: View<'_, T>, to: ViewMut<'_, T>) -> Result<()> {
    let blocks = [rows.div_ceil(32), columns.div_ceil(32), n_groups].map(|v| u32::try_from(v).unwrap_or(u32::MAX));
    let grid = Grid { blocks, threads: [32, 8, 1], shared_bytes: 0 };
    cuda.launch(&KERNELS, "transpose_weight", T::NAME, grid, &[&rows, &columns, &from, &to])
}

/// The packed weight as cuDNN reads it.
fn filter<T: Real>(cuda: &Cuda, s: &Conv2dShape, packed: View<'_, T>) -> Result<Memory<T>> {
    let mut filter = scratch::<T>(cuda, s.weight_len())?;
    transpose(cuda, s.groups, [s.k(), s.out_group()], packed, filter.view_mut())?;
    Ok(filter)
}

pub(super) fn forward<T: Real>(
    cuda: &Cuda,
    s: &Conv2dShape,
    x: View<'_, T>,
    packed: View<'_, T>,
    bias: Option<View<'_, T>>,
    mut y: ViewMut<'_, T>,
) -> Result<()> {
    check::<T>(s, ("x", x.len()), packed.len(), ("y", y.len()))?;
    bias.map_or(Ok(()), |bias| check_len(OP, "bias", s.out_channels, bias.len()))?;
    if let Some(s) = after_rounding(s) {
        return forward(cuda, &s, rounded(cuda, x)?.view(), rounded(cuda, packed)?.view(), bias, y);
    }
    if cuda.dnn_takes::<T>(Product::Forward, s) {
        let mut mode = Accumulate::Overwrite;
        if let Some(bias) = bias {
            fill_rows(cuda, bias, y.reborrow())?;
            mode = Accumulate::Add;
        }
        if cuda.dnn_product(Product::Forward, s, x, filter(cuda, s, packed)?.view(), y.view(), mode)? {
            return Ok(());
        }
    }
    if s.is_depthwise() {
        return cuda.launch(&KERNELS, "depthwise_forward", T::NAME, Grid::over(y.len()), &[&sizes(s), &x, &packed, &bias, &y]);
    }
    let tile = Tile::of(s.out_group());
    let grid = grid(tile.blocks(s.out_len() / s.out_channels, s.out_group()), s.groups);
    let kernel = tile.pick("conv2d_forward_wide", "conv2d_forward_narrow");
    cuda.launch(&KERNELS, kernel, T::NAME, grid, &[&sizes(s), &x, &packed, &bias, &y])
}

pub(super) fn backward_input<T: Real>(
    cuda: &Cuda,
    s: &Conv2dShape,
    packed: View<'_, T>,
    dy: View<'_, T>,
    dx: ViewMut<'_, T>,
    mode: Accumulate,
) -> Result<()> {
    check::<T>(s, ("dx", dx.len()), packed.len(), ("dy", dy.len()))?;
    if let Some(s) = after_rounding(s) {
        return backward_input(cuda, &s, rounded(cuda, packed)?.view(), rounded(cuda, dy)?.view(), dx, mode);
    }
    if cuda.dnn_takes::<T>(Product::Data, s) && cuda.dnn_product(Product::Data, s, dx.view(), filter(cuda, s, packed)?.view(), dy, mode)? {
        return Ok(());
    }
    if s.is_depthwise() {
        let grid = Grid::over(dx.len());
        return cuda.launch(&KERNELS, "depthwise_backward_input", T::NAME, grid, &[&sizes(s), &packed, &dy, &dx, &mode]);
    }
    let tile = Tile::of(s.in_group());
    let grid = grid(tile.blocks(s.in_len() / s.in_channels, s.in_group()), s.groups);
    let kernel = tile.pick("conv2d_backward_input_wide", "conv2d_backward_input_narrow");
    cuda.launch(&KERNELS, kernel, T::NAME, grid, &[&sizes(s), &packed, &dy, &dx, &mode])
}

/// The gradients of the packed weight (always overwritten) and of the bias (by `mode`).
pub(super) fn backward_weight<T: Real>(
    cuda: &Cuda,
    s: &Conv2dShape,
    x: View<'_, T>,
    dy: View<'_, T>,
    dpacked: ViewMut<'_, T>,
    dbias: Option<ViewMut<'_, T>>,
    mode: Accumulate,
) -> Result<()> {
    check::<T>(s, ("x", x.len()), dpacked.len(), ("dy", dy.len()))?;
    if let Some(dbias) = dbias {
        check_len(OP, "dbias", s.out_channels, dbias.len())?;
        store_column_sums(cuda, s.out_channels, dy, dbias, mode)?;
    }
    if let Some(s) = after_rounding(s) {
        return backward_weight(cuda, &s, rounded(cuda, x)?.view(), rounded(cuda, dy)?.view(), dpacked, None, mode);
    }
    if cuda.dnn_takes::<T>(Product::Weight, s) {
        let mut dfilter = scratch::<T>(cuda, s.weight_len())?;
        if cuda.dnn_product(Product::Weight, s, x, dfilter.view_mut().view(), dy, Accumulate::Overwrite)? {
            return transpose(cuda, s.groups, [s.out_group(), s.k()], dfilter.view(), dpacked);
        }
    }
    let n_pixels = s.out_len() / s.out_channels;
    let (kernel, mut grid) = if s.is_depthwise() {
        let columns = RowParts::for_sums(n_pixels, s.groups).grid;
        let blocks = [columns.blocks[0], s.n_taps() as u32, 1];
        ("depthwise_backward_weight", Grid { blocks, ..columns })
    } else {
        let tile = Tile::of(s.out_group());
        let kernel = tile.pick("conv2d_backward_weight_wide", "conv2d_backward_weight_narrow");
        (kernel, grid(tile.blocks(s.k(), s.out_group()), s.groups))
    };
    // Partial sums until there are enough blocks; the last dimension of a grid ends at 65535.
    let per_part: usize = grid.blocks.iter().map(|b| *b as usize).product();
    let z = grid.blocks[2] as usize;
    let max_parts = WEIGHT_BLOCKS.div_ceil(per_part).min(65_535 / z.max(1)).max(1);
    let pixels_per_part = n_pixels.div_ceil(max_parts).max(MIN_PIXELS);
    let n_parts = n_pixels.div_ceil(pixels_per_part).max(1);
    grid.blocks[2] = u32::try_from(z * n_parts).unwrap_or(u32::MAX);
    if n_parts == 1 {
        return cuda.launch(&KERNELS, kernel, T::NAME, grid, &[&sizes(s), &pixels_per_part, &x, &dy, &dpacked]);
    }
    let mut partials = scratch::<T>(cuda, n_parts * s.weight_len())?;
    cuda.launch(&KERNELS, kernel, T::NAME, grid, &[&sizes(s), &pixels_per_part, &x, &dy, &partials.view_mut()])?;
    sum_partials(cuda, n_parts, partials.view(), dpacked)
}

pub(super) fn pack_weight<T: Real>(cuda: &Cuda, s: &Conv2dShape, oihw: View<'_, T>, packed: ViewMut<'_, T>) -> Result<()> {
    cuda.launch(&KERNELS, "pack_weight", T::NAME, Grid::over(s.weight_len()), &[&sizes(s), &oihw, &packed])
}

pub(super) fn unpack_gradient<T: Real>(
    cuda: &Cuda,
    s: &Conv2dShape,
    packed: View<'_, T>,
    oihw: ViewMut<'_, T>,
    mode: Accumulate,
) -> Result<()> {
    cuda.launch(&KERNELS, "unpack_gradient", T::NAME, Grid::over(s.weight_len()), &[&sizes(s), &packed, &oihw, &mode])
}
