//! A network's loss on batches of examples, behind the seam that path algorithms know.

use crate::error::{Error, Result};
use crate::executor::Executor;
use crate::kept::KeptTallies;
use crate::refresh;
use crate::staging::Staged;
use landscape_core::{
    Batches, Buffers, Coefficients, ControlPoints, Examples, Flat, Fork, NormRefresh, Objective, Pass, Stateful, Tally, Targets, Tell,
};
use landscape_graph::Graph;
use landscape_kernels::loss::{
    IGNORED, LossSums, add_binary_cross_entropy, add_cross_entropy, add_squared_error, binary_cross_entropy, cross_entropy, squared_error,
};
use landscape_kernels::{Accumulate, Device, Precision, Real, View, ViewMut};
use std::sync::Arc;

/// What is measured between outputs and targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Loss {
    /// Softmax cross-entropy against class labels; the outputs are logits, `[classes]` or, for a label at each place (the next token),
    /// `[places, classes]`. What is counted are labels: a place whose label is [`IGNORED`] counts nothing.
    CrossEntropy,
    /// Squared error against numbers, mean over the outputs of an example (PyTorch's `MSELoss`).
    SquaredError,
    /// Several labels at once: for every output, the cross-entropy of sigmoid(output) against a target from 0 to 1, mean over the outputs of
    /// an example (PyTorch's `BCEWithLogitsLoss`). An example is wrong if any output is.
    BinaryCrossEntropy,
}

impl Loss {
    fn name(self) -> &'static str {
        match self {
            Loss::CrossEntropy => "cross_entropy",
            Loss::SquaredError => "squared_error",
            Loss::BinaryCrossEntropy => "binary_cross_entropy",
        }
    }
}

/// The loss of a network on batches of examples.
///
/// ```
/// use landscape_core::{Examples, Flat, Objective, Pass, Targets};
/// use landscape_graph::{Bias, GraphBuilder};
/// use landscape_kernels::{Accumulate, Device};
/// use landscape_network::{Loss, NetworkObjective};
/// use std::sync::Arc;
///
/// let mut b = GraphBuilder::new([2]);
/// let fc = b.linear("fc", b.input(), 3, Bias::On)?;
/// let mut objective = NetworkObjective::<f64>::new(Arc::new(b.finish(fc)?), &Device::Cpu, Loss::CrossEntropy)?;
/// let batch = Examples { inputs: vec![1.0, 2.0], n_examples: 1, targets: Targets::Classes(vec![2]) };
/// let tally = objective.measure(&batch, Pass::EVALUATE)?; // at the origin all classes are equally likely
/// assert!((tally.nll() - 3.0_f64.ln()).abs() < 1e-12);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct NetworkObjective<T> {
    executor: Executor<T>,
    loss: Loss,
    kept: KeptTallies,
}

impl<T: Real> NetworkObjective<T> {
    /// The loss of `graph`, at the origin of weight space and with the statistics of a new network.
    ///
    /// # Errors
    /// None for a graph that was checked.
    pub fn new(graph: Arc<Graph>, device: &Device, loss: Loss) -> Result<Self> {
        Self::in_precision(graph, device, loss, Precision::F32)
    }

    /// The same with products computed in `precision`.
    ///
    /// # Errors
    /// As [`Executor::in_precision`].
    pub fn in_precision(graph: Arc<Graph>, device: &Device, loss: Loss, precision: Precision) -> Result<Self> {
        Ok(NetworkObjective { kept: KeptTallies::new(device), executor: Executor::in_precision(graph, device, precision)?, loss })
    }

    /// Goes to `point`: a move with one control point.
    ///
    /// # Errors
    /// If its layout is not the network's.
    pub fn set_point(&mut self, point: &Flat<T>) -> Result<()> {
        self.executor.load(point)
    }

    /// Lets the activations and gradients of training passes take at most so many bytes: [`Executor::limit_activations`].
    pub fn limit_activations(&mut self, max_bytes: Option<usize>) {
        self.executor.limit_activations(max_bytes);
    }

    /// What is measured.
    pub fn loss(&self) -> Loss {
        self.loss
    }

    /// The network.
    pub fn executor(&self) -> &Executor<T> {
        &self.executor
    }

    /// The network, to run it with taps or without targets.
    pub fn executor_mut(&mut self) -> &mut Executor<T> {
        &mut self.executor
    }

    /// Fails, before anything runs, on targets that the loss cannot take.
    fn check_targets(&self, batch: &Examples<T>) -> Result<()> {
        let fail = |expected: String, got: String| Err(Error::Targets { loss: self.loss.name(), expected, got });
        let shape = self.executor.graph().output_shape();
        let n_outputs = shape.iter().product::<usize>();
        match (self.loss, &batch.targets) {
            (Loss::CrossEntropy, Targets::Classes(labels)) => {
                let (1 | 2, Some(&n_classes)) = (shape.len(), shape.last()) else {
                    return fail("a network that yields [classes] or [places, classes]".to_owned(), format!("one that yields {shape:?}"));
                };
                let n_labels = batch.n_examples.saturating_mul(n_outputs / n_classes);
                if labels.len() != n_labels {
                    return fail(format!("{n_labels} class labels"), labels.len().to_string());
                }
                match labels.iter().position(|&label| label as usize >= n_classes && label != IGNORED) {
                    Some(row) => {
                        let label = labels[row];
                        Err(landscape_kernels::Error::Label { op: self.loss.name(), row, label, n_classes }.into())
                    }
                    None => Ok(()),
                }
            }
            (Loss::SquaredError | Loss::BinaryCrossEntropy, Targets::Values(values)) => {
                if values.len() != batch.n_examples.saturating_mul(n_outputs) {
                    return fail(format!("{n_outputs} numbers for each of {} examples", batch.n_examples), values.len().to_string());
                }
                let outside = |v: &&T| self.loss == Loss::BinaryCrossEntropy && !(0.0..=1.0).contains(&v.to_f64());
                match values.iter().find(outside) {
                    Some(value) => fail("numbers from 0 to 1".to_owned(), value.to_f64().to_string()),
                    None => Ok(()),
                }
            }
            (Loss::CrossEntropy, Targets::Values(_)) => fail("class labels".to_owned(), "numbers".to_owned()),
            (_, Targets::Classes(_)) => fail("numbers".to_owned(), "class labels".to_owned()),
        }
    }
}

