//! Whose turn it is on a processor that several threads want: media workers come first.

use std::sync::Once;

use rustix::process::{getpid, getpriority_process, setpriority_process};

/// Lowers this thread's priority to so many steps below the process's, as the main thread has it; the system knows the lowest.
/// Threads that this one starts begin with the same. Where that is not allowed the thread keeps its priority, and the log says so
/// once.
pub fn lower(steps: u16) {
    static SAID: Once = Once::new();
    if let Err(error) = lower_by(steps) {
        let thread = std::thread::current();
        SAID.call_once(|| {
            tracing::warn!(%error, thread = thread.name(), "threads keep the priority of the media workers, which come late now and then");
        });
    }
}

fn lower_by(steps: u16) -> rustix::io::Result<()> {
    // A process's number is its main thread's; without one named, it is this thread's.
    let process = getpriority_process(Some(getpid()))?;
    setpriority_process(None, process + i32::from(steps))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_of_a_lowered_one_is_not_lowered_twice() {
        let nice = || getpriority_process(None).expect("a priority");
        let process = getpriority_process(Some(getpid())).expect("a priority");
        let of_threads = std::thread::spawn(move || {
            lower(5);
            let of_its_own = std::thread::spawn(move || {
                let inherited = nice();
                lower(7);
                (inherited, nice())
            });
            (nice(), of_its_own.join().expect("ended"))
        });
        let lowered = |steps: i32| (process + steps).min(19);
        assert_eq!(of_threads.join().expect("ended"), (lowered(5), (lowered(5), lowered(7))));
        assert_eq!(getpriority_process(Some(getpid())).expect("a priority"), process, "of those threads alone");
    }
}
