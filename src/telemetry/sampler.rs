//! What is counted elsewhere and shown as metrics: read when somebody scrapes, and every few seconds besides.

use super::{
    metrics::{self, metrics},
    process::ProcessReading,
};

/// Reads the counters of other parts into the metrics.
#[derive(Debug, Default)]
pub struct Sampler {}

impl Sampler {
    /// Reads everything now.
    pub fn sample(&self) {
        if let Some(reading) = ProcessReading::take() {
            let process = &metrics().process;
            process.cpu.set(reading.cpu_seconds);
            process.resident_memory.set(reading.resident_memory_bytes as f64);
            process.open_files.set(reading.open_files as f64);
        }
        metrics::run_upkeep();
    }
}
