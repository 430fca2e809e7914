//! What each part is told of the settings.

use std::{net::SocketAddr, time::Duration};

use crate::{
    api::limits::LimitsConfig,
    chat::ChatConfig,
    gateway::{GatewayConfig, Rate, Rates},
    media::{MediaConfig, MixInlets, RecordInlet, RelayConfig},
    mixer::{Mixer, MixerConfig},
    notify::{OutboxConfig, OutboxLimits},
    origins::{Origins, host_of},
    playback::PlaybackConfig,
    recorder::{Recorder, RecorderConfig},
    recordings::RecordingsConfig,
    rooms::{IceConfig, RoomsConfig, directory::DirectoryConfig},
    settings::{LocalState, Secret, Settings},
    streaming::{BucketConfig, Listening, LiveConfig, MakingConfig, Secrets, StreamsConfig, UploadQuotas},
    transcode::Bounds,
};

/// A track of a recording is ended at so many bytes, and another begun: hours of voice, and soon looked through.
const TRACK_BYTES_MAX: u64 = 64 * 1_024 * 1_024;

/// By how much a mix may be longer than a recording: nodes hear of its end one after the other.
const MIX_MORE: Duration = Duration::from_secs(600);

pub(super) fn media(settings: &Settings, mix: Option<MixInlets>, record: Option<RecordInlet>) -> MediaConfig {
    let defaults = MediaConfig::default();
    MediaConfig {
        bind: SocketAddr::new(settings.server.host, settings.audio.udp_port),
        workers: if settings.media.workers == 0 { defaults.workers } else { settings.media.workers },
        hold_us: settings.media.hold_us,
        spread_from_percent: settings.media.spread_from_percent,
        datagram_bytes_max: count(settings.audio.max_packet_size),
        receive_buffer_bytes: count(settings.media.receive_buffer_bytes),
        relay: relay(settings),
        webrtc_peers: count(settings.limits.webrtc_peers),
        mix,
        record,
        ..defaults
    }
}

/// The UDP addresses of the media workers, with the settings that say so.
pub(super) fn udp_addresses(settings: &Settings) -> Vec<(SocketAddr, &'static str)> {
    let voice = SocketAddr::new(settings.server.host, settings.audio.udp_port);
    let relay = relay(settings).map(|relay| (relay.bind, "server.host and cluster.relay_port"));
    [(voice, "server.host and audio.udp_port")].into_iter().chain(relay).collect()
}

pub(super) fn recorder(settings: &Settings, local: &LocalState) -> RecorderConfig {
    RecorderConfig {
        folder: settings.audio_dir(),
        node: local.node_id.clone(),
        // What is longer is not streamed.
        track_bytes_max: TRACK_BYTES_MAX.min(settings.streaming.max_file_size_bytes / 10 * 9),
        tracks_max: count(settings.recording.tracks_max),
    }
}

pub(super) fn recordings(settings: &Settings) -> RecordingsConfig {
    let recording = &settings.recording;
    let bytes = |mb: u32| u64::from(mb) * 1_024 * 1_024;
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    RecordingsConfig {
        at_once: recording.at_once,
        length_max: seconds(recording.max_length_s),
        bytes_max: bytes(recording.max_size_mb),
        quota_bytes: bytes(recording.quota_mb),
        empty_for: seconds(recording.empty_s),
        kept_for: (recording.retention_days > 0).then(|| seconds(recording.retention_days) * 86_400),
        free_bytes_min: bytes(recording.free_mb),
        folder: settings.audio_dir(),
        mix_patience: seconds(settings.streaming.transcode_timeout_s),
        bounds: Bounds { sound: seconds(recording.max_length_s) + MIX_MORE },
    }
}

pub(super) fn mixer(settings: &Settings) -> MixerConfig {
    let mixer = &settings.mixer;
    MixerConfig {
        listeners_max: count(mixer.listeners_max),
        listeners_per_account: count(mixer.listeners_per_account),
        listeners_per_address: count(mixer.listeners_per_address),
        speakers_max: mixer.speakers_max,
        complexity: u8::try_from(mixer.complexity).unwrap_or(10),
        bitrate: mixer.bitrate,
        delay_max: Duration::from_millis(mixer.delay_max_ms.into()),
        niceness: mixer.niceness,
    }
}

