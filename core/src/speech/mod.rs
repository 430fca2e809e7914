//! Who speaks, and who of them is forwarded.

pub mod select;
pub mod spurt;
