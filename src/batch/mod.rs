//! `antiphon transcode` and `antiphon waveform`: a whole folder at once, without a server.

mod names;
mod show;

use std::{
    fs::{self, File},
    io::{self, Write},
    num::NonZero,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use self::{names::Found, show::Show};
use crate::{
    streaming::waveform::{self, Picture, WaveformJson},
    transcode::{Bounds, Findings, Input, Quality, SAMPLE_RATE_HZ, TranscodeError, Watch, transcode},
};

/// What is to be made of each file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The file as Ogg Opus: `NAME.low.opus`.
    Quality(Quality),
    /// Its waveform as numbers: `NAME.waveform.json`.
    WaveformJson,
    /// As a picture: `NAME.waveform.png`.
    WaveformPng,
    /// As a picture: `NAME.waveform.svg`.
    WaveformSvg,
}

impl Wanted {
    /// Behind the file's own name.
    fn ending(self) -> String {
        match self {
            Self::Quality(quality) => format!("{}.opus", quality.name()),
            Self::WaveformJson => "waveform.json".to_owned(),
            Self::WaveformPng => "waveform.png".to_owned(),
            Self::WaveformSvg => "waveform.svg".to_owned(),
        }
    }
}

/// A whole run.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The folder of the files, with sub-folders.
    pub input: PathBuf,
    /// Where what is made goes, in the same sub-folders.
    pub output: PathBuf,
    /// What is made of each file.
    pub wanted: Vec<Wanted>,
    /// Files at once; `None` for one on each processor.
    pub jobs: Option<NonZero<usize>>,
    /// Pictures' size and colour.
    pub picture: Picture,
    /// What one file may cost.
    pub bounds: Bounds,
    /// How long one may take.
    pub patience: Duration,
    /// An ffmpeg for files that the built-in decoders do not know.
    pub ffmpeg: Option<PathBuf>,
}

/// How a run went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Things that were made.
    pub made: usize,
    /// Things that were there already, newer than their file.
    pub kept: usize,
    /// Things that could not be made; each was named.
    pub failed: usize,
}

impl Batch {
    /// Makes everything that is not there yet, with bars where standard error is a terminal.
    ///
    /// # Errors
    /// When the folder cannot be read. What is wrong with single files is said and counted.
    pub fn run(&self) -> io::Result<Summary> {
        let found = names::below(&self.input)?;
        let tasks: Vec<(&Found, Wanted)> =
            found.iter().flat_map(|found| self.wanted.iter().map(move |wanted| (found, *wanted))).collect();
        let show = Show::new(tasks.len());
        let next = AtomicUsize::new(0);
        let jobs = self.jobs.or_else(|| thread::available_parallelism().ok()).map_or(1, NonZero::get);
        let work = || {
            let mut summary = Summary::default();
            while let Some((found, wanted)) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.one(found, *wanted, &show, &mut summary);
            }
            summary
        };
        let summaries = thread::scope(|scope| {
            let threads: Vec<_> = (0..jobs.min(tasks.len().max(1))).map(|_| scope.spawn(work)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or_default()).collect::<Vec<_>>()
        });
        show.end();
        Ok(summaries.into_iter().fold(Summary::default(), |all, one| Summary {
            made: all.made + one.made,
            kept: all.kept + one.kept,
            failed: all.failed + one.failed,
        }))
    }

    fn one(&self, found: &Found, wanted: Wanted, show: &Show, summary: &mut Summary) {
        let output = self.output.join(format!("{}.{}", found.name, wanted.ending()));
        if is_newer(&output, &found.path) {
            summary.kept += 1;
            show.passed();
            return;
        }
        match self.make(found, wanted, &output, show) {
            Ok(()) => summary.made += 1,
            Err(error) => {
                summary.failed += 1;
                show.say(&format!("{}: {error}", found.path.display()));
            }
        }
        show.passed();
    }

    fn make(&self, found: &Found, wanted: Wanted, output: &Path, show: &Show) -> Result<(), TranscodeError> {
        let file = File::open(&found.path)?;
        let watch = Watch::new(file.metadata()?.len(), self.patience);
        let ending = found.path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        let input = Input { file: &file, ending, ffmpeg: self.ffmpeg.as_deref() };
        let mut draft = Draft::of(output)?;
        let name = format!("{} ({})", found.name, wanted.ending());
        show.during(&name, &watch, || self.write(&input, wanted, &mut draft.file, &watch))?;
        Ok(draft.finish(output)?)
    }

    fn write(&self, input: &Input<'_>, wanted: Wanted, to: &mut File, watch: &Watch) -> Result<(), TranscodeError> {
        let Wanted::Quality(quality) = wanted else {
            let found = transcode(input, None, &self.bounds, watch)?;
            return Ok(to.write_all(&self.waveform(wanted, &found)?)?);
        };
        let mut writer = io::BufWriter::new(to);
        transcode(input, Some((&mut writer, quality)), &self.bounds, watch)?;
        Ok(writer.flush()?)
    }

    fn waveform(&self, wanted: Wanted, found: &Findings) -> io::Result<Vec<u8>> {
        match wanted {
            Wanted::WaveformPng => self.picture.png(&found.peaks).map_err(io::Error::other),
            Wanted::WaveformSvg => Ok(self.picture.svg(&found.peaks).into_bytes()),
            _ => {
                let seconds = found.samples as f64 / f64::from(SAMPLE_RATE_HZ);
                let zoom = waveform::zoom_of_a_screen(&found.peaks);
                Ok(serde_json::to_vec(&WaveformJson::new(&found.peaks, zoom, seconds))?)
            }
        }
    }
}

/// Whether `made` is there and was changed after `source`.
fn is_newer(made: &Path, source: &Path) -> bool {
    let changed = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    changed(made).zip(changed(source)).is_some_and(|(made, source)| made >= source)
}

/// A file beside its place until it is whole.
struct Draft {
    file: File,
    path: PathBuf,
}

impl Draft {
    fn of(output: &Path) -> io::Result<Self> {
        if let Some(folder) = output.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut path = output.as_os_str().to_owned();
        path.push(format!(".{}.part", uuid::Uuid::now_v7()));
        Ok(Self { file: File::create_new(&path)?, path: path.into() })
    }

    fn finish(self, output: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, output)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Under its name there is nothing any more once it is finished.
        let _ = fs::remove_file(&self.path);
    }
}
