//! Where numbers live: [`Device`], [`Memory`] and its views, and the sealed scalar [`Real`].
//!
//! Every op takes views and asks once where they are, so a second kind of memory is a second arm and not a second executor.
//! Without the feature `cuda` [`DeviceMemory`] has no values: the compiler knows that its arms are never reached.

#[cfg(feature = "cuda")]
use crate::cuda::Cuda;
#[cfg(feature = "cuda")]
pub use crate::cuda::memory::{DeviceMemory, DeviceView, DeviceViewMut};
use crate::error::{Error, Result, check_len};
#[cfg(not(feature = "cuda"))]
pub use crate::no_cuda::{DeviceMemory, DeviceView, DeviceViewMut};
use half::bf16;
use std::borrow::Cow;
use std::fmt;
use std::ops::{Add, AddAssign, Div, DivAssign, Mul, MulAssign, Neg, Range, Sub, SubAssign};

/// What a memory may hold: the scalars, and the integers that labels and places are.
pub trait Element: sealed::Sealed + Copy + Default + PartialEq + Send + Sync + fmt::Debug + 'static {}
impl Element for f32 {}
impl Element for f64 {}
impl Element for u32 {}
impl Element for bf16 {}

/// The scalar of a computation: `f32` to work, `f64` to check.
pub trait Real:
    Element
    + PartialOrd
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
    + crate::vector_math::VectorMath
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
    impl Sealed for u32 {}
    impl Sealed for half::bf16 {}
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
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Device {
    /// The processor of this machine.
    #[default]
    Cpu,
    /// A GPU, as it was opened: two that were opened apart do not share memory.
    #[cfg(feature = "cuda")]
    Cuda(Cuda),
}

/// The kinds of devices, whose kernels differ by rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceKind {
    /// [`Device::Cpu`].
    Cpu,
    /// NVIDIA GPUs.
    Cuda,
}

impl DeviceKind {
    /// `cpu` or `cuda`.
    pub fn name(self) -> &'static str {
        match self {
            DeviceKind::Cpu => "cpu",
            DeviceKind::Cuda => "cuda",
        }
    }
}

/// Which algorithms of libraries a GPU may use. Own kernels, and all of the processor's, are deterministic in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Algorithms {
    /// Those that give the same bits for the same shapes.
    #[default]
    Deterministic,
    /// All: some add up in an order that changes from run to run, and may be faster.
    Any,
}

impl Device {
    /// Reads `cpu`, or opens `cuda` (the first GPU) or `cuda:N`.
    ///
    /// # Errors
    /// [`Error::NotBuilt`] for a GPU without the feature `cuda`, [`Error::NoDevice`] where there is none, [`Error::UnknownDevice`] for
    /// anything else.
    ///
    /// ```
    /// use landscape_kernels::Device;
    /// assert_eq!(Device::parse("cpu")?, Device::Cpu);
    /// assert!(Device::parse("tpu").is_err());
    /// # Ok::<(), landscape_kernels::Error>(())
    /// ```
    pub fn parse(name: &str) -> Result<Self> {
        let mut devices = Self::parse_list(name)?;
        match devices.len() {
            1 => Ok(devices.swap_remove(0)),
            _ => Err(Error::SeveralDevices(name.to_owned())),
        }
    }

    /// Reads `cpu`, or opens `cuda:N,M,…`: one worker for each.
    ///
    /// # Errors
    /// As [`Device::parse`].
    pub fn parse_list(name: &str) -> Result<Vec<Self>> {
        Self::parse_list_for(name, Algorithms::Deterministic)
    }

    /// [`Device::parse_list`], with a say in the algorithms of GPUs.
    ///
    /// # Errors
    /// As [`Device::parse`].
    pub fn parse_list_for(name: &str, algorithms: Algorithms) -> Result<Vec<Self>> {
        let Some(ordinals) = ordinals(name)? else { return Ok(vec![Device::Cpu]) };
        #[cfg(feature = "cuda")]
        return ordinals.into_iter().map(|ordinal| Cuda::open_for(ordinal.into(), algorithms).map(Device::Cuda)).collect();
        #[cfg(not(feature = "cuda"))]
        {
            // Without GPUs there is nothing to choose.
            let _ = (ordinals, algorithms);
            Err(Error::NotBuilt(name.to_owned()))
        }
    }

