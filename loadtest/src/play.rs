//! Speaks a file in real time.

use std::time::Duration;

use antiphon_core::{
    clock::Micros,
    gateway::{QualityHint, ServerMessage},
    ids::ChannelId,
    wire::frame::{FrameHeader, FrameKind},
};
use tokio::{sync::mpsc, time::Instant};

use crate::{
    audio::{EncoderHint, LEVEL_SILENCE, Source, SourceError, SourceFrame},
    client::{Client, ClientError, ClientEvent, VoiceFrame},
    gateway::Closed,
};

/// How long the first frame waits for UDP; after that it goes over the gateway.
const UDP_WAIT: Duration = Duration::from_millis(500);

/// A channel's speakers start somewhere in this grid, so that their frames coincide (docs/protocol.md, 3.3, `phase_us`).
const GRID_US: u64 = 20_000;

/// Why a file was not spoken to its end.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    /// The file.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The client.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The server ended it.
    #[error("the server ended the session: {0}")]
    Closed(Closed),
    /// The connection was lost, and not had again before the end.
    #[error("the connection was lost, and what was spoken since then was not heard")]
    Lost,
    /// We were removed from the channel.
    #[error("removed from the channel")]
    Removed,
}

/// What was spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Played {
    /// Frames with an Opus packet.
    pub frames: u64,
    /// Frames in which there was nothing to send (DTX).
    pub pauses: u64,
    /// How long it lasted, in 48 kHz samples.
    pub samples: u64,
    /// The most that a frame left after its time.
    pub late_max: Duration,
    /// How often the connection was lost and the session resumed, which costs what was spoken meanwhile.
    pub resumed: u64,
}

/// Speaks `source` in a channel that `client` is in: a frame whenever its time has come, by an absolute schedule. The
/// first frame begins the talk spurt, an empty one ends it. `progress` is told after each frame.
///
/// # Errors
/// When the file is broken or the session ends.
pub async fn play(
    client: &Client,
    events: &mut mpsc::Receiver<ClientEvent>,
    channel: ChannelId,
    source: &mut Source,
    mut progress: impl FnMut(&Played),
) -> Result<Played, PlayError> {
    let mut player = Player { client, events, channel, hint: None, is_lost: false, played: Played::default() };
    player.wait_for_udp(source).await?;
    let start = player.start().await?;
    let flags = if source.channels() == 2 { FrameHeader::FLAG_STEREO } else { 0 };
    let mut kind = FrameKind::AudioStart;
    while let Some(frame) = source.next_frame()? {
        let due = start + duration_of(player.played.samples);
        player.wait_until(due, source).await?;
        player.played.late_max = player.played.late_max.max(Instant::now().saturating_duration_since(due));
        if player.send(kind, flags, frame).await? {
            kind = FrameKind::Audio;
        }
        progress(&player.played);
    }
    player.wait_until(start + duration_of(player.played.samples), source).await?;
    let stop = SourceFrame { packet: Some(Vec::new()), samples: 0, level: LEVEL_SILENCE };
    player.send(FrameKind::AudioStop, flags, stop).await?;
    if player.is_lost { Err(PlayError::Lost) } else { Ok(player.played) }
}

struct Player<'a> {
    client: &'a Client,
    events: &'a mut mpsc::Receiver<ClientEvent>,
    channel: ChannelId,
    hint: Option<QualityHint>,
    /// The connection is lost, and the session not yet resumed.
    is_lost: bool,
    played: Played,
}

impl Player<'_> {
    /// Gives UDP a moment, so that the first frames do not overtake each other on two ways.
    async fn wait_for_udp(&mut self, source: &mut Source) -> Result<(), PlayError> {
        let until = Instant::now() + UDP_WAIT;
        while Instant::now() < until && !self.client.stats().await?.udp_works {
            self.wait_until(Instant::now() + Duration::from_millis(10), source).await?;
        }
        Ok(())
    }

    /// When to begin: at once, or where in the grid the server would have it.
    async fn start(&self) -> Result<Instant, PlayError> {
        let now = self.client.clock().now();
        let Some(hint) = self.hint else { return Ok(Instant::now()) };
        let Some(ahead_us) = self.client.stats().await?.node_clock_ahead_us else { return Ok(Instant::now()) };
        Ok(self.client.clock().instant(now + until_phase(now, ahead_us, hint.phase_us)))
    }

    /// Sends a frame and counts it; false when there was nothing to send.
    async fn send(&mut self, kind: FrameKind, flags: u8, frame: SourceFrame) -> Result<bool, PlayError> {
        // The sample clock wraps after a day, as the protocol has it.
        let timestamp = self.played.samples as u32;
        self.played.samples += u64::from(frame.samples);
        let Some(bytes) = frame.packet else {
            self.played.pauses += 1;
            return Ok(false);
        };
        self.played.frames += u64::from(!bytes.is_empty());
        let frame = VoiceFrame { kind, flags, level: frame.level, timestamp, bytes };
        self.client.send(self.channel, frame).await?;
        Ok(true)
    }

    /// Waits, and meanwhile does what the server asks.
    async fn wait_until(&mut self, due: Instant, source: &mut Source) -> Result<(), PlayError> {
        loop {
            let event = tokio::select! {
                biased;
                () = tokio::time::sleep_until(due) => return Ok(()),
                event = self.events.recv() => event,
            };
            match event {
                None => return Err(ClientError::Closed.into()),
                Some(ClientEvent::Closed(closed)) => return Err(PlayError::Closed(closed)),
                Some(ClientEvent::Disconnected) => self.is_lost = true,
                Some(ClientEvent::Resumed(_)) => {
                    self.is_lost = false;
                    self.played.resumed += 1;
                }
                Some(ClientEvent::Message(message)) => self.message(&message, source)?,
                Some(_) => {}
            }
        }
    }

    fn message(&mut self, message: &ServerMessage, source: &mut Source) -> Result<(), PlayError> {
        match message {
            ServerMessage::QualityHint(hint) if hint.channel_id == self.channel => {
                source.apply(EncoderHint::from(hint))?;
                self.hint = Some(*hint);
            }
            ServerMessage::Removed(removed) if removed.channel_id == self.channel => return Err(PlayError::Removed),
            _ => {}
        }
        Ok(())
    }
}

fn duration_of(samples: u64) -> Duration {
    Duration::from_micros(samples * 1_000 / 48)
}

/// How long from `now` to the next point of the node's 20 ms grid that is `phase_us` into it.
fn until_phase(now: Micros, node_ahead_us: i64, phase_us: u32) -> Micros {
    let node_now = now.0.wrapping_add_signed(node_ahead_us);
    let into_grid = node_now % GRID_US;
    Micros((u64::from(phase_us) % GRID_US + GRID_US - into_grid) % GRID_US)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speech_begins_at_the_channels_phase_of_the_nodes_clock() {
        let at = |now: u64, ahead: i64, phase: u32| until_phase(Micros(now), ahead, phase).0;
        assert_eq!(at(1_000, 0, 5_000), 4_000);
        assert_eq!(at(6_000, 0, 5_000), 19_000);
        assert_eq!(at(6_000, -1_000, 5_000), 0);
        assert_eq!(at(100_000, 7_000_000_003, 5_000), 4_997);
    }

    #[test]
    fn sample_counts_become_durations_without_drift() {
        assert_eq!(duration_of(960), Duration::from_millis(20));
        assert_eq!(duration_of(48_000 * 3_600 * 24), Duration::from_secs(3_600 * 24));
        assert_eq!(duration_of(120), Duration::from_micros(2_500));
    }
}
