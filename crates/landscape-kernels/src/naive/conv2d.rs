//! Convolution by seven loops, in double precision, on the layouts of PyTorch's definition: x `[n, h, w, c]`, weight
//! `[out, in/groups, kh, kw]`.

use crate::conv2d::Conv2dShape;

/// Calls `f(x index, weight index, y index)` for every product of the convolution.
fn visit(s: &Conv2dShape, mut f: impl FnMut(usize, usize, usize)) {
    let [oh, ow] = s.out_size();
    let [h, w] = s.in_size;
    let (in_group, out_group) = (s.in_channels / s.groups, s.out_channels / s.groups);
    for n in 0..s.n {
        for i in 0..oh {
            for j in 0..ow {
                for o in 0..s.out_channels {
                    for c in 0..in_group {
                        for r in 0..s.kernel_size[0] {
                            for t in 0..s.kernel_size[1] {
                                let y = (i * s.stride[0] + r * s.dilation[0]) as isize - s.padding[0] as isize;
                                let x = (j * s.stride[1] + t * s.dilation[1]) as isize - s.padding[1] as isize;
                                if y < 0 || x < 0 || y as usize >= h || x as usize >= w {
                                    continue;
                                }
                                let channel = o / out_group * in_group + c;
                                f(
                                    ((n * h + y as usize) * w + x as usize) * s.in_channels + channel,
                                    ((o * in_group + c) * s.kernel_size[0] + r) * s.kernel_size[1] + t,
                                    ((n * oh + i) * ow + j) * s.out_channels + o,
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}

pub(crate) fn forward(s: &Conv2dShape, x: &[f64], weight: &[f64], bias: Option<&[f64]>) -> Vec<f64> {
    let mut y: Vec<f64> = (0..s.out_len()).map(|i| bias.map_or(0.0, |b| b[i % s.out_channels])).collect();
    visit(s, |xi, wi, yi| y[yi] += x[xi] * weight[wi]);
    y
}

pub(crate) fn backward_input(s: &Conv2dShape, weight: &[f64], dy: &[f64]) -> Vec<f64> {
    let mut dx = vec![0.0; s.in_len()];
    visit(s, |xi, wi, yi| dx[xi] += weight[wi] * dy[yi]);
    dx
}

pub(crate) fn backward_weight(s: &Conv2dShape, x: &[f64], dy: &[f64]) -> Vec<f64> {
    let mut dweight = vec![0.0; s.weight_len()];
    visit(s, |xi, wi, yi| dweight[wi] += x[xi] * dy[yi]);
    dweight
}
