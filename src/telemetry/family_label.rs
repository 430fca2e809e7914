//! Labels whose values are the labels of one family of a state machine's counters.

/// Declares a [`Label`](super::family::Label) whose values are the labels of one family of the counters that are in scope
/// as `Counter` and `Family`.
macro_rules! family_label {
    ($(#[$doc:meta])* $name:ident = $key:literal of $family:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(Counter);

        impl $name {
            const COUNT: usize = {
                let (mut count, mut index) = (0, 0);
                while index < Counter::ALL.len() {
                    count += Self::has(index) as usize;
                    index += 1;
                }
                count
            };
            const VALUES: [Self; Self::COUNT] = {
                let mut values = [Self(Counter::ALL[0]); Self::COUNT];
                let (mut found, mut index) = (0, 0);
                while index < Counter::ALL.len() {
                    if Self::has(index) {
                        values[found] = Self(Counter::ALL[index]);
                        found += 1;
                    }
                    index += 1;
                }
                values
            };

            const fn has(index: usize) -> bool {
                Counter::ALL[index].family() as usize == Family::$family as usize
            }
        }

        impl Label for $name {
            const KEY: &'static str = $key;
            const ALL: &'static [Self] = &Self::VALUES;
            fn text(self) -> &'static str {
                self.0.label()
            }
            fn index(self) -> usize {
                Self::ALL.iter().position(|other| *other == self).unwrap_or(0)
            }
        }
    };
}

pub(super) use family_label;
