//! The mixer's numbers as metrics, as `media` has the engines'.

use antiphon_core::mix::{MixCounter as Counter, MixFamily as Family, MixStats, Shed};

use super::{
    family::Label,
    family_label::family_label,
    metrics::{MixerMetrics, ShedLevel},
};

family_label!(
    /// Why a speaker's frame did not get into a mix.
    MixFrameDrop = "reason" of FramesDropped
);
family_label!(
    /// What became of a speaker's packet in its time.
    MixPacket = "how" of Packets
);
family_label!(
    /// For whom a packet of a mix was encoded.
    MixScope = "for" of Encodes
);

/// Which metric shows a counter.
fn shown(mixer: &MixerMetrics, counter: Counter) -> &metrics::Counter {
    match counter.family() {
        Family::FramesDropped => mixer.frames_dropped.of(MixFrameDrop(counter)),
        Family::Packets => mixer.packets.of(MixPacket(counter)),
        Family::Encodes => mixer.encodes.of(MixScope(counter)),
        Family::Mixed => &mixer.frames,
        Family::Failed => &mixer.codec_failures,
    }
}

impl MixerMetrics {
    /// Adds what a thread has counted since it had counted `before`.
    pub fn add(&self, now: &MixStats, before: &MixStats) {
        for counter in Counter::ALL {
            let more = now[*counter] - before[*counter];
            if more > 0 {
                shown(self, *counter).increment(more);
            }
        }
    }
}

impl From<Shed> for ShedLevel {
    fn from(shed: Shed) -> Self {
        match shed {
            Shed::Nothing => Self::Nothing,
            Shed::Half => Self::Half,
            Shed::Least => Self::Least,
            Shed::Refusing => Self::Refusing,
        }
    }
}
