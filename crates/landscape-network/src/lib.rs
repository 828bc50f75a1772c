//! The executor: a graph run forward and in reverse over landscape-kernels, with buffers planned once.
