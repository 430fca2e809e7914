//! What the control plane wants of a worker's WebRTC peers, and what they tell it.

use std::{collections::BTreeSet, fmt::Display, net::SocketAddr};

use antiphon_core::{
    gateway::{PeerRole, PublishKind, VideoQuality},
    ids::{ChannelId, StreamId},
    wire::control::ReportBlock,
};
use str0m::{
    Candidate,
    change::{SdpAnswer, SdpOffer},
    net::Protocol,
};
use tokio::sync::{mpsc, oneshot};

/// Ways to a client that it may name for one connection.
pub const CANDIDATES_MAX: usize = 64;

/// One of a member's two connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerKey {
    /// In which channel; the peer lives in its worker.
    pub channel: ChannelId,
    /// Whose.
    pub stream: StreamId,
    /// Which way.
    pub role: PeerRole,
}

/// Where clients reach the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// The media port.
    pub udp: Vec<SocketAddr>,
    /// The port for those whose UDP is blocked.
    pub tcp: Vec<SocketAddr>,
}

/// What a subscriber wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Of whom.
    pub stream: StreamId,
    /// What.
    pub kind: PublishKind,
    /// How good a picture, at most.
    pub quality: VideoQuality,
}

/// A media section of a subscriber's connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferedTrack {
    /// Which.
    pub mid: String,
    /// Whose it is.
    pub stream: StreamId,
    /// What it is.
    pub kind: PublishKind,
}

/// A description of a client's, and what there may only be so much of in all that it sends.
#[derive(Debug)]
pub struct Described<T> {
    /// The description, without the candidates.
    pub sdp: T,
    /// Ways to the client that were named in it.
    pub candidates: Vec<Candidate>,
    /// The sources (SSRC) that it says its client sends.
    pub sources: BTreeSet<u32>,
}

/// Why something could not be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// The description is none that fits.
    #[error("the SDP cannot be used: {0}")]
    Sdp(String),
    /// There is no such connection, or no answer is awaited.
    #[error("{0}")]
    OutOfTurn(&'static str),
    /// More than there may be.
    #[error("{0}")]
    TooMany(&'static str),
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
}

impl PeerError {
    /// Of more than [`CANDIDATES_MAX`].
    pub const CANDIDATES: Self = Self::TooMany("a connection takes at most 64 candidates");
    /// Of more than may be new.
    pub const SOURCES: Self =
        Self::TooMany("a connection takes 64 new sources (a=ssrc) at once, and one more each second: try again later");

    /// What the library has against a description. Where its parser says where in this process's memory it stood, that is left out.
    #[must_use]
    pub fn sdp(error: &impl Display) -> Self {
        let text = error.to_string();
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.contains("PointerOffset"));
        let said = lines.collect::<Vec<_>>().join("; ");
        Self::Sdp(if said.is_empty() { "it is not in the form of RFC 8866".to_owned() } else { said })
    }
}

/// The way that a candidate names: two for the same are one.
#[must_use]
pub fn way(candidate: &Candidate) -> (Protocol, SocketAddr) {
    (candidate.proto(), candidate.addr())
}

/// Where an answer goes.
pub type Reply<T> = oneshot::Sender<Result<T, PeerError>>;

/// To the worker that a channel lives in. Its members are made known to its engine apart.
#[derive(Debug)]
pub enum PeerCommand {
    /// Somebody publishes, or changes what they publish: answered with SDP.
    Publish {
        /// Whose; made when it is not there.
        key: PeerKey,
        /// For the answer.
        ways: Ways,
        /// What they sent.
        offer: Described<SdpOffer>,
        /// What its new media sections are.
        kind: PublishKind,
        /// The answer.
        reply: Reply<String>,
    },
    /// Somebody wants to hear and see these from now on: offers come as [`PeerEvent::Offer`].
    Subscribe {
        /// Whose; made when it is not there.
        key: PeerKey,
        /// For the offer.
        ways: Ways,
        /// All of it.
        wishes: Vec<Wish>,
        /// The way to the client has broken: a new one is to be found.
        restart: bool,
        /// Whether there is such a connection now.
        reply: Reply<()>,
    },
    /// What a subscriber wants has changed; nothing happens where their connection has just ended.
    Wish {
        /// Whose.
        key: PeerKey,
        /// All of it.
        wishes: Vec<Wish>,
    },
    /// Somebody wants to hear and see by a connection that they offer: whoever speaks, and the first picture there is.
    Play {
        /// Whose; made when it is not there.
        key: PeerKey,
        /// For the answer.
        ways: Ways,
        /// What they sent.
        offer: Described<SdpOffer>,
        /// The answer.
        reply: Reply<String>,
    },
    /// The answer to an offer.
    Answer {
        /// Whose.
        key: PeerKey,
        /// What they sent.
        answer: Described<SdpAnswer>,
        /// Whether it was used.
        reply: Reply<()>,
    },
    /// More ways to a client.
    Candidates {
        /// Whose.
        key: PeerKey,
        /// The ways.
        candidates: Vec<Candidate>,
        /// Whether all of them were taken; else none was.
        reply: Reply<()>,
    },
    /// A client is reached by TCP from now on: what is for this address goes that way. What finds no room is dropped.
    Reach {
        /// Where the client is.
        address: (Protocol, SocketAddr),
        /// The fragment by which its STUN names a connection.
        fragment: Box<[u8]>,
        /// The way.
        way: mpsc::Sender<Box<[u8]>>,
        /// Whether there is such a connection; else nothing goes that way.
        known: oneshot::Sender<bool>,
    },
    /// No longer.
    Unreach {
        /// Where the client was.
        address: (Protocol, SocketAddr),
    },
    /// Somebody's session is another node's now: what they publish here gives way to what that node tells.
    Depart {
        /// In which channel.
        channel: ChannelId,
        /// Whose stream.
        stream: StreamId,
    },
    /// A connection is over; to close what is gone is no error.
    Close {
        /// Which.
        key: PeerKey,
    },
}

