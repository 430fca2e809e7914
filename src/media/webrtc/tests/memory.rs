//! What a listener's connection holds of memory, by the allocator's count.

#![allow(clippy::print_stdout, reason = "tests show the figures that they measure")]

use std::{env, process::Command};

use super::{ANNA, World};

/// Set where the process runs this test alone.
const ALONE: &str = "MEASURES_ALONE";
/// What an idle one may hold.
const KIB_MAX: usize = 96;

/// What the whole process has of the C library's allocator, which Rust's is here, and DTLS' as well.
#[expect(unsafe_code, reason = "the C library tells it by a function without a safe form")]
fn allocated_bytes() -> usize {
    // SAFETY: it takes nothing and reads the allocator's own numbers, under its locks.
    let info = unsafe { libc::mallinfo2() };
    info.uordblks + info.hblkhd
}

#[test]
fn a_connection_holds_no_more_memory_than_it_may() {
    if env::var_os(ALONE).is_some() {
        return measure();
    }
    // Other tests' memory would count as well; and so would what a thread keeps of what was freed.
    let (_, modules) = module_path!().split_once("::").expect("in a crate");
    let name = format!("{modules}::a_connection_holds_no_more_memory_than_it_may");
    let measured = Command::new(env::current_exe().expect("it runs"))
        .args(["--exact", &name, "--nocapture"])
        .envs([(ALONE, "1"), ("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0")])
        .output()
        .expect("started");
    let said = String::from_utf8_lossy(&measured.stdout);
    println!("{said}");
    assert!(measured.status.success() && said.contains("1 passed"), "{}", String::from_utf8_lossy(&measured.stderr));
}

fn measure() {
    // What is made once for all of them.
    drop(World::connected(&[ANNA]));
    let mut world = World::connected(&[ANNA]);
    (0..1_000).for_each(|number| world.speaks(ANNA, number));
    let (key, with_it) = (world.key(), allocated_bytes());
    world.peers.close(key);
    let held_kib = with_it.saturating_sub(allocated_bytes()) / 1_024;
    println!("{held_kib} KiB of memory for a connection that has heard 1,000 packets");
    assert!((8..=KIB_MAX).contains(&held_kib), "{held_kib} KiB");
}
