//! Recordings: whole servers, real sockets, real files. What people say is known packet by packet, and when they said it.

#![allow(clippy::print_stdout, reason = "tests show the figures that they measure")]

#[path = "../support/mod.rs"]
mod support;

mod after_death;
mod channel;
mod files;
mod limits;
mod mixes;
mod permissions;
mod three_speakers;
