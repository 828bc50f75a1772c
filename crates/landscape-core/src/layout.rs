//! Which tensors stand where in a flat vector: names, shapes, offsets, in checkpoint (PyTorch state-dict) order.

use crate::error::{Error, Result};
use landscape_graph::{Graph, TensorDecl};
use std::collections::BTreeMap;
use std::ops::Range;

/// One named tensor inside a flat vector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// The checkpoint's name, such as `layer1.0.conv1.weight`.
    pub name: String,
    /// The checkpoint's shape.
    pub shape: Vec<usize>,
    /// Where it begins.
    pub offset: usize,
}

impl TensorSpec {
    /// How many numbers it has.
    pub fn n_elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Where it stands.
    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.n_elements()
    }
}

/// The tensors of a flat vector, in order, without gaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamLayout {
    tensors: Vec<TensorSpec>,
    by_name: BTreeMap<String, usize>,
    n_elements: usize,
}

impl ParamLayout {
    /// Lays out named shapes one after the other.
    ///
    /// # Errors
    /// If a name comes twice or the sizes overflow.
    ///
    /// ```
    /// use landscape_core::ParamLayout;
    /// let layout = ParamLayout::new([("fc.weight".to_owned(), vec![2, 3]), ("fc.bias".to_owned(), vec![2])])?;
    /// assert_eq!(layout.get("fc.bias").unwrap().range(), 6..8);
    /// # Ok::<(), landscape_core::Error>(())
    /// ```
    pub fn new(tensors: impl IntoIterator<Item = (String, Vec<usize>)>) -> Result<Self> {
        let mut layout = ParamLayout { tensors: Vec::new(), by_name: BTreeMap::new(), n_elements: 0 };
        for (name, shape) in tensors {
            let n_elements = shape
                .iter()
                .try_fold(1usize, |n, &d| n.checked_mul(d))
                .and_then(|n| layout.n_elements.checked_add(n))
                .ok_or_else(|| Error::config("shape", "a size that fits in memory", format!("{shape:?} of `{name}`")))?;
            if layout.by_name.insert(name.clone(), layout.tensors.len()).is_some() {
                return Err(Error::config("name", "different for every tensor", format!("`{name}` twice")));
            }
            layout.tensors.push(TensorSpec { name, shape, offset: layout.n_elements });
            layout.n_elements = n_elements;
        }
        Ok(layout)
    }

    /// The parameters of a network, in state-dict order.
    ///
    /// # Errors
    /// As [`ParamLayout::new`]; a graph that was checked gives none.
    pub fn of_graph(graph: &Graph) -> Result<Self> {
        Self::of_declarations(graph.params())
    }

    /// The statistics buffers of a network, in state-dict order.
    ///
    /// # Errors
    /// As [`ParamLayout::new`]; a graph that was checked gives none.
    pub fn of_graph_buffers(graph: &Graph) -> Result<Self> {
        Self::of_declarations(graph.buffers())
    }

    fn of_declarations(declarations: Vec<TensorDecl>) -> Result<Self> {
        Self::new(declarations.into_iter().map(|d| (d.name, d.shape)))
    }

    /// The tensors, in order.
    pub fn tensors(&self) -> &[TensorSpec] {
        &self.tensors
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<&TensorSpec> {
        self.by_name.get(name).map(|&idx| &self.tensors[idx])
    }

    /// How many numbers there are in all.
    pub fn n_elements(&self) -> usize {
        self.n_elements
    }

    /// Fails, with every difference listed, unless `other` has the same names and shapes.
    ///
    /// # Errors
    /// [`Error::Layout`]; `left` and `right` say whose tensors these are.
    pub fn check_same(&self, left: &str, other: &ParamLayout, right: &str) -> Result<()> {
        // Every step of training compares layouts, and they are mostly one and the same.
        if std::ptr::eq(self, other) {
            return Ok(());
        }
        let mut differences = Vec::new();
        for spec in &self.tensors {
            match other.get(&spec.name) {
                None => differences.push(format!("`{}` {:?} is only in {left}", spec.name, spec.shape)),
                Some(found) if found.shape != spec.shape => {
                    differences.push(format!("`{}` is {:?} in {left} and {:?} in {right}", spec.name, spec.shape, found.shape));
                }
                Some(_) => {}
            }
        }
        for spec in other.tensors.iter().filter(|s| self.get(&s.name).is_none()) {
            differences.push(format!("`{}` {:?} is only in {right}", spec.name, spec.shape));
        }
        if differences.is_empty() && self.tensors.iter().zip(&other.tensors).any(|(a, b)| a.name != b.name) {
            differences.push("the tensors stand in another order".to_owned());
        }
        if differences.is_empty() { Ok(()) } else { Err(Error::Layout { left: left.to_owned(), right: right.to_owned(), differences }) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn layout(tensors: &[(&str, &[usize])]) -> Result<ParamLayout> {
        ParamLayout::new(tensors.iter().map(|(n, s)| ((*n).to_owned(), s.to_vec())))
    }

    #[test]
    fn every_difference_is_named() {
        let a = layout(&[("w", &[2, 3]), ("b", &[2]), ("only_a", &[1])]).unwrap();
        let b = layout(&[("w", &[3, 2]), ("b", &[2]), ("only_b", &[1])]).unwrap();
        let message = a.check_same("A", &b, "B").unwrap_err().to_string();
        for part in ["`w` is [2, 3] in A and [3, 2] in B", "`only_a` [1] is only in A", "`only_b` [1] is only in B"] {
            assert!(message.contains(part), "{message}");
        }
        assert!(!message.contains("`b`"));
        a.check_same("A", &a.clone(), "B").unwrap();
    }

    #[test]
    fn names_twice_and_sizes_that_overflow_are_errors() {
        assert!(layout(&[("w", &[1]), ("w", &[1])]).is_err());
        assert!(layout(&[("w", &[usize::MAX, 3])]).is_err());
    }
}
