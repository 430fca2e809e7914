//! Marks on the disk of what is not in the bucket yet: a bucket that is away, or a process that ends, costs nothing that was made.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tokio::sync::Notify;

use super::version::Version;

const FOLDER: &str = ".unsent";

/// So many are sent in one go; the others in the next.
const AT_ONCE: usize = 1_000;

/// The folder of marks.
pub(super) struct Unsent {
    folder: PathBuf,
    added: Notify,
}

impl Unsent {
    /// Below the folder of what is made.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let folder = root.join(FOLDER);
        fs::create_dir_all(&folder)?;
        Ok(Self { folder, added: Notify::new() })
    }

    /// Marks what was made.
    pub(super) fn add(&self, version: &Version, name: &str) -> io::Result<()> {
        fs::File::create(self.path(version, name))?;
        self.added.notify_one();
        Ok(())
    }

    /// It was sent, or is no more.
    pub(super) fn remove(&self, version: &Version, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(version, name))
    }

    /// Some of what is marked. Marks that cannot be read are removed.
    pub(super) fn some(&self) -> io::Result<Vec<(Version, String)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder)?.flatten().take(AT_ONCE) {
            let mark = entry.file_name().into_string().ok();
            let mark = mark.as_deref().and_then(|mark| mark.split_once('.'));
            match mark.and_then(|(version, name)| Some((Version::from_text(version)?, name.to_owned()))) {
                Some(mark) => found.push(mark),
                None => drop(fs::remove_file(entry.path())),
            }
        }
        Ok(found)
    }

    /// Waits until something was marked.
    pub(super) async fn added(&self) {
        self.added.notified().await;
    }

    fn path(&self, version: &Version, name: &str) -> PathBuf {
        self.folder.join(format!("{version}.{name}"))
    }
}
