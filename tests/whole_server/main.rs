//! The whole server as a process of its own, reached through real sockets only.

#[path = "../support/mod.rs"]
mod support;

mod blocked_udp;
mod departed;
mod hostile;
mod load;
mod talk;
mod udp_proxy;

use support::{people, process};
