//! The jobs, one file each.

pub mod step;
pub mod evaluate;
pub mod profile_point;
pub mod convolution;
pub mod weight_space;
pub mod files;

use crate::request::{Job, Request};
use crate::values;
use crate::worker::Work;
use anyhow::bail;
use landscape_graph::Graph;
use landscape_kernels::{Device, Precision};
use landscape_network::{Loss, NetworkObjective};
use landscape_zoo::models;
use std::sync::Arc;
use std::time::Instant;

/// Sets a job up.
///
/// # Errors
/// If it asks for what is not there, or is not one that is timed.
pub fn set_up(request: &Request) -> anyhow::Result<Box<dyn Work>> {
    let seed = request.seed;
    Ok(match &request.job {
        Job::Step { model, batch, points, precision } => Box::new(step::Steps::new(model, *batch, *points, *precision, seed)?),
        Job::Evaluate { model, batch, precision } => Box::new(evaluate::Evaluation::new(model, *batch, *precision, seed)?),
        Job::ProfilePoint { model, batch, n_train_batches, n_test_batches } => {
            Box::new(profile_point::ProfilePoint::new(model, *batch, *n_train_batches, *n_test_batches, seed)?)
        }
        Job::Convolution { pass, batch, channels, size, kernel, stride, groups } => {
            let shape = convolution::shape(*batch, *channels, *size, *kernel, *stride, *groups);
            Box::new(convolution::Convolution::new(*pass, shape, seed)?)
        }
        Job::WeightSpace { operation, parameters, points } => {
            Box::new(weight_space::Operation::new(*operation, *parameters, *points, seed)?)
        }
        Job::Triad { parameters } => Box::new(weight_space::Triad::new(*parameters, seed)),
        Job::Files { .. } | Job::Digits { .. } => bail!("writing files is not a job that is timed"),
    })
}

/// A network of the zoo for the data of its jobs.
fn network(model: &str, precision: Precision) -> anyhow::Result<(Arc<Graph>, NetworkObjective<f32>)> {
    let graph = Arc::new(models::build(model, &values::input_shape(model), values::n_outputs(model))?);
    let objective = NetworkObjective::in_precision(graph.clone(), &Device::Cpu, Loss::CrossEntropy, precision)?;
    Ok((graph, objective))
}

/// The seconds of each of `n` calls.
fn time(n: usize, mut f: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Vec<f64>> {
    (0..n)
        .map(|_| {
            let started = Instant::now();
            f()?;
            Ok(started.elapsed().as_secs_f64())
        })
        .collect()
}
