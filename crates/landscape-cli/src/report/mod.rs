//! One HTML file about runs, made from their records, that needs nothing but itself.

pub mod page;
pub mod rerun;
pub mod run;
pub mod tables;
