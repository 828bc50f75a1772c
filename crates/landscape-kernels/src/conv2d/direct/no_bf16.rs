//! The direct kernel in bf16 where no processor has it: operands are rounded first, so nothing here is ever called.

use super::super::rows::Normalizer;
use super::super::shape::Conv2dShape;
use super::geometry::{Border, Geometry};
use super::outputs;
use super::taps::WeightCut;
use super::weights::Weights;
use crate::memory::{Accumulate, Real};
use std::ops::Range;

const NEVER: &str = "pairs are chosen where they are fast";

/// Which numbers are a pair in a copy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pairing {
    Channels,
    Pixels,
}

pub(super) fn paired(_: &Conv2dShape) -> Conv2dShape {
    unreachable!("{NEVER}")
}

pub(super) fn channels(_: &Conv2dShape, _: &Range<usize>) -> Range<usize> {
    unreachable!("{NEVER}")
}

#[expect(clippy::too_many_arguments, reason = "as its twin")]
pub(super) fn fill<T: Real>(
    _: &Geometry,
    _: &Conv2dShape,
    _: &[T],
    _: Option<&Normalizer<T>>,
    _: Range<usize>,
    _: &Range<usize>,
    _: Border,
    _: Pairing,
    _: &mut [f32],
    _: &mut [f32],
) {
    unreachable!("{NEVER}")
}

pub(super) fn reorder(_: &Conv2dShape, _: &[Range<usize>], _: usize, _: Weights<'_, f32>, _: &mut [f32]) {
    unreachable!("{NEVER}")
}

pub(super) fn add_outputs(_: &outputs::Task<'_>, _: &[f32], _: &mut [f32]) {
    unreachable!("{NEVER}")
}

pub(super) fn weight_cut(_: &Conv2dShape, _: &Geometry, _: &Range<usize>) -> WeightCut {
    unreachable!("{NEVER}")
}

pub(super) fn add_gradient(_: &Conv2dShape, _: &WeightCut, _: &[f32], _: &[f32], _: Accumulate, _: &mut [f32], _: &mut [f32]) {
    unreachable!("{NEVER}")
}
