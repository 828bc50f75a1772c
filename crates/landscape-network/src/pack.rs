//! Weights as each op wants them: convolutions, and linear layers whose weight lies transposed, read a packed copy, made when a pass needs it after the weights have changed.
//!
//! For an evaluation by stored statistics the copy holds the batch norms that follow: with s_c = γ_c/√(σ²_c + ε) the weights of output
//! channel c are w·s_c and its bias is β_c + (b_c − μ_c)·s_c, computed in double precision and rounded once.

use crate::attributes::{conv2d_shape, transposed_shape, transposed_weight};
use crate::error::Result;
use crate::fuse::{FusedStep, Work};
use crate::norm::Norms;
use crate::step::{Program, Step};
use landscape_core::{Flat, ParamLayout};
use landscape_graph::Op;
use landscape_kernels::conv2d::{self, Conv2dShape};
use landscape_kernels::{Accumulate, Device, Memory, Real, View, ViewMut, shape};
use std::ops::Range;
use std::sync::Arc;

/// The packed weights of all layers that have one.
#[derive(Debug, Clone)]
pub(crate) struct Packed<T> {
    memory: Memory<T>,
    ranges: Vec<Option<Range<usize>>>,
    longest: usize,
}

impl<T: Real> Packed<T> {
    /// Room for the layers of a program.
    pub fn new(program: &Program, device: &Device) -> Self {
        let (mut len, mut longest) = (0, 0);
        let ranges = program.steps.iter().map(|step| {
            let weight_len = packing(program, step)?.len();
            longest = longest.max(weight_len);
            len += weight_len;
            Some(len - weight_len..len)
        });
        let ranges = ranges.collect();
        Packed { memory: Memory::zeros(device, len), ranges, longest }
    }

    /// The packed weight of one convolution.
    pub fn view(&self, node: usize) -> View<'_, T> {
        self.memory.view().slice(self.ranges[node].clone().expect("only convolutions ask for packed weights"))
    }

    /// The length of the longest one.
    pub fn longest(&self) -> usize {
        self.longest
    }
}

/// How the weight of a step lies in its packed copy.
enum Packing {
    /// As convolutions want it.
    Conv(Conv2dShape),
    /// These rows and columns, which in the file are columns and rows.
    Transposed([usize; 2]),
}

impl Packing {
    fn len(&self) -> usize {
        match self {
            Packing::Conv(shape) => shape.weight_len(),
            Packing::Transposed([rows, columns]) => rows * columns,
        }
    }

    fn pack<T: Real>(&self, weight: View<'_, T>, packed: ViewMut<'_, T>) -> Result<()> {
        match self {
            Packing::Conv(shape) => conv2d::pack_weight(shape, weight, packed)?,
            Packing::Transposed([rows, columns]) => shape::permute(&[*columns, *rows], &[1, 0], weight, packed, Accumulate::Overwrite)?,
        }
        Ok(())
    }
}

/// How a step packs its weight, if it does.
fn packing(program: &Program, step: &Step) -> Option<Packing> {
    let conv = conv2d_shape(program, step, 1).or_else(|| transposed_shape(program, step, 1)).map(Packing::Conv);
    conv.or_else(|| transposed_weight(step).map(Packing::Transposed))
}

/// What the packed copies hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// The weights of an earlier point, or batch norms of earlier statistics.
    Stale,
    /// The weights.
    Plain,
    /// The weights with batch norms.
    Folded,
}

/// The point a network stands at: the flat vector, and the packed copies.
#[derive(Debug, Clone)]
pub(crate) struct Weights<T> {
    /// In checkpoint order.
    pub flat: Flat<T>,
    packed: Packed<T>,
    form: Form,
    /// The bias of each convolution with its batch norm, one after the other.
    folded_bias: Memory<T>,
    /// Where that of each node stands.
    bias_ranges: Vec<Range<usize>>,
    /// The numbers of each node that is a constant.
    constants: Vec<Option<Memory<T>>>,
}

impl<T: Real> Weights<T> {
    /// The origin.
    pub fn new(program: &Program, layout: &Arc<ParamLayout>, device: &Device) -> Self {
        let mut len = 0;
        let bias_ranges = program.steps.iter().map(|step| {
            let channels = if matches!(step.op, Op::Conv2d { .. }) { step.shape[0] } else { 0 };
            len += channels;
            len - channels..len
        });
        let bias_ranges = bias_ranges.collect();
        let constants = program.steps.iter().map(|step| match &step.op {
            Op::Constant { values, .. } => Some(Memory::from_host(device, values.iter().map(|&v| T::from_f64(v)).collect())),
            _ => None,
        });
        let constants = constants.collect();
        Weights {
            constants,
            flat: Flat::zeros(layout, device),
            packed: Packed::new(program, device),
            form: Form::Stale,
            folded_bias: Memory::zeros(device, len),
            bias_ranges,
        }
    }

