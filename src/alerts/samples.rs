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

/// Samples by the metric's name.
#[derive(Debug, Default)]
pub(super) struct Samples {
    by_name: HashMap<String, Kept>,
    count: usize,
}

/// A metric's series.
#[derive(Debug)]
struct Kept {
    for_ms: i64,
    series: Vec<Series>,
    /// After the series that got the last sample: a scrape has them in the same order each time.
    next: usize,
}

impl Samples {
    /// A metric's samples are to be kept for so long; of metrics that nobody asks for none are.
    pub(super) fn keep(&mut self, name: &str, for_ms: i64) {
        let for_ms = for_ms.max(LOOKBACK_MS);
        let kept = self.by_name.entry(name.to_owned()).or_insert(Kept { for_ms, series: Vec::new(), next: 0 });
        kept.for_ms = kept.for_ms.max(for_ms);
    }

    pub(super) fn wants(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Adds a sample. False when it is given up, since there are too many series.
    pub(super) fn push(&mut self, name: &str, labels: Labels, at_ms: i64, value: f64) -> bool {
        let Some(kept) = self.by_name.get_mut(name) else { return true };
        let is_next = kept.series.get(kept.next).is_some_and(|series| series.labels == labels);
        let known =
            if is_next { Some(kept.next) } else { kept.series.iter().position(|series| series.labels == labels) };
        let index = match known {
            Some(known) => known,
            None if self.count >= SERIES_MAX => return false,
            None => {
                self.count += 1;
                kept.series.push(Series { labels, points: VecDeque::new() });
                kept.series.len() - 1
            }
        };
        kept.next = index + 1;
        let series = &mut kept.series[index];
        while series.points.front().is_some_and(|(at, _)| *at < at_ms - kept.for_ms) {
            series.points.pop_front();
        }
        series.points.push_back((at_ms, value));
        true
    }

    /// Forgets a metric's series that `is_current` does not want: they are no more.
    pub(super) fn retain(&mut self, name: &str, is_current: impl Fn(&Labels) -> bool) {
        let Some(kept) = self.by_name.get_mut(name) else { return };
        let before = kept.series.len();
        kept.series.retain(|series| is_current(&series.labels));
        self.count -= before - kept.series.len();
    }

    /// The series that a selector takes.
    pub(super) fn select<'s>(&'s self, selector: &'s Selector) -> impl Iterator<Item = &'s Series> {
        let series = self.by_name.get(&selector.name).map_or(&[][..], |kept| &kept.series);
        series.iter().filter(|series| {
            selector.takes(|name| series.labels.get(name).map(String::as_str).unwrap_or_default().to_owned())
        })
    }
}

/// Calls `take` with each sample of Prometheus' text format of a metric that `wants` wants.
pub(super) fn each_sample(text: &str, wants: impl Fn(&str) -> bool, mut take: impl FnMut(&str, Labels, f64)) {
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name_ends = line.find(['{', ' ']).unwrap_or(line.len());
        let (name, rest) = line.split_at(name_ends);
        if !wants(name) {
            continue;
        }
        let read = read_labels(rest).and_then(|(labels, rest)| {
            let value = rest.trim_start().split(' ').next()?;
            Some((labels, read_number(value)?))
        });
        if let Some((labels, value)) = read {
            take(name, labels, value);
        }
    }
}

/// The labels in front of a value, and what follows them.
fn read_labels(text: &str) -> Option<(Labels, &str)> {
    let mut labels = Labels::new();
    let Some(mut rest) = text.strip_prefix('{') else { return Some((labels, text)) };
    loop {
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, after) = rest.split_once("=\"")?;
        let (value, after) = read_quoted(after)?;
        labels.insert(name.to_owned(), value);
        rest = after.strip_prefix(',').unwrap_or(after);
    }
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
        let mut found = Vec::new();
        each_sample(text, |name| name == "a", |name, labels, value| found.push((name.to_owned(), labels, value)));
        assert_eq!(
            found,
            [
                ("a".to_owned(), labels(&[]), 3.0),
                ("a".to_owned(), labels(&[("x", "1"), ("y", "q\"\\\n,}")]), f64::INFINITY),
                ("a".to_owned(), labels(&[("x", "2")]), 0.001),
            ]
        );
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
        let count = |samples: &Samples, name: &str| samples.by_name[name].series[0].points.len();
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
