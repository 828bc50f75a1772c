//! RMS normalisation over the last axis: y = x/√(mean(x²) + ε)·γ.

use crate::error::{Result, check_len};
#[cfg(feature = "cuda")]
use crate::layer_norm::cuda;
use crate::layer_norm::rows::{self, Centre, host};
use crate::layer_norm::{LayerNormShape, check_parameters};
use crate::memory::{Accumulate, Real, View, ViewMut};

const OP: &str = "rms_norm";

/// y = x/√(mean(x²) + eps)·weight, with the mean over each row.
///
/// # Shapes
/// `x`, `y` `[n_rows, len]`; `weight` `[len]`.
///
/// # Errors
/// [`crate::Error::Length`] where an operand does not fit, [`crate::Error::Shape`] for sizes whose product overflows.
///
/// # Source
/// Zhang and Sennrich 2019; PyTorch `rms_norm`.
///
/// ```
/// use landscape_kernels::{layer_norm::LayerNormShape, rms_norm::forward};
/// let mut y = [0.0_f64; 2];
/// forward(&LayerNormShape { n_rows: 1, len: 2 }, 0.0, (&[1.0, -1.0][..]).into(), None, (&mut y[..]).into())?;
/// assert_eq!(y, [1.0, -1.0]);
/// # Ok::<(), landscape_kernels::Error>(())
/// ```
pub fn forward<T: Real>(shape: &LayerNormShape, eps: f64, x: View<'_, T>, weight: Option<View<'_, T>>, y: ViewMut<'_, T>) -> Result<()> {
    let n = shape.n_elements(OP)?;
    check_len(OP, "x", n, x.len())?;
    check_len(OP, "y", n, y.len())?;
    check_parameters(OP, shape, weight, [])?;
    on_device!(OP, [x, weight, y], gpu => cuda::forward(gpu, Centre::Zero, &shape.as_groups(), eps, x, weight, None, y));
    rows::forward(Centre::Zero, shape, eps, x.host(), host(weight), None, y.host());
    Ok(())
}

/// The gradients of [`forward`]; the lengths of the rows are taken from `x` again.
///
/// With r = √(mean(x²) + ε) and g = dy·γ: dx = (g − x·mean(g·x)/r²)/r, dγ = Σ_rows dy·x/r.
///
/// # Shapes
/// `x`, `dy`, `dx` `[n_rows, len]`; `weight`, `dweight` `[len]`. `dx` comes with its mode; `mode` is for `dweight`.
///
/// # Errors
/// As [`forward`].
#[allow(clippy::too_many_arguments)]
pub fn backward<T: Real>(
    shape: &LayerNormShape,
    eps: f64,
    x: View<'_, T>,
    weight: Option<View<'_, T>>,
    dy: View<'_, T>,
    dx: Option<(ViewMut<'_, T>, Accumulate)>,
    dweight: Option<ViewMut<'_, T>>,
    mode: Accumulate,
) -> Result<()> {
    let n = shape.n_elements(OP)?;
    check_len(OP, "x", n, x.len())?;
    check_len(OP, "dy", n, dy.len())?;
    dx.as_ref().map_or(Ok(()), |(dx, _)| check_len(OP, "dx", n, dx.len()))?;
    check_parameters(OP, shape, weight, [("dweight", dweight.as_ref().map(ViewMut::len))])?;
    on_device!(
        OP,
        [x, weight, dy, dx, dweight],
        gpu => cuda::backward(gpu, Centre::Zero, &shape.as_groups(), eps, x, weight, dy, dx, dweight, None, mode)
    );
    rows::backward(Centre::Zero, shape, eps, x.host(), host(weight), dy.host(), dx, dweight, None, mode);
    Ok(())
}