/// From a worker's peers. What the control plane has no room for is told again, but for [`Self::Heard`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerEvent {
    /// A subscriber is to be offered this.
    Offer {
        /// Which connection.
        key: PeerKey,
        /// The whole of it.
        sdp: String,
        /// Whose its media sections are.
        tracks: Vec<OfferedTrack>,
    },
    /// A connection stands.
    Connected {
        /// Which.
        key: PeerKey,
    },
    /// A connection is gone: its client closed it, or was not heard for too long.
    Gone {
        /// Which.
        key: PeerKey,
    },
    /// What somebody publishes by WebRTC, here or on another node, has changed.
    Publishes {
        /// In which channel.
        channel: ChannelId,
        /// Whose stream.
        stream: StreamId,
        /// All of it.
        kinds: Vec<PublishKind>,
    },
    /// How a subscriber hears a voice.
    Heard {
        /// By which connection.
        key: PeerKey,
        /// As native clients report it.
        block: ReportBlock,
    },
}

impl PeerEvent {
    /// Whether an earlier event that was not told yet need not be any more.
    pub(super) fn supersedes(&self, earlier: &Self) -> bool {
        match (self, earlier) {
            (Self::Offer { key, .. }, Self::Offer { key: other, .. }) => key == other,
            (
                Self::Gone { key },
                Self::Offer { key: other, .. } | Self::Connected { key: other } | Self::Gone { key: other },
            ) => key == other,
            (
                Self::Publishes { channel, stream, .. },
                Self::Publishes { channel: other_channel, stream: other_stream, .. },
            ) => (channel, stream) == (other_channel, other_stream),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn what_is_said_of_too_many_candidates_is_so() {
        assert!(PeerError::CANDIDATES.to_string().contains(&format!("at most {CANDIDATES_MAX} ")));
    }

    #[test]
    fn of_what_nobody_takes_the_last_of_each_kind_is_left() {
        let channel = ChannelId(Uuid::nil());
        let key = |stream| PeerKey { channel, stream: StreamId(stream), role: PeerRole::Subscriber };
        let offer = |stream| PeerEvent::Offer { key: key(stream), sdp: String::new(), tracks: Vec::new() };
        let publishes = |stream| PeerEvent::Publishes { channel, stream: StreamId(stream), kinds: Vec::new() };
        let (connected, gone) =
            (|stream| PeerEvent::Connected { key: key(stream) }, |stream| PeerEvent::Gone { key: key(stream) });
        for (later, earlier) in [
            (offer(1), offer(1)),
            (publishes(1), publishes(1)),
            (gone(1), offer(1)),
            (gone(1), connected(1)),
            (gone(1), gone(1)),
        ] {
            assert!(later.supersedes(&earlier), "{later:?} {earlier:?}");
        }
        for (later, earlier) in [
            (offer(1), offer(2)),
            (publishes(1), publishes(2)),
            (gone(1), gone(2)),
            (offer(1), gone(1)),
            (connected(1), offer(1)),
        ] {
            assert!(!later.supersedes(&earlier), "{later:?} {earlier:?}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_description_is_said_and_not_where_it_lay_in_memory() {
        let offer = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 999\r\na=mid:0\r\n";
        let error = SdpOffer::from_sdp_string(offer).expect_err("there is no such payload type");
        let said = PeerError::sdp(&error).to_string();
        assert!(
            said.len() > "the SDP cannot be used: ".len() && !said.contains("0x") && !said.contains('\n'),
            "{said}"
        );
        let pointer = "SDP parse: Parse error at PointerOffset(0x7f00)\nExpected at least one PT\n";
        assert_eq!(PeerError::sdp(&pointer), PeerError::Sdp("Expected at least one PT".to_owned()));
        assert!(PeerError::sdp(&"").to_string().ends_with("RFC 8866"));
    }
}
