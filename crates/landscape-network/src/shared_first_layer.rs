//! Many points of one path or plane, with the work of the first layer done once for all of them.
//!
//! The first layer of a network is linear in its weights, and the weights of a point are w = Σ_k c_k θ_k. So what it makes of a batch x
//! is Σ_k c_k (W_k x + b_k): K products, computed once, serve every point, and a point costs a blend of K activations in place of a
//! matrix product. Sums are taken in another order than by the network itself, so results agree to rounding and not bit for bit.
//!
//! It pays where the first layer is a large part of the work and its output small against its weights: multilayer perceptrons. It does
//! not for a convolution of an image with three channels, whose product costs less than reading K of its results.

use crate::error::{Error, Result};
use crate::executor::Executor;
use crate::objective::{Loss, NetworkObjective};
use landscape_core::{
    Batches, Buffers, Coefficients, ControlPoints, Examples, Flat, Fork, NormRefresh, Objective, ParamLayout, Pass, Row, Stateful, Tally,
    Targets,
};
use landscape_graph::{Graph, SplitGraph};
use landscape_kernels::{Accumulate, Device, Real, View, blend};
use std::sync::Arc;

/// What the first layer makes of a batch at each control point, and the targets.
#[derive(Debug, Clone, PartialEq)]
pub struct Products<T> {
    /// Per control point, `[n_examples, width]`.
    outputs: Vec<Vec<T>>,
    n_examples: usize,
    targets: Targets<T>,
}

/// The first layer at every control point.
#[derive(Debug)]
pub struct FirstLayer<T> {
    heads: Vec<Executor<T>>,
}

impl<T: Real> FirstLayer<T> {
    /// Of the network `graph` at each of `points`.
    ///
    /// # Errors
    /// [`Error::NoFirstLayer`] if the network does not begin with a linear map or a convolution, or is nothing else; a wrong layout.
    pub fn new(graph: &Graph, device: &Device, points: &ControlPoints<T>) -> Result<Self> {
        let SplitGraph { head, .. } = split(graph)?;
        ParamLayout::of_graph(graph)?.check_same("the network", points.layout(), "the control points")?;
        let first = Executor::<T>::new(Arc::new(head), device)?;
        let heads = (0..points.n_points()).map(|k| {
            let mut executor = first.fork();
            let weights = points.point(k).view().slice(0..executor.layout().n_elements()).host().to_vec();
            executor.load(&Flat::from_vec(executor.layout(), device, weights)?)?;
            Ok(executor)
        });
        Ok(FirstLayer { heads: heads.collect::<Result<_>>()? })
    }

    /// Numbers that the products of one example take.
    pub fn numbers_per_example(&self) -> usize {
        self.heads.iter().map(|head| head.graph().output_shape().iter().product::<usize>()).sum()
    }

    /// The products of one batch.
    ///
    /// # Errors
    /// As [`Executor::evaluate`].
    pub fn products(&mut self, batch: &Examples<T>) -> Result<Products<T>> {
        let outputs = self.heads.iter_mut().map(|head| {
            head.evaluate(&batch.inputs, batch.n_examples, Pass::EVALUATE)?;
            Ok(head.output().host().to_vec())
        });
        Ok(Products { outputs: outputs.collect::<Result<_>>()?, n_examples: batch.n_examples, targets: batch.targets.clone() })
    }
}

