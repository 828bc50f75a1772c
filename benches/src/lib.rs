//! Jobs that the suites of `benches/suites` measure, and the protocol by which `cargo xtask bench` runs them.
//!
//! A job is a process of its own, described by one JSON argument ([`request`]). It makes its numbers by a formula that the peers'
//! scripts share ([`values`]), says what it computed ([`worker`]), and then runs a block of repetitions whenever it is told to, so that
//! blocks of several processes can be interleaved. Micro-benchmarks by criterion are in `micro/`.

pub mod request;
pub mod values;
pub mod memory;
pub mod worker;
pub mod jobs;
