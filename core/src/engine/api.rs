//! What goes into a media worker's engine and what comes out, as values.

use std::net::SocketAddr;

use crate::{
    clock::Micros,
    gateway::Cipher,
    ids::{ChannelId, GroupId, KeyId, MediaSessionId, StreamId, WorkerIndex},
    wire::frame::FrameHeader,
};

/// A key on its way to the worker that seals with it. Does not print itself.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyBytes(pub Vec<u8>);

impl From<Vec<u8>> for KeyBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl std::fmt::Debug for KeyBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyBytes({} bytes)", self.0.len())
    }
}

/// From the control plane to one worker. Never lost: the control plane waits when the worker's queue is full. To remove
/// what is gone is no error; a command that names what does not exist otherwise does nothing and is counted.
#[derive(Debug)]
pub enum Command {
    /// A client's UDP session lives in this worker from now on.
    AddSession {
        /// Its id; `id % workers` is this worker.
        session: MediaSessionId,
        /// What seals both ways.
        cipher: Cipher,
        /// The session key, of the cipher's length.
        key: KeyBytes,
    },
    /// The session is over; its datagrams are dropped from now on.
    RemoveSession {
        /// Which.
        session: MediaSessionId,
    },
    /// Goes to the session's worker: frames of `stream` belong to `channel`, which lives in worker `home`. Give it after
    /// `AddMember`, so that the channel knows whom it hears of.
    AttachStream {
        /// Whose.
        session: MediaSessionId,
        /// Which stream.
        stream: StreamId,
        /// Of which channel.
        channel: ChannelId,
        /// The channel's worker.
        home: WorkerIndex,
    },
    /// Goes to the session's worker: the stream is no longer its own.
    DetachStream {
        /// Whose.
        session: MediaSessionId,
        /// Which stream.
        stream: StreamId,
    },
    /// The channel lives in this worker from now on.
    OpenChannel {
        /// Which.
        channel: ChannelId,
        /// 0: all are forwarded; else the loudest so many.
        max_speakers: u32,
    },
    /// A setting changed.
    SetMaxSpeakers {
        /// Which channel.
        channel: ChannelId,
        /// As in `OpenChannel`.
        max_speakers: u32,
    },
    /// The channel's last local member has left.
    CloseChannel {
        /// Which.
        channel: ChannelId,
    },
    /// Goes to the channel's worker: a group's key. The first of a group is used at once, a later one from `activate_at`.
    SetGroupKey {
        /// Of which channel.
        channel: ChannelId,
        /// Which group; a channel has at most one for each cipher.
        group: GroupId,
        /// The group's cipher.
        cipher: Cipher,
        /// The new key's id.
        key_id: KeyId,
        /// The key, of the cipher's length.
        key: KeyBytes,
        /// When to seal with it.
        activate_at: Micros,
    },
    /// Goes to the channel's worker: somebody is in its voice.
    AddMember {
        /// Which channel.
        channel: ChannelId,
        /// Their stream.
        stream: StreamId,
        /// Their UDP session, its worker and cipher; `None` for members without UDP.
        udp: Option<MemberUdp>,
        /// What they hear, and which way.
        hears: Hears,
        /// Their switches.
        flags: MemberFlags,
        /// The last sequence number known of the stream, where it goes on (resume).
        last_sequence: Option<u16>,
    },
    /// Goes to the channel's worker: whether frames of its members here go to [`super::Output::record`], too. For a channel
    /// that has closed meanwhile it does nothing.
    SetRecorded {
        /// Which channel.
        channel: ChannelId,
        /// Whether they do.
        recorded: bool,
    },
    /// Goes to the channel's worker: whether somebody who is no member hears the channel's mix here. The mixer then gets
    /// its frames also where no member hears one.
    SetOverheard {
        /// Which channel.
        channel: ChannelId,
        /// Whether somebody does.
        overheard: bool,
    },
    /// A member's switches changed.
    SetMemberFlags {
        /// Which channel.
        channel: ChannelId,
        /// Whose.
        stream: StreamId,
        /// All of them as they are now.
        flags: MemberFlags,
    },
    /// A member's UDP session was replaced (resume): the new one takes over once it is bound. The old one's worker
    /// drops it then, or 5 s from now; `RemoveSession` may end it sooner.
    SetMemberUdp {
        /// Which channel.
        channel: ChannelId,
        /// Whose.
        stream: StreamId,
        /// The new session.
        udp: Option<MemberUdp>,
    },
    /// A member left.
    RemoveMember {
        /// Which channel.
        channel: ChannelId,
        /// Whose.
        stream: StreamId,
    },
    /// A frame that a member sent over the gateway (UDP to the node is blocked, or `media: websocket`).
    /// It also tells that the member has no working UDP: proof of the way to them must be renewed.
    Frame {
        /// Which channel.
        channel: ChannelId,
        /// Whose.
        stream: StreamId,
        /// The frame; absent sequence and timestamp are the node's to give.
        frame: GatewayFrame,
    },
}

/// What a member hears, and which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hears {
    /// The others' streams: by UDP where that is proven, else through the gateway.
    Streams,
    /// The others' streams by WebRTC: they go to [`super::Output::peers`], and the member's own frames come by
    /// [`super::Engine::peer_frame`].
    Peer,
    /// One mix instead of the others' streams: it comes back by [`super::Engine::mixed`]. They send as any member does.
    Mix,
}

/// A member's UDP session as the channel's worker knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberUdp {
    /// Which session.
    pub session: MediaSessionId,
    /// Which worker it lives in.
    pub worker: WorkerIndex,
    /// Its cipher, and so its group.
    pub cipher: Cipher,
}

