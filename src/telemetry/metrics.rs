//! The catalogue: every metric of the server, once.
//!
//! To add one, add an entry to the section it belongs to, with a doc comment that is also its help text, then run
//! `ANTIPHON_UPDATE_DOCS=1 cargo test -p antiphon --lib telemetry`, which writes `docs/metrics.md` anew. Names follow
//! Prometheus' rules: the prefix `antiphon_`, base units at the end (`_seconds`, `_bytes`), then `_total` for counters.
//! Labels are closed enums (`label!`). What happens for each packet is counted by the media workers themselves and
//! sampled here ([`Sampled`]); everything else is counted where it happens: `metrics().auth.attempts.of(…).increment(1)`.

use std::sync::{Arc, LazyLock};

use antiphon_core::gateway::{ErrorCode, RecordingEnd};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

pub use super::labels::*;
use super::{
    buckets::{
        DEPTH_SECONDS, FORWARDING_SECONDS, HASH_SECONDS, JITTER_SECONDS, LATENESS_SECONDS, LOSS_RATIO, RATINGS,
        REDIS_SECONDS, REQUEST_SECONDS, ROUND_TRIP_SECONDS, SENDING_SECONDS, TICK_SECONDS, TRANSCODE_SECONDS,
    },
    catalogue::{Kind, catalogue},
    media::{BundleSize, DatagramDrop, DatagramType, EventFate, FrameDrop, SessionState},
    mix::{MixFrameDrop, MixPacket, MixScope},
    relay::{
        HopIn, HopOut, MeetingIn, MeetingOut, PeerChange, RecordSkip, RecordsSent, RelayDatagramDrop, RelayFrameDrop,
        RelayRole,
    },
};

