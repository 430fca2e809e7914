//! People who say a tone and listen to others', through the real codec.

use std::{
    collections::VecDeque,
    f64::consts::TAU,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use antiphon_core::{
    gateway::{ChannelJoined, Encoding, JoinChannel, MediaMode, MediaTransport, ServerMessage},
    ids::{ChannelId, StreamId, UserId},
    wire::frame::FrameKind,
};
use antiphon_loadtest::{
    ServerUrl,
    client::{Client, ClientEvent, VoiceFrame},
    gateway::{GatewayConfig, Identity},
    voice::Route,
};
use tokio::{sync::mpsc, task::JoinSet};

use crate::support::people::{PATIENCE, how_to_join};

/// Samples of a frame, of one channel at 48 kHz.
const FRAME_SAMPLES: usize = 960;
/// What is kept of what was heard: 1.5 s, in which tones of a few Hz apart can be told apart.
const KEPT_SAMPLES: usize = 72_000;
/// How loud everybody speaks: some -16 dB of full scale, so that five are not limited.
pub(crate) const AMPLITUDE: f64 = 5_000.0;

/// Somebody in a channel who says a tone all the time, or nothing, and hears a mix, or streams.
pub(crate) struct Voice {
    pub(crate) client: Arc<Client>,
    pub(crate) joined: ChannelJoined,
    heard: Arc<Mutex<Heard>>,
    speaks: Arc<AtomicBool>,
    _tasks: JoinSet<()>,
}

/// What somebody has heard of mixes lately.
#[derive(Default)]
struct Heard {
    /// The streams that frames came of, each once.
    streams: Vec<StreamId>,
    by_udp: u64,
    by_gateway: u64,
    samples: VecDeque<i16>,
    channels_resumed: Vec<ChannelJoined>,
    /// Frames whose numbers did not follow the last one's.
    gaps: u64,
    last: Option<(StreamId, u16)>,
}

/// How somebody joins.
pub(crate) fn how(channel: ChannelId, mode: MediaMode, media: MediaTransport) -> JoinChannel {
    let cipher = how_to_join(channel).cipher.filter(|_| media == MediaTransport::Udp);
    JoinChannel { mode, media, cipher, ..how_to_join(channel) }
}

pub(crate) async fn connect(
    server: ServerUrl,
    others: Vec<ServerUrl>,
    name: &str,
) -> (Client, mpsc::Receiver<ClientEvent>) {
    let identity = Identity::Guest(name.to_owned());
    let config = GatewayConfig { server, others, encoding: Encoding::MessagePack, identity };
    Client::connect(config).await.expect("connected")
}

impl Voice {
    /// A guest who joins, and says `tone_hz` from then on if it is given.
    pub(crate) async fn join(server: ServerUrl, name: &str, tone_hz: Option<f64>, join: JoinChannel) -> Self {
        Self::join_knowing(server, Vec::new(), name, tone_hz, join).await
    }

    /// Likewise, who knows other nodes to resume at.
    pub(crate) async fn join_knowing(
        server: ServerUrl,
        others: Vec<ServerUrl>,
        name: &str,
        tone_hz: Option<f64>,
        join: JoinChannel,
    ) -> Self {
        let (client, events) = connect(server, others, name).await;
        let joined = client.join(join).await.expect("joined");
        let (client, heard, speaks) = (Arc::new(client), Arc::default(), Arc::new(AtomicBool::new(true)));
        let mut tasks = JoinSet::new();
        tasks.spawn(listen(events, Arc::clone(&heard)));
        if let Some(tone_hz) = tone_hz {
            tasks.spawn(speak(Arc::clone(&client), joined.channel_id, tone_hz, Arc::clone(&speaks)));
        }
        Self { client, joined, heard, speaks, _tasks: tasks }
    }

    pub(crate) fn user(&self) -> UserId {
        self.client.user().id
    }

    /// The stream of their mix.
    pub(crate) fn mix(&self) -> StreamId {
        self.joined.voice.mix_stream_id.expect("a mix")
    }

    pub(crate) fn speaks(&self, speaks: bool) {
        self.speaks.store(speaks, Ordering::Relaxed);
    }

    /// The amplitudes of some tones in what they heard lately.
    pub(crate) fn amplitudes(&self, tones_hz: &[f64]) -> Vec<f64> {
        let heard = self.heard.lock().expect("whole");
        let samples: Vec<i16> = heard.samples.iter().copied().collect();
        tones_hz.iter().map(|hz| amplitude_of(&samples, *hz)).collect()
    }

    /// Waits until what they heard in the last while is full of these tones and free of those: 30 dB below.
    pub(crate) async fn hears(&self, present_hz: &[f64], absent_hz: &[f64]) {
        let mut last = (Vec::new(), Vec::new());
        let wait = async {
            loop {
                tokio::time::sleep(Duration::from_millis(50)).await;
                if self.heard.lock().expect("whole").samples.len() < KEPT_SAMPLES {
                    continue;
                }
                last = (self.amplitudes(present_hz), self.amplitudes(absent_hz));
                let at_level = |amplitude: &f64| (AMPLITUDE * 0.7..AMPLITUDE * 1.4).contains(amplitude);
                let is_absent = |amplitude: &f64| decibels(*amplitude) <= -30.0;
                if last.0.iter().all(at_level) && last.1.iter().all(is_absent) {
                    return;
                }
            }
        };
        let name = self.client.user().username.clone();
        let in_time = tokio::time::timeout(PATIENCE, wait).await.is_ok();
        let shown =
            |amplitudes: &[f64]| amplitudes.iter().map(|one| format!("{:.1} dB", decibels(*one))).collect::<Vec<_>>();
        let (present, absent) = (shown(&last.0), shown(&last.1));
        assert!(in_time, "{name}: {present_hz:?} Hz at {present:?}, {absent_hz:?} Hz at {absent:?}");
        println!("{name} hears {present_hz:?} Hz at {present:?} of what was said, and {absent_hz:?} Hz at {absent:?}");
    }

    /// The streams whose frames they heard.
    pub(crate) fn streams(&self) -> Vec<StreamId> {
        self.heard.lock().expect("whole").streams.clone()
    }

    /// How many frames came by UDP and over the gateway.
    pub(crate) fn ways(&self) -> (u64, u64) {
        let heard = self.heard.lock().expect("whole");
        (heard.by_udp, heard.by_gateway)
    }

    pub(crate) fn gaps(&self) -> u64 {
        self.heard.lock().expect("whole").gaps
    }

    /// What they were told of their channel when they resumed last.
    pub(crate) fn resumed(&self) -> Option<ChannelJoined> {
        self.heard.lock().expect("whole").channels_resumed.last().cloned()
    }

    /// Forgets what was heard.
    pub(crate) fn forget(&self) {
        let mut heard = self.heard.lock().expect("whole");
        let channels_resumed = std::mem::take(&mut heard.channels_resumed);
        *heard = Heard { channels_resumed, ..Heard::default() };
    }

    pub(crate) async fn until_udp_works(&self) {
        let wait = async {
            while !self.client.stats().await.expect("alive").udp_works {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("UDP works");
    }
}

/// How far below what was said.
pub(crate) fn decibels(amplitude: f64) -> f64 {
    20.0 * (amplitude.max(1e-9) / AMPLITUDE).log10()
}

/// The amplitude of one frequency (Goertzel).
pub(crate) fn amplitude_of(samples: &[i16], hz: f64) -> f64 {
    let coefficient = 2.0 * (TAU * hz / 48_000.0).cos();
    let (mut s1, mut s2) = (0.0, 0.0);
    for (index, sample) in samples.iter().enumerate() {
        // Hann's window, so that a tone does not spill over into others' bins.
        let window = 1.0 - (TAU * index as f64 / samples.len() as f64).cos();
        (s1, s2) = (f64::from(*sample) * window + coefficient * s1 - s2, s1);
    }
    let power: f64 = s1 * s1 + s2 * s2 - coefficient * s1 * s2;
    2.0 * power.max(0.0).sqrt() / samples.len() as f64
}

async fn listen(mut events: mpsc::Receiver<ClientEvent>, heard: Arc<Mutex<Heard>>) {
    let mut decoder = opus::Decoder::new(48_000, opus::Channels::Mono).expect("a decoder");
    while let Some(event) = events.recv().await {
        let mut heard = heard.lock().expect("whole");
        match event {
            ClientEvent::Frame(frame) => {
                let (stream, sequence) = (frame.header.stream, frame.header.sequence);
                if !heard.streams.contains(&stream) {
                    heard.streams.push(stream);
                }
                heard.gaps += u64::from(heard.last.is_some_and(|last| last != (stream, sequence.wrapping_sub(1))));
                heard.last = Some((stream, sequence));
                match frame.route {
                    Route::Udp => heard.by_udp += 1,
                    Route::Gateway => heard.by_gateway += 1,
                }
                if frame.bytes.is_empty() {
                    continue;
                }
                let mut samples = [0_i16; 5_760];
                let length = decoder.decode(&frame.bytes, &mut samples, false).expect("Opus");
                heard.samples.extend(&samples[..length]);
                let surplus = heard.samples.len().saturating_sub(KEPT_SAMPLES);
                heard.samples.drain(..surplus);
            }
            ClientEvent::Resumed(channels) => heard.channels_resumed.extend(channels),
            ClientEvent::Message(message) => {
                assert!(!matches!(*message, ServerMessage::Removed(_)), "{message:?}");
            }
            ClientEvent::UdpWorks(_) | ClientEvent::Disconnected | ClientEvent::Closed(_) => {}
        }
    }
}

async fn speak(client: Arc<Client>, channel: ChannelId, tone_hz: f64, speaks: Arc<AtomicBool>) {
    let mut encoder = opus::Encoder::new(48_000, opus::Channels::Mono, opus::Application::Audio).expect("an encoder");
    encoder.set_bitrate(opus::Bitrate::Bits(64_000)).expect("a bitrate");
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    for frame in 0_u32.. {
        ticks.tick().await;
        if !speaks.load(Ordering::Relaxed) {
            continue;
        }
        let samples: Vec<i16> = (0..FRAME_SAMPLES)
            .map(|n| {
                let t = (f64::from(frame) * FRAME_SAMPLES as f64 + n as f64) / 48_000.0;
                ((t * tone_hz * TAU).sin() * AMPLITUDE) as i16
            })
            .collect();
        let frame = VoiceFrame {
            kind: if frame == 0 { FrameKind::AudioStart } else { FrameKind::Audio },
            flags: 0,
            level: 20,
            timestamp: frame.wrapping_mul(FRAME_SAMPLES as u32),
            bytes: encoder.encode_vec(&samples, 1_000).expect("encodes"),
        };
        // Between two connections there may be no way.
        let _ = client.send(channel, frame).await;
    }
}
