//! Frames: what Media datagrams hold back to back.

use crate::ids::StreamId;

/// Everything of a frame but its bytes.
///
/// ```text
///  stream id (4) | sequence (2) | timestamp (4) | kind and flags (1) | level (1) | length (2) | bytes
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Whose voice, in which channel.
    pub stream: StreamId,
    /// Grows by one with each frame of the stream.
    pub sequence: u16,
    /// 48 kHz sample clock.
    pub timestamp: u32,
    /// Kind (low 4 bits) and flags (high 4 bits).
    pub kind_flags: u8,
    /// RFC 6464 level, 0 to 127 as -dBov; 127 is silence.
    pub level: u8,
}
