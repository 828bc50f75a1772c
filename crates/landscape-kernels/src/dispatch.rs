//! One line at the top of every op: where its operands are.

/// Returns `$call` if the operands are on an accelerator, with `$cuda` that accelerator; fails if they are not all in one place; goes on
/// if they are on the host. An operand is anything [`crate::cuda::Placed`]: views, options, slices and tuples of them.
///
/// `on_device!(OP, [x, y], gpu => cuda::relu_forward(gpu, x, y))`; nothing at all without the feature `cuda`.
macro_rules! on_device {
    ($op:expr, [$($operand:expr),+ $(,)?], $cuda:ident => $call:expr) => {
        #[cfg(feature = "cuda")]
        if let Some($cuda) = crate::cuda::place($op, &[$((stringify!($operand), crate::cuda::Placed::place(&$operand))),+])? {
            return $call;
        }
    };
}
