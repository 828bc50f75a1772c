//! Files for whole commands: three checkpoints `0.safetensors`, `1.safetensors`, `2.safetensors`, and images in MNIST's format, which
//! a peer's script reads in ten lines.

use crate::values::{self, stream, uniform};
use landscape_core::checkpoint::{Checkpoint, Dtypes, Metadata};
use landscape_core::metadata::FORMAT_VERSION;
use landscape_core::whole::Overwrite;
use landscape_core::{Buffers, ParamLayout};
use landscape_zoo::data::{self, Inputs, SplitTargets};
use landscape_zoo::models;
use std::path::Path;
use std::sync::Arc;

/// Height and width of the images.
const SIZE: usize = 28;

/// Writes the files.
///
/// # Errors
/// If there is no such network for these images, or a file cannot be written.
pub fn write(model: &str, n_train: usize, n_test: usize, folder: &Path, seed: u64) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    let graph = models::build(model, &[1, SIZE, SIZE], values::N_CLASSES)?;
    let layout = Arc::new(ParamLayout::of_graph(&graph)?);
    let buffers = Buffers::of_graph(&graph)?;
    for k in 0..3 {
        let metadata = Metadata {
            format_version: FORMAT_VERSION,
            graph: Some(graph.clone()),
            data: None,
            normalization: None,
            seed: Some(seed),
            metrics: Default::default(),
            point: None,
        };
        let point = values::point(&layout, seed, k)?;
        let checkpoint = Checkpoint::from_parts(&graph, &point, &buffers, &Dtypes::default(), Some(metadata))?;
        checkpoint.write(&folder.join(format!("{k}.safetensors")), Overwrite::Replace)?;
    }
    for (split, name, n) in [(0, "train", n_train), (1, "t10k", n_test)] {
        let pixels = (0..(n * SIZE * SIZE) as u64).map(|i| (256.0 * uniform(stream(seed, "pixels", split), i)) as u8);
        write_idx(&folder.join(format!("{name}-images-idx3-ubyte")), &[n, SIZE, SIZE], pixels)?;
        let labels = (0..n as u64).map(|i| (values::N_CLASSES as f64 * uniform(stream(seed, "labels", split), i)) as u8);
        write_idx(&folder.join(format!("{name}-labels-idx1-ubyte")), &[n], labels)?;
    }
    Ok(())
}

/// Writes the digits that are embedded in `landscape-zoo`, in the same format: bytes from 0 to 16.
///
/// # Errors
/// If a file cannot be written.
pub fn write_digits(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    let digits = data::open("digits")?;
    for (name, split) in [("train", &digits.train), ("t10k", &digits.test)] {
        let (Inputs::U8(pixels), SplitTargets::Classes(labels)) = (&split.inputs, &split.targets) else {
            anyhow::bail!("the digits are no bytes with classes any more");
        };
        let [_, height, width] = split.input_shape[..] else { anyhow::bail!("the digits are no images any more") };
        let (images, classes) = (format!("{name}-images-idx3-ubyte"), format!("{name}-labels-idx1-ubyte"));
        write_idx(&folder.join(images), &[split.n_examples, height, width], pixels.iter().copied())?;
        write_idx(&folder.join(classes), &[split.n_examples], labels.iter().map(|&label| label as u8))?;
    }
    Ok(())
}

/// An IDX file of unsigned bytes: magic number, dimensions, data.
fn write_idx(path: &Path, shape: &[usize], bytes: impl Iterator<Item = u8>) -> anyhow::Result<()> {
    let mut file = vec![0, 0, 8, u8::try_from(shape.len())?];
    for &n in shape {
        file.extend(u32::try_from(n)?.to_be_bytes());
    }
    file.extend(bytes);
    Ok(std::fs::write(path, file)?)
}
