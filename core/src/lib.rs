//! The pure core of Antiphon.
//!
//! What a server and a client in Rust both need, and every decision of the media path: wire types,
//! sealing, replay windows, frames and bundles, speaker selection, talk spurts, jitter buffer, key
//! rotation, ring and relay of the nodes, journal positions, permissions.
//!
//! It has no sockets, no clock, no randomness of its own and no async. Each state machine is driven by
//! calls that carry the time ([`clock::Micros`]) and any randomness, and returns what to do as values.

pub mod clock;
mod counting;
pub mod e_model;
pub mod engine;
pub mod gateway;
mod gcm;
mod hash;
pub mod ids;
pub mod interarrival;
pub mod jitter;
pub mod journal;
pub mod mix;
pub mod netsim;
pub mod opus_packet;
pub mod permission;
pub mod prefetch;
pub mod prng;
pub mod quality;
pub mod red;
pub mod relay;
pub mod repeats;
pub mod replay;
pub mod ring;
pub mod rotation;
pub mod rtcp;
pub mod rtp;
pub mod seal;
mod slab;
pub mod speech;
pub mod srtp;
pub mod twcc;
pub mod video;
pub mod voice;
pub mod wire;
