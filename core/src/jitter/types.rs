//! What goes into a jitter buffer beside frames, and what comes out.

use crate::{clock::Micros, wire::frame::FrameHeader};

/// What a player wants of its buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JitterConfig {
    /// The target delay before anything is known of the network.
    pub delay_initial: Micros,
    /// The least target delay.
    pub delay_min: Micros,
    /// The greatest target delay.
    pub delay_max: Micros,
    /// How many frames are kept; the oldest is dropped for one more.
    pub frames_max: usize,
    /// How many frames in a row are concealed while nothing arrives, before the spurt is taken to be over.
    pub conceal_run_max: u32,
    /// Whether frames may be left out to get rid of delay.
    pub catch_up: bool,
    /// Delay beyond target from which on every other frame is left out until the delay is what it should be, as after a
    /// burst that a stall held up: half a second is got rid of in half a second. `None`: never so many.
    pub recover_from: Option<Micros>,
}

impl Default for JitterConfig {
    /// For listening: as little delay as the network allows.
    fn default() -> Self {
        Self {
            delay_initial: Micros::from_millis(40),
            delay_min: Micros::from_millis(20),
            delay_max: Micros::from_millis(400),
            frames_max: 128,
            conceal_run_max: 5,
            catch_up: true,
            recover_from: None,
        }
    }
}

impl JitterConfig {
    /// For recording: every frame that arrives is worth more than a short delay.
    #[must_use]
    pub fn recording() -> Self {
        Self {
            delay_initial: Micros::from_millis(200),
            delay_min: Micros::from_millis(200),
            delay_max: Micros::from_secs(1),
            frames_max: 1_024,
            conceal_run_max: 5,
            catch_up: false,
            recover_from: None,
        }
    }

    /// For mixing: everybody hears the same, so nobody's bad moment may keep their voice late for long.
    #[must_use]
    pub fn mixing() -> Self {
        Self { recover_from: Some(Micros::from_millis(120)), ..Self::default() }
    }
}

/// What became of a frame that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It waits for its time.
    Queued,
    /// It was there before.
    Duplicate,
    /// Its time is over.
    Late,
    /// It is no frame: an unknown kind, an empty Audio, or too long.
    Refused,
}

/// What to play next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Playout<'a> {
    /// This frame.
    Play(PlayedFrame<'a>),
    /// Nothing came in time: let the decoder make something up.
    Conceal {
        /// For so long, in 48 kHz samples.
        samples: u32,
    },
    /// Nobody speaks: silence until the next tick.
    Silence,
}

/// A frame whose time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlayedFrame<'a> {
    /// Its header.
    pub header: FrameHeader,
    /// Its bytes, never empty.
    pub bytes: &'a [u8],
    /// How long it lasts, in 48 kHz samples; of end-to-end encrypted or redundant ones an assumption.
    pub samples: u32,
}

/// What the buffer has seen and done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JitterStats {
    /// Frames that arrived, without duplicates and refused ones.
    pub received: u64,
    /// Dropped: there before.
    pub duplicates: u64,
    /// Dropped: their time was over; as a rule they were counted as lost before.
    pub late: u64,
    /// Dropped: no frames.
    pub refused: u64,
    /// Dropped: too many waited.
    pub overflowed: u64,
    /// Left out to get rid of delay.
    pub skipped: u64,
    /// Numbers passed over within a talk spurt because nothing had arrived in time.
    pub lost: u64,
    /// Frames' worth of concealment played.
    pub concealed: u64,
    /// Frames handed out.
    pub played: u64,
    /// Talk spurts begun.
    pub spurts: u64,
}

impl JitterStats {
    /// How many frames should have come so far: what a report's loss is a share of.
    #[must_use]
    pub const fn expected(&self) -> u64 {
        self.received - self.late + self.lost
    }
}