    /// What [`Device::parse_list`] would open, by the name alone.
    ///
    /// # Errors
    /// [`Error::NotBuilt`] and [`Error::UnknownDevice`], as [`Device::parse`].
    ///
    /// ```
    /// use landscape_kernels::{Device, DeviceKind};
    /// assert_eq!(Device::kind_of_list("cpu")?, DeviceKind::Cpu);
    /// assert!(Device::kind_of_list("cuda:1,1").is_err());
    /// # Ok::<(), landscape_kernels::Error>(())
    /// ```
    pub fn kind_of_list(name: &str) -> Result<DeviceKind> {
        match ordinals(name)? {
            None => Ok(DeviceKind::Cpu),
            Some(_) if cfg!(feature = "cuda") => Ok(DeviceKind::Cuda),
            Some(_) => Err(Error::NotBuilt(name.to_owned())),
        }
    }
}

/// The numbers of the GPUs that a list names; nothing for the processor.
fn ordinals(name: &str) -> Result<Option<Vec<u16>>> {
    if name == "cpu" {
        return Ok(None);
    }
    let unknown = || Error::UnknownDevice(name.to_owned());
    let ordinals: Vec<u16> = match name.strip_prefix("cuda").ok_or_else(unknown)? {
        "" => vec![0],
        rest => {
            let list = rest.strip_prefix(':').ok_or_else(unknown)?;
            list.split(',').map(|i| i.parse().map_err(|_| unknown())).collect::<Result<_>>()?
        }
    };
    if (1..ordinals.len()).any(|i| ordinals[..i].contains(&ordinals[i])) {
        return Err(unknown());
    }
    Ok(Some(ordinals))
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            #[cfg(feature = "cuda")]
            Device::Cuda(cuda) => write!(f, "cuda:{}", cuda.ordinal()),
        }
    }
}

/// An owned run of numbers on one device.
#[derive(Debug, Clone)]
pub enum Memory<T> {
    /// In the memory of the processor.
    Host(Vec<T>),
    /// On an accelerator.
    Device(DeviceMemory<T>),
}

impl<T: Element> Memory<T> {
    /// `len` zeros on `device`. Where an accelerator has no room for them, the first op that they are handed to says so.
    pub fn zeros(device: &Device, len: usize) -> Self {
        match device {
            Device::Cpu => Memory::Host(vec![T::default(); len]),
            #[cfg(feature = "cuda")]
            Device::Cuda(cuda) => Memory::Device(DeviceMemory::zeros(cuda, len)),
        }
    }

    /// Numbers of the host, moved to `device`; a failure shows as with [`Memory::zeros`].
    pub fn from_host(device: &Device, values: Vec<T>) -> Self {
        match device {
            Device::Cpu => Memory::Host(values),
            #[cfg(feature = "cuda")]
            Device::Cuda(cuda) => Memory::Device(DeviceMemory::from_host(cuda, &values)),
        }
    }

    /// A copy on the host.
    ///
    /// # Errors
    /// [`Error::Device`] if the accelerator failed, now or in work that it was given before.
    pub fn to_host(&self) -> Result<Vec<T>> {
        Ok(self.view().read()?.into_owned())
    }

    /// Where the numbers are.
    pub fn device(&self) -> Device {
        match self {
            Memory::Host(_) => Device::Cpu,
            Memory::Device(memory) => memory.device(),
        }
    }

    /// How many numbers there are.
    pub fn len(&self) -> usize {
        match self {
            Memory::Host(values) => values.len(),
            Memory::Device(memory) => memory.len(),
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
            Memory::Device(memory) => View::Device(memory.view()),
        }
    }

    /// All of it, to write.
    pub fn view_mut(&mut self) -> ViewMut<'_, T> {
        match self {
            Memory::Host(values) => ViewMut::Host(values),
            Memory::Device(memory) => ViewMut::Device(memory.view_mut()),
        }
    }
}

