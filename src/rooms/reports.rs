//! What listeners report of the streams that they hear, taken together so that no single one of them decides.
//!
//! Of each stream the median of its listeners' reports counts, and of a channel the mean of its streams: whoever reports
//! nonsense changes nothing as long as most of the listeners who are asked are honest. Not all need be asked: of a stream
//! that hundreds hear, some tens say as much, and taking in a report stays cheap however many hear however many.

use std::collections::HashMap;

use antiphon_core::{clock::Micros, ids::StreamId, wire::control::ReportBlock};

/// How much older than the newest report one may be that still counts. Where nobody reports any more, the last ones
/// stay. Whoever has said nothing for so long gives up their place.
const WINDOW: Micros = Micros::from_secs(30);

/// How much a listener's new report of a stream counts against their earlier ones: about the last four decide.
const WEIGHT: f32 = 0.25;

/// Listeners of one stream whose reports are kept, the first who say something.
const LISTENERS_MAX: usize = 32;

/// Streams of a channel of which reports are kept, the first of which something is said.
const STREAMS_MAX: usize = 128;

/// What one listener says of one stream.
#[derive(Clone, Copy, Debug)]
struct Report {
    listener: StreamId,
    at: Micros,
    round_trip_ms: f32,
    loss: f32,
}

/// What its listeners say of one stream, [`LISTENERS_MAX`] at most and one at least.
type Said = Vec<Report>;

/// The reports of one channel.
#[derive(Clone, Debug, Default)]
pub(super) struct Reports {
    streams: HashMap<StreamId, Said>,
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
    /// Takes in what one listener says of one speaker, unless enough others do already. A report about no frames at all
    /// says nothing.
    pub(super) fn take(&mut self, now: Micros, listener: StreamId, block: &ReportBlock) {
        if block.received == 0 && block.lost_fraction == 0 {
            return;
        }
        let (round_trip_ms, loss) = (f32::from(block.round_trip_ms), f32::from(block.lost_fraction) / 65_536.0);
        let Some(said) = self.of(now, block.stream) else { return };
        if let Some(report) = said.iter_mut().find(|report| report.listener == listener) {
            report.at = now;
            report.round_trip_ms += (round_trip_ms - report.round_trip_ms) * WEIGHT;
            report.loss += (loss - report.loss) * WEIGHT;
            return;
        }
        if said.len() >= LISTENERS_MAX {
            said.retain(|report| now.since(report.at) < WINDOW);
        }
        if said.len() < LISTENERS_MAX {
            said.push(Report { listener, at: now, round_trip_ms, loss });
        }
    }

    /// What is said of a stream; `None` where enough others are kept.
    fn of(&mut self, now: Micros, stream: StreamId) -> Option<&mut Said> {
        if self.streams.len() >= STREAMS_MAX && !self.streams.contains_key(&stream) {
            self.streams.retain(|_, said| said.iter().any(|report| now.since(report.at) < WINDOW));
            if self.streams.len() >= STREAMS_MAX {
                return None;
            }
        }
        Some(self.streams.entry(stream).or_default())
    }

    /// What they come to; `None` before the first.
    pub(super) fn summary(&self) -> Option<Reported> {
        let newest = self.streams.values().flatten().map(|report| report.at).max()?;
        let streams: Vec<Said> = self
            .streams
            .values()
            .map(|said| said.iter().filter(|report| newest.since(report.at) < WINDOW).copied().collect())
            .filter(|said: &Said| !said.is_empty())
            .collect();
        let count = streams.len() as f32;
        let mean = |of: fn(&Report) -> f32| streams.iter().map(|said| median(said, of)).sum::<f32>() / count;
        Some(Reported {
            round_trip_ms: mean(|report| report.round_trip_ms),
            loss: mean(|report| report.loss),
            streams: u32::try_from(streams.len()).unwrap_or(u32::MAX),
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
        reports.take(Micros::ZERO, StreamId(1), &block(1, 0, 0, 0));
        assert_eq!(reports.summary(), None, "a report about nothing");
        reports.take(Micros::ZERO, StreamId(1), &block(1, 40, 0, 100));
        assert_eq!(reports.summary(), Some(Reported { round_trip_ms: 40.0, loss: 0.0, streams: 1 }));
        for second in 0..60 {
            reports.take(Micros::from_secs(second), StreamId(1), &block(1, 80, 6_554, 90));
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
                reports.take(now, StreamId(listener), &block(1, 40 + u16::try_from(listener).expect("small"), 0, 100));
            }
            // As often as it may: what counts is who says it, not how often.
            for _ in 0..50 {
                reports.take(now, StreamId(99), &block(1, u16::MAX, u16::MAX, 0));
            }
        }
        let reported = reports.summary().expect("known");
        assert!((40.0..=43.0).contains(&reported.round_trip_ms) && reported.loss == 0.0, "{reported:?}");
    }

    #[test]
    fn of_two_listeners_none_makes_things_look_bad_alone() {
        let mut reports = Reports::default();
        reports.take(Micros::ZERO, StreamId(1), &block(1, 40, 0, 100));
        reports.take(Micros::ZERO, StreamId(2), &block(1, 9_000, 0, 100));
        assert_eq!(round_trip_ms(&reports), 40.0);
    }

    #[test]
    fn streams_count_alike_however_many_hear_them() {
        let mut reports = Reports::default();
        for listener in 0..9 {
            reports.take(Micros::ZERO, StreamId(listener), &block(1, 20, 0, 100));
        }
        reports.take(Micros::ZERO, StreamId(1), &block(2, 60, 0, 100));
        assert_eq!(round_trip_ms(&reports), 40.0);
    }

    #[test]
    fn old_reports_count_until_there_are_newer_ones() {
        let mut reports = Reports::default();
        reports.take(Micros::ZERO, StreamId(1), &block(1, 500, 0, 100));
        assert_eq!(round_trip_ms(&reports), 500.0, "the last that is known");
        reports.take(Micros::from_secs(31), StreamId(2), &block(2, 30, 0, 100));
        assert_eq!(round_trip_ms(&reports), 30.0);
    }

    #[test]
    fn some_tens_of_listeners_say_enough_until_they_fall_silent() {
        let mut reports = Reports::default();
        let most = u32::try_from(LISTENERS_MAX).expect("small");
        for listener in 0..most {
            reports.take(Micros::ZERO, StreamId(listener), &block(1, 20, 0, 100));
        }
        reports.take(Micros::from_secs(29), StreamId(most), &block(1, 900, 0, 100));
        assert_eq!(round_trip_ms(&reports), 20.0, "enough others say something");
        for listener in most..most + 20 {
            reports.take(Micros::from_secs(30), StreamId(listener), &block(1, 60, 0, 100));
        }
        assert_eq!(round_trip_ms(&reports), 60.0, "the first have said nothing for long");
        assert_eq!(reports.streams[&StreamId(1)].len(), 20);
    }

    #[test]
    fn no_more_streams_are_kept_than_the_limit_until_some_fall_silent() {
        let mut reports = Reports::default();
        let most = u32::try_from(STREAMS_MAX).expect("small");
        for stream in 0..=most {
            reports.take(Micros::ZERO, StreamId(1), &block(stream, 20, 0, 100));
        }
        assert_eq!(reports.summary().expect("known").streams, most);
        assert!(!reports.streams.contains_key(&StreamId(most)), "it came last");
        reports.take(Micros::from_secs(30), StreamId(1), &block(most, 20, 0, 100));
        assert_eq!(reports.streams.len(), 1);
    }
}
