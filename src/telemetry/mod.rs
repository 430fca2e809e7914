//! What the server says of itself: metrics for machines, logs for people.

pub mod catalogue;
pub mod family;
pub mod logs;
mod media;
pub mod metrics;
pub mod process;
mod relay;
pub mod sampler;
