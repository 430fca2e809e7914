//! What the server says of itself: metrics for machines, logs for people.

pub mod catalogue;
pub mod family;
mod family_label;
pub mod logs;
mod media;
pub mod metrics;
mod mix;
pub mod process;
mod relay;
pub mod sampler;
