//! The numbers of a forwarded video: one unbroken sequence, whichever layer or publisher its packets come from.
//!
//! Each layer of a publisher counts its packets, pictures and time from a start of its own. A subscriber gets one stream:
//! when it goes over to another layer, which it can only at a whole picture, the new one's numbers are shifted so that
//! they follow the last that were sent. Gaps stay gaps, so that losses before the server are seen and made good.

use std::sync::Arc;

use super::{VideoCodec, codec::Vp8Descriptor};
use crate::clock::Micros;

/// RTP's clock for video, per millisecond.
const TICKS_PER_MS: u64 = 90;
/// What a subscriber's first packet is numbered: its receiver takes the number's wrap-arounds for none (RFC 3711, 3.3.1).
const FIRST_SEQUENCE: u64 = 1;
/// VP8's picture numbers have 15 bits at most.
const PICTURE_ID_MASK: u16 = 0x7fff;

/// A packet's numbers: the sequence number without its wrap-arounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// Grows by one with each packet.
    pub sequence: u64,
    /// 90 kHz.
    pub timestamp: u32,
}

/// VP8's own numbers in a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Vp8Numbers {
    picture: u16,
    tl0: u8,
}

/// What is added to a source's numbers.
#[derive(Clone, Copy, Debug)]
struct Shift {
    /// The source's packet before which nothing is forwarded.
    from: u64,
    sequence: u64,
    timestamp: u32,
    vp8: Vp8Numbers,
}

/// The newest that was sent.
#[derive(Clone, Copy, Debug)]
struct Newest {
    at: Micros,
    numbers: Numbers,
    vp8: Vp8Numbers,
}

/// One subscriber's stream of one publisher's video.
#[derive(Debug, Default)]
pub struct Rewriter {
    shift: Option<Shift>,
    newest: Option<Newest>,
}

impl Rewriter {
    /// Goes over to another source, whose packet these numbers are: the first of a whole picture.
    pub fn switch(&mut self, now: Micros, codec: VideoCodec, first: Numbers, payload: &[u8]) {
        let vp8 = vp8_numbers(codec, payload).unwrap_or_default();
        let shift = match self.newest {
            None => Shift {
                from: first.sequence,
                sequence: FIRST_SEQUENCE.wrapping_sub(first.sequence),
                timestamp: 0,
                vp8: Vp8Numbers::default(),
            },
            Some(newest) => {
                let passed_ms = (now.since(newest.at).0 / 1_000).max(1);
                let timestamp = newest.numbers.timestamp.wrapping_add((passed_ms * TICKS_PER_MS) as u32);
                Shift {
                    from: first.sequence,
                    sequence: (newest.numbers.sequence + 1).wrapping_sub(first.sequence),
                    timestamp: timestamp.wrapping_sub(first.timestamp),
                    vp8: Vp8Numbers {
                        picture: newest.vp8.picture.wrapping_add(1).wrapping_sub(vp8.picture) & PICTURE_ID_MASK,
                        tl0: newest.vp8.tl0.wrapping_add(1).wrapping_sub(vp8.tl0),
                    },
                }
            }
        };
        self.shift = Some(shift);
    }

    /// Whether a number that was sent, of which its 16 lower bits are given, is from before the last switch.
    #[must_use]
    pub fn is_past(&self, sent: u16) -> bool {
        let (Some(shift), Some(newest)) = (self.shift, self.newest) else { return false };
        let newest = newest.numbers.sequence;
        let sent = newest.saturating_sub((newest as u16).wrapping_sub(sent).into());
        sent < shift.from.wrapping_add(shift.sequence)
    }

    /// Nothing is forwarded until the next switch.
    pub fn pause(&mut self) {
        self.shift = None;
    }

    /// The numbers of a packet of the source as it is sent, and its payload changed to them: copied only where it says
    /// others. `None` where it belongs to the time before the switch.
    pub fn forward(
        &mut self,
        now: Micros,
        codec: VideoCodec,
        numbers: Numbers,
        payload: &mut Arc<[u8]>,
    ) -> Option<Numbers> {
        let shift = self.shift.filter(|shift| numbers.sequence >= shift.from)?;
        let sent = Numbers {
            sequence: numbers.sequence.wrapping_add(shift.sequence),
            timestamp: numbers.timestamp.wrapping_add(shift.timestamp),
        };
        let vp8 = if codec == VideoCodec::Vp8 { shift_vp8(payload, shift.vp8) } else { None };
        if self.newest.is_none_or(|newest| sent.sequence > newest.numbers.sequence) {
            let vp8 = vp8.or(self.newest.map(|newest| newest.vp8)).unwrap_or_default();
            self.newest = Some(Newest { at: now, numbers: sent, vp8 });
        }
        Some(sent)
    }
}

fn vp8_numbers(codec: VideoCodec, payload: &[u8]) -> Option<Vp8Numbers> {
    if codec != VideoCodec::Vp8 {
        return None;
    }
    let descriptor = Vp8Descriptor::parse(payload)?;
    Some(read_vp8(&descriptor, payload))
}

fn read_vp8(descriptor: &Vp8Descriptor, payload: &[u8]) -> Vp8Numbers {
    let picture = match descriptor.picture_id {
        Some((at, true)) => u16::from_be_bytes([payload[at], payload[at + 1]]) & PICTURE_ID_MASK,
        Some((at, false)) => u16::from(payload[at] & 0x7f),
        None => 0,
    };
    Vp8Numbers { picture, tl0: descriptor.tl0_index.map_or(0, |at| payload[at]) }
}

