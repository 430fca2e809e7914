//! Mixes as members hear them: speakers with a tone each, and what of it is in the mix of everybody else, by frequency.
//! Whole servers, real codecs, real sockets.

#![allow(clippy::print_stdout, reason = "tests show the figures that they measure")]

#[path = "../support/mod.rs"]
mod support;

mod gains;
mod limits;
mod listening;
mod moving;
mod tones;
mod voices;
