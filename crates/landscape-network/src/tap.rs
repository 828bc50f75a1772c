//! Taps: see a named activation on its way, change it, or stop there.
//!
//! The outside sees examples as it gave them, `[n, channels, height, width]` or `[n, features]`; inside they are channels last.

use crate::error::{Error, Result};
use landscape_kernels::{Memory, Real, View, ViewMut, shape};
use std::collections::BTreeMap;
use std::fmt;

/// What happens after a tap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// The pass goes on.
    Continue,
    /// Nothing after this node runs; there is no output.
    Stop,
}

/// An activation as a tap sees it.
#[derive(Debug)]
pub struct Activation<'a, T> {
    node: &'a str,
    n_examples: usize,
    shape: [usize; 3],
    memory: &'a mut Memory<T>,
}

impl<'a, T: Real> Activation<'a, T> {
    pub(crate) fn new(node: &'a str, n_examples: usize, shape: [usize; 3], memory: &'a mut Memory<T>) -> Self {
        Activation { node, n_examples, shape, memory }
    }

    /// The node that made it.
    pub fn node(&self) -> &str {
        self.node
    }

    /// How many examples are in the batch.
    pub fn n_examples(&self) -> usize {
        self.n_examples
    }

    /// Channels, height and width of one example; features are `[n, 1, 1]`.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    fn n_elements(&self) -> usize {
        self.n_examples * self.shape.iter().product::<usize>()
    }

    /// The values as they are stored, `[n, height, width, channels]`.
    pub fn channels_last(&self) -> View<'_, T> {
        self.memory.view().slice(0..self.n_elements())
    }

    /// The values as they are stored, `[n, height, width, channels]`, to change in place.
    pub fn channels_last_mut(&mut self) -> ViewMut<'_, T> {
        let len = self.n_elements();
        self.memory.view_mut().slice(0..len)
    }

    /// A copy in the outside's order, `[n, channels, height, width]`.
    ///
    /// # Errors
    /// None for an activation of a graph that was checked.
    pub fn to_vec(&self) -> Result<Vec<T>> {
        let [c, h, w] = self.shape;
        let mut values = vec![T::ZERO; self.n_elements()];
        shape::nhwc_to_nchw(self.n_examples, c, h, w, self.channels_last(), (&mut values).into())?;
        Ok(values)
    }

    /// Lets `values`, in the outside's order `[n, channels, height, width]`, flow on instead.
    ///
    /// # Errors
    /// [`Error::Replacement`] if there are more or fewer than the activation has.
    pub fn replace(&mut self, values: &[T]) -> Result<()> {
        let expected = self.n_elements();
        if values.len() != expected {
            return Err(Error::Replacement { node: self.node.to_owned(), expected, got: values.len() });
        }
        let ([c, h, w], n) = (self.shape, self.n_examples);
        Ok(shape::nchw_to_nhwc(n, c, h, w, values.into(), self.channels_last_mut())?)
    }
}

type See<'a, T> = Box<dyn FnMut(&mut Activation<'_, T>) -> Result<Flow> + 'a>;

/// What to do at which nodes of a pass.
#[derive(Default)]
pub struct Taps<'a, T> {
    by_node: BTreeMap<String, See<'a, T>>,
}

impl<T> fmt::Debug for Taps<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_node.keys()).finish()
    }
}

impl<'a, T: Real> Taps<'a, T> {
    /// No taps.
    pub fn new() -> Self {
        Taps { by_node: BTreeMap::new() }
    }

    /// Adds a tap at the result of `node`; an earlier one there is replaced.
    pub fn at(mut self, node: &str, see: impl FnMut(&mut Activation<'_, T>) -> Result<Flow> + 'a) -> Self {
        self.by_node.insert(node.to_owned(), Box::new(see));
        self
    }

    /// The nodes with a tap.
    pub fn nodes(&self) -> impl Iterator<Item = &str> {
        self.by_node.keys().map(String::as_str)
    }

    pub(crate) fn see(&mut self, activation: &mut Activation<'_, T>) -> Result<Flow> {
        match self.by_node.get_mut(activation.node) {
            Some(see) => see(activation),
            None => Ok(Flow::Continue),
        }
    }

    pub(crate) fn has(&self, node: &str) -> bool {
        self.by_node.contains_key(node)
    }
}
