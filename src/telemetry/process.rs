//! What the kernel says of this process. Elsewhere than on Linux, which has `/proc/self`: nothing.

use std::fs;

use rustix::{
    param::page_size,
    time::{ClockId, clock_gettime},
};
use serde::Serialize;
use utoipa::ToSchema;

/// One reading.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ToSchema)]
pub struct ProcessReading {
    /// CPU time used so far, user and system.
    pub cpu_seconds: f64,
    /// Resident memory.
    pub resident_memory_bytes: u64,
    /// Open file descriptors.
    pub open_files: u64,
    /// How many there may be; null for any number.
    pub open_files_limit: Option<u64>,
    /// Threads.
    pub threads: u64,
}

impl ProcessReading {
    /// Reads it now.
    #[must_use]
    pub fn take() -> Option<Self> {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        Some(Self {
            cpu_seconds: cpu_seconds(),
            resident_memory_bytes: status_number(&status, "VmRSS:")? * 1_024,
            open_files: open_files()?,
            open_files_limit: open_files_limit(&fs::read_to_string("/proc/self/limits").ok()?),
            threads: status_number(&status, "Threads:")?,
        })
    }
}

/// CPU time used so far in seconds, user and system, and resident memory in bytes: what is cheap to ask for often.
#[must_use]
pub fn cpu_and_memory() -> Option<(f64, u64)> {
    Some((cpu_seconds(), resident_bytes(&fs::read_to_string("/proc/self/statm").ok()?)?))
}

fn cpu_seconds() -> f64 {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}

/// Resident memory from `/proc/self/statm`: the second number, in pages (proc(5)).
fn resident_bytes(statm: &str) -> Option<u64> {
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * page_size() as u64)
}

fn status_number(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// Open file descriptors. Since Linux 6.2 the folder's size says how many; before, it is 0 and they have to be counted,
/// which takes 10 ms for 20,000.
fn open_files() -> Option<u64> {
    let folder = "/proc/self/fd";
    match fs::metadata(folder).ok()?.len() {
        0 => Some(fs::read_dir(folder).ok()?.count() as u64),
        count => Some(count),
    }
}

/// The soft limit from `/proc/self/limits`; `None` where it is `unlimited`.
fn open_files_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lines_are_read() {
        assert_eq!(resident_bytes("90000 1500 700 10 0 400 0\n"), Some(1_500 * page_size() as u64));
        assert_eq!(resident_bytes("90000"), None);
        let limits = |soft: &str| format!("Limit  Soft Limit\nMax open files            {soft}      524288    files\n");
        assert_eq!(open_files_limit(&limits("1024")), Some(1_024));
        assert_eq!(open_files_limit(&limits("unlimited")), None);
        assert_eq!(status_number("Name:\tx\nVmRSS:\t    2048 kB\n", "VmRSS:"), Some(2_048));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn files_opened_are_counted() {
        let before = open_files().expect("Linux has /proc");
        let files: Vec<_> = (0..1_000).map(|_| fs::File::open("/dev/null").expect("opens")).collect();
        // Other tests open and close some meanwhile.
        assert!(open_files().expect("as before") > before + 500, "{before} before");
        drop(files);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_memory_files_and_threads() {
        let reading = ProcessReading::take().expect("Linux has /proc");
        assert!(reading.resident_memory_bytes > 100_000 && reading.open_files >= 3 && reading.threads >= 1);
        let (cpu_seconds, memory_bytes) = cpu_and_memory().expect("as before");
        assert!(reading.cpu_seconds > 0.0 && cpu_seconds >= reading.cpu_seconds, "{cpu_seconds} after {reading:?}");
        // Other tests take and give back memory meanwhile.
        assert!(
            memory_bytes.abs_diff(reading.resident_memory_bytes) < reading.resident_memory_bytes / 2,
            "{memory_bytes}"
        );
    }
}
