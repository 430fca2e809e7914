//! What an expression's value is at a moment, as Prometheus computes it.

use std::collections::BTreeMap;

use super::{
    query::{Aggregate, Grouping, Matching, Operator, Query, RangeFunction, SetOperator},
    samples::{Labels, Samples},
};

/// Several series' values.
pub(super) type Vector = Vec<(Labels, f64)>;

/// What an expression yields.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Scalar(f64),
    Vector(Vector),
}

impl Value {
    /// Its series; of a number none.
    pub(super) fn into_vector(self) -> Vector {
        match self {
            Self::Scalar(_) => Vec::new(),
            Self::Vector(vector) => vector,
        }
    }
}

/// The value of `query` at a moment, in milliseconds since 1970.
pub(super) fn evaluate(query: &Query, samples: &Samples, at_ms: i64) -> Value {
    let vector = |query: &Query| evaluate(query, samples, at_ms).into_vector();
    match query {
        Query::Number(value) => Value::Scalar(*value),
        Query::Now => Value::Scalar(at_ms as f64 / 1_000.0),
        Query::Select(selector) => {
            let newest = samples.select(selector).filter_map(|series| Some((series, series.newest(at_ms)?)));
            Value::Vector(newest.map(|(series, value)| (series.labels.clone(), value)).collect())
        }
        Query::Range { function, selector, range_ms } => {
            let of = samples.select(selector).filter_map(|series| {
                let points: Vec<_> = series.between(at_ms - range_ms, at_ms).collect();
                Some((series.labels.clone(), over_time(*function, &points, *range_ms, at_ms)?))
            });
            Value::Vector(of.collect())
        }
        Query::Quantile { quantile, of } => Value::Vector(quantiles(*quantile, vector(of))),
        Query::Aggregate { how, grouping, of } => Value::Vector(aggregate(*how, grouping, vector(of))),
        Query::Binary { operator, left, right, matching } => {
            binary(*operator, matching, evaluate(left, samples, at_ms), evaluate(right, samples, at_ms))
        }
        Query::Set { operator, left, right, matching } => {
            let there: Vec<Labels> = vector(right).iter().map(|(labels, _)| matching.key(labels)).collect();
            let is_wanted = |labels: &Labels| there.contains(&matching.key(labels)) == (*operator == SetOperator::And);
            Value::Vector(vector(left).into_iter().filter(|(labels, _)| is_wanted(labels)).collect())
        }
    }
}

impl Matching {
    /// The labels by which two series belong together.
    fn key(&self, labels: &Labels) -> Labels {
        let mut key = labels.clone();
        key.retain(|name, _| match self {
            Self::On(names) => names.contains(name),
            Self::Ignoring(names) => !names.contains(name),
        });
        key
    }
}

impl Grouping {
    fn key(&self, labels: &Labels) -> Labels {
        let mut key = labels.clone();
        key.retain(|name, _| match self {
            Self::By(names) => names.contains(name),
            Self::Without(names) => !names.contains(name),
        });
        key
    }
}

/// A function of a series' samples within a range that ends at `at_ms`; `None` where it has too few.
fn over_time(function: RangeFunction, points: &[(i64, f64)], range_ms: i64, at_ms: i64) -> Option<f64> {
    match function {
        RangeFunction::Rate => {
            extrapolated(points, range_ms, at_ms, true).map(|increase| increase / (range_ms as f64 / 1e3))
        }
        RangeFunction::Increase => extrapolated(points, range_ms, at_ms, true),
        RangeFunction::Delta => extrapolated(points, range_ms, at_ms, false),
        RangeFunction::Changes => {
            let changes = points.windows(2).filter(|pair| {
                let (before, after) = (pair[0].1, pair[1].1);
                before != after && !(before.is_nan() && after.is_nan())
            });
            (!points.is_empty()).then(|| changes.count() as f64)
        }
        RangeFunction::PredictLinear(seconds) => {
            let (slope, intercept) = straight_line(points, at_ms)?;
            Some(slope * seconds + intercept)
        }
    }
}