/// Adds to VP8's numbers in place: what they are then.
fn shift_vp8(payload: &mut Arc<[u8]>, shift: Vp8Numbers) -> Option<Vp8Numbers> {
    let descriptor = Vp8Descriptor::parse(payload)?;
    let numbers = read_vp8(&descriptor, payload);
    if shift == Vp8Numbers::default() {
        return Some(numbers);
    }
    let payload = Arc::make_mut(payload);
    let shifted = Vp8Numbers {
        picture: numbers.picture.wrapping_add(shift.picture) & PICTURE_ID_MASK,
        tl0: numbers.tl0.wrapping_add(shift.tl0),
    };
    match descriptor.picture_id {
        Some((at, true)) => payload[at..at + 2].copy_from_slice(&(shifted.picture | 0x8000).to_be_bytes()),
        Some((at, false)) => payload[at] = shifted.picture as u8 & 0x7f,
        None => {}
    }
    if let Some(at) = descriptor.tl0_index {
        payload[at] = shifted.tl0;
    }
    Some(shifted)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A VP8 payload with picture number, TL0 index and temporal layer.
    fn vp8(picture: u16, tl0: u8) -> Arc<[u8]> {
        let [p0, p1] = (picture | 0x8000).to_be_bytes();
        [0x90, 0xe0, p0, p1, tl0, 0x20, 0x00, 7].into()
    }

    fn none() -> Arc<[u8]> {
        [].into()
    }

    fn numbers(sequence: u64, timestamp: u32) -> Numbers {
        Numbers { sequence, timestamp }
    }

    fn ms(ms: u64) -> Micros {
        Micros::from_millis(ms)
    }

    #[test]
    fn the_first_source_is_numbered_from_the_beginning_and_nothing_passes_before_it() {
        let mut rewriter = Rewriter::default();
        assert_eq!(rewriter.forward(ms(0), VideoCodec::Vp9, numbers(5, 1), &mut none()), None);
        rewriter.switch(ms(0), VideoCodec::Vp9, numbers(7, 90), &[]);
        assert_eq!(rewriter.forward(ms(0), VideoCodec::Vp9, numbers(6, 0), &mut none()), None, "before the picture");
        assert_eq!(rewriter.forward(ms(0), VideoCodec::Vp9, numbers(7, 90), &mut none()), Some(numbers(1, 90)));
    }

    #[test]
    fn another_layer_follows_without_a_gap_and_its_own_gaps_stay() {
        let mut rewriter = Rewriter::default();
        rewriter.switch(ms(0), VideoCodec::Vp8, numbers(100, 9_000), &vp8(40, 3));
        for step in 0..3_u32 {
            let mut payload = vp8(40 + step as u16, 3);
            rewriter.forward(
                ms(u64::from(step) * 33),
                VideoCodec::Vp8,
                numbers(100 + u64::from(step), 9_000 + step * 2_970),
                &mut payload,
            );
        }
        let mut payload = vp8(0x7fff, 250);
        rewriter.switch(ms(100), VideoCodec::Vp8, numbers(65_000, 5), &payload);
        let sent = rewriter.forward(ms(100), VideoCodec::Vp8, numbers(65_000, 5), &mut payload);
        // 66 ms of it were sent, and 34 ms have passed since.
        assert_eq!(sent, Some(numbers(4, 9_000 + 2 * 2_970 + 34 * 90)));
        assert_eq!(payload, vp8(43, 4));
        let mut payload = vp8(1, 251);
        let sent = rewriter.forward(ms(166), VideoCodec::Vp8, numbers(65_003, 5_945), &mut payload);
        assert_eq!(sent.map(|sent| sent.sequence), Some(7), "two packets were lost before the server");
        assert_eq!(payload, vp8(45, 5), "and one picture: its numbers wrap, ours do not");
        let mut late = vp8(0, 250);
        let sent = rewriter.forward(ms(170), VideoCodec::Vp8, numbers(65_002, 2_975), &mut late);
        assert_eq!((sent.map(|sent| sent.sequence), late), (Some(6), vp8(44, 4)), "sent again by the publisher");
    }

    #[test]
    fn after_a_pause_time_has_passed_but_no_packets() {
        let mut rewriter = Rewriter::default();
        rewriter.switch(ms(0), VideoCodec::H264, numbers(1, 0), &[]);
        rewriter.forward(ms(0), VideoCodec::H264, numbers(1, 0), &mut none());
        rewriter.pause();
        assert_eq!(rewriter.forward(ms(1), VideoCodec::H264, numbers(2, 0), &mut none()), None);
        rewriter.switch(ms(1_000), VideoCodec::H264, numbers(900, 77), &[]);
        let sent = rewriter.forward(ms(1_000), VideoCodec::H264, numbers(900, 77), &mut none());
        assert_eq!(sent, Some(numbers(2, 90_000)));
    }

    #[test]
    fn short_picture_numbers_stay_short() {
        let mut payload: Arc<[u8]> = [0x90, 0x80, 0x7f, 0x00].into();
        shift_vp8(&mut payload, Vp8Numbers { picture: 2, tl0: 9 });
        assert_eq!(*payload, [0x90, 0x80, 0x01, 0x00]);
        let mut cut_off: Arc<[u8]> = [0x90, 0xe0, 0x81].into();
        assert_eq!(shift_vp8(&mut cut_off, Vp8Numbers::default()), None);
    }
}