catalogue! {
    /// HTTP API
    http: Http {
        /// Requests answered, by part of the API, method and class of status.
        counter requests [Area, Method, StatusClass] = "antiphon_http_requests_total" Count;
        /// From a request's head to its answer's head.
        histogram duration [Area, Method] = "antiphon_http_request_duration_seconds" Seconds REQUEST_SECONDS;
        /// Requests being answered now.
        gauge in_flight [] = "antiphon_http_requests_in_flight" Count;
        /// Error answers, by code. WebSocket errors are not among them.
        counter errors [ErrorCode] = "antiphon_http_errors_total" Count;
        /// Requests refused by a rate limit, by which one. They are also among the errors, as RATE_LIMITED.
        counter rate_limited [RateLimit] = "antiphon_http_rate_limited_total" Count;
        /// Connections closed at once because their address has as many as it may.
        counter connections_refused [] = "antiphon_http_connections_refused_total" Count;
        /// Handlers that panicked; each was answered INTERNAL_ERROR.
        counter panics [] = "antiphon_http_panics_total" Count;
    }

    /// TLS on the server's own ports
    tls: TlsMetrics {
        /// Connections to ports with TLS, by what became of their handshake.
        counter handshakes [HandshakeOutcome] = "antiphon_tls_handshakes_total" Count;
        /// When the certificate that is served runs out, or one in its file that signed it, in Unix time; 0 without TLS.
        gauge certificate_expiry [] = "antiphon_tls_certificate_expiry_timestamp_seconds" Seconds;
        /// Times that the certificate's files were read again. What is refused is not used, and the one before is served on.
        counter reloads [Outcome] = "antiphon_tls_reloads_total" Count;
    }

    /// Accounts
    auth: AuthMetrics {
        /// Attempts to register, log in, refresh, log out, enter as a guest or use a token, by how they ended.
        counter attempts [AuthAction, AuthOutcome] = "antiphon_auth_attempts_total" Count;
        /// Making or checking one password hash, without the wait for a turn.
        histogram hash_duration [] = "antiphon_auth_password_hash_duration_seconds" Seconds HASH_SECONDS;
    }

    /// Audio files
    streaming: StreamingMetrics {
        /// Files being sent now.
        gauge streams [] = "antiphon_streaming_streams" Count;
        /// Bytes of files that were sent.
        counter sent_bytes [] = "antiphon_streaming_sent_bytes_total" Bytes;
        /// Requests for files that were refused, by why.
        counter refused [StreamRefusal] = "antiphon_streaming_refused_total" Count;
        /// Answers that broke off because their file could not be read on.
        counter read_failures [] = "antiphon_streaming_read_failures_total" Count;
        /// Blocks of files that were needed, by whether they were in memory.
        counter cache_blocks [CacheOutcome] = "antiphon_streaming_cache_blocks_total" Count;
        /// Memory that blocks of files take.
        gauge cache_bytes [] = "antiphon_streaming_cache_bytes" Bytes;
        /// Requests to the bucket of audio files, by how they ended.
        counter bucket_requests [BucketOutcome] = "antiphon_streaming_bucket_requests_total" Count;
        /// Bytes of files that came from the bucket.
        counter bucket_received_bytes [] = "antiphon_streaming_bucket_received_bytes_total" Bytes;
        /// Bytes of files that were written to the bucket.
        counter bucket_sent_bytes [] = "antiphon_streaming_bucket_sent_bytes_total" Bytes;
        /// For how long the bucket has not done what it is asked; 0 while it does, and where there is none.
        gauge bucket_away [] = "antiphon_streaming_bucket_away_seconds" Seconds;
        /// Files that were opened as they were last known, because the bucket was away.
        counter bucket_unasked [] = "antiphon_streaming_bucket_unasked_total" Count;
        /// Copies of the bucket's files take so much of the disk.
        gauge bucket_copied_bytes [] = "antiphon_streaming_bucket_copied_bytes" Bytes;
        /// Copies that had to go, because they were used longest ago and the limit was reached.
        counter bucket_copies_removed [] = "antiphon_streaming_bucket_copies_removed_total" Count;
        /// Listening sessions going on: listeners that are being sent something, or were within `streaming.listen_idle_s`.
        gauge listeners [] = "antiphon_streaming_listeners" Count;
        /// Listening sessions that were stored.
        counter listens [] = "antiphon_streaming_listens_total" Count;
        /// Listening sessions that were not followed or stored: too many at once, or the database was away for too long.
        counter listens_lost [] = "antiphon_streaming_listens_lost_total" Count;
        /// Beginnings and ends of listening sessions that were too many to be told to administrators who watch.
        counter listening_events_missed [] = "antiphon_streaming_listening_events_missed_total" Count;
        /// Files being uploaded now.
        gauge uploads_running [] = "antiphon_streaming_uploads_running" Count;
        /// Uploads of files, by how they ended.
        counter uploads [UploadOutcome] = "antiphon_streaming_uploads_total" Count;
        /// Bytes of uploads that were kept.
        counter uploaded_bytes [] = "antiphon_streaming_uploaded_bytes_total" Bytes;
        /// Qualities and waveforms that wait to be made.
        gauge transcodes_queued [] = "antiphon_streaming_transcodes_queued" Count;
        /// Qualities and waveforms being made now.
        gauge transcodes_running [] = "antiphon_streaming_transcodes_running" Count;
        /// Qualities and waveforms that were made or not, by how that ended.
        counter transcodes [TranscodeOutcome] = "antiphon_streaming_transcodes_total" Count;
        /// Orders turned away because too many waited.
        counter transcodes_turned_away [] = "antiphon_streaming_transcodes_turned_away_total" Count;
        /// Orders turned away because as many waited for their account, or address, as may.
        counter transcodes_over_share [] = "antiphon_streaming_transcodes_over_share_total" Count;
        /// How long making one took, without its wait for a thread.
        histogram transcode_duration [] = "antiphon_streaming_transcode_duration_seconds" Seconds TRANSCODE_SECONDS;
        /// Sound that was decoded for them, in whole seconds of each file.
        counter transcoded_seconds [] = "antiphon_streaming_transcoded_sound_seconds_total" Seconds;
        /// What was made takes so much of the disk.
        gauge made_bytes [] = "antiphon_streaming_made_bytes" Bytes;
        /// Files of which what was made had to go, because it was used longest ago and the limit was reached.
        counter made_removed [] = "antiphon_streaming_made_removed_total" Count;
        /// Listeners of channels now: those who hear a channel's mix by a link.
        gauge live_listeners [] = "antiphon_streaming_live_listeners" Count;
        /// Listeners of channels who began.
        counter live_listens [] = "antiphon_streaming_live_listens_total" Count;
        /// Listeners of channels who stopped, by why.
        counter live_ends [LiveEnd] = "antiphon_streaming_live_ends_total" Count;
        /// Requests to listen to a channel that were refused, by why.
        counter live_refused [LiveRefusal] = "antiphon_streaming_live_refused_total" Count;
        /// Bytes that listeners of channels were sent.
        counter live_sent_bytes [] = "antiphon_streaming_live_sent_bytes_total" Bytes;
        /// Parts of 100 ms that a listener of a channel missed because they read too slowly.
        counter live_parts_dropped [] = "antiphon_streaming_live_parts_dropped_total" Count;
        /// Files being played into channels now.
        gauge playbacks [] = "antiphon_streaming_playbacks" Count;
        /// Files that were played into a channel, by how that ended.
        counter playback_ends [PlaybackEnd] = "antiphon_streaming_playback_ends_total" Count;
        /// Packets of files played into channels.
        counter playback_packets [] = "antiphon_streaming_playback_packets_total" Count;
        /// Requests to play a file into a channel that were refused because the node plays as many as it may, or is about to
        /// stop.
        counter playbacks_refused [] = "antiphon_streaming_playbacks_refused_total" Count;
    }

    /// Database
    store: StoreMetrics {
        /// Operations that failed because the database could not be reached or answered with an error.
        counter failures [StoreFailure] = "antiphon_store_failures_total" Count;
        /// 1 when the last check reached the database, else 0.
        gauge up [] = "antiphon_store_up" Count;
        /// How long the check of the database took: one round trip and its wait for a connection.
        histogram ping_duration [] = "antiphon_store_ping_duration_seconds" Seconds REQUEST_SECONDS;
    }

    /// Media
    media: MediaMetrics {
        /// Authentic datagrams from clients, by type.
        counter datagrams_received [DatagramType] = "antiphon_media_datagrams_received_total" Count;
        /// Datagrams dropped on arrival without an answer, by why.
        counter datagrams_dropped [DatagramDrop] = "antiphon_media_datagrams_dropped_total" Count;
        /// Bytes of all datagrams received, whatever they are.
        counter received_bytes [] = "antiphon_media_received_bytes_total" Bytes;
        /// Frames accepted from members, over UDP or the gateway.
        counter frames_received [] = "antiphon_media_frames_received_total" Count;
        /// Frames of members on other nodes, each once.
        counter frames_remote [] = "antiphon_media_frames_remote_total" Count;
        /// Frames of authentic senders that went no further, by why.
        counter frames_dropped [FrameDrop] = "antiphon_media_frames_dropped_total" Count;
        /// Frames missing between the sequence numbers of accepted ones: lost between speakers and the node.
        counter frames_lost [] = "antiphon_media_frames_lost_total" Count;
        /// Frames delivered over UDP: each listener of each frame counts.
        counter frames_delivered [] = "antiphon_media_frames_delivered_total" Count;
        /// Frames given to the gateway for members without proven UDP: once for each frame, however many they are.
        counter frames_tunnelled [] = "antiphon_media_frames_tunnelled_total" Count;
        /// Frames given to WebRTC connections: each listener of each frame counts.
        counter frames_to_peers [] = "antiphon_media_frames_to_peers_total" Count;
        /// Frames given to the mixer for members who hear a mix: once for each frame, however many they are.
        counter frames_to_mixer [] = "antiphon_media_frames_to_mixer_total" Count;
        /// Frames of mixes sent to their listeners, over UDP or given to the gateway: each listener counts.
        counter frames_mixed [] = "antiphon_media_frames_mixed_total" Count;
        /// Frames of members on this node given to the recorder, of channels that are recorded.
        counter frames_to_recorder [] = "antiphon_media_frames_to_recorder_total" Count;
        /// Datagrams with frames sent, by how many frames they carry. Copies for several listeners count each.
        counter datagrams_sent [BundleSize] = "antiphon_media_datagrams_sent_total" Count;
        /// BindAcks and Pongs sent.
        counter answers_sent [] = "antiphon_media_answers_sent_total" Count;
        /// Bytes of all datagrams sent.
        counter sent_bytes [] = "antiphon_media_sent_bytes_total" Bytes;
        /// Datagrams sealed: one for all listeners of a group, and one for each who hears others beside themselves.
        counter seals [] = "antiphon_media_seals_total" Count;
        /// Frames handed to another worker, whose channel they belong to.
        counter frames_handed_over [] = "antiphon_media_frames_handed_over_total" Count;
        /// Frames and reach dropped on the way to another worker, whose queue was full.
        counter handovers_dropped [] = "antiphon_media_handovers_dropped_total" Count;
        /// Frames of mixes dropped on the way to the worker of their listener's session, whose queue of them was full.
        counter mix_frames_dropped [] = "antiphon_media_mix_frames_dropped_total" Count;
        /// Parts of long lists of listeners that a busy worker had another send over, and those that it sent over itself
        /// because the other's queue was full.
        counter fan_out_parts [Outcome] = "antiphon_media_fan_out_parts_total" Count;
        /// Frames from the gateway dropped because their worker's queue was full.
        counter gateway_frames_dropped [] = "antiphon_media_gateway_frames_dropped_total" Count;
        /// Events of the workers that the control plane had no room for, by what becomes of them.
        counter events_refused [EventFate] = "antiphon_media_events_refused_total" Count;
        /// Commands that named what does not exist. Each is a fault of ours.
        counter commands_refused [] = "antiphon_media_commands_refused_total" Count;
        /// UDP sessions now: with a key, and those to which UDP is proven.
        gauge sessions [SessionState] = "antiphon_media_sessions" Count;
        /// Channels with members on this node now.
        gauge channels [] = "antiphon_media_channels" Count;
        /// Members of those channels now.
        gauge members [] = "antiphon_media_members" Count;
        /// Datagrams that the kernel dropped because a receive buffer was full.
        counter kernel_drops [] = "antiphon_media_kernel_drops_total" Count;
        /// Failed system calls of the workers' sockets, by direction.
        counter socket_errors [Direction] = "antiphon_media_socket_errors_total" Count;
        /// Datagrams dropped because the kernel took no more.
        counter send_dropped [] = "antiphon_media_send_dropped_total" Count;
        /// Waits for the kernel to take more.
        counter send_waits [] = "antiphon_media_send_waits_total" Count;
        /// Successful system calls of the workers' sockets, by direction: with the datagrams, how well they are batched.
        counter socket_calls [Direction] = "antiphon_media_socket_calls_total" Count;
        /// Turns of the workers' loops.
        counter turns [] = "antiphon_media_turns_total" Count;
        /// Times that a worker which waited had to be woken by another thread.
        counter wakes [] = "antiphon_media_wakes_total" Count;
        /// Commands of the control plane that workers took.
        counter commands [] = "antiphon_media_commands_total" Count;
        /// Time the workers were busy so far, all together. A gauge, since counters here hold whole numbers.
        gauge busy [] = "antiphon_media_busy_seconds" Seconds;
        /// Of each turn of a worker that sent frames, the longest that one of them was there, from the worker's taking it
        /// to the kernel's. Counted by bucket: the sum is an upper bound.
        histogram forwarding [] = "antiphon_media_forwarding_duration_seconds" Seconds FORWARDING_SECONDS;
        /// Media workers: those that were started, and those that run. Fewer run once one has failed.
        gauge workers [WorkerState] = "antiphon_media_workers" Count;
    }

    /// Mixer
    mixer: MixerMetrics {
        /// Members who hear a mix now.
        gauge listeners [] = "antiphon_mixer_listeners" Count;
        /// Channels that are mixed now: those with such members on this node.
        gauge channels [] = "antiphon_mixer_channels" Count;
        /// Mixing threads now, by what they give up for lack of time: nothing, half or all but the least of the effort of
        /// encoding, and beyond that further listeners.
        gauge threads [ShedLevel] = "antiphon_mixer_threads" Count;
        /// Members who asked for a mix and were refused one, by why.
        counter refused [MixRefusal] = "antiphon_mixer_refused_total" Count;
        /// From a tick's beginning to its end: taking frames, decoding, mixing, encoding. A tick is 20 ms.
        histogram tick_duration [] = "antiphon_mixer_tick_duration_seconds" Seconds TICK_SECONDS;
        /// Ticks left out because their thread was behind by more than three.
        counter ticks_skipped [] = "antiphon_mixer_ticks_skipped_total" Count;
        /// How much waits in speakers' jitter buffers, of each that has anything, looked at five times a second.
        histogram buffer_depth [] = "antiphon_mixer_buffer_depth_seconds" Seconds DEPTH_SECONDS;
        /// Speakers' frames that did not get into a mix, by why. Those that found the mixer's queue full are among the media
        /// workers' dropped frames.
        counter frames_dropped [MixFrameDrop] = "antiphon_mixer_frames_dropped_total" Count;
        /// Speakers' packets in their time: decoded, made up because they were missing, or no packets of Opus.
        counter packets [MixPacket] = "antiphon_mixer_packets_total" Count;
        /// Packets encoded: one for all who are silent in a channel, and one for each who speaks or has levels of their own.
        counter encodes [MixScope] = "antiphon_mixer_encodes_total" Count;
        /// Frames of mixes made: each listener of each packet counts.
        counter frames [] = "antiphon_mixer_frames_total" Count;
        /// Packets of mixes dropped because the media worker's queue was full.
        counter packets_refused [] = "antiphon_mixer_packets_refused_total" Count;
        /// Times that a decoder or encoder could not be made, or refused its work.
        counter codec_failures [] = "antiphon_mixer_codec_failures_total" Count;
    }

    /// Recordings
    recording: RecordingMetrics {
        /// Channels that are recorded now and have members on this node, or had since the recording began.
        gauge channels [] = "antiphon_recording_channels" Count;
        /// Tracks being written on this node now: one for each of their members here who has said something.
        gauge tracks [] = "antiphon_recording_tracks" Count;
        /// Packets written.
        counter packets [] = "antiphon_recording_packets_total" Count;
        /// Bytes written.
        counter written_bytes [] = "antiphon_recording_written_bytes_total" Bytes;
        /// Frames that are not in their recording, by why. Those that found the recorder's queue full are among the media
        /// workers' dropped frames.
        counter dropped [RecordDrop] = "antiphon_recording_frames_dropped_total" Count;
        /// Times that a track could not be written.
        counter write_failures [] = "antiphon_recording_write_failures_total" Count;
        /// Things that the recorder was told and did not take in time, since its disk did not answer: somebody is missing in a
        /// recording, or a track is longer than it should be.
        counter commands_lost [] = "antiphon_recording_commands_lost_total" Count;
        /// Tracks that were put into the library.
        counter kept [] = "antiphon_recording_tracks_kept_total" Count;
        /// Recordings that this node began.
        counter started [] = "antiphon_recording_started_total" Count;
        /// Recordings that this node ended, by why.
        counter ended [RecordingEnd] = "antiphon_recording_ended_total" Count;
        /// Mixes of recordings that were made, by how that ended.
        counter mixes [Outcome] = "antiphon_recording_mixes_total" Count;
        /// Times that a mix could not be sent to the bucket of audio files: it waits, and is sent again.
        counter mix_sends_failed [] = "antiphon_recording_mix_sends_failed_total" Count;
        /// Recordings that were removed because they were kept for long enough.
        counter expired [] = "antiphon_recording_expired_total" Count;
    }

    /// WebRTC
    webrtc: WebRtcMetrics {
        /// Connections now, by what clients do by them; whether they stand or not.
        gauge peers [PeerUse] = "antiphon_webrtc_peers" Count;
        /// Connections now that stand.
        gauge connected [] = "antiphon_webrtc_peers_connected" Count;
        /// Connections that came to stand: ICE and DTLS are through.
        counter established [] = "antiphon_webrtc_connections_total" Count;
        /// Connections that ended by themselves, by why.
        counter ended [PeerEnd] = "antiphon_webrtc_connections_ended_total" Count;
        /// Connections refused because the node has as many as it may, or a quarter of that waits for clients that never came.
        counter refused [] = "antiphon_webrtc_connections_refused_total" Count;
        /// Offers of browsers that came by a name that no setting names: they were told the address that their connection reached.
        counter unnamed_hosts [] = "antiphon_webrtc_unnamed_hosts_total" Count;
        /// Offers refused: their account had made, or asked for by `ice_restart`, as many as it may in a minute, by the gateway, WHIP and WHEP.
        counter offers_refused [] = "antiphon_webrtc_offers_refused_total" Count;
        /// Answers to offers refused: those of their account had as many lines as they may have in a minute.
        counter answers_refused [] = "antiphon_webrtc_answers_refused_total" Count;
        /// Offers and answers made.
        counter negotiations [] = "antiphon_webrtc_negotiations_total" Count;
        /// Datagrams of STUN, DTLS, RTP and RTCP taken.
        counter datagrams_received [] = "antiphon_webrtc_datagrams_received_total" Count;
        /// Such datagrams dropped without an answer, by why.
        counter datagrams_dropped [PeerDrop] = "antiphon_webrtc_datagrams_dropped_total" Count;
        /// Datagrams sent, whatever they are.
        counter datagrams_sent [] = "antiphon_webrtc_datagrams_sent_total" Count;
        /// Datagrams handed to the media worker of their connection, and those that its queue had no room for.
        counter handed_over [Outcome] = "antiphon_webrtc_datagrams_handed_over_total" Count;
        /// TCP connections closed at once, by why.
        counter tcp_refused [TcpRefusal] = "antiphon_webrtc_tcp_refused_total" Count;
        /// Datagrams that a client's TCP connection had no room for.
        counter tcp_dropped [] = "antiphon_webrtc_tcp_dropped_total" Count;
        /// RTP packets, by what they carry and their direction. Those sent again are not counted once more.
        counter rtp [RtpMedia, Direction] = "antiphon_webrtc_rtp_packets_total" Count;
        /// RTP packets of voice that subscribers reported lost.
        counter audio_lost [] = "antiphon_webrtc_audio_lost_total" Count;
        /// Reports of subscribers, of how they hear one voice, that the control plane had no room for.
        counter reports_dropped [] = "antiphon_webrtc_reports_dropped_total" Count;
        /// RTP packets of voice sent once more to subscribers whose way had become too narrow for the pictures on it, so that some were lost.
        counter audio_repeated [] = "antiphon_webrtc_audio_repeated_total" Count;
        /// Frames of voice that were lost on their way here and came again as redundant audio.
        counter recovered [] = "antiphon_webrtc_audio_recovered_total" Count;
        /// Packets not sent to a subscriber, by why.
        counter not_sent [RtpNotSent] = "antiphon_webrtc_rtp_not_sent_total" Count;
        /// Whole pictures that subscribers asked for, and that publishers were asked for.
        counter keyframes [KeyframeAsk] = "antiphon_webrtc_keyframe_requests_total" Count;
        /// Times that a subscriber went over to another layer of a picture.
        counter layer_switches [] = "antiphon_webrtc_layer_switches_total" Count;
        /// Times that a picture was paused because the way to a subscriber had no room even for its lowest layer.
        counter video_pauses [] = "antiphon_webrtc_video_pauses_total" Count;
        /// RTP packets of pictures that congestion control had held back until their picture was paused, and that were dropped then.
        counter video_left_over [] = "antiphon_webrtc_video_left_over_total" Count;
        /// Times that the way to a subscriber had become too narrow for the pictures on it, so that they stopped at once for the sake
        /// of voices.
        counter ways_shrank [] = "antiphon_webrtc_ways_shrank_total" Count;
        /// Times that the way to a subscriber was tried for more, because pictures could be better.
        counter ways_tried [] = "antiphon_webrtc_ways_tried_total" Count;
    }

    /// Voice quality, as clients report it
    voice: VoiceMetrics {
        /// Reports of how one listener heard one speaker: the share of frames lost, 0 to 1.
        histogram loss [] = "antiphon_voice_reported_loss_ratio" Count LOSS_RATIO;
        /// In the same reports: the interarrival jitter (RFC 3550).
        histogram jitter [] = "antiphon_voice_reported_jitter_seconds" Seconds JITTER_SECONDS;
        /// In the same reports: the round-trip time between listener and node.
        histogram round_trip [] = "antiphon_voice_reported_round_trip_seconds" Seconds ROUND_TRIP_SECONDS;
        /// What the E-model (ITU-T G.107, simplified) makes of the same reports: its rating R, from 0 to 93.2. Two people's
        /// ways to the node count as alike.
        histogram rating [] = "antiphon_voice_reported_rating" Count RATINGS;
    }

    /// Relay between nodes
    relay: RelayMetrics {
        /// Authentic datagrams from other nodes.
        counter datagrams_received [] = "antiphon_relay_datagrams_received_total" Count;
        /// Datagrams at the relay port dropped without an answer, by why.
        counter datagrams_dropped [RelayDatagramDrop] = "antiphon_relay_datagrams_dropped_total" Count;
        /// Records in authentic datagrams passed over, by why.
        counter records_skipped [RecordSkip] = "antiphon_relay_records_skipped_total" Count;
        /// Frames from other nodes, by the way they came: to an owner, from one, or past it. Some come twice.
        counter frames_received [HopIn] = "antiphon_relay_frames_received_total" Count;
        /// Frames to other nodes, each node counts, by the way they went.
        counter frames_sent [HopOut] = "antiphon_relay_frames_sent_total" Count;
        /// Packets of pictures, and words of those who meet by WebRTC, from other nodes.
        counter records_received [MeetingIn] = "antiphon_relay_meeting_records_received_total" Count;
        /// Likewise to other nodes, each node counts.
        counter meeting_sent [MeetingOut] = "antiphon_relay_meeting_records_sent_total" Count;
        /// Frames not passed on to other nodes, by why.
        counter frames_dropped [RelayFrameDrop] = "antiphon_relay_frames_dropped_total" Count;
        /// Datagrams to other nodes, by how many records they carry.
        counter datagrams_sent [RecordsSent] = "antiphon_relay_datagrams_sent_total" Count;
        /// Their bytes.
        counter sent_bytes [] = "antiphon_relay_sent_bytes_total" Bytes;
        /// Times that a channel with members here got another owner.
        counter owner_changes [] = "antiphon_relay_owner_changes_total" Count;
        /// Times that a channel's frames began to be sent past its owner, who was not heard.
        counter direct_entries [] = "antiphon_relay_direct_entries_total" Count;
        /// Changes of how workers of other nodes are heard.
        counter peer_changes [PeerChange] = "antiphon_relay_peer_changes_total" Count;
        /// Sets of nodes or speakers that named fewer than there are, for lack of room.
        counter sets_cut [] = "antiphon_relay_sets_cut_total" Count;
        /// Channels that the relay knows now, by what this node is to them.
        gauge channels [RelayRole] = "antiphon_relay_channels" Count;
        /// Other nodes now, each media worker counts.
        gauge peers [] = "antiphon_relay_peers" Count;
        /// Live nodes whose relay speaks no version that this one's does: no voice passes between them.
        gauge peers_incompatible [] = "antiphon_relay_peers_incompatible" Count;
        /// Datagrams that the kernel dropped because the relay's receive buffer was full.
        counter kernel_drops [] = "antiphon_relay_kernel_drops_total" Count;
        /// Datagrams to other nodes dropped because the send buffer stayed full, or that could not be sent at all.
        counter send_failures [] = "antiphon_relay_send_failures_total" Count;
        /// What relays tell of other nodes, dropped because nobody took it in time.
        counter events_dropped [] = "antiphon_relay_events_dropped_total" Count;
        /// Datagrams to other nodes that left in one message with others of their length.
        counter segmented [] = "antiphon_relay_segmented_datagrams_total" Count;
    }

    /// Gateway
    gateway: GatewayMetrics {
        /// Open WebSocket connections, authenticated or not.
        gauge connections [] = "antiphon_gateway_connections" Count;
        /// Sessions, connected or waiting to be resumed.
        gauge sessions [] = "antiphon_gateway_sessions" Count;
        /// Memory of encoded messages that clients have not read yet, each counted once however many wait for it.
        gauge unread_bytes [] = "antiphon_gateway_unread_bytes" Bytes;
        /// WebSockets refused because their address has as many as it may.
        counter connections_refused [] = "antiphon_gateway_connections_refused_total" Count;
        /// Error messages sent, by code.
        counter errors [ErrorCode] = "antiphon_gateway_errors_total" Count;
        /// Connections closed by the server, by why.
        counter closes [CloseCause] = "antiphon_gateway_closes_total" Count;
        /// Attempts to resume a session, by how they ended.
        counter resumes [Outcome] = "antiphon_gateway_resumes_total" Count;
        /// Messages refused for coming too fast.
        counter refused [Refused] = "antiphon_gateway_refused_total" Count;
        /// Frames of audio sent over WebSocket.
        counter frames_sent [] = "antiphon_gateway_frames_sent_total" Count;
        /// Frames of audio dropped because their client reads too slowly, oldest first.
        counter frames_dropped [] = "antiphon_gateway_frames_dropped_total" Count;
        /// Times that it could not be seen, or not be done, whose account was switched off or deleted; it is tried again.
        counter account_looks_failed [] = "antiphon_gateway_account_looks_failed_total" Count;
    }

    /// Rooms
    rooms: RoomsMetrics {
        /// Attempts to join, by how they ended.
        counter joins [Outcome] = "antiphon_rooms_joins_total" Count;
        /// From the wish to join to its answer, the wait for the database included.
        histogram join_duration [] = "antiphon_rooms_join_duration_seconds" Seconds REQUEST_SECONDS;
        /// Changes of a group's key.
        counter key_changes [] = "antiphon_rooms_key_changes_total" Count;
        /// Frames of audio that came over the gateway and were given to a media worker.
        counter frames_from_gateway [] = "antiphon_rooms_frames_from_gateway_total" Count;
        /// Notices of what other nodes did that a queue had no room for; what happened is read from the journal instead.
        counter notices_dropped [] = "antiphon_rooms_notices_dropped_total" Count;
        /// Gaps in what was heard of a channel's journal, each filled from the journal or with the state.
        counter gaps [] = "antiphon_rooms_gaps_total" Count;
        /// Times that a room went on by itself because what all nodes share could not be reached or was being filled anew.
        counter degradations [] = "antiphon_rooms_degradations_total" Count;
        /// Rooms that go on by themselves now.
        gauge degraded [] = "antiphon_rooms_degraded" Count;
        /// Times that what others stored of a channel could not be read or done when it was due; it is tried again.
        counter stored_unread [] = "antiphon_rooms_stored_unread_total" Count;
        /// Sessions that moved between nodes by Resume, by direction.
        counter moves [Move] = "antiphon_rooms_moves_total" Count;
        /// Times that what was counted here was added to the database's totals, or could not be and waits.
        counter statistics_stored [Outcome] = "antiphon_rooms_statistics_stored_total" Count;
        /// Counts of channels and people given up because too many waited for the database.
        counter statistics_dropped [] = "antiphon_rooms_statistics_dropped_total" Count;
    }

    /// Alerts, as the node itself evaluates the rules
    alerts: AlertsMetrics {
        /// Evaluations of all rules.
        counter evaluations [] = "antiphon_alerts_evaluations_total" Count;
        /// Samples given up because they are of more series than are kept.
        counter samples_dropped [] = "antiphon_alerts_samples_dropped_total" Count;
        /// Alerts of this node that fire now.
        gauge firing [] = "antiphon_alerts_firing" Count;
    }

    /// Chat
    chat: ChatMetrics {
        /// Messages of the chat family carried out or refused, by what they ask for and how they ended.
        counter requests [ChatRequest, Outcome] = "antiphon_chat_requests_total" Count;
        /// From a change's arrival to its being stored, the wait for others of the same channel included.
        histogram store_duration [] = "antiphon_chat_store_duration_seconds" Seconds REQUEST_SECONDS;
        /// Changes that were stored: messages, edits, deletions and signs.
        counter stored [] = "antiphon_chat_stored_total" Count;
        /// Changes refused because as many waited for one channel as may.
        counter queue_full [] = "antiphon_chat_queue_full_total" Count;
        /// Things written that a room read from the database, because the journal did not have them.
        counter read_again [] = "antiphon_chat_read_again_total" Count;
        /// Rooms that had something left to tell which another node, or this one, had begun.
        counter finished [] = "antiphon_chat_finished_total" Count;
        /// What other nodes had for single people and this one had no room for; messages are then read from the database.
        counter direct_dropped [] = "antiphon_chat_direct_dropped_total" Count;
        /// Messages deleted because their channel keeps no more, or none so old.
        counter expired [] = "antiphon_chat_expired_total" Count;
    }

    /// Webhooks
    webhooks: WebhookMetrics {
        /// Attempts to post to a webhook, by how they ended.
        counter posts [Outcome] = "antiphon_webhooks_posts_total" Count;
        /// Events that webhooks took.
        counter events [] = "antiphon_webhooks_events_total" Count;
        /// Webhooks that were given up after too many attempts.
        counter given_up [] = "antiphon_webhooks_given_up_total" Count;
    }

    /// Notifications
    notifications: NotificationMetrics {
        /// Notifications written here: mentions, replies, direct messages and invitations.
        counter written [] = "antiphon_notifications_written_total" Count;
        /// Deliveries outside that this node took on, by way and how that ended.
        counter deliveries [NotificationWay, DeliveryOutcome] = "antiphon_notifications_deliveries_total" Count;
        /// How long an attempt to send one took.
        histogram attempt_duration [NotificationWay] = "antiphon_notifications_attempt_duration_seconds" Seconds SENDING_SECONDS;
        /// What was not sent, or not kept, because a bound was reached.
        counter dropped [NotificationDrop] = "antiphon_notifications_dropped_total" Count;
        /// Attempts of this node that go on now: at most 16 by each way.
        gauge under_way [NotificationWay] = "antiphon_notifications_under_way" Count;
        /// Codes that confirm addresses and were not sent because a bound was reached.
        counter codes_refused [CodeBound] = "antiphon_notifications_codes_refused_total" Count;
        /// Codes that whoever was to send them did not take; they count for no bound but that between two codes.
        counter codes_not_sent [] = "antiphon_notifications_codes_not_sent_total" Count;
        /// Subscriptions of browsers that ended because of what their push service said.
        counter subscriptions_ended [SubscriptionEnd] = "antiphon_notifications_subscriptions_ended_total" Count;
        /// What waits in the database, the same on all nodes: deliveries, and notifications that no node has taken on.
        gauge waiting [] = "antiphon_notifications_waiting" Count;
        /// For how long the oldest of those has been due without an attempt, the same on all nodes.
        gauge overdue [] = "antiphon_notifications_overdue_seconds" Seconds;
    }

    /// Cluster
    cluster: ClusterMetrics {
        /// Nodes that this one knows of now, itself included: all live ones, and those of them that take on work.
        gauge nodes [NodesKnown] = "antiphon_cluster_nodes" Count;
        /// The version of the ring by which this node routes. Nodes may differ for a moment after a change.
        gauge epoch [] = "antiphon_cluster_ring_epoch" Count;
    }

    /// Redis
    redis: RedisMetrics {
        /// 1 while Redis can be asked, else 0; also 0 on a node on its own.
        gauge up [] = "antiphon_redis_up" Count;
        /// Operations, by what they are and how they ended.
        counter operations [RedisOperation, RedisOutcome] = "antiphon_redis_operations_total" Count;
        /// From an operation's beginning to its answer, or to when it was given up.
        histogram operation_duration [RedisOperation] = "antiphon_redis_operation_duration_seconds" Seconds REDIS_SECONDS;
        /// Connections given up, by why. A new one follows as soon as there can be one.
        counter reconnects [ReconnectCause] = "antiphon_redis_reconnects_total" Count;
        /// What this node was told without asking, by kind.
        counter notices [NoticeKind] = "antiphon_redis_notices_total" Count;
        /// Notices dropped because their queue was full; every room is read anew then.
        counter notices_dropped [] = "antiphon_redis_notices_dropped_total" Count;
        /// Published messages that this node was too slow for; every room is read anew then.
        counter messages_lost [] = "antiphon_redis_messages_lost_total" Count;
        /// Gaps between published entries of a journal, by how they ended.
        counter gaps [GapEnd] = "antiphon_redis_gaps_total" Count;
        /// Renewals of this node's lease, by how they ended.
        counter lease_renewals [LeaseOutcome] = "antiphon_redis_lease_renewals_total" Count;
        /// Leases of other nodes that had run out and were ended by this one.
        counter leases_ended [] = "antiphon_redis_leases_ended_total" Count;
        /// Members of dead nodes removed by this one.
        counter members_swept [] = "antiphon_redis_members_swept_total" Count;
    }

    /// Process
    process: Process {
        /// CPU time used by the process so far, user and system. A gauge, since counters here hold whole numbers.
        gauge cpu [] = "antiphon_process_cpu_seconds" Seconds;
        /// Resident memory of the process.
        gauge resident_memory [] = "antiphon_process_resident_memory_bytes" Bytes;
        /// Open file descriptors of the process.
        gauge open_files [] = "antiphon_process_open_files" Count;
        /// How many file descriptors the process may have open.
        gauge open_files_limit [] = "antiphon_process_open_files_limit" Count;
        /// When the process started, in Unix time.
        gauge start_time [] = "antiphon_process_start_time_seconds" Seconds;
        /// Always 1; its label is the release.
        gauge build_info [Release] = "antiphon_build_info" Count;
        /// How much later than asked a timer of the async runtime fires, sampled twice a second: the runtime's load.
        histogram timer_lateness [] = "antiphon_runtime_timer_lateness_seconds" Seconds LATENESS_SECONDS;
        /// Drains begun, by the signal that stops the node or by an administrator.
        counter drains [] = "antiphon_drains_total" Count;
        /// 1 while the node drains or has drained, else 0. The connections that are left are antiphon_gateway_connections.
        gauge draining [] = "antiphon_draining" Count;
        /// 1 while the node takes new sessions, 0 while it starts or drains.
        gauge ready [] = "antiphon_ready" Count;
    }
}

