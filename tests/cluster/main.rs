//! A cluster of server processes that share a Redis and a PostgreSQL of the test's own, on loopback. Nodes are killed,
//! stopped, cut off and drained for real.

#![allow(clippy::print_stdout, reason = "tests show the figures that they measure")]

#[path = "../support/mod.rs"]
mod support;

mod chat;
mod draining;
mod faults;
mod figures;
mod frozen;
mod load;
mod outage;
mod partitions;
mod recorder;
mod rolling;
mod talking;
mod unheard;
mod versions;
