//! Benchmarks of the workspace; see `micro/`.
