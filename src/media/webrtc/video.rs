//! The pictures that somebody publishes in a channel: their coding, their layers, and who asked for a whole one.

use antiphon_core::{
    clock::Micros,
    video::{KeyframeRequests, LAYERS_MAX, VideoCodec},
};
use str0m::rtp::Ssrc;

use super::{PeerRoom, elsewhere::Seen, subscribing::SourceKey};

/// How often rates are measured.
pub(super) const MEASURE_INTERVAL: Micros = Micros::from_millis(500);
/// How many measures a rate is averaged over, roughly: long enough for the pace of key frames.
const SMOOTHING: u64 = 4;
/// A layer from which nothing came for so many measures is not sent.
const SILENT_MEASURES: u32 = 3;
/// One layer is better than another when it carries so much more, in percent: rates waver.
const BETTER_PERCENT: u64 = 130;

/// Bits per second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rate {
    bytes: u64,
    bps: u64,
    silent: u32,
}

impl Rate {
    pub(super) fn add(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// Half a second is over.
    pub(super) fn measure(&mut self) {
        let now_bps = std::mem::take(&mut self.bytes) * 8 * 1_000_000 / MEASURE_INTERVAL.0;
        self.silent = if now_bps == 0 { self.silent + 1 } else { 0 };
        self.bps = match self.bps {
            _ if self.silent >= SILENT_MEASURES => 0,
            0 => now_bps,
            bps => (bps * (SMOOTHING - 1) + now_bps) / SMOOTHING,
        };
    }

    pub(super) fn bps(self) -> u64 {
        self.bps
    }
}

/// One layer, by the place at which it was first heard of.
#[derive(Debug, Default)]
pub(super) struct Layer {
    pub(super) rate: Rate,
    pub(super) requests: KeyframeRequests,
    /// Of a publisher here.
    pub(super) ssrc: Option<Ssrc>,
    /// How its newest packet was coded; `None` before the first.
    codec: Option<VideoCodec>,
    /// Of a publisher on another node: which packets came.
    pub(super) seen: Seen,
}

impl Layer {
    /// Takes note of what a packet is of: a source, where its publisher is here, and a coding. True where that is another stream than
    /// before.
    pub(super) fn begins_anew(&mut self, ssrc: Option<Ssrc>, codec: VideoCodec) -> bool {
        let before = (std::mem::replace(&mut self.ssrc, ssrc), self.codec.replace(codec));
        before.1.is_some() && before != (ssrc, Some(codec))
    }
}

/// How much of a picture begins anew with a packet: to what went on until then it has no relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begins {
    Nothing,
    Layer,
    All,
}

/// Where a picture comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A peer of this worker.
    Here(u32),
    /// Another node, which was heard then.
    There(Micros),
}

impl Origin {
    fn is_that_of(self, other: Self) -> bool {
        match (self, other) {
            (Self::Here(one), Self::Here(other)) => one == other,
            (Self::There(_), Self::There(_)) => true,
            (Self::Here(_), Self::There(_)) | (Self::There(_), Self::Here(_)) => false,
        }
    }
}

/// A picture.
#[derive(Debug)]
pub(super) struct Video {
    pub(super) origin: Origin,
    pub(super) layers: [Layer; LAYERS_MAX],
    /// The layers from the lowest to the best.
    order: [usize; LAYERS_MAX],
}

impl Video {
    pub(super) fn new(origin: Origin) -> Self {
        Self { origin, layers: Default::default(), order: std::array::from_fn(|index| index) }
    }

    /// Half a second is over: what each layer carries now, and which is better than which.
    pub(super) fn measure(&mut self) {
        self.layers.iter_mut().for_each(|layer| layer.rate.measure());
        let bps = |layer: usize| self.layers[layer].rate.bps();
        for place in 1..LAYERS_MAX {
            let mut at = place;
            while at > 0 {
                let (lower, better) = (bps(self.order[at - 1]), bps(self.order[at]));
                if better == 0 || lower * 100 <= better * BETTER_PERCENT {
                    break;
                }
                self.order.swap(at - 1, at);
                at -= 1;
            }
        }
    }

    /// What the layers carry, from the lowest to the best.
    pub(super) fn rates_bps(&self) -> [u64; LAYERS_MAX] {
        self.order.map(|layer| self.layers[layer].rate.bps())
    }

    /// The layer at a place of the order.
    pub(super) fn layer_at(&self, rank: usize) -> usize {
        self.order[rank]
    }

    /// A layer's place in the order.
    pub(super) fn rank_of(&self, layer: usize) -> usize {
        self.order.iter().position(|other| *other == layer).unwrap_or(0)
    }
}

impl PeerRoom {
    /// The picture that a packet is of, and whether it is new: it was not there, or came from elsewhere.
    pub(super) fn video_from(&mut self, origin: Origin, source: SourceKey) -> (&mut Video, bool) {
        let mut is_new = false;
        let video = self.videos.entry(source).or_insert_with(|| {
            is_new = true;
            Video::new(origin)
        });
        if !video.origin.is_that_of(origin) {
            is_new = true;
            *video = Video::new(origin);
        }
        video.origin = origin;
        (video, is_new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(video: &mut Video, bytes: [usize; LAYERS_MAX]) {
        for (layer, bytes) in video.layers.iter_mut().zip(bytes) {
            layer.rate.add(bytes);
        }
        video.measure();
    }

    #[test]
    fn layers_are_ordered_by_what_they_carry_whatever_they_are_called() {
        let mut video = Video::new(Origin::Here(1));
        measured(&mut video, [90_000, 9_000, 30_000]);
        assert_eq!(video.rates_bps(), [144_000, 480_000, 1_440_000]);
        assert_eq!([0, 1, 2].map(|rank| video.layer_at(rank)), [1, 2, 0]);
        assert_eq!([0, 1, 2].map(|layer| video.rank_of(layer)), [2, 0, 1]);
        for _ in 0..SILENT_MEASURES {
            measured(&mut video, [0, 9_000, 33_000]);
        }
        assert_eq!(video.layer_at(2), 0, "one that is not sent keeps its place");
        assert_eq!(video.rates_bps()[2], 0);
    }

    #[test]
    fn rates_that_waver_change_no_order() {
        let mut video = Video::new(Origin::Here(1));
        for bytes in [[30_000, 36_000, 0], [36_000, 30_000, 0], [30_000, 36_000, 0]] {
            measured(&mut video, bytes);
            assert_eq!(video.layer_at(0), 0);
        }
    }
}
