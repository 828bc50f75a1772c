//! Launches of the optimiser steps for GPUs; lengths and hyper-parameters were checked.

use super::adam::AdamRule;
use super::sgd::{Nesterov, Sgd};
use crate::blend::cuda::{BLOCK_BYTES, pointer, pointer_mut};
use crate::cuda::args::{Argument, Plain};
use crate::cuda::{Cuda, Grid, Source, source};
use crate::error::{Result, check_len};
use crate::memory::{Real, View, ViewMut};
use cudarc::driver::DeviceRepr;

pub(crate) const KERNELS: Source = source!("step/kernels");

const N_POINTERS: usize = 5;
const MAX_PIECES: usize = 128;

/// What one launch works on, as `step/kernels.cu` declares it: pieces of memory, each with the pointers of gradient, point, row and two memories.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct StepTable {
    pointer: [u64; MAX_PIECES * N_POINTERS],
    len: [i64; MAX_PIECES],
    first_block: [u32; MAX_PIECES + 1],
    n_pieces: u32,
}

// SAFETY: plain numbers in C's layout, as the kernel declares them.
unsafe impl DeviceRepr for StepTable {}

impl StepTable {
    /// No pieces yet.
    pub fn new() -> Self {
        StepTable { pointer: [0; MAX_PIECES * N_POINTERS], len: [0; MAX_PIECES], first_block: [0; MAX_PIECES + 1], n_pieces: 0 }
    }

    /// Adds a piece; null where there is no point or memory. Says whether there was room.
    pub fn push(&mut self, pointers: [u64; N_POINTERS], len: usize, scalar_bytes: usize) -> bool {
        let piece = self.n_pieces as usize;
        if piece == MAX_PIECES {
            return false;
        }
        self.pointer[piece * N_POINTERS..][..N_POINTERS].copy_from_slice(&pointers);
        self.len[piece] = len as i64;
        self.first_block[piece + 1] = self.first_block[piece] + (len * scalar_bytes).div_ceil(BLOCK_BYTES) as u32;
        self.n_pieces += 1;
        true
    }

    /// The blocks that the launch needs, of 256 threads.
    pub fn n_blocks(&self) -> usize {
        self.first_block[self.n_pieces as usize] as usize
    }
}

/// The gradient of a row, with the pointers of gradient and point.
pub(super) struct Gradient {
    rule: GradientRule,
    pointers: [u64; 2],
}

#[repr(C)]
#[derive(Clone, Copy)]
struct GradientRule {
    c: f64,
    decay: f64,
    spread: i32,
}

impl Gradient {
    /// This one.
    pub fn plain<T: Real>(gradient: View<'_, T>) -> Self {
        Gradient { rule: GradientRule { c: 1.0, decay: 0.0, spread: 0 }, pointers: [*pointer(&gradient), 0] }
    }

    /// c·g, or c·(g + decay·w) where there is a point, for a row of `n` elements.
    pub fn spread<T: Real>(op: &'static str, c: f64, g: View<'_, T>, point: Option<(View<'_, T>, f64)>, n: usize) -> Result<Self> {
        check_len(op, "gradient", n, g.len())?;
        if let Some((point, _)) = point {
            check_len(op, "point", n, point.len())?;
        }
        let (w, decay) = point.map_or((0, 0.0), |(w, decay)| (*pointer(&w), decay));
        Ok(Gradient { rule: GradientRule { c, decay, spread: 1 }, pointers: [*pointer(&g), w] })
    }
}

/// What SGD needs besides the table, as the kernel declares it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct SgdNumbers {
    gradient: GradientRule,
    lr: f64,
    momentum: f64,
    keep: f64,
    weight_decay: f64,
    nesterov: i32,
    first: i32,
}

// SAFETY: plain numbers in C's layout, as the kernel declares them.
unsafe impl DeviceRepr for SgdNumbers {}

/// What Adam needs besides the table, as the kernel declares it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct AdamNumbers {
    gradient: GradientRule,
    coupled_decay: f64,
    shrink: f64,
    beta1: f64,
    one_minus_beta1: f64,
    beta2: f64,
    one_minus_beta2: f64,
    step_size: f64,
    root_of_correction: f64,
    eps: f64,
}

