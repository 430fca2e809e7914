//! The pure core of Antiphon.
//!
//! What a server and a client in Rust both need, and every decision of the media path: wire types,
//! sealing, replay windows, frames and bundles, speaker selection, talk spurts, jitter buffer, key
//! rotation, journal positions, permissions.
//!
//! It has no sockets, no clock, no randomness of its own and no async. Each state machine is driven by
//! calls that carry the time ([`clock::Micros`]) and any randomness, and returns what to do as values.

pub mod clock;
pub mod e_model;
pub mod engine;
pub mod gateway;
pub mod ids;
pub mod interarrival;
pub mod jitter;
pub mod journal;
pub mod netsim;
pub mod opus_packet;
pub mod permission;
pub mod prng;
pub mod quality;
pub mod replay;
pub mod rotation;
pub mod seal;
pub mod speech;
pub mod wire;
