//! Why something was not taken, and when it is tried again.

use time::Duration;

/// The longest wait between two attempts.
const WAIT_MAX: Duration = Duration::hours(1);

/// Why a receiver did not take something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Later it may.
    Passing {
        /// Why.
        error: String,
        /// Not before so long.
        retry_after: Option<Duration>,
    },
    /// No answer came: it may have taken it. Later it may answer.
    Unanswered(String),
    /// It never will.
    Lasting(String),
    /// It takes nothing from this server: its key or secret is not the one that it should be.
    Refused(String),
    /// There is no such receiver any more.
    Gone,
}

impl Failure {
    /// One that passes by itself.
    pub(super) fn passing(error: impl Into<String>) -> Self {
        Self::Passing { error: error.into(), retry_after: None }
    }

    /// Whether it is certain that the receiver did not take it.
    pub(super) const fn is_certain(&self) -> bool {
        !matches!(self, Self::Unanswered(_))
    }

    /// What an answer over HTTP says; `None` when it was taken.
    pub(super) fn of_answer(answer: &reqwest::Response) -> Option<Self> {
        let status = answer.status();
        if status.is_success() {
            return None;
        }
        let error = format!("it answered {status}");
        Some(match status.as_u16() {
            401 | 403 => Self::Refused(error),
            404 | 410 => Self::Gone,
            408 | 425 | 429 | 500.. => {
                let seconds = answer.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
                Self::Passing { error, retry_after: seconds.map(Duration::seconds) }
            }
            _ => Self::Lasting(error),
        })
    }
}

impl From<reqwest::Error> for Failure {
    /// Without the URL, which may hold a secret.
    fn from(error: reqwest::Error) -> Self {
        let is_unsent = error.is_connect() || error.is_builder();
        let mut text = error.without_url().to_string();
        text.truncate(text.floor_char_boundary(300));
        if is_unsent { Self::passing(text) } else { Self::Unanswered(text) }
    }
}

/// How long to wait after so many failures in a row: twice as long each time, `longest` at most.
pub(super) fn wait(failures: u32, longest: Duration) -> Duration {
    let seconds = 1_i64.checked_shl(failures.saturating_sub(1)).filter(|seconds| *seconds > 0).unwrap_or(i64::MAX);
    Duration::seconds(seconds).min(longest)
}

/// The same, at most an hour, shortened by up to half as `draw` (0 to 1) says, so that those who failed together do not come back
/// together, and not before the receiver said.
pub(super) fn wait_at_least(failures: u32, draw: f64, retry_after: Option<Duration>) -> Duration {
    let asked = retry_after.unwrap_or(Duration::ZERO).clamp(Duration::ZERO, WAIT_MAX);
    (wait(failures, WAIT_MAX) * (0.5 + draw.clamp(0.0, 1.0) / 2.0)).max(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_within_bounds_and_differ() {
        let seconds = |failures: u32| wait(failures, WAIT_MAX).whole_seconds();
        assert_eq!([1, 2, 3, 4, 10].map(seconds), [1, 2, 4, 8, 512]);
        assert_eq!([13, 40, 64, 200].map(|failures| wait(failures, WAIT_MAX)), [WAIT_MAX; 4]);
        assert_eq!(wait(11, Duration::minutes(15)), Duration::minutes(15));
        assert_eq!(wait_at_least(5, 0.0, None) * 2, wait_at_least(5, 1.0, None));
        let all: i64 = (1..16).map(seconds).sum();
        assert!((3 * 3_600..5 * 3_600).contains(&all), "{all} s until the usual 16 attempts are made");
    }

    #[test]
    fn a_receiver_may_ask_for_more_time_but_not_for_ever() {
        assert_eq!(wait_at_least(1, 0.0, Some(Duration::seconds(30))), Duration::seconds(30));
        assert_eq!(wait_at_least(1, 0.0, Some(Duration::days(400))), WAIT_MAX);
        assert_eq!(wait_at_least(1, 1.0, Some(Duration::seconds(-5))), Duration::seconds(1));
    }
}
