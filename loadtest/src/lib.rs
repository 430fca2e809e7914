//! The native client of Antiphon, and what the load tester is built on.
//!
//! [`client`] is a client for ordinary use. It is made of [`voice`], the client's voice as state machines without
//! sockets or clocks, and [`gateway`], the session over a WebSocket; [`rest`] is what is needed of the HTTP API and
//! [`audio`] reads and writes sound in files.
//! [`play`] and [`record`] put these together; [`load`] drives and measures servers with many clients at once
//! as a [`scenario`] says, and
//! [`scale`] computes and simulates what clusters too large to be driven would carry, and [`speech`] how a voice sounds through a bad
//! network.

pub mod audio;
pub mod client;
mod duration;
pub mod gateway;
pub mod load;
pub mod play;
pub mod record;
pub mod report;
pub mod rest;
pub mod scale;
pub mod scenario;
mod server_url;
pub mod speech;
pub mod tls;
pub mod voice;

pub use duration::{DurationError, parse_duration};
pub use server_url::{ServerUrl, ServerUrlError};
