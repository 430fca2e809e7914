//! A receiver's jitter buffer for one stream.
//!
//! Frames go in as they arrive, and come out one by one in the order of their numbers when the player asks. The
//! first frame of a talk spurt is held for a *target delay*, long enough for nearly all that follow to be there in
//! time; the target follows the network and takes effect where it cannot be heard, between spurts.
//!
//! ```text
//!            push                     first of a spurt            its time has come
//!  network ───────► duplicate, late,  ──────────► Starting ───────────────────────► Playing ─┐
//!                   refused: dropped                 ▲                                  │    │ pop: frame,
//!                                                    │  next spurt     stop, or nothing │    │ or concealment
//!                                                    └───────────────── Idle ◄──────────┘◄───┘
//! ```
//!
//! While playing, a number that is missing although a later one is there is lost: it is concealed and the stream
//! goes on. Where nothing is there at all, or the delay is still less than the network needs, it may only be late:
//! it is concealed too, but the stream waits, so that the delay grows where that costs nothing. Delay that has grown
//! too far shrinks again by leaving out quiet frames.

mod delay;
mod types;

use std::{collections::VecDeque, mem, ops::Range};

use crate::{
    clock::Micros,
    opus_packet,
    replay::ReplayWindow,
    wire::{
        datagram::{DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_MIN},
        frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKind},
    },
};
use delay::DelayEstimator;

pub use types::{Arrival, JitterConfig, JitterStats, PlayedFrame, Playout};

/// The longest frame taken in: what a datagram can hold.
pub const FRAME_BYTES_MAX: usize = DATAGRAM_BYTES_MAX - DATAGRAM_BYTES_MIN - FRAME_HEADER_BYTES;

/// More numbers missing at once than this are a new talk spurt, not a loss: 1 s of 20 ms frames.
const LOSS_RUN_MAX: u64 = 50;
/// Time without frames, though none is missing, after which a new spurt begins: 120 ms.
const SPURT_GAP_SAMPLES: u64 = 5_760;
/// Numbers so far behind the newest are old ones, and remembered; what seems further behind is a jump ahead.
const MISORDERED: Range<i16> = -511..0;
/// From this level (-dBov) on, leaving out a frame is hardly heard.
const QUIET_LEVEL: u8 = 60;
/// Delay beyond target that is worth leaving out a quiet frame.
const EXCESS_QUIET: Micros = Micros::from_millis(40);
/// Delay beyond target that is worth leaving out any frame.
const EXCESS_ANY: Micros = Micros::from_millis(120);
/// At least so many frames are played between two that are left out.
const PLAYED_BETWEEN_SKIPS: u32 = 5;
/// Recovery from a burst ends at this much delay beyond target: one frame.
const EXCESS_RECOVERED: Micros = Micros::from_millis(20);

#[derive(Clone, Debug)]
struct Slot {
    number: u64,
    timestamp: u64,
    arrival: Micros,
    spurt: u32,
    header: FrameHeader,
    bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No spurt.
    Idle,
    /// A spurt's first frames wait.
    Starting { at: Micros },
    /// Each pop takes the next frame.
    Playing,
}

/// The jitter buffer of one stream. See the [module](self).
#[derive(Clone, Debug)]
pub struct JitterBuffer {
    config: JitterConfig,
    delays: DelayEstimator,
    phase: Phase,
    /// By number, each once.
    queue: VecDeque<Slot>,
    /// Emptied buffers, to be filled again.
    spare: Vec<Vec<u8>>,
    /// The bytes last handed out.
    current: Vec<u8>,
    seen: ReplayWindow<9>,
    /// The highest number seen, and its timestamp, both without wrap-around.
    newest: Option<(u64, u64)>,
    /// The number of the current spurt's first frame.
    spurt_first: u64,
    /// The number to be played next; lower ones are late, so none in the queue is lower.
    next_number: u64,
    /// The timestamp that the next pop plays.
    play_timestamp: u64,
    frame_samples: u32,
    /// Concealments while nothing was there: if the frames turn out to be lost, they are concealed already.
    concealed_ahead: u32,
    /// The last frame was comfort noise: nothing after it is silence.
    quiet: bool,
    played_since_skip: u32,
    /// Every other frame is being left out.
    recovering: bool,
    stats: JitterStats,
}

