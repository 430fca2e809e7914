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
    bucket::Bucket,
    path::{DEPTH_MAX, is_name},
};

/// So many files are listed; further ones are streamed all the same.
pub(super) const ENTRIES_MAX: usize = 100_000;

/// How old a list of the folder may be.
const KEPT: Duration = Duration::from_secs(5);

/// How old a list of the bucket may be: a thousand names cost a request.
const KEPT_OF_BUCKET: Duration = Duration::from_secs(30);

/// A file of the library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its path.
    pub path: FilePath,
    /// In bytes.
    pub length: u64,
    /// When it was changed.
    pub modified: SystemTime,
}

/// The files of the folder, by path.
#[derive(Debug, PartialEq, Eq)]
pub struct Listing {
    /// The files.
    pub files: Vec<Entry>,
    /// Whether what is missing is not there. Else the folder is empty or partly unreadable, or has too many.
    pub is_whole: bool,
}

/// Some of the files, by path or not.
pub(super) struct Found {
    pub(super) files: Vec<Entry>,
    /// Whether there are no others.
    pub(super) is_whole: bool,
}

/// The list of the folder and the bucket, read anew when it is asked for and old.
pub(super) struct Library {
    folder: PathBuf,
    /// Where files are, if not in the folder.
    bucket: Option<Arc<Bucket>>,
    bytes_max: u64,
    /// Locked while it is read, so that many who ask make it read once.
    known: Mutex<Option<(Instant, Arc<Listing>)>>,
}

impl Library {
    pub(super) fn new(folder: PathBuf, bucket: Option<Arc<Bucket>>, bytes_max: u64) -> Self {
        Self { folder, bucket, bytes_max, known: Mutex::new(None) }
    }

    /// Has the list read anew when it is asked for next.
    pub(super) async fn forget(&self) {
        *self.known.lock().await = None;
    }

    pub(super) async fn entries(&self) -> io::Result<Arc<Listing>> {
        let mut known = self.known.lock().await;
        let kept = if self.bucket.is_some() { KEPT_OF_BUCKET } else { KEPT };
        if let Some((when, entries)) = &*known
            && when.elapsed() < kept
        {
            return Ok(Arc::clone(entries));
        }
        let entries = Arc::new(self.list().await?);
        *known = Some((Instant::now(), Arc::clone(&entries)));
        Ok(entries)
    }

    async fn list(&self) -> io::Result<Listing> {
        let (folder, bytes_max) = (self.folder.clone(), self.bytes_max);
        let found = tokio::task::spawn_blocking(move || found_in(&folder, bytes_max));
        let found = found.await.map_err(io::Error::other)??;
        let Some(bucket) = &self.bucket else { return Ok(found.into()) };
        let mut all = bucket.list().await?;
        all.is_whole &= found.is_whole;
        // What was recorded before there was a bucket.
        all.files.extend(found.files.into_iter().filter(|entry| entry.path.recording().is_some()));
        Ok(all.into())
    }
}

impl From<Found> for Listing {
    fn from(Found { mut files, is_whole }: Found) -> Self {
        files.sort_by(|one, other| one.path.cmp(&other.path));
        files.dedup_by(|one, other| one.path == other.path);
        // An empty folder may be one whose volume is not there, an empty bucket one under another prefix.
        Self { is_whole: is_whole && !files.is_empty(), files }
    }
}

/// What is in the folder, or as much of it as can be read. Of its own errors only the uppermost folder's count: what lies
/// below may be others' (`lost+found`), or go while it is listed.
pub(super) fn found_in(folder: &Path, bytes_max: u64) -> io::Result<Found> {
    let (mut files, mut is_whole) = (Vec::new(), true);
    let mut folders = vec![(folder.to_owned(), String::new(), 1)];
    while let Some((folder, prefix, depth)) = folders.pop() {
        let found = match fs::read_dir(folder) {
            Ok(found) => found,
            Err(error) if depth == 1 => return Err(error),
            Err(error) => {
                tracing::debug!(%error, "a folder of audio files cannot be read");
                is_whole = false;
                continue;
            }
        };
        for entry in found {
            let Ok((entry, kind)) = entry.and_then(|entry| entry.file_type().map(|kind| (entry, kind))) else {
                is_whole = false;
                continue;
            };
            // Neither links nor what is no text or hidden can be streamed.
            let Some(name) = entry.file_name().to_str().filter(|name| is_name(name)).map(str::to_owned) else {
                continue;
            };
            let path = format!("{prefix}{name}");
            if kind.is_dir() && depth < DEPTH_MAX {
                folders.push((entry.path(), format!("{path}/"), depth + 1));
            } else if kind.is_file()
                && let Some(path) = FilePath::new(&path)
                && let Ok(metadata) = entry.metadata()
                && let Ok(modified) = metadata.modified()
                && metadata.len() <= bytes_max
            {
                files.push(Entry { path, length: metadata.len(), modified });
            }
            if files.len() == ENTRIES_MAX {
                tracing::warn!(entries = ENTRIES_MAX, "the folder of audio files has more files than are listed");
                is_whole = false;
                folders.clear();
                break;
            }
        }
    }
    Ok(Found { files, is_whole })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_folder_may_be_one_whose_volume_is_not_there() {
        let folder = std::env::temp_dir().join(uuid::Uuid::new_v4().to_string());
        fs::create_dir(&folder).expect("made");
        let listed = |folder: &Path| found_in(folder, 10).map(Listing::from);
        assert!(!listed(&folder).expect("there").is_whole);
        fs::write(folder.join("a.mp3"), b"short").expect("written");
        fs::write(folder.join("b.mp3"), b"longer than ten").expect("written");
        let found = listed(&folder).expect("there");
        let paths: Vec<String> = found.files.iter().map(|file| file.path.to_string()).collect();
        assert!(found.is_whole && paths == ["a.mp3"], "{paths:?}");
        fs::remove_dir_all(&folder).expect("ours");
        assert!(listed(&folder).is_err());
    }
}