/// What a member may do and wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemberFlags {
    /// By themselves or by a moderator: nothing of theirs is forwarded.
    pub muted: bool,
    /// Nothing is sent to them.
    pub deafened: bool,
    /// Forwarded before all others where speakers are limited.
    pub priority: bool,
}

/// A frame from the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayFrame {
    /// As the client numbered it, if it did.
    pub sequence: Option<u16>,
    /// 48 kHz sample clock, if it gave one.
    pub timestamp: Option<u32>,
    /// Kind and flags.
    pub kind: u8,
    /// RFC 6464 level.
    pub level: u8,
    /// One Opus packet, or nothing.
    pub bytes: Vec<u8>,
}

/// From one worker's engine to another's. Any may be dropped when the queue is full: a frame is then lost and counted,
/// `Reach` and `Unprove` are repeated, and instead of `Retire` the control plane's `RemoveSession` ends the session.
/// Frames travel inline, so that handing over allocates nothing.
#[derive(Clone, Debug)]
pub enum Handover {
    /// A frame that entered at the speaker's session's worker, on its way to the channel's.
    Frame {
        /// Which channel.
        channel: ChannelId,
        /// The frame's header.
        header: FrameHeader,
        /// Its bytes.
        bytes: FrameBytes,
    },
    /// A frame of a mix on its way to its listener's session's worker, which seals it.
    Mixed {
        /// Whose session.
        session: MediaSessionId,
        /// The frame's header.
        header: FrameHeader,
        /// Its bytes.
        bytes: FrameBytes,
    },
    /// Where datagrams for a member go, or `None` while UDP to them is not proven.
    Reach {
        /// Which channel.
        channel: ChannelId,
        /// Whose.
        stream: StreamId,
        /// Which of the member's UDP sessions says so.
        session: MediaSessionId,
        /// The proven address.
        address: Option<SocketAddr>,
    },
    /// To a session's worker: its client sent over the gateway, so UDP to it must be proven anew.
    Unprove {
        /// Which.
        session: MediaSessionId,
    },
    /// To a replaced session's worker: its successor is bound, or its time is up.
    Retire {
        /// Which.
        session: MediaSessionId,
    },
}

/// A frame's bytes inline, so that handing over allocates nothing.
#[derive(Clone)]
pub struct FrameBytes {
    length: u16,
    bytes: [u8; Self::CAPACITY],
}

impl FrameBytes {
    /// The longest frame a datagram of 1,500 bytes can carry, rounded up.
    pub const CAPACITY: usize = 1_472;

    /// Copies `bytes`, or `None` when they are too long.
    #[must_use]
    pub fn copy_from(bytes: &[u8]) -> Option<Self> {
        let mut inline = Self { length: u16::try_from(bytes.len()).ok()?, bytes: [0; Self::CAPACITY] };
        inline.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(inline)
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl std::fmt::Debug for FrameBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FrameBytes({} bytes)", self.length)
    }
}

/// From a worker to the control plane. The queue is bounded; audio is dropped and counted when it is full,
/// the rest is repeated or made good by the next of its kind. Frames travel inline, so that an event allocates nothing.
#[derive(Clone, Debug)]
pub enum Event {
    /// A session's first authentic Bind, or a later one from another address.
    Bound {
        /// Which.
        session: MediaSessionId,
        /// From where.
        address: SocketAddr,
    },
    /// Whether UDP *to* the session works; while it does not, its audio goes over the gateway.
    Proven {
        /// Which.
        session: MediaSessionId,
        /// Now.
        proven: bool,
    },
    /// A forwarded frame of a channel that has members without proven UDP.
    Tunnel {
        /// Which channel.
        channel: ChannelId,
        /// The frame's header, stream included.
        header: FrameHeader,
        /// Its bytes.
        bytes: FrameBytes,
    },
    /// A frame of the mix of a member without proven UDP.
    TunnelMix {
        /// Which channel.
        channel: ChannelId,
        /// Whose mix, by their own stream.
        member: StreamId,
        /// The frame's header, with the mix's stream.
        header: FrameHeader,
        /// Its bytes.
        bytes: FrameBytes,
    },
    /// A talk spurt began or ended.
    Speaking {
        /// Which channel.
        channel: ChannelId,
        /// Whose.
        stream: StreamId,
        /// Began or ended.
        speaking: bool,
    },
    /// One block of a client's report.
    Report {
        /// Who reports.
        session: MediaSessionId,
        /// What they say.
        block: crate::wire::control::ReportBlock,
    },
    /// What a channel carried since the last of these, about once a second while it carries any.
    ChannelTraffic {
        /// Which channel.
        channel: ChannelId,
        /// The increments.
        traffic: ChannelTraffic,
    },
    /// What a member sent since the last of these, told with their channel's traffic, and when they leave.
    MemberTraffic {
        /// Which channel.
        channel: ChannelId,
        /// Whose.
        stream: StreamId,
        /// The increments.
        traffic: MemberTraffic,
    },
}

/// Increments of a member's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemberTraffic {
    /// Frames accepted.
    pub frames: u64,
    /// Their Opus bytes.
    pub bytes: u64,
}

/// Increments of a channel's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelTraffic {
    /// Frames accepted from members.
    pub frames_in: u64,
    /// Frames delivered: each listener of each frame counts, over UDP or the gateway.
    pub frames_out: u64,
    /// Opus bytes accepted.
    pub bytes_in: u64,
    /// Datagram bytes sent, and Opus bytes handed to the gateway, once for each listener.
    pub bytes_out: u64,
    /// Frames missing between the sequence numbers of accepted ones.
    pub frames_lost: u64,
    /// Interarrival jitter of the members' frames at the node, RFC 3550 smoothed, mean over streams, µs.
    pub jitter_us: u32,
}