impl JitterBuffer {
    /// An empty buffer.
    #[must_use]
    pub fn new(config: JitterConfig) -> Self {
        Self {
            delays: DelayEstimator::new(&config),
            config,
            phase: Phase::Idle,
            queue: VecDeque::new(),
            spare: Vec::new(),
            current: Vec::new(),
            seen: ReplayWindow::new(),
            newest: None,
            spurt_first: 0,
            next_number: 0,
            play_timestamp: 0,
            frame_samples: opus_packet::USUAL_SAMPLES,
            concealed_ahead: 0,
            quiet: false,
            played_since_skip: 0,
            recovering: false,
            stats: JitterStats::default(),
        }
    }

    /// Takes in a frame that has arrived.
    pub fn push(&mut self, now: Micros, header: FrameHeader, bytes: &[u8]) -> Arrival {
        if !header.allows(bytes) || bytes.len() > FRAME_BYTES_MAX {
            self.stats.refused += 1;
            return Arrival::Refused;
        }
        let (number, timestamp) = self.unwrapped(&header);
        let newest = self.newest.is_none_or(|(newest, _)| number > newest);
        if !self.seen.check(number) {
            self.stats.duplicates += 1;
            return Arrival::Duplicate;
        }
        self.seen.accept(number);
        self.stats.received += 1;
        if newest {
            self.newest = Some((number, timestamp));
        }
        self.observe(now, number, timestamp, newest && header.kind() == Some(FrameKind::AudioStart));
        if number < self.next_number {
            self.stats.late += 1;
            return Arrival::Late;
        }
        self.insert(now, number, timestamp, header, bytes);
        if self.phase == Phase::Idle {
            self.phase = Phase::Starting { at: now + self.delays.target() };
        }
        Arrival::Queued
    }

