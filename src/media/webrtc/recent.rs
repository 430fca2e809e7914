//! What a client has of something that it may take ever new ones of, and each new one costs: its addresses, its sources.
//!
//! So many may be new at once, more than any client has, and then one now and then. Of those that are known, more than may be new, the one
//! that was not heard for longest gives way, so that no new ones drive out one that goes on.

use antiphon_core::clock::Micros;

/// So many may be new at once.
pub const NEW_MAX: usize = 64;
/// So many are known at a time.
pub(super) const KNOWN_MAX: usize = 2 * NEW_MAX;

/// Those that are known.
pub(super) struct Recent<T> {
    /// Those that were heard last at the end.
    known: Vec<T>,
    /// After so long one more may be new.
    one_more_every: Micros,
    /// By then as many may be new as ever.
    used_until: Micros,
}

impl<T> Recent<T> {
    pub(super) const fn new(one_more_every: Micros) -> Self {
        Self { known: Vec::new(), one_more_every, used_until: Micros::ZERO }
    }

    /// Whether it is known; then it is the one that was heard last.
    pub(super) fn hears(&mut self, is_it: impl FnMut(&T) -> bool) -> bool {
        let place = self.known.iter().rposition(is_it);
        if let Some(place) = place {
            self.known[place..].rotate_left(1);
        }
        place.is_some()
    }

    /// How many may be new now.
    pub(super) fn room(&self, now: Micros) -> usize {
        let used = self.used_until.since(now).0.div_ceil(self.one_more_every.0);
        NEW_MAX.saturating_sub(usize::try_from(used).unwrap_or(usize::MAX))
    }

    /// Adds one that is new: the one that gives way to it, if there are many.
    pub(super) fn add(&mut self, now: Micros, new: T) -> Option<T> {
        self.used_until = self.used_until.max(now) + self.one_more_every;
        self.known.push(new);
        (self.known.len() > KNOWN_MAX).then(|| self.known.remove(0))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.known.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.known.iter_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Micros = Micros::from_secs(1_000);
    const EVERY: Micros = Micros::from_secs(10);

    /// In which as many are known as may be new.
    fn full() -> Recent<usize> {
        let mut recent = Recent::new(EVERY);
        (0..NEW_MAX).for_each(|new| assert!(recent.room(NOW) > 0 && recent.add(NOW, new).is_none()));
        recent
    }

    #[test]
    fn many_may_be_new_at_once_and_then_one_now_and_then() {
        let mut recent = full();
        assert_eq!(recent.room(NOW), 0);
        let mut new = 0;
        for second in 0..1_000 {
            let now = NOW + Micros::from_secs(second);
            while recent.room(now) > 0 {
                recent.add(now, 1_000 + new);
                new += 1;
            }
        }
        assert_eq!(new, 99);
        assert_eq!(recent.room(NOW + Micros::from_secs(10_000)), NEW_MAX, "no more than that is saved up");
    }

    #[test]
    fn the_one_that_was_not_heard_for_longest_gives_way() {
        let mut recent = full();
        (NEW_MAX..KNOWN_MAX).for_each(|new| assert_eq!(recent.add(NOW, new), None));
        assert!(recent.hears(|known| *known == 0) && !recent.hears(|known| *known == 5_000));
        assert_eq!(recent.add(NOW, 5_000), Some(1));
        assert_eq!(recent.iter().count(), KNOWN_MAX);
    }
}
