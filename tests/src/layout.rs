//! Images from PyTorch's order to ours and back, by the definition: the twin of `landscape_kernels::shape`.

/// `[n, c, h, w]` to `[n, h, w, c]`.
pub fn nhwc(x: &[f64], n: usize, channels: usize, size: [usize; 2]) -> Vec<f64> {
    let n_pixels = size[0] * size[1];
    let mut y = vec![0.0; x.len()];
    for (i, &value) in x.iter().enumerate().take(n * channels * n_pixels) {
        let (example, channel, pixel) = (i / (channels * n_pixels), i / n_pixels % channels, i % n_pixels);
        y[(example * n_pixels + pixel) * channels + channel] = value;
    }
    y
}

/// `[n, h, w, c]` to `[n, c, h, w]`.
pub fn nchw(x: &[f64], n: usize, channels: usize, size: [usize; 2]) -> Vec<f64> {
    // The same exchange of two axes: channels in the role of pixels.
    nhwc(x, n, size[0] * size[1], [1, channels])
}
