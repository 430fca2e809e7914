//! What is asked of Prometheus, and what an answer must have.

/// What an answer must have, at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Any answer but an error.
    Nothing,
    /// A series, whatever its value.
    Series,
    /// A series whose value is a number, not the quantile of nothing.
    Number,
}

impl Wanted {
    /// Whether these values will do.
    pub(crate) fn met_by(self, values: &[f64]) -> bool {
        match self {
            Self::Nothing => true,
            Self::Series => !values.is_empty(),
            Self::Number => values.iter().any(|value| value.is_finite()),
        }
    }
}

/// An expression, and where it is from.
pub(crate) struct Expression {
    pub(crate) place: String,
    /// As it is sent to Prometheus.
    pub(crate) text: String,
    pub(crate) wanted: Wanted,
}

impl Expression {
    /// One of a board or a rule. Grafana's variables get values: every node, and a time that all of a test fits into.
    pub(crate) fn new(place: String, text: &str, wanted: Wanted) -> Self {
        let text = text.replace("$__rate_interval", "5m").replace("$instance", ".+");
        assert!(!text.contains('$'), "{place}: a variable that this test does not know: {text}");
        Self { place, text: text.split_whitespace().collect::<Vec<_>>().join(" "), wanted }
    }

    /// Whether there is anything that a selector selects.
    pub(crate) fn of_selector(selector: String) -> Self {
        Self { place: "selector".to_owned(), text: format!("count({selector})"), wanted: Wanted::Number }
    }

    pub(crate) fn selectors(&self) -> Vec<String> {
        selectors(&self.text)
    }
}

/// What an expression selects: names of metrics with their labels' conditions. What Prometheus has of alerts is not among
/// them, since most are not there.
pub(crate) fn selectors(expression: &str) -> Vec<String> {
    let is_in_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        if first == '"' {
            rest = rest[1..].split_once('"').expect("a string ends").1;
            continue;
        }
        let name = rest.split(|c: char| !is_in_name(c)).next().unwrap_or_default();
        if name.is_empty() {
            rest = &rest[first.len_utf8()..];
            continue;
        }
        rest = &rest[name.len()..];
        let labels = if rest.starts_with('{') { &rest[..=closing(rest)] } else { "" };
        rest = &rest[labels.len()..];
        if name.contains("antiphon_") || name == "up" {
            found.push(format!("{name}{labels}"));
        }
    }
    found
}

/// Where the brace closes that a text begins with.
fn closing(text: &str) -> usize {
    let mut is_in_string = false;
    let end = text.bytes().position(|byte| {
        is_in_string ^= byte == b'"';
        byte == b'}' && !is_in_string
    });
    end.expect("it closes")
}

#[test]
fn selectors_are_found() {
    let found = selectors(
        "sum by (le, antiphon) (rate(antiphon_x_bucket{a=~\"b{2}|}\", c!=\"antiphon_no\"}[5m])) / job:antiphon_y:p99 > up",
    );
    assert_eq!(found, ["antiphon_x_bucket{a=~\"b{2}|}\", c!=\"antiphon_no\"}", "job:antiphon_y:p99", "up"]);
}

#[test]
fn the_quantile_of_nothing_is_a_series_and_no_number() {
    assert!(Wanted::Series.met_by(&[f64::NAN]) && !Wanted::Number.met_by(&[f64::NAN]));
    assert!(!Wanted::Series.met_by(&[]) && Wanted::Nothing.met_by(&[]) && Wanted::Number.met_by(&[f64::NAN, 0.0]));
}
