//! Pooling, and images of another size.

use super::conv::{Window, two};
use super::{Call, Importer, Lowered};
use crate::ir::Id;
use crate::value::Live;
use landscape_graph::{Op, Upsampling};

impl Importer {
    fn window(&mut self, call: &Call) -> Lowered<(Live, usize, Vec<usize>, Window)> {
        let (x, channels, size) = self.channels(call.input(0)?)?;
        let kernel = call.ints("kernel_shape").ok_or("`kernel_shape` is missing")?;
        let kernel = kernel.iter().map(|&k| usize::try_from(k)).collect::<Result<Vec<_>, _>>().map_err(|_| "a negative window")?;
        let window = Window::of(call, kernel, &size)?;
        if window.dilation.iter().any(|&d| d != 1) {
            return Err("`dilations` other than 1".to_owned());
        }
        Ok((x, channels, size, window))
    }

    /// By how much rounding up makes the padding behind larger.
    fn rounded_up(call: &Call, size: &[usize], window: &Window) -> Vec<usize> {
        let more = |d: usize| {
            let padded = size[d].saturating_add(window.pads[d][0]).saturating_add(window.pads[d][1]);
            let Some(steps) = padded.checked_sub(window.kernel[d]) else { return 0 };
            let rest = steps % window.stride[d];
            // A window that would begin in the padding behind is left out.
            let begins_inside = steps - rest + window.stride[d] < size[d] + window.pads[d][0];
            if rest > 0 && begins_inside { window.stride[d] - rest } else { 0 }
        };
        (0..size.len()).map(|d| if call.flag("ceil_mode") { more(d) } else { 0 }).collect()
    }

    /// An image of a signal, and back: signals have no pooling of their own.
    fn pooled(&mut self, x: &Live, op: Op) -> Lowered<Live> {
        let shape = self.ir.shape(x.id).clone();
        let id = match shape.as_slice() {
            &[c, len] => {
                let image = self.ir.push(Op::Reshape { shape: vec![c, 1, len] }, &[x.id])?;
                let pooled = self.ir.push(op, &[image])?;
                let len = self.ir.shape(pooled)[2];
                self.ir.push(Op::Reshape { shape: vec![c, len] }, &[pooled])?
            }
            _ => self.ir.push(op, &[x.id])?,
        };
        Ok(self.of_batch(id))
    }

    pub fn max_pool(&mut self, call: &Call) -> Lowered<Live> {
        if call.node.output.iter().skip(1).any(|output| !output.is_empty()) {
            return Err("the places of the largest numbers are not supported".to_owned());
        }
        let (mut x, _, size, mut window) = self.window(call)?;
        for (d, more) in Self::rounded_up(call, &size, &window).into_iter().enumerate() {
            window.pads[d][1] += more;
        }
        let wide = window.pads.iter().zip(&window.kernel).any(|(pad, kernel)| pad[0] > kernel / 2);
        if !window.is_symmetric() || wide {
            let pads: Vec<[usize; 2]> = std::iter::once([0, 0]).chain(window.pads.iter().copied()).collect();
            x = self.padded(&x, &pads, f64::from(f32::MIN))?;
            window.pads.fill([0, 0]);
        }
        let [kernel_size, stride, padding] = in_image(&window)?;
        self.pooled(&x, Op::MaxPool2d { kernel_size, stride, padding })
    }

    pub fn average_pool(&mut self, call: &Call) -> Lowered<Live> {
        let (mut x, _, size, mut window) = self.window(call)?;
        let count_include_pad = call.flag("count_include_pad");
        if Self::rounded_up(call, &size, &window).iter().any(|&more| more > 0) {
            return Err("`ceil_mode`, where it makes windows that hang over the end".to_owned());
        }
        if !window.is_symmetric() {
            if !count_include_pad {
                return Err(format!("`pads` must be the same on both sides, got {:?}", window.pads));
            }
            let pads: Vec<[usize; 2]> = std::iter::once([0, 0]).chain(window.pads.iter().copied()).collect();
            x = self.padded(&x, &pads, 0.0)?;
            window.pads.fill([0, 0]);
        }
        let [kernel_size, stride, padding] = in_image(&window)?;
        self.pooled(&x, Op::AvgPool2d { kernel_size, stride, padding, count_include_pad })
    }