/// The loss of a network at the points of one set of control points, on batches of which the first layer's products are known.
///
/// ```
/// use landscape_core::{ControlPoints, Curve, Examples, Flat, Objective, Pass, Row, Segment, Targets};
/// use landscape_graph::{Bias, GraphBuilder};
/// use landscape_kernels::Device;
/// use landscape_network::{Loss, NetworkObjective, shared_first_layer::{FirstLayer, SharedFirstLayer}};
/// use std::sync::Arc;
///
/// let mut b = GraphBuilder::new([1]);
/// let x = b.linear("fc1", b.input(), 1, Bias::Off)?;
/// let x = b.relu("relu", x)?;
/// let x = b.linear("fc2", x, 1, Bias::Off)?;
/// let graph = Arc::new(b.finish(x)?);
/// let mut plain = NetworkObjective::<f64>::new(graph.clone(), &Device::Cpu, Loss::SquaredError)?;
/// let row = |w: [f64; 2]| Ok::<_, landscape_core::Error>(Row::Free(Flat::from_vec(plain.executor().layout(), &Device::Cpu, w.to_vec())?));
/// let points = ControlPoints::new(vec![row([1.0, 2.0])?, row([3.0, 4.0])?])?;
/// let batch = Examples { inputs: vec![5.0], n_examples: 1, targets: Targets::Values(vec![0.0]) };
///
/// let products = FirstLayer::new(&graph, &Device::Cpu, &points)?.products(&batch)?;
/// let mut shared = SharedFirstLayer::new(&graph, &Device::Cpu, Loss::SquaredError, points.clone())?;
/// shared.move_to(&points, &Segment.coefficients(0.5)?)?;
/// plain.move_to(&points, &Segment.coefficients(0.5)?)?;
/// assert_eq!(shared.measure(&Arc::new(products), Pass::EVALUATE)?, plain.measure(&batch, Pass::EVALUATE)?); // (2·5·3)²
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SharedFirstLayer<T> {
    tail: NetworkObjective<T>,
    points: ControlPoints<T>,
    /// Where it stands: all weights, the first layer's among them.
    weights: Flat<T>,
    /// The same without the first layer's.
    tail_weights: Flat<T>,
    c: Coefficients,
    /// What the first layer gives at the point, for the batch at hand.
    blended: Examples<T>,
}

impl<T: Real> SharedFirstLayer<T> {
    /// At the first of `points`.
    ///
    /// # Errors
    /// As [`FirstLayer::new`].
    pub fn new(graph: &Graph, device: &Device, loss: Loss, points: ControlPoints<T>) -> Result<Self> {
        let SplitGraph { tail, .. } = split(graph)?;
        ParamLayout::of_graph(graph)?.check_same("the network", points.layout(), "the control points")?;
        let tail = NetworkObjective::new(Arc::new(tail), device, loss)?;
        let mut shared = SharedFirstLayer {
            weights: Flat::zeros(points.layout(), device),
            tail_weights: tail.weights().clone(),
            c: Coefficients::one_hot(0, points.n_points())?,
            blended: Examples { inputs: Vec::new(), n_examples: 0, targets: Targets::Classes(Vec::new()) },
            tail,
            points,
        };
        shared.go()?;
        Ok(shared)
    }

    /// Goes where the coefficients say.
    fn go(&mut self) -> Result<()> {
        self.points.blend_into(&self.c, &mut self.weights)?;
        let n_head = self.weights.view().len() - self.tail_weights.view().len();
        self.tail_weights.view_mut().copy_from(self.weights.view().slice(n_head..self.weights.view().len()))?;
        self.tail.set_point(&self.tail_weights)
    }

    /// Whether these are the control points that the products are of.
    fn is_at_home(&self, points: &ControlPoints<T>) -> bool {
        let same = |k: usize| match (&self.points.rows()[k], &points.rows()[k]) {
            (Row::Frozen(own), Row::Frozen(theirs)) if Arc::ptr_eq(own, theirs) => true,
            (Row::Stored(own), Row::Stored(theirs)) if Arc::ptr_eq(own, theirs) => true,
            (own, theirs) => own.point().view().host() == theirs.point().view().host(),
        };
        points.n_points() == self.points.n_points() && (0..points.n_points()).all(same)
    }
}

