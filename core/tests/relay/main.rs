//! Relays of several nodes over networks that misbehave, in virtual time.

mod failure;
mod handover;
mod hostile;
mod limit;
mod meeting;
mod routing;
mod versions;
mod wire;
mod world;
