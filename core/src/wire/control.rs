//! Bind, Ping, their answers, and reports (PROTOCOL 1.3).

use crate::ids::StreamId;

/// What a client says of one stream it receives, about every 2 s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportBlock {
    /// Which stream it receives.
    pub stream: StreamId,
    /// Lost frames in 1/65536 of those expected.
    pub lost_fraction: u16,
    /// Round-trip time.
    pub round_trip_ms: u16,
    /// Interarrival jitter.
    pub jitter_us: u32,
    /// Frames received since the last report.
    pub received: u32,
}
