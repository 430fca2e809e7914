//! Marks on the disk of what is wanted, so that a process that ends leaves its orders to the next.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    order::{Job, Product},
    part::Part,
    version::Version,
};
use crate::streaming::FilePath;

/// So many are read at a start; more cannot be of one process's queue.
const MARKS_MAX: usize = 100_000;

/// A file that was begun so often and never ended takes the process with it, and is not begun again.
pub(super) const ATTEMPTS_MAX: u32 = 3;

/// What is wanted.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    pub(super) path: FilePath,
    pub(super) product: Product,
    /// The mark's own name, which says of which content.
    name: String,
}

#[derive(Deserialize, Serialize)]
struct Written {
    path: String,
    product: String,
    attempts: u32,
}

/// The folder of marks.
pub(super) struct Marks {
    folder: PathBuf,
    parts: PathBuf,
}

impl Marks {
    pub(super) fn open(folder: PathBuf, parts: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        Ok(Self { folder, parts })
    }

    /// Marks an order, unless it is marked already.
    pub(super) fn add(&self, job: &Job) -> io::Result<()> {
        if self.name(job).exists() || job.is_ended() {
            return Ok(());
        }
        self.write(job, 0)?;
        // It may have ended while this was written.
        if job.is_ended() { self.remove(job) } else { Ok(()) }
    }

    /// Counts one more attempt, before it begins. Returns how many there were before that did not end.
    pub(super) fn begin(&self, job: &Job) -> io::Result<u32> {
        let before = read(&self.name(job)).map_or(0, |written| written.attempts);
        self.write(job, before + 1)?;
        Ok(before)
    }

    /// It ended, and is still wanted: by the next process, or at the next request.
    pub(super) fn keep(&self, job: &Job) -> io::Result<()> {
        self.write(job, 0)
    }

    /// It is wanted no more.
    pub(super) fn remove(&self, job: &Job) -> io::Result<()> {
        match fs::remove_file(self.name(job)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Everything that is wanted. Marks that cannot be read are removed.
    pub(super) fn all(&self) -> Vec<Mark> {
        let Ok(entries) = fs::read_dir(&self.folder) else { return Vec::new() };
        let mut marks = Vec::new();
        for entry in entries.flatten().take(MARKS_MAX) {
            let name = entry.file_name().into_string().unwrap_or_default();
            match read(&entry.path()).and_then(|written| Mark::of(&written, name)) {
                Some(mark) => marks.push(mark),
                None => drop(fs::remove_file(entry.path())),
            }
        }
        marks
    }

    /// Removes a mark of what is no longer there.
    pub(super) fn discard(&self, mark: &Mark) -> io::Result<()> {
        fs::remove_file(self.folder.join(&mark.name))
    }

    fn write(&self, job: &Job, attempts: u32) -> io::Result<()> {
        let written = Written { path: job.path.to_string(), product: job.key.product.name().to_owned(), attempts };
        let mut part = Part::create(&self.parts)?;
        part.write_all(&serde_json::to_vec(&written)?)?;
        part.finish(&self.name(job)).map(drop)
    }

    fn name(&self, job: &Job) -> PathBuf {
        self.folder.join(mark_name(&job.key.version, job.key.product))
    }
}

fn mark_name(version: &Version, product: Product) -> String {
    format!("{version}.{}", product.name())
}

impl Mark {
    fn of(written: &Written, name: String) -> Option<Self> {
        let product = Product::ALL.into_iter().find(|product| product.name() == written.product)?;
        Some(Self { path: FilePath::new(&written.path)?, product, name })
    }

    /// Whether it is of this content.
    pub(super) fn is_of(&self, version: &Version) -> bool {
        self.name == mark_name(version, self.product)
    }
}

fn read(path: &Path) -> Option<Written> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}
