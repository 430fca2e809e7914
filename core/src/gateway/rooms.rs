//! The messages of rooms, where people meet by WebRTC. Their fields are in `payload`.

use serde::{Deserialize, Serialize};

use super::{ErrorCode, MediaTransport, RecordingNow};
use crate::ids::{ChannelId, UserId};

/// What somebody publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum PublishKind {
    /// Their voice.
    Audio,
    /// Their camera.
    Video,
    /// Their screen.
    Screen,
}

/// Which of one's two connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerRole {
    /// The one that one publishes by.
    Publisher,
    /// The one that one hears and sees by.
    Subscriber,
}

/// How good a picture is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VideoQuality {
    /// None at all.
    Off,
    /// At most the lowest layer.
    Low,
    /// At most the middle one.
    Medium,
    /// As good as the way carries.
    #[default]
    High,
}

/// Somebody who can be heard or seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PublisherView {
    /// Names them in `subscribe` and `publisher_left`.
    pub id: UserId,
    /// Who.
    pub user_id: UserId,
    /// The name to show.
    pub display: String,
    /// What they publish now.
    pub kinds: Vec<PublishKind>,
    /// How their voice travels.
    pub media: MediaTransport,
}

/// A room: a channel that people meet in by WebRTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RoomView {
    /// The channel's id.
    pub room_id: ChannelId,
    /// Its name.
    pub name: String,
    /// How many may publish at once; 0 for all.
    pub max_publishers: u32,
    /// How many may be in it at once.
    pub max_users: u32,
    /// How many are in it now.
    pub current_users: u32,
    /// RFC 3339 UTC.
    pub created_at: String,
    /// When it ends unless somebody is in it, RFC 3339 UTC; `null` for a channel that stays.
    pub expires_at: Option<String>,
}

/// A STUN or TURN server, as browsers take it (`RTCIceServer`).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IceServer {
    /// `stun:` and `turn:` URLs.
    pub urls: Vec<String>,
    /// For TURN: until when, and for whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// For TURN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
}

debug_without_secrets!(IceServer { urls });

/// An ICE candidate, as browsers give it (`RTCIceCandidateInit`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IceCandidateInit {
    /// Empty when there are no more.
    #[serde(default)]
    pub candidate: String,
    /// Which media section it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sdp_mid: Option<String>,
    /// Likewise, by its place.
    #[serde(default, rename = "sdpMLineIndex", skip_serializing_if = "Option::is_none")]
    pub sdp_m_line_index: Option<u16>,
}

/// Whose a media section of one's subscriber connection is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscribedTrack {
    /// The media section.
    pub mid: String,
    /// Whose.
    pub publisher_id: UserId,
    /// What.
    pub kind: PublishKind,
}

macro_rules! in_payload {
    ($($(#[$doc:meta])* $name:ident($payload:ident $(, $default:ident)?);)+) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
            pub struct $name {
                /// What it says.
                $(#[serde($default)])?
                pub payload: $payload,
            }

            impl From<$payload> for $name {
                fn from(payload: $payload) -> Self {
                    Self { payload }
                }
            }
        )+
    };
}

in_payload! {
    /// Enters a room.
    JoinRoom(JoinRoomPayload, default);
    /// Publishes, or changes what is published.
    PublishOffer(PublishOfferPayload);
    /// One more way to the client.
    TrickleIce(TrickleIcePayload);
    /// Chooses whom to hear and see.
    Subscribe(SubscribePayload, default);
    /// Answers `subscribe_offer`.
    SubscribeAnswer(SubscribeAnswerPayload);
    /// Leaves the room.
    Leave(NoPayload, default);
    /// One is in a room.
    JoinedRoom(JoinedRoomPayload);
    /// Somebody can be heard or seen, or publishes something else than before.
    PublisherJoined(PublisherJoinedPayload);
    /// Somebody has gone.
    PublisherLeft(PublisherLeftPayload);
    /// Answers `publish_offer`.
    PublishAnswer(PublishAnswerPayload);
    /// What one may hear and see has changed.
    SubscribeOffer(SubscribeOfferPayload);
    /// One has left the room.
    LeftRoom(LeftRoomPayload);
    /// A message of this family could not be carried out.
    RoomError(RoomErrorPayload);
}

/// Of [`JoinRoom`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRoomPayload {
    /// Which room; that of the connection when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room_id: Option<ChannelId>,
    /// The name to show; the account's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display: Option<String>,
    /// An invite's code, for a private room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invite: Option<String>,
}

/// Of [`PublishOffer`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishOfferPayload {
    /// An SDP offer, the whole of it.
    pub sdp: String,
    /// What the media sections that are new in it are.
    pub kind: PublishKind,
}

debug_without_secrets!(PublishOfferPayload { kind });

/// Of [`TrickleIce`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrickleIcePayload {
    /// For which connection.
    pub target: PeerRole,
    /// The candidate.
    pub candidate: IceCandidateInit,
}

debug_without_secrets!(TrickleIcePayload { target });

/// Of [`Subscribe`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscribePayload {
    /// Whom; all, now and later, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publishers: Option<Vec<UserId>>,
    /// How good a picture of whom, at most; the best when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quality: Vec<QualityOf>,
    /// The connection has broken: it is to find a new way.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ice_restart: bool,
}

/// How good a picture of somebody is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QualityOf {
    /// Of whom.
    pub publisher_id: UserId,
    /// At most.
    pub video: VideoQuality,
}

/// Of [`SubscribeAnswer`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscribeAnswerPayload {
    /// An SDP answer.
    pub sdp: String,
}

debug_without_secrets!(SubscribeAnswerPayload {});

/// Of messages that say nothing more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoPayload {}

/// Of [`JoinedRoom`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinedRoomPayload {
    /// The room.
    pub room: RoomView,
    /// Oneself among its publishers.
    pub participant_id: UserId,
    /// All others.
    pub publishers: Vec<PublisherView>,
    /// For both connections.
    pub ice_servers: Vec<IceServer>,
    /// The recording that goes on; absent while the room is not recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recording: Option<RecordingNow>,
}

/// Of [`PublisherJoined`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublisherJoinedPayload {
    /// Who, and what they publish now.
    pub publisher: PublisherView,
}

/// Of [`PublisherLeft`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublisherLeftPayload {
    /// Who.
    pub publisher_id: UserId,
}

/// Of [`PublishAnswer`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishAnswerPayload {
    /// An SDP answer, the whole of it.
    pub sdp: String,
}

debug_without_secrets!(PublishAnswerPayload {});

/// Of [`SubscribeOffer`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscribeOfferPayload {
    /// An SDP offer, the whole of it.
    pub sdp: String,
    /// Whose its media sections are; one that is not named here is nobody's now.
    pub tracks: Vec<SubscribedTrack>,
}

debug_without_secrets!(SubscribeOfferPayload { tracks });

/// Of [`LeftRoom`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftRoomPayload {
    /// Which room.
    pub room_id: ChannelId,
}

/// Of [`RoomError`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomErrorPayload {
    /// For programs.
    pub error_code: ErrorCode,
    /// For people: what is wrong and what would be right.
    pub error: String,
}
