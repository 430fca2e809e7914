//! The media engine as a whole, in virtual time.

mod hostile;
mod meeting;
mod mixing;
mod model;
mod network;
mod reach;
mod recording;
mod remote;
mod routing;
mod telling;
mod world;
