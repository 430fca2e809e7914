//! Speech through one network, once.

use antiphon_core::{
    clock::Micros,
    ids::StreamId,
    jitter::{JitterBuffer, JitterConfig, Playout},
    netsim::{Network, NetworkConfig},
    quality::QualityAdvisor,
    wire::{
        control::ReportBlock,
        frame::{FrameHeader, FrameKind},
    },
};
use opus::{Channels, Decoder};
use serde::Serialize;

use super::{SpeechError, similarity::similarity};
use crate::audio::{EncoderHint, FRAME_SAMPLES, FrameEncoder, PACKET_SAMPLES_MAX, SAMPLE_RATE_HZ};

/// A frame is sent, and one played, so often.
const TICK: Micros = Micros::from_millis(20);

/// Ticks between two reports of the listener.
const REPORT_TICKS: usize = 100;

/// Ticks between two looks of the node at what was reported.
const ADVICE_TICKS: usize = 50;

/// What the network does beside losing frames.
const DELAY: Micros = Micros::from_millis(40);
const JITTER: Micros = Micros::from_millis(10);

const STREAM: StreamId = StreamId(1);
const LISTENER: StreamId = StreamId(2);

/// How a network treats speech.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SpeechNetwork {
    /// The share of frames lost, 0 to 1.
    pub loss: f64,
    /// How many are lost in a row on average.
    pub burst_mean: f64,
}

/// What became of the speech.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SpeechRun {
    /// How like the original it is, 0 to 1.
    pub similarity: f64,
    /// Frames that the listener's decoder got.
    pub played: u64,
    /// Missing ones of which the next packet had a copy (in-band FEC).
    pub repaired: u64,
    /// Missing ones that it made up.
    pub made_up: u64,
    /// Hints that the encoder followed.
    pub hints: u64,
    /// Bits per second that were sent, without headers.
    pub bitrate: u64,
}

struct Listener {
    buffer: JitterBuffer,
    decoder: Decoder,
    heard: Vec<f32>,
    repaired: u64,
    made_up: u64,
    reported: (u64, u64),
}

impl Listener {
    fn new() -> Result<Self, SpeechError> {
        Ok(Self {
            buffer: JitterBuffer::new(JitterConfig::default()),
            decoder: Decoder::new(SAMPLE_RATE_HZ, Channels::Mono)?,
            heard: Vec::new(),
            repaired: 0,
            made_up: 0,
            reported: (0, 0),
        })
    }

    /// Plays the next 20 ms.
    fn play(&mut self, now: Micros) -> Result<(), SpeechError> {
        let mut samples = [0.0; PACKET_SAMPLES_MAX];
        let played = match self.buffer.pop(now) {
            Playout::Play(frame) => self.decoder.decode_float(frame.bytes, &mut samples, false)?,
            Playout::Conceal { samples: missing } => {
                let missing = &mut samples[..missing as usize];
                match self.buffer.following() {
                    Some(next) => {
                        let has_copy = has_copy(next);
                        self.repaired += u64::from(has_copy);
                        self.made_up += u64::from(!has_copy);
                        self.decoder.decode_float(next, missing, true)?
                    }
                    None => {
                        self.made_up += 1;
                        self.decoder.decode_float(&[], missing, false)?
                    }
                }
            }
            Playout::Silence => FRAME_SAMPLES,
        };
        self.heard.extend_from_slice(&samples[..played]);
        Ok(())
    }

    /// What a client reports every two seconds.
    fn report(&mut self) -> ReportBlock {
        let stats = self.buffer.stats();
        let (received, lost) = (stats.received - self.reported.0, stats.lost - self.reported.1);
        self.reported = (stats.received, stats.lost);
        let share = lost as f64 / (received + lost).max(1) as f64;
        ReportBlock {
            stream: STREAM,
            lost_fraction: (share * 65_535.0) as u16,
            round_trip_ms: 80,
            jitter_us: self.buffer.jitter_us(),
            received: u32::try_from(received).unwrap_or(u32::MAX),
        }
    }
}

/// Sends `samples` through a network; the encoder follows the node's advice if it `adapts`.
pub(super) fn run(samples: &[f32], network: &SpeechNetwork, adapts: bool, seed: u64) -> Result<SpeechRun, SpeechError> {
    let SpeechNetwork { loss, burst_mean } = *network;
    let config =
        NetworkConfig { loss, loss_burst_mean: burst_mean, delay: DELAY, jitter: JITTER, ..NetworkConfig::default() };
    let mut way: Network<(FrameHeader, Vec<u8>)> = Network::new(config, seed);
    let begin = EncoderHint::speech(1);
    let mut encoder = FrameEncoder::new(1, begin)?;
    let mut advisor = QualityAdvisor::new(begin.bitrate);
    let mut listener = Listener::new()?;
    let (mut hints, mut bytes) = (0, 0);
    for (tick, frame) in samples.as_chunks::<FRAME_SAMPLES>().0.iter().enumerate() {
        let now = Micros(TICK.0 * tick as u64);
        if let Some(packet) = encoder.encode(frame)? {
            bytes += packet.len() as u64;
            way.send(now, (header(tick), packet.to_vec()));
        }
        while let Some((header, packet)) = way.receive(now) {
            listener.buffer.push(now, header, &packet);
        }
        listener.play(now)?;
        if tick % REPORT_TICKS == REPORT_TICKS - 1 {
            advisor.report(now, LISTENER, &listener.report());
        }
        if tick % ADVICE_TICKS == 0
            && let Some(hint) = advisor.poll(now).filter(|_| adapts)
        {
            hints += 1;
            let (bitrate, expected_loss) = (hint.bitrate, hint.expected_loss);
            encoder.apply(EncoderHint { bitrate, fec: hint.fec, dtx: hint.dtx, expected_loss })?;
        }
    }
    let seconds = samples.len() as u64 / u64::from(SAMPLE_RATE_HZ);
    Ok(SpeechRun {
        similarity: similarity(samples, &listener.heard),
        played: listener.buffer.stats().played,
        repaired: listener.repaired,
        made_up: listener.made_up,
        hints,
        bitrate: bytes * 8 / seconds.max(1),
    })
}

/// Whether a packet of 20 ms has a copy of the one before (RFC 6716): its mode is not CELT alone (3.1), it holds one frame (3.2.2), and
/// behind the bit for voice activity that for a copy is set (4.2.3).
fn has_copy(packet: &[u8]) -> bool {
    matches!(packet, [contents, first, ..] if contents & 0x80 == 0 && contents & 3 == 0 && first & 0x40 != 0)
}

fn header(tick: usize) -> FrameHeader {
    let kind = if tick == 0 { FrameKind::AudioStart } else { FrameKind::Audio };
    FrameHeader {
        stream: STREAM,
        sequence: tick as u16,
        timestamp: (tick * FRAME_SAMPLES) as u32,
        kind_flags: kind as u8,
        level: 30,
    }
}
