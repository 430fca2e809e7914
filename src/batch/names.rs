//! The audio files of a folder.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::streaming::FilePath;

/// A file, and its name below the folder.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) name: String,
}

/// All audio files below a folder, by name; the same that a server would list. Symbolic links are not followed.
pub(super) fn below(folder: &Path) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    let mut folders = vec![(folder.to_owned(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let (kind, name) = (entry.file_type()?, format!("{prefix}{name}"));
            if kind.is_dir() {
                folders.push((entry.path(), format!("{name}/")));
            } else if kind.is_file() && FilePath::new(&name).is_some() {
                found.push(Found { path: entry.path(), name });
            }
        }
    }
    found.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}
