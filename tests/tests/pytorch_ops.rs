//! Linear, convolution and batch norm against PyTorch in f64, values in full, at odd sizes.

use anyhow::Result;
use landscape_kernels::batch_norm::{self, BatchNormShape};
use landscape_kernels::conv2d::{self, Conv2dShape};
use landscape_kernels::linear::{self, LinearShape};
use landscape_kernels::{Accumulate, View, ViewMut};
use landscape_tests::golden::{Golden, fill};
use landscape_tests::layout::{nchw, nhwc};

const TOLERANCE: f64 = 1e-11;

fn named(name: &str, n: usize) -> Vec<f64> {
    fill(name, n, 1.0, 0.0)
}

fn view(values: &[f64]) -> View<'_, f64> {
    View::from(values)
}

fn view_mut(values: &mut [f64]) -> ViewMut<'_, f64> {
    ViewMut::from(values)
}

#[test]
fn linear_with_and_without_bias() -> Result<()> {
    let shape = LinearShape { n_rows: 5, in_features: 7, out_features: 3, precision: landscape_kernels::Precision::F32 };
    let (x, weight, bias, dy) = (named("x", 35), named("weight", 21), named("bias", 3), named("dy", 15));
    for key in ["linear", "linear no bias"] {
        let golden = Golden::open("ops")?.at(key)?;
        let bias = golden.has("dbias").then_some(&bias);
        let (mut y, mut dx, mut dweight, mut dbias) = (vec![0.0; 15], vec![0.0; 35], vec![0.0; 21], vec![0.0; 3]);
        linear::forward(&shape, view(&x), view(&weight), bias.map(|b| view(b)), view_mut(&mut y))?;
        linear::backward_input(&shape, view(&weight), view(&dy), view_mut(&mut dx), Accumulate::Overwrite)?;
        let dbias_view = bias.is_some().then(|| view_mut(&mut dbias));
        linear::backward_weight(&shape, view(&x), view(&dy), view_mut(&mut dweight), dbias_view, Accumulate::Overwrite)?;
        golden.at("y")?.check_values(&y, TOLERANCE)?;
        golden.at("dx")?.check_values(&dx, TOLERANCE)?;
        golden.at("dweight")?.check_values(&dweight, TOLERANCE)?;
        if bias.is_some() {
            golden.at("dbias")?.check_values(&dbias, TOLERANCE)?;
        }
    }
    Ok(())
}

#[test]
fn convolutions() -> Result<()> {
    let ops = Golden::open("ops")?;
    let (n, in_size) = (ops.at("header")?.at("n")?.number()? as usize, ops.at("header")?.at("in_size")?.pair()?);
    for (_, golden) in ops.at("conv")?.entries()? {
        let config = golden.at("config")?;
        let shape = Conv2dShape {
            n,
            in_channels: config.at("in")?.number()? as usize,
            in_size,
            out_channels: config.at("out")?.number()? as usize,
            kernel_size: config.at("kernel_size")?.pair()?,
            stride: config.at("stride")?.pair()?,
            padding: config.at("padding")?.pair()?,
            dilation: config.at("dilation")?.pair()?,
            groups: config.at("groups")?.number()? as usize,
            precision: landscape_kernels::Precision::F32,
        };
        shape.check()?;
        let out_size = shape.out_size();
        assert_eq!(golden.at("y_shape")?.sizes()?, [n, shape.out_channels, out_size[0], out_size[1]], "{}", golden.place());
        let image = |c: usize, size: [usize; 2]| n * c * size[0] * size[1];
        let (n_in, n_out) = (image(shape.in_channels, in_size), image(shape.out_channels, out_size));
        let x = nhwc(&named("x", n_in), n, shape.in_channels, in_size);
        let dy = nhwc(&named("dy", n_out), n, shape.out_channels, out_size);
        let weight = named("weight", shape.weight_len());
        let bias = config.at("bias")?.flag()?.then(|| named("bias", shape.out_channels));

        let mut scratch = vec![0.0; shape.scratch_len()];
        let mut packed = vec![0.0; shape.weight_len()];
        conv2d::pack_weight(&shape, view(&weight), view_mut(&mut packed))?;
        let mut y = vec![0.0; n_out];
        let bias_view = bias.as_deref().map(view);
        conv2d::forward(&shape, view(&x), view(&packed), bias_view, view_mut(&mut y), view_mut(&mut scratch))?;
        golden.at("y")?.check_values(&nchw(&y, n, shape.out_channels, out_size), TOLERANCE)?;

        let mut dx = vec![0.0; n_in];
        let mode = Accumulate::Overwrite;
        conv2d::backward_input(&shape, view(&packed), view(&dy), view_mut(&mut dx), mode, view_mut(&mut scratch))?;
        golden.at("dx")?.check_values(&nchw(&dx, n, shape.in_channels, in_size), TOLERANCE)?;

        let (mut dpacked, mut dweight) = (vec![0.0; weight.len()], vec![0.0; weight.len()]);
        let mut dbias = vec![0.0; shape.out_channels];
        let dbias_view = bias.is_some().then(|| view_mut(&mut dbias));
        conv2d::backward_weight(&shape, view(&x), view(&dy), view_mut(&mut dpacked), dbias_view, mode, view_mut(&mut scratch))?;
        conv2d::unpack_gradient(&shape, view(&dpacked), view_mut(&mut dweight), mode)?;
        golden.at("dweight")?.check_values(&dweight, TOLERANCE)?;
        if bias.is_some() {
            golden.at("dbias")?.check_values(&dbias, TOLERANCE)?;
        }
    }
    Ok(())
}