/// In a cluster, the relay between nodes.
fn relay(settings: &Settings) -> Option<RelayConfig> {
    let secret = settings.redis.url.as_ref().and(settings.cluster.secret.as_ref())?;
    let bind = SocketAddr::new(settings.server.host, settings.cluster.relay_port);
    Some(RelayConfig { bind, secret: secret.expose().as_bytes().into() })
}

/// `tcp_port` is where browsers come whose UDP is blocked, if anywhere.
pub(super) fn rooms(
    settings: &Settings,
    tcp_port: Option<u16>,
    mixer: Option<Mixer>,
    recorder: Option<Recorder>,
) -> RoomsConfig {
    let list = |urls: &Option<String>| {
        let urls = urls.as_deref().unwrap_or_default().split(',').map(str::trim).filter(|url| !url.is_empty());
        urls.map(str::to_owned).collect()
    };
    RoomsConfig {
        advertise: settings.audio.advertise.clone(),
        named_hosts: named_hosts(settings),
        ping_ms: settings.media.ping_ms.into(),
        channels_per_session: count(settings.limits.channels_per_session),
        texts_per_session: count(settings.limits.rooms_per_session),
        channels: u8::try_from(settings.audio.channels).unwrap_or(2),
        webrtc: settings.limits.webrtc_peers > 0,
        offers_per_minute: settings.limits.webrtc_offers_per_minute_per_account,
        ice: IceConfig {
            stun: list(&settings.rooms.stun_server),
            turn: list(&settings.rooms.turn_server),
            turn_secret: settings.rooms.turn_secret.clone(),
            turn_ttl_s: settings.rooms.turn_ttl_s,
            tcp_port,
        },
        room_ttl: Duration::from_secs(settings.rooms.ttl_s.into()),
        mixer,
        recorder,
        ..RoomsConfig::default()
    }
}

/// The hosts of the URLs by which the settings say that clients come here.
fn named_hosts(settings: &Settings) -> Vec<String> {
    let urls = [&settings.cluster.http_url, &settings.notify.public_url].into_iter().flatten();
    urls.chain(&settings.http.allowed_origins).filter_map(|url| host_of(url)).collect()
}

pub(super) fn chat(settings: &Settings) -> ChatConfig {
    ChatConfig {
        message_chars: count(settings.limits.message_chars),
        typing_per_minute: settings.limits.typing_per_minute,
        ..ChatConfig::default()
    }
}

pub(super) fn outbox(settings: &Settings) -> OutboxConfig {
    let notify = &settings.notify;
    let of_sender = || notify.smtp_from.as_deref().and_then(|from| from.rsplit(['<', ' ']).next());
    let contact = notify.push_contact.clone();
    OutboxConfig {
        public_url: notify.public_url.clone(),
        smtp: notify.smtp_url.clone().zip(notify.smtp_from.clone()),
        sms: notify.sms_url.clone().zip(notify.sms_secret.clone()),
        push: notify.push,
        push_key: notify.push_key.clone(),
        push_contact: contact.or_else(|| of_sender().map(|from| format!("mailto:{}", from.trim_end_matches('>')))),
        push_allow_private: notify.push_allow_private,
        wait: time::Duration::seconds(notify.wait_s.into()),
        attempts_max: notify.attempts_max,
        limits: OutboxLimits {
            per_hour: notify.per_hour,
            waiting_per_person: notify.waiting_per_person,
            waiting: notify.waiting_max,
        },
        sms_codes_per_hour: notify.sms_codes_per_hour,
    }
}

pub(super) fn directory(settings: &Settings) -> DirectoryConfig {
    let limits = &settings.limits;
    DirectoryConfig {
        max_users_default: limits.max_users_per_channel,
        max_users_ceiling: limits.max_users_ceiling,
        max_channels: limits.max_channels,
        channels_per_account: limits.channels_per_account,
        invites_per_channel: limits.invites_per_channel,
    }
}

pub(super) fn gateway(settings: &Settings, local: &LocalState) -> GatewayConfig {
    let limits = &settings.limits;
    let defaults = GatewayConfig::default();
    GatewayConfig {
        node: local.node_id.clone(),
        rates: Rates {
            messages: per_minute(limits.gateway_messages_per_minute),
            frames: per_minute(limits.gateway_frames_per_minute),
            ..defaults.rates
        },
        allowed_origins: Origins::new(&settings.http.allowed_origins),
        connections: count(limits.gateway_connections),
        connections_per_address: limits.gateway_connections_per_address.unwrap_or(limits.gateway_connections / 4),
        sessions_per_account: count(limits.sessions_per_account),
        unread_bytes: count(limits.gateway_unread_mb).saturating_mul(1 << 20),
        ..defaults
    }
}

