//! Gives packets to the room when their time has come, and does what is asked meanwhile.

use std::{io, sync::atomic::Ordering, time::Duration};

use antiphon_core::{
    gateway::{AudioBytes, AudioData},
    wire::frame::{FrameKind, LEVEL_SILENCE},
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until},
};

use super::{Asked, Playing, ahead::read_ahead, packets::Packet};
use crate::{
    rooms::Rooms,
    telemetry::metrics::{PlaybackEnd, metrics},
};

/// From entering the channel to the first packet.
const LEAD: Duration = Duration::from_millis(200);

/// What is late by more goes on from then; what is late by less catches up.
const LATE_MAX: Duration = Duration::from_millis(200);

/// While it is paused it says nothing, by which it would find out that it was removed: it looks so often.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Timestamps grow in whole packets, also over a pause.
const PACKET_SAMPLES: u32 = 960;

/// Somebody who plays.
pub(super) struct Clock<'a> {
    rooms: &'a Rooms,
    playing: &'a Playing,
    packets: mpsc::Receiver<io::Result<Packet>>,
    /// The next packet, once it was read.
    waiting: Option<Packet>,
    /// When it is said.
    next: Instant,
    /// When all ends.
    until: Instant,
    sequence: u16,
    timestamp: u32,
    /// Within a spurt.
    speaks: bool,
    asked: watch::Receiver<Asked>,
    /// What of it is done.
    done: Asked,
}

impl<'a> Clock<'a> {
    pub(super) fn new(rooms: &'a Rooms, playing: &'a Playing, longest: Duration) -> Self {
        // Members hear of the stream before they hear it.
        let next = Instant::now() + LEAD;
        Self {
            rooms,
            playing,
            packets: read_ahead(&playing.track, 0),
            waiting: None,
            next,
            until: next + longest,
            sequence: 0,
            timestamp: 0,
            speaks: false,
            asked: playing.asked.subscribe(),
            done: Asked::default(),
        }
    }

    /// Plays to the end, whatever that is.
    pub(super) async fn run(mut self) -> PlaybackEnd {
        let end = loop {
            if let Some(end) = self.step().await {
                break end;
            }
        };
        if end != PlaybackEnd::Removed {
            self.end_spurt();
        }
        end
    }

    /// Reads a packet, says one, or does what is asked; how it ends, if it does.
    async fn step(&mut self) -> Option<PlaybackEnd> {
        let (paused, next) = (self.done.paused, self.its_time());
        tokio::select! {
            biased;
            () = self.playing.ends.notified() => Some(PlaybackEnd::Draining),
            // The playing, which is borrowed, has the other end.
            _ = self.asked.changed() => self.follow(),
            () = sleep(LOOK_EVERY), if paused => self.look(),
            packet = self.packets.recv(), if !paused && self.waiting.is_none() => self.take(packet),
            () = sleep_until(next), if !paused && self.waiting.is_some() => self.say_next(),
        }
    }

    /// When the next packet's time has come. Whoever is late by much does not make up for it.
    fn its_time(&mut self) -> Instant {
        let now = Instant::now();
        if self.waiting.is_some() && !self.done.paused && now > self.next + LATE_MAX {
            self.next = now;
        }
        self.next
    }

    fn take(&mut self, packet: Option<io::Result<Packet>>) -> Option<PlaybackEnd> {
        match packet {
            None => return Some(PlaybackEnd::Finished),
            Some(Ok(packet)) => self.waiting = Some(packet),
            Some(Err(error)) => {
                tracing::warn!(path = %self.playing.track.path, %error, "a file that is played cannot be read on");
                return Some(PlaybackEnd::Failed);
            }
        }
        None
    }

    fn say_next(&mut self) -> Option<PlaybackEnd> {
        if self.next >= self.until {
            return Some(PlaybackEnd::TooLong);
        }
        let Packet { bytes, samples, level, at } = self.waiting.take()?;
        let kind = if self.speaks { FrameKind::Audio } else { FrameKind::AudioStart };
        if !self.say(kind, level, bytes) {
            return Some(PlaybackEnd::Removed);
        }
        self.speaks = true;
        self.playing.played.store(at + u64::from(samples), Ordering::Relaxed);
        self.timestamp = self.timestamp.wrapping_add(samples);
        self.next += Duration::from_micros(u64::from(samples) * 1_000 / 48);
        None
    }

    /// Whether it was removed, or has lasted long enough, while it is paused.
    fn look(&self) -> Option<PlaybackEnd> {
        if self.playing.is_over() {
            return Some(PlaybackEnd::Removed);
        }
        (Instant::now() >= self.until).then_some(PlaybackEnd::TooLong)
    }

    /// Does what was asked.
    fn follow(&mut self) -> Option<PlaybackEnd> {
        let (asked, before) = (*self.asked.borrow_and_update(), self.done);
        self.done = asked;
        let seeks = asked.seek.filter(|_| asked.seek != before.seek);
        if seeks.is_some() || (asked.paused && !before.paused) {
            // What follows begins anew for decoders.
            self.end_spurt();
        }
        if let Some((_, to)) = seeks {
            self.waiting = None;
            self.packets = read_ahead(&self.playing.track, to);
            self.playing.played.store(to, Ordering::Relaxed);
        }
        if before.paused && !asked.paused {
            self.pass_pause();
        }
        self.playing.made.send_replace(asked.number);
        None
    }

    /// The pause is over: time has passed for who hears it.
    fn pass_pause(&mut self) {
        let now = Instant::now();
        let paused = now.saturating_duration_since(self.next);
        let packets = paused.as_micros() * 48 / 1_000 / u128::from(PACKET_SAMPLES);
        self.timestamp = self.timestamp.wrapping_add((packets as u32).wrapping_mul(PACKET_SAMPLES));
        self.next = self.next.max(now);
    }

    fn end_spurt(&mut self) {
        if std::mem::take(&mut self.speaks) {
            self.say(FrameKind::AudioStop, LEVEL_SILENCE, Vec::new());
        }
    }

    /// False once the player is no longer in the channel.
    fn say(&mut self, kind: FrameKind, level: u8, bytes: Vec<u8>) -> bool {
        let audio = AudioData {
            channel_id: self.playing.channel,
            data: AudioBytes(bytes),
            sequence: Some(self.sequence),
            timestamp: Some(self.timestamp),
            kind: Some(kind as u8),
            level: Some(level),
        };
        self.sequence = self.sequence.wrapping_add(1);
        let is_said = self.rooms.frame(&self.playing.presence, audio).is_ok();
        metrics().streaming.playback_packets.increment(is_said.into());
        is_said
    }
}
