//! What the networks for small devices share.

use crate::error::Result;
use landscape_graph::{Bias, Conv2d, GraphBuilder, NodeId, Op};

/// What follows a norm.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Activation {
    /// Nothing.
    None,
    /// max(x, 0).
    Relu,
    /// min(max(x, 0), 6).
    Relu6,
    /// x · sigmoid(x).
    Silu,
    /// x · min(max(x + 3, 0), 6) / 6.
    Hardswish,
}

impl Activation {
    /// Adds it.
    pub(super) fn push(self, b: &mut GraphBuilder, name: &str, x: NodeId) -> Result<NodeId> {
        let op = match self {
            Activation::None => return Ok(x),
            Activation::Relu => Op::Relu,
            Activation::Relu6 => Op::Hardtanh { min_val: 0.0, max_val: 6.0 },
            Activation::Silu => Op::Silu,
            Activation::Hardswish => Op::Hardswish,
        };
        Ok(b.push(name, op, &[x])?)
    }
}

/// The constants of a network's batch norms.
#[derive(Clone, Copy)]
pub(super) struct BatchNorm {
    eps: f64,
    momentum: f64,
}

impl BatchNorm {
    /// PyTorch's defaults.
    pub(super) const DEFAULT: BatchNorm = BatchNorm { eps: 1e-5, momentum: 0.1 };
    /// Those of MobileNetV3.
    pub(super) const MOBILE_NET_V3: BatchNorm = BatchNorm { eps: 0.001, momentum: 0.01 };

    /// Convolution without bias, norm and activation: torchvision's `Conv2dNormActivation`.
    pub(super) fn conv(self, b: &mut GraphBuilder, path: &str, x: NodeId, conv: Conv2d, activation: Activation) -> Result<NodeId> {
        let BatchNorm { eps, momentum } = self;
        let padding = conv.kernel_size.map(|size| (size - 1) / 2);
        let x = b.conv2d(&format!("{path}.0"), x, Conv2d { padding, bias: Bias::Off, ..conv })?;
        let x = b.push(&format!("{path}.1"), Op::BatchNorm { num_features: conv.out_channels, eps, momentum, affine: true }, &[x])?;
        activation.push(b, &format!("{path}.2"), x)
    }
}

/// A convolution of each channel by itself.
pub(super) fn depthwise(channels: usize, kernel_size: usize, stride: usize) -> Conv2d {
    Conv2d { stride: [stride; 2], groups: channels, ..Conv2d::new(channels, kernel_size) }
}

/// x · gate(fc2(activation(fc1(mean of x)))), channel by channel: torchvision's `SqueezeExcitation`.
pub(super) fn squeeze_excite(
    b: &mut GraphBuilder,
    path: &str,
    x: NodeId,
    squeeze_channels: usize,
    activation: Activation,
    gate: Op,
) -> Result<NodeId> {
    let name = |module: &str| format!("{path}.{module}");
    let channels = b.shape(x)?[0];
    let mut y = b.global_avg_pool(&name("avgpool"), x)?;
    y = b.conv2d(&name("fc1"), y, Conv2d::new(squeeze_channels, 1))?;
    y = activation.push(b, &name("activation"), y)?;
    y = b.conv2d(&name("fc2"), y, Conv2d::new(channels, 1))?;
    y = b.push(&name("scale_activation"), gate, &[y])?;
    Ok(b.push(&name("scale"), Op::Multiply, &[x, y])?)
}
