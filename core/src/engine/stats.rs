//! What an engine counts: every datagram and frame, and why one went no further.

use crate::{counting::counters, wire::datagram::HeaderError};

/// What a counter counts. Counters of one family are told apart by a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// Authentic datagrams received; label: type.
    DatagramsReceived,
    /// Datagrams dropped on arrival, unanswered; label: reason.
    DatagramsDropped,
    /// Frames accepted from members.
    FramesAccepted,
    /// Frames of members on other nodes, taken from the relay.
    FramesRemote,
    /// Frames dropped, after their datagram was found authentic or by the gateway; label: reason.
    FramesDropped,
    /// Frames missing between the sequence numbers of accepted ones.
    FramesLost,
    /// Frames delivered over UDP: each listener of each frame counts.
    FramesSent,
    /// Frames given to the control plane for members without proven UDP.
    FramesTunnelled,
    /// Frames given to WebRTC peers: each listener of each frame counts.
    FramesToPeers,
    /// Frames given to the mixer, for members who hear a mix.
    FramesToMixer,
    /// Frames of mixes sent to their listeners: each listener counts.
    FramesMixed,
    /// Frames of members given to the recorder.
    FramesToRecorder,
    /// Media datagrams sent; label: how many frames they carry.
    DatagramsSent,
    /// BindAcks and Pongs sent.
    Answers,
    /// Bytes of all datagrams sent.
    BytesSent,
    /// Times a datagram was sealed.
    Sealed,
    /// Frames handed to another worker.
    FramesHandedOver,
    /// Events that the control plane had no room for; label: whether they are told again.
    EventsRefused,
    /// Commands that name what does not exist, or carry a key of the wrong length.
    CommandsRefused,
    /// Now: UDP sessions; label: state.
    Sessions,
    /// Now: channels whose home is this worker.
    Channels,
    /// Now: members of those channels.
    Members,
}

impl Family {
    /// Whether its numbers go up and down; the others only grow.
    #[must_use]
    pub const fn is_gauge(self) -> bool {
        matches!(self, Self::Sessions | Self::Channels | Self::Members)
    }
}

