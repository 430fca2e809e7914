//! A file that is being written: it has its name only once it is whole.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

use rustix::fs::RenameFlags;

/// Written at once.
const BUFFER_BYTES: usize = 64 * 1_024;

/// A file without its name yet. It is locked while it is written: one that nobody holds was left by a process that ended,
/// and is removed. Dropped unfinished, it is removed at once.
pub(in crate::streaming) struct Part {
    path: PathBuf,
    writer: Option<BufWriter<File>>,
}

impl Part {
    /// In the folder of parts.
    pub(in crate::streaming) fn create(folder: &Path) -> io::Result<Self> {
        loop {
            let path = folder.join(uuid::Uuid::now_v7().to_string());
            let file = File::options().read(true).write(true).create_new(true).open(&path)?;
            file.lock()?;
            // Another process may have taken it for one left behind before it was locked.
            if file.metadata()?.nlink() > 0 {
                return Ok(Self { path, writer: Some(BufWriter::with_capacity(BUFFER_BYTES, file)) });
            }
        }
    }

    /// Gives it its name, once all of it is on the disk. Returns its length.
    pub(super) fn finish(mut self, name: &Path) -> io::Result<u64> {
        let Some(writer) = self.writer.take() else { return Err(io::ErrorKind::InvalidInput.into()) };
        let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        let length = file.metadata()?.len();
        if let Some(folder) = name.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::rename(&self.path, name)?;
        Ok(length)
    }

    /// Sees to it that what was written is on the disk.
    pub(in crate::streaming) fn sync(&mut self) -> io::Result<()> {
        let Some(writer) = &mut self.writer else { return Err(io::ErrorKind::InvalidInput.into()) };
        writer.flush()?;
        writer.get_ref().sync_all()
    }

    /// Gives it its name in an open folder, once all of it is on the disk. What has that name is replaced, or an error
    /// ([`io::ErrorKind::AlreadyExists`]).
    pub(in crate::streaming) fn finish_in(mut self, folder: &OwnedFd, name: &str, replace: bool) -> io::Result<()> {
        let Some(writer) = self.writer.take() else { return Err(io::ErrorKind::InvalidInput.into()) };
        let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        let flags = if replace { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        Ok(rustix::fs::renameat_with(rustix::fs::CWD, &self.path, folder, name, flags)?)
    }

    /// The same file, for reading what was written and flushed.
    pub(in crate::streaming) fn reopen(&self) -> io::Result<File> {
        File::open(&self.path)
    }

    /// Where it is until it has its name.
    pub(in crate::streaming) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives what was written so far another time of change.
    pub(in crate::streaming) fn set_modified(&mut self, time: SystemTime) -> io::Result<()> {
        let Some(writer) = &mut self.writer else { return Err(io::ErrorKind::InvalidInput.into()) };
        writer.flush()?;
        writer.get_ref().set_modified(time)
    }

    /// Removes what processes that ended have left in the folder of parts.
    pub(in crate::streaming) fn sweep(folder: &Path) -> io::Result<usize> {
        let mut removed = 0;
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            // It may be finished or removed by its owner meanwhile.
            let Ok(file) = File::open(&path) else { continue };
            if file.try_lock().is_ok() && fs::remove_file(&path).is_ok() {
                removed += 1;
            }
        }
        Ok(removed)
    }
}

impl Write for Part {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.as_mut().map_or(Err(io::ErrorKind::InvalidInput.into()), |writer| writer.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Under its name there is nothing any more once it is finished.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_gets_its_name_whole_or_not_at_all() {
        let folder = std::env::temp_dir().join(format!("antiphon-part-{}", uuid::Uuid::now_v7()));
        let parts = folder.join("parts");
        fs::create_dir_all(&parts).expect("can be made");
        let mut dropped = Part::create(&parts).expect("a part");
        dropped.write_all(b"half").expect("writes");
        drop(dropped);
        assert_eq!(fs::read_dir(&parts).expect("reads").count(), 0);

        let mut written = Part::create(&parts).expect("a part");
        written.write_all(b"whole").expect("writes");
        fs::write(parts.join("left"), "by a process that was killed").expect("writes");
        assert_eq!(Part::sweep(&parts).expect("sweeps"), 1, "what is being written stays");
        let name = folder.join("a/b");
        assert_eq!(written.finish(&name).expect("finishes"), 5);
        assert_eq!(fs::read(&name).expect("there"), b"whole");
        assert_eq!(fs::read_dir(&parts).expect("reads").count(), 0);
        let _ = fs::remove_dir_all(&folder);
    }
}