/// How much a series changed within a range, made up for what its samples do not reach. A counter that falls began anew.
fn extrapolated(points: &[(i64, f64)], range_ms: i64, at_ms: i64, is_counter: bool) -> Option<f64> {
    let [(first_at, first), .., (last_at, last)] = *points else { return None };
    let mut change = last - first;
    if is_counter {
        change += points.windows(2).filter(|pair| pair[1].1 < pair[0].1).map(|pair| pair[0].1).sum::<f64>();
    }
    let seconds = |ms: i64| ms as f64 / 1e3;
    let sampled = seconds(last_at - first_at);
    let between = sampled / (points.len() - 1) as f64;
    let mut to_start = seconds(first_at - (at_ms - range_ms));
    if is_counter && change > 0.0 && first >= 0.0 {
        // No further back than to where it would have been zero.
        to_start = to_start.min(sampled * (first / change));
    }
    let reach = |gap: f64| if gap < between * 1.1 { gap } else { between / 2.0 };
    Some(change * (sampled + reach(to_start) + reach(seconds(at_ms - last_at))) / sampled)
}

/// The least squares' line through samples: its slope for each second, and its value at `at_ms`.
fn straight_line(points: &[(i64, f64)], at_ms: i64) -> Option<(f64, f64)> {
    if points.len() < 2 {
        return None;
    }
    let first = points[0].1;
    if points.iter().all(|(_, value)| *value == first) {
        return Some((0.0, first));
    }
    let count = points.len() as f64;
    let (mut sum_x, mut sum_y, mut sum_xy, mut sum_xx) = (0.0, 0.0, 0.0, 0.0);
    for (at, y) in points {
        let x = (at - at_ms) as f64 / 1e3;
        sum_x += x;
        sum_y += y;
        sum_xy += x * y;
        sum_xx += x * x;
    }
    let slope = (sum_xy - sum_x * sum_y / count) / (sum_xx - sum_x * sum_x / count);
    Some((slope, sum_y / count - slope * sum_x / count))
}

fn aggregate(how: Aggregate, grouping: &Grouping, vector: Vector) -> Vector {
    let mut groups: BTreeMap<Labels, Vec<f64>> = BTreeMap::new();
    for (labels, value) in vector {
        groups.entry(grouping.key(&labels)).or_default().push(value);
    }
    let of = |values: Vec<f64>| match how {
        Aggregate::Sum => values.iter().sum(),
        Aggregate::Avg => values.iter().sum::<f64>() / values.len() as f64,
        Aggregate::Count => values.len() as f64,
        // As Prometheus', which prefer any number to none.
        Aggregate::Min => values.into_iter().fold(f64::NAN, f64::min),
        Aggregate::Max => values.into_iter().fold(f64::NAN, f64::max),
    };
    groups.into_iter().map(|(labels, values)| (labels, of(values))).collect()
}

/// The quantile of each histogram: its buckets are series told apart by `le`.
fn quantiles(quantile: f64, vector: Vector) -> Vector {
    let mut histograms: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
    for (mut labels, count) in vector {
        let bound = match labels.remove("le").as_deref() {
            Some("+Inf") => Some(f64::INFINITY),
            Some(bound) => bound.parse().ok(),
            None => None,
        };
        if let Some(bound) = bound {
            histograms.entry(labels).or_default().push((bound, count));
        }
    }
    histograms.into_iter().map(|(labels, buckets)| (labels, bucket_quantile(quantile, buckets))).collect()
}

