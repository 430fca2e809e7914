//! Whether a stream's speaker is speaking, and the telling of it.

use super::{Event, Output, timers::Due, turn::Turn};
use crate::{
    clock::Micros,
    ids::{ChannelId, StreamId},
    speech::spurt::{QUIET, Spurt},
    wire::frame::FrameKind,
};

/// A stream's talk spurt.
#[derive(Debug, Default)]
pub(super) struct Speaking {
    spurt: Spurt,
    /// What the control plane was last told.
    told: bool,
    /// The timer of the spurt's end is pending.
    armed: bool,
}

impl Speaking {
    /// A frame came, newer than all before it.
    pub(super) fn frame(&mut self, now: Micros, kind: FrameKind, level: u8) {
        self.spurt.frame(now, kind, level);
    }

    /// They were muted.
    pub(super) fn end(&mut self, now: Micros) {
        self.spurt.end(now);
    }

    /// The timer came due.
    pub(super) fn due(&mut self, now: Micros) {
        self.armed = false;
        self.spurt.poll(now);
    }

    /// Nobody speaks, and the control plane knows.
    pub(super) fn is_over(&self) -> bool {
        !self.told && !self.spurt.is_speaking()
    }

    /// Tells the control plane when a spurt began or ended, and sees to it that its end is noticed.
    pub(super) fn tell<O: Output>(&mut self, turn: &mut Turn<'_, O>, channel: ChannelId, stream: StreamId, due: Due) {
        let speaking = self.spurt.is_speaking();
        if self.told != speaking && turn.tell(Event::Speaking { channel, stream, speaking }) {
            self.told = speaking;
        }
        if !self.armed && (speaking || self.told != speaking) {
            self.armed = true;
            let at = self.spurt.ends_at().unwrap_or(turn.now + QUIET);
            turn.work.timers.arm(at, due);
        }
    }
}
