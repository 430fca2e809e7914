//! The values of the metrics' labels: closed enums, so that no metric has more series than are written here.

use antiphon_core::gateway::{ErrorCode, RecordingEnd};

use super::family::{Label, label};

label!(
    /// What a client does by a WebRTC connection.
    pub PeerUse = "use" {
        /// It publishes.
        Publish = "publish",
        /// It hears and sees.
        Subscribe = "subscribe",
    }
);

label!(
    /// Why a WebRTC connection ended by itself.
    pub PeerEnd = "reason" {
        /// ICE or DTLS did not get through in time.
        NeverConnected = "never_connected",
        /// Its client closed it, or was not heard any more.
        Lost = "lost",
        /// Its client broke the protocol.
        Broken = "broken",
    }
);

label!(
    /// Why a TCP connection of WebRTC was closed at once.
    pub TcpRefusal = "reason" {
        /// There are as many as there may be, or too many have not yet said whose they are.
        Full = "full",
        /// Its address has as many as it may.
        Address = "address",
        /// It named no connection of this node.
        Unknown = "unknown",
    }
);

label!(
    /// Why a WebRTC datagram was dropped.
    pub PeerDrop = "reason" {
        /// It belongs to no connection.
        Unknown = "unknown",
        /// It is STUN that is not authentic.
        NotAuthentic = "not_authentic",
        /// It is STUN of a client that was heard at as many addresses as it may be.
        TooManyAddresses = "too_many_addresses",
        /// It is RTP of a client that only receives, or of one source more than a client may begin.
        Unexpected = "unexpected",
    }
);

label!(
    /// What RTP carries.
    pub RtpMedia = "media" {
        /// Voice.
        Audio = "audio",
        /// Pictures.
        Video = "video",
    }
);

label!(
    /// Why an RTP packet was not sent to a subscriber.
    pub RtpNotSent = "reason" {
        /// It has as many media sections as it may, or has not answered yet.
        NoTrack = "no_track",
        /// It does not know the coding.
        NoCodec = "no_codec",
    }
);

label!(
    /// Who asked whom for a whole picture.
    pub KeyframeAsk = "by" {
        /// Subscribers the server.
        Subscribers = "subscribers",
        /// The server publishers.
        Server = "server",
    }
);

label!(
    /// What a mixing thread gives up.
    pub ShedLevel = "shed" {
        /// Nothing.
        Nothing = "nothing",
        /// Half of the effort of encoding.
        Half = "half",
        /// All but the least of it.
        Least = "least",
        /// Likewise, and further listeners.
        Refusing = "refusing",
    }
);

label!(
    /// Why a member was refused a mix.
    pub MixRefusal = "reason" {
        /// The thread that mixes the channel cannot keep up.
        Busy = "busy",
        /// The node mixes for as many as it may.
        Full = "full",
        /// It mixes for as many of their account as it may.
        Account = "account",
        /// It mixes for as many of their address as it may.
        Address = "address",
        /// They had one on another node, and as many came over as may: they hear streams.
        Moved = "moved",
    }
);

label!(
    /// Why a frame is not in its recording.
    pub RecordDrop = "reason" {
        /// Its speaker had left, or the recording had ended.
        Ended = "ended",
        /// It is no Opus packet.
        Malformed = "malformed",
        /// What was said after it had been written.
        Late = "late",
        /// As many tracks are written as may be at once.
        Full = "full",
        /// The disk did not take it, or had not a moment before.
        Failed = "failed",
    }
);

label!(
    /// Which media workers.
    pub WorkerState = "state" {
        /// All that were started.
        Started = "started",
        /// Those that run.
        Running = "running",
    }
);

label!(
    /// What a message of the chat family asks for.
    pub ChatRequest = "request" {
        Join = "join",
        Leave = "leave_room",
        Message = "message",
        Dm = "dm",
        RoomHistory = "room_history",
        DmHistory = "dm_history",
        Typing = "typing",
        Edit = "edit",
        Delete = "delete",
        React = "react",
        MarkRead = "mark_read",
        Unread = "unread",
        Search = "search",
        Presence = "presence",
        Block = "block",
        Report = "report",
    }
);

label!(
    /// A way outside of a notification.
    pub NotificationWay = "way" {
        Email = "email",
        Sms = "sms",
        Push = "push",
    }
);

label!(
    /// What became of a delivery.
    pub DeliveryOutcome = "outcome" {
        /// It was taken.
        Sent = "sent",
        /// There was no reason to send it any more.
        Skipped = "skipped",
        /// It waits until quiet hours end.
        Postponed = "postponed",
        /// It is tried again.
        Failed = "failed",
        /// It is not.
        GivenUp = "given_up",
    }
);

