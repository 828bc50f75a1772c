//! The executor: a graph run forward and in reverse.

use crate::arena::Arena;
use crate::attributes::{conv2d_shape, transposed_shape};
use crate::backward::Target;
use crate::error::{Error, Result};
use crate::forward::{Run, Way};
use crate::fuse::Work;
use crate::norm::{NormRule, Norms, Report};
use crate::order;
use crate::pack::Weights;
use crate::plan::{Finished, Plan, Plans};
use crate::refresh::Moments;
use crate::segments::Visit;
use crate::staging::Staged;
use crate::step::{Program, Step};
use crate::tap::{Activation, Flow, Taps};
use landscape_core::{Buffers, Coefficients, ControlPoints, Flat, Norm, ParamLayout, Pass, Tell};
use landscape_graph::{Graph, Op};
use landscape_kernels::shape::{self, SliceShape};
use landscape_kernels::{Accumulate, Device, Memory, Precision, Real, View, ViewMut};
use std::sync::Arc;

/// What all executors of one graph share.
#[derive(Debug)]
struct Shared {
    graph: Arc<Graph>,
    layout: Arc<ParamLayout>,
    program: Program,
    plans: Plans,
}

/// Which plan a pass runs by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Plain,
    Evaluation,
    Statistics,
    Training,
}

/// The latest pass that reached the output.
#[derive(Debug, Clone, Copy)]
struct Done {
    mode: Mode,
    n: usize,
    pass: Pass,
    way_back: WayBack,
}

/// Whether a pass can be gone back through: once, because gradients take the place of activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WayBack {
    Open,
    Closed,
}

/// Whether the running statistics belong to the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Statistics {
    Fresh,
    Stale,
}

/// What a forward pass does besides running the nodes.
pub(crate) struct Control<'a, 'b, 't, T> {
    /// The nodes that run; all if there is no list.
    pub needed: Option<&'a [bool]>,
    /// What each batch norm does.
    pub rule: &'a dyn Fn(usize) -> NormRule,
    /// Told of statistics.
    pub report: Report<'a, 'b, T>,
    /// Shown activations.
    pub taps: Option<&'a mut Taps<'t, T>>,
}

/// Runs a graph on batches, forward and in reverse.
///
/// Memory is planned once and used again: after the first step at a batch size, nothing proportional to an activation or a weight
/// is allocated, but for images among several inputs. A pass takes examples in the outside's order (`[n, channels, height, width]`,
/// `[n, features]` or any other), input after input.
///
/// ```
/// use landscape_core::{Flat, Pass};
/// use landscape_graph::{Bias, GraphBuilder};
/// use landscape_kernels::{Accumulate, Device};
/// use landscape_network::Executor;
/// use std::sync::Arc;
///
/// let mut b = GraphBuilder::new([2]);
/// let fc = b.linear("fc", b.input(), 1, Bias::On)?;
/// let mut executor = Executor::<f64>::new(Arc::new(b.finish(fc)?), &Device::Cpu)?;
/// executor.load(&Flat::from_vec(executor.layout(), &Device::Cpu, vec![3.0, 4.0, 5.0])?)?;
/// executor.forward(&[1.0, 10.0], 1, Pass::EVALUATE)?;
/// assert_eq!(executor.output().host(), [48.0]);
/// let mut gradient = Flat::zeros(executor.layout(), &Device::Cpu);
/// executor.backward((&[1.0][..]).into(), &mut gradient, Accumulate::Overwrite)?;
/// assert_eq!(gradient.to_vec(), [1.0, 10.0, 1.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Executor<T> {
    shared: Arc<Shared>,
    device: Device,
    weights: Weights<T>,
    norms: Norms<T>,
    statistics: Statistics,
    arena: Arena<T>,
    done: Option<Done>,
    /// What the activations and gradients of a training pass may take.
    max_activation_bytes: Option<usize>,
    /// The plan for training within that, where it is not the usual one, and the examples that it was made for.
    training: Option<Arc<Plan>>,
    planned_for: usize,
}

impl<T: Real> Executor<T> {
    /// An executor of `graph`, at the origin of weight space and with the statistics of a new network.
    ///
    /// # Errors
    /// None for a graph that was checked.
    pub fn new(graph: Arc<Graph>, device: &Device) -> Result<Self> {
        Self::in_precision(graph, device, Precision::F32)
    }

