//! What each place of an axis is made of: places of the other axis, and their weights.

use super::Upsampling;

/// Lists of places and weights, one after the other.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Taps {
    /// Where each list begins, and the end of the last.
    pub starts: Vec<u32>,
    pub places: Vec<u32>,
    pub weights: Vec<f64>,
}

impl Taps {
    /// Of the outputs of an axis.
    pub fn new(method: Upsampling, in_size: usize, out_size: usize) -> Taps {
        Taps::from_lists((0..out_size).map(|out| match method {
            Upsampling::Nearest => vec![(nearest(in_size, out_size, out), 1.0)],
            Upsampling::Bilinear { align_corners } => {
                let at = if align_corners {
                    out as f64 * if out_size > 1 { (in_size - 1) as f64 / (out_size - 1) as f64 } else { 0.0 }
                } else {
                    ((out as f64 + 0.5) * (in_size as f64 / out_size as f64) - 0.5).max(0.0)
                };
                let first = (at as usize).min(in_size - 1);
                let part = if first + 1 < in_size { at - first as f64 } else { 0.0 };
                if part == 0.0 { vec![(first, 1.0)] } else { vec![(first, 1.0 - part), (first + 1, part)] }
            }
        }))
    }

    fn from_lists(lists: impl Iterator<Item = Vec<(usize, f64)>>) -> Taps {
        let mut taps = Taps { starts: vec![0], places: Vec::new(), weights: Vec::new() };
        for list in lists {
            taps.places.extend(list.iter().map(|(place, _)| *place as u32));
            taps.weights.extend(list.iter().map(|(_, weight)| weight));
            taps.starts.push(taps.places.len() as u32);
        }
        taps
    }

    /// The other way round: for each of `n` places the lists that it is in, in their order.
    pub fn turned(&self, n: usize) -> Taps {
        let mut lists = vec![Vec::new(); n];
        for out in 0..self.len() {
            let (places, weights) = self.of(out);
            places.iter().zip(weights).for_each(|(&place, &weight)| lists[place as usize].push((out, weight)));
        }
        Taps::from_lists(lists.into_iter())
    }

    /// How many lists there are.
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// The places and weights of one list.
    #[inline(always)]
    pub fn of(&self, idx: usize) -> (&[u32], &[f64]) {
        let range = self.starts[idx] as usize..self.starts[idx + 1] as usize;
        (&self.places[range.clone()], &self.weights[range])
    }
}

/// PyTorch's rule, in single precision as there.
fn nearest(in_size: usize, out_size: usize, out: usize) -> usize {
    if out_size == in_size {
        out
    } else if out_size == 2 * in_size {
        out / 2
    } else {
        ((out as f32 * (in_size as f32 / out_size as f32)).floor() as usize).min(in_size - 1)
    }
}