label!(
    /// Which bound a notification met.
    pub NotificationDrop = "reason" {
        /// The person had as many by this way within the hour as they may.
        Rate = "rate",
        /// As many wait for the person by this way as may.
        Person = "person",
        /// As many wait for this way as may.
        Waiting = "waiting",
        /// The person has as many as are kept: an older one went.
        Kept = "kept",
    }
);

label!(
    /// Whose bound of codes was reached.
    pub CodeBound = "bound" {
        /// Who asks has had as many as they may.
        Account = "account",
        /// As many were sent to the address, whoever asked.
        Address = "address",
        /// As many were sent this way in all.
        Server = "server",
    }
);

label!(
    /// Why a browser is not told any more.
    pub SubscriptionEnd = "reason" {
        /// Its push service does not know it any more.
        Gone = "gone",
        /// Its push service takes nothing from this server for it, again and again.
        Refused = "refused",
    }
);

label!(
    /// Which nodes of those known.
    pub NodesKnown = "state" {
        /// All live ones.
        Live = "live",
        /// Those that take on work.
        Serving = "serving",
    }
);

/// The release that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Release;

impl Label for Release {
    const KEY: &'static str = "version";
    const ALL: &'static [Self] = &[Self];
    fn text(self) -> &'static str {
        env!("CARGO_PKG_VERSION")
    }
    fn index(self) -> usize {
        0
    }
}

label!(
    /// Why a request for a file was refused.
    pub StreamRefusal = "reason" {
        /// The link's signature is missing or wrong.
        BadSignature = "bad_signature",
        /// The link has run out.
        Expired = "expired",
        /// There is no such file within the folder.
        NotFound = "not_found",
        /// The node sends as many files as it may.
        Busy = "busy",
        /// The address is sent as many files as it may.
        AddressBusy = "address_busy",
    }
);

label!(
    /// Why somebody could not begin to listen to a channel.
    pub LiveRefusal = "reason" {
        /// The link's signature is missing or wrong, or whose it is has no account any more.
        BadSignature = "bad_signature",
        /// The link has run out.
        Expired = "expired",
        /// The channel is gone, or whose link it is may not hear it.
        Unwelcome = "unwelcome",
        /// As many listen through the node as may.
        Busy = "busy",
        /// As many listen from the address as may.
        AddressBusy = "address_busy",
        /// As many listen to the channel through the node as may.
        ChannelBusy = "channel_busy",
        /// The node is about to stop, its mixer has no time, or what all nodes share cannot be reached.
        Unavailable = "unavailable",
    }
);

label!(
    /// Why a listener of a channel stopped.
    pub LiveEnd = "reason" {
        /// They closed the connection, or took nothing for 30 s.
        Left = "left",
        /// They read too slowly for too long.
        TooSlow = "too_slow",
        /// The channel is gone, or whose link it is may not hear it any more.
        Unwelcome = "unwelcome",
        /// The node was about to stop.
        Draining = "draining",
    }
);

label!(
    /// How the playing of a file into a channel ended.
    pub PlaybackEnd = "reason" {
        /// At the file's end.
        Finished = "finished",
        /// It was stopped, removed by a moderator, or another took its place.
        Removed = "removed",
        /// Who began it may not play there any more.
        Refused = "refused",
        /// It lasted as long as one may.
        TooLong = "too_long",
        /// The file could not be read on.
        Failed = "failed",
        /// The node was about to stop.
        Draining = "draining",
    }
);

label!(
    /// Whether a block was in memory.
    pub CacheOutcome = "outcome" {
        Hit = "hit",
        Miss = "miss",
    }
);

label!(
    /// How a request to the bucket of audio files ended.
    pub BucketOutcome = "outcome" {
        /// As it was asked.
        Done = "done",
        /// There is no such object.
        Missing = "missing",
        /// The object is another than it was to be.
        Changed = "changed",
        /// The store will not: wrong keys, no permission, no such bucket.
        Refused = "refused",
        /// Nobody answered in time, also when asked again.
        Away = "away",
    }
);

label!(
    /// How an upload ended.
    pub UploadOutcome = "outcome" {
        /// The file is in the folder.
        Kept = "kept",
        /// It is longer than a file may be.
        TooLong = "too_long",
        /// It is not what its ending says, or cannot be decoded.
        NoSound = "no_sound",
        /// The account's quota, or that of all, is used up.
        Quota = "quota",
        /// As many upload as may.
        Busy = "busy",
        /// The client went away.
        BrokenOff = "broken_off",
        TooSlow = "too_slow",
        /// Its path is taken, or the disk or the database failed.
        Failed = "failed",
    }
);

