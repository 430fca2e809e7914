//! What a speaker is told to change about their encoding, from what their listeners report.
//!
//! The worst listeners decide: the hint suits the loss that one listener in ten exceeds. It gets more robust as soon as
//! the smoothed loss asks for it, and goes back one step at a time, each after [`PATIENCE`] of clearly less loss.
//! Reports that stop coming are forgotten, so that a listener who left does not decide for ever.

use crate::{clock::Micros, ids::StreamId, wire::control::ReportBlock};

/// How long a report counts: four of a client's reports.
pub const REPORT_LIFETIME: Micros = Micros::from_secs(8);
/// How long loss must be clearly lower before the hint follows.
pub const PATIENCE: Micros = Micros::from_secs(10);
/// How many listeners' reports are kept for one stream; of more, the worst.
pub const REPORTERS_MAX: usize = 256;

/// Frames expected in a report for it to count in full: 2 s of 20 ms frames.
const FULL_REPORT_FRAMES: f32 = 100.0;
/// The part of a threshold that loss must fall below before the step is left.
const BETTER_BELOW: f32 = 0.6;

/// What a speaker should encode with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hint {
    /// Bits per second.
    pub bitrate: u32,
    /// Opus in-band forward error correction.
    pub fec: bool,
    /// Opus discontinuous transmission.
    pub dtx: bool,
    /// The share of frames to expect lost, 0 to 1.
    pub expected_loss: f32,
}

/// One step towards robustness.
struct Step {
    /// The smoothed loss from which it applies.
    from_loss: f32,
    /// Percent of the bitrate without loss. What repairs lost frames needs room, else it is taken from the sound, which is worse than
    /// the loss (`antiphon-loadtest speech` shows it). Where every third frame is lost the link is full, and less gets through better.
    bitrate_percent: u32,
    fec: bool,
    dtx: bool,
    expected_loss: f32,
}

const STEPS: [Step; 5] = [
    Step { from_loss: 0.0, bitrate_percent: 100, fec: false, dtx: false, expected_loss: 0.0 },
    Step { from_loss: 0.02, bitrate_percent: 110, fec: true, dtx: false, expected_loss: 0.08 },
    Step { from_loss: 0.06, bitrate_percent: 125, fec: true, dtx: false, expected_loss: 0.15 },
    Step { from_loss: 0.12, bitrate_percent: 125, fec: true, dtx: true, expected_loss: 0.25 },
    Step { from_loss: 0.30, bitrate_percent: 50, fec: true, dtx: true, expected_loss: 0.40 },
];

#[derive(Clone, Copy, Debug)]
struct Reporter {
    listener: StreamId,
    loss: f32,
    at: Micros,
}

/// The advisor of one speaking stream.
#[derive(Clone, Debug)]
pub struct QualityAdvisor {
    bitrate: u32,
    reporters: Vec<Reporter>,
    step: usize,
    /// Since when loss has been low enough to leave the step.
    better_since: Option<Micros>,
    told: Hint,
}

impl QualityAdvisor {
    /// For a stream that is encoded at `bitrate` bits per second when nothing is lost.
    #[must_use]
    pub fn new(bitrate: u32) -> Self {
        let told = hint(&STEPS[0], bitrate);
        Self { bitrate, reporters: Vec::new(), step: 0, better_since: None, told }
    }

    /// What the speaker was last told, or is to begin with.
    #[must_use]
    pub const fn current(&self) -> Hint {
        self.told
    }

    /// A listener's report on this stream.
    pub fn report(&mut self, now: Micros, listener: StreamId, block: &ReportBlock) {
        let Some((loss, weight)) = loss_and_weight(block) else { return };
        if let Some(reporter) = self.reporters.iter_mut().find(|reporter| reporter.listener == listener) {
            reporter.loss += (loss - reporter.loss) * weight;
            reporter.at = now;
            return;
        }
        self.forget_old(now);
        let reporter = Reporter { listener, loss: loss * weight, at: now };
        if self.reporters.len() < REPORTERS_MAX {
            self.reporters.push(reporter);
        } else if let Some(best) = self.reporters.iter_mut().min_by(|a, b| a.loss.total_cmp(&b.loss))
            && best.loss < reporter.loss
        {
            *best = reporter;
        }
    }

    /// The new hint when there is one worth telling; call it about once a second.
    pub fn poll(&mut self, now: Micros) -> Option<Hint> {
        self.forget_old(now);
        let loss = self.deciding_loss();
        let asked = STEPS.iter().rposition(|step| loss >= step.from_loss).unwrap_or(0);
        if asked > self.step {
            self.step = asked;
            self.better_since = None;
        } else if self.step > 0 && loss < STEPS[self.step].from_loss * BETTER_BELOW {
            let since = *self.better_since.get_or_insert(now);
            if now.since(since) >= PATIENCE {
                self.step -= 1;
                self.better_since = None;
            }
        } else {
            self.better_since = None;
        }
        let hint = hint(&STEPS[self.step], self.bitrate);
        (hint != self.told).then(|| {
            self.told = hint;
            hint
        })
    }

    fn forget_old(&mut self, now: Micros) {
        self.reporters.retain(|reporter| now.since(reporter.at) < REPORT_LIFETIME);
    }

    /// The loss that one reporter in ten exceeds; of fewer than ten, the worst.
    fn deciding_loss(&mut self) -> f32 {
        self.reporters.sort_unstable_by(|a, b| b.loss.total_cmp(&a.loss));
        self.reporters.get(self.reporters.len() / 10).map_or(0.0, |reporter| reporter.loss)
    }
}

