//! The macro that declares the metrics, and what it makes of them.

use metrics::Unit;

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

/// A metric as the documents and the exporter see it.
pub struct Entry {
    /// The part of the server that it is about.
    pub section: &'static str,
    /// Its full name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What it counts or measures.
    pub unit: Unit,
    /// What it means, in a sentence or two.
    pub help: &'static str,
    /// Its labels, each with all its values.
    pub labels: Vec<(&'static str, Vec<&'static str>)>,
    /// A histogram's upper bounds.
    pub buckets: &'static [f64],
}

/// Declares every metric once. Each section becomes a struct of ready handles, all of them one struct, [`Entry`]s
/// for documents and descriptions besides.
macro_rules! catalogue {
    ($(
        #[doc = $section_doc:literal]
        $section:ident: $struct:ident {
            $(
                $(#[doc = $help:literal])*
                $kind:ident $field:ident [$($label:ty),*] = $name:literal $unit:ident $($buckets:ident)?;
            )*
        }
    )*) => {
        /// Every metric, ready to use: `metrics().http.in_flight.increment(1.0)`.
        pub struct Metrics {
            $(#[doc = $section_doc] pub $section: $struct,)*
        }

        $(
            #[doc = $section_doc]
            pub struct $struct {
                $($(#[doc = $help])* pub $field: $crate::telemetry::catalogue::family_type!($kind [$($label),*]),)*
            }
        )*

        impl Metrics {
            /// Describes every metric, and resolves with `recorder` what is shown from the start.
            fn register<R: ::metrics::Recorder + Send + Sync + 'static>(recorder: &::std::sync::Arc<R>) -> Self {
                Self {
                    $($section: $struct {
                        $($field: {
                            $crate::telemetry::catalogue::describe!($kind recorder, $name, $unit, concat!($($help),*));
                            $crate::telemetry::catalogue::resolve!($kind recorder, $name, [$($label),*])
                        },)*
                    },)*
                }
            }
        }

        /// Every metric's description, in the catalogue's order.
        #[must_use]
        pub fn entries() -> Vec<$crate::telemetry::catalogue::Entry> {
            vec![$($(
                $crate::telemetry::catalogue::Entry {
                    section: $section_doc.trim_ascii(),
                    name: $name,
                    kind: $crate::telemetry::catalogue::kind!($kind),
                    unit: ::metrics::Unit::$unit,
                    help: concat!($($help),*).trim_ascii(),
                    labels: <$crate::telemetry::catalogue::label_set!($($label),*) as $crate::telemetry::family::LabelSet>::axes(),
                    buckets: $crate::telemetry::catalogue::buckets!($($buckets)?),
                },
            )*)*]
        }
    };
}

macro_rules! label_set {
    () => { () };
    ($one:ty) => { $one };
    ($($many:ty),+) => { ($($many),+) };
}

macro_rules! family_type {
    (counter [$($label:ty),*]) => { $crate::telemetry::family::Counter<$crate::telemetry::catalogue::label_set!($($label),*)> };
    (gauge [$($label:ty),*]) => { $crate::telemetry::family::Gauge<$crate::telemetry::catalogue::label_set!($($label),*)> };
    (histogram []) => { $crate::telemetry::family::Histogram };
    (histogram [$($label:ty),+]) => { $crate::telemetry::family::LabelledHistogram<$crate::telemetry::catalogue::label_set!($($label),+)> };
}

macro_rules! kind {
    (counter) => {
        $crate::telemetry::catalogue::Kind::Counter
    };
    (gauge) => {
        $crate::telemetry::catalogue::Kind::Gauge
    };
    (histogram) => {
        $crate::telemetry::catalogue::Kind::Histogram
    };
}

macro_rules! describe {
    (counter $recorder:ident, $name:literal, $unit:ident, $help:expr) => {
        $recorder.describe_counter($name.into(), Some(::metrics::Unit::$unit), $help.trim_ascii().into())
    };
    (gauge $recorder:ident, $name:literal, $unit:ident, $help:expr) => {
        $recorder.describe_gauge($name.into(), Some(::metrics::Unit::$unit), $help.trim_ascii().into())
    };
    (histogram $recorder:ident, $name:literal, $unit:ident, $help:expr) => {
        $recorder.describe_histogram($name.into(), Some(::metrics::Unit::$unit), $help.trim_ascii().into())
    };
}

macro_rules! resolve {
    (histogram $recorder:ident, $name:literal, [$($label:ty),+]) => {
        $crate::telemetry::family::Family::resolve(|labels| {
            let recorder = ::std::sync::Arc::clone($recorder);
            $crate::telemetry::family::LazyHistogram::new(Box::new(move || {
                $crate::telemetry::catalogue::handle!(histogram recorder, $name, labels)
            }))
        })
    };
    ($kind:ident $recorder:ident, $name:literal, [$($label:ty),*]) => {
        $crate::telemetry::family::Family::resolve(|labels| {
            $crate::telemetry::catalogue::handle!($kind $recorder, $name, labels)
        })
    };
}

macro_rules! handle {
    (counter $recorder:ident, $name:literal, $labels:ident) => {
        $recorder.register_counter(&::metrics::Key::from_parts($name, $labels), &$crate::telemetry::catalogue::METADATA)
    };
    (gauge $recorder:ident, $name:literal, $labels:ident) => {
        $recorder.register_gauge(&::metrics::Key::from_parts($name, $labels), &$crate::telemetry::catalogue::METADATA)
    };
    (histogram $recorder:ident, $name:literal, $labels:ident) => {
        $recorder
            .register_histogram(&::metrics::Key::from_parts($name, $labels), &$crate::telemetry::catalogue::METADATA)
    };
}

macro_rules! buckets {
    () => {
        &[]
    };
    ($buckets:ident) => {
        &$buckets
    };
}

pub(super) use {buckets, catalogue, describe, family_type, handle, kind, label_set, resolve};

/// Where the metrics come from, as recorders want to know.
pub(super) const METADATA: metrics::Metadata<'static> =
    metrics::Metadata::new(module_path!(), metrics::Level::INFO, Some(module_path!()));
