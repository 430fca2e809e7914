//! What mixing counts.

use crate::counting::counters;

/// What a counter counts. Counters of one family are told apart by a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MixFamily {
    /// Frames of speakers that did not get into a mix; label: reason.
    FramesDropped,
    /// Packets of speakers, as they were played; label: how.
    Packets,
    /// Packets encoded; label: for how many.
    Encodes,
    /// Frames given to listeners.
    Mixed,
    /// Mixes that could not be made for lack of a codec.
    Failed,
}

counters! {
    /// What one thread's mixes counted since they began.
    stats MixStats;
    /// One number of [`MixStats`].
    counters MixCounter of MixFamily;
    /// Twice, too late, or more than the buffer holds.
    NotBuffered: FramesDropped, "not_buffered";
    /// Others are louder, and as many are mixed as may be.
    NotSelected: FramesDropped, "not_selected";
    /// Left out to get rid of delay.
    Skipped: FramesDropped, "skipped";
    /// Decoded.
    Decoded: Packets, "decoded";
    /// Missing in their time, and made up.
    Concealed: Packets, "concealed";
    /// Likewise, with the help of the packet behind them.
    Recovered: Packets, "recovered";
    /// No packets of Opus: silence in their place.
    Undecodable: Packets, "undecodable";
    /// For everyone who is silent.
    EncodedShared: Encodes, "shared";
    /// For one alone, who speaks or has levels of their own.
    EncodedOwn: Encodes, "own";
    /// To listeners.
    FramesMixed: Mixed;
    /// No decoder or encoder, or it refused.
    CodecFailed: Failed;
}
