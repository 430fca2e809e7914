//! What listeners report of the streams that they hear, taken together so that no single one of them decides.
//!
//! Of each stream the median of its listeners' reports counts, and of a channel the mean of its streams: whoever reports
//! nonsense changes nothing as long as most listeners of a stream are honest.

use std::collections::HashMap;

use antiphon_core::{
    clock::Micros,
    ids::{MediaSessionId, StreamId},
    wire::control::ReportBlock,
};

/// How much older than the newest report one may be that still counts. Where nobody reports any more, the last ones
/// stay.
const WINDOW: Micros = Micros::from_secs(30);

/// How much a listener's new report of a stream counts against their earlier ones: about the last four decide.
const WEIGHT: f32 = 0.25;

/// Reports kept of one channel, each listener's of each stream; further ones take the place of the oldest.
const REPORTS_MAX: usize = 4_096;

/// What one listener says of one stream.
#[derive(Clone, Copy, Debug)]
struct Report {
    at: Micros,
    round_trip_ms: f32,
    loss: f32,
}

/// The reports of one channel.
#[derive(Clone, Debug, Default)]
pub(super) struct Reports {
    kept: HashMap<(StreamId, MediaSessionId), Report>,
}

/// What they come to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Reported {
    pub(super) round_trip_ms: f32,
    /// 0 to 1.
    pub(super) loss: f32,
    /// Of how many streams.
    pub(super) streams: u32,
}

impl Reports {
    /// Takes in what one listener says of one speaker. A report about no frames at all says nothing.
    pub(super) fn take(&mut self, now: Micros, listener: MediaSessionId, block: &ReportBlock) {
        if block.received == 0 && block.lost_fraction == 0 {
            return;
        }
        let (round_trip_ms, loss) = (f32::from(block.round_trip_ms), f32::from(block.lost_fraction) / 65_536.0);
        let key = (block.stream, listener);
        if let Some(report) = self.kept.get_mut(&key) {
            report.at = now;
            report.round_trip_ms += (round_trip_ms - report.round_trip_ms) * WEIGHT;
            report.loss += (loss - report.loss) * WEIGHT;
            return;
        }
        // Whoever is new pays for the order, at most once in joining.
        self.kept.retain(|_, report| now.since(report.at) < WINDOW);
        if self.kept.len() >= REPORTS_MAX
            && let Some(oldest) = self.kept.iter().min_by_key(|(_, report)| report.at).map(|(key, _)| *key)
        {
            self.kept.remove(&oldest);
        }
        self.kept.insert(key, Report { at: now, round_trip_ms, loss });
    }

    /// What they come to; `None` before the first.
    pub(super) fn summary(&self) -> Option<Reported> {
        let newest = self.kept.values().map(|report| report.at).max()?;
        let mut by_stream: HashMap<StreamId, Vec<Report>> = HashMap::new();
        for ((stream, _), report) in &self.kept {
            if newest.since(report.at) < WINDOW {
                by_stream.entry(*stream).or_default().push(*report);
            }
        }
        let count = by_stream.len() as f32;
        let mean = |of: fn(&Report) -> f32| by_stream.values().map(|reports| median(reports, of)).sum::<f32>() / count;
        Some(Reported {
            round_trip_ms: mean(|report| report.round_trip_ms),
            loss: mean(|report| report.loss),
            streams: u32::try_from(by_stream.len()).unwrap_or(u32::MAX),
        })
    }
}

/// The middle one; of two in the middle the lower, so that of two listeners none can make things look bad alone.
fn median(reports: &[Report], of: fn(&Report) -> f32) -> f32 {
    let mut values: Vec<f32> = reports.iter().map(of).collect();
    values.sort_unstable_by(f32::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(stream: u32, round_trip_ms: u16, lost_fraction: u16, received: u32) -> ReportBlock {
        ReportBlock { stream: StreamId(stream), lost_fraction, round_trip_ms, jitter_us: 0, received }
    }

    fn round_trip_ms(reports: &Reports) -> f32 {
        reports.summary().expect("known").round_trip_ms
    }

    #[test]
    fn figures_begin_with_the_first_report_and_follow_the_next() {
        let mut reports = Reports::default();
        reports.take(Micros::ZERO, MediaSessionId(1), &block(1, 0, 0, 0));
        assert_eq!(reports.summary(), None, "a report about nothing");
        reports.take(Micros::ZERO, MediaSessionId(1), &block(1, 40, 0, 100));
        assert_eq!(reports.summary(), Some(Reported { round_trip_ms: 40.0, loss: 0.0, streams: 1 }));
        for second in 0..60 {
            reports.take(Micros::from_secs(second), MediaSessionId(1), &block(1, 80, 6_554, 90));
        }
        let reported = reports.summary().expect("known");
        assert!((reported.round_trip_ms - 80.0).abs() < 0.1 && (reported.loss - 0.1).abs() < 0.001, "{reported:?}");
    }

    #[test]
    fn a_lying_listener_changes_nothing() {
        let mut reports = Reports::default();
        for round in 0..20 {
            let now = Micros::from_secs(round);
            for listener in 0..4 {
                reports.take(
                    now,
                    MediaSessionId(listener),
                    &block(1, 40 + u16::try_from(listener).expect("small"), 0, 100),
                );
            }
            // As often as it may: what counts is who says it, not how often.
            for _ in 0..50 {
                reports.take(now, MediaSessionId(99), &block(1, u16::MAX, u16::MAX, 0));
            }
        }
        let reported = reports.summary().expect("known");
        assert!((40.0..=43.0).contains(&reported.round_trip_ms) && reported.loss == 0.0, "{reported:?}");
    }

    #[test]
    fn of_two_listeners_none_makes_things_look_bad_alone() {
        let mut reports = Reports::default();
        reports.take(Micros::ZERO, MediaSessionId(1), &block(1, 40, 0, 100));
        reports.take(Micros::ZERO, MediaSessionId(2), &block(1, 9_000, 0, 100));
        assert_eq!(round_trip_ms(&reports), 40.0);
    }

    #[test]
    fn streams_count_alike_however_many_hear_them() {
        let mut reports = Reports::default();
        for listener in 0..9 {
            reports.take(Micros::ZERO, MediaSessionId(listener), &block(1, 20, 0, 100));
        }
        reports.take(Micros::ZERO, MediaSessionId(1), &block(2, 60, 0, 100));
        assert_eq!(round_trip_ms(&reports), 40.0);
    }

    #[test]
    fn old_reports_count_until_there_are_newer_ones() {
        let mut reports = Reports::default();
        reports.take(Micros::ZERO, MediaSessionId(1), &block(1, 500, 0, 100));
        assert_eq!(round_trip_ms(&reports), 500.0, "the last that is known");
        reports.take(Micros::from_secs(31), MediaSessionId(2), &block(2, 30, 0, 100));
        assert_eq!(round_trip_ms(&reports), 30.0);
        assert_eq!(reports.kept.len(), 1);
    }

    #[test]
    fn no_more_are_kept_than_the_limit() {
        let mut reports = Reports::default();
        for listener in 0..=u32::try_from(REPORTS_MAX).expect("small") {
            reports.take(Micros(u64::from(listener)), MediaSessionId(listener), &block(1, 20, 0, 100));
        }
        assert_eq!(reports.kept.len(), REPORTS_MAX);
        assert!(!reports.kept.contains_key(&(StreamId(1), MediaSessionId(0))), "the oldest went");
    }
}
