//! What nodes share in Redis, with real servers: each test has its own, and each node is a whole connection of its own,
//! as separate processes have.
//!
//! Leases and graces are set short; waiting is for events, with limits that only a failing test reaches, but where the
//! time itself is what is tested.

#[path = "../support/mod.rs"]
mod support;

mod faults;
mod leases;
mod membership;
mod node;
mod servers;
mod sessions;
