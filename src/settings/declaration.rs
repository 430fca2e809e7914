//! Every setting, declared once: from here come the typed sections, reading and checking, `antiphon config` and
//! `docs/configuration.md`.
//!
//! A setting is `key: Type [rules] = default;` below its description. Rules: `.env(NAME)` for a further environment
//! variable, `.only(text, check)` for a range.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use super::{
    ConnectionUrl, LogFormat, Network, Secret,
    reader::{Reader, Rule},
};

macro_rules! settings {
    (
        { $( $(#[doc = $top_doc:literal])+ $top:ident : $Top:ty [$($top_rule:tt)*] = $top_default:expr; )+ }
        $(
            $(#[doc = $section_doc:literal])+
            $section:ident : $Section:ident {
                $( $(#[doc = $doc:literal])+ $key:ident : $Type:ty [$($rule:tt)*] = $default:expr; )+
            }
        )+
    ) => {
        $(
            $(#[doc = $section_doc])+
            #[derive(Clone, Debug)]
            pub struct $Section {
                $( $(#[doc = $doc])+ pub $key: $Type, )+
            }

            impl Default for $Section {
                fn default() -> Self {
                    Settings::default().$section
                }
            }
        )+

        /// Everything that can be set, in force. `Settings::default()` is what holds when nothing is set.
        #[derive(Clone, Debug)]
        pub struct Settings {
            $( $(#[doc = $top_doc])+ pub $top: $Top, )+
            $( $(#[doc = $section_doc])+ pub $section: $Section, )+
        }

        impl Settings {
            pub(super) fn read(reader: &mut Reader<'_>) -> Self {
                Self {
                    $( $top: reader.take(
                        "", stringify!($top), &[$($top_doc),+], &Rule::<$Top>::new() $($top_rule)*, $top_default,
                    ), )+
                    $( $section: $Section {
                        $( $key: reader.take(
                            stringify!($section), stringify!($key), &[$($doc),+], &Rule::<$Type>::new() $($rule)*, $default,
                        ), )+
                    }, )+
                }
            }
        }

        /// The sections and what they are about, in order.
        pub(super) const SECTIONS: &[(&str, &[&str])] = &[ $( (stringify!($section), &[$($section_doc),+]) ),+ ];
    };
}

/// Whether a text is a list, with commas, of URLs of these schemes.
fn are_urls_of(urls: &str, schemes: &[&str]) -> bool {
    urls.split(',')
        .map(str::trim)
        .all(|url| schemes.iter().any(|scheme| url.len() > scheme.len() && url.starts_with(scheme)))
}

/// Whether a text is what all stores take for a bucket's name.
fn is_bucket_name(name: &str) -> bool {
    (3..=63).contains(&name.len())
        && name.split('.').all(|part| !part.is_empty())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-'))
}

/// Whether a text can stand before paths: no name in it is one that URLs resolve.
fn is_prefix(prefix: &str) -> bool {
    prefix.is_empty()
        || prefix.strip_suffix('/').is_some_and(|names| {
            names.split('/').all(|name| !matches!(name, "" | "." | "..") && !name.chars().any(char::is_control))
        })
}

settings! {
    {
        /// The folder of everything a node keeps: the SQLite database and generated secrets. Made when it isn't there.
        data_dir: PathBuf [] = "antiphon-data".into();
    }

    /// Where clients reach HTTP and the gateway.
    server: Server {
        /// The IP address that HTTP, the gateway and UDP listen on; `0.0.0.0` or `::` for all.
        host: IpAddr [.env("SERVER_HOST")] = Ipv4Addr::LOCALHOST.into();
        /// The TCP port of HTTP, and of the gateway at `/ws`; 0 for any free one.
        port: u16 [.env("SERVER_PORT").env("STREAM_SERVER_PORT")] = 3000;
        /// The IP address that the WebSocket port listens on, when not `server.host`. `WS_BIND_ADDR` is it and the port, `host:port`.
        websocket_host: Option<IpAddr> [.env_part("WS_BIND_ADDR", host_part)] = None;
        /// The TCP port that serves the gateway alone, at any path; 0 for any free one. `WS_BIND_ADDR` is the address and it, `host:port`.
        websocket_port: u16 [.env_part("WS_BIND_ADDR", port_part)] = 3001;
        /// A PEM file of the certificate with which HTTP and the gateway speak TLS, followed by those that signed it; needs
        /// `server.tls_key`. Read again when it changes, and on SIGHUP. When not set they speak plain HTTP.
        tls_certificate: Option<PathBuf> [] = None;
        /// The PEM file of that certificate's private key, without a password.
        tls_key: Option<PathBuf> [] = None;
        /// Reverse proxies (addresses or networks) whose `X-Forwarded-For` is believed when rates are limited by
        /// address.
        trusted_proxies: Vec<Network> [] = Vec::new();
        /// How long, in seconds, a stopping node waits for its clients to go elsewhere.
        drain_deadline_s: u32 [.only("from 0 to 86400 (a day)", |s| *s <= 86_400)] = 30;
        /// How much lower than the media workers' the priority of HTTP, the gateway, chat and files is, which run
        /// beside them, in steps of `nice`: with 5 they have a quarter of a processor's time where both want all of it.
        niceness: u16 [.only("from 0 to 19", |steps| *steps <= 19)] = 5;
    }

    /// Voice: its port, and the format that `GET /api/audio/config` names to clients.
    audio: Audio {
        /// The UDP port of media; 0 for any free one.
        udp_port: u16 [] = 3002;
        /// The UDP addresses (`host:port`) that clients are told to send to. Empty: the host by which they reached
        /// the gateway, and the UDP port; browsers that came by a name that neither `http.allowed_origins`, `cluster.http_url` nor
        /// `notify.public_url` names are told the address of this machine that they reached. Needed where that is not the
        /// one that others reach: behind NAT, a proxy or a container's published ports.
        advertise: Vec<String> [.only("a list of host:port", |list| list.iter().all(|item| port_part(item).is_ok()))] = Vec::new();
        /// Samples per second of a stream whose speaker names no other rate.
        sample_rate: u32 [.only("one of Opus's rates: 8000, 12000, 16000, 24000 or 48000",
            |rate| [8_000, 12_000, 16_000, 24_000, 48_000].contains(rate))] = 48_000;
        /// Channels of a stream whose speaker names no other count.
        channels: u16 [.only("1 or 2", |count| (1..=2).contains(count))] = 2;
        /// Bits per sample of the PCM that clients encode.
        bit_depth: u16 [.only("16, 24 or 32", |bits| [16, 24, 32].contains(bits))] = 16;
        /// Samples per block that clients should capture and play at once.
        buffer_size: u32 [.only("from 64 to 65536", |samples| (64..=65_536).contains(samples))] = 1024;
        /// The longest datagram in bytes that is taken; longer ones are dropped and counted.
        max_packet_size: u32 [.only("from 576 to 1500", |bytes| (576..=1500).contains(bytes))] = 1500;
        /// The delay in milliseconds from mouth to ear that clients should aim at.
        latency_target_ms: u32 [.only("from 10 to 1000", |ms| (10..=1000).contains(ms))] = 50;
    }

    /// How a node carries voice.
    media: Media {
        /// Worker threads, each with a socket of its own; 0 for one per processor.
        workers: u16 [.only("from 0 to 256", |count| *count <= 256)] = 0;
        /// The longest time in microseconds that a frame waits for others to share a datagram with, while several
        /// people speak.
        hold_us: u32 [.only("from 0 to 2000", |us| *us <= 2000)] = 2000;
        /// From which share of its time on, in percent, a worker lets others send to parts of a channel's listeners when
        /// those are many; 0 always, 101 never.
        spread_from_percent: u16 [.only("from 0 to 101", |percent| *percent <= 101)] = 60;
        /// How often, in milliseconds, clients are told to ping.
        ping_ms: u32 [.only("from 1000 to 7000, so that two fit in the 15 s after which UDP counts as lost",
            |ms| (1000..=7000).contains(ms))] = 5000;
        /// The kernel's receive buffer in bytes for each worker's socket (the kernel may grant less).
        receive_buffer_bytes: u32 [.only("at least 65536", |bytes| *bytes >= 65_536)] = 4 * 1024 * 1024;
    }

    /// Mixing, for members who join with `mode: mixed`: they get one stream instead of each speaker's.
    mixer: Mixer {
        /// Threads that mix, beside the media workers and with a lower priority; 0 for no mixing: `mode: mixed` is refused.
        threads: u16 [.only("from 0 to 64", |count| *count <= 64)] = 1;
        /// Members who hear a mix at once on this node; further ones are refused (`LIMIT_REACHED`).
        listeners_max: u32 [.only("from 1 to 100000", |count| (1..=100_000).contains(count))] = 1_000;
        /// Of those, by one account, in whatever sessions and channels; further ones are refused (`LIMIT_REACHED`).
        listeners_per_account: u32 [.only("from 1 to 100000", |count| (1..=100_000).contains(count))] = 16;
        /// Of those, from one address (an IPv6 /64 counts as one); further ones are refused (`LIMIT_REACHED`). Behind a proxy
        /// that `server.trusted_proxies` does not name, all have the proxy's address.
        listeners_per_address: u32 [.only("from 1 to 100000", |count| (1..=100_000).contains(count))] = 200;
        /// Speakers of a channel who are mixed at once: the loudest so many.
        speakers_max: u32 [.only("from 1 to 64", |count| (1..=64).contains(count))] = 16;
        /// Opus's complexity while there is time. The higher, the better mixes sound and the more time they take; a thread
        /// that cannot keep up goes below it by itself.
        complexity: u16 [.only("from 0 to 10", |level| *level <= 10)] = 5;
        /// Bits per second of a mix.
        bitrate: u32 [.only("from 12000 to 128000", |bits| (12_000..=128_000).contains(bits))] = 40_000;
        /// The longest time in milliseconds that a speaker's frames are waited for. How long within that, the network says.
        delay_max_ms: u32 [.only("from 20 to 1000", |ms| (20..=1_000).contains(ms))] = 400;
        /// How much lower than the media workers' the threads' priority is, in steps of `nice`.
        niceness: u16 [.only("from 0 to 19", |steps| *steps <= 19)] = 5;
    }

    /// What a single user, address or channel may use up. Rates refill continuously; a full minute's worth may come at
    /// once.
    limits: Limits {
        /// A channel's `max_users` when whoever makes it names none.
        max_users_per_channel: u32 [.only("from 1 to 100000", |count| (1..=100_000).contains(count))] = 10;
        /// The most that a channel's `max_users` may be set to.
        max_users_ceiling: u32 [.only("from 1 to 100000", |count| (1..=100_000).contains(count))] = 10_000;
        /// Channels on the server. Guests own at most half of them; administrators may make more.
        max_channels: u32 [] = 100;
        /// Of those, channels that one account may own. Administrators may own any number.
        channels_per_account: u32 [] = 20;
        /// Voice channels that one session may be in at once.
        channels_per_session: u32 [.only("from 1 to 1000", |count| (1..=1000).contains(count))] = 16;
        /// Rooms that one session may read and write in at once without voice.
        rooms_per_session: u32 [.only("from 1 to 1000", |count| (1..=1000).contains(count))] = 100;
        /// The longest message in characters.
        message_chars: u32 [.only("from 1 to 10000, so that it fits into a frame", |count| (1..=10_000).contains(count))] = 4_000;
        /// How often a minute somebody may say that they write, in one room or to one person; 0 for any number.
        typing_per_minute: u32 [] = 60;
        /// Invites of one channel that are not used up.
        invites_per_channel: u32 [] = 1000;
        /// Guests that are remembered at once; further ones are refused until some have gone.
        guests: u32 [] = 100_000;
        /// Of those, how many one address (an IPv6 /64 counts as one) may make at each node within `auth.guest_ttl_s`, so that no single
        /// one takes all; 0 for any number. When not set: a quarter.
        guests_per_address: Option<u32> [] = None;
        /// HTTP requests per minute from one address; 0 for any number.
        http_per_minute_per_address: u32 [] = 12_000;
        /// HTTP requests per minute of one account; 0 for any number.
        http_per_minute_per_account: u32 [] = 6_000;
        /// Gateway messages per minute of one account, over all its connections; audio not counted.
        gateway_messages_per_minute: u32 [.only("at least 60", |count| *count >= 60)] = 1_200;
        /// Frames of audio per minute of one account over the gateway: a speaker sends 3,000 in each channel.
        gateway_frames_per_minute: u32 [.only("at least 3000", |count| *count >= 3_000)] = 30_000;
        /// WebSocket connections at once; further ones are told to try later, or another node.
        gateway_connections: u32 [.only("at least 16", |count| *count >= 16)] = 100_000;
        /// Of those, from one address (an IPv6 /64 counts as one), for as long as they last; further ones are refused
        /// (`RATE_LIMITED`). Behind a proxy that `server.trusted_proxies` does not name, all have the proxy's address. When not set: a
        /// quarter.
        gateway_connections_per_address: Option<u32> [.only("at least 1", |count| count.is_none_or(|count| count >= 1))] = None;
        /// What all clients together may leave unread, in MiB; when it is more, those who have most unread are closed (4011).
        gateway_unread_mb: u32 [.only("at least 16", |mb| *mb >= 16)] = 256;
        /// Gateway sessions that one account may have at once.
        sessions_per_account: u32 [.only("at least 1", |count| *count >= 1)] = 64;
        /// Requests for audio files per minute from one address, counted apart from its others; 0 for any number.
        stream_requests_per_minute_per_address: u32 [] = 12_000;
        /// Audio files that the node sends at once; further ones are told to try later.
        streams: u32 [.only("at least 1", |count| *count >= 1)] = 5_000;
        /// Audio files that the node sends at once to one address (an IPv6 network of 64 bits).
        streams_per_address: u32 [.only("at least 1", |count| *count >= 1)] = 64;
        /// Listeners of channels, by links, at once; further ones are told to try later, or another node.
        live_listeners: u32 [.only("at least 1", |count| *count >= 1)] = 1_000;
        /// Of those, from one address (an IPv6 network of 64 bits).
        live_listeners_per_address: u32 [.only("at least 1", |count| *count >= 1)] = 16;
        /// Of those, of one channel.
        live_listeners_per_channel: u32 [.only("at least 1", |count| *count >= 1)] = 500;
        /// Channels that this node plays files into at once; 0 for none.
        playbacks: u32 [.only("from 0 to 1000", |count| *count <= 1_000)] = 16;
        /// Audio files being uploaded at once; further ones are told to try later.
        uploads: u32 [.only("from 1 to 10000", |count| (1..=10_000).contains(count))] = 16;
        /// Audio files that one account uploads at once.
        uploads_per_account: u32 [.only("at least 1", |count| *count >= 1)] = 4;
        /// Qualities and waveforms that may wait to be made, in turn by who ordered them; further ones are told to try later.
        transcodes_queued: u32 [.only("from 1 to 100000", |count| (1..=100_000).contains(count))] = 1_000;
        /// Of those, what one account has ordered, or one address by links; further ones are told to try later.
        transcodes_queued_per_account: u32 [.only("from 1 to 100000", |count| (1..=100_000).contains(count))] = 200;
        /// Sign-ups, log-ins and refreshes per minute from one address; 0 for any number.
        logins_per_minute_per_address: u32 [] = 1_200;
        /// Channels and rooms per minute that one address makes (an IPv6 /64 counts as one), administrators not counted; 0 for any
        /// number.
        channels_per_minute_per_address: u32 [] = 120;
        /// Offers of WebRTC per minute that one account makes, by the gateway, WHIP and WHEP, taken or not, and those that it asks for by `ice_restart`. Its answers to the server's offers have 2,000 lines a minute for each of them; 0 for any number.
        webrtc_offers_per_minute_per_account: u32 [] = 240;
        /// New guests per minute from one address; 0 for any number.
        guests_per_minute_per_address: u32 [] = 12_000;
        /// WebRTC connections at once, of which a browser has two; 0 for no WebRTC. At most a quarter of them, but 16 always, may wait
        /// for clients that did not come yet, each for 10 s.
        webrtc_peers: u32 [.only("from 0 to 100000", |count| *count <= 100_000)] = 2_000;
        /// TCP connections at once of browsers whose UDP is blocked.
        webrtc_tcp_connections: u32 [.only("from 1 to 100000", |count| (1..=100_000).contains(count))] = 1_000;
        /// Of those, from one address (an IPv6 /64 counts as one): an office whose firewall blocks UDP has one for all.
        webrtc_tcp_connections_per_address: u32 [.only("from 1 to 100000", |count| (1..=100_000).contains(count))] = 250;
    }

    /// Who may come in.
    auth: Auth {
        /// Whether people may come in with a name only.
        guests: bool [] = true;
        /// The secret that signs tokens (HS256), at least 32 random characters. When it is not set one is generated and
        /// kept in the data dir.
        jwt_secret: Option<Secret> [.env("JWT_SECRET")] = None;
        /// The secret before, still accepted while clients hold tokens signed with it.
        jwt_secret_previous: Option<Secret> [] = None;
        /// How long an access token lasts, in seconds.
        access_token_ttl_s: u32 [.env("JWT_EXPIRY_SECONDS").only("from 1 to 86400", |s| (1..=86_400).contains(s))] = 900;
        /// How long a refresh token lasts, in seconds: whoever is away longer logs in again.
        refresh_token_ttl_s: u32 [.only("from 60 to 31536000 (a year)", |s| (60..=31_536_000).contains(s))] = 30 * 86_400;
        /// The same for guests, whose name is free again after it.
        guest_ttl_s: u32 [.only("from 60 to 31536000 (a year)", |s| (60..=31_536_000).contains(s))] = 86_400;
        /// Sessions that one account may be logged in with; the one unused for longest ends when there are more.
        logins_per_account: u32 [.only("at least 1", |count| *count >= 1)] = 50;
        /// Passwords hashed at once, 19 MiB and a processor each; 0 for half of the processors.
        password_hashes_at_once: u16 [] = 0;
        /// Log-ins and sign-ups that may wait for a password to be hashed; more are told to come back.
        password_hash_queue: u32 [.only("at least 1", |count| *count >= 1)] = 256;
        /// Wrong passwords for one account from one address before it has to wait.
        failures_per_account_and_address: u32 [.only("from 1 to 1000", |count| (1..=1000).contains(count))] = 10;
        /// Wrong passwords for one account from all addresses before those it never logged in from have to wait.
        failures_per_account: u32 [.only("from 1 to 100000", |count| (1..=100_000).contains(count))] = 100;
        /// Wrong passwords from one address (an IPv6 network of 64 bits), whatever the account, before it has to wait.
        failures_per_address: u32 [.only("from 1 to 100000", |count| (1..=100_000).contains(count))] = 100;
        /// How long, in seconds, until one of those failures is forgiven.
        failure_forgiven_s: u32 [.only("from 1 to 86400", |s| (1..=86_400).contains(s))] = 60;
        /// An external issuer whose tokens are accepted: what their `iss` must be.
        issuer: Option<String> [] = None;
        /// What the external issuer's tokens must name in `aud`; not checked when not set.
        issuer_audience: Option<String> [] = None;
        /// The external issuer's public keys: an `https` URL of a JWKS document, or the path of a file with one.
        issuer_jwks: Option<String> [] = None;
    }

    /// Where durable data is kept.
    database: Database {
        /// `sqlite:FILE` or `postgres://USER:PASSWORD@HOST/NAME`. When not set: `antiphon.db` in the data dir.
        url: Option<ConnectionUrl> [.env("DATABASE_URL").only("a sqlite: or postgres: URL",
            |url| url.as_ref().is_none_or(|url| ["sqlite", "postgres", "postgresql"].contains(&url.scheme())))] = None;
        /// How long, in seconds, a starting server waits for a database that cannot be reached yet.
        wait_at_start_s: u32 [.only("at most 3600", |s| *s <= 3_600)] = 30;
        /// Connections at once.
        max_connections: u32 [.only("from 2 to 1000", |count| (2..=1000).contains(count))] = 8;
    }

    /// What nodes of a cluster share.
    redis: Redis {
        /// `redis://USER:PASSWORD@HOST:PORT`, or `rediss:` for TLS. `redis-cluster:` and `redis-sentinel:` (and
        /// `rediss-…:`) take further servers as `?node=HOST:PORT&node=…`, and Sentinel `&sentinelServiceName=NAME`.
        /// With it the node is one of a cluster, which also needs a PostgreSQL database, `cluster.secret` and
        /// `auth.jwt_secret`, the same on every node.
        url: Option<ConnectionUrl> [.env("REDIS_URL").only("a redis:, rediss:, redis-cluster:, rediss-cluster:, \
            redis-sentinel: or rediss-sentinel: URL", |url| url.as_ref().is_none_or(is_redis_url))] = None;
        /// A PEM file of the certificates that must have signed the server's, when not one of the system's.
        ca_file: Option<PathBuf> [] = None;
    }

    /// This node among others.
    cluster: Cluster {
        /// The node's name, as clients see it in `Hello`. When not set one is generated and kept in the data dir.
        node_id: Option<String> [.only("1 to 64 letters, digits, dots, hyphens or underscores",
            |id| id.as_deref().is_none_or(is_node_id))] = None;
        /// The UDP port for voice between nodes; 0 for any free one. A private network's: datagrams are sealed, but
        /// whoever reaches the port can flood it.
        relay_port: u16 [] = 3003;
        /// The address (`ip:port`) by which other nodes reach the relay port. When not set: `server.host` and the port.
        advertise: Option<SocketAddr> [] = None;
        /// The URL by which clients reach this very node, past any balancer: where others send them when they drain.
        /// When not set: `http://` or `https://`, `server.host` and the port.
        http_url: Option<String> [.only("an http or https URL", |url| url.as_deref().is_none_or(is_http_url))] = None;
        /// The secret that nodes of one cluster share, at least 32 random characters: it seals what they send each other.
        secret: Option<Secret> [] = None;
        /// A PEM file of the certificates that must have signed the other nodes', when not one of the system's.
        ca_file: Option<PathBuf> [] = None;
        /// The node's share of channels and clients in relation to other nodes'; 0 for 100 for each media worker.
        capacity: u32 [.only("from 0 to 1000000", |capacity| *capacity <= 1_000_000)] = 0;
        /// Whether administrators may begin anew (`POST /api/advanced/admin/reset`), which ends every session of all
        /// nodes. A node on its own always lets them.
        allow_reset: bool [] = false;
    }

    /// Audio files behind signed links.
    streaming: Streaming {
        /// The folder of the files, with sub-folders; made when it isn't there. When not set: `audio` in the data dir. Nodes
        /// of a cluster need the same files in it, as from a shared file system. With `bucket.endpoint` it has what is being recorded, and each node may have its own.
        audio_dir: Option<PathBuf> [.env("AUDIO_DIR")] = None;
        /// The secret that signs links, at least 32 random characters. When not set one is derived from `auth.jwt_secret`.
        secret: Option<Secret> [.env("SECRET_KEY")] = None;
        /// The secret before, still accepted while links are about that were signed with it.
        secret_previous: Option<Secret> [] = None;
        /// The longest file in bytes that is streamed and listed.
        max_file_size_bytes: u64 [.env("MAX_FILE_SIZE")] = 100 * 1024 * 1024;
        /// The longest range in bytes that one answer holds, at least 1; a longer one is answered shortened, unless it
        /// reaches the file's end, as players' do.
        max_range_size_bytes: u64 [.env("MAX_RANGE_SIZE").only("at least 1", |bytes| *bytes >= 1)] = 10 * 1024 * 1024;
        /// Memory in MiB for what is read of files; 0 for none.
        cache_max_size_mb: u32 [.env("CACHE_MAX_SIZE_MB").only("at most 1048576", |mb| *mb <= 1_048_576)] = 256;
        /// How long, in days, it is kept who listened to what, without addresses; 0 for not at all.
        listens_kept_days: u32 [.only("from 0 to 3650", |days| *days <= 3_650)] = 90;
        /// When a listening session is over: nothing was asked for so long, in seconds. Players that pause may come back.
        listen_idle_s: u32 [.only("from 1 to 3600", |s| (1..=3_600).contains(s))] = 60;
        /// Bits per second that listeners of channels are sent at least: packets are filled up to it, since some players, such
        /// as Chromium's, begin only once they have some tens of kilobytes, and wait for ever in silence. 0: as few as there are.
        live_bitrate_min: u32 [.only("from 0 to 256000", |bits| *bits <= 256_000)] = 64_000;
        /// The longest, in seconds, that a file is played into a channel, repetitions included.
        playback_max_s: u32 [.only("from 1 to 604800 (a week)", |s| (1..=604_800).contains(s))] = 6 * 3_600;
        /// What one account may upload, in MiB, files of guests excluded: they upload none. 0: only administrators upload.
        upload_quota_mb_per_account: u32 [] = 256;
        /// What all may upload together, in MiB, administrators included.
        upload_quota_mb: u32 [] = 10_240;
        /// How many bytes of an upload come in a second, on average after its first five; one that is slower gives up its place
        /// to others. 0: however slow.
        upload_bytes_per_s_min: u32 [] = 8_192;
        /// How long, in seconds, one upload may take.
        upload_timeout_s: u32 [.only("from 1 to 86400", |s| (1..=86_400).contains(s))] = 900;
        /// The folder of what is made of the files: qualities and waveforms. Everything in it can be made again. When not
        /// set: `made` in the data dir. Nodes may share one.
        made_dir: Option<PathBuf> [] = None;
        /// What that folder may hold, in MiB; what was used longest ago goes.
        made_max_size_mb: u32 [.only("at least 1", |mb| *mb >= 1)] = 10_240;
        /// Threads that make qualities and waveforms, at the lowest priority; 0 for none, and then files are streamed as they
        /// are only.
        transcode_threads: u16 [.only("from 0 to 64", |count| *count <= 64)] = 1;
        /// How long, in seconds, a request waits for a quality that is being made before it is told to come back.
        transcode_wait_s: u32 [.only("from 0 to 300", |s| *s <= 300)] = 10;
        /// The longest time in seconds that making one may take.
        transcode_timeout_s: u32 [.only("from 1 to 86400", |s| (1..=86_400).contains(s))] = 1_800;
        /// The longest sound in seconds of which qualities and waveforms are made: a small file can hold days of silence.
        transcode_sound_max_s: u32 [.only("from 1 to 172800 (two days)", |s| (1..=172_800).contains(s))] = 6 * 3_600;
        /// An ffmpeg for files that the built-in decoders do not know, such as WebM and HE-AAC: its name or path. It is not
        /// used for others.
        ffmpeg: Option<PathBuf> [] = None;
    }

    /// An S3-compatible store for the audio files, recordings and what is made of them, instead of `streaming.audio_dir`: nodes share it.
    bucket: Bucket {
        /// The URL of the store, such as `https://s3.eu-central-1.amazonaws.com`; http only on this machine or a private network.
        /// When not set the files are in `streaming.audio_dir`.
        endpoint: Option<String> [.only("an http or https URL", |url| url.as_deref().is_none_or(is_http_url))] = None;
        /// The bucket's name.
        name: Option<String> [.only("from 3 to 63 lower-case letters, digits, dots and hyphens",
            |name| name.as_deref().is_none_or(is_bucket_name))] = None;
        /// What the store calls the region that it is in.
        region: String [] = "us-east-1".to_owned();
        /// Whose requests are: the id of an access key that may list, read, write and delete objects.
        access_key: Option<Secret> [] = None;
        /// The secret of that key.
        secret_key: Option<Secret> [] = None;
        /// Whether the bucket's name stands in the host (`https://NAME.HOST/`), and not in the path (`https://HOST/NAME/`).
        virtual_host: bool [] = false;
        /// What stands before each file's path in its key, such as `audio/`.
        prefix: String [.only("empty, or names that each end with a slash", |prefix| is_prefix(prefix))] = String::new();
        /// The folder of copies of what was lately read; it is the server's alone, one node's, and may be emptied. When not set:
        /// `bucket` in the data dir.
        cache_dir: Option<PathBuf> [] = None;
        /// What that folder may hold, in MiB; what was used longest ago goes.
        cache_max_size_mb: u32 [] = 10_240;
        /// How long, in seconds, the store may take to answer.
        timeout_s: u32 [.only("from 1 to 60", |s| (1..=60).contains(s))] = 5;
    }

    /// Recordings of channels.
    recording: Recording {
        /// Whether channels may be recorded, by their owners and moderators.
        enabled: bool [] = true;
        /// Recordings that go on at once, on all nodes.
        at_once: u32 [.only("from 1 to 10000", |count| (1..=10_000).contains(count))] = 32;
        /// The longest recording in seconds; it ends then.
        max_length_s: u32 [.only("from 10 to 86400 (a day)", |s| (10..=86_400).contains(s))] = 4 * 3_600;
        /// The biggest recording in MiB, all of its speakers together; it ends then.
        max_size_mb: u32 [.only("at least 1", |mb| *mb >= 1)] = 2_048;
        /// What all recordings may take together, in MiB. None begins when it is used up, and those that go on end.
        quota_mb: u32 [.only("at least 1", |mb| *mb >= 1)] = 20_480;
        /// What is left free on the disk of audio files, in MiB. None begins when there is less, and those that go on end.
        free_mb: u32 [] = 512;
        /// How long, in seconds, nobody may be in a channel before its recording ends.
        empty_s: u32 [.only("from 5 to 86400", |s| (5..=86_400).contains(s))] = 300;
        /// How long, in days, a recording is kept after it has ended; 0 for good.
        retention_days: u32 [.only("from 0 to 36500", |days| *days <= 36_500)] = 0;
        /// Speakers whose voice one node writes at once; further ones are missing in their recordings.
        tracks_max: u32 [.only("from 1 to 100000", |count| (1..=100_000).contains(count))] = 1_000;
    }

    /// Rooms of browsers.
    rooms: Rooms {
        /// How long an empty room lasts, in seconds.
        ttl_s: u32 [.env("ROOM_TTL_SECONDS").only("from 10 to 31536000 (a year)", |s| (10..=31_536_000).contains(s))] = 7200;
        /// A STUN server for browsers, such as `stun:stun.example.org:3478`.
        stun_server: Option<String> [.env("STUN_SERVER").only("a list of stun: or stuns: URLs",
            |urls| urls.as_deref().is_none_or(|urls| are_urls_of(urls, &["stun:", "stuns:"])))] = None;
        /// A TURN server for browsers, such as `turn:turn.example.org:3478?transport=tcp`; several with commas between them.
        turn_server: Option<String> [.env("TURN_SERVER").only("a list of turn: or turns: URLs",
            |urls| urls.as_deref().is_none_or(|urls| are_urls_of(urls, &["turn:", "turns:"])))] = None;
        /// What the TURN server knows, too (coturn's `static-auth-secret`): each user's credentials are made of it. Without
        /// it browsers get none.
        turn_secret: Option<Secret> [.env("TURN_SECRET")] = None;
        /// How long, in seconds, a browser may begin to use the TURN server with the credentials that it was given.
        turn_ttl_s: u32 [.only("from 60 to 604800 (a week)", |s| (60..=604_800).contains(s))] = 86_400;
        /// The TCP port for browsers whose UDP is blocked; 0 for none. When not set: the same number as the UDP port of
        /// media, where that is free.
        tcp_port: Option<u16> [] = None;
    }

    /// What people are told of outside of open sessions: by mail, short message, and push to browsers.
    notify: Notify {
        /// The URL by which people reach the page, for links in what they are told. When not set there are no links.
        public_url: Option<String> [.env("PUBLIC_URL").only("an http or https URL", |url| url.as_deref().is_none_or(is_http_url))] = None;
        /// How long, in seconds, something may be read before it goes outside; longer than a lost session lasts (30 s), so that
        /// a short loss of the network tells nobody twice.
        wait_s: u32 [.only("from 0 to 86400", |s| *s <= 86_400)] = 45;
        /// Attempts to send one notification one way; each waits twice as long as the one before, at most an hour. 16 take
        /// some four hours.
        attempts_max: u32 [.only("from 1 to 100", |count| (1..=100).contains(count))] = 16;
        /// Notifications that one person is sent one way in an hour; further ones are in the list alone.
        per_hour: u32 [.only("from 1 to 10000", |count| (1..=10_000).contains(count))] = 60;
        /// Notifications that may wait to be sent to one person by one way; what comes when so many do is in the list alone.
        waiting_per_person: u32 [.only("from 1 to 10000", |count| (1..=10_000).contains(count))] = 100;
        /// What may wait to be sent by one way at once, whosever it is; what comes when so much does is in the list alone.
        waiting_max: u32 [.only("from 1 to 10000000", |count| (1..=10_000_000).contains(count))] = 100_000;
        /// The mail server: `smtps://USER:PASSWORD@HOST`, or `smtp://USER:PASSWORD@HOST:587?tls=required`; without TLS only
        /// on this machine. When not set no mail is sent.
        smtp_url: Option<ConnectionUrl> [.env("SMTP_URL").only("an smtp: or smtps: URL",
            |url| url.as_ref().is_none_or(|url| ["smtp", "smtps"].contains(&url.scheme())))] = None;
        /// The sender of mail, such as `Antiphon <voice@example.org>`.
        smtp_from: Option<String> [.env("SMTP_FROM")] = None;
        /// Where each short message is posted as JSON (`id`, `to`, `text`). When not set none is sent.
        sms_url: Option<String> [.only("an http or https URL", |url| url.as_deref().is_none_or(is_http_url))] = None;
        /// The secret that signs those posts, as webhooks are signed.
        sms_secret: Option<Secret> [] = None;
        /// Codes that are sent by short message in an hour to confirm numbers, whoever asks; each costs money.
        sms_codes_per_hour: u32 [.only("from 1 to 100000", |count| (1..=100_000).contains(count))] = 100;
        /// Whether browsers can subscribe to be told by their push services.
        push: bool [] = true;
        /// The private key that push services know this server by: PKCS #8 of P-256, in base64url. When not set one is made and
        /// kept in the database. Another one ends all subscriptions.
        push_key: Option<Secret> [] = None;
        /// Whom push services may tell of trouble: a `mailto:` or `https:` URL. When not set: `notify.smtp_from`.
        push_contact: Option<String> [.only("a mailto: or https: URL",
            |url| url.as_deref().is_none_or(|url| are_urls_of(url, &["mailto:", "https:"])))] = None;
        /// Whether a push service may have a private address, or speak plain HTTP. Whoever has an account can then make the
        /// server post to any address that it reaches.
        push_allow_private: bool [] = false;
    }

    /// The HTTP side.
    http: Http {
        /// Origins whose pages may call the server from a browser, such as `https://app.example.org`; `*` for any.
        /// Pages on this machine (localhost) always may; over the gateway also those of the server's own host.
        allowed_origins: Vec<String> [.env("ALLOWED_ORIGINS").only("* or origins such as https://app.example.org, without a path",
            |origins| origins.iter().all(|origin| is_origin(origin)))] = Vec::new();
        /// The longest request body in bytes; longer ones are refused with 413.
        body_bytes_max: u32 [.only("from 1024 to 16777216", |bytes| (1_024..=16_777_216).contains(bytes))] = 64 * 1_024;
        /// How long, in seconds, a request may take before it is answered `TIMEOUT`. A body of JSON or text must be there within two thirds of it.
        request_timeout_s: u32 [.only("from 1 to 600", |s| (1..=600).contains(s))] = 30;
        /// Connections at once on each port; further ones wait to be accepted.
        connections_max: u32 [.only("at least 16", |count| *count >= 16)] = 20_000;
        /// Of those, from one address (an IPv6 /64 counts as one), but from `server.trusted_proxies` any number; further ones are
        /// closed at once. WebSockets count until they are open, and from then on in `limits.gateway_connections_per_address`. When not set: a quarter.
        connections_per_address: Option<u32> [.only("at least 1", |count| count.is_none_or(|count| count >= 1))] = None;
    }

    /// What the server shows of itself at `/metrics`.
    metrics: Metrics {
        /// The bearer token that `/metrics` asks for; open when not set.
        token: Option<Secret> [] = None;
        /// An address of its own (`ip:port`) that serves `/metrics` instead of the HTTP port, always without TLS.
        listen: Option<SocketAddr> [] = None;
    }

    /// What the server writes to standard error.
    log: Log {
        /// `error`, `warn`, `info`, `debug` or `trace`, or a filter such as `info,antiphon::gateway=debug`.
        level: String [.env("RUST_LOG").only("levels (off, error, warn, info, debug or trace) and `part=level`, with commas between them", |filter| crate::telemetry::logs::check_filter(filter).is_ok())] = "info".into();
        /// `text` for people, `json` for collectors.
        format: LogFormat [] = LogFormat::Text;
    }
}

fn split_port(text: &str) -> Result<(&str, &str), String> {
    let wrong = || format!("must be host:port, not {text:?}");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() || port.parse::<u16>().is_err() { Err(wrong()) } else { Ok((host, port)) }
}

fn host_part(text: &str) -> Result<&str, String> {
    split_port(text).map(|(host, _)| host)
}

fn port_part(text: &str) -> Result<&str, String> {
    split_port(text).map(|(_, port)| port)
}

/// `*`, or scheme and authority without anything behind them, as browsers write an origin (RFC 6454 6.2).
fn is_origin(text: &str) -> bool {
    let authority = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    text == "*" || authority.is_some_and(|host| !host.is_empty() && !host.contains(['/', '?', '#', ' ']))
}

fn is_http_url(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/') && !rest.contains(' '))
}

fn is_redis_url(url: &ConnectionUrl) -> bool {
    let (scheme, kind) = url.scheme().split_once('-').unwrap_or((url.scheme(), ""));
    ["redis", "rediss"].contains(&scheme)
        && (["cluster", "sentinel"].contains(&kind) || kind.is_empty() && !url.scheme().ends_with('-'))
}

fn is_node_id(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
}
