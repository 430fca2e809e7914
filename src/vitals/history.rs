//! A day of points, one every five seconds, in memory.

use std::{
    collections::VecDeque,
    time::{Duration, SystemTime},
};

use super::figures::ClusterFigures;

/// How often a point is taken.
pub const HISTORY_EVERY: Duration = Duration::from_secs(5);

/// Points kept: a day's.
pub const HISTORY_POINTS: usize = 24 * 3_600 / 5;

/// The cluster at one moment, as this node saw it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// When.
    pub at: SystemTime,
    /// The sums and means over nodes.
    pub figures: ClusterFigures,
    /// How well the cluster was, 0 to 1.
    pub health_score: f64,
}

impl Point {
    pub(super) fn new(at: SystemTime, figures: &ClusterFigures, health_score: f64) -> Self {
        Self { at, figures: *figures, health_score }
    }
}

/// The points, oldest first.
#[derive(Debug)]
pub(super) struct History {
    since: SystemTime,
    points: VecDeque<Point>,
}

impl History {
    pub(super) const fn begun(since: SystemTime) -> Self {
        Self { since, points: VecDeque::new() }
    }

    pub(super) const fn since(&self) -> SystemTime {
        self.since
    }

    pub(super) fn push(&mut self, point: Point) {
        if self.points.len() >= HISTORY_POINTS {
            self.points.pop_front();
        }
        self.points.push_back(point);
    }

    /// Points of the last `period_s` seconds, oldest first. Where there are more than `limit`, so many of them, evenly
    /// spread, the newest always among them: points as they were taken, not means.
    pub(super) fn last(&self, now: SystemTime, period_s: u64, limit: usize) -> Vec<Point> {
        let from = now.checked_sub(Duration::from_secs(period_s)).unwrap_or(SystemTime::UNIX_EPOCH);
        let first = self.points.partition_point(|point| point.at < from);
        let count = self.points.len() - first;
        if count <= limit {
            return self.points.range(first..).copied().collect();
        }
        let newest = count - 1;
        let back = |index: usize| if limit > 1 { index * newest / (limit - 1) } else { 0 };
        (0..limit).rev().map(|index| self.points[first + newest - back(index)]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(second)
    }

    fn filled(points: u64) -> History {
        let mut history = History::begun(at(0));
        for index in 1..=points {
            history.push(Point::new(at(index * 5), &ClusterFigures::default(), 1.0));
        }
        history
    }

    fn seconds(points: &[Point]) -> Vec<u64> {
        let of = |point: &Point| point.at.duration_since(SystemTime::UNIX_EPOCH).expect("after").as_secs();
        points.iter().map(of).collect()
    }

    #[test]
    fn a_period_is_answered_whole_or_evenly_thinned() {
        let history = filled(100);
        assert_eq!(seconds(&history.last(at(500), 20, 100)), [480, 485, 490, 495, 500]);
        assert_eq!(seconds(&history.last(at(500), 20, 3)), [480, 490, 500]);
        assert_eq!(seconds(&history.last(at(500), 3_600, 2)), [5, 500]);
        assert_eq!(seconds(&history.last(at(500), 3_600, 1)), [500]);
        assert_eq!(history.last(at(500), 3_600, 1_000).len(), 100);
        assert!(history.last(at(900), 20, 10).is_empty(), "nothing so new");
    }

    #[test]
    fn a_day_is_kept() {
        let history = filled(HISTORY_POINTS as u64 + 3);
        assert_eq!((history.points.len(), history.points[0].at), (17_280, at(20)));
        assert_eq!(history.since(), at(0));
    }
}
