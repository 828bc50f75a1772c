//! candle models with the layers of `landscape_kernels::candle` in place of candle-nn's: each is written once and built with both. candle-nn's own
//! is refused by the gradient check, ours passes it and trains.
#![allow(clippy::unwrap_used)]

use candle_core::{Device, Tensor};
use landscape_core::{Norm, Seed};
use landscape_train::bound::{Bound, connect, train};
use landscape_train::{Connect, Error, FitConfig, Optimizer};

const CPU: Device = Device::Cpu;

/// The models, with the layers of one library: what changes is the `use` line, and methods of `Tensor` that become functions.
macro_rules! models {
    ($name:ident, $($library:ident)::+, $max_pool2d:expr) => {
        mod $name {
            use $($library)::+ as nn;
            use candle_core::{D, Result, Tensor};
            use nn::{Conv1d, Conv1dConfig, Conv2d, Conv2dConfig, Embedding, LayerNorm, Linear, Module, RmsNorm, VarBuilder};
            use nn::{conv1d, conv2d, embedding, layer_norm, linear, linear_no_bias, rms_norm};

            /// The convolutional network of candle's mnist-training example, a quarter as wide and without its dropout.
            pub struct ConvNet {
                conv1: Conv2d,
                conv2: Conv2d,
                fc1: Linear,
                fc2: Linear,
            }

            impl ConvNet {
                pub fn new(vb: VarBuilder) -> Result<Self> {
                    Ok(ConvNet {
                        conv1: conv2d(1, 8, 5, Default::default(), vb.pp("c1"))?,
                        conv2: conv2d(8, 16, 5, Default::default(), vb.pp("c2"))?,
                        fc1: linear(256, 64, vb.pp("fc1"))?,
                        fc2: linear(64, 4, vb.pp("fc2"))?,
                    })
                }

                pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
                    let x = x.reshape(((), 1, 28, 28))?;
                    let x = $max_pool2d(&self.conv1.forward(&x)?)?;
                    let x = $max_pool2d(&self.conv2.forward(&x)?)?.flatten_from(1)?;
                    self.fc2.forward(&self.fc1.forward(&x)?.relu()?)
                }
            }

            const WIDTH: usize = 16;
            const HEADS: usize = 2;

            /// Self-attention over `[b, t, WIDTH]`, as candle-transformers writes it.
            struct Attention {
                query: Linear,
                key: Linear,
                value: Linear,
                output: Linear,
            }

            impl Attention {
                fn new(vb: VarBuilder) -> Result<Self> {
                    let layer = |name: &str| linear(WIDTH, WIDTH, vb.pp(name));
                    Ok(Attention { query: layer("query")?, key: layer("key")?, value: layer("value")?, output: layer("output")? })
                }

                fn heads(&self, x: &Tensor) -> Result<Tensor> {
                    let (b, t, _) = x.dims3()?;
                    x.reshape((b, t, HEADS, WIDTH / HEADS))?.transpose(1, 2)?.contiguous()
                }

                fn forward(&self, x: &Tensor, turn: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
                    let query = turn(&self.heads(&self.query.forward(x)?)?)?;
                    let key = turn(&self.heads(&self.key.forward(x)?)?)?;
                    let value = self.heads(&self.value.forward(x)?)?;
                    let scores = (query.matmul(&key.t()?)? / ((WIDTH / HEADS) as f64).sqrt())?;
                    let context = nn::ops::softmax_last_dim(&scores)?.matmul(&value)?;
                    self.output.forward(&context.transpose(1, 2)?.contiguous()?.flatten_from(D::Minus2)?)
                }
            }

            /// Two linear layers with gelu between them.
            struct FeedForward(Linear, Linear);

            impl FeedForward {
                fn new(vb: VarBuilder) -> Result<Self> {
                    Ok(FeedForward(linear(WIDTH, 2 * WIDTH, vb.pp("intermediate"))?, linear(2 * WIDTH, WIDTH, vb.pp("output"))?))
                }

                fn forward(&self, x: &Tensor) -> Result<Tensor> {
                    self.1.forward(&self.0.forward(x)?.gelu_erf()?)
                }
            }

            /// A vision transformer: patches by a convolution, a class token, blocks that normalise first.
            pub struct ViT {
                patches: Conv2d,
                cls: Tensor,
                positions: Tensor,
                blocks: Vec<(LayerNorm, Attention, LayerNorm, FeedForward)>,
                norm: LayerNorm,
                classifier: Linear,
            }

            impl ViT {
                pub fn new(vb: VarBuilder) -> Result<Self> {
                    let small = nn::Init::Randn { mean: 0.0, stdev: 0.2 };
                    let block = |idx: usize| {
                        let vb = vb.pp("layer").pp(idx);
                        Ok((
                            layer_norm(WIDTH, 1e-12, vb.pp("layernorm_before"))?,
                            Attention::new(vb.pp("attention"))?,
                            layer_norm(WIDTH, 1e-12, vb.pp("layernorm_after"))?,
                            FeedForward::new(vb.clone())?,
                        ))
                    };
                    Ok(ViT {
                        patches: conv2d(1, WIDTH, 7, Conv2dConfig { stride: 7, ..Default::default() }, vb.pp("projection"))?,
                        cls: vb.get_with_hints((1, 1, WIDTH), "cls_token", small)?,
                        positions: vb.get_with_hints((1, 17, WIDTH), "position_embeddings", small)?,
                        blocks: (0..2).map(block).collect::<Result<_>>()?,
                        norm: layer_norm(WIDTH, 1e-12, vb.pp("layernorm"))?,
                        classifier: linear(WIDTH, 4, vb.pp("classifier"))?,
                    })
                }

                pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
                    let x = self.patches.forward(&x.reshape(((), 1, 28, 28))?)?.flatten_from(2)?.transpose(1, 2)?;
                    let cls = self.cls.broadcast_as((x.dim(0)?, 1, WIDTH))?;
                    let mut x = Tensor::cat(&[&cls, &x.contiguous()?], 1)?.broadcast_add(&self.positions)?;
                    for (before, attention, after, mlp) in &self.blocks {
                        x = (attention.forward(&before.forward(&x)?, |q| Ok(q.clone()))? + x)?;
                        x = (mlp.forward(&after.forward(&x)?)? + x)?;
                    }
                    self.classifier.forward(&self.norm.forward(&x)?.narrow(1, 0, 1)?.squeeze(1)?)
                }
            }

            /// BERT: embeddings of words, places and kinds, normalised; blocks that normalise last; the first place is classified.
            pub struct Bert {
                words: Embedding,
                places: Embedding,
                kinds: Embedding,
                norm: LayerNorm,
                blocks: Vec<(Attention, LayerNorm, FeedForward, LayerNorm)>,
                classifier: Linear,
            }

            impl Bert {
                pub fn new(vb: VarBuilder) -> Result<Self> {
                    let e = vb.pp("embeddings");
                    let block = |idx: usize| {
                        let vb = vb.pp("encoder.layer").pp(idx);
                        Ok((
                            Attention::new(vb.pp("attention.self"))?,
                            layer_norm(WIDTH, 1e-12, vb.pp("attention.output.LayerNorm"))?,
                            FeedForward::new(vb.clone())?,
                            layer_norm(WIDTH, 1e-12, vb.pp("output.LayerNorm"))?,
                        ))
                    };
                    Ok(Bert {
                        words: embedding(12, WIDTH, e.pp("word_embeddings"))?,
                        places: embedding(9, WIDTH, e.pp("position_embeddings"))?,
                        kinds: embedding(2, WIDTH, e.pp("token_type_embeddings"))?,
                        norm: layer_norm(WIDTH, 1e-12, e.pp("LayerNorm"))?,
                        blocks: (0..2).map(block).collect::<Result<_>>()?,
                        classifier: linear(WIDTH, 4, vb.pp("classifier"))?,
                    })
                }

                pub fn forward(&self, tokens: &Tensor) -> Result<Tensor> {
                    let places = Tensor::arange(0u32, tokens.dim(1)? as u32, tokens.device())?;
                    let x = (self.words.forward(tokens)? + self.kinds.forward(&tokens.zeros_like()?)?)?;
                    let mut x = self.norm.forward(&x.broadcast_add(&self.places.forward(&places)?)?)?;
                    for (attention, after_attention, mlp, after_mlp) in &self.blocks {
                        x = after_attention.forward(&(attention.forward(&x, |q| Ok(q.clone()))? + x)?)?;
                        x = after_mlp.forward(&(mlp.forward(&x)? + x)?)?;
                    }
                    self.classifier.forward(&x.narrow(1, 0, 1)?.squeeze(1)?)
                }
            }

            /// What the others have not: a convolution in one dimension over tokens, rotary positions and RMS norms.
            pub struct Rotary {
                words: Embedding,
                conv: Conv1d,
                norm: RmsNorm,
                attention: Attention,
                last: RmsNorm,
                classifier: Linear,
            }

            impl Rotary {
                pub fn new(vb: VarBuilder) -> Result<Self> {
                    let padded = Conv1dConfig { padding: 1, ..Default::default() };
                    Ok(Rotary {
                        words: embedding(12, WIDTH, vb.pp("words"))?,
                        conv: conv1d(WIDTH, WIDTH, 3, padded, vb.pp("conv"))?,
                        norm: rms_norm(WIDTH, 1e-6, vb.pp("norm"))?,
                        attention: Attention::new(vb.pp("attention"))?,
                        last: rms_norm(WIDTH, 1e-6, vb.pp("last"))?,
                        classifier: linear_no_bias(WIDTH, 4, vb.pp("classifier"))?,
                    })
                }

                pub fn forward(&self, tokens: &Tensor) -> Result<Tensor> {
                    let x = self.words.forward(tokens)?.transpose(1, 2)?.contiguous()?;
                    let x = self.conv.forward(&x)?.transpose(1, 2)?;
                    let (t, half) = (x.dim(1)?, WIDTH / HEADS / 2);
                    let speeds: Vec<f64> = (0..half).map(|i| 0.1f64.powi(i as i32)).collect();
                    let places = Tensor::arange(0f64, t as f64, x.device())?.reshape((t, 1))?;
                    let angles = places.broadcast_mul(&Tensor::new(speeds, x.device())?)?;
                    let (cos, sin) = (angles.cos()?.to_dtype(x.dtype())?, angles.sin()?.to_dtype(x.dtype())?);
                    let turn = |q: &Tensor| nn::rotary_emb::rope(q, &cos, &sin);
                    let x = (self.attention.forward(&self.norm.forward(&x.contiguous()?)?, turn)? + x)?;
                    self.classifier.forward(&self.last.forward(&x)?.mean(1)?)
                }
            }
        }
    };
}

