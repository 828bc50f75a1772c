//! Kernels from PTX, and their launches.

use super::args::Argument;
use super::{Cuda, Loaded};
use crate::error::Result;
use cudarc::driver::{CudaFunction, LaunchConfig};
use cudarc::nvrtc::Ptx;

/// The kernels of one `.cu` file, compiled by `cargo xtask ptx`.
pub(crate) struct Source {
    /// Its path below `src`, which is its name among the loaded.
    pub name: &'static str,
    /// What the driver takes.
    pub ptx: &'static str,
}

/// A [`Source`] from the PTX beside the calling file: `source!("activation/kernels")` in `src/activation/cuda.rs`.
macro_rules! source {
    ($name:literal) => {
        crate::cuda::Source { name: $name, ptx: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/", $name, ".ptx")) }
    };
}
pub(crate) use source;

/// How many blocks of how many threads. It follows from the shape alone, so that sums have an order of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grid {
    pub blocks: [u32; 3],
    pub threads: [u32; 3],
    /// Shared memory asked for at the launch, per block.
    pub shared_bytes: u32,
}

impl Grid {
    /// Threads of a block of an element-wise kernel.
    pub const THREADS: u32 = 256;

    /// One thread for each of `n` elements, and a stride of the grid for more than a grid can hold.
    pub fn over(n: usize) -> Self {
        Grid::blocks(n.div_ceil(Self::THREADS as usize), Self::THREADS)
    }

    /// `n_blocks` blocks of `threads` threads in a row, at most 2³¹ − 1.
    pub fn blocks(n_blocks: usize, threads: u32) -> Self {
        let n_blocks = u32::try_from(n_blocks).unwrap_or(u32::MAX).min(i32::MAX as u32);
        Grid { blocks: [n_blocks, 1, 1], threads: [threads, 1, 1], shared_bytes: 0 }
    }
}

impl Cuda {
    /// Runs `function` of `source` after all that was given to the device before; a grid without blocks runs nothing.
    ///
    /// The function's name ends in `scalar` (`relu_forward`, `f32`: `relu_forward_f32`); an empty one adds nothing.
    ///
    /// # Errors
    /// [`crate::Error::Device`] if the kernel cannot be loaded or launched.
    pub(crate) fn launch(
        &self,
        source: &Source,
        function: &'static str,
        scalar: &'static str,
        grid: Grid,
        arguments: &[&dyn Argument],
    ) -> Result<()> {
        if grid.blocks.contains(&0) {
            return Ok(());
        }
        let kernel = self.function(source, function, scalar)?;
        let mut launch = self.stream().launch_builder(&kernel);
        arguments.iter().for_each(|argument| argument.push(&mut launch));
        let ([x, y, z], [tx, ty, tz]) = (grid.blocks, grid.threads);
        let config = LaunchConfig { grid_dim: (x, y, z), block_dim: (tx, ty, tz), shared_mem_bytes: grid.shared_bytes };
        // SAFETY: launch code beside each op passes what its kernel declares, with lengths that the op has checked; the conformance
        // tests hold every kernel to its twin.
        self.check(function, unsafe { launch.launch(config) }).map(|_| ())
    }

    fn function(&self, source: &Source, function: &'static str, scalar: &'static str) -> Result<CudaFunction> {
        let mut loaded = self.loaded();
        let Loaded { modules, functions } = &mut *loaded;
        let key = [source.name, function, scalar];
        if let Some(kernel) = functions.get(&key) {
            return Ok(kernel.clone());
        }
        let module = match modules.get(source.name) {
            Some(module) => module,
            None => {
                let module = self.check(function, self.0.context.load_module(Ptx::from_src(source.ptx)))?;
                modules.entry(source.name).or_insert(module)
            }
        };
        let name = if scalar.is_empty() { function.to_owned() } else { format!("{function}_{scalar}") };
        let kernel = self.check(function, module.load_function(&name))?;
        functions.insert(key, kernel.clone());
        Ok(kernel)
    }
}
