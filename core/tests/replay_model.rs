//! The replay window against the simplest thing that could be right: a set of all counters ever seen.

use std::collections::HashSet;

use antiphon_core::replay::ReplayWindow;
use proptest::{collection::vec, prelude::*};

/// Remembers everything; forgets nothing, but knows what is too old.
#[derive(Default)]
struct Model {
    seen: HashSet<u64>,
    newest: Option<u64>,
}

impl Model {
    fn would_accept(&self, counter: u64, window: u64) -> bool {
        let too_old = self.newest.is_some_and(|newest| counter < newest && newest - counter >= window);
        !too_old && !self.seen.contains(&counter)
    }

    fn accept(&mut self, counter: u64) -> bool {
        let newest = self.newest.is_none_or(|newest| counter > newest);
        self.seen.insert(counter);
        self.newest = self.newest.max(Some(counter));
        newest
    }
}

/// How the next counter relates to the newest one.
#[derive(Clone, Copy, Debug)]
enum Step {
    Ahead(u64),
    Behind(u64),
    Anywhere(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1..4_u64).prop_map(Step::Ahead),
        2 => (1..3_000_u64).prop_map(Step::Ahead),
        8 => (0..1_200_u64).prop_map(Step::Behind),
        // Where words and the window end.
        4 => prop::sample::select(vec![63_u64, 64, 65, 127, 128, 511, 512, 1_023, 1_024, 1_087, 1_088])
            .prop_flat_map(|edge| prop_oneof![Just(Step::Ahead(edge)), Just(Step::Behind(edge))]),
        1 => any::<u64>().prop_map(Step::Anywhere),
        1 => (0..200_u64).prop_map(|below| Step::Anywhere(u64::MAX - below)),
    ]
}

fn agrees<const WORDS: usize>(first: u64, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut window: ReplayWindow<WORDS> = ReplayWindow::new();
    let mut model = Model::default();
    let mut newest = first;
    let mut counters = vec![first];
    for step in steps {
        let counter = match *step {
            Step::Ahead(by) => newest.saturating_add(by),
            Step::Behind(by) => newest.saturating_sub(by),
            Step::Anywhere(counter) => counter,
        };
        newest = newest.max(counter);
        counters.push(counter);
    }
    for counter in counters {
        let expected = model.would_accept(counter, ReplayWindow::<WORDS>::COUNTERS);
        prop_assert_eq!(window.check(counter), expected, "{}", counter);
        if expected {
            prop_assert_eq!(window.accept(counter).newest, model.accept(counter), "{}", counter);
            prop_assert!(!window.check(counter), "{} is accepted once", counter);
        } else {
            // What the window would not have let pass changes nothing.
            window.accept(counter);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn the_window_is_the_model(first in prop_oneof![0..100_u64, any::<u64>()], steps in vec(step(), 0..400)) {
        agrees::<2>(first, &steps)?;
        agrees::<9>(first, &steps)?;
        agrees::<17>(first, &steps)?;
    }
}
