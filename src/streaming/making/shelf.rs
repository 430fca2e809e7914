//! Where what was made is kept: a folder for each content of each file, within a limit of bytes.
//!
//! ```text
//! 3f/3f…/low.opus medium.opus high.opus facts.json peaks refused     .parts/ (being written)   .marks/ (wanted)
//!                                                                    .unsent/ (not in the bucket yet)
//! ```

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use super::{facts::Facts, marks::Marks, order::Product, part::Part, unsent::Unsent, version::Version};
use crate::{
    streaming::{FilePath, FolderError, OpenFile, files::Files},
    telemetry::metrics::metrics,
    transcode::{Peaks, Quality},
};

const PARTS: &str = ".parts";
const MARKS: &str = ".marks";
pub(super) const FACTS: &str = "facts.json";
pub(super) const PEAKS: &str = "peaks";
const REFUSED: &str = "refused";

/// The longest reason that is kept, in bytes.
const REASON_BYTES_MAX: usize = 1_000;

/// To what part of the limit the shelf is emptied once it is above it, so that this is not done for every file.
const EMPTIED_TO: f64 = 0.9;

/// The folder of what was made.
pub(super) struct Shelf {
    root: PathBuf,
    bytes_max: u64,
    bytes: AtomicU64,
    /// The same folder, for those who are sent what is in it.
    files: Files,
    marks: Marks,
    /// What others are to get of it, where they do.
    unsent: Option<Unsent>,
}

impl Shelf {
    /// Opens the folder, made when it isn't there, and removes what processes that were killed left half done. What is made is `shared`
    /// with other nodes or not.
    pub(super) fn open(root: &Path, bytes_max: u64, shared: bool) -> Result<Self, FolderError> {
        let fail = |error| FolderError::of(root, "streaming.made_dir", error);
        let files = Files::open(root, u64::MAX).map_err(fail)?;
        let parts = root.join(PARTS);
        fs::create_dir_all(&parts).map_err(fail)?;
        let left = Part::sweep(&parts).map_err(fail)?;
        if left > 0 {
            tracing::info!(left, "removed what was left half made");
        }
        let marks = Marks::open(root.join(MARKS), parts).map_err(fail)?;
        let unsent = shared.then(|| Unsent::open(root)).transpose().map_err(fail)?;
        let shelf = Self { root: root.to_owned(), bytes_max, bytes: AtomicU64::new(0), files, marks, unsent };
        shelf.tidy();
        Ok(shelf)
    }

    /// What is wanted.
    pub(super) fn marks(&self) -> &Marks {
        &self.marks
    }

    /// What is not in the bucket yet, where there is one.
    pub(super) fn unsent(&self) -> Option<&Unsent> {
        self.unsent.as_ref()
    }

    /// Bytes of all that is here, as last counted.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Closes what nobody reads. Blocks.
    pub(super) fn close_unused(&self) {
        self.files.close_unused();
    }

    /// A new file to be written.
    pub(super) fn part(&self) -> io::Result<Part> {
        Part::create(&self.root.join(PARTS))
    }

    /// A quality that is here, open for reading. It counts as used.
    pub(super) async fn file(&self, version: &Version, product: Product) -> Option<Arc<OpenFile>> {
        let Product::Quality(quality) = product else { return None };
        let path = FilePath::new(&format!("{}/{}", version.folder(), quality_name(quality)))?;
        let file = self.files.get(&path).await.ok()?;
        // Another's file cannot be touched; it then goes earlier than it should.
        let _ = file.file.set_times(fs::FileTimes::new().set_accessed(SystemTime::now()));
        Some(file)
    }

    /// Puts a quality into its place.
    pub(super) fn put(&self, version: &Version, product: Product, part: Part) -> io::Result<()> {
        let Product::Quality(quality) = product else { return Ok(()) };
        self.put_named(version, &quality_name(quality), part)
    }

    fn put_named(&self, version: &Version, name: &str, part: Part) -> io::Result<()> {
        self.take_in(version, name, part)?;
        self.share(version, name);
        Ok(())
    }

    /// Has something sent to the bucket, where there is one.
    fn share(&self, version: &Version, name: &str) {
        // It is here all the same where that cannot be noted: others make it themselves.
        if let Some(Err(error)) = self.unsent.as_ref().map(|unsent| unsent.add(version, name)) {
            tracing::warn!(%error, "what was made is not sent to the bucket");
        }
    }

    /// Has what was found out sent again: no quality that others fetch is there without it, nor is expired after it by the store.
    pub(super) fn share_findings(&self, version: &Version) {
        [PEAKS, FACTS].into_iter().for_each(|name| self.share(version, name));
    }

    /// Puts what another node has made into its place.
    pub(super) fn take_in(&self, version: &Version, name: &str, part: Part) -> io::Result<()> {
        let length = part.finish(&self.place(version, name))?;
        self.bytes.fetch_add(length, Ordering::Relaxed);
        Ok(())
    }

    /// What was found out about a file.
    pub(super) fn facts(&self, version: &Version) -> Option<Facts> {
        serde_json::from_slice(&fs::read(self.place(version, FACTS)).ok()?).ok()
    }

    /// A file's waveform.
    pub(super) fn peaks(&self, version: &Version) -> Option<Peaks> {
        Peaks::of_bytes(&fs::read(self.place(version, PEAKS)).ok()?)
    }

    /// Keeps what was found out. The facts come last: where they are, the waveform is.
    pub(super) fn put_findings(&self, version: &Version, facts: &Facts, peaks: &Peaks) -> io::Result<()> {
        for (name, bytes) in [(PEAKS, peaks.to_bytes()), (FACTS, serde_json::to_vec(facts)?)] {
            let mut part = self.part()?;
            part.write_all(&bytes)?;
            self.put_named(version, name, part)?;
        }
        Ok(())
    }

