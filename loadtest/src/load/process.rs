//! What another process has used: CPU time and memory.

use std::{fs, io, time::Duration};

use serde::Serialize;

use super::system::{process_cpu_time, signal};

/// A process' CPU time at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct CpuSample {
    total: Duration,
    user_ticks: u64,
    system_ticks: u64,
}

/// CPU time used between two moments.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CpuUsed {
    /// User and system, all threads, in seconds.
    pub seconds: f64,
    /// The share of it spent in user space, as far as the clock's ticks can tell.
    pub user_share: f64,
}

impl CpuSample {
    /// The process' time now.
    pub(super) fn take(pid: u32) -> io::Result<Self> {
        let total = process_cpu_time(pid)?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (user_ticks, system_ticks) = ticks(&stat).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { total, user_ticks, system_ticks })
    }

    /// What was used since `earlier`.
    pub(super) fn since(&self, earlier: &Self) -> CpuUsed {
        let user = self.user_ticks.saturating_sub(earlier.user_ticks) as f64;
        let system = self.system_ticks.saturating_sub(earlier.system_ticks) as f64;
        let user_share = if user + system > 0.0 { user / (user + system) } else { 0.0 };
        CpuUsed { seconds: self.total.saturating_sub(earlier.total).as_secs_f64(), user_share }
    }
}

impl CpuUsed {
    /// What all of these used; `None` when one of them is unknown, or there is none.
    pub(super) fn sum(parts: &[Option<Self>]) -> Option<Self> {
        let parts: Vec<Self> = parts.iter().copied().collect::<Option<_>>()?;
        let seconds: f64 = parts.iter().map(|part| part.seconds).sum();
        let user: f64 = parts.iter().map(|part| part.seconds * part.user_share).sum();
        let user_share = if seconds > 0.0 { user / seconds } else { 0.0 };
        (!parts.is_empty()).then_some(Self { seconds, user_share })
    }
}

/// User and system ticks from `/proc/PID/stat`: fields 14 and 15, counted behind the name, which may hold anything.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let behind_name = &stat[stat.rfind(')')? + 1..];
    let mut fields = behind_name.split_ascii_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Whether a process can be measured, and sent signals where that is `signalled`; if not, why.
pub(super) fn check(pid: u32, signalled: bool) -> Result<(), String> {
    let looked = CpuSample::take(pid).and_then(|_| resident_bytes(pid));
    // Signal 0 sends nothing, and says whether another could be sent.
    let asked = looked.and_then(|_| if signalled { signal(pid, 0) } else { Ok(()) });
    asked.map_err(|error| match error.raw_os_error() {
        Some(libc::ESRCH | libc::ENOENT | libc::EINVAL) | None => {
            format!("--pid {pid}: no such process runs on this machine; `pidof antiphon` names the server's")
        }
        Some(libc::EPERM | libc::EACCES) => {
            format!("--pid {pid}: this process is somebody else's; run as the user whose it is")
        }
        Some(_) => format!("--pid {pid}: {error}"),
    })
}

/// The memory that a process has in RAM, in bytes.
pub(super) fn resident_bytes(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<u64>().ok());
    kibibytes.map(|count| count * 1_024).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The command of a process, to say in a report what was measured.
pub(super) fn command_of(pid: u32) -> io::Result<String> {
    Ok(fs::read_to_string(format!("/proc/{pid}/comm"))?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_blanks_and_parentheses_do_not_confuse() {
        let stat = "17 (a (b) c) S 1 17 17 0 -1 4194560 100 0 0 0 250 75 0 0 20 0 4 0 100 0 0";
        assert_eq!(ticks(stat), Some((250, 75)));
        assert_eq!(ticks("17 (cut"), None);
    }

    #[test]
    fn what_several_used_is_known_when_each_is() {
        let used = |seconds, user_share| Some(CpuUsed { seconds, user_share });
        assert_eq!(CpuUsed::sum(&[used(1.0, 0.5), used(3.0, 0.0)]), used(4.0, 0.125));
        assert_eq!(CpuUsed::sum(&[used(1.0, 0.5), None]), None);
        assert_eq!(CpuUsed::sum(&[]), None);
    }

    #[test]
    fn our_own_figures_are_there() {
        let pid = std::process::id();
        let before = CpuSample::take(pid).expect("our own");
        let bytes = vec![1_u8; 16 << 20];
        let resident = resident_bytes(pid).expect("our own");
        assert!(resident > std::hint::black_box(&bytes).len() as u64);
        let used = CpuSample::take(pid).expect("our own").since(&before);
        assert!(used.seconds > 0.0 && (0.0..=1.0).contains(&used.user_share));
        assert!(!command_of(pid).expect("our own").is_empty());
    }
}
