//! Weights as each op wants them: convolutions read a packed copy, made once whenever the weights change.

use crate::attributes::conv2d_shape;
use crate::error::Result;
use crate::step::{Program, Step};
use landscape_core::{Flat, ParamLayout};
use landscape_kernels::conv2d;
use landscape_kernels::{Device, Memory, Real, View};
use std::ops::Range;
use std::sync::Arc;

/// The packed weights of all convolutions.
#[derive(Debug, Clone)]
pub(crate) struct Packed<T> {
    memory: Memory<T>,
    ranges: Vec<Option<Range<usize>>>,
    longest: usize,
}

impl<T: Real> Packed<T> {
    /// Room for the convolutions of a program.
    pub fn new(program: &Program, device: &Device) -> Self {
        let (mut len, mut longest) = (0, 0);
        let ranges = program.steps.iter().map(|step| {
            let weight_len = conv2d_shape(program, step, 1)?.weight_len();
            longest = longest.max(weight_len);
            len += weight_len;
            Some(len - weight_len..len)
        });
        let ranges = ranges.collect();
        Packed { memory: Memory::zeros(device, len), ranges, longest }
    }

    /// Packs the weights of a point.
    pub fn pack(&mut self, program: &Program, weights: View<'_, T>) -> Result<()> {
        for (step, range) in program.steps.iter().zip(&self.ranges) {
            if let (Some(range), Some(weight), Some(shape)) = (range, &step.weight, conv2d_shape(program, step, 1)) {
                conv2d::pack_weight(&shape, weights.slice(weight.clone()), self.memory.view_mut().slice(range.clone()))?;
            }
        }
        Ok(())
    }

    /// The packed weight of one convolution.
    pub fn view(&self, node: usize) -> View<'_, T> {
        self.memory.view().slice(self.ranges[node].clone().expect("only convolutions ask for packed weights"))
    }

    /// The length of the longest one.
    pub fn longest(&self) -> usize {
        self.longest
    }
}

/// The point a network stands at: the flat vector, and the packed copies.
#[derive(Debug, Clone)]
pub(crate) struct Weights<T> {
    /// In checkpoint order.
    pub flat: Flat<T>,
    /// As convolutions read them; of the same point as `flat` once [`Weights::pack`] has run.
    pub packed: Packed<T>,
}

impl<T: Real> Weights<T> {
    /// The origin.
    pub fn new(program: &Program, layout: &Arc<ParamLayout>, device: &Device) -> Self {
        Weights { flat: Flat::zeros(layout, device), packed: Packed::new(program, device) }
    }

    /// Bytes that both take.
    pub fn size_bytes(&self) -> usize {
        (self.flat.view().len() + self.packed.memory.len()) * size_of::<T>()
    }

    /// Brings the packed copies up to date.
    pub fn pack(&mut self, program: &Program) -> Result<()> {
        self.packed.pack(program, self.flat.view())
    }

    /// The weight of a step, if it has one.
    pub fn weight(&self, step: &Step) -> Option<View<'_, T>> {
        step.weight.clone().map(|range| self.flat.view().slice(range))
    }

    /// The bias of a step, if it has one.
    pub fn bias(&self, step: &Step) -> Option<View<'_, T>> {
        step.bias.clone().map(|range| self.flat.view().slice(range))
    }
}
