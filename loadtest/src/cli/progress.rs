//! How far a run is, on one line of a terminal that goes with it.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use antiphon_loadtest::load::{Live, Stage};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Rates are over at least so long.
const RATE_OVER: Duration = Duration::from_secs(1);

/// A bar on standard error, where that is a terminal, gone when it is dropped.
pub(crate) struct Progress {
    bar: ProgressBar,
    names: Vec<String>,
    rate: Mutex<Rate>,
}

/// What was delivered when, and what that was by the second.
struct Rate {
    at: Instant,
    delivered: u64,
    per_s: f64,
}

impl Progress {
    /// Of phases with these names.
    pub(crate) fn new(names: Vec<String>) -> Self {
        let bar = ProgressBar::with_draw_target(Some(1_000), ProgressDrawTarget::stderr_with_hz(4));
        if let Ok(style) = ProgressStyle::with_template("{prefix} {bar:20} {elapsed} {msg}") {
            bar.set_style(style);
        }
        let rate = Mutex::new(Rate { at: Instant::now(), delivered: 0, per_s: 0.0 });
        Self { bar, names, rate }
    }

    /// Shows how far a phase is.
    pub(crate) fn show(&self, phase: usize, stage: Stage) {
        let (what, share) = match stage {
            Stage::Connecting(count, all) => (format!("connected {count} of {all}"), share(count, all)),
            Stage::Joining(count, all) => (format!("joined {count} of {all}"), share(count, all)),
            Stage::Binding(count, all) => (format!("bound {count} of {all}"), share(count, all)),
            Stage::Speaking(spoken, all, live) => (self.live(&live), spoken.as_secs_f64() / all.as_secs_f64()),
        };
        let name = self.names.get(phase).map_or("", String::as_str);
        let numbered = format!("{}/{} {name}", phase + 1, self.names.len());
        self.bar.set_prefix(if self.names.len() > 1 { numbered } else { name.to_owned() });
        self.bar.set_message(what);
        self.bar.set_position((share * 1_000.0) as u64);
    }

    fn live(&self, live: &Live) -> String {
        let Live { delivered, expected, p99_ms, joins, cpu_cores } = *live;
        let per_s = self.rate.lock().unwrap_or_else(PoisonError::into_inner).now(delivered);
        let lost = expected.saturating_sub(delivered) as f64 / expected.max(1) as f64 * 100.0;
        let cpu = cpu_cores.map_or_else(String::new, |cores| format!(" · server {cores:.2} cores"));
        format!("{per_s:.0} frames/s · {lost:.2} % missing · p99 {p99_ms:.1} ms · {joins} joins{cpu}")
    }
}

impl Rate {
    fn now(&mut self, delivered: u64) -> f64 {
        let elapsed = self.at.elapsed();
        if delivered < self.delivered {
            // The next phase counts anew.
            *self = Self { at: Instant::now(), delivered, per_s: 0.0 };
        } else if elapsed >= RATE_OVER {
            let per_s = (delivered - self.delivered) as f64 / elapsed.as_secs_f64();
            *self = Self { at: Instant::now(), delivered, per_s };
        }
        self.per_s
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn share(count: usize, all: usize) -> f64 {
    count as f64 / all.max(1) as f64
}
