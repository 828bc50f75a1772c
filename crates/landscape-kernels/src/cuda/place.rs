//! Where the operands of a call are.

use super::Cuda;
use super::memory::{DeviceView, DeviceViewMut};
use crate::error::{Error, Result};
use crate::memory::{Accumulate, View, ViewMut};

/// Where an operand is.
#[derive(Clone, Copy)]
pub(crate) enum Place<'a> {
    /// It is not given.
    Nowhere,
    /// In the memory of the processor.
    Host,
    /// On a GPU, with the reason if there is no memory behind it.
    Device(&'a Cuda, Option<&'a str>),
}

/// An operand that can say where it is.
pub(crate) trait Placed<'a> {
    /// Where it is; of several the first that is given.
    fn place(&self) -> Place<'a>;
}

impl<'a, T> Placed<'a> for View<'a, T> {
    fn place(&self) -> Place<'a> {
        match self {
            View::Host(_) => Place::Host,
            View::Device(view) => DeviceView::place(*view),
        }
    }
}

impl<'a, T> Placed<'a> for ViewMut<'a, T> {
    fn place(&self) -> Place<'a> {
        match self {
            ViewMut::Host(_) => Place::Host,
            ViewMut::Device(view) => DeviceViewMut::place(view),
        }
    }
}

impl<'a, P: Placed<'a>> Placed<'a> for Option<P> {
    fn place(&self) -> Place<'a> {
        self.as_ref().map_or(Place::Nowhere, P::place)
    }
}

/// A view with a number beside it, as a gradient with its scale.
impl<'a, P: Placed<'a>> Placed<'a> for (P, f64) {
    fn place(&self) -> Place<'a> {
        self.0.place()
    }
}

/// A gradient with its mode.
impl<'a, P: Placed<'a>> Placed<'a> for (P, Accumulate) {
    fn place(&self) -> Place<'a> {
        self.0.place()
    }
}

/// Several operands of one kind: where the first is that is given. [`place`] is called on each where they may differ.
impl<'a, P: Placed<'a>> Placed<'a> for [P] {
    fn place(&self) -> Place<'a> {
        self.iter().map(P::place).find(|place| !matches!(place, Place::Nowhere)).unwrap_or(Place::Nowhere)
    }
}

impl<'a, P: Placed<'a> + ?Sized> Placed<'a> for &P {
    fn place(&self) -> Place<'a> {
        (**self).place()
    }
}

impl<'a, P: Placed<'a> + ?Sized> Placed<'a> for &mut P {
    fn place(&self) -> Place<'a> {
        (**self).place()
    }
}

/// The device that all operands are on; nothing if they are on the host.
///
/// # Errors
/// [`Error::Place`] if they are not all in one place, [`Error::Device`] if the memory of one was not to be had.
pub(crate) fn place<'a>(op: &'static str, operands: &[(&'static str, Place<'a>)]) -> Result<Option<&'a Cuda>> {
    let mut found: Option<Option<&Cuda>> = None;
    for &(operand, place) in operands {
        let here = match place {
            Place::Nowhere => continue,
            Place::Host => None,
            Place::Device(cuda, None) => Some(cuda),
            Place::Device(cuda, Some(reason)) => return Err(cuda.failure(op, format!("`{operand}`: {reason}"))),
        };
        match found {
            None => found = Some(here),
            Some(before) if before == here => {}
            Some(before) => {
                let name = |place: Option<&Cuda>| place.map_or_else(|| "the host".to_owned(), Cuda::to_string);
                return Err(Error::Place { op, operand, expected: name(before), got: name(here) });
            }
        }
    }
    Ok(found.flatten())
}