    /// Why nothing can be made of a file.
    pub(super) fn refusal(&self, version: &Version) -> Option<String> {
        fs::read_to_string(self.place(version, REFUSED)).ok()
    }

    /// Keeps why nothing can be made of a file, so that nobody tries again until it changes.
    pub(super) fn refuse(&self, version: &Version, why: &str) -> io::Result<()> {
        let end = why.floor_char_boundary(REASON_BYTES_MAX.min(why.len()));
        self.write(version, REFUSED, &why.as_bytes()[..end])
    }

    /// Removes all that was made of a content.
    pub(super) fn remove(&self, version: &Version) {
        let folder = self.root.join(version.folder());
        let length = folder_bytes(&folder);
        if fs::remove_dir_all(&folder).is_ok() {
            let _ = self
                .bytes
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bytes| Some(bytes.saturating_sub(length)));
        }
    }

    /// Likewise, where more is known to be here than may.
    pub(super) fn tidy_if_full(&self) {
        if self.bytes.load(Ordering::Relaxed) > self.bytes_max {
            self.tidy();
        }
    }

    /// Counts what is here and, where that is too much, removes what was used longest ago.
    pub(super) fn tidy(&self) {
        let mut folders = self.folders();
        let mut bytes: u64 = folders.iter().map(|folder| folder.bytes).sum();
        if bytes > self.bytes_max {
            folders.sort_unstable_by_key(|folder| folder.used);
            let enough = (self.bytes_max as f64 * EMPTIED_TO) as u64;
            for folder in folders {
                if bytes <= enough {
                    break;
                }
                if fs::remove_dir_all(&folder.path).is_ok() {
                    bytes -= folder.bytes;
                    metrics().streaming.made_removed.increment(1);
                }
            }
        }
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// Whether there is more than the limit allows.
    pub(super) fn is_full(&self) -> bool {
        self.bytes() > self.bytes_max
    }

    /// Where something is.
    pub(super) fn place(&self, version: &Version, name: &str) -> PathBuf {
        self.root.join(version.folder()).join(name)
    }

    fn write(&self, version: &Version, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut part = self.part()?;
        part.write_all(bytes)?;
        self.take_in(version, name, part)
    }

    fn folders(&self) -> Vec<Folder> {
        let below = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
        let groups = below(&self.root).filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."));
        let folders = groups.flat_map(|group| below(&group.path()));
        folders.map(|folder| Folder::of(folder.path())).collect()
    }
}

/// What a quality is called there.
pub(super) fn quality_name(quality: Quality) -> String {
    format!("{}.opus", quality.name())
}

/// What was made of one content.
struct Folder {
    path: PathBuf,
    bytes: u64,
    /// When one of its files was last read or made.
    used: SystemTime,
}

impl Folder {
    fn of(path: PathBuf) -> Self {
        let mut used = SystemTime::UNIX_EPOCH;
        for file in fs::read_dir(&path).into_iter().flatten().flatten() {
            if let Ok(metadata) = file.metadata() {
                used = used.max(metadata.accessed().unwrap_or(used)).max(metadata.modified().unwrap_or(used));
            }
        }
        Self { bytes: folder_bytes(&path), path, used }
    }
}

fn folder_bytes(path: &Path) -> u64 {
    let files = fs::read_dir(path).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LOW: Product = Product::Quality(Quality::Low);

    struct Temporary(PathBuf);

    impl Drop for Temporary {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn temporary() -> Temporary {
        Temporary(std::env::temp_dir().join(format!("antiphon-shelf-{}", uuid::Uuid::now_v7())))
    }

    fn version(name: &str) -> Version {
        Version::named(&FilePath::new(name).expect("a path"), "\"1\"")
    }

    fn put(shelf: &Shelf, version: &Version, bytes: usize) {
        let mut part = shelf.part().expect("a part");
        part.write_all(&vec![7; bytes]).expect("writes");
        shelf.put(version, LOW, part).expect("puts");
    }

    #[tokio::test]
    async fn what_was_used_longest_ago_goes_first() {
        let folder = temporary();
        let shelf = Shelf::open(&folder.0, 2_500, false).expect("opens");
        let versions = ["a.mp3", "b.mp3", "c.mp3"].map(version);
        for (version, age_s) in versions.iter().zip([30, 20, 10]) {
            put(&shelf, version, 1_000);
            let then = SystemTime::now() - Duration::from_secs(age_s);
            let times = fs::FileTimes::new().set_accessed(then).set_modified(then);
            let file = fs::File::open(shelf.place(version, "low.opus")).expect("there");
            file.set_times(times).expect("sets them");
        }
        assert!(shelf.file(&versions[0], LOW).await.is_some(), "and is used now");
        assert!(shelf.is_full());
        shelf.tidy();
        assert_eq!(shelf.bytes(), 2_000);
        assert!(shelf.place(&versions[0], "low.opus").exists() && shelf.place(&versions[2], "low.opus").exists());
        assert!(!shelf.place(&versions[1], "low.opus").exists(), "the one that was not used");
        shelf.remove(&versions[2]);
        assert_eq!(shelf.bytes(), 1_000);
        assert_eq!(Shelf::open(&folder.0, 2_500, false).expect("opens again").bytes(), 1_000);
    }

    #[test]
    fn reasons_are_kept_and_cut() {
        let folder = temporary();
        let shelf = Shelf::open(&folder.0, 1_000_000, false).expect("opens");
        let version = version("a.mp3");
        assert_eq!(shelf.refusal(&version), None);
        shelf.refuse(&version, &"é".repeat(REASON_BYTES_MAX)).expect("writes");
        assert_eq!(shelf.refusal(&version).expect("a reason").len(), REASON_BYTES_MAX);
    }
}
