//! What files there are.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::Mutex;

use super::{
    FilePath,
    path::{DEPTH_MAX, is_name},
};

/// So many files are listed; further ones are streamed all the same.
const ENTRIES_MAX: usize = 100_000;

/// How old a list may be.
const KEPT: Duration = Duration::from_secs(5);

/// A file of the library.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its path.
    pub path: FilePath,
    /// In bytes.
    pub length: u64,
    /// When it was changed.
    pub modified: SystemTime,
}

/// The list of the folder, read anew when it is asked for and old.
pub(super) struct Library {
    folder: PathBuf,
    bytes_max: u64,
    /// Locked while it is read, so that many who ask make it read once.
    known: Mutex<Option<(Instant, Arc<Vec<Entry>>)>>,
}

impl Library {
    pub(super) fn new(folder: PathBuf, bytes_max: u64) -> Self {
        Self { folder, bytes_max, known: Mutex::new(None) }
    }

    /// Has the folder read anew when it is asked for next.
    pub(super) async fn forget(&self) {
        *self.known.lock().await = None;
    }

    /// All entries, by path.
    pub(super) async fn entries(&self) -> io::Result<Arc<Vec<Entry>>> {
        let mut known = self.known.lock().await;
        if let Some((when, entries)) = &*known
            && when.elapsed() < KEPT
        {
            return Ok(Arc::clone(entries));
        }
        let (folder, bytes_max) = (self.folder.clone(), self.bytes_max);
        let listing = tokio::task::spawn_blocking(move || listed(&folder, bytes_max));
        let entries = Arc::new(listing.await.map_err(io::Error::other)??);
        *known = Some((Instant::now(), Arc::clone(&entries)));
        Ok(entries)
    }
}

fn listed(folder: &Path, bytes_max: u64) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut folders = vec![(folder.to_owned(), String::new(), 1)];
    while let Some((folder, prefix, depth)) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            // Neither links nor what is no text or hidden can be streamed.
            let Some(name) = entry.file_name().to_str().filter(|name| is_name(name)).map(str::to_owned) else {
                continue;
            };
            let (kind, path) = (entry.file_type()?, format!("{prefix}{name}"));
            if kind.is_dir() && depth < DEPTH_MAX {
                folders.push((entry.path(), format!("{path}/"), depth + 1));
            } else if kind.is_file()
                && let Some(path) = FilePath::new(&path)
                // Files may go while they are listed.
                && let Ok(metadata) = entry.metadata()
                && metadata.len() <= bytes_max
            {
                entries.push(Entry { path, length: metadata.len(), modified: metadata.modified()? });
            }
            if entries.len() == ENTRIES_MAX {
                tracing::warn!(entries = ENTRIES_MAX, "the folder of audio files has more files than are listed");
                folders.clear();
                break;
            }
        }
    }
    entries.sort_unstable_by(|one, other| one.path.cmp(&other.path));
    Ok(entries)
}
