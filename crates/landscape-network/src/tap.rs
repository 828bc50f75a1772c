//! Taps: see a named activation on its way, change it, or stop there.
//!
//! The outside sees examples as it gave them, `[n, channels, height, width]`, `[n, features]` or any other; inside images are channels last.

use crate::error::{Error, Result};
use crate::step::Step;
use landscape_kernels::{Accumulate, Memory, Real, View, ViewMut, shape};
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
    n_examples: usize,
    step: &'a Step,
    memory: &'a mut Memory<T>,
}

impl<'a, T: Real> Activation<'a, T> {
    pub(crate) fn new(step: &'a Step, n_examples: usize, memory: &'a mut Memory<T>) -> Self {
        Activation { step, n_examples, memory }
    }

    /// The node that made it.
    pub fn node(&self) -> &str {
        &self.step.name
    }

    /// How many examples are in the batch.
    pub fn n_examples(&self) -> usize {
        self.n_examples
    }

    /// The axes of one example: `[channels, height, width]`, `[features]` or any other.
    pub fn shape(&self) -> &[usize] {
        &self.step.dims
    }

    /// Which axis of an example stands at each place in memory, the slowest first; images have `[1, 2, 0]`.
    pub fn order(&self) -> &[usize] {
        &self.step.order
    }

    fn n_elements(&self) -> usize {
        self.n_examples * self.step.n_elements()
    }

    /// The lengths of the axes as they are stored, the batch first, and the order that brings them to the outside's.
    fn to_outside(&self) -> (Vec<usize>, Vec<usize>) {
        let place = |axis: usize| self.step.order.iter().position(|&at| at == axis).expect("an order has every axis");
        let order = std::iter::once(0).chain((0..self.step.dims.len()).map(|axis| 1 + place(axis))).collect();
        ([&[self.n_examples], self.step.stored_dims().as_slice()].concat(), order)
    }

    /// The values as they are stored: of an image `[n, height, width, channels]`.
    pub fn stored(&self) -> View<'_, T> {
        self.memory.view().slice(0..self.n_elements())
    }

    /// The values as they are stored, to change in place.
    pub fn stored_mut(&mut self) -> ViewMut<'_, T> {
        let len = self.n_elements();
        self.memory.view_mut().slice(0..len)
    }

    /// A copy in the outside's order, of an image `[n, channels, height, width]`.
    ///
    /// # Errors
    /// None for an activation of a graph that was checked.
    pub fn to_vec(&self) -> Result<Vec<T>> {
        let (lens, order) = self.to_outside();
        let mut values = vec![T::ZERO; self.n_elements()];
        shape::permute(&lens, &order, self.stored(), (&mut values).into(), Accumulate::Overwrite)?;
        Ok(values)
    }

    /// Lets `values`, in the outside's order, flow on instead.
    ///
    /// # Errors
    /// [`Error::Replacement`] if there are more or fewer than the activation has.
    pub fn replace(&mut self, values: &[T]) -> Result<()> {
        let expected = self.n_elements();
        if values.len() != expected {
            return Err(Error::Replacement { node: self.step.name.clone(), expected, got: values.len() });
        }
        let (stored, order) = self.to_outside();
        let lens: Vec<usize> = order.iter().map(|&axis| stored[axis]).collect();
        Ok(shape::permute(&lens, &shape::inverse(&order), values.into(), self.stored_mut(), Accumulate::Overwrite)?)
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
        match self.by_node.get_mut(&activation.step.name) {
            Some(see) => see(activation),
            None => Ok(Flow::Continue),
        }
    }

    pub(crate) fn has(&self, node: &str) -> bool {
        self.by_node.contains_key(node)
    }
}