fn hint(step: &Step, bitrate: u32) -> Hint {
    let bitrate = bitrate / 100 * step.bitrate_percent;
    Hint { bitrate, fec: step.fec, dtx: step.dtx, expected_loss: step.expected_loss }
}

/// The reported loss as a share, and how much it counts: few frames say little. `None` when none were expected.
fn loss_and_weight(block: &ReportBlock) -> Option<(f32, f32)> {
    let loss = f32::from(block.lost_fraction) / 65_536.0;
    let received = block.received as f32;
    if block.received == 0 {
        // Everything lost says so; nothing expected says nothing.
        return (block.lost_fraction > 0).then_some((loss, 0.5));
    }
    let expected = received / (1.0 - loss);
    Some((loss, (expected / FULL_REPORT_FRAMES).min(1.0) * 0.5))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(loss: f32, received: u32) -> ReportBlock {
        let lost_fraction = (loss * 65_536.0) as u16;
        ReportBlock { stream: StreamId(1), lost_fraction, round_trip_ms: 30, jitter_us: 900, received }
    }

    /// Reports of the given losses by listeners 0.. every 2 s, polling every second; the hints told.
    fn run(advisor: &mut QualityAdvisor, from_s: u64, seconds: u64, losses: &[f32]) -> Vec<(u64, Hint)> {
        let mut told = Vec::new();
        for second in from_s..from_s + seconds {
            let now = Micros::from_secs(second);
            for (listener, &loss) in (0..).zip(losses).filter(|_| second % 2 == 0) {
                advisor.report(now, StreamId(listener), &block(loss, 100));
            }
            told.extend(advisor.poll(now).map(|hint| (second, hint)));
        }
        told
    }

    #[test]
    fn without_loss_there_is_nothing_to_tell() {
        let mut advisor = QualityAdvisor::new(32_000);
        assert_eq!(run(&mut advisor, 0, 60, &[0.0, 0.01]), []);
        assert_eq!(advisor.current(), Hint { bitrate: 32_000, fec: false, dtx: false, expected_loss: 0.0 });
    }

    #[test]
    fn more_loss_is_answered_within_seconds_and_once() {
        let mut advisor = QualityAdvisor::new(32_000);
        let told = run(&mut advisor, 0, 60, &[0.08, 0.0]);
        assert!(told.iter().all(|&(second, _)| second < 8), "{told:?}");
        let (_, last) = told.last().expect("told");
        assert_eq!(*last, Hint { bitrate: 40_000, fec: true, dtx: false, expected_loss: 0.15 });
    }

    #[test]
    fn it_goes_back_step_by_step_and_late() {
        let mut advisor = QualityAdvisor::new(32_000);
        run(&mut advisor, 0, 20, &[0.2]);
        assert!((advisor.current().expected_loss - 0.25).abs() < f32::EPSILON && advisor.current().dtx);
        let told = run(&mut advisor, 20, 60, &[0.0]);
        let losses: Vec<f32> = told.iter().map(|(_, hint)| hint.expected_loss).collect();
        assert_eq!(losses, [0.15, 0.08, 0.0]);
        assert!(told.windows(2).all(|pair| pair[1].0 - pair[0].0 >= 10), "{told:?}");
    }

    #[test]
    fn loss_around_a_threshold_does_not_flap() {
        let mut advisor = QualityAdvisor::new(32_000);
        let mut told = Vec::new();
        for round in 0..30 {
            told.extend(run(&mut advisor, round * 4, 4, &[if round % 2 == 0 { 0.07 } else { 0.05 }]));
        }
        assert!(told.len() <= 2, "{told:?}");
    }

    #[test]
    fn one_bad_listener_of_many_does_not_decide_but_a_tenth_does() {
        let mut losses = [0.0; 40];
        losses[..4].fill(0.2);
        assert_eq!(run(&mut QualityAdvisor::new(32_000), 0, 20, &losses), []);
        losses[4] = 0.2;
        assert!(!run(&mut QualityAdvisor::new(32_000), 0, 20, &losses).is_empty());
    }

    #[test]
    fn reports_that_stop_are_forgotten() {
        let mut advisor = QualityAdvisor::new(32_000);
        run(&mut advisor, 0, 20, &[0.04]);
        assert!(advisor.current().fec);
        assert_eq!(run(&mut advisor, 20, 30, &[]).last().map(|(_, hint)| hint.fec), Some(false));
    }

    #[test]
    fn a_few_frames_say_little() {
        let mut advisor = QualityAdvisor::new(32_000);
        advisor.report(Micros::ZERO, StreamId(1), &block(0.5, 1));
        advisor.report(Micros::ZERO, StreamId(2), &block(0.0, 0));
        assert_eq!(advisor.poll(Micros::ZERO), None);
    }

    #[test]
    fn no_more_reporters_are_kept_than_the_limit_and_the_worst_stay() {
        let mut advisor = QualityAdvisor::new(32_000);
        for listener in 0..1_000 {
            let loss = if listener >= 900 { 0.3 } else { 0.0 };
            advisor.report(Micros::ZERO, StreamId(listener), &block(loss, 100));
        }
        assert_eq!(advisor.reporters.len(), REPORTERS_MAX);
        assert!(advisor.poll(Micros::ZERO).expect("told").fec);
    }
}
