//! The HTTP API: REST over JSON, health, metrics, and the documents that describe it.

pub mod client_address;
pub mod error;
pub mod limits;