/// A run of numbers to read.
#[derive(Debug, Clone, Copy)]
pub enum View<'a, T> {
    /// In the memory of the processor.
    Host(&'a [T]),
    /// On an accelerator.
    Device(DeviceView<'a, T>),
}

impl<'a, T: Element> View<'a, T> {
    /// The numbers, which stand on the host: ops ask where they are before.
    ///
    /// # Panics
    /// If they are on an accelerator; [`View::read`] brings them from there.
    pub fn host(self) -> &'a [T] {
        match self {
            View::Host(values) => values,
            View::Device(view) => view.not_on_host(),
        }
    }

    /// The numbers: as they stand, or a copy where they are on an accelerator, which then has finished all it was given.
    ///
    /// # Errors
    /// [`Error::Device`] if the accelerator failed.
    pub fn read(self) -> Result<Cow<'a, [T]>> {
        match self {
            View::Host(values) => Ok(Cow::Borrowed(values)),
            View::Device(view) => Ok(Cow::Owned(view.to_host()?)),
        }
    }

    /// A part of it.
    ///
    /// # Panics
    /// If `range` reaches past the end.
    pub fn slice(self, range: Range<usize>) -> View<'a, T> {
        match self {
            View::Host(values) => View::Host(&values[range]),
            View::Device(view) => View::Device(view.slice(range)),
        }
    }

    /// How many numbers there are.
    pub fn len(self) -> usize {
        match self {
            View::Host(values) => values.len(),
            View::Device(view) => view.len(),
        }
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
    Device(DeviceViewMut<'a, T>),
}

impl<'a, T: Element> ViewMut<'a, T> {
    /// The numbers, which stand on the host: ops ask where they are before.
    ///
    /// # Panics
    /// If they are on an accelerator.
    pub fn host(self) -> &'a mut [T] {
        match self {
            ViewMut::Host(values) => values,
            ViewMut::Device(view) => view.view().not_on_host(),
        }
    }

    /// The same run for a shorter time.
    pub fn reborrow(&mut self) -> ViewMut<'_, T> {
        match self {
            ViewMut::Host(values) => ViewMut::Host(values),
            ViewMut::Device(view) => ViewMut::Device(view.reborrow()),
        }
    }

    /// A part of it.
    ///
    /// # Panics
    /// If `range` reaches past the end.
    pub fn slice(self, range: Range<usize>) -> ViewMut<'a, T> {
        match self {
            ViewMut::Host(values) => ViewMut::Host(&mut values[range]),
            ViewMut::Device(view) => ViewMut::Device(view.slice(range)),
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
            ViewMut::Device(view) => {
                let (left, right) = view.split_at(mid);
                (ViewMut::Device(left), ViewMut::Device(right))
            }
        }
    }

    /// The same run, to read.
    pub fn view(&self) -> View<'_, T> {
        match self {
            ViewMut::Host(values) => View::Host(values),
            ViewMut::Device(view) => View::Device(view.view()),
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

    /// Copies `source`, which must be as long, from wherever it is. A copy to the host waits for the accelerator; the others do not.
    ///
    /// # Errors
    /// [`Error::Length`] if it is longer or shorter, [`Error::Device`] if an accelerator failed.
    pub fn copy_from(self, source: View<'_, T>) -> Result<()> {
        check_len("copy", "source", self.len(), source.len())?;
        match (self, source) {
            (ViewMut::Host(target), View::Host(source)) => target.copy_from_slice(source),
            (ViewMut::Host(target), View::Device(source)) => source.copy_to_host(target)?,
            (ViewMut::Device(target), View::Host(source)) => target.copy_from_host(source)?,
            (ViewMut::Device(target), View::Device(source)) => target.copy_from(source)?,
        }
        Ok(())
    }
}

impl<T: Element> ViewMut<'_, T> {
    /// Sets every number to `value`.
    ///
    /// # Errors
    /// [`Error::Device`] if an accelerator failed.
    pub fn fill(self, value: T) -> Result<()> {
        match self {
            ViewMut::Host(target) => {
                target.fill(value);
                Ok(())
            }
            ViewMut::Device(target) => target.fill(value),
        }
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