    pub fn global_average_pool(&mut self, call: &Call) -> Lowered<Live> {
        let (x, _, size) = self.channels(call.input(0)?)?;
        let op = if size.len() == 2 { Op::GlobalAvgPool } else { Op::Mean { start_dim: 1, end_dim: size.len(), keepdim: true } };
        let id = self.ir.push(op, &[x.id])?;
        Ok(self.of_batch(id))
    }

    pub fn resize(&mut self, call: &Call) -> Lowered<Live> {
        let (x, _, size) = self.channels(call.input(0)?)?;
        let [h, w] = two(&size)?;
        let upsample = call.node.op_type() == "Upsample";
        if call.attribute("axes").is_some_and(|a| !a.ints.is_empty()) {
            return Err("`axes` are not supported".to_owned());
        }
        let (scales, sizes) = if upsample { (call.optional(1), None) } else { (call.optional(2), call.optional(3)) };
        let size = if let Some(sizes) = sizes {
            let sizes = self.ints(sizes, "the sizes")?;
            let last: Vec<usize> = sizes.iter().skip(2).filter_map(|n| usize::try_from(n.known()?).ok()).collect();
            two(&last)?
        } else {
            let scales = self.constant(scales.ok_or("it has neither scales nor sizes")?, "the scales")?;
            match scales.numbers.to_f64().as_deref() {
                Some(&[1.0, 1.0, by_h, by_w]) if by_h > 0.0 && by_w > 0.0 => {
                    [(h as f64 * by_h).floor() as usize, (w as f64 * by_w).floor() as usize]
                }
                _ => return Err("the scales must be 1, 1 and two positive numbers".to_owned()),
            }
        };
        let is_whole = size[0].is_multiple_of(h) && size[1].is_multiple_of(w);
        let default = if upsample { "asymmetric" } else { "half_pixel" };
        let transformation = call.text("coordinate_transformation_mode").unwrap_or(default.into()).into_owned();
        let nearest_mode = call.text("nearest_mode").unwrap_or("round_prefer_floor".into()).into_owned();
        let method = match (call.text("mode").as_deref().unwrap_or("nearest"), transformation.as_str()) {
            ("nearest", "asymmetric") if nearest_mode == "floor" || is_whole && upsample => Upsampling::Nearest,
            // For whole factors these fall on the same pixels.
            ("nearest", "half_pixel" | "pytorch_half_pixel") if is_whole && nearest_mode.starts_with("round_prefer") => Upsampling::Nearest,
            ("linear", "half_pixel" | "pytorch_half_pixel") if size.iter().all(|&n| n > 1) || transformation == "half_pixel" => {
                Upsampling::Bilinear
            }
            ("linear", "align_corners") => Upsampling::BilinearAlignCorners,
            (mode, at) => return Err(format!("`mode` `{mode}` with `{at}` and `nearest_mode` `{nearest_mode}`")),
        };
        if call.flag("antialias") {
            return Err("`antialias`".to_owned());
        }
        let id: Id = self.ir.push(Op::Upsample { size, method }, &[x.id])?;
        Ok(self.of_batch(id))
    }
}

/// Kernel, step and padding of an image; a signal is one row.
fn in_image(window: &Window) -> Lowered<[[usize; 2]; 3]> {
    let padding = window.padding();
    match window.kernel.len() {
        1 => Ok([[1, window.kernel[0]], [1, window.stride[0]], [0, padding[0]]]),
        _ => Ok([two(&window.kernel)?, two(&window.stride)?, two(&padding)?]),
    }
}
