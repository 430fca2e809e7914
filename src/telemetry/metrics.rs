//! The catalogue: every metric of the server, once.
//!
//! To add one, add an entry to the section it belongs to, with a doc comment that is also its help text, then run
//! `ANTIPHON_UPDATE_DOCS=1 cargo test -p antiphon --lib telemetry`, which writes `docs/metrics.md` anew. Names follow
//! Prometheus' rules: the prefix `antiphon_`, base units at the end (`_seconds`, `_bytes`), then `_total` for counters.
//! Labels are closed enums (`label!`). What happens for each packet is counted by the media workers themselves and
//! sampled here ([`Sampled`]); everything else is counted where it happens: `metrics().auth.attempts.of(…).increment(1)`.

use std::sync::LazyLock;

use antiphon_core::gateway::ErrorCode;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use super::{
    catalogue::{Kind, catalogue},
    family::{Label, label},
    media::{BundleSize, DatagramDrop, DatagramType, EventFate, FrameDrop, SessionState},
    relay::{
        ChannelRole, HopReceived, HopSent, PeerChange, RecordBundle, RecordSkip, RelayDatagramDrop, RelayFrameDrop,
    },
};

/// Answers of the API and its database: from well under a millisecond, for a health check, to the 10 s after which a
/// request is given up.
const REQUEST_SECONDS: [f64; 12] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];

/// A password hash is made to take tens of milliseconds; waiting for a turn under a flood shows above that.
const HASH_SECONDS: [f64; 8] = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0];

/// Delays of tasks: a frame is 20 ms long, so the question is what is well below it and what is above.
const LATENESS_SECONDS: [f64; 8] = [0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.1, 1.0];

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
        /// Handlers that panicked; each was answered INTERNAL_ERROR.
        counter panics [] = "antiphon_http_panics_total" Count;
    }

    /// Accounts
    auth: AuthMetrics {
        /// Attempts to register, log in, refresh, log out, enter as a guest or use a token, by how they ended.
        counter attempts [AuthAction, AuthOutcome] = "antiphon_auth_attempts_total" Count;
        /// Making or checking one password hash, without the wait for a turn.
        histogram hash_duration [] = "antiphon_auth_password_hash_duration_seconds" Seconds HASH_SECONDS;
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
        /// Time the workers were busy so far, all together. A gauge, since counters here hold whole numbers.
        gauge busy [] = "antiphon_media_busy_seconds" Seconds;
    }

    /// Relay
    relay: RelayMetrics {
        /// Other nodes that the registry names.
        gauge peers [] = "antiphon_relay_peers" Count;
        /// Channels now: those with members here, and those that other nodes with listeners come to this one for.
        gauge channels [ChannelRole] = "antiphon_relay_channels" Count;
        /// Authentic datagrams from other nodes.
        counter datagrams_received [] = "antiphon_relay_datagrams_received_total" Count;
        /// Datagrams dropped on arrival, by why.
        counter datagrams_dropped [RelayDatagramDrop] = "antiphon_relay_datagrams_dropped_total" Count;
        /// Bytes of all datagrams received at the relay's port, whatever they are.
        counter received_bytes [] = "antiphon_relay_received_bytes_total" Bytes;
        /// Parts of authentic datagrams that were passed over, by why. Unknown ones come from a later release.
        counter records_skipped [RecordSkip] = "antiphon_relay_records_skipped_total" Count;
        /// Frames received from other nodes, by how far they were on their way. They may come twice while an owner changes.
        counter frames_received [HopReceived] = "antiphon_relay_frames_received_total" Count;
        /// Frames sent to other nodes, by how far they are on their way: each node counts.
        counter frames_sent [HopSent] = "antiphon_relay_frames_sent_total" Count;
        /// Frames that were not passed on, by why.
        counter frames_dropped [RelayFrameDrop] = "antiphon_relay_frames_dropped_total" Count;
        /// Datagrams sent to other nodes, by how many records (frames and other) they carry.
        counter datagrams_sent [RecordBundle] = "antiphon_relay_datagrams_sent_total" Count;
        /// Bytes of all datagrams sent to other nodes.
        counter sent_bytes [] = "antiphon_relay_sent_bytes_total" Bytes;
        /// Times that a channel with members here got another owner.
        counter owner_changes [] = "antiphon_relay_owner_changes_total" Count;
        /// Times that the frames of a channel began to be sent past its owner.
        counter direct_entries [] = "antiphon_relay_direct_entries_total" Count;
        /// Workers of other nodes that were suspected (150 ms of silence), lost (400 ms), or heard again after that.
        counter peer_changes [PeerChange] = "antiphon_relay_peer_changes_total" Count;
        /// Sets of nodes or speakers that were too large to be told in full.
        counter sets_cut [] = "antiphon_relay_sets_cut_total" Count;
        /// Datagrams from other nodes that the kernel dropped because a receive buffer was full.
        counter kernel_drops [] = "antiphon_relay_kernel_drops_total" Count;
        /// Failed system calls of the relay's sockets, by direction.
        counter socket_errors [Direction] = "antiphon_relay_socket_errors_total" Count;
        /// Datagrams to other nodes dropped because the kernel took no more.
        counter send_dropped [] = "antiphon_relay_send_dropped_total" Count;
        /// Changes among the nodes that nobody took note of in time.
        counter events_dropped [] = "antiphon_relay_events_dropped_total" Count;
    }

    /// Gateway
    gateway: GatewayMetrics {
        /// Open WebSocket connections, authenticated or not.
        gauge connections [] = "antiphon_gateway_connections" Count;
        /// Sessions, connected or waiting to be resumed.
        gauge sessions [] = "antiphon_gateway_sessions" Count;
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
    }

    /// Process
    process: Process {
        /// CPU time used by the process so far, user and system. A gauge, since counters here hold whole numbers.
        gauge cpu [] = "antiphon_process_cpu_seconds" Seconds;
        /// Resident memory of the process.
        gauge resident_memory [] = "antiphon_process_resident_memory_bytes" Bytes;
        /// Open file descriptors of the process.
        gauge open_files [] = "antiphon_process_open_files" Count;
        /// When the process started, in Unix time.
        gauge start_time [] = "antiphon_process_start_time_seconds" Seconds;
        /// How much later than asked a timer of the async runtime fires, sampled twice a second: the runtime's load.
        histogram timer_lateness [] = "antiphon_runtime_timer_lateness_seconds" Seconds LATENESS_SECONDS;
        /// 1 while the node takes new sessions, 0 while it starts or drains.
        gauge ready [] = "antiphon_ready" Count;
    }
}