    /// The same with products computed in `precision`; weights, gradients, statistics and activations stay in `T`.
    ///
    /// # Errors
    /// As [`Executor::new`]; [`landscape_kernels::Error::NoPrecision`] where there are no such kernels.
    pub fn in_precision(graph: Arc<Graph>, device: &Device, precision: Precision) -> Result<Self> {
        precision.check::<T>(device)?;
        // Elsewhere the ops are there one by one.
        let plans = if *device == Device::Cpu { Plans::fused } else { Plans::unfused };
        Self::build(graph, device, precision, plans)
    }

    /// An executor with plans of the caller's.
    #[cfg(test)]
    pub(crate) fn with_plans(graph: Arc<Graph>, device: &Device, plans: fn(&Program) -> Plans) -> Result<Self> {
        Self::build(graph, device, Precision::F32, plans)
    }

    /// Has training passes run in that many segments.
    #[cfg(test)]
    pub(crate) fn train_in_segments(&mut self, n_segments: usize) {
        let Shared { program, plans, .. } = &*self.shared;
        self.training = Some(Arc::new(Plan::in_segments(program, plans.fusion, n_segments)));
    }

    fn build(graph: Arc<Graph>, device: &Device, precision: Precision, plans: fn(&Program) -> Plans) -> Result<Self> {
        let layout = Arc::new(ParamLayout::of_graph(&graph)?);
        let buffers = Buffers::of_graph(&graph)?;
        let program = Program { precision, ..Program::new(&graph, &layout, &buffers) };
        let plans = plans(&program);
        Ok(Executor {
            device: device.clone(),
            weights: Weights::new(&program, &layout, device),
            norms: Norms::new(&program, buffers, device),
            statistics: Statistics::Fresh,
            arena: Arena::new(device),
            done: None,
            max_activation_bytes: None,
            training: None,
            planned_for: 0,
            shared: Arc::new(Shared { graph, layout, program, plans }),
        })
    }

    /// Another executor of the same graph at the same point, with weights, statistics and activations of its own.
    pub fn fork(&self) -> Self {
        Executor {
            shared: self.shared.clone(),
            device: self.device.clone(),
            weights: self.weights.clone(),
            norms: self.norms.clone(),
            statistics: self.statistics,
            arena: Arena::new(&self.device),
            done: None,
            max_activation_bytes: self.max_activation_bytes,
            training: self.training.clone(),
            planned_for: self.planned_for,
        }
    }

    /// Lets the activations and gradients of training passes take at most so many bytes: what does not fit is dropped on the way forward
    /// and computed again on the way back, as little of it as that needs. Outputs, gradients and statistics keep their bits. Without a limit
    /// everything is kept. Scratch memory and weights are not in it.
    ///
    /// # Source
    /// Chen et al. 2016, "Training deep nets with sublinear memory cost"; a network of n equal layers comes down to about √n of them for one
    /// more forward pass.
    pub fn limit_activations(&mut self, max_bytes: Option<usize>) {
        (self.max_activation_bytes, self.training, self.planned_for, self.done) = (max_bytes, None, 0, None);
        // What is there may be larger.
        self.arena = Arena::new(&self.device);
    }

    /// Sees to it that the plan for training passes of `n` examples keeps the limit.
    fn plan_within(&mut self, n: usize) -> Result<()> {
        let Some(max_bytes) = self.max_activation_bytes.filter(|_| n > self.planned_for) else { return Ok(()) };
        let Shared { program, plans, .. } = &*self.shared;
        self.training = None;
        if Arena::<T>::bytes_for(&[&plans.training], n, 0) > max_bytes {
            let plan = Plan::training_within::<T>(program, plans.fusion, n, max_bytes);
            let plan = plan.map_err(|least_bytes| Error::ActivationMemory { n_examples: n, max_bytes, least_bytes })?;
            self.training = Some(Arc::new(plan));
        }
        self.planned_for = n;
        Ok(())
    }

    /// The graph.
    pub fn graph(&self) -> &Arc<Graph> {
        &self.shared.graph
    }