/// Every metric. The first call installs the recorder, so that no handle is ever resolved without one.
pub fn metrics() -> &'static Metrics {
    &INSTALLED.metrics
}

/// The metrics in Prometheus' text format.
#[must_use]
pub fn render() -> String {
    INSTALLED.handle.render()
}

/// Moves recorded samples into the histograms' buckets: to be called every few seconds, else they grow.
pub fn run_upkeep() {
    INSTALLED.handle.run_upkeep();
}

struct Installed {
    metrics: Metrics,
    handle: PrometheusHandle,
}

/// One recorder for each process, as the libraries' own metrics want it.
static INSTALLED: LazyLock<Installed> = LazyLock::new(|| {
    let recorder = Arc::new(builder().build_recorder());
    let handle = recorder.handle();
    let metrics = Metrics::register(&recorder);
    // It fails only where a recorder is there already, which then gets what libraries record; ours has its handles.
    let _ = ::metrics::set_global_recorder(recorder);
    Installed { metrics, handle }
});

/// The exporter with each histogram's buckets; without them it would make summaries, which cannot be added up.
fn builder() -> PrometheusBuilder {
    entries().into_iter().filter(|entry| entry.kind == Kind::Histogram).fold(
        PrometheusBuilder::new(),
        |builder, entry| {
            builder
                .set_buckets_for_metric(Matcher::Full(entry.name.to_owned()), entry.buckets)
                .expect("every histogram has buckets, as a test checks")
        },
    )
}

