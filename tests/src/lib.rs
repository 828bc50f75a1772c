//! What the cross-crate tests share.

pub mod golden;
pub mod layout;
pub mod networks;