models!(candles, candle_nn, |x: &Tensor| x.max_pool2d(2));
models!(ours, landscape_kernels::candle, |x: &Tensor| super::ours_max_pool2d(x));

fn ours_max_pool2d(x: &Tensor) -> candle_core::Result<Tensor> {
    landscape_kernels::candle::max_pool2d(x, 2)
}

/// Four classes of noisy images of 28x28, in batches of 16.
fn images() -> Vec<(Tensor, Tensor)> {
    let mut stream = Seed::new(1).stream();
    let batch = |_| {
        let labels: Vec<u32> = (0..16).map(|i| i % 4).collect();
        let pixel = |label: u32, i: usize| if (i / 14 % 2 + i / 392 * 2) as u32 == label { 1.0 } else { 0.0 };
        let x: Vec<f32> =
            labels.iter().flat_map(|&y| (0..784).map(move |i| pixel(y, i))).map(|v| v + 0.3 * stream.normal() as f32).collect();
        (Tensor::from_vec(x, (16, 784), &CPU).unwrap(), Tensor::new(labels, &CPU).unwrap())
    };
    (0..2).map(batch).collect()
}

/// Sentences of nine words of twelve, told by a word of their class, in batches of 16.
fn sentences() -> Vec<(Tensor, Tensor)> {
    let mut stream = Seed::new(2).stream();
    let batch = |_| {
        let labels: Vec<u32> = (0..16).map(|i| i % 4).collect();
        let mut words: Vec<u32> = (0..16 * 9).map(|_| 4 + stream.below(8) as u32).collect();
        for (words, &label) in words.chunks_exact_mut(9).zip(&labels) {
            words[stream.below(9)] = label;
        }
        (Tensor::from_vec(words, (16, 9), &CPU).unwrap(), Tensor::new(labels, &CPU).unwrap())
    };
    (0..2).map(batch).collect()
}

