//! Talk spurts: when somebody begins to speak and when they have ended.
//!
//! A client may say so with `AudioStart` and `AudioStop` frames. For one that does not, a spurt begins with
//! sound after [`QUIET`] of none and ends after [`QUIET`] without.

use crate::{clock::Micros, wire::frame::FrameKind};

/// How long there must be no sound before a spurt ends, or before sound begins another.
pub const QUIET: Micros = Micros::from_millis(300);

/// A spurt's beginning or end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpurtChange {
    /// They speak now.
    Began,
    /// They no longer do.
    Ended,
}

/// Whether one stream's speaker is speaking.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spurt {
    speaking: bool,
    /// When speaking, the last sound; otherwise the moment the last spurt ended. `None` before the first.
    quiet_since: Option<Micros>,
}

impl Spurt {
    /// Whether a spurt goes on.
    #[must_use]
    pub const fn is_speaking(&self) -> bool {
        self.speaking
    }

    /// When the spurt ends unless there is sound before; call [`Self::poll`] then.
    #[must_use]
    pub fn ends_at(&self) -> Option<Micros> {
        self.speaking.then_some(self.quiet_since? + QUIET)
    }

    /// A frame came, newer than all before it.
    pub fn frame(&mut self, now: Micros, kind: FrameKind, level: u8) -> Option<SpurtChange> {
        if kind == FrameKind::AudioStop {
            return self.end(now);
        }
        if !kind.is_sound(level) {
            return self.poll(now);
        }
        if self.speaking {
            self.quiet_since = Some(now);
            return None;
        }
        // What follows a stop at once is its tail, not a new spurt, unless the client says that it is one.
        let rested = self.quiet_since.is_none_or(|since| now.since(since) >= QUIET);
        if kind != FrameKind::AudioStart && !rested {
            return None;
        }
        self.speaking = true;
        self.quiet_since = Some(now);
        Some(SpurtChange::Began)
    }

    /// Time passed: ends a spurt that has been quiet for long enough.
    pub fn poll(&mut self, now: Micros) -> Option<SpurtChange> {
        match self.ends_at() {
            Some(end) if end <= now => self.end(now),
            _ => None,
        }
    }

    /// Ends a spurt, if there is one: they said so, or were muted.
    pub fn end(&mut self, now: Micros) -> Option<SpurtChange> {
        if !self.speaking {
            return None;
        }
        self.speaking = false;
        self.quiet_since = Some(now);
        Some(SpurtChange::Ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::LEVEL_SILENCE;

    const VOICE: u8 = 30;

    fn ms(count: u64) -> Micros {
        Micros::from_millis(count)
    }

    #[test]
    fn sound_after_quiet_begins_a_spurt_and_quiet_ends_it() {
        let mut spurt = Spurt::default();
        assert_eq!(spurt.frame(ms(0), FrameKind::Audio, VOICE), Some(SpurtChange::Began));
        assert_eq!(spurt.frame(ms(20), FrameKind::Audio, VOICE), None);
        assert_eq!(spurt.ends_at(), Some(ms(320)));
        assert_eq!(spurt.poll(ms(319)), None);
        assert_eq!(spurt.poll(ms(320)), Some(SpurtChange::Ended));
        assert_eq!(spurt.ends_at(), None);
        assert_eq!(spurt.poll(ms(900)), None);
        assert_eq!(spurt.frame(ms(620), FrameKind::Audio, VOICE), Some(SpurtChange::Began));
    }

    #[test]
    fn silent_frames_and_comfort_noise_are_no_sound() {
        let mut spurt = Spurt::default();
        assert_eq!(spurt.frame(ms(0), FrameKind::Audio, LEVEL_SILENCE), None);
        assert_eq!(spurt.frame(ms(20), FrameKind::Silence, VOICE), None);
        assert_eq!(spurt.frame(ms(40), FrameKind::Audio, VOICE), Some(SpurtChange::Began));
        assert_eq!(spurt.frame(ms(200), FrameKind::Silence, LEVEL_SILENCE), None);
        assert_eq!(spurt.frame(ms(340), FrameKind::Silence, LEVEL_SILENCE), Some(SpurtChange::Ended));
    }

    #[test]
    fn the_client_may_say_when() {
        let mut spurt = Spurt::default();
        assert_eq!(spurt.frame(ms(0), FrameKind::AudioStart, LEVEL_SILENCE), Some(SpurtChange::Began));
        assert_eq!(spurt.frame(ms(20), FrameKind::AudioStop, LEVEL_SILENCE), Some(SpurtChange::Ended));
        assert_eq!(spurt.frame(ms(20), FrameKind::AudioStop, LEVEL_SILENCE), None);
        assert_eq!(spurt.frame(ms(40), FrameKind::AudioStart, VOICE), Some(SpurtChange::Began));
    }

    #[test]
    fn the_tail_after_a_stop_is_no_new_spurt_but_going_on_is() {
        let mut spurt = Spurt::default();
        spurt.frame(ms(0), FrameKind::Audio, VOICE);
        spurt.frame(ms(20), FrameKind::AudioStop, LEVEL_SILENCE);
        for late in (40..320).step_by(20) {
            assert_eq!(spurt.frame(ms(late), FrameKind::Audio, VOICE), None, "{late} ms");
        }
        assert_eq!(spurt.frame(ms(320), FrameKind::Audio, VOICE), Some(SpurtChange::Began));
    }
}
