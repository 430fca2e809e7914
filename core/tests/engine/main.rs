//! The media engine as a whole, in virtual time.

mod reach;
mod routing;
mod world;
