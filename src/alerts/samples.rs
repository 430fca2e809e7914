//! The samples that the rules need, of the last minutes: this node's own metrics, and what is known of other nodes.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::query::Selector;

/// Labels of a series, without the metric's name.
pub(super) type Labels = BTreeMap<String, String>;

/// How old the newest sample of a series may be that still is its value (Prometheus' default).
pub(super) const LOOKBACK_MS: i64 = 5 * 60 * 1_000;

/// Series kept at most; samples of further ones are given up.
const SERIES_MAX: usize = 8_192;

/// One series.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) labels: Labels,
    /// Times in milliseconds since 1970, growing, each with its value.
    points: VecDeque<(i64, f64)>,
}

impl Series {
    /// Samples from `from_ms` to `to_ms`, both included.
    pub(super) fn between(&self, from_ms: i64, to_ms: i64) -> impl Iterator<Item = (i64, f64)> + Clone {
        let first = self.points.partition_point(|(at, _)| *at < from_ms);
        let end = self.points.partition_point(|(at, _)| *at <= to_ms);
        self.points.range(first.min(end)..end).copied()
    }

    /// The newest sample at a moment, if it is not too old.
    pub(super) fn newest(&self, at_ms: i64) -> Option<f64> {
        self.between(at_ms - LOOKBACK_MS, at_ms).last().map(|(_, value)| value)
    }
}

/// Samples of each metric.
#[derive(Debug, Default)]
pub(super) struct Samples {
    by_name: HashMap<String, usize>,
    metrics: Vec<Kept>,
    /// Where samples go, by the name and labels that are written before them: a scrape has hundreds, the same each time, and their
    /// labels are only read once.
    written: HashMap<String, Place>,
    count: usize,
}

/// A metric's series.
#[derive(Debug)]
struct Kept {
    for_ms: i64,
    series: Vec<Series>,
}

/// Of which metric, and which of its series.
type Place = (usize, usize);

impl Samples {
    /// A metric's samples are to be kept for so long; of metrics that nobody asks for none are.
    pub(super) fn keep(&mut self, name: &str, for_ms: i64) {
        let metric = *self.by_name.entry(name.to_owned()).or_insert_with(|| {
            self.metrics.push(Kept { for_ms: LOOKBACK_MS, series: Vec::new() });
            self.metrics.len() - 1
        });
        let kept = &mut self.metrics[metric];
        kept.for_ms = kept.for_ms.max(for_ms);
    }

