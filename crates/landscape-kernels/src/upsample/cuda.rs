//! Launches of the kernels for GPUs; lengths were checked.

use super::taps::Taps;
use crate::cuda::{Cuda, Grid, Source, source};
use crate::error::Result;
use crate::memory::{Accumulate, Device, Element, Memory, Real, View, ViewMut};

const KERNELS: Source = source!("upsample/kernels");

/// Sums over rows and columns of images `[channels, height, width]` (channels last), by tables that go along with the call.
pub(super) fn apply<T: Real>(
    cuda: &Cuda,
    [rows, columns]: &[Taps; 2],
    [channels, height, width]: [usize; 3],
    x: View<'_, T>,
    y: ViewMut<'_, T>,
    mode: Accumulate,
) -> Result<()> {
    let device = Device::Cuda(cuda.clone());
    fn put<E: Element>(device: &Device, values: &[E]) -> Memory<E> {
        Memory::from_host(device, values.to_vec())
    }
    let tables = [rows, columns].map(|taps| (put(&device, &taps.starts), put(&device, &taps.places), put(&device, &taps.weights)));
    let [(row_starts, row_places, row_weights), (column_starts, column_places, column_weights)] = &tables;
    let (n, out_height, out_width) = (y.len(), rows.len(), columns.len());
    cuda.launch(
        &KERNELS,
        "upsample",
        T::NAME,
        Grid::over(n),
        &[
            &n,
            &channels,
            &height,
            &width,
            &out_height,
            &out_width,
            &row_starts.view(),
            &row_places.view(),
            &row_weights.view(),
            &column_starts.view(),
            &column_places.view(),
            &column_weights.view(),
            &x,
            &y,
            &mode,
        ],
    )
}
