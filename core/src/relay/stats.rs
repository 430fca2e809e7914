//! What a relay counts: every datagram and frame, and why one went no further.

use crate::{counting::counters, wire::datagram::HeaderError};

/// What a counter counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// Authentic datagrams received.
    DatagramsReceived,
    /// Datagrams dropped on arrival; label: reason.
    DatagramsDropped,
    /// Records passed over; label: reason.
    RecordsSkipped,
    /// Frames received from other nodes; label: hop.
    FramesReceived,
    /// Frames sent to other nodes, each node counts; label: hop.
    FramesSent,
    /// Packets of pictures, and words of those who meet, received from other nodes; label: what.
    RecordsReceived,
    /// Likewise sent, each node counts; label: what.
    RecordsSent,
    /// Frames not passed on; label: reason.
    FramesDropped,
    /// Datagrams sent; label: how many records they carry.
    DatagramsSent,
    /// Their bytes.
    BytesSent,
    /// Times that a channel open here got another owner.
    OwnerChanges,
    /// Times that a channel's frames began to be sent without its owner.
    DirectEntries,
    /// What became of the workers of other nodes; label: state.
    PeerChanges,
    /// Sets that named fewer nodes or speakers than there are, for lack of room.
    SetsCut,
    /// Now: channels; label: what this node is to them.
    Channels,
    /// Now: other nodes that are known.
    Peers,
}

impl Family {
    /// Whether its numbers go up and down; the others only grow.
    #[must_use]
    pub const fn is_gauge(self) -> bool {
        matches!(self, Self::Channels | Self::Peers)
    }
}

counters! {
    /// A relay's numbers since it was made, and its gauges as they are.
    stats RelayStats;
    /// One number of [`RelayStats`].
    counters Counter of Family;
    /// Authentic.
    DatagramsReceived: DatagramsReceived;
    /// Packets of pictures.
    PicturesReceived: RecordsReceived, "picture";
    /// Words of those who meet.
    MeetingsReceived: RecordsReceived, "meeting";
    /// Packets of pictures.
    PicturesSent: RecordsSent, "picture";
    /// Words of those who meet.
    MeetingsSent: RecordsSent, "meeting";
    /// Shorter than header and tag.
    DroppedTooShort: DatagramsDropped, "too_short";
    /// Longer than 1,500 bytes.
    DroppedTooLong: DatagramsDropped, "too_long";
    /// Another protocol's first byte.
    DroppedNotNative: DatagramsDropped, "not_native";
    /// A version unknown here.
    DroppedVersion: DatagramsDropped, "version";
    /// A type that nodes do not send to each other.
    DroppedType: DatagramsDropped, "type";
    /// The registry knows no such node, or the node no such worker.
    DroppedUnknownPeer: DatagramsDropped, "unknown_peer";
    /// For another worker.
    DroppedWrongWorker: DatagramsDropped, "wrong_worker";
    /// Seen before, or too old to tell.
    DroppedReplayed: DatagramsDropped, "replayed";
    /// Not sealed with the key of the two nodes.
    DroppedNotAuthentic: DatagramsDropped, "not_authentic";
    /// Of a later release.
    RecordUnknown: RecordsSkipped, "unknown";
    /// Without what its kind must hold.
    RecordMalformed: RecordsSkipped, "malformed";
    /// The datagram ended within it.
    RecordCutOff: RecordsSkipped, "cut_off";
    /// Interest in one channel more than a worker takes.
    RecordChannels: RecordsSkipped, "channels";
    /// From an edge, as owner.
    ReceivedToOwner: FramesReceived, "to_owner";
    /// From the owner.
    ReceivedFromOwner: FramesReceived, "from_owner";
    /// From another edge.
    ReceivedDirect: FramesReceived, "direct";
    /// To the owner.
    SentToOwner: FramesSent, "to_owner";
    /// To an edge, as owner.
    SentFromOwner: FramesSent, "from_owner";
    /// To another edge.
    SentDirect: FramesSent, "direct";
    /// The channel is not open here.
    FrameNotOpen: FramesDropped, "not_open";
    /// Others are louder, and the channel limits its speakers.
    FrameNotSelected: FramesDropped, "not_selected";
    /// More bytes than a relay datagram can carry.
    FrameTooLong: FramesDropped, "too_long";
    /// Of one record.
    DatagramsOfOne: DatagramsSent, "1";
    /// Of two.
    DatagramsOfTwo: DatagramsSent, "2";
    /// Of three or four.
    DatagramsOfFour: DatagramsSent, "3-4";
    /// Of five to eight.
    DatagramsOfEight: DatagramsSent, "5-8";
    /// Of more.
    DatagramsOfMore: DatagramsSent, "9+";
    /// All of them.
    BytesSent: BytesSent;
    /// By the ring, by a lost owner, or by its return.
    OwnerChanges: OwnerChanges;
    /// Until the next owner answers.
    DirectEntries: DirectEntries;
    /// Not heard for 150 ms.
    PeersSuspected: PeerChanges, "suspected";
    /// Not heard for 400 ms.
    PeersLost: PeerChanges, "lost";
    /// Heard again after that.
    PeersBack: PeerChanges, "back";
    /// More nodes or speakers than a record holds.
    SetsCut: SetsCut;
    /// With members here.
    ChannelsOpen: Channels, "open";
    /// With listeners on other nodes that come to this one.
    ChannelsOwned: Channels, "owned";
    /// Nodes.
    PeersKnown: Peers;
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

    pub(super) const fn of_bundle(records: usize) -> Self {
        match records {
            0..=1 => Self::DatagramsOfOne,
            2 => Self::DatagramsOfTwo,
            3..=4 => Self::DatagramsOfFour,
            5..=8 => Self::DatagramsOfEight,
            _ => Self::DatagramsOfMore,
        }
    }
}