fn bucket_quantile(quantile: f64, mut buckets: Vec<(f64, f64)>) -> f64 {
    if quantile < 0.0 {
        return f64::NEG_INFINITY;
    }
    if quantile > 1.0 {
        return f64::INFINITY;
    }
    buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
    if buckets.len() < 2 || buckets.last().is_none_or(|(bound, _)| *bound != f64::INFINITY) {
        return f64::NAN;
    }
    // Buckets of one moment of a rate may disagree a little.
    let mut most = f64::NEG_INFINITY;
    for (_, count) in &mut buckets {
        most = most.max(*count);
        *count = most;
    }
    let total = most;
    if total.is_nan() || total == 0.0 {
        return f64::NAN;
    }
    let rank = quantile * total;
    let last = buckets.len() - 1;
    let found = buckets[..last].iter().position(|(_, count)| *count >= rank).unwrap_or(last);
    if found == last {
        return buckets[last - 1].0;
    }
    let (end, count) = buckets[found];
    if found == 0 && end <= 0.0 {
        return end;
    }
    let (start, below) = if found == 0 { (0.0, 0.0) } else { buckets[found - 1] };
    start + (end - start) * ((rank - below) / (count - below))
}

fn binary(operator: Operator, matching: &Matching, left: Value, right: Value) -> Value {
    // A comparison keeps the value of its left side, or of the side that is no single number.
    match (left, right) {
        (Value::Scalar(left), Value::Scalar(right)) => {
            let holds = || f64::from(u8::from(operator.holds(left, right)));
            Value::Scalar(operator.compute(left, right).unwrap_or_else(holds))
        }
        (Value::Vector(left), Value::Scalar(right)) => {
            Value::Vector(each(left, |value| apply(operator, value, right, value)))
        }
        (Value::Scalar(left), Value::Vector(right)) => {
            Value::Vector(each(right, |value| apply(operator, left, value, value)))
        }
        (Value::Vector(left), Value::Vector(right)) => {
            let right: BTreeMap<Labels, f64> =
                right.into_iter().map(|(labels, value)| (matching.key(&labels), value)).collect();
            let of = left.into_iter().filter_map(|(labels, value)| {
                let key = matching.key(&labels);
                let other = *right.get(&key)?;
                Some((key, apply(operator, value, other, value)?))
            });
            Value::Vector(of.collect())
        }
    }
}

fn each(vector: Vector, of: impl Fn(f64) -> Option<f64>) -> Vector {
    vector.into_iter().filter_map(|(labels, value)| Some((labels, of(value)?))).collect()
}

