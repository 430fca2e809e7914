//! Whoever has lost their node, or is asked to go to another, comes back: each in a thread of its own, since that waits,
//! while all others are read on. Only so many at once; the next have their turn when one is done.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Instant,
};

use super::{member::Member, resuming::Missed};
use crate::{
    ServerUrl,
    gateway::{Backoff, RESUME_FOR},
};

/// Sessions being resumed at once.
const UNDER_WAY_MAX: usize = 256;

/// Somebody without a node.
struct Leaver {
    index: usize,
    member: Box<Member>,
    /// Where a node that drains would have them go; the connection to it still works. Empty where it was lost.
    named: Vec<ServerUrl>,
    since: Instant,
}

/// Somebody for whom that is over.
pub(super) struct Returned {
    pub(super) index: usize,
    /// Since when they were not read.
    pub(super) since: Instant,
    pub(super) how: How,
}

/// How it ended.
pub(super) enum How {
    /// The session goes on.
    Back(Box<Member>, Missed),
    /// None of the nodes that were named took it: it stays where it is, as long as that lasts.
    Stays(Box<Member>),
    /// It is gone, for this reason.
    Ended(String),
}

/// Everyone who is on their way.
pub(super) struct Returning {
    waiting: VecDeque<Leaver>,
    under_way: usize,
    done: mpsc::Sender<Returned>,
    returned: mpsc::Receiver<Returned>,
    /// Nobody waits for them any more.
    is_over: Arc<AtomicBool>,
}

impl Returning {
    pub(super) fn new() -> Self {
        let (done, returned) = mpsc::channel();
        Self { waiting: VecDeque::new(), under_way: 0, done, returned, is_over: Arc::default() }
    }

    /// Sets out whoever has that place: to the nodes that are named, or, where none is, until the session goes on.
    pub(super) fn set_out(&mut self, index: usize, member: Box<Member>, named: Vec<ServerUrl>) {
        self.waiting.push_back(Leaver { index, member, named, since: Instant::now() });
        self.start();
    }

    /// Whoever has come back since this was asked before.
    pub(super) fn returned(&mut self) -> Vec<Returned> {
        let returned: Vec<Returned> = self.returned.try_iter().collect();
        self.under_way -= returned.len();
        self.start();
        returned
    }

    /// How many are on their way.
    pub(super) fn count(&self) -> usize {
        self.waiting.len() + self.under_way
    }

    fn start(&mut self) {
        while self.under_way < UNDER_WAY_MAX {
            let Some(leaver) = self.waiting.pop_front() else { return };
            self.under_way += 1;
            let (index, since) = (leaver.index, leaver.since);
            let (done, is_over) = (self.done.clone(), Arc::clone(&self.is_over));
            // Whoever waited may have given up.
            let travel = move || drop(done.send(leaver.travel(&is_over)));
            if let Err(error) = std::thread::Builder::new().name("return".to_owned()).spawn(travel) {
                let how = How::Ended(format!("no thread to resume the session in: {error}"));
                let _kept = self.done.send(Returned { index, since, how });
            }
        }
    }
}

impl Drop for Returning {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

impl Leaver {
    fn travel(self, is_over: &AtomicBool) -> Returned {
        let Self { index, member, named, since } = self;
        let how = if named.is_empty() { find_node(member, is_over) } else { move_to(member, &named) };
        Returned { index, since, how }
    }
}

/// Tries each of these once.
fn move_to(mut member: Box<Member>, named: &[ServerUrl]) -> How {
    for node in named {
        match member.resume_at(node) {
            Ok(missed) => return How::Back(member, missed),
            Err(error) => tracing::debug!(%error, "a member is not moved to the node that was named"),
        }
    }
    How::Stays(member)
}

/// Tries until the session goes on or is gone for good: where it was, then at each of the other nodes in turn.
fn find_node(mut member: Box<Member>, is_over: &AtomicBool) -> How {
    let (give_up_at, mut backoff) = (Instant::now() + RESUME_FOR, Backoff::new());
    let nodes = member.nodes();
    let mut last = String::new();
    for node in nodes.iter().cycle() {
        std::thread::sleep(backoff.pause());
        if Instant::now() >= give_up_at || is_over.load(Ordering::Relaxed) {
            break;
        }
        match member.resume_at(node) {
            Ok(missed) => return How::Back(member, missed),
            Err(error) if error.ends_session() => return How::Ended(error.to_string()),
            Err(error) => last = error.to_string(),
        }
    }
    How::Ended(format!("not resumed within {RESUME_FOR:?}: {last}"))
}