    pub(super) fn wants(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Adds a sample. False when it is given up, since there are too many series.
    pub(super) fn push(&mut self, name: &str, labels: Labels, at_ms: i64, value: f64) -> bool {
        let Some(metric) = self.by_name.get(name).copied() else { return true };
        let place = self.place_of(metric, labels);
        if let Some(place) = place {
            self.push_at(place, at_ms, value);
        }
        place.is_some()
    }

    /// Adds a sample as it was written, with `more` labels than are written there: the same each time. False when it is given up, since
    /// there are too many series, or its labels are none.
    pub(super) fn push_written(&mut self, sample: &Sample<'_>, more: &[(String, String)], at_ms: i64) -> bool {
        let place = self.written.get(sample.written).copied().or_else(|| self.read_place_of(sample, more));
        if let Some(place) = place {
            self.push_at(place, at_ms, sample.value);
        }
        place.is_some()
    }

    fn read_place_of(&mut self, sample: &Sample<'_>, more: &[(String, String)]) -> Option<Place> {
        let metric = *self.by_name.get(sample.name())?;
        let mut labels = sample.labels()?;
        labels.extend(more.iter().cloned());
        let place = self.place_of(metric, labels)?;
        if self.written.len() < SERIES_MAX {
            self.written.insert(sample.written.to_owned(), place);
        }
        Some(place)
    }

    /// Where a series is, which begins where there is none; `None` when there are too many.
    fn place_of(&mut self, metric: usize, labels: Labels) -> Option<Place> {
        let series = &mut self.metrics[metric].series;
        if let Some(known) = series.iter().position(|series| series.labels == labels) {
            return Some((metric, known));
        }
        if self.count >= SERIES_MAX {
            return None;
        }
        self.count += 1;
        series.push(Series { labels, points: VecDeque::new() });
        Some((metric, series.len() - 1))
    }

    fn push_at(&mut self, (metric, series): Place, at_ms: i64, value: f64) {
        let Kept { for_ms, series: all } = &mut self.metrics[metric];
        let points = &mut all[series].points;
        while points.front().is_some_and(|(at, _)| *at < at_ms - *for_ms) {
            points.pop_front();
        }
        points.push_back((at_ms, value));
    }

    /// Forgets a metric's series that `is_current` does not want: they are no more.
    pub(super) fn retain(&mut self, name: &str, is_current: impl Fn(&Labels) -> bool) {
        let Some(metric) = self.by_name.get(name).copied() else { return };
        let series = &mut self.metrics[metric].series;
        let before = series.len();
        series.retain(|series| is_current(&series.labels));
        let forgotten = before - series.len();
        if forgotten > 0 {
            self.count -= forgotten;
            // The others are at other places now.
            self.written.retain(|_, (of, _)| *of != metric);
        }
    }

    /// The series that a selector takes.
    pub(super) fn select<'s>(&'s self, selector: &'s Selector) -> impl Iterator<Item = &'s Series> {
        let metric = self.by_name.get(&selector.name);
        let series = metric.map_or(&[][..], |metric| &self.metrics[*metric].series);
        series.iter().filter(|series| {
            selector.takes(|name| series.labels.get(name).map(String::as_str).unwrap_or_default().to_owned())
        })
    }
}

/// A sample of Prometheus' text format.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sample<'t> {
    /// The metric's name, and the labels in braces if it has any.
    written: &'t str,
    name_bytes: usize,
    value: f64,
}

impl<'t> Sample<'t> {
    /// Of a line; `None` where it is none.
    fn read(line: &'t str) -> Option<Self> {
        let name_bytes = line.find(['{', ' '])?;
        // No value has a brace in it, nor has the time that may follow.
        let written_bytes = line.rfind('}').map_or(name_bytes, |brace| brace + 1);
        let (written, rest) = line.split_at_checked(written_bytes)?;
        let value = read_number(rest.trim_start().split(' ').next()?)?;
        Some(Self { written, name_bytes, value })
    }

    pub(super) fn name(&self) -> &'t str {
        self.written.get(..self.name_bytes).unwrap_or_default()
    }

    /// Its labels; `None` where they are none.
    pub(super) fn labels(&self) -> Option<Labels> {
        match self.written.get(self.name_bytes..)? {
            "" => Some(Labels::new()),
            labels => read_labels(labels.strip_prefix('{')?),
        }
    }
}

/// The samples of Prometheus' text format that are of a metric that `wants` wants.
pub(super) fn samples_in<'t>(text: &'t str, mut wants: impl FnMut(&str) -> bool) -> impl Iterator<Item = Sample<'t>> {
    let mut last = ("", false);
    text.lines().filter_map(move |line| {
        let name = line.split(['{', ' ']).next()?;
        // A metric's samples follow each other.
        if name != last.0 {
            last = (name, !name.starts_with('#') && wants(name));
        }
        if last.1 { Sample::read(line) } else { None }
    })
}

/// The labels behind a brace, up to the one that closes it.
fn read_labels(mut rest: &str) -> Option<Labels> {
    let mut labels = Labels::new();
    while rest != "}" {
        let (name, after) = rest.split_once("=\"")?;
        let (value, after) = read_quoted(after)?;
        labels.insert(name.to_owned(), value);
        rest = after.strip_prefix(',').unwrap_or(after);
    }
    Some(labels)
}

/// A value up to its closing quote, and what follows that.
fn read_quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            c => value.push(c),
        }
    }
    None
}