label!(
    /// A part of the API.
    pub Area = "area" {
        Accounts = "accounts",
        Channels = "channels",
        Audio = "audio",
        Health = "health",
        Metrics = "metrics",
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
        /// Sign-ups, logins and refreshes of one address.
        Login = "login",
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
        /// The node is about to stop.
        Draining = "draining",
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
    let recorder = builder().build_recorder();
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
}

/// The metric that a number counted elsewhere is shown as.
pub(super) enum Shown<'a> {
    Counter(&'a ::metrics::Counter),
    Gauge(&'a ::metrics::Gauge),
}

impl Shown<'_> {
    /// Brings the metric up to `number`; `last` is what it was brought up to before.
    pub(super) fn bring(&self, last: &mut Sampled, number: u64) {
        match self {
            Self::Counter(counter) => last.bring(counter, number),
            Self::Gauge(gauge) => gauge.set(number as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, fmt::Write as _};

    use ::metrics::Unit;

    use super::*;
    use crate::telemetry::catalogue::Entry;

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
            assert!(combinations <= 256, "{name} has {combinations} combinations of labels");
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
        let text = render();
        let line = "antiphon_http_requests_total{area=\"unknown\",method=\"other\",status=\"1xx\"} 3";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("antiphon_runtime_timer_lateness_seconds_bucket{le=\"0.005\"}"), "{text}");
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

    /// `docs/metrics.md`.
    fn document() -> String {
        let mut text = String::from(
            "# Metrics\n\n\
             `GET /metrics` answers these in Prometheus' text format. This page is generated from the catalogue in\n\
             `src/telemetry/metrics.rs`; a test keeps it current. Counters begin at zero when the node starts.\n",
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
