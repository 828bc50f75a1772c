//! Lists of tensors against each other: numbers, shapes, types, devices and storages, compared before anything is written.

use super::AsTensor;
use candle_core::{DType, Result, Storage, Tensor, Var, bail};

/// Whether a list may be of bf16 where the variables are not.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Narrow {
    Allowed,
    Refused,
}

/// The tensors of a list, contiguous, after their number, shapes, types and devices were compared with those of `like`.
pub(super) fn list<P: AsTensor>(op: &str, operand: &str, tensors: &[P], like: &[Var], narrow: Narrow) -> Result<Vec<Tensor>> {
    if tensors.len() != like.len() {
        bail!("`{op}`: `{operand}` must have {} tensors, got {}", like.len(), tensors.len());
    }
    let mut found = Vec::with_capacity(tensors.len());
    for (idx, (tensor, var)) in tensors.iter().zip(like).enumerate() {
        let tensor = tensor.as_tensor();
        if tensor.shape() != var.shape() {
            bail!("`{op}`: tensor {idx} of `{operand}` must be {:?}, got {:?}", var.shape(), tensor.shape());
        }
        let is_narrow = narrow == Narrow::Allowed && tensor.dtype() == DType::BF16;
        if tensor.dtype() != var.dtype() && !is_narrow {
            bail!("`{op}`: tensor {idx} of `{operand}` must be of {:?}, got {:?}", var.dtype(), tensor.dtype());
        }
        if !tensor.device().same_device(var.device()) {
            bail!("`{op}`: tensor {idx} of `{operand}` must be where the variable is, on {:?}, got {:?}", var.device(), tensor.device());
        }
        // A launch has one type for each row.
        if let Some(first) = tensors.first().map(P::as_tensor)
            && tensor.dtype() != first.dtype()
        {
            bail!(
                "`{op}`: tensor {idx} of `{operand}` must be of {:?} as the first of its row is, got {:?}",
                first.dtype(),
                tensor.dtype()
            );
        }
        found.push(tensor.contiguous()?);
    }
    Ok(found)
}

/// Fails unless variables are contiguous, of one type, and each in a storage of its own that none of `sources` shares.
pub(super) fn check_targets(op: &str, targets: &[Var], sources: &[Tensor]) -> Result<()> {
    let mut seen = std::collections::BTreeSet::new();
    for var in targets {
        if !matches!(var.dtype(), DType::F32 | DType::F64) {
            bail!("`{op}`: what is written must be of f32 or f64, got {:?}", var.dtype());
        }
        if !(var.device().is_cpu() || cfg!(feature = "candle-cuda") && var.device().is_cuda()) {
            bail!("`{op}`: this build has no kernels for {:?}", var.device());
        }
        if var.dtype() != targets[0].dtype() || !var.device().same_device(targets[0].device()) {
            bail!("`{op}`: what is written must be of one type and on one device");
        }
        if !var.is_contiguous() {
            bail!("`{op}`: what is written must be contiguous");
        }
        if !seen.insert(storage_of(var)) {
            bail!("`{op}`: two of the variables that are written share their storage");
        }
    }
    match sources.iter().any(|source| seen.contains(&storage_of(source))) {
        true => bail!("`{op}`: a source shares its storage with a variable that is written"),
        false => Ok(()),
    }
}

/// Where a tensor's storage stands: the same for two tensors of one storage.
fn storage_of(tensor: &Tensor) -> usize {
    let (storage, _) = tensor.storage_and_layout();
    let storage: *const Storage = &*storage;
    storage as usize
}