fn read_number(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        text => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_text_format_is_read() {
        let text = "# HELP a What.\n# TYPE a counter\na 3\na{x=\"1\",y=\"q\\\"\\\\\\n,}\"} +Inf\nother{x=\"1\"} 4\na{x=\"2\"} 1e-3 17\n";
        let found: Vec<_> = samples_in(text, |name| name == "a")
            .map(|sample| (sample.name(), sample.labels().expect("well formed"), sample.value))
            .collect();
        assert_eq!(
            found,
            [
                ("a", labels(&[]), 3.0),
                ("a", labels(&[("x", "1"), ("y", "q\"\\\n,}")]), f64::INFINITY),
                ("a", labels(&[("x", "2")]), 0.001),
            ]
        );
        for line in ["a", "a{", "a}", "a{}", "}a 1", "a ", "a b", "a{x=\"1\"", ""] {
            assert_eq!(Sample::read(line), None, "{line}");
        }
        for line in ["a{x} 1", "a{x=\"1} 1", "a{x=\"1\\\"} 1"] {
            assert_eq!(Sample::read(line).expect("a value").labels(), None, "{line}");
        }
    }

    #[test]
    fn what_is_written_alike_is_the_same_series_also_after_others_were_forgotten() {
        let mut samples = Samples::default();
        ["a", "b"].iter().for_each(|name| samples.keep(name, 0));
        let more = [("instance".to_owned(), "n".to_owned())];
        let take = |samples: &mut Samples, at_ms, text: &str| {
            for sample in samples_in(text, |_| true) {
                assert!(samples.push_written(&sample, &more, at_ms));
            }
        };
        let values = |samples: &Samples, name: &str| -> Vec<Vec<f64>> {
            let series = &samples.metrics[samples.by_name[name]].series;
            series.iter().map(|series| series.between(0, 100).map(|(_, value)| value).collect()).collect()
        };
        take(&mut samples, 1, "a{x=\"1\"} 1\na{x=\"2\"} 2\nb 3\n");
        take(&mut samples, 2, "b 6\na{x=\"2\"} 5\na{x=\"1\"} 4\n");
        assert_eq!(
            (values(&samples, "a"), values(&samples, "b")),
            (vec![vec![1.0, 4.0], vec![2.0, 5.0]], vec![vec![3.0, 6.0]])
        );
        assert!(samples.push("a", labels(&[("x", "2"), ("instance", "n")]), 3, 8.0), "it has what is added as well");
        samples.retain("a", |labels| labels["x"] == "2");
        take(&mut samples, 4, "a{x=\"1\"} 9\na{x=\"2\"} 10\n");
        assert_eq!((values(&samples, "a"), samples.count), (vec![vec![2.0, 5.0, 8.0, 10.0], vec![9.0]], 3));
    }

    #[test]
    fn samples_are_kept_as_long_as_somebody_looks_back_and_no_longer() {
        let mut samples = Samples::default();
        samples.keep("a", 3_600_000);
        samples.keep("b", 0);
        for second in (0..7_200).step_by(5) {
            assert!(samples.push("a", Labels::new(), second * 1_000, 1.0));
            assert!(samples.push("b", Labels::new(), second * 1_000, 1.0));
            assert!(samples.push("unwanted", Labels::new(), second * 1_000, 1.0));
        }
        let count = |samples: &Samples, name: &str| samples.metrics[samples.by_name[name]].series[0].points.len();
        assert_eq!((count(&samples, "a"), count(&samples, "b"), samples.count), (721, 61, 2));
        samples.retain("a", |_| false);
        assert_eq!(samples.count, 1);
    }

    #[test]
    fn no_more_series_are_kept_than_the_limit() {
        let mut samples = Samples::default();
        let name = |index: usize| format!("metric_{}", index % 64);
        (0..64).for_each(|index| samples.keep(&name(index), 0));
        for index in 0..SERIES_MAX {
            assert!(samples.push(&name(index), labels(&[("x", &index.to_string())]), 0, 1.0));
        }
        assert!(!samples.push(&name(0), labels(&[("x", "one more")]), 0, 1.0));
        assert!(samples.push(&name(7), labels(&[("x", "7")]), 1, 2.0), "one that is known");
    }
}
