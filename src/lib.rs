//! Antiphon: a horizontally scalable, clustered voice server.
//!
//! `ARCHITECTURE.md` has the bird's-eye view; the binary in `main.rs` is a thin command line over this library.

// Handlers await rooms, which await the cluster, which awaits the Redis client: so deep are their futures' types.
#![recursion_limit = "256"]

pub mod alerts;
pub mod api;
pub mod auth;
pub mod batch;
pub mod chat;
pub mod client_address;
pub mod cluster;
pub mod doctor;
pub mod error;
pub mod gateway;
mod http_client;
#[cfg(test)]
mod layers;
pub mod media;
pub mod mixer;
pub mod notify;
pub mod origins;
mod places;
pub mod playback;
pub mod priority;
mod random;
pub mod rates;
pub mod recorder;
pub mod recordings;
pub mod rooms;
pub mod server;
pub mod settings;
pub mod store;
pub mod streaming;
mod tcp;
pub mod telemetry;
mod ticks;
mod tls;
pub mod transcode;
pub mod vitals;
