//! Which objects have a copy on the disk, and which copy goes first.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::streaming::FilePath;

/// So many copies are kept: each has an entry here and a name on the disk, however short it is.
const COPIES_MAX: usize = 50_000;

/// The copies, with what they take together.
pub(super) struct Kept {
    bytes_max: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    copies: HashMap<FilePath, Held>,
    /// By when they were used: the first goes first.
    order: BTreeMap<u64, FilePath>,
    used: u64,
    bytes: u64,
    reserved: u64,
}

struct Held {
    bytes: u64,
    used: u64,
}

/// Room for a copy that is being made, until it is dropped.
pub(super) struct Room {
    kept: Arc<Kept>,
    bytes: u64,
}

impl Kept {
    pub(super) fn new(bytes_max: u64) -> Arc<Self> {
        Arc::new(Self { bytes_max, state: Mutex::default() })
    }

    /// Bytes of all copies.
    pub(super) fn bytes(&self) -> u64 {
        self.state.lock().bytes
    }

    /// Notes that a copy was used.
    pub(super) fn touch(&self, path: &FilePath) {
        let mut state = self.state.lock();
        if let Some(copy) = state.take(path) {
            state.put(path.clone(), copy.bytes);
        }
    }

    /// Notes a copy that is there, instead of the one that was.
    pub(super) fn insert(&self, path: FilePath, bytes: u64) {
        let mut state = self.state.lock();
        state.take(&path);
        state.put(path, bytes);
    }

    /// Notes that a copy is gone; false where there was none.
    pub(super) fn forget(&self, path: &FilePath) -> bool {
        self.state.lock().take(path).is_some()
    }

    /// Room for a copy of so many bytes, and which others have to go for it: those used longest ago. `None` where what is being
    /// made leaves too little.
    pub(super) fn reserve(self: &Arc<Self>, bytes: u64) -> Option<(Room, Vec<FilePath>)> {
        let mut state = self.state.lock();
        if state.reserved.saturating_add(bytes) > self.bytes_max {
            return None;
        }
        state.reserved += bytes;
        let mut gone = Vec::new();
        while state.bytes + state.reserved > self.bytes_max || state.copies.len() >= COPIES_MAX {
            let Some(path) = state.order.values().next().cloned() else { break };
            state.take(&path);
            gone.push(path);
        }
        Some((Room { kept: Arc::clone(self), bytes }, gone))
    }
}

impl State {
    fn take(&mut self, path: &FilePath) -> Option<Held> {
        let copy = self.copies.remove(path)?;
        self.order.remove(&copy.used);
        self.bytes -= copy.bytes;
        Some(copy)
    }

    fn put(&mut self, path: FilePath, bytes: u64) {
        self.used += 1;
        self.bytes += bytes;
        self.order.insert(self.used, path.clone());
        self.copies.insert(path, Held { bytes, used: self.used });
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.kept.state.lock().reserved -= self.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> FilePath {
        FilePath::new(&format!("{name}.mp3")).expect("a path")
    }

    #[test]
    fn what_was_used_longest_ago_makes_room() {
        let kept = Kept::new(100);
        for name in ["a", "b", "c"] {
            kept.insert(path(name), 30);
        }
        kept.touch(&path("a"));
        let (room, gone) = kept.reserve(40).expect("there is");
        assert_eq!((gone, kept.bytes()), (vec![path("b")], 60));
        assert!(kept.reserve(61).is_none(), "what is being made has its room");
        let (_other, gone) = kept.reserve(60).expect("without any copy");
        assert_eq!((gone, kept.bytes()), (vec![path("c"), path("a")], 0));
        drop(room);
        kept.insert(path("d"), 40);
        kept.insert(path("d"), 20);
        assert!(!kept.forget(&path("a")));
        assert_eq!(kept.bytes(), 20, "it took the other's place");
        assert!(kept.reserve(101).is_none(), "more than all");
    }
}
