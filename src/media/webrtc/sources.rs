//! The sources (SSRC) of a publisher: those that its offers name, and those that it sends.
//!
//! Each new one costs the library a stream that it keeps, before it knows whether the packet is authentic, and a number that it never
//! forgets. So there is a bound to how many may be new at once, more than any client has, and to how soon others may follow; a client
//! that begins something anew takes new ones.

use std::collections::BTreeSet;

use antiphon_core::clock::Micros;

/// Sources of a client that may be new at once.
pub(super) const NEW_MAX: usize = 64;
/// Sources of a client that are known at a time: so many that no new ones drive out one that it sends.
const KNOWN_MAX: usize = 2 * NEW_MAX;
/// After so long one more may be new.
const ONE_MORE_EVERY: Micros = Micros::from_secs(1);

/// The sources of a client.
#[derive(Default)]
pub(super) struct Sources {
    /// Those that were heard last at the end.
    known: Vec<u32>,
    /// By then as many may be new as ever.
    used_until: Micros,
}

impl Sources {
    /// Notes a packet's source: the one that gives way to it, if there are many; `None` where it is one too many.
    pub(super) fn heard(&mut self, now: Micros, source: u32) -> Option<Option<u32>> {
        if let Some(place) = self.known.iter().rposition(|known| *known == source) {
            self.known[place..].rotate_left(1);
            return Some(None);
        }
        (self.room(now) > 0).then(|| self.add(now, source))
    }

    /// Notes all sources of an offer: those that give way to them; `None` where there are too many that are new.
    pub(super) fn named(&mut self, now: Micros, sources: &BTreeSet<u32>) -> Option<Vec<u32>> {
        let new: Vec<u32> = sources.iter().copied().filter(|source| !self.known.contains(source)).collect();
        (new.len() <= self.room(now)).then(|| new.iter().filter_map(|source| self.add(now, *source)).collect())
    }

    /// How many may be new now.
    fn room(&self, now: Micros) -> usize {
        let used = self.used_until.0.saturating_sub(now.0).div_ceil(ONE_MORE_EVERY.0);
        NEW_MAX.saturating_sub(usize::try_from(used).unwrap_or(usize::MAX))
    }

    fn add(&mut self, now: Micros, source: u32) -> Option<u32> {
        self.used_until = self.used_until.max(now) + ONE_MORE_EVERY;
        self.known.push(source);
        (self.known.len() > KNOWN_MAX).then(|| self.known.remove(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Micros = Micros::from_secs(1_000);

    #[test]
    fn many_may_be_new_at_once_and_then_one_a_second() {
        let mut sources = Sources::default();
        let mut new = (0..1_000).filter(|source| sources.heard(NOW, *source).is_some()).count();
        assert_eq!(new, NEW_MAX);
        assert_eq!(sources.heard(NOW, 0), Some(None), "it is known");
        for tenth in 1..=100 {
            let now = NOW + Micros::from_millis(100 * tenth);
            new += usize::from(sources.heard(now, 10_000 + tenth as u32).is_some());
        }
        assert_eq!(new, NEW_MAX + 10);
    }

    #[test]
    fn an_offer_names_as_many_as_may_be_new_or_none_is_taken() {
        let mut sources = Sources::default();
        let half = NEW_MAX as u32 / 2;
        assert_eq!(sources.named(NOW, &(0..half).collect()), Some(Vec::new()));
        assert_eq!(sources.named(NOW, &(0..3 * half).collect()), None);
        assert_eq!(sources.named(NOW, &(0..2 * half).collect()), Some(Vec::new()), "half of them are known");
        assert_eq!(sources.named(NOW, &[5_000].into()), None);
        assert_eq!(sources.named(NOW + ONE_MORE_EVERY, &[5_000].into()), Some(Vec::new()));
    }

    #[test]
    fn the_one_that_was_not_heard_for_longest_gives_way() {
        let mut sources = Sources::default();
        let mut now = NOW;
        for source in 0..KNOWN_MAX as u32 {
            now = now + ONE_MORE_EVERY;
            assert_eq!(sources.heard(now, source), Some(None));
        }
        assert_eq!(sources.heard(now, 0), Some(None), "it goes on");
        assert_eq!(sources.heard(now, 5_000), Some(Some(1)));
        assert_eq!(sources.named(now, &[5_001, 5_002].into()), Some(vec![2, 3]));
        assert_eq!(sources.known.len(), KNOWN_MAX);
    }
}