    /// Bytes that all of it takes.
    pub fn size_bytes(&self) -> usize {
        let constants = self.constants.iter().flatten().map(Memory::len).sum::<usize>();
        (self.flat.view().len() + self.packed.memory.len() + self.folded_bias.len() + constants) * size_of::<T>()
    }

    /// The weights have changed.
    pub fn moved(&mut self) {
        self.form = Form::Stale;
    }

    /// The stored statistics have changed.
    pub fn statistics_changed(&mut self) {
        if self.form == Form::Folded {
            self.form = Form::Stale;
        }
    }

    /// Brings the packed copies to what `steps` run on; `scratch` is as long as the longest weight of a convolution.
    pub fn prepare(&mut self, program: &Program, steps: &[FusedStep], norms: &Norms<T>, scratch: &mut Memory<T>) -> Result<()> {
        let folds = steps.iter().any(|step| matches!(step.work, Work::Folded { .. }));
        let form = if folds { Form::Folded } else { Form::Plain };
        if self.form == form {
            return Ok(());
        }
        self.form = Form::Stale;
        let Weights { flat, packed: Packed { memory, ranges, .. }, folded_bias, bias_ranges, .. } = self;
        for fused in steps {
            let step = &program.steps[fused.node];
            let (Some(packing), Some(range)) = (packing(program, step), ranges[fused.node].clone()) else {
                continue;
            };
            let of_step = |range: &Option<Range<usize>>| range.clone().map(|range| flat.view().slice(range));
            let weight = of_step(&step.weight).expect("what is packed has a weight");
            let packed = memory.view_mut().slice(range);
            let Work::Folded { norm } = fused.work else {
                packing.pack(weight, packed)?;
                continue;
            };
            let mut scaled = scratch.view_mut().slice(0..weight.len());
            let bias = folded_bias.view_mut().slice(bias_ranges[fused.node].clone()).host();
            fold(weight, of_step(&step.bias), norms.stored_affine(program, norm, flat), scaled.reborrow(), bias);
            packing.pack(scaled.view(), packed)?;
        }
        self.form = form;
        Ok(())
    }

    /// The packed weight of one convolution.
    pub fn packed(&self, node: usize) -> View<'_, T> {
        self.packed.view(node)
    }

    /// The weight of a linear layer as the kernels want it.
    pub fn of_linear(&self, node: usize, step: &Step) -> View<'_, T> {
        match transposed_weight(step) {
            Some(_) => self.packed.view(node),
            None => self.weight(step).expect("a linear layer has a weight"),
        }
    }

    /// The numbers of a constant.
    pub fn constant(&self, node: usize) -> View<'_, T> {
        self.constants[node].as_ref().expect("only constants ask for their numbers").view()
    }

    /// The bias of a convolution with its batch norm.
    pub fn folded_bias(&self, node: usize) -> View<'_, T> {
        self.folded_bias.view().slice(self.bias_ranges[node].clone())
    }

    /// The length of the longest weight of a convolution.
    pub fn longest_packed(&self) -> usize {
        self.packed.longest()
    }

    /// The weight of a step, if it has one.
    pub fn weight(&self, step: &Step) -> Option<View<'_, T>> {
        step.weight.clone().map(|range| self.flat.view().slice(range))
    }

    /// The bias of a step, if it has one.
    pub fn bias(&self, step: &Step) -> Option<View<'_, T>> {
        step.bias.clone().map(|range| self.flat.view().slice(range))
    }
}

/// Scales the weights of every output channel and moves its bias: (x·w + b)·scale + shift = x·(w·scale) + (b·scale + shift).
fn fold<T: Real>(
    weight: View<'_, T>,
    own: Option<View<'_, T>>,
    affine: impl Iterator<Item = (f64, f64)>,
    scaled: ViewMut<'_, T>,
    bias: &mut [T],
) {
    let fan_in = weight.len() / bias.len();
    let rows = scaled.host().chunks_exact_mut(fan_in).zip(weight.host().chunks_exact(fan_in));
    for (channel, ((scaled, weight), (scale, shift))) in rows.zip(affine).enumerate() {
        scaled.iter_mut().zip(weight).for_each(|(out, w)| *out = T::from_f64(w.to_f64() * scale));
        bias[channel] = T::from_f64(own.map_or(0.0, |own| own.host()[channel].to_f64()) * scale + shift);
    }
}