counters! {
    /// An engine's numbers since it was made, and its gauges as they are.
    stats EngineStats;
    /// One number of [`EngineStats`].
    counters Counter of Family;
    /// Media datagrams.
    MediaReceived: DatagramsReceived, "media";
    /// Binds.
    BindReceived: DatagramsReceived, "bind";
    /// Pings.
    PingReceived: DatagramsReceived, "ping";
    /// Reports.
    ReportReceived: DatagramsReceived, "report";
    /// Shorter than header and tag.
    DroppedTooShort: DatagramsDropped, "too_short";
    /// Longer than 1,500 bytes.
    DroppedTooLong: DatagramsDropped, "too_long";
    /// Another protocol's first byte.
    DroppedNotNative: DatagramsDropped, "not_native";
    /// A version unknown here.
    DroppedVersion: DatagramsDropped, "version";
    /// A type unknown here, or one that only nodes send.
    DroppedType: DatagramsDropped, "type";
    /// No session of this worker.
    DroppedUnknownSession: DatagramsDropped, "unknown_session";
    /// Seen before, or too old to tell.
    DroppedReplayed: DatagramsDropped, "replayed";
    /// Not sealed with the session's key.
    DroppedNotAuthentic: DatagramsDropped, "not_authentic";
    /// Authentic, but before the session's first Bind.
    DroppedNotBound: DatagramsDropped, "not_bound";
    /// Authentic, but without what its type must hold.
    DroppedMalformed: DatagramsDropped, "malformed";
    /// Reports in too quick succession.
    DroppedReportRate: DatagramsDropped, "report_rate";
    /// Accepted from members.
    FramesAccepted: FramesAccepted;
    /// Taken from the relay.
    FramesRemote: FramesRemote;
    /// The datagram ended within the frame.
    FrameCutOff: FramesDropped, "cut_off";
    /// The stream is none of the session's.
    FrameForeignStream: FramesDropped, "foreign_stream";
    /// No such channel here, or no such member in it.
    FrameUnknownMember: FramesDropped, "unknown_member";
    /// An unknown kind, or Audio without a byte.
    FrameMalformed: FramesDropped, "malformed";
    /// More bytes than a datagram can carry.
    FrameTooLong: FramesDropped, "too_long";
    /// More frames than Opus can make.
    FrameRate: FramesDropped, "rate";
    /// Its sequence number was forwarded before.
    FrameDuplicate: FramesDropped, "duplicate";
    /// Its speaker is muted.
    FrameMuted: FramesDropped, "muted";
    /// Comfort noise sooner than 400 ms after the last.
    FrameSurplusSilence: FramesDropped, "surplus_silence";
    /// Others are louder, and the channel limits its speakers.
    FrameNotSelected: FramesDropped, "not_selected";
    /// The listeners' group has no key yet.
    FrameNoGroupKey: FramesDropped, "no_group_key";
    /// Of one stream of other nodes more than a channel takes.
    FrameRemoteStreams: FramesDropped, "remote_streams";
    /// The mixer could not keep up: the frame is missing in the mix.
    FrameMixerBusy: FramesDropped, "mixer_busy";
    /// End-to-end encrypted: the mixer cannot hear it, and does not get it.
    FrameMixerEncrypted: FramesDropped, "mixer_encrypted";
    /// End-to-end encrypted: browsers could not play it, and do not get it.
    FramePeersEncrypted: FramesDropped, "webrtc_encrypted";
    /// Said to be redundant, and not of RFC 2198: browsers do not get it.
    FramePeersMalformed: FramesDropped, "webrtc_malformed";
    /// The recorder could not keep up: the frame is missing in the recording.
    FrameRecorderBusy: FramesDropped, "recorder_busy";
    /// End-to-end encrypted: nobody could hear it in a recording, and the recorder does not get it.
    FrameRecorderEncrypted: FramesDropped, "recorder_encrypted";
    /// Missing between accepted ones.
    FramesLost: FramesLost;
    /// Delivered over UDP.
    FramesSent: FramesSent;
    /// For members without proven UDP.
    FramesTunnelled: FramesTunnelled;
    /// For members who hear by WebRTC.
    FramesToPeers: FramesToPeers;
    /// For members who hear a mix.
    FramesToMixer: FramesToMixer;
    /// Of a mix, by UDP or for the gateway.
    FramesMixed: FramesMixed;
    /// Of members here, of channels that are recorded.
    FramesToRecorder: FramesToRecorder;
    /// Of one frame.
    DatagramsOfOne: DatagramsSent, "1";
    /// Of two.
    DatagramsOfTwo: DatagramsSent, "2";
    /// Of three or four.
    DatagramsOfFour: DatagramsSent, "3-4";
    /// Of five to eight.
    DatagramsOfEight: DatagramsSent, "5-8";
    /// Of more.
    DatagramsOfMore: DatagramsSent, "9+";
    /// BindAcks and Pongs.
    AnswersSent: Answers;
    /// All of them.
    BytesSent: BytesSent;
    /// For a group or as an answer.
    Sealed: Sealed;
    /// On their way to their channel's worker.
    FramesHandedOver: FramesHandedOver;
    /// Their channel's worker could not keep up.
    FrameWorkerBusy: FramesDropped, "worker_busy";
    /// Frames and reports: gone.
    EventsLost: EventsRefused, "lost";
    /// State: told again soon.
    EventsDelayed: EventsRefused, "delayed";
    /// Nothing was done.
    CommandsRefused: CommandsRefused;
    /// With a key, bound or not.
    SessionsOpen: Sessions, "open";
    /// UDP to them is proven.
    SessionsProven: Sessions, "proven";
    /// Channels.
    ChannelsOpen: Channels;
    /// Members.
    MembersPresent: Members;
}

impl Counter {
    pub(super) const fn of_header_error(error: HeaderError) -> Self {
        match error {
            HeaderError::TooShort => Self::DroppedTooShort,
            HeaderError::TooLong => Self::DroppedTooLong,
            HeaderError::NotNative => Self::DroppedNotNative,
            HeaderError::Version => Self::DroppedVersion,
            HeaderError::Type => Self::DroppedType,
        }
    }

    pub(super) const fn of_bundle(frames: usize) -> Self {
        match frames {
            0..=1 => Self::DatagramsOfOne,
            2 => Self::DatagramsOfTwo,
            3..=4 => Self::DatagramsOfFour,
            5..=8 => Self::DatagramsOfEight,
            _ => Self::DatagramsOfMore,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stats_add_up() {
        let mut one = EngineStats::default();
        one.count(Counter::DroppedTooShort);
        one.add(Counter::DroppedReplayed, 2);
        let mut sum = EngineStats::from_numbers(*one.numbers());
        sum += one;
        assert_eq!(sum[Counter::DroppedReplayed], 4);
        assert_eq!(sum.total(Family::DatagramsDropped), 6);
    }
}
