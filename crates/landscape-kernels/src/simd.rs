//! Which instruction set runs: loops written once, compiled for AVX-512, AVX2 and the baseline, chosen at run time.
//!
//! The compiler never fuses a product and a sum by itself, so a loop under [`multiversion`] gives the same bits on every
//! level; only matrix products and the direct convolution (which fuse) depend on the processor.

use crate::memory::Real;
use std::any::TypeId;

/// The instruction sets that loops are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// 16 single-precision numbers at once, fused multiply-add.
    Avx512,
    /// Eight at once, fused multiply-add.
    Avx2,
    /// What every processor of the target has.
    Portable,
}

/// The best level of this processor; asked once, then remembered by the standard library.
pub(crate) fn level() -> Level {
    #[cfg(target_arch = "x86_64")]
    {
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        let avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        if avx2 && avx512 {
            return Level::Avx512;
        }
        if avx2 {
            return Level::Avx2;
        }
    }
    Level::Portable
}

/// Declares a function over `T: Real` whose body is compiled for every [`Level`] and called at the level of the processor.
///
/// Arguments are plain names. The work of one call should be a few hundred elements at least: the choice costs a branch and a call.
macro_rules! multiversion {
    ($(#[$attr:meta])* $vis:vis fn $name:ident<$t:ident>($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$attr])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name<$t: $crate::memory::Real>($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn body<$t: $crate::memory::Real>($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            #[allow(clippy::too_many_arguments)]
            fn avx512<$t: $crate::memory::Real>($($arg: $ty),*) $(-> $ret)? {
                body($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            #[allow(clippy::too_many_arguments)]
            fn avx2<$t: $crate::memory::Real>($($arg: $ty),*) $(-> $ret)? {
                body($($arg),*)
            }
            match $crate::simd::level() {
                // SAFETY: the level says that the processor has these instructions.
                #[cfg(target_arch = "x86_64")]
                $crate::simd::Level::Avx512 => unsafe { avx512($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::simd::Level::Avx2 => unsafe { avx2($($arg),*) },
                _ => body($($arg),*),
            }
        }
    };
}
pub(crate) use multiversion;

/// The same numbers as `f32`, if that is what they are.
pub(crate) fn as_f32<T: Real>(values: &[T]) -> Option<&[f32]> {
    if TypeId::of::<T>() != TypeId::of::<f32>() {
        return None;
    }
    // SAFETY: `T` is `f32`, so only the name of the type changes.
    Some(unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), values.len()) })
}

/// The same numbers as `f32` to write, if that is what they are.
pub(crate) fn as_f32_mut<T: Real>(values: &mut [T]) -> Option<&mut [f32]> {
    if TypeId::of::<T>() != TypeId::of::<f32>() {
        return None;
    }
    // SAFETY: `T` is `f32`, so only the name of the type changes; the borrow is exclusive and passes on.
    Some(unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), values.len()) })
}
