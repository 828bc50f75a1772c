//! What transformers are made of, on every device: norms of rows and groups, softmax, rotary embedding, attention, batched products.

use crate::devices::{Case, both_modes, case, fresh, narrow, put};
use crate::values;
use landscape_kernels::attention::{self, AttentionShape, Mask};
use landscape_kernels::group_norm::{self, GroupNormShape};
use landscape_kernels::layer_norm::{self, LayerNormShape};
use landscape_kernels::matmul::{self, MatmulShape};
use landscape_kernels::rope::{self, RopeShape, RopeStyle};
use landscape_kernels::{Accumulate, Memory, Real, rms_norm, softmax};

const EPS: f64 = 1e-5;

pub fn all<T: Real>() -> Vec<Case<T>> {
    [softmaxes(), layer_norms(), group_norms(), ropes(), attentions(), products()].into_iter().flatten().collect()
}

fn softmaxes<T: Real>() -> Vec<Case<T>> {
    let mut cases = Vec::new();
    for (n_rows, len) in [(37, 10), (3, 1), (9, 197), (0, 3), (4, 0)] {
        cases.push(case(format!("softmax {n_rows}x{len}"), 32.0, move |d| {
            let n = n_rows * len;
            let mut x: Vec<f64> = values(n, 1).iter().map(|v| 8.0 * v).collect();
            if len > 2 && n_rows > 2 {
                // Some masked, all masked, and a NaN.
                x[1..len].fill(f64::NEG_INFINITY);
                x[len..2 * len].fill(f64::NEG_INFINITY);
                x[2 * len] = f64::NAN;
            }
            let (x, dy, mut y) = (Memory::from_host(d, narrow::<T>(&x)), put::<T>(d, n, 2), fresh(d, n));
            softmax::forward(n_rows, len, x.view(), y.view_mut())?;
            let mut all = both_modes(d, n, |dx, mode| softmax::backward(n_rows, len, y.view(), dy.view(), dx.view_mut(), mode))?;
            all.push(y.to_host()?);
            Ok(all)
        }));
    }
    cases
}

fn layer_norms<T: Real>() -> Vec<Case<T>> {
    let mut cases = Vec::new();
    for (n_rows, len) in [(37, 70), (300, 3), (2, 1000), (0, 3), (3, 0)] {
        for affine in [true, false] {
            cases.push(case(format!("layer and RMS norm {n_rows}x{len} {affine}"), 256.0, move |d| {
                let s = LayerNormShape { n_rows, len };
                let n = n_rows * len;
                let (x, dy, w, b) = (put::<T>(d, n, 1), put::<T>(d, n, 2), put::<T>(d, len, 3), put::<T>(d, len, 4));
                let (weight, bias) = (affine.then(|| w.view()), affine.then(|| b.view()));
                let (mut y, mut rms) = (fresh::<T>(d, n), fresh::<T>(d, n));
                layer_norm::forward(&s, EPS, x.view(), weight, bias, y.view_mut())?;
                rms_norm::forward(&s, EPS, x.view(), weight, rms.view_mut())?;
                let mut all = vec![y.to_host()?, rms.to_host()?];
                let mut dx = fresh::<T>(d, n);
                all.extend(both_modes(d, len, |dw, mode| {
                    let into = Some((dx.view_mut(), Accumulate::Overwrite));
                    layer_norm::backward(&s, EPS, x.view(), weight, dy.view(), into, Some(dw.view_mut()), None, mode)
                })?);
                all.extend(both_modes(d, len, |db, mode| {
                    layer_norm::backward(&s, EPS, x.view(), weight, dy.view(), None, None, Some(db.view_mut()), mode)
                })?);
                all.push(dx.to_host()?);
                let mut dw = fresh::<T>(d, len);
                all.extend(both_modes(d, n, |dx, mode| {
                    let (dx, dw) = (Some((dx.view_mut(), mode)), Some(dw.view_mut()));
                    rms_norm::backward(&s, EPS, x.view(), weight, dy.view(), dx, dw, Accumulate::Overwrite)
                })?);
                all.push(dw.to_host()?);
                Ok(all)
            }));
        }
    }
    cases
}

