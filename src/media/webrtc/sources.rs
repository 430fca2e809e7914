//! The sources (SSRC) of a publisher: those that its offers name, and those that it sends.
//!
//! Each new one costs the library a stream that it keeps, before it knows whether the packet is authentic, and a number that it never
//! forgets. A client that begins something anew takes new ones.

use std::collections::BTreeSet;

use antiphon_core::clock::Micros;

use super::recent::Recent;

/// After so long one more may be new.
const ONE_MORE_EVERY: Micros = Micros::from_secs(1);

/// The sources of a client.
pub(super) struct Sources(Recent<u32>);

impl Default for Sources {
    fn default() -> Self {
        Self(Recent::new(ONE_MORE_EVERY))
    }
}

impl Sources {
    /// Notes a packet's source: the one that gives way to it, if there are many; `None` where it is one too many.
    pub(super) fn heard(&mut self, now: Micros, source: u32) -> Option<Option<u32>> {
        if self.0.hears(|known| *known == source) {
            return Some(None);
        }
        (self.0.room(now) > 0).then(|| self.0.add(now, source))
    }

    /// Notes all sources of an offer: those that give way to them; `None` where there are too many that are new.
    pub(super) fn named(&mut self, now: Micros, sources: &BTreeSet<u32>) -> Option<Vec<u32>> {
        let new: Vec<u32> = sources.iter().copied().filter(|source| !self.0.hears(|known| known == source)).collect();
        (new.len() <= self.0.room(now)).then(|| new.iter().filter_map(|source| self.0.add(now, *source)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::recent::NEW_MAX, *};

    const NOW: Micros = Micros::from_secs(1_000);

    #[test]
    fn an_offer_names_as_many_as_may_be_new_or_none_is_taken() {
        let mut sources = Sources::default();
        let half = NEW_MAX as u32 / 2;
        assert_eq!(sources.named(NOW, &(0..half).collect()), Some(Vec::new()));
        assert_eq!(sources.named(NOW, &(0..3 * half).collect()), None);
        assert_eq!(sources.named(NOW, &(0..2 * half).collect()), Some(Vec::new()), "half of them are known");
        assert_eq!((sources.heard(NOW, 0), sources.heard(NOW, 5_000)), (Some(None), None));
        assert_eq!(sources.named(NOW, &[5_000].into()), None);
        assert_eq!(sources.named(NOW + ONE_MORE_EVERY, &[5_000].into()), Some(Vec::new()));
    }

    #[test]
    fn those_that_an_offer_names_or_that_are_sent_do_not_give_way() {
        let mut sources = Sources::default();
        let mut now = NOW;
        for source in 0..2 * NEW_MAX as u32 {
            now = now + ONE_MORE_EVERY;
            assert_eq!(sources.heard(now, source), Some(None));
        }
        assert_eq!((sources.heard(now, 0), sources.named(now, &[1].into())), (Some(None), Some(Vec::new())));
        assert_eq!(sources.heard(now, 5_000), Some(Some(2)));
        assert_eq!(sources.named(now, &[5_001, 5_002].into()), Some(vec![3, 4]));
    }
}
