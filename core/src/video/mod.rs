//! Decisions about video that is forwarded as it came: where a picture can be entered, which of a publisher's layers a
//! subscriber gets, what its packets are numbered, and when the publisher is asked for a whole picture.

mod codec;
mod crossing;
mod keyframes;
mod layers;
mod rewrite;
mod way;
mod wire;

pub use codec::VideoCodec;
pub use keyframes::{KEYFRAME_INTERVAL, KeyframeRequests};
pub use layers::{LAYERS_MAX, Track, allocate, desired_bps};
pub use rewrite::{Numbers, Rewriter};
pub use way::{Sight, Step, Way};
pub use wire::{MEETING_BYTES_MAX, Meeting, PICTURE_HEAD_BYTES, PictureHead};
