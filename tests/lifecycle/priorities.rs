//! Which threads of a node come first on a processor that several want.

use std::{collections::HashMap, fs};

use super::Program;

/// The `nice` of each thread of the process, by the thread's name.
fn nice_of_threads(pid: u32) -> HashMap<String, Vec<i32>> {
    let mut found = HashMap::<String, Vec<i32>>::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).expect("it runs") {
        // A thread may end meanwhile.
        let Ok(stat) = fs::read_to_string(task.expect("an entry").path().join("stat")) else { continue };
        let (before, after) = stat.rsplit_once(')').expect("proc(5): the name stands in brackets");
        let (_, name) = before.split_once('(').expect("proc(5)");
        // proc(5): nice is the 19th field; the third comes first here.
        let nice = after.split_whitespace().nth(19 - 3).expect("proc(5)").parse().expect("a number");
        found.entry(name.to_owned()).or_default().push(nice);
    }
    found
}

#[tokio::test]
async fn media_workers_come_before_everything_else() {
    let settings =
        [("ANTIPHON_MEDIA__WORKERS", "2"), ("ANTIPHON_SERVER__NICENESS", "4"), ("ANTIPHON_MIXER__NICENESS", "7")];
    let mut program = Program::start(&settings);
    program.url();
    let own = rustix::process::getpriority_process(None).expect("a priority");
    let threads = nice_of_threads(program.child.id());
    for (name, lower_by) in [("media-0", 0), ("media-1", 0), ("mixer-0", 7), ("tokio-rt-worker", 4)] {
        let nice = threads.get(name).unwrap_or_else(|| panic!("no thread {name}: {threads:?}"));
        assert!(nice.iter().all(|nice| *nice == (own + lower_by).min(19)), "{name}: {nice:?}, the test {own}");
    }
    program.signal("TERM");
    assert!(program.ended().await.success());
}