/// A count that somebody else keeps and this catalogue shows. It adds what came since the last time, so that it is
/// right even with several servers in one process, as in tests.
#[derive(Debug, Default)]
pub struct Sampled(u64);

impl Sampled {
    /// Brings `counter` up to `count`.
    pub fn bring(&mut self, counter: &::metrics::Counter, count: u64) {
        counter.increment(count.saturating_sub(self.0));
        self.0 = count;
    }

    /// Records what came since the last time with `value`.
    pub fn bring_bucket(&mut self, histogram: &::metrics::Histogram, value: f64, count: u64) {
        histogram.record_many(value, usize::try_from(count.saturating_sub(self.0)).unwrap_or(usize::MAX));
        self.0 = count;
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, fmt::Write as _};

    use ::metrics::Unit;

    use super::*;
    use crate::telemetry::{catalogue::Entry, family::Label};

    #[test]
    fn names_follow_the_rules() {
        let mut names = HashSet::new();
        for Entry { name, kind, unit, help, labels, buckets, .. } in entries() {
            assert!(names.insert(name), "{name} is declared twice");
            assert!(name.starts_with("antiphon_"), "{name}");
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'), "{name}");
            assert!(help.ends_with('.'), "{name}: its help is a sentence");
            assert_eq!(name.ends_with("_total"), kind == Kind::Counter, "{name}: counters and only they end in _total");
            let base = name.trim_end_matches("_total");
            assert_eq!(base.ends_with("_seconds"), unit == Unit::Seconds, "{name}");
            assert_eq!(base.ends_with("_bytes"), unit == Unit::Bytes, "{name}");
            assert!(
                matches!(unit, Unit::Seconds | Unit::Bytes | Unit::Count | Unit::Percent),
                "{name}: a base unit, please"
            );
            assert_eq!(buckets.is_empty(), kind != Kind::Histogram, "{name}: histograms and only they have buckets");
            assert!(buckets.is_sorted(), "{name}");
            let combinations: usize = labels.iter().map(|(_, values)| values.len()).product();
            assert!(combinations <= 384, "{name} has {combinations} combinations of labels");
        }
    }

