//! Where something was measured.

use std::fs;

use serde::Serialize;

/// This machine, as far as it says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Environment {
    /// Processors that this process may use.
    pub cpus: usize,
    /// Their name.
    pub cpu_model: Option<String>,
    /// The kernel's release.
    pub kernel: Option<String>,
    /// Memory in all.
    pub memory_bytes: Option<u64>,
}

impl Environment {
    /// The machine that this runs on.
    #[must_use]
    pub fn here() -> Self {
        let field = |file: &str, name: &str| {
            let text = fs::read_to_string(file).ok()?;
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let kibibytes = |text: String| text.split_ascii_whitespace().next()?.parse::<u64>().ok();
        Self {
            cpus: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            cpu_model: field("/proc/cpuinfo", "model name"),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").ok().map(|text| text.trim().to_owned()),
            memory_bytes: field("/proc/meminfo", "MemTotal").and_then(kibibytes).map(|count| count * 1_024),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_processors_and_memory() {
        let here = Environment::here();
        assert!(here.cpus > 0 && here.kernel.is_some() && here.memory_bytes.is_some_and(|bytes| bytes > 1 << 20));
    }
}
