//! The native client of Antiphon, and what the load tester is built on.
//!
//! [`voice`] is the client's voice as state machines without sockets or clocks, [`audio`] what reads and writes
//! sound in files.

pub mod audio;
pub mod voice;
