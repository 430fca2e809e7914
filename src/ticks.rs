//! When what is done now and then is done: all of it at the same moments, so that a processor with nothing else to do is woken once
//! for all, and not for each.

use std::{sync::OnceLock, time::Duration};

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// Ticks at once, and then whenever a multiple of `period` has passed since this was first called in the process. Of those that come while
/// its user is busy one is made up for, at once. So two may be closer together than `period`: for whoever needs a rest in between it is
/// `tokio::time::interval`.
///
/// # Panics
/// When `period` is zero.
#[must_use]
pub(crate) fn ticks(period: Duration) -> Interval {
    static BEGUN: OnceLock<Instant> = OnceLock::new();
    let now = Instant::now();
    let mut ticks = interval_at(last_moment(*BEGUN.get_or_init(|| now), now, period), period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

/// The last moment up to `now` that is a multiple of `period` after the beginning.
fn last_moment(begun: Instant, now: Instant, period: Duration) -> Instant {
    let since = now.saturating_duration_since(begun);
    now - Duration::from_nanos((since.as_nanos() % period.as_nanos()) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_is_at_once() {
        let mut ticks = ticks(Duration::from_secs(3_600));
        let first = tokio::time::timeout(Duration::from_secs(60), ticks.tick()).await;
        assert!(first.is_ok());
    }

    #[tokio::test]
    async fn who_comes_later_ticks_at_the_same_moments() {
        let period = Duration::from_millis(2);
        let one = ticks(period).tick().await;
        tokio::time::sleep(Duration::from_millis(7)).await;
        let other = ticks(period).tick().await;
        assert!(other > one);
        assert_eq!((other - one).as_nanos() % period.as_nanos(), 0);
    }

    #[test]
    fn moments_are_the_same_for_all() {
        let begun = Instant::now();
        for since_ms in [0, 1, 999, 1_000, 4_999, 5_000, 123_456_789] {
            for period_ms in [1, 500, 1_000, 5_000, 60_000] {
                let now = begun + Duration::from_millis(since_ms);
                let last = last_moment(begun, now, Duration::from_millis(period_ms));
                assert!(now.duration_since(last) < Duration::from_millis(period_ms));
                assert_eq!(last.duration_since(begun).as_millis() % u128::from(period_ms), 0, "{since_ms} {period_ms}");
            }
        }
    }
}
