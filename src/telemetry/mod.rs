//! What the server says of itself: metrics for machines, logs for people.

mod buckets;
pub mod catalogue;
pub mod family;
mod family_label;
mod labels;
pub mod logs;
mod media;
pub mod metrics;
mod mix;
pub mod process;
mod relay;
pub mod sampler;