label!(
    /// How making a quality or a waveform ended.
    pub TranscodeOutcome = "outcome" {
        /// It is there.
        Made = "made",
        /// The file cannot be decoded, or breaks a limit.
        Refused = "refused",
        /// Something else was wrong: the disk, or ffmpeg.
        Failed = "failed",
        /// The server stopped, or the file was removed.
        Stopped = "stopped",
    }
);

label!(
    /// A part of the API.
    pub Area = "area" {
        Accounts = "accounts",
        Channels = "channels",
        Audio = "audio",
        /// The library of audio files, and the files.
        Streams = "streams",
        Health = "health",
        Metrics = "metrics",
        /// Everything below `/api/advanced`.
        Advanced = "advanced",
        /// Everything below `/api/metrics`.
        Figures = "figures",
        Docs = "docs",
        Gateway = "gateway",
        /// Paths that do not exist.
        Unknown = "unknown",
    }
);

label!(
    /// A request's method.
    pub Method = "method" {
        Get = "get",
        Post = "post",
        Put = "put",
        Delete = "delete",
        Other = "other",
    }
);

label!(
    /// The first digit of an answer's status.
    pub StatusClass = "status" {
        Informational = "1xx",
        Success = "2xx",
        Redirection = "3xx",
        ClientError = "4xx",
        ServerError = "5xx",
    }
);

label!(
    /// Which rate limit refused a request.
    pub RateLimit = "limit" {
        /// All requests of one address.
        Address = "address",
        /// All requests of one account.
        Account = "account",
        /// Requests of one address for audio files.
        Stream = "stream",
        /// Sign-ups, logins and refreshes of one address.
        Login = "login",
        /// Channels and rooms that one address makes.
        Channel = "channel",
        /// Requests of one address for figures.
        Observation = "observation",
    }
);

label!(
    /// What became of a TLS handshake.
    pub HandshakeOutcome = "outcome" {
        Ok = "ok",
        /// The peer broke off, or wanted what the server does not offer.
        Failed = "failed",
        /// It was not done in time, or there was no place for one more connection.
        TimedOut = "timed_out",
        /// It ended for the sake of a newer one, since there were too many at once.
        GivenUp = "given_up",
        /// The peer spoke plain HTTP and was told so.
        PlainHttp = "plain_http",
    }
);

label!(
    /// What somebody tried to do to be known.
    pub AuthAction = "action" {
        Register = "register",
        Login = "login",
        Refresh = "refresh",
        Logout = "logout",
        Guest = "guest",
        Token = "token",
    }
);

label!(
    /// How that ended.
    pub AuthOutcome = "outcome" {
        Ok = "ok",
        /// A wrong password, an unknown name, a bad token.
        Refused = "refused",
        /// Too many failures before.
        Locked = "locked",
        /// Malformed, or taken.
        Invalid = "invalid",
        /// The database or an issuer could not be asked.
        Unavailable = "unavailable",
    }
);

label!(
    /// Which way a session moved.
    pub Move = "direction" {
        /// From another node to this one.
        In = "in",
        /// From this node to another.
        Out = "out",
    }
);

label!(
    /// Which way through a socket.
    pub Direction = "direction" {
        Receive = "receive",
        Send = "send",
    }
);

label!(
    /// Whether something was done or refused.
    pub Outcome = "outcome" {
        Ok = "ok",
        Refused = "refused",
    }
);

impl From<bool> for Outcome {
    fn from(is_ok: bool) -> Self {
        if is_ok { Self::Ok } else { Self::Refused }
    }
}

label!(
    /// Why the server closed a WebSocket connection.
    pub CloseCause = "cause" {
        /// Nobody authenticated in time.
        NotAuthenticated = "not_authenticated",
        /// A token or a name was refused.
        AuthenticationFailed = "authentication_failed",
        /// Messages came faster than allowed, or too many were malformed.
        RateLimited = "rate_limited",
        /// No heartbeat came in time.
        TimedOut = "timed_out",
        /// The session to resume is over, or never was.
        SessionOver = "session_over",
        /// The client does not read what it is sent.
        SlowReader = "slow_reader",
        /// All clients together left too much unread, and this one had most.
        NodeFull = "node_full",
        /// The node is about to stop.
        Draining = "draining",
        /// The only node stops.
        Stopping = "stopping",
        /// The account was switched off.
        Banned = "banned",
        /// A newer connection resumed the session.
        Replaced = "replaced",
        /// A message was longer than a frame may be.
        TooLong = "too_long",
        /// A frame was none of the protocol's.
        ProtocolError = "protocol_error",
        /// A text frame was not UTF-8.
        NotUtf8 = "not_utf8",
    }
);

