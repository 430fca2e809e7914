//! What each node tells the others of itself, with its lease, so that every node can say how the cluster is.
//!
//! Everything has a default, so that nodes of neighbouring releases read each other.

use std::ops::AddAssign;

use antiphon_core::e_model::Path;
use serde::{Deserialize, Serialize};

/// Alerts that a node tells the others of at most; the most severe go first.
pub const ALERTS_SHARED_MAX: usize = 32;

/// A node in figures, as of the last second or so.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeStatistics {
    /// How long its process runs.
    pub uptime_s: u64,
    /// Open gateway connections.
    pub connections: u32,
    /// People in voice through it: who is in several channels counts once.
    pub people: u32,
    /// Channels with somebody in voice of which it is the first node, by number: of each channel one node is, so that
    /// the nodes' sum is the number of channels.
    pub channels: u32,
    /// What is measured of their voice.
    pub voice: VoiceSums,
    /// Frames taken from speakers, each second.
    pub packets_in_per_s: f32,
    /// Frames delivered to listeners over UDP, each second.
    pub packets_out_per_s: f32,
    /// Bytes of datagrams with clients, both ways, each second.
    pub bytes_per_s: f64,
    /// Share of the machine's processors that the process uses, in percent.
    pub cpu_percent: f32,
    /// Resident memory.
    pub memory_bytes: u64,
    /// Media workers that run; fewer than the node's once one has failed.
    pub workers_running: u16,
    /// The median of how long frames are in the node.
    pub forwarding_us: u32,
    /// Live nodes that it sees, itself included; 0 from a release that does not say.
    pub nodes_live: u32,
    /// Who listens to audio files through it.
    pub listeners: u32,
    /// Who listens to channels through it, by links.
    pub channel_listeners: u32,
    /// Somebody here watches who listens: the others tell it.
    pub watches_listening: bool,
    /// Its firing alerts, at most [`ALERTS_SHARED_MAX`].
    pub alerts: Vec<SharedAlert>,
}

/// An alert as nodes tell each other: what it says stands in the rules, which every node has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SharedAlert {
    /// The rule's name.
    pub name: String,
    /// What tells it from others of the rule, `instance` among it.
    pub labels: Vec<(String, String)>,
    /// The value of the rule's expression.
    pub value: f64,
    /// Since when the expression holds, in Unix time.
    pub since_ms: u64,
}

/// What is measured of voice, as sums, so that channels and nodes can be added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VoiceSums {
    /// Streams of which listeners have reported.
    pub streams: u32,
    /// The median of each stream's listeners' round trips, in milliseconds, added up.
    pub round_trip_ms: f64,
    /// Likewise of the shares of frames that they report lost, 0 to 1.
    pub reported_loss: f64,
    /// Frames taken from speakers.
    pub frames_in: u64,
    /// Frames lost on their way to the node.
    pub frames_lost: u64,
    /// Each channel's interarrival jitter in milliseconds, times its frames.
    pub jitter_ms_frames: f64,
}

impl AddAssign for VoiceSums {
    fn add_assign(&mut self, more: Self) {
        self.streams += more.streams;
        self.round_trip_ms += more.round_trip_ms;
        self.reported_loss += more.reported_loss;
        self.frames_in += more.frames_in;
        self.frames_lost += more.frames_lost;
        self.jitter_ms_frames += more.jitter_ms_frames;
    }
}

impl VoiceSums {
    /// The listeners' round trip, the mean over streams; `None` before the first report.
    #[must_use]
    pub fn mean_round_trip_ms(&self) -> Option<f64> {
        (self.streams > 0).then(|| self.round_trip_ms / f64::from(self.streams))
    }

    /// The share of frames lost between speakers and listeners, 0 to 1: on the way to the node as it counts them, and on
    /// the way from it as listeners report. `None` before the first frame.
    #[must_use]
    pub fn loss(&self) -> Option<f64> {
        if self.frames_in == 0 {
            return None;
        }
        let before = self.frames_lost as f64 / (self.frames_in + self.frames_lost) as f64;
        let after = if self.streams > 0 { self.reported_loss / f64::from(self.streams) } else { 0.0 };
        Some(1.0 - (1.0 - before) * (1.0 - after))
    }

    /// The mean interarrival jitter of speakers' frames; `None` before the first.
    #[must_use]
    pub fn jitter_ms(&self) -> Option<f64> {
        (self.frames_in > 0).then(|| self.jitter_ms_frames / self.frames_in as f64)
    }

    /// The E-model's rating as a share of the best possible, 0 to 1; `None` until all that it needs is known.
    #[must_use]
    pub fn score(&self) -> Option<f64> {
        let (round_trip_ms, loss, jitter_ms) = (self.mean_round_trip_ms()?, self.loss()?, self.jitter_ms()?);
        Some(Path { round_trip_ms, jitter_ms, loss }.score())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_follow_from_sums() {
        let one = VoiceSums {
            streams: 1,
            round_trip_ms: 20.0,
            reported_loss: 0.2,
            frames_in: 95,
            frames_lost: 5,
            jitter_ms_frames: 95.0 * 2.5,
        };
        let mut both = one;
        both += VoiceSums { streams: 1, round_trip_ms: 60.0, ..VoiceSums::default() };
        assert_eq!((both.mean_round_trip_ms(), both.jitter_ms()), (Some(40.0), Some(2.5)));
        // 1 - 0.95 × 0.9
        assert!((both.loss().expect("known") - 0.145).abs() < 1e-9);
        assert!((0.0..1.0).contains(&both.score().expect("rated")));
        assert!(both.score() < VoiceSums { reported_loss: 0.0, frames_lost: 0, ..both }.score());
    }

    #[test]
    fn what_nobody_measured_is_unknown() {
        let none = VoiceSums::default();
        assert_eq!((none.mean_round_trip_ms(), none.loss(), none.jitter_ms(), none.score()), (None, None, None, None));
    }

    /// Every node reads it of every other, again and again.
    #[test]
    fn what_a_node_tells_is_short() {
        let voice = VoiceSums {
            streams: 2_000,
            round_trip_ms: 80_000.5,
            reported_loss: 20.5,
            frames_in: 10_000_000_000,
            frames_lost: 1_000_000,
            jitter_ms_frames: 1e10,
        };
        let full = NodeStatistics {
            uptime_s: 10_000_000,
            connections: 100_000,
            people: 100_000,
            channels: 2_000,
            voice,
            packets_in_per_s: 1e6,
            packets_out_per_s: 1e7,
            bytes_per_s: 1e9,
            cpu_percent: 99.9,
            memory_bytes: 10_000_000_000,
            workers_running: 64,
            forwarding_us: 50_000,
            nodes_live: 1_000,
            listeners: 100_000,
            channel_listeners: 100_000,
            watches_listening: true,
            alerts: Vec::new(),
        };
        let length = rmp_serde::to_vec_named(&full).expect("plain").len();
        assert!(length < 440, "{length} bytes without alerts");
    }

    #[test]
    fn a_release_that_says_less_or_more_is_read() {
        #[derive(Serialize)]
        struct Other {
            connections: u32,
            something_new: bool,
        }
        let bytes = rmp_serde::to_vec_named(&Other { connections: 3, something_new: true }).expect("plain");
        let read: NodeStatistics = rmp_serde::from_slice(&bytes).expect("understood");
        assert_eq!(read, NodeStatistics { connections: 3, ..NodeStatistics::default() });
    }
}
