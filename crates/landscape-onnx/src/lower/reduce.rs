//! Means and sums along axes.

use super::{Call, Importer, Lowered};
use crate::value::{Axis, Live, axis_of};
use landscape_graph::Op;

impl Importer {
    pub fn reduce(&mut self, op: &str, call: &Call) -> Lowered<Live> {
        let x = self.live(call.input(0)?)?;
        let rank = x.axes.len();
        let axes = match (call.optional(1), call.ints("axes")) {
            (Some(axes), _) => self.fixed_ints(axes, "the axes")?,
            (None, Some(axes)) => axes.to_vec(),
            (None, None) if call.flag("noop_with_empty_axes") => return Ok(x),
            (None, None) => (0..rank as i64).collect(),
        };
        let mut axes = axes.into_iter().map(|axis| axis_of(axis, rank)).collect::<Lowered<Vec<_>>>()?;
        axes.sort_unstable();
        axes.dedup();
        let keep = call.int("keepdims").unwrap_or(1) != 0;
        let locals = axes.iter().map(|&axis| x.local(axis)).collect::<Lowered<Vec<_>>>()?;
        let n: usize = axes.iter().map(|&axis| if let Axis::Local(n) = x.axes[axis] { n } else { 1 }).product();
        let mut id = x.id;
        // Means of neighbours together; those of the others one after the other, which is the same.
        let mut rest = locals.as_slice();
        while let Some((&end_dim, _)) = rest.split_last() {
            let run = rest.iter().rev().enumerate().take_while(|&(back, &dim)| dim + back == end_dim).count();
            let start_dim = end_dim + 1 - run;
            let is_image = self.ir.shape(id).len() == 3 && (start_dim, end_dim) == (1, 2);
            let mean = if is_image { Op::GlobalAvgPool } else { Op::Mean { start_dim, end_dim, keepdim: true } };
            id = self.ir.push(mean, &[id])?;
            rest = &rest[..rest.len() - run];
        }
        if op == "ReduceSum" {
            id = self.ir.push(Op::Affine { scale: n as f64, shift: 0.0 }, &[id])?;
        }
        let kept = x.axes.iter().enumerate().filter_map(|(axis, &length)| match axes.contains(&axis) {
            true => keep.then_some(Axis::Local(1)),
            false => Some(length),
        });
        self.reaxed(id, kept.collect())
    }
}