/// A computation's result; of a comparison that holds what it `keeps`, of another nothing.
fn apply(operator: Operator, left: f64, right: f64, keeps: f64) -> Option<f64> {
    if operator.is_comparison() {
        return operator.holds(left, right).then_some(keeps);
    }
    operator.compute(left, right)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Series by name, an `x` label and samples a minute apart, the last one at the moment asked about.
    fn samples(series: &[(&str, &str, &[f64])]) -> (Samples, i64) {
        let (mut samples, at_ms) = (Samples::default(), 1_000 * 60_000);
        for (name, x, values) in series {
            samples.keep(name, 3_600_000);
            for (index, value) in values.iter().enumerate() {
                let labels = Labels::from([("x".to_owned(), (*x).to_owned())]);
                let minutes = i64::try_from(values.len() - 1 - index).expect("few");
                assert!(samples.push(name, labels, at_ms - minutes * 60_000, *value));
            }
        }
        (samples, at_ms)
    }

    fn values(text: &str, series: &[(&str, &str, &[f64])]) -> Vec<(String, f64)> {
        let (samples, at_ms) = samples(series);
        let found = evaluate(&Query::parse(text).expect("supported"), &samples, at_ms).into_vector();
        found.into_iter().map(|(labels, value)| (labels.into_values().collect::<Vec<_>>().join(","), value)).collect()
    }

    fn one(text: &str, series: &[(&str, &str, &[f64])]) -> f64 {
        let found = values(text, series);
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].1
    }

    #[test]
    fn rates_make_up_for_the_ends_and_for_restarts() {
        assert!((one("rate(a[5m])", &[("a", "1", &[0.0, 60.0, 120.0, 180.0, 240.0, 300.0])]) - 1.0).abs() < 1e-9);
        // 60 + 60 after a restart from 100, over 4 of 5 minutes; the gap at the start is reached by a minute.
        let restarted = one("increase(a[5m])", &[("a", "1", &[40.0, 100.0, 0.0, 60.0, 120.0])]);
        assert!((restarted - 180.0 * 5.0 / 4.0).abs() < 20.0, "{restarted}");
        assert_eq!(one("delta(a[5m])", &[("a", "1", &[10.0, 8.0, 6.0, 4.0, 2.0, 0.0])]), -10.0);
        assert!(values("rate(a[5m])", &[("a", "1", &[3.0])]).is_empty(), "one sample has no rate");
        assert_eq!(one("changes(a[5m])", &[("a", "1", &[1.0, 1.0, 2.0, 2.0, 1.0])]), 2.0);
    }

    #[test]
    fn lines_go_on() {
        let grows: Vec<f64> = (0..60).map(|minute| f64::from(minute) * 60.0).collect();
        let predicted = one("predict_linear(a[1h], 2 * 60)", &[("a", "1", &grows)]);
        assert!((predicted - (59.0 * 60.0 + 120.0)).abs() < 1e-6, "{predicted}");
        assert_eq!(one("predict_linear(a[1h], 60)", &[("a", "1", &[5.0, 5.0])]), 5.0);
    }

    #[test]
    fn comparisons_keep_and_drop() {
        let series: &[(&str, &str, &[f64])] = &[("a", "1", &[1.0]), ("a", "2", &[5.0]), ("b", "2", &[3.0])];
        assert_eq!(values("a > 2", series), [("2".to_owned(), 5.0)]);
        assert_eq!(values("2 < a", series), [("2".to_owned(), 5.0)]);
        assert_eq!(values("a > b", series), [("2".to_owned(), 5.0)]);
        assert_eq!(values("a and b", series), [("2".to_owned(), 5.0)]);
        assert_eq!(values("a unless b", series), [("1".to_owned(), 1.0)]);
        assert_eq!(values("a - b", series), [("2".to_owned(), 2.0)]);
        assert_eq!(values("sum(a) - on () max(b)", series), [(String::new(), 3.0)]);
        assert!(values("a / 0 * 0 > 0", series).is_empty(), "what is no number is not above anything");
    }

    #[test]
    fn groups_are_told_apart_by_their_labels() {
        let series: &[(&str, &str, &[f64])] = &[("a", "1", &[1.0]), ("a", "2", &[5.0])];
        for (text, wanted) in [("sum(a)", 6.0), ("min(a)", 1.0), ("max(a)", 5.0), ("avg(a)", 3.0), ("count(a)", 2.0)] {
            assert_eq!(one(text, series), wanted, "{text}");
        }
        assert_eq!(values("sum by (x) (a)", series).len(), 2);
        assert_eq!(values("sum without (x) (a)", series), [(String::new(), 6.0)]);
    }

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let buckets = |counts: [f64; 3]| vec![(f64::INFINITY, counts[2]), (0.2, counts[1]), (0.1, counts[0])];
        assert!((bucket_quantile(0.5, buckets([0.0, 10.0, 10.0])) - 0.15).abs() < 1e-9);
        assert!((bucket_quantile(0.5, buckets([10.0, 10.0, 10.0])) - 0.05).abs() < 1e-9);
        assert_eq!(bucket_quantile(0.99, buckets([0.0, 0.0, 10.0])), 0.2, "above all bounds");
        assert!(bucket_quantile(0.99, buckets([0.0, 0.0, 0.0])).is_nan());
        assert!(bucket_quantile(0.5, vec![(0.1, 1.0), (0.2, 2.0)]).is_nan(), "without the last bucket");
    }

    #[test]
    fn old_samples_are_no_value() {
        let (samples, at_ms) = samples(&[("a", "1", &[1.0])]);
        let query = Query::parse("a").expect("supported");
        assert_eq!(evaluate(&query, &samples, at_ms + 5 * 60_000).into_vector().len(), 1);
        assert_eq!(evaluate(&query, &samples, at_ms + 5 * 60_000 + 1).into_vector().len(), 0);
        assert_eq!(evaluate(&query, &samples, at_ms - 1).into_vector().len(), 0, "not there yet");
    }
}
