//! Which speakers of a channel are forwarded when it limits them: the loudest so many.
//!
//! Those forwarded hold a *seat*. A free or idle seat is taken by the first sound, so that no first
//! syllable is lost. A taken one changes hands only to a clearly louder speaker ([`MARGIN`]) and not before its
//! holder has had it for [`HOLD`], so that two equally loud ones do not take it in turns. Priority speakers
//! take a seat from others at once and lose none to them.

use crate::{clock::Micros, ids::StreamId, wire::frame::LEVEL_SILENCE};

/// How long a seat is safe from louder speakers once taken.
pub const HOLD: Micros = Micros::from_millis(600);
/// A seat whose holder was not heard for this long is free for anyone.
pub const IDLE: Micros = Micros::from_millis(400);
/// How much louder a speaker must be to take a seat: 6 dB, about twice the amplitude.
pub const MARGIN: Loudness = Loudness(6 * Loudness::PER_DB);

/// A smoothed level: 0 is silence, one dB is [`Loudness::PER_DB`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Loudness(i32);

impl Loudness {
    /// Steps of one dB.
    pub const PER_DB: i32 = 256;

    /// As a number that travels: 1/256 dB above silence.
    #[must_use]
    pub fn to_bits(self) -> u16 {
        u16::try_from(self.0).unwrap_or(0)
    }

    /// From such a number; more than RFC 6464 can say is taken as the loudest.
    #[must_use]
    pub fn from_bits(bits: u16) -> Self {
        Self(i32::from(bits).min(i32::from(LEVEL_SILENCE) * Self::PER_DB))
    }

    /// Takes in one frame's RFC 6464 level. It rises within two or three frames and falls over about ten, so that
    /// pauses between words count little.
    pub fn hear(&mut self, level: u8) {
        let heard = i32::from(LEVEL_SILENCE.saturating_sub(level)) * Self::PER_DB;
        let step = heard - self.0;
        self.0 += if step > 0 { step / 2 } else { step / 8 };
    }
}

/// A speaker who wants a frame forwarded.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Whose frame.
    pub stream: StreamId,
    /// Forwarded before all others.
    pub priority: bool,
    /// Their smoothed level, this frame included.
    pub loudness: Loudness,
    /// Whether the frame is sound: only sound takes a seat or keeps it.
    pub sounding: bool,
}

#[derive(Clone, Copy, Debug)]
struct Seat {
    stream: StreamId,
    priority: bool,
    loudness: Loudness,
    taken_at: Micros,
    heard_at: Micros,
}

impl Seat {
    fn new(now: Micros, speaker: Candidate) -> Self {
        let Candidate { stream, priority, loudness, .. } = speaker;
        Self { stream, priority, loudness, taken_at: now, heard_at: now }
    }

    fn is_idle(&self, now: Micros) -> bool {
        now.since(self.heard_at) >= IDLE
    }

    fn yields_to(&self, now: Micros, speaker: &Candidate) -> bool {
        if self.is_idle(now) || (speaker.priority && !self.priority) {
            return true;
        }
        speaker.priority == self.priority
            && now.since(self.taken_at) >= HOLD
            && speaker.loudness.0 >= self.loudness.0 + MARGIN.0
    }
}

/// The seats of one channel.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    /// 0: everyone is forwarded and there are no seats.
    max_speakers: u32,
    seats: Vec<Seat>,
}

impl Selector {
    /// For a channel that forwards at most `max_speakers`; 0 means all.
    #[must_use]
    pub fn new(max_speakers: u32) -> Self {
        Self { max_speakers, seats: Vec::new() }
    }

    /// Makes room for `members`, so that [`Self::admit`] does not allocate.
    pub fn reserve(&mut self, members: usize) {
        let seats = members.min(self.max_speakers as usize);
        self.seats.reserve(seats.saturating_sub(self.seats.len()));
    }

    /// The limit changed. `members` as for [`Self::reserve`].
    pub fn set_max_speakers(&mut self, now: Micros, max_speakers: u32, members: usize) {
        self.max_speakers = max_speakers;
        while self.seats.len() > max_speakers as usize {
            let weakest = self.weakest(now).map(|(index, _)| index);
            weakest.map(|index| self.seats.swap_remove(index));
        }
        self.reserve(members);
    }

    /// Whether this frame is forwarded.
    pub fn admit(&mut self, now: Micros, speaker: Candidate) -> bool {
        if self.max_speakers == 0 {
            return true;
        }
        if let Some(seat) = self.seats.iter_mut().find(|seat| seat.stream == speaker.stream) {
            seat.loudness = speaker.loudness;
            seat.priority = speaker.priority;
            if speaker.sounding {
                seat.heard_at = now;
            }
            return true;
        }
        if !speaker.sounding {
            return false;
        }
        if self.seats.len() < self.max_speakers as usize {
            self.seats.push(Seat::new(now, speaker));
            return true;
        }
        match self.weakest(now) {
            Some((index, seat)) if seat.yields_to(now, &speaker) => {
                self.seats[index] = Seat::new(now, speaker);
                true
            }
            _ => false,
        }
    }

    /// The speaker stopped or left: their seat is free at once.
    pub fn release(&mut self, stream: StreamId) {
        self.seats.retain(|seat| seat.stream != stream);
    }

    /// Who holds a seat, in no order.
    pub fn speakers(&self) -> impl ExactSizeIterator<Item = StreamId> {
        self.seats.iter().map(|seat| seat.stream)
    }

    /// From when on the first sound of anyone is forwarded: at once while a seat is free, else when one has been idle for
    /// long enough.
    #[must_use]
    pub fn room_at(&self) -> Micros {
        if self.seats.len() < self.max_speakers as usize || self.max_speakers == 0 {
            return Micros::ZERO;
        }
        self.seats.iter().map(|seat| seat.heard_at + IDLE).min().unwrap_or(Micros::ZERO)
    }

