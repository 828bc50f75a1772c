//! Which instruction set runs: loops written once, compiled for AVX-512, AVX2 and the baseline, chosen at run time.
//!
//! The compiler never fuses a product and a sum by itself, so a loop under `multiversion!` gives the same bits on every
//! level; only matrix products and the direct convolution (which fuse) depend on the processor.
//!
//! The level is the one thing here that belongs to the process, like rayon's pool: it is fixed by [`force`] or by the first
//! kernel that asks, and never changes afterwards, so that all of a run's numbers come from one path.

use crate::error::{Error, Result};
use crate::memory::Real;
use std::any::TypeId;
use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

/// The instruction sets that loops are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// 16 single-precision numbers at once, fused multiply-add.
    Avx512,
    /// Eight at once, fused multiply-add.
    Avx2,
    /// What every processor of the target has.
    Portable,
}

impl Level {
    /// Every level, the fastest first.
    pub const ALL: [Level; 3] = [Level::Avx512, Level::Avx2, Level::Portable];

    /// Its name: `avx512`, `avx2` or `portable`.
    pub const fn name(self) -> &'static str {
        match self {
            Level::Avx512 => "avx512",
            Level::Avx2 => "avx2",
            Level::Portable => "portable",
        }
    }

    /// Whether this processor has it.
    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = || is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            match self {
                Level::Avx512 => {
                    avx2()
                        && is_x86_feature_detected!("avx512f")
                        && is_x86_feature_detected!("avx512bw")
                        && is_x86_feature_detected!("avx512dq")
                        && is_x86_feature_detected!("avx512vl")
                }
                Level::Avx2 => avx2(),
                Level::Portable => true,
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            self == Level::Portable
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Level {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Level::ALL.into_iter().find(|level| level.name() == name).ok_or_else(|| Error::UnknownLevel(name.to_owned()))
    }
}

/// The level of this process, once it is fixed.
static FIXED: OnceLock<Level> = OnceLock::new();

/// Fixes the level of this process; for a program, before its first kernel.
///
/// # Errors
/// [`Error::LevelMissing`] if the processor lacks it, [`Error::LevelFixed`] if another one runs already.
///
/// ```standalone_crate
/// use landscape_kernels::simd::{Level, force, level};
/// force(Level::Portable)?;
/// assert_eq!(level(), Level::Portable);
/// assert!(force(Level::Avx2).is_err());
/// # Ok::<(), landscape_kernels::Error>(())
/// ```
pub fn force(wanted: Level) -> Result<()> {
    if !wanted.is_available() {
        return Err(Error::LevelMissing { wanted, best: best() });
    }
    match *FIXED.get_or_init(|| wanted) {
        fixed if fixed == wanted => Ok(()),
        fixed => Err(Error::LevelFixed { wanted, fixed }),
    }
}

/// The level that kernels run at: the forced one, else the best of this processor.
#[inline]
pub fn level() -> Level {
    #[cfg(test)]
    if let Some(level) = tests::OF_THREAD.get() {
        return level;
    }
    *FIXED.get_or_init(best)
}

/// The best level of this processor.
fn best() -> Level {
    Level::ALL.into_iter().find(|level| level.is_available()).unwrap_or(Level::Portable)
}

/// Declares a function over `T: Real` whose body is compiled for every [`Level`] and called at the level of the processor.
///
/// Arguments are plain names; a body for one type alone names its `T` where it is called. The work of one call should be a few hundred elements at least: the choice costs a branch and a call.
macro_rules! multiversion {
    ($(#[$attr:meta])* $vis:vis fn $name:ident<$t:ident>($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$attr])*
        #[allow(clippy::too_many_arguments, clippy::extra_unused_type_parameters)]
        $vis fn $name<$t: $crate::memory::Real>($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments, clippy::extra_unused_type_parameters)]
            fn body<$t: $crate::memory::Real>($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            #[allow(clippy::too_many_arguments, clippy::extra_unused_type_parameters)]
            fn avx512<$t: $crate::memory::Real>($($arg: $ty),*) $(-> $ret)? {
                body::<$t>($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            #[allow(clippy::too_many_arguments, clippy::extra_unused_type_parameters)]
            fn avx2<$t: $crate::memory::Real>($($arg: $ty),*) $(-> $ret)? {
                body::<$t>($($arg),*)
            }
            match $crate::simd::level() {
                // SAFETY: the level says that the processor has these instructions.
                #[cfg(target_arch = "x86_64")]
                $crate::simd::Level::Avx512 => unsafe { avx512::<$t>($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::simd::Level::Avx2 => unsafe { avx2::<$t>($($arg),*) },
                _ => body::<$t>($($arg),*),
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::cell::Cell;

    thread_local! {
        /// What [`level`] says on this thread, where a test wants something else than the processor's best.
        pub static OF_THREAD: Cell<Option<Level>> = const { Cell::new(None) };
    }

    /// A pool whose threads run kernels at `level`.
    pub fn pool_at(level: Level, n_threads: usize) -> rayon::ThreadPool {
        let start = move |_| OF_THREAD.set(Some(level));
        rayon::ThreadPoolBuilder::new().num_threads(n_threads).start_handler(start).build().expect("a pool")
    }

    /// Runs `f` at `level`, on two threads of its own.
    pub fn at_level<R: Send>(level: Level, f: impl FnOnce() -> R + Send) -> R {
        pool_at(level, 2).install(f)
    }

    /// Runs `f` at every level that this processor has.
    pub fn at_every_level(f: impl Fn() + Sync) {
        for level in Level::ALL.into_iter().filter(|level| level.is_available()) {
            at_level(level, &f);
        }
    }

    #[test]
    fn a_test_at_a_level_runs_at_it_on_every_thread() {
        for wanted in Level::ALL {
            let seen = at_level(wanted, || rayon::broadcast(|_| level()));
            assert_eq!(seen, [wanted; 2]);
        }
    }

    #[test]
    fn names_are_read_back() {
        for level in Level::ALL {
            assert_eq!(level.to_string().parse::<Level>().ok(), Some(level));
        }
        let err = "sse9".parse::<Level>().err().map(|e| e.to_string());
        assert_eq!(err.as_deref(), Some("kernels must be `avx512`, `avx2` or `portable`, got `sse9`"));
    }
}