pub(super) fn http_limits(settings: &Settings) -> LimitsConfig {
    LimitsConfig {
        address_per_minute: settings.limits.http_per_minute_per_address,
        account_per_minute: settings.limits.http_per_minute_per_account,
        stream_per_minute: settings.limits.stream_requests_per_minute_per_address,
        login_per_minute: settings.limits.logins_per_minute_per_address,
        channel_per_minute: settings.limits.channels_per_minute_per_address,
    }
}

pub(super) fn streams(settings: &Settings, local: &LocalState) -> StreamsConfig {
    let Settings { streaming, limits, auth, .. } = settings;
    let bytes = |secret: &Secret| secret.expose().as_bytes().to_vec();
    let secrets = match &streaming.secret {
        Some(secret) => Secrets::new(&bytes(secret), streaming.secret_previous.as_ref().map(bytes).as_deref()),
        None => Secrets::derived(&bytes(&local.jwt_secret), auth.jwt_secret_previous.as_ref().map(bytes).as_deref()),
    };
    let secret = streaming.secret.as_ref().unwrap_or(&local.jwt_secret).expose().as_bytes();
    let listening = Listening::new(secret, Duration::from_secs(streaming.listen_idle_s.into()));
    StreamsConfig {
        folder: settings.audio_dir(),
        bucket: bucket(settings),
        secrets,
        listening,
        file_bytes_max: streaming.max_file_size_bytes,
        range_bytes_max: streaming.max_range_size_bytes,
        cache_bytes: u64::from(streaming.cache_max_size_mb) * 1_024 * 1_024,
        streams_max: limits.streams,
        streams_per_address: limits.streams_per_address,
        making: making(settings),
        uploads_max: limits.uploads,
        uploads_per_account: limits.uploads_per_account,
        live: LiveConfig {
            listeners_max: limits.live_listeners,
            per_address: limits.live_listeners_per_address,
            per_channel: limits.live_listeners_per_channel,
            floor_bps: streaming.live_bitrate_min,
        },
    }
}

/// The store for audio files, where one is set.
pub(crate) fn bucket(settings: &Settings) -> Option<BucketConfig> {
    let bucket = &settings.bucket;
    Some(BucketConfig {
        endpoint: bucket.endpoint.clone()?,
        name: bucket.name.clone()?,
        region: bucket.region.clone(),
        access_key: bucket.access_key.clone()?,
        secret_key: bucket.secret_key.clone()?,
        virtual_host: bucket.virtual_host,
        prefix: bucket.prefix.clone(),
        folder: settings.bucket_dir(),
        bytes_max: u64::from(bucket.cache_max_size_mb) << 20,
        timeout: Duration::from_secs(bucket.timeout_s.into()),
    })
}

pub(super) fn playback(settings: &Settings) -> PlaybackConfig {
    PlaybackConfig {
        at_once: count(settings.limits.playbacks),
        longest: Duration::from_secs(settings.streaming.playback_max_s.into()),
    }
}

pub(super) fn upload_quotas(settings: &Settings) -> UploadQuotas {
    let bytes = |mb: u32| u64::from(mb) * 1_024 * 1_024;
    UploadQuotas {
        account_bytes_max: bytes(settings.streaming.upload_quota_mb_per_account),
        total_bytes_max: bytes(settings.streaming.upload_quota_mb),
    }
}

fn making(settings: &Settings) -> MakingConfig {
    let streaming = &settings.streaming;
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    MakingConfig {
        folder: settings.made_dir(),
        bytes_max: u64::from(streaming.made_max_size_mb) * 1_024 * 1_024,
        threads: streaming.transcode_threads,
        queue_max: count(settings.limits.transcodes_queued),
        queue_max_of_each: count(settings.limits.transcodes_queued_per_account),
        wait: seconds(streaming.transcode_wait_s),
        patience: seconds(streaming.transcode_timeout_s),
        bounds: Bounds { sound: seconds(streaming.transcode_sound_max_s) },
        ffmpeg: streaming.ffmpeg.clone(),
    }
}

/// A rate that refills continuously; a full minute's worth may come at once.
fn per_minute(count: u32) -> Rate {
    Rate { per_second: count.div_ceil(60), burst: count }
}

fn count(setting: u32) -> usize {
    usize::try_from(setting).unwrap_or(usize::MAX)
}
