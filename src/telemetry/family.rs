//! Families of metrics: one handle for each value of their labels, resolved once, so that a call site neither
//! names a string nor looks anything up.

use std::{marker::PhantomData, ops::Deref, sync::LazyLock};

/// A label with a closed set of values. Identifiers of users and channels are no labels: they belong in logs.
pub trait Label: Copy + Eq + 'static {
    /// The label's name.
    const KEY: &'static str;
    /// Every value it can have.
    const ALL: &'static [Self];
    /// The value's text.
    fn text(self) -> &'static str;
    /// The value's place in `ALL`.
    fn index(self) -> usize;
}

/// Declares a [`Label`]: an enum whose values carry their text.
macro_rules! label {
    ($(#[$doc:meta])* $vis:vis $name:ident = $key:literal { $($(#[$value_doc:meta])* $value:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        $vis enum $name {
            $($(#[$value_doc])* #[doc = concat!("`", $text, "`")] $value,)+
        }

        impl $crate::telemetry::family::Label for $name {
            const KEY: &'static str = $key;
            const ALL: &'static [Self] = &[$(Self::$value),+];
            fn text(self) -> &'static str {
                match self {
                    $(Self::$value => $text,)+
                }
            }
            fn index(self) -> usize {
                self as usize
            }
        }
    };
}
pub(crate) use label;

/// No label, one label, or a pair of labels.
pub trait LabelSet: Copy {
    /// The labels' names, each with all its values.
    fn axes() -> Vec<(&'static str, Vec<&'static str>)>;
    /// Where the combination's handle is: the last label varies fastest.
    fn index(self) -> usize;
}

impl LabelSet for () {
    fn axes() -> Vec<(&'static str, Vec<&'static str>)> {
        Vec::new()
    }

    fn index(self) -> usize {
        0
    }
}

impl<A: Label> LabelSet for A {
    fn axes() -> Vec<(&'static str, Vec<&'static str>)> {
        vec![axis::<A>()]
    }

    fn index(self) -> usize {
        Label::index(self)
    }
}

impl<A: Label, B: Label> LabelSet for (A, B) {
    fn axes() -> Vec<(&'static str, Vec<&'static str>)> {
        vec![axis::<A>(), axis::<B>()]
    }

    fn index(self) -> usize {
        self.0.index() * B::ALL.len() + self.1.index()
    }
}

impl<A: Label, B: Label, C: Label> LabelSet for (A, B, C) {
    fn axes() -> Vec<(&'static str, Vec<&'static str>)> {
        vec![axis::<A>(), axis::<B>(), axis::<C>()]
    }

    fn index(self) -> usize {
        (self.0.index() * B::ALL.len() + self.1.index()) * C::ALL.len() + self.2.index()
    }
}

/// The handles of one metric.
pub struct Family<H, L> {
    handles: Box<[H]>,
    labels: PhantomData<fn(L)>,
}

/// A number that only grows.
pub type Counter<L = ()> = Family<metrics::Counter, L>;
/// A number that goes up and down.
pub type Gauge<L = ()> = Family<metrics::Gauge, L>;
/// A distribution of measured values.
pub type Histogram = Family<metrics::Histogram, ()>;
/// A distribution for each combination of labels, there once something is recorded: a histogram is a series for each of its buckets,
/// and most nodes never see most of the combinations.
pub type LabelledHistogram<L> = Family<LazyHistogram, L>;
/// Resolved by whoever records first.
pub type LazyHistogram = LazyLock<metrics::Histogram, Box<dyn FnOnce() -> metrics::Histogram + Send>>;

impl<H, L: LabelSet> Family<H, L> {
    /// The handle of one combination of labels.
    pub fn of(&self, labels: L) -> &H {
        &self.handles[labels.index()]
    }

    /// Resolves every combination through `register`.
    pub(super) fn resolve(register: impl Fn(Vec<metrics::Label>) -> H) -> Self {
        let handles = combinations(&L::axes()).into_iter().map(register).collect();
        Self { handles, labels: PhantomData }
    }
}

impl<H> Deref for Family<H, ()> {
    type Target = H;
    fn deref(&self) -> &H {
        &self.handles[0]
    }
}

/// Every combination of the axes' values, in the order of [`LabelSet::index`].
fn combinations(axes: &[(&'static str, Vec<&'static str>)]) -> Vec<Vec<metrics::Label>> {
    let mut rows = vec![Vec::new()];
    for (key, values) in axes {
        rows = rows
            .iter()
            .flat_map(|row| {
                values.iter().map(move |value| {
                    let mut longer: Vec<metrics::Label> = row.clone();
                    longer.push(metrics::Label::from_static_parts(key, value));
                    longer
                })
            })
            .collect();
    }
    rows
}

fn axis<A: Label>() -> (&'static str, Vec<&'static str>) {
    (A::KEY, A::ALL.iter().map(|value| value.text()).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use metrics::Recorder;
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;
    use crate::telemetry::catalogue::METADATA;

    label!(
        /// A test's.
        Way = "way" {
            In = "in",
            Out = "out",
        }
    );
    label!(
        /// A test's.
        Size = "size" {
            Small = "small",
            Middle = "middle",
            Large = "large",
        }
    );

    #[test]
    fn each_combination_has_the_handle_of_its_labels() {
        let rows = combinations(&<(Way, Size, Way)>::axes());
        assert_eq!(rows.len(), 12);
        for way in Way::ALL {
            for size in Size::ALL {
                for last in Way::ALL {
                    let texts: Vec<&str> =
                        rows[(*way, *size, *last).index()].iter().map(metrics::Label::value).collect();
                    assert_eq!(texts, [way.text(), size.text(), last.text()]);
                }
            }
        }
        assert_eq!(combinations(&<()>::axes()), [Vec::new()]);
        assert_eq!(combinations(&Size::axes()).len(), 3);
    }

    #[test]
    fn a_distribution_is_there_for_those_labels_alone_that_something_was_recorded_of() {
        let recorder = Arc::new(PrometheusBuilder::new().build_recorder());
        let registers = Arc::clone(&recorder);
        let sizes = LabelledHistogram::<(Way, Size)>::resolve(|labels| {
            let registers = Arc::clone(&registers);
            LazyLock::new(Box::new(move || {
                registers.register_histogram(&metrics::Key::from_parts("sizes", labels), &METADATA)
            }))
        });
        sizes.of((Way::In, Size::Small));
        assert_eq!(recorder.handle().render(), "", "nothing was recorded");
        (0..2).for_each(|_| sizes.of((Way::Out, Size::Large)).record(1.0));
        let text = recorder.handle().render();
        assert!(text.contains("sizes_count{way=\"out\",size=\"large\"} 2"), "{text}");
        assert_eq!(text.matches("_count").count(), 1, "{text}");
    }
}
