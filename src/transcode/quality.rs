//! The qualities that files are offered in.

/// What a file is made into, besides what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Quality {
    /// For a slow way: speech is fine, music passable.
    Low,
    /// For a phone: music is fine.
    Medium,
    /// Hardly to be told from the original.
    High,
}

impl Quality {
    /// All of them, the smallest first.
    pub const ALL: [Self; 3] = [Self::Low, Self::Medium, Self::High];

    /// As links and settings have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }

    /// The quality of a name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|quality| quality.name() == name)
    }

    /// Bits per second, on average, for one or two channels: where listening tests of Opus (the codec's own
    /// recommendations, <https://wiki.xiph.org/Opus_Recommended_Settings>) put speech, good and transparent music.
    #[must_use]
    pub fn bits_per_second(self, channels: u16) -> i32 {
        let (mono, stereo) = match self {
            Self::Low => (24_000, 32_000),
            Self::Medium => (40_000, 64_000),
            Self::High => (72_000, 128_000),
        };
        if channels == 1 { mono } else { stereo }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_and_better_costs_more() {
        for quality in Quality::ALL {
            assert_eq!(Quality::of(quality.name()), Some(quality));
        }
        assert_eq!(Quality::of("original"), None);
        assert!(Quality::ALL.is_sorted_by_key(|quality| quality.bits_per_second(2)));
        assert!(Quality::ALL.iter().all(|quality| quality.bits_per_second(1) < quality.bits_per_second(2)));
    }
}
