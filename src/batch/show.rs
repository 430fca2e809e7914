//! Bars for people who watch a run; nothing but errors where nobody does.

use std::{
    io::{self, Write},
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::transcode::Watch;

/// How often a bar is looked after.
const LOOK: Duration = Duration::from_millis(200);

/// A bar's steps.
const STEPS: u64 = 1_000;

pub(super) struct Show {
    bars: MultiProgress,
    all: ProgressBar,
}

impl Show {
    /// For so many things.
    pub(super) fn new(things: usize) -> Self {
        let bars = MultiProgress::new();
        let all = bars.add(ProgressBar::new(things as u64));
        all.set_style(style("{bar:30} {pos}/{len}  {elapsed_precise}"));
        Self { bars, all }
    }

    /// One is done with.
    pub(super) fn passed(&self) {
        self.all.inc(1);
    }

    /// Shows how far `work` is while it goes on.
    pub(super) fn during<T>(&self, name: &str, watch: &Watch, work: impl FnOnce() -> T) -> T {
        let bar = self.bars.insert_before(&self.all, ProgressBar::new(STEPS));
        bar.set_style(style("{bar:30} {percent:>3} %  {msg}"));
        bar.set_message(name.to_owned());
        let done = std::sync::mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let (alive, ended) = done;
            let seen = &bar;
            scope.spawn(move || {
                while ended.recv_timeout(LOOK) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                    seen.set_position((watch.progress().unwrap_or(0.0) * STEPS as f64) as u64);
                }
            });
            let made = work();
            drop(alive);
            bar.finish_and_clear();
            made
        })
    }

    /// Says something above the bars, or as it is where there are none.
    pub(super) fn say(&self, text: &str) {
        // Whoever reads no further needs no more of it.
        self.bars.suspend(|| _ = writeln!(io::stderr(), "{text}"));
    }

    pub(super) fn end(&self) {
        self.all.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
