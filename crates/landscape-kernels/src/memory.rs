//! Where numbers live: [`Device`], [`Memory`] and its views, and the sealed scalar [`Real`].
//!
//! Every op takes views and matches on them once, so a second kind of memory is a second arm and not a second executor.
//! [`DeviceMemory`] has no values in this build: the compiler knows that its arms are never reached.

use crate::error::{Error, Result};
use std::fmt;
use std::ops::{Add, AddAssign, Div, DivAssign, Mul, MulAssign, Neg, Range, Sub, SubAssign};

/// The scalar of a computation: `f32` to work, `f64` to check.
pub trait Real:
    sealed::Sealed
    + Copy
    + Default
    + PartialOrd
    + Send
    + Sync
    + fmt::Debug
    + fmt::Display
    + std::iter::Sum
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
    + DivAssign
    + 'static
{
    /// `f32` or `f64`.
    const NAME: &'static str;
    /// Zero.
    const ZERO: Self;
    /// One.
    const ONE: Self;
    /// The distance from one to the next larger number.
    const EPSILON: Self;
    /// Minus infinity.
    const NEG_INFINITY: Self;
    /// The nearest number of this type.
    fn from_f64(value: f64) -> Self;
    /// The same number in double precision.
    fn to_f64(self) -> f64;
    /// Square root.
    fn sqrt(self) -> Self;
    /// Exponential.
    fn exp(self) -> Self;
    /// Natural logarithm.
    fn ln(self) -> Self;
    /// Hyperbolic tangent.
    fn tanh(self) -> Self;
    /// Absolute value.
    fn abs(self) -> Self;
    /// Whether it is neither infinite nor NaN.
    fn is_finite(self) -> bool;
    /// The larger of two numbers, NaN if either is.
    fn maximum(self, other: Self) -> Self {
        if self.is_nan() || self > other { self } else { other }
    }
    /// Whether it is not a number.
    fn is_nan(self) -> bool;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

macro_rules! real {
    ($t:ident) => {
        impl Real for $t {
            const NAME: &'static str = stringify!($t);
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const EPSILON: Self = $t::EPSILON;
            const NEG_INFINITY: Self = $t::NEG_INFINITY;
            #[inline]
            fn from_f64(value: f64) -> Self {
                value as $t
            }
            #[inline]
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            #[inline]
            fn sqrt(self) -> Self {
                self.sqrt()
            }
            #[inline]
            fn exp(self) -> Self {
                self.exp()
            }
            #[inline]
            fn ln(self) -> Self {
                self.ln()
            }
            #[inline]
            fn tanh(self) -> Self {
                self.tanh()
            }
            #[inline]
            fn abs(self) -> Self {
                self.abs()
            }
            #[inline]
            fn is_finite(self) -> bool {
                self.is_finite()
            }
            #[inline]
            fn is_nan(self) -> bool {
                self.is_nan()
            }
        }
    };
}
real!(f32);
real!(f64);

/// Where a computation runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Device {
    /// The processor of this machine.
    #[default]
    Cpu,
}

impl Device {
    /// Reads `cpu` or `cuda:N`.
    ///
    /// # Errors
    /// [`Error::NotBuilt`] for a CUDA device (this build has none), [`Error::UnknownDevice`] for anything else.
    ///
    /// ```
    /// use landscape_kernels::Device;
    /// assert_eq!(Device::parse("cpu")?, Device::Cpu);
    /// assert_eq!(Device::parse("cuda:0").unwrap_err().to_string(), "device `cuda:0` is not built yet");
    /// # Ok::<(), landscape_kernels::Error>(())
    /// ```
    pub fn parse(name: &str) -> Result<Self> {
        let cuda_index = name.strip_prefix("cuda").map(|rest| rest.strip_prefix(':').unwrap_or(rest));
        match (name, cuda_index) {
            ("cpu", _) => Ok(Device::Cpu),
            (_, Some(list)) if list.is_empty() || list.split(',').all(|i| i.parse::<u16>().is_ok()) => {
                Err(Error::NotBuilt(name.to_owned()))
            }
            _ => Err(Error::UnknownDevice(name.to_owned())),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
        }
    }
}

/// Numbers on an accelerator; this build has none, so the type has no values.
#[derive(Debug, Clone, Copy)]
pub enum DeviceMemory {}

/// An owned run of numbers on one device.
#[derive(Debug, Clone)]
pub enum Memory<T> {
    /// In the memory of the processor.
    Host(Vec<T>),
    /// On an accelerator.
    Device(DeviceMemory),
}

impl<T: Real> Memory<T> {
    /// `len` zeros on `device`.
    pub fn zeros(device: &Device, len: usize) -> Self {
        match device {
            Device::Cpu => Memory::Host(vec![T::ZERO; len]),
        }
    }

    /// Numbers of the host, moved to `device`.
    pub fn from_host(device: &Device, values: Vec<T>) -> Self {
        match device {
            Device::Cpu => Memory::Host(values),
        }
    }

