//! Naive twins of the fast kernels: definitions written out in plain loops, to test against.

pub(crate) mod tools;

pub(crate) mod linear;
pub(crate) mod matmul;
pub(crate) mod conv2d;
pub(crate) mod batch_norm;
pub(crate) mod group_norm;
pub(crate) mod layer_norm;
pub(crate) mod activation;
pub(crate) mod pointwise;
pub(crate) mod broadcast;
pub(crate) mod dropout;
pub(crate) mod pool;
pub(crate) mod shape;
pub(crate) mod loss;
pub(crate) mod softmax;
pub(crate) mod rope;
pub(crate) mod attention;
pub(crate) mod blend;
pub(crate) mod step;

mod levels;