    /// The names and shapes of the parameters.
    pub fn layout(&self) -> &Arc<ParamLayout> {
        &self.shared.layout
    }

    /// Where it runs.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// In what it computes products.
    pub fn precision(&self) -> Precision {
        self.shared.program.precision
    }

    /// The point it stands at.
    pub fn weights(&self) -> &Flat<T> {
        &self.weights.flat
    }

    /// Goes to `point`; statistics become stale if the graph has batch norm.
    ///
    /// # Errors
    /// If the layout is another.
    pub fn load(&mut self, point: &Flat<T>) -> Result<()> {
        self.layout().check_same("the network", point.layout(), "the point")?;
        self.weights.flat.view_mut().copy_from(point.view())?;
        self.moved();
        Ok(())
    }

    /// Goes to Σ_k c_k θ_k; statistics become stale if the graph has batch norm.
    ///
    /// # Errors
    /// If the layout is another, or there are not as many coefficients as points.
    pub fn move_to(&mut self, points: &ControlPoints<T>, c: &Coefficients) -> Result<()> {
        self.layout().check_same("the network", points.layout(), "the control points")?;
        points.blend_into(c, &mut self.weights.flat)?;
        self.moved();
        Ok(())
    }

    fn moved(&mut self) {
        self.statistics = if self.shared.program.norms.is_empty() { Statistics::Fresh } else { Statistics::Stale };
        self.done = None;
        self.weights.moved();
    }

    /// The statistics buffers; after training passes with [`Tell::Later`] those of the last [`Executor::collect`].
    pub fn buffers(&self) -> &Buffers {
        self.norms.buffers()
    }

    /// Replaces the statistics buffers, which belong to the present point from now on.
    ///
    /// # Errors
    /// If their layout is another.
    pub fn set_buffers(&mut self, buffers: &Buffers) -> Result<()> {
        self.buffers().layout().check_same("the network", buffers.layout(), "the buffers")?;
        self.norms_mut().set_buffers(buffers);
        self.statistics = Statistics::Fresh;
        Ok(())
    }

    /// Brings the statistics buffers up to date: on an accelerator training passes with [`Tell::Later`] move them there alone.
    ///
    /// # Errors
    /// If the accelerator failed.
    pub fn collect(&mut self) -> Result<()> {
        self.norms.collect()
    }

    pub(crate) fn program(&self) -> &Program {
        &self.shared.program
    }

