//! Tracks that nobody writes any more: ended, or left behind by a process that is gone. They are mended where that is needed
//! and put into the library.
//!
//! ```text
//! audio folder/.recording/RECORDING/TRACK.opus, .jsonl     being written, or ended and not put away yet
//!              recordings/RECORDING/TRACK.opus, .jsonl     in the library
//! ```

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use antiphon_core::ids::{RecordingId, TrackId};

use super::{
    ogg::{self, HEAD_PAGES},
    timeline::{Timeline, TrackHead},
};

/// Where tracks are while they are written: hidden, and in the audio folder itself, so that a rename puts them away.
const WRITTEN: &str = ".recording";

/// Where they are then, a folder of the library.
pub const KEPT: &str = "recordings";

pub(super) const SOUND_ENDING: &str = "opus";
pub(super) const LINES_ENDING: &str = "jsonl";

/// The folder in which a recording's tracks are written.
pub(super) fn being_written(audio: &Path, recording: RecordingId) -> PathBuf {
    audio.join(WRITTEN).join(recording.to_string())
}

/// The folder in which they are kept.
#[must_use]
pub fn kept(audio: &Path, recording: RecordingId) -> PathBuf {
    audio.join(KEPT).join(recording.to_string())
}

/// The path of a track's sound in the library.
#[must_use]
pub fn sound_path(recording: RecordingId, track: TrackId) -> String {
    format!("{KEPT}/{recording}/{track}.{SOUND_ENDING}")
}

/// Where what is known of a track is in the library.
#[must_use]
pub fn lines_path(recording: RecordingId, track: TrackId) -> String {
    format!("{KEPT}/{recording}/{track}.{LINES_ENDING}")
}

/// What is known of a track that is kept. Blocks.
///
/// # Errors
/// When it is not there, or cannot be read.
pub fn timeline(audio: &Path, recording: RecordingId, track: TrackId) -> io::Result<Timeline> {
    Timeline::read(&kept(audio, recording).join(format!("{track}.{LINES_ENDING}")))
}

/// A track that is whole and nobody's, until this is dropped.
#[derive(Debug)]
pub struct EndedTrack {
    /// Whose it is.
    pub head: TrackHead,
    /// Samples at 48 kHz.
    pub samples: u64,
    /// Bytes.
    pub bytes: u64,
    path: PathBuf,
    /// Locked: no other process puts it away meanwhile.
    _file: File,
}

impl EndedTrack {
    /// Puts it into the library. Blocks.
    ///
    /// # Errors
    /// When it cannot be moved there; it is found again then.
    pub fn put_away(self, audio: &Path) -> io::Result<()> {
        let folder = kept(audio, self.head.recording);
        fs::create_dir_all(&folder)?;
        // The sound last: where it is, all of the track is.
        for ending in [LINES_ENDING, SOUND_ENDING] {
            let from = self.path.with_extension(ending);
            fs::rename(&from, folder.join(format!("{}.{ending}", self.head.track)))?;
        }
        Ok(())
    }

    /// Its files, each with its name in the library: the sound last, for where it is all of the track is.
    #[must_use]
    pub fn files(&self) -> [(PathBuf, String); 2] {
        let (recording, track) = (self.head.recording, self.head.track);
        [(LINES_ENDING, lines_path(recording, track)), (SOUND_ENDING, sound_path(recording, track))]
            .map(|(ending, name)| (self.path.with_extension(ending), name))
    }

    /// Removes it: its recording is no more, or has it elsewhere. Blocks.
    pub fn discard(self) {
        remove(&self.path);
    }
}

/// All tracks that nobody writes. Blocks.
///
/// # Errors
/// When the folder cannot be read.
pub fn ended(audio: &Path) -> io::Result<Vec<EndedTrack>> {
    let mut ended = Vec::new();
    let recordings = match fs::read_dir(audio.join(WRITTEN)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(ended),
        read => read?,
    };
    for recording in recordings.flatten() {
        for file in fs::read_dir(recording.path()).into_iter().flatten().flatten() {
            let path = file.path();
            if path.extension().is_none_or(|ending| ending != SOUND_ENDING) {
                continue;
            }
            match take(&path) {
                Ok(track) => ended.extend(track),
                Err(error) => tracing::warn!(path = %path.display(), %error, "a recorded track cannot be finished yet"),
            }
        }
        // Only one that is empty can be.
        let _ = fs::remove_dir(recording.path());
    }
    Ok(ended)
}

/// Whether tracks of a recording are written, or wait to be put away. Blocks.
#[must_use]
pub fn is_pending(audio: &Path, recording: RecordingId) -> bool {
    being_written(audio, recording).exists()
}

/// Bytes of a recording's tracks that are written now. Blocks.
#[must_use]
pub fn bytes_being_written(audio: &Path, recording: RecordingId) -> u64 {
    let files = fs::read_dir(being_written(audio, recording)).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
}

/// Takes a track that nobody has, and mends it; one that holds nothing is removed.
fn take(path: &Path) -> io::Result<Option<EndedTrack>> {
    let mut file = match File::options().read(true).write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    if file.try_lock().is_err() || !path.exists() {
        return Ok(None);
    }
    let Ok(timeline) = Timeline::read(&path.with_extension(LINES_ENDING)) else {
        remove(path);
        return Ok(None);
    };
    let samples = match timeline.samples {
        Some(samples) => samples,
        None => mend(&mut file)?,
    };
    if samples == 0 {
        remove(path);
        return Ok(None);
    }
    let bytes = file.metadata()?.len();
    Ok(Some(EndedTrack { head: timeline.head, samples, bytes, path: path.to_owned(), _file: file }))
}

/// Cuts off what is torn and marks the end; how many samples there are.
fn mend(file: &mut File) -> io::Result<u64> {
    let mut stream = Vec::new();
    file.read_to_end(&mut stream)?;
    let whole = ogg::whole(&stream);
    if whole.pages <= HEAD_PAGES {
        return Ok(0);
    }
    if !whole.is_ended {
        let (at, page) = ogg::ending(&stream, &whole);
        file.set_len(whole.bytes)?;
        file.seek(SeekFrom::Start(at))?;
        file.write_all(&page)?;
    }
    file.sync_all()?;
    Ok(whole.granule)
}

fn remove(path: &Path) {
    // The lines first: a sound without them is removed by whoever finds it.
    let _ = fs::remove_file(path.with_extension(LINES_ENDING));
    let _ = fs::remove_file(path);
}
