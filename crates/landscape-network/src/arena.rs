//! The memory behind a plan: slots that grow when a larger batch comes and are otherwise used again.

use crate::plan::Plan;
use landscape_kernels::{Device, Element, Memory, Real, View};

/// Slots of activations and gradients.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    device: Device,
    memories: Vec<Memory<T>>,
}

impl<T: Real> Slots<T> {
    /// The first `len` numbers of a slot.
    pub fn view(&self, slot: usize, len: usize) -> View<'_, T> {
        self.memories[slot].view().slice(0..len)
    }

    /// Takes a slot out, to write to it while others are read; [`Slots::put`] brings it back.
    pub fn take(&mut self, slot: usize) -> Memory<T> {
        std::mem::replace(&mut self.memories[slot], Memory::zeros(&self.device, 0))
    }

    /// Puts a slot back.
    pub fn put(&mut self, slot: usize, memory: Memory<T>) {
        self.memories[slot] = memory;
    }
}

/// All memory that a batch passes through.
#[derive(Debug)]
pub(crate) struct Arena<T> {
    /// Activations and gradients.
    pub slots: Slots<T>,
    /// Where each maximum came from, per max pooling.
    pub argmax: Vec<Memory<u32>>,
    /// What convolutions gather into.
    pub scratch: Memory<T>,
    /// The packed weight gradient of one convolution.
    pub packed_gradient: Memory<T>,
    /// Per step of the training plan, the sums of its gradient and of the products with what its batch norm read.
    pub sums: Vec<[Memory<f64>; 2]>,
    /// One zero, for what is repeated by adding it.
    pub zero: Memory<T>,
    /// As many zeros as any layer has channels.
    pub zeros: Memory<T>,
}

impl<T: Real> Arena<T> {
    /// Nothing yet.
    pub fn new(device: &Device) -> Self {
        let slots = Slots { device: device.clone(), memories: Vec::new() };
        let nothing = || Memory::zeros(device, 0);
        Arena {
            slots,
            argmax: Vec::new(),
            scratch: nothing(),
            packed_gradient: nothing(),
            sums: Vec::new(),
            zero: Memory::zeros(device, 1),
            zeros: nothing(),
        }
    }

    /// Makes room for `n_examples` in a plan's memories; what they held is lost where they grow.
    pub fn grow(&mut self, plan: &Plan, n_examples: usize, scratch_len: usize) {
        let Slots { device, memories } = &mut self.slots;
        while memories.len() < plan.slot_sizes.len() {
            memories.push(Memory::zeros(device, 0));
        }
        for (slot, size) in memories.iter_mut().zip(&plan.slot_sizes) {
            grow(slot, device, size * n_examples);
        }
        if self.argmax.len() < plan.argmax_sizes.len() {
            self.argmax.resize_with(plan.argmax_sizes.len(), || Memory::zeros(device, 0));
        }
        for (indices, size) in self.argmax.iter_mut().zip(&plan.argmax_sizes) {
            grow(indices, device, size * n_examples);
        }
        grow(&mut self.scratch, device, scratch_len);
    }

    /// Bytes that [`Arena::grow`] comes to hold after all of `plans`, which use the same slots in turn.
    pub fn bytes_for(plans: &[&Plan], n_examples: usize, scratch_len: usize) -> usize {
        let largest = |sizes: fn(&Plan) -> &[usize]| -> usize {
            let n_slots = plans.iter().map(|plan| sizes(plan).len()).max().unwrap_or(0);
            (0..n_slots).map(|slot| plans.iter().filter_map(|plan| sizes(plan).get(slot)).max().unwrap_or(&0)).sum()
        };
        let per_example = largest(|plan| &plan.slot_sizes) * size_of::<T>() + largest(|plan| &plan.argmax_sizes) * size_of::<u32>();
        per_example.saturating_mul(n_examples).saturating_add(scratch_len * size_of::<T>())
    }

    /// Makes room for the packed gradient of the longest convolution weight.
    pub fn grow_packed_gradient(&mut self, len: usize) {
        grow(&mut self.packed_gradient, &self.slots.device, len);
    }

    /// Makes room for the sums of each step, given its channels, where it has any.
    pub fn grow_sums(&mut self, channels: impl Iterator<Item = usize>) {
        if self.sums.is_empty() {
            let device = self.slots.device.clone();
            self.sums = channels.map(|channels| [(); 2].map(|()| Memory::zeros(&device, channels))).collect();
            let longest = self.sums.iter().map(|[sums, _]| sums.len()).max().unwrap_or(0);
            self.zeros = Memory::zeros(&device, longest);
        }
    }

    /// Bytes that are held.
    pub fn size_bytes(&self) -> usize {
        let slots = self.slots.memories.iter().map(Memory::len).sum::<usize>();
        let indices = self.argmax.iter().map(Memory::len).sum::<usize>();
        (slots + self.scratch.len() + self.packed_gradient.len()) * size_of::<T>() + indices * size_of::<u32>()
    }
}

fn grow<T: Element>(memory: &mut Memory<T>, device: &Device, len: usize) {
    if memory.len() < len {
        // The old memory goes first, so that both are never held at once.
        *memory = Memory::zeros(device, 0);
        *memory = Memory::zeros(device, len);
    }
}