label!(
    /// What a client sent too much of.
    pub Refused = "kind" {
        /// Messages other than audio.
        Message = "message",
        /// Frames of audio.
        Frame = "frame",
    }
);

impl From<bool> for Refused {
    fn from(is_frame: bool) -> Self {
        if is_frame { Self::Frame } else { Self::Message }
    }
}

label!(
    /// Why an operation of the database failed.
    pub StoreFailure = "reason" {
        /// It could not be reached or was too slow.
        Unavailable = "unavailable",
        /// What it holds cannot be what we wrote.
        Corrupt = "corrupt",
    }
);

label!(
    /// What is done in Redis.
    pub RedisOperation = "operation" {
        Join = "join",
        Leave = "leave",
        SetVoice = "set_voice",
        SetServerMute = "set_server_mute",
        /// A place among those who publish in a room.
        Publish = "publish",
        /// A member going on through another node.
        Adopt = "adopt",
        /// Something written in a channel.
        Append = "append",
        /// Something about the channel itself.
        Tell = "tell",
        /// A node writing its own members back.
        Restore = "restore",
        Snapshot = "snapshot",
        /// Entries read because published ones were missing.
        Missed = "missed",
        Position = "position",
        Occupancy = "occupancy",
        Forget = "forget",
        /// Keeping the list of channels that a node has members in.
        List = "list",
        Register = "register",
        Renew = "renew",
        View = "view",
        Sweep = "sweep",
        /// Writing a session's record.
        SessionPut = "session_put",
        SessionClaim = "session_claim",
        SessionRelease = "session_release",
        /// Keeping the records of sessions alive.
        SessionKeep = "session_keep",
        /// Who is at which node.
        Whereabouts = "whereabouts",
        /// A message to other nodes.
        Say = "say",
    }
);

label!(
    /// How an operation in Redis ended.
    pub RedisOutcome = "outcome" {
        /// It was answered; that can be a refusal.
        Ok = "ok",
        /// It did not happen.
        NotDone = "not_done",
        /// There was no answer, so that it may have happened.
        InDoubt = "in_doubt",
    }
);

label!(
    /// Why a connection to Redis was given up.
    pub ReconnectCause = "cause" {
        /// It was closed.
        Closed = "closed",
        /// The server did not answer in time.
        NoAnswer = "no_answer",
        /// Nothing published came any more.
        Silent = "silent",
        /// Slots of a cluster moved to other servers.
        Moved = "moved",
        /// The other nodes had given this one up.
        GivenUp = "given_up",
    }
);

label!(
    /// What a node is told without asking.
    pub NoticeKind = "kind" {
        /// An entry of a channel's journal.
        Entry = "entry",
        /// A channel must be read anew.
        Lost = "lost",
        /// Every channel must be read anew.
        Reconnected = "reconnected",
        /// A channel is otherwise in the database.
        ChannelChanged = "channel_changed",
        /// What somebody is in a channel is otherwise in the database.
        StandingChanged = "standing_changed",
        /// Somebody was put out of a channel.
        Removed = "removed",
        /// Something for single people.
        Direct = "direct",
        /// Another node took up a session.
        SessionClaimed = "session_claimed",
        /// An account was switched off.
        AccountDisabled = "account_disabled",
        /// Who begins and ends to listen at another node, for administrators who watch here.
        Listening = "listening",
        /// Every session's record must be written anew.
        SessionsReconnected = "sessions_reconnected",
    }
);

label!(
    /// How a gap between entries ended.
    pub GapEnd = "end" {
        /// The journal had what was missing.
        Repaired = "repaired",
        /// The journal no longer had it.
        TooLong = "too_long",
    }
);

label!(
    /// How a renewal of a node's lease ended.
    pub LeaseOutcome = "outcome" {
        Renewed = "renewed",
        /// The node was registered, or registered again.
        Registered = "registered",
        /// There was no answer.
        Failed = "failed",
        /// The other nodes had given this one up.
        Lost = "lost",
    }
);

impl Label for ErrorCode {
    const KEY: &'static str = "code";
    const ALL: &'static [Self] = &Self::ALL;
    fn text(self) -> &'static str {
        self.as_str()
    }
    fn index(self) -> usize {
        self as usize
    }
}

impl Label for RecordingEnd {
    const KEY: &'static str = "reason";
    const ALL: &'static [Self] = &Self::ALL;
    fn text(self) -> &'static str {
        self.as_str()
    }
    fn index(self) -> usize {
        self as usize
    }
}