fn group_norms<T: Real>() -> Vec<Case<T>> {
    let mut cases = Vec::new();
    for [n, pixels, channels, groups] in [[3, 35, 12, 4], [2, 400, 40, 1], [1, 9, 6, 6], [0, 3, 4, 2], [2, 0, 4, 2]] {
        cases.push(case(format!("group norm {n}x{pixels}x{channels}/{groups}"), 256.0, move |d| {
            let s = GroupNormShape { n, pixels, channels, groups };
            let len = n * pixels * channels;
            let (x, dy, w, b) = (put::<T>(d, len, 1), put::<T>(d, len, 2), put::<T>(d, channels, 3), put::<T>(d, channels, 4));
            let (mut y, mut plain) = (fresh::<T>(d, len), fresh::<T>(d, len));
            group_norm::forward(&s, EPS, x.view(), Some(w.view()), Some(b.view()), y.view_mut())?;
            group_norm::forward(&s, EPS, x.view(), None, None, plain.view_mut())?;
            let mut all = vec![y.to_host()?, plain.to_host()?];
            let (mut dw, mut db) = (fresh::<T>(d, channels), fresh::<T>(d, channels));
            for weight in [Some(w.view()), None] {
                all.extend(both_modes(d, len, |dx, mode| {
                    let (dx, dw, db) = (Some((dx.view_mut(), mode)), Some(dw.view_mut()), Some(db.view_mut()));
                    group_norm::backward(&s, EPS, x.view(), weight, dy.view(), dx, dw, db, Accumulate::Overwrite)
                })?);
            }
            all.extend([dw.to_host()?, db.to_host()?]);
            Ok(all)
        }));
    }
    cases
}

fn ropes<T: Real>() -> Vec<Case<T>> {
    let mut cases = Vec::new();
    for style in [RopeStyle::Half, RopeStyle::Interleaved] {
        for [n_rows, len, heads, head_dim, rotary_dim] in [[2, 37, 3, 10, 6], [1, 20, 2, 32, 32], [2, 3, 2, 5, 0], [0, 3, 1, 2, 2]] {
            cases.push(case(format!("rope {style:?} {len}x{head_dim}/{rotary_dim}"), 64.0, move |d| {
                let s = RopeShape { n_rows, len, heads, head_dim, rotary_dim, base: 1e4, style };
                let n = n_rows * len * heads * head_dim;
                let (x, mut y) = (put::<T>(d, n, 1), fresh::<T>(d, n));
                rope::forward(&s, x.view(), y.view_mut())?;
                let mut all = both_modes(d, n, |dx, mode| rope::backward(&s, x.view(), dx.view_mut(), mode))?;
                all.push(y.to_host()?);
                Ok(all)
            }));
        }
    }
    cases
}

fn attentions<T: Real>() -> Vec<Case<T>> {
    let mut cases = Vec::new();
    let sizes = [[2, 37, 37, 4, 2, 8, 8], [1, 5, 70, 2, 1, 3, 6], [2, 33, 4, 3, 3, 16, 2], [0, 2, 2, 2, 2, 3, 3], [2, 3, 0, 2, 1, 3, 3]];
    for [n, q_len, kv_len, heads, kv_heads, head_dim, v_dim] in sizes {
        for mask in [Mask::None, Mask::Causal] {
            cases.push(case(format!("attention {q_len}x{kv_len}x{heads}/{kv_heads} {mask:?}"), 300.0, move |d| {
                let s = AttentionShape { n, q_len, kv_len, heads, kv_heads, head_dim, v_dim, mask, scale: 0.9 };
                let [q_n, k_n, v_n] = [n * q_len * heads * head_dim, n * kv_len * kv_heads * head_dim, n * kv_len * kv_heads * v_dim];
                let y_n = n * q_len * heads * v_dim;
                let (q, k, v, dy) = (put::<T>(d, q_n, 1), put::<T>(d, k_n, 2), put::<T>(d, v_n, 3), put::<T>(d, y_n, 4));
                let [mut y, mut dq, mut dk, mut dv] = [y_n, q_n, k_n, v_n].map(|n| fresh::<T>(d, n));
                attention::forward(&s, q.view(), k.view(), v.view(), y.view_mut())?;
                let (into_q, into_k, into_v) = (dq.view_mut(), dk.view_mut(), dv.view_mut());
                attention::backward(&s, q.view(), k.view(), v.view(), dy.view(), into_q, into_k, into_v)?;
                Ok(vec![y.to_host()?, dq.to_host()?, dk.to_host()?, dv.to_host()?])
            }));
        }
    }
    cases
}

fn products<T: Real>() -> Vec<Case<T>> {
    let mut cases = Vec::new();
    for [n, m, k, cols] in [[3, 17, 33, 20], [1, 70, 5, 66], [2, 4, 0, 3], [0, 2, 3, 4], [2, 0, 3, 4]] {
        cases.push(case(format!("matmul {n}x{m}x{k}x{cols}"), 100.0, move |d| {
            let s = MatmulShape { n, m, k, cols };
            let [a_n, b_n, y_n] = s.lens()?;
            let (a, b, dy, mut y) = (put::<T>(d, a_n, 1), put::<T>(d, b_n, 2), put::<T>(d, y_n, 3), fresh::<T>(d, y_n));
            matmul::forward(&s, a.view(), b.view(), y.view_mut())?;
            let mut all = both_modes(d, a_n, |da, mode| matmul::backward_a(&s, b.view(), dy.view(), da.view_mut(), mode))?;
            all.extend(both_modes(d, b_n, |db, mode| matmul::backward_b(&s, a.view(), dy.view(), db.view_mut(), mode))?);
            all.push(y.to_host()?);
            Ok(all)
        }));
    }
    cases
}
