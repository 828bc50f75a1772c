//! Which tensors of a candle model are statistics and not weights, and what stands in their place between the ends.

use crate::params::Buffers;
use serde::{Deserialize, Serialize};

/// What the buffers are at a point that is no control point. Batch-norm statistics are a function of weights and data, so none of
/// these is right between the ends: they are what can be had without data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BufferPolicy {
    /// Those of the control point with the largest coefficient (the first of equals): on a segment, the nearest end's.
    #[default]
    Nearest,
    /// Σ_k c_k b_k, as loss-landscape (`--dir_type states`) and AutoNEB have it; integers are those of [`BufferPolicy::Nearest`].
    Interpolated,
    /// Those of one control point everywhere.
    Of(usize),
}

/// The names of a model's buffers, with what becomes of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BufferNames {
    names: Vec<String>,
    policy: BufferPolicy,
}

impl BufferNames {
    /// A model without buffers.
    pub fn none() -> Self {
        BufferNames { names: Vec::new(), policy: BufferPolicy::Nearest }
    }

    /// With this policy.
    pub fn with_policy(self, policy: BufferPolicy) -> Self {
        BufferNames { policy, ..self }
    }

    /// With [`BufferPolicy::Interpolated`].
    pub fn interpolated(self) -> Self {
        self.with_policy(BufferPolicy::Interpolated)
    }

    /// What becomes of the buffers between control points.
    pub fn policy(&self) -> BufferPolicy {
        self.policy
    }

    /// Whether the tensor of that name is a buffer: if it has one of the names, or its last part (after a dot) is one of them.
    ///
    /// ```
    /// use landscape_core::Buffers;
    /// let names = Buffers::named(["running_mean"]);
    /// assert!(names.contains("layer1.0.bn1.running_mean"));
    /// assert!(!names.contains("layer1.0.bn1.weight"));
    /// ```
    pub fn contains(&self, tensor: &str) -> bool {
        self.names.iter().any(|name| tensor == name || tensor.strip_suffix(name).is_some_and(|rest| rest.ends_with('.')))
    }
}

impl Buffers {
    /// The tensors of a candle model that are statistics and not weights, by the last part of their names or the whole of it; with
    /// [`BufferPolicy::Nearest`]. Buffers are never blended unless that is asked for.
    pub fn named<S: Into<String>>(names: impl IntoIterator<Item = S>) -> BufferNames {
        BufferNames { names: names.into_iter().map(Into::into).collect(), policy: BufferPolicy::Nearest }
    }
}
