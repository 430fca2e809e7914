//! Files of the folder, opened so that none is ever outside it.

use std::{
    fs::File,
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{FileExt, MetadataExt},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;
use quick_cache::sync::Cache;
use rustix::{
    fs::{AtFlags, Mode, OFlags, mkdirat, open, openat, statat, unlinkat},
    io::Errno,
};

use super::{FilePath, making::part::Part};

/// So many files are kept open.
const OPEN_MAX: usize = 512;

/// How long it is believed that an open file is still the one of its name.
const BELIEVED: Duration = Duration::from_secs(1);

/// How long a file stays open that nobody asks for.
const IDLE: Duration = Duration::from_secs(600);

/// A folder of files cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the folder {} ({setting}): {error}", path.display())]
pub struct FolderError {
    path: PathBuf,
    /// Which setting names it.
    setting: &'static str,
    error: io::Error,
}

impl FolderError {
    /// What is wrong with the folder that `setting` names.
    pub(super) fn of(path: &Path, setting: &'static str, error: io::Error) -> Self {
        Self { path: path.to_owned(), setting, error }
    }
}

/// A file that is open for reading.
#[derive(Debug)]
pub struct OpenFile {
    pub(super) file: File,
    /// Its own among the files of all folders, for as long as the server runs; a changed file gets another.
    pub(super) number: u64,
    /// In bytes.
    pub length: u64,
    /// When it was changed.
    pub modified: SystemTime,
    /// Its strong entity tag, in quotes: the same on all nodes that see the same length and time of change.
    pub etag: String,
    identity: Identity,
    /// When it was last found under its name, in milliseconds of `Files::began`.
    found_ms: AtomicU64,
}

impl OpenFile {
    /// The same open file, for those who read at places that they name.
    ///
    /// # Errors
    /// When the process may open no further one.
    pub fn handle(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Reads it from its beginning, whoever else reads it; a file that was replaced meanwhile is read to its end.
    #[must_use]
    pub fn reader(file: &Arc<Self>) -> FileReader {
        FileReader { file: Arc::clone(file), at: 0 }
    }
}

/// Somebody's place in a file.
#[derive(Debug)]
pub struct FileReader {
    file: Arc<OpenFile>,
    at: u64,
}

impl io::Read for FileReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl io::Seek for FileReader {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        let (from, by) = match to {
            io::SeekFrom::Start(at) => (at, 0),
            io::SeekFrom::End(by) => (self.file.length, by),
            io::SeekFrom::Current(by) => (self.at, by),
        };
        self.at = from.checked_add_signed(by).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

/// The strong entity tag of a file, in quotes, by its length in bytes and its time of change in seconds and nanoseconds.
pub(super) fn etag_of(length: u64, (seconds, nanos): (i64, i64)) -> String {
    format!("\"{length:x}-{seconds:x}-{nanos:x}\"")
}

/// What tells a file from the one that had its name before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

/// Of all folders together: what is made of files, and copies of a bucket's, are in folders of their own, and share the
/// memory for blocks with those that they are of.
static NUMBERS: AtomicU64 = AtomicU64::new(0);

/// The folder, and those of its files that are open.
pub(super) struct Files {
    folder: Arc<OwnedFd>,
    bytes_max: u64,
    began: Instant,
    open: Cache<FilePath, Arc<OpenFile>>,
    /// Held while sub-folders are made or removed, so that none goes before it has its file.
    sub_folders: Mutex<()>,
}

impl Files {
    /// Opens the folder, made when it isn't there. The folder itself may be a symbolic link; nothing in it may.
    pub(super) fn open(path: &Path, bytes_max: u64) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = open(path, flags, Mode::empty())?;
        Ok(Self {
            folder: Arc::new(folder),
            bytes_max,
            began: Instant::now(),
            open: Cache::new(OPEN_MAX),
            sub_folders: Mutex::new(()),
        })
    }

    /// The file of a path.
    ///
    /// # Errors
    /// `NotFound` and its like where there is none, `FileTooLarge`.
    pub(super) async fn get(&self, path: &FilePath) -> io::Result<Arc<OpenFile>> {
        let known = self.open.get(path);
        let now_ms = self.now_ms();
        if let Some(file) = &known {
            let age_ms = now_ms.saturating_sub(file.found_ms.load(Ordering::Relaxed));
            if u128::from(age_ms) < BELIEVED.as_millis() {
                return Ok(Arc::clone(file));
            }
        }
        let (folder, names) = (Arc::clone(&self.folder), path.clone());
        let opened = tokio::task::spawn_blocking(move || walk(&folder, &names)).await.map_err(io::Error::other)?;
        let (file, identity) = match opened {
            Ok((file, identity)) if identity.length <= self.bytes_max => (file, identity),
            other => {
                self.open.remove(path);
                return Err(other.err().unwrap_or_else(|| io::ErrorKind::FileTooLarge.into()));
            }
        };
        if let Some(known) = known.filter(|known| known.identity == identity) {
            known.found_ms.store(now_ms, Ordering::Relaxed);
            return Ok(known);
        }
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let opened = Arc::new(OpenFile::new(file, identity, number, now_ms)?);
        self.open.insert(path.clone(), Arc::clone(&opened));
        Ok(opened)
    }

    /// Milliseconds since this began.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Files {
    /// Closes what has no name any more, and so takes the disk's room for nobody, and what nobody has asked for lately. Who
    /// reads on has it open all the same. Blocks.
    pub(super) fn close_unused(&self) {
        let now_ms = self.now_ms();
        self.open.retain(|_, file| {
            let idle_ms = now_ms.saturating_sub(file.found_ms.load(Ordering::Relaxed));
            let is_named = file.file.metadata().is_ok_and(|metadata| metadata.nlink() > 0);
            is_named && u128::from(idle_ms) < IDLE.as_millis()
        });
    }

    /// Puts a whole file into its place, which is to be free unless it may `replace`; sub-folders are made. Blocks.
    pub(super) fn put(&self, mut part: Part, path: &FilePath, replace: bool) -> io::Result<()> {
        // What takes long is done before others wait.
        part.sync()?;
        let _sub_folders = self.sub_folders.lock();
        let (folder, name) = self.folder_of(path, true)?;
        part.finish_in(folder.as_ref().unwrap_or(&self.folder), name, replace)?;
        self.open.remove(path);
        Ok(())
    }

    /// Whether anything has a name, be it streamed or not. Blocks.
    pub(super) fn is_taken(&self, path: &FilePath) -> io::Result<bool> {
        let (folder, name) = match self.folder_of(path, false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            found => found?,
        };
        match statat(folder.as_ref().unwrap_or(&self.folder), name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(false),
            found => Ok(found.map(|_| true)?),
        }
    }

    /// Removes a file, and the sub-folders that are empty without it. Blocks.
    pub(super) fn remove(&self, path: &FilePath) -> io::Result<()> {
        let _sub_folders = self.sub_folders.lock();
        let (folder, name) = self.folder_of(path, false)?;
        unlinkat(folder.as_ref().unwrap_or(&self.folder), name, AtFlags::empty())?;
        self.open.remove(path);
        let mut above: Vec<&str> = path.names().rev().skip(1).collect();
        above.reverse();
        while let Some(name) = above.pop() {
            let Ok(folder) = self.walk_down(above.iter().copied(), false) else { break };
            // One with something in it stays, and with it those above.
            if unlinkat(folder.as_ref().unwrap_or(&self.folder), name, AtFlags::REMOVEDIR).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// The folder of a file, `None` for the one of all, and the file's name in it.
    fn folder_of<'a>(&self, path: &'a FilePath, make: bool) -> io::Result<(Option<OwnedFd>, &'a str)> {
        let mut names = path.names();
        let name = names.next_back().ok_or(io::ErrorKind::NotFound)?;
        Ok((self.walk_down(names, make)?, name))
    }

    /// The folder at the end of some names, `None` for the one of all. Like [`walk`], it follows nothing.
    fn walk_down<'a>(&self, names: impl Iterator<Item = &'a str>, make: bool) -> io::Result<Option<OwnedFd>> {
        let mut below: Option<OwnedFd> = None;
        for name in names {
            let above = below.as_ref().unwrap_or(&self.folder);
            if make {
                match mkdirat(above, name, Mode::from(0o755)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::DIRECTORY;
            below = Some(openat(above, name, flags, Mode::empty())?);
        }
        Ok(below)
    }
}

impl OpenFile {
    fn new(file: File, identity: Identity, number: u64, now_ms: u64) -> io::Result<Self> {
        let modified = file.metadata()?.modified()?;
        let etag = etag_of(identity.length, identity.modified);
        let found_ms = AtomicU64::new(now_ms);
        Ok(Self { file, number, length: identity.length, modified, etag, identity, found_ms })
    }
}

/// Opens a file name by name, following no symbolic link: there is no way up, out or around, whatever is renamed
/// meanwhile. What is no regular file (a pipe, a device) is not waited for and not taken.
fn walk(folder: &OwnedFd, path: &FilePath) -> io::Result<(File, Identity)> {
    let mut names = path.names().peekable();
    let mut below: Option<OwnedFd> = None;
    while let Some(name) = names.next() {
        let kind = if names.peek().is_some() { OFlags::DIRECTORY } else { OFlags::NONBLOCK };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | kind;
        below = Some(openat(below.as_ref().unwrap_or(folder), name, flags, Mode::empty())?);
    }
    let file = File::from(below.ok_or(io::ErrorKind::NotFound)?);
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let identity = Identity {
        device: metadata.dev(),
        inode: metadata.ino(),
        length: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
    };
    Ok((file, identity))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            let path = std::env::temp_dir().join(format!("antiphon-files-{}", uuid::Uuid::now_v7()));
            fs::create_dir_all(path.join("audio/sub")).expect("can be made");
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn path(text: &str) -> FilePath {
        FilePath::new(text).expect("a path")
    }

    #[tokio::test]
    async fn only_regular_files_within_the_folder_are_opened() {
        let folder = Folder::new();
        let audio = folder.0.join("audio");
        fs::write(folder.0.join("secret.mp3"), "secret").expect("writes");
        fs::write(audio.join("sub/a.mp3"), "sound").expect("writes");
        fs::create_dir(audio.join("dir.mp3")).expect("can be made");
        symlink(folder.0.join("secret.mp3"), audio.join("link.mp3")).expect("links");
        symlink("../..", audio.join("sub/up")).expect("links");
        symlink("sub", audio.join("inside")).expect("links");
        let pipe = audio.join("pipe.mp3");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, Mode::from(0o600), 0).expect("a pipe");
        let files = Files::open(&audio, 100).expect("opens");
        assert_eq!(files.get(&path("sub/a.mp3")).await.expect("there").length, 5);
        for outside in
            ["link.mp3", "sub/up/secret.mp3", "inside/a.mp3", "dir.mp3", "pipe.mp3", "sub/a.mp3/b.mp3", "no.mp3"]
        {
            assert!(files.get(&path(outside)).await.is_err(), "{outside}");
        }
        fs::write(audio.join("long.mp3"), [0; 101]).expect("writes");
        let long = files.get(&path("long.mp3")).await.expect_err("too long");
        assert_eq!(long.kind(), io::ErrorKind::FileTooLarge);
    }

    #[tokio::test]
    async fn a_file_that_is_replaced_is_another_and_one_that_is_not_is_the_same() {
        let folder = Folder::new();
        let audio = folder.0.join("audio");
        let files = Files::open(&audio, 100).expect("opens");
        fs::write(audio.join("a.mp3"), "one").expect("writes");
        let first = files.get(&path("a.mp3")).await.expect("there");
        // As if a while ago.
        let forget = |file: &OpenFile| file.found_ms.store(0, Ordering::Relaxed);
        let late = Files { began: Instant::now() - BELIEVED * 2, ..files };
        forget(&first);
        let again = late.get(&path("a.mp3")).await.expect("there");
        assert_eq!((again.number, &again.etag), (first.number, &first.etag));
        fs::write(audio.join("b.mp3"), "another").expect("writes");
        fs::rename(audio.join("b.mp3"), audio.join("a.mp3")).expect("renames");
        forget(&again);
        let other = late.get(&path("a.mp3")).await.expect("there");
        assert_eq!(other.length, 7);
        assert!(other.number != first.number && other.etag != first.etag);
        fs::remove_file(audio.join("a.mp3")).expect("removes");
        forget(&other);
        assert!(late.get(&path("a.mp3")).await.is_err());
    }

    #[tokio::test]
    async fn files_of_different_folders_have_different_numbers() {
        let folder = Folder::new();
        let audio = folder.0.join("audio");
        fs::write(audio.join("a.mp3"), "one").expect("writes");
        fs::write(audio.join("sub/a.mp3"), "other").expect("writes");
        let (one, other) =
            (Files::open(&audio, 100).expect("opens"), Files::open(&audio.join("sub"), 100).expect("opens"));
        let (one, other) =
            (one.get(&path("a.mp3")).await.expect("there"), other.get(&path("a.mp3")).await.expect("there"));
        assert_ne!(one.number, other.number, "blocks are kept by it");
    }

    #[tokio::test]
    async fn what_has_no_name_or_no_listener_is_closed() {
        let folder = Folder::new();
        let audio = folder.0.join("audio");
        let files = Files::open(&audio, 100).expect("opens");
        for name in ["gone.mp3", "idle.mp3", "heard.mp3"] {
            fs::write(audio.join(name), "sound").expect("writes");
            files.get(&path(name)).await.expect("there");
        }
        let late = Files { began: Instant::now() - IDLE * 2, ..files };
        let found = |name| late.open.get(&path(name)).map(|file| file.found_ms.store(late.now_ms(), Ordering::Relaxed));
        assert!(found("gone.mp3").is_some() && found("heard.mp3").is_some());
        fs::remove_file(audio.join("gone.mp3")).expect("removes");
        late.close_unused();
        let open = ["gone.mp3", "idle.mp3", "heard.mp3"].map(|name| late.open.get(&path(name)).is_some());
        assert_eq!(open, [false, false, true]);
    }

    #[test]
    fn folders_go_with_their_last_file() {
        let folder = Folder::new();
        let audio = folder.0.join("audio");
        let files = Files::open(&audio, 100).expect("opens");
        fs::create_dir_all(audio.join("a/b/c")).expect("can be made");
        for name in ["a/x.mp3", "a/b/c/y.mp3", "z.mp3"] {
            fs::write(audio.join(name), "sound").expect("writes");
        }
        files.remove(&path("a/b/c/y.mp3")).expect("removes");
        assert!(!audio.join("a/b").exists() && audio.join("a/x.mp3").exists(), "what is not empty stays");
        files.remove(&path("a/x.mp3")).expect("removes");
        files.remove(&path("z.mp3")).expect("removes");
        assert!(!audio.join("a").exists() && audio.exists(), "the folder itself stays");
    }
}
