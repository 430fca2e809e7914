//! The few forms of Prometheus' templates that annotations use: `{{ $labels.x }}`, `{{ $value }}` and
//! `{{ $value | humanize… }}`, which print as they do there.

use super::samples::Labels;

/// A text with places for labels and the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Label(String),
    Value(Form),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Plain,
    Humanize,
    Humanize1024,
    Duration,
    Percentage,
}

impl Template {
    /// Reads a template; `None` when it uses what is not among the forms.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (inside, after) = after.split_once("}}")?;
            parts.push(Part::Text(before.to_owned()));
            parts.push(Part::parse(inside.trim())?);
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        Some(Self(parts))
    }

    /// The text of one alert.
    pub(super) fn render(&self, labels: &Labels, value: f64) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Label(name) => labels.get(name).cloned().unwrap_or_default(),
            Part::Value(form) => form.print(value),
        };
        self.0.iter().map(part).collect()
    }
}

impl Part {
    fn parse(inside: &str) -> Option<Self> {
        if let Some(name) = inside.strip_prefix("$labels.") {
            let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            return is_name.then(|| Self::Label(name.to_owned()));
        }
        let form = match inside.strip_prefix("$value")?.trim_start() {
            "" => Form::Plain,
            piped => match piped.strip_prefix('|')?.trim() {
                "humanize" => Form::Humanize,
                "humanize1024" => Form::Humanize1024,
                "humanizeDuration" => Form::Duration,
                "humanizePercentage" => Form::Percentage,
                _ => return None,
            },
        };
        Some(Self::Value(form))
    }
}

impl Form {
    fn print(self, value: f64) -> String {
        match self {
            Self::Plain => value.to_string(),
            Self::Humanize => scaled(value, 1_000.0, &["k", "M", "G", "T", "P", "E", "Z", "Y"]),
            Self::Humanize1024 => scaled(value, 1_024.0, &["ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"]),
            Self::Duration => duration(value),
            Self::Percentage => format!("{}%", four_digits(value * 100.0)),
        }
    }
}

/// Go's `%.4g`.
fn four_digits(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return if value.is_infinite() {
            format!("{}Inf", if value > 0.0 { '+' } else { '-' })
        } else {
            value.to_string()
        };
    }
    let exponential = format!("{value:.3e}");
    let (mantissa, exponent) = exponential.split_once('e').unwrap_or((&exponential, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trimmed = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if (-4..4).contains(&exponent) {
        let decimals = usize::try_from(3 - exponent).unwrap_or(0);
        return trimmed(&format!("{value:.decimals$}"));
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", trimmed(mantissa), exponent.abs())
}

/// With a prefix for thousands, and for thousandths where those are decimal.
fn scaled(value: f64, base: f64, prefixes: &[&str]) -> String {
    if value == 0.0 || !value.is_finite() {
        return four_digits(value);
    }
    let (mut scaled, mut prefix) = (value, "");
    if value.abs() >= 1.0 {
        for next in prefixes.iter().take_while(|_| value.abs() >= base) {
            if scaled.abs() < base {
                break;
            }
            prefix = next;
            scaled /= base;
        }
    } else if base == 1_000.0 {
        for next in ["m", "u", "n", "p", "f", "a", "z", "y"] {
            if scaled.abs() >= 1.0 {
                break;
            }
            prefix = next;
            scaled *= base;
        }
    }
    format!("{}{prefix}", four_digits(scaled))
}

fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds == 0.0 {
        return if seconds == 0.0 { "0s".to_owned() } else { four_digits(seconds) };
    }
    if seconds.abs() < 1.0 {
        return format!("{}s", scaled(seconds, 1_000.0, &[]));
    }
    let (sign, whole) = (if seconds < 0.0 { "-" } else { "" }, seconds.abs());
    let count = whole as u64;
    let (days, hours, minutes, rest) = (count / 86_400, count / 3_600 % 24, count / 60 % 60, count % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{sign}{}s", four_digits(whole)),
        (0, 0, _) => format!("{sign}{minutes}m {rest}s"),
        (0, _, _) => format!("{sign}{hours}h {minutes}m {rest}s"),
        _ => format!("{sign}{days}d {hours}h {minutes}m {rest}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(template: &str, value: f64) -> String {
        let labels = Labels::from([("instance".to_owned(), "n1".to_owned())]);
        Template::parse(template).expect("known forms").render(&labels, value)
    }

    #[test]
    fn labels_and_values_take_their_places() {
        assert_eq!(render("{{ $labels.instance }}: {{ $value }} left{{$labels.missing}}", 40.0), "n1: 40 left");
        assert_eq!(Template::parse("{{ humanize $value }}"), None);
        assert_eq!(Template::parse("{{ $value | title }}"), None);
        assert_eq!(Template::parse("{{ $value"), None);
    }

    /// As Prometheus' own tests of its templates have it.
    #[test]
    fn values_print_as_in_prometheus() {
        for (form, value, text) in [
            ("humanize", 0.0, "0"),
            ("humanize", 1.0, "1"),
            ("humanize", 1_234_567.0, "1.235M"),
            ("humanize", 0.12, "120m"),
            ("humanize1024", 1_048_576.0, "1Mi"),
            ("humanize1024", 0.12, "0.12"),
            ("humanizeDuration", 0.0, "0s"),
            ("humanizeDuration", 1.0, "1s"),
            ("humanizeDuration", 60.0, "1m 0s"),
            ("humanizeDuration", 3_600.0, "1h 0m 0s"),
            ("humanizeDuration", 86_400.0, "1d 0h 0m 0s"),
            ("humanizeDuration", 899.99, "14m 59s"),
            ("humanizeDuration", 0.1, "100ms"),
            ("humanizeDuration", 0.000_1, "100us"),
            ("humanizePercentage", 0.223_456_7, "22.35%"),
            ("humanizePercentage", 1.23, "123%"),
        ] {
            assert_eq!(render(&format!("{{{{ $value | {form} }}}}"), value), text, "{form} {value}");
        }
        assert_eq!(four_digits(12_345.0), "1.234e+04");
        assert_eq!(four_digits(0.000_012_345), "1.234e-05");
    }
}
