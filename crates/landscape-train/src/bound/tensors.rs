//! Where candle users keep their weights: maps of tensors, and `VarMap`s.

use super::model::poisoned;
use crate::error::Result;
use candle_core::Tensor;
use candle_nn::VarMap;
use std::collections::BTreeMap;

/// Tensors by name.
pub trait NamedTensors {
    /// All of them, in the order of their names.
    ///
    /// # Errors
    /// If they cannot be had.
    fn named_tensors(&self) -> Result<BTreeMap<String, Tensor>>;
}

impl NamedTensors for VarMap {
    fn named_tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        let vars = self.data().lock().map_err(|_| poisoned())?;
        Ok(vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect())
    }
}

#[expect(clippy::disallowed_types, reason = "what candle's safetensors::load gives; its order is never used")]
impl NamedTensors for std::collections::HashMap<String, Tensor> {
    fn named_tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        Ok(self.iter().map(|(name, tensor)| (name.clone(), tensor.clone())).collect())
    }
}

impl NamedTensors for BTreeMap<String, Tensor> {
    fn named_tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        Ok(self.clone())
    }
}

/// Writes tensors into variables of the same names, which must all be there.
pub(super) fn write_varmap(tensors: &BTreeMap<String, Tensor>, vars: &VarMap) -> Result<()> {
    let vars = vars.data().lock().map_err(|_| poisoned())?;
    for (name, tensor) in tensors {
        let var = vars
            .get(name)
            .ok_or_else(|| landscape_core::Error::MissingTensor { tensor: name.clone(), place: "the variables".to_owned() })?;
        var.set(&tensor.to_dtype(var.dtype())?.to_device(var.device())?)?;
    }
    Ok(())
}