// SAFETY: plain numbers in C's layout, as the kernel declares them.
unsafe impl DeviceRepr for AdamNumbers {}

impl SgdNumbers {
    fn new(sgd: &Sgd, n_steps_before: u64, gradient: GradientRule) -> Self {
        SgdNumbers {
            gradient,
            lr: sgd.lr,
            momentum: sgd.momentum,
            keep: 1.0 - sgd.dampening,
            weight_decay: sgd.weight_decay,
            nesterov: i32::from(sgd.nesterov == Nesterov::On),
            first: i32::from(n_steps_before == 0),
        }
    }

    /// Those of a step whose gradient is c·(g + decay·w), after a check of their ranges.
    #[cfg(feature = "candle-cuda")]
    pub fn spread(sgd: &Sgd, n_steps_before: u64, c: f64, decay: Option<f64>) -> Result<Self> {
        super::sgd::check_sgd::<f32>("sgd_step", sgd, 0, Some(&ViewMut::Host(&mut [])))?;
        Ok(Self::new(sgd, n_steps_before, GradientRule { c, decay: decay.unwrap_or(0.0), spread: 1 }))
    }
}

impl AdamNumbers {
    fn new(rule: &AdamRule<f64>, gradient: GradientRule) -> Self {
        let &AdamRule { coupled_decay, shrink, beta1, one_minus_beta1, beta2, one_minus_beta2, step_size, root_of_correction, eps } = rule;
        AdamNumbers { gradient, coupled_decay, shrink, beta1, one_minus_beta1, beta2, one_minus_beta2, step_size, root_of_correction, eps }
    }

    /// Those of a step whose gradient is c·(g + decay·w), after a check of their ranges.
    #[cfg(feature = "candle-cuda")]
    pub fn spread(adam: &super::Adam, step_idx: u64, c: f64, decay: Option<f64>) -> Result<Self> {
        super::adam::check_adam("adam_step", adam, step_idx, 0, [0, 0])?;
        Ok(Self::new(&AdamRule::new(adam, step_idx), GradientRule { c, decay: decay.unwrap_or(0.0), spread: 1 }))
    }
}

pub(super) fn sgd<T: Real>(
    cuda: &Cuda,
    sgd: &Sgd,
    n_steps_before: u64,
    gradient: Gradient,
    mut theta: ViewMut<'_, T>,
    mut velocity: Option<ViewMut<'_, T>>,
) -> Result<()> {
    let numbers = SgdNumbers::new(sgd, n_steps_before, gradient.rule);
    // Without momentum a velocity is neither read nor written.
    let velocity = velocity.as_mut().filter(|_| sgd.momentum != 0.0).map_or(0, |velocity| *pointer_mut(velocity));
    let n = theta.len();
    run::<T>(cuda, "sgd", gradient.pointers, [*pointer_mut(&mut theta), velocity, 0], n, &Plain(numbers))
}

pub(super) fn adam<T: Real>(
    cuda: &Cuda,
    rule: &AdamRule<f64>,
    gradient: Gradient,
    mut theta: ViewMut<'_, T>,
    mut m: ViewMut<'_, T>,
    mut v: ViewMut<'_, T>,
) -> Result<()> {
    let numbers = AdamNumbers::new(rule, gradient.rule);
    let n = theta.len();
    let rows = [*pointer_mut(&mut theta), *pointer_mut(&mut m), *pointer_mut(&mut v)];
    run::<T>(cuda, "adam", gradient.pointers, rows, n, &Plain(numbers))
}

fn run<T: Real>(
    cuda: &Cuda,
    function: &'static str,
    [g, w]: [u64; 2],
    [theta, first, second]: [u64; 3],
    n: usize,
    numbers: &dyn Argument,
) -> Result<()> {
    let mut table = StepTable::new();
    table.push([g, w, theta, first, second], n, size_of::<T>());
    cuda.launch(&KERNELS, function, T::NAME, Grid::blocks(table.n_blocks(), Grid::THREADS), &[&Plain(table), numbers])
}