    /// The seat to give up first: an idle one, then one without priority, then the quietest.
    fn weakest(&self, now: Micros) -> Option<(usize, &Seat)> {
        let rank = |seat: &Seat| (!seat.is_idle(now), seat.priority, seat.loudness);
        self.seats.iter().enumerate().min_by_key(|(_, seat)| rank(seat))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Speakers who send a frame of some level every 20 ms.
    struct Room {
        selector: Selector,
        now: Micros,
        loudness: [Loudness; 8],
        priority: [bool; 8],
    }

    impl Room {
        fn new(max_speakers: u32) -> Self {
            let now = Micros::from_secs(1);
            Self { selector: Selector::new(max_speakers), now, loudness: Default::default(), priority: [false; 8] }
        }

        fn frame(&mut self, who: usize, level: u8) -> bool {
            self.loudness[who].hear(level);
            let speaker = Candidate {
                stream: StreamId(u32::try_from(who).expect("small")),
                priority: self.priority[who],
                loudness: self.loudness[who],
                sounding: level < LEVEL_SILENCE,
            };
            self.selector.admit(self.now, speaker)
        }

        /// All of them speak for `ms`; how many frames of each were forwarded.
        fn speak(&mut self, ms: u64, levels: &[(usize, u8)]) -> Vec<usize> {
            let mut forwarded = vec![0; levels.len()];
            for _ in 0..ms / 20 {
                self.now = self.now + Micros::from_millis(20);
                for (count, &(who, level)) in forwarded.iter_mut().zip(levels) {
                    *count += usize::from(self.frame(who, level));
                }
            }
            forwarded
        }
    }

    #[test]
    fn without_a_limit_everyone_is_forwarded() {
        assert_eq!(Room::new(0).speak(100, &[(0, 20), (1, 127), (2, 90)]), [5, 5, 5]);
    }

    #[test]
    fn the_loudest_get_the_seats() {
        let mut room = Room::new(2);
        room.speak(1_000, &[(0, 60), (1, 55), (2, 20), (3, 25)]);
        assert_eq!(room.speak(1_000, &[(0, 60), (1, 55), (2, 20), (3, 25)]), [0, 0, 50, 50]);
    }

    #[test]
    fn a_first_syllable_is_forwarded_when_a_seat_is_free_or_idle() {
        let mut room = Room::new(1);
        assert_eq!(room.speak(200, &[(0, 20)]), [10]);
        room.speak(400, &[(0, LEVEL_SILENCE)]);
        assert_eq!(room.speak(20, &[(1, 50)]), [1], "the very first frame, although quieter");
    }

    #[test]
    fn equally_loud_speakers_do_not_take_turns() {
        let mut room = Room::new(1);
        let mut changes = 0;
        let mut last = None;
        for round in 0..1_000_u16 {
            let wobble = u8::try_from(round % 5).expect("small");
            let forwarded = room.speak(20, &[(0, 28 + wobble), (1, 32 - wobble)]);
            let now = forwarded.iter().position(|&count| count == 1);
            changes += usize::from(last.is_some() && now != last);
            last = now;
        }
        assert_eq!(changes, 0);
    }

    #[test]
    fn a_new_holder_is_safe_for_the_hold() {
        let mut room = Room::new(1);
        room.speak(100, &[(0, 50)]);
        assert_eq!(room.speak(480, &[(0, 50), (1, 10)]), [24, 0], "within the hold");
        let after = room.speak(400, &[(0, 50), (1, 10)]);
        assert!(after[1] >= 17, "{after:?}");
        assert!(after[0] <= 3, "{after:?}");
    }

    #[test]
    fn priority_goes_first_and_is_not_displaced() {
        let mut room = Room::new(1);
        room.priority[1] = true;
        room.speak(100, &[(0, 10)]);
        assert_eq!(room.speak(20, &[(1, 60)]), [1], "at once, within the other's hold");
        assert_eq!(room.speak(2_000, &[(0, 1), (1, 60)]), [0, 100]);
        room.speak(400, &[(1, LEVEL_SILENCE)]);
        assert_eq!(room.speak(20, &[(0, 40)]), [1], "an idle priority speaker's seat is free");
    }

    #[test]
    fn what_is_no_sound_takes_no_seat() {
        let mut room = Room::new(1);
        assert_eq!(room.speak(100, &[(0, LEVEL_SILENCE)]), [0]);
    }

    #[test]
    fn there_is_room_while_a_seat_is_free_or_idle() {
        let mut room = Room::new(2);
        room.speak(20, &[(0, 20)]);
        assert_eq!(room.selector.room_at(), Micros::ZERO);
        room.speak(100, &[(0, 20), (1, 20)]);
        let full_at = room.now;
        assert_eq!(room.selector.room_at(), full_at + IDLE);
        room.speak(400, &[(0, LEVEL_SILENCE), (1, 20)]);
        assert_eq!((room.selector.room_at(), room.now), (full_at + IDLE, full_at + IDLE));
        assert_eq!(room.selector.speakers().len(), 2);
        assert_eq!(Selector::new(0).room_at(), Micros::ZERO);
    }

    #[test]
    fn a_released_seat_is_free_and_a_lower_limit_takes_the_weakest() {
        let mut room = Room::new(2);
        room.speak(100, &[(0, 20), (1, 40)]);
        room.selector.set_max_speakers(room.now, 1, 8);
        assert_eq!(room.speak(20, &[(0, 20), (1, 40)]), [1, 0]);
        room.selector.release(StreamId(0));
        assert_eq!(room.speak(20, &[(1, 40)]), [1]);
    }
}