    /// Writes refreshed statistics into the buffers.
    ///
    /// # Errors
    /// If the accelerator that they are on failed; the buffers are then as before.
    pub(crate) fn store_statistics<'m>(&mut self, statistics: impl Iterator<Item = (usize, &'m Moments)>, n_batches: usize) -> Result<()> {
        let statistics = statistics.map(|(norm_idx, moments)| Ok((norm_idx, moments.mean.view().read()?, moments.var.view().read()?)));
        let statistics = statistics.collect::<Result<Vec<_>>>()?;
        self.weights.statistics_changed();
        for (norm_idx, mean, var) in statistics {
            self.norms.store(norm_idx, &self.shared.program.norms[norm_idx], &mean, &var, n_batches);
        }
        Ok(())
    }

    pub(crate) fn norms_mut(&mut self) -> &mut Norms<T> {
        self.weights.statistics_changed();
        &mut self.norms
    }

    pub(crate) fn mark_fresh(&mut self) {
        self.statistics = Statistics::Fresh;
    }

    /// Bytes that activations, gradients and scratch memory take at present; weights apart.
    pub fn memory_bytes(&self) -> usize {
        self.arena.size_bytes()
    }

    /// Bytes that a fork of it takes to refresh and evaluate with batches of `n` examples: weights, activations and scratch memory.
    pub fn evaluation_bytes(&self, n: usize) -> usize {
        let plans = [Mode::Evaluation, Mode::Statistics].map(|mode| self.shared.plan(mode));
        let scratch_len = plans.iter().map(|plan| scratch_len(&self.shared.program, plan, &self.device, n)).max().unwrap_or(0);
        let scratch_len = scratch_len.saturating_add(self.weights.longest_packed());
        self.weights.size_bytes().saturating_add(Arena::<T>::bytes_for(&plans, n, scratch_len))
    }

    /// Runs `n` examples and keeps what [`Executor::backward`] needs.
    ///
    /// With [`Norm::Batch`] the running statistics are updated. With a dropout seed the mask of a node is a function of the seed, the
    /// node's name and the position in the batch.
    ///
    /// # Shapes
    /// `inputs` `[n, channels, height, width]`, `[n, features]` or any other, row-major, on the host; of a graph with several inputs
    /// those of the first example, one after the other, then those of the second.
    ///
    /// # Errors
    /// [`Error::EmptyBatch`], [`Error::InputLength`], [`Error::SingleValue`];
    /// [`landscape_core::Error::StaleStatistics`] with stored statistics after a move and before they were set or refreshed.
    pub fn forward(&mut self, inputs: &[T], n: usize, pass: Pass) -> Result<()> {
        self.pass(Mode::Training, inputs, n, pass, None)?;
        Ok(())
    }

    /// Runs `n` examples for their output alone, in less memory than [`Executor::forward`].
    ///
    /// # Errors
    /// As [`Executor::forward`].
    pub fn evaluate(&mut self, inputs: &[T], n: usize, pass: Pass) -> Result<()> {
        let mode = if pass.norm == Norm::Stored { Mode::Evaluation } else { Mode::Statistics };
        self.pass(mode, inputs, n, pass, None)?;
        Ok(())
    }

    /// [`Executor::evaluate`] with taps: they see activations, may change them, and may stop the pass. Says whether the output was reached.
    ///
    /// # Errors
    /// As [`Executor::forward`]; [`Error::NoSuchNode`] for a tap at a node that is not there; those of the taps.
    pub fn evaluate_with(&mut self, inputs: &[T], n: usize, pass: Pass, taps: &mut Taps<'_, T>) -> Result<Flow> {
        if let Some(node) = taps.nodes().find(|node| self.shared.graph.find(node).is_none()) {
            return Err(Error::NoSuchNode { node: node.to_owned() });
        }
        self.pass(Mode::Plain, inputs, n, pass, Some(taps))
    }

    fn pass(&mut self, mode: Mode, inputs: &[T], n: usize, pass: Pass, taps: Option<&mut Taps<'_, T>>) -> Result<Flow> {
        if pass.norm == Norm::Stored && self.statistics == Statistics::Stale {
            return Err(landscape_core::Error::StaleStatistics.into());
        }
        let rule = NormRule::of(pass.norm);
        let control = Control { needed: None, rule: &|_| rule, report: &mut |_| {}, taps };
        let flow = self.run(mode, inputs, n, pass.dropout_seed, control)?;
        if pass.tell == Tell::AtOnce {
            self.norms.collect()?;
        }
        if flow == Flow::Continue {
            let way_back = if mode == Mode::Training { WayBack::Open } else { WayBack::Closed };
            self.done = Some(Done { mode, n, pass, way_back });
        }
        Ok(flow)
    }

    /// Runs nodes without keeping anything for the way back, under full control.
    pub(crate) fn run_controlled(&mut self, inputs: &[T], n: usize, control: Control<'_, '_, '_, T>) -> Result<()> {
        self.run(Mode::Statistics, inputs, n, None, control)?;
        Ok(())
    }

    fn run(&mut self, mode: Mode, inputs: &[T], n: usize, dropout_seed: Option<u64>, mut control: Control<'_, '_, '_, T>) -> Result<Flow> {
        self.check_inputs(inputs, n)?;
        self.done = None;
        let shared = self.shared.clone();
        let program = &shared.program;
        if mode == Mode::Training {
            self.plan_within(n)?;
        }
        let training = self.training.clone();
        let plan = training.as_deref().filter(|_| mode == Mode::Training).unwrap_or(shared.plan(mode));
        let scratch_len = scratch_len(program, plan, &self.device, n);
        self.arena.grow(plan, n, scratch_len);
        self.arena.grow_packed_gradient(self.weights.longest_packed());
        self.weights.prepare(program, &plan.steps, &self.norms, &mut self.arena.packed_gradient)?;
        if control.taps.is_none() && mode == Mode::Training {
            // Running statistics move.
            self.weights.statistics_changed();
        }
        let run = Run { program, plan, weights: &self.weights, n, dropout_seed, way: Way::Forward };
        for (idx, fused) in plan.steps.iter().enumerate() {
            if control.needed.is_some_and(|needed| !needed[fused.node]) {
                continue;
            }
            if matches!(program.steps[fused.node].op, Op::Input { .. }) {
                stage(&run, fused.node, inputs, &self.device, &mut self.arena)?;
            } else {
                run.forward(idx, &mut self.norms, control.rule, control.report, control.needed, &mut self.arena)?;
            }
            let step = &program.steps[fused.out];
            if let Some(taps) = control.taps.as_mut().filter(|taps| taps.has(&step.name)) {
                let slot = plan.activation[fused.out];
                let mut memory = self.arena.slots.take(slot);
                let flow = taps.see(&mut Activation::new(step, n, &mut memory));
                self.arena.slots.put(slot, memory);
                if flow? == Flow::Stop {
                    return Ok(Flow::Stop);
                }
            }
        }
        Ok(Flow::Continue)
    }

    fn check_inputs(&self, inputs: &[T], n: usize) -> Result<()> {
        if n == 0 {
            return Err(Error::EmptyBatch);
        }
        let graph = &self.shared.graph;
        let expected = graph.n_input_elements().saturating_mul(n);
        if inputs.len() != expected {
            let shape = graph.inputs().flat_map(|input| graph.node(input).shape.clone()).collect();
            return Err(Error::InputLength { n_examples: n, shape, expected, got: inputs.len() });
        }
        Ok(())
    }

    /// The first output of the latest pass that reached it, `[n, …]` in the order of its axes; empty before the first.
    pub fn output(&self) -> View<'_, T> {
        self.output_at(0).unwrap_or(View::Host(&[]))
    }

    /// One of the outputs of the latest pass that reached them, in the order of [`Graph::outputs`].
    pub fn output_at(&self, idx: usize) -> Option<View<'_, T>> {
        let Done { mode, n, .. } = self.done?;
        let step = *self.shared.program.outputs.get(idx)?;
        let plan = self.training.as_deref().filter(|_| mode == Mode::Training).unwrap_or(self.shared.plan(mode));
        Some(self.arena.slots.view(plan.activation[step], n * self.shared.program.steps[step].n_elements()))
    }

    /// Goes back through the latest [`Executor::forward`] and writes or adds the gradient of the parameters.
    ///
    /// # Shapes
    /// `doutput` as [`Executor::output`].
    ///
    /// # Errors
    /// [`Error::NoForward`] without such a pass, or when it was gone back through already; a wrong layout or length.
    pub fn backward(&mut self, doutput: View<'_, T>, into: &mut Flat<T>, mode: Accumulate) -> Result<()> {
        self.backward_with(into, mode, |_, gradient| Ok(gradient.copy_from(doutput)?))
    }

    /// [`Executor::backward`], with the gradient of the output written by `seed(output, gradient)` where it is needed.
    pub(crate) fn backward_with<R>(
        &mut self,
        into: &mut Flat<T>,
        mode: Accumulate,
        seed: impl FnOnce(View<'_, T>, ViewMut<'_, T>) -> Result<R>,
    ) -> Result<R> {
        let Some(Done { n, pass, way_back: WayBack::Open, .. }) = self.done else {
            return Err(Error::NoForward);
        };
        self.layout().check_same("the network", into.layout(), "the gradient")?;
        self.done = Some(Done { mode: Mode::Training, n, pass, way_back: WayBack::Closed });
        let shared = self.shared.clone();
        let training = self.training.clone();
        let plan = training.as_deref().unwrap_or(&shared.plans.training);
        let last = shared.program.output();
        if mode == Accumulate::Overwrite {
            // Nothing else writes these.
            shared.program.unwritten.iter().try_for_each(|range| into.view_mut().slice(range.clone()).fill(T::ZERO))?;
        }
        let run = Run { program: &shared.program, plan, weights: &self.weights, n, dropout_seed: pass.dropout_seed, way: Way::Back };
        let Some(slot) = plan.gradient[last] else {
            // Nothing learns: the loss is still wanted.
            let mut memory = Memory::zeros(&self.device, run.len(last));
            return seed(run.activation(&self.arena.slots, last), memory.view_mut());
        };
        let sums_len = |idx: usize| match (plan.steps[idx].work, plan.finished[idx]) {
            (Work::Norm | Work::Lazy, _) | (_, Finished::Summed) => shared.program.steps[plan.steps[idx].node].shape[0],
            _ => 0,
        };
        self.arena.grow_sums((0..plan.steps.len()).map(sums_len));
        let mut memory = self.arena.slots.take(slot);
        let result = seed(run.activation(&self.arena.slots, last), memory.view_mut().slice(0..run.len(last)));
        self.arena.slots.put(slot, memory);
        let result = result?;
        let mut target = Target { into, mode };
        for &visit in &plan.visits {
            match visit {
                Visit::Again(idx) => run.forward_again(idx, &self.norms, &mut self.arena)?,
                Visit::Back(idx) => run.backward(idx, pass.norm, &self.norms, &mut target, &mut self.arena)?,
            }
        }
        Ok(result)
    }
}