/// candle-nn's model is refused, and ours, which is the same function, passes and trains.
macro_rules! repaired {
    ($model:ident, $batches:expr, $parameter:expr) => {{
        let batches = $batches;
        let candles = Bound::new(&CPU, |vb| candles::$model::new(vb), |net, x, _| net.forward(x)).unwrap().classes(batches.clone());
        match candles.check_gradients(&batches[0], Norm::Batch) {
            Err(Error::Gradient { parameter, reason }) => assert!(parameter.contains($parameter), "{parameter}: {reason}"),
            Err(other) => panic!("another refusal: {other}"),
            Ok(()) => panic!("candle-nn's gradients have become right: say so in the documents"),
        }
        let mut task = Bound::new(&CPU, |vb| ours::$model::new(vb), |net, x, _| net.forward(x)).unwrap().classes(batches.clone());
        task.check_gradients(&batches[0], Norm::Batch).unwrap();

        let vars = task.model().new_varmap(1).unwrap();
        let vb = || candle_nn::VarBuilder::from_varmap(&vars, candle_core::DType::F32, &CPU);
        let (a, b) = (candles::$model::new(vb()).unwrap(), ours::$model::new(vb()).unwrap());
        let (a, b) = (a.forward(&batches[0].0).unwrap(), b.forward(&batches[0].0).unwrap());
        let apart = (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(apart < 1e-4, "{apart}");

        let fit = FitConfig { epochs: 20, optimizer: Optimizer::adam(0.01), weight_decay: 0.0, ..Connect::garipov2018().fit };
        let epochs = train(&mut task, &vars, &fit, 1).unwrap();
        assert!(epochs[19].nll() < 0.5 * epochs[0].nll(), "{} {}", epochs[0].nll(), epochs[19].nll());
        (task, vars, fit)
    }};
}

#[test]
fn the_convolutional_network_of_candles_example() {
    let (mut task, a, fit) = repaired!(ConvNet, images(), "c1");
    // And what it is for: a curve.
    let b = task.model().new_varmap(2).unwrap();
    train(&mut task, &b, &fit, 2).unwrap();
    let run = connect(&mut task, &a, &b, Connect { points: 3, fit, ..Connect::garipov2018() }).unwrap();
    let (curve, line) = (run.profile(5).unwrap(), run.profile_straight(5).unwrap());
    assert!(curve.summary.train_loss.max < line.summary.train_loss.max);
}

#[test]
fn a_vision_transformer() {
    repaired!(ViT, images(), "");
}

#[test]
fn bert() {
    repaired!(Bert, sentences(), "");
}

#[test]
fn rotary_positions_rms_norms_and_a_convolution_over_tokens() {
    repaired!(Rotary, sentences(), "");
}