/// What a batch is counted by: its examples, or the labels that are not ignored.
fn n_counted<T>(batch: &Examples<T>) -> usize {
    match &batch.targets {
        Targets::Classes(labels) => labels.iter().filter(|&&label| label != IGNORED).count(),
        Targets::Values(_) => batch.n_examples,
    }
}

/// The loss of outputs, and its gradient if there is a place for it; on a GPU the tally is kept if it need not be told at once.
fn loss_of<T: Real>(
    kept: &mut KeptTallies,
    loss: Loss,
    tell: Tell,
    batch: &Examples<T>,
    outputs: View<'_, T>,
    gradient: Option<ViewMut<'_, T>>,
) -> Result<Tally> {
    let (n, n_outputs, device) = (batch.n_examples, outputs.len() / batch.n_examples, kept.device().clone());
    let later = tell == Tell::Later && device != Device::Cpu;
    let counted = n_counted(batch);
    // A batch of ignored labels alone has no gradient, not an infinite one.
    let gradient = gradient.map(|gradient| (gradient, 1.0 / counted.max(1) as f64));
    let (LossSums { loss_nats_sum, .. }, n_wrong) = match &batch.targets {
        Targets::Classes(labels) => {
            let (n_rows, n_classes) = (labels.len(), outputs.len() / labels.len());
            let labels = Staged::on(&device, labels);
            if later {
                return kept
                    .keep(counted, Some(n_classes), |sums| add_cross_entropy(n_rows, n_classes, outputs, labels.view(), gradient, sums));
            }
            let sums = cross_entropy(n_rows, n_classes, outputs, labels.view(), gradient)?;
            (sums, Some(sums.n_wrong))
        }
        Targets::Values(values) if loss == Loss::BinaryCrossEntropy => {
            let values = Staged::on(&device, values);
            if later {
                return kept
                    .keep(counted, Some(n_outputs), |sums| add_binary_cross_entropy(n, n_outputs, outputs, values.view(), gradient, sums));
            }
            let sums = binary_cross_entropy(n, n_outputs, outputs, values.view(), gradient)?;
            (sums, Some(sums.n_wrong))
        }
        Targets::Values(values) => {
            let values = Staged::on(&device, values);
            if later {
                return kept.keep(counted, None, |sums| add_squared_error(n, n_outputs, outputs, values.view(), gradient, sums));
            }
            (squared_error(n, n_outputs, outputs, values.view(), gradient)?, None)
        }
    };
    Ok(Tally { n_examples: counted as u64, loss_nats_sum, n_wrong })
}

impl<T: Real> Objective for NetworkObjective<T> {
    type Batch = Examples<T>;
    type Scalar = T;

    fn weights(&self) -> &Flat<T> {
        self.executor.weights()
    }

    fn move_to(&mut self, points: &ControlPoints<T>, c: &Coefficients) -> landscape_core::Result<()> {
        Ok(self.executor.move_to(points, c)?)
    }

    fn measure(&mut self, batch: &Examples<T>, pass: Pass) -> landscape_core::Result<Tally> {
        self.check_targets(batch)?;
        self.executor.evaluate(&batch.inputs, batch.n_examples, pass)?;
        Ok(loss_of(&mut self.kept, self.loss, pass.tell, batch, self.executor.output(), None)?)
    }

    fn gradient(&mut self, batch: &Examples<T>, pass: Pass, into: &mut Flat<T>, mode: Accumulate) -> landscape_core::Result<Tally> {
        self.check_targets(batch)?;
        self.executor.forward(&batch.inputs, batch.n_examples, pass)?;
        let (loss, kept) = (self.loss, &mut self.kept);
        Ok(self.executor.backward_with(into, mode, |outputs, gradient| loss_of(kept, loss, pass.tell, batch, outputs, Some(gradient)))?)
    }

    fn collect(&mut self, told: &mut dyn FnMut(Tally)) -> landscape_core::Result<()> {
        self.executor.collect()?;
        Ok(self.kept.collect(told)?)
    }
}

impl<T: Real> Fork for NetworkObjective<T> {
    fn fork(&self) -> Self {
        let executor = self.executor.fork();
        NetworkObjective { kept: KeptTallies::new(executor.device()), executor, loss: self.loss }
    }

    fn fork_bytes(&self, n_examples: usize) -> usize {
        self.executor.evaluation_bytes(n_examples)
    }
}

impl<T: Real> Stateful for NetworkObjective<T> {
    fn buffers(&self) -> &Buffers {
        self.executor.buffers()
    }

    fn set_buffers(&mut self, buffers: &Buffers) -> landscape_core::Result<()> {
        Ok(self.executor.set_buffers(buffers)?)
    }

    fn refresh(&mut self, how: NormRefresh, batches: &dyn Batches<Batch = Examples<T>>) -> landscape_core::Result<()> {
        Ok(refresh::refresh(&mut self.executor, how, batches)?)
    }
}
