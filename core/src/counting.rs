//! Numbers that a state machine counts: an enum of counters and an array of their values, declared together.

/// Declares an enum of counters, each with a family and, where the family has several, a label, and the array of their
/// numbers. Counters of one family are told apart by the label.
macro_rules! counters {
    (
        $(#[$stats_doc:meta])*
        stats $stats:ident;
        $(#[$counter_doc:meta])*
        counters $counter:ident of $families:ident;
        $($(#[$doc:meta])* $name:ident: $family:ident $(, $label:literal)?;)+
    ) => {
        $(#[$counter_doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $counter {
            $($(#[$doc])* $name,)+
        }

        impl $counter {
            /// Every counter, in the order of the numbers.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// What it counts.
            #[must_use]
            pub const fn family(self) -> $families {
                match self {
                    $(Self::$name => $families::$family,)+
                }
            }

            /// What tells it from others of its family; empty where it is alone.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($label)?),)+
                }
            }
        }

        $(#[$stats_doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $stats {
            numbers: [u64; Self::COUNT],
        }

        impl Default for $stats {
            fn default() -> Self {
                Self { numbers: [0; Self::COUNT] }
            }
        }

        impl $stats {
            /// How many numbers there are.
            pub const COUNT: usize = $counter::ALL.len();

            /// The numbers in the order of the counters.
            #[must_use]
            pub const fn numbers(&self) -> &[u64; Self::COUNT] {
                &self.numbers
            }

            /// From numbers in the order of the counters.
            #[must_use]
            pub const fn from_numbers(numbers: [u64; Self::COUNT]) -> Self {
                Self { numbers }
            }

            /// The sum of a family's counters.
            #[must_use]
            pub fn total(&self, family: $families) -> u64 {
                $counter::ALL.iter().filter(|counter| counter.family() == family).map(|counter| self[*counter]).sum()
            }

            pub(super) fn count(&mut self, counter: $counter) {
                self.add(counter, 1);
            }

            pub(super) fn add(&mut self, counter: $counter, count: u64) {
                self.numbers[counter as usize] += count;
            }

            #[allow(dead_code, reason = "where there are no gauges nothing goes down")]
            pub(super) fn down(&mut self, gauge: $counter) {
                let number = &mut self.numbers[gauge as usize];
                *number = number.saturating_sub(1);
            }
        }

        impl std::ops::Index<$counter> for $stats {
            type Output = u64;
            fn index(&self, counter: $counter) -> &u64 {
                &self.numbers[counter as usize]
            }
        }

        impl std::ops::AddAssign for $stats {
            fn add_assign(&mut self, other: Self) {
                for (number, more) in self.numbers.iter_mut().zip(other.numbers) {
                    *number += more;
                }
            }
        }

        #[cfg(test)]
        mod declaration {
            use super::*;
            use std::collections::HashSet;

            #[test]
            fn every_counter_has_its_number_and_a_name_of_its_own() {
                let names: HashSet<_> = $counter::ALL.iter().map(|counter| (counter.family(), counter.label())).collect();
                assert_eq!(names.len(), $stats::COUNT);
                for (index, counter) in $counter::ALL.iter().enumerate() {
                    assert_eq!(*counter as usize, index);
                }
            }

            #[test]
            fn a_family_of_several_labels_all_of_them() {
                for counter in $counter::ALL {
                    let siblings = $counter::ALL.iter().filter(|other| other.family() == counter.family()).count();
                    assert_eq!(counter.label().is_empty(), siblings == 1, "{counter:?}");
                }
            }
        }
    };
}

pub(crate) use counters;
