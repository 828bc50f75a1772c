//! The memory of accelerators in a build without them: types without values.

use crate::error::Result;
use crate::memory::Device;
use std::convert::Infallible;
use std::marker::PhantomData;
use std::ops::Range;

/// Numbers on an accelerator; this build has none, so the type has no values.
#[derive(Debug, Clone)]
pub struct DeviceMemory<T> {
    never: Infallible,
    marker: PhantomData<T>,
}

/// Numbers on an accelerator, to read; this build has none, so the type has no values.
#[derive(Debug, Clone, Copy)]
pub struct DeviceView<'a, T> {
    never: Infallible,
    marker: PhantomData<&'a T>,
}

/// Numbers on an accelerator, to write; this build has none, so the type has no values.
#[derive(Debug)]
pub struct DeviceViewMut<'a, T> {
    never: Infallible,
    marker: PhantomData<&'a mut T>,
}

impl<T> DeviceMemory<T> {
    pub(crate) fn device(&self) -> Device {
        match self.never {}
    }

    pub(crate) fn len(&self) -> usize {
        match self.never {}
    }

    pub(crate) fn view(&self) -> DeviceView<'_, T> {
        match self.never {}
    }

    pub(crate) fn view_mut(&mut self) -> DeviceViewMut<'_, T> {
        match self.never {}
    }
}

impl<'a, T> DeviceView<'a, T> {
    pub(crate) fn not_on_host(self) -> ! {
        match self.never {}
    }

    #[expect(clippy::wrong_self_convention, reason = "a view is passed by value, as the one of a build with accelerators")]
    pub(crate) fn to_host(self) -> Result<Vec<T>> {
        match self.never {}
    }

    pub(crate) fn copy_to_host(self, _target: &mut [T]) -> Result<()> {
        match self.never {}
    }

    pub(crate) fn slice(self, _range: Range<usize>) -> DeviceView<'a, T> {
        match self.never {}
    }

    pub(crate) fn len(self) -> usize {
        match self.never {}
    }
}

impl<'a, T> DeviceViewMut<'a, T> {
    pub(crate) fn reborrow(&mut self) -> DeviceViewMut<'_, T> {
        match self.never {}
    }

    pub(crate) fn slice(self, _range: Range<usize>) -> DeviceViewMut<'a, T> {
        match self.never {}
    }

    pub(crate) fn split_at(self, _mid: usize) -> (DeviceViewMut<'a, T>, DeviceViewMut<'a, T>) {
        match self.never {}
    }

    pub(crate) fn view(&self) -> DeviceView<'_, T> {
        match self.never {}
    }

    pub(crate) fn fill(self, _value: T) -> Result<()> {
        match self.never {}
    }

    pub(crate) fn copy_from_host(self, _source: &[T]) -> Result<()> {
        match self.never {}
    }

    pub(crate) fn copy_from(self, _source: DeviceView<'_, T>) -> Result<()> {
        match self.never {}
    }
}