    #[test]
    fn the_document_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        let wanted = document();
        if std::env::var_os("ANTIPHON_UPDATE_DOCS").is_some() {
            std::fs::write(path, &wanted).expect("writes");
        }
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert!(found == wanted, "docs/metrics.md is not current: run the tests once with ANTIPHON_UPDATE_DOCS=1");
    }

    #[test]
    fn what_is_counted_is_shown_with_its_help() {
        metrics().http.requests.of((Area::Unknown, Method::Other, StatusClass::Informational)).increment(3);
        metrics().process.timer_lateness.record(0.004);
        metrics().http.duration.of((Area::Unknown, Method::Other)).record(0.004);
        metrics().notifications.attempt_duration.of(NotificationWay::ALL[0]).record(0.004);
        metrics().redis.operation_duration.of(RedisOperation::ALL[0]).record(0.004);
        let text = render();
        let line = "antiphon_http_requests_total{area=\"unknown\",method=\"other\",status=\"1xx\"} 3";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("antiphon_runtime_timer_lateness_seconds_bucket{le=\"0.005\"}"), "{text}");
        let labels = "{area=\"unknown\",method=\"other\",le=\"0.005\"}";
        assert!(text.contains(&format!("antiphon_http_request_duration_seconds_bucket{labels}")), "{text}");
        for entry in entries() {
            assert!(text.contains(&format!("# HELP {} {}\n", entry.name, entry.help)), "{} has no help", entry.name);
        }
    }

    #[test]
    fn every_error_code_has_its_own_counter() {
        for (position, code) in ErrorCode::ALL.into_iter().enumerate() {
            assert_eq!(Label::index(code), position);
        }
    }

    #[test]
    fn sampled_counts_add_up() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let counter = ::metrics::with_local_recorder(&recorder, || ::metrics::counter!("sampled_total"));
        let (mut one, mut other) = (Sampled::default(), Sampled::default());
        one.bring(&counter, 5);
        other.bring(&counter, 7);
        one.bring(&counter, 8);
        assert!(recorder.handle().render().contains("sampled_total 15"));
    }

    #[test]
    fn sampled_buckets_are_shown_as_they_were_counted() {
        let bounds = FORWARDING_SECONDS;
        let recorder = PrometheusBuilder::new().set_buckets(&bounds).expect("some").build_recorder();
        let histogram = ::metrics::with_local_recorder(&recorder, || ::metrics::histogram!("sampled_seconds"));
        let mut buckets = [(); FORWARDING_SECONDS.len() + 1].map(|()| Sampled::default());
        for count in [1, 3] {
            for (bucket, value) in buckets.iter_mut().zip(bounds.into_iter().chain([1.0])) {
                bucket.bring_bucket(&histogram, value, count);
            }
        }
        let text = recorder.handle().render();
        for (position, bound) in bounds.iter().enumerate() {
            let line = format!("sampled_seconds_bucket{{le=\"{bound}\"}} {}\n", 3 * (position + 1));
            assert!(text.contains(&line), "{line}{text}");
        }
        assert!(text.contains(&format!("sampled_seconds_count {}\n", 3 * buckets.len())), "{text}");
    }

    /// `docs/metrics.md`.
    fn document() -> String {
        let mut text = String::from(
            "# Metrics\n\n\
             `GET /metrics` answers these in Prometheus' text format. This page is generated from the catalogue in\n\
             `src/telemetry/metrics.rs`; a test keeps it current. Counters begin at zero when the node starts; a histogram with\n\
             labels is there for those that something was measured of, so that a rate does not have the first measurement.\n",
        );
        let mut section = "";
        for entry in entries() {
            if entry.section != section {
                section = entry.section;
                let _ = write!(text, "\n## {section}\n\n| name | kind | labels | meaning |\n|---|---|---|---|\n");
            }
            let kind = format!("{:?}", entry.kind).to_lowercase();
            let labels: Vec<String> =
                entry.labels.iter().map(|(key, values)| format!("`{key}`: {}", values.join(", "))).collect();
            let buckets: Vec<String> = entry.buckets.iter().map(f64::to_string).collect();
            let bounds = if buckets.is_empty() { String::new() } else { format!(" Buckets: {}.", buckets.join(", ")) };
            let _ = writeln!(text, "| `{}` | {kind} | {} | {}{bounds} |", entry.name, labels.join("; "), entry.help);
        }
        text
    }
}
