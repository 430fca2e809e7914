//! The engine of a media worker: one state machine, driven by datagrams, commands and the time.

mod api;

pub use api::*;