#[test]
fn batch_norm_in_training_and_evaluation() -> Result<()> {
    const EPS: f64 = 1e-5;
    const MOMENTUM: f64 = 0.1;
    let (n, channels, size) = (3, 2, [3, 3]);
    let shape = BatchNormShape { n_rows: n * size[0] * size[1], channels };
    let len = shape.n_rows * channels;
    let (x, dy) = (nhwc(&named("x", len), n, channels, size), nhwc(&named("dy", len), n, channels, size));
    let (weight, bias) = (named("weight", channels), named("bias", channels));
    let stored_mean = named("mean", channels);
    let stored_var: Vec<f64> = named("var", channels).into_iter().map(|v| 1.0 + 0.5 * v).collect();
    for (key, from_batch) in [("batch norm train", true), ("batch norm eval", false)] {
        let golden = Golden::open("ops")?.at(key)?;
        let (mut mean, mut var) = (stored_mean.clone(), stored_var.clone());
        if from_batch {
            batch_norm::statistics(&shape, view(&x), view_mut(&mut mean), view_mut(&mut var))?;
            let unbiased = shape.n_rows as f64 / (shape.n_rows as f64 - 1.0);
            let running = |old: &[f64], new: &[f64], factor: f64| -> Vec<f64> {
                old.iter().zip(new).map(|(o, v)| (1.0 - MOMENTUM) * o + MOMENTUM * factor * v).collect()
            };
            golden.at("running_mean")?.check_values(&running(&stored_mean, &mean, 1.0), TOLERANCE)?;
            golden.at("running_var")?.check_values(&running(&stored_var, &var, unbiased), TOLERANCE)?;
        }
        let (mut y, mut dx) = (vec![0.0; len], vec![0.0; len]);
        let (mut dweight, mut dbias) = (vec![0.0; channels], vec![0.0; channels]);
        batch_norm::normalize(&shape, view(&x), view(&mean), view(&var), EPS, Some(view(&weight)), Some(view(&bias)), view_mut(&mut y))?;
        let backward = if from_batch { batch_norm::backward_batch::<f64> } else { batch_norm::backward_stored::<f64> };
        backward(
            &shape,
            view(&x),
            view(&mean),
            view(&var),
            EPS,
            Some(view(&weight)),
            view(&dy),
            view_mut(&mut dx),
            Accumulate::Overwrite,
            Some(view_mut(&mut dweight)),
            Some(view_mut(&mut dbias)),
            Accumulate::Overwrite,
        )?;
        golden.at("y")?.check_values(&nchw(&y, n, channels, size), TOLERANCE)?;
        golden.at("dx")?.check_values(&nchw(&dx, n, channels, size), TOLERANCE)?;
        golden.at("dweight")?.check_values(&dweight, TOLERANCE)?;
        golden.at("dbias")?.check_values(&dbias, TOLERANCE)?;
    }
    Ok(())
}