    /// Says what to play next, and takes it out. To be called as often as the player needs more: with 20 ms frames
    /// every 20 ms; with others until the ticks' samples are there. After [`Playout::Silence`] ask at the next tick.
    pub fn pop(&mut self, now: Micros) -> Playout<'_> {
        loop {
            match self.phase {
                Phase::Idle => return Playout::Silence,
                Phase::Starting { at } if now < at => return Playout::Silence,
                Phase::Starting { .. } => self.begin_playing(),
                Phase::Playing => match self.step(now) {
                    Step::Again => {}
                    Step::Silence => return Playout::Silence,
                    Step::Conceal => {
                        self.stats.concealed += 1;
                        return Playout::Conceal { samples: self.frame_samples };
                    }
                    Step::Play(header) => {
                        self.stats.played += 1;
                        let samples = self.frame_samples;
                        return Playout::Play(PlayedFrame { header, bytes: &self.current, samples });
                    }
                },
            }
        }
    }

    /// The packet right behind the one that a [`Playout::Conceal`] has just taken the place of, if it is there: it may say
    /// something of the lost one (in-band forward error correction, RFC 6716, 2.1.7).
    #[must_use]
    pub fn following(&self) -> Option<&[u8]> {
        let head = self.queue.front().filter(|head| head.number == self.next_number)?;
        (!head.bytes.is_empty()).then_some(&head.bytes[..])
    }

    /// What the buffer has seen and done.
    #[must_use]
    pub const fn stats(&self) -> JitterStats {
        self.stats
    }

    /// How many frames wait.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.queue.len()
    }

    /// How long the first frame of a spurt that began now would be held.
    #[must_use]
    pub fn target_delay(&self) -> Micros {
        self.delays.target()
    }

    /// Interarrival jitter (RFC 3550, section 6.4.1) as reports carry it.
    #[must_use]
    pub fn jitter_us(&self) -> u32 {
        self.delays.jitter_us()
    }

    /// Number and timestamp without wrap-around, both by their distance to the newest frame's.
    fn unwrapped(&self, header: &FrameHeader) -> (u64, u64) {
        // The first may have older ones behind it.
        let Some((newest, timestamp)) = self.newest else {
            return ((1 << 32) + u64::from(header.sequence), (1 << 40) + u64::from(header.timestamp));
        };
        let ahead = header.sequence.wrapping_sub(newest as u16);
        let number = if MISORDERED.contains(&ahead.cast_signed()) {
            newest.saturating_add_signed(ahead.cast_signed().into())
        } else {
            newest + u64::from(ahead)
        };
        let ahead = header.timestamp.wrapping_sub(timestamp as u32).cast_signed();
        (number, timestamp.saturating_add_signed(ahead.into()))
    }

    fn observe(&mut self, now: Micros, number: u64, timestamp: u64, starts_spurt: bool) {
        if starts_spurt || (self.phase == Phase::Idle && number >= self.next_number) {
            self.delays.begin_spurt();
            self.spurt_first = number;
        }
        if number >= self.spurt_first {
            self.delays.observe(now, timestamp);
        }
    }

    fn insert(&mut self, arrival: Micros, number: u64, timestamp: u64, header: FrameHeader, bytes: &[u8]) {
        if self.queue.len() >= self.config.frames_max {
            self.stats.overflowed += 1;
            if self.queue.front().is_none_or(|oldest| oldest.number > number) {
                return;
            }
            self.drop_oldest();
        }
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.extend_from_slice(bytes);
        let slot = Slot { number, timestamp, arrival, spurt: self.delays.spurt(), header, bytes: buffer };
        let behind = self.queue.iter().rev().take_while(|queued| queued.number > number).count();
        self.queue.insert(self.queue.len() - behind, slot);
    }

    fn drop_oldest(&mut self) {
        let Some(oldest) = self.queue.pop_front() else { return };
        self.pass(&oldest);
        self.recycle(oldest.bytes);
    }

    fn recycle(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        self.spare.push(buffer);
    }

    fn begin_playing(&mut self) {
        let Some(head) = self.queue.front() else {
            self.phase = Phase::Idle;
            return;
        };
        let missing = head.number - self.next_number;
        if self.next_number > 0 && self.is_loss(missing, &head.header) {
            self.stats.lost += missing;
        }
        if head.header.kind() != Some(FrameKind::Silence) {
            self.stats.spurts += 1;
        }
        self.next_number = head.number;
        self.play_timestamp = head.timestamp;
        self.concealed_ahead = 0;
        self.quiet = false;
        self.phase = Phase::Playing;
    }

    /// Goes one step on within a spurt.
    fn step(&mut self, now: Micros) -> Step {
        let Some(head) = self.queue.front() else { return self.nothing_there() };
        let missing = head.number - self.next_number;
        if missing > 0 {
            if !self.is_loss(missing, &head.header) {
                return self.end_spurt();
            }
            return if self.may_wait(now, head) { self.conceal_ahead() } else { self.pass_lost(missing) };
        }
        let early = head.timestamp.saturating_sub(self.play_timestamp);
        if early > SPURT_GAP_SAMPLES {
            return self.end_spurt();
        }
        if early >= u64::from(opus_packet::USUAL_SAMPLES) {
            self.play_timestamp += u64::from(opus_packet::USUAL_SAMPLES);
            return Step::Silence;
        }
        let head = (head.timestamp, head.header.level, head.spurt);
        let skips = self.shall_skip(now, head);
        let Some(slot) = self.queue.pop_front() else { return Step::Again };
        if skips { self.skip(slot) } else { self.take(slot) }
    }

    /// The queue has run dry: perhaps the next frame is only late.
    fn nothing_there(&mut self) -> Step {
        if self.quiet || self.concealed_ahead >= self.config.conceal_run_max {
            return self.end_spurt();
        }
        self.conceal_ahead()
    }

    fn conceal_ahead(&mut self) -> Step {
        self.concealed_ahead += 1;
        Step::Conceal
    }

    /// Whether a missing frame can be waited for without more delay than the network needs.
    fn may_wait(&self, now: Micros, head: &Slot) -> bool {
        self.concealed_ahead < self.config.conceal_run_max
            && head.spurt == self.delays.spurt()
            && self.delays.delay_of(now, self.play_timestamp).is_some_and(|delay| delay < self.delays.target())
    }

    /// Whether so many missing numbers before a frame are lost ones. A jump begins a new spurt, and of comfort noise
    /// the node leaves out what is surplus.
    fn is_loss(&self, missing: u64, next: &FrameHeader) -> bool {
        let between_spurts = self.quiet || matches!(next.kind(), Some(FrameKind::AudioStart | FrameKind::Silence));
        missing <= LOSS_RUN_MAX && !between_spurts
    }

    /// Numbers are missing and a later one is there.
    fn pass_lost(&mut self, missing: u64) -> Step {
        let concealed = missing.min(self.concealed_ahead.into());
        let passed = concealed.max(1);
        self.next_number += passed;
        self.play_timestamp += passed * u64::from(self.frame_samples);
        self.stats.lost += passed;
        if concealed == 0 {
            return Step::Conceal;
        }
        self.concealed_ahead -= concealed as u32;
        Step::Again
    }

    /// The spurt is over; what waits already is the next one.
    fn end_spurt(&mut self) -> Step {
        self.concealed_ahead = 0;
        self.phase = match self.queue.front() {
            Some(head) => Phase::Starting { at: head.arrival + self.delays.target() },
            None => Phase::Idle,
        };
        Step::Again
    }

    /// Whether so much delay has piled up that leaving out this frame is the lesser evil.
    fn shall_skip(&mut self, now: Micros, head: (u64, u8, u32)) -> bool {
        let (timestamp, level, spurt) = head;
        if !self.config.catch_up || self.queue.len() < 2 || spurt != self.delays.spurt() {
            return false;
        }
        let Some(delay) = self.delays.delay_of(now, timestamp) else { return false };
        let target = self.delays.target();
        self.recovering = self
            .config
            .recover_from
            .is_some_and(|from| delay > target + if self.recovering { EXCESS_RECOVERED } else { from });
        if self.recovering {
            return self.played_since_skip > 0;
        }
        let quiet = level >= QUIET_LEVEL;
        let allowed = target + if quiet { EXCESS_QUIET } else { EXCESS_ANY };
        self.played_since_skip >= PLAYED_BETWEEN_SKIPS && delay > allowed
    }

    fn skip(&mut self, slot: Slot) -> Step {
        self.stats.skipped += 1;
        self.played_since_skip = 0;
        self.pass(&slot);
        self.recycle(slot.bytes);
        Step::Again
    }

    /// Plays a frame, or does what an empty one says.
    fn take(&mut self, slot: Slot) -> Step {
        self.pass(&slot);
        self.concealed_ahead = 0;
        self.played_since_skip = self.played_since_skip.saturating_add(1);
        let (kind, empty) = (slot.header.kind(), slot.bytes.is_empty());
        self.quiet = kind == Some(FrameKind::Silence);
        let played = mem::replace(&mut self.current, slot.bytes);
        self.recycle(played);
        if kind == Some(FrameKind::AudioStop) {
            self.end_spurt();
        }
        if empty { Step::Again } else { Step::Play(slot.header) }
    }

    /// Moves on behind a frame.
    fn pass(&mut self, slot: &Slot) {
        self.next_number = slot.number + 1;
        self.play_timestamp = slot.timestamp;
        if slot.bytes.is_empty() {
            return;
        }
        let opaque = FrameHeader::FLAG_ENCRYPTED | FrameHeader::FLAG_REDUNDANT;
        if slot.header.flags() & opaque == 0
            && let Ok(samples) = opus_packet::duration_samples(&slot.bytes)
        {
            self.frame_samples = samples;
        }
        self.play_timestamp += u64::from(self.frame_samples);
    }
}

/// What a step within a spurt comes to.
enum Step {
    /// Nothing to play yet: go another.
    Again,
    Silence,
    Conceal,
    Play(FrameHeader),
}

#[cfg(test)]
mod tests;
