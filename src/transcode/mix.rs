//! Any number of channels into one or two.

use symphonia::core::audio::{Channels, Position};

/// What a channel that both ears hear goes to each with: 3 dB less (ITU-R BS.775-3 annex 4).
const HALF_POWER: f32 = std::f32::consts::FRAC_1_SQRT_2;

/// What each channel of a file gives to the left and the right.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Layout {
    gains: std::borrow::Cow<'static, [(f32, f32)]>,
}

impl Layout {
    pub(super) const STEREO: Self = Self { gains: std::borrow::Cow::Borrowed(&[(1.0, 0.0), (0.0, 1.0)]) };

    /// One channel goes to both sides as it is, two to one each. More are mixed as ITU-R BS.775-3 has it, made quieter as a
    /// whole so that nothing clips; the low-frequency channel is left out, as there. Channels without a place take turns.
    pub(super) fn of(channels: &Channels) -> Self {
        let gains: Vec<(f32, f32)> = match (channels, channels.count()) {
            (_, 1) => vec![(1.0, 1.0)],
            (_, 2) => return Self::STEREO,
            (Channels::Positioned(positions), _) => positions.iter().map(side).collect(),
            (_, count) => (0..count).map(|index| if index % 2 == 0 { (1.0, 0.0) } else { (0.0, 1.0) }).collect(),
        };
        let (left, right) = gains.iter().fold((0.0, 0.0), |(left, right), gain| (left + gain.0, right + gain.1));
        let scale = f32::max(left, right).max(1.0);
        Self { gains: gains.into_iter().map(|(left, right)| (left / scale, right / scale)).collect() }
    }

    /// How many channels it is for.
    pub(super) fn len(&self) -> u16 {
        u16::try_from(self.gains.len()).unwrap_or(u16::MAX)
    }
}

/// What the channel at one position gives to each side.
fn side(position: Position) -> (f32, f32) {
    const LEFT: Position = Position::FRONT_LEFT.union(Position::FRONT_LEFT_CENTER);
    const RIGHT: Position = Position::FRONT_RIGHT.union(Position::FRONT_RIGHT_CENTER);
    const LEFT_BEHIND: Position = Position::SIDE_LEFT.union(Position::REAR_LEFT);
    const RIGHT_BEHIND: Position = Position::SIDE_RIGHT.union(Position::REAR_RIGHT);
    const LOW: Position = Position::LFE1.union(Position::LFE2);
    if LEFT.contains(position) {
        (1.0, 0.0)
    } else if RIGHT.contains(position) {
        (0.0, 1.0)
    } else if LEFT_BEHIND.contains(position) {
        (HALF_POWER, 0.0)
    } else if RIGHT_BEHIND.contains(position) {
        (0.0, HALF_POWER)
    } else if LOW.contains(position) {
        (0.0, 0.0)
    } else {
        (HALF_POWER, HALF_POWER)
    }
}

/// Mixes to one channel where a file has one, else to two.
pub(super) struct Mixed {
    mono: bool,
}

impl Mixed {
    /// For a file that begins with so many channels.
    pub(super) fn new(channels: u16) -> Self {
        Self { mono: channels == 1 }
    }

    /// 1 or 2.
    pub(super) fn channels(&self) -> u16 {
        if self.mono { 1 } else { 2 }
    }

    /// Appends `raw`, interleaved samples of a `layout` that may change on the way, to `out`. What is no number is
    /// silence, and what is far too loud is cut, so that nothing behind has to fear either.
    pub(super) fn mix(&self, raw: &[f32], layout: &Layout, out: &mut Vec<f32>) {
        out.reserve(raw.len() / layout.gains.len().max(1) * 2);
        for frame in raw.chunks_exact(layout.gains.len().max(1)) {
            let (mut left, mut right) = (0.0, 0.0);
            for (sample, gain) in frame.iter().zip(layout.gains.iter()) {
                left += sample * gain.0;
                right += sample * gain.1;
            }
            if self.mono {
                out.push(sane(if layout.gains.len() == 1 { left } else { (left + right) / 2.0 }));
            } else {
                out.extend([sane(left), sane(right)]);
            }
        }
    }
}

fn sane(sample: f32) -> f32 {
    if sample.is_finite() { sample.clamp(-4.0, 4.0) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use symphonia::core::audio::layouts::CHANNEL_LAYOUT_5P1;

    use super::*;

    fn mixed(channels: &Channels, raw: &[f32]) -> Vec<f32> {
        let layout = Layout::of(channels);
        let mut out = Vec::new();
        Mixed::new(layout.len()).mix(raw, &layout, &mut out);
        out
    }

    #[test]
    fn one_and_two_channels_stay_as_they_are() {
        assert_eq!(mixed(&Channels::Discrete(1), &[0.5, -0.5]), [0.5, -0.5]);
        assert_eq!(mixed(&Channels::Discrete(2), &[0.5, -0.5, 0.1, 0.2]), [0.5, -0.5, 0.1, 0.2]);
    }

    #[test]
    fn more_are_mixed_without_clipping_and_without_the_low_one() {
        // Bits of the mask in order: front left and right, centre, low, rear or side left and right.
        let out = mixed(&CHANNEL_LAYOUT_5P1, &[1.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
        assert!(out.iter().all(|sample| (sample - 1.0).abs() < 1e-6), "{out:?}");
        assert_eq!(mixed(&CHANNEL_LAYOUT_5P1, &[0.0, 0.0, 0.0, 1.0, 0.0, 0.0]), [0.0, 0.0]);
        let left = mixed(&CHANNEL_LAYOUT_5P1, &[1.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        assert!(left[0] > 0.3 && left[1] == 0.0, "{left:?}");
        assert_eq!(mixed(&Channels::Discrete(4), &[0.5, 0.1, 0.5, 0.1]), [0.5, 0.1]);
    }

    #[test]
    fn what_is_no_sample_does_no_harm_and_layouts_may_change() {
        assert_eq!(mixed(&Channels::Discrete(1), &[f32::NAN, f32::INFINITY, 1e30]), [0.0, 0.0, 4.0]);
        let mono = Mixed::new(1);
        let mut out = Vec::new();
        mono.mix(&[1.0, 0.0], &Layout::STEREO, &mut out);
        assert_eq!(out, [0.5]);
        let stereo = Mixed::new(2);
        stereo.mix(&[0.25], &Layout::of(&Channels::Discrete(1)), &mut out);
        assert_eq!(out, [0.5, 0.25, 0.25]);
    }
}
