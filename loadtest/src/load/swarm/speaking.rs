//! What is spoken when, and the run that it belongs to.

use std::{
    cmp::Reverse,
    time::{Duration, Instant},
};

use antiphon_core::wire::frame::FrameKind;
use tokio::sync::oneshot;

use super::{Measured, Swarm, hearing::Hearing};
use crate::{
    load::{
        payload::{COMFORT, Payload},
        process::{CpuSample, CpuUsed},
        schedule::Schedule,
        system::realtime_ns,
        talk::{Say, Talker},
        tally::Speaker,
        way::Way,
        wire::Ready,
    },
    scenario::{Impairment, Talk},
    voice::OutgoingFrame,
};

/// The level that speakers speak at.
const LEVEL: u8 = 25;

/// The level of comfort noise.
const LEVEL_COMFORT: u8 = 90;

/// What is to be spoken, and when it is measured.
pub(in crate::load) struct Plan {
    pub(in crate::load) warm_up: Duration,
    pub(in crate::load) measured: Duration,
    /// Place in the 20 ms grid and number of each speaker.
    pub(in crate::load) places: Vec<(Duration, usize)>,
    /// The slot and the channel of each speaker.
    pub(in crate::load) speakers: Vec<(usize, usize)>,
    /// When they talk, and what chooses that.
    pub(in crate::load) talk: Talk,
    pub(in crate::load) seed: u64,
    /// What everyone's way is like.
    pub(in crate::load) impairment: Option<Impairment>,
    /// Whose CPU time to read.
    pub(in crate::load) pids: Vec<u32>,
    /// Whether there will be faults, and silences to watch for.
    pub(in crate::load) has_faults: bool,
}

/// A run under way.
pub(super) struct Run {
    pub(super) start: Instant,
    pub(super) plan: Plan,
    pub(super) done: oneshot::Sender<Measured>,
    pub(super) schedule: Schedule,
    /// Frames of 20 ms between the start of the clock and this run's: time stamps go on from run to run.
    pub(super) cycles_before: u32,
    /// The processes' CPU times when the measured time began, and what they used until its end.
    pub(super) cpu_before: Vec<Option<CpuSample>>,
    pub(super) cpu: Vec<Option<CpuUsed>>,
    pub(super) began: bool,
    /// In which round of sweeping the speakers stopped.
    pub(super) stopped_in_round: Option<usize>,
}

/// What a frame holds.
#[derive(Clone, Copy)]
enum Bytes {
    /// The frame that was written; whether it is one of the measured time.
    Frame {
        counts: bool,
    },
    Comfort,
    None,
}

impl Swarm {
    pub(super) fn send_due(&mut self) {
        while let Some((due, speaker)) = self.run.as_ref().and_then(Run::due) {
            match self.talkers[speaker].next() {
                Say::Nothing => {}
                Say::Start => self.speak(speaker, FrameKind::AudioStart, due),
                Say::Speech => self.speak(speaker, FrameKind::Audio, due),
                Say::Stop => self.send(speaker, FrameKind::AudioStop, Bytes::None),
                Say::Comfort => self.send(speaker, FrameKind::Silence, Bytes::Comfort),
            }
            if let Some(run) = &mut self.run {
                run.schedule.advance();
            }
        }
    }

    /// Sends a frame that proves itself.
    fn speak(&mut self, speaker: usize, kind: FrameKind, due: Instant) {
        self.lateness.record_us(Instant::now().saturating_duration_since(due).as_micros() as u64);
        let sent_ns = realtime_ns();
        let Hearing { tally, speakers, .. } = &mut self.hearing;
        let Speaker { frames, counted, listeners, .. } = &mut speakers[speaker];
        Payload { speaker: speaker as u32, sequence: *frames, sent_ns }.write(&mut self.frame);
        *frames += 1;
        let counts = tally.window_ns.contains(&sent_ns);
        if counts {
            *counted += 1;
            tally.series.sent(sent_ns, *listeners);
        }
        self.send(speaker, kind, Bytes::Frame { counts });
    }

    pub(super) fn stop_speaking(&mut self) {
        for speaker in 0..self.hearing.speakers.len() {
            if self.talkers[speaker].in_spurt() {
                self.send(speaker, FrameKind::AudioStop, Bytes::None);
            }
        }
    }

    fn send(&mut self, speaker: usize, kind: FrameKind, bytes: Bytes) {
        let slot = self.hearing.speakers[speaker].slot;
        let Some(client) = self.clients.get_mut(slot).and_then(Option::as_mut) else { return };
        let cycle = self.run.as_ref().map_or(0, |run| run.cycles_before.wrapping_add(run.schedule.cycle()));
        let (level, bytes, counts) = match bytes {
            Bytes::Frame { counts } => (LEVEL, &*self.frame, counts),
            Bytes::Comfort => (LEVEL_COMFORT, COMFORT, false),
            Bytes::None => (LEVEL, &[][..], false),
        };
        let outgoing = OutgoingFrame { kind, flags: 0, level, timestamp: cycle.wrapping_mul(960), bytes };
        let now = self.config.clock.now();
        match client.wire.send(now, client.channel_id, &outgoing, &mut self.datagram) {
            Some(Ready::Datagram(length)) => {
                let leaves = client.transmit(now, &self.datagram[..length]);
                self.hearing.speakers[speaker].lost_on_way += u64::from(counts && !leaves);
            }
            Some(Ready::Output(output)) => client.output(now, output),
            None => {}
        }
        self.departures.extend(client.next_departure(slot));
    }

    /// Sends what has passed an impaired way.
    pub(super) fn let_depart(&mut self) {
        let now = self.config.clock.now();
        while let Some(Reverse((at, slot))) = self.departures.peek().copied().filter(|Reverse((at, _))| *at <= now) {
            self.departures.pop();
            let Some(client) = self.clients.get_mut(slot).and_then(Option::as_mut) else { continue };
            client.depart(at);
            self.departures.extend(client.next_departure(slot));
        }
    }
}

impl Plan {
    /// The way of the client in that slot.
    pub(super) fn way(&self, slot: usize) -> Option<Box<Way>> {
        self.impairment.map(|impairment| Box::new(Way::new(&impairment, self.seed, slot)))
    }

    /// The talker of that number.
    pub(super) fn talker(&self, number: u64) -> Talker {
        Talker::new(self.talk, self.seed ^ ((number + 1) << 20))
    }
}

impl Run {
    pub(super) fn next_due(&self) -> Option<Instant> {
        let (place, _) = self.schedule.peek().filter(|_| self.stopped_in_round.is_none())?;
        Some(self.start + place)
    }

    /// The frame whose time has come.
    pub(super) fn due(&self) -> Option<(Instant, usize)> {
        let (place, speaker) = self.schedule.peek().filter(|_| self.stopped_in_round.is_none())?;
        let due = self.start + place;
        (due <= Instant::now() && place < self.plan.warm_up + self.plan.measured).then_some((due, speaker))
    }
}
