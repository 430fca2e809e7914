//! A cluster of server processes that share a Redis and a PostgreSQL of the test's own, on loopback. Nodes are killed,
//! stopped and drained for real.

#[path = "../support/mod.rs"]
mod support;

mod draining;
mod faults;
mod frozen;
mod outage;
mod partitions;
mod rolling;
mod talking;
mod versions;
