//! Which layer of each video a subscriber gets: as good as what it asks for and its way carries, shared out fairly.
//!
//! Every video gets its lowest layer before any gets a better one. What does not even have room at its lowest is paused.
//! A layer that runs is kept while it fits; a better one is entered only where there is room to spare, so that an estimate
//! that wavers does not make the picture flicker.

/// Layers of one video: browsers make three at most.
pub const LAYERS_MAX: usize = 3;
/// A better layer must fit so many times over in hundredths: the estimate wavers by about a tenth.
const ROOM_TO_RISE_PERCENT: u64 = 115;

/// A video that a subscriber wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Track {
    /// What each layer carries now, in bits per second, the lowest first; 0 for one that is not sent.
    pub layers_bps: [u64; LAYERS_MAX],
    /// The best layer that is asked for; `None` for no picture at all.
    pub wanted: Option<usize>,
    /// The layer that is forwarded now.
    pub current: Option<usize>,
    /// The layer to forward; [`allocate`] sets it.
    pub target: Option<usize>,
}

impl Track {
    fn lowest(&self) -> Option<usize> {
        (0..LAYERS_MAX)
            .find(|layer| self.layers_bps[*layer] > 0)
            .filter(|lowest| self.wanted.is_some_and(|w| w >= *lowest))
    }

    /// The next better one than `layer` among those asked for.
    fn better(&self, layer: usize) -> Option<usize> {
        let best = self.wanted?.min(LAYERS_MAX - 1);
        (layer + 1..=best).find(|layer| self.layers_bps[*layer] > 0)
    }

    /// What entering or keeping a layer must have room for.
    fn needs(&self, layer: usize) -> u64 {
        let bps = self.layers_bps[layer];
        if self.current.is_some_and(|current| current >= layer) { bps } else { bps * ROOM_TO_RISE_PERCENT / 100 }
    }
}

/// Shares out `budget_bps` over the videos, each of which gets its target.
pub fn allocate(budget_bps: u64, tracks: &mut [Track]) {
    let mut left = budget_bps;
    for track in tracks.iter_mut() {
        track.target = track.lowest().filter(|lowest| track.needs(*lowest) <= left);
        left -= track.target.map_or(0, |layer| track.layers_bps[layer].min(left));
    }
    for _ in 1..LAYERS_MAX {
        for track in tracks.iter_mut() {
            let Some((layer, better)) = track.target.and_then(|layer| Some((layer, track.better(layer)?))) else {
                continue;
            };
            let (has, needs) = (track.layers_bps[layer], track.needs(better));
            if needs <= left + has {
                left = (left + has).saturating_sub(track.layers_bps[better]);
                track.target = Some(better);
            }
        }
    }
}

/// What all of it would take at its best: what the way is probed for.
#[must_use]
pub fn desired_bps(tracks: &[Track]) -> u64 {
    let best = |track: &Track| {
        let mut layer = track.lowest()?;
        while let Some(better) = track.better(layer) {
            layer = better;
        }
        Some(track.layers_bps[layer] * ROOM_TO_RISE_PERCENT / 100)
    };
    tracks.iter().filter_map(best).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIMULCAST: [u64; LAYERS_MAX] = [150_000, 500_000, 1_500_000];

    fn track(current: Option<usize>) -> Track {
        Track { layers_bps: SIMULCAST, wanted: Some(2), current, target: None }
    }

    fn targets(budget_bps: u64, mut tracks: Vec<Track>) -> Vec<Option<usize>> {
        allocate(budget_bps, &mut tracks);
        tracks.iter().map(|track| track.target).collect()
    }

    #[test]
    fn one_video_gets_the_best_layer_that_fits_and_none_below_the_lowest() {
        for (budget, current, target) in [
            (100_000, Some(0), None),
            (150_000, Some(0), Some(0)),
            (160_000, None, None),
            (180_000, None, Some(0)),
            (500_000, Some(0), Some(0)),
            (500_000, Some(1), Some(1)),
            (580_000, Some(0), Some(1)),
            (1_500_000, Some(2), Some(2)),
            (1_600_000, Some(1), Some(1)),
            (1_800_000, Some(0), Some(2)),
        ] {
            assert_eq!(targets(budget, vec![track(current)]), [target], "{budget} from {current:?}");
        }
    }

    #[test]
    fn every_video_gets_its_lowest_before_any_gets_a_better_one() {
        assert_eq!(targets(600_000, vec![track(None); 3]), [Some(0); 3]);
        assert_eq!(targets(400_000, vec![track(None); 3]), [Some(0), Some(0), None]);
        assert_eq!(targets(1_000_000, vec![track(None); 3]), [Some(1), Some(0), Some(0)]);
        assert_eq!(targets(9_000_000, vec![track(None); 3]), [Some(2); 3]);
    }

    #[test]
    fn what_is_asked_for_bounds_what_is_sent() {
        let asking = |wanted| Track { wanted, ..track(None) };
        assert_eq!(targets(9_000_000, vec![asking(Some(1)), asking(None), asking(Some(9))]), [Some(1), None, Some(2)]);
        assert_eq!(desired_bps(&[asking(Some(0)), asking(None)]), 172_500);
    }

    #[test]
    fn layers_that_are_not_sent_are_passed_over() {
        let gap = Track { layers_bps: [150_000, 0, 1_500_000], ..track(Some(0)) };
        assert_eq!(targets(1_000_000, vec![gap]), [Some(0)]);
        assert_eq!(targets(2_000_000, vec![gap]), [Some(2)]);
        let screen = Track { layers_bps: [0, 0, 800_000], ..track(None) };
        assert_eq!(targets(1_000_000, vec![screen]), [Some(2)]);
        assert_eq!(targets(9_000_000, vec![Track { layers_bps: [0; LAYERS_MAX], ..screen }]), [None]);
    }

    #[test]
    fn an_estimate_that_wavers_changes_nothing() {
        let mut current = Some(1);
        for budget in [560_000, 510_000, 570_000, 500_000, 574_999] {
            current = targets(budget, vec![track(current)])[0];
            assert_eq!(current, Some(1), "{budget}");
        }
        assert_eq!(targets(499_999, vec![track(current)]), [Some(0)]);
        assert_eq!(targets(574_999, vec![track(Some(0))]), [Some(0)]);
    }
}