/// Σ_k c_k·(what the first layer gives at control point k).
fn blend_products<T: Real>(c: &Coefficients, products: &Products<T>, into: &mut Examples<T>) -> landscape_core::Result<()> {
    let Products { outputs, n_examples, targets } = products;
    if outputs.len() != c.n_points() {
        return Err(landscape_core::Error::config("products", format!("of {} control points", c.n_points()), outputs.len()));
    }
    into.inputs.resize(outputs.first().map_or(0, Vec::len), T::ZERO);
    into.n_examples = *n_examples;
    into.targets.clone_from(targets);
    let rows: Vec<View<'_, T>> = outputs.iter().map(View::from).collect();
    Ok(blend::blend(c.as_slice(), &rows, (&mut into.inputs).into())?)
}

fn split(graph: &Graph) -> Result<SplitGraph> {
    graph.split_first_layer().ok_or(Error::NoFirstLayer)
}

impl<T: Real> Objective for SharedFirstLayer<T> {
    type Batch = Arc<Products<T>>;
    type Scalar = T;

    fn weights(&self) -> &Flat<T> {
        &self.weights
    }

    fn move_to(&mut self, points: &ControlPoints<T>, c: &Coefficients) -> landscape_core::Result<()> {
        self.weights.layout().check_same("the network", points.layout(), "the control points")?;
        if !self.is_at_home(points) {
            return Err(landscape_core::Error::config("points", "the control points whose products are shared", "others"));
        }
        if c.n_points() != points.n_points() {
            return Err(landscape_core::Error::config("coefficients", format!("{} numbers", points.n_points()), c.n_points()));
        }
        self.c.clone_from(c);
        Ok(self.go()?)
    }

    fn measure(&mut self, batch: &Arc<Products<T>>, pass: Pass) -> landscape_core::Result<Tally> {
        blend_products(&self.c, batch, &mut self.blended)?;
        self.tail.measure(&self.blended, pass)
    }

    fn gradient(&mut self, _: &Arc<Products<T>>, _: Pass, _: &mut Flat<T>, _: Accumulate) -> landscape_core::Result<Tally> {
        Err(landscape_core::Error::NoGradient)
    }

    fn collect(&mut self, told: &mut dyn FnMut(Tally)) -> landscape_core::Result<()> {
        self.tail.collect(told)
    }
}

/// The batches of a refresh, blended one by one.
struct Blended<'a, T> {
    c: &'a Coefficients,
    batches: &'a dyn Batches<Batch = Arc<Products<T>>>,
}

impl<T: Real> Batches for Blended<'_, T> {
    type Batch = Examples<T>;

    fn n_batches(&self) -> usize {
        self.batches.n_batches()
    }

    fn batch(&self, epoch: u64, idx: usize) -> landscape_core::Result<Examples<T>> {
        let mut blended = Examples { inputs: Vec::new(), n_examples: 0, targets: Targets::Classes(Vec::new()) };
        blend_products(self.c, &*self.batches.batch(epoch, idx)?, &mut blended)?;
        Ok(blended)
    }
}

impl<T: Real> Stateful for SharedFirstLayer<T> {
    fn buffers(&self) -> &Buffers {
        self.tail.buffers()
    }

    fn set_buffers(&mut self, buffers: &Buffers) -> landscape_core::Result<()> {
        self.tail.set_buffers(buffers)
    }

    fn refresh(&mut self, how: NormRefresh, batches: &dyn Batches<Batch = Arc<Products<T>>>) -> landscape_core::Result<()> {
        self.tail.refresh(how, &Blended { c: &self.c, batches })
    }
}

impl<T: Real> Fork for SharedFirstLayer<T> {
    fn fork(&self) -> Self {
        SharedFirstLayer {
            tail: self.tail.fork(),
            points: self.points.clone(),
            weights: self.weights.clone(),
            tail_weights: self.tail_weights.clone(),
            c: self.c.clone(),
            blended: self.blended.clone(),
        }
    }

    fn fork_bytes(&self, n_examples: usize) -> usize {
        let width: usize = self.tail.executor().graph().input_shape().iter().product();
        let weights = self.weights.view().len() + self.tail_weights.view().len();
        let own = weights.saturating_add(width.saturating_mul(n_examples)).saturating_mul(size_of::<T>());
        self.tail.fork_bytes(n_examples).saturating_add(own)
    }
}
