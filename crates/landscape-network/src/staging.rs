//! Batches, which come on the host, where the ops of a device want them.

use landscape_kernels::{Device, Element, Memory, View};

/// Numbers of the host as they stand, or a copy on an accelerator.
pub(crate) enum Staged<'a, T> {
    Host(&'a [T]),
    Device(Memory<T>),
}

impl<'a, T: Element> Staged<'a, T> {
    /// `values` for ops on `device`. The copy may wait for work that was given before, since the host's memory is not pinned.
    pub fn on(device: &Device, values: &'a [T]) -> Self {
        if *device == Device::Cpu { Staged::Host(values) } else { Staged::Device(Memory::from_host(device, values.to_vec())) }
    }

    /// All of them.
    pub fn view(&self) -> View<'_, T> {
        match self {
            Staged::Host(values) => View::Host(values),
            Staged::Device(memory) => memory.view(),
        }
    }
}
