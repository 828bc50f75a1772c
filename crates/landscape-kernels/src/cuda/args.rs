//! What a kernel is handed.

use crate::memory::{Accumulate, View, ViewMut};
use cudarc::driver::{DeviceRepr, LaunchArgs, PushKernelArg, sys};

/// A parameter of a kernel: a view goes as its pointer (null where it is not given), a `usize` as 64 bits, [`Accumulate`] as 0 or 1 in 32.
pub(crate) trait Argument {
    /// Adds it to the parameters; it must stay where it is until the launch.
    fn push<'b>(&'b self, args: &mut LaunchArgs<'b>);
}

/// The parameter of a view that is not given.
static NULL: sys::CUdeviceptr = 0;

impl<T> Argument for View<'_, T> {
    fn push<'b>(&'b self, args: &mut LaunchArgs<'b>) {
        match self {
            View::Host(_) => unreachable!("operands of a launch are on the device: `on_device!` saw to it"),
            View::Device(view) => args.arg(view.pointer()),
        };
    }
}

impl<T> Argument for ViewMut<'_, T> {
    fn push<'b>(&'b self, args: &mut LaunchArgs<'b>) {
        match self {
            ViewMut::Host(_) => unreachable!("operands of a launch are on the device: `on_device!` saw to it"),
            ViewMut::Device(view) => args.arg(view.pointer()),
        };
    }
}

impl<A: Argument> Argument for Option<A> {
    fn push<'b>(&'b self, args: &mut LaunchArgs<'b>) {
        match self {
            Some(argument) => argument.push(args),
            None => {
                args.arg(&NULL);
            }
        }
    }
}

impl Argument for Accumulate {
    fn push<'b>(&'b self, args: &mut LaunchArgs<'b>) {
        let value: &'static u32 = match self {
            Accumulate::Overwrite => &0,
            Accumulate::Add => &1,
        };
        args.arg(value);
    }
}

/// A plain value, or a `#[repr(C)]` table that goes by value.
#[derive(Clone, Copy)]
pub(crate) struct Plain<T>(pub T);

impl<T: DeviceRepr> Argument for Plain<T> {
    fn push<'b>(&'b self, args: &mut LaunchArgs<'b>) {
        args.arg(&self.0);
    }
}

macro_rules! plain {
    ($($t:ty),+) => {
        $(impl Argument for $t {
            fn push<'b>(&'b self, args: &mut LaunchArgs<'b>) {
                args.arg(self);
            }
        })+
    };
}
plain!(u32, i32, u64, usize, f32, f64);
