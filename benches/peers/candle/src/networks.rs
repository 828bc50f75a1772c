//! An MLP and the CIFAR ResNet-20 of candle's layers, with PyTorch's names.

use crate::Logits;
use anyhow::bail;
use candle_core::{ModuleT, Tensor};
use candle_nn::{BatchNorm, Conv2d, Conv2dConfig, Linear, Module, VarBuilder, batch_norm, conv2d_no_bias, linear};

/// A network.
pub enum Network {
    Mlp { width: usize, layers: Vec<Linear> },
    ResNet(Box<ResNet>),
}

impl Network {
    /// The network that the suites call `model`.
    pub fn new(model: &str, vb: VarBuilder<'_>) -> anyhow::Result<Self> {
        if model == "resnet20" {
            return Ok(Network::ResNet(Box::new(ResNet::new(&vb)?)));
        }
        let Some(widths) = model.strip_prefix("mlp:") else { bail!("this peer has no `{model}`") };
        let widths = widths.split('-').map(str::parse).collect::<Result<Vec<usize>, _>>()?;
        let layers = widths.windows(2).enumerate().map(|(i, w)| linear(w[0], w[1], vb.pp(format!("fc{}", i + 1))));
        Ok(Network::Mlp { width: widths[0], layers: layers.collect::<Result<_, _>>()? })
    }

    pub fn input_shape(&self) -> Vec<usize> {
        match self {
            Network::Mlp { width, .. } => vec![*width],
            Network::ResNet(_) => vec![3, 32, 32],
        }
    }

    pub fn forward(&self, x: &Tensor, is_training: bool) -> Logits {
        match self {
            Network::ResNet(net) => net.forward(x, is_training),
            Network::Mlp { layers, .. } => {
                let mut x = x.clone();
                for (i, layer) in layers.iter().enumerate() {
                    x = layer.forward(&x)?;
                    if i + 1 < layers.len() {
                        x = x.relu()?;
                    }
                }
                Ok(x)
            }
        }
    }
}

/// ResNet-20 with projection shortcuts.
pub struct ResNet {
    stem: (Conv2d, BatchNorm),
    blocks: Vec<Block>,
    fc: Linear,
}

struct Block {
    first: (Conv2d, BatchNorm),
    second: (Conv2d, BatchNorm),
    shortcut: Option<(Conv2d, BatchNorm)>,
}

fn layer(
    vb: &VarBuilder<'_>,
    names: [&str; 2],
    channels: [usize; 2],
    kernel: usize,
    stride: usize,
) -> candle_core::Result<(Conv2d, BatchNorm)> {
    let config = Conv2dConfig { padding: kernel / 2, stride, ..Default::default() };
    let conv = conv2d_no_bias(channels[0], channels[1], kernel, config, vb.pp(names[0]))?;
    Ok((conv, batch_norm(channels[1], 1e-5, vb.pp(names[1]))?))
}

fn apply((conv, norm): &(Conv2d, BatchNorm), x: &Tensor, is_training: bool) -> candle_core::Result<Tensor> {
    norm.forward_t(&conv.forward(x)?, is_training)
}

impl ResNet {
    fn new(vb: &VarBuilder<'_>) -> candle_core::Result<Self> {
        let stem = layer(vb, ["conv1", "bn1"], [3, 16], 3, 1)?;
        let mut blocks = Vec::new();
        let mut n_in = 16;
        for (stage, n_out) in [(1, 16), (2, 32), (3, 64)] {
            for i in 0..3 {
                let (vb, stride) = (vb.pp(format!("layer{stage}.{i}")), if stage > 1 && i == 0 { 2 } else { 1 });
                let shortcut = (stride > 1).then(|| layer(&vb, ["downsample.0", "downsample.1"], [n_in, n_out], 1, stride));
                blocks.push(Block {
                    first: layer(&vb, ["conv1", "bn1"], [n_in, n_out], 3, stride)?,
                    second: layer(&vb, ["conv2", "bn2"], [n_out, n_out], 3, 1)?,
                    shortcut: shortcut.transpose()?,
                });
                n_in = n_out;
            }
        }
        Ok(ResNet { stem, blocks, fc: linear(64, 10, vb.pp("fc"))? })
    }

    fn forward(&self, x: &Tensor, is_training: bool) -> Logits {
        let mut x = apply(&self.stem, x, is_training)?.relu()?;
        for block in &self.blocks {
            let y = apply(&block.first, &x, is_training)?.relu()?;
            let y = apply(&block.second, &y, is_training)?;
            let shortcut = match &block.shortcut {
                Some(shortcut) => apply(shortcut, &x, is_training)?,
                None => x,
            };
            x = (y + shortcut)?.relu()?;
        }
        self.fc.forward(&x.mean((2, 3))?)
    }
}
