//! Pooling against PyTorch in f64, values in full, at odd sizes and with ties.

use anyhow::Result;
use landscape_kernels::pool::{self, AdaptiveShape, Padding, PoolShape};
use landscape_kernels::{Accumulate, View, ViewMut};
use landscape_tests::golden::{Golden, fill, quarters};
use landscape_tests::layout::{nchw, nhwc};

const TOLERANCE: f64 = 1e-11;
const CHANNELS: usize = 2;

fn named(name: &str, n: usize) -> Vec<f64> {
    fill(name, n, 1.0, 0.0)
}

fn view(values: &[f64]) -> View<'_, f64> {
    View::from(values)
}

fn view_mut(values: &mut [f64]) -> ViewMut<'_, f64> {
    ViewMut::from(values)
}

/// One pooling golden: the input in our order, and what is needed to compare.
struct Pooled {
    golden: Golden,
    n: usize,
    in_size: [usize; 2],
    out_size: [usize; 2],
    x: Vec<f64>,
    dy: Vec<f64>,
}

impl Pooled {
    fn all(key: &str) -> Result<Vec<Pooled>> {
        let ops = Golden::open("ops")?;
        let (n, in_size) = (ops.at("header")?.at("n")?.number()? as usize, ops.at("header")?.at("in_size")?.pair()?);
        let read = |(_, golden): (String, Golden)| {
            let y_shape = golden.at("y_shape")?.sizes()?;
            let out_size = [y_shape[2], y_shape[3]];
            let source = if golden.at("config")?.has("quarters") { quarters } else { named };
            let x = nhwc(&source("x", n * CHANNELS * in_size[0] * in_size[1]), n, CHANNELS, in_size);
            let dy = nhwc(&named("dy", y_shape.iter().product()), n, CHANNELS, out_size);
            Ok(Pooled { golden, n, in_size, out_size, x, dy })
        };
        ops.at(key)?.entries()?.into_iter().map(read).collect()
    }

    fn shape(&self) -> Result<PoolShape> {
        let config = self.golden.at("config")?;
        let shape = PoolShape {
            n: self.n,
            channels: CHANNELS,
            in_size: self.in_size,
            kernel_size: config.at("kernel_size")?.pair()?,
            stride: config.at("stride")?.pair()?,
            padding: config.at("padding")?.pair()?,
        };
        shape.check()?;
        assert_eq!(shape.out_size(), self.out_size, "{}", self.golden.place());
        Ok(shape)
    }

    fn check(&self, y: &[f64], dx: &[f64]) -> Result<()> {
        self.golden.at("y")?.check_values(&nchw(y, self.n, CHANNELS, self.out_size), TOLERANCE)?;
        self.golden.at("dx")?.check_values(&nchw(dx, self.n, CHANNELS, self.in_size), TOLERANCE)
    }
}

#[test]
fn max_pools_with_ties_going_to_the_first() -> Result<()> {
    for case in Pooled::all("max pool")? {
        let shape = case.shape()?;
        let (mut y, mut dx, mut argmax) = (vec![0.0; case.dy.len()], vec![0.0; case.x.len()], vec![0; case.dy.len()]);
        pool::max_forward(&shape, view(&case.x), view_mut(&mut y), (&mut argmax).into())?;
        pool::max_backward(&shape, (&argmax).into(), view(&case.dy), view_mut(&mut dx), Accumulate::Overwrite)?;
        case.check(&y, &dx)?;
    }
    Ok(())
}

#[test]
fn average_pools() -> Result<()> {
    for case in Pooled::all("average pool")? {
        let shape = case.shape()?;
        let counted = case.golden.at("config")?.at("count_include_pad")?.flag()?;
        let padding = if counted { Padding::Counted } else { Padding::NotCounted };
        let (mut y, mut dx) = (vec![0.0; case.dy.len()], vec![0.0; case.x.len()]);
        pool::average_forward(&shape, padding, view(&case.x), view_mut(&mut y))?;
        pool::average_backward(&shape, padding, view(&case.dy), view_mut(&mut dx), Accumulate::Overwrite)?;
        case.check(&y, &dx)?;
    }
    Ok(())
}

#[test]
fn adaptive_pools() -> Result<()> {
    for case in Pooled::all("adaptive pool")? {
        let shape = AdaptiveShape { n: case.n, channels: CHANNELS, in_size: case.in_size, out_size: case.out_size };
        let (mut y, mut dx) = (vec![0.0; case.dy.len()], vec![0.0; case.x.len()]);
        pool::adaptive_average_forward(&shape, view(&case.x), view_mut(&mut y))?;
        pool::adaptive_average_backward(&shape, view(&case.dy), view_mut(&mut dx), Accumulate::Overwrite)?;
        case.check(&y, &dx)?;
    }
    Ok(())
}
