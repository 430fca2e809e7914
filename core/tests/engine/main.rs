//! The media engine as a whole, in virtual time.

mod routing;
mod world;