    /// A copy on the host.
    pub fn to_host(&self) -> Vec<T> {
        match self {
            Memory::Host(values) => values.clone(),
            Memory::Device(never) => match *never {},
        }
    }

    /// Where the numbers are.
    pub fn device(&self) -> Device {
        match self {
            Memory::Host(_) => Device::Cpu,
            Memory::Device(never) => match *never {},
        }
    }

    /// How many numbers there are.
    pub fn len(&self) -> usize {
        match self {
            Memory::Host(values) => values.len(),
            Memory::Device(never) => match *never {},
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of it, to read.
    pub fn view(&self) -> View<'_, T> {
        match self {
            Memory::Host(values) => View::Host(values),
            Memory::Device(never) => match *never {},
        }
    }

    /// All of it, to write.
    pub fn view_mut(&mut self) -> ViewMut<'_, T> {
        match self {
            Memory::Host(values) => ViewMut::Host(values),
            Memory::Device(never) => match *never {},
        }
    }
}

/// A run of numbers to read.
#[derive(Debug, Clone, Copy)]
pub enum View<'a, T> {
    /// In the memory of the processor.
    Host(&'a [T]),
    /// On an accelerator.
    Device(DeviceMemory),
}

impl<'a, T: Real> View<'a, T> {
    /// The numbers, which this build always has on the host.
    pub fn host(self) -> &'a [T] {
        match self {
            View::Host(values) => values,
            View::Device(never) => match never {},
        }
    }

    /// A part of it.
    ///
    /// # Panics
    /// If `range` reaches past the end.
    pub fn slice(self, range: Range<usize>) -> View<'a, T> {
        match self {
            View::Host(values) => View::Host(&values[range]),
            View::Device(never) => match never {},
        }
    }

    /// How many numbers there are.
    pub fn len(self) -> usize {
        self.host().len()
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

impl<'a, T> From<&'a [T]> for View<'a, T> {
    fn from(values: &'a [T]) -> Self {
        View::Host(values)
    }
}

impl<'a, T> From<&'a Vec<T>> for View<'a, T> {
    fn from(values: &'a Vec<T>) -> Self {
        View::Host(values)
    }
}

/// A run of numbers to write.
#[derive(Debug)]
pub enum ViewMut<'a, T> {
    /// In the memory of the processor.
    Host(&'a mut [T]),
    /// On an accelerator.
    Device(DeviceMemory),
}

impl<'a, T: Real> ViewMut<'a, T> {
    /// The numbers, which this build always has on the host.
    pub fn host(self) -> &'a mut [T] {
        match self {
            ViewMut::Host(values) => values,
            ViewMut::Device(never) => match never {},
        }
    }

    /// The same run for a shorter time.
    pub fn reborrow(&mut self) -> ViewMut<'_, T> {
        match self {
            ViewMut::Host(values) => ViewMut::Host(values),
            ViewMut::Device(never) => match *never {},
        }
    }

    /// A part of it.
    ///
    /// # Panics
    /// If `range` reaches past the end.
    pub fn slice(self, range: Range<usize>) -> ViewMut<'a, T> {
        match self {
            ViewMut::Host(values) => ViewMut::Host(&mut values[range]),
            ViewMut::Device(never) => match never {},
        }
    }

    /// The first `mid` numbers and the rest.
    ///
    /// # Panics
    /// If there are fewer than `mid`.
    pub fn split_at(self, mid: usize) -> (ViewMut<'a, T>, ViewMut<'a, T>) {
        match self {
            ViewMut::Host(values) => {
                let (left, right) = values.split_at_mut(mid);
                (ViewMut::Host(left), ViewMut::Host(right))
            }
            ViewMut::Device(never) => match never {},
        }
    }

    /// The same run, to read.
    pub fn view(&self) -> View<'_, T> {
        match self {
            ViewMut::Host(values) => View::Host(values),
            ViewMut::Device(never) => match *never {},
        }
    }

    /// How many numbers there are.
    pub fn len(&self) -> usize {
        self.view().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sets every number to `value`.
    pub fn fill(self, value: T) {
        self.host().fill(value);
    }

    /// Copies `source`, which must be as long.
    ///
    /// # Errors
    /// [`Error::Length`] if it is not.
    pub fn copy_from(self, source: View<'_, T>) -> Result<()> {
        crate::error::check_len("copy", "source", self.len(), source.len())?;
        self.host().copy_from_slice(source.host());
        Ok(())
    }
}

impl<'a, T> From<&'a mut [T]> for ViewMut<'a, T> {
    fn from(values: &'a mut [T]) -> Self {
        ViewMut::Host(values)
    }
}

impl<'a, T> From<&'a mut Vec<T>> for ViewMut<'a, T> {
    fn from(values: &'a mut Vec<T>) -> Self {
        ViewMut::Host(values)
    }
}

/// Whether a result replaces what was there or is added to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accumulate {
    /// Replace.
    Overwrite,
    /// Add.
    Add,
}
