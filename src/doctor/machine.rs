//! What the machine grants: file descriptors, socket buffers, processors, memory.

use std::{fs, thread};

use socket2::{Domain, Protocol, Socket, Type};

use super::report::{Group, Report};
use crate::{media::MediaConfig, settings::Settings, telemetry::process::ProcessReading};

/// File descriptors beside those of people: sockets of workers, the database, Redis, requests of the moment.
const FILES_BESIDE: u64 = 1_024;

/// What a node with some two hundred people has in memory (docs/performance.md, Coming and going).
const MEMORY_BYTES: u64 = 86 << 20;
/// What one password takes while it is hashed (argon2id with 19 MiB).
const HASH_BYTES: u64 = 19 << 20;

const SYSCTL: &str = "install deploy/sysctl/90-antiphon.conf in /etc/sysctl.d and run `sysctl --system`";

pub(super) fn examine(settings: &Settings, report: &mut Report) {
    let mut group = report.group("machine");
    files(settings, &mut group);
    buffers(settings, &mut group);
    processors(settings, &mut group);
    memory(settings, &mut group);
}

fn files(settings: &Settings, group: &mut Group<'_>) {
    let wanted = u64::from(settings.limits.gateway_connections) + FILES_BESIDE;
    let Some(reading) = ProcessReading::take() else { return };
    match reading.open_files_limit {
        Some(limit) if limit < wanted => group.warn(
            format!(
                "{limit} file descriptors are for some {} people; limits.gateway_connections lets {} in",
                limit.saturating_sub(FILES_BESIDE),
                settings.limits.gateway_connections
            ),
            format!("LimitNOFILE={wanted} in the unit (`ulimit -n {wanted}`), or lower limits.gateway_connections"),
        ),
        Some(limit) => group.ok(format!("{limit} file descriptors")),
        None => group.ok("any number of file descriptors"),
    }
}

/// What the kernel really gives a socket that asks as the workers' do.
fn buffers(settings: &Settings, group: &mut Group<'_>) {
    let Ok(socket) = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)) else { return };
    let received = usize::try_from(settings.media.receive_buffer_bytes).unwrap_or(usize::MAX);
    let sent = MediaConfig::default().send_buffer_bytes;
    let _ = (socket.set_recv_buffer_size(received), socket.set_send_buffer_size(sent));
    for (direction, name, wanted, granted) in [
        ("receive", "net.core.rmem_max", received, socket.recv_buffer_size()),
        ("send", "net.core.wmem_max", sent, socket.send_buffer_size()),
    ] {
        // The kernel doubles the number to account for its own structures.
        let Ok(granted) = granted.map(|granted| granted / 2) else { continue };
        if granted < wanted {
            let found =
                format!("UDP sockets get {direction} buffers of {granted} bytes and want {wanted}: bursts may be lost");
            group.warn(found, format!("{name} is too small: {SYSCTL}"));
        } else {
            group.ok(format!("UDP sockets get {direction} buffers of {wanted} bytes"));
        }
    }
}

fn processors(settings: &Settings, group: &mut Group<'_>) {
    // It knows of affinity and of a control group's quota.
    let Ok(there) = thread::available_parallelism() else { return };
    let workers = usize::from(settings.media.workers);
    if workers > there.get() {
        let found = format!("{workers} media workers (media.workers) share {there} processors: each waits for others");
        group.warn(found, "leave media.workers at 0, for one per processor, or raise the container's limit");
    } else {
        group.ok(format!("{there} processors"));
    }
}

fn memory(settings: &Settings, group: &mut Group<'_>) {
    let Some(bytes) = memory_bytes() else { return };
    let processors = thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let hashes = match settings.auth.password_hashes_at_once {
        0 => processors.div_ceil(2),
        count => count.into(),
    };
    let wanted = MEMORY_BYTES + hashes * HASH_BYTES;
    let found = format!("{} MiB of memory", bytes >> 20);
    if bytes < wanted {
        let fix = format!(
            "give it {} MiB at least: two hundred people, and {hashes} passwords hashed at once (auth.password_hashes_at_once)",
            wanted >> 20
        );
        group.warn(found, fix);
    } else {
        group.ok(found);
    }
}

/// The control group's limit, or what the machine has where there is none.
fn memory_bytes() -> Option<u64> {
    let limit = fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let limit = limit.and_then(|text| text.trim().parse::<u64>().ok());
    limit.or_else(|| {
        let text = fs::read_to_string("/proc/meminfo").ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        Some(line.split_ascii_whitespace().next()?.parse::<u64>().ok()? * 1_024)
    })
}