impl Shared {
    fn plan(&self, mode: Mode) -> &Plan {
        match mode {
            Mode::Plain => &self.plans.plain,
            Mode::Evaluation => &self.plans.evaluation,
            Mode::Statistics => &self.plans.statistics,
            Mode::Training => &self.plans.training,
        }
    }
}

/// Brings what a batch has for one input to where its readers want it.
fn stage<T: Real>(run: &Run<'_, T>, node: usize, inputs: &[T], device: &Device, arena: &mut Arena<T>) -> Result<()> {
    let (steps, n, slot) = (&run.program.steps, run.n, run.plan.activation[node]);
    let parts = steps.iter().take_while(|step| matches!(step.op, Op::Input { .. })).map(Step::n_elements);
    let (before, total) = (parts.clone().take(node).sum::<usize>(), parts.sum::<usize>());
    let step = &steps[node];
    let len = n * step.n_elements();
    let mut memory = arena.slots.take(slot);
    let y = memory.view_mut().slice(0..len);
    let whole = Staged::on(device, inputs);
    let part = SliceShape { outer: n, axis: total, inner: 1, start: before, step: 1, len: step.n_elements() };
    let is_whole = part.len == total;
    match (step.dims.as_slice(), order::is_row_major(&step.dims, &step.order)) {
        (_, true) if is_whole => y.copy_from(whole.view())?,
        (_, true) => shape::slice_forward(&part, whole.view(), y)?,
        (&[c, h, w], false) if is_whole => shape::nchw_to_nhwc(n, c, h, w, whole.view(), y)?,
        (&[c, h, w], false) => {
            let mut image = Memory::zeros(device, len);
            shape::slice_forward(&part, whole.view(), image.view_mut())?;
            shape::nchw_to_nhwc(n, c, h, w, image.view(), y)?;
        }
        _ => unreachable!("only images come in another order"),
    }
    arena.slots.put(slot, memory);
    Ok(())
}

/// The scratch memory that the neediest step of a plan asks for.
fn scratch_len(program: &Program, plan: &Plan, device: &Device, n: usize) -> usize {
    // Convolutions on accelerators take what they need from the device's pool.
    let of_conv = |len: usize| if *device == Device::Cpu { len } else { 0 };
    let lens = plan.steps.iter().enumerate().map(|(idx, fused)| {
        let step = &program.steps[fused.node];
        let read = |input: usize| n * program.steps[step.inputs[input]].n_elements();
        if let Some(shape) = conv2d_shape(program, step, n) {
            return of_conv(if plan.lazy[step.inputs[0]].is_some() { shape.fused_scratch_len() } else { shape.scratch_len() });
        }
        if let Some(shape) = transposed_shape(program, step, n) {
            // Its input's gradient may be computed aside.
            return of_conv(shape.scratch_len()) + read(0);
        }
        let is_attention = matches!(step.op, Op::Attention { .. }) && plan.learns[fused.out];
        if is_attention && plan.goes_back_aside(idx) { (0..step.inputs.len()).map(read).sum() } else { 0 }
    });
    lens.max().unwrap_or(0)
}
